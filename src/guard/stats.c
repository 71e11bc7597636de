/* SPDX-License-Identifier: MIT
** What this process counted: each thread in a block of its own, added up when
** somebody asks.
**
** A block is written by its thread alone, so counting is a load, an addition
** and a store, without contention; readers may be a count behind.  RULES:
** (1) `lock` guards the list and `ended`.  (2) A thread that ends adds its
** block to `ended` under it.  (3) Where a block cannot be had, the thread
** counts in `ended` itself.
*/
#include "core/counters.h"
#include "guard/guard.h"

#include <stdatomic.h>
#include <stdlib.h>

typedef struct block {
  _Atomic uint64_t n[EGI_COUNTERS];
  struct block *next, **link;
} block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static block *blocks;
static _Atomic uint64_t ended[EGI_COUNTERS];

/* The one pointer of thread-local storage that this library takes: surplus of
** the static block is scarce, and shared by all modules that are loaded. */
static _Thread_local block *mine __attribute__((tls_model("initial-exec")));

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t at_thread_end;
static bool has_key;

static void end_block(void *ptr) {
  block *b = ptr;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < EGI_COUNTERS; i++)
    atomic_fetch_add(&ended[i], atomic_load(&b->n[i]));
  *b->link = b->next;
  if (b->next != NULL)
    b->next->link = b->link;
  pthread_mutex_unlock(&lock);
  mine = NULL;
  free(b);
}

static void make_key(void) {
  has_key = pthread_key_create(&at_thread_end, end_block) == 0;
}

static block *begin_block(void) {
  pthread_once(&once, make_key);
  block *b = has_key ? calloc(1, sizeof *b) : NULL;
  if (b == NULL || pthread_setspecific(at_thread_end, b) != 0) {
    free(b);
    return NULL;
  }
  pthread_mutex_lock(&lock);
  b->next = blocks;
  b->link = &blocks;
  if (blocks != NULL)
    blocks->link = &b->next;
  blocks = b;
  pthread_mutex_unlock(&lock);
  return b;
}

void egi_count(unsigned counter) {
  if (mine == NULL && (mine = begin_block()) == NULL) {
    atomic_fetch_add(&ended[counter], 1);
    return;
  }
  _Atomic uint64_t *n = &mine->n[counter];
  uint64_t value = atomic_load_explicit(n, memory_order_relaxed);
  atomic_store_explicit(n, value + 1, memory_order_relaxed);
}

void eg_stats_read(eg_stats *stats) {
  uint64_t sum[EGI_COUNTERS];
  pthread_mutex_lock(&lock);
  for (int i = 0; i < EGI_COUNTERS; i++) {
    sum[i] = atomic_load(&ended[i]);
    for (block *b = blocks; b != NULL; b = b->next)
      sum[i] += atomic_load_explicit(&b->n[i], memory_order_relaxed);
  }
  pthread_mutex_unlock(&lock);
  stats->executions = sum[EGI_EXECUTIONS];
  stats->blocked = sum[EGI_BLOCKED];
  stats->cached = sum[EGI_CACHED];
  stats->timed_out = sum[EGI_TIMED_OUT];
  stats->failed = sum[EGI_FAILED];
}
