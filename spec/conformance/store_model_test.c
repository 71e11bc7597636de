/* SPDX-License-Identifier: MIT
** Long random sequences of swaps, renewals and time, against a model of the
** contract that is small enough to be believed.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "steps.h"

#include <cmocka.h>

enum { KEYS = 5, NEVER = -1, LARGEST = 3000 };

/* What the contract says of a key.  Times are points; NEVER: none is set. */
typedef struct model {
  size_t len;
  char letter;
  bool held;
  int64_t lease, not_before, fresh, life;
  uint64_t token, highest; /* of the latest grant; of any there ever was */
  uint64_t version, last_version; /* 0 while absent; never 0 */
} model;

typedef struct play {
  world *w;
  way by;
  uint32_t seed;
  model keys[KEYS];
  int step;
} play;

static uint32_t dice(play *p, uint32_t sides) {
  p->seed ^= p->seed << 13;
  p->seed ^= p->seed >> 17;
  p->seed ^= p->seed << 5;
  return p->seed % sides;
}

/* ----------------------------------------------------------- the model -- */

static bool over(int64_t point, int64_t now) {
  return point != NEVER && point <= now;
}

/* What time alone does. */
static void settle(model *m, int64_t now) {
  if (m->held && over(m->lease, now))
    m->held = false;
  if (!m->held)
    m->lease = NEVER;
  if (over(m->not_before, now))
    m->not_before = NEVER;
  bool empty = m->len == 0 && m->not_before == NEVER;
  if (!m->held && (empty || over(m->life, now))) {
    m->len = 0;
    m->version = m->token = 0;
    m->not_before = m->fresh = m->life = NEVER;
  }
}

static bool lands(const model *m, const egi_swap *swap) {
  if (swap->expect != m->version)
    return false;
  if (swap->token != 0 && (!m->held || swap->token != m->token))
    return false;
  return swap->hold != EGI_TAKE || !m->held;
}

static int64_t point(int64_t before, int64_t now, int64_t ms) {
  return ms == EGI_LEAVE_TIME ? before : ms > 0 ? now + ms * 1000 : NEVER;
}

static void do_swap(model *m, const egi_swap *swap, int64_t now) {
  if (swap->write == EGI_PUT) {
    m->len = swap->bytes.len;
    m->letter = *(const char *)swap->bytes.data;
  } else if (swap->write == EGI_FORGET) {
    m->len = 0;
  }
  if (swap->hold != EGI_KEEP) {
    m->held = swap->hold == EGI_TAKE;
    m->lease = m->held ? point(NEVER, now, swap->lease_ms) : NEVER;
  }
  m->not_before = point(m->not_before, now, swap->not_before_ms);
  m->fresh = point(m->fresh, now, swap->fresh_ms);
  m->life = point(m->life, now, swap->life_ms);
}

/* ----------------------------------------------------------- comparing -- */

static int64_t left(int64_t until, int64_t now) {
  return until == NEVER ? -1 : until > now ? until - now : 0;
}

static const char *differs(const model *m, const egi_seen *s, int64_t now) {
  const char *bytes = s->bytes.data;
  MUST(s->bytes.len == m->len);
  for (size_t i = 0; i < m->len; i++)
    MUST(bytes[i] == m->letter);
  MUST(s->at.held == m->held);
  MUST(!m->held || s->at.left_us == left(m->lease, now));
  MUST(s->at.not_before_left_us ==
       (m->not_before == NEVER ? 0 : left(m->not_before, now)));
  MUST(s->at.fresh_left_us == left(m->fresh, now));
  MUST(s->life_left_us == left(m->life, now));
  MUST(s->version == m->version);
  MUST(s->version == 0 || s->at.token == m->token);
  bool timed = m->lease != NEVER || m->not_before != NEVER ||
               m->fresh != NEVER || m->life != NEVER;
  MUST(!timed || s->at.timed);
  MUST(m->held == (s->holder.len > 0));
  return NULL;
}

static const char *look(play *p, unsigned k) {
  char key[8];
  egi_seen *s = &p->w->seen[0];
  int64_t now = clock_now_us();
  snprintf(key, sizeof key, "key%u", k);
  settle(&p->keys[k], now);
  MUST(world_load(p->w, key, s) == EG_OK);
  return differs(&p->keys[k], s, now);
}

/* --------------------------------------------------------------- moves -- */

static int64_t any_time(play *p) {
  static const int64_t some[] = {EGI_LEAVE_TIME, EGI_LEAVE_TIME, 0, 20, 70};
  return some[dice(p, 5)];
}

static egi_swap any_swap(play *p, const model *m, char *bytes) {
  egi_swap swap = swap_nothing();
  uint32_t die = dice(p, 10);
  size_t len = dice(p, 8) == 0 ? 1 + dice(p, LARGEST) : 1 + dice(p, 40);
  memset(bytes, (int)('a' + dice(p, 26)), len);
  swap.expect = die == 0 ? m->version + 1 : m->version;
  swap.token = dice(p, 4) == 0   ? m->token
               : dice(p, 8) == 0 ? m->highest + dice(p, 2)
                                 : 0;
  swap.write = (egi_write)dice(p, 3);
  swap.hold = (egi_hold)dice(p, 4);
  swap.wake = dice(p, 2);
  swap.bytes = (eg_bytes){bytes, len};
  swap.holder = (eg_bytes){bytes, len < 200 ? len : 200};
  swap.lease_ms = (int64_t)dice(p, 3) * 40;
  swap.not_before_ms = any_time(p);
  swap.fresh_ms = any_time(p);
  swap.life_ms = any_time(p);
  return swap;
}

