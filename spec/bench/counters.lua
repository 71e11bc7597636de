-- SPDX-License-Identifier: MIT
-- counters.lua FOLDER: nanoseconds of a cached RunOnce and of a lock cycle,
-- several times, by the module in that folder ('': the usual one).

if arg[1] ~= "" then
  package.cpath = arg[1] .. "/?.so;" .. package.cpath
end

local ExecutionGuard = require "executionguard"
local now = require "benchtool".now

local ROUNDS, CALLS = 9, 10000

local function result()
  return 42
end

local guard <close> = ExecutionGuard.new()
local key = "player:1001"

local function cached()
  for _ = 1, CALLS do
    guard:RunOnce(key, result)
  end
end

local function locks()
  for _ = 1, CALLS do
    guard:AcquireLock(key)
    guard:ReleaseLock(key)
  end
end

local function time(name, f)
  local start = now()
  f()
  print(name, (now() - start) / CALLS)
end

cached()
locks()
for _ = 1, ROUNDS do
  time("cached", cached)
  time("locks", locks)
end
