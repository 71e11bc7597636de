-- SPDX-License-Identifier: MIT
-- Tasks that wait for one lock: nobody blocks, and they come in order.

local ExecutionGuard = require "executionguard"
local task = require "executionguard.task"

local guard = ExecutionGuard.new()

for _, name in ipairs { "first", "second", "third" } do
  task.spawn(function()
    local lock <close> = assert(guard:Lock("printer", 5))
    print(name .. " prints")
    task.wait(0.01)
    assert(lock:Held())
  end)
end

task.run() -- returns when nobody waits any more
assert(not guard:IsLocked "printer")
