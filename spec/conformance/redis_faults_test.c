/* SPDX-License-Identifier: MIT
** The redis store when things go wrong: servers that die, pause, are full, are
** replicas, forget scripts; wires that are cut.
**
** Real servers take real time; every bound here is generous.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"
#include "server.h"
#include "support.h"
#include "world.h"

#include <cmocka.h>

static server master;
static wire line;

static int start_master(void **state) {
  (void)state;
  return server_start(&master, 0, "") && wire_start(&line, &master) ? 0 : -1;
}

static int end_master(void **state) {
  (void)state;
  wire_end(&line);
  server_end(&master);
  return 0;
}

/* Without a query: time enough for a machine that does much else. */
static eg_guard *open_at(const char *path, const char *query) {
  char url[256];
  eg_guard *guard = NULL;
  eg_error error;
  snprintf(url, sizeof url, "redis+unix://%s?%s", path,
           *query != '\0' ? query : "timeout=60&lease=100");
  eg_options options = {.store = url, .name = "faults"};
  if (eg_open(&options, &guard, &error) != EG_OK)
    fail_msg("%s", error.message);
  return guard;
}

static eg_guard *open_guard(const char *query) {
  return open_at(master.socket, query);
}

static eg_status acquire(eg_guard *guard, const char *key, eg_want want,
                         eg_grant *grant, char *message) {
  return ask_by(guard, key, want, NULL, 0, grant, message);
}

static void forget_all(void) { server_say(&master, "FLUSHALL"); }

/* ------------------------------------------------------- round trips -- */

static long scripts_called(void) {
  long sha = server_count(&master, "INFO commandstats",
                          "cmdstat_evalsha:calls=");
  long full = server_count(&master, "INFO commandstats",
                           "cmdstat_eval:calls=");
  return (sha > 0 ? sha : 0) + (full > 0 ? full : 0);
}

static void lock_and_release_take_one_round_trip_each(void **state) {
  (void)state;
  eg_guard *guard = open_guard("");
  forget_all();
  assert_int_equal(lock(guard, "warm"), EG_OK);
  server_say(&master, "CONFIG RESETSTAT");
  long before = server_count(&master, "INFO stats", "total_net_input_bytes:");
  assert_true(before > 0);
  for (int i = 0; i < 10; i++) {
    assert_int_equal(lock(guard, "k"), EG_OK);
    assert_int_equal(eg_release(guard, eg_str("k"), 0, NULL), EG_OK);
  }
  assert_int_equal(scripts_called(), 20);
  /* A load begins with TIME; each script has one inside. */
  assert_int_equal(
      server_count(&master, "INFO commandstats", "cmdstat_time:calls="), 20);
  eg_close(guard);
}

static void run_and_commit_take_one_round_trip_each(void **state) {
  (void)state;
  eg_grant grant;
  eg_guard *guard = open_guard("");
  forget_all();
  assert_int_equal(lock(guard, "warm"), EG_OK);
  server_say(&master, "CONFIG RESETSTAT");
  assert_int_equal(acquire(guard, "k", EG_WANT_RUN, &grant, NULL), EG_OK);
  assert_int_equal(commit(guard, "k", &grant), EG_OK);
  assert_int_equal(scripts_called(), 2);
  assert_int_equal(acquire(guard, "k", EG_WANT_RUN, &grant, NULL), EG_CACHED);
  assert_int_equal(scripts_called(), 2); /* a load is no script */
  assert_int_equal(
      server_count(&master, "INFO commandstats", "cmdstat_time:calls="), 3);
  eg_close(guard);
}

/* --------------------------------------------------------- servers -- */

static void scripts_that_were_flushed_are_sent_again(void **state) {
  (void)state;
  eg_guard *guard = open_guard("");
  forget_all();
  assert_int_equal(lock(guard, "k"), EG_OK);
  server_say(&master, "SCRIPT FLUSH");
  assert_int_equal(eg_release(guard, eg_str("k"), 0, NULL), EG_OK);
  assert_int_equal(lock(guard, "k"), EG_OK);
  eg_close(guard);
}

