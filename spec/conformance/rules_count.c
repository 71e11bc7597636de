/* SPDX-License-Identifier: MIT
** Rules 15 and 16: what is counted, and what a holder reports, beside the
** records.
*/
#include "rules.h"

#include "core/codec.h"

#include <pthread.h>
#include <string.h>

static eg_status add(world *w, egi_store *store, const char *key,
                     uint64_t blocked, uint64_t cached, int64_t wait_us) {
  egi_counts more = {.blocked = blocked, .cached = cached};
  if (wait_us >= 0)
    egi_tally_time(&more.waits, wait_us);
  return w->ops->add(store, eg_str(key), &more, EG_FOREVER, &w->error);
}

/* What is shown: of the key alone, and how many keys. */
typedef struct look {
  const char *key;
  egi_counts counts;
  int visits, times, unreadable;
} look;

static bool visit(void *ctx, eg_bytes key, eg_bytes bytes) {
  look *l = ctx;
  egi_counts counts;
  l->visits++;
  l->unreadable += !egi_decode_counts(bytes, &counts);
  if (bytes_are(key, l->key)) {
    l->times++;
    egi_counts_merge(&l->counts, &counts);
  }
  return true;
}

static look look_at(world *w, const char *prefix, bool exact,
                    const char *key) {
  look l = {.key = key};
  if (w->ops->counts(w->store, eg_str(prefix), exact, EG_FOREVER, visit, &l,
                     &w->error) != EG_OK)
    l.unreadable++;
  return l;
}

static bool says(const look *l, uint64_t blocked, uint64_t cached,
                 unsigned waits, int64_t waited_us) {
  unsigned n = 0;
  for (unsigned i = 0; i < l->counts.waits.n; i++)
    n += l->counts.waits.buckets[i].runs;
  return l->times > 0 && l->unreadable == 0 && l->counts.blocked == blocked &&
         l->counts.cached == cached && n == waits &&
         l->counts.waits.total_us == waited_us;
}

const char *rule_15_additions_sum_up(world *w) {
  if (w->ops->add == NULL)
    return NULL;
  look l = look_at(w, "k", true, "k");
  MUST(l.visits == 0 && l.unreadable == 0);
  MUST(world_change(w, "k", swap_put("bytes"), &w->seen[0]) == EG_OK);
  MUST(add(w, w->store, "k", 1, 2, -1) == EG_OK);
  MUST(add(w, w->store, "k", 10, 20, 5000) == EG_OK);
  MUST(add(w, w->store, "k", 0, 0, 7000000) == EG_OK);
  l = look_at(w, "k", true, "k");
  MUST(l.visits == 1 && says(&l, 11, 22, 2, 7005000));
  MUST(add(w, w->store, "k", UINT64_C(1) << 40, 0, -1) == EG_OK);
  l = look_at(w, "k", true, "k");
  MUST(says(&l, (UINT64_C(1) << 40) + 11, 22, 2, 7005000));
  return NULL;
}

const char *rule_15_counts_are_shown_by_key_and_by_prefix(world *w) {
  static const char *const keys[] = {"a", "ab", "a%_*", "b"};
  if (w->ops->add == NULL)
    return NULL;
  for (unsigned i = 0; i < 4; i++) {
    MUST(world_change(w, keys[i], swap_put("bytes"), &w->seen[0]) == EG_OK);
    MUST(add(w, w->store, keys[i], i + 1, 0, -1) == EG_OK);
  }
  for (unsigned i = 0; i < 4; i++) {
    look l = look_at(w, keys[i], true, keys[i]);
    MUST(says(&l, i + 1, 0, 0, 0));
    l = look_at(w, "", false, keys[i]);
    MUST(l.visits == 4 && says(&l, i + 1, 0, 0, 0));
  }
  look l = look_at(w, "a%", false, "a%_*");
  MUST(says(&l, 3, 0, 0, 0));
  return NULL;
}

const char *rule_15_add_changes_nothing_of_the_record(world *w) {
  if (w->ops->add == NULL)
    return NULL;
  egi_swap take = swap_take(0);
  take.write = EGI_PUT;
  take.bytes = eg_str("bytes");
  MUST(world_change(w, "k", take, &w->seen[0]) == EG_OK);
  MUST(world_load(w, "k", &w->seen[0]) == EG_OK);
  MUST(add(w, w->store, "k", 1, 1, 1) == EG_OK);
  MUST(world_unchanged(w, "k", &w->seen[0], &w->seen[1]));
  egi_swap drop = swap_drop(w->seen[0].at.token);
  drop.expect = w->seen[0].version;
  MUST(world_swap(w, "k", &drop, &w->seen[1]) == EG_OK);
  MUST(add(w, w->store, "never run", 1, 1, 1) == EG_OK);
  MUST(world_load(w, "never run", &w->seen[2]) == EG_OK);
  MUST(w->seen[2].version == 0 && w->seen[2].bytes.len == 0);
  return NULL;
}

static bool scanned(void *ctx, eg_bytes key, const egi_seen *seen) {
  (void)key;
  (void)seen;
  ++*(int *)ctx;
  return true;
}

const char *rule_15_counts_are_no_records(world *w) {
  int n = 0;
  if (w->ops->add == NULL)
    return NULL;
  MUST(world_change(w, "k", swap_put("bytes"), &w->seen[0]) == EG_OK);
  MUST(add(w, w->store, "k", 1, 1, 1) == EG_OK);
  MUST(add(w, w->store, "never run", 1, 1, 1) == EG_OK);
  MUST(w->ops->scan(w->store, eg_str(""), scanned, &n, &w->error) == EG_OK);
  MUST(n == 1);
  return NULL;
}

