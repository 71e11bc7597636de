/* SPDX-License-Identifier: MIT
** Every allocation fails once: a life of a guard that uses everything, again
** and again, each time with the next allocation failing.
**
** Whatever fails says NOMEM, changes nothing, and works when it is asked once
** more; all other records are as they were; nothing leaks.
*/
#include "support.h"

#include "executionguard_view.h"

#include <stdio.h>

enum { ITEMS = 256, HISTORY = 8 };

/* What a key must look like. */
typedef struct item {
  char key[16];
  eg_run status;
  eg_kind kind;
  size_t value;
  bool locked;
} item;

typedef struct life {
  spec_memory memory;
  bool by_loop;
  int keys;
  eg_guard *guard;
  eg_reply reply;
  eg_grant grant;
  eg_policy policy;
  eg_error error;
  item items[ITEMS];
  int n, refusals, calls, visits;
  char why[256]; /* what went wrong */
} life;

#define STOP(l, ...)                                                          \
  do {                                                                        \
    snprintf((l)->why, sizeof(l)->why, __VA_ARGS__);                          \
    return false;                                                             \
  } while (0)

#define ALSO(call)                                                            \
  do {                                                                        \
    if (!(call))                                                              \
      return false;                                                           \
  } while (0)

static bool refused(life *l, eg_status status);

