/* SPDX-License-Identifier: MIT
** Several Lua states, each in a thread of its own, on one named guard.
**
** The module is that of EXECUTIONGUARD_BUILD; without it, LUA_PATH and
** LUA_CPATH say where it is; without these, it is below ./build.
*/
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

enum { STATES = 4, KEYS = 100 };

static atomic_int ran[KEYS + 1]; /* how often the function of a key ran */
static atomic_int stage;         /* how far a play has come */

/* ------------------------------------------------- what Lua is given -- */

/* ran(key): counts, and returns the number of calls so far, of all keys. */
static int lua_ran(lua_State *L) {
  static atomic_int calls;
  lua_Integer key = luaL_checkinteger(L, 1);
  luaL_argcheck(L, key >= 1 && key <= KEYS, 1, "no such key");
  atomic_fetch_add(&ran[key], 1);
  lua_pushinteger(L, atomic_fetch_add(&calls, 1) + 1);
  return 1;
}

/* reach(n): the play has come to stage n. */
static int lua_reach(lua_State *L) {
  int n = (int)luaL_checkinteger(L, 1);
  if (atomic_load(&stage) < n)
    atomic_store(&stage, n);
  return 0;
}

static bool has_come(void *ctx) { return atomic_load(&stage) >= *(int *)ctx; }

/* await(n): until it has. */
static int lua_await(lua_State *L) {
  int n = (int)luaL_checkinteger(L, 1);
  if (!spec_comes(has_come, &n))
    return luaL_error(L, "stage %d never came", n);
  return 0;
}

/* Where the module is, if the environment does not say it. */
static const char set_paths[] =
    "local build = os.getenv 'EXECUTIONGUARD_BUILD' or './build'\n"
    "local lua = build .. '/lua/'\n"
    "package.path = lua .. '?.lua;' .. lua .. '?/init.lua;' .. package.path\n"
    "package.cpath = lua .. '?.so;' .. package.cpath\n";

static bool run_chunk(lua_State *L, const char *chunk, int args, int results,
                      char why[256]) {
  int base = lua_gettop(L) - args + 1;
  bool ok = luaL_loadstring(L, chunk) == LUA_OK;
  if (ok) {
    lua_insert(L, base);
    ok = lua_pcall(L, args, results, 0) == LUA_OK;
  }
  if (!ok)
    snprintf(why, 256, "%s", lua_tostring(L, -1));
  return ok;
}

static lua_State *new_state(char why[256]) {
  lua_State *L = luaL_newstate();
  if (L == NULL)
    return NULL;
  luaL_openlibs(L);
  lua_register(L, "ran", lua_ran);
  lua_register(L, "reach", lua_reach);
  lua_register(L, "await", lua_await);
  bool is_known = getenv("EXECUTIONGUARD_BUILD") == NULL &&
                  (getenv("LUA_CPATH") != NULL ||
                   getenv("LUA_CPATH_5_4") != NULL);
  if ((!is_known && !run_chunk(L, set_paths, 0, 0, why)) ||
      !run_chunk(L, "ExecutionGuard = require 'executionguard'", 0, 0, why)) {
    lua_close(L);
    return NULL;
  }
  return L;
}

/* One state and its chunk, called with number, n and name. */
typedef struct actor {
  const char *chunk, *name;
  int number, n;
  lua_Integer results[KEYS + 1];
  char why[256]; /* what went wrong, or nothing */
  spec_thread thread;
} actor;

static void act(void *arg) {
  actor *a = arg;
  lua_State *L = new_state(a->why);
  if (L == NULL)
    return;
  lua_pushinteger(L, a->number);
  lua_pushinteger(L, a->n);
  lua_pushstring(L, a->name);
  if (run_chunk(L, a->chunk, 3, 1, a->why) && lua_istable(L, -1))
    for (int key = 1; key <= KEYS; key++) {
      lua_rawgeti(L, -1, key);
      a->results[key] = lua_tointeger(L, -1);
      lua_pop(L, 1);
    }
  lua_close(L);
}

static void start(actor *a, const char *chunk, int number, int n,
                  const char *name) {
  memset(a, 0, sizeof *a);
  a->chunk = chunk;
  a->number = number;
  a->n = n;
  a->name = name;
  spec_start(&a->thread, act, a);
}

static void end(actor *a) {
  spec_join(&a->thread);
  if (a->why[0] != '\0')
    fail_msg("state %d: %s", a->number, a->why);
}

static const char *name_of(const char *prefix, int number) {
  static char name[64];
  snprintf(name, sizeof name, "states-%s-%d", prefix, number);
  return name;
}

static void forget(void) {
  atomic_store(&stage, 0);
  for (int key = 0; key <= KEYS; key++)
    atomic_store(&ran[key], 0);
}

/* ---------------------------------------------------------------- plays -- */

static void module_can_be_loaded(void **state) {
  (void)state;
  char why[256] = "";
  lua_State *L = new_state(why);
  if (L == NULL)
    fail_msg("%s", why);
  lua_close(L);
}

static const char run_keys[] =
    "local number, n, name = ...\n"
    "local guard = ExecutionGuard.new { name = name }\n"
    "local seen = {}\n"
    "for i = 1, n do\n"
    "  local key = (i * 7 + number * 13) % 100 + 1\n"
    "  local ok, result, reason = guard:RunOnce('key ' .. key, function()\n"
    "    return ran(key)\n"
    "  end, { join = true })\n"
    "  if not ok then error(reason) end\n"
    "  if reason ~= nil and reason ~= 'cached' then error(reason) end\n"
    "  seen[key] = seen[key] or result\n"
    "  if math.type(result) ~= 'integer' or seen[key] ~= result then\n"
    "    error('key ' .. key .. ' has two results')\n"
    "  end\n"
    "end\n"
    "guard:Close()\n"
    "return seen\n";

