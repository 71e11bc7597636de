/* SPDX-License-Identifier: MIT
** Lines: who waits for a key, in order of arrival, whoever they are: threads,
** coroutines, of any Lua state, through any guard of this process.
**
** Only the first in a line looks at the key, so an end of a grant wakes one
** waiter and not all of them.  A lock is handed over: who ends a grant takes
** it for the first in line, in the same call.  So nobody starves behind one
** that releases and asks again in a loop.  A run is not handed over, its first
** waiter is told: its time would begin before its function does.  Those who
** have joined a run are answered first, all of them.
**
** MUTEX RULES.  (1) A bucket's mutex guards the lines in it, and of everybody
** in them what wait.h says.  (2) It is taken before a store's and before a
** bell's, and nobody has two.  (3) Who ends a grant has no lock of the store
** when it serves the line.  (4) Only a store that egi_is_quick is called
** with it.
**
** NO WAKE-UP IS LOST.  A waiter first stands in line (waiters > 0), then looks
** at the key under the lock of its shard; who ends a grant first changes the
** key under that lock, then reads `waiters`.  One of the two comes second.
*/
#include "guard/wait.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

enum { BUCKETS = 1024 };

typedef struct bucket {
  pthread_mutex_t mutex;
  egi_line *lines;
  eg_pending *all; /* also those who are out of line, but not yet ended */
} bucket;

static bucket buckets[BUCKETS];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic long waiters; /* in all lines */
static _Atomic long pending; /* in all buckets */

static void init(void) {
  for (int i = 0; i < BUCKETS; i++)
    pthread_mutex_init(&buckets[i].mutex, NULL);
}

/* ---------------------------------------------------------- who is who -- */

bool eg_may_share_keys(const eg_guard *a, const eg_guard *b) {
  return a->store->space == b->store->space;
}

static const void *space_of(const egi_store *store) {
  return store->space != NULL ? store->space : store;
}

/* FNV-1a. */
static uint64_t hash_of(const void *space, eg_bytes key) {
  const unsigned char *bytes = key.data;
  uint64_t hash = UINT64_C(14695981039346656037) ^ (uintptr_t)space;
  for (size_t i = 0; i < key.len; i++)
    hash = (hash ^ bytes[i]) * UINT64_C(1099511628211);
  return hash ^ hash >> 32;
}

void egi_line_locate(eg_pending *p) {
  pthread_once(&once, init);
  p->space = space_of(p->step.guard->store);
  p->hash = hash_of(p->space, p->step.key);
}

static bucket *bucket_of(uint64_t hash) { return &buckets[hash % BUCKETS]; }

static void lock(bucket *b) {
  egi_gate_enter();
  pthread_mutex_lock(&b->mutex);
}

static void unlock(bucket *b) {
  pthread_mutex_unlock(&b->mutex);
  egi_gate_leave();
}

void egi_line_lock(const eg_pending *p) { lock(bucket_of(p->hash)); }

void egi_line_unlock(const eg_pending *p) { unlock(bucket_of(p->hash)); }

static egi_line **find(uint64_t hash, const void *space, eg_bytes key) {
  egi_line **link = &bucket_of(hash)->lines;
  for (; *link != NULL; link = &(*link)->next) {
    const eg_pending *p = (*link)->whose;
    if ((*link)->hash == hash && p->space == space &&
        p->step.key.len == key.len && memcmp(p->key, key.data, key.len) == 0)
      break;
  }
  return link;
}

static egi_line **line_of(const eg_pending *p) {
  return find(p->hash, p->space, p->step.key);
}

/* -------------------------------------------------------- coming, going -- */

void egi_line_join(eg_pending *p) {
  egi_line **link = line_of(p), *line = *link;
  if (line == NULL) {
    line = *link = &p->line;
    memset(line, 0, sizeof *line);
    line->hash = p->hash;
    line->whose = p;
  }
  p->next = NULL;
  p->prev = line->last[p->phase];
  if (p->prev != NULL)
    p->prev->next = p;
  else
    line->first[p->phase] = p;
  line->last[p->phase] = p;
  p->in_line = true;
  atomic_fetch_add_explicit(&waiters, 1, memory_order_relaxed);
}

/* The line moves out of the one who leaves, to one who stays. */
static void move_line(egi_line **link, const eg_pending *leaver) {
  egi_line *line = *link;
  eg_pending *heir = line->first[EGI_FOR_FREE];
  if (heir == NULL)
    heir = line->first[EGI_FOR_END];
  if (heir == NULL) {
    *link = line->next;
  } else if (line == &leaver->line) {
    heir->line = *line;
    heir->line.whose = heir;
    *link = &heir->line;
  }
}

void egi_line_leave(eg_pending *p) {
  egi_line **link = line_of(p), *line = *link;
  assert(line != NULL); /* p stands in it */
  if (p->prev != NULL)
    p->prev->next = p->next;
  else
    line->first[p->phase] = p->next;
  if (p->next != NULL)
    p->next->prev = p->prev;
  else
    line->last[p->phase] = p->prev;
  move_line(link, p);
  p->in_line = false;
  atomic_fetch_sub_explicit(&waiters, 1, memory_order_relaxed);
}

bool egi_line_has_turn(const eg_pending *p) {
  return p->phase == EGI_FOR_END || p->prev == NULL;
}

/* -------------------------------------------------------------- serving -- */

