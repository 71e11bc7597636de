/* SPDX-License-Identifier: MIT
** The trouble that a file store must survive: each ends in a clear error or in
** a correct grant.  Real processes, real files.
*/
#include "faults.h"

#include "executionguard_host.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HELD, GO_ON, DONE };

static void path_in(const trouble *t, const char *name, char *path) {
  snprintf(path, 256, "%s/%s", t->folder, name);
}

/* ------------------------------------------------------ other processes -- */

static int hold_until_told(trouble *t) {
  if (trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0) != EG_OK)
    return 1;
  trouble_raise(t, HELD);
  if (!trouble_await(t, GO_ON))
    return 2;
  return trouble_finish(t, t->guard, "k") == EG_OK ? 0 : 3;
}

static void run_of_another_process_is_seen(void **state) {
  trouble *t = *state;
  int64_t until = trouble_now_us() + 60000000;
  pid_t child = trouble_child(t, hold_until_told);
  assert_true(trouble_await(t, HELD));
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_RUNNING);
  assert_int_equal(trouble_fetch(t, "k"), EG_OK);
  assert_true(t->record.locked && t->record.status == EG_RUN_RUNNING);
  assert_int_equal(t->record.owner.pid, child);
  assert_false(t->record.owner.mine);
  assert_int_equal(eg_release(t->guard, eg_str("k"), 0, NULL), EG_LOST);
  while (trouble_shell(t, "grep -q '\"pid\":%d' locks/k.lock", (int)child) !=
         0) /* its keeper writes that, after some milliseconds */
    assert_true(trouble_now_us() < until);
  trouble_raise(t, GO_ON);
  assert_int_equal(trouble_wait(child), 0);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_CACHED);
  assert_int_equal(trouble_shell(t, "test -z \"$(head -1 locks/k.lock)\""), 0);
}

static void stopped_holder_still_holds(void **state) {
  trouble *t = *state;
  pid_t child = trouble_child(t, hold_until_told);
  assert_true(trouble_await(t, HELD));
  trouble_await_row(t, "k"); /* not while it has mutexes to write that */
  kill(child, SIGSTOP);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 100),
                   EG_LOCKED);
  kill(child, SIGCONT);
  trouble_raise(t, GO_ON);
  assert_int_equal(trouble_wait(child), 0);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_OK);
}

static void killed_holder_reads_as_failed(void **state) {
  trouble *t = *state;
  pid_t child = trouble_child(t, hold_until_told);
  assert_true(trouble_await(t, HELD));
  kill(child, SIGKILL);
  trouble_wait(child);
  assert_int_equal(trouble_fetch(t, "k"), EG_OK);
  assert_true(t->record.crashed && t->record.status == EG_RUN_FAILED);
  t->policy.block_after_crash = true;
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_CRASHED);
  t->policy.block_after_crash = false;
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, "k"), EG_OK);
  assert_int_equal(trouble_fetch(t, "k"), EG_OK);
  assert_int_equal(t->record.count, 2);
}

static int block_and_die(trouble *t) {
  t->policy.block_after_crash = true;
  if (trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0) != EG_OK)
    return 1;
  kill(getpid(), SIGKILL);
  return 2;
}

static void running_is_on_the_disk_where_a_crash_blocks(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_wait(trouble_child(t, block_and_die)),
                   128 + SIGKILL);
  eg_close(t->guard); /* and so that nothing but the disk knows it */
  assert_int_equal(trouble_shell(t, "rm guard.shm"), 0);
  t->guard = trouble_open(t, NULL);
  assert_non_null(t->guard);
  t->policy.block_after_crash = true;
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_CRASHED);
  assert_int_equal(eg_reset(t->guard, eg_str("k"), NULL), EG_OK);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
}

/* ------------------------------------------------------------- waiting -- */

static int hold_50_ms(trouble *t) {
  if (trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0) != EG_OK)
    return 1;
  trouble_raise(t, HELD);
  usleep(50000);
  return eg_release(t->guard, eg_str("k"), 0, NULL) == EG_OK ? 0 : 1;
}

static void waiter_gets_the_key_when_it_is_released(void **state) {
  trouble *t = *state;
  pid_t child = trouble_child(t, hold_50_ms);
  assert_true(trouble_await(t, HELD));
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 20000), EG_OK);
  assert_int_equal(trouble_wait(child), 0);
}

