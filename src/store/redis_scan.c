/* SPDX-License-Identifier: MIT
** Visiting every key of a namespace: SCAN, and one look at each.
**
** SCAN says every key that is there all the time, some of them twice: a set of
** the hashes of those that were visited keeps each to one visit.
*/
#include "store/redis.h"

#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

typedef struct tour {
  egi_redis *redis;
  const char *ending;
  egi_redis_found_fn found;
  void *ctx;
  char pattern[2 * EGI_REDIS_KEY_MAX];
  size_t pattern_len;
  bool stopped;
  /* those that were visited: open addressing; 0: free */
  XXH128_hash_t *met;
  size_t cap, count;
} tour;

/* --------------------------------------------------- what was visited -- */

static bool is_free(const XXH128_hash_t *h) {
  return h->low64 == 0 && h->high64 == 0;
}

static bool insert(XXH128_hash_t *table, size_t cap, XXH128_hash_t hash) {
  size_t at = (size_t)hash.low64 & (cap - 1);
  while (!is_free(&table[at])) {
    if (XXH128_isEqual(table[at], hash))
      return false;
    at = (at + 1) & (cap - 1);
  }
  table[at] = hash;
  return true;
}

static bool grow(tour *t) {
  const eg_env *env = &t->redis->env;
  size_t cap = t->cap > 0 ? t->cap * 2 : 256;
  size_t size = cap * sizeof *t->met;
  XXH128_hash_t *larger = env->alloc(env->alloc_ud, NULL, 0, size);
  if (larger == NULL)
    return false;
  memset(larger, 0, size);
  for (size_t i = 0; i < t->cap; i++)
    if (!is_free(&t->met[i]))
      insert(larger, cap, t->met[i]);
  if (t->met != NULL)
    env->alloc(env->alloc_ud, t->met, t->cap * sizeof *t->met, 0);
  t->met = larger;
  t->cap = cap;
  return true;
}

/* 1: for the first time; 0: not; -1: no memory. */
static int meet(tour *t, const char *key, size_t len) {
  if (t->count * 2 >= t->cap && !grow(t))
    return -1;
  bool first = insert(t->met, t->cap, XXH3_128bits(key, len));
  t->count += first ? 1 : 0;
  return first ? 1 : 0;
}

/* --------------------------------------------------------------- pattern - */

static void escape(tour *t, const char *text, size_t len) {
  for (size_t i = 0; i < len; i++) {
    if (strchr("*?[]^\\", text[i]) != NULL && text[i] != '\0')
      t->pattern[t->pattern_len++] = '\\';
    t->pattern[t->pattern_len++] = text[i];
  }
}

static void make_pattern(tour *t, eg_bytes prefix) {
  const egi_redis *redis = t->redis;
  escape(t, redis->prefix, redis->prefix_len);
  if (prefix.len > 0)
    escape(t, prefix.data, prefix.len);
  t->pattern[t->pattern_len++] = '*';
  t->pattern[t->pattern_len++] = '}';
  escape(t, t->ending, strlen(t->ending));
}

/* --------------------------------------------------------------- visiting */

static eg_status visit(tour *t, const redisReply *name, eg_error *error) {
  const egi_redis *redis = t->redis;
  size_t before = redis->prefix_len, len = (size_t)name->len;
  size_t after = 1 + strlen(t->ending);
  bool more = true;
  if (len <= before + after || len > before + EG_KEY_MAX + after ||
      name->str[len - after] != '}' ||
      memcmp(name->str + len - after + 1, t->ending, after - 1) != 0)
    return EG_OK; /* none of ours */
  eg_bytes key = {name->str + before, len - before - after};
  int first = meet(t, name->str, len);
  if (first < 0)
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  if (first == 0)
    return EG_OK;
  eg_status status = t->found(t->ctx, key, &more, error);
  t->stopped = !more;
  return status;
}

static eg_status visit_all(tour *t, const redisReply *names, eg_error *error) {
  eg_status status = EG_OK;
  for (size_t i = 0; status == EG_OK && !t->stopped && i < names->elements;
       i++)
    if (names->element[i]->type == REDIS_REPLY_STRING)
      status = visit(t, names->element[i], error);
  return status;
}

static bool is_page(const redisReply *reply) {
  return reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
         reply->element[0]->type == REDIS_REPLY_STRING &&
         reply->element[0]->len < 24 &&
         reply->element[1]->type == REDIS_REPLY_ARRAY;
}

static eg_status scan_node(tour *t, egi_node *node, eg_error *error) {
  char cursor[24] = "0";
  eg_status status = EG_OK;
  do {
    redisReply *replies[EGI_REPLIES];
    const char *argv[] = {"SCAN", cursor, "MATCH", t->pattern, "COUNT", "200"};
    size_t lens[] = {4, strlen(cursor), 5, t->pattern_len, 5, 3};
    egi_call call = {.slot = EGI_NO_SLOT,
                     .node = node,
                     .argc = 6,
                     .argv = argv,
                     .lens = lens};
    int64_t until = egi_real_us() + t->redis->options.timeout_us;
    status = egi_redis_call(t->redis->hub, &call, until, replies, error);
    if (status == EG_OK && !is_page(replies[0]))
      status = egi_remote_fail(error, EG_INTERNAL, 0,
                               "redis answered SCAN with something else");
    if (status == EG_OK) {
      memcpy(cursor, replies[0]->element[0]->str,
             (size_t)replies[0]->element[0]->len + 1);
      status = visit_all(t, replies[0]->element[1], error);
    }
    egi_redis_replies_free(replies);
  } while (status == EG_OK && !t->stopped && strcmp(cursor, "0") != 0);
  return status;
}

eg_status egi_redis_find(egi_redis *redis, eg_bytes prefix, const char *ending,
                         egi_redis_found_fn found, void *ctx,
                         eg_error *error) {
  egi_node *nodes[EGI_REDIS_NODES];
  tour t = {.redis = redis, .ending = ending, .found = found, .ctx = ctx};
  eg_status status = EG_OK;
  if (prefix.len > EG_KEY_MAX)
    return EG_OK;
  make_pattern(&t, prefix);
  unsigned n = egi_hub_masters(redis->hub, nodes);
  for (unsigned i = 0; status == EG_OK && !t.stopped && i < n; i++)
    status = scan_node(&t, nodes[i], error);
  if (t.met != NULL)
    redis->env.alloc(redis->env.alloc_ud, t.met, t.cap * sizeof *t.met, 0);
  return status;
}

/* ---------------------------------------------------------- the records -- */

typedef struct records {
  egi_redis *redis;
  egi_visit_fn visit;
  void *ctx;
} records;

static eg_status show(void *ctx, eg_bytes key, bool *more, eg_error *error) {
  const records *r = ctx;
  egi_seen seen;
  egi_seen_init(&seen);
  eg_status status = egi_redis_load(&r->redis->base, key, EG_FOREVER, &seen,
                                    error);
  if (status == EG_CORRUPT)
    status = EG_OK; /* somebody else's */
  else if (status == EG_OK && (seen.bytes.len > 0 || seen.at.held))
    *more = r->visit(r->ctx, key, &seen);
  egi_seen_free(&seen, &r->redis->env);
  return status;
}

eg_status egi_redis_scan(egi_store *store, eg_bytes prefix,
                         egi_visit_fn visit_fn, void *ctx, eg_error *error) {
  records r = {(egi_redis *)store, visit_fn, ctx};
  return egi_redis_find(r.redis, prefix, "", show, &r, error);
}
