/* SPDX-License-Identifier: MIT
** The table of the memory store: finding, growing, and the reader that has no
** lock.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/memory_table.h"

#include <cmocka.h>

static size_t out;
static bool no_memory;

static void *counted(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud;
  if (nsize > osize && no_memory)
    return NULL;
  out += nsize - osize;
  if (nsize > 0)
    return realloc(ptr, nsize);
  free(ptr);
  return NULL;
}

static const eg_env env = {.alloc = counted};
static egi_table table;

static int begin(void **state) {
  (void)state;
  out = 0;
  no_memory = false;
  egi_table_init(&table, &env);
  return 0;
}

static int end(void **state) {
  (void)state;
  egi_table_free(&table);
  assert_int_equal(out, 0);
  return 0;
}

/* ------------------------------------------------------------- entries -- */

static egi_key key_of(const void *data, size_t len, uint32_t hash) {
  egi_key key;
  egi_key_init(&key, (eg_bytes){data, len}, hash);
  return key;
}

/* A spread that is good enough, and known. */
static uint32_t mixed(uint32_t n) { return n * UINT32_C(2654435761); }

static egi_key numbered(uint32_t n) {
  static char text[16];
  int len = snprintf(text, sizeof text, "key:%u", (unsigned)n);
  return key_of(text, (size_t)len, mixed(n));
}

/* Fills a new entry, which is in no chain yet. */
static uint32_t make_entry(const egi_key *key, const char *record,
                           uint64_t version) {
  size_t len = strlen(record);
  unsigned c = egi_block_class(EGI_ENTRY_HEAD + key->bytes.len + len);
  uint32_t block = egi_arena_alloc(&table.arena, c);
  if (block == 0)
    return 0;
  egi_entry *entry = egi_entry_at(&table, block);
  egi_set(&entry->hash, key->hash);
  egi_set(&entry->version, version << EGI_LOW_BITS | (key->bytes.len - 1));
  egi_set(&entry->token, (version + 1) << EGI_LOW_BITS | c);
  egi_set(&entry->len, (uint32_t)len);
  egi_set(&entry->extra, 0);
  egi_set_key(entry->data, key);
  egi_set_bytes(entry->data, key->bytes.len, record, len);
  return block;
}

static uint32_t insert(const egi_key *key, const char *record,
                       uint64_t version) {
  egi_spot spot;
  uint32_t block = make_entry(key, record, version);
  egi_table_find(&table, key, &spot);
  assert_null(spot.entry);
  egi_table_begin(&table);
  egi_table_link(&table, &spot, block);
  if (egi_table_crowded(&table))
    egi_table_grow(&table);
  egi_table_end(&table);
  return block;
}

static egi_entry *find(const egi_key *key) {
  egi_spot spot;
  egi_table_find(&table, key, &spot);
  return spot.entry;
}

static void take_out(const egi_key *key) {
  egi_spot spot;
  egi_table_find(&table, key, &spot);
  assert_non_null(spot.entry);
  egi_table_begin(&table);
  egi_table_unlink(&table, &spot);
  egi_table_end(&table);
}

/* ---------------------------------------------------------------- keys -- */

static void keys_that_differ_in_one_byte_are_two(void **state) {
  (void)state;
  static char bytes[40], other[40];
  memset(bytes, 'a', sizeof bytes);
  for (size_t len = 1; len <= 33; len++) { /* all with one hash */
    egi_key key = key_of(bytes, len, 7);
    assert_null(find(&key));
    insert(&key, "r", len);
    for (size_t i = 0; i < len; i++) {
      memcpy(other, bytes, sizeof other);
      other[i] = 'b';
      egi_key differs = key_of(other, len, 7);
      assert_null(find(&differs));
    }
  }
  for (size_t len = 1; len <= 33; len++) {
    egi_key key = key_of(bytes, len, 7);
    assert_int_equal(egi_own(&find(&key)->version) >> EGI_LOW_BITS, len);
  }
}

static void key_of_zero_bytes_is_not_a_shorter_one(void **state) {
  (void)state;
  static const char zeroes[8];
  for (size_t len = 1; len <= 8; len++) {
    egi_key key = key_of(zeroes, len, 0);
    assert_null(find(&key));
    insert(&key, "", len);
  }
  assert_int_equal(table.count, 8);
}

static void bytes_are_written_anywhere_and_nowhere_else(void **state) {
  (void)state;
  unsigned char from[48], want[64];
  egi_word words[8];
  for (unsigned i = 0; i < sizeof from; i++)
    from[i] = (unsigned char)(i + 1);
  for (size_t at = 0; at < 16; at++)
    for (size_t n = 0; n <= sizeof from; n++) {
      memset((void *)words, 0xee, sizeof words);
      memset(want, 0xee, sizeof want);
      memcpy(want + at, from, n);
      egi_set_bytes(words, at, from, n);
      assert_memory_equal((void *)words, want, sizeof want);
    }
}

