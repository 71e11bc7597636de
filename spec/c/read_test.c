/* SPDX-License-Identifier: MIT
** Reading: one record, all of them, how many there are.
*/
#include "support.h"

#include <stdio.h>

static int64_t wall(void) {
  int64_t now = spec_clock.now_us(NULL);
  return now + spec_clock.offset_us(NULL, now);
}

/* A run that began, and whose guard is gone. */
static void orphan(spec_world *w, const char *key) {
  eg_guard *other = spec_another(w, 0);
  assert_int_equal(eg_acquire(other, eg_str(key), EG_WANT_RUN, &w->policy, 0,
                              &w->grant, &w->reply),
                   EG_OK);
  eg_reply_free(&w->reply);
  eg_close(other);
}

/* ---------------------------------------------------------------- fetch -- */

static void fetch_of_an_absent_key_is_notfound(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_fetch(w, "k"), EG_NOTFOUND);
  assert_int_equal(w->record.status, EG_RUN_IDLE);
  assert_false(w->record.locked || w->record.crashed);
  assert_int_equal(w->record.count, 0);
  assert_true(w->record.token == 0 && w->record.version == 0);
}

static void fetch_of_a_key_that_is_only_locked(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_fetch(w, "k"), EG_NOTFOUND);
  assert_true(w->record.locked);
  assert_true(w->record.token == w->grant.token);
  assert_true(w->record.owner.mine);
}

static void fetch_of_a_run_that_is_going_on(void **state) {
  spec_world *w = *state;
  spec_advance_ms(5);
  int64_t start = wall();
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  spec_advance_ms(5);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  const eg_record *r = &w->record;
  assert_true(spec_is(r->key, "k"));
  assert_int_equal(r->status, EG_RUN_RUNNING);
  assert_true(r->locked && !r->crashed);
  assert_true(r->token == w->grant.token);
  assert_int_equal(r->count, 1);
  assert_true(r->start_us == start);
  assert_true(r->end_us == 0 && r->last_us == 0 && r->duration_us == 0);
  assert_int_equal(r->kind, EG_KIND_NONE);
}

static void fetch_of_a_completed_run(void **state) {
  spec_world *w = *state;
  int64_t start = wall();
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  spec_advance_ms(12);
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_OK);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  const eg_record *r = &w->record;
  assert_int_equal(r->status, EG_RUN_COMPLETED);
  assert_false(r->locked);
  assert_true(r->start_us == start && r->duration_us == 12 * MS);
  assert_true(r->end_us == start + 12 * MS && r->last_us == r->end_us);
  assert_int_equal(r->kind, EG_KIND_VALUE);
  assert_true(spec_is(r->value, "*"));
  assert_true(r->fresh_left_us == -1);
  assert_true(r->token == w->grant.token);
}

