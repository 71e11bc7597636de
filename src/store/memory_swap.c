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

enum { SWEEP_BUCKETS = 4 /* at each insert */ };

/* -------------------------------------------------------------- seeing -- */

static int64_t left_of(int64_t until, int64_t now) {
  return until > now ? until - now : 0;
}

static bool over(int64_t until, int64_t now) {
  return until != EGI_NEVER && now != EGI_NO_TIME && until <= now;
}

void egi_memory_absent(int64_t now, egi_seen *seen) {
  bool clocked = now != EGI_NO_TIME;
  seen->at = (egi_sight){.clocked = clocked,
                         .now_us = clocked ? now : 0,
                         .left_us = -1,
                         .fresh_left_us = -1};
  seen->version = 0;
  seen->bytes = (eg_bytes){NULL, 0};
  seen->holder = (eg_bytes){NULL, 0};
  seen->life_left_us = -1;
  seen->mark[0] = 0;
}

/* The times of a view.  False: it is absent by then. */
static bool see_times(const egi_view *view, int64_t now, egi_seen *seen) {
  const egi_times *times = &view->times;
  egi_sight *at = &seen->at;
  at->held = view->held && !over(times->lease, now);
  at->timed = egi_times_set(times);
  at->stamp_us = times->stamp;
  if (at->held)
    seen->holder = view->holder;
  if (now == EGI_NO_TIME)
    return true;
  bool waits = times->not_before > now;
  if (!at->held && (over(times->life, now) || (view->bytes.len == 0 && !waits)))
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

bool egi_memory_see(const egi_view *view, int64_t now, egi_seen *seen) {
  egi_memory_absent(now, seen);
  seen->at.token = view->token;
  seen->at.held = view->held;
  seen->version = seen->mark[0] = view->version;
  seen->bytes = view->bytes;
  return !view->has_times || see_times(view, now, seen);
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
  egi_holds *holds = &owner->holds[shard - owner->space->shards];
  assert(holds->n > 0);
  holds->n--;
}

static bool is_opaque(const egi_view *view) {
  egi_head head;
  return egi_decode_head(view->bytes, &head) && !head.absent &&
         head.kind == EG_KIND_OPAQUE;
}

/* Takes out an entry whose time is over. */
static void forget(egi_memory *memory, egi_shard *shard, uint32_t at) {
  egi_table *table = &shard->table;
  egi_entry *entry = egi_entry_at(table, at);
  unsigned flags = egi_entry_flags(entry);
  uint32_t extra = egi_own(&entry->extra);
  egi_view view;
  egi_entry_view(table, entry, &view);
  bool tell = memory->space->name == NULL && is_opaque(&view);
  egi_table_begin(table);
  egi_table_unlink(table, at);
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
    egi_set(&shard->forgotten, at);
  } else {
    egi_arena_release(&table->arena, at, flags & EGI_CLASS_MASK);
  }
}

size_t egi_memory_next_forgotten(egi_store *store, void *key) {
  egi_memory *memory = (egi_memory *)store;
  egi_shard *shard = memory->space->shards;
  size_t len = 0;
  if (egi_get(&shard->forgotten) == 0)
    return 0;
  egi_shard_lock(shard);
  while (len == 0 && egi_own(&shard->forgotten) != 0) {
    egi_table *table = &shard->table;
    uint32_t at = egi_own(&shard->forgotten);
    egi_entry *entry = egi_entry_at(table, at);
    egi_set(&shard->forgotten, egi_own(&entry->next));
    eg_bytes bytes = egi_entry_key(entry);
    egi_key now_key;
    egi_key_init(&now_key, bytes, egi_own(&entry->hash));
    uint32_t again = egi_table_find(table, &now_key);
    egi_view view = {.bytes = {NULL, 0}};
    if (again != 0)
      egi_entry_view(table, egi_entry_at(table, again), &view);
    if (!is_opaque(&view)) { /* else its keeper has a newer value by now */
      memcpy(key, bytes.data, bytes.len);
      len = bytes.len;
    }
    egi_arena_release(&table->arena, at,
                      egi_entry_flags(entry) & EGI_CLASS_MASK);
  }
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
    uint32_t at = egi_table_chain(table, shard->hand++);
    while (at != 0) {
      const egi_entry *entry = egi_entry_at(table, at);
      uint32_t after = egi_own(&entry->next);
      egi_view view;
      egi_seen seen;
      if (egi_entry_flags(entry) & EGI_FADES) {
        egi_entry_view(table, entry, &view);
        if (!egi_memory_see(&view, now, &seen))
          forget(memory, shard, at);
      }
      at = after;
    }
  }
}