/* ------------------------------------------------------------- growing -- */

static void keys_are_found_while_the_table_grows(void **state) {
  (void)state;
  enum { N = 20000 };
  for (uint32_t i = 0; i < N; i++) {
    egi_key key = numbered(i);
    insert(&key, "record", i + 1);
    if (i % 997 != 0)
      continue;
    for (uint32_t j = 0; j <= i; j += 1 + i / 50) {
      egi_key old = numbered(j);
      assert_non_null(find(&old));
    }
  }
  assert_int_equal(table.count, N);
  uint32_t buckets = egi_own(&table.buckets);
  assert_in_range(buckets, N - 1, N + 1);
  for (uint32_t i = 0; i < N; i++) {
    egi_key key = numbered(i);
    assert_int_equal(egi_own(&find(&key)->version) >> EGI_LOW_BITS, i + 1);
  }
}

static void one_insert_adds_one_bucket_at_most(void **state) {
  (void)state;
  for (uint32_t i = 0; i < 1000; i++) {
    egi_key key = numbered(i);
    uint32_t before = egi_own(&table.buckets);
    insert(&key, "", 1);
    assert_in_range(egi_own(&table.buckets), before, before + 1);
  }
}

static void growth_without_memory_is_put_off(void **state) {
  (void)state;
  uint32_t n = 0;
  while (egi_own(&table.buckets) == EGI_BUCKETS_FIRST) {
    egi_key key = numbered(n++);
    uint32_t block = make_entry(&key, "", 1);
    egi_spot spot;
    egi_table_find(&table, &key, &spot);
    no_memory = n < 40;
    egi_table_begin(&table);
    egi_table_link(&table, &spot, block);
    if (egi_table_crowded(&table))
      egi_table_grow(&table);
    egi_table_end(&table);
    no_memory = false;
  }
  assert_int_equal(n, 40);
  for (uint32_t i = 0; i < n; i++) {
    egi_key key = numbered(i);
    assert_non_null(find(&key));
  }
}

static void entry_taken_out_leaves_the_others(void **state) {
  (void)state;
  for (uint32_t i = 0; i < 500; i++) {
    egi_key key = numbered(i);
    insert(&key, "", 1);
  }
  for (uint32_t i = 0; i < 500; i += 2) {
    egi_key key = numbered(i);
    take_out(&key);
  }
  for (uint32_t i = 0; i < 500; i++) {
    egi_key key = numbered(i);
    assert_int_equal(find(&key) != NULL, i % 2);
  }
  assert_int_equal(table.count, 250);
}

static void entry_is_exchanged_in_its_place(void **state) {
  (void)state;
  char name[] = {'a', 'b', 'c'};
  egi_key keys[3];
  for (int i = 0; i < 3; i++) { /* one chain */
    keys[i] = key_of(&name[i], 1, 5);
    insert(&keys[i], "old", 1);
  }
  for (int i = 0; i < 3; i++) {
    egi_spot spot;
    uint32_t block = make_entry(&keys[i], "new", 2);
    egi_table_find(&table, &keys[i], &spot);
    egi_table_begin(&table);
    egi_table_exchange(&table, &spot, block);
    egi_table_end(&table);
  }
  for (int i = 0; i < 3; i++)
    assert_int_equal(egi_own(&find(&keys[i])->version) >> EGI_LOW_BITS, 2);
  assert_int_equal(table.count, 3);
}

static void walk_goes_on_behind_what_it_takes_out(void **state) {
  (void)state;
  char names[] = "abcdef";
  unsigned seen = 0;
  egi_spot spot;
  for (int i = 0; i < 6; i++) {
    egi_key key = key_of(&names[i], 1, 3);
    insert(&key, "", 1);
  }
  egi_table_chain(&table, 3, &spot);
  for (; spot.entry != NULL; egi_table_next(&table, &spot))
    if (seen++ % 2 == 0) {
      egi_table_begin(&table);
      egi_table_unlink(&table, &spot);
      egi_table_end(&table);
    }
  assert_int_equal(seen, 6);
  assert_int_equal(table.count, 3);
}

/* -------------------------------------------------- without the lock -- */

static void glance_is_what_the_entry_says(void **state) {
  (void)state;
  egi_glance glance;
  egi_key key = numbered(1), none = key_of("none", 4, 1);
  assert_int_equal(egi_table_glance(&table, &key, &glance), EGI_MISSING);
  insert(&key, "some record", 41);
  assert_int_equal(egi_table_glance(&table, &none, &glance), EGI_MISSING);
  assert_int_equal(egi_table_glance(&table, &key, &glance), EGI_FOUND);
  assert_int_equal(glance.view.version, 41);
  assert_int_equal(glance.view.token, 42);
  assert_int_equal(glance.view.bytes.len, 11);
  assert_memory_equal(glance.view.bytes.data, "some record", 11);
  assert_false(glance.view.held);
  assert_false(glance.view.timed);
}

