/* SPDX-License-Identifier: MIT
** guard:GetAnalytics: what all records come to, and each by its key; and what
** this process has counted.
*/
#include "lua/binding.h"

static void push_stats(lua_State *L) {
  eg_stats stats;
  eg_stats_read(&stats);
  eb_push_snapshot(L, 5);
  eb_set_count(L, "totalExecutions", stats.executions);
  eb_set_count(L, "blockedExecutions", stats.blocked);
  eb_set_count(L, "cachedResults", stats.cached);
  eb_set_count(L, "timedOutExecutions", stats.timed_out);
  eb_set_count(L, "failedExecutions", stats.failed);
}

static int get_global_stats(lua_State *L) {
  push_stats(L);
  return 1;
}

/* ---------------------------------------------------------------- keys -- */

/*
** analytics.keys is a table that is empty at first: a key is looked up when it
** is asked for, and all are when somebody goes through them; then it stands
** there and changes no more.  Who only wants the sums pays nothing for it.
*/

static void push_counts(lua_State *L, const eg_record *record) {
  lua_createtable(L, 0, 8);
  eb_set_count(L, "executions", record->count);
  eb_set_record_counts(L, record);
  eb_set_record_times(L, record);
}

/* One that only ever was locked has been waited for, perhaps. */
static bool is_counted(eg_status status, const eg_record *record) {
  return status == EG_OK ||
         record->blocked + record->cached + record->waits.len > 0;
}

/* keys, key; the guard is the upvalue. */
static int keys_index(lua_State *L) {
  eg_error error;
  eg_bytes key;
  lua_settop(L, 2);
  if (lua_type(L, 2) != LUA_TSTRING)
    return 0;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  eb_guard *guard = eb_check_guard(L, "GetAnalytics");
  key.data = lua_tolstring(L, 3, &key.len);
  if (key.len == 0 || key.len > EG_KEY_MAX)
    return 0;
  eg_record *record = eb_push_record(L);
  eg_status status = eg_fetch(eb_core(L, guard, "GetAnalytics"), key, record,
                              &error);
  if (EG_IS_FAILURE(status))
    return eb_raise(L, "GetAnalytics", &error);
  if (!is_counted(status, record)) {
    eg_record_free(record);
    return 0;
  }
  push_counts(L, record);
  eg_record_free(record);
  lua_pushvalue(L, 3);
  lua_pushvalue(L, -2);
  lua_rawset(L, 2);
  return 1;
}

static int collect_counts(lua_State *L) {
  const eg_record *record = lua_touserdata(L, 2);
  lua_pushlstring(L, record->key.data, record->key.len);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, 3) != LUA_TNIL || record->corrupt)
    return 0;
  lua_pop(L, 1);
  push_counts(L, record);
  lua_rawset(L, 3);
  return 0;
}

/* All of them, the first time. */
static void fill_keys(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_toboolean(L, lua_upvalueindex(2)))
    return;
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  eb_scan(L, "GetAnalytics", eb_check_guard(L, "GetAnalytics"),
          collect_counts);
  lua_remove(L, 1);
  lua_pushboolean(L, 1);
  lua_replace(L, lua_upvalueindex(2));
}

static int keys_next(lua_State *L) {
  lua_settop(L, 2);
  return lua_next(L, 1) != 0 ? 2 : 0;
}

static int keys_pairs(lua_State *L) {
  fill_keys(L);
  lua_pushcfunction(L, keys_next);
  lua_pushvalue(L, 1);
  lua_pushnil(L);
  return 3;
}

/* for key, counts in analytics.keys do */
static int keys_call(lua_State *L) {
  lua_settop(L, 3);
  lua_remove(L, 2);
  if (lua_isnil(L, 2)) {
    fill_keys(L);
    lua_settop(L, 1);
    lua_pushnil(L);
  }
  return lua_next(L, 1) != 0 ? 2 : 0;
}

/* The guard is at 1. */
static void push_keys(lua_State *L) {
  static const struct {
    const char *name;
    lua_CFunction function;
  } metamethods[] = {
      {"__index", keys_index}, {"__pairs", keys_pairs}, {"__call", keys_call}};
  lua_newtable(L);
  lua_createtable(L, 0, 4);
  for (size_t i = 0; i < sizeof metamethods / sizeof *metamethods; i++) {
    lua_pushvalue(L, 1);
    lua_pushboolean(L, 0);
    lua_pushcclosure(L, metamethods[i].function, 2);
    lua_setfield(L, -2, metamethods[i].name);
  }
  lua_pushliteral(L, "ExecutionGuard snapshot");
  lua_setfield(L, -2, "__metatable");
  lua_setmetatable(L, -2);
}

int eb_get_analytics(lua_State *L) {
  eg_error error;
  eg_census census;
  eb_guard *guard = eb_check_guard(L, "GetAnalytics");
  if (eg_take_census(guard->core, &census, &error) != EG_OK)
    return eb_raise(L, "GetAnalytics", &error);
  lua_settop(L, 1);
  eb_push_snapshot(L, 12);
  eb_set_count(L, "totalRecords", census.total);
  eb_set_count(L, "held", census.held);
  eb_set_count(L, "executions", census.executions);
  eb_set_count(L, "failed", census.failed);
  eb_set_count(L, "timedOut", census.timed_out);
  eb_set_count(L, "lost", census.lost);
  eb_set_count(L, "blocked", census.blocked);
  eb_set_count(L, "cached", census.cached);
  eb_set_times(L, "runTime", "runs", &census.times);
  eb_set_times(L, "waitTime", "waits", &census.waits);
  eb_push_snapshot(L, EG_RUN_COUNT);
  for (int i = 0; i < EG_RUN_COUNT; i++)
    eb_set_count(L, eg_run_word((eg_run)i), census.by_run[i]);
  lua_setfield(L, -2, "byStatus");
  push_stats(L);
  lua_setfield(L, -2, "global");
  push_keys(L);
  lua_setfield(L, -2, "keys");
  return 1;
}

const luaL_Reg eb_stats_functions[] = {{"getGlobalStats", get_global_stats},
                                       {NULL, NULL}};
