/* SPDX-License-Identifier: MIT
** What a guard holds, as far as it may be lost: a table by key; attend.h.
*/
#include "guard/guard.h"

#include <stddef.h>
#include <string.h>

egi_tenure *egi_tenure_new(eg_guard *guard, eg_bytes key) {
  egi_tenure *held = egi_alloc(&guard->env, sizeof *held + key.len);
  if (held == NULL)
    return NULL;
  memset(held, 0, sizeof *held);
  held->key_len = key.len;
  memcpy(held->key, key.data, key.len);
  return held;
}

void egi_tenure_free(eg_guard *guard, egi_tenure *held) {
  if (held != NULL)
    egi_free(&guard->env, held, sizeof *held + held->key_len);
}

static size_t bucket_of(const egi_tenure_table *holds, const void *key,
                        size_t len) {
  const unsigned char *bytes = key;
  uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */
  for (size_t i = 0; i < len; i++)
    hash = (hash ^ bytes[i]) * UINT64_C(1099511628211);
  return (size_t)(hash ^ hash >> 32) & (holds->size - 1);
}

static void put(egi_tenure_table *holds, egi_tenure *held) {
  egi_tenure **bucket =
      &holds->buckets[bucket_of(holds, held->key, held->key_len)];
  held->chain = *bucket;
  *bucket = held;
}

static void free_buckets(eg_guard *guard, egi_tenure **buckets, size_t size) {
  if (buckets != guard->attendant.holds.first)
    egi_free(&guard->env, buckets, size * sizeof *buckets);
}

/* Without memory the chains get longer. */
static void grow(eg_guard *guard, egi_tenure_table *holds) {
  size_t size = 2 * holds->size, old_size = holds->size;
  egi_tenure **old = holds->buckets, **buckets = holds->first;
  if (old_size == 0)
    size = EGI_FIRST_HOLDS;
  else
    buckets = egi_alloc(&guard->env, size * sizeof *buckets);
  if (buckets == NULL)
    return;
  memset(buckets, 0, size * sizeof *buckets);
  holds->buckets = buckets;
  holds->size = size;
  for (size_t i = 0; i < old_size; i++)
    while (old[i] != NULL) {
      egi_tenure *held = old[i];
      old[i] = held->chain;
      put(holds, held);
    }
  if (old_size > 0)
    free_buckets(guard, old, old_size);
}

egi_tenure *egi_holds_find(const eg_guard *guard, eg_bytes key) {
  const egi_tenure_table *holds = &guard->attendant.holds;
  if (holds->size == 0)
    return NULL;
  egi_tenure *held = holds->buckets[bucket_of(holds, key.data, key.len)];
  while (held != NULL && (held->key_len != key.len ||
                          memcmp(held->key, key.data, key.len) != 0))
    held = held->chain;
  return held;
}

static void count(egi_tenure_table *holds, size_t by) {
  size_t n = atomic_load_explicit(&holds->n, memory_order_relaxed);
  atomic_store_explicit(&holds->n, n + by, memory_order_relaxed);
}

void egi_holds_remove(eg_guard *guard, egi_tenure *held) {
  egi_tenure_table *holds = &guard->attendant.holds;
  egi_tenure **link =
      &holds->buckets[bucket_of(holds, held->key, held->key_len)];
  while (*link != held)
    link = &(*link)->chain;
  *link = held->chain;
  count(holds, (size_t)-1);
  if (held->timer != NULL)
    held->timer->hold = NULL;
  egi_tenure_free(guard, held);
}

void egi_holds_add(eg_guard *guard, egi_tenure *held) {
  egi_tenure_table *holds = &guard->attendant.holds;
  egi_tenure *old = egi_holds_find(guard,
                                   (eg_bytes){held->key, held->key_len});
  if (old != NULL)
    egi_holds_remove(guard, old);
  if (atomic_load_explicit(&holds->n, memory_order_relaxed) >= holds->size)
    grow(guard, holds);
  put(holds, held);
  count(holds, 1);
}

egi_tenure *egi_holds_next(const eg_guard *guard, const egi_tenure *held) {
  const egi_tenure_table *holds = &guard->attendant.holds;
  size_t i = 0;
  if (held != NULL) {
    if (held->chain != NULL)
      return held->chain;
    i = bucket_of(holds, held->key, held->key_len) + 1;
  }
  for (; i < holds->size; i++)
    if (holds->buckets[i] != NULL)
      return holds->buckets[i];
  return NULL;
}

static void free_stale(eg_guard *guard) {
  egi_tenure_table *holds = &guard->attendant.holds;
  while (holds->stale != NULL) {
    egi_tenure *held = holds->stale;
    holds->stale = held->chain;
    egi_tenure_free(guard, held);
  }
}

void egi_holds_clear(eg_guard *guard) {
  egi_tenure_table *holds = &guard->attendant.holds;
  egi_tenure *held;
  while ((held = egi_holds_next(guard, NULL)) != NULL)
    egi_holds_remove(guard, held);
  free_stale(guard);
  if (holds->size > 0)
    free_buckets(guard, holds->buckets, holds->size);
  holds->buckets = NULL;
  holds->size = 0;
}

/* No memory is given back here: somebody may have been in the middle of that
** when the process forked. */
void egi_holds_forked(eg_guard *guard) {
  egi_tenure_table *holds = &guard->attendant.holds;
  for (size_t i = 0; i < holds->size; i++)
    while (holds->buckets[i] != NULL) {
      egi_tenure *held = holds->buckets[i];
      holds->buckets[i] = held->chain;
      held->chain = holds->stale;
      holds->stale = held;
      if (held->timer != NULL)
        held->timer->hold = NULL;
    }
  atomic_store(&holds->n, 0);
}
