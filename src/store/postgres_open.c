/* SPDX-License-Identifier: MIT
** A database is looked at when it is first met: is it new enough, is there a
** pooler in between, and is the table there?
*/
#include "store/postgres.h"

#include <stdlib.h>
#include <string.h>

enum { OLDEST = 100000 }; /* 10 */

static const char question[] =
    "SELECT pg_backend_pid(),current_setting('server_version_num'),"
    "obj_description(to_regclass('eg_records'),'pg_class'),"
    "current_setting('synchronous_commit'),to_regclass('eg_counts'),"
    "has_table_privilege(to_regclass('eg_history'),'INSERT')";

static eg_status said(PGresult *result, eg_error *error) {
  ExecStatusType how = PQresultStatus(result);
  eg_status status = EG_OK;
  if (how != PGRES_TUPLES_OK && how != PGRES_COMMAND_OK)
    status = egi_pg_error(result, error);
  if (status != EG_OK && !EG_IS_FAILURE(status))
    status = EG_UNAVAILABLE;
  return status;
}

/* Makes the table: the text is one transaction. */
static eg_status make_table(egi_pg_wire *wire, int64_t until_us,
                            eg_error *error) {
  PGresult *result = NULL;
  eg_status status = egi_pg_run_text(wire, egi_pg_schema, until_us, &result,
                                     error);
  if (status != EG_OK)
    return status;
  status = said(result, error);
  PQclear(result);
  if (status != EG_OK) {
    egi_pg_run_text(wire, "ROLLBACK", until_us, &result, NULL);
    PQclear(result);
  }
  return status;
}

static void remember(egi_pg *pg, bool may) {
  __atomic_store_n(&pg->hub->remembers, may, __ATOMIC_RELAXED);
}

static eg_status look_at(egi_pg *pg, egi_pg_wire *wire, const PGresult *result,
                         int64_t until_us, eg_error *error) {
  const char *version = PQgetvalue(result, 0, 1);
  const char *table = PQgetvalue(result, 0, 2);
  if (atoi(version) < OLDEST)
    return egi_remote_fail(error, EG_UNSUPPORTED, 0,
                           "this is PostgreSQL %.8s; the store needs version "
                           "10 or later",
                           PQparameterStatus(wire->conn, "server_version"));
  /* What a pooler says is not who does the work. */
  if (atoi(PQgetvalue(result, 0, 0)) != PQbackendPID(wire->conn))
    __atomic_store_n(&pg->hub->pooled, true, __ATOMIC_RELAXED);
  if (strcmp(PQgetvalue(result, 0, 3), "off") == 0)
    egi_remote_warn(&pg->env,
                    "postgres forgets the latest locks and records when it "
                    "crashes (synchronous_commit is off)");
  bool may = strcmp(PQgetvalue(result, 0, 5), "t") == 0;
  if (*table == '\0') {
    eg_status made = make_table(wire, until_us, error);
    remember(pg, made == EG_OK);
    return made;
  }
  if (strcmp(table, "executionguard 1") != 0)
    return egi_remote_fail(error, EG_UNSUPPORTED, 0,
                           "the table eg_records is not of this version of "
                           "the library: it says \"%.40s\"",
                           table);
  if (PQgetisnull(result, 0, 4) || PQgetisnull(result, 0, 5))
    /* made by an older one; then without it */
    may = make_table(wire, until_us, NULL) == EG_OK || may;
  remember(pg, may);
  return EG_OK;
}

static eg_status inspect_once(egi_pg *pg, int64_t until_us, eg_error *error) {
  egi_pg_wire *wire;
  PGresult *result = NULL;
  eg_status status = egi_pg_borrow(pg->hub, until_us, &wire, error);
  if (status != EG_OK)
    return status;
  status = egi_pg_run_text(wire, question, until_us, &result, error);
  if (status == EG_OK)
    status = said(result, error);
  if (status == EG_OK)
    status = look_at(pg, wire, result, until_us, error);
  PQclear(result);
  egi_pg_return(pg->hub, wire);
  return status;
}

eg_status egi_pg_inspect(egi_pg *pg, eg_error *error) {
  int64_t until = egi_real_us() + pg->timeout_us;
  eg_status status = EG_UNAVAILABLE;
  for (unsigned nth = 0; status == EG_UNAVAILABLE; nth++) {
    status = inspect_once(pg, until, error);
    int64_t us = egi_backoff_us(nth);
    if (status != EG_UNAVAILABLE || egi_real_us() + us >= until)
      break;
    egi_remote_sleep_us(us);
  }
  return status;
}
