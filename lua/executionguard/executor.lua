-- SPDX-License-Identifier: MIT
-- executionguard.executor: a job with rules: retries, time limits, pauses,
-- once; in this process, or wherever its guard's store is shared.
--
--   local executor = require "executionguard.executor"
--
--   local exec = executor.new(j, {
--     retry = { attempts = 3, delay = 2 }, timeout = 30, cooldown = 300,
--   })
--   local ok, err = exec:Start(nil, params)    -- waits for the end
--   if not ok then print(err.kind, err) end
--
-- Retries happen within one Start; the timeout is for each attempt; the
-- cooldown starts when Start ends; once allows one Start that succeeded.
--
-- WITH A GUARD each Start is a guard:RunOnce under the key: once, cooldown and
-- no overlap hold for all who share its store, and the result is kept there.

local core = require "executionguard.core"
local context = require "executionguard.context"
local failures = require "executionguard.failures"
local inside = require "executionguard.inside"
local job = require "executionguard.job"
local options = require "executionguard.executor_options"
local task = require "executionguard.task"

local steady = core.clock.steady
local trace_retry = core.trace.retry
local text_of = failures.text_of

local executor = {
  WithRetry = options.WithRetry,
  WithTimeout = options.WithTimeout,
  NoTimeout = options.NoTimeout,
  WithCooldown = options.WithCooldown,
  Once = options.Once,
  OnComplete = options.OnComplete,
  WithGuard = options.WithGuard,
}

-- ---------------------------------------------------------------- errors --

-- What Start returns: kind, message; result (Once, from a guard), left
-- (Cooldown, seconds), cause (Failed: what the job failed with).
local Failure = { __name = "ExecutionGuard executor error" }
Failure.__index = Failure

function Failure:__tostring()
  return self.message
end

-- "Execution failed: " .. err
function Failure.__concat(a, b)
  return tostring(a) .. tostring(b)
end

local function failure(kind, message, more)
  local err = more or {}
  err.kind, err.message = kind, message
  return setmetatable(err, Failure)
end

-- Up, so that who waits that long has waited long enough.
local function seconds_text(seconds)
  return ("%gs"):format(math.ceil(seconds * 1000 - 1e-6) / 1000)
end

local function in_cooldown(left)
  return failure("Cooldown", ("job is still in cooldown, %s left"):format(
    seconds_text(left)), { left = left })
end

local function only_once(result)
  return failure("Once", "job can only start once", { result = result })
end

local function canceled()
  return failure("Canceled", context.Canceled)
end

-- What the end of a run means; nil: success.
local function failure_of(run)
  local err = run.err
  if err == nil then
    return nil
  elseif run.canceled then
    return failure("Canceled", text_of(err), { cause = err })
  elseif err == context.DeadlineExceeded then
    return failure("Timeout", err, { cause = err })
  elseif err == context.Canceled then
    return failure("Canceled", err, { cause = err })
  end
  return failure("Failed", text_of(err), { cause = err })
end

-- ---------------------------------------------------------------- object --

-- Fields: job, rules (executor_options.lua); start: the Start that is going
-- on, {stop = cancel function, stopped, waiters, run = of the latest attempt,
-- asking = the coroutine that is in retry.on}; succeeded, result; cool
-- (steady: until when); retries, errors; starts.
local Executor = { __name = "ExecutionGuard executor" }
Executor.__index = Executor

local function check(exec, method)
  if getmetatable(exec) ~= Executor then
    error(("%s: called on a %s, not on an executor (write exec:%s(...), " ..
      "with a colon)"):format(method, type(exec), method), 3)
  end
end

-- What is said in place of a Start that may not be; nil: it may.
local function refusal(exec)
  if exec.start or exec.job:IsExecuting() then
    return failure("Pending", ("job %s is still pending"):format(
      exec.job:ID()))
  elseif exec.rules.guard then
    return nil
  elseif exec.rules.once and exec.succeeded then
    return only_once(exec.result)
  end
  local left = exec.cool and exec.cool - steady() or 0
  if left > 0 then
    return in_cooldown(left)
  end
end

-- ------------------------------------------------------------ one attempt --

