/* SPDX-License-Identifier: MIT
** The injected world: what stands in for what was not injected.
*/
#include "guard/guard.h"

#include <stdlib.h>

static void *process_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud;
  (void)osize;
  if (nsize > 0)
    return realloc(ptr, nsize);
  free(ptr);
  return NULL;
}

static void no_log(void *ud, eg_log_level level, const char *message,
                   eg_bytes key) {
  (void)ud;
  (void)level;
  (void)message;
  (void)key;
}

void egi_env_complete(eg_env *env) {
  if (env->alloc == NULL)
    env->alloc = process_alloc;
  if (env->clock == NULL)
    env->clock = egi_process_clock();
  if (env->log == NULL)
    env->log = no_log;
}

void *egi_alloc(const eg_env *env, size_t size) {
  return env->alloc(env->alloc_ud, NULL, 0, size);
}

void egi_free(const eg_env *env, void *ptr, size_t size) {
  if (ptr != NULL)
    env->alloc(env->alloc_ud, ptr, size, 0);
}

int64_t egi_deadline(int64_t now_us, int64_t wait_ms) {
  if (wait_ms <= 0)
    return now_us;
  if (wait_ms >= (EG_FOREVER - now_us) / 1000)
    return EG_FOREVER;
  return now_us + wait_ms * 1000;
}

eg_bytes eg_str(const char *s) {
  eg_bytes bytes = {s, 0};
  while (s != NULL && s[bytes.len] != '\0')
    bytes.len++;
  return bytes;
}
