/* SPDX-License-Identifier: MIT
** A swap on etcd: one transaction from what was last seen, more only where
** that was wrong.
**
**   guess --> fits? --no--> fetch --> fits? --no--> CONFLICT
**               |                       |
**              yes <-------------------yes
**               v                       ^
**         transaction --it had moved----+     (the transaction says to what)
**               |
**             landed
*/
#include "store/etcd.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { TURNS_MAX = 16, STALE_US = 1000000 };

/* A swap on its way. */
typedef struct journey {
  egi_etcd *etcd;
  eg_bytes key;
  const egi_swap *swap;
  int64_t until_us, now_us;
  egi_seen recalled;  /* what a guess borrows from */
  egi_etcd_state was; /* what is there, as far as is known */
  bool sure;          /* else a guess */
  egi_etcd_state will;
  bool absent; /* is what it will be */
  egi_etcd_lease lease, times[EGI_TIMES];
  egi_holding *held;
} journey;

int64_t egi_etcd_now(const egi_etcd *etcd) {
  const eg_clock *clock = etcd->env.clock;
  return clock->now_us(clock->ctx) + etcd->epoch_us;
}

static uint64_t hash_of(const egi_etcd *etcd, eg_bytes key) {
  uint64_t seed = XXH3_64bits(etcd->prefix, etcd->prefix_len);
  return XXH3_64bits_withSeed(key.data, key.len, seed);
}

/* ------------------------------------------------------------- looking -- */

static void note_ghost(egi_etcd *etcd, eg_bytes key,
                       const egi_etcd_state *state) {
  egi_etcd_ghost_note(etcd->hub, hash_of(etcd, key),
                      egi_etcd_is_absent(state) ? state->revision : 0);
}

eg_status egi_etcd_fetch(egi_etcd *etcd, eg_bytes key, int64_t until_us,
                         egi_etcd_state *state, eg_error *error) {
  egi_etcd_call call = {.path = "kv/txn"};
  egi_text_buf body = {0};
  json_t *reply = NULL;
  memset(state, 0, sizeof *state);
  egi_text_put(&body, "{\"success\":");
  egi_etcd_ranges(&body, etcd, key, EGI_KINDS);
  egi_text_put(&body, "}");
  eg_status status = egi_etcd_ask(etcd->hub, &call, &body, until_us, &reply,
                                  error);
  egi_text_free(&body);
  if (status == EG_OK)
    status = egi_etcd_state_read(json_object_get(reply, "responses"), state,
                                 error);
  json_decref(reply);
  if (status == EG_OK)
    note_ghost(etcd, key, state);
  return status;
}

static void forget_guess(journey *j) {
  egi_etcd_state_free(&j->was);
  egi_seen_free(&j->recalled, &j->etcd->env);
}

static eg_status fetch(journey *j, eg_error *error) {
  forget_guess(j);
  j->sure = true;
  return egi_etcd_fetch(j->etcd, j->key, j->until_us, &j->was, error);
}

/* What was last seen, if that is what the swap expects. */
static eg_status guess(journey *j, eg_error *error) {
  egi_etcd *etcd = j->etcd;
  uint64_t expect = j->swap->expect;
  if (expect == 0) {
    j->was.revision = egi_etcd_ghost(etcd->hub, hash_of(etcd, j->key));
    return EG_OK;
  }
  if (egi_etcd_recall_state(etcd, j->key, expect, &j->recalled, &j->was))
    return EG_OK;
  return fetch(j, error);
}

/* May the swap be tried on what is there? */
static bool fits(const journey *j) {
  const egi_swap *swap = j->swap;
  const egi_etcd_state *was = &j->was;
  bool absent = egi_etcd_is_absent(was);
  if (swap->expect != (absent ? 0 : was->revision))
    return false;
  if (swap->token != 0 && (absent || was->own != swap->token))
    return false;
  return swap->hold != EGI_TAKE || was->own == 0;
}

/* ------------------------------------------------------ what it will be -- */

static void set_time(journey *j, int i, int64_t ms) {
  egi_etcd_state *will = &j->will;
  if (ms == EGI_LEAVE_TIME)
    return;
  int64_t most = EGI_LONG_US / 1000;
  will->length[i] = ms <= 0 ? 0 : (ms < most ? ms : most) * 1000;
  will->end[i] = ms <= 0 ? 0 : j->now_us + will->length[i];
  will->runs[i] = ms > 0;
}

