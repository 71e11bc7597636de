/* SPDX-License-Identifier: MIT
** What the tests of the guard share; support.h says what.
*/
#include "support.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

char spec_apply[] = "apply", spec_loop[] = "loop";

static atomic_int running; /* threads of tests */

int spec_scaled(int count) {
  const char *text = getenv("EXECUTIONGUARD_SPEC_SCALE");
  int scale = text != NULL ? atoi(text) : 1;
  count /= scale > 0 ? scale : 1;
  return count > 0 ? count : 1;
}

/* ---------------------------------------------------------- the world -- */

eg_status spec_open(const spec_world *w, const eg_options *options,
                    eg_guard **guard, eg_error *error) {
  eg_options o = *options;
  if (o.store == NULL && w->by_loop)
    o.store = "memory:?apply=no";
  return eg_open(&o, guard, error);
}

eg_guard *spec_another(spec_world *w, uint32_t state) {
  eg_guard *guard = NULL;
  eg_options options = {.name = w->name, .state = state, .env = w->env};
  eg_status status = spec_open(w, &options, &guard, &w->error);
  if (status != EG_OK)
    fail_msg("open: %s", w->error.message);
  return guard;
}

int spec_begin(void **state) {
  static unsigned number;
  spec_world *w = calloc(1, sizeof *w);
  if (w == NULL)
    return -1;
  w->by_loop = *state == spec_loop;
  w->env.clock = &spec_clock;
  w->policy = (eg_policy)EG_POLICY_DEFAULT;
  snprintf(w->name, sizeof w->name, "spec-%u", ++number);
  eg_reply_init(&w->reply);
  eg_test_clock_reset(false);
  eg_options options = {.name = w->name, .env = w->env};
  *state = w;
  return spec_open(w, &options, &w->guard, &w->error) == EG_OK ? 0 : -1;
}

int spec_end(void **state) {
  spec_world *w = *state;
  eg_record_free(&w->record);
  eg_reply_free(&w->reply);
  if (atomic_load(&running) > 0)
    return -1; /* a test that failed left them: they may use it still */
  eg_close(w->guard);
  free(w);
  return 0;
}

/* ---------------------------------------------------------------- verbs -- */

eg_status spec_wait(spec_world *w, const char *key, eg_want want,
                    int64_t wait_ms) {
  return eg_acquire(w->guard, eg_str(key), want, &w->policy, wait_ms,
                    &w->grant, &w->reply);
}

eg_status spec_ask(spec_world *w, const char *key, eg_want want) {
  return spec_wait(w, key, want, 0);
}

eg_status spec_finish(spec_world *w, const char *key, eg_outcome outcome) {
  return eg_commit(w->guard, eg_str(key), &w->grant, &outcome, &w->policy,
                   &w->error);
}

void spec_run(spec_world *w, const char *key, eg_outcome outcome) {
  assert_int_equal(spec_ask(w, key, EG_WANT_RUN), EG_OK);
  assert_int_equal(spec_finish(w, key, outcome), EG_OK);
}

eg_status spec_fetch(spec_world *w, const char *key) {
  eg_record_free(&w->record);
  return eg_fetch(w->guard, eg_str(key), &w->record, &w->error);
}

eg_status spec_release(spec_world *w, const char *key) {
  return eg_release(w->guard, eg_str(key), 0, &w->error);
}

eg_status spec_reset(spec_world *w, const char *key) {
  return eg_reset(w->guard, eg_str(key), &w->error);
}

eg_outcome spec_done_with(eg_bytes value) {
  return (eg_outcome){.status = EG_OK, .kind = EG_KIND_VALUE, .value = value};
}

eg_outcome spec_done(void) { return spec_done_with(eg_str("*")); }

eg_outcome spec_failed(const char *text) {
  return (eg_outcome){.status = EG_FAILED, .error = eg_str(text)};
}

eg_outcome spec_late(void) { return (eg_outcome){.status = EG_TIMEOUT}; }

eg_bytes spec_large(size_t n) {
  static _Thread_local unsigned char bytes[2 * 1024 * 1024];
  assert(n >= 5 && n <= sizeof bytes);
  size_t len = n - 5;
  memset(bytes, 'x', n);
  bytes[0] = 0xdb;
  for (int i = 0; i < 4; i++)
    bytes[1 + i] = (unsigned char)(len >> 8 * (3 - i));
  return (eg_bytes){bytes, n};
}

bool spec_is(eg_bytes bytes, const char *text) {
  size_t len = strlen(text);
  return bytes.len == len && (len == 0 || memcmp(bytes.data, text, len) == 0);
}

void spec_spoil(spec_world *w, const char *key, const char *bytes, size_t n) {
  const egi_store_ops *ops = w->guard->ops;
  egi_seen seen;
  egi_seen_init(&seen);
  assert_int_equal(
      ops->load(w->guard->store, eg_str(key), EG_FOREVER, &seen, &w->error),
      EG_OK);
  egi_swap swap = {.expect = seen.version,
                   .write = EGI_PUT,
                   .hold = EGI_KEEP,
                   .bytes = {bytes, n},
                   .not_before_ms = EGI_LEAVE_TIME,
                   .fresh_ms = EGI_LEAVE_TIME,
                   .life_ms = EGI_LEAVE_TIME};
  assert_int_equal(ops->swap(w->guard->store, eg_str(key), &swap, EG_FOREVER,
                             &seen, &w->error),
                   EG_OK);
  egi_seen_free(&seen, &w->guard->env);
}

