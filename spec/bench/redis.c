/* SPDX-License-Identifier: MIT
** The redis store beside the same round trips by hand, on one server:
**
**   redis SOCKET ROUNDS CALLS
**
** Prints "name figure" lines, one of each name a round, in nanoseconds a turn;
** in each round every way is timed, forward or backward.
*/
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "executionguard.h"

static const char release_text[] =
    "if redis.call('GET',KEYS[1])==ARGV[1] then "
    "return redis.call('DEL',KEYS[1]) else return 0 end";

static const char *path;
static redisContext *raw;
static char sha[41];
static eg_guard *guard, *other;

static double now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

static void die(const char *what) {
  fprintf(stderr, "bench: redis: %s\n", what);
  exit(1);
}

static redisReply *ask(redisContext *c, redisReply *reply) {
  if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
    die(reply != NULL ? reply->str : c->errstr);
  return reply;
}

/* -------------------------------------------------- acquire, release -- */

static void raw_lock(int calls) {
  for (int i = 0; i < calls; i++) {
    freeReplyObject(ask(raw, redisCommand(raw, "SET raw %s NX PX 15000",
                                          "a-random-token-of-22-c")));
    freeReplyObject(ask(raw, redisCommand(raw, "EVALSHA %s 1 raw %s", sha,
                                          "a-random-token-of-22-c")));
  }
}

static void our_lock(int calls) {
  eg_grant grant;
  eg_reply reply;
  eg_reply_init(&reply);
  for (int i = 0; i < calls; i++)
    if (eg_acquire(guard, eg_str("ours"), EG_WANT_LOCK, NULL, 0, &grant,
                   &reply) != EG_OK ||
        eg_release(guard, eg_str("ours"), grant.token, NULL) != EG_OK)
      die("acquire and release failed");
  eg_reply_free(&reply);
}

/* ------------------------------------------------------------- cached -- */

static void raw_get(int calls) {
  for (int i = 0; i < calls; i++)
    freeReplyObject(ask(raw, redisCommand(raw, "GET raw:cached")));
}

static void our_cached(int calls) {
  eg_grant grant;
  eg_reply reply;
  eg_reply_init(&reply);
  for (int i = 0; i < calls; i++)
    if (eg_acquire(guard, eg_str("cached"), EG_WANT_RUN, NULL, 0, &grant,
                   &reply) != EG_CACHED)
      die("it is not cached");
  eg_reply_free(&reply);
}

static void make_cached(void) {
  eg_grant grant;
  eg_reply reply;
  eg_outcome done = {
      .status = EG_OK, .kind = EG_KIND_VALUE, .value = eg_str("\x07")};
  eg_reply_init(&reply);
  eg_status status = eg_acquire(guard, eg_str("cached"), EG_WANT_RUN, NULL, 0,
                                &grant, &reply);
  if (status == EG_OK)
    eg_commit(guard, eg_str("cached"), &grant, &done, NULL, NULL);
  eg_reply_free(&reply);
  freeReplyObject(ask(raw, redisCommand(raw, "SET raw:cached %s",
                                        "a value of some hundred bytes, as a "
                                        "record with its head has them, or "
                                        "so, more or less")));
}

/* ----------------------------------------------------------- hand-over -- */

/* Two that wait for each other, in turns: a figure is one way. */
static void *raw_partner(void *ctx) {
  redisContext *c = redisConnectUnix(path);
  for (int i = 0; i < *(int *)ctx; i++) {
    freeReplyObject(ask(c, redisCommand(c, "BLPOP there 20")));
    freeReplyObject(ask(c, redisCommand(c, "LPUSH back x")));
  }
  redisFree(c);
  return NULL;
}

static void raw_hand_over(int calls) {
  pthread_t thread;
  int turns = calls / 2;
  pthread_create(&thread, NULL, raw_partner, &turns);
  for (int i = 0; i < turns; i++) {
    freeReplyObject(ask(raw, redisCommand(raw, "LPUSH there x")));
    freeReplyObject(ask(raw, redisCommand(raw, "BLPOP back 20")));
  }
  pthread_join(thread, NULL);
}

