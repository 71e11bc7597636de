/* SPDX-License-Identifier: MIT
** What there is to do while the store is away.
*/
#include "support.h"

static void unguarded_run_is_judged_counted_and_stored_nowhere(void **state) {
  spec_world *w = *state;
  eg_guard *guard = w->guard;
  eg_stats before, after;
  eg_grant grant;
  eg_record record;
  eg_stats_read(&before);
  eg_begin_unguarded(guard, &grant);
  assert_int_equal(grant.token, 0);
  assert_int_equal(grant.want, EG_WANT_RUN);
  eg_outcome outcome = spec_done();
  assert_int_equal(eg_commit(guard, eg_str("k"), &grant, &outcome, NULL, NULL),
                   EG_OK);
  assert_int_equal(eg_fetch(guard, eg_str("k"), &record, NULL), EG_NOTFOUND);
  eg_record_free(&record);
  eg_begin_unguarded(guard, &grant);
  grant.deadline_us = grant.start_us;
  assert_int_equal(eg_commit(guard, eg_str("k"), &grant, &outcome, NULL, NULL),
                   EG_TIMEOUT);
  eg_stats_read(&after);
  assert_int_equal(after.executions, before.executions + 2);
  assert_int_equal(after.timed_out, before.timed_out + 1);
}

static void recall_of_a_store_that_is_near_knows_nothing(void **state) {
  spec_world *w = *state;
  eg_guard *guard = w->guard;
  eg_reply reply;
  eg_reply_init(&reply);
  assert_int_equal(eg_recall(guard, eg_str("k"), &reply), EG_NOTFOUND);
  assert_int_equal(reply.kind, EG_KIND_NONE);
  eg_reply_free(&reply);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ONE_WAY(unguarded_run_is_judged_counted_and_stored_nowhere),
      ONE_WAY(recall_of_a_store_that_is_near_knows_nothing),
  };
  return cmocka_run_group_tests_name("away", tests, NULL, NULL);
}
