/* SPDX-License-Identifier: MIT
** Bells: what one thread sleeps on until others, or descriptors, call it.
**
** MUTEX RULES.  (1) A bell's mutex guards everything in it and in the calls
** that it knows.  (2) It is a leaf: with it held nothing is called but the
** clock and the kernel.  (3) Only the owner's thread waits, takes calls, adds
** descriptors and closes; any thread rings.
**
** A bell is a condition and a list; that is all that most of them ever are.
** Where descriptors are to be watched, or a loop of others wants one to poll,
** it also has an epoll descriptor with an eventfd in it.  Both belong to the
** process that made them: a forked child makes its own when it needs them.
*/
#include "guard/bell.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* -------------------------------------------------------------- making -- */

/* Who is rung for wakes while the mutex is held for some instructions more: he
** spins, and does not sleep a second time. */
static int init_mutex(pthread_mutex_t *mutex) {
  pthread_mutexattr_t attr;
  int err = pthread_mutexattr_init(&attr);
  if (err != 0)
    return err;
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
  pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
  err = pthread_mutex_init(mutex, &attr);
  pthread_mutexattr_destroy(&attr);
  return err;
}

int egi_bell_init(eg_bell *bell, const eg_env *env) {
  memset(bell, 0, sizeof *bell);
  bell->env = *env;
  bell->stirring = 1;
  bell->last = &bell->first;
  bell->poll_fd = bell->event_fd = bell->alarm_fd = -1;
  int err = init_mutex(&bell->mutex);
  if (err != 0)
    return err;
  err = eg_cond_init(&bell->cond);
  if (err != 0)
    pthread_mutex_destroy(&bell->mutex);
  return err;
}

static void close_fds(eg_bell *bell) {
  if (bell->poll_fd >= 0)
    close(bell->poll_fd);
  if (bell->event_fd >= 0)
    close(bell->event_fd);
  if (bell->alarm_fd >= 0)
    close(bell->alarm_fd);
  bell->poll_fd = bell->event_fd = bell->alarm_fd = -1;
}

void egi_bell_destroy(eg_bell *bell) {
  close_fds(bell);
  pthread_cond_destroy(&bell->cond);
  pthread_mutex_destroy(&bell->mutex);
}

eg_status eg_bell_open(const eg_env *env, eg_bell **bell_out,
                       eg_error *error) {
  eg_env own = env != NULL ? *env : (eg_env){0};
  egi_env_complete(&own);
  *bell_out = NULL;
  eg_bell *bell = egi_alloc(&own, sizeof *bell);
  if (bell == NULL)
    return egi_fail(error, EG_NOMEM, "not enough memory for a bell");
  int err = egi_bell_init(bell, &own);
  if (err != 0) {
    egi_free(&own, bell, sizeof *bell);
    return egi_fail_errno(error, EG_NOMEM, err, "no condition for a bell");
  }
  *bell_out = bell;
  return EG_OK;
}

void eg_bell_close(eg_bell *bell) {
  if (bell == NULL)
    return;
  eg_env env = bell->env;
  egi_bell_destroy(bell);
  egi_free(&env, bell, sizeof *bell);
}

/* --------------------------------------------------------- descriptors -- */

/* With the mutex held.  False, and errno: the system has none to give. */
static bool open_fds(eg_bell *bell) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  if (bell->poll_fd >= 0 && bell->pid == getpid())
    return true;
  close_fds(bell); /* a child closes its copies; the parent's stay */
  bell->pid = getpid();
  bell->poll_fd = epoll_create1(EPOLL_CLOEXEC);
  bell->event_fd = eventfd(bell->rung, EFD_CLOEXEC | EFD_NONBLOCK);
  if (bell->poll_fd >= 0 && bell->event_fd >= 0 &&
      epoll_ctl(bell->poll_fd, EPOLL_CTL_ADD, bell->event_fd, &event) == 0)
    return true;
  int err = errno;
  close_fds(bell);
  errno = err;
  return false;
}

int eg_bell_fd(eg_bell *bell, eg_error *error) {
  pthread_mutex_lock(&bell->mutex);
  bool open = open_fds(bell);
  int err = errno, fd = bell->poll_fd;
  pthread_mutex_unlock(&bell->mutex);
  if (!open) {
    egi_fail_errno(error, EG_UNAVAILABLE, err, "no descriptor for a bell");
    return -1;
  }
  return fd;
}