static void fetch_of_failed_and_timed_out_runs(void **state) {
  spec_world *w = *state;
  eg_outcome failed = spec_failed("no");
  failed.trace = eg_str("line 7");
  spec_run(w, "failed", failed);
  assert_int_equal(spec_fetch(w, "failed"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_FAILED);
  assert_false(w->record.crashed);
  assert_true(spec_is(w->record.error, "no"));
  assert_true(spec_is(w->record.trace, "line 7"));
  assert_int_equal(spec_ask(w, "late", EG_WANT_RUN), EG_OK);
  assert_int_equal(spec_finish(w, "late", spec_late()), EG_TIMEOUT);
  assert_int_equal(spec_fetch(w, "late"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_TIMEDOUT);
}

static void fetch_during_a_rerun_shows_what_was_before(void **state) {
  spec_world *w = *state;
  spec_run(w, "k", spec_failed("before"));
  int64_t end = wall();
  spec_advance_ms(5);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_RUNNING);
  assert_true(spec_is(w->record.error, "before"));
  assert_true(w->record.last_us == end);
  assert_int_equal(w->record.count, 2);
}

static void fetch_of_a_run_whose_owner_died(void **state) {
  spec_world *w = *state;
  orphan(w, "closed");
  w->policy.lease_ms = 10;
  assert_int_equal(spec_ask(w, "lease", EG_WANT_RUN), EG_OK);
  spec_advance_ms(10);
  static const char *const keys[] = {"closed", "lease"};
  for (int i = 0; i < 2; i++) {
    assert_int_equal(spec_fetch(w, keys[i]), EG_OK);
    assert_int_equal(w->record.status, EG_RUN_FAILED);
    assert_true(w->record.crashed);
    assert_false(w->record.locked);
    assert_true(spec_is(w->record.error, "owner died"));
    assert_int_equal(w->record.count, 1);
  }
}

static void fetch_of_a_result_that_is_over_has_none(void **state) {
  spec_world *w = *state;
  w->policy.result_ttl_ms = 10;
  spec_run(w, "k", spec_done());
  spec_advance_ms(4);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_true(w->record.fresh_left_us == 6 * MS);
  assert_int_equal(w->record.kind, EG_KIND_VALUE);
  spec_advance_ms(6);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.status, EG_RUN_COMPLETED);
  assert_int_equal(w->record.kind, EG_KIND_NONE);
  assert_int_equal(w->record.value.len, 0);
  assert_true(w->record.fresh_left_us == 0);
}

static void fetch_says_how_long_it_cools_down(void **state) {
  spec_world *w = *state;
  w->policy.cooldown_ms = 10;
  spec_run(w, "k", spec_done());
  spec_advance_ms(4);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_true(w->record.cooldown_left_us == 6 * MS);
  spec_advance_ms(7);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_true(w->record.cooldown_left_us == 0);
}

static void fetch_of_any_size_outlives_what_comes_after(void **state) {
  spec_world *w = *state;
  static const size_t sizes[] = {5, 200, 230, 250, 256, 300, 5000, 600000};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    assert_int_equal(spec_reset(w, "k"), EG_OK);
    spec_run(w, "k", spec_done_with(spec_large(sizes[i])));
    assert_int_equal(spec_fetch(w, "k"), EG_OK);
    assert_int_equal(spec_reset(w, "k"), EG_OK);
    spec_run(w, "k", spec_failed("something else"));
    assert_int_equal(w->record.value.len, sizes[i]);
    eg_bytes expected = spec_large(sizes[i]);
    assert_int_equal(memcmp(w->record.value.data, expected.data, sizes[i]), 0);
  }
}

static void fetch_lends_the_key_of_its_caller(void **state) {
  spec_world *w = *state;
  char key[] = "key";
  spec_run(w, key, spec_done());
  assert_int_equal(spec_fetch(w, key), EG_OK);
  assert_ptr_equal(w->record.key.data, key);
  assert_true(spec_is(w->record.key, "key"));
}

static void fetch_of_bytes_that_are_no_record_is_corrupt(void **state) {
  spec_world *w = *state;
  static const eg_bytes bad[] = {
      {"\xc1\xc1\xc1\xc1", 4},             /* nothing */
      {"\x95", 1},                         /* cut within its head */
      {"\x95\x02\x00\x00\x00\x00", 6},     /* of another version */
      {"\x95\x01\x07\x00\x00\x00", 6},     /* no such status */
      {"\x95\x01\x02\x00\x00", 5},         /* cut behind its head */
      {"\x95\x01\x02\x00\x00\x00\x00", 7}, /* with more behind it */
      {"\x96\x01\x0a\xc1\x00\x00\x00", 7}, /* its value is none */
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    spec_spoil(w, "k", bad[i].data, bad[i].len);
    w->error.status = EG_OK;
    assert_int_equal(spec_fetch(w, "k"), EG_CORRUPT);
    assert_int_equal(w->error.status, EG_CORRUPT);
    assert_true(strlen(w->error.message) > 0);
    assert_false(eg_holds(w->guard, eg_str("k"), 0));
  }
}

