/* SPDX-License-Identifier: MIT
** The rows of eguard top: one scan, and the history of those whose picture is
** not known yet.
*/
#include "cli/top.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct reading {
  ec_rows *rows;
  int64_t now_us;
  bool no_memory;
} reading;

eg_bytes ec_row_key(const ec_row *row) {
  return (eg_bytes){row->key, row->key_len};
}

static bool wanted(const ec_rows *rows, const eg_record *record) {
  size_t n = rows->filter != NULL ? strlen(rows->filter) : 0;
  if (!record->locked && !rows->all)
    return false;
  return n == 0 ||
         memmem(record->key.data, record->key.len, rows->filter, n) != NULL;
}

static ec_row *next_row(ec_rows *rows) {
  if (rows->n == rows->cap) {
    size_t cap = rows->cap > 0 ? 2 * rows->cap : 64;
    ec_row *list = realloc(rows->list, cap * sizeof *list);
    if (list == NULL)
      return NULL;
    rows->list = list;
    rows->cap = cap;
  }
  return &rows->list[rows->n++];
}

static bool read_one(void *ctx, const eg_record *r) {
  reading *in = ctx;
  ec_rows *rows = in->rows;
  eg_times times;
  rows->records += !r->only_locked;
  rows->held += r->locked;
  rows->failing += r->status == EG_RUN_FAILED || r->status == EG_RUN_TIMEDOUT;
  if (r->corrupt || !wanted(rows, r))
    return true;
  ec_row *row = next_row(rows);
  in->no_memory = row == NULL;
  if (in->no_memory)
    return false;
  eg_record_times(r, &times);
  int64_t since = r->owner.since_us > 0 ? r->owner.since_us : r->start_us;
  *row = (ec_row){.key_len = r->key.len,
                  .status = r->status,
                  .locked = r->locked,
                  .token = r->token,
                  .count = r->count,
                  .failed = r->failed + r->timed_out + r->lost,
                  .for_us = r->locked ? in->now_us - since : r->duration_us,
                  .usual_us = times.runs > 0 ? times.p50_us : 0,
                  .progress = r->progress,
                  .waiters = -1,
                  .owner = r->owner};
  memcpy(row->key, r->key.data, r->key.len);
  return true;
}

/* ------------------------------------------------------------- history -- */

static int by_key(const void *a, const void *b) {
  const ec_row *x = a, *y = b;
  size_t n = x->key_len < y->key_len ? x->key_len : y->key_len;
  int by = memcmp(x->key, y->key, n);
  return by != 0 ? by : (x->key_len > y->key_len) - (x->key_len < y->key_len);
}

static bool note_past(void *ctx, const eg_past *past) {
  ec_row *row = ctx;
  row->last[EG_SUMMARY_LAST - ++row->last_n] = (eg_beat){past->status,
                                                         past->duration_us};
  return row->last_n < EG_SUMMARY_LAST;
}

/* The newest comes first, and is to stand last. */
static bool look_back(eg_guard *guard, ec_row *row) {
  if (eg_history(guard, ec_row_key(row), EG_SUMMARY_LAST, note_past, row,
                 NULL) != EG_OK)
    return false;
  memmove(row->last, row->last + EG_SUMMARY_LAST - row->last_n,
          row->last_n * sizeof *row->last);
  return true;
}

/* A key that has not run since keeps its picture. */
static bool keep_picture(ec_row *row, const ec_row *old, size_t n) {
  const ec_row *was = n > 0 ? bsearch(row, old, n, sizeof *old, by_key) : NULL;
  if (was == NULL || was->count != row->count || was->locked != row->locked)
    return false;
  row->last_n = was->last_n;
  memcpy(row->last, was->last, sizeof row->last);
  return true;
}

static void read_pictures(ec_rows *rows, eg_guard *guard, const ec_row *old,
                          size_t n) {
  enum { MOST = 200 }; /* more is not seen at once */
  bool told = true;
  for (size_t i = 0, asked = 0; i < rows->n; i++) {
    ec_row *row = &rows->list[i];
    if (!keep_picture(row, old, n) && told && asked++ < MOST)
      told = look_back(guard, row);
  }
}

/* ------------------------------------------------------------- waiters -- */

static void read_waiters(ec_rows *rows) {
  char path[4200 + EG_LOCK_FILE_MAX], name[EG_LOCK_FILE_MAX];
  FILE *locks = *rows->dir != '\0' ? fopen("/proc/locks", "re") : NULL;
  for (size_t i = 0; locks != NULL && i < rows->n; i++) {
    ec_row *row = &rows->list[i];
    struct stat st;
    if (!row->locked || eg_lock_file(rows->name, ec_row_key(row), name) == 0)
      continue;
    snprintf(path, sizeof path, "%s/locks/%s", rows->dir, name);
    if (stat(path, &st) == 0)
      row->waiters = ec_count_waiters(locks, (uint64_t)st.st_ino);
  }
  if (locks != NULL)
    fclose(locks);
}

/* --------------------------------------------------------------- order -- */

static int more_first(uint64_t a, uint64_t b) { return (a < b) - (a > b); }

static int by_time(const void *a, const void *b) {
  const ec_row *x = a, *y = b;
  int by = (int)y->locked - (int)x->locked; /* those that run come first */
  if (by == 0)
    by = more_first((uint64_t)x->for_us, (uint64_t)y->for_us);
  return by != 0 ? by : by_key(a, b);
}

static int by_runs(const void *a, const void *b) {
  const ec_row *x = a, *y = b;
  int by = more_first(x->count, y->count);
  return by != 0 ? by : by_key(a, b);
}

static int by_failed(const void *a, const void *b) {
  const ec_row *x = a, *y = b;
  int by = more_first(x->failed, y->failed);
  return by != 0 ? by : by_key(a, b);
}

static const struct {
  const char *word;
  int (*compare)(const void *a, const void *b);
} orders[EC_SORTS] = {[EC_BY_TIME] = {"time", by_time},
                      [EC_BY_KEY] = {"key", by_key},
                      [EC_BY_RUNS] = {"runs", by_runs},
                      [EC_BY_FAILED] = {"failed", by_failed}};

const char *ec_sort_word(ec_sort sort) { return orders[sort].word; }

void ec_rows_sort(ec_rows *rows) {
  if (rows->n > 0)
    qsort(rows->list, rows->n, sizeof *rows->list, orders[rows->sort].compare);
}

/* -------------------------------------------------------------- reading -- */

eg_status ec_rows_read(ec_rows *rows, eg_guard *guard, eg_error *error) {
  ec_rows old = *rows;
  reading in = {.rows = rows, .now_us = eg_wall_us()};
  rows->list = NULL;
  rows->n = rows->cap = 0;
  rows->records = rows->held = rows->failing = 0;
  eg_status status = eg_scan_held(guard, eg_str(""), read_one, &in, error);
  if (status == EG_OK && in.no_memory) {
    status = EG_NOMEM;
    *error = (eg_error){.status = EG_NOMEM, .message = "not enough memory"};
  }
  if (status != EG_OK) { /* what was known is shown on */
    free(rows->list);
    *rows = old;
    return status;
  }
  if (old.n > 0)
    qsort(old.list, old.n, sizeof *old.list, by_key);
  ec_rows_sort(rows);
  read_pictures(rows, guard, old.list, old.n);
  read_waiters(rows);
  free(old.list);
  return EG_OK;
}

void ec_rows_free(ec_rows *rows) {
  free(rows->list);
  rows->list = NULL;
  rows->n = rows->cap = 0;
}
