/* SPDX-License-Identifier: MIT
** Reading: one record, or all of them.
*/
#include "core/codec.h"
#include "guard/guard.h"

#include <string.h>

static int64_t not_negative(int64_t us) { return us > 0 ? us : 0; }

eg_status egi_read(eg_guard *guard, eg_bytes key, const egi_seen *seen,
                   eg_record *record, eg_error *error) {
  egi_record r;
  memset(record, 0, sizeof *record);
  record->key = key;
  record->token = seen->at.token;
  record->version = seen->version;
  record->locked = seen->at.held;
  record->progress = seen->at.held && seen->at.progress > 0
                         ? (seen->at.progress - 1) / 1000.0
                         : -1;
  if (seen->at.held)
    egi_owner_read(guard, seen->holder, &record->owner);
  record->corrupt = !egi_decode(seen->bytes, &r);
  if (record->corrupt)
    return egi_fail(error, EG_CORRUPT,
                    "the record cannot be read; reset the key");
  egi_reading(&r, &seen->at);
  record->only_locked = r.head.absent && seen->at.held;
  record->status = r.head.status;
  record->crashed = r.head.crashed;
  record->kind = r.head.kind;
  record->count = r.count;
  record->start_us = r.start_us;
  record->duration_us = r.duration_us;
  record->end_us = egi_record_end(&r);
  record->last_us = record->end_us > 0 ? record->end_us : r.last_us;
  record->cooldown_left_us = not_negative(seen->at.not_before_left_us);
  record->fresh_left_us = seen->at.fresh_left_us;
  record->value = r.value;
  record->error = r.error;
  record->trace = r.trace;
  record->tally = r.tally;
  egi_count_runs(record);
  return r.head.absent ? EG_NOTFOUND : EG_OK;
}

eg_status eg_look(eg_guard *guard, eg_bytes key, eg_record *record,
                  eg_error *error) {
  static const eg_policy policy = EG_POLICY_DEFAULT;
  unsigned char small[256];
  egi_buffer buffer;
  memset(record, 0, sizeof *record);
  eg_status status = egi_check_key(key, error);
  if (status != EG_OK)
    return status;
  egi_buffer_init(&buffer, small, sizeof small);
  egi_step step = {.guard = guard,
                   .key = key,
                   .policy = &policy,
                   .event = {.type = EGI_FETCH},
                   .now_us = EGI_NO_TIME,
                   .buffer = &buffer};
  status = egi_step_run(&step, error);
  if (EG_IS_FAILURE(status)) {
    egi_memory_free(&buffer.memory);
    return status;
  }
  if (buffer.memory.heap == NULL &&
      buffer.len > 0) { /* what outlives this call */
    buffer.need = buffer.len;
    if (!egi_buffer_grow(&buffer, &guard->env))
      return egi_fail(error, EG_NOMEM, "not enough memory for a record");
    memcpy(buffer.data, small, buffer.len);
  }
  egi_seen seen = {.at = step.sight,
                   .version = step.version,
                   .bytes = {buffer.data, buffer.len},
                   .holder = {step.line, step.line_len}};
  status = egi_read(guard, key, &seen, record, error);
  record->memory = buffer.memory;
  return status;
}

/* Its memory grows by the waits, and everything in it moves. */
static bool keep_waits(eg_guard *guard, eg_record *record,
                       const egi_tally *waits) {
  unsigned char bytes[EGI_COUNTS_MAX];
  eg_memory *memory = &record->memory;
  const unsigned char *before = memory->heap;
  size_t len = egi_encode_tally(waits, bytes, sizeof bytes);
  size_t size = memory->heap != NULL ? memory->size : 0;
  const eg_env *env = &guard->env;
  unsigned char *heap = env->alloc(env->alloc_ud, memory->heap, size,
                                   size + len);
  if (heap == NULL)
    return false;
  eg_bytes *inside[] = {&record->value, &record->error, &record->trace,
                        &record->tally};
  for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
    const unsigned char *at = inside[i]->data;
    if (before != NULL && at >= before && at < before + size)
      inside[i]->data = heap + (at - before);
  }
  memcpy(heap + size, bytes, len);
  record->waits = (eg_bytes){heap + size, len};
  *memory = (eg_memory){heap, size + len, env->alloc, env->alloc_ud};
  return true;
}

