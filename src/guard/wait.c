/* SPDX-License-Identifier: MIT
** Waiting until a key can be had, with a deadline and without polling.
**
** A waiter watches the key, and only then looks at it again: whatever happened
** before the watch is seen by the look, whatever comes after wakes the watch.
*/
#include "guard/guard.h"

typedef struct waiting {
  egi_step *step;
  int64_t deadline_us;
  bool watching;
  egi_watch *watch; /* NULL where the store has none */
} waiting;

/* Where the store cannot tell, look again after that long. */
#define POLL_US 20000

static eg_status begin(waiting *w, eg_error *error) {
  egi_step *step = w->step;
  const egi_store_ops *ops = step->guard->ops;
  int fd;
  w->watching = true;
  if (ops->watch == NULL)
    return EG_CHANGED;
  egi_seen seen;
  egi_seen_init(&seen);
  seen.version = step->version;
  seen.at = step->sight;
  eg_status status = ops->watch(step->guard->store, step->key, &seen,
                                &w->watch, &fd, error);
  return status == EG_OK ? EG_CHANGED : status;
}

static void end(waiting *w) {
  if (w->watch != NULL)
    w->step->guard->ops->unwatch(w->watch);
}

static int64_t sooner(int64_t a, int64_t b) { return a < b ? a : b; }

/* Sleeps until the key has changed, left_us (-1: no limit) have passed, or the
** deadline has come.  TIMEOUT only for the last. */
static eg_status sleep_on(waiting *w, int64_t left_us, eg_error *error) {
  const eg_env *env = &w->step->guard->env;
  int64_t now = egi_now(env);
  if (now >= w->deadline_us)
    return EG_TIMEOUT;
  int64_t until = w->deadline_us;
  if (left_us >= 0 && left_us < EG_FOREVER - now)
    until = sooner(until, now + left_us);
  if (w->watch == NULL) {
    egi_sleep(env->clock, sooner(until - now, POLL_US));
    return EG_CHANGED;
  }
  eg_status status = w->step->guard->ops->wait(w->watch, until, error);
  egi_keeper_settle();
  return status == EG_TIMEOUT && until < w->deadline_us ? EG_CHANGED : status;
}

/* Is this an answer that another moment may change? */
static bool may_change(const egi_step *step, eg_status status) {
  if (status == EG_LOCKED)
    return true;
  return status == EG_COOLDOWN && step->event.type == EGI_ACQUIRE_LOCK;
}

static int64_t time_left(const egi_step *step, eg_status status) {
  if (status == EG_COOLDOWN)
    return step->left_us;
  return step->sight.clocked ? step->sight.left_us : -1;
}

/* Waits for a reason to ask again.  CHANGED: there is one.  TIMEOUT: it is too
** late.  DEADLOCK: there will be none. */
static eg_status pause(waiting *w, eg_status refused, eg_error *error) {
  if (w->step->same_state && refused != EG_COOLDOWN)
    return EG_DEADLOCK;
  if (!w->watching)
    return begin(w, error);
  return sleep_on(w, time_left(w->step, refused), error);
}

/* Asks again, a last time when the deadline has come: what ends in that very
** moment still counts. */
static eg_status look(egi_step *step, eg_status woken, eg_error *error) {
  step->now_us = EGI_NO_TIME; /* what the last look read is old */
  return woken == EG_CHANGED || woken == EG_TIMEOUT ? egi_step_run(step, error)
                                                    : woken;
}

eg_status egi_wait_free(egi_step *step, int64_t deadline_us, eg_error *error) {
  waiting w = {step, deadline_us, false, NULL};
  eg_status status = step->outcome;
  while (may_change(step, status)) {
    eg_status woken = pause(&w, status, error);
    status = look(step, woken, error);
    if (woken == EG_TIMEOUT)
      break;
  }
  end(&w);
  return status;
}

eg_status egi_wait_join(egi_step *step, int64_t deadline_us, eg_error *error) {
  waiting w = {step, deadline_us, false, NULL};
  eg_status status = EG_RUNNING;
  egi_event asked = step->event;
  step->event.type = EGI_JOIN;
  step->event.token = step->sight.token;
  while (status == EG_RUNNING) {
    eg_status woken = pause(&w, status, error);
    status = look(step, woken, error);
    if (woken == EG_TIMEOUT)
      break;
  }
  end(&w);
  step->event = asked;
  return status;
}
