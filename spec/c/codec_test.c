/* SPDX-License-Identifier: MIT
** Records as bytes: what is written is read again, what is damaged is refused
** or harmless, and the vectors of spec/conformance/vectors hold.
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
#include "vectors.h"

enum { ROOM = 4096 };

#define BYTES(literal) ((eg_bytes){literal, sizeof(literal) - 1})

static bool same_bytes(eg_bytes a, eg_bytes b) {
  return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static bool same_head(const egi_head *a, const egi_head *b) {
  return a->absent == b->absent && a->crashed == b->crashed &&
         a->status == b->status && a->kind == b->kind;
}

static bool same(const egi_record *a, const egi_record *b) {
  return same_head(&a->head, &b->head) && a->count == b->count &&
         a->start_us == b->start_us && a->duration_us == b->duration_us &&
         a->last_us == b->last_us && same_bytes(a->value, b->value) &&
         same_bytes(a->error, b->error) && same_bytes(a->trace, b->trace) &&
         same_bytes(a->tally, b->tally);
}

/* A copy of exactly that size, so that a read behind its end is noticed. */
static void *exactly(const void *data, size_t len) {
  void *copy = malloc(len > 0 ? len : 1);
  assert_non_null(copy);
  if (len > 0)
    memcpy(copy, data, len);
  return copy;
}

static size_t encode(const egi_record *record, unsigned char *out) {
  size_t n = egi_encode(record, out, ROOM);
  assert_true(n <= ROOM);
  return n;
}

static void assert_round_trip(const egi_record *record) {
  unsigned char out[ROOM];
  egi_record back;
  egi_head head;
  size_t n = encode(record, out);
  const unsigned char *bytes = out;
  assert_true(egi_decode_head((eg_bytes){bytes, 3}, &head));
  assert_true(same_head(&head, &record->head));
  assert_true(egi_decode((eg_bytes){bytes, n}, &back));
  assert_true(same(record, &back));
  if (record->head.kind == EG_KIND_VALUE) {
    eg_bytes value;
    assert_true(egi_decode_value((eg_bytes){bytes, n}, &value));
    assert_true(same_bytes(value, record->value));
  }
}

/* A record with something in every field. */
static egi_record full(void) {
  egi_record record = {
      .head = {.status = EG_RUN_FAILED, .kind = EG_KIND_VALUE},
      .count = 70000,
      .start_us = INT64_C(1767225600000000),
      .duration_us = 2500000,
      .last_us = INT64_C(1767225000000000),
      .value = BYTES("\x82\xa1"
                     "a\x93\x01\xc0\xcb\x40\x09\x21\xfb\x54\x44\x2d\x18\x02"
                     "\xd9\x20"
                     "0123456789abcdef0123456789abcdef"),
      .error = BYTES("config.lua:3: no such table"),
      .trace = BYTES("stack traceback:\n\t[C]: in function 'error'"),
      .tally = BYTES("\x97\x01\x02\xcd\x10\x00\x05\x03\xcc\x80\x01")};
  return record;
}

/* --------------------------------------------------------- round trips -- */

static void round_trip_of_every_head(void **state) {
  (void)state;
  for (unsigned i = 0; i < EG_RUN_COUNT * 3 * 2; i++) {
    egi_record record = {.head = {.status = (eg_run)(i % EG_RUN_COUNT),
                                  .kind = (eg_kind)(i / EG_RUN_COUNT % 3),
                                  .crashed = i >= EG_RUN_COUNT * 3}};
    if (record.head.kind == EG_KIND_VALUE)
      record.value = BYTES("\xc3");
    if (!record.head.crashed || record.head.status == EG_RUN_FAILED)
      assert_round_trip(&record);
  }
}

static void round_trip_at_every_width_of_a_number(void **state) {
  (void)state;
  for (unsigned bits = 0; bits < 62; bits++)
    for (int off = -1; off <= 1; off++) {
      egi_record record = {.head = {.status = EG_RUN_COMPLETED}};
      int64_t n = (INT64_C(1) << bits) + off;
      record.start_us = record.duration_us = record.last_us = n;
      record.count = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
      assert_round_trip(&record);
    }
}