static void restarted_server_is_found_again(void **state) {
  (void)state;
  eg_guard *guard = open_guard("timeout=60");
  assert_int_equal(lock(guard, "k"), EG_OK);
  for (int i = 0; i < 3; i++) {
    server_kill(&master);
    assert_true(server_restart(&master));
    assert_int_equal(lock(guard, "k"), EG_OK); /* it lost its data */
    assert_int_equal(eg_release(guard, eg_str("k"), 0, NULL), EG_OK);
  }
  eg_close(guard);
}

static void dead_server_is_unavailable_in_time(void **state) {
  (void)state;
  char message[256];
  eg_grant grant;
  eg_guard *guard = open_guard("timeout=1");
  assert_int_equal(lock(guard, "k"), EG_OK);
  server_kill(&master);
  int64_t begin = eg_now_us();
  assert_int_equal(acquire(guard, "j", EG_WANT_LOCK, &grant, message),
                   EG_UNAVAILABLE);
  assert_true(eg_now_us() - begin < 5000000);
  assert_non_null(strstr(message, "redis"));
  assert_true(server_restart(&master));
  assert_int_equal(lock(guard, "j"), EG_OK);
  eg_close(guard);
}

static void paused_server_leaves_a_doubt_that_its_lease_ends(void **state) {
  (void)state;
  eg_grant grant;
  eg_guard *guard = open_guard("timeout=1&lease=1");
  eg_guard *other = open_guard("timeout=60");
  forget_all();
  assert_int_equal(lock(guard, "warm"), EG_OK);
  server_signal(&master, SIGSTOP);
  eg_status status = acquire(guard, "k", EG_WANT_LOCK, &grant, NULL);
  server_signal(&master, SIGCONT);
  assert_int_equal(status, EG_INDETERMINATE);
  /* It was done after all; nobody knows, and the lease ends it. */
  eg_reply reply;
  eg_reply_init(&reply);
  assert_int_equal(eg_acquire(other, eg_str("k"), EG_WANT_LOCK, NULL, 10000,
                              &grant, &reply),
                   EG_OK);
  eg_reply_free(&reply);
  eg_close(other);
  eg_close(guard);
}

static void full_server_is_unavailable_and_can_release(void **state) {
  (void)state;
  char message[256];
  eg_grant grant;
  eg_guard *guard = open_guard("");
  forget_all();
  assert_int_equal(lock(guard, "held"), EG_OK);
  server_say(&master, "CONFIG SET maxmemory 1");
  eg_status taken = acquire(guard, "k", EG_WANT_LOCK, &grant, message);
  eg_status released = eg_release(guard, eg_str("held"), 0, NULL);
  server_say(&master, "CONFIG SET maxmemory 0");
  assert_int_equal(taken, EG_UNAVAILABLE);
  assert_non_null(strstr(message, "OOM"));
  assert_int_equal(released, EG_OK);
  assert_int_equal(lock(guard, "held"), EG_OK);
  eg_close(guard);
}

static void demoted_server_is_unavailable_until_promoted(void **state) {
  (void)state;
  char message[256];
  eg_grant grant;
  eg_guard *guard = open_guard("timeout=1");
  forget_all();
  assert_int_equal(lock(guard, "warm"), EG_OK);
  server_say(&master, "REPLICAOF 127.0.0.1 1");
  assert_int_equal(acquire(guard, "k", EG_WANT_LOCK, &grant, message),
                   EG_UNAVAILABLE);
  assert_non_null(strstr(message, "READONLY"));
  server_say(&master, "REPLICAOF NO ONE");
  assert_int_equal(lock(guard, "k"), EG_OK);
  eg_close(guard);
}

static void *hog(void *ctx) {
  (void)ctx;
  server master_now = master;
  char command[256];
  snprintf(command, sizeof command,
           "redis-cli -s %s EVAL 'while true do end' 0 >/dev/null 2>&1",
           master_now.socket);
  return system(command) == -1 ? ctx : NULL;
}

