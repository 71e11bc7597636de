/* SPDX-License-Identifier: MIT
** What the files of the PostgreSQL store share: connections, statements.
**
** A record is one row of the table eg_records (postgres_sql.c); only its
** statements write there, one row at a time and each a transaction of its own,
** so no lock is held between two of them.
**
** A database (egi_pg_hub) is shared by all handles of the process that name it
** in the same way: its connections, at most so many, and the thread that
** listens for what others write.
**
** Locks are those of remote.h; the hub's mutex guards the idle connections and
** what is known of the server.
*/
#ifndef EG_STORE_POSTGRES_H
#define EG_STORE_POSTGRES_H

#include "store/remote.h"

#include <libpq-fe.h>

enum { EGI_PG_BATCH = 500, EGI_PG_CHANNEL = 24, EGI_PG_VALUES = 20 };

/* What a URL says. */
typedef struct egi_pg_options {
  char *url; /* as libpq is to have it */
  size_t url_size;
  char *listen; /* of a direct connection; NULL: the same */
  size_t listen_size;
  int64_t timeout_us; /* of one operation, with all its new tries */
  int64_t lease_ms;
  unsigned connections; /* of this process, at most */
} egi_pg_options;

typedef struct egi_pg_wire egi_pg_wire; /* a connection */
typedef struct egi_pg_hub egi_pg_hub;

struct egi_pg_wire {
  egi_pg_wire *next;
  PGconn *conn;
  unsigned prepared; /* bits of the statements that this session knows */
  bool sent;         /* since it was borrowed */
};

struct egi_pg_hub {
  egi_server base;
  egi_pg_options options;
  egi_pg_wire *idle;
  unsigned failures;     /* to connect, one after the other */
  int64_t not_before_us; /* real: the next try */
  bool known;            /* the server was looked at */
  bool remembers;        /* there is a table for the history, and it is ours to
                     write */
  bool pooled; /* there is a pooler in between: sessions are not ours */
  bool polls;  /* the listener: nobody tells it */
};

typedef struct egi_pg {
  egi_store base;
  eg_env env;
  egi_pg_hub *hub;
  int64_t timeout_us;
  egi_recall *recall;
  egi_holding_set holds;
  char name[EG_NAME_MAX + 1];
  char channel[EGI_PG_CHANNEL];
  int64_t sweep_us;    /* steady: when rows are swept; tend's alone */
  unsigned generation; /* of forks, as the hub counts them */
} egi_pg;

/* ---------------------------------------------------- postgres_url.c -- */

eg_status egi_pg_options_read(const egi_url *url, const eg_env *env,
                              egi_pg_options *options, eg_error *error);
void egi_pg_options_free(egi_pg_options *options, const eg_env *env);
bool egi_pg_options_copy(egi_pg_options *to, const egi_pg_options *from,
                         const eg_env *env);
/* The same database, and the same visitor? */
bool egi_pg_options_alike(const egi_pg_options *a, const egi_pg_options *b);

/* ---------------------------------------------------- postgres_sql.c -- */

typedef enum egi_pg_statement {
  EGI_PG_LOAD,   /* ns, key */
  EGI_PG_UPDATE, /* as EGI_PG_SWAP */
  EGI_PG_INSERT,
  EGI_PG_LOCK,        /* as EGI_PG_INSERT, of a swap that takes, no more */
  EGI_PG_BEGIN,       /* ... that takes and puts */
  EGI_PG_UNLOCK,      /* as EGI_PG_UPDATE, of a holder's that drops, no more */
  EGI_PG_SWAP,        /* both, as a function: behind a pooler */
  EGI_PG_RENEW,       /* ns, keys, tokens, lease */
  EGI_PG_END,         /* ns, keys, tokens, channel */
  EGI_PG_MARK,        /* ns, key: somebody waits */
  EGI_PG_LOOK,        /* names, keys */
  EGI_PG_LAST,        /* ns: its last key */
  EGI_PG_SCAN,        /* ns, from, prefix, inclusive */
  EGI_PG_SWEEP,       /* none */
  EGI_PG_COUNT,       /* ns, key, fields, amounts */
  EGI_PG_COUNTS,      /* ns, from, prefix, inclusive, exact */
  EGI_PG_UNCOUNT,     /* none */
  EGI_PG_UPDATE_PAST, /* as EGI_PG_UPDATE, and the run that it ends */
  EGI_PG_COMMIT_PAST, /* ... of a holder's swap that drops and puts */
  EGI_PG_SWAP_PAST,
  EGI_PG_PAST,   /* ns, key or NULL, id */
  EGI_PG_UNPAST, /* none */
  EGI_PG_NOTIFY, /* channel, text */
  EGI_PG_STATEMENTS
} egi_pg_statement;

typedef struct egi_pg_text {
  const char *name, *text;
  int n;
  Oid types[EGI_PG_VALUES];
} egi_pg_text;

extern const egi_pg_text egi_pg_texts[EGI_PG_STATEMENTS];
extern const char egi_pg_schema[];

/* The columns of a row, first in LOAD, UPDATE, INSERT, SWAP, MARK, SCAN. */
enum { EGI_PG_NOW = 11, EGI_PG_LANDED = 12, EGI_PG_KEY = 12 };

/* egi_pg_row_read: a row of a result as that; *now: the time it was read.
** bytes and holder are borrowed.  False: there is no row (absent). */
bool egi_pg_row_read(const PGresult *result, int i, egi_row *row,
                     int64_t *now_us);
