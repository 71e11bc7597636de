/* SPDX-License-Identifier: MIT
** Attendants: outcomes stored, leases renewed, chores done; see attend.h.
*/
#include "guard/guard.h"

#define SOON_US 10000   /* from a write to the store's chores */
#define QUIET_ROUNDS 10 /* and so often again, where nothing is written */
#define RETRY_US 100000 /* the store was away: an outcome again */
#define PATIENCE_US 1000000
#define COUNTS_US 1000000 /* from what is new to be counted to the store */

static pthread_mutex_t attending = PTHREAD_MUTEX_INITIALIZER;
static eg_guard *attended;
static atomic_int attended_n;

static int64_t nearer(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t later(int64_t us, int64_t by) {
  return us < EG_FOREVER - by ? us + by : EG_FOREVER;
}

void egi_attending_lock(void) { pthread_mutex_lock(&attending); }

void egi_attending_unlock(void) { pthread_mutex_unlock(&attending); }

/* ----------------------------------------------------------- the list -- */

/* From here on all but egi_attend_* is called under attending. */

static void enlist(eg_guard *guard) {
  egi_attendant *a = &guard->attendant;
  if (a->listed || a->ending) /* the last that is stored, while it closes */
    return;
  a->listed = true;
  a->renew_us = a->lose_us = a->tend_us = a->counts_us = EG_FOREVER;
  eg_cond_init(&a->woken);
  eg_cond_init(&a->done);
  a->next = attended;
  attended = guard;
  atomic_fetch_add(&attended_n, 1);
}

static void delist(eg_guard *guard) {
  eg_guard **link = &attended;
  while (*link != guard)
    link = &(*link)->attendant.next;
  *link = guard->attendant.next;
  guard->attendant.listed = false;
  atomic_fetch_sub(&attended_n, 1);
}

/* ------------------------------------------------------------- chores -- */

/* A store found out that a hold is gone. */
static void lost(void *ctx, eg_bytes key, uint64_t token) {
  eg_guard *guard = ctx;
  egi_work_lock();
  egi_attending_lock();
  egi_tenure *held = egi_tenure_find(guard, key, token);
  if (held != NULL)
    egi_tenure_lose(guard, held);
  egi_attending_unlock();
  egi_work_unlock();
  egi_keeper_expect(INT64_MIN);
}

/* Who is written to in a row is visited every SOON_US, without being asked:
** a signal for each write would cost the writer more than the visits do. */
static bool goes_on(egi_attendant *a, int activity) {
  int warm = EGI_WARM;
  a->quiet = activity == EGI_WRITTEN ? 0 : a->quiet + 1;
  return a->quiet < QUIET_ROUNDS ||
         !atomic_compare_exchange_strong(&a->activity, &warm, EGI_IDLE);
}

static bool tend(eg_guard *guard) {
  egi_attendant *a = &guard->attendant;
  int64_t now = egi_now(&guard->env);
  if (a->tend_us > now)
    return false;
  a->tend_us = EG_FOREVER;
  int activity = atomic_load(&a->activity);
  if (activity != EGI_IDLE)
    activity = atomic_exchange(&a->activity, EGI_WARM);
  egi_attending_unlock();
  int64_t next = guard->ops->tend(guard->store, now, lost, guard);
  egi_attending_lock();
  a->tend_us = nearer(a->tend_us, next);
  if (activity != EGI_IDLE && goes_on(a, activity))
    a->tend_us = nearer(a->tend_us, now + SOON_US);
  return true;
}

static bool send_counts(eg_guard *guard) {
  egi_attendant *a = &guard->attendant;
  int64_t now = egi_now(&guard->env);
  if (a->counts_us > now)
    return false;
  a->counts_us = EG_FOREVER;
  egi_attending_unlock();
  int64_t next = egi_counting_visit(guard, now);
  egi_attending_lock();
  a->counts_us = nearer(a->counts_us, next);
  return true;
}

/* ----------------------------------------------------------- outcomes -- */

static int stage_of(const eg_timer *timer) {
  return __atomic_load_n(&timer->stage, __ATOMIC_RELAXED);
}

static void set_stage(eg_timer *timer, int stage) {
  __atomic_store_n(&timer->stage, stage, __ATOMIC_RELAXED);
}

static void enqueue(egi_attendant *a, eg_timer *timer) {
  set_stage(timer, EGI_QUEUED);
  timer->next = NULL;
  timer->back = a->tail;
  if (a->tail != NULL)
    a->tail->next = timer;
  else
    a->first = timer;
  a->tail = timer;
}

static void dequeue(egi_attendant *a, eg_timer *timer) {
  if (timer->back != NULL)
    timer->back->next = timer->next;
  else
    a->first = timer->next;
  if (timer->next != NULL)
    timer->next->back = timer->back;
  else
    a->tail = timer->back;
}

static bool is_settled(eg_status status) {
  return status == EG_TIMEOUT || status == EG_LOST;
}

static bool store_next(eg_guard *guard) {
  egi_attendant *a = &guard->attendant;
  eg_timer *timer = a->first;
  if (timer == NULL || egi_now(&guard->env) < a->retry_us)
    return false;
  dequeue(a, timer);
  set_stage(timer, EGI_STORING);
  a->storing = timer;
  egi_attending_unlock();
  eg_status status = egi_timer_commit(timer);
  egi_attending_lock();
  a->storing = NULL;
  a->retry_us = INT64_MIN;
  timer->status = status;
  if (is_settled(status)) {
    set_stage(timer, EGI_STORED);
  } else {
    enqueue(a, timer);
    a->retry_us = egi_now(&guard->env) + RETRY_US;
  }
  pthread_cond_broadcast(&a->done);
  return true;
}

/* --------------------------------------------------------- the thread -- */

static bool is_due(eg_guard *guard) {
  const egi_attendant *a = &guard->attendant;
  int64_t now = egi_now(&guard->env);
  return (a->first != NULL && a->retry_us <= now) || a->tend_us <= now ||
         a->counts_us <= now || egi_leftover_due(a) <= now ||
         a->renew_us <= egi_lease_now(guard);
}

/* A clock that is moved by hand rings; waiting must not move it. */
static void doze(eg_guard *guard) {
  egi_attendant *a = &guard->attendant;
  const eg_clock *clock = egi_clock_in_force();
  int64_t now = egi_now(&guard->env);
  int64_t until = nearer(nearer(a->tend_us, a->counts_us),
                         egi_lease_steady(guard, a->renew_us, now));
  if (a->first != NULL)
    until = nearer(until, a->retry_us);
  until = nearer(until, egi_leftover_due(a));
  pthread_cond_broadcast(&a->done);
  a->dozes_until_us = until;
  if (clock == eg_test_clock())
    pthread_cond_wait(&a->woken, &attending);
  else
    clock->wait(clock->ctx, &a->woken, &attending, until);
  a->dozes_until_us = INT64_MIN;
}

static void *attend(void *arg) {
  eg_guard *guard = arg;
  egi_attendant *a = &guard->attendant;
  egi_attending_lock();
  while (!a->ending) {
    a->busy = true;
    bool did = store_next(guard);
    if (!a->ending && egi_tenure_renew(guard, false))
      did = true;
    if (!a->ending && tend(guard))
      did = true;
    if (!a->ending && send_counts(guard))
      did = true;
    if (!a->ending && egi_leftover_next(guard))
      did = true;
    a->busy = did;
    if (!did && !a->ending)
      doze(guard);
  }
  a->busy = false;
  egi_attending_unlock();
  return NULL;
}

/* Somebody has something for it to do.  Where no thread can be had outcomes
** are stored by who stops their timers, and leases run out. */
static void call(eg_guard *guard) {
  egi_attendant *a = &guard->attendant;
  if (!guard->ops->blocks)
    return;
  if (!a->running && !a->ending) {
    a->running = egi_thread_start(&a->thread, attend, guard);
    egi_leave_mind();
  }
  pthread_cond_signal(&a->woken);
}

/* ------------------------------------------------------- for a caller -- */

void egi_attend_call(eg_guard *guard) {
  enlist(guard);
  call(guard);
}

eg_guard *egi_attend_each(const eg_guard *guard) {
  return guard != NULL ? guard->attendant.next : attended;
}

void egi_attend_note(eg_guard *guard, egi_tenure *held, uint64_t token,
                     int64_t since_us, int64_t lease_ms, int64_t max_hold_ms) {
  int64_t due = EG_FOREVER, now = egi_now(&guard->env);
  int64_t lease_us = lease_ms > 0 ? later(0, lease_ms * 1000) : EG_FOREVER;
  held->token = token;
  held->lease_ms = lease_ms;
  held->last_us = max_hold_ms > 0 ? later(since_us, max_hold_ms * 1000)
                                  : EG_FOREVER;
  held->until_us = later(since_us, lease_us);
  held->renew_us = held->until_us < held->last_us && guard->ops->renew != NULL
                       ? later(since_us, lease_us / 3)
                       : EG_FOREVER;
  egi_attending_lock();
  enlist(guard);
  egi_holds_add(guard, held);
  if (lease_ms > 0) {
    egi_tenure_expect(guard, held);
    due = egi_lease_steady(guard, egi_tenure_lose_at(guard, held), now);
    if (!guard->ops->blocks)
      due = nearer(due, held->renew_us);
    /* One that sleeps for less is not woken: a switch of threads costs more
    ** than a round trip. */
    const egi_attendant *a = &guard->attendant;
    if (!a->running ||
        egi_lease_steady(guard, held->renew_us, now) < a->dozes_until_us)
      call(guard);
  }
  egi_attending_unlock();
  egi_keeper_expect(due);
}

void egi_attend_forget(eg_guard *guard, eg_bytes key, uint64_t token) {
  egi_attending_lock();
  egi_tenure *held = egi_holds_find(guard, key);
  if (held != NULL && held->token <= token)
    egi_holds_remove(guard, held);
  egi_attending_unlock();
}

void egi_attend_soon(eg_guard *guard) {
  egi_attendant *a = &guard->attendant;
  if (atomic_load(&a->activity) == EGI_WRITTEN ||
      atomic_exchange(&a->activity, EGI_WRITTEN) != EGI_IDLE)
    return;
  int64_t due = egi_now(&guard->env) + SOON_US;
  egi_attending_lock();
  enlist(guard);
  a->tend_us = nearer(a->tend_us, due);
  call(guard);
  egi_attending_unlock();
  if (!guard->ops->blocks)
    egi_keeper_expect(due);
}

void egi_attend_counts(eg_guard *guard) {
  int64_t due = egi_now(&guard->env) + COUNTS_US;
  egi_attending_lock();
  enlist(guard);
  egi_attendant *a = &guard->attendant;
  a->counts_us = nearer(a->counts_us, due);
  if (!a->running || due < a->dozes_until_us)
    call(guard);
  egi_attending_unlock();
}

bool egi_attend_tie(eg_timer *timer) {
  egi_attending_lock();
  egi_tenure *held = egi_tenure_find(timer->guard, timer->key,
                                     timer->grant.token);
  if (held != NULL) {
    held->timer = timer;
    timer->hold = held;
  }
  egi_attending_unlock();
  return held != NULL;
}

static void untie(eg_timer *timer) {
  egi_tenure *held = timer->hold;
  if (timer->tied && held != NULL)
    held->timer = timer->hold = NULL;
  timer->tied = false;
}

/* Takes a timer out of all that goes on.  True: it was queued. */
static bool take_out(eg_timer *timer) {
  if (stage_of(timer) == EGI_NOT_DUE) {
    untie(timer);
    return false;
  }
  egi_attendant *a = &timer->guard->attendant;
  while (stage_of(timer) == EGI_STORING)
    pthread_cond_wait(&a->done, &attending);
  untie(timer);
  if (stage_of(timer) != EGI_QUEUED)
    return false;
  dequeue(a, timer);
  set_stage(timer, EGI_NOT_DUE);
  return true;
}

void egi_attend_finish(eg_timer *timer) {
  egi_attending_lock();
  bool queued = take_out(timer);
  egi_attending_unlock();
  if (queued)
    timer->status = egi_timer_commit(timer);
}

void egi_attend_forsake(eg_timer *timer) {
  egi_attending_lock();
  if (take_out(timer))
    timer->status = EG_LOST;
  egi_attending_unlock();
}

void egi_attend_close(eg_guard *guard) {
  egi_attendant *a = &guard->attendant;
  if (!a->listed)
    return;
  egi_work_lock(); /* the keeper is not in the middle of it */
  egi_attending_lock();
  while (a->leaving)
    pthread_cond_wait(&a->done, &attending);
  delist(guard);
  a->ending = true;
  while (a->first != NULL) {
    eg_timer *timer = a->first;
    dequeue(a, timer);
    set_stage(timer, EGI_NOT_DUE);
    timer->status = EG_LOST;
  }
  egi_holds_clear(guard);
  pthread_cond_signal(&a->woken);
  egi_attending_unlock();
  egi_work_unlock();
  if (a->running)
    pthread_join(a->thread, NULL);
  egi_leftovers_end(guard);
  pthread_cond_destroy(&a->woken);
  pthread_cond_destroy(&a->done);
}

/* ----------------------------------------------------- for the keeper -- */

void egi_attend_commit(eg_timer *timer) {
  eg_guard *guard = timer->guard;
  egi_attending_lock();
  enlist(guard);
  enqueue(&guard->attendant, timer);
  call(guard);
  egi_attending_unlock();
}

static int64_t next_of(eg_guard *guard, int64_t now) {
  const egi_attendant *a = &guard->attendant;
  int64_t next = egi_lease_steady(guard, a->lose_us, now);
  if (!guard->ops->blocks)
    next = nearer(next, nearer(a->renew_us, a->tend_us));
  return next;
}

int64_t egi_attend_next(int64_t now_us) {
  int64_t next = EG_FOREVER;
  if (atomic_load(&attended_n) == 0)
    return next;
  egi_attending_lock();
  for (eg_guard *g = attended; g != NULL; g = g->attendant.next)
    next = nearer(next, next_of(g, now_us));
  egi_attending_unlock();
  return next;
}

int64_t egi_attend_look(int64_t now_us) {
  int64_t next = EG_FOREVER;
  if (atomic_load(&attended_n) == 0)
    return next;
  egi_attending_lock();
  for (eg_guard *g = attended; g != NULL; g = g->attendant.next) {
    egi_attendant *a = &g->attendant;
    while (!g->ops->blocks && egi_tenure_renew(g, true))
      continue;
    if (a->lose_us <= egi_lease_now(g))
      egi_tenure_lose_due(g);
    next = nearer(next, next_of(g, now_us));
  }
  egi_attending_unlock();
  return next;
}

/* ------------------------------------------------------ clock and fork -- */

/* What is due already has been told: who is at it, or waits for a server that
** hangs, is not woken for it again. */
void egi_attend_boot(void) {
  int64_t next = EG_FOREVER;
  egi_attending_lock();
  for (eg_guard *g = attended; g != NULL; g = g->attendant.next) {
    const egi_attendant *a = &g->attendant;
    if (!g->ops->blocks)
      continue;
    int64_t now = egi_lease_now(g);
    if (a->renew_us > now)
      next = nearer(next, a->renew_us);
    if (a->lose_us > now)
      next = nearer(next, a->lose_us);
  }
  egi_boot_next(egi_clock_in_force() == eg_system_clock() ? next : EG_FOREVER);
  egi_attending_unlock();
}

void egi_attend_ring(void) {
  if (atomic_load(&attended_n) == 0)
    return;
  egi_attending_lock();
  for (eg_guard *g = attended; g != NULL; g = g->attendant.next)
    pthread_cond_signal(&g->attendant.woken);
  egi_attending_unlock();
}

/* One that has something to do still. */
static eg_guard *first_due(void) {
  eg_guard *g = attended;
  while (g != NULL &&
         !(g->attendant.running && (g->attendant.busy || is_due(g))))
    g = g->attendant.next;
  return g;
}

bool egi_attend_settle(void) {
  const eg_clock *machine = eg_system_clock();
  eg_guard *g;
  bool any = false;
  if (atomic_load(&attended_n) == 0)
    return false;
  int64_t until = machine->now_us(machine->ctx) + PATIENCE_US;
  egi_attending_lock();
  while ((g = first_due()) != NULL && machine->now_us(machine->ctx) < until) {
    any = true;
    pthread_cond_signal(&g->attendant.woken);
    machine->wait(machine->ctx, &g->attendant.done, &attending, until);
  }
  egi_attending_unlock();
  return any;
}

/* In the child: the guard holds nothing, and what was to be stored is its
** parent's to store. */
static void forked(eg_guard *guard) {
  egi_attendant *a = &guard->attendant;
  eg_cond_init(&a->woken);
  eg_cond_init(&a->done);
  a->running = a->busy = false;
  a->dozes_until_us = INT64_MIN;
  if (a->storing != NULL)
    enqueue(a, a->storing);
  a->storing = NULL;
  while (a->first != NULL) {
    eg_timer *timer = a->first;
    dequeue(a, timer);
    timer->status = EG_LOST;
    set_stage(timer, EGI_STORED);
  }
  egi_leftovers_forked(a);
  a->leaving = false;
  egi_holds_forked(guard);
  a->renew_us = a->lose_us = a->tend_us = a->counts_us = EG_FOREVER;
  a->retry_us = INT64_MIN;
  atomic_store(&a->activity, EGI_IDLE);
}

void egi_attend_fork(egi_fork phase) {
  egi_mutex_fork(&attending, phase);
  if (phase != EGI_FORKED_CHILD)
    return;
  egi_boot_forked();
  for (eg_guard *g = attended; g != NULL; g = g->attendant.next)
    forked(g);
}
