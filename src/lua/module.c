/* SPDX-License-Identifier: MIT
** executionguard.core: what require finds, and what each Lua state has of its
** own.
*/
#include "lua/interrupt.h"
#include "lua/pool.h"

#include <string.h>

static const char upvalues_field[] = "ExecutionGuard upvalues";

EG_API int luaopen_executionguard_core(lua_State *L);

static void make_state(lua_State *L) {
  eb_state *state = lua_newuserdatauv(L, sizeof *state, 0);
  memset(state, 0, sizeof *state);
  state->id = eg_next_state();
  state->random = (uint64_t)eg_wall_us() * 2 + 1 + (uint64_t)state->id;
  eb_finalize_state(L);
}

/* The upvalues are made once in a state, however often the module is opened,
** so that all its guards agree on who they are. */
void eb_push_upvalues(lua_State *L) {
  luaL_checkstack(L, EB_UPVALUES + 2, "ExecutionGuard");
  if (lua_getfield(L, LUA_REGISTRYINDEX, upvalues_field) == LUA_TTABLE) {
    int table = lua_gettop(L);
    for (int i = 1; i <= EB_UPVALUES; i++)
      lua_rawgeti(L, table, i);
    lua_remove(L, table);
    return;
  }
  lua_pop(L, 1);
  make_state(L);
  lua_pushliteral(L, "cached");
  lua_createtable(L, 3, 0);
  lua_pushvalue(L, -1);
  lua_pushvalue(L, -4);
  lua_pushcclosure(L, eb_handler, 2);
  lua_insert(L, -2);
  eb_push_option_names(L);
  lua_createtable(L, EB_UPVALUES, 0);
  for (int i = 1; i <= EB_UPVALUES; i++) {
    lua_pushvalue(L, -EB_UPVALUES - 2 + i);
    lua_rawseti(L, -2, i);
  }
  lua_setfield(L, LUA_REGISTRYINDEX, upvalues_field);
}

void eb_set_functions(lua_State *L, const luaL_Reg *functions) {
  int first = lua_gettop(L) - EB_UPVALUES + 1;
  for (; functions->name != NULL; functions++) {
    for (int i = 0; i < EB_UPVALUES; i++)
      lua_pushvalue(L, first + i);
    lua_pushcclosure(L, functions->func, EB_UPVALUES);
    lua_setfield(L, first - 1, functions->name);
  }
}

void eb_make_metatable(lua_State *L, const char *name,
                       const luaL_Reg *functions) {
  luaL_newmetatable(L, name);
  eb_push_upvalues(L);
  eb_set_functions(L, functions);
  lua_pop(L, EB_UPVALUES + 1);
}

static const luaL_Reg module_functions[] = {
    {"new", eb_new},
    {"tryNew", eb_try_new},
    {"expired", eb_expired},
    {"shield", eb_shield},
    {"setLogger", eb_set_logger},
    {"metrics", eb_metrics},
    {"engine", eb_configure_engine},
    {"terminate", eb_configure_term},
    {"waitSignal", eb_configure_wait},
    {"terminal", eb_terminal},
    {"summary", eb_summary},
    {NULL, NULL},
};

int luaopen_executionguard_core(lua_State *L) {
  eb_open_interrupt(L);
  eb_open_private(L);
  eb_open_lock(L);
  eb_open_waiting(L);
  eb_open_query(L);
  eb_open_run(L);
  eb_open_shield(L);
  eb_push_upvalues(L);
  eb_open_guard(L);
  eb_open_wrap(L);
  lua_newtable(L);
  lua_insert(L, -EB_UPVALUES - 1);
  eb_set_functions(L, module_functions);
  eb_set_functions(L, eb_stats_functions);
  eb_set_functions(L, eb_clock_functions);
  eb_push_waiting(L);
  lua_pop(L, EB_UPVALUES);
  lua_setfield(L, -2, "waiting");
  eb_push_upvalues(L);
  eb_push_worker(L);
  lua_pop(L, EB_UPVALUES);
  lua_setfield(L, -2, "worker");
  lua_pushliteral(L, EG_VERSION);
  lua_setfield(L, -2, "version");
  eb_push_isolation(L);
  lua_setfield(L, -2, "isolation");
  eb_push_fence(L);
  lua_setfield(L, -2, "fence");
  eb_push_tracing(L);
  lua_setfield(L, -2, "trace");
  eb_push_testing(L);
  lua_setfield(L, -2, "clock");
  eb_push_own(L);
  lua_setfield(L, -2, "own");
  eb_push_job(L);
  lua_setfield(L, -2, "job");
  eb_push_limits(L);
  lua_setfield(L, -2, "limit");
  return 1;
}
