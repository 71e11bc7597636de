/* SPDX-License-Identifier: MIT
** Which MessagePack values a record may hold: vectors written by hand from the
** specification, https://github.com/msgpack/msgpack/blob/master/spec.md.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/codec.h"

typedef struct sample {
  const char *what, *bytes;
  size_t len;
} sample;

#define SAMPLE(what, literal)                                                 \
  { what, literal, sizeof(literal) - 1 }
#define COUNT(samples) (sizeof(samples) / sizeof *(samples))

static const char *check(const void *bytes, size_t len) {
  void *copy = malloc(len > 0 ? len : 1);
  assert_non_null(copy);
  if (len > 0)
    memcpy(copy, bytes, len);
  const char *why = egi_check_value((eg_bytes){copy, len});
  free(copy);
  return why;
}

static const sample good[] = {
    SAMPLE("nil", "\xc0"),
    SAMPLE("false", "\xc2"),
    SAMPLE("true", "\xc3"),
    SAMPLE("0", "\x00"),
    SAMPLE("127, positive fixint", "\x7f"),
    SAMPLE("-1, negative fixint", "\xff"),
    SAMPLE("-32, negative fixint", "\xe0"),
    SAMPLE("128, uint 8", "\xcc\x80"),
    SAMPLE("256, uint 16", "\xcd\x01\x00"),
    SAMPLE("65536, uint 32", "\xce\x00\x01\x00\x00"),
    SAMPLE("2^32, uint 64", "\xcf\x00\x00\x00\x01\x00\x00\x00\x00"),
    SAMPLE("2^64-1, uint 64", "\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
    SAMPLE("-33, int 8", "\xd0\xdf"),
    SAMPLE("-129, int 16", "\xd1\xff\x7f"),
    SAMPLE("-32769, int 32", "\xd2\xff\xff\x7f\xff"),
    SAMPLE("-2^63, int 64", "\xd3\x80\x00\x00\x00\x00\x00\x00\x00"),
    SAMPLE("0.5, float 32", "\xca\x3f\x00\x00\x00"),
    SAMPLE("0.1, float 64", "\xcb\x3f\xb9\x99\x99\x99\x99\x99\x9a"),
    SAMPLE("infinity", "\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00"),
    SAMPLE("not a number", "\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"),
    SAMPLE("empty string", "\xa0"),
    SAMPLE("fixstr", "\xa3"
                     "abc"),
    SAMPLE("str 8", "\xd9\x03"
                    "abc"),
    SAMPLE("str 16", "\xda\x00\x03"
                     "abc"),
    SAMPLE("str 32", "\xdb\x00\x00\x00\x03"
                     "abc"),
    SAMPLE("string of no UTF-8", "\xa2\xff\x00"),
    SAMPLE("bin 8", "\xc4\x02\x00\xff"),
    SAMPLE("bin 16", "\xc5\x00\x02\x00\xff"),
    SAMPLE("bin 32", "\xc6\x00\x00\x00\x02\x00\xff"),
    SAMPLE("empty bin", "\xc4\x00"),
    SAMPLE("empty array", "\x90"),
    SAMPLE("empty map", "\x80"),
    SAMPLE("[1,[2],{}]", "\x93\x01\x91\x02\x80"),
    SAMPLE("array 16", "\xdc\x00\x02\xc0\xc3"),
    SAMPLE("array 32", "\xdd\x00\x00\x00\x01\x07"),
    SAMPLE("map of every key", "\x83\xa1"
                               "k\x01\x05\x02\xd0\xdf\x03"),
    SAMPLE("map 16", "\xde\x00\x01\x01\x02"),
    SAMPLE("map 32", "\xdf\x00\x00\x00\x01\x01\x02"),
    SAMPLE("{a={b=[nil]}}", "\x81\xa1"
                            "a\x81\xa1"
                            "b\x91\xc0"),
    SAMPLE("containers as values of a map", "\x82\x01\x92\x01\x02\x02\x80"),
};

static const sample bad[] = {
    SAMPLE("nothing", ""),
    SAMPLE("never used", "\xc1"),
    SAMPLE("two values", "\x01\x02"),
    SAMPLE("a value and a byte", "\x91\x01\xc0"),
    SAMPLE("fixext 1", "\xd4\x05\x00"),
    SAMPLE("fixext 2", "\xd5\x05\x00\x00"),
    SAMPLE("fixext 4, a timestamp", "\xd6\xff\x00\x00\x00\x00"),
    SAMPLE("fixext 8", "\xd7\xff\x00\x00\x00\x00\x00\x00\x00\x00"),
    SAMPLE("fixext 16", "\xd8\x01"
                        "0123456789abcdef"),
    SAMPLE("ext 8", "\xc7\x01\x05\x00"),
    SAMPLE("ext 8 of nothing", "\xc7\x00\x05"),
    SAMPLE("ext 16", "\xc8\x00\x01\x05\x00"),
    SAMPLE("ext 32", "\xc9\x00\x00\x00\x01\x05\x00"),
    SAMPLE("an extension inside", "\x92\x01\xd4\x05\x00"),
    SAMPLE("nil as a key", "\x81\xc0\x01"),
    SAMPLE("true as a key", "\x81\xc3\x01"),
    SAMPLE("a float as a key", "\x81\xca\x3f\x00\x00\x00\x01"),
    SAMPLE("an array as a key", "\x81\x90\x01"),
    SAMPLE("a map as a key", "\x81\x80\x01"),
    SAMPLE("the second key is nil", "\x82\x01\x01\xc0\x01"),
    SAMPLE("a key after a container is nil", "\x82\x01\x91\x05\xc0\x01"),
    SAMPLE("array that lacks one", "\x92\x01"),
    SAMPLE("map that lacks a value", "\x81\x01"),
    SAMPLE("string that lacks one", "\xa3"
                                    "ab"),
    SAMPLE("number cut short", "\xcd\x01"),
    SAMPLE("str 32 of 4 GiB", "\xdb\xff\xff\xff\xff"
                              "abc"),
    SAMPLE("bin 32 of 4 GiB", "\xc6\xff\xff\xff\xff\x00"),
    SAMPLE("array 32 of 2^32-1", "\xdd\xff\xff\xff\xff\x01\x02"),
    SAMPLE("map 32 of 2^32-1", "\xdf\xff\xff\xff\xff\x01\x02\x01"),
    SAMPLE("map 32 of 2^31, twice that is 2^32", "\xdf\x80\x00\x00\x00"),
};

static void value_of_every_type_is_taken(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT(good); i++) {
    const char *why = check(good[i].bytes, good[i].len);
    if (why != NULL)
      fail_msg("%s: %s", good[i].what, why);
  }
}

static void value_that_is_none_is_refused(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT(bad); i++)
    if (check(bad[i].bytes, bad[i].len) == NULL)
      fail_msg("taken: %s", bad[i].what);
}

static void value_cut_anywhere_is_refused(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT(good); i++)
    for (size_t len = 0; len < good[i].len; len++)
      if (check(good[i].bytes, len) == NULL)
        fail_msg("%s, its first %zu bytes", good[i].what, len);
}

/* A value in a record is refused and taken as it is alone. */
static void value_in_a_record_is_judged_alike(void **state) {
  (void)state;
  unsigned char out[128];
  egi_record back;
  for (size_t i = 0; i < COUNT(good) + COUNT(bad); i++) {
    bool taken = i < COUNT(good);
    const sample *s = taken ? &good[i] : &bad[i - COUNT(good)];
    egi_record record = {
        .head = {.status = EG_RUN_COMPLETED, .kind = EG_KIND_VALUE},
        .count = 300,
        .value = {s->bytes, s->len}};
    size_t n = egi_encode(&record, out, sizeof out);
    assert_true(n <= sizeof out);
    if (egi_decode((eg_bytes){out, n}, &back) != taken)
      fail_msg("%s: not judged alike", s->what);
    if (taken)
      assert_memory_equal(back.value.data, s->bytes, s->len);
  }
}

