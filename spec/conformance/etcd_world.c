/* SPDX-License-Identifier: MIT
** The rules of store.h on etcd, whose leases are whole seconds by a clock that
** nobody can move.
**
** Time is stretched: a millisecond of a rule is two seconds of the store's, in
** all durations and in the clock that it is given.  And whoever moves the clock
** does what etcd does when the time of a lease is over: revokes it.  When that
** is, is known from the keys: each counts from the put that gave it its lease,
** and from every renewal.
*/
#include "etcd_world.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STRETCH = 2000, ENTRIES = 4096, KINDS = 4 };

/* A key with a lease. */
typedef struct entry {
  char key[1100]; /* base 64 */
  uint64_t revision, lease;
  int64_t end_ms; /* of the rule's time */
  bool there;
} entry;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static entry entries[ENTRIES];
static size_t n_entries;
static char prefix[128]; /* of the world that is open; empty: none */
static int port;
static const egi_store_ops *real;

/* ------------------------------------------------------------- requests -- */

static int dial(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in at = {.sin_family = AF_INET,
                           .sin_port = htons((uint16_t)port),
                           .sin_addr = {htonl(INADDR_LOOPBACK)}};
  if (fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) == 0)
    return fd;
  close(fd);
  return -1;
}

/* The whole reply, in memory of malloc; one connection each. */
char *etcd_world_ask(const char *path, const char *body) {
  size_t len = 0, cap = 1 << 16;
  char *reply = malloc(cap), head[300];
  int fd = dial();
  int n = snprintf(head, sizeof head,
                   "POST /v3/%s HTTP/1.0\r\nContent-Length: %zu\r\n\r\n", path,
                   strlen(body));
  bool good = fd >= 0 && reply != NULL &&
              send(fd, head, (size_t)n, MSG_NOSIGNAL) == n &&
              send(fd, body, strlen(body), MSG_NOSIGNAL) > 0;
  for (ssize_t got = 1; good && got > 0; len += (size_t)got) {
    if (cap - len < 2) {
      char *larger = realloc(reply, cap *= 2);
      if (larger == NULL)
        break;
      reply = larger;
    }
    got = recv(fd, reply + len, cap - len - 1, 0);
    if (got <= 0)
      break;
  }
  if (fd >= 0)
    close(fd);
  if (reply != NULL)
    reply[len] = '\0';
  return reply;
}

static uint64_t number_after(const char *text, const char *end,
                             const char *name) {
  const char *at = text != NULL ? strstr(text, name) : NULL;
  return at != NULL && (end == NULL || at < end)
             ? strtoull(at + strlen(name), NULL, 10)
             : 0;
}

void etcd_world_base64(const char *text, size_t n, char *out) {
  static const char letters[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < n; i += 3) {
    unsigned three = 0;
    for (size_t j = i; j < i + 3; j++)
      three = three << 8 | (j < n ? (unsigned char)text[j] : 0u);
    *out++ = letters[three >> 18];
    *out++ = letters[three >> 12 & 63];
    *out++ = i + 1 < n ? letters[three >> 6 & 63] : '=';
    *out++ = i + 2 < n ? letters[three & 63] : '=';
  }
  *out = '\0';
}

/* Key and end of a range of the world's keys, as JSON. */
static int range(const char *kind, char *out, size_t size) {
  char text[160], key[256], end[256];
  int n = snprintf(text, sizeof text, "%s%s", prefix, kind);
  etcd_world_base64(text, (size_t)n, key);
  text[n - 1]++;
  etcd_world_base64(text, (size_t)n, end);
  return snprintf(out, size, "{\"key\":\"%s\",\"range_end\":\"%s\"", key, end);
}

/* --------------------------------------------------------------- leases -- */

static int64_t granted_ms(uint64_t lease) {
  char body[64];
  snprintf(body, sizeof body, "{\"ID\":\"%" PRIu64 "\"}", lease);
  char *reply = etcd_world_ask("lease/timetolive", body);
  uint64_t seconds = number_after(reply, NULL, "\"grantedTTL\":\"");
  free(reply);
  return (int64_t)seconds * 1000 / STRETCH;
}

