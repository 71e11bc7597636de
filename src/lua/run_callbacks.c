/* SPDX-License-Identifier: MIT
** onTimeout and onLost: called when their run has ended, or put off until the
** guard that ended it has.
*/
#include "lua/run.h"

/* That callback of the guard at index 1, with the key at 2, failed; the error
** is on top, and popped.  It is only logged, unless it is what ends a function
** further out. */
static void log_failure(lua_State *L, const eb_guard *guard,
                        const char *name) {
  eb_checkpoint(L, eb_is_sentinel(L, -1));
  eb_push_error_text(L, lua_gettop(L));
  eb_log_warn(L, guard, "%s of '%s' failed: %s", name, eb_key_text(L),
              lua_tostring(L, -1));
  lua_pop(L, 2);
}

void eb_notify_run(lua_State *L, const eb_run *run, const char *name) {
  if (run->guard->core == NULL)
    return;
  eb_push_callback(L, EB_AT_GUARD, EB_AT_OPTIONS, name);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return;
  }
  lua_pushvalue(L, EB_AT_KEY);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK)
    log_failure(L, run->guard, name);
}

/* Callbacks of runs that a guard or a limit further out has ended come after
** that one's. */

static const char put_off_field[] = "ExecutionGuard put off";

enum { GUARD = 1, KEY, CALLBACK, NAME, ROW = NAME };

static int append(lua_State *L) {
  /* a row */
  luaL_getsubtable(L, LUA_REGISTRYINDEX, put_off_field);
  lua_Integer n = (lua_Integer)lua_rawlen(L, ROW + 1);
  for (int i = 1; i <= ROW; i++) {
    lua_pushvalue(L, i);
    lua_rawseti(L, ROW + 1, n + i);
  }
  return 0;
}

void eb_put_off(lua_State *L, const eb_run *run, const char *name) {
  if (run->guard->core == NULL || run->told)
    return;
  int top = lua_gettop(L);
  lua_pushcfunction(L, append);
  lua_pushvalue(L, EB_AT_GUARD);
  lua_pushvalue(L, EB_AT_KEY);
  eb_push_callback(L, EB_AT_GUARD, EB_AT_OPTIONS, name);
  lua_pushstring(L, name);
  if (!lua_isnil(L, -2)) {
    if (lua_pcall(L, ROW, 0, 0) == LUA_OK)
      run->state->put_off = true;
    else
      eb_log_warn(L, run->guard, "%s was not called: no memory", name);
  }
  lua_settop(L, top);
}

/* a row */
static int call_row(lua_State *L) {
  const eb_guard *guard = lua_touserdata(L, GUARD);
  lua_pushvalue(L, CALLBACK);
  lua_pushvalue(L, KEY);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK)
    log_failure(L, guard, lua_tostring(L, NAME));
  return 0;
}

void eb_call_put_off(lua_State *L, eb_state *state) {
  int top = lua_gettop(L);
  if (!state->put_off || eb_is_unwinding() || !lua_checkstack(L, ROW + 3))
    return;
  state->put_off = false;
  lua_getfield(L, LUA_REGISTRYINDEX, put_off_field);
  lua_pushnil(L);
  lua_setfield(L, LUA_REGISTRYINDEX, put_off_field);
  lua_Integer n = (lua_Integer)lua_rawlen(L, top + 1);
  bool caught = false;
  for (lua_Integer i = 0; i < n; i += ROW) {
    lua_pushcfunction(L, call_row);
    for (int j = 1; j <= ROW; j++)
      lua_rawgeti(L, top + 1, i + j);
    if (lua_pcall(L, ROW, 0, 0) != LUA_OK)
      caught = caught || eb_is_sentinel(L, -1);
    lua_settop(L, top + 1);
  }
  lua_settop(L, top);
  eb_checkpoint(L, caught);
}
