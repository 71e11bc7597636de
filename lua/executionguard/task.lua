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
local timers = require "executionguard.timers"
local failures = require "executionguard.failures"
local arguments = require "executionguard.arguments"
local text_of, report = failures.text_of, failures.report
local check_seconds, thread_of, packed = arguments.seconds, arguments.thread,
  arguments.packed

local steady = core.clock.steady
local bell = core.waiting
local next_call, pending = bell.next, bell.pending
local checkpoint, interrupted = core.own.checkpoint, core.own.interrupted
local resume, yield = coroutine.resume, coroutine.yield
local running, status = coroutine.running, coroutine.status
local pop = timers.pop
local isyieldable = coroutine.isyieldable

-- Sleeping is done in parts of this, in microseconds.
local LONGEST_SLEEP <const> = 1e15

local task = {}

-- ------------------------------------------------------------- the state --
--
-- Times are whole microseconds, in floats: what is added to them stays exact.
--
-- In the queues stand the threads that are in task.wait, and the plans of
-- defer and delay: tables {thread, args, queue}, also found in `plans`; one
-- that is off has no thread.  A thread that waits is in no other table, which
-- is what makes waking cheap; so one that was resumed by others takes itself
-- off the queue.

local waiting, ready = timers.new(), timers.new()
local dues = timers.new() -- when those who wait for a key look by themselves
local rung = setmetatable({}, { __mode = "k" }) -- thread -> where in `ready`
local plans = {}      -- thread -> its plan by defer or delay
local seq = 0         -- of the latest entry: even for a wait, odd for a plan
local current = nil   -- the task that was resumed last and has not come back
local turner = nil    -- the thread that turns the scheduler
local kick = nil      -- tells the loop that is plugged in of a new plan
local host_wait = nil -- waits on that loop
local IN_TIME = {}    -- what task.wait is resumed with by the scheduler

local function now()
  return (steady() * 1e6 + 0.5) // 1
end

-- Up, but for what is only a product's rounding, as the core does it.
local function microseconds(seconds)
  local us = seconds * 1e6
  local whole = us // 1
  return us - whole > us * 4e-16 and whole + 1 or whole
end

local function withdraw(plan)
  plans[plan.thread] = nil
  plan.thread = nil
  timers.stale(plan.queue)
end

-- start: now.  The caller's caller is to blame.
local function plan_for(method, thread, start, us, args)
  local queue = us > 0 and waiting or ready
  local plan = { thread = thread, args = args, queue = queue }
  if plans[thread] then
    error(("%s: this thread was given to task.delay or task.defer already; " ..
      "task.cancel or task.spawn it first"):format(method), 3)
  end
  seq = seq + 1 | 1
  timers.add(queue, plan, us, us > 0 and start + us or 0, seq)
  plans[thread] = plan
  if kick then
    kick()
  end
end

-- Is that thread at work, so that this is called by it, at whatever depth?  An
-- error that nobody cleaned up after may have left a thread that is not.
local function at_work(thread)
  if thread == nil then
    return false
  end
  local state = status(thread)
  return state == "running" or state == "normal"
end

-- ---------------------------------------------------------------- errors --

-- Closes a thread; what its <close> variables raise is reported, but for the
-- error that is known already.
local function close(thread, known)
  local ok, err = coroutine.close(thread)
  if not ok and not rawequal(err, known) then
    report(err, text_of(err) .. "\n\tin a <close> variable", thread)
  end
end

-- ------------------------------------------------------------- resuming --

-- A resume has failed: true if that was the task's own error.
local function failed(thread, err)
  if status(thread) ~= "dead" then
    return false -- it was not resumed: the C stack is full
  end
  if interrupted(err) then -- with all the others, and no fault of its own
    close(thread, err)
    return true
  end
  local trace = debug.traceback(thread, text_of(err))
  close(thread, err)
  report(err, trace, thread)
  return true
end