static void waiter_gets_the_key_when_its_holder_is_killed(void **state) {
  trouble *t = *state;
  pid_t child = trouble_child(t, hold_until_told);
  assert_true(trouble_await(t, HELD));
  pid_t killer = fork();
  if (killer == 0) {
    usleep(30000);
    kill(child, SIGKILL);
    _exit(0);
  }
  int64_t from = trouble_now_us();
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 20000), EG_OK);
  assert_true(trouble_now_us() - from < 5000000);
  trouble_wait(killer);
  trouble_wait(child);
}

static void waiter_gives_up_at_its_deadline(void **state) {
  trouble *t = *state;
  pid_t child = trouble_child(t, hold_until_told);
  assert_true(trouble_await(t, HELD));
  int64_t from = trouble_now_us();
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 150),
                   EG_LOCKED);
  int64_t took = trouble_now_us() - from;
  assert_true(took >= 150000 && took < 5000000);
  trouble_raise(t, GO_ON);
  assert_int_equal(trouble_wait(child), 0);
}

static void nothing(int signo) { (void)signo; }

static void waiter_survives_a_storm_of_signals(void **state) {
  trouble *t = *state;
  pid_t child = trouble_child(t, hold_until_told), me = getpid();
  struct sigaction action = {.sa_handler = nothing};
  sigaction(SIGRTMIN + 5, &action, NULL);
  assert_true(trouble_await(t, HELD));
  pid_t storm = fork();
  if (storm == 0) {
    for (int i = 0; i < 300; i++) {
      kill(me, SIGRTMIN + 5);
      usleep(300);
    }
    _exit(0);
  }
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 50), EG_LOCKED);
  trouble_raise(t, GO_ON);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 20000), EG_OK);
  assert_int_equal(trouble_wait(child), 0);
  trouble_wait(storm);
}

/* ---------------------------------------------------------------- fork -- */

static void forked_child_holds_nothing_and_frees_nothing(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
  pid_t child = fork();
  if (child == 0) {
    eg_reply reply;
    eg_grant grant;
    eg_reply_init(&reply);
    /* By the inherited guard: it attaches itself anew. */
    if (eg_acquire(t->guard, eg_str("k"), EG_WANT_RUN, NULL, 0, &grant,
                   &reply) != EG_RUNNING)
      _exit(1);
    if (eg_acquire(t->guard, eg_str("other"), EG_WANT_RUN, NULL, 0, &grant,
                   &reply) != EG_OK)
      _exit(2);
    eg_close(t->guard);
    if (fork() == 0) /* and a grandchild that lives on */
      _exit(usleep(100000));
    _exit(0);
  }
  assert_int_equal(trouble_wait(child), 0);
  assert_int_equal(trouble_shell(t, "flock -n locks/k.lock true"), 1);
  assert_int_equal(trouble_finish(t, t->guard, "k"), EG_OK);
  assert_int_equal(trouble_shell(t, "flock -n locks/k.lock true"), 0);
  assert_int_equal(trouble_ask(t, t->guard, "other", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, "other"), EG_OK);
}

/* ------------------------------------------- others on the same file -- */

static void flock_and_filelock_exclude_each_other(void **state) {
  trouble *t = *state;
  static const char filelock[] =
      "/usr/bin/python3 -c 'import filelock\n"
      "try: filelock.FileLock(\"locks/k.lock\").acquire(timeout=0)\n"
      "except filelock.Timeout: exit(1)'";
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_OK);
  assert_int_equal(trouble_shell(t, "flock -n locks/k.lock true"), 1);
  assert_int_equal(trouble_shell(t, "%s", filelock), 1);
  assert_int_equal(eg_release(t->guard, eg_str("k"), 0, NULL), EG_OK);
  assert_int_equal(trouble_shell(t, "%s", filelock), 0);
  char path[256];
  path_in(t, "locks/k.lock", path);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  assert_int_equal(flock(fd, LOCK_EX), 0);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_LOCKED);
  assert_int_equal(trouble_fetch(t, "k"), EG_NOTFOUND);
  assert_true(t->record.locked && t->record.owner.pid == 0);
  assert_int_equal(flock(fd, LOCK_UN), 0);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_OK);
  close(fd);
}

