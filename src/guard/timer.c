/* SPDX-License-Identifier: MIT
** Timers, as their owners use them, and the slots of threads; see slot.h.
*/
#include "guard/slot.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>

#define DEAF_AFTER 4 /* signals that were sent and did not come */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;

static _Atomic(egi_thread *) threads;

_Thread_local egi_thread *egi_here;

static egi_slot *here(void) { return (egi_slot *)egi_here; }

/* ------------------------------------------------------------- firing -- */

int64_t eg_timer_fired(const eg_timer *timer) {
  return __atomic_load_n(&timer->fired_us, __ATOMIC_ACQUIRE);
}

bool eg_timer_lost(const eg_timer *timer) {
  return eg_timer_fired(timer) != 0 && timer->lost;
}

/* What an attendant stores is taken for stored. */
bool eg_timer_timed_out(const eg_timer *timer) {
  if (eg_timer_fired(timer) == 0 || timer->lost)
    return false;
  return __atomic_load_n(&timer->stage, __ATOMIC_RELAXED) != EGI_NOT_DUE ||
         timer->status == EG_TIMEOUT;
}

static void set_fired(eg_timer *timer, int64_t us) {
  __atomic_store_n(&timer->fired_us, us, __ATOMIC_RELEASE);
}

static int place_of(const eg_timer *timer) {
  return __atomic_load_n(&timer->place, __ATOMIC_RELAXED);
}

static void set_place(eg_timer *timer, int place) {
  __atomic_store_n(&timer->place, place, __ATOMIC_RELAXED);
}

/* Is anything noted of it with the attendants? */
static bool is_attended(const eg_timer *timer) {
  return timer->tied ||
         __atomic_load_n(&timer->stage, __ATOMIC_RELAXED) != EGI_NOT_DUE;
}

eg_status egi_timer_commit(eg_timer *timer) {
  const eg_outcome late = {.status = EG_TIMEOUT, .error = eg_str("timed out")};
  eg_status status = eg_commit(timer->guard, timer->key, &timer->grant, &late,
                               timer->policy, NULL);
  return status == EG_INDETERMINATE ? EG_TIMEOUT : status; /* it is over */
}

/* The outcome is stored, or somebody will do it: it has no say in when the
** work is interrupted. */
void egi_timer_fire(eg_timer *timer) {
  if (timer->losing || timer->voided)
    timer->status = EG_LOST;
  else if (timer->guard == NULL)
    timer->status = EG_TIMEOUT;
  else if (timer->guard->ops->blocks)
    egi_attend_commit(timer);
  else
    timer->status = egi_timer_commit(timer);
  timer->lost = timer->losing;
  set_fired(timer, egi_machine_now());
}

void egi_timer_rehearse(const eg_timer *timer) {
  eg_record record;
  if (timer->voided || timer->guard == NULL || timer->guard->ops->blocks)
    return; /* voided: its guard may be gone */
  eg_look(timer->guard, timer->key, &record, NULL);
  eg_record_free(&record);
}

/* Under work.  A timer that is on its way from the heap to a slot, or the
** other way, reads cut_us when it has arrived. */
static void hasten(eg_timer *timer, int64_t us) {
  if (!egi_timer_pending(timer) || us >= egi_timer_deadline(timer))
    return;
  bool parked = place_of(timer) == EGI_PARKED;
  if (parked)
    egi_park_remove(timer);
  __atomic_store_n(&timer->cut_us, us, __ATOMIC_SEQ_CST); /* then the slot */
  if (parked)
    egi_park_add(timer);
  egi_slot *s = __atomic_load_n(&timer->slot, __ATOMIC_RELAXED);
  if (s != NULL && us < atomic_load(&s->hastened))
    atomic_store(&s->hastened, us);
}

void egi_timer_lose(eg_timer *timer) {
  if (egi_timer_pending(timer))
    timer->losing = true;
  hasten(timer, INT64_MIN);
}

void eg_timer_hasten(eg_timer *timer, int64_t deadline_us) {
  egi_work_lock();
  hasten(timer, deadline_us);
  egi_work_unlock();
  egi_keeper_expect(deadline_us);
}

/* -------------------------------------------------------------- slots -- */

