/* SPDX-License-Identifier: MIT
** Attendants: a store that blocks delays nobody else, leases are renewed,
** their loss is told in time, chores are done.
**
** What hangs, hangs by real time; leases run by the clock moved by hand.
*/
#include "slow_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEASE_MS 15000

static const eg_policy policy = EG_POLICY_DEFAULT;
static eg_policy leased;
static slow_store slow;
static eg_guard *far, *near; /* behind the wire, and not */

static int set_up(void **state) {
  (void)state;
  eg_test_clock_reset(false);
  eg_set_clock(eg_test_clock());
  leased = policy;
  leased.lease_ms = LEASE_MS;
  if (eg_open(NULL, &far, NULL) != EG_OK || eg_open(NULL, &near, NULL))
    return -1;
  slow_store_connect(&slow, far);
  return 0;
}

static int set_up_real(void **state) {
  int status = set_up(state);
  eg_set_clock(NULL);
  return status;
}

static int tear_down(void **state) {
  (void)state;
  atomic_store(&slow.hangs, NULL); /* a test may have failed in its middle */
  atomic_store(&slow.renew_hangs, false);
  eg_close(far);
  eg_close(near);
  eg_set_clock(NULL);
  return 0;
}

static void acquire(eg_guard *guard, eg_timer *t, const char *key,
                    const eg_policy *by, eg_want want) {
  eg_reply reply;
  *t = (eg_timer){.guard = guard, .key = eg_str(key), .policy = by};
  eg_reply_init(&reply);
  assert_int_equal(eg_acquire(guard, t->key, want, by, 0, &t->grant, &reply),
                   EG_OK);
  eg_reply_free(&reply);
}

/* A run that is kept; timeout_ms 0: it has no deadline. */
static void start(eg_guard *guard, eg_timer *t, const char *key,
                  const eg_policy *by, int64_t timeout_ms) {
  acquire(guard, t, key, by, EG_WANT_RUN);
  if (timeout_ms > 0)
    t->grant.deadline_us = t->grant.start_us + timeout_ms * 1000;
  eg_timer_start(t);
}

/* The same, and from then on calls for its key hang. */
static void start_hanging(eg_timer *t, const char *key, const eg_policy *by,
                          int64_t timeout_ms) {
  acquire(far, t, key, by, EG_WANT_RUN);
  atomic_store(&slow.hangs, key);
  t->grant.deadline_us = eg_now_us() + timeout_ms * 1000;
  eg_timer_start(t);
}

static eg_status commit(eg_timer *t) {
  const eg_outcome done = {.status = EG_OK};
  return eg_commit(t->guard, t->key, &t->grant, &done, t->policy, NULL);
}

static eg_run run_of(eg_guard *guard, const char *key) {
  eg_record record;
  assert_int_equal(eg_fetch(guard, eg_str(key), &record, NULL), EG_OK);
  eg_run run = record.status;
  eg_record_free(&record);
  return run;
}

static bool has_fired(void *ctx) { return eg_timer_fired(ctx) != 0; }

static bool is_timed_out(void *ctx) {
  const eg_timer *t = ctx;
  return run_of(t->guard, t->key.data) == EG_RUN_TIMEDOUT;
}

/* ------------------------------------------------------------ outcomes -- */

static void
store_that_hangs_delays_no_signal_and_no_other_store(void **state) {
  (void)state;
  eg_timer a, b;
  start_hanging(&a, "a", &policy, 1);
  start(near, &b, "b", &policy, 5);
  assert_true(slow_store_await(&slow, 1));
  assert_true(spec_comes(has_fired, &a));
  assert_true(spec_comes(has_fired, &b));
  assert_int_equal(run_of(near, "b"), EG_RUN_TIMEDOUT);
  assert_int_equal(eg_timer_stop(&b), EG_TIMEOUT);
  assert_int_equal(atomic_load(&slow.waiting), 1); /* still */
  atomic_store(&slow.hangs, NULL);
  assert_int_equal(eg_timer_stop(&a), EG_TIMEOUT);
  assert_int_equal(run_of(far, "a"), EG_RUN_TIMEDOUT);
}

