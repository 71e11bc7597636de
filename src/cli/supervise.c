/* SPDX-License-Identifier: MIT
** eguard's side of a running command: signals are passed on, stopping and
** going on are followed, output is kept where it is wanted.
*/
#include "cli/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* How often it is asked whether the grant is lost. */
#define LOOK_MS 250

static const int passed_on[] = {SIGHUP,  SIGINT,  SIGQUIT,  SIGTERM, SIGUSR1,
                                SIGUSR2, SIGCONT, SIGWINCH, SIGTSTP};
static const int kept_off[] = {SIGCHLD, SIGPIPE, SIGTTIN, SIGTTOU, SIGIO};

enum { PIPES = 2 };

typedef struct supervisor {
  ec_job *job;
  ec_channel channel;
  int pipes[PIPES]; /* reading ends; -1: closed, or nothing is kept */
  pid_t watcher;
  bool told; /* the watcher has said how it ended */
  bool lost;
  int64_t look_us; /* when to ask next whether it is */
} supervisor;

/* ------------------------------------------------------------ signals -- */

static void handled(sigset_t *set) {
  sigemptyset(set);
  for (size_t i = 0; i < sizeof passed_on / sizeof *passed_on; i++)
    sigaddset(set, passed_on[i]);
  for (size_t i = 0; i < sizeof kept_off / sizeof *kept_off; i++)
    sigaddset(set, kept_off[i]);
  sigaddset(set, EC_PIPE_SIGNAL);
}

static sigset_t original_mask;
static int signal_fd = -1;

int ec_block_signals(sigset_t *original) {
  if (signal_fd < 0) {
    sigset_t set;
    struct sigaction child;
    handled(&set);
    /* Who was started with SIGCHLD ignored could not wait. */
    if (sigaction(SIGCHLD, NULL, &child) == 0 && child.sa_handler == SIG_IGN)
      signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_BLOCK, &set, &original_mask);
    signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  }
  *original = original_mask;
  return signal_fd;
}

static bool ignored_limit;

void ec_ignore_file_limit(void) {
  struct sigaction action;
  ignored_limit = sigaction(SIGXFSZ, NULL, &action) == 0 &&
                  action.sa_handler == SIG_DFL &&
                  signal(SIGXFSZ, SIG_IGN) != SIG_ERR;
}

void ec_die_of(int signal_number) {
  const struct rlimit none = {0, 0};
  sigset_t one;
  setrlimit(RLIMIT_CORE,
            &none); /* the command's core is the one that counts */
  signal(signal_number, SIG_DFL);
  sigemptyset(&one);
  sigaddset(&one, signal_number);
  raise(signal_number);
  sigprocmask(SIG_UNBLOCK, &one, NULL);
}

static bool is_passed_on(int signal_number) {
  for (size_t i = 0; i < sizeof passed_on / sizeof *passed_on; i++)
    if (passed_on[i] == signal_number)
      return true;
  return false;
}

/* Not one that eguard was started to ignore, as nohup(1) does: it is read all
** the same, since it is blocked. */
static bool ends_us(int n) {
  struct sigaction action;
  return (n == SIGHUP || n == SIGINT || n == SIGQUIT || n == SIGTERM) &&
         sigaction(n, NULL, &action) == 0 && action.sa_handler != SIG_IGN;
}

bool ec_sleep(int64_t us, int *signal_number) {
  struct signalfd_siginfo info;
  sigset_t original;
  int fd = ec_block_signals(&original);
  int64_t until = eg_now_us() + us;
  for (int64_t left; (left = until - eg_now_us()) > 0;) {
    struct pollfd poll_fd = {fd, POLLIN, 0};
    poll(&poll_fd, 1,
         left > 3600000000 ? 3600000 : (int)((left + 999) / 1000));
    while (read(fd, &info, sizeof info) == (ssize_t)sizeof info) {
      int n = (int)info.ssi_signo;
      if (n == SIGTSTP)
        ec_stop_as(n);
      if (ends_us(n)) {
        *signal_number = n;
        return false;
      }
    }
  }
  return true;
}

