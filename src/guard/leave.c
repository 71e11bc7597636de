/* SPDX-License-Identifier: MIT
** A process that ends gives back what it holds elsewhere, and sends what it
** has counted: at exit(), and at a signal that would end it.
**
** Grants in files end with their process, by the kernel; those on servers
** would last as long as their leases.  At a signal the work is not to go on
** while its grants are given back: the thread that was hit waits in its
** handler, a little while at most, for a thread of ours that does it; then the
** signal is sent again and does what it always did.  A thread that was hit in
** the middle of our own locks makes that one hang, and the leases run out; one
** that was at it already, in exit(), goes on with it and is ended after that.
**
** WHO ELSE MINDS THE SIGNAL.  A handler that was there, or that it is ignored,
** stays.  Who puts his own over ours later is in charge from then on: should
** he call ours, as the one that was there before, it does nothing.
**
** No descriptors are used: a program that makes a daemon of itself closes all
** it finds, and has others under their numbers then.
**
** LOCKS.  `leaving` is held by the one thread that gives back; `attending` is
** taken under it, and given up while a server is asked.  `lock` guards what
** is set up; it is taken under `attending`, and nothing under it.
*/
#include "guard/guard.h"

#include "executionguard_host.h"

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* What it takes in all; of that what a guard has at the least, however long
** those before it took; how long a thread that was hit waits, and how often
** it looks. */
enum {
  LEAVE_US = 1000000,
  SHARE_US = 100000,
  WAIT_US = 1500000,
  LOOK_MS = 2,
  BATCH = 32
};

static pthread_mutex_t leaving = PTHREAD_MUTEX_INITIALIZER;

static int64_t machine_now(void) {
  const eg_clock *clock = eg_system_clock();
  return clock->now_us(clock->ctx);
}

static bool elsewhere(const eg_guard *guard) {
  return guard->ops->blocks && guard->store->lease_ms > 0;
}

/* --------------------------------------------------------- giving back -- */

typedef struct batch {
  size_t n;
  egi_hold_ref holds[BATCH];
  unsigned char keys[BATCH][EG_KEY_MAX];
} batch;

/* Under attending: they are noted no more. */
static void take(eg_guard *guard, batch *b) {
  egi_tenure *held;
  for (b->n = 0; b->n < BATCH; b->n++) {
    if ((held = egi_holds_next(guard, NULL)) == NULL)
      return;
    memcpy(b->keys[b->n], held->key, held->key_len);
    b->holds[b->n].key = (eg_bytes){b->keys[b->n], held->key_len};
    b->holds[b->n].token = held->token;
    egi_holds_remove(guard, held);
  }
}

/* The record stays as it is: a run that was going on reads "owner died". */
static void give_back(eg_guard *guard, const egi_hold_ref *hold,
                      int64_t until_us) {
  egi_swap swap = {.token = hold->token,
                   .write = EGI_LEAVE,
                   .hold = EGI_DROP,
                   .wake = true,
                   .not_before_ms = EGI_LEAVE_TIME,
                   .fresh_ms = EGI_LEAVE_TIME,
                   .life_ms = EGI_LEAVE_TIME};
  egi_seen seen;
  egi_seen_init(&seen);
  if (guard->ops->load(guard->store, hold->key, until_us, &seen, NULL) ==
          EG_OK &&
      seen.at.held && seen.at.token == hold->token) {
    swap.expect = seen.version;
    guard->ops->swap(guard->store, hold->key, &swap, until_us, &seen, NULL);
  }
  egi_seen_free(&seen, &guard->env);
}

/* Under leaving, and under attending, which is given up meanwhile. */
static void give_back_all(eg_guard *guard, int64_t until_us) {
  static batch b;
  for (take(guard, &b); b.n > 0; take(guard, &b)) {
    egi_attending_unlock();
    for (size_t i = 0; i < b.n && egi_now(&guard->env) < until_us; i++)
      give_back(guard, &b.holds[i], until_us);
    egi_attending_lock();
  }
}

static void leave_all(void) {
  int64_t over = machine_now() + LEAVE_US;
  eg_guard *guard = NULL;
  pthread_mutex_lock(&leaving);
  egi_attending_lock();
  while ((guard = egi_attend_each(guard)) != NULL) {
    if (!guard->ops->blocks)
      continue;
    int64_t left = over - machine_now();
    int64_t until = egi_now(&guard->env) + (left > SHARE_US ? left : SHARE_US);
    guard->attendant.leaving = true; /* it is not closed under us */
    if (elsewhere(guard))
      give_back_all(guard, until);
    egi_attending_unlock();
    egi_counting_send(guard, until);
    egi_attending_lock();
    guard->attendant.leaving = false;
    pthread_cond_broadcast(&guard->attendant.done);
  }
  egi_attending_unlock();
  pthread_mutex_unlock(&leaving);
}

