/* SPDX-License-Identifier: MIT
** Steps on a key, by apply (with and without a look before the lock) and by
** the loop: the same callback, the same meaning.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "steps.h"

#include <cmocka.h>

typedef struct setting {
  way by;
  bool named;
  world w;
} setting;

static job fresh(void) {
  job j = {.policy = EG_POLICY_DEFAULT};
  return j;
}

/* -------------------------------------------------- the core's meaning -- */

static void run_is_granted_once_and_then_cached(void **state) {
  setting *s = *state;
  world *w = &s->w;
  job j = fresh();
  assert_int_equal(job_do(w, s->by, EGI_FETCH, &j), EG_NOTFOUND);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_OK);
  uint64_t token = j.token;
  assert_true(token > 0);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_RUNNING);
  assert_int_equal(j.token, token);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_LOCK, &j), EG_LOCKED);
  assert_int_equal(job_commit(w, s->by, token, EG_OK, &j), EG_OK);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_CACHED);
  assert_int_equal(job_do(w, s->by, EGI_FETCH, &j), EG_OK);
  assert_int_equal(j.run, EG_RUN_COMPLETED);
  assert_int_equal(j.count, 1);
}

static void commit_of_an_older_token_is_lost(void **state) {
  setting *s = *state;
  world *w = &s->w;
  job j = fresh();
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_OK);
  uint64_t old = j.token;
  assert_int_equal(job_do(w, s->by, EGI_RESET, &j), EG_OK);
  assert_int_equal(job_commit(w, s->by, old, EG_OK, &j), EG_LOST);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_OK);
  uint64_t token = j.token;
  assert_true(token > old);
  assert_int_equal(job_commit(w, s->by, old, EG_FAILED, &j), EG_LOST);
  assert_int_equal(job_commit(w, s->by, token, EG_FAILED, &j), EG_OK);
  assert_int_equal(job_do(w, s->by, EGI_FETCH, &j), EG_OK);
  assert_int_equal(j.run, EG_RUN_FAILED);
  assert_string_equal(j.error, "boom");
}

static void run_whose_lease_is_over_reads_as_owner_died(void **state) {
  setting *s = *state;
  world *w = &s->w;
  job j = fresh();
  j.policy.lease_ms = 100;
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_OK);
  uint64_t token = j.token;
  clock_advance_ms(99);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_RUNNING);
  clock_advance_ms(1);
  assert_int_equal(job_do(w, s->by, EGI_FETCH, &j), EG_OK);
  assert_true(j.crashed && !j.sight.held);
  assert_string_equal(j.error, "owner died");
  assert_int_equal(job_commit(w, s->by, token, EG_OK, &j), EG_LOST);
  j.policy.block_after_crash = true;
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_CRASHED);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_LOCK, &j), EG_OK);
  assert_int_equal(job_do(w, s->by, EGI_RELEASE, &j), EG_OK);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_CRASHED);
  j.policy.block_after_crash = false;
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_OK);
}

static void cooldown_counts_from_the_end(void **state) {
  setting *s = *state;
  world *w = &s->w;
  job j = fresh();
  j.policy.cooldown_ms = 100;
  j.policy.allow_rerun = true;
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_OK);
  clock_advance_ms(500);
  assert_int_equal(job_commit(w, s->by, j.token, EG_OK, &j), EG_OK);
  clock_advance_ms(60);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_COOLDOWN);
  assert_int_equal(j.left_us, 40000);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_LOCK, &j), EG_COOLDOWN);
  clock_advance_ms(40);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_OK);
}

static void lock_at_least_counts_from_the_grant(void **state) {
  setting *s = *state;
  world *w = &s->w;
  job j = fresh();
  j.policy.lock_at_least_ms = 100;
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_LOCK, &j), EG_OK);
  clock_advance_ms(30);
  assert_int_equal(job_do(w, s->by, EGI_RELEASE, &j), EG_OK);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_LOCK, &j), EG_COOLDOWN);
  assert_int_equal(j.left_us, 70000);
  clock_advance_ms(70);
  assert_int_equal(job_do(w, s->by, EGI_FETCH, &j), EG_NOTFOUND);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_OK);
  clock_advance_ms(30);
  assert_int_equal(job_commit(w, s->by, j.token, EG_FAILED, &j), EG_OK);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_COOLDOWN);
  assert_int_equal(j.left_us, 70000);
}

static void result_and_error_and_record_have_their_time(void **state) {
  setting *s = *state;
  world *w = &s->w;
  job j = fresh();
  j.policy.result_ttl_ms = 100;
  j.policy.error_ttl_ms = 50;
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_OK);
  assert_int_equal(job_commit(w, s->by, j.token, EG_OK, &j), EG_OK);
  clock_advance_ms(99);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_CACHED);
  clock_advance_ms(1);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_OK);
  j.policy.record_ttl_ms = 200;
  assert_int_equal(job_commit(w, s->by, j.token, EG_FAILED, &j), EG_OK);
  clock_advance_ms(20);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_FAILED);
  assert_int_equal(j.left_us, 30000);
  clock_advance_ms(180);
  assert_int_equal(job_do(w, s->by, EGI_FETCH, &j), EG_NOTFOUND);
}

