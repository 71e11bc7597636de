/* SPDX-License-Identifier: MIT
** The meaning of the guard: what each event does to a record and its grant.
**
**   status:            acquire(run)               commit(ok)
**        Idle -----------------> Running -----------------> Completed -+
**         ^                       | | | commit(failed)                 |
**         | reset                 | | +-------------------> Failed ----+
**         |                       | +- commit(timeout) ---> TimedOut --+
**         +-- from any status <---+ owner gone: reads as Failed        |
**                                 ^                                    |
**                                 +------------ acquire(run) ----------+
**             TimedOut always; Failed unless its errorTtl runs;
**             Completed with allowRerun, or when its time is over
**
**   grant:    none -- acquire(run|lock) --> held -- commit, release, reset,
**             revoke, lease over, owner gone --> none
**
** Whether a key is held is a question about the grant, never about the status:
** held and Running is a run, held otherwise is a lock.  Only run grants change
** status, counts, times and result.
*/
#include "core/transition.h"

const char egi_owner_died[] = "owner died";

static int64_t longer(int64_t a, int64_t b) { return a > b ? a : b; }

static bool died(const egi_head *head, const egi_sight *sight) {
  return head->status == EG_RUN_RUNNING && !sight->held;
}

/* Is fresh the life of the result?  It belongs to the status: it is that
** while the record is Completed, or Running again; else it is the error's. */
static bool fresh_is_of_result(const egi_head *head) {
  return head->status == EG_RUN_COMPLETED || head->status == EG_RUN_RUNNING;
}

/* The result's time is over; or it has one, and the rerun is dead: a failing
** rerun keeps only a result without a limit. */
static bool result_over(const egi_head *head, const egi_sight *sight) {
  return fresh_is_of_result(head) &&
         (sight->fresh_left_us == 0 ||
          (sight->fresh_left_us > 0 && died(head, sight)));
}

/* There is a result with a time to live, and that lasts. */
static bool result_ages(const egi_head *head, const egi_sight *sight) {
  return fresh_is_of_result(head) && head->kind != EG_KIND_NONE &&
         sight->fresh_left_us > 0 && !died(head, sight);
}

static egi_verdict answer(eg_status status, eg_status *outcome) {
  *outcome = status;
  return EGI_NONE;
}

/* An effect that leaves everything as it is; each event changes its part. */
static void begin(const egi_head *head, egi_effect *effect) {
  effect->write = EGI_LEAVE;
  effect->hold = EGI_KEEP;
  effect->names_token = false;
  effect->wake = false;
  effect->new_result = false;
  effect->head = *head;
  effect->not_before_ms = EGI_LEAVE_TIME;
  effect->fresh_ms = EGI_LEAVE_TIME;
  effect->lease_ms = 0;
  effect->life_ms = EGI_LEAVE_TIME;
}

static void put(egi_effect *effect, eg_run status) {
  effect->write = EGI_PUT;
  effect->head.absent = false;
  effect->head.crashed = false;
  effect->head.status = status;
}

/* ----------------------------------------------------------- acquire -- */

/* The result that an earlier run left, when this one does not replace it: one
** with a time to live is kept by a success, and only while that lasts. */
static void keep_earlier(const egi_head *head, const egi_sight *sight,
                         bool success, egi_effect *effect) {
  if (success && result_ages(head, sight))
    effect->fresh_ms = EGI_LEAVE_TIME;
  else if (sight->fresh_left_us >= 0)
    effect->head.kind = EG_KIND_NONE;
}

/* Completed, and it counts as done: answers without running. */
static bool done(const egi_head *head, const egi_sight *sight,
                 const eg_policy *policy) {
  return head->status == EG_RUN_COMPLETED && !policy->allow_rerun &&
         !result_over(head, sight);
}

/* A run or lock is granted: the key is held from here on. */
static void take(const egi_head *head, const eg_policy *policy,
                 egi_effect *effect) {
  begin(head, effect);
  effect->hold = EGI_TAKE;
  effect->lease_ms = policy->lease_ms;
  effect->not_before_ms = policy->lock_at_least_ms;
}

