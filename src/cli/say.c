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

/* The length of the UTF-8 character at the start, 0 when there is none, or one
** that a terminal takes for an order. */
static size_t character(const unsigned char *at, size_t left) {
  size_t n = at[0] < 0x80   ? 1
             : at[0] < 0xc2 ? 0
             : at[0] < 0xe0 ? 2
             : at[0] < 0xf0 ? 3
             : at[0] < 0xf5 ? 4
                            : 0;
  if (n == 1)
    return at[0] >= 0x20 && at[0] != 0x7f;
  if (n > left || (n == 2 && at[0] == 0xc2 && at[1] < 0xa0))
    return 0; /* C1 controls */
  eg_bytes bytes = {at, n};
  return n > 0 && ec_is_utf8(bytes) ? n : 0;
}

char *ec_printable(eg_bytes bytes, char *text, size_t size) {
  const unsigned char *data = bytes.data;
  size_t at = 0;
  for (size_t i = 0; i < bytes.len && at + 5 < size;) {
    size_t n = character(data + i, bytes.len - i);
    if (n == 0) {
      snprintf(text + at, size - at, "\\x%02x", data[i]);
      at += 4;
      i++;
    } else {
      memcpy(text + at, data + i, n);
      at += n;
      i += n;
    }
  }
  text[at] = '\0';
  return text;
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
