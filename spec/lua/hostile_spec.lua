-- SPDX-License-Identifier: MIT
-- User code that runs where nobody expects it: finalizers, callbacks, errors
-- that fail to be text.  Nothing crashes, nothing is lost, nothing runs twice.

local world = require "support.world"

local function seven() return 7 end

-- A finalizer that closes the guard, at some allocation from now on.
local function close_soon(guard)
  setmetatable({}, { __gc = function() guard:Close() end })
end

describe("a guard that a finalizer closes meanwhile", function()
  it("ends a scan whole or with an error", function()
    for _ = 1, world.scaled(20) do
      local guard = world.EG.new()
      for i = 1, world.scaled(500) do
        guard:RunOnce("key" .. i, function() return { i } end)
      end
      close_soon(guard)
      local ok, result = pcall(guard.GetAllRecords, guard)
      assert.is_true(ok or result:find("closed", 1, true) ~= nil)
    end
  end)

  it("refuses calls in words", function()
    local options = { onTimeout = print, onLost = print }
    for _ = 1, world.scaled(200) do
      local guard = world.EG.new()
      guard:RunOnce("k", function() return {} end)
      close_soon(guard)
      for _ = 1, world.scaled(500) do
        local ok, why = pcall(guard.RunOnce, guard, "k", print, options)
        if not ok then
          assert.matches("closed", why, 1, true)
          break
        end
      end
    end
  end)

  it("does not harm locks and records", function()
    for _ = 1, world.scaled(200) do
      local guard = world.EG.new { name = "hostile" }
      close_soon(guard)
      for i = 1, world.scaled(300) do
        local ok, why = pcall(function()
          local lock <close> = guard:Lock("l" .. i, 0)
          return guard:GetRecord "k", guard:GetStatus "k", lock
        end)
        if not ok then
          assert.matches("closed", why, 1, true)
          break
        end
      end
    end
  end)
end)

describe("retry", function()
  before_each(function() world.start(true) end)
  after_each(function() world.stop() end)

  it("stops when its own predicate gives the key to somebody else", function()
    local guard <close> = world.EG.new()
    local calls, others = 0, 0
    local _, _, reason = guard:RunOnce("k", function()
      calls = calls + 1
      error "x"
    end, { retry = { attempts = 5, delay = 0, on = function()
      guard:Reset "k"
      guard:RunOnce("k", function() others = others + 1 end)
      return true
    end } })
    assert.same({ 1, 1, "lost" }, { calls, others, reason })
    assert.equal("Completed", guard:GetStatus "k")
  end)

  it("stops when its own predicate closes the guard", function()
    local guard = world.EG.new()
    local calls = 0
    local _, _, reason = guard:RunOnce("k", function()
      calls = calls + 1
      error "x"
    end, { retry = { attempts = 5, delay = 0, on = function()
      guard:Close()
      return true
    end } })
    assert.same({ 1, "lost" }, { calls, reason })
  end)

  it("makes many attempts without delay in no time", function()
    local guard <close> = world.EG.new()
    local attempts, calls = world.scaled(10000), 0
    guard:RunOnce("k", function() calls = calls + 1 error() end,
      { retry = { attempts = attempts, delay = 0, factor = 1e300 } })
    assert.equal(attempts, calls)
  end)
end)

describe("an error", function()
  local spiteful = setmetatable({}, { __tostring = function()
    error "no text"
  end })

  it("of a callback that cannot be text does no harm", function()
    world.start()
    local guard <close> = world.EG.new()
    local _, _, reason = guard:RunOnce("k", function() world.advance(2) end,
      { timeout = 1, onTimeout = function() error(spiteful) end })
    world.stop()
    assert.equal("timeout", reason)
  end)

  it("keeps its traceback though a __close fails a run of its own", function()
    local guard <close> = world.EG.new()
    guard:RunOnce("outer", function()
      local _ <close> = setmetatable({}, { __close = function()
        guard:RunOnce("inner", function() error "inner" end)
      end })
      error "outer"
    end)
    assert.matches("outer\nstack traceback:", guard:GetRecord "outer".error)
    assert.matches("inner\nstack traceback:", guard:GetRecord "inner".error)
  end)

  it("is not kept alive by a retry that succeeds", function()
    local guard <close> = world.EG.new()
    local weak = setmetatable({}, { __mode = "v" })
    local calls = 0
    guard:RunOnce("k", function()
      calls = calls + 1
      if calls == 1 then
        local object = {}
        weak[1] = object
        error(object)
      end
    end, { retry = { attempts = 2, delay = 0 } })
    world.collect()
    assert.is_nil(weak[1])
  end)
end)

describe("a result of a private guard", function()
  before_each(function() world.start() end)
  after_each(function() world.stop() end)

  it("is let go when its time is over and somebody looks", function()
    local guard <close> = world.EG.new()
    local weak = setmetatable({}, { __mode = "v" })
    guard:RunOnce("k", function()
      local result = {}
      weak[1] = result
      return result
    end, { resultTtl = 1 })
    world.advance(1)
    assert.is_nil(guard:GetResult "k")
    world.collect()
    assert.is_nil(weak[1])
  end)

  it("is let go when a rerun that fails drops it", function()
    local guard <close> = world.EG.new()
    local weak = setmetatable({}, { __mode = "v" })
    guard:RunOnce("k", function()
      local result = {}
      weak[1] = result
      return result
    end, { resultTtl = 10 })
    guard:RunOnce("k", function() error() end, { allowRerun = true })
    world.collect()
    assert.is_nil(weak[1])
  end)
end)

describe("for ever", function()
  before_each(function() world.start() end)
  after_each(function() world.stop() end)

  for _, name in ipairs { "cooldown", "lockAtLeast", "errorTtl" } do
    it("is what math.huge means for " .. name, function()
      local guard <close> = world.EG.new()
      local fn = name == "errorTtl" and function() error "x" end or seven
      guard:RunOnce("k", fn, { [name] = math.huge })
      world.advance(1e9)
      local ok = guard:RunOnce("k", seven, { allowRerun = true })
      assert.is_false(ok)
    end)
  end

  it("is what math.huge means for resultTtl", function()
    local guard <close> = world.EG.new()
    guard:RunOnce("k", seven, { resultTtl = math.huge })
    world.advance(1e9)
    assert.same({ true, 7, "cached" }, { guard:RunOnce("k", seven) })
    assert.is_number(guard:GetRecord "k".expires)
  end)
end)

describe("what a snapshot is made of", function()
  it("is out of reach", function()
    local guard <close> = world.EG.new()
    assert.is_string(getmetatable(guard:GetAnalytics()))
    assert.is_string(getmetatable(guard))
  end)
end)
