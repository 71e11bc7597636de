/* SPDX-License-Identifier: MIT
** What there is of a key in etcd: read from five keys of theirs, and what it
** means.
*/
#include "store/etcd.h"

#include <stdlib.h>

enum { FORMAT = 1, LEAST_LEFT_US = 100000 };

static const char *const kinds[EGI_KINDS + 1] = {"rec/", "own/", "nbf/",
                                                 "frs/", "lif/", "cnt/"};

/* ---------------------------------------------------------------- keys -- */

void egi_etcd_key_make(const egi_etcd *etcd, int kind, eg_bytes key,
                       egi_etcd_key *out) {
  char *to = out->text;
  memcpy(to, etcd->prefix, etcd->prefix_len);
  to += etcd->prefix_len;
  memcpy(to, kinds[kind], 4);
  to += 4;
  if (key.len > 0)
    memcpy(to, key.data, key.len);
  out->len = (size_t)(to - out->text) + key.len;
}

int egi_etcd_key_read(const unsigned char *text, size_t len, eg_bytes *key) {
  for (int kind = 0; kind < EGI_KINDS; kind++)
    if (len > 4 && len <= 4 + EG_KEY_MAX &&
        memcmp(text, kinds[kind], 4) == 0) {
      *key = (eg_bytes){text + 4, len - 4};
      return kind;
    }
  return -1;
}

void egi_etcd_key_put(egi_text_buf *body, const egi_etcd *etcd, int kind,
                      eg_bytes key) {
  egi_etcd_key name;
  eg_bytes none = {NULL, 0};
  egi_etcd_key_make(etcd, kind, none, &name);
  egi_text_put(body, "\"key\":");
  egi_text_bytes(body, (eg_bytes){name.text, name.len}, key);
}

void egi_etcd_ranges(egi_text_buf *body, const egi_etcd *etcd, eg_bytes key,
                     int n) {
  for (int kind = 0; kind < n; kind++) {
    egi_text_put(body, kind == 0 ? "[{\"request_range\":{"
                                 : ",{\"request_range\":{");
    egi_etcd_key_put(body, etcd, kind, key);
    egi_text_put(body, kind < EGI_TIME ? "}}" : ",\"count_only\":true}}");
  }
  egi_text_put(body, "]");
}

/* ------------------------------------------------------------- packing -- */

static void pack(unsigned char *at, uint64_t number) {
  for (int i = 0; i < 8; i++, number >>= 8)
    at[i] = (unsigned char)number;
}

static uint64_t unpack(const unsigned char *at) {
  uint64_t number = 0;
  for (int i = 7; i >= 0; i--)
    number = number << 8 | at[i];
  return number;
}

void egi_etcd_pack_rec(const egi_etcd_state *state, unsigned char *head,
                       size_t *len) {
  unsigned char *to = head + 18;
  head[0] = FORMAT;
  head[1] = 0;
  pack(head + 2, state->token);
  pack(head + 10, (uint64_t)state->stamp);
  for (int i = 0; i < EGI_TIMES; i++)
    if (state->length[i] > 0) {
      head[1] |= (unsigned char)(1 << i);
      pack(to, (uint64_t)state->end[i]);
      pack(to + 8, (uint64_t)state->length[i]);
      to += 16;
    }
  *len = (size_t)(to - head);
}

void egi_etcd_pack_own(const egi_etcd_state *state, bool wake,
                       unsigned char *head) {
  head[0] = FORMAT;
  head[1] = wake;
  pack(head + 2, (uint64_t)state->lease_end);
  pack(head + 10, (uint64_t)state->lease_length);
}

/* ------------------------------------------------------------- reading -- */

static bool value_of(const json_t *kv, unsigned char **text, size_t *len) {
  const char *value = json_string_value(json_object_get(kv, "value"));
  return egi_unbase64(value != NULL ? value : "", text, len);
}

bool egi_etcd_read_rec(const json_t *kv, egi_etcd_state *state) {
  size_t len;
  if (!value_of(kv, &state->rec_text, &len))
    return false;
  const unsigned char *head = state->rec_text, *from = head + 18;
  if (len < 18 || head[0] != FORMAT || head[1] >> EGI_TIMES != 0)
    return false;
  state->revision = egi_json_number(kv, "mod_revision");
  state->token = unpack(head + 2);
  if (state->token == EGI_ETCD_THIS)
    state->token = state->revision;
  state->stamp = (int64_t)unpack(head + 10);
  for (int i = 0; i < EGI_TIMES; i++) {
    if ((head[1] >> i & 1) == 0)
      continue;
    if ((size_t)(from - head) + 16 > len)
      return false;
    state->end[i] = (int64_t)unpack(from);
    state->length[i] = (int64_t)unpack(from + 8);
    from += 16;
  }
  state->bytes = (eg_bytes){from, len - (size_t)(from - head)};
  return true;
}

bool egi_etcd_read_own(const json_t *kv, egi_etcd_state *state) {
  size_t len;
  if (!value_of(kv, &state->own_text, &len))
    return false;
  const unsigned char *head = state->own_text;
  if (len < EGI_ETCD_OWN_HEAD || head[0] != FORMAT)
    return false;
  state->own = egi_json_number(kv, "create_revision");
  state->lease = egi_json_number(kv, "lease");
  state->lease_end = (int64_t)unpack(head + 2);
  state->lease_length = (int64_t)unpack(head + 10);
  state->holder = (eg_bytes){head + EGI_ETCD_OWN_HEAD,
                             len - EGI_ETCD_OWN_HEAD};
  return true;
}