uint32_t egi_memory_look(egi_memory *memory, egi_shard *shard,
                         const egi_key *key, int64_t *now, egi_seen *seen) {
  uint32_t at = egi_table_find(&shard->table, key);
  if (at != 0) {
    const egi_entry *entry = egi_entry_at(&shard->table, at);
    egi_view view;
    if (egi_entry_flags(entry) & EGI_FADES)
      egi_memory_now(memory, now);
    egi_entry_view(&shard->table, entry, &view);
    if (egi_memory_see(&view, *now, seen))
      return at;
    forget(memory, shard, at);
  }
  egi_memory_absent(*now, seen);
  return 0;
}

/* ------------------------------------------------------------ planning -- */

/* A swap on its way. */
typedef struct change {
  egi_memory *memory;
  egi_shard *shard;
  const egi_key *key;
  const egi_swap *swap;
  int64_t now;
  egi_view before;
  uint32_t entry, extra; /* blocks there are; 0: none */
  uint32_t new_entry, new_extra; /* and those gathered to replace them */
  unsigned entry_class, extra_class; /* of these */
  egi_times times; /* from here on: as it will be */
  size_t len;      /* of the record */
  bool stays, held, needs_extra, large;
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

static void plan_times(change *c) {
  const egi_swap *swap = c->swap;
  egi_times *times = &c->times;
  *times = c->before.has_times ? c->before.times : EGI_NO_TIMES;
  bool set = (swap->hold == EGI_TAKE && swap->lease_ms > 0) ||
             swap->not_before_ms > 0 || swap->fresh_ms > 0 ||
             swap->life_ms > 0;
  bool stamps = swap->write == EGI_PUT && c->held;
  if (set || stamps)
    egi_memory_now(c->memory, &c->now);
  if (swap->hold == EGI_TAKE)
    times->lease = until(EGI_NEVER, c->now, swap->lease_ms);
  else if (swap->hold != EGI_KEEP)
    times->lease = EGI_NEVER;
  if (swap->not_before_ms != EGI_LEAVE_TIME)
    times->not_before = swap->not_before_ms > 0
                            ? point(c->now, swap->not_before_ms)
                            : EGI_LONG_AGO;
  else if (c->now != EGI_NO_TIME && times->not_before <= c->now)
    times->not_before = EGI_LONG_AGO;
  times->fresh = until(times->fresh, c->now, swap->fresh_ms);
  times->life = until(times->life, c->now, swap->life_ms);
  if (swap->write != EGI_LEAVE)
    times->stamp = 0;
  if (stamps) {
    const eg_clock *clock = c->memory->env.clock;
    times->stamp = c->now + clock->offset_us(clock->ctx, c->now);
  }
}

static void plan(change *c) {
  const egi_swap *swap = c->swap;
  c->held = swap->hold == EGI_TAKE ||
            (swap->hold == EGI_KEEP && c->before.held);
  c->len = swap->write == EGI_LEAVE ? c->before.bytes.len
           : swap->write == EGI_PUT ? swap->bytes.len
                                    : 0;
  plan_times(c);
  c->stays = c->len > 0 || c->held || c->times.not_before != EGI_LONG_AGO;
  c->needs_extra = c->stays && (c->held || c->times.stamp != 0 ||
                                egi_times_set(&c->times));
  c->large = c->key->bytes.len + c->len > EGI_DATA_MAX;
}

/* Rules 3 (but for expect) and 4. */
static bool may_land(change *c) {
  const egi_swap *swap = c->swap;
  bool held = c->before.held;
  if (swap->token == 0 && swap->hold != EGI_TAKE)
    return true;
  if (held && c->before.times.lease != EGI_NEVER)
    held = !over(c->before.times.lease, egi_memory_now(c->memory, &c->now));
  if (swap->token != 0 && (!held || swap->token != c->before.token))
    return false;
  return swap->hold != EGI_TAKE || !held;
}

/* ----------------------------------------------------------- gathering -- */

static bool gather_entry(change *c) {
  const egi_table *table = &c->shard->table;
  size_t key_len = c->key->bytes.len;
  size_t data = key_len + EGI_PLAIN_RECORD_MAX;
  if (!c->large && key_len + c->len > data)
    data = key_len + c->len;
  if (c->entry != 0) {
    const egi_entry *entry = egi_entry_at(table, c->entry);
    c->entry_class = egi_entry_flags(entry) & EGI_CLASS_MASK;
    if (c->swap->write != EGI_PUT ||
        EGI_ENTRY_HEAD + data <= egi_block_size(c->entry_class))
      return true;
  }
  c->entry_class = egi_block_class(EGI_ENTRY_HEAD + data);
  c->new_entry = egi_arena_alloc(&c->shard->table.arena, c->entry_class);
  return c->new_entry != 0;
}

static bool gather_extra(change *c) {
  size_t holder = c->swap->hold == EGI_TAKE ? c->swap->holder.len : 0;
  assert(holder <= EGI_HOLDER_MAX);
  if (!c->needs_extra)
    return true;
  if (c->extra != 0) {
    const egi_extra *extra = egi_extra_at(&c->shard->table, c->extra);
    c->extra_class = (unsigned)(egi_own(&extra->sizes) >> 32);
    if (EGI_EXTRA_HEAD + holder <= egi_block_size(c->extra_class))
      return true;
  }
  c->extra_class = egi_block_class(EGI_EXTRA_HEAD + holder);
  c->new_extra = egi_arena_alloc(&c->shard->table.arena, c->extra_class);
  return c->new_extra != 0;
}

static bool gather_record(change *c) {
  const eg_env *env = c->shard->table.arena.env;
  if (!c->large || c->swap->write != EGI_PUT)
    return true;
  c->record = env->alloc(env->alloc_ud, NULL, 0, c->len);
  return c->record != NULL;
}

static bool gather(change *c) {
  egi_arena *arena = &c->shard->table.arena;
  if (!c->stays ||
      (gather_record(c) && gather_entry(c) && gather_extra(c)))
    return true;
  if (c->record != NULL)
    arena->env->alloc(arena->env->alloc_ud, c->record, c->len, 0);
  if (c->new_entry != 0)
    egi_arena_release(arena, c->new_entry, c->entry_class);
  return false;
}

/* ------------------------------------------------------------- landing -- */

static void number(change *c) {
  egi_shard *shard = c->shard;
  uint64_t next = shard->counter + 1;
  bool token = c->swap->hold == EGI_TAKE || c->swap->hold == EGI_BREAK;
  if (token && c->memory->space->name != NULL) {
    const eg_clock *clock = c->memory->env.clock;
    int64_t now = c->now;
    if (now == EGI_NO_TIME)
      now = clock->coarse_us(clock->ctx);
    int64_t wall = now + clock->offset_us(clock->ctx, now);
    if (wall > 0 && (uint64_t)wall > next && (uint64_t)wall < EGI_TOKEN_MAX)
      next = (uint64_t)wall;
  }
  assert(next <= EGI_TOKEN_MAX);
  shard->counter = next;
  c->version = next;
  c->token = token ? next : c->before.token;
}

static void write_extra(const change *c, uint32_t at) {
  egi_extra *extra = egi_extra_at(&c->shard->table, at);
  const eg_bytes *holder = &c->swap->holder;
  egi_extra_write(extra, &c->times);
  if (c->swap->hold == EGI_TAKE) {
    egi_set(&extra->owner, (uint64_t)(uintptr_t)c->memory);
    egi_set(&extra->sizes, (uint64_t)c->extra_class << 32 | holder->len);
    egi_set_bytes(extra->holder, 0, holder->data, holder->len);
  } else if (!c->held) {
    egi_set(&extra->owner, 0);
    egi_set(&extra->sizes, (uint64_t)c->extra_class << 32);
  }
}

static void write_record(const change *c, egi_entry *entry) {
  egi_set(&entry->len, (uint32_t)c->len);
  if (c->len == 0)
    return;
  if (!c->large) {
    egi_set_bytes(entry->data, c->key->bytes.len, c->swap->bytes.data, c->len);
    return;
  }
  memcpy(c->record, c->swap->bytes.data, c->len);
  egi_set(egi_entry_large(entry), (uint64_t)(uintptr_t)c->record);
}

static unsigned flags_after(const change *c) {
  const egi_times *times = &c->times;
  bool fades = times->life != EGI_NEVER ||
               (c->len == 0 && (times->lease != EGI_NEVER ||
                                times->not_before != EGI_LONG_AGO));
  return c->entry_class | (c->held ? EGI_HELD : 0) |
         (c->large ? EGI_LARGE : 0) | (fades ? EGI_FADES : 0);
}

static void write_entry(const change *c, unsigned flags, uint32_t extra) {
  egi_table *table = &c->shard->table;
  eg_bytes key = c->key->bytes;
  egi_entry *entry =
      egi_entry_at(table, c->new_entry != 0 ? c->new_entry : c->entry);
  egi_set(&entry->version, c->version << EGI_LOW_BITS | (key.len - 1));
  egi_set(&entry->token, c->token << EGI_LOW_BITS | flags);
  egi_set(&entry->extra, extra);
  if (c->new_entry != 0) {
    egi_set(&entry->hash, c->key->hash);
    egi_set_bytes(entry->data, 0, key.data, key.len);
    egi_set(&entry->len, 0);
  }
  if (c->swap->write != EGI_LEAVE)
    write_record(c, entry);
  if (c->entry == 0) {
    egi_table_link(table, c->new_entry);
    egi_table_grow(table);
  } else if (c->new_entry != 0) {
    egi_table_exchange(table, c->entry, c->new_entry);
  }
}

/* What the swap replaced is given back. */
static void tidy(const change *c, unsigned flags, uint32_t extra,
                 void *record, size_t len) {
  egi_arena *arena = &c->shard->table.arena;
  if (c->entry != 0 && (c->new_entry != 0 || !c->stays))
    egi_arena_release(arena, c->entry, flags & EGI_CLASS_MASK);
  if (c->extra != 0 && c->extra != extra)
    release_extra(c->shard, c->extra);
  if (record != NULL)
    arena->env->alloc(arena->env->alloc_ud, record, len, 0);
}

static void count(const change *c, unsigned before, unsigned after) {
  egi_shard *shard = c->shard;
  shard->fading += !!(after & EGI_FADES) - !!(before & EGI_FADES);
  shard->large += !!(after & EGI_LARGE) - !!(before & EGI_LARGE);
  if (before & EGI_HELD && c->swap->hold != EGI_KEEP)
    end_hold(shard, c->extra);
  if (c->swap->hold == EGI_TAKE)
    c->memory->holds[shard - c->memory->space->shards].n++;
}

static void land(change *c) {
  egi_table *table = &c->shard->table;
  unsigned before = 0, after = c->stays ? flags_after(c) : 0;
  uint32_t extra = !c->needs_extra     ? 0
                   : c->new_extra != 0 ? c->new_extra
                                       : c->extra;
  void *record = NULL;
  if (c->entry != 0) {
    egi_entry *entry = egi_entry_at(table, c->entry);
    before = egi_entry_flags(entry);
    if (before & EGI_LARGE && (!c->stays || c->swap->write != EGI_LEAVE))
      record = (void *)(uintptr_t)egi_own(egi_entry_large(entry));
  }
  count(c, before, after);
  egi_table_begin(table);
  if (extra != 0)
    write_extra(c, extra);
  if (c->stays)
    write_entry(c, after, extra);
  else if (c->entry != 0)
    egi_table_unlink(table, c->entry);
  egi_table_end(table);
  tidy(c, before, extra, record, c->before.bytes.len);
}

eg_status egi_memory_swap(egi_memory *memory, egi_shard *shard,
                          const egi_key *key, uint32_t entry, int64_t *now,
                          const egi_swap *swap, uint64_t *version,
                          uint64_t *token) {
  change c = {.memory = memory, .shard = shard, .key = key, .swap = swap,
              .now = *now, .entry = entry};
  if (entry != 0) {
    const egi_entry *at = egi_entry_at(&shard->table, entry);
    egi_entry_view(&shard->table, at, &c.before);
    c.extra = egi_own(&at->extra);
  }
  bool may = may_land(&c);
  *now = c.now;
  if (!may)
    return EG_CONFLICT;
  plan(&c);
  if (!gather(&c))
    return EG_NOMEM;
  number(&c);
  land(&c);
  *now = c.now;
  *version = c.stays ? c.version : 0;
  *token = c.token;
  if (entry == 0 && c.stays && shard->fading > 0)
    sweep(memory, shard, c.now);
  if (swap->wake && shard->watches != NULL)
    egi_memory_wake(shard, key);
  return EG_OK;
}

void egi_memory_prolong(egi_shard *shard, uint32_t entry, int64_t now,
                        int64_t lease_ms) {
  egi_table *table = &shard->table;
  uint32_t extra = egi_own(&egi_entry_at(table, entry)->extra);
  egi_word *lease = &egi_extra_at(table, extra)->times[1];
  int64_t later = until(EGI_NEVER, now, lease_ms);
  if (later <= (int64_t)egi_own(lease))
    return;
  egi_table_begin(table);
  egi_set(lease, (uint64_t)later);
  egi_table_end(table);
}

/* ----------------------------------------------------- ends of handles -- */

static void drop(egi_memory *memory, egi_shard *shard, uint32_t at) {
  const egi_entry *entry = egi_entry_at(&shard->table, at);
  unsigned char bytes[EG_KEY_MAX]; /* the entry may be gone when it wakes */
  egi_swap swap = {.write = EGI_LEAVE, .hold = EGI_DROP, .wake = true,
                   .not_before_ms = EGI_LEAVE_TIME,
                   .fresh_ms = EGI_LEAVE_TIME, .life_ms = EGI_LEAVE_TIME};
  int64_t now = EGI_NO_TIME;
  uint64_t version, token;
  eg_bytes held = egi_entry_key(entry);
  egi_key key;
  memcpy(bytes, held.data, held.len);
  held.data = bytes;
  egi_key_init(&key, held, egi_own(&entry->hash));
  eg_status status = egi_memory_swap(memory, shard, &key, at, &now, &swap,
                                     &version, &token);
  assert(status == EG_OK);
  (void)status;
}

void egi_memory_drop_all(egi_memory *memory, egi_shard *shard) {
  const egi_table *table = &shard->table;
  const egi_holds *holds = &memory->holds[shard - memory->space->shards];
  uint32_t buckets = egi_own(&table->buckets);
  for (uint32_t i = 0; i < buckets && holds->n > 0; i++) {
    uint32_t at = egi_table_chain(table, i);
    while (at != 0) {
      const egi_entry *entry = egi_entry_at(table, at);
      uint32_t after = egi_own(&entry->next);
      if (egi_entry_flags(entry) & EGI_HELD &&
          egi_own(&egi_extra_at(table, egi_own(&entry->extra))->owner) ==
              (uintptr_t)memory)
        drop(memory, shard, at);
      at = after;
    }
  }
  assert(holds->n == 0);
}

void egi_memory_free_large(egi_shard *shard) {
  const egi_table *table = &shard->table;
  uint32_t buckets = egi_own(&table->buckets);
  for (uint32_t i = 0; i < buckets && shard->large > 0; i++)
    for (uint32_t at = egi_table_chain(table, i); at != 0;) {
      egi_entry *entry = egi_entry_at(table, at);
      if (egi_entry_flags(entry) & EGI_LARGE)
        free_large(shard, entry);
      at = egi_own(&entry->next);
    }
}
