/* SPDX-License-Identifier: MIT
** The memory store with more than one handle or thread: scan, close, fork,
** readers without a lock, waiters.
*/
#include "memory_world.h"

#include <sys/wait.h>
#include <unistd.h>

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
  ops->before_fork(store);
  pid_t child = fork();
  if (child == 0)
    _exit(after_fork());
  ops->after_fork(store);
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

int main(void) {
  static const struct CMUnitTest tests[] = {
      TEST(scan_of_a_table_that_grows_visits_each_once),
      TEST(close_ends_the_holds_of_its_handle_only),
      TEST(hold_that_another_ended_is_not_counted),
      TEST(child_of_a_fork_holds_nothing),
      TEST(readers_never_see_half_a_record),
      TEST(waiter_sleeps_until_it_is_woken),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