static void holds_only_the_token_that_holds(void **state) {
  spec_world *w = *state;
  eg_bytes k = eg_str("k");
  assert_false(eg_holds(w->guard, k, 0));
  assert_false(eg_holds(w->guard, k, 1));
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  uint64_t token = w->grant.token;
  assert_true(eg_holds(w->guard, k, token));
  assert_false(eg_holds(w->guard, k, token - 1));
  assert_false(eg_holds(w->guard, k, token + 1));
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_false(eg_holds(w->guard, k, token));
}

/* ----------------------------------------------------------------- scan -- */

typedef struct tally {
  spec_world *w;
  int seen[100], others, locked, only_locked, values, stop_at, visits;
  bool uses_the_guard;
} tally;

static bool note(void *ctx, const eg_record *r) {
  tally *t = ctx;
  int n = -1;
  char key[32];
  snprintf(key, sizeof key, "%.*s", (int)r->key.len,
           (const char *)r->key.data);
  if (sscanf(key, "k%d", &n) == 1 && n >= 0 && n < 100)
    t->seen[n]++;
  else
    t->others++;
  t->locked += r->locked;
  t->only_locked += r->only_locked;
  t->values += r->kind == EG_KIND_VALUE && spec_is(r->value, "*");
  if (t->uses_the_guard)
    eg_reset(t->w->guard, r->key, NULL);
  return ++t->visits != t->stop_at;
}

static void fill(spec_world *w, int n) {
  for (int i = 0; i < n; i++) {
    char key[16];
    snprintf(key, sizeof key, "k%d", i);
    spec_run(w, key, spec_done());
  }
}

static tally scan_of(spec_world *w, const char *prefix, tally t) {
  t.w = w;
  assert_int_equal(eg_scan(w->guard, eg_str(prefix), note, &t, &w->error),
                   EG_OK);
  return t;
}

