/* SPDX-License-Identifier: MIT
** Three etcd members in network namespaces of their own, of which one is cut
** off: from the others, or from everybody.  Safety holds, and work goes on.
**
** Wants to be root, and `ip`.  Real servers and real time: bounds are generous.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calls.h"
#include "etcd_server.h"
#include "world.h"

#include <cmocka.h>

static etcd_cluster three;

static eg_guard *open_at(const char *url) {
  eg_guard *guard = NULL;
  eg_error error;
  eg_options options = {.store = url, .name = "cut"};
  if (eg_open(&options, &guard, &error) != EG_OK)
    fail_msg("%s", error.message);
  return guard;
}

static bool is_surely_refused(eg_status status) {
  return status == EG_UNAVAILABLE || status == EG_INDETERMINATE;
}

typedef struct waiter {
  eg_guard *guard;
  eg_grant grant;
  eg_status status;
} waiter;

static void *wait_for_lock(void *ctx) {
  waiter *w = ctx;
  w->status = ask(w->guard, "k", EG_WANT_LOCK, 60000, &w->grant);
  return NULL;
}

static int the_leader(void) {
  int leader = -1;
  for (int i = 0; i < 300 && (leader = etcd_leader(&three)) < 0; i++)
    usleep(100000);
  assert_true(leader >= 0);
  return leader;
}

/* Who knows but the one that is cut off learns nothing that is not so, and
** changes nothing. */
static void one_that_is_alone_promises_nothing(int alone) {
  char url[128];
  eg_grant grant;
  eg_guard *guard = NULL;
  eg_options options = {.store = url, .name = "cut"};
  snprintf(url, sizeof url, "etcd://%s:%d?timeout=1", three.hosts[alone],
           three.ports[alone]);
  eg_status status = eg_open(&options, &guard, NULL);
  assert_true(status == EG_OK || is_surely_refused(status));
  if (status != EG_OK)
    return;
  assert_true(is_surely_refused(ask(guard, "k", EG_WANT_LOCK, 0, &grant)));
  assert_true(is_surely_refused(ask(guard, "r", EG_WANT_RUN, 0, &grant)));
  eg_close(guard);
}

static void work_goes_on_when_the_leader_is(etcd_cut how) {
  pthread_t thread;
  eg_grant run, held;
  int leader = the_leader();
  const char *url = etcd_url(&three, "", "timeout=60&lease=100");
  eg_guard *holder = open_at(url), *other = open_at(url);
  waiter w = {.guard = other, .status = EG_INTERNAL};
  assert_int_equal(eg_reset(holder, eg_str("r"), NULL), EG_OK);
  assert_int_equal(ask(holder, "r", EG_WANT_RUN, 0, &run), EG_OK);
  assert_int_equal(ask(holder, "k", EG_WANT_LOCK, 0, &held), EG_OK);
  assert_int_equal(pthread_create(&thread, NULL, wait_for_lock, &w), 0);
  usleep(200000);
  assert_true(etcd_cut_off(&three, leader, how));
  assert_int_equal(commit(holder, "r", &run), EG_OK);
  assert_int_equal(eg_release(holder, eg_str("k"), held.token, NULL), EG_OK);
  pthread_join(thread, NULL);
  assert_int_equal(w.status, EG_OK);
  assert_true(w.grant.token > held.token);
  if (how == ETCD_ALONE)
    one_that_is_alone_promises_nothing(leader);
  assert_int_equal(ask(holder, "k", EG_WANT_LOCK, 0, &held), EG_LOCKED);
  assert_true(etcd_cut_off(&three, leader, ETCD_TOGETHER));
  the_leader();
  assert_int_equal(ask(holder, "k", EG_WANT_LOCK, 0, &held), EG_LOCKED);
  assert_int_equal(ask(holder, "r", EG_WANT_RUN, 0, &run), EG_CACHED);
  assert_int_equal(eg_release(other, eg_str("k"), w.grant.token, NULL), EG_OK);
  assert_int_equal(ask(holder, "k", EG_WANT_LOCK, 0, &held), EG_OK);
  assert_true(held.token > w.grant.token);
  eg_close(other);
  eg_close(holder);
}

static void work_goes_on_when_the_leader_is_alone(void **state) {
  (void)state;
  work_goes_on_when_the_leader_is(ETCD_ALONE);
}

static void work_goes_on_when_the_leader_is_away(void **state) {
  (void)state;
  work_goes_on_when_the_leader_is(ETCD_AWAY);
}

static void what_one_alone_did_not_hear_of_is_lost_nowhere(void **state) {
  (void)state;
  eg_grant grant;
  int leader = the_leader(), cut = (leader + 1) % 3;
  eg_guard *guard = open_at(etcd_url(&three, "", "timeout=60&lease=100"));
  assert_true(etcd_cut_off(&three, cut, ETCD_AWAY));
  for (int i = 0; i < 20; i++) {
    char key[8];
    snprintf(key, sizeof key, "f%d", i);
    assert_int_equal(ask(guard, key, EG_WANT_RUN, 0, &grant), EG_OK);
    assert_int_equal(commit(guard, key, &grant), EG_OK);
  }
  assert_true(etcd_cut_off(&three, cut, ETCD_TOGETHER));
  char url[128];
  snprintf(url, sizeof url, "etcd://%s:%d?timeout=60", three.hosts[cut],
           three.ports[cut]);
  eg_guard *late = open_at(url);
  for (int i = 0; i < 20; i++) {
    char key[8];
    snprintf(key, sizeof key, "f%d", i);
    assert_int_equal(ask(late, key, EG_WANT_RUN, 0, &grant), EG_CACHED);
  }
  eg_close(late);
  eg_close(guard);
}

static int start(void **state) {
  (void)state;
  return etcd_start(&three, 3, ETCD_APART) ? 0 : -1;
}

static int end(void **state) {
  (void)state;
  etcd_end(&three);
  return 0;
}

static void namespaces_are_not_allowed_here(void **state) {
  (void)state;
  skip();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(work_goes_on_when_the_leader_is_alone),
      cmocka_unit_test(work_goes_on_when_the_leader_is_away),
      cmocka_unit_test(what_one_alone_did_not_hear_of_is_lost_nowhere),
  };
  const struct CMUnitTest none[] = {
      cmocka_unit_test(namespaces_are_not_allowed_here),
  };
  alarm(280);
  if (!etcd_may_part())
    return cmocka_run_group_tests_name("etcd, cut off", none, NULL, NULL);
  return cmocka_run_group_tests_name("etcd, cut off", tests, start, end);
}
