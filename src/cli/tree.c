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

#include <dirent.h>
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

typedef struct list {
  process *all;
  size_t n, cap;
} list;

/* The parent of a process; 0: it is gone. */
static pid_t parent_of(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return 0;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0)
    return 0;
  text[n] = '\0';
  /* "12 (name) S 11 ...": the name may hold anything, parentheses too */
  const char *at = strrchr(text, ')');
  if (at == NULL || strlen(at) < 5 || at[2] == 'Z' || at[2] == 'X')
    return 0; /* the dead are waited for, not signalled */
  return (pid_t)strtol(at + 4, NULL, 10);
}

static void add(list *l, pid_t pid, pid_t parent) {
  if (l->n == l->cap) {
    size_t cap = l->cap > 0 ? 2 * l->cap : 256;
    process *all = realloc(l->all, cap * sizeof *all);
    if (all == NULL)
      return; /* the next pass finds it, when some are gone */
    l->all = all;
    l->cap = cap;
  }
  l->all[l->n++] = (process){pid, parent, false};
}

static void read_processes(list *l) {
  DIR *dir = opendir("/proc");
  if (dir == NULL)
    return;
  for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
    pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
    pid_t parent = pid > 0 ? parent_of(pid) : 0;
    if (parent > 0)
      add(l, pid, parent);
  }
  closedir(dir);
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
  list l = {0};
  pid_t root = getpid();
  int done = 0;
  *refused = 0;
  read_processes(&l);
  mark(&l, root);
  for (size_t i = 0; i < l.n; i++) {
    int one = l.all[i].ours ? signal_one(&l, &l.all[i], root, signal) : 0;
    done += one > 0;
    *refused += one < 0;
  }
  free(l.all);
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