static void outcome_that_is_queued_is_stored_by_who_stops(void **state) {
  (void)state;
  eg_timer a, b;
  acquire(far, &b, "b", &policy, EG_WANT_RUN);
  start_hanging(&a, "a", &policy, 1);
  assert_true(slow_store_await(&slow, 1));
  b.grant.deadline_us = eg_now_us();
  eg_timer_start(&b);
  assert_true(spec_comes(has_fired, &b));
  assert_int_equal(eg_timer_stop(&b), EG_TIMEOUT);
  assert_int_equal(run_of(far, "b"), EG_RUN_TIMEDOUT);
  assert_int_equal(atomic_load(&slow.waiting), 1);
  atomic_store(&slow.hangs, NULL);
  assert_int_equal(eg_timer_stop(&a), EG_TIMEOUT);
}

static void let_go(void *arg) {
  (void)arg;
  usleep(20000);
  atomic_store(&slow.hangs, NULL);
}

static void outcome_that_is_being_stored_is_waited_for(void **state) {
  (void)state;
  eg_timer *a = malloc(sizeof *a); /* so that a late use is seen */
  spec_thread other;
  assert_non_null(a);
  start_hanging(a, "a", &policy, 1);
  assert_true(slow_store_await(&slow, 1));
  spec_start(&other, let_go, NULL);
  assert_int_equal(eg_timer_stop(a), EG_TIMEOUT);
  assert_null(atomic_load(&slow.hangs));
  free(a);
  spec_join(&other);
  assert_int_equal(run_of(far, "a"), EG_RUN_TIMEDOUT);
}

static void outcome_is_stored_when_the_store_comes_back(void **state) {
  (void)state;
  eg_timer a;
  acquire(far, &a, "a", &policy, EG_WANT_RUN);
  a.grant.deadline_us = eg_now_us() + 1000;
  atomic_store(&slow.away, true);
  eg_timer_start(&a);
  assert_true(spec_comes(has_fired, &a));
  usleep(20000);
  atomic_store(&slow.away, false);
  assert_true(spec_comes(is_timed_out, &a));
  assert_int_equal(eg_timer_stop(&a), EG_TIMEOUT);
}

static void outcome_that_cannot_be_stored_is_left_to_the_caller(void **state) {
  (void)state;
  eg_timer a;
  acquire(far, &a, "a", &policy, EG_WANT_RUN);
  a.grant.deadline_us = eg_now_us() + 1000;
  atomic_store(&slow.away, true);
  eg_timer_start(&a);
  assert_true(spec_comes(has_fired, &a));
  assert_int_equal(eg_timer_stop(&a), EG_OK);
  assert_int_equal(commit(&a), EG_UNCOMMITTED);
  atomic_store(&slow.away, false);
  assert_int_equal(commit(&a), EG_TIMEOUT); /* late all the same */
}

static bool is_completed(void *ctx) {
  const eg_timer *t = ctx;
  eg_test_clock_advance(200 * MS);
  return run_of(far, t->key.data) == EG_RUN_COMPLETED;
}

static bool is_given_up(void *ctx) {
  eg_test_clock_advance(200 * MS);
  return !egi_is_leftover(eg_str("a"), *(uint64_t *)ctx);
}

/* Asked to be stored when the store is there again. */
static void leave(eg_timer *t) {
  const eg_outcome done = {.status = EG_OK};
  acquire(far, t, "a", &leased, EG_WANT_RUN);
  atomic_store(&slow.away, true);
  assert_int_equal(commit(t), EG_UNCOMMITTED);
  assert_int_equal(
      eg_commit_later(far, t->key, &t->grant, &done, &leased, NULL), EG_OK);
  assert_true(egi_is_leftover(t->key, t->grant.token));
}

static void outcome_that_is_left_is_stored_when_the_store_is_there(void **s) {
  (void)s;
  eg_timer a;
  const eg_outcome done = {.status = EG_OK};
  leave(&a);
  eg_test_clock_advance(1 * SECOND);
  atomic_store(&slow.away, false);
  assert_true(spec_comes(is_completed, &a));
  assert_true(spec_comes(is_given_up, &a.grant.token));
  assert_int_equal(eg_commit_later(far, a.key, &a.grant, &done, &leased, NULL),
                   EG_LOST);
  assert_int_equal(
      eg_commit_later(near, a.key, &a.grant, &done, &leased, NULL),
      EG_UNSUPPORTED);
}

