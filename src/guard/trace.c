/* SPDX-License-Identifier: MIT
** Recording a trace: a ring of notes, one for the process.
*/
#include "guard/trace.h"

#include "executionguard_host.h"
#include "executionguard_view.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EVENTS ((size_t)65536) /* where nobody says */
#define EVENTS_MOST ((size_t)1 << 24)

atomic_bool egi_tracing;

typedef struct ring {
  egi_note *notes;
  size_t size;
  uint64_t added;
  int64_t began_us;
} ring;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static ring recorded; /* notes NULL: nothing is recorded */
static atomic_uint_fast64_t waits;

static eg_env own_env(void) {
  eg_env env = {0};
  egi_env_complete(&env);
  return env;
}

static void drop(ring *r) {
  eg_env env = own_env();
  egi_free(&env, r->notes, r->size * sizeof *r->notes);
}

/* -------------------------------------------------------------- noting -- */

static void note_at(int64_t at_us, const void *space, eg_bytes key,
                    egi_note *n) {
  n->at_us = at_us;
  n->space = space;
  n->thread = (uint32_t)syscall(SYS_gettid);
  n->len = (uint16_t)key.len;
  memcpy(n->key, key.data, key.len < EGI_TRACE_KEY ? key.len : EGI_TRACE_KEY);
  pthread_mutex_lock(&mutex);
  if (recorded.notes != NULL)
    recorded.notes[recorded.added++ % recorded.size] = *n;
  pthread_mutex_unlock(&mutex);
}

static void note(const eg_guard *guard, eg_bytes key, egi_note *n) {
  const egi_store *store = guard->store;
  note_at(egi_now(&guard->env), store->space != NULL ? store->space : store,
          key, n);
}

static void note_end(const egi_step *step, egi_trace_kind kind,
                     eg_status status) {
  egi_note n = {.kind = (uint8_t)kind,
                .status = (uint8_t)status,
                .token = step->event.token};
  note(step->guard, step->key, &n);
}

void egi_trace_step(const egi_step *step) {
  egi_note n = {.token = step->token};
  switch (step->event.type) {
  case EGI_ACQUIRE_RUN:
  case EGI_ACQUIRE_LOCK:
    n.kind = step->event.type == EGI_ACQUIRE_RUN ? EGI_TRACE_RUN
                                                 : EGI_TRACE_LOCK;
    if (step->outcome == EG_OK)
      note(step->guard, step->key, &n);
    break;
  case EGI_COMMIT:
    if (step->outcome == EG_OK)
      note_end(step, EGI_TRACE_END, step->event.outcome.status);
    else if (step->outcome == EG_LOST)
      note_end(step, EGI_TRACE_END, EG_LOST);
    break;
  case EGI_RELEASE:
    if (step->outcome == EG_OK)
      note_end(step, EGI_TRACE_FREED, EG_OK);
    break;
  case EGI_REVOKE:
  case EGI_RESET:
    n.kind = EGI_TRACE_RESET;
    if (step->outcome == EG_OK)
      note(step->guard, step->key, &n);
    break;
  default:
    break;
  }
}

uint64_t egi_trace_wait(const eg_guard *guard, eg_bytes key) {
  egi_note n = {.kind = EGI_TRACE_WAIT,
                .wait = atomic_fetch_add(&waits, 1) + 1};
  note(guard, key, &n);
  return n.wait;
}

void egi_trace_waited(const eg_guard *guard, eg_bytes key, uint64_t wait,
                      eg_status status, uint64_t token) {
  egi_note n = {.kind = EGI_TRACE_WAITED,
                .status = (uint8_t)status,
                .token = status == EG_OK ? token : 0,
                .wait = wait};
  if (wait != 0 && guard != NULL) /* its guard may have been closed */
    note(guard, key, &n);
}

void egi_trace_handed(const eg_guard *guard, eg_bytes key, uint64_t token) {
  egi_note n = {.kind = EGI_TRACE_HANDED, .token = token};
  note(guard, key, &n);
}

