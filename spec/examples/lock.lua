-- SPDX-License-Identifier: MIT
-- Keep two from doing the same thing at the same time.

local ExecutionGuard = require "executionguard"

local guard <close> = ExecutionGuard.new()

-- A lock in a <close> variable ends with its block: by its end, by return and
-- break, and by an error too.
local function transfer(from, amount)
  local lock <close>, reason = guard:Lock("account:" .. from, 0) -- do not wait
  if not lock then
    return nil, reason
  end
  assert(guard:IsLocked("account:" .. from))
  if amount > 100 then
    error("not enough money", 0)
  end
  return lock.token -- hand it on: whoever stores this can refuse older ones
end

local first = transfer("ann", 10)
print("the first transfer has token", first)
print("one that fails:             ", pcall(transfer, "ann", 1000))
assert(not guard:IsLocked "account:ann")

local second = transfer("ann", 20)
print("the next has a higher one:  ", second)
assert(second > first)

-- By hand: AcquireLock and ReleaseLock, which must not be forgotten.
local ok, token = guard:AcquireLock "account:bob"
print("bob is locked by hand:      ", ok, token)
print("so a transfer is refused:   ", transfer("bob", 10))
assert(select(2, transfer("bob", 10)) == "locked")
assert(guard:ReleaseLock("account:bob", token) and transfer("bob", 10))
