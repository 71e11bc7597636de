/* SPDX-License-Identifier: MIT
** Rule 13: every allocation is failed once, and nothing is changed by that.
*/
#include "rules.h"

#include <stdio.h>
#include <string.h>

enum { ALLOCATIONS_MAX = 1000 };

const char *rule_13_open_without_memory_leaves_nothing(world *w) {
  bool ended = false;
  for (int nth = 0; nth < ALLOCATIONS_MAX && !ended; nth++) {
    egi_store *store = NULL;
    long before = alloc_blocks();
    alloc_fail(nth);
    eg_status status = w->ops->open(&w->url, &w->env, &store, &w->error);
    ended = !alloc_has_failed();
    alloc_fail(FAIL_NEVER);
    if (status == EG_OK)
      w->ops->close(store);
    MUST(status == EG_OK || (status == EG_NOMEM && !ended));
    MUST(status == EG_OK || w->error.status == EG_NOMEM);
    MUST(alloc_blocks() == before || w->url.name != NULL);
  }
  MUST(ended);
  return NULL;
}

/* One swap on a key in some state, as often as it takes until no allocation
** fails; and each time that it has no memory, nothing has changed. */
static const char *swap_sweep(world *w, const char *key, egi_swap swap) {
  egi_seen *before = &w->seen[0], *after = &w->seen[1];
  for (int nth = 0; nth < ALLOCATIONS_MAX; nth++) {
    egi_seen met;
    egi_seen_init(&met);
    MUST(world_load(w, key, before) == EG_OK);
    swap.expect = before->version;
    alloc_fail(nth);
    eg_status status = world_swap(w, key, &swap, &met);
    bool failed = alloc_has_failed();
    alloc_fail(FAIL_NEVER);
    egi_seen_free(&met, &w->env);
    if (status == EG_OK)
      return NULL;
    MUST(status == EG_NOMEM && failed);
    MUST(world_unchanged(w, key, before, after));
  }
  return "a swap never ends for want of memory";
}

const char *rule_13_swap_without_memory_changes_nothing(world *w) {
  static char large[20000];
  char key[24];
  memset(large, 'x', sizeof large - 1);
  for (int i = 0; i < 30; i++) {
    egi_swap take = swap_take(1000),
             put = swap_put(i % 3 ? "a record" : large);
    snprintf(key, sizeof key, "key %d", i);
    take.write = i % 2 ? EGI_PUT : EGI_LEAVE;
    take.bytes = eg_str("x");
    put.fresh_ms = put.life_ms = put.not_before_ms = i % 4 * 1000;
    HOLDS(swap_sweep(w, key, take));
    HOLDS(swap_sweep(w, key, put));
    HOLDS(swap_sweep(w, key, swap_put(i % 2 ? large : "small again")));
    HOLDS(swap_sweep(w, key, swap_break()));
    HOLDS(swap_sweep(w, key, swap_forget()));
  }
  return NULL;
}

const char *rule_13_load_without_memory_changes_nothing(world *w) {
  static char large[20000];
  egi_seen *before = &w->seen[0], *after = &w->seen[1], *s = &w->seen[2];
  bool ended = false;
  memset(large, 'x', sizeof large - 1);
  MUST(world_change(w, "k", swap_put(large), s) == EG_OK);
  MUST(world_load(w, "k", before) == EG_OK);
  for (int nth = 0; nth < ALLOCATIONS_MAX && !ended; nth++) {
    egi_swap late = swap_put("late");
    egi_seen met;
    egi_seen_init(&met);
    late.expect = before->version + 12345;
    alloc_fail(nth);
    eg_status status = nth % 2 ? world_swap(w, "k", &late, &met)
                               : world_load(w, "k", &met);
    ended = !alloc_has_failed() && nth % 2;
    bool failed = alloc_has_failed();
    alloc_fail(FAIL_NEVER);
    egi_seen_free(&met, &w->env);
    MUST(status == (failed ? EG_NOMEM : nth % 2 ? EG_CONFLICT : EG_OK));
    MUST(world_unchanged(w, "k", before, after));
  }
  MUST(ended);
  return NULL;
}

