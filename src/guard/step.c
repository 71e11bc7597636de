/* SPDX-License-Identifier: MIT
** One event on one key: where it meets the record.
**
** egi_step_decide below is the only place where bytes become a record, a
** decision is asked for, and a record becomes bytes.  A store in memory calls
** it under its own lock (apply); for the others the loop calls it (loop.c).
*/
#include "core/codec.h"
#include "guard/guard.h"

#include <string.h>

/* ------------------------------------------------------------- buffers -- */

void egi_buffer_init(egi_buffer *buffer, void *small, size_t size) {
  buffer->data = small;
  buffer->cap = size;
  buffer->len = 0;
  buffer->need = 0;
  buffer->memory.heap = NULL;
}

bool egi_buffer_grow(egi_buffer *buffer, const eg_env *env) {
  eg_memory *memory = &buffer->memory;
  size_t size = (buffer->need + 63) & ~(size_t)63;
  size_t old = memory->heap != NULL ? memory->size : 0;
  void *heap = env->alloc(env->alloc_ud, memory->heap, old, size);
  if (heap == NULL)
    return false;
  *memory = (eg_memory){heap, size, env->alloc, env->alloc_ud};
  buffer->data = heap;
  buffer->cap = size;
  return true;
}

void egi_memory_free(eg_memory *memory) {
  if (memory->heap != NULL)
    memory->alloc(memory->alloc_ud, memory->heap, memory->size, 0);
  memory->heap = NULL;
}

static egi_verdict copy_out(egi_buffer *buffer, eg_bytes bytes) {
  buffer->need = bytes.len;
  if (bytes.len > buffer->cap)
    return EGI_GROW;
  if (bytes.len > 0)
    memcpy(buffer->data, bytes.data, bytes.len);
  buffer->len = bytes.len;
  return EGI_NONE;
}

/* -------------------------------------------------------------- decide -- */

static egi_verdict corrupt(egi_step *step) {
  step->outcome = EG_CORRUPT;
  return EGI_NONE;
}

/* What the answer needs of the record is copied before it can change. */
static egi_verdict copy_answer(egi_step *step, const egi_seen *seen) {
  eg_bytes value;
  egi_record record;
  switch (step->outcome) {
  case EG_CACHED:
    if (step->head.kind != EG_KIND_VALUE)
      return EGI_NONE;
    if (!egi_decode_value(seen->bytes, &value))
      return corrupt(step);
    return copy_out(step->buffer, value);
  case EG_FAILED:
    if (!egi_decode(seen->bytes, &record))
      return corrupt(step);
    return copy_out(step->buffer, record.error);
  default:
    return EGI_NONE;
  }
}

static egi_verdict copy_record(egi_step *step, const egi_seen *seen) {
  step->line_len = seen->at.held ? seen->holder.len : 0;
  if (step->line_len > 0)
    memcpy(step->line, seen->holder.data, step->line_len);
  return copy_out(step->buffer, seen->bytes);
}

/* What a wait has to know of the key that was met. */
static void note_sight(egi_step *step, const egi_seen *seen) {
  step->sight = seen->at;
  step->version = seen->version;
  step->same_state = seen->at.held &&
                     egi_owner_is_state(step->guard, seen->holder);
}

static egi_verdict note_answer(egi_step *step, const egi_seen *seen) {
  if (step->outcome == EG_CACHED || step->outcome == EG_COMPLETED)
    return copy_answer(step, seen);
  note_sight(step, seen);
  if (step->event.type == EGI_FETCH)
    return copy_record(step, seen);
  return copy_answer(step, seen);
}

static egi_verdict encode(egi_step *step, const egi_seen *seen,
                          const egi_effect *effect, egi_swap *swap) {
  egi_record before, after;
  egi_buffer *buffer = step->buffer;
  if (!egi_decode(seen->bytes, &before)) {
    if (step->event.type != EGI_RESET)
      return corrupt(step);
    memset(&before, 0, sizeof before); /* a reset mends it */
  }
  egi_rewrite(&before, &seen->at, &step->event, effect, &after);
  buffer->need = buffer->len = egi_encode(&after, buffer->data, buffer->cap);
  if (buffer->need > buffer->cap)
    return EGI_GROW;
  swap->bytes.data = buffer->data;
  swap->bytes.len = buffer->len;
  swap->ended = after.head.status;
  swap->count = after.count;
  swap->start_us = after.start_us;
  swap->duration_us = after.duration_us;
  swap->error = after.error;
  return EGI_SWAP;
}

