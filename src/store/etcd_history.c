/* SPDX-License-Identifier: MIT
** The ended runs on etcd: a key for each,
**
**   eg/NAME/his/KEY/NN      NN: number of the run, modulo PLACES
**
** put by the transaction that ends the run, over the one that was PLACES runs
** before: so there are never more, and nothing has to be counted or trimmed.
**
** They go 90 days later, as on other stores, with a lease.  Leases are kept in
** the leader's memory, so there is one a day and namespace, whose number says
** which it is: it is used as if it were there, and made by whoever is told
** that it is not.
*/
#include "store/etcd.h"

#include <stdio.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define DAY_US INT64_C(86400000000)

enum { DAYS = 90 };
enum { PLACES = 20, END = 3, PAGE = 200 };

static const char kind[] = "his/";

typedef struct reading {
  egi_etcd *etcd;
  eg_bytes key; /* empty: all */
  egi_pasts pasts;
  unsigned char last[EGI_ETCD_KEY + 1]; /* where the next page begins */
  size_t last_len;
  bool more;
} reading;

static size_t make_start(const egi_etcd *etcd, eg_bytes key, char *out) {
  memcpy(out, etcd->prefix, etcd->prefix_len);
  memcpy(out + etcd->prefix_len, kind, sizeof kind - 1);
  size_t n = etcd->prefix_len + sizeof kind - 1;
  if (key.len > 0) {
    memcpy(out + n, key.data, key.len);
    n += key.len;
    out[n++] = '/';
  }
  return n;
}

/* "eg", of the namespace's name, the day since 1970. */
static uint64_t lease_of_today(const egi_etcd *etcd) {
  uint64_t name = XXH3_64bits(etcd->prefix, etcd->prefix_len);
  uint64_t day = (uint64_t)(egi_etcd_now(etcd) / DAY_US);
  return UINT64_C(0x6567) << 48 | (name & 0xffffffff) << 16 | (day & 0xffff);
}

void egi_etcd_past_put(egi_text_buf *body, const egi_etcd *etcd, eg_bytes key,
                       uint32_t count) {
  char start[EGI_ETCD_KEY + 1], end[16];
  size_t n = make_start(etcd, key, start);
  int end_len = snprintf(end, sizeof end, "%02u", (unsigned)(count % PLACES));
  egi_text_put(body, "\"key\":");
  egi_text_bytes(body, (eg_bytes){start, n}, (eg_bytes){end, (size_t)end_len});
  egi_text_put(body, ",\"lease\":");
  egi_text_number(body, lease_of_today(etcd));
}

eg_status egi_etcd_past_lease(const egi_etcd *etcd, int64_t until_us,
                              eg_error *error) {
  return egi_etcd_lease_make(etcd->hub, lease_of_today(etcd),
                             (DAYS + 1) * (DAY_US / 1000000), until_us, error);
}

/* Our key of one of theirs: that which was asked for, or any. */
static bool read_key(const reading *r, const unsigned char *text, size_t len,
                     eg_bytes *key) {
  size_t before = r->etcd->prefix_len + sizeof kind - 1;
  if (len < before + 1 + END || len > before + EG_KEY_MAX + END)
    return false;
  *key = (eg_bytes){text + before, len - before - END};
  return r->key.len == 0 || (key->len == r->key.len &&
                             memcmp(key->data, r->key.data, key->len) == 0);
}

/* False: no memory. */
static bool take_one(reading *r, const json_t *kv) {
  unsigned char *name = NULL, *value = NULL;
  size_t name_len, value_len;
  const char *coded = json_string_value(json_object_get(kv, "key"));
  const char *held = json_string_value(json_object_get(kv, "value"));
  eg_bytes key;
  bool good = egi_unbase64(coded != NULL ? coded : "", &name, &name_len) &&
              egi_unbase64(held != NULL ? held : "", &value, &value_len);
  if (good && read_key(r, name, name_len, &key))
    good = egi_pasts_add(&r->pasts, key, (eg_bytes){value, value_len});
  if (good && name_len < sizeof r->last) { /* the next one comes behind it */
    memcpy(r->last, name, name_len);
    r->last[name_len] = 0;
    r->last_len = name_len + 1;
  }
  free(name);
  free(value);
  return good;
}

static eg_status ask_page(reading *r, eg_bytes from, eg_bytes end,
                          eg_error *error) {
  egi_etcd_call call = {.path = "kv/range"};
  egi_text_buf body = {0};
  eg_bytes none = {NULL, 0};
  json_t *reply = NULL;
  egi_text_put(&body, "{\"key\":");
  egi_text_bytes(&body, from, none);
  egi_text_put(&body, ",\"range_end\":");
  egi_text_bytes(&body, end, none);
  egi_text_put(&body, ",\"limit\":");
  egi_text_number(&body, PAGE);
  egi_text_put(&body, "}");
  eg_status status = egi_etcd_ask(r->etcd->hub, &call, &body,
                                  egi_real_us() + r->etcd->timeout_us, &reply,
                                  error);
  egi_text_free(&body);
  if (status != EG_OK)
    return status;
  const json_t *kvs = json_object_get(reply, "kvs");
  size_t n = json_array_size(kvs);
  for (size_t i = 0; status == EG_OK && i < n; i++)
    if (!take_one(r, json_array_get(kvs, i)))
      status = egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  r->more = n > 0 && json_is_true(json_object_get(reply, "more"));
  json_decref(reply);
  return status;
}

eg_status egi_etcd_history(egi_store *store, eg_bytes key, size_t n,
                           eg_visit_past visit, void *ctx, eg_error *error) {
  egi_etcd *etcd = (egi_etcd *)store;
  reading r = {.etcd = etcd, .key = key, .more = n > 0};
  char start[EGI_ETCD_KEY + 1], end[EGI_ETCD_KEY + 1];
  eg_status status = EG_OK;
  egi_etcd_notice_fork(etcd);
  size_t len = make_start(etcd, key, start);
  memcpy(end, start, len);
  end[len - 1]++; /* the / becomes a 0 */
  eg_bytes from = {start, len};
  egi_pasts_init(&r.pasts, n);
  while (status == EG_OK && r.more) {
    status = ask_page(&r, from, (eg_bytes){end, len}, error);
    from = (eg_bytes){r.last, r.last_len};
  }
  if (status == EG_OK)
    egi_pasts_show(&r.pasts, visit, ctx);
  egi_pasts_free(&r.pasts);
  return status;
}
