/* SPDX-License-Identifier: MIT
** Processes that are stopped: eguard is so between two steps only (SIGTSTP,
** ^Z); who is so in the midst of one (SIGSTOP) is named to those who wait.
**
** Real time: nothing here waits for time to pass, but for what a process does.
*/
#include "faults.h"

#include "store/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOCKED, GO_ON, PATIENCE_US = 60000000 };

static egi_side_head *map_side(const trouble *t) {
  char path[96];
  snprintf(path, sizeof path, "%s/guard.shm", t->folder);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  egi_side_head *head = mmap(NULL, sizeof *head, PROT_READ | PROT_WRITE,
                             MAP_SHARED, fd, 0);
  assert_true(head != MAP_FAILED);
  close(fd);
  return head;
}

static int keep_database_locked(trouble *t) {
  char path[96];
  sqlite3 *db = NULL;
  snprintf(path, sizeof path, "%s/guard.db", t->folder);
  if (sqlite3_open(path, &db) != SQLITE_OK ||
      sqlite3_busy_timeout(db, PATIENCE_US / 1000) != SQLITE_OK ||
      sqlite3_exec(db, "begin immediate", NULL, NULL, NULL) != SQLITE_OK)
    return 1;
  trouble_raise(t, LOCKED);
  trouble_await(t, GO_ON);
  sqlite3_exec(db, "commit", NULL, NULL, NULL);
  return sqlite3_close(db) != SQLITE_OK;
}

static pid_t start_eguard(const trouble *t, const char *word,
                          const char *key) {
  const char *build = getenv("EXECUTIONGUARD_BUILD");
  char program[400];
  snprintf(program, sizeof program, "%s/bin/eguard",
           build != NULL ? build : "build");
  setenv("EXECUTIONGUARD_STORE", t->url, 1);
  pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    execl(program, "eguard", word, key, (char *)NULL);
    _exit(99);
  }
  assert_true(child > 0);
  return child;
}

static bool has_mutex(const pthread_mutex_t *mutex, pid_t pid) {
  char who[EGI_BLAME], wanted[64];
  int n = snprintf(wanted, sizeof wanted, "process %ld (eguard) has it",
                   (long)pid);
  egi_blame_mutex(mutex, who);
  return strncmp(who, wanted, (size_t)n) == 0;
}

static void await_mutex_of(const pthread_mutex_t *mutex, pid_t pid) {
  int64_t until = trouble_now_us() + PATIENCE_US;
  while (!has_mutex(mutex, pid)) {
    assert_true(trouble_now_us() < until);
    usleep(500);
  }
}

static void eguard_that_writes_stops_when_it_has_written(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, "k"), EG_OK);
  eg_close(t->guard); /* or its keeper may have the mutex, for the history */
  t->guard = NULL;
  egi_side_head *head = map_side(t);
  pid_t locker = trouble_child(t, keep_database_locked);
  assert_true(trouble_await(t, LOCKED));
  pid_t eguard = start_eguard(t, "reset", "k");
  await_mutex_of(&head->writer, eguard);
  kill(eguard, SIGTSTP);
  trouble_raise(t, GO_ON);
  assert_int_equal(trouble_wait(locker), 0);
  int status;
  assert_int_equal(waitpid(eguard, &status, WUNTRACED), eguard);
  assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTSTP);
  assert_false(has_mutex(&head->writer, eguard));
  t->guard = trouble_open(t, NULL);
  assert_int_equal(trouble_fetch(t, "k"), EG_OK);
  assert_int_equal(t->record.status, EG_RUN_IDLE); /* it has written */
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, "k"), EG_OK);
  kill(eguard, SIGCONT);
  assert_int_equal(trouble_wait(eguard), 0);
  munmap(head, sizeof *head);
}

static int stop_with_the_mutex(trouble *t) {
  bool died;
  egi_side_head *head = map_side(t);
  if (egi_mutex_lock(&head->writer, &died, &t->error) != EG_OK)
    return 1;
  raise(SIGSTOP);
  egi_mutex_unlock(&head->writer);
  return 0;
}

static void who_was_stopped_with_the_mutex_is_named(void **state) {
  trouble *t = *state;
  char wanted[200];
  bool died;
  egi_side_head *head = map_side(t);
  pid_t child = trouble_child(t, stop_with_the_mutex);
  int status;
  assert_int_equal(waitpid(child, &status, WUNTRACED), child);
  assert_true(WIFSTOPPED(status));
  assert_int_equal(egi_mutex_lock_within(&head->writer, 20, &died, &t->error),
                   EG_UNAVAILABLE);
  snprintf(wanted, sizeof wanted,
           "the side file was not to be had for 0.02 seconds: process %ld "
           "(stopped_test) has it, and is stopped: kill -CONT %ld lets it go "
           "on",
           (long)child, (long)child);
  assert_string_equal(t->error.message, wanted);
  kill(child, SIGCONT);
  assert_int_equal(trouble_wait(child), 0);
  assert_int_equal(egi_mutex_lock_within(&head->writer, 20, &died, &t->error),
                   EG_OK);
  egi_mutex_unlock(&head->writer);
  munmap(head, sizeof *head);
}

static void who_keeps_the_database_locked_is_named(void **state) {
  trouble *t = *state;
  char who[EGI_BLAME], wanted[64];
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, "k"), EG_OK);
  int dir = open(t->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
  assert_false(egi_blame_file(dir, "guard.db-shm", "POSIX", who));
  pid_t locker = trouble_child(t, keep_database_locked);
  assert_true(trouble_await(t, LOCKED));
  assert_true(egi_blame_file(dir, "guard.db-shm", "POSIX", who));
  snprintf(wanted, sizeof wanted, "process %ld (stopped_test) has it",
           (long)locker);
  assert_string_equal(who, wanted);
  trouble_raise(t, GO_ON);
  assert_int_equal(trouble_wait(locker), 0);
  close(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TROUBLE(eguard_that_writes_stops_when_it_has_written),
      TROUBLE(who_was_stopped_with_the_mutex_is_named),
      TROUBLE(who_keeps_the_database_locked_is_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
