/* SPDX-License-Identifier: MIT
** What is counted by key: calls that were refused or answered from a result,
** and how long was waited.
**
**   a call --> the thread's table --> the guard's ledger --> the store
**                      |    on reading, on     once a second,
**                      |    close, or when     on close, at exit
**                      |    another key wants
**                      |    its place
**                      +-----------------> a store in memory: at once
**
** A thread counts in a table of its own, a few keys large: without a lock, and
** nobody contends.  A key that finds no place there is most often counted
** behind it at once: so keys that are asked for often have the places, and
** the others move nobody.  Counts only rise; beside them stands what has been
** taken of them.  Where the store is in memory they are taken when somebody
** asks; for the others the attendant comes once a second, so a process that is
** killed loses that much.  Executions, failures, time-outs and run times are
** none of this: they ride in the record.
**
** LOCKS.  Each table has a mutex: held by who takes from it, and by its thread
** while it gives a place to another key.  The thread alone writes counts,
** without it.  A guard's `counting` guards its ledger.  Order: attending,
** table, then counting or a lock of a store in memory.
**
** BOUNDS.  A table has EGI_COUNT_PLACES places; a ledger EGI_PENDING_MAX
** keys, while the store is away: what is counted of others then is lost.
*/
#ifndef EG_GUARD_COUNTING_H
#define EG_GUARD_COUNTING_H

#include "core/ledger.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
  EGI_WAYS = 4, /* places that a key may be in */
  EGI_SETS = 64,
  EGI_COUNT_PLACES = EGI_WAYS * EGI_SETS,
  EGI_ADMITTED = 16,  /* of so many keys without a place, one gets another's */
  EGI_PLACE_KEY = 64, /* bytes; longer keys are counted without a table */
  EGI_PENDING_MAX = 65536
};

enum { EGI_OF_BLOCKED, EGI_OF_CACHED, EGI_OF_KEY };

/* A key in a thread's table; tag and guard change under the mutex. */
typedef struct egi_count_place {
  uint64_t tag;
  struct eg_guard *guard; /* NULL: free; dangling where all is taken */
  _Atomic uint64_t counts[EGI_OF_KEY];
} egi_count_place;

/* What is seldom looked at of it, under the mutex. */
typedef struct egi_count_rest {
  uint64_t taken[EGI_OF_KEY];
  uint32_t key_len;
  unsigned char key[EGI_PLACE_KEY];
} egi_count_rest;

typedef struct egi_count_table {
  _Alignas(64) egi_count_place places[EGI_COUNT_PLACES];
  pthread_mutex_t mutex;
  bool forking;  /* that has locked it */
  unsigned turn; /* calls for keys that had no place, and found none free */
  egi_count_rest rests[EGI_COUNT_PLACES];
} egi_count_table;

/* Of a guard. */
typedef struct egi_counting {
  /* Nobody need be told that there is something new: the attendant comes, or
  ** nobody has to. */
  atomic_bool noted;
  int quiet; /* visits that found nothing; the attendant's */
  pthread_mutex_t mutex;
  egi_ledger ledger;
  egi_ledger forked; /* a parent process's: to be freed */
} egi_counting;

#endif
