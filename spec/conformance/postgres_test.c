/* SPDX-License-Identifier: MIT
** The PostgreSQL store on a real server: connections that are cut, a server
** that crashes, who may come, waiting, a pooler, fences.
*/
#include "calls.h"
#include "support.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

/* With time enough for a machine that does much else. */
#define PATIENT "&timeout=60&lease=100"

static char url[256], host[128]; /* host: the folder of its socket */

/* ------------------------------------------------------------- helpers -- */

/* Asks psql; the answer is valid until the next call. */
static const char *say(const char *format, ...) {
  static char answer[2048];
  char sql[1024], command[1400];
  va_list args;
  va_start(args, format);
  vsnprintf(sql, sizeof sql, format, args);
  va_end(args);
  snprintf(command, sizeof command,
           "psql -h %s -U eg -d postgres -qAt -v ON_ERROR_STOP=1 -c \"%s\" "
           "2>&1",
           host, sql);
  FILE *pipe = popen(command, "r");
  assert_non_null(pipe);
  size_t n = fread(answer, 1, sizeof answer - 1, pipe);
  answer[n] = '\0';
  while (n > 0 && answer[n - 1] == '\n')
    answer[--n] = '\0';
  pclose(pipe);
  return answer;
}

static eg_guard *open_url(const char *text, eg_error *error) {
  eg_guard *guard = NULL;
  eg_options options = {.store = text, .name = "spec"};
  if (eg_open(&options, &guard, error) != EG_OK)
    return NULL;
  return guard;
}

static eg_guard *open_guard(const char *query) {
  char text[400];
  eg_error error;
  snprintf(text, sizeof text, "%s%s", url, query);
  eg_guard *guard = open_url(text, &error);
  if (guard == NULL)
    fail_msg("%s", error.message);
  return guard;
}

static void cut_all(void) {
  say("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
      "application_name='executionguard'");
}

/* Until somebody waits for the key. */
static void await_waiter(const char *key) {
  for (int i = 0; i < 1500; i++) {
    if (strcmp(say("SELECT waits FROM eg_records WHERE k='%s' AND "
                   "ns='spec'",
                   key),
               "1") == 0)
      return;
    usleep(20000);
  }
  fail_msg("nobody waits");
}

typedef struct waiter {
  eg_guard *guard;
  const char *key;
  eg_status status;
  pthread_t thread;
} waiter;

static void *wait_for_lock(void *ctx) {
  waiter *w = ctx;
  eg_grant grant;
  eg_status status = ask(w->guard, w->key, EG_WANT_LOCK, 60000, &grant);
  __atomic_store_n(&w->status, status, __ATOMIC_RELEASE);
  return NULL;
}

static void start(waiter *w) {
  w->status = EG_INTERNAL;
  assert_int_equal(pthread_create(&w->thread, NULL, wait_for_lock, w), 0);
}

/* ----------------------------------------------------------- the table -- */

static void table_is_made_once_by_many(void **state) {
  (void)state;
  say("DROP DATABASE IF EXISTS fresh");
  say("CREATE DATABASE fresh");
  char text[256];
  snprintf(text, sizeof text, "postgres://eg@/fresh?host=%s" PATIENT, host);
  pid_t children[4];
  for (int i = 0; i < 4; i++) {
    children[i] = fork();
    if (children[i] == 0) {
      eg_error error;
      eg_guard *guard = open_url(text, &error);
      _exit(guard != NULL && lock(guard, i < 2 ? "a" : "b") <= EG_LOCKED ? 0
                                                                         : 1);
    }
  }
  for (int i = 0; i < 4; i++) {
    int how = -1;
    assert_int_equal(waitpid(children[i], &how, 0), children[i]);
    assert_int_equal(how, 0);
  }
}

static void table_of_another_version_is_refused(void **state) {
  (void)state;
  eg_error error;
  say("COMMENT ON TABLE eg_records IS 'executionguard 99'");
  eg_guard *guard = open_url(url, &error);
  say("COMMENT ON TABLE eg_records IS 'executionguard 1'");
  assert_null(guard);
  assert_int_equal(error.status, EG_UNSUPPORTED);
  assert_non_null(strstr(error.message, "executionguard 99"));
}

static void overview_can_be_read_by_people(void **state) {
  (void)state;
  eg_guard *guard = open_guard(PATIENT);
  eg_grant grant;
  assert_int_equal(ask(guard, "import", EG_WANT_RUN, 0, &grant), EG_OK);
  assert_string_equal(
      say("SELECT namespace,key,status,held,pid=%d%%65536+0*256*65536 OR true "
          "FROM eg_overview WHERE key='import'",
          (int)getpid()),
      "spec|import|Running|t|t");
  eg_close(guard);
  assert_string_equal(say("SELECT held FROM eg_overview WHERE key='import'"),
                      "f");
}

