/* SPDX-License-Identifier: MIT
** Stores that break the contract, one defect each, in front of a good one.
*/
#ifndef SPEC_BROKEN_H
#define SPEC_BROKEN_H

#include "store/store.h"

typedef enum defect {
  NO_DEFECT,
  REUSES_VERSIONS, /* every present key has version 1 */
  IGNORES_VERSIONS,
  IGNORES_TOKENS,
  TAKES_WHAT_IS_HELD,
  CHANGES_AND_CONFLICTS, /* a conflict has changed something */
  LOSES_WAKE_UPS,
  SHARES_TOKENS, /* every token is the same */
  RENEWS_ALL,
  VISITS_TWICE,
  VISITS_LOCKS, /* scan shows keys without bytes */
  FORGETS_NOTHING,
  LEAVES_NO_TIME, /* LEAVE_TIME clears */
  STRETCHES_LEASES,
  CHANGES_WITHOUT_MEMORY,
  LEAKS_HOLDS, /* close drops none */
  DEFECTS
} defect;

/* The operations of a store with that defect, in front of `good`. */
const egi_store_ops *broken_ops(const egi_store_ops *good, defect what);

/* Closes what the defect left open. */
void broken_end(void);

#endif