static void long_key_has_the_hash_of_a_shell_in_its_file_s_name(void **state) {
  trouble *t = *state;
  char key[400];
  memset(key, 'k', sizeof key - 1);
  key[sizeof key - 1] = '\0';
  assert_int_equal(trouble_ask(t, t->guard, key, EG_WANT_LOCK, 0), EG_OK);
  assert_int_equal(
      trouble_shell(
          t, "flock -n \"locks/$(printf 'k%%.0s' $(seq 120))%%~$(printf "
             "'k%%.0s' $(seq 399) | sha256sum | cut -c -64).lock\" true"),
      1);
}

static void foreign_or_truncated_lock_file_does_no_harm(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_shell(t, "echo garbage > locks/k.lock"), 0);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_OK);
  assert_int_equal(trouble_shell(t, ": > locks/k.lock"), 0);
  assert_int_equal(trouble_fetch(t, "k"), EG_NOTFOUND);
  assert_true(t->record.locked && t->record.owner.mine);
  assert_int_equal(eg_release(t->guard, eg_str("k"), 0, NULL), EG_OK);
}

static void link_in_place_of_a_lock_file_is_refused(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_shell(t, "ln -s /etc/passwd locks/k.lock"), 0);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_DENIED);
  assert_non_null(strstr(t->reply.failure.message, "symbolic link"));
}

static void replaced_lock_file_is_noticed_at_acquire(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_OK);
  assert_int_equal(eg_release(t->guard, eg_str("k"), 0, NULL), EG_OK);
  assert_int_equal(trouble_shell(t, "rm locks/k.lock && : > locks/k.lock"), 0);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_OK);
  assert_int_equal(trouble_shell(t, "flock -n locks/k.lock true"), 1);
  assert_int_equal(eg_release(t->guard, eg_str("k"), 0, NULL), EG_OK);
}

/* By the keeper, which looks every tenth of a second: the run is told, its
** outcome refused, and the key free. */
static void loses_what(trouble *t, const char *command) {
  eg_timer timer = {.guard = t->guard, .key = eg_str("k")};
  int64_t until = trouble_now_us() + 60000000;
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
  timer.grant = t->grant;
  timer.policy = &t->policy;
  eg_timer_start(&timer);
  usleep(150000); /* it has looked once, and nothing was the matter */
  assert_int_equal(eg_timer_fired(&timer), 0);
  assert_true(eg_holds(t->guard, eg_str("k"), t->grant.token));
  assert_int_equal(trouble_shell(t, "%s", command), 0);
  assert_false(eg_holds(t->guard, eg_str("k"), t->grant.token)); /* at once */
  while (!eg_timer_lost(&timer) && trouble_now_us() < until)
    usleep(1000);
  assert_true(eg_timer_lost(&timer));
  assert_int_equal(eg_timer_stop(&timer), EG_LOST);
  assert_int_equal(trouble_finish(t, t->guard, "k"), EG_LOST);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, "k"), EG_OK);
}

static void removed_lock_file_is_a_loss_to_its_holder(void **state) {
  loses_what(*state, "rm locks/k.lock");
}

static void replaced_lock_file_is_a_loss_to_its_holder(void **state) {
  loses_what(*state, "cp locks/k.lock new && mv new locks/k.lock");
}

static void run_it(trouble *t, const char *key, int times) {
  t->policy.allow_rerun = true;
  for (int i = 0; i < times; i++) {
    assert_int_equal(trouble_ask(t, t->guard, key, EG_WANT_RUN, 0), EG_OK);
    assert_int_equal(trouble_finish(t, t->guard, key), EG_OK);
  }
}

static bool is_latest(void *ctx, const eg_past *past) {
  const trouble *t = ctx;
  assert_int_equal(past->token, t->grant.token);
  assert_int_equal(past->status, EG_OK);
  return false;
}

/* How many transactions there were: the header of the wal-index counts. */
static long commits(trouble *t) {
  char command[200], line[40] = "";
  snprintf(command, sizeof command, "od -An -tu4 -j8 -N4 %s/guard.db-shm",
           t->folder);
  FILE *pipe = popen(command, "r");
  assert_non_null(pipe);
  assert_non_null(fgets(line, sizeof line, pipe));
  pclose(pipe);
  return atol(line);
}