/* A call that may say NOMEM once, and then must do what it is to do. */
#define MUST(l, call, expected)                                               \
  do {                                                                        \
    eg_status status_ = (call);                                               \
    if (status_ == EG_NOMEM) {                                                \
      ALSO(refused(l, status_));                                              \
      status_ = (call);                                                       \
    }                                                                         \
    if (status_ != (expected))                                                \
      STOP(l, "line %d: %s: %s", __LINE__, #call, eg_status_word(status_));   \
  } while (0)

/* ---------------------------------------------------------- what is so -- */

static item *item_of(life *l, const char *key) {
  for (int i = 0; i < l->n; i++)
    if (strcmp(l->items[i].key, key) == 0)
      return &l->items[i];
  item *it = &l->items[l->n++];
  snprintf(it->key, sizeof it->key, "%s", key);
  return it;
}

static void note(life *l, const char *key, eg_run status, eg_kind kind,
                 size_t value) {
  item *it = item_of(l, key);
  it->status = status;
  it->kind = kind;
  it->value = value;
  it->locked = status == EG_RUN_RUNNING;
}

static bool verify(life *l) {
  for (int i = 0; i < l->n; i++) {
    const item *it = &l->items[i];
    eg_record r;
    eg_status status = eg_fetch(l->guard, eg_str(it->key), &r, NULL);
    if (status == EG_NOMEM && l->memory.failures == 1 && ++l->refusals == 1)
      status = eg_fetch(l->guard, eg_str(it->key), &r, NULL);
    bool right = status == EG_OK && r.status == it->status &&
                 r.kind == it->kind && r.value.len == it->value &&
                 r.locked == it->locked;
    eg_record_free(&r);
    if (!right)
      STOP(l, "%s: %s, %s", it->key, eg_status_word(status),
           eg_run_word(r.status));
  }
  return true;
}

/* Somebody said NOMEM: once, and because of us; and all is as it was. */
static bool refused(life *l, eg_status status) {
  (void)status;
  if (l->memory.failures != 1 || ++l->refusals != 1)
    STOP(l, "NOMEM without a reason");
  return l->guard == NULL || verify(l);
}

/* ---------------------------------------------------------------- verbs -- */

static eg_status ask(life *l, const char *key, eg_want want, int64_t wait_ms) {
  return eg_acquire(l->guard, eg_str(key), want, &l->policy, wait_ms,
                    &l->grant, &l->reply);
}

static eg_status commit(life *l, const char *key, eg_outcome outcome) {
  return eg_commit(l->guard, eg_str(key), &l->grant, &outcome, &l->policy,
                   &l->error);
}

static bool run(life *l, const char *key, eg_outcome outcome, eg_run to) {
  MUST(l, ask(l, key, EG_WANT_RUN, 0), EG_OK);
  note(l, key, EG_RUN_RUNNING, EG_KIND_NONE, 0);
  MUST(l, commit(l, key, outcome),
       outcome.status == EG_TIMEOUT ? EG_TIMEOUT : EG_OK);
  note(l, key, to, outcome.kind, outcome.value.len);
  return true;
}

static bool all_kinds_of_runs(life *l) {
  static char text[400];
  memset(text, 'e', sizeof text - 1);
  ALSO(run(l, "small", spec_done(), EG_RUN_COMPLETED));
  ALSO(run(l, "large", spec_done_with(spec_large(5000)), EG_RUN_COMPLETED));
  ALSO(run(l, "opaque", (eg_outcome){.kind = EG_KIND_OPAQUE},
           EG_RUN_COMPLETED));
  l->policy.error_ttl_ms = 1000000;
  eg_outcome failed = spec_failed(text);
  failed.trace = eg_str(text);
  ALSO(run(l, "failed", failed, EG_RUN_FAILED));
  l->policy.error_ttl_ms = 0;
  ALSO(run(l, "late", spec_late(), EG_RUN_TIMEDOUT));
  MUST(l, ask(l, "small", EG_WANT_RUN, 0), EG_CACHED);
  MUST(l, ask(l, "large", EG_WANT_RUN, 0), EG_CACHED);
  if (l->reply.value.len != 5000)
    STOP(l, "a large result of another size");
  eg_reply_free(&l->reply);
  MUST(l, ask(l, "failed", EG_WANT_RUN, 0), EG_FAILED);
  if (!spec_is(l->reply.error, text))
    STOP(l, "another error");
  return true;
}

/* Nobody else is there: by the clock that moves itself, waits end. */
static bool waits(life *l) {
  MUST(l, ask(l, "lock", EG_WANT_LOCK, 0), EG_OK);
  uint64_t token = l->grant.token;
  MUST(l, ask(l, "lock", EG_WANT_LOCK, 50), EG_LOCKED);
  MUST(l, ask(l, "lock", EG_WANT_RUN, 50), EG_LOCKED);
  if (!eg_holds(l->guard, eg_str("lock"), token) &&
      (l->memory.failures == 0 || !eg_holds(l->guard, eg_str("lock"), token)))
    STOP(l, "the lock is gone");
  MUST(l, eg_release(l->guard, eg_str("lock"), token, &l->error), EG_OK);
  note(l, "lock", EG_RUN_IDLE, EG_KIND_NONE, 0);
  l->policy.cooldown_ms = 30;
  ALSO(run(l, "cool", spec_done(), EG_RUN_COMPLETED));
  l->policy.cooldown_ms = 0;
  MUST(l, ask(l, "cool", EG_WANT_LOCK, 0), EG_COOLDOWN);
  MUST(l, ask(l, "cool", EG_WANT_LOCK, 50), EG_OK);
  item_of(l, "cool")->locked = true;
  MUST(l, eg_release(l->guard, eg_str("cool"), 0, &l->error), EG_OK);
  item_of(l, "cool")->locked = false;
  MUST(l, ask(l, "join", EG_WANT_RUN, 0), EG_OK);
  note(l, "join", EG_RUN_RUNNING, EG_KIND_NONE, 0);
  eg_grant grant = l->grant;
  l->policy.join_ms = 50;
  MUST(l, ask(l, "join", EG_WANT_RUN, 0), EG_RUNNING);
  l->policy.join_ms = 0;
  l->grant = grant;
  MUST(l, commit(l, "join", spec_done()), EG_OK);
  note(l, "join", EG_RUN_COMPLETED, EG_KIND_VALUE, 1);
  return true;
}

static void work(void *ctx, const eg_grant *grant, eg_outcome *outcome) {
  life *l = ctx;
  (void)grant;
  l->calls++;
  *outcome = spec_done_with(spec_large(700));
}

/* A commit without memory fails the run: the key is free, and runs again. */
static bool run_once(life *l) {
  eg_bytes key = eg_str("once");
  eg_status status = eg_run_once(l->guard, key, work, l, &l->policy, 0, 0,
                                 &l->reply);
  if (status == EG_NOMEM) {
    eg_record r;
    ALSO(refused(l, status));
    status = eg_fetch(l->guard, key, &r, NULL);
    bool held = r.locked;
    bool right = l->calls == 0 ? status == EG_NOTFOUND
                               : status == EG_OK && r.status == EG_RUN_FAILED;
    eg_record_free(&r);
    if (held || !right)
      STOP(l, "run_once without memory left %s", eg_status_word(status));
    status = eg_run_once(l->guard, key, work, l, &l->policy, 0, 0, &l->reply);
  }
  if (status != EG_OK)
    STOP(l, "run_once: %s", eg_status_word(status));
  note(l, "once", EG_RUN_COMPLETED, EG_KIND_VALUE, 700);
  return true;
}

static bool many_keys(life *l) {
  l->policy.record_ttl_ms = 10;
  for (int i = 0; i < 4; i++) {
    char key[16];
    snprintf(key, sizeof key, "ttl%d", i);
    ALSO(run(l, key, (eg_outcome){.kind = EG_KIND_OPAQUE}, EG_RUN_COMPLETED));
  }
  l->n -= 4; /* they are about to be forgotten */
  l->policy.record_ttl_ms = 0;
  spec_advance_ms(10);
  for (int i = 0; i < l->keys; i++) {
    char key[16];
    snprintf(key, sizeof key, "k%d", i);
    ALSO(run(l, key, spec_done_with(spec_large(5 + (size_t)i)),
             EG_RUN_COMPLETED));
  }
  unsigned char forgotten[EG_KEY_MAX];
  int told = 0;
  while (eg_next_forgotten(l->guard, forgotten) == 4)
    told++;
  if (told != 4)
    STOP(l, "%d of 4 forgotten keys were told", told);
  return true;
}

static bool visit(void *ctx, const eg_record *record) {
  life *l = ctx;
  l->visits++;
  return record->key.len > 0;
}

static bool visit_past(void *ctx, const eg_past *past) {
  life *l = ctx;
  l->visits++;
  return past->key.len > 0;
}

static eg_status scan(life *l) {
  l->visits = 0;
  return eg_scan(l->guard, eg_str(""), visit, l, &l->error);
}

static eg_status summarize(life *l) {
  eg_summary summary;
  eg_status status = eg_summary_take(l->guard, 3, &summary, &l->error);
  eg_summary_free(&summary);
  return status;
}

static bool reads(life *l) {
  eg_record r;
  eg_census census;
  MUST(l, scan(l), EG_OK);
  if (l->visits != l->n)
    STOP(l, "%d of %d records were visited", l->visits, l->n);
  MUST(l, eg_take_census(l->guard, &census, &l->error), EG_OK);
  if (census.total != (uint64_t)l->n)
    STOP(l, "a census of %d", (int)census.total);
  MUST(l, summarize(l), EG_OK);
  MUST(l, (eg_fetch(l->guard, eg_str("large"), &r, &l->error)), EG_OK);
  eg_record_free(&r);
  l->visits = 0;
  MUST(l, eg_history(l->guard, eg_str(""), 99, visit_past, l, &l->error),
       EG_OK);
  if (l->visits != HISTORY)
    STOP(l, "a history of %d", l->visits);
  return true;
}

static bool changes(life *l) {
  eg_watch *watch;
  eg_bytes large = eg_str("large"), small = eg_str("small");
  MUST(l, eg_watch_open(l->guard, large, &watch, &l->error), EG_OK);
  MUST(l, eg_watch_wait(watch, 50, &l->error), EG_TIMEOUT);
  MUST(l, eg_clear_result(l->guard, large, &l->error), EG_OK);
  note(l, "large", EG_RUN_COMPLETED, EG_KIND_NONE, 0);
  MUST(l, eg_watch_wait(watch, 50, &l->error), EG_CHANGED);
  eg_unwatch(watch);
  MUST(l, eg_reset(l->guard, small, &l->error), EG_OK);
  note(l, "small", EG_RUN_IDLE, EG_KIND_NONE, 0);
  MUST(l, ask(l, "held", EG_WANT_RUN, 0), EG_OK);
  note(l, "held", EG_RUN_RUNNING, EG_KIND_NONE, 0);
  return verify(l);
}

/* ----------------------------------------------------------- the lives -- */

static bool live(life *l) {
  eg_options options = {.env.alloc = spec_alloc,
                        .env.alloc_ud = &l->memory,
                        .env.clock = &spec_clock,
                        .history = HISTORY};
  options.store = l->by_loop ? "memory:?apply=no" : NULL;
  eg_status status = eg_open(&options, &l->guard, &l->error);
  if (status == EG_NOMEM) {
    if (l->guard != NULL || l->memory.blocks != 0)
      STOP(l, "a failed open left something");
    ALSO(refused(l, status));
    status = eg_open(&options, &l->guard, &l->error);
  }
  if (status != EG_OK)
    STOP(l, "open: %s", eg_status_word(status));
  return all_kinds_of_runs(l) && waits(l) && run_once(l) && many_keys(l) &&
         reads(l) && changes(l);
}

static bool live_and_close(life *l) {
  eg_test_clock_reset(true);
  eg_reply_init(&l->reply);
  l->policy = (eg_policy)EG_POLICY_DEFAULT;
  bool well = live(l);
  eg_reply_free(&l->reply);
  eg_close(l->guard);
  eg_test_clock_reset(false);
  if (well && l->memory.blocks != 0)
    STOP(l, "%ld blocks leaked", (long)l->memory.blocks);
  if (well && l->memory.misused != 0)
    STOP(l, "a block came back with another size");
  return well;
}

static void sweep(bool by_loop) {
  static life l;
  int refusals = 0;
  for (long n = 1;; n++) {
    memset(&l, 0, sizeof l);
    l.by_loop = by_loop;
    l.keys = spec_scaled(200) < 40 ? 40 : spec_scaled(200);
    l.memory.fail_at = n;
    if (!live_and_close(&l))
      fail_msg("allocation %ld: %s", n, l.why);
    refusals += l.refusals;
    if (l.memory.failures == 0)
      break;
  }
  assert_true(refusals >= 10);
}

static void every_allocation_fails_once_by_apply(void **state) {
  (void)state;
  sweep(false);
}

static void every_allocation_fails_once_by_loop(void **state) {
  (void)state;
  sweep(true);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_allocation_fails_once_by_apply),
      cmocka_unit_test(every_allocation_fails_once_by_loop),
  };
  return cmocka_run_group_tests_name("alloc_sweep", tests, NULL, NULL);
}
