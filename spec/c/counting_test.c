/* SPDX-License-Identifier: MIT
** What is counted by key.
*/
#include "slow_store.h"

#include "core/codec.h"
#include "guard/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 8 };

static uint64_t blocked, cached; /* of the latest that was read */
static eg_times waits;

static void read_counts(eg_guard *guard, const char *key) {
  eg_record record;
  eg_error error;
  eg_status status = eg_fetch(guard, eg_str(key), &record, &error);
  assert_false(EG_IS_FAILURE(status));
  blocked = record.blocked;
  cached = record.cached;
  eg_record_waits(&record, &waits);
  eg_record_free(&record);
}

static void ask_times(spec_world *w, const char *key, int n) {
  for (int i = 0; i < n; i++)
    spec_ask(w, key, EG_WANT_RUN);
}

/* ------------------------------------------------------------ counting -- */

static void refused_and_cached_calls_are_counted_by_key(void **state) {
  spec_world *w = *state;
  spec_run(w, "a", spec_done());
  ask_times(w, "a", 3);
  assert_int_equal(spec_ask(w, "b", EG_WANT_RUN), EG_OK);
  eg_grant grant = w->grant;
  ask_times(w, "b", 2);
  read_counts(w->guard, "a");
  assert_true(blocked == 0 && cached == 3);
  read_counts(w->guard, "b");
  assert_true(blocked == 2 && cached == 0);
  w->grant = grant;
  spec_finish(w, "b", spec_done());
  ask_times(w, "b", 1);
  read_counts(w->guard, "b");
  assert_true(blocked == 2 && cached == 1 && waits.runs == 0);
  read_counts(w->guard, "c");
  assert_true(blocked == 0 && cached == 0);
}

static void what_does_not_count_moves_nothing(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "a", EG_WANT_LOCK), EG_OK);
  assert_int_equal(spec_ask(w, "a", EG_WANT_LOCK), EG_LOCKED);
  read_counts(w->guard, "a");
  assert_true(blocked == 0 && cached == 0 && waits.runs == 0);
}

static void one_place_a_key_is_not_needed(void **state) {
  spec_world *w = *state;
  char key[300];
  for (int round = 0; round < 3; round++)
    for (int i = 0; i < 4 * EGI_COUNT_PLACES; i++) {
      snprintf(key, sizeof key, "%d%*s", i, i % 3 * 90, "");
      if (round == 0)
        spec_run(w, key, spec_done());
      else
        ask_times(w, key, 1);
    }
  for (int i = 0; i < 4 * EGI_COUNT_PLACES; i++) {
    snprintf(key, sizeof key, "%d%*s", i, i % 3 * 90, "");
    read_counts(w->guard, key);
    assert_true(cached == 2 && blocked == 0);
  }
}

/* A little stands in the entry of the record, until that is full, or the
** record leaves it. */
static void counts_go_on_where_the_entry_has_no_room(void **state) {
  spec_world *w = *state;
  uint64_t expected = 0;
  static const size_t sizes[] = {5, 5000, 5, 300, 70000};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    w->policy.allow_rerun = true;
    spec_run(w, "a", spec_done_with(spec_large(sizes[i])));
    w->policy.allow_rerun = false;
    read_counts(w->guard, "a");
    assert_true(cached == expected && blocked == expected / 1050);
    for (int n = 0; n < 3; n++) {
      ask_times(w, "a", 350);
      read_counts(w->guard, "a"); /* takes them */
    }
    w->policy.cache_result = false;
    ask_times(w, "a", 1);
    w->policy.cache_result = true;
    expected += 1050;
  }
  read_counts(w->guard, "a");
  assert_true(cached == expected && blocked == 5);
  eg_census census;
  assert_int_equal(eg_take_census(w->guard, &census, NULL), EG_OK);
  assert_true(census.cached == expected && census.blocked == 5);
}

static bool add_up(void *ctx, const eg_record *record) {
  *(uint64_t *)ctx += record->cached + record->blocked;
  return true;
}

