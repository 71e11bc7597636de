/* SPDX-License-Identifier: MIT
** Attendants: what is done for a guard beside its callers.
**
** An attendant stores the outcomes of runs whose deadline has come, renews the
** leases of what its guard holds, and does its store's chores.  Where the
** store cannot block, the keeper does all that itself, in passing; else a
** thread does it, one for each guard that needs one, started on first need
** and ended by eg_close: so a server that is slow delays nobody but those who
** use it.
**
** HOLDS.  What a guard holds is noted where it may be lost: with a lease, or
** in a store that tends.  In a table by key: a key is held once.
**
**   eg_acquire -> noted -> renewed at a third of its lease, again and again
**       |                     |
**       |                     +-> LOST, or no answer until shortly before the
**       |                         lease would end, or maxHold: lost
**       +-> eg_commit, eg_release, eg_reset -> forgotten
**
** A hold that is lost is forgotten too, and the timer of its run, if it has
** one, fires as lost.  That the time of a lease runs short is judged by the
** keeper, since the attendant may be waiting for the server then.
**
** A TIMER whose outcome is to be stored goes through stages:
**
**   NOT_DUE -> QUEUED -> STORING -> STORED
**                 ^         |
**                 +---------+  the store was away: again, later
**
** Who stops one that is QUEUED takes it out and stores the outcome himself;
** one that is STORING is waited for.
**
** LOCKS.  One mutex, `attending`, guards the attendants of all guards, their
** holds, the stages of timers, and which timer belongs to which hold.  It is
** never held while a store is called.  To lose a hold the keeper's work lock
** is taken before it.
*/
#ifndef EG_GUARD_ATTEND_H
#define EG_GUARD_ATTEND_H

#include "executionguard_host.h"
#include "store/store.h"

#include <stdatomic.h>

enum { EGI_NOT_DUE, EGI_QUEUED, EGI_STORING, EGI_STORED };

/* Of a store that tends: nothing, or it is visited regularly; and somebody has
** written since the last visit. */
enum { EGI_IDLE, EGI_WARM, EGI_WRITTEN };

typedef struct egi_tenure {
  struct egi_tenure *chain; /* in its bucket */
  eg_timer *timer;          /* of the run, while it is kept; or NULL */
  uint64_t token;
  int64_t lease_ms; /* 0: none, it is only to be known */
  int64_t last_us;  /* no renewal goes beyond: maxHold */
  int64_t renew_us; /* the next; EG_FOREVER: no more */
  int64_t until_us; /* when the lease ends at the store, or a little later */
  size_t key_len;
  unsigned char key[];
} egi_tenure;

enum { EGI_FIRST_HOLDS = 16 };

typedef struct egi_tenure_table {
  egi_tenure **buckets;               /* NULL: none were needed yet */
  size_t size;                        /* a power of two, or 0 */
  egi_tenure *first[EGI_FIRST_HOLDS]; /* the buckets, until there are more */
  atomic_size_t n;
  egi_tenure *stale; /* a parent process's: to be freed */
} egi_tenure_table;

typedef struct egi_leftover egi_leftover;

typedef struct egi_attendant {
  struct eg_guard *next; /* of those that have anything to do */
  bool listed, running, ending, busy;
  atomic_int activity; /* EGI_IDLE, or tend is to be called soon, and the
                       ** thread knows that */
  int quiet;           /* for so many calls nobody has written */
  pthread_t thread;
  pthread_cond_t woken;   /* there is more to do */
  pthread_cond_t done;    /* an outcome was stored; or all is */
  eg_timer *first, *tail; /* QUEUED */
  eg_timer *storing;
  int64_t retry_us;          /* the store was away: not before that */
  int64_t renew_us, lose_us; /* the earliest of any hold, or before it */
  int64_t tend_us, counts_us;
  int64_t dozes_until_us; /* steady; INT64_MIN: it looks before it sleeps */
  egi_tenure_table holds;
  egi_leftover *leftovers, *forked_leftovers; /* outcomes, of a parent's too */
  bool leaving; /* its holds are being given back: it stays */
} egi_attendant;

/* ---- holds.c: what a guard holds ---- */

/* Memory for one more; NULL: there is none. */
egi_tenure *egi_tenure_new(struct eg_guard *guard, eg_bytes key);
void egi_tenure_free(struct eg_guard *guard, egi_tenure *held);

/* Under attending.  A hold of the same key, which is lost, makes room. */
void egi_holds_add(struct eg_guard *guard, egi_tenure *held);
egi_tenure *egi_holds_find(const struct eg_guard *guard, eg_bytes key);
void egi_holds_remove(struct eg_guard *guard, egi_tenure *held);
egi_tenure *egi_holds_next(const struct eg_guard *guard,
                           const egi_tenure *held);
