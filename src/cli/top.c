/* SPDX-License-Identifier: MIT
** eguard top: what is held now, drawn again in place; keys to sort, filter and
** release.
*/
#include "cli/top.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INTERVAL_MS = 1000, FILTER_MAX = 64, NOTE_MAX = 900 };

typedef enum mode {
  LOOKING,
  FILTERING, /* the filter is being typed */
  ASKING     /* a grant is about to be broken: y, or anything else */
} mode;

typedef struct top {
  eg_guard *guard;
  eg_view view;
  ec_rows rows;
  int lines;
  size_t from;
  ec_row selected; /* a copy: what it was when it was looked at */
  bool any;        /* is one selected? */
  mode mode;
  char filter[FILTER_MAX + 1];
  char note[NOTE_MAX]; /* until the next key */
  bool bad;
  bool away; /* the note tells why the store could not be read */
  char store[4200];
  char *drawn; /* the frame that stands on the screen */
  size_t drawn_len;
} top;

/* ------------------------------------------------------------ selecting -- */

static size_t place_of(const top *t) {
  for (size_t i = 0; t->any && i < t->rows.n; i++)
    if (t->rows.list[i].key_len == t->selected.key_len &&
        memcmp(t->rows.list[i].key, t->selected.key, t->selected.key_len) == 0)
      return i;
  return 0;
}

static void select_row(top *t, size_t at) {
  t->any = t->rows.n > 0;
  if (t->any)
    t->selected = t->rows.list[at < t->rows.n ? at : t->rows.n - 1];
}

static void move(top *t, int key) {
  size_t at = place_of(t);
  size_t page = t->lines > 4 ? (size_t)t->lines - 4 : 1;
  size_t last = t->rows.n > 0 ? t->rows.n - 1 : 0;
  if (key == EC_KEY_UP || key == EC_KEY_PAGE_UP) {
    size_t step = key == EC_KEY_UP ? 1 : page;
    at = at > step ? at - step : 0;
  } else if (key == EC_KEY_DOWN || key == EC_KEY_PAGE_DOWN) {
    at += key == EC_KEY_DOWN ? 1 : page;
  } else {
    at = key == EC_KEY_HOME ? 0 : last;
  }
  select_row(t, at < last ? at : last);
}

/* ----------------------------------------------------------- releasing -- */

static void ask(top *t) {
  char key[200], who[400], ago[EG_DURATION_TEXT];
  if (!t->any || !t->selected.locked)
    return;
  const ec_row *row = &t->selected;
  t->mode = ASKING;
  snprintf(t->note, sizeof t->note,
           "Take %s from %s, who has had it for %s (token %" PRIu64 ")? y/N",
           eg_printable(ec_row_key(row), key, sizeof key),
           ec_describe_owner(&row->owner, who, sizeof who),
           eg_format_duration(row->for_us, ago), row->token);
}

static void release(top *t) {
  char key[200], who[400], why[700];
  eg_error error = {0};
  const ec_row *row = &t->selected;
  ec_describe_owner(&row->owner, who, sizeof who);
  ec_describe_breaker(who, why, sizeof why);
  eg_status status = eg_revoke(t->guard, ec_row_key(row), row->token, why,
                               &error);
  eg_printable(ec_row_key(row), key, sizeof key);
  t->bad = status != EG_OK;
  snprintf(t->note, sizeof t->note, "%s: %s", key,
           status == EG_OK     ? "taken; what its holder writes is refused"
           : status == EG_LOST ? "that grant is over; nothing was changed"
                               : error.message);
}

/* ----------------------------------------------------------------- keys -- */

static void type(top *t, int key) {
  size_t n = strlen(t->filter);
  if (key == EC_KEY_ESCAPE)
    t->filter[0] = '\0';
  if (key == '\n' || key == '\r' || key == EC_KEY_ESCAPE)
    t->mode = LOOKING;
  else if ((key == 127 || key == 8) && n > 0)
    while (n > 0 && (t->filter[--n] & 0xc0) == 0x80)
      ; /* all bytes of the character */
  else if (key >= ' ' && key < 256 && key != 127 && n < FILTER_MAX)
    t->filter[n++] = (char)key;
  else
    return;
  if (t->mode == FILTERING)
    t->filter[n] = '\0';
}

static void look(top *t, int key) {
  switch (key) {
  case 's':
    t->rows.sort = (ec_sort)((t->rows.sort + 1) % EC_SORTS);
    break;
  case 'a':
    t->rows.all = !t->rows.all;
    break;
  case '/':
    t->mode = FILTERING;
    break;
  case 'r':
    ask(t);
    break;
  case 'j':
    move(t, EC_KEY_DOWN);
    break;
  case 'k':
    move(t, EC_KEY_UP);
    break;
  default:
    if (key >= EC_KEY_UP && key <= EC_KEY_END)
      move(t, key);
  }
}

