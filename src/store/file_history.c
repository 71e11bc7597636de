/* SPDX-License-Identifier: MIT
** The ended runs: remembered where they end, written in batches, bounded by
** count and age.
**
** A row of history in the commit of its run would double the price of the run,
** so it waits in the handle until tend or close writes it, or until there are
** many.  What a killed process had not written is missing; its records are
** not.
*/
#include "core/codec.h"
#include "store/file.h"
#include "store/holder.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 500, BATCH_MAX = 1000, ERROR_KEPT = 500, PAGE = 32, DAYS = 90 };
enum { SHORT = 1000, SLACK = 32 }; /* rows that a longer one may have more */

#define DAY_US INT64_C(86400000000)

static const char *const words[] = {"Idle", "Running", "Completed", "TimedOut",
                                    "Failed"};

/* -------------------------------------------------------------- noting -- */

static char *append(char *at, eg_bytes *piece) {
  if (piece->len > 0)
    memcpy(at, piece->data, piece->len);
  piece->data = at;
  return at + piece->len;
}

void egi_file_ended(egi_at *at, const egi_swap *swap, uint64_t token,
                    eg_bytes owner) {
  egi_record r;
  egi_holder holder = {.text = {"", 0}};
  egi_file *file = at->file;
  if (file->options.history_rows == 0 || !egi_decode(swap->bytes, &r) ||
      r.head.status == EG_RUN_IDLE || r.head.status == EG_RUN_RUNNING)
    return;
  egi_holder_read(owner, &holder);
  if (r.error.len > ERROR_KEPT)
    r.error.len = ERROR_KEPT;
  size_t size = sizeof(egi_ended) + at->key.len + holder.text.len +
                r.error.len;
  egi_ended *e = malloc(size);
  if (e == NULL)
    return; /* the run counts, its trace does not */
  *e = (egi_ended){.size = size,
                   .token = token,
                   .start_us = r.start_us,
                   .duration_us = r.duration_us,
                   .status = r.head.status,
                   .exited = swap->exited,
                   .exit_status = swap->exit_status,
                   .key = at->key,
                   .owner = holder.text,
                   .error = r.error};
  append(append(append((char *)(e + 1), &e->key), &e->owner), &e->error);
  pthread_mutex_lock(&file->mutex);
  *file->ended_end = e;
  file->ended_end = &e->next;
  file->ended_count++;
  pthread_mutex_unlock(&file->mutex);
}

/* ------------------------------------------------------------- writing -- */

static int bind_text(sqlite3_stmt *s, int n, eg_bytes text) {
  return sqlite3_bind_text(s, n, text.len > 0 ? text.data : "", (int)text.len,
                           SQLITE_STATIC);
}

static int insert_all(const egi_file *file, sqlite3 *db, const egi_ended *e) {
  sqlite3_stmt *s = NULL;
  int rc = sqlite3_prepare_v2(
      db,
      "insert into history(name,key,token,owner,start,duration,status,error,"
      "exit_status) values(?,?,?,?,?,?,?,?,?)",
      -1, &s, NULL);
  for (; rc == SQLITE_OK && e != NULL; e = e->next) {
    sqlite3_bind_text(s, 1, file->name, (int)file->name_len, SQLITE_STATIC);
    sqlite3_bind_blob(s, 2, e->key.data, (int)e->key.len, SQLITE_STATIC);
    sqlite3_bind_int64(s, 3, (int64_t)e->token);
    bind_text(s, 4, e->owner);
    sqlite3_bind_int64(s, 5, e->start_us);
    sqlite3_bind_int64(s, 6, e->duration_us);
    sqlite3_bind_text(s, 7, words[e->status], -1, SQLITE_STATIC);
    bind_text(s, 8, e->error);
    if (e->exited)
      sqlite3_bind_int(s, 9, e->exit_status);
    else
      sqlite3_bind_null(s, 9);
    rc = sqlite3_step(s) == SQLITE_DONE ? SQLITE_OK : SQLITE_ERROR;
    int reset = sqlite3_reset(s);
    rc = reset != SQLITE_OK ? reset : rc;
  }
  sqlite3_finalize(s);
  return rc;
}

