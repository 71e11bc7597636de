/* SPDX-License-Identifier: MIT
** The retry loop against a store that follows a script: what it asks, how
** often, and what it makes of the answers.
*/
#include "support.h"

#include "core/codec.h"

enum { TURNS = 8, FOREVER = 150 };

/* What the store answers: to a load ('L') or a swap ('S'); with OK to a load,
** and with CONFLICT, what stands there. */
typedef struct turn {
  char op;
  bool held;
  eg_status status;
  uint64_t version, token;
  eg_bytes bytes;
} turn;

typedef struct fake {
  egi_store base;
  turn turns[TURNS];
  int n, at, loads, swaps, applies, wrong;
  bool repeats; /* the last turn, for a long while */
  egi_swap last;
  unsigned char put[8192]; /* the bytes of the last PUT */
  int64_t now_us;
} fake;

typedef struct stage {
  fake store;
  eg_guard guard;
  eg_policy policy;
  eg_grant grant;
  eg_reply reply;
  eg_error error;
  unsigned char records[4][8192];
  int used;
} stage;

/* ------------------------------------------------------- the fake store -- */

static const turn *next_turn(fake *f, char op) {
  static const turn off_script = {'?', false, EG_INTERNAL, 0, 0, {NULL, 0}};
  if (f->repeats && f->at >= f->n && f->at < FOREVER)
    f->at++;
  else if (f->at >= f->n || f->turns[f->at].op != op)
    f->wrong++;
  else
    return &f->turns[f->at++];
  return f->wrong > 0 || f->at >= FOREVER ? &off_script : &f->turns[f->n - 1];
}

static void show(const fake *f, const turn *t, egi_seen *seen) {
  static unsigned char holder[16] = "0123456789abcde";
  egi_seen_init(seen);
  seen->version = t->version;
  seen->bytes = t->bytes;
  if (t->held)
    seen->holder = (eg_bytes){holder, sizeof holder};
  seen->life_left_us = -1;
  seen->at = (egi_sight){.token = t->token,
                         .held = t->held,
                         .clocked = true,
                         .now_us = f->now_us,
                         .left_us = -1,
                         .fresh_left_us = -1};
}

static eg_status answer(fake *f, const turn *t, egi_seen *seen,
                        eg_error *error) {
  eg_env env = {0};
  egi_seen shown;
  egi_env_complete(&env);
  show(f, t, &shown);
  if (EG_IS_FAILURE(t->status))
    return egi_fail(error, t->status, "as the script says");
  return egi_seen_keep(seen, &shown, &env) ? t->status : EG_NOMEM;
}

static eg_status fake_load(egi_store *store, eg_bytes key, int64_t deadline_us,
                           egi_seen *seen, eg_error *error) {
  fake *f = (fake *)store;
  (void)key;
  (void)deadline_us;
  f->loads++;
  return answer(f, next_turn(f, 'L'), seen, error);
}

static eg_status fake_swap(egi_store *store, eg_bytes key,
                           const egi_swap *swap, int64_t deadline_us,
                           egi_seen *seen, eg_error *error) {
  fake *f = (fake *)store;
  (void)key;
  (void)deadline_us;
  f->swaps++;
  f->last = *swap;
  if (swap->write == EGI_PUT && swap->bytes.len <= sizeof f->put)
    memcpy(f->put, swap->bytes.data, swap->bytes.len);
  return answer(f, next_turn(f, 'S'), seen, error);
}

static eg_status fake_apply(egi_store *store, eg_bytes key,
                            egi_decide_fn decide, void *ctx, bool writes,
                            int64_t now_us, uint64_t *token, eg_error *error) {
  fake *f = (fake *)store;
  egi_seen seen;
  egi_swap swap = {0};
  (void)key;
  (void)writes;
  (void)now_us;
  f->applies++;
  const turn *t = &f->turns[0];
  if (t->status != EG_OK)
    return egi_fail(error, t->status, "as the script says");
  show(f, t, &seen);
  *token = t->token;
  egi_verdict verdict = decide(ctx, &seen, &swap);
  f->last = swap;
  if (verdict == EGI_SWAP && swap.write == EGI_PUT)
    memcpy(f->put, swap.bytes.data, swap.bytes.len);
  return verdict == EGI_GROW ? EG_CHANGED : EG_OK;
}