static void round_trip_at_every_width_of_a_text(void **state) {
  (void)state;
  static const size_t widths[] = {0, 1, 31, 32, 255, 256, 3000};
  char text[3000];
  memset(text, 'x', sizeof text);
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
    egi_record record = {.head = {.status = EG_RUN_FAILED}};
    record.error = (eg_bytes){text, widths[i]};
    assert_round_trip(&record);
    record.trace = (eg_bytes){text, 17};
    record.last_us = 1;
    assert_round_trip(&record);
  }
}

static void round_trip_of_a_long_text(void **state) {
  (void)state;
  enum { LONG = 70000 };
  egi_record record = {.head = {.status = EG_RUN_FAILED}}, back;
  char *text = malloc(LONG);
  unsigned char *out = malloc(LONG + 64);
  assert_true(text != NULL && out != NULL);
  memset(text, 'y', LONG);
  record.error = (eg_bytes){text, LONG};
  size_t n = egi_encode(&record, out, LONG + 64);
  assert_true(egi_decode((eg_bytes){out, n}, &back));
  assert_true(same(&record, &back));
  free(text);
  free(out);
}

static void round_trip_of_a_full_record(void **state) {
  (void)state;
  egi_record record = full();
  assert_round_trip(&record);
  record.trace = record.error = BYTES("");
  assert_round_trip(&record);
  record.tally = BYTES("");
  assert_round_trip(&record);
}

/* A run that makes room is written with those before it. */
static void run_that_makes_room_is_in_the_tally(void **state) {
  (void)state;
  unsigned char out[ROOM], again[ROOM];
  egi_record back = {0},
             record = {.head = {.status = EG_RUN_RUNNING}, .count = 1};
  egi_tally tally;
  for (unsigned i = 0; i < 300; i++) {
    record.added = i % 3 == 0   ? EG_RUN_FAILED
                   : i % 3 == 1 ? EG_RUN_TIMEDOUT
                                : EG_RUN_COMPLETED;
    record.added_us = (int64_t)i * i * i;
    size_t n = encode(&record, i % 2 == 0 ? out : again);
    assert_true(egi_decode((eg_bytes){i % 2 == 0 ? out : again, n}, &back));
    assert_int_equal(back.added, EG_RUN_IDLE);
    record = back;
  }
  assert_true(egi_decode_tally(record.tally, &tally));
  assert_int_equal(tally.failed, 100);
  assert_int_equal(tally.timed_out, 100);
  assert_true(tally.total_us == INT64_C(299) * 299 * 300 * 300 / 4);
  assert_true(tally.n > 100);
}

/* However it was written: bucket by bucket in the bytes that were there, or
** anew because two buckets had to become one. */
static void tally_is_written_as_if_counted_anew(void **state) {
  (void)state;
  static const int64_t most_us[] = {4, 64, 5000, INT64_MAX / 4};
  unsigned char out[2][ROOM], wanted[ROOM];
  egi_record record = {.head = {.status = EG_RUN_RUNNING}, .count = 1};
  egi_tally tally = {0};
  uint64_t random = 1;
  for (unsigned i = 0; i < 4000; i++) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    record.added = i % 5 == 0 ? EG_RUN_FAILED : EG_RUN_COMPLETED;
    record.added_us = (int64_t)(random >> (8 + i % 7 * 5)) % most_us[i / 1000];
    egi_tally_add(&tally, record.added, record.added_us);
    size_t n = encode(&record, out[i % 2]);
    assert_true(egi_decode((eg_bytes){out[i % 2], n}, &record));
    n = egi_encode_tally(&tally, wanted, sizeof wanted);
    assert_int_equal(record.tally.len, n);
    assert_memory_equal(record.tally.data, wanted, n);
  }
  assert_int_equal(tally.n, EGI_TALLY_BUCKETS);
}

