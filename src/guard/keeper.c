/* SPDX-License-Identifier: MIT
** The keeper: one thread that ends runs at their deadlines; slot.h says how.
**
** It never waits for anybody: stores that may block are left to attendants.
*/
#include "guard/slot.h"

#include <signal.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#define FIRST_KICK_US 1000
#define LAST_KICK_US 32000

/* Waking up takes the machine some 50 us, or twice that, and what is done at a
** deadline is done seldom, and slow for that: nothing of it is in the caches.
** So the keeper wakes a little before a deadline of a thread, rehearses, and
** waits for it awake; after a short sleep less, lest it should be busy with
** nothing but waiting. */
#define EARLY_US 100
#define EARLY_SHARE 16 /* of the sleep before it, at most */

static pthread_mutex_t work = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t sleep_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken, settled;
static pthread_once_t once = PTHREAD_ONCE_INIT; /* for the conditions */
static bool running;                            /* under sleep_lock */
static atomic_bool rung;       /* written under it; see also stay_awake */
static uint64_t asked, looked; /* under it: passes */

_Atomic int64_t egi_keeper_wake = EG_FOREVER;
atomic_int egi_signal_number;

void egi_work_lock(void) { pthread_mutex_lock(&work); }

void egi_work_unlock(void) { pthread_mutex_unlock(&work); }

/* ------------------------------------------------------------ looking -- */

/* A signal now if it is time for one, and the time of the next. */
static void kick(egi_slot *s, const eg_timer *timer, int64_t machine_us) {
  int number = atomic_load(&egi_signal_number);
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
  s->kick_step = egi_nearer(2 * s->kick_step, LAST_KICK_US);
  int64_t grace_end = eg_timer_fired(timer) + timer->grace_us;
  if (grace_end > machine_us)
    s->kick_us = egi_nearer(s->kick_us, grace_end);
}

/* Does this timer want its thread to be signalled? */
static bool wants_signal(const eg_timer *timer) {
  return eg_timer_fired(timer) != 0 &&
         (timer->signals || (timer->signals_loss && eg_timer_lost(timer)));
}

/* Fires what is due in a slot. */
static void visit(egi_slot *s, int64_t now_us) {
  const eg_timer *signalled = NULL; /* the outermost that has fired */
  atomic_store(&s->wanted, false);
  atomic_store(&s->visiting, true);
  atomic_store(&s->hastened, EG_FOREVER);
  eg_timer *top = atomic_load(&s->top);
  s->seen_turn = atomic_load_explicit(&s->turn, memory_order_relaxed);
  for (eg_timer *t = top; t != NULL; t = t->outer) {
    if (egi_timer_pending(t) && egi_timer_deadline(t) <= now_us)
      egi_timer_fire(t);
    if (wants_signal(t))
      signalled = t;
  }
  s->seen_top = top;
  s->next_us = egi_timer_nearest(top);
  if (signalled != NULL)
    kick(s, signalled, egi_machine_now());
  else
    s->kick_us = EG_FOREVER;
  atomic_store(&s->visiting, false);
}

/* When a slot wants a visit. */
static int64_t due_of(const egi_slot *s) {
  const eg_timer *top = atomic_load(&s->top);
  int64_t due = s->next_us;
  if (top != s->seen_top ||
      s->seen_turn != atomic_load_explicit(&s->turn, memory_order_relaxed))
    due = atomic_load_explicit(&s->due, memory_order_relaxed);
  return egi_nearer(due, atomic_load(&s->hastened));
}

static int64_t first_parked(void) {
  const eg_timer *timer = egi_park_first();
  return timer != NULL ? egi_timer_deadline(timer) : EG_FOREVER;
}

/* Looks at everything once.  Returns the nearest deadline; *kick_us: when to
** signal again. */
static int64_t look(int64_t *kick_us) {
  int64_t now = eg_now_us(), machine = egi_machine_now();
  int64_t next = egi_attend_look(now);
  *kick_us = EG_FOREVER;
  for (egi_slot *s = egi_slot_first(); s != NULL; s = egi_slot_next(s)) {
    if (due_of(s) <= now || s->kick_us <= machine || atomic_load(&s->wanted))
      visit(s, now);
    next = egi_nearer(next, due_of(s));
    *kick_us = egi_nearer(*kick_us, s->kick_us);
  }
  while (first_parked() <= now && egi_park_first() != NULL) {
    eg_timer *timer = egi_park_first();
    egi_park_remove(timer);
    egi_timer_fire(timer);
    if (timer->tell != NULL)
      timer->tell(timer);
  }
  return egi_nearer(next, first_parked());
}

static bool came_nearer(int64_t next) {
  for (const egi_slot *s = egi_slot_first(); s != NULL; s = egi_slot_next(s))
    if (due_of(s) < next || atomic_load(&s->wanted))
      return true;
  return egi_attend_next(eg_now_us()) < next;
}

static int64_t pass(int64_t *kick_us) {
  int64_t next;
  pthread_mutex_lock(&work);
  do {
    atomic_store(&egi_keeper_wake, INT64_MIN); /* awake: none has to ring */
    next = look(kick_us);
    atomic_store(&egi_keeper_wake, next);
  } while (came_nearer(next));
  pthread_mutex_unlock(&work);
  return next;
}

/* ----------------------------------------------------------- sleeping -- */