static void clear_slot(egi_slot *s) {
  atomic_store(&s->due, EG_FOREVER);
  atomic_store(&s->hastened, EG_FOREVER);
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
  egi_slot *s = arg;
  egi_here = NULL;
  egi_work_lock();
  eg_timer *t = atomic_load(&s->top);
  for (; t != NULL; t = t->outer) {
    set_place(t, EGI_NOWHERE);
    if (t->leave != NULL)
      t->leave(t);
  }
  t = atomic_load(&s->top);
  clear_slot(s);
  egi_work_unlock();
  for (; t != NULL; t = t->outer)
    if (is_attended(t))
      egi_attend_forsake(t);
  atomic_store(&s->taken, false);
}

static void make_key(void) { pthread_key_create(&key, leave_slot); }

/* In the child of a fork: it has one thread, and of the timers those that are
** its own or parked.  It gets a keeper at once if there are any: nobody may
** come to ask for one. */
void egi_timer_forked(void) {
  for (egi_slot *s = egi_slot_first(); s != NULL; s = egi_slot_next(s)) {
    if (s == here())
      continue;
    for (eg_timer *t = atomic_load(&s->top); t != NULL; t = t->outer)
      set_place(t, EGI_NOWHERE);
    clear_slot(s);
    atomic_store(&s->taken, false);
  }
  bool open = here() != NULL && atomic_load(&here()->top) != NULL;
  if (open || egi_park_first() != NULL)
    egi_keeper_expect(INT64_MIN);
}

static egi_slot *new_slot(void) {
  egi_slot *s = calloc(1, sizeof *s);
  if (s == NULL)
    return NULL;
  clear_slot(s);
  atomic_store(&s->taken, true);
  s->common.next = atomic_load(&threads);
  while (!atomic_compare_exchange_weak(&threads, &s->common.next, &s->common))
    continue;
  return s;
}

egi_thread *egi_threads(void) { return atomic_load(&threads); }

