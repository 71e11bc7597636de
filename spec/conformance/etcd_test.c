/* SPDX-License-Identifier: MIT
** The etcd store on real servers: leases in real time, wires that are cut,
** servers that die and come back, three members, users, TLS.
**
** Real servers take real time, and etcd's leases are whole seconds; every bound
** here is generous.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"
#include "etcd_server.h"
#include "server.h"
#include "support.h"
#include "world.h"

#include <cmocka.h>

static etcd_cluster one, three;
static wire line;

static int start_one(void **state) {
  (void)state;
  return etcd_start(&one, 1, 0) && wire_start_port(&line, one.ports[0]) ? 0
                                                                        : -1;
}

static int end_one(void **state) {
  (void)state;
  wire_end(&line);
  etcd_end(&one);
  return 0;
}

static eg_status try_open(const char *url, eg_guard **guard, eg_error *error) {
  eg_options options = {.store = url, .name = "faults"};
  return eg_open(&options, guard, error);
}

static eg_guard *open_at(const char *url) {
  eg_guard *guard = NULL;
  eg_error error;
  if (try_open(url, &guard, &error) != EG_OK)
    fail_msg("%s", error.message);
  return guard;
}

/* Without a query: time enough for a machine that does much else. */
static eg_guard *open_guard(const char *query) {
  return open_at(
      etcd_url(&one, "", *query != '\0' ? query : "timeout=60&lease=100"));
}

static eg_guard *open_wire(void) {
  char url[128];
  snprintf(url, sizeof url, "etcd://127.0.0.1:%d?timeout=60&lease=100",
           line.port);
  return open_at(url);
}

static eg_status acquire(eg_guard *guard, const char *key, eg_want want,
                         int64_t lease_ms, eg_grant *grant, char *message) {
  eg_policy policy = EG_POLICY_DEFAULT;
  policy.lease_ms = lease_ms;
  return ask_by(guard, key, want, &policy, 0, grant, message);
}

static eg_status wait_lock(eg_guard *guard, const char *key, int64_t wait_ms) {
  eg_grant grant;
  return ask(guard, key, EG_WANT_LOCK, wait_ms, &grant);
}

static bool is_empty(void) {
  return *etcd_say(&one, 0, "get --prefix eg/faults/ --keys-only") == '\0';
}

static void forget_all(void) {
  etcd_say(&one, 0, "del --prefix eg/");
  assert_true(is_empty());
}

/* -------------------------------------------------------------- leases -- */

static void lease_is_whole_seconds_at_least_two(void **state) {
  (void)state;
  char message[300];
  eg_grant grant;
  eg_guard *guard = open_guard("");
  static const int64_t bad[] = {1, 1000, 1999, 2500};
  forget_all();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(
        acquire(guard, "k", EG_WANT_LOCK, bad[i], &grant, message),
        EG_INVALID);
    assert_non_null(strstr(message, "whole number of seconds"));
  }
  assert_true(is_empty());
  assert_int_equal(acquire(guard, "k", EG_WANT_LOCK, 2000, &grant, NULL),
                   EG_OK);
  assert_int_equal(unlock(guard, "k"), EG_OK);
  assert_true(is_empty()); /* a lock leaves nothing behind */
  eg_close(guard);
}

/* A process that is killed: nobody but etcd ends its hold, and nobody but etcd
** wakes who waits. */
static void hold_of_a_killed_process_ends_with_its_lease(void **state) {
  (void)state;
  int ready[2];
  char byte;
  forget_all();
  assert_int_equal(pipe(ready), 0);
  pid_t child = fork();
  if (child == 0) {
    eg_grant grant;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    eg_guard *guard = open_guard("timeout=60&lease=2");
    int good = acquire(guard, "k", EG_WANT_RUN, 0, &grant, NULL) == EG_OK &&
               write(ready[1], "x", 1) == 1;
    pause();
    _exit(good);
  }
  assert_int_equal(read(ready[0], &byte, 1), 1);
  eg_guard *guard = open_guard("");
  assert_int_equal(lock(guard, "k"), EG_LOCKED);
  int64_t begin = eg_now_us();
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  assert_int_equal(wait_lock(guard, "k", 60000), EG_OK);
  assert_true(eg_now_us() - begin > 500000);
  assert_int_equal(status_of(guard, "k", NULL), EG_RUN_FAILED);
  close(ready[0]);
  close(ready[1]);
  eg_close(guard);
}

