/* SPDX-License-Identifier: MIT
** A summary as lines of text: a box with the counts, then the slowest, the
** most blocked and the failing keys with bars and sparklines.
**
** What a narrow terminal has no room for goes in this order: the remark, the
** sparkline, the bar, the end of the key.
*/
#include "executionguard_view.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
  LEAST_INSIDE = 46, /* columns of a box, where there is room */
  NARROW = 60,       /* no sparklines below */
  WIDE = 90,         /* remarks from here on */
  BAR_LEAST = 8,
  BAR_MOST = 30,
  NUMBER = 9,
  NUMBER_TEXT = 24
};

typedef struct page {
  const eg_summary *summary;
  const eg_view *view;
  eg_put_line put;
  void *ctx;
  bool over; /* nobody reads on */
} page;

static void end_line(page *p, const eg_pen *pen) {
  if (!p->over)
    p->over = !p->put(p->ctx, pen->text);
}

/* ----------------------------------------------------------------- box -- */

typedef struct box {
  page *page;
  eg_box_row rows[24 + EG_BOX_MORE];
  size_t n;
  int inside; /* columns between the sides, without a blank at each */
} box;

static void add_row(box *b, const char *label, uint64_t n) {
  b->rows[b->n++] = (eg_box_row){label, n, false};
}

static void add_heading(box *b, const char *label) {
  b->rows[b->n++] = (eg_box_row){label, 0, true};
}

static void add_rule(box *b) { b->rows[b->n++] = (eg_box_row){NULL, 0, true}; }

static void add_runs(box *b, const eg_stats *process) {
  const eg_census *c = &b->page->summary->census;
  add_rule(b);
  if (process != NULL) {
    add_heading(b, "Global Statistics (this process)");
    add_row(b, "  Total Executions", process->executions);
    add_row(b, "  Blocked", process->blocked);
    add_row(b, "  Cached", process->cached);
    add_row(b, "  Timed Out", process->timed_out);
    add_row(b, "  Failed", process->failed);
    return;
  }
  add_heading(b, "All Runs (all processes)");
  add_row(b, "  Total Executions", c->executions);
  add_row(b, "  Blocked", c->blocked);
  add_row(b, "  Cached", c->cached);
  add_row(b, "  Timed Out", c->timed_out);
  add_row(b, "  Failed", c->failed);
  add_row(b, "  Lost", c->lost);
  add_row(b, "  Held Now", c->held);
  if (c->only_locked > 0)
    add_row(b, "    Without A Record", c->only_locked);
}

static void fill_box(box *b, const eg_stats *process, const eg_box_row *more,
                     size_t n) {
  const eg_census *c = &b->page->summary->census;
  add_row(b, "Total Records", c->total);
  add_rule(b);
  add_heading(b, "Status Distribution");
  static const char *const labels[EG_RUN_COUNT] = {
      "  Idle", "  Running", "  Completed", "  TimedOut", "  Failed"};
  for (int i = 0; i < EG_RUN_COUNT; i++)
    add_row(b, labels[i], c->by_run[i]);
  if (c->corrupt > 0)
    add_row(b, "  Cannot Be Read", c->corrupt);
  add_runs(b, process);
  if (n > 0)
    add_rule(b);
  for (size_t i = 0; i < n && i < EG_BOX_MORE; i++)
    b->rows[b->n++] = more[i];
}

static int number_of(const eg_box_row *row, char text[NUMBER_TEXT]) {
  if (row->heading)
    return text[0] = '\0', 0;
  return snprintf(text, NUMBER_TEXT, "%" PRIu64, row->n);
}

/* As wide as the widest row, with two columns between label and number. */
static void measure(box *b) {
  char number[NUMBER_TEXT];
  int most = b->page->view->columns - 4, need = LEAST_INSIDE;
  for (size_t i = 0; i < b->n; i++) {
    const eg_box_row *row = &b->rows[i];
    int width = number_of(row, number);
    if (row->label != NULL)
      width += (int)strlen(row->label) + 2;
    need = width > need ? width : need;
  }
  b->inside = need < most ? need : most;
}