static void refused_run_leaves_an_idle_record(void **state) {
  setting *s = *state;
  world *w = &s->w;
  job j = fresh();
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_LOCK, &j), EG_OK);
  assert_int_equal(job_do(w, s->by, EGI_FETCH, &j), EG_NOTFOUND);
  assert_int_equal(job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j), EG_LOCKED);
  assert_int_equal(job_do(w, s->by, EGI_FETCH, &j), EG_OK);
  assert_int_equal(j.run, EG_RUN_IDLE);
  assert_int_equal(j.count, 0);
  assert_true(j.sight.held);
  assert_int_equal(job_do(w, s->by, EGI_RELEASE, &j), EG_OK);
  assert_int_equal(job_do(w, s->by, EGI_RELEASE, &j), EG_LOST);
}

static void run_without_memory_changes_nothing(void **state) {
  setting *s = *state;
  world *w = &s->w;
  job j = fresh();
  eg_status status = EG_INTERNAL;
  for (int nth = 0; status == EG_INTERNAL && nth < 1000; nth++) {
    alloc_fail(nth);
    status = job_acquire(w, s->by, EGI_ACQUIRE_RUN, &j);
    bool failed = alloc_has_failed();
    alloc_fail(FAIL_NEVER);
    assert_true(failed || status == EG_OK);
    job look = fresh();
    assert_int_equal(job_do(w, BY_LOOP, EGI_FETCH, &look),
                     status == EG_OK ? EG_OK : EG_NOTFOUND);
  }
  assert_int_equal(status, EG_OK);
}

/* ------------------------------------------------ the form of a step -- */

/* A callback that does as it is told and notes what it is shown. */
typedef struct script {
  egi_verdict verdict, first; /* first: before the clock was read */
  egi_swap swap;
  int calls;
  egi_sight sight; /* of the last call */
} script;

static egi_verdict follow(void *ctx, const egi_seen *seen, egi_swap *swap) {
  script *s = ctx;
  s->calls++;
  s->sight = seen->at;
  if (s->first == EGI_NOW && !seen->at.clocked)
    return EGI_NOW;
  uint64_t expect = swap->expect;
  *swap = s->swap;
  swap->expect = expect + 999; /* apply does not look at it */
  return s->verdict;
}

static void put(world *w, int64_t fresh_ms) {
  egi_swap swap = swap_put("x");
  swap.fresh_ms = fresh_ms;
  assert_int_equal(world_change(w, "k", swap, &w->seen[0]), EG_OK);
  assert_int_equal(world_load(w, "k", &w->seen[0]), EG_OK);
}

static void none_and_grow_change_nothing(void **state) {
  setting *s = *state;
  world *w = &s->w;
  uint64_t token;
  script told = {.verdict = EGI_NONE, .swap = swap_put("y")};
  put(w, 1000);
  assert_int_equal(step_run(w, s->by, "k", follow, &told, EGI_NO_TIME, &token),
                   EG_OK);
  told.verdict = EGI_GROW;
  assert_int_equal(step_run(w, s->by, "k", follow, &told, EGI_NO_TIME, &token),
                   EG_CHANGED);
  assert_true(world_unchanged(w, "k", &w->seen[0], &w->seen[1]));
}

static void clock_is_read_when_asked_for(void **state) {
  setting *s = *state;
  world *w = &s->w;
  uint64_t token;
  for (int64_t fresh_ms = 0; fresh_ms <= 1000; fresh_ms += 1000)
    for (int writes = 0; writes <= 1; writes++) {
      script told = {.first = EGI_NOW, .swap = swap_put("y")};
      told.verdict = writes ? EGI_SWAP : EGI_NONE;
      put(w, fresh_ms);
      clock_advance_ms(10);
      if (s->by == BY_LOOP)
        continue; /* the loop always has the time */
      assert_int_equal(
          step_run(w, s->by, "k", follow, &told, EGI_NO_TIME, &token), EG_OK);
      assert_true(told.sight.clocked);
      assert_int_equal(told.sight.timed, fresh_ms > 0);
      assert_int_equal(told.sight.fresh_left_us, fresh_ms > 0 ? 990000 : -1);
    }
}

