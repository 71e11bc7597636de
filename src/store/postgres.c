/* SPDX-License-Identifier: MIT
** The PostgreSQL store: one statement for each swap that nobody else was
** before, one round trip.
*/
#include "store/postgres.h"

#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* --------------------------------------------------------------- forks -- */

static void pg_forked(egi_store *store) {
  egi_pg *pg = (egi_pg *)store;
  pthread_mutex_init(&pg->holds.mutex, NULL);
  egi_holding_clear(&pg->holds, &pg->env);
  egi_recall_forked(pg->recall);
}

/* In a child for the first time?  Then the parent's holds are not its own. */
static void notice_fork(egi_pg *pg) {
  if (egi_server_is_new_child(&pg->hub->base, &pg->generation))
    pg_forked(&pg->base);
}

/* ------------------------------------------------------------- closing -- */

static void release(egi_pg *pg) {
  eg_env env = pg->env;
  egi_holding_clear(&pg->holds, &env);
  pthread_mutex_destroy(&pg->holds.mutex);
  if (pg->hub != NULL)
    egi_server_leave(&pg->hub->base, pg->base.space);
  egi_recall_free(pg->recall);
  env.alloc(env.alloc_ud, pg, sizeof *pg, 0);
}

static void pg_close(egi_store *store) {
  egi_pg *pg = (egi_pg *)store;
  notice_fork(pg);
  egi_pg_drop_all(pg);
  release(pg);
}

/* ------------------------------------------------------------ load, swap - */

/* What was seen, into seen's own memory and into the recollection. */
static eg_status show(egi_pg *pg, eg_bytes key, const egi_seen *met,
                      egi_seen *seen, eg_error *error) {
  if (!egi_seen_keep(seen, met, &pg->env))
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  egi_recall_keep(pg->recall, key, met);
  return EG_OK;
}

static eg_status show_row(egi_pg *pg, eg_bytes key, const PGresult *result,
                          egi_seen *seen, eg_error *error) {
  egi_seen met;
  egi_row row;
  int64_t now;
  egi_seen_init(&met);
  if (egi_pg_row_read(result, 0, &row, &now))
    egi_row_see(&row, now, &met);
  else
    egi_row_absent(now, &met);
  return show(pg, key, &met, seen, error);
}

static eg_status look(egi_pg *pg, eg_bytes key, int64_t until_us,
                      egi_seen *seen, eg_error *error) {
  egi_pg_call call = {.statement = EGI_PG_LOAD};
  PGresult *result;
  egi_pg_add(&call, pg->name, strlen(pg->name));
  egi_pg_add(&call, key.data, key.len);
  eg_status status = egi_pg_ask(pg->hub, &call, until_us, &result, error);
  if (status != EG_OK)
    return status;
  status = PQntuples(result) == 1
               ? show_row(pg, key, result, seen, error)
               : egi_remote_fail(error, EG_INTERNAL, 0,
                                 "postgres answered with something else");
  PQclear(result);
  return status;
}

eg_status egi_pg_load(egi_store *store, eg_bytes key, int64_t deadline_us,
                      egi_seen *seen, eg_error *error) {
  egi_pg *pg = (egi_pg *)store;
  notice_fork(pg);
  return look(pg, key,
              egi_real_deadline(&pg->env, deadline_us, pg->timeout_us), seen,
              error);
}

/* A duration, no longer than anybody lives, in microseconds; -1: leave. */
static int64_t micro(int64_t ms) {
  if (ms == EGI_LEAVE_TIME)
    return -1;
  if (ms <= 0)
    return 0;
  return ms < EGI_LONG_US / 1000 ? ms * 1000 : EGI_LONG_US;
}

static void fill(const egi_pg *pg, eg_bytes key, const egi_swap *swap,
                 egi_pg_call *call) {
  bool put = swap->write == EGI_PUT && swap->bytes.len > 0;
  bool take = swap->hold == EGI_TAKE;
  egi_pg_add(call, pg->name, strlen(pg->name));
  egi_pg_add(call, key.data, key.len);
  egi_pg_add_int64(call, (int64_t)swap->expect);
  egi_pg_add_int64(call, (int64_t)swap->token);
  egi_pg_add_int32(call, (int32_t)swap->write);
  egi_pg_add_int32(call, (int32_t)swap->hold);
  if (put)
    egi_pg_add(call, swap->bytes.data, swap->bytes.len);
  else
    egi_pg_add_null(call);
  if (take)
    egi_pg_add(call, swap->holder.data, swap->holder.len);
  else
    egi_pg_add_null(call);
  egi_pg_add_int64(call, take ? micro(swap->lease_ms) : 0);
  egi_pg_add_int64(call, micro(swap->not_before_ms));
  egi_pg_add_int64(call, micro(swap->fresh_ms));
  egi_pg_add_int64(call, micro(swap->life_ms));
  egi_pg_add_bool(call, swap->wake);
  egi_pg_add(call, pg->channel, strlen(pg->channel));
}

