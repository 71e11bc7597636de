/* SPDX-License-Identifier: MIT
** Every status that executionguard.h promises of the verbs, both ways.
*/
#include "support.h"

/* --------------------------------------------------------- acquire: run -- */

static void acquire_run_when_absent_is_granted(void **state) {
  spec_world *w = *state;
  spec_advance_ms(3);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  assert_true(w->grant.token > 0 && w->grant.token <= EGI_TOKEN_MAX);
  assert_true(w->grant.start_us == spec_clock.now_us(NULL));
  assert_true(w->grant.deadline_us == EG_FOREVER);
  assert_int_equal(w->grant.want, EG_WANT_RUN);
  assert_true(w->reply.token == w->grant.token);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_RUNNING);
  assert_true(w->record.locked);
}

static void acquire_run_when_completed_returns_the_result(void **state) {
  spec_world *w = *state;
  spec_run(w, "k", spec_done());
  uint64_t token = w->grant.token;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_CACHED);
  assert_int_equal(w->reply.kind, EG_KIND_VALUE);
  assert_true(spec_is(w->reply.value, "*"));
  assert_true(w->reply.error.len == 0 && w->reply.token == token);
}

static void acquire_run_returns_results_of_any_size(void **state) {
  spec_world *w = *state;
  static const size_t sizes[] = {5,    63,    64, 65,           120,
                                 4096, 70000, 5,  EG_RESULT_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    spec_reset(w, "k");
    spec_run(w, "k", spec_done_with(spec_large(sizes[i])));
    assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_CACHED);
    assert_int_equal(w->reply.value.len, sizes[i]);
    eg_bytes expected = spec_large(sizes[i]);
    assert_int_equal(memcmp(w->reply.value.data, expected.data, expected.len),
                     0);
  }
}

static void acquire_run_when_opaque_tells_the_mark(void **state) {
  spec_world *w = *state;
  spec_run(w, "k", (eg_outcome){.status = EG_OK, .kind = EG_KIND_OPAQUE});
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_CACHED);
  assert_int_equal(w->reply.kind, EG_KIND_OPAQUE);
  assert_int_equal(w->reply.value.len, 0);
}

static void acquire_run_without_a_result_is_completed(void **state) {
  spec_world *w = *state;
  spec_run(w, "nil", (eg_outcome){.status = EG_OK, .kind = EG_KIND_NONE});
  assert_int_equal(spec_ask(w, "nil", EG_WANT_RUN), EG_COMPLETED);
  assert_int_equal(w->reply.kind, EG_KIND_NONE);
  spec_run(w, "cleared", spec_done());
  assert_int_equal(eg_clear_result(w->guard, eg_str("cleared"), &w->error),
                   EG_OK);
  assert_int_equal(spec_ask(w, "cleared", EG_WANT_RUN), EG_COMPLETED);
  spec_run(w, "kept", spec_done());
  w->policy.cache_result = false;
  assert_int_equal(spec_ask(w, "kept", EG_WANT_RUN), EG_COMPLETED);
  assert_int_equal(w->reply.value.len, 0);
}

/* In two steps, as a host does that is mostly asked for what is done. */
static void settled_tells_what_is_done_and_ask_the_rest(void **state) {
  spec_world *w = *state;
  eg_request request = {.guard = w->guard, .key = eg_str("k")};
  eg_pending *pending;
  eg_stats before, after;
  eg_stats_read(&before);
  assert_int_equal(eg_settled(&request, &w->reply), EG_OK);
  assert_int_equal(eg_ask(&request, NULL, &pending, &w->grant, &w->reply),
                   EG_OK);
  assert_null(pending);
  assert_int_equal(eg_settled(&request, &w->reply), EG_OK);
  assert_int_equal(eg_ask(&request, NULL, &pending, &w->grant, &w->reply),
                   EG_RUNNING);
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_OK);
  assert_int_equal(eg_settled(&request, &w->reply), EG_CACHED);
  assert_true(spec_is(w->reply.value, "*"));
  request.want = EG_WANT_LOCK;
  assert_int_equal(eg_settled(&request, &w->reply), EG_OK);
  assert_int_equal(eg_ask(&request, NULL, &pending, &w->grant, &w->reply),
                   EG_OK);
  request.key = eg_str("");
  assert_int_equal(eg_settled(&request, &w->reply), EG_OK);
  assert_int_equal(eg_ask(&request, NULL, &pending, &w->grant, &w->reply),
                   EG_INVALID);
  eg_stats_read(&after);
  assert_int_equal(after.executions - before.executions, 1);
  assert_int_equal(after.blocked - before.blocked, 1);
  assert_int_equal(after.cached - before.cached, 1);
}