/* ------------------------------------------------------------- output -- */

/* Reads what is there of one pipe and passes it on.  once: one write of the
** command, if it was not larger than a page. */
static void read_pipe(supervisor *s, int i, bool once) {
  unsigned char data[4096];
  ssize_t n;
  do {
    if (s->pipes[i] < 0)
      return;
    n = read(s->pipes[i], data, sizeof data);
    if (n > 0) {
      ec_output_add(s->job->output, i + 1, data, (size_t)n);
      if (!ec_write_all(i + 1, data, (size_t)n)) {
        /* Nobody reads us: nobody reads the command either. */
        close(s->pipes[i]);
        s->pipes[i] = -1;
        s->job->output->over = s->job->output->unwritten = true;
      }
    }
  } while (n == (ssize_t)sizeof data || (n > 0 && !once) ||
           (n < 0 && errno == EINTR));
}

static void read_pipes(supervisor *s) {
  for (int i = 0; i < PIPES; i++)
    read_pipe(s, i, false);
}

/* Each write of the command becomes a packet of its pipe and a queued signal
** that names the pipe, so that the order of both streams is known. */
static bool open_pipe(int *reading, int *writing) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_DIRECT) != 0)
    return false;
  *reading = ends[0];
  *writing = ends[1];
  fcntl(ends[0], F_SETPIPE_SZ, 1 << 20); /* 256 packets */
  return fcntl(ends[0], F_SETSIG, EC_PIPE_SIGNAL) == 0 &&
         fcntl(ends[0], F_SETOWN, getpid()) == 0 &&
         fcntl(ends[0], F_SETFL, O_ASYNC | O_NONBLOCK) == 0;
}

/* ------------------------------------------------------------- events -- */

static void take_signal(supervisor *s, const struct signalfd_siginfo *info) {
  int n = (int)info->ssi_signo;
  /* What a key of the terminal sent went to the whole group; the watcher only
  ** wakes us. */
  bool not_for_it = info->ssi_code > 0 || (pid_t)info->ssi_pid == s->watcher;
  if (ends_us(n) && (pid_t)info->ssi_pid != s->watcher)
    s->job->stopped_by = n;
  if (n == EC_PIPE_SIGNAL) {
    for (int i = 0; i < PIPES; i++)
      if (s->pipes[i] == info->ssi_fd)
        read_pipe(s, i, true);
  } else if (n == SIGIO) {
    read_pipes(s); /* the queue of signals was full */
  } else if (is_passed_on(n) && !not_for_it) {
    ec_tell(s->channel.socket, EC_SAY_SIGNAL, (int)info->ssi_pid, n);
  } else if (n == SIGINT || n == SIGQUIT) {
    s->job->keyboard = n;
  }
}

static void take_signals(supervisor *s) {
  struct signalfd_siginfo info;
  while (read(s->channel.signals, &info, sizeof info) == (ssize_t)sizeof info)
    take_signal(s, &info);
}

/* The watcher was killed: the command is now ours, to end it. */
static void watcher_gone(supervisor *s) {
  s->told = true;
  s->job->ending = EC_ORPHANED;
  ec_kill_tree();
}

