/* SPDX-License-Identifier: MIT
** Rule 11: a scan visits what is there, once.
*/
#include "rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS = 2000 };

/* What a scan has met; keys are "<letter><number>". */
typedef struct tour {
  world *w;
  unsigned char met[KEYS];
  size_t visits, strangers, twice, differ, locks;
  size_t stop_after; /* 0: never */
  bool meddles;      /* uses the store while it visits */
} tour;

static void name(char *key, char letter, unsigned number) {
  snprintf(key, 24, "%c%u", letter, number);
}

static void meddle(tour *t, const char *key) {
  world *w = t->w;
  egi_seen *s = &w->seen[4];
  char more[24];
  name(more, 'z', (unsigned)t->visits);
  if (world_change(w, more, swap_put("added meanwhile"), s) != EG_OK)
    t->differ++;
  if (t->visits % 3 == 0 && world_change(w, key, swap_forget(), s) != EG_OK)
    t->differ++;
}

static bool visit(void *ctx, eg_bytes bytes, const egi_seen *seen) {
  tour *t = ctx;
  char key[24] = "";
  memcpy(key, bytes.data, bytes.len < 23 ? bytes.len : 23);
  unsigned number = (unsigned)strtoul(key + 1, NULL, 10);
  t->visits++;
  if (strcmp(key, "only locked") == 0 && seen->at.held)
    t->locks += seen->bytes.len == 0 && seen->at.token > 0;
  else if (key[0] != 'a' || number >= KEYS)
    t->strangers++;
  else if (t->met[number]++ > 0)
    t->twice++;
  else if (!bytes_are(seen->bytes, key) || seen->version == 0)
    t->differ++;
  if (t->meddles)
    meddle(t, key);
  return t->stop_after == 0 || t->visits < t->stop_after;
}

static eg_status scan(tour *t, const char *prefix) {
  return t->w->ops->scan(t->w->store, eg_str(prefix), visit, t, &t->w->error);
}

static bool fill(world *w, char letter, unsigned n) {
  char key[24];
  for (unsigned i = 0; i < n; i++) {
    name(key, letter, i);
    egi_swap put = swap_put(key); /* of a new key */
    if (world_swap(w, key, &put, &w->seen[0]) != EG_OK)
      return false;
  }
  return true;
}

static size_t missed(const tour *t, unsigned n) {
  size_t count = 0;
  for (unsigned i = 0; i < n; i++)
    count += t->met[i] == 0;
  return count;
}

const char *rule_11_scan_visits_every_record_once(world *w) {
  tour t = {.w = w};
  unsigned keys = world_keys(w, KEYS);
  MUST(scan(&t, "") == EG_OK && t.visits == 0);
  MUST(fill(w, 'a', keys));
  MUST(world_change(w, "only locked", swap_take(0), &w->seen[0]) == EG_OK);
  uint64_t token = w->seen[0].at.token;
  MUST(world_change(w, "forgotten", swap_put("x"), &w->seen[0]) == EG_OK);
  MUST(world_change(w, "forgotten", swap_forget(), &w->seen[0]) == EG_OK);
  egi_swap brief = swap_put("x");
  brief.life_ms = 100;
  MUST(world_change(w, "over", brief, &w->seen[0]) == EG_OK);
  clock_advance_ms(100);
  MUST(scan(&t, "") == EG_OK);
  MUST(missed(&t, keys) == 0 && t.twice == 0);
  MUST(t.strangers == 0 && t.differ == 0);
  MUST(t.locks == 1 && t.visits == keys + 1);
  MUST(world_change(w, "only locked", swap_drop(token), &w->seen[0]) == EG_OK);
  t = (tour){.w = w};
  MUST(scan(&t, "") == EG_OK && t.locks == 0 && t.visits == keys);
  return NULL;
}

static bool compare(void *ctx, eg_bytes key, const egi_seen *seen) {
  tour *t = ctx;
  world *w = t->w;
  egi_seen *s = &w->seen[1];
  t->visits++;
  if (w->ops->load(w->store, key, EG_FOREVER, s, &w->error) != EG_OK ||
      !seen_alike(s, seen) || !seen->at.clocked)
    t->differ++;
  return true;
}

const char *rule_11_scan_sees_what_load_sees(world *w) {
  tour t = {.w = w};
  egi_seen *s = &w->seen[0];
  egi_swap full = swap_take(500);
  full.write = EGI_PUT;
  full.bytes = eg_str("held and timed");
  full.not_before_ms = full.fresh_ms = full.life_ms = 100;
  MUST(world_change(w, "plain", swap_put("x"), s) == EG_OK);
  MUST(world_change(w, "held", full, s) == EG_OK);
  full.lease_ms = 10;
  full.life_ms = 1000;
  MUST(world_change(w, "dead", full, s) == EG_OK);
  MUST(world_change(w, "locked", swap_take(0), s) == EG_OK);
  MUST(world_change(w, "unlocked", swap_take(10), s) == EG_OK);
  clock_advance_ms(20);
  MUST(w->ops->scan(w->store, eg_str(""), compare, &t, &w->error) == EG_OK);
  MUST(t.visits == 4 && t.differ == 0);
  return NULL;
}

const char *rule_11_scan_visits_only_the_prefix(world *w) {
  tour t = {.w = w};
  MUST(fill(w, 'a', 200) && fill(w, 'b', 200));
  MUST(scan(&t, "a") == EG_OK && t.visits == 200 && t.strangers == 0);
  memset(&t, 0, sizeof t);
  t.w = w;
  MUST(scan(&t, "a19") == EG_OK && t.visits == 11);
  MUST(t.met[19] == 1 && t.met[190] == 1 && t.met[199] == 1);
  memset(&t, 0, sizeof t);
  t.w = w;
  MUST(scan(&t, "a1999999") == EG_OK && t.visits == 0);
  return NULL;
}

const char *rule_11_scan_stops_when_told(world *w) {
  tour t = {.w = w, .stop_after = 7};
  MUST(fill(w, 'a', 100));
  MUST(scan(&t, "") == EG_OK);
  MUST(t.visits == 7);
  return NULL;
}

/* The visitor adds keys, so that a table divides, and forgets what it has
** just seen: all that were there at the start are visited, once. */
const char *rule_11_visitor_may_use_the_store(world *w) {
  tour t = {.w = w, .meddles = true, .stop_after = 20 * (size_t)KEYS};
  unsigned keys = world_keys(w, KEYS);
  MUST(fill(w, 'a', keys));
  MUST(scan(&t, "") == EG_OK);
  MUST(missed(&t, keys) == 0);
  MUST(t.twice == 0);
  MUST(t.differ == 0);
  return NULL;
}
