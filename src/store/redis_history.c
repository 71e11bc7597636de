/* SPDX-License-Identifier: MIT
** The ended runs on a Redis server: a list for each key, in the same slot,
**
**   eg:{<name>:<key>}:h
**
** written by the script that ends the run, newest first; it keeps at least
** EGI_PAST_KEPT of them, for 90 days.
*/
#include "store/redis.h"

#include <stdio.h>
#include <string.h>

typedef struct reading {
  egi_redis *redis;
  egi_pasts pasts;
} reading;

void egi_redis_history_key(const egi_redis_key *record, egi_redis_key *out) {
  memcpy(out->text, record->text, record->len);
  memcpy(out->text + record->len, ":h", 2);
  out->len = record->len + 2;
}

static eg_status add_all(egi_pasts *pasts, eg_bytes key,
                         const redisReply *list, eg_error *error) {
  for (size_t i = 0; i < list->elements; i++) {
    const redisReply *one = list->element[i];
    eg_bytes bytes = {one->str, (size_t)one->len};
    if (one->type == REDIS_REPLY_STRING && !egi_pasts_add(pasts, key, bytes))
      return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  }
  return EG_OK;
}

static eg_status read_list(reading *r, eg_bytes key, const char *name,
                           size_t len, eg_error *error) {
  redisReply *replies[EGI_REPLIES];
  char last[24];
  size_t n = r->pasts.most;
  int last_len = snprintf(last, sizeof last, "%zu",
                          n < EGI_PAST_KEPT ? n - 1 : EGI_PAST_KEPT - 1);
  const char *argv[] = {"LRANGE", name, "0", last};
  size_t lens[] = {6, len, 1, (size_t)last_len};
  egi_call call = {.slot = egi_redis_slot(name, len),
                   .argc = 4,
                   .argv = argv,
                   .lens = lens};
  int64_t until = egi_real_us() + r->redis->options.timeout_us;
  eg_status status = egi_redis_call(r->redis->hub, &call, until, replies,
                                    error);
  if (status != EG_OK)
    return status;
  if (replies[0]->type == REDIS_REPLY_ARRAY)
    status = add_all(&r->pasts, key, replies[0], error);
  egi_redis_replies_free(replies);
  return status;
}

static eg_status read_found(void *ctx, eg_bytes key, bool *more,
                            eg_error *error) {
  reading *r = ctx;
  egi_redis_key record, name;
  (void)more;
  egi_redis_key_make(r->redis, key, &record);
  egi_redis_history_key(&record, &name);
  return read_list(r, key, name.text, name.len, error);
}

eg_status egi_redis_history(egi_store *store, eg_bytes key, size_t n,
                            eg_visit_past visit, void *ctx, eg_error *error) {
  egi_redis *redis = (egi_redis *)store;
  reading r = {.redis = redis};
  bool more = true;
  eg_status status;
  if (n == 0)
    return EG_OK;
  egi_pasts_init(&r.pasts, n);
  status = key.len > 0
               ? read_found(&r, key, &more, error)
               : egi_redis_find(redis, key, ":h", read_found, &r, error);
  if (status == EG_OK)
    egi_pasts_show(&r.pasts, visit, ctx);
  egi_pasts_free(&r.pasts);
  return status;
}
