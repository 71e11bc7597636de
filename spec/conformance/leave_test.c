/* SPDX-License-Identifier: MIT
** A process that ends gives back what it holds on a server: at a signal, in
** exit(), in children of a fork, and not where somebody else minds the signal.
**
** Each case is a process that ends; real servers take real time.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"
#include "executionguard_host.h"
#include "guard/guard.h"
#include "server.h"
#include "support.h"

#include <cmocka.h>

enum { BAD = 77 };

static server master;
static eg_guard *guard; /* of a child */

static int start_master(void **state) {
  (void)state;
  return server_start(&master, 0, "") ? 0 : -1;
}

static int end_master(void **state) {
  (void)state;
  server_end(&master);
  return 0;
}

static eg_guard *open_guard(void) {
  char url[256];
  eg_guard *opened = NULL;
  snprintf(url, sizeof url, "redis+unix://%s?timeout=60&lease=100",
           master.socket);
  eg_options options = {.store = url, .name = "leave"};
  return eg_open(&options, &opened, NULL) == EG_OK ? opened : NULL;
}

static bool release(const char *key) { return unlock(guard, key) == EG_OK; }

/* For children, out of which no assertion may jump. */
static void want(bool good) {
  if (!good)
    _exit(BAD);
}

/* How a child that does that ends. */
static int end_of(void (*body)(void)) {
  int status = 0;
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    guard = open_guard();
    want(guard != NULL);
    body();
    _exit(0);
  }
  return pid > 0 && waitpid(pid, &status, 0) == pid ? status : -1;
}

static void assert_ended_by(int number, void (*body)(void)) {
  int status = end_of(body);
  assert_true(WIFSIGNALED(status));
  assert_int_equal(WTERMSIG(status), number);
}

static void assert_lived(void (*body)(void)) {
  int status = end_of(body);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
}

static void assert_free(const char *key) {
  eg_guard *other = open_guard();
  assert_non_null(other);
  assert_int_equal(lock(other, key), EG_OK);
  eg_close(other);
}

/* ------------------------------------------------------------- signals -- */

static void end_by_terminate(void) {
  want(lock(guard, "terminate") == EG_OK && eg_leave_at(guard, SIGTERM));
  raise(SIGTERM);
}

static void *wait_for_ever(void *arg) {
  for (;;)
    pause();
  return arg;
}

/* One thread is hit, and another by a second signal meanwhile. */
static void end_by_two(void) {
  pthread_t thread;
  want(lock(guard, "two") == EG_OK && eg_leave_at(guard, SIGTERM) &&
       eg_leave_at(guard, SIGINT));
  want(pthread_create(&thread, NULL, wait_for_ever, NULL) == 0);
  /* NOLINTNEXTLINE(bugprone-bad-signal-to-kill-thread): that is the test */
  pthread_kill(thread, SIGTERM);
  raise(SIGTERM);
}

static void signal_ends_the_process_as_it_always_did(void **state) {
  (void)state;
  SPEC_FORKS_THREADS();
  assert_ended_by(SIGTERM, end_by_terminate);
  assert_free("terminate");
  assert_ended_by(SIGTERM, end_by_two);
  assert_free("two");
}

static void refuse_harmless(void) {
  static const int ends_nothing[] = {SIGCHLD, SIGURG, SIGTSTP, SIGKILL, 0, -1};
  for (size_t i = 0; i < sizeof ends_nothing / sizeof ends_nothing[0]; i++)
    want(!eg_leave_at(guard, ends_nothing[i]));
  want(eg_leave_at(guard, SIGHUP));
  want(eg_leave_at(guard, SIGHUP)); /* again */
  eg_guard *memory = NULL;
  want(eg_open(NULL, &memory, NULL) == EG_OK && !eg_leave_at(memory, SIGTERM));
}

static void signal_that_ends_nothing_is_refused(void **state) {
  (void)state;
  SPEC_FORKS_THREADS();
  assert_lived(refuse_harmless);
}

/* ------------------------------------------------------- other handlers -- */

static volatile sig_atomic_t handled;
static struct sigaction before;

static void handle(int number) {
  (void)number;
  handled++;
}

static void handle_and_pass_on(int number) {
  handled++;
  before.sa_handler(number);
}

static void set(void (*handler)(int), struct sigaction *old) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  want(sigaction(SIGTERM, &action, old) == 0);
}

static void ignore_before(void) {
  set(SIG_IGN, NULL);
  want(lock(guard, "k") == EG_OK && !eg_leave_at(guard, SIGTERM));
  raise(SIGTERM);
  want(release("k"));
}

