-- SPDX-License-Identifier: MIT
-- Watch several commands: which of them run now, who runs them, since when.

local Isolation = require "executionguard.isolation"
local task = require "executionguard.task"

local lockDir = os.tmpname()
os.remove(lockDir)

local commands = { "migrate", "backup", "report" }
local seen = {} -- command -> how often it was seen locked, and free
local over = false

local function monitor(command)
  local isolation = Isolation.new(command, { lockDir = lockDir })
  seen[command] = { locked = 0, free = 0 }
  local before
  while not over do
    local locked = isolation:IsLocked() -- asks, and disturbs nobody
    local word = locked and "locked" or "free"
    seen[command][word] = seen[command][word] + 1
    if locked ~= before then
      print(("%-8s %s"):format(command, word))
      before = locked
    end
    task.wait(0.005) -- yours would be 5
  end
end

-- What is watched: it runs for a while, one after the other.
task.defer(function()
  for _, command in ipairs { "migrate", "backup" } do
    local guard <close> = assert(Isolation.new(command,
      { lockDir = lockDir }):Lock())
    repeat task.wait(0.01) until seen[command].locked > 2
    assert(guard:Held())
  end
  task.wait(0.02)
  over = true
end)

for _, command in ipairs(commands) do
  task.spawn(monitor, command)
end
task.run()

for _, command in ipairs { "migrate", "backup" } do
  assert(seen[command].locked > 0 and seen[command].free > 0)
end
assert(seen.report.locked == 0 and seen.report.free > 0)

os.execute("rm -rf '" .. lockDir .. "'")
