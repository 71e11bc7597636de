/* SPDX-License-Identifier: MIT
** What the files of the memory store share: namespaces, shards, handles.
**
** A namespace (egi_space) is an array of shards; the upper bits of a key's
** hash say which.  A named one is found by its name, shared by its handles,
** and lives until the process ends, in the process's memory.  One without a
** name belongs to its handle, and lives in the handle's.
**
** LOCKING
**
**   1. Everything in a shard is guarded by its mutex, and so are the count of
**      a handle's holds in that shard and its pointers in extra blocks.  The
**      table may be read without it, see memory_table.h; `forgotten` may be
**      compared with 0.
**   2. `changed` of a watch is guarded by the mutex of the watch, the rest of
**      it by that of its shard.  Who wakes or arms a watch has both; who
**      sleeps has only the watch's.
**   3. The registry's mutex guards the list of named namespaces.  A namespace
**      that is in it never changes its number of shards or its name.
**   4. Order: shard, then watch.  Nobody has two shards or two watches, or
**      anything else together with the registry.
**   5. With a mutex of a shard held, these are called, and must not call
**      back: the allocator, the clock, decide.  visit is called with none.
**   6. What decide is shown lives in the shard only until the mutex is given
**      up, or in a copy on the stack.
**
** COUNTER
**
** One counter a shard makes versions and tokens, so neither is used twice in
** that shard, whatever becomes of the key's entry.  In a named namespace a new
** token is at least the wall clock's microseconds.
**
** TIME
**
** apply reads no clock unless something is timed; load, swap, scan and wait
** always do.  An entry that may become absent by time alone has the flag
** FADES: to look at it is to read the clock, and, where its time is over, to
** forget it first; so whatever is found is there.
*/
#ifndef EG_STORE_MEMORY_H
#define EG_STORE_MEMORY_H

#include "core/ledger.h"
#include "store/memory_table.h"

typedef struct egi_memory egi_memory;

typedef struct egi_shard {
  _Alignas(64) pthread_mutex_t mutex;
  uint64_t counter;
  uint32_t fading; /* entries that may become absent by time alone */
  uint32_t large;  /* entries whose record is outside the arena */
  uint32_t hand;   /* the bucket that the sweep looks at next */
  unsigned number; /* of this shard in its namespace */
  /* Entries that were swept while their result was opaque, chained: their
  ** keys are still to be told (private namespaces). */
  _Atomic uint32_t forgotten;
  egi_watch *watches;
  egi_ledger ledger; /* what is counted of its keys */
  egi_table table;
} egi_shard;

typedef struct egi_space {
  struct egi_space *next;
  const char *name; /* NULL: private */
  eg_env env;       /* its allocator is whose memory this is */
  size_t size;      /* of the block that begins here */
  unsigned n;       /* shards: a power of two */
  unsigned forking; /* handles that have asked for it to be locked */
  egi_shard *shards;
} egi_space;

/* A handle's holds in one shard, a cache line apart: threads that use one
** handle seldom use one shard. */
typedef struct egi_holds {
  _Alignas(64) uint32_t n;
} egi_holds;

struct egi_memory {
  egi_store base;
  eg_env env;
  egi_space *space;
  egi_holds *holds; /* one for each shard */
  size_t size;      /* of the block that begins here */
};

/* A key in its shard, and what was found there. */
typedef struct egi_place {
  egi_memory *memory;
  egi_shard *shard;
  egi_key key;
  uint64_t tag;  /* all of its hash */
  int64_t now;   /* EGI_NO_TIME until somebody has to know */
  egi_spot spot; /* without an entry: absent */
  egi_view view; /* of the entry; without one, of nothing */
} egi_place;

struct egi_watch {
  egi_watch *next, *prev;
  egi_place place;  /* the key's bytes are in the watch */
  uint64_t version; /* when it was armed */
  bool held;        /* then */
  bool changed;
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  unsigned char bytes[];
};

/* ---------------------------------------------------------- memory.c -- */

/* egi_memory_locate: the place of a key; spot and view come later. */
void egi_memory_locate(egi_memory *memory, eg_bytes bytes, egi_place *place);

/* egi_memory_fail: fills an error, and returns its status. */
eg_status egi_memory_fail(eg_error *error, eg_status status, int os_errno,
                          const char *message);

/* egi_memory_now: the steady clock, read once. */
static inline int64_t egi_memory_now(const egi_memory *memory, int64_t *now) {
  if (*now == EGI_NO_TIME)
    *now = memory->env.clock->now_us(memory->env.clock->ctx);
  return *now;
}

static inline void egi_shard_lock(egi_shard *shard) {
  pthread_mutex_lock(&shard->mutex);
}

static inline void egi_shard_unlock(egi_shard *shard) {
  pthread_mutex_unlock(&shard->mutex);
}

/* ----------------------------------------------------- memory_look.c -- */

/* egi_is_over: has that time come, as far as is known? */
static inline bool egi_is_over(int64_t until, int64_t now) {
  return until != EGI_NEVER && now != EGI_NO_TIME && until <= now;
}

