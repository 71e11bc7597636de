/* SPDX-License-Identifier: MIT
** Counts and times of the runs of a key; tally.h says how they are kept.
*/
#include "core/tally.h"

#include <string.h>

static uint32_t sum(uint32_t a, uint32_t b) {
  return a < UINT32_MAX - b ? a + b : UINT32_MAX;
}

/* Makes room by putting the two closest buckets together, in the one that has
** more runs. */
static void merge_closest(egi_tally *tally) {
  unsigned best = 1, least = UINT16_MAX;
  for (unsigned i = 1; i < tally->n; i++) {
    unsigned gap = tally->buckets[i].number - tally->buckets[i - 1].number;
    if (gap < least) {
      least = gap;
      best = i;
    }
  }
  uint32_t below = tally->buckets[best - 1].runs;
  if (below > tally->buckets[best].runs)
    tally->buckets[best].number = tally->buckets[best - 1].number;
  tally->buckets[best].runs = sum(tally->buckets[best].runs, below);
  tally->n--;
  memmove(&tally->buckets[best - 1], &tally->buckets[best],
          (tally->n - best + 1) * sizeof tally->buckets[0]);
}

static void count_times(egi_tally *tally, unsigned number, uint32_t n) {
  unsigned at = 0;
  while (at < tally->n && tally->buckets[at].number < number)
    at++;
  if (at == tally->n || tally->buckets[at].number != number) {
    if (tally->n == EGI_TALLY_BUCKETS) {
      merge_closest(tally);
      count_times(tally, number, n);
      return;
    }
    memmove(&tally->buckets[at + 1], &tally->buckets[at],
            (tally->n - at) * sizeof tally->buckets[0]);
    tally->buckets[at].number = (uint16_t)number;
    tally->buckets[at].runs = 0;
    tally->n++;
  }
  tally->buckets[at].runs = sum(tally->buckets[at].runs, n);
}

static void count_total(egi_tally *tally, int64_t us) {
  us = us > 0 ? us : 0;
  tally->total_us = us < INT64_MAX / 2 - tally->total_us ? tally->total_us + us
                                                         : INT64_MAX / 2;
}

void egi_tally_time(egi_tally *tally, int64_t us) {
  count_total(tally, us);
  count_times(tally, egi_bucket_of(us), 1);
}

void egi_tally_merge(egi_tally *tally, const egi_tally *more) {
  tally->failed = sum(tally->failed, more->failed);
  tally->timed_out = sum(tally->timed_out, more->timed_out);
  count_total(tally, more->total_us);
  for (unsigned i = 0; i < more->n; i++)
    count_times(tally, more->buckets[i].number, more->buckets[i].runs);
}

bool egi_tally_count(egi_tally *tally, eg_run status, int64_t duration_us) {
  if (status != EG_RUN_COMPLETED && status != EG_RUN_FAILED &&
      status != EG_RUN_TIMEDOUT)
    return false;
  tally->failed = sum(tally->failed, status == EG_RUN_FAILED);
  tally->timed_out = sum(tally->timed_out, status == EG_RUN_TIMEDOUT);
  count_total(tally, duration_us);
  return true;
}

void egi_tally_add(egi_tally *tally, eg_run status, int64_t duration_us) {
  if (egi_tally_count(tally, status, duration_us))
    count_times(tally, egi_bucket_of(duration_us), 1);
}

void egi_tally_spread(const egi_tally *tally, egi_histogram *histogram) {
  for (unsigned i = 0; i < tally->n; i++)
    egi_histogram_add(histogram, tally->buckets[i].number,
                      tally->buckets[i].runs);
}