_Static_assert(EGI_LEAVE == 0 && EGI_FORGET == 1 && EGI_PUT == 2,
               "the statements know these numbers");
_Static_assert(EGI_KEEP == 0 && EGI_TAKE == 1 && EGI_DROP == 2 &&
                   EGI_BREAK == 3,
               "and these");

static void note_hold(egi_pg *pg, eg_bytes key, const egi_swap *swap,
                      egi_holding **held, uint64_t token) {
  if (swap->hold == EGI_TAKE) {
    egi_holding_add(&pg->holds, *held, token, &pg->env);
    *held = NULL;
  } else if (swap->hold != EGI_KEEP) {
    egi_holding_remove(&pg->holds, key, 0, &pg->env);
  }
}

/* It landed: what it left.  Bytes are not told. */
static void take_note(egi_pg *pg, eg_bytes key, const egi_swap *swap,
                      const PGresult *result, egi_holding **held,
                      egi_seen *seen) {
  egi_seen met;
  egi_row row;
  int64_t now;
  egi_seen_init(&met);
  egi_pg_row_read(result, 0, &row, &now);
  egi_row_see(&row, now, &met);
  met.at.token = row.token;
  met.bytes = met.holder = (eg_bytes){NULL, 0};
  egi_seen_keep(seen, &met, &pg->env); /* no bytes: no memory */
  note_hold(pg, key, swap, held, row.token);
  egi_recall_swapped(pg->recall, key, swap, &met);
}

/* Without a pooler: the statement that has the least to do. */
static egi_pg_statement statement_for(const egi_swap *swap, bool past) {
  bool takes = swap->hold == EGI_TAKE && swap->token == 0 && !swap->wake;
  bool ends = swap->hold == EGI_DROP && swap->token != 0 && swap->wake;
  bool puts = swap->write == EGI_PUT, leaves = swap->write == EGI_LEAVE;
  if (past)
    return ends && puts ? EGI_PG_COMMIT_PAST : EGI_PG_UPDATE_PAST;
  if (swap->expect == 0) {
    if (takes && puts)
      return EGI_PG_BEGIN;
    leaves = leaves && swap->fresh_ms <= 0 && swap->life_ms <= 0;
    return takes && leaves ? EGI_PG_LOCK : EGI_PG_INSERT;
  }
  leaves = leaves && swap->not_before_ms == EGI_LEAVE_TIME &&
           swap->fresh_ms == EGI_LEAVE_TIME && swap->life_ms == EGI_LEAVE_TIME;
  return ends && leaves ? EGI_PG_UNLOCK : EGI_PG_UPDATE;
}

static eg_status send(egi_pg *pg, eg_bytes key, const egi_swap *swap,
                      int64_t until_us, egi_holding **held, egi_seen *seen,
                      eg_error *error) {
  bool pooled = __atomic_load_n(&pg->hub->pooled, __ATOMIC_RELAXED);
  bool past = egi_past_is_due(swap) && swap->expect != 0 &&
              __atomic_load_n(&pg->hub->remembers, __ATOMIC_RELAXED);
  egi_pg_call call = {.statement = statement_for(swap, past), .writes = true};
  PGresult *result;
  egi_seen before;
  egi_seen_init(&before);
  if (pooled)
    call.statement = past ? EGI_PG_SWAP_PAST : EGI_PG_SWAP;
  fill(pg, key, swap, &call);
  if (past)
    egi_pg_past_add(pg, key, swap, &call, &before);
  eg_status status = egi_pg_ask(pg->hub, &call, until_us, &result, error);
  egi_seen_free(&before, &pg->env);
  if (status != EG_OK)
    return status;
  if (PQntuples(result) == 0) /* only who comes second pays for a look */
    status = look(pg, key, until_us, seen, error);
  else if (egi_pg_bool(result, 0, EGI_PG_LANDED))
    take_note(pg, key, swap, result, held, seen);
  else
    status = show_row(pg, key, result, seen, error);
  bool landed = PQntuples(result) > 0 && egi_pg_bool(result, 0, EGI_PG_LANDED);
  PQclear(result);
  return status != EG_OK || landed ? status : EG_CONFLICT;
}

