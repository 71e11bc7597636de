/* SPDX-License-Identifier: MIT
** The methods that look: results, status, records, analytics; and resets.
*/
#include "lua/binding.h"

#include <string.h>

static const char record_metatable[] = "ExecutionGuard record";
static const char snapshot_metatable[] = "ExecutionGuard snapshot";

/* ----------------------------------------------------------- fetching -- */

/* A userdata: what follows may raise an error. */
eg_record *eb_push_record(lua_State *L) {
  eg_record *record = lua_newuserdatauv(L, sizeof *record, 0);
  memset(record, 0, sizeof *record);
  luaL_setmetatable(L, record_metatable);
  return record;
}

static int record_gc(lua_State *L) {
  eg_record *record = luaL_testudata(L, 1, record_metatable);
  if (record != NULL)
    eg_record_free(record);
  return 0;
}

typedef eg_status (*fetch_fn)(eg_guard *, eg_bytes, eg_record *, eg_error *);

/* Fetches the record of the key at index 2; NULL where there is none.  To be
** freed when it has served. */
static eg_record *fetch_by(lua_State *L, const char *method, eb_guard **guard,
                           fetch_fn how) {
  eg_error error;
  *guard = eb_check_guard(L, method);
  eg_bytes key = eb_check_key(L, method);
  eg_record *record = eb_push_record(L);
  eg_status status = how(eb_core(L, *guard, method), key, record, &error);
  if (EG_IS_FAILURE(status))
    eb_raise(L, method, &error);
  return status == EG_OK ? record : NULL;
}

/* Without what is counted beside it. */
static eg_record *fetch(lua_State *L, const char *method, eb_guard **guard) {
  return fetch_by(L, method, guard, eg_look);
}

void eb_push_result(lua_State *L, const eb_guard *guard, int key_index,
                    eg_kind kind, eg_bytes value) {
  if (kind == EG_KIND_VALUE)
    eb_decode(L, value);
  else if (kind == EG_KIND_OPAQUE)
    eb_opaque_get(L, guard, key_index);
  else
    lua_pushnil(L);
}

static void push_result_of(lua_State *L, const eb_guard *guard, int key_index,
                           const eg_record *record) {
  eb_push_result(L, guard, key_index, record->kind, record->value);
}

/* ------------------------------------------------------------- results -- */

/* A value whose record no longer says "opaque" is nobody's any more. */
static void drop_dead_result(lua_State *L, const eb_guard *guard,
                             const eg_record *record) {
  if (record->kind != EG_KIND_OPAQUE)
    eb_opaque_drop(L, guard, 2);
}

static int get_result(lua_State *L) {
  eb_guard *guard;
  eg_record *record = fetch(L, "GetResult", &guard);
  if (record == NULL) {
    lua_pushnil(L);
    return 1;
  }
  push_result_of(L, guard, 2, record);
  drop_dead_result(L, guard, record);
  eg_record_free(record);
  return 1;
}

static int has_result(lua_State *L) {
  eb_guard *guard;
  eg_record *record = fetch(L, "HasResult", &guard);
  bool has = record != NULL && record->kind != EG_KIND_NONE;
  if (has && record->kind == EG_KIND_OPAQUE) {
    eb_opaque_get(L, guard, 2);
    has = !lua_isnil(L, -1);
  }
  if (record != NULL)
    eg_record_free(record);
  lua_pushboolean(L, has);
  return 1;
}

static int clear_result(lua_State *L) {
  eg_error error;
  eb_guard *guard = eb_check_guard(L, "ClearResult");
  eg_status status = eg_clear_result(guard->core,
                                     eb_check_key(L, "ClearResult"), &error);
  if (EG_IS_FAILURE(status))
    return eb_raise(L, "ClearResult", &error);
  eb_opaque_drop(L, guard, 2);
  if (guard->log && status == EG_OK)
    eb_log_info(L, guard, "Cleared result for '%s'", eb_key_text(L));
  lua_pushboolean(L, status == EG_OK);
  return 1;
}

/* ------------------------------------------------------------- records -- */

