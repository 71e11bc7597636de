/* SPDX-License-Identifier: MIT
** Metrics: what is counted, of which keys, and how it is written.
*/
#include "support.h"

#include "guard/metrics.h"

#include <stdio.h>
#include <stdlib.h>

/* ------------------------------------------------------------- a text -- */

typedef struct text {
  char *data;
  size_t n, pieces, most; /* of them; 0: all */
} text;

static bool collect(void *ctx, const void *data, size_t n) {
  text *t = ctx;
  assert_true(n > 0 && n <= 4096);
  if (t->most > 0 && t->pieces == t->most)
    return false;
  t->data = realloc(t->data, t->n + n + 1);
  memcpy(t->data + t->n, data, n);
  t->n += n;
  t->data[t->n] = '\0';
  t->pieces++;
  return true;
}

static char *metrics_of(eg_guard *guard, size_t top) {
  text t = {0};
  eg_error error;
  assert_int_equal(
      eg_write_metrics(guard, top, EG_METRICS_TEXT, collect, &t, &error),
      EG_OK);
  return t.data;
}

/* Is that a line of the text? */
static bool has(const char *all, const char *line) {
  size_t n = strlen(line);
  for (const char *at = all; (at = strstr(at, line)) != NULL; at++)
    if ((at == all || at[-1] == '\n') && at[n] == '\n')
      return true;
  return false;
}

static void assert_has(const char *all, const char *line) {
  if (!has(all, line))
    fail_msg("missing: %s\nin:\n%s", line, all);
}

static int count_of(const char *all, const char *part) {
  int n = 0;
  for (const char *at = all; (at = strstr(at, part)) != NULL; at++)
    n++;
  return n;
}

/* The value of the sample that begins so. */
static long long value_of(const char *all, const char *sample) {
  const char *at = strstr(all, sample);
  if (at == NULL)
    fail_msg("missing: %s\nin:\n%s", sample, all);
  return at != NULL ? atoll(at + strlen(sample)) : 0;
}

/* "executionguard_NAME{store="memory",namespace="...",REST", of this world. */
static const char *sample(const spec_world *w, const char *name,
                          const char *rest) {
  static char line[400];
  snprintf(line, sizeof line,
           "executionguard_%s{store=\"memory\",namespace=\"%s\"%s", name,
           w->name, rest);
  return line;
}

/* ------------------------------------------------------- what is counted -- */

static void run_for(spec_world *w, const char *key, int64_t ms,
                    eg_outcome outcome) {
  w->policy.allow_rerun = true;
  assert_int_equal(spec_ask(w, key, EG_WANT_RUN), EG_OK);
  spec_advance_ms(ms);
  assert_int_equal(spec_finish(w, key, outcome), EG_OK);
}

static void runs_are_counted_in_all_and_by_key(void **state) {
  spec_world *w = *state;
  run_for(w, "a", 20, spec_done());
  run_for(w, "a", 200, spec_failed("boom"));
  run_for(w, "b", 7000, spec_done());
  assert_int_equal(spec_ask(w, "c", EG_WANT_LOCK), EG_OK);
  char *all = metrics_of(w->guard, EG_METRICS_TOP);
  assert_has(all, sample(w, "executions_total", "} 3"));
  assert_has(all, sample(w, "key_executions_total", ",key=\"a\"} 2"));
  assert_has(all, sample(w, "key_failed_total", ",key=\"a\"} 1"));
  assert_has(all, sample(w, "key_failing", ",key=\"a\"} 1"));
  assert_has(all, sample(w, "key_failing", ",key=\"b\"} 0"));
  assert_has(all, sample(w, "records", ",status=\"Completed\"} 1"));
  assert_has(all, sample(w, "records", ",status=\"Failed\"} 1"));
  assert_has(all, sample(w, "run_seconds_bucket", ",le=\"0.01\"} 0"));
  assert_has(all, sample(w, "run_seconds_bucket", ",le=\"0.05\"} 1"));
  assert_has(all, sample(w, "run_seconds_bucket", ",le=\"0.5\"} 2"));
  assert_has(all, sample(w, "run_seconds_bucket", ",le=\"10.0\"} 3"));
  assert_has(all, sample(w, "run_seconds_bucket", ",le=\"+Inf\"} 3"));
  assert_has(all, sample(w, "run_seconds_sum", "} 7.220000"));
  assert_has(all, sample(w, "key_run_seconds_count", ",key=\"a\"} 2"));
  assert_has(all, sample(w, "store_up", "} 1"));
  assert_string_equal(all + strlen(all) - 6, "# EOF\n");
  free(all);
}

