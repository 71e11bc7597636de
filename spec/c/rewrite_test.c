/* SPDX-License-Identifier: MIT
** What becomes of a record, told as short stories: counts, times, errors and
** results over runs, locks, crashes and resets; and how a reader sees it.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/codec.h"
#include "core/transition.h"

/* ------------------------------------------------- rewriting, by story -- */

enum { STAMP = 1767225600 };
#define EPOCH(s) ((STAMP + (int64_t)(s)) * 1000000)

/* One key as a store would keep it: what happens to it is told below. */
typedef struct key {
  egi_record record;
  egi_sight sight;
} key;

static const eg_bytes one = {"\x01", 1};

static key fresh_key(void) {
  key k = {.record = {.head = {true, false, EG_RUN_IDLE, EG_KIND_NONE}},
           .sight = {.clocked = true, .left_us = -1, .fresh_left_us = -1}};
  return k;
}

/* Does an event at a time; the effect lands as a store would have it. */
static eg_status does(key *k, egi_event_type type, eg_status status,
                      const eg_policy *policy, int64_t at_s) {
  egi_effect effect;
  eg_status outcome;
  int64_t left;
  egi_event event = {.type = type, .token = k->sight.token, .mine = true};
  event.outcome.status = status;
  event.duration_us = 2000000;
  if (status == EG_OK && type == EGI_COMMIT) {
    event.outcome.kind = EG_KIND_VALUE;
    event.outcome.value = one;
  } else if (type == EGI_COMMIT) {
    event.outcome.error = eg_str("boom");
    event.outcome.trace = eg_str("at line 1");
  }
  egi_verdict verdict = egi_decide(&k->record.head, &k->sight, &event, policy,
                                   &effect, &outcome, &left);
  if (verdict != EGI_SWAP)
    return outcome;
  if (effect.write == EGI_PUT) {
    egi_record after;
    egi_rewrite(&k->record, &k->sight, &event, &effect, &after);
    k->record = after;
    k->sight.stamp_us = EPOCH(at_s);
  } else if (effect.write == EGI_FORGET) {
    k->record = fresh_key().record;
  }
  if (effect.hold == EGI_TAKE || effect.hold == EGI_BREAK)
    k->sight.token++;
  if (effect.hold != EGI_KEEP)
    k->sight.held = effect.hold == EGI_TAKE;
  if (effect.fresh_ms != EGI_LEAVE_TIME)
    k->sight.fresh_left_us = effect.fresh_ms > 0 ? effect.fresh_ms * 1000 : -1;
  return outcome;
}

static const eg_policy plain = EG_POLICY_DEFAULT;
static const eg_policy again = {.allow_rerun = true, .cache_result = true};

/* A run that began 10 s after `at_s`'s key was made and took two seconds. */
static void runs(key *k, eg_status status, const eg_policy *p, int64_t at_s) {
  assert_int_equal(does(k, EGI_ACQUIRE_RUN, EG_OK, p, at_s), EG_OK);
  assert_int_equal(does(k, EGI_COMMIT, status, p, at_s + 2), EG_OK);
}

static void assert_text(eg_bytes bytes, const char *text) {
  assert_int_equal(bytes.len, strlen(text));
  assert_memory_equal(bytes.data, text, bytes.len);
}

static void run_counts_once_at_its_start(void **state) {
  (void)state;
  key k = fresh_key();
  assert_int_equal(does(&k, EGI_ACQUIRE_RUN, EG_OK, &plain, 10), EG_OK);
  assert_int_equal(k.record.count, 1);
  assert_int_equal(does(&k, EGI_COMMIT, EG_OK, &plain, 12), EG_OK);
  assert_int_equal(k.record.count, 1);
  runs(&k, EG_FAILED, &again, 20);
  runs(&k, EG_TIMEOUT, &again, 30);
  assert_int_equal(k.record.count, 3);
}

static void count_stays_at_its_maximum(void **state) {
  (void)state;
  key k = fresh_key();
  runs(&k, EG_OK, &plain, 10);
  k.record.count = UINT32_MAX;
  runs(&k, EG_OK, &again, 20);
  assert_int_equal(k.record.count, UINT32_MAX);
}

