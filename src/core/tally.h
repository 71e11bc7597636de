/* SPDX-License-Identifier: MIT
** What came of the earlier runs of a key: how many failed or timed out, and
** how long they took.
**
** The last run is not among them: status and duration of its record say all
** there is to say of it, so a key that ran once needs no tally.  It is added
** when its record makes room for the next.
**
** Of the histogram of their times (histogram.h) only the buckets in use are
** kept, at most EGI_TALLY_BUCKETS: then the closest two are made one.
*/
#ifndef EG_CORE_TALLY_H
#define EG_CORE_TALLY_H

#include "core/histogram.h"

enum { EGI_TALLY_BUCKETS = 128 };

typedef struct egi_tally {
  uint32_t failed, timed_out; /* of the runs below */
  int64_t total_us;
  unsigned n; /* buckets in use, by rising number */
  struct {
    uint16_t number;
    uint32_t runs;
  } buckets[EGI_TALLY_BUCKETS];
} egi_tally;

/* egi_tally_add: adds a run that ended so; statuses that are no end are not
** counted.  Counts stay at their largest.  egi_tally_count: the same without
** the buckets; false: it is no end. */
void egi_tally_add(egi_tally *tally, eg_run status, int64_t duration_us);
bool egi_tally_count(egi_tally *tally, eg_run status, int64_t duration_us);

/* egi_tally_time: adds a time alone.  egi_tally_merge: adds another tally. */
void egi_tally_time(egi_tally *tally, int64_t us);
void egi_tally_merge(egi_tally *tally, const egi_tally *more);

/* Puts them into a histogram that has more. */
void egi_tally_spread(const egi_tally *tally, egi_histogram *histogram);

#endif
