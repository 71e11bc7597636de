/* SPDX-License-Identifier: MIT
** Who may come to a Redis server, what the URL says, what the server is warned
** of, and how many replicas have to know: and that a password is shown nowhere.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "server.h"
#include "store/store.h"

#include <cmocka.h>

static const char secret[] = "s3cr:t/@%";
static const char in_url[] = "s3cr%3At%2F%40%25";

static server guarded, plain, replica;

/* All that anybody was told, to look for the secret in it. */
static char told[16384];

static void tell(const char *text) {
  size_t at = strlen(told);
  snprintf(told + at, sizeof told - at, "%s\n", text);
}

static void hear(void *ud, eg_log_level level, const char *message,
                 eg_bytes key) {
  (void)ud;
  (void)level;
  (void)key;
  tell(message);
}

static int start_servers(void **state) {
  char options[200];
  (void)state;
  if (!server_start(&plain, server_free_port(26500), ""))
    return -1;
  snprintf(options, sizeof options, "--requirepass %s", secret);
  if (!server_start(&guarded, 0, options))
    return -1;
  snprintf(options, sizeof options, "--replicaof 127.0.0.1 %d", plain.port);
  return server_start(&replica, 0, options) ? 0 : -1;
}

static int end_servers(void **state) {
  (void)state;
  server_end(&replica);
  server_end(&guarded);
  server_end(&plain);
  return 0;
}

/* Opens a guard, takes and ends a lock and a run with it.  OK: all of that. */
static eg_status use(const char *format, ...) {
  char url[400];
  va_list args;
  eg_guard *guard;
  eg_error error = {.message = ""};
  va_start(args, format);
  vsnprintf(url, sizeof url, format, args);
  va_end(args);
  eg_options options = {.store = url, .name = "a:b%c", .env = {.log = hear}};
  eg_status status = eg_open(&options, &guard, &error);
  tell(error.message);
  if (status != EG_OK)
    return status;
  eg_grant grant;
  eg_reply reply;
  eg_reply_init(&reply);
  status = eg_acquire(guard, eg_str("k"), EG_WANT_LOCK, NULL, 0, &grant,
                      &reply);
  tell(EG_IS_FAILURE(status) ? reply.failure.message : "");
  if (status == EG_OK)
    status = eg_release(guard, eg_str("k"), grant.token, &error);
  tell(error.message);
  eg_reply_free(&reply);
  eg_close(guard);
  return status;
}

static bool was_told(const char *text) { return strstr(told, text) != NULL; }

/* ---------------------------------------------------------- passwords -- */

static void password_comes_from_the_url(void **state) {
  (void)state;
  assert_int_equal(use("redis+unix://:%s@%s", in_url, guarded.socket), EG_OK);
  assert_int_equal(use("redis+unix://default:%s@%s", in_url, guarded.socket),
                   EG_OK);
}

static void password_comes_from_the_environment(void **state) {
  (void)state;
  setenv("REDISCLI_AUTH", secret, 1);
  eg_status status = use("redis+unix://%s", guarded.socket);
  unsetenv("REDISCLI_AUTH");
  assert_int_equal(status, EG_OK);
}

static void password_comes_from_a_file(void **state) {
  (void)state;
  char path[128];
  snprintf(path, sizeof path, "%s/password", guarded.dir);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fprintf(file, "%s\nand more\n", secret);
  fclose(file);
  eg_status status = use("redis+unix://%s?passwordFile=%s", guarded.socket,
                         path);
  unlink(path);
  assert_int_equal(status, EG_OK);
  assert_int_equal(
      use("redis+unix://%s?passwordFile=%s", guarded.socket, path), EG_DENIED);
  assert_true(was_told("cannot be read"));
}

static void wrong_or_no_password_is_denied(void **state) {
  (void)state;
  assert_int_equal(use("redis+unix://%s", guarded.socket), EG_DENIED);
  assert_int_equal(use("redis+unix://:%sx@%s", in_url, guarded.socket),
                   EG_DENIED);
  assert_int_equal(use("redis+unix://nobody:%s@%s", in_url, guarded.socket),
                   EG_DENIED);
}

