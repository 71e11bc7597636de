/* SPDX-License-Identifier: MIT
** How a thread is made to look at its chain: by a signal, or by counting.
**
** The signal is the process's.  Whoever had a handler for it before is called
** after ours; whoever puts one over ours later, and does not call it, is found
** out when signals go unheard: then everybody counts, until the engine is
** configured anew.  A thread that blocks the signal is left so, and counts.
**
** LOCKS.  engine_lock guards which signal is in use; the keeper's are taken
** under it (eg_timer_signal).
*/
#include "lua/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

enum { ENGINE_SIGNAL, ENGINE_COUNT, ENGINE_NONE };

#define SIGNALS 65 /* numbers, as `configure` takes them */

typedef void (*info_handler)(int, siginfo_t *, void *);
typedef void (*plain_handler)(int);

static pthread_mutex_t engine_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int engine = ENGINE_SIGNAL;
static int signal_wanted = SIGURG; /* under engine_lock */
static atomic_int signal_in_use;   /* 0: no handler is set */
static atomic_bool taken_over;     /* somebody has put his own over ours */
static struct sigaction before[SIGNALS]; /* under engine_lock */

/* Who is called after us.  The handler may be at work while they are set. */
static _Atomic(info_handler) next_info[SIGNALS];
static _Atomic(plain_handler) next_plain[SIGNALS];

static void on_signal(int number, siginfo_t *info, void *context) {
  int before_us = errno;
  eg_thread_heard();
  eb_look();
  info_handler by_info = atomic_load(&next_info[number]);
  plain_handler plainly = atomic_load(&next_plain[number]);
  if (by_info != NULL)
    by_info(number, info, context);
  else if (plainly != NULL)
    plainly(number);
  errno = before_us;
}

static bool is_ours(int number) {
  struct sigaction now;
  return sigaction(number, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
         now.sa_sigaction == on_signal;
}

static void note_before(int number) {
  const struct sigaction *old = &before[number];
  bool by_info = old->sa_flags & SA_SIGINFO;
  bool plainly = !by_info && old->sa_handler != SIG_DFL &&
                 old->sa_handler != SIG_IGN;
  atomic_store(&next_info[number], by_info ? old->sa_sigaction : NULL);
  atomic_store(&next_plain[number], plainly ? old->sa_handler : NULL);
}

/* Ours, over whatever is there.  With engine_lock held. */
static bool install(int number) {
  struct sigaction action;
  if (is_ours(number))
    return true;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  if (sigaction(number, NULL, &before[number]) != 0)
    return false;
  note_before(number);
  return sigaction(number, &action, NULL) == 0;
}

/* Puts back what was there, with engine_lock held.  Signals of ours may be on
** their way to a thread still, and by default most end the program: being
** ignored for a moment discards them. */
static void uninstall(int number) {
  struct sigaction ignore;
  memset(&ignore, 0, sizeof ignore);
  ignore.sa_handler = SIG_IGN;
  if (!is_ours(number))
    return;
  if (!(before[number].sa_flags & SA_SIGINFO) &&
      before[number].sa_handler == SIG_DFL)
    sigaction(number, &ignore, NULL);
  sigaction(number, &before[number], NULL);
}

/* With engine_lock held.  number 0: only puts the old one back, when none is
** sent any more. */
static void use_signal(int number) {
  int used = atomic_load(&signal_in_use);
  if (number != 0 && !install(number))
    number = 0;
  atomic_store(&taken_over, false);
  atomic_store(&signal_in_use, number);
  eg_timer_signal(number);
  if (used != 0 && used != number)
    uninstall(used);
}

/* Signals went unheard here, or are blocked: why?  True: that is over. */
static bool hears_again(lua_State *L, const eb_guard *guard, int number) {
  sigset_t mask;
  if (!is_ours(number)) {
    if (guard != NULL && !atomic_exchange(&taken_over, true))
      eb_log_warn(L, guard,
                  "signal %d has a handler of somebody else now: functions "
                  "are interrupted by counting instructions from here on",
                  number);
    return false;
  }
  if (pthread_sigmask(SIG_BLOCK, NULL, &mask) != 0 ||
      sigismember(&mask, number) == 1)
    return false;
  eg_thread_heard();
  return true;
}

/* Who forks waits until nobody changes the engine. */
static void before_fork(void) { pthread_mutex_lock(&engine_lock); }

static void after_fork(void) { pthread_mutex_unlock(&engine_lock); }

static void mind_forks(void) {
  eg_thread_anchor(); /* the keeper's handlers come first: its locks are taken
                         after ours */
  pthread_atfork(before_fork, after_fork, after_fork);
}

static void lock_engine(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, mind_forks);
  pthread_mutex_lock(&engine_lock);
}

bool eb_signals_here(lua_State *L, const eb_guard *guard) {
  if (atomic_load(&engine) == ENGINE_COUNT)
    return false;
  if (atomic_load(&signal_in_use) == 0) {
    lock_engine();
    use_signal(signal_wanted);
    pthread_mutex_unlock(&engine_lock);
  }
  int number = atomic_load(&signal_in_use);
  if (number == 0 || atomic_load(&taken_over))
    return false;
  return !eg_thread_deaf() || hears_again(L, guard, number);
}

bool eb_interrupts(void) { return atomic_load(&engine) != ENGINE_NONE; }

void eb_arm(lua_State *L, eb_frame *frame, eg_timer *timer) {
  bool known = eb_is_known(L);
  frame->timer = timer;
  bool possible = known && atomic_load(&engine) != ENGINE_NONE;
  frame->interrupts = frame->interrupts && possible;
  frame->on_loss = frame->on_loss && possible;
  frame->grace_us = timer->grace_us;
  timer->signals = timer->signals && frame->interrupts;
  timer->signals_loss = timer->signals_loss && frame->on_loss;
  frame->linked = frame->parked = false;
  eg_timer_start(timer);
  if (!eg_timer_kept(timer)) /* by its guard's own clock: seen on return */
    frame->interrupts = frame->on_loss = false;
  if (known)
    eb_enter(L, frame, EB_RUN);
  else
    eg_timer_park(timer); /* nobody will tell us when it leaves the thread */
}

/* waitSignal(number): configure.lua has looked at it. */
int eb_configure_wait(lua_State *L) {
  int number = (int)luaL_checkinteger(L, 1);
  if (eg_wait_signal(number) != EG_OK)
    return luaL_error(L,
                      "ExecutionGuard.configure: option 'waitSignal' must be "
                      "a signal that can be handled, not %d",
                      number);
  return 0;
}

/* engine(name or nil, signal or nil): what configure was told. */
int eb_configure_engine(lua_State *L) {
  static const char *const names[] = {"signal", "count", "none", NULL};
  int number = (int)luaL_optinteger(L, 2, SIGURG);
  luaL_argcheck(L, number > 0 && number < SIGNALS, 2, "no such signal");
  atomic_store(&engine, luaL_checkoption(L, 1, "signal", names));
  lock_engine();
  signal_wanted = number;
  if (atomic_load(&signal_in_use) != 0)
    use_signal(atomic_load(&engine) == ENGINE_SIGNAL ? number : 0);
  pthread_mutex_unlock(&engine_lock);
  return 0;
}
