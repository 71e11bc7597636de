/* SPDX-License-Identifier: MIT
** Rules that only threads can break: one winner, no lost update, no lost
** wake-up, rising tokens, whole records, complete scans.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "steps.h"

#include <cmocka.h>

enum { THREADS = 4, SCANNED = 3000 };

/* What the threads of one test share. */
typedef struct team {
  world w;
  way by;
  bool named;
  int rounds;
  pthread_barrier_t barrier;
  atomic_int winners, wrong, busy;
  atomic_uint_fast64_t highest;
} team;

typedef struct member {
  team *t;
  int number;
  pthread_t thread;
} member;

static void wrong(team *t) { atomic_fetch_add(&t->wrong, 1); }

static void all_do(team *t, void *(*work)(void *), int n) {
  member members[THREADS];
  assert_int_equal(pthread_barrier_init(&t->barrier, NULL, (unsigned)n), 0);
  for (int i = 0; i < n; i++) {
    members[i] = (member){.t = t, .number = i};
    assert_int_equal(
        pthread_create(&members[i].thread, NULL, work, &members[i]), 0);
  }
  for (int i = 0; i < n; i++)
    pthread_join(members[i].thread, NULL);
  pthread_barrier_destroy(&t->barrier);
  assert_int_equal(t->wrong, 0);
}

static eg_status load(world *w, const char *key, egi_seen *seen) {
  return w->ops->load(w->store, eg_str(key), EG_FOREVER, seen, NULL);
}

static eg_status swap(world *w, const char *key, const egi_swap *what,
                      egi_seen *seen) {
  return w->ops->swap(w->store, eg_str(key), what, EG_FOREVER, seen, NULL);
}

/* ---------------------------------------------------------- one winner -- */

static void *take_all_at_once(void *ctx) {
  member *me = ctx;
  team *t = me->t;
  egi_seen s;
  egi_seen_init(&s);
  for (int i = 0; i < t->rounds; i++) {
    egi_swap take = swap_take(0);
    bool won = load(&t->w, "k", &s) == EG_OK;
    take.expect = s.version;
    pthread_barrier_wait(&t->barrier);
    eg_status status = swap(&t->w, "k", &take, &s);
    won = won && status == EG_OK;
    if (won)
      atomic_fetch_add(&t->winners, 1);
    else if (status != EG_CONFLICT || !s.at.held)
      wrong(t);
    egi_swap drop = swap_drop(s.at.token);
    drop.expect = s.version;
    take.expect = s.version; /* known now; it is held all the same */
    if (!won && swap(&t->w, "k", &take, &s) != EG_CONFLICT)
      wrong(t);
    if (pthread_barrier_wait(&t->barrier) != 0 &&
        atomic_exchange(&t->winners, 0) != 1)
      wrong(t);
    if (won && swap(&t->w, "k", &drop, &s) != EG_OK)
      wrong(t);
    pthread_barrier_wait(&t->barrier);
  }
  egi_seen_free(&s, &t->w.env);
  return NULL;
}

static void take_by_many_has_one_winner(void **state) {
  team *t = *state;
  t->rounds = world_scaled(3000);
  all_do(t, take_all_at_once, THREADS);
}

/* ------------------------------------------------------- lost updates -- */

typedef struct adder {
  char bytes[24];
} adder;

static egi_verdict add_one(void *ctx, const egi_seen *seen, egi_swap *what) {
  adder *a = ctx;
  char text[24] = "";
  if (seen->bytes.len > 0)
    memcpy(text, seen->bytes.data,
           seen->bytes.len < 23 ? seen->bytes.len : 23);
  snprintf(a->bytes, sizeof a->bytes, "%ld", strtol(text, NULL, 10) + 1);
  *what = swap_put(a->bytes);
  return EGI_SWAP;
}

static void *add_many(void *ctx) {
  member *me = ctx;
  team *t = me->t;
  for (int i = 0; i < t->rounds; i++) {
    adder a;
    uint64_t token;
    world w = t->w;
    way by = t->by == BY_LOOP || me->number % 2 ? t->by : BY_LOOP;
    if (step_run(&w, by, "k", add_one, &a, EGI_NO_TIME, &token) != EG_OK)
      wrong(t);
  }
  return NULL;
}