/* May somebody else look at the key for this one? */
static bool by_proxy(const eg_pending *p) {
  return egi_is_quick(p->step.guard) &&
         (p->phase == EGI_FOR_END ? p->step.event.type == EGI_JOIN
                                  : p->asked == EGI_ACQUIRE_LOCK);
}

/* False: it still waits, or has to see for itself. */
static bool consider(eg_pending *p) {
  int64_t due = p->due_us;
  if (!egi_is_quick(p->step.guard)) {
    egi_bell_stir(p->bell, &p->call);
    return false;
  }
  if (!by_proxy(p)) {
    egi_bell_ring(p->bell, &p->call);
    return false;
  }
  if (egi_wait_look(p))
    return true;
  if (p->due_us != due || !by_proxy(p))
    egi_bell_ring(p->bell, &p->call);
  return false;
}

/* The next one knows from here on whether it waits for its own state.  True:
** it has to look, because time alone may end the grant. */
static bool tell_next(const eg_pending *granted, eg_pending *next) {
  const eg_guard *a = granted->step.guard, *b = next->step.guard;
  if (!by_proxy(next))
    return true;
  next->step.same_state = a->state != 0 && a->state == b->state;
  return granted->policy.lease_ms > 0 || next->step.same_state;
}

static void serve(uint64_t hash, const void *space, eg_bytes key) {
  egi_line *line = *find(hash, space, key);
  eg_pending *p = line != NULL ? line->first[EGI_FOR_END] : NULL, *next;
  for (; p != NULL; p = next) {
    next = p->next;
    consider(p);
  }
  while ((line = *find(hash, space, key)) != NULL &&
         (p = line->first[EGI_FOR_FREE]) != NULL) {
    next = p->next;
    if (!consider(p) || next == NULL)
      return;
    if (p->status == EG_OK && !tell_next(p, next))
      return;
  }
}

void egi_line_serve(const eg_pending *p) {
  unsigned char bytes[EG_KEY_MAX]; /* it may be freed by who is served */
  eg_bytes key = {bytes, p->step.key.len};
  memcpy(bytes, p->key, key.len);
  serve(p->hash, p->space, key);
}

void egi_line_freed(const eg_guard *guard, eg_bytes key) {
  if (atomic_load_explicit(&waiters, memory_order_relaxed) == 0)
    return;
  pthread_once(&once, init);
  const void *space = space_of(guard->store);
  uint64_t hash = hash_of(space, key);
  lock(bucket_of(hash));
  serve(hash, space, key);
  unlock(bucket_of(hash));
}

/* ----------------------------------------------------- ends of a guard -- */

void egi_line_enter(eg_pending *p) {
  bucket *b = bucket_of(p->hash);
  p->all_prev = NULL;
  p->all_next = b->all;
  if (b->all != NULL)
    b->all->all_prev = p;
  b->all = p;
  atomic_fetch_add_explicit(&pending, 1, memory_order_relaxed);
}

void egi_line_exit(eg_pending *p) {
  bucket *b = bucket_of(p->hash);
  if (p->all_prev != NULL)
    p->all_prev->all_next = p->all_next;
  else
    b->all = p->all_next;
  if (p->all_next != NULL)
    p->all_next->all_prev = p->all_prev;
  atomic_fetch_sub_explicit(&pending, 1, memory_order_relaxed);
}

void egi_line_close(const eg_guard *guard) {
  if (atomic_load_explicit(&pending, memory_order_relaxed) == 0)
    return;
  for (int i = 0; i < BUCKETS; i++) {
    lock(&buckets[i]);
    for (eg_pending *p = buckets[i].all; p != NULL; p = p->all_next)
      if (p->step.guard == guard)
        egi_wait_orphan(p);
    unlock(&buckets[i]);
  }
}

/* Serves the lines of a namespace, one after the other: serving may change
** which there are. */
static void serve_bucket(bucket *b, const void *space) {
  size_t n = 0, at;
  do {
    egi_line *line = b->lines;
    for (at = 0; line != NULL && at < n; at++)
      line = line->next;
    while (line != NULL && line->whose->space != space) {
      line = line->next;
      at++;
    }
    if (line == NULL)
      return;
    egi_line_serve(line->whose);
    n = at + 1;
  } while (true);
}

void egi_line_closed(const void *space) {
  if (space == NULL ||
      atomic_load_explicit(&waiters, memory_order_relaxed) == 0)
    return;
  for (int i = 0; i < BUCKETS; i++) {
    lock(&buckets[i]);
    serve_bucket(&buckets[i], space);
    unlock(&buckets[i]);
  }
}

/* ---------------------------------------------------------------- fork -- */

/* Who blocked was another thread; of the others nobody knows whose they are,
** so all are put out of their lines, and stand in again when somebody asks for
** them: the earliest is told first. */
static void forked(bucket *b) {
  eg_pending *p = b->all, *before;
  pthread_mutex_init(&b->mutex, NULL);
  b->lines = NULL;
  while (p != NULL && p->all_next != NULL)
    p = p->all_next;
  for (; p != NULL; p = before) {
    before = p->all_prev;
    p->in_line = false;
    if (p->blocks)
      egi_line_exit(p);
    else
      egi_wait_forked(p);
  }
}

void egi_line_forked(void) {
  atomic_store(&waiters, 0);
  if (atomic_load(&pending) == 0)
    return;
  for (int i = 0; i < BUCKETS; i++)
    forked(&buckets[i]);
}