static void draw_rule(const box *b, const char *drawn) {
  eg_pen pen;
  const eg_view *view = b->page->view;
  char ends[2][4] = {"+", "+"};
  if (!view->ascii) {
    snprintf(ends[0], 4, "%.3s", drawn);
    snprintf(ends[1], 4, "%.3s", drawn + 3);
  }
  eg_pen_begin(&pen, view);
  eg_pen_text(&pen, ends[0]);
  for (int i = 0; i < b->inside + 2; i++)
    eg_pen_text(&pen, view->ascii ? "=" : "═");
  eg_pen_text(&pen, ends[1]);
  end_line(b->page, &pen);
}

static void draw_inside(const box *b, const char *label, int indent,
                        const char *number, int width) {
  eg_pen pen;
  const char *side = b->page->view->ascii ? "|" : "║";
  eg_pen_begin(&pen, b->page->view);
  eg_pen_text(&pen, side);
  eg_pen_to(&pen, 2 + indent);
  int room = b->inside - indent - width - (width > 0 ? 1 : 0);
  eg_pen_bytes(&pen, eg_str(label), room);
  eg_pen_to(&pen, 2 + b->inside - width);
  eg_pen_text(&pen, number);
  eg_pen_to(&pen, 3 + b->inside);
  eg_pen_text(&pen, side);
  end_line(b->page, &pen);
}

static void draw_box(const box *b) {
  static const char title[] = "EXECUTION GUARD SUMMARY";
  char number[NUMBER_TEXT];
  int before = (b->inside - (int)sizeof title + 1) / 2;
  draw_rule(b, "╔╗");
  draw_inside(b, title, before > 0 ? before : 0, "", 0);
  draw_rule(b, "╠╣");
  for (size_t i = 0; i < b->n; i++) {
    const eg_box_row *row = &b->rows[i];
    int width = number_of(row, number);
    if (row->label == NULL)
      draw_rule(b, "╠╣");
    else
      draw_inside(b, row->label, 0, number, width);
  }
  draw_rule(b, "╚╝");
}

/* ---------------------------------------------------------------- keys -- */

/* A list of keys: what the bars are of, the number at each, and what else
** there is to say. */
typedef struct chart {
  page *page;
  const char *heading;
  const eg_summary_key *keys;
  size_t n;
  eg_colour colour;
  double (*size)(const eg_summary_key *key);
  void (*number)(const eg_summary_key *key, char text[EG_DURATION_TEXT]);
  void (*remark)(eg_pen *pen, const eg_summary_key *key);
} chart;

static double slow_size(const eg_summary_key *key) {
  return (double)key->times.p95_us;
}

static void slow_number(const eg_summary_key *key,
                        char text[EG_DURATION_TEXT]) {
  eg_format_duration(key->times.p95_us, text);
}

static void slow_remark(eg_pen *pen, const eg_summary_key *key) {
  char text[80], half[EG_DURATION_TEXT];
  snprintf(text, sizeof text, "%" PRIu64 " run%s, half within %s",
           key->times.runs, key->times.runs == 1 ? "" : "s",
           eg_format_duration(key->times.p50_us, half));
  eg_pen_text(pen, text);
}

static double block_size(const eg_summary_key *key) {
  return (double)key->blocked;
}

static void block_number(const eg_summary_key *key,
                         char text[EG_DURATION_TEXT]) {
  snprintf(text, EG_DURATION_TEXT, "%" PRIu64, key->blocked);
}

static void block_remark(eg_pen *pen, const eg_summary_key *key) {
  char text[40];
  snprintf(text, sizeof text, "%" PRIu32 " run%s", key->count,
           key->count == 1 ? "" : "s");
  eg_pen_text(pen, text);
}

static double fail_size(const eg_summary_key *key) {
  return (double)key->failed + key->timed_out + key->lost;
}

static void fail_number(const eg_summary_key *key,
                        char text[EG_DURATION_TEXT]) {
  snprintf(text, EG_DURATION_TEXT, "%.0f/%" PRIu32, fail_size(key),
           key->count);
}

