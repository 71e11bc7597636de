/* SPDX-License-Identifier: MIT
** Status codes, and the other numbers of the public header.
*/
#include "support.h"

#include <stdio.h>

typedef struct code {
  eg_status status;
  int number, exit_status;
  const char *word, *text;
} code;

static const code codes[] = {
#define XX(name, number, word, exit_status, text)                             \
  {EG_##name, number, exit_status, word, text},
    EG_STATUS_MAP(XX)
#undef XX
};

enum { CODES = sizeof codes / sizeof *codes };

static void every_status_has_its_word_text_and_exit(void **state) {
  (void)state;
  for (int i = 0; i < CODES; i++) {
    const code *c = &codes[i];
    assert_int_equal(c->status, c->number);
    assert_string_equal(eg_status_word(c->status), c->word);
    assert_string_equal(eg_status_text(c->status), c->text);
    assert_int_equal(eg_status_exit(c->status), c->exit_status);
    assert_true(strlen(c->word) > 0 && strlen(c->text) > 0);
  }
}

static void numbers_are_without_gaps_and_failures_begin_at_16(void **state) {
  (void)state;
  for (int i = 0; i < CODES; i++)
    assert_int_equal(codes[i].number, i);
  assert_false(EG_IS_FAILURE(EG_OK));
  assert_false(EG_IS_FAILURE(EG_CHANGED));
  assert_true(EG_IS_FAILURE(EG_INVALID));
  assert_true(EG_IS_FAILURE(EG_INTERNAL));
  assert_int_equal(EG_INVALID, 16);
}

static void words_and_texts_are_unique(void **state) {
  (void)state;
  for (int i = 0; i < CODES; i++)
    for (int j = 0; j < i; j++) {
      assert_string_not_equal(codes[i].word, codes[j].word);
      assert_string_not_equal(codes[i].text, codes[j].text);
    }
}

/* A shell tells success from all else, and 126 and up are taken by it. */
static void exit_statuses_suit_a_shell(void **state) {
  (void)state;
  for (int i = 0; i < CODES; i++)
    assert_in_range(codes[i].exit_status, 0, 125);
  assert_int_equal(eg_status_exit(EG_OK), 0);
  assert_int_equal(eg_status_exit(EG_CACHED), 0);
  assert_int_equal(eg_status_exit(EG_TIMEOUT), 124);
  assert_int_equal(eg_status_exit(EG_INVALID), 64);
  for (int i = EG_INVALID; i < CODES; i++)
    assert_int_not_equal(codes[i].exit_status, 0);
}

static void words_are_single_words(void **state) {
  (void)state;
  for (int i = 0; i < CODES; i++)
    assert_int_equal(strspn(codes[i].word, "abcdefghijklmnopqrstuvwxyz"),
                     strlen(codes[i].word));
}

static void unknown_number_is_called_unknown(void **state) {
  (void)state;
  static const int numbers[] = {CODES, CODES + 1, 255,
                                -1,    INT32_MIN, INT32_MAX};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    eg_status status = (eg_status)numbers[i];
    assert_string_equal(eg_status_word(status), "unknown");
    assert_true(strlen(eg_status_text(status)) > 0);
    assert_int_not_equal(eg_status_exit(status), 0);
  }
}

static void run_states_have_words(void **state) {
  (void)state;
  int n = 0;
#define XX(name, number, word)                                                \
  assert_int_equal(EG_RUN_##name, number);                                    \
  assert_int_equal(number, n);                                                \
  assert_string_equal(eg_run_word(EG_RUN_##name), word);                      \
  n++;
  EG_RUN_MAP(XX)
#undef XX
  assert_int_equal(n, EG_RUN_COUNT);
  assert_true(strlen(eg_run_word((eg_run)n)) > 0);
  assert_true(strlen(eg_run_word((eg_run)-1)) > 0);
}

static void default_policy_is_the_one_of_the_design(void **state) {
  (void)state;
  const eg_policy p = EG_POLICY_DEFAULT;
  assert_false(p.allow_rerun || p.block_after_crash);
  assert_true(p.cache_result);
  assert_int_equal(p.result_ttl_ms | p.error_ttl_ms | p.cooldown_ms, 0);
  assert_int_equal(p.lock_at_least_ms | p.record_ttl_ms, 0);
  assert_int_equal(p.join_ms | p.lease_ms, 0);
  assert_int_equal(p.max_result, 1024 * 1024);
  assert_null(p.owner);
}

static void bounds_are_those_of_the_design(void **state) {
  (void)state;
  assert_int_equal(EG_KEY_MAX, 512);
  assert_int_equal(EG_RESULT_MAX, 1024 * 1024);
  assert_int_equal(EG_DEPTH_MAX, 100);
  assert_true(EG_NAME_MAX > 0 && EG_OWNER_MAX > 0);
  assert_true(EG_FOREVER == INT64_MAX);
  int major = -1, minor = -1, patch = -1, end = 0;
  sscanf(EG_VERSION, "%d.%d.%d%n", &major, &minor, &patch, &end);
  assert_true(major >= 0 && minor >= 0 && patch >= 0);
  assert_int_equal(end, strlen(EG_VERSION));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_status_has_its_word_text_and_exit),
      cmocka_unit_test(numbers_are_without_gaps_and_failures_begin_at_16),
      cmocka_unit_test(words_and_texts_are_unique),
      cmocka_unit_test(exit_statuses_suit_a_shell),
      cmocka_unit_test(words_are_single_words),
      cmocka_unit_test(unknown_number_is_called_unknown),
      cmocka_unit_test(run_states_have_words),
      cmocka_unit_test(default_policy_is_the_one_of_the_design),
      cmocka_unit_test(bounds_are_those_of_the_design),
  };
  return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