static void await_loss(eg_guard *guard, const char *key, uint64_t token) {
  for (int i = 0; i < 3000 && eg_believes(guard, eg_str(key), token); i++)
    usleep(10000);
  assert_false(eg_believes(guard, eg_str(key), token));
}

/* The lease that a key of theirs has. */
static unsigned long long lease_of(const char *key) {
  char words[128];
  snprintf(words, sizeof words, "get -w fields eg/faults/%s", key);
  const char *lease = strstr(etcd_say(&one, 0, words), "\"Lease\" : ");
  assert_non_null(lease);
  return strtoull(lease + 10, NULL, 10);
}

static void revoke_lease_of(const char *key) {
  char words[128];
  snprintf(words, sizeof words, "lease revoke %llx", lease_of(key));
  assert_non_null(strstr(etcd_say(&one, 0, words), "revoked"));
}

static void hold_is_kept_beyond_its_lease_until_that_is_revoked(void **state) {
  (void)state;
  eg_grant grant, broken;
  eg_guard *guard = open_guard("timeout=60&lease=2");
  eg_guard *other = open_guard("");
  forget_all();
  assert_int_equal(acquire(guard, "k", EG_WANT_LOCK, 0, &grant, NULL), EG_OK);
  assert_int_equal(acquire(guard, "b", EG_WANT_LOCK, 0, &broken, NULL), EG_OK);
  usleep(3500000); /* longer than a lease, and than etcd takes to end one */
  assert_true(eg_believes(guard, eg_str("k"), grant.token));
  assert_int_equal(lock(other, "k"), EG_LOCKED);
  revoke_lease_of("own/k");
  assert_int_equal(eg_reset(other, eg_str("b"), NULL), EG_OK);
  await_loss(guard, "k", grant.token);  /* its lease answers without a TTL */
  await_loss(guard, "b", broken.token); /* its lease lives */
  assert_int_equal(lock(other, "k"), EG_OK);
  assert_int_equal(eg_release(guard, eg_str("k"), grant.token, NULL), EG_LOST);
  eg_close(other);
  eg_close(guard);
}

static void run_once(eg_guard *guard, const char *key) {
  eg_grant grant;
  assert_int_equal(acquire(guard, key, EG_WANT_RUN, 0, &grant, NULL), EG_OK);
  assert_int_equal(commit(guard, key, &grant), EG_OK);
}

static bool count_past(void *ctx, const eg_past *past) {
  (void)past;
  ++*(int *)ctx;
  return true;
}

static int count_runs(eg_guard *guard, const char *key) {
  int n = 0;
  assert_int_equal(eg_history(guard, eg_str(key), 9, count_past, &n, NULL),
                   EG_OK);
  return n;
}

/* Whoever ends a run first makes it; 90 days and the one that it is of. */
static void runs_of_a_day_go_with_one_lease(void **state) {
  (void)state;
  char words[64];
  eg_guard *guard = open_guard(""), *other = open_guard("");
  forget_all();
  run_once(guard, "a");
  run_once(other, "b");
  unsigned long long lease = lease_of("his/a/01");
  unsigned long long its = lease_of("his/b/01");
  assert_true(lease != 0 && (its == lease || its == lease + 1)); /* midnight */
  snprintf(words, sizeof words, "lease timetolive %llx", lease);
  assert_non_null(
      strstr(etcd_say(&one, 0, words), "granted with TTL(7862400s)"));
  assert_int_equal(count_runs(guard, "a"), 1);
  revoke_lease_of("his/a/01");
  assert_int_equal(count_runs(guard, "a"), 0);
  run_once(guard, "d");
  assert_int_equal(count_runs(guard, "d"), 1);
  assert_int_equal(status_of(guard, "a", NULL), EG_RUN_COMPLETED);
  eg_close(other);
  eg_close(guard);
}

/* --------------------------------------------------------------- wires -- */

