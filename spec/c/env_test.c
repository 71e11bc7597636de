/* SPDX-License-Identifier: MIT
** The injected world: what stands in for what was not injected.
*/
#include "support.h"

static void complete_fills_what_is_missing(void **state) {
  (void)state;
  eg_env env = {0};
  egi_env_complete(&env);
  assert_non_null(env.alloc);
  assert_non_null(env.log);
  assert_ptr_equal(env.clock, egi_process_clock());
  env.log(env.log_ud, EG_LOG_WARN, "nobody listens", eg_str("key"));
}

static void own_log(void *ud, eg_log_level level, const char *message,
                    eg_bytes key) {
  (void)level;
  (void)message;
  (void)key;
  ++*(int *)ud;
}

static void complete_leaves_what_is_injected(void **state) {
  (void)state;
  spec_memory memory = {0};
  int logged = 0;
  eg_env env = {.alloc = spec_alloc,
                .alloc_ud = &memory,
                .clock = &spec_clock,
                .log = own_log,
                .log_ud = &logged};
  eg_env before = env;
  egi_env_complete(&env);
  assert_ptr_equal(env.alloc, before.alloc);
  assert_ptr_equal(env.alloc_ud, &memory);
  assert_ptr_equal(env.clock, &spec_clock);
  assert_ptr_equal(env.log, before.log);
  env.log(env.log_ud, EG_LOG_INFO, "", eg_str(""));
  assert_int_equal(logged, 1);
}

static void default_allocator_works_like_realloc(void **state) {
  (void)state;
  eg_env env = {0};
  egi_env_complete(&env);
  char *p = egi_alloc(&env, 5);
  assert_non_null(p);
  memcpy(p, "abcd", 5);
  p = env.alloc(env.alloc_ud, p, 5, 5000);
  assert_non_null(p);
  assert_string_equal(p, "abcd");
  assert_null(env.alloc(env.alloc_ud, p, 5000, 0));
}

static void free_gives_back_size_and_ignores_null(void **state) {
  (void)state;
  spec_memory memory = {0};
  eg_env env = {.alloc = spec_alloc, .alloc_ud = &memory};
  egi_env_complete(&env);
  void *p = egi_alloc(&env, 17);
  assert_int_equal(memory.blocks, 1);
  egi_free(&env, p, 17);
  egi_free(&env, NULL, 17);
  assert_int_equal(memory.blocks, 0);
  assert_int_equal(memory.misused, 0);
}

static void deadline_is_so_many_milliseconds_away(void **state) {
  (void)state;
  assert_true(egi_deadline(100, 3) == 3100);
  assert_true(egi_deadline(100, 0) == 100);
  assert_true(egi_deadline(100, -5) == 100);
  assert_true(egi_deadline(100, INT64_MIN) == 100);
}

static void deadline_when_far_away_is_for_ever(void **state) {
  (void)state;
  assert_true(egi_deadline(100, EG_FOREVER) == EG_FOREVER);
  assert_true(egi_deadline(100, EG_FOREVER / 1000) == EG_FOREVER);
  assert_true(egi_deadline(EG_FOREVER - 10, 1) == EG_FOREVER);
  assert_true(egi_deadline(0, EG_FOREVER / 1000 - 1) < EG_FOREVER);
}

static void str_counts_the_bytes_of_a_string(void **state) {
  (void)state;
  assert_int_equal(eg_str("abc").len, 3);
  assert_int_equal(eg_str("").len, 0);
  assert_int_equal(eg_str(NULL).len, 0);
  const char *s = "abc";
  assert_ptr_equal(eg_str(s).data, s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(complete_fills_what_is_missing),
      cmocka_unit_test(complete_leaves_what_is_injected),
      cmocka_unit_test(default_allocator_works_like_realloc),
      cmocka_unit_test(free_gives_back_size_and_ignores_null),
      cmocka_unit_test(deadline_is_so_many_milliseconds_away),
      cmocka_unit_test(deadline_when_far_away_is_for_ever),
      cmocka_unit_test(str_counts_the_bytes_of_a_string),
  };
  return cmocka_run_group_tests_name("env", tests, NULL, NULL);
}
