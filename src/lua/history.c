/* SPDX-License-Identifier: MIT
** guard:History: the ended runs that a store remembers.
*/
#include "lua/binding.h"

#include "executionguard_view.h"

#define MOST 20 /* where the caller does not say */

/* An error of Lua is caught in the visit, kept on the stack, and ends it: the
** store is in the midst of reading. */
typedef struct visitor {
  lua_State *L;
  bool failed;
} visitor;

static void set_text(lua_State *L, const char *name, eg_bytes text) {
  if (text.len == 0)
    return;
  lua_pushlstring(L, text.data, text.len);
  lua_setfield(L, -2, name);
}

/* 1 past, 2 list */
static int add_one(lua_State *L) {
  const eg_past *past = lua_touserdata(L, 1);
  lua_createtable(L, 0, 8);
  set_text(L, "key", past->key);
  lua_pushstring(L, eg_run_word(eg_run_of(past->status)));
  lua_setfield(L, -2, "status");
  eb_set_count(L, "token", past->token);
  eb_set_seconds(L, "startTime", past->start_us);
  eb_set_seconds(L, "endTime", past->start_us + past->duration_us);
  eb_set_seconds(L, "duration", past->duration_us);
  set_text(L, "error", past->error);
  set_text(L, "owner", past->owner);
  if (past->exited) {
    lua_pushinteger(L, past->exit_status);
    lua_setfield(L, -2, "exitStatus");
  }
  lua_rawseti(L, 2, (lua_Integer)lua_rawlen(L, 2) + 1);
  return 0;
}

static bool visit(void *ctx, const eg_past *past) {
  visitor *v = ctx;
  lua_State *L = v->L;
  lua_pushcfunction(L, add_one);
  lua_pushlightuserdata(L, (void *)past);
  lua_pushvalue(L, 4);
  v->failed = lua_pcall(L, 2, 0, 0) != LUA_OK;
  return !v->failed;
}

static size_t check_count(lua_State *L) {
  lua_Integer n = luaL_opt(L, lua_tointeger, 3, MOST);
  if (!lua_isnoneornil(L, 3) && (!lua_isinteger(L, 3) || n < 1))
    luaL_error(L,
               "History: n must be an integer from 1 on, not %s; leave it out "
               "for the last %d",
               eb_describe(L, 3), MOST);
  return (size_t)n;
}

/* 1 guard, 2 key or nil, 3 n or nil; 4 the list */
int eb_history(lua_State *L) {
  eg_error error;
  visitor v = {L, false};
  eb_guard *guard = eb_check_guard(L, "History");
  eg_bytes key = {"", 0};
  if (!lua_isnoneornil(L, 2))
    key = eb_check_key(L, "History");
  size_t n = check_count(L);
  lua_settop(L, 3);
  lua_newtable(L);
  eg_guard *core = eb_core(L, guard, "History");
  eb_begin_scan(guard);
  eg_status status = eg_history(core, key, n, visit, &v, &error);
  eb_end_scan(guard);
  if (v.failed)
    return lua_error(L);
  if (status == EG_UNSUPPORTED) {
    lua_pushnil(L);
    lua_pushstring(L, eg_status_word(status));
    return 2;
  }
  if (status != EG_OK)
    return eb_raise(L, "History", &error);
  return 1;
}