static void lock_and_refused_run_count_nothing(void **state) {
  (void)state;
  key k = fresh_key();
  assert_int_equal(does(&k, EGI_ACQUIRE_LOCK, EG_OK, &plain, 10), EG_OK);
  assert_true(k.record.head.absent);
  assert_int_equal(does(&k, EGI_ACQUIRE_RUN, EG_OK, &plain, 11), EG_LOCKED);
  assert_false(k.record.head.absent);
  assert_int_equal(k.record.head.status, EG_RUN_IDLE);
  assert_int_equal(k.record.count, 0);
  assert_int_equal(k.record.start_us, 0);
  assert_int_equal(does(&k, EGI_RELEASE, EG_OK, &plain, 12), EG_OK);
  assert_int_equal(k.record.head.status, EG_RUN_IDLE);
}

static void start_is_the_stamp_of_the_grant(void **state) {
  (void)state;
  key k = fresh_key();
  assert_int_equal(does(&k, EGI_ACQUIRE_RUN, EG_OK, &plain, 10), EG_OK);
  egi_record read = k.record;
  assert_false(egi_reading(&read, &k.sight));
  assert_int_equal(read.start_us, EPOCH(10));
  assert_int_equal(does(&k, EGI_COMMIT, EG_OK, &plain, 99), EG_OK);
  assert_int_equal(k.record.start_us, EPOCH(10));
  assert_int_equal(k.record.duration_us, 2000000);
  assert_int_equal(egi_record_end(&k.record), EPOCH(12));
}

static void start_outlives_a_cleared_result(void **state) {
  (void)state;
  key k = fresh_key();
  runs(&k, EG_OK, &plain, 10);
  assert_int_equal(does(&k, EGI_ACQUIRE_RUN, EG_OK, &again, 20), EG_OK);
  assert_int_equal(does(&k, EGI_CLEAR, EG_OK, &again, 25), EG_OK);
  assert_int_equal(k.record.head.status, EG_RUN_RUNNING);
  assert_int_equal(k.record.start_us, EPOCH(20));
  assert_int_equal(k.record.last_us, EPOCH(12));
  assert_int_equal(does(&k, EGI_COMMIT, EG_FAILED, &again, 30), EG_OK);
  assert_int_equal(k.record.start_us, EPOCH(20));
  assert_int_equal(k.record.head.kind, EG_KIND_NONE);
}

static void last_is_the_end_of_the_run_before(void **state) {
  (void)state;
  key k = fresh_key();
  runs(&k, EG_OK, &plain, 10);
  assert_int_equal(does(&k, EGI_ACQUIRE_RUN, EG_OK, &again, 20), EG_OK);
  assert_int_equal(k.record.last_us, EPOCH(12));
  k.sight.held = false; /* its owner dies: that run has no end */
  assert_int_equal(does(&k, EGI_ACQUIRE_RUN, EG_OK, &again, 30), EG_OK);
  assert_int_equal(k.record.last_us, EPOCH(12));
  assert_int_equal(k.record.count, 3);
}

static void error_stays_during_a_rerun_and_goes_on_success(void **state) {
  (void)state;
  key k = fresh_key();
  runs(&k, EG_FAILED, &plain, 10);
  assert_text(k.record.error, "boom");
  assert_text(k.record.trace, "at line 1");
  assert_int_equal(does(&k, EGI_ACQUIRE_RUN, EG_OK, &plain, 20), EG_OK);
  assert_text(k.record.error, "boom");
  assert_int_equal(does(&k, EGI_COMMIT, EG_OK, &plain, 22), EG_OK);
  assert_int_equal(k.record.error.len, 0);
  assert_int_equal(k.record.trace.len, 0);
}

static void failing_rerun_keeps_a_result_without_limit(void **state) {
  (void)state;
  key k = fresh_key();
  runs(&k, EG_OK, &plain, 10);
  runs(&k, EG_FAILED, &again, 20);
  assert_int_equal(k.record.head.status, EG_RUN_FAILED);
  assert_int_equal(k.record.head.kind, EG_KIND_VALUE);
  assert_text(k.record.value, "\x01");
}

static void failing_rerun_drops_a_result_with_a_limit(void **state) {
  (void)state;
  eg_policy limited = again;
  key k = fresh_key();
  limited.result_ttl_ms = 60000;
  runs(&k, EG_OK, &limited, 10);
  assert_int_equal(k.sight.fresh_left_us, 60000000);
  runs(&k, EG_FAILED, &limited, 20);
  assert_int_equal(k.record.head.kind, EG_KIND_NONE);
  assert_int_equal(k.record.value.len, 0);
  assert_int_equal(k.sight.fresh_left_us, -1);
}

static void success_without_caching_keeps_the_earlier_result(void **state) {
  (void)state;
  eg_policy uncached = again;
  key k = fresh_key();
  runs(&k, EG_OK, &plain, 10);
  uncached.cache_result = false;
  runs(&k, EG_OK, &uncached, 20);
  assert_int_equal(k.record.head.kind, EG_KIND_VALUE);
  assert_text(k.record.value, "\x01");
}

