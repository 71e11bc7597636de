/* SPDX-License-Identifier: MIT
** The arena: a bump pointer through chunks, and free lists by size.
*/
#include "store/arena.h"

/* Steps of 8 bytes at the sizes that nearly every record has, wider ones
** above: at most an eighth of a block is lost there. */
static const uint16_t sizes[EGI_BLOCK_CLASSES] = {
    56,  64,  72,  80,  88,  96,  104, 112, 120, 128, 144, 160, 176, 192,
    208, 224, 240, 256, 288, 320, 352, 384, 416, 448, 480, 512, 576};

unsigned egi_block_class(size_t size) {
  assert(size <= EGI_BLOCK_MAX);
  if (size <= 56)
    return 0;
  if (size <= 128)
    return (unsigned)(size - 56 + 7) / 8;
  if (size <= 256)
    return 9 + (unsigned)(size - 128 + 15) / 16;
  if (size <= 512)
    return 17 + (unsigned)(size - 256 + 31) / 32;
  return EGI_BLOCK_CLASSES - 1;
}

size_t egi_block_size(unsigned block_class) {
  assert(block_class < EGI_BLOCK_CLASSES);
  return sizes[block_class];
}

void egi_arena_init(egi_arena *arena, const eg_env *env) {
  arena->env = env;
  arena->next = arena->end = 0;
  arena->used = 0;
  for (unsigned i = 0; i < EGI_BLOCK_CLASSES; i++)
    arena->free[i] = 0;
  for (unsigned i = 0; i < EGI_CHUNKS; i++)
    atomic_init(&arena->chunks[i], NULL);
}

static uint32_t chunk_units(uint32_t chunk) {
  uint32_t bits = EGI_CHUNK_BITS + chunk;
  return 1u << (bits < EGI_CHUNK_BITS_MAX ? bits : EGI_CHUNK_BITS_MAX);
}

void egi_arena_free(egi_arena *arena) {
  for (uint32_t i = 0; i < arena->used; i++)
    arena->env->alloc(arena->env->alloc_ud, egi_own(&arena->chunks[i]),
                      (size_t)chunk_units(i) * EGI_UNIT, 0);
  egi_arena_init(arena, arena->env);
}

/* The rest of a chunk becomes free blocks; less than a block is lost. */
static void use_up(egi_arena *arena) {
  for (unsigned i = EGI_BLOCK_CLASSES; i-- > 0;) {
    uint32_t units = sizes[i] / EGI_UNIT;
    while (arena->end - arena->next >= units) {
      egi_arena_release(arena, arena->next, i);
      arena->next += units;
    }
  }
}

/* Adds a chunk.  False: no memory, and nothing has changed. */
static bool add_chunk(egi_arena *arena) {
  uint32_t chunk = arena->used;
  if (chunk == EGI_CHUNKS)
    return false;
  uint32_t units = chunk_units(chunk);
  egi_word *start = arena->env->alloc(arena->env->alloc_ud, NULL, 0,
                                      (size_t)units * EGI_UNIT);
  if (start == NULL)
    return false;
  use_up(arena);
  egi_set(&arena->chunks[chunk], start);
  arena->used = chunk + 1;
  uint32_t first = 1u << EGI_CHUNK_BITS;
  for (uint32_t i = 0; i < chunk; i++)
    first += chunk_units(i);
  arena->next = first;
  arena->end = first + units;
  return true;
}

uint32_t egi_arena_cut(egi_arena *arena, unsigned block_class) {
  uint32_t units = sizes[block_class] / EGI_UNIT;
  if (arena->end - arena->next < units && !add_chunk(arena))
    return 0;
  uint32_t block = arena->next;
  arena->next += units;
  return block;
}
