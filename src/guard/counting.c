/* SPDX-License-Identifier: MIT
** Counting by key; counting.h.
*/
#include "core/codec.h"
#include "guard/guard.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define PERIOD_US 1000000

enum { BATCH = 64, QUIET_VISITS = 2 };

/* Does its store take what is counted, and at once? */
static bool is_at_once(const eg_guard *guard) {
  return guard->store->inside && guard->ops->add != NULL;
}

static bool is_sent(const eg_guard *guard) {
  return !guard->store->inside && guard->ops->add != NULL;
}

static uint64_t seed;
static pthread_once_t seed_once = PTHREAD_ONCE_INIT;

static void make_seed(void) { seed = egi_random(); }

static uint64_t hash_of(eg_bytes key) {
  return XXH3_64bits_withSeed(key.data, key.len, seed);
}

void egi_counting_open(eg_guard *guard) {
  egi_counting *c = &guard->counting;
  pthread_once(&seed_once, make_seed);
  pthread_mutex_init(&c->mutex, NULL);
  atomic_init(&c->noted, !is_sent(guard));
}

/* --------------------------------------------------- out of the tables -- */

/* Adds to the ledger of a guard, or to its store.  False: no memory. */
static bool put(eg_guard *guard, eg_bytes key, const egi_counts *more) {
  egi_counting *c = &guard->counting;
  if (is_at_once(guard))
    return guard->ops->add(guard->store, key, more, EG_FOREVER, NULL) == EG_OK;
  uint64_t hash = hash_of(key);
  pthread_mutex_lock(&c->mutex);
  bool fits = c->ledger.n < EGI_PENDING_MAX ||
              egi_ledger_find(&c->ledger, key, hash) != NULL;
  bool done = !fits ||
              egi_ledger_add(&c->ledger, &guard->env, key, hash, more) != NULL;
  pthread_mutex_unlock(&c->mutex);
  return done;
}

/* Under the table's mutex: takes what is new in a place.  False: no memory,
** and it stays, unless `last`. */
static bool take(egi_count_table *table, unsigned i, bool last) {
  egi_count_place *place = &table->places[i];
  egi_count_rest *rest = &table->rests[i];
  egi_counts more;
  uint64_t now[EGI_OF_KEY];
  for (int k = 0; k < EGI_OF_KEY; k++)
    now[k] = atomic_load_explicit(&place->counts[k], memory_order_relaxed);
  egi_counts_init(&more, now[EGI_OF_BLOCKED] - rest->taken[EGI_OF_BLOCKED],
                  now[EGI_OF_CACHED] - rest->taken[EGI_OF_CACHED]);
  if (!egi_counts_any(&more))
    return true;
  bool done = put(place->guard, (eg_bytes){rest->key, rest->key_len}, &more);
  if (done || last)
    memcpy(rest->taken, now, sizeof now);
  return done;
}

static bool has_new(egi_count_table *table, unsigned i) {
  const egi_count_place *place = &table->places[i];
  for (int k = 0; k < EGI_OF_KEY; k++)
    if (atomic_load_explicit(&place->counts[k], memory_order_relaxed) !=
        table->rests[i].taken[k])
      return true;
  return false;
}

/* Takes what all threads have counted for a guard, or for those that show the
** same keys.  True: there was something. */
static bool collect(eg_guard *guard, bool last) {
  const void *space = guard->store->inside ? guard->store->space : NULL;
  bool any = false;
  for (egi_thread *t = egi_threads(); t != NULL; t = t->next) {
    egi_count_table *table = atomic_load(&t->table);
    if (table == NULL)
      continue;
    pthread_mutex_lock(&table->mutex);
    for (unsigned i = 0; i < EGI_COUNT_PLACES; i++) {
      const eg_guard *of = table->places[i].guard;
      if (of == NULL || !has_new(table, i) ||
          (of != guard && (space == NULL || of->store->space != space)))
        continue;
      take(table, i, last);
      any = true;
    }
    pthread_mutex_unlock(&table->mutex);
  }
  return any;
}

/* ---------------------------------------------------- into the tables -- */

static void note(eg_guard *guard) {
  if (!atomic_exchange(&guard->counting.noted, true))
    egi_attend_counts(guard);
}

static egi_count_table *new_table(egi_thread *here) {
  egi_count_table *table = aligned_alloc(_Alignof(egi_count_table),
                                         sizeof *table);
  if (table == NULL)
    return NULL;
  memset(table, 0, sizeof *table);
  pthread_mutex_init(&table->mutex, NULL);
  atomic_store(&here->table, table);
  return table;
}

