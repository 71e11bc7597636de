/* SPDX-License-Identifier: MIT
** guard:RunOnce: one C call where nothing runs, else acquire, call, commit.
**
** Between acquire and commit nothing is called that could raise an error, but
** under lua_pcall.
*/
#include "lua/run.h"

/* --------------------------------------------------------------- retry -- */

static void set_deadline(eb_run *run, int64_t now_us) {
  int64_t timeout = run->settings->timeout_us;
  bool limited = timeout > 0 && timeout < EG_FOREVER - now_us;
  run->grant.deadline_us = limited ? now_us + timeout : EG_FOREVER;
}

static bool still_holds(const eb_run *run) {
  return run->guard->core != NULL &&
         eg_holds(run->guard->core, run->key, run->grant.token);
}

/* fn failed: is it to be tried again?  Then the delay is over on return.  The
** grant is looked at again after it: much may have happened. */
static bool try_again(lua_State *L, eb_run *run) {
  const eb_settings *settings = run->settings;
  if (run->attempt >= settings->retry.attempts || run->kept != EG_OK ||
      eb_is_unwinding() || eg_now_us() >= run->grant.deadline_us ||
      !still_holds(run) ||
      !eb_retry_wanted(L, EB_AT_GUARD, EB_AT_OPTIONS, EB_AT_RESULT,
                       run->attempt))
    return false;
  double delay = eb_retry_delay(eb_get_state(L), &settings->retry,
                                run->attempt);
  if (run->guard->log)
    eb_log_info(L, run->guard, "Retrying '%s' in %.3gs (attempt %lld failed)",
                eb_key_text(L), delay, (long long)run->attempt);
  eb_sleep(eb_us(delay));
  if (eb_is_unwinding() || !still_holds(run))
    return false;
  run->attempt++;
  set_deadline(run, eg_now_us());
  return true;
}

/* ------------------------------------------------------------- calling -- */

/* fn was ended because the time of a guard further out is over: this run has
** timed out as well, and the error goes on. */
static int unwind(lua_State *L, eb_run *run) {
  const eg_outcome outcome = {.status = EG_TIMEOUT,
                              .error = eg_str("timed out")};
  eg_error error;
  eg_status ended = eb_commit_run(run, &outcome, &error);
  if (ended == EG_OK || ended == EG_TIMEOUT)
    eb_put_off(L, run);
  eb_push_sentinel(L);
  return lua_error(L);
}

static int finish(lua_State *L, eb_run *run, int status) {
  if (status == LUA_OK || status == LUA_YIELD)
    return eb_end_ok(L, run);
  if (eb_is_unwinding() && eb_is_sentinel(L, EB_AT_RESULT))
    return unwind(L, run);
  return eb_end_failed(L, run, true, eb_error_text(L, EB_AT_TEXT),
                       eb_error_text(L, EB_AT_TRACE));
}

static int continued(lua_State *L, int status, lua_KContext ctx);

/* What the error says is taken before anybody else's code runs. */
static bool failed(lua_State *L, const eb_run *run, int status) {
  if (status == LUA_OK || status == LUA_YIELD)
    return false;
  eb_take_error_texts(L, EB_AT_RESULT, run->errors);
  return true;
}

static int call(lua_State *L, eb_run *run) {
  int status;
  do {
    lua_settop(L, EB_AT_HANDLER);
    lua_pushvalue(L, EB_AT_FN);
    run->errors = eb_get_state(L)->errors;
    eb_arm_run(L, run);
    status = lua_pcallk(L, 0, 1, EB_AT_HANDLER, (lua_KContext)run, continued);
    eb_disarm_run(L, run);
  } while (failed(L, run, status) && try_again(L, run));
  return finish(L, run, status);
}

/* fn yielded, and has now returned or failed; the frame of RunOnce is gone,
** the run in its userdata is not. */
static int continued(lua_State *L, int status, lua_KContext ctx) {
  eb_run *run = (eb_run *)ctx;
  eb_disarm_run(L, run);
  if (failed(L, run, status) && try_again(L, run))
    return call(L, run);
  return finish(L, run, status);
}

/* ------------------------------------------------------------ starting -- */

static void log_executing(lua_State *L, const eb_run *run) {
  eg_record record;
  if (run->guard->core == NULL)
    return;
  eg_fetch(run->guard->core, run->key, &record, NULL);
  if (record.count > 1 && run->settings->policy.allow_rerun)
    eb_log_info(L, run->guard, "Re-running '%s' (allowRerun=true)",
                eb_key_text(L));
  eb_log_info(L, run->guard, "Executing '%s' (attempt #%u)", eb_key_text(L),
              (unsigned)record.count);
  eg_record_free(&record);
}

static int start(lua_State *L, eb_run *run) {
  run->L = L;
  run->attempt = 1;
  set_deadline(run, run->grant.start_us);
  eb_link_run(L, run);
  if (run->guard->log)
    log_executing(L, run);
  lua_pushvalue(L, lua_upvalueindex(EB_UP_HANDLER));
  return call(L, run);
}

static int reserve(lua_State *L) {
  eb_reserve_parking(lua_touserdata(L, 1));
  return 0;
}

/* fn may yield: the run moves from the C frame to a userdata that is closed
** with its coroutine. */
static int start_yieldable(lua_State *L, const eb_run *granted) {
  eb_run *run = eb_push_run(L);
  if (run != NULL && eb_is_known(L)) {
    lua_pushcfunction(L, reserve);
    lua_pushlightuserdata(L, L);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
      run->open = false;
      run = NULL;
    }
  }
  if (run == NULL) {
    eb_run lost = *granted;
    const eg_outcome outcome = {.status = EG_FAILED,
                                .error = eg_str("not enough memory")};
    eg_error error;
    eb_commit_run(&lost, &outcome, &error);
    return lua_error(L);
  }
  *run = *granted;
  if (run->settings != &run->guard->settings) {
    run->own = *granted->settings;
    run->own.policy.owner = NULL; /* it served its purpose at acquire */
    run->settings = &run->own;
  }
  lua_toclose(L, EB_AT_RUN);
  return start(L, run);
}

/* ------------------------------------------------------------- RunOnce -- */

int eb_run_once(lua_State *L) {
  eb_guard *guard = eb_check_guard(L, "RunOnce");
  eg_bytes key = eb_check_key(L, "RunOnce");
  eb_check_callable(L, EB_AT_FN, "RunOnce", "fn");
  eb_settings local;
  const eb_settings *settings = &guard->settings;
  if (!lua_isnoneornil(L, EB_AT_OPTIONS)) {
    local = guard->settings;
    eb_read_options(L, EB_AT_OPTIONS, "RunOnce", &local, NULL);
    if (!guard->shared)
      local.policy.max_result = SIZE_MAX;
    settings = &local;
  }
  eb_run run;
  eg_reply reply;
  eg_reply_init(&reply);
  eg_status status = eg_acquire(eb_core(L, guard, "RunOnce"), key, EG_WANT_RUN,
                                &settings->policy, settings->wait_ms,
                                &run.grant, &reply);
  if (status != EG_OK)
    return eb_refuse(L, guard, status, &reply);
  eg_reply_free(&reply);
  lua_settop(L, EB_AT_OPTIONS);
  run.guard = guard;
  run.key = key;
  run.settings = settings;
  run.open = run.armed = run.frame.linked = false;
  run.kept = EG_OK;
  if (lua_isyieldable(L))
    return start_yieldable(L, &run);
  lua_pushnil(L); /* no run on the Lua stack */
  return start(L, &run);
}
