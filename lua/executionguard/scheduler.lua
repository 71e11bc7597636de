-- SPDX-License-Identifier: MIT
-- The engine of executionguard.task: who stands in which queue, who is resumed
-- when.  See the head of task.lua for what it promises; what is public, with
-- its checks, is there.
--
-- No function of this file or of timers is left half-way by an interruption;
-- the loops ask by `checkpoint`.

local core = require "executionguard.core"
local inside = require "executionguard.inside"
local timers = require "executionguard.timers"
local failures = require "executionguard.failures"
local arguments = require "executionguard.arguments"
local text_of, report = failures.text_of, failures.report
local close, failed = failures.close, failures.failed
local check_seconds, microseconds = arguments.seconds, arguments.microseconds

local steady = core.clock.steady
local bell = core.waiting
local begin_turn, next_call, pending = bell.turn, bell.next, bell.pending
local checkpoint = core.own.checkpoint
local resume, yield = coroutine.resume, coroutine.yield
local running, status = coroutine.running, coroutine.status
local pop = timers.pop
local create, isyieldable = coroutine.create, coroutine.isyieldable
local scopes, scope_of = inside.scopes, inside.scope_of

-- Sleeping is done in parts of this, in microseconds.
local LONGEST_SLEEP <const> = 1e15

local scheduler = {}

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
-- Runs that begin: the first, and those after it, each with the number of its
-- entry.
local first_run, first_number
local later_runs, later_first, later_last = {}, 1, 0
local plans = {}      -- thread -> its plan by defer or delay
local seq = 0         -- of the latest entry: even for a wait, odd for a plan
local current = nil   -- the task that was resumed last and has not come back
local starting_run, starting -- a run that has not come back yet; its thread
local turner = nil    -- the thread that turns the scheduler
local kick = nil      -- tells the loop that is plugged in of a new plan
local host_wait = nil -- waits on that loop
local body = nil      -- what the coroutine of a job's run runs
local spare = nil     -- one that waits for another run (job_run.lua)
local SPARE = inside.SPARE
local IN_TIME = {}    -- what task.wait is resumed with by the scheduler

local function now()
  return (steady() * 1e6 + 0.5) // 1
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

-- ------------------------------------------------------------- resuming --

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

-- Who has been rung for is ready, that one first; functions are called.
local function heed(who)
  while who do
    if type(who) == "thread" then
      seq = (seq | 1) + 1
      rung[who] = { list = timers.add(ready, who, 0, 0, seq), number = seq }
    elseif who ~= true then -- true: he who turns the scheduler, and looks
      local ok, err = pcall(who)
      if not ok then report(err, text_of(err)) end
    end
    who = next_call()
  end
end

-- The coroutine of a job's run, which may not have begun.
local function thread_of_run(run)
  local thread = run.thread
  if not thread then
    thread = starting_run == run and starting or create(body)
    run.thread, run.plain = thread, false
  end
  return thread
end

function inside.starting(thread)
  if thread == starting then
    return starting_run
  end
end

function inside.is_starting(run) return run == starting_run end

-- A job's run could not be begun, or an error has ended its coroutine.
local function begin_failed(run, thread, number, err)
  scopes[thread] = status(thread) == "dead" and run or nil
  if failed(thread, err) then
    checkpoint(err)
    return
  end
  if first_run then
    later_first = later_first - 2
    later_runs[later_first], later_runs[later_first + 1] =
      first_run, first_number
  end
  first_run, first_number = run, number
  error("task: no task can be resumed here: " .. text_of(err), 0)
end

local function next_run()
  local first = later_first
  if first > later_last then
    later_first, later_last = 1, 0
    return
  end
  first_run, first_number = later_runs[first], later_runs[first + 1]
  later_runs[first], later_runs[first + 1] = nil, nil
  later_first = first + 2
end

-- Begins those runs whose turn it is, each after those ready before it.
local function begin_runs(time, limit)
  repeat
    local run, number = first_run, first_number
    if number > limit then
      return
    elseif ready.n > 0 then
      wake_all(ready, time, number)
    end
    local thread = run.plain and (spare or create(body)) or thread_of_run(run)
    first_run, spare = nil, nil
    if later_last > 0 then
      next_run()
    end
    current, starting_run, starting = thread, run, thread
    local ok, said = resume(thread, run)
    current, starting_run, starting = nil, nil, nil
    if said == SPARE then
      spare = thread
    elseif not ok then
      begin_failed(run, thread, number, said)
    elseif not run.took then
      scopes[thread] = run
      run.thread, run.plain = thread, false
    elseif scopes[thread] then
      scopes[thread] = nil
    end
  until not first_run
end

-- timed: the caller wants to know the time that it was.
local function turn(timed)
  local who = begin_turn()
  if who ~= nil then
    heed(who)
  end
  local limit, time = seq, 0
  if timed or waiting.n > 0 or dues.n > 0 then
    time = now()
    wake_all(dues, time, limit)
    wake_all(waiting, time, limit)
  end
  if first_run then
    begin_runs(time, limit)
  end
  if ready.n > 0 then
    wake_all(ready, time, limit)
  end
  return time
end

local function is_ready()
  return first_run ~= nil or timers.first(ready) ~= nil
end

-- Is there nothing to be done here, now or at any time to come?
local function idle()
  return not is_ready() and not timers.first(waiting)
end

-- Sleeps until the next timer, that time, or until somebody is rung for.
local function rest(till)
  local who = next_call()
  heed(who)
  if who ~= nil or is_ready() then
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
  while turn(true) < due do
    rest(due)
  end
