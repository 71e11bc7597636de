/* SPDX-License-Identifier: MIT
** Text that grows, with the escapes of JSON, addresses and shells.
*/
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/serve.h"

static bool make_room(ec_text *text, size_t n) {
  size_t room = text->room > 0 ? text->room : 256;
  while (room - text->len < n + 1)
    room *= 2;
  if (room != text->room) {
    char *at = text->broken ? NULL : realloc(text->at, room);
    if (at == NULL)
      return !(text->broken = true);
    text->at = at;
    text->room = room;
  }
  return true;
}

void ec_text_add(ec_text *text, const void *data, size_t n) {
  if (n == 0 || !make_room(text, n))
    return;
  memcpy(text->at + text->len, data, n);
  text->len += n;
  text->at[text->len] = '\0';
}

void ec_text_say(ec_text *text, const char *format, ...) {
  va_list args;
  char small[400];
  va_start(args, format);
  int n = vsnprintf(small, sizeof small, format, args);
  va_end(args);
  if (n >= 0 && (size_t)n < sizeof small)
    ec_text_add(text, small, (size_t)n);
  else
    text->broken = true; /* long things are added, not said */
}

void ec_text_quote(ec_text *text, eg_bytes bytes) {
  const char *data = bytes.data;
  size_t from = 0;
  if (!ec_is_utf8(bytes)) { /* seldom: by the slow way */
    char *copy = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&copy, &n);
    ec_json json;
    if (to == NULL) {
      text->broken = true;
      return;
    }
    ec_json_begin(&json, to);
    ec_json_bytes(&json, NULL, bytes);
    if (fclose(to) == 0)
      ec_text_add(text, copy, n);
    else
      text->broken = true;
    free(copy);
    return;
  }
  ec_text_add(text, "\"", 1);
  for (size_t i = 0; i < bytes.len; i++) {
    unsigned char c = (unsigned char)data[i];
    if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
      continue;
    ec_text_add(text, data + from, i - from);
    ec_text_say(text, "\\u%04x", c);
    from = i + 1;
  }
  ec_text_add(text, data + from, bytes.len - from);
  ec_text_add(text, "\"", 1);
}

static bool is_plain(unsigned char c, const char *also) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9') || (c != '\0' && strchr(also, c) != NULL);
}

void ec_text_percent(ec_text *text, eg_bytes bytes) {
  const unsigned char *data = bytes.data;
  for (size_t i = 0; i < bytes.len; i++)
    if (is_plain(data[i], "-._~"))
      ec_text_add(text, data + i, 1);
    else
      ec_text_say(text, "%%%02X", data[i]);
}

/* Does it need more than single quotes?  What no terminal shows is written as
** bash, zsh and today's sh read it. */
static bool has_controls(eg_bytes bytes) {
  const unsigned char *data = bytes.data;
  for (size_t i = 0; i < bytes.len; i++)
    if (data[i] < 0x20 || data[i] == 0x7f)
      return true;
  return !ec_is_utf8(bytes);
}

void ec_text_shell(ec_text *text, eg_bytes bytes) {
  const unsigned char *data = bytes.data;
  bool plain = bytes.len > 0, controls = has_controls(bytes);
  for (size_t i = 0; i < bytes.len; i++)
    plain = plain && is_plain(data[i], "-._/:@%+,=");
  if (plain) {
    ec_text_add(text, bytes.data, bytes.len);
    return;
  }
  ec_text_say(text, "%s", controls ? "$'" : "'");
  for (size_t i = 0; i < bytes.len; i++)
    if (controls && (data[i] < 0x20 || data[i] >= 0x7f))
      ec_text_say(text, "\\%03o", data[i]);
    else if (data[i] == '\'')
      ec_text_say(text, "%s", controls ? "\\'" : "'\\''");
    else if (controls && data[i] == '\\')
      ec_text_say(text, "\\\\");
    else
      ec_text_add(text, data + i, 1);
  ec_text_add(text, "'", 1);
}

void ec_text_free(ec_text *text) {
  free(text->at);
  *text = (ec_text){0};
}
