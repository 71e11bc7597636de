/* SPDX-License-Identifier: MIT
** The library's own functions in Lua, which are never interrupted half-way.
**
** Where the hook finds one of them running it waits until that has returned,
** or has called code of others: so queues are whole whenever they are left.
** Those that loop ask by themselves, at points where they can be left.
*/
#include "lua/interrupt.h"

static const char own_key; /* in the registry: function -> true, weak */

bool eb_is_own_function(lua_State *L, lua_Debug *ar) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &own_key) != LUA_TTABLE) {
    lua_pop(L, 1);
    return false;
  }
  lua_getinfo(L, "f", ar);
  lua_rawget(L, -2);
  bool own = lua_toboolean(L, -1);
  lua_pop(L, 2);
  return own;
}

/* The value on top, which is popped, if it is a function in Lua. */
static void claim_function(lua_State *L, int own) {
  if (!lua_isfunction(L, -1) || lua_iscfunction(L, -1)) {
    lua_pop(L, 1);
    return;
  }
  lua_pushboolean(L, 1);
  lua_rawset(L, own);
}

static void claim_fields(lua_State *L, int own) {
  lua_pushnil(L);
  while (lua_next(L, -2))
    claim_function(L, own);
}

/* claim(): all functions that the caller has in its locals, in tables there,
** and in the metatables of those.  Called at the end of a chunk. */
static int claim(lua_State *L) {
  lua_Debug ar;
  lua_settop(L, 0);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &own_key);
  if (!lua_getstack(L, 1, &ar))
    return 0;
  for (int i = 1; lua_getlocal(L, &ar, i) != NULL; i++) {
    if (lua_istable(L, -1)) {
      claim_fields(L, 1);
      if (lua_getmetatable(L, -1))
        claim_fields(L, 1);
    } else {
      claim_function(L, 1);
    }
    lua_settop(L, 1);
  }
  return 0;
}

/* checkpoint(err?): raises where somebody is to be interrupted; err: what was
** caught. */
static int checkpoint(lua_State *L) {
  eb_checkpoint(L, eb_is_sentinel(L, 1));
  return 0;
}

/* interrupted(err) -> is that the error that interrupts somebody further out?
*/
static int interrupted(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, eb_is_sentinel(L, 1) && eb_is_unwinding());
  return 1;
}

void eb_push_own(lua_State *L) {
  static const luaL_Reg functions[] = {{"claim", claim},
                                       {"checkpoint", checkpoint},
                                       {"interrupted", interrupted},
                                       {NULL, NULL}};
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &own_key) == LUA_TNIL) {
    eb_push_weak_table(L, "k");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &own_key);
  }
  lua_pop(L, 1);
  luaL_newlib(L, functions);
}
