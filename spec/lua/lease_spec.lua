-- SPDX-License-Identifier: MIT
-- Leases: renewed while the work goes on, ended by maxHold, and what a
-- function is told that has lost its own.

local core = require "executionguard.core"
local ExecutionGuard = require "executionguard"
local world = require "support.world"

local steady = core.clock.steady

-- A loop that ends only by interruption, or, should that fail, in the end.
local function spin()
  local start = steady()
  while steady() - start < 20 do end
  return "left alone"
end

describe("leases", function()
  local guard

  before_each(function()
    world.start()
    guard = ExecutionGuard.new { name = world.name(), lease = 15 }
  end)

  after_each(function()
    guard:Close()
    world.stop()
  end)

  it("are renewed while a function runs, and while it is suspended", function()
    local co = coroutine.create(function()
      return guard:RunOnce("k", function()
        for _ = 1, 20 do
          world.advance(5)
        end
        coroutine.yield()
        return ExecutionGuard.expired()
      end, { timeout = 0 })
    end)
    assert(coroutine.resume(co))
    for _ = 1, 20 do
      world.advance(5)
    end
    assert.is_true(guard:IsLocked "k")
    assert.same({ true, true, false }, { coroutine.resume(co) })
  end)

  it("of locks are renewed until their release", function()
    local lock = guard:Lock "k"
    for _ = 1, 20 do
      world.advance(5)
      assert.is_true(lock:Held())
    end
    assert.is_true(lock:Release())
    assert.is_true((guard:AcquireLock "k"))
    for _ = 1, 20 do
      world.advance(5)
    end
    assert.is_true(guard:ReleaseLock "k")
  end)

  it("end for good with maxHold", function()
    local other = ExecutionGuard.new { name = world.name(), lease = 15,
      maxHold = 40 }
    local lock = other:Lock "k"
    for _ = 1, 39 do
      world.advance(1)
      assert.is_true(lock:Held())
    end
    world.advance(1)
    assert.is_false(lock:Held())
    assert.is_false(lock:Release())
    assert.is_true((other:AcquireLock("k", 0)))
    other:Close()
  end)

  it("that are lost refuse the outcome, and onLost is called once", function()
    local calls, inside = {}, nil
    local function onLost(key)
      calls[#calls + 1] = key
    end
    assert.same({ false, nil, "lost" }, { guard:RunOnce("k", function()
      world.advance(10)
      inside = ExecutionGuard.expired()
      return "late"
    end, { timeout = 0, maxHold = 10, onLost = onLost }) })
    assert.is_true(inside)
    assert.same({ "k" }, calls)
    assert.equal("Failed", guard:GetStatus "k")
    assert.equal("owner died", guard:GetRecord "k".error)
    assert.is_true((guard:RunOnce("k", function() return 1 end)))
  end)

  it("that ended while nobody looked are lost", function()
    local ok, result, reason = guard:RunOnce("k", function()
      world.advance(60) -- as a machine that slept
      return ExecutionGuard.expired()
    end, { timeout = 0 })
    assert.same({ false, nil, "lost" }, { ok, result, reason })
  end)
end)

-- By real time, with generous bounds.
describe("a function whose lease is lost", function()
  local guard

  before_each(function() guard = ExecutionGuard.new() end)
  after_each(function() guard:Close() end)

  local function in_time(fn, ...)
    local start = steady()
    local results = table.pack(fn(...))
    local took = steady() - start
    assert.is_true(took >= 0.04 and took < 10, ("took %g s"):format(took))
    return results
  end

  it("is interrupted, though its deadline only marks", function()
    local key
    local results = in_time(guard.RunOnce, guard, "k", spin,
      { maxHold = 0.05, onLost = function(k) key = k end })
    assert.same({ false, nil, "lost", n = 3 }, results)
    assert.equal("k", key)
    assert.is_nil((debug.gethook()))
  end)

  it("is left alone where it is not to be interrupted", function()
    local start = steady()
    assert.same({ false, nil, "lost" }, { guard:RunOnce("k", function()
      while steady() - start < 0.1 do end
      return ExecutionGuard.expired()
    end, { maxHold = 0.05, interrupt = false }) })
    assert.is_true(steady() - start >= 0.1)
  end)

  it("takes those inside with it, and their callbacks come after", function()
    local order = {}
    local function say(what)
      return function() order[#order + 1] = what end
    end
    local results = in_time(guard.RunOnce, guard, "outer", function()
      return guard:RunOnce("inner", spin,
        { onTimeout = say "inner", onLost = say "inner lost" })
    end, { maxHold = 0.05, onLost = say "outer" })
    assert.same({ false, nil, "lost", n = 3 }, results)
    assert.same({ "outer", "inner" }, order)
    assert.equal("TimedOut", guard:GetStatus "inner")
  end)

  it("is counted down where no signal may be used", function()
    ExecutionGuard.configure { engine = "count" }
    finally(function() ExecutionGuard.configure { engine = "signal" } end)
    local results = in_time(guard.RunOnce, guard, "k", spin,
      { maxHold = 0.05 })
    assert.same({ false, nil, "lost", n = 3 }, results)
    assert.is_nil((debug.gethook()))
  end)

  it("keeps it as long as it is renewed", function()
    local start = steady()
    assert.same({ true, false }, { guard:RunOnce("k", function()
      while steady() - start < 2.2 do end
      return ExecutionGuard.expired()
    end, { lease = 2, timeout = 60 }) })
  end)
end)
