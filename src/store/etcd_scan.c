/* SPDX-License-Identifier: MIT
** All records of a namespace, a page at a time in the order of their keys, as
** they were at one revision; and what deletes ghosts.
*/
#include "store/etcd.h"

#include <stdlib.h>

enum { PAGE = 100, SWEEP = 50 };

/* A page of every kind of keys, at one revision. */
typedef struct page {
  egi_etcd *etcd;
  uint64_t revision;
  json_t *recs, *others; /* replies */
  bool more;
  unsigned char next[EG_KEY_MAX + 1]; /* where the next one begins */
  size_t next_len;
} page;

/* ---------------------------------------------------------------- pages -- */

/* A range of the keys of a kind, from `from` up to `to` (without it). */
static void add_range(egi_text_buf *body, const egi_etcd *etcd, int kind,
                      eg_bytes from, eg_bytes to, uint64_t revision) {
  egi_etcd_key name;
  egi_etcd_key_make(etcd, kind, (eg_bytes){NULL, 0}, &name);
  egi_etcd_key_put(body, etcd, kind, from);
  egi_text_put(body, ",\"range_end\":");
  if (to.len == 0) /* all of the kind: the / of its name becomes a 0 */
    name.text[name.len - 1]++;
  egi_text_bytes(body, (eg_bytes){name.text, name.len}, to);
  if (revision > 0) {
    egi_text_put(body, ",\"revision\":");
    egi_text_number(body, revision);
  }
}

/* The first key behind all that begin with the prefix; empty: no end. */
static eg_bytes behind(eg_bytes prefix, unsigned char *room) {
  if (prefix.len > 0)
    memcpy(room, prefix.data, prefix.len);
  while (prefix.len > 0 && room[prefix.len - 1] == 0xff)
    prefix.len--;
  if (prefix.len > 0)
    room[prefix.len - 1]++;
  return (eg_bytes){room, prefix.len};
}

static eg_status ask_recs(page *p, eg_bytes from, eg_bytes to, size_t limit,
                          eg_error *error) {
  egi_etcd_call call = {.path = "kv/range"};
  egi_text_buf body = {0};
  egi_text_put(&body, "{");
  add_range(&body, p->etcd, EGI_REC, from, to, p->revision);
  egi_text_put(&body, ",\"limit\":");
  egi_text_number(&body, limit);
  egi_text_put(&body, "}");
  eg_status status = egi_etcd_ask(p->etcd->hub, &call, &body,
                                  egi_real_us() + p->etcd->timeout_us,
                                  &p->recs, error);
  egi_text_free(&body);
  if (status == EG_OK && p->revision == 0)
    p->revision = egi_json_revision(p->recs);
  if (status == EG_OK)
    p->more = json_is_true(json_object_get(p->recs, "more"));
  return status;
}

/* The other keys, up to the last one of the page. */
static eg_status ask_others(page *p, eg_bytes from, eg_error *error) {
  egi_etcd_call call = {.path = "kv/txn"};
  egi_text_buf body = {0};
  for (int kind = EGI_OWN; kind < EGI_KINDS; kind++) {
    egi_text_put(&body, kind == EGI_OWN ? "{\"success\":[{\"request_range\":{"
                                        : ",{\"request_range\":{");
    add_range(&body, p->etcd, kind, from,
              (eg_bytes){p->next, p->more ? p->next_len : 0}, p->revision);
    egi_text_put(&body, kind == EGI_OWN ? "}}" : ",\"keys_only\":true}}");
  }
  egi_text_put(&body, "]}");
  eg_status status = egi_etcd_ask(p->etcd->hub, &call, &body,
                                  egi_real_us() + p->etcd->timeout_us,
                                  &p->others, error);
  egi_text_free(&body);
  return status;
}