/* Its lease is not renewed any more. */
static void outcome_that_is_left_ends_with_its_lease(void **state) {
  (void)state;
  eg_timer a;
  leave(&a);
  assert_true(spec_comes(is_given_up, &a.grant.token));
  atomic_store(&slow.away, false);
  eg_test_clock_advance(LEASE_MS * MS);
  assert_int_equal(run_of(far, "a"), EG_RUN_FAILED);
}

static void guard_is_closed_while_its_attendant_works(void **state) {
  (void)state;
  eg_timer a, b, c;
  spec_thread other;
  acquire(far, &b, "b", &policy, EG_WANT_RUN);
  acquire(far, &c, "c", &policy, EG_WANT_RUN);
  start_hanging(&a, "a", &leased, 1);
  assert_true(slow_store_await(&slow, 1));
  b.grant.deadline_us = c.grant.deadline_us = eg_now_us();
  eg_timer_start(&c);
  eg_timer_park(&c);
  eg_timer_start(&b);
  assert_true(spec_comes(has_fired, &b) && spec_comes(has_fired, &c));
  spec_start(&other, let_go, NULL);
  eg_timer_void(&c);
  eg_timer_void(&b);
  eg_timer_void(&a);
  eg_close(far);
  spec_join(&other);
  assert_int_equal(eg_timer_stop(&c), EG_LOST);
  assert_int_equal(eg_timer_stop(&b), EG_LOST);
  assert_int_equal(eg_timer_stop(&a), EG_TIMEOUT);
  far = NULL;
}

static void leave_two(void *arg) {
  eg_timer *timers = arg;
  acquire(far, &timers[1], "b", &leased, EG_WANT_RUN);
  start_hanging(&timers[0], "a", &leased, 1);
  slow_store_await(&slow, 1);
  timers[1].grant.deadline_us = eg_now_us();
  eg_timer_start(&timers[1]);
  spec_comes(has_fired, &timers[1]);
}

static void thread_that_ends_leaves_nothing_queued(void **state) {
  (void)state;
  eg_timer *timers = malloc(2 * sizeof *timers);
  spec_thread worker, other;
  assert_non_null(timers);
  spec_start(&worker, leave_two, timers);
  assert_true(slow_store_await(&slow, 1));
  spec_start(&other, let_go, NULL);
  spec_join(&worker);
  spec_join(&other);
  free(timers);
}

/* --------------------------------------------------------------- leases -- */

static void lease_is_renewed_until_the_run_ends(void **state) {
  (void)state;
  eg_timer a;
  start(far, &a, "a", &leased, 0);
  for (int i = 0; i < 40; i++) {
    eg_test_clock_advance(5 * SECOND);
    assert_true(eg_holds(far, a.key, a.grant.token));
  }
  assert_int_equal(atomic_load(&slow.renewals), 40);
  assert_int_equal(eg_timer_stop(&a), EG_OK);
  assert_int_equal(commit(&a), EG_OK);
  eg_test_clock_advance(60 * SECOND);
  assert_int_equal(atomic_load(&slow.renewals), 40); /* stopped for good */
}

static void lease_of_a_lock_is_renewed_until_its_release(void **state) {
  (void)state;
  eg_timer a, b;
  acquire(far, &a, "a", &leased, EG_WANT_LOCK);
  acquire(near, &b, "b", &leased, EG_WANT_LOCK);
  for (int i = 0; i < 10; i++) {
    eg_test_clock_advance(5 * SECOND);
    assert_true(eg_holds(far, a.key, a.grant.token));
    assert_true(eg_holds(near, b.key, b.grant.token));
  }
  assert_int_equal(eg_release(far, a.key, 0, NULL), EG_OK);
  assert_int_equal(eg_release(near, b.key, b.grant.token, NULL), EG_OK);
  assert_false(eg_can_lose(far) || eg_can_lose(near));
}

