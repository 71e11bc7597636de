-- SPDX-License-Identifier: MIT
-- All lines, in the order of the table.  Run by spec/bench/run.

local measure = require "measure"
local Report = require "report"

local lua = os.getenv "LUA" or "lua5.4"
local here, build = arg[1], arg[2]
local quick = os.getenv "BENCH" == "quick"

local figures = measure.figures

local function million(...)
  return figures(table.concat({ lua, here .. "/million.lua", ... }, " "))
end

-- One child process for each side and round; samples[what][side].
local function fill(rounds, n)
  local samples = { bytes = {}, worst = {}, collection = {} }
  local sides = { "ours", "plain", "empty" }
  for _, of in pairs(samples) do
    for _, side in ipairs(sides) do
      of[side] = {}
    end
  end
  for r = 1, rounds do
    for i = 1, #sides do
      local side = sides[(r + i) % #sides + 1]
      for name, list in pairs(million("fill", side, n)) do
        samples[name][side][r] = list[1]
      end
    end
  end
  return samples
end

local function keep(rounds, n)
  local samples = { ours = {}, plain = {} }
  for r = 1, rounds do
    for side, list in pairs(samples) do
      list[r] = million("keep", side, n).bytes[1]
    end
  end
  return samples
end

local function a_million_keys(report)
  local n = 1000000
  local samples = fill(quick and 1 or 9, n)
  report:line { what = "1e6 keys: resident bytes a completed key",
    samples = samples.bytes, against = "plain", goal = 0.22, unit = "B" }
  if not quick then
    report:line { what = "1e6 keys: the same, caller keeps all keys",
      samples = keep(3, n), against = "plain", unit = "B" }
  end
  report:line { what = "1e6 keys: worst single insert",
    samples = samples.worst, against = "plain", goal = 5e5, absolute = true }
  report:line { what = "1e6 keys: the same, of an empty method",
    samples = samples.worst, ours = "empty", against = "plain" }
  report:line { what = "1e6 keys: read of random completed keys",
    samples = million("read", n, quick and 10 or 40), against = "plain",
    goal = 0.65 }
  report:line { what = "1e6 keys: a full collection",
    samples = samples.collection, against = "plain", goal = 0.001 }
end

local function apart(report)
  local samples = figures(("%s/threads apart %d %d"):format(build,
    quick and 200000 or 500000, quick and 9 or 25))
  local speed = {}
  for name, list in pairs(samples) do
    speed[name] = {}
    for i, ns in ipairs(list) do
      speed[name][i] = 1e3 / ns
    end
  end
  report:line { what = "two threads, cached reads of different keys",
    samples = speed, ours = "two", against = "one", name = "one thread",
    goal = 1.7, least = true, unit = "calls/µs" }
  local machine = measure.ratio(speed.spin_two, speed.spin_one)
  report:note(("Two threads that share nothing reach %.2f (%.2f..%.2f) " ..
    "times one here."):format(machine.median, machine.least, machine.most))
end

local function same(report)
  local what = "two threads, the same cached key"
  local flight = io.open(build .. "/flight")
  if not flight then
    return report:skip(what, "there is no Go, or no singleflight for it")
  end
  flight:close()
  local calls = quick and 200000 or 500000
  local samples = measure.rounds(quick and 9 or 15, { "ours", "go" },
    function(side)
      local program = side == "ours" and "threads same" or "flight"
      local command = ("%s/%s %d"):format(build, program, calls)
      return figures(command).same[1]
    end)
  report:line { what = what, samples = samples, against = "go",
    name = "Go singleflight", goal = 0.5 }
end

local function two_threads(report)
  if report.cores < 2 then
    report:skip("two threads on one named guard", "there is only one core")
    return
  end
  apart(report)
  same(report)
end

local cores = io.popen "nproc"
local report = Report.new(lua, cores:read "n")
cores:close()
require "calls"(report, quick, here, build)
a_million_keys(report)
two_threads(report)
require "tasks"(report, quick)
require "deadlines"(report, build, quick)
require "jobs"(report, build, quick)
require "stores"(report, here, build, quick)
require "eguard"(report, build, quick)
require "watching"(report, build, quick)
require "page"(report, here, build, quick)
report:write(build .. "/results.md")
print("the table: " .. build .. "/results.md")
