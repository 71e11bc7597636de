/* SPDX-License-Identifier: MIT
** Linear hashing over entries in an arena, and the one reader that needs no
** lock; memory_table.h has the rules.
*/
#include "store/memory_table.h"

enum {
  SEGMENT_BITS = 4, /* log2 of EGI_BUCKETS_FIRST */
  STEPS_MAX = 32    /* of a chain that a reader without the lock walks */
};

_Static_assert(offsetof(egi_entry, data) == EGI_ENTRY_HEAD, "entry");
_Static_assert(offsetof(egi_extra, holder) == EGI_EXTRA_HEAD, "extra");
_Static_assert(sizeof(egi_times) == 5 * sizeof(uint64_t), "times");
_Static_assert(EGI_BLOCK_CLASSES <= EGI_CLASS_MASK + 1, "class");
_Static_assert(EGI_DATA_MAX <= EGI_LOW_MASK, "length");
_Static_assert(EGI_LOW_BITS + 2 * EGI_COUNT_BITS == 32, "counts");
_Static_assert(EG_KEY_MAX + EGI_PLAIN_RECORD_MAX <= EGI_DATA_MAX, "data");

/* ------------------------------------------------------------- buckets -- */

void egi_table_init(egi_table *table, const eg_env *env) {
  atomic_init(&table->seq, 0);
  atomic_init(&table->buckets, EGI_BUCKETS_FIRST);
  table->count = 0;
  egi_arena_init(&table->arena, env);
  for (unsigned i = 0; i < EGI_SEGMENTS; i++)
    atomic_init(&table->segments[i], NULL);
  for (unsigned i = 0; i < EGI_BUCKETS_FIRST; i++)
    atomic_init(&table->first[i], 0);
  atomic_init(&table->segments[0], table->first);
}

static size_t segment_size(unsigned segment) {
  return ((size_t)EGI_BUCKETS_FIRST << segment) * sizeof(uint32_t);
}

void egi_table_free(egi_table *table) {
  const eg_env *env = table->arena.env;
  for (unsigned i = 1; i < EGI_SEGMENTS; i++) {
    _Atomic uint32_t *segment = egi_own(&table->segments[i]);
    if (segment != NULL)
      env->alloc(env->alloc_ud, segment, segment_size(i), 0);
  }
  egi_arena_free(&table->arena);
  egi_table_init(table, env);
}

/* Which segment a bucket is in, and where. */
static unsigned segment_of(uint32_t bucket, uint32_t *at) {
  uint32_t place = bucket + EGI_BUCKETS_FIRST;
  unsigned top = 31u - (unsigned)__builtin_clz(place);
  *at = place ^ 1u << top;
  return top - SEGMENT_BITS;
}

static uint32_t bucket_of(uint32_t hash, uint32_t buckets) {
  uint32_t low = 1u << (31 - __builtin_clz(buckets)); /* 2^L */
  uint32_t bucket = hash & (2 * low - 1);
  return bucket < buckets ? bucket : bucket & (low - 1);
}

static _Atomic uint32_t *head_of(const egi_table *table, uint32_t bucket) {
  uint32_t at;
  unsigned segment = segment_of(bucket, &at);
  return egi_own(&table->segments[segment]) + at;
}

/* What a link points at. */
static inline void follow(const egi_table *table, _Atomic uint32_t *link,
                          egi_spot *spot) {
  spot->link = link;
  spot->block = egi_own(link);
  spot->entry = spot->block != 0 ? egi_entry_at(table, spot->block) : NULL;
}

void egi_table_chain(const egi_table *table, uint32_t bucket, egi_spot *spot) {
  follow(table, head_of(table, bucket), spot);
}

void egi_table_next(const egi_table *table, egi_spot *spot) {
  bool out = egi_own(spot->link) != spot->block;
  follow(table, out ? spot->link : &spot->entry->next, spot);
}

/* ---------------------------------------------------------------- keys -- */

