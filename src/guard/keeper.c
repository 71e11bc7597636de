/* SPDX-License-Identifier: MIT
** The keeper: one thread that ends runs at their deadlines.
**
** Work that has a deadline and ends before it should pay next to nothing, on
** any number of threads at once.  So each thread has a slot of its own, with
** the stack of its timers and the nearest of their deadlines, written by that
** thread alone; the keeper reads all slots when it wakes, and it is woken only
** for a deadline that is nearer than the one it sleeps to.
**
** LOCKS.  (1) `work` is held by the keeper while it looks and stores outcomes,
** that is, while stores are called; it guards the parked timers, `alive` of
** slots, and the keeper's own fields of them.  (2) `sleep` guards what the
** keeper waits for; nothing is locked under it but the lock of a clock.
** Order: work, then a store's own.  sleep may be taken with any of them held.
**
** THREE RACES, each closed by two sequentially consistent accesses a side, of
** which at least one side sees the other's (Dekker):
**   a nearer deadline   owner: write top, read wake.
**                       keeper: write wake, read top.
**   the end of a run    owner: write top, read visiting.  keeper: write
**                       visiting, read top.  An owner that sees a visit waits
**                       for `work`: so what the keeper found under top stays
**                       until it has left.
**   a moved clock       the keeper looks at `rung` with `sleep` held.
** due and turn are written before top and read after it.
**
** WHAT WAS VISITED is not visited again for the same deadline.  The keeper may
** not write due, which is the owner's; it remembers what it met and what is
** left to wait for.  The owner counts a turn with every change, so that the
** same top and turn mean the same timers; none is removed during a visit.
**
** Slots are used again and never freed, so reading one is always safe; a
** thread is signalled only with `work` held and `alive` true.
*/
#include "guard/guard.h"

#include <assert.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

enum { NOWHERE, IN_SLOT, PARKED };

#define FIRST_KICK_US 1000
#define LAST_KICK_US 32000
#define DEAF_AFTER 4 /* signals that were sent and did not come */

typedef struct slot {
  egi_thread common;
  _Atomic(eg_timer *) top; /* the thread's latest timer */
  _Atomic int64_t due;     /* nearest deadline that has not fired */
  _Atomic uint32_t turn;
  atomic_bool wanted; /* a visit, whatever is due */
  atomic_bool visiting;
  atomic_bool taken;
  _Atomic uint32_t kicks, kicks_heard;
  int mask_asked; /* the owner's: the signal whose block was looked for */
  void *anchor;
  bool alive;
  pthread_t thread;
  /* the keeper's */
  eg_timer *seen_top;
  uint32_t seen_turn;
  int64_t next_us;
  int64_t kick_us, kick_step; /* by the machine's clock */
} slot;

static pthread_mutex_t work = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t sleep_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken, settled;
static bool running, rung;     /* under sleep_lock */
static uint64_t asked, looked; /* the same: passes */
static _Atomic int64_t wake = EG_FOREVER;
static _Atomic(egi_thread *) threads;
static atomic_int signal_number;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;

_Thread_local egi_thread *egi_here;

static slot *here(void) { return (slot *)egi_here; }

static slot *next_slot(const slot *s) { return (slot *)s->common.next; }

/* Those with nothing to keep are among them: of threads that only count. */
static slot *first_slot(void) { return (slot *)egi_threads(); }

static int64_t machine_now(void) {
  const eg_clock *clock = eg_system_clock();
  return clock->now_us(clock->ctx);
}

