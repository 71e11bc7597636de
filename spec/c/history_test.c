/* SPDX-License-Identifier: MIT
** The runs that ended through a guard.
*/
#include "support.h"

#include <stdio.h>

enum { SIZE = 4, SEEN = 64 };

typedef struct past {
  char key[32], error[256];
  uint64_t token;
  eg_status status;
  int64_t start_us, duration_us;
} past;

typedef struct seen {
  past items[SEEN];
  size_t n, stop_at; /* stop_at: 0 is never */
  eg_guard *guard;   /* used by the visitor, if not NULL */
} seen;

static bool note(void *ctx, const eg_past *p) {
  seen *s = ctx;
  if (s->n == SEEN)
    return false;
  past *to = &s->items[s->n++];
  snprintf(to->key, sizeof to->key, "%.*s", (int)p->key.len,
           (const char *)p->key.data);
  snprintf(to->error, sizeof to->error, "%.*s", (int)p->error.len,
           p->error.len > 0 ? (const char *)p->error.data : "");
  to->token = p->token;
  to->status = p->status;
  to->start_us = p->start_us;
  to->duration_us = p->duration_us;
  if (s->guard != NULL)
    eg_history(s->guard, eg_str(""), 1, note, &(seen){.n = SEEN}, NULL);
  return s->n != s->stop_at;
}

static int begin(void **state) {
  int rc = spec_begin(state);
  spec_world *w = *state;
  if (rc != 0)
    return rc;
  eg_close(w->guard);
  eg_options options = {.name = w->name, .history = SIZE, .env = w->env};
  return spec_open(w, &options, &w->guard, &w->error) == EG_OK ? 0 : -1;
}

static void history_of(spec_world *w, const char *key, size_t n, seen *s) {
  assert_int_equal(eg_history(w->guard, eg_str(key), n, note, s, &w->error),
                   EG_OK);
}

static void history_when_none_is_kept_is_unsupported(void **state) {
  spec_world *w = *state;
  seen s = {.n = 0};
  spec_run(w, "k", spec_done());
  assert_int_equal(eg_history(w->guard, eg_str(""), 9, note, &s, &w->error),
                   EG_UNSUPPORTED);
  assert_int_equal(w->error.status, EG_UNSUPPORTED);
  assert_non_null(strstr(w->error.message, "history"));
  assert_int_equal(eg_history(w->guard, eg_str(""), 9, note, &s, NULL),
                   EG_UNSUPPORTED);
  assert_int_equal(s.n, 0);
}

static void history_of_nothing_is_empty(void **state) {
  spec_world *w = *state;
  seen s = {.n = 0};
  history_of(w, "", 9, &s);
  history_of(w, "k", 9, &s);
  assert_int_equal(s.n, 0);
}

static void history_has_what_a_run_was(void **state) {
  spec_world *w = *state;
  seen s = {.n = 0};
  int64_t now = spec_clock.now_us(NULL);
  int64_t wall = now + spec_clock.offset_us(NULL, now);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  spec_advance_ms(7);
  assert_int_equal(spec_finish(w, "k", spec_failed("no luck")), EG_OK);
  history_of(w, "k", 9, &s);
  assert_int_equal(s.n, 1);
  assert_string_equal(s.items[0].key, "k");
  assert_string_equal(s.items[0].error, "no luck");
  assert_true(s.items[0].token == w->grant.token);
  assert_int_equal(s.items[0].status, EG_FAILED);
  assert_true(s.items[0].start_us == wall);
  assert_true(s.items[0].duration_us == 7 * MS);
}

static void history_has_every_kind_of_end_newest_first(void **state) {
  spec_world *w = *state;
  seen s = {.n = 0};
  spec_run(w, "ok", spec_done());
  spec_run(w, "failed", spec_failed("x"));
  assert_int_equal(spec_ask(w, "late", EG_WANT_RUN), EG_OK);
  w->grant.deadline_us = w->grant.start_us;
  assert_int_equal(spec_finish(w, "late", spec_done()), EG_TIMEOUT);
  history_of(w, "", 9, &s);
  assert_int_equal(s.n, 3);
  assert_int_equal(s.items[0].status, EG_TIMEOUT);
  assert_string_equal(s.items[0].key, "late");
  assert_int_equal(s.items[1].status, EG_FAILED);
  assert_int_equal(s.items[2].status, EG_OK);
  assert_string_equal(s.items[2].error, "");
}

static void history_has_neither_locks_nor_what_was_lost(void **state) {
  spec_world *w = *state;
  seen s = {.n = 0};
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  assert_int_equal(spec_reset(w, "k"), EG_OK);
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_LOST);
  history_of(w, "", 9, &s);
  assert_int_equal(s.n, 0);
}

static void run_many(spec_world *w, int n) {
  for (int i = 0; i < n; i++) {
    char key[16];
    snprintf(key, sizeof key, "k%d", i);
    spec_run(w, key, spec_done());
  }
}

static void ring_when_full_forgets_the_oldest(void **state) {
  spec_world *w = *state;
  seen s = {.n = 0};
  run_many(w, SIZE + 3);
  history_of(w, "", 99, &s);
  assert_int_equal(s.n, SIZE);
  for (int i = 0; i < SIZE; i++) {
    char key[16];
    snprintf(key, sizeof key, "k%d", SIZE + 2 - i);
    assert_string_equal(s.items[i].key, key);
  }
}

