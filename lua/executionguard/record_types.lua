---@meta executionguard

-- SPDX-License-Identifier: MIT
-- The types of what a guard tells of its records, for the Lua language server
-- and for people; see types.lua.

if (...) then -- the name of a module: somebody loads this with require
  error("executionguard.record_types is for the language server; " ..
        "write require \"executionguard\"", 2)
end

--- Who holds a key.
---@class ExecutionGuard.Owner
---@field host string name of the machine
---@field pid integer number of the process
---@field text string the option `owner`
---@field mine boolean is it this very guard?
---@field here boolean is it a guard of this process?
---@field since? number seconds since the epoch

--- What is known of a key: a snapshot. Times are seconds since the epoch, and
--- absent where there is none.
---@class ExecutionGuard.Record
---@field key string
---@field status ExecutionGuard.Status
---@field executionCount integer how often it was started; of these:
---@field failed integer
---@field timedOut integer
---@field lost integer its owner died, or it was reset while it ran
---@field blocked integer calls that were refused, of every process
---@field cached integer calls that got the kept result
---@field runTime? ExecutionGuard.RunTime of all that ended; GetRecord only
---@field waitTime? ExecutionGuard.WaitTime GetRecord only
---@field token integer number of the latest grant; rises with each
---@field locked boolean held now, by a run or a lock
---@field progress? number 0 to 1, where the holder tells
---@field startTime? number when the latest run began
---@field endTime? number when it ended
---@field lastExecutionTime? number end of the last run; outlives a Reset
---@field duration? number seconds that the latest run took
---@field cooldownLeft? number seconds in which nothing new starts
---@field result? any what is kept of it
---@field error? string text of the error, then its traceback
---@field owner? ExecutionGuard.Owner where it is locked
---@field expires? number when result or error stop counting

--- What all guards of this process have done since it started.
---@class ExecutionGuard.GlobalStats
---@field totalExecutions integer functions that were started
---@field blockedExecutions integer calls that ran nothing and got no result
---@field cachedResults integer calls that got a kept result
---@field timedOutExecutions integer
---@field failedExecutions integer

--- How long runs took, in seconds: those that failed or timed out too, of
--- every process that shares the store. Percentiles are at most 1.6 per cent
--- off.
---@class ExecutionGuard.RunTime
---@field runs integer that ended
---@field total number
---@field p50 number
---@field p95 number
---@field p99 number

--- How long callers waited for a key, for a run or a lock, whatever came of
--- it, in seconds; who need not wait is not among them.
---@class ExecutionGuard.WaitTime
---@field waits integer
---@field total number
---@field p50 number
---@field p95 number
---@field p99 number

--- What is counted of one key, of every process.
---@class ExecutionGuard.KeyCounts
---@field executions integer how often it was started; of these:
---@field failed integer
---@field timedOut integer
---@field lost integer
---@field blocked integer calls that were refused
---@field cached integer calls that got the kept result
---@field runTime ExecutionGuard.RunTime
---@field waitTime ExecutionGuard.WaitTime

--- A key that a run or a lock holds now.
---@class ExecutionGuard.HeldKey
---@field key string
---@field running boolean by a run; else by a lock
---@field token integer
---@field owner ExecutionGuard.Owner
---@field progress? number 0 to 1, where the holder tells

--- What all records of a guard come to: a snapshot.
---@class ExecutionGuard.Analytics
---@field totalRecords integer
---@field held integer keys that runs and locks hold, with a record or not
---@field executions integer of all records, whichever process; of these:
---@field failed integer
---@field timedOut integer
---@field lost integer their owners died, or they were reset while they ran
---@field blocked integer calls that were refused, of every process
---@field cached integer calls that got a kept result
---@field runTime ExecutionGuard.RunTime
---@field waitTime ExecutionGuard.WaitTime
---@field keys table<string, ExecutionGuard.KeyCounts> looked up when asked for
---@field byStatus table<ExecutionGuard.Status, integer> all five, also zeroes
---@field global ExecutionGuard.GlobalStats

--- A run that ended. Times are seconds since the epoch.
---@class ExecutionGuard.Past
---@field key string
---@field status "Completed"|"Failed"|"TimedOut"
---@field token integer of its grant
---@field startTime number
---@field endTime number
---@field duration number seconds
---@field error? string text, cut to what the store keeps
---@field owner? string the option `owner` of who ran it
---@field exitStatus? integer of a command that eguard ran

--- How metrics are to be.
---@class ExecutionGuard.MetricsOptions
--- How many keys have samples of their own, those that were asked for most
--- often (executions, blocked and cached together); the rest is one, "other".
--- Default 50; 0: none.
---@field top? integer
--- OpenMetrics 1.0 to the letter, for those who ask for that; promtool does
--- not take it. Default false.
---@field openmetrics? boolean

--- Ends a trace when it is called, or closed (`local stop <close> = ...`); one
--- that is collected is thrown away. Returns true (without a sink: the text),
--- how many events were drawn, and how many older ones had no room; or nil and
--- why it could not be written.
---@alias ExecutionGuard.Trace
---| fun(): (boolean|string)?, integer|string, integer?

--- Where a trace goes when it is stopped: to a file, or to a function, called
--- once, on this Lua state; nil: stop returns it.
---@alias ExecutionGuard.TraceSink
---| string
---| fun(text: string, events: integer, dropped: integer)
---| nil
