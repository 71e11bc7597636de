/* SPDX-License-Identifier: MIT
** Rebuilding a damaged database: what is left of it comes back as it was, and
** nothing that is in doubt is run again.
*/
#include "faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  KEYS = 120,
  LARGE = 20,
  LARGE_SIZE = 9000,
  HELD = 0,
  GO_ON,
  OPENED,
  TAKE
};

static void name_of(int i, char *key) { snprintf(key, 16, "key %d", i); }

/* A MessagePack text of its own for every key; some do not fit a page. */
static size_t value_of(int i, char *value) {
  size_t n = i < LARGE ? LARGE_SIZE : 40;
  value[0] = (char)0xda;
  value[1] = (char)(n >> 8);
  value[2] = (char)(n & 255);
  for (size_t at = 0; at < n; at++)
    value[3 + at] = (char)('a' + (i + (int)at) % 26);
  return n + 3;
}

static void fill(trouble *t) {
  static char value[LARGE_SIZE + 3];
  for (int i = 0; i < KEYS; i++) {
    char key[16];
    name_of(i, key);
    eg_outcome outcome = {.status = EG_OK, .kind = EG_KIND_VALUE};
    outcome.value = (eg_bytes){value, value_of(i, value)};
    assert_int_equal(trouble_ask(t, t->guard, key, EG_WANT_RUN, 0), EG_OK);
    assert_int_equal(eg_commit(t->guard, eg_str(key), &t->grant, &outcome,
                               &t->policy, &t->error),
                     EG_OK);
  }
}

static void close_all(trouble *t) {
  eg_close(t->guard);
  t->guard = NULL;
}

static void reopen(trouble *t) {
  t->guard = trouble_open(t, NULL);
  assert_non_null(t->guard);
}

/* Every key is what it was, or says that it cannot be read.  How many are. */
static int check_all(trouble *t) {
  static char value[LARGE_SIZE + 3];
  int whole = 0;
  for (int i = 0; i < KEYS; i++) {
    char key[16];
    name_of(i, key);
    eg_status status = trouble_ask(t, t->guard, key, EG_WANT_RUN, 0);
    if (status == EG_CORRUPT)
      continue;
    assert_int_equal(status, EG_CACHED);
    size_t n = value_of(i, value);
    assert_int_equal(t->reply.value.len, n);
    assert_memory_equal(t->reply.value.data, value, n);
    whole++;
  }
  return whole;
}

static eg_rebuilt rebuild(trouble *t) {
  eg_rebuilt rebuilt;
  eg_status status = eg_rebuild(t->url, NULL, &rebuilt, &t->error);
  if (status != EG_OK)
    fail_msg("%s", t->error.message);
  return rebuilt;
}

/* Pages are 4096 bytes; a page of -1: the log. */
static void damage(trouble *t, int page, int pages) {
  assert_int_equal(
      trouble_shell(t,
                    "dd if=/dev/urandom of=guard.db bs=4096 seek=%d "
                    "count=%d conv=notrunc 2>/dev/null",
                    page, pages),
      0);
}

static void settle(trouble *t) {
  assert_int_equal(trouble_shell(t, "test \"$(sqlite3 guard.db 'pragma "
                                    "wal_checkpoint(truncate)')\" = '0|0|0'"),
                   0);
}

static void whole_database_is_left_alone(void **state) {
  trouble *t = *state;
  fill(t);
  eg_rebuilt rebuilt = rebuild(t); /* while it is open */
  assert_true(rebuilt.whole);
  assert_string_equal(rebuilt.kept, "");
  assert_int_equal(check_all(t), KEYS);
}

static void rows_come_back_without_the_first_page(void **state) {
  trouble *t = *state;
  fill(t);
  close_all(t);
  settle(t);
  damage(t, 0, 1);
  reopen(t);
  assert_int_equal(trouble_ask(t, t->guard, "key 1", EG_WANT_RUN, 0),
                   EG_CORRUPT);
  close_all(t);
  eg_rebuilt rebuilt = rebuild(t);
  assert_false(rebuilt.whole);
  assert_int_equal(rebuilt.records, KEYS);
  assert_int_equal(rebuilt.history, KEYS);
  assert_int_equal(rebuilt.blocked, 0);
  assert_int_equal(trouble_shell(t, "test -s %s", rebuilt.kept), 0);
  reopen(t);
  assert_int_equal(check_all(t), KEYS);
  assert_int_equal(trouble_shell(t, "test \"$(sqlite3 guard.db 'pragma "
                                    "integrity_check')\" = ok"),
                   0);
}

static void run_again(trouble *t, const char *key) {
  t->policy.allow_rerun = true;
  assert_int_equal(trouble_ask(t, t->guard, key, EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, key), EG_OK);
  t->policy.allow_rerun = false;
}

