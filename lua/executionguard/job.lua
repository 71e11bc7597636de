-- SPDX-License-Identifier: MIT
-- executionguard.job: work with a state, progress, a result, labels, that can
-- be cancelled and waited for.
--
--   local job = require "executionguard.job"
--
--   local j = job.new("upload", function(ctx)
--     for i = 1, 100 do
--       upload_chunk(ctx:GetParams(), i)       -- may wait: task.wait
--       ctx:SetProgress(i / 100)
--     end
--     return "uploaded"                        -- or nil, err
--   end)
--   j:Run(nil, file)                           -- goes on in the background
--   if j:Wait() and j:Err() then print(j:Err()) end
--
--   created ── Run ──► running ── returned ─────────────────► succeeded
--                         │  │ ── raised, nil err, ctx ended ► failed
--                         │  └ Cancel ► canceling ── over ───► canceled
--                         └◄── Run ── from any of the three ends
--
-- A RUN is one call of the function: a coroutine of executionguard.task, or a
-- thread (executionguard.worker).  It ends once, in `finish`.  Everything that
-- belongs to it, its outcome too, is in one table, which the function gets as
-- its ctx; the job asks its latest one, so what an old run still does is
-- nothing to it.
--
-- STOPPING.  Cancel, or the end of the context that Run was given, ends the
-- context of the run: whatever waits in it returns nil, err.  If that does not
-- end it, its coroutine is closed after the grace time, and a function that
-- runs on without waiting is interrupted; it cannot catch that.

local core = require "executionguard.core"
local context = require "executionguard.context"
local failures = require "executionguard.failures"
local inside = require "executionguard.inside"
local options = require "executionguard.job_options"
local runs = require "executionguard.job_run"
local worker = require "executionguard.worker"

local steady, wall = core.clock.steady, core.now
local copy, text_of = options.copy, failures.text_of
local scopes, scope_of = inside.scopes, inside.scope_of
local turn_till, turn_run = inside.turn_till, inside.turn_run
local start_run, cancel_run = runs.start, runs.cancel
local isyieldable, running = coroutine.isyieldable, coroutine.running

local CREATED <const>, RUNNING <const>, CANCELING <const>, SUCCEEDED <const>,
  FAILED <const>, CANCELED <const> =
  "created", "running", "canceling", "succeeded", "failed", "canceled"

local job = {
  State = {
    Created = CREATED, Running = RUNNING, Canceling = CANCELING,
    Succeeded = SUCCEEDED, Failed = FAILED, Canceled = CANCELED,
  },
  WithLabel = options.WithLabel,
  WithLabels = options.WithLabels,
  WithLogger = options.WithLogger,
  WithGrace = options.WithGrace,
  worker = worker.new,
  workers = worker.pool,
}

local IS_DONE = { [SUCCEEDED] = true, [FAILED] = true, [CANCELED] = true }
local IS_STATE = { [CREATED] = true, [RUNNING] = true, [CANCELING] = true,
  [SUCCEEDED] = true, [FAILED] = true, [CANCELED] = true }

-- Fields: id, fn; state; created (epoch); run (the latest; false: none yet);
-- plain: it has neither logger, nor work, nor listeners; where there are any:
-- labels, logger, grace, work (how it runs elsewhere), listeners {state =
-- {{fn =, off =}}, progress = {}}, telling (job_run.lua), executors (->
-- number).
local Job = { __name = "ExecutionGuard job" }
Job.__index = Job

local all = setmetatable({}, { __mode = "k" }) -- job -> number, in order
local count = 0 -- of jobs and executors

-- ------------------------------------------------------------- helpers --

-- Cheaper than to ask for the metatable.
Job._is_job = Job

local function check(j, method)
  if type(j) ~= "table" or j._is_job ~= Job then
    error(("%s: called on %s, not on a job (write j:%s(...), with a colon)")
      :format(method, j == nil and "nil" or "a " .. type(j), method), 3)
  end
end

-- -------------------------------------------------------------- running --

-- j:Run(context?, params?) -> true: the function runs at the scheduler's next
-- turn; false: it is running.  After it is done it can be run again, and
-- everything starts afresh.  Raises for what is no context.
function Job:Run(parent, params)
  if type(self) ~= "table" then
    check(self, "Run")
  end
  local run = self.run
  if run == nil then
    check(self, "Run")
  elseif parent ~= nil and not context._is(parent) then
    error(("Run: the context must be one of executionguard.context or nil, " ..
      "not a %s; parameters are the second argument"):format(type(parent)), 2)
  elseif run and not run.took then
    return false
  end
  start_run(self, parent, params)
  return true