/* Our key of a key of theirs; text is malloc'd. */
static bool key_of(const page *p, const json_t *kv, unsigned char **text,
                   eg_bytes *key) {
  size_t len, prefix = p->etcd->prefix_len;
  const char *coded = json_string_value(json_object_get(kv, "key"));
  return coded != NULL && egi_unbase64(coded, text, &len) && len > prefix &&
         egi_etcd_key_read(*text + prefix, len - prefix, key) >= 0;
}

static bool find_next(page *p) {
  const json_t *kvs = json_object_get(p->recs, "kvs");
  unsigned char *text = NULL;
  eg_bytes key;
  size_t n = json_array_size(kvs);
  bool good = n > 0 && key_of(p, json_array_get(kvs, n - 1), &text, &key);
  if (good) {
    memcpy(p->next, key.data, key.len);
    p->next[key.len] = 0;
    p->next_len = key.len + 1;
  }
  free(text);
  return good;
}

static void free_page(page *p) {
  json_decref(p->recs);
  json_decref(p->others);
  p->recs = p->others = NULL;
}

/* OK, and *any: there are records. */
static eg_status ask_page(page *p, eg_bytes from, eg_bytes to, size_t limit,
                          bool *any, eg_error *error) {
  eg_status status = ask_recs(p, from, to, limit, error);
  *any = status == EG_OK && find_next(p);
  return *any ? ask_others(p, from, error) : status;
}

/* ------------------------------------------------------------- visiting -- */

/* The keys of one kind on a page, in order. */
typedef struct column {
  size_t n, at;
  struct item {
    const json_t *kv;
    unsigned char *text; /* malloc */
    eg_bytes key;
  } * items;
} column;

static void free_column(column *c) {
  for (size_t i = 0; i < c->n; i++)
    free(c->items[i].text);
  free(c->items);
  *c = (column){0};
}

static bool read_column(const page *p, const json_t *kvs, column *c) {
  size_t n = json_array_size(kvs);
  *c = (column){0};
  c->items = n > 0 ? calloc(n, sizeof *c->items) : NULL;
  if (n > 0 && c->items == NULL)
    return false;
  for (size_t i = 0; i < n; i++) {
    struct item *item = &c->items[c->n];
    item->kv = json_array_get(kvs, i);
    if (key_of(p, item->kv, &item->text, &item->key))
      c->n++;
    else
      free(item->text);
  }
  return true;
}

static int compare(eg_bytes a, eg_bytes b) {
  int by = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
  return by != 0 ? by : a.len < b.len ? -1 : a.len > b.len;
}

/* What a column has of the next key. */
static const json_t *beside(column *c, eg_bytes key) {
  while (c->at < c->n && compare(c->items[c->at].key, key) < 0)
    c->at++;
  return c->at < c->n && compare(c->items[c->at].key, key) == 0
             ? c->items[c->at].kv
             : NULL;
}

static bool read_columns(const page *p, column columns[EGI_KINDS]) {
  const json_t *responses = json_object_get(p->others, "responses");
  bool good = read_column(p, json_object_get(p->recs, "kvs"),
                          &columns[EGI_REC]);
  for (int kind = EGI_OWN; good && kind < EGI_KINDS; kind++) {
    const json_t *range = json_object_get(
        json_array_get(responses, (size_t)(kind - EGI_OWN)), "response_range");
    good = read_column(p, json_object_get(range, "kvs"), &columns[kind]);
  }
  return good;
}

typedef bool (*state_fn)(page *p, eg_bytes key, const egi_etcd_state *state,
                         void *ctx);

