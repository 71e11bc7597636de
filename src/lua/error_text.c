/* SPDX-License-Identifier: MIT
** What an error object says: its text and traceback, for the record.
**
** The message handler notes them while the stack that raised the error still
** stands, and passes the object on as it is.  They wait in the stash until the
** run that failed takes them, at once when its lua_pcall has returned.
** Between the two only __close methods run, but these may start runs that fail
** too; so the stash is a stack, and a run takes what is above the height that
** it began at.
*/
#include "lua/interrupt.h"

#include <stdio.h>
#include <string.h>

enum { ERROR = 1, TEXT, TRACE, STASH_ROW = TRACE };

#define ERROR_KEPT 4096 /* bytes of an error's text, and of a traceback */
#define MOST_NESTED 200 /* as many C calls as Lua allows */

static int text_of(lua_State *L) {
  luaL_tolstring(L, 1, NULL);
  return 1;
}

void eb_push_error_text(lua_State *L, int index) {
  lua_pushcfunction(L, text_of);
  lua_pushvalue(L, index);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK && lua_type(L, -1) == LUA_TSTRING)
    return;
  lua_pop(L, 1);
  lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, index));
}

/* Of a stack as deep as that, luaL_traceback would walk down to its bottom
** again and again: of one that has overflowed for seconds, in which nothing is
** interrupted.  So there is only its top; made in a buffer, as little room is
** left on that stack. */
enum { DEEP = 1000, LEVELS_KEPT = 20, LEVEL_MAX = 2 * LUA_IDSIZE + 80 };

static size_t describe_level(const lua_Debug *ar, char *to) {
  int n = snprintf(to, LEVEL_MAX, "\n\t%s:", ar->short_src);
  if (ar->currentline > 0)
    n += snprintf(to + n, 14, "%d:", ar->currentline);
  if (*ar->namewhat != '\0')
    n += snprintf(to + n, 30 + LUA_IDSIZE, " in %s '%.*s'", ar->namewhat,
                  LUA_IDSIZE, ar->name);
  else if (*ar->what == 'C')
    n += snprintf(to + n, 6, " in ?");
  else
    n += snprintf(to + n, 30 + LUA_IDSIZE, " in function <%s:%d>",
                  ar->short_src, ar->linedefined);
  return (size_t)n;
}

static void push_levels(lua_State *L, lua_State *co, int level) {
  static const char title[] = "stack traceback:";
  static const char rest[] = "\n\t...\t(the levels below are left out)";
  char text[sizeof title + (size_t)LEVELS_KEPT * LEVEL_MAX + sizeof rest];
  lua_Debug ar;
  if (!lua_getstack(co, DEEP, &ar)) {
    luaL_traceback(L, co, NULL, level);
    return;
  }
  size_t n = sizeof title - 1;
  memcpy(text, title, n);
  for (int i = 0; i < LEVELS_KEPT && lua_getstack(co, level + i, &ar); i++) {
    lua_getinfo(co, "Sln", &ar);
    n += describe_level(&ar, text + n);
  }
  memcpy(text + n, rest, sizeof rest);
  lua_pushlstring(L, text, n + sizeof rest - 1);
}

/* Of a private coroutine: that of its host follows. */
static void push_traceback(lua_State *L) {
  static const char title[] = "stack traceback:";
  push_levels(L, L, 1);
  lua_State *host = eb_host_of(L);
  if (host == NULL)
    return;
  push_levels(L, host, 0);
  const char *rest = lua_tostring(L, -1);
  if (strncmp(rest, title, sizeof title - 1) == 0)
    rest += sizeof title - 1;
  lua_pushfstring(L, "%s%s", lua_tostring(L, -2), rest);
  lua_replace(L, -3);
  lua_pop(L, 1);
}

/* Upvalues: 1 stash, 2 state.  The error goes in last, when all is there. */
int eb_handler(lua_State *L) {
  const int stash = lua_upvalueindex(1);
  eb_state *state = lua_touserdata(L, lua_upvalueindex(2));
  lua_settop(L, 1);
  if (state->errors >= MOST_NESTED ||
      (eb_is_sentinel(L, 1) && eb_is_unwinding()))
    return 1;
  eb_push_error_text(L, 1);
  push_traceback(L);
  lua_pushvalue(L, 1);
  int row = state->errors * STASH_ROW;
  lua_rawseti(L, stash, row + ERROR);
  lua_rawseti(L, stash, row + TRACE);
  lua_rawseti(L, stash, row + TEXT);
  state->errors++;
  lua_settop(L, 1);
  return 1;
}

/* The rows above a height are forgotten. */
static void forget(lua_State *L, eb_state *state, int height) {
  for (; state->errors > height; state->errors--)
    for (int i = 1; i <= STASH_ROW; i++) {
      lua_pushboolean(L, 0);
      lua_rawseti(L, lua_upvalueindex(EB_UP_STASH),
                  (state->errors - 1) * STASH_ROW + i);
    }
}

void eb_take_error_texts(lua_State *L, int index, int height) {
  const int stash = lua_upvalueindex(EB_UP_STASH);
  eb_state *state = eb_get_state(L);
  int row = (state->errors - 1) * STASH_ROW;
  bool noted = state->errors > height;
  if (noted) {
    lua_rawgeti(L, stash, row + ERROR);
    noted = lua_rawequal(L, -1, index);
    lua_pop(L, 1);
  }
  if (noted) {
    lua_rawgeti(L, stash, row + TEXT);
    lua_rawgeti(L, stash, row + TRACE);
  } else { /* the handler was not called: no memory, or it failed itself */
    lua_pushvalue(L, index);
    lua_pushnil(L);
  }
  forget(L, state, height);
}

eg_bytes eb_error_text(lua_State *L, int index) {
  eg_bytes text = {NULL, 0};
  if (lua_type(L, index) == LUA_TSTRING)
    text.data = lua_tolstring(L, index, &text.len);
  if (text.len > ERROR_KEPT)
    text.len = ERROR_KEPT;
  return text;
}
