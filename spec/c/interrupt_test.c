/* SPDX-License-Identifier: MIT
** Interruption as a host in C sees it: threads with the signal blocked,
** threads that come and go, debuggers that call lua_sethook.
**
** Real time, with generous bounds: what is tried is the signal.  Loops call
** now(): the thread sanitizer hands a signal on only at calls that it knows,
** and a clock's is one.
*/
#include "lua_world.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* ------------------------------------------------------------ threads -- */

static const char ends_in_time[] = "local why, took = run(forever)\n"
                                   "assert(why == 'timeout', why)\n"
                                   "assert(took >= 0.01 and took < 5, took)\n";

typedef struct visitor {
  const char *chunk;
  bool blocked;
  char why[256]; /* what went wrong, or nothing */
} visitor;

/* No assertion of cmocka's: that is for the test's own thread. */
static void *visit(void *arg) {
  visitor *v = arg;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGURG);
  if (v->blocked)
    pthread_sigmask(SIG_BLOCK, &set, NULL);
  v->why[0] = '\0';
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (luaL_dostring(L, prelude) != LUA_OK ||
      luaL_dostring(L, v->chunk) != LUA_OK)
    snprintf(v->why, sizeof v->why, "%s", lua_tostring(L, -1));
  lua_close(L);
  return NULL;
}

static void in_a_thread(const char *chunk, bool blocked) {
  visitor v = {.chunk = chunk, .blocked = blocked};
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, visit, &v), 0);
  assert_int_equal(pthread_join(thread, NULL), 0);
  if (v.why[0] != '\0')
    fail_msg("%s", v.why);
}

static void thread_that_blocks_the_signal_is_counted(void **state) {
  (void)state;
  in_a_thread("for i = 1, 3 do\n"
              "  local why, took = run(forever)\n"
              "  assert(why == 'timeout', why)\n"
              "  assert(took >= 0.01 and took < 5, took)\n"
              "  assert(debug.gethook() == nil)\n"
              "end\n",
              true);
}

/* What nobody can end: the record has ended all the same, and who asks next is
** granted the key, while the function still runs. */
typedef struct late_one {
  pthread_barrier_t begun;
  lua_State *L;
  char why[256];
} late_one;

static int tell_begun(lua_State *L) {
  late_one *late = lua_touserdata(L, lua_upvalueindex(1));
  pthread_barrier_wait(&late->begun);
  return 0;
}

static void *run_late(void *arg) {
  late_one *late = arg;
  if (luaL_dostring(late->L,
                    "local other_ran\n"
                    "local _, _, why = shared:RunOnce('k', function()\n"
                    "  ExecutionGuard.shield(function()\n"
                    "    begun()\n"
                    "    local start = now()\n"
                    "    repeat\n"
                    "      other_ran = shared:GetResult 'k' == 'other'\n"
                    "    until other_ran or now() - start > 30\n"
                    "  end)\n"
                    "end, {timeout = 0.02})\n"
                    "assert(other_ran, 'nobody else was granted it')\n"
                    "assert(why == 'timeout' or why == 'lost', why)\n") !=
      LUA_OK)
    snprintf(late->why, sizeof late->why, "%s", lua_tostring(late->L, -1));
  return NULL;
}

static void key_is_another_threads_at_the_deadline(void **state) {
  (void)state;
  static const char share[] =
      "shared = ExecutionGuard.new { name = 'late one' }";
  late_one late = {.L = new_state()};
  pthread_t thread;
  lua_State *L = new_state();
  pthread_barrier_init(&late.begun, NULL, 2);
  lua_pushlightuserdata(late.L, &late);
  lua_pushcclosure(late.L, tell_begun, 1);
  lua_setglobal(late.L, "begun");
  run_chunk(late.L, share);
  run_chunk(L, share);
  assert_int_equal(pthread_create(&thread, NULL, run_late, &late), 0);
  pthread_barrier_wait(&late.begun);
  bool ok = luaL_dostring(L,
                          "local seen = {}\n"
                          "local start = now()\n"
                          "repeat\n"
                          "  local status = shared:GetStatus 'k'\n"
                          "  seen[status] = true\n"
                          "until status == 'TimedOut' or now() - start >\n"
                          "  20\n"
                          "assert(not shared:IsLocked 'k')\n"
                          "assert(not seen.Idle and not seen.Failed)\n"
                          "local ok, what = shared:RunOnce('k',\n"
                          "  function() return 'other' end)\n"
                          "assert(ok and what == 'other', what)\n") == LUA_OK;
  pthread_join(thread, NULL);
  pthread_barrier_destroy(&late.begun);
  if (!ok)
    fail_msg("%s", lua_tostring(L, -1));
  assert_string_equal(late.why, "");
  run_chunk(L, "assert(shared:GetResult 'k' == 'other')");
  lua_close(late.L);
  lua_close(L);
}

