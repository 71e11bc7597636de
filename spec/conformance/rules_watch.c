/* SPDX-License-Identifier: MIT
** Rules 10 and 12: who waits is woken, and what the end of a handle ends.
*/
#include "rules.h"

#include <time.h>

enum { WATCHERS = 4, DAY_MS = 24 * 3600 * 1000 };

/* A thread that waits on a watch of its own. */
typedef struct watcher {
  world *w;
  egi_watch *watch;
  pthread_t thread;
  eg_status status;
} watcher;

static void *wait_on(void *ctx) {
  watcher *me = ctx;
  me->status = me->w->ops->wait(me->watch, clock_now_us() + DAY_MS * 1000LL,
                                NULL);
  return NULL;
}

static bool watch(world *w, egi_store *store, const char *key,
                  const egi_seen *seen, egi_watch **watch_out) {
  int fd = -1;
  return w->ops->watch(store, eg_str(key), seen, watch_out, &fd, &w->error) ==
         EG_OK;
}

/* What is left of a world's patience, as a point in real time. */
static struct timespec patience(const world *w) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  at.tv_sec += w->patience_ms / 1000;
  at.tv_nsec += w->patience_ms % 1000 * 1000000L;
  if (at.tv_nsec >= 1000000000L) {
    at.tv_sec++;
    at.tv_nsec -= 1000000000L;
  }
  return at;
}

/* All come back by themselves?  If not, the clock is moved to get them. */
static bool all_woken(world *w, watcher *watchers, int n) {
  struct timespec until = patience(w);
  bool all = true;
  for (int i = 0; i < n; i++) {
    if (pthread_timedjoin_np(watchers[i].thread, NULL, &until) != 0) {
      all = false;
      clock_advance_ms(2 * (int64_t)DAY_MS);
      pthread_join(watchers[i].thread, NULL);
    }
    all = all &&
          (watchers[i].status == EG_CHANGED || watchers[i].status == EG_OK);
    w->ops->unwatch(watchers[i].watch);
  }
  return all;
}

static int start_watchers(world *w, egi_store *store, const char *key,
                          watcher *watchers) {
  egi_seen *s = &w->seen[3];
  int n = 0;
  if (world_load(w, key, s) != EG_OK)
    return 0;
  for (; n < WATCHERS; n++) {
    watchers[n].w = w;
    if (!watch(w, store, key, s, &watchers[n].watch))
      break;
    if (pthread_create(&watchers[n].thread, NULL, wait_on, &watchers[n]) != 0)
      break;
  }
  clock_await_sleepers(n);
  return n;
}

/* ------------------------------------------------------------ rule 10 -- */

const char *rule_10_swap_with_wake_wakes_every_watch(world *w) {
  egi_swap steps[] = {swap_put("one"), swap_take(0), swap_put("two"),
                      swap_break(), swap_forget()};
  egi_seen *s = &w->seen[0];
  if (w->ops->watch == NULL)
    return NULL;
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    watcher watchers[WATCHERS];
    steps[i].wake = true;
    int n = start_watchers(w, w->store, "k", watchers);
    eg_status status = world_change(w, "k", steps[i], s);
    bool woken = all_woken(w, watchers, n);
    MUST(n == WATCHERS && status == EG_OK);
    MUST(woken);
  }
  return NULL;
}

/* One wait, that should not need to wait. */
static eg_status look(world *w, egi_watch *held) {
  return w->ops->wait(held, clock_now_us(), &w->error);
}

/* The same, where what is told has to come over a wire first. */
static eg_status look_soon(world *w, egi_watch *held) {
  eg_status status = look(w, held);
  for (int ms = 0;
       !w->store->inside && status == EG_TIMEOUT && ms < w->patience_ms;
       ms++) {
    nanosleep(&(struct timespec){0, 1000000}, NULL);
    status = look(w, held);
  }
  return status;
}

const char *rule_10_watch_of_an_old_version_returns_at_once(world *w) {
  egi_seen *old = &w->seen[0], *s = &w->seen[1];
  egi_watch *early = NULL, *late = NULL;
  if (w->ops->watch == NULL)
    return NULL;
  for (int i = 0; i < 2; i++) {
    egi_swap put = swap_put("x");
    put.wake = i == 1;
    MUST(world_load(w, "k", old) == EG_OK);
    MUST(watch(w, w->store, "k", old, &early));
    MUST(world_change(w, "k", put, s) == EG_OK);
    MUST(watch(w, w->store, "k", old, &late));
    eg_status first = put.wake || w->store->inside ? look_soon(w, early)
                                                   : EG_CHANGED;
    eg_status second = look(w, late);
    w->ops->unwatch(early);
    w->ops->unwatch(late);
    MUST(first == EG_CHANGED && second == EG_CHANGED);
  }
  return NULL;
}

const char *rule_10_wait_ends_at_its_deadline(world *w) {
  egi_seen *s = &w->seen[0];
  watcher one = {.w = w};
  if (w->ops->watch == NULL)
    return NULL;
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(watch(w, w->store, "k", s, &one.watch));
  eg_status at_once = look(w, one.watch);
  bool started = pthread_create(&one.thread, NULL, wait_on, &one) == 0;
  if (started) {
    clock_await_sleepers(1);
    clock_advance_ms(DAY_MS);
    /* A clock that moved before the wait began is a day short. */
    struct timespec until = patience(w);
    if (pthread_timedjoin_np(one.thread, NULL, &until) != 0) {
      clock_advance_ms(DAY_MS);
      pthread_join(one.thread, NULL);
    }
  }
  w->ops->unwatch(one.watch);
  MUST(at_once == EG_TIMEOUT && started && one.status == EG_TIMEOUT);
  return NULL;
}