static void set_lease(journey *j, int64_t ms) {
  int64_t most = EGI_LONG_US / 1000;
  j->will.lease_length = ms <= 0 ? 0 : (ms < most ? ms : most) * 1000;
  j->will.lease_end = ms <= 0 ? 0 : j->now_us + j->will.lease_length;
}

static void plan(journey *j) {
  const egi_swap *swap = j->swap;
  eg_bytes none = {NULL, 0};
  j->will = j->was;
  j->will.rec_text = j->will.own_text = NULL;
  j->now_us = egi_etcd_now(j->etcd);
  if (swap->expect == 0) /* nothing of what a ghost had */
    j->will = (egi_etcd_state){0};
  if (swap->write != EGI_LEAVE)
    j->will.bytes = swap->write == EGI_PUT ? swap->bytes : none;
  if (swap->write == EGI_PUT)
    j->will.stamp = j->now_us;
  if (swap->hold == EGI_TAKE) {
    j->will.own = 1;
    j->will.holder = swap->holder;
    set_lease(j, swap->lease_ms);
  } else if (swap->hold != EGI_KEEP) {
    j->will.own = 0;
  }
  if (swap->hold == EGI_TAKE || swap->hold == EGI_BREAK)
    j->will.token = EGI_ETCD_THIS;
  if (!j->will.runs[EGI_NBF])
    j->will.length[EGI_NBF] = 0;
  set_time(j, EGI_NBF, swap->not_before_ms);
  set_time(j, EGI_FRS, swap->fresh_ms);
  set_time(j, EGI_LIF, swap->life_ms);
  if (j->will.stamp == 0)
    j->will.stamp = j->now_us;
  j->will.revision = 1;
  j->absent = egi_etcd_is_absent(&j->will);
}

static int64_t given_ms(const egi_swap *swap, int i) {
  return i == EGI_NBF   ? swap->not_before_ms
         : i == EGI_FRS ? swap->fresh_ms
                        : swap->life_ms;
}

static eg_status need_leases(journey *j, eg_error *error) {
  egi_etcd_hub *hub = j->etcd->hub;
  eg_status status = EG_OK;
  /* A second more than asked for: so old may a spare one be. */
  if (j->swap->hold == EGI_TAKE && j->will.lease_length > 0 &&
      j->lease.id == 0)
    status = egi_etcd_lease_take(
        hub, egi_etcd_seconds(j->will.lease_length / 1000) + 1, STALE_US,
        j->until_us, &j->lease, error);
  for (int i = 0; status == EG_OK && i < EGI_TIMES; i++)
    if (given_ms(j->swap, i) > 0 && !j->absent && j->times[i].id == 0)
      status = egi_etcd_lease_take(hub,
                                   egi_etcd_seconds(j->will.length[i] / 1000),
                                   0, j->until_us, &j->times[i], error);
  return status;
}

/* ---------------------------------------------------------- the request -- */

static void compare(egi_text_buf *body, const journey *j, const char *target,
                    int kind, const char *result, const char *field,
                    uint64_t number) {
  egi_text_put(body, body->data != NULL && body->data[body->len - 1] == '}'
                         ? ",{\"target\":\""
                         : "{\"target\":\"");
  egi_text_put(body, target);
  egi_text_put(body, "\",\"result\":\"");
  egi_text_put(body, result);
  egi_text_put(body, "\",");
  egi_etcd_key_put(body, j->etcd, kind, j->key);
  egi_text_put(body, ",\"");
  egi_text_put(body, field);
  egi_text_put(body, "\":");
  egi_text_number(body, number);
  egi_text_put(body, "}");
}

static void compare_own(egi_text_buf *body, const journey *j, uint64_t token) {
  compare(body, j, "CREATE", EGI_OWN, "EQUAL", "create_revision", token);
}

static void compare_runs(egi_text_buf *body, const journey *j, int i) {
  compare(body, j, "CREATE", EGI_TIME + i, "GREATER", "create_revision", 0);
}

