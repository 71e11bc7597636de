/* SPDX-License-Identifier: MIT
** What the memory store counts of its keys: a ledger a shard, under the mutex
** of the shard.
**
** An account goes with the record of its key.  Of keys that have no record, as
** those that are only ever locked, the first few thousand of a namespace are
** counted: nothing ever takes theirs away.
*/
#include "store/memory.h"

enum { LOOSE_MAX = 4096 };

/* One whose time is over is forgotten first, with what was counted. */
static bool has_record(egi_place *place) {
  egi_seen seen;
  egi_memory_look(place, &seen);
  return seen.bytes.len > 0;
}

/* Is there room for another key without a record? */
static bool may_be_loose(const egi_place *place) {
  return place->shard->ledger.loose < LOOSE_MAX / place->memory->space->n;
}

eg_status egi_memory_add(egi_store *store, eg_bytes key,
                         const egi_counts *more, int64_t deadline_us,
                         eg_error *error) {
  egi_memory *memory = (egi_memory *)store;
  egi_place place;
  egi_account *account = NULL;
  (void)deadline_us;
  egi_memory_locate(memory, key, &place);
  egi_ledger *ledger = &place.shard->ledger;
  egi_shard_lock(place.shard);
  const egi_account *old = egi_ledger_find(ledger, key, place.key.hash);
  bool loose = (old == NULL || old->loose) && !has_record(&place);
  bool counts = old != NULL || !loose || may_be_loose(&place);
  if (counts)
    account = egi_ledger_add(ledger, &memory->space->env, key, place.key.hash,
                             more);
  if (account != NULL) {
    ledger->loose += (uint32_t)loose - (uint32_t)account->loose;
    account->loose = loose;
  }
  egi_shard_unlock(place.shard);
  return account != NULL || !counts
             ? EG_OK
             : egi_memory_fail(error, EG_NOMEM, 0, "no memory to count");
}

typedef struct showing {
  eg_bytes prefix;
  egi_counts_fn visit;
  void *ctx;
} showing;

static bool show(void *ctx, const egi_account *account) {
  const showing *s = ctx;
  egi_counts counts;
  unsigned char bytes[EGI_COUNTS_MAX];
  eg_bytes key = egi_account_key(account);
  if (key.len < s->prefix.len ||
      (s->prefix.len > 0 &&
       memcmp(key.data, s->prefix.data, s->prefix.len) != 0))
    return true;
  egi_account_read(account, &counts);
  size_t len = egi_encode_counts(&counts, bytes, sizeof bytes);
  return s->visit(s->ctx, key, (eg_bytes){bytes, len});
}

/* The mutex is given up now and then. */
static bool show_shard(const showing *s, egi_shard *shard) {
  const egi_ledger *ledger = &shard->ledger;
  bool more = true;
  egi_shard_lock(shard);
  uint32_t buckets = ledger->buckets;
  for (uint32_t i = 0; more && i < buckets; i++) {
    if (i > 0 && i % 64 == 0) {
      egi_shard_unlock(shard);
      egi_shard_lock(shard);
    }
    more = egi_ledger_each(ledger, i, egi_ledger_step(buckets, i), show,
                           (void *)s);
  }
  egi_shard_unlock(shard);
  return more;
}

eg_status egi_memory_counts(egi_store *store, eg_bytes prefix, bool exact,
                            int64_t deadline_us, egi_counts_fn visit,
                            void *ctx, eg_error *error) {
  egi_memory *memory = (egi_memory *)store;
  showing s = {prefix, visit, ctx};
  egi_place place;
  bool more = true;
  (void)deadline_us;
  (void)error;
  if (exact) {
    egi_memory_locate(memory, prefix, &place);
    egi_shard_lock(place.shard);
    has_record(&place);
    const egi_account *account = egi_ledger_find(&place.shard->ledger, prefix,
                                                 place.key.hash);
    if (account != NULL)
      show(&s, account);
    egi_shard_unlock(place.shard);
    return EG_OK;
  }
  for (unsigned i = 0; more && i < memory->space->n; i++)
    more = show_shard(&s, &memory->space->shards[i]);
  return EG_OK;
}