static void scan_visits_every_record_once(void **state) {
  spec_world *w = *state;
  fill(w, 100);
  assert_int_equal(spec_ask(w, "only locked", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_ask(w, "k7", EG_WANT_LOCK), EG_OK);
  tally t = scan_of(w, "", (tally){0});
  for (int i = 0; i < 100; i++)
    assert_int_equal(t.seen[i], 1);
  assert_int_equal(t.others, 0);
  assert_int_equal(t.locked, 1);
  assert_int_equal(t.values, 100);
}

static void scan_held_visits_what_is_only_locked(void **state) {
  spec_world *w = *state;
  tally t = {.w = w};
  fill(w, 10);
  assert_int_equal(spec_ask(w, "only locked", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_ask(w, "was locked", EG_WANT_LOCK), EG_OK);
  assert_int_equal(eg_release(w->guard, eg_str("was locked"), 0, &w->error),
                   EG_OK);
  assert_int_equal(spec_ask(w, "k7", EG_WANT_LOCK), EG_OK);
  assert_int_equal(eg_scan_held(w->guard, eg_str(""), note, &t, &w->error),
                   EG_OK);
  assert_int_equal(t.visits, 11);
  assert_int_equal(t.others, 1);
  assert_int_equal(t.only_locked, 1);
  assert_int_equal(t.locked, 2);
  t = (tally){.w = w};
  assert_int_equal(eg_scan_held(w->guard, eg_str("only"), note, &t, &w->error),
                   EG_OK);
  assert_int_equal(t.visits, 1);
}

static void scan_with_a_prefix_visits_those_keys(void **state) {
  spec_world *w = *state;
  fill(w, 100);
  tally t = scan_of(w, "k1", (tally){0});
  for (int i = 0; i < 100; i++)
    assert_int_equal(t.seen[i], i == 1 || i / 10 == 1);
  t = scan_of(w, "k42", (tally){0});
  assert_int_equal(t.visits, 1);
  t = scan_of(w, "nothing", (tally){0});
  assert_int_equal(t.visits, 0);
}

static void scan_when_told_stops(void **state) {
  spec_world *w = *state;
  fill(w, 20);
  tally t = scan_of(w, "", (tally){.stop_at = 3});
  assert_int_equal(t.visits, 3);
}

static void visitor_may_use_the_guard(void **state) {
  spec_world *w = *state;
  fill(w, 50);
  tally t = scan_of(w, "", (tally){.uses_the_guard = true});
  assert_int_equal(t.visits, 50);
  t = scan_of(w, "", (tally){0});
  assert_int_equal(t.visits, 50);
  assert_int_equal(t.values, 0);
}

typedef struct first {
  char key[32], error[32];
  eg_run status;
  bool crashed, corrupt;
  eg_kind kind;
  int n;
} first;

static bool note_first(void *ctx, const eg_record *r) {
  first *f = ctx;
  snprintf(f->key, sizeof f->key, "%.*s", (int)r->key.len,
           (const char *)r->key.data);
  snprintf(f->error, sizeof f->error, "%.*s", (int)r->error.len,
           r->error.len > 0 ? (const char *)r->error.data : "");
  f->status = r->status;
  f->crashed = r->crashed;
  f->corrupt = r->corrupt;
  f->kind = r->kind;
  f->n++;
  return true;
}

static void scan_sees_what_fetch_sees(void **state) {
  spec_world *w = *state;
  first f = {.n = 0};
  orphan(w, "died");
  w->policy.result_ttl_ms = 10;
  spec_run(w, "over", spec_done());
  spec_advance_ms(10);
  assert_int_equal(eg_scan(w->guard, eg_str("d"), note_first, &f, NULL),
                   EG_OK);
  assert_int_equal(f.n, 1);
  assert_int_equal(f.status, EG_RUN_FAILED);
  assert_true(f.crashed);
  assert_false(f.corrupt);
  assert_string_equal(f.error, "owner died");
  assert_int_equal(eg_scan(w->guard, eg_str("o"), note_first, &f, NULL),
                   EG_OK);
  assert_int_equal(f.status, EG_RUN_COMPLETED);
  assert_int_equal(f.kind, EG_KIND_NONE);
}

/* So that somebody can find it, and reset it. */
static void scan_shows_a_record_that_is_corrupt(void **state) {
  spec_world *w = *state;
  first f = {.n = 0};
  spec_spoil(w, "bad", "\xc1\xc1\xc1\xc1", 4);
  assert_int_equal(eg_scan(w->guard, eg_str(""), note_first, &f, NULL), EG_OK);
  assert_int_equal(f.n, 1);
  assert_string_equal(f.key, "bad");
  assert_true(f.corrupt);
}

static void census_counts_by_what_readers_see(void **state) {
  spec_world *w = *state;
  eg_census c;
  assert_int_equal(eg_take_census(w->guard, &c, NULL), EG_OK);
  assert_int_equal(c.total, 0);
  spec_run(w, "a", spec_done());
  spec_run(w, "b", spec_done());
  spec_run(w, "c", spec_failed("no"));
  assert_int_equal(spec_ask(w, "d", EG_WANT_RUN), EG_OK);
  assert_int_equal(spec_finish(w, "d", spec_late()), EG_TIMEOUT);
  spec_run(w, "e", spec_done());
  assert_int_equal(spec_reset(w, "e"), EG_OK);
  orphan(w, "f");
  assert_int_equal(spec_ask(w, "g", EG_WANT_RUN), EG_OK);
  assert_int_equal(spec_ask(w, "only locked", EG_WANT_LOCK), EG_OK);
  w->policy.record_ttl_ms = 10;
  spec_run(w, "h", spec_done());
  spec_advance_ms(10);
  assert_int_equal(eg_take_census(w->guard, &c, NULL), EG_OK);
  assert_int_equal(c.total, 7);
  assert_int_equal(c.held, 2);
  assert_int_equal(c.only_locked, 1);
  assert_int_equal(c.by_run[EG_RUN_IDLE], 1);
  assert_int_equal(c.by_run[EG_RUN_RUNNING], 1);
  assert_int_equal(c.by_run[EG_RUN_COMPLETED], 2);
  assert_int_equal(c.by_run[EG_RUN_TIMEDOUT], 1);
  assert_int_equal(c.by_run[EG_RUN_FAILED], 2);
}

/* Of five runs one each failed, was late, lost its owner, was reset. */
static void counts_and_times_are_of_all_runs(void **state) {
  spec_world *w = *state;
  eg_times times;
  eg_census c;
  w->policy.allow_rerun = true;
  spec_run(w, "k", spec_done());
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  spec_advance_ms(3);
  assert_int_equal(spec_finish(w, "k", spec_failed("no")), EG_OK);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  assert_int_equal(spec_finish(w, "k", spec_late()), EG_TIMEOUT);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  assert_int_equal(spec_reset(w, "k"), EG_OK);
  orphan(w, "k");
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.count, 5);
  assert_int_equal(w->record.failed, 1);
  assert_int_equal(w->record.timed_out, 1);
  assert_int_equal(w->record.lost, 2);
  eg_record_times(&w->record, &times);
  assert_int_equal(times.runs, 3);
  assert_int_equal(times.total_us, 3000);
  assert_int_equal(times.p50_us, 0);
  assert_true(times.p99_us > 2950 && times.p99_us < 3050);
  spec_run(w, "other", spec_done());
  assert_int_equal(eg_take_census(w->guard, &c, NULL), EG_OK);
  assert_int_equal(c.executions, 6);
  assert_int_equal(c.failed, 1);
  assert_int_equal(c.timed_out, 1);
  assert_int_equal(c.lost, 2);
  assert_int_equal(c.times.runs, 4);
  assert_int_equal(c.times.total_us, 3000);
}

/* A run that goes on has not been lost. */
static void run_that_goes_on_is_not_lost(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_int_equal(w->record.count, 1);
  assert_int_equal(w->record.lost, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      BOTH_WAYS(fetch_of_an_absent_key_is_notfound),
      BOTH_WAYS(fetch_of_a_key_that_is_only_locked),
      BOTH_WAYS(fetch_of_a_run_that_is_going_on),
      BOTH_WAYS(fetch_of_a_completed_run),
      BOTH_WAYS(fetch_of_failed_and_timed_out_runs),
      BOTH_WAYS(fetch_during_a_rerun_shows_what_was_before),
      BOTH_WAYS(fetch_of_a_run_whose_owner_died),
      BOTH_WAYS(fetch_of_a_result_that_is_over_has_none),
      BOTH_WAYS(fetch_says_how_long_it_cools_down),
      BOTH_WAYS(fetch_of_any_size_outlives_what_comes_after),
      BOTH_WAYS(fetch_lends_the_key_of_its_caller),
      BOTH_WAYS(fetch_of_bytes_that_are_no_record_is_corrupt),
      BOTH_WAYS(holds_only_the_token_that_holds),
      BOTH_WAYS(scan_visits_every_record_once),
      BOTH_WAYS(scan_held_visits_what_is_only_locked),
      BOTH_WAYS(scan_with_a_prefix_visits_those_keys),
      BOTH_WAYS(scan_when_told_stops),
      BOTH_WAYS(visitor_may_use_the_guard),
      BOTH_WAYS(scan_sees_what_fetch_sees),
      BOTH_WAYS(scan_shows_a_record_that_is_corrupt),
      BOTH_WAYS(census_counts_by_what_readers_see),
      BOTH_WAYS(counts_and_times_are_of_all_runs),
      BOTH_WAYS(run_that_goes_on_is_not_lost),
  };
  return cmocka_run_group_tests_name("read", tests, NULL, NULL);
}