/* False: it is to end. */
static bool press(top *t, int key) {
  t->bad = false;
  if (t->mode == FILTERING) {
    type(t, key);
    return true;
  }
  bool yes = t->mode == ASKING && (key == 'y' || key == 'Y');
  t->note[0] = '\0';
  if (t->mode == ASKING) {
    t->mode = LOOKING;
    if (yes)
      release(t);
    return true;
  }
  look(t, key);
  return key != 'q' && key != 'Q';
}

/* -------------------------------------------------------------- drawing -- */

static void refresh(top *t) {
  eg_error error = {0};
  t->rows.filter = t->filter;
  eg_status status = ec_rows_read(&t->rows, t->guard, &error);
  if (status == EG_OK && t->away)
    t->note[0] = '\0';
  t->away = status != EG_OK && t->mode == LOOKING;
  if (t->away) {
    snprintf(t->note, sizeof t->note, "%s",
             error.message[0] != '\0' ? error.message
                                      : eg_status_text(status));
    t->bad = true;
  }
  if (t->mode != ASKING) /* who is asked about stays */
    select_row(t, place_of(t));
}

static void scroll(top *t, size_t at) {
  size_t room = t->lines > 3 ? (size_t)t->lines - 3 : 1;
  if (at < t->from)
    t->from = at;
  if (at >= t->from + room)
    t->from = at - room + 1;
  if (t->from + room > t->rows.n)
    t->from = t->rows.n > room ? t->rows.n - room : 0;
}

/* One write, and none when it would change nothing: so nothing flickers.
** False: nobody can see it. */
static bool draw(top *t) {
  char typed[FILTER_MAX + 80], *text = NULL;
  size_t n = 0;
  bool good = true, anew = ec_screen_changed();
  ec_screen_size(&t->view.columns, &t->lines);
  scroll(t, place_of(t));
  snprintf(typed, sizeof typed, "keys with: %s_  (Enter: done, Esc: all)",
           t->filter);
  const char *note = t->mode == FILTERING ? typed
                     : t->note[0] != '\0' ? t->note
                                          : NULL;
  ec_frame frame = {.rows = &t->rows,
                    .view = &t->view,
                    .lines = t->lines,
                    .from = t->from,
                    .selected = place_of(t),
                    .store = t->store,
                    .note = note,
                    .bad = t->bad};
  FILE *to = open_memstream(&text, &n);
  if (to == NULL)
    return false;
  ec_frame_draw(&frame, to);
  fclose(to);
  if (anew || n != t->drawn_len || memcmp(text, t->drawn, n) != 0)
    good = ec_write_all(STDOUT_FILENO, text, n);
  free(t->drawn);
  t->drawn = text;
  t->drawn_len = n;
  return good;
}

static void watch(top *t, int64_t interval_us) {
  int64_t due_us = 0;
  for (;;) {
    int64_t now_us = eg_now_us();
    if (now_us >= due_us) {
      refresh(t);
      due_us = eg_now_us() + interval_us;
    }
    if (!draw(t))
      return;
    int key = ec_screen_key(due_us - eg_now_us());
    if (key < 0 || (key > 0 && !press(t, key)))
      return;
    if (key > 0)
      refresh(t); /* what was pressed shows at once */
  }
}

/* No terminal: the rows as they are now, once. */
static int print(top *t) {
  eg_error error = {0};
  eg_status status = ec_rows_read(&t->rows, t->guard, &error);
  if (status != EG_OK)
    return ec_failed("top", status, &error);
  ec_frame frame = {.rows = &t->rows, .view = &t->view, .store = ""};
  ec_frame_draw(&frame, stdout);
  return 0;
}

int ec_top(ec_options *options) {
  char dir[4200];
  int exit_status;
  top *t = calloc(1, sizeof *t);
  if (t == NULL)
    return EC_FAILURE;
  t->guard = ec_open(options, &exit_status);
  if (t->guard != NULL) {
    const char *url = ec_store_url(options);
    int64_t interval_ms = options->interval_ms >= 0 ? options->interval_ms
                                                    : INTERVAL_MS;
    ec_file_dir(url, dir, sizeof dir);
    if (ec_public_url(url, t->store, sizeof t->store) == NULL)
      t->store[0] = '\0';
    t->rows.dir = dir;
    t->rows.name = options->name;
    t->rows.all = options->all;
    ec_view(options, &t->view);
    exit_status = 0;
    if (ec_screen_open())
      watch(t, (interval_ms < 100 ? 100 : interval_ms) * 1000);
    else
      exit_status = print(t);
    ec_screen_close();
    ec_rows_free(&t->rows);
    free(t->drawn);
    eg_close(t->guard);
  }
  free(t);
  return exit_status;
}
