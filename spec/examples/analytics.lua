-- SPDX-License-Identifier: MIT
-- What has run, how often, what came of it: records, counts, the summary.

local ExecutionGuard = require "executionguard"

local guard <close> = ExecutionGuard.new()

for _, name in ipairs { "maps", "players", "maps", "maps" } do
  guard:RunOnce("load:" .. name, function() return #name end)
end
guard:RunOnce("connect", function() error("refused", 0) end)

-- One record, all records (as snapshots), and how many there are by status.
local record = guard:GetRecord "load:maps"
print(("%s: %s, run %d time(s), result %d"):format(
  record.key, record.status, record.executionCount, record.result))
assert(record.executionCount == 1 and record.result == 4)

for key, each in pairs(guard:GetAllRecords()) do
  print(key, each.status, each.error and each.error:match "[^\n]+" or "")
end

local analytics = guard:GetAnalytics()
assert(analytics.totalRecords == 3)
assert(analytics.byStatus.Completed == 2 and analytics.byStatus.Failed == 1)

-- The counts are of all guards of the process.
local counts = ExecutionGuard.getGlobalStats()
assert(counts.totalExecutions == 3 and counts.cachedResults == 2)
assert(counts.failedExecutions == 1)

ExecutionGuard.printSummary(guard)
