/* SPDX-License-Identifier: MIT
** Whether a run that failed is tried again, and after how long.
*/
#include "lua/binding.h"

#include <math.h>

/* 1 guard, 2 options, 3 error object, 4 attempt -> is it to be tried again? */
static int ask(lua_State *L) {
  eb_push_callback(L, 1, 2, "retry");
  lua_pushboolean(L, 1);
  if (lua_type(L, -2) != LUA_TTABLE)
    return 1;
  lua_pushliteral(L, "on");
  if (lua_rawget(L, -3) == LUA_TNIL) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushvalue(L, 3);
  lua_pushvalue(L, 4);
  lua_call(L, 2, 1);
  return 1;
}

bool eb_retry_wanted(lua_State *L, int guard_index, int options_index,
                     int error_index, int64_t attempt) {
  int top = lua_gettop(L);
  lua_pushcfunction(L, ask);
  lua_pushvalue(L, guard_index);
  lua_pushvalue(L, options_index);
  lua_pushvalue(L, error_index);
  lua_pushinteger(L, attempt);
  bool again = lua_pcall(L, 4, 1, 0) == LUA_OK && lua_toboolean(L, -1);
  lua_settop(L, top);
  return again;
}

static double random_unit(eb_state *state) {
  uint64_t x = state->random; /* xorshift64*; Vigna, 2016 */
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  state->random = x;
  return (double)(x * UINT64_C(2685821657736338717) >> 11) * 0x1p-53;
}

double eb_retry_delay(eb_state *state, const eb_retry *retry,
                      int64_t attempt) {
  double delay = retry->delay * pow(retry->factor, (double)attempt - 1);
  if (!(delay < retry->max_delay)) /* also when that was too much: infinite */
    delay = retry->max_delay;
  if (retry->delay <= 0)
    delay = 0;
  return delay * (1 - retry->jitter * random_unit(state));
}
