---@meta executionguard

-- SPDX-License-Identifier: MIT
-- The types of ExecutionGuard, for the Lua language server and for people.
--
-- Nothing here runs: the server reads this file in place of the library's C
-- code.  Numbers are seconds unless something else is said.  "Raises" is for
-- mistakes of the program; whatever can happen at run time is returned.

-- Functions without bodies use no arguments, and classes no methods.
-- luacheck: ignore 212 241

if (...) then -- the name of a module: somebody loads this with require
  error("executionguard.types is for the language server; " ..
        "write require \"executionguard\"", 2)
end

--- What is known of the work behind a key.
--- - `Idle`: not started, or reset. It can run.
--- - `Running`: runs now, here or elsewhere.
--- - `Completed`: ended well; its result may be kept.
--- - `TimedOut`: took longer than its timeout. It can run again.
--- - `Failed`: raised an error, or its owner died. It can run again.
---@alias ExecutionGuard.Status
---| "Idle"
---| "Running"
---| "Completed"
---| "TimedOut"
---| "Failed"

--- Why RunOnce did not run the function, or refused its outcome.
--- - `cached`: ran before; its result is returned.
--- - `completed`: ran before; no result is kept.
--- - `running`: runs now (also after waiting for it by `join`).
--- - `locked`: locked, still after waiting `timeout`.
--- - `deadlock`: held by this very Lua state, so that waiting cannot help.
--- - `cooldown`: ended a short while ago. The seconds that are left come next.
--- - `crashed`: its last owner died, and `afterCrash` is "block".
--- - `failed`: raised an error, now or, with `errorTtl`, before.
--- - `timeout`: took longer than `timeout`; its outcome was refused.
--- - `lost`: was reset, or its lease ran out, meanwhile; outcome refused.
--- - `uncommitted`: ran, but its outcome could not be stored.
--- - `unavailable`: the store is away. The function did not run.
--- - `indeterminate`: the store may or may not have granted it. Did not run.
--- - `canceled`: the wait was given up.
---@alias ExecutionGuard.Reason
---| "cached"
---| "completed"
---| "running"
---| "locked"
---| "deadlock"
---| "cooldown"
---| "crashed"
---| "failed"
---| "timeout"
---| "lost"
---| "uncommitted"
---| "unavailable"
---| "indeterminate"
---| "canceled"

--- Why a lock was not given: see `ExecutionGuard.Reason`.
---@alias ExecutionGuard.LockReason
---| "locked"
---| "deadlock"
---| "cooldown"
---| "canceled"
---| "unavailable"
---| "indeterminate"

--- How a function that raised an error is tried again. All attempts are one
--- execution, and only the outcome of the last is stored.
---@class ExecutionGuard.Retry
--- How often it is called at most, 1 or more. Default 3.
---@field attempts? integer
--- Seconds before the second attempt. Default 0.1.
---@field delay? number
--- By how much the delay grows from one attempt to the next, 1 or more.
--- Default 2.
---@field factor? number
--- Seconds that a delay never exceeds. Default 30.
---@field maxDelay? number
--- Which part of a delay is left to chance: 0 or false none, 1 or true all of
--- it. Default true.
---@field jitter? boolean|number
--- Is this error worth another attempt? Without it every error is. An error
--- that it raises itself means no.
---@field on? fun(err: any, attempt: integer): boolean