end

local function check_turnable(method)
  if at_work(turner) or at_work(current) then
    error(method .. ": the task cannot yield here, inside of a function " ..
      "of C that called back (table.sort, require, gsub, a callback)", 3)
  end
end

-- ---------------------------------------------------------------- waiting --

-- task.wait itself, as there is nothing that is called more often.
function scheduler.wait(seconds)
  if seconds == nil then
    seconds = 0
  else
    check_seconds(seconds, "task.wait")
  end
  local start = now()
  local us = microseconds(seconds)
  local thread, main = running()
  local owner = scopes[thread] or scope_of(thread)
  if owner then
    return inside.wait(owner, thread, start, us)
  elseif main or not isyieldable() then
    check_turnable("task.wait")
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

-- For parking.lua: a thread stands in a queue, for so many microseconds.
function scheduler.stand(queue, thread, us, due)
  seq = (seq | 1) + 1
  return timers.add(queue, thread, us, due, seq), seq
end
function scheduler.kick() if kick then kick() end end
scheduler.waiting, scheduler.ready, scheduler.dues = waiting, ready, dues
scheduler.rung, scheduler.plans, scheduler.withdraw = rung, plans, withdraw

scheduler.now, scheduler.idle = now, idle
scheduler.thread_of_run = thread_of_run
function scheduler.heed() heed(next_call()) end
scheduler.microseconds, scheduler.plan_for = microseconds, plan_for
scheduler.check_turnable, scheduler.IN_TIME = check_turnable, IN_TIME

-- In a task, or in what turns the tasks?
function scheduler.inside() return at_work(turner) or at_work(current) end
function scheduler.turning() return at_work(turner) end
function scheduler.busy() return not idle() or timers.first(dues) ~= nil end

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

-- Turns the scheduler until w is over, or it.ended.
function scheduler.turn_for(w, it)
  local _ <close> = scope
  turner = running()
  turn()
  while not w:over() and not (it and it.ended) do
    rest(w:due() or math.huge)
    turn()
  end
end

function scheduler.turn_until(seconds)
  turn_until(now() + microseconds(seconds))
end

-- Has a run's new thread resumed with it in the next turn.
function scheduler.start(run)
  seq = seq + 1 | 1
  if first_run then
    later_runs[later_last + 1], later_runs[later_last + 2] = run, seq
    later_last = later_last + 2
  else
    first_run, first_number = run, seq
  end
  if kick then
    kick()
  end
end

function scheduler.set_body(fn) body = fn end

-- Turns the scheduler, by the running thread, until it[field] is set (and
-- returns that), or for so many microseconds (nil: any time); "deadlock":
-- nobody is left who could set it.
function scheduler.turn_till(it, field, method, thread, us)
  if turner or current then
    check_turnable(method)
  end
  local _ <close> = scope
  turner = thread
  local till = us and now() + us or math.huge
  while true do
    local time = turn(us)
    if it[field] then
      return it[field]
    elseif us and time >= till then
      return IN_TIME
    elseif not us and idle() and not pending() then
      return "deadlock"
    end
    rest(till)
  end
end

-- The same until that run is over, however long: true; nil, "deadlock".
function scheduler.turn_run(run, thread)
  if turner or current then
    check_turnable "Wait"
  end
  local _ <close> = scope
  turner = thread
  while true do
    turn()
    if run.took then
      return true
    elseif idle() and not pending() then
      return nil, "deadlock"
    end
    rest(math.huge)
  end
end

-- Plugs a loop in that runs the tasks, or none.
function scheduler.host(tell, wait)
  kick, host_wait = tell, wait
end

-- ------------------------------------------------------- for task.lua --

-- Resumes a suspended thread now; text: that could not be done.
function scheduler.spawn(thread, ...)
  local plan = plans[thread]
  if plan then
    plans[thread], plan.thread = nil, nil
  end
  local ok, err = go(thread, ...)
  if not ok then
    if plan then -- nothing has run: it stands in its queue as before
      plans[thread], plan.thread = plan, thread
    end
    return text_of(err)
  end
  if plan then
    timers.stale(plan.queue)
  end
  if err then
    checkpoint(err)
  end
end

-- Ends a thread that is suspended or dead.
function scheduler.cancel(thread, state)
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

-- Resumes that thread, if there is one, and turns until nobody is left, or
-- it.ended.
function scheduler.run(it, thread, ...)
  local _ <close> = scope
  turner = running()
  local wrong = thread and scheduler.spawn(thread, ...)
  if wrong then
    return wrong
  end
  turn()
  while not (it and it.ended) and (not idle() or pending()) do
    rest(math.huge)
    turn()
  end
end

-- One turn; -> seconds to the next one that has something to do, or nil.
function scheduler.step(max_wait)
  do
    local _ <close> = scope
    turner = running()
    if max_wait and (timers.first(waiting) or pending()) then
      rest(now() + microseconds(max_wait))
    end
    turn()
  end
  local due = math.min(timers.first(waiting) or math.huge,
                       timers.first(dues) or math.huge)
  if is_ready() then
    return 0
  elseif due < math.huge or pending() then
    return math.max(due - now(), 0) / 1e6
  end
end

function scheduler.current() return at_work(current) and current or nil end

require "executionguard.waiting".install(scheduler)
require "executionguard.parking".install(scheduler)

core.own.claim()

return scheduler
