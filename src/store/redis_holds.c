/* SPDX-License-Identifier: MIT
** Many holds at once: renewing them, and ending them all.
*/
#include "store/redis.h"

#include <stdio.h>
#include <string.h>

/* A close does not wait long for a server that is away: leases end what it
** held. */
enum { CLOSE_US = 500000 };

/* What one script call is about. */
typedef struct batch {
  egi_redis_key keys[EGI_REDIS_BATCH];
  char tokens[EGI_REDIS_BATCH][24];
  const char *argv[EGI_REDIS_BATCH * 2 + 4];
  size_t lens[EGI_REDIS_BATCH * 2 + 4];
  char count[8], lease[24];
} batch;

static void add(batch *b, int *argc, const char *text, size_t len) {
  b->argv[*argc] = text;
  b->lens[(*argc)++] = len;
}

static int number(char *out, size_t size, uint64_t value) {
  return snprintf(out, size, "%llu", (unsigned long long)value);
}

static int fill(const egi_redis *redis, batch *b, const egi_hold_ref *holds,
                size_t n, uint64_t lease_us) {
  int argc = 0;
  add(b, &argc, "EVALSHA", 7);
  add(b, &argc, egi_script_ends.sha, 40);
  add(b, &argc, b->count, (size_t)number(b->count, sizeof b->count, n));
  for (size_t i = 0; i < n; i++) {
    egi_redis_key_make(redis, holds[i].key, &b->keys[i]);
    add(b, &argc, b->keys[i].text, b->keys[i].len);
  }
  add(b, &argc, b->lease, (size_t)number(b->lease, sizeof b->lease, lease_us));
  for (size_t i = 0; i < n; i++)
    add(b, &argc, b->tokens[i],
        (size_t)number(b->tokens[i], sizeof b->tokens[i], holds[i].token));
  return argc;
}

/* At most EGI_REDIS_BATCH of them, in a cluster one. */
static eg_status one_call(egi_redis *redis, batch *b,
                          const egi_hold_ref *holds, size_t n,
                          uint64_t lease_us, eg_status *each,
                          eg_error *error) {
  redisReply *replies[EGI_REPLIES];
  int argc = fill(redis, b, holds, n, lease_us);
  egi_call call = {.slot = egi_redis_slot(b->keys[0].text, b->keys[0].len),
                   .hasty = lease_us == 0,
                   .text = egi_script_ends.text,
                   .argc = argc,
                   .argv = b->argv,
                   .lens = b->lens};
  int64_t most = redis->options.timeout_us;
  if (lease_us == 0 && most > CLOSE_US)
    most = CLOSE_US;
  int64_t until = egi_real_us() + most;
  eg_status status = egi_redis_call(redis->hub, &call, until, replies, error);
  if (status != EG_OK)
    return status;
  const redisReply *reply = replies[0];
  if (reply->type != REDIS_REPLY_ARRAY || reply->elements != n)
    status = egi_remote_fail(error, EG_INTERNAL, 0,
                             "redis answered a renewal with something else");
  for (size_t i = 0; status == EG_OK && i < n; i++)
    each[i] = reply->element[i]->integer == 1 ? EG_OK : EG_LOST;
  egi_redis_replies_free(replies);
  return status;
}

/* Renewing and ending are both harmless to repeat. */
static eg_status all_calls(egi_redis *redis, const egi_hold_ref *holds,
                           size_t n, uint64_t lease_us, eg_status *each,
                           eg_error *error) {
  const eg_env *env = &redis->env;
  eg_status status = EG_OK;
  batch *b = env->alloc(env->alloc_ud, NULL, 0, sizeof *b);
  if (b == NULL)
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  size_t most = redis->hub->cluster ? 1 : EGI_REDIS_BATCH;
  for (size_t at = 0; status == EG_OK && at < n; at += most) {
    size_t count = n - at < most ? n - at : most;
    status = one_call(redis, b, holds + at, count, lease_us, each + at, error);
  }
  env->alloc(env->alloc_ud, b, sizeof *b, 0);
  return status;
}

eg_status egi_redis_renew(egi_store *store, const egi_hold_ref *holds,
                          size_t n, int64_t lease_ms, eg_status *each,
                          eg_error *error) {
  egi_redis *redis = (egi_redis *)store;
  int64_t most = EGI_LONG_US / 1000;
  int64_t ms = lease_ms < 1 ? 1 : lease_ms < most ? lease_ms : most;
  eg_status status = all_calls(redis, holds, n, (uint64_t)ms * 1000, each,
                               error);
  for (size_t i = 0; status == EG_OK && i < n; i++)
    if (each[i] == EG_LOST)
      egi_holding_remove(&redis->holds, holds[i].key, holds[i].token,
                         &redis->env);
  return status;
}

/* One after the other if there is no memory for more. */
void egi_redis_drop_all(egi_redis *redis) {
  enum { SOME = 64 };
  egi_holding *held[SOME];
  egi_hold_ref holds[SOME];
  eg_status each[SOME], status = EG_OK;
  for (size_t n; (n = egi_holding_take(&redis->holds, held, SOME)) > 0;) {
    size_t known = 0;
    for (size_t i = 0; i < n; i++)
      if (held[i]->token != 0)
        holds[known++] = (egi_hold_ref){{held[i]->key, held[i]->len},
                                        held[i]->token};
    if (status != EG_UNAVAILABLE && known > 0) /* else their leases end them */
      status = all_calls(redis, holds, known, 0, each, NULL);
    for (size_t i = 0; i < n; i++)
      egi_holding_free(held[i], &redis->env);
  }
}
