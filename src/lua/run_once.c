/* SPDX-License-Identifier: MIT
** guard:RunOnce: one C call where nothing runs, else acquire, call, commit.
**
** A run lives on the C stack where it cannot yield, and in a userdata on the
** Lua stack where it can: then __close and __gc end it as "abandoned" when its
** coroutine is closed or collected.  Between acquire and commit nothing is
** called that could raise an error, but under lua_pcall.
**
** The Lua stack of a run:
**   1 guard  2 key  3 fn  4 options or nil  5 run or nil  6 message handler
**   7 what fn returned or raised  8 text  9 traceback of an error
*/
#include "lua/interrupt.h"

#include <string.h>

enum { GUARD = 1, KEY, FN, OPTIONS, RUN, HANDLER, RESULT, TEXT, TRACE };

struct eb_run {
  eb_guard *guard;
  lua_State *L;
  eg_grant grant;
  eg_bytes key;                /* kept alive by the stack or the userdata */
  const eb_settings *settings; /* own, the guard's, or of the call's frame */
  int64_t attempt;
  int errors; /* height of the stash when fn was called */
  bool open;
  bool armed;           /* frame and timer are in use */
  eg_status kept;       /* OK, or what the keeper stored at the deadline */
  eb_run *next, **link; /* in the state's list */
  eb_frame frame;
  eg_timer timer;
  eb_settings own; /* where it has to outlive the call's frame */
};

static const char run_metatable[] = "ExecutionGuard run";
static const char shield_metatable[] = "ExecutionGuard shield";

/* ------------------------------------------------------ list of runs -- */

static void link_run(lua_State *L, eb_run *run) {
  eb_state *state = eb_get_state(L);
  run->open = true;
  run->next = state->runs;
  run->link = &state->runs;
  if (run->next != NULL)
    run->next->link = &run->next;
  state->runs = run;
}

static void unlink_run(eb_run *run) {
  run->open = false;
  *run->link = run->next;
  if (run->next != NULL)
    run->next->link = run->link;
}

/* ------------------------------------------------------- ends of a run -- */

/* From now on the deadline is watched: the record ends at it, and fn too where
** the caller gave one himself. */
static void arm(lua_State *L, eb_run *run) {
  const eb_settings *settings = run->settings;
  eg_timer *timer = &run->timer;
  if (run->guard->core == NULL)
    return; /* closed by a logger */
  timer->guard = run->guard->core;
  timer->key = run->key;
  timer->grant = run->grant;
  timer->policy = &settings->policy;
  timer->grace_us = eb_us(settings->close_grace);
  run->kept = EG_OK;
  run->armed = true;
  eb_arm(L, &run->frame, timer, settings->timed && settings->interrupt);
}

static void disarm(lua_State *L, eb_run *run) {
  if (!run->armed)
    return;
  run->armed = false;
  run->kept = eg_timer_stop(&run->timer);
  eb_leave(L, &run->frame);
}

void eb_void_runs(const eb_guard *guard) {
  for (eb_run *run = guard->state->runs; run != NULL; run = run->next)
    if (run->guard == guard && run->armed)
      eg_timer_void(&run->timer);
}

static eg_status commit(eb_run *run, const eg_outcome *outcome,
                        eg_error *error) {
  eg_guard *core = run->guard->core;
  const eg_policy *policy = &run->settings->policy;
  if (run->open)
    unlink_run(run);
  if (core == NULL)
    return EG_LOST; /* the guard was closed meanwhile */
  if (run->kept != EG_OK)
    return run->kept;
  eg_status status = eg_commit(core, run->key, &run->grant, outcome, policy,
                               error);
  if (status == EG_NOMEM && outcome->status == EG_FAILED) {
    const eg_outcome bare = {.status = EG_FAILED};
    status = eg_commit(core, run->key, &run->grant, &bare, policy, error);
  }
  return status;
}

/* Calls onTimeout or onLost with the key; what it raises is only logged. */
static void notify(lua_State *L, const eb_run *run, const char *name) {
  if (run->guard->core == NULL)
    return;
  eb_push_callback(L, GUARD, OPTIONS, name);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return;
  }
  lua_pushvalue(L, KEY);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1)
                                                      : luaL_typename(L, -1);
    eb_log_warn(L, run->guard, "%s of '%s' failed: %s", name, eb_key_text(L),
                text);
    lua_pop(L, 2);
  }
}

