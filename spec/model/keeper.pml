/* SPDX-License-Identifier: MIT
** A model of the keeper: deadline against finish against cancel against
** migration against loss; src/guard/keeper.c, timer.c, park.c,
** src/lua/interrupt.c.  What attendants do is in attend.pml.
**
** WHAT STANDS FOR WHAT
**   owner       a thread: eg_timer_start, stop, park, unpark, take_slot,
**               leave_slot; the coroutine it resumes (eb_unpark, eb_park); the
**               hook (raising_hook) in a function that never ends by itself
**   handler     on_signal, eb_look: runs between any two steps of its thread
**   keeper      keep, pass, look, visit, fire, kick, sleep_until
**   world       the clock, the end of a grace time, a reset by somebody else
**   other       eg_timer_hasten, egi_timer_lose, by a thread that is none of
**               the owners (-DHASTE): the deadline comes nearer
**
** Every shared access is a step of its own, but what one thread reads of its
** own chain (nearest, the walk of the handler) is one step: `fired`, the only
** thing others write there, goes from 0 to 1 once.
**
** SEQUENTIAL CONSISTENCY is what spin has.  In C it holds of top, visiting,
** wake, taken (seq_cst), of what a mutex guards, and of fired (release,
** acquire, one writer).  turn and due are relaxed, but written before top,
** which is a release, and read after it, which is an acquire: a reader of the
** new top has the new ones; one of the old top may have either, here too.  The
** two may come in any order, here too.  That a later turn is seen before an
** earlier top makes them differ from what was seen, as a new one does.
** cut_us, hastened and place are written under work and read without it.
**
** ABSTRACTED.  Deadlines are 2 and 3 (with -DHASTE there are none, but those
** that `other` brings), the time goes from 1 to 3; the times of
** kicks are any (a kick is repeated when the last one was delivered).  The
** heap is a set under `work`.  A condition is its predicate.  The list of
** slots has its full length from the start.  No fork, no test clock, no
** memory that is missing, no count hook, no shield.
**
** PROPERTIES.  Assertions: the keeper reads no timer whose memory is gone; a
** run ends once; nothing is raised for a guard that has not expired or is not
** in the chain; no signal to a thread that is gone.  A state in which nobody
** can go on has every endless function ended and every parked timer fired: no
** wake-up is lost.  -DLIVE: the same with weak fairness, so no livelock.
*/
#ifndef OWNERS
#define OWNERS 2
#endif
#ifndef TIMERS
#define TIMERS 2
#endif
#ifndef STARTS
#define STARTS 2 /* of each thread */
#endif
#ifndef OTHERS
#define OTHERS STARTS /* of all but the first */
#endif
#ifndef RESUMES
#define RESUMES 1 /* of each thread */
#endif
#ifndef SLOTS
#define SLOTS OWNERS
#endif
#ifndef RESETS
#define RESETS 0
#endif
#ifndef MAIN
#define MAIN 1 /* timers outside of the coroutine */
#endif
#ifndef SIGNALS
#define SIGNALS 1 /* do the timers signal? */
#endif
#ifndef GRACE
#define GRACE 0
#endif
#ifndef EXITS
#define EXITS 0 /* may a thread end in a guarded function? */
#endif
#ifndef CLOSES
#define CLOSES 0
#endif
#ifndef HASTE
#define HASTE 0 /* are deadlines brought nearer, instead of there from begin */
#endif
#ifndef MUTANT
#define MUTANT 0
#endif
#define M(n) (MUTANT == n)

#define NIL 15
#define MIN 0
#ifndef LATE
#define LATE 3 /* the last deadline; the first is 2 */
#endif
#define FOREVER 4

#define NOWHERE 0
#define IN_SLOT 1
#define PARKED 2

#define RUN 0
#define FINISHED 1
#define TIMEDOUT 2
#define RESET 3

typedef timer {
  bit live;  /* its memory is there */
  byte outer;
  byte place;
  byte dl;
  bit fired;
  byte rec;     /* the record */
  bit linked;   /* its frame is in the chain */
  bit tied;     /* `other` knows it: its memory stays */
  bit slotted;  /* timer->slot is set: to `at`*/
  byte at;
  bit raised, grace_over
}
typedef slot {
  byte top;
  byte due;
  byte turn;
  bit wanted; /* a visit, whatever is due */
  byte hastened;
  bit visiting, taken, alive;
  byte thread;
  byte seen_top, seen_turn, next;
  bit kick /* kick_us is not FOREVER */
}
timer t[TIMERS];
slot s[SLOTS];
byte here[OWNERS];   /* slot of a thread */
bit signal[OWNERS];  /* pending */
bit hooked[OWNERS];
bit gone[OWNERS];    /* the thread has exited */
bit in_heap[TIMERS];
bit endless[OWNERS]; /* is in a function that does not end */

