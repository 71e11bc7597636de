/* SPDX-License-Identifier: MIT
** The verbs: acquire, commit, release, reset, clear.
*/
#include "core/codec.h"
#include "core/counters.h"
#include "guard/guard.h"

#include <string.h>

static const eg_policy default_policy = EG_POLICY_DEFAULT;

static void begin(egi_step *step, eg_guard *guard, eg_bytes key,
                  const eg_policy *policy, egi_event_type type,
                  egi_buffer *buffer) {
  step->guard = guard;
  step->key = key;
  step->policy = policy != NULL ? policy : &default_policy;
  step->event.type = type;
  step->event.token = 0;
  step->here = step->apart = false;
  step->now_us = EGI_NO_TIME;
  step->buffer = buffer;
  step->outcome = EG_INTERNAL;
  step->left_us = -1;
  step->same_state = false;
  step->gone = 0;
}

/* ------------------------------------------------------------- replies -- */

void eg_reply_init(eg_reply *reply) { reply->memory.heap = NULL; }

void eg_reply_free(eg_reply *reply) { egi_memory_free(&reply->memory); }

/* A reply's memory, as the buffer of a step. */
static void lend(eg_reply *reply, const eg_env *env, egi_buffer *buffer) {
  egi_buffer_init(buffer, reply->small, sizeof reply->small);
  if (reply->memory.heap == NULL)
    return;
  if (reply->memory.alloc == env->alloc &&
      reply->memory.alloc_ud == env->alloc_ud) {
    buffer->memory = reply->memory;
    buffer->data = reply->memory.heap;
    buffer->cap = reply->memory.size;
  } else {
    eg_reply_free(reply);
  }
}

static const eg_bytes nothing = {"", 0};

static void no_answer(eg_reply *reply) {
  reply->token = 0;
  reply->left_us = -1;
  reply->kind = EG_KIND_NONE;
  reply->value = nothing;
  reply->error = nothing;
}

static void answer(eg_reply *reply, const egi_step *step, eg_status status) {
  const egi_buffer *buffer = step->buffer;
  eg_bytes bytes = {buffer->data, buffer->len};
  if (buffer->memory.heap != NULL)
    reply->memory = buffer->memory;
  no_answer(reply);
  reply->token = step->token;
  reply->left_us = step->left_us;
  if (status == EG_CACHED) {
    reply->kind = step->head.kind;
    if (step->head.kind == EG_KIND_VALUE)
      reply->value = bytes;
  } else if (status == EG_FAILED) {
    reply->error = bytes;
  }
}

/* ------------------------------------------------------------- acquire -- */

void egi_reply_take(eg_reply *reply, egi_step *step, eg_status status) {
  egi_buffer *buffer = step->buffer;
  eg_reply_free(reply);
  if (buffer->memory.heap == NULL) {
    if (buffer->len > 0)
      memcpy(reply->small, buffer->data, buffer->len);
    buffer->data = reply->small;
  }
  answer(reply, step, status);
}

void egi_grant_fill(eg_grant *grant, const egi_step *step) {
  bool run = step->event.type == EGI_ACQUIRE_RUN;
  grant->token = step->token;
  grant->start_us = run ? step->now_us : 0;
  grant->deadline_us = EG_FOREVER;
  grant->want = run ? EG_WANT_RUN : EG_WANT_LOCK;
}

_Static_assert(sizeof((eg_reply *)0)->small >= EGI_PEEK_ROOM, "room");

/* Flatten: all that it calls is put inline; most calls end here. */
__attribute__((flatten)) eg_status eg_settled(eg_request *r, eg_reply *reply) {
  const eg_policy *policy = r->policy != NULL ? r->policy : &default_policy;
  eg_status outcome;
  uint64_t tag;
  r->starts = false;
  if (r->want != EG_WANT_RUN || !egi_is_key(r->key))
    return EG_OK;
  switch (egi_peek_run(r->guard, r->key, policy, reply, &outcome, &tag)) {
  case EGI_NONE:
    egi_count_settled(r->guard, r->key, tag, outcome);
    return outcome;
  case EGI_NOW:
    r->starts = true;
    return EG_OK;
  default:
    return EG_OK;
  }
}

