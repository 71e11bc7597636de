/* SPDX-License-Identifier: MIT
** SHA-1 (FIPS 180-4) of a script: its name on a Redis server.  It protects
** nothing.
*/
#include "store/redis.h"

#include <string.h>

typedef struct sha1 {
  uint32_t h[5];
  unsigned char block[64];
  uint64_t len;
} sha1;

static uint32_t turn(uint32_t x, int n) { return x << n | x >> (32 - n); }

static uint32_t mix(int round, const uint32_t v[5]) {
  if (round < 20)
    return ((v[1] & v[2]) | (~v[1] & v[3])) + 0x5a827999;
  if (round < 40)
    return (v[1] ^ v[2] ^ v[3]) + 0x6ed9eba1;
  if (round < 60)
    return ((v[1] & v[2]) | (v[1] & v[3]) | (v[2] & v[3])) + 0x8f1bbcdc;
  return (v[1] ^ v[2] ^ v[3]) + 0xca62c1d6;
}

static void digest(sha1 *s) {
  uint32_t w[80], v[5];
  for (int i = 0; i < 16; i++) {
    const unsigned char *b = s->block + (size_t)i * 4;
    w[i] = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 |
           b[3];
  }
  for (int i = 16; i < 80; i++)
    w[i] = turn(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
  memcpy(v, s->h, sizeof v);
  for (int i = 0; i < 80; i++) {
    uint32_t next = turn(v[0], 5) + mix(i, v) + v[4] + w[i];
    v[4] = v[3];
    v[3] = v[2];
    v[2] = turn(v[1], 30);
    v[1] = v[0];
    v[0] = next;
  }
  for (int i = 0; i < 5; i++)
    s->h[i] += v[i];
}

static void feed(sha1 *s, unsigned char byte) {
  s->block[s->len++ % 64] = byte;
  if (s->len % 64 == 0)
    digest(s);
}

void egi_sha1_hex(const char *text, char hex[41]) {
  sha1 s = {.h = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}};
  uint64_t bits = (uint64_t)strlen(text) * 8;
  for (; *text != '\0'; text++)
    feed(&s, (unsigned char)*text);
  feed(&s, 0x80);
  while (s.len % 64 != 56)
    feed(&s, 0);
  for (int i = 7; i >= 0; i--)
    feed(&s, (unsigned char)(bits >> (i * 8)));
  for (int i = 0; i < 40; i++)
    hex[i] = "0123456789abcdef"[s.h[i / 8] >> (28 - i % 8 * 4) & 15];
  hex[40] = '\0';
}