/* The word whose first n bytes, 1 to 7, are those at p, and the rest 0. */
static inline uint64_t some_bytes(const unsigned char *p, size_t n) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  uint32_t first, last; /* these overlap; a call of memcpy would be dearer */
  uint16_t one, two;
  if (n >= 4) {
    memcpy(&first, p, 4);
    memcpy(&last, p + n - 4, 4);
    return first | (uint64_t)last << 8 * (n - 4);
  }
  if (n == 1)
    return *p;
  memcpy(&one, p, 2);
  memcpy(&two, p + n - 2, 2);
  return one | (uint64_t)two << 8 * (n - 2);
#else
  uint64_t word = 0;
  memcpy(&word, p, n);
  return word;
#endif
}

/* The bytes from `at` to at + n of a word, all set. */
static inline uint64_t byte_mask(size_t at, size_t n) {
  uint64_t ones = (UINT64_C(1) << 8 * n) - 1;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  return ones << 8 * at;
#else
  return ones << 8 * (8 - n - at);
#endif
}

/* A word with its bytes as they are, `at` bytes further behind. */
static inline uint64_t moved(uint64_t word, size_t at) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  return word << 8 * at;
#else
  return word >> 8 * at;
#endif
}

void egi_key_init(egi_key *key, eg_bytes bytes, uint32_t hash) {
  assert(bytes.len >= 1 && bytes.len <= EG_KEY_MAX);
  size_t n = bytes.len % 8;
  key->bytes = bytes;
  key->hash = hash;
  key->last = key->mask = 0;
  if (n > 0) {
    const unsigned char *end = (const unsigned char *)bytes.data + bytes.len;
    key->last = some_bytes(end - n, n);
    key->mask = byte_mask(0, n);
  }
}

/* Does an entry's data begin with the key? */
static inline bool same_key(const egi_word *data, const egi_key *key) {
  const unsigned char *bytes = key->bytes.data;
  size_t whole = key->bytes.len / 8;
  for (size_t i = 0; i < whole; i++) {
    uint64_t word;
    memcpy(&word, bytes + 8 * i, 8);
    if (egi_get(&data[i]) != word)
      return false;
  }
  return key->mask == 0 ||
         ((egi_get(&data[whole]) ^ key->last) & key->mask) == 0;
}

void egi_table_find(const egi_table *table, const egi_key *key,
                    egi_spot *spot) {
  uint32_t buckets = egi_own(&table->buckets);
  _Atomic uint32_t *head = head_of(table, bucket_of(key->hash, buckets));
  _Atomic uint32_t *link = head;
  uint32_t block = egi_own(link);
  egi_entry *entry = NULL;
  while (block != 0) {
    entry = egi_entry_at(table, block);
    if (egi_own(&entry->hash) == key->hash &&
        egi_entry_key_len(entry) == key->bytes.len &&
        same_key(entry->data, key))
      break;
    link = &entry->next;
    block = egi_own(link);
  }
  spot->link = block != 0 ? link : head;
  spot->block = block;
  spot->entry = block != 0 ? entry : NULL;
}

/* -------------------------------------------------------------- chains -- */

/* Moves the entries of a bucket whose hash has this bit to another one. */
static void divide(egi_table *table, uint32_t bucket, uint32_t bit) {
  _Atomic uint32_t *stay = head_of(table, bucket);
  _Atomic uint32_t *go = head_of(table, bucket + bit);
  uint32_t at = egi_own(stay);
  while (at != 0) {
    egi_entry *entry = egi_entry_at(table, at);
    _Atomic uint32_t **end = egi_own(&entry->hash) & bit ? &go : &stay;
    egi_set(*end, at);
    *end = &entry->next;
    at = egi_own(&entry->next);
  }
  egi_set(stay, 0);
  egi_set(go, 0);
}

/* The bucket whose entries a new one shares. */
static uint32_t twin_of(uint32_t bucket) {
  return bucket - (1u << (31 - __builtin_clz(bucket)));
}

