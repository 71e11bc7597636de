/* SPDX-License-Identifier: MIT
** Waiting until a key can be had: one machine for those who block and for
** those who have other things to do meanwhile.
**
**              LOCKED, COOLDOWN            RUNNING, and join
**   ask --------------------> FOR_FREE --------------------> FOR_END
**    |                        |  ^  |                         |  |
**    | granted, or            |  |  | granted, or no reason   |  | what came
**    | no reason to wait      |  |  | to wait any more        |  | that run
**    v                        |  |  v                         |  v
**   the answer <--------------+  |  the answer <--------------+  the answer
**                deadline        +----------------------------+
**                                   that told nothing: ask again
**
** Who waits stands in line (line.c), and looks at the key when it is its turn
** and there is a reason to: somebody in this process ended a grant (the line
** says so), the store says so (a watch, where others can change the key), or
** time alone may have (a lease, a cooldown, the deadline).
**
** A waiter first watches the key, and only then looks at it again: whatever
** happened before the watch is seen by the look.
*/
#include "guard/wait.h"

#include "core/counters.h"

#include <string.h>

/* Where the store cannot tell, look again after that long. */
#define POLL_US 20000

static int64_t sooner(int64_t a, int64_t b) { return a < b ? a : b; }

/* ------------------------------------------------------------- looking -- */

/* When to look again, at the latest, after that refusal. */
static int64_t due_after(const eg_pending *p, eg_status status) {
  const egi_step *step = &p->step;
  int64_t until = p->until_us[p->phase];
  int64_t now = egi_now(&p->env);
  int64_t left = step->sight.clocked ? step->sight.left_us : -1;
  if (status == EG_COOLDOWN)
    left = step->left_us;
  if (left >= 0 && left < EG_FOREVER - now)
    until = sooner(until, now + left);
  const eg_guard *guard = step->guard;
  if (!guard->store->inside && guard->ops->watch == NULL)
    until = sooner(until, now + POLL_US);
  return until;
}

/* The phase that a refusal leads to.  False: it is final. */
static bool phase_after(const eg_pending *p, eg_status status,
                        egi_phase *phase) {
  switch (status) {
  case EG_LOCKED:
    *phase = EGI_FOR_FREE;
    return p->waits[EGI_FOR_FREE];
  case EG_COOLDOWN:
    *phase = EGI_FOR_FREE;
    return p->waits[EGI_FOR_FREE] && p->asked == EGI_ACQUIRE_LOCK;
  case EG_RUNNING:
    *phase = EGI_FOR_END;
    return p->waits[EGI_FOR_END];
  default:
    return false;
  }
}

/* Says what the next look asks for. */
static void ask_for(eg_pending *p, egi_phase phase) {
  bool join = phase == EGI_FOR_END;
  p->step.event.type = join ? EGI_JOIN : p->asked;
  p->step.event.token = join ? p->step.sight.token : 0;
}

/* The time is read here, which also tells the store to look under its lock. */
static eg_status step(eg_pending *p) {
  p->step.now_us = egi_now(&p->env);
  p->step.same_state = false;
  eg_status status = egi_step_run(&p->step, &p->failure);
  if (p->step.same_state && egi_is_leftover(p->step.key, p->step.token))
    p->step.same_state = false; /* it ends by itself */
  return status;
}

/* One look.  False: still refused.  What is asked of the run that was joined
** may tell nothing (a reset, a newer run): then it is asked as by a newcomer,
** which only its owner does. */
static bool look(eg_pending *p, bool own, eg_status *status) {
  egi_phase phase;
  *status = step(p);
  if (p->step.event.type == EGI_JOIN && *status == EG_OK) {
    ask_for(p, EGI_FOR_FREE);
    *status = EG_CHANGED;
    if (!own)
      return false;
    *status = step(p);
  }
  if (!phase_after(p, *status, &phase))
    return true;
  if (p->blocks && p->step.same_state && *status != EG_COOLDOWN) {
    *status = EG_DEADLOCK;
    return true;
  }
  ask_for(p, phase);
  return false;
}

void egi_wait_finish(eg_pending *p, eg_status status) {
  if (p->in_line)
    egi_line_leave(p);
  p->status = status;
  p->done = true;
  egi_bell_ring(p->bell, &p->call);
}

