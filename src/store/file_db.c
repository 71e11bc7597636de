/* SPDX-License-Identifier: MIT
** The rows of guard.db: one connection a process, prepared statements, one
** autocommit statement a step.
**
** SQLite waits for another writer by sleeping up to a tenth of a second, which
** starves; ours wait on a mutex of the side file (`writer`), held for one
** statement.  guard.db and what belongs to it are opened by SQLite alone:
** POSIX locks die with any close() of the file.
*/
#include "core/codec.h"
#include "store/file.h"
#include "store/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SCHEMA = 1 };

#define PUT                                                                   \
  "insert into runs(name,key,version,token,stamp,not_before,fresh,life,bytes" \
  ",status,count,start,duration,error,sum) values(?1,?2,?3,?4,?5,?6,?7,?8,?9" \
  ",?10,?11,?12,?13,?14,?16) on conflict(name,key) do update set version=?3"  \
  ",token=?4,stamp=?5,not_before=?6,fresh=?7,life=?8,bytes=?9,status=?10"     \
  ",count=?11,start=?12,duration=?13,error=?14,sum=?16 where version=?15"

static const char *const texts[EGI_SQL_COUNT] = {
    [EGI_SQL_GET] =
        "select version,token,stamp,not_before,fresh,life"
        ",length(bytes),bytes,sum from runs where name=?1 and key=?2",
    [EGI_SQL_LOOK] = "select version,token,stamp,not_before,fresh,life"
                     ",length(bytes) from runs where name=?1 and key=?2",
    [EGI_SQL_PUT] = PUT,
    [EGI_SQL_TOUCH] = "update runs set version=?3,token=?4,not_before=?5"
                      ",fresh=?6,life=?7 where name=?1 and key=?2"
                      " and version=?8",
    [EGI_SQL_DELETE] = "delete from runs where name=?1 and key=?2"
                       " and version=?3",
    [EGI_SQL_PAGE] = "select key,length(bytes) from runs where name=?1"
                     " and key>?2 order by key limit 64",
};

/* -------------------------------------------------------------- errors -- */

static eg_status status_of(int rc) {
  switch (rc & 0xff) {
  case SQLITE_NOMEM:
    return EG_NOMEM;
  case SQLITE_CORRUPT:
  case SQLITE_NOTADB:
    return EG_CORRUPT;
  case SQLITE_PERM:
  case SQLITE_AUTH:
    return EG_DENIED;
  case SQLITE_IOERR:
    return rc == SQLITE_IOERR_FSYNC || rc == SQLITE_IOERR_DIR_FSYNC
               ? EG_INDETERMINATE
               : EG_UNAVAILABLE;
  default:
    return EG_UNAVAILABLE;
  }
}

static const char *way_out(int rc) {
  switch (rc & 0xff) {
  case SQLITE_FULL:
    return "; make room on the disk";
  case SQLITE_CORRUPT:
  case SQLITE_NOTADB:
    return "; eguard doctor --rebuild recovers what can be read";
  case SQLITE_READONLY:
    return "; the folder and the file must be writable";
  default:
    return "";
  }
}

/* Who writes has a lock on a byte of the wal-index; who wants the whole file
** for himself, on that. */
static const char *keeper_of(const egi_dir *dir, char who[EGI_BLAME]) {
  if (!egi_blame_file(dir->fd, "guard.db-shm", "POSIX", who) &&
      !egi_blame_file(dir->fd, "guard.db", "POSIX", who))
    snprintf(who, EGI_BLAME, "another program keeps it locked");
  return who;
}

eg_status egi_db_fail(egi_dir *dir, int rc, const char *what,
                      eg_error *error) {
  sqlite3 *db = dir->db.handle;
  int os = db != NULL ? sqlite3_system_errno(db) : 0;
  char who[EGI_BLAME];
  bool busy = (rc & 0xff) == SQLITE_BUSY;
  return egi_file_fail(
      error, status_of(rc), os, "%s/guard.db: %s: %s%s%s", dir->path, what,
      db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(rc),
      busy ? "; " : way_out(rc), busy ? keeper_of(dir, who) : "");
}

