/* SPDX-License-Identifier: MIT
** When a run ended, by its record alone.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/record.h"

#define START_US INT64_C(1767225600000000)

static egi_record ended(eg_run status) {
  egi_record record = {.head = {.status = status},
                       .start_us = START_US,
                       .duration_us = 1500000};
  return record;
}

static void end_of_an_ended_run_is_start_and_duration(void **state) {
  (void)state;
  static const eg_run runs[] = {EG_RUN_COMPLETED, EG_RUN_TIMEDOUT,
                                EG_RUN_FAILED};
  for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
    egi_record record = ended(runs[i]);
    assert_int_equal(egi_record_end(&record), START_US + 1500000);
  }
}

static void end_is_unknown_while_idle_or_running(void **state) {
  (void)state;
  egi_record idle = ended(EG_RUN_IDLE), running = ended(EG_RUN_RUNNING);
  assert_int_equal(egi_record_end(&idle), 0);
  assert_int_equal(egi_record_end(&running), 0);
}

static void end_is_unknown_where_the_owner_died(void **state) {
  (void)state;
  egi_record record = ended(EG_RUN_FAILED);
  record.head.crashed = true;
  assert_int_equal(egi_record_end(&record), 0);
}

static void end_is_unknown_where_the_start_is(void **state) {
  (void)state;
  egi_record record = ended(EG_RUN_COMPLETED);
  record.start_us = 0;
  assert_int_equal(egi_record_end(&record), 0);
}

static void end_of_an_instant_run_is_its_start(void **state) {
  (void)state;
  egi_record record = ended(EG_RUN_COMPLETED);
  record.duration_us = 0;
  assert_int_equal(egi_record_end(&record), START_US);
}

/* The codec reads any time up to INT64_MAX, also from a damaged store. */
static void end_of_the_largest_times_does_not_overflow(void **state) {
  (void)state;
  egi_record record = ended(EG_RUN_COMPLETED);
  record.start_us = record.duration_us = INT64_MAX;
  assert_true(egi_record_end(&record) >= 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(end_of_an_ended_run_is_start_and_duration),
      cmocka_unit_test(end_is_unknown_while_idle_or_running),
      cmocka_unit_test(end_is_unknown_where_the_owner_died),
      cmocka_unit_test(end_is_unknown_where_the_start_is),
      cmocka_unit_test(end_of_an_instant_run_is_its_start),
      cmocka_unit_test(end_of_the_largest_times_does_not_overflow),
  };
  return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
