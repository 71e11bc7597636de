/* SPDX-License-Identifier: MIT
** Five hundred clients that wait for one key of a server, in ten processes,
** each with a guard of its own: how many requests does a release cost?
**
** It is printed, with the server's own count, from the first client's coming
** to the last one's going.  The bound: of each process one asks, a few times,
** for each release, however many wait there.  Real processes and servers:
** Redis, PostgreSQL and etcd one after the other.  HERD: how many clients each
** process has.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "executionguard.h"

#include <cmocka.h>

enum { PROCESSES = 10, GUARDS_MAX = 100, BOUND = 60 };

static char url[256];
static const char *store;
static int guards = 50;
/* Of all processes: clients that have begun to wait, and that had the key; and
** whether it is held in the beginning. */
static _Atomic int *begun, *served, *held;

static eg_guard *open_guard(void) {
  eg_guard *guard = NULL;
  eg_options options = {.store = url, .name = "herd"};
  return eg_open(&options, &guard, NULL) == EG_OK ? guard : NULL;
}

static bool lock(eg_guard *guard, int64_t wait_ms) {
  eg_grant grant;
  eg_reply reply;
  eg_reply_init(&reply);
  eg_status status = eg_acquire(guard, eg_str("k"), EG_WANT_LOCK, NULL,
                                wait_ms, &grant, &reply);
  eg_reply_free(&reply);
  return status == EG_OK;
}

static void *wait_once(void *guard) {
  atomic_fetch_add(begun, 1);
  if (lock(guard, 200000) && eg_release(guard, eg_str("k"), 0, NULL) == EG_OK)
    atomic_fetch_add(served, 1);
  return NULL;
}

static void be_a_process(void) {
  pthread_t threads[GUARDS_MAX];
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  while (atomic_load(held) == 0)
    usleep(1000);
  for (int i = 0; i < guards; i++)
    pthread_create(&threads[i], NULL, wait_once, open_guard());
  for (int i = 0; i < guards; i++)
    pthread_join(threads[i], NULL);
  _exit(0);
}

/* ------------------------------------------------- the server's count -- */

/* What a command says, as a number. */
static long number_said(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

static long number_said(const char *format, ...) {
  char command[700], said[64] = "";
  va_list args;
  va_start(args, format);
  vsnprintf(command, sizeof command, format, args);
  va_end(args);
  FILE *pipe = popen(command, "r");
  assert_non_null(pipe);
  if (fgets(said, sizeof said, pipe) == NULL)
    said[0] = '\0';
  assert_int_equal(pclose(pipe), 0);
  return strtol(said, NULL, 10);
}

/* PostgreSQL's are transactions, each of which is one round trip; a session
** adds its own when it has ended. */
static long requests(void) {
  const char *at = strstr(url, "//") + 2;
  if (strncmp(url, "redis", 5) == 0)
    return number_said("redis-cli -s %.*s INFO stats | "
                       "sed -n s/total_commands_processed://p",
                       (int)strcspn(at, "?"), at);
  if (strncmp(url, "etcd", 4) == 0)
    return number_said(
        "lua5.4 -e 'local n, text = 0, require(\"socket.http\").request("
        "\"http://%.*s/metrics\") for name, value in text:gmatch("
        "\"(grpc_server_started_total)%%b{} (%%d+)\") do n = n + value end "
        "print(n)'",
        (int)strcspn(at, "?"), at);
  return number_said("psql -XAtq '%s' -c 'SELECT xact_commit + xact_rollback "
                     "FROM pg_stat_database WHERE datname = "
                     "current_database()'",
                     store);
}

/* What it is when nobody has asked anything for a while. */
static long requests_at_rest(void) {
  long before = -1, now = requests();
  while (now - before > 3) { /* to ask for it is a request, or a few */
    usleep(300000);
    before = now;
    now = requests();
  }
  return now;
}

static void requests_a_release_are_bounded(void **state) {
  (void)state;
  pid_t children[PROCESSES];
  long before = requests_at_rest();
  for (int i = 0; i < PROCESSES; i++) /* before there are threads here */
    if ((children[i] = fork()) == 0)
      be_a_process();
  eg_guard *guard = open_guard();
  assert_non_null(guard);
  assert_true(lock(guard, 0));
  atomic_store(held, 1);
  for (int i = 0; i < 6000 && atomic_load(begun) < PROCESSES * guards; i++)
    usleep(10000);
  requests_at_rest();
  int64_t begin = eg_now_us();
  assert_int_equal(eg_release(guard, eg_str("k"), 0, NULL), EG_OK);
  for (int i = 0; i < PROCESSES; i++)
    waitpid(children[i], NULL, 0);
  int64_t took = eg_now_us() - begin;
  eg_close(guard);
  int all = atomic_load(served);
  double each = (double)(requests_at_rest() - before) / (all + 1);
  print_message("%.8s: %d clients: %.1f requests a release, %.3f ms\n", url,
                all, each, (double)took / 1000 / (all + 1));
  assert_int_equal(all, PROCESSES * guards);
  assert_true(each <= BOUND);
}

/* This program again, with a server. */
static int with_server(const char *name, const char *program) {
  char wrapper[64];
  snprintf(wrapper, sizeof wrapper, "spec/tools/with-%s", name);
  pid_t child = fork();
  int status = 1;
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    execl(wrapper, wrapper, "", program, (char *)NULL);
    perror(wrapper);
    _exit(1);
  }
  waitpid(child, &status, 0);
  return status;
}

int main(int argc, char **argv) {
  const char *n = getenv("HERD");
  (void)argc;
  store = getenv("EXECUTIONGUARD_STORE");
  if (store == NULL)
    return with_server("redis", argv[0]) != 0 ||
           with_server("postgres", argv[0]) != 0 ||
           with_server("etcd", argv[0]) != 0;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(requests_a_release_are_bounded),
  };
  snprintf(url, sizeof url, "%s%ctimeout=60&lease=100", store,
           strchr(store, '?') != NULL ? '&' : '?');
  guards = n != NULL ? atoi(n) : guards;
  begun = mmap(NULL, 3 * sizeof *begun, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  served = begun + 1;
  held = begun + 2;
  alarm(280);
  return cmocka_run_group_tests_name("herd", tests, NULL, NULL);
}