static void note_key(const char *at, const char *next, int64_t now_ms) {
  uint64_t lease = number_after(at, next, "\"lease\":\"");
  uint64_t revision = number_after(at, next, "\"mod_revision\":\"");
  size_t len = strcspn(at + 7, "\""), i = 0;
  if (lease == 0 || len >= sizeof entries[0].key)
    return;
  while (i < n_entries && (strncmp(entries[i].key, at + 7, len) != 0 ||
                           entries[i].key[len] != '\0'))
    i++;
  if (i == ENTRIES)
    return;
  entries[i].there = true;
  if (i < n_entries && entries[i].revision == revision)
    return;
  if (i == n_entries)
    n_entries++;
  entry *e = &entries[i];
  memcpy(e->key, at + 7, len);
  e->key[len] = '\0';
  e->revision = revision;
  e->lease = lease;
  e->end_ms = now_ms + granted_ms(lease);
}

/* What got a lease since the clock was last moved got it now.  With the
** lock. */
static void note_keys(int64_t now_ms) {
  static const char *const kinds[KINDS] = {"own/", "nbf/", "frs/", "lif/"};
  char body[4096];
  int n = snprintf(body, sizeof body, "{\"success\":[");
  for (int i = 0; i < KINDS; i++) {
    n += snprintf(body + n, sizeof body - (size_t)n,
                  "%s{\"request_range\":", i > 0 ? "," : "");
    n += range(kinds[i], body + n, sizeof body - (size_t)n);
    n += snprintf(body + n, sizeof body - (size_t)n, ",\"keys_only\":true}}");
  }
  snprintf(body + n, sizeof body - (size_t)n, "]}");
  for (size_t i = 0; i < n_entries; i++)
    entries[i].there = false;
  char *reply = etcd_world_ask("kv/txn", body);
  const char *at = reply != NULL ? strstr(reply, "\"key\":\"") : NULL;
  while (at != NULL) {
    const char *next = strstr(at + 7, "\"key\":\"");
    note_key(at, next, now_ms);
    at = next;
  }
  free(reply);
  for (size_t i = 0; i < n_entries;)
    if (entries[i].there)
      i++;
    else /* its lease may have another key by now */
      entries[i] = entries[--n_entries];
}

static void end_due(int64_t now_ms) {
  for (size_t i = 0; i < n_entries;) {
    char body[64];
    if (entries[i].end_ms > now_ms) {
      i++;
      continue;
    }
    snprintf(body, sizeof body, "{\"ID\":\"%" PRIu64 "\"}", entries[i].lease);
    free(etcd_world_ask("lease/revoke", body));
    entries[i] = entries[--n_entries];
  }
}

void etcd_world_before(int64_t now_ms) {
  pthread_mutex_lock(&lock);
  if (prefix[0] != '\0')
    note_keys(now_ms);
  pthread_mutex_unlock(&lock);
}

void etcd_world_after(int64_t now_ms) {
  pthread_mutex_lock(&lock);
  if (prefix[0] != '\0')
    end_due(now_ms);
  pthread_mutex_unlock(&lock);
}

static void note_renewal(eg_bytes key, int64_t lease_ms) {
  char text[700], name[1100];
  int64_t now_ms = clock_now_us() / 1000;
  int n = snprintf(text, sizeof text, "%sown/", prefix);
  memcpy(text + n, key.data, key.len);
  etcd_world_base64(text, (size_t)n + key.len, name);
  pthread_mutex_lock(&lock);
  note_keys(now_ms);
  for (size_t i = 0; i < n_entries; i++)
    if (strcmp(entries[i].key, name) == 0 &&
        entries[i].end_ms < now_ms + lease_ms)
      entries[i].end_ms = now_ms + lease_ms;
  pthread_mutex_unlock(&lock);
}

/* ----------------------------------------------------------- stretching -- */

static int64_t longer(int64_t time) {
  return time > 0 && time < INT64_MAX / 1000000 ? time * STRETCH : time;
}

static int64_t shorter(int64_t time) {
  return time > 0 && time != EG_FOREVER ? time / STRETCH : time;
}

static int64_t clock_now(void *ctx) {
  (void)ctx;
  return clock_now_us() * STRETCH;
}

static int64_t clock_offset(void *ctx, int64_t at_us) {
  return world_clock.offset_us(ctx, at_us / STRETCH);
}

static int clock_wait(void *ctx, pthread_cond_t *cond, pthread_mutex_t *mutex,
                      int64_t deadline_us) {
  return world_clock.wait(ctx, cond, mutex, shorter(deadline_us));
}

static void clock_wake(void *ctx, pthread_cond_t *cond) {
  world_clock.wake(ctx, cond);
}

static const eg_clock stretched_clock = {NULL,         clock_now,  clock_now,
                                         clock_offset, clock_wait, clock_wake};

