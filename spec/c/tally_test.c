/* SPDX-License-Identifier: MIT
** Durations in buckets, and the tally of a key's earlier runs.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/tally.h"

static uint64_t seed = 20260101;

static uint64_t dice(void) {
  seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return seed >> 11;
}

/* A duration of any size, the small as often as the large. */
static int64_t any_us(void) { return (int64_t)(dice() >> (7 + dice() % 46)); }

/* ----------------------------------------------------------- histogram -- */

static void middle_of_its_bucket_is_near_every_duration(void **state) {
  (void)state;
  for (int i = 0; i < 200000; i++) {
    int64_t us = any_us(), middle = egi_bucket_us(egi_bucket_of(us));
    int64_t off = us > middle ? us - middle : middle - us;
    assert_true(off * 1000 <= us * 16);
  }
}

static void buckets_rise_with_what_is_in_them(void **state) {
  (void)state;
  for (unsigned i = 0; i < EGI_BUCKETS; i++) {
    assert_int_equal(egi_bucket_of(egi_bucket_us(i)), i);
    if (i > 0)
      assert_true(egi_bucket_us(i) > egi_bucket_us(i - 1));
  }
}

static void extremes_have_the_first_and_the_last_bucket(void **state) {
  (void)state;
  assert_int_equal(egi_bucket_of(INT64_MIN), 0);
  assert_int_equal(egi_bucket_of(-1), 0);
  assert_int_equal(egi_bucket_of(0), 0);
  assert_int_equal(egi_bucket_of(63), 63);
  assert_int_equal(egi_bucket_of(INT64_MAX), EGI_BUCKETS - 1);
}

static int by_size(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

static void percentiles_are_those_of_the_sorted_durations(void **state) {
  (void)state;
  enum { N = 5000 };
  static int64_t all[N];
  static egi_histogram histogram;
  memset(&histogram, 0, sizeof histogram);
  assert_int_equal(egi_histogram_us(&histogram, 0.5), 0);
  for (int i = 0; i < N; i++) {
    all[i] = 100 + (int64_t)(dice() % 900000);
    egi_histogram_add(&histogram, egi_bucket_of(all[i]), 1);
  }
  qsort(all, N, sizeof all[0], by_size);
  static const int ranks[] = {1, N / 2, N * 95 / 100, N * 99 / 100, N};
  for (size_t i = 0; i < sizeof ranks / sizeof ranks[0]; i++) {
    int64_t is = egi_histogram_us(&histogram, (double)ranks[i] / N);
    int64_t exact = all[ranks[i] - 1];
    assert_true(llabs(is - exact) * 100 <= exact * 2);
  }
}

/* --------------------------------------------------------------- tally -- */

static uint64_t runs_of(const egi_tally *tally) {
  static egi_histogram histogram;
  memset(&histogram, 0, sizeof histogram);
  egi_tally_spread(tally, &histogram);
  return histogram.in_all;
}

static void run_is_counted_by_how_it_ended(void **state) {
  (void)state;
  egi_tally tally = {0};
  egi_tally_add(&tally, EG_RUN_COMPLETED, 10);
  egi_tally_add(&tally, EG_RUN_FAILED, 20);
  egi_tally_add(&tally, EG_RUN_TIMEDOUT, 30);
  egi_tally_add(&tally, EG_RUN_TIMEDOUT, -5);
  egi_tally_add(&tally, EG_RUN_IDLE, 7);
  egi_tally_add(&tally, EG_RUN_RUNNING, 7);
  assert_int_equal(tally.failed, 1);
  assert_int_equal(tally.timed_out, 2);
  assert_int_equal(tally.total_us, 60);
  assert_int_equal(runs_of(&tally), 4);
}

static void counts_and_sums_stay_at_their_largest(void **state) {
  (void)state;
  egi_tally tally = {.failed = UINT32_MAX, .n = 1};
  tally.buckets[0].number = 5;
  tally.buckets[0].runs = UINT32_MAX;
  egi_tally_add(&tally, EG_RUN_FAILED, 5);
  egi_tally_add(&tally, EG_RUN_COMPLETED, INT64_MAX);
  egi_tally_add(&tally, EG_RUN_COMPLETED, INT64_MAX);
  assert_true(tally.failed == UINT32_MAX);
  assert_true(tally.buckets[0].runs == UINT32_MAX);
  assert_true(tally.total_us > 0);
}

/* However many different durations: no run is lost, and it stays sorted. */
static void tally_of_many_durations_keeps_its_bound(void **state) {
  (void)state;
  egi_tally tally = {0};
  for (int i = 1; i <= 20000; i++) {
    egi_tally_add(&tally, EG_RUN_COMPLETED, any_us());
    assert_true(tally.n <= EGI_TALLY_BUCKETS);
    if (i % 100 == 0)
      assert_int_equal(runs_of(&tally), i);
  }
  for (unsigned i = 1; i < tally.n; i++)
    assert_true(tally.buckets[i - 1].number < tally.buckets[i].number);
}

/* What most keys are like: within four powers of two nothing is merged. */
static void percentiles_of_a_tally_are_near(void **state) {
  (void)state;
  egi_tally tally = {0};
  static egi_histogram histogram;
  memset(&histogram, 0, sizeof histogram);
  for (int64_t us = 1000; us < 15000; us++)
    egi_tally_add(&tally, EG_RUN_COMPLETED, us);
  egi_tally_spread(&tally, &histogram);
  for (int share = 1; share <= 100; share++) {
    int64_t exact = 1000 + 14000 * share / 100 - 1;
    int64_t is = egi_histogram_us(&histogram, share / 100.0);
    assert_true(llabs(is - exact) * 1000 <= exact * 17);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(middle_of_its_bucket_is_near_every_duration),
      cmocka_unit_test(buckets_rise_with_what_is_in_them),
      cmocka_unit_test(extremes_have_the_first_and_the_last_bucket),
      cmocka_unit_test(percentiles_are_those_of_the_sorted_durations),
      cmocka_unit_test(run_is_counted_by_how_it_ended),
      cmocka_unit_test(counts_and_sums_stay_at_their_largest),
      cmocka_unit_test(tally_of_many_durations_keeps_its_bound),
      cmocka_unit_test(percentiles_of_a_tally_are_near),
  };
  return cmocka_run_group_tests_name("tally", tests, NULL, NULL);
}