/* The lease of a grant: no longer than it may be held at all. */
static int64_t lease_of(const egi_step *step, const egi_effect *effect) {
  int64_t lease_ms = effect->lease_ms, most_ms = step->policy->max_hold_ms;
  if (effect->hold != EGI_TAKE)
    return lease_ms;
  if (lease_ms == 0)
    lease_ms = step->guard->store->lease_ms;
  return most_ms > 0 && (lease_ms == 0 || most_ms < lease_ms) ? most_ms
                                                              : lease_ms;
}

/* Who takes the key. */
static void name_holder(egi_step *step, egi_swap *swap) {
  const eg_guard *guard = step->guard;
  const char *text = step->policy->owner;
  if (guard->store->inside)
    swap->holder = egi_owner_line(
        guard, text, guard->by_apply ? step->now_us : EGI_NO_TIME, step->line);
  else
    swap->holder = egi_far_line(guard, text, step->attempt, step->line);
}

static egi_verdict fill_swap(egi_step *step, const egi_seen *seen,
                             const egi_effect *effect, egi_swap *swap) {
  swap->expect = seen->version;
  swap->token = effect->names_token ? seen->at.token : 0;
  swap->write = effect->write;
  swap->hold = effect->hold;
  swap->wake = effect->wake;
  swap->durable = step->policy->block_after_crash;
  swap->lease_ms = step->lease_ms = lease_of(step, effect);
  swap->life_ms = effect->life_ms;
  swap->not_before_ms = effect->not_before_ms;
  swap->fresh_ms = effect->fresh_ms;
  swap->ended = EG_RUN_IDLE;
  swap->exited = step->event.type == EGI_COMMIT && step->event.outcome.exited;
  swap->exit_status = swap->exited ? step->event.outcome.exit_status : 0;
  step->now_us = seen->at.clocked ? seen->at.now_us : EGI_NO_TIME;
  if (effect->hold == EGI_TAKE)
    name_holder(step, swap);
  if (step->outcome == EG_LOCKED)
    note_sight(step, seen);
  return effect->write == EGI_PUT ? encode(step, seen, effect, swap)
                                  : EGI_SWAP;
}

/* Flatten: all that it calls is put inline; every call comes through here. */
__attribute__((flatten)) egi_verdict
egi_step_decide(void *ctx, const egi_seen *seen, egi_swap *swap) {
  egi_step *step = ctx;
  egi_effect effect;
  effect.head.status = EG_RUN_IDLE; /* set by PUT; not all compilers see it */
  if (!egi_decode_head(seen->bytes, &step->head)) {
    if (step->event.type != EGI_RESET)
      return corrupt(step);
    step->head = (egi_head){.status = EG_RUN_IDLE};
  }
  if (step->event.type == EGI_RELEASE)
    step->event.mine = step->here
                           ? egi_owner_is_here(step->guard, seen->holder)
                           : egi_owner_is_guard(step->guard, seen->holder);
  egi_verdict verdict = egi_decide(&step->head, &seen->at, &step->event,
                                   step->policy, &effect, &step->outcome,
                                   &step->left_us);
  if (verdict == EGI_NONE)
    return note_answer(step, seen);
  if (verdict == EGI_SWAP)
    return fill_swap(step, seen, &effect, swap);
  return verdict;
}

/* ------------------------------------------------------- the short way -- */

static const egi_event run_is_wanted = {.type = EGI_ACQUIRE_RUN};

egi_verdict egi_peek_run(const eg_guard *guard, eg_bytes key,
                         const eg_policy *policy, eg_reply *reply,
                         eg_status *outcome, uint64_t *tag) {
  const egi_store_ops *ops = guard->ops;
  egi_sight sight = {.left_us = -1, .fresh_left_us = -1};
  egi_head head;
  egi_effect effect;
  eg_bytes record;
  if (ops->peek == NULL || !guard->by_apply ||
      !ops->peek(guard->store, key, reply->small, &record, &sight.token,
                 tag) ||
      !egi_decode_head(record, &head))
    return EGI_GROW;
  egi_verdict verdict = egi_decide(&head, &sight, &run_is_wanted, policy,
                                   &effect, outcome, &reply->left_us);
  if (verdict != EGI_NONE)
    return verdict;
  reply->token = sight.token;
  reply->kind = *outcome == EG_CACHED ? head.kind : EG_KIND_NONE;
  reply->value = reply->error = (eg_bytes){"", 0};
  if (reply->kind == EG_KIND_VALUE && !egi_decode_value(record, &reply->value))
    return EGI_GROW;
  return *outcome == EG_CACHED || *outcome == EG_COMPLETED ? EGI_NONE
                                                           : EGI_GROW;
}

