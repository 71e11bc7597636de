-- SPDX-License-Identifier: MIT
-- A run of a job: one call of its function, what that gets as ctx, how it is
-- stopped, and its end.  See the head of job.lua.

local core = require "executionguard.core"
local context = require "executionguard.context"
local failures = require "executionguard.failures"
local inside = require "executionguard.inside"
local options = require "executionguard.job_options"
local task = require "executionguard.task"

local steady = core.clock.steady
local call = core.job.call
local copy, text_of = options.copy, failures.text_of
local scopes, enqueue = inside.scopes, inside.start
local limit = core.limit
local yield, running, SPARE = coroutine.yield, coroutine.running, inside.SPARE

local BACKGROUND <const> = context.background()
local GRACE <const> = 0.1 -- seconds, on a coroutine
local CLOSE_GRACE <const> = 0.005 -- for <close> variables

local RUNNING <const>, CANCELING <const>, SUCCEEDED <const>, FAILED <const>,
  CANCELED <const> = "running", "canceling", "succeeded", "failed", "canceled"

-- --------------------------------------------------------------- events --

-- Tells the listeners of "state" or "progress"; none can do any harm.
local function emit(j, event, value)
  local listeners = j.listeners and j.listeners[event]
  if listeners then
    for _, it in ipairs(table.move(listeners, 1, #listeners, 1, {})) do
      local ok, err = true, nil
      if not it.off then -- by one before it
        ok, err = pcall(it.fn, j, value)
      end
      if not ok then
        j:_log("Warn", ("a function given to On %q failed"):format(event),
               { error = text_of(err) })
      end
    end
  end
end

-- STATES are told one after the other, each to all, in order, also where a
-- listener, or an OnDone, has just started the next run: what comes while a
-- telling goes on waits behind it, in it.
local Telling = { __close = function(telling)
  if telling.job.telling == telling then -- it was closed half-way
    telling.job.telling = nil
  end
end }

-- The state is to be told, by tell_states; nil: by him who does it already.
local function note_state(j, state)
  local telling = j.telling
  if telling then
    telling[#telling + 1] = state
    return nil
  end
  telling = setmetatable({ job = j, thread = running(), state }, Telling)
  j.telling = telling
  return telling
end

local function tell_states(j, telling)
  local i = 1
  while telling[i] do
    emit(j, "state", telling[i])
    i = i + 1
  end
  j.telling = nil
end

local function tell_state(j, state)
  if j.listeners then
    local telling <close> = note_state(j, state)
    if telling then
      tell_states(j, telling)
    end
  end
end

local function set_state(j, state)
  j.state = state
  tell_state(j, state)
end

-- ------------------------------------------------------- what fn gets --

-- Fields that each has: job; started (epoch), begun (steady); took (seconds,
-- of one that is over; false: it goes on); plain: there is nothing to be let
-- go at its end, for it has none of these:
-- thread, once it is suspended; params; parent, up (its listener there);
-- context, if somebody has asked for it; has_result: by SetResult; canceled
-- (by Cancel), lost (why its context ended by itself), timer (of the grace
-- time), closing; limited; waiters; ticket (worker.lua).
-- And all may have: progress; result, err, trace, stuck, once it is over.
local Run = { __name = "ExecutionGuard job context" }
Run.__index = Run

function Run:ID()
  return self.job.id
end

-- ctx:Context() -> the context of this run: below that of Run, ends with it.
function Run:Context()
  local ctx = self.context
  if not ctx then
    ctx = context._child(self.parent or BACKGROUND)
    self.context, self.plain = ctx, false
    if self.took or self.canceled then
      context._cancel(ctx)
    end
  end
  return ctx
end
Run._scope = Run.Context

-- ctx:Logger() -> a logger that adds the job's id to the fields
function Run:Logger()
  local logger = self.logger
  if not logger then
    logger = options.logger_of(self.job)
    self.logger = logger
  end
  return logger
end

function Run:Labels()
  return copy(self.job.labels)
end

function Run:GetParams()
  return self.params
end

-- What the C function leaves to us: somebody listens, it is over, or wrong.
local function set_progress(run, progress)
  if getmetatable(run) ~= Run then
    error("SetProgress: called on a " .. type(run) .. ", not on the " ..
      "context of a job (write ctx:SetProgress(...), with a colon)", 3)
  elseif not options.is_progress(progress) then
    local near = options.progress_of(progress)
    if not near then
      error("SetProgress: " .. options.progress_wanted(progress), 3)
    end
    progress = near
  end
  if not run.took then
    run.progress = progress
    emit(run.job, "progress", progress)
  end
end

-- ctx:SetProgress(0..1).  Where somebody listens it is `listened`.
Run.SetProgress = core.job.setter(set_progress)
local function listened(run, progress) set_progress(run, progress) end

-- Somebody listens.
local function listen(run)
  run.plain, run.SetProgress = false, listened
end

-- ctx:SetResult(v): of more than one the last counts.
function Run:SetResult(result)
  if not self.took then
    self.result, self.has_result, self.plain = result, true, false
  end
end

-- ---------------------------------------------------------------- the end --

local function log_end(j, state, err, trace)
  if state == FAILED then
    if trace then
      j:_log("Error", "job failed: " .. text_of(err), { traceback = trace })
    else
      j:_log("Warn", "job failed: " .. text_of(err))
    end
  else
    j:_log("Debug", "job " .. state)
  end
end

-- The state that a run ends in, and its error.
local function verdict(run, ok, err)
  if run.canceled then
    if ok or err == nil or run.closing then
      err = context.Canceled
    end
    return CANCELED, err
  end
  local lost = run.lost or run.parent and run.parent:_err()
  if lost then
    return FAILED, lost
  elseif not ok then
    return FAILED, err == nil and "nil" or err
  end
  return SUCCEEDED
end

-- What it has to do with others comes to its end.
local function release(run)
  local thread = run.thread
  if thread and scopes[thread] then
    scopes[thread] = nil
  end
  if run.up then
    run.parent:_unlisten(run.up)
    run.up = nil
  end
  if run.timer and coroutine.status(run.timer) == "suspended" then
    task.cancel(run.timer)
  end
  run.timer = nil
  if run.limited then
    run.limited = nil
    limit.clear(thread)
  end
  run.params, run.thread = nil, nil
end

-- From then on the coroutine is interrupted, if it does not wait.
local function limit_run(run, seconds)
  if not run.took then
    run.limited = true
    limit.set(run.thread, seconds, CLOSE_GRACE)
  end
end

-- All others are told, once nothing of it goes on.
local function tell(run, state, trace)
  local j, waiters = run.job, run.waiters
  local telling <close> = j.listeners and note_state(j, state) or nil
  if run.context then
    context._cancel(run.context)
  end
  if waiters then
    run.waiters = nil
    inside.wake_all(waiters)
  end
  if telling then
    tell_states(j, telling)
  end
  if trace or j.logger then
    log_end(j, state, run.err, trace)
  end
end

-- Once for each run: ok and its result, or not and its error.
local function finish(run, ok, value, trace)
  if run.took then
    return
  end
  local j = run.job
  if ok and value ~= nil and not run.has_result then
    run.result = value
  end
  run.took = steady() - run.begun
  local state
  state, run.err = verdict(run, ok, value)
  run.trace = trace
  release(run)
  j.state = state
  tell(run, state, trace)
end

-- An error has ended the coroutine; called by the scheduler.
function Run:_died(err, trace)
  finish(self, false, err, trace)
end

-- ------------------------------------------------------------- stopping --

-- Its <close> variables have their time, and no more.
local function close_thread(thread)
  limit.within(CLOSE_GRACE, coroutine.close, thread)
end
Run._close = close_thread

-- The grace time is over: nothing of the function runs after this.
local function expire(run)
  run.timer = nil
  if run.took then
    return
  end
  run.closing = true
  local thread = run.thread
  if coroutine.status(thread) == "suspended" then
    close_thread(thread)
  end
  finish(run, false, run.lost)
end

-- Whoever waits in the run is woken; after the grace time it is over.
local function begin_stop(run)
  local j = run.job
  local grace = j.grace or GRACE
  run.plain = false
  if run.context then
    context._cancel(run.context)
  end
  if j.work then
    j.work._stop(run, finish)
  elseif not run.took then
    inside.thread_of(run)
    limit_run(run, grace)
    run.timer = task.delay(grace, expire, run)
  end
end

-- -> true; false: it is over, or is being cancelled.
local function cancel(run)
  if run.took or run.canceled then
    return false
  end
  run.canceled = true
  set_state(run.job, CANCELING)
  if run.lost == nil then
    begin_stop(run)
  end
  return true
end

local function parent_ended(run, err)
  run.up = nil
  if not run.took and not run.canceled then
    run.lost = err
    begin_stop(run)
  end
end

-- -------------------------------------------------------------- running --

-- The function of a run has come back, or failed, or was interrupted (nil).
local function conclude(run, ok, value, err)
  if ok == nil then
    finish(run, false, context.Canceled)
  elseif not ok then
    finish(run, false, value == nil and "nil" or value, err)
  elseif value == nil and err ~= nil then
    finish(run, false, err)
  else
    finish(run, true, value)
  end
end

local function may_begin(run)
  if run.canceled or run.parent and run.parent:_err() then
    run.closing = true
    finish(run, false, context.Canceled)
    return false
  end
  return true
end

-- Ends the run of a coroutine that is closed, by others or by us.
local CLOSER <const> = setmetatable({}, { __close = function(_, err)
  local run = scopes[running()]
  if run and not run.took then
    finish(run, false, err == nil and "the job's coroutine was closed" or err)
  end
end })

-- What a coroutine runs: one run; then, as long as nobody can know of this
-- coroutine, another and another.  Their functions are called by `call`, for a
-- coroutine that an error has ended cannot be interrupted any more, and its
-- <close> variables may want to be.
local function body(run)
  local _ <close> = CLOSER
  while run.plain or may_begin(run) do
    local ok, value, err, unseen, now = call(run.job.fn, run)
    if not (unseen and run.plain and err == nil) then
      conclude(run, ok, value, err)
      return
    end
    if value ~= nil then -- finish, for the many, written out
      run.result = value
    end
    run.took = now - run.begun
    run.job.state = SUCCEEDED
    run = nil -- luacheck: ignore 311 (it may be garbage)
    run = yield(SPARE)
  end
end

local function start_below(run, parent)
  run.parent, run.plain = parent, false
  if not parent:_err() then
    run.up = parent:_listen(parent_ended, run)
  end
end

local function limit_start(run, parent)
  local left = parent:_left()
  if left then
    inside.thread_of(run)
    limit_run(run, left + (run.job.grace or GRACE))
  end
end

-- Of a job that runs elsewhere, or that others listen to.
local function start_specially(run, parent)
  local j = run.job
  run.plain = false
  if j.listeners then
    listen(run)
  end
  if j.work and parent and parent:_err() then
    task.defer(may_begin, run) -- which it may not: nothing of it runs
  elseif j.work then
    j.work._start(run, finish)
  else
    enqueue(run)
    if parent then
      limit_start(run, parent)
    end
  end
  tell_state(j, RUNNING)
end

local start_clocks = core.job.starter(Run)

-- Starts a run of a job that has none, and returns it; everything starts
-- afresh.
local function start(j, parent, params)
  local run = { job = j, started = false, begun = false, took = false,
    plain = true }
  run.started, run.begun = start_clocks(run)
  j.run, j.state = run, RUNNING
  if parent and parent ~= BACKGROUND then
    start_below(run, parent)
  end
  if params ~= nil then
    run.params, run.plain = params, false
  end
  if not j.plain then
    start_specially(run, parent)
    return run
  end
  enqueue(run)
  if parent then
    limit_start(run, parent)
  end
  return run
end

inside.set_body(body)

core.own.claim()

return { start = start, listen = listen, cancel = cancel, emit = emit,
  methods = Run }