/* A key that is only locked by somebody leaves a record when a run is refused,
** as a sign that it was asked for. */
static egi_verdict refuse_locked(const egi_head *head, egi_effect *effect,
                                 eg_status *outcome) {
  *outcome = EG_LOCKED;
  if (!head->absent)
    return EGI_NONE;
  begin(head, effect);
  put(effect, EG_RUN_IDLE);
  return EGI_SWAP;
}

static egi_verdict acquire_run(const egi_head *head, const egi_sight *sight,
                               const eg_policy *policy, egi_effect *effect,
                               eg_status *outcome, int64_t *left_us) {
  if (done(head, sight, policy))
    return answer(policy->cache_result && head->kind != EG_KIND_NONE
                      ? EG_CACHED
                      : EG_COMPLETED,
                  outcome);
  if (sight->held && head->status == EG_RUN_RUNNING)
    return answer(EG_RUNNING, outcome);
  if (sight->held)
    return refuse_locked(head, effect, outcome);
  if (policy->block_after_crash && (head->crashed || died(head, sight)))
    return answer(EG_CRASHED, outcome);
  if (!sight->clocked)
    return EGI_NOW; /* work is about to start: its time is wanted */
  if (sight->not_before_left_us > 0) {
    *left_us = sight->not_before_left_us;
    return answer(EG_COOLDOWN, outcome);
  }
  if (head->status == EG_RUN_FAILED && sight->fresh_left_us > 0) {
    *left_us = sight->fresh_left_us;
    return answer(EG_FAILED, outcome);
  }
  take(head, policy, effect);
  put(effect, EG_RUN_RUNNING);
  effect->life_ms = 0;
  /* A kept result goes on ageing while its successor is made; the time of an
  ** error, or of a result that is over, has been served. */
  if (result_over(head, sight))
    effect->head.kind = EG_KIND_NONE;
  if (!result_ages(head, sight))
    effect->fresh_ms = 0;
  *outcome = EG_OK;
  return EGI_SWAP;
}

static egi_verdict acquire_lock(const egi_head *head, const egi_sight *sight,
                                const eg_policy *policy, egi_effect *effect,
                                eg_status *outcome, int64_t *left_us) {
  if (sight->held)
    return answer(EG_LOCKED, outcome);
  if (sight->timed && sight->not_before_left_us > 0) {
    *left_us = sight->not_before_left_us;
    return answer(EG_COOLDOWN, outcome);
  }
  take(head, policy, effect);
  if (died(head, sight)) { /* else the lock would bring the run back to life */
    put(effect, EG_RUN_FAILED);
    effect->head.crashed = true;
    effect->fresh_ms = 0;
    keep_earlier(head, sight, false, effect);
  }
  *outcome = EG_OK;
  return EGI_SWAP;
}

/* ------------------------------------------------------ ends of grants -- */

/* Is this the run that the caller began? */
static bool holds_run(const egi_head *head, const egi_sight *sight,
                      const egi_event *event) {
  return sight->held && sight->token == event->token &&
         head->status == EG_RUN_RUNNING;
}

static egi_verdict commit(const egi_head *head, const egi_sight *sight,
                          const egi_event *event, const eg_policy *policy,
                          egi_effect *effect, eg_status *outcome) {
  if (!holds_run(head, sight, event))
    return answer(EG_LOST, outcome);
  begin(head, effect);
  effect->hold = EGI_DROP;
  effect->names_token = true;
  effect->wake = true;
  effect->life_ms = policy->record_ttl_ms;
  /* The longer of the cooldown and what is left of lock-at-least. */
  if (policy->cooldown_ms > sight->not_before_left_us / 1000)
    effect->not_before_ms = policy->cooldown_ms;
  switch (event->outcome.status) {
  case EG_OK:
    put(effect, EG_RUN_COMPLETED);
    effect->fresh_ms = policy->result_ttl_ms;
    effect->new_result = policy->cache_result;
    break;
  case EG_TIMEOUT:
    put(effect, EG_RUN_TIMEDOUT);
    effect->fresh_ms = 0;
    break;
  default:
    put(effect, EG_RUN_FAILED);
    effect->fresh_ms = policy->error_ttl_ms;
  }
  if (effect->new_result)
    effect->head.kind = event->outcome.kind;
  else
    keep_earlier(head, sight, event->outcome.status == EG_OK, effect);
  *outcome = EG_OK;
  return EGI_SWAP;
}

