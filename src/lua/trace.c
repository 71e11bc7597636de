/* SPDX-License-Identifier: MIT
** What ExecutionGuard.trace is made of (executionguard/trace.lua).
*/
#include "lua/binding.h"

#include "executionguard_view.h"

/* start(events) -> true; or false and why not */
static int start(lua_State *L) {
  eg_error error;
  eg_status status = eg_trace_start((size_t)luaL_checkinteger(L, 1), &error);
  lua_pushboolean(L, status == EG_OK);
  if (status == EG_OK)
    return 1;
  lua_pushstring(L, error.message);
  return 2;
}

/* stop(keep) -> text or nothing, events, dropped; or nil and why not */
static int stop(lua_State *L) {
  eg_error error = {.message = "not enough memory for the trace"};
  eg_traced traced = {0};
  bool keep = lua_toboolean(L, 1);
  eb_text *text = eb_text_push(L);
  eg_status status = eg_trace_stop(keep ? eb_text_add : NULL, text, &traced,
                                   &error);
  if (status != EG_OK) {
    eb_text_clear(text);
    lua_pushnil(L);
    lua_pushstring(L, error.message);
    return 2;
  }
  lua_pushlstring(L, text->n > 0 ? text->data : "", text->n);
  eb_text_clear(text);
  lua_pushinteger(L, (lua_Integer)traced.events);
  lua_pushinteger(L, (lua_Integer)traced.dropped);
  return 3;
}

/* retry(guard or nil, key, attempt): another attempt of the executor's begins
*/
static int retry(lua_State *L) {
  size_t len;
  const char *key = luaL_checklstring(L, 2, &len);
  const eb_guard *guard = lua_isnil(L, 1) ? NULL : eb_check_guard(L, "retry");
  if (guard == NULL || guard->core != NULL)
    eg_trace_retry(guard != NULL ? guard->core : NULL, (eg_bytes){key, len},
                   (uint64_t)luaL_checkinteger(L, 3));
  return 0;
}

void eb_push_tracing(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"start", start}, {"stop", stop}, {"retry", retry}, {NULL, NULL}};
  luaL_newlib(L, functions);
}
