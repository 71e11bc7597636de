-- SPDX-License-Identifier: MIT
-- Work that takes too long, and work that fails and is tried again.

local ExecutionGuard = require "executionguard"
-- A clock that is moved by hand, so that this ends at once; leave it out.
local clock <close> = require("executionguard.testing").clock()

local guard <close> = ExecutionGuard.new()

local function fetch(seconds)
  return guard:RunOnce("report", function()
    clock:advance(seconds) -- here the work would be
    return "the report"
  end, {
    timeout = 5,
    onTimeout = function(key) print(key .. " took longer than 5 s") end,
  })
end

-- What comes too late does not count ...
local ok, result, reason = fetch(8)
print("slow: ", ok, result, reason, guard:GetStatus "report")
assert(not ok and reason == "timeout")
assert(guard:GetStatus "report" == "TimedOut")

-- ... and may be tried again.
ok, result = fetch(2)
print("quick:", ok, result, guard:GetStatus "report")
assert(ok and result == "the report")

-- Errors can be retried within one call: after 1 s, 2 s ..., less some chance.
local attempts, start = 0, clock:steady()
ok, result = guard:RunOnce("upload", function()
  attempts = attempts + 1
  return attempts == 3 and "uploaded" or error("connection reset")
end, { retry = { attempts = 4, delay = 1, factor = 2 } })
print(("%s after %d attempts, %.1f s"):format(result, attempts,
                                              clock:steady() - start))
assert(ok and attempts == 3 and clock:steady() - start <= 3)