/* What has to be as it was believed to be: rec; and what makes the key, by
** itself or by time, one that is there, held or free.  Nobody comes to own
** without writing rec. */
static void add_compares(egi_text_buf *body, const journey *j) {
  const egi_etcd_state *was = &j->was;
  const egi_swap *swap = j->swap;
  bool empty = was->bytes.len == 0, brief = was->length[EGI_LIF] > 0;
  compare(body, j, "MOD", EGI_REC, "EQUAL", "mod_revision", was->revision);
  if (swap->token != 0)
    compare_own(body, j, swap->token);
  else if (swap->hold == EGI_TAKE && swap->expect != 0 && !j->sure)
    compare_own(body, j, 0); /* it may have been renewed */
  else if (was->own != 0 && (empty || brief))
    compare_own(body, j, was->own);
  if (swap->expect == 0 || was->own != 0)
    return;
  if (empty)
    compare_runs(body, j, EGI_NBF);
  if (brief)
    compare_runs(body, j, EGI_LIF);
}

static void put(egi_text_buf *body, const journey *j, int kind, eg_bytes head,
                eg_bytes bytes, uint64_t lease) {
  egi_text_put(body, "{\"request_put\":{");
  egi_etcd_key_put(body, j->etcd, kind, j->key);
  egi_text_put(body, ",\"value\":");
  egi_text_bytes(body, head, bytes);
  if (lease != 0) {
    egi_text_put(body, ",\"lease\":");
    egi_text_number(body, lease);
  }
  egi_text_put(body, "}}");
}

static void delete_key(egi_text_buf *body, const journey *j, int kind) {
  egi_text_put(body, "{\"request_delete_range\":{");
  egi_etcd_key_put(body, j->etcd, kind, j->key);
  egi_text_put(body, "}}");
}

static void add_rec(egi_text_buf *body, const journey *j) {
  unsigned char head[EGI_ETCD_HEAD];
  size_t len;
  if (j->absent) {
    delete_key(body, j, EGI_REC);
    return;
  }
  egi_etcd_pack_rec(&j->will, head, &len);
  put(body, j, EGI_REC, (eg_bytes){head, len}, j->will.bytes, 0);
}

static void add_own(egi_text_buf *body, const journey *j) {
  unsigned char head[EGI_ETCD_OWN_HEAD];
  if (j->swap->hold == EGI_KEEP)
    return;
  egi_text_put(body, ",");
  if (j->swap->hold != EGI_TAKE) {
    delete_key(body, j, EGI_OWN);
    return;
  }
  egi_etcd_pack_own(&j->will, j->swap->wake, head);
  put(body, j, EGI_OWN, (eg_bytes){head, sizeof head}, j->swap->holder,
      j->lease.id);
}

/* Where nothing is written, there is no new revision: something is. */
static void add_mark(egi_text_buf *body, const journey *j) {
  const egi_etcd *etcd = j->etcd;
  if (!j->absent || j->swap->hold != EGI_BREAK)
    return;
  egi_text_put(body, ",{\"request_put\":{\"key\":");
  egi_text_bytes(body, (eg_bytes){etcd->prefix, etcd->prefix_len},
                 (eg_bytes){"brk", 3});
  egi_text_put(body, "}}");
}

static void add_times(egi_text_buf *body, const journey *j) {
  eg_bytes none = {NULL, 0};
  for (int i = 0; i < EGI_TIMES; i++) {
    bool sets = j->times[i].id != 0 && j->will.length[i] > 0 && !j->absent;
    bool clears = !sets && j->was.length[i] > 0 &&
                  (j->absent || j->will.length[i] == 0);
    if (sets || clears)
      egi_text_put(body, ",");
    if (sets)
      put(body, j, EGI_TIME + i, none, none, j->times[i].id);
    else if (clears)
      delete_key(body, j, EGI_TIME + i);
  }
}

