/* SPDX-License-Identifier: MIT
** Many threads on few keys of one namespace, through the public interface.
**
** No clock is moved here: nothing waits for time, only for other threads.
*/
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>

enum { THREADS = 8, KEYS = 8, TEXT = 24 };

/* A result: an array of a number and some bytes that depend on it. */
static size_t write_result(unsigned char *to, uint64_t number) {
  size_t n = (size_t)(number % 7) * 90;
  to[0] = 0x92;
  to[1] = 0xcf;
  for (int i = 0; i < 8; i++)
    to[2 + i] = (unsigned char)(number >> 8 * (7 - i));
  to[10] = 0xc5;
  to[11] = (unsigned char)(n >> 8);
  to[12] = (unsigned char)n;
  memset(to + 13, (int)(number & 0xff), n);
  return 13 + n;
}

/* The number of a result; 0: it is not whole. */
static uint64_t read_result(eg_bytes value) {
  const unsigned char *b = value.data;
  unsigned char whole[1024];
  uint64_t number = 0;
  if (value.len < 13)
    return 0;
  for (int i = 0; i < 8; i++)
    number = number << 8 | b[2 + i];
  size_t len = write_result(whole, number);
  return len == value.len && memcmp(b, whole, len) == 0 ? number : 0;
}

/* ------------------------------------------------------------- run once -- */

typedef struct runner {
  eg_guard *guard;
  int number, rounds, wrong;
  int at;                /* round and key of the work */
  _Atomic int *ran;      /* by round and key */
  _Atomic uint64_t *got; /* the result that the first to see it saw */
  unsigned char result[1024];
  spec_thread thread;
} runner;

static void run_work(void *ctx, const eg_grant *grant, eg_outcome *outcome) {
  runner *r = ctx;
  atomic_fetch_add(&r->ran[r->at], 1);
  (void)grant;
  size_t len = write_result(r->result,
                            (uint64_t)r->at * THREADS + r->number + 1);
  *outcome = spec_done_with((eg_bytes){r->result, len});
}

static void run_all(void *arg) {
  runner *r = arg;
  eg_policy policy = EG_POLICY_DEFAULT;
  eg_reply reply;
  char key[TEXT];
  eg_reply_init(&reply);
  policy.join_ms = EG_FOREVER;
  for (int i = 0; i < r->rounds * KEYS; i++) {
    r->at = i / KEYS * KEYS + (i + r->number * 3) % KEYS;
    snprintf(key, sizeof key, "once-%d", r->at);
    eg_status status = eg_run_once(r->guard, eg_str(key), run_work, r, &policy,
                                   0, EG_FOREVER, &reply);
    uint64_t mine = 0, none = 0;
    if (status == EG_OK)
      mine = (uint64_t)r->at * THREADS + r->number + 1;
    else if (status == EG_CACHED)
      mine = read_result(reply.value);
    if (mine == 0)
      r->wrong++;
    else if (!atomic_compare_exchange_strong(&r->got[r->at], &none, mine))
      r->wrong += none != mine;
  }
  eg_reply_free(&reply);
}

static void run_once_runs_once_a_key(spec_world *w, bool own_guards) {
  enum { ROUNDS = 2000 };
  static _Atomic int ran[ROUNDS * KEYS];
  static _Atomic uint64_t got[ROUNDS * KEYS];
  static runner r[THREADS];
  int rounds = spec_scaled(ROUNDS), wrong = 0;
  for (int i = 0; i < ROUNDS * KEYS; i++) {
    atomic_store(&ran[i], 0);
    atomic_store(&got[i], 0);
  }
  for (int i = 0; i < THREADS; i++) {
    r[i] = (runner){.guard = own_guards ? spec_another(w, 0) : w->guard,
                    .number = i,
                    .rounds = rounds,
                    .ran = ran,
                    .got = got};
    spec_start(&r[i].thread, run_all, &r[i]);
  }
  for (int i = 0; i < THREADS; i++) {
    spec_join(&r[i].thread);
    wrong += r[i].wrong;
    if (own_guards)
      eg_close(r[i].guard);
  }
  assert_int_equal(wrong, 0);
  for (int i = 0; i < rounds * KEYS; i++)
    assert_int_equal(atomic_load(&ran[i]), 1);
}

