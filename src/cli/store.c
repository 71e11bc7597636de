/* SPDX-License-Identifier: MIT
** Which store: --store, else EXECUTIONGUARD_STORE, else where this user's
** state is kept.  Never the current directory unasked.
*/
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char own_url[4200];

static const char *own_store(void) {
  const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
  if (geteuid() == 0)
    return "file:/var/lib/executionguard";
  int n = -1;
  /* a relative path there is invalid, says the XDG specification */
  if (state != NULL && *state == '/')
    n = snprintf(own_url, sizeof own_url, "file:%s/executionguard", state);
  else if (home != NULL && *home == '/')
    n = snprintf(own_url, sizeof own_url,
                 "file:%s/.local/state/executionguard", home);
  if (n > 0 && n < (int)sizeof own_url)
    return own_url;
  ec_error("no store: HOME is not set; say --store=file:DIR, or set "
           "EXECUTIONGUARD_STORE");
  return NULL;
}

char **ec_words;

void ec_become(const char *name) {
  static const char place[] = "/lib/executionguard/";
  char path[4200];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 64);
  for (int i = 0; i < 2 && n > 0; i++) /* .../bin/eguard */
    while (n > 0 && path[--n] != '/')
      ;
  if (n < 0)
    return;
  snprintf(path + n, sizeof path - (size_t)n, "%s%s", place, name);
  execv(path, ec_words);
}

/* This program is linked statically, where it can be: it starts in half the
** time, and can load no store that is an object of its own.  For those there
** is a twin that can. */
static void become_twin(const char *url) {
  if (strncmp(url, "file:", 5) != 0 && strncmp(url, "memory", 6) != 0)
    ec_become("eguard");
}

const char *ec_store_url(const ec_options *options) {
  const char *set = getenv("EXECUTIONGUARD_STORE"), *url = options->store;
  if (url == NULL && set != NULL && *set != '\0')
    url = set;
  if (url == NULL)
    return own_store();
  become_twin(url);
  return url;
}

bool ec_file_dir(const char *url, char *dir, size_t size) {
  dir[0] = '\0';
  if (strncmp(url, "file:", 5) == 0)
    snprintf(dir, size, "%.*s", (int)strcspn(url + 5, "?"), url + 5);
  return dir[0] != '\0';
}

eg_guard *ec_open(const ec_options *options, int *exit_status) {
  eg_guard *guard;
  eg_error error = {0};
  const char *url = ec_store_url(options);
  *exit_status = EC_FAILURE;
  if (url == NULL)
    return NULL;
  eg_options how = {.store = url, .name = options->name};
  eg_status status = eg_open(&how, &guard, &error);
  if (status == EG_OK)
    return guard;
  *exit_status = ec_failed("cannot open the store", status, &error);
  return NULL;
}

/* ---------------------------------------------- what others may see of it */

static bool add(char *text, size_t size, size_t *at, const char *from,
                size_t n) {
  if (*at + n >= size)
    return false;
  memcpy(text + *at, from, n);
  *at += n;
  text[*at] = '\0';
  return true;
}

/* user:password@host -> user@host; returns what follows the password. */
static const char *skip_password(const char *rest, const char **until) {
  size_t n = strcspn(rest, "/?");
  const char *at = NULL, *colon = memchr(rest, ':', n);
  for (size_t i = 0; i < n; i++)
    if (rest[i] == '@')
      at = rest + i;
  if (at == NULL || colon == NULL || colon > at)
    return NULL;
  *until = colon;
  return at;
}

static bool is_secret(const char *parameter, size_t n) {
  static const char *const words[] = {"password", "passwd", "pass",
                                      "token",    "secret", "auth"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (strlen(words[i]) == n && strncmp(words[i], parameter, n) == 0)
      return true;
  return false;
}

/* The parameters, without those that are secret. */
static bool add_query(char *text, size_t size, size_t *at, const char *query) {
  char before = '?';
  while (*query != '\0') {
    size_t n = strcspn(query, "&");
    if (n > 0 && !is_secret(query, strcspn(query, "=&"))) {
      if (!add(text, size, at, &before, 1) || !add(text, size, at, query, n))
        return false;
      before = '&';
    }
    query += n + (query[n] == '&');
  }
  return true;
}

/* file:dir -> file:/here/dir: the command may go elsewhere. */
static bool add_here(char *text, size_t size, size_t *at, const char *rest) {
  char here[4096];
  if (rest[0] == '/' || strspn(rest, "?") > 0 || rest[0] == '\0')
    return true;
  if (strncmp(rest, "./", 2) == 0 && rest[2] == '\0')
    return true;
  return getcwd(here, sizeof here) != NULL &&
         add(text, size, at, here, strlen(here)) &&
         add(text, size, at, "/", 1);
}

char *ec_public_url(const char *url, char *text, size_t size) {
  size_t at = 0;
  const char *colon = strchr(url, ':');
  const char *rest = colon != NULL ? colon + 1 : url, *until;
  if (!add(text, size, &at, url, (size_t)(rest - url)))
    return NULL;
  if (strncmp(url, "file:", 5) == 0 && !add_here(text, size, &at, rest))
    return NULL;
  if (strncmp(rest, "//", 2) == 0 && strncmp(url, "file:", 5) != 0) {
    const char *host = skip_password(rest + 2, &until);
    if (host != NULL && !add(text, size, &at, rest, (size_t)(until - rest)))
      return NULL;
    rest = host != NULL ? host : rest;
  }
  size_t n = strcspn(rest, "?");
  if (!add(text, size, &at, rest, n))
    return NULL;
  return rest[n] != '?' || add_query(text, size, &at, rest + n + 1) ? text
                                                                    : NULL;
}