/* Asks the store in full. */
static eg_status ask(const eg_request *r, eg_bell *bell, eg_pending **pending,
                     eg_grant *grant, eg_reply *reply) {
  egi_step step;
  egi_buffer buffer;
  bool run = r->want == EG_WANT_RUN;
  lend(reply, &r->guard->env, &buffer);
  begin(&step, r->guard, r->key, r->policy,
        run ? EGI_ACQUIRE_RUN : EGI_ACQUIRE_LOCK, &buffer);
  step.apart = r->apart;
  if (r->starts)
    step.now_us = egi_now(&r->guard->env);
  eg_status status = egi_step_run(&step, &reply->failure);
  answer(reply, &step, status);
  if (status == EG_OK)
    egi_grant_fill(grant, &step);
  if (!egi_wait_worth(&step, status, r->wait_ms))
    return status;
  if (bell != NULL)
    return egi_wait_begin(&step, status, r->wait_ms, bell, pending, grant,
                          reply);
  return egi_wait_block(&step, status, r->wait_ms, grant, reply);
}

eg_status eg_ask(const eg_request *r, eg_bell *bell, eg_pending **pending,
                 eg_grant *grant, eg_reply *reply) {
  eg_status status = egi_check_key(r->key, &reply->failure);
  *pending = NULL;
  if (status != EG_OK) {
    no_answer(reply);
    return status;
  }
  status = ask(r, bell, pending, grant, reply);
  if (r->want == EG_WANT_RUN && *pending == NULL && !r->apart)
    egi_count_outcome(r->guard, r->key, status);
  return status;
}

void eg_count_asked(const eg_request *r, eg_status answer, int64_t waited_us) {
  if (r->want == EG_WANT_RUN)
    egi_count_outcome(r->guard, r->key, answer);
  if (waited_us > 0)
    egi_count_wait(r->guard, r->key, waited_us);
}

eg_status eg_acquire_begin(eg_guard *guard, eg_bytes key, eg_want want,
                           const eg_policy *policy, int64_t wait_ms,
                           eg_bell *bell, eg_pending **pending,
                           eg_grant *grant, eg_reply *reply) {
  eg_request r = {guard, key, want, policy, wait_ms, false, false};
  eg_status status = eg_settled(&r, reply);
  *pending = NULL;
  return status != EG_OK ? status : eg_ask(&r, bell, pending, grant, reply);
}

eg_status eg_acquire(eg_guard *guard, eg_bytes key, eg_want want,
                     const eg_policy *policy, int64_t wait_ms, eg_grant *grant,
                     eg_reply *reply) {
  eg_pending *pending;
  return eg_acquire_begin(guard, key, want, policy, wait_ms, NULL, &pending,
                          grant, reply);
}

/* -------------------------------------------------------- end of grants -- */

static eg_status check_outcome(const eg_outcome *outcome,
                               const eg_policy *policy, eg_error *error) {
  if (outcome->status != EG_OK && outcome->status != EG_FAILED &&
      outcome->status != EG_TIMEOUT)
    return egi_fail(error, EG_INVALID, "a run ends as ok, failed or timeout");
  if (outcome->status != EG_OK || outcome->kind != EG_KIND_VALUE ||
      !policy->cache_result)
    return EG_OK;
  if (outcome->value.len > policy->max_result)
    return egi_fail(error, EG_INVALID,
                    "the result has %zu bytes; at most %zu are stored",
                    outcome->value.len, policy->max_result);
  const char *why = egi_check_value(outcome->value);
  if (why != NULL)
    return egi_fail(error, EG_INVALID, "the result is no MessagePack: %s",
                    why);
  return EG_OK;
}

/* Remembers a run that ended, where somebody wants that. */
static void remember(eg_guard *guard, eg_bytes key, const eg_grant *grant,
                     const egi_event *event) {
  if (guard->history == NULL)
    return;
  const eg_clock *clock = guard->env.clock;
  int64_t now = grant->start_us + event->duration_us;
  int64_t offset = clock->offset_us(clock->ctx, now);
  eg_past past = {.key = key,
                  .token = grant->token,
                  .status = event->outcome.status,
                  .start_us = grant->start_us + offset,
                  .duration_us = event->duration_us,
                  .error = event->outcome.error,
                  .owner = {"", 0},
                  .exited = event->outcome.exited,
                  .exit_status = event->outcome.exit_status};
  egi_history_add(guard, &past);
}

static void tally(eg_guard *guard, eg_bytes key, const eg_grant *grant,
                  const egi_event *event) {
  egi_counter counter = egi_counter_of_end(event->outcome.status);
  if (counter != EGI_COUNTERS)
    egi_count(counter);
  remember(guard, key, grant, event);
}

/* What came too late has timed out, whatever it says. */
static void judge(const eg_grant *grant, int64_t now_us, eg_outcome *outcome) {
  if (now_us >= grant->deadline_us)
    *outcome = (eg_outcome){.status = EG_TIMEOUT,
                            .error = eg_str("timed out")};
}

static bool maybe_applied(eg_status status) {
  return status == EG_UNAVAILABLE || status == EG_INDETERMINATE;
}