/* CHANGED: the visitor has seen enough. */
static eg_status visit_page(page *p, state_fn visit, void *ctx) {
  column columns[EGI_KINDS] = {{0}};
  eg_status status = read_columns(p, columns) ? EG_OK : EG_NOMEM;
  column *recs = &columns[EGI_REC];
  for (; status == EG_OK && recs->at < recs->n; recs->at++) {
    const struct item *rec = &recs->items[recs->at];
    const json_t *own = beside(&columns[EGI_OWN], rec->key);
    egi_etcd_state state = {0};
    for (int i = 0; i < EGI_TIMES; i++)
      state.runs[i] = beside(&columns[EGI_TIME + i], rec->key) != NULL;
    /* What is none of ours is for load to tell. */
    if (egi_etcd_read_rec(rec->kv, &state) &&
        (own == NULL || egi_etcd_read_own(own, &state)) &&
        !visit(p, rec->key, &state, ctx))
      status = EG_CHANGED;
    egi_etcd_state_free(&state);
  }
  for (int kind = 0; kind < EGI_KINDS; kind++)
    free_column(&columns[kind]);
  return status;
}

static eg_status visit_all(egi_etcd *etcd, eg_bytes prefix, state_fn visit,
                           void *ctx, eg_error *error) {
  unsigned char last[EG_KEY_MAX], first[EG_KEY_MAX + 1];
  page p = {.etcd = etcd, .more = true};
  eg_bytes from = prefix, to = behind(prefix, last);
  eg_status status = EG_OK;
  while (status == EG_OK && p.more) {
    bool any;
    status = ask_page(&p, from, to, PAGE, &any, error);
    p.more = p.more && any;
    if (any && status == EG_OK)
      status = visit_page(&p, visit, ctx);
    free_page(&p);
    memcpy(first, p.next, p.next_len);
    from = (eg_bytes){first, p.next_len};
  }
  if (status == EG_NOMEM)
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  return status == EG_CHANGED ? EG_OK : status;
}

typedef struct visitor {
  egi_visit_fn visit;
  void *ctx;
} visitor;

static bool show(page *p, eg_bytes key, const egi_etcd_state *state,
                 void *ctx) {
  const visitor *v = ctx;
  egi_seen seen;
  egi_seen_init(&seen);
  egi_etcd_see(p->etcd, state, key, &seen);
  return (seen.bytes.len == 0 && !seen.at.held) ||
         v->visit(v->ctx, key, &seen);
}

eg_status egi_etcd_scan(egi_store *store, eg_bytes prefix, egi_visit_fn visit,
                        void *ctx, eg_error *error) {
  egi_etcd *etcd = (egi_etcd *)store;
  visitor v = {visit, ctx};
  egi_etcd_notice_fork(etcd);
  if (prefix.len > EG_KEY_MAX)
    return EG_OK;
  return visit_all(etcd, prefix, show, &v, error);
}

/* ------------------------------------------------------------- sweeping -- */

/* A ghost stays one until its rec is written: if it is still that one, it
** goes. */
static bool bury(page *p, eg_bytes key, const egi_etcd_state *state,
                 void *ctx) {
  egi_etcd_call call = {.path = "kv/txn", .hasty = true};
  egi_text_buf body = {0};
  json_t *reply = NULL;
  int *left = ctx;
  if (!egi_etcd_is_absent(state))
    return true;
  egi_text_put(&body, "{\"compare\":[{\"target\":\"MOD\",");
  egi_etcd_key_put(&body, p->etcd, EGI_REC, key);
  egi_text_put(&body, ",\"mod_revision\":");
  egi_text_number(&body, state->revision);
  egi_text_put(&body, "}],\"success\":[{\"request_delete_range\":{");
  egi_etcd_key_put(&body, p->etcd, EGI_REC, key);
  egi_text_put(&body, "}},{\"request_delete_range\":{");
  egi_etcd_key_put(&body, p->etcd, EGI_CNT, key);
  egi_text_put(&body, "}}]}");
  eg_status status = egi_etcd_ask(p->etcd->hub, &call, &body,
                                  egi_real_us() + p->etcd->timeout_us, &reply,
                                  NULL);
  json_decref(reply);
  egi_text_free(&body);
  return status == EG_OK && --*left > 0;
}

void egi_etcd_sweep(egi_etcd *etcd) {
  int left = SWEEP;
  visit_all(etcd, (eg_bytes){"", 0}, bury, &left, NULL);
}
