/* SPDX-License-Identifier: MIT
** onTimeout and onLost: called when their run has ended, or put off until the
** guard that ended it has.
*/
#include "lua/run.h"

/* Calls onTimeout or onLost with the key; what it raises is only logged. */
void eb_notify_run(lua_State *L, const eb_run *run, const char *name) {
  if (run->guard->core == NULL)
    return;
  eb_push_callback(L, EB_AT_GUARD, EB_AT_OPTIONS, name);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return;
  }
  lua_pushvalue(L, EB_AT_KEY);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1)
                                                      : luaL_typename(L, -1);
    eb_log_warn(L, run->guard, "%s of '%s' failed: %s", name, eb_key_text(L),
                text);
    lua_pop(L, 2);
  }
}

/* Callbacks of runs that a guard further out has ended come after its own. */

static const char put_off_field[] = "ExecutionGuard put off";

static int append(lua_State *L) {
  /* 1 callback, 2 key */
  luaL_getsubtable(L, LUA_REGISTRYINDEX, put_off_field);
  lua_Integer n = (lua_Integer)lua_rawlen(L, 3);
  lua_pushvalue(L, 1);
  lua_rawseti(L, 3, n + 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, 3, n + 2);
  return 0;
}

void eb_put_off(lua_State *L, const eb_run *run, const char *name) {
  if (run->guard->core == NULL || run->told)
    return;
  int top = lua_gettop(L);
  lua_pushcfunction(L, append);
  eb_push_callback(L, EB_AT_GUARD, EB_AT_OPTIONS, name);
  lua_pushvalue(L, EB_AT_KEY);
  if (lua_isnil(L, -2) || lua_pcall(L, 2, 0, 0) == LUA_OK)
    lua_settop(L, top);
  else
    eb_log_warn(L, run->guard, "%s was not called: no memory", name);
  lua_settop(L, top);
}

void eb_call_put_off(lua_State *L, const eb_run *run) {
  int top = lua_gettop(L);
  if (eb_is_unwinding() ||
      lua_getfield(L, LUA_REGISTRYINDEX, put_off_field) != LUA_TTABLE) {
    lua_settop(L, top);
    return;
  }
  lua_pushnil(L);
  lua_setfield(L, LUA_REGISTRYINDEX, put_off_field);
  lua_Integer n = (lua_Integer)lua_rawlen(L, top + 1);
  for (lua_Integer i = 1; i < n; i += 2) {
    lua_rawgeti(L, top + 1, i);
    lua_rawgeti(L, top + 1, i + 1);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK)
      eb_log_warn(L, run->guard, "a callback of a run inside failed");
    lua_settop(L, top + 1);
  }
  lua_settop(L, top);
}
