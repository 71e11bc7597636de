/* SPDX-License-Identifier: MIT
** Filling an eg_error.
*/
#include "support.h"

#include <errno.h>

static void fail_fills_status_and_message(void **state) {
  (void)state;
  eg_error e = {EG_OK, EIO, "old"};
  assert_int_equal(egi_fail(&e, EG_INVALID, "the %s is %d", "key", 7),
                   EG_INVALID);
  assert_int_equal(e.status, EG_INVALID);
  assert_string_equal(e.message, "the key is 7");
}

static void fail_without_errno_clears_it(void **state) {
  (void)state;
  eg_error e = {EG_OK, EIO, "old"};
  egi_fail(&e, EG_NOMEM, "no");
  assert_int_equal(e.os_errno, 0);
}

static void fail_errno_keeps_the_errno(void **state) {
  (void)state;
  eg_error e;
  errno = EAGAIN;
  assert_int_equal(egi_fail_errno(&e, EG_DENIED, EACCES, "not %s", "you"),
                   EG_DENIED);
  assert_int_equal(e.status, EG_DENIED);
  assert_int_equal(e.os_errno, EACCES);
  assert_string_equal(e.message, "not you");
}

static void fail_without_an_error_returns_the_status(void **state) {
  (void)state;
  assert_int_equal(egi_fail(NULL, EG_CORRUPT, "%s", "x"), EG_CORRUPT);
  assert_int_equal(egi_fail_errno(NULL, EG_NOMEM, ENOMEM, "%s", "x"),
                   EG_NOMEM);
}

static void fail_when_too_long_cuts_the_message(void **state) {
  (void)state;
  char text[1000];
  eg_error e;
  memset(text, 'a', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  egi_fail(&e, EG_INTERNAL, "%s", text);
  assert_int_equal(strlen(e.message), sizeof e.message - 1);
  egi_fail_errno(&e, EG_INTERNAL, EIO, "%s", text + 1000 - sizeof e.message);
  assert_int_equal(strlen(e.message), sizeof e.message - 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(fail_fills_status_and_message),
      cmocka_unit_test(fail_without_errno_clears_it),
      cmocka_unit_test(fail_errno_keeps_the_errno),
      cmocka_unit_test(fail_without_an_error_returns_the_status),
      cmocka_unit_test(fail_when_too_long_cuts_the_message),
  };
  return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