/* Gives a place to a key; to take that of another only every so often is
** enough for those that are asked for often.  NULL: not this time, or there is
** no memory for what was counted in it. */
static egi_count_place *make_place(egi_count_table *table, eg_guard *guard,
                                   eg_bytes key, uint64_t tag) {
  unsigned i = tag % EGI_SETS * EGI_WAYS, way = 0;
  while (way < EGI_WAYS && table->places[i + way].guard != NULL)
    way++;
  if (way == EGI_WAYS) {
    if (++table->turn % EGI_ADMITTED != 0)
      return NULL;
    way = table->turn / EGI_ADMITTED % EGI_WAYS;
  }
  pthread_mutex_lock(&table->mutex);
  i += way;
  egi_count_place *place = &table->places[i];
  egi_count_rest *rest = &table->rests[i];
  bool free = take(table, i, false);
  if (free) {
    place->tag = tag;
    place->guard = guard;
    for (int k = 0; k < EGI_OF_KEY; k++) {
      atomic_store_explicit(&place->counts[k], 0, memory_order_relaxed);
      rest->taken[k] = 0;
    }
    rest->key_len = (uint32_t)key.len;
    memcpy(rest->key, key.data, key.len);
  }
  pthread_mutex_unlock(&table->mutex);
  return free ? place : NULL;
}

void egi_count_slowly(eg_guard *guard, eg_bytes key, uint64_t tag,
                      unsigned which) {
  egi_thread *here = egi_here != NULL ? egi_here : egi_thread_take();
  egi_count_table *table = NULL;
  egi_count_place *place = NULL;
  if (here != NULL && key.len <= EGI_PLACE_KEY) {
    table = atomic_load_explicit(&here->table, memory_order_relaxed);
    if (table == NULL)
      table = new_table(here);
    if (table != NULL)
      place = make_place(table, guard, key, tag);
  }
  if (place != NULL) {
    atomic_store_explicit(&place->counts[which], 1, memory_order_relaxed);
  } else {
    egi_counts one;
    egi_counts_init(&one, which == EGI_OF_BLOCKED, which == EGI_OF_CACHED);
    put(guard, key, &one);
  }
  note(guard);
}

void egi_count_noted(eg_guard *guard) { note(guard); }

void egi_count_outcome(eg_guard *guard, eg_bytes key, eg_status status) {
  egi_counter counter = egi_counter_of_acquire(status);
  egi_count(counter);
#ifndef EG_NO_COUNTERS
  if (counter != EGI_EXECUTIONS)
    egi_count_key(guard, key, hash_of(key),
                  counter == EGI_CACHED ? EGI_OF_CACHED : EGI_OF_BLOCKED);
#else
  (void)guard;
  (void)key;
#endif
}

void egi_count_wait(eg_guard *guard, eg_bytes key, int64_t us) {
#ifndef EG_NO_COUNTERS
  egi_counts one;
  egi_counts_init(&one, 0, 0);
  egi_tally_time(&one.waits, us);
  put(guard, key, &one);
  note(guard);
#else
  (void)guard;
  (void)key;
  (void)us;
#endif
}

/* -------------------------------------------------------- to the store -- */

/* Sends one key's.  False: there is none, or the store does not take it. */
static bool send_one(eg_guard *guard, int64_t deadline_us, bool *failed) {
  egi_counting *c = &guard->counting;
  egi_counts counts;
  pthread_mutex_lock(&c->mutex);
  egi_account *account = egi_ledger_take(&c->ledger);
  pthread_mutex_unlock(&c->mutex);
  if (account == NULL)
    return false;
  egi_account_read(account, &counts);
  eg_bytes key = egi_account_key(account);
  eg_status status = guard->ops->add(guard->store, key, &counts, deadline_us,
                                     NULL);
  /* What may have been added is not added again. */
  *failed = status != EG_OK && status != EG_INDETERMINATE;
  if (*failed)
    put(guard, key, &counts);
  egi_account_free(account, &guard->env);
  return !*failed;
}

int64_t egi_counting_visit(eg_guard *guard, int64_t now_us) {
  egi_counting *c = &guard->counting;
  bool failed = false;
  bool any = collect(guard, false);
  int n = 0;
  while (n < BATCH && send_one(guard, now_us + PERIOD_US, &failed))
    n++;
  if (n == BATCH)
    return now_us; /* what else is to be done comes between */
  c->quiet = any || n > 0 || failed ? 0 : c->quiet + 1;
  if (c->quiet == 0)
    return now_us + PERIOD_US;
  /* Who counts while this is set may still see the old value, once: so there
  ** is another visit after it. */
  atomic_store(&c->noted, false);
  return c->quiet < QUIET_VISITS ? now_us + PERIOD_US : EG_FOREVER;
}

void egi_counting_send(eg_guard *guard, int64_t until_us) {
  bool failed = false;
  if (!is_sent(guard))
    return;
  collect(guard, true);
  while (egi_now(&guard->env) < until_us && send_one(guard, until_us, &failed))
    continue;
}

void egi_counting_close(eg_guard *guard) {
  egi_counting *c = &guard->counting;
  egi_counting_send(guard, egi_now(&guard->env) + PERIOD_US);
  collect(guard, true);
  egi_ledger_free(&c->ledger, &guard->env);
  egi_ledger_free(&c->forked, &guard->env);
  pthread_mutex_destroy(&c->mutex);
}

