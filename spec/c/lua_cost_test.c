/* SPDX-License-Identifier: MIT
** What a call from Lua must not cost where nothing runs: a reading of the
** clock, or memory.
**
** clock_gettime here is the one that the module finds, and counts by thread.
*/
#include "lua_world.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static _Thread_local long readings, takings;

__attribute__((visibility("default"))) int clock_gettime(clockid_t id,
                                                         struct timespec *ts) {
  readings++;
  return (int)syscall(SYS_clock_gettime, id, ts);
}

static lua_Alloc real_alloc;

static void *counting_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
  takings += nsize > 0;
  return real_alloc(ud, ptr, osize, nsize);
}

/* Runs the chunk, which defines call(), and counts what 100 calls of it take
** beyond the first few. */
static void count(const char *chunk, long *clocks, long *memory) {
  void *ud;
  lua_State *L = new_state();
  run_chunk(L, chunk);
  run_chunk(L, "for _ = 1, 10 do call() end\n"
               "function many() for _ = 1, 100 do call() end end\n"
               "collectgarbage 'stop'");
  real_alloc = lua_getallocf(L, &ud);
  lua_setallocf(L, counting_alloc, ud);
  lua_getglobal(L, "many");
  readings = takings = 0;
  if (lua_pcall(L, 0, 0, 0) != LUA_OK)
    fail_msg("%s", lua_tostring(L, -1));
  *clocks = readings;
  *memory = takings;
  lua_setallocf(L, real_alloc, ud);
  lua_close(L);
}

static void expect_nothing(const char *chunk) {
  long clocks, memory;
  count(chunk, &clocks, &memory);
  assert_int_equal(clocks, 0);
  assert_int_equal(memory, 0);
}

static void clock_is_the_one_that_is_counted(void **state) {
  long clocks, memory;
  (void)state;
  count("function call() return now(), {} end", &clocks, &memory);
  assert_int_equal(clocks, 100);
  assert_true(memory >= 100);
}

static void cached_result_costs_neither_time_nor_memory(void **state) {
  (void)state;
  expect_nothing("function fn() return 42 end\n"
                 "function call() return guard:RunOnce('k', fn) end");
}

static void table_that_is_kept_costs_neither(void **state) {
  (void)state;
  expect_nothing("function fn() return {} end\n"
                 "function call() return guard:RunOnce('k', fn) end");
}

static void completed_key_costs_neither(void **state) {
  (void)state;
  expect_nothing("function fn() end\n"
                 "function call() return guard:RunOnce('k', fn) end");
}

static void cached_result_within_a_run_costs_neither(void **state) {
  (void)state;
  expect_nothing("function fn() return 42 end\n"
                 "guard:RunOnce('k', fn)\n"
                 "function call() return guard:RunOnce('k', fn) end\n"
                 "local calls = call\n"
                 "local inside = coroutine.wrap(function()\n"
                 "  guard:RunOnce('outer', function()\n"
                 "    while true do coroutine.yield(calls()) end\n"
                 "  end)\n"
                 "end)\n"
                 "function call() return inside() end");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(clock_is_the_one_that_is_counted),
      cmocka_unit_test(cached_result_costs_neither_time_nor_memory),
      cmocka_unit_test(table_that_is_kept_costs_neither),
      cmocka_unit_test(completed_key_costs_neither),
      cmocka_unit_test(cached_result_within_a_run_costs_neither),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