local function attempt(exec, ctx, params)
  local j, timeout = exec.job, exec.rules.timeout
  local limited, release = ctx, nil
  if timeout then
    limited, release = context.withTimeout(ctx, timeout)
  end
  local run = j:_start(limited, params)
  exec.start.run = run
  if not run then
    return failure("Pending", ("job %s is still pending"):format(j:ID()))
  elseif exec.start.stopped then -- by a listener, as it began
    job._cancel(run)
  end
  if exec.start.report then -- of the attempt before nothing is left
    exec.start.report(nil)
  end
  local done, why = job._await(run)
  if release then
    release()
  end
  if not done then
    job._cancel(run)
    return failure("Failed", "the job does not end: " .. text_of(why))
  end
  return failure_of(run)
end

-- Does the rule, or its function, want another attempt after this one?
local function wants_more(exec, ctx, err, number)
  local retry = exec.rules.retry
  if not retry or number >= retry.attempts or err.kind == "Canceled" or
     err.kind == "Pending" or ctx:_err() then
    return false
  elseif not retry.on then
    return true
  end
  local cause = err.cause
  if cause == nil then
    cause = err
  end
  local asking = exec.start
  asking.asking = coroutine.running()
  local ok, answer = pcall(retry.on, cause, number)
  asking.asking = nil
  if not ok then
    pcall(warn, "[ExecutionGuard] retry.on of job ", exec.job:ID(),
          " failed: ", text_of(answer))
  end
  return ok and answer ~= false
end

-- Waits before the next attempt; an error: it does not come to one.
local function pause(exec, ctx, number)
  local delay = options.delay(exec.rules.retry, number)
  if delay > 0 then
    context.with(ctx, task.wait, delay)
  end
  local err = ctx:_err()
  if err == context.DeadlineExceeded then
    return failure("Timeout", err)
  elseif err then
    return failure("Canceled", err)
  end
end

local function key_of(exec)
  return exec.rules.key or exec.job:ID()
end

-- All attempts of one Start; nil: success.
local function attempts(exec, ctx, params)
  local number = 0
  exec.retries, exec.errors = 0, {}
  repeat
    number = number + 1
    if number > 1 then
      trace_retry(exec.rules.guard, key_of(exec), number)
    end
    local err = attempt(exec, ctx, params)
    if not err then
      return nil
    end
    exec.retries = exec.retries + 1
    exec.errors[number] = err
    if not wants_more(exec, ctx, err, number) then
      return err
    end
    local ended = pause(exec, ctx, number)
    if ended then
      return ended
    end
  until false
end

-- ---------------------------------------------------- with a guard's store --

-- What RunOnce said in place of running the job.
local function refused(reason, result, left)
  if reason == "running" or reason == "locked" or reason == "deadlock" then
    return failure("AlreadyRunning", "job is already running")
  elseif reason == "cached" or reason == "completed" then
    return only_once(result)
  elseif reason == "cooldown" then
    return in_cooldown(left or 0)
  elseif reason == "canceled" then
    return canceled()
  elseif reason == "failed" then
    return failure("Failed", text_of(result), { cause = result, left = left })
  end
  local why = result ~= nil and text_of(result) or nil
  return failure("Failed", ("the guard's store: %s"):format(
    why and reason .. ": " .. why or reason), { reason = reason })
end

-- What the job says of its progress goes to all who share the guard's store,
-- where that can be; -> to be closed at the end.
local function reporting(exec, guard, key)
  local start, told = exec.start, nil
  local token = guard:Token(key)
  if not token or not guard:SetProgress(key, nil, token) then
    return nil
  end
  function start.report(share)
    if share ~= told then
      told = share
      guard:SetProgress(key, share, token)
    end
  end
  local stop = exec.job:On("progress", function(_, share)
    start.report(share)
  end)
  return setmetatable({}, { __close = stop })
end

local ONE_ATTEMPT <const> = { attempts = 1 }

-- -> error or nil, and whether the job ran
local function guarded(exec, ctx, params)
  local rules, ran, err = exec.rules, false, nil
  local function work()
    ran = true
    local _ <close> = reporting(exec, rules.guard, key_of(exec))
    err = attempts(exec, ctx, params)
    if err then
      error(err, 0)
    end
    return exec.start.run.result
  end
  -- the rules are the executor's, whatever the guard does by default
  local fine, ok, result, reason, left = pcall(context.with, ctx,
    rules.guard.RunOnce, rules.guard, key_of(exec), work, {
      timeout = 0, allowRerun = not rules.once,
      cooldown = rules.cooldown or 0, retry = ONE_ATTEMPT,
    })
  if not fine and ran then -- this Start is interrupted
    error(ok, 0)
  elseif not fine then -- the guard is closed
    return failure("Failed", text_of(ok), { cause = ok }), false
  elseif not ran then
    return refused(reason, result, left), false
  elseif ok or err then
    return err, true
  end
  -- it ran and came out well, and that could not be stored
  return refused(reason, result), true
