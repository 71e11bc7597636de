/* SPDX-License-Identifier: MIT
** Traces: what is noted, what is drawn of it, and that Perfetto can read it.
*/
#include "support.h"

#include "executionguard_view.h"
#include "guard/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* ------------------------------------------------------------ a document -- */

typedef struct text {
  char *data;
  size_t n, most;
} text;

static bool collect(void *ctx, const void *data, size_t n) {
  text *t = ctx;
  assert_true(n > 0 && n <= 4096);
  if (t->most > 0 && t->n > t->most)
    return false;
  t->data = realloc(t->data, t->n + n + 1);
  memcpy(t->data + t->n, data, n);
  t->n += n;
  t->data[t->n] = '\0';
  return true;
}

/* An event, as its line says it. */
typedef struct event {
  char phase, name[400], status[40], category[20];
  long long ts, dur, pid, tid, token;
} event;

typedef struct document {
  event events[2000];
  int n;
  long long dropped;
} document;

static long long field(const char *line, const char *name) {
  const char *at = strstr(line, name);
  return at != NULL ? atoll(at + strlen(name)) : -1;
}

static void words(const char *line, const char *name, char *out, size_t size) {
  const char *at = strstr(line, name);
  snprintf(out, size, "%.*s",
           at == NULL ? 0 : (int)strcspn(at + strlen(name), "\""),
           at == NULL ? "" : at + strlen(name));
}

static void add(document *d, const char *line) {
  event *e = &d->events[d->n++];
  assert_true(d->n < 2000);
  e->phase = strstr(line, "\"ph\":\"")[6];
  words(line, "\"name\":\"", e->name, sizeof e->name);
  words(line, "\"status\":\"", e->status, sizeof e->status);
  words(line, "\"cat\":\"", e->category, sizeof e->category);
  e->ts = field(line, "\"ts\":");
  e->dur = field(line, "\"dur\":");
  e->pid = field(line, "\"pid\":");
  e->tid = field(line, "\"tid\":");
  e->token = field(line, "\"token\":");
}

/* What holds of every trace: rows have names before they have events, time
** goes on within a row, and what begins in an event ends in it. */
static void check(const document *d) {
  for (int i = 0; i < d->n; i++) {
    const event *e = &d->events[i];
    bool named = e->phase == 'M';
    assert_true(e->pid > 0 && e->tid > 0);
    for (int j = 0; j < i; j++) {
      const event *f = &d->events[j];
      if (f->pid != e->pid || f->tid != e->tid)
        continue;
      named = named ||
              (f->phase == 'M' && strcmp(f->name, "thread_name") == 0);
      if (f->phase == 'M' || e->phase == 'M')
        continue;
      assert_true(f->ts <= e->ts);
      if (f->phase == 'X' && e->phase == 'X')
        assert_true(f->ts + f->dur <= e->ts ||
                    f->ts + f->dur >= e->ts + e->dur);
    }
    assert_true(named);
    if (e->phase == 'X')
      assert_true(e->dur >= 0 && e->status[0] != '\0');
    else
      assert_true(e->phase == 'M' || e->phase == 'i');
  }
}

static document *read_document(text *t) {
  static document d;
  d.n = 0;
  assert_memory_equal(t->data, "{\"displayTimeUnit\":\"ms\"", 23);
  assert_string_equal(t->data + t->n - 4, "\n]}\n");
  d.dropped = field(t->data, "\"dropped\":");
  for (char *line = strtok(t->data, "\n"); line != NULL;
       line = strtok(NULL, "\n"))
    if (strncmp(line, "{\"ph\"", 5) == 0)
      add(&d, line);
  free(t->data);
  check(&d);
  return &d;
}

static document *stop(void) {
  text t = {0};
  eg_traced traced;
  eg_error error;
  assert_int_equal(eg_trace_stop(collect, &t, &traced, &error), EG_OK);
  document *d = read_document(&t);
  assert_int_equal(d->dropped, traced.dropped);
  return d;
}