end

-- j:Cancel() -> true; false: it was not running, or is being cancelled.
function Job:Cancel()
  check(self, "Cancel")
  return self.run and cancel_run(self.run)
end

-- Is this called inside of the run?
local function is_inside(run)
  local thread = run.thread
  if not thread then
    return inside.is_starting(run)
  end
  local state = coroutine.status(thread)
  return state == "running" or state == "normal"
end

local function wait_for(run, timeout, thread, main, ctx)
  local us = timeout and timeout < math.huge and timeout * 1e6 // 1 or nil
  local err = ctx and ctx:_err()
  local word
  if err then
    return nil, err
  elseif ctx or not main and isyieldable() then
    run.waiters, run.plain = run.waiters or {}, false
    word = inside.park("Wait", thread, us, ctx, run.waiters)
  else
    word = turn_till(run, "took", "Wait", thread, us)
  end
  if run.took then
    return true
  elseif word == inside.ENDED then
    return nil, ctx:_err()
  elseif word == "deadlock" then
    return nil, word
  end
  return false
end

local function check_timeout(timeout)
  if timeout ~= nil and (type(timeout) ~= "number" or timeout < 0 or
                              timeout ~= timeout) then
    error(("Wait: the timeout must be a number of seconds, 0 or more, not %s")
      :format(options.describe(timeout)), 3)
  end
end

-- j:Wait(timeout?) -> true when it is done; false when the time is over, or it
-- was never run; nil, err when the caller's context has ended; nil, "deadlock"
-- where nothing is left that could end it.  Raises inside of the job.
function Job:Wait(timeout)
  if timeout ~= nil or type(self) ~= "table" or self.run == nil then
    check(self, "Wait")
    check_timeout(timeout)
  end
  local run = self.run
  if not run or run.took then
    return run and true or false
  end
  local thread, main = running()
  if main and timeout == nil and not scopes[thread] then
    return turn_run(run, thread) -- as below, but for the many
  elseif is_inside(run) then
    error("Wait: a job cannot wait for its own end", 2)
  end
  local scope = scope_of(thread)
  return wait_for(run, timeout, thread, main, scope and scope:_scope())
end

-- For executors, who start runs of their own, judge those, and end those: by
-- then the job may have been run again by others.

-- -> the run; nil: another goes on
function Job:_start(parent, params)
  local run = self.run
  if not run or run.took then
    return start_run(self, parent, params)
  end
end

-- Waits for the end, whatever context the caller has: that is above the run's,
-- and ends it.
function job._await(run)
  return run.took ~= false or wait_for(run, nil, running())
end

-- Would the running coroutine, by waiting, hold up the end of that run: does
-- the run's function call it, or a listener of the job?
function job._holds(j, run)
  return run and not run.took and is_inside(run) or
         j.telling ~= nil and j.telling.thread == running()
end

-- Has it been stopped, and is it over?  Waits for that; as Wait.
function Job:_stopped()
  local run = self.run
  if not run or run.took then
    return false
  end
  cancel_run(run)
  if job._holds(self, run) then
    return nil, "deadlock"
  end
  local thread, main = running()
  local scope = scope_of(thread)
  return run.took ~= false or
         wait_for(run, nil, thread, main, scope and scope:_scope())
end

job._cancel = cancel_run

-- ---------------------------------------------------------------- asking --

function Job:ID() check(self, "ID") return self.id end
function Job:State() check(self, "State") return self.state end
function Job:CreatedAt() check(self, "CreatedAt") return self.created end
function Job:Labels() check(self, "Labels") return copy(self.labels) end

-- Of the last run; nil: there was none, or it is not over.
local function outcome(j)
  local run = j.run
  return run and run.took and run or nil
end

function Job:Result()
  check(self, "Result")
  local last = outcome(self)
  return last and last.result
end

function Job:Err()
  check(self, "Err")
  local last = outcome(self)
  return last and last.err
end

function Job:Progress()
  check(self, "Progress")
  return self.run and self.run.progress or -1
end

function Job:StartedAt()
  check(self, "StartedAt")
  return self.run and self.run.started or nil
end

function Job:EndedAt()
  check(self, "EndedAt")
  local last = outcome(self)
  return last and last.started + last.took
end

function Job:IsState(state)
  check(self, "IsState")
  if not IS_STATE[state] then
    error(("IsState: there is no state %s; they are in job.State"):format(
      options.describe(state)), 2)
  end
  return self.state == state
end

function Job:IsDone()
  check(self, "IsDone")
  return IS_DONE[self.state] or false
end

function Job:IsExecuting()
  check(self, "IsExecuting")
  return self.run and not self.run.took
