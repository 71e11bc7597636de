/* SPDX-License-Identifier: MIT
** What an error object says: its text and traceback, for the record.
**
** The message handler notes them while the stack that raised the error still
** stands, and passes the object on as it is.  They wait in the stash, a table
** that all functions of the module close over, until the run is committed.
*/
#include "lua/binding.h"

enum { ERROR = 1, TEXT, TRACE, STASH_SIZE = TRACE };

#define ERROR_KEPT 4096 /* bytes of an error's text, and of a traceback */

static int text_of(lua_State *L) {
  luaL_tolstring(L, 1, NULL);
  return 1;
}

int eb_handler(lua_State *L) {
  int stash = lua_upvalueindex(1);
  lua_settop(L, 1);
  lua_pushvalue(L, 1);
  lua_rawseti(L, stash, ERROR);
  lua_pushcfunction(L, text_of);
  lua_pushvalue(L, 1);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK || lua_type(L, -1) != LUA_TSTRING) {
    lua_settop(L, 1);
    lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  lua_rawseti(L, stash, TEXT);
  luaL_traceback(L, L, NULL, 1);
  lua_rawseti(L, stash, TRACE);
  lua_settop(L, 1);
  return 1;
}

static eg_bytes bounded(lua_State *L, int index) {
  eg_bytes text = {NULL, 0};
  if (lua_type(L, index) == LUA_TSTRING)
    text.data = lua_tolstring(L, index, &text.len);
  if (text.len > ERROR_KEPT)
    text.len = ERROR_KEPT;
  return text;
}

void eb_push_error_texts(lua_State *L, int index, eg_bytes *text,
                         eg_bytes *trace) {
  int stash = lua_upvalueindex(EB_UP_STASH);
  lua_rawgeti(L, stash, ERROR);
  bool same = lua_rawequal(L, -1, index);
  lua_pop(L, 1);
  if (same) {
    lua_rawgeti(L, stash, TEXT);
    lua_rawgeti(L, stash, TRACE);
  } else { /* the handler was not called: no memory, or it failed itself */
    lua_pushvalue(L, index);
    lua_pushnil(L);
  }
  *text = bounded(L, -2);
  *trace = bounded(L, -1);
}

void eb_forget_error(lua_State *L) {
  for (int i = 1; i <= STASH_SIZE; i++) {
    lua_pushboolean(L, 0);
    lua_rawseti(L, lua_upvalueindex(EB_UP_STASH), i);
  }
}
