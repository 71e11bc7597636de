/* SPDX-License-Identifier: MIT
** Who waits for a key of a remote store: an eventfd for those who poll, a
** condition for those who block.
*/
#include "store/remote.h"

#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

void egi_signal_fd(int fd) {
  uint64_t one = 1;
  if (write(fd, &one, sizeof one) < 0) {
    /* it is full: who waits for it is awake */
  }
}

void egi_drain_fd(int fd) {
  uint64_t count;
  if (read(fd, &count, sizeof count) < 0) {
    /* it was empty */
  }
}

egi_watch *egi_watch_new(egi_store *store, eg_bytes key, const eg_env *env) {
  egi_watch *watch = env->alloc(env->alloc_ud, NULL, 0,
                                sizeof *watch + key.len);
  if (watch == NULL)
    return NULL;
  *watch = (egi_watch){.store = store,
                       .env = *env,
                       .lease_end_us = EG_FOREVER,
                       .look_us = EG_FOREVER,
                       .key_len = key.len};
  if (key.len > 0)
    memcpy(watch->key, key.data, key.len);
  watch->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (watch->fd >= 0 && pthread_mutex_init(&watch->mutex, NULL) == 0 &&
      egi_steady_cond(&watch->cond) == 0)
    return watch;
  if (watch->fd >= 0)
    close(watch->fd);
  env->alloc(env->alloc_ud, watch, sizeof *watch + key.len, 0);
  return NULL;
}

void egi_watch_free(egi_watch *watch) {
  const eg_env env = watch->env;
  close(watch->fd);
  pthread_mutex_destroy(&watch->mutex);
  pthread_cond_destroy(&watch->cond);
  env.alloc(env.alloc_ud, watch, sizeof *watch + watch->key_len, 0);
}

void egi_watch_enlist(egi_watch *watch, egi_watch **list) {
  watch->prev = NULL;
  watch->next = *list;
  if (watch->next != NULL)
    watch->next->prev = watch;
  *list = watch;
}

void egi_watch_delist(egi_watch *watch, egi_watch **list) {
  if (watch->prev != NULL)
    watch->prev->next = watch->next;
  else
    *list = watch->next;
  if (watch->next != NULL)
    watch->next->prev = watch->prev;
}

/* Who is woken may run at once, in the place of this thread: it shall not come
** to a mutex that this thread still has.  The watch is there until the store's
** lock of the list is let go, or it is the caller's own. */
void egi_watch_mark(egi_watch *watch) {
  const eg_clock *clock = watch->env.clock;
  pthread_mutex_lock(&watch->mutex);
  watch->changed = true;
  egi_signal_fd(watch->fd);
  pthread_mutex_unlock(&watch->mutex);
  clock->wake(clock->ctx, &watch->cond);
}

void egi_watch_lease(egi_watch *watch, const egi_seen *seen) {
  const eg_clock *clock = watch->env.clock;
  if (!seen->at.held || seen->at.left_us < 0)
    return;
  pthread_mutex_lock(&watch->mutex);
  watch->lease_end_us = clock->now_us(clock->ctx) + seen->at.left_us;
  pthread_mutex_unlock(&watch->mutex);
}

eg_status egi_watch_wait(egi_watch *watch, int64_t deadline_us) {
  const eg_clock *clock = watch->env.clock;
  eg_status status = EG_CHANGED;
  pthread_mutex_lock(&watch->mutex);
  while (!watch->changed) {
    int64_t now = clock->now_us(clock->ctx), end = watch->lease_end_us;
    if (now >= end) { /* nobody else tells of it */
      watch->lease_end_us = EG_FOREVER;
      break;
    }
    if (now >= deadline_us) {
      status = EG_TIMEOUT;
      break;
    }
    clock->wait(clock->ctx, &watch->cond, &watch->mutex,
                end < deadline_us ? end : deadline_us);
  }
  watch->changed = false;
  egi_drain_fd(watch->fd);
  pthread_mutex_unlock(&watch->mutex);
  return status;
}
