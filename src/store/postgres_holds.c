/* SPDX-License-Identifier: MIT
** Many holds at once: renewing them, and ending them all.
*/
#include "store/postgres.h"

#include <string.h>

/* A close does not wait long for a database that is away: leases end what it
** held. */
enum { CLOSE_US = 500000 };

/* The parameters of one statement, as PostgreSQL has arrays: dimensions, has
** nulls, type; size, first index; then each element behind its length. */
enum { ARRAY_HEAD = 20 };

static unsigned char *put32(unsigned char *at, uint32_t number) {
  for (int i = 3; i >= 0; i--, number >>= 8)
    at[i] = (unsigned char)number;
  return at + 4;
}

static unsigned char *put_head(unsigned char *at, Oid type, size_t n) {
  at = put32(at, 1);
  at = put32(at, 0);
  at = put32(at, type);
  at = put32(at, (uint32_t)n);
  return put32(at, 1);
}

static size_t keys_size(const egi_hold_ref *holds, size_t n) {
  size_t size = ARRAY_HEAD;
  for (size_t i = 0; i < n; i++)
    size += 4 + holds[i].key.len;
  return size;
}

static void put_keys(unsigned char *at, const egi_hold_ref *holds, size_t n) {
  at = put_head(at, 17, n);
  for (size_t i = 0; i < n; i++) {
    at = put32(at, (uint32_t)holds[i].key.len);
    memcpy(at, holds[i].key.data, holds[i].key.len);
    at += holds[i].key.len;
  }
}

static void put_tokens(unsigned char *at, const egi_hold_ref *holds,
                       size_t n) {
  at = put_head(at, 20, n);
  for (size_t i = 0; i < n; i++) {
    at = put32(at, 8);
    at = put32(at, (uint32_t)(holds[i].token >> 32));
    at = put32(at, (uint32_t)holds[i].token);
  }
}

/* Those that the statement names were held under their tokens. */
static void read_each(const PGresult *result, const egi_hold_ref *holds,
                      size_t n, eg_status *each) {
  for (size_t i = 0; i < n; i++)
    each[i] = EG_LOST;
  for (int r = 0; r < PQntuples(result); r++) {
    const char *key = PQgetvalue(result, r, 1);
    size_t len = (size_t)PQgetlength(result, r, 1);
    for (size_t i = 0; i < n; i++)
      if (holds[i].token == (uint64_t)egi_pg_int64(result, r, 0) &&
          holds[i].key.len == len && memcmp(holds[i].key.data, key, len) == 0)
        each[i] = EG_OK;
  }
}

/* lease_us 0: they end. */
static eg_status one_call(egi_pg *pg, const egi_hold_ref *holds, size_t n,
                          int64_t lease_us, eg_status *each, eg_error *error) {
  const eg_env *env = &pg->env;
  size_t keys = keys_size(holds, n), tokens = ARRAY_HEAD + 12 * n;
  unsigned char *room = env->alloc(env->alloc_ud, NULL, 0, keys + tokens);
  if (room == NULL)
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  put_keys(room, holds, n);
  put_tokens(room + keys, holds, n);
  egi_pg_call call = {.statement = lease_us > 0 ? EGI_PG_RENEW : EGI_PG_END,
                      .hasty = lease_us == 0};
  egi_pg_add(&call, pg->name, strlen(pg->name));
  egi_pg_add(&call, room, keys);
  egi_pg_add(&call, room + keys, tokens);
  if (lease_us > 0)
    egi_pg_add_int64(&call, lease_us);
  else
    egi_pg_add(&call, pg->channel, strlen(pg->channel));
  int64_t most = pg->timeout_us;
  if (lease_us == 0 && most > CLOSE_US)
    most = CLOSE_US;
  PGresult *result;
  eg_status status = egi_pg_ask(pg->hub, &call, egi_real_us() + most, &result,
                                error);
  if (status == EG_OK) {
    read_each(result, holds, n, each);
    PQclear(result);
  }
  env->alloc(env->alloc_ud, room, keys + tokens, 0);
  return status;
}

/* Renewing and ending are both harmless to repeat. */
static eg_status all_calls(egi_pg *pg, const egi_hold_ref *holds, size_t n,
                           int64_t lease_us, eg_status *each,
                           eg_error *error) {
  eg_status status = EG_OK;
  for (size_t at = 0; status == EG_OK && at < n; at += EGI_PG_BATCH) {
    size_t count = n - at < EGI_PG_BATCH ? n - at : EGI_PG_BATCH;
    status = one_call(pg, holds + at, count, lease_us, each + at, error);
  }
  return status;
}

eg_status egi_pg_renew(egi_store *store, const egi_hold_ref *holds, size_t n,
                       int64_t lease_ms, eg_status *each, eg_error *error) {
  egi_pg *pg = (egi_pg *)store;
  int64_t most = EGI_LONG_US / 1000;
  int64_t ms = lease_ms < 1 ? 1 : lease_ms < most ? lease_ms : most;
  eg_status status = all_calls(pg, holds, n, ms * 1000, each, error);
  for (size_t i = 0; status == EG_OK && i < n; i++)
    if (each[i] == EG_LOST)
      egi_holding_remove(&pg->holds, holds[i].key, holds[i].token, &pg->env);
  return status;
}

void egi_pg_drop_all(egi_pg *pg) {
  enum { SOME = 64 };
  egi_holding *held[SOME];
  egi_hold_ref holds[SOME];
  eg_status each[SOME], status = EG_OK;
  for (size_t n; (n = egi_holding_take(&pg->holds, held, SOME)) > 0;) {
    size_t known = 0;
    for (size_t i = 0; i < n; i++)
      if (held[i]->token != 0)
        holds[known++] = (egi_hold_ref){{held[i]->key, held[i]->len},
                                        held[i]->token};
    if (status == EG_OK && known > 0) /* else their leases end them */
      status = all_calls(pg, holds, known, 0, each, NULL);
    for (size_t i = 0; i < n; i++)
      egi_holding_free(held[i], &pg->env);
  }
}
