-- SPDX-License-Identifier: MIT
-- The calls of one guard on a few keys: cached RunOnce, lock and unlock, first
-- runs.

local ExecutionGuard = require "executionguard"
local Plain = require "plain"
local tool = require "benchtool"
local measure = require "measure"

local now = tool.now

local function result()
  return 42
end

local function nothing() end

local function a_table()
  return {}
end

-- Nanoseconds a call; the loop is part of it, on every side.  What is measured
-- is written out each time: a function more would be a part of the figure.
local cached = {}

function cached.guard(guard, fn, n)
  local key = "player:1001"
  guard:RunOnce(key, fn)
  local start = now()
  for _ = 1, n do
    guard:RunOnce(key, fn)
  end
  return (now() - start) / n
end

function cached.options(guard, fn, n)
  local key = "player:1001"
  guard:RunOnce(key, fn)
  local start = now()
  for _ = 1, n do
    guard:RunOnce(key, fn, { timeout = 5 })
  end
  return (now() - start) / n
end

local function empty(object, n)
  local key = "player:1001"
  local start = now()
  for _ = 1, n do
    object:empty(key)
  end
  return (now() - start) / n
end

local function locks(guard, n)
  local key = "player:1001"
  local start = now()
  for _ = 1, n do
    guard:AcquireLock(key)
    guard:ReleaseLock(key)
  end
  return (now() - start) / n
end

-- As f, in a coroutine of its own.
local function inside(f)
  return function(...)
    return coroutine.wrap(f)(...)
  end
end

local PARTS = 9 -- of a round, each a millisecond or two

-- f(guard, n) for ours and plain, and the empty method n times.
local function against_plain(rounds, n, f)
  local guards = { ours = ExecutionGuard.new(), plain = Plain.new(os.time) }
  local object = tool.object()
  return measure.rounds(rounds, { "ours", "plain", "empty" }, function(name)
    if name == "empty" then
      return empty(object, n)
    end
    return f(guards[name], n)
  end, PARTS)
end

local function report_cached(report, rounds, n)
  local samples = against_plain(rounds, n, function(guard, count)
    return cached.guard(guard, result, count)
  end)
  report:line { what = "cached RunOnce", samples = samples,
    against = "plain", goal = 0.75 }
  report:line { what = "cached RunOnce", samples = samples,
    against = "empty", name = "empty C method", goal = 3.2 }
end

-- What counting costs: in all, by key, and how long was waited.  A child
-- process for each side and round; `build` has a module without counters.
local function report_counters(report, rounds, here, build)
  local lua = os.getenv "LUA" or "lua5.4"
  local commands = {
    ours = ("%s %s/counters.lua ''"):format(lua, here),
    without = ("%s %s/counters.lua %s/nocounters/lua"):format(lua, here,
                                                              build),
  }
  local lines = { { "cached", "cached RunOnce, with counters" },
                  { "locks", "AcquireLock + ReleaseLock, with counters" } }
  local samples = { cached = { ours = {}, without = {} },
                    locks = { ours = {}, without = {} } }
  for r = 1, rounds do
    for _, side in ipairs(r % 2 == 0 and { "ours", "without" }
                          or { "without", "ours" }) do
      for what, list in pairs(measure.figures(commands[side])) do
        samples[what][side][r] = measure.median(list)
      end
    end
  end
  for _, line in ipairs(lines) do
    report:line { what = line[2], samples = samples[line[1]],
      against = "without", name = "compiled out", goal = 1.08 }
  end
end

local function report_variants(report, rounds, n)
  local variants = {
    { "cached RunOnce, the result a table", function(guard, count)
      return cached.guard(guard, a_table, count)
    end },
    { "cached RunOnce, in a coroutine", inside(function(guard, count)
      return cached.guard(guard, result, count)
    end) },
    { "cached RunOnce with {timeout=5}", function(guard, count)
      return cached.options(guard, result, count)
    end },
  }
  for _, variant in ipairs(variants) do
    local samples = against_plain(rounds, n, variant[2])
    report:line { what = variant[1], samples = samples, against = "plain" }
  end
end

local function report_locks(report, rounds, n)
  local samples = against_plain(rounds, n, locks)
  report:line { what = "AcquireLock + ReleaseLock", samples = samples,
    against = "plain", goal = 1.2 }
  report:line { what = "AcquireLock + ReleaseLock", samples = samples,
    against = "empty", name = "one empty C method", goal = 6.5 }
end

local function first_runs(guard, keys)
  local start = now()
  for i = 1, #keys do
    guard:RunOnce(keys[i], nothing)
  end
  return (now() - start) / #keys
end

local function inserts(t, keys)
  local start = now()
  for i = 1, #keys do
    t[keys[i]] = { status = "Completed" }
  end
  return (now() - start) / #keys
end

-- Everybody begins with an empty guard or table and a collected heap; what
-- collecting costs meanwhile is part of what they cost.
local function first(keys, wrap)
  local sides = {
    ours = function()
      local guard <close> = ExecutionGuard.new { timeout = 0 }
      return wrap(first_runs)(guard, keys)
    end,
    plain = function()
      return wrap(first_runs)(Plain.new(os.time), keys)
    end,
    insert = function()
      return inserts({}, keys)
    end,
  }
  return function(name)
    collectgarbage()
    return sides[name]()
  end
end

local function directly(f)
  return f
end

local function report_first(report, rounds, n)
  local keys = {}
  for i = 1, n do
    keys[i] = ("player:%07d"):format(i)
  end
  local sides = { "ours", "plain", "insert" }
  local samples = measure.rounds(rounds, sides, first(keys, directly))
  report:line { what = "first run of a trivial function", samples = samples,
    against = "plain", goal = 0.4 }
  report:line { what = "first run of a trivial function", samples = samples,
    against = "insert", name = "t[k] = {status=…}", goal = 2.0 }
  samples = measure.rounds(rounds, sides, first(keys, inside))
  report:line { what = "first run, in a coroutine", samples = samples,
    against = "plain" }
end

return function(report, quick, here, build)
  local rounds = quick and 9 or 25
  report_cached(report, rounds, 20000)
  report_locks(report, rounds, 10000)
  report_counters(report, rounds, here, build)
  report_first(report, quick and 9 or 25, quick and 30000 or 100000)
  report_variants(report, quick and 9 or 15, 10000)
end
