/* SPDX-License-Identifier: MIT
** What is on the disk when a call returns: seen by a disk that cannot be
** written through (fdatasync fails), which only who asks for it meets.
*/
#include "faults.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct answers {
  eg_status began, ended;
} answers;

static int run_without_sync(trouble *t) {
  answers *a = t->shared;
  trouble_answer(SYS_fdatasync, EIO);
  a->began = trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0);
  if (a->began == EG_OK)
    a->ended = trouble_finish(t, t->guard, "k");
  return 0;
}

static int end_without_sync(trouble *t) {
  answers *a = t->shared;
  a->began = trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0);
  trouble_answer(SYS_fdatasync, EIO);
  a->ended = trouble_finish(t, t->guard, "k");
  return 0;
}

static bool open_for_full_sync(trouble *t) {
  eg_close(t->guard);
  t->guard = trouble_open(t, "?sync=full");
  return t->guard != NULL;
}

static int begin_by_sync_full(trouble *t) {
  return open_for_full_sync(t) ? run_without_sync(t) : 1;
}

static int end_by_sync_full(trouble *t) {
  return open_for_full_sync(t) ? end_without_sync(t) : 1;
}

static int begin_by_block(trouble *t) {
  t->policy.block_after_crash = true;
  return run_without_sync(t);
}

static int end_by_block(trouble *t) {
  t->policy.block_after_crash = true;
  return end_without_sync(t);
}

/* The database is there: to make it is synced in any case. */
static answers answers_of(trouble *t, int (*body)(trouble *t)) {
  assert_int_equal(trouble_ask(t, t->guard, "other", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, "other"), EG_OK);
  int answer = trouble_wait(trouble_child(t, body));
  if (answer == TROUBLE_NO_FILTER)
    skip();
  assert_int_equal(answer, 0);
  return *(answers *)t->shared;
}

static void run_is_not_synced_unless_that_is_asked_for(void **state) {
  answers a = answers_of(*state, run_without_sync);
  assert_int_equal(a.began, EG_OK);
  assert_int_equal(a.ended, EG_OK);
}

/* fn would not be called. */
static void beginning_is_refused(trouble *t, int (*body)(trouble *t)) {
  answers a = answers_of(t, body);
  assert_true(a.began == EG_UNAVAILABLE || a.began == EG_INDETERMINATE);
}

static void end_is_uncommitted(trouble *t, int (*body)(trouble *t)) {
  answers a = answers_of(t, body);
  assert_int_equal(a.began, EG_OK);
  assert_int_equal(a.ended, EG_UNCOMMITTED);
}

static void beginning_is_synced_by_sync_full(void **state) {
  beginning_is_refused(*state, begin_by_sync_full);
}

static void end_is_synced_by_sync_full(void **state) {
  end_is_uncommitted(*state, end_by_sync_full);
}

static void beginning_is_synced_where_a_crash_blocks(void **state) {
  beginning_is_refused(*state, begin_by_block);
}

static void end_is_synced_where_a_crash_blocks(void **state) {
  end_is_uncommitted(*state, end_by_block);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TROUBLE(run_is_not_synced_unless_that_is_asked_for),
      TROUBLE(beginning_is_synced_by_sync_full),
      TROUBLE(end_is_synced_by_sync_full),
      TROUBLE(beginning_is_synced_where_a_crash_blocks),
      TROUBLE(end_is_synced_where_a_crash_blocks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
