/* SPDX-License-Identifier: MIT
** Blocking in the kernel: in flock, until the lock is ours, and on a word of
** the side file, until somebody changes it.
**
** flock knows no deadline, so a timer sends the waiting thread a signal whose
** handler does nothing, again and again from the deadline on: one that comes
** just before the system call would be lost.  It is sent to no thread that is
** not in there.  A change that does not free the lock (another process's
** reset) is looked for every 100 ms; one of this process interrupts.
*/
#include "executionguard_host.h"
#include "store/file.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum { LOOK_US = 100000, REPEAT_NS = 1000000 };

static _Atomic int wait_signal; /* 0: not chosen yet */
static struct sigaction before[_NSIG];

/* What is not from here is passed on. */
static void hear(int signo, siginfo_t *info, void *context) {
  const struct sigaction *old = &before[signo];
  if (info->si_code == SI_TIMER ||
      (info->si_code == SI_TKILL && info->si_pid == getpid()))
    return;
  if (old->sa_flags & SA_SIGINFO)
    old->sa_sigaction(signo, info, context);
  else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN)
    old->sa_handler(signo);
}

/* No lock, which a fork might find held: to install it twice does no harm. */
static int install(int signo) {
  struct sigaction action, old;
  memset(&action, 0, sizeof action); /* no SA_RESTART: it is to interrupt */
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = hear;
  if (sigaction(signo, &action, &old) != 0)
    return errno;
  if (!(old.sa_flags & SA_SIGINFO) || old.sa_sigaction != hear)
    before[signo] = old;
  return 0;
}

int egi_wait_signal(void) {
  int none = 0;
  if (atomic_load(&wait_signal) != 0)
    return 0;
  int err = install(SIGRTMIN + 5);
  if (err == 0)
    atomic_compare_exchange_strong(&wait_signal, &none, SIGRTMIN + 5);
  return err;
}

/* Waits that go on have armed their timers with the one before. */
eg_status eg_wait_signal(int number) {
  if (number == 0)
    number = SIGRTMIN + 5;
  if (number < 0 || number >= _NSIG || install(number) != 0)
    return EG_INVALID;
  atomic_store(&wait_signal, number);
  return EG_OK;
}

void egi_block_interrupt(long tid) {
  int signo = atomic_load(&wait_signal);
  if (tid != 0 && signo != 0)
    syscall(SYS_tgkill, getpid(), (pid_t)tid, signo);
}

/* --------------------------------------------------------------- flock -- */

typedef struct alarm {
  timer_t timer;
  sigset_t mask;
  bool was_blocked, armed;
} alarm_clock;

/* ours_alone: the thread, a helper, and its mask may stay as it is then. */
static bool arm(alarm_clock *a, int64_t in_us, bool ours_alone) {
  struct sigevent event;
  struct itimerspec when;
  sigset_t ours;
  int signo = atomic_load(&wait_signal);
  sigemptyset(&ours);
  sigaddset(&ours, signo);
  pthread_sigmask(SIG_UNBLOCK, &ours, &a->mask);
  a->was_blocked = !ours_alone && sigismember(&a->mask, signo) == 1;
  memset(&event, 0, sizeof event);
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = signo;
  event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
  a->armed = timer_create(CLOCK_MONOTONIC, &event, &a->timer) == 0;
  if (!a->armed)
    return false;
  if (in_us < 1)
    in_us = 1;
  memset(&when, 0, sizeof when);
  when.it_value.tv_sec = in_us / 1000000;
  when.it_value.tv_nsec = in_us % 1000000 * 1000;
  when.it_interval.tv_nsec = REPEAT_NS;
  return timer_settime(a->timer, 0, &when, NULL) == 0;
}

static void disarm(alarm_clock *a) {
  if (a->armed)
    timer_delete(a->timer);
  if (a->was_blocked)
    pthread_sigmask(SIG_SETMASK, &a->mask, NULL);
}

static void say_blocked(egi_watch *watch, long tid) {
  pthread_mutex_lock(&watch->mutex);
  watch->tid = tid;
  pthread_mutex_unlock(&watch->mutex);
}

