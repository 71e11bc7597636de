/* SPDX-License-Identifier: MIT
** Waiting for a key, in other threads, by the clock that is moved by hand.
*/
#include "support.h"

#include <stdatomic.h>

/* Frees the memory of a caller whose call has returned. */
static eg_status ended(spec_caller *c) {
  eg_status status = spec_called(c);
  eg_reply_free(&c->reply);
  return status;
}

static void lock(spec_world *w, const char *key) {
  assert_int_equal(spec_ask(w, key, EG_WANT_LOCK), EG_OK);
}

/* ----------------------------------------------------------- for locks -- */

static void waiter_gets_the_lock_that_is_released(void **state) {
  spec_world *w = *state;
  lock(w, "k");
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_LOCK, 1000);
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_int_equal(ended(&c), EG_OK);
  assert_true(c.grant.token > w->grant.token);
  assert_true(eg_holds(w->guard, eg_str("k"), c.grant.token));
}

static void waiter_for_a_run_gets_it_when_the_lock_ends(void **state) {
  spec_world *w = *state;
  lock(w, "k");
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_RUN, 1000);
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_int_equal(ended(&c), EG_OK);
  assert_int_equal(c.grant.want, EG_WANT_RUN);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_RUNNING);
}

static void waiter_for_a_lock_gets_it_when_the_run_ends(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_LOCK, EG_FOREVER);
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_OK);
  assert_int_equal(ended(&c), EG_OK);
}

static void waiter_gets_the_lock_that_is_reset(void **state) {
  spec_world *w = *state;
  lock(w, "k");
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_LOCK, 1000);
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  assert_int_equal(spec_reset(w, "k"), EG_OK);
  assert_int_equal(ended(&c), EG_OK);
}

static void waiter_gets_the_lock_whose_lease_is_over(void **state) {
  spec_world *w = *state;
  w->policy.lease_ms = 100;
  lock(w, "k");
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_LOCK, 1000);
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(100);
  assert_int_equal(ended(&c), EG_OK);
  assert_int_equal(spec_release(w, "k"), EG_OK);
}

/* The refusal has left a record, and was told the time: that time is over. */
static void waiter_for_a_run_gets_it_when_the_lease_is_over(void **state) {
  spec_world *w = *state;
  w->policy.lease_ms = 100;
  lock(w, "k");
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_RUN, 1000);
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(100);
  assert_int_equal(ended(&c), EG_OK);
}

/* It comes back at its deadline, and never holds what it gave up. */
static void waiter_that_gave_up_never_holds(void **state) {
  spec_world *w = *state;
  lock(w, "k");
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_LOCK, 100);
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(100);
  assert_int_equal(ended(&c), EG_LOCKED);
  assert_true(c.reply.token == w->grant.token);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_int_equal(spec_fetch(w, "k"), EG_NOTFOUND);
  assert_false(w->record.locked);
  lock(w, "k");
}

static void waiter_before_its_deadline_waits_on(void **state) {
  spec_world *w = *state;
  lock(w, "k");
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_LOCK, 100);
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(99);
  assert_true(spec_await_sleepers(1));
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_int_equal(ended(&c), EG_OK);
}

static void waiters_of_other_keys_are_left_alone(void **state) {
  spec_world *w = *state;
  lock(w, "a");
  lock(w, "b");
  spec_caller a = spec_caller_of(w->guard, "a", EG_WANT_LOCK, 100);
  spec_caller b = spec_caller_of(w->guard, "b", EG_WANT_LOCK, 100);
  spec_call(&a);
  spec_call(&b);
  assert_true(spec_await_sleepers(2));
  assert_int_equal(spec_release(w, "a"), EG_OK);
  assert_int_equal(ended(&a), EG_OK);
  spec_advance_ms(100);
  assert_int_equal(ended(&b), EG_LOCKED);
}

static void wait_without_time_does_not_wait(void **state) {
  spec_world *w = *state;
  lock(w, "k");
  assert_int_equal(spec_wait(w, "k", EG_WANT_LOCK, 0), EG_LOCKED);
  assert_int_equal(spec_wait(w, "k", EG_WANT_LOCK, -5), EG_LOCKED);
}

/* -------------------------------------------------------- for cooldowns -- */