static void fake_close(egi_store *store) { (void)store; }

static const egi_store_ops fake_ops = {.abi = EGI_STORE_ABI,
                                       .scheme = "fake",
                                       .close = fake_close,
                                       .load = fake_load,
                                       .swap = fake_swap,
                                       .apply = fake_apply};

/* ------------------------------------------------------------ the stage -- */

static int begin(void **state) {
  static stage s;
  memset(&s, 0, sizeof s);
  eg_test_clock_reset(false);
  s.store.base.ops = &fake_ops;
  s.store.now_us = 7777777;
  s.guard.ops = &fake_ops;
  s.guard.store = &s.store.base;
  s.guard.env.clock = &spec_clock;
  egi_env_complete(&s.guard.env);
  egi_counting_open(&s.guard);
  egi_owner_enlist(&s.guard, "fake");
  s.policy = (eg_policy)EG_POLICY_DEFAULT;
  eg_reply_init(&s.reply);
  *state = &s;
  return 0;
}

static int end(void **state) {
  stage *s = *state;
  eg_reply_free(&s->reply);
  egi_counting_close(&s->guard);
  egi_owner_delist(&s->guard);
  return 0;
}

static void script(stage *s, const turn *turns, int n) {
  memcpy(s->store.turns, turns, (size_t)n * sizeof *turns);
  s->store.n = n;
  s->store.at = s->store.loads = s->store.swaps = s->store.applies = 0;
}

#define SCRIPT(s, ...)                                                        \
  script(s, (const turn[]){__VA_ARGS__},                                      \
         (int)(sizeof(const turn[]){__VA_ARGS__} / sizeof(turn)))

/* All of the script was asked for, and nothing else. */
static void assert_trips(const stage *s, int loads, int swaps) {
  assert_int_equal(s->store.wrong, 0);
  assert_int_equal(s->store.at, s->store.n);
  assert_int_equal(s->store.loads, loads);
  assert_int_equal(s->store.swaps, swaps);
}

static eg_bytes record_of(stage *s, eg_run status, eg_bytes value,
                          const char *error) {
  egi_record r = {.head = {.status = status}, .count = 1, .start_us = 5};
  if (value.len > 0) {
    r.head.kind = EG_KIND_VALUE;
    r.value = value;
  }
  r.error = eg_str(error);
  unsigned char *to = s->records[s->used++ % 4];
  return (eg_bytes){to, egi_encode(&r, to, sizeof s->records[0])};
}

static eg_bytes plain(stage *s, eg_run status) {
  return record_of(s, status, eg_str(""), "");
}

static eg_status ask(stage *s, eg_want want, int64_t wait_ms) {
  return eg_acquire(&s->guard, eg_str("k"), want, &s->policy, wait_ms,
                    &s->grant, &s->reply);
}

static eg_status commit(stage *s, eg_outcome outcome) {
  s->grant = (eg_grant){.token = 9, .deadline_us = EG_FOREVER};
  return eg_commit(&s->guard, eg_str("k"), &s->grant, &outcome, &s->policy,
                   &s->error);
}

/* ---------------------------------------------------------------- trips -- */

static void right_guess_takes_one_trip(void **state) {
  stage *s = *state;
  SCRIPT(s, {'S', true, EG_OK, 1, 9, {NULL, 0}});
  assert_int_equal(ask(s, EG_WANT_RUN, 0), EG_OK);
  assert_trips(s, 0, 1);
  assert_int_equal(s->store.last.expect, 0);
  assert_int_equal(s->store.last.hold, EGI_TAKE);
  assert_true(s->grant.token == 9 && s->reply.token == 9);
  SCRIPT(s, {'S', true, EG_OK, 1, 10, {NULL, 0}});
  assert_int_equal(ask(s, EG_WANT_LOCK, 0), EG_OK);
  assert_trips(s, 0, 1);
  assert_true(s->grant.token == 10);
}