static void log_that_was_not_copied_yet_counts(void **state) {
  trouble *t = *state;
  fill(t);
  close_all(t);
  settle(t);
  reopen(t);
  run_again(t, "key 77"); /* is in the log, and the first page is not */
  close_all(t);
  damage(t, 0, 1);
  reopen(t);
  assert_int_equal(trouble_ask(t, t->guard, "key 1", EG_WANT_RUN, 0),
                   EG_CORRUPT);
  close_all(t);
  assert_int_equal(rebuild(t).records, KEYS);
  reopen(t);
  assert_int_equal(trouble_ask(t, t->guard, "key 77", EG_WANT_RUN, 0),
                   EG_CACHED);
  assert_int_equal(t->reply.value.len, 1);
  assert_int_equal(trouble_fetch(t, "key 77"), EG_OK);
  assert_int_equal(t->record.count, 2);
}

static void key_that_cannot_be_read_is_blocked_until_a_reset(void **state) {
  trouble *t = *state;
  fill(t);
  assert_int_equal(trouble_ask(t, t->guard, "a lock", EG_WANT_LOCK, 0), EG_OK);
  assert_int_equal(eg_release(t->guard, eg_str("a lock"), 0, NULL), EG_OK);
  close_all(t);
  settle(t);
  damage(t, 0, 1000);
  eg_rebuilt rebuilt = rebuild(t);
  assert_int_equal(rebuilt.records, 0);
  assert_int_equal(rebuilt.blocked, KEYS);
  reopen(t);
  assert_int_equal(check_all(t), 0);
  assert_non_null(strstr(t->reply.failure.message, "reset"));
  /* one that never had a record is free */
  assert_int_equal(trouble_ask(t, t->guard, "a lock", EG_WANT_LOCK, 0), EG_OK);
  assert_int_equal(eg_reset(t->guard, eg_str("key 3"), &t->error), EG_OK);
  assert_int_equal(trouble_ask(t, t->guard, "key 3", EG_WANT_RUN, 0), EG_OK);
}

static void after_a_restart_every_lock_file_is_a_doubt(void **state) {
  trouble *t = *state;
  fill(t);
  assert_int_equal(trouble_ask(t, t->guard, "a lock", EG_WANT_LOCK, 0), EG_OK);
  close_all(t);
  settle(t);
  damage(t, 0, 1000);
  assert_int_equal(trouble_shell(t, "rm guard.shm"), 0);
  eg_rebuilt rebuilt = rebuild(t);
  assert_int_equal(rebuilt.blocked, KEYS + 1);
  reopen(t);
  assert_int_equal(check_all(t), 0);
  assert_int_equal(trouble_ask(t, t->guard, "a lock", EG_WANT_LOCK, 0),
                   EG_CORRUPT);
}

static int run_over_a_rebuild(trouble *t) {
  if (trouble_ask(t, t->guard, "mine", EG_WANT_RUN, 0) != EG_OK)
    return 1;
  eg_grant mine = t->grant;
  if (trouble_ask(t, t->guard, "key 1", EG_WANT_RUN, 0) != EG_CACHED)
    return 2; /* its database is open */
  trouble_raise(t, HELD);
  if (!trouble_await(t, GO_ON))
    return 3;
  t->grant = mine;
  if (trouble_finish(t, t->guard, "mine") != EG_OK)
    return 4;
  return trouble_ask(t, t->guard, "key 50", EG_WANT_RUN, 0) == EG_CACHED ? 0
                                                                         : 5;
}

static void processes_that_have_it_open_go_on_with_the_new_one(void **state) {
  trouble *t = *state;
  fill(t);
  close_all(t);
  pid_t child = trouble_child(t, run_over_a_rebuild);
  assert_true(trouble_await(t, HELD));
  trouble_await_row(t, "mine"); /* from then on nobody writes until its end */
  settle(t);
  damage(t, 0, 1);
  assert_false(rebuild(t).whole);
  trouble_raise(t, GO_ON);
  assert_int_equal(trouble_wait(child), 0);
  reopen(t);
  assert_int_equal(trouble_ask(t, t->guard, "mine", EG_WANT_RUN, 0),
                   EG_CACHED);
  assert_int_equal(check_all(t), KEYS);
}

static int rerun_over_a_rebuild(trouble *t) {
  if (trouble_ask(t, t->guard, "key 1", EG_WANT_RUN, 0) != EG_CACHED)
    return 1; /* its database is open */
  trouble_raise(t, OPENED);
  if (!trouble_await(t, TAKE))
    return 2;
  t->policy.allow_rerun = true;
  if (trouble_ask(t, t->guard, "key 77", EG_WANT_RUN, 0) != EG_OK)
    return 3;
  trouble_raise(t, HELD);
  if (!trouble_await(t, GO_ON))
    return 4;
  return trouble_finish(t, t->guard, "key 77") == EG_OK ? 0 : 5;
}