static void tally_that_is_none_is_refused(void **state) {
  (void)state;
  egi_record back;
  egi_tally tally;
#define WITH(t) BYTES("\x99\x01\x02\x01\x01\x01\xa0\xa0\x00" t)
  assert_true(egi_decode(WITH("\x93\x00\x00\x00"), &back));
  assert_true(egi_decode(WITH("\x95\x00\x00\x00\x07\x01"), &back));
  assert_true(egi_decode_tally(BYTES(""), &tally));
  assert_int_equal(tally.n, 0);
  static const eg_bytes wrong[] = {
      WITH("\x05"),                             /* no array */
      WITH("\x92\x00\x00"),                     /* too short */
      WITH("\x94\x00\x00\x00\x01"),             /* half a bucket */
      WITH("\x93\x00\x00"),                     /* truncated */
      WITH("\x93\x00\x00\xa0"),                 /* a text */
      WITH("\x97\x00\x00\x00\x01\x01\x00\x01"), /* twice the same */
      WITH("\x95\x00\x00\x00\xcd\x10\x00\x01"), /* no such bucket */
      WITH("\x93\x00\x00\x00\x00"),             /* more behind it */
      WITH("\xdc\xff\xff\x00\x00\x00"),         /* too many */
  };
#undef WITH
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    assert_false(egi_decode(wrong[i], &back));
}

static void absent_record_is_no_bytes(void **state) {
  (void)state;
  egi_record record;
  egi_head head;
  assert_true(egi_decode_head(BYTES(""), &head));
  assert_true(head.absent);
  assert_true(egi_decode(BYTES(""), &record));
  assert_true(record.head.absent);
  assert_int_equal(record.head.status, EG_RUN_IDLE);
  assert_int_equal(record.count, 0);
}

/* Whatever is written can be read: else a clock gone mad loses the key. */
static void largest_times_are_written_so_that_they_are_read(void **state) {
  (void)state;
  unsigned char out[ROOM];
  egi_record back, record = {.head = {.status = EG_RUN_COMPLETED},
                             .count = UINT32_MAX,
                             .start_us = INT64_MAX,
                             .duration_us = INT64_MAX,
                             .last_us = INT64_MAX};
  size_t n = encode(&record, out);
  assert_true(egi_decode((eg_bytes){out, n}, &back));
  assert_true(back.start_us > 0 && back.duration_us > 0 && back.last_us > 0);
}

static void times_that_are_none_are_written_as_unknown(void **state) {
  (void)state;
  unsigned char out[ROOM];
  egi_record back, record = {.head = {.status = EG_RUN_COMPLETED},
                             .start_us = -5,
                             .duration_us = INT64_MIN,
                             .last_us = -1};
  size_t n = encode(&record, out);
  assert_true(egi_decode((eg_bytes){out, n}, &back));
  assert_int_equal(back.start_us, 0);
  assert_int_equal(back.duration_us, 0);
  assert_int_equal(back.last_us, 0);
}

/* -------------------------------------------------------------- shape -- */

static void completed_record_without_result_has_its_bound(void **state) {
  (void)state;
  unsigned char out[ROOM];
  egi_record record = {.head = {.status = EG_RUN_COMPLETED},
                       .count = UINT32_MAX,
                       .start_us = INT64_MAX,
                       .duration_us = INT64_MAX};
  assert_int_equal(encode(&record, out), EGI_PLAIN_RECORD_MAX);
  record.head.kind = EG_KIND_OPAQUE;
  assert_int_equal(encode(&record, out), EGI_PLAIN_RECORD_MAX);
}

static void rerun_without_error_fits_the_bound(void **state) {
  (void)state;
  unsigned char out[ROOM];
  egi_record record = {.head = {.status = EG_RUN_RUNNING},
                       .count = UINT32_MAX,
                       .last_us = INT64_MAX};
  assert_true(encode(&record, out) <= EGI_PLAIN_RECORD_MAX);
}

