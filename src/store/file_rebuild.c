/* SPDX-License-Identifier: MIT
** Rebuilding a database that can no longer be read: what its pages still have
** goes into a new one.
**
** A record that is half gone, and one of a key that is known from elsewhere
** (its lock file, the history) but has no row any more, becomes a row that
** nobody can decode: whoever asks is told CORRUPT until a person has looked
** and reset the key.  It might have been done.
**
** A run that has just begun, or whose row could not be written, is in its slot
** and nowhere else: what blocks a key has a version smaller than any that was
** ever given, so such a slot counts (mend, in file_look.c), and who holds it
** goes on.
**
** The new file takes the place of the old in one rename, with all writers of
** all processes kept out; they open the new one when they see that the number
** in the side file has changed (egi_db_ready).  The old one stays, under
** another name.
*/
#include "store/file.h"
#include "store/file_pages.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RUN_COLUMNS = 15, PAST_COLUMNS = 10, BYTES = 8, SUM = 14 };

static const unsigned char unreadable[] = {EGI_UNREADABLE};

#define NEW "guard.db.new"

typedef struct rebuild {
  egi_dir *dir;
  const eg_env *env;
  const egi_file_options *options;
  sqlite3 *db;
  sqlite3_stmt *run, *past, *block;
  int rc; /* the first that was not OK */
  eg_rebuilt *out;
} rebuild;

static eg_status cannot(const rebuild *r, const char *what, eg_error *error) {
  return egi_file_fail(error, EG_UNAVAILABLE, errno,
                       "%s: cannot %s: %s; the old database is as it was",
                       r->dir->path, what, strerror(errno));
}

/* ------------------------------------------------------- the new rows -- */

static void bind(sqlite3_stmt *s, int n, const egi_column *c) {
  switch (c->type) {
  case EGI_COLUMN_NUMBER:
    sqlite3_bind_int64(s, n, c->number);
    break;
  case EGI_COLUMN_TEXT:
    sqlite3_bind_text(s, n, c->bytes.data, (int)c->bytes.len, SQLITE_STATIC);
    break;
  case EGI_COLUMN_BLOB:
    if (c->bytes.len == 0)
      sqlite3_bind_zeroblob(s, n, 0);
    else
      sqlite3_bind_blob(s, n, c->bytes.data, (int)c->bytes.len, SQLITE_STATIC);
    break;
  default:
    sqlite3_bind_null(s, n);
  }
}

static void land(rebuild *r, sqlite3_stmt *s) {
  int rc = sqlite3_step(s);
  sqlite3_reset(s);
  sqlite3_clear_bindings(s);
  if (r->rc == SQLITE_OK && rc != SQLITE_DONE)
    r->rc = rc;
}

static bool is_key(const egi_column *name, const egi_column *key) {
  return name->type == EGI_COLUMN_TEXT && name->bytes.len <= EG_NAME_MAX &&
         key->type == EGI_COLUMN_BLOB && key->bytes.len > 0 &&
         key->bytes.len <= EG_KEY_MAX;
}

static bool are_numbers(const egi_cell *cell, unsigned from, unsigned to) {
  for (unsigned i = from; i < to; i++)
    if (cell->column[i].type != EGI_COLUMN_NUMBER)
      return false;
  return true;
}

/* Are these the bytes that were written? */
static bool is_sound(const egi_column *c) {
  return c[BYTES].type == EGI_COLUMN_BLOB &&
         c[SUM].type == EGI_COLUMN_NUMBER &&
         (c[BYTES].bytes.len == 0 ||
          c[SUM].number ==
              egi_file_sum(c[0].bytes, c[1].bytes, c[BYTES].bytes));
}