/* Whoever divides waits for memory: so what the divisions to come will touch
** is on its way while other work is done. */
static void fetch_ahead(const egi_table *table, uint32_t bucket) {
  enum { ENTRIES = 2, BUCKETS = 32 }; /* divisions from now */
  uint32_t block = egi_own(head_of(table, twin_of(bucket + ENTRIES)));
  if (block != 0)
    __builtin_prefetch(egi_entry_at(table, block));
  __builtin_prefetch(head_of(table, twin_of(bucket + BUCKETS)));
}

void egi_table_grow(egi_table *table) {
  uint32_t buckets = egi_own(&table->buckets), at;
  unsigned segment = segment_of(buckets, &at);
  if (segment == EGI_SEGMENTS)
    return;
  if (egi_own(&table->segments[segment]) == NULL) {
    const eg_env *env = table->arena.env;
    _Atomic uint32_t *made = env->alloc(env->alloc_ud, NULL, 0,
                                        segment_size(segment));
    if (made == NULL)
      return; /* the chains get longer, and the next insert tries again */
    egi_set(&table->segments[segment], made);
  }
  divide(table, twin_of(buckets), buckets - twin_of(buckets));
  egi_set(&table->buckets, buckets + 1);
  fetch_ahead(table, buckets + 1);
}

/* ------------------------------------------------------- words, blocks -- */

void egi_set_bytes(egi_word *words, size_t at, const void *bytes, size_t n) {
  const unsigned char *from = bytes;
  words += at / 8;
  at %= 8;
  while (n > 0) {
    size_t some = 8 - at < n ? 8 - at : n;
    uint64_t word;
    if (some == 8) {
      memcpy(&word, from, 8);
    } else {
      word = egi_own(words) & ~byte_mask(at, some);
      word |= moved(some_bytes(from, some), at);
    }
    egi_set(words, word);
    words++;
    at = 0;
    from += some;
    n -= some;
  }
}

/* -------------------------------------------------- without the lock -- */

/* Copies the extra block of a glance.  False: it is none. */
static bool glance_extra(const egi_arena *arena, uint32_t at,
                         egi_glance *glance) {
  egi_view *view = &glance->view;
  size_t words;
  const egi_word *block = egi_arena_peek(arena, at, &words);
  if (block == NULL || words < EGI_EXTRA_HEAD / 8)
    return false;
  const egi_extra *extra = (const egi_extra *)(const void *)block;
  if (view->timed)
    egi_extra_read(extra, &view->times);
  size_t len = (uint32_t)egi_get(&extra->sizes);
  if (len > EGI_HOLDER_MAX || words < (EGI_EXTRA_HEAD + len + 7) / 8)
    return false;
  for (size_t i = 0; i < (len + 7) / 8; i++)
    glance->holder[i] = egi_get(&extra->holder[i]);
  view->holder = (eg_bytes){glance->holder, len};
  return true;
}

/* Copies what an entry says, of which so many words are in reach. */
static inline bool glance_entry(const egi_arena *arena, const egi_entry *entry,
                                size_t words, const egi_key *key,
                                egi_glance *glance) {
  egi_view *view = &glance->view;
  uint64_t token = egi_get(&entry->token);
  size_t key_len = key->bytes.len, len = egi_get(&entry->len) & EGI_LOW_MASK;
  if (token & EGI_LARGE || key_len + len > EGI_DATA_MAX)
    return false;
  size_t from = key_len / 8, to = (key_len + len + 7) / 8;
  if (words < EGI_ENTRY_HEAD / 8 + to)
    return false;
  for (size_t i = from; i < to; i++)
    glance->data[i - from] = egi_get(&entry->data[i]);
  view->version = egi_get(&entry->version) >> EGI_LOW_BITS;
  view->token = token >> EGI_LOW_BITS;
  view->held = token & EGI_HELD;
  view->bytes = (eg_bytes){(const char *)glance->data + key_len % 8, len};
  view->holder = (eg_bytes){NULL, 0};
  view->timed = token & EGI_TIMED;
  return (!view->held && !view->timed) ||
         glance_extra(arena, egi_get(&entry->extra), glance);
}

