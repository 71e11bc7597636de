/* SPDX-License-Identifier: MIT
** Texts for and from the JSON gateway of etcd: bytes are in base 64, numbers
** of 64 bits in quotes.
*/
#include "store/etcd.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void egi_text_free(egi_text_buf *text) {
  if (text->data != NULL)
    egi_wipe(text->data, text->cap); /* a password may have been in it */
  free(text->data);
  *text = (egi_text_buf){0};
}

void egi_text_clear(egi_text_buf *text) {
  text->len = 0;
  text->failed = false;
}

static char *room(egi_text_buf *text, size_t more) {
  size_t need = text->len + more + 1;
  if (text->failed)
    return NULL;
  if (need > text->cap) {
    size_t cap = need < 1024 ? 1024 : need + need / 2;
    char *larger = realloc(text->data, cap);
    text->failed = larger == NULL;
    if (larger == NULL)
      return NULL;
    text->data = larger;
    text->cap = cap;
  }
  return text->data + text->len;
}

void egi_text_add(egi_text_buf *text, const char *data, size_t len) {
  char *to = room(text, len);
  if (to == NULL)
    return;
  memcpy(to, data, len);
  to[len] = '\0';
  text->len += len;
}

void egi_text_put(egi_text_buf *text, const char *string) {
  egi_text_add(text, string, strlen(string));
}

void egi_text_number(egi_text_buf *text, uint64_t number) {
  char digits[32];
  int n = snprintf(digits, sizeof digits, "\"%" PRIu64 "\"", number);
  egi_text_add(text, digits, (size_t)n);
}

/* ------------------------------------------------------------- base 64 -- */

static const char letters[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void egi_text_bytes(egi_text_buf *text, eg_bytes a, eg_bytes b) {
  size_t n = a.len + b.len;
  char *to = room(text, (n + 2) / 3 * 4 + 2);
  if (to == NULL)
    return;
  const char *begin = to;
  *to++ = '"';
  for (size_t i = 0; i < n; i += 3) {
    uint32_t three = 0;
    for (size_t j = i; j < i + 3; j++) {
      const unsigned char *from = j < a.len ? a.data : b.data;
      size_t at = j < a.len ? j : j - a.len;
      three = three << 8 | (j < n ? from[at] : 0);
    }
    to[0] = letters[three >> 18];
    to[1] = letters[three >> 12 & 63];
    to[2] = i + 1 < n ? letters[three >> 6 & 63] : '=';
    to[3] = i + 2 < n ? letters[three & 63] : '=';
    to += 4;
  }
  *to++ = '"';
  *to = '\0';
  text->len += (size_t)(to - begin);
}

static int value_of(char c) {
  if (c >= 'A' && c <= 'Z')
    return c - 'A';
  if (c >= 'a' && c <= 'z')
    return c - 'a' + 26;
  if (c >= '0' && c <= '9')
    return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool egi_unbase64(const char *text, unsigned char **out, size_t *len) {
  size_t n = strlen(text);
  unsigned char *to = n % 4 == 0 ? malloc(n / 4 * 3 + 1) : NULL;
  *out = to;
  *len = 0;
  if (to == NULL)
    return false;
  while (n > 0 && text[n - 1] == '=')
    n--;
  uint32_t bits = 0;
  for (size_t i = 0; i < n; i++) {
    int value = value_of(text[i]);
    if (value < 0) {
      free(to);
      *out = NULL;
      return false;
    }
    bits = bits << 6 | (uint32_t)value;
    if (i % 4 > 0)
      to[(*len)++] = (unsigned char)(bits >> (6 - 2 * (i % 4)));
  }
  return true;
}

/* ------------------------------------------------------------- numbers -- */

uint64_t egi_json_number(const json_t *object, const char *name) {
  const json_t *value = json_object_get(object, name);
  if (json_is_integer(value))
    return (uint64_t)json_integer_value(value);
  const char *text = json_string_value(value);
  return text != NULL ? strtoull(text, NULL, 10) : 0;
}

uint64_t egi_json_revision(const json_t *reply) {
  return egi_json_number(json_object_get(reply, "header"), "revision");
}