void eg_trace_retry(eg_guard *guard, eg_bytes key, uint64_t attempt) {
  egi_note n = {.kind = EGI_TRACE_RETRY, .token = attempt};
  if (!egi_traces() || key.len > EG_KEY_MAX)
    return;
  if (guard != NULL)
    note(guard, key, &n);
  else
    note_at(eg_now_us(), NULL, key, &n);
}

/* ----------------------------------------------------- start and stop -- */

eg_status eg_trace_start(size_t events, eg_error *error) {
  eg_env env = own_env();
  ring r = {.size = events > 0 ? events : EVENTS};
  if (r.size > EVENTS_MOST)
    return egi_fail(error, EG_INVALID, "a trace has at most %zu events",
                    EVENTS_MOST);
  r.notes = egi_alloc(&env, r.size * sizeof *r.notes);
  if (r.notes == NULL)
    return egi_fail(error, EG_NOMEM, "not enough memory for %zu events",
                    r.size);
  r.began_us = egi_now(&env);
  pthread_mutex_lock(&mutex);
  bool busy = recorded.notes != NULL;
  if (!busy) {
    recorded = r;
    atomic_store(&egi_tracing, true);
  }
  pthread_mutex_unlock(&mutex);
  if (busy) {
    drop(&r);
    return egi_fail(error, EG_INVALID,
                    "a trace is being recorded in this process already");
  }
  return EG_OK;
}

/* What the threads are called, while they are there. */
static void name_rows(egi_picture *p) {
  for (size_t i = 0; i < p->row_n; i++) {
    egi_row *row = &p->rows[i];
    char path[64];
    snprintf(row->owner, sizeof row->owner, "%s",
             program_invocation_short_name);
    snprintf(path, sizeof path, "/proc/self/task/%u/comm", row->thread);
    FILE *file = fopen(path, "re");
    if (file == NULL)
      continue;
    if (fgets(row->name, sizeof row->name, file) != NULL)
      row->name[strcspn(row->name, "\n")] = '\0';
    fclose(file);
  }
}

/* The ring, oldest first. */
static bool draw(egi_picture *p, const ring *r) {
  const eg_clock *clock = p->env.clock;
  int64_t now = egi_now(&p->env), offset = clock->offset_us(clock->ctx, now);
  size_t n = r->added < r->size ? (size_t)r->added : r->size;
  size_t first = r->added > r->size ? (size_t)(r->added % r->size) : 0;
  egi_note *notes = r->notes;
  p->dropped = r->added - n;
  if (first > 0) { /* turned round once */
    notes = egi_alloc(&p->env, n * sizeof *notes);
    if (notes == NULL)
      return false;
    memcpy(notes, r->notes + first, (n - first) * sizeof *notes);
    memcpy(notes + n - first, r->notes, first * sizeof *notes);
    memcpy(r->notes, notes, n * sizeof *notes);
    egi_free(&p->env, notes, n * sizeof *notes);
    notes = r->notes;
  }
  if (!egi_picture_notes(p, notes, n, r->began_us, now, offset))
    return false;
  name_rows(p);
  return egi_picture_settle(p);
}

eg_status eg_trace_stop(eg_write write, void *ctx, eg_traced *traced,
                        eg_error *error) {
  egi_picture p = {.env = own_env()};
  pthread_mutex_lock(&mutex);
  ring r = recorded;
  recorded.notes = NULL;
  atomic_store(&egi_tracing, false);
  pthread_mutex_unlock(&mutex);
  if (r.notes == NULL)
    return egi_fail(error, EG_INVALID, "no trace is being recorded");
  eg_status status = EG_OK;
  if (write != NULL && !draw(&p, &r))
    status = egi_fail(error, EG_NOMEM, "not enough memory for the trace");
  else if (write != NULL)
    status = egi_picture_text(&p, write, ctx);
  if (traced != NULL)
    *traced = (eg_traced){p.n, r.added > r.size ? r.added - r.size : 0};
  egi_picture_free(&p);
  drop(&r);
  return status;
}

/* A child records nothing: what its parent does is the parent's. */
void egi_trace_fork(egi_fork phase) {
  egi_mutex_fork(&mutex, phase);
  if (phase != EGI_FORKED_CHILD || recorded.notes == NULL)
    return;
  drop(&recorded);
  recorded.notes = NULL;
  atomic_store(&egi_tracing, false);
}
