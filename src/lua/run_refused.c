/* SPDX-License-Identifier: MIT
** What RunOnce answers where nothing runs.
*/
#include "lua/run.h"

static int push_result(lua_State *L) {
  const eg_reply *reply = lua_touserdata(L, 1);
  eb_decode(L, reply->value);
  return 1;
}

static int push_error(lua_State *L) {
  const eg_reply *reply = lua_touserdata(L, 1);
  lua_pushlstring(L, reply->error.data, reply->error.len);
  return 1;
}

/* What is on C's heap is pushed under protection: what C owns is freed before
** an error goes on. */
static void push_from(lua_State *L, eg_reply *reply, lua_CFunction push) {
  lua_pushcfunction(L, push);
  lua_pushlightuserdata(L, reply);
  int status = lua_pcall(L, 1, 1, 0);
  eg_reply_free(reply);
  if (status != LUA_OK)
    lua_error(L);
}

static void push_value(lua_State *L, eg_reply *reply) {
  if (reply->memory.heap == NULL)
    eb_decode(L, reply->value);
  else
    push_from(L, reply, push_result);
}

static int refuse_cached(lua_State *L, const eb_guard *guard,
                         eg_reply *reply) {
  lua_pushboolean(L, 1);
  if (reply->kind == EG_KIND_VALUE) {
    push_value(L, reply);
  } else {
    eb_opaque_get(L, guard, EB_AT_KEY);
    if (lua_isnil(L, -1)) /* the value was dropped under the record */
      return eb_answer(L, "completed");
  }
  lua_pushvalue(L, lua_upvalueindex(EB_UP_CACHED));
  if (guard->log)
    eb_log_info(L, guard, "Returning cached result for '%s'", eb_key_text(L));
  return 3;
}

static void log_refused(lua_State *L, const eb_guard *guard,
                        eg_status status) {
  const char *key = eb_key_text(L);
  switch (status) {
  case EG_COMPLETED:
    eb_log_warn(L, guard, "'%s' already completed", key);
    break;
  case EG_RUNNING:
    eb_log_warn(L, guard, "'%s' is already running (blocked)", key);
    break;
  case EG_LOCKED:
    eb_log_warn(L, guard, "Failed to acquire lock for '%s'", key);
    break;
  default:
    eb_log_warn(L, guard, "'%s' is blocked: it %s", key,
                eg_status_text(status));
  }
}

int eb_refuse(lua_State *L, const eb_guard *guard, eg_status status,
              eg_reply *reply) {
  if (status == EG_CACHED)
    return refuse_cached(L, guard, reply);
  if (guard->log)
    log_refused(L, guard, status);
  lua_pushboolean(L, 0);
  if (status == EG_FAILED)
    push_from(L, reply, push_error);
  else if (EG_IS_FAILURE(status))
    lua_pushstring(L, reply->failure.message);
  else
    lua_pushnil(L);
  int64_t left = reply->left_us;
  eg_reply_free(reply);
  lua_pushstring(L, eg_status_word(status));
  if (status != EG_COOLDOWN && status != EG_FAILED)
    return 3;
  if (left < 0)
    return 3;
  lua_pushnumber(L, (lua_Number)left / 1e6);
  return 4;
}