static void acquire_run_with_rerun_is_granted_again(void **state) {
  spec_world *w = *state;
  spec_run(w, "k", spec_done());
  uint64_t token = w->grant.token;
  w->policy.allow_rerun = true;
  spec_run(w, "k", spec_done());
  assert_true(w->grant.token > token);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.count, 2);
}

static void acquire_run_when_running_is_running(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  uint64_t token = w->grant.token;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_RUNNING);
  assert_true(w->reply.token == token);
  assert_int_equal(spec_wait(w, "k", EG_WANT_RUN, 1000), EG_RUNNING);
}

static void acquire_run_when_locked_is_locked(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  uint64_t token = w->grant.token;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_LOCKED);
  assert_true(w->reply.token == token);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_LOCKED);
  assert_int_equal(spec_fetch(w, "k"), EG_OK); /* a sign that it was asked */
  assert_int_equal(w->record.status, EG_RUN_IDLE);
  assert_int_equal(w->record.count, 0);
}

static void acquire_run_within_the_cooldown_says_how_long(void **state) {
  spec_world *w = *state;
  w->policy.cooldown_ms = 100;
  w->policy.allow_rerun = true;
  spec_run(w, "k", spec_done());
  spec_advance_ms(30);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_COOLDOWN);
  assert_true(w->reply.left_us == 70 * MS);
  assert_int_equal(spec_wait(w, "k", EG_WANT_RUN, 1000), EG_COOLDOWN);
  spec_advance_ms(70);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
}

static void acquire_run_within_lock_at_least_is_a_cooldown(void **state) {
  spec_world *w = *state;
  w->policy.lock_at_least_ms = 100;
  w->policy.allow_rerun = true;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  spec_advance_ms(60);
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_OK);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_COOLDOWN);
  assert_true(w->reply.left_us == 40 * MS);
  spec_advance_ms(40);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
}

static void acquire_run_after_a_failure_runs_again(void **state) {
  spec_world *w = *state;
  spec_run(w, "k", spec_failed("no"));
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
}

static void acquire_run_while_the_error_is_good_is_failed(void **state) {
  spec_world *w = *state;
  static char text[300];
  memset(text, 'e', sizeof text - 1);
  w->policy.error_ttl_ms = 100;
  eg_outcome outcome = spec_failed(text);
  outcome.trace = eg_str("in line 7");
  spec_run(w, "k", outcome);
  spec_advance_ms(30);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_FAILED);
  assert_true(spec_is(w->reply.error, text));
  assert_int_equal(w->reply.value.len, 0);
  assert_true(w->reply.left_us == 70 * MS);
  spec_advance_ms(70);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
}

static void acquire_run_when_the_owner_died(void **state) {
  spec_world *w = *state;
  for (int i = 0; i < 2; i++) {
    eg_guard *other = spec_another(w, 0);
    assert_int_equal(eg_acquire(other, eg_str("k"), EG_WANT_RUN, NULL, 0,
                                &w->grant, &w->reply),
                     EG_OK);
    eg_reply_free(&w->reply);
    eg_close(other);
    w->policy.block_after_crash = true;
    assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_CRASHED);
    if (i == 0)
      assert_int_equal(spec_reset(w, "k"), EG_OK);
    w->policy.block_after_crash = i == 0;
    spec_run(w, "k", spec_done());
    assert_int_equal(spec_reset(w, "k"), EG_OK);
  }
}