static void user_of_an_access_list_is_let_in(void **state) {
  (void)state;
  server_say(&plain, "ACL SETUSER worker on '>w0rd' '~eg:*' '&eg:*' "
                     "+@read +@write +@scripting +publish +time +ping "
                     "+subscribe +unsubscribe +select +auth");
  assert_int_equal(use("redis+unix://worker:w0rd@%s", plain.socket), EG_OK);
  assert_true(was_told("INFO")); /* it may not look, and says so */
  server_say(&plain, "ACL SETUSER worker resetkeys '~other:*'");
  assert_int_equal(use("redis+unix://worker:w0rd@%s", plain.socket),
                   EG_DENIED);
}

static void password_was_never_shown(void **state) {
  (void)state;
  assert_true(strlen(told) > 0);
  assert_int_equal(use("redis://:%s@localhost:x", in_url), EG_INVALID);
  assert_int_equal(use("redis://:%s@localhost?what=%s", in_url, in_url),
                   EG_INVALID);
  assert_int_equal(use("redis://:%s%%@localhost", in_url), EG_INVALID);
  assert_int_equal(use("redis://:%s@localhost/%s", in_url, "x"), EG_INVALID);
  assert_int_equal(use("redis://:%s@localhost:1?timeout=0.1", in_url),
                   EG_UNAVAILABLE);
  assert_int_equal(use("rediss://:%s@localhost", in_url), EG_UNSUPPORTED);
  assert_false(was_told("s3cr"));
  assert_false(was_told("w0rd"));
  assert_null(strstr(server_say(&plain, "--scan"), "s3cr"));
}

/* ------------------------------------------------------------- the URL -- */

static void url_names_a_database(void **state) {
  (void)state;
  server_say(&plain, "FLUSHALL");
  assert_int_equal(use("redis://127.0.0.1:%d/3", plain.port), EG_OK);
  assert_int_equal(use("redis+unix://%s?db=4", plain.socket), EG_OK);
  assert_non_null(strstr(server_say(&plain, "INFO keyspace"), "db3:keys=1"));
  assert_non_null(strstr(server_say(&plain, "INFO keyspace"), "db4:keys=1"));
  assert_int_equal(use("redis://127.0.0.1:%d/9999", plain.port), EG_DENIED);
  assert_string_equal(server_say(&plain, "-n 3 --scan"), "eg:{a%3Ab%25c:k}");
}

static void second_address_is_tried_when_the_first_is_away(void **state) {
  (void)state;
  assert_int_equal(use("redis://127.0.0.1:1,127.0.0.1:%d", plain.port), EG_OK);
}

static void nonsense_in_a_url_is_invalid(void **state) {
  static const char *const bad[] = {
      "redis:localhost",
      "redis://localhost/x",
      "redis://localhost:99999",
      "redis://localhost:",
      "redis://[::1",
      "redis+unix://relative/path",
      "redis://localhost?timeout=0",
      "redis://localhost?timeout=soon",
      "redis://localhost?lease=-1",
      "redis://localhost?connections=0",
      "redis://localhost?db=x",
      "redis://localhost?minReplicas=x",
      "redis://localhost?minReplicas",
      "redis://localhost?x=%zz",
      "redis://localhost?db=%zz",
      "redis://1,2,3,4,5,6,7,8,9",
  };
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (use("%s", bad[i]) != EG_INVALID)
      fail_msg("%s is taken", bad[i]);
}

/* ------------------------------------------------------------ warnings -- */

static void settings_that_can_lose_a_grant_are_warned_of(void **state) {
  (void)state;
  told[0] = '\0';
  assert_int_equal(use("redis+unix://%s", plain.socket), EG_OK);
  assert_true(was_told("appendonly"));
  assert_false(was_told("maxmemory"));
  server_say(&plain, "CONFIG SET maxmemory 1000000000");
  server_say(&plain, "CONFIG SET maxmemory-policy allkeys-lru");
  assert_int_equal(use("redis+unix://%s", plain.socket), EG_OK);
  assert_true(was_told("allkeys-lru"));
  server_say(&plain, "CONFIG SET maxmemory-policy noeviction");
  server_say(&plain, "CONFIG SET maxmemory 0");
  server_say(&plain, "CONFIG SET appendonly yes");
  told[0] = '\0';
  assert_int_equal(use("redis+unix://%s", plain.socket), EG_OK);
  assert_false(was_told("appendonly") || was_told("maxmemory"));
  server_say(&plain, "CONFIG SET appendonly no");
}