/* Callbacks of runs that a guard further out has ended come after its own. */

static const char put_off_field[] = "ExecutionGuard put off";

static int append(lua_State *L) {
  /* 1 callback, 2 key */
  luaL_getsubtable(L, LUA_REGISTRYINDEX, put_off_field);
  lua_Integer n = (lua_Integer)lua_rawlen(L, 3);
  lua_pushvalue(L, 1);
  lua_rawseti(L, 3, n + 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, 3, n + 2);
  return 0;
}

static void put_off(lua_State *L, const eb_run *run) {
  if (run->guard->core == NULL)
    return;
  int top = lua_gettop(L);
  lua_pushcfunction(L, append);
  eb_push_callback(L, GUARD, OPTIONS, EB_ON_TIMEOUT);
  lua_pushvalue(L, KEY);
  if (lua_isnil(L, -2) || lua_pcall(L, 2, 0, 0) == LUA_OK)
    lua_settop(L, top);
  else
    eb_log_warn(L, run->guard, "onTimeout was not called: no memory");
  lua_settop(L, top);
}

static void call_put_off(lua_State *L, const eb_run *run) {
  int top = lua_gettop(L);
  if (eb_is_unwinding() ||
      lua_getfield(L, LUA_REGISTRYINDEX, put_off_field) != LUA_TTABLE) {
    lua_settop(L, top);
    return;
  }
  lua_pushnil(L);
  lua_setfield(L, LUA_REGISTRYINDEX, put_off_field);
  lua_Integer n = (lua_Integer)lua_rawlen(L, top + 1);
  for (lua_Integer i = 1; i < n; i += 2) {
    lua_rawgeti(L, top + 1, i);
    lua_rawgeti(L, top + 1, i + 1);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK)
      eb_log_warn(L, run->guard, "onTimeout of a run inside failed");
    lua_settop(L, top + 1);
  }
  lua_settop(L, top);
}

static int answer(lua_State *L, const char *reason) {
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
  eg_fetch(run->guard->core, run->key, &record, NULL);
  if (record.kind != EG_KIND_OPAQUE)
    eb_opaque_drop(L, run->guard, KEY);
  eg_record_free(&record);
}

static int end_timeout(lua_State *L, eb_run *run) {
  drop_limited_result(L, run);
  eb_log_warn(L, run->guard, "'%s' timed out after %.6gs", eb_key_text(L),
              (double)run->settings->timeout_us / 1e6);
  notify(L, run, EB_ON_TIMEOUT);
  call_put_off(L, run);
  return answer(L, "timeout");
}

static int end_lost(lua_State *L, eb_run *run) {
  eb_log_warn(L, run->guard, "'%s' was reset or lost; its outcome is refused",
              eb_key_text(L));
  notify(L, run, EB_ON_LOST);
  return answer(L, "lost");
}

/* fn failed, and its error object is at RESULT; or what it returned cannot be
** stored, and the text takes its place there. */
static int end_failed(lua_State *L, eb_run *run, bool raised, eg_bytes text,
                      eg_bytes trace) {
  const eg_outcome outcome = {
      .status = EG_FAILED, .error = text, .trace = trace};
  eg_error error;
  eg_status status = commit(run, &outcome, &error);
  if (status == EG_TIMEOUT)
    return end_timeout(L, run);
  if (status == EG_LOST)
    return end_lost(L, run);
  drop_limited_result(L, run);
  eb_log_warn(L, run->guard, "'%s' failed: %.*s", eb_key_text(L),
              (int)text.len, text.len > 0 ? (const char *)text.data : "");
  lua_pushboolean(L, 0);
  if (raised)
    lua_pushvalue(L, RESULT);
  else
    lua_pushlstring(L, text.data, text.len);
  lua_pushstring(L, status == EG_OK ? "failed" : eg_status_word(status));
  return 3;
}

static int fail_with(lua_State *L, eb_run *run, const char *why) {
  const eg_bytes none = {"", 0};
  return end_failed(L, run, false, eg_str(why), none);
}

/* ------------------------------------------------------ a run succeeded -- */

typedef struct product {
  eb_bytes bytes;
  char why[EB_WHY];
} product;

