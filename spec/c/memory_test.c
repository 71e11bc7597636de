/* SPDX-License-Identifier: MIT
** The inside of the memory store: what takes memory, time and locks, and what
** does not.  The rules that every store keeps are in spec/conformance.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/memory.h"

#include <cmocka.h>

#define SECOND INT64_C(1000000)
#define DONE "\x95\x01\x02\x01\x00\x00"    /* Completed, once */
#define OPAQUE "\x95\x01\x12\x01\x00\x00"  /* with an opaque result */
#define RUNNING "\x95\x01\x01\x01\x00\x00" /* begun by this swap */

/* ---- a world of its own: an allocator that counts, a clock that stands ---- */

static size_t out;      /* bytes that are out */
static int allocs_left; /* until it fails; -1: never */
static int64_t now;
static int clock_reads;

static void *counted(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud;
  if (nsize > osize && allocs_left == 0)
    return NULL;
  if (nsize > osize && allocs_left > 0)
    allocs_left--;
  out += nsize - osize;
  if (nsize > 0)
    return realloc(ptr, nsize);
  free(ptr);
  return NULL;
}

static int64_t read_clock(void *ctx) {
  (void)ctx;
  clock_reads++;
  return now;
}

static int64_t read_offset(void *ctx, int64_t at) {
  (void)ctx;
  (void)at;
  return 1767225600 * SECOND;
}

static int really_wait(void *ctx, pthread_cond_t *cond, pthread_mutex_t *mutex,
                       int64_t deadline_us) {
  (void)ctx;
  (void)deadline_us;
  return pthread_cond_wait(cond, mutex);
}

static void really_wake(void *ctx, pthread_cond_t *cond) {
  (void)ctx;
  pthread_cond_broadcast(cond);
}

static const eg_clock fake = {.now_us = read_clock,
                              .coarse_us = read_clock,
                              .offset_us = read_offset,
                              .wait = really_wait,
                              .wake = really_wake};
static const eg_env env = {.alloc = counted, .clock = &fake};
static const egi_store_ops *const ops = &egi_memory_ops;
static egi_store *store;

static egi_store *open_space(const char *name) {
  egi_url url = {.scheme = "memory", .rest = "", .name = name};
  egi_store *opened;
  assert_int_equal(ops->open(&url, &env, &opened, NULL), EG_OK);
  return opened;
}

static egi_shard *only_shard(void) {
  return ((egi_memory *)store)->space->shards;
}

static uint32_t entries(void) { return only_shard()->table.count; }

static uint32_t holds(void) { return ((egi_memory *)store)->holds[0].n; }

static int begin(void **state) {
  (void)state;
  out = 0;
  allocs_left = -1;
  now = 100 * SECOND;
  store = open_space(NULL);
  clock_reads = 0;
  return 0;
}

static int end(void **state) {
  (void)state;
  ops->close(store);
  assert_int_equal(out, 0);
  return 0;
}

/* ---- steps ---- */

typedef struct step {
  egi_swap swap;
  uint64_t only; /* NONE unless this is the version; 0: whatever it is */
  bool clock;    /* asks for the time first */
  int asked;     /* how often decide was called */
  egi_seen seen; /* what it was shown last */
} step;

static egi_verdict do_swap(void *ctx, const egi_seen *seen, egi_swap *swap) {
  step *s = ctx;
  s->asked++;
  s->seen = *seen;
  *swap = s->swap;
  if (s->clock && !seen->at.clocked)
    return EGI_NOW;
  return EGI_SWAP;
}

static egi_verdict do_nothing(void *ctx, const egi_seen *seen,
                              egi_swap *swap) {
  step *s = ctx;
  (void)swap;
  s->asked++;
  s->seen = *seen;
  return s->clock && !seen->at.clocked ? EGI_NOW : EGI_NONE;
}

static step begin_step(egi_hold hold, egi_write write, const char *bytes) {
  step s = {.swap = {.hold = hold,
                     .write = write,
                     .wake = true,
                     .not_before_ms = EGI_LEAVE_TIME,
                     .fresh_ms = EGI_LEAVE_TIME,
                     .life_ms = EGI_LEAVE_TIME}};
  if (write == EGI_PUT)
    s.swap.bytes = eg_str(bytes);
  if (write == EGI_PUT && strlen(bytes) < 6) /* a head with zeroes */
    s.swap.bytes.len = 6;
  s.swap.holder = (eg_bytes){"me", 2};
  return s;
}

