/* SPDX-License-Identifier: MIT
** Kept deadlines: what fires, when, and what is told to whom.
*/
#include "support.h"

#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define FAR 60000

static const eg_policy policy = EG_POLICY_DEFAULT;
static eg_guard *guard; /* by the clock in force */

static int set_up(void **state) {
  (void)state;
  eg_test_clock_reset(false);
  eg_set_clock(eg_test_clock());
  return eg_open(NULL, &guard, NULL) == EG_OK ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  eg_close(guard);
  eg_set_clock(NULL);
  return 0;
}

/* A run of the key that is started and kept.  False: it was not granted.  For
** threads and forked children, out of which no assertion may jump. */
static bool begin(eg_timer *t, const char *key, int64_t timeout_ms) {
  eg_reply reply;
  *t = (eg_timer){.guard = guard, .key = eg_str(key), .policy = &policy};
  eg_reply_init(&reply);
  eg_status status = eg_acquire(guard, t->key, EG_WANT_RUN, NULL, 0, &t->grant,
                                &reply);
  eg_reply_free(&reply);
  t->grant.deadline_us = t->grant.start_us + timeout_ms * 1000;
  if (status == EG_OK)
    eg_timer_start(t);
  return status == EG_OK;
}

static void start(eg_timer *t, const char *key, int64_t timeout_ms) {
  assert_true(begin(t, key, timeout_ms));
}

static eg_status commit(eg_timer *t) {
  const eg_outcome done = {.status = EG_OK};
  return eg_commit(guard, t->key, &t->grant, &done, &policy, NULL);
}

/* False: the key is not as it should be then. */
static bool is_run(const char *key, eg_run wanted) {
  eg_record record;
  if (eg_fetch(guard, eg_str(key), &record, NULL) != EG_OK)
    return false;
  bool same = record.status == wanted &&
              record.locked == (wanted == EG_RUN_RUNNING);
  eg_record_free(&record);
  return same;
}

static eg_run run_of(const char *key) {
  eg_record record;
  assert_int_equal(eg_fetch(guard, eg_str(key), &record, NULL), EG_OK);
  eg_run run = record.status;
  assert_int_equal(record.locked, run == EG_RUN_RUNNING);
  eg_record_free(&record);
  return run;
}

static void timer_that_is_stopped_in_time_leaves_the_run(void **state) {
  (void)state;
  eg_timer t;
  start(&t, "k", 10);
  eg_test_clock_advance(9999);
  assert_int_equal(run_of("k"), EG_RUN_RUNNING);
  assert_true(eg_timer_fired(&t) == 0);
  assert_int_equal(eg_timer_stop(&t), EG_OK);
  assert_int_equal(commit(&t), EG_OK);
  eg_test_clock_advance(1000000);
  assert_int_equal(run_of("k"), EG_RUN_COMPLETED);
}

static void timer_at_its_deadline_frees_the_key(void **state) {
  (void)state;
  eg_timer t, again;
  start(&t, "k", 10);
  eg_test_clock_advance(10000);
  assert_int_equal(run_of("k"), EG_RUN_TIMEDOUT);
  assert_true(eg_timer_fired(&t) > 0);
  start(&again, "k", 10); /* while the first still works */
  assert_int_equal(eg_timer_stop(&again), EG_OK);
  assert_int_equal(commit(&again), EG_OK);
  assert_int_equal(eg_timer_stop(&t), EG_TIMEOUT);
  assert_int_equal(commit(&t), EG_LOST);
  assert_int_equal(run_of("k"), EG_RUN_COMPLETED);
}

static void timer_of_a_run_that_was_reset_is_lost(void **state) {
  (void)state;
  eg_timer t;
  start(&t, "k", 10);
  assert_int_equal(eg_reset(guard, t.key, NULL), EG_OK);
  eg_test_clock_advance(10000);
  assert_int_equal(run_of("k"), EG_RUN_IDLE);
  assert_int_equal(eg_timer_stop(&t), EG_LOST);
}

