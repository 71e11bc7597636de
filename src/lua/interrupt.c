/* SPDX-License-Identifier: MIT
** The chain of frames, the hook, the sentinel: see interrupt.h.
*/
#include "lua/interrupt.h"

#include <stdatomic.h>
#include <string.h>

/* Set once in each Lua state; their addresses are keys in the registry. */
static const char sentinel_key, parked_key;

#define COUNT_STEP 1000 /* instructions between two looks, engine "count" */

static int64_t machine_now(void) {
  const eg_clock *clock = eg_system_clock();
  return clock->now_us(clock->ctx);
}

/* ------------------------------------------------------------ chain -- */

static eb_frame *top_frame(void) { return eg_thread_anchored(); }

static void set_top(eb_frame *frame) {
  void **anchor = eg_thread_anchor();
  atomic_signal_fence(memory_order_seq_cst);
  *(void *volatile *)anchor = frame;
  atomic_signal_fence(memory_order_seq_cst);
}

static bool is_due(const eb_frame *f) {
  if (f->kind != EB_RUN || eg_timer_fired(f->timer) == 0)
    return false;
  return f->interrupts || (f->on_loss && eg_timer_lost(f->timer));
}

/* The outermost guard that is to be ended, up to the latest shield. */
static eb_frame *outermost(eb_frame *top) {
  eb_frame *found = NULL;
  for (eb_frame *f = top; f != NULL && f->kind != EB_SHIELD; f = f->outer)
    if (is_due(f))
      found = f;
  return found;
}

static bool is_base(const eb_frame *f) {
  return f->outer == NULL || f->outer->L != f->L;
}

static eb_frame *base_of(eb_frame *f) {
  while (!is_base(f))
    f = f->outer;
  return f;
}

bool eb_is_unwinding(void) { return outermost(top_frame()) != NULL; }

bool eb_was_raised(void) {
  const eb_frame *guard = outermost(top_frame());
  return guard != NULL && guard->raised_us != 0;
}

/* The nearest deadline that interrupts what runs here. */
static int64_t nearest_deadline(void) {
  int64_t us = EG_FOREVER;
  for (const eb_frame *f = top_frame(); f != NULL; f = f->outer) {
    if (f->kind == EB_SHIELD)
      return us;
    if (f->kind == EB_RUN && f->interrupts && f->timer->grant.deadline_us < us)
      us = f->timer->grant.deadline_us;
  }
  return us;
}

bool eb_ends_within(int64_t ms) {
  int64_t due = nearest_deadline();
  /* Nearly always there is none, and no clock is read. */
  return due != EG_FOREVER && (due - eg_now_us()) / 1000 < ms;
}

bool eb_is_guarded(const lua_State *L) {
  for (const eb_frame *f = top_frame(); f != NULL && f->L == L; f = f->outer)
    if (f->interrupts)
      return true;
  return false;
}

bool eb_is_known(lua_State *L) {
  const eb_frame *top = top_frame();
  return !lua_isyieldable(L) || (top != NULL && top->L == L);
}

/* ------------------------------------------------------------- hooks -- */

static void raising_hook(lua_State *L, lua_Debug *ar);
static void counting_hook(lua_State *L, lua_Debug *ar);

bool eb_is_our_hook(lua_Hook hook) {
  return hook == raising_hook || hook == counting_hook;
}

eb_frame *eb_hook_frame(lua_State *L) {
  for (eb_frame *f = top_frame(); f != NULL; f = f->outer)
    if (f->L == L)
      return base_of(f);
  return NULL;
}

lua_State *eb_host_of(lua_State *L) {
  eb_frame *top = top_frame();
  return top != NULL && top->L == L ? base_of(top)->host : NULL;
}

/* Lets the handler keep off, or not; returns what was.  One that came while a
** hook is being read or set would take half of ours and half of the user's for
** the user's.  The keeper signals again. */
static bool defer(eb_frame *top, bool defers) {
  if (top == NULL)
    return false;
  bool before = top->defers;
  atomic_signal_fence(memory_order_seq_cst);
  *(volatile bool *)&top->defers = defers;
  atomic_signal_fence(memory_order_seq_cst);
  return before;
}