/* Does a thread have that deadline?  `work` is not held: what is read here is
** the owners', and a moment old. */
static bool is_due_at(int64_t us) {
  for (const egi_slot *s = egi_slot_first(); s != NULL; s = egi_slot_next(s))
    if (atomic_load_explicit(&s->due, memory_order_relaxed) == us)
      return true;
  return false;
}

/* How long before that deadline to wake; 0: not before it. */
static int64_t earliness(int64_t next) {
  if (next == EG_FOREVER || !is_due_at(next))
    return 0;
  int64_t share = (next - egi_machine_now()) / EARLY_SHARE;
  return share > 0 ? egi_nearer(EARLY_US, share) : 0;
}

/* Looks at the records, and at the threads, whose deadline that is. */
static void rehearse(int64_t next) {
  pthread_mutex_lock(&work);
  for (egi_slot *s = egi_slot_first(); s != NULL; s = egi_slot_next(s)) {
    if (!s->alive || atomic_load(&s->due) != next)
      continue;
    atomic_store(&s->visiting, true);
    for (eg_timer *t = atomic_load(&s->top); t != NULL; t = t->outer)
      if (egi_timer_deadline(t) == next)
        egi_timer_rehearse(t);
    pthread_kill(s->thread, 0);
    atomic_store(&s->visiting, false);
  }
  pthread_mutex_unlock(&work);
}

/* Until that deadline has come or does not matter any more, or the bell rings.
** sleep_lock is given up meanwhile. */
static void stay_awake(int64_t next) {
  pthread_mutex_unlock(&sleep_lock);
  rehearse(next);
  while (!atomic_load_explicit(&rung, memory_order_relaxed) &&
         egi_machine_now() < next && is_due_at(next))
    continue;
  pthread_mutex_lock(&sleep_lock);
}

/* The test clock rings when it is moved, and must not be moved by our waiting.
** Signals are repeated by the machine's clock, whichever is in force. */
static void sleep_until(int64_t next, int64_t kick_us) {
  const eg_clock *machine = eg_system_clock(), *clock = egi_clock_in_force();
  int64_t until = clock == machine ? egi_nearer(next, kick_us) : kick_us;
  int64_t early = clock == machine && next <= kick_us ? earliness(next) : 0;
  if (clock != machine && clock != eg_test_clock() && until == EG_FOREVER) {
    if (!rung)
      clock->wait(clock->ctx, &woken, &sleep_lock, next);
    return;
  }
  while (!rung && egi_machine_now() < until - early)
    machine->wait(machine->ctx, &woken, &sleep_lock, until - early);
  if (early > 0 && !rung)
    stay_awake(next);
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

static void init_conditions(void) {
  eg_cond_init(&woken);
  eg_cond_init(&settled);
}

/* With sleep_lock held. */
static void start_keeper(void) {
  running = egi_thread_start(NULL, keep, NULL);
}

bool egi_thread_start(pthread_t *thread, void *(*body)(void *), void *arg) {
  pthread_attr_t attr;
  pthread_t detached;
  sigset_t all, before;
  if (pthread_attr_init(&attr) != 0)
    return false;
  if (thread == NULL) {
    thread = &detached;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  }
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool started = pthread_create(thread, &attr, body, arg) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  return started;
}

/* ------------------------------------------------------------ ringing -- */

/* A deadline came nearer than the keeper knows. */
static void ring(int64_t due) {
  pthread_once(&once, init_conditions);
  pthread_mutex_lock(&sleep_lock);
  if (!running)
    start_keeper();
  if (running && due < atomic_load(&egi_keeper_wake))
    atomic_store(&egi_keeper_wake, due); /* who comes next need not ring */
  rung = true;
  pthread_cond_signal(&woken);
  pthread_mutex_unlock(&sleep_lock);
}

void egi_keeper_expect(int64_t due_us) {
  if (due_us < atomic_load(&egi_keeper_wake))
    ring(due_us);
}

void egi_keeper_ring(void) {
  pthread_mutex_lock(&sleep_lock);
  if (running) {
    rung = true;
    pthread_cond_signal(&woken);
  }
  pthread_mutex_unlock(&sleep_lock);
  egi_attend_ring();
}

/* wake is never later than a deadline that is kept */
static void settle_keeper(void) {
  if (atomic_load(&egi_keeper_wake) > eg_now_us())
    return;
  pthread_mutex_lock(&sleep_lock);
  uint64_t order = ++asked;
  rung = true;
  if (running)
    pthread_cond_signal(&woken);
  while (running && looked < order)
    pthread_cond_wait(&settled, &sleep_lock);
  pthread_mutex_unlock(&sleep_lock);
}

void egi_keeper_settle(void) {
  if (egi_clock_in_force() == eg_system_clock())
    return;
  settle_keeper();
  if (egi_attend_settle()) /* what they found out is the keeper's again */
    settle_keeper();
}

/* --------------------------------------------------------------- fork -- */

void egi_mutex_fork(pthread_mutex_t *mutex, egi_fork phase) {
  if (phase == EGI_FORKING)
    pthread_mutex_lock(mutex);
  else
    pthread_mutex_unlock(mutex);
  if (phase == EGI_FORKED_CHILD) /* who waited for it is not there */
    pthread_mutex_init(mutex, NULL);
}

void egi_keeper_fork(egi_fork phase) { egi_mutex_fork(&work, phase); }

void egi_sleep_fork(egi_fork phase) {
  egi_mutex_fork(&sleep_lock, phase);
  if (phase != EGI_FORKED_CHILD)
    return;
  init_conditions();
  running = false;
  rung = false;
  atomic_store(&egi_keeper_wake, EG_FOREVER);
}
