/* SPDX-License-Identifier: MIT
** Any bytes as a stored record: refused, or read into something that can be
** written and is read as the same; and every decision and reading of it.
*/
#include <assert.h>
#include <string.h>

#include "core/codec.h"
#include "core/transition.h"
#include "fuzz.h"

enum { ROOM = 1 << 16 };

static bool same(eg_bytes a, eg_bytes b) {
  return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* A tally that was added to in its bytes says what one says that was read, had
** the run added, and was written. */
static void added_up(const egi_record *record, eg_bytes written) {
  unsigned char a[EGI_COUNTS_MAX], b[EGI_COUNTS_MAX];
  egi_tally tally, back;
  assert(egi_decode_tally(record->tally, &tally));
  egi_tally_add(&tally, record->added, record->added_us);
  assert(egi_decode_tally(written, &back));
  eg_bytes x = {a, egi_encode_tally(&tally, a, sizeof a)};
  eg_bytes y = {b, egi_encode_tally(&back, b, sizeof b)};
  assert(x.len <= sizeof a && same(x, y));
}

static void write_again(const egi_record *record) {
  static unsigned char out[ROOM];
  egi_record back;
  size_t n = egi_encode(record, out, sizeof out);
  if (n > sizeof out)
    return;
  assert(egi_decode((eg_bytes){out, n}, &back));
  assert(back.head.status == record->head.status);
  assert(back.count == record->count);
  assert(same(back.value, record->value) && same(back.error, record->error));
  if (record->added == EG_RUN_IDLE)
    assert(same(back.tally, record->tally));
  else
    added_up(record, back.tally);
}

/* What every event makes of it can be written. */
static void decide(egi_record *record, bool held, int64_t fresh_us) {
  static const eg_policy policy = EG_POLICY_DEFAULT;
  const egi_sight sight = {.token = 7,
                           .held = held,
                           .clocked = true,
                           .stamp_us = 5,
                           .left_us = -1,
                           .fresh_left_us = fresh_us};
  for (int type = EGI_ACQUIRE_RUN; type <= EGI_FETCH; type++) {
    egi_event event = {.type = (egi_event_type)type, .token = 7, .mine = true};
    egi_effect effect;
    egi_record after;
    eg_status outcome;
    int64_t left_us;
    if (egi_decide(&record->head, &sight, &event, &policy, &effect, &outcome,
                   &left_us) != EGI_SWAP ||
        effect.write != EGI_PUT)
      continue;
    egi_rewrite(record, &sight, &event, &effect, &after);
    write_again(&after);
  }
  egi_reading(record, &sight);
  egi_record_end(record);
}

/* What is counted beside a record. */
static void count(eg_bytes bytes) {
  egi_counts counts, again;
  unsigned char out[EGI_COUNTS_MAX];
  if (!egi_decode_counts(bytes, &counts))
    return;
  again = counts;
  egi_counts_merge(&counts, &again);
  size_t n = egi_encode_counts(&counts, out, sizeof out);
  assert(n <= sizeof out && egi_decode_counts((eg_bytes){out, n}, &again));
  assert(again.blocked == counts.blocked && again.cached == counts.cached);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  eg_bytes bytes = {data, size}, value;
  egi_head head;
  egi_record record;
  egi_tally tally;
  count(bytes);
  bool has_head = egi_decode_head(bytes, &head);
  if (has_head && head.kind == EG_KIND_VALUE)
    egi_decode_value(bytes, &value);
  if (!egi_decode(bytes, &record) || record.head.absent)
    return 0;
  assert(has_head && egi_decode_tally(record.tally, &tally));
  write_again(&record);
  decide(&record, true, 0);
  decide(&record, false, -1);
  return 0;
}
