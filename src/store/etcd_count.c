/* SPDX-License-Identifier: MIT
** What the etcd store counts of its keys: a key beside each record, cnt/KEY,
** with all of it (core/codec.h); added to by compare and put.
**
** It goes when what is left of its record is swept.
*/
#include "core/codec.h"
#include "store/etcd.h"

#include <stdlib.h>

enum { PAGE = 200, TURNS_MAX = 64 };

/* What stands there, and the revision of that; 0: nothing. */
typedef struct entry {
  egi_counts counts;
  uint64_t revision;
} entry;

static void read_value(const json_t *kv, egi_counts *counts) {
  unsigned char *text = NULL;
  size_t len;
  const char *coded = json_string_value(json_object_get(kv, "value"));
  memset(counts, 0, sizeof *counts);
  if (coded != NULL && egi_unbase64(coded, &text, &len))
    egi_decode_counts((eg_bytes){text, len}, counts);
  free(text);
}

/* Of {"kvs":[...]}: its first, if any. */
static void read_entry(const json_t *range, entry *e) {
  const json_t *kv = json_array_get(json_object_get(range, "kvs"), 0);
  read_value(kv, &e->counts);
  e->revision = kv != NULL ? egi_json_number(kv, "mod_revision") : 0;
}

/* -------------------------------------------------------------- adding -- */

/* Puts them, unless somebody was faster: CONFLICT, and what stands there. */
static eg_status put(egi_etcd *etcd, eg_bytes key, const egi_counts *counts,
                     entry *there, int64_t until_us, eg_error *error) {
  egi_etcd_call call = {.path = "kv/txn", .writes = true, .hasty = true};
  egi_text_buf body = {0};
  json_t *reply = NULL;
  unsigned char bytes[EGI_COUNTS_MAX];
  size_t len = egi_encode_counts(counts, bytes, sizeof bytes);
  egi_text_put(&body, "{\"compare\":[{\"target\":\"MOD\",");
  egi_etcd_key_put(&body, etcd, EGI_CNT, key);
  egi_text_put(&body, ",\"mod_revision\":");
  egi_text_number(&body, there->revision);
  egi_text_put(&body, "}],\"success\":[{\"request_put\":{");
  egi_etcd_key_put(&body, etcd, EGI_CNT, key);
  egi_text_put(&body, ",\"value\":");
  egi_text_bytes(&body, (eg_bytes){bytes, len}, (eg_bytes){NULL, 0});
  egi_text_put(&body, "}}],\"failure\":[{\"request_range\":{");
  egi_etcd_key_put(&body, etcd, EGI_CNT, key);
  egi_text_put(&body, "}}]}");
  eg_status status = egi_etcd_ask(etcd->hub, &call, &body, until_us, &reply,
                                  error);
  egi_text_free(&body);
  if (status == EG_OK && !json_is_true(json_object_get(reply, "succeeded"))) {
    const json_t *first = json_array_get(json_object_get(reply, "responses"),
                                         0);
    read_entry(json_object_get(first, "response_range"), there);
    status = EG_CONFLICT;
  }
  json_decref(reply);
  return status;
}

/* The first guess is that there is nothing: then what there is comes with the
** conflict. */
eg_status egi_etcd_add(egi_store *store, eg_bytes key, const egi_counts *more,
                       int64_t deadline_us, eg_error *error) {
  egi_etcd *etcd = (egi_etcd *)store;
  int64_t until = egi_real_deadline(&etcd->env, deadline_us, etcd->timeout_us);
  entry there = {.revision = 0};
  eg_status status = EG_CONFLICT;
  egi_etcd_notice_fork(etcd);
  for (int i = 0; i < TURNS_MAX && status == EG_CONFLICT; i++) {
    egi_counts counts = there.counts;
    egi_counts_merge(&counts, more);
    status = put(etcd, key, &counts, &there, until, error);
  }
  return status;
}

/* ------------------------------------------------------------- reading -- */

typedef struct showing {
  egi_counts_fn visit;
  void *ctx;
  eg_bytes prefix;
  unsigned char next[EG_KEY_MAX + 1]; /* where the next page begins */
  size_t next_len;
} showing;

/* False: it is enough. */
static bool show(const egi_etcd *etcd, const json_t *kv, showing *s) {
  unsigned char *text = NULL, bytes[EGI_COUNTS_MAX];
  size_t len, before = etcd->prefix_len + 4; /* "cnt/" */
  egi_counts counts;
  bool more = false;
  const char *coded = json_string_value(json_object_get(kv, "key"));
  if (coded != NULL && egi_unbase64(coded, &text, &len) && len > before &&
      len <= before + EG_KEY_MAX) {
    eg_bytes key = {text + before, len - before};
    memcpy(s->next, key.data, key.len);
    s->next[key.len] = 0;
    s->next_len = key.len + 1;
    more = key.len >= s->prefix.len &&
           (s->prefix.len == 0 ||
            memcmp(key.data, s->prefix.data, s->prefix.len) == 0);
    read_value(kv, &counts);
    if (more && egi_counts_any(&counts)) {
      size_t n = egi_encode_counts(&counts, bytes, sizeof bytes);
      more = s->visit(s->ctx, key, (eg_bytes){bytes, n});
    }
  }
  free(text);
  return more;
}

eg_status egi_etcd_counts(egi_store *store, eg_bytes prefix, bool exact,
                          int64_t deadline_us, egi_counts_fn visit, void *ctx,
                          eg_error *error) {
  egi_etcd *etcd = (egi_etcd *)store;
  showing s = {visit, ctx, prefix, {0}, prefix.len};
  egi_etcd_key end;
  eg_bytes none = {NULL, 0};
  bool more = prefix.len <= EG_KEY_MAX;
  eg_status status = EG_OK;
  egi_etcd_notice_fork(etcd);
  if (more && prefix.len > 0)
    memcpy(s.next, prefix.data, prefix.len);
  egi_etcd_key_make(etcd, EGI_CNT, none, &end);
  end.text[end.len - 1]++; /* behind all of the kind: the / becomes a 0 */
  while (more && status == EG_OK) {
    egi_etcd_call call = {.path = "kv/range"};
    egi_text_buf body = {0};
    json_t *reply = NULL;
    egi_text_put(&body, "{");
    egi_etcd_key_put(&body, etcd, EGI_CNT, (eg_bytes){s.next, s.next_len});
    if (!exact) {
      egi_text_put(&body, ",\"range_end\":");
      egi_text_bytes(&body, (eg_bytes){end.text, end.len}, none);
      egi_text_put(&body, ",\"limit\":");
      egi_text_number(&body, PAGE);
    }
    egi_text_put(&body, "}");
    status = egi_etcd_ask(
        etcd->hub, &call, &body,
        egi_real_deadline(&etcd->env, deadline_us, etcd->timeout_us), &reply,
        error);
    egi_text_free(&body);
    const json_t *kvs = json_object_get(reply, "kvs");
    size_t n = json_array_size(kvs);
    for (size_t i = 0; more && i < n; i++)
      more = show(etcd, json_array_get(kvs, i), &s);
    more = more && !exact && n == PAGE;
    json_decref(reply);
  }
  return status;
}
