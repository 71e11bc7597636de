/* SPDX-License-Identifier: MIT
** Five hundred clients that wait for one key, in ten processes, each with a
** guard and a line of its own: how many requests does a release cost?
**
** It is printed.  The bound: whoever waits asks once, at most, for each
** release.  Real processes and a real server, whose own count is taken.
** HERD: how many clients each process has.
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

enum { PROCESSES = 10, GUARDS_MAX = 100 };

static char url[256];
static int guards = 50;
/* Of all processes: clients that have begun to wait, and that had the key. */
static _Atomic int *begun, *served;

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
  for (int i = 0; i < guards; i++)
    pthread_create(&threads[i], NULL, wait_once, open_guard());
  for (int i = 0; i < guards; i++)
    pthread_join(threads[i], NULL);
  _exit(0);
}

/* Scripts that the server has run. */
static long requests(void) {
  static const char name[] = "cmdstat_evalsha:calls=";
  char command[400], said[16384];
  const char *path = strstr(url, "//") + 2;
  snprintf(command, sizeof command, "redis-cli -s %.*s INFO commandstats",
           (int)strcspn(path, "?"), path);
  FILE *pipe = popen(command, "r");
  assert_non_null(pipe);
  size_t n = fread(said, 1, sizeof said - 1, pipe);
  pclose(pipe);
  said[n] = '\0';
  const char *at = strstr(said, name);
  return at != NULL ? strtol(at + sizeof name - 1, NULL, 10) : 0;
}

/* All wait when nobody has asked anything for a while. */
static void await_silence(void) {
  for (int i = 0; i < 6000 && atomic_load(begun) < PROCESSES * guards; i++)
    usleep(10000);
  long before = -1, now = requests();
  while (now != before) {
    usleep(500000);
    before = now;
    now = requests();
  }
}

static void requests_a_release_are_bounded(void **state) {
  (void)state;
  pid_t children[PROCESSES];
  eg_guard *guard;
  guard = open_guard();
  assert_non_null(guard);
  assert_true(lock(guard, 0));
  for (int i = 0; i < PROCESSES; i++)
    if ((children[i] = fork()) == 0)
      be_a_process();
  await_silence();
  long before = requests();
  int64_t begin = eg_now_us();
  assert_int_equal(eg_release(guard, eg_str("k"), 0, NULL), EG_OK);
  for (int i = 0; i < PROCESSES; i++)
    waitpid(children[i], NULL, 0);
  int64_t took = eg_now_us() - begin;
  int all = atomic_load(served);
  long after = requests();
  print_message("%d clients: %.1f scripts a release, %.3f ms\n", all,
                (double)(after - before) / (all + 1),
                (double)took / 1000 / (all + 1));
  assert_int_equal(all, PROCESSES * guards);
  assert_true(after - before <= (long)(all + 1) * (all + 2) / 2 + all);
  eg_close(guard);
}

int main(int argc, char **argv) {
  const char *store = getenv("EXECUTIONGUARD_STORE");
  const char *n = getenv("HERD");
  (void)argc;
  if (store == NULL) {
    execl("spec/tools/with-redis", "with-redis", "", argv[0], (char *)NULL);
    perror("spec/tools/with-redis");
    return 1;
  }
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(requests_a_release_are_bounded),
  };
  snprintf(url, sizeof url, "%s?timeout=60&lease=100", store);
  guards = n != NULL ? atoi(n) : guards;
  begun = mmap(NULL, 2 * sizeof *begun, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  served = begun + 1;
  alarm(280);
  return cmocka_run_group_tests_name("herd", tests, NULL, NULL);
}
