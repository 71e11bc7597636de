-- SPDX-License-Identifier: MIT
-- An import that fails, and one that is killed: what is left, and who cleans
-- it up.

local Isolation = require "executionguard.isolation"
local task = require "executionguard.task"

local lockDir = os.tmpname()
os.remove(lockDir)

local isolation = Isolation.new("data:import"):WithLockDir(lockDir)

local function import(fn)
  local guard <close>, err = isolation:Lock()
  if not guard then
    print("could not acquire the lock: " .. err)
    return false
  end
  local rows <close> = setmetatable({}, { __close = function(_, why)
    if why then
      print("the rows that were half imported are removed")
    end
  end }) -- closed before the guard: nobody else sees the half of it
  fn(rows)
  return true
end

-- It fails: the error goes on, the lock is gone.
local ok, why = pcall(import, function() error("row 17 is no row", 0) end)
print("the import failed:", why)
assert(not ok and not isolation:IsLocked())

-- Its process is killed: the kernel frees the lock in that moment.  The line
-- in the lock file, who had it, is all that is left.
local script = os.tmpname()
local file = assert(io.open(script, "w"))
file:write(([[
local isolation = require "executionguard.isolation".new("data:import",
  { lockDir = "%s" })
local guard = assert(isolation:Lock())
os.execute "kill -9 $PPID"
]]):format(lockDir))
file:close()
os.execute("{ " .. (os.getenv "LUA" or "lua5.4") .. " " .. script ..
           "; } 2>/dev/null")
os.remove(script)
assert(not isolation:IsLocked())
print("left behind:", isolation:ReleaseAll(), "by a process that is dead")
assert(isolation:ReleaseAll() == 0)

-- ReleaseAll cannot hurt somebody who is alive: flock(1) here.
local other = assert(io.popen(("flock '%s' cat"):format(
  isolation:LockPath()), "w"))
while not isolation:IsLocked() do
  task.wait(0.001)
end
assert(isolation:ReleaseAll() == 0 and isolation:IsLocked())
print("somebody has it:", select(2, isolation:Lock()))
other:close()
assert(not isolation:IsLocked())

os.execute("rm -r '" .. lockDir .. "'")
