/* SPDX-License-Identifier: MIT
** The memory store: namespaces in this process, and the store's operations;
** memory.h has the rules.
*/
#include "store/memory.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__linux__)
#include <sys/random.h>
#endif

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { NAMED_SHARDS = 16, SHARD_SHIFT = 60, LINE = 64 };

/* Of the two ways through the store that every call takes: all that they call
** is put inline, a sixth of their time. */
#define FLAT __attribute__((flatten))

_Static_assert(1ULL << (64 - SHARD_SHIFT) >= NAMED_SHARDS, "bits");

/* ------------------------------------------------------- small things -- */

eg_status egi_memory_fail(eg_error *error, eg_status status, int os_errno,
                          const char *message) {
  if (error != NULL) {
    error->status = status;
    error->os_errno = os_errno;
    strncpy(error->message, message, sizeof error->message - 1);
    error->message[sizeof error->message - 1] = '\0';
  }
  return status;
}

static eg_status no_memory(eg_error *error) {
  return egi_memory_fail(error, EG_NOMEM, 0,
                         "the memory store got no more memory");
}

/* ---------------------------------------------------------------- keys -- */

/* Nobody outside may know which keys meet in one bucket. */
static uint64_t seed;

static void make_seed(void) {
  struct timespec now = {0, 0};
  uint64_t noise[3];
  clock_gettime(CLOCK_REALTIME, &now);
  noise[0] = (uint64_t)now.tv_sec << 30 ^ (uint64_t)now.tv_nsec;
  noise[1] = (uint64_t)(uintptr_t)&now ^ (uint64_t)(uintptr_t)&make_seed;
  noise[2] = 0;
#if defined(__linux__)
  uint64_t random;
  if (getrandom(&random, sizeof random, GRND_NONBLOCK) == sizeof random)
    noise[2] = random;
#endif
  seed = XXH3_64bits(noise, sizeof noise);
}

static inline void locate(egi_memory *memory, eg_bytes bytes,
                          egi_place *place) {
  const egi_space *space = memory->space;
  uint64_t hash = XXH3_64bits_withSeed(bytes.data, bytes.len, seed);
  egi_key_init(&place->key, bytes, (uint32_t)hash);
  place->tag = hash;
  place->memory = memory;
  place->shard = &space->shards[(hash >> SHARD_SHIFT) & (space->n - 1)];
  place->now = EGI_NO_TIME;
}

void egi_memory_locate(egi_memory *memory, eg_bytes bytes, egi_place *place) {
  locate(memory, bytes, place);
}

/* ---------------------------------------------------------- namespaces -- */

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static egi_space *registry; /* named namespaces */
static pthread_once_t seed_once = PTHREAD_ONCE_INIT;

/* The process's own allocator, whose memory outlives every handle. */
static void *process_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud;
  (void)osize;
  if (nsize > 0)
    return realloc(ptr, nsize);
  free(ptr);
  return NULL;
}

/* The next address at or behind p where a cache line begins. */
static void *align(void *p) {
  return (void *)(((uintptr_t)p + LINE - 1) / LINE * LINE);
}

/* Threads that meet in a shard stay only for some dozen nanoseconds, so they
** spin a little; in a private namespace they seldom meet. */
static int init_mutex(pthread_mutex_t *mutex, bool shared) {
  pthread_mutexattr_t attr;
  int err = pthread_mutexattr_init(&attr);
  if (err != 0)
    return err;
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
  if (shared)
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
#else
  (void)shared;
#endif
  err = pthread_mutex_init(mutex, &attr);
  pthread_mutexattr_destroy(&attr);
  return err;
}

static void init_shard(egi_shard *shard, const egi_space *space) {
  init_mutex(&shard->mutex, space->name != NULL);
  shard->counter = 0;
  shard->fading = shard->large = shard->hand = 0;
  shard->number = (unsigned)(shard - space->shards);
  atomic_init(&shard->forgotten, 0);
  shard->watches = NULL;
  shard->ledger = (egi_ledger){0};
  egi_table_init(&shard->table, &space->env);
}

