/* SPDX-License-Identifier: MIT
** Two pinned threads that read cached results of one named guard.
**
**   threads apart CALLS ROUNDS   each thread has keys of its own: prints the
**                                nanoseconds of a call of one thread, and of
**                                two threads together, once a round; and what
**                                two threads reach that share nothing at all
**   threads same CALLS           both have the same key: prints once the
**                                nanoseconds that a call takes
*/
#include "executionguard.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEYS = 64, KEY_SIZE = 24 };

typedef struct task {
  eg_guard *guard;
  void (*work)(struct task *task);
  char keys[KEYS][KEY_SIZE];
  int n_keys, cpu;
  long calls, wrong;
  double start_ns, end_ns;
  pthread_barrier_t *barrier;
} task;

static void die(const char *what) {
  fprintf(stderr, "threads: %s\n", what);
  exit(1);
}

static double now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* The CPU that this process may use as its n-th; -1: there are fewer. */
static int nth_cpu(int n) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0)
    return -1;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &set) && n-- == 0)
      return cpu;
  return -1;
}

static void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) != 0)
    die("cannot pin a thread");
}

static void read_cached(task *t) {
  const eg_policy policy = EG_POLICY_DEFAULT;
  eg_reply reply;
  eg_grant grant;
  eg_bytes keys[KEYS];
  for (int i = 0; i < t->n_keys; i++)
    keys[i] = (eg_bytes){t->keys[i], strlen(t->keys[i])};
  eg_reply_init(&reply);
  for (long i = 0; i < t->calls; i++)
    t->wrong += eg_acquire(t->guard, keys[i % t->n_keys], EG_WANT_RUN, &policy,
                           0, &grant, &reply) != EG_CACHED;
  eg_reply_free(&reply);
}

/* Something that takes about as long, and shares nothing. */
static void spin(task *t) {
  uint64_t x = 88172645463325252;
  for (long i = 0; i < t->calls * 16; i++) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
  }
  t->wrong += x == 0;
}

static void *run(void *arg) {
  task *t = arg;
  pin(t->cpu);
  pthread_barrier_wait(t->barrier);
  t->start_ns = now_ns();
  t->work(t);
  t->end_ns = now_ns();
  return NULL;
}

/* Nanoseconds from the first start to the last end. */
static double together(task *tasks, unsigned n, void (*work)(task *)) {
  pthread_t threads[2];
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, NULL, n);
  for (unsigned i = 0; i < n; i++) {
    tasks[i].barrier = &barrier;
    tasks[i].work = work;
    if (pthread_create(&threads[i], NULL, run, &tasks[i]) != 0)
      die("no thread");
  }
  double start = 1e300, end = 0;
  for (unsigned i = 0; i < n; i++) {
    pthread_join(threads[i], NULL);
    start = tasks[i].start_ns < start ? tasks[i].start_ns : start;
    end = tasks[i].end_ns > end ? tasks[i].end_ns : end;
    if (tasks[i].wrong != 0)
      die("a read was not answered from the cache");
  }
  pthread_barrier_destroy(&barrier);
  return end - start;
}

static void work(void *ctx, const eg_grant *grant, eg_outcome *outcome) {
  (void)ctx;
  (void)grant;
  outcome->status = EG_OK;
  outcome->kind = EG_KIND_VALUE;
  outcome->value = (eg_bytes){"\x2a", 1};
}

static void complete(eg_guard *guard, const char *key) {
  eg_reply reply;
  eg_bytes bytes = {key, strlen(key)};
  eg_reply_init(&reply);
  eg_run_once(guard, bytes, work, NULL, NULL, 0, 0, &reply);
  eg_reply_free(&reply);
}

static void prepare(task *tasks, eg_guard *guard, bool apart, long calls) {
  for (int i = 0; i < 2; i++) {
    tasks[i].guard = guard;
    tasks[i].calls = calls;
    tasks[i].cpu = nth_cpu(i);
    tasks[i].wrong = 0;
    tasks[i].n_keys = apart ? KEYS : 1;
    for (int k = 0; k < tasks[i].n_keys; k++) {
      snprintf(tasks[i].keys[k], KEY_SIZE, "player:%d:%04d", apart ? i : 0, k);
      complete(guard, tasks[i].keys[k]);
    }
  }
}

static void apart(task *tasks, long rounds) {
  double calls = (double)tasks[0].calls;
  for (long r = 0; r <= rounds; r++) {
    bool swap = r % 2 != 0;
    double two = swap ? together(tasks, 2, read_cached) : 0;
    double one = together(tasks + (r / 2) % 2, 1, read_cached);
    if (!swap)
      two = together(tasks, 2, read_cached);
    double spin_one = together(tasks, 1, spin);
    double spin_two = together(tasks, 2, spin);
    if (r > 0) /* the first one warms up */
      printf("one %.3f\ntwo %.3f\nspin_one %.3f\nspin_two %.3f\n", one / calls,
             two / calls / 2, spin_one / calls, spin_two / calls / 2);
  }
}

int main(int argc, char **argv) {
  static task tasks[2];
  bool same = argc == 3 && strcmp(argv[1], "same") == 0;
  if (!same && (argc != 4 || strcmp(argv[1], "apart") != 0))
    die("usage: threads apart CALLS ROUNDS | same CALLS");
  if (nth_cpu(1) < 0)
    die("there is only one core");
  const eg_options options = {.name = "bench"};
  eg_guard *guard;
  eg_error error;
  if (eg_open(&options, &guard, &error) != EG_OK)
    die(error.message);
  prepare(tasks, guard, !same, atol(argv[2]));
  if (same) {
    together(tasks, 2, read_cached); /* warms up */
    printf("same %.3f\n",
           together(tasks, 2, read_cached) / (double)tasks[0].calls);
  } else {
    apart(tasks, atol(argv[3]));
  }
  eg_close(guard);
  return 0;
}