egi_thread *egi_thread_take(void) {
  egi_fork_init();
  pthread_once(&once, make_key);
  egi_slot *s = egi_slot_first();
  bool is_free = false;
  while (s != NULL &&
         !atomic_compare_exchange_strong(&s->taken, &is_free, true)) {
    is_free = false;
    s = egi_slot_next(s);
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
static egi_slot *take_slot(void) {
  egi_slot *s = here();
  if (s == NULL)
    s = (egi_slot *)egi_thread_take();
  if (s == NULL || s->alive)
    return s;
  egi_work_lock();
  s->thread = pthread_self();
  s->alive = true;
  egi_work_unlock();
  return s;
}

/* ------------------------------------------------------- start, stop -- */

/* A deadline that another thread brought nearer (hasten) while `due` was made
** up may have been looked at before the keeper could see this top. */
static void look_again(egi_slot *s, const eg_timer *top, int64_t due) {
  int64_t nearer = egi_timer_nearest(top);
  if (nearer >= due)
    return;
  egi_work_lock();
  if (nearer < atomic_load(&s->hastened))
    atomic_store(&s->hastened, nearer);
  egi_work_unlock();
  egi_keeper_expect(nearer);
}

static void publish(egi_slot *s, eg_timer *top) {
  int64_t due = egi_timer_nearest(top);
  uint32_t turn = atomic_load_explicit(&s->turn, memory_order_relaxed);
  atomic_store_explicit(&s->turn, turn + 1, memory_order_relaxed);
  atomic_store_explicit(&s->due, due, memory_order_relaxed);
  atomic_store(&s->top, top);
  look_again(s, top, due);
}

static void push(egi_slot *s, eg_timer *timer) {
  set_place(timer, EGI_IN_SLOT);
  __atomic_store_n(&timer->slot, s, __ATOMIC_RELAXED);
  timer->outer = atomic_load_explicit(&s->top, memory_order_relaxed);
  publish(s, timer);
}

static void pop(eg_timer *timer) {
  egi_slot *s = timer->slot;
  assert(s == here() && atomic_load(&s->top) == timer);
  set_place(timer, EGI_NOWHERE);
  publish(s, timer->outer);
  if (atomic_load(&s->visiting)) {
    egi_work_lock();
    egi_work_unlock();
  }
}

/* Is there anything to be kept? */
static bool is_kept(const eg_timer *timer) {
  const eg_guard *guard = timer->guard;
  return guard == NULL ||
         (guard->env.clock == egi_process_clock() &&
          (timer->grant.deadline_us != EG_FOREVER || egi_holds_any(guard)));
}

void eg_timer_start(eg_timer *timer) {
  timer->place = EGI_NOWHERE;
  timer->stage = EGI_NOT_DUE;
  timer->lost = timer->losing = timer->tied = timer->voided = false;
  timer->status = EG_OK;
  timer->fired_us = 0;
  timer->cut_us = EG_FOREVER;
  timer->slot = NULL;
  egi_slot *s = is_kept(timer) ? take_slot() : NULL;
  if (s == NULL)
    return;
  push(s, timer);
  egi_keeper_expect(timer->grant.deadline_us);
  if (timer->guard != NULL && egi_holds_any(timer->guard))
    timer->tied = egi_attend_tie(timer);
}

bool eg_timer_kept(const eg_timer *timer) {
  return place_of(timer) != EGI_NOWHERE;
}

bool eg_can_lose(const eg_guard *guard) { return egi_holds_any(guard); }

/* The keeper has taken those that fired from the heap. */
static void take_from_heap(eg_timer *timer) {
  if (place_of(timer) == EGI_PARKED && egi_timer_pending(timer))
    egi_park_remove(timer);
  set_place(timer, EGI_NOWHERE);
}

eg_status eg_timer_stop(eg_timer *timer) {
  int place = place_of(timer);
  if (place == EGI_IN_SLOT) {
    pop(timer);
  } else if (place == EGI_PARKED) {
    egi_work_lock();
    take_from_heap(timer);
    egi_work_unlock();
  }
  if (is_attended(timer))
    egi_attend_finish(timer);
  if (eg_timer_fired(timer) == 0)
    return EG_OK;
  bool ended = timer->status == EG_TIMEOUT || timer->status == EG_LOST;
  return ended ? timer->status : EG_OK;
}

/* The keeper may have it in its hands, or an attendant. */
void eg_timer_void(eg_timer *timer) {
  egi_work_lock();
  timer->voided = true;
  egi_work_unlock();
  if (is_attended(timer))
    egi_attend_forsake(timer);
}

/* ------------------------------------------------------- park, unpark -- */

void eg_timer_park(eg_timer *timer) {
  if (place_of(timer) != EGI_IN_SLOT)
    return;
  pop(timer);
  egi_work_lock();
  set_place(timer, EGI_PARKED);
  __atomic_store_n(&timer->slot, NULL, __ATOMIC_RELAXED);
  if (egi_timer_pending(timer))
    egi_park_add(timer);
  else if (timer->tell != NULL)
    timer->tell(timer);
  int64_t due = egi_timer_deadline(timer);
  egi_work_unlock();
  egi_keeper_expect(due);
}

void eg_timer_unpark(eg_timer *timer) {
  if (place_of(timer) != EGI_PARKED)
    return;
  egi_slot *s = take_slot();
  if (s == NULL)
    return;
  egi_work_lock();
  take_from_heap(timer);
  push(s, timer);
  int64_t due = egi_timer_nearest(timer);
  if (eg_timer_fired(timer) != 0) {
    /* Its signals come to this thread from now on.  Nothing is due for that,
    ** and what is due changes with the next timer: so it is asked apart. */
    atomic_store(&s->wanted, true);
    due = INT64_MIN;
  }
  egi_work_unlock();
  egi_keeper_expect(due);
}

/* ----------------------------------------------------------- threads -- */

void eg_timer_signal(int number) {
  egi_work_lock(); /* the keeper sends none with it open */
  atomic_store(&egi_signal_number, number);
  egi_work_unlock();
}

void **eg_thread_anchor(void) {
  egi_slot *s = take_slot();
  return s != NULL ? &s->anchor : NULL;
}

void *eg_thread_anchored(void) {
  return here() != NULL ? here()->anchor : NULL;
}

void eg_thread_heard(void) {
  egi_slot *s = here();
  if (s != NULL)
    atomic_store(&s->kicks_heard, atomic_load(&s->kicks));
}

static bool is_blocked(int number) {
  sigset_t mask;
  return pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0 &&
         sigismember(&mask, number) == 1;
}

bool eg_thread_deaf(void) {
  int number = atomic_load(&egi_signal_number);
  egi_slot *s = take_slot();
  if (s == NULL)
    return false;
  if (s->mask_asked != number) {
    s->mask_asked = number;
    if (number != 0 && is_blocked(number))
      atomic_store(&s->kicks, atomic_load(&s->kicks_heard) + DEAF_AFTER);
  }
  return atomic_load(&s->kicks) - atomic_load(&s->kicks_heard) >= DEAF_AFTER;
}
