-- SPDX-License-Identifier: MIT
-- At most once an hour, asked for every half hour.

local job = require "executionguard.job"
local executor = require "executionguard.executor"
local task = require "executionguard.task"
-- A clock that is moved by hand, so that this ends at once; leave it out.
local clock <close> = require("executionguard.testing").clock()

local scrapes = 0
local scrape = job.new("scrape", function()
  scrapes = scrapes + 1
end)

local exec = executor.new(scrape,
  executor.WithCooldown(60 * 60), -- max once per hour
  executor.WithRetry(3, 10))

-- As a loop ...
local skipped = 0
for _ = 1, 6 do
  task.wait(30 * 60)
  local _, err = exec:Start()
  if err and tostring(err):find "cooldown" then
    print "Skipping: still in cooldown"
    skipped = skipped + 1
  end
end
assert(scrapes == 3 and skipped == 3)

-- ... or in one call.
exec:Reset()
local schedule = executor.schedule(exec, { every = 30 * 60 })
task.wait(3 * 60 * 60 + 60)
schedule:Stop()
local stats = schedule:Stats()
print(stats.runs, "runs,", stats.skips, "skips")
assert(stats.runs == 3 and stats.skips == 3 and scrapes == 6)
task.run()
assert(clock:steady() > 0)
