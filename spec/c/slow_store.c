/* SPDX-License-Identifier: MIT
** A store that may block; slow_store.h.
*/
#include "slow_store.h"

#include <unistd.h>

static void cross(slow_store *s, eg_bytes key) {
  bool counted = false;
  const char *hangs;
  while ((hangs = atomic_load(&s->hangs)) != NULL && spec_is(key, hangs)) {
    if (!counted)
      atomic_fetch_add(&s->waiting, 1);
    counted = true;
    usleep(200);
  }
  if (counted)
    atomic_fetch_sub(&s->waiting, 1);
}

static eg_status slow_load(egi_store *store, eg_bytes key, int64_t deadline_us,
                           egi_seen *seen, eg_error *error) {
  slow_store *s = (slow_store *)store;
  cross(s, key);
  if (atomic_load(&s->away))
    return egi_fail(error, EG_UNAVAILABLE, "cut");
  return s->inner_ops->load(s->inner, key, deadline_us, seen, error);
}

static eg_status slow_swap(egi_store *store, eg_bytes key,
                           const egi_swap *swap, int64_t deadline_us,
                           egi_seen *seen, eg_error *error) {
  slow_store *s = (slow_store *)store;
  cross(s, key);
  if (atomic_load(&s->away))
    return egi_fail(error, EG_UNAVAILABLE, "cut");
  return s->inner_ops->swap(s->inner, key, swap, deadline_us, seen, error);
}

static eg_status slow_renew(egi_store *store, const egi_hold_ref *holds,
                            size_t n, int64_t lease_ms, eg_status *each,
                            eg_error *error) {
  slow_store *s = (slow_store *)store;
  atomic_fetch_add(&s->renewals, 1);
  atomic_fetch_add(&s->renewed, (int)n);
  while (atomic_load(&s->renew_hangs))
    usleep(200);
  if (atomic_load(&s->away))
    return egi_fail(error, EG_UNAVAILABLE, "cut");
  eg_status status = s->inner_ops->renew(s->inner, holds, n, lease_ms, each,
                                         error);
  for (size_t i = 0; i < n && atomic_load(&s->denies); i++)
    each[i] = EG_LOST;
  return status;
}

static int64_t slow_tend(egi_store *store, int64_t now_us, egi_lost_fn lost,
                         void *ctx) {
  slow_store *s = (slow_store *)store;
  (void)now_us;
  atomic_fetch_add(&s->tended, 1);
  const char *gone = atomic_exchange(&s->gone, NULL);
  if (gone != NULL)
    lost(ctx, eg_str(gone), atomic_load(&s->gone_token));
  return EG_FOREVER;
}

static void slow_before(egi_store *store) {
  slow_store *s = (slow_store *)store;
  s->inner_ops->before_fork(s->inner);
}

static void slow_after(egi_store *store) {
  slow_store *s = (slow_store *)store;
  s->inner_ops->after_fork(s->inner);
}

static void slow_forked(egi_store *store) {
  slow_store *s = (slow_store *)store;
  atomic_fetch_add(&s->forks, 1);
  s->inner_ops->forked(s->inner);
}

static void slow_close(egi_store *store) {
  slow_store *s = (slow_store *)store;
  s->inner_ops->close(s->inner);
}

static eg_status slow_scan(egi_store *store, eg_bytes prefix,
                           egi_visit_fn visit, void *ctx, eg_error *error) {
  slow_store *s = (slow_store *)store;
  return s->inner_ops->scan(s->inner, prefix, visit, ctx, error);
}

static eg_status slow_add(egi_store *store, eg_bytes key,
                          const egi_counts *more, int64_t deadline_us,
                          eg_error *error) {
  slow_store *s = (slow_store *)store;
  if (atomic_load(&s->away))
    return egi_fail(error, EG_UNAVAILABLE, "cut");
  atomic_fetch_add(&s->added, 1);
  return s->inner_ops->add(s->inner, key, more, deadline_us, error);
}

static eg_status slow_counts(egi_store *store, eg_bytes prefix, bool exact,
                             int64_t deadline_us, egi_counts_fn visit,
                             void *ctx, eg_error *error) {
  slow_store *s = (slow_store *)store;
  return s->inner_ops->counts(s->inner, prefix, exact, deadline_us, visit, ctx,
                              error);
}

static const egi_store_ops slow_ops = {
    .abi = EGI_STORE_ABI,
    .blocks = true,
    .scheme = "slow",
    .close = slow_close,
    .load = slow_load,
    .swap = slow_swap,
    .renew = slow_renew,
    .scan = slow_scan,
    .tend = slow_tend,
    .before_fork = slow_before,
    .after_fork = slow_after,
    .forked = slow_forked,
};

void slow_store_connect(slow_store *slow, eg_guard *guard) {
  memset(slow, 0, sizeof *slow);
  slow->base = *guard->store;
  slow->base.ops = &slow_ops;
  slow->inner_ops = guard->ops;
  slow->inner = guard->store;
  guard->ops = &slow_ops;
  guard->store = &slow->base;
  guard->by_apply = false;
}

void slow_store_counts(slow_store *slow, eg_guard *guard) {
  static egi_store_ops ops;
  ops = slow_ops;
  ops.add = slow_add;
  ops.counts = slow_counts;
  slow->base.ops = guard->ops = &ops;
  slow->base.inside = false;
  atomic_store(&guard->counting.noted, false);
}

typedef struct expected {
  slow_store *slow;
  int n;
} expected;

static bool so_many_wait(void *ctx) {
  expected *e = ctx;
  return atomic_load(&e->slow->waiting) >= e->n;
}

bool slow_store_await(slow_store *slow, int n) {
  expected e = {slow, n};
  return spec_comes(so_many_wait, &e);
}
