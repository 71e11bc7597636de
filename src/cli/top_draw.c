/* SPDX-License-Identifier: MIT
** The picture of eguard top, a line at a time.
**
** What a narrow terminal has no room for goes in this order: the sparkline,
** the counts, the bar, who holds it.
*/
#include "cli/top.h"

#include <inttypes.h>
#include <string.h>

/* Columns, blanks between them included; 0: there is no room for it. */
typedef struct layout {
  int key, status, time, bar, owner, waiters, runs, failed, last;
} layout;

enum { BAR = 10 }; /* columns */

static int width_of_keys(const ec_frame *f, size_t n) {
  int most = 3, bound = f->view->columns / 3;
  for (size_t i = f->from; i < f->from + n; i++) {
    int width = eg_columns(f->view, ec_row_key(&f->rows->list[i]));
    most = width > most ? width : most;
  }
  return most < bound ? most : bound;
}

static layout lay_out(const ec_frame *f, size_t n) {
  int columns = f->view->columns;
  layout l = {.key = width_of_keys(f, n) + 4, .status = 11, .time = 10};
  l.bar = columns >= 60 ? BAR + 8 : 0;
  l.waiters = l.runs = l.failed = columns >= 100 ? 8 : 0;
  l.last = columns >= 120 ? EG_SUMMARY_LAST + 2 : 0;
  l.owner = columns - l.key - l.status - l.time - l.bar - l.waiters - l.runs -
            l.failed - l.last;
  l.owner = l.owner < 8 ? 0 : l.owner;
  return l;
}

/* ---------------------------------------------------------------- cells -- */

static void cell(eg_pen *pen, const char *text, int width) {
  int from = pen->at;
  if (width == 0)
    return;
  eg_pen_bytes(pen, eg_str(text), width - 1);
  eg_pen_to(pen, from + width);
}

static void number(eg_pen *pen, int64_t n, int width) {
  char text[24] = "-";
  if (width == 0)
    return;
  if (n >= 0)
    snprintf(text, sizeof text, "%" PRId64, n);
  eg_pen_right(pen, text, width - 2);
  eg_pen_to(pen, pen->at + 2);
}

/* What its holder says of it. */
static void reported(eg_pen *pen, double share) {
  char text[16];
  eg_pen_colour(pen, EG_COLOUR_GREEN);
  eg_pen_bar(pen, share, BAR, true);
  eg_pen_colour(pen, EG_COLOUR_NONE);
  snprintf(text, sizeof text, "%d%%", (int)(share * 100));
  eg_pen_right(pen, text, 6);
}

/* How far it is, if it takes as long as half of its runs before did; more than
** that is said as such. */
static void guessed(eg_pen *pen, double share) {
  char text[16] = ">9x";
  eg_pen_colour(pen, share > 2 ? EG_COLOUR_YELLOW : EG_COLOUR_CYAN);
  eg_pen_bar(pen, share, BAR, true);
  eg_pen_colour(pen, EG_COLOUR_DIM);
  if (share < 10)
    snprintf(text, sizeof text, "~%.0f%%", share * 100);
  eg_pen_right(pen, text, 6);
  eg_pen_colour(pen, EG_COLOUR_NONE);
}

static void progress(eg_pen *pen, const ec_row *row, int width) {
  int from = pen->at;
  if (width == 0)
    return;
  if (row->progress >= 0)
    reported(pen, row->progress);
  else if (row->locked && row->status == EG_RUN_RUNNING && row->usual_us > 0)
    guessed(pen, (double)row->for_us / (double)row->usual_us);
  eg_pen_to(pen, from + width);
}

static const char *word_of(const ec_row *row) {
  if (row->locked && row->status != EG_RUN_RUNNING)
    return "locked";
  return eg_run_word(row->status);
}

static void draw_row(const layout *l, const ec_row *row, bool selected,
                     eg_pen *pen) {
  char text[EG_DURATION_TEXT], owner[400] = "";
  eg_run run = row->status;
  eg_pen_text(pen, selected ? "> " : "  ");
  int from = pen->at;
  eg_pen_bytes(pen, ec_row_key(row), l->key - 4);
  eg_pen_to(pen, from + l->key - 2);
  eg_pen_colour(pen, eg_colour_of(run));
  cell(pen, word_of(row), l->status);
  eg_pen_colour(pen, EG_COLOUR_NONE);
  cell(pen, eg_format_duration(row->for_us, text), l->time);
  progress(pen, row, l->bar);
  number(pen, row->waiters, l->waiters);
  number(pen, row->count, l->runs);
  number(pen, row->failed, l->failed);
  if (row->locked)
    ec_describe_owner(&row->owner, owner, sizeof owner);
  cell(pen, owner, l->owner);
  if (l->last > 0)
    eg_pen_spark(pen, row->last, row->last_n);
}

/* ---------------------------------------------------------------- lines -- */

typedef struct canvas {
  const ec_frame *frame;
  FILE *to;
  int line;
} canvas;

