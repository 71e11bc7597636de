/* SPDX-License-Identifier: MIT
** AcquireLock, ReleaseLock, IsLocked, and locks that close themselves.
*/
#include "lua/binding.h"

#include <string.h>

#define DEFAULT_WAIT_MS 30000

static const char lock_metatable[] = "ExecutionGuard lock";

/* ------------------------------------------------------------- acquire -- */

static int64_t wait_of(lua_State *L, const char *method) {
  if (lua_isnoneornil(L, 3))
    return DEFAULT_WAIT_MS;
  return eb_ms(eb_check_seconds(L, 3, method, "timeout"));
}

/* A status that is no grant, as the values of a method: pushed are the
** first one, which the caller chose, and the reason; COOLDOWN has the seconds
** that are left, a failure its message and errno. */
static int refused(lua_State *L, const eb_guard *guard, eg_status status,
                   eg_reply *reply) {
  int64_t left = reply->left_us;
  if (guard->log)
    eb_log_warn(L, guard, "Failed to acquire lock for '%s': it %s",
                eb_key_text(L), eg_status_text(status));
  eg_reply_free(reply);
  if (EG_IS_FAILURE(status))
    return 1 + eb_push_failure(L, &reply->failure);
  lua_pushstring(L, eg_status_word(status));
  if (status == EG_COOLDOWN && left >= 0) {
    lua_pushnumber(L, (lua_Number)left / 1e6);
    return 3;
  }
  return 2;
}

static void log_acquired(lua_State *L, const eb_guard *guard) {
  if (guard->log)
    eb_log_info(L, guard, "Lock acquired for '%s'", eb_key_text(L));
}

static int lock_acquired(lua_State *L, eb_wait_end *end) {
  if (end->status != EG_OK) {
    lua_pushboolean(L, 0);
    return refused(L, end->guard, end->status, &end->reply);
  }
  eg_reply_free(&end->reply);
  log_acquired(L, end->guard);
  lua_pushboolean(L, 1);
  lua_pushinteger(L, (lua_Integer)end->grant.token);
  return 2;
}

/* Asks for a lock, and goes on with end->then, now or after a wait. */
static int ask(lua_State *L, eb_wait_end *end, eg_bytes key, int64_t wait_ms) {
  eg_pending *pending;
  const eg_request request = {.guard = eb_core(L, end->guard, end->method),
                              .key = key,
                              .want = EG_WANT_LOCK,
                              .policy = &end->guard->settings.policy,
                              .wait_ms = wait_ms};
  eg_reply_init(&end->reply);
  end->status = eb_ask(L, end->guard, &request, &pending, &end->grant,
                       &end->reply);
  if (pending == NULL)
    return end->then(L, end);
  eg_reply_free(&end->reply);
  return eb_wait(L, pending, end);
}

static int acquire_lock(lua_State *L) {
  eb_wait_end end; /* large: only what is needed is set */
  end.then = lock_acquired;
  end.method = "AcquireLock";
  end.guard = eb_check_guard(L, end.method);
  eg_bytes key = eb_check_key(L, end.method);
  int64_t wait_ms = wait_of(L, end.method);
  return ask(L, &end, key, wait_ms);
}

static int release_lock(lua_State *L) {
  eb_guard *guard = eb_check_guard(L, "ReleaseLock");
  eg_bytes key = eb_check_key(L, "ReleaseLock");
  uint64_t token = 0;
  if (!lua_isnoneornil(L, 3)) {
    if (!lua_isinteger(L, 3) || lua_tointeger(L, 3) < 1)
      return luaL_error(L,
                        "ReleaseLock: token must be what AcquireLock "
                        "returned, not %s",
                        eb_describe(L, 3));
    token = (uint64_t)lua_tointeger(L, 3);
  }
  eg_status status = eg_release(guard->core, key, token, NULL);
  if (guard->log)
    eb_log_info(L, guard,
                status == EG_OK ? "Lock released for '%s'"
                                : "No lock of this guard to release for '%s'",
                eb_key_text(L));
  lua_pushboolean(L, status == EG_OK);
  return 1;
}

/* guard:Token(key) -> token of what this guard holds there, or nil */
static int token_of(lua_State *L) {
  const eb_guard *guard = eb_check_guard(L, "Token");
  uint64_t token = eg_token(guard->core, eb_check_key(L, "Token"));
  if (token != 0)
    lua_pushinteger(L, (lua_Integer)token);
  else
    lua_pushnil(L);
  return 1;
}

/* guard:Held(key) -> does this guard hold it, as far as is known here? */
static int is_held(lua_State *L) {
  const eb_guard *guard = eb_check_guard(L, "Held");
  lua_pushboolean(L, eg_token(guard->core, eb_check_key(L, "Held")) != 0);
  return 1;
}

