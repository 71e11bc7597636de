/* SPDX-License-Identifier: MIT
** Lua programs that fork, alone and with other threads in the middle of
** everything: spec/faults/fork.lua, by real processes and real time.
*/
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

enum { OTHERS = 3 };

#define PATIENCE_S 60 /* of a child */

static const char set_paths[] =
    "local build = os.getenv 'EXECUTIONGUARD_BUILD'\n"
    "if build or not (os.getenv 'LUA_CPATH' or os.getenv 'LUA_CPATH_5_4')\n"
    "then\n"
    "  local lua = (build or './build') .. '/lua/'\n"
    "  package.path = lua .. '?.lua;' .. lua .. '?/init.lua;' ..\n"
    "    package.path\n"
    "  package.cpath = lua .. '?.so;' .. package.cpath\n"
    "end\n";

/* ------------------------------------------------- what Lua is given -- */

static int play_child(lua_State *L, int fd) {
  lua_pushvalue(L, 1);
  if (lua_pcall(L, 0, 0, 0) == LUA_OK)
    return 0;
  const char *why = luaL_tolstring(L, -1, NULL);
  if (write(fd, why, strlen(why)) < 0)
    return 2;
  return 1;
}

/* fork(child, expected): what the child raises is raised here, unless it
** begins as expected. */
static int lua_fork(lua_State *L) {
  int pipes[2], status = -1;
  char why[512];
  const char *expected = luaL_optstring(L, 2, NULL);
  luaL_checktype(L, 1, LUA_TFUNCTION);
  if (pipe(pipes) != 0)
    return luaL_error(L, "no pipe");
  pid_t pid = fork();
  if (pid == 0) {
    alarm(PATIENCE_S);
    close(pipes[0]);
    _exit(play_child(L, pipes[1]));
  }
  close(pipes[1]);
  size_t n = 0;
  ssize_t got;
  while (n < sizeof why && (got = read(pipes[0], why + n, sizeof why - n)) > 0)
    n += (size_t)got;
  close(pipes[0]);
  waitpid(pid, &status, 0);
  lua_pushlstring(L, why, n);
  if (expected != NULL && n >= strlen(expected) &&
      memcmp(why, expected, strlen(expected)) == 0)
    return 0;
  if (n > 0 || status != 0 || expected != NULL)
    return luaL_error(L, "the child (status %d): %s", status,
                      lua_tostring(L, -1));
  return 0;
}

/* Leaves the table of plays on the stack. */
static lua_State *new_state(const char *name, char why[256]) {
  lua_State *L = luaL_newstate();
  if (L == NULL)
    return NULL;
  luaL_openlibs(L);
  bool ok = luaL_dostring(L, set_paths) == LUA_OK &&
            luaL_loadfile(L, "spec/faults/fork.lua") == LUA_OK;
  if (ok) {
    lua_pushcfunction(L, lua_fork);
    lua_pushstring(L, name);
    ok = lua_pcall(L, 2, 1, 0) == LUA_OK;
  }
  if (ok)
    return L;
  snprintf(why, 256, "%s", lua_tostring(L, -1));
  lua_close(L);
  return NULL;
}

static bool play(lua_State *L, const char *name, char why[256]) {
  lua_getfield(L, -1, name);
  bool ok = lua_pcall(L, 0, 0, 0) == LUA_OK;
  if (!ok) {
    snprintf(why, 256, "%s: %s", name, luaL_tolstring(L, -1, NULL));
    lua_pop(L, 2);
  }
  return ok;
}

/* ---------------------------------------------------------------- alone -- */

static void play_alone(const char *name) {
  char why[256] = "no state";
  eg_set_clock(NULL);
  lua_State *L = new_state(name, why);
  bool ok = L != NULL && play(L, name, why);
  if (L != NULL)
    lua_close(L);
  if (!ok)
    fail_msg("%s", why);
}

/* XX(name, does the library start threads?) */
#define PLAYS(XX)                                                             \
  XX(a_run_of_the_parent_is_not_the_childs, true)                             \
  XX(the_child_cannot_commit, true)                                           \
  XX(locks_stay_with_the_parent, false)                                       \
  XX(an_endless_run_is_ended_in_the_child_too, true)                          \
  XX(runs_of_the_childs_own_are_kept, true)                                   \
  XX(who_waits_in_a_task_goes_on_in_the_child, false)                         \
  XX(a_lock_that_was_handed_over_is_the_parents, false)                       \
  XX(timers_and_tasks_go_on_in_both, false)                                   \
  XX(leases_are_the_parents, true)

#define XX(name, threads)                                                     \
  static void name(void **state) {                                            \
    (void)state;                                                              \
    if (threads)                                                              \
      SPEC_FORKS_THREADS();                                                   \
    play_alone(#name);                                                        \
  }
PLAYS(XX)
#undef XX

/* --------------------------------------------------- of several threads -- */

typedef struct other {
  spec_thread thread;
  atomic_bool *over;
  char why[256];
} other;

static void be_busy(void *arg) {
  other *o = arg;
  lua_State *L = new_state("forks of many", o->why);
  while (L != NULL && !atomic_load(o->over) && play(L, "be_busy", o->why))
    continue;
  if (L != NULL)
    lua_close(L);
}

static void forks_of_a_process_with_busy_threads(void **state) {
  (void)state;
  other others[OTHERS];
  atomic_bool over;
  char why[256] = "no state";
  SPEC_FORKS_THREADS();
  eg_set_clock(NULL);
  atomic_init(&over, false);
  lua_State *L = new_state("forks of many", why);
  for (int i = 0; i < OTHERS; i++) {
    others[i] = (other){.over = &over};
    spec_start(&others[i].thread, be_busy, &others[i]);
  }
  bool ok = L != NULL;
  for (int i = 0; ok && i < spec_scaled(30); i++)
    ok = play(L, "anything", why);
  atomic_store(&over, true);
  for (int i = 0; i < OTHERS; i++)
    spec_join(&others[i].thread);
  if (L != NULL)
    lua_close(L);
  if (!ok)
    fail_msg("%s", why);
  for (int i = 0; i < OTHERS; i++)
    assert_string_equal(others[i].why, "");
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define XX(name, threads) cmocka_unit_test(name),
      PLAYS(XX)
#undef XX
          cmocka_unit_test(forks_of_a_process_with_busy_threads),
  };
  return cmocka_run_group_tests_name("fork", tests, NULL, NULL);
}
