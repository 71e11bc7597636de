---@meta executionguard.job

-- SPDX-License-Identifier: MIT
-- The types of contexts, jobs and executors, for the Lua language server and
-- for people.  As types.lua: nothing here runs.

-- Functions without bodies use no arguments, and classes no methods.
-- luacheck: ignore 212 241

if (...) then -- the name of a module: somebody loads this with require
  error("executionguard.job_types is for the language server; " ..
        "write require \"executionguard.job\"", 2)
end

-- -------------------------------------------------------------- contexts --

--- What says that work is to end, and why.
---@class ExecutionGuard.Context
local Context = {}

--- Has it ended?
---@return boolean
function Context:Done() end

---@return nil|"context canceled"|"context deadline exceeded"
function Context:Err() end

--- Calls fn once when it ends, at once if it has. stop() takes fn off, and
--- says whether it did.
---@param fn fun(err: string)
---@return fun(): boolean stop
function Context:OnDone(fn) end

--- Seconds since the epoch, of the nearest deadline.
---@return number?
function Context:Deadline() end

--- What withValue gave it, or those above it.
---@param key any
---@return any
function Context:Value(key) end

--- `require "executionguard.context"`.
---@class ExecutionGuard.Contexts
---@field Canceled "context canceled"
---@field DeadlineExceeded "context deadline exceeded"
local Contexts = {}
--- The one that never ends.
---@return ExecutionGuard.Context
function Contexts.background() end
---@param parent ExecutionGuard.Context
---@return ExecutionGuard.Context
---@return fun() cancel
function Contexts.withCancel(parent) end
---@param parent ExecutionGuard.Context
---@param seconds number
---@return ExecutionGuard.Context
---@return fun() cancel
function Contexts.withTimeout(parent, seconds) end
---@param parent ExecutionGuard.Context
---@param time number seconds since the epoch
---@return ExecutionGuard.Context
---@return fun() cancel
function Contexts.withDeadline(parent, time) end
---@param parent ExecutionGuard.Context
---@param key any
---@param value any
---@return ExecutionGuard.Context
function Contexts.withValue(parent, key, value) end
--- What fn returns; meanwhile ctx is the context of this coroutine, and ends
--- its waits.
---@param ctx ExecutionGuard.Context
---@param fn function
---@param ... any
---@return any ...
function Contexts.with(ctx, fn, ...) end
--- That of this coroutine: of its job, or of `with`.
---@return ExecutionGuard.Context
function Contexts.current() end

-- ------------------------------------------------------------------ jobs --

---@alias ExecutionGuard.JobState
---| "created"
---| "running"
---| "canceling"
---| "succeeded"
---| "failed"
---| "canceled"

--- Any table with these.
---@class ExecutionGuard.JobLogger
---@field Debug fun(self: any, message: string, fields: table)
---@field Info fun(self: any, message: string, fields: table)
---@field Warn fun(self: any, message: string, fields: table)
---@field Error fun(self: any, message: string, fields: table)

---@class ExecutionGuard.JobOptions
---@field labels? table<string, string>
---@field logger? ExecutionGuard.JobLogger
--- Seconds from Cancel to interruption. Default 0.1; 1 on a worker.
---@field grace? number

--- What a job's function gets.
---@class ExecutionGuard.JobContext
local JobContext = {}
---@return string
function JobContext:ID() end
---@return ExecutionGuard.Context
function JobContext:Context() end
---@return ExecutionGuard.JobLogger
function JobContext:Logger() end
---@return table<string, string>
function JobContext:Labels() end
--- Raises for anything but a number from 0 to 1.
---@param progress number
function JobContext:SetProgress(progress) end
--- Of more than one the last counts.
---@param result any
function JobContext:SetResult(result) end
--- What Run was given.
---@return any
function JobContext:GetParams() end

---@class ExecutionGuard.JobStats
---@field id string
---@field state ExecutionGuard.JobState
---@field progress number -1 until it is set
---@field startedAt? number seconds since the epoch
---@field executionTime number
---@field labels table<string, string>
---@field error? string
---@field traceback? string
---@field stuck? boolean its thread could not be stopped

