-- SPDX-License-Identifier: MIT
-- A command that runs at most once at a time on this machine, and what its
-- second call does: wait a little, then say so and give up with good grace.

local Isolation = require "executionguard.isolation"
local task = require "executionguard.task"

local lockDir = os.tmpname() -- yours would be ".executionguard/locks"
os.remove(lockDir)

-- What every kind of error means to whoever called the command.
local SENTENCES = {
  AlreadyRunning = function(err)
    return ("'%s' is running since %s"):format(err.command, err.lockedAt)
  end,
  Timeout = function(err)
    return ("'%s' still runs after %g s: skipped"):format(err.command,
      err.timeout)
  end,
  PermissionDenied = function(err) return "may not: " .. err.message end,
  LockFileError = function(err) return "bad lock file: " .. err.message end,
  IoError = function(err) return "trouble: " .. err.message end,
}

local ran = 0

local function clear_cache(work)
  local isolation = Isolation.new("cache:clear", { lockDir = lockDir })
  local guard <close>, err = isolation:LockWithTimeout(0.02)
  if not guard then
    local sentence = SENTENCES[err.kind](err)
    print("cache:clear  " .. sentence)
    return false, err.kind
  end
  print("cache:clear  clearing, the lock is " .. guard.path)
  ran = ran + 1
  work()
  return true
end -- here the guard is released, by an error too

-- Two that were started at the same time, as by two cron jobs.
local second, why
task.spawn(clear_cache, function()
  repeat task.wait(0.01) until why -- takes longer than the other will wait
end)
task.spawn(function() second, why = clear_cache(error) end)
task.run()
assert(second == false and why == "Timeout" and ran == 1)

-- Afterwards it is free again, and who does not want to wait uses Lock.
local isolation = Isolation.new("cache:clear", { lockDir = lockDir })
assert(not isolation:IsLocked() and clear_cache(function() end) and ran == 2)
do
  local guard <close> = assert(isolation:Lock())
  local _, err = isolation:Lock()
  print(err) -- Command 'cache:clear' is already running (locked at: ...)
  assert(err.kind == "AlreadyRunning" and guard:Held())
end

-- Within one process memory is enough, and faster.
local quick = Isolation.new("cache:warm"):WithStrategy("memory")
do
  local guard <close> = assert(quick:Lock())
  assert(quick:IsLocked() and guard:Held())
end
assert(not quick:IsLocked())

os.execute("rm -r '" .. lockDir .. "'")