/* In the frames of its coroutine, f is the first. */
static void set_hook(eb_frame *f, lua_Hook hook, int count) {
  lua_Hook now = lua_gethook(f->L);
  if (!eb_is_our_hook(now)) {
    f->hook = now;
    f->mask = lua_gethookmask(f->L);
    f->count = lua_gethookcount(f->L);
  }
  lua_sethook(f->L, hook, LUA_MASKCOUNT, count);
}

/* Is there a guard that no signal ends? */
static bool is_counted(const eb_frame *f) {
  for (; f != NULL; f = f->outer)
    if ((f->interrupts && !f->timer->signals) ||
        (f->on_loss && !f->timer->signals_loss))
      return true;
  return false;
}

/* Code that no signal interrupts is counted, unless somebody has a hook of his
** own there.  f and what is further out decide; base is the first of L. */
static void calm(eb_frame *base, const eb_frame *f, lua_State *L) {
  eb_frame *top = top_frame();
  bool deferred = defer(top, true);
  lua_Hook now = lua_gethook(L);
  bool ours = eb_is_our_hook(now);
  lua_Hook users = ours ? base->hook : now;
  if (users == NULL && is_counted(f)) {
    base->hook = NULL;
    base->mask = base->count = 0;
    lua_sethook(L, counting_hook, LUA_MASKCOUNT, COUNT_STEP);
  } else if (ours) {
    lua_sethook(L, base->hook, base->mask, base->count);
  }
  defer(top, deferred);
}

/* On every coroutine from the top to the guard's.  That one may come twice,
** where C code calls back on it from a coroutine of its own. */
static void hook_all(eb_frame *top, eb_frame *guard) {
  eb_frame *last = base_of(guard), *f = base_of(top);
  for (; f != last; f = base_of(f->outer))
    set_hook(f, raising_hook, 1);
  set_hook(last, raising_hook, 1);
}

static void unhook_all(eb_frame *top, eb_frame *guard) {
  eb_frame *last = base_of(guard), *f = base_of(top);
  for (; f != last; f = base_of(f->outer))
    calm(f, top, f->L);
  calm(last, top, last->L);
}

/* An eighth less: the keeper's clock started a little before ours did. */
static bool in_grace(const eb_frame *f) {
  return f->raised_us != 0 &&
         machine_now() < f->raised_us + f->grace_us - f->grace_us / 8;
}

int64_t eb_grace_left_us(const eb_frame *frame) {
  int64_t end = frame->raised_us + frame->grace_us, now = machine_now();
  return in_grace(frame) && end > now ? end - now : 0;
}

bool eb_must_end(void) {
  const eb_frame *guard = outermost(top_frame());
  return guard != NULL && !in_grace(guard);
}

/* Where the deadline is over, and the keeper has not said so yet, or <close>
** variables have their time, it is a matter of some milliseconds. */
#define SHORT_SLEEP_US 1000

/* Where no signal comes, a deadline that was brought nearer (a job that is
** cancelled) is only seen by looking. */
#define LOOK_US 50000

static bool sleep_until(eg_bell *bell, int64_t now, int64_t until) {
  if (bell != NULL)
    return eg_bell_wait(bell, until);
  eg_sleep_us(until - now);
  return false;
}

void eb_sleep(int64_t us) { eb_sleep_on(NULL, us); }

void eb_sleep_on(eg_bell *bell, int64_t us) {
  int64_t now = eg_now_us();
  int64_t until = us < EG_FOREVER - now ? now + us : EG_FOREVER;
  for (; now < until; now = eg_now_us()) {
    if (eb_must_end())
      return;
    int64_t due = nearest_deadline();
    int64_t next = due > now ? due : now + SHORT_SLEEP_US;
    if (next > now + LOOK_US && is_counted(top_frame()))
      next = now + LOOK_US;
    if (sleep_until(bell, now, next < until ? next : until))
      return;
  }
}

