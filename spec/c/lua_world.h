/* SPDX-License-Identifier: MIT
** Lua states that have the module and a few functions, for tests of the
** binding as a host in C sees it.
**
** Loops call now(): the thread sanitizer hands a signal on only at calls that
** it knows, and a clock's is one.
*/
#ifndef EG_SPEC_LUA_WORLD_H
#define EG_SPEC_LUA_WORLD_H

#include "support.h"

#include <pthread.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

/* Where the module is, if the environment does not say it. */
static const char prelude[] =
    "local build = os.getenv 'EXECUTIONGUARD_BUILD'\n"
    "if not build and not (os.getenv 'LUA_CPATH' or\n"
    "    os.getenv 'LUA_CPATH_5_4') then build = './build' end\n"
    "if build then\n"
    "  local lua = build .. '/lua/'\n"
    "  package.path = lua .. '?.lua;' .. lua .. '?/init.lua;' ..\n"
    "    package.path\n"
    "  package.cpath = lua .. '?.so;' .. package.cpath\n"
    "end\n"
    "ExecutionGuard = require 'executionguard'\n"
    "guard = ExecutionGuard.new()\n"
    "now = require 'executionguard.core'.clock.steady\n"
    "function forever() while true do now() end end\n"
    "function spin(s) local t = now() while now() - t < s do end end\n"
    "function run(fn, timeout)\n"
    "  local start = now()\n"
    "  local _, _, why = guard:RunOnce('k', fn,\n"
    "    { timeout = timeout or 0.01, allowRerun = true })\n"
    "  return why, now() - start\n"
    "end\n";

static inline void run_chunk(lua_State *L, const char *chunk) {
  if (luaL_dostring(L, chunk) != LUA_OK)
    fail_msg("%s", lua_tostring(L, -1));
}

static inline lua_State *new_state(void) {
  lua_State *L = luaL_newstate();
  assert_non_null(L);
  luaL_openlibs(L);
  run_chunk(L, prelude);
  return L;
}

#endif