static void timers_nested_fire_each_at_its_own(void **state) {
  (void)state;
  eg_timer a, b, c;
  start(&a, "a", 30);
  start(&b, "b", 10);
  start(&c, "c", 20);
  eg_test_clock_advance(10000);
  assert_int_equal(run_of("b"), EG_RUN_TIMEDOUT);
  assert_int_equal(run_of("c"), EG_RUN_RUNNING);
  eg_test_clock_advance(10000);
  assert_int_equal(run_of("c"), EG_RUN_TIMEDOUT);
  assert_int_equal(eg_timer_stop(&c), EG_TIMEOUT);
  start(&c, "c", 5); /* nearer than all that is left */
  eg_test_clock_advance(5000);
  assert_int_equal(run_of("c"), EG_RUN_TIMEDOUT);
  assert_int_equal(run_of("a"), EG_RUN_RUNNING);
  assert_int_equal(eg_timer_stop(&c), EG_TIMEOUT);
  assert_int_equal(eg_timer_stop(&b), EG_TIMEOUT);
  eg_test_clock_advance(5000);
  assert_int_equal(run_of("a"), EG_RUN_TIMEDOUT);
  assert_int_equal(eg_timer_stop(&a), EG_TIMEOUT);
}

static void timer_that_is_void_stores_nothing(void **state) {
  (void)state;
  eg_timer t, p;
  start(&p, "p", 10);
  eg_timer_park(&p);
  start(&t, "k", 10);
  eg_timer_void(&t);
  eg_timer_void(&p);
  eg_test_clock_advance(10000);
  assert_int_equal(run_of("k"), EG_RUN_RUNNING);
  assert_int_equal(run_of("p"), EG_RUN_RUNNING);
  assert_true(eg_timer_fired(&t) > 0 && eg_timer_fired(&p) > 0);
  assert_int_equal(eg_timer_stop(&t), EG_LOST);
  assert_int_equal(eg_timer_stop(&p), EG_LOST);
}

/* Whose clock is his own: nobody keeps it, and it is seen on return. */
static void timer_of_a_guard_with_a_clock_of_its_own_is_not_kept(void **s) {
  (void)s;
  eg_guard *ours = guard;
  eg_clock own = *eg_system_clock();
  const eg_options options = {.env = {.clock = &own}};
  const eg_outcome done = {.status = EG_OK};
  eg_timer t;
  assert_int_equal(eg_open(&options, &guard, NULL), EG_OK);
  start(&t, "k", 0);
  assert_false(eg_timer_kept(&t));
  assert_int_equal(eg_timer_stop(&t), EG_OK);
  assert_int_equal(eg_commit(guard, t.key, &t.grant, &done, &policy, NULL),
                   EG_TIMEOUT);
  eg_close(guard);
  guard = ours;
}

static void timer_that_is_parked_fires_and_goes_on(void **state) {
  (void)state;
  eg_timer t;
  start(&t, "k", 10);
  eg_timer_park(&t);
  eg_test_clock_advance(5000);
  eg_timer_unpark(&t);
  eg_timer_park(&t);
  eg_test_clock_advance(5000);
  assert_int_equal(run_of("k"), EG_RUN_TIMEDOUT);
  eg_timer_unpark(&t);
  assert_true(eg_timer_fired(&t) > 0);
  assert_int_equal(eg_timer_stop(&t), EG_TIMEOUT);
}