static void steps_of_many_lose_no_update(void **state) {
  team *t = *state;
  char total[24];
  t->rounds = world_scaled(5000);
  all_do(t, add_many, THREADS);
  assert_int_equal(world_load(&t->w, "k", &t->w.seen[0]), EG_OK);
  snprintf(total, sizeof total, "%d", t->rounds * THREADS);
  assert_true(bytes_are(t->w.seen[0].bytes, total));
}

/* -------------------------------------------------------- rising tokens -- */

/* What comes of a grant: dropped, dropped and forgotten, revoked. */
static bool end_grant(team *t, egi_seen *s, int kind) {
  egi_swap end = kind % 3 == 2 ? swap_break() : swap_drop(s->at.token);
  end.expect = s->version;
  end.write = kind % 3 == 1 ? EGI_FORGET : EGI_LEAVE;
  return swap(&t->w, "k", &end, s) == EG_OK;
}

static void *take_and_end(void *ctx) {
  member *me = ctx;
  team *t = me->t;
  egi_seen s;
  egi_seen_init(&s);
  for (int i = 0; i < t->rounds; i++) {
    egi_swap take = swap_take(0);
    take.write = i % 2 ? EGI_PUT : EGI_LEAVE;
    take.bytes = eg_str("x");
    if (load(&t->w, "k", &s) != EG_OK)
      wrong(t);
    take.expect = s.version;
    if (swap(&t->w, "k", &take, &s) != EG_OK)
      continue;
    if (atomic_fetch_add(&t->busy, 1) != 0)
      wrong(t);
    if (s.at.token <= atomic_load(&t->highest))
      wrong(t);
    atomic_store(&t->highest, s.at.token);
    atomic_fetch_sub(&t->busy, 1);
    if (!end_grant(t, &s, i))
      wrong(t);
  }
  egi_seen_free(&s, &t->w.env);
  return NULL;
}

static void tokens_of_many_rise_over_drop_forget_and_reset(void **state) {
  team *t = *state;
  t->rounds = world_scaled(10000);
  all_do(t, take_and_end, THREADS);
  assert_true(atomic_load(&t->highest) > 0);
}

/* ------------------------------------------------------ lost wake-ups -- */

/* The key says whose turn it is; who has it hands it over. */
static void *hand_over(void *ctx) {
  member *me = ctx;
  team *t = me->t;
  world *w = &t->w;
  egi_seen s;
  egi_seen_init(&s);
  for (int i = 0; i < t->rounds;) {
    egi_swap give = swap_put(me->number == 0 ? "1" : "0");
    egi_watch *watch = NULL;
    int fd;
    if (load(w, "turn", &s) != EG_OK)
      wrong(t);
    if (bytes_are(s.bytes, me->number == 0 ? "0" : "1")) {
      give.expect = s.version;
      give.wake = true;
      if (swap(w, "turn", &give, &s) != EG_OK)
        wrong(t);
      i++;
      continue;
    }
    if (w->ops->watch(w->store, eg_str("turn"), &s, &watch, &fd, NULL) !=
        EG_OK) {
      wrong(t);
      break;
    }
    eg_status status = w->ops->wait(watch, EG_FOREVER, NULL);
    if (status != EG_CHANGED && status != EG_OK)
      wrong(t);
    w->ops->unwatch(watch);
  }
  egi_seen_free(&s, &w->env);
  return NULL;
}

static void hand_overs_lose_no_wake_up(void **state) {
  team *t = *state;
  if (t->w.ops->watch == NULL)
    skip();
  t->rounds = world_scaled(5000); /* of each: 10,000 in all */
  assert_int_equal(world_change(&t->w, "turn", swap_put("0"), &t->w.seen[0]),
                   EG_OK);
  all_do(t, hand_over, 2);
}

