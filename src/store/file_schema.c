/* SPDX-License-Identifier: MIT
** The tables of guard.db, and the views of them for people.  Its number
** (user_version) is raised with each change: a newer one is refused.
*/
#include "store/file.h"

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