/* ---------------------------------------------------------------- clock -- */

static atomic_int sleeping;

static int64_t clock_now(void *ctx) {
  (void)ctx;
  return eg_test_clock()->now_us(NULL);
}

static int64_t clock_offset(void *ctx, int64_t now_us) {
  (void)ctx;
  return eg_test_clock()->offset_us(NULL, now_us);
}

/* Whoever is counted has the mutex until it sleeps: a wake-up, which needs the
** mutex, cannot fall between; and a clock that was moved since is seen. */
static int clock_wait(void *ctx, pthread_cond_t *cond, pthread_mutex_t *mutex,
                      int64_t deadline_us) {
  (void)ctx;
  atomic_fetch_add(&sleeping, 1);
  int rc = eg_test_clock()->wait(NULL, cond, mutex, deadline_us);
  atomic_fetch_sub(&sleeping, 1);
  return rc;
}

static void clock_wake(void *ctx, pthread_cond_t *cond) {
  (void)ctx;
  eg_test_clock()->wake(NULL, cond);
}

const eg_clock spec_clock = {NULL,         clock_now,  clock_now,
                             clock_offset, clock_wait, clock_wake};

void spec_advance_ms(int64_t ms) { eg_test_clock_advance(ms * MS); }

static bool so_many_sleep(void *ctx) {
  return atomic_load(&sleeping) >= *(int *)ctx;
}

bool spec_await_sleepers(int n) { return spec_comes(so_many_sleep, &n); }

/* -------------------------------------------------------------- threads -- */

static void *run_thread(void *arg) {
  spec_thread *thread = arg;
  thread->body(thread->arg);
  atomic_fetch_sub(&running, 1);
  return NULL;
}

void spec_start(spec_thread *thread, void (*body)(void *), void *arg) {
  thread->body = body;
  thread->arg = arg;
  atomic_fetch_add(&running, 1);
  if (pthread_create(&thread->id, NULL, run_thread, thread) != 0) {
    fputs("spec: no thread\n", stderr);
    abort();
  }
}

void spec_join(spec_thread *thread) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 120;
  if (pthread_timedjoin_np(thread->id, NULL, &until) != 0) {
    fputs("spec: a thread hangs\n", stderr);
    abort();
  }
}

bool spec_comes(bool (*holds)(void *), void *ctx) {
  const struct timespec little = {0, 50000};
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  time_t limit = now.tv_sec + 60;
  while (!holds(ctx)) {
    nanosleep(&little, NULL);
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec > limit)
      return false;
  }
  return true;
}

spec_caller spec_caller_of(eg_guard *guard, const char *key, eg_want want,
                           int64_t wait_ms) {
  spec_caller c = {.guard = guard,
                   .key = key,
                   .want = want,
                   .policy = EG_POLICY_DEFAULT,
                   .wait_ms = wait_ms,
                   .status = EG_INTERNAL};
  eg_reply_init(&c.reply);
  return c;
}

static void call(void *arg) {
  spec_caller *c = arg;
  c->status = eg_acquire(c->guard, eg_str(c->key), c->want, &c->policy,
                         c->wait_ms, &c->grant, &c->reply);
  if (c->status == EG_OK && c->then != NULL)
    c->then(c);
}

void spec_call(spec_caller *c) { spec_start(&c->thread, call, c); }

eg_status spec_called(spec_caller *c) {
  spec_join(&c->thread);
  return c->status;
}

void spec_give_back(spec_caller *c) {
  eg_status status = eg_release(c->guard, eg_str(c->key), c->grant.token,
                                NULL);
  if (status != EG_OK)
    c->status = status;
}

/* ------------------------------------------------------------ allocator -- */

typedef union header {
  size_t size;
  max_align_t align;
} header;

void *spec_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
  spec_memory *m = ud;
  header *old = ptr != NULL ? (header *)ptr - 1 : NULL;
  if (old != NULL && old->size != osize)
    atomic_fetch_add(&m->misused, 1);
  if (nsize == 0) {
    if (old != NULL)
      atomic_fetch_sub(&m->blocks, 1);
    free(old);
    return NULL;
  }
  if (atomic_fetch_add(&m->calls, 1) + 1 == atomic_load(&m->fail_at)) {
    atomic_fetch_add(&m->failures, 1);
    return NULL;
  }
  header *fresh = malloc(sizeof *fresh + nsize); /* always moves */
  if (fresh == NULL)
    return NULL;
  fresh->size = nsize;
  memset(fresh + 1, 0xa5, nsize);
  if (old != NULL) {
    memcpy(fresh + 1, old + 1, osize < nsize ? osize : nsize);
    free(old);
  } else {
    atomic_fetch_add(&m->blocks, 1);
  }
  return fresh + 1;
}