/* ------------------------------------------------------------- opening -- */

/* Made on first need: a process that asks once needs two of them. */
int egi_db_statement(egi_dir *dir, int which, sqlite3_stmt **s) {
  sqlite3_stmt **made = &dir->db.statements[which];
  int rc = SQLITE_OK;
  if (*made == NULL)
    rc = sqlite3_prepare_v3(dir->db.handle, texts[which], -1,
                            SQLITE_PREPARE_PERSISTENT, made, NULL);
  *s = *made;
  return rc;
}

/* The file is made and checked by us, before SQLite sees it: without following
** a link, and with the folder's mode. */
static eg_status check_file(egi_dir *dir, eg_error *error) {
  static const char *const parts[] = {"guard.db", "guard.db-wal",
                                      "guard.db-shm"};
  struct stat st;
  for (int i = 0; i < 3; i++) {
    if (fstatat(dir->fd, parts[i], &st, AT_SYMLINK_NOFOLLOW) == 0) {
      eg_status status = egi_file_check(dir->fd, parts[i], &st, false,
                                        &dir->options, error);
      if (status != EG_OK)
        return status;
    } else if (i == 0) {
      int fd;
      eg_status status = egi_file_open(dir->fd, parts[0],
                                       O_RDWR | O_CREAT | O_EXCL,
                                       &dir->options, &fd, error);
      if (status != EG_OK)
        return status;
      close(fd);
    }
  }
  return EG_OK;
}

static bool note_file(egi_dir *dir, const char *path) {
  struct stat st, there;
  if (stat(path, &there) != 0 ||
      fstatat(dir->fd, "guard.db", &st, AT_SYMLINK_NOFOLLOW) != 0 ||
      st.st_dev != there.st_dev || st.st_ino != there.st_ino)
    return false;
  dir->db.dev = st.st_dev;
  dir->db.ino = st.st_ino;
  return true;
}

static eg_status gone(egi_dir *dir, eg_error *error) {
  return egi_file_fail(error, EG_UNAVAILABLE, ENOENT,
                       "%s/guard.db was removed or replaced while it was in "
                       "use: nothing is written; close the guard and open it "
                       "again",
                       dir->path);
}

/* The header of the wal-index, as SQLite itself has it mapped; its format is
** documented (walformat.html).  Not as we know it: we do without. */
static void find_header(egi_dir *dir) {
  sqlite3_file *file = NULL;
  void volatile *at = NULL;
  uint32_t format;
  if (sqlite3_file_control(dir->db.handle, "main", SQLITE_FCNTL_FILE_POINTER,
                           &file) != SQLITE_OK ||
      file == NULL || file->pMethods == NULL || file->pMethods->iVersion < 2 ||
      file->pMethods->xShmMap(file, 0, 32768, 0, &at) != SQLITE_OK ||
      at == NULL)
    return;
  memcpy(&format, (const void *)at, sizeof format);
  if (format != 3007000)
    return;
  pthread_mutex_lock(&dir->cache_mutex);
  dir->header = at;
  dir->generation++;
  pthread_mutex_unlock(&dir->cache_mutex);
}

/* Fills the filter of a directory that was not looked through since the
** machine started; and numbers stay above what was used. */
static int fill_filter(egi_dir *dir) {
  egi_side_head *head = dir->side.head;
  sqlite3_stmt *s = NULL;
  if (atomic_load(&head->filtered))
    return SQLITE_OK;
  int rc = sqlite3_prepare_v2(
      dir->db.handle, "select name,key,version,token from runs", -1, &s, NULL);
  while (rc == SQLITE_OK && (rc = sqlite3_step(s)) == SQLITE_ROW) {
    uint64_t hash[2];
    eg_bytes name = {sqlite3_column_text(s, 0),
                     (size_t)sqlite3_column_bytes(s, 0)};
    eg_bytes key = {sqlite3_column_blob(s, 1),
                    (size_t)sqlite3_column_bytes(s, 1)};
    egi_file_hash(head->seed, name, key, hash);
    egi_filter_add(head, hash[1]);
    for (int i = 2; i <= 3; i++) {
      uint64_t number = (uint64_t)sqlite3_column_int64(s, i);
      if (number < EGI_TOKEN_MAX)
        egi_side_at_least(head, number);
    }
    rc = SQLITE_OK;
  }
  sqlite3_finalize(s);
  if (rc != SQLITE_DONE)
    return rc;
  atomic_store(&head->filtered, 1);
  return SQLITE_OK;
}