/* ------------------------------------------------------------- reading -- */

static bool merge(void *ctx, eg_bytes key, eg_bytes bytes) {
  egi_counts counts;
  (void)key;
  if (egi_decode_counts(bytes, &counts))
    egi_counts_merge(ctx, &counts);
  return true;
}

eg_status egi_counts_of(eg_guard *guard, eg_bytes key, egi_counts *counts,
                        eg_error *error) {
  egi_counting *c = &guard->counting;
  egi_counts more;
  eg_status status = EG_OK;
  memset(counts, 0, sizeof *counts);
  collect(guard, false);
  if (guard->ops->counts != NULL)
    status = guard->ops->counts(guard->store, key, true, EG_FOREVER, merge,
                                counts, error);
  pthread_mutex_lock(&c->mutex);
  const egi_account *account = egi_ledger_find(&c->ledger, key, hash_of(key));
  if (account != NULL) {
    egi_account_read(account, &more);
    egi_counts_merge(counts, &more);
  }
  pthread_mutex_unlock(&c->mutex);
  return status;
}

typedef struct gathering {
  eg_guard *guard;
  egi_ledger *into;
  bool full;
} gathering;

static bool gather(void *ctx, eg_bytes key, eg_bytes bytes) {
  gathering *g = ctx;
  egi_counts counts;
  if (egi_decode_counts(bytes, &counts))
    g->full = egi_ledger_add(g->into, &g->guard->env, key, hash_of(key),
                             &counts) == NULL;
  return !g->full;
}

static bool gather_pending(void *ctx, const egi_account *account) {
  gathering *g = ctx;
  egi_counts counts;
  egi_account_read(account, &counts);
  g->full = egi_ledger_add(g->into, &g->guard->env, egi_account_key(account),
                           account->hash, &counts) == NULL;
  return !g->full;
}

eg_status egi_counts_all(eg_guard *guard, eg_bytes prefix, egi_ledger *into,
                         eg_error *error) {
  egi_counting *c = &guard->counting;
  gathering g = {guard, into, false};
  eg_status status = EG_OK;
  memset(into, 0, sizeof *into);
  collect(guard, false);
  if (guard->ops->counts != NULL)
    status = guard->ops->counts(guard->store, prefix, false, EG_FOREVER,
                                gather, &g, error);
  pthread_mutex_lock(&c->mutex);
  uint32_t buckets = c->ledger.buckets;
  for (uint32_t i = 0; i < buckets && !g.full; i++)
    egi_ledger_each(&c->ledger, i, buckets, gather_pending, &g);
  pthread_mutex_unlock(&c->mutex);
  if (g.full)
    status = egi_fail(error, EG_NOMEM,
                      "not enough memory for what is counted");
  if (status != EG_OK)
    egi_ledger_free(into, &guard->env);
  return status;
}

egi_account *egi_counts_find(const egi_ledger *ledger, eg_bytes key) {
  return ledger->n > 0 ? egi_ledger_find(ledger, key, hash_of(key)) : NULL;
}

/* ---------------------------------------------------------------- fork -- */

/* In the child: what the parent has counted is the parent's to send.  What a
** store in memory has not taken yet goes on standing in the tables. */
static void forked(egi_count_table *table, bool whole) {
  pthread_mutex_init(&table->mutex, NULL);
  for (unsigned i = 0; i < EGI_COUNT_PLACES; i++) {
    egi_count_place *place = &table->places[i];
    if (whole && (!has_new(table, i) || is_at_once(place->guard)))
      continue;
    for (int k = 0; k < EGI_OF_KEY; k++)
      table->rests[i].taken[k] = atomic_load_explicit(&place->counts[k],
                                                      memory_order_relaxed);
  }
}

void egi_counting_fork(egi_fork phase) {
  for (egi_thread *t = egi_threads(); t != NULL; t = t->next) {
    egi_count_table *table = atomic_load(&t->table);
    if (table == NULL)
      continue;
    if (phase == EGI_FORKING) {
      pthread_mutex_lock(&table->mutex);
      table->forking = true;
      continue;
    }
    bool whole = table->forking; /* else it was made meanwhile */
    table->forking = false;
    if (whole)
      pthread_mutex_unlock(&table->mutex);
    if (phase == EGI_FORKED_CHILD)
      forked(table, whole);
  }
}

void egi_counting_guard_fork(eg_guard *guard, egi_fork phase) {
  egi_counting *c = &guard->counting;
  egi_mutex_fork(&c->mutex, phase);
  if (phase != EGI_FORKED_CHILD || !is_sent(guard))
    return;
  if (c->forked.buckets == 0) {
    c->forked = c->ledger;
    c->ledger = (egi_ledger){0};
  } else {
    egi_ledger_free(&c->ledger, &guard->env);
  }
  c->quiet = 0;
  atomic_store(&c->noted, false);
}