/* A server of the past: there is none to install. */
static void *be_old(void *ctx) {
  static const char info[] = "$23\r\nredis_version:4.0.14\r\n\r\n\r\n";
  char request[512];
  int listener = *(int *)ctx;
  int fd = accept(listener, NULL, NULL);
  if (recv(fd, request, sizeof request, 0) > 0)
    send(fd, info, sizeof info - 1, MSG_NOSIGNAL);
  while (recv(fd, request, sizeof request, 0) > 0)
    continue;
  close(fd);
  return NULL;
}

static void server_before_version_5_is_refused(void **state) {
  (void)state;
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  pthread_t thread;
  snprintf(at.sun_path, sizeof at.sun_path, "%.80s/old", plain.dir);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
  assert_int_equal(listen(listener, 1), 0);
  assert_int_equal(pthread_create(&thread, NULL, be_old, &listener), 0);
  eg_status status = use("redis+unix://%s", at.sun_path);
  pthread_join(thread, NULL);
  close(listener);
  unlink(at.sun_path);
  assert_int_equal(status, EG_UNSUPPORTED);
  assert_true(was_told("4.0.14"));
}

/* ------------------------------------------------------------ replicas -- */

static void await_replica(void) {
  for (int i = 0; i < 1000; i++) {
    if (strstr(server_say(&plain, "INFO replication"), "state=online") != NULL)
      return;
    usleep(20000);
  }
  fail_msg("the replica does not come");
}

static void grant_waits_for_its_replicas(void **state) {
  (void)state;
  await_replica();
  assert_int_equal(use("redis+unix://%s?minReplicas=1", plain.socket), EG_OK);
}

static void grant_without_its_replicas_is_given_back(void **state) {
  (void)state;
  char url[200];
  eg_guard *guard, *other;
  eg_grant grant;
  eg_reply reply;
  eg_record record;
  eg_outcome done = {
      .status = EG_OK, .kind = EG_KIND_VALUE, .value = eg_str("\x07")};
  eg_policy again = EG_POLICY_DEFAULT;
  again.allow_rerun = true;
  await_replica();
  snprintf(url, sizeof url,
           "redis+unix://%s?minReplicas=2&minReplicasTimeout=0.05",
           plain.socket);
  eg_options options = {.store = url, .name = "replicas"};
  assert_int_equal(eg_open(&options, &guard, NULL), EG_OK);
  snprintf(url, sizeof url, "redis+unix://%s", plain.socket);
  assert_int_equal(eg_open(&options, &other, NULL), EG_OK);
  eg_reply_init(&reply);
  /* What was there before is there again. */
  assert_int_equal(
      eg_acquire(other, eg_str("k"), EG_WANT_RUN, NULL, 0, &grant, &reply),
      EG_OK);
  uint64_t first = grant.token;
  assert_int_equal(eg_commit(other, eg_str("k"), &grant, &done, NULL, NULL),
                   EG_OK);
  assert_int_equal(
      eg_acquire(guard, eg_str("k"), EG_WANT_RUN, &again, 0, &grant, &reply),
      EG_UNAVAILABLE);
  assert_non_null(strstr(reply.failure.message, "minReplicas"));
  assert_int_equal(eg_fetch(other, eg_str("k"), &record, NULL), EG_OK);
  assert_int_equal(record.status, EG_RUN_COMPLETED);
  assert_int_equal(record.count, 1);
  assert_true(!record.locked && record.token > first);
  eg_record_free(&record);
  assert_int_equal(
      eg_acquire(guard, eg_str("l"), EG_WANT_LOCK, NULL, 0, &grant, &reply),
      EG_UNAVAILABLE);
  assert_int_equal(
      eg_acquire(other, eg_str("l"), EG_WANT_LOCK, NULL, 0, &grant, &reply),
      EG_OK);
  eg_reply_free(&reply);
  eg_close(other);
  eg_close(guard);
}

