/* SPDX-License-Identifier: MIT
** Which keys and names are taken.
*/
#include "support.h"

#include <stdio.h>

static char text[1024];

static eg_bytes key_of(size_t n) {
  memset(text, 'k', sizeof text);
  return (eg_bytes){text, n};
}

static void key_of_any_bytes_is_taken(void **state) {
  (void)state;
  eg_error e;
  assert_int_equal(egi_check_key(key_of(1), &e), EG_OK);
  assert_int_equal(egi_check_key(key_of(EG_KEY_MAX), &e), EG_OK);
  assert_int_equal(egi_check_key((eg_bytes){"\0\xff\n", 3}, &e), EG_OK);
}

static void key_when_empty_is_invalid(void **state) {
  (void)state;
  eg_error e;
  assert_int_equal(egi_check_key(key_of(0), &e), EG_INVALID);
  assert_int_equal(e.status, EG_INVALID);
  assert_non_null(strstr(e.message, "key"));
  assert_int_equal(egi_check_key((eg_bytes){NULL, 0}, &e), EG_INVALID);
  assert_int_equal(egi_check_key((eg_bytes){NULL, 5}, &e), EG_INVALID);
  assert_int_equal(egi_check_key(key_of(0), NULL), EG_INVALID);
}

static void key_when_too_long_is_invalid_and_says_the_bound(void **state) {
  (void)state;
  eg_error e;
  char bound[16], length[16];
  snprintf(bound, sizeof bound, "%d", EG_KEY_MAX);
  snprintf(length, sizeof length, "%d", EG_KEY_MAX + 1);
  assert_int_equal(egi_check_key(key_of(EG_KEY_MAX + 1), &e), EG_INVALID);
  assert_int_equal(e.status, EG_INVALID);
  assert_non_null(strstr(e.message, bound));
  assert_non_null(strstr(e.message, length));
}

static void name_is_none_or_a_short_text(void **state) {
  (void)state;
  eg_error e;
  assert_int_equal(egi_check_name(NULL, &e), EG_OK);
  assert_int_equal(egi_check_name("n", &e), EG_OK);
  key_of(1);
  text[EG_NAME_MAX] = '\0';
  assert_int_equal(egi_check_name(text, &e), EG_OK);
}

static void name_when_empty_or_too_long_is_invalid(void **state) {
  (void)state;
  eg_error e;
  assert_int_equal(egi_check_name("", &e), EG_INVALID);
  assert_non_null(strstr(e.message, "name"));
  key_of(1);
  text[EG_NAME_MAX + 1] = '\0';
  assert_int_equal(egi_check_name(text, &e), EG_INVALID);
  assert_non_null(strstr(e.message, "name"));
  assert_int_equal(egi_check_name("", NULL), EG_INVALID);
}

static const char *file_of(const char *name, const char *key) {
  static char out[EG_LOCK_FILE_MAX];
  size_t n = eg_lock_file(name, eg_str(key), out);
  assert_int_equal(n, strlen(out));
  return out;
}

static void
lock_file_is_the_key_so_that_it_cannot_leave_the_folder(void **state) {
  (void)state;
  assert_string_equal(file_of(NULL, "migrate"), "migrate.lock");
  assert_string_equal(file_of("shop", "a:b-c_D.9"), "shop@/a:b-c_D.9.lock");
  assert_string_equal(file_of("..", "../x"), "%2e.@/%2e.%2fx.lock");
  assert_string_equal(file_of(NULL, "50%"), "50%25.lock");
}

static void lock_file_of_a_long_key_is_short_and_its_own(void **state) {
  (void)state;
  char a[EG_LOCK_FILE_MAX], b[EG_LOCK_FILE_MAX], name[EG_NAME_MAX + 2] = "";
  eg_bytes key = key_of(EG_KEY_MAX);
  size_t n = eg_lock_file(NULL, key, a);
  assert_true(n > 5 && n < 256);
  text[EG_KEY_MAX - 1] = 'l';
  assert_int_equal(eg_lock_file(NULL, key, b), n);
  assert_string_not_equal(a, b);
  memset(name, '\n', EG_NAME_MAX);
  assert_true(eg_lock_file(name, key, a) < EG_LOCK_FILE_MAX);
  name[EG_NAME_MAX] = 'x';
  assert_int_equal(eg_lock_file(name, key, a), 0);
  assert_int_equal(eg_lock_file(NULL, key_of(EG_KEY_MAX + 1), a), 0);
  assert_int_equal(eg_lock_file(NULL, key_of(0), a), 0);
}

static void every_verb_refuses_what_is_no_key(void **state) {
  spec_world *w = *state;
  eg_watch *watch = (eg_watch *)w;
  eg_outcome outcome = spec_done();
  eg_bytes keys[] = {key_of(0), key_of(EG_KEY_MAX + 1)};
  for (int i = 0; i < 2; i++) {
    eg_bytes key = keys[i];
    eg_error *e = &w->error;
    assert_int_equal(
        eg_acquire(w->guard, key, EG_WANT_RUN, NULL, 0, &w->grant, &w->reply),
        EG_INVALID);
    assert_int_equal(w->reply.failure.status, EG_INVALID);
    assert_int_equal(eg_commit(w->guard, key, &w->grant, &outcome, NULL, e),
                     EG_INVALID);
    assert_int_equal(eg_release(w->guard, key, 0, e), EG_INVALID);
    assert_int_equal(eg_reset(w->guard, key, e), EG_INVALID);
    assert_int_equal(eg_clear_result(w->guard, key, e), EG_INVALID);
    assert_int_equal(eg_fetch(w->guard, key, &w->record, e), EG_INVALID);
    eg_record_free(&w->record);
    assert_int_equal(eg_watch_open(w->guard, key, &watch, e), EG_INVALID);
    assert_null(watch);
    assert_false(eg_holds(w->guard, key, 1));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(key_of_any_bytes_is_taken),
      cmocka_unit_test(key_when_empty_is_invalid),
      cmocka_unit_test(key_when_too_long_is_invalid_and_says_the_bound),
      cmocka_unit_test(name_is_none_or_a_short_text),
      cmocka_unit_test(name_when_empty_or_too_long_is_invalid),
      cmocka_unit_test(
          lock_file_is_the_key_so_that_it_cannot_leave_the_folder),
      cmocka_unit_test(lock_file_of_a_long_key_is_short_and_its_own),
      BOTH_WAYS(every_verb_refuses_what_is_no_key),
  };
  return cmocka_run_group_tests_name("key", tests, NULL, NULL);
}