static void fail_remark(eg_pen *pen, const eg_summary_key *key) {
  eg_bytes error = key->error; /* its first line */
  const char *end = error.len > 0 ? memchr(error.data, '\n', error.len) : NULL;
  if (end != NULL)
    error.len = (size_t)(end - (const char *)error.data);
  if (error.len > 0)
    eg_pen_bytes(pen, error, pen->view->columns);
  else
    eg_pen_text(pen, eg_run_word(key->status));
}

static int width_of_keys(const chart *c) {
  int most = 3, bound = c->page->view->columns / 3;
  for (size_t i = 0; i < c->n; i++) {
    int width = eg_columns(c->page->view, c->keys[i].key);
    most = width > most ? width : most;
  }
  return most < bound ? most : bound;
}

static size_t most_beats(const chart *c) {
  size_t most = 0;
  for (size_t i = 0; i < c->n; i++)
    most = c->keys[i].last_n > most ? c->keys[i].last_n : most;
  return most;
}

static void draw_key(const chart *c, const eg_summary_key *key, int key_width,
                     int bar, int spark) {
  eg_pen pen;
  char number[EG_DURATION_TEXT];
  eg_pen_begin(&pen, c->page->view);
  eg_pen_to(&pen, 2);
  eg_pen_bytes(&pen, key->key, key_width);
  eg_pen_to(&pen, 3 + key_width);
  c->number(key, number);
  eg_pen_right(&pen, number, NUMBER);
  if (bar > 0) {
    eg_pen_to(&pen, pen.at + 2);
    eg_pen_colour(&pen, c->colour);
    eg_pen_bar(&pen, c->size(key) / c->size(c->keys), bar, false);
    eg_pen_colour(&pen, EG_COLOUR_NONE);
  }
  if (spark > 0) {
    int from = pen.at + 2;
    eg_pen_to(&pen, from + spark - (int)key->last_n);
    eg_pen_spark(&pen, key->last, key->last_n);
  }
  if (c->page->view->columns >= WIDE) {
    eg_pen_to(&pen, pen.at + 2);
    c->remark(&pen, key);
  }
  while (!c->page->view->colours && pen.len > 0 &&
         pen.text[pen.len - 1] == ' ')
    pen.text[--pen.len] = '\0';
  end_line(c->page, &pen);
}

static void draw_chart(const chart *c) {
  eg_pen pen;
  int columns = c->page->view->columns;
  if (c->n == 0)
    return;
  int key_width = width_of_keys(c);
  int spark = columns >= NARROW ? (int)most_beats(c) : 0;
  int bar = columns - 2 - key_width - 1 - NUMBER - 2 -
            (spark > 0 ? spark + 2 : 0);
  if (columns >= WIDE)
    bar -= 30; /* the remark */
  bar = bar > BAR_MOST ? BAR_MOST : bar < BAR_LEAST ? 0 : bar;
  eg_pen_begin(&pen, c->page->view);
  end_line(c->page, &pen);
  eg_pen_text(&pen, c->heading);
  end_line(c->page, &pen);
  for (size_t i = 0; i < c->n; i++)
    draw_key(c, &c->keys[i], key_width, bar, spark);
}

void eg_summary_draw(const eg_summary *summary, const eg_view *view,
                     const eg_stats *process, const eg_box_row *more, size_t n,
                     eg_put_line put, void *ctx) {
  page p = {summary, view, put, ctx, false};
  box b = {.page = &p};
  fill_box(&b, process, more, n);
  measure(&b);
  draw_box(&b);
  chart slowest = {&p,
                   "Slowest keys (95% of their runs within)",
                   summary->slowest,
                   summary->n_slowest,
                   EG_COLOUR_CYAN,
                   slow_size,
                   slow_number,
                   slow_remark};
  chart blocked = {&p,
                   "Most blocked keys (calls that were refused)",
                   summary->blocked,
                   summary->n_blocked,
                   EG_COLOUR_YELLOW,
                   block_size,
                   block_number,
                   block_remark};
  chart failing = {&p,
                   "Failing keys (of all their runs)",
                   summary->failing,
                   summary->n_failing,
                   EG_COLOUR_RED,
                   fail_size,
                   fail_number,
                   fail_remark};
  draw_chart(&slowest);
  draw_chart(&blocked);
  draw_chart(&failing);
}
