/* SPDX-License-Identifier: MIT
** The memory store's swap: how an entry is changed.  Called with the mutex of
** the shard held; memory.h has the rules.
**
** A swap is planned (what will there be?), then it gathers the memory for
** that, and only then it lands; so nothing has changed when there is no
** memory.
*/
#include <string.h>

#include "store/memory.h"

enum { NEED_EXTRA = EGI_HELD | EGI_TIMED };

/* ------------------------------------------------------------ planning -- */

/* A swap on its way. */
typedef struct change {
  egi_place *place;
  egi_table *table;
  const egi_swap *swap;
  egi_entry *entry;              /* there is; NULL: none */
  uint32_t extra;                /* block there is; 0: none */
  uint32_t new_entry, new_extra; /* those gathered to replace what there is */
  unsigned flags;                /* of the entry there is */
  unsigned entry_class, extra_class; /* of the blocks that will be */
  egi_times times;                   /* from here on: as it will be */
  size_t len;                        /* of the record */
  unsigned after;                    /* flags, without the class */
  bool stays;
  void *record; /* PUT of a large one: its memory */
  uint64_t version, token;
} change;

/* A point that is so many milliseconds away. */
static int64_t point(int64_t now, int64_t ms) {
  int64_t from = now > 0 ? now : 0;
  return ms > (EGI_NEVER - 1 - from) / 1000 ? EGI_NEVER - 1 : now + ms * 1000;
}

/* A time with a limit, as the swap wants it. */
static int64_t until(int64_t before, int64_t now, int64_t ms) {
  if (ms == EGI_LEAVE_TIME)
    return before;
  return ms > 0 ? point(now, ms) : EGI_NEVER;
}

/* Does the swap leave every time as it is, and set none? */
static bool sets_no_time(const egi_swap *swap) {
  return (swap->hold != EGI_TAKE || swap->lease_ms <= 0) &&
         swap->not_before_ms <= 0 && swap->fresh_ms <= 0 && swap->life_ms <= 0;
}

static void plan_lease(change *c) {
  if (c->swap->hold == EGI_TAKE)
    c->times.lease = until(EGI_NEVER, c->place->now, c->swap->lease_ms);
  else if (c->swap->hold != EGI_KEEP)
    c->times.lease = EGI_NEVER;
}

static void plan_not_before(change *c) {
  int64_t now = c->place->now, ms = c->swap->not_before_ms;
  int64_t *not_before = &c->times.not_before;
  if (ms != EGI_LEAVE_TIME)
    *not_before = ms > 0 ? point(now, ms) : EGI_LONG_AGO;
  else if (now != EGI_NO_TIME && *not_before <= now)
    *not_before = EGI_LONG_AGO;
}

static void plan_stamp(change *c, bool stamps) {
  const eg_clock *clock = c->place->memory->env.clock;
  int64_t now = c->place->now;
  if (stamps)
    c->times.stamp = now + clock->offset_us(clock->ctx, now);
  else if (c->swap->write != EGI_LEAVE)
    c->times.stamp = 0;
}

static void plan_times(change *c, bool held) {
  egi_place *place = c->place;
  const egi_swap *swap = c->swap;
  bool stamps = swap->write == EGI_PUT && held;
  bool set = !sets_no_time(swap);
  c->times = place->view.timed ? place->view.times : EGI_NO_TIMES;
  if (!place->view.timed && !stamps && !set)
    return;
  if (set || stamps)
    egi_memory_now(place->memory, &place->now);
  plan_lease(c);
  plan_not_before(c);
  c->times.fresh = until(c->times.fresh, place->now, swap->fresh_ms);
  c->times.life = until(c->times.life, place->now, swap->life_ms);
  plan_stamp(c, stamps);
  if (c->times.stamp != 0 || egi_times_set(&c->times))
    c->after |= EGI_TIMED;
}

static void plan(change *c) {
  const egi_swap *swap = c->swap;
  const egi_view *view = &c->place->view;
  bool held = swap->hold == EGI_TAKE || (swap->hold == EGI_KEEP && view->held);
  c->after = held ? EGI_HELD : 0;
  c->len = swap->write == EGI_LEAVE ? view->bytes.len
           : swap->write == EGI_PUT ? swap->bytes.len
                                    : 0;
  plan_times(c, held);
  bool waits = c->times.not_before != EGI_LONG_AGO;
  bool fades = c->times.life != EGI_NEVER ||
               (c->len == 0 && (waits || c->times.lease != EGI_NEVER));
  if (fades)
    c->after |= EGI_FADES;
  if (c->place->key.bytes.len + c->len > EGI_DATA_MAX)
    c->after |= EGI_LARGE;
  c->stays = c->len > 0 || held || waits;
}

