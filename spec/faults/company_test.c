/* SPDX-License-Identifier: MIT
** Who else may be at a store's folder: users of a group, another version of
** the library, processes of all sorts of descent, people who clean up, and
** signals.  Real processes, real files.
*/
#include "faults.h"

#include "executionguard_host.h"

#include <errno.h>
#include <grp.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { HELD, GO_ON, DONE, ALIVE };

/* What a child says that may not do here what it is to do. */
enum { NOT_ALLOWED = 77 };

static eg_status run_it(trouble *t, const char *key) {
  eg_status status = trouble_ask(t, t->guard, key, EG_WANT_RUN, 0);
  return status == EG_OK ? trouble_finish(t, t->guard, key) : status;
}

/* ---------------------------------------------------------------- a group -- */

enum { SHARED_GROUP = 2000 };

static eg_status open_as(trouble *t, uid_t uid, gid_t gid, const char *query) {
  char url[128];
  gid_t other = SHARED_GROUP;
  umask(077); /* the store's modes are its own */
  if (setgroups(gid == uid ? 1 : 0, &other) != 0 || setgid(gid) != 0 ||
      setuid(uid) != 0)
    return EG_INTERNAL;
  snprintf(url, sizeof url, "file:%s/shared%s", t->folder, query);
  eg_options options = {.store = url};
  return eg_open(&options, &t->guard, &t->error);
}

/* Opens the shared folder as that user, and runs a key: its outcome.  Whose
** first group is his own (gid is uid) is in the shared one besides. */
static int as_user(trouble *t, uid_t uid, gid_t gid, const char *query,
                   const char *key) {
  pid_t child = fork();
  if (child != 0)
    return trouble_wait(child);
  eg_status status = open_as(t, uid, gid, query);
  if (status == EG_OK) {
    status = run_it(t, key);
    eg_close(t->guard);
  }
  _exit((int)status);
}

static void group_shares_a_folder(void **state) {
  trouble *t = *state;
  if (geteuid() != 0)
    skip(); /* only root can become several others */
  const char *shared = "?mode=0770";
  assert_int_equal(trouble_shell(t, "chmod 711 . && install -d -m 770 -o 1001 "
                                    "-g 2000 shared"),
                   0);
  assert_int_equal(as_user(t, 1001, 2000, shared, "k"), EG_OK);
  assert_int_equal(trouble_shell(t,
                                 "cd shared && test \"$(stat -c %%a locks "
                                 "locks/k.lock guard.db guard.shm | xargs)\""
                                 " = '2770 660 660 660'"),
                   0);
  assert_int_equal(as_user(t, 1002, 2000, shared, "k"), EG_CACHED);
  assert_int_equal(as_user(t, 1002, 2000, shared, "own"), EG_OK);
  assert_int_equal(as_user(t, 1001, 2000, shared, "own"), EG_CACHED);
  assert_int_equal(as_user(t, 1003, 3000, shared, "k"), EG_DENIED);
  assert_int_equal(as_user(t, 1002, 2000, "", "k"), EG_DENIED);
}

static void group_that_is_not_the_first_shares_a_folder(void **state) {
  trouble *t = *state;
  if (geteuid() != 0)
    skip(); /* only root can become several others */
  const char *shared = "?mode=0770";
  assert_int_equal(trouble_shell(t, "chmod 711 . && install -d -m 770 -o 1001 "
                                    "-g 2000 shared"),
                   0);
  assert_int_equal(as_user(t, 1001, 1001, shared, "k"), EG_OK);
  assert_int_equal(as_user(t, 1002, 1002, shared, "k"), EG_CACHED);
  assert_int_equal(as_user(t, 1002, 1002, shared, "own"), EG_OK);
  assert_int_equal(as_user(t, 1001, 1001, shared, "own"), EG_CACHED);
  assert_int_equal(as_user(t, 1003, 2000, shared, "own"), EG_CACHED);
}

