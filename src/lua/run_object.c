/* SPDX-License-Identifier: MIT
** The life of a run: the list of those that are open, the watch of their
** deadlines, and the userdata of those that can yield.
**
** A run lives on the C stack where it cannot yield, and in a userdata on the
** Lua stack where it can: then __close and __gc end it as "abandoned" when its
** coroutine is closed or collected.
*/
#include "lua/run.h"

static const char run_metatable[] = "ExecutionGuard run";

/* ------------------------------------------------------ list of runs -- */

void eb_link_run(lua_State *L, eb_run *run) {
  eb_state *state = eb_get_state(L);
  run->open = true;
  run->next = state->runs;
  run->link = &state->runs;
  if (run->next != NULL)
    run->next->link = &run->next;
  state->runs = run;
}

static void unlink_run(eb_run *run) {
  run->open = false;
  *run->link = run->next;
  if (run->next != NULL)
    run->next->link = run->link;
}

/* ---------------------------------------------------------- deadline -- */

/* Its thread has ended in the middle of it, as by pthread_exit.  What the
** thread had is gone soon; the grant stays, until the guard is closed. */
static void on_left(eg_timer *timer) {
  eb_run *run = eb_run_of_timer(timer);
  unlink_run(run);
  run->armed = run->frame.linked = false;
}

/* From now on the deadline is watched: the record ends at it, and fn too where
** the caller gave one himself. */
void eb_arm_run(lua_State *L, eb_run *run) {
  const eb_settings *settings = run->settings;
  eg_timer *timer = &run->timer;
  eb_frame *frame = &run->frame;
  frame->interrupts = settings->timed && settings->interrupt &&
                      run->grant.deadline_us != EG_FOREVER;
  frame->on_loss = settings->interrupt && run->guard->core != NULL &&
                   eg_can_lose(run->guard->core);
  timer->signals = timer->signals_loss = (frame->interrupts ||
                                          frame->on_loss) &&
                                         eb_signals_here(L, run->guard);
  if (run->guard->core == NULL)
    return; /* closed by a logger */
  timer->guard = run->guard->core;
  timer->key = run->key;
  timer->grant = run->grant;
  timer->policy = &settings->policy;
  timer->grace_us = eb_us(settings->close_grace);
  run->kept = EG_OK;
  run->armed = true;
  timer->leave = on_left;
  eb_note_late(run);
  eb_arm(L, frame, timer);
}

void eb_disarm_run(lua_State *L, eb_run *run) {
  if (!run->armed)
    return;
  run->armed = false;
  run->kept = eg_timer_stop(&run->timer);
  eb_forget_late(run);
  eb_leave(L, &run->frame);
}

void eb_void_runs(const eb_guard *guard) {
  for (eb_run *run = guard->state->runs; run != NULL; run = run->next)
    if (run->guard == guard && run->armed)
      eg_timer_void(&run->timer);
}

eg_status eb_commit_run(eb_run *run, const eg_outcome *outcome,
                        eg_error *error) {
  eg_guard *core = run->guard->core;
  const eg_policy *policy = &run->settings->policy;
  if (run->open)
    unlink_run(run);
  if (core == NULL)
    return EG_LOST; /* the guard was closed meanwhile */
  if (run->kept != EG_OK)
    return run->kept;
  eg_status status = eg_commit(core, run->key, &run->grant, outcome, policy,
                               error);
  if (status == EG_NOMEM && outcome->status == EG_FAILED) {
    const eg_outcome bare = {.status = EG_FAILED};
    status = eg_commit(core, run->key, &run->grant, &bare, policy, error);
  }
  if (status == EG_UNCOMMITTED)
    eg_commit_later(core, run->key, &run->grant, outcome, policy, NULL);
  return status;
}

/* ---------------------------------------------------------- userdata -- */

/* Is its coroutine being closed?  Then nothing is below __close there. */
static bool is_closing(lua_State *L, const eb_run *run) {
  lua_Debug ar;
  return run->L == L && eg_thread_anchored() == &run->frame &&
         !lua_getstack(L, 1, &ar);
}

/* A run whose coroutine is gone ends as abandoned; one that has ended does
** nothing more. */
static eb_run *abandon(lua_State *L) {
  eb_run *run = luaL_testudata(L, 1, run_metatable);
  const eg_outcome outcome = {.status = EG_FAILED,
                              .error = eg_str("abandoned")};
  eg_error error;
  if (run != NULL)
    eb_stop_asking(run);
  if (run == NULL || !run->open)
    return run;
  bool runs = run->frame.linked && !is_closing(L, run);
  if (runs) /* somebody plays with its metatable */
    eg_timer_void(&run->timer);
  else
    eb_disarm_run(L, run);
  eb_forget_late(run);
  run->kept = eb_commit_run(run, &outcome, &error);
  if (run->kept == EG_TIMEOUT || run->kept == EG_LOST)
    eb_tell_ended(L, 1, run);
  return run;
}

static int run_gc(lua_State *L) {
  abandon(L);
  return 0;
}

/* The userdata may serve the guard's next run from here on, not earlier: until
** now its __close was still to come. */
static int run_close(lua_State *L) {
  if (abandon(L) == NULL)
    return 0;
  lua_pushnil(L);
  lua_setiuservalue(L, 1, EB_RUN_KEY);
  lua_pushnil(L);
  lua_setiuservalue(L, 1, EB_RUN_OPTIONS);
  lua_getiuservalue(L, 1, EB_RUN_GUARD);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, EB_UV_SPARE);
  return 0;
}

static int new_run(lua_State *L) {
  /* 1 guard */
  eb_run *run = lua_newuserdatauv(L, sizeof *run, EB_RUN_VALUES);
  run->open = run->armed = run->is_late = run->asks = false;
  run->frame.linked = false;
  luaL_setmetatable(L, run_metatable);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, EB_RUN_GUARD);
  return 1;
}

eb_run *eb_push_run(lua_State *L) {
  if (lua_getiuservalue(L, EB_AT_GUARD, EB_UV_SPARE) == LUA_TUSERDATA) {
    lua_pushnil(L);
    lua_setiuservalue(L, EB_AT_GUARD, EB_UV_SPARE);
  } else {
    lua_pop(L, 1);
    lua_pushcfunction(L, new_run);
    lua_pushvalue(L, EB_AT_GUARD);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK)
      return NULL;
  }
  lua_pushvalue(L, EB_AT_KEY);
  lua_setiuservalue(L, EB_AT_RUN, EB_RUN_KEY);
  lua_pushvalue(L, EB_AT_OPTIONS);
  lua_setiuservalue(L, EB_AT_RUN, EB_RUN_OPTIONS);
  return lua_touserdata(L, EB_AT_RUN);
}

static const luaL_Reg run_metamethods[] = {
    {"__close", run_close},
    {"__gc", run_gc},
    {NULL, NULL},
};

void eb_open_run(lua_State *L) {
  eb_make_metatable(L, run_metatable, run_metamethods);
}