/* Those that were deleted since count too. */
static int rows_of_history(trouble *t) {
  char command[200], line[40] = "";
  snprintf(command, sizeof command,
           "sqlite3 -cmd '.timeout 5000' %s/guard.db "
           "'select coalesce(max(id), 0) from history'",
           t->folder);
  FILE *pipe = popen(command, "r");
  assert_non_null(pipe);
  assert_non_null(fgets(line, sizeof line, pipe));
  pclose(pipe);
  return atoi(line);
}

static void history_is_written_in_batches(void **state) {
  enum { RUNS = 100 };
  trouble *t = *state;
  int64_t until = trouble_now_us() + 60000000;
  run_it(t, "k", 1); /* the database is there */
  while (rows_of_history(t) < 1 && trouble_now_us() < until)
    usleep(1000);
  long before = commits(t);
  run_it(t, "k", RUNS);
  while (rows_of_history(t) < RUNS + 1 && trouble_now_us() < until)
    usleep(1000);
  assert_int_equal(rows_of_history(t), RUNS + 1);
  long took = commits(t) - before; /* one for each end, and the batches */
  assert_true(took > RUNS && took < RUNS + RUNS / 2);
  assert_int_equal(
      eg_history(t->guard, eg_str("k"), 5, is_latest, t, &t->error), EG_OK);
}

/* Nobody does, because the clock that says when stands still. */
static void history_does_not_grow_where_nobody_tends_it(void **state) {
  trouble *t = *state;
  eg_set_clock(eg_test_clock());
  run_it(t, "k", 600);
  int rows = rows_of_history(t);
  eg_set_clock(NULL);
  assert_int_equal(rows, 500);
}

static void nothing_is_inherited_by_a_command(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, "k"), EG_OK);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_OK);
  assert_int_equal(
      trouble_shell(t, "ls -l /proc/self/fd | grep -q %s", t->folder), 1);
}

static void two_pid_namespaces_exclude_each_other(void **state) {
  trouble *t = *state;
  if (system("unshare -p -f true 2>/dev/null") != 0)
    skip(); /* not allowed here: as a user in a container */
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_OK);
  assert_int_equal(
      trouble_shell(t, "unshare -p -f flock -n locks/k.lock true"), 1);
}

/* ------------------------------------------------------------ the disk -- */

static void removed_database_is_no_silent_success(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_ask(t, t->guard, "a", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, "a"), EG_OK);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_shell(t, "rm guard.db"), 0);
  assert_int_equal(trouble_finish(t, t->guard, "k"), EG_UNCOMMITTED);
  assert_non_null(strstr(t->error.message, "removed or replaced"));
}

static bool visit(void *ctx, const eg_record *record) {
  (void)record;
  ++*(int *)ctx;
  return true;
}

static void removed_database_is_not_listed_from(void **state) {
  trouble *t = *state;
  int n = 0;
  assert_int_equal(trouble_ask(t, t->guard, "a", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, "a"), EG_OK);
  assert_int_equal(eg_scan_held(t->guard, eg_str(""), visit, &n, &t->error),
                   EG_OK);
  assert_int_equal(n, 1);
  assert_int_equal(trouble_shell(t, "mv guard.db elsewhere"), 0);
  assert_int_equal(eg_scan_held(t->guard, eg_str(""), visit, &n, &t->error),
                   EG_UNAVAILABLE);
  assert_non_null(strstr(t->error.message, "removed or replaced"));
  assert_int_equal(trouble_shell(t, "mv elsewhere guard.db"), 0);
  assert_int_equal(eg_scan_held(t->guard, eg_str(""), visit, &n, &t->error),
                   EG_OK);
}

static void removed_folder_is_no_silent_success(void **state) {
  trouble *t = *state;
  int64_t until = trouble_now_us() + 60000000;
  eg_status status;
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_shell(t, "rm -r ../$(basename $PWD)"), 0);
  do { /* until the keeper knows that the lock file is gone too */
    status = trouble_finish(t, t->guard, "k");
  } while (status == EG_UNCOMMITTED && trouble_now_us() < until);
  assert_int_equal(status, EG_LOST);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0),
                   EG_UNAVAILABLE);
  assert_non_null(strstr(t->reply.failure.message, "removed or replaced"));
}

static void corrupt_database_says_so(void **state) {
  trouble *t = *state;
  eg_close(t->guard);
  assert_int_equal(trouble_shell(t, "head -c 8192 /dev/urandom > guard.db; "
                                    "chmod 600 guard.db; rm guard.shm"),
                   0);
  t->guard = trouble_open(t, NULL);
  assert_non_null(t->guard);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_CORRUPT);
  assert_non_null(strstr(t->reply.failure.message, "rebuild"));
  /* A lock asks the database whether the last run died. */
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_CORRUPT);
}