static void wrong_guess_takes_two_trips(void **state) {
  stage *s = *state;
  SCRIPT(s, {'S', false, EG_CONFLICT, 5, 3, plain(s, EG_RUN_FAILED)},
         {'S', true, EG_OK, 6, 9, {NULL, 0}});
  assert_int_equal(ask(s, EG_WANT_RUN, 0), EG_OK);
  assert_trips(s, 0, 2);
  assert_int_equal(s->store.last.expect, 5);
  egi_record r;
  assert_true(
      egi_decode((eg_bytes){s->store.put, s->store.last.bytes.len}, &r));
  assert_int_equal(r.head.status, EG_RUN_RUNNING);
  assert_int_equal(r.count, 2);
}

static void conflict_brings_what_answers(void **state) {
  stage *s = *state;
  const struct {
    turn there;
    eg_want want;
    eg_status status;
  } rows[] = {
      {{'S', false, EG_CONFLICT, 5, 3,
        record_of(s, EG_RUN_COMPLETED, eg_str("*"), "")},
       EG_WANT_RUN,
       EG_CACHED},
      {{'S', false, EG_CONFLICT, 5, 3, plain(s, EG_RUN_COMPLETED)},
       EG_WANT_RUN,
       EG_COMPLETED},
      {{'S', true, EG_CONFLICT, 5, 3, plain(s, EG_RUN_RUNNING)},
       EG_WANT_RUN,
       EG_RUNNING},
      {{'S', true, EG_CONFLICT, 5, 3, plain(s, EG_RUN_IDLE)},
       EG_WANT_RUN,
       EG_LOCKED},
      {{'S', true, EG_CONFLICT, 5, 3, {NULL, 0}}, EG_WANT_LOCK, EG_LOCKED},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    script(s, &rows[i].there, 1);
    assert_int_equal(ask(s, rows[i].want, 0), rows[i].status);
    assert_trips(s, 0, 1);
    assert_true(s->reply.token == 3);
    if (rows[i].status == EG_CACHED)
      assert_true(spec_is(s->reply.value, "*"));
  }
}

static void conflict_after_conflict_is_tried_again(void **state) {
  stage *s = *state;
  SCRIPT(s, {'S', false, EG_CONFLICT, 5, 3, plain(s, EG_RUN_FAILED)},
         {'S', false, EG_CONFLICT, 7, 4, plain(s, EG_RUN_TIMEDOUT)},
         {'S', false, EG_CONFLICT, 0, 0, {NULL, 0}},
         {'S', true, EG_OK, 8, 9, {NULL, 0}});
  assert_int_equal(ask(s, EG_WANT_RUN, 0), EG_OK);
  assert_trips(s, 0, 4);
  assert_int_equal(s->store.last.expect, 0);
}

/* Two at most; one where the record is guessed that was acquired. */
static void commit_takes_two_trips_at_most(void **state) {
  stage *s = *state;
  SCRIPT(s, {'L', true, EG_OK, 5, 9, plain(s, EG_RUN_RUNNING)},
         {'S', false, EG_OK, 6, 9, {NULL, 0}});
  assert_int_equal(commit(s, spec_done()), EG_OK);
  assert_true(s->store.loads + s->store.swaps <= 2);
  assert_int_equal(s->store.wrong, 0);
  assert_int_equal(s->store.last.expect, 5);
  assert_true(s->store.last.token == 9 && s->store.last.wake);
  assert_int_equal(s->store.last.hold, EGI_DROP);
}

static void commit_whose_grant_still_holds_is_tried_again(void **state) {
  stage *s = *state;
  SCRIPT(s, {'L', true, EG_OK, 5, 9, plain(s, EG_RUN_RUNNING)},
         {'S', true, EG_CONFLICT, 6, 9, plain(s, EG_RUN_RUNNING)},
         {'S', false, EG_OK, 7, 9, {NULL, 0}});
  assert_int_equal(commit(s, spec_done()), EG_OK);
  assert_trips(s, 1, 2);
  assert_int_equal(s->store.last.expect, 6);
}

static void commit_whose_grant_is_gone_is_lost(void **state) {
  stage *s = *state;
  const turn gone[] = {
      {'S', true, EG_CONFLICT, 6, 10, plain(s, EG_RUN_RUNNING)},
      {'S', false, EG_CONFLICT, 6, 9, plain(s, EG_RUN_RUNNING)},
      {'S', false, EG_CONFLICT, 6, 10, plain(s, EG_RUN_IDLE)},
      {'S', false, EG_CONFLICT, 0, 0, {NULL, 0}}};
  for (int i = 0; i < 4; i++) {
    SCRIPT(s, {'L', true, EG_OK, 5, 9, plain(s, EG_RUN_RUNNING)}, gone[i]);
    assert_int_equal(commit(s, spec_done()), EG_LOST);
    assert_trips(s, 1, 1);
  }
}

