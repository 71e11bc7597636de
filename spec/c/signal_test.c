/* SPDX-License-Identifier: MIT
** The signal, and what is no matter for it: signals of others, system calls
** that go on, callbacks on a coroutine that is further down, threads that end
** in a run.  By real time, since signals are.
*/
#include "lua_world.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* ------------------------------------------------- signals of others -- */

typedef struct nuisance {
  pthread_t thread, target;
  atomic_bool over;
} nuisance;

static void *annoy(void *arg) {
  nuisance *n = arg;
  while (!atomic_load(&n->over)) {
    pthread_kill(n->target, SIGURG);
    usleep(50);
  }
  return NULL;
}

/* A signal means: look at your own chain.  Whatever it was sent for. */
static void signal_without_a_deadline_does_nothing(void **state) {
  (void)state;
  nuisance n = {.target = pthread_self()};
  lua_State *L = new_state();
  run_chunk(L, "assert(run(forever) == 'timeout')"); /* the handler is set */
  assert_int_equal(pthread_create(&n.thread, NULL, annoy, &n), 0);
  run_chunk(L, "for i = 1, 200 do\n"
               "  local sum = 0\n"
               "  local ok, result = guard:RunOnce('r' .. i, function()\n"
               "    return coroutine.wrap(function()\n"
               "      for k = 1, 1000 do sum = sum + k now() end\n"
               "      assert(not debug.gethook())\n"
               "      return sum\n"
               "    end)()\n"
               "  end, { timeout = 60 })\n"
               "  assert(ok and result == 500500, result)\n"
               "end\n"
               "assert(run(forever) == 'timeout')\n"
               "assert(debug.gethook() == nil)\n");
  atomic_store(&n.over, true);
  pthread_join(n.thread, NULL);
  lua_close(L);
}

/* ---------------------------------------------------------- the flags -- */

static void handler_restarts_calls_and_uses_the_other_stack(void **state) {
  (void)state;
  struct sigaction now;
  lua_State *L = new_state();
  run_chunk(L, "assert(run(forever) == 'timeout')");
  sigaction(SIGURG, NULL, &now);
  assert_true(now.sa_flags & SA_RESTART);
  assert_true(now.sa_flags & SA_ONSTACK);
  assert_true(now.sa_flags & SA_SIGINFO);
  lua_close(L);
}

/* A read that waits while the signals come: it is not cut short. */
static void system_call_goes_on_over_the_signal(void **state) {
  (void)state;
  lua_State *L = new_state();
  run_chunk(L, "local text, why, entered, reason\n"
               "repeat\n" /* it may take long to come so far */
               "  local pipe <close> = io.popen('sleep 0.2; echo whole')\n"
               "  _, _, reason = guard:RunOnce('k', function()\n"
               "    ExecutionGuard.shield(function()\n"
               "      entered = true\n"
               "      text, why = pipe:read 'l'\n"
               "    end)\n"
               "  end, { timeout = 0.01, allowRerun = true })\n"
               "until entered\n"
               "assert(reason == 'timeout', reason)\n"
               "assert(text == 'whole', why)\n");
  lua_close(L);
}

static int informed;

static void by_info(int number, siginfo_t *info, void *context) {
  (void)context;
  informed += info->si_signo == number;
  errno = 5;
}

/* Who had the signal before is called after us, as he asked to be. */
static void handler_that_was_there_is_called(void **state) {
  (void)state;
  struct sigaction action = {.sa_sigaction = by_info, .sa_flags = SA_SIGINFO};
  lua_State *L = new_state();
  sigaction(SIGWINCH, &action, NULL);
  run_chunk(L, "ExecutionGuard.configure { signal = 28 }");
  informed = 0;
  run_chunk(L, "assert(run(forever) == 'timeout')");
  errno = 4711;
  raise(SIGWINCH);
  assert_int_equal(errno, 4711); /* whatever he does to it */
  assert_true(informed > 0);
  run_chunk(L, "ExecutionGuard.configure { signal = 23 }");
  lua_close(L);
}

/* ------------------------------------------- another signal meanwhile -- */

typedef struct changer {
  pthread_t thread;
  atomic_bool over;
  const char *chunk;
  char why[256];
} changer;

