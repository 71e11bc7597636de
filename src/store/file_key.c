/* SPDX-License-Identifier: MIT
** The name of a key's lock file: no key can leave the folder, no two keys have
** one name.
**
** A-Z a-z 0-9 . _ - : stay as they are, a leading dot does not; every other
** byte is % and two hexadecimal digits.  What would be longer than 200 bytes
** is its first bytes, "%~", and the SHA-256 of the key: "%~" stands in no
** other name.
*/
#include "store/file.h"

#include <sha2.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { PART_MAX = 200, PART_SHORT = 120 };

static const char hex[] = "0123456789abcdef";

static bool stays(unsigned char c, bool first) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
         (c >= '0' && c <= '9') || c == '_' || c == '-' || c == ':' ||
         (c == '.' && !first);
}

/* As much as fits max; *fits: it was all. */
static size_t encode(eg_bytes key, char *out, size_t max, bool *fits) {
  const unsigned char *bytes = key.data;
  size_t n = 0;
  *fits = true;
  for (size_t i = 0; i < key.len; i++) {
    bool plain = stays(bytes[i], i == 0);
    if (n + (plain ? 1 : 3) > max) {
      *fits = false;
      break;
    }
    if (plain) {
      out[n++] = (char)bytes[i];
    } else {
      out[n++] = '%';
      out[n++] = hex[bytes[i] >> 4];
      out[n++] = hex[bytes[i] & 15];
    }
  }
  return n;
}

static void hash_text(eg_bytes text, unsigned char digest[32]) {
  SHA2_CTX ctx;
  SHA256Init(&ctx);
  SHA256Update(&ctx, text.data, text.len);
  SHA256Final(digest, &ctx);
}

size_t egi_file_part(eg_bytes text, const char *suffix, char *out) {
  unsigned char digest[32];
  bool fits;
  size_t n = encode(text, out, PART_MAX, &fits);
  if (!fits) {
    n = encode(text, out, PART_SHORT, &fits);
    out[n++] = '%';
    out[n++] = '~';
    hash_text(text, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
      out[n++] = hex[digest[i] >> 4];
      out[n++] = hex[digest[i] & 15];
    }
  }
  size_t len = strlen(suffix);
  memcpy(out + n, suffix, len + 1);
  return n + len;
}

void egi_file_name(eg_bytes name, eg_bytes key, char *out) {
  if (name.len > 0)
    out += egi_file_part(name, "@/", out);
  egi_file_part(key, ".lock", out);
}

_Static_assert(EG_LOCK_FILE_MAX >= EGI_NAME_ROOM, "room for both parts");

size_t eg_lock_file(const char *name, eg_bytes key,
                    char out[EG_LOCK_FILE_MAX]) {
  size_t n = name != NULL ? strlen(name) : 0;
  if (key.len == 0 || key.len > EG_KEY_MAX || n > EG_NAME_MAX)
    return 0;
  egi_file_name((eg_bytes){name, n}, key, out);
  return strlen(out);
}

void egi_file_hash(uint64_t seed, eg_bytes name, eg_bytes key,
                   uint64_t hash[2]) {
  unsigned char text[EG_NAME_MAX + 1 + EG_KEY_MAX];
  size_t n = name.len < EG_NAME_MAX ? name.len : EG_NAME_MAX;
  size_t k = key.len < EG_KEY_MAX ? key.len : EG_KEY_MAX;
  if (n > 0)
    memcpy(text, name.data, n);
  text[n] = '\0';
  memcpy(text + n + 1, key.data, k);
  XXH128_hash_t h = XXH3_128bits_withSeed(text, n + 1 + k, seed);
  hash[0] = h.low64 != 0 ? h.low64 : 1;
  hash[1] = h.high64;
}

int64_t egi_file_sum(eg_bytes name, eg_bytes key, eg_bytes bytes) {
  uint64_t hash[2];
  egi_file_hash(0, name, key, hash);
  return (int64_t)((hash[0] ^ XXH3_64bits(bytes.data, bytes.len)) >> 1);
}
