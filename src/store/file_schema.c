/* SPDX-License-Identifier: MIT
** The tables of guard.db, the views of them for people, and how a database
** that was opened is set up.  Its number
** (user_version) is raised with each change: a newer one is refused.
*/
#include "store/file.h"

#include <sqlite3.h>
#include <time.h>

enum { BUSY_MS = 5000 };

const char egi_db_schema[] =
    "begin immediate;"
    "create table if not exists runs("
    " name text not null, key blob not null, version integer not null,"
    " token integer not null, stamp integer not null,"
    " not_before integer not null, fresh integer not null,"
    " life integer not null, bytes blob not null,"
    " status text, count integer, start integer, duration integer,"
    " error text, sum integer not null default 0,"
    " primary key(name, key)) without rowid;"
    "create table if not exists history("
    " id integer primary key, name text not null, key blob not null,"
    " token integer, owner text, start integer, duration integer,"
    " status text, exit_status integer, error text);"
    "create index if not exists history_key on history(name, key, id);"
    "create view if not exists runs_view as select"
    " name as guard, cast(key as text) as key, status, count as runs,"
    " strftime('%Y-%m-%d %H:%M:%f', start / 1e6, 'unixepoch') as started,"
    " duration / 1e6 as seconds, error, token from runs"
    " where status is not null;"
    "create view if not exists history_view as select"
    " name as guard, cast(key as text) as key, status, owner,"
    " strftime('%Y-%m-%d %H:%M:%f', start / 1e6, 'unixepoch') as started,"
    " duration / 1e6 as seconds, exit_status, error, token from history"
    " order by id desc;"
    "pragma user_version = 1;"
    "commit;";

/* Only foreign programs are waited for here: ours wait on `writer`. */
static int when_busy(void *ctx, int n) {
  (void)ctx;
  struct timespec pause = {0, 50000 + (n * 7919 % 450) * 1000};
  nanosleep(&pause, NULL);
  return n < BUSY_MS * 1000 / 275;
}

static int step_once(sqlite3 *db, const char *sql) {
  return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static int user_version(sqlite3 *db, int *version) {
  sqlite3_stmt *s = NULL;
  int rc = sqlite3_prepare_v2(db, "pragma user_version", -1, &s, NULL);
  if (rc == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
    *version = sqlite3_column_int(s, 0);
  int end = sqlite3_finalize(s);
  return rc != SQLITE_OK ? rc : end;
}

/* Of several that turn a new database into this mode all but one are told at
** once that it is busy: SQLite asks no handler there, since each of them reads
** already, and two would wait for each other. */
static int make_wal(sqlite3 *db) {
  int rc, n = 0;
  do
    rc = step_once(db, "pragma journal_mode=wal");
  while ((rc & 0xff) == SQLITE_BUSY && when_busy(NULL, n++));
  return rc;
}

int egi_db_set_up(egi_dir *dir, int *version) {
  sqlite3 *db = dir->db.handle;
  sqlite3_extended_result_codes(db, 1);
  sqlite3_busy_handler(db, when_busy, NULL);
  /* Another process may have it open when we close it; and a fork closes. */
  sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
  int rc = make_wal(db);
  if (rc == SQLITE_OK)
    rc = step_once(db, dir->options.full ? "pragma synchronous=full"
                                         : "pragma synchronous=normal");
  dir->db.synced = dir->options.full;
  if (rc == SQLITE_OK)
    rc = user_version(db, version);
  if (rc == SQLITE_OK && *version == 0)
    rc = step_once(db, egi_db_schema);
  return rc;
}