static void folder_that_gives_files_another_group_is_refused(void **state) {
  trouble *t = *state;
  if (geteuid() != 0)
    skip(); /* only root can become several others */
  const char *shared = "?mode=0770";
  assert_int_equal(trouble_shell(t, "chmod 711 . && install -d -m 770 -o 0 "
                                    "-g 2000 shared"),
                   0);
  assert_int_equal(as_user(t, 1001, 1001, shared, "k"), EG_DENIED);
  assert_int_equal(trouble_shell(t, "test -z \"$(ls shared)\" && "
                                    "chmod g+s shared"),
                   0);
  assert_int_equal(as_user(t, 1001, 1001, shared, "k"), EG_OK);
  assert_int_equal(as_user(t, 1002, 1002, shared, "k"), EG_CACHED);
}

/* ---------------------------------------------------------- the database -- */

static void newer_schema_is_refused(void **state) {
  trouble *t = *state;
  assert_int_equal(run_it(t, "k"), EG_OK);
  eg_close(t->guard);
  assert_int_equal(
      trouble_shell(t, "sqlite3 guard.db 'pragma user_version = 99'"), 0);
  t->guard = trouble_open(t, NULL);
  assert_int_equal(run_it(t, "k"), EG_UNSUPPORTED);
  assert_non_null(strstr(t->reply.failure.message, "newer version"));
  assert_int_equal(
      trouble_shell(t, "test $(sqlite3 guard.db 'pragma user_version') = 99"),
      0);
}

static bool count_past(void *ctx, const eg_past *past) {
  (void)past;
  ++*(int *)ctx;
  return true;
}

static void history_is_bounded_by_count_and_age(void **state) {
  trouble *t = *state;
  int n = 0;
  eg_close(t->guard);
  t->guard = trouble_open(t, "?history=20");
  t->policy.allow_rerun = true;
  for (int i = 0; i < 50; i++)
    assert_int_equal(run_it(t, "k"), EG_OK);
  assert_int_equal(
      eg_history(t->guard, eg_str("k"), 1000, count_past, &n, &t->error),
      EG_OK);
  assert_int_equal(n, 20);
  assert_int_equal(
      trouble_shell(t, "sqlite3 -cmd '.timeout 5000' guard.db 'update history "
                       "set start = start - 100 * 86400000000 where id in "
                       "(select id from history order by id limit 15)'"),
      0);
  assert_int_equal(run_it(t, "k"), EG_OK);
  n = 0;
  assert_int_equal(
      eg_history(t->guard, eg_str("k"), 1000, count_past, &n, &t->error),
      EG_OK);
  assert_int_equal(n, 6);
}

/* It is shortened now and then, by the rows that are too many. */
static void long_history_is_bounded_by_count_too(void **state) {
  trouble *t = *state;
  int n = 0;
  eg_close(t->guard);
  t->guard = trouble_open(t, "?history=1000");
  t->policy.allow_rerun = true;
  assert_int_equal(run_it(t, "k"), EG_OK);
  assert_int_equal(
      eg_history(t->guard, eg_str("k"), 1, count_past, &n, &t->error), EG_OK);
  assert_int_equal(
      trouble_shell(t, "sqlite3 -cmd '.timeout 5000' guard.db 'with recursive "
                       "c(i) as (values(2) union all select i+1 from c where "
                       "i < 1500) insert into history(id,name,key,start) "
                       "select i,name,key,start from c,(select * from history "
                       "limit 1)'"),
      0);
  for (int i = 0; i < 70; i++) {
    n = 0;
    assert_int_equal(run_it(t, "k"), EG_OK);
    assert_int_equal(
        eg_history(t->guard, eg_str("k"), 5000, count_past, &n, &t->error),
        EG_OK);
    assert_true(i < 32 ? n <= 1501 + i : n < 1000 + 32);
    assert_true(n >= 1000);
  }
}

