/* SPDX-License-Identifier: MIT
** The allocator of the conformance tests: counts, checks sizes, and fails when
** it is told to.
*/
#include "world.h"

#include <stdatomic.h>
#include <stdlib.h>

static atomic_long blocks;
static atomic_int countdown = FAIL_NEVER;
static atomic_bool misused, failed;

typedef union header {
  size_t size;
  max_align_t align;
} header;

static bool fails(void) {
  int left = atomic_load(&countdown);
  if (left == FAIL_NEVER)
    return false;
  if (left == FAIL_ALL) {
    atomic_store(&failed, true);
    return true;
  }
  if (atomic_fetch_sub(&countdown, 1) > 0)
    return false;
  atomic_store(&countdown, FAIL_NEVER);
  atomic_store(&failed, true);
  return true;
}

static void *world_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud;
  header *old = ptr != NULL ? (header *)ptr - 1 : NULL;
  if (old != NULL && old->size != osize)
    atomic_store(&misused, true);
  if (nsize == 0) {
    if (old != NULL)
      atomic_fetch_sub(&blocks, 1);
    free(old);
    return NULL;
  }
  if (fails())
    return NULL;
  header *fresh = realloc(old, sizeof *fresh + nsize);
  if (fresh == NULL)
    return NULL;
  if (old == NULL)
    atomic_fetch_add(&blocks, 1);
  fresh->size = nsize;
  return fresh + 1;
}

long alloc_blocks(void) { return atomic_load(&blocks); }

bool alloc_was_misused(void) { return atomic_load(&misused); }

void alloc_fail(int nth) {
  atomic_store(&failed, false);
  atomic_store(&countdown, nth);
}

bool alloc_has_failed(void) { return atomic_load(&failed); }

void *(*const world_allocator)(void *, void *, size_t, size_t) = world_alloc;
