/* SPDX-License-Identifier: MIT
** What the memory store counts of its keys, under the mutex of the shard: a
** little in the entry of the record itself, which who counts has just read;
** what is too much for that, how long was waited, and what belongs to keys
** with a large record or none, in a ledger a shard.  The sum of both counts.
**
** Either goes with the record of its key.  Of keys that have no record, as
** those that are only ever locked, the first few thousand of a namespace are
** counted: nothing ever takes theirs away.
*/
#include "store/memory.h"

enum { LOOSE_MAX = 4096 };

/* ------------------------------------------------------- in the entry -- */

enum { BLOCKED_AT = EGI_LOW_BITS, CACHED_AT = EGI_LOW_BITS + EGI_COUNT_BITS };

/* What is counted in an entry. */
static void entry_counts(const egi_entry *entry, egi_counts *counts) {
  bool large = egi_entry_flags(entry) & EGI_LARGE;
  uint32_t word = large ? 0 : egi_own(&entry->len);
  egi_counts_init(counts, word >> BLOCKED_AT & EGI_COUNT_MAX,
                  word >> CACHED_AT);
}

/* False: it has no room for them. */
static bool add_to_entry(egi_entry *entry, const egi_counts *more) {
  egi_counts sum;
  entry_counts(entry, &sum);
  sum.blocked += more->blocked;
  sum.cached += more->cached;
  if (more->waits.n > 0 || sum.blocked > EGI_COUNT_MAX ||
      sum.cached > EGI_COUNT_MAX || egi_entry_flags(entry) & EGI_LARGE)
    return false;
  egi_set(&entry->len,
          (uint32_t)(egi_entry_len(entry) | sum.blocked << BLOCKED_AT |
                     sum.cached << CACHED_AT));
  return true;
}

bool egi_memory_count_apart(egi_place *place) {
  egi_counts counts;
  egi_entry *entry = place->spot.entry;
  egi_shard *shard = place->shard;
  entry_counts(entry, &counts);
  if (!egi_counts_any(&counts))
    return true;
  if (egi_ledger_add(&shard->ledger, shard->table.arena.env, place->key.bytes,
                     place->key.hash, &counts) == NULL)
    return false;
  egi_set(&entry->len, (uint32_t)egi_entry_len(entry));
  return true;
}

/* ------------------------------------------------------------- adding -- */

/* One whose time is over is forgotten first, with what was counted. */
static bool has_record(egi_place *place) {
  egi_seen seen;
  egi_table_find(&place->shard->table, &place->key, &place->spot);
  const egi_entry *entry = place->spot.entry;
  if (entry == NULL || !(egi_entry_flags(entry) & EGI_FADES))
    return entry != NULL && egi_entry_len(entry) > 0;
  egi_memory_look(place, &seen);
  return seen.bytes.len > 0;
}

/* Is there room for another key without a record? */
static bool may_be_loose(const egi_place *place) {
  return place->shard->ledger.loose < LOOSE_MAX / place->memory->space->n;
}

/* False: no memory. */
static bool add_to_ledger(egi_place *place, bool loose,
                          const egi_counts *more) {
  egi_ledger *ledger = &place->shard->ledger;
  eg_bytes key = place->key.bytes;
  if (loose && egi_ledger_find(ledger, key, place->key.hash) == NULL &&
      !may_be_loose(place))
    return true;
  egi_account *account = egi_ledger_add(ledger, place->shard->table.arena.env,
                                        key, place->key.hash, more);
  if (account == NULL)
    return false;
  ledger->loose += (uint32_t)loose - (uint32_t)account->loose;
  account->loose = loose;
  return true;
}

eg_status egi_memory_add(egi_store *store, eg_bytes key,
                         const egi_counts *more, int64_t deadline_us,
                         eg_error *error) {
  egi_memory *memory = (egi_memory *)store;
  egi_place place;
  (void)deadline_us;
  egi_memory_locate(memory, key, &place);
  egi_shard_lock(place.shard);
  bool recorded = has_record(&place);
  bool done = (recorded && add_to_entry(place.spot.entry, more)) ||
              add_to_ledger(&place, !recorded, more);
  egi_shard_unlock(place.shard);
  return done ? EG_OK
              : egi_memory_fail(error, EG_NOMEM, 0, "no memory to count");
}

