/* SPDX-License-Identifier: MIT
** Rules 1 to 4 and 8: versions, tokens, who may swap.
*/
#include "rules.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------- rule 1 -- */

const char *rule_01_untouched_key_is_absent(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->version == 0 && s->at.token == 0 && !s->at.held);
  MUST(s->bytes.len == 0 && s->holder.len == 0 && !s->at.timed);
  MUST(s->at.clocked);
  MUST(s->at.left_us == -1 && s->at.not_before_left_us == 0);
  MUST(s->at.fresh_left_us == -1 && s->life_left_us == -1);
  return NULL;
}

const char *rule_01_every_swap_changes_the_version(world *w) {
  egi_seen *s = &w->seen[0], *again = &w->seen[1];
  egi_swap steps[] = {swap_put("one"), swap_take(0),   swap_put("two"),
                      swap_nothing(),  swap_break(),   swap_take(5000),
                      swap_drop(0),    swap_put("two")};
  uint64_t before = 0;
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    MUST(world_change(w, "k", steps[i], s) == EG_OK);
    MUST(s->version != 0 && s->version != before);
    MUST(s->bytes.len == 0);
    before = s->version;
    MUST(world_load(w, "k", again) == EG_OK);
    MUST(again->version == before && again->at.token == s->at.token);
  }
  return NULL;
}

static int by_number(const void *a, const void *b) {
  const uint64_t *x = a, *y = b;
  return *x < *y ? -1 : *x > *y;
}

static bool all_differ(uint64_t *numbers, size_t n) {
  qsort(numbers, n, sizeof *numbers, by_number);
  for (size_t i = 1; i < n; i++)
    if (numbers[i] == numbers[i - 1])
      return false;
  return n == 0 || numbers[0] != 0;
}

/* Through absence of every kind: forgotten, dropped, time over. */
const char *rule_01_no_version_is_used_twice(world *w) {
  enum { ROUNDS = 100 };
  uint64_t numbers[ROUNDS * 4];
  size_t n = 0;
  egi_seen *s = &w->seen[0];
  for (int i = 0; i < ROUNDS; i++) {
    egi_swap brief = swap_put("bytes");
    brief.life_ms = 10;
    MUST(world_change(w, "k", swap_put("bytes"), s) == EG_OK);
    numbers[n++] = s->version;
    MUST(world_change(w, "k", swap_forget(), s) == EG_OK);
    MUST(world_load(w, "k", s) == EG_OK && s->version == 0);
    MUST(world_change(w, "k", swap_take(i % 2 ? 10 : 0), s) == EG_OK);
    numbers[n++] = s->version;
    if (i % 2 == 0)
      MUST(world_change(w, "k", swap_drop(s->at.token), s) == EG_OK);
    clock_advance_ms(i % 2 ? 10 : 0);
    MUST(world_load(w, "k", s) == EG_OK && s->version == 0);
    MUST(world_change(w, "k", brief, s) == EG_OK);
    numbers[n++] = s->version;
    clock_advance_ms(10);
    MUST(world_change(w, "k", swap_put("more"), s) == EG_OK);
    numbers[n++] = s->version;
    MUST(world_change(w, "other", swap_put("bytes"), s) == EG_OK);
  }
  MUST(all_differ(numbers, n));
  return NULL;
}

const char *rule_01_version_of_before_the_key_was_gone_conflicts(world *w) {
  egi_seen *s = &w->seen[0];
  egi_swap late = swap_put("late");
  MUST(world_change(w, "k", swap_put("one"), s) == EG_OK);
  late.expect = s->version;
  MUST(world_change(w, "k", swap_forget(), s) == EG_OK);
  MUST(world_swap(w, "k", &late, s) == EG_CONFLICT);
  MUST(s->version == 0);
  MUST(world_change(w, "k", swap_put("one"), s) == EG_OK);
  MUST(world_swap(w, "k", &late, s) == EG_CONFLICT);
  MUST(bytes_are(s->bytes, "one"));
  return NULL;
}

const char *rule_01_hold_alone_has_a_version(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK && s->version != 0);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->version != 0 && s->at.held && s->bytes.len == 0);
  MUST(world_change(w, "k", swap_drop(s->at.token), s) == EG_OK);
  MUST(s->version == 0);
  MUST(world_load(w, "k", s) == EG_OK && s->version == 0);
  return NULL;
}