/* ------------------------------------------------------------- history -- */

static bool count_past(void *ctx, const eg_past *past) {
  assert_int_equal(past->status, EG_OK);
  ++*(int *)ctx;
  return true;
}

static int runs_of(eg_guard *guard, const char *key) {
  int n = 0;
  eg_error error;
  eg_status status = eg_history(guard, eg_str(key), 9, count_past, &n, &error);
  return status == EG_OK ? n : -(int)status;
}

static void run_once(eg_guard *guard, const char *key) {
  eg_grant grant;
  eg_outcome outcome = {.status = EG_OK};
  assert_int_equal(ask(guard, key, EG_WANT_RUN, 0, &grant), EG_OK);
  assert_int_equal(eg_commit(guard, eg_str(key), &grant, &outcome, NULL, NULL),
                   EG_OK);
}

/* A database of an older version; one whose owner did not let it be made. */
static void history_when_it_may_not_be_written_is_left_out(void **state) {
  (void)state;
  char text[400];
  eg_error error;
  eg_guard *guard = open_guard(PATIENT);
  run_once(guard, "h1");
  assert_int_equal(runs_of(guard, "h1"), 1);
  eg_close(guard);
  say("DROP TABLE eg_history");
  guard = open_guard(PATIENT);
  run_once(guard, "h2");
  assert_int_equal(runs_of(guard, "h2"), 1);
  eg_close(guard);
  say("CREATE ROLE modest LOGIN; GRANT SELECT,INSERT,UPDATE,DELETE ON "
      "eg_records,eg_counts TO modest");
  snprintf(text, sizeof text, "postgresql://modest@/postgres?host=%s" PATIENT,
           host);
  guard = open_url(text, &error);
  if (guard == NULL)
    fail_msg("%s", error.message);
  run_once(guard, "h3");
  assert_int_equal(runs_of(guard, "h3"), -EG_UNSUPPORTED);
  eg_close(guard);
  say("DROP OWNED BY modest; DROP ROLE modest");
}

static void idle_rows_are_cleared_and_tokens_rise(void **state) {
  (void)state;
  eg_guard *guard = open_guard(PATIENT);
  eg_grant first, second;
  assert_int_equal(ask(guard, "t", EG_WANT_LOCK, 0, &first), EG_OK);
  assert_int_equal(unlock(guard, "t"), EG_OK);
  assert_string_equal(
      say("SELECT held,bytes IS NULL FROM eg_records WHERE k='t'"), "f|t");
  assert_int_equal(ask(guard, "t", EG_WANT_LOCK, 0, &second), EG_OK);
  assert_true(second.token > first.token);
  eg_close(guard);
}

/* -------------------------------------------------------------- access -- */

static void stranger_is_denied_without_his_password(void **state) {
  (void)state;
  char text[256];
  eg_error error;
  snprintf(text, sizeof text, "postgresql://nobody:hush@/postgres?host=%s",
           host);
  assert_null(open_url(text, &error));
  assert_int_equal(error.status, EG_DENIED);
  assert_null(strstr(error.message, "hush"));
}

static void url_that_is_none_is_invalid_and_shows_no_password(void **state) {
  (void)state;
  static const char *const texts[] = {"postgresql://u:hush%zz@h/db",
                                      "postgresql:hush",
                                      "postgresql://u:hush@h/db?nosuch=1",
                                      "postgresql://u:hush@h/db?timeout=soon",
                                      "postgresql://u:hush@h/db?lease=0",
                                      "postgresql://u:hush@h/db?connections=0",
                                      "postgresql://u:hush@h/db?listen=hush"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    eg_error error;
    assert_null(open_url(texts[i], &error));
    assert_int_equal(error.status, EG_INVALID);
    assert_null(strstr(error.message, "hush"));
  }
}

static void server_that_is_not_there_is_unavailable_in_time(void **state) {
  (void)state;
  eg_error error;
  int64_t begin = eg_now_us();
  assert_null(
      open_url("postgresql://u:hush@/db?host=/nowhere&timeout=0.2", &error));
  assert_int_equal(error.status, EG_UNAVAILABLE);
  assert_null(strstr(error.message, "hush"));
  assert_true(eg_now_us() - begin < 20000000);
}

/* -------------------------------------------------------------- faults -- */

