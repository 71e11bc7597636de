/* SPDX-License-Identifier: MIT
** The time of leases: renewed at a third, lost shortly before they would end;
** see attend.h.  Everything here but egi_lease_now is called under attending.
*/
#include "guard/guard.h"

#include <string.h>
#include <time.h>

#define MARGIN_MOST_US 1000000

enum { BATCH = 32 };

_Atomic int64_t egi_suspended_us;

static int64_t nearer(int64_t a, int64_t b) { return a < b ? a : b; }

static bool by_machine(void) {
  return egi_clock_in_force() == eg_system_clock();
}

/* Where a store elsewhere counts leases this machine may have slept. */
int64_t egi_lease_now(const eg_guard *guard) {
#ifdef CLOCK_BOOTTIME
  struct timespec ts;
  if (guard->ops->blocks && by_machine() &&
      clock_gettime(CLOCK_BOOTTIME, &ts) == 0)
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000 +
           atomic_load(&egi_suspended_us);
#endif
  return egi_now(&guard->env);
}

/* In steady time. */
int64_t egi_lease_steady(const eg_guard *guard, int64_t lease_us,
                         int64_t now) {
  if (lease_us == EG_FOREVER || !guard->ops->blocks)
    return lease_us;
  return lease_us - egi_lease_now(guard) + now;
}

/* -------------------------------------------------------------- holds -- */

/* How long before the end of a lease its work is to be gone: the clocks' rates
** differ, and the work needs time to end. */
static int64_t margin(const eg_guard *guard, const egi_tenure *held) {
  if (!guard->ops->blocks)
    return 0;
  return nearer(held->lease_ms * 1000 / 10, MARGIN_MOST_US);
}

int64_t egi_tenure_lose_at(const eg_guard *guard, const egi_tenure *held) {
  return held->until_us == EG_FOREVER ? EG_FOREVER
                                      : held->until_us - margin(guard, held);
}

void egi_tenure_expect(eg_guard *guard, const egi_tenure *held) {
  egi_attendant *a = &guard->attendant;
  a->renew_us = nearer(a->renew_us, held->renew_us);
  a->lose_us = nearer(a->lose_us, egi_tenure_lose_at(guard, held));
  if (guard->ops->blocks && by_machine())
    egi_boot_expect(nearer(held->renew_us, egi_tenure_lose_at(guard, held)));
}

static void expect_all(eg_guard *guard) {
  egi_attendant *a = &guard->attendant;
  a->renew_us = a->lose_us = EG_FOREVER;
  for (egi_tenure *h = NULL; (h = egi_holds_next(guard, h)) != NULL;)
    egi_tenure_expect(guard, h);
}

/* With work held too. */
void egi_tenure_lose(eg_guard *guard, egi_tenure *held) {
  if (held->timer != NULL)
    egi_timer_lose(held->timer);
  egi_holds_remove(guard, held);
}

egi_tenure *egi_tenure_find(const eg_guard *guard, eg_bytes key,
                            uint64_t token) {
  egi_tenure *held = egi_holds_find(guard, key);
  return held != NULL && held->token == token ? held : NULL;
}

/* With work held too.  The time of their leases runs short. */
void egi_tenure_lose_due(eg_guard *guard) {
  int64_t now = egi_lease_now(guard);
  egi_tenure *h = egi_holds_next(guard, NULL);
  while (h != NULL) {
    egi_tenure *next = egi_holds_next(guard, h);
    if (egi_tenure_lose_at(guard, h) <= now)
      egi_tenure_lose(guard, h);
    h = next;
  }
  expect_all(guard);
}

/* ------------------------------------------------------------ renewal -- */

/* Of one lease, in one request. */
typedef struct batch {
  size_t n;
  int64_t lease_ms;
  int64_t sent_us;
  egi_hold_ref holds[BATCH];
  eg_status each[BATCH];
  unsigned char keys[BATCH][EG_KEY_MAX];
} batch;

/* The lease to ask for: no longer than maxHold allows. */
static int64_t next_lease(const egi_tenure *held, int64_t now) {
  return nearer(held->lease_ms, (held->last_us - now) / 1000);
}

/* Those that are due, and those that nearly are. */
static void gather(const eg_guard *guard, batch *b, int64_t now) {
  b->n = 0;
  b->sent_us = now;
  for (egi_tenure *h = NULL; (h = egi_holds_next(guard, h)) != NULL;) {
    if (h->renew_us > now + (b->n > 0 ? h->lease_ms * 1000 / 12 : 0))
      continue;
    int64_t lease_ms = next_lease(h, now);
    if (lease_ms <= 0) {
      h->renew_us = EG_FOREVER;
      continue;
    }
    if (b->n == 0)
      b->lease_ms = lease_ms;
    if (b->n == BATCH || lease_ms != b->lease_ms)
      continue;
    memcpy(b->keys[b->n], h->key, h->key_len);
    b->holds[b->n].key = (eg_bytes){b->keys[b->n], h->key_len};
    b->holds[b->n].token = h->token;
    b->n++;
  }
}

static void note_renewed(const batch *b, egi_tenure *h) {
  int64_t end = b->sent_us + b->lease_ms * 1000;
  if (end > h->until_us)
    h->until_us = end;
  h->renew_us = b->lease_ms < h->lease_ms
                    ? EG_FOREVER
                    : b->sent_us + h->lease_ms * 1000 / 3;
}

/* No answer, or one that says nothing: again, a few times before the end. */
static void note_failed(const batch *b, egi_tenure *h, int64_t now) {
  int64_t step = nearer(b->lease_ms * 1000 / 12, 1000000);
  h->renew_us = now + (step > 1000 ? step : 1000);
}

/* With work held too.  True: some were lost. */
static bool note_answer(eg_guard *guard, const batch *b, eg_status status) {
  int64_t now = egi_lease_now(guard);
  bool any_lost = false;
  for (size_t i = 0; i < b->n; i++) {
    egi_tenure *h = egi_tenure_find(guard, b->holds[i].key, b->holds[i].token);
    if (h == NULL)
      continue;
    if (status == EG_OK && b->each[i] == EG_OK) {
      note_renewed(b, h);
    } else if (status == EG_OK && b->each[i] == EG_LOST) {
      egi_tenure_lose(guard, h);
      any_lost = true;
    } else {
      note_failed(b, h, now);
    }
  }
  expect_all(guard);
  return any_lost;
}

/* Renews what is due, with attending released meanwhile.  has_work: the caller
** holds that.  False: nothing was due. */
bool egi_tenure_renew(eg_guard *guard, bool has_work) {
  egi_attendant *a = &guard->attendant;
  int64_t now = egi_lease_now(guard);
  batch b;
  if (a->renew_us > now)
    return false;
  gather(guard, &b, now);
  if (b.n == 0) {
    expect_all(guard);
    return true;
  }
  egi_attending_unlock();
  for (size_t i = 0; i < b.n; i++)
    b.each[i] = EG_INTERNAL;
  eg_status status = guard->ops->renew(guard->store, b.holds, b.n, b.lease_ms,
                                       b.each, NULL);
  if (!has_work)
    egi_work_lock();
  egi_attending_lock();
  bool any_lost = note_answer(guard, &b, status);
  if (!has_work) {
    if (any_lost)
      egi_keeper_expect(INT64_MIN);
    egi_work_unlock();
  }
  return true;
}
