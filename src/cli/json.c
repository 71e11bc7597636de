/* SPDX-License-Identifier: MIT
** Writing JSON, one line a document, also from MessagePack.
*/
#include "cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

void ec_json_begin(ec_json *json, FILE *to) {
  *json = (ec_json){.to = to, .first = true};
}

/* What stands between two values. */
static void separate(ec_json *json) {
  if (!json->first && !json->named)
    putc(',', json->to);
  json->first = json->named = false;
}

void ec_json_open(ec_json *json, char bracket) {
  separate(json);
  putc(bracket, json->to);
  json->depth++;
  json->first = true;
}

void ec_json_close(ec_json *json, char bracket) {
  putc(bracket, json->to);
  json->depth--;
  json->first = false;
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

void ec_json_bytes(ec_json *json, eg_bytes bytes) {
  const unsigned char *at = bytes.data;
  separate(json);
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

void ec_json_text(ec_json *json, const char *text) {
  eg_bytes bytes = {text, strlen(text)};
  ec_json_bytes(json, bytes);
}

void ec_json_name(ec_json *json, const char *name) {
  ec_json_text(json, name);
  putc(':', json->to);
  json->named = true;
}

void ec_json_integer(ec_json *json, int64_t value) {
  separate(json);
  fprintf(json->to, "%" PRId64, value);
}

void ec_json_unsigned(ec_json *json, uint64_t value) {
  separate(json);
  fprintf(json->to, "%" PRIu64, value);
}

void ec_json_seconds(ec_json *json, int64_t us) {
  separate(json);
  fprintf(json->to, "%s%" PRId64 ".%06" PRId64, us < 0 ? "-" : "",
          (us < 0 ? -us : us) / 1000000, (us < 0 ? -us : us) % 1000000);
}

void ec_json_bool(ec_json *json, bool value) {
  separate(json);
  fputs(value ? "true" : "false", json->to);
}

void ec_json_null(ec_json *json) {
  separate(json);
  fputs("null", json->to);
}

void ec_json_time(ec_json *json, int64_t epoch_us) {
  char text[EC_DURATION_TEXT];
  if (epoch_us <= 0)
    ec_json_null(json);
  else
    ec_json_text(json, ec_format_rfc3339(epoch_us, text));
}

int ec_json_end(ec_json *json) {
  putc('\n', json->to);
  return fflush(json->to) == 0 && !ferror(json->to) ? 0 : EC_FAILURE;
}

/* --------------------------------------------------------- MessagePack -- */

typedef struct reader {
  const unsigned char *at, *end;
  ec_json *json;
  bool good;
} reader;

static uint64_t take(reader *r, int n) {
  uint64_t value = 0;
  if (r->end - r->at < n) {
    r->good = false;
    return 0;
  }
  for (; n > 0; n--)
    value = value << 8 | *r->at++;
  return value;
}

static eg_bytes take_bytes(reader *r, uint64_t n) {
  if ((uint64_t)(r->end - r->at) < n) {
    r->good = false;
    n = 0;
  }
  eg_bytes bytes = {r->at, (size_t)n};
  r->at += n;
  return bytes;
}

static void write_real(ec_json *json, double value) {
  char text[40];
  separate(json);
  if (!isfinite(value)) { /* JSON has none of these */
    fputs("null", json->to);
    return;
  }
  snprintf(text, sizeof text, "%.17g", value);
  fputs(text, json->to);
}

static double real_of(uint64_t bits, int size) {
  double wide;
  float narrow;
  uint32_t half = (uint32_t)bits;
  memcpy(&narrow, &half, sizeof narrow);
  memcpy(&wide, &bits, sizeof wide);
  return size == 4 ? (double)narrow : wide;
}

static void read_value(reader *r, int depth);

/* A name in JSON is a string: a number as key is written as one. */
static void read_name(reader *r) {
  char text[32];
  unsigned c = r->at < r->end ? *r->at : 0xc0;
  if (c < 0x80 || c >= 0xe0) {
    snprintf(text, sizeof text, "%d", (int8_t)take(r, 1));
    ec_json_text(r->json, text);
  } else if (c >= 0xcc && c <= 0xcf) {
    take(r, 1);
    snprintf(text, sizeof text, "%" PRIu64, take(r, 1 << (c - 0xcc)));
    ec_json_text(r->json, text);
  } else if (c >= 0xd0 && c <= 0xd3) {
    int n = 1 << (c - 0xd0);
    take(r, 1);
    int64_t value = (int64_t)(take(r, n) << (64 - 8 * n));
    snprintf(text, sizeof text, "%" PRId64, value >> (64 - 8 * n));
    ec_json_text(r->json, text);
  } else if ((c >= 0xa0 && c <= 0xbf) || (c >= 0xd9 && c <= 0xdb)) {
    read_value(r, 0);
  } else {
    r->good = false;
    ec_json_text(r->json, "?");
  }
  putc(':', r->json->to);
  r->json->named = true;
}

static void read_container(reader *r, uint64_t n, bool map, int depth) {
  ec_json_open(r->json, map ? '{' : '[');
  for (; n > 0 && r->good; n--) {
    if (map)
      read_name(r);
    read_value(r, depth + 1);
  }
  ec_json_close(r->json, map ? '}' : ']');
}

static void read_number(reader *r, unsigned c) {
  if (c <= 0xcb) {
    int n = c == 0xca ? 4 : 8;
    write_real(r->json, real_of(take(r, n), n));
  } else if (c <= 0xcf) {
    ec_json_unsigned(r->json, take(r, 1 << (c - 0xcc)));
  } else {
    int n = 1 << (c - 0xd0);
    int64_t value = (int64_t)(take(r, n) << (64 - 8 * n));
    ec_json_integer(r->json, value >> (64 - 8 * n));
  }
}

static void read_value(reader *r, int depth) {
  unsigned c = (unsigned)take(r, 1);
  if (!r->good || depth > EG_DEPTH_MAX) {
    r->good = false;
    ec_json_null(r->json);
  } else if (c < 0x80 || c >= 0xe0) {
    ec_json_integer(r->json, (int8_t)c);
  } else if (c < 0xa0) {
    read_container(r, c & 0x0f, c < 0x90, depth);
  } else if (c < 0xc0) {
    ec_json_bytes(r->json, take_bytes(r, c & 0x1f));
  } else if (c == 0xc2 || c == 0xc3) {
    ec_json_bool(r->json, c == 0xc3);
  } else if (c >= 0xc4 && c <= 0xc6) {
    ec_json_bytes(r->json, take_bytes(r, take(r, 1 << (c - 0xc4))));
  } else if (c >= 0xca && c <= 0xd3) {
    read_number(r, c);
  } else if (c >= 0xd9 && c <= 0xdb) {
    ec_json_bytes(r->json, take_bytes(r, take(r, 1 << (c - 0xd9))));
  } else if (c >= 0xdc) {
    read_container(r, take(r, c & 1 ? 4 : 2), c >= 0xde, depth);
  } else { /* nil, and what nobody stores here */
    ec_json_null(r->json);
    r->good = r->good && c == 0xc0;
  }
}

void ec_json_value(ec_json *json, eg_bytes value) {
  const unsigned char *data = value.data;
  reader r = {data, data + value.len, json, true};
  read_value(&r, 0);
}
