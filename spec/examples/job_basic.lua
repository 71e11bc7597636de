-- SPDX-License-Identifier: MIT
-- A job: work in the background, waited for.

local job = require "executionguard.job"

-- Create and run a simple job
local done = false
local j = job.new("my-job", job.wrap(function()
  -- your job logic here
  done = true
end))

j:Run()
j:Wait()

if j:Err() then
  error("Job failed: " .. tostring(j:Err()))
end
assert(done and j:IsState(job.State.Succeeded))
print(j:ID(), j:State())