bit work;  /* is held, by the keeper; for all others what they do with it */
bit sleep; /* is one step; held by who rings */
byte wake = FOREVER;
bit rung, running;
byte now = 1;

/* One coroutine, which any thread may resume. */
byte co_n;       /* timers in it */
byte co_t[2];    /* outermost first */
bit co_busy, co_dead;
byte finished;   /* threads */
byte free = TIMERS;


/* A kick is worth its step when the last one has been delivered. */
#define kick_of(i) (s[i].kick && !signal[s[i].thread])
#if SLOTS == 1
#define kick_due kick_of(0)
#elif SLOTS == 2
#define kick_due (kick_of(0) || kick_of(1))
#else
#define kick_due (kick_of(0) || kick_of(1) || kick_of(2))
#endif

inline nearest(from, result) {
  result = FOREVER;
  walk = from;
  do
  :: walk != NIL ->
     assert(t[walk].live);
     if
     :: !t[walk].fired && t[walk].dl < result -> result = t[walk].dl
     :: else
     fi;
     walk = t[walk].outer
  :: else -> break
  od;
  walk = 0
}

/* ------------------------------------------------------------- keeper -- */

/* The store decides once; then everybody may know. */
inline fire(x) {
  atomic {
    assert(t[x].live && !t[x].fired && now >= t[x].dl);
    assert(t[x].rec == RUN || t[x].rec == RESET);
    if
    :: t[x].rec == RUN -> t[x].rec = TIMEDOUT
    :: else /* LOST */
    fi
  }
  atomic {
    assert(t[x].live);
    t[x].fired = 1
  }
}

/* Top, then turn, then due. */
inline due_of(i) {
  seen = s[i].top;
#ifdef WEAK
  if
  :: d_step {
       seen == s[i].seen_top && s[i].turn == s[i].seen_turn -> d = s[i].next
     }
  :: else -> d = s[i].due
  fi
#else
  d_step {
    if
    :: seen == s[i].seen_top && s[i].turn == s[i].seen_turn -> d = s[i].next
    :: else -> d = s[i].due
    fi;
    seen = 0
  }
#endif
#if HASTE
  d_step {
    if
    :: s[i].hastened < d -> d = s[i].hastened
    :: else
    fi
  }
#endif
}

inline visit(i) {
  s[i].wanted = 0;
#if MUTANT == 2
  x = s[i].top;
  s[i].visiting = 1;
#else
  s[i].visiting = 1;
#if HASTE
  s[i].hastened = FOREVER;
#endif
  x = s[i].top;
#endif
  d_step { s[i].seen_turn = s[i].turn; s[i].seen_top = x; signalled = 0 }
  do
  :: x != NIL ->
     assert(t[x].live);
     if
     :: !t[x].fired && t[x].dl <= time -> fire(x)
     :: else
     fi;
     d_step {
       assert(t[x].live);
       signalled = signalled || (SIGNALS && t[x].fired);
       x = t[x].outer
     }
  :: else -> break
  od;
  atomic {
    x = 0;
    nearest(s[i].seen_top, s[i].next)
  }
  atomic {
    s[i].kick = signalled && !M(7);
    if
    :: signalled && s[i].alive ->
       assert(!gone[s[i].thread]);
       signal[s[i].thread] = 1
    :: else
    fi;
    signalled = 0
  }
  s[i].visiting = 0
}

/* Under work the heap is nobody else's. */
inline look_at_heap() {
  x = 0;
  do
  :: x < TIMERS ->
     if
     :: in_heap[x] && t[x].dl <= time ->
        in_heap[x] = 0;
        fire(x)
     :: else
     fi;
     d_step {
       if
       :: in_heap[x] && t[x].dl < next -> next = t[x].dl
       :: else
       fi;
       x++
     }
  :: else -> x = 0; break
  od
}

inline look() {
  do
  :: i < SLOTS ->
     due_of(i);
     if
     :: d <= time || s[i].kick || s[i].wanted -> visit(i); due_of(i)
     :: else
     fi;
     d_step {
       if
       :: d < next -> next = d
       :: else
       fi;
       d = 0;
       i++
     }
  :: else -> i = 0; break
  od;
  look_at_heap();
  time = 0
}

