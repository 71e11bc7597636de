/* SPDX-License-Identifier: MIT
** What there is to do while the store is away: work without a guard, or what
** was seen last.
*/
#include "core/codec.h"
#include "core/counters.h"
#include "guard/guard.h"

#include <string.h>

void eg_begin_unguarded(eg_guard *guard, eg_grant *grant) {
  *grant = (eg_grant){.start_us = egi_now(&guard->env),
                      .deadline_us = EG_FOREVER,
                      .want = EG_WANT_RUN};
  egi_count(EGI_EXECUTIONS);
}

/* Into the reply's own room, or on the heap. */
static bool keep(const eg_guard *guard, eg_bytes value, eg_reply *reply) {
  egi_buffer buffer;
  egi_buffer_init(&buffer, reply->small, sizeof reply->small);
  buffer.need = value.len;
  if (value.len > buffer.cap && !egi_buffer_grow(&buffer, &guard->env))
    return false;
  if (value.len > 0)
    memcpy(buffer.data, value.data, value.len);
  reply->memory = buffer.memory;
  reply->value = (eg_bytes){buffer.data, value.len};
  return true;
}

/* A result whose time is over is none any more. */
static bool has_result(const egi_seen *seen, eg_bytes *value) {
  egi_head head;
  return seen->bytes.len > 0 && egi_decode_head(seen->bytes, &head) &&
         head.kind == EG_KIND_VALUE && seen->at.fresh_left_us != 0 &&
         egi_decode_value(seen->bytes, value);
}

eg_status eg_recall(eg_guard *guard, eg_bytes key, eg_reply *reply) {
  egi_seen seen;
  eg_bytes value;
  eg_status status = EG_NOTFOUND;
  eg_reply_free(reply);
  reply->token = 0;
  reply->left_us = -1;
  reply->kind = EG_KIND_NONE;
  reply->value = reply->error = (eg_bytes){"", 0};
  if (guard->ops->recall == NULL || key.len > EG_KEY_MAX)
    return status;
  egi_seen_init(&seen);
  if (guard->ops->recall(guard->store, key, &seen) &&
      has_result(&seen, &value)) {
    status = keep(guard, value, reply)
                 ? EG_CACHED
                 : egi_fail(&reply->failure, EG_NOMEM, "not enough memory");
    reply->token = seen.at.token;
    reply->kind = EG_KIND_VALUE;
  }
  egi_seen_free(&seen, &guard->env);
  if (status == EG_CACHED)
    egi_count_outcome(guard, key, EG_CACHED);
  return status;
}
