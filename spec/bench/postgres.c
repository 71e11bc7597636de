/* SPDX-License-Identifier: MIT
** The postgres store beside the same statements by hand, in one database, with
** the same synchronous_commit:
**
**   postgres URL ROUNDS CALLS HELD
*/
#include "servers.h"

#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

static const char *url;
static PGconn *hand;

static PGconn *connect_to(void) {
  PGconn *conn = PQconnectdb(url);
  if (PQstatus(conn) != CONNECTION_OK)
    die("postgres", PQerrorMessage(conn));
  return conn;
}

static void say(PGconn *conn, PGresult *result) {
  ExecStatusType status = PQresultStatus(result);
  if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
    die("postgres", PQerrorMessage(conn));
  PQclear(result);
}

/* The statement is prepared; the row changes each time. */
static void upsert(PGconn *conn, const char *key, int number) {
  char text[16];
  const char *values[] = {key, text};
  snprintf(text, sizeof text, "%d", number);
  say(conn, PQexecPrepared(conn, "upsert", 2, values, NULL, NULL, 0));
}

static void prepare(PGconn *conn) {
  say(conn, PQprepare(conn, "upsert",
                      "INSERT INTO raw (k, v) VALUES ($1, $2) ON CONFLICT (k) "
                      "DO UPDATE SET v = excluded.v",
                      2, NULL));
}

static void lock(int calls) {
  for (int i = 0; i < calls; i++) {
    upsert(hand, "lock", i);
    upsert(hand, "lock", -i - 1);
  }
}

static void get(int calls) {
  for (int i = 0; i < calls; i++)
    say(hand, PQexecPrepared(hand, "get", 0, NULL, NULL, NULL, 0));
}

static void pass(void) { say(hand, PQexec(hand, "NOTIFY relay, 'x'")); }

static void *come(void) {
  PGconn *conn = connect_to();
  prepare(conn);
  say(conn, PQexec(conn, "LISTEN relay"));
  return conn;
}

static void wait_for_it(void *who) {
  static int n;
  PGnotify *told;
  while ((told = PQnotifies(who)) == NULL) {
    struct pollfd fd = {.fd = PQsocket(who), .events = POLLIN};
    poll(&fd, 1, 20000);
    if (PQconsumeInput(who) == 0)
      die("postgres", PQerrorMessage(who));
  }
  PQfreemem(told);
  upsert(who, "relay", ++n);
}

int main(int argc, char **argv) {
  static const peer raw = {.name = "postgres",
                           .lock = lock,
                           .get = get,
                           .pass = pass,
                           .come = come,
                           .wait = wait_for_it};
  if (argc < 5)
    die("postgres", "URL ROUNDS CALLS HELD");
  url = argv[1];
  hand = connect_to();
  say(hand, PQexec(hand, "CREATE TABLE raw (k text PRIMARY KEY, v text) "
                         "WITH (fillfactor = 50)"));
  prepare(hand);
  upsert(hand, "cached", 1);
  say(hand,
      PQprepare(hand, "get", "SELECT v FROM raw WHERE k = 'cached'", 0, NULL));
  measure_store(url, &raw, atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
  PQfinish(hand);
  return 0;
}
