/* SPDX-License-Identifier: MIT
** Waits in progress: asked for, rung for, cancelled, and served in order.
*/
#include "support.h"

#include "guard/bell.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int64_t now_us(void) { return spec_clock.now_us(spec_clock.ctx); }

typedef struct asker {
  eg_bell *bell;
  eg_pending *pending;
  eg_status status;
  eg_grant grant;
  eg_reply reply;
} asker;

static void ask(asker *a, eg_guard *guard, eg_want want, eg_policy *policy,
                int64_t wait_ms) {
  *a = (asker){0};
  eg_reply_init(&a->reply);
  assert_int_equal(eg_bell_open(NULL, &a->bell, NULL), EG_OK);
  a->status = eg_acquire_begin(guard, eg_str("k"), want, policy, wait_ms,
                               a->bell, &a->pending, &a->grant, &a->reply);
}

static void ask_lock(spec_world *w, asker *a, int64_t wait_ms) {
  ask(a, w->guard, EG_WANT_LOCK, &w->policy, wait_ms);
  assert_non_null(a->pending);
}

/* Does its bell ring, for it? */
static bool rung(const asker *a) {
  return eg_bell_next(a->bell) == eg_pending_call(a->pending);
}

static bool over(asker *a) {
  bool done = eg_pending_over(a->pending, &a->status, &a->grant, &a->reply);
  if (done)
    a->pending = NULL;
  return done;
}

static void bye(asker *a) {
  eg_pending_cancel(a->pending);
  eg_bell_close(a->bell);
  eg_reply_free(&a->reply);
}

static void lock(spec_world *w) {
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
}

/* ---------------------------------------------------------------- order -- */

static void what_needs_no_wait_is_answered_at_once(void **state) {
  spec_world *w = *state;
  asker a, b;
  ask(&a, w->guard, EG_WANT_LOCK, NULL, 1000);
  assert_null(a.pending);
  assert_int_equal(a.status, EG_OK);
  ask(&b, w->guard, EG_WANT_LOCK, NULL, 0);
  assert_null(b.pending);
  assert_int_equal(b.status, EG_LOCKED);
  bye(&a);
  bye(&b);
}

static void waiters_are_served_in_order_of_arrival(void **state) {
  spec_world *w = *state;
  enum { N = 5 };
  asker a[N];
  lock(w);
  for (int i = 0; i < N; i++)
    ask_lock(w, &a[i], 1000);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  uint64_t token = w->grant.token;
  for (int i = 0; i < N; i++) {
    for (int j = i + 1; j < N; j++) {
      assert_false(rung(&a[j]));
      assert_false(over(&a[j]));
    }
    assert_true(rung(&a[i]));
    assert_true(over(&a[i]));
    assert_int_equal(a[i].status, EG_OK);
    assert_true(a[i].grant.token > token);
    token = a[i].grant.token;
    assert_int_equal(eg_release(w->guard, eg_str("k"), token, NULL), EG_OK);
  }
  for (int i = 0; i < N; i++)
    bye(&a[i]);
}

static void newcomer_gets_no_lock_that_was_handed_over(void **state) {
  spec_world *w = *state;
  asker a;
  lock(w);
  ask_lock(w, &a, 1000);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_LOCKED);
  assert_true(over(&a));
  assert_int_equal(a.status, EG_OK);
  bye(&a);
}

static void lock_that_is_revoked_goes_to_who_waits(void **state) {
  spec_world *w = *state;
  asker a;
  lock(w);
  ask_lock(w, &a, 1000);
  assert_int_equal(
      eg_revoke(w->guard, eg_str("k"), w->grant.token, "by a test", NULL),
      EG_OK);
  assert_true(rung(&a));
  assert_true(over(&a));
  assert_int_equal(a.status, EG_OK);
  bye(&a);
}