static void scan_and_census_tell_the_same(void **state) {
  spec_world *w = *state;
  uint64_t sum = 0;
  eg_census census;
  spec_run(w, "a", spec_done());
  spec_run(w, "b", spec_done());
  ask_times(w, "a", 2);
  ask_times(w, "b", 5);
  assert_int_equal(eg_scan(w->guard, eg_str("b"), add_up, &sum, NULL), EG_OK);
  assert_int_equal(sum, 5);
  assert_int_equal(eg_take_census(w->guard, &census, NULL), EG_OK);
  assert_true(census.cached == 7 && census.blocked == 0);
}

static void reset_leaves_them_and_they_go_with_the_record(void **state) {
  spec_world *w = *state;
  w->policy.record_ttl_ms = 5000;
  spec_run(w, "a", spec_done());
  ask_times(w, "a", 2);
  read_counts(w->guard, "a");
  assert_int_equal(cached, 2);
  assert_int_equal(spec_reset(w, "a"), EG_OK);
  read_counts(w->guard, "a");
  assert_int_equal(cached, 2);
  spec_run(w, "a", spec_done());
  spec_advance_ms(6000);
  assert_int_equal(spec_fetch(w, "a"), EG_NOTFOUND);
  read_counts(w->guard, "a");
  assert_int_equal(cached, 0);
}

static void guards_of_one_namespace_add_up(void **state) {
  spec_world *w = *state;
  eg_guard *first = w->guard, *other = spec_another(w, 0);
  spec_run(w, "a", spec_done());
  ask_times(w, "a", 2);
  w->guard = other;
  ask_times(w, "a", 3);
  read_counts(first, "a");
  assert_int_equal(cached, 5);
  read_counts(other, "a");
  assert_int_equal(cached, 5);
  ask_times(w, "a", 4);
  eg_close(other);
  w->guard = first;
  read_counts(first, "a");
  assert_int_equal(cached, 9);
}

/* --------------------------------------------------------------- waits -- */

static void waits_are_counted_however_they_end(void **state) {
  spec_world *w = *state;
  spec_caller caller = spec_caller_of(w->guard, "a", EG_WANT_LOCK, 3000);
  assert_int_equal(spec_ask(w, "a", EG_WANT_LOCK), EG_OK);
  spec_call(&caller);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(1000);
  assert_int_equal(eg_release(w->guard, eg_str("a"), 0, NULL), EG_OK);
  assert_int_equal(spec_called(&caller), EG_OK);
  read_counts(w->guard, "a");
  assert_true(waits.runs == 1 && waits.total_us == SECOND);
  spec_call(&caller);
  assert_true(spec_await_sleepers(1));
  spec_advance_ms(3000);
  assert_int_equal(spec_called(&caller), EG_LOCKED);
  read_counts(w->guard, "a");
  assert_true(waits.runs == 2 && waits.total_us == 4 * SECOND);
  assert_in_range(waits.p99_us, 3 * SECOND * 98 / 100, 3 * SECOND * 102 / 100);
  assert_true(blocked == 0 && cached == 0);
}

/* ------------------------------------------------------------- threads -- */

typedef struct work {
  eg_guard *guard;
  int n;
} work;

static void ask_often(void *arg) {
  work *job = arg;
  eg_reply reply;
  eg_grant grant;
  char key[8];
  eg_reply_init(&reply);
  for (int i = 0; i < job->n; i++) {
    snprintf(key, sizeof key, "%d", i % 400);
    eg_acquire(job->guard, eg_str(key), EG_WANT_RUN, NULL, 0, &grant, &reply);
  }
  eg_reply_free(&reply);
}

/* More keys than there are places, and somebody who reads meanwhile. */
static void threads_lose_nothing(void **state) {
  spec_world *w = *state;
  spec_thread threads[THREADS];
  eg_census census;
  char key[8];
  work job = {w->guard, spec_scaled(20000)};
  for (int i = 0; i < 400; i++) {
    snprintf(key, sizeof key, "%d", i);
    spec_run(w, key, spec_done());
  }
  for (int i = 0; i < THREADS; i++)
    spec_start(&threads[i], ask_often, &job);
  for (int i = 0; i < 20; i++)
    assert_int_equal(eg_take_census(w->guard, &census, NULL), EG_OK);
  for (int i = 0; i < THREADS; i++)
    spec_join(&threads[i]);
  assert_int_equal(eg_take_census(w->guard, &census, NULL), EG_OK);
  assert_int_equal(census.cached, (uint64_t)THREADS * (uint64_t)job.n);
}