static eg_status apply(egi_store *to, const char *key, step *s,
                       uint64_t *token) {
  return ops->apply(to, eg_str(key), do_swap, s, true, EGI_NO_TIME, token,
                    NULL);
}

static uint64_t take(const char *key) {
  uint64_t token;
  step s = begin_step(EGI_TAKE, EGI_LEAVE, NULL);
  assert_int_equal(apply(store, key, &s, &token), EG_OK);
  return token;
}

static void drop(const char *key, uint64_t token) {
  step s = begin_step(EGI_DROP, EGI_LEAVE, NULL);
  s.swap.token = token;
  assert_int_equal(apply(store, key, &s, &token), EG_OK);
}

static uint64_t run(const char *key) {
  uint64_t token;
  step s = begin_step(EGI_TAKE, EGI_PUT, RUNNING);
  s.swap.life_ms = s.swap.fresh_ms = 0;
  assert_int_equal(apply(store, key, &s, &token), EG_OK);
  return token;
}

/* Ends a run; what is left of the record is forgotten after life_ms. */
static void finish(const char *key, uint64_t token, const char *bytes,
                   int64_t life_ms) {
  step s = begin_step(EGI_DROP, EGI_PUT, bytes);
  s.swap.token = token;
  s.swap.life_ms = life_ms;
  s.swap.not_before_ms = s.swap.fresh_ms = 0;
  assert_int_equal(apply(store, key, &s, &token), EG_OK);
}

static step look(const char *key) {
  uint64_t token;
  step s = begin_step(EGI_KEEP, EGI_LEAVE, NULL);
  assert_int_equal(ops->apply(store, eg_str(key), do_nothing, &s, false,
                              EGI_NO_TIME, &token, NULL),
                   EG_OK);
  assert_int_equal(token, s.seen.at.token);
  return s;
}

/* ---------------------------------------------------- what is not paid -- */

static void lock_and_release_leave_nothing_and_read_no_clock(void **state) {
  (void)state;
  drop("warm", take("warm"));
  size_t before = out;
  for (int i = 0; i < 1000; i++) {
    char key[16];
    snprintf(key, sizeof key, "k%d", i);
    uint64_t token = take(key);
    assert_int_equal(holds(), 1);
    drop(key, token);
  }
  assert_int_equal(entries(), 0);
  assert_int_equal(holds(), 0);
  assert_int_equal(out, before);
  assert_int_equal(clock_reads, 0);
}

static void read_needs_neither_mutex_nor_clock(void **state) {
  (void)state;
  finish("done", run("done"), DONE, 0);
  take("held");
  clock_reads = 0;
  egi_shard_lock(only_shard());
  step done = look("done"), held = look("held"), none = look("none");
  egi_shard_unlock(only_shard());
  assert_int_equal(done.asked + held.asked + none.asked, 3);
  assert_int_equal(done.seen.bytes.len, 6);
  assert_true(held.seen.at.held);
  assert_int_equal(held.seen.holder.len, 2);
  assert_int_equal(none.seen.version, 0);
  assert_int_equal(clock_reads, 0);
}

static void read_of_a_time_reads_the_clock_and_no_more(void **state) {
  (void)state;
  uint64_t token, ended = run("k");
  step s = begin_step(EGI_DROP, EGI_PUT, DONE);
  s.swap.token = ended;
  s.swap.fresh_ms = 10;
  assert_int_equal(apply(store, "k", &s, &token), EG_OK);
  now += 4000;
  clock_reads = 0;
  step reader = {.clock = true};
  egi_shard_lock(only_shard());
  assert_int_equal(ops->apply(store, eg_str("k"), do_nothing, &reader, false,
                              EGI_NO_TIME, &token, NULL),
                   EG_OK);
  egi_shard_unlock(only_shard());
  assert_int_equal(reader.asked, 2);
  assert_int_equal(clock_reads, 1);
  assert_int_equal(reader.seen.at.fresh_left_us, 6000);
}

static void who_will_write_is_asked_once(void **state) {
  (void)state;
  uint64_t token;
  step s = begin_step(EGI_TAKE, EGI_LEAVE, NULL);
  assert_int_equal(apply(store, "k", &s, &token), EG_OK);
  assert_int_equal(s.asked, 1);
}

