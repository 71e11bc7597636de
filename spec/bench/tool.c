/* SPDX-License-Identifier: MIT
** What the benchmarks need and Lua has not: a clock in nanoseconds, the memory
** of this process, and a method that does nothing.
*/
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* now() -> nanoseconds from an unspecified start */
static int now(lua_State *L) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  lua_pushinteger(L, (lua_Integer)ts.tv_sec * 1000000000 + ts.tv_nsec);
  return 1;
}

/* resident() -> bytes of this process that are in memory */
static int resident(lua_State *L) {
  long long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == NULL || fscanf(file, "%*d %lld", &pages) != 1)
    pages = 0;
  if (file != NULL)
    fclose(file);
  lua_pushinteger(L, (lua_Integer)pages * sysconf(_SC_PAGESIZE));
  return 1;
}

/* object:empty(key): the floor of any method in C */
static int empty(lua_State *L) {
  (void)L;
  return 0;
}

/* object() -> a userdata with the method empty */
static int object(lua_State *L) {
  lua_newuserdatauv(L, 8, 0);
  if (luaL_newmetatable(L, "bench object")) {
    lua_newtable(L);
    lua_pushcfunction(L, empty);
    lua_setfield(L, -2, "empty");
    lua_setfield(L, -2, "__index");
  }
  lua_setmetatable(L, -2);
  return 1;
}

static const luaL_Reg functions[] = {
    {"now", now}, {"resident", resident}, {"object", object}, {NULL, NULL}};

__attribute__((visibility("default"))) int luaopen_benchtool(lua_State *L);

int luaopen_benchtool(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
