/* SPDX-License-Identifier: MIT
** Many deadlines at random moments, on many threads, each with a Lua state of
** its own: nothing early, nothing late, no error or hook that is left, no
** result that is lost.
**
** By real time, with generous bounds.  DEADLINES: how many (default 1600; the
** sanitizers' share of it).
*/
#include "lua_world.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 8 };

/* play(n, seed) -> timeouts; raises for what is wrong.  The bodies never end by
** themselves, or do so at about the time of the deadline. */
static const char game[] =
    "local random = math.random\n"
    "local yield = coroutine.yield\n"
    "local closed\n"
    "local closer = setmetatable({}, {__close = function()\n"
    "  closed = closed + 1\n"
    "end})\n"
    "local function endless() while true do now() end end\n"
    "local function work(limit)\n"
    "  local till = now() + limit * (0.5 + random())\n"
    "  repeat until now() >= till\n"
    "  return limit\n"
    "end\n"
    "local bodies = {\n"
    "  endless, work, work,\n"
    "  function() while true do pcall(endless) end end,\n"
    "  function() while true do xpcall(endless, endless) end end,\n"
    "  function(limit) return coroutine.wrap(work)(limit) end,\n"
    "  function()\n"
    "    while true do coroutine.resume(coroutine.create(endless)) end\n"
    "  end,\n"
    "  function()\n"
    "    local co = coroutine.wrap(function() while true do yield(now()) end\n"
    "    end)\n"
    "    while true do co() end\n"
    "  end,\n"
    "  function() while true do debug.sethook() now() end end,\n"
    "  function()\n"
    "    while true do\n"
    "      table.sort({3, 2, 1, 4}, function(a, b) now() return a < b end)\n"
    "    end\n"
    "  end,\n"
    "  function(limit)\n"
    "    local _ <close> = closer\n"
    "    return work(limit)\n"
    "  end,\n"
    "  function(limit)\n"
    "    guard:RunOnce('inner', random(2) == 1 and endless or work, {\n"
    "      timeout = limit * (0.5 + random()), closeGrace = 0.0003,\n"
    "      allowRerun = true})\n"
    "    return limit\n"
    "  end,\n"
    "}\n"
    "local function one(key, calls)\n"
    "  local limit = 0.00005 + random() * 0.00035\n"
    "  local body = bodies[random(#bodies)]\n"
    "  local told, opened = 0, 0\n"
    "  closed = 0\n"
    "  local start = now()\n"
    "  local ok, result, why = guard:RunOnce(key, function()\n"
    "    opened = 1\n"
    "    return body(limit)\n"
    "  end, {timeout = limit, closeGrace = 0.0003, allowRerun = true,\n"
    "        onTimeout = function() told = told + 1 end})\n"
    "  local took = now() - start\n"
    "  if why == 'timeout' then\n"
    "    assert(took >= limit, 'early')\n"
    "    assert(not ok and result == nil and told == 1, told)\n"
    "  else\n"
    "    assert(ok and result == limit and why == nil, why)\n"
    "    assert(told == 0 and opened == 1)\n"
    "  end\n"
    "  assert(took < 20, 'late')\n"
    "  assert(closed <= 1)\n"
    "  assert(guard:GetStatus(key) == (ok and 'Completed' or 'TimedOut'))\n"
    "  assert(not guard:IsLocked(key) and not guard:IsLocked 'inner')\n"
    "  assert(debug.gethook() == nil, 'a hook is left')\n"
    "  for i = 1, random(50) do now() end\n" /* an error would come here */
    "  return why and 1 or 0\n"
    "end\n"
    "function play(n, seed)\n"
    "  math.randomseed(seed)\n"
    "  local timeouts = 0\n"
    "  for i = 1, n do timeouts = timeouts + one('k' .. i % 100) end\n"
    "  return timeouts\n"
    "end\n";

typedef struct player {
  pthread_t thread;
  int n, number;
  long long timeouts;
  char why[300]; /* what went wrong, or nothing */
} player;

static void *play(void *arg) {
  player *p = arg;
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (luaL_dostring(L, prelude) != LUA_OK ||
      luaL_dostring(L, game) != LUA_OK) {
    snprintf(p->why, sizeof p->why, "%s", lua_tostring(L, -1));
  } else {
    lua_getglobal(L, "play");
    lua_pushinteger(L, p->n);
    lua_pushinteger(L, p->number);
    if (lua_pcall(L, 2, 1, 0) != LUA_OK)
      snprintf(p->why, sizeof p->why, "%s", luaL_tolstring(L, -1, NULL));
    else
      p->timeouts = lua_tointeger(L, -1);
  }
  lua_close(L);
  return NULL;
}

static void many_deadlines_on_many_threads(void **state) {
  (void)state;
  static player players[THREADS];
  const char *text = getenv("DEADLINES");
  int n = text != NULL ? atoi(text) : spec_scaled(1600);
  long long timeouts = 0;
  for (int i = 0; i < THREADS; i++) {
    players[i] = (player){.n = n / THREADS, .number = i + 1};
    assert_int_equal(
        pthread_create(&players[i].thread, NULL, play, &players[i]), 0);
  }
  for (int i = 0; i < THREADS; i++)
    pthread_join(players[i].thread, NULL);
  for (int i = 0; i < THREADS; i++) {
    if (players[i].why[0] != '\0')
      fail_msg("thread %d: %s", i, players[i].why);
    timeouts += players[i].timeouts;
  }
  print_message("%d runs, %lld timeouts\n", n, timeouts);
  assert_true(timeouts > 0 && timeouts < n);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(many_deadlines_on_many_threads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