static void
waiter_through_another_guard_stands_in_the_same_line(void **state) {
  spec_world *w = *state;
  asker a, b;
  eg_guard *other = spec_another(w, 0);
  lock(w);
  ask(&a, other, EG_WANT_LOCK, NULL, 1000);
  ask_lock(w, &b, 1000);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_false(over(&b));
  assert_true(over(&a));
  assert_int_equal(a.status, EG_OK);
  eg_close(other); /* which gives the lock back */
  assert_true(rung(&b));
  assert_true(over(&b));
  assert_int_equal(b.status, EG_OK);
  bye(&a);
  bye(&b);
}

static void waiter_that_is_cancelled_never_holds(void **state) {
  spec_world *w = *state;
  asker a, b;
  lock(w);
  ask_lock(w, &a, 1000);
  ask_lock(w, &b, 1000);
  eg_pending_cancel(a.pending);
  a.pending = NULL;
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_true(over(&b));
  assert_int_equal(b.status, EG_OK);
  bye(&a);
  bye(&b);
}

/* It was handed over already: the next in line has it before cancel returns.
 */
static void what_a_cancelled_waiter_was_handed_is_the_next_ones(void **state) {
  spec_world *w = *state;
  asker a, b;
  lock(w);
  ask_lock(w, &a, 1000);
  ask_lock(w, &b, 1000);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  eg_pending_cancel(a.pending);
  a.pending = NULL;
  assert_true(rung(&b));
  assert_true(over(&b));
  assert_int_equal(b.status, EG_OK);
  bye(&a);
  bye(&b);
}

static void waiter_whose_time_is_over_is_passed(void **state) {
  spec_world *w = *state;
  asker a, b;
  lock(w);
  ask_lock(w, &a, 100);
  ask_lock(w, &b, 1000);
  assert_true(eg_pending_due_us(a.pending) == now_us() + 100 * MS);
  spec_advance_ms(100);
  assert_true(over(&a));
  assert_int_equal(a.status, EG_LOCKED);
  assert_false(over(&b));
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_true(over(&b));
  bye(&a);
  bye(&b);
}

static void wait_ends_with_its_guard(void **state) {
  spec_world *w = *state;
  asker a, b;
  eg_guard *other = spec_another(w, 0);
  lock(w);
  ask(&a, other, EG_WANT_LOCK, NULL, 1000);
  ask_lock(w, &b, 1000);
  eg_close(other);
  assert_true(over(&a));
  assert_int_equal(a.status, EG_CANCELED);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_true(over(&b));
  bye(&a);
  bye(&b);
}

/* -------------------------------------------------------- other reasons -- */

static void wait_for_a_lease_is_due_at_its_end(void **state) {
  spec_world *w = *state;
  asker a, b;
  w->policy.lease_ms = 50;
  lock(w);
  ask_lock(w, &a, 1000);
  ask_lock(w, &b, 1000);
  assert_true(eg_pending_due_us(a.pending) == now_us() + 50 * MS);
  spec_advance_ms(50);
  assert_true(over(&a));
  assert_int_equal(a.status, EG_OK);
  assert_false(over(&b)); /* and that one's lease is the next */
  assert_true(eg_pending_due_us(b.pending) == now_us() + 50 * MS);
  bye(&a);
  bye(&b);
}

static void wait_for_a_cooldown_is_due_at_its_end(void **state) {
  spec_world *w = *state;
  asker a;
  w->policy.cooldown_ms = 50;
  spec_run(w, "k", spec_done());
  ask_lock(w, &a, 1000);
  assert_int_equal(a.status, EG_COOLDOWN);
  assert_true(eg_pending_due_us(a.pending) == now_us() + 50 * MS);
  eg_test_clock_set_wall(1); /* prolongs nothing */
  assert_false(over(&a));
  spec_advance_ms(50);
  assert_true(over(&a));
  assert_int_equal(a.status, EG_OK);
  bye(&a);
}

