/* SPDX-License-Identifier: MIT
** Runs whose deadline came while they were suspended.
**
** The keeper has ended the record and freed the key.  What is left is to tell
** onTimeout, once, and, where somebody runs the coroutine who can be told to,
** to have it resumed, so that the function ends.  The keeper puts such runs
** on a list of their Lua state and rings its bell.  Who turns the scheduler or
** the loop then comes to eb_call_late; elsewhere the next call into the
** library does.  What was resumed, closed or collected before that has told
** by itself: a run tells when it ends, unless it has told.
*/
#include "lua/run.h"

#include <assert.h>
#include <string.h>

/* In the registry, values weak: run -> its userdata, its frame -> the
** coroutine.  A run may be looked at only while both are there. */
static const char late_key;

/* ----------------------------------------------------------- the lists -- */

/* Under the keeper's lock; the run stays until its timers are stopped. */
static void call_for(eb_run *run) {
  eb_state *state = run->state;
  if (run->is_late)
    return; /* it has yielded again, in its grace or from a shield */
  run->is_late = true;
  run->late_link = NULL; /* on `fired` */
  eb_run *first = atomic_load(&state->fired);
  do
    run->late_next = first;
  while (!atomic_compare_exchange_weak(&state->fired, &first, run));
  if (run->bell != NULL)
    eg_bell_ring(run->bell, &state->late_call);
}

/* In the keeper's thread, or in that which parks it; the timer is parked. */
static void on_fired(eg_timer *timer) { call_for(eb_run_of_timer(timer)); }

static void on_again(eg_timer *timer) {
  call_for((eb_run *)((char *)timer - offsetof(eb_run, again)));
}

/* It is suspended, and has been interrupted: when its grace is over it is
** looked at anew, and as long as it yields all the same, every while. */
#define AGAIN_US 1000

static void ask_again(eb_run *run) {
  int64_t left = eb_grace_left_us(&run->frame), now = eg_now_us();
  if (left < AGAIN_US)
    left = AGAIN_US;
  memset(&run->again, 0, sizeof run->again);
  run->again.grant.deadline_us = left < EG_FOREVER - now ? now + left
                                                         : EG_FOREVER;
  run->again.tell = on_again;
  run->asks = true;
  eb_await(run->state, &run->frame);
  eg_timer_start(&run->again);
  eg_timer_park(&run->again);
}

void eb_stop_asking(eb_run *run) {
  if (run->asks)
    eg_timer_stop(&run->again);
  run->asks = false;
}

void eb_note_late(eb_run *run) {
  const eb_state *state = run->state;
  run->timer.tell = run->yields ? on_fired : NULL;
  run->bell = state->waits_yield ? state->bell : NULL;
}

static void link_late(eb_run *run, eb_run **list) {
  run->late_next = *list;
  run->late_link = list;
  if (run->late_next != NULL)
    run->late_next->late_link = &run->late_next;
  *list = run;
}

static void unlink_late(eb_run *run) {
  assert(run->late_link != NULL); /* it is linked */
  *run->late_link = run->late_next;
  if (run->late_next != NULL)
    run->late_next->late_link = run->late_link;
}

static void take_fired(eb_state *state, eb_run **list) {
  eb_run *run = atomic_exchange(&state->fired, NULL);
  while (run != NULL) {
    eb_run *next = run->late_next;
    link_late(run, list);
    run = next;
  }
}

void eb_forget_late(eb_run *run) {
  eb_stop_asking(run);
  if (!run->is_late)
    return;
  if (run->late_link == NULL)
    take_fired(run->state, &run->state->fresh);
  unlink_late(run);
  run->is_late = false;
}

/* ------------------------------------------------------------- telling -- */

/* 1 guard, 2 key, 3 run, 4 options */
static int tell(lua_State *L) {
  eb_run *run = lua_touserdata(L, 3);
  if (run->kept == EG_LOST)
    eb_notify_run(L, run, EB_ON_LOST);
  else
    eb_tell_timeout(L, run);
  return 0;
}

/* Whoever happens to call us may have a deadline of his own: it does not end
** the callback of another run. */
void eb_tell_ended(lua_State *L, int index, eb_run *run) {
  eb_frame shield;
  index = lua_absindex(L, index);
  if (!lua_checkstack(L, 6) || run->guard->core == NULL)
    return;
  eb_enter(L, &shield, EB_SHIELD);
  lua_pushcfunction(L, tell);
  lua_getiuservalue(L, index, EB_RUN_GUARD);
  lua_getiuservalue(L, index, EB_RUN_KEY);
  lua_pushvalue(L, index);
  lua_getiuservalue(L, index, EB_RUN_OPTIONS);
  if (lua_pcall(L, 4, 0, 0) != LUA_OK)
    lua_pop(L, 1);
  eb_leave(L, &shield);
  eb_look();
}

/* Where it may be, it is: that only lets somebody wait who could be told that
** it is in vain. */
static bool is_same(const eb_run *run, const eb_guard *guard, eg_bytes key) {
  return guard->core != NULL &&
         eg_may_share_keys(run->guard->core, guard->core) &&
         run->key.len == key.len &&
         memcmp(run->key.data, key.data, key.len) == 0;
}

/* What a store that may block has not yet been told is looked for soon. */
static int64_t frees_at(const eb_run *run) {
  if (eg_timer_fired(&run->timer) == 0)
    return run->grant.deadline_us;
  return eb_run_holds(run) ? eg_now_us() + 1000 : EG_FOREVER;
}

