-- SPDX-License-Identifier: MIT
-- How a wait lets time pass: for a key, or until the next attempt of a run.
--
-- In a coroutine under the scheduler (executionguard.task), or where a loop is
-- plugged in, it yields; outside it turns the scheduler, if there are tasks;
-- else it blocks.  The core calls `wait` and `pause` of this file for that,
-- and cleans up after them, however they end.
--
-- A LOOP OF OTHERS (ExecutionGuard.configure { loop = ... }) is a table:
--
--   now()               -> seconds by the loop's steady clock
--   delay(seconds, fn)  -> stop: fn is called once on the loop, that long from
--                          now, unless stop() came before; stop may be called
--                          at any time
--   wake(fd, fn)        -> stop: fn is called on the loop whenever the
--                          descriptor is readable (it is so until fn has been
--                          called), until stop(); meanwhile the loop does not
--                          end.  Only called while somebody waits
--   suspend()           in a coroutine of the loop: returns when resume was
--                       called for it.  Default: coroutine.yield
--   resume(thread)      called on the loop: lets that coroutine go on, now or
--                       soon.  Default: coroutine.resume, and what it raises
--                       goes to warn
--
-- fn neither raises nor yields.  executionguard.loop has ready ones for luv,
-- cqueues and copas.  Tasks of executionguard.task are run by the loop as
-- well, without anybody calling task.run.

local core = require "executionguard.core"
local inside = require "executionguard.inside"

local bell, clock, shield = core.waiting, core.clock, core.shield
local isyieldable, running = coroutine.isyieldable, coroutine.running

local waiting = {}

local suspended = setmetatable({}, { __mode = "k" }) -- thread -> wakes it
local scheduler -- what executionguard.task lends
local loop      -- the one that is plugged in
local stop      -- unplugs it
local timer     -- stops its timer for the scheduler
local blocking  -- while others are rung for, but cannot go on

-- -------------------------------------------------------------- blocking --

-- Nobody else of this Lua state can go on meanwhile: what it holds itself is
-- not waited for.  Those who are rung for will be ready.
local function block(w)
  w:stuck()
  while not w:over() do
    local due = w:due()
    bell.sleep(due and math.max(due - scheduler.now(), 0))
    blocking = true
    scheduler.heed()
    blocking = false
    w:stuck()
  end
end

-- ------------------------------------------------------------- the loop --

-- Calls what is not ours, and may not be left half-way by an interruption.
local function undisturbed(fn, ...)
  if bell.exposed() then
    return shield(fn, ...)
  end
  return fn(...)
end

local function default_resume(thread)
  local ok, err = coroutine.resume(thread)
  if not ok then
    warn("[ExecutionGuard] a coroutine failed: ", tostring(err))
  end
end

local run_tasks

-- Somebody waits, or is suspended and has a deadline: the loop listens to the
-- bell; nobody does: it may end.  leaves: who calls is about to be suspended.
-- A deadline of others who run here, around the loop itself say, keeps it not.
local function listen(leaves)
  if bell.pending() or bell.guarded(leaves) then
    stop = stop or undisturbed(loop.wake, bell.fd(), run_tasks)
  elseif stop then
    undisturbed(stop)
    stop = nil
  end
end

-- A coroutine that is suspended, until it is closed, however that ends.
local Suspension = {}

function Suspension:__close()
  self.over = true
  suspended[self.thread] = nil
  if self.cancel then
    undisturbed(self.cancel)
  end
  if stop and loop then
    listen()
  end
end

-- Suspends the coroutine until it is woken, or for so many seconds.  True:
-- they have passed.
local function suspend(seconds, register)
  local thread = running()
  local this <close> = setmetatable({ thread = thread }, Suspension)
  local function wake() -- once
    if not this.over and coroutine.status(thread) == "suspended" then
      this.over = true
      loop.resume(thread)
    end
  end
  this.cancel = seconds and undisturbed(loop.delay, seconds, function()
    this.timed = true -- maybe a little early: some loops count milliseconds
    wake()
  end)
  if register then
    register(wake)
  elseif bell.guarded(true) then
    listen(true)
  end
  suspended[thread] = wake
  loop.suspend()
  return this.timed
end

-- True: w is over; false: somebody else resumed the coroutine.
local function suspend_for(w)
  while not w:over() do
    listen()
    local due, woken = w:due(), false
    local function note(wake)
      w:park(function()
        woken = true
        wake()
      end)
    end
    local timed = suspend(due and math.max(due - scheduler.now(), 0) / 1e6,
                          note)
    if not woken and not timed then
      break
    end
  end
  listen()