/* What is kept of a run that ends, in the same transaction. */
static void add_past(egi_text_buf *body, const journey *j) {
  unsigned char head[EGI_PAST_MAX], tail[EGI_PAST_TAIL];
  if (!egi_past_is_due(j->swap))
    return;
  eg_bytes holder = j->was.holder.len > 0 ? j->was.holder : j->recalled.holder;
  size_t head_len = egi_past_head(j->was.own, holder, head);
  egi_text_put(body, ",{\"request_put\":{");
  egi_etcd_past_put(body, j->etcd, j->key, j->swap->count);
  egi_text_put(body, ",\"value\":");
  egi_text_bytes(body, (eg_bytes){head, head_len},
                 (eg_bytes){tail, egi_past_tail(j->swap, tail)});
  egi_text_put(body, "}}");
}

static eg_status send_swap(journey *j, egi_etcd_call *call, json_t **reply,
                           eg_error *error) {
  egi_text_buf body = {0};
  egi_text_put(&body, "{\"compare\":[");
  add_compares(&body, j);
  egi_text_put(&body, "],\"success\":[");
  add_rec(&body, j);
  add_own(&body, j);
  add_times(&body, j);
  add_mark(&body, j);
  add_past(&body, j);
  egi_text_put(&body, "]");
  if (j->swap->token == 0) { /* holders seldom find that they are none */
    egi_text_put(&body, ",\"failure\":");
    egi_etcd_ranges(&body, j->etcd, j->key, EGI_TIME);
  }
  egi_text_put(&body, "}");
  eg_status status = egi_etcd_ask(j->etcd->hub, call, &body, j->until_us,
                                  reply, error);
  egi_text_free(&body);
  return status;
}

/* ------------------------------------------------------------- landed -- */

static void note_hold(journey *j, uint64_t token) {
  egi_etcd *etcd = j->etcd;
  egi_holding mine;
  if (j->swap->hold == EGI_TAKE) {
    j->held->lease = j->lease.id;
    j->held->seconds = j->lease.seconds;
    j->held->fresh_us = j->lease.fresh_us;
    j->held->end_us = j->will.lease_end;
    j->held->bare = j->swap->expect == 0 && j->will.bytes.len == 0;
    egi_holding_add(&etcd->holds, j->held, token, &etcd->env);
    j->held = NULL;
    j->lease.id = 0;
  } else if (j->swap->hold != EGI_KEEP) {
    /* Its lease is as old as its last renewal: it is renewed before use. */
    if (j->was.own != 0 &&
        egi_holding_look(&etcd->holds, j->key, j->was.own, &mine) &&
        mine.lease != 0) {
      egi_etcd_lease lease = {.id = mine.lease, .seconds = mine.seconds};
      lease.fresh_us = mine.fresh_us;
      egi_etcd_lease_give(etcd->hub, &lease);
    }
    egi_holding_remove(&etcd->holds, j->key, 0, &etcd->env);
  }
}

static void note_landed(journey *j, uint64_t revision, egi_seen *seen) {
  egi_etcd *etcd = j->etcd;
  egi_seen met;
  egi_seen_init(&met);
  uint64_t token = j->will.token == EGI_ETCD_THIS ? revision : j->will.token;
  j->will.revision = revision;
  j->will.token = token;
  if (j->swap->hold == EGI_TAKE)
    j->will.own = token;
  for (int i = 0; i < EGI_TIMES; i++)
    if (j->will.length[i] > 0)
      j->times[i].id = 0; /* it is in use */
  note_hold(j, token);
  egi_etcd_ghost_note(etcd->hub, hash_of(etcd, j->key), 0);
  egi_etcd_see(etcd, &j->will, j->key, &met);
  met.at.token = token;
  met.bytes = met.holder = (eg_bytes){NULL, 0};
  egi_seen_keep(seen, &met, &etcd->env); /* no bytes: no memory */
  egi_recall_swapped(etcd->recall, j->key, j->swap, &met);
}

/* ------------------------------------------------------------ the turns -- */

