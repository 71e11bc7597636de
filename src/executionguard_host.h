/* SPDX-License-Identifier: MIT
** executionguard_host.h - for those who host the work of others: schedulers,
** event loops and interpreters.
**
** Waiting for keys without blocking a thread, and deadlines that the library
** keeps and tells threads of.  The Lua binding is made of these.  Everything
** that executionguard.h says of guards, grants, times and errors holds here.
*/
#ifndef EXECUTIONGUARD_HOST_H
#define EXECUTIONGUARD_HOST_H

#include "executionguard.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------- waiting without blocking -- */

/*
** A bell is what a thread sleeps on that waits for several things at once: for
** keys, for descriptors, for other threads.  It belongs to one thread at a
** time; everybody may ring it.  A call is one thing it may be rung for: put
** it into a struct of yours, zeroed.
*/
typedef struct eg_bell eg_bell;

typedef struct eg_call {
  void *tag; /* yours */
  /* the library's own */
  struct eg_call *next;
  unsigned stirred;
  bool rung;
} eg_call;

/* eg_bell_open: env NULL: the process's allocator, the clock in force.  The
** bell needs no descriptor until one is asked for.  Errors: NOMEM.
** eg_bell_close: nothing may refer to it any more; NULL is ignored. */
EG_API eg_status eg_bell_open(const eg_env *env, eg_bell **bell,
                              eg_error *error);
EG_API void eg_bell_close(eg_bell *bell);

/* eg_bell_ring: wakes who sleeps on the bell, now or next time.  call: what
** for; it stays the caller's, and must live until eg_bell_next returned it or
** eg_bell_forget; rung twice before that it comes once.  NULL: for nothing in
** particular.  In any thread, with any lock held; never blocks, never fails.
** Not in a signal handler. */
EG_API void eg_bell_ring(eg_bell *bell, eg_call *call);

/* eg_bell_next: takes the call that rang first; NULL: there is none, and the
** bell is silent.  eg_bell_forget: the call is not to come any more. */
EG_API eg_call *eg_bell_next(eg_bell *bell);
EG_API void eg_bell_forget(eg_bell *bell, eg_call *call);

/* eg_bell_wait: blocks until the bell is rung, or that steady time has come
** (EG_FOREVER: never).  True: it was rung; take the calls with eg_bell_next
** until there are none, or it is rung still. */
EG_API bool eg_bell_wait(eg_bell *bell, int64_t deadline_us);

/* eg_bell_fd: a descriptor that is readable while the bell is rung, for loops
** that poll; it is the bell's.  -1 and UNAVAILABLE: the system has none left.
** eg_bell_alarm: that descriptor is readable at that time of CLOCK_MONOTONIC
** too (EG_FOREVER: no more), for loops that have no timers.
** eg_bell_watch: the call rings once when fd is readable; to be asked for
** again then.  eg_bell_unwatch: no more; before fd is closed. */
EG_API int eg_bell_fd(eg_bell *bell, eg_error *error);
EG_API eg_status eg_bell_alarm(eg_bell *bell, int64_t at_us, eg_error *error);
EG_API eg_status eg_bell_watch(eg_bell *bell, int fd, eg_call *call,
                               eg_error *error);
EG_API void eg_bell_unwatch(eg_bell *bell, int fd);

/*
** eg_acquire in two steps, for hosts that are mostly asked for what is done.
** eg_settled: CACHED or COMPLETED, with *reply as eg_acquire fills it, where a
** look at the record tells so: no lock is taken, no clock read.  Else OK: go
** on with eg_ask.  eg_ask: as eg_acquire_begin, of what is not settled; bell
** NULL: it waits in this thread, as eg_acquire does.
*/
typedef struct eg_request {
  eg_guard *guard;
  eg_bytes key;
  eg_want want;
  const eg_policy *policy; /* NULL: the default */
  int64_t wait_ms;
  /* the library's own */
  bool starts; /* work will most likely start */
  bool apart;  /* one question of a call that asks several times: eg_ask counts
                  neither its answer nor its wait, eg_count_asked the call's */
} eg_request;

typedef struct eg_pending eg_pending;
EG_API eg_status eg_settled(eg_request *request, eg_reply *reply);
EG_API eg_status eg_ask(const eg_request *request, eg_bell *bell,
                        eg_pending **pending, eg_grant *grant,
                        eg_reply *reply);
/* waited_us: in all of its questions; 0: not at all. */
EG_API void eg_count_asked(const eg_request *request, eg_status answer,
                           int64_t waited_us);

