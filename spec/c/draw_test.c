/* SPDX-License-Identifier: MIT
** Text in columns, bars, sparklines.
*/
#include "support.h"

#include "executionguard_view.h"

#include <stdio.h>

static const eg_view wide = {.columns = 80},
                     ascii = {.columns = 80, .ascii = true};

static void assert_drawn(const eg_pen *pen, const char *text, int columns) {
  assert_string_equal(pen->text, text);
  assert_int_equal(pen->at, columns);
  assert_int_equal(pen->len, strlen(text));
}

static void assert_bytes(const eg_view *view, const char *given, int columns,
                         const char *text, int used) {
  eg_pen pen;
  eg_pen_begin(&pen, view);
  eg_pen_bytes(&pen, eg_str(given), columns);
  assert_drawn(&pen, text, used);
}

static void text_is_cut_to_its_columns(void **state) {
  (void)state;
  assert_bytes(&wide, "abcdef", 6, "abcdef", 6);
  assert_bytes(&wide, "abcdef", 5, "abcd…", 5);
  assert_bytes(&wide, "abcdef", 1, "…", 1);
  assert_bytes(&wide, "abcdef", 0, "", 0);
  assert_bytes(&wide, "abcdef", -1, "", 0);
  assert_bytes(&ascii, "abcdef", 5, "abcd~", 5);
  assert_bytes(&wide, "", 5, "", 0);
}

static void text_counts_columns_not_bytes(void **state) {
  (void)state;
  assert_bytes(&wide, "ünï", 3, "ünï", 3);
  assert_bytes(&wide, "漢字", 4, "漢字", 4);
  assert_bytes(&wide, "漢字", 3, "漢…", 3);
  assert_bytes(&wide, "漢字", 2, "…", 1); /* half of one is none */
  assert_bytes(&wide, "e\xcc\x81x", 2, "e\xcc\x81x", 2); /* combining */
  assert_bytes(&ascii, "ün漢e\xcc\x81", 9, "?n?e", 4);
}

static void text_gives_no_orders_to_a_terminal(void **state) {
  (void)state;
  static const char *const orders[][2] = {
      {"\033[31m", "\\x1b[31m"},
      {"\a\b\r\n\t\177", "\\x07\\x08\\x0d\\x0a\\x09\\x7f"},
      {"\xc2\x9b", "\\xc2\\x9b"},          /* C1: another ESC [ */
      {"\xe2\x80\xae", "\\xe2\\x80\\xae"}, /* right to left from here */
      {"\xff\xfe", "\\xff\\xfe"},          /* no UTF-8 */
      {"\xc0\xaf", "\\xc0\\xaf"},          /* overlong */
      {"\xe0\x80\xaf", "\\xe0\\x80\\xaf"}, /* the same */
      {"\xed\xa0\x80", "\\xed\\xa0\\x80"}, /* half of a pair */
      {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* beyond the end */
      {"a\xe2\x82", "a\\xe2\\x82"},                 /* breaks off */
      {"a\xe2\x82"
       "b",
       "a\\xe2\\x82"
       "b"},
  };
  for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
    char text[80];
    assert_bytes(&wide, orders[i][0], 80, orders[i][1],
                 (int)strlen(orders[i][1]));
    assert_string_equal(eg_printable(eg_str(orders[i][0]), text, sizeof text),
                        orders[i][1]);
  }
}

static void printable_when_there_is_little_room_is_cut(void **state) {
  (void)state;
  char text[8];
  assert_string_equal(eg_printable(eg_str("abcdef"), text, sizeof text),
                      "abc");
  assert_string_equal(eg_printable((eg_bytes){NULL, 0}, text, sizeof text),
                      "");
}

static void no_line_is_wider_than_its_view(void **state) {
  (void)state;
  const eg_view narrow = {.columns = 4, .colours = true};
  const eg_beat beats[3] = {{EG_FAILED, 0}, {EG_OK, 1}, {EG_TIMEOUT, 9}};
  eg_pen pen;
  eg_pen_begin(&pen, &narrow);
  eg_pen_text(&pen, "ab");
  eg_pen_to(&pen, 3);
  eg_pen_bar(&pen, 1, 9, true);
  eg_pen_right(&pen, "abc", 9);
  eg_pen_spark(&pen, beats, 0);
  eg_pen_to(&pen, 99);
  assert_drawn(&pen, "ab █", 4);
  eg_pen_begin(&pen, &wide);
  for (int i = 0; i < 5000; i++)
    eg_pen_colour(&pen, EG_COLOUR_RED);
  assert_drawn(&pen, "", 0);
  eg_pen_begin(&pen, &narrow);
  for (int i = 0; i < 5000; i++)
    eg_pen_colour(&pen, EG_COLOUR_RED);
  assert_true(pen.len < sizeof pen.text);
}

static void assert_bar(const eg_view *view, double share, bool ground,
                       const char *text) {
  eg_pen pen;
  eg_pen_begin(&pen, view);
  eg_pen_bar(&pen, share, 4, ground);
  assert_drawn(&pen, text, 4);
}