static void lock_waits_for_a_cooldown(void **state) {
  spec_world *w = *state;
  w->policy.cooldown_ms = 100;
  spec_run(w, "k", spec_done());
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_LOCK, 1000);
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(99);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(1);
  assert_int_equal(ended(&c), EG_OK);
}

static void lock_whose_time_ends_before_the_cooldown(void **state) {
  spec_world *w = *state;
  w->policy.cooldown_ms = 100;
  spec_run(w, "k", spec_done());
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_LOCK, 60);
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(60);
  assert_int_equal(ended(&c), EG_COOLDOWN);
  assert_true(c.reply.left_us <= 100 * MS && c.reply.left_us > 0);
}

static void lock_waits_for_a_lock_and_then_its_cooldown(void **state) {
  spec_world *w = *state;
  w->policy.lock_at_least_ms = 100;
  lock(w, "k");
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_LOCK, 1000);
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(50);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(50);
  assert_int_equal(ended(&c), EG_OK);
}

/* ---------------------------------------------------------------- joins -- */

static void join_in_thread(spec_world *w, spec_caller *c, int64_t join_ms) {
  *c = spec_caller_of(w->guard, "k", EG_WANT_RUN, 0);
  c->policy.join_ms = join_ms;
  spec_call(c);
}

static void begin_run(spec_world *w) {
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
}

static void join_shares_the_result(void **state) {
  spec_world *w = *state;
  enum { N = 5 };
  static spec_caller c[N];
  begin_run(w);
  for (int i = 0; i < N; i++)
    join_in_thread(w, &c[i], 1000);
  assert_true(spec_await_sleepers(N));
  assert_int_equal(spec_finish(w, "k", spec_done_with(spec_large(300))),
                   EG_OK);
  for (int i = 0; i < N; i++) {
    assert_int_equal(spec_called(&c[i]), EG_CACHED);
    assert_int_equal(c[i].reply.kind, EG_KIND_VALUE);
    assert_int_equal(c[i].reply.value.len, 300);
    assert_true(c[i].reply.token == w->grant.token);
    eg_reply_free(&c[i].reply);
  }
}

static void join_of_a_run_without_result_is_completed(void **state) {
  spec_world *w = *state;
  spec_caller c;
  begin_run(w);
  join_in_thread(w, &c, 1000);
  assert_true(spec_await_sleepers(1));
  assert_int_equal(spec_finish(w, "k", (eg_outcome){.status = EG_OK}), EG_OK);
  assert_int_equal(ended(&c), EG_COMPLETED);
}

static void join_of_a_run_that_fails_is_failed(void **state) {
  spec_world *w = *state;
  spec_caller c;
  begin_run(w);
  join_in_thread(w, &c, 1000);
  assert_true(spec_await_sleepers(1));
  assert_int_equal(spec_finish(w, "k", spec_failed("no luck")), EG_OK);
  assert_int_equal(spec_called(&c), EG_FAILED);
  assert_true(spec_is(c.reply.error, "no luck"));
  eg_reply_free(&c.reply);
}

static void join_of_a_run_that_is_late_is_a_timeout(void **state) {
  spec_world *w = *state;
  spec_caller c;
  begin_run(w);
  join_in_thread(w, &c, 1000);
  assert_true(spec_await_sleepers(1));
  assert_int_equal(spec_finish(w, "k", spec_late()), EG_TIMEOUT);
  assert_int_equal(ended(&c), EG_TIMEOUT);
}

static void join_of_a_run_that_is_reset_runs_itself(void **state) {
  spec_world *w = *state;
  spec_caller c;
  begin_run(w);
  join_in_thread(w, &c, 1000);
  assert_true(spec_await_sleepers(1));
  assert_int_equal(spec_reset(w, "k"), EG_OK);
  assert_int_equal(ended(&c), EG_OK);
  assert_true(c.grant.token > w->grant.token);
}

static void join_of_a_run_whose_lease_ends_runs_itself(void **state) {
  spec_world *w = *state;
  spec_caller c;
  w->policy.lease_ms = 100;
  begin_run(w);
  join_in_thread(w, &c, 1000);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(100);
  assert_int_equal(ended(&c), EG_OK);
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_LOST);
}