/* Does the chunk again and again, in a state of its own. */
static void *change(void *arg) {
  changer *c = arg;
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  bool ok = luaL_dostring(L, prelude) == LUA_OK;
  while (ok && !atomic_load(&c->over))
    ok = luaL_dostring(L, c->chunk) == LUA_OK;
  if (!ok)
    snprintf(c->why, sizeof c->why, "%s", lua_tostring(L, -1));
  lua_close(L);
  return NULL;
}

/* SIGUSR1 and SIGUSR2 end a program that does not handle them. */
static void signal_is_given_up_while_it_is_on_its_way(void **state) {
  (void)state;
  changer c = {.chunk = "assert(run(forever, 0.0005) == 'timeout')"};
  lua_State *L = new_state();
  run_chunk(L, "ExecutionGuard.configure { signal = 10 }");
  assert_int_equal(pthread_create(&c.thread, NULL, change, &c), 0);
  bool ok = luaL_dostring(L, "local start = now()\n"
                             "repeat\n"
                             "  ExecutionGuard.configure { signal = 12 }\n"
                             "  ExecutionGuard.configure { signal = 10 }\n"
                             "until now() - start > 0.5\n"
                             "ExecutionGuard.configure { signal = 23 }") ==
            LUA_OK;
  atomic_store(&c.over, true);
  pthread_join(c.thread, NULL);
  if (!ok)
    fail_msg("%s", lua_tostring(L, -1));
  assert_string_equal(c.why, "");
  run_chunk(L, "assert(run(forever) == 'timeout')");
  lua_close(L);
}

/* 0 when the child can change the engine, too. */
static int fork_and_configure(lua_State *L) {
  int status = -1;
  pid_t pid = fork();
  if (pid == 0) {
    alarm(60);
    _exit(luaL_dostring(L, "ExecutionGuard.configure { signal = 23 }") !=
          LUA_OK);
  }
  waitpid(pid, &status, 0);
  return status;
}

static void child_can_configure_whatever_its_parent_did(void **state) {
  (void)state;
  int status = 0;
  changer c = {.chunk = "ExecutionGuard.configure { signal = 28 }\n"
                        "ExecutionGuard.configure { signal = 23 }\n"};
  SPEC_FORKS_THREADS();
  lua_State *L = new_state();
  run_chunk(L, "assert(run(forever) == 'timeout')");
  assert_int_equal(pthread_create(&c.thread, NULL, change, &c), 0);
  for (int i = 0; i < spec_scaled(300) && status == 0; i++)
    status = fork_and_configure(L);
  atomic_store(&c.over, true);
  pthread_join(c.thread, NULL);
  assert_int_equal(status, 0);
  assert_string_equal(c.why, "");
  run_chunk(L, "ExecutionGuard.configure { signal = 23 }");
  lua_close(L);
}

/* -------------------------------------------- a coroutine comes twice -- */

/* on_main(fn): calls it on the main coroutine, from whatever coroutine. */
static int on_main(lua_State *L) {
  lua_State *main = lua_touserdata(L, lua_upvalueindex(1));
  lua_settop(L, 1);
  if (!lua_checkstack(main, 4))
    return luaL_error(L, "no stack");
  lua_xmove(L, main, 1);
  if (lua_pcall(main, 0, 0, 0) == LUA_OK)
    return 0;
  lua_xmove(main, L, 1);
  return lua_error(L);
}

static int depth_hook_calls;

static void users_hook(lua_State *L, lua_Debug *ar) {
  (void)L;
  (void)ar;
  depth_hook_calls++;
}

static void callback_on_the_main_coroutine_is_ended(void **state) {
  (void)state;
  lua_State *L = new_state();
  lua_pushlightuserdata(L, L);
  lua_pushcclosure(L, on_main, 1);
  lua_setglobal(L, "on_main");
  lua_sethook(L, users_hook, LUA_MASKCOUNT, 1000000);
  run_chunk(L,
            /* the outer guard is on the coroutine that loops */
            "local why, took = run(function()\n"
            "  coroutine.wrap(function() on_main(forever) end)()\n"
            "end)\n"
            "assert(why == 'timeout', why)\n"
            "assert(took < 5)\n"
            /* the inner one alone, on the main coroutine once more */
            "local inner\n"
            "local why = run(function()\n"
            "  coroutine.wrap(function()\n"
            "    on_main(function()\n"
            "      _, _, inner = guard:RunOnce('i', forever,\n"
            "        { timeout = 0.01 })\n"
            "    end)\n"
            "  end)()\n"
            "end, 30)\n"
            "assert(inner == 'timeout', inner)\n"
            "assert(why == nil, why)\n"
            /* the outer one, while there is one further in */
            "inner = nil\n"
            "local why, took = run(function()\n"
            "  coroutine.wrap(function()\n"
            "    on_main(function()\n"
            "      _, _, inner = guard:RunOnce('j', forever,\n"
            "        { timeout = 30 })\n"
            "    end)\n"
            "  end)()\n"
            "end)\n"
            "assert(why == 'timeout', why)\n"
            "assert(inner == nil and took < 5)\n"
            "assert(guard:GetStatus 'j' == 'TimedOut')\n");
  assert_true(lua_gethook(L) == users_hook);
  assert_int_equal(lua_gethookcount(L), 1000000);
  lua_close(L);
}

