/* SPDX-License-Identifier: MIT
** All records of a namespace, a page at a time in the order of their keys; and
** what deletes rows that nobody uses any more.
*/
#include "store/postgres.h"

#include <string.h>

/* Where the next page begins. */
typedef struct place {
  unsigned char key[EG_KEY_MAX];
  size_t len;
  bool inclusive;
} place;

static eg_status next_page(egi_pg *pg, const place *at, eg_bytes prefix,
                           PGresult **result, eg_error *error) {
  egi_pg_call call = {.statement = EGI_PG_SCAN};
  egi_pg_add(&call, pg->name, strlen(pg->name));
  egi_pg_add(&call, at->key, at->len);
  egi_pg_add(&call, prefix.data, prefix.len);
  egi_pg_add_bool(&call, at->inclusive);
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
    if (seen.bytes.len > 0 && !visit(ctx, key, &seen))
      return false;
  }
  return true;
}

eg_status egi_pg_scan(egi_store *store, eg_bytes prefix, egi_visit_fn visit,
                      void *ctx, eg_error *error) {
  egi_pg *pg = (egi_pg *)store;
  place at = {.len = prefix.len, .inclusive = true};
  bool more = prefix.len <= EG_KEY_MAX;
  eg_status status = EG_OK;
  if (more && prefix.len > 0)
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
  egi_pg_call call = {.statement = EGI_PG_SWEEP, .hasty = true};
  PGresult *result;
  if (egi_pg_ask(pg->hub, &call, egi_real_us() + pg->timeout_us, &result,
                 NULL) == EG_OK)
    PQclear(result);
}
