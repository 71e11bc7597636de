/* SPDX-License-Identifier: MIT
** What people are told, and how: lines on standard error; colours and columns
** only where there is a terminal.
*/
#include "cli/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool quiet, verbose;

void ec_say_setup(const ec_options *options) {
  quiet = options->quiet;
  verbose = options->verbose;
}

/* One write: lines of several processes do not mix. */
static void say(const char *format, va_list args) {
  char line[1400];
  int n = snprintf(line, sizeof line, "eguard: ");
  n += vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
  if (n > (int)sizeof line - 2)
    n = (int)sizeof line - 2;
  line[n++] = '\n';
  ec_write_all(STDERR_FILENO, line, (size_t)n);
}

void ec_error(const char *format, ...) {
  va_list args;
  va_start(args, format);
  say(format, args);
  va_end(args);
}

void ec_note(const char *format, ...) {
  va_list args;
  va_start(args, format);
  if (!quiet)
    say(format, args);
  va_end(args);
}

void ec_detail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  if (verbose)
    say(format, args);
  va_end(args);
}

int ec_failed(const char *doing, eg_status status, const eg_error *error) {
  bool told = EG_IS_FAILURE(status) && error->message[0] != '\0';
  ec_error("%s: %s", doing, told ? error->message : eg_status_text(status));
  if (status == EG_INVALID)
    return EC_USAGE;
  return EG_IS_FAILURE(status) ? EC_FAILURE : eg_status_exit(status);
}

bool ec_terminal(void) { return isatty(STDOUT_FILENO) == 1; }

bool ec_colours(void) {
  const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
  return (no == NULL || *no == '\0') && term != NULL &&
         strcmp(term, "dumb") != 0 && ec_terminal();
}

const char *ec_colour_of(eg_run status) {
  static const char *const colours[EG_RUN_COUNT] = {
      [EG_RUN_IDLE] = "",
      [EG_RUN_RUNNING] = "\033[36m",
      [EG_RUN_COMPLETED] = "\033[32m",
      [EG_RUN_TIMEDOUT] = "\033[33m",
      [EG_RUN_FAILED] = "\033[31m",
  };
  return ec_colours() ? colours[status] : "";
}

const char *ec_colour_end(void) { return ec_colours() ? "\033[0m" : ""; }
