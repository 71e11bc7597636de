/* SPDX-License-Identifier: MIT
** Watching a key from outside.
*/
#include "support.h"

typedef struct watcher {
  eg_watch *watch;
  int64_t wait_ms;
  eg_status status;
  spec_thread thread;
} watcher;

static void await_change(void *arg) {
  watcher *w = arg;
  w->status = eg_watch_wait(w->watch, w->wait_ms, NULL);
}

static eg_watch *watch_of(spec_world *w, const char *key) {
  eg_watch *watch = NULL;
  assert_int_equal(eg_watch_open(w->guard, eg_str(key), &watch, &w->error),
                   EG_OK);
  assert_non_null(watch);
  return watch;
}

/* What ends a grant, or takes back what there is. */
typedef eg_status (*change_fn)(spec_world *w);

static eg_status commit(spec_world *w) {
  return spec_finish(w, "run", spec_done());
}
static eg_status release(spec_world *w) { return spec_release(w, "lock"); }
static eg_status reset_run(spec_world *w) { return spec_reset(w, "run"); }
static eg_status reset_lock(spec_world *w) { return spec_reset(w, "lock"); }
static eg_status reset_done(spec_world *w) { return spec_reset(w, "done"); }
static eg_status clear(spec_world *w) {
  return eg_clear_result(w->guard, eg_str("done"), &w->error);
}
static const struct {
  const char *key;
  change_fn change;
} changes[] = {{"run", commit},      {"lock", release},    {"run", reset_run},
               {"lock", reset_lock}, {"done", reset_done}, {"done", clear}};

enum { CHANGES = sizeof changes / sizeof *changes };