static void run_is_completed_in_its_place(void **state) {
  (void)state;
  uint64_t token = run("player:000042");
  size_t before = out;
  uint32_t next = only_shard()->table.arena.next;
  finish("player:000042", token, DONE "123456789012345", 0);
  assert_int_equal(only_shard()->table.arena.next, next);
  assert_int_equal(out, before);
  assert_int_equal(entries(), 1);
}

static void drop_needs_no_memory(void **state) {
  (void)state;
  uint64_t token = run("k");
  allocs_left = 0;
  while (egi_arena_alloc(&only_shard()->table.arena, 0) != 0)
    ;
  step s = begin_step(EGI_DROP, EGI_PUT, DONE);
  s.swap.token = token;
  s.swap.not_before_ms = s.swap.fresh_ms = s.swap.life_ms = 1000;
  assert_int_equal(apply(store, "k", &s, &token), EG_OK);
  step seen = look("k");
  assert_false(seen.seen.at.held);
  assert_int_equal(seen.seen.at.not_before_left_us, SECOND);
  allocs_left = -1;
}

static void private_namespace_is_cheap(void **state) {
  (void)state;
  assert_true(out < 2048);
  take("k");
  assert_true(out < 2048 + 2048);
}

/* --------------------------------------------------------------- times -- */

static void records_that_are_over_are_swept_by_inserts(void **state) {
  (void)state;
  char key[16];
  for (int i = 0; i < 300; i++) {
    snprintf(key, sizeof key, "old%d", i);
    finish(key, run(key), DONE, 50);
  }
  assert_int_equal(only_shard()->fading, 300);
  now += SECOND;
  for (int i = 0; i < 300; i++) {
    snprintf(key, sizeof key, "new%d", i);
    finish(key, run(key), DONE, 0);
  }
  assert_int_equal(entries(), 300);
  assert_int_equal(only_shard()->fading, 0);
  clock_reads = 0;
  drop("k", take("k"));
  assert_int_equal(clock_reads, 0);
}

static void swept_record_with_opaque_result_is_told(void **state) {
  (void)state;
  char key[EG_KEY_MAX];
  finish("plain", run("plain"), DONE, 50);
  finish("opaque", run("opaque"), OPAQUE, 50);
  finish("again", run("again"), OPAQUE, 50);
  assert_int_equal(ops->next_forgotten(store, key), 0);
  now += SECOND;
  assert_int_equal(look("opaque").seen.version, 0);
  finish("again", run("again"), OPAQUE, 50); /* has a newer value by now */
  for (int i = 0; i < 50; i++) {
    snprintf(key, sizeof key, "new%d", i);
    take(key);
  }
  assert_int_equal(entries(), 51);
  assert_int_equal(ops->next_forgotten(store, key), 6);
  assert_memory_equal(key, "opaque", 6);
  assert_int_equal(ops->next_forgotten(store, key), 0);
}

static void named_namespace_tells_nobody(void **state) {
  (void)state;
  char key[EG_KEY_MAX];
  ops->close(store);
  store = open_space("tells nobody");
  finish("opaque", run("opaque"), OPAQUE, 50);
  now += SECOND;
  drop("opaque", take("opaque"));
  assert_int_equal(ops->next_forgotten(store, key), 0);
}

static void lock_whose_lease_is_over_goes_by_itself(void **state) {
  (void)state;
  uint64_t token;
  step s = begin_step(EGI_TAKE, EGI_LEAVE, NULL);
  s.swap.lease_ms = 50;
  assert_int_equal(apply(store, "k", &s, &token), EG_OK);
  assert_int_equal(holds(), 1);
  now += SECOND;
  assert_int_equal(look("k").seen.version, 0);
  for (int i = 0; i < 20; i++) {
    char key[16];
    snprintf(key, sizeof key, "n%d", i);
    finish(key, run(key), DONE, 0);
  }
  assert_int_equal(holds(), 0);
  assert_int_equal(entries(), 20);
}