static int block(lua_State *L) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGURG);
  pthread_sigmask(lua_toboolean(L, 1) ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
  return 0;
}

/* The run in which it is blocked cannot be ended; it comes back by itself, too
** late.  The next is counted, until it is blocked no more. */
static void thread_that_blocks_the_signal_later_is_found_out(void **state) {
  (void)state;
  lua_State *L = new_state();
  lua_register(L, "block", block);
  run_chunk(L, ends_in_time);
  run_chunk(L, "local why, took = run(function() block(true) spin(1) end)\n"
               "assert(why == 'timeout', why)\n"
               "assert(took >= 1, took)\n");
  run_chunk(L, ends_in_time);
  run_chunk(L, "block(false)");
  run_chunk(L, "local counted = true\n"
               "local why, took = run(function()\n"
               "  counted = debug.gethook() ~= nil\n"
               "  forever()\n"
               "end)\n"
               "assert(why == 'timeout', why)\n"
               "assert(not counted)\n");
  lua_close(L);
}

/* ---------------------------------------------------- other handlers -- */

static int theirs;

static void their_handler(int number) {
  (void)number;
  theirs++;
}

static int take_over(lua_State *L) {
  (void)L;
  struct sigaction action = {.sa_handler = their_handler};
  sigaction(SIGURG, &action, NULL);
  return 0;
}

static const char warned[] =
    "warnings = 0\n"
    "ExecutionGuard.setLogger(function(level, text)\n"
    "  if text:find 'somebody else' then warnings = warnings + 1 end\n"
    "end)\n";

static void handler_put_over_ours_is_found_out(void **state) {
  (void)state;
  lua_State *L = new_state();
  lua_register(L, "take_over", take_over);
  run_chunk(L, warned);
  run_chunk(L, ends_in_time);
  run_chunk(L, "local why, took = run(function() take_over() spin(1) end)\n"
               "assert(why == 'timeout', why)\n"
               "assert(took >= 1, took)\n");
  for (int i = 0; i < 3; i++)
    run_chunk(L, ends_in_time);
  run_chunk(L, "assert(warnings == 1, warnings)");
  in_a_thread(ends_in_time, false); /* told by the first */
  /* Configured anew, ours is put over theirs, which is called as well. */
  run_chunk(L, "ExecutionGuard.configure { engine = 'signal' }");
  theirs = 0;
  run_chunk(L, ends_in_time);
  assert_true(theirs > 0);
  run_chunk(L, "ExecutionGuard.configure { signal = 12 }");
  run_chunk(L, ends_in_time);
  struct sigaction now;
  sigaction(SIGURG, NULL, &now);
  assert_true(now.sa_handler == their_handler);
  run_chunk(L, "ExecutionGuard.configure { signal = 23 }");
  run_chunk(L, ends_in_time);
  lua_close(L);
}

static void slot_of_a_thread_that_is_gone_serves_the_next(void **state) {
  (void)state;
  in_a_thread("run(function() spin(0.2) end)", true);
  for (int i = 0; i < 20; i++) /* not deaf, as the one before it was */
    in_a_thread(ends_in_time, false);
}

static void state_that_is_closed_in_a_run_that_yielded_is_well(void **state) {
  (void)state;
  for (int i = 0; i < 20; i++) {
    lua_State *L = new_state();
    run_chunk(L, "co = coroutine.create(function()\n"
                 "  run(function() coroutine.yield() end, 0.001)\n"
                 "end)\n"
                 "assert(coroutine.resume(co))\n"
                 "spin(0.002 * math.random())\n");
    lua_close(L);
  }
}