---@class ExecutionGuard.Job
local Job = {}
--- Starts it in the background; false: it is running.
---@param context? ExecutionGuard.Context
---@param params? any
---@return boolean
function Job:Run(context, params) end
--- True when it is done; false when the time is over or it never ran; nil, err
--- when the caller's context has ended. Raises inside of the job.
---@param timeout? number
---@return boolean? done
---@return string? err
function Job:Wait(timeout) end
--- True only for a running job.
---@return boolean
function Job:Cancel() end
---@return ExecutionGuard.JobState
function Job:State() end
---@param state ExecutionGuard.JobState
---@return boolean
function Job:IsState(state) end
---@return boolean
function Job:IsDone() end
---@return boolean
function Job:IsExecuting() end
---@return string
function Job:ID() end
---@return table<string, string>
function Job:Labels() end
---@return any
function Job:Result() end
--- The error object itself.
---@return any
function Job:Err() end
---@return ExecutionGuard.Context
function Job:Context() end
---@return number
function Job:Progress() end
---@return number
function Job:CreatedAt() end
---@return number?
function Job:StartedAt() end
---@return number?
function Job:EndedAt() end
---@return number
function Job:ExecutionTime() end
---@return ExecutionGuard.JobStats
function Job:Stats() end
---@param event "state"|"progress"
---@param fn fun(job: ExecutionGuard.Job, value: any)
---@return fun(): boolean stop
function Job:On(event, fn) end

---@class ExecutionGuard.WorkerFunction

---@alias ExecutionGuard.JobFunction
---| fun(ctx: ExecutionGuard.JobContext): any, any
---| ExecutionGuard.WorkerFunction

--- `require "executionguard.job"`.
---@class ExecutionGuard.Jobs
---@field State table<string, ExecutionGuard.JobState>
local Jobs = {}
---@param id? string default: a UUID
---@param fn ExecutionGuard.JobFunction
---@param ... ExecutionGuard.JobOptions
---@return ExecutionGuard.Job
function Jobs.new(id, fn, ...) end
---@param fn fun(ctx: ExecutionGuard.Context): any, any
---@return ExecutionGuard.JobFunction
function Jobs.wrap(fn) end
--- Has it run on an OS thread. What: a function without upvalues, or the name
--- of a module that returns one.
---@param what string|function
---@return ExecutionGuard.WorkerFunction
function Jobs.worker(what) end
---@class ExecutionGuard.WorkerPool
---@field limit integer
---@field threads integer
---@field busy integer
---@field queued integer
---@field lost integer
--- Settings of the pool, if any; how it is.
---@param options? {threads: integer?, memory: integer?, maxResult: integer?}
---@return ExecutionGuard.WorkerPool
function Jobs.workers(options) end
---@param key string
---@param value string
---@return ExecutionGuard.JobOptions
function Jobs.WithLabel(key, value) end
---@param labels table<string, string>
---@return ExecutionGuard.JobOptions
function Jobs.WithLabels(labels) end
---@param logger ExecutionGuard.JobLogger
---@return ExecutionGuard.JobOptions
function Jobs.WithLogger(logger) end
---@param seconds number
---@return ExecutionGuard.JobOptions
function Jobs.WithGrace(seconds) end
---@param state ExecutionGuard.JobState
---@return boolean
function Jobs.isDone(state) end
---@param state ExecutionGuard.JobState
---@return boolean
function Jobs.isPending(state) end
--- Of every job that somebody refers to.
---@return ExecutionGuard.JobStats[]
function Jobs.list() end

-- ------------------------------------------------------------- executors --

---@class ExecutionGuard.ExecutorRetry
---@field attempts? integer the first counts. Default 3; 0 or less: no retries
---@field delay? number
---@field factor? number Default 1
---@field maxDelay? number
---@field jitter? number 0 to 1: the part of a delay that is up to chance
---@field on? fun(err: any, attempt: integer): boolean? false: no more