static void run_once_in_four_states_runs_once_a_key(void **state) {
  (void)state;
  static actor actors[STATES];
  int n = spec_scaled(100000) / STATES;
  forget();
  for (int i = 0; i < STATES; i++)
    start(&actors[i], run_keys, i, n < KEYS ? KEYS : n, "states-run");
  for (int i = 0; i < STATES; i++)
    end(&actors[i]);
  for (int key = 1; key <= KEYS; key++) {
    assert_int_equal(atomic_load(&ran[key]), 1);
    assert_true(actors[0].results[key] > 0);
    for (int i = 1; i < STATES; i++)
      assert_int_equal(actors[i].results[key], actors[0].results[key]);
  }
}

static const char hold_and_be_closed[] =
    "local number, n, name = ...\n"
    "guard = ExecutionGuard.new { name = name }\n" /* never closed by hand */
    "for i = 1, 5 do assert(guard:AcquireLock('lock ' .. i, 0)) end\n"
    "reach(1)\n"
    "await(2)\n"; /* and the state is closed */

static const char wait_for_the_locks[] =
    "local number, n, name = ...\n"
    "local guard = ExecutionGuard.new { name = name }\n"
    "await(1)\n"
    "local ok, reason = guard:AcquireLock('lock 1', 0)\n"
    "if ok or reason ~= 'locked' then error('it was not locked') end\n"
    "reach(2)\n"
    "for i = 1, 5 do\n"
    "  local got, why = guard:AcquireLock('lock ' .. i, 60)\n"
    "  if not got then error(why) end\n"
    "end\n"
    "guard:Close()\n";

static void state_that_is_closed_gives_its_locks_back(void **state) {
  (void)state;
  static actor holder, waiter;
  for (int round = spec_scaled(50); round > 0; round--) {
    const char *name = name_of("close", round);
    forget();
    start(&holder, hold_and_be_closed, 1, 0, name);
    start(&waiter, wait_for_the_locks, 2, 0, name);
    end(&holder);
    end(&waiter);
  }
}

static const char run_slowly[] =
    "local number, n, name = ...\n"
    "local guard = ExecutionGuard.new { name = name }\n"
    "local ok, result, reason = guard:RunOnce('k', function()\n"
    "  reach(1)\n"
    "  await(4)\n"
    "  ran(1)\n"
    "  return { 'shared', 42 }\n"
    "end)\n"
    "if not ok or result[2] ~= 42 or reason then error(reason) end\n"
    "guard:Close()\n";

static const char join_the_run[] =
    "local number, n, name = ...\n"
    "local guard = ExecutionGuard.new { name = name }\n"
    "await(number)\n"
    "local ok, _, reason = guard:RunOnce('k', error)\n"
    "if ok or reason ~= 'running' then error('it was not running') end\n"
    "reach(number + 1)\n" /* one joins after the other */
    "local done, result, how = guard:RunOnce('k', function()\n"
    "  ran(1)\n"
    "end, { join = true, timeout = 60 })\n"
    "if not done or how ~= 'cached' then error(how) end\n"
    "if result[1] ~= 'shared' or result[2] ~= 42 then error 'another' end\n"
    "guard:Close()\n";

static void join_in_other_states_shares_the_result(void **state) {
  (void)state;
  static actor runner, joiners[STATES - 1];
  for (int round = spec_scaled(50); round > 0; round--) {
    const char *name = name_of("join", round);
    forget();
    start(&runner, run_slowly, 0, 0, name);
    for (int i = 0; i < STATES - 1; i++)
      start(&joiners[i], join_the_run, i + 1, 0, name);
    end(&runner);
    for (int i = 0; i < STATES - 1; i++)
      end(&joiners[i]);
    assert_int_equal(atomic_load(&ran[1]), 1);
  }
}

static const char run_and_be_closed[] =
    "local number, n, name = ...\n"
    "guard = ExecutionGuard.new { name = name }\n"
    "run = coroutine.create(function()\n"
    "  guard:RunOnce('k', function() coroutine.yield() end)\n"
    "end)\n"
    "assert(coroutine.resume(run))\n"
    "reach(1)\n"
    "await(2)\n";

static const char join_what_is_given_up[] =
    "local number, n, name = ...\n"
    "local guard = ExecutionGuard.new { name = name }\n"
    "await(1)\n"
    "reach(2)\n"
    "local ok, _, reason = guard:RunOnce('k', function()\n"
    "  ran(1)\n"
    "  return 1\n"
    "end, { join = true, timeout = 60 })\n"
    "if not ok and reason ~= 'failed' then error(reason) end\n"
    "guard:Close()\n";

/* A run that is suspended when its state is closed has failed, or its owner
** has died; in no case is it waited for. */
static void state_that_is_closed_gives_its_run_up(void **state) {
  (void)state;
  static actor holder, joiner;
  for (int round = spec_scaled(50); round > 0; round--) {
    const char *name = name_of("given-up", round);
    forget();
    start(&holder, run_and_be_closed, 1, 0, name);
    start(&joiner, join_what_is_given_up, 2, 0, name);
    end(&holder);
    end(&joiner);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(module_can_be_loaded),
      cmocka_unit_test(run_once_in_four_states_runs_once_a_key),
      cmocka_unit_test(state_that_is_closed_gives_its_locks_back),
      cmocka_unit_test(join_in_other_states_shares_the_result),
      cmocka_unit_test(state_that_is_closed_gives_its_run_up),
  };
  return cmocka_run_group_tests_name("states", tests, NULL, NULL);
}
