/* SPDX-License-Identifier: MIT
** What the postgres store counts of its keys: rows of eg_counts, one for each
** number of a key.  One statement adds to all of them.
**
**   field  -3 blocked, -2 cached, -1 microseconds waited, 0 and up: waits in
**          that bucket (core/histogram.h)
*/
#include "core/counters.h"
#include "core/codec.h"
#include "store/postgres.h"

#include <string.h>

enum { BLOCKED = -3, CACHED = -2, WAITED = -1 };
enum { FIELDS = EGI_TALLY_BUCKETS + 3, ARRAY_HEAD = 20, INT8 = 20 };

/* -------------------------------------------------------------- adding -- */

/* Two arrays of the same length, as PostgreSQL has them. */
typedef struct numbers {
  uint32_t n;
  unsigned char fields[ARRAY_HEAD + 12 * FIELDS];
  unsigned char amounts[ARRAY_HEAD + 12 * FIELDS];
} numbers;

static void put32(unsigned char *at, uint32_t number) {
  for (int i = 3; i >= 0; i--, number >>= 8)
    at[i] = (unsigned char)number;
}

static void put64(unsigned char *array, uint32_t n, uint64_t number) {
  unsigned char *at = array + ARRAY_HEAD + 12 * (size_t)n;
  put32(at, 8);
  put32(at + 4, (uint32_t)(number >> 32));
  put32(at + 8, (uint32_t)number);
}

static void count(numbers *all, int field, uint64_t amount) {
  if (amount == 0)
    return;
  put64(all->fields, all->n, (uint64_t)(int64_t)field);
  put64(all->amounts, all->n, amount < INT64_MAX ? amount : INT64_MAX);
  all->n++;
}

/* Dimensions, has nulls, type; size, first index. */
static void put_head(unsigned char *array, uint32_t n) {
  const uint32_t head[] = {1, 0, INT8, n, 1};
  for (size_t i = 0; i < 5; i++)
    put32(array + 4 * i, head[i]);
}

eg_status egi_pg_add_counts(egi_store *store, eg_bytes key,
                            const egi_counts *more, int64_t deadline_us,
                            eg_error *error) {
  egi_pg *pg = (egi_pg *)store;
  egi_pg_call call = {
      .statement = EGI_PG_COUNT, .writes = true, .hasty = true};
  PGresult *result = NULL;
  numbers all = {.n = 0};
  count(&all, BLOCKED, more->blocked);
  count(&all, CACHED, more->cached);
  count(&all, WAITED, (uint64_t)more->waits.total_us);
  for (unsigned i = 0; i < more->waits.n; i++)
    count(&all, more->waits.buckets[i].number, more->waits.buckets[i].runs);
  if (all.n == 0)
    return EG_OK;
  put_head(all.fields, all.n);
  put_head(all.amounts, all.n);
  egi_pg_add(&call, pg->name, strlen(pg->name));
  egi_pg_add(&call, key.data, key.len);
  egi_pg_add(&call, all.fields, ARRAY_HEAD + 12 * (size_t)all.n);
  egi_pg_add(&call, all.amounts, ARRAY_HEAD + 12 * (size_t)all.n);
  eg_status status = egi_pg_ask(
      pg->hub, &call, egi_real_deadline(&pg->env, deadline_us, pg->timeout_us),
      &result, error);
  PQclear(result);
  return status;
}

/* ------------------------------------------------------------- reading -- */

/* The rows of a key, which follow one another. */
typedef struct reader {
  egi_counts_fn visit;
  void *ctx;
  egi_counts counts;
  unsigned char key[EG_KEY_MAX];
  size_t len;
} reader;

static bool show(reader *r) {
  unsigned char bytes[EGI_COUNTS_MAX];
  eg_bytes key = {r->key, r->len};
  if (!egi_counts_any(&r->counts))
    return true;
  size_t len = egi_encode_counts(&r->counts, bytes, sizeof bytes);
  memset(&r->counts, 0, sizeof r->counts);
  return r->visit(r->ctx, key, (eg_bytes){bytes, len});
}

static void read_field(egi_counts *counts, int64_t field, int64_t amount) {
  egi_tally one = {.n = 1};
  if (amount <= 0)
    return;
  if (field == BLOCKED) {
    counts->blocked = (uint64_t)amount;
  } else if (field == CACHED) {
    counts->cached = (uint64_t)amount;
  } else if (field == WAITED) {
    counts->waits.total_us = amount;
  } else if (field >= 0 && field < EGI_BUCKETS) {
    one.buckets[0].number = (uint16_t)field;
    one.buckets[0].runs = amount < UINT32_MAX ? (uint32_t)amount : UINT32_MAX;
    egi_tally_merge(&counts->waits, &one);
  }
}

/* False: it is enough. */
static bool read_page(const PGresult *page, reader *r) {
  for (int i = 0; i < PQntuples(page); i++) {
    const char *key = PQgetvalue(page, i, 0);
    size_t len = (size_t)PQgetlength(page, i, 0);
    if (len > EG_KEY_MAX) /* none of ours */
      continue;
    if (len != r->len || memcmp(key, r->key, len) != 0) {
      if (!show(r))
        return false;
      memcpy(r->key, key, len);
      r->len = len;
    }
    read_field(&r->counts, egi_pg_int64(page, i, 1), egi_pg_int64(page, i, 2));
  }
  return show(r);
}

/* Pages of whole keys: the last one of a page may go on behind it. */
eg_status egi_pg_counts(egi_store *store, eg_bytes prefix, bool exact,
                        int64_t deadline_us, egi_counts_fn visit, void *ctx,
                        eg_error *error) {
  egi_pg *pg = (egi_pg *)store;
  reader r = {.visit = visit, .ctx = ctx};
  unsigned char from[EG_KEY_MAX];
  size_t len = prefix.len;
  bool more = prefix.len <= EG_KEY_MAX, inclusive = true;
  eg_status status = EG_OK;
  if (more && len > 0)
    memcpy(from, prefix.data, len);
  while (more && status == EG_OK) {
    egi_pg_call call = {.statement = EGI_PG_COUNTS};
    PGresult *page = NULL;
    egi_pg_add(&call, pg->name, strlen(pg->name));
    egi_pg_add(&call, from, len);
    egi_pg_add(&call, prefix.data, prefix.len);
    egi_pg_add_bool(&call, inclusive);
    egi_pg_add_bool(&call, exact);
    status = egi_pg_ask(
        pg->hub, &call,
        egi_real_deadline(&pg->env, deadline_us, pg->timeout_us), &page,
        error);
    more = status == EG_OK && PQntuples(page) > 0 && read_page(page, &r) &&
           !exact && r.len > 0;
    inclusive = false;
    len = r.len;
    memcpy(from, r.key, len);
    PQclear(page);
  }
  return status;
}
