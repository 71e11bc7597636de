/* SPDX-License-Identifier: MIT
** Lua states that move: a scheduler whose threads come and go, and which
** resumes each state on whatever thread is free, as servers with many small
** services do.
**
** Real time, with generous bounds: what is tried is the signal and the races
** around it.
*/
#include "lua_world.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { STATES = 8, THREADS = 4, STEPS_OF_A_THREAD = 25 };

/* A state has two coroutines, each with one guarded run after the other; the
** runs of the two overlap.  step() resumes one of them, or ends it. */
static const char services[] =
    "local yield, random = coroutine.yield, math.random\n"
    "ran, timeouts, abandoned, wrong = 0, 0, 0, nil\n"
    "local function check(ok, ...)\n"
    "  if not ok and not wrong then\n"
    "    wrong = table.concat({...}, ' ')\n"
    "  end\n"
    "end\n"
    "local function work()\n"
    "  while random(8) > 1 do\n"
    "    if random(2) == 1 then spin(random() * 0.001) end\n"
    "    if random(2) == 1 then yield() end\n"
    "    if random(10) == 1 then while true do pcall(forever) end end\n"
    "    if random(10) == 1 then\n"
    "      coroutine.wrap(function() while true do yield() now() end end)()\n"
    "    end\n"
    "    if random(10) == 1 then\n"
    "      guard:RunOnce('inner', function() yield() spin(0.002) end,\n"
    "        {timeout = 0.001, allowRerun = true})\n"
    "    end\n"
    "  end\n"
    "  return 'done'\n"
    "end\n"
    "local function one_run(key)\n"
    "  local limit = 0.0005 + random() * 0.004\n"
    "  local calls, start = 0, now()\n"
    "  local ok, result, why = guard:RunOnce(key, work, {timeout = limit,\n"
    "    allowRerun = true, onTimeout = function() calls = calls + 1 end})\n"
    "  local took = now() - start\n"
    "  ran = ran + 1\n"
    "  check(not guard:IsLocked(key), 'locked')\n"
    "  if why == 'timeout' then\n"
    "    timeouts = timeouts + 1\n"
    "    check(took >= limit, 'early:', took, limit)\n"
    "    check(calls == 1, 'onTimeout called:', calls)\n"
    "  else\n"
    "    check(ok and result == 'done' and not why, 'answer:',\n"
    "      tostring(ok), tostring(result), tostring(why))\n"
    "    check(calls == 0, 'onTimeout called:', calls)\n"
    "  end\n"
    "end\n"
    "local function service(key)\n"
    "  while true do\n"
    "    one_run(key)\n"
    "    check(debug.gethook() == nil, 'a hook is left')\n"
    "    yield()\n"
    "  end\n"
    "end\n"
    "local function start(key)\n"
    "  return {key = key, co = coroutine.create(service)}\n"
    "end\n"
    "local both = {start 'a', start 'b'}\n"
    "function step(resume)\n"
    "  local s = both[random(2)]\n"
    "  if random(50) == 1 then\n"
    "    local before = guard:GetStatus(s.key)\n"
    "    if random(2) == 1 then\n"
    "      check(coroutine.close(s.co), 'close failed')\n"
    "    else\n"
    "      s.co = nil\n"
    "      collectgarbage() collectgarbage()\n"
    "    end\n"
    "    abandoned = abandoned + 1\n"
    "    local after = guard:GetStatus(s.key)\n"
    "    check(before ~= 'Running' or after == 'Failed' or\n"
    "      after == 'TimedOut', before, after)\n"
    "    check(not guard:IsLocked(s.key), 'locked after the end')\n"
    "    s.co = coroutine.create(service)\n"
    "  end\n"
    "  local ok, why = resume(s.co, s.key)\n"
    "  check(ok, 'resume:', tostring(why))\n"
    "  check(debug.gethook(s.co) == nil, 'a hook is left')\n"
    "  check(debug.gethook() == nil, 'a hook is left outside')\n"
    "end\n";

