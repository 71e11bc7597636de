/* SPDX-License-Identifier: MIT
** The machine's clock, and which clock is in force in this process.
**
** Wall time is the steady clock plus an offset.  The offset is read again when
** it is a second old, so a wall clock that is set is followed within a second,
** and a time stamp costs one reading of one clock.
*/
#include "guard/guard.h"

#include <errno.h>
#include <stdatomic.h>
#include <time.h>

#define SECOND INT64_C(1000000)

static int64_t read_us(clockid_t id) {
  struct timespec ts;
  clock_gettime(id, &ts);
  return (int64_t)ts.tv_sec * SECOND + ts.tv_nsec / 1000;
}

static int64_t system_now(void *ctx) {
  (void)ctx;
  return read_us(CLOCK_MONOTONIC);
}

static int64_t system_coarse(void *ctx) {
  (void)ctx;
#ifdef CLOCK_MONOTONIC_COARSE
  return read_us(CLOCK_MONOTONIC_COARSE);
#else
  return read_us(CLOCK_MONOTONIC);
#endif
}

/* Both are guesses that any thread may renew.  Who sees the time of a reading
** sees that reading, or a later one. */
static _Atomic int64_t wall_offset, offset_read_at = INT64_MIN / 2;

static int64_t system_offset(void *ctx, int64_t now_us) {
  (void)ctx;
  int64_t read_at = atomic_load_explicit(&offset_read_at,
                                         memory_order_acquire);
  if (now_us - read_at < SECOND)
    return atomic_load_explicit(&wall_offset, memory_order_relaxed);
  int64_t offset = read_us(CLOCK_REALTIME) - read_us(CLOCK_MONOTONIC);
  atomic_store_explicit(&wall_offset, offset, memory_order_relaxed);
  atomic_store_explicit(&offset_read_at, now_us, memory_order_release);
  return offset;
}

static int system_wait(void *ctx, pthread_cond_t *cond, pthread_mutex_t *mutex,
                       int64_t deadline_us) {
  (void)ctx;
  if (deadline_us == EG_FOREVER)
    return pthread_cond_wait(cond, mutex);
  struct timespec ts = {deadline_us / SECOND, deadline_us % SECOND * 1000};
  return pthread_cond_timedwait(cond, mutex, &ts);
}

static void system_wake(void *ctx, pthread_cond_t *cond) {
  (void)ctx;
  pthread_cond_broadcast(cond);
}

static const eg_clock system_clock = {
    NULL, system_now, system_coarse, system_offset, system_wait, system_wake,
};

const eg_clock *eg_system_clock(void) { return &system_clock; }

int eg_cond_init(pthread_cond_t *cond) { return egi_steady_cond(cond); }

/* ------------------------------------------------ the clock in force -- */

static const eg_clock *_Atomic in_force = &system_clock;

static const eg_clock *current(void) {
  return atomic_load_explicit(&in_force, memory_order_acquire);
}

static int64_t process_now(void *ctx) {
  (void)ctx;
  const eg_clock *c = current();
  return c == &system_clock ? read_us(CLOCK_MONOTONIC) : c->now_us(c->ctx);
}

static int64_t process_coarse(void *ctx) {
  (void)ctx;
  const eg_clock *c = current();
  return c->coarse_us(c->ctx);
}

static int64_t process_offset(void *ctx, int64_t now_us) {
  (void)ctx;
  const eg_clock *c = current();
  return c->offset_us(c->ctx, now_us);
}

static int process_wait(void *ctx, pthread_cond_t *cond,
                        pthread_mutex_t *mutex, int64_t deadline_us) {
  (void)ctx;
  const eg_clock *c = current();
  return c->wait(c->ctx, cond, mutex, deadline_us);
}

static void process_wake(void *ctx, pthread_cond_t *cond) {
  (void)ctx;
  const eg_clock *c = current();
  c->wake(c->ctx, cond);
}

static const eg_clock process_clock = {
    NULL,           process_now,  process_coarse,
    process_offset, process_wait, process_wake,
};

const eg_clock *egi_clock_in_force(void) { return current(); }

const eg_clock *egi_process_clock(void) { return &process_clock; }

void eg_set_clock(const eg_clock *clock) {
  atomic_store_explicit(&in_force, clock != NULL ? clock : &system_clock,
                        memory_order_release);
  egi_keeper_ring();
}

int64_t eg_now_us(void) { return process_now(NULL); }

int64_t eg_wall_us(void) {
  int64_t now = process_now(NULL);
  return now + process_offset(NULL, now);
}

void egi_sleep(const eg_clock *clock, int64_t us) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t cond;
  if (us <= 0 || eg_cond_init(&cond) != 0)
    return;
  int64_t now = clock->now_us(clock->ctx);
  int64_t deadline = us < EG_FOREVER - now ? now + us : EG_FOREVER;
  pthread_mutex_lock(&mutex);
  while (clock->now_us(clock->ctx) < deadline)
    if (clock->wait(clock->ctx, &cond, &mutex, deadline) == ETIMEDOUT)
      break;
  pthread_mutex_unlock(&mutex);
  pthread_cond_destroy(&cond);
  pthread_mutex_destroy(&mutex);
  egi_keeper_settle();
}

void eg_sleep_us(int64_t us) { egi_sleep(&process_clock, us); }