static void
tokens_count_in_private_and_follow_the_wall_in_named(void **state) {
  (void)state;
  uint64_t first = take("k");
  drop("k", first);
  uint64_t second = take("k");
  assert_in_range(second, first + 1, first + 2);
  assert_true(second < 10);
  ops->close(store);
  store = open_space("follows the wall");
  uint64_t third = take("k");
  assert_int_equal(third, (uint64_t)(now + read_offset(NULL, now)));
  drop("k", third);
  assert_true(take("k") > third); /* though the clock stands */
}

/* -------------------------------------------------------------- memory -- */

static void large_records_come_and_go(void **state) {
  (void)state;
  static char large[5000];
  uint64_t token = run("k");
  size_t before = out;
  memset(large, 'x', sizeof large - 1);
  memcpy(large, DONE, 3);
  for (size_t n = sizeof large - 1; n > 200; n -= 300) {
    large[n] = '\0';
    step s = begin_step(EGI_KEEP, EGI_PUT, large);
    s.swap.bytes.len = n;
    assert_int_equal(apply(store, "k", &s, &token), EG_OK);
    assert_int_equal(only_shard()->large, n > EGI_DATA_MAX - 1);
    step seen = look("k");
    assert_int_equal(seen.seen.bytes.len, n);
  }
  assert_int_equal(out, before);
  memset(large, 'x', sizeof large - 1);
  finish("k", token, large, 0); /* and is freed by close */
}

/* A bit of everything, on keys of its own.  Returns the first failure. */
static eg_status everything(egi_store *with, char name) {
  static char large[3000];
  uint64_t token;
  char key[16];
  egi_watch *watch = NULL;
  egi_seen seen;
  int fd;
  eg_status status = EG_OK;
  memset(large, 'x', sizeof large - 1);
  egi_seen_init(&seen);
  for (int i = 0; i < 60 && status == EG_OK; i++) {
    step s = begin_step(EGI_TAKE, EGI_PUT, i % 7 == 0 ? large : RUNNING);
    step e = begin_step(EGI_DROP, EGI_PUT, i % 5 == 0 ? large : DONE);
    snprintf(key, sizeof key, "%c%d", name, i);
    status = apply(with, key, &s, &token);
    e.swap.token = token;
    if (status == EG_OK)
      status = ops->load(with, eg_str(key), 0, &seen, NULL);
    if (status == EG_OK)
      status = apply(with, key, &e, &token);
  }
  if (status == EG_OK)
    status = ops->watch(with, eg_str(key), &seen, &watch, &fd, NULL);
  ops->unwatch(watch);
  egi_seen_free(&seen, &env);
  return status;
}

static bool count_visit(void *ctx, eg_bytes key, const egi_seen *seen) {
  assert_true(key.len > 0 && seen->bytes.len > 0);
  ++*(int *)ctx;
  return true;
}

static void every_allocation_may_fail(void **state) {
  (void)state;
  egi_url url = {.scheme = "memory", .rest = ""};
  bool done = false;
  for (int n = 0; !done; n++) {
    egi_store *other = NULL;
    size_t before = out;
    int visited = 0;
    allocs_left = n;
    eg_status status = ops->open(&url, &env, &other, NULL);
    if (status == EG_OK)
      status = everything(other, 'a');
    if (status == EG_OK)
      status = ops->scan(other, eg_str(""), count_visit, &visited, NULL);
    done = status == EG_OK;
    if (!done)
      assert_int_equal(status, EG_NOMEM);
    allocs_left = -1;
    if (other != NULL) { /* it is as good as ever */
      assert_int_equal(everything(other, 'b'), EG_OK);
      ops->close(other);
    }
    assert_int_equal(out, before);
  }
}

static void swap_without_memory_changes_nothing(void **state) {
  (void)state;
  static char large[3000];
  memset(large, 'x', sizeof large - 1);
  finish("k", run("k"), DONE, 0);
  step before = look("k");
  uint64_t token;
  allocs_left = 0;
  for (unsigned c = 0; c < EGI_BLOCK_CLASSES; c++)
    while (egi_arena_alloc(&only_shard()->table.arena, c) != 0)
      ;
  step larger = begin_step(EGI_TAKE, EGI_PUT, large);
  assert_int_equal(apply(store, "k", &larger, &token), EG_NOMEM);
  step held = begin_step(EGI_TAKE, EGI_LEAVE, NULL);
  assert_int_equal(apply(store, "k", &held, &token), EG_NOMEM);
  assert_int_equal(apply(store, "other", &held, &token), EG_NOMEM);
  allocs_left = -1;
  step after = look("k");
  assert_int_equal(after.seen.version, before.seen.version);
  assert_int_equal(after.seen.at.token, before.seen.at.token);
  assert_false(after.seen.at.held);
  assert_int_equal(entries(), 1);
}