static egi_verdict release(const egi_head *head, const egi_sight *sight,
                           const egi_event *event, egi_effect *effect,
                           eg_status *outcome) {
  bool lock = sight->held && head->status != EG_RUN_RUNNING;
  if (!lock || !event->mine ||
      (event->token != 0 && event->token != sight->token))
    return answer(EG_LOST, outcome);
  begin(head, effect);
  effect->hold = EGI_DROP;
  effect->names_token = true;
  effect->wake = true;
  effect->write = head->absent ? EGI_FORGET : EGI_LEAVE;
  *outcome = EG_OK;
  return EGI_SWAP;
}

static egi_verdict reset(const egi_head *head, const egi_sight *sight,
                         egi_effect *effect, eg_status *outcome) {
  *outcome = EG_OK;
  if (head->absent && !sight->held && !sight->timed)
    return EGI_NONE;
  begin(head, effect);
  effect->hold = sight->held ? EGI_BREAK : EGI_KEEP;
  effect->wake = true;
  effect->not_before_ms = 0;
  effect->fresh_ms = 0;
  effect->life_ms = 0;
  if (head->absent) {
    effect->write = EGI_FORGET;
  } else {
    put(effect, EG_RUN_IDLE);
    effect->head.kind = EG_KIND_NONE;
  }
  return EGI_SWAP;
}

/* A run that is broken off has failed; a lock leaves the record alone, as its
** release would. */
static egi_verdict revoke(const egi_head *head, const egi_sight *sight,
                          const egi_event *event, egi_effect *effect,
                          eg_status *outcome) {
  if (!sight->held || sight->token != event->token)
    return answer(EG_LOST, outcome);
  begin(head, effect);
  effect->hold = EGI_BREAK;
  effect->names_token = true;
  effect->wake = true;
  effect->not_before_ms = 0;
  if (head->absent) {
    effect->write = EGI_FORGET;
  } else if (head->status == EG_RUN_RUNNING) {
    put(effect, EG_RUN_FAILED);
    effect->fresh_ms = 0;
    keep_earlier(head, sight, false, effect);
  }
  *outcome = EG_OK;
  return EGI_SWAP;
}

/* ------------------------------------------------------------- reading -- */

static egi_verdict clear(const egi_head *head, const egi_sight *sight,
                         egi_effect *effect, eg_status *outcome) {
  if (head->absent)
    return answer(EG_NOTFOUND, outcome);
  bool crashed = head->crashed;
  begin(head, effect);
  put(effect, head->status);
  effect->head.crashed = crashed;
  effect->head.kind = EG_KIND_NONE;
  /* What is over stays over: a Completed that may run again still may. */
  if (!result_over(head, sight))
    effect->fresh_ms = 0;
  effect->wake = true;
  *outcome = EG_OK;
  return EGI_SWAP;
}

/* What came of a run that somebody waits for.  OK: it tells nothing (reset,
** owner gone, a newer run, its time is over): ask as if for the first time. */
static eg_status joined(const egi_head *head, const egi_sight *sight,
                        const egi_event *event, const eg_policy *policy) {
  if (sight->token != event->token)
    return EG_OK;
  if (sight->held)
    return head->status == EG_RUN_RUNNING ? EG_RUNNING : EG_OK;
  switch (head->status) {
  case EG_RUN_COMPLETED:
    if (result_over(head, sight))
      return EG_OK;
    return policy->cache_result && head->kind != EG_KIND_NONE ? EG_CACHED
                                                              : EG_COMPLETED;
  case EG_RUN_FAILED:
    return head->crashed ? EG_OK : EG_FAILED;
  case EG_RUN_TIMEDOUT:
    return EG_TIMEOUT;
  default:
    return EG_OK;
  }
}

/* Every event looks at the times that are set, but for a reset, which ends
** them all. */
static bool wants_clock(const egi_sight *sight, const egi_event *event) {
  return sight->timed && !sight->clocked && event->type != EGI_RESET;
}