/* The first entry of the key's bucket.  False: a segment is missing. */
static inline bool glance_head(const egi_table *table, uint32_t hash,
                               uint32_t *at) {
  uint32_t place;
  unsigned segment = segment_of(bucket_of(hash, egi_get(&table->buckets)),
                                &place);
  const _Atomic uint32_t *heads = egi_get(&table->segments[segment]);
  if (heads == NULL)
    return false;
  *at = egi_get(&heads[place]);
  return true;
}

/* Walks the chain to the key's entry, of which so many words are in reach.
** What it finds counts only if seq says so afterwards. */
static inline egi_glimpse look_up(const egi_table *table, const egi_key *key,
                                  const egi_entry **found, size_t *words) {
  uint32_t at;
  size_t need = EGI_ENTRY_HEAD / 8 + (key->bytes.len + 7) / 8;
  if (!glance_head(table, key->hash, &at))
    return EGI_TORN;
  for (unsigned steps = 0; at != 0; steps++) {
    const egi_word *block = egi_arena_peek(&table->arena, at, words);
    if (block == NULL || *words < EGI_ENTRY_HEAD / 8 || steps == STEPS_MAX)
      return EGI_TORN;
    const egi_entry *entry = (const egi_entry *)(const void *)block;
    size_t len = (size_t)(egi_get(&entry->version) & EGI_LOW_MASK) + 1;
    if (egi_get(&entry->hash) == key->hash && len == key->bytes.len &&
        *words >= need && same_key(entry->data, key)) {
      *found = entry;
      return EGI_FOUND;
    }
    at = egi_get(&entry->next);
  }
  return EGI_MISSING;
}

egi_glimpse egi_table_glance(const egi_table *table, const egi_key *key,
                             egi_glance *glance) {
  const egi_entry *entry;
  size_t words;
  uint64_t seq = egi_get(&table->seq);
  if (seq % 2 != 0)
    return EGI_TORN;
  egi_glimpse seen = look_up(table, key, &entry, &words);
  if (seen == EGI_FOUND &&
      !glance_entry(&table->arena, entry, words, key, glance))
    return EGI_TORN;
  return egi_own(&table->seq) == seq ? seen : EGI_TORN;
}

egi_glimpse egi_table_peek(const egi_table *table, const egi_key *key,
                           unsigned char *room, eg_bytes *bytes,
                           uint64_t *token_out) {
  const egi_entry *entry;
  size_t words;
  uint64_t seq = egi_get(&table->seq);
  if (seq % 2 != 0)
    return EGI_TORN;
  egi_glimpse seen = look_up(table, key, &entry, &words);
  if (seen == EGI_FOUND) {
    uint64_t token = egi_get(&entry->token);
    size_t key_len = key->bytes.len;
    size_t len = egi_get(&entry->len) & EGI_LOW_MASK; /* unless it is large */
    if (len > EGI_PEEK_ROOM - key_len % 8)
      len = EGI_PEEK_ROOM - key_len % 8;
    size_t from = key_len / 8, to = (key_len + len + 7) / 8;
    if (token & (EGI_LARGE | EGI_HELD | EGI_TIMED) ||
        words < EGI_ENTRY_HEAD / 8 + to)
      return EGI_TORN;
    for (size_t i = from; i < to; i++) {
      uint64_t word = egi_get(&entry->data[i]);
      memcpy(room + 8 * (i - from), &word, 8);
    }
    bytes->data = room + key_len % 8;
    bytes->len = len;
    *token_out = token >> EGI_LOW_BITS;
  }
  return egi_own(&table->seq) == seq ? seen : EGI_TORN;
}
