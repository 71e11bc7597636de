/* SPDX-License-Identifier: MIT
** What the URL of a PostgreSQL database says.
**
**   postgresql://[user[:password]@][host[:port],...][/db][?parameter=value...]
**
** All but the parameters below is libpq's, which also finds passwords in
** PGPASSWORD and in the file of PGPASSFILE.
*/
#include "store/postgres.h"

#include <stdio.h>
#include <string.h>

enum { CONNECTIONS_MAX = 1024, URL_MAX = 8192 };

static const char *take_timeout(void *ctx, const char *value) {
  egi_pg_options *options = ctx;
  options->timeout_us = egi_parse_seconds(value);
  return options->timeout_us > 0 ? NULL : "a number of seconds above 0";
}

static const char *take_lease(void *ctx, const char *value) {
  egi_pg_options *options = ctx;
  int64_t us = egi_parse_seconds(value);
  options->lease_ms = (us + 999) / 1000;
  return us > 0 ? NULL : "a number of seconds above 0";
}

static const char *take_connections(void *ctx, const char *value) {
  egi_pg_options *options = ctx;
  long count = egi_parse_count(value, CONNECTIONS_MAX);
  options->connections = (unsigned)count;
  return count >= 1 ? NULL : "a number of connections from 1 to 1024";
}

/* Kept as it stands; the value is decoded. */
static const char *take_listen(void *ctx, const char *value) {
  egi_pg_options *options = ctx;
  size_t len = strlen(value);
  if (len >= options->listen_size ||
      (strncmp(value, "postgres://", 11) != 0 &&
       strncmp(value, "postgresql://", 13) != 0))
    return "a URL that begins with postgresql://";
  memcpy(options->listen, value, len + 1);
  return NULL;
}

static const egi_parameter parameters[] = {
    {"timeout", take_timeout},
    {"lease", take_lease},
    {"connections", take_connections},
    {"listen", take_listen},
    {NULL, NULL},
};

static bool is_ours(const char *text, size_t len) {
  for (const egi_parameter *p = parameters; p->name != NULL; p++)
    if (strlen(p->name) <= len &&
        strncmp(p->name, text, strlen(p->name)) == 0 &&
        (text[strlen(p->name)] == '=' || strlen(p->name) == len))
      return true;
  return false;
}

/* Parts the query: what is libpq's goes behind its URL, the rest to ours. */
static void part(const char *query, char *theirs, char *ours) {
  char sign = '?';
  size_t at = strlen(theirs);
  *ours = '\0';
  for (const char *text = query; text != NULL && *text != '\0';) {
    size_t len = strcspn(text, "&");
    if (is_ours(text, len)) {
      if (*ours != '\0')
        strcat(ours, "&");
      strncat(ours, text, len);
    } else if (len > 0) {
      theirs[at++] = sign;
      memcpy(theirs + at, text, len);
      at += len;
      theirs[at] = '\0';
      sign = '&';
    }
    text += len + (text[len] == '&' ? 1 : 0);
  }
}

static char *take_memory(const eg_env *env, size_t size) {
  char *text = env->alloc(env->alloc_ud, NULL, 0, size);
  if (text != NULL)
    *text = '\0';
  return text;
}

/* libpq's own words may show parts of a URL that is none, and so a password:
** only those on an unknown parameter are passed on. */
static eg_status check(const char *url, eg_error *error) {
  char *why = NULL;
  PQconninfoOption *parts = PQconninfoParse(url, &why);
  eg_status status = EG_OK;
  if (parts == NULL && why == NULL)
    status = egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  else if (parts == NULL)
    status = egi_remote_fail(
        error, EG_INVALID, 0,
        "the store URL is not one that PostgreSQL's library takes%s%.80s",
        strstr(why, "query parameter") != NULL ? ": " : "",
        strstr(why, "query parameter") != NULL ? why : "");
  PQconninfoFree(parts);
  PQfreemem(why);
  return status;
}

static eg_status read_url(const egi_url *url, const eg_env *env,
                          egi_pg_options *options, eg_error *error) {
  size_t rest = strcspn(url->rest, "?");
  size_t size = strlen(url->rest) + 16;
  if (strncmp(url->rest, "//", 2) != 0 || size > URL_MAX)
    return egi_remote_fail(error, EG_INVALID, 0,
                           "a store URL of this kind looks like "
                           "postgresql://user@host/db");
  char *ours = take_memory(env, size);
  options->url = take_memory(env, size);
  options->url_size = options->listen_size = size;
  options->listen = take_memory(env, size);
  eg_status status = EG_OK;
  if (ours == NULL || options->url == NULL || options->listen == NULL) {
    status = egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  } else {
    int n = snprintf(options->url, size, "postgresql:%.*s", (int)rest,
                     url->rest);
    (void)n;
    part(url->query, options->url, ours);
    const egi_url own = {.query = ours};
    status = egi_parameters_read(&own, parameters, options, env, error);
    if (status == EG_OK)
      status = check(options->url, error);
    if (status == EG_OK && *options->listen != '\0')
      status = check(options->listen, error);
  }
  if (ours != NULL) {
    egi_wipe(ours, size);
    env->alloc(env->alloc_ud, ours, size, 0);
  }
  return status;
}

eg_status egi_pg_options_read(const egi_url *url, const eg_env *env,
                              egi_pg_options *options, eg_error *error) {
  memset(options, 0, sizeof *options);
  options->timeout_us = 3000000;
  options->lease_ms = EGI_LEASE_MS;
  options->connections = 8;
  eg_status status = read_url(url, env, options, error);
  if (status != EG_OK)
    egi_pg_options_free(options, env);
  return status;
}

static void forget(char *text, size_t size, const eg_env *env) {
  if (text == NULL)
    return;
  egi_wipe(text, size);
  env->alloc(env->alloc_ud, text, size, 0);
}

void egi_pg_options_free(egi_pg_options *options, const eg_env *env) {
  forget(options->url, options->url_size, env);
  forget(options->listen, options->listen_size, env);
  options->url = options->listen = NULL;
}

bool egi_pg_options_copy(egi_pg_options *to, const egi_pg_options *from,
                         const eg_env *env) {
  *to = *from;
  to->url = take_memory(env, from->url_size);
  to->listen = take_memory(env, from->listen_size);
  if (to->url == NULL || to->listen == NULL)
    return false;
  memcpy(to->url, from->url, strlen(from->url) + 1);
  memcpy(to->listen, from->listen, strlen(from->listen) + 1);
  return true;
}

bool egi_pg_options_alike(const egi_pg_options *a, const egi_pg_options *b) {
  return strcmp(a->url, b->url) == 0 && strcmp(a->listen, b->listen) == 0 &&
         a->timeout_us == b->timeout_us && a->connections == b->connections;
}
