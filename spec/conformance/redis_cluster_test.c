/* SPDX-License-Identifier: MIT
** The redis store on three servers in cluster mode: keys on all of them, slots
** that move while they are used.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server.h"
#include "world.h"

#include <cmocka.h>

enum { NODES = 3, SLOTS = 16384 };

static server nodes[NODES];

static bool is_ready(void) {
  for (int i = 0; i < NODES; i++)
    if (strstr(server_say(&nodes[i], "CLUSTER INFO"), "cluster_state:ok") ==
            NULL ||
        server_count(&nodes[i], "CLUSTER INFO", "cluster_known_nodes:") !=
            NODES)
      return false;
  return true;
}

static bool await_ready(void) {
  for (int i = 0; i < 3000; i++) {
    if (is_ready())
      return true;
    usleep(20000);
  }
  return false;
}

static int start_cluster(void **state) {
  char words[200];
  int port = 27000;
  (void)state;
  for (int i = 0; i < NODES; i++) {
    port = server_free_port(port + 1);
    if (!server_start(&nodes[i], port,
                      "--cluster-enabled yes --cluster-node-timeout 5000"))
      return -1;
    snprintf(words, sizeof words, "CLUSTER ADDSLOTSRANGE %d %d",
             i * SLOTS / NODES, (i + 1) * SLOTS / NODES - 1);
    server_say(&nodes[i], words);
    snprintf(words, sizeof words, "CLUSTER SET-CONFIG-EPOCH %d", i + 1);
    server_say(&nodes[i], words);
  }
  for (int i = 1; i < NODES; i++) {
    snprintf(words, sizeof words, "CLUSTER MEET 127.0.0.1 %d", nodes[i].port);
    server_say(&nodes[0], words);
  }
  return await_ready() ? 0 : -1;
}

static int end_cluster(void **state) {
  (void)state;
  for (int i = 0; i < NODES; i++)
    server_end(&nodes[i]);
  return 0;
}

static eg_guard *open_guard(const char *name) {
  char url[100];
  eg_error error;
  eg_guard *guard = NULL;
  snprintf(url, sizeof url, "redis://127.0.0.1:%d?timeout=20", nodes[0].port);
  eg_options options = {.store = url, .name = name};
  if (eg_open(&options, &guard, &error) != EG_OK)
    fail_msg("%s", error.message);
  return guard;
}

static eg_status acquire(eg_guard *guard, const char *key, eg_want want,
                         int64_t wait_ms, eg_grant *grant) {
  eg_reply reply;
  eg_reply_init(&reply);
  eg_status status = eg_acquire(guard, eg_str(key), want, NULL, wait_ms, grant,
                                &reply);
  if (EG_IS_FAILURE(status))
    print_error("%s: %s\n", key, reply.failure.message);
  eg_reply_free(&reply);
  return status;
}

static eg_status run(eg_guard *guard, const char *key) {
  eg_grant grant;
  eg_outcome done = {
      .status = EG_OK, .kind = EG_KIND_VALUE, .value = eg_str("\x07")};
  eg_status status = acquire(guard, key, EG_WANT_RUN, 0, &grant);
  return status == EG_OK
             ? eg_commit(guard, eg_str(key), &grant, &done, NULL, NULL)
             : status;
}

static void keys_are_on_all_nodes_and_found_there(void **state) {
  (void)state;
  char key[24];
  eg_census census;
  eg_guard *guard = open_guard("spread");
  for (int i = 0; i < 200; i++) {
    snprintf(key, sizeof key, "key %d", i);
    assert_int_equal(run(guard, key), EG_OK);
  }
  for (int i = 0; i < NODES; i++)
    assert_true(server_count(&nodes[i], "INFO keyspace", "keys=") > 20);
  for (int i = 0; i < 200; i++) {
    snprintf(key, sizeof key, "key %d", i);
    assert_int_equal(run(guard, key), EG_CACHED);
  }
  assert_int_equal(eg_take_census(guard, &census, NULL), EG_OK);
  assert_int_equal(census.total, 200);
  assert_int_equal(census.by_run[EG_RUN_COMPLETED], 200);
  eg_close(guard);
}

static void holds_on_all_nodes_are_renewed_and_dropped(void **state) {
  (void)state;
  enum { KEYS = 30 };
  char keys[KEYS][24], url[100];
  egi_hold_ref holds[KEYS];
  eg_status each[KEYS];
  const egi_store_ops *ops = egi_find_store("redis");
  egi_store *store;
  eg_env env = {.clock = eg_system_clock()};
  eg_guard *guard = open_guard("holds");
  snprintf(url, sizeof url, "//127.0.0.1:%d", nodes[1].port);
  egi_url parsed = {.scheme = "redis", .rest = url, .name = "holds"};
  env.alloc = world_allocator;
  assert_int_equal(ops->open(&parsed, &env, &store, NULL), EG_OK);
  for (int i = 0; i < KEYS; i++) {
    eg_grant grant;
    snprintf(keys[i], sizeof keys[i], "key %d", i);
    assert_int_equal(acquire(guard, keys[i], EG_WANT_LOCK, 0, &grant), EG_OK);
    holds[i] = (egi_hold_ref){eg_str(keys[i]), grant.token + (i == 7)};
  }
  assert_int_equal(ops->renew(store, holds, KEYS, 60000, each, NULL), EG_OK);
  for (int i = 0; i < KEYS; i++)
    assert_int_equal(each[i], i == 7 ? EG_LOST : EG_OK);
  eg_close(guard);
  egi_seen seen;
  egi_seen_init(&seen);
  for (int i = 0; i < KEYS; i++) {
    assert_int_equal(ops->load(store, holds[i].key, EG_FOREVER, &seen, NULL),
                     EG_OK);
    assert_false(seen.at.held);
  }
  egi_seen_free(&seen, &env);
  ops->close(store);
}

/* Moves the slot of a key from the node that has it to the next.  With
** `half`: stops in the middle, where the key is there and the slot is not. */
static int owner_of(const char *name, char *slot, size_t size) {
  char words[200];
  snprintf(words, sizeof words, "CLUSTER KEYSLOT '%s'", name);
  snprintf(slot, size, "%s", server_say(&nodes[0], words));
  for (int i = 0; i < NODES; i++)
    if (atoi(slot) < (i + 1) * SLOTS / NODES)
      return i;
  return -1;
}

