/* SPDX-License-Identifier: MIT
** The machine's clock, and which clock is in force.
**
** These tests use real time, with bounds that only a stopped machine misses:
** nothing here waits for more than a few milliseconds.
*/
#include "support.h"

#include <errno.h>
#include <time.h>

static int64_t machine_us(clockid_t id) {
  struct timespec ts;
  clock_gettime(id, &ts);
  return (int64_t)ts.tv_sec * SECOND + ts.tv_nsec / 1000;
}

static void now_never_goes_back(void **state) {
  (void)state;
  const eg_clock *c = eg_system_clock();
  int64_t before = c->now_us(c->ctx);
  for (int i = 0; i < 10000; i++) {
    int64_t now = c->now_us(c->ctx);
    assert_true(now >= before);
    before = now;
  }
  assert_true(before <= machine_us(CLOCK_MONOTONIC));
}

static void coarse_lags_by_milliseconds_at_most(void **state) {
  (void)state;
  const eg_clock *c = eg_system_clock();
  int64_t before = c->now_us(c->ctx);
  int64_t coarse = c->coarse_us(c->ctx);
  int64_t after = c->now_us(c->ctx);
  assert_true(coarse >= before - SECOND);
  assert_true(coarse <= after);
}

static void offset_leads_to_the_epoch_within_a_second(void **state) {
  (void)state;
  const eg_clock *c = eg_system_clock();
  for (int i = 0; i < 3; i++) {
    int64_t now = c->now_us(c->ctx);
    int64_t wall = now + c->offset_us(c->ctx, now);
    int64_t right = machine_us(CLOCK_REALTIME);
    assert_true(wall > right - SECOND && wall < right + SECOND);
  }
}

/* An offset that was read long ago, or later than `now`, is read again. */
static void offset_of_another_time_is_right_too(void **state) {
  (void)state;
  const eg_clock *c = eg_system_clock();
  int64_t now = c->now_us(c->ctx);
  int64_t first = c->offset_us(c->ctx, now);
  int64_t later = c->offset_us(c->ctx, now + 5 * SECOND);
  int64_t back = c->offset_us(c->ctx, now);
  assert_true(later > first - SECOND && later < first + SECOND);
  assert_true(back > first - SECOND && back < first + SECOND);
}

static void wait_ends_at_its_deadline(void **state) {
  (void)state;
  const eg_clock *c = eg_system_clock();
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t cond;
  assert_int_equal(eg_cond_init(&cond), 0);
  pthread_mutex_lock(&mutex);
  int64_t deadline = c->now_us(c->ctx) + 2 * MS;
  int rc = 0;
  while (rc == 0)
    rc = c->wait(c->ctx, &cond, &mutex, deadline);
  assert_int_equal(rc, ETIMEDOUT);
  assert_true(c->now_us(c->ctx) >= deadline);
  assert_int_equal(c->wait(c->ctx, &cond, &mutex, 0), ETIMEDOUT);
  pthread_mutex_unlock(&mutex);
  pthread_cond_destroy(&cond);
}

typedef struct meeting {
  const eg_clock *clock;
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  bool come;
  int rc;
} meeting;

static void await_meeting(void *arg) {
  meeting *m = arg;
  const eg_clock *c = m->clock;
  pthread_mutex_lock(&m->mutex);
  m->rc = 0;
  while (!m->come && m->rc == 0)
    m->rc = c->wait(c->ctx, &m->cond, &m->mutex, EG_FOREVER);
  pthread_mutex_unlock(&m->mutex);
}

static void wake_wakes_everybody(void **state) {
  (void)state;
  spec_thread threads[3];
  meeting m = {eg_system_clock(), PTHREAD_MUTEX_INITIALIZER,
               PTHREAD_COND_INITIALIZER, false, -1};
  for (int i = 0; i < 3; i++)
    spec_start(&threads[i], await_meeting, &m);
  pthread_mutex_lock(&m.mutex);
  m.come = true;
  m.clock->wake(m.clock->ctx, &m.cond);
  pthread_mutex_unlock(&m.mutex);
  for (int i = 0; i < 3; i++)
    spec_join(&threads[i]);
  assert_int_equal(m.rc, 0);
}

static void set_clock_is_the_clock_in_force(void **state) {
  (void)state;
  eg_test_clock_reset(false);
  eg_set_clock(eg_test_clock());
  int64_t now = eg_now_us();
  assert_true(now == eg_test_clock()->now_us(NULL));
  assert_true(eg_wall_us() == INT64_C(1767225600) * SECOND);
  eg_test_clock_advance(3);
  assert_true(eg_now_us() == now + 3);
  assert_true(eg_wall_us() == INT64_C(1767225600) * SECOND + 3);
  eg_set_clock(NULL);
  int64_t right = machine_us(CLOCK_REALTIME);
  int64_t wall = eg_wall_us();
  assert_true(wall > right - 60 * SECOND && wall < right + 60 * SECOND);
}

/* A guard without a clock of its own follows the process's, from now on. */
static void guard_without_a_clock_uses_the_one_in_force(void **state) {
  (void)state;
  eg_guard *guard;
  eg_grant grant;
  eg_reply reply;
  eg_test_clock_reset(false);
  eg_set_clock(eg_test_clock());
  eg_reply_init(&reply);
  assert_int_equal(eg_open(NULL, &guard, NULL), EG_OK);
  assert_int_equal(
      eg_acquire(guard, eg_str("k"), EG_WANT_RUN, NULL, 0, &grant, &reply),
      EG_OK);
  assert_true(grant.start_us == eg_test_clock()->now_us(NULL));
  eg_reply_free(&reply);
  eg_close(guard);
  eg_set_clock(NULL);
}

static void guard_with_a_clock_keeps_it(void **state) {
  (void)state;
  eg_guard *guard;
  eg_grant grant;
  eg_reply reply;
  eg_options options = {.env.clock = eg_test_clock()};
  eg_test_clock_reset(false);
  eg_reply_init(&reply);
  assert_int_equal(eg_open(&options, &guard, NULL), EG_OK);
  assert_int_equal(
      eg_acquire(guard, eg_str("k"), EG_WANT_RUN, NULL, 0, &grant, &reply),
      EG_OK);
  assert_true(grant.start_us == eg_test_clock()->now_us(NULL));
  eg_reply_free(&reply);
  eg_close(guard);
}

static void sleep_takes_as_long_as_it_says(void **state) {
  (void)state;
  int64_t before = machine_us(CLOCK_MONOTONIC);
  eg_sleep_us(0);
  eg_sleep_us(-5);
  eg_sleep_us(INT64_MIN);
  eg_sleep_us(2 * MS);
  assert_true(machine_us(CLOCK_MONOTONIC) - before >= 2 * MS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(now_never_goes_back),
      cmocka_unit_test(coarse_lags_by_milliseconds_at_most),
      cmocka_unit_test(offset_leads_to_the_epoch_within_a_second),
      cmocka_unit_test(offset_of_another_time_is_right_too),
      cmocka_unit_test(wait_ends_at_its_deadline),
      cmocka_unit_test(wake_wakes_everybody),
      cmocka_unit_test(set_clock_is_the_clock_in_force),
      cmocka_unit_test(guard_without_a_clock_uses_the_one_in_force),
      cmocka_unit_test(guard_with_a_clock_keeps_it),
      cmocka_unit_test(sleep_takes_as_long_as_it_says),
  };
  return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
