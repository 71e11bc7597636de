/* SPDX-License-Identifier: MIT
** Rows that a process has read are kept while it writes others itself, and not
** a moment longer than they are right.
*/
#include "faults.h"

#include "guard/guard.h"
#include "store/file.h"

#include <string.h>

/* It rises when all that is cached is thrown away. */
static uint64_t generation(const trouble *t) {
  egi_dir *dir = ((egi_file *)t->guard->store)->dir;
  pthread_mutex_lock(&dir->cache_mutex);
  uint64_t number = dir->generation;
  pthread_mutex_unlock(&dir->cache_mutex);
  return number;
}

static eg_status run_it(trouble *t, const char *key, const char *result) {
  eg_outcome outcome = {
      .status = EG_OK, .kind = EG_KIND_VALUE, .value = eg_str(result)};
  t->policy.allow_rerun = true;
  eg_status status = trouble_ask(t, t->guard, key, EG_WANT_RUN, 0);
  t->policy.allow_rerun = false;
  return status != EG_OK ? status
                         : eg_commit(t->guard, eg_str(key), &t->grant,
                                     &outcome, &t->policy, &t->error);
}

static void expect(trouble *t, const char *key, const char *result) {
  assert_int_equal(trouble_ask(t, t->guard, key, EG_WANT_RUN, 0), EG_CACHED);
  assert_int_equal(t->reply.value.len, strlen(result));
  assert_memory_equal(t->reply.value.data, result, strlen(result));
}

/* Both rows are in the cache. */
static void warm(trouble *t) {
  assert_int_equal(run_it(t, "a", "1"), EG_OK);
  assert_int_equal(run_it(t, "b", "1"), EG_OK);
  expect(t, "a", "1");
  expect(t, "b", "1");
}

static void own_writes_leave_other_rows_in_the_cache(void **state) {
  trouble *t = *state;
  warm(t);
  int kept = 0;
  for (int i = 0; i < 40; i++) { /* now and then the keeper makes a table */
    uint64_t before = generation(t);
    assert_int_equal(run_it(t, i % 2 ? "b" : "c", "2"), EG_OK);
    expect(t, "a", "1");
    expect(t, i % 2 ? "b" : "c", "2");
    kept += generation(t) == before;
  }
  assert_true(kept > 20);
  assert_int_equal(eg_reset(t->guard, eg_str("b"), &t->error), EG_OK);
  assert_int_equal(run_it(t, "b", "3"), EG_OK);
  expect(t, "b", "3");
}

static int write_b(trouble *t) { return run_it(t, "b", "2") != EG_OK; }

static void write_of_another_process_is_seen(void **state) {
  trouble *t = *state;
  warm(t);
  assert_int_equal(trouble_wait(trouble_child(t, write_b)), 0);
  expect(t, "b", "2");
}

static void write_of_another_process_before_an_own_one_is_seen(void **state) {
  trouble *t = *state;
  warm(t);
  assert_int_equal(trouble_wait(trouble_child(t, write_b)), 0);
  assert_int_equal(run_it(t, "c", "1"), EG_OK);
  expect(t, "b", "2");
  expect(t, "a", "1");
}

static void write_of_another_program_is_seen(void **state) {
  trouble *t = *state;
  warm(t);
  assert_int_equal(
      trouble_shell(t, "sqlite3 -cmd '.timeout 5000' guard.db \"delete from "
                       "runs where key=cast('a' as blob)\""),
      0);
  assert_int_equal(run_it(t, "b", "2"), EG_OK);
  assert_int_equal(trouble_ask(t, t->guard, "a", EG_WANT_RUN, 0), EG_OK);
}

static int write_for_a_while(trouble *t) {
  for (int i = 0; i < trouble_scaled(300); i++) {
    char text[2] = {(char)('a' + i % 26), '\0'};
    if (run_it(t, "b", text) != EG_OK)
      return 1;
    t->policy.allow_rerun = false;
    if (trouble_ask(t, t->guard, "b", EG_WANT_RUN, 0) != EG_CACHED ||
        t->reply.value.len != 1 || memcmp(t->reply.value.data, text, 1) != 0)
      return 2;
  }
  return 0;
}

/* What another process has said that it wrote is never read as older: tokens
** only rise. */
static void nothing_older_than_what_was_read_is_read(void **state) {
  trouble *t = *state;
  uint64_t last = 0;
  warm(t);
  pid_t child = trouble_child(t, write_for_a_while);
  for (int i = 0; i < trouble_scaled(600); i++) {
    assert_int_equal(run_it(t, "c", "1"), EG_OK);
    eg_status status = trouble_fetch(t, "b");
    assert_int_equal(status, EG_OK);
    assert_true(t->record.token >= last);
    last = t->record.token;
  }
  assert_int_equal(trouble_wait(child), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TROUBLE(own_writes_leave_other_rows_in_the_cache),
      TROUBLE(write_of_another_process_is_seen),
      TROUBLE(write_of_another_process_before_an_own_one_is_seen),
      TROUBLE(write_of_another_program_is_seen),
      TROUBLE(nothing_older_than_what_was_read_is_read),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