static const event *find(const document *d, const char *name, int nth) {
  for (int i = 0; i < d->n; i++)
    if (strcmp(d->events[i].name, name) == 0 && nth-- == 0)
      return &d->events[i];
  return NULL;
}

static const event *must(const document *d, const char *name) {
  const event *e = find(d, name, 0);
  if (e == NULL)
    fail_msg("there is no %s", name);
  return e;
}

static int begin(void **state) {
  int failed = spec_begin(state);
  eg_set_clock(&spec_clock); /* timers and traces are by the one in force */
  assert_int_equal(eg_trace_start(0, NULL), EG_OK);
  return failed;
}

static int end(void **state) {
  eg_trace_stop(NULL, NULL, NULL, NULL);
  eg_set_clock(NULL);
  return spec_end(state);
}

/* ------------------------------------------------------------- events -- */

static void runs_and_locks_are_as_long_as_they_were(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "good", EG_WANT_RUN), EG_OK);
  spec_advance_ms(5);
  spec_finish(w, "good", spec_done());
  assert_int_equal(spec_ask(w, "bad", EG_WANT_RUN), EG_OK);
  spec_advance_ms(7);
  spec_finish(w, "bad", spec_failed("boom"));
  assert_int_equal(spec_ask(w, "l", EG_WANT_LOCK), EG_OK);
  uint64_t token = w->grant.token;
  spec_advance_ms(2);
  assert_int_equal(spec_release(w, "l"), EG_OK);
  document *d = stop();
  assert_int_equal(must(d, "good")->dur, 5000);
  assert_string_equal(must(d, "good")->status, "completed");
  assert_string_equal(must(d, "good")->category, "run");
  assert_int_equal(must(d, "bad")->dur, 7000);
  assert_string_equal(must(d, "bad")->status, "failed");
  assert_int_equal(must(d, "bad")->ts, must(d, "good")->ts + 5000);
  assert_int_equal(must(d, "lock l")->dur, 2000);
  assert_int_equal(must(d, "lock l")->token, token);
  assert_int_equal(must(d, "good")->pid, getpid());
  assert_int_equal(must(d, "good")->ts, eg_wall_us() - 2000 - 7000 - 5000);
}

static void what_still_runs_is_drawn_to_the_end(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  spec_advance_ms(9);
  document *d = stop();
  assert_int_equal(must(d, "k")->dur, 9000);
  assert_string_equal(must(d, "k")->status, "running");
  spec_finish(w, "k", spec_done());
}

static void what_ran_before_the_trace_begins_with_it(void **state) {
  spec_world *w = *state;
  eg_trace_stop(NULL, NULL, NULL, NULL);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  spec_advance_ms(9);
  assert_int_equal(eg_trace_start(0, NULL), EG_OK);
  spec_advance_ms(4);
  spec_finish(w, "k", spec_done());
  document *d = stop();
  assert_int_equal(must(d, "k")->dur, 4000);
}

static void a_timeout_is_a_moment_on_its_row(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  w->grant.deadline_us = w->grant.start_us + 3000;
  spec_advance_ms(3);
  assert_int_equal(spec_finish(w, "k", spec_done()), EG_TIMEOUT);
  document *d = stop();
  assert_string_equal(must(d, "k")->status, "timeout");
  assert_int_equal(must(d, "k")->dur, 3000);
  assert_int_equal(must(d, "timeout k")->phase, 'i');
  assert_int_equal(must(d, "timeout k")->tid, must(d, "k")->tid);
}

static void a_hand_over_is_told_by_both_rows(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  spec_caller waiter = spec_caller_of(w->guard, "k", EG_WANT_LOCK, 60000);
  eg_guard *other = spec_another(w, 0);
  waiter.guard = other;
  waiter.then = spec_give_back;
  spec_call(&waiter);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(6);
  assert_int_equal(spec_release(w, "k"), EG_OK);
  assert_int_equal(spec_called(&waiter), EG_OK);
  eg_close(other);
  document *d = stop();
  const event *first = find(d, "lock k", 0), *second = find(d, "lock k", 1);
  assert_non_null(second);
  if (first->ts > second->ts) {
    const event *swapped = first;
    first = second;
    second = swapped;
  }
  assert_int_equal(first->dur, 6000);
  assert_int_not_equal(first->tid, second->tid);
  assert_string_equal(must(d, "wait k")->status, "ok");
  assert_int_equal(must(d, "wait k")->tid, second->tid);
  assert_int_equal(must(d, "wait k")->dur, 6000);
  if (find(d, "handover k", 0) != NULL) /* where it can be done for another */
    assert_int_equal(must(d, "handover k")->tid, first->tid);
  else
    assert_true(w->by_loop);
}