static eg_status lock_at(eg_guard *guard, const char *key, eg_grant *grant) {
  eg_reply reply;
  eg_reply_init(&reply);
  eg_status status = eg_acquire(guard, eg_str(key), EG_WANT_LOCK, NULL, 0,
                                grant, &reply);
  eg_reply_free(&reply);
  return status;
}

/* It says so, and hangs up: nothing was done. */
static void server_without_room_is_unavailable(void **state) {
  (void)state;
  server small;
  char url[200];
  eg_guard *first, *second;
  eg_options options = {.store = url, .name = "room"};
  assert_true(server_start(&small, 0, "--maxclients 1"));
  snprintf(url, sizeof url, "redis+unix://%s?connections=1&timeout=20",
           small.socket);
  assert_int_equal(eg_open(&options, &first, NULL), EG_OK);
  snprintf(url, sizeof url, "redis+unix://%s?connections=2&timeout=0.3",
           small.socket);
  assert_int_equal(eg_open(&options, &second, NULL), EG_UNAVAILABLE);
  eg_close(first);
  snprintf(url, sizeof url, "redis+unix://%s?connections=2&timeout=20",
           small.socket);
  assert_int_equal(eg_open(&options, &second, NULL), EG_OK);
  eg_close(second);
  server_end(&small);
}

/* The documented weakness of a plain server: a replica that has not heard of a
** grant is promoted, and grants it again, though under a larger token.  With
** minReplicas there would have been no grant. */
static void failover_to_a_replica_that_was_behind_grants_twice(void **state) {
  (void)state;
  char url[200];
  eg_grant first, second, third;
  eg_guard *before, *careful, *after;
  eg_options options = {.store = url, .name = "failover"};
  await_replica();
  snprintf(url, sizeof url, "redis+unix://%s", plain.socket);
  assert_int_equal(eg_open(&options, &before, NULL), EG_OK);
  snprintf(url, sizeof url,
           "redis+unix://%s?minReplicas=1&minReplicasTimeout=0.05",
           plain.socket);
  assert_int_equal(eg_open(&options, &careful, NULL), EG_OK);
  server_say(&replica, "REPLICAOF 127.0.0.1 1"); /* from here on: behind */
  assert_int_equal(lock_at(before, "k", &first), EG_OK);
  assert_int_equal(lock_at(careful, "c", &third), EG_UNAVAILABLE);
  server_signal(&plain, SIGSTOP);
  server_say(&replica, "REPLICAOF NO ONE");
  snprintf(url, sizeof url, "redis+unix://%s", replica.socket);
  assert_int_equal(eg_open(&options, &after, NULL), EG_OK);
  assert_int_equal(lock_at(after, "k", &second), EG_OK);
  assert_true(eg_believes(before, eg_str("k"), first.token));
  assert_true(second.token > first.token);
  assert_int_equal(lock_at(after, "c", &third), EG_OK);
  server_signal(&plain, SIGCONT);
  eg_close(after);
  eg_close(careful);
  eg_close(before);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(password_comes_from_the_url),
      cmocka_unit_test(password_comes_from_the_environment),
      cmocka_unit_test(password_comes_from_a_file),
      cmocka_unit_test(wrong_or_no_password_is_denied),
      cmocka_unit_test(user_of_an_access_list_is_let_in),
      cmocka_unit_test(password_was_never_shown),
      cmocka_unit_test(url_names_a_database),
      cmocka_unit_test(second_address_is_tried_when_the_first_is_away),
      cmocka_unit_test(nonsense_in_a_url_is_invalid),
      cmocka_unit_test(settings_that_can_lose_a_grant_are_warned_of),
      cmocka_unit_test(server_before_version_5_is_refused),
      cmocka_unit_test(server_without_room_is_unavailable),
      cmocka_unit_test(grant_waits_for_its_replicas),
      cmocka_unit_test(grant_without_its_replicas_is_given_back),
      cmocka_unit_test(failover_to_a_replica_that_was_behind_grants_twice),
  };
  alarm(300);
  return cmocka_run_group_tests_name("redis access", tests, start_servers,
                                     end_servers);
}
