/* SPDX-License-Identifier: MIT
** Interrupting guarded functions: what the files of the binding share of it.
**
** THE CHAIN.  Each thread has a list of frames, the latest first: one for
** every guarded function, shield and resumed coroutine that is running on it.
** Frames are linked and unlinked by their own thread alone, each with one
** store of the thread's anchor, and read by it and by its signal handler;
** nobody else ever looks.  A frame is complete before it is linked, and is
** unlinked before control can leave the thread: so the handler may walk the
** list at any moment.  A signal carries nothing.  It means "look at your
** chain": whether something is to be interrupted is decided from the frames
** and whether their timers have fired, in the handler and again in the hook,
** so one that comes late, or to the wrong thread, does nothing.
**
** THE HOOK is set, with count 1, on every coroutine from the top of the chain
** down to the outermost guard that is to be ended, and it raises the sentinel.
** It raises it once, and then lets the code run for the grace time, so that
** <close> variables can be closed; what still runs after that gets it at every
** instruction, as often as it is caught, until the guard's function is gone.
** The user's own hook is kept in the first frame of its coroutine meanwhile.
**
** THE SENTINEL is a userdata that only we can raise.  It means something while
** somebody is to be interrupted; where it comes out of a coroutine later, it
** is turned into its text.
*/
#ifndef EG_LUA_INTERRUPT_H
#define EG_LUA_INTERRUPT_H

#include "lua/binding.h"

typedef enum eb_kind { EB_RESUME, EB_RUN, EB_SHIELD } eb_kind;

typedef struct eb_frame {
  lua_State *L;
  lua_State *host; /* RESUME: of a private coroutine, or NULL */
  struct eb_frame *outer;
  eb_kind kind;
  bool linked, parked;
  bool interrupts;   /* RUN: at its deadline */
  bool on_loss;      /* RUN: when its grant is lost */
  bool by_own;       /* parked: it was run by a function of our own */
  bool awaited;      /* parked, and counted in the state's deadlines */
  bool defers;       /* the hook is being changed: handler, keep off */
  eg_timer *timer;   /* RUN */
  int64_t raised_us; /* RUN: first; by the machine's clock */
  int64_t grace_us;  /* RUN */
  lua_Hook hook;     /* the user's, while ours is set */
  int mask, count;
} eb_frame;

/* Links a frame; not linked where there is no memory. */
void eb_enter(lua_State *L, eb_frame *frame, eb_kind kind);

/* Unlinks the latest frame, and puts the user's hook back where ours has
** nothing to do any more.  Of one that is parked: it is no more. */
void eb_leave(lua_State *L, eb_frame *frame);

/* Is L run by something that will tell us when it yields? */
bool eb_is_known(lua_State *L);

/* co may yield out of frames: makes room to remember them.  Raises. */
void eb_reserve_parking(lua_State *L, lua_State *co);

/* The latest frame that co has yielded out of; NULL: none. */
eb_frame *eb_parked_top(lua_State *L, lua_State *co);

/* A coroutine is about to be resumed or closed, by `resume`, which is linked:
** its frames follow.  It has come back: they are taken off, and remembered
** where it is suspended (also if it could not be resumed at all). */
void eb_unpark(lua_State *L, lua_State *co, eb_frame *resume);
void eb_park(lua_State *L, lua_State *co, eb_frame *resume);

/* A limit of a coroutine: its first frame, put there from outside.  The timer
** has no guard; its `signals` is set as eb_signals_here says.  Room for what
** is parked was reserved (eb_reserve_parking).  False: nobody would tell us
** when it yields.  eb_detach: the limit is off; may be left undone where the
** coroutine has ended. */
bool eb_attach(lua_State *L, lua_State *co, eb_frame *frame, eg_timer *timer,
               bool suspended);
void eb_detach(lua_State *L, eb_frame *frame);

/* Does a guard further out want everything above it gone? */
bool eb_is_unwinding(void);

/* The same: and not only because it has been given time for <close>? */
bool eb_must_end(void);

/* How long has this one, which was interrupted, still for <close>? */
int64_t eb_grace_left_us(const eb_frame *frame);

/* And has that been raised already? */
bool eb_was_raised(void);

/* A coroutine is about to be closed: where a guard is to be ended, that is its
** interruption, and what follows has the grace. */
void eb_begin_close(void);

