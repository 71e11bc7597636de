/* SPDX-License-Identifier: MIT
** A model of an attendant: an outcome that is to be stored by a store that may
** block, against the end of its run, the loss of its hold, and the end of its
** guard; src/guard/attend.c, renew.c, timer.c.
**
** WHAT STANDS FOR WHAT
**   owner       eg_timer_start with egi_attend_tie, eg_timer_void,
**               eg_timer_stop with egi_attend_finish or egi_attend_forsake,
**               eg_close with egi_attend_close
**   keeper      look, visit, egi_timer_fire with egi_attend_commit,
**               egi_tenure_lose_due
**   attendant   attend, store_next, egi_tenure_renew, doze
**
** One guard, whose timers are started and stopped by one thread each, and
** closed by the first of them when all have stopped, or are void.  What the
** keeper does with slots is in keeper.pml: here a timer can be visited until
** its owner has taken `work` once after it left its slot.
**
** A condition wakes those who wait at that moment, and nobody else.  The store
** is away at most AWAY times; then an outcome is stored, or is LOST.
**
** PROPERTIES.  Assertions: nobody looks at a timer, a hold or a guard whose
** memory is gone; an outcome is stored by one at a time, and once; a stopped
** timer that has fired knows how it ended.  A state in which nobody can go on
** has everything stopped and the attendant gone: no wake-up is lost, no two
** locks are taken in both orders.
*/
#ifndef TIMERS
#define TIMERS 2
#endif
#ifndef AWAY
#define AWAY 1
#endif
#ifndef LOSES
#define LOSES 1 /* holds that are lost */
#endif
#ifndef MUTANT
#define MUTANT 0
#endif
#define M(n) (MUTANT == n)

#define NONE 7

#define NOT_DUE 0
#define QUEUED 1
#define STORING 2
#define STORED 3

#define OPEN 0 /* what is known of the outcome */
#define TIMEOUT 1
#define LOST 2
#define UNKNOWN 3 /* the store was away */

typedef timer {
  bit live, slotted, tied, losing, voided, fired;
  bit is_void; /* and nobody is at it any more */
  byte stage, status;
  bit storing; /* somebody is at it */
  bit done;    /* it has been stored */
}
timer t[TIMERS];

bit work, attending;
bit alive = 1; /* the guard */
bit listed, ending, running, gone;
bit dozes, woken;
byte queue[TIMERS];
byte queued;
byte away = AWAY, loses = LOSES;
bit waits[TIMERS], told[TIMERS]; /* for `done` */
byte stopped;

#define lock(mutex) atomic { !mutex -> mutex = 1 }

inline enqueue(x) {
  d_step {
    assert(alive && t[x].live);
    t[x].stage = QUEUED;
    queue[queued] = x;
    queued++
  }
}

inline dequeue(x) {
  d_step {
    assert(alive && t[x].live && t[x].stage == QUEUED);
    at = 0;
    do
    :: queue[at] == x -> break
    :: else -> at++
    od;
    do
    :: at + 1 < queued -> queue[at] = queue[at + 1]; at++
    :: else -> break
    od;
    queued--;
    queue[queued] = NONE;
    at = 0
  }
}

/* call: wakes the attendant, or starts it. */
inline call() {
  d_step {
    assert(alive);
    if
    :: !running && !ending -> running = 1
    :: else
    fi;
    if
    :: dozes && !M(2) -> woken = 1
    :: else
    fi
  }
}

inline broadcast_done() {
#if MUTANT == 7
  skip
#else
  d_step {
    told[0] = told[0] || waits[0];
#if TIMERS > 1
    told[1] = told[1] || waits[1];
#endif
    skip
  }
#endif
}

/* egi_timer_commit: with no lock held. */
inline commit(x, result) {
  atomic {
    assert(alive && t[x].live && !t[x].storing && !t[x].done);
    t[x].storing = 1
  }
  atomic {
    assert(alive && t[x].live);
    t[x].storing = 0;
    if
    :: away > 0 -> away--; result = UNKNOWN
    :: t[x].done = 1; result = TIMEOUT
    :: result = LOST
    fi
  }
}

/* ------------------------------------------------------------- keeper -- */

/* egi_tenure_lose: under work and attending. */
inline lose(x) {
  d_step {
    assert(t[x].tied -> t[x].live : 1);
    if
    :: t[x].tied && !t[x].fired -> t[x].losing = 1
    :: else
    fi;
    t[x].tied = 0
  }
}

inline fire(x) {
  if
  :: t[x].losing || t[x].voided -> t[x].status = LOST
  :: else ->
     lock(attending);
     enqueue(x);
     call();
     attending = 0
  fi;
  t[x].fired = 1
}

#define may_fire(x) t[x].slotted && !t[x].fired
#define may_lose(x) loses > 0 && t[x].tied

/* Of a store that does not block it renews by itself, under work. */
inline renew_here() {
  lock(attending);
  if
  :: listed ->
     attending = 0; /* asks the store */
     lock(attending);
     assert(alive)
  :: else
  fi;
  attending = 0;
  work = 0
}

