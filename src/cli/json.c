/* SPDX-License-Identifier: MIT
** Writing JSON, one line a document.
*/
#include "cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void ec_json_begin(ec_json *json, FILE *to) {
  *json = (ec_json){.to = to, .first = true};
}

/* The length of a well-formed UTF-8 character at the start, or 0. */
static size_t utf8_length(const unsigned char *at, size_t left) {
  static const struct {
    unsigned char from, to, second_from, second_to;
    size_t n;
  } rows[] = {{0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2},
              {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
              {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
              {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
              {0xf4, 0xf4, 0x80, 0x8f, 4}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    if (at[0] < rows[i].from || at[0] > rows[i].to)
      continue;
    size_t n = rows[i].n;
    if (n > left)
      return 0;
    if (n > 1 && (at[1] < rows[i].second_from || at[1] > rows[i].second_to))
      return 0;
    for (size_t k = 2; k < n; k++)
      if ((at[k] & 0xc0) != 0x80)
        return 0;
    return n;
  }
  return 0;
}

bool ec_is_utf8(eg_bytes bytes) {
  const unsigned char *at = bytes.data;
  for (size_t i = 0, n; i < bytes.len; i += n) {
    n = utf8_length(at + i, bytes.len - i);
    if (n == 0)
      return false;
  }
  return true;
}

static void quote(ec_json *json, eg_bytes bytes) {
  const unsigned char *at = bytes.data;
  putc('"', json->to);
  for (size_t i = 0, n; i < bytes.len; i += n) {
    n = utf8_length(at + i, bytes.len - i);
    if (n == 0) {
      fputs("\\ufffd", json->to);
      n = 1;
    } else if (at[i] == '"' || at[i] == '\\') {
      fprintf(json->to, "\\%c", at[i]);
    } else if (at[i] == '\n') {
      fputs("\\n", json->to);
    } else if (at[i] < 0x20 || at[i] == 0x7f) {
      fprintf(json->to, "\\u%04x", at[i]);
    } else {
      fwrite(at + i, 1, n, json->to);
    }
  }
  putc('"', json->to);
}

void ec_json_name(ec_json *json, eg_bytes name) {
  if (!json->first)
    putc(',', json->to);
  quote(json, name);
  putc(':', json->to);
  json->named = true;
}

/* What stands before a value. */
static void begin(ec_json *json, const char *name) {
  if (name != NULL)
    ec_json_name(json, eg_str(name));
  else if (!json->first && !json->named)
    putc(',', json->to);
  json->first = json->named = false;
}

void ec_json_open(ec_json *json, const char *name, char bracket) {
  begin(json, name);
  putc(bracket, json->to);
  json->depth++;
  json->first = true;
}

void ec_json_close(ec_json *json, char bracket) {
  putc(bracket, json->to);
  json->depth--;
  json->first = false;
}

void ec_json_bytes(ec_json *json, const char *name, eg_bytes bytes) {
  begin(json, name);
  quote(json, bytes);
}

void ec_json_text(ec_json *json, const char *name, const char *text) {
  ec_json_bytes(json, name, eg_str(text));
}

void ec_json_integer(ec_json *json, const char *name, int64_t value) {
  begin(json, name);
  fprintf(json->to, "%" PRId64, value);
}

void ec_json_unsigned(ec_json *json, const char *name, uint64_t value) {
  begin(json, name);
  fprintf(json->to, "%" PRIu64, value);
}

void ec_json_seconds(ec_json *json, const char *name, int64_t us) {
  begin(json, name);
  fprintf(json->to, "%s%" PRId64 ".%06" PRId64, us < 0 ? "-" : "",
          (us < 0 ? -us : us) / 1000000, (us < 0 ? -us : us) % 1000000);
}

void ec_json_real(ec_json *json, const char *name, double value) {
  if (!isfinite(value)) { /* JSON has none of these */
    ec_json_null(json, name);
    return;
  }
  char text[40];
  begin(json, name);
  snprintf(text, sizeof text, "%.15g", value);
  if (strtod(text, NULL) != value) /* the shorter form is not all of it */
    snprintf(text, sizeof text, "%.17g", value);
  fputs(text, json->to);
}

void ec_json_bool(ec_json *json, const char *name, bool value) {
  begin(json, name);
  fputs(value ? "true" : "false", json->to);
}

void ec_json_null(ec_json *json, const char *name) {
  begin(json, name);
  fputs("null", json->to);
}

void ec_json_time(ec_json *json, const char *name, int64_t epoch_us) {
  char text[EC_DURATION_TEXT];
  if (epoch_us <= 0)
    ec_json_null(json, name);
  else
    ec_json_text(json, name, ec_format_rfc3339(epoch_us, text));
}

int ec_json_end(ec_json *json) {
  putc('\n', json->to);
  return fflush(json->to) == 0 && !ferror(json->to) ? 0 : EC_FAILURE;
}
