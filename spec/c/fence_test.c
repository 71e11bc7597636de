/* SPDX-License-Identifier: MIT
** The fence of a file: who may write, what is refused, what is left behind.
*/
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/eg-fence-XXXXXX", path[40], beside[64];

static int begin(void **state) {
  (void)state;
  strcpy(folder + sizeof folder - 7, "XXXXXX");
  if (mkdtemp(folder) == NULL)
    return -1;
  snprintf(path, sizeof path, "%s/file", folder);
  snprintf(beside, sizeof beside, "%s/file.token", folder);
  return 0;
}

static int end(void **state) {
  char command[64];
  (void)state;
  snprintf(command, sizeof command, "rm -rf %s", folder);
  return system(command);
}

static eg_status write_as(uint64_t token, const char *text) {
  return eg_fence_write(path, token, eg_str(text), 0, NULL);
}

static void assert_file(const char *name, const char *text) {
  char there[256] = "";
  FILE *file = fopen(name, "r");
  assert_non_null(file);
  size_t n = fread(there, 1, sizeof there - 1, file);
  fclose(file);
  there[n] = '\0';
  assert_string_equal(there, text);
}

static void put(const char *name, const char *text) {
  FILE *file = fopen(name, "w");
  assert_non_null(file);
  fputs(text, file);
  fclose(file);
}

static void write_by_an_older_token_is_refused(void **state) {
  (void)state;
  assert_int_equal(write_as(7, "seven"), EG_OK);
  assert_int_equal(write_as(7, "seven again"), EG_OK);
  assert_int_equal(write_as(9, "nine"), EG_OK);
  assert_int_equal(write_as(8, "eight"), EG_LOST);
  assert_file(path, "nine");
  assert_file(beside, "00000000000000000009\n");
}

static void write_keeps_the_mode_and_leaves_nothing(void **state) {
  (void)state;
  struct stat st;
  put(path, "by hand");
  assert_int_equal(chmod(path, 0640), 0);
  assert_int_equal(write_as(1, ""), EG_OK);
  assert_file(path, "");
  assert_int_equal(stat(path, &st), 0);
  assert_int_equal(st.st_mode & 07777, 0640);
  char fresh[64];
  snprintf(fresh, sizeof fresh, "%s.new", path);
  assert_int_equal(access(fresh, F_OK), -1);
}

/* As one who died between token and contents leaves it. */
static void write_after_a_crash_goes_on(void **state) {
  (void)state;
  char fresh[64];
  snprintf(fresh, sizeof fresh, "%s.new", path);
  put(path, "old");
  put(fresh, "half of what was to be wri");
  put(beside, "00000000000000000005\n");
  assert_int_equal(write_as(4, "four"), EG_LOST);
  assert_file(path, "old");
  assert_int_equal(write_as(5, "five"), EG_OK);
  assert_file(path, "five");
}

static void write_while_another_writes_is_locked(void **state) {
  (void)state;
  assert_int_equal(write_as(1, "one"), EG_OK);
  int fd = open(beside, O_RDWR);
  assert_int_equal(flock(fd, LOCK_EX), 0);
  assert_int_equal(write_as(2, "two"), EG_LOCKED);
  assert_int_equal(eg_fence_write(path, 2, eg_str("two"), 20, NULL),
                   EG_LOCKED);
  assert_file(path, "one");
  close(fd);
  assert_int_equal(write_as(2, "two"), EG_OK);
}

static void write_by_no_token_or_no_path_is_invalid(void **state) {
  (void)state;
  char deep[5000];
  memset(deep, 'x', sizeof deep - 1);
  deep[sizeof deep - 1] = '\0';
  assert_int_equal(write_as(0, "x"), EG_INVALID);
  assert_int_equal(write_as(EGI_TOKEN_MAX + 1, "x"), EG_INVALID);
  assert_int_equal(eg_fence_write("", 1, eg_str("x"), 0, NULL), EG_INVALID);
  assert_int_equal(eg_fence_write(NULL, 1, eg_str("x"), 0, NULL), EG_INVALID);
  assert_int_equal(eg_fence_write(deep, 1, eg_str("x"), 0, NULL), EG_INVALID);
  assert_int_equal(access(path, F_OK), -1);
}

static void write_beside_what_is_no_token_is_corrupt(void **state) {
  (void)state;
  static const char *const texts[] = {
      "7\n", "no token", "0000000000000000007x", "99999999999999999999\n"};
  for (int i = 0; i < 4; i++) {
    put(beside, texts[i]);
    assert_int_equal(write_as(8, "x"), EG_CORRUPT);
    assert_file(beside, texts[i]);
  }
}

static void write_that_fails_says_why(void **state) {
  (void)state;
  eg_error error;
  char away[64];
  snprintf(away, sizeof away, "%s/none/file", folder);
  assert_int_equal(eg_fence_write(away, 1, eg_str("x"), 0, &error),
                   EG_UNAVAILABLE);
  assert_int_equal(error.os_errno, ENOENT);
  assert_non_null(strstr(error.message, away));
  assert_int_equal(mkdir(path, 0700), 0); /* cannot be replaced */
  assert_int_equal(eg_fence_write(path, 1, eg_str("x"), 0, &error),
                   EG_UNAVAILABLE);
  assert_int_equal(symlink("/nowhere", away), -1);
  assert_int_equal(unlink(beside), 0);
  assert_int_equal(symlink("elsewhere", beside), 0);
  assert_int_equal(eg_fence_write(path, 1, eg_str("x"), 0, &error),
                   EG_UNAVAILABLE);
  assert_int_equal(error.os_errno, ELOOP);
}

static void redis_key_is_that_of_the_store(void **state) {
  (void)state;
  char text[EG_FENCE_REDIS_KEY_MAX], large[EG_NAME_MAX + 2];
  size_t n = eg_fence_redis_key("a:b%", eg_str("k}"), text);
  assert_true(n == 16 && memcmp(text, "eg:{a%3Ab%25:k}}", 16) == 0);
  n = eg_fence_redis_key(NULL, eg_str("k"), text);
  assert_true(n == 14 && memcmp(text, "eg:{default:k}", 14) == 0);
  memset(large, 'n', sizeof large);
  large[sizeof large - 1] = '\0';
  assert_int_equal(eg_fence_redis_key(large, eg_str("k"), text), 0);
  assert_int_equal(eg_fence_redis_key("n", eg_str(""), text), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(write_by_an_older_token_is_refused),
      TEST(write_keeps_the_mode_and_leaves_nothing),
      TEST(write_after_a_crash_goes_on),
      TEST(write_while_another_writes_is_locked),
      TEST(write_by_no_token_or_no_path_is_invalid),
      TEST(write_beside_what_is_no_token_is_corrupt),
      TEST(write_that_fails_says_why),
      TEST(redis_key_is_that_of_the_store),
  };
  return cmocka_run_group_tests_name("fence", tests, NULL, NULL);
}
