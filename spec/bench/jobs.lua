-- SPDX-License-Identifier: MIT
-- Jobs: run and awaited, on a coroutine and on a thread; their progress, and
-- what one that is done keeps.

local job = require "executionguard.job"
local tool = require "benchtool"
local measure = require "measure"

local now = tool.now

local function nothing() end

-- ------------------------------------------------------- on a coroutine --

local function run_and_wait(j, n)
  local start = now()
  for _ = 1, n do
    j:Run()
    j:Wait()
  end
  return (now() - start) / n
end

local function bare_coroutine(n)
  local create, resume = coroutine.create, coroutine.resume
  local start = now()
  for _ = 1, n do
    resume(create(nothing))
  end
  return (now() - start) / n
end

local function report_coroutine(report, quick)
  local n = quick and 2000 or 10000
  local empty = job.new("bench", nothing)
  local samples = measure.rounds(quick and 9 or 25, { "ours", "bare" },
    function(side)
      collectgarbage()
      return side == "ours" and run_and_wait(empty, n) or bare_coroutine(n)
    end)
  report:line { what = "Run + Wait of an empty job", samples = samples,
    against = "bare", name = "coroutine create + resume", goal = 5 }
end

-- -------------------------------------------------------------- progress --

local function set_progress(ctx, n)
  local start = now()
  for _ = 1, n do
    ctx:SetProgress(0.5)
  end
  return (now() - start) / n
end

local function empty_method(object, n)
  local start = now()
  for _ = 1, n do
    object:empty(0.5)
  end
  return (now() - start) / n
end

local function report_progress(report, quick)
  local n, object = quick and 20000 or 100000, tool.object()
  local timer = job.new("bench", function(ctx)
    return set_progress(ctx, n)
  end)
  local samples = measure.rounds(quick and 9 or 25, { "ours", "empty" },
    function(side)
      if side == "empty" then
        return empty_method(object, n)
      end
      timer:Run()
      timer:Wait()
      return timer:Result()
    end)
  report:line { what = "SetProgress", samples = samples, against = "empty",
    name = "empty C method", goal = 3 }
end

-- ---------------------------------------------------------------- memory --

local function ten_fields(i)
  return { id = i, state = "a", progress = 0.5, created = 1.5, started = 2.5,
    ended = 3.5, took = 4.5, labels = false, result = true, owner = "b" }
end

local function done_job()
  local j = job.new("bench", nothing)
  j:Run()
  j:Wait()
  return j
end

-- Bytes of one of n.
local function bytes(make, n)
  local kept = table.pack(table.unpack({}, 1, n))
  make(0)
  collectgarbage()
  collectgarbage()
  local before = collectgarbage "count"
  for i = 1, n do
    kept[i] = make(i)
  end
  collectgarbage()
  collectgarbage()
  return (collectgarbage "count" - before) * 1024 / n
end

local function report_memory(report, quick)
  local n = quick and 2000 or 20000
  local samples = measure.rounds(3, { "ours", "table" }, function(side)
    return bytes(side == "ours" and done_job or ten_fields, n)
  end)
  report:line { what = "a job that is done, without a result",
    samples = samples, against = "table", name = "a table of ten fields",
    goal = 2.5, unit = "B" }
end

-- ------------------------------------------------------------ on threads --

local function figure_of(command)
  local pipe = io.popen(command)
  local figure = pipe and pipe:read "n"
  if pipe then
    pipe:close()
  end
  return (assert(figure, command .. " failed"))
end

local function report_handover(report, build, quick)
  local n = quick and 2000 or 10000
  local names = { "ours", "bare" }
  local go = io.open(build .. "/channel")
  if go then
    go:close()
    names[3] = "go"
  end
  local commands = { bare = "handover", go = "channel" }
  local empty = job.new("bench", job.worker(function() end))
  local samples = measure.rounds(quick and 5 or 15, names, function(side)
    if side == "ours" then
      return run_and_wait(empty, n)
    end
    return figure_of(("%s/%s %d"):format(build, commands[side], n))
  end)
  report:line { what = "Run + Wait of an empty job on a worker",
    samples = samples, against = "bare", name = "hand-over of two threads",
    goal = 2 }
  if go then
    report:line { what = "the same", samples = samples, against = "go",
      name = "goroutine and channels" }
  end
end

local function burn(ctx)
  local x = 0
  for i = 1, ctx:GetParams() do
    x = (x * 31 + i) % 1000003
  end
  return x
end

-- Works a second, of so many jobs at a time.
local function speed_of(workers, work)
  local jobs = {}
  for i = 1, workers do
    jobs[i] = job.new("bench", job.worker(burn))
  end
  local start = now()
  for _, j in ipairs(jobs) do
    j:Run(nil, work)
  end
  for _, j in ipairs(jobs) do
    j:Wait()
  end
  return workers / (now() - start) * 1e9
end

local function report_parallel(report, quick)
  local work = quick and 2000000 or 10000000
  local samples = measure.rounds(quick and 3 or 9, { "two", "one" },
    function(side)
      return speed_of(side == "two" and 2 or 1, work)
    end)
  report:line { what = "work on two workers", samples = samples, ours = "two",
    against = "one", name = "one worker", goal = 1.8, least = true,
    unit = "works/s" }
end

return function(report, build, quick)
  report_coroutine(report, quick)
  report_progress(report, quick)
  report_memory(report, quick)
  if report.cores < 2 then
    return report:skip("jobs on workers", "there is only one core")
  end
  report_handover(report, build, quick)
  report_parallel(report, quick)
end