/* On a screen the rest of the line is wiped, and the last has no end: it would
** scroll. */
static void put(canvas *c, const eg_pen *pen) {
  bool screen = c->frame->lines > 0;
  size_t n = pen->len;
  if (screen && c->line > 0)
    fputs("\r\n", c->to);
  while (!c->frame->view->colours && n > 0 && pen->text[n - 1] == ' ')
    n--;
  fwrite(pen->text, 1, n, c->to);
  fputs(screen ? "\033[K" : "\n", c->to);
  c->line++;
}

static void put_title(canvas *c, eg_pen *pen) {
  const ec_frame *f = c->frame;
  char text[200], now[EG_DURATION_TEXT];
  const ec_rows *r = f->rows;
  snprintf(text, sizeof text,
           "%" PRIu64 " held, %" PRIu64 " failed, %" PRIu64 " records  by %s",
           r->held, r->failing, r->records, ec_sort_word(r->sort));
  const char *time = strchr(ec_format_local(eg_wall_us(), now), ' ');
  eg_pen_begin(pen, f->view);
  if (f->view->columns >= 80) {
    eg_pen_text(pen, time != NULL ? time + 1 : "");
    eg_pen_to(pen, pen->at + 2);
  }
  eg_pen_text(pen, text);
  if (r->filter != NULL && *r->filter != '\0') {
    eg_pen_text(pen, "  only *");
    eg_pen_text(pen, r->filter);
    eg_pen_text(pen, "*");
  }
  if (f->view->columns >= 80) {
    eg_pen_text(pen, "  ");
    eg_pen_text(pen, f->store);
  }
  put(c, pen);
}

static void put_heading(canvas *c, const layout *l, eg_pen *pen) {
  eg_pen_begin(pen, c->frame->view);
  eg_pen_colour(pen, EG_COLOUR_REVERSE);
  eg_pen_text(pen, "  ");
  cell(pen, "KEY", l->key - 2);
  cell(pen, "STATUS", l->status);
  cell(pen, "FOR", l->time);
  cell(pen, "PROGRESS", l->bar);
  if (l->runs > 0) {
    eg_pen_right(pen, "WAIT", l->waiters - 2);
    eg_pen_right(pen, "RUNS", l->runs);
    eg_pen_right(pen, "FAILED", l->failed);
    eg_pen_text(pen, "  ");
  }
  cell(pen, "HELD BY", l->owner);
  cell(pen, "LAST", l->last);
  if (c->frame->lines > 0)
    eg_pen_to(pen, c->frame->view->columns);
  eg_pen_colour(pen, EG_COLOUR_NONE);
  put(c, pen);
}

static void put_foot(canvas *c, eg_pen *pen) {
  const ec_frame *f = c->frame;
  eg_pen_begin(pen, f->view);
  if (f->note == NULL) {
    eg_pen_colour(pen, EG_COLOUR_DIM);
    eg_pen_text(pen, f->rows->all
                         ? "q quit  s sort  / filter  a only held  r release"
                         : "q quit  s sort  / filter  a all keys  r release");
  } else {
    eg_pen_colour(pen, f->bad ? EG_COLOUR_RED : EG_COLOUR_NONE);
    eg_pen_text(pen, f->note);
  }
  eg_pen_colour(pen, EG_COLOUR_NONE);
  put(c, pen);
}

/* What there is besides the rows.  A screen of few lines has the rows first,
** but for a note: that may be a question. */
typedef struct frame_parts {
  bool title, heading, foot;
} frame_parts;

static frame_parts parts_of(const ec_frame *f) {
  bool foot = f->lines > 2 || (f->lines > 0 && f->note != NULL);
  return (frame_parts){.title = f->lines > (foot ? 1 : 0),
                       .heading = f->lines == 0 || f->lines > 3,
                       .foot = foot};
}

size_t ec_frame_rows(const ec_frame *f) {
  frame_parts has = parts_of(f);
  size_t left = f->rows->n - f->from;
  int room = f->lines - has.title - has.heading - has.foot;
  if (f->lines == 0)
    return left;
  if (room < 1)
    return 0;
  return left < (size_t)room ? left : (size_t)room;
}

void ec_frame_draw(const ec_frame *f, FILE *to) {
  canvas c = {.frame = f, .to = to};
  eg_pen pen;
  size_t n = ec_frame_rows(f);
  layout l = lay_out(f, n);
  frame_parts has = parts_of(f);
  if (f->lines > 0)
    fputs("\033[H", to);
  if (has.title)
    put_title(&c, &pen);
  if (has.heading)
    put_heading(&c, &l, &pen);
  for (size_t i = f->from; i < f->from + n; i++) {
    eg_pen_begin(&pen, f->view);
    draw_row(&l, &f->rows->list[i], f->lines > 0 && i == f->selected, &pen);
    put(&c, &pen);
  }
  if (f->lines == 0)
    return;
  for (eg_pen_begin(&pen, f->view); c.line < f->lines - has.foot;)
    put(&c, &pen);
  if (has.foot)
    put_foot(&c, &pen);
}
