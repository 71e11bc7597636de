/* SPDX-License-Identifier: MIT
** All records of a namespace, a page at a time in the order of their keys; and
** what deletes rows that nobody uses any more.
*/
#include "store/postgres.h"

#include <string.h>

/* Where the next page begins, and where the last one ends: at the last key
** that was there at the start, or a visitor that adds keys would meet them,
** without end. */
typedef struct place {
  unsigned char key[EG_KEY_MAX], last[EG_KEY_MAX];
  size_t len, last_len;
  bool inclusive;
} place;

/* *any false: there is no key. */
static eg_status find_last(egi_pg *pg, place *at, bool *any, eg_error *error) {
  egi_pg_call call = {.statement = EGI_PG_LAST};
  PGresult *result;
  *any = false;
  egi_pg_add(&call, pg->name, strlen(pg->name));
  eg_status status = egi_pg_ask(pg->hub, &call, egi_real_us() + pg->timeout_us,
                                &result, error);
  if (status != EG_OK)
    return status;
  *any = PQntuples(result) == 1 && PQgetlength(result, 0, 0) <= EG_KEY_MAX;
  if (*any) {
    at->last_len = (size_t)PQgetlength(result, 0, 0);
    memcpy(at->last, PQgetvalue(result, 0, 0), at->last_len);
  }
  PQclear(result);
  return EG_OK;
}

static eg_status next_page(egi_pg *pg, const place *at, eg_bytes prefix,
                           PGresult **result, eg_error *error) {
  egi_pg_call call = {.statement = EGI_PG_SCAN};
  egi_pg_add(&call, pg->name, strlen(pg->name));
  egi_pg_add(&call, at->key, at->len);
  egi_pg_add(&call, prefix.data, prefix.len);
  egi_pg_add_bool(&call, at->inclusive);
  egi_pg_add(&call, at->last, at->last_len);
  return egi_pg_ask(pg->hub, &call, egi_real_us() + pg->timeout_us, result,
                    error);
}

/* False: the visitor has seen enough. */
static bool visit_page(const PGresult *page, place *at, egi_visit_fn visit,
                       void *ctx) {
  for (int i = 0; i < PQntuples(page); i++) {
    egi_seen seen;
    egi_row row;
    int64_t now;
    at->len = (size_t)PQgetlength(page, i, EGI_PG_KEY);
    if (at->len > EG_KEY_MAX) /* none of ours */
      return false;
    memcpy(at->key, PQgetvalue(page, i, EGI_PG_KEY), at->len);
    at->inclusive = false;
    egi_seen_init(&seen);
    egi_pg_row_read(page, i, &row, &now);
    egi_row_see(&row, now, &seen);
    eg_bytes key = {at->key, at->len};
    if ((seen.bytes.len > 0 || seen.at.held) && !visit(ctx, key, &seen))
      return false;
  }
  return true;
}

eg_status egi_pg_scan(egi_store *store, eg_bytes prefix, egi_visit_fn visit,
                      void *ctx, eg_error *error) {
  egi_pg *pg = (egi_pg *)store;
  place at = {.len = prefix.len, .inclusive = true};
  bool more;
  if (prefix.len > EG_KEY_MAX)
    return EG_OK;
  eg_status status = find_last(pg, &at, &more, error);
  if (prefix.len > 0)
    memcpy(at.key, prefix.data, prefix.len);
  while (more && status == EG_OK) {
    PGresult *page = NULL;
    status = next_page(pg, &at, prefix, &page, error);
    more = status == EG_OK && PQntuples(page) > 0 &&
           visit_page(page, &at, visit, ctx);
    PQclear(page);
  }
  return status;
}

void egi_pg_sweep(egi_pg *pg) {
  static const egi_pg_statement each[] = {EGI_PG_SWEEP, EGI_PG_UNCOUNT,
                                          EGI_PG_UNPAST};
  for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
    egi_pg_call call = {.statement = each[i], .hasty = true};
    PGresult *result;
    if (egi_pg_ask(pg->hub, &call, egi_real_us() + pg->timeout_us, &result,
                   NULL) == EG_OK)
      PQclear(result);
  }
}