--- Options of ExecutionGuard.new (for all calls of the guard) and of RunOnce
--- (for that call).
---@class ExecutionGuard.SharedOptions
--- Seconds: how long the function may take, and how long RunOnce waits for a
--- lock on the key. 0: no limit for the function, no waiting. math.huge: both
--- without limit. Default 30.
---@field timeout? number
--- Keep the result, and return one that is kept. Default true.
---@field cacheResult? boolean
--- Seconds that Completed counts; then it may run again. Default: for ever.
---@field resultTtl? number
--- Seconds that Failed is answered with the error, without running. Default
--- 0: a failure is tried again at once.
---@field errorTtl? number
--- Seconds after the end of a run in which nothing new starts. Default 0.
---@field cooldown? number
--- Seconds after a start in which nothing new starts. Default 0.
---@field lockAtLeast? number
--- Seconds after its end that a record is forgotten. Default: never.
---@field recordTtl? number
--- Try again when the function raises an error. Default: do not.
---@field retry? ExecutionGuard.Retry|false
--- Seconds that a grant lasts without renewal; remote stores. Default 15.
---@field lease? number
--- Seconds that a grant is renewed at most; remote stores. Default: no end.
---@field maxHold? number
--- Of work whose owner died: "rerun" runs it again, "block" waits for a Reset
--- (reason `crashed`). Default "rerun".
---@field afterCrash? "rerun"|"block"
--- When the store is away: "fail" (reason `unavailable` or `indeterminate`),
--- "run" fn without a guard, or "stale": the result last seen from here, if
--- there is one. Default "fail".
---@field whenUnavailable? "fail"|"run"|"stale"
--- End the function at a deadline that was given, to the call or to `new`
--- (the default of 30 s only marks). Default true.
---@field interrupt? boolean
--- Seconds that `<close>` variables of an interrupted function get. Default
--- 0.005.
---@field closeGrace? number
--- Text for people: who is running this. At most 120 bytes. Default: the name
--- of the process.
---@field owner? string
--- Bytes that a stored result may have; guards with a name.
--- Default 1 MiB.
---@field maxResult? integer

--- Options of one call of RunOnce.
---@class ExecutionGuard.RunOptions: ExecutionGuard.SharedOptions
--- Run also when it is Completed. Default false.
---@field allowRerun? boolean
--- Called with the key when the time is over. What it raises is logged.
---@field onTimeout? fun(key: string)
--- Called with the key when the outcome was refused because the grant was
--- lost. What it raises is logged.
---@field onLost? fun(key: string)
--- Wait for a run that is going on and return what came of it: so many
--- seconds at most, true: as long as `timeout`. Default false.
---@field join? boolean|number

--- Options of a new guard.
---@class ExecutionGuard.Options: ExecutionGuard.SharedOptions
--- Say what happens, by `print`. Default false: only warnings, by `warn`.
---@field debug? boolean
--- URL of the store: "memory" (the default), or "file:DIR" for all processes
--- of this machine, with `?sync=full`, `mode=0770`, `history=N`, `locks=.`.
---@field store? string
--- Name of the namespace, at most 200 bytes: guards with the same name, in
--- any Lua state of the process, share their records. Default: a private one.
--- A guard with a name stores results as data: nil, booleans, numbers,
--- strings, and tables of them. A private one gives the same value back, of
--- any type.
---@field name? string
--- In memory: how many ended runs of this guard to remember, for History and
--- printSummary (0 to 100000; default 0). Other stores remember theirs.
---@field history? integer
--- Gets the guard's log in place of `print` and `warn`: level "info" or
--- "warn", the message, the key. What it raises is dropped.
---@field logger? fun(level: "info"|"warn", message: string, key: string)

--- A lock that was given by guard:Lock. Ends when it is released, as a
--- `<close>` variable at the end of its block, else when it is collected.
---@class ExecutionGuard.Lock
---@field token integer fencing token: rises with every grant on the key
---@field key string
local Lock = {}

--- Is the lock still in force? False once it was released, reset, or its guard
--- closed.
---@return boolean
function Lock:Held() end

--- Ends the lock.
---@return boolean released false when it was not in force any more
function Lock:Release() end

--- A handle on the records of a namespace. All methods raise for a wrong
--- argument (naming method, argument and value), on a guard that was closed,
--- and, where nothing else is said, when the store cannot be reached.
--- Keys are strings of 1 to 512 bytes, of any bytes.
---@class ExecutionGuard.Guard
local Guard = {}

