/* SPDX-License-Identifier: MIT
** coroutine.resume, wrap, close and running, xpcall and debug.sethook, as Lua
** has them, but for what the interruption of guarded functions needs to know.
**
** They take the place of Lua's when the module is loaded.  Names, results and
** error texts are Lua's (lcorolib.c, lbaselib.c of 5.4).
*/
#include "lua/interrupt.h"

#include <string.h>

/* ---------------------------------------------------------- coroutines -- */

static lua_State *get_coroutine(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  luaL_argexpected(L, co, 1, "thread");
  return co;
}

int eb_resume(lua_State *L, lua_State *co, int n, lua_State *host) {
  eb_frame frame;
  int results;
  if (!lua_checkstack(co, n)) {
    lua_pushliteral(L, "too many arguments to resume");
    return -1;
  }
  lua_xmove(L, co, n);
  eb_enter(co, &frame, EB_RESUME);
  frame.host = host;
  eb_unpark(L, co, &frame);
  int status = lua_resume(co, L, n, &results);
  eb_park(L, co, &frame);
  eb_leave(L, &frame);
  if (status != LUA_YIELD) /* it may have had a limit */
    eb_call_put_off(L, eb_get_state(L));
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1);
    eb_convert_sentinel(L);
    return -1;
  }
  if (!lua_checkstack(L, results + 1)) {
    lua_pop(co, results);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  lua_xmove(co, L, results);
  return results;
}

static int wrapped_resume(lua_State *L) {
  lua_State *co = get_coroutine(L);
  int n = eb_resume(L, co, lua_gettop(L) - 1, NULL);
  lua_pushboolean(L, n >= 0);
  if (n < 0) {
    lua_insert(L, -2);
    return 2;
  }
  lua_insert(L, -(n + 1));
  return n + 1;
}

int eb_reset(lua_State *L, lua_State *co) {
  eb_frame frame;
  eb_enter(co, &frame, EB_RESUME);
  eb_unpark(L, co, &frame); /* the deadlines hold for <close>, too */
  eb_begin_close();
#if LUA_VERSION_RELEASE_NUM >= 50406
  int status = lua_closethread(co, L);
#else
  int status = lua_resetthread(co);
#endif
  eb_park(L, co, &frame);
  eb_leave(L, &frame);
  return status;
}

