/* SPDX-License-Identifier: MIT
** The transition, tested with every combination of what it can meet against
** the rows of transition_rows.c.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/transition.h"
#include "transition_rows.h"

/* ------------------------------------------------ what can be met, all -- */

enum {
  TOKEN = 1000,
  BEFORE_LEFT_US = 2500500, /* rounds up to 2501 ms */
  FRESH_LEFT_US = 7000000,
  LEASE_MS = 15000,
  AT_LEAST_MS = 4000,
  RESULT_MS = 60000,
  ERROR_MS = 30000,
  RECORD_MS = 90000,
  SHORT_MS = 1000, /* cooldowns: less and more than what may be left */
  LONG_MS = 9000
};

/* One combination, as bits for the rows and as arguments for the code. */
typedef struct combination {
  unsigned event, status, kind, held, token, mine, timed, clocked, fresh,
      before, rerun, cache, block;
  egi_head head;
  egi_sight sight;
  egi_event happens;
  eg_policy policy;
} combination;

/* What the code answered. */
typedef struct answer {
  egi_verdict verdict;
  egi_effect effect;
  eg_status outcome;
  int64_t left_us;
} answer;

typedef struct tally {
  unsigned long combinations, mismatches, unmatched;
  struct {
    unsigned long hits, mismatches;
  } row[128];
} tally;

static bool fits(unsigned set, unsigned bit) {
  return set == 0 || (set & bit) != 0;
}

static const row *row_of(const combination *c) {
  for (size_t i = 0; i < transition_row_count; i++) {
    const row *r = &transition_rows[i];
    if (fits(r->event, c->event) && fits(r->status, c->status) &&
        fits(r->kind, c->kind) && fits(r->held, c->held) &&
        fits(r->token, c->token) && fits(r->mine, c->mine) &&
        fits(r->timed, c->timed) && fits(r->clocked, c->clocked) &&
        fits(r->fresh, c->fresh) && fits(r->before, c->before) &&
        fits(r->rerun, c->rerun) && fits(r->cache, c->cache) &&
        fits(r->block, c->block))
      return r;
  }
  return NULL;
}

/* ------------------------------------------------------- expectations -- */

static unsigned status_bit(const egi_head *head) {
  static const unsigned bits[] = {IDLE, RUNNING, COMPLETED, TIMEDOUT, FAILED};
  if (head->absent)
    return ABSENT;
  return head->crashed ? CRASHED : bits[head->status];
}

/* Is ms one of the durations that the set allows? */
static bool lasts(unsigned set, int64_t ms, const combination *c) {
  const eg_policy *p = &c->policy;
  int64_t rest = c->before == LEFT ? BEFORE_LEFT_US : 0;
  bool cools = p->cooldown_ms * 1000 > rest;
  int64_t longer = cools ? p->cooldown_ms : EGI_LEAVE_TIME;
  return set == 0 || ((set & LEAVE) && ms == EGI_LEAVE_TIME) ||
         ((set & ZERO) && ms == 0) || ((set & LEASE) && ms == p->lease_ms) ||
         ((set & LOCK_AT_LEAST) && ms == p->lock_at_least_ms) ||
         ((set & RESULT_TTL) && ms == p->result_ttl_ms) ||
         ((set & ERROR_TTL) && ms == p->error_ttl_ms) ||
         ((set & RECORD_TTL) && ms == p->record_ttl_ms) ||
         ((set & LONGER) && ms == longer);
}

static bool lasts_still(unsigned set, int64_t left_us) {
  if (set == 0)
    return left_us == -1;
  return ((set & L_UNKNOWN) && left_us == -1) ||
         ((set & L_BEFORE) && left_us == BEFORE_LEFT_US) ||
         ((set & L_FRESH) && left_us == FRESH_LEFT_US);
}

static bool keeps(unsigned set, eg_kind kind, const combination *c) {
  return set == 0 || ((set & STAYS) && kind == c->head.kind) ||
         ((set & GONE) && kind == EG_KIND_NONE) ||
         ((set & OF_EVENT) && kind == c->happens.outcome.kind);
}

static bool is(unsigned set, bool value) {
  return fits(set, value ? YES : NO);
}

/* NULL, or what is not as the row has it. */
static const char *put_differs(const row *r, const combination *c,
                               const egi_effect *e) {
  if (!fits(r->to, status_bit(&e->head)))
    return "status";
  if (!keeps(r->result, e->head.kind, c))
    return "kind";
  return NULL;
}