/* The owner of a rerun dies; the result that an earlier run left with a limit
** must not outlive that limit, whoever comes next. */
static void limit_of_a_result_survives_a_dead_rerun(egi_event_type next,
                                                    int64_t left_us) {
  eg_policy limited = again;
  key k = fresh_key();
  limited.result_ttl_ms = 60000;
  runs(&k, EG_OK, &limited, 10);
  assert_int_equal(does(&k, EGI_ACQUIRE_RUN, EG_OK, &limited, 20), EG_OK);
  k.sight.held = false;
  k.sight.fresh_left_us = left_us;
  assert_int_equal(does(&k, next, EG_OK, &limited, 30), EG_OK);
  if (k.record.head.kind != EG_KIND_NONE)
    assert_true(k.sight.fresh_left_us >= 0);
}

static void dead_rerun_then_run_keeps_the_limit(void **state) {
  (void)state;
  limit_of_a_result_survives_a_dead_rerun(EGI_ACQUIRE_RUN, 1000000);
  limit_of_a_result_survives_a_dead_rerun(EGI_ACQUIRE_RUN, 0);
}

static void dead_rerun_then_lock_keeps_the_limit(void **state) {
  (void)state;
  limit_of_a_result_survives_a_dead_rerun(EGI_ACQUIRE_LOCK, 1000000);
  limit_of_a_result_survives_a_dead_rerun(EGI_ACQUIRE_LOCK, 0);
}

static void reset_keeps_count_and_last(void **state) {
  (void)state;
  key k = fresh_key();
  runs(&k, EG_FAILED, &plain, 10);
  assert_int_equal(does(&k, EGI_RESET, EG_OK, &plain, 20), EG_OK);
  assert_int_equal(k.record.head.status, EG_RUN_IDLE);
  assert_int_equal(k.record.count, 1);
  assert_int_equal(k.record.last_us, EPOCH(12));
  assert_int_equal(k.record.start_us, 0);
  assert_int_equal(k.record.duration_us, 0);
  assert_int_equal(egi_record_end(&k.record), 0);
  assert_int_equal(k.record.error.len + k.record.trace.len, 0);
}

static void reset_of_a_run_keeps_the_end_of_the_one_before(void **state) {
  (void)state;
  key k = fresh_key();
  runs(&k, EG_OK, &plain, 10);
  assert_int_equal(does(&k, EGI_ACQUIRE_RUN, EG_OK, &again, 20), EG_OK);
  uint64_t before = k.sight.token;
  assert_int_equal(does(&k, EGI_RESET, EG_OK, &plain, 21), EG_OK);
  assert_true(k.sight.token > before);
  assert_int_equal(k.record.count, 2);
  assert_int_equal(k.record.last_us, EPOCH(12));
  assert_int_equal(k.record.head.kind, EG_KIND_NONE);
  assert_int_equal(k.record.value.len, 0);
}

static void lock_of_a_dead_run_writes_owner_died(void **state) {
  (void)state;
  key k = fresh_key();
  assert_int_equal(does(&k, EGI_ACQUIRE_RUN, EG_OK, &plain, 10), EG_OK);
  k.sight.held = false;
  assert_int_equal(does(&k, EGI_ACQUIRE_LOCK, EG_OK, &plain, 20), EG_OK);
  assert_int_equal(k.record.head.status, EG_RUN_FAILED);
  assert_true(k.record.head.crashed);
  assert_text(k.record.error, "owner died");
  assert_int_equal(k.record.start_us, EPOCH(10));
  assert_int_equal(egi_record_end(&k.record), 0);
  assert_int_equal(k.record.count, 1);
}

/* --------------------------------------------------------- as it reads -- */

static void reading_of_a_dead_run_is_owner_died(void **state) {
  (void)state;
  key k = fresh_key();
  assert_int_equal(does(&k, EGI_ACQUIRE_RUN, EG_OK, &plain, 10), EG_OK);
  egi_record alive = k.record;
  assert_false(egi_reading(&alive, &k.sight));
  assert_int_equal(alive.head.status, EG_RUN_RUNNING);
  k.sight.held = false;
  assert_true(egi_reading(&k.record, &k.sight));
  assert_int_equal(k.record.head.status, EG_RUN_FAILED);
  assert_true(k.record.head.crashed);
  assert_text(k.record.error, "owner died");
  assert_int_equal(k.record.start_us, EPOCH(10));
}

