/* SPDX-License-Identifier: MIT
** The slots of threads: what the keeper and the owners of timers share.
**
** Work that has a deadline and ends before it should pay next to nothing, on
** any number of threads at once.  So each thread has a slot of its own, with
** the stack of its timers and the nearest of their deadlines, written by that
** thread alone; the keeper reads all slots when it wakes, and it is woken only
** for a deadline that is nearer than the one it sleeps to.
**
** LOCKS.  (1) `work` is held by the keeper while it looks; it guards the
** parked timers, `alive`, `hastened` and the keeper's own fields of slots.
** Outcomes are stored under it where the store cannot block; for the others
** see attend.h.  (2) `sleep` guards what the keeper waits for; nothing is
** locked under it but the lock of a clock.  It may be taken with any held.
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
** WHAT COMES SOONER than a timer's own deadline (eg_timer_hasten, a lost
** grant) stands in its cut_us, and in `hastened` of the slot that it was last
** seen in; both are written under `work`.  A timer that moves to a slot (by
** eg_timer_unpark) does so under `work` too; one that leaves meanwhile leaves
** a visit that finds nothing.
**
** Slots are used again and never freed, so reading one is always safe; a
** thread is signalled only with `work` held and `alive` true.
*/
#ifndef EG_GUARD_SLOT_H
#define EG_GUARD_SLOT_H

#include "guard/guard.h"

enum { EGI_NOWHERE, EGI_IN_SLOT, EGI_PARKED };

typedef struct egi_slot {
  egi_thread common;
  _Atomic(eg_timer *) top; /* the thread's latest timer */
  _Atomic int64_t due;     /* nearest deadline that has not fired */
  _Atomic uint32_t turn;
  atomic_bool wanted; /* a visit, whatever is due */
  atomic_bool visiting;
  atomic_bool taken;
  _Atomic uint32_t kicks, kicks_heard;
  _Atomic int64_t hastened; /* something comes sooner */
  int mask_asked; /* the owner's: the signal whose block was looked for */
  void *anchor;
  bool alive;
  pthread_t thread;
  /* the keeper's */
  eg_timer *seen_top;
  uint32_t seen_turn;
  int64_t next_us;
  int64_t kick_us, kick_step; /* by the machine's clock */
} egi_slot;

/* Those with nothing to keep are among them: of threads that only count. */
static inline egi_slot *egi_slot_first(void) {
  return (egi_slot *)egi_threads();
}

static inline egi_slot *egi_slot_next(const egi_slot *s) {
  return (egi_slot *)s->common.next;
}

extern atomic_int egi_signal_number;

static inline int64_t egi_nearer(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static inline int64_t egi_machine_now(void) {
  const eg_clock *clock = eg_system_clock();
  return clock->now_us(clock->ctx);
}

static inline bool egi_timer_pending(const eg_timer *timer) {
  return __atomic_load_n(&timer->fired_us, __ATOMIC_ACQUIRE) == 0;
}

static inline int64_t egi_timer_deadline(const eg_timer *timer) {
  return egi_nearer(timer->grant.deadline_us,
                    __atomic_load_n(&timer->cut_us, __ATOMIC_RELAXED));
}

/* The nearest deadline of a timer and those around it. */
static inline int64_t egi_timer_nearest(const eg_timer *timer) {
  int64_t us = EG_FOREVER;
  for (; timer != NULL; timer = timer->outer)
    if (egi_timer_pending(timer))
      us = egi_nearer(us, egi_timer_deadline(timer));
  return us;
}

/* Its deadline has come, or its grant is lost.  Under work. */
void egi_timer_fire(eg_timer *timer);

/* It will come: brings what it takes then into the machine's caches. */
void egi_timer_rehearse(const eg_timer *timer);

/* When the keeper will look again at the latest. */
extern _Atomic int64_t egi_keeper_wake;

#endif