static void acquire_run_when_its_lease_is_over_is_granted_anew(void **state) {
  spec_world *w = *state;
  w->policy.lease_ms = 10;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  eg_grant first = w->grant;
  spec_advance_ms(9);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_RUNNING);
  spec_advance_ms(1);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  assert_true(w->grant.token > first.token);
  eg_grant second = w->grant;
  w->grant = first;
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_LOST);
  w->grant = second;
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_OK);
}

static void result_or_record_that_is_over_runs_again(void **state) {
  spec_world *w = *state;
  for (int whole = 0; whole < 2; whole++) {
    w->policy.result_ttl_ms = whole ? 0 : 10;
    w->policy.record_ttl_ms = whole ? 10 : 0;
    spec_run(w, "k", spec_done());
    spec_advance_ms(9);
    assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_CACHED);
    spec_advance_ms(1);
    assert_int_equal(spec_fetch(w, "k"), whole ? EG_NOTFOUND : EG_OK);
  }
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
}

static void acquire_when_corrupt_is_corrupt(void **state) {
  spec_world *w = *state;
  spec_spoil(w, "head", "\xc1\xc1\xc1\xc1", 4);
  assert_int_equal(spec_ask(w, "head", EG_WANT_RUN), EG_CORRUPT);
  assert_int_equal(w->reply.failure.status, EG_CORRUPT);
  assert_true(strlen(w->reply.failure.message) > 0);
  assert_int_equal(spec_ask(w, "head", EG_WANT_LOCK), EG_CORRUPT);
  spec_spoil(w, "body", "\x95\x01\x04\xc1\xc1\xc1", 6); /* Failed */
  assert_int_equal(spec_ask(w, "body", EG_WANT_RUN), EG_CORRUPT);
}

/* -------------------------------------------------------- acquire: lock -- */

static void acquire_lock_when_free_is_granted(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  assert_true(w->grant.token > 0 && w->grant.start_us == 0);
  assert_true(w->grant.deadline_us == EG_FOREVER);
  assert_int_equal(w->grant.want, EG_WANT_LOCK);
  assert_int_equal(spec_fetch(w, "k"), EG_NOTFOUND);
  assert_true(w->record.locked);
}

static void acquire_lock_when_held_is_locked(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "a", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_ask(w, "a", EG_WANT_LOCK), EG_LOCKED);
  assert_int_equal(spec_ask(w, "b", EG_WANT_RUN), EG_OK);
  assert_int_equal(spec_ask(w, "b", EG_WANT_LOCK), EG_LOCKED);
}

static void acquire_lock_within_the_cooldown_says_how_long(void **state) {
  spec_world *w = *state;
  w->policy.cooldown_ms = 100;
  spec_run(w, "k", spec_done());
  spec_advance_ms(1);
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_COOLDOWN);
  assert_true(w->reply.left_us == 99 * MS);
}

static void acquire_lock_leaves_the_record(void **state) {
  spec_world *w = *state;
  spec_run(w, "k", spec_done());
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_COMPLETED);
  assert_int_equal(w->record.count, 1);
  assert_true(w->record.locked);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_CACHED);
}

static void acquire_lock_when_its_lease_is_over(void **state) {
  spec_world *w = *state;
  w->policy.lease_ms = 10;
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  uint64_t token = w->grant.token;
  spec_advance_ms(10);
  assert_false(eg_holds(w->guard, eg_str("k"), token));
  assert_int_equal(spec_release(w, "k"), EG_LOST);
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  assert_true(w->grant.token > token);
}

