/* SPDX-License-Identifier: MIT
** A model of the hand-over of a key to those who wait for it: src/guard/line.c
** and wait.c.
**
** WHAT STANDS FOR WHAT
**   waiter      a caller that was refused: enter, pump, sleep_on, leave, and
**               eg_pending_cancel; then it holds the key and releases it
**   serve       egi_line_serve, consider, tell_next, by whoever ended a grant
**   newcomer    eg_acquire of somebody who does not wait
**   world       deadlines that come, leases that end by themselves
**   -DFLOCK     a store that others share (not by_apply): a watch of it queues
**               at the kernel's lock, and may win it; `other` is such another
**
** Each critical section of the line's mutex is cut where the store is asked,
** and the mutex is modelled; the store's own step (under the shard's lock) is
** one step, and so is the bell's mutex.
**
** SEQUENTIAL CONSISTENCY is what spin has.  `waiters` is relaxed in C; but it
** is counted before the waiter looks under the lock of the shard, and read
** after the key was changed under that lock: of two sections of one mutex the
** later sees what was before the earlier.  Everything else here is guarded by
** a mutex.
**
** ABSTRACTED.  One key, one phase (FOR_FREE; who has joined a run is told
** before); a deadline is a bit that is set at some time; failures of the store
** and closed guards are left out.
**
** PROPERTIES.  Assertions: who is told that it has the key has it, and nobody
** else; who gave up has not; a key is handed to the first in line.  A state in
** which nobody can go on has no waiter in it and the key free: no wake-up and
** no grant is lost.
*/
#ifndef WAITERS
#define WAITERS 2
#endif
#ifndef NEWCOMERS
#define NEWCOMERS 1
#endif
#ifndef LEASES
#define LEASES 0
#endif
#ifndef PATIENT
#define PATIENT 0 /* nobody gives up */
#endif
#ifndef MUTANT
#define MUTANT 0
#endif
#define M(n) (MUTANT == n)

#define NONE 15
#define OTHER 14
#define NEW 8 /* newcomers are 8, 9 ... */

byte owner = NONE; /* whose grant there is */
bit leased;        /* it would end by time alone */
bit dead;          /* its owner is, so it will */
byte waiters;      /* the counter */
bit mutex;         /* of the line */
byte line[WAITERS];
byte length;

bit done[WAITERS];    /* p->done */
bit granted[WAITERS]; /* p->status is OK */
bit rung[WAITERS];    /* the bell */
bit knows[WAITERS];   /* due: it looks again when that lease is over */
bit is_due[WAITERS];  /* it is over */
bit has_lease[WAITERS];
bit late[WAITERS];
bit by_proxy[WAITERS];
bit gave_up[WAITERS];
byte finished;

#ifdef FLOCK
byte kernel = NONE; /* who has the kernel's lock */
bit queued[WAITERS + 1];
#define OTHERS WAITERS
#endif

#define lock() atomic { !mutex -> mutex = 1 }

inline leave_line(who) {
  at = 0;
  do
  :: line[at] != who -> at++
  :: else -> break
  od;
  do
  :: at + 1 < length -> line[at] = line[at + 1]; at++
  :: else -> break
  od;
  length--;
  line[length] = NONE;
  waiters--;
  at = 0
}

/* The store's step: takes the key for `who`, if it is free. */
inline look(who, result) {
  atomic {
#ifdef FLOCK
    result = kernel == NONE || kernel == who;
    if
    :: result -> kernel = who; owner = who
    :: else
    fi;
#else
    result = owner == NONE;
    if
    :: result -> owner = who; leased = has_lease[who]
    :: else -> knows[who] = leased; is_due[who] = 0
    fi;
#endif
    if
    :: result -> assert(!gave_up[who])
    :: else
    fi
  }
}

/* egi_wait_finish after a look. */
inline finish(who) {
  atomic {
    assert(line[0] == who);
    leave_line(who);
    granted[who] = 1;
    done[who] = 1;
    rung[who] = 1
  }
}

inline serve() {
  do
  :: length == 0 -> break
  :: else ->
     next = line[0];
     if
     :: !by_proxy[next] -> rung[next] = 1; break
     :: else ->
        due = knows[next];
        look(next, got);
        if
        :: got ->
           got = 0;
           finish(next);
           if
           :: (!has_lease[next] && (length == 0 || by_proxy[line[0]])) ||
              M(8) -> break
           :: else /* tell_next: it looks, or is told to */
           fi
        :: else ->
           d_step { rung[next] = rung[next] || knows[next] != due }
           break
        fi
     fi
  od;
  atomic { next = 0; due = 0 }
}

inline free_key() {
#ifdef FLOCK
  atomic { assert(owner == me); owner = NONE; kernel = NONE }
#else
  atomic { assert(owner == me); owner = NONE; leased = 0 }
#endif
}

/* The end of a grant: the key, then the line. */
inline release() {
#if MUTANT == 1
  some = waiters > 0;
  free_key();
#else
  free_key();
  some = waiters > 0;
#endif
  if
  :: some -> some = 0; lock(); serve(); mutex = 0
  :: else
  fi
}