static void keep_run(rebuild *r, const egi_cell *cell) {
  const egi_column *c = cell->column;
  bool whole = cell->whole == RUN_COLUMNS && is_sound(c);
  if (cell->whole < BYTES || !is_key(&c[0], &c[1]) ||
      !are_numbers(cell, 2, BYTES) || c[2].number <= 0)
    return;
  for (int i = 0; i < BYTES; i++)
    bind(r->run, i + 1, &c[i]);
  if (whole) {
    for (int i = BYTES; i < RUN_COLUMNS; i++)
      bind(r->run, i + 1, &c[i]);
  } else {
    sqlite3_bind_blob(r->run, BYTES + 1, unreadable, sizeof unreadable,
                      SQLITE_STATIC);
    sqlite3_bind_text(r->run, BYTES + 2, "Unreadable", -1, SQLITE_STATIC);
    sqlite3_bind_int64(r->run, SUM + 1, 0);
  }
  land(r, r->run);
  for (int i = 2; i <= 3; i++)
    if (c[i].number > 0 && (uint64_t)c[i].number < EGI_TOKEN_MAX)
      egi_side_at_least(r->dir->side.head, (uint64_t)c[i].number);
}

static void keep_past(rebuild *r, const egi_cell *cell) {
  const egi_column *c = cell->column;
  if (cell->whole != PAST_COLUMNS || c[0].type != EGI_COLUMN_NULL ||
      !is_key(&c[1], &c[2]) || c[3].type != EGI_COLUMN_NUMBER ||
      c[7].type != EGI_COLUMN_TEXT)
    return;
  sqlite3_bind_int64(r->past, 1, cell->rowid);
  for (int i = 1; i < PAST_COLUMNS; i++)
    bind(r->past, i + 1, &c[i]);
  land(r, r->past);
}

static void keep(void *ctx, const egi_cell *cell) {
  rebuild *r = ctx;
  if (cell->of_index && cell->columns == RUN_COLUMNS)
    keep_run(r, cell);
  else if (!cell->of_index && cell->columns == PAST_COLUMNS)
    keep_past(r, cell);
}

/* ----------------------------------------------------- keys without row -- */

/* Does a slot have the whole record?  The writer's mutex is held, so that of
** the shard is only tried; if it is not to be had, the key is blocked, and the
** slot counts all the same. */
static bool is_in_slot(const egi_side *side, const uint64_t hash[2]) {
  unsigned shard = (unsigned)(hash[0] >> 58), row;
  egi_side_shard *s = &side->head->shards[shard];
  bool died;
  if (egi_mutex_try(&s->mutex, &died) != 0)
    return false;
  if (died)
    s->suspect = 1;
  const egi_slot *slot = egi_slot_find(side, shard, hash[0], hash[1], &row);
  bool known = slot != NULL && slot->in_slot;
  egi_mutex_unlock(&s->mutex);
  return known;
}

/* A key that has no row though it may have had one. */
static void block(rebuild *r, eg_bytes name, eg_bytes key) {
  egi_side_head *head = r->dir->side.head;
  uint64_t hash[2];
  egi_file_hash(head->seed, name, key, hash);
  if (atomic_load(&head->filtered) && !egi_filter_may(head, hash[1]))
    return;
  if (is_in_slot(&r->dir->side, hash))
    return;
  /* Of every rebuild another one. */
  uint64_t number = atomic_load(&head->database) + UINT64_C(1);
  egi_column names = {.type = EGI_COLUMN_TEXT, .bytes = name};
  egi_column keys = {.type = EGI_COLUMN_BLOB, .bytes = key};
  bind(r->block, 1, &names);
  bind(r->block, 2, &keys);
  sqlite3_bind_int64(r->block, 3, (int64_t)number);
  land(r, r->block);
}

static int digit(char c) {
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                : -1;
}

/* What egi_file_part made of a text, back.  False: a hash, or not ours. */
static bool decode(const char *part, size_t len, unsigned char *out,
                   size_t *n) {
  *n = 0;
  for (size_t i = 0; i < len; i++) {
    unsigned char byte = (unsigned char)part[i];
    if (byte == '%') {
      if (i + 2 >= len || digit(part[i + 1]) < 0 || digit(part[i + 2]) < 0)
        return false;
      byte = (unsigned char)(digit(part[i + 1]) << 4 | digit(part[i + 2]));
      i += 2;
    }
    out[(*n)++] = byte;
  }
  return *n > 0;
}

static bool ends_in(const char *text, const char *suffix, size_t *len) {
  size_t n = strlen(text), s = strlen(suffix);
  *len = n > s ? n - s : 0;
  return n > s && strcmp(text + *len, suffix) == 0;
}