/* Many, in an order without rule, taken out from everywhere. */
static void timers_parked_fire_by_their_deadlines(void **state) {
  (void)state;
  enum { N = 300 };
  static eg_timer timers[N];
  static char keys[N][8];
  int64_t delays[N];
  unsigned x = 12345;
  for (int i = 0; i < N; i++) {
    x = x * 1103515245 + 12345;
    delays[i] = 1 + x / 65536 % 100;
    snprintf(keys[i], sizeof keys[i], "k%d", i);
    start(&timers[i], keys[i], delays[i]);
    eg_timer_park(&timers[i]);
  }
  for (int ms = 1; ms <= 100; ms++) {
    eg_test_clock_advance(1000);
    for (int i = 0; i < N; i++) {
      if (timers[i].key.len == 0)
        continue;
      assert_int_equal(eg_timer_fired(&timers[i]) != 0, delays[i] <= ms);
      if ((i + ms) % 37 == 0) {
        eg_timer_stop(&timers[i]);
        timers[i].key.len = 0;
      }
    }
  }
  for (int i = 0; i < N; i++)
    eg_timer_stop(&timers[i]);
}

/* ------------------------------------------------------------- signals -- */

static atomic_int signals;

static void count_signal(int number) {
  (void)number;
  atomic_fetch_add(&signals, 1);
  eg_thread_heard();
}

static bool have_come(void *ctx) {
  return atomic_load(&signals) >= *(int *)ctx;
}

static void handle(int number, void (*handler)(int)) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
  sigaction(number, &action, NULL);
  eg_timer_signal(handler == SIG_DFL ? 0 : number);
}

static void signals_are_repeated_until_the_timer_is_stopped(void **state) {
  (void)state;
  eg_timer t, outer;
  int three = 3;
  atomic_store(&signals, 0);
  handle(SIGURG, count_signal);
  start(&outer, "outer", FAR);
  start(&t, "k", 10);
  eg_timer_stop(&t);
  t.signals = true;
  eg_timer_start(&t);
  assert_int_equal(atomic_load(&signals), 0);
  eg_test_clock_advance(10000);
  assert_true(spec_comes(have_come, &three));
  assert_false(eg_thread_deaf());
  assert_int_equal(eg_timer_stop(&t), EG_TIMEOUT);
  egi_keeper_settle();
  int so_far = atomic_load(&signals);
  usleep(40000);
  assert_int_equal(atomic_load(&signals), so_far);
  assert_int_equal(eg_timer_stop(&outer), EG_OK);
  handle(SIGURG, SIG_DFL);
}

/* A coroutine whose outer run has timed out goes on with one inside it. */
static void timer_taken_up_signals_below_another(void **state) {
  (void)state;
  int one = 1;
  handle(SIGURG, count_signal);
  for (int turn = 0; turn < 20; turn++) {
    eg_timer outer, inner;
    start(&outer, "outer", 10);
    eg_timer_stop(&outer);
    outer.signals = true;
    eg_timer_start(&outer);
    start(&inner, "inner", FAR);
    eg_timer_park(&inner);
    eg_timer_park(&outer);
    eg_test_clock_advance(10000);
    atomic_store(&signals, 0);
    eg_timer_unpark(&outer);
    eg_timer_unpark(&inner); /* at once: the keeper has not looked yet */
    assert_true(spec_comes(have_come, &one));
    assert_int_equal(eg_timer_stop(&inner), EG_OK);
    assert_int_equal(commit(&inner), EG_OK);
    assert_int_equal(eg_timer_stop(&outer), EG_TIMEOUT);
    eg_reset(guard, eg_str("inner"), NULL);
    usleep(5000); /* until nothing is to be signalled any more */
  }
  handle(SIGURG, SIG_DFL);
}

static bool is_deaf(void *ctx) {
  (void)ctx;
  return eg_thread_deaf();
}

static void thread_that_blocks_the_signal_is_deaf(void **state) {
  (void)state;
  eg_timer t;
  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGURG);
  pthread_sigmask(SIG_BLOCK, &set, &before);
  handle(SIGURG, count_signal);
  start(&t, "k", 10);
  eg_timer_stop(&t);
  t.signals = true;
  eg_timer_start(&t);
  eg_test_clock_advance(10000);
  assert_true(spec_comes(is_deaf, NULL));
  eg_timer_stop(&t);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  assert_false(eg_thread_deaf()); /* it came at last */
  handle(SIGURG, SIG_DFL);
}

/* ------------------------------------------------------- threads, fork -- */