/* A wait of our own for a key that another state holds. */
static void wait_for_a_lock_ends_with_the_guard_around_it(void **state) {
  (void)state;
  static const char share[] =
      "shared = ExecutionGuard.new { name = 'interrupt_test' }";
  lua_State *holder = new_state(), *L = new_state();
  run_chunk(holder, share);
  run_chunk(holder, "assert(shared:AcquireLock 'l')");
  run_chunk(L, share);
  run_chunk(L, "for _, fn in ipairs {\n"
               "  function() shared:AcquireLock('l', 30) end,\n"
               "  function() shared:RunOnce('l', forever) end,\n"
               "} do\n"
               "  local why, took = run(function() fn() error 'on' end)\n"
               "  assert(why == 'timeout', why)\n"
               "  assert(took >= 0.01 and took < 5, took)\n"
               "end\n");
  /* While its <close> variables have their time, it may wait. */
  run_chunk(L, "local got, why, took\n"
               "guard:RunOnce('k', function()\n"
               "  local _ <close> = setmetatable({}, {__close = function()\n"
               "    local start = now()\n"
               "    got, why = shared:AcquireLock('l', 0.05)\n"
               "    took = now() - start\n"
               "  end})\n"
               "  forever()\n"
               "end, {timeout = 0.01, closeGrace = 10, allowRerun = true})\n"
               "assert(got == false and why == 'locked', why)\n"
               "assert(took >= 0.05, took)\n");
  run_chunk(holder, "assert(shared:ReleaseLock 'l')");
  run_chunk(L, "assert(run(function() shared:Lock('l', 30) end, 30) == nil)\n"
               "collectgarbage()\n"
               "assert(not shared:IsLocked 'l')\n");
  lua_close(L);
  lua_close(holder);
}

/* ---------------------------------------------------------- debuggers -- */

static int steps;

static void debugger(lua_State *L, lua_Debug *ar) {
  (void)L;
  (void)ar;
  steps++;
}

/* attach(): what a debugger does, without asking anybody. */
static int attach(lua_State *L) {
  lua_sethook(L, debugger, LUA_MASKLINE | LUA_MASKCOUNT, 100);
  return 0;
}

static int detach(lua_State *L) {
  lua_sethook(L, NULL, 0, 0);
  return 0;
}

static void expect_attached(lua_State *L) {
  assert_true(lua_gethook(L) == debugger);
  assert_int_equal(lua_gethookmask(L), LUA_MASKLINE | LUA_MASKCOUNT);
  assert_int_equal(lua_gethookcount(L), 100);
  steps = 0;
  run_chunk(L, "for i = 1, 1000 do local x = i end");
  assert_true(steps > 0);
}

static lua_State *new_debugged_state(void) {
  lua_State *L = new_state();
  lua_register(L, "attach", attach);
  lua_register(L, "detach", detach);
  return L;
}

static void debugger_attached_before_comes_back(void **state) {
  (void)state;
  lua_State *L = new_debugged_state();
  attach(L);
  run_chunk(L, ends_in_time);
  expect_attached(L);
  lua_close(L);
}

static void debugger_attached_in_a_run_stays(void **state) {
  (void)state;
  lua_State *L = new_debugged_state();
  run_chunk(L, "assert(run(function() attach() forever() end) == 'timeout')");
  expect_attached(L);
  lua_close(L);
}

static void debugger_attached_again_and_again_does_not_save_it(void **state) {
  (void)state;
  lua_State *L = new_debugged_state();
  run_chunk(L, "local why, took = run(function()\n"
               "  while true do attach() now() end\n"
               "end)\n"
               "assert(why == 'timeout', why)\n"
               "assert(took < 5, took)\n");
  expect_attached(L);
  run_chunk(L, "local why, took = run(function()\n"
               "  while true do detach() now() end\n"
               "end)\n"
               "assert(why == 'timeout', why)\n"
               "assert(took < 5, took)\n");
  assert_true(lua_gethook(L) == NULL);
  lua_close(L);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(key_is_another_threads_at_the_deadline),
      cmocka_unit_test(thread_that_blocks_the_signal_is_counted),
      cmocka_unit_test(thread_that_blocks_the_signal_later_is_found_out),
      cmocka_unit_test(handler_put_over_ours_is_found_out),
      cmocka_unit_test(slot_of_a_thread_that_is_gone_serves_the_next),
      cmocka_unit_test(state_that_is_closed_in_a_run_that_yielded_is_well),
      cmocka_unit_test(wait_for_a_lock_ends_with_the_guard_around_it),
      cmocka_unit_test(debugger_attached_before_comes_back),
      cmocka_unit_test(debugger_attached_in_a_run_stays),
      cmocka_unit_test(debugger_attached_again_and_again_does_not_save_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
