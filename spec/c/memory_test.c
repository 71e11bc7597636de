/* SPDX-License-Identifier: MIT
** The inside of the memory store: what takes memory and time, and what does
** not.  The rules that every store keeps are in spec/conformance.
*/
#include "memory_world.h"

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

static egi_glimpse peek(const char *key, const char *bytes) {
  unsigned char room[EGI_PEEK_ROOM];
  eg_bytes record;
  uint64_t token, tag;
  if (!ops->peek(store, eg_str(key), room, &record, &token, &tag))
    return EGI_TORN;
  if (record.len == 0)
    return token == 0 ? EGI_MISSING : EGI_TORN;
  assert_true(token > 0);
  assert_int_equal(record.len, strlen(bytes));
  assert_memory_equal(record.data, bytes, record.len);
  return EGI_FOUND;
}

/* DONE with a text for a result, so that the record has n bytes. */
static const char *done_with(size_t n) {
  static char record[64];
  memset(record, 'x', n);
  memcpy(record, "\x96\x01\x0a", 3);
  record[n] = '\0';
  return record;
}

static void peek_takes_no_lock_and_no_time(void **state) {
  (void)state;
  finish("done", run("done"), done_with(6), 0);
  finish("of-8-byt", run("of-8-byt"), done_with(60), 0);
  finish("long", run("long"), done_with(62), 0); /* its key's end is in it */
  take("held");
  run("runs");
  finish("fades", run("fades"), done_with(6), 1000);
  drop("gone", take("gone"));
  clock_reads = 0;
  egi_shard_lock(only_shard());
  assert_int_equal(peek("done", done_with(6)), EGI_FOUND);
  assert_int_equal(peek("of-8-byt", done_with(60)), EGI_FOUND);
  assert_int_equal(peek("long", done_with(60)), EGI_FOUND); /* its start */
  assert_int_equal(peek("held", ""), EGI_TORN);
  assert_int_equal(peek("runs", ""), EGI_TORN);
  assert_int_equal(peek("fades", ""), EGI_TORN);
  assert_int_equal(peek("gone", ""), EGI_MISSING);
  assert_int_equal(peek("never", ""), EGI_MISSING);
  egi_table_begin(&only_shard()->table);
  assert_int_equal(peek("done", ""), EGI_TORN);
  egi_table_end(&only_shard()->table);
  egi_shard_unlock(only_shard());
  assert_int_equal(clock_reads, 0);
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

static void token_of_a_named_namespace_follows_the_wall(void **state) {
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

int main(void) {
  static const struct CMUnitTest tests[] = {
      TEST(lock_and_release_leave_nothing_and_read_no_clock),
      TEST(read_needs_neither_mutex_nor_clock),
      TEST(read_of_a_time_reads_the_clock_and_no_more),
      TEST(peek_takes_no_lock_and_no_time),
      TEST(who_will_write_is_asked_once),
      TEST(run_is_completed_in_its_place),
      TEST(drop_needs_no_memory),
      TEST(private_namespace_is_cheap),
      TEST(records_that_are_over_are_swept_by_inserts),
      TEST(swept_record_with_opaque_result_is_told),
      TEST(named_namespace_tells_nobody),
      TEST(lock_whose_lease_is_over_goes_by_itself),
      TEST(token_of_a_named_namespace_follows_the_wall),
      TEST(large_records_come_and_go),
      TEST(every_allocation_may_fail),
      TEST(swap_without_memory_changes_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