/* ---------------------------------------------------- several handles -- */

enum { ADDERS = 3 };

typedef struct adder {
  world *w;
  egi_store *store;
  pthread_t thread;
  unsigned n, failed;
} adder;

static void *add_many(void *arg) {
  adder *a = arg;
  eg_error error;
  egi_counts more = {.blocked = 1, .cached = 2};
  egi_tally_time(&more.waits, 1000);
  for (unsigned i = 0; i < a->n; i++) {
    eg_status status;
    do
      status = a->w->ops->add(a->store, eg_str("k"), &more, EG_FOREVER,
                              &error);
    while (status == EG_CONFLICT);
    a->failed += status != EG_OK;
  }
  return NULL;
}

const char *rule_15_what_handles_add_at_once_sums_up(world *w) {
  adder adders[ADDERS];
  unsigned n = world_keys(w, (unsigned)world_scaled(200));
  if (w->ops->add == NULL)
    return NULL;
  MUST(world_change(w, "k", swap_put("bytes"), &w->seen[0]) == EG_OK);
  for (int i = 0; i < ADDERS; i++) {
    adders[i] = (adder){.w = w, .store = world_another(w), .n = n};
    MUST(adders[i].store != NULL);
  }
  for (int i = 0; i < ADDERS; i++)
    pthread_create(&adders[i].thread, NULL, add_many, &adders[i]);
  unsigned failed = 0;
  for (int i = 0; i < ADDERS; i++) {
    pthread_join(adders[i].thread, NULL);
    failed += adders[i].failed;
    w->ops->close(adders[i].store);
  }
  MUST(failed == 0);
  look l = look_at(w, "k", true, "k");
  MUST(says(&l, ADDERS * n, 2 * ADDERS * n, ADDERS * n,
            (int64_t)ADDERS * n * 1000));
  return NULL;
}

/* Files sweep in passing, the others by whoever tends them, or never. */
const char *rule_15_old_counts_go_but_not_those_of_a_record(world *w) {
  if (w->ops->add == NULL)
    return NULL;
  MUST(world_change(w, "stays", swap_put("x"), &w->seen[0]) == EG_OK);
  MUST(add(w, w->store, "stays", 2, 3, -1) == EG_OK);
  MUST(add(w, w->store, "gone", 5, 0, 100) == EG_OK);
  clock_advance_ms(3 * 86400000);
  for (int i = 0; i < 130; i++)
    MUST(add(w, w->store, "busy", 1, 0, -1) == EG_OK);
  look l = look_at(w, "stays", true, "stays");
  MUST(says(&l, 2, 3, 0, 0));
  l = look_at(w, "busy", true, "busy");
  MUST(says(&l, 130, 0, 0, 0));
  l = look_at(w, "gone", true, "gone");
  MUST(l.times == 0 || says(&l, 5, 0, 1, 100));
  MUST(l.times == 0 || w->ops != egi_find_store("file"));
  return NULL;
}

/* Each allocation of it fails once; what was not added is added when it is
** asked once more, and nothing twice. */
const char *rule_13_add_without_memory_adds_nothing(world *w) {
  enum { MOST = 1000 };
  uint64_t sum = 0;
  bool ended = false;
  if (w->ops->add == NULL)
    return NULL;
  for (int nth = 0; nth < MOST && !ended; nth++) {
    alloc_fail(nth);
    eg_status status = add(w, w->store, nth % 2 ? "a" : "k", 1, 0, 7);
    bool failed = alloc_has_failed();
    alloc_fail(FAIL_NEVER);
    MUST(status == EG_OK || (failed && status == EG_NOMEM));
    sum += nth % 2 == 0 && status == EG_OK;
    ended = !failed && nth % 2;
    look l = look_at(w, "k", true, "k");
    MUST(sum == 0 ? l.times == 0
                  : says(&l, sum, 0, (unsigned)sum, (int64_t)sum * 7));
  }
  MUST(ended);
  return NULL;
}

/* ------------------------------------------------------------- rule 16 -- */

static eg_status report(world *w, uint64_t token, int thousandths) {
  return w->ops->report(w->store, eg_str("k"), token, thousandths, &w->error);
}

const char *rule_16_what_a_holder_reports_lasts_as_its_hold(world *w) {
  egi_seen *s = &w->seen[0], *then = &w->seen[1];
  egi_swap take = swap_take(0);
  take.write = EGI_PUT;
  take.bytes = eg_str("x");
  MUST(world_change(w, "k", take, s) == EG_OK);
  uint64_t token = s->at.token;
  MUST(world_load(w, "k", s) == EG_OK && s->at.progress == 0);
  if (w->ops->report == NULL)
    return NULL;
  MUST(report(w, token, 420) == EG_OK);
  MUST(world_load(w, "k", then) == EG_OK && then->at.progress == 421);
  MUST(then->version == s->version && then->at.token == token);
  MUST(then->at.stamp_us == s->at.stamp_us);
  MUST(report(w, token - 1, 500) == EG_LOST);
  MUST(report(w, token, 0) == EG_OK);
  MUST(world_load(w, "k", then) == EG_OK && then->at.progress == 1);
  MUST(report(w, token, -1) == EG_OK);
  MUST(world_load(w, "k", then) == EG_OK && then->at.progress == 0);
  MUST(report(w, token, 1000) == EG_OK);
  MUST(world_change(w, "k", swap_drop(token), s) == EG_OK);
  MUST(world_load(w, "k", then) == EG_OK && then->at.progress == 0);
  MUST(report(w, token, 500) == EG_LOST);
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  MUST(world_load(w, "k", then) == EG_OK && then->at.progress == 0);
  MUST(report(w, token, 500) == EG_LOST);
  return NULL;
}