static void a_wait_that_is_given_up_says_so(void **state) {
  spec_world *w = *state;
  eg_guard *other = spec_another(w, 0);
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  spec_caller waiter = spec_caller_of(other, "k", EG_WANT_LOCK, 50);
  spec_call(&waiter);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(50);
  assert_int_equal(spec_called(&waiter), EG_LOCKED);
  eg_close(other);
  document *d = stop();
  assert_string_equal(must(d, "wait k")->status, "locked");
  assert_int_equal(must(d, "wait k")->dur, 50000);
  assert_string_equal(must(d, "lock k")->status, "running");
}

static void what_overlaps_gets_rows_of_its_own(void **state) {
  spec_world *w = *state;
  eg_grant grants[3];
  const char *const keys[] = {"a", "b", "c"};
  for (int i = 0; i < 3; i++) {
    assert_int_equal(spec_ask(w, keys[i], EG_WANT_RUN), EG_OK);
    grants[i] = w->grant;
    spec_advance_ms(1);
  }
  for (int i = 0; i < 3; i++) { /* in the order in which they began */
    w->grant = grants[i];
    spec_finish(w, keys[i], spec_done());
    spec_advance_ms(1);
  }
  assert_int_equal(spec_ask(w, "outer", EG_WANT_RUN), EG_OK);
  eg_grant outer = w->grant;
  spec_advance_ms(1);
  w->policy.allow_rerun = true;
  spec_run(w, "inner", spec_done());
  spec_advance_ms(1);
  w->grant = outer;
  spec_finish(w, "outer", spec_done());
  document *d = stop();
  assert_int_not_equal(must(d, "a")->tid, must(d, "b")->tid);
  assert_int_not_equal(must(d, "b")->tid, must(d, "c")->tid);
  assert_int_equal(must(d, "outer")->tid, must(d, "inner")->tid);
  assert_int_equal(must(d, "a")->tid, must(d, "outer")->tid);
}

static void retries_and_resets_are_moments(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  eg_trace_retry(w->guard, eg_str("k"), 2);
  spec_advance_ms(1);
  spec_reset(w, "k");
  spec_advance_ms(1);
  spec_finish(w, "k", spec_done());
  document *d = stop();
  assert_int_equal(must(d, "retry k")->phase, 'i');
  assert_int_equal(must(d, "reset k")->phase, 'i');
  assert_string_equal(must(d, "k")->status, "lost");
}

static void any_key_is_a_name(void **state) {
  spec_world *w = *state;
  char longest[EG_KEY_MAX + 1];
  memset(longest, 'x', sizeof longest);
  longest[EG_KEY_MAX] = '\0';
  spec_run(w, "q\"\\\n\x01\xff\xc3\xbc", spec_done());
  spec_run(w, longest, spec_done());
  text t = {0};
  assert_int_equal(eg_trace_stop(collect, &t, NULL, NULL), EG_OK);
  assert_non_null(strstr(t.data, "\"name\":\"q\\u0022\\u005c\\u000a\\u0001"
                                 "\\\\xff\xc3\xbc\""));
  assert_non_null(strstr(t.data, "xxx...\""));
  free(t.data);
}

/* ------------------------------------------------------ what is bounded -- */

static void the_latest_are_kept_and_the_others_counted(void **state) {
  spec_world *w = *state;
  eg_trace_stop(NULL, NULL, NULL, NULL);
  assert_int_equal(eg_trace_start(7, NULL), EG_OK);
  char key[8];
  for (int i = 0; i < 10; i++) {
    snprintf(key, sizeof key, "k%d", i);
    spec_run(w, key, spec_done());
    spec_advance_ms(1);
  }
  document *d = stop();
  assert_int_equal(d->dropped, 13);
  assert_null(find(d, "k5", 0));
  assert_non_null(find(d, "k6", 0)); /* its end */
  assert_non_null(find(d, "k9", 0));
}

