/* SPDX-License-Identifier: MIT
** What the URL of an etcd cluster says.
**
**   etcd://[user[:password]@]host[:port][,host...][?parameter=value...]
**   etcds://...           the same, over TLS
**
** A password comes from the URL, else from the file of passwordFile=.
*/
#include "store/etcd.h"

#include <stdio.h>

enum { DEFAULT_PORT = 2379, CONNECTIONS_MAX = 1024 };

/* What the parameters say, while they are read. */
typedef struct reading {
  egi_etcd_options *options;
  char file[512]; /* of the password */
} reading;

static const char *take_timeout(void *ctx, const char *value) {
  reading *r = ctx;
  r->options->timeout_us = egi_parse_seconds(value);
  return r->options->timeout_us > 0 ? NULL : "a number of seconds above 0";
}

static const char *take_lease(void *ctx, const char *value) {
  reading *r = ctx;
  long seconds = egi_parse_count(value, 1000000000);
  r->options->lease_ms = seconds * INT64_C(1000);
  return seconds >= EGI_ETCD_LEASE_LEAST
             ? NULL
             : "a whole number of seconds, at least 2";
}

static const char *take_connections(void *ctx, const char *value) {
  reading *r = ctx;
  long count = egi_parse_count(value, CONNECTIONS_MAX);
  r->options->connections = (unsigned)count;
  return count >= 1 ? NULL : "a number of connections from 1 to 1024";
}

static const char *take_path(char *path, size_t size, const char *value) {
  if (*value == '\0' || strlen(value) >= size)
    return "the path of a file";
  snprintf(path, size, "%s", value);
  return NULL;
}

static const char *take_ca(void *ctx, const char *value) {
  egi_etcd_options *options = ((reading *)ctx)->options;
  return take_path(options->ca, sizeof options->ca, value);
}

static const char *take_cert(void *ctx, const char *value) {
  egi_etcd_options *options = ((reading *)ctx)->options;
  return take_path(options->cert, sizeof options->cert, value);
}

static const char *take_key(void *ctx, const char *value) {
  egi_etcd_options *options = ((reading *)ctx)->options;
  return take_path(options->key, sizeof options->key, value);
}

static const char *take_password_file(void *ctx, const char *value) {
  reading *r = ctx;
  return take_path(r->file, sizeof r->file, value);
}

static const egi_parameter parameters[] = {
    {"timeout", take_timeout},
    {"lease", take_lease},
    {"connections", take_connections},
    {"cacert", take_ca},
    {"cert", take_cert},
    {"key", take_key},
    {"passwordFile", take_password_file},
    {NULL, NULL},
};

static eg_status check(const egi_etcd_options *options, eg_error *error) {
  bool files = *options->ca != '\0' || *options->cert != '\0' ||
               *options->key != '\0';
  if (options->address.path != NULL)
    return egi_remote_fail(error, EG_INVALID, 0,
                           "an etcd URL has no path: etcd://host:2379");
  if (files && !options->tls)
    return egi_remote_fail(error, EG_INVALID, 0,
                           "cacert, cert and key are for TLS: write etcds://");
  if ((*options->cert == '\0') != (*options->key == '\0'))
    return egi_remote_fail(error, EG_INVALID, 0,
                           "cert and key go together: a certificate of the "
                           "client and its key");
  if (options->address.user == NULL && egi_etcd_password(options) != NULL)
    return egi_remote_fail(error, EG_INVALID, 0,
                           "a password needs a user: etcd://user@host");
  return EG_OK;
}

eg_status egi_etcd_options_read(const egi_url *url, const eg_env *env,
                                egi_etcd_options *options, eg_error *error) {
  reading r = {.options = options};
  memset(options, 0, sizeof *options);
  options->timeout_us = 5000000;
  options->lease_ms = EGI_LEASE_MS;
  options->connections = 8;
  options->tls = strcmp(url->scheme, "etcds") == 0;
  eg_status status = egi_address_read(url, false, DEFAULT_PORT, env,
                                      &options->address, error);
  if (status == EG_OK)
    status = egi_parameters_read(url, parameters, &r, env, error);
  if (status == EG_OK && options->address.password == NULL &&
      r.file[0] != '\0')
    status = egi_secret_file(r.file, env, &options->password, error);
  if (status == EG_OK)
    status = check(options, error);
  if (status != EG_OK)
    egi_etcd_options_free(options, env);
  return status;
}

void egi_etcd_options_free(egi_etcd_options *options, const eg_env *env) {
  egi_address_free(&options->address, env);
  egi_secret_free(options->password, env);
  options->password = NULL;
}

const char *egi_etcd_password(const egi_etcd_options *options) {
  return options->address.password != NULL ? options->address.password
                                           : options->password;
}

bool egi_etcd_options_copy(egi_etcd_options *to, const egi_etcd_options *from,
                           const eg_env *env) {
  enum { ROOM = 4096 }; /* as egi_secret_free has it */
  *to = *from;
  to->password = NULL;
  if (!egi_address_copy(&to->address, &from->address, env))
    return false;
  if (from->password == NULL)
    return true;
  to->password = env->alloc(env->alloc_ud, NULL, 0, ROOM);
  if (to->password == NULL)
    return false;
  memcpy(to->password, from->password, strlen(from->password) + 1);
  return true;
}

static bool same(const char *a, const char *b) {
  return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool egi_etcd_options_alike(const egi_etcd_options *a,
                            const egi_etcd_options *b) {
  return egi_address_alike(&a->address, &b->address) && a->tls == b->tls &&
         same(egi_etcd_password(a), egi_etcd_password(b)) &&
         strcmp(a->ca, b->ca) == 0 && strcmp(a->cert, b->cert) == 0 &&
         strcmp(a->key, b->key) == 0 && a->timeout_us == b->timeout_us &&
         a->connections == b->connections;
}
