/* SPDX-License-Identifier: MIT
** eguard's parts that need no process: durations, words of the command line,
** URLs as others see them, JSON, kept output.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/top.h"

/* ------------------------------------------------------------ durations -- */

static void durations_are_read(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t ms;
  } good[] = {{"30s", 30000},
              {"5m", 300000},
              {"1h30m", 5400000},
              {"250ms", 250},
              {"90", 90000},
              {"0", 0},
              {"0s", 0},
              {"1.5s", 1500},
              {"0.0001s", 1},
              {"2d", 172800000},
              {"1w2d3h4m5s6ms", 788645006},
              {"1.5h", 5400000},
              {"876000h", INT64_C(3153600000000)}};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    int64_t ms = -1;
    assert_true(ec_parse_duration(good[i].text, &ms));
    assert_int_equal(ms, good[i].ms);
  }
}

static void what_is_no_duration_is_refused(void **state) {
  (void)state;
  static const char *const bad[] = {"",         "s",
                                    "5x",       "-5s",
                                    "5m5m",     "5s1h",
                                    " 5s",      "5s ",
                                    "5 s",      "1.s",
                                    ".5s",      "1e3",
                                    "5min",     "99999999999999999999",
                                    "1000000h", "5s30",
                                    "inf",      "0x10s",
                                    "5M",       "+5s"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    int64_t ms;
    if (ec_parse_duration(bad[i], &ms))
      fail_msg("\"%s\" is taken for a duration", bad[i]);
  }
}

static void durations_are_written(void **state) {
  (void)state;
  char text[EC_DURATION_TEXT];
  assert_string_equal(eg_format_duration(0, text), "0ms");
  assert_string_equal(eg_format_duration(1, text), "1us");
  assert_string_equal(eg_format_duration(999, text), "999us");
  assert_string_equal(eg_format_duration(1000, text), "1ms");
  assert_string_equal(eg_format_duration(250000, text), "250ms");
  assert_string_equal(eg_format_duration(4230000, text), "4.2s");
  assert_string_equal(eg_format_duration(59999999, text), "59.9s");
  assert_string_equal(eg_format_duration(5400000000, text), "1h 30m");
  assert_string_equal(eg_format_duration(INT64_C(90000000000), text), "1d 1h");
  assert_string_equal(eg_format_duration(-5, text), "0ms");
  assert_string_equal(ec_format_rfc3339(1767225600123456, text),
                      "2026-01-01T00:00:00.123Z");
  assert_string_equal(ec_format_rfc3339(0, text), "-");
}

/* ---------------------------------------------------------------- words -- */

static char message[400];

static bool parse(ec_options *o, const char *name, const char *words) {
  static char room[1000];
  static char *argv[64];
  int argc = 0;
  snprintf(room, sizeof room, "%s", words);
  for (char *w = strtok(room, " "); w != NULL; w = strtok(NULL, " "))
    argv[argc++] = w;
  argv[argc] = NULL;
  message[0] = '\0';
  return ec_parse(ec_find_command(name), argc, argv, o, message,
                  sizeof message);
}

static void words_become_options(void **state) {
  (void)state;
  ec_options o;
  assert_true(parse(&o, "run",
                    "--wait --timeout=5m --kill-after 3s --once -qv "
                    "--cache=10m --owner me k -- cmd --once -- x"));
  assert_true(o.wait_ms == EG_FOREVER && o.timeout_ms == 300000);
  assert_true(o.kill_after_ms == 3000 && o.once && o.quiet && o.verbose);
  assert_true(o.cache && o.cache_ms == 600000);
  assert_string_equal(o.owner, "me");
  assert_int_equal(o.operand_count, 1);
  assert_string_equal(o.operands[0], "k");
  assert_string_equal(o.command[0], "cmd");
  assert_string_equal(o.command[2], "--");
  assert_string_equal(o.command[3], "x");
  assert_null(o.command[4]);
  assert_true(parse(&o, "run", "k -- c"));
  assert_true(o.wait_ms == EC_UNSET && o.retry == EC_UNSET && !o.cache);
  assert_true(parse(&o, "ls", "-n5"));
  assert_int_equal(o.limit, 5);
  assert_true(parse(&o, "show", "-- --json"));
  assert_false(o.json);
  assert_string_equal(o.operands[0], "--json");
}