/* One thing a pass: fires a timer, finds that the time of a hold is over, or
** renews. */
active proctype keeper() {
  byte x;
  bit renewed;
end_asleep:
  do
  :: atomic { !work && listed && !renewed -> work = 1; renewed = 1 }
     renew_here()
  :: atomic { !work && may_fire(0) -> work = 1; x = 0 } fire(x); work = 0
  :: atomic { !work && may_lose(0) -> work = 1; loses--; x = 0 }
     lock(attending); lose(x); attending = 0; work = 0
#if TIMERS > 1
  :: atomic { !work && may_fire(1) -> work = 1; x = 1 } fire(x); work = 0
  :: atomic { !work && may_lose(1) -> work = 1; loses--; x = 1 }
     lock(attending); lose(x); attending = 0; work = 0
#endif
  od
}

/* ---------------------------------------------------------- attendant -- */

inline store_next() {
  x = queue[0];
  dequeue(x);
  t[x].stage = STORING;
  attending = 0;
  commit(x, result);
  lock(attending);
  atomic {
    assert(alive && t[x].live);
    t[x].status = result;
    if
    :: result != UNKNOWN -> t[x].stage = STORED
    :: result == UNKNOWN && !M(6) -> enqueue(x)
    :: else
    fi;
    x = 0;
    result = 0
  }
  broadcast_done()
}

/* Without attending; then work, before it. */
inline renew() {
#if MUTANT == 4
  lock(work);
#else
  attending = 0;
  lock(work);
  lock(attending);
#endif
  assert(alive);
  if
  :: loses > 0 && t[0].tied -> loses--; lose(0)
  :: skip
  fi;
  work = 0
}

active proctype attendant() {
  byte x, at, result;
  bit renewed;
end_not_needed:
  running;
  lock(attending);
  do
  :: ending -> break
  :: !ending && queued > 0 -> store_next()
  :: !ending && !renewed && loses > 0 -> renewed = 1; renew()
  :: !ending && queued == 0 ->
     atomic { broadcast_done(); dozes = 1; attending = 0 }
     atomic { woken -> woken = 0; dozes = 0 }
     lock(attending);
     assert(alive)
  od;
  attending = 0;
  gone = 1
}

/* -------------------------------------------------------------- owner -- */

/* take_out.  result: was it queued? */
inline take_out(x, result) {
  do
  :: t[x].stage == STORING && !M(1) ->
     atomic { waits[x] = 1; attending = 0 }
     atomic { told[x] -> told[x] = 0; waits[x] = 0 }
     lock(attending)
  :: else -> break
  od;
  if
  :: !M(5) -> t[x].tied = 0
  :: else
  fi;
  if
  :: t[x].stage == QUEUED -> dequeue(x); t[x].stage = NOT_DUE; result = 1
  :: else
  fi
}

#define attended(x) (t[x].tied || t[x].stage != NOT_DUE)

inline finish(x) {
  if
  :: attended(x) ->
     lock(attending);
     take_out(x, taken);
     attending = 0;
     if
     :: taken -> taken = 0; commit(x, t[x].status)
     :: else
     fi
  :: else
  fi
}

inline make_void(x) {
  atomic { !work -> t[x].voided = 1 }
  if
  :: attended(x) ->
     lock(attending);
     take_out(x, taken);
     if
     :: taken -> taken = 0; t[x].status = LOST
     :: else
     fi;
     attending = 0
  :: else
  fi;
  t[x].is_void = 1
}

proctype owner(byte x) {
  byte at;
  bit taken;
  atomic { t[x].live = 1; t[x].slotted = 1; t[x].stage = NOT_DUE }
  atomic { !attending -> listed = 1; t[x].tied = 1 }
  if
  :: skip; /* then it comes late: others have seen the outcome */
     t[x].fired && (t[x].stage == STORED || t[x].status == LOST)
  :: skip
  :: make_void(x)
  fi;
#if MUTANT == 8
  t[x].slotted = 0;
#else
  atomic { !work -> t[x].slotted = 0 }
#endif
  finish(x);
  atomic {
    assert(!t[x].storing && t[x].stage != QUEUED && t[x].stage != STORING);
    assert(!t[x].fired || t[x].status != OPEN);
    t[x].live = 0;
    stopped++
  }
}

/* eg_close, when nothing is open that is not void. */
active proctype closer() {
  byte at;
  stopped == TIMERS ||
    (t[0].is_void && t[TIMERS - 1].is_void);
#if MUTANT != 3
  lock(work);
#endif
  lock(attending);
  atomic {
    ending = 1;
    listed = 0;
    do
    :: queued > 0 ->
       at = queue[0];
       queue[0] = queue[TIMERS - 1];
       queue[TIMERS - 1] = NONE;
       queued--;
       t[at].stage = NOT_DUE;
       t[at].status = LOST
    :: else -> break
    od;
    at = 0;
    t[0].tied = 0;
    t[TIMERS - 1].tied = 0;
    if
    :: dozes -> woken = 1
    :: else
    fi
  }
  attending = 0;
#if MUTANT != 3
  work = 0;
#endif
  !running || gone;
  alive = 0
}

init {
  byte i;
  atomic {
    do
    :: i < TIMERS -> queue[i] = NONE; i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < TIMERS -> run owner(i); i++
    :: else -> break
    od
  }
}
