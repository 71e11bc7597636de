-- SPDX-License-Identifier: MIT
-- Several things at a time in one thread: players join while a map loads.

local ExecutionGuard = require "executionguard"
local task = require "executionguard.task"
local testing = require "executionguard.testing"

-- So that the example is over at once: waiting moves the clock by itself.
local clock <close> = testing.clock()
local guard <close> = ExecutionGuard.new()
local start, loads, told = clock:steady(), 0, {}

local function say(...)
  told[#told + 1] = ("%.1f s  "):format(clock:steady() - start) ..
                    table.concat({ ... }, " ")
  print(told[#told])
end

local function load_map()
  loads = loads + 1
  task.wait(2) -- others go on meanwhile
  return "the harbour"
end

local function join(player)
  local ok, map, reason = guard:RunOnce("map", load_map)
  while not ok and reason == "running" do -- somebody else loads it
    task.wait(0.5)
    ok, map, reason = guard:RunOnce("map", load_map)
  end
  assert(ok)
  say(player, "enters", map)
end

task.onError(function(err)
  say("an error:", err)
end)

for i, player in ipairs { "ann", "bob", "cid" } do
  task.delay(i - 1, join, player)
end
local reminder = task.delay(10, say, "nobody came")
task.delay(5, function()
  task.cancel(reminder)
  error("a task that fails harms no other", 0)
end)
task.run()

assert(loads == 1)
assert(table.concat(told, "\n") == [[
2.0 s  ann enters the harbour
2.0 s  bob enters the harbour
2.5 s  cid enters the harbour
5.0 s  an error: a task that fails harms no other]])
