/* SPDX-License-Identifier: MIT
** Text on its way out, in pieces.
*/
#include "guard/out.h"

#include <string.h>

void egi_out_begin(egi_out *o, eg_write write, void *ctx) {
  o->write = write;
  o->ctx = ctx;
  o->stopped = o->strict = false;
  o->n = 0;
}

static void flush(egi_out *o) {
  if (o->n > 0 && !o->stopped)
    o->stopped = !o->write(o->ctx, o->room, o->n);
  o->n = 0;
}

eg_status egi_out_end(egi_out *o) {
  flush(o);
  return o->stopped ? EG_CANCELED : EG_OK;
}

void egi_put(egi_out *o, const void *text, size_t n) {
  if (n > sizeof o->room - o->n)
    flush(o);
  memcpy(o->room + o->n, text, n);
  o->n += n;
}

void egi_put_text(egi_out *o, const char *text) {
  egi_put(o, text, strlen(text));
}

void egi_put_number(egi_out *o, uint64_t n) {
  char digits[20], *at = digits + sizeof digits;
  do
    *--at = (char)('0' + n % 10);
  while ((n /= 10) > 0);
  egi_put(o, at, (size_t)(digits + sizeof digits - at));
}

size_t egi_utf8(const unsigned char *s, size_t n) {
  unsigned char a = s[0];
  size_t len = a < 0x80 ? 1 : a < 0xc2 ? 0 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : 4;
  if (a > 0xf4 || len > n)
    return 0;
  for (size_t i = 1; i < len; i++)
    if ((s[i] & 0xc0) != 0x80)
      return 0;
  if ((a == 0xe0 && s[1] < 0xa0) || (a == 0xed && s[1] >= 0xa0) ||
      (a == 0xf0 && s[1] < 0x90) || (a == 0xf4 && s[1] >= 0x90))
    return 0;
  return len;
}