end

-- ----------------------------------------------------------- the methods --

local function complete(exec, err)
  local fn = exec.rules.onComplete
  if fn then
    local ok, wrong = pcall(fn, err, exec)
    if not ok then
      pcall(warn, "[ExecutionGuard] onComplete of job ", exec.job:ID(),
            " failed: ", text_of(wrong))
    end
  end
end

-- However Start ends, also by a coroutine.close.
local function start_scope(exec, start)
  return setmetatable({}, { __close = function()
    exec.start = nil
    start.stop()
    if start.run then
      job._cancel(start.run)
    end
    inside.wake_all(start.waiters)
  end })
end

local function run_start(exec, ctx, params)
  local start = { waiters = {} }
  ctx, start.stop = context.withCancel(ctx)
  local _ <close> = start_scope(exec, start)
  exec.start = start
  local err, ran
  if exec.rules.guard then
    err, ran = guarded(exec, ctx, params)
  else
    err, ran = attempts(exec, ctx, params), true
  end
  if start.stopped and err and err.kind ~= "Canceled" then
    err = failure("Canceled", context.Canceled, { cause = err.cause })
  end
  if ran then
    exec.starts = exec.starts + 1
    if not err then
      exec.succeeded, exec.result = true, start.run.result
    end
    if exec.rules.cooldown then
      exec.cool = steady() + exec.rules.cooldown
    end
  end
  return err, ran
end

-- exec:Start(context?, params?) -> true, or nil, err.  Runs the job by the
-- rules and waits for its end; err.kind is Once, Cooldown, Pending,
-- AlreadyRunning (nothing ran), Timeout, Canceled or Failed.  Without a
-- context it takes that of the coroutine.
function Executor:Start(ctx, params)
  check(self, "Start")
  if ctx ~= nil and not context._is(ctx) then
    error(("Start: the context must be one of executionguard.context or " ..
      "nil, not a %s; parameters are the second argument"):format(type(ctx)),
      2)
  end
  local refused_by = refusal(self)
  if refused_by then
    return nil, refused_by
  end
  local err, ran = run_start(self, ctx or context.current(), params)
  if ran then
    complete(self, err)
  end
  if err then
    return nil, err
  end
  return true
end

-- exec:Stop(wait?) -> true; false: nothing ran.  Ends the attempt that runs,
-- or the pause between two; with wait, comes back when Start has ended, or
-- nil, err when the caller's context has; nil, "deadlock": it is stopped, but
-- cannot end before the caller comes back (the job's function, its listeners,
-- retry.on).  Of a job that runs without a Start, ends that run.
function Executor:Stop(wait)
  check(self, "Stop")
  if wait ~= nil and type(wait) ~= "boolean" then
    error(("Stop: wait must be a boolean, not %s"):format(
      options.describe(wait)), 2)
  end
  local start = self.start
  if not start then
    local j = self.job
    if wait then
      return j:_stopped()
    end
    return j:Cancel()
  end
  start.stopped = true
  if start.run then
    job._cancel(start.run)
  end
  start.stop()
  if not wait or self.start ~= start then
    return true
  end
  local thread = coroutine.running()
  if start.asking == thread or job._holds(self.job, start.run) then
    return nil, "deadlock"
  end
  local scope = inside.scope_of(thread)
  local ctx = scope and scope:_scope()
  local err = ctx and ctx:_err()
  local word = not err and
               inside.park("Stop", thread, nil, ctx, start.waiters)
  if err or word == inside.ENDED then
    return nil, ctx:_err()
  elseif word == "deadlock" then
    return nil, word
  end
  return true
end

-- exec:Reset(): as if it had never started; false, and nothing: it runs.  With
-- a guard its record is reset, too; nil, err where that cannot be.
function Executor:Reset()
  check(self, "Reset")
  if self.start then
    return false
  end
  if self.rules.guard then
    local ok, wrong = pcall(self.rules.guard.Reset, self.rules.guard,
                            key_of(self))
    if not ok then
      return nil, failure("Failed", text_of(wrong), { cause = wrong })
    end
  end
  self.succeeded, self.result, self.cool = false, nil, nil
  self.retries, self.errors = 0, {}
  return true
end

