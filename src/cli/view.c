/* SPDX-License-Identifier: MIT
** What standard output is like, for those who draw there.
*/
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* As in setlocale(3): the first of the three that is set, and not to nothing,
** decides. */
static bool is_utf8(void) {
  static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
  for (int i = 0; i < 3; i++) {
    const char *value = getenv(names[i]);
    if (value != NULL && *value != '\0')
      return strcasestr(value, "utf-8") != NULL ||
             strcasestr(value, "utf8") != NULL;
  }
  return false;
}

static int columns(void) {
  enum { LEAST = 20, MOST = 1000 };
  struct winsize size;
  const char *set = getenv("COLUMNS");
  int n = set != NULL ? atoi(set) : 0;
  if (n <= 0 && ec_terminal() && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
    n = size.ws_col;
  if (n <= 0)
    n = EG_VIEW_COLUMNS;
  return n < LEAST ? LEAST : n > MOST ? MOST : n;
}

void ec_view(const ec_options *options, eg_view *view) {
  view->columns = columns();
  view->ascii = options->ascii || !is_utf8();
  view->colours = ec_colours();
}