/* What is to be stored of the value at RESULT.  False: it cannot be, why says
** the reason. */
static bool prepare(lua_State *L, eb_run *run, eg_outcome *outcome,
                    product *p) {
  const eg_policy *policy = &run->settings->policy;
  outcome->status = EG_OK;
  outcome->kind = EG_KIND_NONE;
  if (!policy->cache_result || lua_isnil(L, RESULT))
    return true;
  if (run->guard->shared) {
    if (!eb_encode(L, RESULT, policy->max_result, &p->bytes, p->why))
      return false;
  } else if (!eb_encode_scalar(L, RESULT, &p->bytes)) {
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
    eb_opaque_set(L, RESULT);
  else
    eb_opaque_drop(L, run->guard, KEY);
}

static int end_ok(lua_State *L, eb_run *run) {
  product p;
  eg_outcome outcome = {.status = EG_OK};
  eg_error error;
  eb_bytes_init(&p.bytes);
  if (!prepare(L, run, &outcome, &p)) {
    eb_bytes_free(&p.bytes);
    return fail_with(L, run, p.why);
  }
  eg_status status = commit(run, &outcome, &error);
  eb_bytes_free(&p.bytes);
  switch (status) {
  case EG_OK:
    keep_value(L, run, outcome.kind);
    if (run->guard->log)
      eb_log_info(L, run->guard, "'%s' completed in %.3fs", eb_key_text(L),
                  (double)(eg_now_us() - run->grant.start_us) / 1e6);
    lua_pushboolean(L, 1);
    lua_pushvalue(L, RESULT);
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
    lua_pushvalue(L, RESULT);
    lua_pushstring(L, eg_status_word(status));
    return 3;
  }
}

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
      !eb_retry_wanted(L, GUARD, OPTIONS, RESULT, run->attempt))
    return false;
  double delay = eb_retry_delay(eb_get_state(L), &settings->retry,
                                run->attempt);
  if (run->guard->log)
    eb_log_info(L, run->guard, "Retrying '%s' in %.3gs (attempt %lld failed)",
                eb_key_text(L), delay, (long long)run->attempt);
  eg_sleep_us(eb_us(delay));
  if (!still_holds(run))
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
  eg_status ended = commit(run, &outcome, &error);
  if (ended == EG_OK || ended == EG_TIMEOUT)
    put_off(L, run);
  eb_push_sentinel(L);
  return lua_error(L);
}

static int finish(lua_State *L, eb_run *run, int status) {
  if (status == LUA_OK || status == LUA_YIELD)
    return end_ok(L, run);
  if (eb_is_unwinding() && eb_is_sentinel(L, RESULT))
    return unwind(L, run);
  return end_failed(L, run, true, eb_error_text(L, TEXT),
                    eb_error_text(L, TRACE));
}

static int continued(lua_State *L, int status, lua_KContext ctx);

/* What the error says is taken before anybody else's code runs. */
static bool failed(lua_State *L, const eb_run *run, int status) {
  if (status == LUA_OK || status == LUA_YIELD)
    return false;
  eb_take_error_texts(L, RESULT, run->errors);
  return true;
}

static int call(lua_State *L, eb_run *run) {
  int status;
  do {
    lua_settop(L, HANDLER);
    lua_pushvalue(L, FN);
    run->errors = eb_get_state(L)->errors;
    arm(L, run);
    status = lua_pcallk(L, 0, 1, HANDLER, (lua_KContext)run, continued);
    disarm(L, run);
  } while (failed(L, run, status) && try_again(L, run));
  return finish(L, run, status);
}

/* fn yielded, and has now returned or failed; the frame of RunOnce is gone,
** the run in its userdata is not. */
static int continued(lua_State *L, int status, lua_KContext ctx) {
  eb_run *run = (eb_run *)ctx;
  disarm(L, run);
  if (failed(L, run, status) && try_again(L, run))
    return call(L, run);
  return finish(L, run, status);
}

/* A run whose coroutine is gone ends as abandoned; one that has ended does
** nothing more. */
static eb_run *abandon(lua_State *L) {
  eb_run *run = luaL_testudata(L, 1, run_metatable);
  const eg_outcome outcome = {.status = EG_FAILED,
                              .error = eg_str("abandoned")};
  eg_error error;
  if (run == NULL || !run->open)
    return run;
  if (run->frame.linked) /* it is running: somebody plays with its metatable */
    eg_timer_void(&run->timer);
  else
    disarm(L, run);
  commit(run, &outcome, &error);
  return run;
}

