/* SPDX-License-Identifier: MIT
** What this process counted.
*/
#include "support.h"

#include "core/counters.h"

enum { THREADS = 16 };

static eg_stats since(const eg_stats *before) {
  eg_stats now;
  eg_stats_read(&now);
  return (eg_stats){now.executions - before->executions,
                    now.blocked - before->blocked, now.cached - before->cached,
                    now.timed_out - before->timed_out,
                    now.failed - before->failed};
}

static void assert_counted(const eg_stats *before, eg_stats expected) {
  eg_stats s = since(before);
  assert_int_equal(s.executions, expected.executions);
  assert_int_equal(s.blocked, expected.blocked);
  assert_int_equal(s.cached, expected.cached);
  assert_int_equal(s.timed_out, expected.timed_out);
  assert_int_equal(s.failed, expected.failed);
}

static void every_counter_counts_its_own(void **state) {
  (void)state;
  eg_stats before;
  eg_stats_read(&before);
  static const unsigned counters[EGI_COUNTERS] = {
      EGI_EXECUTIONS, EGI_BLOCKED, EGI_CACHED, EGI_TIMED_OUT, EGI_FAILED};
  for (unsigned i = 0; i < EGI_COUNTERS; i++)
    for (unsigned n = 0; n <= i; n++)
      egi_count(counters[i]);
  assert_counted(&before, (eg_stats){1, 2, 3, 4, 5});
}

static pthread_barrier_t done_counting, may_end;
static int each;

static void count(void *arg) {
  unsigned counter = *(unsigned *)arg;
  for (int i = 0; i < each; i++)
    egi_count(counter);
  pthread_barrier_wait(&done_counting);
  pthread_barrier_wait(&may_end);
}

/* Counted exactly: while the threads live, when some have ended, and after. */
static void threads_that_live_and_end_are_added_up(void **state) {
  (void)state;
  spec_thread threads[THREADS];
  unsigned counters[THREADS];
  eg_stats before;
  each = spec_scaled(100000);
  pthread_barrier_init(&done_counting, NULL, THREADS + 1);
  pthread_barrier_init(&may_end, NULL, THREADS + 1);
  eg_stats_read(&before);
  for (unsigned i = 0; i < THREADS; i++) {
    counters[i] = i % 4; /* 4 threads a counter */
    spec_start(&threads[i], count, &counters[i]);
  }
  pthread_barrier_wait(&done_counting);
  uint64_t n = 4 * (uint64_t)each;
  assert_counted(&before, (eg_stats){n, n, n, n, 0});
  pthread_barrier_wait(&may_end);
  for (int i = 0; i < THREADS; i++)
    spec_join(&threads[i]);
  assert_counted(&before, (eg_stats){n, n, n, n, 0});
  pthread_barrier_destroy(&done_counting);
  pthread_barrier_destroy(&may_end);
}

static void count_once(void *arg) { egi_count(*(unsigned *)arg); }

static void many_short_threads_lose_nothing(void **state) {
  (void)state;
  spec_thread threads[8];
  unsigned counter = EGI_FAILED;
  int rounds = spec_scaled(200);
  eg_stats before;
  eg_stats_read(&before);
  for (int round = 0; round < rounds; round++) {
    for (int i = 0; i < 8; i++)
      spec_start(&threads[i], count_once, &counter);
    for (int i = 0; i < 8; i++)
      spec_join(&threads[i]);
  }
  assert_counted(&before, (eg_stats){.failed = 8 * (uint64_t)rounds});
}

static void read_often(void *arg) {
  eg_stats last, now;
  eg_stats_read(&last);
  bool *fell = arg;
  for (int i = 0; i < 2000; i++) {
    eg_stats_read(&now);
    *fell = *fell || now.failed < last.failed;
    last = now;
  }
}

/* A thread that ends hands its counts over: nobody may miss them meanwhile. */
static void sums_never_fall_while_threads_end(void **state) {
  (void)state;
  spec_thread reader, threads[4];
  unsigned counter = EGI_FAILED;
  bool fell = false;
  spec_start(&reader, read_often, &fell);
  for (int round = spec_scaled(100); round > 0; round--) {
    for (int i = 0; i < 4; i++)
      spec_start(&threads[i], count_once, &counter);
    for (int i = 0; i < 4; i++)
      spec_join(&threads[i]);
  }
  spec_join(&reader);
  assert_false(fell);
}

/* The column "counted as" of the table in section 5. */
static void verbs_count_as_the_design_says(void **state) {
  spec_world *w = *state;
  eg_stats before;
  eg_stats_read(&before);
  spec_run(w, "a", spec_done());
  assert_int_equal(spec_ask(w, "a", EG_WANT_RUN), EG_CACHED);
  w->policy.cache_result = false;
  assert_int_equal(spec_ask(w, "a", EG_WANT_RUN), EG_COMPLETED);
  assert_counted(&before, (eg_stats){1, 1, 1, 0, 0});
  assert_int_equal(spec_ask(w, "b", EG_WANT_RUN), EG_OK);
  eg_grant grant = w->grant;
  assert_int_equal(spec_ask(w, "b", EG_WANT_RUN), EG_RUNNING);
  w->grant = grant;
  assert_int_equal(spec_finish(w, "b", spec_failed("no")), EG_OK);
  assert_counted(&before, (eg_stats){2, 2, 1, 0, 1});
  assert_int_equal(spec_ask(w, "c", EG_WANT_RUN), EG_OK);
  w->grant.deadline_us = w->grant.start_us;
  assert_int_equal(spec_finish(w, "c", spec_done()), EG_TIMEOUT);
  assert_counted(&before, (eg_stats){3, 2, 1, 1, 1});
  assert_int_equal(spec_ask(w, "d", EG_WANT_RUN), EG_OK);
  assert_int_equal(spec_reset(w, "d"), EG_OK);
  assert_int_equal(spec_finish(w, "d", spec_failed("no")), EG_LOST);
  assert_counted(&before, (eg_stats){4, 2, 1, 1, 1});
}

static void locks_are_not_counted(void **state) {
  spec_world *w = *state;
  eg_stats before;
  eg_stats_read(&before);
  assert_int_equal(spec_ask(w, "a", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_ask(w, "a", EG_WANT_LOCK), EG_LOCKED);
  assert_int_equal(spec_release(w, "a"), EG_OK);
  assert_counted(&before, (eg_stats){0, 0, 0, 0, 0});
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_counter_counts_its_own),
      cmocka_unit_test(threads_that_live_and_end_are_added_up),
      cmocka_unit_test(many_short_threads_lose_nothing),
      cmocka_unit_test(sums_never_fall_while_threads_end),
      BOTH_WAYS(verbs_count_as_the_design_says),
      BOTH_WAYS(locks_are_not_counted),
  };
  return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}