static void leases_are_renewed_in_batches(void **state) {
  (void)state;
  enum { N = 200 };
  static eg_timer timers[N];
  static char keys[N][8];
  for (int i = 0; i < N; i++) {
    snprintf(keys[i], sizeof keys[i], "k%d", i);
    acquire(far, &timers[i], keys[i], &leased, EG_WANT_LOCK);
    eg_test_clock_advance(1000);
  }
  for (int i = 0; i < 20; i++)
    eg_test_clock_advance(1 * SECOND);
  assert_true(atomic_load(&slow.renewed) >= 4 * N);
  assert_true(atomic_load(&slow.renewals) < atomic_load(&slow.renewed) / 10);
  for (int i = 0; i < N; i++) {
    assert_true(eg_holds(far, timers[i].key, timers[i].grant.token));
    if (i % 2 == 0)
      assert_int_equal(eg_release(far, timers[i].key, 0, NULL), EG_OK);
  }
}

/* Both ways: by the keeper itself, and by a thread. */
static void hold_as_long_as_allowed(eg_guard *guard, eg_timer *t) {
  eg_policy most = leased;
  most.max_hold_ms = 40000;
  start(guard, t, "k", &most, 0);
  for (int i = 0; i < 38; i++) {
    eg_test_clock_advance(1 * SECOND);
    assert_true(eg_timer_fired(t) == 0);
    assert_true(eg_holds(guard, t->key, t->grant.token));
  }
  eg_test_clock_advance(2 * SECOND);
  assert_true(eg_timer_fired(t) != 0);
  assert_true(eg_timer_lost(t));
  assert_false(eg_holds(guard, t->key, t->grant.token));
  assert_int_equal(eg_timer_stop(t), EG_LOST);
}

static void renewal_ends_at_max_hold(void **state) {
  (void)state;
  eg_timer a, b;
  hold_as_long_as_allowed(far, &a);
  hold_as_long_as_allowed(near, &b);
}

static void max_hold_alone_is_a_lease(void **state) {
  (void)state;
  eg_policy most = policy;
  eg_timer a;
  most.max_hold_ms = 10000;
  start(near, &a, "a", &most, 0);
  eg_test_clock_advance(10 * SECOND - 1);
  assert_true(eg_holds(near, a.key, a.grant.token));
  assert_true(eg_timer_fired(&a) == 0);
  eg_test_clock_advance(1);
  assert_true(eg_timer_lost(&a));
  assert_int_equal(eg_timer_stop(&a), EG_LOST);
}

static void lease_that_cannot_be_renewed_is_lost_before_it_ends(void **state) {
  (void)state;
  eg_timer a;
  start(far, &a, "a", &leased, 0);
  eg_test_clock_advance(5 * SECOND);
  atomic_store(&slow.away, true);
  int seconds = 0;
  for (; eg_timer_fired(&a) == 0 && seconds < 30; seconds++)
    eg_test_clock_advance(1 * SECOND);
  assert_true(eg_timer_lost(&a));
  assert_in_range(seconds, 13, 14); /* of 15 */
  assert_true(atomic_load(&slow.renewals) > 5);
  atomic_store(&slow.away, false);
  assert_true(eg_holds(far, a.key, a.grant.token)); /* not over yet */
  assert_int_equal(eg_timer_stop(&a), EG_LOST);
  assert_false(eg_can_lose(far));
}

static void lease_is_kept_when_the_store_comes_back_in_time(void **state) {
  (void)state;
  eg_timer a;
  start(far, &a, "a", &leased, 0);
  for (int turn = 0; turn < 4; turn++) {
    atomic_store(&slow.away, true);
    for (int i = 0; i < 9; i++)
      eg_test_clock_advance(1 * SECOND);
    atomic_store(&slow.away, false);
    for (int i = 0; i < 6; i++)
      eg_test_clock_advance(1 * SECOND);
  }
  assert_true(eg_timer_fired(&a) == 0);
  assert_true(eg_holds(far, a.key, a.grant.token));
  assert_int_equal(eg_timer_stop(&a), EG_OK);
  assert_int_equal(commit(&a), EG_OK);
}

static void lease_that_somebody_ended_is_lost_at_the_next_try(void **state) {
  (void)state;
  eg_timer a, b;
  start(far, &a, "a", &leased, 0);
  start(far, &b, "b", &leased, 0);
  eg_timer_park(&b);
  atomic_store(&slow.denies, true);
  eg_test_clock_advance(5 * SECOND);
  assert_true(eg_timer_lost(&a));
  assert_true(eg_timer_lost(&b));
  assert_int_equal(eg_timer_stop(&b), EG_LOST);
  assert_int_equal(eg_timer_stop(&a), EG_LOST);
}

