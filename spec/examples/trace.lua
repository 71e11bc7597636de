-- SPDX-License-Identifier: MIT
-- A trace of what guards do, to be opened in ui.perfetto.dev, and their
-- records in numbers, for Prometheus.

local ExecutionGuard = require "executionguard"
local task = require "executionguard.task"

local guard = ExecutionGuard.new { name = "shop" }
local path = os.tmpname()
local stop = assert(ExecutionGuard.trace(path))

-- Three customers at one counter: each waits for the one before.
for _, name in ipairs { "Ann", "Bob", "Cid" } do
  task.spawn(function()
    local _ <close> = assert(guard:Lock("counter", 5))
    guard:RunOnce("order of " .. name, function() task.wait(0.01) end)
  end)
end
task.run()

local written, events, dropped = stop()
assert(written and dropped == 0)
print(("%d events in %s: open it in ui.perfetto.dev"):format(events, path))
assert(events >= 8) -- three locks, three runs, two waits
os.remove(path)

local text = guard:Metrics { top = 10 }
print(text:match "executionguard_executions_total{[^\n]*")
assert(text:find 'key_executions_total{[^\n]*key="order of Ann"} 1\n')
