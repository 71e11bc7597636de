/* SPDX-License-Identifier: MIT
** Stores that break the contract, one defect each, in front of a good one.
*/
#include "broken.h"

#include <stdlib.h>

/* There is one at a time. */
static const egi_store_ops *good;
static defect what;

enum { LEAKED_MAX = 8 };
static egi_store *leaked[LEAKED_MAX]; /* handles that close did not close */
static int leaked_count;

typedef struct broken {
  egi_store base;
  egi_store *inner;
  eg_env env;
} broken;

static egi_store *inner(egi_store *store) { return ((broken *)store)->inner; }

static eg_status broken_open(const egi_url *url, const eg_env *env,
                             egi_store **store, eg_error *error) {
  broken *b = malloc(sizeof *b);
  if (b == NULL)
    return EG_NOMEM;
  eg_status status = good->open(url, env, &b->inner, error);
  if (status != EG_OK) {
    free(b);
    return status;
  }
  b->base = (egi_store){.ops = broken_ops(good, what)};
  b->env = *env;
  *store = &b->base;
  return EG_OK;
}

static void broken_close(egi_store *store) {
  if (what == LEAKS_HOLDS && leaked_count < LEAKED_MAX)
    leaked[leaked_count++] = inner(store);
  else
    good->close(inner(store));
  free(store);
}

void broken_end(void) {
  while (leaked_count > 0)
    good->close(leaked[--leaked_count]);
}

static void distort(egi_seen *seen) {
  if (what == REUSES_VERSIONS && seen->version != 0)
    seen->version = 1;
  if (what == SHARES_TOKENS && seen->at.token != 0)
    seen->at.token = 1;
}

static eg_status broken_load(egi_store *store, eg_bytes key,
                             int64_t deadline_us, egi_seen *seen,
                             eg_error *error) {
  eg_status status = good->load(inner(store), key, deadline_us, seen, error);
  distort(seen);
  return status;
}

/* Puts what it was asked for into the words of the good store. */
static void translate(egi_swap *swap, const egi_seen *now) {
  if (what == IGNORES_VERSIONS ||
      (what == REUSES_VERSIONS && swap->expect == (now->version != 0)))
    swap->expect = now->version;
  if (what == SHARES_TOKENS && swap->token == 1)
    swap->token = now->at.token;
  if (what == IGNORES_TOKENS)
    swap->token = 0;
  if (what == LOSES_WAKE_UPS)
    swap->wake = false;
  if (what == FORGETS_NOTHING && swap->write == EGI_FORGET)
    swap->write = EGI_LEAVE;
  if (what == STRETCHES_LEASES)
    swap->lease_ms *= 2;
  if (what != LEAVES_NO_TIME)
    return;
  if (swap->not_before_ms == EGI_LEAVE_TIME)
    swap->not_before_ms = 0;
  if (swap->fresh_ms == EGI_LEAVE_TIME)
    swap->fresh_ms = 0;
}

static void touch(egi_store *store, eg_bytes key, egi_seen *now) {
  egi_swap swap = {.expect = now->version,
                   .not_before_ms = EGI_LEAVE_TIME,
                   .fresh_ms = EGI_LEAVE_TIME,
                   .life_ms = EGI_LEAVE_TIME};
  good->swap(inner(store), key, &swap, EG_FOREVER, now, NULL);
}

static eg_status broken_swap(egi_store *store, eg_bytes key,
                             const egi_swap *asked, int64_t deadline_us,
                             egi_seen *seen, eg_error *error) {
  egi_swap swap = *asked;
  egi_seen now;
  const eg_env *env = &((broken *)store)->env;
  egi_seen_init(&now);
  if (good->load(inner(store), key, deadline_us, &now, error) != EG_OK) {
    egi_seen_free(&now, env);
    return EG_NOMEM;
  }
  translate(&swap, &now);
  if (what == TAKES_WHAT_IS_HELD && swap.hold == EGI_TAKE && now.at.held &&
      swap.expect == now.version) {
    egi_swap end = {.expect = now.version,
                    .hold = EGI_BREAK,
                    .not_before_ms = EGI_LEAVE_TIME,
                    .fresh_ms = EGI_LEAVE_TIME,
                    .life_ms = EGI_LEAVE_TIME};
    good->swap(inner(store), key, &end, deadline_us, &now, error);
    swap.expect = now.version;
  }
  eg_status status = good->swap(inner(store), key, &swap, deadline_us, seen,
                                error);
  if ((what == CHANGES_AND_CONFLICTS && status == EG_CONFLICT) ||
      (what == CHANGES_WITHOUT_MEMORY && status == EG_NOMEM))
    touch(store, key, &now);
  egi_seen_free(&now, env);
  distort(seen);
  return status;
}

static eg_status broken_renew(egi_store *store, const egi_hold_ref *holds,
                              size_t n, int64_t lease_ms, eg_status *each,
                              eg_error *error) {
  eg_status status = good->renew(inner(store), holds, n, lease_ms, each,
                                 error);
  for (size_t i = 0; what == RENEWS_ALL && i < n; i++)
    each[i] = EG_OK;
  return status;
}

static eg_status broken_watch(egi_store *store, eg_bytes key,
                              const egi_seen *seen, egi_watch **watch, int *fd,
                              eg_error *error) {
  return good->watch(inner(store), key, seen, watch, fd, error);
}

static eg_status broken_scan(egi_store *store, eg_bytes prefix,
                             egi_visit_fn visit, void *ctx, eg_error *error) {
  static const egi_seen nothing = {.version = 7};
  eg_status status = good->scan(inner(store), prefix, visit, ctx, error);
  if (what == VISITS_TWICE)
    status = good->scan(inner(store), prefix, visit, ctx, error);
  if (what == VISITS_LOCKS)
    visit(ctx, eg_str("only locked"), &nothing);
  return status;
}

const egi_store_ops *broken_ops(const egi_store_ops *of, defect with) {
  static egi_store_ops ops;
  good = of;
  what = with;
  ops = *of;
  ops.open = broken_open;
  ops.close = broken_close;
  ops.load = broken_load;
  ops.swap = broken_swap;
  ops.renew = of->renew != NULL ? broken_renew : NULL;
  ops.watch = of->watch != NULL ? broken_watch : NULL;
  ops.scan = broken_scan;
  ops.unchanged = NULL;
  ops.apply = NULL;
  return &ops;
}