static void leave_one_open(void *arg) {
  if (begin(arg, "k", 10))
    *eg_thread_anchor() = arg;
}

static void look_at_anchor(void *arg) {
  *(bool *)arg = eg_thread_anchored() == NULL && *eg_thread_anchor() == NULL;
}

static void thread_that_ends_leaves_its_slot(void **state) {
  (void)state;
  static eg_timer t;
  spec_thread thread;
  bool fresh = false;
  spec_start(&thread, leave_one_open, &t);
  spec_join(&thread);
  eg_test_clock_advance(10000);
  assert_int_equal(run_of("k"), EG_RUN_RUNNING); /* nobody's any more */
  assert_int_equal(eg_timer_stop(&t), EG_OK);
  spec_start(&thread, look_at_anchor, &fresh);
  spec_join(&thread);
  assert_true(fresh);
}

/* The threads of this process; *other: the state of one that is not the first,
** as the kernel tells it. */
static int count_threads(char *other, size_t size) {
  DIR *dir = opendir("/proc/self/task");
  int n = 0;
  if (dir == NULL)
    return 0;
  for (struct dirent *e; (e = readdir(dir)) != NULL;) {
    char path[300];
    if (e->d_name[0] == '.')
      continue;
    n++;
    if (strtol(e->d_name, NULL, 10) == getpid())
      continue;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
    FILE *file = fopen(path, "r");
    if (file == NULL)
      continue;
    other[fread(other, 1, size - 1, file)] = '\0';
    fclose(file);
  }
  closedir(dir);
  return n;
}

/* In a forked child, which has no thread but its own. */
static int look_at_threads(void) {
  char text[4000] = "";
  int before = count_threads(text, sizeof text);
  eg_timer timers[3];
  const char *keys[] = {"a", "b", "c"};
  for (int i = 0; i < 3; i++)
    if (!begin(&timers[i], keys[i], 10 + i))
      return 3;
  eg_test_clock_advance(20000);
  if (before == 0 || count_threads(text, sizeof text) != before + 1)
    return 1;
  const char *line = strstr(text, "SigBlk:");
  unsigned long long mask = line != NULL ? strtoull(line + 7, NULL, 16) : 0;
  for (int number = 1; number < 32; number++)
    if (number != SIGKILL && number != SIGSTOP && !(mask >> (number - 1) & 1))
      return 2;
  return 0;
}

static void keeper_is_one_thread_that_takes_no_signals(void **state) {
  (void)state;
  int status = -1;
  pid_t pid = fork();
  if (pid == 0)
    _exit(look_at_threads());
  waitpid(pid, &status, 0);
  assert_int_equal(status, 0);
}

/* How often the keeper was woken; it is the only other thread. */
static long count_switches(void) {
  char text[4000] = "";
  count_threads(text, sizeof text);
  const char *line = strstr(text, "voluntary_ctxt_switches:");
  return line != NULL ? strtol(line + 24, NULL, 10) : -1;
}

/* In a forked child, by the machine's clock.  The keeper sleeps until 60 s:
** hundreds of runs whose deadlines are further away do not wake it. */
static int look_at_sleep(void) {
  eg_timer near, far;
  eg_set_clock(NULL);
  eg_close(guard);
  if (eg_open(NULL, &guard, NULL) != EG_OK || !begin(&near, "near", FAR))
    return 1;
  usleep(100000); /* it is asleep by now, or will be soon */
  long before = count_switches();
  for (int i = 0; i < 200; i++) {
    usleep(200); /* time to wake and to fall asleep again */
    if (!begin(&far, "far", 2 * FAR + i) || eg_timer_stop(&far) != EG_OK ||
        commit(&far) != EG_OK || eg_reset(guard, far.key, NULL) != EG_OK)
      return 2;
  }
  usleep(50000);
  long after = count_switches();
  return before < 0 || after - before > 3 ? 3 : 0;
}