int64_t egi_pg_int64(const PGresult *result, int i, int column);
bool egi_pg_bool(const PGresult *result, int i, int column);

/* --------------------------------------------------- postgres_wire.c -- */

/* egi_pg_connect: UNAVAILABLE, DENIED, INVALID. */
eg_status egi_pg_connect(egi_pg_hub *hub, const char *url, int64_t until_us,
                         egi_pg_wire **wire, eg_error *error);
void egi_pg_wire_free(egi_pg_hub *hub, egi_pg_wire *wire);
bool egi_pg_wire_is_dead(const egi_pg_wire *wire);

/* What is asked of a server. */
typedef struct egi_pg_call {
  egi_pg_statement statement;
  bool writes; /* once sent, it may have been applied */
  bool hasty;  /* asked again but once: nobody waits for it */
  int n;
  const char *values[EGI_PG_VALUES];
  int lens[EGI_PG_VALUES];
  uint64_t numbers[EGI_PG_VALUES]; /* what some of the values are in */
} egi_pg_call;

void egi_pg_add(egi_pg_call *call, const void *data, size_t len);
void egi_pg_add_null(egi_pg_call *call);
void egi_pg_add_int64(egi_pg_call *call, int64_t number);
void egi_pg_add_int32(egi_pg_call *call, int32_t number);
void egi_pg_add_bool(egi_pg_call *call, bool is);

/* egi_pg_run: a statement on a connection.  OK: a result, of rows or of an
** error, which the caller clears.  UNAVAILABLE: the connection is of no use
** any more.  egi_pg_run_text: plain SQL without parameters; results as
** text. */
eg_status egi_pg_run(egi_pg_wire *wire, const egi_pg_call *call, bool pooled,
                     int64_t until_us, PGresult **result, eg_error *error);
eg_status egi_pg_run_text(egi_pg_wire *wire, const char *text,
                          int64_t until_us, PGresult **result,
                          eg_error *error);

/* ---------------------------------------------------- postgres_hub.c -- */

extern const egi_server_kind egi_pg_kind;
eg_status egi_pg_borrow(egi_pg_hub *hub, int64_t until_us, egi_pg_wire **wire,
                        eg_error *error);
void egi_pg_return(egi_pg_hub *hub, egi_pg_wire *wire);
void egi_pg_discard(egi_pg_hub *hub, egi_pg_wire *wire);
void egi_pg_discard_idle(egi_pg_hub *hub);

/* --------------------------------------------------- postgres_call.c -- */

/* egi_pg_ask: asks, again and again until the time is up where that is safe.
** OK: *result has rows, and the caller clears it.  UNAVAILABLE (nothing was
** applied), INDETERMINATE, DENIED, INTERNAL: there is none. */
eg_status egi_pg_ask(egi_pg_hub *hub, egi_pg_call *call, int64_t until_us,
                     PGresult **result, eg_error *error);

/* egi_pg_error: what an error result means.  CHANGED: ask again, CONFLICT:
** the same, after a while; EG_LOST: elsewhere. */
eg_status egi_pg_error(const PGresult *result, eg_error *error);

/* --------------------------------------------------- postgres_open.c -- */

/* egi_pg_inspect: looks at a server when it is first met, and makes the table
** where it is missing. */
eg_status egi_pg_inspect(egi_pg *pg, eg_error *error);

/* -------------------------------------------------------- postgres.c -- */

eg_status egi_pg_load(egi_store *store, eg_bytes key, int64_t deadline_us,
                      egi_seen *seen, eg_error *error);

/* -------------------------------------------------- postgres_holds.c -- */

eg_status egi_pg_renew(egi_store *store, const egi_hold_ref *holds, size_t n,
                       int64_t lease_ms, eg_status *each, eg_error *error);
void egi_pg_drop_all(egi_pg *pg);

/* -------------------------------------------------- postgres_count.c -- */

eg_status egi_pg_add_counts(egi_store *store, eg_bytes key,
                            const egi_counts *more, int64_t deadline_us,
                            eg_error *error);
eg_status egi_pg_counts(egi_store *store, eg_bytes prefix, bool exact,
                        int64_t deadline_us, egi_counts_fn visit, void *ctx,
                        eg_error *error);

/* -------------------------------------------------- postgres_watch.c -- */

eg_status egi_pg_watch(egi_store *store, eg_bytes key, const egi_seen *seen,
                       egi_watch **watch, int *fd, eg_error *error);
eg_status egi_pg_wait(egi_watch *watch, int64_t deadline_us, eg_error *error);
void egi_pg_unwatch(egi_watch *watch);
void egi_pg_listen(egi_server *server);

/* --------------------------------------------------- postgres_scan.c -- */

eg_status egi_pg_scan(egi_store *store, eg_bytes prefix, egi_visit_fn visit,
                      void *ctx, eg_error *error);
/* egi_pg_sweep: deletes rows that nobody has used for a day: some records, and
** what is counted of keys without one. */
void egi_pg_sweep(egi_pg *pg);

/* ------------------------------------------------ postgres_history.c -- */

/* egi_pg_past_add: what a swap says of the run that it ends; seen keeps what
** is borrowed until the call is made. */
void egi_pg_past_add(egi_pg *pg, eg_bytes key, const egi_swap *swap,
                     egi_pg_call *call, egi_seen *seen);
eg_status egi_pg_history(egi_store *store, eg_bytes key, size_t n,
                         eg_visit_past visit, void *ctx, eg_error *error);

#endif
