/* SPDX-License-Identifier: MIT
** The owner line of an exclusion that more than one process can meet.
*/
#include "store/holder.h"

#include <string.h>

enum { HEAD = 40, HOST_MAX = 63 };

_Static_assert(HEAD + 2 + HOST_MAX + EG_OWNER_MAX <= EGI_HOLDER_MAX,
               "a line fits");

static unsigned char *put_text(unsigned char *at, eg_bytes text, size_t max) {
  size_t n = text.len < max ? text.len : max;
  *at++ = (unsigned char)n;
  if (n > 0)
    memcpy(at, text.data, n);
  return at + n;
}

eg_bytes egi_holder_write(const egi_holder *holder, unsigned char *line) {
  unsigned char *at = line;
  at = egi_put_number(at, holder->nonce, 8);
  at = egi_put_number(at, (uint64_t)holder->pid, 8);
  at = egi_put_number(at, (uint64_t)holder->since_us, 8);
  at = egi_put_number(at, holder->state, 4);
  at = egi_put_number(at, holder->guard, 4);
  at = egi_put_number(at, holder->attempt, 8);
  at = put_text(at, holder->host, HOST_MAX);
  at = put_text(at, holder->text, EG_OWNER_MAX);
  return (eg_bytes){line, (size_t)(at - line)};
}

static bool get_text(eg_bytes line, size_t *at, eg_bytes *text) {
  const unsigned char *data = line.data;
  if (*at >= line.len || line.len - *at - 1 < data[*at])
    return false;
  text->len = data[*at];
  text->data = data + *at + 1;
  *at += 1 + text->len;
  return true;
}

bool egi_holder_read(eg_bytes line, egi_holder *holder) {
  const unsigned char *data = line.data;
  size_t at = HEAD;
  if (line.len < HEAD)
    return false;
  holder->nonce = egi_get_number(data, 8);
  holder->pid = (int64_t)egi_get_number(data + 8, 8);
  holder->since_us = (int64_t)egi_get_number(data + 16, 8);
  holder->state = (uint32_t)egi_get_number(data + 24, 4);
  holder->guard = (uint32_t)egi_get_number(data + 28, 4);
  holder->attempt = egi_get_number(data + 32, 8);
  return get_text(line, &at, &holder->host) &&
         get_text(line, &at, &holder->text);
}