static void shorten(egi_seen *seen) {
  seen->at.left_us = shorter(seen->at.left_us);
  seen->at.not_before_left_us = shorter(seen->at.not_before_left_us);
  seen->at.fresh_left_us = shorter(seen->at.fresh_left_us);
  seen->life_left_us = shorter(seen->life_left_us);
}

static eg_status open_it(const egi_url *url, const eg_env *env,
                         egi_store **store, eg_error *error) {
  eg_env stretched = *env;
  stretched.clock = &stretched_clock;
  return real->open(url, &stretched, store, error);
}

static void close_it(egi_store *store) { real->close(store); }

static eg_status load(egi_store *store, eg_bytes key, int64_t deadline_us,
                      egi_seen *seen, eg_error *error) {
  eg_status status = real->load(store, key, longer(deadline_us), seen, error);
  shorten(seen);
  return status;
}

static eg_status swap(egi_store *store, eg_bytes key, const egi_swap *given,
                      int64_t deadline_us, egi_seen *seen, eg_error *error) {
  egi_swap stretched = *given;
  stretched.lease_ms = longer(given->lease_ms);
  stretched.not_before_ms = longer(given->not_before_ms);
  stretched.fresh_ms = longer(given->fresh_ms);
  stretched.life_ms = longer(given->life_ms);
  eg_status status = real->swap(store, key, &stretched, longer(deadline_us),
                                seen, error);
  if (status == EG_OK || status == EG_CONFLICT)
    shorten(seen);
  return status;
}

static eg_status renew(egi_store *store, const egi_hold_ref *holds, size_t n,
                       int64_t lease_ms, eg_status *each, eg_error *error) {
  eg_status status = real->renew(store, holds, n, longer(lease_ms), each,
                                 error);
  for (size_t i = 0; status == EG_OK && i < n; i++)
    if (each[i] == EG_OK)
      note_renewal(holds[i].key, lease_ms);
  return status;
}

static eg_status watch(egi_store *store, eg_bytes key, const egi_seen *seen,
                       egi_watch **out, int *fd, eg_error *error) {
  return real->watch(store, key, seen, out, fd, error);
}

static eg_status wait_it(egi_watch *held, int64_t deadline_us,
                         eg_error *error) {
  return real->wait(held, longer(deadline_us), error);
}

static void unwatch(egi_watch *held) { real->unwatch(held); }

typedef struct tour {
  egi_visit_fn visit;
  void *ctx;
} tour;

static bool visit(void *ctx, eg_bytes key, const egi_seen *seen) {
  const tour *t = ctx;
  egi_seen shown = *seen;
  shorten(&shown);
  return t->visit(t->ctx, key, &shown);
}

static eg_status scan(egi_store *store, eg_bytes start, egi_visit_fn given,
                      void *ctx, eg_error *error) {
  tour t = {given, ctx};
  return real->scan(store, start, visit, &t, error);
}

static bool recall(egi_store *store, eg_bytes key, egi_seen *seen) {
  bool found = real->recall(store, key, seen);
  if (found)
    shorten(seen);
  return found;
}

static int64_t tend(egi_store *store, int64_t now_us, egi_lost_fn lost,
                    void *ctx) {
  int64_t now = longer(now_us);
  int64_t next = real->tend(store, now, lost, ctx);
  return next == EG_FOREVER ? next : now_us + (next - now); /* as it is */
}

static const egi_store_ops stretched_ops = {
    .abi = EGI_STORE_ABI,
    .blocks = true,
    .scheme = "etcd",
    .open = open_it,
    .close = close_it,
    .load = load,
    .swap = swap,
    .renew = renew,
    .watch = watch,
    .wait = wait_it,
    .unwatch = unwatch,
    .scan = scan,
    .recall = recall,
    .tend = tend,
};

/* --------------------------------------------------------------- worlds -- */

const egi_store_ops *etcd_world_begin(const egi_url *url) {
  const char *colon = strrchr(url->rest, ':');
  real = egi_find_store("etcd");
  if (real == NULL || colon == NULL)
    return NULL;
  pthread_mutex_lock(&lock);
  port = atoi(colon + 1);
  snprintf(prefix, sizeof prefix, "eg/%s/", url->name);
  n_entries = 0;
  pthread_mutex_unlock(&lock);
  return &stretched_ops;
}

void etcd_world_end(void) {
  char body[700];
  pthread_mutex_lock(&lock);
  if (prefix[0] != '\0') {
    int n = range("", body, sizeof body - 1);
    strcpy(body + n, "}");
    free(etcd_world_ask("kv/deleterange", body));
  }
  prefix[0] = '\0';
  pthread_mutex_unlock(&lock);
}
