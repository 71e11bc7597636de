/* SPDX-License-Identifier: MIT
** One event on a key of a store that is a round trip away: guess, swap, and
** decide again on what the store says.
**
**   guess: what was last seen from here, or absent
**     |  decide: nothing to write           decide: a swap
**     |----------------------> load           |
**     |                         |             v
**     |                         |           swap ----> it landed: the answer
**     |   decide: nothing       v             |
**     |   to write: the   <-- known <---------+ conflict, with what is there
**     |   answer                ^             |
**     |                         +---- load <--+ perhaps: did it land?
**
** From a guess only swaps are sent.  An answer that writes nothing counts only
** for what was loaded or came with a conflict.
**
** PERHAPS.  A swap whose reply was lost may have landed, or may land yet.  A
** grant knows itself by its attempt, a random number in the owner line; a
** commit by its token on a record that runs no more, or by its very bytes; a
** release by its token on a key that is free and was written since.  As long
** as there is a doubt, everything that is seen is looked at in that light
** first: the request that was believed lost may land between two of our looks.
** Where somebody else was granted the key before we could look, nobody knows
** any more: the answer is INDETERMINATE, and the grant is over.
*/
#include "core/codec.h"
#include "guard/guard.h"

#include <string.h>

/* A server that never says what it did is not asked for ever. */
enum { DOUBTS_MAX = 3 };

typedef struct loop {
  egi_step *step;
  egi_seen seen;
  bool known; /* else a guess */
  int doubts; /* swaps like the last one that may have landed */
  uint64_t sums[DOUBTS_MAX + 1]; /* of the bytes that they put */
  egi_swap swap;
  eg_error *error;
} loop;

/* ------------------------------------------------- commits in doubt -- */

static uint64_t sum_of(eg_bytes bytes) {
  const unsigned char *at = bytes.data;
  uint64_t sum = UINT64_C(14695981039346656037); /* FNV-1a */
  for (size_t i = 0; i < bytes.len; i++)
    sum = (sum ^ at[i]) * UINT64_C(1099511628211);
  return sum;
}

static void note_doubt(const loop *l, uint64_t token) {
  eg_guard *guard = l->step->guard;
  unsigned at = atomic_fetch_add(&guard->doubted, 1) % EGI_DOUBTS;
  atomic_store(&guard->doubts[at], token);
  atomic_store(&guard->doubt_sums[at], l->sums[l->doubts - 1]);
}

/* An earlier call for this commit has left a doubt. */
static void recall_doubt(loop *l) {
  eg_guard *guard = l->step->guard;
  for (int i = 0; i < EGI_DOUBTS && l->doubts == 0; i++)
    if (atomic_load(&guard->doubts[i]) == l->step->event.token) {
      l->sums[0] = atomic_load(&guard->doubt_sums[i]);
      l->doubts = 1;
    }
}

/* ------------------------------------------------------------- landed? -- */

static bool runs(const egi_seen *seen) {
  egi_head head;
  return egi_decode_head(seen->bytes, &head) && head.status == EG_RUN_RUNNING;
}

typedef enum fate { REFUSED, LANDED, UNKNOWN } fate;

static bool is_what_we_put(const loop *l) {
  uint64_t sum = sum_of(l->seen.bytes);
  bool same = false;
  for (int i = 0; i < l->doubts; i++)
    same = same || l->sums[i] == sum;
  return same && l->seen.bytes.len > 0;
}

/* A lock leaves the bytes of the run before it. */
static fate fate_of_commit(const loop *l, uint64_t token) {
  const egi_seen *seen = &l->seen;
  if (seen->at.token == token)
    return !seen->at.held && !runs(seen) ? LANDED : REFUSED;
  return is_what_we_put(l) ? LANDED : UNKNOWN;
}

/* A lease that is over leaves the version.  While it runs for sure nobody else
** can have the key, and it cannot be absent, but by this release. */
static fate fate_of_release(const loop *l, uint64_t token) {
  const egi_step *step = l->step;
  const egi_seen *seen = &l->seen;
  if (seen->at.token != token)
    return egi_believes(step->guard, step->key, token) ? LANDED : UNKNOWN;
  return !seen->at.held && seen->version != l->swap.expect ? LANDED : REFUSED;
}

/* Is what is seen what the last swap would have left?  A reset or a clearing
** is simply done again. */
static fate fate_of(const loop *l, uint64_t token) {
  const egi_seen *seen = &l->seen;
  switch (l->step->event.type) {
  case EGI_ACQUIRE_RUN:
  case EGI_ACQUIRE_LOCK:
    return l->swap.hold == EGI_TAKE && seen->at.held &&
                   seen->holder.len == l->swap.holder.len &&
                   memcmp(seen->holder.data, l->swap.holder.data,
                          seen->holder.len) == 0
               ? LANDED
               : REFUSED;
  case EGI_COMMIT:
    return fate_of_commit(l, token);
  case EGI_RELEASE:
    return fate_of_release(l, token);
  default:
    return REFUSED;
  }
}

