/* SPDX-License-Identifier: MIT
** Where a remote store is, who comes, and what is to be kept quiet.
*/
#include "store/remote.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------ decoding -- */

static int hex(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* %XX in place.  False: no hexadecimal digits there, or a zero byte. */
static bool decode(char *text) {
  char *to = text;
  for (const char *from = text; *from != '\0'; from++, to++) {
    *to = *from;
    if (*from != '%')
      continue;
    int high = hex(from[1]), low = high >= 0 ? hex(from[2]) : -1;
    if (low < 0 || high + low == 0)
      return false;
    *to = (char)(high * 16 + low);
    from += 2;
  }
  *to = '\0';
  return true;
}

static eg_status bad_escape(eg_error *error, const char *where) {
  return egi_remote_fail(error, EG_INVALID, 0,
                         "the store URL has a %% in its %s that is not "
                         "followed by two hexadecimal digits (write %%25)",
                         where);
}

/* --------------------------------------------------------------- parts -- */

static eg_status read_user(egi_address *address, char *text, eg_error *error) {
  char *colon = strchr(text, ':');
  if (colon != NULL) {
    *colon = '\0';
    address->password = colon + 1;
    if (!decode(colon + 1))
      return bad_escape(error, "password");
    if (colon[1] == '\0')
      address->password = NULL;
  }
  if (!decode(text))
    return bad_escape(error, "user");
  address->user = *text != '\0' ? text : NULL;
  return EG_OK;
}

static eg_status read_host(egi_address *address, char *text, int default_port,
                           eg_error *error) {
  char *port = strrchr(text, ':');
  int number = default_port;
  if (*text == '[') { /* IPv6 */
    char *close = strchr(text, ']');
    if (close == NULL || (close[1] != '\0' && close[1] != ':'))
      return egi_remote_fail(error, EG_INVALID, 0,
                             "the host \"%.60s\" of the store URL lacks "
                             "its ]",
                             text);
    port = close[1] == ':' ? close + 1 : NULL;
    *close = '\0';
    text++;
  }
  if (port != NULL) {
    *port = '\0';
    number = (int)egi_parse_count(port + 1, 65535);
    if (number <= 0)
      return egi_remote_fail(error, EG_INVALID, 0,
                             "the port of host \"%.60s\" in the store URL is "
                             "not a number from 1 to 65535",
                             text);
  }
  if (address->n == EGI_HOSTS_MAX)
    return egi_remote_fail(error, EG_INVALID, 0,
                           "the store URL names more than %d hosts",
                           EGI_HOSTS_MAX);
  egi_host *host = &address->hosts[address->n++];
  host->name = *text != '\0' ? text : "localhost";
  host->port = number;
  return EG_OK;
}

static eg_status read_hosts(egi_address *address, char *text, int default_port,
                            eg_error *error) {
  char *slash = strchr(text, '/');
  eg_status status = EG_OK;
  if (slash != NULL) {
    *slash = '\0';
    address->path = slash[1] != '\0' ? slash + 1 : NULL;
    if (!decode(slash + 1))
      return bad_escape(error, "path");
  }
  for (char *next = text; status == EG_OK && next != NULL; text = next) {
    next = strchr(text, ',');
    if (next != NULL)
      *next++ = '\0';
    status = read_host(address, text, default_port, error);
  }
  return status;
}

static eg_status read_socket(egi_address *address, char *text,
                             eg_error *error) {
  if (*text != '/')
    return egi_remote_fail(error, EG_INVALID, 0,
                           "the store URL has to name the absolute path of a "
                           "socket, like //%s/run/server.sock",
                           "");
  if (!decode(text))
    return bad_escape(error, "path");
  address->hosts[0] = (egi_host){text, 0};
  address->n = 1;
  return EG_OK;
}

static eg_status read_parts(egi_address *address, bool socket,
                            int default_port, eg_error *error) {
  char *text = address->text + 2, *query = strchr(text, '?');
  if (query != NULL)
    *query = '\0';
  /* A password that was not encoded may hold a slash or another @. */
  char *at = strrchr(text, '@');
  if (at != NULL) {
    *at = '\0';
    eg_status status = read_user(address, text, error);
    if (status != EG_OK)
      return status;
    text = at + 1;
  }
  return socket ? read_socket(address, text, error)
                : read_hosts(address, text, default_port, error);
}

eg_status egi_address_read(const egi_url *url, bool socket, int default_port,
                           const eg_env *env, egi_address *address,
                           eg_error *error) {
  memset(address, 0, sizeof *address);
  if (strncmp(url->rest, "//", 2) != 0)
    return egi_remote_fail(error, EG_INVALID, 0,
                           "a store URL of this kind looks like %s://%s",
                           url->scheme, socket ? "/path/socket" : "host");
  address->size = strlen(url->rest) + 1;
  address->text = env->alloc(env->alloc_ud, NULL, 0, address->size);
  if (address->text == NULL)
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  memcpy(address->text, url->rest, address->size);
  eg_status status = read_parts(address, socket, default_port, error);
  if (status != EG_OK)
    egi_address_free(address, env);
  return status;
}

static bool same(const char *a, const char *b) {
  return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* What points into one text, as it points into its copy. */
static const char *moved(const egi_address *from, const egi_address *to,
                         const char *text) {
  bool inside = text != NULL && text >= from->text &&
                text < from->text + from->size;
  return inside ? to->text + (text - from->text) : text;
}

bool egi_address_copy(egi_address *to, const egi_address *from,
                      const eg_env *env) {
  *to = *from;
  to->text = env->alloc(env->alloc_ud, NULL, 0, from->size);
  if (to->text == NULL)
    return false;
  memcpy(to->text, from->text, from->size);
  for (size_t i = 0; i < to->n; i++)
    to->hosts[i].name = moved(from, to, from->hosts[i].name);
  to->user = moved(from, to, from->user);
  to->password = moved(from, to, from->password);
  to->path = moved(from, to, from->path);
  return true;
}

bool egi_address_alike(const egi_address *a, const egi_address *b) {
  bool alike = a->n == b->n && same(a->user, b->user);
  for (size_t i = 0; alike && i < a->n; i++)
    alike = a->hosts[i].port == b->hosts[i].port &&
            strcmp(a->hosts[i].name, b->hosts[i].name) == 0;
  return alike;
}

void egi_address_free(egi_address *address, const eg_env *env) {
  if (address->text == NULL)
    return;
  egi_wipe(address->text, address->size);
  env->alloc(env->alloc_ud, address->text, address->size, 0);
  address->text = NULL;
}

/* ---------------------------------------------------------- parameters -- */

static eg_status take_parameter(char *text, const egi_parameter *list,
                                void *ctx, eg_error *error) {
  char *value = strchr(text, '=');
  if (value != NULL)
    *value++ = '\0';
  const egi_parameter *p = list;
  while (p->name != NULL && strcmp(p->name, text) != 0)
    p++;
  if (p->name == NULL)
    return egi_remote_fail(error, EG_INVALID, 0,
                           "the store URL has an unknown parameter "
                           "\"%.40s\"; the first known one is \"%s\"",
                           text, list->name);
  if (value == NULL || !decode(value))
    return bad_escape(error, p->name);
  const char *wants = p->take(ctx, value);
  if (wants == NULL)
    return EG_OK;
  return egi_remote_fail(error, EG_INVALID, 0,
                         "the parameter \"%s\" of the store URL has to be %s",
                         p->name, wants);
}

eg_status egi_parameters_read(const egi_url *url, const egi_parameter *list,
                              void *ctx, const eg_env *env, eg_error *error) {
  if (url->query == NULL || *url->query == '\0')
    return EG_OK;
  size_t size = strlen(url->query) + 1;
  char *copy = env->alloc(env->alloc_ud, NULL, 0, size);
  if (copy == NULL)
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  memcpy(copy, url->query, size);
  eg_status status = EG_OK;
  char *text = copy;
  for (char *next; status == EG_OK && text != NULL; text = next) {
    next = strchr(text, '&');
    if (next != NULL)
      *next++ = '\0';
    status = take_parameter(text, list, ctx, error);
  }
  egi_wipe(copy, size);
  env->alloc(env->alloc_ud, copy, size, 0);
  return status;
}

int64_t egi_parse_seconds(const char *text) {
  char *end;
  double seconds = strtod(text, &end);
  bool good = end != text && *end == '\0' && isfinite(seconds) &&
              seconds >= 0 && seconds < 1e9;
  return good ? (int64_t)(seconds * 1e6) : -1;
}

long egi_parse_count(const char *text, long most) {
  char *end;
  if (*text < '0' || *text > '9')
    return -1;
  errno = 0;
  long count = strtol(text, &end, 10);
  return *end == '\0' && errno == 0 && count <= most ? count : -1;
}

/* ------------------------------------------------------------- secrets -- */

enum { SECRET_MAX = 4096 };

eg_status egi_secret_file(const char *path, const eg_env *env, char **secret,
                          eg_error *error) {
  char line[SECRET_MAX];
  *secret = NULL;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd >= 0 ? read(fd, line, sizeof line - 1) : -1;
  int why = errno;
  if (fd >= 0)
    close(fd);
  if (n < 0)
    return egi_remote_fail(error, EG_DENIED, why,
                           "the file of the password, %.120s, cannot be read",
                           path);
  line[n] = '\0';
  size_t len = strcspn(line, "\r\n");
  line[len] = '\0';
  *secret = env->alloc(env->alloc_ud, NULL, 0, SECRET_MAX);
  if (*secret != NULL)
    memcpy(*secret, line, len + 1);
  egi_wipe(line, sizeof line);
  return *secret != NULL
             ? EG_OK
             : egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
}

void egi_secret_free(char *secret, const eg_env *env) {
  if (secret == NULL)
    return;
  egi_wipe(secret, SECRET_MAX);
  env->alloc(env->alloc_ud, secret, SECRET_MAX, 0);
}
