/* SPDX-License-Identifier: MIT
** One connection to PostgreSQL: made, asked and waited for no longer than a
** deadline says.
*/
#include "store/postgres.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* ------------------------------------------------------------ the call -- */

void egi_pg_add(egi_pg_call *call, const void *data, size_t len) {
  call->values[call->n] = len > 0 ? data : "";
  call->lens[call->n++] = (int)len;
}

void egi_pg_add_null(egi_pg_call *call) {
  call->values[call->n] = NULL;
  call->lens[call->n++] = 0;
}

static void add_number(egi_pg_call *call, uint64_t number, int size) {
  unsigned char *at = (unsigned char *)&call->numbers[call->n];
  for (int i = size; i > 0; i--, number >>= 8)
    at[i - 1] = (unsigned char)number;
  egi_pg_add(call, at, (size_t)size);
}

void egi_pg_add_int64(egi_pg_call *call, int64_t number) {
  add_number(call, (uint64_t)number, 8);
}

void egi_pg_add_int32(egi_pg_call *call, int32_t number) {
  add_number(call, (uint32_t)number, 4);
}

void egi_pg_add_bool(egi_pg_call *call, bool is) {
  add_number(call, is ? 1 : 0, 1);
}

/* ------------------------------------------------------------- waiting -- */

/* 1: ready; 0: the time is up; -1: errno. */
static int await(const PGconn *conn, short events, int64_t until_us) {
  for (;;) {
    struct pollfd fd = {.fd = PQsocket(conn), .events = events};
    int64_t left = until_us - egi_real_us();
    if (left <= 0)
      return 0;
    int n = poll(&fd, 1, left < 3600000000 ? (int)((left + 999) / 1000) : -1);
    if (n != 0 && !(n < 0 && errno == EINTR))
      return n;
  }
}

/* What the library said, in one line, without the last newline. */
static eg_status broken(const PGconn *conn, const char *what, int os_errno,
                        eg_error *error) {
  const char *why = PQerrorMessage(conn);
  return egi_remote_fail(error, EG_UNAVAILABLE, os_errno,
                         "the connection to postgres %s: %.*s", what,
                         (int)strcspn(why, "\n"), why);
}

/* ----------------------------------------------------------- connecting -- */

static eg_status poll_connection(PGconn *conn, int64_t until_us) {
  PostgresPollingStatusType state = PGRES_POLLING_WRITING;
  while (state != PGRES_POLLING_OK) {
    if (state == PGRES_POLLING_FAILED)
      return EG_UNAVAILABLE;
    int ready = await(conn, state == PGRES_POLLING_READING ? POLLIN : POLLOUT,
                      until_us);
    if (ready == 0)
      return EG_TIMEOUT;
    state = PQconnectPoll(conn);
  }
  return EG_OK;
}

