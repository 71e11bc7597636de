/* SPDX-License-Identifier: MIT
** A store on a server beside the same requests by hand.
*/
#include "servers.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static const peer *raw;
static eg_guard *guard, *other;

double now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

void die(const char *name, const char *what) {
  fprintf(stderr, "bench: %s: %s\n", name, what);
  exit(1);
}

/* -------------------------------------------------- locks, cached runs -- */

static void lock(eg_guard *by, const char *key, int64_t wait_ms,
                 eg_grant *grant) {
  eg_reply reply;
  eg_reply_init(&reply);
  if (eg_acquire(by, eg_str(key), EG_WANT_LOCK, NULL, wait_ms, grant,
                 &reply) != EG_OK)
    die(raw->name, "no lock");
  eg_reply_free(&reply);
}

static void our_lock(int calls) {
  eg_grant grant;
  for (int i = 0; i < calls; i++) {
    lock(guard, "ours", 0, &grant);
    if (eg_release(guard, eg_str("ours"), grant.token, NULL) != EG_OK)
      die(raw->name, "the lock is lost");
  }
}

static void make_cached(void) {
  eg_grant grant;
  eg_reply reply;
  eg_outcome done = {
      .status = EG_OK, .kind = EG_KIND_VALUE, .value = eg_str("\x07")};
  eg_reply_init(&reply);
  if (eg_acquire(guard, eg_str("cached"), EG_WANT_RUN, NULL, 0, &grant,
                 &reply) == EG_OK)
    eg_commit(guard, eg_str("cached"), &grant, &done, NULL, NULL);
  eg_reply_free(&reply);
}

static void our_cached(int calls) {
  eg_grant grant;
  eg_reply reply;
  eg_reply_init(&reply);
  for (int i = 0; i < calls; i++)
    if (eg_acquire(guard, eg_str("cached"), EG_WANT_RUN, NULL, 0, &grant,
                   &reply) != EG_CACHED)
      die(raw->name, "it is not cached");
  eg_reply_free(&reply);
}

/* ----------------------------------------------------------- hand-over -- */

/* To whoever waits, asleep: the moment of each release is noted before it, that
** of the grant after it. */
typedef struct relay {
  pthread_barrier_t ready;
  int turns, ours;
  double released, sum;
} relay;

static void *waiter(void *ctx) {
  relay *r = ctx;
  eg_grant grant;
  void *who = r->ours ? NULL : raw->come();
  for (int i = 0; i < r->turns; i++) {
    pthread_barrier_wait(&r->ready);
    if (r->ours)
      lock(other, "relay", 20000, &grant);
    else
      raw->wait(who);
    r->sum += now_ns() - r->released;
    if (r->ours)
      eg_release(other, eg_str("relay"), grant.token, NULL);
    else if (raw->leave != NULL)
      raw->leave(who);
    pthread_barrier_wait(&r->ready);
  }
  return NULL;
}

static void pass_once(relay *r) {
  eg_grant grant;
  if (r->ours)
    lock(guard, "relay", 20000, &grant);
  else if (raw->hold != NULL)
    raw->hold();
  pthread_barrier_wait(&r->ready);
  nanosleep(&(struct timespec){0, 3000000}, NULL); /* until it waits */
  r->released = now_ns();
  if (r->ours)
    eg_release(guard, eg_str("relay"), grant.token, NULL);
  else
    raw->pass();
  pthread_barrier_wait(&r->ready);
}

static double hand_over(int turns, int ours) {
  relay r = {.turns = turns > 0 ? turns : 1, .ours = ours};
  pthread_t thread;
  pthread_barrier_init(&r.ready, NULL, 2);
  pthread_create(&thread, NULL, waiter, &r);
  for (int i = 0; i < r.turns; i++)
    pass_once(&r);
  pthread_join(thread, NULL);
  pthread_barrier_destroy(&r.ready);
  return r.sum / r.turns;
}

/* ------------------------------------------------------------- renewing -- */

static double cpu_ns(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e9 +
         (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e3;
}

/* Two turns of renewing: a lease of 15 s is renewed every 5 s. */
static void renewing(int held) {
  eg_grant grant;
  char key[32];
  for (int i = 0; i < held; i++) {
    snprintf(key, sizeof key, "held %d", i);
    lock(guard, key, 0, &grant);
  }
  double cpu = cpu_ns(), begun = now_ns();
  nanosleep(&(struct timespec){10, 0}, NULL);
  printf("renewal %.4f\na_core 100\n",
         100 * (cpu_ns() - cpu) / (now_ns() - begun));
}

/* ------------------------------------------------------------- measuring -- */

static void raw_lock(int calls) { raw->lock(calls); }
static void raw_get(int calls) { raw->get(calls); }

/* In this order, or the other way round. */
enum { RAW_HAND_OVER = 4, OUR_HAND_OVER, COMMAND, WAYS };

static const struct {
  const char *name;
  void (*work)(int calls);
} ways[] = {{"raw_lock", raw_lock},  {"our_lock", our_lock},
            {"raw_get", raw_get},    {"our_cached", our_cached},
            {"raw_hand_over", NULL}, {"our_hand_over", NULL}};

static void measure(int way, int calls, int quiet) {
  double begun = now_ns(), each;
  int few = calls / 100 > 0 ? calls / 100 : 1;
  const char *name = way == COMMAND ? raw->command_name : ways[way].name;
  if (way == COMMAND && (raw->command == NULL || quiet))
    return;
  if (way == COMMAND)
    raw->command(few);
  else if (ways[way].work != NULL)
    ways[way].work(calls);
  each = (now_ns() - begun) / (way == COMMAND ? few : calls);
  if (way == RAW_HAND_OVER || way == OUR_HAND_OVER)
    each = hand_over(few * 2, way == OUR_HAND_OVER);
  if (!quiet && name != NULL)
    printf("%s %.0f\n", name, each);
}

void measure_store(const char *url, const peer *by_hand, int rounds, int calls,
                   int held) {
  eg_options options = {.store = url, .name = "bench"};
  eg_error error;
  raw = by_hand;
  if (eg_open(&options, &guard, &error) != EG_OK ||
      eg_open(&options, &other, &error) != EG_OK)
    die(raw->name, error.message);
  make_cached();
  for (int way = 0; way < WAYS; way++)
    measure(way, calls / 4, 1);
  for (int round = 0; round < rounds; round++)
    for (int i = 0; i < WAYS; i++)
      measure(round % 2 == 0 ? i : WAYS - 1 - i, calls, 0);
  renewing(held);
  eg_close(other);
  eg_close(guard);
}