static size_t nest(unsigned char *out, int levels, int map) {
  size_t n = 0;
  for (int i = 0; i < levels; i++) {
    out[n++] = map ? 0x81 : 0x91;
    if (map)
      out[n++] = 0x01;
  }
  out[n++] = 0x2a;
  return n;
}

static void value_of_100_levels_is_taken_and_of_101_refused(void **state) {
  (void)state;
  unsigned char out[256];
  for (int map = 0; map <= 1; map++) {
    assert_null(check(out, nest(out, EG_DEPTH_MAX, map)));
    assert_non_null(check(out, nest(out, EG_DEPTH_MAX + 1, map)));
  }
  assert_null(check("\x92\x91\x91\x01\x91\x91\x01", 7));
}

static void empty_container_at_level_101_is_refused(void **state) {
  (void)state;
  unsigned char out[256];
  size_t n = nest(out, EG_DEPTH_MAX, 0);
  out[n - 1] = 0x90;
  assert_non_null(check(out, n));
}

static void levels_side_by_side_do_not_add_up(void **state) {
  (void)state;
  unsigned char out[1 + 4 * 300];
  size_t n = 0;
  out[n++] = 0xdc;
  out[n++] = 0x01;
  out[n++] = 0x2c;
  for (int i = 0; i < 300; i++) {
    out[n++] = 0x91;
    out[n++] = 0x90;
  }
  assert_null(check(out, n));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(value_of_every_type_is_taken),
      cmocka_unit_test(value_that_is_none_is_refused),
      cmocka_unit_test(value_cut_anywhere_is_refused),
      cmocka_unit_test(value_in_a_record_is_judged_alike),
      cmocka_unit_test(value_of_100_levels_is_taken_and_of_101_refused),
      cmocka_unit_test(empty_container_at_level_101_is_refused),
      cmocka_unit_test(levels_side_by_side_do_not_add_up),
  };
  return cmocka_run_group_tests_name("values", tests, NULL, NULL);
}