/* Rules 3 (but for expect) and 4. */
static bool may_land(egi_place *place, const egi_swap *swap) {
  const egi_view *view = &place->view;
  bool held = view->held;
  if (swap->token == 0 && swap->hold != EGI_TAKE)
    return true;
  if (held && view->timed && view->times.lease != EGI_NEVER)
    held = !egi_is_over(view->times.lease,
                        egi_memory_now(place->memory, &place->now));
  if (swap->token != 0 && (!held || swap->token != view->token))
    return false;
  return swap->hold != EGI_TAKE || !held;
}

/* ----------------------------------------------------------- gathering -- */

static bool gather_entry(change *c) {
  size_t key_len = c->place->key.bytes.len;
  size_t data = key_len + EGI_PLAIN_RECORD_MAX;
  if (!(c->after & EGI_LARGE) && key_len + c->len > data)
    data = key_len + c->len;
  c->entry_class = c->flags & EGI_CLASS_MASK;
  if (c->entry != NULL &&
      (c->swap->write != EGI_PUT ||
       EGI_ENTRY_HEAD + data <= egi_block_size(c->entry_class)))
    return true;
  c->entry_class = egi_block_class(EGI_ENTRY_HEAD + data);
  c->new_entry = egi_arena_alloc(&c->table->arena, c->entry_class);
  return c->new_entry != 0;
}

static bool gather_extra(change *c) {
  size_t holder = c->swap->hold == EGI_TAKE ? c->swap->holder.len : 0;
  assert(holder <= EGI_HOLDER_MAX);
  if ((c->after & NEED_EXTRA) == 0)
    return true;
  if (c->extra != 0) {
    const egi_extra *extra = egi_extra_at(c->table, c->extra);
    c->extra_class = (unsigned)(egi_own(&extra->sizes) >> 32);
    if (EGI_EXTRA_HEAD + holder <= egi_block_size(c->extra_class))
      return true;
  }
  c->extra_class = egi_block_class(EGI_EXTRA_HEAD + holder);
  c->new_extra = egi_arena_alloc(&c->table->arena, c->extra_class);
  return c->new_extra != 0;
}

static bool gather_record(change *c) {
  const eg_env *env = c->table->arena.env;
  if (!(c->after & EGI_LARGE) || c->swap->write != EGI_PUT)
    return true;
  if (c->entry != NULL && !egi_memory_count_apart(c->place))
    return false;
  c->record = env->alloc(env->alloc_ud, NULL, 0, c->len);
  return c->record != NULL;
}

static bool gather(change *c) {
  egi_arena *arena = &c->table->arena;
  c->new_entry = c->new_extra = 0;
  c->entry_class = c->extra_class = 0;
  c->record = NULL;
  if (!c->stays || (gather_record(c) && gather_entry(c) && gather_extra(c)))
    return true;
  if (c->record != NULL)
    arena->env->alloc(arena->env->alloc_ud, c->record, c->len, 0);
  if (c->new_entry != 0)
    egi_arena_release(arena, c->new_entry, c->entry_class);
  return false;
}

/* ------------------------------------------------------------- landing -- */

/* At least the wall clock's microseconds, for tokens that others see. */
static uint64_t at_least_wall(const egi_place *place, uint64_t next) {
  const eg_clock *clock = place->memory->env.clock;
  int64_t now = place->now;
  if (now == EGI_NO_TIME)
    now = clock->coarse_us(clock->ctx);
  int64_t wall = now + clock->offset_us(clock->ctx, now);
  bool use = wall > 0 && (uint64_t)wall > next &&
             wall < (int64_t)EGI_TOKEN_MAX;
  return use ? (uint64_t)wall : next;
}

