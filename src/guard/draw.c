/* SPDX-License-Identifier: MIT
** Drawing in lines of text: what is cut to its columns, bars, sparklines.
**
** No terminal and no locale is asked: the view says what there is.
*/
#include "executionguard_view.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------- characters -- */

typedef struct glyph {
  size_t len;  /* 0: no printable text begins here */
  int columns; /* 0, 1 or 2 */
} glyph;

typedef struct range {
  uint32_t first, last;
} range;

/* Combining marks, which take no column of their own. */
static const range narrow[] = {
    {0x300, 0x36f},   {0x483, 0x489},   {0x591, 0x5bd},   {0x610, 0x61a},
    {0x64b, 0x65f},   {0xe31, 0xe31},   {0xe34, 0xe3a},   {0xe47, 0xe4e},
    {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f},
    {0xfe20, 0xfe2f}};

static const range wide[] = {
    {0x1100, 0x115f},   {0x2e80, 0x303e},   {0x3041, 0x33ff},
    {0x3400, 0x4dbf},   {0x4e00, 0xa4cf},   {0xac00, 0xd7a3},
    {0xf900, 0xfaff},   {0xfe30, 0xfe6f},   {0xff00, 0xff60},
    {0xffe0, 0xffe6},   {0x1f300, 0x1f64f}, {0x1f680, 0x1f6ff},
    {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd}};

/* What a terminal takes for an order, or what turns the order of its text. */
static const range orders[] = {
    {0, 0x1f},        {0x7f, 0x9f},     {0xad, 0xad},      {0x61c, 0x61c},
    {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f},  {0xd800, 0xdfff},
    {0xfeff, 0xfeff}, {0xfff0, 0xfffb}, {0xe0000, 0xeffff}};

#define IN(table, c) in(table, sizeof table / sizeof *table, c)

static bool in(const range *table, size_t n, uint32_t c) {
  for (size_t i = 0; i < n; i++)
    if (c >= table[i].first && c <= table[i].last)
      return true;
  return false;
}

/* The number of bytes that a first byte of UTF-8 announces; 0: it is none. */
static size_t length(unsigned char first) {
  return first < 0x80   ? 1
         : first < 0xc2 ? 0
         : first < 0xe0 ? 2
         : first < 0xf0 ? 3
         : first < 0xf5 ? 4
                        : 0;
}

static glyph read_glyph(const unsigned char *at, size_t left) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
  const glyph none = {0, 4};
  size_t n = length(at[0]);
  if (n == 0 || n > left)
    return none;
  uint32_t c = at[0] & masks[n];
  for (size_t i = 1; i < n; i++) {
    if ((at[i] & 0xc0) != 0x80)
      return none;
    c = c << 6 | (at[i] & 0x3f);
  }
  if (c < least[n] || c > 0x10ffff || IN(orders, c))
    return none;
  return (glyph){n, IN(narrow, c) ? 0 : IN(wide, c) ? 2 : 1};
}

char *eg_printable(eg_bytes bytes, char *text, size_t size) {
  const unsigned char *data = bytes.data;
  size_t at = 0;
  for (size_t i = 0; i < bytes.len && at + 5 < size;) {
    glyph g = read_glyph(data + i, bytes.len - i);
    if (g.len == 0) {
      snprintf(text + at, size - at, "\\x%02x", data[i]);
      at += 4;
      i++;
    } else {
      memcpy(text + at, data + i, g.len);
      at += g.len;
      i += g.len;
    }
  }
  text[at] = '\0';
  return text;
}

/* ----------------------------------------------------------------- pen -- */

void eg_pen_begin(eg_pen *pen, const eg_view *view) {
  pen->view = view;
  pen->at = 0;
  pen->len = 0;
  pen->text[0] = '\0';
}

static void add(eg_pen *pen, const void *data, size_t n) {
  if (pen->len + n >= sizeof pen->text)
    return;
  memcpy(pen->text + pen->len, data, n);
  pen->len += n;
  pen->text[pen->len] = '\0';
}

static int room(const eg_pen *pen, int columns) {
  int left = pen->view->columns - pen->at;
  return columns < left ? columns : left;
}

static int shown(const eg_view *view, glyph g) {
  return view->ascii && g.len > 1 && g.columns > 0 ? 1 : g.columns;
}

int eg_columns(const eg_view *view, eg_bytes bytes) {
  int n = 0;
  for (size_t i = 0; i < bytes.len;) {
    const unsigned char *at = bytes.data;
    glyph g = read_glyph(at + i, bytes.len - i);
    n += shown(view, g);
    i += g.len > 0 ? g.len : 1;
  }
  return n;
}

static void add_glyph(eg_pen *pen, const unsigned char *at, glyph g) {
  char escaped[8];
  if (g.len == 0) {
    snprintf(escaped, sizeof escaped, "\\x%02x", *at);
    add(pen, escaped, 4);
  } else if (pen->view->ascii && g.len > 1) {
    add(pen, "?", g.columns > 0);
  } else {
    add(pen, at, g.len);
  }
  pen->at += shown(pen->view, g);
}

void eg_pen_bytes(eg_pen *pen, eg_bytes bytes, int columns) {
  const unsigned char *data = bytes.data;
  int left = room(pen, columns);
  if (left <= 0)
    return;
  bool cut = eg_columns(pen->view, bytes) > left;
  int end = pen->at + left - cut;
  for (size_t i = 0; i < bytes.len;) {
    glyph g = read_glyph(data + i, bytes.len - i);
    if (pen->at + shown(pen->view, g) > end)
      break;
    add_glyph(pen, data + i, g);
    i += g.len > 0 ? g.len : 1;
  }
  if (!cut)
    return;
  add(pen, pen->view->ascii ? "~" : "…", pen->view->ascii ? 1 : 3);
  pen->at++;
}