static DIR *list(int folder, const char *name) {
  int fd = openat(folder, name,
                  O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR *all = fd >= 0 ? fdopendir(fd) : NULL;
  if (all == NULL && fd >= 0)
    close(fd);
  return all;
}

/* The keys of the lock files in a folder: that of a name, or of no name. */
static void block_files(rebuild *r, int folder, const char *sub,
                        eg_bytes name) {
  unsigned char key[256];
  size_t len, n;
  DIR *all = list(folder, sub);
  if (all == NULL)
    return;
  for (struct dirent *entry; (entry = readdir(all)) != NULL;) {
    if (!ends_in(entry->d_name, ".lock", &len))
      continue;
    if (len < sizeof key && decode(entry->d_name, len, key, &n))
      block(r, name, (eg_bytes){key, n});
    else
      r->out->unnamed++;
  }
  closedir(all);
}

static void block_names(rebuild *r) {
  unsigned char name[256];
  size_t len, n;
  block_files(r, r->dir->locks_fd, ".", (eg_bytes){"", 0});
  DIR *all = list(r->dir->locks_fd, ".");
  if (all == NULL)
    return;
  for (struct dirent *entry; (entry = readdir(all)) != NULL;)
    if (ends_in(entry->d_name, "@", &len) && len < sizeof name &&
        decode(entry->d_name, len, name, &n) && n <= EG_NAME_MAX)
      block_files(r, r->dir->locks_fd, entry->d_name, (eg_bytes){name, n});
  closedir(all);
}

static void block_past(rebuild *r) {
  sqlite3_stmt *s = NULL;
  int rc = sqlite3_prepare_v2(r->db, "select distinct name,key from history",
                              -1, &s, NULL);
  while (rc == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW) {
    eg_bytes name = {sqlite3_column_text(s, 0),
                     (size_t)sqlite3_column_bytes(s, 0)};
    eg_bytes key = {sqlite3_column_blob(s, 1),
                    (size_t)sqlite3_column_bytes(s, 1)};
    block(r, name, key);
  }
  sqlite3_finalize(s);
}

/* -------------------------------------------------------- the new file -- */

static const char put_run[] =
    "insert into runs values(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) on "
    "conflict(name,key)"
    " do update set version=excluded.version,token=excluded.token,"
    "stamp=excluded.stamp,not_before=excluded.not_before,fresh=excluded.fresh,"
    "life=excluded.life,bytes=excluded.bytes,status=excluded.status,"
    "count=excluded.count,start=excluded.start,duration=excluded.duration,"
    "error=excluded.error,sum=excluded.sum where "
    "excluded.version>runs.version";
static const char put_past[] =
    "insert or ignore into history values(?,?,?,?,?,?,?,?,?,?)";
static const char put_block[] =
    "insert or ignore into runs(name,key,version,token,stamp,not_before,fresh,"
    "life,bytes,status) values(?1,?2,?3,?3,0,9223372036854775807,"
    "9223372036854775807,9223372036854775807,x'c1','Unreadable')";

static int open_new(rebuild *r, const char *path) {
  int rc = sqlite3_open_v2(path, &r->db,
                           SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
  if (rc == SQLITE_OK)
    rc = sqlite3_exec(r->db, "pragma journal_mode=off;pragma synchronous=off",
                      NULL, NULL, NULL);
  if (rc == SQLITE_OK)
    rc = sqlite3_exec(r->db, egi_db_schema, NULL, NULL, NULL);
  if (rc == SQLITE_OK)
    rc = sqlite3_exec(r->db, "begin", NULL, NULL, NULL);
  if (rc == SQLITE_OK)
    rc = sqlite3_prepare_v2(r->db, put_run, -1, &r->run, NULL);
  if (rc == SQLITE_OK)
    rc = sqlite3_prepare_v2(r->db, put_past, -1, &r->past, NULL);
  if (rc == SQLITE_OK)
    rc = sqlite3_prepare_v2(r->db, put_block, -1, &r->block, NULL);
  return rc;
}

static uint64_t count(sqlite3 *db, const char *sql) {
  sqlite3_stmt *s = NULL;
  uint64_t n = 0;
  if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK &&
      sqlite3_step(s) == SQLITE_ROW)
    n = (uint64_t)sqlite3_column_int64(s, 0);
  sqlite3_finalize(s);
  return n;
}

static int close_new(rebuild *r) {
  sqlite3_finalize(r->run);
  sqlite3_finalize(r->past);
  sqlite3_finalize(r->block);
  int rc = r->rc;
  if (rc == SQLITE_OK)
    rc = sqlite3_exec(r->db, "commit", NULL, NULL, NULL);
  r->out->blocked = count(r->db,
                          "select count(*) from runs where bytes=x'c1'");
  r->out->records = count(r->db,
                          "select count(*) from runs where bytes<>x'c1'");
  r->out->history = count(r->db, "select count(*) from history");
  int end = sqlite3_close(r->db);
  return rc != SQLITE_OK ? rc : end;
}

/* Reads the old one into the new one. */
static eg_status fill(rebuild *r, int db, int log, eg_error *error) {
  char path[PATH_MAX + 16];
  snprintf(path, sizeof path, "%s/" NEW, r->dir->path);
  eg_status status = EG_OK;
  r->rc = open_new(r, path);
  if (r->rc == SQLITE_OK) {
    status = egi_pages_visit(db, log, r->env, keep, r, error);
    if (status == EG_OK) {
      block_past(r);
      block_names(r);
    }
  }
  int rc = close_new(r);
  if (status == EG_OK && rc != SQLITE_OK)
    status = egi_file_fail(error, EG_UNAVAILABLE, 0,
                           "%s: %s; the old database is as it was", path,
                           sqlite3_errstr(rc));
  return status;
}

/* -------------------------------------------------- taking its place -- */

static bool sync_file(int folder, const char *name, int flags) {
  int fd = openat(folder, name, flags | O_NOFOLLOW | O_CLOEXEC);
  bool done = fd >= 0 && fsync(fd) == 0;
  if (fd >= 0)
    close(fd);
  return done;
}

/* A second name for the old one, that nobody has: by the time, and a number
** where it was rebuilt twice within a second. */
static bool keep_old(const rebuild *r) {
  char *name = r->out->kept;
  size_t room = sizeof r->out->kept;
  time_t now = time(NULL);
  struct tm tm;
  gmtime_r(&now, &tm);
  size_t n = strftime(name, room, "guard.db.broken-%Y%m%dT%H%M%SZ", &tm);
  for (int i = 2; i < 100; i++) {
    if (linkat(r->dir->fd, "guard.db", r->dir->fd, name, 0) == 0)
      return true;
    if (errno != EEXIST)
      return false;
    snprintf(name + n, room - n, "-%d", i);
  }
  return false;
}

/* The old one gets a second name, and then loses its first. */
static eg_status replace(rebuild *r, eg_error *error) {
  int dir = r->dir->fd;
  char log[sizeof r->out->kept + 8];
  _Atomic uint32_t *number = &r->dir->side.head->database;
  if (!sync_file(dir, NEW, O_RDWR))
    return cannot(r, "write " NEW, error);
  if (!keep_old(r))
    return cannot(r, "keep the old database", error);
  if (atomic_load(number) % 2 == 0) /* or somebody died here */
    atomic_fetch_add(number, 1);
  snprintf(log, sizeof log, "%s-wal", r->out->kept);
  if (renameat(dir, "guard.db-wal", dir, log) != 0 && errno != ENOENT)
    return cannot(r, "keep the log of the old database", error);
  unlinkat(dir, "guard.db-shm", 0);
  if (renameat(dir, NEW, dir, "guard.db") != 0)
    return cannot(r, "rename " NEW, error);
  sync_file(dir, ".", O_RDONLY | O_DIRECTORY);
  atomic_fetch_add(number, 1);
  return EG_OK;
}

/* --------------------------------------------------------- all of it -- */

/* False also where there is no such table. */
static bool rows_are_sound(sqlite3 *db) {
  sqlite3_stmt *s = NULL;
  int rc = sqlite3_prepare_v2(db,
                              "select name,key,bytes,sum from runs where "
                              "length(bytes)>0 and bytes<>x'c1'",
                              -1, &s, NULL);
  while (rc == SQLITE_OK && (rc = sqlite3_step(s)) == SQLITE_ROW) {
    eg_bytes part[3];
    for (int i = 0; i < 3; i++)
      part[i] = (eg_bytes){sqlite3_column_blob(s, i),
                           (size_t)sqlite3_column_bytes(s, i)};
    rc = egi_file_sum(part[0], part[1], part[2]) == sqlite3_column_int64(s, 3)
             ? SQLITE_OK
             : SQLITE_CORRUPT;
  }
  sqlite3_finalize(s);
  return rc == SQLITE_DONE;
}

/* Does SQLite find nothing wrong with it? */
static bool is_whole(const egi_dir *dir) {
  char path[PATH_MAX + 16];
  sqlite3 *db = NULL;
  sqlite3_stmt *s = NULL;
  bool whole = false;
  snprintf(path, sizeof path, "%s/guard.db", dir->path);
  if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
                      NULL) == SQLITE_OK &&
      sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL) ==
          SQLITE_OK &&
      sqlite3_prepare_v2(db, "pragma integrity_check(1)", -1, &s, NULL) ==
          SQLITE_OK &&
      sqlite3_step(s) == SQLITE_ROW) {
    const char *text = (const char *)sqlite3_column_text(s, 0);
    whole = text != NULL && strcmp(text, "ok") == 0;
  }
  sqlite3_finalize(s);
  whole = whole && rows_are_sound(db);
  sqlite3_close(db);
  return whole;
}

