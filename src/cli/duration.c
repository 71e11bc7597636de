/* SPDX-License-Identifier: MIT
** Durations and points in time, as people write and read them.
*/
#include "cli/cli.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

static const struct unit {
  const char *name;
  int64_t us;
} units[] = {
    {"w", INT64_C(604800000000)},
    {"d", INT64_C(86400000000)},
    {"h", INT64_C(3600000000)},
    {"m", 60000000},
    {"s", 1000000},
    {"ms", 1000},
};
enum { UNITS = sizeof units / sizeof *units, SECONDS = 4 };

/* A hundred years: more is a slip of the finger. */
#define MOST_MS INT64_C(3155760000000)

static bool digit(char c) { return c >= '0' && c <= '9'; }

/* "12", "1.5": thousandths of it.  Returns what follows, or NULL. */
static const char *read_number(const char *at, int64_t *thousandths) {
  if (!digit(*at))
    return NULL;
  int64_t n = 0, scale = 1000;
  bool more = false; /* behind the thousandths */
  for (; digit(*at); at++) {
    n = n * 10 + (*at - '0');
    if (n > MOST_MS)
      return NULL;
  }
  n *= 1000;
  if (*at == '.') {
    if (!digit(*++at))
      return NULL;
    for (; digit(*at); at++) {
      n += (*at - '0') * (scale /= 10);
      more = more || (scale == 0 && *at != '0');
    }
  }
  *thousandths = n + more;
  return at;
}

/* The unit at the start of the text: only one that is smaller than the last,
** so that a slip (5m5m) is no duration. */
static int read_unit(const char *at, int last, size_t *length) {
  *length = strspn(at, "abcdefghijklmnopqrstuvwxyz");
  for (int i = last + 1; i < UNITS; i++)
    if (strlen(units[i].name) == *length &&
        strncmp(units[i].name, at, *length) == 0)
      return i;
  return -1;
}

bool ec_parse_duration(const char *text, int64_t *ms) {
  int64_t total_ms = 0, thousandths;
  int unit = -1;
  size_t length;
  const char *at = text;
  do {
    at = read_number(at, &thousandths);
    if (at == NULL)
      return false;
    if (*at == '\0' && unit == -1) /* a bare number is seconds */
      unit = SECONDS, length = 0;
    else
      unit = read_unit(at, unit, &length);
    if (unit < 0)
      return false;
    int64_t unit_ms = units[unit].us / 1000;
    if (thousandths / 1000 > MOST_MS / unit_ms)
      return false;
    /* rounded up: no wait is shorter than was asked for */
    total_ms += thousandths / 1000 * unit_ms +
                (thousandths % 1000 * unit_ms + 999) / 1000;
    at += length;
  } while (*at != '\0');
  *ms = total_ms;
  return total_ms <= MOST_MS;
}

char *ec_format_rfc3339(int64_t epoch_us, char text[EC_DURATION_TEXT]) {
  time_t seconds = (time_t)(epoch_us / 1000000);
  struct tm tm;
  char day[EC_DURATION_TEXT];
  if (epoch_us <= 0 || gmtime_r(&seconds, &tm) == NULL ||
      strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
    memcpy(text, "-", 2);
  else
    snprintf(text, EC_DURATION_TEXT, "%.19s.%03dZ", day,
             (int)(epoch_us % 1000000 / 1000));
  return text;
}

char *ec_format_local(int64_t epoch_us, char text[EC_DURATION_TEXT]) {
  time_t seconds = (time_t)(epoch_us / 1000000);
  struct tm tm;
  if (epoch_us <= 0 || localtime_r(&seconds, &tm) == NULL ||
      strftime(text, EC_DURATION_TEXT, "%Y-%m-%d %H:%M:%S", &tm) == 0)
    memcpy(text, "-", 2);
  return text;
}

char *ec_format_when(int64_t epoch_us, char text[EC_DURATION_TEXT]) {
  return ec_terminal() ? ec_format_local(epoch_us, text)
                       : ec_format_rfc3339(epoch_us, text);
}

char *ec_format_took(int64_t us, char text[EC_DURATION_TEXT]) {
  if (us <= 0)
    memcpy(text, "-", 2);
  else if (ec_terminal())
    eg_format_duration(us, text);
  else
    snprintf(text, EC_DURATION_TEXT, "%" PRId64 ".%06" PRId64, us / 1000000,
             us % 1000000);
  return text;
}