static int get_status(lua_State *L) {
  eb_guard *guard;
  eg_record *record = fetch(L, "GetStatus", &guard);
  eg_run status = record != NULL ? record->status : EG_RUN_IDLE;
  if (record != NULL)
    eg_record_free(record);
  lua_pushstring(L, eg_run_word(status));
  return 1;
}

static void set_time(lua_State *L, const char *field, int64_t us) {
  if (us <= 0)
    return;
  lua_pushnumber(L, (lua_Number)us / 1e6);
  lua_setfield(L, -2, field);
}

static void set_error(lua_State *L, const eg_record *record) {
  bool failed = record->status == EG_RUN_FAILED;
  if (!failed && record->error.len == 0)
    return;
  lua_pushlstring(L, record->error.data, record->error.len);
  if (record->trace.len > 0) {
    lua_pushliteral(L, "\n");
    lua_pushlstring(L, record->trace.data, record->trace.len);
    lua_concat(L, 3);
  }
  lua_setfield(L, -2, "error");
}

void eb_push_owner(lua_State *L, const eg_owner *owner) {
  lua_createtable(L, 0, 6);
  lua_pushstring(L, owner->host);
  lua_setfield(L, -2, "host");
  lua_pushinteger(L, owner->pid);
  lua_setfield(L, -2, "pid");
  lua_pushstring(L, owner->text);
  lua_setfield(L, -2, "text");
  lua_pushboolean(L, owner->mine);
  lua_setfield(L, -2, "mine");
  lua_pushboolean(L, owner->here);
  lua_setfield(L, -2, "here");
  set_time(L, "since", owner->since_us);
}

/* When the result or error stops counting; wall time. */
static void set_expires(lua_State *L, const eg_record *record) {
  if (record->fresh_left_us > 0)
    set_time(L, "expires", eg_wall_us() + record->fresh_left_us);
}

void eb_set_count(lua_State *L, const char *name, uint64_t n) {
  lua_pushinteger(L, (lua_Integer)n);
  lua_setfield(L, -2, name);
}

void eb_set_seconds(lua_State *L, const char *name, int64_t us) {
  lua_pushnumber(L, (lua_Number)us / 1e6);
  lua_setfield(L, -2, name);
}

void eb_set_times(lua_State *L, const char *name, const char *n,
                  const eg_times *times) {
  lua_createtable(L, 0, 5);
  eb_set_count(L, n, times->runs);
  eb_set_seconds(L, "total", times->total_us);
  eb_set_seconds(L, "p50", times->p50_us);
  eb_set_seconds(L, "p95", times->p95_us);
  eb_set_seconds(L, "p99", times->p99_us);
  lua_setfield(L, -2, name);
}

void eb_set_record_counts(lua_State *L, const eg_record *record) {
  eb_set_count(L, "failed", record->failed);
  eb_set_count(L, "timedOut", record->timed_out);
  eb_set_count(L, "lost", record->lost);
  eb_set_count(L, "blocked", record->blocked);
  eb_set_count(L, "cached", record->cached);
}

void eb_set_record_times(lua_State *L, const eg_record *record) {
  eg_times times;
  eg_record_times(record, &times);
  eb_set_times(L, "runTime", "runs", &times);
  eg_record_waits(record, &times);
  eb_set_times(L, "waitTime", "waits", &times);
}

static void set_progress(lua_State *L, const eg_record *record) {
  if (record->progress < 0)
    return;
  lua_pushnumber(L, record->progress);
  lua_setfield(L, -2, "progress");
}

static void push_table_of(lua_State *L, const eb_guard *guard, int key_index,
                          const eg_record *record) {
  key_index = lua_absindex(L, key_index);
  lua_createtable(L, 0, 22);
  lua_pushvalue(L, key_index);
  lua_setfield(L, -2, "key");
  lua_pushstring(L, eg_run_word(record->status));
  lua_setfield(L, -2, "status");
  eb_set_count(L, "executionCount", record->count);
  eb_set_record_counts(L, record);
  eb_set_count(L, "token", record->token);
  lua_pushboolean(L, record->locked);
  lua_setfield(L, -2, "locked");
  set_time(L, "startTime", record->start_us);
  set_time(L, "endTime", record->end_us);
  set_time(L, "lastExecutionTime", record->last_us);
  if (record->end_us > 0)
    eb_set_seconds(L, "duration", record->duration_us);
  if (record->cooldown_left_us > 0)
    eb_set_seconds(L, "cooldownLeft", record->cooldown_left_us);
  push_result_of(L, guard, key_index, record);
  lua_setfield(L, -2, "result");
  set_error(L, record);
  if (record->locked) {
    eb_push_owner(L, &record->owner);
    lua_setfield(L, -2, "owner");
  }
  set_progress(L, record);
  set_expires(L, record);
}