static void head_is_the_first_three_bytes(void **state) {
  (void)state;
  unsigned char out[ROOM];
  egi_record record = full();
  record.head.crashed = true;
  encode(&record, out);
  assert_int_equal(out[0], 0x9a);
  assert_int_equal(out[1], EGI_RECORD_VERSION);
  assert_int_equal(out[2], EG_RUN_FAILED + 8 * EG_KIND_VALUE + 32);
}

static void head_of_two_bytes_is_refused(void **state) {
  (void)state;
  egi_head head;
  assert_false(egi_decode_head(BYTES("\x95"), &head));
  assert_false(egi_decode_head(BYTES("\x95\x01"), &head));
  assert_true(egi_decode_head(BYTES("\x95\x01\x02"), &head));
}

/* What does not fit is not written, what it needs is said all the same. */
static void encode_keeps_within_every_buffer(void **state) {
  (void)state;
  unsigned char whole[ROOM];
  egi_record records[2] = {full(), {.head = {.status = EG_RUN_COMPLETED}}};
  for (size_t i = 0; i < 2; i++) {
    size_t need = encode(&records[i], whole);
    for (size_t cap = 0; cap <= need; cap++) {
      unsigned char *out = malloc(need + 8);
      assert_non_null(out);
      memset(out, 0xee, need + 8);
      assert_int_equal(egi_encode(&records[i], out, cap), need);
      for (size_t at = cap; at < need + 8; at++)
        assert_int_equal(out[at], 0xee);
      if (cap == need)
        assert_memory_equal(out, whole, need);
      free(out);
    }
  }
}

/* -------------------------------------------------------------- damage -- */

static void every_truncation_is_refused(void **state) {
  (void)state;
  unsigned char out[ROOM];
  egi_record record = full(), back;
  size_t n = encode(&record, out);
  for (size_t len = 1; len < n; len++) {
    unsigned char *bytes = exactly(out, len);
    assert_false(egi_decode((eg_bytes){bytes, len}, &back));
    free(bytes);
  }
}

static void value_that_is_cut_is_refused(void **state) {
  (void)state;
  static const eg_bytes values[] = {
      {"\x07", 1},
      {"\xcb\x40\x09\x21\xfb\x54\x44\x2d\x18", 9},
      {"\xcd\x01\x00", 3},
      {"\x92\xa2hi\xc0", 5},
      {"\xa3"
       "abc",
       4}};
  unsigned char out[ROOM];
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    egi_record record = {
        .head = {.status = EG_RUN_COMPLETED, .kind = EG_KIND_VALUE},
        .value = values[i]};
    encode(&record, out);
    for (size_t len = 0; len < 3 + values[i].len; len++) {
      unsigned char *bytes = exactly(out, len);
      eg_bytes value;
      assert_false(egi_decode_value((eg_bytes){bytes, len}, &value));
      free(bytes);
    }
  }
}

/* Whatever a damaged record decodes into can be written and read again. */
static void assert_harmless(const unsigned char *bytes, size_t n) {
  unsigned char out[ROOM];
  egi_record record, back;
  if (!egi_decode((eg_bytes){bytes, n}, &record) || record.head.absent)
    return;
  egi_record_end(&record);
  size_t m = encode(&record, out);
  assert_true(egi_decode((eg_bytes){out, m}, &back));
  assert_true(same(&record, &back));
}

static void every_damaged_byte_is_refused_or_harmless(void **state) {
  (void)state;
  unsigned char out[ROOM];
  egi_record record = full();
  for (int scalar = 0; scalar <= 1; scalar++) {
    if (scalar)
      record.value = BYTES("\xcf\x01\x02\x03\x04\x05\x06\x07\x08");
    size_t n = encode(&record, out);
    for (size_t at = 0; at < n; at++)
      for (unsigned wrong = 1; wrong < 256; wrong++) {
        unsigned char *bytes = exactly(out, n);
        eg_bytes value;
        bytes[at] = (unsigned char)(bytes[at] ^ wrong);
        assert_harmless(bytes, n);
        egi_decode_value((eg_bytes){bytes, n}, &value);
        free(bytes);
      }
  }
}