void eb_look(void) {
  eb_frame *top = top_frame();
  if (top == NULL || top->defers)
    return;
  eb_frame *guard = outermost(top);
  if (guard == NULL || in_grace(guard))
    return;
  defer(top, true); /* this may be no handler, and one may come */
  hook_all(top, guard);
  defer(top, false);
}

void eb_begin_close(void) {
  eb_frame *top = top_frame(), *guard = outermost(top);
  if (guard == NULL || guard->raised_us != 0 || guard->grace_us <= 0)
    return;
  guard->raised_us = machine_now();
  unhook_all(top, guard);
}

static int raise_from(lua_State *L, eb_frame *top, eb_frame *guard) {
  if (guard->raised_us == 0) {
    guard->raised_us = machine_now();
    if (guard->grace_us > 0)
      unhook_all(top, guard);
  }
  eb_push_sentinel(L);
  return lua_error(L);
}

void eb_checkpoint(lua_State *L, bool caught) {
  eb_frame *top = top_frame(), *guard = outermost(top);
  if (guard != NULL && (caught || !in_grace(guard)))
    raise_from(L, top, guard);
}

static void raising_hook(lua_State *L, lua_Debug *ar) {
  eb_frame *top = top_frame(), *guard = outermost(top);
  if (guard == NULL || in_grace(guard)) {
    eb_frame *base = eb_hook_frame(L);
    if (base != NULL)
      calm(base, top, L);
    else
      lua_sethook(L, NULL, 0, 0);
    return;
  }
  if (!eb_is_own_function(L, ar))
    raise_from(L, top, guard);
}

static void counting_hook(lua_State *L, lua_Debug *ar) {
  (void)L;
  (void)ar;
  eb_look();
}

/* ------------------------------------------------- enter and leave -- */

static void link_frame(eb_frame *frame, eb_frame *outer) {
  frame->outer = outer;
  frame->linked = true;
  if (is_base(frame) && eb_is_our_hook(lua_gethook(frame->L))) {
    const eb_frame *keeps = eb_hook_frame(frame->L);
    if (keeps != NULL) { /* further out: its own comes again, see set_hook */
      frame->hook = keeps->hook;
      frame->mask = keeps->mask;
      frame->count = keeps->count;
    }
  }
  set_top(frame);
  if (is_counted(frame))
    calm(base_of(frame), frame, frame->L);
}

void eb_enter(lua_State *L, eb_frame *frame, eb_kind kind) {
  frame->L = L;
  frame->host = NULL;
  frame->kind = kind;
  frame->linked = frame->parked = frame->awaited = false;
  frame->defers = false;
  frame->raised_us = 0;
  frame->hook = NULL;
  frame->mask = frame->count = 0;
  if (kind != EB_RUN)
    frame->interrupts = frame->on_loss = false;
  void **anchor = eg_thread_anchor();
  if (anchor != NULL)
    link_frame(frame, *anchor);
}

static void set_parked(lua_State *L, lua_State *co, eb_frame *first);

static void unlink_frame(eb_frame *frame) {
  lua_State *L = frame->L;
  eb_frame *base = base_of(frame);
  set_top(frame->outer);
  frame->linked = false;
  if (base != frame) {
    if (outermost(frame->outer) == NULL)
      calm(base, frame->outer, L);
    return;
  }
  calm(base, NULL, L);
  if (frame->outer != NULL)
    eb_look(); /* L may come again further out */
}

void eb_leave(lua_State *L, eb_frame *frame) {
  if (frame->linked) {
    unlink_frame(frame);
  } else if (frame->parked) {
    frame->parked = false;
    eb_get_state(L)->parked--;
    eb_stop_awaiting(eb_get_state(L), frame);
    if (L == frame->L)
      set_parked(L, L, frame->outer);
  }
}

/* ---------------------------------------------------------- parking -- */

void eb_await(eb_state *state, eb_frame *frame) {
  state->deadlines += !frame->awaited;
  frame->awaited = true;
}

