/* SPDX-License-Identifier: MIT
** Opening and closing a guard.
*/
#include "support.h"

static void open_without_options_is_a_private_guard(void **state) {
  (void)state;
  eg_guard *a, *b;
  eg_grant grant;
  eg_reply reply;
  eg_reply_init(&reply);
  assert_int_equal(eg_open(NULL, &a, NULL), EG_OK);
  assert_int_equal(eg_open(NULL, &b, NULL), EG_OK);
  eg_bytes key = eg_str("k");
  assert_int_equal(eg_acquire(a, key, EG_WANT_LOCK, NULL, 0, &grant, &reply),
                   EG_OK);
  assert_int_equal(eg_acquire(b, key, EG_WANT_LOCK, NULL, 0, &grant, &reply),
                   EG_OK);
  eg_reply_free(&reply);
  eg_close(a);
  eg_close(b);
}

static void guards_of_one_name_share_their_records(void **state) {
  spec_world *w = *state;
  eg_guard *other = spec_another(w, 0);
  spec_run(w, "k", spec_done());
  assert_int_equal(eg_acquire(other, eg_str("k"), EG_WANT_RUN, NULL, 0,
                              &w->grant, &w->reply),
                   EG_CACHED);
  assert_true(spec_is(w->reply.value, "*"));
  eg_reply_free(&w->reply);
  eg_close(other);
}

static void guards_of_other_names_share_nothing(void **state) {
  spec_world *w = *state;
  eg_guard *other;
  eg_options options = {.name = "guard-test-another", .env = w->env};
  assert_int_equal(spec_open(w, &options, &other, NULL), EG_OK);
  spec_run(w, "k", spec_done());
  assert_int_equal(eg_fetch(other, eg_str("k"), &w->record, NULL),
                   EG_NOTFOUND);
  eg_record_free(&w->record);
  eg_close(other);
}

static void named_namespace_outlives_its_guards(void **state) {
  spec_world *w = *state;
  spec_run(w, "k", spec_done());
  eg_reply_free(&w->reply);
  eg_close(w->guard);
  w->guard = spec_another(w, 0);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_CACHED);
}

static void url_says_which_way(void **state) {
  (void)state;
  eg_guard *guard;
  eg_options options = {.store = "memory"};
  assert_int_equal(eg_open(&options, &guard, NULL), EG_OK);
  assert_true(guard->by_apply);
  eg_close(guard);
  options.store = "memory:?apply=no";
  assert_int_equal(eg_open(&options, &guard, NULL), EG_OK);
  assert_false(guard->by_apply);
  eg_close(guard);
}

static void unknown_parameter_is_invalid(void **state) {
  (void)state;
  static const char *const texts[] = {"memory:?no=such",
                                      "memory:?apply=no&no=such"};
  for (int i = 0; i < 2; i++) {
    eg_error e;
    eg_guard *guard = NULL;
    eg_options options = {.store = texts[i]};
    eg_status status = eg_open(&options, &guard, &e);
    eg_close(guard);
    assert_int_equal(status, EG_INVALID);
    assert_true(strlen(e.message) > 0);
  }
}

/* A failed open leaves nothing: no guard, no memory. */
static void open_that_fails_leaves_nothing(void **state) {
  (void)state;
  static char long_name[EG_NAME_MAX + 2];
  memset(long_name, 'n', sizeof long_name - 1);
  spec_memory memory = {0};
  eg_env env = {.alloc = spec_alloc, .alloc_ud = &memory};
  const eg_options bad[] = {
      {.store = "nosuch:", .env = env, .history = 10},
      {.name = "", .env = env, .history = 10},
      {.name = long_name, .env = env, .history = 10},
      {.store = "memory:?no=such", .env = env, .history = 10},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    eg_error e = {0};
    eg_guard *guard = (eg_guard *)&memory;
    assert_int_equal(eg_open(&bad[i], &guard, &e), EG_INVALID);
    assert_null(guard);
    assert_int_equal(e.status, EG_INVALID);
    assert_true(strlen(e.message) > 0);
    assert_int_equal(memory.blocks, 0);
    assert_int_equal(eg_open(&bad[i], &guard, NULL), EG_INVALID);
  }
  assert_int_equal(memory.misused, 0);
}