/* A run whose owner is gone is a failing rerun. */
static void
reading_of_a_dead_rerun_keeps_a_result_without_limit(void **state) {
  (void)state;
  eg_policy limited = again;
  for (int64_t ttl_ms = 0; ttl_ms <= 60000; ttl_ms += 60000) {
    key k = fresh_key();
    limited.result_ttl_ms = ttl_ms;
    runs(&k, EG_OK, &limited, 10);
    assert_int_equal(does(&k, EGI_ACQUIRE_RUN, EG_OK, &limited, 20), EG_OK);
    egi_record alive = k.record;
    assert_false(egi_reading(&alive, &k.sight));
    assert_int_equal(alive.head.kind, EG_KIND_VALUE);
    k.sight.held = false;
    assert_true(egi_reading(&k.record, &k.sight));
    assert_int_equal(k.record.head.kind,
                     ttl_ms > 0 ? EG_KIND_NONE : EG_KIND_VALUE);
  }
}

/* Which record a reader is shown must not depend on who asks next: what read
** as gone does not come back with the next grant. */
static void result_that_read_as_gone_stays_gone(egi_event_type next) {
  eg_policy limited = again;
  key k = fresh_key();
  limited.result_ttl_ms = 60000;
  runs(&k, EG_OK, &limited, 10);
  assert_int_equal(does(&k, EGI_ACQUIRE_RUN, EG_OK, &limited, 20), EG_OK);
  k.sight.held = false;
  egi_record read = k.record;
  egi_reading(&read, &k.sight);
  assert_int_equal(does(&k, next, EG_OK, &limited, 30), EG_OK);
  egi_reading(&k.record, &k.sight);
  if (read.head.kind == EG_KIND_NONE)
    assert_int_equal(k.record.head.kind, EG_KIND_NONE);
}

static void result_of_a_dead_rerun_does_not_come_back(void **state) {
  (void)state;
  result_that_read_as_gone_stays_gone(EGI_ACQUIRE_LOCK);
  result_that_read_as_gone_stays_gone(EGI_ACQUIRE_RUN);
}

static void reading_of_a_result_that_is_over_has_none(void **state) {
  (void)state;
  key k = fresh_key();
  runs(&k, EG_OK, &plain, 10);
  k.sight.fresh_left_us = 1;
  assert_false(egi_reading(&k.record, &k.sight));
  assert_int_equal(k.record.value.len, 1);
  k.sight.fresh_left_us = 0;
  assert_true(egi_reading(&k.record, &k.sight));
  assert_int_equal(k.record.head.status, EG_RUN_COMPLETED);
  assert_int_equal(k.record.head.kind, EG_KIND_NONE);
  assert_int_equal(k.record.value.len, 0);
}

static void reading_of_an_error_that_is_over_keeps_its_text(void **state) {
  (void)state;
  key k = fresh_key();
  runs(&k, EG_OK, &plain, 10);
  runs(&k, EG_FAILED, &again, 20);
  k.sight.fresh_left_us = 0; /* the error's: the old result has no limit */
  assert_false(egi_reading(&k.record, &k.sight));
  assert_text(k.record.error, "boom");
  assert_int_equal(k.record.head.kind, EG_KIND_VALUE);
}

/* eg_watch_wait ends when "a grant on it ended, it was reset or its result
** cleared"; the store wakes only for a swap with `wake`.  The ends of grants
** are in transition_rows.c. */
static void every_change_that_a_watch_is_promised_wakes(void **state) {
  (void)state;
  static const egi_event_type types[] = {EGI_RESET, EGI_CLEAR};
  egi_head head = {false, false, EG_RUN_FAILED, EG_KIND_NONE};
  egi_sight sight = {.clocked = true, .left_us = -1, .fresh_left_us = -1};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    egi_event event = {.type = types[i]};
    egi_effect effect;
    eg_status outcome;
    int64_t left;
    assert_int_equal(
        egi_decide(&head, &sight, &event, &plain, &effect, &outcome, &left),
        EGI_SWAP);
    if (!effect.wake)
      fail_msg("event %d changes the key and wakes no watch", (int)types[i]);
  }
}

/* --------------------------------------------------------------- tally -- */

/* As a store would have it: bytes. */
static void settle(key *k) {
  static unsigned char bytes[2][4096];
  static int which;
  unsigned char *out = bytes[which ^= 1];
  size_t n = egi_encode(&k->record, out, sizeof bytes[0]);
  assert_true(n <= sizeof bytes[0]);
  assert_true(egi_decode((eg_bytes){out, n}, &k->record));
}

