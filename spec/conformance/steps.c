/* SPDX-License-Identifier: MIT
** The guard in small: the core's decisions, carried out on a store in both
** ways.
*/
#include "steps.h"

#include <string.h>

#include "core/codec.h"

static eg_status by_loop(world *w, eg_bytes key, egi_decide_fn decide,
                         void *ctx, uint64_t *token) {
  egi_seen seen;
  egi_seen_init(&seen);
  eg_status status = w->ops->load(w->store, key, EG_FOREVER, &seen, &w->error);
  bool again = status == EG_OK;
  while (again) {
    egi_swap swap = swap_nothing();
    again = false;
    switch (decide(ctx, &seen, &swap)) {
    case EGI_NONE:
      break;
    case EGI_NOW:
      status = EG_INTERNAL; /* what was loaded has its time */
      break;
    case EGI_GROW:
      status = EG_CHANGED;
      break;
    case EGI_SWAP:
      swap.expect = seen.version;
      status = w->ops->swap(w->store, key, &swap, EG_FOREVER, &seen,
                            &w->error);
      again = status == EG_CONFLICT;
    }
  }
  *token = seen.at.token;
  egi_seen_free(&seen, &w->env);
  return status;
}

eg_status step_run(world *w, way by, const char *key, egi_decide_fn decide,
                   void *ctx, int64_t now_us, uint64_t *token) {
  eg_bytes bytes = {key, strlen(key)};
  if (by == BY_LOOP)
    return by_loop(w, bytes, decide, ctx, token);
  if (w->ops->apply == NULL)
    return EG_UNSUPPORTED;
  return w->ops->apply(w->store, bytes, decide, ctx, by == BY_APPLY, now_us,
                       token, &w->error);
}

static void note(job *j, const egi_seen *seen) {
  egi_record record;
  size_t n;
  j->sight = seen->at;
  if (!egi_decode(seen->bytes, &record)) {
    j->corrupt = true;
    return;
  }
  egi_reading(&record, &seen->at);
  j->absent = record.head.absent;
  j->run = record.head.status;
  j->crashed = record.head.crashed;
  j->kind = record.head.kind;
  j->count = record.count;
  n = record.error.len < sizeof j->error ? record.error.len
                                         : sizeof j->error - 1;
  if (n > 0)
    memcpy(j->error, record.error.data, n);
  j->error[n] = '\0';
}

static void fill(job *j, const egi_seen *seen, const egi_effect *effect,
                 egi_swap *swap) {
  egi_record before, after;
  swap->token = effect->names_token ? seen->at.token : 0;
  swap->write = effect->write;
  swap->hold = effect->hold;
  swap->wake = effect->wake;
  swap->lease_ms = effect->lease_ms;
  swap->life_ms = effect->life_ms;
  swap->not_before_ms = effect->not_before_ms;
  swap->fresh_ms = effect->fresh_ms;
  swap->holder = (eg_bytes){"a holder", 8};
  if (effect->write != EGI_PUT)
    return;
  if (!egi_decode(seen->bytes, &before))
    j->corrupt = true;
  egi_rewrite(&before, &seen->at, &j->event, effect, &after);
  swap->bytes.data = j->buf;
  swap->bytes.len = egi_encode(&after, j->buf, sizeof j->buf);
}

static egi_verdict decide(void *ctx, const egi_seen *seen, egi_swap *swap) {
  job *j = ctx;
  egi_head head;
  egi_effect effect;
  if (!egi_decode_head(seen->bytes, &head)) {
    j->corrupt = true;
    return EGI_NONE;
  }
  egi_verdict verdict = egi_decide(&head, &seen->at, &j->event, &j->policy,
                                   &effect, &j->outcome, &j->left_us);
  if (verdict == EGI_NONE)
    note(j, seen);
  if (verdict == EGI_SWAP)
    fill(j, seen, &effect, swap);
  return verdict;
}

eg_status job_run(world *w, way by, const char *key, job *j) {
  j->corrupt = false;
  eg_status status = step_run(w, by, key, decide, j, EGI_NO_TIME, &j->token);
  return status != EG_OK || j->corrupt ? EG_INTERNAL : j->outcome;
}

eg_status job_acquire(world *w, way by, egi_event_type type, job *j) {
  j->event = (egi_event){.type = type};
  return job_run(w, by, "k", j);
}

eg_status job_commit(world *w, way by, uint64_t token, eg_status status,
                     job *j) {
  j->event = (egi_event){.type = EGI_COMMIT, .token = token};
  j->event.outcome.status = status;
  j->event.duration_us = 1000;
  if (status == EG_OK) {
    j->event.outcome.kind = EG_KIND_VALUE;
    j->event.outcome.value = (eg_bytes){"\xa5hello", 6};
  } else {
    j->event.outcome.error = eg_str("boom");
  }
  return job_run(w, by, "k", j);
}

eg_status job_do(world *w, way by, egi_event_type type, job *j) {
  j->event = (egi_event){.type = type, .mine = true};
  return job_run(w, by, "k", j);
}