static void open_without_memory_leaves_nothing(void **state) {
  (void)state;
  spec_memory memory = {0};
  eg_options options = {
      .env.alloc = spec_alloc, .env.alloc_ud = &memory, .history = 10};
  eg_guard *guard = NULL;
  eg_error e;
  int failures = 0;
  for (long n = 1; guard == NULL; n++) {
    memory.calls = 0;
    memory.fail_at = n;
    eg_status status = eg_open(&options, &guard, &e);
    if (status == EG_OK)
      break;
    failures++;
    assert_int_equal(status, EG_NOMEM);
    assert_int_equal(e.status, EG_NOMEM);
    assert_null(guard);
    assert_int_equal(memory.blocks, 0);
  }
  assert_true(failures >= 3); /* the guard, its history, its store */
  memory.fail_at = 0;
  eg_close(guard);
  assert_int_equal(memory.blocks, 0);
  assert_int_equal(memory.misused, 0);
}

static void close_ignores_null_and_frees_all(void **state) {
  spec_world *w = *state;
  spec_memory memory = {0};
  eg_guard *guard;
  eg_options options = {.env = w->env, .history = 10};
  options.env.alloc = spec_alloc;
  options.env.alloc_ud = &memory;
  eg_close(NULL);
  assert_int_equal(spec_open(w, &options, &guard, NULL), EG_OK);
  eg_outcome outcome = spec_done_with(spec_large(5000));
  for (int c = 'a'; c <= 'z'; c++) {
    char key = (char)c;
    eg_bytes k = {&key, 1};
    assert_int_equal(
        eg_acquire(guard, k, EG_WANT_RUN, NULL, 0, &w->grant, &w->reply),
        EG_OK);
    if (key < 'm')
      assert_int_equal(eg_commit(guard, k, &w->grant, &outcome, NULL, NULL),
                       EG_OK);
  }
  eg_reply_free(&w->reply);
  eg_close(guard);
  assert_int_equal(memory.blocks, 0);
  assert_int_equal(memory.misused, 0);
}

static void close_gives_locks_back(void **state) {
  spec_world *w = *state;
  eg_guard *other = spec_another(w, 0);
  assert_int_equal(eg_acquire(other, eg_str("k"), EG_WANT_LOCK, NULL, 0,
                              &w->grant, &w->reply),
                   EG_OK);
  eg_reply_free(&w->reply);
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_LOCKED);
  eg_close(other);
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
}

static void close_during_a_run_is_the_death_of_its_owner(void **state) {
  spec_world *w = *state;
  eg_guard *other = spec_another(w, 0);
  assert_int_equal(eg_acquire(other, eg_str("k"), EG_WANT_RUN, NULL, 0,
                              &w->grant, &w->reply),
                   EG_OK);
  eg_reply_free(&w->reply);
  eg_close(other);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_FAILED);
  assert_true(w->record.crashed);
  assert_false(w->record.locked);
  assert_true(spec_is(w->record.error, "owner died"));
}

static void close_leaves_the_grants_of_others(void **state) {
  spec_world *w = *state;
  eg_guard *other = spec_another(w, 0);
  assert_int_equal(spec_ask(w, "lock", EG_WANT_LOCK), EG_OK);
  uint64_t token = w->grant.token;
  assert_int_equal(spec_ask(w, "run", EG_WANT_RUN), EG_OK);
  eg_close(other);
  assert_true(eg_holds(w->guard, eg_str("lock"), token));
  assert_int_equal(spec_finish(w, "run", spec_done()), EG_OK);
}

static void close_wakes_who_waits_for_its_lock(void **state) {
  spec_world *w = *state;
  eg_guard *other = spec_another(w, 0);
  assert_int_equal(eg_acquire(other, eg_str("k"), EG_WANT_LOCK, NULL, 0,
                              &w->grant, &w->reply),
                   EG_OK);
  eg_reply_free(&w->reply);
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_LOCK, EG_FOREVER);
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  eg_close(other);
  assert_int_equal(spec_called(&c), EG_OK);
  eg_reply_free(&c.reply);
}

