/* SPDX-License-Identifier: MIT
** guard:RunOnce: one C call where nothing runs, else acquire, call, commit.
**
** Between acquire and commit nothing is called that could raise an error, but
** under lua_pcall.
*/
#include "lua/run.h"

#include "executionguard_view.h"

/* --------------------------------------------------------------- retry -- */

static void set_deadline(eb_run *run, int64_t now_us) {
  int64_t timeout = run->settings->timeout_us;
  bool limited = timeout > 0 && timeout < EG_FOREVER - now_us;
  run->grant.deadline_us = limited ? now_us + timeout : EG_FOREVER;
}

static bool still_holds(const eb_run *run) {
  return run->guard->core != NULL && eb_run_holds(run);
}

/* fn failed: is it to be tried again?  Then after so many seconds. */
static bool wants_again(lua_State *L, const eb_run *run, double *delay) {
  const eb_settings *settings = run->settings;
  if (run->attempt >= settings->retry.attempts || run->kept != EG_OK ||
      eb_is_unwinding() || eg_now_us() >= run->grant.deadline_us ||
      !still_holds(run) ||
      !eb_retry_wanted(L, EB_AT_GUARD, EB_AT_OPTIONS, EB_AT_RESULT,
                       run->attempt))
    return false;
  *delay = eb_retry_delay(eb_get_state(L), &settings->retry, run->attempt);
  if (run->guard->log)
    eb_log_info(L, run->guard, "Retrying '%s' in %.3gs (attempt %lld failed)",
                eb_key_text(L), *delay, (long long)run->attempt);
  return true;
}

/* The delay is over.  The grant is looked at again: much may have happened. */
static bool begins_again(eb_run *run) {
  if (eb_is_unwinding() || !still_holds(run))
    return false;
  run->attempt++;
  eg_trace_retry(run->guard->core, run->key, (uint64_t)run->attempt);
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
    eb_put_off(L, run, EB_ON_TIMEOUT);
  else if (ended == EG_LOST)
    eb_put_off(L, run, EB_ON_LOST);
  eb_push_sentinel(L);
  return lua_error(L);
}

static int end(lua_State *L, eb_run *run, int status) {
  if (status == LUA_OK || status == LUA_YIELD)
    return eb_end_ok(L, run);
  return eb_end_failed(L, run, true, eb_error_text(L, EB_AT_TEXT),
                       eb_error_text(L, EB_AT_TRACE));
}

static int finish(lua_State *L, eb_run *run, int status) {
  if (status != LUA_OK && status != LUA_YIELD && eb_is_unwinding() &&
      (eb_was_raised() || eb_is_sentinel(L, EB_AT_RESULT)))
    return unwind(L, run); /* also where a __close made another error of it */
  eb_state *state = run->state;
  int results = end(L, run, status);
  if (state->put_off)
    eb_call_put_off(L, state);
  return results;
}

/* The delay before another attempt ended otherwise: with the grant lost, or by
** an error, which stands above the first one's texts. */
static int give_up(lua_State *L, eb_run *run, int slept) {
  if (slept != LUA_OK && eb_is_unwinding() && eb_is_sentinel(L, lua_gettop(L)))
    lua_copy(L, lua_gettop(L), EB_AT_RESULT);
  lua_settop(L, EB_AT_TRACE);
  return finish(L, run, LUA_ERRRUN);
}

static int continued(lua_State *L, int status, lua_KContext ctx);

/* What the error says is taken before anybody else's code runs. */
static bool failed(lua_State *L, const eb_run *run, int status) {
  if (status == LUA_OK || status == LUA_YIELD)
    return false;
  eb_take_error_texts(L, EB_AT_RESULT, run->errors);
  return true;
}

static int call_fn(lua_State *L, eb_run *run) {
  lua_settop(L, EB_AT_HANDLER);
  lua_pushvalue(L, EB_AT_FN);
  run->errors = eb_get_state(L)->errors;
  eb_arm_run(L, run);
  int status = lua_pcallk(L, 0, 1, EB_AT_HANDLER, (lua_KContext)run,
                          continued);
  eb_disarm_run(L, run);
  return status;
}

