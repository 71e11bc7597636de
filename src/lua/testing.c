/* SPDX-License-Identifier: MIT
** The clock in force, for scripts: configured, read, moved by hand.
*/
#include "lua/interrupt.h"

/* ExecutionGuard.now() -> seconds since the epoch, by the guards' clock. */
static int now(lua_State *L) {
  lua_pushnumber(L, (lua_Number)eg_wall_us() / 1e6);
  return 1;
}

static int clock_reset(lua_State *L) {
  eg_test_clock_reset(lua_toboolean(L, 1));
  return 0;
}

/* To the nearest microsecond: the clock stands where it was put, while eb_us
** rounds what is waited for up. */
static int64_t nearest_us(double seconds) {
  return seconds < 1e12 ? (int64_t)(seconds * 1e6 + 0.5) : eb_us(1e12);
}

static int clock_advance(lua_State *L) {
  double seconds = eb_check_seconds(L, 1, "advance", "seconds");
  eg_test_clock_advance(nearest_us(seconds));
  return 0;
}

static int clock_set_wall(lua_State *L) {
  double seconds = eb_check_seconds(L, 1, "setWall", "the time");
  eg_test_clock_set_wall(nearest_us(seconds));
  return 0;
}

static int clock_use(lua_State *L) {
  eg_set_clock(lua_toboolean(L, 1) ? eg_test_clock() : NULL);
  return 0;
}

/* Blocks the thread; a test clock lets it go when it is moved, the deadline of
** a guard around it interrupts it. */
static int clock_sleep(lua_State *L) {
  eb_sleep(eb_us(eb_check_seconds(L, 1, "sleep", "seconds")));
  eb_checkpoint(L, false);
  return 0;
}

static int clock_steady(lua_State *L) {
  lua_pushnumber(L, (lua_Number)eg_now_us() / 1e6);
  return 1;
}

const luaL_Reg eb_clock_functions[] = {{"now", now}, {NULL, NULL}};

/* Pushes what executionguard.testing and executionguard.compat are made of. */
void eb_push_testing(lua_State *L) {
  static const luaL_Reg functions[] = {{"reset", clock_reset},
                                       {"advance", clock_advance},
                                       {"setWall", clock_set_wall},
                                       {"use", clock_use},
                                       {"steady", clock_steady},
                                       {"sleep", clock_sleep},
                                       {NULL, NULL}};
  luaL_newlib(L, functions);
}