---@class ExecutionGuard.ExecutorOptions
---@field retry? ExecutionGuard.ExecutorRetry
---@field timeout? number of each attempt
---@field cooldown? number
---@field once? boolean
--- Called after every Start that ran, with its error or nil.
---@field onComplete? fun(err?: table, executor: ExecutionGuard.Executor)
---@field guard? ExecutionGuard.Guard
---@field key? string default: the job's id

---@alias ExecutionGuard.ExecutorErrorKind
---| "Once"
---| "Cooldown"
---| "Pending"
---| "Timeout"
---| "Canceled"
---| "Failed"
---| "AlreadyRunning"

--- Prints as its message.
---@class ExecutionGuard.ExecutorError
---@field kind ExecutionGuard.ExecutorErrorKind
---@field message string
---@field cause? any what the job failed with
---@field left? number seconds (Cooldown)
---@field result? any (Once, from a guard's store or the last run)

---@class ExecutionGuard.ExecutorStats
---@field id string
---@field retries integer attempts of the last Start that failed
---@field cooldown number seconds left
---@field lastErrors ExecutionGuard.ExecutorError[]
---@field starts integer
---@field running boolean

---@class ExecutionGuard.Executor
local Executor = {}
--- Runs the job by the rules and waits for the end.
---@param context? ExecutionGuard.Context
---@param params? any
---@return true?
---@return ExecutionGuard.ExecutorError?
function Executor:Start(context, params) end
--- False: nothing ran; nil, err: the caller's context ended while it waited.
---@param wait? boolean
---@return boolean?
---@return string? err
function Executor:Stop(wait) end
--- As if it had never started; false: it runs.
---@return boolean
function Executor:Reset() end
---@return ExecutionGuard.ExecutorStats
function Executor:Stats() end
---@return ExecutionGuard.Job
function Executor:Job() end

---@class ExecutionGuard.ScheduleStats
---@field runs integer
---@field skips integer
---@field failures integer
---@field lastError? ExecutionGuard.ExecutorError

---@class ExecutionGuard.Schedule
local Schedule = {}
---@return boolean
function Schedule:Stop() end
---@return ExecutionGuard.ScheduleStats
function Schedule:Stats() end

---@class ExecutionGuard.SchedulePlan
---@field every number
---@field jitter? number
---@field context? ExecutionGuard.Context
---@field params? any

--- `require "executionguard.executor"`.
---@class ExecutionGuard.Executors
local Executors = {}
---@param job ExecutionGuard.Job
---@param ... ExecutionGuard.ExecutorOptions
---@return ExecutionGuard.Executor
function Executors.new(job, ...) end
--- A Start every so many seconds; skips while it runs or cools down.
---@param executor ExecutionGuard.Executor
---@param plan ExecutionGuard.SchedulePlan
---@return ExecutionGuard.Schedule
function Executors.schedule(executor, plan) end
---@param attempts integer
---@param delay? number
---@return ExecutionGuard.ExecutorOptions
function Executors.WithRetry(attempts, delay) end
---@param seconds number
---@return ExecutionGuard.ExecutorOptions
function Executors.WithTimeout(seconds) end
---@return ExecutionGuard.ExecutorOptions
function Executors.NoTimeout() end
---@param seconds number
---@return ExecutionGuard.ExecutorOptions
function Executors.WithCooldown(seconds) end
---@return ExecutionGuard.ExecutorOptions
function Executors.Once() end
---@param fn function
---@return ExecutionGuard.ExecutorOptions
function Executors.OnComplete(fn) end
---@param guard ExecutionGuard.Guard
---@param key? string
---@return ExecutionGuard.ExecutorOptions
function Executors.WithGuard(guard, key) end

return { context = Contexts, job = Jobs, executor = Executors,
  methods = { context = Context, jobContext = JobContext, job = Job,
    executor = Executor, schedule = Schedule } }
