/* SPDX-License-Identifier: MIT
** What a command says, kept and said again: both streams, in their order.
**
** It is stored as one MessagePack value, which a Lua guard reads as
** {eguard = 1, status = 0, output = {{1, "out"}, {2, "err"}, ...}}; the number
** is that of the descriptor.  All numbers have a fixed width, so that they can
** be filled in later.
*/
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const unsigned char head[] = "\x83\xa6"
                                    "eguard\x01\xa6"
                                    "status\xcc\0\xa6"
                                    "output\xdd\0\0\0\0";
enum { HEAD = sizeof head - 1, STATUS_AT = 17, COUNT_AT = HEAD - 4 };

bool ec_write_all(int fd, const void *data, size_t n) {
  const char *at = data;
  while (n > 0) {
    ssize_t done = write(fd, at, n);
    if (done < 0 && errno == EINTR)
      continue;
    if (done <= 0)
      return false;
    at += done;
    n -= (size_t)done;
  }
  return true;
}

static void put32(unsigned char *at, uint32_t value) {
  for (int i = 0; i < 4; i++)
    at[i] = (unsigned char)(value >> (24 - 8 * i));
}

static uint32_t get32(const unsigned char *at) {
  return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 |
         at[3];
}

static void append(ec_output *o, const void *data, size_t n) {
  if (!o->over && o->len + n > o->cap) {
    size_t cap = 2 * o->cap + n + 256;
    unsigned char *bytes = realloc(o->bytes, cap);
    o->over = bytes == NULL;
    if (bytes != NULL) {
      o->bytes = bytes;
      o->cap = cap;
    }
  }
  o->over = o->over || o->len + n > o->limit;
  if (o->over || n == 0)
    return;
  memcpy(o->bytes + o->len, data, n);
  o->len += n;
}

void ec_output_begin(ec_output *output, size_t limit) {
  *output = (ec_output){.limit = limit};
  append(output, head, HEAD);
}

void ec_output_add(ec_output *o, int stream, const void *data, size_t n) {
  unsigned char start[7] = {0x92, (unsigned char)stream, 0xdb};
  if (n == 0 || o->over)
    return;
  if (o->stream != stream) {
    append(o, start, sizeof start);
    o->stream = stream;
    o->chunk = o->len - 4;
    o->chunks++;
  }
  append(o, data, n);
  if (!o->over)
    put32(o->bytes + o->chunk, (uint32_t)(o->len - o->chunk - 4));
}

bool ec_output_end(ec_output *o, int exit_status, eg_bytes *value) {
  if (o->over)
    return false;
  o->bytes[STATUS_AT] = (unsigned char)exit_status;
  put32(o->bytes + COUNT_AT, o->chunks);
  value->data = o->bytes;
  value->len = o->len;
  return true;
}

void ec_output_free(ec_output *output) { free(output->bytes); }

bool ec_is_output(eg_bytes value) {
  const unsigned char *at = value.data;
  return value.len >= HEAD && memcmp(at, head, STATUS_AT) == 0 &&
         memcmp(at + STATUS_AT + 1, head + STATUS_AT + 1,
                COUNT_AT - STATUS_AT - 1) == 0;
}

/* The chunk at *at; false: there is none that is whole. */
static bool next_chunk(eg_bytes value, size_t *at, int *stream,
                       eg_bytes *text) {
  const unsigned char *data = value.data;
  if (value.len - *at < 7 || data[*at] != 0x92 || data[*at + 2] != 0xdb)
    return false;
  *stream = data[*at + 1];
  *text = (eg_bytes){data + *at + 7, get32(data + *at + 3)};
  if ((*stream != 1 && *stream != 2) || text->len > value.len - *at - 7)
    return false;
  *at += 7 + text->len;
  return true;
}

bool ec_output_replay(eg_bytes value, int *exit_status, bool *written) {
  const unsigned char *data = value.data;
  if (!ec_is_output(value))
    return false;
  size_t at = HEAD;
  int stream;
  eg_bytes text;
  *written = true;
  for (uint32_t n = get32(data + COUNT_AT); n > 0; n--) {
    if (!next_chunk(value, &at, &stream, &text))
      return false;
    *written = ec_write_all(stream, text.data, text.len) && *written;
  }
  *exit_status = data[STATUS_AT];
  return true;
}