int64_t eb_run_frees(const eb_state *state, const eb_guard *guard,
                     eg_bytes key, int64_t by_us) {
  int64_t first = EG_FOREVER;
  if (state->parked == 0)
    return first;
  for (const eb_run *run = state->runs; run != NULL; run = run->next) {
    if (!run->frame.parked || !run->settings->timed ||
        run->guard->core == NULL || !is_same(run, guard, key))
      continue;
    int64_t at = frees_at(run);
    if (at <= by_us && at < first)
      first = at;
  }
  return first;
}

/* ------------------------------------------------------------ resuming -- */

/* What came of one of them: it is dealt with; somebody else will do that; it
** is to be looked at anew. */
typedef enum dealt { DONE, LEFT, AGAIN } dealt;

/* Nothing keeps it from being ended where it is suspended now? */
static bool may_end(lua_State *L, const eb_run *run) {
  const eb_frame *f = eb_parked_top(L, run->L);
  while (f != NULL && f->kind != EB_SHIELD && f != &run->frame)
    f = f->outer;
  return f == &run->frame && f->interrupts;
}

/* Was it yielded from within a function of our own? */
static bool is_in_own(const eb_run *run) {
  lua_Debug ar;
  return lua_checkstack(run->L, 3) && lua_getstack(run->L, 1, &ar) &&
         eb_is_own_function(run->L, &ar);
}

/* The coroutine at index, which somebody of ours runs, is resumed by him, and
** ends.  ask: is there such a one? */
static bool expire(lua_State *L, int index, const eb_run *run, bool ask) {
  if (lua_getfield(L, LUA_REGISTRYINDEX, EB_EXPIRE_FIELD) != LUA_TFUNCTION) {
    lua_pop(L, 1);
    return false;
  }
  lua_pushvalue(L, index);
  lua_pushboolean(L, run->frame.by_own || is_in_own(run));
  lua_pushboolean(L, ask);
  bool done = lua_pcall(L, 3, 1, 0) == LUA_OK && lua_toboolean(L, -1);
  lua_pop(L, 1);
  return done;
}

/* One that was interrupted already is given the time that it has for <close>.
*/
static dealt deal_with(lua_State *L, int userdata, int thread, eb_run *run,
                       bool may_resume) {
  if (may_end(L, run) && expire(L, thread, run, true)) {
    if (eb_grace_left_us(&run->frame) > 0)
      return AGAIN;
    if (!may_resume)
      return LEFT;
    if (expire(L, thread, run, false))
      return AGAIN; /* if it is still there */
  }
  if (!run->told)
    eb_tell_ended(L, userdata, run);
  return DONE;
}

static dealt end_late(lua_State *L, eb_run *run, bool may_resume) {
  int top = lua_gettop(L);
  dealt what = DONE;
  eb_stop_asking(run);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &late_key);
  if (lua_rawgetp(L, top + 1, run) == LUA_TUSERDATA &&
      lua_rawgetp(L, top + 1, &run->frame) == LUA_TTHREAD && run->open &&
      run->frame.parked && eg_timer_timed_out(&run->timer)) {
    eb_stop_awaiting(run->state, &run->frame);
    what = deal_with(L, top + 2, top + 3, run, may_resume);
  }
  lua_settop(L, top);
  return what;
}

/* A list that is worked off; who forgets one of its runs meanwhile takes it
** off himself.  What somebody else will deal with goes on the state's. */
static void work_off(lua_State *L, eb_state *state, eb_run **list,
                     bool may_resume) {
  eb_run *at_hand = NULL;
  while (*list != NULL) {
    eb_run *run = *list;
    unlink_late(run);
    link_late(run, &at_hand);
    dealt what = end_late(L, run, may_resume);
    if (at_hand == NULL)
      continue; /* it has ended, and may be something else by now */
    unlink_late(run);
    run->is_late = what == LEFT;
    if (what == LEFT)
      link_late(run, &state->late);
    else if (what == AGAIN && run->frame.parked)
      ask_again(run);
  }
}

void eb_call_late(lua_State *L, eb_state *state, bool may_resume) {
  eb_run *list = NULL;
  if (state->telling || !lua_checkstack(L, 12))
    return; /* a callback of one of them calls us */
  state->telling = true;
  if (may_resume && state->late != NULL) {
    list = state->late;
    list->late_link = &list;
    state->late = NULL;
  }
  work_off(L, state, &list, may_resume);
  for (;;) {
    take_fired(state, &state->fresh);
    if (state->fresh == NULL)
      break;
    work_off(L, state, &state->fresh, may_resume);
  }
  state->telling = false;
}

/* late(resume): of those who are; resume: the coroutines that we run end */
int eb_late(lua_State *L) {
  eb_call_late(L, eb_get_state(L), lua_toboolean(L, 1));
  return 0;
}

/* ----------------------------------------------------------- the start -- */

/* 1 userdata of a run, 2 light userdata: its coroutine */
static int watch(lua_State *L) {
  eb_run *run = lua_touserdata(L, 1);
  lua_State *co = lua_touserdata(L, 2), *host = eb_host_of(co);
  host = host != NULL ? host : co;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &late_key) == LUA_TNIL) {
    eb_push_weak_table(L, "v");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &late_key);
  }
  lua_pushvalue(L, 1);
  lua_rawsetp(L, -2, run);
  luaL_checkstack(host, 1, "ExecutionGuard");
  lua_pushthread(host);
  lua_xmove(host, L, 1);
  lua_rawsetp(L, -2, &run->frame);
  eb_reserve_parking(L, co);
  return 0;
}

bool eb_watch_late(lua_State *L) {
  lua_pushcfunction(L, watch);
  lua_pushvalue(L, EB_AT_RUN);
  lua_pushlightuserdata(L, L);
  return lua_pcall(L, 2, 0, 0) == LUA_OK;
}