static void answers_without_a_swap_take_one_load(void **state) {
  stage *s = *state;
  eg_bytes k = eg_str("k");
  eg_record record;
  const turn absent = {'L', false, EG_OK, 0, 0, {NULL, 0}};
  script(s, &absent, 1);
  assert_int_equal(eg_release(&s->guard, k, 0, NULL), EG_LOST);
  assert_trips(s, 1, 0);
  script(s, &absent, 1);
  assert_int_equal(eg_reset(&s->guard, k, NULL), EG_OK);
  assert_trips(s, 1, 0);
  script(s, &absent, 1);
  assert_int_equal(eg_clear_result(&s->guard, k, NULL), EG_NOTFOUND);
  assert_trips(s, 1, 0);
  script(s, &absent, 1);
  assert_int_equal(eg_fetch(&s->guard, k, &record, NULL), EG_NOTFOUND);
  eg_record_free(&record);
  assert_trips(s, 1, 0);
}

/* ------------------------------------------------------------- failures -- */

static void acquire_says_what_the_store_says(void **state) {
  stage *s = *state;
  static const eg_status failures[] = {EG_UNAVAILABLE, EG_NOMEM, EG_DENIED};
  for (int i = 0; i < 3; i++) {
    SCRIPT(s, {'S', false, failures[i], 0, 0, {NULL, 0}});
    assert_int_equal(ask(s, EG_WANT_RUN, 1000), failures[i]);
    assert_int_equal(s->reply.failure.status, failures[i]);
    assert_string_equal(s->reply.failure.message, "as the script says");
    assert_trips(s, 0, 1);
  }
}

/* Where nothing is said, the loop looks; what it cannot see stays in doubt. */
static void acquire_in_doubt_looks(void **state) {
  stage *s = *state;
  const turn perhaps = {'S', false, EG_INDETERMINATE, 0, 0, {NULL, 0}};
  SCRIPT(s, perhaps, {'L', false, EG_UNAVAILABLE, 0, 0, {NULL, 0}});
  assert_int_equal(ask(s, EG_WANT_RUN, 1000), EG_INDETERMINATE);
  assert_int_equal(s->reply.failure.status, EG_INDETERMINATE);
  assert_trips(s, 1, 1);
  SCRIPT(s, perhaps, {'L', false, EG_OK, 0, 0, {NULL, 0}},
         {'S', false, EG_OK, 1, 1, {NULL, 0}});
  assert_int_equal(ask(s, EG_WANT_RUN, 1000), EG_OK);
  assert_trips(s, 1, 2);
}

static void acquire_that_fails_after_a_conflict(void **state) {
  stage *s = *state;
  SCRIPT(s, {'S', false, EG_CONFLICT, 5, 3, plain(s, EG_RUN_FAILED)},
         {'S', false, EG_UNAVAILABLE, 0, 0, {NULL, 0}});
  assert_int_equal(ask(s, EG_WANT_RUN, 1000), EG_UNAVAILABLE);
  assert_trips(s, 0, 2);
  SCRIPT(s, {'S', false, EG_CONFLICT, 5, 3, {"\xc1\xc1\xc1", 3}});
  assert_int_equal(ask(s, EG_WANT_RUN, 1000), EG_CORRUPT);
  assert_trips(s, 0, 1);
}

static void commit_when_the_store_is_away_may_be_repeated(void **state) {
  stage *s = *state;
  const turn there = {'L', true, EG_OK, 5, 9, plain(s, EG_RUN_RUNNING)};
  SCRIPT(s, {'L', false, EG_UNAVAILABLE, 0, 0, {NULL, 0}});
  assert_int_equal(commit(s, spec_done()), EG_UNCOMMITTED);
  SCRIPT(s, there, {'S', false, EG_UNAVAILABLE, 0, 0, {NULL, 0}});
  assert_int_equal(commit(s, spec_done()), EG_UNCOMMITTED);
  SCRIPT(s, there, {'S', false, EG_NOMEM, 0, 0, {NULL, 0}});
  assert_int_equal(commit(s, spec_done()), EG_NOMEM);
  const turn perhaps = {'S', false, EG_INDETERMINATE, 0, 0, {NULL, 0}};
  SCRIPT(s, there, perhaps, {'L', false, EG_UNAVAILABLE, 0, 0, {NULL, 0}});
  assert_int_equal(commit(s, spec_done()), EG_UNCOMMITTED);
  SCRIPT(s, there, {'S', false, EG_OK, 6, 9, {NULL, 0}});
  assert_int_equal(commit(s, spec_done()), EG_OK);
}

