/* SPDX-License-Identifier: MIT
** The arena: sizes, indexes, what is given back, and running out.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "store/arena.h"

#include <cmocka.h>

/* An allocator that knows how much is out, and can be made to fail. */
static size_t out;
static int allocs_left; /* -1: as many as wanted */

static void *counted(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud;
  if (nsize > osize && allocs_left == 0)
    return NULL;
  if (nsize > osize && allocs_left > 0)
    allocs_left--;
  out += nsize - osize;
  if (nsize > 0)
    return realloc(ptr, nsize);
  free(ptr);
  return NULL;
}

static const eg_env env = {.alloc = counted};
static egi_arena arena;

static int begin(void **state) {
  (void)state;
  out = 0;
  allocs_left = -1;
  egi_arena_init(&arena, &env);
  return 0;
}

static int end(void **state) {
  (void)state;
  egi_arena_free(&arena);
  assert_int_equal(out, 0);
  return 0;
}

static void class_is_the_smallest_that_is_large_enough(void **state) {
  (void)state;
  for (size_t size = 1; size <= EGI_BLOCK_MAX; size++) {
    unsigned c = egi_block_class(size);
    assert_in_range(c, 0, EGI_BLOCK_CLASSES - 1);
    assert_true(egi_block_size(c) >= size);
    if (c > 0)
      assert_true(egi_block_size(c - 1) < size);
  }
}

static void index_names_chunk_and_unit_without_gaps(void **state) {
  (void)state;
  static const uint32_t starts[] = {1u << 8,  1u << 9,  1u << 23, 1u << 24,
                                    2u << 24, 3u << 24, 48u << 24};
  static const unsigned chunks[] = {0, 1, 15, 16, 17, 18, 63};
  for (unsigned i = 0; i < sizeof starts / sizeof *starts; i++) {
    uint32_t unit, units;
    assert_int_equal(egi_chunk_of(starts[i], &unit, &units), chunks[i]);
    assert_int_equal(unit, 0);
    if (i == 0)
      continue;
    assert_int_equal(egi_chunk_of(starts[i] - 1, &unit, &units),
                     chunks[i] - 1);
    assert_int_equal(unit, units - 1);
  }
}

/* Allocates a block and fills all of it. */
static uint32_t filled(unsigned block_class, unsigned char with) {
  uint32_t block = egi_arena_alloc(&arena, block_class);
  assert_int_not_equal(block, 0);
  memset((void *)egi_arena_at(&arena, block), with,
         egi_block_size(block_class));
  return block;
}

static void blocks_do_not_overlap(void **state) {
  (void)state;
  enum { N = 4000 };
  static uint32_t blocks[N];
  for (unsigned i = 0; i < N; i++)
    blocks[i] = filled(i % EGI_BLOCK_CLASSES, (unsigned char)i);
  for (unsigned i = 0; i < N; i++) {
    const unsigned char *at = (const void *)egi_arena_at(&arena, blocks[i]);
    assert_int_equal((uintptr_t)at % EGI_UNIT, 0);
    for (size_t j = 0; j < egi_block_size(i % EGI_BLOCK_CLASSES); j++)
      assert_int_equal(at[j], (unsigned char)i);
  }
}

static void block_given_back_is_the_next_of_its_class(void **state) {
  (void)state;
  uint32_t a = filled(3, 1), b = filled(3, 2), other = filled(4, 3);
  egi_arena_release(&arena, a, 3);
  egi_arena_release(&arena, b, 3);
  assert_int_not_equal(egi_arena_alloc(&arena, 4), other);
  assert_int_equal(egi_arena_alloc(&arena, 3), b);
  assert_int_equal(egi_arena_alloc(&arena, 3), a);
}

static void first_chunk_is_small(void **state) {
  (void)state;
  assert_int_equal(out, 0);
  filled(0, 0);
  assert_int_equal(out, 2048);
}

static void rest_of_a_chunk_is_not_lost(void **state) {
  (void)state;
  size_t taken = 0;
  unsigned large = EGI_BLOCK_CLASSES - 1;
  for (; arena.used < 2; taken += egi_block_size(large))
    filled(large, 0);
  taken -= egi_block_size(large); /* that one is in the second chunk */
  for (unsigned c = 0; c < EGI_BLOCK_CLASSES; c++)
    for (; arena.free[c] != 0; taken += egi_block_size(c))
      filled(c, 0);
  assert_in_range(taken, 2048 - egi_block_size(0) + 1, 2048);
}

static void peek_of_an_index_outside_is_nothing(void **state) {
  (void)state;
  size_t words = 0;
  uint32_t block = filled(0, 0);
  for (uint32_t i = 0; i < 256; i++)
    assert_null(egi_arena_peek(&arena, i, &words));
  assert_ptr_equal(egi_arena_peek(&arena, block, &words),
                   egi_arena_at(&arena, block));
  assert_int_equal(words, 256);
  assert_non_null(egi_arena_peek(&arena, 511, &words));
  assert_int_equal(words, 1);
  assert_null(egi_arena_peek(&arena, 512, &words));
  assert_null(egi_arena_peek(&arena, 1u << 24, &words));
  assert_null(egi_arena_peek(&arena, 49u << 24, &words));
  assert_null(egi_arena_peek(&arena, UINT32_MAX, &words));
}

static void alloc_without_memory_changes_nothing(void **state) {
  (void)state;
  allocs_left = 0;
  assert_int_equal(egi_arena_alloc(&arena, 0), 0);
  allocs_left = 1;
  unsigned n = 0;
  while (egi_arena_alloc(&arena, 0) != 0)
    n++;
  assert_int_equal(n, 2048 / egi_block_size(0));
  assert_int_equal(egi_arena_alloc(&arena, 0), 0);
  assert_int_equal(out, 2048);
  allocs_left = -1;
  assert_int_not_equal(egi_arena_alloc(&arena, 0), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void) {
  static const struct CMUnitTest tests[] = {
      TEST(class_is_the_smallest_that_is_large_enough),
      TEST(index_names_chunk_and_unit_without_gaps),
      TEST(blocks_do_not_overlap),
      TEST(block_given_back_is_the_next_of_its_class),
      TEST(first_chunk_is_small),
      TEST(rest_of_a_chunk_is_not_lost),
      TEST(peek_of_an_index_outside_is_nothing),
      TEST(alloc_without_memory_changes_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
