/* SPDX-License-Identifier: MIT
** Watching a key from outside.
*/
#include "guard/guard.h"

#include <string.h>

struct eg_watch {
  eg_guard *guard;
  egi_watch *watch;
  eg_bytes key; /* in bytes */
  unsigned char bytes[EG_KEY_MAX];
};

eg_status eg_watch_open(eg_guard *guard, eg_bytes key, eg_watch **watch_out,
                        eg_error *error) {
  egi_seen seen;
  *watch_out = NULL;
  eg_status status = egi_check_key(key, error);
  if (status != EG_OK)
    return status;
  if (guard->ops->watch == NULL)
    return egi_fail(error, EG_UNSUPPORTED, "this store cannot watch a key");
  eg_watch *watch = egi_alloc(&guard->env, sizeof *watch);
  if (watch == NULL)
    return egi_fail(error, EG_NOMEM, "not enough memory for a watch");
  watch->guard = guard;
  watch->key = (eg_bytes){watch->bytes, key.len};
  memcpy(watch->bytes, key.data, key.len);
  egi_seen_init(&seen);
  status = guard->ops->load(guard->store, key, EG_FOREVER, &seen, error);
  if (status == EG_OK)
    status = guard->ops->watch(guard->store, key, &seen, &watch->watch, NULL,
                               error);
  egi_seen_free(&seen, &guard->env);
  if (status != EG_OK) {
    egi_free(&guard->env, watch, sizeof *watch);
    return status;
  }
  *watch_out = watch;
  return EG_OK;
}

/* When the lease of a grant on the key ends, if that is before the deadline:
** nobody else tells. */
static eg_status lease_end(eg_watch *watch, int64_t now_us,
                           int64_t *deadline_us, eg_error *error) {
  eg_guard *guard = watch->guard;
  egi_seen seen;
  egi_seen_init(&seen);
  eg_status status = guard->ops->load(guard->store, watch->key, EG_FOREVER,
                                      &seen, error);
  if (status == EG_OK && seen.at.held && seen.at.left_us >= 0 &&
      seen.at.left_us < *deadline_us - now_us)
    *deadline_us = now_us + seen.at.left_us;
  egi_seen_free(&seen, &guard->env);
  return status;
}

/* A wait may win the exclusion, which a watcher does not want: it is given
** back with its watch, and another one made. */
static eg_status give_back(eg_watch *watch, eg_error *error) {
  eg_guard *guard = watch->guard;
  egi_watch *fresh = NULL;
  egi_seen seen;
  egi_seen_init(&seen);
  eg_status status = guard->ops->load(guard->store, watch->key, EG_FOREVER,
                                      &seen, error);
  if (status == EG_OK)
    status = guard->ops->watch(guard->store, watch->key, &seen, &fresh, NULL,
                               error);
  egi_seen_free(&seen, &guard->env);
  if (status != EG_OK)
    return status;
  guard->ops->unwatch(watch->watch);
  watch->watch = fresh;
  return EG_CHANGED;
}

eg_status eg_watch_wait(eg_watch *watch, int64_t wait_ms, eg_error *error) {
  eg_guard *guard = watch->guard;
  int64_t now = egi_now(&guard->env);
  int64_t deadline = egi_deadline(now, wait_ms), until = deadline;
  eg_status status = lease_end(watch, now, &until, error);
  if (status == EG_OK)
    status = guard->ops->wait(watch->watch, until, error);
  if (status == EG_OK)
    status = give_back(watch, error);
  return status == EG_TIMEOUT && until < deadline ? EG_CHANGED : status;
}

void eg_unwatch(eg_watch *watch) {
  if (watch == NULL)
    return;
  watch->guard->ops->unwatch(watch->watch);
  egi_free(&watch->guard->env, watch, sizeof *watch);
}