static int get_record(lua_State *L) {
  eb_guard *guard;
  eg_record *record = fetch_by(L, "GetRecord", &guard, eg_fetch);
  if (record == NULL) {
    lua_pushnil(L);
    return 1;
  }
  push_table_of(L, guard, 2, record);
  eb_set_record_times(L, record);
  eg_record_free(record);
  return 1;
}

/* --------------------------------------------------------- all of them -- */

/* for key, record in records do: a call of the table is a step of next. */
static int snapshot_call(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 3);
  lua_remove(L, 2);
  return lua_next(L, 1) != 0 ? 2 : 0;
}

void eb_push_snapshot(lua_State *L, int fields) {
  lua_createtable(L, 0, fields);
  luaL_setmetatable(L, snapshot_metatable);
}

/* Visits run under lua_pcall, below C code that holds memory: an error is
** caught in the visit, kept on the stack, and ends the scan. */
typedef struct visitor {
  lua_State *L;
  lua_CFunction each;
  const eb_guard *guard;
  bool failed;
} visitor;

static bool visit(void *ctx, const eg_record *record) {
  visitor *v = ctx;
  lua_State *L = v->L;
  lua_pushcfunction(L, v->each);
  lua_pushlightuserdata(L, v);
  lua_pushlightuserdata(L, (void *)record);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, 1);
  v->failed = lua_pcall(L, 4, 0, 0) != LUA_OK;
  return !v->failed;
}

typedef eg_status scan_fn(eg_guard *guard, eg_bytes prefix, eg_visit visit,
                          void *ctx, eg_error *error);

static void scan_by(lua_State *L, const char *method, eb_guard *guard,
                    scan_fn *scan, lua_CFunction each) {
  eg_error error;
  visitor v = {L, each, guard, false};
  eg_guard *core = eb_core(L, guard, method);
  eb_begin_scan(guard);
  eg_status status = scan(core, (eg_bytes){"", 0}, visit, &v, &error);
  eb_end_scan(guard);
  if (v.failed)
    lua_error(L);
  if (status != EG_OK)
    eb_raise(L, method, &error);
}

void eb_scan(lua_State *L, const char *method, eb_guard *guard,
             lua_CFunction each) {
  scan_by(L, method, guard, eg_scan, each);
}

static int collect_record(lua_State *L) {
  const visitor *v = lua_touserdata(L, 1);
  const eg_record *record = lua_touserdata(L, 2);
  lua_pushlstring(L, record->key.data, record->key.len);
  /* opaque values are looked up in the guard, which must stand at 1 */
  lua_pushvalue(L, 4);
  lua_replace(L, 1);
  push_table_of(L, v->guard, 5, record);
  lua_rawset(L, 3);
  return 0;
}

static int get_all_records(lua_State *L) {
  eb_guard *guard = eb_check_guard(L, "GetAllRecords");
  lua_settop(L, 1);
  eb_push_snapshot(L, 0);
  eb_scan(L, "GetAllRecords", guard, collect_record);
  return 1;
}

/* What is held: the key, by what, since when. */
static int collect_held(lua_State *L) {
  const eg_record *record = lua_touserdata(L, 2);
  if (!record->locked)
    return 0;
  lua_pushlstring(L, record->key.data, record->key.len);
  lua_createtable(L, 0, 4);
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "key");
  lua_pushboolean(L, record->status == EG_RUN_RUNNING);
  lua_setfield(L, -2, "running");
  eb_set_count(L, "token", record->token);
  eb_push_owner(L, &record->owner);
  lua_setfield(L, -2, "owner");
  set_progress(L, record);
  lua_rawset(L, 3);
  return 0;
}

