/* SPDX-License-Identifier: MIT
** The clock that is moved by hand.
*/
#include "support.h"

#include <errno.h>
#include <stdatomic.h>

#define EPOCH (INT64_C(1767225600) * SECOND) /* 2026-01-01T00:00:00Z */

static int64_t now(void) { return eg_test_clock()->now_us(NULL); }

static int64_t wall(void) {
  return now() + eg_test_clock()->offset_us(NULL, now());
}

static int begin(void **state) {
  (void)state;
  eg_test_clock_reset(false);
  return 0;
}

/* Somebody who waits until a deadline, or until `come`. */
typedef struct sleeper {
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  int64_t deadline_us;
  bool come;
  atomic_bool ended;
  int rc;
  spec_thread thread;
} sleeper;

static void sleep_until(void *arg) {
  sleeper *s = arg;
  pthread_mutex_lock(&s->mutex);
  s->rc = 0;
  while (!s->come && s->rc == 0)
    s->rc = spec_clock.wait(NULL, &s->cond, &s->mutex, s->deadline_us);
  pthread_mutex_unlock(&s->mutex);
  atomic_store(&s->ended, true);
}

static void start(sleeper *s, int64_t in_us) {
  *s = (sleeper){.mutex = PTHREAD_MUTEX_INITIALIZER, .rc = -1};
  assert_int_equal(eg_cond_init(&s->cond), 0);
  s->deadline_us = in_us == EG_FOREVER ? EG_FOREVER : now() + in_us;
  spec_start(&s->thread, sleep_until, s);
}

static void wake(sleeper *s) {
  pthread_mutex_lock(&s->mutex);
  s->come = true;
  spec_clock.wake(NULL, &s->cond);
  pthread_mutex_unlock(&s->mutex);
}

static void end(sleeper *s) {
  spec_join(&s->thread);
  pthread_cond_destroy(&s->cond);
}

static void clock_starts_in_2026_and_stands_still(void **state) {
  (void)state;
  assert_true(wall() == EPOCH);
  assert_true(now() > 0);
  assert_true(now() == now());
  assert_true(eg_test_clock()->coarse_us(NULL) == now());
}

static void advance_moves_both_times(void **state) {
  (void)state;
  int64_t before = now();
  eg_test_clock_advance(5);
  assert_true(now() == before + 5);
  assert_true(wall() == EPOCH + 5);
  eg_test_clock_advance(0);
  assert_true(now() == before + 5);
}

static void advance_never_goes_back(void **state) {
  (void)state;
  int64_t before = now();
  eg_test_clock_advance(-5);
  assert_true(now() == before);
  eg_test_clock_advance(INT64_MIN);
  assert_true(now() == before);
}

static void set_wall_leaves_the_steady_time(void **state) {
  (void)state;
  int64_t before = now();
  eg_test_clock_advance(SECOND);
  eg_test_clock_set_wall(EPOCH - 3600 * SECOND);
  assert_true(now() == before + SECOND);
  assert_true(wall() == EPOCH - 3600 * SECOND);
  eg_test_clock_advance(7);
  assert_true(wall() == EPOCH - 3600 * SECOND + 7);
}

static void reset_puts_all_back(void **state) {
  (void)state;
  int64_t before = now();
  eg_test_clock_advance(SECOND);
  eg_test_clock_set_wall(1);
  eg_test_clock_reset(true);
  eg_test_clock_reset(false);
  assert_true(now() == before);
  assert_true(wall() == EPOCH);
}

static void wait_when_the_deadline_has_come_times_out(void **state) {
  (void)state;
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
  const eg_clock *c = eg_test_clock();
  pthread_mutex_lock(&mutex);
  assert_int_equal(c->wait(NULL, &cond, &mutex, now()), ETIMEDOUT);
  assert_int_equal(c->wait(NULL, &cond, &mutex, 0), ETIMEDOUT);
  pthread_mutex_unlock(&mutex);
}

static void advance_wakes_a_waiter_of_another_thread(void **state) {
  (void)state;
  sleeper s;
  start(&s, 10 * MS);
  assert_true(spec_await_sleepers(1));
  eg_test_clock_advance(10 * MS);
  end(&s);
  assert_int_equal(s.rc, ETIMEDOUT);
}

static void advance_before_the_deadline_wakes_nobody(void **state) {
  (void)state;
  sleeper s;
  start(&s, 10 * MS);
  assert_true(spec_await_sleepers(1));
  eg_test_clock_advance(10 * MS - 1);
  assert_false(atomic_load(&s.ended));
  eg_test_clock_advance(1);
  end(&s);
  assert_int_equal(s.rc, ETIMEDOUT);
}