static void calls_and_waits_are_counted_and_rank_keys(void **state) {
  spec_world *w = *state;
  run_for(w, "often run", 1, spec_done());
  run_for(w, "often run", 1, spec_done());
  run_for(w, "often asked", 1, spec_done());
  w->policy.allow_rerun = false;
  for (int i = 0; i < 3; i++)
    assert_int_equal(spec_ask(w, "often asked", EG_WANT_RUN), EG_CACHED);
  assert_int_equal(spec_ask(w, "busy", EG_WANT_RUN), EG_OK);
  assert_int_equal(spec_ask(w, "busy", EG_WANT_RUN), EG_RUNNING);
  spec_caller waiter = spec_caller_of(w->guard, "busy", EG_WANT_LOCK, 7000);
  spec_call(&waiter);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(7000);
  assert_int_equal(spec_called(&waiter), EG_LOCKED);
  char *all = metrics_of(w->guard, 1);
  assert_has(all, sample(w, "key_cached_total", ",key=\"often asked\"} 3"));
  assert_has(all, sample(w, "cached_total", "} 3"));
  assert_has(all, sample(w, "blocked_total", "} 1"));
  assert_has(all, sample(w, "wait_seconds_bucket", ",le=\"5.0\"} 0"));
  assert_has(all, sample(w, "wait_seconds_bucket", ",le=\"10.0\"} 1"));
  assert_has(all, sample(w, "key_wait_seconds_count", ",key=\"other\"} 1"));
  free(all);
}

static void a_held_key_is_counted_while_it_is(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  char *all = metrics_of(w->guard, 5);
  assert_has(all, sample(w, "held", "} 1"));
  assert_has(all, sample(w, "key_held", ",key=\"k\"} 1"));
  assert_has(all, sample(w, "records", ",status=\"Running\"} 1"));
  free(all);
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_OK);
  all = metrics_of(w->guard, 5);
  assert_has(all, sample(w, "held", "} 0"));
  free(all);
}

static void what_cannot_be_read_is_counted_as_that(void **state) {
  spec_world *w = *state;
  run_for(w, "good", 1, spec_done());
  spec_spoil(w, "bad", "\xc1\xc1\xc1", 3);
  char *all = metrics_of(w->guard, 5);
  assert_has(all, sample(w, "unreadable_records", "} 1"));
  assert_has(all, sample(w, "executions_total", "} 1"));
  free(all);
}

/* --------------------------------------------------------- which keys -- */

static void keys_beyond_top_are_one(void **state) {
  spec_world *w = *state;
  char key[16];
  for (int i = 1; i <= 9; i++)
    for (int n = 0; n < i; n++) {
      snprintf(key, sizeof key, "k%d", i);
      run_for(w, key, 1, spec_done());
    }
  char *all = metrics_of(w->guard, 2);
  assert_int_equal(count_of(all, "\nexecutionguard_key_executions_total{"), 3);
  assert_has(all, sample(w, "key_executions_total", ",key=\"k9\"} 9"));
  assert_has(all, sample(w, "key_executions_total", ",key=\"k8\"} 8"));
  assert_has(all, sample(w, "key_executions_total", ",key=\"other\"} 28"));
  assert_has(all, sample(w, "executions_total", "} 45"));
  free(all);
  all = metrics_of(w->guard, 0);
  assert_null(strstr(all, "key_"));
  assert_has(all, sample(w, "executions_total", "} 45"));
  free(all);
}

static void a_key_called_other_is_among_the_others(void **state) {
  spec_world *w = *state;
  for (int i = 0; i < 5; i++)
    run_for(w, "other", 1, spec_done());
  run_for(w, "a", 1, spec_done());
  char *all = metrics_of(w->guard, 50);
  assert_int_equal(count_of(all, "\nexecutionguard_key_executions_total{"), 2);
  assert_has(all, sample(w, "key_executions_total", ",key=\"other\"} 5"));
  free(all);
}