/* With SQLite's files closed in this process, and other writers kept out. */
static eg_status rebuild_it(rebuild *r, eg_error *error) {
  int db, log = -1, new_db;
  r->out->whole = is_whole(r->dir);
  if (r->out->whole)
    return EG_OK;
  eg_status status = egi_file_open(r->dir->fd, "guard.db", O_RDONLY,
                                   r->options, &db, error);
  if (status != EG_OK)
    return status;
  if (egi_file_open(r->dir->fd, "guard.db-wal", O_RDONLY, r->options, &log,
                    NULL) != EG_OK)
    log = -1;
  unlinkat(r->dir->fd, NEW, 0);
  status = egi_file_open(r->dir->fd, NEW, O_RDWR | O_CREAT | O_EXCL,
                         r->options, &new_db, error);
  if (status == EG_OK) {
    close(new_db);
    status = fill(r, db, log, error);
    if (status == EG_OK)
      status = replace(r, error);
    if (status != EG_OK)
      unlinkat(r->dir->fd, NEW, 0);
  }
  close(db);
  if (log >= 0)
    close(log);
  return status;
}

/* What slots say is to be compared with the rows that there are now. */
static void suspect_all(const egi_dir *dir) {
  for (int i = 0; i < EGI_SHARDS; i++) {
    egi_side_shard *shard = &dir->side.head->shards[i];
    bool died;
    if (egi_mutex_lock(&shard->mutex, &died, NULL) != EG_OK)
      continue;
    shard->suspect = 1;
    egi_mutex_unlock(&shard->mutex);
  }
}

