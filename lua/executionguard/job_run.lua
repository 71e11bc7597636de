-- SPDX-License-Identifier: MIT
-- A run of a job: one call of its function, what that gets as ctx, how it is
-- stopped, and its end.  See the head of job.lua.

local core = require "executionguard.core"
local context = require "executionguard.context"
local failures = require "executionguard.failures"
local inside = require "executionguard.inside"
local options = require "executionguard.job_options"
local task = require "executionguard.task"

local steady, wall = core.clock.steady, core.now
local copy, text_of = options.copy, failures.text_of
local scopes = inside.scopes
local limit, is_progress = core.limit, options.is_progress

local BACKGROUND <const> = context.background()
local GRACE <const> = 0.1 -- seconds, on a coroutine
local CLOSE_GRACE <const> = 0.005 -- for <close> variables

local RUNNING <const>, SUCCEEDED <const>, FAILED <const>,
  CANCELED <const> = "running", "succeeded", "failed", "canceled"

-- --------------------------------------------------------------- events --

-- Tells the listeners of "state" or "progress"; none can do any harm.
local function emit(j, event, value)
  local listeners = j.listeners and j.listeners[event]
  if listeners then
    for _, fn in ipairs(table.move(listeners, 1, #listeners, 1, {})) do
      local ok, err = pcall(fn, j, value)
      if not ok then
        j:_log("Warn", ("a function given to On %q failed"):format(event),
               { error = text_of(err) })
      end
    end
  end
end

local function set_state(j, state)
  j.state = state
  if j.listeners then
    emit(j, "state", state)
  end
end

-- ------------------------------------------------------- what fn gets --

-- Fields: job, params; thread; parent, up (its listener there); context, if
-- somebody has asked for it; result, has_result; canceled (by Cancel), lost
-- (why its context ended by itself), timer (of the grace time); closing;
-- waiters; over.
local Run = { __name = "ExecutionGuard job context", is_run = true }
Run.__index = Run

function Run:ID()
  return self.job.id
end

-- ctx:Context() -> the context of this run: below that of Run, ends with it.
function Run:Context()
  local ctx = self.context
  if not ctx then
    ctx = context._child(self.parent or context.background())
    self.context = ctx
    if self.over or self.canceled then
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

-- ctx:SetProgress(0..1)
function Run:SetProgress(progress)
  local j = self.job
  if not is_progress(progress) then
    local near = options.progress_of(progress)
    if not near then
      error("SetProgress: " .. options.progress_wanted(progress), 2)
    end
    progress = near
  end
  if j.run == self then
    j.progress = progress
    if j.listeners then
      emit(j, "progress", progress)
    end
  end
end

-- ctx:SetResult(v): of more than one the last counts.
function Run:SetResult(result)
  self.result, self.has_result = result, true
end

-- ---------------------------------------------------------------- the end --

local function log_end(j, err, trace)
  if j.state == FAILED then
    if trace then
      j:_log("Error", "job failed: " .. text_of(err), { traceback = trace })
    else
      j:_log("Warn", "job failed: " .. text_of(err))
    end
  else
    j:_log("Debug", "job " .. j.state)
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
    return FAILED, err
  end
  return SUCCEEDED
end

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
end

-- From then on the coroutine is interrupted, if it does not wait.
local function limit_run(run, seconds)
  if not run.over then
    run.limited = true
    limit.set(run.thread, seconds, CLOSE_GRACE)
  end
end

-- Once for each run: ok and its result, or not and its error.
local function finish(run, ok, value, trace)
  if run.over then
    return
  end
  local j = run.job
  local state, err = verdict(run, ok, value)
  run.over = true
  release(run)
  if run.has_result then
    j.result = run.result
  elseif ok then
    j.result = value
  end
  j.run, j.ctx = nil, run.context
  j.err, j.trace = err, trace
  j.took = steady() - j.begun
  j.ended = j.started + j.took
  if run.context then
    context._cancel(run.context)
  end
  local waiters = run.waiters
  if waiters then
    run.waiters = nil
    inside.wake_all(waiters)
  end
  set_state(j, state)
  if j.logger or trace then
    log_end(j, err, trace)
  end
end

-- An error has ended the coroutine; called by the scheduler.
function Run:_died(err, trace)
  finish(self, false, err, trace)
end

-- The coroutine was closed, by others or by us.
function Run:__close(err)
  if not self.over then
    finish(self, false, err == nil and "the job's coroutine was closed" or err)
  end
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
  if run.over then
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
  if run.context then
    context._cancel(run.context)
  end
  if j.work then
    j.work._stop(run, finish)
  elseif not run.over then
    limit_run(run, grace)
    run.timer = task.delay(grace, expire, run)
  end
end

local function parent_ended(run, err)
  run.up = nil
  if not run.over and not run.canceled then
    run.lost = err
    begin_stop(run)
  end
end

-- -------------------------------------------------------------- running --

-- An error with its traceback; what interrupts passes the handler by.
local Caught = {}

local function caught(err)
  if err == nil then
    err = "nil"
  end
  return setmetatable({ err = err, trace = debug.traceback(text_of(err), 2) },
                      Caught)
end

-- pcall, for a coroutine that an error has ended cannot be interrupted any
-- more, and its <close> variables may want to be.
local function body(run)
  local _ <close> = run
  if run.canceled or run.parent and run.parent:_err() then
    run.closing = true
    return finish(run, false, context.Canceled)
  end
  local ok, value, err = xpcall(run.job.fn, caught, run)
  if not ok then
    if getmetatable(value) == Caught then
      finish(run, false, value.err, value.trace)
    else
      finish(run, false, context.Canceled) -- it was interrupted
    end
  elseif value == nil and err ~= nil then
    finish(run, false, err)
  else
    finish(run, true, value)
  end
end

-- Starts a run of a job that has none; everything starts afresh.
local function start(j, parent, params)
  local run = setmetatable({ job = j, params = params, thread = false,
    over = false, seq = 0, context = nil, parent = nil }, Run)
  j.run = run
  j.result, j.err, j.trace, j.ctx = nil, nil, nil, nil
  j.stuck = nil
  j.progress, j.ended, j.took = -1, nil, nil
  j.started, j.begun = wall(), steady()
  if parent and parent ~= BACKGROUND then
    run.parent = parent
    if not parent:_err() then
      run.up = parent:_listen(parent_ended, run)
    end
  end
  if j.work then
    j.work._start(run, finish)
  else
    inside.start(run, body)
    local left = parent and parent:_left()
    if left then
      limit_run(run, left + (j.grace or GRACE))
    end
  end
  set_state(j, RUNNING)
end

core.own.claim()

return { start = start, stop = begin_stop, emit = emit,
  set_state = set_state, methods = Run }
