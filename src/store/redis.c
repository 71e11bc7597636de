/* SPDX-License-Identifier: MIT
** The redis store: one script for each swap, one round trip.
*/
#include "store/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- keys -- */

static void make_prefix(egi_redis *redis, const char *name) {
  char *to = redis->prefix;
  memcpy(to, "eg:{", 4);
  to += 4;
  for (const char *from = name; *from != '\0'; from++) {
    const char *escape = *from == ':' ? "%3A" : *from == '%' ? "%25" : NULL;
    size_t n = escape != NULL ? 3 : 1;
    memcpy(to, escape != NULL ? escape : from, n);
    to += n;
  }
  *to++ = ':';
  redis->prefix_len = (size_t)(to - redis->prefix);
}

void egi_redis_key_make(const egi_redis *redis, eg_bytes key,
                        egi_redis_key *out) {
  char *to = out->text;
  memcpy(to, redis->prefix, redis->prefix_len);
  to += redis->prefix_len;
  if (key.len > 0)
    memcpy(to, key.data, key.len);
  to += key.len;
  *to++ = '}';
  out->len = (size_t)(to - out->text);
}

/* --------------------------------------------------------------- forks -- */

static void redis_forked(egi_store *store) {
  egi_redis *redis = (egi_redis *)store;
  pthread_mutex_init(&redis->holds.mutex, NULL);
  egi_holding_clear(&redis->holds, &redis->env);
  egi_recall_forked(redis->recall);
}

/* In a child for the first time?  Then the parent's holds are not its own. */
static void notice_fork(egi_redis *redis) {
  if (egi_server_is_new_child(&redis->hub->base, &redis->generation))
    redis_forked(&redis->base);
}

/* ------------------------------------------------------------- closing -- */

static void release(egi_redis *redis) {
  eg_env env = redis->env;
  egi_holding_clear(&redis->holds, &env);
  pthread_mutex_destroy(&redis->holds.mutex);
  if (redis->hub != NULL)
    egi_server_leave(&redis->hub->base, redis->base.space);
  egi_recall_free(redis->recall);
  egi_redis_options_free(&redis->options, &env);
  env.alloc(env.alloc_ud, redis, sizeof *redis, 0);
}

static void redis_close(egi_store *store) {
  egi_redis *redis = (egi_redis *)store;
  notice_fork(redis);
  egi_redis_drop_all(redis);
  release(redis);
}

/* ------------------------------------------------------------ load, swap - */

int64_t egi_redis_time(const redisReply *reply) {
  if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
      reply->element[0]->type != REDIS_REPLY_STRING ||
      reply->element[1]->type != REDIS_REPLY_STRING)
    return 0;
  return strtoll(reply->element[0]->str, NULL, 10) * 1000000 +
         strtoll(reply->element[1]->str, NULL, 10);
}

static eg_status not_ours(eg_error *error) {
  return egi_remote_fail(error, EG_CORRUPT, 0,
                         "the key of redis holds something that this version "
                         "of the library did not write");
}

/* What was seen, into seen's own memory and into the recollection. */
static eg_status show(egi_redis *redis, eg_bytes key, const egi_seen *met,
                      egi_seen *seen, eg_error *error) {
  if (!egi_seen_keep(seen, met, &redis->env))
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  egi_recall_keep(redis->recall, key, met);
  return EG_OK;
}

eg_status egi_redis_load(egi_store *store, eg_bytes key, int64_t deadline_us,
                         egi_seen *seen, eg_error *error) {
  static const char get[] = "*2\r\n$3\r\nGET\r\n";
  egi_redis *redis = (egi_redis *)store;
  egi_redis_key name;
  char second[EGI_REDIS_KEY_MAX + 48];
  const char *argv[] = {"TIME", NULL};
  size_t lens[] = {4, 0};
  redisReply *replies[EGI_REPLIES];
  notice_fork(redis);
  egi_redis_key_make(redis, key, &name);
  /* The time first: it is no later than what is found then. */
  int n = snprintf(second, sizeof second, "%s$%zu\r\n", get, name.len);
  memcpy(second + n, name.text, name.len);
  memcpy(second + n + name.len, "\r\n", 2);
  egi_call call = {.slot = egi_redis_slot(name.text, name.len),
                   .argc = 1,
                   .argv = argv,
                   .lens = lens,
                   .second = second,
                   .second_len = (size_t)n + name.len + 2};
  int64_t until = egi_real_deadline(&redis->env, deadline_us,
                                    redis->options.timeout_us);
  eg_status status = egi_redis_call(redis->hub, &call, until, replies, error);
  if (status != EG_OK)
    return status;
  egi_seen met;
  egi_seen_init(&met);
  const redisReply *value = replies[1];
  bool there = value->type == REDIS_REPLY_STRING;
  int64_t now = egi_redis_time(replies[0]);
  if (now == 0 || (!there && value->type != REDIS_REPLY_NIL) ||
      !egi_value_read(there ? value->str : NULL,
                      there ? (size_t)value->len : 0, now, &met))
    status = not_ours(error);
  else
    status = show(redis, key, &met, seen, error);
  egi_redis_replies_free(replies);
  return status;
}

