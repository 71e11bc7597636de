/* SPDX-License-Identifier: MIT
** Many holds at once: renewing them, and ending them all.
**
** To renew is to look whether own still stands under the token, one request a
** hundred, and then to keep all their leases, in one request.  A lease that is
** to be another length from now on is replaced.
*/
#include "store/etcd.h"

/* A close does not wait long for a cluster that is away: leases end what it
** held. */
enum { CLOSE_US = 500000 };

/* -------------------------------------------------------------- looking -- */

/* The lease of each; LOST: it does not hold.  n is at most EGI_ETCD_OPS. */
static eg_status look(egi_etcd *etcd, const egi_hold_ref *holds, size_t n,
                      int64_t until_us, uint64_t *leases, eg_status *each,
                      eg_error *error) {
  egi_etcd_call call = {.path = "kv/txn"};
  egi_text_buf body = {0};
  json_t *reply = NULL;
  egi_text_put(&body, "{\"success\":[");
  for (size_t i = 0; i < n; i++) {
    egi_text_put(&body,
                 i == 0 ? "{\"request_range\":{" : ",{\"request_range\":{");
    egi_etcd_key_put(&body, etcd, EGI_OWN, holds[i].key);
    egi_text_put(&body, ",\"keys_only\":true}}");
  }
  egi_text_put(&body, "]}");
  eg_status status = egi_etcd_ask(etcd->hub, &call, &body, until_us, &reply,
                                  error);
  egi_text_free(&body);
  const json_t *responses = json_object_get(reply, "responses");
  for (size_t i = 0; status == EG_OK && i < n; i++) {
    const json_t *range = json_object_get(json_array_get(responses, i),
                                          "response_range");
    const json_t *kv = json_array_get(json_object_get(range, "kvs"), 0);
    bool held = kv != NULL && holds[i].token != 0 &&
                egi_json_number(kv, "create_revision") == holds[i].token;
    each[i] = held ? EG_OK : EG_LOST;
    leases[i] = held ? egi_json_number(kv, "lease") : 0;
  }
  json_decref(reply);
  return status;
}

/* ------------------------------------------------------------- renewing -- */

/* Another lease for a hold: for that long from now. */
static eg_status replace(egi_etcd *etcd, const egi_hold_ref *hold,
                         int64_t seconds, int64_t until_us,
                         egi_etcd_lease *lease, eg_error *error) {
  egi_etcd_call call = {.path = "kv/txn", .writes = true};
  egi_text_buf body = {0};
  json_t *reply = NULL;
  eg_status status = egi_etcd_lease_take(etcd->hub, seconds, 1000000, until_us,
                                         lease, error);
  if (status != EG_OK)
    return status;
  egi_text_put(&body, "{\"compare\":[{\"target\":\"CREATE\",");
  egi_etcd_key_put(&body, etcd, EGI_OWN, hold->key);
  egi_text_put(&body, ",\"create_revision\":");
  egi_text_number(&body, hold->token);
  egi_text_put(&body, "}],\"success\":[{\"request_put\":{");
  egi_etcd_key_put(&body, etcd, EGI_OWN, hold->key);
  egi_text_put(&body, ",\"ignore_value\":true,\"lease\":");
  egi_text_number(&body, lease->id);
  egi_text_put(&body, "}}]}");
  status = egi_etcd_ask(etcd->hub, &call, &body, until_us, &reply, error);
  egi_text_free(&body);
  if (status == EG_OK && !json_is_true(json_object_get(reply, "succeeded")))
    status = EG_LOST;
  json_decref(reply);
  if (status != EG_OK && status != EG_INDETERMINATE)
    egi_etcd_lease_give(etcd->hub, lease);
  return status;
}

/* What is to be done for one.  kept: the seconds that its lease has again; -1:
** it was not asked for. */
static eg_status renew_one(egi_etcd *etcd, const egi_hold_ref *hold,
                           uint64_t lease, int64_t kept, int64_t lease_ms,
                           int64_t until_us, eg_error *error) {
  int64_t want = egi_etcd_seconds(lease_ms) + 1;
  egi_etcd_lease fresh = {
      .id = lease, .seconds = kept, .fresh_us = egi_real_us()};
  eg_status status = EG_OK;
  if (lease == 0 || kept < 0) /* none, or it lasts longer already */
    return EG_OK;
  if (kept == 0)
    return EG_LOST;
  if (kept < want)
    status = replace(etcd, hold, want, until_us, &fresh, error);
  egi_holding news = {.token = hold->token,
                      .lease = fresh.id,
                      .seconds = fresh.seconds,
                      .fresh_us = fresh.fresh_us};
  news.end_us = egi_etcd_now(etcd) + lease_ms * 1000;
  if (status == EG_OK)
    egi_holding_note(&etcd->holds, hold->key, &news);
  return status;
}

/* The lease of a hold that is to end before it would, if it were kept, is left
** to run out: what maxHold leaves of it is less than that. */
static bool lasts(egi_etcd *etcd, const egi_hold_ref *hold, int64_t lease_ms) {
  egi_holding mine;
  return egi_holding_look(&etcd->holds, hold->key, hold->token, &mine) &&
         mine.end_us >= egi_etcd_now(etcd) + lease_ms * 1000;
}