eg_status eg_fetch(eg_guard *guard, eg_bytes key, eg_record *record,
                   eg_error *error) {
  egi_counts counts;
  eg_status status = eg_look(guard, key, record, error);
  if (EG_IS_FAILURE(status))
    return status;
  eg_status counted = egi_counts_of(guard, key, &counts, error);
  record->blocked = counts.blocked;
  record->cached = counts.cached;
  if (counted == EG_OK && counts.waits.n > 0 &&
      !keep_waits(guard, record, &counts.waits))
    counted = egi_fail(error, EG_NOMEM, "not enough memory for a record");
  if (counted == EG_OK)
    return status;
  eg_record_free(record);
  return counted;
}

void eg_record_free(eg_record *record) { egi_memory_free(&record->memory); }

bool eg_holds(eg_guard *guard, eg_bytes key, uint64_t token) {
  eg_record record;
  eg_status status = eg_look(guard, key, &record, NULL);
  bool holds = !EG_IS_FAILURE(status) && record.locked &&
               record.token == token;
  eg_record_free(&record);
  return holds;
}

/* Who was stopped for a while may come here before its keeper. */
bool egi_believes(eg_guard *guard, eg_bytes key, uint64_t token) {
  egi_attending_lock(); /* each of its grants is noted there */
  const egi_tenure *held = egi_tenure_find(guard, key, token);
  bool good = held != NULL &&
              egi_tenure_lose_at(guard, held) > egi_lease_now(guard);
  egi_attending_unlock();
  return good;
}

bool eg_believes(eg_guard *guard, eg_bytes key, uint64_t token) {
  if (guard->store->inside || guard->store->lease_ms == 0 ||
      guard->env.clock != egi_process_clock())
    return eg_holds(guard, key, token);
  return egi_believes(guard, key, token);
}

/* By the tenure where grants are leases, else by asking. */
uint64_t eg_token(eg_guard *guard, eg_bytes key) {
  eg_record record;
  uint64_t token = 0;
  if (key.len == 0 || key.len > EG_KEY_MAX)
    return 0;
  if (!guard->store->inside && guard->store->lease_ms > 0 &&
      guard->env.clock == egi_process_clock()) {
    egi_attending_lock();
    const egi_tenure *held = egi_holds_find(guard, key);
    if (held != NULL && egi_tenure_lose_at(guard, held) > egi_lease_now(guard))
      token = held->token;
    egi_attending_unlock();
    return token;
  }
  eg_status status = eg_look(guard, key, &record, NULL);
  if (!EG_IS_FAILURE(status) && record.locked && record.owner.mine)
    token = record.token;
  eg_record_free(&record);
  return token;
}

typedef struct scan {
  eg_guard *guard;
  eg_visit visit;
  void *ctx;
  const egi_ledger *counts;
  bool held; /* those that are only locked, too */
} scan;

static bool visit_one(void *ctx, eg_bytes key, const egi_seen *seen) {
  scan *s = ctx;
  eg_record record;
  eg_status status = egi_read(s->guard, key, seen, &record, NULL);
  const egi_account *account = egi_counts_find(s->counts, key);
  if (account != NULL) {
    record.blocked = account->blocked;
    record.cached = account->cached;
    record.waits = (eg_bytes){account->waits, account->waits_len};
  }
  /* One that cannot be read is shown all the same: as a record without
  ** status would be, with its key, so that somebody can reset it. */
  return (status == EG_NOTFOUND && !(s->held && record.only_locked)) ||
         s->visit(s->ctx, &record);
}

static eg_status scan_all(eg_guard *guard, eg_bytes prefix, bool held,
                          eg_visit visit, void *ctx, eg_error *error) {
  egi_ledger counts;
  eg_status status = egi_counts_all(guard, prefix, &counts, error);
  if (status != EG_OK)
    return status;
  scan s = {guard, visit, ctx, &counts, held};
  status = guard->ops->scan(guard->store, prefix, visit_one, &s, error);
  egi_ledger_free(&counts, &guard->env);
  return status;
}

eg_status eg_scan(eg_guard *guard, eg_bytes prefix, eg_visit visit, void *ctx,
                  eg_error *error) {
  return scan_all(guard, prefix, false, visit, ctx, error);
}

eg_status eg_scan_held(eg_guard *guard, eg_bytes prefix, eg_visit visit,
                       void *ctx, eg_error *error) {
  return scan_all(guard, prefix, true, visit, ctx, error);
}
