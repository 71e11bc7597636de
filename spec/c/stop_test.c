/* SPDX-License-Identifier: MIT
** A stop is put off until no thread is in the midst of a step.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "store/stop.h"
#include "support.h"

static _Atomic int stops, last, inside;
static _Atomic bool over, met;

static void note(int value) {
  atomic_fetch_add(&stops, 1);
  atomic_store(&last, value);
  if (atomic_load(&inside) != 0)
    atomic_store(&met, true);
}

static int begin(void **state) {
  (void)state;
  egi_stops_wait = true;
  stops = last = inside = 0;
  over = met = false;
  return 0;
}

static void stop_when_nobody_is_in_a_step_is_at_once(void **state) {
  (void)state;
  egi_stop_between(note, 7);
  assert_int_equal(stops, 1);
  assert_int_equal(last, 7);
  egi_unstoppable_begin();
  egi_unstoppable_end();
  assert_int_equal(stops, 1);
}

static void stop_within_a_step_is_at_the_end_of_the_outer_one(void **state) {
  (void)state;
  egi_unstoppable_begin();
  egi_stop_between(note, 8);
  egi_unstoppable_begin();
  egi_unstoppable_end();
  assert_int_equal(stops, 0);
  egi_stop_between(note, 9);
  egi_unstoppable_end();
  assert_int_equal(stops, 1);
  assert_int_equal(last, 9);
}

static void stop_again(int value) {
  egi_stop_between(note, value);
  atomic_fetch_add(&stops, 1);
}

static void stop_within_a_stop_is_the_same_one(void **state) {
  (void)state;
  egi_stop_between(stop_again, 3);
  assert_int_equal(stops, 1);
}

static void stop_of_before_a_fork_is_not_the_child_s(void **state) {
  (void)state;
  egi_unstoppable_begin();
  egi_stop_between(note, 1);
  egi_stop_forked();
  egi_unstoppable_begin();
  egi_unstoppable_end();
  assert_int_equal(stops, 0);
  egi_stop_between(note, 1);
  assert_int_equal(stops, 1);
}

static void *work(void *arg) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  (void)arg;
  while (!atomic_load(&over)) {
    egi_unstoppable_begin();
    atomic_fetch_add(&inside, 1);
    atomic_fetch_sub(&inside, 1);
    egi_unstoppable_end();
  }
  return NULL;
}

static void on_signal(int number) { egi_stop_between(note, number); }

/* The thread that the signals come to is in steps of its own. */
static void nobody_is_in_a_step_while_it_stops(void **state) {
  pthread_t threads[2];
  struct sigaction action = {.sa_handler = on_signal};
  (void)state;
  sigaction(SIGUSR1, &action, NULL);
  for (int i = 0; i < 2; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, work, NULL), 0);
  for (int i = 0; i < spec_scaled(2000); i++) {
    egi_unstoppable_begin();
    atomic_fetch_add(&inside, 1);
    kill(getpid(), SIGUSR1);
    atomic_fetch_sub(&inside, 1);
    egi_unstoppable_end();
    kill(getpid(), SIGUSR1);
  }
  atomic_store(&over, true);
  for (int i = 0; i < 2; i++)
    pthread_join(threads[i], NULL);
  assert_true(stops > 0);
  assert_int_equal(last, SIGUSR1);
  assert_false(met);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(stop_when_nobody_is_in_a_step_is_at_once, begin),
      cmocka_unit_test_setup(stop_within_a_step_is_at_the_end_of_the_outer_one,
                             begin),
      cmocka_unit_test_setup(stop_within_a_stop_is_the_same_one, begin),
      cmocka_unit_test_setup(stop_of_before_a_fork_is_not_the_child_s, begin),
      cmocka_unit_test_setup(nobody_is_in_a_step_while_it_stops, begin),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
