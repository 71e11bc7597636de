-- SPDX-License-Identifier: MIT
-- One side of the lines about a million keys, as a process of its own:
--   million.lua fill SIDE N    memory, worst insert and full collection
--   million.lua keep SIDE N    memory, where the caller keeps the keys
--   million.lua read N ROUNDS  reads of random keys, both sides interleaved
-- Prints lines of names and figures.

local ExecutionGuard = require "executionguard"
local Plain = require "plain"
local tool = require "benchtool"
local measure = require "measure"

local now = tool.now

local function nothing() end

local function one()
  return 1
end

local function key_of(i)
  return ("player:%07d"):format(i)
end

local make = {
  ours = function()
    return ExecutionGuard.new { timeout = 0 }
  end,
  plain = function()
    return Plain.new(os.time)
  end,
  -- What the measuring itself takes, and the machine does to it.
  empty = function()
    local object = tool.object()
    return { RunOnce = function(_, key) return object:empty(key) end }
  end,
}

local function worst_insert(guard, n)
  local worst = 0
  for i = 1, n do
    local key = key_of(i)
    local start = now()
    guard:RunOnce(key, nothing)
    local took = now() - start
    if took > worst then
      worst = took
    end
  end
  return worst
end

local function collection()
  local times = {}
  for i = 1, 3 do
    local start = now()
    collectgarbage()
    times[i] = now() - start
  end
  return measure.median(times)
end

local commands = {}

-- The keys are made on the way and forgotten by the caller, as in a server
-- that gets them from requests: what is resident then is what the guard needs,
-- its copy of the key, or, in plain Lua, the key's string, included.
function commands.fill(side, n)
  n = math.tointeger(n)
  collectgarbage()
  local before = tool.resident()
  local guard = make[side]()
  local worst = worst_insert(guard, n)
  collectgarbage()
  print("bytes", (tool.resident() - before) / n)
  print("worst", worst)
  print("collection", collection())
  guard:RunOnce(key_of(1), nothing) -- it is used until here
end

-- The caller has all keys already: a plain guard needs no memory for them,
-- ours still copies them.
function commands.keep(side, n)
  n = math.tointeger(n)
  local keys = {}
  for i = 1, n do
    keys[i] = key_of(i)
  end
  collectgarbage()
  local before = tool.resident()
  local guard = make[side]()
  for i = 1, n do
    guard:RunOnce(keys[i], nothing)
  end
  collectgarbage()
  print("bytes", (tool.resident() - before) / n)
  guard:RunOnce(keys[1], nothing)
end

local function shuffle(list)
  math.randomseed(20240229, 1)
  for i = #list, 2, -1 do
    local j = math.random(i)
    list[i], list[j] = list[j], list[i]
  end
end

local function reads(guard, keys, from, to)
  local start = now()
  for i = from, to do
    guard:RunOnce(keys[i], one)
  end
  return (now() - start) / (to - from + 1)
end

-- Each part of the shuffled keys is read by one side only, so that nobody
-- finds key strings in the cache that the other has just used.
function commands.read(n, rounds)
  n = math.tointeger(n)
  local keys = {}
  for i = 1, n do
    keys[i] = key_of(i)
  end
  local guards = { ours = make.ours(), plain = make.plain() }
  reads(guards.ours, keys, 1, n)
  reads(guards.plain, keys, 1, n)
  shuffle(keys)
  collectgarbage()
  local parts, part = 20, 0
  local size = n // parts
  local samples = measure.rounds(math.tointeger(rounds), { "ours", "plain" },
    function(side)
      local from = part * size
      part = (part + 1) % parts
      return reads(guards[side], keys, from + 1, from + size)
    end)
  for side, figures in pairs(samples) do
    for _, figure in ipairs(figures) do
      print(side, figure)
    end
  end
end

commands[arg[1]](table.unpack(arg, 2))