static void reset_by_the_guard_itself_loses_nothing_aloud(void **state) {
  (void)state;
  eg_timer a;
  start(near, &a, "a", &leased, 0);
  assert_int_equal(eg_reset(near, a.key, NULL), EG_OK);
  eg_test_clock_advance(60 * SECOND);
  assert_true(eg_timer_fired(&a) == 0);
  assert_int_equal(eg_timer_stop(&a), EG_OK);
  assert_int_equal(commit(&a), EG_LOST);
}

/* By real time: the attendant hangs, so the keeper has to see it. */
static void lease_is_lost_in_time_while_the_renewal_hangs(void **state) {
  (void)state;
  eg_timer a;
  leased.lease_ms = 300;
  start(far, &a, "a", &leased, 0);
  atomic_store(&slow.renew_hangs, true);
  assert_true(spec_comes(has_fired, &a));
  assert_true(eg_timer_lost(&a));
  int64_t took = eg_timer_fired(&a) - a.grant.start_us;
  assert_in_range(took, 250 * MS, 30 * SECOND);
  assert_int_equal(eg_timer_stop(&a), EG_LOST);
  atomic_store(&slow.renew_hangs, false);
}

/* By real time, and as if the machine had been suspended. */
static void lease_is_lost_when_the_machine_has_slept(void **state) {
  (void)state;
  eg_timer a, b;
  start(far, &a, "a", &leased, 0);
  start(near, &b, "b", &leased, 0); /* its clock slept as well */
  usleep(5000);
  assert_true(eg_timer_fired(&a) == 0);
  atomic_store(&slow.away, true);
  atomic_fetch_add(&egi_suspended_us, 14 * SECOND);
  egi_keeper_ring(); /* as boot.c does when the machine wakes */
  assert_true(spec_comes(has_fired, &a));
  assert_true(eg_timer_fired(&b) == 0);
  assert_int_equal(eg_timer_stop(&b), EG_OK);
  assert_int_equal(eg_timer_stop(&a), EG_LOST);
}

/* Nobody has told the keeper yet: who was stopped asks first. */
static void lease_is_not_believed_in_when_its_time_is_over(void **state) {
  (void)state;
  eg_timer a;
  acquire(far, &a, "a", &leased, EG_WANT_LOCK);
  assert_true(egi_believes(far, a.key, a.grant.token));
  assert_false(egi_believes(far, a.key, a.grant.token + 1));
  atomic_store(&slow.away, true);
  atomic_fetch_add(&egi_suspended_us, 14 * SECOND);
  assert_false(egi_believes(far, a.key, a.grant.token));
}

/* By real time; a machine that is busy may lose it. */
static void lease_is_renewed_by_real_time(void **state) {
  (void)state;
  eg_timer a;
  leased.lease_ms = 600;
  start(far, &a, "a", &leased, 0);
  while (atomic_load(&slow.renewals) < 4 && eg_timer_fired(&a) == 0)
    usleep(1000);
  assert_true(atomic_load(&slow.renewals) >= 4 || eg_timer_lost(&a));
  eg_timer_stop(&a);
}

/* ------------------------------------------------------ chores, hasten -- */

static bool was_tended(void *ctx) {
  return atomic_load(&slow.tended) >= *(int *)ctx;
}

static void chores_are_done_soon_after_a_write(void **state) {
  (void)state;
  eg_timer a;
  int once = 1;
  start(far, &a, "a", &policy, 0);
  eg_test_clock_advance(9999);
  assert_int_equal(atomic_load(&slow.tended), 0);
  eg_test_clock_advance(1);
  assert_true(spec_comes(was_tended, &once));
  for (int i = 0; i < 20; i++) /* it may be written to again, soon */
    eg_test_clock_advance(10 * MS);
  int visits = atomic_load(&slow.tended), next = visits + 1;
  assert_in_range(visits, 5, 11);
  eg_test_clock_advance(60 * SECOND); /* it was not */
  assert_int_equal(atomic_load(&slow.tended), visits);
  assert_int_equal(commit(&a), EG_OK);
  eg_test_clock_advance(10 * MS);
  assert_true(spec_comes(was_tended, &next));
  eg_timer_stop(&a);
}

