/* SPDX-License-Identifier: MIT
** ExecutionGuard.metrics and guard:Metrics: the records in numbers, as text
** for Prometheus.
*/
#include "lua/binding.h"

#include <stdlib.h>
#include <string.h>

static const char metatable[] = "ExecutionGuard text";

/* What is being written; freed at the latest when it is collected, for Lua may
** raise an error in between. */
typedef struct text {
  char *data;
  size_t n, cap;
  bool no_memory;
} text;

static bool collect(void *ctx, const void *data, size_t n) {
  text *t = ctx;
  if (t->n + n > t->cap) {
    size_t cap = 2 * t->cap + n;
    char *more = realloc(t->data, cap);
    t->no_memory = more == NULL;
    if (more == NULL)
      return false;
    t->data = more;
    t->cap = cap;
  }
  memcpy(t->data + t->n, data, n);
  t->n += n;
  return true;
}

static void clear(text *t) {
  free(t->data);
  t->data = NULL;
}

static int text_gc(lua_State *L) {
  text *t = luaL_testudata(L, 1, metatable);
  if (t != NULL)
    clear(t);
  return 0;
}

static text *push_text_object(lua_State *L) {
  text *t = lua_newuserdatauv(L, sizeof *t, 0);
  memset(t, 0, sizeof *t);
  if (luaL_newmetatable(L, metatable)) {
    lua_pushcfunction(L, text_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushliteral(L, "ExecutionGuard");
    lua_setfield(L, -2, "__metatable");
  }
  lua_setmetatable(L, -2);
  return t;
}

static size_t check_top(lua_State *L, const char *method) {
  if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) < 0 ||
      lua_tointeger(L, -1) > UINT32_MAX)
    luaL_error(L, "%s: option 'top' must be an integer from 0 on, not %s",
               method, eb_describe(L, -1));
  return (size_t)lua_tointeger(L, -1);
}

/* {top = 50, openmetrics = false} at this index, or nothing */
static void check_options(lua_State *L, const char *method, int index,
                          size_t *top, eg_metrics_format *format) {
  *top = EG_METRICS_TOP;
  *format = EG_METRICS_TEXT;
  if (lua_isnoneornil(L, index))
    return;
  if (lua_type(L, index) != LUA_TTABLE)
    luaL_error(L, "%s: options must be a table, not %s", method,
               eb_describe(L, index));
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2)
                                                      : "";
    if (strcmp(name, "top") == 0)
      *top = check_top(L, method);
    else if (strcmp(name, "openmetrics") != 0)
      luaL_error(L, "%s: unknown option %s; it takes 'top' and 'openmetrics'",
                 method, eb_describe(L, -2));
    else if (lua_type(L, -1) != LUA_TBOOLEAN)
      luaL_error(L, "%s: option 'openmetrics' must be a boolean, not %s",
                 method, eb_describe(L, -1));
    else if (lua_toboolean(L, -1))
      *format = EG_METRICS_OPENMETRICS;
  }
}

static int push_metrics(lua_State *L, const char *method, eg_guard *core,
                        int options) {
  eg_error error;
  size_t top;
  eg_metrics_format format;
  check_options(L, method, options, &top, &format);
  text *t = push_text_object(L);
  eg_status status = eg_write_metrics(core, top, format, collect, t, &error);
  if (t->no_memory)
    return luaL_error(L, "%s: not enough memory", method);
  if (status != EG_OK)
    return eb_raise(L, method, &error);
  lua_pushlstring(L, t->data, t->n);
  clear(t);
  return 1;
}

int eb_metrics(lua_State *L) {
  return push_metrics(L, "ExecutionGuard.metrics", NULL, 1);
}

int eb_guard_metrics(lua_State *L) {
  eb_guard *guard = eb_check_guard(L, "Metrics");
  return push_metrics(L, "Metrics", eb_core(L, guard, "Metrics"), 2);
}