egi_verdict egi_decide(const egi_head *head, const egi_sight *sight,
                       const egi_event *event, const eg_policy *policy,
                       egi_effect *effect, eg_status *outcome,
                       int64_t *left_us) {
  *left_us = -1;
  if (wants_clock(sight, event))
    return EGI_NOW;
  switch (event->type) {
  case EGI_ACQUIRE_RUN:
    return acquire_run(head, sight, policy, effect, outcome, left_us);
  case EGI_ACQUIRE_LOCK:
    return acquire_lock(head, sight, policy, effect, outcome, left_us);
  case EGI_JOIN:
    return answer(joined(head, sight, event, policy), outcome);
  case EGI_COMMIT:
    return commit(head, sight, event, policy, effect, outcome);
  case EGI_RELEASE:
    return release(head, sight, event, effect, outcome);
  case EGI_RESET:
    return reset(head, sight, effect, outcome);
  case EGI_REVOKE:
    return revoke(head, sight, event, effect, outcome);
  case EGI_CLEAR:
    return clear(head, sight, effect, outcome);
  case EGI_FETCH:
    break;
  }
  return answer(head->absent ? EG_NOTFOUND : EG_OK, outcome);
}

/* ---------------------------------------------------------- the record -- */

static const eg_bytes nothing = {"", 0};

static int64_t last_end(const egi_record *record) {
  return longer(egi_record_end(record), record->last_us);
}

/* The last run makes room: it goes into the tally, if it has ended.  One whose
** owner died has not. */
static void make_room(const egi_record *record, egi_record *after) {
  eg_run status = record->head.crashed ? EG_RUN_IDLE : record->head.status;
  after->added = status == EG_RUN_RUNNING ? EG_RUN_IDLE : status;
  after->added_us = record->duration_us;
}

static void start(const egi_record *record, egi_record *after) {
  make_room(record, after);
  after->last_us = last_end(record);
  after->start_us = 0; /* the store's stamp says it */
  after->duration_us = 0;
  if (after->count < UINT32_MAX)
    after->count++;
}

static void end(const egi_event *event, egi_record *after) {
  after->duration_us = event->duration_us;
  if (after->start_us > 0)
    after->last_us = 0; /* start and duration say it */
  after->error = event->outcome.error;
  after->trace = event->outcome.trace;
}

static void owner_gone(egi_record *after) {
  after->head.status = EG_RUN_FAILED;
  after->head.crashed = true;
  after->duration_us = 0;
  after->error.data = egi_owner_died;
  after->error.len = sizeof egi_owner_died - 1;
  after->trace = nothing;
}

static void back_to_idle(const egi_record *record, egi_record *after) {
  make_room(record, after);
  after->last_us = last_end(record);
  after->start_us = after->duration_us = 0;
  after->error = after->trace = nothing;
}

void egi_rewrite(const egi_record *record, const egi_sight *sight,
                 const egi_event *event, const egi_effect *effect,
                 egi_record *after) {
  *after = *record;
  /* A run that was put by the last swap has its start in the stamp: what is
  ** put now has a stamp of its own, so write the start out. */
  if (record->head.status == EG_RUN_RUNNING && record->start_us == 0)
    after->start_us = sight->stamp_us;
  after->head = effect->head;
  after->added = EG_RUN_IDLE;
  switch (event->type) {
  case EGI_ACQUIRE_RUN:
    if (effect->head.status == EG_RUN_RUNNING)
      start(record, after);
    break;
  case EGI_ACQUIRE_LOCK:
    owner_gone(after);
    break;
  case EGI_COMMIT:
    end(event, after);
    break;
  case EGI_REVOKE:
    end(event, after);
    break;
  case EGI_RESET:
    back_to_idle(record, after);
    break;
  default:
    break;
  }
  if (effect->new_result)
    after->value = event->outcome.value;
  if (effect->head.kind != EG_KIND_VALUE)
    after->value = nothing;
}

bool egi_reading(egi_record *record, const egi_sight *sight) {
  bool gone = died(&record->head, sight);
  bool over = record->head.kind != EG_KIND_NONE &&
              result_over(&record->head, sight);
  if (record->head.status == EG_RUN_RUNNING && record->start_us == 0)
    record->start_us = sight->stamp_us;
  if (gone)
    owner_gone(record);
  if (over) {
    record->head.kind = EG_KIND_NONE;
    record->value = nothing;
  }
  return gone || over;
}
