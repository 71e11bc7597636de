/* SPDX-License-Identifier: MIT
** The guard as a Lua object: made, told apart, closed.
*/
#include "lua/binding.h"

#include <stdio.h>
#include <string.h>

static const char metatable_name[] = "ExecutionGuard";

/* --------------------------------------------------------- arguments -- */

/* A full userdata of our size that points at itself and bears our number is
** ours: cheaper than comparing metatables, and as sure. */
static eb_guard *to_guard(lua_State *L, int index) {
  eb_guard *guard = lua_touserdata(L, index);
  if (guard != NULL && lua_rawlen(L, index) == sizeof *guard &&
      guard->magic == EB_GUARD_MAGIC && guard->self == guard)
    return guard;
  return NULL;
}

eg_guard *eb_core(lua_State *L, const eb_guard *guard, const char *method) {
  if (guard->core == NULL || guard->closing)
    luaL_error(L, "%s: this guard is closed; make a new one", method);
  return guard->core;
}

eb_guard *eb_check_guard(lua_State *L, const char *method) {
  eb_guard *guard = to_guard(L, 1);
  if (guard == NULL)
    luaL_error(L,
               "%s: called on %s, not on a guard (write guard:%s(...), "
               "with a colon)",
               method, eb_describe(L, 1), method);
  if (eb_has_late(guard->state))
    eb_call_late(L, guard->state, false);
  eb_core(L, guard, method);
  return guard;
}

static int bad_key(lua_State *L, const char *method) {
  size_t len;
  if (lua_type(L, 2) == LUA_TNUMBER) {
    const char *number = eb_describe(L, 2);
    lua_pushvalue(L, 2);
    return luaL_error(L,
                      "%s: the key must be a string, not %s; use "
                      "tostring(%s)",
                      method, number, lua_tostring(L, -1));
  }
  if (lua_type(L, 2) != LUA_TSTRING)
    return luaL_error(L, "%s: the key must be a string, not %s", method,
                      eb_describe(L, 2));
  lua_tolstring(L, 2, &len);
  if (len == 0)
    return luaL_error(L,
                      "%s: the key is the empty string; it must have 1 to "
                      "%d bytes",
                      method, EG_KEY_MAX);
  return luaL_error(L,
                    "%s: the key has %I bytes; it must have 1 to %d (use a "
                    "hash of it)",
                    method, (LUAI_UACINT)len, EG_KEY_MAX);
}

eg_bytes eb_check_key(lua_State *L, const char *method) {
  eg_bytes key = {NULL, 0};
  if (lua_type(L, 2) == LUA_TSTRING)
    key.data = lua_tolstring(L, 2, &key.len);
  if (key.len < 1 || key.len > EG_KEY_MAX)
    bad_key(L, method);
  return key;
}

void eb_check_callable(lua_State *L, int index, const char *method,
                       const char *what) {
  if (lua_type(L, index) == LUA_TFUNCTION)
    return;
  if (luaL_getmetafield(L, index, "__call") != LUA_TNIL) {
    lua_pop(L, 1);
    return;
  }
  luaL_error(L, "%s: %s must be a function, not %s", method, what,
             eb_describe(L, index));
}

int eb_raise(lua_State *L, const char *method, const eg_error *error) {
  return luaL_error(L, "%s: %s", method, error->message);
}

int eb_push_failure(lua_State *L, const eg_error *error) {
  lua_pushstring(L, eg_status_word(error->status));
  lua_pushstring(L, error->message);
  if (error->os_errno == 0)
    return 2;
  lua_pushinteger(L, error->os_errno);
  return 3;
}

void eb_push_callback(lua_State *L, int guard_index, int options_index,
                      const char *name) {
  if (options_index != 0 && lua_type(L, options_index) == LUA_TTABLE) {
    lua_pushstring(L, name);
    if (lua_rawget(L, options_index) != LUA_TNIL)
      return;
    lua_pop(L, 1);
  }
  if (lua_getiuservalue(L, guard_index, EB_UV_OPTIONS) != LUA_TTABLE)
    return; /* nil: no options were given */
  lua_pushstring(L, name);
  lua_rawget(L, -2);
  lua_remove(L, -2);
}

/* -------------------------------------------------------------- making -- */

/* Reads the argument of new; a table is copied, so that changing it later
** changes nothing here. */
static void read_creation(lua_State *L, eb_guard *guard,
                          eb_creation *creation) {
  switch (lua_type(L, 1)) {
  case LUA_TNONE:
  case LUA_TNIL:
    return;
  case LUA_TBOOLEAN:
    creation->debug = lua_toboolean(L, 1);
    return;
  case LUA_TTABLE:
    break;
  default:
    luaL_error(L,
               "ExecutionGuard.new: takes a boolean (debug) or a table of "
               "options, not %s",
               eb_describe(L, 1));
  }
  lua_newtable(L);
  for (lua_pushnil(L); lua_next(L, 1) != 0;) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -4);
  }
  eb_read_options(L, lua_gettop(L), "ExecutionGuard.new", &guard->settings,
                  creation);
  lua_setiuservalue(L, 2, EB_UV_OPTIONS);
}