static int paused(lua_State *L, int status, lua_KContext ctx);

/* Lets the time until the next attempt pass; where coroutines run, they do so
** meanwhile.  LUA_OK, and on top whether the caller's context has ended, or
** that of an error, which is left on the stack. */
static int pause(lua_State *L, eb_run *run, double delay) {
  lua_settop(L, EB_AT_TRACE);
  if (!eb_push_pause(L, eb_get_state(L))) {
    eb_sleep(eb_us(delay));
    lua_pushboolean(L, 0);
    return LUA_OK;
  }
  lua_pushnumber(L, delay);
  return lua_pcallk(L, 1, 1, 0, (lua_KContext)run, paused);
}

/* fn has returned, or failed with that status: ends the run, or calls it
** again, as often as it takes. */
static int go_on(lua_State *L, eb_run *run, int status) {
  double delay;
  while (failed(L, run, status) && wants_again(L, run, &delay)) {
    int slept = pause(L, run, delay);
    if (slept != LUA_OK || lua_toboolean(L, -1) || !begins_again(run))
      return give_up(L, run, slept);
    status = call_fn(L, run);
  }
  return finish(L, run, status);
}

/* fn yielded, and has now returned or failed; the frame of RunOnce is gone,
** the run in its userdata is not. */
static int continued(lua_State *L, int status, lua_KContext ctx) {
  eb_run *run = (eb_run *)ctx;
  eb_disarm_run(L, run);
  return go_on(L, run, status);
}

/* The same for the delay. */
static int paused(lua_State *L, int status, lua_KContext ctx) {
  eb_run *run = (eb_run *)ctx;
  int slept = status == LUA_YIELD ? LUA_OK : status;
  if (slept != LUA_OK || lua_toboolean(L, -1) || !begins_again(run))
    return give_up(L, run, slept);
  return go_on(L, run, call_fn(L, run));
}

/* ------------------------------------------------------------ starting -- */

static void log_executing(lua_State *L, const eb_run *run) {
  eg_record record;
  if (run->guard->core == NULL)
    return;
  eg_look(run->guard->core, run->key, &record, NULL);
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
  return go_on(L, run, call_fn(L, run));
}

/* The error on top kept fn from being called. */
static int not_started(lua_State *L, const eb_run *granted) {
  eb_run lost = *granted;
  const eg_outcome outcome = {.status = EG_FAILED,
                              .error = eg_str("not enough memory")};
  eg_error error;
  eb_commit_run(&lost, &outcome, &error);
  return lua_error(L);
}

/* fn may yield: the run moves from the C frame to a userdata that is closed
** with its coroutine. */
static int start_yieldable(lua_State *L, const eb_run *granted) {
  eb_run *run = eb_push_run(L);
  if (run == NULL || !eb_watch_late(L))
    return not_started(L, granted);
  *run = *granted;
  run->yields = true;
  if (run->settings != &run->guard->settings) {
    run->own = *granted->settings;
    run->own.policy.owner = NULL; /* it served its purpose at acquire */
    run->settings = &run->own;
  }
  lua_toclose(L, EB_AT_RUN);
  return start(L, run);
}

enum { AT_GRANTED = EB_AT_RUN };

static int start_inside(lua_State *L) {
  eb_run *granted = lua_touserdata(L, AT_GRANTED);
  granted->attempt = 1;
  lua_settop(L, EB_AT_OPTIONS);
  return start_yieldable(L, granted);
}

/* fn may yield to somebody who does not tell us. */
static int start_private(lua_State *L, eb_run *granted) {
  granted->attempt = 0; /* nobody has begun with it */
  lua_pushlightuserdata(L, granted);
  lua_State *co = eb_make_private(L, start_inside);
  int n = co != NULL ? eb_resume(L, co, AT_GRANTED, L) : -1;
  if (granted->attempt == 0)
    return not_started(L, granted);
  return eb_pass_on(L, co, n);
}

