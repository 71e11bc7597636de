/* SPDX-License-Identifier: MIT
** A store that may block: the memory store, behind a wire that the test can
** cut, slow down and listen to.
*/
#ifndef SPEC_SLOW_STORE_H
#define SPEC_SLOW_STORE_H

#include "support.h"

#include <stdatomic.h>

typedef struct slow_store {
  egi_store base;
  const egi_store_ops *inner_ops;
  egi_store *inner;
  const char *_Atomic hangs;    /* calls for that key do not return */
  atomic_bool renew_hangs;      /* nor do renewals */
  atomic_bool away;             /* all fails, and nothing is done */
  atomic_bool denies;           /* each renewal says LOST */
  atomic_int waiting;           /* calls that hang now */
  atomic_int renewals, renewed; /* requests, and holds in them */
  atomic_int tended;
  atomic_int added;         /* additions to what is counted that were done */
  const char *_Atomic gone; /* tend finds out that this key is lost */
  atomic_uint_least64_t gone_token;
  atomic_int forks;
} slow_store;

/* Puts the wire between a new guard and its store.  The guard is to be closed
** before the store is used again. */
void slow_store_connect(slow_store *slow, eg_guard *guard);

/* It takes what is counted, and is no store of this process. */
void slow_store_counts(slow_store *slow, eg_guard *guard);

/* Until so many calls hang.  False: they never came. */
bool slow_store_await(slow_store *slow, int n);

#endif
