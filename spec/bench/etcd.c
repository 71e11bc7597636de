/* SPDX-License-Identifier: MIT
** The etcd store beside the same requests by hand, on one server:
**
**   etcd HOST:PORT ROUNDS CALLS HELD
**
** Prints "name figure" lines, one of each name a round, in nanoseconds a turn;
** in each round every way is timed, forward or backward.  At the end, with HELD
** locks held, what it takes to renew them: CPU in per cent of a core.
*/
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "executionguard.h"

typedef struct talk {
  CURL *easy;
  struct curl_slist *headers;
  char said[8192];
  size_t len;
} talk;

static const char *host;
static talk raw;
static eg_guard *guard, *other;

static double now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

static void die(const char *what) {
  fprintf(stderr, "bench: etcd: %s\n", what);
  exit(1);
}

/* ------------------------------------------------------------- requests -- */

static size_t take(char *data, size_t one, size_t n, void *ctx) {
  talk *t = ctx;
  size_t len = one * n;
  if (t->len + len < sizeof t->said) {
    memcpy(t->said + t->len, data, len);
    t->len += len;
  }
  return len;
}

static void begin(talk *t) {
  memset(t, 0, sizeof *t);
  t->easy = curl_easy_init();
  t->headers = curl_slist_append(NULL, "Expect:");
  curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
  curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, take);
  curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
}

static void end(talk *t) {
  curl_easy_cleanup(t->easy);
  curl_slist_free_all(t->headers);
}

static const char *post(talk *t, const char *name, const char *body) {
  char url[200];
  snprintf(url, sizeof url, "http://%s/v3/%s", host, name);
  t->len = 0;
  curl_easy_setopt(t->easy, CURLOPT_URL, url);
  curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, body);
  if (curl_easy_perform(t->easy) != CURLE_OK)
    die("no answer");
  t->said[t->len] = '\0';
  return t->said;
}

/* A number in quotes, or a text, behind a name. */
static void find(const char *text, const char *name, char *out, size_t size) {
  const char *at = strstr(text, name);
  if (at == NULL)
    die(text);
  at += strlen(name);
  snprintf(out, size, "%.*s", (int)strcspn(at, "\""), at);
}

static void lease(talk *t, char *id, size_t size) {
  find(post(t, "lease/grant", "{\"TTL\":\"60\"}"), "\"ID\":\"", id, size);
}

/* --------------------------------------------------- acquire, release -- */