static int fill_the_disk(trouble *t) {
  static char large[200000];
  eg_outcome outcome = {.status = EG_OK, .kind = EG_KIND_VALUE};
  struct rlimit limit = {300000, 300000};
  if (trouble_ask(t, t->guard, "a", EG_WANT_RUN, 0) != EG_OK ||
      trouble_finish(t, t->guard, "a") != EG_OK)
    return 1;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  memset(large, 'x', sizeof large);
  large[0] = (char)0xdb;
  large[1] = 0;
  large[2] = (char)((sizeof large - 5) >> 16);
  large[3] = (char)((sizeof large - 5) >> 8);
  large[4] = (char)((sizeof large - 5) & 255);
  outcome.value = (eg_bytes){large, sizeof large};
  for (int i = 0; i < 5; i++) {
    char key[8];
    snprintf(key, sizeof key, "k%d", i);
    if (trouble_ask(t, t->guard, key, EG_WANT_RUN, 0) != EG_OK)
      return 2;
    eg_status status = eg_commit(t->guard, eg_str(key), &t->grant, &outcome,
                                 &t->policy, &t->error);
    if (status == EG_OK)
      continue;
    if (status != EG_UNCOMMITTED)
      return 10 + (int)status;
    /* locks go on, what is stored can be read, the grant still stands */
    if (trouble_ask(t, t->guard, "lock", EG_WANT_LOCK, 0) != EG_OK)
      return 3;
    if (trouble_ask(t, t->guard, "a", EG_WANT_RUN, 0) != EG_CACHED)
      return 4;
    return trouble_ask(t, t->guard, key, EG_WANT_RUN, 0) == EG_RUNNING ? 0 : 5;
  }
  return 6;
}

static void full_disk_leaves_it_uncommitted(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_wait(trouble_child(t, fill_the_disk)), 0);
  assert_int_equal(trouble_ask(t, t->guard, "a", EG_WANT_RUN, 0), EG_CACHED);
}

static int use_up_descriptors(trouble *t) {
  struct rlimit limit = {40, 40};
  setrlimit(RLIMIT_NOFILE, &limit);
  for (int i = 0; i < 100; i++) {
    char key[16];
    snprintf(key, sizeof key, "key %d", i);
    eg_status status = trouble_ask(t, t->guard, key, EG_WANT_LOCK, 0);
    if (status == EG_UNAVAILABLE)
      return strstr(t->reply.failure.message, "ulimit") != NULL ? 0 : 2;
    if (status != EG_OK)
      return 3;
  }
  return 4;
}

static void limit_of_descriptors_is_a_clear_error(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_wait(trouble_child(t, use_up_descriptors)), 0);
}

static void reader_of_the_database_is_in_nobodys_way(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_ask(t, t->guard, "a", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, "a"), EG_OK);
  FILE *reader = NULL;
  char command[200];
  snprintf(command, sizeof command, "sqlite3 %s/guard.db >/dev/null 2>&1",
           t->folder);
  reader = popen(command, "w");
  assert_non_null(reader);
  fputs("begin; select * from runs;\n", reader);
  fflush(reader);
  usleep(50000);
  assert_int_equal(trouble_ask(t, t->guard, "b", EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, t->guard, "b"), EG_OK);
  pclose(reader);
}

/* --------------------------------------------------------- permissions -- */

static void folder_that_others_may_write_is_refused(void **state) {
  trouble *t = *state;
  char url[128];
  eg_guard *guard;
  snprintf(url, sizeof url, "file:%s/open", t->folder);
  eg_options options = {.store = url};
  assert_int_equal(trouble_shell(t, "mkdir open && chmod 777 open"), 0);
  assert_int_equal(eg_open(&options, &guard, &t->error), EG_DENIED);
  assert_non_null(strstr(t->error.message, "chmod"));
  assert_int_equal(trouble_shell(t, "chmod 700 open; ln -s open link"), 0);
  snprintf(url, sizeof url, "file:%s/link", t->folder);
  assert_int_equal(eg_open(&options, &guard, &t->error), EG_DENIED);
  snprintf(url, sizeof url, "file:%s/open/a/b/c", t->folder);
  assert_int_equal(eg_open(&options, &guard, &t->error), EG_OK);
  eg_close(guard);
  assert_int_equal(trouble_shell(t, "test $(stat -c %%a open/a/b/c) = 700"),
                   0);
}

