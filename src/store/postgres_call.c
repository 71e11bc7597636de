/* SPDX-License-Identifier: MIT
** One question to a database, asked until there is an answer or no more time.
**
** Each statement is a transaction, so an error that the server tells means
** that nothing was applied.  A write whose answer did not come at all is
** INDETERMINATE: who asked finds out by looking.
*/
#include "store/postgres.h"

#include <string.h>

#define AGAIN EGI_AGAIN
#define LATER EGI_LATER
#define ELSEWHERE EG_LOST

static const struct {
  const char *code; /* or how it begins */
  eg_status means;
} meanings[] = {
    {"40001", LATER},     /* serialization failure */
    {"40P01", LATER},     /* deadlock */
    {"55P03", LATER},     /* lock not available */
    {"25006", ELSEWHERE}, /* read-only: a standby */
    {"57P", ELSEWHERE},   /* shutdown, crash, starting up */
    {"08", ELSEWHERE},
    {"26000", AGAIN}, /* a session that does not know what was prepared: */
    {"42P05", AGAIN}, /* or knows it already: there is a pooler */
    {"0A000", AGAIN}, /* the table changed under a prepared statement */
    {"57014", EG_UNAVAILABLE}, /* canceled, statement_timeout */
    {"53", EG_UNAVAILABLE},    /* too many connections, disk full, memory */
    {"58", EG_UNAVAILABLE},    /* input and output */
    {"28", EG_DENIED},
    {"42501", EG_DENIED},
    {"42P01", EG_UNAVAILABLE}, /* no such table: it was dropped */
    {"42883", EG_UNAVAILABLE},
};

eg_status egi_pg_error(const PGresult *result, eg_error *error) {
  const char *code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
  eg_status means = EG_INTERNAL;
  for (size_t i = 0; code != NULL && means == EG_INTERNAL &&
                     i < sizeof meanings / sizeof *meanings;
       i++)
    if (strncmp(code, meanings[i].code, strlen(meanings[i].code)) == 0)
      means = meanings[i].means;
  egi_remote_fail(error, EG_IS_FAILURE(means) ? means : EG_UNAVAILABLE, 0,
                  "postgres said: %.180s (%s)", text != NULL ? text : "?",
                  code != NULL ? code : "?");
  return means;
}

static bool is_error(const PGresult *result) {
  ExecStatusType status = PQresultStatus(result);
  return status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK;
}

/* OK: rows.  AGAIN, LATER, or how it ends. */
static eg_status judge(egi_pg_hub *hub, egi_pg_wire *wire, PGresult **result,
                       eg_error *error) {
  if (!is_error(*result)) {
    egi_pg_return(hub, wire);
    return EG_OK;
  }
  eg_status means = egi_pg_error(*result, error);
  PQclear(*result);
  *result = NULL;
  if (means == AGAIN) { /* what it has prepared is of no use */
    __atomic_store_n(&hub->pooled, true, __ATOMIC_RELAXED);
    egi_pg_discard(hub, wire);
    return AGAIN;
  }
  if (means == ELSEWHERE) {
    egi_pg_discard(hub, wire);
    egi_pg_discard_idle(hub);
    return LATER;
  }
  egi_pg_return(hub, wire);
  return means;
}

typedef struct question {
  egi_pg_hub *hub;
  const egi_pg_call *call;
  int64_t until_us;
  PGresult **result;
  eg_error *error;
} question;

static eg_status try_once(void *ctx, unsigned nth) {
  const question *q = ctx;
  egi_pg_wire *wire;
  (void)nth;
  eg_status status = egi_pg_borrow(q->hub, q->until_us, &wire, q->error);
  if (status != EG_OK)
    return status == EG_UNAVAILABLE ? LATER : status;
  bool pooled = __atomic_load_n(&q->hub->pooled, __ATOMIC_RELAXED);
  status = egi_pg_run(wire, q->call, pooled, q->until_us, q->result, q->error);
  if (status == EG_OK)
    return judge(q->hub, wire, q->result, q->error);
  bool doubt = q->call->writes && wire->sent;
  egi_pg_discard(q->hub, wire);
  if (!doubt)
    return LATER;
  if (q->error != NULL)
    q->error->status = EG_INDETERMINATE;
  return EG_INDETERMINATE;
}

eg_status egi_pg_ask(egi_pg_hub *hub, egi_pg_call *call, int64_t until_us,
                     PGresult **result, eg_error *error) {
  enum { TURNS_MAX = 8 };
  question q = {hub, call, until_us, result, error};
  *result = NULL;
  eg_status status = egi_remote_ask(try_once, &q, TURNS_MAX, call->hasty,
                                    until_us);
  return status == AGAIN ? EG_UNAVAILABLE : status;
}