--- Runs fn unless it ran before, runs now, or must not run yet. While it runs
--- the key is locked. fn gets no arguments; its first result counts.
---
---     local ok, data = guard:RunOnce("load:" .. id, load, {timeout = 10})
---
--- Returns
--- - `true, result`: fn ran and returned
--- - `true, result, "cached"`: it ran before
--- - `false, err, "failed"`: fn raised err (the error object itself). With
---   errorTtl, of an earlier run: the text, and as a fourth value the seconds
---   that it still counts
--- - `false, nil, "cooldown", seconds`: how long it still must not run
--- - `false, message, "unavailable"` or `"indeterminate"`: the store
--- - `false, result, "uncommitted"`: fn ran, its outcome is not stored
--- - `false, nil, reason` otherwise
---@param key string
---@param fn fun(): any a function, or what can be called like one
---@param options? ExecutionGuard.RunOptions
---@return boolean success
---@return any result
---@return ExecutionGuard.Reason? reason nil when fn ran and returned
---@return number? secondsLeft with "cooldown", and "failed" from memory
function Guard:RunOnce(key, fn, options) end

--- Takes a lock on a key. It belongs to this guard, is not re-entrant, and
--- does not change what is known of the work.
---@param key string
---@param timeout? number seconds to wait for it; 0: do not. Default 30
---@return boolean acquired
---@return integer|ExecutionGuard.LockReason tokenOrReason
---@return number|string? detail seconds left with "cooldown"; else a message
---@return integer? errno of a failure, where a system call failed
function Guard:AcquireLock(key, timeout) end

--- Ends a lock of this guard; never a run, never another guard's lock.
---@param key string
---@param token? integer only the grant with this token
---@return boolean released
function Guard:ReleaseLock(key, token) end

--- Is the key held now, by a run or a lock, of whoever?
---@param key string
---@return boolean
function Guard:IsLocked(key) end

--- The fencing token under which this guard holds the key, for a run or a
--- lock, as far as is known here; nil: it does not. Hand it on to whatever can
--- refuse an older one, see `require "executionguard.fence"`.
---@param key string
---@return integer? token
function Guard:Token(key) end

--- Does this guard hold the key, for a run or a lock, as far as is known here?
--- Of a store on a server: by the last renewal, without asking it.
---@param key string
---@return boolean
function Guard:Held(key) end

--- Tells others how far the work is that this guard does under the key: they
--- see it (`GetRecord().progress`, `eguard top`, the page) until it ends.
--- For stores in files; a job under an executor's guard tells by itself.
---@param key string
---@param progress number? 0 to 1; nil: it is not known any more
---@param token integer? of the grant: then nothing is looked up
---@return boolean told false: not this guard's, or the store tells nobody
function Guard:SetProgress(key, progress, token) end

--- Takes a lock on a key, as an object.
---
---     local lock <close> = guard:Lock("match", 5)
---     if not lock then return end
---@param key string
---@param timeout? number seconds to wait for it; 0: do not. Default 30
---@return ExecutionGuard.Lock? lock
---@return ExecutionGuard.LockReason? reason
---@return number|string? detail seconds left with "cooldown"; else a message
---@return integer? errno of a failure, where a system call failed
function Guard:Lock(key, timeout) end

--- The result that is kept, else nil.
---@param key string
---@return any
function Guard:GetResult(key) end

--- Is a result kept? nil is none; false is one.
---@param key string
---@return boolean
function Guard:HasResult(key) end

--- Forgets the result; the status stays.
---@param key string
---@return boolean cleared false when there is no record
function Guard:ClearResult(key) end

--- The status; "Idle" where there is no record.
---@param key string
---@return ExecutionGuard.Status
function Guard:GetStatus(key) end

--- The record, as a table of its own; nil where there is none.
---@param key string
---@return ExecutionGuard.Record?
function Guard:GetRecord(key) end

--- All records by key, as a table of its own. Goes with `pairs`, and as it is:
--- `for key, record in guard:GetAllRecords() do`.
---@return table<string, ExecutionGuard.Record>
function Guard:GetAllRecords() end