static int get_held(lua_State *L) {
  eb_guard *guard = eb_check_guard(L, "GetHeld");
  lua_settop(L, 1);
  eb_push_snapshot(L, 0);
  scan_by(L, "GetHeld", guard, eg_scan_held, collect_held);
  return 1;
}

static int collect_key(lua_State *L) {
  const eg_record *record = lua_touserdata(L, 2);
  lua_pushlstring(L, record->key.data, record->key.len);
  lua_rawseti(L, 3, (lua_Integer)lua_rawlen(L, 3) + 1);
  return 0;
}

/* -------------------------------------------------------------- resets -- */

static int reset(lua_State *L) {
  eg_error error;
  eb_guard *guard = eb_check_guard(L, "Reset");
  eg_status status = eg_reset(guard->core, eb_check_key(L, "Reset"), &error);
  if (status != EG_OK)
    return eb_raise(L, "Reset", &error);
  eb_opaque_drop(L, guard, 2);
  if (guard->log)
    eb_log_info(L, guard, "Reset '%s'", eb_key_text(L));
  return 0;
}

static bool is_forced(lua_State *L) {
  if (lua_isnoneornil(L, 2))
    return false;
  if (lua_type(L, 2) != LUA_TTABLE)
    luaL_error(L, "ResetAll: options must be a table {force=true}, not %s",
               eb_describe(L, 2));
  for (lua_pushnil(L); lua_next(L, 2) != 0; lua_pop(L, 1))
    if (lua_type(L, -2) != LUA_TSTRING ||
        strcmp(lua_tostring(L, -2), "force") != 0)
      luaL_error(L, "ResetAll: the only option is 'force'");
    else if (lua_type(L, -1) != LUA_TBOOLEAN)
      luaL_error(L, "ResetAll: option 'force' must be a boolean, not %s",
                 eb_describe(L, -1));
  lua_getfield(L, 2, "force");
  return lua_toboolean(L, -1);
}

static int reset_all(lua_State *L) {
  eg_error error;
  eb_guard *guard = eb_check_guard(L, "ResetAll");
  if (!is_forced(L) && guard->shared)
    return luaL_error(L, "ResetAll: this guard is shared with others; write "
                         "guard:ResetAll{force = true} to reset their "
                         "records too");
  lua_settop(L, 1);
  lua_newtable(L);
  eb_scan(L, "ResetAll", guard, collect_key);
  lua_Integer n = (lua_Integer)lua_rawlen(L, 2);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, 2, i);
    eg_bytes key;
    key.data = lua_tolstring(L, 3, &key.len);
    if (eg_reset(eb_core(L, guard, "ResetAll"), key, &error) != EG_OK)
      return eb_raise(L, "ResetAll", &error);
    eb_opaque_drop(L, guard, 3);
    lua_settop(L, 2);
  }
  if (guard->log)
    eb_log_info(L, guard, "Reset all records");
  return 0;
}

void eb_open_query(lua_State *L) {
  static const luaL_Reg record_metamethods[] = {{"__gc", record_gc},
                                                {NULL, NULL}};
  static const luaL_Reg snapshot_metamethods[] = {{"__call", snapshot_call},
                                                  {NULL, NULL}};
  luaL_newmetatable(L, record_metatable);
  luaL_setfuncs(L, record_metamethods, 0);
  luaL_newmetatable(L, snapshot_metatable);
  luaL_setfuncs(L, snapshot_metamethods, 0);
  lua_pushstring(L, snapshot_metatable);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 2);
}

const luaL_Reg eb_query_methods[] = {{"GetResult", get_result},
                                     {"HasResult", has_result},
                                     {"ClearResult", clear_result},
                                     {"GetStatus", get_status},
                                     {"GetRecord", get_record},
                                     {"GetAllRecords", get_all_records},
                                     {"GetHeld", get_held},
                                     {"GetAnalytics", eb_get_analytics},
                                     {"Reset", reset},
                                     {"ResetAll", reset_all},
                                     {"History", eb_history},
                                     {"Metrics", eb_guard_metrics},
                                     {NULL, NULL}};
