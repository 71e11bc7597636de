-- SPDX-License-Identifier: MIT
-- What deadlines cost, how late they are kept, and how a lock is handed over.

local ExecutionGuard = require "executionguard"
local tool = require "benchtool"
local measure = require "measure"

local now, figures = tool.now, measure.figures

-- Some arithmetic, calls and a table.
local function body(n)
  local t, x = {}, 0
  local function add(a, b) return a + b end
  for i = 1, n do
    x = add(x, i % 7) * 0.5
    t[i & 15] = x
  end
  return t
end

local function guarded_loop(report, quick)
  local guard = ExecutionGuard.new { timeout = 3600 }
  local n, again = 1000000, { allowRerun = true }
  local samples = measure.rounds(quick and 5 or 15, { "ours", "bare" },
    function(side)
      local start = now()
      if side == "ours" then
        guard:RunOnce("k", function() return body(n) end, again)
      else
        body(n)
      end
      return (now() - start) / n
    end, 3)
  guard:Close()
  report:line { what = "a loop in a guard with a far deadline",
    samples = samples, against = "bare", name = "the bare loop", goal = 1.01 }
end

-- The difference, as a figure of its own.
local function calls(report, build, threads, n, rounds, goal)
  local samples = figures(("%s/deadlines calls %d %d %d"):format(build,
    threads, n, rounds))
  samples.extra = {}
  for i, with in ipairs(samples.with) do
    samples.extra[i] = math.max(with - samples.without[i], 0.1)
  end
  report:line { what = ("what a deadline adds to a RunOnce, %d thread%s")
    :format(threads, threads == 1 and "" or "s"), samples = samples,
    ours = "extra", against = "without", name = "without", goal = goal,
    absolute = true }
end

local function percentile(list, p)
  local sorted = table.move(list, 1, #list, 1, {})
  table.sort(sorted)
  return { math.max(sorted[math.ceil(#sorted * p / 100)], 1) }
end

local function late(report, build, runs)
  local all = figures(("%s/deadlines late %d"):format(build, runs))
  for _, p in ipairs { 50, 99 } do
    report:line { what = ("late after a 20 ms deadline, p%d"):format(p),
      samples = { ours = percentile(all.ours, p),
                  timer = percentile(all.timer, p) },
      against = "timer", name = "bare timer thread",
      goal = p == 50 and 1.5 or 3 }
  end
end

return function(report, build, quick)
  guarded_loop(report, quick)
  calls(report, build, 1, 100000, quick and 5 or 15, 250)
  calls(report, build, 8, 20000, quick and 5 or 15, 400)
  late(report, build, quick and 20 or 200)
  if report.cores < 2 then
    report:skip("hand-over of a lock", "there is only one core")
    return
  end
  report:line { what = "hand-over of a lock between two threads",
    samples = figures(("%s/deadlines hand %d"):format(build,
      quick and 3 or 9)), against = "bare", name = "mutex and condition",
    goal = 1.3 }
end
