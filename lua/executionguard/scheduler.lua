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
local check_seconds = arguments.seconds

local steady = core.clock.steady
local bell = core.waiting
local next_call, pending = bell.next, bell.pending
local checkpoint, interrupted = core.own.checkpoint, core.own.interrupted
local resume, yield = coroutine.resume, coroutine.yield
local running, status = coroutine.running, coroutine.status
local pop = timers.pop
local isyieldable = coroutine.isyieldable
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
local starts, starts_first, starts_last = {}, 1, 0 -- runs that begin
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
  local owner = scope_of(thread)
  if owner and owner._died then
    owner:_died(err, trace)
    owner._close(thread)
    return true
  end
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
      if not ok then report(err, text_of(err)) end
    end
    who = next_call()
  end
  return some
end

-- The first resume of a job's run, which gets itself (job.lua).
local function start_run(run)
  local thread = run.thread
  current, inside.starting = thread, run
  local ok, err = resume(thread, run)
  current, inside.starting = nil, nil
  if ok then
    if not run.over then
      scopes[thread] = run
    end
  elseif failed(thread, err) then
    checkpoint(err)
  else
    starts_first = starts_first - 1
    starts[starts_first] = run
    error("task: no task can be resumed here: " .. text_of(err), 0)
  end
end

-- Starts those runs whose turn it is, each after those ready before it.
local function wake_starts(time, limit)
  while starts_first <= starts_last do
    local run = starts[starts_first]
    if run.seq > limit then
      return
    end
    if ready.n > 0 then
      wake_all(ready, time, run.seq)
    end
    starts[starts_first] = nil
    starts_first = starts_first + 1
    start_run(run)
  end
  starts_first, starts_last = 1, 0
end

local function turn()
  checkpoint()
  heed()
  local limit, time = seq, now()
  if dues.n > 0 then
    wake_all(dues, time, limit)
  end
  if waiting.n > 0 then
    wake_all(waiting, time, limit)
  end
  if starts_last > 0 then
    wake_starts(time, limit)
  end
  if ready.n > 0 then
    wake_all(ready, time, limit)
  end
  return time
end

local function is_ready()
  return starts_first <= starts_last or timers.first(ready) ~= nil
end

-- Is there nothing to be done here, now or at any time to come?
local function idle()
  return not is_ready() and not timers.first(waiting)
end

-- Sleeps until the next timer, that time, or until somebody is rung for.
local function rest(till)
  if heed() or is_ready() then
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

scheduler.now, scheduler.heed, scheduler.idle = now, heed, idle
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
  run.seq = seq
  starts_last = starts_last + 1
  starts[starts_last] = run
  if kick then
    kick()
  end
end

-- Has a thread that waits resumed with that word in the next turn; what others
-- have planned for it comes to nothing.
function scheduler.unpark(thread, word)
  if status(thread) == "suspended" then
    if plans[thread] then
      withdraw(plans[thread])
    end
    plan_for("task", thread, 0, 0, { word, n = 1 })
    plans[thread].word = word
  end
end

-- Yields until somebody resumes the thread, or so long (nil: any time).
function scheduler.suspend(thread, us)
  local queue, list, number = us and us > 0 and waiting or ready, nil, nil
  if us then
    seq = (seq | 1) + 1
    number = seq
    list = timers.add(queue, thread, us, us > 0 and now() + us or 0, number)
  end
  if kick then
    kick()
  end
  local word = yield()
  if list and word ~= IN_TIME then
    timers.drop(queue, list, number)
  end
  scheduler.drop_word(thread)
  return word
end

-- What unpark has planned came in the same moment as something else.
function scheduler.drop_word(thread)
  local plan = plans[thread]
  if plan and plan.word then
    withdraw(plan)
  end
end

-- Turns the scheduler until it[field] is set (and returns that), or until that
-- time; "deadlock": nobody is left who could set it.
function scheduler.turn_till(it, field, till)
  local _ <close> = scope
  turner = running()
  while true do
    local time = turn()
    if it[field] then
      return it[field]
    elseif time >= till then
      return IN_TIME
    elseif till == math.huge and idle() and not pending() then
      return "deadlock"
    end
    rest(till)
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

-- Resumes that thread, if there is one, and turns until nobody is left.
function scheduler.run(thread, ...)
  local _ <close> = scope
  turner = running()
  local wrong = thread and scheduler.spawn(thread, ...)
  if wrong then
    return wrong
  end
  turn()
  while not idle() or pending() do
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