/*
** eg_acquire_begin: asks as eg_acquire does, and never blocks longer than the
** store does.  *pending NULL: the answer is final, as that of eg_acquire.
** Else it is the refusal that there is to wait for, and the wait has begun:
** call eg_pending_over whenever its call rang, and no later than
** eg_pending_due_us.  The own state's holding the key is no DEADLOCK here
** (whoever waits so can do other things meanwhile); eg_pending_for_self tells.
** policy is copied; its owner must live as long as the wait.  bell must
** outlive it.  eg_close of the guard ends it as CANCELED.
*/
EG_API eg_status eg_acquire_begin(eg_guard *guard, eg_bytes key, eg_want want,
                                  const eg_policy *policy, int64_t wait_ms,
                                  eg_bell *bell, eg_pending **pending,
                                  eg_grant *grant, eg_reply *reply);

/* eg_pending_over: true: the wait is over, *status, *grant and *reply are as
** eg_acquire would have left them, and pending is freed.  False: not yet, and
** *status is the refusal. */
EG_API bool eg_pending_over(eg_pending *pending, eg_status *status,
                            eg_grant *grant, eg_reply *reply);

/* eg_pending_cancel: gives up; what was granted at that very moment is given
** back, and the next in line served, before it returns.  Frees it; NULL is
** ignored. */
EG_API void eg_pending_cancel(eg_pending *pending);

/* eg_pending_call: what the bell rings for it.  eg_pending_due_us: the steady
** time at which to look again at the latest (EG_FOREVER: when it rings).
** eg_pending_for_self: is the key held by the state that waits for it? */
EG_API eg_call *eg_pending_call(eg_pending *pending);
EG_API int64_t eg_pending_due_us(eg_pending *pending);
EG_API bool eg_pending_for_self(eg_pending *pending);

/* --------------------------------------------------- kept deadlines -- */

/*
** A run whose deadline the library keeps.  Fill the first fields, then
** eg_timer_start.  When the deadline has come, the keeper (a thread of the
** library, started on first need, all signals blocked) stores the run as
** TIMEOUT under its token: the key is free then, not when the work returns.
** Where the store may block a thread of the guard stores that, and delays
** nobody.  What the fields point to must live until eg_timer_stop.  Without a
** guard nothing is stored: only the thread is signalled.
**
** A timer also fires when its grant is lost: it was revoked, its lease could
** not be renewed and runs short, or it was held as long as its policy allows.
**
** Timers of a thread are a stack: stopped in the reverse order of their start.
** A timer that is parked belongs to no thread, and may be taken up by any.
** Only guards that use the clock in force are kept; for others, and where
** there is no memory or no thread to be had, the deadline is seen on return.
*/
typedef struct eg_timer {
  eg_guard *guard;
  eg_bytes key;
  eg_grant grant;          /* its deadline is what is kept */
  const eg_policy *policy; /* as for eg_commit */
  int64_t grace_us;        /* signalled again that long after the deadline */
  bool signals;            /* at its deadline: the thread that it runs on */
  bool signals_loss;       /* the same, when its grant is lost */
  /* Or NULL.  Called when the deadline has passed of a timer that is parked,
  ** by the keeper or eg_timer_park; may ring bells, and call nothing else. */
  void (*tell)(struct eg_timer *timer);
  /* Or NULL.  Called when the thread that it runs on ends without stopping it,
  ** by that thread; the timer is stopped then.  May call nothing. */
  void (*leave)(struct eg_timer *timer);
  /* the library's own */
  int place, stage;
  bool lost, losing, voided; /* read together: tied stands apart */
  eg_status status;
  int64_t fired_us, cut_us;
  bool tied;
  void *slot, *hold;
  struct eg_timer *outer, *child, *next, *back;
} eg_timer;

/* eg_timer_start: keeps it for the calling thread.  eg_timer_stop: no more,
** wherever it is; returns OK when the run is still to be committed, TIMEOUT
** when that is stored, LOST when the grant is gone.  After it, grant and timer
** are the caller's alone.  eg_timer_void: the guard is about to be closed: at
** the deadline nothing is stored, and the timer is LOST.  eg_timer_kept: was
** it started, and is it kept?  None of them fails.  They may block as
** eg_commit does, for this timer's own outcome alone. */
EG_API void eg_timer_start(eg_timer *timer);
EG_API eg_status eg_timer_stop(eg_timer *timer);
EG_API void eg_timer_void(eg_timer *timer);
EG_API bool eg_timer_kept(const eg_timer *timer);

/* eg_timer_hasten: its deadline is that steady time, if that is earlier (0: at
** once); it fires then, and says that it timed out.  In any thread, while the
** timer is known to be started and not to be stopped: whoever may do both has
** a lock of his own around them.  With a guard, only of a timer that has a
** deadline. */
EG_API void eg_timer_hasten(eg_timer *timer, int64_t deadline_us);