/* From the release to the grant of whoever waits: the moment of each release
** is noted before it, that of the grant after it. */
typedef struct relay {
  pthread_barrier_t ready;
  int turns;
  double released, sum;
} relay;

static void *our_waiter(void *ctx) {
  relay *r = ctx;
  eg_grant grant;
  eg_reply reply;
  eg_reply_init(&reply);
  for (int i = 0; i < r->turns; i++) {
    pthread_barrier_wait(&r->ready);
    if (eg_acquire(other, eg_str("relay"), EG_WANT_LOCK, NULL, 20000, &grant,
                   &reply) != EG_OK)
      die("a waiter got nothing");
    r->sum += now_ns() - r->released;
    eg_release(other, eg_str("relay"), grant.token, NULL);
    pthread_barrier_wait(&r->ready);
  }
  eg_reply_free(&reply);
  return NULL;
}

static double our_hand_over(int calls) {
  relay r = {.turns = calls / 20 > 0 ? calls / 20 : 1};
  pthread_t thread;
  eg_grant grant;
  eg_reply reply;
  eg_reply_init(&reply);
  pthread_barrier_init(&r.ready, NULL, 2);
  pthread_create(&thread, NULL, our_waiter, &r);
  for (int i = 0; i < r.turns; i++) {
    if (eg_acquire(guard, eg_str("relay"), EG_WANT_LOCK, NULL, 20000, &grant,
                   &reply) != EG_OK)
      die("no lock");
    pthread_barrier_wait(&r.ready);
    struct timespec rest = {0, 2000000}; /* until it waits */
    nanosleep(&rest, NULL);
    r.released = now_ns();
    eg_release(guard, eg_str("relay"), grant.token, NULL);
    pthread_barrier_wait(&r.ready);
  }
  pthread_join(thread, NULL);
  pthread_barrier_destroy(&r.ready);
  eg_reply_free(&reply);
  return r.sum / r.turns;
}

/* ---------------------------------------------------------------- main -- */

static const struct {
  const char *name;
  void (*work)(int calls);
} ways[] = {{"raw_lock", raw_lock},
            {"our_lock", our_lock},
            {"raw_get", raw_get},
            {"our_cached", our_cached},
            {"raw_hand_over", raw_hand_over},
            {"our_hand_over", NULL}};

enum { WAYS = sizeof ways / sizeof *ways };

static void measure(int way, int calls, int quiet) {
  double begin = now_ns(), each;
  if (ways[way].work != NULL) {
    ways[way].work(calls);
    each = (now_ns() - begin) / calls;
  } else {
    each = our_hand_over(calls);
  }
  if (!quiet)
    printf("%s %.0f\n", ways[way].name, each);
}

int main(int argc, char **argv) {
  char url[300];
  if (argc < 4)
    die("SOCKET ROUNDS CALLS");
  path = argv[1];
  int rounds = atoi(argv[2]), calls = atoi(argv[3]);
  snprintf(url, sizeof url, "redis+unix://%s", path);
  eg_options options = {.store = url, .name = "bench"};
  eg_error error;
  if (eg_open(&options, &guard, &error) != EG_OK ||
      eg_open(&options, &other, &error) != EG_OK)
    die(error.message);
  raw = redisConnectUnix(path);
  redisReply *loaded = ask(raw,
                           redisCommand(raw, "SCRIPT LOAD %s", release_text));
  memcpy(sha, loaded->str, sizeof sha);
  freeReplyObject(loaded);
  make_cached();
  for (int way = 0; way < WAYS; way++)
    measure(way, calls / 4, 1);
  for (int round = 0; round < rounds; round++)
    for (int i = 0; i < WAYS; i++)
      measure(round % 2 == 0 ? i : WAYS - 1 - i, calls, 0);
  redisFree(raw);
  eg_close(other);
  eg_close(guard);
  return 0;
}
