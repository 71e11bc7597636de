/* SPDX-License-Identifier: MIT
** The pool of worker threads as a host in C sees it: several Lua states that
** share it, states that close while their jobs run, forked children.
**
** Real time, with generous bounds: real threads are waited for.
*/
#include "lua_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OWNERS = 3 };

static const char jobs[] =
    "job = require 'executionguard.job'\n"
    "task = require 'executionguard.task'\n"
    "workers = require 'executionguard.core'.worker\n"
    "scale = tonumber(os.getenv 'EXECUTIONGUARD_SPEC_SCALE' or '') or 1\n"
    "function work(ctx)\n"
    "  local task = require 'executionguard.task'\n"
    "  local n = ctx:GetParams()\n"
    "  for i = 1, n % 20 do ctx:SetProgress(i / 20) end\n"
    "  if n % 5 == 0 then ctx:Logger():Info('half', {n = n}) end\n"
    "  if n % 7 == 0 then error('seven') end\n"
    "  if n % 11 == 0 then\n"
    "    while not ctx:Context():Done() do task.wait(0.001) end\n"
    "  end\n"
    "  if n % 13 == 0 then os.exit() end\n"
    "  return n\n"
    "end\n"
    "function nothing() end\n"
    "logger = {Debug = nothing, Info = nothing, Warn = nothing,\n"
    "  Error = nothing}\n"
    "function new(fn) return job.new('w', job.worker(fn),\n"
    "  {grace = 0.02, logger = logger}) end\n";

/* Each job ends once, whatever happens to it. */
static const char storm[] =
    "local n, woken = math.max(60 // scale, 12), 0\n"
    "for i = 1, n do\n"
    "  local j, ends = new(work), 0\n"
    "  j:On('state', function(_, s)\n"
    "    if job.isDone(s) then ends = ends + 1 end\n"
    "  end)\n"
    "  j:Run(nil, i)\n"
    "  task.delay(math.random() * 0.1, function()\n"
    "    j:Cancel()\n"
    "    j:Wait()\n"
    "    assert(ends == 1, 'ends: ' .. ends)\n"
    "    local s = j:State()\n"
    "    if i % 7 == 0 or i % 13 == 0 then\n"
    "      assert(s == 'failed' or s == 'canceled', s)\n"
    "    else\n"
    "      assert(s == 'canceled' or j:Result() == i, tostring(j:Err()))\n"
    "    end\n"
    "    woken = woken + 1\n"
    "  end)\n"
    "  if i % 10 == 0 then job.workers{threads = math.random(3)} end\n"
    "  if i % 15 == 0 then workers.drain() end\n"
    "end\n"
    "task.onError(function(err) failed = failed or tostring(err) end)\n"
    "task.run()\n"
    "assert(not failed, failed)\n"
    "assert(woken == n, woken .. ' of ' .. n)\n";

/* Leaves jobs behind that run, wait, and stand in the queue. */
static const char leaving[] =
    "for i = 1, 6 do\n"
    "  new(function(ctx)\n"
    "    while not ctx:Context():Done() do\n"
    "      require 'executionguard.task'.wait(0.001)\n"
    "    end\n"
    "  end):Run()\n"
    "  new(function()\n"
    "    local now = require 'executionguard.core'.clock.steady\n"
    "    while true do pcall(function() while true do now() end end) end\n"
    "  end):Run()\n"
    "end\n"
    "task.wait(0.01)\n";

static const char one_job[] =
    "local j = new(function(ctx) return ctx:GetParams() + 1 end)\n"
    "j:Run(nil, 41)\n"
    "assert(j:Wait(20) == true, 'it does not end')\n"
    "assert(j:Result() == 42, tostring(j:Err()))\n";

static const char all_gone[] =
    "workers.drain()\n"
    "local till = now() + 20\n"
    "repeat\n"
    "  local pool = job.workers()\n"
    "  if pool.busy + pool.queued + pool.lost == 0 then break end\n"
    "  task.wait(0.005)\n"
    "until now() > till\n"
    "workers.drain()\n"
    "local pool = job.workers()\n"
    "assert(pool.threads + pool.busy + pool.queued + pool.lost == 0,\n"
    "  ('%d threads, %d busy, %d queued, %d lost'):format(pool.threads,\n"
    "  pool.busy, pool.queued, pool.lost))\n";

typedef struct owner {
  const char *chunk;
  char why[512]; /* what went wrong, or nothing */
} owner;

/* No assertion of cmocka's: that is for the test's own thread. */
static void *own(void *arg) {
  owner *o = arg;
  o->why[0] = '\0';
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (luaL_dostring(L, prelude) != LUA_OK ||
      luaL_dostring(L, jobs) != LUA_OK || luaL_dostring(L, o->chunk) != LUA_OK)
    snprintf(o->why, sizeof o->why, "%s", lua_tostring(L, -1));
  lua_close(L);
  return NULL;
}

static void by_owners(const char *chunk) {
  owner owners[OWNERS];
  pthread_t threads[OWNERS];
  for (int i = 0; i < OWNERS; i++) {
    owners[i].chunk = chunk;
    assert_int_equal(pthread_create(&threads[i], NULL, own, &owners[i]), 0);
  }
  for (int i = 0; i < OWNERS; i++)
    assert_int_equal(pthread_join(threads[i], NULL), 0);
  for (int i = 0; i < OWNERS; i++)
    if (owners[i].why[0] != '\0')
      fail_msg("%s", owners[i].why);
}

static lua_State *new_owner(void) {
  lua_State *L = new_state();
  run_chunk(L, jobs);
  return L;
}

static void check_all_gone(void) {
  lua_State *L = new_owner();
  run_chunk(L, all_gone);
  lua_close(L);
}

static void jobs_of_several_states_end_once_each(void **state) {
  (void)state;
  by_owners(storm);
  check_all_gone();
}

static void states_that_close_end_their_jobs(void **state) {
  (void)state;
  by_owners(leaving);
  check_all_gone();
}

static void forked_child_has_workers_of_its_own(void **state) {
  (void)state;
  lua_State *L = new_owner();
  run_chunk(L, one_job);
  run_chunk(L, leaving);
  pid_t child = fork();
  if (child == 0) {
    bool ok = luaL_dostring(L, one_job) == LUA_OK;
    if (!ok)
      fprintf(stderr, "%s\n", lua_tostring(L, -1));
    _exit(ok ? 0 : 1);
  }
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  lua_close(L);
  assert_int_equal(status, 0);
  check_all_gone();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(jobs_of_several_states_end_once_each),
      cmocka_unit_test(states_that_close_end_their_jobs),
      cmocka_unit_test(forked_child_has_workers_of_its_own),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