--- What runs and locks hold now, by key, with or without a record: who, since
--- when. A table of its own, as that of GetAllRecords.
---@return table<string, ExecutionGuard.HeldKey>
function Guard:GetHeld() end

--- How many records there are, by status, and what the process has done.
---@return ExecutionGuard.Analytics
function Guard:GetAnalytics() end

--- The ended runs that the store remembers, newest first: of a key, or of all.
--- Stores in files remember the last 10000, 90 days long (`?history=N`), those
--- on Redis the last 100 of each key, on etcd the last 20, those on PostgreSQL
--- the last million, 90 days long.
---@param key? string
---@param n? integer at most so many; default 20
---@return ExecutionGuard.Past[]? runs nil: the store remembers none
---@return "unsupported"? reason
function Guard:History(key, n) end

--- The records in numbers, as text for Prometheus (`# EOF` at its end).
---@param options? ExecutionGuard.MetricsOptions
---@return string text
function Guard:Metrics(options) end

--- Back to Idle from anything: ends a run or a lock there, forgets result and
--- error. The counts stay.
---@param key string
function Guard:Reset(key) end

--- Resets every record. Of a guard with a name only with {force = true}, else
--- it raises: others use those records too.
---@param options? {force: boolean}
function Guard:ResetAll(options) end

--- Gives back what the guard holds and closes it; closing twice does nothing.
--- A guard can be a `<close>` variable.
function Guard:Close() end

--- Settings of the process; see ExecutionGuard.configure.
---@class ExecutionGuard.Configuration
--- A clock of executionguard.testing: put in force for all guards. false: the
--- system's clock again.
---@field clock? ExecutionGuard.TestClock|false
--- Number of the signal that interrupts, 1 to 64. Default SIGURG.
---@field signal? integer
--- Number of the signal that ends a wait in the kernel for a lock in files.
--- Default SIGRTMIN+5.
---@field waitSignal? integer
--- How runs are interrupted: by a signal to their thread; by a look every
--- 1000 instructions, which doubles what tight loops take; or not. Default
--- "signal".
---@field engine? "signal"|"count"|"none"
--- false: guards on servers that are opened from now on do not see to it that
--- SIGTERM first gives back what they hold. Default true.
---@field terminate? boolean
--- The event loop that runs suspended coroutines; false: none. Kept, as above.
---@field loop? table|false

---@class ExecutionGuard
--- Name and version.
---@field _VERSION string
local ExecutionGuard = {}

--- A new guard. Raises for options that do not exist (naming the nearest that
--- does) or are of the wrong type, and when the store cannot be opened.
---@param options? boolean|ExecutionGuard.Options boolean: the option `debug`
---@return ExecutionGuard.Guard
function ExecutionGuard.new(options) end

--- The time by the clock of the guards, seconds since the epoch.
---@return number
function ExecutionGuard.now() end

--- Inside a guarded function: has its run passed its deadline or lost its
--- grant, so that its outcome will be refused? False outside of one.
---@return boolean
function ExecutionGuard.expired() end

--- Calls fn with the arguments and returns what it returns. An interruption
--- waits until it has. Errors of fn pass through.
---@param fn function
---@param ... any
---@return any ...
function ExecutionGuard.shield(fn, ...) end

--- Sends the log of all guards without a logger of their own to fn; nil:
--- again to `print` and `warn`. What fn raises is dropped.
---@param fn? fun(level: "info"|"warn", message: string, key: string)
function ExecutionGuard.setLogger(fn) end

--- What all guards of this process have done since it started.
---@return ExecutionGuard.GlobalStats
function ExecutionGuard.getGlobalStats() end

--- The same as guard:Metrics, of all guards of this process that are open,
--- each namespace once, and its own counts.
---@param options? ExecutionGuard.MetricsOptions
---@return string text
function ExecutionGuard.metrics(options) end

--- Records what all guards of this process do, until the function it returns
--- is called, as Chrome trace events. nil: one is being recorded already.
---@param sink ExecutionGuard.TraceSink
---@param options? {events: integer?} the latest so many are kept (65536)
---@return ExecutionGuard.Trace? stop
---@return string? err
function ExecutionGuard.trace(sink, options) end