static void busy_server_is_waited_for(void **state) {
  (void)state;
  pthread_t thread;
  eg_guard *guard = open_guard("timeout=60");
  forget_all();
  assert_int_equal(lock(guard, "warm"), EG_OK);
  server_say(&master, "CONFIG SET busy-reply-threshold 50");
  assert_int_equal(pthread_create(&thread, NULL, hog, NULL), 0);
  while (strncmp(server_say(&master, "PING"), "BUSY", 4) != 0)
    usleep(20000);
  pid_t killer = fork();
  if (killer == 0) {
    usleep(300000);
    server_say(&master, "SCRIPT KILL");
    _exit(0);
  }
  assert_int_equal(lock(guard, "k"), EG_OK);
  pthread_join(thread, NULL);
  waitpid(killer, NULL, 0);
  eg_close(guard);
}

static void key_of_somebody_else_is_corrupt(void **state) {
  (void)state;
  eg_guard *guard = open_guard("");
  forget_all();
  server_say(&master, "SET 'eg:{faults:k}' hello");
  server_say(&master, "LPUSH 'eg:{faults:l}' hello");
  assert_int_equal(lock(guard, "k"), EG_CORRUPT);
  assert_int_equal(lock(guard, "l"), EG_CORRUPT);
  assert_string_equal(server_say(&master, "GET 'eg:{faults:k}'"), "hello");
  eg_close(guard);
}

/* ----------------------------------------------------------- wires -- */

static void grant_whose_answer_was_lost_is_known_again(void **state) {
  (void)state;
  eg_grant grant;
  eg_guard *guard = open_at(line.path, "");
  forget_all();
  assert_int_equal(lock(guard, "warm"), EG_OK);
  for (int i = 0; i < 5; i++) {
    int cuts = atomic_load(&line.cuts);
    atomic_store(&line.cut_after, "EVALSHA");
    assert_int_equal(lock(guard, "k"), EG_OK);
    assert_int_equal(atomic_load(&line.cuts), cuts + 1);
    atomic_store(&line.cut_after, "EVALSHA");
    assert_int_equal(eg_release(guard, eg_str("k"), 0, NULL), EG_OK);
    assert_int_equal(atomic_load(&line.cuts), cuts + 2);
    assert_int_equal(eg_release(guard, eg_str("k"), 0, NULL), EG_LOST);
  }
  atomic_store(&line.cut_after, "EVALSHA");
  assert_int_equal(acquire(guard, "r", EG_WANT_RUN, &grant, NULL), EG_OK);
  atomic_store(&line.cut_after, "EVALSHA");
  assert_int_equal(commit(guard, "r", &grant), EG_OK);
  uint32_t count = 0;
  assert_int_equal(status_of(guard, "r", &count), EG_RUN_COMPLETED);
  assert_int_equal(count, 1);
  eg_close(guard);
}

static void request_that_never_came_is_sent_again(void **state) {
  (void)state;
  eg_grant grant;
  eg_guard *guard = open_at(line.path, "");
  forget_all();
  assert_int_equal(lock(guard, "warm"), EG_OK);
  atomic_store(&line.swallow, "EVALSHA");
  assert_int_equal(acquire(guard, "k", EG_WANT_RUN, &grant, NULL), EG_OK);
  atomic_store(&line.swallow, "EVALSHA");
  assert_int_equal(commit(guard, "k", &grant), EG_OK);
  uint32_t count = 0;
  assert_int_equal(status_of(guard, "k", &count), EG_RUN_COMPLETED);
  assert_int_equal(count, 1);
  eg_close(guard);
}

static void request_that_comes_late_does_nothing(void **state) {
  (void)state;
  eg_grant grant;
  eg_guard *guard = open_at(line.path, "");
  forget_all();
  assert_int_equal(lock(guard, "warm"), EG_OK);
  atomic_store(&line.swallow, "EVALSHA");
  assert_int_equal(acquire(guard, "k", EG_WANT_RUN, &grant, NULL), EG_OK);
  assert_int_equal(commit(guard, "k", &grant), EG_OK);
  assert_true(wire_deliver(&line));
  uint32_t count = 0;
  assert_int_equal(status_of(guard, "k", &count), EG_RUN_COMPLETED);
  assert_int_equal(count, 1);
  eg_close(guard);
}