/* --------------------------------------------- threads that end in it -- */

static int exit_thread(lua_State *L) {
  (void)L;
  pthread_exit(NULL);
}

static void *end_in_a_run(void *arg) {
  lua_State *L = arg;
  bool failed = luaL_dostring(L, lua_tostring(L, -1)) != LUA_OK;
  return failed ? L : arg; /* it should not have come here */
}

/* Writes over what the thread before it had on its stack. */
static void *spoil(void *arg) {
  volatile char there[100000];
  for (size_t i = 0; i < sizeof there; i++)
    there[i] = 0x5a;
  return arg;
}

/* The state of a thread that ended in a run is closed by another one. */
static void thread_that_exits_in_a_run(lua_State *other, const char *chunk) {
  pthread_t thread;
  void *returned = NULL;
  lua_State *L = new_state();
  lua_register(L, "exit_thread", exit_thread);
  run_chunk(L, "shared = ExecutionGuard.new { name = 'signal_test' }");
  lua_pushstring(L, chunk);
  assert_int_equal(pthread_create(&thread, NULL, end_in_a_run, L), 0);
  pthread_join(thread, &returned);
  assert_null(returned);
  assert_int_equal(pthread_create(&thread, NULL, spoil, L), 0);
  pthread_join(thread, NULL);
  run_chunk(other, "spin(0.05)"); /* past its deadline */
  run_chunk(other, "assert(shared:GetStatus 'k' == 'Running')");
  lua_close(L);
  run_chunk(other, "assert(not shared:IsLocked 'k')\n"
                   "assert(run(forever) == 'timeout')\n");
}

static void thread_that_exits_in_a_run_leaves_nothing(void **state) {
  (void)state;
  lua_State *other = new_state();
  run_chunk(other, "shared = ExecutionGuard.new { name = 'signal_test' }");
  thread_that_exits_in_a_run(
      other, "shared:RunOnce('k', exit_thread, { timeout = 0.02 })");
  thread_that_exits_in_a_run(other, "coroutine.wrap(function()\n"
                                    "  shared:RunOnce('k', function()\n"
                                    "    guard:RunOnce('inner', exit_thread)\n"
                                    "  end, { timeout = 0.02 })\n"
                                    "end)()\n");
  lua_close(other);
}

/* ------------------------------------------------------ closed guards -- */

static void function_that_closes_its_guard_is_ended(void **state) {
  (void)state;
  lua_State *L = new_state();
  run_chunk(L, "local other = ExecutionGuard.new()\n"
               "local start = now()\n"
               "local _, _, why = other:RunOnce('k', function()\n"
               "  other:Close()\n"
               "  assert(ExecutionGuard.expired())\n"
               "  forever()\n"
               "end, { timeout = 0.01 })\n"
               "assert(why == 'lost', why)\n"
               "assert(now() - start < 5)\n");
  lua_close(L);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(signal_without_a_deadline_does_nothing),
      cmocka_unit_test(handler_restarts_calls_and_uses_the_other_stack),
      cmocka_unit_test(system_call_goes_on_over_the_signal),
      cmocka_unit_test(handler_that_was_there_is_called),
      cmocka_unit_test(signal_is_given_up_while_it_is_on_its_way),
      cmocka_unit_test(child_can_configure_whatever_its_parent_did),
      cmocka_unit_test(callback_on_the_main_coroutine_is_ended),
      cmocka_unit_test(thread_that_exits_in_a_run_leaves_nothing),
      cmocka_unit_test(function_that_closes_its_guard_is_ended),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
