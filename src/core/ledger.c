/* SPDX-License-Identifier: MIT
** A table of what is counted, by key; ledger.h.
*/
#include "core/ledger.h"

#include "core/codec.h"

#include <string.h>

/* ------------------------------------------------------------- buckets -- */

static egi_account **head_of(const egi_ledger *ledger, uint32_t bucket) {
  uint32_t place = bucket + EGI_LEDGER_FIRST;
  unsigned top = 31u - (unsigned)__builtin_clz(place);
  return &ledger->segments[top - 4][place ^ 1u << top];
}

_Static_assert(EGI_LEDGER_FIRST == 1 << 4, "head_of");

static size_t segment_size(unsigned segment) {
  return ((size_t)EGI_LEDGER_FIRST << segment) * sizeof(egi_account *);
}

static uint32_t bucket_of(uint64_t hash, uint32_t buckets) {
  uint32_t low = 1u << (31 - __builtin_clz(buckets));
  uint32_t bucket = (uint32_t)hash & (2 * low - 1);
  return bucket < buckets ? bucket : bucket & (low - 1);
}

static bool make_segment(egi_ledger *ledger, const eg_env *env,
                         unsigned segment) {
  if (segment == EGI_LEDGER_SEGMENTS)
    return false;
  if (ledger->segments[segment] == NULL) {
    size_t size = segment_size(segment);
    egi_account **made = env->alloc(env->alloc_ud, NULL, 0, size);
    if (made == NULL)
      return false;
    memset(made, 0, size);
    ledger->segments[segment] = made;
  }
  return true;
}

/* Adds a bucket; without memory the chains get longer. */
static void grow(egi_ledger *ledger, const eg_env *env) {
  uint32_t fresh = ledger->buckets;
  uint32_t low = 1u << (31 - __builtin_clz(fresh));
  uint32_t place = fresh + EGI_LEDGER_FIRST;
  unsigned top = 31u - (unsigned)__builtin_clz(place);
  if (!make_segment(ledger, env, top - 4))
    return;
  egi_account **stay = head_of(ledger, fresh - low);
  egi_account **go = head_of(ledger, fresh);
  egi_account *at = *stay;
  while (at != NULL) {
    egi_account ***end = (uint32_t)at->hash & low ? &go : &stay;
    **end = at;
    *end = &at->next;
    at = at->next;
  }
  *stay = *go = NULL;
  ledger->buckets = fresh + 1;
}

/* Where the account of a key is, or would be. */
static egi_account **link_of(const egi_ledger *ledger, eg_bytes key,
                             uint64_t hash) {
  egi_account **link = head_of(ledger, bucket_of(hash, ledger->buckets));
  while (*link != NULL &&
         ((*link)->hash != hash || (*link)->key_len != key.len ||
          memcmp((*link)->key, key.data, key.len) != 0))
    link = &(*link)->next;
  return link;
}

egi_account *egi_ledger_find(const egi_ledger *ledger, eg_bytes key,
                             uint64_t hash) {
  return ledger->n > 0 ? *link_of(ledger, key, hash) : NULL;
}

/* ------------------------------------------------------------ accounts -- */

static size_t account_size(size_t key_len) {
  return offsetof(egi_account, key) + key_len;
}

void egi_account_free(egi_account *account, const eg_env *env) {
  if (account->waits != NULL)
    env->alloc(env->alloc_ud, account->waits, account->waits_len, 0);
  env->alloc(env->alloc_ud, account, account_size(account->key_len), 0);
}

void egi_account_read(const egi_account *account, egi_counts *counts) {
  counts->blocked = account->blocked;
  counts->cached = account->cached;
  egi_decode_tally((eg_bytes){account->waits, account->waits_len},
                   &counts->waits);
}

/* The waits that there are and more. */
static bool add_waits(egi_account *account, const eg_env *env,
                      const egi_tally *more) {
  unsigned char bytes[EGI_COUNTS_MAX];
  egi_tally tally;
  if (more->n == 0)
    return true;
  egi_decode_tally((eg_bytes){account->waits, account->waits_len}, &tally);
  egi_tally_merge(&tally, more);
  size_t len = egi_encode_tally(&tally, bytes, sizeof bytes);
  unsigned char *made = account->waits;
  if (len != account->waits_len)
    made = env->alloc(env->alloc_ud, account->waits, account->waits_len, len);
  if (made == NULL)
    return false;
  memcpy(made, bytes, len);
  account->waits = made;
  account->waits_len = (uint32_t)len;
  return true;
}

static egi_account *new_account(const eg_env *env, eg_bytes key,
                                uint64_t hash) {
  egi_account *account = env->alloc(env->alloc_ud, NULL, 0,
                                    account_size(key.len));
  if (account == NULL)
    return NULL;
  *account = (egi_account){.hash = hash, .key_len = (uint16_t)key.len};
  memcpy(account->key, key.data, key.len);
  return account;
}

egi_account *egi_ledger_add(egi_ledger *ledger, const eg_env *env,
                            eg_bytes key, uint64_t hash,
                            const egi_counts *more) {
  if (ledger->buckets == 0) {
    if (!make_segment(ledger, env, 0))
      return NULL;
    ledger->buckets = EGI_LEDGER_FIRST;
  }
  egi_account **link = link_of(ledger, key, hash);
  egi_account *account = *link;
  if (account == NULL && (account = new_account(env, key, hash)) == NULL)
    return NULL;
  if (!add_waits(account, env, &more->waits)) {
    if (*link == NULL)
      egi_account_free(account, env);
    return NULL;
  }
  account->blocked += more->blocked;
  account->cached += more->cached;
  if (*link == NULL) {
    *link = account;
    if (++ledger->n > ledger->buckets)
      grow(ledger, env);
  }
  return account;
}

/* ------------------------------------------------------------- and out -- */

static egi_account *unlink_at(egi_ledger *ledger, egi_account **link) {
  egi_account *account = *link;
  *link = account->next;
  ledger->n--;
  ledger->loose -= account->loose;
  return account;
}

egi_account *egi_ledger_take(egi_ledger *ledger) {
  while (ledger->n > 0) {
    if (ledger->cursor >= ledger->buckets)
      ledger->cursor = 0;
    egi_account **head = head_of(ledger, ledger->cursor);
    if (*head != NULL)
      return unlink_at(ledger, head);
    ledger->cursor++;
  }
  return NULL;
}

void egi_ledger_remove(egi_ledger *ledger, const eg_env *env, eg_bytes key,
                       uint64_t hash) {
  if (ledger->n == 0)
    return;
  egi_account **link = link_of(ledger, key, hash);
  if (*link != NULL)
    egi_account_free(unlink_at(ledger, link), env);
}

void egi_ledger_free(egi_ledger *ledger, const eg_env *env) {
  egi_account *account;
  while ((account = egi_ledger_take(ledger)) != NULL)
    egi_account_free(account, env);
  for (unsigned i = 0; i < EGI_LEDGER_SEGMENTS; i++)
    if (ledger->segments[i] != NULL)
      env->alloc(env->alloc_ud, ledger->segments[i], segment_size(i), 0);
  memset(ledger, 0, sizeof *ledger);
}

bool egi_ledger_each(const egi_ledger *ledger, uint32_t bucket, uint32_t step,
                     egi_account_fn visit, void *ctx) {
  for (uint64_t b = bucket; b < ledger->buckets; b += step)
    for (const egi_account *at = *head_of(ledger, (uint32_t)b); at != NULL;
         at = at->next)
      if (!visit(ctx, at))
        return false;
  return true;
}