static void join_whose_time_is_over_is_running(void **state) {
  spec_world *w = *state;
  spec_caller c;
  begin_run(w);
  join_in_thread(w, &c, 100);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(100);
  assert_int_equal(ended(&c), EG_RUNNING);
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_OK);
}

static bool is_held(void *ctx) {
  spec_world *w = ctx;
  spec_fetch(w, "k");
  return w->record.locked;
}

/* One of the two that joined runs after the reset, the other joins that. */
static void joiners_after_a_reset_run_once(void **state) {
  spec_world *w = *state;
  spec_caller c[2];
  begin_run(w);
  join_in_thread(w, &c[0], 1000);
  join_in_thread(w, &c[1], 1000);
  assert_true(spec_await_sleepers(2));
  assert_int_equal(spec_reset(w, "k"), EG_OK);
  assert_true(spec_comes(is_held, w));
  w->grant.token = w->record.token;
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_OK);
  eg_status a = ended(&c[0]), b = ended(&c[1]);
  assert_true((a == EG_OK && b == EG_CACHED) ||
              (a == EG_CACHED && b == EG_OK));
}

/* A lock comes first, the run that was given up for it is joined then. */
static void wait_for_a_lock_may_become_a_join(void **state) {
  spec_world *w = *state;
  lock(w, "k");
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_RUN, 1000);
  c.policy.join_ms = 1000;
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  assert_int_equal(spec_release(w, "k"), EG_OK);
  eg_status mine = spec_ask(w, "k", EG_WANT_RUN); /* who is first? */
  if (mine == EG_OK) {
    assert_true(spec_await_sleepers(1));
    assert_int_equal(spec_finish(w, "k", spec_done()), EG_OK);
    assert_int_equal(ended(&c), EG_CACHED);
  } else {
    assert_int_equal(mine, EG_RUNNING);
    assert_int_equal(ended(&c), EG_OK);
  }
}

static void wait_by_the_state_that_holds_ends_at_once(void **state) {
  spec_world *w = *state;
  uint32_t me = eg_next_state();
  eg_guard *a = spec_another(w, me), *b = spec_another(w, me);
  spec_caller first = spec_caller_of(a, "k", EG_WANT_LOCK, 0);
  spec_call(&first);
  assert_int_equal(ended(&first), EG_OK);
  spec_caller c = spec_caller_of(b, "k", EG_WANT_LOCK, EG_FOREVER);
  spec_call(&c);
  assert_int_equal(ended(&c), EG_DEADLOCK);
  eg_close(a);
  eg_close(b);
}

/* Another state waits; then the waiter's own state gets the key. */
static void wait_becomes_a_deadlock_when_the_state_gets_the_key(void **state) {
  spec_world *w = *state;
  uint32_t me = eg_next_state();
  eg_guard *a = spec_another(w, me), *b = spec_another(w, me);
  lock(w, "k");
  spec_caller c[2] = {spec_caller_of(a, "k", EG_WANT_LOCK, EG_FOREVER),
                      spec_caller_of(b, "k", EG_WANT_LOCK, EG_FOREVER)};
  spec_call(&c[0]);
  spec_call(&c[1]);
  assert_true(spec_await_sleepers(2));
  assert_int_equal(spec_release(w, "k"), EG_OK);
  eg_status x = ended(&c[0]), y = ended(&c[1]);
  assert_true((x == EG_OK && y == EG_DEADLOCK) ||
              (x == EG_DEADLOCK && y == EG_OK));
  eg_close(a);
  eg_close(b);
}

/* ----------------------------------------------------------------- many -- */

static atomic_int inside, most;

static void visit_and_give_back(spec_caller *c) {
  int now = atomic_fetch_add(&inside, 1) + 1;
  if (now > atomic_load(&most))
    atomic_store(&most, now);
  ++*(int *)c->ctx; /* the lock guards it */
  atomic_fetch_sub(&inside, 1);
  spec_give_back(c);
}