static int64_t nearer(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---------------------------------------------------------- timers -- */

int64_t eg_timer_fired(const eg_timer *timer) {
  return __atomic_load_n(&timer->fired_us, __ATOMIC_ACQUIRE);
}

static void set_fired(eg_timer *timer, int64_t us) {
  __atomic_store_n(&timer->fired_us, us, __ATOMIC_RELEASE);
}

static bool is_pending(const eg_timer *timer) {
  return eg_timer_fired(timer) == 0;
}

static int64_t nearest(const eg_timer *timer) {
  int64_t us = EG_FOREVER;
  for (; timer != NULL; timer = timer->outer)
    if (is_pending(timer))
      us = nearer(us, timer->grant.deadline_us);
  return us;
}

/* -------------------------------------------------------- the keeper -- */

/* The deadline has come: stores the outcome, frees the key. */
static void fire(eg_timer *timer) {
  const eg_outcome late = {.status = EG_TIMEOUT, .error = eg_str("timed out")};
  timer->status = timer->guard == NULL
                      ? EG_LOST /* void */
                      : eg_commit(timer->guard, timer->key, &timer->grant,
                                  &late, timer->policy, NULL);
  set_fired(timer, machine_now());
}

/* A signal now if it is time for one, and the time of the next. */
static void kick(slot *s, const eg_timer *timer, int64_t machine_us) {
  int number = atomic_load(&signal_number);
  if (s->kick_us == EG_FOREVER) {
    s->kick_us = machine_us;
    s->kick_step = FIRST_KICK_US;
  }
  if (machine_us < s->kick_us)
    return;
  if (number != 0 && s->alive) {
    atomic_fetch_add(&s->kicks, 1);
    pthread_kill(s->thread, number);
  }
  s->kick_us = machine_us + s->kick_step;
  s->kick_step = nearer(2 * s->kick_step, LAST_KICK_US);
  int64_t grace_end = eg_timer_fired(timer) + timer->grace_us;
  if (grace_end > machine_us)
    s->kick_us = nearer(s->kick_us, grace_end);
}

/* Fires what is due in a slot. */
static void visit(slot *s, int64_t now_us) {
  const eg_timer *signalled = NULL; /* the outermost that has fired */
  atomic_store(&s->wanted, false);
  atomic_store(&s->visiting, true);
  eg_timer *top = atomic_load(&s->top);
  s->seen_turn = atomic_load_explicit(&s->turn, memory_order_relaxed);
  for (eg_timer *t = top; t != NULL; t = t->outer) {
    if (is_pending(t) && t->grant.deadline_us <= now_us)
      fire(t);
    if (t->signals && eg_timer_fired(t) != 0)
      signalled = t;
  }
  s->seen_top = top;
  s->next_us = nearest(top);
  if (signalled != NULL)
    kick(s, signalled, machine_now());
  else
    s->kick_us = EG_FOREVER;
  atomic_store(&s->visiting, false);
}

/* When a slot wants a visit. */
static int64_t due_of(const slot *s) {
  const eg_timer *top = atomic_load(&s->top);
  if (top == s->seen_top &&
      s->seen_turn == atomic_load_explicit(&s->turn, memory_order_relaxed))
    return s->next_us;
  return atomic_load_explicit(&s->due, memory_order_relaxed);
}

static int64_t first_parked(void) {
  const eg_timer *timer = egi_park_first();
  return timer != NULL ? timer->grant.deadline_us : EG_FOREVER;
}

/* Looks at everything once.  Returns the nearest deadline; *kick_us: when to
** signal again. */
static int64_t look(int64_t *kick_us) {
  int64_t now = eg_now_us(), machine = machine_now(), next = EG_FOREVER;
  *kick_us = EG_FOREVER;
  for (slot *s = first_slot(); s != NULL; s = next_slot(s)) {
    if (due_of(s) <= now || s->kick_us <= machine || atomic_load(&s->wanted))
      visit(s, now);
    next = nearer(next, due_of(s));
    *kick_us = nearer(*kick_us, s->kick_us);
  }
  while (first_parked() <= now) {
    eg_timer *timer = egi_park_first();
    egi_park_remove(timer);
    fire(timer);
    if (timer->tell != NULL)
      timer->tell(timer);
  }
  return nearer(next, first_parked());
}

static bool came_nearer(int64_t next) {
  for (const slot *s = first_slot(); s != NULL; s = next_slot(s))
    if (due_of(s) < next)
      return true;
  return false;
}

static int64_t pass(int64_t *kick_us) {
  int64_t next;
  pthread_mutex_lock(&work);
  do {
    atomic_store(&wake, INT64_MIN); /* awake: nobody has to ring */
    next = look(kick_us);
    atomic_store(&wake, next);
  } while (came_nearer(next));
  pthread_mutex_unlock(&work);
  return next;
}

/* The test clock rings when it is moved, and must not be moved by our waiting.
** Signals are repeated by the machine's clock, whichever is in force. */
static void sleep_until(int64_t next, int64_t kick_us) {
  const eg_clock *machine = eg_system_clock(), *clock = egi_clock_in_force();
  int64_t until = clock == machine ? nearer(next, kick_us) : kick_us;
  if (clock != machine && clock != eg_test_clock() && until == EG_FOREVER) {
    if (!rung)
      clock->wait(clock->ctx, &woken, &sleep_lock, next);
    return;
  }
  while (!rung && machine_now() < until)
    machine->wait(machine->ctx, &woken, &sleep_lock, until);
}

static void *keep(void *arg) {
  (void)arg;
#ifdef __linux__
  prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
#endif
  int64_t kick_us;
  pthread_mutex_lock(&sleep_lock);
  for (;;) {
    uint64_t order = asked;
    rung = false;
    pthread_mutex_unlock(&sleep_lock);
    int64_t next = pass(&kick_us);
    pthread_mutex_lock(&sleep_lock);
    looked = order;
    pthread_cond_broadcast(&settled);
    sleep_until(next, kick_us);
  }
  return NULL;
}

/* With sleep_lock held. */
static void start_keeper(void) {
  pthread_attr_t attr;
  pthread_t thread;
  sigset_t all, before;
  if (pthread_attr_init(&attr) != 0)
    return;
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  running = pthread_create(&thread, &attr, keep, NULL) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
}

/* A deadline came nearer than the keeper knows. */
static void ring(int64_t due) {
  pthread_mutex_lock(&sleep_lock);
  if (!running)
    start_keeper();
  if (running && due < atomic_load(&wake))
    atomic_store(&wake, due); /* who comes next need not ring as well */
  rung = true;
  pthread_cond_signal(&woken);
  pthread_mutex_unlock(&sleep_lock);
}

void egi_keeper_ring(void) {
  pthread_mutex_lock(&sleep_lock);
  if (running) {
    rung = true;
    pthread_cond_signal(&woken);
  }
  pthread_mutex_unlock(&sleep_lock);
}

void egi_keeper_settle(void) {
  if (egi_clock_in_force() == eg_system_clock() ||
      atomic_load(&wake) > eg_now_us())
    return; /* wake is never later than a deadline that is kept */
  pthread_mutex_lock(&sleep_lock);
  uint64_t order = ++asked;
  rung = true;
  if (running)
    pthread_cond_signal(&woken);
  while (running && looked < order)
    pthread_cond_wait(&settled, &sleep_lock);
  pthread_mutex_unlock(&sleep_lock);
}

/* ------------------------------------------------------------- slots -- */

static void clear_slot(slot *s) {
  atomic_store(&s->due, EG_FOREVER);
  atomic_store(&s->top, NULL);
  atomic_store(&s->wanted, false);
  atomic_store(&s->visiting, false);
  s->anchor = NULL;
  s->mask_asked = 0;
  s->alive = false;
  s->seen_top = NULL;
  s->next_us = s->kick_us = EG_FOREVER;
  s->seen_turn = atomic_load(&s->turn);
  atomic_store(&s->kicks, 0);
  atomic_store(&s->kicks_heard, 0);
}

/* The thread ends: what it has not stopped is nobody's. */
static void leave_slot(void *arg) {
  slot *s = arg;
  egi_here = NULL;
  pthread_mutex_lock(&work);
  for (eg_timer *t = atomic_load(&s->top); t != NULL; t = t->outer) {
    t->place = NOWHERE;
    if (t->leave != NULL)
      t->leave(t);
  }
  clear_slot(s);
  pthread_mutex_unlock(&work);
  atomic_store(&s->taken, false);
}

/* fork: no lock may be held by a thread that the child does not have. */
static void before_fork(void) {
  pthread_mutex_lock(&work);
  pthread_mutex_lock(&sleep_lock);
}

static void after_fork(void) {
  pthread_mutex_unlock(&sleep_lock);
  pthread_mutex_unlock(&work);
}

static void init_conditions(void) {
  eg_cond_init(&woken);
  eg_cond_init(&settled);
}

/* The child has one thread, and of the timers those that are its own or
** parked.  It gets a keeper at once if there are any: nobody may come to ask
** for one. */
static void after_fork_in_child(void) {
  pthread_mutex_init(&work, NULL);
  pthread_mutex_init(&sleep_lock, NULL);
  init_conditions();
  running = rung = false;
  atomic_store(&wake, EG_FOREVER);
  for (slot *s = first_slot(); s != NULL; s = next_slot(s)) {
    if (s == here())
      continue;
    clear_slot(s);
    atomic_store(&s->taken, false);
  }
  bool open = here() != NULL && atomic_load(&here()->top) != NULL;
  if (open || egi_park_first() != NULL)
    ring(INT64_MIN);
}

static void set_up(void) {
  init_conditions();
  pthread_key_create(&key, leave_slot);
  pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

egi_thread *egi_threads(void) { return atomic_load(&threads); }

static slot *new_slot(void) {
  slot *s = calloc(1, sizeof *s);
  if (s == NULL)
    return NULL;
  clear_slot(s);
  atomic_store(&s->taken, true);
  s->common.next = atomic_load(&threads);
  while (!atomic_compare_exchange_weak(&threads, &s->common.next, &s->common))
    continue;
  return s;
}

egi_thread *egi_thread_take(void) {
  pthread_once(&once, set_up);
  slot *s = first_slot();
  bool is_free = false;
  while (s != NULL &&
         !atomic_compare_exchange_strong(&s->taken, &is_free, true)) {
    is_free = false;
    s = next_slot(s);
  }
  if (s == NULL)
    s = new_slot();
  if (s != NULL && pthread_setspecific(key, s) != 0) {
    atomic_store(&s->taken, false);
    s = NULL;
  }
  egi_here = s != NULL ? &s->common : NULL;
  return egi_here;
}

/* The calling thread's slot; NULL: no memory. */
static slot *take_slot(void) {
  slot *s = here();
  if (s == NULL)
    s = (slot *)egi_thread_take();
  if (s == NULL || s->alive)
    return s;
  pthread_mutex_lock(&work);
  s->thread = pthread_self();
  s->alive = true;
  pthread_mutex_unlock(&work);
  return s;
}

/* ----------------------------------------------------- for its owner -- */

static void publish(slot *s, eg_timer *top, int64_t due) {
  uint32_t turn = atomic_load_explicit(&s->turn, memory_order_relaxed);
  atomic_store_explicit(&s->turn, turn + 1, memory_order_relaxed);
  atomic_store_explicit(&s->due, due, memory_order_relaxed);
  atomic_store(&s->top, top);
}

static void push(slot *s, eg_timer *timer) {
  timer->place = IN_SLOT;
  timer->slot = s;
  timer->outer = atomic_load_explicit(&s->top, memory_order_relaxed);
  publish(s, timer, nearest(timer));
}

static void pop(eg_timer *timer) {
  slot *s = timer->slot;
  assert(s == here() && atomic_load(&s->top) == timer);
  timer->place = NOWHERE;
  publish(s, timer->outer, nearest(timer->outer));
  if (atomic_load(&s->visiting)) {
    pthread_mutex_lock(&work);
    pthread_mutex_unlock(&work);
  }
}

static void ring_if_nearer(int64_t due) {
  if (due < atomic_load(&wake))
    ring(due);
}

static bool is_kept(const eg_timer *timer) {
  return timer->grant.deadline_us != EG_FOREVER &&
         timer->guard->env.clock == egi_process_clock();
}

void eg_timer_start(eg_timer *timer) {
  timer->place = NOWHERE;
  timer->fired_us = 0;
  slot *s = is_kept(timer) ? take_slot() : NULL;
  if (s == NULL)
    return;
  push(s, timer);
  ring_if_nearer(timer->grant.deadline_us);
}

bool eg_timer_kept(const eg_timer *timer) { return timer->place != NOWHERE; }

/* The keeper has taken those that fired from the heap. */
static void take_from_heap(eg_timer *timer) {
  if (timer->place == PARKED && is_pending(timer))
    egi_park_remove(timer);
  timer->place = NOWHERE;
}

eg_status eg_timer_stop(eg_timer *timer) {
  if (timer->place == IN_SLOT) {
    pop(timer);
  } else if (timer->place == PARKED) {
    pthread_mutex_lock(&work);
    take_from_heap(timer);
    pthread_mutex_unlock(&work);
  }
  if (eg_timer_fired(timer) == 0)
    return EG_OK;
  bool ended = timer->status == EG_TIMEOUT || timer->status == EG_LOST;
  return ended ? timer->status : EG_OK;
}

void eg_timer_void(eg_timer *timer) {
  pthread_mutex_lock(&work);
  timer->guard = NULL;
  pthread_mutex_unlock(&work);
}

void eg_timer_park(eg_timer *timer) {
  if (timer->place != IN_SLOT)
    return;
  pop(timer);
  pthread_mutex_lock(&work);
  timer->place = PARKED;
  if (is_pending(timer))
    egi_park_add(timer);
  else if (eg_timer_fired(timer) != 0 && timer->tell != NULL)
    timer->tell(timer);
  pthread_mutex_unlock(&work);
  ring_if_nearer(timer->grant.deadline_us);
}

void eg_timer_unpark(eg_timer *timer) {
  if (timer->place != PARKED)
    return;
  slot *s = take_slot();
  if (s == NULL)
    return;
  pthread_mutex_lock(&work);
  take_from_heap(timer);
  pthread_mutex_unlock(&work);
  push(s, timer);
  if (eg_timer_fired(timer) != 0 && timer->signals) {
    /* Its signals come to this thread from now on.  Nothing is due for that,
    ** and what is due changes with the next timer: so it is asked apart. */
    atomic_store(&s->wanted, true);
    ring(INT64_MIN);
  } else {
    ring_if_nearer(timer->grant.deadline_us);
  }
}

/* ----------------------------------------------------------- threads -- */

void eg_timer_signal(int number) { atomic_store(&signal_number, number); }

void **eg_thread_anchor(void) {
  slot *s = take_slot();
  return s != NULL ? &s->anchor : NULL;
}

void *eg_thread_anchored(void) {
  return here() != NULL ? here()->anchor : NULL;
}

void eg_thread_heard(void) {
  slot *s = here();
  if (s != NULL)
    atomic_store(&s->kicks_heard, atomic_load(&s->kicks));
}

static bool is_blocked(int number) {
  sigset_t mask;
  return pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0 &&
         sigismember(&mask, number) == 1;
}

bool eg_thread_deaf(void) {
  int number = atomic_load(&signal_number);
  slot *s = take_slot();
  if (s == NULL)
    return false;
  if (s->mask_asked != number) {
    s->mask_asked = number;
    if (number != 0 && is_blocked(number))
      atomic_store(&s->kicks, atomic_load(&s->kicks_heard) + DEAF_AFTER);
  }
  return atomic_load(&s->kicks) - atomic_load(&s->kicks_heard) >= DEAF_AFTER;
}
