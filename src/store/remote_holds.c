/* SPDX-License-Identifier: MIT
** The holds of a handle on a remote store.
*/
#include "store/remote.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

egi_holding *egi_holding_new(eg_bytes key, const eg_env *env) {
  egi_holding *held = env->alloc(env->alloc_ud, NULL, 0,
                                 sizeof *held + key.len);
  if (held == NULL)
    return NULL;
  *held = (egi_holding){0};
  held->hash = XXH3_64bits(key.data, key.len);
  held->len = key.len;
  memcpy(held->key, key.data, key.len);
  return held;
}

void egi_holding_free(egi_holding *held, const eg_env *env) {
  if (held != NULL)
    env->alloc(env->alloc_ud, held, sizeof *held + held->len, 0);
}

bool egi_holding_init(egi_holding_set *set) {
  memset(set->buckets, 0, sizeof set->buckets);
  return pthread_mutex_init(&set->mutex, NULL) == 0;
}

void egi_holding_clear(egi_holding_set *set, const eg_env *env) {
  egi_holding *held;
  while (egi_holding_take(set, &held, 1) == 1)
    egi_holding_free(held, env);
}

/* The link to the entry of a key, or to the end of its bucket. */
static egi_holding **find(egi_holding_set *set, const void *key, size_t len,
                          uint64_t hash) {
  egi_holding **link = &set->buckets[hash % EGI_HOLDING_BUCKETS];
  while (*link != NULL && ((*link)->hash != hash || (*link)->len != len ||
                           memcmp((*link)->key, key, len) != 0))
    link = &(*link)->next;
  return link;
}

void egi_holding_add(egi_holding_set *set, egi_holding *held, uint64_t token,
                     const eg_env *env) {
  held->token = token;
  pthread_mutex_lock(&set->mutex);
  egi_holding **link = find(set, held->key, held->len, held->hash);
  egi_holding *old = *link;
  held->next = old != NULL ? old->next : NULL;
  *link = held;
  pthread_mutex_unlock(&set->mutex);
  egi_holding_free(old, env);
}

bool egi_holding_look(egi_holding_set *set, eg_bytes key, uint64_t token,
                      egi_holding *out) {
  uint64_t hash = XXH3_64bits(key.data, key.len);
  pthread_mutex_lock(&set->mutex);
  const egi_holding *held = *find(set, key.data, key.len, hash);
  bool found = held != NULL && held->token == token;
  if (found)
    *out = *held;
  pthread_mutex_unlock(&set->mutex);
  return found;
}

void egi_holding_note(egi_holding_set *set, eg_bytes key,
                      const egi_holding *news) {
  uint64_t hash = XXH3_64bits(key.data, key.len);
  pthread_mutex_lock(&set->mutex);
  egi_holding *held = *find(set, key.data, key.len, hash);
  if (held != NULL && held->token == news->token) {
    held->lease = news->lease;
    held->seconds = news->seconds;
    held->fresh_us = news->fresh_us;
    held->end_us = news->end_us;
  }
  pthread_mutex_unlock(&set->mutex);
}

void egi_holding_remove(egi_holding_set *set, eg_bytes key, uint64_t token,
                        const eg_env *env) {
  uint64_t hash = XXH3_64bits(key.data, key.len);
  egi_holding *gone = NULL;
  pthread_mutex_lock(&set->mutex);
  egi_holding **link = find(set, key.data, key.len, hash);
  if (*link != NULL && (token == 0 || (*link)->token == token)) {
    gone = *link;
    *link = gone->next;
  }
  pthread_mutex_unlock(&set->mutex);
  egi_holding_free(gone, env);
}

size_t egi_holding_take(egi_holding_set *set, egi_holding **out, size_t n) {
  size_t count = 0;
  pthread_mutex_lock(&set->mutex);
  for (size_t i = 0; i < EGI_HOLDING_BUCKETS; i++)
    while (count < n && set->buckets[i] != NULL) {
      out[count++] = set->buckets[i];
      set->buckets[i] = set->buckets[i]->next;
    }
  pthread_mutex_unlock(&set->mutex);
  return count;
}