/* One watch is kept and waited on again and again. */
static void *pass_on(void *ctx) {
  member *me = ctx;
  team *t = me->t;
  world *w = &t->w;
  egi_watch *watch = NULL;
  egi_seen s;
  int fd;
  egi_seen_init(&s);
  if (load(w, "turn", &s) != EG_OK ||
      w->ops->watch(w->store, eg_str("turn"), &s, &watch, &fd, NULL) != EG_OK)
    wrong(t);
  for (int i = 0; watch != NULL && i < t->rounds;) {
    egi_swap give = swap_put(me->number == 0 ? "1" : "0");
    if (load(w, "turn", &s) != EG_OK)
      wrong(t);
    if (!bytes_are(s.bytes, me->number == 0 ? "0" : "1")) {
      if (w->ops->wait(watch, EG_FOREVER, NULL) == EG_TIMEOUT)
        wrong(t);
      continue;
    }
    give.expect = s.version;
    give.wake = true;
    if (swap(w, "turn", &give, &s) != EG_OK)
      wrong(t);
    i++;
  }
  w->ops->unwatch(watch);
  egi_seen_free(&s, &w->env);
  return NULL;
}

static void kept_watch_loses_no_wake_up(void **state) {
  team *t = *state;
  if (t->w.ops->watch == NULL)
    skip();
  t->rounds = world_scaled(5000);
  assert_int_equal(world_change(&t->w, "turn", swap_put("0"), &t->w.seen[0]),
                   EG_OK);
  all_do(t, pass_on, 2);
}

/* ------------------------------------------------------- whole records -- */

/* A record is one letter, as often as the letter says. */
static size_t length_of(char letter) {
  return (size_t)(letter - 'a' + 1) * 13;
}

static egi_verdict check_whole(void *ctx, const egi_seen *seen,
                               egi_swap *what) {
  bool *torn = ctx;
  const char *bytes = seen->bytes.data;
  (void)what;
  *torn = seen->bytes.len > 0 && seen->bytes.len != length_of(bytes[0]);
  for (size_t i = 1; i < seen->bytes.len; i++)
    *torn = *torn || bytes[i] != bytes[0];
  return EGI_NONE;
}

static void write_any(team *t, egi_seen *s, int i) {
  char bytes[26 * 13 + 1];
  char letter = (char)('a' + i * 7 % 26);
  memset(bytes, letter, sizeof bytes);
  egi_swap put = swap_put("");
  put.bytes = (eg_bytes){bytes, length_of(letter)};
  put.write = i % 11 == 0 ? EGI_FORGET : EGI_PUT;
  if (load(&t->w, "k", s) != EG_OK)
    wrong(t);
  put.expect = s->version;
  swap(&t->w, "k", &put, s);
}

static void *read_and_write(void *ctx) {
  member *me = ctx;
  team *t = me->t;
  egi_seen s;
  egi_seen_init(&s);
  for (int i = 0; i < t->rounds; i++) {
    bool torn = false;
    uint64_t token;
    world w = t->w;
    if (me->number < 2) {
      write_any(t, &s, i);
      continue;
    }
    if (step_run(&w, t->by, "k", check_whole, &torn, EGI_NO_TIME, &token) !=
        EG_OK)
      wrong(t);
    /* A copy may be torn while decide looks at it, but not in the end. */
    if (torn)
      wrong(t);
  }
  egi_seen_free(&s, &t->w.env);
  return NULL;
}

static void readers_see_whole_records(void **state) {
  team *t = *state;
  t->rounds = world_scaled(20000);
  all_do(t, read_and_write, THREADS);
}

/* ----------------------------------------------------- complete scans -- */

typedef struct census {
  unsigned char met[SCANNED];
  int twice;
} census;

static bool visit(void *ctx, eg_bytes key, const egi_seen *seen) {
  census *c = ctx;
  char text[24] = "";
  memcpy(text, key.data, key.len < 23 ? key.len : 23);
  unsigned number = (unsigned)strtoul(text + 1, NULL, 10);
  (void)seen;
  if (text[0] == 's' && number < SCANNED && c->met[number]++ > 0)
    c->twice++;
  return true;
}

