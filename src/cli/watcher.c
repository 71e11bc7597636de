/* SPDX-License-Identifier: MIT
** The watcher: the process between eguard and the command, which keeps the
** time limit and cleans up.
**
** It takes no orders from signals: TERM, INT and the rest come to eguard, or
** from the terminal to everybody, and the command answers them.  It ends when
** the command has ended, or when eguard is gone.
**
** It is a forked child of a process that may have other threads, and that has
** the store open: it allocates nothing, and keeps no descriptor but its own.
*/
#include "cli/supervise.h"

#include <errno.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { SIGNALS = 32 }; /* the real-time ones are behind them */

typedef struct watcher {
  const ec_job *job;
  const ec_channel *channel;
  int lock_fd;
  pid_t command; /* 0: it has ended */
  int status;    /* then: as wait says it */
  bool told_stop;
  bool late;             /* the time is over; TERM was sent */
  int64_t deadline_us;   /* of the next step; EG_FOREVER: none */
  bool alone;            /* wait says that there is no child at all */
  pid_t sender[SIGNALS]; /* of the last one that came here, too */
} watcher;

bool ec_tell(int socket, ec_word word, int kind, int value) {
  ec_message message = {(int32_t)word, kind, value};
  ssize_t n;
  do
    n = send(socket, &message, sizeof message, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n == (ssize_t)sizeof message;
}

/* ------------------------------------------------------------- start -- */

/* Where the command stands in PATH. */
static bool find_in_path(const char *name, char *found, size_t size) {
  const char *at = getenv("PATH");
  for (; at != NULL && *at != '\0'; at += *at == ':') {
    size_t n = strcspn(at, ":");
    int m = snprintf(found, size, "%.*s%s%s", (int)n, at, n > 0 ? "/" : "",
                     name);
    if (m > 0 && (size_t)m < size && access(found, X_OK) == 0)
      return true;
    at += n;
  }
  return false;
}

/* A script without a first line that says by what: by sh, as execvp does. */
static int spawn_script(watcher *w, char **by_sh) {
  static char sh[] = "sh", found[4096];
  const ec_channel *c = w->channel;
  const char *name = w->job->argv[0];
  by_sh[0] = sh;
  if (strchr(name, '/') == NULL) {
    if (!find_in_path(name, found, sizeof found))
      return ENOENT;
    by_sh[1] = found;
  }
  return posix_spawn(&w->command, "/bin/sh", &c->actions, &c->attr, by_sh,
                     environ);
}

/* The command starts with the mask that eguard was started with, and with
** every signal as it was; only SIGCHLD has its default, or nobody could wait
** for anybody. */
bool ec_prepare_start(ec_channel *c, char **argv) {
  posix_spawn_file_actions_t *actions = &c->actions;
  short flags = POSIX_SPAWN_SETSIGMASK;
  sigset_t defaults;
  size_t n = 0;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGXFSZ);
  if (c->limited)
    flags |= POSIX_SPAWN_SETSIGDEF;
  while (argv[n] != NULL)
    n++;
  c->by_sh = calloc(n + 2, sizeof *c->by_sh);
  if (c->by_sh == NULL)
    return false;
  memcpy(c->by_sh + 1, argv, n * sizeof *argv);
  if (posix_spawnattr_init(&c->attr) != 0 ||
      posix_spawn_file_actions_init(actions) != 0 ||
      posix_spawnattr_setsigmask(&c->attr, &c->original) != 0 ||
      posix_spawnattr_setsigdefault(&c->attr, &defaults) != 0 ||
      posix_spawnattr_setflags(&c->attr, flags) != 0)
    return false;
  return c->out < 0 || (posix_spawn_file_actions_adddup2(actions, c->out,
                                                         STDOUT_FILENO) == 0 &&
                        posix_spawn_file_actions_adddup2(actions, c->err,
                                                         STDERR_FILENO) == 0);
}

static int start(watcher *w) {
  const ec_channel *c = w->channel;
  char **argv = w->job->argv;
  int error = posix_spawnp(&w->command, argv[0], &c->actions, &c->attr, argv,
                           environ);
  if (error == ENOEXEC)
    error = spawn_script(w, c->by_sh);
  if (error != 0)
    w->command = 0;
  if (c->out >= 0) {
    close(c->out);
    close(c->err);
  }
  return error;
}

/* ----------------------------------------------------------- children -- */

static void stopped_or_goes_on(watcher *w, int status) {
  if (WIFSTOPPED(status)) {
    w->told_stop = true;
    ec_tell(w->channel->socket, EC_SAY_STOPPED, (int)w->command,
            WSTOPSIG(status));
  } else if (WIFCONTINUED(status) && w->told_stop) {
    w->told_stop = false;
    kill(getppid(), SIGCONT);
  }
}