static void lock_and_release_take_one_request_each(void **state) {
  (void)state;
  eg_guard *guard = open_wire();
  forget_all();
  assert_int_equal(lock(guard, "k"), EG_OK);
  assert_int_equal(unlock(guard, "k"), EG_OK);
  int before = atomic_load(&line.posts);
  for (int i = 0; i < 10; i++) {
    assert_int_equal(lock(guard, "k"), EG_OK);
    assert_int_equal(unlock(guard, "k"), EG_OK);
  }
  /* And now and then one that keeps the lease, on a slow machine. */
  int posts = atomic_load(&line.posts) - before;
  assert_true(posts >= 20 && posts <= 30);
  eg_close(guard);
}

static void grant_whose_answer_was_lost_is_known_again(void **state) {
  (void)state;
  eg_grant grant;
  eg_guard *guard = open_wire();
  forget_all();
  assert_int_equal(lock(guard, "warm"), EG_OK);
  for (int i = 0; i < 5; i++) {
    int cuts = atomic_load(&line.cuts);
    atomic_store(&line.cut_after, "\"compare\"");
    assert_int_equal(lock(guard, "k"), EG_OK);
    assert_int_equal(atomic_load(&line.cuts), cuts + 1);
    atomic_store(&line.cut_after, "\"compare\"");
    assert_int_equal(unlock(guard, "k"), EG_OK);
    assert_int_equal(atomic_load(&line.cuts), cuts + 2);
    assert_int_equal(unlock(guard, "k"), EG_LOST);
  }
  atomic_store(&line.cut_after, "\"compare\"");
  assert_int_equal(acquire(guard, "r", EG_WANT_RUN, 0, &grant, NULL), EG_OK);
  atomic_store(&line.cut_after, "\"compare\"");
  assert_int_equal(commit(guard, "r", &grant), EG_OK);
  uint32_t count = 0;
  assert_int_equal(status_of(guard, "r", &count), EG_RUN_COMPLETED);
  assert_int_equal(count, 1);
  eg_close(guard);
}

static void request_that_never_came_is_sent_again(void **state) {
  (void)state;
  eg_grant grant;
  eg_guard *guard = open_wire();
  forget_all();
  assert_int_equal(lock(guard, "warm"), EG_OK);
  atomic_store(&line.swallow, "\"compare\"");
  assert_int_equal(acquire(guard, "k", EG_WANT_RUN, 0, &grant, NULL), EG_OK);
  atomic_store(&line.swallow, "\"compare\"");
  assert_int_equal(commit(guard, "k", &grant), EG_OK);
  assert_true(wire_deliver(&line)); /* late, it does nothing */
  uint32_t count = 0;
  assert_int_equal(status_of(guard, "k", &count), EG_RUN_COMPLETED);
  assert_int_equal(count, 1);
  eg_close(guard);
}

typedef struct waiter {
  eg_guard *guard;
  eg_status status;
} waiter;

static void *wait_for_lock(void *ctx) {
  waiter *w = ctx;
  w->status = wait_lock(w->guard, "k", 60000);
  return NULL;
}

/* ---------------------------------------------------------------- servers - */

static void key_of_somebody_else_is_corrupt(void **state) {
  (void)state;
  eg_guard *guard = open_guard("");
  forget_all();
  etcd_say(&one, 0, "put eg/faults/rec/k hello");
  assert_int_equal(lock(guard, "k"), EG_CORRUPT);
  assert_non_null(strstr(etcd_say(&one, 0, "get eg/faults/rec/k"), "hello"));
  eg_close(guard);
}

/* By its own limit, or by that of what carries requests to it. */
static void result_that_is_too_large_for_it_is_refused_at_once(void **state) {
  (void)state;
  enum { LARGE = 3000000 };
  static unsigned char value[LARGE + 5] = {0xc6, 0, 0x2d, 0xc6, 0xc0};
  eg_grant grant;
  eg_error error;
  eg_policy policy = EG_POLICY_DEFAULT;
  eg_guard *guard = open_guard("");
  policy.max_result = 2 * LARGE;
  forget_all();
  for (size_t size = sizeof value; size > 1000000; size -= 1400000) {
    eg_outcome outcome = {.status = EG_OK, .kind = EG_KIND_VALUE};
    uint32_t len = (uint32_t)size - 5;
    for (int i = 0; i < 4; i++)
      value[1 + i] = (unsigned char)(len >> (24 - 8 * i));
    outcome.value = (eg_bytes){value, size};
    assert_int_equal(acquire(guard, "k", EG_WANT_RUN, 0, &grant, NULL), EG_OK);
    assert_int_equal(
        eg_commit(guard, eg_str("k"), &grant, &outcome, &policy, &error),
        EG_INVALID);
    assert_non_null(strstr(error.message, "--max-request-bytes"));
    outcome = (eg_outcome){.status = EG_FAILED, .error = eg_str("too large")};
    eg_commit(guard, eg_str("k"), &grant, &outcome, NULL, NULL);
    assert_int_equal(status_of(guard, "k", NULL), EG_RUN_FAILED);
  }
  eg_close(guard);
}

