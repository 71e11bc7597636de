/* SPDX-License-Identifier: MIT
** What is counted of the calls, and which outcome counts as what.
*/
#ifndef EG_CORE_COUNTERS_H
#define EG_CORE_COUNTERS_H

#include "core/tally.h"

typedef enum egi_counter {
  EGI_EXECUTIONS,
  EGI_BLOCKED,
  EGI_CACHED,
  EGI_TIMED_OUT,
  EGI_FAILED,
  EGI_COUNTERS
} egi_counter;

/* What is counted of a key beside its record: calls that were refused, and
** answered from its result; and how long was waited for it. */
typedef struct egi_counts {
  uint64_t blocked, cached;
  egi_tally waits; /* nothing in it has failed or timed out */
} egi_counts;

/* egi_counts_init: of calls alone; nobody has waited. */
static inline void egi_counts_init(egi_counts *counts, uint64_t blocked,
                                   uint64_t cached) {
  counts->blocked = blocked;
  counts->cached = cached;
  counts->waits.n = 0; /* its buckets are many, and none is in use */
  counts->waits.failed = counts->waits.timed_out = 0;
  counts->waits.total_us = 0;
}

static inline bool egi_counts_any(const egi_counts *counts) {
  return counts->blocked + counts->cached > 0 || counts->waits.n > 0;
}

/* egi_counts_merge: adds more. */
void egi_counts_merge(egi_counts *counts, const egi_counts *more);

/* Which counter the outcome of asking for a run belongs to. */
egi_counter egi_counter_of_acquire(eg_status outcome);

/* Which counter the end of a run belongs to; EGI_COUNTERS: none. */
egi_counter egi_counter_of_end(eg_status outcome);

#endif