/* The version after the swap, and the token. */
static void number(change *c) {
  const egi_place *place = c->place;
  uint64_t next = place->shard->counter + 1;
  bool makes = c->swap->hold == EGI_TAKE || c->swap->hold == EGI_BREAK;
  if (makes && place->memory->space->name != NULL)
    next = at_least_wall(place, next);
  assert(next <= EGI_TOKEN_MAX);
  place->shard->counter = next;
  c->version = next;
  c->token = makes ? next : place->view.token;
}

static void write_extra(const change *c, uint32_t at) {
  egi_extra *extra = egi_extra_at(c->table, at);
  eg_bytes holder = c->swap->holder;
  if (c->after & EGI_TIMED)
    egi_extra_write(extra, &c->times);
  if (c->swap->hold == EGI_TAKE) {
    egi_set(&extra->owner, (uint64_t)(uintptr_t)c->place->memory);
    egi_set(&extra->sizes, (uint64_t)c->extra_class << 32 | holder.len);
    egi_set_bytes(extra->holder, 0, holder.data, holder.len);
  } else if (!(c->after & EGI_HELD)) {
    egi_set(&extra->owner, 0);
    egi_set(&extra->sizes, (uint64_t)c->extra_class << 32);
  }
}

/* The length of a record in its entry, with what is counted of the key. */
static uint32_t counted_len(const change *c) {
  bool counted = c->entry != NULL && !(c->flags & EGI_LARGE) && c->len > 0;
  uint32_t counts = counted ? egi_own(&c->entry->len) & ~(uint32_t)EGI_LOW_MASK
                            : 0;
  return counts | (uint32_t)c->len;
}

static void write_record(const change *c, egi_entry *entry) {
  eg_bytes bytes = c->swap->bytes;
  if (!(c->after & EGI_LARGE)) {
    egi_set(&entry->len, counted_len(c));
    egi_set_bytes(entry->data, c->place->key.bytes.len, bytes.data, c->len);
    return;
  }
  egi_set(&entry->len, (uint32_t)c->len);
  memcpy(c->record, bytes.data, c->len);
  egi_set(egi_entry_large(entry), (uint64_t)(uintptr_t)c->record);
}

static void write_entry(const change *c, uint32_t extra) {
  const egi_key *key = &c->place->key;
  egi_entry *entry = c->entry;
  if (c->new_entry != 0) {
    entry = egi_entry_at(c->table, c->new_entry);
    egi_set(&entry->hash, key->hash);
    egi_set(&entry->len, 0);
    egi_set_key(entry->data, key);
  }
  egi_set(&entry->version, c->version << EGI_LOW_BITS | (key->bytes.len - 1));
  egi_set(&entry->token, c->token << EGI_LOW_BITS | c->after | c->entry_class);
  egi_set(&entry->extra, extra);
  if (c->swap->write != EGI_LEAVE)
    write_record(c, entry);
  if (c->entry == NULL) {
    egi_table_link(c->table, &c->place->spot, c->new_entry);
    if (egi_table_crowded(c->table))
      egi_table_grow(c->table);
  } else if (c->new_entry != 0) {
    egi_table_exchange(c->table, &c->place->spot, c->new_entry);
  }
}

/* Counts what the shard and the handles count. */
static void count(const change *c) {
  egi_shard *shard = c->place->shard;
  unsigned before = c->flags, after = c->stays ? c->after : 0;
  if ((before ^ after) & EGI_FADES)
    shard->fading += after & EGI_FADES ? 1 : -1u;
  if ((before ^ after) & EGI_LARGE)
    shard->large += after & EGI_LARGE ? 1 : -1u;
  if (before & EGI_HELD && c->swap->hold != EGI_KEEP)
    egi_shard_end_hold(shard, c->extra);
  if (c->swap->hold == EGI_TAKE)
    c->place->memory->holds[shard->number].n++;
}

/* What the swap replaced is given back; `extra` is what there is now. */
static void tidy(const change *c, uint32_t extra, void *record) {
  egi_arena *arena = &c->table->arena;
  if (c->entry != NULL && (c->new_entry != 0 || !c->stays))
    egi_arena_release(arena, c->place->spot.block, c->flags & EGI_CLASS_MASK);
  if (c->extra != 0 && c->extra != extra)
    egi_shard_release(c->place->shard, c->extra);
  if (record != NULL)
    arena->env->alloc(arena->env->alloc_ud, record, c->place->view.bytes.len,
                      0);
}