static void keeper_sleeps_over_deadlines_that_are_further(void **state) {
  (void)state;
  int status = -1;
  pid_t pid = fork();
  if (pid == 0)
    _exit(look_at_sleep());
  waitpid(pid, &status, 0);
  assert_int_equal(status, 0);
}

/* In the child: what was open at the fork is lost, and fires at its deadline
** all the same; what is new is kept.  0 when all is well. */
static int play_child(eg_timer *t) {
  eg_timer mine;
  if (eg_holds(guard, t->key, t->grant.token) || commit(t) != EG_LOST)
    return 1;
  eg_test_clock_advance(10000);
  if (eg_timer_fired(t) == 0 || eg_timer_stop(t) != EG_LOST)
    return 2;
  if (!begin(&mine, "new", 10))
    return 3;
  eg_test_clock_advance(10000);
  if (!is_run("new", EG_RUN_TIMEDOUT) || eg_timer_stop(&mine) != EG_TIMEOUT)
    return 4;
  return 0;
}

static int play_grandchild(eg_timer *t) {
  int status = play_child(t);
  if (status != 0 || !begin(t, "mine", 10))
    return status != 0 ? status : 5;
  pid_t pid = fork();
  if (pid == 0)
    _exit(play_child(t));
  int child = -1;
  waitpid(pid, &child, 0);
  return status + 8 * (child != 0);
}

/* In the parent, while it forks. */
typedef struct bystander {
  atomic_bool over;
  bool granted;
} bystander;

static void wait_a_lot(void *arg) {
  bystander *b = arg;
  eg_timer t;
  b->granted = begin(&t, "other", FAR);
  while (!atomic_load(&b->over))
    sched_yield();
  if (b->granted)
    eg_timer_stop(&t);
}

/* One fork with a run open.  0 when all is well in both; 100 and more: not
** here. */
static int fork_once(bool grandchild) {
  eg_timer t;
  int status = -1;
  if (!begin(&t, "k", 10))
    return 100;
  pid_t pid = fork();
  if (pid == 0)
    _exit(grandchild ? play_grandchild(&t) : play_child(&t));
  waitpid(pid, &status, 0);
  if (!is_run("k", EG_RUN_RUNNING))
    status = 101;
  if (eg_timer_stop(&t) != EG_OK)
    status = 102;
  eg_reset(guard, t.key, NULL);
  return status;
}

static void child_of_a_fork_keeps_its_own(void **state) {
  (void)state;
  static bystander other;
  spec_thread thread;
  int status = 0;
  SPEC_FORKS_THREADS();
  atomic_store(&other.over, false);
  spec_start(&thread, wait_a_lot, &other);
  for (int i = 0; i < 20 && status == 0; i++)
    status = fork_once(i % 2 != 0);
  atomic_store(&other.over, true);
  spec_join(&thread);
  assert_true(other.granted);
  assert_int_equal(status, 0);
}

/* Takes and gives back, in the parent of forks, as fast as it can; on guards
** of its own and on one that all share. */
typedef struct busy {
  spec_thread thread;
  atomic_bool *over;
  eg_guard *shared;
} busy;

static void be_busy(void *arg) {
  busy *b = arg;
  const eg_policy leased = {.allow_rerun = true, .lease_ms = 50};
  for (unsigned i = 0; !atomic_load(b->over); i++) {
    eg_guard *mine;
    eg_open(NULL, &mine, NULL);
    for (unsigned k = 0; k < 20; k++) {
      eg_guard *of = k % 2 == 0 ? mine : b->shared;
      char name[16];
      snprintf(name, sizeof name, "%u", (i + k) % 50);
      eg_reply reply;
      eg_timer t = {.guard = of, .key = eg_str(name), .policy = &leased};
      eg_reply_init(&reply);
      if (eg_acquire(of, t.key, EG_WANT_RUN, &leased, 0, &t.grant, &reply) ==
          EG_OK) {
        t.grant.deadline_us = t.grant.start_us + i % 3 * 20;
        eg_timer_start(&t);
        if (eg_timer_stop(&t) == EG_OK)
          eg_commit(of, t.key, &t.grant, &(eg_outcome){.status = EG_OK},
                    &leased, NULL);
      }
      eg_reply_free(&reply);
    }
    eg_close(mine);
  }
}

