/* SPDX-License-Identifier: MIT
** The table of one shard: entries by key, found by linear hashing.
**
** It grows by one bucket at a time (Larson 1988): of N buckets with
** 2^L <= N < 2^(L+1), a key's bucket is hash mod 2^(L+1), or, where that one
** does not exist yet, hash mod 2^L.  Adding bucket N moves the entries of
** bucket N - 2^L that belong there now.  Nothing is ever moved in bulk, and
** the table never shrinks.
**
** LOCKING
**
**   1. A table is changed only by the holder of its shard's mutex, between
**      egi_table_begin and egi_table_end, which make `seq` odd and even
**      again.  A block that nothing points at may be written outside of them:
**      whoever may still be reading it has seen an older seq.
**   2. The holder of the mutex reads without further ado.
**   3. egi_table_glance reads without the mutex: seq, what it wants, and seq
**      again.  If seq was even and is the same, all that it read was there at
**      one moment.  If not, it may have met anything: entries half written,
**      blocks that are something else by now, chains that run in a circle.
**      So it follows only indexes that egi_arena_peek accepts, counts its
**      steps, copies no more than its buffer has, and says that it knows
**      nothing.
**   4. There are no fences.  Every word it may meet is atomic; it loads with
**      acquire and the writer stores with release (egi_get, egi_set), so who
**      has met a new word meets a new seq behind it.
**   5. Large records are outside the arena and are freed when they are
**      replaced: nobody looks at one without the mutex.
**   6. What is counted, above the length of an entry's record, changes under
**      the mutex and without seq: nobody looks at it without the mutex, and
**      the length stays what it is.
*/
#ifndef EG_STORE_MEMORY_TABLE_H
#define EG_STORE_MEMORY_TABLE_H

#include <string.h>

#include "core/codec.h"
#include "store/arena.h"
#include "store/store.h"

/* A key, and what is computed of it once.  The low bits of its hash are the
** table's; the upper ones chose the shard. */
typedef struct egi_key {
  eg_bytes bytes;
  uint64_t last, mask; /* its last word, if that is not whole, and which bits
                          of it count */
  uint32_t hash;
} egi_key;

/*
** An entry: its head, the key's bytes, and behind them without a gap those of
** the record.  A large record is elsewhere: then a pointer to it is in the
** first whole word behind the key.  Of others the length needs few bits, and
** above them stands what is counted of the key, as long as that is little.
*/
typedef struct egi_entry {
  _Atomic uint32_t next;
  _Atomic uint32_t hash;
  egi_word version;       /* 54 bits, 10: length of the key - 1 */
  egi_word token;         /* 54 bits, 10: flags */
  _Atomic uint32_t len;   /* of the record; 0: none.  Unless it is large: 11
                             bits cached, 11: blocked, 10: its length */
  _Atomic uint32_t extra; /* block of an egi_extra, or 0 */
  egi_word data[];
} egi_entry;

enum {
  EGI_LOW_BITS = 10,
  EGI_LOW_MASK = (1 << EGI_LOW_BITS) - 1,
  EGI_COUNT_BITS = 11,
  EGI_COUNT_MAX = (1 << EGI_COUNT_BITS) - 1,
  EGI_CLASS_MASK = 31, /* flags: the class of the block */
  EGI_HELD = 32,       /* the grant has not been ended; see the lease */
  EGI_LARGE = 64,      /* the record is outside */
  EGI_FADES = 128,     /* may become absent by time alone */
  EGI_TIMED = 256,     /* the extra block has times that are set */
  EGI_ENTRY_HEAD = 32, /* bytes, = offsetof(egi_entry, data) */
  EGI_DATA_MAX = EGI_BLOCK_MAX - EGI_ENTRY_HEAD,
  EGI_BUCKETS_FIRST = 16,
  EGI_SEGMENTS = 27
};

/* Points in time by the steady clock. */
#define EGI_NEVER INT64_MAX
#define EGI_LONG_AGO INT64_MIN

typedef struct egi_times {
  int64_t stamp;      /* see egi_sight */
  int64_t lease;      /* the grant ends; EGI_NEVER: it has no lease */
  int64_t not_before; /* EGI_LONG_AGO: none */
  int64_t fresh;      /* EGI_NEVER: no limit */
  int64_t life;       /* EGI_NEVER: no limit */
} egi_times;

#define EGI_NO_TIMES                                                          \
  ((egi_times){0, EGI_NEVER, EGI_LONG_AGO, EGI_NEVER, EGI_NEVER})

/* What only few entries need: those that are held or have a time. */
typedef struct egi_extra {
  egi_word times[5]; /* egi_times, if EGI_TIMED */
  egi_word owner;    /* the handle that holds it, as a number; 0: nobody */
  egi_word sizes;    /* length of the holder line; << 32: class of the block */
  egi_word holder[];
} egi_extra;

