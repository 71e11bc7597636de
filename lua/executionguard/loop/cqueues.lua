-- SPDX-License-Identifier: MIT
-- executionguard.loop.cqueues: coroutines that wait for a key are run by a
-- controller of cqueues.
--
--   local cq = require("cqueues").new()
--   ExecutionGuard.configure {
--     loop = require("executionguard.loop.cqueues").new(cq),
--   }
--
-- A coroutine of cqueues is suspended by a condition of its own.

local cqueues = require "cqueues"
local condition = require "cqueues.condition"

local module = {}

local function wake_at(cq, fn, seconds)
  local stopped, signal = false, condition.new()
  cq:wrap(function()
    signal:wait(seconds)
    if not stopped then
      fn()
    end
  end)
  return function()
    stopped = true
    signal:signal()
  end
end

-- module.new(controller) -> a loop for ExecutionGuard.configure
function module.new(cq)
  local loop = { now = cqueues.monotime }
  local suspended = setmetatable({}, { __mode = "k" })

  function loop.delay(seconds, fn)
    return wake_at(cq, fn, seconds)
  end

  function loop.wake(fd, fn)
    local stopped, signal = false, condition.new()
    cq:wrap(function()
      local readable = { pollfd = fd, events = "r" }
      while not stopped do
        cqueues.poll(readable, signal)
        if not stopped then
          fn()
        end
      end
    end)
    return function()
      stopped = true
      signal:signal()
    end
  end

  function loop.suspend()
    local thread = coroutine.running()
    local signal = condition.new()
    suspended[thread] = signal
    signal:wait()
    suspended[thread] = nil
  end

  -- One that is in none of ours was suspended by somebody else meanwhile.
  function loop.resume(thread)
    local signal = suspended[thread]
    if signal then
      signal:signal()
    end
  end

  return loop
end

return module
