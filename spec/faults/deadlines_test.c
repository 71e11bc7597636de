/* SPDX-License-Identifier: MIT
** Deadlines at random moments: on threads with a Lua state each, and on states
** that move between threads that come and go.
**
** Nothing may be early, nothing late by more than a generous bound, no error
** and no hook may be left anywhere, nothing may crash.  By real time.
** DEADLINES is how many deadlines (make torture: 20000).
*/
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

enum { THREADS = 8, WORKERS = 4, UNIVERSES = 12, STAY = 20 };

#define LATE 10 /* seconds: a busy machine, and sanitizers */

static atomic_int passed; /* deadlines */
static atomic_bool failed;
static int wanted;

static int set_up(void **state) {
  (void)state;
  const char *text = getenv("DEADLINES");
  wanted = text != NULL ? atoi(text) : spec_scaled(400);
  atomic_store(&passed, 0);
  return 0;
}

/* The first thing that went wrong. */
static char why[512];
static pthread_mutex_t why_mutex = PTHREAD_MUTEX_INITIALIZER;

static void report(const char *text) {
  pthread_mutex_lock(&why_mutex);
  if (!atomic_exchange(&failed, true))
    snprintf(why, sizeof why, "%s", text != NULL ? text : "no text");
  pthread_mutex_unlock(&why_mutex);
}

static const char set_paths[] =
    "local build = os.getenv 'EXECUTIONGUARD_BUILD'\n"
    "if build or not (os.getenv 'LUA_CPATH' or os.getenv 'LUA_CPATH_5_4')\n"
    "then\n"
    "  local lua = (build or './build') .. '/lua/'\n"
    "  package.path = lua .. '?.lua;' .. lua .. '?/init.lua;' ..\n"
    "    package.path\n"
    "  package.cpath = lua .. '?.so;' .. package.cpath\n"
    "end\n";

/* ------------------------------------------------------------ universes -- */

typedef struct universe {
  lua_State *L; /* NULL: it could not be made */
  lua_State *co;
  bool raw; /* resumed from C, by whoever comes */
  bool busy;
} universe;

/* What deadlines.lua returns is left on the stack: step, step_moving, loop. */
static bool begin(universe *u, int seed, bool raw) {
  lua_State *L = luaL_newstate();
  memset(u, 0, sizeof *u);
  if (L == NULL)
    return false;
  luaL_openlibs(L);
  u->L = L;
  u->raw = raw;
  if (luaL_dostring(L, set_paths) != LUA_OK ||
      luaL_loadfile(L, "spec/faults/deadlines.lua") != LUA_OK) {
    report(lua_tostring(L, -1));
    return false;
  }
  lua_pushinteger(L, seed);
  lua_pushinteger(L, LATE);
  lua_pushboolean(L, !raw);
  if (lua_pcall(L, 3, 3, 0) != LUA_OK) {
    report(lua_tostring(L, -1));
    return false;
  }
  if (raw) {
    u->co = lua_newthread(L);
    lua_pushvalue(L, 3);
    lua_xmove(L, u->co, 1);
  }
  return true;
}

static void end(universe *u) {
  if (u->L != NULL)
    lua_close(u->L);
}

static void call(universe *u, int step) {
  lua_pushvalue(u->L, step);
  if (lua_pcall(u->L, 0, 1, 0) != LUA_OK)
    report(lua_tostring(u->L, -1));
  else
    atomic_fetch_add(&passed, (int)lua_tointeger(u->L, -1));
  lua_pop(u->L, 1);
}

static void resume(universe *u) {
  int n;
  int status = lua_resume(u->co, u->L, 0, &n);
  if (status != LUA_YIELD) {
    report(lua_tostring(u->co, -1));
    return;
  }
  if (n > 0) /* else it is in the middle of something */
    atomic_fetch_add(&passed, (int)lua_tointeger(u->co, -1));
  lua_pop(u->co, n);
}

static bool goes_on(void) {
  return atomic_load(&passed) < wanted && !atomic_load(&failed);
}

/* ------------------------------------------------------ a state a thread -- */

static void stay(void *arg) {
  universe u;
  if (begin(&u, *(int *)arg, false))
    while (goes_on())
      call(&u, 1);
  end(&u);
}

static void deadlines_on_threads_with_a_state_each(void **state) {
  (void)state;
  spec_thread threads[THREADS];
  int seeds[THREADS];
  for (int i = 0; i < THREADS; i++) {
    seeds[i] = 17 + i;
    spec_start(&threads[i], stay, &seeds[i]);
  }
  for (int i = 0; i < THREADS; i++)
    spec_join(&threads[i]);
  if (atomic_load(&failed))
    fail_msg("%s", why);
}

/* --------------------------------------------------- states that move -- */

static universe universes[UNIVERSES];
static pthread_mutex_t pool = PTHREAD_MUTEX_INITIALIZER;
static atomic_int moves;

static universe *take(unsigned *random) {
  universe *found = NULL;
  pthread_mutex_lock(&pool);
  for (int tries = 0; found == NULL && tries < UNIVERSES; tries++) {
    *random = *random * 1103515245 + 12345;
    universe *u = &universes[*random / 65536 % UNIVERSES];
    if (!u->busy)
      found = u;
  }
  if (found != NULL)
    found->busy = true;
  pthread_mutex_unlock(&pool);
  return found;
}

static void give_back(universe *u) {
  pthread_mutex_lock(&pool);
  u->busy = false;
  pthread_mutex_unlock(&pool);
}

/* A thread that does a little for some states, and ends. */
static void visit(void *arg) {
  unsigned random = *(unsigned *)arg;
  for (int i = 0; i < STAY && goes_on(); i++) {
    universe *u = take(&random);
    if (u == NULL)
      continue;
    atomic_fetch_add(&moves, 1);
    if (u->raw)
      resume(u);
    else
      call(u, 2);
    give_back(u);
  }
}

static void deadlines_on_states_that_move(void **state) {
  (void)state;
  spec_thread threads[WORKERS];
  unsigned seeds[WORKERS];
  for (int i = 0; i < UNIVERSES; i++)
    if (!begin(&universes[i], 100 + i, i % 2 == 1))
      break;
  for (unsigned turn = 0; goes_on(); turn++) {
    for (int i = 0; i < WORKERS; i++) {
      seeds[i] = turn * WORKERS + (unsigned)i;
      spec_start(&threads[i], visit, &seeds[i]);
    }
    for (int i = 0; i < WORKERS; i++)
      spec_join(&threads[i]);
  }
  for (int i = 0; i < UNIVERSES; i++)
    end(&universes[i]);
  if (atomic_load(&failed))
    fail_msg("%s", why);
  assert_true(atomic_load(&moves) > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(deadlines_on_threads_with_a_state_each, set_up),
      cmocka_unit_test_setup(deadlines_on_states_that_move, set_up),
  };
  return cmocka_run_group_tests_name("deadlines", tests, NULL, NULL);
}