/* What the module does not know of. */
static int raw_resume(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  int n = lua_gettop(L) - 1, results;
  lua_xmove(L, co, n);
  int status = lua_resume(co, L, n, &results);
  if (status != LUA_OK && status != LUA_YIELD)
    results = 1;
  lua_pushboolean(L, status == LUA_OK || status == LUA_YIELD);
  lua_xmove(co, L, results);
  return results + 1;
}

typedef struct service {
  pthread_mutex_t mutex; /* of its state */
  lua_State *L;
  const char *resume; /* the name of the function that it is resumed by */
} service;

static service states[STATES];
static atomic_int steps_left, threads, failures;
static char failure[256];

static void step(service *s) {
  lua_State *L = s->L;
  lua_getglobal(L, "step");
  lua_getglobal(L, "coroutine");
  lua_getfield(L, -1, s->resume);
  lua_remove(L, -2);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK && atomic_fetch_add(&failures, 1) == 0)
    snprintf(failure, sizeof failure, "%s", lua_tostring(L, -1));
  lua_settop(L, 0);
}

static void *work(void *arg) {
  unsigned seed = (unsigned)(uintptr_t)arg;
  for (int i = 0; i < STEPS_OF_A_THREAD; i++) {
    service *s = &states[rand_r(&seed) % STATES];
    if (atomic_fetch_sub(&steps_left, 1) <= 0)
      break;
    if (pthread_mutex_trylock(&s->mutex) != 0)
      continue; /* at work on another thread */
    step(s);
    pthread_mutex_unlock(&s->mutex);
  }
  return NULL;
}

/* Each place has a thread, and when it has ended the next one. */
static void *place(void *arg) {
  uintptr_t seed = (uintptr_t)arg;
  while (atomic_load(&steps_left) > 0) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, (void *)seed) != 0)
      break;
    pthread_join(thread, NULL);
    seed += THREADS;
    atomic_fetch_add(&threads, 1);
  }
  return NULL;
}

static int64_t global_integer(lua_State *L, const char *name) {
  lua_getglobal(L, name);
  int64_t value = lua_tointeger(L, -1);
  lua_pop(L, 1);
  return value;
}

static void expect_all_well(void) {
  int64_t ran = 0, timeouts = 0, abandoned = 0;
  for (int i = 0; i < STATES; i++) {
    lua_State *L = states[i].L;
    if (lua_getglobal(L, "wrong") != LUA_TNIL)
      fail_msg("%s, %s", states[i].resume, lua_tostring(L, -1));
    lua_pop(L, 1);
    ran += global_integer(L, "ran");
    timeouts += global_integer(L, "timeouts");
    abandoned += global_integer(L, "abandoned");
    assert_true(lua_gethook(L) == NULL);
  }
  if (failure[0] != '\0')
    fail_msg("%s", failure);
  assert_true(ran > 0 && timeouts > 0 && timeouts < ran && abandoned > 0);
  print_message("%lld runs, %lld timeouts, %lld abandoned, %d threads\n",
                (long long)ran, (long long)timeouts, (long long)abandoned,
                atomic_load(&threads));
}

static void states_on_threads_that_come_and_go(void **state) {
  (void)state;
  pthread_t places[THREADS];
  atomic_store(&steps_left, spec_scaled(20000));
  for (int i = 0; i < STATES; i++) {
    states[i].L = new_state();
    states[i].resume = i % 2 == 0 ? "resume" : "raw_resume";
    pthread_mutex_init(&states[i].mutex, NULL);
    lua_getglobal(states[i].L, "coroutine");
    lua_pushcfunction(states[i].L, raw_resume);
    lua_setfield(states[i].L, -2, "raw_resume");
    lua_pop(states[i].L, 1);
    run_chunk(states[i].L, services);
  }
  for (uintptr_t i = 0; i < THREADS; i++)
    assert_int_equal(pthread_create(&places[i], NULL, place, (void *)(i + 1)),
                     0);
  for (int i = 0; i < THREADS; i++)
    pthread_join(places[i], NULL);
  expect_all_well();
  for (int i = 0; i < STATES; i++) {
    lua_close(states[i].L);
    pthread_mutex_destroy(&states[i].mutex);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(states_on_threads_that_come_and_go),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