-- Resumes a suspended thread.  False and a message: that could not be done.
-- True and an error: that was the task's own, or ends this one as well.
local function go(thread, ...)
  local previous = current
  current = thread
  local ok, err = resume(thread, ...)
  current = previous
  if ok then
    return true
  end
  return failed(thread, err), err
end

-- May the thread of a plan of defer or delay be resumed?  Others have had it
-- in their hands since: dead means that it is over, and all is said.
local function resumable(thread)
  local state = status(thread)
  if state == "suspended" then
    return true
  elseif state ~= "dead" then
    local err = ("task: a thread that was to be resumed now cannot be: " ..
      "it is %s"):format(state == "normal" and "waiting for one that it " ..
      "resumed itself" or "running")
    report(err, err, thread)
  end
  return false
end

-- What cannot be resumed stands in its queue again.
local function give_up(queue, item, due, number, err)
  timers.add(queue, item, due > 0 and 1 or 0, due, number)
  if type(item) == "table" then
    plans[item.thread] = item
  end
  error("task: no task can be resumed here: " .. text_of(err), 0)
end

-- Wakes whom a plan names, which is off its queue.
local function wake_plan(plan, due, number)
  local thread, args = plan.thread, plan.args
  if not thread then
    return
  end
  plans[thread] = nil
  if not resumable(thread) then
    return
  end
  local ok, err
  if args then
    ok, err = go(thread, table.unpack(args, 1, args.n))
  else
    ok, err = go(thread)
  end
  if not ok then
    give_up(plan.queue, plan, due, number, err)
  elseif err then
    checkpoint(err)
  end
end

-- --------------------------------------------------------------- turning --

-- Marks the time in which the scheduler is turned, whatever ends it.
local scope = setmetatable({}, { __close = function()
  turner, current = nil, nil
end })

-- A thread in task.wait could not be resumed, or has failed.  One that others
-- have closed has no stack any more.
local function wait_failed(queue, thread, due, number, err)
  local closed = status(thread) == "dead" and not debug.getinfo(thread, 0)
  if not closed and not failed(thread, err) then
    give_up(queue, thread, due, number, err)
  end
end

-- Wakes those of a queue that are due at that time.  Entries made meanwhile
-- have a number above the limit; of those that are due they are the last.
-- go() is written out here for those that wait, who may be many.
local function wake_all(queue, time, limit)
  local heap = queue.heap
  local list = heap[1]
  while list do
    local due, number, item = list.due, list.seq, list[list.first]
    if due > time or number > limit then
      break
    end
    pop(queue, list)
    if item and number & 1 == 0 then
      current = item
      local ok, err = resume(item, IN_TIME)
      current = nil
      if not ok then
        wait_failed(queue, item, due, number, err)
        checkpoint(err)
      end
    elseif item then
      wake_plan(item, due, number)
    end
    list = heap[1]
  end
end

-- Who has been rung for is ready; functions are called.  True: some were.
local function heed()
  local who = next_call()
  local some = who ~= nil -- true: he who turns the scheduler, and looks
  while who do
    if type(who) == "thread" then
      seq = (seq | 1) + 1
      rung[who] = { list = timers.add(ready, who, 0, 0, seq), number = seq }
    elseif who ~= true then
      local ok, err = pcall(who)
      if not ok then
        report(err, text_of(err))
      end
    end
    who = next_call()
  end
  return some
end

local function turn()
  checkpoint()
  heed()
  local limit, time = seq, now()
  wake_all(dues, time, limit)
  wake_all(waiting, time, limit)
  wake_all(ready, time, limit)
  return time
end

-- Is there nothing to be done here, now or at any time to come?
local function idle()
  return not timers.first(ready) and not timers.first(waiting)
end

-- Sleeps until the next timer, that time, or until somebody is rung for.
local function rest(till)
  if heed() or timers.first(ready) then
    return -- who it was for may be he who called
  elseif idle() then
    bell.deadlock() -- the one who closed the ring is told
  end
  local due = math.min(timers.first(waiting) or till, timers.first(dues) or
                       till, till)
  if due == math.huge then
    bell.sleep()
    return
  end
  local us = due - now()
  if us > 0 then
    bell.sleep(math.min(us, LONGEST_SLEEP))
  end
