/* SPDX-License-Identifier: MIT
** Store URLs: scheme, rest, query, and what a message about them shows.
*/
#include "support.h"

static void scheme_alone_is_a_url(void **state) {
  (void)state;
  egi_url url;
  eg_error e;
  assert_int_equal(egi_url_parse("memory", &url, &e), EG_OK);
  assert_string_equal(url.scheme, "memory");
  assert_string_equal(url.rest, "");
  assert_null(url.query);
  assert_null(url.name);
}

static void rest_begins_behind_the_colon(void **state) {
  (void)state;
  egi_url url;
  assert_int_equal(egi_url_parse("memory:a/b:c", &url, NULL), EG_OK);
  assert_string_equal(url.scheme, "memory");
  assert_string_equal(url.rest, "a/b:c");
  assert_null(url.query);
}

static void query_begins_behind_the_question_mark(void **state) {
  (void)state;
  egi_url url;
  assert_int_equal(egi_url_parse("memory:rest?a=1&b=2", &url, NULL), EG_OK);
  assert_string_equal(url.query, "a=1&b=2");
  assert_int_equal(strncmp(url.rest, "rest?", 5), 0);
  assert_int_equal(egi_url_parse("memory?a=1", &url, NULL), EG_OK);
  assert_string_equal(url.query, "a=1");
  assert_int_equal(egi_url_parse("memory:?", &url, NULL), EG_OK);
  assert_string_equal(url.query, "");
}

static void has_finds_whole_parameters_only(void **state) {
  (void)state;
  egi_url url;
  assert_int_equal(egi_url_parse("memory:?apply=no&b=&cc=dd", &url, NULL),
                   EG_OK);
  assert_true(egi_url_has(&url, "apply", "no"));
  assert_true(egi_url_has(&url, "b", ""));
  assert_true(egi_url_has(&url, "cc", "dd"));
  assert_false(egi_url_has(&url, "apply", "n"));
  assert_false(egi_url_has(&url, "apply", "now"));
  assert_false(egi_url_has(&url, "appl", "no"));
  assert_false(egi_url_has(&url, "pply", "no"));
  assert_false(egi_url_has(&url, "c", "dd"));
  assert_false(egi_url_has(&url, "", ""));
  assert_int_equal(egi_url_parse("memory", &url, NULL), EG_OK);
  assert_false(egi_url_has(&url, "apply", "no"));
  assert_int_equal(egi_url_parse("memory:?&&a=1&", &url, NULL), EG_OK);
  assert_true(egi_url_has(&url, "a", "1"));
}

static void unknown_scheme_is_invalid_and_lists_the_known(void **state) {
  (void)state;
  static const char *const texts[] = {
      "",
      ":",
      "?",
      "Memory",
      "memoryx",
      "memor",
      " memory",
      "mem ory",
      "memory\n",
      "carrier-pigeon:coop",
      "a-scheme-that-is-much-longer-than-any-scheme-has-ever-been:x"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    egi_url url;
    eg_error e = {0};
    assert_int_equal(egi_url_parse(texts[i], &url, &e), EG_INVALID);
    assert_int_equal(e.status, EG_INVALID);
    for (const char *const *s = eg_schemes(); *s != NULL; s++)
      assert_non_null(strstr(e.message, *s));
    assert_int_equal(egi_url_parse(texts[i], &url, NULL), EG_INVALID);
  }
}

static void message_names_the_scheme_it_did_not_know(void **state) {
  (void)state;
  egi_url url;
  eg_error e;
  egi_url_parse("carrier-pigeon:coop", &url, &e);
  assert_non_null(strstr(e.message, "carrier-pigeon"));
}

static void password_is_never_in_the_message(void **state) {
  (void)state;
  static const char *const texts[] = {"redisss://user:s3cret@host/0",
                                      "nosuch://:s3cret@host",
                                      "nosuch:?password=s3cret",
                                      "no such://u:s3cret@host",
                                      "NOSUCH://u:s3cret@host",
                                      "nosuch?s3cret",
                                      "://u:s3cret@host",
                                      "user@host:s3cret"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    egi_url url;
    eg_error e = {0};
    assert_int_equal(egi_url_parse(texts[i], &url, &e), EG_INVALID);
    assert_null(strstr(e.message, "s3cret"));
    eg_guard *guard;
    eg_options options = {.store = texts[i]};
    assert_int_equal(eg_open(&options, &guard, &e), EG_INVALID);
    assert_null(strstr(e.message, "s3cret"));
  }
}

static void every_scheme_that_is_listed_is_found(void **state) {
  (void)state;
  const char *const *s = eg_schemes();
  assert_non_null(*s);
  for (; *s != NULL; s++) {
    egi_url url;
    assert_int_equal(egi_url_parse(*s, &url, NULL), EG_OK);
    const egi_store_ops *ops = egi_find_store(*s);
    assert_non_null(ops);
    assert_int_equal(ops->abi, EGI_STORE_ABI);
    /* One store may have several. */
    assert_memory_equal(ops->scheme, *s, strlen(ops->scheme));
  }
  assert_null(egi_find_store(""));
  assert_null(egi_find_store("nosuch"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(scheme_alone_is_a_url),
      cmocka_unit_test(rest_begins_behind_the_colon),
      cmocka_unit_test(query_begins_behind_the_question_mark),
      cmocka_unit_test(has_finds_whole_parameters_only),
      cmocka_unit_test(unknown_scheme_is_invalid_and_lists_the_known),
      cmocka_unit_test(message_names_the_scheme_it_did_not_know),
      cmocka_unit_test(password_is_never_in_the_message),
      cmocka_unit_test(every_scheme_that_is_listed_is_found),
  };
  return cmocka_run_group_tests_name("url", tests, NULL, NULL);
}
