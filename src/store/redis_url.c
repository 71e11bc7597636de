/* SPDX-License-Identifier: MIT
** What the URL of a Redis server says.
**
**   redis://[user[:password]@]host[:port][,host...][/db][?parameter=value...]
**   redis+unix://[user[:password]@]/path/of/the/socket[?db=N...]
**
** A password comes from the URL, else from the file of passwordFile=, else
** from the environment variable REDISCLI_AUTH.
*/
#include "store/redis.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_PORT = 6379, DBS_MAX = 1 << 20, CONNECTIONS_MAX = 1024 };

/* What the parameters say, while they are read. */
typedef struct reading {
  egi_redis_options *options;
  char file[512]; /* of the password */
} reading;

static const char *take_seconds(int64_t *us, const char *value) {
  *us = egi_parse_seconds(value);
  return *us > 0 ? NULL : "a number of seconds above 0";
}

static const char *take_db(void *ctx, const char *value) {
  reading *r = ctx;
  r->options->db = (int)egi_parse_count(value, DBS_MAX);
  return r->options->db >= 0 ? NULL : "the number of a database, 0 or more";
}

static const char *take_timeout(void *ctx, const char *value) {
  reading *r = ctx;
  return take_seconds(&r->options->timeout_us, value);
}

static const char *take_lease(void *ctx, const char *value) {
  reading *r = ctx;
  int64_t us;
  const char *wants = take_seconds(&us, value);
  r->options->lease_ms = (us + 999) / 1000;
  return wants;
}

static const char *take_connections(void *ctx, const char *value) {
  reading *r = ctx;
  long count = egi_parse_count(value, CONNECTIONS_MAX);
  r->options->connections = (unsigned)count;
  return count >= 1 ? NULL : "a number of connections from 1 to 1024";
}

static const char *take_replicas(void *ctx, const char *value) {
  reading *r = ctx;
  long count = egi_parse_count(value, 1000);
  r->options->replicas = (unsigned)count;
  return count >= 0 ? NULL : "a number of replicas, 0 or more";
}

static const char *take_replicas_timeout(void *ctx, const char *value) {
  reading *r = ctx;
  return take_seconds(&r->options->replicas_us, value);
}

static const char *take_password_file(void *ctx, const char *value) {
  reading *r = ctx;
  size_t len = strlen(value);
  if (len == 0 || len >= sizeof r->file)
    return "the path of a file";
  memcpy(r->file, value, len + 1);
  return NULL;
}

static const egi_parameter parameters[] = {
    {"timeout", take_timeout},
    {"lease", take_lease},
    {"db", take_db},
    {"connections", take_connections},
    {"minReplicas", take_replicas},
    {"minReplicasTimeout", take_replicas_timeout},
    {"passwordFile", take_password_file},
    {NULL, NULL},
};

/* The database behind the hosts. */
static eg_status read_path(egi_redis_options *options, eg_error *error) {
  const char *path = options->address.path;
  if (path == NULL)
    return EG_OK;
  options->db = (int)egi_parse_count(path, DBS_MAX);
  if (options->db >= 0)
    return EG_OK;
  return egi_remote_fail(error, EG_INVALID, 0,
                         "the path of a redis URL is the number of a "
                         "database, like redis://host/0");
}

static eg_status copy_secret(const char *text, const eg_env *env,
                             egi_redis_options *options, eg_error *error) {
  enum { ROOM = 4096 }; /* as egi_secret_free has it */
  size_t len = strlen(text);
  if (len >= ROOM)
    return egi_remote_fail(error, EG_INVALID, 0,
                           "REDISCLI_AUTH is longer than a password may be");
  options->password = env->alloc(env->alloc_ud, NULL, 0, ROOM);
  if (options->password == NULL)
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  memcpy(options->password, text, len + 1);
  return EG_OK;
}

static eg_status find_password(const reading *r, const eg_env *env,
                               eg_error *error) {
  egi_redis_options *options = r->options;
  if (options->address.password != NULL)
    return EG_OK;
  if (r->file[0] != '\0')
    return egi_secret_file(r->file, env, &options->password, error);
  const char *given = secure_getenv("REDISCLI_AUTH");
  if (given == NULL || *given == '\0')
    return EG_OK;
  return copy_secret(given, env, options, error);
}

eg_status egi_redis_options_read(const egi_url *url, const eg_env *env,
                                 egi_redis_options *options, eg_error *error) {
  reading r = {.options = options};
  memset(options, 0, sizeof *options);
  if (strcmp(url->scheme, "rediss") == 0)
    return egi_remote_fail(error, EG_UNSUPPORTED, 0,
                           "rediss:// wants TLS, which this build does not "
                           "have (hiredis 0.14 has none); use redis+unix:// "
                           "or redis:// through a tunnel such as stunnel");
  options->timeout_us = 3000000;
  options->replicas_us = 1000000;
  options->lease_ms = EGI_LEASE_MS;
  options->connections = 8;
  bool socket = strcmp(url->scheme, "redis+unix") == 0;
  eg_status status = egi_address_read(url, socket, DEFAULT_PORT, env,
                                      &options->address, error);
  if (status == EG_OK)
    status = read_path(options, error);
  if (status == EG_OK)
    status = egi_parameters_read(url, parameters, &r, env, error);
  if (status == EG_OK)
    status = find_password(&r, env, error);
  if (status != EG_OK)
    egi_redis_options_free(options, env);
  return status;
}

void egi_redis_options_free(egi_redis_options *options, const eg_env *env) {
  egi_address_free(&options->address, env);
  egi_secret_free(options->password, env);
  options->password = NULL;
}

const char *egi_redis_password(const egi_redis_options *options) {
  return options->address.password != NULL ? options->address.password
                                           : options->password;
}

static bool same(const char *a, const char *b) {
  return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool egi_redis_options_alike(const egi_redis_options *a,
                             const egi_redis_options *b) {
  return egi_address_alike(&a->address, &b->address) &&
         same(egi_redis_password(a), egi_redis_password(b)) &&
         a->db == b->db && a->timeout_us == b->timeout_us &&
         a->connections == b->connections;
}
