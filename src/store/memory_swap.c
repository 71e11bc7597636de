/* SPDX-License-Identifier: MIT
** The memory store's swap: what it sees of an entry, and how an entry is
** changed.  Everything here is called with the mutex of the shard held;
** memory.h has the rules.
**
** A swap is planned (what will there be?), then it gathers the memory for
** that, and only then it lands; so nothing has changed when there is no
** memory.
*/
#include <string.h>

#include "store/memory.h"

enum {
  SWEEP_BUCKETS = 4, /* at each insert */
  NEED_EXTRA = EGI_HELD | EGI_TIMED
};

/* -------------------------------------------------------------- seeing -- */

static int64_t left_of(int64_t until, int64_t now) {
  return until > now ? until - now : 0;
}

static bool over(int64_t until, int64_t now) {
  return until != EGI_NEVER && now != EGI_NO_TIME && until <= now;
}

bool egi_memory_see_times(const egi_view *view, int64_t now, egi_seen *seen) {
  const egi_times *times = &view->times;
  egi_sight *at = &seen->at;
  at->timed = egi_times_set(times);
  at->stamp_us = times->stamp;
  if (now == EGI_NO_TIME)
    return true;
  bool waits = times->not_before > now;
  bool ended = over(times->life, now) || (view->bytes.len == 0 && !waits);
  if (over(times->lease, now)) {
    at->held = false;
    seen->holder = (eg_bytes){NULL, 0};
  }
  if (ended && !at->held)
    return false;
  if (at->held && times->lease != EGI_NEVER)
    at->left_us = times->lease - now;
  if (waits)
    at->not_before_left_us = times->not_before - now;
  if (times->fresh != EGI_NEVER)
    at->fresh_left_us = left_of(times->fresh, now);
  if (times->life != EGI_NEVER)
    seen->life_left_us = left_of(times->life, now);
  return true;
}

/* ---------------------------------------------------------- forgetting -- */

static void free_large(egi_shard *shard, egi_entry *entry) {
  const eg_env *env = shard->table.arena.env;
  void *record = (void *)(uintptr_t)egi_own(egi_entry_large(entry));
  env->alloc(env->alloc_ud, record, egi_own(&entry->len), 0);
  shard->large--;
}

static void release_extra(egi_shard *shard, uint32_t extra) {
  uint64_t sizes = egi_own(&egi_extra_at(&shard->table, extra)->sizes);
  egi_arena_release(&shard->table.arena, extra, (unsigned)(sizes >> 32));
}

/* The handle whose hold an extra block is has one less in this shard. */
static void end_hold(egi_shard *shard, uint32_t extra) {
  egi_word *word = &egi_extra_at(&shard->table, extra)->owner;
  egi_memory *owner = (egi_memory *)(uintptr_t)egi_own(word);
  egi_holds *holds = &owner->holds[shard->number];
  assert(holds->n > 0);
  holds->n--;
}

static bool is_opaque(const egi_view *view) {
  egi_head head;
  return egi_decode_head(view->bytes, &head) && !head.absent &&
         head.kind == EG_KIND_OPAQUE;
}

/* Takes out an entry whose time is over. */
static void forget(egi_memory *memory, egi_shard *shard,
                   const egi_spot *spot) {
  egi_table *table = &shard->table;
  egi_entry *entry = spot->entry;
  unsigned flags = egi_entry_flags(entry);
  uint32_t extra = egi_own(&entry->extra);
  egi_view view;
  egi_entry_view(table, entry, &view);
  bool tell = memory->space->name == NULL && is_opaque(&view);
  egi_table_begin(table);
  egi_table_unlink(table, spot);
  egi_table_end(table);
  if (flags & EGI_FADES)
    shard->fading--;
  if (flags & EGI_HELD)
    end_hold(shard, extra);
  if (extra != 0)
    release_extra(shard, extra);
  if (flags & EGI_LARGE)
    free_large(shard, entry);
  if (tell) { /* its block is the node of the list */
    egi_set(&entry->next, egi_own(&shard->forgotten));
    egi_set(&shard->forgotten, spot->block);
  } else {
    egi_arena_release(&table->arena, spot->block, flags & EGI_CLASS_MASK);
  }
}

/* Takes the first of the forgotten.  Returns the length of its key; 0: the key
** is opaque again, so its keeper has a newer value by now. */
static size_t take_forgotten(egi_shard *shard, void *key) {
  egi_table *table = &shard->table;
  uint32_t block = egi_own(&shard->forgotten);
  egi_entry *entry = egi_entry_at(table, block);
  eg_bytes bytes = egi_entry_key(entry);
  egi_view view = {.bytes = {NULL, 0}};
  egi_key again;
  egi_key_init(&again, bytes, egi_own(&entry->hash));
  egi_spot spot;
  egi_table_find(table, &again, &spot);
  if (spot.entry != NULL)
    egi_entry_view(table, spot.entry, &view);
  if (is_opaque(&view))
    bytes.len = 0;
  memcpy(key, bytes.data, bytes.len);
  egi_set(&shard->forgotten, egi_own(&entry->next));
  egi_arena_release(&table->arena, block,
                    egi_entry_flags(entry) & EGI_CLASS_MASK);
  return bytes.len;
}