/* With the mutex held. */
static bool open_alarm(eg_bell *bell) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = bell};
  if (!open_fds(bell))
    return false;
  if (bell->alarm_fd >= 0)
    return true;
  bell->alarm_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  return bell->alarm_fd >= 0 &&
         epoll_ctl(bell->poll_fd, EPOLL_CTL_ADD, bell->alarm_fd, &event) == 0;
}

eg_status eg_bell_alarm(eg_bell *bell, int64_t at_us, eg_error *error) {
  struct itimerspec at = {0};
  if (at_us != EG_FOREVER) {
    at_us = at_us > 0 ? at_us : 1;
    at.it_value = (struct timespec){at_us / 1000000, at_us % 1000000 * 1000};
  }
  pthread_mutex_lock(&bell->mutex);
  bool set = open_alarm(bell) &&
             timerfd_settime(bell->alarm_fd, TFD_TIMER_ABSTIME, &at, NULL) ==
                 0;
  int err = errno;
  pthread_mutex_unlock(&bell->mutex);
  return set ? EG_OK
             : egi_fail_errno(error, EG_UNAVAILABLE, err,
                              "no timer for a bell");
}

eg_status eg_bell_watch(eg_bell *bell, int fd, eg_call *call,
                        eg_error *error) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT,
                              .data.ptr = call};
  pthread_mutex_lock(&bell->mutex);
  bool done = open_fds(bell);
  if (done) {
    done = epoll_ctl(bell->poll_fd, EPOLL_CTL_MOD, fd, &event) == 0;
    if (!done && errno == ENOENT) {
      done = epoll_ctl(bell->poll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
      bell->watched += done;
    }
  }
  int err = errno;
  pthread_mutex_unlock(&bell->mutex);
  return done ? EG_OK
              : egi_fail_errno(error, EG_UNAVAILABLE, err,
                               "descriptor %d cannot be watched", fd);
}

void eg_bell_unwatch(eg_bell *bell, int fd) {
  pthread_mutex_lock(&bell->mutex);
  if (bell->poll_fd >= 0 && bell->pid == getpid() &&
      epoll_ctl(bell->poll_fd, EPOLL_CTL_DEL, fd, NULL) == 0)
    bell->watched--;
  pthread_mutex_unlock(&bell->mutex);
}

/* ------------------------------------------------------------- ringing -- */

static void add(eg_bell *bell, eg_call *call) {
  if (call->rung)
    return;
  call->rung = true;
  call->next = NULL;
  *bell->last = call;
  bell->last = &call->next;
}

void egi_bell_stir(eg_bell *bell, eg_call *call) {
  pthread_mutex_lock(&bell->mutex);
  if (call->stirred != bell->stirring) {
    call->stirred = bell->stirring;
    bell->stirred++;
  }
  pthread_mutex_unlock(&bell->mutex);
  egi_bell_ring(bell, call);
}

void egi_bell_ring(eg_bell *bell, eg_call *call) {
  const uint64_t one = 1;
  pthread_mutex_lock(&bell->mutex);
  if (call != NULL)
    add(bell, call);
  if (!bell->rung) {
    bell->rung = true;
    bell->env.clock->wake(bell->env.clock->ctx, &bell->cond);
    if (bell->event_fd >= 0 && bell->pid == getpid() &&
        write(bell->event_fd, &one, sizeof one) < 0) {
      /* It is full, so it is readable. */
    }
  }
  pthread_mutex_unlock(&bell->mutex);
}

void eg_bell_ring(eg_bell *bell, eg_call *call) {
  egi_gate_enter();
  egi_bell_ring(bell, call);
  egi_gate_leave();
}

void egi_bell_forked(eg_bell *bell) {
  init_mutex(&bell->mutex);
  eg_cond_init(&bell->cond);
  bell->watched = 0;
}

/* Descriptors that have something ring for their calls.  True: some had. */
static bool gather(eg_bell *bell, int timeout_ms) {
  struct epoll_event events[32];
  uint64_t count;
  int n = epoll_wait(bell->poll_fd, events, 32, timeout_ms);
  bool rung = false;
  pthread_mutex_lock(&bell->mutex);
  for (int i = 0; i < n; i++) {
    if (events[i].data.ptr == NULL)
      continue; /* the eventfd */
    if (events[i].data.ptr != bell)
      add(bell, events[i].data.ptr);
    else if (read(bell->alarm_fd, &count, sizeof count) < 0)
      continue; /* set anew meanwhile */
    bell->rung = rung = true;
  }
  rung = rung || bell->rung;
  pthread_mutex_unlock(&bell->mutex);
  return rung;
}

