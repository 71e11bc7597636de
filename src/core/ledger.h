/* SPDX-License-Identifier: MIT
** What is counted, by key: a table in memory.
**
** It grows a bucket at a time, as the table of the memory store does.  Its
** owner has a lock for it, gives it memory, and hashes the keys.
*/
#ifndef EG_CORE_LEDGER_H
#define EG_CORE_LEDGER_H

#include "core/counters.h"

enum { EGI_LEDGER_FIRST = 16, EGI_LEDGER_SEGMENTS = 24 };

typedef struct egi_account {
  struct egi_account *next; /* in its bucket */
  uint64_t hash;
  uint64_t blocked, cached;
  unsigned char *waits; /* a tally as it is written, or NULL */
  uint32_t waits_len;
  uint16_t key_len;
  bool loose; /* the owner's */
  unsigned char key[];
} egi_account;

/* All zero: empty. */
typedef struct egi_ledger {
  uint32_t n, buckets;
  uint32_t cursor; /* egi_ledger_take goes on there */
  uint32_t loose;  /* accounts that are */
  egi_account **segments[EGI_LEDGER_SEGMENTS];
} egi_ledger;

egi_account *egi_ledger_find(const egi_ledger *ledger, eg_bytes key,
                             uint64_t hash);

/* egi_ledger_add: adds to a key's account, which is made if it has none; NULL:
** no memory, and nothing was added. */
egi_account *egi_ledger_add(egi_ledger *ledger, const eg_env *env,
                            eg_bytes key, uint64_t hash,
                            const egi_counts *more);

/* egi_ledger_take: takes an account out, for egi_account_free; NULL: it is
** empty.  egi_ledger_remove: frees that of a key. */
egi_account *egi_ledger_take(egi_ledger *ledger);
void egi_ledger_remove(egi_ledger *ledger, const eg_env *env, eg_bytes key,
                       uint64_t hash);
void egi_account_free(egi_account *account, const eg_env *env);

/* egi_ledger_free: all that it has; it is empty then. */
void egi_ledger_free(egi_ledger *ledger, const eg_env *env);

/*
** egi_ledger_each: calls visit with every account in a bucket, and in those
** that were divided from it, until it says false.  Who goes through the
** buckets that there were (egi_home_step: which buckets each of them is the
** home of: every so-manieth) meets every account once, though accounts are
** added between the calls.
*/
typedef bool (*egi_account_fn)(void *ctx, const egi_account *account);
bool egi_ledger_each(const egi_ledger *ledger, uint32_t bucket, uint32_t step,
                     egi_account_fn visit, void *ctx);

static inline uint32_t egi_home_step(uint32_t buckets, uint32_t bucket) {
  uint32_t low = 1u << (31 - __builtin_clz(buckets));
  bool divided = bucket < buckets - low || bucket >= low;
  return divided ? 2 * low : low;
}

static inline eg_bytes egi_account_key(const egi_account *account) {
  return (eg_bytes){account->key, account->key_len};
}

/* egi_account_read: what it says. */
void egi_account_read(const egi_account *account, egi_counts *counts);

#endif
