/* SPDX-License-Identifier: MIT
** What the tests of trouble share; faults.h says what.
*/
#include "faults.h"

#include <ftw.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <signal.h>
#include <unistd.h>

enum { SHARED_SIZE = 65536, MINUTE_US = 60000000 };

int64_t trouble_now_us(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int trouble_scaled(int count) {
  const char *text = getenv("EXECUTIONGUARD_SPEC_SCALE");
  int scale = text != NULL ? atoi(text) : 1;
  count /= scale > 0 ? scale : 1;
  return count > 0 ? count : 1;
}

eg_guard *trouble_open(trouble *t, const char *query) {
  char url[128];
  eg_guard *guard = NULL;
  snprintf(url, sizeof url, "%s%s", t->url, query != NULL ? query : "");
  eg_options options = {.store = url};
  return eg_open(&options, &guard, &t->error) == EG_OK ? guard : NULL;
}

int trouble_begin(void **state) {
  trouble *t = calloc(1, sizeof *t);
  if (t == NULL)
    return -1;
  strcpy(t->folder, "/tmp/eg-faults-XXXXXX");
  if (mkdtemp(t->folder) == NULL)
    return -1;
  snprintf(t->url, sizeof t->url, "file:%s", t->folder);
  t->shared = mmap(NULL, SHARED_SIZE, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  t->policy = (eg_policy)EG_POLICY_DEFAULT;
  eg_reply_init(&t->reply);
  t->guard = trouble_open(t, NULL);
  *state = t;
  return t->guard != NULL && t->shared != MAP_FAILED ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw) {
  (void)st;
  (void)type;
  (void)ftw;
  return remove(path);
}

int trouble_end(void **state) {
  trouble *t = *state;
  eg_record_free(&t->record);
  eg_reply_free(&t->reply);
  eg_close(t->guard);
  munmap(t->shared, SHARED_SIZE);
  nftw(t->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
  free(t);
  return 0;
}

eg_status trouble_ask(trouble *t, eg_guard *guard, const char *key,
                      eg_want want, int64_t wait_ms) {
  return eg_acquire(guard, eg_str(key), want, &t->policy, wait_ms, &t->grant,
                    &t->reply);
}

eg_status trouble_finish(trouble *t, eg_guard *guard, const char *key) {
  eg_outcome outcome = {
      .status = EG_OK, .kind = EG_KIND_VALUE, .value = eg_str("*")};
  return eg_commit(guard, eg_str(key), &t->grant, &outcome, &t->policy,
                   &t->error);
}

eg_status trouble_fetch(trouble *t, const char *key) {
  eg_record_free(&t->record);
  return eg_fetch(t->guard, eg_str(key), &t->record, &t->error);
}

pid_t trouble_child(trouble *t, int (*body)(trouble *t)) {
  pid_t parent = getpid();
  pid_t child = fork();
  if (child != 0)
    return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody */
  if (getppid() != parent)
    _exit(99);
  trouble mine = *t;
  eg_reply_init(&mine.reply);
  memset(&mine.record, 0, sizeof mine.record);
  mine.guard = trouble_open(&mine, NULL);
  if (mine.guard == NULL)
    _exit(98);
  int status = body(&mine);
  eg_close(mine.guard);
  _exit(status);
}

void trouble_answer(long call, int err) {
  struct sock_filter lines[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)err),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  struct sock_fprog program = {sizeof lines / sizeof *lines, lines};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    _exit(TROUBLE_NO_FILTER);
}

int trouble_wait(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void trouble_raise(trouble *t, int flag) {
  atomic_store(&((_Atomic int *)t->shared)[flag], 1);
}

int trouble_await(trouble *t, int flag) {
  int64_t until = trouble_now_us() + MINUTE_US;
  while (atomic_load(&((_Atomic int *)t->shared)[flag]) == 0) {
    if (trouble_now_us() > until)
      return 0;
    usleep(200);
  }
  return 1;
}

int trouble_shell(trouble *t, const char *format, ...) {
  char command[1024];
  int n = snprintf(command, sizeof command, "cd %s && ", t->folder);
  va_list args;
  va_start(args, format);
  vsnprintf(command + n, sizeof command - (size_t)n, format, args);
  va_end(args);
  int status = system(command);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

void trouble_await_row(trouble *t, const char *key) {
  int64_t until = trouble_now_us() + MINUTE_US;
  while (trouble_shell(t,
                       "test -s guard.db && test -n \"$(sqlite3 -cmd "
                       "'.timeout 5000' guard.db "
                       "\"select 1 from runs where key=cast('%s' as blob) "
                       "and status='Running'\" 2>/dev/null)\"",
                       key) != 0)
    assert_true(trouble_now_us() < until);
}
