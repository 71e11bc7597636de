/* SPDX-License-Identifier: MIT
** Guarded functions in coroutines that C resumes by lua_resume itself: nobody
** tells the module when they yield, and still they are ended in time.
*/
#include "lua_world.h"

/* resume(co, ...) -> as coroutine.resume, but that the module does not know */
static int raw_resume(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  int n = lua_gettop(L) - 1, results;
  assert_true(lua_checkstack(co, n));
  lua_xmove(L, co, n);
  int status = lua_resume(co, L, n, &results);
  bool ok = status == LUA_OK || status == LUA_YIELD;
  if (!ok)
    results = 1;
  if (status == LUA_YIELD) /* cqueues relies on it */
    assert_int_equal(results, lua_gettop(co));
  assert_true(lua_checkstack(L, results + 1));
  lua_pushboolean(L, ok);
  lua_xmove(co, L, results);
  return results + 1;
}

/* close(co) -> ok, error */
static int raw_close(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
#if LUA_VERSION_RELEASE_NUM >= 50406
  int status = lua_closethread(co, L);
#else
  int status = lua_resetthread(co);
#endif
  lua_pushboolean(L, status == LUA_OK);
  if (status == LUA_OK)
    return 1;
  lua_xmove(co, L, 1);
  return 2;
}

static int up_value(lua_State *L) {
  lua_pushthread(L);
  return 1;
}

static const char more[] =
    "yield = coroutine.yield\n"
    "function start(fn, options, key)\n"
    "  return coroutine.create(function()\n"
    "    return guard:RunOnce(key or 'k', fn, options or {timeout = 30})\n"
    "  end)\n"
    "end\n"
    "function same(wanted, ...)\n"
    "  local got = table.pack(...)\n"
    "  for i = 1, math.max(#wanted, got.n) do\n"
    "    assert(rawequal(wanted[i], got[i]), ('value %d: %s, not "
    "%s'):format(\n"
    "      i, tostring(got[i]), tostring(wanted[i])))\n"
    "  end\n"
    "end\n";

static int set_up(void **state) {
  lua_State *L = new_state();
  lua_register(L, "resume", raw_resume);
  lua_register(L, "close", raw_close);
  lua_register(L, "thread", up_value);
  run_chunk(L, more);
  *state = L;
  return 0;
}

static int tear_down(void **state) {
  lua_State *L = *state;
  assert_true(lua_gethook(L) == NULL);
  lua_close(L);
  return 0;
}

#define TEST(name, chunk)                                                     \
  static void name(void **state) { run_chunk(*state, chunk); }

TEST(function_is_ended_in_time, "local t = now()\n"
                                "same({true, false, nil, 'timeout'},\n"
                                "  resume(start(forever, {timeout = 0.01})))\n"
                                "assert(now() - t >= 0.01 and now() - t < 5)\n"
                                "assert(guard:GetStatus 'k' == 'TimedOut')\n"
                                "assert(not guard:IsLocked 'k')\n")

TEST(pcall_in_a_loop_is_ended_after_a_yield,
     "local co = start(function()\n"
     "  yield()\n"
     "  while true do pcall(forever) end\n"
     "end, {timeout = 0.01})\n"
     "same({true}, resume(co))\n"
     "same({true, false, nil, 'timeout'}, resume(co))\n"
     "assert(debug.gethook(co) == nil)\n")

TEST(values_pass_both_ways,
     "local co = start(function(...)\n"
     "  assert(select('#', ...) == 0)\n"
     "  same({'a', nil, 'c'}, yield(1, nil, 3))\n"
     "  same({}, yield())\n"
     "  local many = {}\n"
     "  for i = 1, 200 do many[i] = i end\n"
     "  assert(select('#', yield(table.unpack(many))) == 200)\n"
     "  return 'result', 'cut off'\n"
     "end)\n"
     "same({true, 1, nil, 3}, resume(co))\n"
     "same({true}, resume(co, 'a', nil, 'c'))\n"
     "local many = table.pack(resume(co))\n"
     "assert(many.n == 201 and many[201] == 200)\n"
     "same({true, true, 'result'}, resume(co, table.unpack(many, 2)))\n"
     "assert(coroutine.status(co) == 'dead')\n"
     "assert(guard:GetResult 'k' == 'result')\n")

TEST(what_is_refused_answers_as_ever,
     "guard:RunOnce('k', function() return 7 end)\n"
     "same({true, true, 7, 'cached'}, resume(start(forever)))\n")