/* A swap on its way. */
typedef struct journey {
  egi_redis *redis;
  eg_bytes key;
  const egi_swap *swap;
  egi_redis_key name;
  int64_t until_us;
  bool replicated;   /* the grant has to reach replicas */
  egi_holding *held; /* of a grant, made before it is asked for */
} journey;

static int append(const char **argv, size_t *lens, int at, const void *data,
                  size_t len) {
  argv[at] = data;
  lens[at] = len;
  return at + 1;
}

static eg_status send_swap(journey *j, redisReply *replies[EGI_REPLIES],
                           eg_error *error) {
  const egi_swap *swap = j->swap;
  unsigned char packed[EGI_SWAP_ARGUMENT], tail[EGI_PAST_TAIL];
  char wait[80];
  egi_redis_key past;
  bool put = swap->write == EGI_PUT, take = swap->hold == EGI_TAKE;
  bool ends = egi_past_is_due(swap);
  const char *argv[9] = {"EVALSHA", egi_script_swap.sha, ends ? "2" : "1",
                         j->name.text};
  size_t lens[9] = {7, 40, 1, j->name.len};
  int argc = 4;
  if (ends) {
    egi_redis_history_key(&j->name, &past);
    argc = append(argv, lens, argc, past.text, past.len);
  }
  egi_swap_pack(swap, j->replicated, packed);
  argc = append(argv, lens, argc, packed, sizeof packed);
  if (put || take)
    argc = append(argv, lens, argc, put ? swap->bytes.data : "",
                  put ? swap->bytes.len : 0);
  if (take || ends)
    argc = append(argv, lens, argc, take ? swap->holder.data : "",
                  take ? swap->holder.len : 0);
  if (ends)
    argc = append(argv, lens, argc, tail, egi_past_tail(swap, tail));
  egi_call call = {.slot = egi_redis_slot(j->name.text, j->name.len),
                   .writes = true,
                   .text = egi_script_swap.text,
                   .argc = argc,
                   .argv = argv,
                   .lens = lens};
  if (j->replicated) {
    const egi_redis_options *o = &j->redis->options;
    char n[16], ms[24];
    int n_len = snprintf(n, sizeof n, "%u", o->replicas);
    int ms_len = snprintf(ms, sizeof ms, "%lld",
                          (long long)((o->replicas_us + 999) / 1000));
    call.second_len = (size_t)snprintf(
        wait, sizeof wait, "*3\r\n$4\r\nWAIT\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n",
        n_len, n, ms_len, ms);
    call.second = wait;
  }
  return egi_redis_call(j->redis->hub, &call, j->until_us, replies, error);
}

/* Too few replicas have the grant: it is taken back, and what was there before
** it put back. */
static eg_status give_back(const journey *j, const redisReply *reply,
                           uint64_t token, long long got, eg_error *error) {
  enum { BEFORE = EGI_REDIS_REPLY + EGI_REDIS_HEAD };
  egi_redis *redis = j->redis;
  redisReply *replies[EGI_REPLIES];
  char number[24];
  int n = snprintf(number, sizeof number, "%llu", (unsigned long long)token);
  const char *argv[] = {"EVALSHA", egi_script_undo.sha, "1", j->name.text,
                        number,    reply->str + BEFORE};
  size_t lens[] = {7,           40,        1,
                   j->name.len, (size_t)n, (size_t)reply->len - BEFORE};
  egi_call call = {.slot = egi_redis_slot(j->name.text, j->name.len),
                   .text = egi_script_undo.text,
                   .argc = 6,
                   .argv = argv,
                   .lens = lens};
  int64_t until = egi_real_us() + redis->options.timeout_us;
  egi_recall_drop(redis->recall, j->key);
  if (egi_redis_call(redis->hub, &call, until, replies, error) != EG_OK) {
    if (error != NULL)
      error->status = EG_INDETERMINATE;
    return EG_INDETERMINATE;
  }
  egi_redis_replies_free(replies);
  return egi_remote_fail(error, EG_UNAVAILABLE, 0,
                         "%lld replicas have the grant, minReplicas asks for "
                         "%u; it was given back",
                         got, redis->options.replicas);
}

static void note_hold(journey *j, uint64_t token) {
  egi_redis *redis = j->redis;
  const egi_swap *swap = j->swap;
  if (swap->hold == EGI_TAKE) {
    egi_holding_add(&redis->holds, j->held, token, &redis->env);
    j->held = NULL;
  } else if (swap->hold != EGI_KEEP) {
    egi_holding_remove(&redis->holds, j->key, 0, &redis->env);
  }
}