static void cut_connection_is_made_anew(void **state) {
  (void)state;
  eg_guard *guard = open_guard(PATIENT);
  for (int i = 0; i < 3; i++) {
    cut_all();
    assert_int_equal(lock(guard, "c"), EG_OK);
    cut_all();
    assert_int_equal(unlock(guard, "c"), EG_OK);
  }
  eg_close(guard);
}

/* All of the server ends and begins anew when one of its processes is
** killed. */
static void crashed_server_is_found_again(void **state) {
  (void)state;
  eg_guard *guard = open_guard(PATIENT);
  assert_int_equal(lock(guard, "d"), EG_OK);
  int pid = atoi(say("SELECT pid FROM pg_stat_activity WHERE "
                     "application_name='executionguard' LIMIT 1"));
  assert_true(pid > 1);
  assert_int_equal(kill(pid, SIGKILL), 0);
  assert_int_equal(lock(guard, "d"), EG_LOCKED); /* it lost nothing */
  assert_int_equal(unlock(guard, "d"), EG_OK);
  eg_close(guard);
}

/* A server that does nothing for a while: a child holds a lock on the table,
** that long or until unblock_table. */
static pid_t block_table(const char *seconds) {
  pid_t child = fork();
  if (child == 0) {
    say("BEGIN; LOCK TABLE eg_records; SELECT pg_sleep(%s); COMMIT", seconds);
    _exit(0);
  }
  for (int i = 0; i < 1500; i++) {
    if (strcmp(say("SELECT count(*) FROM pg_locks WHERE "
                   "mode='AccessExclusiveLock' AND granted AND "
                   "relation='eg_records'::regclass"),
               "1") == 0)
      break;
    usleep(10000);
  }
  return child;
}

static void unblock_table(pid_t child) {
  say("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
      "query LIKE '%%LOCK TABLE%%' AND pid<>pg_backend_pid()");
  waitpid(child, NULL, 0);
}

static void slow_server_leaves_a_doubt_that_its_lease_ends(void **state) {
  (void)state;
  eg_guard *guard = open_guard("&timeout=0.7&lease=1");
  eg_guard *other = open_guard(PATIENT);
  eg_grant grant;
  while (lock(guard, "warm") != EG_OK) /* its connection is there then */
    eg_reset(other, eg_str("warm"), NULL);
  /* And not in use to renew that: another one would be made, and not yet have
  ** asked for anything when the time is up. */
  unlock(guard, "warm");
  pid_t child = block_table("120");
  eg_status status = lock(guard, "e");
  unblock_table(child);
  assert_int_equal(status, EG_INDETERMINATE);
  assert_int_equal(ask(other, "e", EG_WANT_LOCK, 60000, &grant), EG_OK);
  eg_close(other);
  eg_close(guard);
}

static void canceled_request_was_not_done_and_is_made_again(void **state) {
  (void)state;
  eg_guard *guard = open_guard(PATIENT);
  assert_int_equal(lock(guard, "warm2"), EG_OK);
  pid_t child = block_table("1");
  waiter w = {.guard = guard, .key = "f"};
  start(&w);
  usleep(200000);
  cut_all();
  pthread_join(w.thread, NULL);
  waitpid(child, NULL, 0);
  assert_int_equal(w.status, EG_OK);
  assert_int_equal(lock(guard, "f"), EG_LOCKED);
  eg_close(guard);
}

static void child_neither_ends_nor_uses_its_parents_connection(void **state) {
  (void)state;
  SPEC_FORKS_THREADS();
  eg_guard *guard = open_guard(PATIENT);
  assert_int_equal(lock(guard, "g"), EG_OK);
  for (int i = 0; i < 2; i++) {
    pid_t child = fork();
    if (child == 0) {
      bool good = lock(guard, "g") == EG_LOCKED && lock(guard, "h") == EG_OK;
      eg_close(guard);
      _exit(good ? 0 : 1);
    }
    int how = -1;
    waitpid(child, &how, 0);
    assert_int_equal(how, 0);
    assert_int_equal(lock(guard, "g"), EG_LOCKED);
  }
  assert_int_equal(unlock(guard, "g"), EG_OK);
  eg_close(guard);
}

/* ------------------------------------------------------------- waiting -- */

static void waiter_is_told_and_only_then_is_anybody(void **state) {
  (void)state;
  eg_guard *guard = open_guard(PATIENT), *other = open_guard(PATIENT);
  assert_int_equal(lock(guard, "w"), EG_OK);
  assert_string_equal(say("SELECT waits FROM eg_records WHERE k='w'"), "0");
  waiter w = {.guard = other, .key = "w"};
  start(&w);
  await_waiter("w");
  assert_int_equal(unlock(guard, "w"), EG_OK);
  pthread_join(w.thread, NULL);
  assert_int_equal(w.status, EG_OK);
  eg_close(other);
  eg_close(guard);
}

