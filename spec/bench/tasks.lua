-- SPDX-License-Identifier: MIT
-- Coroutines that wait in executionguard.task, all woken; beside it as many
-- bare ones, resumed one after the other.

local core = require "executionguard.core"
local task = require "executionguard.task"
local tool = require "benchtool"
local measure = require "measure"

local now = tool.now

local SECONDS <const> = 0.02

local function bare(n)
  local yield, resume = coroutine.yield, coroutine.resume
  local threads = {}
  for i = 1, n do
    threads[i] = coroutine.create(function() yield() end)
    resume(threads[i])
  end
  collectgarbage()
  local start = now()
  for i = 1, n do
    resume(threads[i])
  end
  return (now() - start) / n
end

-- Each waits SECONDS, and up to `spread` seconds more.
local function woken(n, spread)
  local wait = task.wait
  for _ = 1, n do
    local seconds = SECONDS + spread * math.random()
    task.spawn(function() wait(seconds) end)
  end
  collectgarbage()
  core.clock.sleep(SECONDS + spread)
  local start = now()
  task.run()
  return (now() - start) / n
end

local function report_one(report, what, rounds, n, goals)
  local samples = measure.rounds(rounds, { "ours", "bare", "spread" },
    function(side)
      if side == "bare" then
        return bare(n)
      end
      return woken(n, side == "spread" and 0.1 or 0)
    end)
  report:line { what = what .. " in task.wait, woken", samples = samples,
    against = "bare", name = "bare resume", goal = goals and 3 }
  if goals then
    report:line { what = what .. ", each waiting differently long",
      samples = samples, ours = "spread", against = "bare",
      name = "bare resume" }
  end
end

return function(report, quick)
  report_one(report, "1e5 coroutines", quick and 3 or 9, 100000, true)
  report_one(report, "1e4 coroutines", quick and 3 or 9, 10000)
end
