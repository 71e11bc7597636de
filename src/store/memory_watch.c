/* SPDX-License-Identifier: MIT
** Watches of the memory store: who waits for a key sleeps until a swap wakes
** the watches of that key; memory.h has the rules of the two mutexes.
**
** A watch is woken by `changed`, which the swap sets, and by the end of the
** holder's lease, which it awaits by itself.  The version says what happened
** before there was anybody to wake.
*/
#include <errno.h>
#include <string.h>
#include <time.h>

#include "store/memory.h"

static egi_watch *new_watch(egi_memory *memory, eg_bytes bytes) {
  size_t size = sizeof(egi_watch) + bytes.len;
  egi_watch *watch = memory->env.alloc(memory->env.alloc_ud, NULL, 0, size);
  if (watch == NULL)
    return NULL;
  watch->changed = false;
  memcpy(watch->bytes, bytes.data, bytes.len);
  bytes.data = watch->bytes;
  egi_memory_locate(memory, bytes, &watch->place);
  return watch;
}

static void free_watch(egi_watch *watch) {
  const eg_env *env = &watch->place.memory->env;
  size_t size = sizeof(egi_watch) + watch->place.key.bytes.len;
  env->alloc(env->alloc_ud, watch, size, 0);
}

eg_status egi_memory_watch(egi_store *store, eg_bytes key,
                           const egi_seen *seen, egi_watch **watch, int *fd,
                           eg_error *error) {
  egi_watch *made = new_watch((egi_memory *)store, key);
  if (made == NULL)
    return egi_memory_fail(error, EG_NOMEM, 0, "no memory for a watch");
  pthread_mutex_init(&made->mutex, NULL);
  int err = egi_steady_cond(&made->cond);
  if (err != 0) {
    pthread_mutex_destroy(&made->mutex);
    free_watch(made);
    return egi_memory_fail(error, EG_NOMEM, err, "no condition for a watch");
  }
  egi_shard *shard = made->place.shard;
  made->version = seen->version;
  made->held = seen->at.held;
  egi_shard_lock(shard);
  made->prev = NULL;
  made->next = shard->watches;
  if (made->next != NULL)
    made->next->prev = made;
  shard->watches = made;
  egi_shard_unlock(shard);
  *watch = made;
  if (fd != NULL)
    *fd = -1;
  return EG_OK;
}

void egi_memory_unwatch(egi_watch *watch) {
  if (watch == NULL)
    return;
  egi_shard *shard = watch->place.shard;
  egi_shard_lock(shard);
  if (watch->prev != NULL)
    watch->prev->next = watch->next;
  else if (shard->watches == watch)
    shard->watches = watch->next;
  if (watch->next != NULL)
    watch->next->prev = watch->prev;
  egi_shard_unlock(shard);
  pthread_cond_destroy(&watch->cond);
  pthread_mutex_destroy(&watch->mutex);
  free_watch(watch);
}

void egi_memory_wake(egi_shard *shard, const egi_key *key) {
  for (egi_watch *watch = shard->watches; watch != NULL; watch = watch->next) {
    const eg_clock *clock = watch->place.memory->env.clock;
    if (watch->place.key.hash != key->hash ||
        watch->place.key.bytes.len != key->bytes.len ||
        memcmp(watch->bytes, key->bytes.data, key->bytes.len) != 0)
      continue;
    pthread_mutex_lock(&watch->mutex);
    watch->changed = true;
    clock->wake(clock->ctx, &watch->cond);
    pthread_mutex_unlock(&watch->mutex);
  }
}

/* Has the key changed since the watch was armed, woke, or did a lease end?  If
** so, the watch is armed again.  *lease_us: when the lease of its holder will
** be over, unless it is prolonged. */
static bool rearm(egi_watch *watch, int64_t *lease_us) {
  egi_place *place = &watch->place;
  egi_seen seen;
  egi_shard_lock(place->shard);
  place->now = EGI_NO_TIME;
  egi_memory_now(place->memory, &place->now);
  egi_memory_look(place, &seen);
  pthread_mutex_lock(&watch->mutex);
  bool changed = watch->changed || watch->version != seen.version ||
                 (watch->held && !seen.at.held);
  watch->changed = false;
  watch->version = seen.version;
  watch->held = seen.at.held;
  pthread_mutex_unlock(&watch->mutex);
  egi_shard_unlock(place->shard);
  bool leased = seen.at.held && seen.at.left_us >= 0;
  *lease_us = leased ? place->now + seen.at.left_us : EG_FOREVER;
  return changed;
}

/* Sleeps until the watch is woken (0), or that time has come (ETIMEDOUT). */
static int sleep_until(egi_watch *watch, int64_t until_us) {
  const eg_clock *clock = watch->place.memory->env.clock;
  int err = 0;
  pthread_mutex_lock(&watch->mutex);
  while (!watch->changed && err == 0)
    err = clock->wait(clock->ctx, &watch->cond, &watch->mutex, until_us);
  if (watch->changed)
    err = 0;
  pthread_mutex_unlock(&watch->mutex);
  return err;
}

eg_status egi_memory_wait(egi_watch *watch, int64_t deadline_us,
                          eg_error *error) {
  int64_t lease_us;
  int err = 0;
  while (!rearm(watch, &lease_us)) {
    if (err == ETIMEDOUT && watch->place.now >= deadline_us)
      return EG_TIMEOUT;
    err = sleep_until(watch, lease_us < deadline_us ? lease_us : deadline_us);
    if (err != 0 && err != ETIMEDOUT)
      return egi_memory_fail(error, EG_INTERNAL, err, "the clock cannot wait");
  }
  return EG_CHANGED;
}