static void dead_server_is_unavailable_in_time_and_comes_back(void **state) {
  (void)state;
  eg_grant grant;
  eg_guard *guard = open_guard("timeout=1&lease=60");
  forget_all();
  assert_int_equal(acquire(guard, "k", EG_WANT_LOCK, 0, &grant, NULL), EG_OK);
  etcd_kill(&one, 0);
  int64_t begin = eg_now_us();
  assert_int_equal(lock(guard, "other"), EG_UNAVAILABLE);
  assert_true(eg_now_us() - begin < 20000000);
  assert_true(etcd_restart(&one, 0));
  assert_int_equal(lock(guard, "k"), EG_LOCKED);
  assert_int_equal(lock(guard, "other"), EG_OK);
  assert_int_equal(eg_release(guard, eg_str("k"), grant.token, NULL), EG_OK);
  eg_close(guard);
}

static void paused_server_leaves_a_doubt_that_is_settled(void **state) {
  (void)state;
  eg_grant grant;
  eg_guard *guard = open_guard("timeout=1&lease=100");
  forget_all();
  assert_int_equal(acquire(guard, "k", EG_WANT_RUN, 0, &grant, NULL), EG_OK);
  etcd_signal(&one, 0, SIGSTOP);
  eg_status first = commit(guard, "k", &grant);
  etcd_signal(&one, 0, SIGCONT);
  assert_int_equal(first, EG_UNCOMMITTED);
  assert_int_equal(commit(guard, "k", &grant), EG_OK);
  uint32_t count = 0;
  assert_int_equal(status_of(guard, "k", &count), EG_RUN_COMPLETED);
  assert_int_equal(count, 1);
  eg_close(guard);
}

static void child_neither_ends_nor_uses_its_parents_holds(void **state) {
  (void)state;
  SPEC_FORKS_THREADS();
  eg_guard *guard = open_guard("");
  forget_all();
  assert_int_equal(lock(guard, "k"), EG_OK);
  pid_t child = fork();
  if (child == 0) {
    int bad = lock(guard, "k") != EG_LOCKED;
    bad = bad || lock(guard, "own") != EG_OK;
    bad = bad || unlock(guard, "k") != EG_LOST;
    eg_close(guard);
    _exit(bad);
  }
  int status = -1;
  waitpid(child, &status, 0);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  assert_int_equal(lock(guard, "k"), EG_LOCKED);
  assert_int_equal(lock(guard, "own"), EG_OK); /* it ended with the child */
  assert_int_equal(unlock(guard, "k"), EG_OK);
  eg_close(guard);
}

/* ------------------------------------------------------- three members -- */

static int start_three(void **state) {
  (void)state;
  return etcd_start(&three, 3, 0) ? 0 : -1;
}

static int end_three(void **state) {
  (void)state;
  etcd_end(&three);
  return 0;
}

/* Whichever is asked, with its leader killed or stopped: who waits is woken,
** tokens rise, what was committed is there. */
static void work_goes_on_without(int leader, int signal_number) {
  pthread_t thread;
  eg_grant grant, next;
  const char *query = "timeout=60&lease=100";
  assert_true(leader >= 0);
  eg_guard *holder = open_at(etcd_url(&three, "", query));
  eg_guard *other = open_at(etcd_url(&three, "", query));
  waiter w = {other, EG_INTERNAL};
  assert_int_equal(acquire(holder, "r", EG_WANT_RUN, 0, &grant, NULL), EG_OK);
  assert_int_equal(acquire(holder, "k", EG_WANT_LOCK, 0, &next, NULL), EG_OK);
  uint64_t token = next.token;
  assert_int_equal(pthread_create(&thread, NULL, wait_for_lock, &w), 0);
  usleep(100000);
  etcd_signal(&three, leader, signal_number);
  assert_int_equal(commit(holder, "r", &grant), EG_OK);
  assert_int_equal(unlock(holder, "k"), EG_OK);
  pthread_join(thread, NULL);
  assert_int_equal(w.status, EG_OK);
  assert_int_equal(status_of(other, "r", NULL), EG_RUN_COMPLETED);
  assert_int_equal(unlock(other, "k"), EG_OK);
  assert_int_equal(acquire(holder, "k", EG_WANT_LOCK, 0, &next, NULL), EG_OK);
  assert_true(next.token > token);
  assert_int_equal(lock(other, "k"), EG_LOCKED);
  assert_int_equal(eg_reset(other, eg_str("r"), NULL), EG_OK);
  eg_close(other);
  eg_close(holder);
}