static void as_often_asked_for_it_is_the_same_ones_each_time(void **state) {
  spec_world *w = *state;
  char key[16];
  for (int i = 0; i < 60; i++) {
    snprintf(key, sizeof key, "k%02d", (i * 37) % 60);
    run_for(w, key, 1, spec_done());
  }
  char *all = metrics_of(w->guard, 3);
  assert_has(all, sample(w, "key_executions_total", ",key=\"k00\"} 1"));
  assert_has(all, sample(w, "key_executions_total", ",key=\"k01\"} 1"));
  assert_has(all, sample(w, "key_executions_total", ",key=\"k02\"} 1"));
  assert_has(all, sample(w, "key_executions_total", ",key=\"other\"} 57"));
  free(all);
}

static void ten_thousand_keys_take_no_more_memory(void **state) {
  spec_world *w = *state;
  char key[16];
  int n = spec_scaled(10000) < 200 ? 200 : spec_scaled(10000);
  for (int i = 0; i < 100; i++) {
    snprintf(key, sizeof key, "k%d", i);
    run_for(w, key, 1, spec_done());
  }
  char *few = metrics_of(w->guard, 50);
  for (int i = 100; i < n; i++) {
    snprintf(key, sizeof key, "k%d", i);
    run_for(w, key, 1, spec_done());
  }
  char *many = metrics_of(w->guard, 50);
  const char *memory = "\nexecutionguard_metrics_memory_bytes ";
  assert_int_equal(value_of(few, memory), value_of(many, memory));
  assert_true(value_of(many, memory) < 128 * 1024);
  assert_true(strlen(many) < strlen(few) * 11 / 10);
  assert_int_equal(value_of(many, sample(w, "executions_total", "} ")), n);
  free(few);
  free(many);
}

/* ------------------------------------------------------------- labels -- */

static void run_bytes(spec_world *w, const char *data, size_t n) {
  eg_bytes key = {data, n};
  eg_outcome outcome = spec_done();
  assert_int_equal(
      eg_acquire(w->guard, key, EG_WANT_RUN, NULL, 0, &w->grant, &w->reply),
      EG_OK);
  assert_int_equal(eg_commit(w->guard, key, &w->grant, &outcome, NULL, NULL),
                   EG_OK);
}

#define RUN(literal) run_bytes(w, literal, sizeof(literal) - 1)

static void any_bytes_are_labels_and_different_ones_differ(void **state) {
  spec_world *w = *state;
  RUN("say \"hi\"");
  RUN("two\nlines");
  RUN("back\\slash");
  RUN("zero\0byte");
  RUN("no \xff text");
  RUN("no \\xff text");
  RUN("gr\303\274\303\237e");
  RUN("\xed\xa0\x80");     /* half of a surrogate pair */
  RUN("\xf4\x90\x80\x80"); /* above the last character */
  RUN("\xc0\x80");         /* longer than need be */
  RUN("cut \xe2\x82");
  RUN("end\\");
  char *all = metrics_of(w->guard, 50);
  static const char *const values[] = {"say \\\"hi\\\"",
                                       "two\\nlines",
                                       "back\\\\slash",
                                       "zero\\\\x00byte",
                                       "no \\\\xff text",
                                       "no \\\\x5cxff text",
                                       "gr\303\274\303\237e",
                                       "\\\\xed\\\\xa0\\\\x80",
                                       "\\\\xf4\\\\x90\\\\x80\\\\x80",
                                       "\\\\xc0\\\\x80",
                                       "cut \\\\xe2\\\\x82",
                                       "end\\\\"};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    char rest[100];
    snprintf(rest, sizeof rest, ",key=\"%s\"} 1", values[i]);
    assert_has(all, sample(w, "key_executions_total", rest));
  }
  assert_int_equal(count_of(all, "\nexecutionguard_key_executions_total{"),
                   12);
  free(all);
}

