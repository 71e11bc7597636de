-- SPDX-License-Identifier: MIT
-- How coroutines wait for each other, and for the end of their context: for
-- task.wait, jobs and executors.

local core = require "executionguard.core"
local inside = require "executionguard.inside"

local timers = require "executionguard.timers"

local isyieldable, running = coroutine.isyieldable, coroutine.running
local status, yield = coroutine.status, coroutine.yield
local WAKE, ENDED = inside.WAKE, inside.ENDED

local parking = {}

local scheduler -- what executionguard.task lends

-- ---------------------------------------------------------- suspending --

-- Has a thread that waits resumed with that word in the next turn; what others
-- have planned for it comes to nothing.
function parking.unpark(thread, word)
  if status(thread) == "suspended" then
    local plans = scheduler.plans
    if plans[thread] then
      scheduler.withdraw(plans[thread])
    end
    scheduler.plan_for("task", thread, 0, 0, { word, n = 1 })
    plans[thread].word = word
  end
end

-- What unpark has planned came in the same moment as something else.
function parking.drop_word(thread)
  local plan = scheduler.plans[thread]
  if plan and plan.word then
    scheduler.withdraw(plan)
  end
end

-- Yields until somebody resumes the thread, or so long (nil: any time).
local function suspend(thread, us)
  local queue, list, number = nil, nil, nil
  if us then
    local later = us > 0
    queue = later and scheduler.waiting or scheduler.ready
    list, number = scheduler.stand(queue, thread, us,
                                   later and scheduler.now() + us or 0)
  end
  scheduler.kick()
  local word = yield()
  if list and word ~= inside.IN_TIME then
    timers.drop(queue, list, number)
  end
  parking.drop_word(thread)
  return word
end

-- Suspends the task until w rings, or is due.  False: somebody else did.
function parking.park(w)
  local thread, due = running(), w:due()
  local dues, rung = scheduler.dues, scheduler.rung
  local list, number
  w:park(thread)
  if due then
    list, number = scheduler.stand(dues, thread,
                                   math.max(due - scheduler.now(), 0), due)
  end
  scheduler.kick()
  local in_time = yield() == inside.IN_TIME
  local at = rung[thread]
  w:park(nil)
  rung[thread] = nil
  if list then
    timers.drop(dues, list, number)
  end
  if at then
    timers.drop(scheduler.ready, at.list, at.number)
  end
  return in_time
end

-- ---------------------------------------------------------- being woken --

local function set_word(parked, word)
  if parked.thread then
    parking.unpark(parked.thread, word)
  else
    parked.word = word
  end
end

local function scope_ended(parked)
  set_word(parked, ENDED)
end

-- However the wait ends, also by a coroutine.close.
local Parked = { __close = function(parked)
  if parked.listener then
    parked.context:_unlisten(parked.listener)
  end
  if parked.waiters then
    parked.waiters[parked] = nil
  end
end }

-- park(method, thread, us, context, waiters) -> word.  The running coroutine
-- waits: until somebody wakes it (WAKE), so many microseconds (the word
-- inside.IN_TIME; nil: any time), until the context has ended (ENDED; it has
-- not yet; nil: none), until somebody outside resumes it (any word), or, where
-- it cannot yield, until nobody is left who could wake it ("deadlock").  It is
-- in the table waiters meanwhile.
function inside.park(method, thread, us, context, waiters)
  local yields = isyieldable()
  local parked <close> = setmetatable({ thread = yields and thread or nil,
    waiters = waiters, context = context }, Parked)
  parked.listener = context and context:_listen(scope_ended, parked)
  if waiters then
    waiters[parked] = true
  end
  if yields then
    return suspend(thread, us)
  end
  return scheduler.turn_till(parked, "word", method, thread, us)
end

-- Wakes all who are parked in waiters.
function inside.wake_all(waiters)
  for parked in pairs(waiters) do
    set_word(parked, WAKE)
  end
end

-- For a wait for something else, too: it.ended says that the context has
-- ended, which wakes the coroutine (nil: he who turns the scheduler looks by
-- himself).  To be closed.
local Listening = { __close = function(it)
  if it.listener then
    it.context:_unlisten(it.listener)
  end
end }

local function heard(it)
  it.ended = true
  if it.thread then
    parking.unpark(it.thread, ENDED)
  end
end

function inside.listen(context, thread)
  local it = setmetatable({ context = context, thread = thread }, Listening)
  it.ended = context:_err() ~= nil
  it.listener = not it.ended and context:_listen(heard, it) or nil
  return it
end

-- task.wait in a coroutine that has a context, which ends the wait.
function inside.wait(owner, thread, start, us)
  local context = owner:_scope()
  local err = context:_err()
  if err then
    return nil, err
  end
  if inside.park("task.wait", thread, us, context) == ENDED then
    return nil, context:_err()
  end
  return (scheduler.now() - start) / 1e6
end

function parking.install(lent)
  scheduler = lent
  lent.park, lent.unpark = parking.park, parking.unpark
  lent.drop_word = parking.drop_word
  inside.start, inside.thread_of = lent.start, lent.thread_of_run
  inside.turn_till, inside.turn_run = lent.turn_till, lent.turn_run
  inside.set_body = lent.set_body
  inside.IN_TIME = lent.IN_TIME
end

core.own.claim()

return parking