/* Of a long history not at each batch: most are of a single run, and this is
** half of what they cost. */
static bool is_time_to_trim(sqlite3 *db, long rows, unsigned added) {
  int64_t last = sqlite3_last_insert_rowid(db);
  int64_t step = rows < SHORT ? 1 : SLACK;
  return last / step != (last - (int64_t)added) / step;
}

static int trim(sqlite3 *db, long rows, int64_t oldest) {
  char sql[256];
  snprintf(sql, sizeof sql,
           "delete from history where id <= (select max(id) - %ld from "
           "history) or (start < %lld and id <= (select min(id) + 200 from "
           "history))",
           rows, (long long)oldest);
  return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

/* Under db_mutex. */
static eg_status write_batch(egi_file *file, const egi_ended *e, unsigned n,
                             eg_error *error) {
  egi_dir *dir = file->dir;
  const eg_clock *clock = file->env.clock;
  int64_t now = clock->now_us(clock->ctx);
  eg_status status = egi_db_write_begin(dir, EGI_PATIENCE_MS, error);
  if (status == EG_OK) {
    sqlite3 *db = dir->db.handle;
    uint64_t before[6];
    bool marked = egi_db_read_header(dir, before);
    int rc = sqlite3_exec(db, "begin immediate", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
      rc = insert_all(file, db, e);
    if (rc == SQLITE_OK && is_time_to_trim(db, file->options.history_rows, n))
      rc = trim(db, file->options.history_rows,
                now + dir->side.head->base_us - DAYS * DAY_US);
    if (rc == SQLITE_OK)
      rc = sqlite3_exec(db, "commit", NULL, NULL, NULL);
    if (rc != SQLITE_OK) {
      status = egi_db_fail(dir, rc, "writing the history", error);
      sqlite3_exec(db, "rollback", NULL, NULL, NULL);
    } else if (marked) {
      egi_cache_wrote(dir, NULL, NULL, before);
    }
    egi_db_write_end(dir);
  }
  return status;
}

static void free_all(egi_ended *e) {
  while (e != NULL) {
    egi_ended *next = e->next;
    free(e);
    e = next;
  }
}

void egi_file_flush_many(egi_file *file) {
  if (atomic_load_explicit(&file->ended_count, memory_order_relaxed) >= MANY)
    egi_file_flush(file, NULL);
}

static eg_status flush(egi_file *file, eg_error *error) {
  pthread_mutex_lock(&file->mutex);
  egi_ended *e = file->ended, **end = file->ended_end;
  unsigned n = file->ended_count;
  file->ended = NULL;
  file->ended_end = &file->ended;
  file->ended_count = 0;
  pthread_mutex_unlock(&file->mutex);
  eg_status status = e != NULL ? write_batch(file, e, n, error) : EG_OK;
  if (status == EG_OK || n > BATCH_MAX) {
    free_all(e); /* or they would grow without end */
    return status;
  }
  pthread_mutex_lock(&file->mutex); /* back, before what came meanwhile */
  *end = file->ended;
  if (file->ended == NULL)
    file->ended_end = end;
  file->ended = e;
  file->ended_count += n;
  pthread_mutex_unlock(&file->mutex);
  return status;
}

/* One batch after the other: what ended before the call is written after it,
** whoever writes it, and in its order. */
eg_status egi_file_flush(egi_file *file, eg_error *error) {
  pthread_mutex_lock(&file->dir->db_mutex);
  eg_status status = flush(file, error);
  pthread_mutex_unlock(&file->dir->db_mutex);
  return status;
}

void egi_file_discard_ended(egi_file *file) {
  free_all(file->ended);
  file->ended = NULL;
  file->ended_end = &file->ended;
  file->ended_count = 0;
}

/* ------------------------------------------------------------- reading -- */

typedef struct entry {
  eg_past past;
  unsigned char key[EG_KEY_MAX];
  char error[ERROR_KEPT], owner[EG_OWNER_MAX];
} entry;

static eg_bytes keep(void *room, size_t max, const void *data, int n) {
  size_t len = n < 0 ? 0 : (size_t)n < max ? (size_t)n : max;
  if (len > 0)
    memcpy(room, data, len);
  return (eg_bytes){room, len};
}

static eg_status status_of(const char *word) {
  if (word != NULL && strcmp(word, "Completed") == 0)
    return EG_OK;
  return word != NULL && strcmp(word, "TimedOut") == 0 ? EG_TIMEOUT
                                                       : EG_FAILED;
}

static void read_row(sqlite3_stmt *s, entry *e, int64_t *id) {
  *id = sqlite3_column_int64(s, 0);
  e->past.key = keep(e->key, sizeof e->key, sqlite3_column_blob(s, 1),
                     sqlite3_column_bytes(s, 1));
  e->past.token = (uint64_t)sqlite3_column_int64(s, 2);
  e->past.start_us = sqlite3_column_int64(s, 3);
  e->past.duration_us = sqlite3_column_int64(s, 4);
  e->past.status = status_of((const char *)sqlite3_column_text(s, 5));
  e->past.error = keep(e->error, sizeof e->error, sqlite3_column_blob(s, 6),
                       sqlite3_column_bytes(s, 6));
  e->past.owner = keep(e->owner, sizeof e->owner, sqlite3_column_blob(s, 7),
                       sqlite3_column_bytes(s, 7));
  e->past.exited = sqlite3_column_type(s, 8) == SQLITE_INTEGER;
  e->past.exit_status = sqlite3_column_int(s, 8);
}

#define PAST                                                                  \
  "id,key,token,start,duration,status,error,owner,exit_status from history"   \
  " where name=?1 and id<?2"

/* The next page of what is older than *id.  *n: how many there were. */
static eg_status page(egi_file *file, eg_bytes key, int64_t *id, entry *room,
                      size_t *n, eg_error *error) {
  egi_dir *dir = file->dir;
  sqlite3_stmt *s = NULL;
  int rc = SQLITE_DONE;
  *n = 0;
  pthread_mutex_lock(&dir->db_mutex);
  eg_status status = egi_db_ready(dir, error);
  if (status == EG_OK) {
    rc = sqlite3_prepare_v2(
        dir->db.handle,
        key.len > 0 ? "select " PAST " and key=?3 order by id desc limit 32"
                    : "select " PAST " order by id desc limit 32",
        -1, &s, NULL);
    sqlite3_bind_text(s, 1, file->name, (int)file->name_len, SQLITE_STATIC);
    sqlite3_bind_int64(s, 2, *id);
    if (key.len > 0)
      sqlite3_bind_blob(s, 3, key.data, (int)key.len, SQLITE_STATIC);
    while (rc == SQLITE_OK || rc == SQLITE_ROW) {
      rc = sqlite3_step(s);
      if (rc == SQLITE_ROW)
        read_row(s, &room[(*n)++], id);
    }
    if (rc != SQLITE_DONE)
      status = egi_db_fail(dir, rc, "reading the history", error);
    sqlite3_finalize(s);
  }
  pthread_mutex_unlock(&dir->db_mutex);
  return status;
}

eg_status egi_file_history(egi_store *store, eg_bytes key, size_t n,
                           eg_visit_past visit, void *ctx, eg_error *error) {
  egi_file *file = (egi_file *)store;
  const eg_env *env = &file->env;
  int64_t id = INT64_MAX;
  size_t got = PAGE;
  eg_status status = egi_file_attach(file, error);
  if (status == EG_OK)
    status = egi_file_flush(file, error);
  if (status != EG_OK || !atomic_load(&file->dir->side.head->has_db))
    return status;
  entry *room = env->alloc(env->alloc_ud, NULL, 0, PAGE * sizeof *room);
  if (room == NULL)
    return egi_file_fail(error, EG_NOMEM, ENOMEM,
                         "not enough memory to read the history");
  while (status == EG_OK && n > 0 && got == PAGE) {
    status = page(file, key, &id, room, &got, error);
    for (size_t i = 0; status == EG_OK && i < got && n > 0; i++, n--)
      if (!visit(ctx, &room[i].past))
        n = 1;
  }
  env->alloc(env->alloc_ud, room, PAGE * sizeof *room, 0);
  return status;
}