const char *rule_01_not_before_alone_has_a_version(world *w) {
  egi_seen *s = &w->seen[0];
  egi_swap take = swap_take(0);
  take.not_before_ms = 100;
  MUST(world_change(w, "k", take, s) == EG_OK);
  MUST(world_change(w, "k", swap_drop(s->at.token), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->version != 0 && !s->at.held && s->bytes.len == 0);
  MUST(s->at.not_before_left_us == 100000);
  clock_advance_ms(100);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->version == 0 && s->at.not_before_left_us == 0);
  return NULL;
}

const char *rule_01_keys_are_any_bytes(world *w) {
  static unsigned char keys[600][EG_KEY_MAX];
  egi_seen *s = &w->seen[0];
  for (size_t i = 0; i < 600; i++) {
    egi_swap swap = swap_nothing();
    size_t len = i < EG_KEY_MAX ? i + 1 : 1 + i % 7;
    memset(keys[i], (int)(i < 256 ? i : 0), len);
    keys[i][len - 1] = (unsigned char)i;
    keys[i][0] = (unsigned char)(i < EG_KEY_MAX ? keys[i][0] : 200 + i % 50);
    eg_bytes key = {keys[i], len};
    swap.write = EGI_PUT;
    swap.bytes = key;
    MUST(w->ops->load(w->store, key, EG_FOREVER, s, &w->error) == EG_OK);
    if (s->version != 0) /* made before */
      continue;
    MUST(w->ops->swap(w->store, key, &swap, EG_FOREVER, s, &w->error) ==
         EG_OK);
  }
  for (size_t i = 0; i < EG_KEY_MAX; i++) {
    eg_bytes key = {keys[i], i + 1};
    MUST(w->ops->load(w->store, key, EG_FOREVER, s, &w->error) == EG_OK);
    MUST(s->bytes.len == key.len);
    MUST(memcmp(s->bytes.data, key.data, key.len) == 0);
  }
  return NULL;
}

/* ------------------------------------------------------------- rule 2 -- */

const char *rule_02_take_and_break_raise_the_token(world *w) {
  egi_seen *s = &w->seen[0];
  uint64_t last = 0;
  for (int i = 0; i < 50; i++) {
    MUST(world_change(w, "k", swap_take(i % 3 ? 0 : 1000), s) == EG_OK);
    MUST(s->at.token > last);
    last = s->at.token;
    MUST(world_change(w, "k", swap_put("x"), s) == EG_OK);
    MUST(world_change(w, "k", swap_break(), s) == EG_OK);
    MUST(s->at.token > last);
    last = s->at.token;
    MUST(world_load(w, "k", s) == EG_OK);
    MUST(s->at.token == last && !s->at.held);
    MUST(world_change(w, "k", swap_break(), s) == EG_OK); /* of a free one */
    MUST(s->at.token > last);
    last = s->at.token;
  }
  return NULL;
}

const char *rule_02_keep_drop_and_renew_leave_the_token(world *w) {
  egi_seen *s = &w->seen[0];
  egi_swap take = swap_take(1000);
  take.write = EGI_PUT;
  take.bytes = eg_str("x");
  MUST(world_change(w, "k", take, s) == EG_OK);
  uint64_t token = s->at.token;
  MUST(world_change(w, "k", swap_put("y"), s) == EG_OK);
  MUST(s->at.token == token);
  if (w->ops->renew != NULL) {
    egi_hold_ref hold = {eg_str("k"), token};
    eg_status each = EG_LOST;
    MUST(w->ops->renew(w->store, &hold, 1, 1000, &each, &w->error) == EG_OK);
    MUST(each == EG_OK);
  }
  MUST(world_load(w, "k", s) == EG_OK && s->at.token == token);
  MUST(world_change(w, "k", swap_drop(token), s) == EG_OK);
  MUST(s->at.token == token);
  MUST(world_load(w, "k", s) == EG_OK && s->at.token == token);
  return NULL;
}