/* CHANGED may be said for less, but not for ever. */
static bool calms_down(world *w, egi_watch *held) {
  for (int i = 0; i < 4; i++)
    if (look(w, held) == EG_TIMEOUT)
      return true;
  return false;
}

const char *rule_10_wait_again_waits_for_the_next_change(world *w) {
  egi_seen *s = &w->seen[0];
  egi_watch *held = NULL;
  bool noticed = true, calm = true;
  if (w->ops->watch == NULL)
    return NULL;
  egi_swap put = swap_put("x");
  put.wake = true;
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(watch(w, w->store, "k", s, &held));
  for (int i = 0; i < 3; i++) {
    noticed = world_change(w, "k", put, s) == EG_OK &&
              look_soon(w, held) == EG_CHANGED && noticed;
    calm = calms_down(w, held) && calm;
  }
  w->ops->unwatch(held);
  MUST(noticed);
  MUST(calm);
  return NULL;
}

static eg_status had_and_released(world *w, egi_seen *s) {
  eg_status status = world_change(w, "k", swap_take(0), s);
  if (status != EG_OK)
    return status;
  egi_swap drop = swap_drop(s->at.token);
  drop.wake = true;
  return world_change(w, "k", drop, s);
}

/* Absent, had, absent again: it looks as before, and is not.  A watch that
** blocks in the kernel may have got the lock itself by then (a conflict). */
const char *rule_10_every_end_of_a_lock_wakes(world *w) {
  egi_seen *s = &w->seen[0];
  egi_watch *held = NULL;
  eg_status landed = EG_OK, told = EG_CHANGED;
  if (w->ops->watch == NULL)
    return NULL;
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(watch(w, w->store, "k", s, &held));
  for (int i = 0; i < 20 && landed == EG_OK && told != EG_TIMEOUT; i++) {
    landed = had_and_released(w, s);
    told = look_soon(w, held);
  }
  w->ops->unwatch(held);
  MUST(landed == EG_OK || landed == EG_CONFLICT);
  MUST(told == EG_CHANGED || told == EG_OK);
  return NULL;
}

/* ------------------------------------------------------------ rule 12 -- */

/* Something held by the world's handle, and something held by another. */
static eg_status take_through(world *w, egi_store *store, const char *key) {
  egi_store *mine = w->store;
  egi_swap take = swap_take(0);
  take.write = EGI_PUT;
  take.bytes = eg_str("run");
  w->store = store;
  eg_status status = world_change(w, key, take, &w->seen[2]);
  w->store = mine;
  return status;
}

const char *rule_12_close_drops_its_holds(world *w) {
  enum { KEYS = 100 };
  egi_seen *s = &w->seen[0];
  egi_store *other = world_another(w);
  eg_status status = EG_OK;
  MUST(other != NULL);
  for (int i = 0; i < KEYS && status == EG_OK; i++) {
    char key[2] = {(char)(i + 1), '\0'};
    status = take_through(w, other, key);
  }
  w->ops->close(other);
  MUST(status == EG_OK);
  for (int i = 0; i < KEYS; i++) {
    char key[2] = {(char)(i + 1), '\0'};
    MUST(world_load(w, key, s) == EG_OK);
    MUST(!s->at.held && bytes_are(s->bytes, "run") && s->holder.len == 0);
    uint64_t token = s->at.token;
    MUST(world_change(w, key, swap_take(0), s) == EG_OK);
    MUST(s->at.token > token);
  }
  return NULL;
}

const char *rule_12_close_leaves_the_holds_of_others(world *w) {
  egi_seen *s = &w->seen[0];
  egi_store *other = world_another(w);
  MUST(other != NULL);
  eg_status status = take_through(w, w->store, "mine");
  uint64_t token = w->seen[2].at.token;
  if (status == EG_OK)
    status = take_through(w, other, "passed on");
  if (status == EG_OK) /* ended, and taken by the one that stays */
    status = world_change(w, "passed on", swap_break(), s);
  if (status == EG_OK)
    status = take_through(w, w->store, "passed on");
  w->ops->close(other);
  MUST(status == EG_OK);
  MUST(world_load(w, "mine", s) == EG_OK);
  MUST(s->at.held && s->at.token == token);
  MUST(world_load(w, "passed on", s) == EG_OK && s->at.held);
  MUST(world_change(w, "mine", swap_drop(token), s) == EG_OK);
  return NULL;
}

const char *rule_12_close_wakes_the_watchers_of_its_holds(world *w) {
  watcher watchers[WATCHERS];
  egi_store *other = world_another(w);
  MUST(other != NULL);
  eg_status status = take_through(w, other, "k");
  int n = w->ops->watch != NULL ? start_watchers(w, w->store, "k", watchers)
                                : 0;
  w->ops->close(other);
  bool woken = all_woken(w, watchers, n);
  MUST(status == EG_OK && woken);
  MUST(n == WATCHERS || w->ops->watch == NULL);
  return NULL;
}