enum {
  EGI_EXTRA_HEAD = 56, /* bytes, = offsetof(egi_extra, holder) */
  EGI_EXTRA_MAX = EGI_EXTRA_HEAD + EGI_HOLDER_MAX
};

/* What an entry says, in plain words.  Bytes and holder are the entry's own,
** or a copy that egi_table_glance made. */
typedef struct egi_view {
  uint64_t version, token;
  eg_bytes bytes, holder;
  bool held;  /* the grant has not been ended */
  bool timed; /* there are times; else `times` is not filled */
  egi_times times;
} egi_view;

typedef struct egi_glance {
  egi_view view;
  uint64_t data[EGI_DATA_MAX / 8 + 1];
  uint64_t holder[EGI_HOLDER_MAX / 8];
} egi_glance;

typedef struct egi_table {
  egi_word seq; /* odd: being written */
  _Atomic uint32_t buckets;
  uint32_t count; /* of entries */
  egi_arena arena;
  /* Segment k has 16 * 2^k buckets, made when the first of them is needed. */
  _Atomic(_Atomic uint32_t *) segments[EGI_SEGMENTS];
  _Atomic uint32_t first[EGI_BUCKETS_FIRST];
} egi_table;

void egi_table_init(egi_table *table, const eg_env *env);

/* egi_table_free: frees the arena and the segments, not large records. */
void egi_table_free(egi_table *table);

/* egi_table_begin, egi_table_end: around each change. */
static inline void egi_table_begin(egi_table *table) {
  uint64_t seq = egi_own(&table->seq);
  assert(seq % 2 == 0);
  atomic_store_explicit(&table->seq, seq + 1, memory_order_relaxed);
}

static inline void egi_table_end(egi_table *table) {
  uint64_t seq = egi_own(&table->seq);
  assert(seq % 2 == 1);
  egi_set(&table->seq, seq + 1);
}

/* egi_key_init: of a hash, the low half counts here. */
void egi_key_init(egi_key *key, eg_bytes bytes, uint32_t hash);

/* Where an entry is: what points at it, its block, itself; NULL: nowhere, and
** its chain begins at link.  Good until the table changes. */
typedef struct egi_spot {
  _Atomic uint32_t *link;
  uint32_t block;
  egi_entry *entry;
} egi_spot;

/* egi_table_find: the entry of a key, or where it would be. */
void egi_table_find(const egi_table *table, const egi_key *key,
                    egi_spot *spot);

/* egi_table_chain: the first entry of a bucket.  egi_table_next: the one
** behind it; after that one was taken out, what is now in its place. */
void egi_table_chain(const egi_table *table, uint32_t bucket, egi_spot *spot);
void egi_table_next(const egi_table *table, egi_spot *spot);

typedef enum egi_glimpse { EGI_TORN, EGI_FOUND, EGI_MISSING } egi_glimpse;

/* egi_table_glance: as it was at one moment, without the mutex.  TORN: it is
** being written, or large. */
egi_glimpse egi_table_glance(const egi_table *table, const egi_key *key,
                             egi_glance *glance);

/* egi_table_peek: the same, of an entry that nobody holds and that has no
** times: its token, and as much of its record as fits EGI_PEEK_ROOM with the
** rest of a word before and behind it.  TORN: also for every other entry. */
egi_glimpse egi_table_peek(const egi_table *table, const egi_key *key,
                           unsigned char *room, eg_bytes *bytes,
                           uint64_t *token);

/* egi_table_link, _unlink, _exchange: puts an entry where it would be, takes
** one out, puts one in the place of another with the same key.  Between begin
** and end. */
static inline void egi_table_link(egi_table *table, const egi_spot *spot,
                                  uint32_t block);
static inline void egi_table_unlink(egi_table *table, const egi_spot *spot);
static inline void egi_table_exchange(egi_table *table, const egi_spot *spot,
                                      uint32_t block);

/* egi_table_grow: adds a bucket, if there is memory.  Between begin and end.
** egi_table_crowded: is it time to? */
void egi_table_grow(egi_table *table);

static inline bool egi_table_crowded(const egi_table *table) {
  uint32_t buckets = egi_own(&table->buckets);
  return table->count > buckets;
}

static inline egi_entry *egi_entry_at(const egi_table *table, uint32_t block) {
  return (egi_entry *)(void *)egi_arena_at(&table->arena, block);
}

static inline egi_extra *egi_extra_at(const egi_table *table, uint32_t block) {
  return (egi_extra *)(void *)egi_arena_at(&table->arena, block);
}