/* After a look that was refused: its place, and when to look again. */
static void wait_on(eg_pending *p, eg_status status) {
  egi_phase phase = p->phase;
  if (status == EG_CHANGED) { /* its owner has to ask */
    p->due_us = INT64_MIN;
    return;
  }
  p->status = status;
  phase_after(p, status, &phase);
  if (phase != p->phase) {
    egi_line_leave(p);
    p->phase = phase;
    egi_line_join(p);
  }
  p->due_us = egi_line_has_turn(p) ? due_after(p, status) : p->until_us[phase];
}

bool egi_wait_look(eg_pending *p) {
  eg_status status;
  bool final = look(p, false, &status);
  if (final && status == EG_OK && egi_traces())
    egi_trace_handed(p->step.guard, p->step.key, p->step.token);
  if (final)
    egi_wait_finish(p, status);
  else
    wait_on(p, status);
  return final;
}

/* -------------------------------------------------- what the store says -- */

static void end_watch(eg_pending *p) {
  if (p->watch == NULL)
    return;
  if (p->fd >= 0 && !p->blocks)
    eg_bell_unwatch(p->bell, p->fd);
  p->step.guard->ops->unwatch(p->watch);
  p->watch = NULL;
}

/* Watches the key, or takes note of what the watch has to say.  OK, or a
** failure. */
static eg_status attend(eg_pending *p) {
  const eg_guard *guard = p->step.guard;
  const egi_store_ops *ops = guard->ops;
  eg_status status;
  if (guard->store->inside || ops->watch == NULL)
    return EG_OK;
  if (p->watch != NULL && p->blocks)
    return EG_OK; /* it has just said it */
  if (p->watch != NULL) {
    status = ops->wait(p->watch, egi_now(&p->env), &p->failure);
    return EG_IS_FAILURE(status) ? status : EG_OK;
  }
  egi_seen seen;
  egi_seen_init(&seen);
  seen.version = p->step.version;
  seen.at = p->step.sight;
  p->fd = -1;
  return ops->watch(guard->store, p->step.key, &seen, &p->watch,
                    p->blocks ? NULL : &p->fd, &p->failure);
}

/* Lets the bell listen to the watch.  Where that cannot be: looks again. */
static void listen(eg_pending *p) {
  if (p->watch == NULL || p->blocks ||
      (p->fd >= 0 && eg_bell_watch(p->bell, p->fd, &p->call, NULL) == EG_OK))
    return;
  p->due_us = sooner(p->due_us, egi_now(&p->env) + POLL_US);
}

/* ----------------------------------------------------------- the owner -- */

/* A store that is asked from here may take its time: without the mutex. */
static bool look_aside(eg_pending *p, eg_status *status) {
  egi_line_unlock(p);
  *status = attend(p);
  bool final = *status != EG_OK || look(p, true, status);
  egi_line_lock(p);
  return final;
}

/* With the mutex: it is this one's turn, so it looks. */
static void take_turn(eg_pending *p) {
  eg_status status;
  bool final = egi_is_quick(p->step.guard) ? look(p, true, &status)
                                           : look_aside(p, &status);
  if (final)
    egi_wait_finish(p, status);
  else
    wait_on(p, status);
}

/* With the mutex. */
static void stand_in_again(eg_pending *p) {
  if (!p->adrift)
    return;
  p->adrift = false;
  p->due_us = p->until_us[p->phase];
  egi_line_join(p);
}

/* What the owner of a wait does whenever something may have happened.  True:
** it is over.  *status: how it stands. */
static bool pump(eg_pending *p, eg_status *status) {
  egi_line_lock(p);
  stand_in_again(p);
  bool leads = p->in_line && p->phase == EGI_FOR_FREE && egi_line_has_turn(p);
  bool late = !p->done && egi_now(&p->env) >= p->until_us[p->phase];
  egi_phase phase = p->phase;
  if (!p->done && egi_line_has_turn(p))
    take_turn(p);
  if (!p->done && late && p->phase == phase)
    egi_wait_finish(p, p->status);
  if (leads && (!p->in_line || p->phase != phase))
    egi_line_serve(p);
  if (!p->done)
    listen(p);
  bool done = p->done;
  *status = p->status;
  egi_line_unlock(p);
  return done;
}