static const char *effect_differs(const row *r, const combination *c,
                                  const egi_effect *e) {
  if (!fits(r->write, 1u << e->write))
    return "write";
  if (!fits(r->hold, 1u << e->hold))
    return "hold";
  if (!is(r->names, e->names_token))
    return "names_token";
  if (!is(r->wake, e->wake))
    return "wake";
  if (!is(r->new_result, e->new_result))
    return "new_result";
  if (!lasts(r->not_before, e->not_before_ms, c))
    return "notBefore";
  if (!lasts(r->fresh_for, e->fresh_ms, c))
    return "fresh";
  if (!lasts(r->lease, e->lease_ms, c))
    return "lease";
  if (!lasts(r->life, e->life_ms, c))
    return "life";
  return e->write == EGI_PUT ? put_differs(r, c, e) : NULL;
}

static const char *differs(const row *r, const combination *c,
                           const answer *a) {
  if (!fits(r->verdict, 1u << a->verdict))
    return "verdict";
  if (a->verdict == EGI_NOW)
    return NULL;
  if (a->outcome != (eg_status)r->outcome)
    return "outcome";
  if (!lasts_still(r->left, a->left_us))
    return "left";
  return a->verdict == EGI_SWAP ? effect_differs(r, c, &a->effect) : NULL;
}

/* ------------------------------------------------------ one combination -- */

static void show(const char *what, const row *r, const combination *c,
                 const answer *a) {
  const egi_effect *e = &a->effect;
  print_error("%s: %s\n  event %u status %u kind %u held %u token %u mine %u "
              "timed %u clocked %u fresh %u before %u rerun %u cache %u "
              "block %u\n",
              r != NULL ? r->name : "no row", what, c->event, c->status,
              c->kind, c->held, c->token, c->mine, c->timed, c->clocked,
              c->fresh, c->before, c->rerun, c->cache, c->block);
  print_error("  verdict %d outcome %s left %lld\n", a->verdict,
              eg_status_word(a->outcome), (long long)a->left_us);
  if (a->verdict == EGI_SWAP)
    print_error("  write %d hold %d names %d wake %d new %d to %u kind %d "
                "notBefore %lld fresh %lld lease %lld life %lld\n",
                e->write, e->hold, e->names_token, e->wake, e->new_result,
                status_bit(&e->head), e->head.kind,
                (long long)e->not_before_ms, (long long)e->fresh_ms,
                (long long)e->lease_ms, (long long)e->life_ms);
}

static void check_one(const row *r, const combination *c, tally *t) {
  answer a;
  memset(&a, 0x5a, sizeof a);
  a.verdict = egi_decide(&c->head, &c->sight, &c->happens, &c->policy,
                         &a.effect, &a.outcome, &a.left_us);
  t->combinations++;
  if (r == NULL) {
    if (t->unmatched++ == 0)
      show("unmatched", r, c, &a);
    return;
  }
  size_t at = (size_t)(r - transition_rows);
  t->row[at].hits++;
  const char *what = differs(r, c, &a);
  if (what == NULL)
    return;
  t->mismatches++;
  if (t->row[at].mismatches++ == 0) /* the first says enough */
    show(what, r, c, &a);
}

/* Every length of every duration of the policy: set or not, and two
** cooldowns.  Which row counts does not depend on them. */
static void each_duration(combination *c, tally *t) {
  static const int64_t cooldowns[] = {0, SHORT_MS, LONG_MS};
  const row *r = row_of(c);
  for (unsigned i = 0; i < 3 * 32; i++) {
    unsigned set = i % 32;
    c->policy.cooldown_ms = cooldowns[i / 32];
    c->policy.lease_ms = set & 1 ? LEASE_MS : 0;
    c->policy.lock_at_least_ms = set & 2 ? AT_LEAST_MS : 0;
    c->policy.result_ttl_ms = set & 4 ? RESULT_MS : 0;
    c->policy.error_ttl_ms = set & 8 ? ERROR_MS : 0;
    c->policy.record_ttl_ms = set & 16 ? RECORD_MS : 0;
    check_one(r, c, t);
  }
}

/* ---------------------------------------------------- all combinations -- */

static void each_policy(combination *c, tally *t) {
  for (unsigned i = 0; i < 8; i++) {
    c->policy.allow_rerun = i & 1;
    c->policy.cache_result = i & 2;
    c->policy.block_after_crash = i & 4;
    c->rerun = i & 1 ? YES : NO;
    c->cache = i & 2 ? YES : NO;
    c->block = i & 4 ? YES : NO;
    each_duration(c, t);
  }
}

static void set_times(combination *c, bool timed, bool clocked, unsigned fresh,
                      unsigned before) {
  c->timed = timed ? YES : NO;
  c->clocked = clocked ? YES : NO;
  c->fresh = fresh;
  c->before = before;
  c->sight.timed = timed;
  c->sight.clocked = clocked;
  c->sight.fresh_left_us = fresh == UNSET  ? -1
                           : fresh == LEFT ? FRESH_LEFT_US
                                           : 0;
  c->sight.not_before_left_us = before == LEFT ? BEFORE_LEFT_US : 0;
}

