/* SPDX-License-Identifier: MIT
** The holds of a handle on a remote store.
*/
#include "store/remote.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

egi_held *egi_held_new(eg_bytes key, const eg_env *env) {
  egi_held *held = env->alloc(env->alloc_ud, NULL, 0, sizeof *held + key.len);
  if (held == NULL)
    return NULL;
  held->next = NULL;
  held->hash = XXH3_64bits(key.data, key.len);
  held->token = 0;
  held->len = key.len;
  memcpy(held->key, key.data, key.len);
  return held;
}

void egi_held_free(egi_held *held, const eg_env *env) {
  if (held != NULL)
    env->alloc(env->alloc_ud, held, sizeof *held + held->len, 0);
}

bool egi_held_init(egi_held_set *set) {
  memset(set->buckets, 0, sizeof set->buckets);
  return pthread_mutex_init(&set->mutex, NULL) == 0;
}

void egi_held_clear(egi_held_set *set, const eg_env *env) {
  egi_held *held;
  while (egi_held_take(set, &held, 1) == 1)
    egi_held_free(held, env);
}

/* The link to the entry of a key, or to the end of its bucket. */
static egi_held **find(egi_held_set *set, const void *key, size_t len,
                       uint64_t hash) {
  egi_held **link = &set->buckets[hash % EGI_HELD_BUCKETS];
  while (*link != NULL && ((*link)->hash != hash || (*link)->len != len ||
                           memcmp((*link)->key, key, len) != 0))
    link = &(*link)->next;
  return link;
}

void egi_held_add(egi_held_set *set, egi_held *held, uint64_t token,
                  const eg_env *env) {
  held->token = token;
  pthread_mutex_lock(&set->mutex);
  egi_held **link = find(set, held->key, held->len, held->hash);
  egi_held *old = *link;
  held->next = old != NULL ? old->next : NULL;
  *link = held;
  pthread_mutex_unlock(&set->mutex);
  egi_held_free(old, env);
}

void egi_held_remove(egi_held_set *set, eg_bytes key, uint64_t token,
                     const eg_env *env) {
  uint64_t hash = XXH3_64bits(key.data, key.len);
  egi_held *gone = NULL;
  pthread_mutex_lock(&set->mutex);
  egi_held **link = find(set, key.data, key.len, hash);
  if (*link != NULL && (token == 0 || (*link)->token == token)) {
    gone = *link;
    *link = gone->next;
  }
  pthread_mutex_unlock(&set->mutex);
  egi_held_free(gone, env);
}

size_t egi_held_take(egi_held_set *set, egi_held **out, size_t n) {
  size_t count = 0;
  pthread_mutex_lock(&set->mutex);
  for (size_t i = 0; i < EGI_HELD_BUCKETS; i++)
    while (count < n && set->buckets[i] != NULL) {
      out[count++] = set->buckets[i];
      set->buckets[i] = set->buckets[i]->next;
    }
  pthread_mutex_unlock(&set->mutex);
  return count;
}