static void work_goes_on_when_the_leader_is_stopped_or_dies(void **state) {
  (void)state;
  int leader = etcd_leader(&three);
  work_goes_on_without(leader, SIGSTOP);
  etcd_signal(&three, leader, SIGCONT);
  for (int i = 0; i < 300 && (leader = etcd_leader(&three)) < 0; i++)
    usleep(100000);
  work_goes_on_without(leader, SIGKILL);
}

static void two_of_three_dead_is_unavailable(void **state) {
  (void)state;
  eg_guard *guard = open_at(etcd_url(&three, "", "timeout=2"));
  for (int i = 0, dead = 0; i < 3 && dead < 2; i++, dead++)
    etcd_kill(&three, i);
  eg_status status = lock(guard, "q");
  assert_true(status == EG_UNAVAILABLE || status == EG_INDETERMINATE);
  eg_close(guard);
}

/* --------------------------------------------------------- users, TLS -- */

static void must_fail(const char *url, eg_status expected, const char *words) {
  eg_guard *guard = NULL;
  eg_error error;
  assert_int_equal(try_open(url, &guard, &error), expected);
  if (strstr(error.message, words) == NULL)
    fail_msg("\"%s\" is not in: %s", words, error.message);
  assert_null(strstr(error.message, "secret"));
}

static void user_and_password_are_asked_for(void **state) {
  (void)state;
  forget_all();
  etcd_say(&one, 0, "user add root:secret");
  etcd_say(&one, 0, "user grant-role root root");
  etcd_say(&one, 0, "role add eg");
  etcd_say(&one, 0, "role grant-permission eg --prefix=true readwrite eg/");
  etcd_say(&one, 0, "user add game:secret2");
  etcd_say(&one, 0, "user grant-role game eg");
  assert_non_null(strstr(etcd_say(&one, 0, "auth enable"), "Enabled"));
  must_fail(etcd_url(&one, "", "timeout=20"), EG_DENIED, "user:password");
  must_fail(etcd_url(&one, "game:secret", "timeout=20"), EG_DENIED, "game");
  eg_guard *guard = open_at(etcd_url(&one, "game:secret2", "timeout=20"));
  eg_guard *other = open_at(etcd_url(&one, "game:secret2", "timeout=20"));
  assert_int_equal(lock(guard, "k"), EG_OK);
  assert_int_equal(lock(other, "k"), EG_LOCKED);
  /* The tokens of all who have logged in are of no use any more. */
  etcd_say(&one, 0, "--user root:secret auth disable");
  etcd_say(&one, 0, "auth enable");
  assert_int_equal(unlock(guard, "k"), EG_OK);
  assert_int_equal(wait_lock(other, "k", 20000), EG_OK);
  eg_close(other);
  eg_close(guard);
  assert_non_null(strstr(etcd_say(&one, 0, "--user root:secret auth disable"),
                         "Disabled"));
}