static void glance_copies_the_extra_block(void **state) {
  (void)state;
  egi_glance glance;
  egi_key key = numbered(1);
  egi_times times = {1, 2, 3, 4, 5};
  egi_entry *entry = egi_entry_at(&table, insert(&key, "record", 1));
  unsigned c = egi_block_class(EGI_EXTRA_HEAD + 11);
  uint32_t block = egi_arena_alloc(&table.arena, c);
  egi_extra *extra = egi_extra_at(&table, block);
  egi_extra_write(extra, &times);
  egi_set(&extra->sizes, (uint64_t)c << 32 | 11);
  egi_set_bytes(extra->holder, 0, "holder line", 11);
  egi_set(&entry->extra, block);
  egi_set(&entry->token, egi_own(&entry->token) | EGI_HELD | EGI_TIMED);
  assert_int_equal(egi_table_glance(&table, &key, &glance), EGI_FOUND);
  assert_true(glance.view.held);
  assert_true(glance.view.timed);
  assert_memory_equal(&glance.view.times, &times, sizeof times);
  assert_int_equal(glance.view.holder.len, 11);
  assert_memory_equal(glance.view.holder.data, "holder line", 11);
}

static void glance_while_it_is_written_is_torn(void **state) {
  (void)state;
  egi_glance glance;
  egi_key key = numbered(1);
  insert(&key, "r", 1);
  egi_table_begin(&table);
  assert_int_equal(egi_table_glance(&table, &key, &glance), EGI_TORN);
  egi_table_end(&table);
  assert_int_equal(egi_table_glance(&table, &key, &glance), EGI_FOUND);
}

static void glance_at_a_large_record_is_torn(void **state) {
  (void)state;
  egi_glance glance;
  egi_key key = numbered(1);
  egi_entry *entry = egi_entry_at(&table, insert(&key, "r", 1));
  egi_set(&entry->token, egi_own(&entry->token) | EGI_LARGE);
  assert_int_equal(egi_table_glance(&table, &key, &glance), EGI_TORN);
}

/* What a reader may meet while a block becomes another: here it stays so. */
static void glance_at_nonsense_is_torn(void **state) {
  (void)state;
  egi_glance glance;
  egi_key key = numbered(1), other = numbered(1);
  uint32_t block = insert(&key, "r", 1);
  egi_entry *entry = egi_entry_at(&table, block);
  other.hash ^= UINT32_C(1) << 31; /* the same bucket */
  egi_set(&entry->next, block);
  assert_int_equal(egi_table_glance(&table, &other, &glance), EGI_TORN);
  static const uint32_t wild[] = {1, 255, 511, 512, 1u << 30, UINT32_MAX};
  for (unsigned i = 0; i < sizeof wild / sizeof *wild; i++) {
    egi_set(&entry->next, wild[i]);
    assert_int_equal(egi_table_glance(&table, &other, &glance), EGI_TORN);
  }
  egi_set(&entry->next, 0);
  egi_set(&entry->len, UINT32_MAX);
  assert_int_equal(egi_table_glance(&table, &key, &glance), EGI_TORN);
  egi_set(&entry->len, EGI_DATA_MAX - 5); /* so it fits the copy */
  assert_int_equal(egi_table_glance(&table, &key, &glance), EGI_FOUND);
  egi_set(&entry->token, egi_own(&entry->token) | EGI_HELD);
  egi_set(&entry->extra, 506); /* its head would be half outside */
  assert_int_equal(egi_table_glance(&table, &key, &glance), EGI_TORN);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void) {
  static const struct CMUnitTest tests[] = {
      TEST(keys_that_differ_in_one_byte_are_two),
      TEST(key_of_zero_bytes_is_not_a_shorter_one),
      TEST(bytes_are_written_anywhere_and_nowhere_else),
      TEST(keys_are_found_while_the_table_grows),
      TEST(one_insert_adds_one_bucket_at_most),
      TEST(growth_without_memory_is_put_off),
      TEST(entry_taken_out_leaves_the_others),
      TEST(entry_is_exchanged_in_its_place),
      TEST(walk_goes_on_behind_what_it_takes_out),
      TEST(glance_is_what_the_entry_says),
      TEST(glance_copies_the_extra_block),
      TEST(glance_while_it_is_written_is_torn),
      TEST(glance_at_a_large_record_is_torn),
      TEST(glance_at_nonsense_is_torn),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