static void commit_in_doubt_is_known_when_asked_again(void **state) {
  (void)state;
  eg_grant grant;
  eg_guard *guard = open_at(line.path, "timeout=1");
  eg_guard *direct = open_guard("");
  forget_all();
  assert_int_equal(acquire(guard, "k", EG_WANT_RUN, &grant, NULL), EG_OK);
  server_signal(&master, SIGSTOP);
  eg_status first = commit(guard, "k", &grant);
  server_signal(&master, SIGCONT);
  assert_int_equal(first, EG_UNCOMMITTED);
  while (status_of(direct, "k", NULL) == EG_RUN_RUNNING)
    usleep(10000);
  assert_int_equal(commit(guard, "k", &grant), EG_OK);
  grant.token++;
  assert_int_equal(commit(guard, "k", &grant), EG_LOST);
  eg_close(direct);
  eg_close(guard);
}

/* Until the keeper has been told that the grant is gone. */
static void await_loss(eg_guard *guard, const char *key, uint64_t token) {
  for (int i = 0; i < 3000 && eg_believes(guard, eg_str(key), token); i++)
    usleep(10000);
  assert_false(eg_believes(guard, eg_str(key), token));
}

static void grant_that_is_gone_is_not_taken_for_one_that_was_ended(void **s) {
  (void)s;
  eg_grant grant;
  eg_guard *guard = open_at(line.path, "timeout=60&lease=1");
  eg_guard *other = open_guard("");
  forget_all();
  assert_int_equal(acquire(guard, "k", EG_WANT_LOCK, &grant, NULL), EG_OK);
  eg_reset(other, eg_str("k"), NULL);
  assert_int_equal(lock(other, "k"), EG_OK);
  await_loss(guard, "k", grant.token);
  atomic_store(&line.cut_after, "EVALSHA");
  assert_int_equal(eg_release(guard, eg_str("k"), grant.token, NULL),
                   EG_INDETERMINATE);
  assert_int_equal(eg_release(guard, eg_str("k"), grant.token, NULL), EG_LOST);
  assert_int_equal(acquire(guard, "r", EG_WANT_RUN, &grant, NULL), EG_OK);
  eg_reset(other, eg_str("r"), NULL);
  atomic_store(&line.cut_after, "EVALSHA");
  assert_int_equal(commit(guard, "r", &grant), EG_INDETERMINATE);
  assert_int_equal(commit(guard, "r", &grant), EG_INDETERMINATE);
  assert_int_equal(status_of(other, "r", NULL), EG_RUN_IDLE);
  eg_close(other);
  eg_close(guard);
}

/* ----------------------------------------------------------- waiting -- */

typedef struct waiter {
  eg_guard *guard;
  eg_status status;
} waiter;

static void *wait_for_lock(void *ctx) {
  waiter *w = ctx;
  eg_grant grant;
  eg_reply reply;
  eg_reply_init(&reply);
  w->status = eg_acquire(w->guard, eg_str("k"), EG_WANT_LOCK, NULL, 20000,
                         &grant, &reply);
  eg_reply_free(&reply);
  return NULL;
}

static void subscribers_await(int n) {
  for (int i = 0; i < 500; i++) {
    if (server_count(&master, "PUBSUB NUMSUB 'eg:{faults:k}'", "k}\n") >= n)
      return;
    usleep(10000);
  }
  fail_msg("nobody subscribed");
}

static void waiter_is_woken_over_a_broken_subscription(void **state) {
  (void)state;
  pthread_t thread;
  eg_guard *holder = open_guard(""), *other = open_guard("timeout=60");
  waiter w = {other, EG_INTERNAL};
  forget_all();
  assert_int_equal(lock(holder, "k"), EG_OK);
  assert_int_equal(pthread_create(&thread, NULL, wait_for_lock, &w), 0);
  subscribers_await(1);
  server_say(&master, "CLIENT KILL TYPE pubsub");
  subscribers_await(1);
  int64_t begin = eg_now_us();
  assert_int_equal(eg_release(holder, eg_str("k"), 0, NULL), EG_OK);
  pthread_join(thread, NULL);
  assert_int_equal(w.status, EG_OK);
  assert_true(eg_now_us() - begin < 10000000); /* its lease has 15 s */
  eg_close(other);
  eg_close(holder);
}