/* Withdraws a wait.  True: too late, it had been granted. */
static bool withdraw(eg_pending *p) {
  egi_line_lock(p);
  stand_in_again(p);
  bool leads = p->in_line && p->phase == EGI_FOR_FREE && egi_line_has_turn(p);
  bool granted = p->done && p->status == EG_OK;
  if (p->in_line)
    egi_line_leave(p);
  p->done = true;
  if (leads)
    egi_line_serve(p);
  egi_line_exit(p);
  egi_line_unlock(p);
  return granted;
}

void egi_wait_orphan(eg_pending *p) {
  if (!p->done)
    egi_wait_finish(p, EG_CANCELED);
  else if (p->status == EG_OK)
    p->status = EG_CANCELED;
  end_watch(p);
  p->step.guard = NULL;
}

void egi_wait_forked(eg_pending *p) {
  if (p->done && p->status == EG_OK) {
    p->done = false;
    p->status = EG_LOCKED;
    p->phase = EGI_FOR_FREE;
    ask_for(p, EGI_FOR_FREE);
  }
  p->adrift = !p->done;
  p->prev = p->next = NULL;
  p->watch = NULL; /* the parent's */
  p->fd = -1;
  p->step.same_state = false;
  p->due_us = INT64_MIN;
  egi_bell_forked(p->bell);
  egi_bell_ring(p->bell, &p->call);
}

/* ------------------------------------------------------- begin and end -- */

bool egi_wait_worth(const egi_step *step, eg_status status, int64_t wait_ms) {
  switch (status) {
  case EG_LOCKED:
    return wait_ms > 0;
  case EG_COOLDOWN:
    return wait_ms > 0 && step->event.type == EGI_ACQUIRE_LOCK;
  case EG_RUNNING:
    return step->policy->join_ms > 0;
  default:
    return false;
  }
}

/* Makes a wait of a step that was refused, and puts it in line. */
static void enter(eg_pending *p, const egi_step *refused, eg_status status,
                  int64_t wait_ms, eg_bell *bell) {
  int64_t now = egi_now(&refused->guard->env);
  p->step = *refused;
  p->policy = *refused->policy;
  p->env = refused->guard->env;
  memcpy(p->key, refused->key.data, refused->key.len);
  p->step.key.data = p->key;
  p->step.policy = &p->policy;
  p->step.buffer = &p->buffer;
  egi_buffer_init(&p->buffer, p->small, sizeof p->small);
  p->asked = refused->event.type;
  p->since_us = now;
  p->waits[EGI_FOR_FREE] = wait_ms > 0;
  p->waits[EGI_FOR_END] = p->policy.join_ms > 0;
  p->until_us[EGI_FOR_FREE] = egi_deadline(now, wait_ms);
  p->until_us[EGI_FOR_END] = egi_deadline(now, p->policy.join_ms);
  p->bell = bell;
  p->call = (eg_call){0};
  p->watch = NULL;
  p->fd = -1;
  p->done = p->adrift = false;
  p->status = status;
  p->phase = status == EG_RUNNING ? EGI_FOR_END : EGI_FOR_FREE;
  p->due_us = p->until_us[p->phase];
  ask_for(p, p->phase);
  p->traced = egi_traces() ? egi_trace_wait(refused->guard, p->step.key) : 0;
  egi_line_locate(p);
  egi_line_lock(p);
  egi_line_enter(p);
  egi_line_join(p);
  egi_line_unlock(p);
}

/* One whose guard was closed meanwhile is counted by nobody. */
static void count_wait(const eg_pending *p) {
  if (p->step.guard != NULL && p->began && !p->step.apart)
    egi_count_wait(p->step.guard, p->step.key, egi_now(&p->env) - p->since_us);
}

/* What a wait that is over has to say; it is known no more after that. */
static eg_status leave(eg_pending *p, eg_grant *grant, eg_reply *reply) {
  egi_line_lock(p);
  eg_status status = p->status;
  egi_line_exit(p);
  egi_line_unlock(p);
  if (egi_traces())
    egi_trace_waited(p->step.guard, p->step.key, p->traced, status,
                     p->step.token);
  eg_bell_forget(p->bell, &p->call);
  end_watch(p);
  count_wait(p);
  reply->failure = p->failure;
  egi_reply_take(reply, &p->step, status);
  if (status == EG_OK)
    egi_grant_fill(grant, &p->step);
  return status;
}