inline came_nearer() {
  do
  :: i < SLOTS && !again ->
     due_of(i);
     d_step { again = d < next || s[i].wanted; d = 0; i++ }
  :: else -> i = 0; break
  od
}

active proctype keeper() {
  byte i, x, d, next, time, seen, walk;
  bit signalled, again;
end_not_needed:
  running;
end_asleep:
  do
  :: atomic { !sleep && (rung || now >= next || kick_due) ->
       rung = 0
     }
     atomic { !work -> work = 1; wake = MIN; next = FOREVER; time = now }
     do
     :: look();
        wake = next;
#if MUTANT != 3
        came_nearer();
#endif
        if
        :: again -> atomic { wake = MIN; again = 0; next = FOREVER; time = now }
        :: else -> work = 0; break
        fi
     od;
#if MUTANT == 11
     rung = 0
#endif
  od
}

/* ------------------------------------------------------------- owners -- */

/* A deadline that came nearer while due_ was made up. */
inline look_again(top_, due_) {
  d_step { nearest(top_, sooner) }
  if
  :: sooner < due_ && !M(14) ->
     atomic { !work -> s[my].hastened = MIN }
     ring_if_nearer(sooner)
  :: else
  fi;
  sooner = 0
}

inline publish(top_, due_) {
#ifdef WEAK
  if
  :: s[my].turn = s[my].turn + !M(5); s[my].due = due_
  :: s[my].due = due_; s[my].turn = s[my].turn + !M(5)
  fi;
#else
  d_step { s[my].turn = s[my].turn + !M(5); s[my].due = due_ }
#endif
  s[my].top = top_;
#if HASTE
  look_again(top_, due_)
#endif
}

inline ring(due_) {
  atomic { !sleep -> sleep = 1; running = 1; nearer = due_ < wake }
  if
  :: nearer -> wake = due_; nearer = 0
  :: else
  fi;
  d_step { rung = 1; sleep = 0 }
}

inline ring_if_nearer(due_) {
  if
  :: due_ < wake -> ring(due_)
  :: else
  fi
}

inline push(x) {
  d_step {
    t[x].place = IN_SLOT;
    t[x].slotted = 1;
    t[x].at = my;
    t[x].outer = s[my].top;
    nearest(x, d)
  }
  publish(x, d);
  d = 0
}

inline pop(x) {
  d_step {
    assert(s[my].top == x);
    t[x].place = NOWHERE;
    nearest(t[x].outer, d)
  }
  publish(t[x].outer, d);
  d = 0;
  if
  :: s[my].visiting && !M(1) -> !work
  :: else
  fi
}

inline start(x) {
  atomic {
    x = 0;
    do
    :: t[x].live -> x++
    :: else -> break
    od;
    t[x].live = 1;
    if
    :: HASTE -> t[x].dl = FOREVER
    :: !HASTE -> t[x].dl = 2
    :: !HASTE && LATE > 2 -> t[x].dl = 3
    fi;
#if HASTE
    t[x].tied = 1 /* its run was noted before */
#endif
  }
#if MUTANT == 4
  early = t[x].dl < wake;
  push(x);
  if
  :: early -> ring(t[x].dl)
  :: else
  fi;
#else
  push(x);
  ring_if_nearer(t[x].dl);
#endif
  t[x].linked = 1
}

inline take_from_heap(x) {
  atomic { !work -> in_heap[x] = 0; t[x].place = NOWHERE }
}

/* eg_timer_stop, eb_leave, and the commit of what is still to be stored. */
inline stop(x) {
  if
  :: t[x].place == IN_SLOT -> pop(x)
  :: t[x].place == PARKED -> take_from_heap(x)
  :: else
  fi;
#if HASTE
  atomic { !work -> t[x].tied = 0 }
#endif
  ended = t[x].fired;
  t[x].linked = 0;
  d_step {
    if
    :: ended -> assert(t[x].rec == TIMEDOUT || t[x].rec == RESET)
    :: else ->
       assert(t[x].rec == RUN || t[x].rec == RESET);
       assert(!t[x].fired)
    fi;
    ended = 0;
    free++;
    t[x].live = 0;
    t[x].outer = 0;
    t[x].dl = 0;
    t[x].fired = 0;
    t[x].slotted = 0;
    t[x].at = 0;
    t[x].rec = RUN;
    t[x].raised = 0;
    t[x].grace_over = 0
  }
}