static void those_who_joined_are_all_answered(void **state) {
  spec_world *w = *state;
  enum { N = 3 };
  asker a[N];
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  w->policy.join_ms = 1000;
  for (int i = 0; i < N; i++)
    ask(&a[i], w->guard, EG_WANT_RUN, &w->policy, 0);
  eg_pending_cancel(a[1].pending); /* which ends nothing for the others */
  a[1].pending = NULL;
  assert_int_equal(spec_finish(w, "k", spec_done_with(spec_large(300))),
                   EG_OK);
  for (int i = 0; i < N; i += 2) {
    assert_true(rung(&a[i]));
    assert_true(over(&a[i]));
    assert_int_equal(a[i].status, EG_CACHED);
    assert_int_equal(a[i].reply.value.len, 300);
  }
  for (int i = 0; i < N; i++)
    bye(&a[i]);
}

static void run_that_is_waited_for_begins_when_it_is_looked_at(void **state) {
  spec_world *w = *state;
  asker a;
  lock(w);
  ask(&a, w->guard, EG_WANT_RUN, &w->policy, 1000);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  spec_advance_ms(10);
  assert_true(rung(&a));
  assert_true(over(&a));
  assert_int_equal(a.status, EG_OK);
  assert_true(a.grant.start_us == now_us());
  bye(&a);
}

static void own_state_is_told_and_no_deadlock(void **state) {
  spec_world *w = *state;
  asker a;
  eg_guard *mine = spec_another(w, 7), *same = spec_another(w, 7);
  assert_int_equal(eg_acquire(mine, eg_str("k"), EG_WANT_LOCK, NULL, 0,
                              &w->grant, &w->reply),
                   EG_OK);
  ask(&a, same, EG_WANT_LOCK, NULL, 1000);
  assert_int_equal(a.status, EG_LOCKED);
  assert_true(eg_pending_for_self(a.pending));
  eg_close(mine);
  assert_true(over(&a));
  assert_int_equal(a.status, EG_OK);
  bye(&a);
  eg_close(same);
}

/* --------------------------------------------------------------- bells -- */

static void bell_rings_once_for_a_call_and_forgets_it(void **state) {
  (void)state;
  eg_bell *bell;
  eg_call a = {0}, b = {0};
  assert_int_equal(eg_bell_open(NULL, &bell, NULL), EG_OK);
  eg_bell_ring(bell, &a);
  eg_bell_ring(bell, &b);
  eg_bell_ring(bell, &a);
  assert_true(eg_bell_wait(bell, EG_FOREVER));
  eg_bell_forget(bell, &b);
  assert_ptr_equal(eg_bell_next(bell), &a);
  assert_null(eg_bell_next(bell));
  assert_false(eg_bell_wait(bell, eg_now_us()));
  eg_bell_ring(bell, &b);
  assert_ptr_equal(eg_bell_next(bell), &b);
  eg_bell_ring(bell, NULL);
  assert_true(eg_bell_wait(bell, EG_FOREVER));
  assert_null(eg_bell_next(bell));
  eg_bell_close(bell);
}

static void bell_rings_for_a_descriptor(void **state) {
  (void)state;
  eg_bell *bell;
  eg_call call = {0};
  uint64_t one = 1;
  int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  assert_int_equal(eg_bell_open(NULL, &bell, NULL), EG_OK);
  assert_int_equal(eg_bell_watch(bell, fd, &call, NULL), EG_OK);
  assert_null(eg_bell_next(bell));
  assert_int_equal(write(fd, &one, sizeof one), sizeof one);
  assert_true(eg_bell_wait(bell, EG_FOREVER));
  assert_ptr_equal(eg_bell_next(bell), &call);
  assert_null(eg_bell_next(bell)); /* once */
  assert_int_equal(eg_bell_watch(bell, fd, &call, NULL), EG_OK);
  assert_ptr_equal(eg_bell_next(bell), &call);
  eg_bell_unwatch(bell, fd);
  assert_null(eg_bell_next(bell));
  assert_int_equal(eg_bell_watch(bell, -1, &call, NULL), EG_UNAVAILABLE);
  close(fd);
  eg_bell_close(bell);
}