-- Seconds left of the cooldown; 0: none.  That of a guard may have been begun
-- by others.
local function cooldown_of(exec)
  local left = exec.cool and exec.cool - steady() or 0
  local guard = exec.rules.cooldown and exec.rules.guard
  if guard then
    local ok, record = pcall(guard.GetRecord, guard, key_of(exec))
    if ok then
      left = record and record.cooldownLeft or 0
    end
  end
  return math.max(left, 0)
end

-- exec:Stats() -> {id, retries, cooldown, lastErrors, starts, running}:
-- attempts of the last Start that failed, seconds left of the cooldown (0:
-- none), and their errors.
function Executor:Stats()
  check(self, "Stats")
  return {
    id = self.job:ID(), retries = self.retries,
    cooldown = cooldown_of(self),
    lastErrors = table.move(self.errors, 1, #self.errors, 1, {}),
    starts = self.starts, running = self.start ~= nil,
  }
end

function Executor:Job()
  check(self, "Job")
  return self.job
end

-- executor.new(job, options...) -> an executor.  options: tables {retry=,
-- timeout=, cooldown=, once=, onComplete=, guard=, key=}, and what
-- executor.WithRetry and the like return.
function executor.new(j, ...)
  if not job._is(j) then
    error(("executor.new: a job is needed, not %s"):format(
      options.describe(j)), 2)
  end
  local exec = setmetatable({
    job = j, rules = options.read(j:ID(), ...), retries = 0, errors = {},
    starts = 0, succeeded = false,
  }, Executor)
  j:_add_executor(exec)
  return exec
end

-- -------------------------------------------------------------- schedule --

local Schedule = { __name = "ExecutionGuard schedule" }
Schedule.__index = Schedule

local SKIPS = { Cooldown = true, Pending = true, AlreadyRunning = true }

local function start_once(schedule)
  local ok, err = schedule.exec:Start(schedule.context, schedule.params)
  if ok then
    schedule.runs = schedule.runs + 1
  elseif SKIPS[err.kind] then
    schedule.skips = schedule.skips + 1
  elseif err.kind == "Once" then
    schedule:Stop() -- from now on nothing would ever run
  else
    schedule.failures = schedule.failures + 1
    schedule.lastError = err
  end
end

local function tick(schedule)
  local every, jitter = schedule.every, schedule.jitter
  local due = steady()
  repeat
    due = due + every
    local missed = math.tointeger((steady() - due) // every) or 0
    if missed > 0 then -- nothing was turned meanwhile: one Start for all
      due = due + missed * every
      schedule.skips = schedule.skips + missed
    end
    local extra = jitter > 0 and jitter * math.random() or 0
    local going = context.with(schedule.context, task.wait,
                               math.max(due + extra - steady(), 0))
    if not going then
      return
    end
    task.spawn(start_once, schedule)
  until schedule.context:_err()
end

-- executor.schedule(exec, {every=, jitter=, context=, params=}) -> a schedule.
-- A Start every so many seconds and up to jitter more, by the task scheduler,
-- the first after `every`.  What falls into a Start that is going on, into a
-- cooldown, or into a time in which the scheduler stood still (but for the
-- latest) is skipped and counted.  schedule:Stop() -> true, or false if it
-- had ended: no more Starts; the one that is going on is stopped.
-- schedule:Stats() -> {runs, skips, failures, lastError}.
function executor.schedule(exec, given)
  if getmetatable(exec) ~= Executor then
    error(("executor.schedule: an executor is needed, not %s"):format(
      options.describe(exec)), 2)
  end
  local plan = options.read_schedule(given)
  local schedule = setmetatable({
    exec = exec, every = plan.every, jitter = plan.jitter or 0,
    params = plan.params, runs = 0, skips = 0, failures = 0,
  }, Schedule)
  schedule.context, schedule.cancel =
    context.withCancel(plan.context or context.background())
  task.spawn(tick, schedule)
  return schedule
end

local function check_schedule(schedule, method)
  if getmetatable(schedule) ~= Schedule then
    error(("%s: called on %s, not on a schedule (write schedule:%s(), with " ..
      "a colon)"):format(method, options.describe(schedule), method), 3)
  end
end

function Schedule:Stop()
  check_schedule(self, "Stop")
  if self.context:_err() then
    return false
  end
  self.cancel()
  return true
end

function Schedule:Stats()
  check_schedule(self, "Stats")
  return { runs = self.runs, skips = self.skips, failures = self.failures,
           lastError = self.lastError }
end

core.own.claim()

return executor