static int run_gc(lua_State *L) {
  abandon(L);
  return 0;
}

/* The userdata may serve the guard's next run from here on, not earlier: until
** now its __close was still to come. */
static int run_close(lua_State *L) {
  if (abandon(L) == NULL)
    return 0;
  lua_pushnil(L);
  lua_setiuservalue(L, 1, 2);
  lua_getiuservalue(L, 1, 1);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, EB_UV_SPARE);
  return 0;
}

static int reserve(lua_State *L) {
  eb_reserve_parking(lua_touserdata(L, 1));
  return 0;
}

static int new_run(lua_State *L) {
  /* 1 guard */
  eb_run *run = lua_newuserdatauv(L, sizeof *run, 2);
  run->open = run->armed = run->frame.linked = false;
  luaL_setmetatable(L, run_metatable);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* Puts a run that can outlive the C frame at RUN: the guard's spare one, or
** failing that a new one.  NULL: no memory, and an error object is at RUN. */
static eb_run *push_run(lua_State *L) {
  if (lua_getiuservalue(L, GUARD, EB_UV_SPARE) == LUA_TUSERDATA) {
    lua_pushnil(L);
    lua_setiuservalue(L, GUARD, EB_UV_SPARE);
  } else {
    lua_pop(L, 1);
    lua_pushcfunction(L, new_run);
    lua_pushvalue(L, GUARD);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK)
      return NULL;
  }
  lua_pushvalue(L, KEY);
  lua_setiuservalue(L, RUN, 2);
  return lua_touserdata(L, RUN);
}

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
  link_run(L, run);
  if (run->guard->log)
    log_executing(L, run);
  lua_pushvalue(L, lua_upvalueindex(EB_UP_HANDLER));
  return call(L, run);
}

/* fn may yield: the run moves from the C frame to a userdata that is closed
** with its coroutine. */
static int start_yieldable(lua_State *L, const eb_run *granted) {
  eb_run *run = push_run(L);
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
    commit(&lost, &outcome, &error);
    return lua_error(L);
  }
  *run = *granted;
  if (run->settings != &run->guard->settings) {
    run->own = *granted->settings;
    run->own.policy.owner = NULL; /* it served its purpose at acquire */
    run->settings = &run->own;
  }
  lua_toclose(L, RUN);
  return start(L, run);
}

/* ------------------------------------------------------------- refusals -- */

static int push_result(lua_State *L) {
  const eg_reply *reply = lua_touserdata(L, 1);
  eb_decode(L, reply->value);
  return 1;
}

static int push_error(lua_State *L) {
  const eg_reply *reply = lua_touserdata(L, 1);
  lua_pushlstring(L, reply->error.data, reply->error.len);
  return 1;
}

/* What is on C's heap is pushed under protection: what C owns is freed before
** an error goes on. */
static void push_from(lua_State *L, eg_reply *reply, lua_CFunction push) {
  lua_pushcfunction(L, push);
  lua_pushlightuserdata(L, reply);
  int status = lua_pcall(L, 1, 1, 0);
  eg_reply_free(reply);
  if (status != LUA_OK)
    lua_error(L);
}

static void push_value(lua_State *L, eg_reply *reply) {
  if (reply->memory.heap == NULL)
    eb_decode(L, reply->value);
  else
    push_from(L, reply, push_result);
}

static int refuse_cached(lua_State *L, const eb_guard *guard,
                         eg_reply *reply) {
  lua_pushboolean(L, 1);
  if (reply->kind == EG_KIND_VALUE) {
    push_value(L, reply);
  } else {
    eb_opaque_get(L, guard, KEY);
    if (lua_isnil(L, -1)) /* the value was dropped under the record */
      return answer(L, "completed");
  }
  lua_pushvalue(L, lua_upvalueindex(EB_UP_CACHED));
  if (guard->log)
    eb_log_info(L, guard, "Returning cached result for '%s'", eb_key_text(L));
  return 3;
}

static void log_refused(lua_State *L, const eb_guard *guard,
                        eg_status status) {
  const char *key = eb_key_text(L);
  switch (status) {
  case EG_COMPLETED:
    eb_log_warn(L, guard, "'%s' already completed", key);
    break;
  case EG_RUNNING:
    eb_log_warn(L, guard, "'%s' is already running (blocked)", key);
    break;
  case EG_LOCKED:
    eb_log_warn(L, guard, "Failed to acquire lock for '%s'", key);
    break;
  default:
    eb_log_warn(L, guard, "'%s' is blocked: it %s", key,
                eg_status_text(status));
  }
}