static inline void egi_table_link(egi_table *table, const egi_spot *spot,
                                  uint32_t block) {
  egi_set(&egi_entry_at(table, block)->next, egi_own(spot->link));
  egi_set(spot->link, block);
  table->count++;
}

static inline void egi_table_unlink(egi_table *table, const egi_spot *spot) {
  assert(egi_own(spot->link) == spot->block);
  egi_set(spot->link, egi_own(&spot->entry->next));
  table->count--;
}

static inline void egi_table_exchange(egi_table *table, const egi_spot *spot,
                                      uint32_t block) {
  assert(egi_own(spot->link) == spot->block);
  egi_set(&egi_entry_at(table, block)->next, egi_own(&spot->entry->next));
  egi_set(spot->link, block);
}

static inline unsigned egi_entry_flags(const egi_entry *entry) {
  return (unsigned)(egi_own(&entry->token) & EGI_LOW_MASK);
}

/* egi_entry_len: of the record. */
static inline size_t egi_entry_len(const egi_entry *entry) {
  uint32_t len = egi_own(&entry->len);
  return egi_entry_flags(entry) & EGI_LARGE ? len : len & EGI_LOW_MASK;
}

static inline size_t egi_entry_key_len(const egi_entry *entry) {
  return (size_t)(egi_own(&entry->version) & EGI_LOW_MASK) + 1;
}

static inline eg_bytes egi_entry_key(const egi_entry *entry) {
  return (eg_bytes){(const void *)entry->data, egi_entry_key_len(entry)};
}

/* egi_entry_large: where the pointer to a large record is. */
static inline egi_word *egi_entry_large(egi_entry *entry) {
  return entry->data + (egi_entry_key_len(entry) + 7) / 8;
}

/* egi_extra_read, egi_extra_write: its times. */
static inline void egi_extra_read(const egi_extra *extra, egi_times *times) {
  times->stamp = (int64_t)egi_get(&extra->times[0]);
  times->lease = (int64_t)egi_get(&extra->times[1]);
  times->not_before = (int64_t)egi_get(&extra->times[2]);
  times->fresh = (int64_t)egi_get(&extra->times[3]);
  times->life = (int64_t)egi_get(&extra->times[4]);
}

static inline void egi_extra_write(egi_extra *extra, const egi_times *times) {
  egi_set(&extra->times[0], (uint64_t)times->stamp);
  egi_set(&extra->times[1], (uint64_t)times->lease);
  egi_set(&extra->times[2], (uint64_t)times->not_before);
  egi_set(&extra->times[3], (uint64_t)times->fresh);
  egi_set(&extra->times[4], (uint64_t)times->life);
}

/* egi_entry_view: what an entry says; under the mutex. */
static inline void egi_entry_view(const egi_table *table,
                                  const egi_entry *entry, egi_view *view) {
  uint64_t token = egi_own(&entry->token);
  uint64_t version = egi_own(&entry->version);
  size_t key_len = (size_t)(version & EGI_LOW_MASK) + 1;
  view->version = version >> EGI_LOW_BITS;
  view->token = token >> EGI_LOW_BITS;
  view->held = token & EGI_HELD;
  view->timed = token & EGI_TIMED;
  view->bytes.len = egi_entry_len(entry);
  view->bytes.data = (const char *)(const void *)entry->data + key_len;
  if (token & EGI_LARGE)
    view->bytes.data = (const void *)(uintptr_t)egi_own(
        &entry->data[(key_len + 7) / 8]);
  view->holder = (eg_bytes){NULL, 0};
  if (!view->held && !view->timed)
    return;
  const egi_extra *extra = egi_extra_at(table, egi_own(&entry->extra));
  if (view->timed)
    egi_extra_read(extra, &view->times);
  view->holder.data = (const void *)extra->holder;
  view->holder.len = (uint32_t)egi_own(&extra->sizes);
}

/* egi_set_key: writes a key at the start of data. */
static inline void egi_set_key(egi_word *data, const egi_key *key) {
  const unsigned char *from = key->bytes.data;
  size_t whole = key->bytes.len / 8;
  for (size_t i = 0; i < whole; i++) {
    uint64_t word;
    memcpy(&word, from + 8 * i, 8);
    egi_set(&data[i], word);
  }
  if (key->mask != 0)
    egi_set(&data[whole], key->last);
}

/* egi_set_bytes: writes n bytes, `at` bytes behind the start of words. */
void egi_set_bytes(egi_word *words, size_t at, const void *bytes, size_t n);

/* egi_times_set: is any? */
static inline bool egi_times_set(const egi_times *times) {
  return times->lease != EGI_NEVER || times->not_before != EGI_LONG_AGO ||
         times->fresh != EGI_NEVER || times->life != EGI_NEVER;
}

#endif