/* ---------------------------------------------------------------- scan -- */

typedef struct scanned {
  unsigned char times[400]; /* each old key was visited */
  int added;
} scanned;

static bool grow_visit(void *ctx, eg_bytes key, const egi_seen *seen) {
  scanned *s = ctx;
  unsigned n;
  char text[32] = {0};
  assert_true(seen->at.clocked);
  memcpy(text, key.data, key.len);
  if (sscanf(text, "old%u", &n) == 1)
    s->times[n]++;
  for (int i = 0; i < 10 && s->added < 3000; i++) {
    snprintf(text, sizeof text, "new%d", s->added++);
    finish(text, run(text), DONE, 0);
  }
  return true;
}

static void scan_of_a_table_that_grows_visits_each_once(void **state) {
  (void)state;
  scanned s = {.added = 0};
  char key[16];
  for (int i = 0; i < 400; i++) {
    snprintf(key, sizeof key, "old%d", i);
    finish(key, run(key), DONE, 0);
  }
  uint32_t buckets = egi_own(&only_shard()->table.buckets);
  assert_int_equal(ops->scan(store, eg_str(""), grow_visit, &s, NULL), EG_OK);
  assert_true(egi_own(&only_shard()->table.buckets) > 4 * buckets);
  for (int i = 0; i < 400; i++)
    assert_int_equal(s.times[i], 1);
}

/* ---------------------------------------------------- handles, threads -- */

static void close_ends_the_holds_of_its_handle_only(void **state) {
  (void)state;
  uint64_t token;
  egi_store *other = open_space("two handles");
  ops->close(store);
  store = open_space("two handles");
  for (int i = 0; i < 50; i++) {
    char key[16];
    step s = begin_step(EGI_TAKE, i % 2 == 0 ? EGI_LEAVE : EGI_PUT, RUNNING);
    snprintf(key, sizeof key, "k%d", i);
    assert_int_equal(apply(i % 3 == 0 ? other : store, key, &s, &token),
                     EG_OK);
  }
  ops->close(other);
  for (int i = 0; i < 50; i++) {
    char key[16];
    snprintf(key, sizeof key, "k%d", i);
    step s = look(key);
    assert_int_equal(s.seen.at.held, i % 3 != 0);
    assert_int_equal(s.seen.bytes.len > 0, i % 2 != 0);
    if (i % 2 != 0) /* the start of the run is not lost */
      assert_true(s.seen.at.stamp_us > 0);
  }
}

static void hold_that_another_ended_is_not_counted(void **state) {
  (void)state;
  uint64_t token;
  egi_store *other = open_space("breaker");
  ops->close(store);
  store = open_space("breaker");
  take("k");
  step s = begin_step(EGI_BREAK, EGI_LEAVE, NULL);
  assert_int_equal(apply(other, "k", &s, &token), EG_OK);
  const egi_memory *memory = (egi_memory *)store;
  for (unsigned i = 0; i < memory->space->n; i++)
    assert_int_equal(memory->holds[i].n, 0);
  ops->close(other);
}

/* In the child: 0 if all is well. */
static int after_fork(void) {
  ops->forked(store);
  if (holds() != 0)
    return 1;
  if (look("lock").seen.version != 0)
    return 2;
  if (look("run").seen.at.held)
    return 3;
  drop("lock", take("lock"));
  return 0;
}

static void child_of_a_fork_holds_nothing(void **state) {
  (void)state;
  int status;
  take("lock");
  run("run");
  egi_shard_lock(only_shard()); /* as if by a thread that is not there */
  egi_table_begin(&only_shard()->table);
  pid_t child = fork();
  if (child == 0)
    _exit(after_fork());
  egi_table_end(&only_shard()->table);
  egi_shard_unlock(only_shard());
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  assert_int_equal(holds(), 2);
}

/* Records are of one letter, and as long as the letter says. */
enum { LETTERS = 26, STEPS = 20000, KEYS = 5 };
static atomic_bool stop;