static void prepare(spec_world *w) {
  spec_reset(w, "run");
  spec_reset(w, "done");
  spec_run(w, "done", spec_done());
  assert_int_equal(spec_ask(w, "lock", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_ask(w, "run", EG_WANT_RUN), EG_OK);
}

static void done_with(spec_world *w) { spec_reset(w, "lock"); }

static void watch_when_nothing_happens_times_out(void **state) {
  spec_world *w = *state;
  prepare(w);
  eg_watch *watch = watch_of(w, "run");
  assert_int_equal(eg_watch_wait(watch, 0, NULL), EG_TIMEOUT);
  eg_test_clock_reset(true); /* waiting itself moves the clock */
  assert_int_equal(eg_watch_wait(watch, 1000, NULL), EG_TIMEOUT);
  eg_test_clock_reset(false);
  eg_unwatch(watch);
}

static void watch_wakes_for_every_kind_of_change(void **state) {
  spec_world *w = *state;
  for (int i = 0; i < CHANGES; i++) {
    prepare(w);
    watcher x = {watch_of(w, changes[i].key), EG_FOREVER, EG_INTERNAL, {0}};
    spec_start(&x.thread, await_change, &x);
    assert_true(spec_await_sleepers(1));
    assert_int_equal(changes[i].change(w), EG_OK);
    spec_join(&x.thread);
    assert_int_equal(x.status, EG_CHANGED);
    eg_unwatch(x.watch);
    done_with(w);
  }
}

/* Nothing is missed between opening, or the last wait, and the next. */
static void watch_knows_what_happened_before_the_wait(void **state) {
  spec_world *w = *state;
  for (int i = 0; i < CHANGES; i++) {
    prepare(w);
    eg_watch *watch = watch_of(w, changes[i].key);
    assert_int_equal(changes[i].change(w), EG_OK);
    assert_int_equal(eg_watch_wait(watch, 0, NULL), EG_CHANGED);
    assert_int_equal(eg_watch_wait(watch, 0, NULL), EG_TIMEOUT);
    eg_unwatch(watch);
    done_with(w);
  }
}

/* "Until a grant on it ended": by its lease too.  Waiting moves the clock, but
** no further than to the end of the lease. */
static void watch_wakes_when_a_lease_is_over(void **state) {
  spec_world *w = *state;
  w->policy.lease_ms = 100;
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  eg_watch *watch = watch_of(w, "k");
  eg_test_clock_reset(true);
  int64_t before = spec_clock.now_us(NULL);
  eg_status status = eg_watch_wait(watch, 1000, NULL);
  int64_t waited = spec_clock.now_us(NULL) - before;
  eg_test_clock_reset(false);
  eg_unwatch(watch);
  assert_int_equal(status, EG_CHANGED);
  assert_true(waited == 100 * MS);
}

static void watch_wakes_when_the_holder_closes(void **state) {
  spec_world *w = *state;
  eg_guard *other = spec_another(w, 0);
  assert_int_equal(eg_acquire(other, eg_str("k"), EG_WANT_LOCK, NULL, 0,
                              &w->grant, &w->reply),
                   EG_OK);
  eg_reply_free(&w->reply);
  watcher x = {watch_of(w, "k"), EG_FOREVER, EG_INTERNAL, {0}};
  spec_start(&x.thread, await_change, &x);
  assert_true(spec_await_sleepers(1));
  eg_close(other);
  spec_join(&x.thread);
  assert_int_equal(x.status, EG_CHANGED);
  eg_unwatch(x.watch);
}

static void watch_of_another_key_sleeps_on(void **state) {
  spec_world *w = *state;
  prepare(w);
  watcher x = {watch_of(w, "other"), 100, EG_INTERNAL, {0}};
  spec_start(&x.thread, await_change, &x);
  assert_true(spec_await_sleepers(1));
  assert_int_equal(commit(w), EG_OK);
  assert_int_equal(release(w), EG_OK);
  spec_advance_ms(100);
  spec_join(&x.thread);
  assert_int_equal(x.status, EG_TIMEOUT);
  eg_unwatch(x.watch);
}

static void many_watches_of_one_key_all_wake(void **state) {
  spec_world *w = *state;
  enum { N = 10 };
  watcher x[N];
  prepare(w);
  for (int i = 0; i < N; i++) {
    x[i] = (watcher){watch_of(w, "run"), EG_FOREVER, EG_INTERNAL, {0}};
    spec_start(&x[i].thread, await_change, &x[i]);
  }
  assert_true(spec_await_sleepers(N));
  assert_int_equal(commit(w), EG_OK);
  for (int i = 0; i < N; i++) {
    spec_join(&x[i].thread);
    assert_int_equal(x[i].status, EG_CHANGED);
  }
  for (int i = 0; i < N; i++) /* from the middle outwards */
    eg_unwatch(x[(i * 3 + 5) % N].watch);
}

static void unwatch_ignores_null_and_frees_all(void **state) {
  spec_world *w = *state;
  spec_memory memory = {0};
  eg_watch *watch = NULL;
  eg_guard *guard;
  eg_options options = {.env = w->env};
  options.env.alloc = spec_alloc;
  options.env.alloc_ud = &memory;
  eg_unwatch(NULL);
  assert_int_equal(spec_open(w, &options, &guard, NULL), EG_OK);
  long before = memory.blocks;
  assert_int_equal(eg_watch_open(guard, eg_str("k"), &watch, NULL), EG_OK);
  assert_true(memory.blocks > before);
  eg_unwatch(watch);
  assert_int_equal(memory.blocks, before);
  for (long n = 1; n <= 2; n++) { /* the watch, and the store's */
    memory.fail_at = memory.calls + n;
    eg_status status = eg_watch_open(guard, eg_str("k"), &watch, &w->error);
    assert_int_equal(status, EG_NOMEM);
    assert_int_equal(w->error.status, EG_NOMEM);
    assert_null(watch);
    assert_int_equal(memory.blocks, before);
  }
  eg_close(guard);
  assert_int_equal(memory.blocks, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      BOTH_WAYS(watch_when_nothing_happens_times_out),
      BOTH_WAYS(watch_wakes_for_every_kind_of_change),
      BOTH_WAYS(watch_knows_what_happened_before_the_wait),
      BOTH_WAYS(watch_wakes_when_a_lease_is_over),
      BOTH_WAYS(watch_wakes_when_the_holder_closes),
      BOTH_WAYS(watch_of_another_key_sleeps_on),
      BOTH_WAYS(many_watches_of_one_key_all_wake),
      BOTH_WAYS(unwatch_ignores_null_and_frees_all),
  };
  return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
