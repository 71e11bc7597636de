/* SPDX-License-Identifier: MIT
** The ended runs in a PostgreSQL database: rows of eg_history, written by the
** statement that ends the run, swept after 90 days, and when there are more
** than a million.
*/
#include "store/holder.h"
#include "store/postgres.h"

#include <string.h>

static const char *const words[EG_RUN_COUNT] = {"Idle", "Running", "Completed",
                                                "TimedOut", "Failed"};

enum { KEY, TOKEN, START, DURATION, STATUS, ERROR, OWNER, EXIT, ID };

/* Who ran it, as far as is known here. */
static void add_owner(egi_pg *pg, eg_bytes key, egi_pg_call *call,
                      egi_seen *seen) {
  egi_holder holder;
  if (egi_recall_get(pg->recall, key, seen) &&
      egi_holder_read(seen->holder, &holder))
    egi_pg_add(call, holder.text.data, holder.text.len);
  else
    egi_pg_add_null(call);
}

void egi_pg_past_add(egi_pg *pg, eg_bytes key, const egi_swap *swap,
                     egi_pg_call *call, egi_seen *seen) {
  size_t n = swap->error.len < EGI_PAST_ERROR ? swap->error.len
                                              : EGI_PAST_ERROR;
  const char *word = words[swap->ended];
  egi_pg_add_int64(call, swap->start_us);
  egi_pg_add_int64(call, swap->duration_us);
  egi_pg_add(call, word, strlen(word));
  if (n > 0)
    egi_pg_add(call, swap->error.data, n);
  else
    egi_pg_add_null(call);
  add_owner(pg, key, call, seen);
  if (swap->exited)
    egi_pg_add_int32(call, swap->exit_status);
  else
    egi_pg_add_null(call);
}

static eg_bytes bytes_of(const PGresult *page, int i, int column) {
  return (eg_bytes){PQgetvalue(page, i, column),
                    (size_t)PQgetlength(page, i, column)};
}

static void read_row(const PGresult *page, int i, eg_past *past) {
  const char *word = PQgetvalue(page, i, STATUS);
  size_t len = (size_t)PQgetlength(page, i, STATUS);
  past->key = bytes_of(page, i, KEY);
  past->token = (uint64_t)egi_pg_int64(page, i, TOKEN);
  past->start_us = egi_pg_int64(page, i, START);
  past->duration_us = egi_pg_int64(page, i, DURATION);
  past->status = len == 9 && memcmp(word, "Completed", 9) == 0  ? EG_OK
                 : len == 8 && memcmp(word, "TimedOut", 8) == 0 ? EG_TIMEOUT
                                                                : EG_FAILED;
  past->error = bytes_of(page, i, ERROR);
  past->owner = bytes_of(page, i, OWNER);
  past->exited = !PQgetisnull(page, i, EXIT);
  past->exit_status = past->exited ? (int)egi_pg_int64(page, i, EXIT) : 0;
}

eg_status egi_pg_history(egi_store *store, eg_bytes key, size_t n,
                         eg_visit_past visit, void *ctx, eg_error *error) {
  egi_pg *pg = (egi_pg *)store;
  int64_t before = INT64_MAX;
  eg_status status = EG_OK;
  if (!__atomic_load_n(&pg->hub->remembers, __ATOMIC_RELAXED))
    return egi_remote_fail(error, EG_UNSUPPORTED, 0,
                           "there is no table eg_history in this database, "
                           "or this user may not write to it");
  while (status == EG_OK && n > 0) {
    egi_pg_call call = {.statement = EGI_PG_PAST};
    PGresult *page = NULL;
    egi_pg_add(&call, pg->name, strlen(pg->name));
    if (key.len > 0)
      egi_pg_add(&call, key.data, key.len);
    else
      egi_pg_add_null(&call);
    egi_pg_add_int64(&call, before);
    status = egi_pg_ask(pg->hub, &call, egi_real_us() + pg->timeout_us, &page,
                        error);
    int rows = status == EG_OK ? PQntuples(page) : 0;
    if (rows == 0)
      n = 0;
    for (int i = 0; i < rows && n > 0; i++) {
      eg_past past;
      read_row(page, i, &past);
      before = egi_pg_int64(page, i, ID);
      n = visit(ctx, &past) ? n - 1 : 0;
    }
    PQclear(page);
  }
  return status;
}
