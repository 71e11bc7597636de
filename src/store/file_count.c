/* SPDX-License-Identifier: MIT
** What the file store counts of its keys: rows of a table beside the records.
**
** A row is read, added to and written with other writers kept out, so that
** what several processes add sums up.  Rows that nobody has added to for a
** day, of keys that have no record, are deleted in passing.
*/
#include "core/codec.h"
#include "store/file.h"

#include <sqlite3.h>
#include <string.h>

/* Nobody is kept waiting for long for a process that was stopped while it
** wrote: what could not be added is added with the next.  Long enough for one
** that makes the database on a slow disk: of a command the first count is
** the last. */
enum { SWEEP_EACH = 64, SWEEP_ROWS = 128, PATIENCE_MS = 3000 };

#define DAY_US INT64_C(86400000000)

static const char create[] =
    "create table if not exists counts("
    " name text not null, key blob not null, blocked integer not null,"
    " cached integer not null, waits blob, day integer not null,"
    " primary key(name, key)) without rowid";

#define SELECT "select key,blocked,cached,waits from counts where name=?1"

/* ------------------------------------------------------------- reading -- */

static void read_counts(sqlite3_stmt *s, egi_counts *counts) {
  eg_bytes waits = {sqlite3_column_blob(s, 3),
                    (size_t)sqlite3_column_bytes(s, 3)};
  counts->blocked = (uint64_t)sqlite3_column_int64(s, 1);
  counts->cached = (uint64_t)sqlite3_column_int64(s, 2);
  egi_decode_tally(waits, &counts->waits);
}

/* A statement on a table that need not be there yet: then *s is NULL. */
static int prepare(sqlite3 *db, const char *sql, sqlite3_stmt **s) {
  int rc = sqlite3_prepare_v2(db, sql, -1, s, NULL);
  return rc == SQLITE_ERROR && *s == NULL ? SQLITE_OK : rc;
}

static void bind(sqlite3_stmt *s, const egi_file *file, eg_bytes key) {
  sqlite3_bind_text(s, 1, file->name, (int)file->name_len, SQLITE_STATIC);
  if (key.len > 0)
    sqlite3_bind_blob(s, 2, key.data, (int)key.len, SQLITE_STATIC);
  else
    sqlite3_bind_zeroblob(s, 2, 0);
}

typedef struct showing {
  eg_bytes prefix;
  egi_counts_fn visit;
  void *ctx;
} showing;

/* False: it is enough. */
static bool show(const showing *w, sqlite3_stmt *s) {
  egi_counts counts;
  unsigned char bytes[EGI_COUNTS_MAX];
  eg_bytes key = {sqlite3_column_blob(s, 0),
                  (size_t)sqlite3_column_bytes(s, 0)};
  if (key.len < w->prefix.len ||
      (w->prefix.len > 0 &&
       memcmp(key.data, w->prefix.data, w->prefix.len) != 0))
    return false; /* they stand in their order */
  read_counts(s, &counts);
  size_t len = egi_encode_counts(&counts, bytes, sizeof bytes);
  return w->visit(w->ctx, key, (eg_bytes){bytes, len});
}

eg_status egi_file_counts(egi_store *store, eg_bytes prefix, bool exact,
                          int64_t deadline_us, egi_counts_fn visit, void *ctx,
                          eg_error *error) {
  egi_file *file = (egi_file *)store;
  showing w = {prefix, visit, ctx};
  sqlite3_stmt *s = NULL;
  (void)deadline_us;
  eg_status status = egi_file_attach(file, error);
  egi_dir *dir = file->dir;
  if (status != EG_OK || dir->options.only_locks ||
      !atomic_load(&dir->side.head->has_db))
    return status;
  pthread_mutex_lock(&dir->db_mutex);
  status = egi_db_ready(dir, error);
  if (status == EG_OK) {
    int rc = prepare(
        dir->db.handle,
        exact ? SELECT " and key=?2" : SELECT " and key>=?2 order by key", &s);
    bind(s, file, prefix);
    while (rc == SQLITE_OK && s != NULL &&
           (rc = sqlite3_step(s)) == SQLITE_ROW)
      rc = show(&w, s) ? SQLITE_OK : SQLITE_DONE;
    if (rc != SQLITE_OK && rc != SQLITE_DONE)
      status = egi_db_fail(dir, rc, "reading what is counted", error);
    sqlite3_finalize(s);
  }
  pthread_mutex_unlock(&dir->db_mutex);
  return status;
}

/* ------------------------------------------------------------- writing -- */