/* -------------------------------------------------------- to the store -- */

/* A guard whose store is elsewhere, and takes what is counted. */
typedef struct far {
  spec_world *w;
  slow_store slow;
  eg_guard *near; /* sees what the store has, and nothing else */
} far;

static void far_open(far *f, spec_world *w) {
  f->w = w;
  eg_set_clock(eg_test_clock()); /* moving it lets attendants work */
  f->near = spec_another(w, 0);
  spec_run(w, "a", spec_done());
  slow_store_connect(&f->slow, w->guard);
  slow_store_counts(&f->slow, w->guard);
}

static void far_close(far *f) {
  eg_close(f->w->guard);
  f->w->guard = f->near;
  eg_set_clock(NULL);
}

static void counts_come_once_a_second(void **state) {
  far f;
  far_open(&f, *state);
  ask_times(f.w, "a", 3);
  read_counts(f.near, "a");
  assert_int_equal(cached, 0);
  read_counts(f.w->guard, "a"); /* its own it knows */
  assert_int_equal(cached, 3);
  spec_advance_ms(1000);
  read_counts(f.near, "a");
  assert_int_equal(cached, 3);
  assert_int_equal(atomic_load(&f.slow.added), 1);
  for (int i = 0; i < 5; i++)
    spec_advance_ms(1000); /* nothing is new: nothing is sent */
  assert_int_equal(atomic_load(&f.slow.added), 1);
  ask_times(f.w, "a", 2);
  spec_advance_ms(1000);
  read_counts(f.near, "a");
  assert_int_equal(cached, 5);
  read_counts(f.w->guard, "a");
  assert_int_equal(cached, 5);
  far_close(&f);
}

static void counts_wait_for_a_store_that_is_away(void **state) {
  far f;
  far_open(&f, *state);
  ask_times(f.w, "a", 3);
  atomic_store(&f.slow.away, true);
  spec_advance_ms(1000);
  spec_advance_ms(1000);
  read_counts(f.near, "a");
  assert_int_equal(cached, 0);
  atomic_store(&f.slow.away, false);
  spec_advance_ms(1000);
  read_counts(f.near, "a");
  assert_int_equal(cached, 3);
  far_close(&f);
}

static void close_sends_the_rest(void **state) {
  far f;
  far_open(&f, *state);
  ask_times(f.w, "a", 4);
  far_close(&f);
  read_counts(f.near, "a");
  assert_int_equal(cached, 4);
}