static int refuse(lua_State *L, const eb_guard *guard, eg_status status,
                  eg_reply *reply) {
  if (status == EG_CACHED)
    return refuse_cached(L, guard, reply);
  if (guard->log)
    log_refused(L, guard, status);
  lua_pushboolean(L, 0);
  if (status == EG_FAILED)
    push_from(L, reply, push_error);
  else if (EG_IS_FAILURE(status))
    lua_pushstring(L, reply->failure.message);
  else
    lua_pushnil(L);
  int64_t left = reply->left_us;
  eg_reply_free(reply);
  lua_pushstring(L, eg_status_word(status));
  if (status != EG_COOLDOWN && status != EG_FAILED)
    return 3;
  if (left < 0)
    return 3;
  lua_pushnumber(L, (lua_Number)left / 1e6);
  return 4;
}

/* ------------------------------------------------------------- RunOnce -- */

int eb_run_once(lua_State *L) {
  eb_guard *guard = eb_check_guard(L, "RunOnce");
  eg_bytes key = eb_check_key(L, "RunOnce");
  eb_check_callable(L, FN, "RunOnce", "fn");
  eb_settings local;
  const eb_settings *settings = &guard->settings;
  if (!lua_isnoneornil(L, OPTIONS)) {
    local = guard->settings;
    eb_read_options(L, OPTIONS, "RunOnce", &local, NULL);
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
    return refuse(L, guard, status, &reply);
  eg_reply_free(&reply);
  lua_settop(L, OPTIONS);
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

static int shield_close(lua_State *L);

static const luaL_Reg shield_metamethods[] = {
    {"__close", shield_close},
    {"__gc", shield_close},
    {NULL, NULL},
};

static const luaL_Reg run_metamethods[] = {
    {"__close", run_close},
    {"__gc", run_gc},
    {NULL, NULL},
};

/* The upvalues are on top. */
void eb_open_run(lua_State *L) {
  int upvalues = lua_gettop(L) - EB_UPVALUES + 1;
  luaL_newmetatable(L, run_metatable);
  for (int i = 0; i < EB_UPVALUES; i++)
    lua_pushvalue(L, upvalues + i);
  eb_set_functions(L, run_metamethods);
  lua_pop(L, EB_UPVALUES + 1);
  luaL_newmetatable(L, shield_metatable);
  for (int i = 0; i < EB_UPVALUES; i++)
    lua_pushvalue(L, upvalues + i);
  eb_set_functions(L, shield_metamethods);
  lua_pop(L, EB_UPVALUES + 1);
}

/* ------------------------------------------------------ expired, shield -- */

/* expired() -> has the run that this coroutine is in passed its deadline, or
** lost its grant? */
int eb_expired(lua_State *L) {
  const eb_run *run = eb_get_state(L)->runs;
  while (run != NULL && run->L != L)
    run = run->next;
  if (run == NULL) {
    lua_pushboolean(L, 0);
    return 1;
  }
  bool over = run->guard->core == NULL ||
              eg_now_us() >= run->grant.deadline_us ||
              !eg_holds(run->guard->core, run->key, run->grant.token);
  lua_pushboolean(L, over);
  return 1;
}

static int shield_end(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  (void)ctx;
  return lua_gettop(L) - 1;
}

static int shield_close(lua_State *L) {
  eb_leave(L, lua_touserdata(L, 1));
  eb_look();
  return 0;
}

/* shield(fn, ...) -> what fn returns; no interruption comes before that. */
int eb_shield(lua_State *L) {
  eb_check_callable(L, 1, "ExecutionGuard.shield", "fn");
  bool known = eb_is_known(L);
  if (known && lua_isyieldable(L))
    eb_reserve_parking(L);
  eb_frame *frame = lua_newuserdatauv(L, sizeof *frame, 0);
  frame->linked = frame->parked = false;
  luaL_setmetatable(L, shield_metatable);
  lua_insert(L, 1);
  lua_toclose(L, 1);
  if (known)
    eb_enter(L, frame, EB_SHIELD);
  lua_callk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, shield_end);
  return shield_end(L, LUA_OK, 0);
}
