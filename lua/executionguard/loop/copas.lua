-- SPDX-License-Identifier: MIT
-- executionguard.loop.copas: coroutines that wait for a key are run by copas.
--
--   ExecutionGuard.configure { loop = require "executionguard.loop.copas" }
--
-- The timers are ours: not every copas has some.  What copas selects on is a
-- thing that looks like a socket; it is readable when the bell is rung, or the
-- first timer is due.

local copas = require "copas"
local core = require "executionguard.core"
local timers = require "executionguard.timers"

local bell, steady = core.waiting, core.clock.steady

local loop = { now = steady }

local queue, number = timers.new(), 0
local PENDING <const> = coroutine.create(function() end)
local wakers = {} -- functions that are called when the bell is rung
local listening = false

local function set_alarm()
  local due = timers.first(queue)
  bell.alarm(due and math.max(due / 1e6 - steady(), 0))
  return due
end

local function run_due()
  local time = (steady() * 1e6 + 0.5) // 1
  local due = timers.first(queue)
  while due and due <= time do
    local list = queue.heap[1]
    local item = list[list.first]
    timers.pop(queue, list)
    item.thread = nil
    item.fn()
    due = timers.first(queue)
  end
end

local function busy()
  return next(wakers) ~= nil or timers.first(queue) ~= nil
end

-- What copas receives from: nothing at first, so that it selects on it; then
-- an empty string.
local function ringing(fd)
  local asked = false
  return {
    getfd = function() return fd end,
    dirty = function() return false end,
    settimeout = function() return 1 end,
    close = function() end,
    receive = function()
      if asked then
        return ""
      end
      asked = true
      return nil, "timeout", ""
    end,
  }
end

local function listen()
  if listening then
    return
  end
  listening = true
  copas.addthread(function()
    while busy() do
      set_alarm()
      copas.receive(ringing(bell.fd()), 0)
      run_due()
      for fn in pairs(wakers) do
        fn()
      end
    end
    listening = false
  end)
end

function loop.delay(seconds, fn)
  local item = { thread = PENDING, fn = fn }
  local us = math.min(seconds, 1e12) * 1e6 // 1
  number = number + 1
  timers.add(queue, item, us, (steady() * 1e6 + 0.5) // 1 + us, number)
  if listening then
    set_alarm()
  end
  listen()
  return function()
    if item.thread then
      item.thread = nil
      timers.stale(queue)
    end
  end
end

function loop.wake(_, fn)
  local function once() -- a key of its own
    fn()
  end
  wakers[once] = true
  listen()
  return function()
    wakers[once] = nil
    if listening then
      bell.alarm(0)
    end
  end
end

-- In old ones a coroutine that yields nothing is let alone.
loop.suspend = copas.pauseforever
loop.resume = copas.wakeup or copas.addthread

return loop