/* With the mutex held: silent again. */
static void hush(eg_bell *bell) {
  uint64_t count;
  bell->rung = false;
  if (bell->event_fd >= 0 && bell->pid == getpid() &&
      read(bell->event_fd, &count, sizeof count) < 0) {
    /* It was empty. */
  }
}

eg_call *eg_bell_next(eg_bell *bell) {
  if ((bell->watched > 0 || bell->alarm_fd >= 0) && bell->first == NULL)
    gather(bell, 0);
  pthread_mutex_lock(&bell->mutex);
  eg_call *call = bell->first;
  if (call != NULL) {
    bell->first = call->next;
    if (bell->first == NULL)
      bell->last = &bell->first;
    call->rung = false;
  } else if (bell->rung) {
    hush(bell);
  }
  pthread_mutex_unlock(&bell->mutex);
  return call;
}

void eg_bell_forget(eg_bell *bell, eg_call *call) {
  pthread_mutex_lock(&bell->mutex);
  if (call->stirred == bell->stirring)
    bell->stirred--;
  call->stirred = 0;
  if (call->rung) {
    eg_call **link = &bell->first;
    while (*link != call)
      link = &(*link)->next;
    *link = call->next;
    if (*link == NULL)
      bell->last = link;
    call->rung = false;
  }
  pthread_mutex_unlock(&bell->mutex);
}

/* ------------------------------------------------------------- waiting -- */

static bool wait_plainly(eg_bell *bell, int64_t deadline_us) {
  const eg_clock *clock = bell->env.clock;
  int err = 0;
  pthread_mutex_lock(&bell->mutex);
  while (!bell->rung && err == 0)
    err = clock->wait(clock->ctx, &bell->cond, &bell->mutex, deadline_us);
  bool rung = bell->rung;
  pthread_mutex_unlock(&bell->mutex);
  return rung;
}

/* A clock that is moved by hand cannot wake poll: then it is looked at every
** millisecond. */
static bool wait_polling(eg_bell *bell, int64_t deadline_us) {
  bool by_hand = egi_clock_in_force() != eg_system_clock();
  for (;;) {
    struct pollfd fd = {.fd = bell->poll_fd, .events = POLLIN};
    int64_t left = EG_FOREVER;
    if (deadline_us != EG_FOREVER)
      left = deadline_us - egi_now(&bell->env);
    int64_t us = by_hand && left > 1000 ? 1000 : left > 0 ? left : 0;
    struct timespec span = {us / 1000000, us % 1000000 * 1000};
    int n = ppoll(&fd, 1, us == EG_FOREVER ? NULL : &span, NULL);
    if (n > 0 && gather(bell, 0))
      return true;
    if (left <= 0)
      return false;
  }
}

/* By a clock that waiting moves, there is no time in which a descriptor could
** come to have something.  But where somebody here has just ended a grant, a
** thread behind the descriptor (a store's helper that is given the kernel's
** lock) may be about to say so: it gets a moment of the machine's time before
** the clock jumps, once. */
enum { MOMENT_MS = 200 };

static bool wait_by_jumping(eg_bell *bell, int64_t deadline_us) {
  pthread_mutex_lock(&bell->mutex);
  bool stirred = bell->stirred > 0;
  pthread_mutex_unlock(&bell->mutex);
  if (gather(bell, stirred ? MOMENT_MS : 0))
    return true;
  pthread_mutex_lock(&bell->mutex);
  if (stirred) {
    bell->stirred = 0;
    bell->stirring++;
  }
  pthread_mutex_unlock(&bell->mutex);
  return wait_plainly(bell, deadline_us);
}

bool eg_bell_wait(eg_bell *bell, int64_t deadline_us) {
  bool jumps = deadline_us != EG_FOREVER && egi_clock_jumps();
  bool rung = bell->watched == 0 ? wait_plainly(bell, deadline_us)
              : jumps            ? wait_by_jumping(bell, deadline_us)
                                 : wait_polling(bell, deadline_us);
  egi_keeper_settle();
  return rung;
}