static void hear(supervisor *s) {
  ec_message message;
  ssize_t n = recv(s->channel.socket, &message, sizeof message, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (n != (ssize_t)sizeof message) {
    watcher_gone(s);
    return;
  }
  switch (message.word) {
  case EC_SAY_STOPPED:
    take_signals(s);
    /* told before we were stopped ourselves, it may go on by now */
    if (ec_is_stopped(message.kind))
      ec_stop_as(message.value);
    break;
  case EC_SAY_LEFT:
    ec_error("some processes of the command run as another user and could "
             "not be killed");
    break;
  case EC_SAY_ENDED:
    s->told = true;
    s->job->ending = (ec_ending)message.kind;
    s->job->code = message.value;
    break;
  default:
    break;
  }
}

static void look_for_loss(supervisor *s) {
  ec_job *job = s->job;
  s->look_us = eg_now_us() + LOOK_MS * INT64_C(1000);
  if (!job->lost(job->ctx))
    return;
  s->lost = true;
  ec_tell(s->channel.socket, EC_SAY_LET_GO, 0, 0);
}

static void turn(supervisor *s) {
  struct pollfd fds[] = {{s->channel.signals, POLLIN, 0},
                         {s->channel.socket, POLLIN, 0}};
  bool asks = s->job->lost != NULL && !s->lost;
  int n = poll(fds, 2, asks ? LOOK_MS : -1);
  if (asks && eg_now_us() >= s->look_us)
    look_for_loss(s);
  if (n > 0 && fds[0].revents != 0)
    take_signals(s);
  if (n > 0 && fds[1].revents != 0)
    hear(s);
}

/* -------------------------------------------------------------- start -- */

static void close_if(int fd) {
  if (fd >= 0)
    close(fd);
}

static bool prepare(supervisor *s, int *far_socket) {
  int sockets[2];
  ec_channel *c = &s->channel;
  s->pipes[0] = s->pipes[1] = c->out = c->err = c->socket = -1;
  *far_socket = -1;
  c->signals = ec_block_signals(&c->original);
  if (c->signals < 0 ||
      socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0)
    return false;
  c->socket = sockets[0];
  *far_socket = sockets[1];
  c->limited = ignored_limit;
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  if (s->job->output != NULL &&
      !(open_pipe(&s->pipes[0], &c->out) && open_pipe(&s->pipes[1], &c->err)))
    return false;
  return ec_prepare_start(c, s->job->argv);
}

/* In the watcher: what the store has open goes, above all its copy of the
** lock.  Whatever is ours is close-on-exec, and stands where the lowest free
** numbers were; what eguard was started with is the command's. */
static void keep_only(const supervisor *s) {
  const ec_channel *c = &s->channel;
  for (int fd = 3, gap = 0; gap < 16; fd++) {
    int flags = fcntl(fd, F_GETFD);
    gap = flags < 0 ? gap + 1 : 0;
    if (flags >= 0 && (flags & FD_CLOEXEC) != 0 && fd != c->socket &&
        fd != c->signals && fd != c->out && fd != c->err &&
        fd != s->job->lock_fd)
      close(fd);
  }
}

/* _Fork: the child does nothing with the store, whose handlers would close the
** database here too. */
static bool launch(supervisor *s, int far_socket) {
  s->watcher = _Fork();
  if (s->watcher != 0)
    return s->watcher > 0;
  s->channel.socket = far_socket;
  keep_only(s);
  ec_watch_over(s->job, &s->channel);
}

void ec_supervise(ec_job *job) {
  supervisor s = {.job = job};
  int far_socket;
  job->keyboard = job->stopped_by = 0;
  job->ending = EC_BROKEN;
  bool started = prepare(&s, &far_socket) && launch(&s, far_socket);
  job->code = errno;
  close_if(far_socket);
  close_if(s.channel.out);
  close_if(s.channel.err);
  s.look_us = eg_now_us() + LOOK_MS * INT64_C(1000);
  while (started && !s.told)
    turn(&s);
  take_signals(&s);
  read_pipes(&s);
  close_if(s.pipes[0]);
  close_if(s.pipes[1]);
  close_if(s.channel.socket);
  free(s.channel.by_sh);
  posix_spawnattr_destroy(&s.channel.attr);
  posix_spawn_file_actions_destroy(&s.channel.actions);
  if (started) /* it let go of the lock before it spoke: no need to wait */
    waitpid(s.watcher, NULL, WNOHANG);
}