/* 0 when all is well: what the parent holds is not the child's, the key is
** free here, and a run of its own times out. */
static int play_busy_child(eg_guard *shared, eg_timer *t) {
  const eg_policy again = {.allow_rerun = true};
  eg_reply reply;
  alarm(60);
  if (eg_release(shared, t->key, 0, NULL) != EG_LOST ||
      eg_commit(shared, t->key, &t->grant, &(eg_outcome){.status = EG_OK},
                &again, NULL) != EG_LOST ||
      eg_timer_stop(t) == EG_TIMEOUT)
    return 1;
  eg_reply_init(&reply);
  for (unsigned k = 0; k < 50; k++) {
    char name[16];
    snprintf(name, sizeof name, "%u", k);
    eg_timer mine = {.guard = shared, .key = eg_str(name), .policy = &again};
    if (eg_acquire(shared, mine.key, EG_WANT_RUN, &again, 0, &mine.grant,
                   &reply) != EG_OK)
      return 2;
    mine.grant.deadline_us = k == 0 ? eg_now_us() + 200 : EG_FOREVER;
    eg_timer_start(&mine);
    while (k == 0 && eg_timer_fired(&mine) == 0)
      sched_yield();
    if (eg_timer_stop(&mine) != (k == 0 ? EG_TIMEOUT : EG_OK))
      return 3;
  }
  eg_reply_free(&reply);
  eg_close(shared);
  return 0;
}

/* 0 when all is well in both; 100 and more: not here. */
static int fork_busily(eg_guard *shared) {
  const eg_policy again = {.allow_rerun = true};
  eg_timer t = {.guard = shared, .key = eg_str("mine"), .policy = &policy};
  eg_reply reply;
  int status = -1;
  eg_reply_init(&reply);
  if (eg_acquire(shared, t.key, EG_WANT_RUN, &again, 0, &t.grant, &reply) !=
      EG_OK)
    return 100;
  eg_reply_free(&reply);
  t.grant.deadline_us = t.grant.start_us + FAR * 1000;
  eg_timer_start(&t);
  pid_t pid = fork();
  if (pid == 0)
    _exit(play_busy_child(shared, &t));
  waitpid(pid, &status, 0);
  if (eg_timer_stop(&t) != EG_OK)
    status = 101;
  if (eg_commit(shared, t.key, &t.grant, &(eg_outcome){.status = EG_OK},
                &policy, NULL) != EG_OK)
    status = 102;
  return status;
}

/* By real time, and under load: each child finds everything whole. */
static void many_forks_of_a_busy_process(void **state) {
  (void)state;
  enum { N = 3 };
  busy all[N];
  atomic_bool over;
  eg_guard *shared;
  int status = 0;
  SPEC_FORKS_THREADS();
  eg_set_clock(NULL);
  atomic_init(&over, false);
  assert_int_equal(eg_open(&(eg_options){.name = "many forks"}, &shared, NULL),
                   EG_OK);
  for (int i = 0; i < N; i++) {
    all[i] = (busy){.over = &over, .shared = shared};
    spec_start(&all[i].thread, be_busy, &all[i]);
  }
  for (int i = 0; i < spec_scaled(298) && status == 0; i++)
    status = fork_busily(shared);
  atomic_store(&over, true);
  for (int i = 0; i < N; i++)
    spec_join(&all[i].thread);
  eg_close(shared);
  assert_int_equal(status, 0);
}

/* -------------------------------------------------------------- stress -- */

typedef struct worker {
  spec_thread thread;
  unsigned random;
  int rounds, fired;
  const char *wrong;
} worker;

static unsigned next_random(worker *w) {
  w->random = w->random * 1103515245 + 12345;
  return w->random >> 16;
}