static void ring_that_is_just_full_has_all(void **state) {
  spec_world *w = *state;
  seen s = {.n = 0};
  run_many(w, SIZE);
  history_of(w, "", 99, &s);
  assert_int_equal(s.n, SIZE);
  assert_string_equal(s.items[SIZE - 1].key, "k0");
}

static void history_by_key_has_only_that_key(void **state) {
  spec_world *w = *state;
  seen s = {.n = 0};
  spec_run(w, "a", spec_failed("1"));
  spec_run(w, "ab", spec_failed("2"));
  spec_run(w, "a", spec_failed("3"));
  history_of(w, "a", 99, &s);
  assert_int_equal(s.n, 2);
  assert_string_equal(s.items[0].error, "3");
  assert_string_equal(s.items[1].error, "1");
  s.n = 0;
  history_of(w, "b", 99, &s);
  assert_int_equal(s.n, 0);
}

static void history_shows_at_most_n(void **state) {
  spec_world *w = *state;
  seen s = {.n = 0};
  run_many(w, 3);
  history_of(w, "", 0, &s);
  assert_int_equal(s.n, 0);
  history_of(w, "", 2, &s);
  assert_int_equal(s.n, 2);
  assert_string_equal(s.items[1].key, "k1");
}

static void history_when_told_stops_early(void **state) {
  spec_world *w = *state;
  seen s = {.stop_at = 2};
  run_many(w, 4);
  history_of(w, "", 99, &s);
  assert_int_equal(s.n, 2);
}

static void visitor_may_use_the_guard(void **state) {
  spec_world *w = *state;
  seen s = {.guard = w->guard};
  run_many(w, 4);
  history_of(w, "", 99, &s);
  assert_int_equal(s.n, 4);
}

static void long_error_is_cut_and_long_key_is_whole(void **state) {
  spec_world *w = *state;
  static char text[4096], key[EG_KEY_MAX + 1];
  memset(text, 'e', sizeof text - 1);
  memset(key, 'k', EG_KEY_MAX);
  seen s = {.n = 0};
  spec_run(w, key, spec_failed(text));
  history_of(w, key, 99, &s);
  assert_int_equal(s.n, 1);
  assert_true(strlen(s.items[0].error) > 20);
  assert_int_equal(strncmp(s.items[0].error, text, strlen(s.items[0].error)),
                   0);
}

static void history_is_what_ended_through_this_guard(void **state) {
  spec_world *w = *state;
  seen s = {.n = 0};
  eg_guard *mine = w->guard;
  eg_options options = {.name = w->name, .history = SIZE, .env = w->env};
  eg_guard *other;
  assert_int_equal(spec_open(w, &options, &other, &w->error), EG_OK);
  w->guard = other;
  spec_run(w, "theirs", spec_done());
  eg_reply_free(&w->reply);
  w->guard = mine;
  eg_close(other);
  history_of(w, "", 99, &s);
  assert_int_equal(s.n, 0);
}

typedef struct writer {
  eg_guard *guard;
  int number, rounds;
  int wrong;
  spec_thread thread;
} writer;

static void write_and_read(void *arg) {
  writer *me = arg;
  char key[16];
  eg_reply reply;
  eg_reply_init(&reply);
  snprintf(key, sizeof key, "k%d", me->number);
  const eg_policy policy = EG_POLICY_DEFAULT;
  for (int i = 0; i < me->rounds; i++) {
    eg_grant grant;
    eg_outcome outcome = spec_failed(key);
    seen s = {.n = 0};
    if (eg_acquire(me->guard, eg_str(key), EG_WANT_RUN, &policy, 0, &grant,
                   &reply) != EG_OK ||
        eg_commit(me->guard, eg_str(key), &grant, &outcome, &policy, NULL) !=
            EG_OK)
      me->wrong++;
    eg_history(me->guard, eg_str(""), SIZE, note, &s, NULL);
    for (size_t k = 0; k < s.n; k++)
      me->wrong += strcmp(s.items[k].key, s.items[k].error) != 0;
  }
  eg_reply_free(&reply);
}

static void threads_see_whole_entries_only(void **state) {
  spec_world *w = *state;
  writer writers[4];
  for (int i = 0; i < 4; i++) {
    writers[i] = (writer){w->guard, i, spec_scaled(2000), 0, {0}};
    spec_start(&writers[i].thread, write_and_read, &writers[i]);
  }
  int wrong = 0;
  for (int i = 0; i < 4; i++) {
    spec_join(&writers[i].thread);
    wrong += writers[i].wrong;
  }
  assert_int_equal(wrong, 0);
}

#define TEST(name)                                                            \
  { #name, name, begin, spec_end, spec_apply }

int main(void) {
  const struct CMUnitTest tests[] = {
      BOTH_WAYS(history_when_none_is_kept_is_unsupported),
      TEST(history_of_nothing_is_empty),
      TEST(history_has_what_a_run_was),
      {"history_has_what_a_run_was by loop", history_has_what_a_run_was, begin,
       spec_end, spec_loop},
      TEST(history_has_every_kind_of_end_newest_first),
      TEST(history_has_neither_locks_nor_what_was_lost),
      TEST(ring_when_full_forgets_the_oldest),
      TEST(ring_that_is_just_full_has_all),
      TEST(history_by_key_has_only_that_key),
      TEST(history_shows_at_most_n),
      TEST(history_when_told_stops_early),
      TEST(visitor_may_use_the_guard),
      TEST(long_error_is_cut_and_long_key_is_whole),
      TEST(history_is_what_ended_through_this_guard),
      TEST(threads_see_whole_entries_only),
  };
  return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