size_t egi_memory_next_forgotten(egi_store *store, void *key) {
  egi_shard *shard = ((egi_memory *)store)->space->shards;
  size_t len = 0;
  if (egi_get(&shard->forgotten) == 0)
    return 0;
  egi_shard_lock(shard);
  while (len == 0 && egi_own(&shard->forgotten) != 0)
    len = take_forgotten(shard, key);
  egi_shard_unlock(shard);
  return len;
}

/* Forgets what is over in the next few buckets. */
static void sweep(egi_memory *memory, egi_shard *shard, int64_t now) {
  const egi_table *table = &shard->table;
  if (now == EGI_NO_TIME)
    now = memory->env.clock->coarse_us(memory->env.clock->ctx);
  for (unsigned i = 0; i < SWEEP_BUCKETS; i++) {
    if (shard->hand >= egi_own(&table->buckets))
      shard->hand = 0;
    egi_spot spot;
    egi_table_chain(table, shard->hand++, &spot);
    while (spot.entry != NULL) {
      egi_view view;
      egi_seen seen;
      egi_entry_view(table, spot.entry, &view);
      if (view.timed && !egi_memory_see(&view, now, &seen))
        forget(memory, shard, &spot);
      egi_table_next(table, &spot);
    }
  }
}

void egi_memory_look(egi_place *place, egi_seen *seen) {
  const egi_table *table = &place->shard->table;
  egi_table_find(table, &place->key, &place->spot);
  if (place->spot.entry != NULL) {
    egi_entry_view(table, place->spot.entry, &place->view);
    if (egi_entry_flags(place->spot.entry) & EGI_FADES)
      egi_memory_now(place->memory, &place->now);
    if (egi_memory_see(&place->view, place->now, seen))
      return;
    forget(place->memory, place->shard, &place->spot);
    egi_table_find(table, &place->key, &place->spot); /* where it would be */
  }
  place->view.token = 0;
  place->view.held = false;
  place->view.timed = false;
  place->view.bytes.len = 0;
  egi_memory_absent(place->now, seen);
}

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
    held = !over(view->times.lease,
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

static void number(change *c) {
  const egi_place *place = c->place;
  uint64_t next = place->shard->counter + 1;
  bool token = c->swap->hold == EGI_TAKE || c->swap->hold == EGI_BREAK;
  if (token && place->memory->space->name != NULL)
    next = at_least_wall(place, next);
  assert(next <= EGI_TOKEN_MAX);
  place->shard->counter = next;
  c->version = next;
  c->token = token ? next : place->view.token;
}

static void write_extra(const change *c, uint32_t at) {
  egi_extra *extra = egi_extra_at(c->table, at);
  const eg_bytes *holder = &c->swap->holder;
  if (c->after & EGI_TIMED)
    egi_extra_write(extra, &c->times);
  if (c->swap->hold == EGI_TAKE) {
    egi_set(&extra->owner, (uint64_t)(uintptr_t)c->place->memory);
    egi_set(&extra->sizes, (uint64_t)c->extra_class << 32 | holder->len);
    egi_set_bytes(extra->holder, 0, holder->data, holder->len);
  } else if (!(c->after & EGI_HELD)) {
    egi_set(&extra->owner, 0);
    egi_set(&extra->sizes, (uint64_t)c->extra_class << 32);
  }
}

static void write_record(const change *c, egi_entry *entry) {
  eg_bytes bytes = c->swap->bytes;
  egi_set(&entry->len, (uint32_t)c->len);
  if (c->len == 0)
    return;
  if (!(c->after & EGI_LARGE)) {
    egi_set_bytes(entry->data, c->place->key.bytes.len, bytes.data, c->len);
    return;
  }
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

static void count(const change *c) {
  egi_shard *shard = c->place->shard;
  unsigned before = c->flags, after = c->stays ? c->after : 0;
  if ((before ^ after) & EGI_FADES)
    shard->fading += after & EGI_FADES ? 1 : -1u;
  if ((before ^ after) & EGI_LARGE)
    shard->large += after & EGI_LARGE ? 1 : -1u;
  if (before & EGI_HELD && c->swap->hold != EGI_KEEP)
    end_hold(shard, c->extra);
  if (c->swap->hold == EGI_TAKE)
    c->place->memory->holds[shard->number].n++;
}

/* What the swap replaced is given back; `extra` is what there is now. */
static void tidy(const change *c, uint32_t extra, void *record) {
  egi_arena *arena = &c->table->arena;
  if (c->entry != NULL && (c->new_entry != 0 || !c->stays))
    egi_arena_release(arena, c->place->spot.block, c->flags & EGI_CLASS_MASK);
  if (c->extra != 0 && c->extra != extra)
    release_extra(c->place->shard, c->extra);
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
  change c;
  egi_shard *shard = place->shard;
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
    sweep(place->memory, shard, place->now);
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

void egi_memory_free_large(egi_shard *shard) {
  const egi_table *table = &shard->table;
  uint32_t buckets = egi_own(&table->buckets);
  for (uint32_t i = 0; i < buckets && shard->large > 0; i++) {
    egi_spot spot;
    egi_table_chain(table, i, &spot);
    while (spot.entry != NULL) {
      if (egi_entry_flags(spot.entry) & EGI_LARGE)
        free_large(shard, spot.entry);
      egi_table_next(table, &spot);
    }
  }
}