static void land(change *c) {
  bool needs = c->stays && (c->after & NEED_EXTRA) != 0;
  uint32_t extra = !needs ? 0 : c->new_extra != 0 ? c->new_extra : c->extra;
  void *record = NULL; /* the large one that there was */
  if (c->flags & EGI_LARGE && (!c->stays || c->swap->write != EGI_LEAVE))
    record = (void *)(uintptr_t)egi_own(egi_entry_large(c->entry));
  count(c);
  if (!c->stays && c->place->view.bytes.len > 0 && c->entry != NULL)
    egi_memory_uncount(c->place->shard, c->place->key.bytes,
                       c->place->key.hash);
  egi_table_begin(c->table);
  if (extra != 0)
    write_extra(c, extra);
  if (c->stays)
    write_entry(c, extra);
  else if (c->entry != NULL)
    egi_table_unlink(c->table, &c->place->spot);
  egi_table_end(c->table);
  tidy(c, extra, record);
}

eg_status egi_memory_swap(egi_place *place, const egi_swap *swap,
                          uint64_t *version, uint64_t *token) {
  egi_shard *shard = place->shard;
  change c;
  c.place = place;
  c.table = &shard->table;
  c.swap = swap;
  c.entry = place->spot.entry;
  c.extra = c.flags = 0;
  if (c.entry != NULL) {
    c.extra = egi_own(&c.entry->extra);
    c.flags = egi_entry_flags(c.entry);
  }
  if (!may_land(place, swap))
    return EG_CONFLICT;
  plan(&c);
  if (!gather(&c))
    return EG_NOMEM;
  number(&c);
  land(&c);
  *version = c.stays ? c.version : 0;
  *token = c.token;
  if (c.entry == NULL && c.stays && shard->fading > 0)
    egi_memory_sweep(place->memory, shard, place->now);
  if (swap->wake && shard->watches != NULL)
    egi_memory_wake(shard, &place->key);
  return EG_OK;
}

void egi_memory_prolong(egi_place *place, int64_t lease_ms) {
  egi_table *table = &place->shard->table;
  int64_t later = until(EGI_NEVER, place->now, lease_ms);
  if (!place->view.timed || later <= place->view.times.lease)
    return;
  uint32_t extra = egi_own(&place->spot.entry->extra);
  egi_table_begin(table);
  egi_set(&egi_extra_at(table, extra)->times[1], (uint64_t)later);
  egi_table_end(table);
}

/* ----------------------------------------------------- ends of handles -- */

static void drop(egi_memory *memory, egi_shard *shard, const egi_spot *spot) {
  unsigned char bytes[EG_KEY_MAX]; /* the entry may be gone when it wakes */
  egi_swap swap = {.write = EGI_LEAVE,
                   .hold = EGI_DROP,
                   .wake = true,
                   .not_before_ms = EGI_LEAVE_TIME,
                   .fresh_ms = EGI_LEAVE_TIME,
                   .life_ms = EGI_LEAVE_TIME};
  egi_place place = {
      .memory = memory, .shard = shard, .now = EGI_NO_TIME, .spot = *spot};
  uint64_t version, token;
  eg_bytes key = egi_entry_key(spot->entry);
  memcpy(bytes, key.data, key.len);
  key.data = bytes;
  egi_key_init(&place.key, key, egi_own(&spot->entry->hash));
  egi_entry_view(&shard->table, spot->entry, &place.view);
  eg_status status = egi_memory_swap(&place, &swap, &version, &token);
  assert(status == EG_OK);
  (void)status;
}

void egi_memory_drop_all(egi_memory *memory, egi_shard *shard) {
  const egi_table *table = &shard->table;
  const egi_holds *holds = &memory->holds[shard->number];
  uint32_t buckets = egi_own(&table->buckets);
  for (uint32_t i = 0; i < buckets && holds->n > 0; i++) {
    egi_spot spot;
    egi_table_chain(table, i, &spot);
    while (spot.entry != NULL) {
      uint32_t extra = egi_own(&spot.entry->extra);
      if (egi_entry_flags(spot.entry) & EGI_HELD &&
          egi_own(&egi_extra_at(table, extra)->owner) == (uintptr_t)memory)
        drop(memory, shard, &spot);
      egi_table_next(table, &spot);
    }
  }
  assert(holds->n == 0);
}