static eg_status open_now(egi_dir *dir, eg_error *error) {
  char path[PATH_MAX + 16];
  int version = 0;
  eg_status status = egi_dir_stands(dir) ? check_file(dir, error)
                                         : gone(dir, error);
  if (status != EG_OK)
    return status;
  snprintf(path, sizeof path, "%s/guard.db", dir->path);
  if (!note_file(dir, path))
    return gone(dir, error);
  dir->db.number = atomic_load(&dir->side.head->database);
  /* From here on there may be rows: before there is one. */
  if (!atomic_load(&dir->side.head->has_db))
    atomic_store(&dir->side.head->has_db, 1);
  int rc = sqlite3_open_v2(path, &dir->db.handle,
                           SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX |
                               SQLITE_OPEN_PRIVATECACHE,
                           NULL);
  if (rc == SQLITE_OK)
    rc = egi_db_set_up(dir, &version);
  if (rc == SQLITE_OK && version > SCHEMA)
    status = egi_file_fail(error, EG_UNSUPPORTED, 0,
                           "%s was made by a newer version of this library "
                           "(its schema is %d, ours %d)",
                           path, version, SCHEMA);
  else if (rc == SQLITE_OK)
    rc = fill_filter(dir);
  if (rc != SQLITE_OK)
    status = egi_db_fail(dir, rc, "opening", error);
  if (status != EG_OK)
    egi_db_close(dir);
  else
    find_header(dir);
  return status;
}

/* Is what we have open the database, or was it rebuilt since? */
static bool is_current(const egi_dir *dir) {
  return dir->db.number == atomic_load(&dir->side.head->database);
}

/* In the midst of a rebuild (the number is odd) the log of the old one is not
** beside it: its end is waited for, which may be that of its process. */
static eg_status await_rebuild(egi_dir *dir, eg_error *error) {
  egi_side_head *head = dir->side.head;
  if (atomic_load(&head->database) % 2 != 0) {
    bool died;
    eg_status status = egi_mutex_lock(&head->writer, &died, error);
    if (status != EG_OK)
      return status;
    if (atomic_load(&head->database) % 2 != 0)
      atomic_fetch_add(&head->database, 1);
    egi_db_write_end(dir);
  }
  return EG_OK;
}

static eg_status open_it(egi_dir *dir, eg_error *error) {
  eg_status status;
  do {
    egi_db_close(dir); /* it was opened while another took its place */
    status = await_rebuild(dir, error);
    egi_unstoppable_begin(); /* SQLite's own locks are taken, too */
    if (status == EG_OK)
      status = open_now(dir, error);
    egi_unstoppable_end();
  } while (status == EG_OK && !is_current(dir));
  return status;
}

bool egi_db_is_open(egi_dir *dir) {
  pthread_mutex_lock(&dir->db_mutex);
  bool open = dir->db.handle != NULL && is_current(dir);
  pthread_mutex_unlock(&dir->db_mutex);
  return open;
}

eg_status egi_db_ready(egi_dir *dir, eg_error *error) {
  if (dir->db.handle != NULL && !is_current(dir))
    egi_db_close(dir);
  if (dir->options.only_locks)
    return egi_file_fail(error, EG_UNSUPPORTED, 0,
                         "%s keeps locks only (locks=.): runs need a store "
                         "with records, file:DIR",
                         dir->path);
  return dir->db.handle != NULL ? EG_OK : open_it(dir, error);
}