/* Who is written to in a row is visited without being asked. */
static void chores_go_on_while_it_is_written_to(void **state) {
  (void)state;
  char key[] = "a";
  for (; *key <= 'z'; ++*key) {
    eg_timer a;
    int before = atomic_load(&slow.tended), next = before + 1;
    start(far, &a, key, &policy, 0);
    assert_int_equal(commit(&a), EG_OK);
    eg_timer_stop(&a);
    eg_test_clock_advance(10 * MS);
    assert_true(spec_comes(was_tended, &next));
  }
}

static void loss_that_a_chore_finds_out_fires_the_timer(void **state) {
  (void)state;
  eg_timer a, b;
  start(far, &a, "a", &policy, 0);
  start(far, &b, "b", &policy, 0);
  atomic_store(&slow.gone_token, b.grant.token);
  atomic_store(&slow.gone, "b");
  eg_test_clock_advance(10 * MS);
  assert_true(spec_comes(has_fired, &b));
  assert_true(eg_timer_lost(&b));
  assert_true(eg_timer_fired(&a) == 0);
  assert_int_equal(eg_timer_stop(&b), EG_LOST);
  assert_int_equal(eg_timer_stop(&a), EG_OK);
}

static void hasten(void *arg) { eg_timer_hasten(arg, 0); }

static void timer_is_hastened_by_another_thread(void **state) {
  (void)state;
  eg_timer bare = {.grant = {.deadline_us = EG_FOREVER}}, a, b;
  spec_thread other;
  eg_timer_start(&bare);
  start(near, &a, "a", &policy, 60000);
  start(near, &b, "b", &policy, 60000);
  eg_timer_park(&b);
  eg_timer *all[] = {&bare, &a, &b};
  for (int i = 0; i < 3; i++) {
    eg_timer_hasten(all[i], eg_now_us() + 60 * SECOND); /* no sooner */
    assert_true(eg_timer_fired(all[i]) == 0);
    spec_start(&other, hasten, all[i]);
    spec_join(&other);
    assert_true(spec_comes(has_fired, all[i]));
    assert_false(eg_timer_lost(all[i]));
  }
  assert_int_equal(eg_timer_stop(&b), EG_TIMEOUT);
  assert_int_equal(run_of(near, "b"), EG_RUN_TIMEDOUT);
  assert_int_equal(eg_timer_stop(&a), EG_TIMEOUT);
  assert_int_equal(eg_timer_stop(&bare), EG_TIMEOUT);
}

/* ---------------------------------------------------------- fork, memory -- */

static int play_child(eg_timer *a, eg_timer *b) {
  eg_timer mine;
  if (atomic_load(&slow.forks) != 1 || eg_can_lose(far))
    return 1;
  atomic_store(&slow.hangs, NULL);
  if (eg_timer_stop(b) != EG_LOST || eg_timer_stop(a) != EG_OK)
    return 2;
  if (commit(a) != EG_LOST || eg_holds(far, a->key, a->grant.token))
    return 3;
  start(far, &mine, "mine", &leased, 5);
  if (!spec_comes(is_timed_out, &mine) || eg_timer_stop(&mine) != EG_TIMEOUT)
    return 4;
  eg_close(far);
  return 0;
}

static void child_of_a_fork_has_attendants_of_its_own(void **state) {
  (void)state;
  eg_timer a, b;
  int status = -1;
  SPEC_FORKS_THREADS();
  start(far, &a, "a", &leased, 60000);
  start_hanging(&b, "b", &leased, 1);
  assert_true(slow_store_await(&slow, 1));
  pid_t pid = fork();
  if (pid == 0)
    _exit(play_child(&a, &b));
  waitpid(pid, &status, 0);
  assert_int_equal(status, 0);
  assert_int_equal(atomic_load(&slow.waiting), 1);
  atomic_store(&slow.hangs, NULL);
  assert_int_equal(eg_timer_stop(&b), EG_TIMEOUT);
  assert_int_equal(eg_timer_stop(&a), EG_OK);
  assert_int_equal(commit(&a), EG_OK);
}

static int allocs_left;