static void acquire_lock_of_a_dead_run_writes_it_down(void **state) {
  spec_world *w = *state;
  w->policy.lease_ms = 10;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  spec_advance_ms(10);
  w->policy.lease_ms = 0;
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_FAILED);
  assert_true(w->record.crashed && w->record.locked);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  w->policy.block_after_crash = true;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_CRASHED);
}

/* A wait that cannot end, for the caller itself would have to end it. */
static void acquire_by_the_state_that_holds_is_a_deadlock(void **state) {
  spec_world *w = *state;
  eg_guard *named = w->guard;
  uint32_t me = eg_next_state();
  eg_guard *a = spec_another(w, me), *b = spec_another(w, me);
  w->guard = a;
  assert_int_equal(spec_ask(w, "lock", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_ask(w, "run", EG_WANT_RUN), EG_OK);
  for (int i = 0; i < 2; i++) {
    w->guard = i == 0 ? a : b;
    w->policy.join_ms = 0;
    assert_int_equal(spec_ask(w, "lock", EG_WANT_LOCK), EG_LOCKED);
    assert_int_equal(spec_wait(w, "lock", EG_WANT_LOCK, 50), EG_DEADLOCK);
    assert_int_equal(spec_wait(w, "lock", EG_WANT_RUN, 50), EG_DEADLOCK);
    assert_int_equal(spec_wait(w, "run", EG_WANT_LOCK, 50), EG_DEADLOCK);
    assert_int_equal(spec_wait(w, "run", EG_WANT_RUN, 50), EG_RUNNING);
    w->policy.join_ms = 50;
    assert_int_equal(spec_ask(w, "run", EG_WANT_RUN), EG_DEADLOCK);
    eg_reply_free(&w->reply);
  }
  eg_close(a);
  eg_close(b);
  w->guard = named;
}

/* --------------------------------------------------------------- commit -- */

static void commit_stores_how_the_run_ended(void **state) {
  spec_world *w = *state;
  eg_outcome failed = spec_failed("no");
  failed.trace = eg_str("in line 7");
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  spec_advance_ms(25);
  assert_int_equal(spec_finish(w, "k", failed), EG_OK);
  assert_false(eg_holds(w->guard, eg_str("k"), w->grant.token));
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_FAILED);
  assert_true(spec_is(w->record.error, "no"));
  assert_true(spec_is(w->record.trace, "in line 7"));
  assert_true(w->record.duration_us == 25 * MS);
  assert_true(w->record.end_us == w->record.start_us + 25 * MS);
  assert_true(w->record.last_us == w->record.end_us);
  spec_run(w, "k", spec_done());
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_COMPLETED);
  assert_int_equal(w->record.error.len, 0);
  assert_int_equal(w->record.count, 2);
}

static void commit_at_or_after_the_deadline_is_a_timeout(void **state) {
  spec_world *w = *state;
  for (int late = 0; late < 3; late++) {
    assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
    w->grant.deadline_us = w->grant.start_us + 10 * MS;
    spec_advance_ms(9 + late);
    eg_outcome outcome = late == 1 ? spec_failed("x") : spec_done();
    assert_int_equal(spec_finish(w, "k", outcome),
                     late > 0 ? EG_TIMEOUT : EG_OK);
    assert_int_equal(spec_fetch(w, "k"), EG_OK);
    assert_int_equal(w->record.status,
                     late > 0 ? EG_RUN_TIMEDOUT : EG_RUN_COMPLETED);
    assert_int_equal(spec_reset(w, "k"), EG_OK);
  }
}

static void commit_of_a_timeout_is_a_timeout(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  assert_int_equal(spec_finish(w, "k", spec_late()), EG_TIMEOUT);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_TIMEDOUT);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
}