static void write_soon(void *arg) {
  const uint64_t one = 1;
  usleep(20000);
  if (write(*(int *)arg, &one, sizeof one) < 0)
    abort();
}

/* A clock that waiting moves waits for what a grant's end may bring, in the
** machine's time, and for nothing else. */
static void bell_by_a_jumping_clock_waits_for_what_was_stirred(void **state) {
  (void)state;
  eg_bell *bell;
  eg_call call = {0}, other = {0};
  spec_thread thread;
  int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  eg_test_clock_reset(true);
  eg_set_clock(eg_test_clock());
  assert_int_equal(eg_bell_open(NULL, &bell, NULL), EG_OK);
  assert_int_equal(eg_bell_watch(bell, fd, &call, NULL), EG_OK);
  int64_t start = eg_now_us();
  assert_false(eg_bell_wait(bell, start + SECOND));
  assert_int_equal(eg_now_us(), start + SECOND);
  egi_bell_stir(bell, &other);
  assert_ptr_equal(eg_bell_next(bell), &other);
  assert_null(eg_bell_next(bell));
  spec_start(&thread, write_soon, &fd);
  bool rang = eg_bell_wait(bell, start + 2 * SECOND);
  spec_join(&thread);
  if (rang) { /* it may have come too late, where the machine is busy */
    assert_ptr_equal(eg_bell_next(bell), &call);
    assert_int_equal(eg_now_us(), start + SECOND);
    assert_int_equal(bell->stirred, 1);
  }
  eg_bell_forget(bell, &other);
  assert_int_equal(bell->stirred, 0);
  eg_bell_unwatch(bell, fd);
  eg_bell_close(bell);
  close(fd);
  eg_set_clock(NULL);
}

/* ---------------------------------------------------------------- races -- */

typedef struct racer {
  spec_world *w;
  eg_guard *guard;
  int rounds, wrong, granted;
  unsigned seed;
  spec_thread thread;
} racer;

static atomic_int holders;

static void hold(racer *r, const eg_grant *grant) {
  r->wrong += atomic_fetch_add(&holders, 1) != 0;
  r->granted++;
  atomic_fetch_sub(&holders, 1);
  r->wrong += eg_release(r->guard, eg_str("k"), grant->token, NULL) != EG_OK;
}

static unsigned chance(racer *r) { /* Numerical Recipes' */
  r->seed = r->seed * 1664525 + 1013904223;
  return r->seed >> 16;
}

/* Asks, and then takes it or cancels, at a moment of chance. */
static void race(void *arg) {
  racer *r = arg;
  eg_bell *bell;
  eg_pending *pending;
  eg_grant grant;
  eg_reply reply;
  eg_status status;
  eg_reply_init(&reply);
  eg_bell_open(NULL, &bell, NULL);
  for (int i = 0; i < r->rounds; i++) {
    status = eg_acquire_begin(r->guard, eg_str("k"), EG_WANT_LOCK, NULL,
                              EG_FOREVER, bell, &pending, &grant, &reply);
    bool gives_up = chance(r) % 2 == 0;
    while (pending != NULL && !gives_up) {
      if (eg_pending_over(pending, &status, &grant, &reply))
        pending = NULL;
      else
        eg_bell_wait(bell, eg_pending_due_us(pending));
      while (eg_bell_next(bell) != NULL)
        continue;
    }
    for (int spins = chance(r) % 200; pending != NULL && spins > 0; spins--)
      atomic_load(&holders);
    if (pending != NULL)
      eg_pending_cancel(pending);
    else if (status == EG_OK)
      hold(r, &grant);
    else
      r->wrong++;
  }
  eg_bell_close(bell);
  eg_reply_free(&reply);
}