static void fifty_waiters_all_get_the_lock_once(void **state) {
  spec_world *w = *state;
  enum { N = 50 };
  static spec_caller c[N];
  int count = 0;
  atomic_store(&most, 0);
  lock(w, "k");
  for (int i = 0; i < N; i++) {
    c[i] = spec_caller_of(w->guard, "k", EG_WANT_LOCK, EG_FOREVER);
    c[i].then = visit_and_give_back;
    c[i].ctx = &count;
    spec_call(&c[i]);
  }
  assert_true(spec_await_sleepers(N));
  assert_int_equal(spec_release(w, "k"), EG_OK);
  for (int i = 0; i < N; i++)
    assert_int_equal(ended(&c[i]), EG_OK);
  assert_int_equal(count, N);
  assert_int_equal(atomic_load(&most), 1);
  assert_int_equal(spec_fetch(w, "k"), EG_NOTFOUND);
  assert_false(w->record.locked);
}

typedef struct player {
  eg_guard *guard;
  int rounds, wrong;
  int *ball;
  uint64_t *last_token;
  spec_thread thread;
} player;

static void hand_over(void *arg) {
  player *p = arg;
  eg_reply reply;
  eg_grant grant;
  eg_reply_init(&reply);
  for (int i = 0; i < p->rounds; i++) {
    if (eg_acquire(p->guard, eg_str("ball"), EG_WANT_LOCK, NULL, EG_FOREVER,
                   &grant, &reply) != EG_OK) {
      p->wrong++;
      break;
    }
    ++*p->ball;
    p->wrong += grant.token <= *p->last_token;
    *p->last_token = grant.token;
    p->wrong += eg_release(p->guard, eg_str("ball"), grant.token, NULL) !=
                EG_OK;
  }
  eg_reply_free(&reply);
}

/* Nobody moves the clock: a wake-up that is lost hangs, and is seen. */
static void no_wakeup_is_lost_in_many_hand_overs(void **state) {
  spec_world *w = *state;
  enum { N = 4 };
  player p[N];
  int ball = 0, rounds = spec_scaled(20000) / N;
  uint64_t last_token = 0;
  for (int i = 0; i < N; i++) {
    p[i] = (player){spec_another(w, 0), rounds, 0, &ball, &last_token, {0}};
    spec_start(&p[i].thread, hand_over, &p[i]);
  }
  for (int i = 0; i < N; i++) {
    spec_join(&p[i].thread);
    assert_int_equal(p[i].wrong, 0);
    eg_close(p[i].guard);
  }
  assert_int_equal(ball, N * rounds);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      BOTH_WAYS(waiter_gets_the_lock_that_is_released),
      BOTH_WAYS(waiter_for_a_run_gets_it_when_the_lock_ends),
      BOTH_WAYS(waiter_for_a_lock_gets_it_when_the_run_ends),
      BOTH_WAYS(waiter_gets_the_lock_that_is_reset),
      BOTH_WAYS(waiter_gets_the_lock_whose_lease_is_over),
      BOTH_WAYS(waiter_for_a_run_gets_it_when_the_lease_is_over),
      BOTH_WAYS(waiter_that_gave_up_never_holds),
      BOTH_WAYS(waiter_before_its_deadline_waits_on),
      BOTH_WAYS(waiters_of_other_keys_are_left_alone),
      BOTH_WAYS(wait_without_time_does_not_wait),
      BOTH_WAYS(lock_waits_for_a_cooldown),
      BOTH_WAYS(lock_whose_time_ends_before_the_cooldown),
      BOTH_WAYS(lock_waits_for_a_lock_and_then_its_cooldown),
      BOTH_WAYS(join_shares_the_result),
      BOTH_WAYS(join_of_a_run_without_result_is_completed),
      BOTH_WAYS(join_of_a_run_that_fails_is_failed),
      BOTH_WAYS(join_of_a_run_that_is_late_is_a_timeout),
      BOTH_WAYS(join_of_a_run_that_is_reset_runs_itself),
      BOTH_WAYS(join_of_a_run_whose_lease_ends_runs_itself),
      BOTH_WAYS(join_whose_time_is_over_is_running),
      BOTH_WAYS(joiners_after_a_reset_run_once),
      BOTH_WAYS(wait_for_a_lock_may_become_a_join),
      BOTH_WAYS(wait_by_the_state_that_holds_ends_at_once),
      BOTH_WAYS(wait_becomes_a_deadlock_when_the_state_gets_the_key),
      BOTH_WAYS(fifty_waiters_all_get_the_lock_once),
      BOTH_WAYS(no_wakeup_is_lost_in_many_hand_overs),
  };
  return cmocka_run_group_tests_name("wait", tests, NULL, NULL);
}
