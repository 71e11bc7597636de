/* SPDX-License-Identifier: MIT
** Metrics: gathers what there is to count of one guard, or of all.
*/
#include "guard/metrics.h"

#include "core/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const int64_t egi_bounds_us[EGI_BOUNDS] = {
    100,       1000,      5000,       10000,      50000,       100000,
    500000,    1000000,   5000000,    10000000,   30000000,    60000000,
    300000000, 600000000, 1800000000, 3600000000, 21600000000, 86400000000};
const char *const egi_bounds[EGI_BOUNDS] = {
    "0.0001", "0.001", "0.005",  "0.01",   "0.05",    "0.1",
    "0.5",    "1.0",   "5.0",    "10.0",   "30.0",    "60.0",
    "300.0",  "600.0", "1800.0", "3600.0", "21600.0", "86400.0"};

static const char rest_key[] = "other";

bool egi_is_rest(eg_bytes key) {
  return key.len == sizeof rest_key - 1 &&
         memcmp(key.data, rest_key, key.len) == 0;
}

size_t egi_metrics_bytes(const egi_metrics *m) {
  return m->named_cap * sizeof *m->named + m->cap * sizeof *m->order +
         m->place_cap * sizeof *m->places;
}

/* ---------------------------------------------------------- one record -- */

static unsigned bound_of(int64_t us) {
  unsigned i = 0;
  while (i < EGI_BOUNDS && us > egi_bounds_us[i])
    i++;
  return i;
}

static void spread(egi_spread *to, const egi_tally *tally) {
  for (unsigned i = 0; i < tally->n; i++)
    to->in[bound_of(egi_bucket_us(tally->buckets[i].number))] +=
        tally->buckets[i].runs;
  to->total_us = tally->total_us;
}

static void sum_up(const eg_record *record, egi_sum *sum) {
  egi_tally tally;
  memset(sum, 0, sizeof *sum);
  sum->held = record->locked;
  if (record->only_locked) /* what is gone with the lock is no counter */
    return;
  sum->blocked = record->blocked;
  sum->cached = record->cached;
  egi_decode_tally(record->waits, &tally);
  spread(&sum->waits, &tally);
  if (record->corrupt)
    return;
  sum->executions = record->count;
  sum->failed = record->failed;
  sum->timed_out = record->timed_out;
  sum->lost = record->lost;
  sum->failing = record->status == EG_RUN_FAILED ||
                 record->status == EG_RUN_TIMEDOUT;
  sum->last_us = record->last_us;
  egi_record_tally(record, &tally);
  spread(&sum->runs, &tally);
}

static void add_spread(egi_spread *to, const egi_spread *from) {
  for (unsigned i = 0; i <= EGI_BOUNDS; i++)
    to->in[i] += from->in[i];
  to->total_us += from->total_us;
}

static void add(egi_sum *to, const egi_sum *from) {
  to->executions += from->executions;
  to->failed += from->failed;
  to->timed_out += from->timed_out;
  to->lost += from->lost;
  to->blocked += from->blocked;
  to->cached += from->cached;
  to->held += from->held;
  to->failing += from->failing;
  if (from->last_us > to->last_us)
    to->last_us = from->last_us;
  add_spread(&to->runs, &from->runs);
  add_spread(&to->waits, &from->waits);
}

static void add_to_rest(egi_metrics *m, size_t place, const egi_sum *sum) {
  add(&m->places[place].rest, sum);
  m->places[place].rest_keys++;
}

/* ------------------------------------------- the keys asked for most -- */