static void advance_wakes_only_those_whose_time_has_come(void **state) {
  (void)state;
  enum { N = 8 };
  static sleeper s[N];
  for (int i = 0; i < N; i++)
    start(&s[i], (i + 1) * 10 * MS);
  assert_true(spec_await_sleepers(N));
  eg_test_clock_advance(40 * MS);
  for (int i = 0; i < 4; i++)
    end(&s[i]);
  for (int i = 4; i < N; i++)
    assert_false(atomic_load(&s[i].ended));
  eg_test_clock_advance(1000 * MS);
  for (int i = 4; i < N; i++)
    end(&s[i]);
  for (int i = 0; i < N; i++)
    assert_int_equal(s[i].rc, ETIMEDOUT);
}

static void wait_without_a_deadline_ends_when_woken(void **state) {
  (void)state;
  sleeper s;
  start(&s, EG_FOREVER);
  assert_true(spec_await_sleepers(1));
  eg_test_clock_advance(INT64_C(1000000) * SECOND);
  assert_false(atomic_load(&s.ended));
  wake(&s);
  end(&s);
  assert_int_equal(s.rc, 0);
}

static void wake_ends_a_wait_before_its_deadline(void **state) {
  (void)state;
  sleeper s;
  start(&s, 10 * MS);
  assert_true(spec_await_sleepers(1));
  wake(&s);
  end(&s);
  assert_int_equal(s.rc, 0);
  eg_test_clock_advance(20 * MS); /* nobody is left to be woken */
}

static void auto_mode_moves_the_clock_to_the_deadline(void **state) {
  (void)state;
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
  const eg_clock *c = eg_test_clock();
  eg_test_clock_reset(true);
  int64_t deadline = now() + 3600 * SECOND;
  pthread_mutex_lock(&mutex);
  assert_int_equal(c->wait(NULL, &cond, &mutex, deadline), ETIMEDOUT);
  assert_true(now() == deadline);
  assert_int_equal(c->wait(NULL, &cond, &mutex, 5), ETIMEDOUT);
  assert_true(now() == deadline);
  pthread_mutex_unlock(&mutex);
}

static void auto_mode_still_waits_for_ever_without_a_deadline(void **state) {
  (void)state;
  sleeper s;
  eg_test_clock_reset(true);
  int64_t before = now();
  start(&s, EG_FOREVER);
  assert_true(spec_await_sleepers(1));
  assert_true(now() == before);
  wake(&s);
  end(&s);
  assert_int_equal(s.rc, 0);
}

static void nap(void *arg) {
  (void)arg;
  eg_sleep_us(5 * SECOND);
}

static void sleep_is_let_go_when_the_clock_is_moved(void **state) {
  (void)state;
  spec_thread thread;
  eg_set_clock(&spec_clock);
  spec_start(&thread, nap, NULL);
  assert_true(spec_await_sleepers(1));
  eg_test_clock_advance(5 * SECOND);
  spec_join(&thread);
  eg_test_clock_reset(true);
  int64_t before = now();
  eg_sleep_us(7);
  assert_true(now() == before + 7);
  eg_set_clock(NULL);
}

/* Many who come and go while the clock is moved: none is forgotten. */
static void advance_races_with_those_who_come(void **state) {
  (void)state;
  enum { N = 4 };
  static sleeper s[N];
  for (int round = spec_scaled(200); round > 0; round--) {
    for (int i = 0; i < N; i++)
      start(&s[i], i * MS);
    eg_test_clock_advance(N * MS);
    for (int i = 0; i < N; i++)
      end(&s[i]);
  }
}

#define TEST(name) cmocka_unit_test_setup(name, begin)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(clock_starts_in_2026_and_stands_still),
      TEST(advance_moves_both_times),
      TEST(advance_never_goes_back),
      TEST(set_wall_leaves_the_steady_time),
      TEST(reset_puts_all_back),
      TEST(wait_when_the_deadline_has_come_times_out),
      TEST(advance_wakes_a_waiter_of_another_thread),
      TEST(advance_before_the_deadline_wakes_nobody),
      TEST(advance_wakes_only_those_whose_time_has_come),
      TEST(wait_without_a_deadline_ends_when_woken),
      TEST(wake_ends_a_wait_before_its_deadline),
      TEST(auto_mode_moves_the_clock_to_the_deadline),
      TEST(auto_mode_still_waits_for_ever_without_a_deadline),
      TEST(sleep_is_let_go_when_the_clock_is_moved),
      TEST(advance_races_with_those_who_come),
  };
  return cmocka_run_group_tests_name("test_clock", tests, NULL, NULL);
}