static void commit_without_the_grant_is_lost(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  eg_grant reset = w->grant;
  assert_int_equal(spec_reset(w, "k"), EG_OK);
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_LOST);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  eg_grant good = w->grant;
  w->grant = reset;
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_LOST);
  w->grant = good;
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_OK);
  assert_int_equal(spec_finish(w, "k", spec_failed("twice")), EG_LOST);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_COMPLETED);
  assert_int_equal(spec_ask(w, "lock", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_finish(w, "lock", spec_done()), EG_LOST);
  assert_true(eg_holds(w->guard, eg_str("lock"), w->grant.token));
}

static void commit_lands_though_the_result_was_cleared(void **state) {
  spec_world *w = *state;
  spec_run(w, "k", spec_done());
  w->policy.allow_rerun = true;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  assert_int_equal(eg_clear_result(w->guard, eg_str("k"), &w->error), EG_OK);
  assert_true(eg_holds(w->guard, eg_str("k"), w->grant.token));
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_OK);
}

/* Nothing was done, and something else may be committed. */
static void commit_of_what_cannot_be_stored_is_invalid(void **state) {
  spec_world *w = *state;
  unsigned char deep[EG_DEPTH_MAX + 2];
  memset(deep, 0x91, sizeof deep);
  deep[EG_DEPTH_MAX + 1] = 1;
  w->policy.max_result = 200;
  eg_outcome bad[] = {spec_done_with(eg_str("")),
                      spec_done_with(eg_str("**")),
                      spec_done_with((eg_bytes){"\xa5hi", 3}),
                      spec_done_with((eg_bytes){"\xc1", 1}),
                      spec_done_with((eg_bytes){deep, sizeof deep}),
                      spec_done_with(spec_large(201)),
                      {.status = EG_RUNNING}};
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    w->error.status = EG_OK;
    assert_int_equal(spec_finish(w, "k", bad[i]), EG_INVALID);
    assert_int_equal(w->error.status, EG_INVALID);
    assert_true(eg_holds(w->guard, eg_str("k"), w->grant.token));
  }
  assert_int_equal(spec_finish(w, "k", spec_done_with(spec_large(200))),
                   EG_OK);
}

static void commit_without_caching_stores_no_result(void **state) {
  spec_world *w = *state;
  w->policy.cache_result = false;
  spec_run(w, "k", spec_done_with(eg_str("not MessagePack")));
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.kind, EG_KIND_NONE);
  assert_int_equal(w->record.value.len, 0);
}

/* "A failing rerun keeps an earlier result only if that had no resultTtl." */
static void earlier_result_outlives_a_failing_rerun(void **state) {
  spec_world *w = *state;
  w->policy.allow_rerun = true;
  for (int limited = 0; limited < 2; limited++) {
    w->policy.result_ttl_ms = limited ? 1000 : 0;
    spec_run(w, "k", spec_done());
    spec_run(w, "k", spec_failed("no"));
    assert_int_equal(spec_fetch(w, "k"), EG_OK);
    assert_int_equal(w->record.kind, limited ? EG_KIND_NONE : EG_KIND_VALUE);
  }
}

/* ------------------------------------------------ release, reset, clear -- */

static void release_ends_a_lock_of_this_guard(void **state) {
  spec_world *w = *state;
  eg_bytes key = eg_str("k");
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  uint64_t token = w->grant.token;
  assert_int_equal(eg_release(w->guard, key, token + 1, NULL), EG_LOST);
  assert_int_equal(eg_release(w->guard, key, token, NULL), EG_OK);
  assert_int_equal(eg_release(w->guard, key, token, NULL), EG_LOST);
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  assert_int_equal(eg_release(w->guard, key, token, NULL), EG_LOST);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_int_equal(spec_fetch(w, "k"), EG_NOTFOUND);
  assert_false(w->record.locked);
}