/* As somebody who may read it and not write. */
static int open_read_only(trouble *t) {
  char url[128];
  eg_guard *guard;
  if (setgid(65534) != 0 || setuid(65534) != 0)
    return 1;
  snprintf(url, sizeof url, "file:%s/readonly", t->folder);
  eg_options options = {.store = url};
  eg_status status = eg_open(&options, &guard, &t->error);
  if (status != EG_DENIED)
    return 2;
  if (strstr(t->error.message, "Permission denied") == NULL)
    return 3;
  snprintf(url, sizeof url, "file:%s/readonly/a/b", t->folder);
  if (eg_open(&options, &guard, &t->error) != EG_DENIED)
    return 4;
  return strstr(t->error.message, "readonly/a: Permission denied") != NULL ? 0
                                                                           : 5;
}

static void folder_that_is_read_only_is_a_clear_error(void **state) {
  trouble *t = *state;
  if (geteuid() != 0)
    skip(); /* only root can become somebody else */
  assert_int_equal(trouble_shell(t, "chmod 711 . && mkdir readonly && "
                                    "chown 65534:65534 readonly && "
                                    "chmod 500 readonly"),
                   0);
  pid_t child = fork();
  if (child == 0)
    _exit(open_read_only(t));
  assert_int_equal(trouble_wait(child), 0);
}

static void folder_of_a_stranger_is_refused(void **state) {
  trouble *t = *state;
  char url[128];
  eg_guard *guard;
  if (geteuid() != 0)
    skip(); /* only root can make a stranger's folder */
  snprintf(url, sizeof url, "file:%s/strange", t->folder);
  eg_options options = {.store = url};
  assert_int_equal(trouble_shell(t, "mkdir strange && chmod 700 strange && "
                                    "chown 65534 strange"),
                   0);
  assert_int_equal(eg_open(&options, &guard, &t->error), EG_DENIED);
  assert_non_null(strstr(t->error.message, "belongs to user 65534"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TROUBLE(run_of_another_process_is_seen),
      TROUBLE(stopped_holder_still_holds),
      TROUBLE(killed_holder_reads_as_failed),
      TROUBLE(running_is_on_the_disk_where_a_crash_blocks),
      TROUBLE(waiter_gets_the_key_when_it_is_released),
      TROUBLE(waiter_gets_the_key_when_its_holder_is_killed),
      TROUBLE(waiter_gives_up_at_its_deadline),
      TROUBLE(waiter_survives_a_storm_of_signals),
      TROUBLE(forked_child_holds_nothing_and_frees_nothing),
      TROUBLE(flock_and_filelock_exclude_each_other),
      TROUBLE(long_key_has_the_hash_of_a_shell_in_its_file_s_name),
      TROUBLE(foreign_or_truncated_lock_file_does_no_harm),
      TROUBLE(link_in_place_of_a_lock_file_is_refused),
      TROUBLE(replaced_lock_file_is_noticed_at_acquire),
      TROUBLE(removed_lock_file_is_a_loss_to_its_holder),
      TROUBLE(replaced_lock_file_is_a_loss_to_its_holder),
      TROUBLE(history_is_written_in_batches),
      TROUBLE(history_does_not_grow_where_nobody_tends_it),
      TROUBLE(nothing_is_inherited_by_a_command),
      TROUBLE(two_pid_namespaces_exclude_each_other),
      TROUBLE(removed_database_is_no_silent_success),
      TROUBLE(removed_database_is_not_listed_from),
      TROUBLE(removed_folder_is_no_silent_success),
      TROUBLE(corrupt_database_says_so),
      TROUBLE(full_disk_leaves_it_uncommitted),
      TROUBLE(limit_of_descriptors_is_a_clear_error),
      TROUBLE(reader_of_the_database_is_in_nobodys_way),
      TROUBLE(folder_that_others_may_write_is_refused),
      TROUBLE(folder_that_is_read_only_is_a_clear_error),
      TROUBLE(folder_of_a_stranger_is_refused),
  };
  alarm(300);
  return cmocka_run_group_tests_name("file trouble", tests, NULL, NULL);
}
