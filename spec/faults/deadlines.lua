-- SPDX-License-Identifier: MIT
-- What deadlines_test.c does to a Lua state: guarded functions of all kinds,
-- under deadlines at random moments.  Returns step, which does a little and
-- tells how many deadlines passed, and raises what is wrong.

local seed, LATE, known = ...
local core = require "executionguard.core"
local ExecutionGuard = require "executionguard"

local steady = core.clock.steady
local state = seed

-- The thread sanitizer hands a signal on only at calls that it knows, and a
-- clock's is one.
local slow = os.getenv "EXECUTIONGUARD_SPEC_SCALE"
local function breathe()
  if slow then steady() end
end

local function random(n)
  state = (state * 1103515245 + 12345) & 0x7fffffff
  return (state >> 12) % n
end

local function spin(seconds)
  local start = steady()
  while steady() - start < seconds do end
end

local forever = function()
  while true do
    if slow then steady() end
  end
end

local function nested(n)
  if n == 0 then forever() end
  while true do
    pcall(nested, n - 1)
    breathe()
  end
end

local function respawn()
  local co = coroutine.wrap(function()
    pcall(forever)
    respawn()
  end)
  pcall(co)
  return respawn()
end

local function closes()
  while true do
    local _ <close> = setmetatable({}, { __close = function()
      for _ = 1, 100 do end
      breathe()
    end })
  end
end

local function sorts()
  local t = {}
  for i = 1, 50 do t[i] = random(1000) end
  while true do
    table.sort(t, function(a, b) return a > b end)
    table.sort(t)
    breathe()
  end
end

local function substitutes()
  while true do
    ("aaaaaaaaaaaaaaaa"):gsub("a", function() return "b" end)
    breathe()
  end
end

local function allocates()
  local t
  while true do
    t = { t, { random(10) }, tostring(random(10)) }
    if random(100) == 0 then t = nil end
  end
end

local function hooks()
  while true do
    debug.sethook()
    breathe()
  end
end

local function yields()
  while true do
    if coroutine.isyieldable() then coroutine.yield() end
    for _ = 1, 50 do end
    breathe()
  end
end

local function handler()
  for _ = 1, 20 do end
  breathe()
end

local endless = {
  forever, function() nested(3) end, respawn, closes, sorts, substitutes,
  allocates, hooks, yields,
  function() while true do xpcall(error, handler) end end,
  function()
    local function f()
      if slow then steady() end
      return f()
    end
    return f()
  end,
  function()
    local co = coroutine.wrap(function()
      while true do coroutine.yield() end
    end)
    while true do
      co()
      breathe()
    end
  end,
}

-- Where nobody tells us when a coroutine leaves its thread its functions are
-- not interrupted, but their records are: they look themselves.
local function patient()
  repeat
    if coroutine.isyieldable() and random(20) == 0 then coroutine.yield() end
  until ExecutionGuard.expired()
end

if not known then
  endless = { patient }
  forever = patient
end

local guard = ExecutionGuard.new()
local deadlines = 0
local once

-- Every fourth ends in time, or nearly so; every fourth has one inside.
local function body(limit, depth)
  local kind = random(4)
  if kind == 0 then
    return function()
      spin(limit * random(120) / 100)
      return limit
    end
  elseif kind == 1 and depth < 3 then
    return function()
      once(depth + 1)
      if random(2) == 0 then forever() end
      return limit
    end
  end
  return endless[random(#endless) + 1]
end

function once(depth)
  local limit = (50 + random(2000)) / 1e6
  local fn = body(limit, depth)
  local start = steady()
  local ok, result, reason = guard:RunOnce("k" .. depth, fn,
    { timeout = limit, allowRerun = true, cacheResult = false,
      lease = random(3) == 0 and 5 or nil,
      closeGrace = random(2) == 0 and 0 or nil })
  local took = steady() - start
  if ok then
    assert(result == limit, "another's result")
    assert(took < limit + LATE, "late: ok")
  else
    assert(reason == "timeout", reason or "no reason")
    assert(result == nil, "a result of what timed out")
    assert(took >= limit, "early")
    assert(took < limit + LATE, "late")
    deadlines = deadlines + 1
  end
  assert(not guard:IsLocked("k" .. depth), "left locked")
end

local function work()
  for _ = 1, 4 do
    once(1)
    assert(debug.gethook() == nil, "a hook was left")
  end
end

-- In a coroutine, which yields out of guarded functions, and is sometimes
-- left alone there.
local co

local function step_inside()
  if co == nil or coroutine.status(co) == "dead" then
    co = coroutine.create(function()
      while true do
        work()
        coroutine.yield()
      end
    end)
  end
  for _ = 1, 8 do
    local ok, why = coroutine.resume(co)
    assert(ok, why)
  end
  if random(50) == 0 then
    if random(2) == 0 then coroutine.close(co) end
    co = nil
    collectgarbage()
    guard:ResetAll()
  end
end

local function taken()
  local n = deadlines
  deadlines = 0
  return n
end

local function step()
  work()
  assert(debug.gethook() == nil, "a hook was left")
  return taken()
end

local function step_moving()
  step_inside()
  assert(debug.gethook() == nil, "a hook was left")
  return taken()
end

-- To be run as a coroutine of C's: whoever resumes it is unknown.
local function loop()
  while true do
    work()
    coroutine.yield(taken())
  end
end

return step, step_moving, loop
