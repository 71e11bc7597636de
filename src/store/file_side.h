/* SPDX-License-Identifier: MIT
** The side file DIR/guard.shm: what the processes of one machine share without
** asking the database.
**
**   head     magic, layout, the machine's boot, the clock, the counter, the
**            mutex of the database's writers
**   shards   a mutex each, and a word that is waited on
**   tags     of each slot half of its key's hash; 0: the slot is free
**   filter   a bit for the hash of every key that may have a row
**   slots    keys that are held, or of which more is known than their row says
**
** The file is mapped as large as it may become; what is used of it has blocks
** on the disk (a hole on a full disk would be a SIGBUS).  Its layout has a
** number; another one is refused.
**
** CRASHES.  A process may be killed between any two stores.  A slot is filled
** while its tag is 0, and the tag is written last; to free it is to write its
** tag.  A key has at most one slot, but for that moment: the newer counts.
** Whoever finds that the last holder of a shard's mutex died goes through the
** shard's slots and compares each with its row (`suspect`, file_look.c).
*/
#ifndef EG_STORE_FILE_SIDE_H
#define EG_STORE_FILE_SIDE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "store/store.h"

enum {
  EGI_SHARDS = 64,
  EGI_SHARD_SLOTS = 256, /* at most */
  EGI_SLOT_STEP = 8,     /* a shard gets so many at a time */
  EGI_SLOT_BYTES = 192,  /* of a record that is in the slot */
  EGI_FILTER_WORDS = (1 << 20) / 64,
  EGI_LINE_MAX = 384 /* of a lock file, for people */
};

typedef struct egi_slot {
  uint64_t hash2;
  uint64_t version, token;
  uint64_t base;    /* version of the row below it; 0: none */
  uint64_t process; /* nonce of who holds it */
  int64_t stamp, lease, not_before, fresh, life, since; /* directory's clock */
  uint64_t check; /* of bytes and key, if in_slot */
  uint32_t len;   /* of the record, wherever it is */
  uint32_t pid;
  uint8_t held, in_slot, line, unused;
  uint16_t holder_len, name_len, key_len;
  uint32_t progress;       /* as in egi_sight, if of the grant that has */
  uint32_t progress_token; /* this as the lower half of its token */
  uint32_t pad;
  unsigned char holder[EGI_HOLDER_MAX];
  unsigned char bytes[EGI_SLOT_BYTES];
  unsigned char text[EG_NAME_MAX + EG_KEY_MAX + 8]; /* name, then key */
} egi_slot;

typedef struct egi_side_shard {
  _Alignas(128) pthread_mutex_t mutex;
  _Atomic uint32_t wakes; /* a futex: changes with every wake-up */
  _Atomic uint32_t waiters;
  uint32_t suspect;
} egi_side_shard;

typedef struct egi_side_head {
  char magic[8];
  uint32_t layout;
  _Atomic uint32_t rows; /* slots that each shard has */
  char boot[40];
  int64_t base_us; /* directory's clock = steady clock + this */
  _Atomic int64_t last_us;
  uint64_t seed;
  _Alignas(64) _Atomic uint64_t counter;
  _Atomic uint32_t has_db;   /* there may be rows */
  _Atomic uint32_t filtered; /* the filter knows all of them */
  _Atomic uint32_t database; /* twice for each rebuild of guard.db; odd: one
                              ** is about to put it in its place */
  _Alignas(64) pthread_mutex_t grow;
  _Alignas(64) pthread_mutex_t writer;
  _Alignas(128) egi_side_shard shards[EGI_SHARDS];
  _Alignas(64) _Atomic uint64_t tags[EGI_SHARDS][EGI_SHARD_SLOTS];
  _Atomic uint64_t filter[EGI_FILTER_WORDS];
} egi_side_head;

typedef struct egi_side {
  egi_side_head *head;
  egi_slot *slots;
  size_t size;
  int fd;
  dev_t dev;
  ino_t ino;
} egi_side;

struct egi_dir;
struct egi_at;

eg_status egi_side_open(struct egi_dir *dir, const eg_clock *clock,
                        eg_error *error);
void egi_side_close(egi_side *side);

enum { EGI_PATIENCE_MS = 20000 };

/* egi_mutex_lock: a robust mutex, for at most EGI_PATIENCE_MS, or as long as
** is said.  *died: its last owner did. */
eg_status egi_mutex_lock_within(pthread_mutex_t *mutex, int ms, bool *died,
                                eg_error *error);
eg_status egi_mutex_lock(pthread_mutex_t *mutex, bool *died, eg_error *error);

/* egi_mutex_try: the same, if nobody has it; an errno. */
int egi_mutex_try(pthread_mutex_t *mutex, bool *died);
void egi_mutex_unlock(pthread_mutex_t *mutex);

/* egi_side_number: the next of the one counter, at least the clock's. */
uint64_t egi_side_number(egi_side_head *head, int64_t now_us);
void egi_side_at_least(egi_side_head *head, uint64_t number);

static inline egi_slot *egi_slot_at(const egi_side *side, unsigned shard,
                                    unsigned row) {
  return &side->slots[row * EGI_SHARDS + shard];
}

/* egi_slot_find: the slot of a key; row: which.  NULL: it has none. */
egi_slot *egi_slot_find(const egi_side *side, unsigned shard, uint64_t hash,
                        uint64_t hash2, unsigned *row);

/* egi_slot_none: no slot has that tag?  Without the mutex. */
static inline bool egi_slot_none(const egi_side *side, unsigned shard,
                                 uint64_t hash) {
  const egi_side_head *head = side->head;
  unsigned rows = atomic_load_explicit(&head->rows, memory_order_acquire);
  for (unsigned i = 0; i < rows; i++)
    if (atomic_load_explicit(&head->tags[shard][i], memory_order_acquire) ==
        hash)
      return false;
  return true;
}

/* egi_slot_free_row: a free slot of the shard, made if there is room for more;
** -1: none. */
int egi_slot_free_row(egi_side *side, unsigned shard);

static inline void egi_slot_publish(egi_side *side, unsigned shard,
                                    unsigned row, uint64_t hash) {
  atomic_store_explicit(&side->head->tags[shard][row], hash,
                        memory_order_release);
}

/* egi_slot_sum: what `check` of a slot should be. */
uint64_t egi_slot_sum(const egi_slot *slot);

static inline _Atomic uint64_t *egi_filter_word(egi_side_head *head,
                                                uint64_t hash2) {
  return &head->filter[(hash2 >> 6) % EGI_FILTER_WORDS];
}

/* egi_filter_may: may that key have a row? */
static inline bool egi_filter_may(egi_side_head *head, uint64_t hash2) {
  if (!atomic_load_explicit(&head->has_db, memory_order_acquire))
    return false;
  return !atomic_load_explicit(&head->filtered, memory_order_acquire) ||
         (atomic_load_explicit(egi_filter_word(head, hash2),
                               memory_order_relaxed) >>
              (hash2 & 63) &
          1) != 0;
}

static inline void egi_filter_add(egi_side_head *head, uint64_t hash2) {
  _Atomic uint64_t *word = egi_filter_word(head, hash2);
  uint64_t bit = UINT64_C(1) << (hash2 & 63);
  if ((atomic_load_explicit(word, memory_order_relaxed) & bit) == 0)
    atomic_fetch_or(word, bit);
}

#endif