/* ------------------------------------------------------------- forks -- */

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
    bad = bad || eg_release(guard, eg_str("k"), 0, NULL) != EG_LOST;
    eg_close(guard);
    _exit(bad);
  }
  int status = -1;
  waitpid(child, &status, 0);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  assert_int_equal(lock(guard, "k"), EG_LOCKED);
  assert_int_equal(lock(guard, "own"), EG_OK); /* it ended with the child */
  assert_int_equal(eg_release(guard, eg_str("k"), 0, NULL), EG_OK);
  eg_close(guard);
}

/* ---------------------------------------------------------- threads -- */

static void *lock_many(void *ctx) {
  char key[32];
  eg_status worst = EG_OK;
  snprintf(key, sizeof key, "%lx", (unsigned long)pthread_self());
  for (int i = 0; i < world_scaled(200); i++) {
    eg_status status = lock(ctx, key);
    if (status == EG_OK)
      status = eg_release(ctx, eg_str(key), 0, NULL);
    if (status != EG_OK)
      worst = status;
  }
  return (void *)(uintptr_t)worst;
}

static void connections_stay_within_their_bound(void **state) {
  enum { THREADS = 12 };
  (void)state;
  pthread_t threads[THREADS];
  forget_all();
  eg_guard *guard = open_guard("connections=2");
  for (int i = 0; i < THREADS; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, lock_many, guard), 0);
  long clients = server_count(&master, "INFO clients", "connected_clients:");
  for (int i = 0; i < THREADS; i++) {
    void *worst = guard;
    pthread_join(threads[i], &worst);
    assert_int_equal((uintptr_t)worst, EG_OK);
  }
  assert_in_range(clients, 1, 4); /* two, redis-cli, one that is closing */
  eg_close(guard);
}

/* ------------------------------------------------------------- loader -- */

static void store_that_is_not_installed_names_its_package(void **state) {
  (void)state;
  eg_guard *guard = NULL;
  eg_error error;
  eg_options options = {.store = "redis://localhost"};
  const char *before = getenv("EXECUTIONGUARD_STORES");
  char *kept = before != NULL ? strdup(before) : NULL;
  setenv("EXECUTIONGUARD_STORES", master.dir, 1);
  eg_status status = eg_open(&options, &guard, &error);
  if (kept != NULL)
    setenv("EXECUTIONGUARD_STORES", kept, 1);
  free(kept);
  assert_int_equal(status, EG_UNSUPPORTED);
  assert_non_null(strstr(error.message, "libhiredis"));
  assert_null(guard);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(lock_and_release_take_one_round_trip_each),
      cmocka_unit_test(run_and_commit_take_one_round_trip_each),
      cmocka_unit_test(scripts_that_were_flushed_are_sent_again),
      cmocka_unit_test(restarted_server_is_found_again),
      cmocka_unit_test(dead_server_is_unavailable_in_time),
      cmocka_unit_test(paused_server_leaves_a_doubt_that_its_lease_ends),
      cmocka_unit_test(full_server_is_unavailable_and_can_release),
      cmocka_unit_test(demoted_server_is_unavailable_until_promoted),
      cmocka_unit_test(busy_server_is_waited_for),
      cmocka_unit_test(key_of_somebody_else_is_corrupt),
      cmocka_unit_test(grant_whose_answer_was_lost_is_known_again),
      cmocka_unit_test(request_that_never_came_is_sent_again),
      cmocka_unit_test(request_that_comes_late_does_nothing),
      cmocka_unit_test(commit_in_doubt_is_known_when_asked_again),
      cmocka_unit_test(grant_that_is_gone_is_not_taken_for_one_that_was_ended),
      cmocka_unit_test(waiter_is_woken_over_a_broken_subscription),
      cmocka_unit_test(child_neither_ends_nor_uses_its_parents_holds),
      cmocka_unit_test(connections_stay_within_their_bound),
      cmocka_unit_test(store_that_is_not_installed_names_its_package),
  };
  alarm(300);
  return cmocka_run_group_tests_name("redis faults", tests, start_master,
                                     end_master);
}