/* Whoever was granted the key since hides what became of it, but for bytes
** that can only be its own. */
static void commit_in_doubt_of_a_key_granted_anew(void **state) {
  stage *s = *state;
  const turn there = {'L', true, EG_OK, 5, 9, plain(s, EG_RUN_RUNNING)};
  const turn perhaps = {'S', false, EG_INDETERMINATE, 0, 0, {NULL, 0}};
  const turn anew = {'L', true, EG_OK, 7, 10, plain(s, EG_RUN_RUNNING)};
  SCRIPT(s, there, perhaps, anew);
  assert_int_equal(commit(s, spec_done()), EG_INDETERMINATE);
  assert_int_equal(s->error.status, EG_INDETERMINATE);
  turn locked = {'L', true, EG_OK, 7, 10, {NULL, 0}};
  locked.bytes = (eg_bytes){s->records[3], s->store.last.bytes.len};
  memcpy(s->records[3], s->store.put, locked.bytes.len);
  SCRIPT(s, locked);
  assert_int_equal(commit(s, spec_done()), EG_OK);
  s->records[3][locked.bytes.len - 1] ^= 1;
  SCRIPT(s, locked);
  assert_int_equal(commit(s, spec_done()), EG_INDETERMINATE);
}

static void other_verbs_say_what_the_store_says(void **state) {
  stage *s = *state;
  eg_bytes k = eg_str("k");
  const turn away = {'L', false, EG_UNAVAILABLE, 0, 0, {NULL, 0}};
  eg_record record;
  script(s, &away, 1);
  assert_int_equal(eg_release(&s->guard, k, 0, &s->error), EG_UNAVAILABLE);
  assert_int_equal(s->error.status, EG_UNAVAILABLE);
  script(s, &away, 1);
  assert_int_equal(eg_reset(&s->guard, k, NULL), EG_UNAVAILABLE);
  script(s, &away, 1);
  assert_int_equal(eg_clear_result(&s->guard, k, NULL), EG_UNAVAILABLE);
  script(s, &away, 1);
  assert_int_equal(eg_fetch(&s->guard, k, &record, NULL), EG_UNAVAILABLE);
  eg_record_free(&record);
  script(s, &away, 1);
  assert_false(eg_holds(&s->guard, k, 9));
  SCRIPT(s, {'L', true, EG_OK, 5, 9, plain(s, EG_RUN_RUNNING)},
         {'S', false, EG_INDETERMINATE, 0, 0, {NULL, 0}});
  assert_int_equal(eg_reset(&s->guard, k, NULL), EG_INDETERMINATE);
}

/* ----------------------------------------------------------------- grow -- */

static void grow_in_the_loop_asks_nobody_again(void **state) {
  stage *s = *state;
  eg_record record;
  eg_bytes large = record_of(s, EG_RUN_COMPLETED, spec_large(5000), "");
  SCRIPT(s, {'S', false, EG_CONFLICT, 5, 3, large});
  assert_int_equal(ask(s, EG_WANT_RUN, 0), EG_CACHED);
  assert_int_equal(s->reply.value.len, 5000);
  assert_trips(s, 0, 1);
  SCRIPT(s, {'L', false, EG_OK, 5, 3, large});
  assert_int_equal(eg_fetch(&s->guard, eg_str("k"), &record, NULL), EG_OK);
  assert_int_equal(record.value.len, 5000);
  eg_record_free(&record);
  assert_trips(s, 1, 0);
  SCRIPT(s, {'L', true, EG_OK, 5, 9, plain(s, EG_RUN_RUNNING)},
         {'S', false, EG_OK, 6, 9, {NULL, 0}});
  assert_int_equal(commit(s, spec_done_with(spec_large(5000))), EG_OK);
  assert_true(s->store.last.bytes.len > 5000);
  assert_trips(s, 1, 1);
}

