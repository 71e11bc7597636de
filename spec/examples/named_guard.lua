-- SPDX-License-Identifier: MIT
-- Two parts of a program that know nothing of each other, and share a name.

local ExecutionGuard = require "executionguard"

-- Guards of the same name have the same records, in every Lua state and thread
-- of the process.  What they store is data: no functions, no userdata.
local shop <close> = ExecutionGuard.new { name = "orders", owner = "shop" }
local mail <close> = ExecutionGuard.new { name = "orders", owner = "mail" }
local paid = 0

local function pay(guard)
  return guard:RunOnce("order:4711", function()
    paid = paid + 1
    coroutine.yield() -- as a function would that waits for the bank
    return { receipt = 1 }
  end)
end

-- The shop begins, and is in the middle of it ...
local job = coroutine.create(pay)
assert(coroutine.resume(job, shop))

-- ... when the mail arrives with the same order.  It is not paid twice, and
-- one can see who is at it.
local ok, _, reason = pay(mail)
local owner = mail:GetRecord("order:4711").owner
print("mail:", ok, reason, "by " .. owner.text)
assert(not ok and reason == "running" and owner.text == "shop")

-- The shop goes on; from now on the receipt is there for everybody.
local _, success, result = coroutine.resume(job)
print("shop:", success, "receipt " .. result.receipt)
ok, result, reason = pay(mail)
print("mail:", ok, "receipt " .. result.receipt, reason)
assert(ok and result.receipt == 1 and reason == "cached" and paid == 1)
