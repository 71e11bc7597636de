-- SPDX-License-Identifier: MIT
-- How coroutines wait for each other, and for the end of their context: for
-- task.wait, jobs and executors.

local core = require "executionguard.core"
local inside = require "executionguard.inside"

local isyieldable = coroutine.isyieldable
local WAKE, ENDED = inside.WAKE, inside.ENDED

local parking = {}

local scheduler -- what executionguard.task lends

local function set_word(parked, word)
  if parked.thread then
    scheduler.unpark(parked.thread, word)
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
  if not yields then
    scheduler.check_turnable(method)
  end
  local parked <close> = setmetatable({ thread = yields and thread or nil,
    waiters = waiters, context = context }, Parked)
  parked.listener = context and context:_listen(scope_ended, parked)
  if waiters then
    waiters[parked] = true
  end
  if yields then
    return scheduler.suspend(thread, us)
  end
  return scheduler.turn_till(parked, "word",
                             us and scheduler.now() + us or math.huge)
end

-- Wakes all who are parked in waiters.
function inside.wake_all(waiters)
  for parked in pairs(waiters) do
    set_word(parked, WAKE)
  end
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

-- Has a run's function called in the next turn, in a coroutine of its own.
function inside.start(run, body)
  run.thread = coroutine.create(body)
  scheduler.start(run)
end

-- Where the caller cannot yield: turns the scheduler until run.over, so long,
-- or until nobody is left who could end it ("deadlock").
function inside.turn_run(run, us)
  scheduler.check_turnable("Wait")
  return scheduler.turn_till(run, "over",
                             us and scheduler.now() + us or math.huge)
end

function parking.install(lent)
  scheduler = lent
  inside.IN_TIME = lent.IN_TIME
end

core.own.claim()

return parking