/* What is there is known by now.  OK: it is what was asked for. */
static eg_status judge(loop *l) {
  egi_step *step = l->step;
  uint64_t token = step->event.token != 0 ? step->event.token : l->swap.token;
  fate how = l->doubts > 0 ? fate_of(l, token) : REFUSED;
  l->known = true;
  if (how == REFUSED)
    return EG_CONFLICT;
  if (how == LANDED) {
    step->outcome = EG_OK;
    return EG_OK;
  }
  step->gone = token;
  return egi_fail(l->error, EG_INDETERMINATE,
                  "the store's answer was lost, and the key has been granted "
                  "anew: it may have been done before");
}

/* --------------------------------------------------------------- turns -- */

static eg_status look(loop *l) {
  egi_step *step = l->step;
  eg_status status = step->guard->ops->load(step->guard->store, step->key,
                                            EG_FOREVER, &l->seen, l->error);
  return status == EG_OK ? judge(l) : status;
}

static eg_status send(loop *l) {
  egi_step *step = l->step;
  eg_status status = step->guard->ops->swap(
      step->guard->store, step->key, &l->swap, EG_FOREVER, &l->seen, l->error);
  if (status == EG_CONFLICT)
    return judge(l);
  if (status != EG_INDETERMINATE || l->doubts > DOUBTS_MAX)
    return status;
  l->sums[l->doubts++] = sum_of(l->swap.bytes);
  return l->doubts <= DOUBTS_MAX ? look(l) : status;
}

/* CONFLICT: again. */
static eg_status turn(loop *l) {
  egi_step *step = l->step;
  l->swap = (egi_swap){0};
  switch (egi_step_decide(step, &l->seen, &l->swap)) {
  case EGI_GROW:
    return egi_buffer_grow(step->buffer, &step->guard->env)
               ? EG_CONFLICT
               : egi_fail(l->error, EG_NOMEM, "not enough memory");
  case EGI_SWAP:
    return send(l);
  case EGI_NONE:
    return l->known ? EG_OK : look(l);
  default:
    return l->known ? egi_fail(l->error, EG_INTERNAL,
                               "the store did not tell the time")
                    : look(l);
  }
}

/* ------------------------------------------------------------- the loop -- */

/* Nobody has been seen at the key: what an absent one looks like. */
static void guess_absent(egi_seen *seen) {
  seen->version = 0;
  seen->at = (egi_sight){.clocked = true, .left_us = -1, .fresh_left_us = -1};
}

/* Something to begin with.  False: there is nothing but to look. */
static bool guess(loop *l) {
  const egi_step *step = l->step;
  const eg_guard *guard = step->guard;
  switch (step->event.type) {
  case EGI_FETCH:
  case EGI_JOIN:
    return false;
  default:
    break;
  }
  if (guard->ops->recall != NULL &&
      guard->ops->recall(guard->store, step->key, &l->seen))
    return true;
  guess_absent(&l->seen);
  return step->event.type == EGI_ACQUIRE_RUN ||
         step->event.type == EGI_ACQUIRE_LOCK;
}

/* A swap in doubt makes any failure after it one. */
static eg_status in_doubt(const loop *l, eg_status status) {
  const egi_step *step = l->step;
  if (l->doubts == 0 || !EG_IS_FAILURE(status))
    return status;
  if (step->event.type == EGI_COMMIT)
    note_doubt(l, step->event.token);
  if (l->error != NULL)
    l->error->status = EG_INDETERMINATE;
  return EG_INDETERMINATE;
}

eg_status egi_step_loop(egi_step *step, eg_error *error) {
  eg_guard *guard = step->guard;
  loop l = {.step = step, .error = error};
  eg_status status = EG_CONFLICT;
  egi_seen_init(&l.seen);
  step->attempt = egi_random();
  if (step->event.type == EGI_COMMIT)
    recall_doubt(&l);
  if (l.doubts > 0 || !guess(&l))
    status = look(&l);
  while (status == EG_CONFLICT)
    status = turn(&l);
  status = in_doubt(&l, status);
  /* Steady, and here: the store's clock is its own. */
  if (status == EG_OK)
    step->now_us = egi_now(&guard->env);
  step->token = l.seen.at.token;
  egi_seen_free(&l.seen, &guard->env);
  return status;
}
