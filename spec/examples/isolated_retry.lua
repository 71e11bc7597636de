-- SPDX-License-Identifier: MIT
-- Try again and again, with delays that double: for a command that is better
-- run late than never, and not worth a place in the queue.

local Isolation = require "executionguard.isolation"
local task = require "executionguard.task"

local lockDir = os.tmpname()
os.remove(lockDir)

local function run_with_retries(command, retries, fn)
  local isolation = Isolation.new(command, { lockDir = lockDir })
  local delay, last = 0.01, nil
  for attempt = 1, retries do
    local guard <close>, err = isolation:Lock()
    if guard then
      print(("%s: got it at attempt %d"):format(command, attempt))
      return attempt, fn()
    end
    last = err
    if attempt < retries then
      print(("%s: not free, again in %g s"):format(command, delay))
      task.wait(delay)
      delay = math.min(delay * 2, 30)
    end
  end
  return nil, last
end

local gave_up, attempt, result

-- Somebody has it for a while ...
task.spawn(function()
  local guard <close> = assert(Isolation.new("report",
    { lockDir = lockDir }):Lock())
  repeat task.wait(0.01) until gave_up
  assert(guard:Held())
end)

-- ... too long for one, not for the other.
task.spawn(function()
  local _, err = run_with_retries("report", 2, function() end)
  gave_up = err
end)
task.spawn(function()
  attempt, result = run_with_retries("report", 20, function()
    return "report of today"
  end)
end)
task.run()

print("the impatient one:", gave_up)
print("the patient one:", attempt, result)
assert(gave_up.kind == "AlreadyRunning")
assert(attempt > 1 and result == "report of today")

-- To be woken instead, at once and in order: LockWithTimeout.
local guard = assert(Isolation.new("report",
  { lockDir = lockDir, timeout = 60 }):Lock())
guard:Release()

os.execute("rm -r '" .. lockDir .. "'")