static void forked_child_sends_only_its_own(void **state) {
  SPEC_FORKS_THREADS();
  far f;
  far_open(&f, *state);
  ask_times(f.w, "a", 4);
  pid_t child = fork();
  if (child == 0) {
    ask_times(f.w, "a", 2);
    egi_counting_send(f.w->guard, INT64_MAX);
    read_counts(f.near, "a");
    _exit(cached == 2 ? 0 : 1);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  far_close(&f);
  read_counts(f.near, "a");
  assert_int_equal(cached, 4);
}

/* ----------------------------------------------------------- processes -- */

enum { PROCESSES = 3 };

/* As a process of its own that ends without closing its guard, as scripts do:
** exit() sends what it has counted. */
static void count_and_exit(const char *url, int n) {
  const eg_options options = {.store = url};
  eg_guard *guard;
  eg_reply reply;
  eg_grant grant;
  eg_reply_init(&reply);
  if (eg_open(&options, &guard, NULL) != EG_OK)
    _exit(1);
  for (int i = 0; i < n; i++)
    if (eg_acquire(guard, eg_str("k"), EG_WANT_RUN, NULL, 0, &grant, &reply) !=
        EG_CACHED)
      _exit(1);
#ifdef __SANITIZE_ADDRESS__ /* it would look for leaks in a child with threads */
  eg_close(guard);
  _exit(0);
#endif
  exit(0);
}

static void processes_sum_up_exactly(void **state) {
  (void)state;
  SPEC_FORKS_THREADS();
  char folder[] = "/tmp/eg-counting-XXXXXX", url[64], command[80];
  pid_t children[PROCESSES];
  int n = spec_scaled(1000), status;
  assert_non_null(mkdtemp(folder));
  snprintf(url, sizeof url, "file:%s", folder);
  const eg_options options = {.store = url};
  spec_world w = {.policy = EG_POLICY_DEFAULT};
  eg_reply_init(&w.reply);
  assert_int_equal(eg_open(&options, &w.guard, NULL), EG_OK);
  spec_run(&w, "k", spec_done());
  for (int i = 0; i < PROCESSES; i++)
    if ((children[i] = fork()) == 0)
      count_and_exit(url, n);
  for (int i = 0; i < PROCESSES; i++) {
    assert_int_equal(waitpid(children[i], &status, 0), children[i]);
    assert_int_equal(status, 0);
  }
  read_counts(w.guard, "k");
  assert_int_equal(cached, PROCESSES * n);
  eg_reply_free(&w.reply);
  eg_close(w.guard);
  snprintf(command, sizeof command, "rm -r %s", folder);
  assert_int_equal(system(command), 0);
}

/* -------------------------------------------------------------- memory -- */

static void no_memory_delays_counts_and_breaks_nothing(void **state) {
  (void)state;
  spec_memory memory = {0};
  eg_options options = {
      .env = {.alloc = spec_alloc, .alloc_ud = &memory, .clock = &spec_clock}};
  spec_world w = {.policy = EG_POLICY_DEFAULT};
  assert_int_equal(eg_open(&options, &w.guard, NULL), EG_OK);
  eg_reply_init(&w.reply);
  spec_run(&w, "a", spec_done());
  ask_times(&w, "a", 5);
  for (long fail = 1; fail < 20; fail++) {
    eg_record record;
    memory.calls = 0;
    memory.fail_at = fail;
    eg_fetch(w.guard, eg_str("a"), &record, NULL);
    eg_record_free(&record);
    memory.fail_at = 0;
    read_counts(w.guard, "a");
    assert_int_equal(cached, 5);
  }
  eg_reply_free(&w.reply);
  eg_close(w.guard);
  assert_int_equal(memory.blocks, 0);
  assert_int_equal(memory.misused, 0);
}

/* --------------------------------------------------------------- bytes -- */

static void counts_are_read_as_they_were_written(void **state) {
  (void)state;
  egi_counts counts = {.blocked = UINT64_MAX, .cached = 1}, again;
  unsigned char bytes[EGI_COUNTS_MAX];
  for (int i = 0; i < 300; i++)
    egi_tally_time(&counts.waits, (int64_t)i * i * i);
  size_t len = egi_encode_counts(&counts, bytes, sizeof bytes);
  assert_true(len < sizeof bytes);
  assert_true(egi_decode_counts((eg_bytes){bytes, len}, &again));
  assert_true(again.blocked == UINT64_MAX && again.cached == 1);
  assert_int_equal(again.waits.n, counts.waits.n);
  assert_int_equal(again.waits.total_us, counts.waits.total_us);
  for (size_t n = 1; n < len; n++) {
    assert_false(egi_decode_counts((eg_bytes){bytes, n}, &again));
    assert_int_equal(again.blocked + again.cached + again.waits.n, 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      BOTH_WAYS(refused_and_cached_calls_are_counted_by_key),
      BOTH_WAYS(what_does_not_count_moves_nothing),
      ONE_WAY(one_place_a_key_is_not_needed),
      ONE_WAY(counts_go_on_where_the_entry_has_no_room),
      ONE_WAY(scan_and_census_tell_the_same),
      BOTH_WAYS(reset_leaves_them_and_they_go_with_the_record),
      ONE_WAY(guards_of_one_namespace_add_up),
      ONE_WAY(waits_are_counted_however_they_end),
      ONE_WAY(threads_lose_nothing),
      ONE_WAY(counts_come_once_a_second),
      ONE_WAY(counts_wait_for_a_store_that_is_away),
      ONE_WAY(close_sends_the_rest),
      ONE_WAY(forked_child_sends_only_its_own),
      cmocka_unit_test(processes_sum_up_exactly),
      cmocka_unit_test(no_memory_delays_counts_and_breaks_nothing),
      cmocka_unit_test(counts_are_read_as_they_were_written),
  };
  return cmocka_run_group_tests_name("counting", tests, NULL, NULL);
}
