/* SPDX-License-Identifier: MIT
** Runs on a time axis: a line a key, a column a stretch of time.
**
**   backup  █   █   ×   █
**   import    ███████ !!!!!
**           ┬─────────┬────
**           10:00     10:30
**
** Of what fell into one column, the worst is shown.
*/
#include "cli/cli.h"

#include <string.h>
#include <time.h>

enum { KEYS = 20, MOST = 1000, LABEL = 20 };

typedef struct axis {
  int64_t from_us, to_us;
  int columns;
} axis;

static int worse(eg_status status) {
  return status == EG_OK ? 1 : status == EG_TIMEOUT ? 2 : 3;
}

static int column_of(const axis *a, int64_t us) {
  double share = (double)(us - a->from_us) / (double)(a->to_us - a->from_us);
  int column = (int)(share * a->columns);
  return column < 0 ? 0 : column >= a->columns ? a->columns - 1 : column;
}

static bool same(eg_bytes a, eg_bytes b) {
  return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

static void put(const eg_pen *pen, FILE *to) {
  size_t n = pen->len;
  while (n > 0 && pen->text[n - 1] == ' ')
    n--;
  fwrite(pen->text, 1, n, to);
  putc('\n', to);
}

static void draw_cells(eg_pen *pen, const unsigned char *cells, int n) {
  for (int i = 0; i < n;) {
    int from = i;
    while (i < n && cells[i] == cells[from])
      i++;
    eg_colour colour = cells[from] == 3   ? EG_COLOUR_RED
                       : cells[from] == 2 ? EG_COLOUR_YELLOW
                                          : EG_COLOUR_GREEN;
    static const char *const drawn[] = {" ", "█", "!", "×"};
    static const char *const ascii[] = {" ", "#", "!", "x"};
    if (cells[from] > 0)
      eg_pen_colour(pen, colour);
    for (int j = from; j < i; j++)
      eg_pen_text(pen, (pen->view->ascii ? ascii : drawn)[cells[from]]);
    if (cells[from] > 0)
      eg_pen_colour(pen, EG_COLOUR_NONE);
  }
}

static void draw_key(const ec_run_mark *marks, size_t n, eg_bytes key,
                     const axis *a, int width, eg_pen *pen) {
  unsigned char cells[MOST] = {0};
  for (size_t i = 0; i < n; i++) {
    const ec_run_mark *m = &marks[i];
    if (!same(m->key, key))
      continue;
    int last = column_of(a, m->end_us);
    for (int c = column_of(a, m->start_us); c <= last; c++)
      if (cells[c] < worse(m->status))
        cells[c] = (unsigned char)worse(m->status);
  }
  eg_pen_bytes(pen, key, width);
  eg_pen_to(pen, width + 2);
  draw_cells(pen, cells, a->columns);
}

/* As exact as the span asks for. */
static void label(const axis *a, int column, char *text, size_t size) {
  int64_t span = a->to_us - a->from_us;
  int64_t us = a->from_us + span / a->columns * column;
  time_t seconds = (time_t)(us / 1000000);
  struct tm tm = {0};
  const char *format = span < INT64_C(600000000)          ? "%H:%M:%S"
                       : span < INT64_C(86400000000)      ? "%H:%M"
                       : span < INT64_C(90) * 86400000000 ? "%m-%d %H:%M"
                                                          : "%Y-%m-%d";
  localtime_r(&seconds, &tm);
  if (strftime(text, size, format, &tm) == 0)
    text[0] = '\0';
}

static void draw_axis(const axis *a, int width, const eg_view *view,
                      FILE *to) {
  eg_pen line, words;
  char text[32];
  eg_pen_begin(&line, view);
  eg_pen_begin(&words, view);
  eg_pen_to(&line, width + 2);
  for (int i = 0; i < a->columns; i++) {
    bool tick = i % LABEL == 0;
    eg_pen_text(&line, view->ascii ? tick ? "+" : "-" : tick ? "┬" : "─");
    label(a, i, text, sizeof text);
    if (tick && i + (int)strlen(text) <= a->columns) {
      eg_pen_to(&words, width + 2 + i);
      eg_pen_text(&words, text);
    }
  }
  put(&line, to);
  put(&words, to);
}

/* The keys in the order of their newest runs.  Returns how many are shown,
** *all: how many there are. */
static size_t find_keys(const ec_run_mark *marks, size_t n,
                        eg_bytes keys[KEYS], bool *more) {
  size_t found = 0;
  *more = false;
  for (size_t i = 0; i < n; i++) {
    size_t at = 0;
    while (at < found && !same(keys[at], marks[i].key))
      at++;
    if (at < found)
      continue;
    *more = found == KEYS;
    if (*more)
      break;
    keys[found++] = marks[i].key;
  }
  return found;
}

void ec_draw_timeline(const ec_run_mark *marks, size_t n, int64_t from_us,
                      int64_t to_us, const eg_view *view, FILE *to) {
  eg_bytes keys[KEYS];
  bool more;
  axis a = {from_us, to_us, 0};
  int width = 3, bound = view->columns / 3;
  size_t shown = find_keys(marks, n, keys, &more);
  for (size_t i = 0; i < n; i++) {
    if (from_us == 0 && (a.from_us == 0 || marks[i].start_us < a.from_us))
      a.from_us = marks[i].start_us;
    if (to_us == 0 && marks[i].end_us > a.to_us)
      a.to_us = marks[i].end_us;
  }
  if (a.to_us <= a.from_us)
    a.to_us = a.from_us + 1;
  for (size_t i = 0; i < shown; i++) {
    int columns = eg_columns(view, keys[i]);
    width = columns > width ? columns : width;
  }
  width = width < bound ? width : bound;
  a.columns = view->columns - width - 2;
  a.columns = a.columns > MOST ? MOST : a.columns;
  for (size_t i = 0; i < shown; i++) {
    eg_pen pen;
    eg_pen_begin(&pen, view);
    draw_key(marks, n, keys[i], &a, width, &pen);
    put(&pen, to);
  }
  if (more)
    fputs("and more keys\n", to);
  draw_axis(&a, width, view, to);
}