static eg_status read_swap(journey *j, redisReply *replies[EGI_REPLIES],
                           egi_seen *seen, eg_error *error) {
  egi_redis *redis = j->redis;
  egi_seen met;
  bool landed;
  egi_seen_init(&met);
  if (!egi_reply_read(replies[0], &landed, &met))
    return not_ours(error);
  if (!landed) {
    eg_status status = show(redis, j->key, &met, seen, error);
    return status == EG_OK ? EG_CONFLICT : status;
  }
  if (j->replicated &&
      (replies[1]->type != REDIS_REPLY_INTEGER ||
       replies[1]->integer < (long long)redis->options.replicas))
    return give_back(j, replies[0], met.at.token, replies[1]->integer, error);
  egi_seen_keep(seen, &met, &redis->env); /* no bytes: no memory */
  note_hold(j, met.at.token);
  egi_recall_swapped(redis->recall, j->key, j->swap, &met);
  return EG_OK;
}

static eg_status redis_swap(egi_store *store, eg_bytes key,
                            const egi_swap *swap, int64_t deadline_us,
                            egi_seen *seen, eg_error *error) {
  egi_redis *redis = (egi_redis *)store;
  redisReply *replies[EGI_REPLIES];
  journey j = {.redis = redis, .key = key, .swap = swap};
  notice_fork(redis);
  egi_redis_key_make(redis, key, &j.name);
  j.until_us = egi_real_deadline(&redis->env, deadline_us,
                                 redis->options.timeout_us);
  bool take = swap->hold == EGI_TAKE;
  j.replicated = take && redis->options.replicas > 0;
  if (j.replicated)
    j.until_us += redis->options.replicas_us;
  if (take) {
    j.held = egi_holding_new(key, &redis->env);
    if (j.held == NULL)
      return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  }
  eg_status status = send_swap(&j, replies, error);
  if (status == EG_OK)
    status = read_swap(&j, replies, seen, error);
  egi_redis_replies_free(replies);
  egi_holding_free(j.held, &redis->env);
  return status;
}

static bool redis_recall(egi_store *store, eg_bytes key, egi_seen *seen) {
  egi_redis *redis = (egi_redis *)store;
  notice_fork(redis);
  return egi_recall_get(redis->recall, key, seen);
}

/* ------------------------------------------------------------- opening -- */

static pthread_once_t scripts_once = PTHREAD_ONCE_INIT;

static eg_status redis_open(const egi_url *url, const eg_env *env,
                            egi_store **store, eg_error *error);

/* What the library asks this object for. */
EG_API extern const egi_store_ops egi_redis_ops;
const egi_store_ops egi_redis_ops = {
    .abi = EGI_STORE_ABI,
    .blocks = true,
    .scheme = "redis",
    .open = redis_open,
    .close = redis_close,
    .load = egi_redis_load,
    .swap = redis_swap,
    .renew = egi_redis_renew,
    .watch = egi_redis_watch,
    .wait = egi_redis_wait,
    .unwatch = egi_redis_unwatch,
    .scan = egi_redis_scan,
    .add = egi_redis_add,
    .counts = egi_redis_counts,
    .recall = redis_recall,
    .history = egi_redis_history,
    .forked = redis_forked,
};

static eg_status redis_open(const egi_url *url, const eg_env *env,
                            egi_store **store, eg_error *error) {
  egi_redis_options options;
  eg_status status = egi_redis_options_read(url, env, &options, error);
  if (status != EG_OK)
    return status;
  egi_redis *redis = env->alloc(env->alloc_ud, NULL, 0, sizeof *redis);
  egi_recall *recall = redis != NULL ? egi_recall_new(env) : NULL;
  if (recall == NULL) {
    if (redis != NULL)
      env->alloc(env->alloc_ud, redis, sizeof *redis, 0);
    egi_redis_options_free(&options, env);
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  }
  memset(redis, 0, sizeof *redis);
  redis->base.ops = &egi_redis_ops;
  redis->base.lease_ms = options.lease_ms;
  redis->env = *env;
  redis->options = options;
  redis->recall = recall;
  egi_holding_init(&redis->holds);
  make_prefix(redis, url->name != NULL ? url->name : "default");
  egi_server *server = NULL;
  pthread_once(&scripts_once, egi_scripts_init);
  status = egi_server_find(&egi_redis_kind, &redis->options, &server, error);
  if (server != NULL) {
    redis->hub = (egi_hub *)server;
    redis->generation = egi_server_generation(server);
    redis->base.space = egi_server_space(server, redis->prefix);
    status = egi_redis_inspect(redis, error);
  }
  if (status != EG_OK) {
    release(redis);
    return status;
  }
  *store = &redis->base;
  return EG_OK;
}