static void the_longest_key_is_whole(void **state) {
  spec_world *w = *state;
  char key[EG_KEY_MAX], rest[5 * EG_KEY_MAX + 20] = ",key=\"";
  memset(key, 1, sizeof key);
  run_bytes(w, key, sizeof key);
  char *all = metrics_of(w->guard, 50);
  for (size_t i = 0; i < sizeof key; i++)
    strcat(rest, "\\\\x01");
  strcat(rest, "\"} 1\n");
  assert_non_null(strstr(all, rest));
  free(all);
}

/* ------------------------------------------------------------- formats -- */

static void openmetrics_names_a_counter_without_total(void **state) {
  spec_world *w = *state;
  text t = {0};
  run_for(w, "a", 1, spec_done());
  assert_int_equal(
      eg_write_metrics(w->guard, 5, EG_METRICS_OPENMETRICS, collect, &t, NULL),
      EG_OK);
  assert_has(t.data, "# TYPE executionguard_executions counter");
  assert_has(t.data, sample(w, "executions_total", "} 1"));
  char *plain = metrics_of(w->guard, 5);
  assert_has(plain, "# TYPE executionguard_executions_total counter");
  assert_has(plain, "# TYPE executionguard_run_seconds histogram");
  assert_has(plain, "# UNIT executionguard_run_seconds seconds");
  assert_int_equal(count_of(plain, "\n\n"), 0);
  assert_non_null(strstr(eg_metrics_type(EG_METRICS_OPENMETRICS), "1.0.0"));
  assert_non_null(strstr(eg_metrics_type(EG_METRICS_TEXT), "0.0.4"));
  free(plain);
  free(t.data);
}

static void who_wants_no_more_gets_no_more(void **state) {
  spec_world *w = *state;
  text t = {.most = 1};
  for (int i = 0; i < 20; i++)
    run_for(w, (char[]){(char)('a' + i), '\0'}, 1, spec_done());
  assert_int_equal(
      eg_write_metrics(w->guard, 50, EG_METRICS_TEXT, collect, &t, NULL),
      EG_CANCELED);
  assert_int_equal(t.pieces, 1);
  free(t.data);
}

static void every_allocation_may_fail(void **state) {
  spec_world *w = *state;
  spec_memory memory = {0};
  char name[80], key[16];
  snprintf(name, sizeof name, "%s of memory", w->name);
  eg_options options = {
      .name = name,
      .env = {.alloc = spec_alloc, .alloc_ud = &memory, .clock = &spec_clock}};
  eg_guard *guard;
  assert_int_equal(eg_open(&options, &guard, NULL), EG_OK);
  for (int i = 0; i < 40; i++) {
    eg_outcome outcome = spec_done();
    snprintf(key, sizeof key, "k%d", i);
    assert_int_equal(eg_acquire(guard, eg_str(key), EG_WANT_RUN, NULL, 0,
                                &w->grant, &w->reply),
                     EG_OK);
    assert_int_equal(
        eg_commit(guard, eg_str(key), &w->grant, &outcome, NULL, NULL), EG_OK);
  }
  long before = memory.blocks;
  int refused = 0;
  for (long n = 1;; n++) {
    text t = {0};
    memory.failures = 0;
    memory.fail_at = memory.calls + n;
    eg_status status = eg_write_metrics(guard, 50, EG_METRICS_TEXT, collect,
                                        &t, &w->error);
    free(t.data);
    assert_int_equal(memory.blocks, before);
    if (memory.failures == 0) {
      assert_int_equal(status, EG_OK);
      break;
    }
    assert_int_equal(status, EG_NOMEM);
    assert_int_equal(t.n, 0);
    refused++;
  }
  assert_true(refused >= 4);
  memory.fail_at = 0;
  assert_int_equal(memory.misused, 0);
  eg_close(guard);
}

/* --------------------------------------------------- the whole process -- */

