/* SPDX-License-Identifier: MIT
** File systems on which flock does not work, or does nothing.
**
** There is none to be mounted where the tests run.  So the kernel is told, by
** a filter of system calls, what to answer to flock of a child: what such a
** file system answers.  What runs in the child is the program as it is.
*/
#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SAYS_YES = 0 };

/* In words, what came of it, and what is left: 0 as it should be. */
static int open_there(const char *folder, const char *why) {
  char url[128], wanted[200];
  eg_guard *guard;
  eg_error error = {0};
  snprintf(url, sizeof url, "file:%s", folder);
  eg_options options = {.store = url};
  if (eg_open(&options, &guard, &error) != EG_UNSUPPORTED)
    return 1;
  snprintf(wanted, sizeof wanted, ", where %s is%s: use a folder on a local ",
           folder, why);
  if (strncmp(error.message, "flock does not ", 15) != 0 ||
      strstr(error.message, wanted) == NULL) {
    fprintf(stderr, "%s\n", error.message);
    return 2;
  }
  return strstr(error.message, "the file system") == NULL ? 0 : 3;
}

static int in_a_child(const char *folder, int err, const char *why) {
  pid_t child = fork();
  if (child == 0) {
    trouble_answer(SYS_flock, err);
    _exit(open_there(folder, why));
  }
  return trouble_wait(child);
}

static const struct {
  int err;
  const char *why;
} rows[] = {{ENOLCK, " (No locks available)"},
            {EOPNOTSUPP, " (Operation not supported)"},
            {ENOSYS, " (Function not implemented)"},
            {SAYS_YES, ""}};

static void open_where_flock_does_not_work_names_it(void **state) {
  const trouble *t = *state;
  char there[96], command[200];
  snprintf(there, sizeof there, "%s/there", t->folder);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    int answer = in_a_child(there, rows[i].err, rows[i].why);
    if (answer == TROUBLE_NO_FILTER)
      skip(); /* in a container without filters */
    assert_int_equal(answer, 0);
    assert_int_not_equal(access(there, F_OK), 0); /* nothing is left */
    assert_int_equal(mkdir(there, 0700), 0);
    assert_int_equal(in_a_child(there, rows[i].err, rows[i].why), 0);
    snprintf(command, sizeof command, "rmdir %s", there); /* it is empty */
    assert_int_equal(system(command), 0);
  }
}

/* One that worked, and is on such a file system now: it stays as it is. */
static void store_of_before_is_left_alone(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, "k"), EG_OK);
  int answer = in_a_child(t->folder, ENOLCK, rows[0].why);
  if (answer == TROUBLE_NO_FILTER)
    skip();
  assert_int_equal(answer, 0);
  eg_guard *other = trouble_open(t, NULL);
  assert_non_null(other);
  assert_int_equal(trouble_ask(t, other, "k", EG_WANT_RUN, 0), EG_CACHED);
  eg_close(other);
}

static void doctor_says_that_flock_does_not_work(void **state) {
  trouble *t = *state;
  const char *build = getenv("EXECUTIONGUARD_BUILD");
  char program[400], store[120], said[96];
  snprintf(program, sizeof program, "%s/bin/eguard",
           build != NULL ? build : "build");
  snprintf(store, sizeof store, "--store=%s", t->url);
  snprintf(said, sizeof said, "%s/said", t->folder);
  pid_t child = fork();
  if (child == 0) {
    dup2(open(said, O_WRONLY | O_CREAT, 0600), STDOUT_FILENO);
    trouble_answer(SYS_flock, ENOLCK);
    execl(program, "eguard", "doctor", store, (char *)NULL);
    _exit(98);
  }
  int answer = trouble_wait(child);
  if (answer == TROUBLE_NO_FILTER)
    skip();
  assert_int_equal(answer, 1);
  assert_int_equal(trouble_shell(t, "grep -q '^bad *store .*flock does not "
                                    "work on ' said"),
                   0);
  assert_int_equal(
      trouble_shell(t, "grep -A1 '^bad *flock .*No locks available' said | "
                       "grep -q 'move the store to a local file system'"),
      0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TROUBLE(open_where_flock_does_not_work_names_it),
      TROUBLE(store_of_before_is_left_alone),
      TROUBLE(doctor_says_that_flock_does_not_work),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
