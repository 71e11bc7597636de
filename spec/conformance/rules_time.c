/* SPDX-License-Identifier: MIT
** Rules 5 to 7 and 9: leases and other times.
*/
#include "rules.h"

#define HOUR_MS (3600 * 1000)

/* Takes and puts in one swap: a run as the core would begin it. */
static egi_swap begin(const char *bytes, int64_t lease_ms) {
  egi_swap swap = swap_take(lease_ms);
  swap.write = EGI_PUT;
  swap.bytes = eg_str(bytes);
  return swap;
}

/* ------------------------------------------------------------- rule 5 -- */

const char *rule_05_lease_over_frees_and_the_bytes_stay(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_change(w, "k", begin("run", 100), s) == EG_OK);
  uint64_t version = s->version, token = s->at.token;
  clock_advance_ms(99);
  MUST(world_load(w, "k", s) == EG_OK && s->at.held);
  MUST(s->at.left_us == 1000);
  clock_advance_ms(1);
  MUST(world_load(w, "k", s) == EG_OK && !s->at.held);
  MUST(bytes_are(s->bytes, "run"));
  MUST(s->version == version && s->at.token == token);
  clock_advance_ms(HOUR_MS);
  MUST(world_load(w, "k", s) == EG_OK && !s->at.held);
  MUST(bytes_are(s->bytes, "run"));
  return NULL;
}