static void noise_is_refused_or_harmless(void **state) {
  (void)state;
  uint32_t seed = 20260101;
  for (int round = 0; round < 100000; round++) {
    unsigned char noise[40];
    size_t n = 3 + (unsigned)round % (sizeof noise - 3);
    for (size_t i = 0; i < n; i++) {
      seed = seed * 1664525u + 1013904223u;
      noise[i] = (unsigned char)(seed >> 24);
    }
    noise[0] = (unsigned char)(0x95 + noise[0] % 6);
    noise[1] = EGI_RECORD_VERSION;
    noise[2] &= 63;
    assert_harmless(noise, n);
  }
}

static void unknown_version_is_refused(void **state) {
  (void)state;
  unsigned char out[ROOM];
  egi_record record = {.head = {.status = EG_RUN_COMPLETED}}, back;
  egi_head head;
  size_t n = encode(&record, out);
  for (unsigned version = 0; version < 256; version++) {
    out[1] = (unsigned char)version;
    bool known = version == EGI_RECORD_VERSION;
    assert_int_equal(egi_decode((eg_bytes){out, n}, &back), known);
    assert_int_equal(egi_decode_head((eg_bytes){out, n}, &head), known);
  }
}

static void unknown_state_is_refused(void **state) {
  (void)state;
  for (unsigned byte = 0; byte < 256; byte++) {
    unsigned char bytes[] = {0x95, 1, (unsigned char)byte};
    egi_head head;
    bool known = (byte & 7) <= EG_RUN_FAILED && (byte >> 3 & 3) < 3 &&
                 byte < 64 && (byte < 32 || (byte & 7) == EG_RUN_FAILED);
    assert_int_equal(egi_decode_head((eg_bytes){bytes, 3}, &head), known);
  }
}

static void trailing_bytes_are_refused(void **state) {
  (void)state;
  unsigned char out[ROOM];
  egi_record records[2] = {full(), {.head = {.status = EG_RUN_COMPLETED}}};
  egi_record back;
  for (size_t i = 0; i < 2; i++) {
    size_t n = encode(&records[i], out);
    out[n] = 0xc0;
    assert_true(egi_decode((eg_bytes){out, n}, &back));
    assert_false(egi_decode((eg_bytes){out, n + 1}, &back));
  }
}

static void wrong_number_of_elements_is_refused(void **state) {
  (void)state;
  egi_record back;
  assert_true(egi_decode(BYTES("\x95\x01\x02\x01\x01\x01"), &back));
  assert_false(egi_decode(BYTES("\x94\x01\x02\x01\x01"), &back));
  assert_false(egi_decode(BYTES("\x96\x01\x02\x01\x01\x01"), &back));
  assert_false(
      egi_decode(BYTES("\x99\x01\x02\x01\x01\x01\xa0\xa0\x01\x01"), &back));
  assert_false(egi_decode(BYTES("\x85\x01\x02\x01\x01\x01"), &back));
  assert_false(egi_decode(BYTES("\xdc\x01\x02\x01\x01\x01"), &back));
}

static void field_of_another_type_is_refused(void **state) {
  (void)state;
  egi_record back;
  assert_false(egi_decode(BYTES("\x95\x01\x02\xff\x01\x01"), &back));
  assert_false(egi_decode(BYTES("\x95\x01\x02\x01\xc0\x01"), &back));
  assert_false(egi_decode(BYTES("\x95\x01\x02\x01\x01\xa0"), &back));
  assert_false(egi_decode(BYTES("\x96\x01\x02\x01\x01\x01\x05"), &back));
  assert_false(egi_decode(BYTES("\x95\x01\x02\xcf\x00\x00\x00\x01"
                                "\x00\x00\x00\x00\x01\x01"),
                          &back)); /* a count of 2^32 */
  assert_false(egi_decode(BYTES("\x95\x01\x02\x01\xcf\x80\x00\x00\x00"
                                "\x00\x00\x00\x00\x01"),
                          &back)); /* a start of 2^63 */
}

