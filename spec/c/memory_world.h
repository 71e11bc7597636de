/* SPDX-License-Identifier: MIT
** The world of the memory store's tests: an allocator that counts, a clock
** that stands still, a private namespace, and steps on it.
*/
#ifndef SPEC_MEMORY_WORLD_H
#define SPEC_MEMORY_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/memory.h"

#include <cmocka.h>

#define SECOND INT64_C(1000000)
#define DONE "\x95\x01\x02\x01\x00\x00"    /* Completed, once */
#define OPAQUE "\x95\x01\x12\x01\x00\x00"  /* with an opaque result */
#define RUNNING "\x95\x01\x01\x01\x00\x00" /* begun by this swap */

/* ---- allocator and clock ---- */

static size_t out;      /* bytes that are out */
static int allocs_left; /* until it fails; -1: never */
static int64_t now;
static int clock_reads;

static inline void *counted(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud;
  if (nsize > osize && allocs_left == 0)
    return NULL;
  if (nsize > osize && allocs_left > 0)
    allocs_left--;
  out += nsize - osize;
  if (nsize > 0)
    return realloc(ptr, nsize);
  free(ptr);
  return NULL;
}

static inline int64_t read_clock(void *ctx) {
  (void)ctx;
  clock_reads++;
  return now;
}

static inline int64_t read_offset(void *ctx, int64_t at) {
  (void)ctx;
  (void)at;
  return 1767225600 * SECOND;
}

static inline int really_wait(void *ctx, pthread_cond_t *cond,
                              pthread_mutex_t *mutex, int64_t deadline_us) {
  (void)ctx;
  (void)deadline_us;
  return pthread_cond_wait(cond, mutex);
}

static inline void really_wake(void *ctx, pthread_cond_t *cond) {
  (void)ctx;
  pthread_cond_broadcast(cond);
}

static const eg_clock fake = {.now_us = read_clock,
                              .coarse_us = read_clock,
                              .offset_us = read_offset,
                              .wait = really_wait,
                              .wake = really_wake};
static const eg_env env = {.alloc = counted, .clock = &fake};
static const egi_store_ops *const ops = &egi_memory_ops;
static egi_store *store;

static inline egi_store *open_space(const char *name) {
  egi_url url = {.scheme = "memory", .rest = "", .name = name};
  egi_store *opened;
  assert_int_equal(ops->open(&url, &env, &opened, NULL), EG_OK);
  return opened;
}

static inline egi_shard *only_shard(void) {
  return ((egi_memory *)store)->space->shards;
}

static inline uint32_t entries(void) { return only_shard()->table.count; }

static inline uint32_t holds(void) {
  return ((egi_memory *)store)->holds[0].n;
}

static inline int begin(void **state) {
  (void)state;
  out = 0;
  allocs_left = -1;
  now = 100 * SECOND;
  store = open_space(NULL);
  clock_reads = 0;
  return 0;
}

static inline int end(void **state) {
  (void)state;
  ops->close(store);
  assert_int_equal(out, 0);
  return 0;
}

/* ---- steps ---- */

typedef struct step {
  egi_swap swap;
  uint64_t only; /* NONE unless this is the version; 0: whatever it is */
  bool clock;    /* asks for the time first */
  int asked;     /* how often decide was called */
  egi_seen seen; /* what it was shown last */
} step;

static inline egi_verdict do_swap(void *ctx, const egi_seen *seen,
                                  egi_swap *swap) {
  step *s = ctx;
  s->asked++;
  s->seen = *seen;
  *swap = s->swap;
  if (s->clock && !seen->at.clocked)
    return EGI_NOW;
  return EGI_SWAP;
}

static inline egi_verdict do_nothing(void *ctx, const egi_seen *seen,
                                     egi_swap *swap) {
  step *s = ctx;
  (void)swap;
  s->asked++;
  s->seen = *seen;
  return s->clock && !seen->at.clocked ? EGI_NOW : EGI_NONE;
}

static inline step begin_step(egi_hold hold, egi_write write,
                              const char *bytes) {
  step s = {.swap = {.hold = hold,
                     .write = write,
                     .wake = true,
                     .not_before_ms = EGI_LEAVE_TIME,
                     .fresh_ms = EGI_LEAVE_TIME,
                     .life_ms = EGI_LEAVE_TIME}};
  if (write == EGI_PUT)
    s.swap.bytes = eg_str(bytes);
  if (write == EGI_PUT && strlen(bytes) < 6) /* a head with zeroes */
    s.swap.bytes.len = 6;
  s.swap.holder = (eg_bytes){"me", 2};
  return s;
}

static inline eg_status apply(egi_store *to, const char *key, step *s,
                              uint64_t *token) {
  return ops->apply(to, eg_str(key), do_swap, s, true, EGI_NO_TIME, token,
                    NULL);
}

static inline uint64_t take(const char *key) {
  uint64_t token;
  step s = begin_step(EGI_TAKE, EGI_LEAVE, NULL);
  assert_int_equal(apply(store, key, &s, &token), EG_OK);
  return token;
}

static inline void drop(const char *key, uint64_t token) {
  step s = begin_step(EGI_DROP, EGI_LEAVE, NULL);
  s.swap.token = token;
  assert_int_equal(apply(store, key, &s, &token), EG_OK);
}

static inline uint64_t run(const char *key) {
  uint64_t token;
  step s = begin_step(EGI_TAKE, EGI_PUT, RUNNING);
  s.swap.life_ms = s.swap.fresh_ms = 0;
  assert_int_equal(apply(store, key, &s, &token), EG_OK);
  return token;
}

/* Ends a run; what is left of the record is forgotten after life_ms. */
static inline void finish(const char *key, uint64_t token, const char *bytes,
                          int64_t life_ms) {
  step s = begin_step(EGI_DROP, EGI_PUT, bytes);
  s.swap.token = token;
  s.swap.life_ms = life_ms;
  s.swap.not_before_ms = s.swap.fresh_ms = 0;
  assert_int_equal(apply(store, key, &s, &token), EG_OK);
}

static inline step look(const char *key) {
  uint64_t token;
  step s = begin_step(EGI_KEEP, EGI_LEAVE, NULL);
  assert_int_equal(ops->apply(store, eg_str(key), do_nothing, &s, false,
                              EGI_NO_TIME, &token, NULL),
                   EG_OK);
  assert_int_equal(token, s.seen.at.token);
  return s;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

#endif