static void grow_by_apply_asks_once_more(void **state) {
  stage *s = *state;
  eg_record record;
  s->guard.by_apply = true;
  s->guard.store->inside = true;
  eg_bytes large = record_of(s, EG_RUN_COMPLETED, spec_large(5000), "");
  SCRIPT(s, {'A', false, EG_OK, 5, 3, large});
  assert_int_equal(ask(s, EG_WANT_RUN, 0), EG_CACHED);
  assert_int_equal(s->reply.value.len, 5000);
  assert_int_equal(s->store.applies, 2);
  assert_int_equal(ask(s, EG_WANT_RUN, 0), EG_CACHED);
  assert_int_equal(s->store.applies, 3); /* the reply's memory is used again */
  assert_int_equal(eg_fetch(&s->guard, eg_str("k"), &record, NULL), EG_OK);
  assert_int_equal(record.value.len, 5000);
  eg_record_free(&record);
  assert_int_equal(s->store.applies, 5);
  SCRIPT(s, {'A', true, EG_OK, 5, 9, plain(s, EG_RUN_RUNNING)});
  assert_int_equal(commit(s, spec_done_with(spec_large(5000))), EG_OK);
  assert_int_equal(s->store.applies, 2);
  assert_int_equal(s->store.loads + s->store.swaps, 0);
}

static void apply_that_fails_is_not_tried_again(void **state) {
  stage *s = *state;
  s->guard.by_apply = true;
  SCRIPT(s, {'A', false, EG_NOMEM, 0, 0, {NULL, 0}});
  assert_int_equal(ask(s, EG_WANT_RUN, 1000), EG_NOMEM);
  assert_int_equal(s->reply.failure.status, EG_NOMEM);
  assert_int_equal(s->store.applies, 1);
}

/* ----------------------------------------------------------------- time -- */

/* grant.start_us is steady time here; a store's clock is its own. */
static void start_is_of_this_clock_and_not_of_the_store_s(void **state) {
  stage *s = *state;
  SCRIPT(s, {'S', true, EG_OK, 1, 9, {NULL, 0}});
  assert_int_equal(ask(s, EG_WANT_RUN, 0), EG_OK);
  assert_true(s->grant.start_us == spec_clock.now_us(NULL));
}

/* A store without watches is asked again now and then, by the guard's clock:
** some 50 times a second. */
static void wait_without_watches_polls_by_the_guard_s_clock(void **state) {
  stage *s = *state;
  eg_test_clock_reset(true);
  SCRIPT(s, {'S', true, EG_CONFLICT, 5, 3, plain(s, EG_RUN_IDLE)});
  s->store.repeats = true;
  int64_t before = spec_clock.now_us(NULL);
  assert_int_equal(ask(s, EG_WANT_LOCK, 400), EG_LOCKED);
  int64_t waited = spec_clock.now_us(NULL) - before;
  eg_test_clock_reset(false);
  assert_true(waited == 400 * MS);
  assert_in_range(s->store.swaps, 2, 100);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(right_guess_takes_one_trip),
      TEST(wrong_guess_takes_two_trips),
      TEST(conflict_brings_what_answers),
      TEST(conflict_after_conflict_is_tried_again),
      TEST(commit_takes_two_trips_at_most),
      TEST(commit_whose_grant_still_holds_is_tried_again),
      TEST(commit_whose_grant_is_gone_is_lost),
      TEST(answers_without_a_swap_take_one_load),
      TEST(acquire_says_what_the_store_says),
      TEST(acquire_in_doubt_looks),
      TEST(acquire_that_fails_after_a_conflict),
      TEST(commit_when_the_store_is_away_may_be_repeated),
      TEST(commit_in_doubt_of_a_key_granted_anew),
      TEST(other_verbs_say_what_the_store_says),
      TEST(grow_in_the_loop_asks_nobody_again),
      TEST(grow_by_apply_asks_once_more),
      TEST(apply_that_fails_is_not_tried_again),
      TEST(start_is_of_this_clock_and_not_of_the_store_s),
      TEST(wait_without_watches_polls_by_the_guard_s_clock),
  };
  return cmocka_run_group_tests_name("step", tests, NULL, NULL);
}