static void one_at_a_time_and_none_without_start(void **state) {
  (void)state;
  eg_error error;
  text t = {.most = 1};
  assert_int_equal(eg_trace_start(0, &error), EG_INVALID);
  assert_non_null(strstr(error.message, "already"));
  assert_int_equal(eg_trace_stop(NULL, NULL, NULL, &error), EG_OK);
  assert_int_equal(eg_trace_stop(collect, &t, NULL, &error), EG_INVALID);
  assert_int_equal(eg_trace_start((size_t)1 << 40, &error), EG_INVALID);
  assert_null(t.data);
}

static void who_wants_no_more_gets_no_more(void **state) {
  spec_world *w = *state;
  text t = {.most = 1};
  char key[16];
  for (int i = 0; i < 200; i++) {
    snprintf(key, sizeof key, "k%d", i);
    spec_run(w, key, spec_done());
  }
  assert_int_equal(eg_trace_stop(collect, &t, NULL, NULL), EG_CANCELED);
  assert_true(t.n <= 4096);
  free(t.data);
}

static void nothing_is_noted_while_it_is_off(void **state) {
  spec_world *w = *state;
  eg_trace_stop(NULL, NULL, NULL, NULL);
  spec_run(w, "before", spec_done());
  assert_int_equal(eg_trace_start(0, NULL), EG_OK);
  spec_run(w, "k", spec_done());
  document *d = stop();
  assert_null(find(d, "before", 0));
  assert_non_null(find(d, "k", 0));
}

/* ---------------------------------------------------- threads and forks -- */

enum { THREADS = 4 };

static void work(void *arg) {
  spec_world *w = arg;
  eg_reply reply;
  eg_reply_init(&reply);
  for (int i = 0; i < 50; i++) {
    eg_grant grant;
    if (eg_acquire(w->guard, eg_str("shared"), EG_WANT_LOCK, NULL, 0, &grant,
                   &reply) == EG_OK)
      eg_release(w->guard, eg_str("shared"), grant.token, NULL);
  }
  eg_reply_free(&reply);
}

static void threads_note_side_by_side(void **state) {
  spec_world *w = *state;
  spec_thread threads[THREADS];
  for (int i = 0; i < THREADS; i++)
    spec_start(&threads[i], work, w);
  for (int i = 0; i < 20; i++) { /* and somebody turns it off and on */
    eg_trace_stop(NULL, NULL, NULL, NULL);
    eg_trace_start(100, NULL);
  }
  for (int i = 0; i < THREADS; i++)
    spec_join(&threads[i]);
  stop();
}