static void *failing(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud;
  if (nsize > osize && allocs_left == 0)
    return NULL;
  if (nsize > osize && allocs_left > 0)
    allocs_left--;
  if (nsize > 0)
    return realloc(ptr, nsize);
  free(ptr);
  return NULL;
}

static void grant_that_cannot_be_noted_is_not_made(void **state) {
  (void)state;
  eg_guard *guard;
  eg_grant grant;
  eg_reply reply;
  eg_options options = {.env = {.alloc = failing}};
  for (int n = 0;; n++) {
    allocs_left = -1;
    assert_int_equal(eg_open(&options, &guard, NULL), EG_OK);
    eg_reply_init(&reply);
    allocs_left = n;
    eg_status status = eg_acquire(guard, eg_str("k"), EG_WANT_LOCK, &leased, 0,
                                  &grant, &reply);
    allocs_left = -1;
    eg_reply_free(&reply);
    assert_true(status == EG_OK || status == EG_NOMEM);
    eg_record record;
    eg_fetch(guard, eg_str("k"), &record, NULL);
    assert_int_equal(record.locked, status == EG_OK);
    assert_int_equal(eg_can_lose(guard), status == EG_OK);
    eg_record_free(&record);
    eg_close(guard);
    if (status == EG_OK) {
      assert_true(n > 0);
      return;
    }
  }
}

static int64_t processor_us(void) {
  struct timespec at;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
  return (int64_t)at.tv_sec * 1000000 + at.tv_nsec / 1000;
}

/* The clock that goes on while the machine sleeps has fired, and nothing is
** leased any more.  By real time, and never wrong on a busy machine: who spins
** uses more of the processor, and nobody else does here. */
static void nothing_is_done_when_no_lease_is_left(void **state) {
  (void)state;
  eg_timer a;
  leased.lease_ms = 30;
  acquire(far, &a, "a", &leased, EG_WANT_LOCK);
  usleep(100000); /* it has been renewed, by whomever */
  assert_int_equal(eg_release(far, a.key, a.grant.token, NULL), EG_OK);
  usleep(50000);
  int64_t before = processor_us();
  usleep(300000);
  assert_true(processor_us() - before < 30000);
}

#define HAND(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define REAL(f) cmocka_unit_test_setup_teardown(f, set_up_real, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      REAL(store_that_hangs_delays_no_signal_and_no_other_store),
      REAL(outcome_that_is_queued_is_stored_by_who_stops),
      REAL(outcome_that_is_being_stored_is_waited_for),
      REAL(outcome_is_stored_when_the_store_comes_back),
      REAL(outcome_that_cannot_be_stored_is_left_to_the_caller),
      REAL(guard_is_closed_while_its_attendant_works),
      REAL(thread_that_ends_leaves_nothing_queued),
      HAND(lease_is_renewed_until_the_run_ends),
      HAND(lease_of_a_lock_is_renewed_until_its_release),
      HAND(leases_are_renewed_in_batches),
      HAND(renewal_ends_at_max_hold),
      HAND(max_hold_alone_is_a_lease),
      HAND(lease_that_cannot_be_renewed_is_lost_before_it_ends),
      HAND(lease_is_kept_when_the_store_comes_back_in_time),
      HAND(lease_that_somebody_ended_is_lost_at_the_next_try),
      HAND(reset_by_the_guard_itself_loses_nothing_aloud),
      REAL(nothing_is_done_when_no_lease_is_left),
      HAND(outcome_that_is_left_is_stored_when_the_store_is_there),
      HAND(outcome_that_is_left_ends_with_its_lease),
      REAL(lease_is_lost_in_time_while_the_renewal_hangs),
      REAL(lease_is_lost_when_the_machine_has_slept),
      REAL(lease_is_not_believed_in_when_its_time_is_over),
      REAL(lease_is_renewed_by_real_time),
      HAND(chores_are_done_soon_after_a_write),
      HAND(chores_go_on_while_it_is_written_to),
      HAND(loss_that_a_chore_finds_out_fires_the_timer),
      REAL(timer_is_hastened_by_another_thread),
      REAL(child_of_a_fork_has_attendants_of_its_own),
      HAND(grant_that_cannot_be_noted_is_not_made),
  };
  return cmocka_run_group_tests_name("attendants", tests, NULL, NULL);
}