/* ------------------------------------------------------------- showing -- */

typedef struct showing {
  eg_bytes prefix;
  egi_counts_fn visit;
  void *ctx;
} showing;

static bool show(const showing *s, eg_bytes key, const egi_counts *counts) {
  unsigned char bytes[EGI_COUNTS_MAX];
  if (!egi_counts_any(counts) || key.len < s->prefix.len ||
      (s->prefix.len > 0 &&
       memcmp(key.data, s->prefix.data, s->prefix.len) != 0))
    return true;
  size_t len = egi_encode_counts(counts, bytes, sizeof bytes);
  return s->visit(s->ctx, key, (eg_bytes){bytes, len});
}

static bool show_account(void *ctx, const egi_account *account) {
  egi_counts counts;
  egi_account_read(account, &counts);
  return show(ctx, egi_account_key(account), &counts);
}

/* The entries of a bucket, and of those that were divided from it. */
static bool show_entries(const showing *s, const egi_table *table,
                         uint32_t bucket, uint32_t step) {
  uint32_t buckets = egi_own(&table->buckets);
  egi_counts counts;
  egi_spot spot;
  for (uint64_t b = bucket; b < buckets; b += step) {
    egi_table_chain(table, (uint32_t)b, &spot);
    for (; spot.entry != NULL; egi_table_next(table, &spot)) {
      entry_counts(spot.entry, &counts);
      if (!show(s, egi_entry_key(spot.entry), &counts))
        return false;
    }
  }
  return true;
}

/* What is in the entries of a shard, or in its ledger.  The mutex is given up
** now and then. */
static bool show_shard(showing *s, egi_shard *shard, bool entries) {
  const egi_ledger *ledger = &shard->ledger;
  const egi_table *table = &shard->table;
  bool more = true;
  egi_shard_lock(shard);
  uint32_t homes = entries ? egi_own(&table->buckets) : ledger->buckets;
  for (uint32_t i = 0; more && i < homes; i++) {
    uint32_t step = egi_home_step(homes, i);
    if (i > 0 && i % 64 == 0) {
      egi_shard_unlock(shard);
      egi_shard_lock(shard);
    }
    more = entries ? show_entries(s, table, i, step)
                   : egi_ledger_each(ledger, i, step, show_account, s);
  }
  egi_shard_unlock(shard);
  return more;
}

static void show_key(egi_memory *memory, showing *s, eg_bytes key) {
  egi_place place;
  egi_counts counts, more;
  egi_memory_locate(memory, key, &place);
  egi_shard_lock(place.shard);
  has_record(&place);
  egi_counts_init(&counts, 0, 0);
  if (place.spot.entry != NULL)
    entry_counts(place.spot.entry, &counts);
  const egi_account *account = egi_ledger_find(&place.shard->ledger, key,
                                               place.key.hash);
  if (account != NULL) {
    egi_account_read(account, &more);
    egi_counts_merge(&counts, &more);
  }
  show(s, key, &counts);
  egi_shard_unlock(place.shard);
}

eg_status egi_memory_counts(egi_store *store, eg_bytes prefix, bool exact,
                            int64_t deadline_us, egi_counts_fn visit,
                            void *ctx, eg_error *error) {
  egi_memory *memory = (egi_memory *)store;
  showing s = {prefix, visit, ctx};
  bool more = true;
  (void)deadline_us;
  (void)error;
  if (exact)
    show_key(memory, &s, prefix);
  for (unsigned i = 0; !exact && more && i < memory->space->n; i++) {
    egi_shard *shard = &memory->space->shards[i];
    more = show_shard(&s, shard, true) && show_shard(&s, shard, false);
  }
  return EG_OK;
}