/* Where no time is set, there is none to be left. */
static void each_time(combination *c, tally *t) {
  for (int clocked = 0; clocked <= 1; clocked++) {
    set_times(c, false, clocked, UNSET, UNSET);
    each_policy(c, t);
    for (unsigned fresh = UNSET; fresh <= OVER; fresh *= 2)
      for (unsigned before = UNSET; before <= LEFT; before *= 2) {
        set_times(c, true, clocked, fresh, before);
        each_policy(c, t);
      }
  }
}

static void each_token(combination *c, tally *t) {
  unsigned named = JOIN | COMMIT | REVOKE;
  unsigned last = c->event == RELEASE       ? ANY_MINE
                  : (c->event & named) != 0 ? OLDER
                                            : SAME;
  for (unsigned token = SAME; token <= last; token *= 2)
    for (int mine = 0; mine <= (c->event == RELEASE ? 1 : 0); mine++) {
      c->token = token;
      c->mine = mine ? YES : NO;
      c->happens.token = token == SAME    ? TOKEN
                         : token == OLDER ? TOKEN - 1
                                          : 0;
      c->happens.mine = mine;
      each_time(c, t);
    }
}

static void each_event(combination *c, tally *t) {
  static const struct {
    unsigned bit;
    egi_event_type type;
    eg_status status;
    eg_kind kind;
  } events[] = {
      {RUN, EGI_ACQUIRE_RUN, EG_OK, EG_KIND_NONE},
      {LOCK, EGI_ACQUIRE_LOCK, EG_OK, EG_KIND_NONE},
      {JOIN, EGI_JOIN, EG_OK, EG_KIND_NONE},
      {DONE, EGI_COMMIT, EG_OK, EG_KIND_NONE},
      {DONE, EGI_COMMIT, EG_OK, EG_KIND_VALUE},
      {DONE, EGI_COMMIT, EG_OK, EG_KIND_OPAQUE},
      {ERROR, EGI_COMMIT, EG_FAILED, EG_KIND_NONE},
      {LATE, EGI_COMMIT, EG_TIMEOUT, EG_KIND_NONE},
      {RELEASE, EGI_RELEASE, EG_OK, EG_KIND_NONE},
      {RESET, EGI_RESET, EG_OK, EG_KIND_NONE},
      {REVOKE, EGI_REVOKE, EG_FAILED, EG_KIND_NONE},
      {CLEAR, EGI_CLEAR, EG_OK, EG_KIND_NONE},
      {FETCH, EGI_FETCH, EG_OK, EG_KIND_NONE},
  };
  for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
    c->event = events[i].bit;
    c->happens.type = events[i].type;
    c->happens.outcome.status = events[i].status;
    c->happens.outcome.kind = events[i].kind;
    each_token(c, t);
  }
}

static void each_record(tally *t) {
  static const eg_run runs[] = {
      EG_RUN_IDLE,     EG_RUN_IDLE,   EG_RUN_RUNNING, EG_RUN_COMPLETED,
      EG_RUN_TIMEDOUT, EG_RUN_FAILED, EG_RUN_FAILED};
  for (unsigned i = 0; i < 7; i++)
    for (unsigned kind = 0; kind < (i == 0 ? 1u : 3u); kind++)
      for (int held = 0; held <= 1; held++) {
        combination c = {.status = 1u << i,
                         .kind = 1u << kind,
                         .held = held ? YES : NO,
                         .policy = EG_POLICY_DEFAULT};
        c.head = (egi_head){i == 0, i == 6, runs[i], (eg_kind)kind};
        c.sight.token = TOKEN;
        c.sight.held = held;
        c.sight.now_us = 5000000;
        c.sight.stamp_us = 1767225600000000;
        c.sight.left_us = -1;
        each_event(&c, t);
      }
}

static void decide_agrees_with_every_row(void **state) {
  (void)state;
  static tally t;
  size_t never = 0;
  assert_true(transition_row_count <= sizeof t.row / sizeof *t.row);
  each_record(&t);
  for (size_t i = 0; i < transition_row_count; i++) {
    if (t.row[i].hits == 0 && ++never > 0)
      print_error("never met: %s\n", transition_rows[i].name);
    if (t.row[i].mismatches > 0)
      print_error("%lu of %lu differ: %s\n", t.row[i].mismatches,
                  t.row[i].hits, transition_rows[i].name);
  }
  print_message("transition: %lu combinations, %zu rows, %lu differ\n",
                t.combinations, transition_row_count, t.mismatches);
  assert_int_equal(t.unmatched, 0);
  assert_int_equal(never, 0);
  assert_int_equal(t.mismatches, 0);
}

/* --------------------------------------------------------------- table -- */

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(decide_agrees_with_every_row),
  };
  return cmocka_run_group_tests_name("transition", tests, NULL, NULL);
}