/* Looks at the chain as if a signal had come. */
void eb_look(void);

/* The error that is raised; is it that at index? */
void eb_push_sentinel(lua_State *L);
bool eb_is_sentinel(lua_State *L, int index);

/* On top, and nobody is to be interrupted: only its text goes on. */
void eb_convert_sentinel(lua_State *L);

/* Raises it where somebody is to be interrupted: for code in C, and for that
** of our own in Lua.  caught: it was raised already. */
void eb_checkpoint(lua_State *L, bool caught);

/* Is there a function in L whose deadline ends it? */
bool eb_is_guarded(const lua_State *L);

/* Has what runs here a deadline within that time, which ends it? */
bool eb_ends_within(int64_t ms);

/* The deadline of a parked frame is waited for; is not any more. */
void eb_await(eb_state *state, eb_frame *frame);
void eb_stop_awaiting(eb_state *state, eb_frame *frame);

/* Sleeps; returns early where somebody is to be interrupted. */
void eb_sleep(int64_t us);

/* The same, until the bell is rung. */
void eb_sleep_on(eg_bell *bell, int64_t us);

/* Pushes a table with weak keys ("k") or values ("v"). */
void eb_push_weak_table(lua_State *L, const char *mode);

/* Is this hook one of ours?  The frame that keeps the user's. */
bool eb_is_our_hook(lua_Hook hook);
eb_frame *eb_hook_frame(lua_State *L);

/* ---- engine.c: signals, or counting where they cannot be had ---- */

/* May signals be used in this thread?  Says so in the guard's log (NULL: there
** is none) where they cannot be used any more. */
bool eb_signals_here(lua_State *L, const eb_guard *guard);

/* Starts the timer of a run and links its frame; frame->interrupts and on_loss
** are what is wanted, and become what can be had; timer->signals and
** signals_loss were set as eb_signals_here says. */
void eb_arm(lua_State *L, eb_frame *frame, eg_timer *timer);

int eb_configure_engine(lua_State *L);
int eb_configure_wait(lua_State *L);

/* Does the engine interrupt at all? */
bool eb_interrupts(void);

/* ---- private.c: coroutines that only we resume ---- */

/* Makes one that will call body (with the module's upvalues) with what is on
** the stack, and puts what closes it at index 1, below that.  NULL: no memory;
** an error object is on top.  Raises nothing. */
lua_State *eb_make_private(lua_State *L, lua_CFunction body);

/* What eb_resume has returned of it goes on: results are returned, yields
** yielded, errors raised. */
int eb_pass_on(lua_State *L, lua_State *co, int n);

/* Both, for what is on the stack.  Raises. */
int eb_go_private(lua_State *L, lua_CFunction body);
void eb_open_private(lua_State *L);

/* The coroutine that a private one stands for; NULL: L is none. */
lua_State *eb_host_of(lua_State *L);

/* ---- wrap.c ---- */

/* Resumes with n arguments from the top of L; host: see eb_frame.  Returns the
** number of results on top of L, -1: an error object is there. */
int eb_resume(lua_State *L, lua_State *co, int n, lua_State *host);

/* Closes it.  Returns Lua's status; other than LUA_OK: an error object is on
** top of co. */
int eb_reset(lua_State *L, lua_State *co);

/* ---- run_callbacks.c ---- */

/* Somebody who may have ended runs further in has ended himself: their
** callbacks are called, unless he too is being ended.  Raises where a guard
** further out is to be ended meanwhile. */
void eb_call_put_off(lua_State *L, eb_state *state);

/* ---- limit.c: time limits without a record ---- */

void eb_push_limits(lua_State *L); /* what our chunks need of it */

/* ---- own_functions.c: Lua functions that are never left half-way ---- */

/* Is the function that the hook was called in one of them? */
bool eb_is_own_function(lua_State *L, lua_Debug *ar);
void eb_push_own(lua_State *L); /* what our chunks need for it */

/* ---- job.c: what jobs need ---- */

/* A message handler that keeps the traceback; pushes that of the error at
** index, which was caught in this coroutine, or nil. */
int eb_catch(lua_State *L);
void eb_push_trace(lua_State *L, int index);
void eb_push_job(lua_State *L);

void eb_open_interrupt(lua_State *L);
void eb_open_wrap(lua_State *L);

#endif