/* The first process to come reads the whole of what is in the WAL: short-lived
** ones one after another would do so each time.  Nobody is waited for; and no
** writer of ours shall find SQLite's lock taken while the disk is slow. */
void egi_db_shorten(egi_dir *dir) {
  enum { FRAMES = 100, FRAMES_AT = 4 };
  if (dir->db.handle == NULL || dir->header == NULL)
    return;
  const volatile uint32_t *header = (const volatile void *)dir->header;
  if (header[FRAMES_AT] < FRAMES)
    return;
  pthread_mutex_t *writer = &dir->side.head->writer;
  bool died;
  if (egi_mutex_try(writer, &died) != 0)
    return; /* somebody is still at work */
  sqlite3_busy_handler(dir->db.handle, NULL, NULL);
  sqlite3_wal_checkpoint_v2(dir->db.handle, NULL, SQLITE_CHECKPOINT_TRUNCATE,
                            NULL, NULL);
  egi_mutex_unlock(writer);
}

void egi_db_close(egi_dir *dir) {
  if (dir->db.handle == NULL)
    return;
  pthread_mutex_lock(&dir->cache_mutex);
  dir->header = NULL;
  dir->generation++;
  pthread_mutex_unlock(&dir->cache_mutex);
  for (int i = 0; i < EGI_SQL_COUNT; i++) {
    sqlite3_finalize(dir->db.statements[i]);
    dir->db.statements[i] = NULL;
  }
  egi_unstoppable_begin();
  sqlite3_close(dir->db.handle);
  egi_unstoppable_end();
  dir->db.handle = NULL;
}

bool egi_db_read_header(const egi_dir *dir, uint64_t mark[6]) {
  if (dir->header == NULL || !is_current(dir))
    return false;
  for (int i = 0; i < 6; i++)
    mark[i] =
        ((const volatile uint64_t *)(const volatile void *)dir->header)[i];
  atomic_thread_fence(memory_order_acquire);
  return true;
}

/* -------------------------------------------------------------- reading -- */

static void bind_key(sqlite3_stmt *s, const egi_at *at) {
  sqlite3_bind_text(s, 1, at->name.data, (int)at->name.len, SQLITE_STATIC);
  sqlite3_bind_blob(s, 2, at->key.data, (int)at->key.len, SQLITE_STATIC);
}

static bool copy_bytes(egi_at *at, const void *data) {
  const eg_env *env = &at->file->env;
  unsigned char *to = at->small;
  if (at->len > sizeof at->small) {
    if (at->heap_size < at->len) {
      void *heap = env->alloc(env->alloc_ud, NULL, 0, at->len);
      if (heap == NULL)
        return false;
      if (at->heap != NULL)
        env->alloc(env->alloc_ud, at->heap, at->heap_size, 0);
      at->heap = heap;
      at->heap_size = at->len;
    }
    to = at->heap;
  }
  if (at->len > 0)
    memcpy(to, data, at->len);
  at->bytes = (eg_bytes){to, at->len};
  return true;
}

/* Bytes that are not those that were written are shown as such that nobody
** can decode: that is CORRUPT, until a reset.  False: no memory. */
static bool read_row(egi_at *at, sqlite3_stmt *s, bool bytes) {
  at->base = at->version = (uint64_t)sqlite3_column_int64(s, 0);
  at->token = (uint64_t)sqlite3_column_int64(s, 1);
  at->stamp = sqlite3_column_int64(s, 2);
  at->not_before = sqlite3_column_int64(s, 3);
  at->fresh = sqlite3_column_int64(s, 4);
  at->life = sqlite3_column_int64(s, 5);
  at->len = (size_t)sqlite3_column_int64(s, 6);
  if (!bytes)
    return true;
  if (!copy_bytes(at, sqlite3_column_blob(s, 7)))
    return false;
  if (at->len > 0 && egi_file_sum(at->name, at->key, at->bytes) !=
                         sqlite3_column_int64(s, 8)) {
    at->small[0] = EGI_UNREADABLE;
    at->bytes = (eg_bytes){at->small, 1};
    at->len = 1;
  }
  return true;
}

