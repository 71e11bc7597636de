-- SPDX-License-Identifier: MIT
-- Cancelling: a job that looks at its context, and one that does not.

local job = require "executionguard.job"
local task = require "executionguard.task"
-- A clock that is moved by hand, so that this ends at once; leave it out.
local clock <close> = require("executionguard.testing").clock()

local rounds = 0
local j = job.new("long-running", job.wrap(function(context)
  while not context:Done() do
    rounds = rounds + 1 -- do work
    task.wait(1)
  end
  return nil, context:Err()
end))

-- Run starts the job in the background
local start = clock:steady()
j:Run()

-- Cancel after 5 seconds
task.wait(4.5)
j:Cancel()
j:Wait()

if j:IsState(job.State.Canceled) then
  print "Job was canceled"
end
assert(j:IsState "canceled" and rounds == 5)
assert(clock:steady() - start == 4.5) -- its wait ended at once

-- One that does not look is ended after the grace time, 0.1 s.
local deaf = job.new("deaf", function()
  while true do
    pcall(task.wait, 1)
    coroutine.yield()
  end
end)
deaf:Run()
task.wait(2)
start = clock:steady()
deaf:Cancel()
deaf:Wait()
print(deaf:State(), ("after %.1f s"):format(clock:steady() - start))
assert(deaf:IsState "canceled" and clock:steady() - start < 0.2)