/* A namespace in one block: itself, the shards, its name. */
static egi_space *new_space(const char *name, const eg_env *env) {
  unsigned n = name != NULL ? NAMED_SHARDS : 1;
  size_t name_size = name != NULL ? strlen(name) + 1 : 0;
  size_t size = sizeof(egi_space) + LINE + n * sizeof(egi_shard) + name_size;
  egi_space *space = env->alloc(env->alloc_ud, NULL, 0, size);
  if (space == NULL)
    return NULL;
  space->next = NULL;
  space->env = *env;
  space->size = size;
  space->forking = 0;
  space->n = n;
  space->shards = align(space + 1);
  space->name = NULL;
  if (name != NULL)
    space->name = memcpy(space->shards + n, name, name_size);
  for (unsigned i = 0; i < n; i++)
    init_shard(&space->shards[i], space);
  return space;
}

static void free_space(egi_space *space) {
  for (unsigned i = 0; i < space->n; i++) {
    egi_shard *shard = &space->shards[i];
    assert(shard->watches == NULL);
    egi_memory_free_large(shard);
    egi_ledger_free(&shard->ledger, &space->env);
    egi_table_free(&shard->table);
    pthread_mutex_destroy(&shard->mutex);
  }
  eg_env env = space->env;
  env.alloc(env.alloc_ud, space, space->size, 0);
}

/* The namespace of a name, made on first need. */
static egi_space *named_space(const char *name) {
  eg_env env = {.alloc = process_alloc};
  pthread_mutex_lock(&registry_mutex);
  egi_space *space = registry;
  while (space != NULL && strcmp(space->name, name) != 0)
    space = space->next;
  if (space == NULL && (space = new_space(name, &env)) != NULL) {
    space->next = registry;
    registry = space;
  }
  pthread_mutex_unlock(&registry_mutex);
  return space;
}

/* ------------------------------------------------------ open and close -- */

static eg_status memory_open(const egi_url *url, const eg_env *env,
                             egi_store **store, eg_error *error) {
  if (url->query != NULL && url->query[0] != '\0')
    return egi_memory_fail(error, EG_INVALID, 0,
                           "store: memory takes no parameters after '?'");
  pthread_once(&seed_once, make_seed);
  egi_space *space = url->name != NULL ? named_space(url->name)
                                       : new_space(NULL, env);
  if (space == NULL)
    return no_memory(error);
  size_t size = sizeof(egi_memory) + LINE + space->n * sizeof(egi_holds);
  egi_memory *memory = env->alloc(env->alloc_ud, NULL, 0, size);
  if (memory == NULL) {
    if (space->name == NULL)
      free_space(space);
    return no_memory(error);
  }
  memory->base = (egi_store){
      .ops = &egi_memory_ops, .space = space, .inside = true};
  memory->env = *env;
  memory->space = space;
  memory->size = size;
  memory->holds = align(memory + 1);
  for (unsigned i = 0; i < space->n; i++)
    memory->holds[i].n = 0;
  *store = &memory->base;
  return EG_OK;
}

static void memory_close(egi_store *store) {
  egi_memory *memory = (egi_memory *)store;
  egi_space *space = memory->space;
  for (unsigned i = 0; i < space->n; i++) {
    egi_shard *shard = &space->shards[i];
    egi_shard_lock(shard);
    if (memory->holds[i].n > 0)
      egi_memory_drop_all(memory, shard);
    egi_shard_unlock(shard);
  }
  if (space->name == NULL)
    free_space(space);
  eg_env env = memory->env;
  env.alloc(env.alloc_ud, memory, memory->size, 0);
}

/* Handles of one namespace: the first locks it, the last unlocks it. */
static void memory_before_fork(egi_store *store) {
  egi_space *space = ((egi_memory *)store)->space;
  if (space->forking++ > 0)
    return;
  for (unsigned i = 0; i < space->n; i++)
    egi_shard_lock(&space->shards[i]);
}

static void memory_after_fork(egi_store *store) {
  egi_space *space = ((egi_memory *)store)->space;
  if (--space->forking > 0)
    return;
  for (unsigned i = 0; i < space->n; i++)
    egi_shard_unlock(&space->shards[i]);
}

/* Whoever waited for a mutex, or for a key, is not in the child. */
static void unlock_anew(egi_space *space) {
  space->forking = 0;
  for (unsigned i = 0; i < space->n; i++) {
    egi_shard *shard = &space->shards[i];
    egi_shard_unlock(shard);
    init_mutex(&shard->mutex, space->name != NULL);
    shard->watches = NULL;
  }
}

