/* SPDX-License-Identifier: MIT
** ExecutionGuard.expired and shield: what a guarded function may ask about its
** deadline, and how it keeps together what belongs together.
*/
#include "lua/run.h"

static const char shield_metatable[] = "ExecutionGuard shield";

static bool is_over(const eb_run *run) {
  return run->guard->core == NULL ||
         (run->armed && eg_timer_fired(&run->timer) != 0) ||
         eg_now_us() >= run->grant.deadline_us || !eb_run_holds(run);
}

static bool is_any_over(const eb_state *state, const lua_State *L) {
  for (const eb_frame *f = eg_thread_anchored(); f != NULL; f = f->outer)
    if (f->kind == EB_RUN && is_over(eb_run_of(f)))
      return true;
  /* Those that are not on the chain: closed while suspended, between two
     attempts. */
  for (const eb_run *run = state->runs; run != NULL; run = run->next)
    if (run->L == L && is_over(run))
      return true;
  return false;
}

/* expired() -> has a run that this is inside of, also by a coroutine that it
** resumed, passed its deadline, or lost its grant? */
int eb_expired(lua_State *L) {
  lua_pushboolean(L, is_any_over(eb_get_state(L), L));
  return 1;
}

static int shield_end(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  (void)ctx;
  return lua_gettop(L) - 1;
}

static int shield_close(lua_State *L) {
  eb_frame *frame = luaL_testudata(L, 1, shield_metatable);
  if (frame != NULL && (!frame->linked || eg_thread_anchored() == frame)) {
    eb_leave(L, frame); /* not: somebody calls this who has no business to */
    eb_look();
  }
  return 0;
}

/* shield(fn, ...) -> what fn returns; no interruption comes before that. */
int eb_shield(lua_State *L) {
  eb_check_callable(L, 1, "ExecutionGuard.shield", "fn");
  if (!eb_is_known(L))
    return eb_go_private(L, eb_shield);
  if (lua_isyieldable(L))
    eb_reserve_parking(L, L);
  eb_frame *frame = lua_newuserdatauv(L, sizeof *frame, 0);
  frame->linked = frame->parked = false;
  luaL_setmetatable(L, shield_metatable);
  lua_insert(L, 1);
  lua_toclose(L, 1);
  eb_enter(L, frame, EB_SHIELD);
  lua_callk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, shield_end);
  return shield_end(L, LUA_OK, 0);
}

static const luaL_Reg shield_metamethods[] = {
    {"__close", shield_close},
    {"__gc", shield_close},
    {NULL, NULL},
};

void eb_open_shield(lua_State *L) {
  eb_make_metatable(L, shield_metatable, shield_metamethods);
}
