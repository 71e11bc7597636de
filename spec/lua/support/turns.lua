-- SPDX-License-Identifier: MIT
-- For specs of what the scheduler runs: the test clock, moved by waiting;
-- afterwards nothing may be left over.

local core = require "executionguard.core"
local inside = require "executionguard.inside"
local job = require "executionguard.job"
local task = require "executionguard.task"
local world = require "support.world"

local turns = {}

local start

--- Seconds since the spec began.
function turns.passed()
  return core.clock.steady() - start
end

--- For before_each.
function turns.begin()
  world.start(true)
  start = core.clock.steady()
end

--- For after_each.
function turns.finish()
  local left = task.step()
  world.stop()
  assert(left == nil, "something was left over")
  assert(next(inside.scopes) == nil, "a coroutine has kept its context")
end

--- A job that fails so many times, and then succeeds; and how often it ran.
function turns.failing(times)
  local calls = 0
  return job.new("api", function()
    calls = calls + 1
    if calls <= times then
      return nil, "failure " .. calls
    end
    return "result " .. calls
  end), function() return calls end
end

return turns