static void other_program_that_writes_is_waited_for(void **state) {
  trouble *t = *state;
  assert_int_equal(run_it(t, "a"), EG_OK);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
  char command[200];
  snprintf(command, sizeof command, "sqlite3 %s/guard.db", t->folder);
  FILE *writer = popen(command, "w");
  assert_non_null(writer);
  fprintf(writer, ".timeout 5000\nbegin immediate;\n.system : > %s/begun\n",
          t->folder);
  fputs(".system sleep 0.2\ncommit;\n", writer);
  fflush(writer);
  int64_t until = trouble_now_us() + 60000000;
  while (trouble_shell(t, "test -e begun") != 0)
    assert_true(trouble_now_us() < until);
  assert_int_equal(trouble_finish(t, t->guard, "k"), EG_OK);
  assert_int_equal(pclose(writer), 0);
}

/* SQLite does not wait by itself where a database is turned into one with a
** log while another process writes, as the others of several first ones do. */
static void new_database_that_is_written_is_waited_for(void **state) {
  trouble *t = *state;
  char command[200];
  snprintf(command, sizeof command, "sqlite3 %s/guard.db", t->folder);
  FILE *writer = popen(command, "w");
  assert_non_null(writer);
  fprintf(writer,
          ".timeout 5000\ncreate table mine(a);\nbegin immediate;\n"
          ".system chmod 600 %s/guard.db; : > %s/begun\n",
          t->folder, t->folder);
  fputs(".system sleep 0.2\ncommit;\n", writer);
  fflush(writer);
  int64_t until = trouble_now_us() + 60000000;
  while (trouble_shell(t, "test -e begun") != 0)
    assert_true(trouble_now_us() < until);
  assert_int_equal(run_it(t, "a"), EG_OK);
  assert_int_equal(pclose(writer), 0);
}

/* ---------------------------------------------------------- file systems -- */

/* ptrace by itself: its header and the kernel's do not go together. */
static long trace(long what, pid_t pid, unsigned long at, const void *data) {
  return syscall(SYS_ptrace, what, (long)pid, at, data);
}

/* Opens a folder, traced by its parent.  As it ends: the status of that, or 0
** where the message does not name the file system. */
static void open_traced(const trouble *t, const char *name) {
  char url[128];
  eg_guard *guard;
  eg_error error = {0};
  snprintf(url, sizeof url, "file:%s/there", t->folder);
  eg_options options = {.store = url};
  if (trace(PTRACE_TRACEME, 0, 0, NULL) != 0)
    _exit(NOT_ALLOWED);
  raise(SIGSTOP);
  eg_status status = eg_open(&options, &guard, &error);
  _exit(strstr(error.message, name) != NULL ? (int)status : 0);
}

/* The kernel's answer to "what file system?" is changed on its way. */
static int say_it_is(pid_t child, unsigned long type) {
  struct ptrace_syscall_info info;
  unsigned long buffer = 0;
  int status, signal = 0;
  trace(PTRACE_SETOPTIONS, child, 0, (const void *)PTRACE_O_TRACESYSGOOD);
  for (;;) {
    trace(PTRACE_SYSCALL, child, 0, (const void *)(long)signal);
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
      return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    signal = WSTOPSIG(status) & 0x7f;
    if (WSTOPSIG(status) != (SIGTRAP | 0x80))
      continue;
    signal = 0;
    trace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info);
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
      buffer = info.entry.nr == SYS_fstatfs ? info.entry.args[1] : 0;
    else if (info.op == PTRACE_SYSCALL_INFO_EXIT && buffer != 0)
      trace(PTRACE_POKEDATA, child, buffer, (const void *)type);
  }
}

static void file_system_of_other_machines_is_refused_by_name(void **state) {
  trouble *t = *state;
  static const struct {
    unsigned long type;
    const char *name;
    eg_status status;
  } rows[] = {{0x6969, "NFS", EG_UNSUPPORTED},
              {0xff534d42, "CIFS", EG_UNSUPPORTED},
              {0x01021997, "9p", EG_UNSUPPORTED},
              {0xef53, "", EG_OK}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    int status;
    pid_t child = fork();
    if (child == 0)
      open_traced(t, rows[i].name);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_ALLOWED)
      skip(); /* in a container */
    assert_true(WIFSTOPPED(status));
    assert_int_equal(say_it_is(child, rows[i].type), rows[i].status);
  }
}