static int call_wrapped(lua_State *L) {
  lua_State *co = lua_tothread(L, lua_upvalueindex(EB_UPVALUES + 1));
  int n = eb_resume(L, co, lua_gettop(L), NULL);
  if (n >= 0)
    return n;
  int status = lua_status(co);
  if (status != LUA_OK && status != LUA_YIELD) {
    status = eb_reset(L, co);
    lua_xmove(co, L, 1);
    eb_convert_sentinel(L);
  }
  if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int wrapped_wrap(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_State *co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  for (int i = 1; i <= EB_UPVALUES; i++)
    lua_pushvalue(L, lua_upvalueindex(i));
  lua_pushvalue(L, -EB_UPVALUES - 1);
  lua_pushcclosure(L, call_wrapped, EB_UPVALUES + 1);
  return 1;
}

/* As coroutine.status has it. */
static const char *status_of(lua_State *L, lua_State *co) {
  lua_Debug ar;
  if (L == co)
    return "running";
  switch (lua_status(co)) {
  case LUA_YIELD:
    return "suspended";
  case LUA_OK:
    if (lua_getstack(co, 0, &ar))
      return "normal";
    return lua_gettop(co) == 0 ? "dead" : "suspended";
  default:
    return "dead";
  }
}

static int wrapped_close(lua_State *L) {
  lua_State *co = get_coroutine(L);
  const char *what = status_of(L, co);
  if (strcmp(what, "dead") != 0 && strcmp(what, "suspended") != 0)
    return luaL_error(L, "cannot close a %s coroutine", what);
  if (eb_reset(L, co) == LUA_OK) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushboolean(L, 0);
  lua_xmove(co, L, 1);
  eb_convert_sentinel(L);
  return 2;
}

/* A private coroutine goes by the name of its host. */
static int wrapped_running(lua_State *L) {
  lua_State *host = eb_host_of(L);
  eb_state *state = eb_get_state(L);
  if (state->unseen == L || state->unseen == host)
    state->unseen = NULL;
  if (host != NULL && lua_checkstack(host, 1)) {
    lua_pushthread(host);
    lua_xmove(host, L, 1);
    lua_pushboolean(L, 0);
  } else {
    lua_pushboolean(L, lua_pushthread(L));
  }
  return 2;
}

/* -------------------------------------------------------------- xpcall -- */

/* A message handler runs where no hook is called when the error came from
** one: the sentinel passes it by. */
static int handle(lua_State *L) {
  if (eb_is_sentinel(L, 1) && eb_is_unwinding())
    return 1;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  return 1;
}

static int after_xpcall(lua_State *L, int status, lua_KContext extra) {
  if (status == LUA_OK || status == LUA_YIELD)
    return lua_gettop(L) - (int)extra;
  lua_pushboolean(L, 0);
  lua_pushvalue(L, -2);
  return 2;
}

static int wrapped_xpcall(lua_State *L) {
  int n = lua_gettop(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_pushvalue(L, 2);
  lua_pushcclosure(L, handle, 1);
  lua_replace(L, 2);
  lua_pushboolean(L, 1);
  lua_pushvalue(L, 1);
  lua_rotate(L, 3, 2);
  int status = lua_pcallk(L, n - 2, LUA_MULTRET, 2, 2, after_xpcall);
  return after_xpcall(L, status, 2);
}

/* ------------------------------------------------------- debug.sethook -- */

/* Arguments as debug.sethook checks them, so that it raises nothing itself. */
static lua_State *check_sethook(lua_State *L) {
  int arg = lua_isthread(L, 1);
  lua_State *target = arg ? lua_tothread(L, 1) : L;
  if (lua_isnoneornil(L, arg + 1)) {
    lua_settop(L, arg + 1);
  } else {
    luaL_checkstring(L, arg + 2);
    luaL_checktype(L, arg + 1, LUA_TFUNCTION);
    luaL_optinteger(L, arg + 3, 0);
  }
  return target;
}

/* While our hook is set, the user's is the one that is kept. */
static int wrapped_sethook(lua_State *L) {
  lua_State *target = check_sethook(L);
  eb_frame *top = eg_thread_anchored();
  eb_frame *base = eb_hook_frame(target);
  lua_pushvalue(L, lua_upvalueindex(EB_UPVALUES + 1));
  lua_insert(L, 1);
  if (base == NULL) {
    lua_call(L, lua_gettop(L) - 1, 0);
    return 0;
  }
  top->defers = true;
  lua_Hook ours = lua_gethook(target);
  int count = lua_gethookcount(target);
  bool kept = eb_is_our_hook(ours);
  int status = lua_pcall(L, lua_gettop(L) - 1, 0, 0);
  if (kept && status == LUA_OK) {
    base->hook = lua_gethook(target);
    base->mask = lua_gethookmask(target);
    base->count = lua_gethookcount(target);
    lua_sethook(target, ours, LUA_MASKCOUNT, count);
  }
  top->defers = false;
  eb_look();
  return status == LUA_OK ? 0 : lua_error(L);
}

/* ------------------------------------------------------------- opening -- */

/* Puts a closure over the upvalues on top, and over what was there, in the
** place of library[name], unless one is there already. */
static void replace(lua_State *L, const char *library, const char *name,
                    lua_CFunction function) {
  int first = lua_gettop(L) - EB_UPVALUES + 1;
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, library) == LUA_TTABLE &&
      lua_getfield(L, -1, name) == LUA_TFUNCTION &&
      lua_tocfunction(L, -1) != function) {
    for (int i = 0; i < EB_UPVALUES; i++)
      lua_pushvalue(L, first + i);
    lua_pushvalue(L, -EB_UPVALUES - 1);
    lua_pushcclosure(L, function, EB_UPVALUES + 1);
    lua_setfield(L, -3, name);
  }
  lua_settop(L, first + EB_UPVALUES - 1);
}

/* At each require: somebody may have put Lua's own back, as busted does with
** the globals between two files.  The upvalues are on top. */
void eb_open_wrap(lua_State *L) {
  replace(L, "coroutine", "resume", wrapped_resume);
  replace(L, "coroutine", "wrap", wrapped_wrap);
  replace(L, "coroutine", "close", wrapped_close);
  replace(L, "coroutine", "running", wrapped_running);
  replace(L, LUA_GNAME, "xpcall", wrapped_xpcall);
  replace(L, "debug", "sethook", wrapped_sethook);
}