TEST(errors_keep_object_and_traceback,
     "local err = {}\n"
     "local function fails() yield() error(err) end\n"
     "local function caller()\n"
     "  return (guard:RunOnce('k', function() fails() end))\n"
     "end\n"
     "local co = coroutine.create(function()\n"
     "  local a, b, c = guard:RunOnce('k', function() fails() end)\n"
     "  return a, b, c\n"
     "end)\n"
     "resume(co)\n"
     "same({true, false, err, 'failed'}, resume(co))\n"
     "local text = guard:GetRecord 'k'.error\n"
     "assert(text:find(\"in upvalue 'fails'\", 1, true), text)\n"
     "assert(text:find(\"in method 'RunOnce'\", 1, true), text)\n"
     "assert(select(2, text:gsub('stack traceback', '')) == 1, text)\n"
     /* that of the host is below */
     "local host = text:find(\"in method 'RunOnce'\", 1, true)\n"
     "assert(text:find('in function <', host, true), text)\n")

TEST(running_names_the_host,
     "local co, inside, really\n"
     "co = start(function()\n"
     "  local main\n"
     "  inside, main = coroutine.running()\n"
     "  assert(main == false and coroutine.isyieldable())\n"
     "  really = thread()\n"
     "  assert(coroutine.status(inside) == 'normal')\n"
     "  assert(coroutine.wrap(function()\n"
     "    return coroutine.running() end)() ~= inside)\n"
     "  assert(debug.traceback():find 'in function')\n"
     "  yield()\n"
     "  assert(coroutine.running() == inside)\n"
     "end)\n"
     "assert(resume(co))\n"
     "assert(inside == co and really ~= co)\n"
     "same({true, true, nil}, resume(co))\n")

/* Who was told the name may resume it, from anywhere. */
TEST(host_may_be_resumed_by_anybody,
     "local co, inside\n"
     "co = start(function()\n"
     "  inside = coroutine.running()\n"
     "  yield() yield() yield() yield()\n"
     "  forever()\n"
     "end, {timeout = 0.05})\n"
     "assert(resume(co))\n"
     "assert(coroutine.resume(inside))\n"
     "assert(resume(inside))\n"
     "same({true}, coroutine.resume(co))\n"
     "same({true, false, nil, 'timeout'}, coroutine.resume(inside))\n")

TEST(nested_runs_are_in_place_inside,
     "local outer, inner\n"
     "local co = start(function()\n"
     "  outer = thread()\n"
     "  local a, b, c = guard:RunOnce('inner', function()\n"
     "    inner = thread()\n"
     "    yield()\n"
     "    forever()\n"
     "  end, {timeout = 0.01})\n"
     "  assert(a == false and c == 'timeout')\n"
     "  return 'on'\n"
     "end)\n"
     "assert(resume(co))\n"
     "same({true, true, 'on'}, resume(co))\n"
     "assert(outer == inner)\n")

TEST(outer_one_ends_the_inner_one,
     "local order = {}\n"
     "local function note(key) order[#order + 1] = key end\n"
     "local co = start(function()\n"
     "  guard:RunOnce('inner', function()\n"
     "    yield()\n"
     "    while true do pcall(forever) end\n"
     "  end, {timeout = 30, onTimeout = note})\n"
     "end, {timeout = 0.01, onTimeout = note})\n"
     "assert(resume(co))\n"
     "same({true, false, nil, 'timeout'}, resume(co))\n"
     "assert(guard:GetStatus 'inner' == 'TimedOut')\n"
     "same({'k', 'inner'}, table.unpack(order))\n")

TEST(wrapped_coroutines_inside,
     "same({true, false, nil, 'timeout'}, resume(start(function()\n"
     "  local f = coroutine.wrap(function(a)\n"
     "    while true do a = coroutine.yield(a + 1) end\n"
     "  end)\n"
     "  assert(f(1) == 2 and f(2) == 3)\n"
     "  coroutine.wrap(forever)()\n"
     "end, {timeout = 0.01})))\n")

/* A guard further out, and C's own resume between the two. */
TEST(guard_around_the_resumer_ends_it_all,
     "local inner\n"
     "local why = run(function()\n"
     "  local co = start(function() while true do pcall(forever) end end,\n"
     "    {timeout = 30, onTimeout = function() inner = true end}, 'b')\n"
     "  resume(co)\n"
     "end)\n"
     "assert(why == 'timeout' and inner, why)\n"
     "assert(guard:GetStatus 'b' == 'TimedOut')\n")

TEST(shield_holds_there_and_passes_yields,
     "local done\n"
     "local co = coroutine.create(function()\n"
     "  return ExecutionGuard.shield(function(a)\n"
     "    a = yield(a)\n"
     "    spin(0.03)\n"
     "    done = true\n"
     "    return a, 2\n"
     "  end, 'a')\n"
     "end)\n"
     "local why = run(function()\n"
     "  same({true, 'a'}, resume(co))\n"
     "  same({true, 'b', 2}, resume(co, 'b'))\n"
     "  forever()\n"
     "end)\n"
     "assert(why == 'timeout' and done, why)\n"
     "local ok, err = resume(coroutine.create(function()\n"
     "  ExecutionGuard.shield(error, 'plain', 0)\n"
     "end))\n"
     "assert(not ok and err == 'plain', err)\n")

