/* SPDX-License-Identifier: MIT
** eg_run_once: every outcome.
*/
#include "support.h"

#include <assert.h>

typedef struct job {
  spec_world *w;
  const char *key;
  eg_outcome outcome;
  int calls;
  int64_t takes_ms;
  bool resets;
  eg_grant grant;
} job;

static void work(void *ctx, const eg_grant *grant, eg_outcome *outcome) {
  job *j = ctx;
  j->calls++;
  j->grant = *grant;
  assert(outcome->status == EG_OK && outcome->kind == EG_KIND_NONE);
  spec_advance_ms(j->takes_ms);
  if (j->resets)
    eg_reset(j->w->guard, eg_str(j->key), NULL);
  *outcome = j->outcome;
}

static job job_of(spec_world *w, eg_outcome outcome) {
  return (job){.w = w, .key = "k", .outcome = outcome};
}

static eg_status run(job *j, int64_t timeout_ms, int64_t wait_ms) {
  spec_world *w = j->w;
  return eg_run_once(w->guard, eg_str(j->key), work, j, &w->policy, timeout_ms,
                     wait_ms, &w->reply);
}

static eg_run status_of(spec_world *w) {
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_false(w->record.locked);
  return w->record.status;
}

static void run_once_runs_once(void **state) {
  spec_world *w = *state;
  job j = job_of(w, spec_done());
  assert_int_equal(run(&j, 0, 0), EG_OK);
  assert_int_equal(j.calls, 1);
  assert_true(j.grant.deadline_us == EG_FOREVER && j.grant.token > 0);
  assert_int_equal(status_of(w), EG_RUN_COMPLETED);
  assert_int_equal(run(&j, 0, 0), EG_CACHED);
  assert_true(spec_is(w->reply.value, "*"));
  assert_int_equal(j.calls, 1);
}

static void run_once_that_fails_is_failed(void **state) {
  spec_world *w = *state;
  job j = job_of(w, spec_failed("no"));
  assert_int_equal(run(&j, 0, 0), EG_FAILED);
  assert_int_equal(status_of(w), EG_RUN_FAILED);
  assert_true(spec_is(w->record.error, "no"));
  assert_int_equal(run(&j, 0, 0), EG_FAILED);
  assert_int_equal(j.calls, 2);
}

static void run_once_whose_error_is_good_is_not_run(void **state) {
  spec_world *w = *state;
  w->policy.error_ttl_ms = 100;
  job j = job_of(w, spec_failed("no"));
  assert_int_equal(run(&j, 0, 0), EG_FAILED);
  assert_int_equal(run(&j, 0, 0), EG_FAILED);
  assert_int_equal(j.calls, 1);
  assert_true(spec_is(w->reply.error, "no"));
  assert_true(w->reply.left_us == 100 * MS);
}

static void run_once_that_says_timeout_is_a_timeout(void **state) {
  spec_world *w = *state;
  job j = job_of(w, spec_late());
  assert_int_equal(run(&j, 0, 0), EG_TIMEOUT);
  assert_int_equal(status_of(w), EG_RUN_TIMEDOUT);
}

static void run_once_that_returns_late_is_a_timeout(void **state) {
  spec_world *w = *state;
  static const struct {
    int64_t takes_ms;
    eg_status status;
    eg_run run;
  } rows[] = {{9, EG_OK, EG_RUN_COMPLETED},
              {10, EG_TIMEOUT, EG_RUN_TIMEDOUT},
              {11, EG_TIMEOUT, EG_RUN_TIMEDOUT}};
  for (int i = 0; i < 3; i++) {
    job j = job_of(w, spec_done());
    j.takes_ms = rows[i].takes_ms;
    assert_int_equal(run(&j, 10, 0), rows[i].status);
    assert_true(j.grant.deadline_us == j.grant.start_us + 10 * MS);
    assert_int_equal(status_of(w), rows[i].run);
    assert_int_equal(spec_reset(w, "k"), EG_OK);
  }
}

static void run_once_that_is_reset_is_lost(void **state) {
  spec_world *w = *state;
  job j = job_of(w, spec_done());
  j.resets = true;
  assert_int_equal(run(&j, 0, 0), EG_LOST);
  assert_int_equal(status_of(w), EG_RUN_IDLE);
}

static void run_once_whose_lease_ends_is_lost(void **state) {
  spec_world *w = *state;
  w->policy.lease_ms = 10;
  job j = job_of(w, spec_done());
  j.takes_ms = 10;
  assert_int_equal(run(&j, 0, 0), EG_LOST);
  assert_int_equal(status_of(w), EG_RUN_FAILED);
  assert_true(w->record.crashed);
}

