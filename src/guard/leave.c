/* SPDX-License-Identifier: MIT
** A process that ends gives back what it holds elsewhere, and sends what it
** has counted: at exit(), and at a signal that would end it.
**
** Grants in files end with their process, by the kernel; those on servers
** would last as long as their leases.  At a signal the work is not to go on
** while its grants are given back: the thread that was hit waits in its
** handler, a little while at most, for a thread of ours that does it; then the
** signal is sent again and does what it always did.  A thread that was hit in
** the middle of our own locks makes that one hang, and the leases run out.
*/
#include "guard/guard.h"

#include "executionguard_host.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LEAVE_MS = 1000, BATCH = 32 };

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

/* Under attending, which is given up meanwhile. */
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
  eg_guard *guard = NULL;
  egi_attending_lock();
  while ((guard = egi_attend_each(guard)) != NULL) {
    if (!guard->ops->blocks)
      continue;
    int64_t until = egi_now(&guard->env) + LEAVE_MS * INT64_C(1000);
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
}

/* ---------------------------------------------------------------- exit -- */

static void mind_exit(void) { atexit(leave_all); }

/* Called when a connection was made: what that has to do at exit comes after
** us. */
void egi_leave_init(const eg_guard *guard) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  if (guard->ops->blocks)
    pthread_once(&once, mind_exit);
}

/* ------------------------------------------------------------- signals -- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic pid_t minder; /* the process whose thread reads `ask` */
static int ask[2] = {-1, -1}, done[2] = {-1, -1};

static void *mind(void *arg) {
  char byte;
  (void)arg;
  while (read(ask[0], &byte, 1) < 0 && errno == EINTR)
    continue;
  leave_all();
  while (write(done[1], "", 1) < 0 && errno == EINTR)
    continue;
  return NULL;
}

/* Only what is safe in a handler. */
static void on_end(int number) {
  int before = errno;
  struct pollfd fd = {.fd = done[0], .events = POLLIN};
  struct sigaction plain;
  if (atomic_load(&minder) == getpid() && write(ask[1], "", 1) == 1)
    poll(&fd, 1, LEAVE_MS + LEAVE_MS / 2);
  memset(&plain, 0, sizeof plain);
  plain.sa_handler = SIG_DFL;
  sigaction(number, &plain, NULL);
  kill(getpid(), number); /* comes when this returns */
  errno = before;
}

static bool start_minder(void) {
  pid_t me = getpid();
  if (atomic_load(&minder) == me)
    return true;
  for (int i = 0; i < 2; i++) { /* a parent's, which it goes on using */
    if (ask[i] >= 0)
      close(ask[i]);
    if (done[i] >= 0)
      close(done[i]);
    ask[i] = done[i] = -1;
  }
  if (pipe2(ask, O_CLOEXEC) != 0 || pipe2(done, O_CLOEXEC) != 0 ||
      !egi_thread_start(NULL, mind, NULL))
    return false;
  atomic_store(&minder, me);
  return true;
}

bool eg_leave_at(const eg_guard *guard, int number) {
  struct sigaction action;
  if (!elsewhere(guard))
    return false;
  pthread_mutex_lock(&lock);
  bool good = sigaction(number, NULL, &action) == 0 &&
              !(action.sa_flags & SA_SIGINFO) &&
              (action.sa_handler == SIG_DFL || action.sa_handler == on_end) &&
              start_minder();
  if (good && action.sa_handler == SIG_DFL) {
    memset(&action, 0, sizeof action);
    action.sa_handler = on_end;
    action.sa_flags = SA_ONSTACK;
    sigfillset(&action.sa_mask);
    good = sigaction(number, &action, NULL) == 0;
  }
  pthread_mutex_unlock(&lock);
  return good;
}

void egi_leave_fork(egi_fork phase) { egi_mutex_fork(&lock, phase); }