/* What a store has to say while it is opened is told when that is done: no Lua
** code runs in between.  Later it may come from any thread, and is not. */
static void note(void *ud, eg_log_level level, const char *message,
                 eg_bytes key) {
  eb_guard *guard = ud;
  (void)key;
  if (level != EG_LOG_WARN || !guard->notes.wanted ||
      guard->notes.n == EB_NOTES)
    return;
  snprintf(guard->notes.text[guard->notes.n++], EB_NOTE_SIZE, "%s", message);
}

/* A log line takes the guard at 1, and a key at 2. */
static void tell_created(lua_State *L, const eb_guard *guard) {
  lua_pushliteral(L, "");
  lua_replace(L, 1);
  lua_insert(L, 1);
  if (guard->log)
    eb_log_info(L, guard, "ExecutionGuard created (Debug: %s)",
                guard->debug ? "true" : "false");
  for (int i = 0; i < guard->notes.n; i++)
    eb_log_warn(L, guard, "%s", guard->notes.text[i]);
  lua_pop(L, 1);
}

/* The options at 1 make a guard, which is pushed. */
static eg_status make_guard(lua_State *L, eg_error *error) {
  eb_creation creation = {0};
  lua_settop(L, 1);
  eb_guard *guard = lua_newuserdatauv(L, sizeof *guard, EB_UV_COUNT);
  memset(guard, 0, sizeof *guard);
  luaL_setmetatable(L, metatable_name);
  guard->state = eb_get_state(L);
  eb_settings_init(&guard->settings);
  read_creation(L, guard, &creation);
  eg_options options = {.store = creation.store,
                        .name = creation.name,
                        .owner = creation.owner,
                        .state = guard->state->id,
                        .history = creation.history,
                        .env = {.log = note, .log_ud = guard}};
  guard->notes.wanted = true;
  eg_status status = eg_open(&options, &guard->core, error);
  guard->notes.wanted = false;
  if (status != EG_OK)
    return status;
  guard->magic = EB_GUARD_MAGIC;
  guard->self = guard;
  guard->shared = eg_is_shared(guard->core);
  eb_mind_term(guard->core);
  guard->debug = creation.debug;
  if (!guard->shared) /* its results are Lua's to bound */
    guard->settings.policy.max_result = SIZE_MAX;
  eb_push_callback(L, 2, 0, "logger");
  guard->log = creation.debug || !lua_isnil(L, -1);
  lua_settop(L, 2);
  tell_created(L, guard);
  return EG_OK;
}

int eb_new(lua_State *L) {
  eg_error error;
  if (make_guard(L, &error) != EG_OK)
    return eb_raise(L, "ExecutionGuard.new", &error);
  return 1;
}

int eb_try_new(lua_State *L) {
  eg_error error;
  eg_status status = make_guard(L, &error);
  if (status == EG_OK)
    return 1;
  lua_pushnil(L);
  return 1 + eb_push_failure(L, &error);
}

static void close_guard(eb_guard *guard) {
  guard->opaque = false;
  guard->closing = guard->scans > 0;
  if (guard->closing)
    return;
  if (guard->core != NULL)
    eb_void_runs(guard);
  eg_close(guard->core);
  guard->core = NULL;
}

void eb_begin_scan(eb_guard *guard) { guard->scans++; }

void eb_end_scan(eb_guard *guard) {
  guard->scans--;
  if (guard->closing)
    close_guard(guard);
}

static int guard_close(lua_State *L) {
  eb_guard *guard = to_guard(L, 1);
  if (guard == NULL)
    eb_check_guard(L, "Close");
  close_guard(guard);
  for (int i = 1; i <= EB_UV_COUNT; i++) {
    lua_pushnil(L);
    lua_setiuservalue(L, 1, i);
  }
  return 0;
}

static int guard_gc(lua_State *L) {
  eb_guard *guard = to_guard(L, 1);
  if (guard != NULL)
    close_guard(guard);
  return 0;
}

static int guard_tostring(lua_State *L) {
  const eb_guard *guard = to_guard(L, 1);
  if (guard == NULL)
    lua_pushliteral(L, "ExecutionGuard (not open)");
  else
    lua_pushfstring(
        L, "ExecutionGuard (%s%s): %p", guard->shared ? "shared" : "private",
        guard->core == NULL ? ", closed" : "", (const void *)guard);
  return 1;
}

static const luaL_Reg metamethods[] = {
    {"__gc", guard_gc},
    {"__close", guard_close},
    {"__tostring", guard_tostring},
    {NULL, NULL},
};

static const luaL_Reg own_methods[] = {
    {"Close", guard_close},
    {"RunOnce", eb_run_once},
    {NULL, NULL},
};

/* Makes the metatable; the upvalues of all functions are on top. */
void eb_open_guard(lua_State *L) {
  int upvalues = lua_gettop(L) - EB_UPVALUES + 1;
  luaL_newmetatable(L, metatable_name);
  luaL_setfuncs(L, metamethods, 0);
  lua_newtable(L);
  for (int i = 0; i < EB_UPVALUES; i++)
    lua_pushvalue(L, upvalues + i);
  eb_set_functions(L, own_methods);
  eb_set_functions(L, eb_lock_methods);
  eb_set_functions(L, eb_query_methods);
  lua_pop(L, EB_UPVALUES);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "ExecutionGuard");
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
}
