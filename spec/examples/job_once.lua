-- SPDX-License-Identifier: MIT
-- A database migration: it must succeed exactly once, but can be tried again
-- when it fails.

local job = require "executionguard.job"
local executor = require "executionguard.executor"
-- A clock that is moved by hand, so that this ends at once; leave it out.
local clock <close> = require("executionguard.testing").clock()

local attempts, start = 0, clock:steady()
local migration = job.new("migration", function()
  attempts = attempts + 1
  return attempts > 2 and "migrated" or nil, "the database is away"
end)

local exec = executor.new(migration,
  executor.Once(),            -- only one successful execution
  executor.WithRetry(5, 2),   -- retry transient failures
  executor.WithTimeout(30))   -- timeout per attempt

assert(exec:Start())             -- retries up to 5 times
assert(attempts == 3 and clock:steady() - start == 4)

local ok, err = exec:Start()     -- "job can only start once"
print(err)
assert(not ok and tostring(err) == "job can only start once")
assert(attempts == 3 and migration:Result() == "migrated")

-- With a guard once holds for every process that shares its store.
local ExecutionGuard = require "executionguard"
local guard <close> = ExecutionGuard.new { name = "migrations" }
local elsewhere <close> = ExecutionGuard.new { name = "migrations" }

local function migrate()
  return { tables = 12 }
end
local here = executor.new(job.new("v7", migrate),
                          { once = true, guard = guard })
local there = executor.new(job.new("v7", migrate),
                           { once = true, guard = elsewhere })
assert(here:Start())
ok, err = there:Start()
print(err.kind, err.result.tables)
assert(not ok and err.kind == "Once" and err.result.tables == 12)
