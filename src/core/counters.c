/* SPDX-License-Identifier: MIT
** Which outcome counts as what.
*/
#include "core/counters.h"

egi_counter egi_counter_of_acquire(eg_status outcome) {
  switch (outcome) {
  case EG_OK:
    return EGI_EXECUTIONS;
  case EG_CACHED:
    return EGI_CACHED;
  default:
    return EGI_BLOCKED;
  }
}

egi_counter egi_counter_of_end(eg_status outcome) {
  switch (outcome) {
  case EG_TIMEOUT:
    return EGI_TIMED_OUT;
  case EG_FAILED:
    return EGI_FAILED;
  default:
    return EGI_COUNTERS;
  }
}

void egi_counts_merge(egi_counts *counts, const egi_counts *more) {
  counts->blocked += more->blocked;
  counts->cached += more->cached;
  egi_tally_merge(&counts->waits, &more->waits);
}