static void run_once_by_one_guard_runs_once_a_key(void **state) {
  run_once_runs_once_a_key(*state, false);
}

static void run_once_by_many_guards_runs_once_a_key(void **state) {
  run_once_runs_once_a_key(*state, true);
}

/* ---------------------------------------------------------------- locks -- */

typedef struct cell { /* guarded by the lock of its key */
  long counter;
  uint64_t last_token;
} cell;

typedef struct locker {
  eg_guard *guard;
  int number, rounds, wrong;
  cell *cells;
  spec_thread thread;
} locker;

static void lock_all(void *arg) {
  locker *l = arg;
  eg_reply reply;
  eg_grant grant;
  eg_reply_init(&reply);
  for (int i = 0; i < l->rounds; i++) {
    int at = (i + l->number) % 3;
    char key[TEXT];
    snprintf(key, sizeof key, "lock-%d", at);
    if (eg_acquire(l->guard, eg_str(key), EG_WANT_LOCK, NULL, EG_FOREVER,
                   &grant, &reply) != EG_OK) {
      l->wrong++;
      continue;
    }
    l->wrong += grant.token <= l->cells[at].last_token;
    l->cells[at].last_token = grant.token;
    l->cells[at].counter++;
    l->wrong += eg_release(l->guard, eg_str(key), grant.token, NULL) != EG_OK;
  }
  eg_reply_free(&reply);
}

static void lock_excludes_and_its_tokens_rise(void **state) {
  spec_world *w = *state;
  locker l[THREADS];
  cell cells[3] = {{0, 0}, {0, 0}, {0, 0}};
  int rounds = spec_scaled(6000), wrong = 0;
  for (int i = 0; i < THREADS; i++) {
    l[i] = (locker){spec_another(w, 0), i, rounds, 0, cells, {0}};
    spec_start(&l[i].thread, lock_all, &l[i]);
  }
  for (int i = 0; i < THREADS; i++) {
    spec_join(&l[i].thread);
    wrong += l[i].wrong;
    eg_close(l[i].guard);
  }
  assert_int_equal(wrong, 0);
  assert_int_equal(cells[0].counter + cells[1].counter + cells[2].counter,
                   THREADS * rounds);
}

/* -------------------------------------------------------------- readers -- */

/* Writers commit the number of the run as its result; so whoever reads a
** record knows whether it is one, or pieces of two. */
typedef struct user {
  eg_guard *guard;
  int number, rounds, wrong;
  uint64_t tokens[KEYS]; /* the last that this reader saw */
  atomic_bool *stop;
  long seen;
  spec_thread thread;
} user;

static void write_all(void *arg) {
  user *u = arg;
  eg_policy policy = EG_POLICY_DEFAULT;
  eg_reply reply;
  eg_grant grant;
  eg_record record;
  unsigned char result[1024];
  char key[TEXT];
  eg_reply_init(&reply);
  policy.allow_rerun = true;
  for (int i = 0; i < u->rounds; i++) {
    snprintf(key, sizeof key, "read-%d", (i + u->number) % KEYS);
    if (eg_acquire(u->guard, eg_str(key), EG_WANT_RUN, &policy, 0, &grant,
                   &reply) != EG_OK)
      continue;
    u->wrong += eg_fetch(u->guard, eg_str(key), &record, NULL) != EG_OK;
    u->wrong += record.token != grant.token;
    size_t len = write_result(result, record.count);
    eg_record_free(&record);
    eg_outcome outcome = spec_done_with((eg_bytes){result, len});
    u->wrong += eg_commit(u->guard, eg_str(key), &grant, &outcome, &policy,
                          NULL) != EG_OK;
  }
  eg_reply_free(&reply);
}

