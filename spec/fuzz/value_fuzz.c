/* SPDX-License-Identifier: MIT
** Any bytes as a stored result: what the check lets through becomes a Lua value
** and JSON, without an error.
*/
#include <assert.h>
#include <stdio.h>

#include "cli/cli.h"
#include "core/codec.h"
#include "fuzz.h"
#include "lua/binding.h"

static int decode(lua_State *L) {
  const eg_bytes *value = lua_touserdata(L, 1);
  eb_decode(L, *value);
  assert(lua_gettop(L) == 2);
  return 1;
}

static void as_json(eg_bytes value) {
  ec_json json;
  FILE *to = fopen("/dev/null", "w");
  assert(to != NULL);
  ec_json_begin(&json, to);
  ec_json_value(&json, NULL, value);
  ec_json_end(&json);
  assert(json.depth == 0);
  fclose(to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static lua_State *L;
  eg_bytes value = {data, size};
  bool good = egi_check_value(value) == NULL;
  if (L == NULL)
    L = luaL_newstate();
  as_json(value);
  if (!good)
    return 0;
  lua_pushcfunction(L, decode);
  lua_pushlightuserdata(L, &value);
  int status = lua_pcall(L, 1, 1, 0);
  assert(status == LUA_OK || status == LUA_ERRMEM);
  lua_settop(L, 0);
  lua_gc(L, LUA_GCCOLLECT);
  return 0;
}