/* Nobody moves the clock: a wake-up that is lost hangs, and is seen. */
static void cancel_against_grant_loses_no_wakeup(void **state) {
  spec_world *w = *state;
  enum { N = 4 };
  racer r[N];
  int granted = 0;
  for (int i = 0; i < N; i++) {
    r[i] = (racer){.w = w,
                   .guard = spec_another(w, 0),
                   .rounds = spec_scaled(8000),
                   .seed = (unsigned)i + 1};
    spec_start(&r[i].thread, race, &r[i]);
  }
  for (int i = 0; i < N; i++) {
    spec_join(&r[i].thread);
    assert_int_equal(r[i].wrong, 0);
    granted += r[i].granted;
    eg_close(r[i].guard);
  }
  assert_true(granted > 0);
  assert_int_equal(spec_fetch(w, "k"), EG_NOTFOUND);
  assert_false(w->record.locked);
}

/* ---------------------------------------------------------------- memory -- */

/* True: it was refused for lack of memory, and left nothing behind. */
static bool fails_at(spec_world *w, spec_memory *memory, long n) {
  eg_options options = {.name = w->name,
                        .env = {.alloc = spec_alloc, .alloc_ud = memory}};
  eg_guard *guard;
  asker a = {0};
  eg_reply_init(&a.reply);
  assert_int_equal(eg_open(&options, &guard, NULL), EG_OK);
  eg_status opened = EG_NOMEM;
  w->policy.join_ms = 1000;
  memory->fail_at = memory->calls + n;
  opened = eg_bell_open(&options.env, &a.bell, NULL);
  if (opened == EG_OK)
    a.status = eg_acquire_begin(guard, eg_str("k"), EG_WANT_RUN, &w->policy, 0,
                                a.bell, &a.pending, &a.grant, &a.reply);
  bool failed = opened == EG_NOMEM || a.status == EG_NOMEM;
  if (!failed) {
    assert_non_null(a.pending);
    assert_int_equal(spec_finish(w, "k", spec_done_with(spec_large(300))),
                     EG_OK);
    assert_true(over(&a));
    failed = a.status == EG_NOMEM;
    assert_true(failed || a.status == EG_CACHED);
    assert_int_equal(spec_reset(w, "k"), EG_OK);
    assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  }
  memory->fail_at = 0;
  bye(&a);
  eg_close(guard);
  assert_int_equal(memory->blocks, 0);
  return failed;
}

static void every_allocation_of_a_wait_may_fail(void **state) {
  spec_world *w = *state;
  spec_memory memory = {0};
  long n = 1;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  while (fails_at(w, &memory, n))
    n++;
  assert_true(n > 3); /* bell, wait, room for the result */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      BOTH_WAYS(what_needs_no_wait_is_answered_at_once),
      BOTH_WAYS(waiters_are_served_in_order_of_arrival),
      ONE_WAY(newcomer_gets_no_lock_that_was_handed_over),
      BOTH_WAYS(lock_that_is_revoked_goes_to_who_waits),
      BOTH_WAYS(waiter_through_another_guard_stands_in_the_same_line),
      BOTH_WAYS(waiter_that_is_cancelled_never_holds),
      BOTH_WAYS(what_a_cancelled_waiter_was_handed_is_the_next_ones),
      BOTH_WAYS(waiter_whose_time_is_over_is_passed),
      BOTH_WAYS(wait_ends_with_its_guard),
      BOTH_WAYS(wait_for_a_lease_is_due_at_its_end),
      BOTH_WAYS(wait_for_a_cooldown_is_due_at_its_end),
      BOTH_WAYS(those_who_joined_are_all_answered),
      BOTH_WAYS(run_that_is_waited_for_begins_when_it_is_looked_at),
      BOTH_WAYS(own_state_is_told_and_no_deadlock),
      ONE_WAY(bell_rings_once_for_a_call_and_forgets_it),
      ONE_WAY(bell_rings_for_a_descriptor),
      ONE_WAY(bell_by_a_jumping_clock_waits_for_what_was_stirred),
      BOTH_WAYS(cancel_against_grant_loses_no_wakeup),
      BOTH_WAYS(every_allocation_of_a_wait_may_fail),
  };
  return cmocka_run_group_tests_name("pending", tests, NULL, NULL);
}