/* egi_memory_absent: what is seen of an absent key. */
static inline void egi_memory_absent(int64_t now, egi_seen *seen) {
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

bool egi_memory_see_times(const egi_view *view, int64_t now, egi_seen *seen);

/* egi_memory_see: what a view means at that time.  False: the key is absent
** by then. */
static inline bool egi_memory_see(const egi_view *view, int64_t now,
                                  egi_seen *seen) {
  egi_memory_absent(now, seen);
  seen->at.token = view->token;
  seen->at.held = view->held;
  seen->version = seen->mark[0] = view->version;
  /* By halves: a copy in one piece would have to wait until both halves, which
  ** were written a moment ago, are in the cache. */
  seen->bytes.data = view->bytes.data;
  seen->bytes.len = view->bytes.len;
  if (view->held) {
    seen->holder.data = view->holder.data;
    seen->holder.len = view->holder.len;
  }
  return !view->timed || egi_memory_see_times(view, now, seen);
}

/* egi_memory_look: finds the key of a place, and shows it.  An entry whose
** time is over is forgotten.  Reads the clock if it has to. */
void egi_memory_look(egi_place *place, egi_seen *seen);

/* egi_memory_sweep: forgets what is over in the next few buckets. */
void egi_memory_sweep(egi_memory *memory, egi_shard *shard, int64_t now);

/* egi_memory_free_large: frees the large records of a shard. */
void egi_memory_free_large(egi_shard *shard);

size_t egi_memory_next_forgotten(egi_store *store, void *key);

/* egi_shard_end_hold: the handle whose hold an extra block is has one less. */
static inline void egi_shard_end_hold(egi_shard *shard, uint32_t extra) {
  egi_word *word = &egi_extra_at(&shard->table, extra)->owner;
  egi_memory *owner = (egi_memory *)(uintptr_t)egi_own(word);
  assert(owner->holds[shard->number].n > 0);
  owner->holds[shard->number].n--;
}

/* egi_shard_release: gives an extra block back. */
static inline void egi_shard_release(egi_shard *shard, uint32_t extra) {
  uint64_t sizes = egi_own(&egi_extra_at(&shard->table, extra)->sizes);
  egi_arena_release(&shard->table.arena, extra, (unsigned)(sizes >> 32));
}

/* ----------------------------------------------------- memory_swap.c -- */

/* egi_memory_swap: performs a swap on a key that was just looked at; `expect`
** is the caller's business.  OK; CONFLICT; NOMEM.  version (0: absent now) and
** token are those after it. */
eg_status egi_memory_swap(egi_place *place, const egi_swap *swap,
                          uint64_t *version, uint64_t *token);

/* egi_memory_prolong: lets the lease of a place that is held end no sooner
** than that long after its time. */
void egi_memory_prolong(egi_place *place, int64_t lease_ms);

/* egi_view_fades: may it become absent by time alone? */
static inline bool egi_view_fades(const egi_view *view) {
  const egi_times *times = &view->times;
  return times->life != EGI_NEVER ||
         (view->bytes.len == 0 &&
          (times->lease != EGI_NEVER || times->not_before != EGI_LONG_AGO));
}

/* egi_memory_drop_all: ends the holds that a handle has in a shard. */
void egi_memory_drop_all(egi_memory *memory, egi_shard *shard);

/* ---------------------------------------------------- memory_watch.c -- */

eg_status egi_memory_watch(egi_store *store, eg_bytes key,
                           const egi_seen *seen, egi_watch **watch, int *fd,
                           eg_error *error);
eg_status egi_memory_wait(egi_watch *watch, int64_t deadline_us,
                          eg_error *error);
void egi_memory_unwatch(egi_watch *watch);

/* egi_memory_wake: wakes the watches of a key.  Under the mutex. */
void egi_memory_wake(egi_shard *shard, const egi_key *key);

/* ---------------------------------------------------- memory_count.c -- */

eg_status egi_memory_add(egi_store *store, eg_bytes key,
                         const egi_counts *more, int64_t deadline_us,
                         eg_error *error);
eg_status egi_memory_counts(egi_store *store, eg_bytes prefix, bool exact,
                            int64_t deadline_us, egi_counts_fn visit,
                            void *ctx, eg_error *error);

/* egi_memory_count_apart: what is counted in the entry of a place is in the
** ledger then, since the entry will have no room for it.  False: no memory. */
bool egi_memory_count_apart(egi_place *place);

/* egi_memory_uncount: a record is forgotten, and so is what was counted. */
static inline void egi_memory_uncount(egi_shard *shard, eg_bytes key,
                                      uint32_t hash) {
  if (shard->ledger.n > 0)
    egi_ledger_remove(&shard->ledger, shard->table.arena.env, key, hash);
}

/* ----------------------------------------------------- memory_scan.c -- */

eg_status egi_memory_scan(egi_store *store, eg_bytes prefix,
                          egi_visit_fn visit, void *ctx, eg_error *error);

#endif