static bool open_file(egi_watch *watch, eg_error *error) {
  egi_at at;
  if (watch->fd >= 0)
    return true;
  egi_at_begin(watch->file, watch->key, &at);
  return egi_lock_open(&at, &watch->fd, error) == EG_OK;
}

/* The flock is had: it becomes the entry's, unless the watch was cancelled, or
** the file is no longer the key's. */
static egi_blocked take_over(egi_watch *watch, bool loose, eg_error *error) {
  egi_at at;
  egi_blocked result = EGI_AGAIN;
  egi_at_begin(watch->file, watch->key, &at);
  if (egi_shard_lock(watch->file, at.shard, error) != EG_OK) {
    flock(watch->fd, LOCK_UN);
    return EGI_BROKEN;
  }
  pthread_mutex_lock(&watch->mutex);
  if (egi_lock_replaced(&at, watch->fd)) {
    close(watch->fd);
    watch->fd = -1;
  } else if (watch->cancelled ||
             !egi_lock_give(&at, watch->fd, watch, loose)) {
    flock(watch->fd, LOCK_UN);
    result = watch->cancelled ? EGI_AGAIN : EGI_BROKEN;
  } else {
    watch->fd = -1;
    watch->won = true;
    result = EGI_WON;
  }
  pthread_mutex_unlock(&watch->mutex);
  egi_shard_unlock(watch->file, at.shard);
  return result;
}

egi_blocked egi_block_flock(egi_watch *watch, int64_t until_us, bool loose,
                            eg_error *error) {
  const eg_clock *clock = watch->file->env.clock;
  alarm_clock a;
  int64_t now = clock->now_us(clock->ctx);
  int64_t in = until_us == EG_FOREVER ? LOOK_US : until_us - now;
  if (egi_wait_signal() != 0 || !open_file(watch, error))
    return EGI_BROKEN;
  if (flock(watch->fd, LOCK_EX | LOCK_NB) == 0)
    return take_over(watch, loose, error);
  int rc = -1, err = EINTR;
  if (arm(&a, in < LOOK_US ? in : LOOK_US, loose)) {
    say_blocked(watch, syscall(SYS_gettid));
    rc = flock(watch->fd, LOCK_EX);
    err = errno;
    say_blocked(watch, 0);
  } else {
    err = EAGAIN;
  }
  disarm(&a);
  if (rc == 0)
    return take_over(watch, loose, error);
  if (err == EINTR)
    return EGI_AGAIN;
  egi_file_fail(error, EG_UNAVAILABLE, err, "cannot wait for a lock: %s",
                strerror(err));
  return EGI_BROKEN;
}

/* --------------------------------------------------------------- futex -- */

void egi_block_futex(egi_watch *watch, uint32_t seen, int64_t until_us) {
  egi_side_shard *shard = &watch->dir->side.head->shards[watch->shard];
  const eg_clock *clock = watch->file->env.clock;
  struct timespec ts, *timeout = NULL;
  if (until_us != EG_FOREVER) {
    int64_t in = until_us - clock->now_us(clock->ctx);
    if (in <= 0)
      return;
    ts.tv_sec = in / 1000000;
    ts.tv_nsec = in % 1000000 * 1000;
    timeout = &ts;
  }
  atomic_fetch_add(&shard->waiters, 1);
  syscall(SYS_futex, (uint32_t *)(void *)&shard->wakes, FUTEX_WAIT, seen,
          timeout, NULL, 0);
  atomic_fetch_sub(&shard->waiters, 1);
}

void egi_block_bump(egi_dir *dir, unsigned number) {
  egi_side_shard *shard = &dir->side.head->shards[number];
  atomic_fetch_add(&shard->wakes, 1);
  if (atomic_load(&shard->waiters) > 0)
    syscall(SYS_futex, (uint32_t *)(void *)&shard->wakes, FUTEX_WAKE,
            INT32_MAX, NULL, NULL, 0);
}
