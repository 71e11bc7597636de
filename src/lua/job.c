/* SPDX-License-Identifier: MIT
** What jobs need of C, as there may be so many of them: a call that keeps the
** traceback of what it raises, what a run begins with, SetProgress, ids.
**
** The message handler leaves the error as it is, for <close> variables see it
** too; the traceback waits in a table, coroutine -> {error, traceback}, until
** the call has returned.
*/
#include "lua/interrupt.h"

#include <stdio.h>
#include <unistd.h>

static const char traces_key; /* registry: that table, with weak keys */

enum { ERROR = 1, TRACE };

static int text_of(lua_State *L) {
  luaL_tolstring(L, 1, NULL);
  return 1;
}

int eb_catch(lua_State *L) {
  lua_settop(L, 1);
  if (eb_is_sentinel(L, 1) ||
      lua_rawgetp(L, LUA_REGISTRYINDEX, &traces_key) != LUA_TTABLE) {
    lua_settop(L, 1);
    return 1;
  }
  lua_pushthread(L);
  lua_createtable(L, TRACE, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, ERROR);
  lua_pushcfunction(L, text_of);
  lua_pushvalue(L, 1);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK || lua_type(L, -1) != LUA_TSTRING)
    lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  luaL_traceback(L, L, lua_tostring(L, -1), 1);
  lua_rawseti(L, 4, TRACE);
  lua_settop(L, 4);
  lua_rawset(L, 2);
  lua_settop(L, 1);
  return 1;
}

void eb_push_trace(lua_State *L, int index) {
  index = lua_absindex(L, index);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &traces_key);
  lua_pushthread(L);
  if (lua_rawget(L, -2) != LUA_TTABLE) {
    lua_pop(L, 2);
    lua_pushnil(L);
    return;
  }
  lua_pushthread(L); /* the key is there: takes no memory */
  lua_pushnil(L);
  lua_rawset(L, -4);
  lua_rawgeti(L, -1, ERROR);
  if (lua_rawequal(L, -1, index))
    lua_rawgeti(L, -2, TRACE);
  else
    lua_pushnil(L);
  lua_replace(L, -4);
  lua_pop(L, 2);
}

static int called(lua_State *L, int status, lua_KContext ctx) {
  eb_state *state = eb_get_state(L);
  (void)ctx;
  if (status == LUA_OK || status == LUA_YIELD) {
    lua_pushboolean(L, 1);
    lua_replace(L, 1);
    lua_pushboolean(L, status == LUA_OK && state->unseen == L &&
                           lua_gethook(L) == NULL);
    lua_pushnumber(L, (lua_Number)eg_now_us() / 1e6);
    return 5;
  }
  if (eb_is_sentinel(L, -1))
    lua_pushnil(L);
  else
    lua_pushboolean(L, 0);
  lua_replace(L, 1);
  eb_push_trace(L, 2);
  return 3;
}

/* call(fn, argument) -> true, what it returned (two values), whether nobody
** can know of this coroutine: it neither yielded nor was asked for, and the
** steady time; false, its error, the traceback (nil: there is none); nil: it
** was interrupted. */
static int call(lua_State *L) {
  eb_get_state(L)->unseen = L;
  lua_settop(L, 2);
  lua_pushcfunction(L, eb_catch);
  lua_insert(L, 1);
  return called(L, lua_pcallk(L, 1, 2, 1, 0, called), 0);
}

/* starter(metatable) -> a function: start(run) gives it that metatable and
** returns seconds since the epoch, steady seconds. */
static int start(lua_State *L) {
  lua_settop(L, 1);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_setmetatable(L, 1);
  lua_pushnumber(L, (lua_Number)eg_wall_us() / 1e6);
  lua_pushnumber(L, (lua_Number)eg_now_us() / 1e6);
  return 2;
}

static int make_starter(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_pushcclosure(L, start, 1);
  return 1;
}

enum { UP_TOOK = 1, UP_PROGRESS, UP_SLOW };

/* ctx:SetProgress(progress) of a run that goes on, where that is a number from
** 0 to 1; all else is for the function in Lua. */
static int set_progress(lua_State *L) {
  if (lua_type(L, 2) == LUA_TNUMBER && lua_type(L, 1) == LUA_TTABLE) {
    lua_Number progress = lua_tonumber(L, 2);
    lua_settop(L, 2);
    lua_pushvalue(L, lua_upvalueindex(UP_TOOK));
    if (lua_rawget(L, 1) == LUA_TBOOLEAN && progress >= 0 && progress <= 1) {
      lua_pushvalue(L, lua_upvalueindex(UP_PROGRESS));
      lua_pushvalue(L, 2);
      lua_rawset(L, 1);
      return 0;
    }
  }
  lua_settop(L, 2);
  lua_pushvalue(L, lua_upvalueindex(UP_SLOW));
  lua_insert(L, 1);
  lua_call(L, 2, 0);
  return 0;
}

/* setter(slow) -> set_progress */
static int make_setter(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_pushliteral(L, "took");
  lua_pushliteral(L, "progress");
  lua_rotate(L, 1, -1);
  lua_pushcclosure(L, set_progress, UP_SLOW);
  return 1;
}

/* uuid() -> a random UUID (version 4), whatever math.random was seeded with */
static int uuid(lua_State *L) {
  unsigned char b[16];
  char text[37];
  if (getentropy(b, sizeof b) != 0)
    return luaL_error(L, "job.new: no random numbers for an id");
  b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
  b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
  for (int i = 0, at = 0; i < 16; i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10)
      text[at++] = '-';
    at += snprintf(text + at, 3, "%02x", b[i]);
  }
  lua_pushlstring(L, text, sizeof text - 1);
  return 1;
}

void eb_push_job(lua_State *L) {
  static const luaL_Reg functions[] = {{"call", call},
                                       {"starter", make_starter},
                                       {"setter", make_setter},
                                       {"uuid", uuid},
                                       {NULL, NULL}};
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &traces_key) == LUA_TNIL) {
    eb_push_weak_table(L, "k");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &traces_key);
  }
  lua_pop(L, 1);
  lua_newtable(L);
  eb_push_upvalues(L);
  eb_set_functions(L, functions);
  lua_pop(L, EB_UPVALUES);
}