static void a_child_records_nothing(void **state) {
  spec_world *w = *state;
  spec_run(w, "k", spec_done());
  pid_t child = fork();
  if (child == 0) {
    bool none = eg_trace_stop(NULL, NULL, NULL, NULL) == EG_INVALID &&
                eg_trace_start(10, NULL) == EG_OK;
    _exit(none ? 0 : 1);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  document *d = stop();
  assert_non_null(find(d, "k", 0));
}

/* ------------------------------------------------------------- the past -- */

static void the_past_has_what_ended_and_what_is_held(void **state) {
  spec_world *w = *state;
  eg_guard *guard;
  eg_options options = {
      .name = w->name, .owner = "me", .history = 20, .env = w->env};
  assert_int_equal(eg_open(&options, &guard, NULL), EG_OK);
  eg_guard *own = w->guard;
  w->guard = guard;
  w->policy.allow_rerun = true;
  assert_int_equal(spec_ask(w, "done", EG_WANT_RUN), EG_OK);
  spec_advance_ms(5);
  spec_finish(w, "done", spec_done());
  spec_advance_ms(1);
  int64_t since = eg_wall_us();
  assert_int_equal(spec_ask(w, "late", EG_WANT_RUN), EG_OK);
  spec_advance_ms(5);
  spec_finish(w, "late", spec_late());
  assert_int_equal(spec_ask(w, "now", EG_WANT_RUN), EG_OK);
  spec_advance_ms(3);
  text t = {0};
  assert_int_equal(eg_write_past(guard, eg_str(""), 100, 0, collect, &t, NULL),
                   EG_OK);
  document *d = read_document(&t);
  assert_int_equal(must(d, "done")->dur, 5000);
  assert_string_equal(must(d, "late")->status, "timeout");
  assert_non_null(find(d, "timeout late", 0));
  assert_int_equal(must(d, "now")->dur, 3000);
  assert_string_equal(must(d, "now")->status, "running");
  t = (text){0};
  assert_int_equal(
      eg_write_past(guard, eg_str(""), 100, since, collect, &t, NULL), EG_OK);
  d = read_document(&t);
  assert_null(find(d, "done", 0));
  assert_non_null(find(d, "late", 0));
  t = (text){0};
  assert_int_equal(
      eg_write_past(guard, eg_str("now"), 100, 0, collect, &t, NULL), EG_OK);
  d = read_document(&t);
  assert_null(find(d, "late", 0));
  assert_non_null(find(d, "now", 0));
  spec_finish(w, "now", spec_done());
  w->guard = own;
  eg_close(guard);
}

static void a_past_without_memory_is_refused(void **state) {
  spec_world *w = *state;
  spec_memory memory = {0};
  eg_guard *guard;
  eg_options options = {
      .owner = "me",
      .history = 400,
      .env = {.alloc = spec_alloc, .alloc_ud = &memory, .clock = &spec_clock}};
  assert_int_equal(eg_open(&options, &guard, NULL), EG_OK);
  eg_guard *own = w->guard;
  w->guard = guard;
  char key[16];
  for (int i = 0; i < 300; i++) {
    snprintf(key, sizeof key, "k%d", i);
    spec_run(w, key, spec_done());
  }
  eg_reply_free(&w->reply);
  eg_reply_init(&w->reply);
  long before = memory.blocks;
  int refused = 0;
  for (long n = 1;; n++) {
    text t = {0};
    memory.failures = 0;
    memory.fail_at = memory.calls + n;
    eg_status status = eg_write_past(guard, eg_str(""), 400, 0, collect, &t,
                                     &w->error);
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
  assert_true(refused >= 3);
  memory.fail_at = 0;
  w->guard = own;
  eg_close(guard);
  assert_int_equal(memory.misused, 0);
  assert_int_equal(memory.blocks, 0);
}

#define TRACED(test)                                                          \
  { #test, test, begin, end, spec_apply }
#define TRACED_BOTH_WAYS(test)                                                \
  {#test " by apply", test, begin, end, spec_apply}, {                        \
#test " by loop", test, begin, end, spec_loop                             \
  }

int main(void) {
  const struct CMUnitTest tests[] = {
      TRACED_BOTH_WAYS(runs_and_locks_are_as_long_as_they_were),
      TRACED(what_still_runs_is_drawn_to_the_end),
      TRACED(what_ran_before_the_trace_begins_with_it),
      TRACED(a_timeout_is_a_moment_on_its_row),
      TRACED_BOTH_WAYS(a_hand_over_is_told_by_both_rows),
      TRACED_BOTH_WAYS(a_wait_that_is_given_up_says_so),
      TRACED(what_overlaps_gets_rows_of_its_own),
      TRACED_BOTH_WAYS(retries_and_resets_are_moments),
      TRACED(any_key_is_a_name),
      TRACED(the_latest_are_kept_and_the_others_counted),
      TRACED(one_at_a_time_and_none_without_start),
      TRACED(who_wants_no_more_gets_no_more),
      TRACED(nothing_is_noted_while_it_is_off),
      TRACED(threads_note_side_by_side),
      TRACED(a_child_records_nothing),
      TRACED(the_past_has_what_ended_and_what_is_held),
      TRACED(a_past_without_memory_is_refused),
  };
  return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