static void memory_forked(egi_store *store) {
  egi_memory *memory = (egi_memory *)store;
  egi_space *space = memory->space;
  if (space->forking > 0) /* its first handle */
    unlock_anew(space);
  for (unsigned i = 0; i < space->n; i++) {
    egi_shard *shard = &space->shards[i];
    egi_shard_lock(shard);
    if (memory->holds[i].n > 0)
      egi_memory_drop_all(memory, shard);
    egi_shard_unlock(shard);
  }
}

/* --------------------------------------------------------- load, swap -- */

static eg_status memory_load(egi_store *store, eg_bytes key,
                             int64_t deadline_us, egi_seen *seen,
                             eg_error *error) {
  egi_memory *memory = (egi_memory *)store;
  egi_place place;
  egi_seen lent;
  (void)deadline_us;
  egi_seen_init(&lent);
  locate(memory, key, &place);
  egi_memory_now(memory, &place.now);
  egi_shard_lock(place.shard);
  egi_memory_look(&place, &lent);
  bool kept = egi_seen_keep(seen, &lent, &memory->env);
  egi_shard_unlock(place.shard);
  return kept ? EG_OK : no_memory(error);
}

/* What is known after a swap that landed. */
static void landed(const egi_place *place, const egi_swap *swap,
                   uint64_t version, uint64_t token, egi_seen *seen) {
  egi_memory_absent(place->now, seen);
  seen->version = seen->mark[0] = version;
  seen->at.token = token;
  seen->at.held = swap->hold == EGI_TAKE ||
                  (swap->hold == EGI_KEEP && place->view.held);
}

static eg_status memory_swap(egi_store *store, eg_bytes key,
                             const egi_swap *swap, int64_t deadline_us,
                             egi_seen *seen, eg_error *error) {
  egi_memory *memory = (egi_memory *)store;
  egi_place place;
  egi_seen lent;
  uint64_t version, token;
  eg_status status = EG_CONFLICT;
  (void)deadline_us;
  egi_seen_init(&lent);
  locate(memory, key, &place);
  egi_memory_now(memory, &place.now);
  egi_shard_lock(place.shard);
  egi_memory_look(&place, &lent);
  if (lent.version == swap->expect)
    status = egi_memory_swap(&place, swap, &version, &token);
  if (status == EG_OK) {
    landed(&place, swap, version, token, seen);
  } else if (status == EG_CONFLICT) {
    if (!egi_seen_keep(seen, &lent, &memory->env))
      status = EG_NOMEM;
  }
  egi_shard_unlock(place.shard);
  return status == EG_NOMEM ? no_memory(error) : status;
}

/* -------------------------------------------------------------- leases -- */

static eg_status renew_one(egi_memory *memory, const egi_hold_ref *hold,
                           int64_t lease_ms, int64_t now) {
  egi_place place;
  egi_seen seen;
  eg_status status = EG_LOST;
  locate(memory, hold->key, &place);
  place.now = now;
  egi_shard_lock(place.shard);
  egi_memory_look(&place, &seen);
  if (seen.at.held && seen.at.token == hold->token) {
    egi_memory_prolong(&place, lease_ms);
    status = EG_OK;
  }
  egi_shard_unlock(place.shard);
  return status;
}

static eg_status memory_renew(egi_store *store, const egi_hold_ref *holds,
                              size_t n, int64_t lease_ms, eg_status *each,
                              eg_error *error) {
  egi_memory *memory = (egi_memory *)store;
  int64_t now = EGI_NO_TIME;
  (void)error;
  egi_memory_now(memory, &now);
  for (size_t i = 0; i < n; i++)
    each[i] = renew_one(memory, &holds[i], lease_ms, now);
  return EG_OK;
}

/* ---------------------------------------------------- without the lock -- */

/* Shows a key as it was at one moment, later than the place's time if that is
** known.  False: only the mutex can tell. */
static inline bool peep(egi_place *place, egi_glance *glance, egi_seen *seen) {
  switch (egi_table_glance(&place->shard->table, &place->key, glance)) {
  case EGI_TORN:
    return false;
  case EGI_MISSING:
    egi_memory_absent(place->now, seen);
    return true;
  case EGI_FOUND:
    break;
  }
  if (glance->view.timed && egi_view_fades(&glance->view))
    egi_memory_now(place->memory, &place->now);
  if (!egi_memory_see(&glance->view, place->now, seen))
    egi_memory_absent(place->now, seen);
  return true;
}