const char *rule_05_holder_is_seen_only_while_it_holds(world *w) {
  char line[EGI_HOLDER_MAX];
  egi_seen *s = &w->seen[0];
  egi_swap take = begin("x", 100);
  for (int i = 0; i < EGI_HOLDER_MAX; i++)
    line[i] = (char)i;
  take.holder = (eg_bytes){line, sizeof line};
  MUST(world_change(w, "k", take, s) == EG_OK);
  MUST(world_change(w, "k", swap_put("another record"), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->holder.len == sizeof line);
  for (size_t i = 0; i < sizeof line; i++)
    MUST(((const char *)s->holder.data)[i] == line[i]);
  clock_advance_ms(100);
  MUST(world_load(w, "k", s) == EG_OK && s->holder.len == 0);
  take.holder = (eg_bytes){NULL, 0};
  MUST(world_change(w, "k", take, s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->at.held && s->holder.len == 0);
  MUST(world_change(w, "k", swap_drop(s->at.token), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK && s->holder.len == 0);
  return NULL;
}

/* ------------------------------------------------------------- rule 6 -- */

static egi_swap with_times(egi_swap swap, int64_t ms) {
  swap.not_before_ms = ms;
  swap.fresh_ms = 2 * ms;
  swap.life_ms = 3 * ms;
  return swap;
}

static bool times_left(const egi_seen *s, int64_t before_ms, int64_t fresh_ms,
                       int64_t life_ms) {
  return s->at.not_before_left_us == before_ms * 1000 &&
         s->at.fresh_left_us == fresh_ms * 1000 &&
         s->life_left_us == life_ms * 1000;
}

const char *rule_06_times_count_from_the_swap(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_change(w, "k", swap_put("older"), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK && !s->at.timed);
  clock_advance_ms(50);
  MUST(world_change(w, "k", with_times(begin("x", 400), 100), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->at.timed && s->at.clocked);
  MUST(times_left(s, 100, 200, 300) && s->at.left_us == 400000);
  clock_advance_ms(99);
  MUST(world_load(w, "k", s) == EG_OK && times_left(s, 1, 101, 201));
  clock_advance_ms(1);
  MUST(world_load(w, "k", s) == EG_OK && times_left(s, 0, 100, 200));
  clock_advance_ms(100);
  MUST(world_load(w, "k", s) == EG_OK && times_left(s, 0, 0, 100));
  MUST(s->at.left_us == 200000);
  clock_advance_ms(50);
  MUST(world_load(w, "k", s) == EG_OK && times_left(s, 0, 0, 50));
  return NULL;
}

const char *rule_06_leave_time_leaves(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_change(w, "k", with_times(swap_put("x"), 100), s) == EG_OK);
  clock_advance_ms(10);
  MUST(world_change(w, "k", swap_put("a longer one than before"), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK && times_left(s, 90, 190, 290));
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  clock_advance_ms(10);
  MUST(world_load(w, "k", s) == EG_OK && times_left(s, 80, 180, 280));
  MUST(world_change(w, "k", swap_drop(s->at.token), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK && times_left(s, 80, 180, 280));
  MUST(world_change(w, "k", swap_break(), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK && times_left(s, 80, 180, 280));
  return NULL;
}

const char *rule_06_zero_clears(world *w) {
  egi_seen *s = &w->seen[0];
  egi_swap clear = swap_nothing();
  clear.not_before_ms = clear.fresh_ms = clear.life_ms = 0;
  MUST(world_change(w, "k", with_times(swap_put("x"), 100), s) == EG_OK);
  MUST(world_change(w, "k", clear, s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->at.not_before_left_us == 0 && s->at.fresh_left_us == -1);
  MUST(s->life_left_us == -1 && !s->at.timed);
  MUST(bytes_are(s->bytes, "x"));
  clock_advance_ms(HOUR_MS);
  MUST(world_load(w, "k", s) == EG_OK && bytes_are(s->bytes, "x"));
  return NULL;
}

const char *rule_06_what_is_left_never_grows(world *w) {
  egi_seen *s = &w->seen[0], *last = &w->seen[1];
  MUST(world_change(w, "k", with_times(begin("x", 150), 100), s) == EG_OK);
  MUST(world_load(w, "k", last) == EG_OK);
  for (int i = 0; i < 40; i++) {
    egi_sight before = last->at;
    int64_t life = last->life_left_us;
    clock_advance_ms(i % 3 * 4);
    if (i % 7 == 0)
      MUST(world_change(w, "k", swap_nothing(), s) == EG_OK);
    MUST(world_load(w, "k", last) == EG_OK);
    MUST(last->at.not_before_left_us <= before.not_before_left_us);
    MUST(last->at.fresh_left_us <= before.fresh_left_us);
    MUST(last->life_left_us <= life);
    MUST(!last->at.held || last->at.left_us <= before.left_us);
    MUST(before.held || !last->at.held);
  }
  return NULL;
}

const char *rule_06_clock_set_back_prolongs_none(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_change(w, "k", with_times(begin("x", 400), 100), s) == EG_OK);
  uint64_t token = s->at.token;
  clock_advance_ms(10);
  clock_set_wall_back_ms(HOUR_MS);
  const char *why = NULL;
  if (world_load(w, "k", s) != EG_OK || !times_left(s, 90, 190, 290) ||
      s->at.left_us != 390000)
    why = "a wall clock that was set back changed what is left";
  else if (world_change(w, "k", swap_break(), s) != EG_OK ||
           world_change(w, "k", swap_take(0), s) != EG_OK ||
           s->at.token <= token)
    why = "a wall clock that was set back made tokens fall";
  clock_set_wall_back_ms(-HOUR_MS);
  return why;
}

const char *
rule_06_lease_is_set_by_take_and_ended_by_drop_and_break(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_change(w, "k", begin("x", 100), s) == EG_OK);
  MUST(world_change(w, "k", swap_drop(s->at.token), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK && s->at.left_us == -1);
  MUST(!s->at.timed);
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  clock_advance_ms(HOUR_MS);
  MUST(world_load(w, "k", s) == EG_OK && s->at.held && s->at.left_us == -1);
  MUST(world_change(w, "k", swap_break(), s) == EG_OK);
  MUST(world_change(w, "k", swap_take(100), s) == EG_OK);
  MUST(world_change(w, "k", swap_put("kept"), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK && s->at.left_us == 100000);
  MUST(world_change(w, "k", swap_break(), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(!s->at.held && s->at.left_us == -1 && !s->at.timed);
  MUST(world_change(w, "k", swap_take(10), s) == EG_OK);
  clock_advance_ms(10);
  MUST(world_change(w, "k", swap_take(0), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK && s->at.held && s->at.left_us == -1);
  return NULL;
}

const char *rule_06_long_times_do_not_overflow(world *w) {
  static const int64_t long_ms[] = {INT64_MAX, INT64_MAX / 1000,
                                    INT64_MAX / 1000 - 1};
  egi_seen *s = &w->seen[0];
  for (size_t i = 0; i < sizeof long_ms / sizeof *long_ms; i++) {
    egi_swap swap = begin("x", long_ms[i]);
    swap.not_before_ms = swap.fresh_ms = swap.life_ms = long_ms[i];
    MUST(world_change(w, "k", swap, s) == EG_OK);
    clock_advance_ms(HOUR_MS);
    MUST(world_load(w, "k", s) == EG_OK);
    MUST(s->at.held && (s->at.left_us > 0 || s->at.left_us == -1));
    MUST(s->at.not_before_left_us > 0);
    MUST(s->at.fresh_left_us > 0 || s->at.fresh_left_us == -1);
    MUST(s->life_left_us > 0 || s->life_left_us == -1);
    MUST(world_change(w, "k", swap_break(), s) == EG_OK);
  }
  return NULL;
}

/* The stamp of a record that is held is when its bytes were last put; of
** others a store may forget it. */
const char *rule_06_stamp_is_of_the_last_put(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_change(w, "k", begin("x", 0), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  int64_t stamp = s->at.stamp_us;
  int64_t wall = clock_now_us() +
                 world_clock.offset_us(world_clock.ctx, clock_now_us());
  MUST(stamp == wall || w->ops != egi_find_store("memory"));
  MUST(stamp > INT64_C(1600000000000000));
  clock_advance_ms(10);
  MUST(world_change(w, "k", swap_nothing(), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK && s->at.stamp_us == stamp);
  MUST(world_change(w, "k", swap_put("y"), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK && s->at.stamp_us >= stamp);
  MUST(s->at.stamp_us == wall + 10000 || w->ops != egi_find_store("memory"));
  return NULL;
}

/* ------------------------------------------------------------- rule 7 -- */

static egi_swap brief(const char *bytes, int64_t life_ms) {
  egi_swap swap = swap_put(bytes);
  swap.life_ms = life_ms;
  return swap;
}

const char *rule_07_life_over_is_absent(world *w) {
  egi_seen *s = &w->seen[0];
  MUST(world_change(w, "k", brief("x", 100), s) == EG_OK);
  egi_swap late = swap_put("late");
  late.expect = s->version;
  clock_advance_ms(99);
  MUST(world_load(w, "k", s) == EG_OK && bytes_are(s->bytes, "x"));
  clock_advance_ms(1);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->version == 0 && s->bytes.len == 0);
  MUST(world_swap(w, "k", &late, s) == EG_CONFLICT && s->version == 0);
  MUST(world_change(w, "k", brief("x", 100), s) == EG_OK);
  late.expect = s->version;
  clock_advance_ms(100);
  MUST(world_swap(w, "k", &late, s) == EG_CONFLICT && s->version == 0);
  return NULL;
}

const char *rule_07_life_over_while_held_waits_for_the_end(world *w) {
  egi_seen *s = &w->seen[0];
  egi_swap take = begin("x", 0);
  take.life_ms = 100;
  MUST(world_change(w, "k", take, s) == EG_OK);
  uint64_t token = s->at.token;
  clock_advance_ms(200);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->at.held && bytes_are(s->bytes, "x") && s->life_left_us == 0);
  MUST(world_change(w, "k", swap_drop(token), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->version == 0 && s->bytes.len == 0);
  take = begin("x", 300);
  take.life_ms = 100;
  MUST(world_change(w, "k", take, s) == EG_OK && s->at.token > token);
  clock_advance_ms(299);
  MUST(world_load(w, "k", s) == EG_OK && bytes_are(s->bytes, "x"));
  clock_advance_ms(1);
  MUST(world_load(w, "k", s) == EG_OK && s->version == 0);
  return NULL;
}

const char *rule_07_life_over_can_be_made_anew(world *w) {
  egi_seen *s = &w->seen[0];
  egi_swap fresh = swap_put("new");
  MUST(world_change(w, "k", brief("x", 100), s) == EG_OK);
  clock_advance_ms(100);
  fresh.expect = 0;
  MUST(world_swap(w, "k", &fresh, s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK && bytes_are(s->bytes, "new"));
  MUST(s->life_left_us == -1); /* LEAVE_TIME: of an absent record, none */
  clock_advance_ms(HOUR_MS);
  MUST(world_load(w, "k", s) == EG_OK && bytes_are(s->bytes, "new"));
  return NULL;
}

/* ------------------------------------------------------------- rule 9 -- */

static eg_status renew(world *w, const char *key, uint64_t token,
                       int64_t lease_ms) {
  egi_hold_ref hold = {eg_str(key), token};
  eg_status each = EG_INTERNAL;
  eg_status status = w->ops->renew(w->store, &hold, 1, lease_ms, &each,
                                   &w->error);
  return status == EG_OK ? each : status;
}

const char *rule_09_renew_prolongs_from_now(world *w) {
  egi_seen *s = &w->seen[0];
  if (w->ops->renew == NULL)
    return NULL;
  MUST(world_change(w, "k", begin("x", 100), s) == EG_OK);
  uint64_t version = s->version, token = s->at.token;
  clock_advance_ms(60);
  MUST(renew(w, "k", token, 100) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(s->at.left_us == 100000 && s->version == version);
  MUST(bytes_are(s->bytes, "x") && bytes_are(s->holder, "the holder line"));
  clock_advance_ms(99);
  MUST(world_load(w, "k", s) == EG_OK && s->at.held);
  clock_advance_ms(1);
  MUST(world_load(w, "k", s) == EG_OK && !s->at.held);
  return NULL;
}

const char *rule_09_renew_of_what_does_not_hold_is_lost(world *w) {
  egi_seen *s = &w->seen[0], *again = &w->seen[1];
  if (w->ops->renew == NULL)
    return NULL;
  MUST(renew(w, "never", 1, 100) == EG_LOST);
  MUST(world_change(w, "k", begin("x", 100), s) == EG_OK);
  uint64_t old = s->at.token;
  clock_advance_ms(100); /* over, though nobody came after */
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(renew(w, "k", old, 100) == EG_LOST);
  MUST(world_unchanged(w, "k", s, again));
  MUST(world_change(w, "k", swap_take(100), s) == EG_OK);
  MUST(world_load(w, "k", s) == EG_OK);
  MUST(renew(w, "k", old, 1000) == EG_LOST);
  MUST(world_unchanged(w, "k", s, again));
  uint64_t token = s->at.token;
  MUST(world_change(w, "k", swap_break(), s) == EG_OK);
  MUST(renew(w, "k", token, 1000) == EG_LOST);
  MUST(renew(w, "k", s->at.token, 1000) == EG_LOST);
  return NULL;
}

const char *rule_09_renew_of_many_judges_each(world *w) {
  egi_seen *s = &w->seen[0];
  egi_hold_ref holds[3] = {
      {eg_str("a"), 0}, {eg_str("b"), 0}, {eg_str("c"), 0}};
  eg_status each[3] = {EG_INTERNAL, EG_INTERNAL, EG_INTERNAL};
  if (w->ops->renew == NULL)
    return NULL;
  MUST(world_change(w, "a", swap_take(100), s) == EG_OK);
  holds[0].token = s->at.token;
  MUST(world_change(w, "b", swap_take(50), s) == EG_OK);
  holds[1].token = s->at.token;
  MUST(world_change(w, "c", swap_take(100), s) == EG_OK);
  holds[2].token = s->at.token;
  clock_advance_ms(50);
  MUST(w->ops->renew(w->store, holds, 3, 100, each, &w->error) == EG_OK);
  MUST(each[0] == EG_OK && each[1] == EG_LOST && each[2] == EG_OK);
  MUST(w->ops->renew(w->store, holds, 0, 100, each, &w->error) == EG_OK);
  clock_advance_ms(99);
  MUST(world_load(w, "a", s) == EG_OK && s->at.held);
  MUST(world_load(w, "c", s) == EG_OK && s->at.held);
  return NULL;
}