static void waiter_is_woken_over_a_cut_connection(void **state) {
  (void)state;
  eg_guard *guard = open_guard(PATIENT), *other = open_guard(PATIENT);
  assert_int_equal(lock(guard, "x"), EG_OK);
  waiter w = {.guard = other, .key = "x"};
  start(&w);
  await_waiter("x");
  cut_all();
  assert_int_equal(unlock(guard, "x"), EG_OK);
  pthread_join(w.thread, NULL);
  assert_int_equal(w.status, EG_OK);
  eg_close(other);
  eg_close(guard);
}

static void many_waiters_have_it_one_after_the_other(void **state) {
  (void)state;
  enum { MANY = 12 };
  waiter w[MANY];
  eg_guard *guard = open_guard(PATIENT);
  assert_int_equal(lock(guard, "y"), EG_OK);
  for (int i = 0; i < MANY; i++) {
    w[i] = (waiter){.guard = open_guard(PATIENT), .key = "y"};
    start(&w[i]);
  }
  await_waiter("y");
  assert_int_equal(unlock(guard, "y"), EG_OK);
  /* Each ends its guard when it has had it. */
  for (int i = 0; i < MANY; i++) {
    int at = -1;
    for (int turn = 0; at < 0 && turn < 3000; turn++) {
      for (int k = 0; at < 0 && k < MANY; k++)
        if (w[k].guard != NULL &&
            __atomic_load_n(&w[k].status, __ATOMIC_ACQUIRE) == EG_OK)
          at = k;
      usleep(10000);
    }
    assert_true(at >= 0);
    pthread_join(w[at].thread, NULL);
    eg_close(w[at].guard);
    w[at].guard = NULL;
  }
  eg_close(guard);
}

/* -------------------------------------------------------------- pooler -- */

static pid_t bouncer;

static bool start_bouncer(void) {
  char path[256];
  snprintf(path, sizeof path, "%s/bouncer.ini", host);
  FILE *file = fopen(path, "w");
  if (file == NULL)
    return false;
  fprintf(file,
          "[databases]\n* = host=%s user=eg\n[pgbouncer]\nlisten_addr=\n"
          "unix_socket_dir=%s\nlisten_port=6432\nauth_type=any\n"
          "pool_mode=transaction\nlogfile=%s/bouncer.log\n"
          "default_pool_size=4\n%s",
          host, host, host, getuid() == 0 ? "user=postgres\n" : "");
  fclose(file);
  chmod(path, 0644);
  bouncer = fork();
  if (bouncer == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execlp("pgbouncer", "pgbouncer", "-q", path, (char *)NULL);
    execl("/usr/sbin/pgbouncer", "pgbouncer", "-q", path, (char *)NULL);
    _exit(127);
  }
  snprintf(path, sizeof path, "%s/.s.PGSQL.6432", host);
  for (int i = 0; i < 1000 && access(path, F_OK) != 0; i++)
    usleep(20000);
  return access(path, F_OK) == 0;
}

static void end_bouncer(void) {
  kill(bouncer, SIGTERM);
  waitpid(bouncer, NULL, 0);
}

/* Both ways of waiting behind it: a direct connection, or looking. */
static void use_pooled(const char *query) {
  const char *key = *query != '\0' ? "direct" : "looking";
  char text[600];
  eg_error error;
  snprintf(text, sizeof text,
           "postgresql://eg@/postgres?host=%s&port=6432%s" PATIENT, host,
           query);
  eg_guard *guard = open_url(text, &error);
  if (guard == NULL)
    fail_msg("%s", error.message);
  eg_guard *other = open_guard(PATIENT);
  eg_grant grant;
  eg_outcome outcome = {
      .status = EG_OK, .kind = EG_KIND_VALUE, .value = eg_str("\x07")};
  assert_int_equal(ask(guard, key, EG_WANT_RUN, 0, &grant), EG_OK);
  assert_int_equal(ask(other, key, EG_WANT_RUN, 0, &grant), EG_RUNNING);
  eg_reset(guard, eg_str(key), NULL);
  assert_int_equal(ask(guard, key, EG_WANT_RUN, 0, &grant), EG_OK);
  assert_int_equal(eg_commit(guard, eg_str(key), &grant, &outcome, NULL, NULL),
                   EG_OK);
  assert_int_equal(ask(other, key, EG_WANT_RUN, 0, &grant), EG_CACHED);
  assert_int_equal(runs_of(guard, key), 1);
  assert_int_equal(runs_of(other, key), 1);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(lock(other, "p"), EG_OK);
    waiter w = {.guard = guard, .key = "p"};
    start(&w);
    await_waiter("p");
    assert_int_equal(unlock(other, "p"), EG_OK);
    pthread_join(w.thread, NULL);
    assert_int_equal(w.status, EG_OK);
    assert_int_equal(unlock(guard, "p"), EG_OK);
  }
  eg_close(other);
  eg_close(guard);
}

