/* SPDX-License-Identifier: MIT
** A clock that is moved by hand, for tests of the library and of its users.
**
** MUTEX RULES.  (1) `lock` guards everything below.  (2) It is taken by the
** clock's functions, which are called with a waiter's mutex held: so the order
** is waiter's mutex, then lock.  (3) Moving the clock has to wake waiters
** with their mutex held, else a wake-up could fall between their look at the
** clock and their sleep; it takes that mutex the wrong way round, so it only
** tries, and lets go of everything when it fails.
*/
#include "guard/guard.h"

#include <errno.h>
#include <sched.h>

/* 2026-01-01T00:00:00Z, and a steady time that looks like an uptime. */
#define EPOCH_START INT64_C(1767225600000000)
#define STEADY_START INT64_C(1000000000000)

typedef struct sleeper {
  pthread_cond_t *cond;
  pthread_mutex_t *mutex;
  int64_t deadline_us;
  bool woken;
  struct sleeper *next;
} sleeper;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t now = STEADY_START;
static int64_t offset = EPOCH_START - STEADY_START;
static bool auto_advances;
static sleeper *sleepers;

static int64_t test_now(void *ctx) {
  (void)ctx;
  pthread_mutex_lock(&lock);
  int64_t us = now;
  pthread_mutex_unlock(&lock);
  return us;
}

static int64_t test_offset(void *ctx, int64_t now_us) {
  (void)ctx;
  (void)now_us;
  pthread_mutex_lock(&lock);
  int64_t us = offset;
  pthread_mutex_unlock(&lock);
  return us;
}

static void unlink_sleeper(sleeper *s) {
  sleeper **link = &sleepers;
  while (*link != s)
    link = &(*link)->next;
  *link = s->next;
}

/* One due sleeper is woken.  False: there was none. */
static bool wake_one(void) {
  sleeper *s = sleepers;
  while (s != NULL && (s->woken || s->deadline_us > now))
    s = s->next;
  if (s == NULL)
    return false;
  if (pthread_mutex_trylock(s->mutex) == 0) {
    s->woken = true;
    pthread_cond_broadcast(s->cond);
    pthread_mutex_unlock(s->mutex);
  } else {
    pthread_mutex_unlock(&lock);
    sched_yield();
    pthread_mutex_lock(&lock);
  }
  return true;
}

static int test_wait(void *ctx, pthread_cond_t *cond, pthread_mutex_t *mutex,
                     int64_t deadline_us) {
  (void)ctx;
  sleeper self = {cond, mutex, deadline_us, false, NULL};
  pthread_mutex_lock(&lock);
  bool moves = auto_advances && deadline_us != EG_FOREVER && deadline_us > now;
  if (moves)
    now = deadline_us;
  if (now >= deadline_us) {
    pthread_mutex_unlock(&lock);
    if (moves)
      egi_keeper_ring();
    return ETIMEDOUT;
  }
  self.next = sleepers;
  sleepers = &self;
  pthread_mutex_unlock(&lock);
  pthread_cond_wait(cond, mutex);
  pthread_mutex_lock(&lock);
  unlink_sleeper(&self);
  bool due = now >= deadline_us;
  pthread_mutex_unlock(&lock);
  return due ? ETIMEDOUT : 0;
}

static void test_wake(void *ctx, pthread_cond_t *cond) {
  (void)ctx;
  pthread_cond_broadcast(cond);
}

/* Who slept is not in the child. */
void egi_test_clock_fork(egi_fork phase) {
  egi_mutex_fork(&lock, phase);
  if (phase == EGI_FORKED_CHILD)
    sleepers = NULL;
}

static const eg_clock test_clock = {
    NULL, test_now, test_now, test_offset, test_wait, test_wake,
};

bool egi_clock_jumps(void) {
  pthread_mutex_lock(&lock);
  bool jumps = auto_advances && egi_clock_in_force() == &test_clock;
  pthread_mutex_unlock(&lock);
  return jumps;
}

const eg_clock *eg_test_clock(void) { return &test_clock; }

void eg_test_clock_reset(bool auto_advance) {
  pthread_mutex_lock(&lock);
  now = STEADY_START;
  offset = EPOCH_START - STEADY_START;
  auto_advances = auto_advance;
  pthread_mutex_unlock(&lock);
  egi_keeper_ring();
}

void eg_test_clock_advance(int64_t us) {
  pthread_mutex_lock(&lock);
  now += us > 0 ? us : 0;
  while (wake_one())
    continue;
  pthread_mutex_unlock(&lock);
  egi_keeper_settle();
}

void eg_test_clock_set_wall(int64_t epoch_us) {
  pthread_mutex_lock(&lock);
  offset = epoch_us - now;
  pthread_mutex_unlock(&lock);
}
