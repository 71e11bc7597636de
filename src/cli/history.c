/* SPDX-License-Identifier: MIT
** eguard history: the runs that ended, and on a terminal a picture of them on
** a time axis.
*/
#include "cli/cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Runs of several processes come in the order in which they were noted: a
** little later than they ended. */
#define LATE_US INT64_C(60000000)

typedef struct listing {
  const ec_options *options;
  int64_t since_us; /* 0: all */
  int64_t left;
  ec_json json;
  ec_table *table;
  ec_run_mark *marks; /* for the picture */
  size_t n, cap;
} listing;

/* A duration before now, or a time as eguard prints it ("2026-11-21 16:00:00",
** "2026-11-21T16:00:00Z", "2026-11-21").  False: it is neither. */
static bool read_since(const char *text, int64_t *since_us) {
  static const char *const formats[] = {"%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M",
                                        "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M",
                                        "%Y-%m-%d"};
  int64_t ms;
  if (ec_parse_duration(text, &ms)) {
    *since_us = eg_wall_us() - ms * 1000;
    return true;
  }
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
    struct tm tm = {.tm_isdst = -1};
    const char *end = strptime(text, formats[i], &tm);
    if (end == NULL)
      continue;
    if (*end == '.') /* parts of a second */
      end += 1 + strspn(end + 1, "0123456789");
    bool utc = strcmp(end, "Z") == 0;
    if (*end != '\0' && !utc)
      continue;
    *since_us = (int64_t)(utc ? timegm(&tm) : mktime(&tm)) * 1000000;
    return true;
  }
  return false;
}

bool ec_since(const ec_options *options, int64_t *since_us) {
  if (options->since == NULL || read_since(options->since, since_us))
    return true;
  ec_error("--since=%s: that is neither a duration like 2h nor a time like "
           "\"2026-11-21 16:00\"",
           options->since);
  return false;
}

static bool keep_mark(listing *l, const eg_past *p) {
  if (l->n == l->cap) {
    size_t cap = l->cap > 0 ? 2 * l->cap : 256;
    ec_run_mark *marks = realloc(l->marks, cap * sizeof *marks);
    if (marks == NULL)
      return false;
    l->marks = marks;
    l->cap = cap;
  }
  void *key = malloc(p->key.len);
  if (key == NULL)
    return false;
  memcpy(key, p->key.data, p->key.len);
  l->marks[l->n++] = (ec_run_mark){.key = {key, p->key.len},
                                   .start_us = p->start_us,
                                   .end_us = p->start_us + p->duration_us,
                                   .status = p->status};
  return true;
}

static void add_row(listing *l, const eg_past *p) {
  char text[400], time[EC_DURATION_TEXT];
  eg_run run = eg_run_of(p->status);
  ec_table_cell(l->table, eg_printable(p->key, text, sizeof text), "");
  ec_table_cell(l->table, ec_format_when(p->start_us, time), "");
  ec_table_cell(l->table, ec_format_took(p->duration_us, time), "");
  ec_table_cell(l->table, eg_run_word(run), ec_colour_of(run));
  snprintf(text, sizeof text, "%" PRIu64, p->token);
  ec_table_cell(l->table, text, "");
  eg_printable(p->error, text, sizeof text);
  if (p->error.len == 0 && p->exited && p->exit_status != 0)
    snprintf(text, sizeof text, "exit status %d", p->exit_status);
  ec_table_cell(l->table, text, "");
}

static bool past_one(void *ctx, const eg_past *p) {
  listing *l = ctx;
  int64_t end_us = p->start_us + p->duration_us;
  if (end_us < l->since_us)
    return end_us >= l->since_us - LATE_US;
  if (l->options->json)
    ec_json_past(&l->json, p);
  else
    add_row(l, p);
  if (l->table != NULL && ec_terminal())
    keep_mark(l, p); /* without memory the picture lacks it */
  return --l->left > 0;
}

static void draw(const listing *l) {
  eg_view view;
  if (l->n == 0)
    return;
  ec_view(l->options, &view);
  ec_draw_timeline(l->marks, l->n, l->since_us,
                   l->since_us > 0 ? eg_wall_us() : 0, &view, stdout);
  putchar('\n');
}

static int print(listing *l, eg_guard *guard) {
  static const char *const headings[] = {"KEY",   "START",  "TOOK", "STATUS",
                                         "TOKEN", "REMARK", NULL};
  int exit_status = 0;
  eg_error error = {0};
  eg_bytes key = {"", 0};
  if (l->options->operand_count > 0)
    key = eg_str(l->options->operands[0]);
  if (l->options->json) {
    ec_json_begin(&l->json, stdout);
    ec_json_open(&l->json, NULL, '[');
  } else {
    l->table = ec_table_new(headings);
  }
  /* how many there are before --since is not known */
  size_t n = l->since_us > 0 ? SIZE_MAX : (size_t)l->left;
  eg_status status = l->left > 0
                         ? eg_history(guard, key, n, past_one, l, &error)
                         : EG_OK;
  if (l->options->json) {
    ec_json_close(&l->json, ']');
    exit_status = ec_json_end(&l->json);
  } else {
    draw(l);
    ec_table_print(l->table, false);
  }
  return status == EG_OK ? exit_status : ec_failed("history", status, &error);
}

int ec_history(ec_options *options) {
  listing l = {.options = options};
  int exit_status;
  if (!ec_since(options, &l.since_us))
    return EC_USAGE;
  eg_guard *guard = ec_open(options, &exit_status);
  if (guard == NULL)
    return exit_status;
  l.left = options->limit >= 0 ? options->limit : INT64_MAX;
  exit_status = print(&l, guard);
  for (size_t i = 0; i < l.n; i++)
    free((void *)(uintptr_t)l.marks[i].key.data);
  free(l.marks);
  eg_close(guard);
  return exit_status;
}