static void release_of_what_is_no_lock_of_this_guard_is_lost(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_release(w, "absent"), EG_LOST);
  assert_int_equal(spec_ask(w, "run", EG_WANT_RUN), EG_OK);
  uint64_t run = w->grant.token;
  assert_int_equal(spec_release(w, "run"), EG_LOST);
  assert_int_equal(eg_release(w->guard, eg_str("run"), run, NULL), EG_LOST);
  assert_true(eg_holds(w->guard, eg_str("run"), run));
  eg_guard *other = spec_another(w, 0);
  assert_int_equal(spec_ask(w, "lock", EG_WANT_LOCK), EG_OK);
  uint64_t token = w->grant.token;
  assert_int_equal(eg_release(other, eg_str("lock"), 0, NULL), EG_LOST);
  assert_int_equal(eg_release(other, eg_str("lock"), token, NULL), EG_LOST);
  assert_true(eg_holds(w->guard, eg_str("lock"), token));
  assert_int_equal(eg_reset(other, eg_str("lock"), NULL), EG_OK);
  assert_int_equal(spec_release(w, "lock"), EG_LOST);
  eg_close(other);
}

static void
release_here_ends_a_lock_of_any_guard_of_the_process(void **state) {
  spec_world *w = *state;
  eg_bytes key = eg_str("k");
  eg_guard *other = spec_another(w, 0);
  assert_int_equal(eg_release_here(other, key, NULL), EG_LOST);
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  uint64_t token = w->grant.token;
  assert_int_equal(spec_fetch(w, "k"), EG_NOTFOUND);
  assert_true(w->record.owner.here);
  assert_int_equal(eg_release_here(other, key, NULL), EG_OK);
  assert_false(eg_holds(w->guard, key, token));
  assert_int_equal(eg_release(w->guard, key, token, NULL), EG_LOST);
  assert_int_equal(eg_release_here(other, key, NULL), EG_LOST);
  eg_close(other);
}

static void release_here_of_a_run_is_lost(void **state) {
  spec_world *w = *state;
  eg_bytes key = eg_str("k");
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  assert_int_equal(eg_release_here(w->guard, key, NULL), EG_LOST);
  assert_true(eg_holds(w->guard, key, w->grant.token));
}

static void reset_goes_back_to_idle_from_anything(void **state) {
  spec_world *w = *state;
  const eg_outcome ends[] = {spec_done(), spec_failed("x"), spec_late()};
  for (int i = 0; i < 4; i++) {
    w->policy = (eg_policy)EG_POLICY_DEFAULT;
    w->policy.error_ttl_ms = w->policy.cooldown_ms = 1000;
    assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
    if (i < 3)
      spec_finish(w, "k", ends[i]);
    assert_int_equal(spec_fetch(w, "k"), EG_OK);
    int64_t last = w->record.last_us;
    uint32_t count = w->record.count;
    assert_int_equal(spec_reset(w, "k"), EG_OK);
    assert_false(eg_holds(w->guard, eg_str("k"), w->grant.token));
    assert_int_equal(spec_fetch(w, "k"), EG_OK);
    assert_int_equal(w->record.status, EG_RUN_IDLE);
    assert_false(w->record.locked);
    assert_int_equal(w->record.count, count);
    assert_true(w->record.last_us == last);
    assert_true(w->record.start_us == 0 && w->record.end_us == 0);
    assert_int_equal(w->record.kind + w->record.error.len, 0);
    assert_true(w->record.cooldown_left_us == 0);
  }
}

static void revoke_ends_the_run_that_was_seen(void **state) {
  spec_world *w = *state;
  eg_bytes key = eg_str("k");
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  eg_grant old = w->grant;
  eg_guard *other = spec_another(w, 0);
  assert_int_equal(eg_revoke(other, key, old.token + 1, "no", NULL), EG_LOST);
  assert_true(eg_holds(w->guard, key, old.token));
  assert_int_equal(eg_revoke(other, key, old.token, "by x", NULL), EG_OK);
  assert_int_equal(eg_revoke(other, key, old.token, "by x", NULL), EG_LOST);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_FAILED);
  assert_true(spec_is(w->record.error, "by x"));
  assert_false(w->record.locked);
  assert_true(w->record.token > old.token);
  assert_int_equal(w->record.duration_us, 0);
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_LOST);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  eg_close(other);
}

