/* SPDX-License-Identifier: MIT
** The log of a guard: to its logger, else by print and warn.
**
** The lines are those of the original.  Info, and warnings of what the caller
** is told anyway, are said only where somebody listens (debug, or a logger);
** their callers ask guard->log before they make any text.  A log line is said
** while a grant may be open, so everything here runs under protection; what
** the logger raises is dropped.
*/
#include "lua/binding.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LINE_MAX_BYTES 1024

static const char logger_field[] = "ExecutionGuard logger";

static const char prefix[] = "[ExecutionGuard] ";

typedef struct entry {
  const eb_guard *guard;
  const char *level;
  const char *line, *text; /* with the prefix, and without */
} entry;

/* Nobody listens but those who have turned Lua's warnings on, which cannot be
** asked: the way of every run that times out.  1 entry */
static int say_to_lua(lua_State *L) {
  const entry *e = lua_touserdata(L, 1);
  lua_warning(L, e->line, 0);
  return 0;
}

/* 1 entry, 2 key, 3 guard */
static int say(lua_State *L) {
  const entry *e = lua_touserdata(L, 1);
  bool warning = strcmp(e->level, "warn") == 0;
  eb_push_callback(L, 3, 0, "logger");
  if (lua_isnil(L, -1))
    lua_getfield(L, LUA_REGISTRYINDEX, logger_field);
  if (!lua_isnil(L, -1)) {
    lua_pushstring(L, e->level);
    lua_pushstring(L, e->text);
    lua_pushvalue(L, 2);
    lua_call(L, 3, 0);
    return 0;
  }
  if (!e->guard->debug)
    return say_to_lua(L);
  lua_getglobal(L, "print");
  lua_pushfstring(L, "%s%s", warning ? "Warning: " : "", e->line);
  lua_call(L, 1, 0);
  return 0;
}

static void protected_say(lua_State *L, const eb_guard *guard,
                          const char *level, const char *format,
                          va_list args) {
  char line[sizeof prefix + LINE_MAX_BYTES];
  char *text = line + sizeof prefix - 1;
  memcpy(line, prefix, sizeof prefix);
  vsnprintf(text, LINE_MAX_BYTES, format, args);
  entry e = {guard, level, line, text};
  int top = lua_gettop(L);
  lua_pushcfunction(L, guard->log || guard->state->logger ? say : say_to_lua);
  lua_pushlightuserdata(L, &e);
  lua_pushvalue(L, 2); /* the key of the method that is being called */
  lua_pushvalue(L, 1);
  lua_pcall(L, 3, 0, 0);
  lua_settop(L, top);
}

const char *eb_key_text(lua_State *L) {
  const char *key = lua_tostring(L, 2);
  return key != NULL ? key : "";
}

void eb_log_info(lua_State *L, const eb_guard *guard, const char *format,
                 ...) {
  va_list args;
  va_start(args, format);
  protected_say(L, guard, "info", format, args);
  va_end(args);
}

void eb_log_warn(lua_State *L, const eb_guard *guard, const char *format,
                 ...) {
  va_list args;
  va_start(args, format);
  protected_say(L, guard, "warn", format, args);
  va_end(args);
}

/* setLogger(fn(level, message, key) or nil): of guards without their own. */
int eb_set_logger(lua_State *L) {
  lua_settop(L, 1);
  if (!lua_isnil(L, 1))
    eb_check_callable(L, 1, "ExecutionGuard.setLogger", "fn");
  eb_get_state(L)->logger = !lua_isnil(L, 1);
  lua_setfield(L, LUA_REGISTRYINDEX, logger_field);
  return 0;
}