/* --------------------------------------------------------------- descent -- */

static int leave_a_daemon(trouble *t) {
  if (trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0) != EG_OK)
    return 1;
  if (fork() == 0) {
    setsid();
    if (fork() != 0)
      _exit(0);
    trouble_raise(t, ALIVE);
    if (trouble_await(t, GO_ON) &&
        trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0) == EG_RUNNING)
      trouble_raise(t, DONE); /* by the guard that it inherited */
    _exit(0);
  }
  trouble_await(t, ALIVE);
  _exit(0); /* without a word to the store */
}

static void child_that_forks_twice_holds_nothing(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_wait(trouble_child(t, leave_a_daemon)), 0);
  assert_int_equal(trouble_fetch(t, "k"), EG_OK);
  assert_true(t->record.crashed && !t->record.locked);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_OK);
  trouble_raise(t, GO_ON);
  assert_true(trouble_await(t, DONE));
  assert_int_equal(trouble_finish(t, t->guard, "k"), EG_OK);
}

static int hold_until_killed(trouble *t) {
  if (trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0) != EG_OK)
    return 1;
  trouble_raise(t, HELD);
  pause();
  return 2;
}

/* A process with that number; -1: this may not choose. */
static pid_t process_numbered(pid_t pid) {
  struct clone_args args = {.exit_signal = SIGCHLD,
                            .set_tid = (uint64_t)(uintptr_t)&pid,
                            .set_tid_size = 1};
  pid_t child = (pid_t)syscall(SYS_clone3, &args, sizeof args);
  if (child == 0)
    for (;;)
      pause();
  return child;
}

static void number_that_another_process_has_holds_nothing(void **state) {
  trouble *t = *state;
  pid_t child = trouble_child(t, hold_until_killed);
  assert_true(trouble_await(t, HELD));
  trouble_await_row(t, "k");
  kill(child, SIGKILL);
  trouble_wait(child);
  pid_t stranger = process_numbered(child);
  if (stranger < 0)
    skip(); /* numbers are chosen by root alone */
  assert_int_equal(stranger, child);
  assert_int_equal(trouble_fetch(t, "k"), EG_OK);
  assert_true(t->record.crashed && !t->record.locked);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_OK);
  kill(stranger, SIGKILL);
  trouble_wait(stranger);
}

/* In a namespace of its own, where it is process 1. */
static int live_apart(trouble *t) {
  if (unshare(CLONE_NEWPID) != 0)
    return NOT_ALLOWED;
  pid_t child = fork();
  if (child != 0)
    return trouble_wait(child);
  if (getpid() != 1 ||
      trouble_ask(t, t->guard, "theirs", EG_WANT_RUN, 0) != EG_RUNNING ||
      trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0) != EG_OK)
    _exit(1);
  trouble_raise(t, HELD);
  if (!trouble_await(t, GO_ON))
    _exit(2);
  kill(getpid(), SIGKILL); /* has no effect on process 1 */
  _exit(0);                /* but that has */
}

static void two_pid_namespaces_share_a_folder(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_ask(t, t->guard, "theirs", EG_WANT_RUN, 0), EG_OK);
  eg_grant theirs = t->grant;
  pid_t child = trouble_child(t, live_apart);
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0 &&
         *(volatile int *)((int *)t->shared + HELD) == 0)
    usleep(1000);
  if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_ALLOWED)
    skip(); /* as a user, or in a container */
  assert_true(trouble_await(t, HELD));
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_RUN, 0), EG_RUNNING);
  trouble_raise(t, GO_ON);
  assert_int_equal(trouble_wait(child), 0);
  assert_int_equal(trouble_fetch(t, "k"), EG_OK);
  assert_true(t->record.crashed && !t->record.locked);
  t->grant = theirs;
  assert_int_equal(trouble_finish(t, t->guard, "theirs"), EG_OK);
}