/* CHANGED: what is there is known now. */
static eg_status read_reply(journey *j, const egi_etcd_call *call,
                            const json_t *reply, egi_seen *seen,
                            eg_error *error) {
  if (json_is_true(json_object_get(reply, "succeeded"))) {
    note_landed(j, egi_json_revision(reply), seen);
    return EG_OK;
  }
  const json_t *responses = json_object_get(reply, "responses");
  eg_status status = EG_OK;
  forget_guess(j);
  j->sure = true;
  if (responses != NULL)
    status = egi_etcd_state_read(responses, &j->was, error);
  /* It says nothing of times. */
  if (status == EG_OK && (responses == NULL || egi_etcd_is_timed(&j->was)))
    status = fetch(j, error);
  if (status != EG_OK)
    return status;
  note_ghost(j->etcd, j->key, &j->was);
  if (call->perhaps) /* who moved it may have been this very swap */
    return egi_remote_fail(error, EG_INDETERMINATE, 0,
                           "the connection to etcd broke, and the swap may "
                           "have landed");
  return EG_CHANGED;
}

static eg_status turn(journey *j, egi_seen *seen, eg_error *error) {
  egi_etcd_call call = {.path = "kv/txn", .writes = true};
  json_t *reply = NULL;
  plan(j);
  eg_status status = need_leases(j, error);
  if (status != EG_OK)
    return status;
  status = send_swap(j, &call, &reply, error);
  if (status == EG_OK)
    status = read_reply(j, &call, reply, seen, error);
  json_decref(reply);
  if (status != EG_NOTFOUND)
    return status;
  /* A lease was over before it was used: others are taken.  That of today's
  ** runs may not be there yet. */
  j->lease.id = 0;
  for (int i = 0; i < EGI_TIMES; i++)
    j->times[i].id = 0;
  status = egi_past_is_due(j->swap)
               ? egi_etcd_past_lease(j->etcd, j->until_us, error)
               : EG_OK;
  return status == EG_OK ? EG_CHANGED : status;
}

static eg_status conflict(journey *j, egi_seen *seen, eg_error *error) {
  egi_etcd *etcd = j->etcd;
  egi_seen met;
  egi_seen_init(&met);
  egi_etcd_see(etcd, &j->was, j->key, &met);
  if (!egi_seen_keep(seen, &met, &etcd->env))
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  egi_recall_keep(etcd->recall, j->key, &met);
  return EG_CONFLICT;
}

static eg_status go(journey *j, egi_seen *seen, eg_error *error) {
  eg_status status = guess(j, error);
  for (int i = 0; i < TURNS_MAX && status == EG_OK; i++) {
    if (!fits(j) && !j->sure)
      status = fetch(j, error);
    if (status != EG_OK)
      break;
    if (!fits(j))
      return conflict(j, seen, error);
    status = turn(j, seen, error);
    if (status != EG_CHANGED)
      return status;
    status = EG_OK;
  }
  return status != EG_OK ? status
                         : egi_remote_fail(error, EG_UNAVAILABLE, 0,
                                           "the key changes all the time");
}

static eg_status check_lease(const egi_swap *swap, eg_error *error) {
  int64_t ms = swap->lease_ms;
  if (swap->hold != EGI_TAKE || ms == 0 ||
      (ms >= EGI_ETCD_LEASE_LEAST * 1000 &&
       (ms % 1000 == 0 || ms > EGI_LONG_US / 1000)))
    return EG_OK;
  return egi_remote_fail(error, EG_INVALID, 0,
                         "a lease of etcd is a whole number of seconds, at "
                         "least 2, not %.3f (lease, maxHold)",
                         (double)ms / 1000);
}

eg_status egi_etcd_swap(egi_store *store, eg_bytes key, const egi_swap *swap,
                        int64_t deadline_us, egi_seen *seen, eg_error *error) {
  egi_etcd *etcd = (egi_etcd *)store;
  journey j = {.etcd = etcd, .key = key, .swap = swap};
  egi_etcd_notice_fork(etcd);
  eg_status status = check_lease(swap, error);
  if (status != EG_OK)
    return status;
  j.until_us = egi_real_deadline(&etcd->env, deadline_us, etcd->timeout_us);
  egi_seen_init(&j.recalled);
  if (swap->hold == EGI_TAKE) {
    j.held = egi_holding_new(key, &etcd->env);
    if (j.held == NULL)
      return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  }
  status = go(&j, seen, error);
  egi_etcd_lease_give(etcd->hub, &j.lease);
  for (int i = 0; i < EGI_TIMES; i++)
    egi_etcd_lease_give(etcd->hub, &j.times[i]);
  forget_guess(&j);
  egi_holding_free(j.held, &etcd->env);
  return status;
}