/* The same, through bytes at each step. */
static void settled(key *k, egi_event_type type, eg_status status) {
  assert_int_equal(does(k, type, status, &again, 0), EG_OK);
  settle(k);
}

static void runs_settled(key *k, eg_status status) {
  settled(k, EGI_ACQUIRE_RUN, EG_OK);
  settled(k, EGI_COMMIT, status);
}

static egi_tally tally_of(const key *k) {
  egi_tally tally;
  assert_true(egi_decode_tally(k->record.tally, &tally));
  return tally;
}

static uint32_t runs_in(const egi_tally *tally) {
  uint32_t runs = 0;
  for (unsigned i = 0; i < tally->n; i++)
    runs += tally->buckets[i].runs;
  return runs;
}

static void tally_has_the_runs_before_the_last(void **state) {
  (void)state;
  key k = fresh_key();
  runs_settled(&k, EG_OK);
  assert_int_equal(k.record.tally.len, 0);
  runs_settled(&k, EG_FAILED);
  egi_tally tally = tally_of(&k);
  assert_int_equal(runs_in(&tally), 1);
  assert_int_equal(tally.failed, 0);
  settled(&k, EGI_ACQUIRE_RUN, EG_OK);
  tally = tally_of(&k);
  assert_int_equal(runs_in(&tally), 2);
  assert_int_equal(tally.failed, 1);
  assert_int_equal(tally.total_us, 4000000);
}

static void reset_takes_the_last_run_into_the_tally(void **state) {
  (void)state;
  key k = fresh_key();
  runs_settled(&k, EG_TIMEOUT);
  for (int i = 0; i < 2; i++) { /* the second finds nothing to take */
    settled(&k, EGI_RESET, EG_OK);
    egi_tally tally = tally_of(&k);
    assert_int_equal(runs_in(&tally), 1);
    assert_int_equal(tally.timed_out, 1);
  }
}

static void run_that_did_not_end_is_in_no_tally(void **state) {
  (void)state;
  key k = fresh_key();
  settled(&k, EGI_ACQUIRE_RUN, EG_OK);
  k.sight.held = false; /* its owner is gone */
  runs_settled(&k, EG_OK);
  assert_int_equal(k.record.tally.len, 0);
  settled(&k, EGI_ACQUIRE_RUN, EG_OK);
  settled(&k, EGI_RESET, EG_OK);
  egi_tally tally = tally_of(&k);
  assert_int_equal(runs_in(&tally), 1);
  assert_int_equal(k.record.count, 3);
}

/* --------------------------------------------------------------- table -- */

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(run_counts_once_at_its_start),
      cmocka_unit_test(count_stays_at_its_maximum),
      cmocka_unit_test(lock_and_refused_run_count_nothing),
      cmocka_unit_test(start_is_the_stamp_of_the_grant),
      cmocka_unit_test(start_outlives_a_cleared_result),
      cmocka_unit_test(last_is_the_end_of_the_run_before),
      cmocka_unit_test(error_stays_during_a_rerun_and_goes_on_success),
      cmocka_unit_test(failing_rerun_keeps_a_result_without_limit),
      cmocka_unit_test(failing_rerun_drops_a_result_with_a_limit),
      cmocka_unit_test(success_without_caching_keeps_the_earlier_result),
      cmocka_unit_test(dead_rerun_then_run_keeps_the_limit),
      cmocka_unit_test(dead_rerun_then_lock_keeps_the_limit),
      cmocka_unit_test(reset_keeps_count_and_last),
      cmocka_unit_test(reset_of_a_run_keeps_the_end_of_the_one_before),
      cmocka_unit_test(lock_of_a_dead_run_writes_owner_died),
      cmocka_unit_test(reading_of_a_dead_run_is_owner_died),
      cmocka_unit_test(reading_of_a_dead_rerun_keeps_a_result_without_limit),
      cmocka_unit_test(result_of_a_dead_rerun_does_not_come_back),
      cmocka_unit_test(reading_of_a_result_that_is_over_has_none),
      cmocka_unit_test(reading_of_an_error_that_is_over_keeps_its_text),
      cmocka_unit_test(every_change_that_a_watch_is_promised_wakes),
      cmocka_unit_test(tally_has_the_runs_before_the_last),
      cmocka_unit_test(reset_takes_the_last_run_into_the_tally),
      cmocka_unit_test(run_that_did_not_end_is_in_no_tally),
  };
  return cmocka_run_group_tests_name("rewrite", tests, NULL, NULL);
}
