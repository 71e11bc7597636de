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
** commit by its token on a record that runs no more.  As long as there is a
** doubt, everything that is seen is looked at in that light first: the request
** that was believed lost may land between two of our looks.
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
  egi_swap swap;
  eg_error *error;
} loop;

/* ------------------------------------------------- commits in doubt -- */

static void note_doubt(eg_guard *guard, uint64_t token) {
  unsigned at = atomic_fetch_add(&guard->doubted, 1);
  atomic_store(&guard->doubts[at % EGI_DOUBTS], token);
}

static bool is_doubted(eg_guard *guard, uint64_t token) {
  for (int i = 0; i < EGI_DOUBTS; i++)
    if (atomic_load(&guard->doubts[i]) == token)
      return true;
  return false;
}

/* ------------------------------------------------------------- landed? -- */

static bool runs(const egi_seen *seen) {
  egi_head head;
  return egi_decode_head(seen->bytes, &head) && head.status == EG_RUN_RUNNING;
}

/* Is what is seen what the last swap would have left?  A reset or a clearing
** is simply done again. */
static bool landed(const loop *l) {
  const egi_seen *seen = &l->seen;
  const egi_step *step = l->step;
  switch (step->event.type) {
  case EGI_ACQUIRE_RUN:
  case EGI_ACQUIRE_LOCK:
    return l->swap.hold == EGI_TAKE && seen->at.held &&
           seen->holder.len == l->swap.holder.len &&
           memcmp(seen->holder.data, l->swap.holder.data, seen->holder.len) ==
               0;
  case EGI_COMMIT:
    return seen->at.token == step->event.token && !seen->at.held &&
           !runs(seen);
  case EGI_RELEASE: /* whatever is there now, it is that lock no more */
    return !seen->at.held || seen->at.token != l->swap.token;
  default:
    return false;
  }
}

/* What is there is known by now.  OK: it is what was asked for. */
static eg_status judge(loop *l) {
  l->known = true;
  if (l->doubts == 0 || !landed(l))
    return EG_CONFLICT;
  l->step->outcome = EG_OK;
  return EG_OK;
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
  if (status != EG_INDETERMINATE)
    return status;
  return l->doubts++ < DOUBTS_MAX ? look(l) : status;
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
    note_doubt(step->guard, step->event.token);
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
  l.doubts = step->event.type == EGI_COMMIT &&
             is_doubted(guard, step->event.token);
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