static egi_verdict check_letters(void *ctx, const egi_seen *seen,
                                 egi_swap *swap) {
  const char *bytes = seen->bytes.data;
  (void)ctx;
  (void)swap;
  size_t len = seen->bytes.len;
  if (len > 0 && len != 16 * (size_t)(bytes[0] - 'a' + 1))
    abort();
  for (size_t i = 1; i < len; i++)
    if (bytes[i] != bytes[0])
      abort();
  return EGI_NONE;
}

static void *read_letters(void *arg) {
  egi_store *from = arg;
  uint64_t token;
  static const char *const keys[KEYS] = {"a", "b", "c", "d", "a longer key"};
  for (unsigned i = 0; !atomic_load(&stop); i++)
    ops->apply(from, eg_str(keys[i % KEYS]), check_letters, NULL, false,
               EGI_NO_TIME, &token, NULL);
  return NULL;
}

static void write_letters(void) {
  static const char *const keys[KEYS] = {"a", "b", "c", "d", "a longer key"};
  static char text[16 * LETTERS + 1];
  uint64_t token;
  for (unsigned i = 0; i < STEPS; i++) {
    unsigned letter = i * 7 % LETTERS;
    size_t len = 16 * ((size_t)letter + 1);
    memset(text, 'a' + (int)letter, len);
    text[len] = '\0';
    step s = begin_step(EGI_KEEP, i % 3 == 0 ? EGI_FORGET : EGI_PUT, text);
    assert_int_equal(apply(store, keys[i % KEYS], &s, &token), EG_OK);
    drop("other", take("other"));
  }
}

static void readers_never_see_half_a_record(void **state) {
  (void)state;
  pthread_t readers[2];
  atomic_store(&stop, false);
  for (int i = 0; i < 2; i++)
    assert_int_equal(pthread_create(&readers[i], NULL, read_letters, store),
                     0);
  write_letters();
  atomic_store(&stop, true);
  for (int i = 0; i < 2; i++)
    pthread_join(readers[i], NULL);
}

static void *wait_and_take(void *arg) {
  egi_watch *watch = arg;
  if (ops->wait(watch, EG_FOREVER, NULL) != EG_CHANGED)
    abort();
  return NULL;
}

static void waiter_sleeps_until_it_is_woken(void **state) {
  (void)state;
  pthread_t waiter;
  egi_watch *watch, *elsewhere;
  int fd;
  uint64_t token = take("k");
  step s = look("k");
  assert_int_equal(ops->watch(store, eg_str("k"), &s.seen, &watch, &fd, NULL),
                   EG_OK);
  assert_int_equal(fd, -1);
  s = look("j");
  assert_int_equal(
      ops->watch(store, eg_str("j"), &s.seen, &elsewhere, &fd, NULL), EG_OK);
  assert_int_equal(pthread_create(&waiter, NULL, wait_and_take, watch), 0);
  drop("k", token);
  pthread_join(waiter, NULL);
  assert_false(elsewhere->changed);
  ops->unwatch(watch);
  ops->unwatch(elsewhere);
  assert_null(only_shard()->watches);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void) {
  static const struct CMUnitTest tests[] = {
      TEST(lock_and_release_leave_nothing_and_read_no_clock),
      TEST(read_needs_neither_mutex_nor_clock),
      TEST(read_of_a_time_reads_the_clock_and_no_more),
      TEST(who_will_write_is_asked_once),
      TEST(run_is_completed_in_its_place),
      TEST(drop_needs_no_memory),
      TEST(private_namespace_is_cheap),
      TEST(records_that_are_over_are_swept_by_inserts),
      TEST(swept_record_with_opaque_result_is_told),
      TEST(named_namespace_tells_nobody),
      TEST(lock_whose_lease_is_over_goes_by_itself),
      TEST(tokens_count_in_private_and_follow_the_wall_in_named),
      TEST(large_records_come_and_go),
      TEST(every_allocation_may_fail),
      TEST(swap_without_memory_changes_nothing),
      TEST(scan_of_a_table_that_grows_visits_each_once),
      TEST(close_ends_the_holds_of_its_handle_only),
      TEST(hold_that_another_ended_is_not_counted),
      TEST(child_of_a_fork_holds_nothing),
      TEST(readers_never_see_half_a_record),
      TEST(waiter_sleeps_until_it_is_woken),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
