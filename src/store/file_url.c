/* SPDX-License-Identifier: MIT
** The URL of a file store: file:DIR[?sync=full&mode=0770&locks=.&history=N]
*/
#include "store/file.h"

#include <stdlib.h>
#include <string.h>

static bool is(const char *at, size_t n, const char *text) {
  return n == strlen(text) && strncmp(at, text, n) == 0;
}

static bool begins(const char *at, size_t n, const char *text) {
  return n > strlen(text) && strncmp(at, text, strlen(text)) == 0;
}

static eg_status parameter(const char *at, size_t n, egi_file_options *options,
                           eg_error *error) {
  char *end = NULL;
  if (is(at, n, "sync=full")) {
    options->full = true;
  } else if (is(at, n, "sync=normal") || is(at, n, "apply=no") || n == 0) {
    return EG_OK; /* apply is the guard's */
  } else if (is(at, n, "locks=.")) {
    options->only_locks = true;
  } else if (begins(at, n, "mode=")) {
    unsigned long mode = strtoul(at + 5, &end, 8);
    if (end != at + n || (mode & ~07770UL) != 0 || (mode & 0700) != 0700)
      return egi_file_fail(error, EG_INVALID, 0,
                           "store: mode=%.*s: write an octal mode such as "
                           "0700 or 0770; others never get any",
                           (int)(n - 5), at + 5);
    options->mode = (unsigned)mode;
  } else if (begins(at, n, "history=")) {
    options->history_rows = strtol(at + 8, &end, 10);
    if (end != at + n || options->history_rows < 0)
      return egi_file_fail(error, EG_INVALID, 0,
                           "store: history=%.*s: write how many ended runs "
                           "to keep; 0: none",
                           (int)(n - 8), at + 8);
  } else {
    return egi_file_fail(error, EG_INVALID, 0,
                         "store: file does not know the parameter \"%.*s\"; "
                         "it knows sync=full, mode=0770, locks=., history=N",
                         (int)(n < 40 ? n : 40), at);
  }
  return EG_OK;
}

eg_status egi_file_url(const egi_url *url, egi_file_options *options,
                       char *path, size_t size, eg_error *error) {
  size_t len = strcspn(url->rest, "?");
  *options = (egi_file_options){.mode = 0700, .history_rows = 10000};
  if (len == 0 || len >= size)
    return egi_file_fail(error, EG_INVALID, 0,
                         len == 0 ? "store: write file:DIR, with the folder "
                                    "that the guard's files are in"
                                  : "store: the path of the folder is too "
                                    "long");
  memcpy(path, url->rest, len);
  path[len] = '\0';
  if (path[0] == '~' && (len == 1 || path[1] == '/'))
    return egi_file_fail(error, EG_INVALID, 0,
                         "store: file:%.80s: only a shell knows what ~ "
                         "means, and only where a word begins with it; write "
                         "file:$HOME/... (or file:./~)",
                         path);
  for (const char *at = url->query; at != NULL && *at != '\0';) {
    size_t n = strcspn(at, "&");
    eg_status status = parameter(at, n, options, error);
    if (status != EG_OK)
      return status;
    at += n + (at[n] == '&' ? 1 : 0);
  }
  return EG_OK;
}