void eg_pen_text(eg_pen *pen, const char *text) {
  eg_pen_bytes(pen, eg_str(text), pen->view->columns);
}

void eg_pen_to(eg_pen *pen, int column) {
  for (int n = room(pen, column - pen->at); n > 0; n--, pen->at++)
    add(pen, " ", 1);
}

void eg_pen_right(eg_pen *pen, const char *text, int columns) {
  int width = eg_columns(pen->view, eg_str(text));
  eg_pen_to(pen, pen->at + columns - width);
  eg_pen_bytes(pen, eg_str(text), columns);
}

void eg_pen_colour(eg_pen *pen, eg_colour colour) {
  static const char *const orders_of[] = {
      [EG_COLOUR_NONE] = "\033[0m",    [EG_COLOUR_RED] = "\033[31m",
      [EG_COLOUR_GREEN] = "\033[32m",  [EG_COLOUR_YELLOW] = "\033[33m",
      [EG_COLOUR_CYAN] = "\033[36m",   [EG_COLOUR_DIM] = "\033[2m",
      [EG_COLOUR_REVERSE] = "\033[7m",
  };
  if (pen->view->colours)
    add(pen, orders_of[colour], strlen(orders_of[colour]));
}

/* One column of a picture. */
static void mark(eg_pen *pen, const char *drawn, char ascii) {
  if (room(pen, 1) < 1)
    return;
  add(pen, pen->view->ascii ? &ascii : drawn,
      pen->view->ascii ? 1 : strlen(drawn));
  pen->at++;
}

void eg_pen_bar(eg_pen *pen, double share, int columns, bool ground) {
  static const char *const parts[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  int fine = pen->view->ascii ? 1 : 8;
  share = share > 0 ? share < 1 ? share : 1 : 0; /* 0 for what is no number */
  int full = (int)(share * columns * fine + 0.5), drawn = 0;
  if (full == 0 && share > 0)
    full = 1; /* a little is not nothing */
  for (; drawn < full / fine; drawn++)
    mark(pen, "█", '#');
  if (full % fine > 0 && drawn++ < columns)
    mark(pen, parts[full % fine], '#');
  for (; drawn < columns; drawn++)
    mark(pen, ground ? "░" : " ", ground ? '.' : ' ');
}

static int64_t longest(const eg_beat *beats, size_t n) {
  int64_t most = 1;
  for (size_t i = 0; i < n; i++)
    if (beats[i].status == EG_OK && beats[i].duration_us > most)
      most = beats[i].duration_us;
  return most;
}

void eg_pen_spark(eg_pen *pen, const eg_beat *beats, size_t n) {
  static const char *const heights[] = {"▁", "▂", "▃", "▄",
                                        "▅", "▆", "▇", "█"};
  int64_t most = longest(beats, n);
  for (size_t i = 0; i < n; i++) {
    if (beats[i].status == EG_OK) {
      double share = (double)beats[i].duration_us / (double)most;
      int height = share <= 0 ? 0 : (int)(share * 7.999);
      mark(pen, heights[height], ".:-=+*#@"[height]);
      continue;
    }
    bool late = beats[i].status == EG_TIMEOUT;
    eg_pen_colour(pen, late ? EG_COLOUR_YELLOW : EG_COLOUR_RED);
    mark(pen, late ? "!" : "×", late ? '!' : 'x');
    eg_pen_colour(pen, EG_COLOUR_NONE);
  }
}

/* ------------------------------------------------------------ durations -- */

static const struct unit {
  const char *name;
  int64_t us;
} units[] = {
    {"w", INT64_C(604800000000)},
    {"d", INT64_C(86400000000)},
    {"h", INT64_C(3600000000)},
    {"m", 60000000},
    {"s", 1000000},
};

char *eg_format_duration(int64_t us, char text[EG_DURATION_TEXT]) {
  if (us < 0)
    us = 0;
  if (us > 0 && us < 1000) { /* what a game's guards do takes no longer */
    snprintf(text, EG_DURATION_TEXT, "%" PRId64 "us", us);
    return text;
  }
  if (us < 999500) { /* rounded, it is less than a second */
    snprintf(text, EG_DURATION_TEXT, "%" PRId64 "ms", (us + 500) / 1000);
    return text;
  }
  if (us < 60000000) {
    snprintf(text, EG_DURATION_TEXT, "%" PRId64 ".%" PRId64 "s", us / 1000000,
             us % 1000000 / 100000);
    return text;
  }
  int i = 0;
  while (us < units[i].us)
    i++;
  int64_t rest = us % units[i].us / units[i + 1].us;
  snprintf(text, EG_DURATION_TEXT, "%" PRId64 "%s %" PRId64 "%s",
           us / units[i].us, units[i].name, rest, units[i + 1].name);
  return text;
}

/* --------------------------------------------------------------- status -- */

eg_run eg_run_of(eg_status status) {
  return status == EG_OK        ? EG_RUN_COMPLETED
         : status == EG_TIMEOUT ? EG_RUN_TIMEDOUT
                                : EG_RUN_FAILED;
}

eg_colour eg_colour_of(eg_run run) {
  static const eg_colour colours[EG_RUN_COUNT] = {
      [EG_RUN_RUNNING] = EG_COLOUR_CYAN,
      [EG_RUN_COMPLETED] = EG_COLOUR_GREEN,
      [EG_RUN_TIMEDOUT] = EG_COLOUR_YELLOW,
      [EG_RUN_FAILED] = EG_COLOUR_RED,
  };
  return colours[run];
}
