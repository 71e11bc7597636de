-- SPDX-License-Identifier: MIT
-- A job with rules: an API that fails now and then.

local job = require "executionguard.job"
local executor = require "executionguard.executor"
-- A clock that is moved by hand, so that this ends at once; leave it out.
local clock <close> = require("executionguard.testing").clock()

local calls = 0
local function call_api()
  calls = calls + 1
  if calls < 3 then
    return nil, "connection reset"
  end
end

-- Create a job with execution policies
local j = job.new("api-call", job.wrap(call_api))

local exec = executor.new(j,
  executor.WithRetry(3, 2),      -- retry 3 times
  executor.WithTimeout(30),      -- 30 s timeout
  executor.WithCooldown(5 * 60)) -- 5 min cooldown

local start = clock:steady()
local ok, err = exec:Start()
if not ok then
  print("Execution failed: " .. tostring(err))
end
assert(ok and calls == 3 and clock:steady() - start == 4)

ok, err = exec:Start()
print(err)
assert(not ok and err.kind == "Cooldown")
assert(tostring(err) == "job is still in cooldown, 300s left")

-- Executor statistics
local stats = exec:Stats()
print(("Retries: %d, Cooldown: %g s"):format(stats.retries, stats.cooldown))
assert(stats.retries == 2 and stats.cooldown == 300)