static void id_of(int node, char *id, size_t size) {
  snprintf(id, size, "%s", server_say(&nodes[node], "CLUSTER MYID"));
}

static void slot_that_moves_is_followed(void **state) {
  (void)state;
  static const char name[] = "eg:{moving:k}";
  char slot[16], words[300], from_id[48], to_id[48];
  eg_grant grant;
  eg_guard *guard = open_guard("moving");
  assert_int_equal(acquire(guard, "k", EG_WANT_LOCK, 0, &grant), EG_OK);
  int from = owner_of(name, slot, sizeof slot), to = (from + 1) % NODES;
  id_of(from, from_id, sizeof from_id);
  id_of(to, to_id, sizeof to_id);
  snprintf(words, sizeof words, "CLUSTER SETSLOT %s IMPORTING %s", slot,
           from_id);
  assert_string_equal(server_say(&nodes[to], words), "OK");
  snprintf(words, sizeof words, "CLUSTER SETSLOT %s MIGRATING %s", slot,
           to_id);
  assert_string_equal(server_say(&nodes[from], words), "OK");
  snprintf(words, sizeof words, "MIGRATE 127.0.0.1 %d '%s' 0 5000",
           nodes[to].port, name);
  assert_string_equal(server_say(&nodes[from], words), "OK");
  /* ASK */
  assert_int_equal(eg_release(guard, eg_str("k"), grant.token, NULL), EG_OK);
  assert_int_equal(acquire(guard, "k", EG_WANT_LOCK, 0, &grant), EG_OK);
  for (int i = 0; i < NODES; i++) {
    snprintf(words, sizeof words, "CLUSTER SETSLOT %s NODE %s", slot, to_id);
    server_say(&nodes[i], words);
  }
  /* MOVED */
  assert_int_equal(acquire(guard, "k", EG_WANT_LOCK, 0, &grant), EG_LOCKED);
  assert_int_equal(eg_release(guard, eg_str("k"), 0, NULL), EG_OK);
  eg_close(guard);
}

typedef struct waiter {
  eg_guard *guard;
  eg_status status;
} waiter;

static void *wait_for_lock(void *ctx) {
  waiter *w = ctx;
  eg_grant grant;
  w->status = acquire(w->guard, "k", EG_WANT_LOCK, 20000, &grant);
  return NULL;
}

static void waiter_hears_of_a_release_on_any_node(void **state) {
  (void)state;
  for (int i = 0; i < 6; i++) {
    char name[16];
    pthread_t thread;
    eg_grant grant;
    snprintf(name, sizeof name, "wait %d", i);
    eg_guard *holder = open_guard(name), *other = open_guard(name);
    waiter w = {other, EG_INTERNAL};
    assert_int_equal(acquire(holder, "k", EG_WANT_LOCK, 0, &grant), EG_OK);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_lock, &w), 0);
    usleep(100000); /* so that it most likely waits; right either way */
    int64_t begin = eg_now_us();
    assert_int_equal(eg_release(holder, eg_str("k"), 0, NULL), EG_OK);
    pthread_join(thread, NULL);
    assert_int_equal(w.status, EG_OK);
    assert_true(eg_now_us() - begin < 10000000);
    eg_close(other);
    eg_close(holder);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(keys_are_on_all_nodes_and_found_there),
      cmocka_unit_test(holds_on_all_nodes_are_renewed_and_dropped),
      cmocka_unit_test(slot_that_moves_is_followed),
      cmocka_unit_test(waiter_hears_of_a_release_on_any_node),
  };
  alarm(300);
  return cmocka_run_group_tests_name("redis cluster", tests, start_cluster,
                                     end_cluster);
}