void egi_holds_clear(struct eg_guard *guard);
void egi_holds_forked(struct eg_guard *guard);

/* ---- renew.c: the time of leases ---- */

/* The time that leases are counted by: of a store elsewhere, one that goes on
** while this machine is suspended. */
int64_t egi_lease_now(const struct eg_guard *guard);

/* As if the machine had been suspended that long; for tests. */
extern _Atomic int64_t egi_suspended_us;

/* The rest under attending. */

/* A time of leases as steady time. */
int64_t egi_lease_steady(const struct eg_guard *guard, int64_t lease_us,
                         int64_t now);

/* When it is too late to renew it; says the guard what is due for it. */
int64_t egi_tenure_lose_at(const struct eg_guard *guard,
                           const egi_tenure *held);
void egi_tenure_expect(struct eg_guard *guard, const egi_tenure *held);

egi_tenure *egi_tenure_find(const struct eg_guard *guard, eg_bytes key,
                            uint64_t token);

/* It is gone; those are, whose time has run short.  With work held too. */
void egi_tenure_lose(struct eg_guard *guard, egi_tenure *held);
void egi_tenure_lose_due(struct eg_guard *guard);

/* Renews what is due, with attending released meanwhile.  has_work: the caller
** holds that.  False: nothing was due. */
bool egi_tenure_renew(struct eg_guard *guard, bool has_work);

/* ---- attend.c: in the name of a caller ---- */

/* The lock; not for longer than a look. */
void egi_attending_lock(void);
void egi_attending_unlock(void);

/* Under attending.  There is more to do for a guard; the guard that is listed
** after that one (NULL: the first). */
void egi_attend_call(struct eg_guard *guard);
struct eg_guard *egi_attend_each(const struct eg_guard *guard);

/* A grant was made: at that time of the guard's lease clock, or later. */
void egi_attend_note(struct eg_guard *guard, egi_tenure *held, uint64_t token,
                     int64_t since_us, int64_t lease_ms, int64_t max_hold_ms);

/* That grant has ended, or one before it. */
void egi_attend_forget(struct eg_guard *guard, eg_bytes key, uint64_t token);

/* Something was granted or written: chores will be there soon. */
void egi_attend_soon(struct eg_guard *guard);

/* Something was counted: it will be there in a second. */
void egi_attend_counts(struct eg_guard *guard);

/* A timer learns which hold is its own.  False: none. */
bool egi_attend_tie(eg_timer *timer);

/* Unties it; what is queued is stored by the caller, what is being stored is
** waited for.  forsake: nobody stores it. */
void egi_attend_finish(eg_timer *timer);
void egi_attend_forsake(eg_timer *timer);

/* Before the store is closed: whatever goes on for the guard has ended. */
void egi_attend_close(struct eg_guard *guard);

/* ---- attend.c: in the name of the keeper, under work ---- */

/* The timer's deadline has come, and its store may block. */
void egi_attend_commit(eg_timer *timer);

/* Does what is due for stores that do not block, and loses what is out of
** time.  Returns when there is more to do, in steady time.  next: the same,
** without doing anything. */
int64_t egi_attend_look(int64_t now_us);
int64_t egi_attend_next(int64_t now_us);

/* ---- attend.c: the clock was moved ---- */

void egi_attend_ring(void);

/* Until all attendants have done what is due, at most a second by the
** machine's clock: who moves the clock shall not hang with a server.  False:
** there was nothing to wait for. */
bool egi_attend_settle(void);

/* The watch of boot.c has rung, and is set anew. */
void egi_attend_boot(void);

/* ---- leftover.c: outcomes that could not be stored; under attending, but
** for those that say otherwise ---- */

int64_t egi_leftover_due(const egi_attendant *attendant);
/* Tries what is due, with attending released meanwhile.  False: nothing is. */
bool egi_leftover_next(struct eg_guard *guard);
/* Takes attending: is that grant only there for its outcome to be stored? */
bool egi_is_leftover(eg_bytes key, uint64_t token);
void egi_leftovers_forked(egi_attendant *attendant);
/* Not under attending. */
void egi_leftovers_end(struct eg_guard *guard);

/* ---- leave.c: what is held elsewhere is given back at exit ---- */

void egi_leave_init(const struct eg_guard *guard);
/* May be called under attending. */
void egi_leave_mind(void);

/* ---- boot.c: a lease elsewhere runs out while this machine sleeps.  Under
** attending, by CLOCK_BOOTTIME ---- */

void egi_boot_expect(int64_t boot_us); /* at that time, if it is earlier */
void egi_boot_next(int64_t boot_us);   /* not before that time */
void egi_boot_forked(void);

/* A thread with all signals blocked; thread NULL: nobody joins it. */
bool egi_thread_start(pthread_t *thread, void *(*body)(void *), void *arg);

#endif