static void revoke_of_a_lock_leaves_the_record(void **state) {
  spec_world *w = *state;
  spec_run(w, "done", spec_done());
  w->policy.lock_at_least_ms = 60000;
  for (int i = 0; i < 2; i++) {
    const char *key = i == 0 ? "done" : "absent";
    assert_int_equal(spec_ask(w, key, EG_WANT_LOCK), EG_OK);
    uint64_t token = w->grant.token;
    assert_int_equal(eg_revoke(w->guard, eg_str(key), token, "x", NULL),
                     EG_OK);
    assert_int_equal(spec_release(w, key), EG_LOST);
    assert_int_equal(spec_fetch(w, key), i == 0 ? EG_OK : EG_NOTFOUND);
    assert_false(w->record.locked);
    assert_int_equal(w->record.cooldown_left_us, 0);
    if (i == 0)
      assert_int_equal(w->record.status, EG_RUN_COMPLETED);
    assert_int_equal(spec_ask(w, key, EG_WANT_LOCK), EG_OK);
  }
}

static void share_where_no_descriptor_stands_for_a_grant(void **state) {
  spec_world *w = *state;
  int fd = 7;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  assert_int_equal(
      eg_share_grant(w->guard, eg_str("k"), &w->grant, &fd, &w->error),
      EG_UNSUPPORTED);
  assert_int_equal(fd, -1);
  assert_int_equal(eg_share_grant(w->guard, eg_str(""), &w->grant, &fd, NULL),
                   EG_INVALID);
}

static void reset_of_an_absent_key_leaves_none(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_reset(w, "k"), EG_OK);
  assert_int_equal(spec_fetch(w, "k"), EG_NOTFOUND);
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_reset(w, "k"), EG_OK);
  assert_int_equal(spec_fetch(w, "k"), EG_NOTFOUND);
  assert_false(w->record.locked);
  assert_int_equal(spec_release(w, "k"), EG_LOST);
}

/* The way out that the message of CORRUPT names. */
static void reset_of_a_corrupt_record_makes_it_idle(void **state) {
  spec_world *w = *state;
  spec_spoil(w, "k", "\xc1\xc1\xc1\xc1", 4);
  assert_int_equal(spec_reset(w, "k"), EG_OK);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
}

static void clear_forgets_the_result_and_no_more(void **state) {
  spec_world *w = *state;
  eg_bytes key = eg_str("k");
  assert_int_equal(eg_clear_result(w->guard, key, NULL), EG_NOTFOUND);
  w->policy.result_ttl_ms = 10;
  spec_run(w, "k", spec_done());
  assert_int_equal(eg_clear_result(w->guard, key, NULL), EG_OK);
  spec_advance_ms(10); /* its time to live is forgotten too */
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_COMPLETED);
  assert_int_equal(w->record.kind, EG_KIND_NONE);
  assert_int_equal(w->record.count, 1);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_COMPLETED);
  assert_int_equal(eg_clear_result(w->guard, key, NULL), EG_OK);
}

/* ---------------------------------------------------------------- reply -- */

static void reply_of_a_key_that_is_invalid_has_no_token(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_ask(w, "", EG_WANT_LOCK), EG_INVALID);
  assert_true(w->reply.token == 0);
}