static void all_guards_are_read_and_each_namespace_once(void **state) {
  spec_world *w = *state;
  eg_guard *same = spec_another(w, 0), *first, *second, *spelled;
  eg_options options = {.store = w->by_loop ? "memory" : "memory?apply=no",
                        .name = w->name};
  assert_int_equal(eg_open(&options, &spelled, NULL), EG_OK);
  eg_outcome outcome = spec_done();
  assert_int_equal(eg_open(NULL, &first, NULL), EG_OK);
  assert_int_equal(eg_open(NULL, &second, NULL), EG_OK);
  run_for(w, "a", 1, spec_done());
  eg_guard *const nameless[] = {first, second};
  for (int i = 0; i < 2; i++) {
    assert_int_equal(eg_acquire(nameless[i], eg_str("mine"), EG_WANT_RUN, NULL,
                                0, &w->grant, &w->reply),
                     EG_OK);
    assert_int_equal(eg_commit(nameless[i], eg_str("mine"), &w->grant,
                               &outcome, NULL, NULL),
                     EG_OK);
  }
  char *all = metrics_of(NULL, 50);
  assert_has(all, sample(w, "executions_total", "} 1"));
  assert_has(all, "executionguard_executions_total{store=\"memory\"} 2");
  assert_has(all, "executionguard_key_executions_total{store=\"memory\","
                  "key=\"mine\"} 2");
  assert_true(value_of(all, "\nexecutionguard_process_executions_total ") >=
              3);
  free(all);
  char *own = metrics_of(first, 50);
  assert_has(own, "executionguard_executions_total{store=\"memory\"} 1");
  assert_null(strstr(own, "process_"));
  free(own);
  eg_close(same);
  eg_close(spelled);
  eg_close(first);
  eg_close(second);
}

static void many_namespaces_are_bounded(void **state) {
  (void)state;
  enum { MANY = EGI_PLACES + 20 };
  eg_guard *guards[MANY];
  for (int i = 0; i < MANY; i++) {
    char name[40];
    snprintf(name, sizeof name, "one of many %d", i);
    eg_options options = {.name = name};
    assert_int_equal(eg_open(&options, &guards[i], NULL), EG_OK);
  }
  char *all = metrics_of(NULL, 5);
  assert_int_equal(count_of(all, "\nexecutionguard_store_up{"), EGI_PLACES);
  assert_has(all,
             "executionguard_store_up{store=\"other\",namespace=\"other\"} 1");
  free(all);
  for (int i = 0; i < MANY; i++)
    eg_close(guards[i]);
}

static atomic_bool stop;

static void open_and_close(void *arg) {
  (void)arg;
  while (!atomic_load(&stop)) {
    eg_guard *guard;
    eg_grant grant;
    eg_reply reply;
    eg_reply_init(&reply);
    if (eg_open(NULL, &guard, NULL) != EG_OK)
      continue;
    eg_acquire(guard, eg_str("k"), EG_WANT_LOCK, NULL, 0, &grant, &reply);
    eg_reply_free(&reply);
    eg_close(guard);
  }
}

static void guards_come_and_go_meanwhile(void **state) {
  (void)state;
  spec_thread threads[2];
  atomic_store(&stop, false);
  for (int i = 0; i < 2; i++)
    spec_start(&threads[i], open_and_close, NULL);
  for (int i = 0; i < spec_scaled(300); i++) {
    char *all = metrics_of(NULL, 5);
    assert_string_equal(all + strlen(all) - 6, "# EOF\n");
    free(all);
  }
  atomic_store(&stop, true);
  for (int i = 0; i < 2; i++)
    spec_join(&threads[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      BOTH_WAYS(runs_are_counted_in_all_and_by_key),
      ONE_WAY(calls_and_waits_are_counted_and_rank_keys),
      ONE_WAY(a_held_key_is_counted_while_it_is),
      ONE_WAY(what_cannot_be_read_is_counted_as_that),
      ONE_WAY(keys_beyond_top_are_one),
      ONE_WAY(a_key_called_other_is_among_the_others),
      ONE_WAY(as_often_asked_for_it_is_the_same_ones_each_time),
      ONE_WAY(ten_thousand_keys_take_no_more_memory),
      ONE_WAY(any_bytes_are_labels_and_different_ones_differ),
      ONE_WAY(the_longest_key_is_whole),
      ONE_WAY(openmetrics_names_a_counter_without_total),
      ONE_WAY(who_wants_no_more_gets_no_more),
      ONE_WAY(every_allocation_may_fail),
      ONE_WAY(all_guards_are_read_and_each_namespace_once),
      ONE_WAY(many_namespaces_are_bounded),
      ONE_WAY(guards_come_and_go_meanwhile),
  };
  return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
