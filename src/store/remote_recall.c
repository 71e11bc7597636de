/* SPDX-License-Identifier: MIT
** What was last seen of keys from here: a guess to swap from.
**
** An acquire that is the next on its key from here, a commit and a release
** take one round trip because of it.  A guess that is wrong costs one more:
** the store refuses the swap and says what there is.
*/
#include "store/remote.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

typedef struct memory {
  struct memory *next; /* in the bucket */
  uint64_t hash;
  int64_t at_us; /* steady, of env: when it was seen */
  egi_seen seen; /* bytes and holder behind the key */
  size_t size, key_len;
  unsigned ring; /* its place there */
  unsigned char data[];
} memory;

enum { BUCKETS = 1024 };

struct egi_recall {
  eg_env env;
  pthread_mutex_t mutex;
  unsigned hand; /* where the oldest is */
  memory *ring[EGI_RECALL_KEYS];
  memory *buckets[BUCKETS];
};

egi_recall *egi_recall_new(const eg_env *env) {
  egi_recall *recall = env->alloc(env->alloc_ud, NULL, 0, sizeof *recall);
  if (recall == NULL)
    return NULL;
  memset(recall, 0, sizeof *recall);
  recall->env = *env;
  if (pthread_mutex_init(&recall->mutex, NULL) != 0) {
    env->alloc(env->alloc_ud, recall, sizeof *recall, 0);
    return NULL;
  }
  return recall;
}

void egi_recall_free(egi_recall *recall) {
  const eg_env env = recall->env;
  for (unsigned i = 0; i < EGI_RECALL_KEYS; i++)
    if (recall->ring[i] != NULL)
      env.alloc(env.alloc_ud, recall->ring[i], recall->ring[i]->size, 0);
  pthread_mutex_destroy(&recall->mutex);
  env.alloc(env.alloc_ud, recall, sizeof *recall, 0);
}

void egi_recall_forked(egi_recall *recall) {
  /* Another thread may have had it: what it guards is whole or is not used. */
  pthread_mutex_init(&recall->mutex, NULL);
}

static memory **find(egi_recall *recall, eg_bytes key, uint64_t hash) {
  memory **link = &recall->buckets[hash % BUCKETS];
  while (*link != NULL &&
         ((*link)->hash != hash || (*link)->key_len != key.len ||
          memcmp((*link)->data, key.data, key.len) != 0))
    link = &(*link)->next;
  return link;
}

static void forget(egi_recall *recall, memory **link) {
  memory *old = *link;
  *link = old->next;
  recall->ring[old->ring] = NULL;
  recall->env.alloc(recall->env.alloc_ud, old, old->size, 0);
}

/* Makes room in the ring: what has been there longest goes. */
static unsigned make_room(egi_recall *recall) {
  unsigned place = recall->hand;
  recall->hand = (recall->hand + 1) % EGI_RECALL_KEYS;
  memory *old = recall->ring[place];
  if (old != NULL) {
    eg_bytes key = {old->data, old->key_len};
    forget(recall, find(recall, key, old->hash));
  }
  return place;
}

static unsigned char *append(unsigned char *at, eg_bytes *bytes) {
  if (bytes->len > 0)
    memcpy(at, bytes->data, bytes->len);
  bytes->data = at;
  return at + bytes->len;
}

static memory *make(egi_recall *recall, eg_bytes key, const egi_seen *seen) {
  const eg_env *env = &recall->env;
  size_t size = sizeof(memory) + key.len + seen->bytes.len + seen->holder.len;
  memory *m = env->alloc(env->alloc_ud, NULL, 0, size);
  if (m == NULL)
    return NULL;
  m->size = size;
  m->at_us = env->clock->now_us(env->clock->ctx);
  m->seen = *seen;
  m->seen.buf = NULL;
  m->seen.buf_size = 0;
  m->key_len = key.len;
  append(append(append(m->data, &key), &m->seen.bytes), &m->seen.holder);
  return m;
}

/* With the mutex.  The new one is made before the old one goes: it may be made
** of it. */
static void keep(egi_recall *recall, eg_bytes key, uint64_t hash,
                 const egi_seen *seen) {
  memory *m = seen->version != 0 && seen->bytes.len <= EGI_RECALL_BYTES
                  ? make(recall, key, seen)
                  : NULL;
  memory **link = find(recall, key, hash);
  if (*link != NULL)
    forget(recall, link);
  if (m == NULL)
    return;
  m->hash = hash;
  m->ring = make_room(recall);
  recall->ring[m->ring] = m;
  link = &recall->buckets[hash % BUCKETS];
  m->next = *link;
  *link = m;
}

void egi_recall_keep(egi_recall *recall, eg_bytes key, const egi_seen *seen) {
  uint64_t hash = XXH3_64bits(key.data, key.len);
  pthread_mutex_lock(&recall->mutex);
  keep(recall, key, hash, seen);
  pthread_mutex_unlock(&recall->mutex);
}

void egi_recall_drop(egi_recall *recall, eg_bytes key) {
  static const egi_seen absent;
  egi_recall_keep(recall, key, &absent);
}

void egi_recall_swapped(egi_recall *recall, eg_bytes key, const egi_swap *swap,
                        const egi_seen *seen) {
  uint64_t hash = XXH3_64bits(key.data, key.len);
  egi_seen now = *seen;
  pthread_mutex_lock(&recall->mutex);
  const memory *old = *find(recall, key, hash);
  /* What was left as it was is known only if that was seen. */
  bool known = swap->expect == 0 ||
               (old != NULL && old->seen.version == swap->expect);
  bool had = known && swap->expect != 0;
  eg_bytes none = {NULL, 0};
  now.bytes = had ? old->seen.bytes : none;
  now.holder = had ? old->seen.holder : none;
  if (swap->write != EGI_LEAVE)
    now.bytes = swap->write == EGI_PUT ? swap->bytes : none;
  if (swap->hold != EGI_KEEP)
    now.holder = swap->hold == EGI_TAKE ? swap->holder : none;
  if (!known && (swap->write == EGI_LEAVE || swap->hold == EGI_KEEP))
    now.version = 0;
  keep(recall, key, hash, &now);
  pthread_mutex_unlock(&recall->mutex);
}

static int64_t aged(int64_t left, int64_t age) {
  return left < 0 ? left : left > age ? left - age : 0;
}

/* What became of it by time alone, as far as the clock here can say. */
static void age(egi_seen *seen, int64_t us) {
  egi_sight *at = &seen->at;
  at->now_us += us;
  at->left_us = aged(at->left_us, us);
  at->not_before_left_us = aged(at->not_before_left_us, us);
  at->fresh_left_us = aged(at->fresh_left_us, us);
  seen->life_left_us = aged(seen->life_left_us, us);
  if (at->held && at->left_us == 0)
    at->held = false;
}

bool egi_recall_get(egi_recall *recall, eg_bytes key, egi_seen *seen) {
  const eg_env *env = &recall->env;
  uint64_t hash = XXH3_64bits(key.data, key.len);
  int64_t now = env->clock->now_us(env->clock->ctx);
  pthread_mutex_lock(&recall->mutex);
  const memory *m = *find(recall, key, hash);
  bool found = m != NULL && egi_seen_keep(seen, &m->seen, env);
  if (found)
    age(seen, now > m->at_us ? now - m->at_us : 0);
  pthread_mutex_unlock(&recall->mutex);
  return found;
}
