-- SPDX-License-Identifier: MIT
-- How far a job is, told while it runs; its statistics afterwards.

local job = require "executionguard.job"
local task = require "executionguard.task"
-- A clock that is moved by hand, so that this ends at once; leave it out.
local clock <close> = require("executionguard.testing").clock()

local function upload_chunk()
  task.wait(0.1) -- here the work would be; others go on meanwhile
end

local j = job.new("upload", function(ctx)
  for i = 0, 99 do
    ctx:SetProgress(i / 100)
    local ok, err = upload_chunk(i)
    if err then
      return ok, err
    end
  end
end)

-- Monitor progress
local told = {}
task.spawn(function()
  while not j:IsDone() do
    local progress = math.max(j:Progress(), 0)
    told[#told + 1] = ("Progress: %.0f%%"):format(progress * 100)
    print(told[#told])
    task.wait(1)
  end
end)

j:Run()
j:Wait()
assert(#told >= 10 and told[4] == "Progress: 29%")

-- Job statistics
local stats = j:Stats()
print(("Job: %s, State: %s, Duration: %.1f s"):format(stats.id, stats.state,
  stats.executionTime))
print(("Progress: %.0f%%, Error: %s"):format(stats.progress * 100,
  stats.error))
assert(stats.state == "succeeded" and clock:steady() > 0)