/* Is it a record that a writer could have made, no older than the last? */
static bool is_consistent(user *u, const eg_record *r) {
  int at = ((const char *)r->key.data)[r->key.len - 1] - '0';
  uint64_t of = r->kind == EG_KIND_VALUE ? read_result(r->value) : 0;
  bool newer = r->token >= u->tokens[at];
  u->tokens[at] = r->token;
  u->seen++;
  if (r->crashed || r->error.len > 0 || !newer)
    return false;
  if (r->status == EG_RUN_RUNNING)
    return r->locked && of + 1 == r->count && r->end_us == 0;
  return r->status == EG_RUN_COMPLETED && !r->locked && of == r->count &&
         r->end_us == r->start_us + r->duration_us;
}

static void fetch_all(void *arg) {
  user *u = arg;
  for (int i = 0; !atomic_load(u->stop); i++) {
    char key[TEXT];
    eg_record record;
    snprintf(key, sizeof key, "read-%d", i % KEYS);
    eg_status status = eg_fetch(u->guard, eg_str(key), &record, NULL);
    if (status == EG_OK)
      u->wrong += !is_consistent(u, &record);
    else
      u->wrong += status != EG_NOTFOUND;
    eg_record_free(&record);
  }
}

static bool visit(void *ctx, const eg_record *record) {
  user *u = ctx;
  u->wrong += !is_consistent(u, record);
  return true;
}

static void scan_all(void *arg) {
  user *u = arg;
  while (!atomic_load(u->stop))
    u->wrong += eg_scan(u->guard, eg_str("read-"), visit, u, NULL) != EG_OK;
}

static void readers_see_consistent_records_only(void **state) {
  spec_world *w = *state;
  static user u[THREADS];
  static void (*const bodies[])(void *) = {write_all, fetch_all, write_all,
                                           scan_all};
  atomic_bool stop = false;
  int wrong = 0;
  long seen = 0;
  for (int i = 0; i < THREADS; i++) {
    u[i] = (user){.guard = w->guard,
                  .number = i,
                  .rounds = spec_scaled(30000),
                  .stop = &stop};
    spec_start(&u[i].thread, bodies[i % 4], &u[i]);
  }
  for (int i = 0; i < THREADS; i += 2)
    spec_join(&u[i].thread); /* the writers */
  atomic_store(&stop, true);
  for (int i = 1; i < THREADS; i += 2) {
    spec_join(&u[i].thread);
    seen += u[i].seen;
  }
  for (int i = 0; i < THREADS; i++)
    wrong += u[i].wrong;
  assert_int_equal(wrong, 0);
  assert_true(seen > 0);
}

/* ------------------------------------------------------ comings, goings -- */

static void open_and_close(void *arg) {
  locker *l = arg;
  spec_world *w = (spec_world *)(void *)l->cells;
  eg_options options = {.name = w->name, .env = w->env};
  eg_reply reply;
  eg_grant grant;
  for (int i = 0; i < l->rounds; i++) {
    eg_guard *guard;
    eg_reply_init(&reply);
    if (spec_open(w, &options, &guard, NULL) != EG_OK) {
      l->wrong++;
      continue;
    }
    l->wrong += eg_acquire(guard, eg_str("door"), EG_WANT_LOCK, NULL,
                           EG_FOREVER, &grant, &reply) != EG_OK;
    eg_reply_free(&reply);
    eg_close(guard); /* gives the lock back, and wakes the next */
  }
}

static void guards_come_and_go_with_the_lock_in_hand(void **state) {
  spec_world *w = *state;
  locker l[THREADS];
  int wrong = 0;
  for (int i = 0; i < THREADS; i++) {
    l[i] = (locker){NULL, i, spec_scaled(1000), 0, (cell *)(void *)w, {0}};
    spec_start(&l[i].thread, open_and_close, &l[i]);
  }
  for (int i = 0; i < THREADS; i++) {
    spec_join(&l[i].thread);
    wrong += l[i].wrong;
  }
  assert_int_equal(wrong, 0);
  assert_int_equal(spec_ask(w, "door", EG_WANT_LOCK), EG_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      BOTH_WAYS(run_once_by_one_guard_runs_once_a_key),
      BOTH_WAYS(run_once_by_many_guards_runs_once_a_key),
      BOTH_WAYS(lock_excludes_and_its_tokens_rise),
      BOTH_WAYS(readers_see_consistent_records_only),
      BOTH_WAYS(guards_come_and_go_with_the_lock_in_hand),
  };
  return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