/* ------------------------------------------------------------- signals -- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool minded;   /* is there a signal that on_end is set for? */
static _Atomic pid_t minder; /* the process whose thread waits to be asked */
static sem_t asked;          /* that thread waits for it */
static atomic_bool given;    /* all is given back */
static _Atomic uintptr_t leaver; /* the thread that gives back in exit() */
static atomic_int came;          /* the signal that hit it */

static void *mind(void *arg) {
  (void)arg;
  while (sem_wait(&asked) != 0 && errno == EINTR)
    continue;
  leave_all();
  atomic_store(&given, true);
  return NULL;
}

/* From here to on_end: only what is safe in a handler. */

static uintptr_t this_thread(void) { return (uintptr_t)pthread_self(); }

static int64_t handler_now(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static void have_given(void) {
  int64_t until = handler_now() + WAIT_US;
  if (atomic_load(&minder) != getpid() || sem_post(&asked) != 0)
    return;
  while (!atomic_load(&given) && handler_now() < until)
    poll(NULL, 0, LOOK_MS);
}

/* Does what the signal always did; from its handler, when that returns. */
static void end_by(int number) {
  struct sigaction plain;
  memset(&plain, 0, sizeof plain);
  plain.sa_handler = SIG_DFL;
  sigaction(number, &plain, NULL);
  kill(getpid(), number);
}

static void on_end(int number);

/* Does nobody else mind it?  In the handler of another thread, which ends the
** process, it may be the default again. */
static bool is_free(int number) {
  struct sigaction now;
  return sigaction(number, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) &&
         (now.sa_handler == SIG_DFL || now.sa_handler == on_end);
}

static void on_end(int number) {
  int before = errno;
  bool free = is_free(number);
  if (free && atomic_load(&leaver) == this_thread()) {
    atomic_store(&came, number);
  } else if (free) {
    have_given();
    end_by(number);
  }
  errno = before;
}

/* With lock held. */
static bool start_minder(void) {
  pid_t me = getpid();
  if (atomic_load(&minder) == me)
    return true;
  atomic_store(&given, false); /* it is our parent that has, maybe */
  if (sem_init(&asked, 0, 0) != 0 || !egi_thread_start(NULL, mind, NULL))
    return false;
  atomic_store(&minder, me);
  return true;
}

/* Does this process end by that signal's default action?  The first one of a
** container does not: for it what is not handled is ignored. */
static bool ends_by(int number) {
  switch (number) {
  case SIGCHLD:
  case SIGCONT:
  case SIGURG:
  case SIGWINCH:
  case SIGSTOP:
  case SIGTSTP:
  case SIGTTIN:
  case SIGTTOU:
    return false;
  default:
    return getpid() != 1;
  }
}

static bool set_handler(int number) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_end;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  sigfillset(&action.sa_mask);
  return sigaction(number, &action, NULL) == 0;
}

bool eg_leave_at(const eg_guard *guard, int number) {
  if (!elsewhere(guard) || !ends_by(number))
    return false;
  pthread_mutex_lock(&lock);
  bool good = is_free(number) && start_minder() && set_handler(number);
  if (good)
    atomic_store(&minded, true);
  pthread_mutex_unlock(&lock);
  return good;
}

/* Something is held that would be to be given back.  In a child of a fork the
** signal is handled as in its parent, and nobody is there to do it. */
void egi_leave_mind(void) {
  if (!atomic_load(&minded) || atomic_load(&minder) != 0)
    return;
  pthread_mutex_lock(&lock);
  start_minder();
  pthread_mutex_unlock(&lock);
}

void egi_leave_fork(egi_fork phase) {
  egi_mutex_fork(&lock, phase);
  if (phase != EGI_FORKED_CHILD)
    return;
  pthread_mutex_init(&leaving, NULL); /* may be held, for long */
  atomic_store(&minder, 0);
  atomic_store(&leaver, 0);
  atomic_store(&came, 0);
}

/* ---------------------------------------------------------------- exit -- */

static void leave_at_exit(void) {
  atomic_store(&leaver, this_thread());
  leave_all();
  atomic_store(&leaver, 0);
  int number = atomic_exchange(&came, 0);
  if (number != 0)
    end_by(number);
}

static void mind_exit(void) { atexit(leave_at_exit); }

/* Called when a connection was made: what that has to do at exit comes after
** us. */
void egi_leave_init(const eg_guard *guard) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  if (guard->ops->blocks)
    pthread_once(&once, mind_exit);
}
