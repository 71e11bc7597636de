/* SPDX-License-Identifier: MIT
** What is counted as what, by the table of section 5 of the design.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/counters.h"

static void acquire_when_granted_is_an_execution(void **state) {
  (void)state;
  assert_int_equal(egi_counter_of_acquire(EG_OK), EGI_EXECUTIONS);
}

static void acquire_when_cached_is_a_cached_result(void **state) {
  (void)state;
  assert_int_equal(egi_counter_of_acquire(EG_CACHED), EGI_CACHED);
}

static void acquire_when_refused_is_blocked(void **state) {
  (void)state;
  static const eg_status refused[] = {
      EG_COMPLETED,   EG_RUNNING,       EG_LOCKED,  EG_DEADLOCK,
      EG_COOLDOWN,    EG_CRASHED,       EG_FAILED,  EG_TIMEOUT,
      EG_UNAVAILABLE, EG_INDETERMINATE, EG_CANCELED};
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
    assert_int_equal(egi_counter_of_acquire(refused[i]), EGI_BLOCKED);
}

static void end_when_failed_or_late_is_counted(void **state) {
  (void)state;
  assert_int_equal(egi_counter_of_end(EG_FAILED), EGI_FAILED);
  assert_int_equal(egi_counter_of_end(EG_TIMEOUT), EGI_TIMED_OUT);
}

static void end_when_done_or_refused_is_not_counted(void **state) {
  (void)state;
  assert_int_equal(egi_counter_of_end(EG_OK), EGI_COUNTERS);
  assert_int_equal(egi_counter_of_end(EG_LOST), EGI_COUNTERS);
  assert_int_equal(egi_counter_of_end(EG_UNCOMMITTED), EGI_COUNTERS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(acquire_when_granted_is_an_execution),
      cmocka_unit_test(acquire_when_cached_is_a_cached_result),
      cmocka_unit_test(acquire_when_refused_is_blocked),
      cmocka_unit_test(end_when_failed_or_late_is_counted),
      cmocka_unit_test(end_when_done_or_refused_is_not_counted),
  };
  return cmocka_run_group_tests_name("counters", tests, NULL, NULL);
}
