/* SPDX-License-Identifier: MIT
** Rule 14: what is done off the callers' path is not seen on it.
*/
#include "rules.h"

#include <stdio.h>
#include <string.h>

/* A store that sweeps now and then is not due for that again and again. */
enum { HOLDS = 20, QUIET_US = 600000000 };

/* What lost() was told. */
typedef struct losses {
  int count;
  uint64_t token;
  char key[24];
} losses;

static void note(void *ctx, eg_bytes key, uint64_t token) {
  losses *l = ctx;
  l->count++;
  l->token = token;
  snprintf(l->key, sizeof l->key, "%.*s", (int)key.len,
           (const char *)key.data);
}

static int64_t tend(world *w, egi_store *store, losses *l) {
  return w->ops->tend(store, clock_now_us(), note, l);
}

static const char *all_stand(world *w, egi_seen before[HOLDS]) {
  char key[24];
  for (int i = 0; i < HOLDS; i++) {
    snprintf(key, sizeof key, "key %d", i);
    MUST(world_load(w, key, &w->seen[1]) == EG_OK);
    egi_seen *now = &w->seen[1];
    MUST(now->version == before[i].version && now->at.held);
    MUST(now->at.token == before[i].at.token);
    MUST(bytes_are(now->bytes, i % 2 ? "run" : ""));
    MUST(bytes_are(now->holder, "the holder line"));
  }
  return NULL;
}

const char *rule_14_tend_changes_nothing_that_stands(world *w) {
  egi_seen before[HOLDS];
  losses l = {0};
  char key[24];
  if (w->ops->tend == NULL)
    return NULL;
  for (int i = 0; i < HOLDS; i++) {
    egi_swap take = swap_take(i % 3 ? 0 : 500000);
    take.write = i % 2 ? EGI_PUT : EGI_LEAVE;
    take.bytes = eg_str("run");
    snprintf(key, sizeof key, "key %d", i);
    MUST(world_change(w, key, take, &w->seen[0]) == EG_OK);
    before[i] = w->seen[0];
  }
  for (int64_t ms = 0; ms < 300; ms += 60) {
    tend(w, w->store, &l);
    HOLDS(all_stand(w, before));
    clock_advance_ms(ms);
  }
  MUST(l.count == 0);
  for (int i = 0; i < HOLDS; i++) { /* and each can still be ended */
    snprintf(key, sizeof key, "key %d", i);
    egi_swap drop = swap_drop(before[i].at.token);
    drop.expect = before[i].version;
    MUST(world_swap(w, key, &drop, &w->seen[0]) == EG_OK);
  }
  return NULL;
}

const char *rule_14_tend_is_due_when_it_says(world *w) {
  losses l = {0};
  egi_seen *s = &w->seen[0];
  if (w->ops->tend == NULL)
    return NULL;
  /* Nothing was ever done. */
  MUST(tend(w, w->store, &l) - clock_now_us() >= QUIET_US);
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  bool quiet = false; /* it has no end of chores */
  for (int i = 0; i < 5; i++) {
    int64_t next = tend(w, w->store, &l);
    MUST(next > clock_now_us());
    quiet = next - clock_now_us() >= QUIET_US;
    clock_advance_ms(next == EG_FOREVER ? 1000
                                        : (next - clock_now_us()) / 1000 + 1);
  }
  MUST(quiet || w->ops->share != NULL); /* who shares looks at its holds */
  MUST(world_change(w, "k", swap_drop(s->at.token), s) == EG_OK);
  tend(w, w->store, &l);
  MUST(tend(w, w->store, &l) - clock_now_us() >= QUIET_US);
  MUST(l.count == 0);
  return NULL;
}

const char *rule_14_tend_tells_of_a_hold_that_was_broken_once(world *w) {
  losses mine = {0}, theirs = {0};
  egi_seen *s = &w->seen[0];
  if (w->ops->tend == NULL)
    return NULL;
  egi_store *own = w->store, *other = world_another(w);
  MUST(other != NULL);
  w->store = other;
  eg_status taken = world_change(w, "k", swap_take(0), s);
  w->store = own;
  eg_status broken = world_change(w, "k", swap_break(), s);
  for (int i = 0; i < 3; i++) {
    tend(w, other, &theirs);
    tend(w, own, &mine);
  }
  w->ops->close(other);
  MUST(taken == EG_OK && broken == EG_OK);
  MUST(mine.count == 0);
  MUST(theirs.count <= 1); /* in one process a store may know it at once */
  return NULL;
}