/* A key with a lease that is there anyhow, if there is none; and away if it is
** still the same. */
static void raw_lock(int calls) {
  char id[32], take_it[600], drop[400], revision[32];
  lease(&raw, id, sizeof id);
  snprintf(take_it, sizeof take_it,
           "{\"compare\":[{\"target\":\"CREATE\",\"key\":\"cmF3\","
           "\"create_revision\":\"0\"}],\"success\":[{\"request_put\":{"
           "\"key\":\"cmF3\",\"value\":\"dGhlIGhvbGRlciBsaW5l\",\"lease\":"
           "\"%s\"}}],\"failure\":[{\"request_range\":{\"key\":\"cmF3\"}}]}",
           id);
  for (int i = 0; i < calls; i++) {
    const char *said = post(&raw, "kv/txn", take_it);
    if (strstr(said, "\"succeeded\":true") == NULL)
      die("the raw lock is held");
    find(said, "\"revision\":\"", revision, sizeof revision);
    snprintf(drop, sizeof drop,
             "{\"compare\":[{\"target\":\"CREATE\",\"key\":\"cmF3\","
             "\"create_revision\":\"%s\"}],\"success\":[{"
             "\"request_delete_range\":{\"key\":\"cmF3\"}}]}",
             revision);
    if (strstr(post(&raw, "kv/txn", drop), "\"succeeded\":true") == NULL)
      die("the raw lock is lost");
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

/* The command that etcd has for it: a few are enough. */
static void etcdctl_lock(int calls) {
  char command[300];
  snprintf(command, sizeof command,
           "ETCDCTL_API=3 etcdctl --endpoints %s lock bench true", host);
  for (int i = 0; i < calls; i++)
    if (system(command) != 0)
      die("etcdctl lock failed");
}

/* ----------------------------------------------------------- hand-over -- */

/* From the release to the grant of whoever waits. */
typedef struct relay {
  pthread_barrier_t ready;
  int turns;
  double released, sum;
} relay;

static void raw_take(talk *t, const char *id, char *key, size_t size) {
  char body[128];
  snprintf(body, sizeof body, "{\"name\":\"cmVsYXk=\",\"lease\":\"%s\"}", id);
  find(post(t, "lock/lock", body), "\"key\":\"", key, size);
}

static void raw_drop(talk *t, const char *key) {
  char body[300];
  snprintf(body, sizeof body, "{\"key\":\"%s\"}", key);
  post(t, "lock/unlock", body);
}

static void *raw_waiter(void *ctx) {
  relay *r = ctx;
  talk mine;
  char id[32], key[200];
  begin(&mine);
  lease(&mine, id, sizeof id);
  for (int i = 0; i < r->turns; i++) {
    pthread_barrier_wait(&r->ready);
    raw_take(&mine, id, key, sizeof key);
    r->sum += now_ns() - r->released;
    raw_drop(&mine, key);
    pthread_barrier_wait(&r->ready);
  }
  end(&mine);
  return NULL;
}

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

/* A short hold: until the other one surely waits. */
static void hand_over_once(relay *r, const char *id) {
  char key[200];
  eg_grant grant;
  eg_reply reply;
  eg_reply_init(&reply);
  if (id != NULL)
    raw_take(&raw, id, key, sizeof key);
  else if (eg_acquire(guard, eg_str("relay"), EG_WANT_LOCK, NULL, 20000,
                      &grant, &reply) != EG_OK)
    die("no lock");
  pthread_barrier_wait(&r->ready);
  nanosleep(&(struct timespec){0, 5000000}, NULL);
  r->released = now_ns();
  if (id != NULL)
    raw_drop(&raw, key);
  else
    eg_release(guard, eg_str("relay"), grant.token, NULL);
  pthread_barrier_wait(&r->ready);
  eg_reply_free(&reply);
}

static double hand_over(int turns, int ours) {
  relay r = {.turns = turns};
  pthread_t thread;
  char id[32];
  pthread_barrier_init(&r.ready, NULL, 2);
  if (!ours)
    lease(&raw, id, sizeof id);
  pthread_create(&thread, NULL, ours ? our_waiter : raw_waiter, &r);
  for (int i = 0; i < turns; i++)
    hand_over_once(&r, ours ? NULL : id);
  pthread_join(thread, NULL);
  pthread_barrier_destroy(&r.ready);
  return r.sum / turns;
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
  eg_reply reply;
  char key[32];
  eg_reply_init(&reply);
  for (int i = 0; i < held; i++) {
    snprintf(key, sizeof key, "held %d", i);
    if (eg_acquire(guard, eg_str(key), EG_WANT_LOCK, NULL, 0, &grant,
                   &reply) != EG_OK)
      die("no lock");
  }
  eg_reply_free(&reply);
  double cpu = cpu_ns(), begun = now_ns();
  nanosleep(&(struct timespec){10, 0}, NULL);
  printf("renewal %.4f\n", 100 * (cpu_ns() - cpu) / (now_ns() - begun));
  printf("a_core 100\n");
}

/* ---------------------------------------------------------------- main -- */

enum { RAW_LOCK, OUR_LOCK, ETCDCTL, RAW_HAND_OVER, OUR_HAND_OVER, WAYS };

static const char *const names[WAYS] = {"raw_lock", "our_lock", "etcdctl_lock",
                                        "raw_hand_over", "our_hand_over"};

static void measure(int way, int calls, int quiet) {
  double begun = now_ns(), each = 0;
  int few = calls / 100 > 0 ? calls / 100 : 1;
  if (way == RAW_LOCK)
    raw_lock(calls);
  else if (way == OUR_LOCK)
    our_lock(calls);
  else if (way == ETCDCTL)
    etcdctl_lock(few);
  else
    each = hand_over(few * (way == OUR_HAND_OVER ? 5 : 2),
                     way == OUR_HAND_OVER);
  if (each == 0)
    each = (now_ns() - begun) / (way == ETCDCTL ? few : calls);
  if (!quiet)
    printf("%s %.0f\n", names[way], each);
}

int main(int argc, char **argv) {
  char url[300];
  if (argc < 5)
    die("HOST:PORT ROUNDS CALLS HELD");
  host = argv[1];
  int rounds = atoi(argv[2]), calls = atoi(argv[3]);
  snprintf(url, sizeof url, "etcd://%s", host);
  eg_options options = {.store = url, .name = "bench"};
  eg_error error;
  curl_global_init(CURL_GLOBAL_DEFAULT);
  if (eg_open(&options, &guard, &error) != EG_OK ||
      eg_open(&options, &other, &error) != EG_OK)
    die(error.message);
  begin(&raw);
  for (int way = 0; way < WAYS; way++)
    measure(way, calls / 4, 1);
  for (int round = 0; round < rounds; round++)
    for (int i = 0; i < WAYS; i++)
      measure(round % 2 == 0 ? i : WAYS - 1 - i, calls, 0);
  renewing(atoi(argv[4]));
  end(&raw);
  eg_close(other);
  eg_close(guard);
  return 0;
}