/* What kind of failure that was, by the texts of a server: the library has no
** code for it. */
static bool is_refusal(const char *why) {
  static const char *const texts[] = {
      "password authentication failed", "no password supplied",
      "no pg_hba.conf entry",           "authentication failed",
      "permission denied for database", "does not exist",
      "is not permitted to log in"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    if (strstr(why, texts[i]) != NULL && strstr(why, "FATAL") != NULL)
      return true;
  return strstr(why, "no password supplied") != NULL;
}

/* Notices are for people at a terminal. */
static void ignore(void *ctx, const PGresult *result) {
  (void)ctx;
  (void)result;
}

static eg_status refused(PGconn *conn, eg_status status, eg_error *error) {
  const char *why = PQerrorMessage(conn);
  if (status == EG_TIMEOUT)
    return egi_remote_fail(error, EG_UNAVAILABLE, ETIMEDOUT,
                           "postgres at %.100s does not answer",
                           PQhost(conn) != NULL ? PQhost(conn) : "?");
  return egi_remote_fail(error, is_refusal(why) ? EG_DENIED : EG_UNAVAILABLE,
                         0, "no connection to postgres: %.*s",
                         (int)strcspn(why, "\n"), why);
}

eg_status egi_pg_connect(egi_pg_hub *hub, const char *url, int64_t until_us,
                         egi_pg_wire **wire_out, eg_error *error) {
  static const char *const names[] = {"dbname", "fallback_application_name",
                                      NULL};
  const char *const values[] = {url, "executionguard", NULL};
  egi_pg_wire *wire = hub->base.env.alloc(NULL, NULL, 0, sizeof *wire);
  if (wire == NULL)
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  *wire = (egi_pg_wire){.conn = PQconnectStartParams(names, values, 1)};
  if (wire->conn == NULL) {
    hub->base.env.alloc(NULL, wire, sizeof *wire, 0);
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  }
  eg_status status = PQstatus(wire->conn) == CONNECTION_BAD
                         ? EG_UNAVAILABLE
                         : poll_connection(wire->conn, until_us);
  if (status == EG_OK && PQsetnonblocking(wire->conn, 1) != 0)
    status = EG_UNAVAILABLE;
  if (status != EG_OK) {
    status = refused(wire->conn, status, error);
    egi_pg_wire_free(hub, wire);
    return status;
  }
  PQsetNoticeReceiver(wire->conn, ignore, NULL);
  *wire_out = wire;
  return EG_OK;
}

void egi_pg_wire_free(egi_pg_hub *hub, egi_pg_wire *wire) {
  PQfinish(wire->conn);
  hub->base.env.alloc(NULL, wire, sizeof *wire, 0);
}

/* An idle connection that has something to say says good-bye. */
bool egi_pg_wire_is_dead(const egi_pg_wire *wire) {
  struct pollfd fd = {.fd = PQsocket(wire->conn), .events = POLLIN};
  return fd.fd < 0 || poll(&fd, 1, 0) != 0;
}

/* -------------------------------------------------------------- asking -- */

static eg_status flush(PGconn *conn, int64_t until_us, eg_error *error) {
  int more;
  while ((more = PQflush(conn)) > 0) {
    int ready = await(conn, POLLIN | POLLOUT, until_us);
    if (ready == 0)
      return broken(conn, "took no more bytes in time", ETIMEDOUT, error);
    if (ready < 0 || PQconsumeInput(conn) == 0)
      return broken(conn, "broke", errno, error);
  }
  return more == 0 ? EG_OK
                   : broken(conn, "broke while it was written to", 0, error);
}

static eg_status next_result(PGconn *conn, int64_t until_us, PGresult **result,
                             eg_error *error) {
  while (PQisBusy(conn)) {
    int ready = await(conn, POLLIN, until_us);
    if (ready == 0)
      return broken(conn, "brought no answer in time", ETIMEDOUT, error);
    if (ready < 0 || PQconsumeInput(conn) == 0)
      return broken(conn, "broke", 0, error);
  }
  *result = PQgetResult(conn);
  return EG_OK;
}

static bool is_error(const PGresult *result) {
  ExecStatusType status = PQresultStatus(result);
  return status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK;
}

/* Reads to the end of what was asked: only then it is committed.  The last
** result counts, or the first error. */
static eg_status finish(egi_pg_wire *wire, int64_t until_us, PGresult **result,
                        eg_error *error) {
  PGconn *conn = wire->conn;
  eg_status status = flush(conn, until_us, error);
  PGresult *next = NULL;
  *result = NULL;
  while (status == EG_OK) {
    status = next_result(conn, until_us, &next, error);
    if (status != EG_OK || next == NULL)
      break;
    if (*result != NULL && is_error(*result)) {
      PQclear(next);
      continue;
    }
    PQclear(*result);
    *result = next;
  }
  /* An error that the library made up itself has no code: it broke. */
  if (status == EG_OK &&
      (*result == NULL ||
       (is_error(*result) &&
        PQresultErrorField(*result, PG_DIAG_SQLSTATE) == NULL)))
    status = broken(conn, "broke", 0, error);
  if (status != EG_OK) {
    PQclear(*result);
    *result = NULL;
  }
  return status;
}

static eg_status prepare(egi_pg_wire *wire, const egi_pg_text *text,
                         int64_t until_us, PGresult **result,
                         eg_error *error) {
  if (PQsendPrepare(wire->conn, text->name, text->text, text->n,
                    text->types) == 0)
    return broken(wire->conn, "broke", 0, error);
  return finish(wire, until_us, result, error);
}

eg_status egi_pg_run(egi_pg_wire *wire, const egi_pg_call *call, bool pooled,
                     int64_t until_us, PGresult **result, eg_error *error) {
  const egi_pg_text *text = &egi_pg_texts[call->statement];
  unsigned bit = 1u << call->statement;
  int formats[EGI_PG_VALUES];
  for (int i = 0; i < call->n; i++)
    formats[i] = 1;
  if (!pooled && (wire->prepared & bit) == 0) {
    eg_status status = prepare(wire, text, until_us, result, error);
    if (status != EG_OK || is_error(*result))
      return status;
    PQclear(*result);
    wire->prepared |= bit;
  }
  int good = pooled
                 ? PQsendQueryParams(wire->conn, text->text, call->n,
                                     text->types, call->values, call->lens,
                                     formats, 1)
                 : PQsendQueryPrepared(wire->conn, text->name, call->n,
                                       call->values, call->lens, formats, 1);
  if (good == 0)
    return broken(wire->conn, "broke", 0, error);
  wire->sent = true;
  return finish(wire, until_us, result, error);
}

eg_status egi_pg_run_text(egi_pg_wire *wire, const char *text,
                          int64_t until_us, PGresult **result,
                          eg_error *error) {
  if (PQsendQuery(wire->conn, text) == 0)
    return broken(wire->conn, "broke", 0, error);
  wire->sent = true;
  return finish(wire, until_us, result, error);
}
