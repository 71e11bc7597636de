/* SPDX-License-Identifier: MIT
** Results of a private guard that are kept as the Lua values they are: in a
** table of the guard, beside records that say only "opaque".
**
** A value is written after its commit has succeeded, so an outcome that was
** refused never shows; the room for it is made before, while that can still
** fail without harm.
*/
#include "lua/binding.h"

/* Drops the values whose records the store has swept. */
static void drain(lua_State *L, const eb_guard *guard) {
  unsigned char key[EG_KEY_MAX];
  size_t n;
  while (guard->core != NULL &&
         (n = eg_next_forgotten(guard->core, key)) > 0) {
    lua_pushlstring(L, (const char *)key, n);
    eb_opaque_drop(L, guard, lua_gettop(L));
    lua_pop(L, 1);
  }
}

static int make_room(lua_State *L) {
  /* 1 guard, 2 key.  The key is held now, so it is not being swept: what is
  ** still to be dropped for it is a value of before. */
  const eb_guard *guard = lua_touserdata(L, 1);
  if (guard->opaque)
    drain(L, guard);
  if (lua_getiuservalue(L, 1, EB_UV_VALUES) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, EB_UV_VALUES);
  }
  lua_pushvalue(L, 2);
  if (lua_rawget(L, 3) == LUA_TNIL) {
    lua_pushvalue(L, 2);
    lua_pushboolean(L, 0);
    lua_rawset(L, 3);
  }
  return 0;
}

bool eb_opaque_reserve(lua_State *L, eb_guard *guard) {
  lua_pushcfunction(L, make_room);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  bool ok = lua_pcall(L, 2, 0, 0) == LUA_OK;
  if (!ok)
    lua_pop(L, 1);
  guard->opaque = guard->opaque || ok;
  return ok;
}

void eb_opaque_set(lua_State *L, int value_index) {
  lua_getiuservalue(L, 1, EB_UV_VALUES);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, value_index);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

void eb_opaque_get(lua_State *L, const eb_guard *guard, int key_index) {
  if (!guard->opaque) {
    lua_pushnil(L);
    return;
  }
  lua_getiuservalue(L, 1, EB_UV_VALUES);
  lua_pushvalue(L, key_index);
  lua_rawget(L, -2);
  lua_remove(L, -2);
}

void eb_opaque_drop(lua_State *L, const eb_guard *guard, int key_index) {
  if (!guard->opaque)
    return;
  key_index = lua_absindex(L, key_index);
  lua_getiuservalue(L, 1, EB_UV_VALUES);
  lua_pushvalue(L, key_index);
  if (lua_rawget(L, -2) != LUA_TNIL) {
    lua_pushvalue(L, key_index);
    lua_pushnil(L);
    lua_rawset(L, -4);
  }
  lua_pop(L, 2);
}