static void close_wakes_who_joined_its_run(void **state) {
  spec_world *w = *state;
  eg_guard *other = spec_another(w, 0);
  assert_int_equal(eg_acquire(other, eg_str("k"), EG_WANT_RUN, NULL, 0,
                              &w->grant, &w->reply),
                   EG_OK);
  eg_reply_free(&w->reply);
  spec_caller c = spec_caller_of(w->guard, "k", EG_WANT_RUN, 0);
  c.policy.join_ms = EG_FOREVER;
  spec_call(&c);
  assert_true(spec_await_sleepers(1));
  eg_close(other);
  assert_int_equal(spec_called(&c), EG_OK); /* it runs anew */
  eg_reply_free(&c.reply);
}

/* What was answered is freed, or used again, when its guard is gone. */
static void answers_outlive_their_guard(void **state) {
  spec_world *w = *state;
  spec_memory memory = {0};
  eg_guard *guard;
  eg_options options = {.env = w->env};
  options.env.alloc = spec_alloc;
  options.env.alloc_ud = &memory;
  eg_bytes key = eg_str("k");
  eg_outcome outcome = spec_done_with(spec_large(5000));
  for (int reused = 0; reused < 2; reused++) {
    assert_int_equal(spec_open(w, &options, &guard, NULL), EG_OK);
    assert_int_equal(
        eg_acquire(guard, key, EG_WANT_RUN, NULL, 0, &w->grant, &w->reply),
        EG_OK);
    assert_int_equal(eg_commit(guard, key, &w->grant, &outcome, NULL, NULL),
                     EG_OK);
    assert_int_equal(eg_fetch(guard, key, &w->record, NULL), EG_OK);
    assert_int_equal(
        eg_acquire(guard, key, EG_WANT_RUN, NULL, 0, &w->grant, &w->reply),
        EG_CACHED);
    eg_close(guard);
    assert_int_equal(w->reply.value.len, 5000);
    assert_int_equal(w->record.value.len, 5000);
    if (reused)
      assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
    eg_reply_free(&w->reply);
    eg_record_free(&w->record);
    assert_int_equal(memory.blocks, 0);
    assert_int_equal(memory.misused, 0);
  }
}

/* Only a private namespace keeps that list. */
static void swept_opaque_results_are_told_once(void **state) {
  spec_world *w = *state;
  eg_guard *named = w->guard;
  unsigned char key[EG_KEY_MAX];
  eg_options options = {.env = w->env};
  assert_int_equal(spec_open(w, &options, &w->guard, NULL), EG_OK);
  w->policy.record_ttl_ms = 10;
  eg_outcome opaque = {.status = EG_OK, .kind = EG_KIND_OPAQUE};
  spec_run(w, "opaque", opaque);
  spec_run(w, "value", spec_done());
  assert_int_equal(eg_next_forgotten(w->guard, key), 0);
  spec_advance_ms(10);
  assert_int_equal(spec_fetch(w, "value"), EG_NOTFOUND);
  w->policy.record_ttl_ms = 0;
  for (int c = 'a'; c <= 'z'; c++) {
    char text[] = {(char)c, '\0'};
    spec_run(w, text, spec_done());
  }
  assert_int_equal(eg_next_forgotten(w->guard, key), 6);
  assert_memory_equal(key, "opaque", 6);
  assert_int_equal(eg_next_forgotten(w->guard, key), 0);
  eg_reply_free(&w->reply);
  eg_record_free(&w->record);
  eg_close(w->guard);
  w->guard = named;
  assert_int_equal(eg_next_forgotten(named, key), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(open_without_options_is_a_private_guard),
      BOTH_WAYS(guards_of_one_name_share_their_records),
      ONE_WAY(guards_of_other_names_share_nothing),
      ONE_WAY(named_namespace_outlives_its_guards),
      cmocka_unit_test(url_says_which_way),
      cmocka_unit_test(unknown_parameter_is_invalid),
      cmocka_unit_test(open_that_fails_leaves_nothing),
      cmocka_unit_test(open_without_memory_leaves_nothing),
      BOTH_WAYS(close_ignores_null_and_frees_all),
      BOTH_WAYS(close_gives_locks_back),
      BOTH_WAYS(close_during_a_run_is_the_death_of_its_owner),
      BOTH_WAYS(close_leaves_the_grants_of_others),
      BOTH_WAYS(close_wakes_who_waits_for_its_lock),
      BOTH_WAYS(close_wakes_who_joined_its_run),
      BOTH_WAYS(answers_outlive_their_guard),
      BOTH_WAYS(swept_opaque_results_are_told_once),
  };
  return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