static eg_status pg_swap(egi_store *store, eg_bytes key, const egi_swap *swap,
                         int64_t deadline_us, egi_seen *seen,
                         eg_error *error) {
  egi_pg *pg = (egi_pg *)store;
  egi_holding *held = NULL;
  notice_fork(pg);
  int64_t until = egi_real_deadline(&pg->env, deadline_us, pg->timeout_us);
  if (swap->hold == EGI_TAKE) {
    held = egi_holding_new(key, &pg->env);
    if (held == NULL)
      return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  }
  eg_status status = send(pg, key, swap, until, &held, seen, error);
  egi_holding_free(held, &pg->env);
  return status;
}

static bool pg_recall(egi_store *store, eg_bytes key, egi_seen *seen) {
  egi_pg *pg = (egi_pg *)store;
  notice_fork(pg);
  return egi_recall_get(pg->recall, key, seen);
}

/* Rows that nobody has used for a day go, now and then; processes that begin
** together do not do that together. */
static int64_t pg_tend(egi_store *store, int64_t now_us, egi_lost_fn lost,
                       void *ctx) {
  egi_pg *pg = (egi_pg *)store;
  int64_t hour = INT64_C(3600000000);
  (void)lost;
  (void)ctx;
  if (pg->sweep_us == 0)
    pg->sweep_us = now_us + egi_backoff_us(6) * 7200;
  if (now_us < pg->sweep_us)
    return pg->sweep_us;
  pg->sweep_us = now_us + hour;
  egi_pg_sweep(pg);
  return pg->sweep_us;
}

/* ------------------------------------------------------------- opening -- */

static eg_status pg_open(const egi_url *url, const eg_env *env,
                         egi_store **store, eg_error *error);

/* What the library asks this object for. */
EG_API extern const egi_store_ops egi_postgres_ops;
const egi_store_ops egi_postgres_ops = {
    .abi = EGI_STORE_ABI,
    .blocks = true,
    .scheme = "postgres",
    .open = pg_open,
    .close = pg_close,
    .load = egi_pg_load,
    .swap = pg_swap,
    .renew = egi_pg_renew,
    .watch = egi_pg_watch,
    .wait = egi_pg_wait,
    .unwatch = egi_pg_unwatch,
    .scan = egi_pg_scan,
    .history = egi_pg_history,
    .add = egi_pg_add_counts,
    .counts = egi_pg_counts,
    .recall = pg_recall,
    .tend = pg_tend,
    .forked = pg_forked,
};

static egi_pg *make(const egi_url *url, const eg_env *env,
                    const egi_pg_options *options) {
  const char *name = url->name != NULL ? url->name : "default";
  egi_pg *pg = env->alloc(env->alloc_ud, NULL, 0, sizeof *pg);
  egi_recall *recall = pg != NULL ? egi_recall_new(env) : NULL;
  if (recall == NULL) {
    if (pg != NULL)
      env->alloc(env->alloc_ud, pg, sizeof *pg, 0);
    return NULL;
  }
  memset(pg, 0, sizeof *pg);
  pg->base.ops = &egi_postgres_ops;
  pg->base.lease_ms = options->lease_ms;
  pg->env = *env;
  pg->timeout_us = options->timeout_us;
  pg->recall = recall;
  egi_holding_init(&pg->holds);
  snprintf(pg->name, sizeof pg->name, "%s", name);
  snprintf(pg->channel, sizeof pg->channel, "eg_%016llx",
           (unsigned long long)XXH3_64bits(name, strlen(name)));
  return pg;
}

static eg_status pg_open(const egi_url *url, const eg_env *env,
                         egi_store **store, eg_error *error) {
  egi_pg_options options;
  eg_status status = egi_pg_options_read(url, env, &options, error);
  if (status != EG_OK)
    return status;
  egi_pg *pg = make(url, env, &options);
  egi_server *server = NULL;
  status = pg != NULL
               ? egi_server_find(&egi_pg_kind, &options, &server, error)
               : egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  egi_pg_options_free(&options, env);
  if (server != NULL) {
    pg->hub = (egi_pg_hub *)server;
    pg->generation = egi_server_generation(server);
    pg->base.space = egi_server_space(server, pg->name);
    status = egi_pg_inspect(pg, error);
  }
  if (status != EG_OK) {
    if (pg != NULL)
      release(pg);
    return status;
  }
  *store = &pg->base;
  return EG_OK;
}