static void word_before_the_dashes_is_the_key(void **state) {
  (void)state;
  static const char *const keys[] = {"--once", "--wait=3s",  "-q",    "-",
                                     "run",    "--nonsense", "--help"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    ec_options o;
    char words[100];
    snprintf(words, sizeof words, "-v %s -- c", keys[i]);
    assert_true(parse(&o, "run", words));
    assert_string_equal(o.operands[0], keys[i]);
    assert_true(o.verbose && !o.once && !o.quiet && !o.help);
  }
}

static void message_says_what_was_wrong(void **state) {
  (void)state;
  static const char *const rows[][3] = {
      {"run", "--tiemout=3 k -- c", "did you mean --timeout?"},
      {"run", "k c", "no --"},
      {"run", "k --", "no COMMAND"},
      {"run", "-- c", "no KEY"},
      {"run", "a b -- c", "\"a\""},
      {"run", "k --once -- c", "eguard run --once k -- ..."},
      {"run", "--timeout=soon k -- c", "--timeout=soon"},
      {"run", "--owner k -- c", ""},
      {"ls", "--force", "no option --force"},
      {"show", "", "missing"},
      {"show", "a b", "too much"},
      {"ls", "-n", "needs a value"},
      {"ls", "--json=1", "takes no value"},
      {"run", "--cache-limit=1X k -- c", "a number of bytes"},
      {"history", "-n -1", "--limit=-1: that is not a whole number, 0"},
      {"metrics", "--top=1.5", "--top=1.5: that is not a whole number, 0"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    ec_options o;
    bool good = parse(&o, rows[i][0], rows[i][1]);
    if (*rows[i][2] == '\0') /* its value is the next word, the key is gone */
      assert_false(good && strcmp(o.operands[0], "k") != 0);
    else if (good || strstr(message, rows[i][2]) == NULL)
      fail_msg("%s %s: \"%s\"", rows[i][0], rows[i][1], message);
  }
}

static void table_is_in_order(void **state) {
  (void)state;
  for (size_t i = 0; i < ec_command_count; i++) {
    assert_ptr_equal(ec_find_command(ec_commands[i].name), &ec_commands[i]);
    assert_true(strlen(ec_commands[i].summary) > 0);
    for (size_t a = 0; a < ec_option_count; a++)
      for (size_t b = a + 1; b < ec_option_count; b++)
        if ((ec_option_table[a].of & ec_option_table[b].of &
             ec_commands[i].bit) != 0)
          assert_string_not_equal(ec_option_table[a].name,
                                  ec_option_table[b].name);
  }
}

/* ------------------------------------------------------------------ URLs -- */

static void password_is_not_in_a_public_url(void **state) {
  (void)state;
  char text[300], here[200], expected[300];
  static const char *const rows[][2] = {
      {"memory", "memory"},
      {"file:/a/b", "file:/a/b"},
      {"file:/a?sync=full&history=3", "file:/a?sync=full&history=3"},
      {"redis://u:secret@h:1/0", "redis://u@h:1/0"},
      {"redis://:secret@h", "redis://@h"},
      {"redis://h:1/0?password=secret&x=1", "redis://h:1/0?x=1"},
      {"etcd://h?x=1&token=secret", "etcd://h?x=1"},
      {"postgres://u:se@cret@h/d", "postgres://u@h/d"},
      {"redis://h:1/a:b@c", "redis://h:1/a:b@c"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    assert_string_equal(ec_public_url(rows[i][0], text, sizeof text),
                        rows[i][1]);
  assert_non_null(getcwd(here, sizeof here));
  snprintf(expected, sizeof expected, "file:%s/x?locks=.", here);
  assert_string_equal(ec_public_url("file:x?locks=.", text, sizeof text),
                      expected);
  assert_null(ec_public_url("file:/a/long/one", text, 8));
}

/* ----------------------------------------------------------------- hints -- */

static void proposed_command_can_be_pasted(void **state) {
  (void)state;
  char text[EC_HINT_TEXT], small[20];
  static const char *const rows[][4] = {
      {"k-1", NULL, NULL, "eguard reset k-1"},
      {"a key", "file:/a b?history=3", "N",
       "eguard reset --store='file:/a b?history=3' --name=N 'a key'"},
      {"it's", "redis://u:secret@h:1/0", "",
       "eguard reset --store=redis://u@h:1/0 --name='' 'it'\\''s'"},
      {"--once", NULL, NULL, "eguard reset -- --once"},
      {"\xc3\xa9\\", NULL, NULL, "eguard reset '\xc3\xa9\\'"},
      {"a\n'\\\xff", NULL, NULL, "eguard reset $'a\\x0a\\'\\\\\\xff'"},
  };
  unsetenv("EXECUTIONGUARD_STORE");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char *operands[] = {(char *)rows[i][0]};
    ec_options o = {
        .operands = operands, .store = rows[i][1], .name = rows[i][2]};
    assert_string_equal(ec_hint(&o, "reset", text, sizeof text), rows[i][3]);
    assert_true(strlen(ec_hint(&o, "reset", small, sizeof small)) < 20);
  }
  static char key[] = "k";
  char *operands[] = {key};
  ec_options o = {.operands = operands};
  setenv("EXECUTIONGUARD_STORE", "file:/there", 1);
  assert_string_equal(ec_hint(&o, "reset", text, sizeof text),
                      "eguard reset --store=file:/there k");
  unsetenv("EXECUTIONGUARD_STORE");
}

/* ------------------------------------------------------------------ JSON -- */

static char *json_of(void (*write)(ec_json *)) {
  char *text = NULL;
  size_t size;
  ec_json json;
  FILE *to = open_memstream(&text, &size);
  ec_json_begin(&json, to);
  write(&json);
  ec_json_end(&json);
  fclose(to);
  return text;
}

static void write_all_kinds(ec_json *json) {
  eg_bytes bad = {"a\xff\"\\\n\x01\x7f\xc3\xa9", 9};
  ec_json_open(json, NULL, '{');
  ec_json_bytes(json, "a", bad);
  ec_json_open(json, "b", '[');
  ec_json_integer(json, NULL, INT64_MIN);
  ec_json_unsigned(json, NULL, UINT64_MAX);
  ec_json_seconds(json, NULL, -1500000);
  ec_json_bool(json, NULL, true);
  ec_json_null(json, NULL);
  ec_json_open(json, NULL, '[');
  ec_json_close(json, ']');
  ec_json_time(json, NULL, 0);
  ec_json_close(json, ']');
  ec_json_close(json, '}');
}

static void write_values(ec_json *json) {
  static const char *const values[] = {"\x93\x01\xff\xcd\x01\x00",
                                       "\xcb\x3f\xf8\0\0\0\0\0\0",
                                       "\x82\x01\xa1x\xa1y\xc0",
                                       "\xd1\xff\x00",
                                       "\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
                                       "\xcb\x7f\xf0\0\0\0\0\0\0",
                                       "\x81\xc0\x01",
                                       "\x92\x01",
                                       "\xda\xff"};
  static const size_t sizes[] = {6, 9, 7, 3, 9, 9, 3, 2, 2};
  ec_json_open(json, NULL, '[');
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    eg_bytes value = {values[i], sizes[i]};
    ec_json_value(json, NULL, value);
  }
  ec_json_close(json, ']');
}

static void json_is_written(void **state) {
  (void)state;
  char *text = json_of(write_all_kinds);
  assert_string_equal(text,
                      "{\"a\":\"a\\ufffd\\\"\\\\\\n\\u0001\\u007f\xc3\xa9\","
                      "\"b\":[-9223372036854775808,18446744073709551615,"
                      "-1.500000,true,null,[],null]}\n");
  free(text);
  text = json_of(write_values);
  assert_string_equal(text, "[[1,-1,256],1.5,{\"1\":\"x\",\"y\":null},-256,"
                            "18446744073709551615,null,{\"?\":null},[1,null],"
                            "null]\n");
  free(text);
}

static void terminal_gets_no_control_characters(void **state) {
  (void)state;
  char text[80];
  eg_bytes bytes = {"a\x1b[31m\xc2\x9b\xc3\xa9\xff\n\0z", 14};
  assert_string_equal(eg_printable(bytes, text, sizeof text),
                      "a\\x1b[31m\\xc2\\x9b\xc3\xa9\\xff\\x0a\\x00z");
  eg_printable(bytes, text, 8);
  assert_true(strlen(text) < 8);
}

/* ---------------------------------------------------------------- output -- */

static void output_is_kept_in_its_order(void **state) {
  (void)state;
  ec_output o;
  eg_bytes value = {"", 0};
  ec_output_begin(&o, 1000);
  ec_output_add(&o, 1, "ab", 2);
  ec_output_add(&o, 1, "c", 1);
  ec_output_add(&o, 2, "", 0);
  ec_output_add(&o, 2, "x", 1);
  ec_output_add(&o, 1, "d", 1);
  assert_true(ec_output_end(&o, 200, &value));
  assert_true(ec_is_output(value));
  static const char expected[] = "\x83\xa6"
                                 "eguard\x01\xa6"
                                 "status\xcc\xc8\xa6"
                                 "output\xdd\0\0\0\x03"
                                 "\x92\x01\xdb\0\0\0\x03"
                                 "abc\x92\x02\xdb\0\0\0\x01x"
                                 "\x92\x01\xdb\0\0\0\x01"
                                 "d";
  assert_int_equal(value.len, sizeof expected - 1);
  assert_memory_equal(value.data, expected, value.len);
  ec_output_free(&o);
}

static void output_over_the_limit_is_not_kept(void **state) {
  (void)state;
  for (size_t limit = 0; limit < 60; limit++) {
    ec_output o;
    eg_bytes value = {"", 0};
    ec_output_begin(&o, limit);
    for (int i = 0; i < 4; i++)
      ec_output_add(&o, 1 + i % 2, "abcdef", 6);
    bool kept = ec_output_end(&o, 0, &value);
    assert_false(kept);
    ec_output_free(&o);
  }
}

static void what_is_no_output_is_not_replayed(void **state) {
  (void)state;
  ec_output o;
  eg_bytes value = {"", 0};
  int status;
  bool written;
  ec_output_begin(&o, 1000);
  assert_true(ec_output_end(&o, 3, &value));
  assert_true(ec_output_replay(value, &status, &written));
  assert_true(written);
  assert_int_equal(status, 3);
  for (size_t n = 0; n < value.len; n++) {
    eg_bytes cut = {value.data, n};
    assert_false(ec_output_replay(cut, &status, &written));
  }
  o.bytes[value.len - 1] = 9; /* more chunks than there are */
  assert_false(ec_output_replay(value, &status, &written));
  ec_output_free(&o);
}

/* -------------------------------------------------------------- waiters -- */

static void waiters_are_counted_by_the_kernels_list(void **state) {
  (void)state;
  static char list[] = "1: POSIX  ADVISORY  WRITE 1360 fe:00:77 0 EOF\n"
                       "8: FLOCK  ADVISORY  WRITE 1200 fe:00:77 0 EOF\n"
                       "8: -> FLOCK  ADVISORY  WRITE 1314 fe:00:77 0 EOF\n"
                       "8:  -> FLOCK  ADVISORY  WRITE 1316 fe:00:77 0 EOF\n"
                       "9: FLOCK  ADVISORY  WRITE -1 00:2a:78 0 EOF\n"
                       "nonsense\n";
  FILE *file = fmemopen(list, sizeof list - 1, "r");
  assert_non_null(file);
  assert_int_equal(ec_count_waiters(file, 77), 2);
  assert_int_equal(ec_count_waiters(file, 78), 0);
  assert_int_equal(ec_count_waiters(file, 7), -1);
  fclose(file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(durations_are_read),
      cmocka_unit_test(what_is_no_duration_is_refused),
      cmocka_unit_test(durations_are_written),
      cmocka_unit_test(words_become_options),
      cmocka_unit_test(word_before_the_dashes_is_the_key),
      cmocka_unit_test(message_says_what_was_wrong),
      cmocka_unit_test(table_is_in_order),
      cmocka_unit_test(password_is_not_in_a_public_url),
      cmocka_unit_test(proposed_command_can_be_pasted),
      cmocka_unit_test(json_is_written),
      cmocka_unit_test(terminal_gets_no_control_characters),
      cmocka_unit_test(output_is_kept_in_its_order),
      cmocka_unit_test(output_over_the_limit_is_not_kept),
      cmocka_unit_test(waiters_are_counted_by_the_kernels_list),
      cmocka_unit_test(what_is_no_output_is_not_replayed),
  };
  return cmocka_run_group_tests_name("eguard_units", tests, NULL, NULL);
}