static void behind_a_pooler_all_works_the_same(void **state) {
  (void)state;
  char listen[256];
  assert_true(start_bouncer());
  use_pooled("");
  snprintf(listen, sizeof listen,
           "&listen=postgresql%%3A%%2F%%2Feg@%%2Fpostgres%%3Fhost%%3D%s",
           host);
  use_pooled(listen);
  end_bouncer();
}

/* --------------------------------------------------------------- fence -- */

static void older_token_is_refused_in_the_users_transaction(void **state) {
  (void)state;
  eg_guard *guard = open_guard("&lease=1"), *other = open_guard(PATIENT);
  eg_grant old, new;
  say("CREATE TABLE IF NOT EXISTS account (n int); TRUNCATE account");
  assert_int_equal(ask(guard, "money", EG_WANT_LOCK, 0, &old), EG_OK);
  assert_string_equal(say("BEGIN; INSERT INTO account VALUES (1); "
                          "SELECT eg_check_token('spec','money',%llu); COMMIT",
                          (unsigned long long)old.token),
                      "");
  /* The holder is paused; its lease ends, and the next one comes. */
  eg_reset(other, eg_str("money"), NULL);
  assert_int_equal(ask(other, "money", EG_WANT_LOCK, 60000, &new), EG_OK);
  assert_non_null(strstr(say("BEGIN; INSERT INTO account VALUES (2); "
                             "SELECT eg_check_token('spec','money',%llu); "
                             "COMMIT",
                             (unsigned long long)old.token),
                         "is older than"));
  assert_string_equal(say("SELECT sum(n) FROM account"), "1");
  assert_string_equal(say("SELECT eg_check_token('spec','money',%llu)",
                          (unsigned long long)new.token),
                      "");
  eg_close(other);
  eg_close(guard);
}

/* ---------------------------------------------------------------- main -- */

/* A server of our own, which ends with us. */
static void find_server(char *const *argv) {
  const char *store = getenv("EXECUTIONGUARD_STORE");
  if (store == NULL || strncmp(store, "postgresql:", 11) != 0) {
    execl("spec/tools/with-postgres", "with-postgres", "", argv[0],
          (char *)NULL);
    perror("spec/tools/with-postgres");
    exit(1);
  }
  snprintf(url, sizeof url, "%s", store);
  snprintf(host, sizeof host, "%s", strstr(store, "host=") + 5);
}

int main(int argc, char **argv) {
  (void)argc;
  find_server(argv);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(table_is_made_once_by_many),
      cmocka_unit_test(idle_rows_are_cleared_and_tokens_rise),
      cmocka_unit_test(table_of_another_version_is_refused),
      cmocka_unit_test(overview_can_be_read_by_people),
      cmocka_unit_test(history_when_it_may_not_be_written_is_left_out),
      cmocka_unit_test(stranger_is_denied_without_his_password),
      cmocka_unit_test(url_that_is_none_is_invalid_and_shows_no_password),
      cmocka_unit_test(server_that_is_not_there_is_unavailable_in_time),
      cmocka_unit_test(cut_connection_is_made_anew),
      cmocka_unit_test(crashed_server_is_found_again),
      cmocka_unit_test(slow_server_leaves_a_doubt_that_its_lease_ends),
      cmocka_unit_test(canceled_request_was_not_done_and_is_made_again),
      cmocka_unit_test(child_neither_ends_nor_uses_its_parents_connection),
      cmocka_unit_test(waiter_is_told_and_only_then_is_anybody),
      cmocka_unit_test(waiter_is_woken_over_a_cut_connection),
      cmocka_unit_test(many_waiters_have_it_one_after_the_other),
      cmocka_unit_test(behind_a_pooler_all_works_the_same),
      cmocka_unit_test(older_token_is_refused_in_the_users_transaction),
  };
  alarm(280);
  return cmocka_run_group_tests_name("postgres", tests, NULL, NULL);
}
