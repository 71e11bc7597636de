/* SPDX-License-Identifier: MIT
** Store URLs: which store, and what it is told.
**
**   scheme[:rest][?parameter=value[&parameter=value...]]
*/
#include "guard/guard.h"

#include <stdio.h>
#include <string.h>

static size_t scheme_length(const char *text) {
  return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+.-");
}

/* "memory, file" */
static void list_schemes(char *list, size_t size) {
  size_t at = 0;
  list[0] = '\0';
  for (const char *const *s = eg_schemes(); *s != NULL && at < size; s++) {
    int n = snprintf(list + at, size - at, "%s%s", at > 0 ? ", " : "", *s);
    at += n > 0 ? (size_t)n : 0;
  }
}

/* A path, which has no password that could not be shown. */
static bool is_path(const char *text) {
  return *text == '/' || *text == '.' || *text == '~';
}

eg_status egi_url_parse(const char *text, egi_url *url, eg_error *error) {
  size_t n = scheme_length(text);
  memset(url, 0, sizeof *url);
  bool ends = text[n] == '\0' || text[n] == ':' || text[n] == '?';
  if (n > 0 && n < sizeof url->scheme && ends)
    memcpy(url->scheme, text, n);
  if (!egi_is_scheme(url->scheme)) {
    char list[128];
    if (is_path(text))
      return egi_fail(error, EG_INVALID,
                      "%.100s is no URL of a store; a folder is written "
                      "file:DIR",
                      text);
    list_schemes(list, sizeof list);
    /* Only the scheme is shown: what follows may hold a password. */
    return egi_fail(error, EG_INVALID,
                    "no store is known for the URL \"%.*s%s\"; "
                    "it begins with one of: %s",
                    (int)(n < 32 ? n : 32), text, text[n] != '\0' ? "..." : "",
                    list);
  }
  url->rest = text + n + (text[n] == ':' ? 1 : 0);
  const char *query = strchr(url->rest, '?');
  url->query = query != NULL ? query + 1 : NULL;
  return EG_OK;
}

bool egi_url_has(const egi_url *url, const char *parameter,
                 const char *value) {
  size_t p = strlen(parameter), v = strlen(value);
  for (const char *at = url->query; at != NULL && *at != '\0';) {
    size_t n = strcspn(at, "&");
    if (n == p + 1 + v && strncmp(at, parameter, p) == 0 && at[p] == '=' &&
        strncmp(at + p + 1, value, v) == 0)
      return true;
    at += n + (at[n] == '&' ? 1 : 0);
  }
  return false;
}
