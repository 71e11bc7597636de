/* SPDX-License-Identifier: MIT
** Blocks of a few dozen bytes that are named by 32 bits instead of 64.
**
** An index counts units of 8 bytes.  Chunk k holds the indexes from
** 2^(8+k) up to 2^(9+k), so the first chunk is 2 KiB and each is as large as
** all before it together, until 128 MiB; from there on all are that large.
** No block has an index below 256: 0 is none.
**
** Whoever owns the arena's lock calls the functions here; egi_arena_peek
** alone needs no lock.  Chunks are not given back before egi_arena_free, so
** somebody without the lock may follow an index that is long out of date: what
** it finds may be anything, but it is always memory of this arena.  Therefore
** every word of a block is atomic, and whoever writes one uses egi_set.
*/
#ifndef EG_STORE_ARENA_H
#define EG_STORE_ARENA_H

#include <assert.h>
#include <stdatomic.h>

#include "executionguard.h"

typedef _Atomic uint64_t egi_word;

enum {
  EGI_UNIT = 8,
  EGI_CHUNK_BITS = 8,      /* units of the first chunk */
  EGI_CHUNK_BITS_MAX = 24, /* and of the largest */
  EGI_CHUNKS = 64,         /* some 6 GiB */
  EGI_BLOCK_CLASSES = 27,  /* of sizes */
  EGI_BLOCK_MAX = 576      /* bytes */
};

typedef struct egi_arena {
  const eg_env *env;                /* its allocator is used, nothing else */
  uint32_t next, end;               /* what is untouched of the newest chunk */
  uint32_t used;                    /* chunks */
  uint32_t free[EGI_BLOCK_CLASSES]; /* chains through the first 32 bits */
  _Atomic(egi_word *) chunks[EGI_CHUNKS];
} egi_arena;

/* A reader without the lock loads with egi_get and egi_get32: nothing that it
** loads later can be older.  A writer stores with egi_set: nothing that it
** stored before can be newer. */
#define egi_get(word) atomic_load_explicit(word, memory_order_acquire)
#define egi_set(word, value)                                                  \
  atomic_store_explicit(word, value, memory_order_release)
/* Under the lock. */
#define egi_own(word) atomic_load_explicit(word, memory_order_relaxed)

/* egi_block_class: the class of blocks that have `size` bytes or a little
** more, for size up to EGI_BLOCK_MAX; egi_block_size: how many they have. */
unsigned egi_block_class(size_t size);
size_t egi_block_size(unsigned block_class);

void egi_arena_init(egi_arena *arena, const eg_env *env);
void egi_arena_free(egi_arena *arena);

/* egi_arena_alloc: a block with any contents; 0: no memory.
** egi_arena_release: gives it back, to be used again soon. */
static inline uint32_t egi_arena_alloc(egi_arena *arena, unsigned block_class);
static inline void egi_arena_release(egi_arena *arena, uint32_t block,
                                     unsigned block_class);

/* egi_arena_cut: alloc, from what is untouched. */
uint32_t egi_arena_cut(egi_arena *arena, unsigned block_class);

/* Which chunk an index is in, which unit of it, and the chunk's units.  Not
** for an index below 256. */
static inline unsigned egi_chunk_of(uint32_t block, uint32_t *unit,
                                    uint32_t *units) {
  unsigned top = 31u - (unsigned)__builtin_clz(block);
  if (top >= EGI_CHUNK_BITS_MAX) {
    *units = 1u << EGI_CHUNK_BITS_MAX;
    *unit = block & (*units - 1);
    return EGI_CHUNK_BITS_MAX - EGI_CHUNK_BITS - 1 +
           (block >> EGI_CHUNK_BITS_MAX);
  }
  *units = 1u << top;
  *unit = block ^ *units;
  return top - EGI_CHUNK_BITS;
}

/* egi_arena_at: where a block is; under the lock. */
static inline egi_word *egi_arena_at(const egi_arena *arena, uint32_t block) {
  uint32_t unit, units;
  unsigned chunk = egi_chunk_of(block, &unit, &units);
  return egi_own(&arena->chunks[chunk]) + unit;
}

/* egi_arena_peek: where a block would be, if this is the index of one, and how
** many words there are from there on; NULL: nowhere.  Without the lock. */
static inline const egi_word *egi_arena_peek(const egi_arena *arena,
                                             uint32_t block, size_t *words) {
  uint32_t unit, units;
  if (block < 1u << EGI_CHUNK_BITS)
    return NULL;
  unsigned chunk = egi_chunk_of(block, &unit, &units);
  if (chunk >= EGI_CHUNKS)
    return NULL;
  const egi_word *start = egi_get(&arena->chunks[chunk]);
  if (start == NULL)
    return NULL;
  *words = units - unit;
  return start + unit;
}

/* The first 32 bits of a block that is free: the next one. */
static inline _Atomic uint32_t *egi_block_link(const egi_arena *arena,
                                               uint32_t block) {
  return (_Atomic uint32_t *)(void *)egi_arena_at(arena, block);
}

static inline uint32_t egi_arena_alloc(egi_arena *arena,
                                       unsigned block_class) {
  uint32_t block = arena->free[block_class];
  if (block == 0)
    return egi_arena_cut(arena, block_class);
  arena->free[block_class] = egi_own(egi_block_link(arena, block));
  return block;
}

static inline void egi_arena_release(egi_arena *arena, uint32_t block,
                                     unsigned block_class) {
  egi_set(egi_block_link(arena, block), arena->free[block_class]);
  arena->free[block_class] = block;
}

#endif
