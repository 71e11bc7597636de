/* SPDX-License-Identifier: MIT
** eg_run_once: acquire, work, commit.
*/
#include "guard/guard.h"

#include "executionguard_host.h"

/* What cannot be stored is a failure of the run, not a run without end. */
static eg_status settle(eg_guard *guard, eg_bytes key, eg_grant *grant,
                        const eg_outcome *outcome, const eg_policy *policy,
                        eg_error *error) {
  eg_status status = eg_commit(guard, key, grant, outcome, policy, error);
  if (status == EG_INVALID || status == EG_NOMEM) {
    eg_outcome failed = {.status = EG_FAILED,
                         .error = eg_str(eg_status_text(status))};
    eg_error ignored;
    if (error != NULL && status == EG_INVALID)
      failed.error = eg_str(error->message);
    if (eg_commit(guard, key, grant, &failed, policy, &ignored) == EG_NOMEM) {
      failed.error = (eg_bytes){"", 0};
      eg_commit(guard, key, grant, &failed, policy, &ignored);
    }
  }
  if (status == EG_UNCOMMITTED)
    eg_commit_later(guard, key, grant, outcome, policy, NULL);
  return status;
}

eg_status eg_run_once(eg_guard *guard, eg_bytes key, eg_work work, void *ctx,
                      const eg_policy *policy, int64_t timeout_ms,
                      int64_t wait_ms, eg_reply *reply) {
  eg_grant grant;
  eg_status status = eg_acquire(guard, key, EG_WANT_RUN, policy, wait_ms,
                                &grant, reply);
  if (status != EG_OK)
    return status;
  if (timeout_ms > 0)
    grant.deadline_us = egi_deadline(grant.start_us, timeout_ms);
  static const eg_policy default_policy = EG_POLICY_DEFAULT;
  eg_timer timer = {.guard = guard,
                    .key = key,
                    .grant = grant,
                    .policy = policy != NULL ? policy : &default_policy};
  eg_timer_start(&timer);
  eg_outcome outcome = {.status = EG_OK};
  work(ctx, &grant, &outcome);
  status = eg_timer_stop(&timer);
  if (status != EG_OK)
    return status;
  status = settle(guard, key, &grant, &outcome, policy, &reply->failure);
  return status == EG_OK ? outcome.status : status;
}