inline park(x) {
  t[x].linked = 0;
#if MUTANT == 8
  in_heap[x] = !t[x].fired;
#endif
  pop(x);
  atomic {
    !work ->
    t[x].place = PARKED;
    t[x].slotted = 0;
    in_heap[x] = !t[x].fired
  }
#if MUTANT != 12
  ring_if_nearer(t[x].dl)
#endif
}

/* All but the last of it under work. */
inline unpark(x) {
  atomic { !work -> work = 1; in_heap[x] = 0; t[x].place = NOWHERE }
  push(x);
  d_step { nearest(x, sooner) }
  if
#if MUTANT == 13
  :: t[x].fired -> publish(x, MIN); sooner = MIN
#elif MUTANT != 6
  :: t[x].fired && SIGNALS -> s[my].wanted = 1; sooner = MIN
#endif
  :: else
  fi;
  work = 0;
  ring_if_nearer(sooner);
  sooner = 0;
  t[x].linked = 1
}

/* The guard that is to be ended: of the chain of thread me. */
inline outermost(result) {
  result = NIL;
  walk = s[here[me]].top;
  do
  :: walk != NIL ->
     if
     :: t[walk].linked && t[walk].fired -> result = walk
     :: else
     fi;
     walk = t[walk].outer
  :: else -> break
  od;
  walk = 0
}

#define in_grace(x) (t[x].raised && !t[x].grace_over)

inline eb_look(g) {
  atomic {
    outermost(g);
    if
    :: g != NIL ->
       if
       :: !in_grace(g) -> hooked[me] = 1
       :: else
       fi
    :: else
    fi;
    g = 0
  }
}

proctype handler(byte me) {
  byte g, walk;
end_quiet:
  do
  :: atomic {
       signal[me] ->
       signal[me] = 0;
       if
       :: here[me] != NIL -> eb_look(g)
       :: else
       fi
     }
  od
}

/* raising_hook.  g: what is to be unwound; NIL: nothing. */
inline hook(g) {
  atomic {
    outermost(g);
#if MUTANT == 9
    if
    :: g == NIL -> g = s[my].top
    :: else
    fi;
#endif
    if
    :: g == NIL -> hooked[me] = 0
    :: else ->
       if
       :: in_grace(g) -> hooked[me] = 0; g = NIL
       :: else ->
          assert(t[g].live && t[g].fired && now >= t[g].dl);
          if
          :: GRACE && !t[g].raised ->
             t[g].raised = 1;
             hooked[me] = 0;
             g = NIL /* it is caught */
          :: else
          fi
       fi
    fi
  }
}

inline stop_latest() {
  x = s[my].top;
  stop(x);
  atomic {
    if
    :: inside && co_n > 0 -> co_n--; co_t[co_n] = 0
    :: inside && co_n == 0 -> /* the error has left the coroutine */
       inside = 0;
       co_dead = 1;
       co_busy = 0;
       n--
    :: else -> n--
    fi
  }
}

inline unwind(g) {
  do
  :: g != NIL ->
     stop_latest();
     if
     :: x == g -> g = NIL
     :: else
     fi
  :: else -> break
  od;
  atomic { g = 0; x = 0 }
}

inline resume() {
  atomic { inside = 1; i = 0 }
  do
  :: i < co_n -> unpark(co_t[i]); i++
  :: else -> break
  od;
  i = 0;
  eb_look(g)
}

inline yield() {
  i = co_n;
  do
  :: i > 0 -> i--; park(co_t[i])
  :: else -> break
  od;
  atomic { inside = 0; co_busy = 0 }
}

/* coroutine.close of one that is parked. */
inline close() {
  do
  :: co_n > 0 -> x = co_t[co_n - 1]; stop(x); co_n--; co_t[co_n] = 0
  :: else -> break
  od;
  atomic { co_dead = 1; co_busy = 0; x = 0 }
}

inline take_slot() {
  atomic { /* a thread is born when there is room */
    !s[0].taken || !s[SLOTS - 1].taken ->
    my = (s[0].taken -> SLOTS - 1 : 0);
    s[my].taken = 1
  }
  atomic { !work -> s[my].thread = me; s[my].alive = 1; here[me] = my }
}