bool egi_etcd_own_wakes(const json_t *kv) {
  egi_etcd_state state = {0};
  bool wakes = egi_etcd_read_own(kv, &state) && state.own_text[1] != 0;
  egi_etcd_state_free(&state);
  return wakes;
}

void egi_etcd_state_free(egi_etcd_state *state) {
  free(state->rec_text);
  free(state->own_text);
  memset(state, 0, sizeof *state);
}

static eg_status not_ours(egi_etcd_state *state, eg_error *error) {
  egi_etcd_state_free(state);
  return egi_remote_fail(error, EG_CORRUPT, 0,
                         "the key of etcd holds something that this version "
                         "of the library did not write");
}

eg_status egi_etcd_state_read(const json_t *responses, egi_etcd_state *state,
                              eg_error *error) {
  bool good = true;
  memset(state, 0, sizeof *state);
  int n = (int)json_array_size(responses);
  for (int kind = 0; good && kind < n; kind++) {
    const json_t *range = json_object_get(
        json_array_get(responses, (size_t)kind), "response_range");
    const json_t *kv = json_array_get(json_object_get(range, "kvs"), 0);
    if (kind >= EGI_TIME)
      state->runs[kind - EGI_TIME] = egi_json_number(range, "count") > 0;
    else if (kv != NULL)
      good = kind == EGI_REC ? egi_etcd_read_rec(kv, state)
                             : egi_etcd_read_own(kv, state);
  }
  /* Who holds has written rec in the same transaction. */
  good = good && (state->own == 0 || state->revision != 0);
  return good ? EG_OK : not_ours(state, error);
}

/* ------------------------------------------------------------- meaning -- */

static bool runs(const egi_etcd_state *state, int i) {
  return state->length[i] > 0 && state->runs[i];
}

bool egi_etcd_is_timed(const egi_etcd_state *state) {
  bool timed = false;
  for (int i = 0; i < EGI_TIMES; i++)
    timed = timed || state->length[i] > 0;
  return timed;
}

bool egi_etcd_is_absent(const egi_etcd_state *state) {
  if (state->revision == 0)
    return true;
  if (state->own != 0)
    return false;
  return (state->bytes.len == 0 && !runs(state, EGI_NBF)) ||
         (state->length[EGI_LIF] > 0 && !runs(state, EGI_LIF));
}

/* Never more than what was set, and while the key stands there is something
** left. */
static int64_t left(int64_t end, int64_t length, int64_t now) {
  int64_t us = end - now;
  return us > length ? length : us > LEAST_LEFT_US ? us : LEAST_LEFT_US;
}

static int64_t time_left(const egi_etcd_state *state, int i, int64_t now,
                         int64_t unset) {
  if (state->length[i] == 0)
    return unset;
  return state->runs[i] ? left(state->end[i], state->length[i], now) : 0;
}

/* Renewals are written nowhere: of its own holds a handle knows, and where the
** end that was set has passed it is as good as set anew. */
static int64_t lease_left(const egi_etcd *etcd, const egi_etcd_state *state,
                          eg_bytes key, int64_t now) {
  egi_holding mine;
  if (state->lease_length == 0)
    return -1;
  if (egi_holding_look((egi_holding_set *)&etcd->holds, key, state->own,
                       &mine) &&
      mine.end_us != 0)
    return left(mine.end_us, INT64_MAX, now);
  if (state->lease_end <= now)
    return state->lease_length;
  return left(state->lease_end, state->lease_length, now);
}

void egi_etcd_see(const egi_etcd *etcd, const egi_etcd_state *state,
                  eg_bytes key, egi_seen *seen) {
  int64_t now = egi_etcd_now(etcd);
  egi_row_absent(now, seen);
  if (egi_etcd_is_absent(state))
    return;
  egi_sight *at = &seen->at;
  seen->version = state->revision;
  seen->bytes = state->bytes;
  at->token = state->token;
  at->stamp_us = state->stamp;
  at->held = state->own != 0;
  if (at->held) {
    at->left_us = lease_left(etcd, state, key, now);
    seen->holder = state->holder;
  }
  at->not_before_left_us = time_left(state, EGI_NBF, now, 0);
  at->fresh_left_us = time_left(state, EGI_FRS, now, -1);
  seen->life_left_us = time_left(state, EGI_LIF, now, -1);
  at->timed = at->left_us >= 0 || at->not_before_left_us > 0 ||
              at->fresh_left_us >= 0 || seen->life_left_us >= 0;
  for (int i = 0; i < EGI_TIMES; i++) {
    seen->mark[i] = (uint64_t)state->end[i];
    seen->mark[EGI_TIMES + i] = (uint64_t)state->length[i];
  }
}

/* --------------------------------------------------------- recollection -- */

bool egi_etcd_recall_state(egi_etcd *etcd, eg_bytes key, uint64_t version,
                           egi_seen *seen, egi_etcd_state *state) {
  memset(state, 0, sizeof *state);
  if (!egi_recall_get(etcd->recall, key, seen) || seen->version != version)
    return false;
  state->revision = seen->version;
  state->token = seen->at.token;
  state->stamp = seen->at.stamp_us;
  state->own = seen->at.held ? seen->at.token : 0;
  state->bytes = seen->bytes;
  for (int i = 0; i < EGI_TIMES; i++) {
    state->end[i] = (int64_t)seen->mark[i];
    state->length[i] = (int64_t)seen->mark[EGI_TIMES + i];
  }
  state->runs[EGI_NBF] = seen->at.not_before_left_us > 0;
  state->runs[EGI_FRS] = seen->at.fresh_left_us > 0;
  state->runs[EGI_LIF] = seen->life_left_us > 0;
  return true;
}