/* --------------------------------------------------------------- waiters -- */

static int wait_and_hold(trouble *t) {
  if (!trouble_await(t, HELD) ||
      trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 60000) != EG_OK)
    return 1;
  trouble_raise(t, ALIVE);
  return trouble_await(t, DONE) ? 0 : 2;
}

/* Stops it where it waits: in flock, which /proc tells. */
static void await_waiter(trouble *t, pid_t waiter) {
  int64_t until = trouble_now_us() + 60000000;
  while (trouble_shell(t, "grep -q -- '-> FLOCK.* %d ' /proc/locks",
                       (int)waiter) != 0)
    assert_true(trouble_now_us() < until);
}

static void lock_file_that_was_replaced_is_not_had_by_a_waiter(void **state) {
  trouble *t = *state;
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_OK);
  pid_t waiter = trouble_child(t, wait_and_hold);
  trouble_raise(t, HELD);
  await_waiter(t, waiter);
  assert_int_equal(
      trouble_shell(t, "mv locks/k.lock old && rm old && : > locks/k.lock"),
      0);
  eg_release(t->guard, eg_str("k"), 0, NULL); /* the old one's */
  assert_true(trouble_await(t, ALIVE));
  assert_int_equal(trouble_shell(t, "flock -n locks/k.lock true"), 1);
  trouble_raise(t, DONE);
  assert_int_equal(trouble_wait(waiter), 0);
}

static int hold_the_new_one(trouble *t) {
  if (!trouble_await(t, HELD) ||
      trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0) != EG_OK)
    return 1;
  trouble_raise(t, ALIVE);
  if (!trouble_await(t, DONE))
    return 2;
  return eg_holds(t->guard, eg_str("k"), t->grant.token) ? 0 : 3;
}

/* Who holds the file that was there before ends his grant, and no other's. */
static void lock_file_that_was_replaced_is_let_go_of_alone(void **state) {
  trouble *t = *state;
  pid_t next = trouble_child(t, hold_the_new_one);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_OK);
  assert_int_equal(trouble_shell(t, "rm locks/k.lock"), 0);
  trouble_raise(t, HELD);
  assert_true(trouble_await(t, ALIVE));
  assert_int_equal(eg_release(t->guard, eg_str("k"), 0, NULL), EG_LOST);
  assert_int_equal(trouble_shell(t, "flock -n locks/k.lock true"), 1);
  assert_int_equal(trouble_fetch(t, "k"), EG_NOTFOUND);
  assert_true(t->record.locked);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_LOCKED);
  assert_int_equal(trouble_shell(t, "flock -n locks/k.lock true"), 1);
  trouble_raise(t, DONE);
  assert_int_equal(trouble_wait(next), 0);
}

static int take_and_leave(trouble *t) {
  while (*(volatile int *)((int *)t->shared + DONE) == 0)
    if (trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 1000) == EG_OK) {
      trouble_raise(t, HELD);
      usleep(300);
      eg_release(t->guard, eg_str("k"), 0, NULL);
    }
  return 0;
}

/* Its helper may win at that moment. */
static void
waiter_that_is_cancelled_while_it_wins_keeps_nothing(void **state) {
  trouble *t = *state;
  eg_bell *bell;
  int over = 0;
  assert_int_equal(eg_bell_open(NULL, &bell, &t->error), EG_OK);
  pid_t child = trouble_child(t, take_and_leave);
  assert_true(trouble_await(t, HELD));
  for (int i = 0; i < trouble_scaled(300); i++) {
    eg_pending *pending = NULL;
    eg_status status = eg_acquire_begin(t->guard, eg_str("k"), EG_WANT_LOCK,
                                        NULL, 20000, bell, &pending, &t->grant,
                                        &t->reply);
    usleep((unsigned)(i * 37 % 700));
    if (pending != NULL && i % 2 == 0 &&
        eg_pending_over(pending, &status, &t->grant, &t->reply))
      pending = NULL;
    over += pending == NULL;
    eg_pending_cancel(pending);
    if (pending == NULL && status == EG_OK)
      assert_int_equal(eg_release(t->guard, eg_str("k"), 0, NULL), EG_OK);
  }
  trouble_raise(t, DONE);
  assert_int_equal(trouble_wait(child), 0);
  assert_int_equal(trouble_shell(t, "flock -w 60 locks/k.lock true"), 0);
  assert_int_equal(trouble_ask(t, t->guard, "k", EG_WANT_LOCK, 0), EG_OK);
  eg_bell_close(bell);
  assert_in_range(over, 0, trouble_scaled(300));
}

