/* SPDX-License-Identifier: MIT
** What is counted of the calls, and which outcome counts as what.
*/
#ifndef EG_CORE_COUNTERS_H
#define EG_CORE_COUNTERS_H

#include "executionguard.h"

typedef enum egi_counter {
  EGI_EXECUTIONS,
  EGI_BLOCKED,
  EGI_CACHED,
  EGI_TIMED_OUT,
  EGI_FAILED,
  EGI_COUNTERS
} egi_counter;

/* Which counter the outcome of asking for a run belongs to. */
egi_counter egi_counter_of_acquire(eg_status outcome);

/* Which counter the end of a run belongs to; EGI_COUNTERS: none. */
egi_counter egi_counter_of_end(eg_status outcome);

#endif
