/* SPDX-License-Identifier: MIT
** What a store has seen of a key, kept in a buffer that outlives the key.
*/
#include <string.h>

#include "store/store.h"

void egi_seen_init(egi_seen *seen) { memset(seen, 0, sizeof *seen); }

void egi_seen_free(egi_seen *seen, const eg_env *env) {
  if (seen->buf != NULL)
    env->alloc(env->alloc_ud, seen->buf, seen->buf_size, 0);
  egi_seen_init(seen);
}

/* Makes the buffer at least so large.  What was in it is lost. */
static bool reserve(egi_seen *seen, size_t size, const eg_env *env) {
  if (size <= seen->buf_size)
    return true;
  if (size < 64)
    size = 64;
  void *larger = env->alloc(env->alloc_ud, NULL, 0, size);
  if (larger == NULL)
    return false;
  if (seen->buf != NULL)
    env->alloc(env->alloc_ud, seen->buf, seen->buf_size, 0);
  seen->buf = larger;
  seen->buf_size = size;
  return true;
}

bool egi_seen_keep(egi_seen *seen, const egi_seen *from, const eg_env *env) {
  if (!reserve(seen, from->bytes.len + from->holder.len, env))
    return false;
  char *buf = seen->buf;
  size_t size = seen->buf_size;
  *seen = *from;
  seen->buf = buf;
  seen->buf_size = size;
  if (from->bytes.len > 0)
    memcpy(buf, from->bytes.data, from->bytes.len);
  if (from->holder.len > 0)
    memcpy(buf + from->bytes.len, from->holder.data, from->holder.len);
  seen->bytes.data = buf;
  seen->holder.data = from->holder.len > 0 ? buf + from->bytes.len : NULL;
  return true;
}