static void scan_once(team *t) {
  world w = t->w;
  census *c = calloc(1, sizeof *c);
  if (c == NULL || w.ops->scan(w.store, eg_str(""), visit, c, NULL) != EG_OK) {
    wrong(t);
    free(c);
    return;
  }
  for (int i = 0; i < SCANNED; i++)
    if (c->met[i] == 0)
      wrong(t);
  if (c->twice > 0)
    wrong(t);
  free(c);
}

static void *scan_or_add(void *ctx) {
  member *me = ctx;
  team *t = me->t;
  egi_seen s;
  char key[24];
  egi_seen_init(&s);
  for (int i = 0; me->number == 0 && i < 10; i++)
    scan_once(t);
  for (int i = 0; me->number > 0 && i < t->rounds; i++) {
    egi_swap put = swap_put("added"), forget = swap_forget();
    snprintf(key, sizeof key, "%c%d", 'A' + me->number, i);
    if (swap(&t->w, key, &put, &s) != EG_OK)
      wrong(t);
    forget.expect = s.version;
    if (i % 3 == 0 && swap(&t->w, key, &forget, &s) != EG_OK)
      wrong(t);
  }
  egi_seen_free(&s, &t->w.env);
  return NULL;
}

static void scan_during_splits_misses_none_and_repeats_none(void **state) {
  team *t = *state;
  char key[24];
  t->rounds = world_scaled(20000);
  for (int i = 0; i < SCANNED; i++) {
    snprintf(key, sizeof key, "s%d", i);
    egi_swap put = swap_put("stays"); /* of a new key */
    assert_int_equal(world_swap(&t->w, key, &put, &t->w.seen[0]), EG_OK);
  }
  all_do(t, scan_or_add, THREADS);
}

/* ------------------------------------------------------------- setting -- */

static int open_team(void **state) {
  team *t = *state;
  atomic_store(&t->wrong, 0);
  atomic_store(&t->winners, 0);
  atomic_store(&t->highest, 0);
  if (!world_open(&t->w, NULL, t->named))
    return -1;
  if (t->w.ops->apply == NULL)
    t->by = BY_LOOP;
  return 0;
}

static int close_team(void **state) {
  team *t = *state;
  world_close(&t->w);
  return 0;
}

/* --------------------------------------------------------------- table -- */

static team by_loop = {.by = BY_LOOP}, by_apply = {.by = BY_APPLY},
            by_glance = {.by = BY_GLANCE},
            named = {.by = BY_GLANCE, .named = true};

#define ENTRY(team, test)                                                     \
  { #team " " #test, test, open_team, close_team, &team }

int main(void) {
  const struct CMUnitTest tests[] = {
      ENTRY(by_loop, take_by_many_has_one_winner),
      ENTRY(named, take_by_many_has_one_winner),
      ENTRY(by_loop, steps_of_many_lose_no_update),
      ENTRY(by_apply, steps_of_many_lose_no_update),
      ENTRY(by_glance, steps_of_many_lose_no_update),
      ENTRY(named, steps_of_many_lose_no_update),
      ENTRY(by_loop, tokens_of_many_rise_over_drop_forget_and_reset),
      ENTRY(named, tokens_of_many_rise_over_drop_forget_and_reset),
      ENTRY(by_loop, hand_overs_lose_no_wake_up),
      ENTRY(named, hand_overs_lose_no_wake_up),
      ENTRY(by_loop, kept_watch_loses_no_wake_up),
      ENTRY(by_loop, readers_see_whole_records),
      ENTRY(by_apply, readers_see_whole_records),
      ENTRY(by_glance, readers_see_whole_records),
      ENTRY(named, readers_see_whole_records),
      ENTRY(by_loop, scan_during_splits_misses_none_and_repeats_none),
      ENTRY(named, scan_during_splits_misses_none_and_repeats_none),
  };
  alarm(600);
  return cmocka_run_group_tests_name("store threads", tests, NULL, NULL);
}