static void tokens_rise_over_everything(void **state) {
  spec_world *w = *state;
  uint64_t last = 0;
  w->policy.allow_rerun = true;
  for (int i = 0; i < 30; i++) {
    eg_want want = i % 3 == 0 ? EG_WANT_LOCK : EG_WANT_RUN;
    assert_int_equal(spec_ask(w, "k", want), EG_OK);
    assert_true(w->grant.token > last);
    last = w->grant.token;
    if (i % 3 == 0)
      assert_int_equal(spec_release(w, "k"), EG_OK);
    else if (i % 3 == 1)
      assert_int_equal(spec_finish(w, "k", spec_done()), EG_OK);
    else
      assert_int_equal(spec_reset(w, "k"), EG_OK);
    if (i % 5 == 0)
      eg_test_clock_set_wall(i * SECOND); /* back to 1970 */
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      BOTH_WAYS(acquire_run_when_absent_is_granted),
      BOTH_WAYS(acquire_run_when_completed_returns_the_result),
      BOTH_WAYS(acquire_run_returns_results_of_any_size),
      BOTH_WAYS(acquire_run_when_opaque_tells_the_mark),
      BOTH_WAYS(acquire_run_without_a_result_is_completed),
      ONE_WAY(settled_tells_what_is_done_and_ask_the_rest),
      BOTH_WAYS(acquire_run_with_rerun_is_granted_again),
      BOTH_WAYS(acquire_run_when_running_is_running),
      BOTH_WAYS(acquire_run_when_locked_is_locked),
      BOTH_WAYS(acquire_run_within_the_cooldown_says_how_long),
      BOTH_WAYS(acquire_run_within_lock_at_least_is_a_cooldown),
      BOTH_WAYS(acquire_run_after_a_failure_runs_again),
      BOTH_WAYS(acquire_run_while_the_error_is_good_is_failed),
      BOTH_WAYS(acquire_run_when_the_owner_died),
      BOTH_WAYS(acquire_run_when_its_lease_is_over_is_granted_anew),
      BOTH_WAYS(result_or_record_that_is_over_runs_again),
      BOTH_WAYS(acquire_when_corrupt_is_corrupt),
      BOTH_WAYS(acquire_lock_when_free_is_granted),
      BOTH_WAYS(acquire_lock_when_held_is_locked),
      BOTH_WAYS(acquire_lock_within_the_cooldown_says_how_long),
      BOTH_WAYS(acquire_lock_leaves_the_record),
      BOTH_WAYS(acquire_lock_when_its_lease_is_over),
      BOTH_WAYS(acquire_lock_of_a_dead_run_writes_it_down),
      BOTH_WAYS(acquire_by_the_state_that_holds_is_a_deadlock),
      BOTH_WAYS(commit_stores_how_the_run_ended),
      BOTH_WAYS(commit_at_or_after_the_deadline_is_a_timeout),
      BOTH_WAYS(commit_of_a_timeout_is_a_timeout),
      BOTH_WAYS(commit_without_the_grant_is_lost),
      BOTH_WAYS(commit_lands_though_the_result_was_cleared),
      BOTH_WAYS(commit_of_what_cannot_be_stored_is_invalid),
      BOTH_WAYS(commit_without_caching_stores_no_result),
      BOTH_WAYS(earlier_result_outlives_a_failing_rerun),
      BOTH_WAYS(release_ends_a_lock_of_this_guard),
      BOTH_WAYS(release_of_what_is_no_lock_of_this_guard_is_lost),
      BOTH_WAYS(release_here_ends_a_lock_of_any_guard_of_the_process),
      BOTH_WAYS(release_here_of_a_run_is_lost),
      BOTH_WAYS(reset_goes_back_to_idle_from_anything),
      BOTH_WAYS(revoke_ends_the_run_that_was_seen),
      BOTH_WAYS(revoke_of_a_lock_leaves_the_record),
      ONE_WAY(share_where_no_descriptor_stands_for_a_grant),
      BOTH_WAYS(reset_of_an_absent_key_leaves_none),
      BOTH_WAYS(reset_of_a_corrupt_record_makes_it_idle),
      BOTH_WAYS(clear_forgets_the_result_and_no_more),
      BOTH_WAYS(reply_of_a_key_that_is_invalid_has_no_token),
      BOTH_WAYS(tokens_rise_over_everything),
  };
  return cmocka_run_group_tests_name("verbs", tests, NULL, NULL);
}
