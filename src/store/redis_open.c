/* SPDX-License-Identifier: MIT
** A server is looked at when it is first met: is it new enough, and what of
** its settings can lose a grant?
*/
#include "store/redis.h"

#include <stdlib.h>
#include <string.h>

/* The value of a line "name:value" of INFO; it ends at the line's end. */
static const char *info(const char *text, const char *name) {
  size_t len = strlen(name);
  for (const char *line = text; line != NULL && *line != '\0';) {
    if (strncmp(line, name, len) == 0 && line[len] == ':')
      return line + len + 1;
    line = strchr(line, '\n');
    line = line != NULL ? line + 1 : NULL;
  }
  return NULL;
}

static bool says(const char *value, const char *text) {
  return value != NULL && strncmp(value, text, strlen(text)) == 0;
}

static void warn_of_eviction(const egi_redis *redis, const char *text) {
  const char *most = info(text, "maxmemory"),
             *policy = info(text, "maxmemory_policy");
  if (most == NULL || policy == NULL || strtoull(most, NULL, 10) == 0 ||
      says(policy, "noeviction"))
    return;
  egi_remote_warn(&redis->env,
                  "redis may evict records and locks when its memory is full "
                  "(maxmemory-policy %.*s); set it to noeviction",
                  (int)strcspn(policy, "\r\n"), policy);
}

static void warn_of_restarts(const egi_redis *redis, const char *text) {
  if (!says(info(text, "aof_enabled"), "0"))
    return;
  egi_remote_warn(&redis->env,
                  "redis forgets the latest locks and records when it "
                  "restarts (appendonly is off)");
}

static eg_status read_info(egi_redis *redis, const char *text,
                           eg_error *error) {
  const char *version = info(text, "redis_version");
  if (version != NULL && atoi(version) < 5)
    return egi_remote_fail(error, EG_UNSUPPORTED, 0,
                           "this is redis %.*s; the store needs version 5 or "
                           "later",
                           (int)strcspn(version, "\r\n"), version);
  warn_of_eviction(redis, text);
  warn_of_restarts(redis, text);
  if (says(info(text, "cluster_enabled"), "1")) {
    if (redis->options.db != 0)
      return egi_remote_fail(error, EG_INVALID, 0,
                             "a redis cluster has only database 0");
    egi_hub *hub = redis->hub;
    pthread_mutex_lock(&hub->base.mutex);
    hub->stale = hub->stale || !hub->cluster;
    hub->cluster = true;
    pthread_mutex_unlock(&hub->base.mutex);
  }
  return EG_OK;
}

eg_status egi_redis_inspect(egi_redis *redis, eg_error *error) {
  const char *argv[] = {"INFO", NULL};
  size_t lens[] = {4, 0};
  redisReply *replies[EGI_REPLIES];
  egi_call call = {.slot = EGI_NO_SLOT, .argc = 1, .argv = argv, .lens = lens};
  int64_t until = egi_real_us() + redis->options.timeout_us;
  eg_status status = egi_redis_call(redis->hub, &call, until, replies, error);
  if (status == EG_DENIED && error != NULL &&
      strstr(error->message, "NOPERM") != NULL) {
    egi_remote_warn(&redis->env, "redis does not let this user see its "
                                 "settings (INFO); they are not looked at");
    return EG_OK;
  }
  if (status == EG_OK)
    status = replies[0]->type == REDIS_REPLY_STRING
                 ? read_info(redis, replies[0]->str, error)
                 : egi_remote_fail(error, EG_INTERNAL, 0,
                                   "redis answered INFO with something else");
  egi_redis_replies_free(replies);
  return status;
}
