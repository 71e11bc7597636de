/* SPDX-License-Identifier: MIT
** All descendants of this process: found, signalled, killed.
**
** This process is a child subreaper (prctl): whoever of its descendants loses
** a parent, by a double fork or otherwise, becomes its child.  So the tree is
** what hangs below it in /proc, and it is empty exactly when wait says that
** there is no child.
**
** A pid that is found may be somebody else's a moment later.  So it is opened
** (pidfd) and only then looked at again: what was opened is what is signalled.
*/
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct process {
  pid_t pid, parent;
  bool ours;
} process;

/* Nothing here allocates: the watcher is a forked child.  Where there are more
** processes, the next pass finds them, when some are gone. */
enum { PROCESSES = 32768 };

typedef struct list {
  size_t n;
  process all[PROCESSES];
} list;

static list seen;

/* "S 11 ...", its state and its parent; NULL: it is gone. */
static const char *state_of(pid_t pid, char text[512]) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return NULL;
  ssize_t n = read(fd, text, 511);
  close(fd);
  if (n <= 0)
    return NULL;
  text[n] = '\0';
  /* "12 (name) S 11 ...": the name may hold anything, parentheses too */
  const char *at = strrchr(text, ')');
  return at != NULL && strlen(at) >= 5 ? at + 2 : NULL;
}

/* 0: it is gone.  The dead are waited for, not signalled. */
static pid_t parent_of(pid_t pid) {
  char text[512];
  const char *at = state_of(pid, text);
  if (at == NULL || *at == 'Z' || *at == 'X')
    return 0;
  return (pid_t)strtol(at + 2, NULL, 10);
}

bool ec_is_stopped(pid_t pid) {
  char text[512];
  const char *at = state_of(pid, text);
  return at != NULL && *at == 'T';
}

static void add(list *l, const char *name) {
  pid_t pid = (pid_t)strtol(name, NULL, 10);
  pid_t parent = pid > 0 && l->n < PROCESSES ? parent_of(pid) : 0;
  if (parent > 0)
    l->all[l->n++] = (process){pid, parent, false};
}

/* As the kernel writes it. */
typedef struct entry {
  uint64_t inode;
  int64_t offset;
  unsigned short length;
  unsigned char type;
  char name[];
} entry;

static void read_processes(list *l) {
  _Alignas(entry) char room[8192];
  long n;
  int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  l->n = 0;
  if (fd < 0)
    return;
  while ((n = syscall(SYS_getdents64, fd, room, sizeof room)) > 0)
    for (long at = 0; at < n;) {
      const entry *e = (const void *)(room + at);
      add(l, e->name);
      at += e->length;
    }
  close(fd);
}

static bool is_ours(const list *l, pid_t pid, pid_t root) {
  if (pid == root)
    return true;
  for (size_t i = 0; i < l->n; i++)
    if (l->all[i].pid == pid)
      return l->all[i].ours;
  return false;
}

/* Marks what hangs below root. */
static void mark(list *l, pid_t root) {
  for (bool more = true; more;) {
    more = false;
    for (size_t i = 0; i < l->n; i++) {
      process *p = &l->all[i];
      if (!p->ours && is_ours(l, p->parent, root))
        p->ours = more = true;
    }
  }
}

/* Signals one process if it still hangs in the tree.  1: done; 0: it is gone;
** -1: that is not allowed. */
static int signal_one(const list *l, const process *p, pid_t root, int sig) {
  int fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
  if (fd < 0 && errno != ENOSYS)
    return 0;
  int done = 0;
  if (is_ours(l, parent_of(p->pid), root)) {
    long sent = fd >= 0 ? syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0)
                        : kill(p->pid, sig);
    done = sent == 0 ? 1 : errno == EPERM ? -1 : 0;
  }
  if (fd >= 0)
    close(fd);
  return done;
}

int ec_signal_tree(int signal, int *refused) {
  pid_t root = getpid();
  int done = 0;
  *refused = 0;
  read_processes(&seen);
  mark(&seen, root);
  for (size_t i = 0; i < seen.n; i++) {
    const process *p = &seen.all[i];
    int one = p->ours ? signal_one(&seen, p, root, signal) : 0;
    done += one > 0;
    *refused += one < 0;
  }
  return done;
}

bool ec_kill_tree(void) {
  const struct timespec pause = {0, 2000000};
  for (int idle = 0;;) {
    int refused, killed = ec_signal_tree(SIGKILL, &refused);
    pid_t reaped;
    do
      reaped = waitpid(-1, NULL, WNOHANG);
    while (reaped > 0);
    if (reaped < 0 && errno == ECHILD)
      return true;
    /* Whom we may not signal ends when it wants to. */
    idle = killed == 0 && refused > 0 ? idle + 1 : 0;
    if (idle > 100)
      return false;
    if (killed == 0)
      nanosleep(&pause, NULL);
  }
}