static eg_status renew_some(egi_etcd *etcd, const egi_hold_ref *holds,
                            size_t n, int64_t lease_ms, eg_status *each,
                            eg_error *error) {
  uint64_t leases[EGI_ETCD_OPS], ids[EGI_ETCD_OPS];
  int64_t kept[EGI_ETCD_OPS], seconds[EGI_ETCD_OPS];
  int64_t until = egi_real_us() + etcd->timeout_us;
  size_t asked = 0;
  eg_status status = look(etcd, holds, n, until, leases, each, error);
  for (size_t i = 0; status == EG_OK && i < n; i++) {
    kept[i] = -1;
    if (leases[i] != 0 && !lasts(etcd, &holds[i], lease_ms)) {
      kept[i] = 0;
      ids[asked++] = leases[i];
    }
  }
  if (status == EG_OK && asked > 0)
    status = egi_etcd_lease_keep(etcd->hub, ids, asked, until, seconds, error);
  for (size_t i = 0, at = 0; status == EG_OK && i < n; i++) {
    if (kept[i] == 0)
      kept[i] = seconds[at++];
    if (each[i] == EG_OK)
      each[i] = renew_one(etcd, &holds[i], leases[i], kept[i], lease_ms, until,
                          error);
    if (EG_IS_FAILURE(each[i]))
      status = each[i];
  }
  return status;
}

eg_status egi_etcd_renew(egi_store *store, const egi_hold_ref *holds, size_t n,
                         int64_t lease_ms, eg_status *each, eg_error *error) {
  egi_etcd *etcd = (egi_etcd *)store;
  int64_t most = EGI_LONG_US / 1000;
  int64_t ms = lease_ms < 1 ? 1 : lease_ms < most ? lease_ms : most;
  eg_status status = EG_OK;
  egi_etcd_notice_fork(etcd);
  for (size_t at = 0; status == EG_OK && at < n; at += EGI_ETCD_OPS) {
    size_t count = n - at < EGI_ETCD_OPS ? n - at : EGI_ETCD_OPS;
    status = renew_some(etcd, holds + at, count, ms, each + at, error);
  }
  for (size_t i = 0; status == EG_OK && i < n; i++)
    if (each[i] == EG_LOST)
      egi_holding_remove(&etcd->holds, holds[i].key, holds[i].token,
                         &etcd->env);
  return status;
}

/* --------------------------------------------------------------- ending -- */

static void add_end(egi_text_buf *body, const egi_etcd *etcd,
                    const egi_holding *held, int kind, const char *target) {
  eg_bytes key = {held->key, held->len};
  egi_text_put(body, "{\"request_txn\":{\"compare\":[{\"target\":\"");
  egi_text_put(body, target);
  egi_text_put(body, "\",");
  egi_etcd_key_put(body, etcd, kind, key);
  egi_text_put(body, kind == EGI_OWN ? ",\"create_revision\":"
                                     : ",\"mod_revision\":");
  egi_text_number(body, held->token);
  egi_text_put(body, "}],\"success\":[{\"request_delete_range\":{");
  egi_etcd_key_put(body, etcd, kind, key);
  egi_text_put(body, "}}]}}");
}

/* A lock that was all there was of its key leaves nothing behind. */
static eg_status end_some(egi_etcd *etcd, egi_holding *const *held, size_t n) {
  egi_etcd_call call = {.path = "kv/txn", .hasty = true};
  egi_text_buf body = {0};
  json_t *reply = NULL;
  const char *before = "{\"success\":[";
  for (size_t i = 0; i < n; i++) {
    if (held[i]->token == 0)
      continue;
    egi_text_put(&body, before);
    add_end(&body, etcd, held[i], EGI_OWN, "CREATE");
    before = ",";
    if (held[i]->bare) {
      egi_text_put(&body, before);
      add_end(&body, etcd, held[i], EGI_REC, "MOD");
    }
  }
  if (body.len == 0)
    return EG_OK;
  egi_text_put(&body, "]}");
  int64_t most = etcd->timeout_us < CLOSE_US ? etcd->timeout_us : CLOSE_US;
  eg_status status = egi_etcd_ask(etcd->hub, &call, &body,
                                  egi_real_us() + most, &reply, NULL);
  json_decref(reply);
  egi_text_free(&body);
  return status;
}

void egi_etcd_drop_all(egi_etcd *etcd) {
  enum { SOME = EGI_ETCD_OPS / 4 }; /* nested operations count, too */
  egi_holding *held[SOME];
  eg_status status = EG_OK;
  for (size_t n; (n = egi_holding_take(&etcd->holds, held, SOME)) > 0;) {
    if (status == EG_OK) /* else their leases end them */
      status = end_some(etcd, held, n);
    for (size_t i = 0; i < n; i++) {
      egi_etcd_lease lease = {.id = held[i]->lease,
                              .seconds = held[i]->seconds,
                              .fresh_us = held[i]->fresh_us};
      if (status == EG_OK)
        egi_etcd_lease_give(etcd->hub, &lease);
      egi_holding_free(held[i], &etcd->env);
    }
  }
}