const char *rule_02_token_rises_though_the_key_was_absent(world *w) {
  egi_seen *s = &w->seen[0];
  uint64_t last = 0;
  for (int i = 0; i < 40; i++) {
    egi_swap take = swap_take(10);
    take.write = i % 2 ? EGI_PUT : EGI_LEAVE;
    take.bytes = eg_str("x");
    take.life_ms = 20;
    MUST(world_change(w, "k", take, s) == EG_OK);
    MUST(s->at.token > last);
    last = s->at.token;
    if (i % 4 == 0)
      MUST(world_change(w, "k", swap_forget(), s) == EG_OK);
    if (i % 4 < 2)
      MUST(world_change(w, "k", swap_drop(last), s) == EG_OK);
    if (i % 4 == 1)
      MUST(world_change(w, "k", swap_forget(), s) == EG_OK);
    clock_advance_ms(i % 4 < 2 ? 0 : 20);
    MUST(world_load(w, "k", s) == EG_OK && s->version == 0);
    MUST(world_change(w, "more", swap_take(1), s) == EG_OK);
    MUST(world_change(w, "more", swap_drop(0), s) == EG_OK);
  }
  return NULL;
}

const char *rule_02_token_fits_53_bits(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  MUST(s->at.token > 0 && s->at.token <= EGI_TOKEN_MAX);
  return NULL;
}

/* ------------------------------------------------------------- rule 3 -- */

/* The swap conflicts, changes nothing, and shows what load shows. */
static const char *conflicts(world *w, const char *key, const egi_swap *swap) {
  egi_seen *before = &w->seen[5], *met = &w->seen[6], *after = &w->seen[7];
  MUST(world_load(w, key, before) == EG_OK);
  MUST(world_swap(w, key, swap, met) == EG_CONFLICT);
  MUST(met->at.clocked);
  MUST(seen_alike(before, met));
  MUST(world_load(w, key, after) == EG_OK);
  MUST(seen_alike(before, after));
  return NULL;
}

const char *rule_03_stale_version_conflicts(world *w) {
  egi_seen *s = &w->seen[0];
  egi_swap late = swap_put("late");
  MUST(world_change(w, "k", swap_put("one"), s) == EG_OK);
  late.expect = s->version;
  MUST(world_change(w, "k", swap_put("two"), s) == EG_OK);
  HOLDS(conflicts(w, "k", &late));
  MUST(world_change(w, "k", swap_put("one"), s) == EG_OK);
  HOLDS(conflicts(w, "k", &late));
  return NULL;
}

const char *rule_03_wrong_guess_of_absence_conflicts(world *w) {
  egi_seen *s = &w->seen[0];
  egi_swap put = swap_put("mine");
  put.expect = 12345;
  HOLDS(conflicts(w, "k", &put));
  MUST(world_change(w, "k", swap_put("theirs"), s) == EG_OK);
  put.expect = 0;
  HOLDS(conflicts(w, "k", &put));
  MUST(world_change(w, "held", swap_take(0), s) == EG_OK);
  HOLDS(conflicts(w, "held", &put));
  return NULL;
}

const char *rule_03_every_hold_and_write_needs_the_version(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_change(w, "k", swap_put("one"), s) == EG_OK);
  uint64_t stale = s->version;
  for (int held = 0; held <= 1; held++) {
    MUST(world_change(w, "k", held ? swap_take(0) : swap_put("2"), s) ==
         EG_OK);
    for (int hold = EGI_KEEP; hold <= EGI_BREAK; hold++)
      for (int write = EGI_LEAVE; write <= EGI_PUT; write++) {
        egi_swap swap = swap_put("late");
        swap.expect = stale;
        swap.write = (egi_write)write;
        swap.hold = (egi_hold)hold;
        HOLDS(conflicts(w, "k", &swap));
      }
  }
  return NULL;
}