/* ------------------------------------------------- waiting in a thread -- */

/* Sleeps until there is a reason to look.  OK, or a failure. */
static eg_status sleep_on(eg_pending *p) {
  egi_line_lock(p);
  int64_t due = p->due_us;
  egi_line_unlock(p);
  if (p->watch != NULL) { /* so this is the first in line */
    eg_status status = p->step.guard->ops->wait(p->watch, due, &p->failure);
    egi_keeper_settle();
    return EG_IS_FAILURE(status) ? status : EG_OK;
  }
  eg_bell_wait(p->bell, due);
  while (eg_bell_next(p->bell) != NULL)
    continue;
  return EG_OK;
}

static void fail(eg_pending *p, eg_status status) {
  egi_line_lock(p);
  egi_wait_finish(p, status);
  egi_line_serve(p);
  egi_line_unlock(p);
}

eg_status egi_wait_block(const egi_step *refused, eg_status status,
                         int64_t wait_ms, eg_grant *grant, eg_reply *reply) {
  eg_pending p;
  eg_bell bell;
  int err = egi_bell_init(&bell, &refused->guard->env);
  if (err != 0)
    return egi_fail_errno(&reply->failure, EG_NOMEM, err,
                          "no condition for a wait");
  p.blocks = true;
  enter(&p, refused, status, wait_ms, &bell);
  p.began = false;
  while (!pump(&p, &status)) {
    p.began = true;
    eg_status slept = sleep_on(&p);
    if (slept != EG_OK)
      fail(&p, slept);
  }
  status = leave(&p, grant, reply);
  egi_bell_destroy(&bell);
  return status;
}

/* ------------------------------------------------- waiting with a bell -- */

/* The outcome of a run that was waited for. */
static void count_run(const eg_pending *p, eg_status status) {
  if (p->asked != EGI_ACQUIRE_RUN || p->step.apart)
    return;
  if (p->step.guard != NULL)
    egi_count_outcome(p->step.guard, p->step.key, status);
  else
    egi_count(egi_counter_of_acquire(status));
}

/* Frees what is over. */
static bool over(eg_pending *p, eg_status *status, eg_grant *grant,
                 eg_reply *reply) {
  if (!pump(p, status))
    return false;
  eg_env env = p->env;
  *status = leave(p, grant, reply);
  if (p->began)
    count_run(p, *status);
  egi_free(&env, p, sizeof *p);
  return true;
}

eg_status egi_wait_begin(const egi_step *refused, eg_status status,
                         int64_t wait_ms, eg_bell *bell, eg_pending **pending,
                         eg_grant *grant, eg_reply *reply) {
  eg_pending *p = egi_alloc(&refused->guard->env, sizeof *p);
  if (p == NULL)
    return egi_fail(&reply->failure, EG_NOMEM, "not enough memory to wait");
  p->blocks = false;
  enter(p, refused, status, wait_ms, bell);
  p->began = false; /* who asked counts an answer that comes at once */
  if (over(p, &status, grant, reply))
    p = NULL;
  else
    p->began = true;
  *pending = p;
  return status;
}

bool eg_pending_over(eg_pending *p, eg_status *status, eg_grant *grant,
                     eg_reply *reply) {
  return over(p, status, grant, reply);
}

eg_call *eg_pending_call(eg_pending *p) { return &p->call; }

int64_t eg_pending_due_us(eg_pending *p) {
  egi_line_lock(p);
  int64_t due = p->due_us;
  egi_line_unlock(p);
  return due;
}

bool eg_pending_for_self(eg_pending *p) {
  egi_line_lock(p);
  bool self = !p->done && p->step.same_state;
  egi_line_unlock(p);
  return self;
}

void eg_pending_cancel(eg_pending *p) {
  if (p == NULL)
    return;
  eg_env env = p->env;
  bool granted = withdraw(p);
  if (egi_traces())
    egi_trace_waited(p->step.guard, p->step.key, p->traced, EG_CANCELED, 0);
  eg_bell_forget(p->bell, &p->call);
  end_watch(p);
  if (granted)
    eg_release(p->step.guard, p->step.key, p->step.token, NULL);
  egi_memory_free(&p->buffer.memory);
  count_wait(p);
  count_run(p, EG_CANCELED);
  egi_free(&env, p, sizeof *p);
}