/* guard:SetProgress(key, share or nil, token?) -> is it told?  0 to 1 */
static int set_progress(lua_State *L) {
  eg_error error;
  const eb_guard *guard = eb_check_guard(L, "SetProgress");
  eg_bytes key = eb_check_key(L, "SetProgress");
  lua_Number share = -1, token = 0;
  if (!lua_isnoneornil(L, 3)) {
    share = lua_tonumber(L, 3);
    if (lua_type(L, 3) != LUA_TNUMBER || !(share >= 0 && share <= 1))
      return luaL_error(L,
                        "SetProgress: progress must be a number from 0 to 1 "
                        "or nil, not %s",
                        eb_describe(L, 3));
  }
  if (!lua_isnoneornil(L, 4)) {
    token = (lua_Number)lua_tointeger(L, 4);
    if (!lua_isinteger(L, 4) || token <= 0)
      return luaL_error(L, "SetProgress: the token must be a token, not %s",
                        eb_describe(L, 4));
  }
  uint64_t grant = token > 0 ? (uint64_t)token : eg_token(guard->core, key);
  eg_status status = grant == 0
                         ? EG_LOST
                         : eg_report(guard->core, key, grant, share, &error);
  lua_pushboolean(L, status == EG_OK);
  return 1;
}

static int is_locked(lua_State *L) {
  eb_guard *guard = eb_check_guard(L, "IsLocked");
  eg_record record;
  eg_error error;
  eg_status status = eg_look(guard->core, eb_check_key(L, "IsLocked"), &record,
                             &error);
  bool locked = record.locked;
  eg_record_free(&record);
  if (EG_IS_FAILURE(status))
    return eb_raise(L, "IsLocked", &error);
  lua_pushboolean(L, locked);
  return 1;
}

/* ---------------------------------------------------------------- locks -- */

typedef struct lock {
  eb_guard *guard; /* kept alive by user value 1 */
  uint64_t token;
  bool open;
  size_t key_len;
  char key[EG_KEY_MAX];
} lock;

static lock *check_lock(lua_State *L) {
  return luaL_checkudata(L, 1, lock_metatable);
}

static eg_bytes key_of(const lock *k) {
  return (eg_bytes){k->key, k->key_len};
}

static bool end_lock(lock *k) {
  bool held = k->open && k->guard->core != NULL &&
              eg_release(k->guard->core, key_of(k), k->token, NULL) == EG_OK;
  k->open = false;
  return held;
}

/* The lock object is on top. */
static int lock_granted(lua_State *L, eb_wait_end *end) {
  lock *k = lua_touserdata(L, -1);
  if (end->status != EG_OK) {
    lua_pushnil(L);
    return refused(L, end->guard, end->status, &end->reply);
  }
  eg_reply_free(&end->reply);
  k->token = end->grant.token;
  k->open = true;
  log_acquired(L, end->guard);
  return 1;
}

/* guard:Lock(key, timeout) -> lock | nil, reason */
static int guard_lock(lua_State *L) {
  eb_wait_end end;
  end.then = lock_granted;
  end.method = "Lock";
  end.guard = eb_check_guard(L, end.method);
  eg_bytes key = eb_check_key(L, end.method);
  int64_t wait_ms = wait_of(L, end.method);
  /* The object first: making it may fail, and then nothing is held. */
  lock *k = lua_newuserdatauv(L, sizeof *k, 1);
  k->open = false;
  k->guard = end.guard;
  k->token = 0;
  k->key_len = key.len;
  memcpy(k->key, key.data, key.len);
  luaL_setmetatable(L, lock_metatable);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  return ask(L, &end, key, wait_ms);
}

static int lock_release(lua_State *L) {
  lua_pushboolean(L, end_lock(check_lock(L)));
  return 1;
}

static int lock_close(lua_State *L) {
  end_lock(check_lock(L));
  return 0;
}

static int lock_held(lua_State *L) {
  const lock *k = check_lock(L);
  lua_pushboolean(L, k->open && k->guard->core != NULL &&
                         eg_believes(k->guard->core, key_of(k), k->token));
  return 1;
}

static int lock_index(lua_State *L) {
  const lock *k = check_lock(L);
  const char *name = lua_tostring(L, 2);
  if (name != NULL && strcmp(name, "token") == 0) {
    lua_pushinteger(L, (lua_Integer)k->token);
  } else if (name != NULL && strcmp(name, "key") == 0) {
    lua_pushlstring(L, k->key, k->key_len);
  } else {
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
  }
  return 1;
}

static int lock_tostring(lua_State *L) {
  const lock *k = check_lock(L);
  lua_pushliteral(L, "ExecutionGuard lock of '");
  lua_pushlstring(L, k->key, k->key_len);
  lua_pushfstring(L, "' (%s)", k->open ? "open" : "released");
  lua_concat(L, 3);
  return 1;
}

static const luaL_Reg lock_methods[] = {
    {"Held", lock_held}, {"Release", lock_release}, {NULL, NULL}};

static const luaL_Reg lock_metamethods[] = {{"__close", lock_close},
                                            {"__gc", lock_close},
                                            {"__tostring", lock_tostring},
                                            {NULL, NULL}};

void eb_open_lock(lua_State *L) {
  luaL_newmetatable(L, lock_metatable);
  luaL_setfuncs(L, lock_metamethods, 0);
  lua_newtable(L);
  luaL_setfuncs(L, lock_methods, 0);
  lua_pushcclosure(L, lock_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "ExecutionGuard lock");
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
}

const luaL_Reg eb_lock_methods[] = {
    {"AcquireLock", acquire_lock}, {"ReleaseLock", release_lock},
    {"IsLocked", is_locked},       {"Token", token_of},
    {"Lock", guard_lock},          {"Held", is_held},
    {"SetProgress", set_progress}, {NULL, NULL}};