end

-- Those due at that time, too, are resumed: the last turn began after it.
local function turn_until(due)
  local _ <close> = scope
  turner = running()
  while turn() < due do
    rest(due)
  end
end

local function refuse_inside(method)
  if at_work(current) then
    error(("%s: called inside of a task; it is for those who wait for the " ..
      "tasks (a task waits by task.wait)"):format(method), 3)
  elseif at_work(turner) then
    error(("%s: the scheduler is being turned already"):format(method), 3)
  end
end

-- ---------------------------------------------------------- the functions --

-- task.spawn(fn or thread, ...) -> thread.  Runs it now, with the arguments,
-- until it yields, ends or fails; a thread that waits is resumed early, one
-- that was deferred or delayed at once.  Raises for anything but a function or
-- a suspended thread, and where too many tasks have started each other (some
-- 190).
function task.spawn(what, ...)
  local thread = thread_of(what, "task.spawn")
  local state = status(thread)
  if state ~= "suspended" then
    error(("task.spawn: the thread is %s; only a suspended one can be resumed")
      :format(state == "normal" and "waiting for one that it resumed" or
              state), 2)
  end
  local plan = plans[thread]
  if plan then
    plans[thread], plan.thread = nil, nil
  end
  local ok, err = go(thread, ...)
  if not ok then
    if plan then -- nothing has run: it stands in its queue as before
      plans[thread], plan.thread = plan, thread
    end
    error("task.spawn: " .. text_of(err), 2)
  end
  if plan then
    timers.stale(plan.queue)
  end
  if err then
    checkpoint(err)
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
  local start = now()
  local thread = thread_of(what, "task.delay")
  plan_for("task.delay", thread, start, microseconds(seconds), packed(...))
  return thread
end