eg_status eg_commit(eg_guard *guard, eg_bytes key, eg_grant *grant,
                    const eg_outcome *outcome, const eg_policy *policy,
                    eg_error *error) {
  unsigned char small[128];
  egi_step step;
  egi_buffer buffer;
  if (policy == NULL)
    policy = &default_policy;
  eg_status status = egi_check_key(key, error);
  if (status != EG_OK)
    return status;
  egi_buffer_init(&buffer, small, sizeof small);
  begin(&step, guard, key, policy, EGI_COMMIT, &buffer);
  int64_t now_us = step.now_us = egi_now(&guard->env);
  step.event.token = grant->token;
  step.event.outcome = *outcome;
  step.event.duration_us = now_us - grant->start_us;
  judge(grant, now_us, &step.event.outcome);
  status = check_outcome(&step.event.outcome, policy, error);
  if (status == EG_OK && grant->token != 0) /* else it has no guard */
    status = egi_step_run(&step, error);
  egi_memory_free(&buffer.memory);
  if (status == EG_OK) {
    tally(guard, key, grant, &step.event);
    if (step.event.outcome.status == EG_TIMEOUT)
      status = EG_TIMEOUT;
  }
  if (maybe_applied(status))
    status = step.gone != 0 ? EG_INDETERMINATE : EG_UNCOMMITTED;
  return status;
}

/* An event that answers nothing but its outcome. */
static eg_status simple(eg_guard *guard, eg_bytes key, egi_event_type type,
                        uint64_t token, bool here, eg_error *error) {
  unsigned char small[128];
  egi_step step;
  egi_buffer buffer;
  eg_status status = egi_check_key(key, error);
  if (status != EG_OK)
    return status;
  egi_buffer_init(&buffer, small, sizeof small);
  begin(&step, guard, key, NULL, type, &buffer);
  step.event.token = token;
  step.here = here;
  status = egi_step_run(&step, error);
  egi_memory_free(&buffer.memory);
  return status;
}

eg_status eg_release(eg_guard *guard, eg_bytes key, uint64_t token,
                     eg_error *error) {
  return simple(guard, key, EGI_RELEASE, token, false, error);
}

eg_status eg_release_here(eg_guard *guard, eg_bytes key, eg_error *error) {
  return simple(guard, key, EGI_RELEASE, 0, true, error);
}

eg_status eg_reset(eg_guard *guard, eg_bytes key, eg_error *error) {
  return simple(guard, key, EGI_RESET, 0, false, error);
}

eg_status eg_revoke(eg_guard *guard, eg_bytes key, uint64_t token,
                    const char *why, eg_error *error) {
  unsigned char small[128];
  egi_step step;
  egi_buffer buffer;
  eg_status status = egi_check_key(key, error);
  if (status != EG_OK)
    return status;
  egi_buffer_init(&buffer, small, sizeof small);
  begin(&step, guard, key, NULL, EGI_REVOKE, &buffer);
  step.event.token = token;
  step.event.duration_us = 0; /* what it had run is not known here */
  step.event.outcome = (eg_outcome){.status = EG_FAILED, .error = eg_str(why)};
  status = egi_step_run(&step, error);
  egi_memory_free(&buffer.memory);
  if (status == EG_OK) {
    eg_grant taken = {.token = token, .start_us = egi_now(&guard->env)};
    remember(guard, key, &taken, &step.event);
  }
  return status;
}

eg_status eg_share_grant(eg_guard *guard, eg_bytes key, const eg_grant *grant,
                         int *fd, eg_error *error) {
  *fd = -1;
  eg_status status = egi_check_key(key, error);
  if (status != EG_OK)
    return status;
  if (guard->ops->share == NULL)
    return egi_fail(error, EG_UNSUPPORTED,
                    "no descriptor stands for a grant in this store");
  return guard->ops->share(guard->store, key, grant->token, fd, error);
}

eg_status eg_clear_result(eg_guard *guard, eg_bytes key, eg_error *error) {
  return simple(guard, key, EGI_CLEAR, 0, false, error);
}

eg_status eg_report(eg_guard *guard, eg_bytes key, uint64_t token,
                    double progress, eg_error *error) {
  eg_status status = egi_check_key(key, error);
  if (status != EG_OK)
    return status;
  if (guard->ops->report == NULL)
    return egi_fail(error, EG_UNSUPPORTED,
                    "the store '%s' tells nobody how far work is",
                    guard->ops->scheme);
  int thousandths = progress >= 1  ? 1000
                    : progress > 0 ? (int)(progress * 1000)
                                   : 0;
  return guard->ops->report(guard->store, key, token,
                            progress < 0 ? -1 : thousandths, error);
}