static void handle_before(void) {
  set(handle, NULL);
  want(lock(guard, "k") == EG_OK && !eg_leave_at(guard, SIGTERM));
  raise(SIGTERM);
  want(handled == 1 && release("k"));
}

static void handler_that_was_there_stays(void **state) {
  (void)state;
  SPEC_FORKS_THREADS();
  assert_lived(ignore_before);
  assert_lived(handle_before);
}

static void ignore_later(void) {
  want(lock(guard, "k") == EG_OK && eg_leave_at(guard, SIGTERM));
  set(SIG_IGN, NULL);
  raise(SIGTERM);
  want(release("k"));
}

static void pass_on_later(void) {
  want(lock(guard, "k") == EG_OK && eg_leave_at(guard, SIGTERM));
  set(handle_and_pass_on, &before);
  raise(SIGTERM);
  want(handled == 1 && release("k"));
}

static void handler_that_is_set_later_is_in_charge(void **state) {
  (void)state;
  SPEC_FORKS_THREADS();
  assert_lived(ignore_later);
  assert_lived(pass_on_later);
}

/* ------------------------------------------------------ where it is hit -- */

static void end_in_our_locks(void) {
  want(eg_leave_at(guard, SIGTERM));
  egi_attending_lock();
  raise(SIGTERM);
}

static void thread_that_is_hit_in_our_locks_is_ended(void **state) {
  (void)state;
  SPEC_FORKS_THREADS();
  assert_ended_by(SIGTERM, end_in_our_locks);
}

static atomic_bool exits;
static pthread_t exiting;

/* A clock by which giving back goes, in the thread that exits. */
static int64_t now_and_signal(void *ctx) {
  const eg_clock *clock = ctx;
  if (atomic_load(&exits) && pthread_equal(pthread_self(), exiting) &&
      atomic_exchange(&exits, false))
    raise(SIGTERM);
  return clock->now_us(clock->ctx);
}

static void end_in_exit(void) {
  static eg_clock clock;
  clock = *eg_system_clock();
  clock.ctx = (void *)eg_system_clock();
  clock.now_us = now_and_signal;
  want(lock(guard, "exit") == EG_OK && eg_leave_at(guard, SIGTERM));
  exiting = pthread_self();
  eg_set_clock(&clock);
  atomic_store(&exits, true);
  exit(0);
}

static void thread_that_is_hit_in_exit_gives_back_first(void **state) {
  (void)state;
  SPEC_FORKS_THREADS();
  assert_ended_by(SIGTERM, end_in_exit);
  assert_free("exit");
}

/* --------------------------------------------------------------- forks -- */

static void fork_and_end(void) {
  int status = 0;
  want(lock(guard, "parent's") == EG_OK && eg_leave_at(guard, SIGTERM));
  pid_t pid = fork();
  if (pid == 0) {
    want(lock(guard, "child's") == EG_OK);
    raise(SIGTERM);
  }
  want(pid > 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
  want(WTERMSIG(status) == SIGTERM);
  want(lock(guard, "child's") == EG_OK && release("parent's"));
}

static void child_of_a_fork_gives_back_its_own(void **state) {
  (void)state;
  SPEC_FORKS_THREADS();
  assert_lived(fork_and_end);
}

/* A daemon closes all descriptors, and has others under their numbers. */
static int descriptors(void) {
  int n = 0;
  DIR *dir = opendir("/proc/self/fd");
  want(dir != NULL);
  while (readdir(dir) != NULL)
    n++;
  closedir(dir);
  return n;
}

static void count_descriptors(void) {
  int n = descriptors();
  want(eg_leave_at(guard, SIGTERM) && descriptors() == n);
}

static void no_descriptor_is_kept_for_it(void **state) {
  (void)state;
  SPEC_FORKS_THREADS();
  assert_lived(count_descriptors);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(signal_ends_the_process_as_it_always_did),
      cmocka_unit_test(signal_that_ends_nothing_is_refused),
      cmocka_unit_test(handler_that_was_there_stays),
      cmocka_unit_test(handler_that_is_set_later_is_in_charge),
      cmocka_unit_test(thread_that_is_hit_in_our_locks_is_ended),
      cmocka_unit_test(thread_that_is_hit_in_exit_gives_back_first),
      cmocka_unit_test(child_of_a_fork_gives_back_its_own),
      cmocka_unit_test(no_descriptor_is_kept_for_it),
  };
  return cmocka_run_group_tests(tests, start_master, end_master);
}