/* ---------------------------------------------------------- both ways -- */

static eg_status no_memory(eg_error *error) {
  return egi_fail(error, EG_NOMEM, "not enough memory");
}

/* Events that nearly always write: a look without the lock is wasted. */
static bool likely_writes(const egi_step *step) {
  return step->event.type != EGI_ACQUIRE_RUN && step->event.type != EGI_JOIN &&
         step->event.type != EGI_FETCH;
}

static eg_status by_apply(egi_step *step, eg_error *error) {
  eg_guard *guard = step->guard;
  for (;;) {
    bool writes = likely_writes(step) || step->now_us != EGI_NO_TIME;
    eg_status status = guard->ops->apply(guard->store, step->key,
                                         egi_step_decide, step, writes,
                                         step->now_us, &step->token, error);
    if (status != EG_CHANGED)
      return status;
    if (!egi_buffer_grow(step->buffer, &guard->env))
      return no_memory(error);
  }
}

/* May this have let somebody go on who waits? */
static bool frees(const egi_step *step) {
  switch (step->event.type) {
  case EGI_COMMIT:
  case EGI_RELEASE:
  case EGI_RESET:
  case EGI_REVOKE:
  case EGI_CLEAR:
    return step->outcome == EG_OK;
  default:
    return false;
  }
}

/* --------------------------------------------------------------- holds -- */

static bool is_acquire(const egi_step *step) {
  return step->event.type == EGI_ACQUIRE_RUN ||
         step->event.type == EGI_ACQUIRE_LOCK;
}

/* Would a grant be one that may be lost, and would anybody be told?  A store
** that tends finds out by itself, and tells the timer of a run. */
static bool may_be_lost(const egi_step *step) {
  const eg_guard *guard = step->guard;
  bool run = step->event.type == EGI_ACQUIRE_RUN;
  return (step->policy->lease_ms > 0 || step->policy->max_hold_ms > 0 ||
          guard->store->lease_ms > 0 || (run && guard->ops->tend != NULL)) &&
         guard->env.clock == egi_process_clock();
}

/* A store that others use looks harder in load: a foreign lock is seen. */
static eg_status ask(egi_step *step, eg_error *error) {
  const eg_guard *guard = step->guard;
  bool apply = guard->by_apply &&
               (step->event.type != EGI_FETCH || guard->store->inside);
  return apply ? by_apply(step, error) : egi_step_loop(step, error);
}

/* The memory to note a grant comes first: then nothing is granted that cannot
** be noted. */
static eg_status ask_noted(egi_step *step, eg_error *error) {
  eg_guard *guard = step->guard;
  egi_tenure *held = egi_tenure_new(guard, step->key);
  if (held == NULL)
    return no_memory(error);
  int64_t since = egi_lease_now(guard);
  step->lease_ms = 0;
  eg_status status = ask(step, error);
  if (status == EG_OK && step->outcome == EG_OK)
    egi_attend_note(guard, held, step->token, since, step->lease_ms,
                    step->policy->max_hold_ms);
  else
    egi_tenure_free(guard, held);
  return status;
}

/* What the event has ended is held no more. */
static void forget(const egi_step *step) {
  uint64_t token = step->event.token;
  switch (step->event.type) {
  case EGI_COMMIT:
  case EGI_RELEASE:
  case EGI_RESET:
    if (step->outcome == EG_OK || token != 0)
      egi_attend_forget(step->guard, step->key,
                        token != 0 ? token : step->token);
    break;
  default:
    break;
  }
}

static bool has_written(const egi_step *step) {
  return step->outcome == EG_OK && step->event.type != EGI_JOIN &&
         step->event.type != EGI_FETCH;
}

eg_status egi_step_run(egi_step *step, eg_error *error) {
  eg_guard *guard = step->guard;
  eg_status status;
  if (is_acquire(step) && may_be_lost(step))
    status = ask_noted(step, error);
  else
    status = ask(step, error);
  if (status != EG_OK && step->gone != 0)
    egi_attend_forget(guard, step->key, step->gone);
  if (status != EG_OK)
    return status;
  if (egi_traces())
    egi_trace_step(step);
  if (egi_holds_any(guard))
    forget(step);
  if (frees(step)) /* last: the key is held anew then */
    egi_line_freed(guard, step->key);
  if (guard->ops->tend != NULL && has_written(step))
    egi_attend_soon(guard);
  if (step->outcome == EG_CORRUPT)
    return egi_fail(error, EG_CORRUPT,
                    "the record cannot be read; reset the key, or use the "
                    "version of this library that wrote it");
  return step->outcome;
}