/* eg_timer_park: the calling thread's latest timer leaves it: its work is
** suspended.  eg_timer_unpark: it goes on in the calling thread. */
EG_API void eg_timer_park(eg_timer *timer);
EG_API void eg_timer_unpark(eg_timer *timer);

/* eg_timer_fired: when the keeper saw the deadline pass, or the grant lost, by
** the machine's clock (CLOCK_MONOTONIC, whatever clock is in force); 0: not
** yet.  eg_timer_lost: has it fired because the grant is lost?
** eg_timer_timed_out: is its run stored as timed out, or about to be?  All are
** safe in a signal handler.  eg_can_lose: does the guard hold anything that
** may be lost?  Where it does not, signals_loss need not be asked for. */
EG_API int64_t eg_timer_fired(const eg_timer *timer);
EG_API bool eg_timer_lost(const eg_timer *timer);
EG_API bool eg_timer_timed_out(const eg_timer *timer);
EG_API bool eg_can_lose(const eg_guard *guard);

/* eg_may_share_keys: may a grant of one guard hold the same key of the other?
** False is certain; true is certain for those in memory, while of what is on
** a disk or a server this process does not know. */
EG_API bool eg_may_share_keys(const eg_guard *a, const eg_guard *b);

/* eg_timer_signal: the signal for threads whose timers ask for one, 0: none
** (at the start).  It is sent when a timer fires, and again after 1, 2, 4 ...
** 32 ms and at the end of its grace, until that timer is stopped.  It carries
** nothing; the handler is the caller's to install.  When it returns the one
** before is not sent any more, though it may be on its way to a thread. */
EG_API void eg_timer_signal(int number);

/* eg_wait_signal: the signal that ends a wait in the kernel for a lock in
** files, 0: SIGRTMIN + 5, as it is where nobody says.  The library installs a
** handler for it with the first such wait, or here; what others send goes to
** the handler that was there.  Waits that go on keep theirs.  OK; INVALID: no
** signal, or one that cannot be handled, and nothing was changed. */
EG_API eg_status eg_wait_signal(int number);

/* eg_thread_anchor: a pointer of the calling thread that is the caller's to
** use, NULL in a new thread; NULL instead of its address: no memory.
** eg_thread_anchored: its value, without making it.  eg_thread_heard: a
** signal of the keeper has come.  The latter two are safe in a signal handler.
** eg_thread_deaf: were several signals sent, and none came; or did the thread
** block that signal when this was first asked? */
EG_API void **eg_thread_anchor(void);
EG_API void *eg_thread_anchored(void);
EG_API void eg_thread_heard(void);
EG_API bool eg_thread_deaf(void);

/* ------------------------------------------------ the end of a grant -- */

/*
** eg_commit_later: eg_commit said UNCOMMITTED or NOMEM, and nobody is there
** any more to commit again: a thread of the library does, as soon as the store
** is there, until the grant ends; its lease is not renewed any more.  What is
** pointed to is copied.  OK; LOST: the grant has ended; NOMEM; UNSUPPORTED:
** stores in memory are never away.  eg_close tries a last time.
*/
EG_API eg_status eg_commit_later(eg_guard *guard, eg_bytes key,
                                 const eg_grant *grant,
                                 const eg_outcome *outcome,
                                 const eg_policy *policy, eg_error *error);

/*
** eg_leave_at: when this signal comes, and would end the process (its handler
** is the default one now), what the process holds on servers is given back
** first.  The thread that is hit does nothing meanwhile, 1.5 s at most.  True:
** so it will be, in children of a fork too; false: somebody handles that
** signal, or ignores it, or the guard's store needs no such thing, or the
** process would not end by it (SIGCHLD and its like; any for the first process
** of a container).  A handler that is set later has the signal to itself: ours
** does nothing where it is called by that one.  (At exit() it is always done,
** by whoever has opened a guard on a server.)
*/
EG_API bool eg_leave_at(const eg_guard *guard, int signal_number);

/* ------------------------------------------------- stopping (SIGTSTP) -- */

/*
** Who is stopped in the midst of a step of a store in files keeps all other
** processes from theirs: they give up after 20 s, and are told who it is.
** SIGSTOP cannot be helped; SIGTSTP can be handled.
**
** eg_count_steps: before the first store is opened: from now on it is known
** when this process is in the midst of a step.  Some 10 ns a step.
** eg_between_steps: calls `call`, which stops the process: at once, on this
** thread; or, while some thread is in the midst of a step, at its end, on that
** thread (of the library's own threads all signals are blocked).  Until it
** returns no step begins.  A second one meanwhile is the same one.  May be
** called in a signal handler, and `call` has to be fit for one.
*/
EG_API void eg_count_steps(void);
EG_API void eg_between_steps(void (*call)(int), int value);

#ifdef __cplusplus
}
#endif
#endif