static int read_old(sqlite3 *db, const egi_file *file, eg_bytes key,
                    egi_counts *counts) {
  sqlite3_stmt *s = NULL;
  int rc = prepare(db, SELECT " and key=?2", &s);
  if (rc == SQLITE_OK && s == NULL)
    return sqlite3_exec(db, create, NULL, NULL, NULL);
  bind(s, file, key);
  if (rc == SQLITE_OK && (rc = sqlite3_step(s)) == SQLITE_ROW)
    read_counts(s, counts);
  sqlite3_finalize(s);
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int write_new(sqlite3 *db, const egi_file *file, eg_bytes key,
                     const egi_counts *counts, int64_t day) {
  sqlite3_stmt *s = NULL;
  unsigned char waits[EGI_COUNTS_MAX];
  int rc = sqlite3_prepare_v2(db,
                              "replace into counts(name,key,blocked,cached,"
                              "waits,day) values(?1,?2,?3,?4,?5,?6)",
                              -1, &s, NULL);
  if (rc != SQLITE_OK)
    return rc;
  bind(s, file, key);
  sqlite3_bind_int64(s, 3, (int64_t)counts->blocked);
  sqlite3_bind_int64(s, 4, (int64_t)counts->cached);
  if (counts->waits.n > 0)
    sqlite3_bind_blob(
        s, 5, waits,
        (int)egi_encode_tally(&counts->waits, waits, sizeof waits),
        SQLITE_STATIC);
  sqlite3_bind_int64(s, 6, day);
  rc = sqlite3_step(s);
  sqlite3_finalize(s);
  return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* Of the next few rows, those that no record belongs to any more.  What goes
** wrong here is tried again later. */
static void sweep(egi_file *file, int64_t day) {
  sqlite3 *db = file->dir->db.handle;
  sqlite3_stmt *s = NULL;
  eg_bytes after = {file->swept, file->swept_len};
  sqlite3_prepare_v2(
      db,
      "delete from counts where name=?1 and day<?3 and key in (select key from"
      " counts where name=?1 and key>?2 order by key limit ?4) and not exists"
      " (select 1 from runs where runs.name=?1 and runs.key=counts.key)",
      -1, &s, NULL);
  bind(s, file, after);
  sqlite3_bind_int64(s, 3, day - 1);
  sqlite3_bind_int(s, 4, SWEEP_ROWS);
  sqlite3_step(s);
  sqlite3_finalize(s);
  sqlite3_prepare_v2(db,
                     "select max(key) from (select key from counts where "
                     "name=?1 and key>?2 order by key limit ?4)",
                     -1, &s, NULL);
  bind(s, file, after);
  sqlite3_bind_int(s, 4, SWEEP_ROWS);
  file->swept_len = 0; /* from the start again, unless there is more */
  if (sqlite3_step(s) == SQLITE_ROW) {
    size_t len = (size_t)sqlite3_column_bytes(s, 0);
    if (len > 0 && len <= sizeof file->swept) {
      memcpy(file->swept, sqlite3_column_blob(s, 0), len);
      file->swept_len = len;
    }
  }
  sqlite3_finalize(s);
}

eg_status egi_file_add(egi_store *store, eg_bytes key, const egi_counts *more,
                       int64_t deadline_us, eg_error *error) {
  egi_file *file = (egi_file *)store;
  const eg_clock *clock = file->env.clock;
  egi_counts counts = {.blocked = 0};
  (void)deadline_us;
  eg_status status = egi_file_attach(file, error);
  egi_dir *dir = file->dir;
  if (status != EG_OK || dir->options.only_locks)
    return status;
  int64_t day = (clock->now_us(clock->ctx) + dir->side.head->base_us) / DAY_US;
  pthread_mutex_lock(&dir->db_mutex);
  status = egi_db_write_begin(dir, PATIENCE_MS, error);
  if (status == EG_OK) {
    uint64_t before[6];
    bool marked = egi_db_read_header(dir, before);
    int rc = read_old(dir->db.handle, file, key, &counts);
    egi_counts_merge(&counts, more);
    if (rc == SQLITE_OK)
      rc = write_new(dir->db.handle, file, key, &counts, day);
    if (rc != SQLITE_OK)
      status = egi_db_fail(dir, rc, "counting", error);
    else if (file->added++ % SWEEP_EACH == SWEEP_EACH - 1)
      sweep(file, day);
    if (marked && status == EG_OK)
      egi_cache_wrote(dir, NULL, NULL, before);
    egi_db_write_end(dir);
  }
  pthread_mutex_unlock(&dir->db_mutex);
  return status;
}
