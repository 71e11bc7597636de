/* SPDX-License-Identifier: MIT
** ExecutionGuard.metrics and guard:Metrics: the records in numbers, as text
** for Prometheus.
*/
#include "lua/binding.h"

#include <string.h>

static size_t check_top(lua_State *L, const char *method) {
  if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) < 0 ||
      lua_tointeger(L, -1) > UINT32_MAX)
    luaL_error(L,
               "%s: option 'top' must be an integer from 0 to 4294967295, "
               "not %s",
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
  eb_text *t = eb_text_push(L);
  eg_status status = eg_write_metrics(core, top, format, eb_text_add, t,
                                      &error);
  if (t->no_memory)
    return luaL_error(L, "%s: not enough memory", method);
  if (status != EG_OK)
    return eb_raise(L, method, &error);
  lua_pushlstring(L, t->data, t->n);
  eb_text_clear(t);
  return 1;
}

int eb_metrics(lua_State *L) {
  return push_metrics(L, "ExecutionGuard.metrics", NULL, 1);
}

int eb_guard_metrics(lua_State *L) {
  eb_guard *guard = eb_check_guard(L, "Metrics");
  return push_metrics(L, "Metrics", eb_core(L, guard, "Metrics"), 2);
}
