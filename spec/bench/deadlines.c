/* SPDX-License-Identifier: MIT
** Deadlines and locks where threads matter. Prints names and nanoseconds.
**
**   deadlines calls THREADS CALLS ROUNDS   what a RunOnce of a trivial function
**       takes, `with` a deadline and `without`, of each thread's share of a core
**   deadlines late RUNS    how long after its deadline RunOnce returns whose
**       function loops, with a limit of 20 ms (`ours`), and how late a thread
**       wakes that sleeps so long (`timer`)
**   deadlines hand ROUNDS  from one thread's letting go of a lock to the other
**       one's having it: `ours`, and a `bare` mutex and condition
*/
#include "executionguard.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { MOST_THREADS = 64, LIMIT_NS = 20000000, REST_NS = 30000 };

static void die(const char *what) {
  fprintf(stderr, "deadlines: %s\n", what);
  exit(1);
}

static int64_t now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static lua_State *new_state(const char *chunk) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (luaL_dostring(L, chunk) != LUA_OK)
    die(lua_tostring(L, -1));
  return L;
}

/* --------------------------------------------------------------- calls -- */

static const char calling[] =
    "local EG = require 'executionguard'\n"
    "local guards = {with = EG.new {timeout = 60},\n"
    "                without = EG.new {timeout = 0}}\n"
    "local again = {allowRerun = true}\n"
    "local function fn() end\n"
    "function call(which, n)\n"
    "  local guard = guards[which]\n"
    "  for i = 1, n do guard:RunOnce('k', fn, again) end\n"
    "end\n";

typedef struct caller {
  pthread_t thread;
  pthread_barrier_t *barrier;
  lua_State *L;
  const char *which;
  long calls;
  int64_t start, end;
} caller;

static void *call(void *arg) {
  caller *c = arg;
  pthread_barrier_wait(c->barrier);
  c->start = now_ns();
  lua_getglobal(c->L, "call");
  lua_pushstring(c->L, c->which);
  lua_pushinteger(c->L, c->calls);
  if (lua_pcall(c->L, 2, 0, 0) != LUA_OK)
    die(lua_tostring(c->L, -1));
  c->end = now_ns();
  return NULL;
}

static double one_round(caller *all, int n, const char *which) {
  pthread_barrier_t barrier;
  int64_t start = INT64_MAX, end = 0;
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  pthread_barrier_init(&barrier, NULL, (unsigned)n);
  for (int i = 0; i < n; i++) {
    all[i].barrier = &barrier;
    all[i].which = which;
    if (pthread_create(&all[i].thread, NULL, call, &all[i]) != 0)
      die("no thread");
  }
  for (int i = 0; i < n; i++) {
    pthread_join(all[i].thread, NULL);
    start = all[i].start < start ? all[i].start : start;
    end = all[i].end > end ? all[i].end : end;
  }
  pthread_barrier_destroy(&barrier);
  double share = n < cores ? 1 : (double)cores / n;
  return (double)(end - start) / (double)all[0].calls * share;
}

static void calls(int n, long count, long rounds) {
  static caller all[MOST_THREADS];
  if (n < 1 || n > MOST_THREADS)
    die("so many threads there are not");
  for (int i = 0; i < n; i++)
    all[i] = (caller){.L = new_state(calling), .calls = count};
  for (long r = 0; r <= rounds; r++) {
    double with = r % 2 ? one_round(all, n, "with") : 0;
    double without = one_round(all, n, "without");
    if (r % 2 == 0)
      with = one_round(all, n, "with");
    if (r > 0) /* the first one warms up */
      printf("with %.1f\nwithout %.1f\n", with, without);
  }
  for (int i = 0; i < n; i++)
    lua_close(all[i].L);
}

/* ---------------------------------------------------------------- late -- */

static const char looping[] =
    "local EG = require 'executionguard'\n"
    "local guard = EG.new()\n"
    "local options = {timeout = 0.02, allowRerun = true}\n"
    "local function fn() while true do end end\n"
    "function run()\n"
    "  local _, _, why = guard:RunOnce('k', fn, options)\n"
    "  local back = EG.now()\n"
    "  assert(why == 'timeout')\n"
    "  return back - guard:GetRecord('k').startTime - options.timeout\n"
    "end\n";

/* Not from the call on: a deadline counts from the grant, and the timer's is
** not counted from when its thread was asked for. */
static int64_t guarded(lua_State *L) {
  lua_getglobal(L, "run");
  if (lua_pcall(L, 0, 1, 0) != LUA_OK)
    die(lua_tostring(L, -1));
  int64_t late_ns = (int64_t)(lua_tonumber(L, -1) * 1e9);
  lua_pop(L, 1);
  return late_ns;
}

typedef struct waker {
  int64_t at, late;
  atomic_bool over;
} waker;

static void *sleep_till(void *arg) {
  waker *w = arg;
  struct timespec ts = {w->at / 1000000000, w->at % 1000000000};
  prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) != 0)
    continue;
  w->late = now_ns() - w->at;
  atomic_store(&w->over, true);
  return NULL;
}