/* Whether or not the keeper came to write it down: all that can be read of the
** run that goes on is its slot, or a page of the log. */
static void run_that_goes_on_is_not_blocked(void **state) {
  trouble *t = *state;
  fill(t);
  close_all(t);
  pid_t child = trouble_child(t, rerun_over_a_rebuild);
  assert_true(trouble_await(t, OPENED));
  settle(t);
  trouble_raise(t, TAKE);
  assert_true(trouble_await(t, HELD));
  damage(t, 0, 100);
  eg_rebuilt rebuilt = rebuild(t);
  assert_false(rebuilt.whole);
  assert_true(rebuilt.records + rebuilt.blocked >= KEYS - 1);
  trouble_raise(t, GO_ON);
  assert_int_equal(trouble_wait(child), 0);
  reopen(t);
  assert_int_equal(trouble_ask(t, t->guard, "key 77", EG_WANT_RUN, 0),
                   EG_CACHED);
  assert_int_equal(t->reply.value.len, 1);
}

/* Both old ones are there, and both times what was in doubt is blocked. */
static void two_rebuilds_within_a_second_keep_two_files(void **state) {
  trouble *t = *state;
  fill(t);
  close_all(t);
  for (int i = 1; i <= 3; i++) {
    settle(t);
    damage(t, 0, 1000);
    assert_int_equal(rebuild(t).blocked, KEYS);
    assert_int_equal(
        trouble_shell(t, "test $(ls guard.db.broken-* | grep -vc wal) = %d",
                      i),
        0);
    reopen(t);
    assert_int_equal(trouble_ask(t, t->guard, "key 3", EG_WANT_RUN, 0),
                     EG_CORRUPT);
    assert_int_equal(eg_reset(t->guard, eg_str("key 3"), &t->error), EG_OK);
    run_again(t, "key 3");
    close_all(t);
  }
}

/* One kind of damage, by turns: pages, the end, a few bytes. */
static void break_it(trouble *t, int i, unsigned *seed, int size) {
  int pages = size / 4096, at = rand_r(seed) % size;
  if (i % 3 == 0)
    damage(t, rand_r(seed) % pages, 1 + rand_r(seed) % 3);
  else if (i % 3 == 1)
    assert_int_equal(trouble_shell(t, "truncate -s %d guard.db", at), 0);
  else
    assert_int_equal(trouble_shell(t,
                                   "dd if=/dev/urandom of=guard.db bs=1 "
                                   "seek=%d count=9 conv=notrunc 2>/dev/null",
                                   at),
                     0);
}

/* Whatever is broken: no crash; and where pages are, no result that was never
** written.  (A few bytes may be those of a time.) */
static void random_damage_does_no_harm(void **state) {
  trouble *t = *state;
  struct stat st;
  char path[128];
  fill(t);
  close_all(t);
  settle(t);
  snprintf(path, sizeof path, "%s/guard.db", t->folder);
  assert_int_equal(stat(path, &st), 0);
  assert_int_equal(trouble_shell(t, "cp guard.db whole"), 0);
  unsigned seed = 1;
  for (int i = 0; i < trouble_scaled(45); i++) {
    assert_int_equal(trouble_shell(t, "cat whole > guard.db"), 0);
    break_it(t, i, &seed, (int)st.st_size);
    eg_rebuilt rebuilt = rebuild(t);
    reopen(t);
    int whole = i % 3 == 2 ? 0 : check_all(t);
    assert_true(rebuilt.whole || rebuilt.records >= (uint64_t)whole);
    close_all(t);
    assert_int_equal(
        trouble_shell(t, "rm -f guard.db* guard.shm && cp whole guard.db"), 0);
  }
}

static void other_stores_have_nothing_to_rebuild(void **state) {
  trouble *t = *state;
  eg_rebuilt rebuilt;
  assert_int_equal(eg_rebuild("memory", NULL, &rebuilt, &t->error),
                   EG_UNSUPPORTED);
  char url[128];
  snprintf(url, sizeof url, "%s/locks?locks=.", t->url);
  assert_int_equal(eg_rebuild(url, NULL, &rebuilt, &t->error), EG_UNSUPPORTED);
  snprintf(url, sizeof url, "%s/empty", t->url);
  assert_int_equal(eg_rebuild(url, NULL, &rebuilt, &t->error), EG_UNAVAILABLE);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TROUBLE(whole_database_is_left_alone),
      TROUBLE(rows_come_back_without_the_first_page),
      TROUBLE(log_that_was_not_copied_yet_counts),
      TROUBLE(key_that_cannot_be_read_is_blocked_until_a_reset),
      TROUBLE(after_a_restart_every_lock_file_is_a_doubt),
      TROUBLE(processes_that_have_it_open_go_on_with_the_new_one),
      TROUBLE(run_that_goes_on_is_not_blocked),
      TROUBLE(two_rebuilds_within_a_second_keep_two_files),
      TROUBLE(random_damage_does_no_harm),
      TROUBLE(other_stores_have_nothing_to_rebuild),
  };
  alarm(300);
  return cmocka_run_group_tests_name("rebuild", tests, NULL, NULL);
}