static void tls_trusts_the_authority_that_is_named(void **state) {
  (void)state;
  etcd_cluster tls;
  char query[128], plain[128];
  assert_true(etcd_start(&tls, 1, ETCD_TLS));
  snprintf(query, sizeof query, "timeout=20&cacert=%s/cert.pem", tls.dir);
  eg_guard *guard = open_at(etcd_url(&tls, "", query));
  eg_guard *other = open_at(etcd_url(&tls, "", query));
  assert_int_equal(lock(guard, "k"), EG_OK);
  assert_int_equal(lock(other, "k"), EG_LOCKED);
  pthread_t thread;
  waiter w = {other, EG_INTERNAL};
  assert_int_equal(pthread_create(&thread, NULL, wait_for_lock, &w), 0);
  usleep(50000);
  assert_int_equal(unlock(guard, "k"), EG_OK);
  pthread_join(thread, NULL);
  assert_int_equal(w.status, EG_OK);
  eg_close(other);
  eg_close(guard);
  must_fail(etcd_url(&tls, "", "timeout=20"), EG_DENIED, "127.0.0.1");
  snprintf(plain, sizeof plain, "etcd://127.0.0.1:%d?timeout=1", tls.ports[0]);
  eg_error error;
  assert_true(EG_IS_FAILURE(try_open(plain, &guard, &error)));
  etcd_end(&tls);
}

static void client_shows_its_certificate_where_it_is_asked_for(void **state) {
  (void)state;
  etcd_cluster tls;
  char query[300];
  assert_true(etcd_start(&tls, 1, ETCD_TLS | ETCD_CLIENTS));
  snprintf(query, sizeof query,
           "timeout=20&cacert=%s/cert.pem&cert=%s/cert.pem&key=%s/key.pem",
           tls.dir, tls.dir, tls.dir);
  eg_guard *guard = open_at(etcd_url(&tls, "", query));
  assert_int_equal(lock(guard, "k"), EG_OK);
  assert_int_equal(unlock(guard, "k"), EG_OK);
  eg_close(guard);
  snprintf(query, sizeof query, "timeout=2&cacert=%s/cert.pem", tls.dir);
  must_fail(etcd_url(&tls, "", query), EG_DENIED, "certificate");
  snprintf(query, sizeof query,
           "timeout=2&cacert=%s/cert.pem&cert=%s/cert.pem&key=%s/none.pem",
           tls.dir, tls.dir, tls.dir);
  must_fail(etcd_url(&tls, "", query), EG_DENIED, "none.pem");
  etcd_end(&tls);
}

static void url_says_what_is_wrong_with_it(void **state) {
  (void)state;
  must_fail("etcd://h/0", EG_INVALID, "no path");
  must_fail("etcd://h?lease=1", EG_INVALID, "at least 2");
  must_fail("etcd://h?lease=2.5", EG_INVALID, "whole number");
  must_fail("etcd://h?cacert=/x", EG_INVALID, "etcds://");
  must_fail("etcds://h?cert=/x", EG_INVALID, "go together");
  must_fail("etcd://:secret@h", EG_INVALID, "needs a user");
  must_fail("etcd://h?tls=1", EG_INVALID, "tls");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(url_says_what_is_wrong_with_it),
      cmocka_unit_test(lease_is_whole_seconds_at_least_two),
      cmocka_unit_test(hold_of_a_killed_process_ends_with_its_lease),
      cmocka_unit_test(hold_is_kept_beyond_its_lease_until_that_is_revoked),
      cmocka_unit_test(runs_of_a_day_go_with_one_lease),
      cmocka_unit_test(lock_and_release_take_one_request_each),
      cmocka_unit_test(grant_whose_answer_was_lost_is_known_again),
      cmocka_unit_test(request_that_never_came_is_sent_again),
      cmocka_unit_test(key_of_somebody_else_is_corrupt),
      cmocka_unit_test(result_that_is_too_large_for_it_is_refused_at_once),
      cmocka_unit_test(child_neither_ends_nor_uses_its_parents_holds),
      cmocka_unit_test(paused_server_leaves_a_doubt_that_is_settled),
      cmocka_unit_test(dead_server_is_unavailable_in_time_and_comes_back),
      cmocka_unit_test(user_and_password_are_asked_for),
      cmocka_unit_test(tls_trusts_the_authority_that_is_named),
      cmocka_unit_test(client_shows_its_certificate_where_it_is_asked_for),
  };
  const struct CMUnitTest members[] = {
      cmocka_unit_test(work_goes_on_when_the_leader_is_stopped_or_dies),
      cmocka_unit_test(two_of_three_dead_is_unavailable),
  };
  alarm(280);
  return cmocka_run_group_tests_name("etcd", tests, start_one, end_one) +
         cmocka_run_group_tests_name("etcd, three members", members,
                                     start_three, end_three);
}