static int by_label(const egi_named *x, const egi_named *y) {
  if (x->place != y->place)
    return x->place < y->place ? -1 : 1;
  size_t n = x->len < y->len ? x->len : y->len;
  int order = memcmp(x->key, y->key, n);
  return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

/* Is x to go before y?  Of those that were asked for as often, the last by
** name, so that it is the same ones each time. */
static bool goes_first(const egi_named *x, const egi_named *y) {
  return x->asked != y->asked ? x->asked < y->asked : by_label(x, y) > 0;
}

static egi_named *at(const egi_metrics *m, size_t i) {
  return &m->named[m->order[i]];
}

static void swap(egi_metrics *m, size_t i, size_t j) {
  uint32_t other = m->order[i];
  m->order[i] = m->order[j];
  m->order[j] = other;
}

static void sift_up(egi_metrics *m, size_t i) {
  for (; i > 0 && goes_first(at(m, i), at(m, (i - 1) / 2)); i = (i - 1) / 2)
    swap(m, i, (i - 1) / 2);
}

static void sift_down(egi_metrics *m) {
  for (size_t i = 0, least;; i = least) {
    least = i;
    for (size_t child = 2 * i + 1; child <= 2 * i + 2; child++)
      if (child < m->n && goes_first(at(m, child), at(m, least)))
        least = child;
    if (least == i)
      return;
    swap(m, i, least);
  }
}

static void *resize(egi_metrics *m, void *old, size_t size, size_t n,
                    size_t more) {
  void *now = m->env.alloc(m->env.alloc_ud, old, n * size, more * size);
  m->no_memory = now == NULL;
  return m->no_memory ? old : now;
}

static bool grow(egi_metrics *m) {
  size_t cap = m->cap > 0 ? 2 * m->cap : 16;
  if (cap > m->top)
    cap = m->top;
  m->named = resize(m, m->named, sizeof *m->named, m->named_cap, cap);
  if (m->no_memory)
    return false;
  m->named_cap = cap;
  m->order = resize(m, m->order, sizeof *m->order, m->cap, cap);
  if (!m->no_memory)
    m->cap = cap;
  return !m->no_memory;
}

static bool name_it(egi_metrics *m, const egi_named *one) {
  if (m->n == m->cap && m->cap < m->top && !grow(m))
    return false;
  if (m->n < m->cap) {
    m->named[m->n] = *one;
    m->order[m->n] = (uint32_t)m->n;
    sift_up(m, m->n++);
  } else if (m->n > 0 && goes_first(at(m, 0), one)) {
    add_to_rest(m, at(m, 0)->place, &at(m, 0)->sum);
    *at(m, 0) = *one;
    sift_down(m);
  } else {
    add_to_rest(m, one->place, &one->sum);
  }
  return true;
}

static int compare(const void *a, const void *b, void *ctx) {
  const egi_named *named = ctx;
  return by_label(&named[*(const uint32_t *)a], &named[*(const uint32_t *)b]);
}

/* Puts them in order; those with the same key, of guards without a name, are
** one. */
static void settle(egi_metrics *m) {
  size_t n = 0;
  if (m->n > 1)
    qsort_r(m->order, m->n, sizeof *m->order, compare, m->named);
  for (size_t i = 0; i < m->n; i++)
    if (n > 0 && by_label(at(m, n - 1), at(m, i)) == 0)
      add(&at(m, n - 1)->sum, &at(m, i)->sum);
    else
      m->order[n++] = m->order[i];
  m->n = n;
}

/* ----------------------------------------------------------- one guard -- */

typedef struct gathering {
  egi_metrics *metrics;
  size_t place;
} gathering;

static bool gather_record(void *ctx, const eg_record *record) {
  gathering *g = ctx;
  egi_place *place = &g->metrics->places[g->place];
  egi_named one;
  sum_up(record, &one.sum);
  if (record->corrupt)
    place->corrupt++;
  else if (!record->only_locked)
    place->by_run[record->status]++;
  add(&place->all, &one.sum);
  if (egi_is_rest(record->key)) {
    add_to_rest(g->metrics, g->place, &one.sum);
    return true;
  }
  one.asked = one.sum.executions + one.sum.blocked + one.sum.cached;
  one.place = g->place;
  one.len = record->key.len;
  memcpy(one.key, record->key.data, one.len);
  return name_it(g->metrics, &one);
}

static bool grow_places(egi_metrics *m) {
  size_t cap = m->place_cap + 4;
  m->places = resize(m, m->places, sizeof *m->places, m->place_cap, cap);
  if (!m->no_memory)
    m->place_cap = cap;
  return !m->no_memory;
}

/* Finds or makes the place of a scheme and a name. */
static bool find_place(egi_metrics *m, const char *scheme, const char *name,
                       size_t *place) {
  for (size_t i = 0; i < m->place_n; i++)
    if (strcmp(m->places[i].scheme, scheme) == 0 &&
        strcmp(m->places[i].name, name) == 0) {
      *place = i;
      return true;
    }
  if (m->place_n == EGI_PLACES - 1)
    scheme = name = rest_key;
  if (m->place_n == EGI_PLACES) {
    *place = EGI_PLACES - 1;
    return true;
  }
  if (m->place_n == m->place_cap && !grow_places(m))
    return false;
  egi_place *p = &m->places[ *place = m->place_n++];
  memset(p, 0, sizeof *p);
  p->scheme = scheme;
  snprintf(p->name, sizeof p->name, "%s", name);
  return true;
}

static eg_status gather_guard(egi_metrics *m, eg_guard *guard,
                              eg_error *error) {
  gathering g = {m, 0};
  eg_status status = EG_OK;
  if (find_place(m, guard->ops->scheme, guard->name, &g.place))
    status = eg_scan_held(guard, eg_str(""), gather_record, &g, error);
  if (m->no_memory)
    return egi_fail(error, EG_NOMEM, "not enough memory for metrics");
  m->places[g.place].down |= status != EG_OK;
  return status;
}

/* ------------------------------------------------------- all of them -- */

/* Guards of one namespace are side by side, and equal. */
static int by_place(const void *a, const void *b) {
  const eg_guard *x = *(eg_guard *const *)a, *y = *(eg_guard *const *)b;
  uintptr_t p = (uintptr_t)x->store->space, q = (uintptr_t)y->store->space;
  if (p != q)
    return p < q ? -1 : 1;
  if (p != 0) /* the same, however its URL is written */
    return 0;
  if (x->url_sum != y->url_sum)
    return x->url_sum < y->url_sum ? -1 : 1;
  return strcmp(x->name, y->name);
}

/* A store that is away is shown as that; the others are read all the same. */
static eg_status gather_all(egi_metrics *m, eg_error *error) {
  egi_pinned pinned;
  if (!egi_owner_pin(&m->env, &pinned))
    return egi_fail(error, EG_NOMEM, "not enough memory for metrics");
  eg_guard **guards = pinned.guards;
  if (pinned.n > 1)
    qsort(guards, pinned.n, sizeof *guards, by_place);
  for (size_t i = 0; i < pinned.n && !m->no_memory; i++)
    if (i == 0 || by_place(&guards[i - 1], &guards[i]) != 0)
      gather_guard(m, guards[i], error);
  egi_owner_unpin(&m->env, &pinned);
  return m->no_memory ? EG_NOMEM : EG_OK;
}

eg_status eg_write_metrics(eg_guard *guard, size_t top,
                           eg_metrics_format format, eg_write write, void *ctx,
                           eg_error *error) {
  egi_metrics m = {.top = top, .process = guard == NULL};
  if (guard != NULL)
    m.env = guard->env;
  egi_env_complete(&m.env);
  eg_status status = guard != NULL ? gather_guard(&m, guard, error)
                                   : gather_all(&m, error);
  if (status == EG_OK) {
    settle(&m);
    status = egi_metrics_text(&m, format, write, ctx);
  }
  egi_free(&m.env, m.named, m.named_cap * sizeof *m.named);
  egi_free(&m.env, m.order, m.cap * sizeof *m.order);
  egi_free(&m.env, m.places, m.place_cap * sizeof *m.places);
  return status;
}
