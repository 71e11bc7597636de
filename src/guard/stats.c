/* SPDX-License-Identifier: MIT
** What this process counted: each thread by itself, added up when somebody
** asks.
**
** A thread's counts are written by it alone, so counting is a load, an
** addition and a store, without contention; readers may be a count behind.
** The next thread that gets them counts on.  Where there is no memory for
** them, threads count in `others`.
*/
#include "guard/guard.h"

static _Atomic uint64_t others[EGI_COUNTERS];

void egi_count(unsigned counter) {
#ifdef EG_NO_COUNTERS /* the bench's, to measure what they cost */
  (void)counter;
  return;
#endif
  if (egi_here == NULL && egi_thread_take() == NULL) {
    atomic_fetch_add(&others[counter], 1);
    return;
  }
  _Atomic uint64_t *n = &egi_here->counts[counter];
  uint64_t value = atomic_load_explicit(n, memory_order_relaxed);
  atomic_store_explicit(n, value + 1, memory_order_relaxed);
}

void eg_stats_read(eg_stats *stats) {
  uint64_t sum[EGI_COUNTERS];
  for (int i = 0; i < EGI_COUNTERS; i++) {
    sum[i] = atomic_load(&others[i]);
    for (const egi_thread *t = egi_threads(); t != NULL; t = t->next)
      sum[i] += atomic_load_explicit(&t->counts[i], memory_order_relaxed);
  }
  stats->executions = sum[EGI_EXECUTIONS];
  stats->blocked = sum[EGI_BLOCKED];
  stats->cached = sum[EGI_CACHED];
  stats->timed_out = sum[EGI_TIMED_OUT];
  stats->failed = sum[EGI_FAILED];
}