static void bars_are_as_long_as_their_share(void **state) {
  (void)state;
  double zero = 0;
  assert_bar(&wide, 0, false, "    ");
  assert_bar(&wide, 0, true, "░░░░");
  assert_bar(&wide, 1, true, "████");
  assert_bar(&wide, 7, true, "████");
  assert_bar(&wide, -1, true, "░░░░");
  assert_bar(&wide, zero / zero, true, "░░░░");
  assert_bar(&wide, 0.5, true, "██░░");
  assert_bar(&wide, 0.625, true, "██▌░");
  assert_bar(&wide, 0.00001, true, "▏░░░"); /* a little is not nothing */
  assert_bar(&ascii, 0.5, true, "##..");
  assert_bar(&ascii, 0.00001, false, "#   ");
}

static void sparklines_show_how_long_and_what_failed(void **state) {
  (void)state;
  const eg_beat beats[] = {{EG_OK, 0},   {EG_OK, 50},        {EG_FAILED, 900},
                           {EG_OK, 100}, {EG_TIMEOUT, 9000}, {EG_OK, 99}};
  eg_pen pen;
  eg_pen_begin(&pen, &wide);
  eg_pen_spark(&pen, beats, 6);
  assert_drawn(&pen, "▁▄×█!█", 6);
  eg_pen_begin(&pen, &ascii);
  eg_pen_spark(&pen, beats, 6);
  assert_drawn(&pen, ".=x@!@", 6);
}

static void numbers_stand_at_the_right(void **state) {
  (void)state;
  eg_pen pen;
  eg_pen_begin(&pen, &wide);
  eg_pen_right(&pen, "12", 4);
  eg_pen_text(&pen, "|");
  eg_pen_right(&pen, "12345", 3);
  assert_drawn(&pen, "  12|12…", 8);
}

static void colours_are_for_those_who_want_them(void **state) {
  (void)state;
  eg_view coloured = {.columns = 80, .colours = true};
  eg_pen pen;
  eg_pen_begin(&pen, &coloured);
  eg_pen_colour(&pen, eg_colour_of(EG_RUN_FAILED));
  eg_pen_text(&pen, "x");
  eg_pen_colour(&pen, EG_COLOUR_NONE);
  assert_drawn(&pen, "\033[31mx\033[0m", 1);
}

static void ends_are_statuses(void **state) {
  (void)state;
  assert_int_equal(eg_run_of(EG_OK), EG_RUN_COMPLETED);
  assert_int_equal(eg_run_of(EG_TIMEOUT), EG_RUN_TIMEDOUT);
  assert_int_equal(eg_run_of(EG_FAILED), EG_RUN_FAILED);
}

/* ------------------------------------------------------------- summary -- */

static bool count_line(void *ctx, const char *line) {
  (void)line;
  return ++*(int *)ctx < 5;
}

static void summary_ends_when_nobody_reads_on(void **state) {
  spec_world *w = *state;
  eg_summary summary;
  int lines = 0;
  spec_run(w, "k", spec_done());
  assert_int_equal(eg_summary_take(w->guard, 3, &summary, &w->error), EG_OK);
  assert_int_equal(summary.census.total, 1);
  eg_summary_draw(&summary, &wide, NULL, NULL, 0, count_line, &lines);
  assert_int_equal(lines, 5);
  eg_summary_free(&summary);
  eg_summary_free(&summary);
}

static void summary_keeps_the_largest_in_order(void **state) {
  spec_world *w = *state;
  eg_summary summary;
  char key[16];
  for (int i = 0; i < 40; i++) {
    eg_grant grant;
    eg_reply reply;
    eg_outcome outcome = spec_done();
    snprintf(key, sizeof key, "k%02d", i * 7 % 40);
    eg_reply_init(&reply);
    assert_int_equal(eg_acquire(w->guard, eg_str(key), EG_WANT_RUN, NULL, 0,
                                &grant, &reply),
                     EG_OK);
    spec_advance_ms(1 + i * 7 % 40 / 2); /* two of each length */
    assert_int_equal(
        eg_commit(w->guard, eg_str(key), &grant, &outcome, NULL, &w->error),
        EG_OK);
    eg_reply_free(&reply);
  }
  assert_int_equal(eg_summary_take(w->guard, 5, &summary, &w->error), EG_OK);
  assert_int_equal(summary.n_slowest, 5);
  assert_int_equal(summary.n_failing, 0);
  static const char *const names[] = {"k38", "k39", "k36", "k37", "k34"};
  for (int i = 0; i < 5; i++)
    assert_memory_equal(summary.slowest[i].key.data, names[i], 3);
  eg_summary_free(&summary);
  assert_int_equal(
      eg_summary_take(w->guard, EG_SUMMARY_MAX + 1, &summary, &w->error),
      EG_INVALID);
  eg_summary_free(&summary);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(text_is_cut_to_its_columns),
      cmocka_unit_test(text_counts_columns_not_bytes),
      cmocka_unit_test(text_gives_no_orders_to_a_terminal),
      cmocka_unit_test(printable_when_there_is_little_room_is_cut),
      cmocka_unit_test(no_line_is_wider_than_its_view),
      cmocka_unit_test(bars_are_as_long_as_their_share),
      cmocka_unit_test(sparklines_show_how_long_and_what_failed),
      cmocka_unit_test(numbers_stand_at_the_right),
      cmocka_unit_test(colours_are_for_those_who_want_them),
      cmocka_unit_test(ends_are_statuses),
      cmocka_unit_test_setup_teardown(summary_ends_when_nobody_reads_on,
                                      spec_begin, spec_end),
      cmocka_unit_test_setup_teardown(summary_keeps_the_largest_in_order,
                                      spec_begin, spec_end),
  };
  return cmocka_run_group_tests_name("draw", tests, NULL, NULL);
}
