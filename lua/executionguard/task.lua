-- SPDX-License-Identifier: MIT
-- executionguard.task: a scheduler of coroutines, with the words of Luau's
-- task library.
--
--   local task = require "executionguard.task"
--
--   task.spawn(function()
--     for i = 3, 1, -1 do
--       print(i)
--       task.wait(1)
--     end
--   end)
--   task.delay(1.5, print, "meanwhile")
--   task.run()                          -- until nobody has anything to do
--
-- A TASK is a coroutine that the scheduler resumes; its thread (as
-- coroutine.create returns) is its name.  Nothing runs by itself: tasks are
-- resumed while somebody outside of them calls task.run, task.wait or
-- task.step; that is called turning the scheduler.  It sleeps until the next
-- timer; time is that of the guards (executionguard.testing moves it).
--
-- A TURN resumes everybody who is due at its start, once: first those whose
-- time has come, by time; then those who are ready (defer, wait and delay for
-- 0 s).  Equal ones come in the order in which they asked.  What they ask for
-- meanwhile belongs to the next turn, so nobody keeps others from their turn.
--
-- WAITING.  task.wait yields, in any coroutine that can: also in one made by
-- coroutine.create or wrap.  The scheduler resumes that one, and whoever
-- resumed it before gets control back without values, as in Luau.  Outside of
-- coroutines, and in a coroutine of others that cannot yield, it turns the
-- scheduler.  In a task that cannot yield (inside of table.sort, require,
-- gsub, a callback of a guard) it raises.
--
-- WHO COMES FIRST.  A waiting thread that somebody else resumes (task.spawn,
-- coroutine.resume) goes on: its wait ends early, and returns the time that
-- passed.  A thread that was given to defer or delay cannot be given to them
-- again; task.spawn resumes it at once, and then they do not any more.  So
-- "an event or 5 s" is
--     task.delay(5, thread, "too late")
--     on_event(function(value) task.spawn(thread, value) end)
--     return coroutine.yield()
--
-- coroutine.yield in a task: the scheduler does not know what for.  It is
-- suspended until somebody resumes it (task.spawn(thread), say); task.run does
-- not wait for it, and if nobody refers to it any more, it is garbage.
--
-- INTERRUPTION.  A guard around whoever turns the scheduler may end that at
-- its deadline: then the task that runs at that moment is ended, all others
-- stand in their queues as before, and whoever turns the scheduler next goes
-- on with them.  No function of this file or of timers is left half-way; the
-- loops ask by `checkpoint`.
--
-- ERRORS of a task go to the handler of task.onError, else to warn, with a
-- traceback; its <close> variables are closed.  Nobody else is disturbed.

local core = require "executionguard.core"
local inside = require "executionguard.inside"
local scheduler = require "executionguard.scheduler"
local failures = require "executionguard.failures"
local arguments = require "executionguard.arguments"
local check_seconds, thread_of, packed = arguments.seconds, arguments.thread,
  arguments.packed
local describe = arguments.describe

local status = coroutine.status
local plan_for = scheduler.plan_for

local task = {}

local function refuse_inside(method)
  if scheduler.current() then
    error(("%s: called inside of a task; it is for those who wait for the " ..
      "tasks (a task waits by task.wait)"):format(method), 3)
  elseif scheduler.turning() then
    error(("%s: the scheduler is being turned already"):format(method), 3)
  end
end

local function check_suspended(thread, method)
  local state = status(thread)
  if state ~= "suspended" then
    error(("%s: the thread is %s; only a suspended one can be resumed"):format(
      method, state == "normal" and "waiting for one that it resumed" or
      state), 3)
  end
end

-- task.spawn(fn or thread, ...) -> thread.  Runs it now, with the arguments,
-- until it yields, ends or fails; a thread that waits is resumed early, one
-- that was deferred or delayed at once.  Raises for anything but a function or
-- a suspended thread, and where too many tasks have started each other (some
-- 190).
function task.spawn(what, ...)
  local thread = thread_of(what, "task.spawn")
  check_suspended(thread, "task.spawn")
  local wrong = scheduler.spawn(thread, ...)
  if wrong then
    error("task.spawn: " .. wrong, 2)
  end
  return thread
end

