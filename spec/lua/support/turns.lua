-- SPDX-License-Identifier: MIT
-- For specs of what the scheduler runs: the test clock, moved by waiting;
-- afterwards nothing may be left over.

local core = require "executionguard.core"
local inside = require "executionguard.inside"
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

return turns