TEST(closed_it_is_abandoned,
     "for _, how in ipairs {close, coroutine.close} do\n"
     "  local closed\n"
     "  local co = start(function()\n"
     "    local _ <close> = setmetatable({}, {__close = function()\n"
     "      closed = guard:IsLocked 'k'\n"
     "    end})\n"
     "    yield()\n"
     "  end, {timeout = 30, allowRerun = true})\n"
     "  assert(resume(co))\n"
     "  assert(guard:GetStatus 'k' == 'Running')\n"
     "  same({true}, how(co))\n"
     "  assert(closed == true)\n"
     "  assert(guard:GetStatus 'k' == 'Failed')\n"
     "  assert(guard:GetRecord 'k'.error:find 'abandoned')\n"
     "  assert(not guard:IsLocked 'k')\n"
     "end\n")

TEST(closed_with_an_error_it_says_so,
     "local err = {}\n"
     "local co = start(function()\n"
     "  local _ <close> = setmetatable({}, {__close = function()\n"
     "    error(err)\n"
     "  end})\n"
     "  yield()\n"
     "end)\n"
     "assert(resume(co))\n"
     "same({false, err}, coroutine.close(co))\n"
     "assert(guard:GetStatus 'k' == 'Failed')\n"
     "assert(not guard:IsLocked 'k')\n")

TEST(collected_it_is_abandoned,
     "local co = start(yield)\n"
     "assert(resume(co))\n"
     "co = nil\n"
     "for i = 1, 3 do collectgarbage() end\n"
     "assert(guard:GetStatus 'k' == 'Failed')\n"
     "assert(guard:GetRecord 'k'.error:find 'abandoned')\n"
     "assert(not guard:IsLocked 'k')\n")

TEST(only_the_run_that_has_expired_ends,
     "local a = start(function() yield() forever() end, {timeout = 0.01})\n"
     "local b = coroutine.create(function()\n"
     "  return guard:RunOnce('b', function()\n"
     "    yield()\n"
     "    spin(0.03)\n"
     "    return 7\n"
     "  end, {timeout = 30})\n"
     "end)\n"
     "assert(resume(a))\n"
     "assert(resume(b))\n"
     "same({true, true, 7}, resume(b))\n"
     "assert(guard:GetStatus 'k' == 'TimedOut')\n"
     "same({true, false, nil, 'timeout'}, resume(a))\n")

TEST(key_that_runs_is_running_for_others,
     "local co = start(yield)\n"
     "assert(resume(co))\n"
     "same({true, false, nil, 'running'}, resume(start(forever)))\n"
     "same({false, nil, 'running'}, guard:RunOnce('k', forever))\n"
     "same({true, true, 5}, resume(co, 5))\n")

TEST(retry_over_yields,
     "local calls = 0\n"
     "local co = start(function()\n"
     "  calls = calls + 1\n"
     "  yield(calls)\n"
     "  error 'again'\n"
     "end, {timeout = 30, retry = {attempts = 3, delay = 0}})\n"
     "same({true, 1}, resume(co))\n"
     "same({true, 2}, resume(co))\n"
     "same({true, 3}, resume(co))\n"
     "local ok, done, err, why = resume(co)\n"
     "assert(ok and not done and why == 'failed', why)\n")

TEST(alias_taken_before_counts_as_unknown,
     "local co = start(forever, {timeout = 0.01}, 'b')\n"
     "local why = run(function()\n"
     "  same({true, false, nil, 'timeout'}, resume(co))\n"
     "  return 1\n"
     "end, 30)\n"
     "assert(why == nil, why)\n")

int main(void) {
#define UNIT(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      UNIT(function_is_ended_in_time),
      UNIT(pcall_in_a_loop_is_ended_after_a_yield),
      UNIT(values_pass_both_ways),
      UNIT(what_is_refused_answers_as_ever),
      UNIT(errors_keep_object_and_traceback),
      UNIT(running_names_the_host),
      UNIT(host_may_be_resumed_by_anybody),
      UNIT(nested_runs_are_in_place_inside),
      UNIT(outer_one_ends_the_inner_one),
      UNIT(wrapped_coroutines_inside),
      UNIT(guard_around_the_resumer_ends_it_all),
      UNIT(shield_holds_there_and_passes_yields),
      UNIT(closed_it_is_abandoned),
      UNIT(closed_with_an_error_it_says_so),
      UNIT(collected_it_is_abandoned),
      UNIT(only_the_run_that_has_expired_ends),
      UNIT(key_that_runs_is_running_for_others),
      UNIT(retry_over_yields),
      UNIT(alias_taken_before_counts_as_unknown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