-- task.defer(fn or thread, ...) -> thread.  Runs it in the next turn, with the
-- arguments.  Raises for anything but a function or a thread, for one that is
-- dead, and for one that was given to defer or delay already.
function task.defer(what, ...)
  local thread = thread_of(what, "task.defer")
  plan_for("task.defer", thread, 0, 0, packed(...))
  return thread
end

-- task.delay(seconds, fn or thread, ...) -> thread.  Runs it in so many
-- seconds, with the arguments.  Raises as task.defer and task.wait do.
function task.delay(seconds, what, ...)
  check_seconds(seconds, "task.delay")
  local start = scheduler.now()
  local thread = thread_of(what, "task.delay")
  plan_for("task.delay", thread, start, scheduler.microseconds(seconds),
           packed(...))
  return thread
end

-- task.wait(seconds?) -> seconds that passed, never less than asked for unless
-- somebody resumed the waiting thread; nil, err at once when the context of
-- its coroutine has ended (executionguard.context).  0, the default: until the
-- next turn, without sleeping; a loop of such waits is a busy one, and under a
-- test clock that only waiting moves it has no end.  See WAITING above.
-- Raises for a number that is negative, infinite or NaN, for what is no
-- number.
task.wait = scheduler.wait

-- task.cancel(thread): ends it, wherever it is suspended; it is not woken, and
-- its <close> variables are closed; what they raise is reported as errors of
-- tasks are.  Does nothing to one that is dead.  Raises for what is no thread,
-- and for one that runs: the caller itself, and those that wait for it.
function task.cancel(thread)
  if type(thread) ~= "thread" then
    error(("task.cancel: a thread is needed, not %s"):format(
      describe(thread)), 2)
  end
  local state = status(thread)
  if state == "running" then
    error("task.cancel: a task cannot cancel itself; it can return, or " ..
      "yield for good", 2)
  elseif state == "normal" then
    error("task.cancel: cannot cancel a thread that has resumed this one", 2)
  end
  scheduler.cancel(thread, state)
end

-- The context of who turns the scheduler, listened to; nil: he has none.
local function listen_here()
  local owner = inside.scope_of(coroutine.running())
  return owner and inside.listen(owner:_scope())
end

-- task.run(fn or thread?, ...): spawns that, if given, and turns the scheduler
-- until no task is ready, no timer left and nobody waits for a key; nil, err
-- when the context of its caller has ended before.  Raises inside of a task
-- and while the scheduler is being turned, and for a wrong first argument.
function task.run(what, ...)
  refuse_inside "task.run"
  local thread = what ~= nil and thread_of(what, "task.run")
  if thread then
    check_suspended(thread, "task.run")
  end
  local it <close> = listen_here()
  local wrong = scheduler.run(it, thread, ...)
  if wrong then
    error("task.run: " .. wrong, 2)
  elseif it and it.ended then
    return nil, it.context:_err()
  end
end

-- task.step(maxWait?) -> seconds until the next turn has something to do (0:
-- now; infinite: when somebody else lets go of a key), or nil when nothing is
-- planned.  For loops of others: one turn, before which it sleeps until
-- somebody is due or the context of its caller ends, at most maxWait seconds
-- (default 0).
-- Raises as task.run does.
function task.step(maxWait)
  refuse_inside "task.step"
  if maxWait ~= nil then
    check_seconds(maxWait, "task.step")
  end
  local owner = maxWait and inside.scope_of(coroutine.running())
  if owner then
    local context = owner:_scope()
    local left = context:_err() and 0 or context:_left()
    maxWait = math.min(maxWait, left or maxWait)
  end
  return scheduler.step(maxWait)
end

-- task.current() -> the thread of the task that this is called in, also from
-- coroutines that it resumed itself; nil outside of tasks.
task.current = scheduler.current

-- task.onError(fn or nil) -> the handler so far.  From now on what tasks raise
-- goes to fn(err, traceback, thread), not to warn; nil: to warn again.  The
-- thread is dead by then.  fn must not wait; what it raises goes to warn,
-- together with what it was told.
function task.onError(fn)
  if fn ~= nil and type(fn) ~= "function" then
    error(("task.onError: a function or nil is needed, not %s"):format(
      describe(fn)), 2)
  end
  return failures.set_handler(fn)
end

core.own.claim()

return task
