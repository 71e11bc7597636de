-- SPDX-License-Identifier: MIT
-- A file that only the latest holder may write: who was stopped for a while,
-- and believes that the key is still his, is refused by his token.

local ExecutionGuard = require "executionguard"
local fence = require "executionguard.fence"

local path = os.tmpname()
local guard <close> = ExecutionGuard.new()

-- In a guarded function the token is guard:Token(key); a lock has lock.token,
-- and AcquireLock returns it.
guard:RunOnce("report", function()
  assert(fence.write(path, guard:Token "report", "the first report\n"))
end)

local _, old = guard:AcquireLock "report"
guard:Reset "report" -- as if its lease had ended while its process was stopped
local lock <close> = guard:Lock "report"

assert(fence.write(path, lock.token, "the newest report\n"))
print("the older one writes, too:", fence.write(path, old, "too late\n"))
assert(select(2, fence.write(path, old, "too late\n")) == "lost")

for line in io.lines(path) do
  print("what stands there:        ", line)
  assert(line == "the newest report")
end
os.remove(path)
os.remove(path .. ".token")