--- Prints a guard's records by status, the counts of the process, and the
--- slowest and the failing keys with bars and (where a history is kept)
--- sparklines of their last runs; by the global `print`. Raises for anything
--- but an open guard.
---@param guard ExecutionGuard.Guard
--- top: how many keys of a kind (10; 0: only the counts).
--- ascii: plain ASCII (true) or UTF-8 (false). Default: what the environment
--- says (LC_ALL, LC_CTYPE, LANG).
--- columns: no line is wider. Default: as the terminal is, else 80.
---@param options? {top: integer?, ascii: boolean?, columns: integer?}
function ExecutionGuard.printSummary(guard, options) end

--- Settings of the process; what is not named stays. All options are taken, or
--- none. Raises for options that do not exist or are of the wrong type.
---@param options ExecutionGuard.Configuration
function ExecutionGuard.configure(options) end

--- The scheduler, `require "executionguard.task"`: see the head of that file
--- for what is resumed when. A task is a coroutine that it resumes, named by
--- its thread. What tasks raise goes to the handler of onError, else to warn.
---@class ExecutionGuard.Task
local Task = {}

--- Runs it now, with the arguments, until it yields, ends or fails. Resumes a
--- thread that waits early. Raises for a thread that is not suspended.
---@param fn function|thread
---@param ... any
---@return thread
function Task.spawn(fn, ...) end

--- Runs it in the next turn. Raises for a thread that is dead, or was given to
--- defer or delay already.
---@param fn function|thread
---@param ... any
---@return thread
function Task.defer(fn, ...) end

--- Runs it in so many seconds. Raises as defer, and for what is no time.
---@param seconds number 0 or more
---@param fn function|thread
---@param ... any
---@return thread
function Task.delay(seconds, fn, ...) end

--- In a coroutine: yields until the time is over. Outside: runs the tasks
--- meanwhile. In a task that cannot yield (inside of table.sort, say): raises.
---@param seconds? number 0 or more. Default 0: until the next turn
---@return number seconds that passed
function Task.wait(seconds) end

--- Ends a suspended thread and closes its `<close>` variables. Nothing for one
--- that is dead. Raises for the caller, and for those that wait for it.
---@param thread thread
function Task.cancel(thread) end

--- Spawns fn, if given, and runs the tasks until none is ready and no timer
--- left. Raises inside of a task.
---@param fn? function|thread
---@param ... any
function Task.run(fn, ...) end

--- One turn, for loops of others; before it, sleeps until somebody is due, at
--- most maxWait seconds. Raises inside of a task.
---@param maxWait? number Default 0
---@return number? seconds until there is more to do; nil: nothing is planned
function Task.step(maxWait) end

--- The thread of the task that this is called in; nil outside of tasks.
---@return thread?
function Task.current() end

--- Sends what tasks raise to fn, in place of warn; nil: to warn again. fn must
--- not wait.
---@param fn? fun(err: any, traceback: string, thread: thread)
---@return function? previous
function Task.onError(fn) end

--- A clock that is moved by hand, of `require "executionguard.testing"`:
--- `local clock <close> = testing.clock()`. Its methods raise when it is not
--- in force.
---@class ExecutionGuard.TestClock
local TestClock = {}

--- Moves the clock forward; waits that end by then return.
---@param seconds number 0 to 1e10
function TestClock:advance(seconds) end

--- Sets the time of day alone; no timeout comes nearer by it.
---@param epochSeconds number 0 to 1e10
function TestClock:setWall(epochSeconds) end

--- Seconds since the epoch, as ExecutionGuard.now.
---@return number
function TestClock:now() end

--- Seconds since some start; what deadlines are counted by.
---@return number
function TestClock:steady() end

--- Puts the system's clock back. Does nothing when the clock is not in force.
function TestClock:restore() end

return ExecutionGuard