/* This thread is as busy meanwhile as one that loops in a guard. */
static int64_t bare_timer(void) {
  pthread_t thread;
  waker w = {.at = now_ns() + LIMIT_NS};
  if (pthread_create(&thread, NULL, sleep_till, &w) != 0)
    die("no thread");
  while (!atomic_load(&w.over))
    continue;
  pthread_join(thread, NULL);
  return w.late;
}

static void late(long runs) {
  lua_State *L = new_state(looping);
  guarded(L);
  for (long i = 0; i < runs; i++)
    printf("ours %lld\ntimer %lld\n", (long long)guarded(L),
           (long long)bare_timer());
  lua_close(L);
}

/* ---------------------------------------------------------------- hand -- */

enum { HANDS = 500 };

typedef struct lock {
  eg_guard *guard; /* NULL: a bare one */
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  bool held;
  int turn;
  atomic_long asked, taken; /* how often in all */
  _Atomic int64_t let_go;
  int64_t samples[HANDS];
} lock;

typedef struct taker {
  pthread_t thread;
  lock *lock;
  int number;
} taker;

static uint64_t take(lock *l, int number) {
  eg_grant grant = {0};
  if (l->guard == NULL) {
    pthread_mutex_lock(&l->mutex);
    while (l->held || l->turn != number)
      pthread_cond_wait(&l->cond, &l->mutex);
    l->held = true;
    pthread_mutex_unlock(&l->mutex);
    return 0;
  }
  eg_reply reply;
  eg_reply_init(&reply);
  if (eg_acquire(l->guard, eg_str("lock"), EG_WANT_LOCK, NULL, 600000, &grant,
                 &reply) != EG_OK)
    die("no lock");
  eg_reply_free(&reply);
  return grant.token;
}

static void let_go(lock *l, int number, uint64_t token) {
  if (l->guard != NULL) {
    eg_release(l->guard, eg_str("lock"), token, NULL);
    return;
  }
  pthread_mutex_lock(&l->mutex);
  l->held = false;
  l->turn = 1 - number;
  pthread_cond_signal(&l->cond);
  pthread_mutex_unlock(&l->mutex);
}

/* The other one has asked, and had time to fall asleep. */
static void wait_for_other(lock *l, long asked) {
  while (atomic_load(&l->asked) < asked)
    continue;
  for (int64_t till = now_ns() + REST_NS; now_ns() < till;)
    continue;
}

static void *alternate(void *arg) {
  taker *t = arg;
  lock *l = t->lock;
  for (long i = t->number; i < HANDS; i += 2) {
    if (i == 1) /* the other one is first */
      wait_for_other(l, 1);
    atomic_fetch_add(&l->asked, 1);
    uint64_t token = take(l, t->number);
    l->samples[i] = now_ns() - atomic_load(&l->let_go);
    atomic_store(&l->taken, i);
    if (i + 1 < HANDS)
      wait_for_other(l, i + 2);
    atomic_store(&l->let_go, now_ns());
    let_go(l, t->number, token);
    while (i + 1 < HANDS && atomic_load(&l->taken) <= i)
      usleep(10); /* on a busy machine the other one may not wait yet */
  }
  return NULL;
}

static int by_size(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* The median of a round. */
static int64_t hand_over(eg_guard *guard) {
  lock l = {.guard = guard,
            .mutex = PTHREAD_MUTEX_INITIALIZER,
            .cond = PTHREAD_COND_INITIALIZER};
  taker takers[2];
  for (int i = 0; i < 2; i++) {
    takers[i] = (taker){.lock = &l, .number = i};
    if (pthread_create(&takers[i].thread, NULL, alternate, &takers[i]) != 0)
      die("no thread");
  }
  for (int i = 0; i < 2; i++)
    pthread_join(takers[i].thread, NULL);
  qsort(l.samples + 1, HANDS - 1, sizeof l.samples[0], by_size);
  return l.samples[HANDS / 2];
}

static void hand(long rounds) {
  eg_guard *guard;
  eg_error error;
  if (eg_open(NULL, &guard, &error) != EG_OK)
    die(error.message);
  hand_over(guard);
  for (long r = 0; r < rounds; r++)
    printf("ours %lld\nbare %lld\n", (long long)hand_over(guard),
           (long long)hand_over(NULL));
  eg_close(guard);
}

int main(int argc, char **argv) {
  if (argc == 5 && strcmp(argv[1], "calls") == 0)
    calls(atoi(argv[2]), atol(argv[3]), atol(argv[4]));
  else if (argc == 3 && strcmp(argv[1], "late") == 0)
    late(atol(argv[2]));
  else if (argc == 3 && strcmp(argv[1], "hand") == 0)
    hand(atol(argv[2]));
  else
    die("usage: deadlines calls THREADS CALLS ROUNDS | late RUNS | "
        "hand ROUNDS");
  return 0;
}