static void reap(watcher *w) {
  int status;
  for (;;) {
    pid_t pid = waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED);
    if (pid < 0 && errno == EINTR)
      continue;
    if (pid <= 0) {
      w->alone = pid < 0;
      return;
    }
    if (pid != w->command)
      continue;
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
      w->command = 0;
      w->status = status;
    } else {
      stopped_or_goes_on(w, status);
    }
  }
}

static void signal_all(int signal) {
  int refused;
  ec_signal_tree(signal, &refused);
}

/* The time is over: TERM to all of it, and CONT so that it can hear. */
static void end_tree(watcher *w) {
  w->late = true;
  signal_all(SIGTERM);
  signal_all(SIGCONT);
  w->deadline_us = eg_now_us() + w->job->kill_after_us;
}

/* ------------------------------------------------------------- events -- */

/* eguard is gone: so is the command, before the lock is. */
static _Noreturn void orphaned(void) {
  ec_kill_tree();
  _exit(0);
}

static void read_signals(watcher *w) {
  struct signalfd_siginfo info;
  while (read(w->channel->signals, &info, sizeof info) == (ssize_t)sizeof info)
    if (info.ssi_signo < SIGNALS)
      w->sender[info.ssi_signo] = (pid_t)info.ssi_pid;
  reap(w);
}

/* What somebody sent to the whole process group (a shell does, with bg and fg)
** came to the command by itself, as it came here.  A second one would be one
** too many: CONT undoes the stop of a command that asks for input in the
** background. */
static void pass_on(watcher *w, int signal, pid_t sender) {
  read_signals(w);
  bool to_all = sender != 0 && w->sender[signal] == sender && w->command > 0 &&
                getpgid(w->command) == getpgrp();
  w->sender[signal] = 0;
  if (w->command > 0 && !to_all)
    kill(w->command, signal);
}

static void hear(watcher *w) {
  ec_message message;
  ssize_t n = recv(w->channel->socket, &message, sizeof message, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (n != (ssize_t)sizeof message)
    orphaned();
  if (message.word == EC_SAY_SIGNAL)
    pass_on(w, message.value, message.kind);
  if (message.word == EC_SAY_LET_GO && w->lock_fd >= 0) {
    close(w->lock_fd);
    w->lock_fd = -1;
  }
}

static int wait_ms(const watcher *w) {
  if (w->deadline_us == EG_FOREVER)
    return -1;
  int64_t left_us = w->deadline_us - eg_now_us();
  if (left_us <= 0)
    return 0;
  return left_us > 3600000000 ? 3600000 : (int)((left_us + 999) / 1000);
}

static void turn(watcher *w) {
  struct pollfd fds[] = {{w->channel->signals, POLLIN, 0},
                         {w->channel->socket, POLLIN, 0}};
  int n = poll(fds, 2, wait_ms(w));
  if (n > 0 && fds[1].revents != 0)
    hear(w);
  if (n > 0 && fds[0].revents != 0)
    read_signals(w);
  if (eg_now_us() < w->deadline_us)
    return;
  if (!w->late) {
    end_tree(w);
  } else {
    w->deadline_us = EG_FOREVER;
    if (!ec_kill_tree())
      ec_tell(w->channel->socket, EC_SAY_LEFT, 0, 0);
    w->command = 0;
    w->alone = true;
  }
}

/* Until the command has ended; when its time was over, until all of it has. */
static bool goes_on(const watcher *w) {
  return w->command > 0 || (w->late && !w->alone);
}

static void tell_end(const watcher *w) {
  int socket = w->channel->socket;
  if (w->late)
    ec_tell(socket, EC_SAY_ENDED, EC_TIMED_OUT, 0);
  else if (WIFSIGNALED(w->status))
    ec_tell(socket, EC_SAY_ENDED, EC_KILLED, WTERMSIG(w->status));
  else
    ec_tell(socket, EC_SAY_ENDED, EC_ENDED, WEXITSTATUS(w->status));
}

_Noreturn void ec_watch_over(const ec_job *job, const ec_channel *channel) {
  watcher w = {.job = job,
               .channel = channel,
               .lock_fd = job->lock_fd,
               .deadline_us = EG_FOREVER};
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  prctl(PR_SET_NAME, "guard-watcher", 0, 0, 0);
  if (job->timeout_us > 0)
    w.deadline_us = eg_now_us() + job->timeout_us;
  int error = start(&w);
  if (error != 0) {
    ec_tell(channel->socket, EC_SAY_ENDED, EC_NO_START, error);
    _exit(0);
  }
  while (goes_on(&w))
    turn(&w);
  /* eguard still holds its half of the lock, and what goes on in the
  ** background by itself is not the command any more. */
  if (w.lock_fd >= 0)
    close(w.lock_fd);
  if (w.told_stop)
    kill(getppid(), SIGCONT);
  tell_end(&w);
  _exit(0);
}