eg_status egi_db_get(egi_at *at, bool bytes, eg_error *error) {
  egi_dir *dir = at->dir;
  uint64_t before[6];
  bool enough = true;
  pthread_mutex_lock(&dir->db_mutex);
  eg_status status = egi_db_ready(dir, error);
  if (status != EG_OK) {
    pthread_mutex_unlock(&dir->db_mutex);
    return status;
  }
  sqlite3_stmt *s;
  int rc = egi_db_statement(dir, bytes ? EGI_SQL_GET : EGI_SQL_LOOK, &s);
  bool marked = egi_db_read_header(dir, before);
  bind_key(s, at);
  if (rc == SQLITE_OK)
    rc = sqlite3_step(s);
  if (rc == SQLITE_ROW)
    enough = read_row(at, s, bytes);
  int end = sqlite3_reset(s);
  at->marked = marked && egi_db_read_header(dir, at->mark) &&
               memcmp(before, at->mark, sizeof before) == 0;
  if (!enough)
    status = egi_file_fail(error, EG_NOMEM, ENOMEM,
                           "not enough memory for a record");
  else if (rc != SQLITE_ROW && rc != SQLITE_DONE)
    status = egi_db_fail(dir, end != SQLITE_OK ? end : rc, "reading", error);
  pthread_mutex_unlock(&dir->db_mutex);
  return status;
}

/* -------------------------------------------------------------- writing -- */

static bool is_in_place(const egi_dir *dir) {
  char path[PATH_MAX + 16];
  struct stat st;
  snprintf(path, sizeof path, "%s/guard.db", dir->path);
  return stat(path, &st) == 0 && st.st_ino == dir->db.ino &&
         st.st_dev == dir->db.dev;
}

/* CHANGED: the database was rebuilt just now, what we have is the old one. */
static eg_status lock_writer(egi_dir *dir, int ms, eg_error *error) {
  bool died;
  eg_status status = egi_mutex_lock_within(&dir->side.head->writer, ms, &died,
                                           error);
  if (status != EG_OK)
    return status;
  if (is_in_place(dir))
    return EG_OK;
  egi_db_write_end(dir);
  return is_current(dir) ? gone(dir, error) : EG_CHANGED;
}

eg_status egi_db_write_begin(egi_dir *dir, int patience_ms, eg_error *error) {
  eg_status status;
  do {
    status = egi_db_ready(dir, error);
    if (status == EG_OK)
      status = lock_writer(dir, patience_ms, error);
  } while (status == EG_CHANGED);
  return status;
}

eg_status egi_db_confirm(egi_dir *dir, eg_error *error) {
  eg_status status = egi_db_ready(dir, error);
  if (status != EG_OK || is_in_place(dir))
    return status;
  status = egi_db_write_begin(dir, EGI_PATIENCE_MS, error);
  if (status == EG_OK)
    egi_db_write_end(dir);
  return status;
}

void egi_db_write_end(egi_dir *dir) {
  egi_mutex_unlock(&dir->side.head->writer);
}

static int set_sync(egi_dir *dir, bool full) {
  if (dir->db.synced == full)
    return SQLITE_OK;
  int rc = sqlite3_exec(dir->db.handle,
                        full ? "pragma synchronous=full"
                             : "pragma synchronous=normal",
                        NULL, NULL, NULL);
  if (rc == SQLITE_OK)
    dir->db.synced = full;
  return rc;
}

/* One statement that writes one row, or none: CONFLICT.  Ends the writing.
** rc: how it was made; after: what the row is then, NULL: not known. */
static eg_status run(egi_at *at, int rc, sqlite3_stmt *s, bool durable,
                     const egi_after *after, eg_error *error) {
  egi_dir *dir = at->dir;
  eg_status status = EG_OK;
  uint64_t before[6];
  bool marked = egi_db_read_header(dir, before);
  if (rc == SQLITE_OK)
    rc = set_sync(dir, durable || at->file->options.full);
  if (rc == SQLITE_OK)
    rc = sqlite3_step(s);
  int changes = sqlite3_changes(dir->db.handle);
  if (rc != SQLITE_DONE)
    status = egi_db_fail(dir, rc, "writing", error);
  else if (changes == 0)
    status = EG_CONFLICT;
  sqlite3_reset(s);
  if (marked && status == EG_OK)
    egi_cache_wrote(dir, at, after, before);
  egi_db_write_end(dir);
  return status;
}

