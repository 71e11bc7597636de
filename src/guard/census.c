/* SPDX-License-Identifier: MIT
** What came of the runs of one record, and of all of them: how many failed,
** how long they took.
*/
#include "core/codec.h"
#include "guard/guard.h"

#include <string.h>

void egi_record_tally(const eg_record *record, egi_tally *tally) {
  egi_decode_tally(record->tally, tally);
  if (!record->crashed)
    egi_tally_add(tally, record->status, record->duration_us);
}

void egi_count_runs(eg_record *record) {
  egi_tally tally;
  uint64_t known = record->status == EG_RUN_RUNNING; /* how it will end */
  egi_record_tally(record, &tally);
  for (unsigned i = 0; i < tally.n; i++)
    known += tally.buckets[i].runs;
  record->failed = tally.failed;
  record->timed_out = tally.timed_out;
  record->lost = known < record->count ? (uint32_t)(record->count - known) : 0;
}

static void fill(eg_times *times, const egi_histogram *histogram,
                 int64_t total_us) {
  times->runs = histogram->in_all;
  times->total_us = total_us;
  times->p50_us = times->p95_us = times->p99_us = total_us;
  if (times->runs == 1) /* then that is exact */
    return;
  times->p50_us = egi_histogram_us(histogram, 0.5);
  times->p95_us = egi_histogram_us(histogram, 0.95);
  times->p99_us = egi_histogram_us(histogram, 0.99);
}

void eg_record_times(const eg_record *record, eg_times *times) {
  egi_tally tally;
  egi_histogram histogram = {0};
  egi_record_tally(record, &tally);
  egi_tally_spread(&tally, &histogram);
  fill(times, &histogram, tally.total_us);
}

void eg_record_waits(const eg_record *record, eg_times *times) {
  egi_tally tally;
  egi_histogram histogram = {0};
  egi_decode_tally(record->waits, &tally);
  egi_tally_spread(&tally, &histogram);
  fill(times, &histogram, tally.total_us);
}

bool egi_gather(void *ctx, const eg_record *record) {
  egi_gathering *g = ctx;
  eg_census *census = g->census;
  egi_tally tally;
  census->held += record->locked;
  census->only_locked += record->only_locked;
  if (record->only_locked)
    return true;
  census->total++;
  if (record->corrupt) {
    census->corrupt++;
    return true;
  }
  census->by_run[record->status]++;
  census->executions += record->count;
  census->failed += record->failed;
  census->timed_out += record->timed_out;
  census->lost += record->lost;
  egi_record_tally(record, &tally);
  egi_tally_spread(&tally, &g->histogram);
  g->total_us += tally.total_us;
  census->blocked += record->blocked;
  census->cached += record->cached;
  egi_decode_tally(record->waits, &tally);
  egi_tally_spread(&tally, &g->waits);
  g->waits_us += tally.total_us;
  return true;
}

void egi_gathered(egi_gathering *g) {
  fill(&g->census->times, &g->histogram, g->total_us);
  fill(&g->census->waits, &g->waits, g->waits_us);
}

eg_status eg_take_census(eg_guard *guard, eg_census *census, eg_error *error) {
  egi_gathering g = {.census = census};
  memset(census, 0, sizeof *census);
  eg_status status = eg_scan_held(guard, eg_str(""), egi_gather, &g, error);
  egi_gathered(&g);
  return status;
}
