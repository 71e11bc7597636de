/* SPDX-License-Identifier: MIT
** Calls of a guard, as tests make them.
*/
#include "calls.h"

#include <string.h>

eg_status ask_by(eg_guard *guard, const char *key, eg_want want,
                 const eg_policy *policy, int64_t wait_ms, eg_grant *grant,
                 char *message) {
  eg_reply reply;
  eg_reply_init(&reply);
  eg_status status = eg_acquire(guard, eg_str(key), want, policy, wait_ms,
                                grant, &reply);
  if (message != NULL)
    strcpy(message, EG_IS_FAILURE(status) ? reply.failure.message : "");
  eg_reply_free(&reply);
  return status;
}

eg_status ask(eg_guard *guard, const char *key, eg_want want, int64_t wait_ms,
              eg_grant *grant) {
  return ask_by(guard, key, want, NULL, wait_ms, grant, NULL);
}

eg_status lock(eg_guard *guard, const char *key) {
  eg_grant grant;
  return ask(guard, key, EG_WANT_LOCK, 0, &grant);
}

eg_status unlock(eg_guard *guard, const char *key) {
  return eg_release(guard, eg_str(key), 0, NULL);
}

eg_status commit(eg_guard *guard, const char *key, eg_grant *grant) {
  eg_outcome outcome = {
      .status = EG_OK, .kind = EG_KIND_VALUE, .value = eg_str("\x07")};
  return eg_commit(guard, eg_str(key), grant, &outcome, NULL, NULL);
}

eg_run status_of(eg_guard *guard, const char *key, uint32_t *count) {
  eg_record record;
  eg_fetch(guard, eg_str(key), &record, NULL);
  eg_run status = record.status;
  if (count != NULL)
    *count = record.count;
  eg_record_free(&record);
  return status;
}
