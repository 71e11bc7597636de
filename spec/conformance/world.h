/* SPDX-License-Identifier: MIT
** The world of one conformance test: a store, a clock that is moved by hand,
** an allocator that counts and fails on demand.
**
** The store's URL is EXECUTIONGUARD_STORE ("memory" without it).
*/
#ifndef SPEC_WORLD_H
#define SPEC_WORLD_H

#include <stdbool.h>

#include "store/store.h"

enum { WORLD_SEEN = 8 };

typedef struct world {
  const egi_store_ops *ops;
  egi_url url;
  eg_env env;
  egi_store *store;
  int patience_ms; /* real time after which a wake-up counts as lost */
  char name[64];
  char folder[256], rest[300]; /* of a file store */
  egi_seen seen[WORLD_SEEN];   /* for rules to use; freed with the world */
  eg_error error;
} world;

/* A rule: NULL, or what does not hold. */
typedef const char *(*rule_fn)(world *w);

#define SPEC_TEXT_(x) #x
#define SPEC_TEXT(x) SPEC_TEXT_(x)
#define MUST(condition)                                                       \
  do {                                                                        \
    if (!(condition))                                                         \
      return __FILE__ ":" SPEC_TEXT(__LINE__) ": " #condition;                \
  } while (0)
#define HOLDS(call)                                                           \
  do {                                                                        \
    const char *why_ = (call);                                                \
    if (why_ != NULL)                                                         \
      return why_;                                                            \
  } while (0)

/* Opens a store; ops NULL: the one of the URL.  False: w->error says why. */
bool world_open(world *w, const egi_store_ops *ops, bool named);
void world_close(world *w);

/* One more handle on the same namespace (named worlds). */
egi_store *world_another(world *w);

/* How many of so many keys: fewer where each swap is a consensus. */
unsigned world_keys(const world *w, unsigned count);

/* Divides a count by EXECUTIONGUARD_SPEC_SCALE; at least 1. */
int world_scaled(int count);

/* ---- the clock ---- */

extern const eg_clock world_clock;
void clock_advance_ms(int64_t ms);
void clock_set_wall_back_ms(int64_t ms);
int64_t clock_now_us(void);
/* Waits until so many wait on the clock, or a little while. */
void clock_await_sleepers(int n);

/* ---- the allocator ---- */

extern void *(*const world_allocator)(void *, void *, size_t, size_t);
/* Blocks in use. */
long alloc_blocks(void);
/* Whether somebody gave back a block with another size than it has. */
bool alloc_was_misused(void);
/* The nth allocation from now fails (0: the next), once; ALL: every one. */
enum { FAIL_NEVER = -1, FAIL_ALL = -2 };
void alloc_fail(int nth);
bool alloc_has_failed(void);

/* ---- keys and swaps ---- */

/* A swap that changes nothing: every rule fills in its part. */
egi_swap swap_nothing(void);
egi_swap swap_put(const char *bytes);
egi_swap swap_take(int64_t lease_ms);
egi_swap swap_drop(uint64_t token);
egi_swap swap_break(void);
egi_swap swap_forget(void);

eg_status world_load(world *w, const char *key, egi_seen *seen);
/* Exactly as it stands; then with `expect` as it is now. */
eg_status world_swap(world *w, const char *key, const egi_swap *swap,
                     egi_seen *seen);
eg_status world_change(world *w, const char *key, egi_swap swap,
                       egi_seen *seen);

bool bytes_are(eg_bytes bytes, const char *text);
bool seen_alike(const egi_seen *a, const egi_seen *b);

/* Loads into `again`, and compares with what was seen. */
bool world_unchanged(world *w, const char *key, const egi_seen *before,
                     egi_seen *again);

#endif
