/* SPDX-License-Identifier: MIT
** Time limits without a record: of a coroutine, of one call.
*/
#include "lua/interrupt.h"

#include <string.h>

static const char limits_key; /* registry: coroutine -> its limit, weak */
static const char limit_metatable[] = "ExecutionGuard limit";

typedef struct limit {
  eb_frame frame;
  eg_timer timer;
} limit;

static void set_timer(lua_State *L, eg_timer *timer, int64_t us,
                      int64_t grace_us) {
  int64_t now = eg_now_us();
  memset(timer, 0, sizeof *timer);
  timer->grant.deadline_us = us < EG_FOREVER - now ? now + us : EG_FOREVER;
  timer->grace_us = grace_us;
  timer->signals = eb_signals_here(L, NULL);
}

/* Pushes the limit of the coroutine at index 1, or nil. */
static limit *push_limit(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &limits_key) != LUA_TTABLE)
    return NULL;
  lua_pushvalue(L, 1);
  lua_rawget(L, -2);
  lua_remove(L, -2);
  return lua_touserdata(L, -1);
}

static bool is_suspended(lua_State *L, lua_State *co) {
  lua_Debug ar;
  int status = lua_status(co);
  return co != L &&
         (status == LUA_YIELD || (status == LUA_OK && lua_gettop(co) > 0 &&
                                  !lua_getstack(co, 0, &ar)));
}

/* set(coroutine, seconds, grace) -> boolean: from then on it is interrupted,
** whoever runs it; an earlier limit stays. */
static int set(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  luaL_argexpected(L, co, 1, "thread");
  int64_t us = eb_us(luaL_checknumber(L, 2));
  int64_t grace_us = eb_us(luaL_checknumber(L, 3));
  bool suspended = is_suspended(L, co);
  limit *old = push_limit(L);
  if (old != NULL) {
    eg_timer_hasten(&old->timer, eg_now_us() + us);
    lua_pushboolean(L, 1);
    return 1;
  }
  eb_reserve_parking(L, co);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &limits_key);
  lua_pushvalue(L, 1);
  limit *own = lua_newuserdatauv(L, sizeof *own, 0);
  memset(own, 0, sizeof *own);
  luaL_setmetatable(L, limit_metatable);
  lua_rawset(L, -3);
  set_timer(L, &own->timer, us, grace_us);
  lua_pushboolean(L, eb_attach(L, co, &own->frame, &own->timer, suspended));
  return 1;
}

/* clear(coroutine): no limit any more. */
static int clear(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTHREAD);
  limit *own = push_limit(L);
  if (own != NULL) {
    eb_detach(L, &own->frame);
    if (!own->frame.linked) {
      lua_rawgetp(L, LUA_REGISTRYINDEX, &limits_key);
      lua_pushvalue(L, 1);
      lua_pushnil(L);
      lua_rawset(L, -3);
    }
  }
  return 0;
}

/* The coroutine is garbage, so it is not running. */
static int limit_gc(lua_State *L) {
  limit *own = luaL_testudata(L, 1, limit_metatable);
  if (own != NULL && own->frame.L != NULL && !own->frame.linked) {
    if (own->frame.parked) {
      own->frame.parked = false;
      eb_get_state(L)->parked--;
    }
    eg_timer_stop(&own->timer);
    own->frame.L = NULL;
  }
  return 0;
}

/* within(seconds, fn, ...) -> true, what fn returns; false, error.  fn cannot
** yield. */
static int within(lua_State *L) {
  eb_frame frame;
  eg_timer timer;
  set_timer(L, &timer, eb_us(luaL_checknumber(L, 1)), 0);
  frame.interrupts = true;
  frame.on_loss = false;
  eb_arm(L, &frame, &timer);
  int status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0);
  eg_timer_stop(&timer);
  eb_leave(L, &frame);
  lua_pushboolean(L, status == LUA_OK);
  lua_replace(L, 1);
  if (status != LUA_OK) {
    eb_checkpoint(L, eb_is_sentinel(L, -1));
    eb_convert_sentinel(L);
  }
  eb_call_put_off(L, eb_get_state(L));
  return lua_gettop(L);
}

void eb_push_limits(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"set", set}, {"clear", clear}, {"within", within}, {NULL, NULL}};
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &limits_key) == LUA_TNIL) {
    eb_push_weak_table(L, "k");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &limits_key);
    luaL_newmetatable(L, limit_metatable);
    eb_push_upvalues(L);
    eb_set_functions(L, (const luaL_Reg[]){{"__gc", limit_gc}, {NULL, NULL}});
    lua_pop(L, EB_UPVALUES + 1);
  }
  lua_pop(L, 1);
  lua_newtable(L);
  eb_push_upvalues(L);
  eb_set_functions(L, functions);
  lua_pop(L, EB_UPVALUES);
}