/* What cannot be stored fails the run; the key does not stay Running. */
static void run_once_with_a_result_that_is_too_large(void **state) {
  spec_world *w = *state;
  w->policy.max_result = 100;
  job j = job_of(w, spec_done_with(spec_large(101)));
  assert_int_equal(run(&j, 0, 0), EG_INVALID);
  assert_int_equal(w->reply.failure.status, EG_INVALID);
  assert_non_null(strstr(w->reply.failure.message, "101"));
  assert_non_null(strstr(w->reply.failure.message, "100"));
  assert_int_equal(status_of(w), EG_RUN_FAILED);
  assert_true(w->record.error.len > 0);
  assert_int_equal(w->record.kind, EG_KIND_NONE);
}

static void run_once_with_a_result_that_is_malformed(void **state) {
  spec_world *w = *state;
  job j = job_of(w, spec_done_with((eg_bytes){"\xc1", 1}));
  assert_int_equal(run(&j, 0, 0), EG_INVALID);
  assert_int_equal(status_of(w), EG_RUN_FAILED);
  j = job_of(w, (eg_outcome){.status = EG_CACHED});
  assert_int_equal(run(&j, 0, 0), EG_INVALID);
  assert_int_equal(status_of(w), EG_RUN_FAILED);
}

static void run_once_that_is_refused_does_not_run(void **state) {
  spec_world *w = *state;
  job j = job_of(w, spec_done());
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  assert_int_equal(run(&j, 0, 0), EG_LOCKED);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  assert_int_equal(run(&j, 0, 100), EG_RUNNING);
  w->policy.cooldown_ms = 100;
  assert_int_equal(spec_finish(w, "k", spec_failed("x")), EG_OK);
  assert_int_equal(run(&j, 0, 100), EG_COOLDOWN);
  assert_true(w->reply.left_us == 100 * MS);
  j.key = "";
  assert_int_equal(run(&j, 0, 100), EG_INVALID);
  assert_int_equal(j.calls, 0);
}

static void run_once_that_gives_up_waiting_does_not_run(void **state) {
  spec_world *w = *state;
  job j = job_of(w, spec_done());
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  eg_test_clock_reset(true); /* waiting moves the clock */
  assert_int_equal(run(&j, 0, 100), EG_LOCKED);
  eg_test_clock_reset(false);
  assert_int_equal(j.calls, 0);
  assert_true(eg_holds(w->guard, eg_str("k"), w->grant.token));
}

static void run_once_without_caching_keeps_no_result(void **state) {
  spec_world *w = *state;
  w->policy.cache_result = false;
  job j = job_of(w, spec_done());
  assert_int_equal(run(&j, 0, 0), EG_OK);
  assert_int_equal(run(&j, 0, 0), EG_COMPLETED);
  assert_int_equal(j.calls, 1);
}

static void run_once_without_a_policy_uses_the_default(void **state) {
  spec_world *w = *state;
  job j = job_of(w, spec_done());
  eg_bytes key = eg_str("k");
  assert_int_equal(eg_run_once(w->guard, key, work, &j, NULL, 0, 0, &w->reply),
                   EG_OK);
  assert_int_equal(eg_run_once(w->guard, key, work, &j, NULL, 0, 0, &w->reply),
                   EG_CACHED);
}

static void nest(void *ctx, const eg_grant *grant, eg_outcome *outcome) {
  job *j = ctx;
  eg_reply reply;
  (void)grant;
  eg_reply_init(&reply);
  j->calls += eg_run_once(j->w->guard, eg_str("inner"), work, j, &j->w->policy,
                          0, 0, &reply) == EG_OK;
  j->calls += eg_run_once(j->w->guard, eg_str("k"), work, j, &j->w->policy, 0,
                          0, &reply) == EG_RUNNING;
  eg_reply_free(&reply);
  *outcome = spec_done();
}

/* No lock of the library is held while the work is done. */
static void work_may_use_the_guard(void **state) {
  spec_world *w = *state;
  job j = job_of(w, spec_done());
  assert_int_equal(eg_run_once(w->guard, eg_str("k"), nest, &j, &w->policy, 0,
                               0, &w->reply),
                   EG_OK);
  assert_int_equal(j.calls, 3);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      BOTH_WAYS(run_once_runs_once),
      BOTH_WAYS(run_once_that_fails_is_failed),
      BOTH_WAYS(run_once_whose_error_is_good_is_not_run),
      BOTH_WAYS(run_once_that_says_timeout_is_a_timeout),
      BOTH_WAYS(run_once_that_returns_late_is_a_timeout),
      BOTH_WAYS(run_once_that_is_reset_is_lost),
      BOTH_WAYS(run_once_whose_lease_ends_is_lost),
      BOTH_WAYS(run_once_with_a_result_that_is_too_large),
      BOTH_WAYS(run_once_with_a_result_that_is_malformed),
      BOTH_WAYS(run_once_that_is_refused_does_not_run),
      BOTH_WAYS(run_once_that_gives_up_waiting_does_not_run),
      BOTH_WAYS(run_once_without_caching_keeps_no_result),
      BOTH_WAYS(run_once_without_a_policy_uses_the_default),
      BOTH_WAYS(work_may_use_the_guard),
  };
  return cmocka_run_group_tests_name("run", tests, NULL, NULL);
}