end

-- Turns the scheduler, and asks the loop for the next turn.
function run_tasks()
  if timer then
    undisturbed(timer)
    timer = nil
  end
  if not loop or scheduler.turning() then
    return
  end
  local ok, next_turn = pcall(scheduler.step)
  if not ok then
    warn("[ExecutionGuard] a turn of the tasks failed: ", tostring(next_turn))
  elseif next_turn and next_turn < math.huge then
    timer = undisturbed(loop.delay, next_turn, run_tasks)
  end
  if loop then
    listen()
  end
end

-- Somebody was planned outside of a turn: the loop has to know.
local function kick()
  listen()
  if not scheduler.turning() then
    local previous = timer
    timer = undisturbed(loop.delay, 0, run_tasks)
    if previous then
      undisturbed(previous)
    end
  end
end

local REQUIRED <const> = { "now", "delay", "wake" }

-- waiting.complaint(loop) -> what is wrong with it, or nil
function waiting.complaint(candidate)
  for _, name in ipairs(REQUIRED) do
    if type(candidate[name]) ~= "function" then
      return ("a table with functions now, delay and wake ('%s' is %s)")
        :format(name, candidate[name] == nil and "missing" or
                "a " .. type(candidate[name]))
    end
  end
end

-- waiting.plug(loop or nil): from now on that one runs coroutines.
function waiting.plug(candidate)
  if stop then
    stop()
    stop = nil
  end
  if timer then
    timer()
    timer = nil
  end
  loop = nil
  if candidate then
    loop = {
      now = candidate.now,
      delay = candidate.delay,
      suspend = candidate.suspend or coroutine.yield,
      resume = candidate.resume or default_resume,
      wake = candidate.wake,
    }
    listen()
  end
  scheduler.host(loop and kick, loop and function(seconds)
    local start = loop.now()
    suspend(seconds)
    return loop.now() - start
  end)
end

-- ----------------------------------------------------- what the core calls --

-- In a coroutine that has a context, which ends the wait.
local function wait_in_scope(w, context)
  local yields = isyieldable()
  local it <close> = inside.listen(context, yields and running() or nil)
  if it.ended then
    return
  elseif yields then
    while not w:over() and not it.ended and scheduler.park(w) do
      -- it was woken in time, or for nothing
    end
    scheduler.drop_word(it.thread)
  else
    scheduler.check_turnable "a wait"
    scheduler.turn_for(w, it)
  end
end

-- Of the running coroutine, where our scheduler has it: its context.
local function context_here()
  local owner = inside.scope_of(running())
  if owner and (scheduler.inside() or not isyieldable()) then
    return owner:_scope()
  end
end

local function wait(w)
  local context = context_here()
  if context then
    return wait_in_scope(w, context)
  elseif isyieldable() then
    if scheduler.inside() then
      while not w:over() and scheduler.park(w) do -- luacheck: ignore
      end
      return
    elseif loop then
      return suspend_for(w)
    end
  end
  if scheduler.busy() and not scheduler.inside() then
    scheduler.turn_for(w)
  else
    block(w)
  end
end

-- True: the context has ended.
local function pause(seconds)
  local context = context_here()
  if context then
    return context:_err() ~= nil or
           inside.park("a wait", running(), scheduler.microseconds(seconds),
                       context) == inside.ENDED
  elseif isyieldable() then
    if scheduler.inside() then
      scheduler.wait(seconds)
      return
    elseif loop then
      suspend(seconds)
      return
    end
  end
  if scheduler.busy() and not scheduler.inside() then
    scheduler.turn_until(seconds)
  else
    clock.sleep(seconds)
  end
end

-- Deadlines of suspended functions have passed: their coroutines are resumed,
-- and end.
local function late()
  bell.late(not blocking)
end

-- The core wants that for a thread.  owned: it is suspended in a function of
-- ours, or was resumed by one.  False: it is not ours to resume; ask: is it?
local function expire(thread, owned, ask)
  local wake = suspended[thread]
  if not wake then
    return owned and scheduler.expire(thread, ask)
  elseif not ask then
    wake()
  end
  return true
end

-- waiting.install(scheduler): called by executionguard.task, once.
function waiting.install(lent)
  scheduler = lent
  bell.set(wait, pause, late, expire)
end

core.own.claim()

return waiting