void eb_stop_awaiting(eb_state *state, eb_frame *frame) {
  state->deadlines -= frame->awaited;
  frame->awaited = false;
}

static void push_coroutine(lua_State *L, lua_State *co) {
  lua_pushthread(co);
  if (co != L)
    lua_xmove(co, L, 1);
}

/* In a table with weak keys, coroutine -> its latest frame; false: none. */
static void set_parked(lua_State *L, lua_State *co, eb_frame *first) {
  if (!lua_checkstack(L, 4) || !lua_checkstack(co, 1))
    return;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &parked_key);
  push_coroutine(L, co);
  if (first != NULL)
    lua_pushlightuserdata(L, first);
  else
    lua_pushboolean(L, 0);
  lua_rawset(L, -3); /* the key is there already: takes no memory */
  lua_pop(L, 1);
}

void eb_reserve_parking(lua_State *L, lua_State *co) {
  luaL_checkstack(L, 4, "ExecutionGuard");
  luaL_checkstack(co, 1, "ExecutionGuard");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &parked_key);
  push_coroutine(L, co);
  if (lua_rawget(L, -2) == LUA_TNIL) {
    push_coroutine(L, co);
    lua_pushboolean(L, 0);
    lua_rawset(L, -4);
  }
  lua_pop(L, 2);
}

eb_frame *eb_parked_top(lua_State *L, lua_State *co) {
  if (!lua_checkstack(L, 4) || !lua_checkstack(co, 1))
    return NULL;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &parked_key);
  push_coroutine(L, co);
  lua_rawget(L, -2);
  eb_frame *first = lua_touserdata(L, -1);
  lua_pop(L, 2);
  return first;
}

/* From the outermost to the latest: timers are a stack. */
static void relink(eb_state *state, eb_frame *frame, eb_frame *resume) {
  if (frame->outer != NULL)
    relink(state, frame->outer, resume);
  frame->parked = false;
  state->parked--;
  eb_stop_awaiting(state, frame);
  if (frame->kind == EB_RUN)
    eg_timer_unpark(frame->timer);
  link_frame(frame, top_frame());
}

void eb_unpark(lua_State *L, lua_State *co, eb_frame *resume) {
  eb_state *state = eb_get_state(L);
  if (state->parked == 0 || !resume->linked || lua_status(co) > LUA_YIELD)
    return;
  eb_frame *first = eb_parked_top(L, co);
  if (first == NULL)
    return;
  set_parked(L, co, NULL);
  relink(state, first, resume);
  eb_look();
}

/* Is the C function that was called so called by a Lua function of ours? */
static bool is_called_by_own(lua_State *L) {
  lua_Debug ar;
  return lua_checkstack(L, 3) && lua_getstack(L, 1, &ar) &&
         eb_is_own_function(L, &ar);
}

void eb_park(lua_State *L, lua_State *co, eb_frame *resume) {
  eb_state *state = eb_get_state(L);
  bool yielded = lua_status(co) == LUA_YIELD;
  if (!resume->linked)
    return;
  eb_frame *first = top_frame();
  if (first == resume)
    return;
  bool by_own = yielded && is_called_by_own(L);
  for (eb_frame *f = first; f != resume;) {
    eb_frame *outer = f->outer;
    unlink_frame(f);
    if (!yielded && f->kind == EB_RUN)
      eg_timer_stop(f->timer); /* a limit: it ends with its coroutine */
    if (yielded) {
      f->parked = true;
      f->by_own = by_own;
      f->awaited = f->interrupts && f->timer->tell != NULL &&
                   eg_timer_fired(f->timer) == 0;
      state->parked++;
      state->deadlines += f->awaited;
      if (f->kind == EB_RUN)
        eg_timer_park(f->timer);
      f->outer = outer != resume ? outer : NULL;
    }
    f = outer;
  }
  if (yielded)
    set_parked(L, co, first);
}

/* ------------------------------------------------------------ limits -- */