end

-- Before Run the background; of a run that is over one that has ended.
function Job:Context()
  check(self, "Context")
  return self.run and self.run:Context() or context.background()
end

local function execution_time(j)
  local run = j.run
  return run and (run.took or steady() - run.begun) or 0
end

function Job:ExecutionTime()
  check(self, "ExecutionTime")
  return execution_time(self)
end

-- j:Stats() -> {id, state, progress, startedAt, executionTime, labels, error,
-- traceback, stuck}, as it is now
function Job:Stats()
  check(self, "Stats")
  local last = self.run or {}
  return {
    id = self.id, state = self.state, progress = last.progress or -1,
    startedAt = last.started, executionTime = execution_time(self),
    labels = copy(self.labels),
    error = last.err ~= nil and text_of(last.err) or nil,
    traceback = last.trace, stuck = last.stuck,
  }
end

-- j:On("state" or "progress", fn) -> stop.  Calls fn(j, value) at each change,
-- in order, on this Lua state; fn must not wait.  stop() takes it off, and
-- says whether it did.
function Job:On(event, fn)
  check(self, "On")
  if event ~= "state" and event ~= "progress" then
    error(("On: the event must be 'state' or 'progress', not %s"):format(
      options.describe(event)), 2)
  elseif type(fn) ~= "function" then
    error(("On: a function is needed, not %s"):format(
      options.describe(fn)), 2)
  end
  self.listeners = self.listeners or {}
  local list = self.listeners[event] or {}
  self.listeners[event] = list
  local it = { fn = fn }
  list[#list + 1] = it
  self.plain = false
  if self.run then
    runs.listen(self.run)
  end
  return function()
    for i, listener in ipairs(list) do
      if listener == it then
        it.off = true
        table.remove(list, i)
        return true
      end
    end
    return false
  end
end

Job._emit = runs.emit

function Job:_log(level, message, fields)
  options.log(self, level, message, fields)
end

function Job:__tostring()
  return ("job %s (%s)"):format(self.id, self.state)
end

-- ------------------------------------------------------------- the module --

-- job.new(id, fn, options...) -> a job.  id nil or "": a UUID.  fn(ctx), or
-- job.worker(...).  options: tables {labels=, logger=, grace=}, and what
-- job.WithLabel and the like return.
function job.new(id, fn, ...)
  if id ~= nil and type(id) ~= "string" then
    error(("job.new: the id must be a string or nil, not %s"):format(
      options.describe(id)), 2)
  end
  local work = options.worker_of(fn)
  if not work and type(fn) ~= "function" then
    error(("job.new: a function is needed (or job.worker), not %s"):format(
      options.describe(fn)), 2)
  end
  local j = setmetatable({
    id = id ~= "" and id or core.job.uuid(), fn = fn, state = CREATED,
    created = wall(), run = false, plain = not work,
    work = work,
  }, Job)
  for i = 1, select("#", ...) do
    options.apply(j, (select(i, ...)))
  end
  count = count + 1
  all[j] = count
  return j
end

-- job.wrap(fn) -> what job.new takes, of a function that wants the context
-- alone.
function job.wrap(fn)
  if type(fn) ~= "function" then
    error(("job.wrap: a function is needed, not %s"):format(
      options.describe(fn)), 2)
  end
  return function(ctx)
    return fn(ctx:Context())
  end
end

function job.isDone(state)
  return IS_DONE[state] or false
end

function job.isPending(state)
  return state == RUNNING or state == CANCELING
end

-- Is it a job?
function job._is(value)
  return getmetatable(value) == Job
end

-- Of a table object -> number, those that there still are.
local function in_order(numbers)
  local list = {}
  for object in pairs(numbers) do
    list[#list + 1] = object
  end
  table.sort(list, function(a, b) return numbers[a] < numbers[b] end)
  return list
end

-- For executors, which go with the garbage, too.
function Job:_add_executor(exec)
  count = count + 1
  self.executors = self.executors or setmetatable({}, { __mode = "k" })
  self.executors[exec] = count
end

-- job.list() -> Stats() of every job there is in this Lua state, in the order
-- of their making; with `executors`, their statistics, where it has any.  Jobs
-- that nobody refers to go with the garbage.
function job.list()
  local list = in_order(all)
  for i, j in ipairs(list) do
    local stats = j:Stats()
    if j.executors then
      stats.executors = {}
      for _, exec in ipairs(in_order(j.executors)) do
        table.insert(stats.executors, exec:Stats())
      end
    end
    list[i] = stats
  end
  return list
end

core.own.claim()

return job