/* What the bytes say, in columns for people. */
static void bind_record(sqlite3_stmt *s, eg_bytes bytes, int64_t stamp) {
  egi_record r;
  for (int i = 10; i <= 14; i++)
    sqlite3_bind_null(s, i);
  if (bytes.len == 0 || !egi_decode(bytes, &r))
    return;
  static const char *const words[] = {"Idle", "Running", "Completed",
                                      "TimedOut", "Failed"};
  sqlite3_bind_text(s, 10, words[r.head.status], -1, SQLITE_STATIC);
  sqlite3_bind_int64(s, 11, r.count);
  int64_t start = r.start_us > 0 || r.head.status != EG_RUN_RUNNING
                      ? r.start_us
                      : stamp;
  if (start > 0)
    sqlite3_bind_int64(s, 12, start);
  if (egi_record_end(&r) > 0)
    sqlite3_bind_int64(s, 13, r.duration_us);
  if (r.error.len > 0)
    sqlite3_bind_text(s, 14, r.error.data,
                      r.error.len < 500 ? (int)r.error.len : 500,
                      SQLITE_STATIC);
}

static void bind_put(sqlite3_stmt *s, const egi_at *at,
                     const egi_after *after) {
  sqlite3_bind_int64(s, 3, (int64_t)after->version);
  sqlite3_bind_int64(s, 4, (int64_t)after->token);
  sqlite3_bind_int64(s, 5, after->stamp);
  sqlite3_bind_int64(s, 6, after->not_before);
  sqlite3_bind_int64(s, 7, after->fresh);
  sqlite3_bind_int64(s, 8, after->life);
  if (after->bytes.len > 0)
    sqlite3_bind_blob(s, 9, after->bytes.data, (int)after->bytes.len,
                      SQLITE_STATIC);
  else
    sqlite3_bind_zeroblob(s, 9, 0);
  bind_record(s, after->bytes, after->stamp);
  sqlite3_bind_int64(s, 15, (int64_t)at->base);
  sqlite3_bind_int64(s, 16, egi_file_sum(at->name, at->key, after->bytes));
}

static void bind_touch(sqlite3_stmt *s, const egi_at *at,
                       const egi_after *after) {
  sqlite3_bind_int64(s, 3, (int64_t)after->version);
  sqlite3_bind_int64(s, 4, (int64_t)after->token);
  sqlite3_bind_int64(s, 5, after->not_before);
  sqlite3_bind_int64(s, 6, after->fresh);
  sqlite3_bind_int64(s, 7, after->life);
  sqlite3_bind_int64(s, 8, (int64_t)at->base);
}

eg_status egi_db_put(egi_at *at, const egi_after *after, eg_error *error) {
  egi_dir *dir = at->dir;
  pthread_mutex_lock(&dir->db_mutex);
  eg_status status = egi_db_write_begin(dir, EGI_PATIENCE_MS, error);
  if (status == EG_OK) {
    sqlite3_stmt *s;
    int rc = egi_db_statement(dir, after->leave ? EGI_SQL_TOUCH : EGI_SQL_PUT,
                              &s);
    egi_filter_add(dir->side.head, at->hash2);
    bind_key(s, at);
    if (after->leave)
      bind_touch(s, at, after);
    else
      bind_put(s, at, after);
    status = run(at, rc, s, after->durable, after->leave ? NULL : after,
                 error);
  }
  pthread_mutex_unlock(&dir->db_mutex);
  return status;
}

eg_status egi_db_delete(egi_at *at, eg_error *error) {
  egi_dir *dir = at->dir;
  pthread_mutex_lock(&dir->db_mutex);
  eg_status status = egi_db_write_begin(dir, EGI_PATIENCE_MS, error);
  if (status == EG_OK) {
    sqlite3_stmt *s;
    int rc = egi_db_statement(dir, EGI_SQL_DELETE, &s);
    bind_key(s, at);
    sqlite3_bind_int64(s, 3, (int64_t)at->base);
    status = run(at, rc, s, false, NULL, error);
  }
  pthread_mutex_unlock(&dir->db_mutex);
  return status;
}
