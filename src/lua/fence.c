/* SPDX-License-Identifier: MIT
** What executionguard.fence is made of.
*/
#include "lua/binding.h"

#include <string.h>

static eg_bytes check_bytes(lua_State *L, int index) {
  eg_bytes bytes = {NULL, 0};
  bytes.data = luaL_checklstring(L, index, &bytes.len);
  return bytes;
}

/* write(path, token, contents, wait_ms) -> true; or false, the status' word,
** and of a failure its message and errno */
static int fence_write(lua_State *L) {
  eg_bytes path = check_bytes(L, 1);
  lua_Integer token = luaL_checkinteger(L, 2);
  eg_bytes contents = check_bytes(L, 3);
  eg_error error = {.message = ""};
  luaL_argcheck(L, strlen(path.data) == path.len, 1, "has a zero in it");
  eg_status status = eg_fence_write(path.data, (uint64_t)token, contents,
                                    eb_ms(luaL_checknumber(L, 4)), &error);
  lua_pushboolean(L, status == EG_OK);
  if (status == EG_OK)
    return 1;
  lua_pushstring(L, eg_status_word(status));
  if (!EG_IS_FAILURE(status))
    return 2;
  lua_pushstring(L, error.message);
  lua_pushinteger(L, error.os_errno);
  return 4;
}

/* redisKey(name or nil, key) -> the guard's key on a Redis server, or nil */
static int redis_key(lua_State *L) {
  char text[EG_FENCE_REDIS_KEY_MAX];
  const char *name = luaL_optstring(L, 1, NULL);
  size_t n = eg_fence_redis_key(name, check_bytes(L, 2), text);
  if (n == 0)
    return 0;
  lua_pushlstring(L, text, n);
  return 1;
}

void eb_push_fence(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"write", fence_write}, {"redisKey", redis_key}, {NULL, NULL}};
  luaL_newlib(L, functions);
  lua_pushstring(L, eg_fence_redis_script());
  lua_setfield(L, -2, "redisScript");
}