/* The thread ends, perhaps with timers that are not stopped; whoever finds
** those stops them later. */
inline leave_slot() {
  d_step { x = s[my].top; here[me] = NIL }
  atomic {
#if MUTANT != 10
    !work ->
#endif
    walk = x;
    do
    :: walk != NIL -> t[walk].place = NOWHERE; walk = t[walk].outer
    :: else -> break
    od;
    walk = 0;
    s[my].due = FOREVER;
    s[my].top = NIL;
    s[my].visiting = 0;
    s[my].wanted = 0;
    s[my].hastened = FOREVER;
    s[my].alive = 0;
    s[my].seen_top = NIL;
    s[my].next = FOREVER;
    s[my].kick = 0;
    s[my].seen_turn = s[my].turn
  }
  atomic { gone[me] = 1; signal[me] = 0; s[my].taken = 0 }
  do
  :: x != NIL -> i = t[x].outer; stop(x); x = i
  :: else -> break
  od;
  i = 0
}

#define depth (n + (inside -> co_n : 0))

proctype owner(byte me) {
  byte my, x, d, g, walk, i, sooner;
  byte n; /* timers of the thread that are not the coroutine's */
  byte starts = (me == 0 -> STARTS : OTHERS), resumes = RESUMES;
  bit inside, ended, early, nearer;
  take_slot();
  do
  :: hooked[me] -> hook(g); unwind(g)
  :: !hooked[me] ->
     if
     :: atomic {
          starts > 0 && (inside -> co_n < 2 : MAIN) && free > 0 ->
          free--;
          starts--
        }
        start(x);
        atomic {
          if
          :: inside -> co_t[co_n] = x; co_n++
          :: else -> n++
          fi;
          x = 0
        }
     :: (inside && co_n > 0) || (!inside && n > 0) -> stop_latest(); x = 0
     :: atomic {
          !inside && !co_busy && !co_dead && resumes > 0 ->
          co_busy = 1;
          resumes--
        }
        resume()
     :: atomic {
          CLOSES && !inside && !co_busy && !co_dead && co_n > 0 -> co_busy = 1
        }
        close()
     :: inside -> yield()
     :: depth > 0 ->
        endless[me] = 1;
        hooked[me] || (!SIGNALS && t[s[my].top].fired); /* or for ever */
        endless[me] = 0
     :: !inside && (EXITS || n == 0) -> break
     fi
  od;
#ifndef STAY
  leave_slot();
#endif
  finished++
}

/* -------------------------------------------------------------- world -- */

#define grace_ends(x) t[x].raised && !t[x].grace_over -> t[x].grace_over = 1
#define is_reset(x) resets && t[x].live && t[x].rec == RUN -> \
  t[x].rec = RESET; resets = 0

active proctype world() {
  bit resets = RESETS;
end_quiet:
  do
  :: now < LATE -> now++
  :: atomic { grace_ends(0) }
  :: atomic { is_reset(0) }
#if TIMERS > 1
  :: atomic { grace_ends(1) }
  :: atomic { is_reset(1) }
#endif
#if TIMERS > 2
  :: atomic { grace_ends(2) }
  :: atomic { is_reset(2) }
#endif
  od
}

#if HASTE
#define may_lose(x) t[x].tied && !t[x].fired && t[x].dl == FOREVER && !work

/* One critical section of work, then the keeper is told. */
#define lose(x) \
  atomic { \
    may_lose(x) -> \
    assert(t[x].live); \
    t[x].dl = MIN; \
    if \
    :: t[x].slotted && !M(15) -> s[t[x].at].hastened = MIN \
    :: else \
    fi \
  } \
  if \
  :: MIN < wake -> ring(MIN) \
  :: else \
  fi

active proctype other() {
  bit nearer;
end_quiet:
  do
  :: lose(0)
#if TIMERS > 1
  :: lose(1)
#endif
  od
}
#endif

/* What is parked and left alone is fired. */
active proctype left_alone() {
  finished == OWNERS;
  co_dead || co_n < 1 || t[co_t[0]].fired;
  co_dead || co_n < 2 || t[co_t[1]].fired
}

init {
  byte i;
  atomic {
    do
    :: i < SLOTS ->
       s[i].due = FOREVER;
       s[i].top = NIL;
       s[i].seen_top = NIL;
       s[i].next = FOREVER;
       s[i].hastened = FOREVER;
       i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < OWNERS ->
       here[i] = NIL;
       run owner(i);
       run handler(i);
       i++
    :: else -> break
    od
  }
}

#ifdef LIVE
ltl live {
  [] ((endless[0] -> <> !endless[0]) && (endless[OWNERS - 1] -> <>
      !endless[OWNERS - 1]))
}
#endif