/* ------------------------------------------------------------- RunOnce -- */

static int granted(lua_State *L, eb_guard *guard, const eb_settings *settings,
                   const eg_grant *grant) {
  eb_run run;
  lua_settop(L, EB_AT_OPTIONS);
  run.guard = guard;
  run.state = guard->state;
  run.grant = *grant;
  run.key.data = lua_tolstring(L, EB_AT_KEY, &run.key.len);
  run.settings = settings;
  run.open = run.armed = run.frame.linked = run.frame.parked = false;
  run.told = run.is_late = run.asks = run.yields = false;
  run.kept = EG_OK;
  if (lua_isyieldable(L))
    return eb_is_known(L) ? start_yieldable(L, &run) : start_private(L, &run);
  lua_pushnil(L); /* no run on the Lua stack */
  return start(L, &run);
}

/* The store is away, and the caller does not want that to be the answer. */
static int make_do(lua_State *L, eb_guard *guard, const eb_settings *settings,
                   eg_status status, eg_reply *reply) {
  eg_grant grant;
  eg_reply last;
  eg_reply_init(&last);
  if (settings->away == EB_STALE) {
    eg_bytes key;
    key.data = lua_tolstring(L, EB_AT_KEY, &key.len);
    if (eg_recall(guard->core, key, &last) != EG_CACHED) {
      eg_reply_free(&last);
      return eb_refuse(L, guard, status, reply);
    }
    eg_reply_free(reply);
    eb_log_warn(L, guard, "'%s': the store is away; an earlier result is used",
                eb_key_text(L));
    return eb_refuse(L, guard, EG_CACHED, &last);
  }
  eg_reply_free(reply);
  eb_log_warn(L, guard, "'%s' runs without a guard: the store is away",
              eb_key_text(L));
  eg_begin_unguarded(guard->core, &grant);
  return granted(L, guard, settings, &grant);
}

static int refuse(lua_State *L, eb_guard *guard, const eb_settings *settings,
                  eg_status status, eg_reply *reply) {
  bool away = status == EG_UNAVAILABLE || status == EG_INDETERMINATE;
  return away && settings->away != EB_FAIL && guard->core != NULL
             ? make_do(L, guard, settings, status, reply)
             : eb_refuse(L, guard, status, reply);
}

/* What was waited for has come, or not. */
static int waited(lua_State *L, eb_wait_end *end) {
  if (end->status != EG_OK)
    return refuse(L, end->guard, &end->settings, end->status, &end->reply);
  eg_reply_free(&end->reply);
  return granted(L, end->guard, &end->settings, &end->grant);
}

static int wait(lua_State *L, eb_guard *guard, const eb_settings *settings,
                eg_pending *pending, eg_reply *reply) {
  eb_wait_end end = {.then = waited, .guard = guard, .method = "RunOnce"};
  eg_reply_free(reply);
  end.settings = *settings;
  return eb_wait(L, pending, &end);
}

/* What is not settled by a look at the record. */
static int ask(lua_State *L, eb_guard *guard, const eb_settings *settings,
               const eg_request *request, eg_reply *reply) {
  eg_grant grant;
  eg_pending *pending;
  eg_status status = eb_ask(L, guard, request, &pending, &grant, reply);
  if (pending != NULL)
    return wait(L, guard, settings, pending, reply);
  if (status != EG_OK)
    return refuse(L, guard, settings, status, reply);
  eg_reply_free(reply);
  return granted(L, guard, settings, &grant);
}

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
  eg_request request = {.guard = eb_core(L, guard, "RunOnce"),
                        .key = key,
                        .want = EG_WANT_RUN,
                        .policy = &settings->policy,
                        .wait_ms = settings->wait_ms};
  eg_reply reply;
  eg_reply_init(&reply);
  eg_status status = eg_settled(&request, &reply);
  return status == EG_OK ? ask(L, guard, settings, &request, &reply)
                         : eb_refuse(L, guard, status, &reply);
}