static bool count(void *ctx, eg_bytes key, const egi_seen *seen) {
  size_t *n = ctx;
  (void)key;
  (void)seen;
  ++*n;
  return true;
}

const char *rule_13_watch_and_scan_without_memory_change_nothing(world *w) {
  egi_seen *before = &w->seen[0], *after = &w->seen[1];
  bool ended = false;
  MUST(world_change(w, "k", swap_put("x"), before) == EG_OK);
  MUST(world_load(w, "k", before) == EG_OK);
  for (int nth = 0; nth < ALLOCATIONS_MAX && !ended; nth++) {
    egi_watch *watch = NULL;
    size_t n = 0;
    int fd = -1;
    long blocks = alloc_blocks();
    eg_status watched = EG_OK;
    alloc_fail(nth);
    if (w->ops->watch != NULL)
      watched = w->ops->watch(w->store, eg_str("k"), before, &watch, &fd,
                              &w->error);
    bool failed = alloc_has_failed();
    eg_status scanned = w->ops->scan(w->store, eg_str(""), count, &n,
                                     &w->error);
    ended = !alloc_has_failed();
    alloc_fail(FAIL_NEVER);
    if (watched == EG_OK && w->ops->watch != NULL)
      w->ops->unwatch(watch);
    MUST(watched == EG_OK || (failed && watched == EG_NOMEM));
    MUST(scanned == EG_NOMEM ? !failed && !ended : n == 1);
    /* What is recalled of a key may come and go. */
    MUST(alloc_blocks() == blocks || w->ops->recall != NULL);
    MUST(world_unchanged(w, "k", before, after));
  }
  MUST(ended);
  return NULL;
}

/* Keys enough that the table grows: every allocation on the way fails once. */
const char *rule_13_table_without_memory_loses_no_key(world *w) {
  enum { MANY = 3000 };
  char key[24];
  int failures = 0, many = (int)world_keys(w, MANY);
  egi_seen *s = &w->seen[0];
  for (int i = 0; i < many; i++) {
    egi_swap put = swap_put(key);
    eg_status status = EG_NOMEM;
    snprintf(key, sizeof key, "key number %d", i);
    put.bytes = eg_str(key);
    for (int nth = 0; status == EG_NOMEM && nth < ALLOCATIONS_MAX; nth++) {
      alloc_fail(nth);
      status = world_swap(w, key, &put, s);
      failures += alloc_has_failed();
      alloc_fail(FAIL_NEVER);
    }
    MUST(status == EG_OK);
  }
  for (int i = 0; i < many; i++) {
    snprintf(key, sizeof key, "key number %d", i);
    MUST(world_load(w, key, s) == EG_OK && bytes_are(s->bytes, key));
  }
  /* A private memory store has no memory but ours. */
  MUST(failures > 0 || w->url.name != NULL ||
       w->ops != egi_find_store("memory"));
  return NULL;
}

const char *rule_13_drop_needs_no_memory(world *w) {
  char key[24];
  egi_seen *s = &w->seen[0];
  for (int i = 0; i < 100; i++) {
    egi_swap take = swap_take(i % 3 * 1000), drop;
    snprintf(key, sizeof key, "key %d", i);
    take.not_before_ms = i % 5 * 100;
    take.write = i % 2 ? EGI_PUT : EGI_LEAVE;
    take.bytes = eg_str("x");
    MUST(world_change(w, key, take, s) == EG_OK);
    drop = swap_drop(s->at.token);
    drop.expect = s->version;
    drop.write = i % 4 ? EGI_LEAVE : EGI_FORGET;
    alloc_fail(FAIL_ALL);
    eg_status status = world_swap(w, key, &drop, s);
    alloc_fail(FAIL_NEVER);
    MUST(status == EG_OK);
    MUST(world_load(w, key, s) == EG_OK && !s->at.held);
  }
  return NULL;
}