/* Between the frames of a coroutine that runs and its resume; what is counted
** needs no signal. */
static bool attach_running(eb_frame *frame) {
  eb_frame *top = top_frame(), *inner = NULL, *base = top;
  while (base != NULL && !(base->L == frame->L && is_base(base))) {
    inner = base;
    base = base->outer;
  }
  if (base == NULL || base->kind != EB_RESUME)
    return false;
  frame->outer = base;
  frame->linked = true;
  frame->timer->signals = false;
  eg_timer_start(frame->timer);
  eg_timer_park(frame->timer);
  atomic_signal_fence(memory_order_seq_cst);
  if (inner == NULL)
    set_top(frame);
  else
    *(eb_frame *volatile *)&inner->outer = frame;
  atomic_signal_fence(memory_order_seq_cst);
  for (eb_frame *f = base_of(top_frame());; f = base_of(f->outer)) {
    calm(f, top_frame(), f->L);
    if (f == base)
      return true;
  }
}

bool eb_attach(lua_State *L, lua_State *co, eb_frame *frame, eg_timer *timer,
               bool suspended) {
  memset(frame, 0, sizeof *frame);
  frame->L = co;
  frame->kind = EB_RUN;
  frame->timer = timer;
  frame->grace_us = timer->grace_us;
  frame->interrupts = eb_interrupts();
  timer->signals = timer->signals && frame->interrupts;
  if (!suspended)
    return attach_running(frame);
  eg_timer_start(timer);
  eg_timer_park(timer);
  frame->parked = true;
  eb_get_state(L)->parked++;
  eb_frame *first = eb_parked_top(L, co);
  if (first == NULL) {
    set_parked(L, co, frame);
    return true;
  }
  while (first->outer != NULL)
    first = first->outer;
  first->outer = frame;
  return true;
}

void eb_detach(lua_State *L, eb_frame *frame) {
  frame->interrupts = false;
  if (frame->parked) {
    eb_frame *first = eb_parked_top(L, frame->L);
    if (first == frame)
      set_parked(L, frame->L, frame->outer);
    while (first != NULL && first->outer != frame)
      first = first->outer;
    if (first != NULL)
      first->outer = frame->outer;
    frame->parked = false;
    eb_get_state(L)->parked--;
    eg_timer_stop(frame->timer);
  } else if (frame->linked && top_frame() == frame) {
    unlink_frame(frame);
    eg_timer_stop(frame->timer);
  } /* else its coroutine takes it along when it ends */
}

/* ---------------------------------------------------------- sentinel -- */

void eb_push_sentinel(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &sentinel_key);
}

bool eb_is_sentinel(lua_State *L, int index) {
  if (lua_type(L, index) != LUA_TUSERDATA)
    return false;
  index = lua_absindex(L, index);
  eb_push_sentinel(L);
  bool same = lua_rawequal(L, index, -1);
  lua_pop(L, 1);
  return same;
}

#define SENTINEL_TEXT "interrupted: the time of an ExecutionGuard run is over"

static int sentinel_text(lua_State *L) {
  lua_pushliteral(L, SENTINEL_TEXT);
  return 1;
}

void eb_convert_sentinel(lua_State *L) {
  if (eb_is_unwinding() || !eb_is_sentinel(L, -1))
    return;
  lua_pop(L, 1);
  lua_pushliteral(L, SENTINEL_TEXT);
}

/* A userdata, so that nobody can make one himself. */
static void make_sentinel(lua_State *L) {
  lua_newuserdatauv(L, 0, 0);
  lua_createtable(L, 0, 3);
  lua_pushcfunction(L, sentinel_text);
  lua_setfield(L, -2, "__tostring");
  lua_pushliteral(L, "ExecutionGuard interruption");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &sentinel_key);
}

void eb_push_weak_table(lua_State *L, const char *mode) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushstring(L, mode);
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
}

void eb_open_interrupt(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &sentinel_key) == LUA_TNIL) {
    make_sentinel(L);
    eb_push_weak_table(L, "k");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &parked_key);
  }
  lua_pop(L, 1);
}
