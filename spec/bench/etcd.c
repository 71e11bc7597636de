/* SPDX-License-Identifier: MIT
** The etcd store beside the same requests by hand, on one server:
**
**   etcd HOST:PORT ROUNDS CALLS HELD
*/
#include "servers.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct talk {
  CURL *easy;
  struct curl_slist *headers;
  char said[8192], lease[32], key[200];
  size_t len;
} talk;

static const char *host;
static talk hand;

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

static const char *post(talk *t, const char *name, const char *body) {
  char url[200];
  snprintf(url, sizeof url, "http://%s/v3/%s", host, name);
  t->len = 0;
  curl_easy_setopt(t->easy, CURLOPT_URL, url);
  curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, body);
  if (curl_easy_perform(t->easy) != CURLE_OK)
    die("etcd", "no answer");
  t->said[t->len] = '\0';
  return t->said;
}

/* A number in quotes, or a text, behind a name. */
static void find(const char *text, const char *name, char *out, size_t size) {
  const char *at = strstr(text, name);
  if (at == NULL)
    die("etcd", text);
  at += strlen(name);
  snprintf(out, size, "%.*s", (int)strcspn(at, "\""), at);
}

static void lease(talk *t) {
  find(post(t, "lease/grant", "{\"TTL\":\"3600\"}"), "\"ID\":\"", t->lease,
       sizeof t->lease);
}

/* --------------------------------------------------- acquire, release -- */

/* A key with a lease that is there anyhow, if there is none; and away if it is
** still the same. */
static void lock(int calls) {
  char take_it[600], drop[400], revision[32];
  snprintf(take_it, sizeof take_it,
           "{\"compare\":[{\"target\":\"CREATE\",\"key\":\"cmF3\","
           "\"create_revision\":\"0\"}],\"success\":[{\"request_put\":{"
           "\"key\":\"cmF3\",\"value\":\"dGhlIGhvbGRlciBsaW5l\",\"lease\":"
           "\"%s\"}}],\"failure\":[{\"request_range\":{\"key\":\"cmF3\"}}]}",
           hand.lease);
  for (int i = 0; i < calls; i++) {
    const char *said = post(&hand, "kv/txn", take_it);
    if (strstr(said, "\"succeeded\":true") == NULL)
      die("etcd", "the raw lock is held");
    find(said, "\"revision\":\"", revision, sizeof revision);
    snprintf(drop, sizeof drop,
             "{\"compare\":[{\"target\":\"CREATE\",\"key\":\"cmF3\","
             "\"create_revision\":\"%s\"}],\"success\":[{"
             "\"request_delete_range\":{\"key\":\"cmF3\"}}]}",
             revision);
    if (strstr(post(&hand, "kv/txn", drop), "\"succeeded\":true") == NULL)
      die("etcd", "the raw lock is lost");
  }
}

/* The command that etcd has for it: a few are enough. */
static void etcdctl_lock(int calls) {
  char command[300];
  snprintf(command, sizeof command,
           "ETCDCTL_API=3 etcdctl --endpoints %s lock bench true", host);
  for (int i = 0; i < calls; i++)
    if (system(command) != 0)
      die("etcd", "etcdctl lock failed");
}

/* A read, as it is for who knows how: it goes through the leader. */
static void get(int calls) {
  for (int i = 0; i < calls; i++)
    post(&hand, "kv/range", "{\"key\":\"Y2FjaGVk\"}");
}

/* ----------------------------------------------------------- hand-over -- */

/* Its own lock, which is served in order. */
static void hold(talk *t) {
  char body[128];
  snprintf(body, sizeof body, "{\"name\":\"cmVsYXk=\",\"lease\":\"%s\"}",
           t->lease);
  find(post(t, "lock/lock", body), "\"key\":\"", t->key, sizeof t->key);
}

static void drop(talk *t) {
  char body[300];
  snprintf(body, sizeof body, "{\"key\":\"%s\"}", t->key);
  post(t, "lock/unlock", body);
}

static void hold_first(void) { hold(&hand); }
static void pass(void) { drop(&hand); }
static void wait_for_it(void *who) { hold(who); }
static void leave(void *who) { drop(who); }

static void *come(void) {
  static talk waits;
  if (waits.easy == NULL)
    begin(&waits);
  lease(&waits);
  return &waits;
}

int main(int argc, char **argv) {
  static const peer raw = {.name = "etcd",
                           .lock = lock,
                           .get = get,
                           .command = etcdctl_lock,
                           .command_name = "etcdctl_lock",
                           .hold = hold_first,
                           .pass = pass,
                           .come = come,
                           .wait = wait_for_it,
                           .leave = leave};
  char url[300];
  if (argc < 5)
    die("etcd", "HOST:PORT ROUNDS CALLS HELD");
  host = argv[1];
  snprintf(url, sizeof url, "etcd://%s", host);
  curl_global_init(CURL_GLOBAL_DEFAULT);
  begin(&hand);
  lease(&hand);
  post(&hand, "kv/put", "{\"key\":\"Y2FjaGVk\",\"value\":\"Nw==\"}");
  measure_store(url, &raw, atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
  return 0;
}