static bool memory_unchanged(egi_store *store, eg_bytes key,
                             const uint64_t mark[6]) {
  egi_place place;
  egi_glance glance;
  egi_seen seen;
  locate((egi_memory *)store, key, &place);
  return peep(&place, &glance, &seen) && seen.version == mark[0];
}

FLAT static bool memory_peek(egi_store *store, eg_bytes key,
                             unsigned char *room, eg_bytes *bytes,
                             uint64_t *token, uint64_t *tag) {
  egi_place place;
  locate((egi_memory *)store, key, &place);
  *tag = place.tag;
  bytes->len = 0;
  *token = 0;
  return egi_table_peek(&place.shard->table, &place.key, room, bytes, token) !=
         EGI_TORN;
}

/* Decides on copies, as long as that settles it.  True: it is settled, with
** OK or CHANGED. */
static bool settle(egi_place *place, egi_decide_fn decide, void *ctx,
                   uint64_t *token, eg_status *status) {
  egi_glance glance;
  egi_seen seen;
  egi_swap swap;
  seen.buf = NULL;
  seen.buf_size = 0;
  for (;;) {
    if (!peep(place, &glance, &seen))
      return false;
    *token = seen.at.token;
    switch (decide(ctx, &seen, &swap)) {
    case EGI_NONE:
      *status = EG_OK;
      return true;
    case EGI_GROW:
      *status = EG_CHANGED;
      return true;
    case EGI_SWAP:
      return false;
    case EGI_NOW:
      if (seen.at.clocked)
        return false;
      egi_memory_now(place->memory, &place->now);
      if (!seen.at.timed) /* who wants the time of nothing will write */
        return false;
    }
  }
}

/* --------------------------------------------------------------- apply -- */

static eg_status apply_locked(egi_place *place, egi_decide_fn decide,
                              void *ctx, uint64_t *token) {
  egi_seen seen;
  egi_swap swap;
  uint64_t version;
  seen.buf = NULL;
  seen.buf_size = 0;
  for (;;) {
    egi_memory_look(place, &seen);
    *token = seen.at.token;
    switch (decide(ctx, &seen, &swap)) {
    case EGI_NONE:
      return EG_OK;
    case EGI_GROW:
      return EG_CHANGED;
    case EGI_SWAP:
      return egi_memory_swap(place, &swap, &version, token);
    case EGI_NOW:
      if (seen.at.clocked)
        return EG_INTERNAL;
      egi_memory_now(place->memory, &place->now);
    }
  }
}

FLAT static eg_status memory_apply(egi_store *store, eg_bytes key,
                                   egi_decide_fn decide, void *ctx,
                                   bool writes, int64_t now_us,
                                   uint64_t *token, eg_error *error) {
  egi_place place;
  eg_status status;
  locate((egi_memory *)store, key, &place);
  place.now = now_us;
  if (!writes && settle(&place, decide, ctx, token, &status))
    return status;
  egi_shard_lock(place.shard);
  status = apply_locked(&place, decide, ctx, token);
  egi_shard_unlock(place.shard);
  if (status == EG_NOMEM)
    return no_memory(error);
  if (status == EG_INTERNAL)
    return egi_memory_fail(error, status, 0, "decide wants a time it has");
  return status;
}

/* ---------------------------------------------------------------- table -- */

const egi_store_ops egi_memory_ops = {
    .abi = EGI_STORE_ABI,
    .scheme = "memory",
    .open = memory_open,
    .close = memory_close,
    .load = memory_load,
    .swap = memory_swap,
    .renew = memory_renew,
    .unchanged = memory_unchanged,
    .watch = egi_memory_watch,
    .wait = egi_memory_wait,
    .unwatch = egi_memory_unwatch,
    .scan = egi_memory_scan,
    .apply = memory_apply,
    .peek = memory_peek,
    .add = egi_memory_add,
    .counts = egi_memory_counts,
    .next_forgotten = egi_memory_next_forgotten,
    .before_fork = memory_before_fork,
    .after_fork = memory_after_fork,
    .forked = memory_forked,
};