/* Works for a random time under a random deadline; by real time. */
static void work_once(worker *w, eg_guard *mine, const char *key, int depth) {
  eg_reply reply;
  eg_timer t = {.guard = mine, .key = eg_str(key), .policy = &policy};
  const eg_outcome done = {.status = EG_OK};
  const eg_policy again = {.allow_rerun = true};
  eg_reply_init(&reply);
  if (eg_acquire(mine, t.key, EG_WANT_RUN, &again, 0, &t.grant, &reply) !=
      EG_OK)
    w->wrong = "not granted";
  eg_reply_free(&reply);
  t.grant.deadline_us = t.grant.start_us + next_random(w) % 200;
  eg_timer_start(&t);
  if (depth > 0)
    work_once(w, mine, depth == 1 ? "b" : "c", depth - 1);
  if (next_random(w) % 4 == 0) {
    eg_timer_park(&t);
    eg_timer_unpark(&t);
  }
  int64_t until = eg_now_us() + next_random(w) % 200;
  while (eg_now_us() < until)
    continue;
  eg_status status = eg_timer_stop(&t);
  if (status == EG_TIMEOUT) {
    w->fired++;
    if (eg_now_us() < t.grant.deadline_us)
      w->wrong = "early";
    status = eg_commit(mine, t.key, &t.grant, &done, &policy, NULL);
    if (status != EG_LOST)
      w->wrong = "not lost";
  } else {
    status = eg_commit(mine, t.key, &t.grant, &done, &policy, NULL);
    if (status != EG_OK && status != EG_TIMEOUT)
      w->wrong = eg_status_word(status);
  }
}

static void toil(void *arg) {
  worker *w = arg;
  eg_guard *mine;
  if (eg_open(NULL, &mine, NULL) != EG_OK) {
    w->wrong = "not opened";
    return;
  }
  for (int i = 0; i < w->rounds; i++)
    work_once(w, mine, "a", (int)(next_random(w) % 3));
  eg_close(mine);
}

static void deadlines_of_many_threads(void **state) {
  (void)state;
  enum { N = 4, TURNS = 5 };
  worker workers[N];
  int fired = 0;
  eg_set_clock(NULL);
  for (int turn = 0; turn < TURNS; turn++) {
    for (int i = 0; i < N; i++) {
      workers[i] = (worker){.random = (unsigned)(turn * N + i),
                            .rounds = spec_scaled(2000)};
      spec_start(&workers[i].thread, toil, &workers[i]);
    }
    for (int i = 0; i < N; i++)
      spec_join(&workers[i].thread);
    for (int i = 0; i < N; i++) {
      if (workers[i].wrong != NULL)
        fail_msg("%s", workers[i].wrong);
      fired += workers[i].fired;
    }
  }
  assert_true(fired > 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(timer_that_is_stopped_in_time_leaves_the_run),
      TEST(timer_at_its_deadline_frees_the_key),
      TEST(timer_of_a_run_that_was_reset_is_lost),
      TEST(timers_nested_fire_each_at_its_own),
      TEST(timer_that_is_void_stores_nothing),
      TEST(timer_of_a_guard_with_a_clock_of_its_own_is_not_kept),
      TEST(keeper_is_one_thread_that_takes_no_signals),
      TEST(keeper_sleeps_over_deadlines_that_are_further),
      TEST(timer_that_is_parked_fires_and_goes_on),
      TEST(timers_parked_fire_by_their_deadlines),
      TEST(signals_are_repeated_until_the_timer_is_stopped),
      TEST(timer_taken_up_signals_below_another),
      TEST(thread_that_blocks_the_signal_is_deaf),
      TEST(thread_that_ends_leaves_its_slot),
      TEST(child_of_a_fork_keeps_its_own),
      TEST(many_forks_of_a_busy_process),
      TEST(deadlines_of_many_threads),
  };
  return cmocka_run_group_tests_name("keeper", tests, NULL, NULL);
}