static const char *after_swap(model *m, const egi_swap *swap, uint64_t version,
                              uint64_t token, int64_t now) {
  do_swap(m, swap, now);
  if (swap->hold == EGI_TAKE || swap->hold == EGI_BREAK) {
    MUST(token > m->highest && token <= EGI_TOKEN_MAX);
    m->highest = m->token = token;
  }
  if (version != 0) {
    MUST(version != m->last_version);
    m->last_version = version;
  }
  m->version = version;
  settle(m, now);
  return NULL;
}

static const char *play_swap(play *p, unsigned k) {
  char key[8], bytes[LARGEST + 1];
  model *m = &p->keys[k];
  egi_seen *s = &p->w->seen[1];
  int64_t now = clock_now_us();
  snprintf(key, sizeof key, "key%u", k);
  settle(m, now);
  egi_swap swap = any_swap(p, m, bytes);
  bool will = lands(m, &swap);
  eg_status status = world_swap(p->w, key, &swap, s);
  MUST(status == (will ? EG_OK : EG_CONFLICT));
  if (!will)
    return differs(m, s, now);
  return after_swap(m, &swap, s->version, s->at.token, now);
}

/* The same by a step; from under the lock the version is of no matter. */
typedef struct told {
  egi_swap swap;
  uint64_t version;
} told;

static egi_verdict as_told(void *ctx, const egi_seen *seen, egi_swap *swap) {
  told *t = ctx;
  if (!seen->at.clocked)
    return EGI_NOW;
  t->version = seen->version;
  *swap = t->swap;
  return EGI_SWAP;
}

static const char *play_step(play *p, unsigned k) {
  char key[8], bytes[LARGEST + 1];
  model *m = &p->keys[k];
  egi_seen *s = &p->w->seen[1];
  int64_t now = clock_now_us();
  uint64_t token = 0;
  snprintf(key, sizeof key, "key%u", k);
  settle(m, now);
  told t = {.swap = any_swap(p, m, bytes)};
  t.swap.expect = m->version;
  if (!lands(m, &t.swap))
    return NULL; /* what decide has seen, it would not answer that way */
  MUST(step_run(p->w, p->by, key, as_told, &t, EGI_NO_TIME, &token) == EG_OK);
  MUST(t.version == m->version);
  MUST(world_load(p->w, key, s) == EG_OK);
  return after_swap(m, &t.swap, s->version, token, now);
}

static const char *play_renew(play *p, unsigned k) {
  char key[8];
  model *m = &p->keys[k];
  int64_t now = clock_now_us();
  eg_status each = EG_INTERNAL;
  snprintf(key, sizeof key, "key%u", k);
  settle(m, now);
  egi_hold_ref hold = {{key, strlen(key)},
                       dice(p, 3) == 0 ? m->highest + 1 : m->token};
  bool good = m->held && hold.token == m->token;
  if (p->w->ops->renew == NULL || (good && m->lease == NEVER))
    return NULL;
  int64_t ms = 100; /* longer than any lease there is */
  MUST(p->w->ops->renew(p->w->store, &hold, 1, ms, &each, &p->w->error) ==
       EG_OK);
  MUST(each == (good ? EG_OK : EG_LOST));
  if (good)
    m->lease = now + ms * 1000;
  return NULL;
}

static const char *play_one(play *p) {
  unsigned k = dice(p, KEYS);
  switch (dice(p, 8)) {
  case 0:
    clock_advance_ms(dice(p, 30));
    break;
  case 1:
    HOLDS(play_renew(p, k));
    break;
  case 2:
    clock_set_wall_back_ms((int64_t)dice(p, 2000) - 1000);
    break;
  default:
    if (dice(p, 2) == 0)
      HOLDS(play_swap(p, k));
    else
      HOLDS(play_step(p, k));
  }
  return look(p, dice(p, 2) == 0 ? k : dice(p, KEYS));
}

static void play_game(way by, bool named) {
  world w;
  if (!world_open(&w, NULL, named))
    fail_msg("%s", w.error.message);
  play p = {.w = &w, .by = w.ops->apply != NULL ? by : BY_LOOP};
  p.seed = 20260101u + (unsigned)by + (named ? 100u : 0u);
  for (int k = 0; k < KEYS; k++)
    p.keys[k].lease = p.keys[k].not_before = p.keys[k].fresh = p.keys[k].life =
        NEVER;
  const char *why = NULL;
  int steps = world_scaled(60000);
  for (; why == NULL && p.step < steps; p.step++)
    why = play_one(&p);
  world_close(&w);
  if (why != NULL)
    fail_msg("step %d: %s", p.step, why);
}

static void store_agrees_with_the_model_by_loop(void **state) {
  (void)state;
  play_game(BY_LOOP, false);
  play_game(BY_LOOP, true);
}

static void store_agrees_with_the_model_by_apply(void **state) {
  (void)state;
  play_game(BY_APPLY, false);
  play_game(BY_APPLY, true);
}

static void store_agrees_with_the_model_by_glance(void **state) {
  (void)state;
  play_game(BY_GLANCE, false);
  play_game(BY_GLANCE, true);
}

static void model_leaves_no_memory_behind(void **state) {
  (void)state;
  assert_int_equal(alloc_blocks(), 0);
  assert_false(alloc_was_misused());
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(store_agrees_with_the_model_by_loop),
      cmocka_unit_test(store_agrees_with_the_model_by_apply),
      cmocka_unit_test(store_agrees_with_the_model_by_glance),
      cmocka_unit_test(model_leaves_no_memory_behind),
  };
  alarm(600);
  return cmocka_run_group_tests_name("store model", tests, NULL, NULL);
}