/* --------------------------------------------------------------- signals -- */

static void nothing(int signo) { (void)signo; }

static bool see(void *ctx, const eg_record *record) {
  (void)record;
  ++*(int *)ctx;
  return true;
}

/* All of it, while a signal comes every tenth of a millisecond. */
static void play_all(trouble *t, int i) {
  char key[16];
  int n = 0;
  snprintf(key, sizeof key, "key %d", i);
  eg_guard *other = trouble_open(t, NULL);
  assert_non_null(other);
  assert_int_equal(trouble_ask(t, other, key, EG_WANT_RUN, 0), EG_OK);
  assert_int_equal(trouble_finish(t, other, key), EG_OK);
  assert_int_equal(trouble_ask(t, t->guard, key, EG_WANT_RUN, 0), EG_CACHED);
  assert_int_equal(trouble_ask(t, t->guard, key, EG_WANT_LOCK, 0), EG_OK);
  assert_int_equal(trouble_ask(t, other, key, EG_WANT_LOCK, 2), EG_LOCKED);
  assert_int_equal(eg_release(t->guard, eg_str(key), 0, NULL), EG_OK);
  assert_int_equal(eg_scan(t->guard, eg_str("key"), see, &n, &t->error),
                   EG_OK);
  assert_int_equal(n, i + 1);
  n = 0;
  assert_int_equal(
      eg_history(other, eg_str(key), 9, count_past, &n, &t->error), EG_OK);
  assert_int_equal(n, 1);
  eg_close(other);
}

static void signals_interrupt_nothing(void **state) {
  trouble *t = *state;
  struct sigaction action = {.sa_handler = nothing}, before;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL,
                           .sigev_signo = SIGUSR1};
  struct itimerspec often = {{0, 100000}, {0, 100000}};
  timer_t timer;
  sigaction(SIGUSR1, &action, &before); /* without SA_RESTART */
  assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
  timer_settime(timer, 0, &often, NULL);
  for (int i = 0; i < trouble_scaled(60); i++)
    play_all(t, i);
  timer_delete(timer);
  sigaction(SIGUSR1, &before, NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TROUBLE(group_shares_a_folder),
      TROUBLE(group_that_is_not_the_first_shares_a_folder),
      TROUBLE(folder_that_gives_files_another_group_is_refused),
      TROUBLE(newer_schema_is_refused),
      TROUBLE(history_is_bounded_by_count_and_age),
      TROUBLE(long_history_is_bounded_by_count_too),
      TROUBLE(other_program_that_writes_is_waited_for),
      TROUBLE(new_database_that_is_written_is_waited_for),
      TROUBLE(file_system_of_other_machines_is_refused_by_name),
      TROUBLE(child_that_forks_twice_holds_nothing),
      TROUBLE(number_that_another_process_has_holds_nothing),
      TROUBLE(two_pid_namespaces_share_a_folder),
      TROUBLE(lock_file_that_was_replaced_is_not_had_by_a_waiter),
      TROUBLE(lock_file_that_was_replaced_is_let_go_of_alone),
      TROUBLE(waiter_that_is_cancelled_while_it_wins_keeps_nothing),
      TROUBLE(signals_interrupt_nothing),
  };
  alarm(300);
  return cmocka_run_group_tests_name("company", tests, NULL, NULL);
}