static void length_that_overruns_is_refused(void **state) {
  (void)state;
  egi_record back;
  assert_false(egi_decode(BYTES("\x96\x01\x04\x01\x01\x01\xdb\xff\xff\xff\xff"
                                "abc"),
                          &back));
  assert_false(egi_decode(BYTES("\x96\x01\x04\x01\x01\x01\xbf"
                                "abc"),
                          &back));
  assert_false(egi_decode(
      BYTES("\x96\x01\x0a\xc6\xff\xff\xff\xff\x01\x01\x01"), &back));
  assert_false(egi_decode(
      BYTES("\x96\x01\x0a\xdd\xff\xff\xff\xff\x01\x01\x01"), &back));
  assert_false(egi_decode(
      BYTES("\x96\x01\x0a\xdf\xff\xff\xff\xff\x01\x01\x01"), &back));
}

/* -------------------------------------------------------------- vectors -- */

/* NULL, or what is not as the file says. */
static const char *vector_differs(const char *path) {
  vector v;
  egi_record record;
  unsigned char out[ROOM];
  const char *why = vector_read(path, &v);
  if (why != NULL)
    return why;
  if (egi_decode((eg_bytes){v.bytes, v.len}, &record) != v.valid)
    return v.valid ? "was refused" : "was not refused";
  if (!v.valid)
    return NULL;
  if (!same(&record, &v.record))
    return "was read as another record";
  size_t n = encode(&v.record, out);
  return n == v.len && memcmp(out, v.bytes, n) == 0
             ? NULL
             : "was written as other bytes";
}

static void every_vector_holds(void **state) {
  (void)state;
  char *paths[VECTORS_MAX];
  size_t wrong = 0, n = vector_paths(paths);
  if (n == 0)
    fail_msg("no vectors in spec/conformance/vectors");
  for (size_t i = 0; i < n; i++) {
    const char *why = vector_differs(paths[i]);
    if (why != NULL && ++wrong > 0)
      print_error("%s %s\n", paths[i], why);
    free(paths[i]);
  }
  assert_int_equal(wrong, 0);
}

/* --------------------------------------------------------------- table -- */

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(round_trip_of_every_head),
      cmocka_unit_test(round_trip_at_every_width_of_a_number),
      cmocka_unit_test(round_trip_at_every_width_of_a_text),
      cmocka_unit_test(round_trip_of_a_long_text),
      cmocka_unit_test(round_trip_of_a_full_record),
      cmocka_unit_test(run_that_makes_room_is_in_the_tally),
      cmocka_unit_test(tally_is_written_as_if_counted_anew),
      cmocka_unit_test(tally_that_is_none_is_refused),
      cmocka_unit_test(absent_record_is_no_bytes),
      cmocka_unit_test(largest_times_are_written_so_that_they_are_read),
      cmocka_unit_test(times_that_are_none_are_written_as_unknown),
      cmocka_unit_test(completed_record_without_result_has_its_bound),
      cmocka_unit_test(rerun_without_error_fits_the_bound),
      cmocka_unit_test(head_is_the_first_three_bytes),
      cmocka_unit_test(head_of_two_bytes_is_refused),
      cmocka_unit_test(encode_keeps_within_every_buffer),
      cmocka_unit_test(every_truncation_is_refused),
      cmocka_unit_test(value_that_is_cut_is_refused),
      cmocka_unit_test(every_damaged_byte_is_refused_or_harmless),
      cmocka_unit_test(noise_is_refused_or_harmless),
      cmocka_unit_test(unknown_version_is_refused),
      cmocka_unit_test(unknown_state_is_refused),
      cmocka_unit_test(trailing_bytes_are_refused),
      cmocka_unit_test(wrong_number_of_elements_is_refused),
      cmocka_unit_test(field_of_another_type_is_refused),
      cmocka_unit_test(length_that_overruns_is_refused),
      cmocka_unit_test(every_vector_holds),
  };
  return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