static void clock_that_was_read_is_used(void **state) {
  setting *s = *state;
  world *w = &s->w;
  uint64_t token;
  script told = {.first = EGI_NOW, .verdict = EGI_NONE};
  put(w, 1000);
  clock_advance_ms(10);
  if (s->by == BY_LOOP)
    return;
  assert_int_equal(
      step_run(w, s->by, "k", follow, &told, clock_now_us(), &token), EG_OK);
  assert_true(told.sight.clocked);
  assert_int_equal(told.sight.now_us, clock_now_us());
  assert_int_equal(told.sight.fresh_left_us, 990000);
}

static void swap_of_a_step_lands_with_token_and_version(void **state) {
  setting *s = *state;
  world *w = &s->w;
  uint64_t token = 0, last;
  script told = {.verdict = EGI_SWAP, .swap = swap_take(1000)};
  put(w, 0);
  uint64_t version = w->seen[0].version;
  told.swap.write = EGI_PUT;
  told.swap.bytes = eg_str("another");
  assert_int_equal(step_run(w, s->by, "k", follow, &told, EGI_NO_TIME, &token),
                   EG_OK);
  assert_int_equal(world_load(w, "k", &w->seen[0]), EG_OK);
  assert_true(w->seen[0].version != version && w->seen[0].at.held);
  assert_true(token > 0 && w->seen[0].at.token == token);
  assert_true(bytes_are(w->seen[0].bytes, "another"));
  assert_true(bytes_are(w->seen[0].holder, "the holder line"));
  last = token;
  told.swap = swap_break();
  assert_int_equal(step_run(w, s->by, "k", follow, &told, EGI_NO_TIME, &token),
                   EG_OK);
  assert_true(token > last);
}

static void unchanged_says_no_after_a_change(void **state) {
  setting *s = *state;
  world *w = &s->w;
  if (w->ops->unchanged == NULL)
    return;
  put(w, 0);
  egi_seen *seen = &w->seen[0];
  if (w->ops == egi_find_store("memory")) /* others may say no */
    assert_true(w->ops->unchanged(w->store, eg_str("k"), seen->mark));
  assert_int_equal(world_change(w, "k", swap_take(10), &w->seen[1]), EG_OK);
  assert_false(w->ops->unchanged(w->store, eg_str("k"), seen->mark));
  egi_swap brief = swap_put("x");
  brief.life_ms = 10;
  assert_int_equal(world_change(w, "b", brief, &w->seen[1]), EG_OK);
  assert_int_equal(world_load(w, "b", seen), EG_OK);
  clock_advance_ms(10);
  assert_false(w->ops->unchanged(w->store, eg_str("b"), seen->mark));
}

/* ------------------------------------------------------------- setting -- */

static int open_setting(void **state) {
  setting *s = *state;
  if (!world_open(&s->w, NULL, s->named))
    return -1;
  if (s->w.ops->apply == NULL)
    s->by = BY_LOOP; /* this store has one way only */
  return 0;
}

static int close_setting(void **state) {
  setting *s = *state;
  world_close(&s->w);
  return 0;
}

static void steps_give_all_their_memory_back(void **state) {
  (void)state;
  assert_int_equal(alloc_blocks(), 0);
  assert_false(alloc_was_misused());
}

/* --------------------------------------------------------------- table -- */

#define STEPS(XX, by)                                                         \
  XX(by, run_is_granted_once_and_then_cached)                                 \
  XX(by, commit_of_an_older_token_is_lost)                                    \
  XX(by, run_whose_lease_is_over_reads_as_owner_died)                         \
  XX(by, cooldown_counts_from_the_end)                                        \
  XX(by, lock_at_least_counts_from_the_grant)                                 \
  XX(by, result_and_error_and_record_have_their_time)                         \
  XX(by, refused_run_leaves_an_idle_record)                                   \
  XX(by, run_without_memory_changes_nothing)                                  \
  XX(by, none_and_grow_change_nothing)                                        \
  XX(by, clock_is_read_when_asked_for)                                        \
  XX(by, clock_that_was_read_is_used)                                         \
  XX(by, swap_of_a_step_lands_with_token_and_version)                         \
  XX(by, unchanged_says_no_after_a_change)

static setting loop = {.by = BY_LOOP}, apply = {.by = BY_APPLY},
               glance = {.by = BY_GLANCE},
               loop_named = {.by = BY_LOOP, .named = true},
               apply_named = {.by = BY_APPLY, .named = true},
               glance_named = {.by = BY_GLANCE, .named = true};

#define ENTRY(by, test)                                                       \
  {#by " " #test, test, open_setting, close_setting, &by},

int main(void) {
  const struct CMUnitTest tests[] = {
      STEPS(ENTRY, loop) STEPS(ENTRY, apply) STEPS(ENTRY, glance)
          STEPS(ENTRY, loop_named) STEPS(ENTRY, apply_named)
              STEPS(ENTRY, glance_named)
                  cmocka_unit_test(steps_give_all_their_memory_back),
  };
  alarm(600);
  return cmocka_run_group_tests_name("store steps", tests, NULL, NULL);
}