const char *rule_03_holder_that_names_its_token_lands(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  egi_swap keep = swap_put("kept"), drop = swap_drop(s->at.token);
  keep.token = s->at.token;
  MUST(world_change(w, "k", keep, s) == EG_OK);
  drop.write = EGI_PUT;
  drop.bytes = eg_str("done");
  MUST(world_change(w, "k", drop, s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(!s->at.held && bytes_are(s->bytes, "done"));
  return NULL;
}

/* With the right version: the token alone decides. */
static const char *token_conflicts(world *w, const char *key, uint64_t token) {
  for (int hold = EGI_KEEP; hold <= EGI_BREAK; hold++) {
    egi_swap swap = swap_put("late");
    MUST(world_load(w, key, &w->seen[4]) == EG_OK);
    swap.expect = w->seen[4].version;
    swap.token = token;
    swap.hold = (egi_hold)hold;
    HOLDS(conflicts(w, key, &swap));
  }
  return NULL;
}

const char *rule_03_older_token_conflicts(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  uint64_t old = s->at.token;
  MUST(world_change(w, "k", swap_break(), s) == EG_OK);
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  HOLDS(token_conflicts(w, "k", old));
  HOLDS(token_conflicts(w, "k", s->at.token + 1));
  return NULL;
}

const char *rule_03_token_of_a_hold_that_ended_conflicts(world *w) {
  egi_seen *s = &w->seen[0];
  egi_swap take = swap_take(0);
  take.write = EGI_PUT;
  take.bytes = eg_str("x");
  MUST(world_change(w, "k", take, s) == EG_OK);
  uint64_t old = s->at.token;
  MUST(world_change(w, "k", swap_drop(old), s) == EG_OK);
  HOLDS(token_conflicts(w, "k", old));
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  old = s->at.token;
  MUST(world_change(w, "k", swap_break(), s) == EG_OK);
  HOLDS(token_conflicts(w, "k", old));
  HOLDS(token_conflicts(w, "never", old));
  return NULL;
}

const char *rule_03_token_after_its_lease_conflicts(world *w) {
  egi_seen *s = &w->seen[0];
  egi_swap take = swap_take(100);
  take.write = EGI_PUT;
  take.bytes = eg_str("x");
  MUST(world_change(w, "k", take, s) == EG_OK);
  egi_swap drop = swap_drop(s->at.token);
  drop.expect = s->version;
  clock_advance_ms(100);
  HOLDS(conflicts(w, "k", &drop));
  HOLDS(token_conflicts(w, "k", drop.token));
  return NULL;
}

const char *rule_03_handles_see_each_other(world *w) {
  egi_seen *s = &w->seen[0];
  egi_store *mine = w->store, *other = world_another(w);
  const char *why = "a second handle cannot be opened";
  if (other == NULL)
    return why;
  egi_swap put = swap_put("mine");
  eg_status first = world_change(w, "k", swap_put("one"), s);
  put.expect = s->version;
  w->store = other;
  eg_status second = world_load(w, "k", s);
  bool same = s->version == put.expect && bytes_are(s->bytes, "one");
  eg_status third = world_change(w, "k", swap_take(0), s);
  w->store = mine;
  eg_status fourth = world_swap(w, "k", &put, s);
  bool held = s->at.held;
  w->ops->close(other);
  MUST(first == EG_OK && second == EG_OK && third == EG_OK);
  MUST(same && fourth == EG_CONFLICT && held);
  return NULL;
}

/* ------------------------------------------------------------- rule 4 -- */

const char *rule_04_take_of_a_held_key_conflicts(world *w) {
  egi_seen *s = &w->seen[0];
  egi_swap take = swap_take(0);
  for (int leased = 0; leased <= 1; leased++) {
    MUST(world_change(w, "k", swap_take(leased ? 100 : 0), s) == EG_OK);
    take.expect = s->version;
    HOLDS(conflicts(w, "k", &take));
    clock_advance_ms(99);
    HOLDS(conflicts(w, "k", &take));
    MUST(world_change(w, "k", swap_break(), s) == EG_OK);
  }
  return NULL;
}

const char *rule_04_take_of_a_free_key_lands(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  MUST(world_change(w, "k", swap_drop(s->at.token), s) == EG_OK);
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  MUST(world_change(w, "k", swap_break(), s) == EG_OK);
  MUST(world_change(w, "k", swap_take(100), s) == EG_OK);
  clock_advance_ms(100);
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK && s->at.held);
  return NULL;
}

/* ------------------------------------------------------------- rule 8 -- */

const char *rule_08_forget_leaves_no_bytes(world *w) {
  egi_seen *s = &w->seen[0];
  egi_swap put = swap_put("bytes");
  put.fresh_ms = put.life_ms = 1000;
  MUST(world_change(w, "k", put, s) == EG_OK);
  MUST(world_change(w, "k", swap_forget(), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->version == 0 && s->bytes.len == 0);
  MUST(world_change(w, "k", swap_forget(), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK && s->version == 0);
  return NULL;
}

const char *rule_08_forget_leaves_a_hold(world *w) {
  egi_seen *s = &w->seen[0];
  egi_swap take = swap_take(0);
  take.write = EGI_PUT;
  take.bytes = eg_str("x");
  MUST(world_change(w, "k", take, s) == EG_OK);
  uint64_t token = s->at.token;
  MUST(world_change(w, "k", swap_forget(), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->version != 0 && s->at.held && s->at.token == token);
  MUST(s->bytes.len == 0 && bytes_are(s->holder, "the holder line"));
  return NULL;
}