static eg_status in_turn(rebuild *r, eg_error *error) {
  egi_dir *dir = r->dir;
  bool died;
  pthread_mutex_lock(&dir->db_mutex);
  egi_db_close(dir);
  eg_status status = egi_mutex_lock(&dir->side.head->writer, &died, error);
  if (status == EG_OK) {
    status = rebuild_it(r, error);
    egi_mutex_unlock(&dir->side.head->writer);
  }
  pthread_mutex_unlock(&dir->db_mutex);
  if (status == EG_OK && !r->out->whole)
    suspect_all(dir);
  return status;
}

eg_status egi_file_rebuild(const egi_url *url, const eg_env *env,
                           eg_rebuilt *out, eg_error *error) {
  char path[PATH_MAX];
  egi_file_options options;
  egi_dir *dir;
  memset(out, 0, sizeof *out);
  eg_status status = egi_file_url(url, &options, path, sizeof path, error);
  if (status == EG_OK && options.only_locks)
    status = egi_file_fail(error, EG_UNSUPPORTED, 0,
                           "%s has no database (locks=.)", path);
  if (status == EG_OK)
    status = egi_dir_get(path, &options, env->clock, &dir, error);
  if (status != EG_OK)
    return status;
  rebuild r = {.dir = dir, .env = env, .options = &options, .out = out};
  status = in_turn(&r, error);
  egi_dir_put(dir);
  return status;
}