-- task.wait(seconds?) -> seconds that passed, never less than asked for unless
-- somebody resumed the waiting thread.  0, the default: until the next turn,
-- without sleeping; a loop of such waits is a busy one, and under a test clock
-- that only waiting moves it has no end.  See WAITING above.
-- Raises for what is no number, or negative, infinite or NaN.
function task.wait(seconds)
  if seconds == nil then
    seconds = 0
  else
    check_seconds(seconds, "task.wait")
  end
  local start = now()
  local us = microseconds(seconds)
  local thread, main = running()
  if main or not isyieldable() then
    if at_work(turner) or at_work(current) then
      error("task.wait: the task cannot yield here, inside of a function " ..
        "of C that called back (table.sort, require, gsub, a callback)", 2)
    end
    turn_until(start + us)
  elseif host_wait and not at_work(turner) and not at_work(current) then
    return host_wait(seconds)
  else
    local queue = us > 0 and waiting or ready
    seq = (seq | 1) + 1
    local number = seq
    local list = timers.add(queue, thread, us, us > 0 and start + us or 0,
                            number)
    if kick then
      kick()
    end
    if yield() ~= IN_TIME then
      timers.drop(queue, list, number)
    end
  end
  return ((steady() * 1e6 + 0.5) // 1 - start) / 1e6 -- now(), written out
end

-- task.cancel(thread): ends it, wherever it is suspended; it is not woken, and
-- its <close> variables are closed; what they raise is reported as errors of
-- tasks are.  Does nothing to one that is dead.  Raises for what is no thread,
-- and for one that runs: the caller itself, and those that wait for it.
function task.cancel(thread)
  if type(thread) ~= "thread" then
    error(("task.cancel: a thread is needed, not %s"):format(
      thread == nil and "nil" or "a " .. type(thread)), 2)
  end
  local state = status(thread)
  if state == "running" then
    error("task.cancel: a task cannot cancel itself; it can return, or " ..
      "yield for good", 2)
  elseif state == "normal" then
    error("task.cancel: cannot cancel a thread that has resumed this one", 2)
  end
  if plans[thread] then
    withdraw(plans[thread])
  end
  if state == "suspended" then
    close(thread)
    timers.stale(waiting) -- if it was in task.wait
    timers.stale(ready)
    timers.stale(dues)
  end
end

-- task.run(fn or thread?, ...): spawns that, if given, and turns the scheduler
-- until no task is ready, no timer left and nobody waits for a key.  Raises
-- inside of a task, while it is being turned, for a wrong first argument.
function task.run(what, ...)
  refuse_inside "task.run"
  local thread = what ~= nil and thread_of(what, "task.run")
  local _ <close> = scope
  turner = running()
  if thread then
    task.spawn(thread, ...)
  end
  turn()
  while not idle() or pending() do
    rest(math.huge)
    turn()
  end
end

-- task.step(maxWait?) -> seconds until the next turn has something to do (0:
-- now; infinite: when somebody else lets go of a key), or nil when nothing is
-- planned.  For loops of others: one turn, before which it sleeps until
-- somebody is due, at most maxWait seconds (default 0).
-- Raises as task.run does.
function task.step(maxWait)
  refuse_inside "task.step"
  if maxWait ~= nil then
    check_seconds(maxWait, "task.step")
  end
  do
    local _ <close> = scope
    turner = running()
    if maxWait and (timers.first(waiting) or pending()) then
      rest(now() + microseconds(maxWait))
    end
    turn()
  end
  local due = math.min(timers.first(waiting) or math.huge,
                       timers.first(dues) or math.huge)
  if timers.first(ready) then
    return 0
  elseif due < math.huge or pending() then
    return math.max(due - now(), 0) / 1e6
  end
end

-- task.current() -> the thread of the task that this is called in, also from
-- coroutines that it resumed itself; nil outside of tasks.
function task.current()
  if at_work(current) then
    return current
  end
end

-- task.onError(fn or nil) -> the handler so far.  From now on what tasks raise
-- goes to fn(err, traceback, thread), not to warn; nil: to warn again.  The
-- thread is dead by then.  fn must not wait; what it raises goes to warn,
-- together with what it was told.
function task.onError(fn)
  if fn ~= nil and type(fn) ~= "function" then
    error(("task.onError: a function or nil is needed, not a %s"):format(
      type(fn)), 2)
  end
  return failures.set_handler(fn)
end

-- ------------------------------------------------- for those who wait --

local scheduler = {
  now = now, heed = heed, idle = idle, wait = task.wait, step = task.step,
  inside = function() return at_work(turner) or at_work(current) end,
  turning = function() return at_work(turner) end,
  busy = function() return not idle() or timers.first(dues) ~= nil end,
}

-- Resumes a thread early, whose time is over.  False: it cannot be; ask: can
-- it?
function scheduler.expire(thread, ask)
  local plan = plans[thread]
  if ask or status(thread) ~= "suspended" then
    return status(thread) == "suspended"
  elseif plan then
    withdraw(plan)
  end
  return (go(thread))
end

-- Suspends the task until w rings, or is due.  False: somebody else did.
function scheduler.park(w)
  local thread, due = running(), w:due()
  local list, number
  w:park(thread)
  if due then
    seq = (seq | 1) + 1
    number = seq
    list = timers.add(dues, thread, math.max(due - now(), 0), due, number)
  end
  if kick then
    kick()
  end
  local in_time = yield() == IN_TIME
  local at = rung[thread]
  w:park(nil)
  rung[thread] = nil
  if list then
    timers.drop(dues, list, number)
  end
  if at then
    timers.drop(ready, at.list, at.number)
  end
  return in_time
end

-- Turns the scheduler until w is over.
function scheduler.turn_for(w)
  local _ <close> = scope
  turner = running()
  turn()
  while not w:over() do
    local due = w:due()
    rest(due or math.huge)
    turn()
  end
end

function scheduler.turn_until(seconds)
  turn_until(now() + microseconds(seconds))
end

-- Plugs a loop in that runs the tasks, or none.
function scheduler.host(tell, wait)
  kick, host_wait = tell, wait
end

require "executionguard.waiting".install(scheduler)

core.own.claim()

return task