inline pump() {
  atomic {
    !mutex -> mutex = 1;
    leads = !done[me] && line[0] == me;
    over = !done[me] && late[me]
  }
  if
  :: !done[me] && (leads || M(7)) ->
#ifdef FLOCK
     mutex = 0; /* look_aside: the watch, then the look */
     queued[me] = kernel != me;
     look(me, got);
     lock();
#else
     look(me, got);
#endif
     if
     :: got -> got = 0; finish(me)
     :: else
     fi
  :: else
  fi;
  if
  :: atomic { !done[me] && over -> leave_line(me); done[me] = 1 }
  :: M(6) && done[me] && late[me] -> granted[me] = 0
  :: else
  fi;
  if
  :: leads && done[me] && !M(3) -> serve()
  :: else
  fi;
  d_step { mutex = 0; leads = 0; over = 0 }
}

inline withdraw() {
  atomic {
    !mutex -> mutex = 1;
    leads = !done[me] && line[0] == me;
    had = done[me] && granted[me];
    if
    :: !done[me] -> leave_line(me); done[me] = 1
    :: else
    fi
  }
  if
  :: leads && !M(9) -> serve()
  :: else
  fi;
  d_step { mutex = 0; leads = 0; granted[me] = 0 }
}

inline end_watch() {
#ifdef FLOCK
  atomic {
    queued[me] = 0;
    if
    :: kernel == me && owner != me && !M(10) -> kernel = NONE
    :: else
    fi
  }
#else
  skip
#endif
}

proctype waiter(byte me) {
  byte next, at;
  bit got, some, leads, over, had, cancelled, due, patient;
  atomic {
    if
    :: by_proxy[me] = 1
    :: skip
    fi;
    if
    :: patient = 1
    :: !PATIENT
    fi;
#ifdef FLOCK
    by_proxy[me] = 0
#else
    if
    :: LEASES -> has_lease[me] = 1
    :: skip
    fi
#endif
  }
  look(me, got);
  if
  :: got -> got = 0; granted[me] = 1
  :: else ->
     atomic { !mutex -> line[length] = me; length++; waiters++ }
#if MUTANT != 2
     pump();
#endif
     do
     :: done[me] -> break
     :: else ->
#if MUTANT == 5
        rung[me] = 0;
#endif
        due = knows[me]; /* what is read before it sleeps */
        if
#ifdef FLOCK
        :: queued[me] && (kernel == me || late[me]) -> skip
        :: atomic { !queued[me] && (rung[me] || late[me]) -> rung[me] = 0 }
#else
        :: atomic {
             rung[me] || late[me] || (due && is_due[me]) ->
             rung[me] = 0
           }
#endif
           pump()
        :: !patient -> cancelled = 1; withdraw(); break
        fi
     od;
     if
     :: cancelled && had && M(4) -> had = 0
     :: else
     fi;
     end_watch();
     if
     :: cancelled && had -> had = 0; release()
     :: else
     fi
  fi;
  if
  :: granted[me] ->
     assert(owner == me); /* it works */
     if
     :: release()
     :: has_lease[me] -> dead = 1
     fi
  :: else -> atomic { assert(owner != me); gave_up[me] = 1 }
  fi;
  atomic {
    late[me] = 0;
    rung[me] = 0;
    knows[me] = 0;
    is_due[me] = 0;
    due = 0;
    finished++
  }
}

proctype newcomer(byte me) {
  byte next, at;
  bit got, some, lease, due;
  atomic {
#ifdef FLOCK
    if
    :: kernel == NONE -> kernel = me; owner = me; got = 1
    :: else
    fi
#else
    if
    :: owner == NONE ->
       owner = me;
       got = 1;
       if
       :: LEASES -> lease = 1
       :: skip
       fi;
       leased = lease
    :: else
    fi
#endif
  }
  if
  :: got ->
     got = 0;
     if
     :: release()
     :: lease -> dead = 1
     fi
  :: else
  fi;
  finished++
}

#define is_over(who) \
  if \
  :: knows[who] -> is_due[who] = 1; skip \
  :: else \
  fi;

/* Deadlines may come or not; a lease ends. */
active proctype world() {
end_quiet:
  do
  :: !PATIENT && !late[0] -> late[0] = 1
  :: !PATIENT && !late[1] -> late[1] = 1
#if WAITERS > 2
  :: !PATIENT && !late[2] -> late[2] = 1
#endif
  :: break
  od;
end_leases:
  do
  :: atomic {
       dead ->
       dead = 0;
       leased = 0;
       owner = NONE;
       is_over(0)
       is_over(1)
#if WAITERS > 2
       is_over(2)
#endif
     }
  od
}

#ifdef FLOCK
/* The kernel gives its lock to one of those who wait for it. */
active proctype system() {
end_quiet:
  do
  :: atomic { kernel == NONE && queued[0] -> kernel = 0; queued[0] = 1 }
  :: atomic { kernel == NONE && queued[1] -> kernel = 1; queued[1] = 1 }
#if WAITERS > 2
  :: atomic { kernel == NONE && queued[2] -> kernel = 2; queued[2] = 1 }
#endif
  :: atomic { kernel == NONE && queued[OTHERS] -> kernel = OTHER }
  od
}

active proctype other() {
  if
  :: queued[OTHERS] = 1;
     kernel == OTHER;
     queued[OTHERS] = 0;
     kernel = NONE
  :: skip
  fi
}
#endif

/* Nobody has it in the end. */
active proctype last() {
  finished == WAITERS + NEWCOMERS && !dead;
  assert(owner == NONE && length == 0 && waiters == 0)
}

init {
  byte i;
  atomic {
    do
    :: i < WAITERS -> line[i] = NONE; run waiter(i); i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < NEWCOMERS -> run newcomer(NEW + i); i++
    :: else -> break
    od
  }
}
