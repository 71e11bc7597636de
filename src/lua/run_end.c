/* SPDX-License-Identifier: MIT
** How a run ends: its outcome is stored, the callbacks are called, and the
** caller gets his answer.
*/
#include "lua/run.h"

#include <stdio.h>
#include <string.h>

int eb_answer(lua_State *L, const char *reason) {
  lua_pushboolean(L, 0);
  lua_pushnil(L);
  lua_pushstring(L, reason);
  return 3;
}

/* An earlier result that had a limit goes with a rerun that fails. */
static void drop_limited_result(lua_State *L, const eb_run *run) {
  eg_record record;
  if (!run->guard->opaque)
    return;
  eg_look(run->guard->core, run->key, &record, NULL);
  if (record.kind != EG_KIND_OPAQUE)
    eb_opaque_drop(L, run->guard, EB_AT_KEY);
  eg_record_free(&record);
}

/* By hand: the library's way to print a double is half of what it takes to end
** a run that was interrupted. */
static void write_seconds(int64_t us, char *out, size_t size) {
  int n = snprintf(out, size, "%lld.%06lld", (long long)(us / 1000000),
                   (long long)(us % 1000000));
  while (out[n - 1] == '0')
    n--;
  if (out[n - 1] == '.')
    n--;
  out[n] = '\0';
}

void eb_tell_timeout(lua_State *L, eb_run *run) {
  if (run->told || run->guard->core == NULL)
    return;
  run->told = true;
  drop_limited_result(L, run);
  char timeout[24];
  write_seconds(run->settings->timeout_us, timeout, sizeof timeout);
  eb_log_warn(L, run->guard, "'%s' timed out after %ss", eb_key_text(L),
              timeout);
  eb_notify_run(L, run, EB_ON_TIMEOUT);
}

static int end_timeout(lua_State *L, eb_run *run) {
  eb_tell_timeout(L, run);
  return eb_answer(L, "timeout");
}

static int end_lost(lua_State *L, eb_run *run) {
  eb_log_warn(L, run->guard, "'%s' was reset or lost; its outcome is refused",
              eb_key_text(L));
  eb_notify_run(L, run, EB_ON_LOST);
  return eb_answer(L, "lost");
}

/* It ran, and that is not stored; or nobody knows whether it is. */
static const char *unstored(eg_status status) {
  return eg_status_word(status == EG_INDETERMINATE ? EG_UNCOMMITTED : status);
}

int eb_end_failed(lua_State *L, eb_run *run, bool raised, eg_bytes text,
                  eg_bytes trace) {
  const eg_outcome outcome = {
      .status = EG_FAILED, .error = text, .trace = trace};
  eg_error error;
  eg_status status = eb_commit_run(run, &outcome, &error);
  if (status == EG_TIMEOUT)
    return end_timeout(L, run);
  if (status == EG_LOST)
    return end_lost(L, run);
  drop_limited_result(L, run);
  eb_log_warn(L, run->guard, "'%s' failed: %.*s", eb_key_text(L),
              (int)text.len, text.len > 0 ? (const char *)text.data : "");
  lua_pushboolean(L, 0);
  if (raised)
    lua_pushvalue(L, EB_AT_RESULT);
  else
    lua_pushlstring(L, text.data, text.len);
  if (status != EG_OK)
    eb_convert_sentinel(L); /* of a deadline that could not be stored */
  lua_pushstring(L, status == EG_OK ? "failed" : unstored(status));
  return 3;
}

static int fail_with(lua_State *L, eb_run *run, const char *why) {
  const eg_bytes none = {"", 0};
  return eb_end_failed(L, run, false, eg_str(why), none);
}

/* ------------------------------------------------------ a run succeeded -- */

typedef struct product {
  eb_bytes bytes;
  char why[EB_WHY];
} product;

/* What is to be stored of the value at EB_AT_RESULT.  False: it cannot be, why
** says the reason. */
static bool prepare(lua_State *L, eb_run *run, eg_outcome *outcome,
                    product *p) {
  const eg_policy *policy = &run->settings->policy;
  outcome->status = EG_OK;
  outcome->kind = EG_KIND_NONE;
  if (!policy->cache_result || lua_isnil(L, EB_AT_RESULT))
    return true;
  if (run->guard->shared) {
    if (!eb_encode(L, EB_AT_RESULT, policy->max_result, &p->bytes, p->why))
      return false;
  } else if (!eb_encode_scalar(L, EB_AT_RESULT, &p->bytes)) {
    outcome->kind = EG_KIND_OPAQUE;
    strcpy(p->why, "not enough memory");
    return eb_opaque_reserve(L, run->guard);
  }
  outcome->kind = EG_KIND_VALUE;
  outcome->value.data = p->bytes.data;
  outcome->value.len = p->bytes.len;
  return true;
}

/* Only a result that was kept as a Lua value has to go by hand. */
static void keep_value(lua_State *L, const eb_run *run, eg_kind kind) {
  if (!run->settings->policy.cache_result)
    return;
  if (kind == EG_KIND_OPAQUE)
    eb_opaque_set(L, EB_AT_RESULT);
  else
    eb_opaque_drop(L, run->guard, EB_AT_KEY);
}

int eb_end_ok(lua_State *L, eb_run *run) {
  product p;
  eg_outcome outcome = {.status = EG_OK};
  eg_error error;
  eb_bytes_init(&p.bytes);
  if (!prepare(L, run, &outcome, &p)) {
    eb_bytes_free(&p.bytes);
    return fail_with(L, run, p.why);
  }
  eg_status status = eb_commit_run(run, &outcome, &error);
  eb_bytes_free(&p.bytes);
  switch (status) {
  case EG_OK:
    keep_value(L, run, outcome.kind);
    if (run->guard->log)
      eb_log_info(L, run->guard, "'%s' completed in %.3fs", eb_key_text(L),
                  (double)(eg_now_us() - run->grant.start_us) / 1e6);
    lua_pushboolean(L, 1);
    lua_pushvalue(L, EB_AT_RESULT);
    return 2;
  case EG_TIMEOUT:
    return end_timeout(L, run);
  case EG_LOST:
    return end_lost(L, run);
  case EG_INVALID:
  case EG_NOMEM: /* the grant still stands */
    return fail_with(L, run, error.message);
  default:
    lua_pushboolean(L, 0);
    lua_pushvalue(L, EB_AT_RESULT);
    lua_pushstring(L, unstored(status));
    return 3;
  }
}
