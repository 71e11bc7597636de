-- SPDX-License-Identifier: MIT
-- What is said of a guard's work: to whom, and that it does no harm.

local world = require "support.world"
local process = require "support.process"

local function seven() return 7 end
local function boom() error("boom", 0) end

local function late() world.advance(2) end

-- Runs a script in another Lua and gives what it wrote to both outputs.
local function script(text, flags)
  return process.run(text, { flags = flags })
end

local work = [[
  local EG = require "executionguard"
  local guard = EG.new(%s)
  guard:RunOnce("the key", function() error("boom", 0) end)
  guard:RunOnce("good", function() return 7 end)
  guard:RunOnce("good", function() return 7 end)
  guard:AcquireLock "lock"
  guard:ReleaseLock "lock"
]]

describe("the log:", function()
  local lines, real_print

  local function listen(level, message, key)
    lines[#lines + 1] = { level = level, message = message, key = key }
  end

  local function has(level, text, key)
    for _, line in ipairs(lines) do
      if line.level == level and line.key == key
        and line.message:find(text, 1, true) then
        return true
      end
    end
    return false
  end

  before_each(function()
    lines = {}
    real_print = rawget(_G, "print")
    world.start(true)
  end)

  after_each(function()
    rawset(_G, "print", real_print)
    world.EG.setLogger(nil)
    world.stop()
  end)

  it("debug prints what happens", function()
    rawset(_G, "print", function(...)
      lines[#lines + 1] = table.concat({ ... }, "\t")
    end)
    local guard = world.EG.new(true)
    guard:RunOnce("the key", seven)
    guard:RunOnce("the key", seven)
    guard:AcquireLock "a lock"
    guard:ReleaseLock "a lock"
    guard:Reset "the key"
    guard:Close()
    assert.is_true(#lines >= 6)
    for _, line in ipairs(lines) do
      assert.matches("ExecutionGuard", line, 1, true)
    end
    local all = table.concat(lines, "\n")
    assert.matches("the key", all, 1, true)
    assert.matches("cached", all, 1, true)
    assert.matches("a lock", all, 1, true)
    assert.matches("Reset", all, 1, true)
  end)

  it("debug shows warnings without warn @on", function()
    rawset(_G, "print", function(text) lines[#lines + 1] = text end)
    local guard = world.EG.new { debug = true }
    guard:RunOnce("k", boom)
    guard:RunOnce("t", late, { timeout = 1 })
    guard:Close()
    local all = table.concat(lines, "\n")
    assert.matches("Warning", all, 1, true)
    assert.matches("boom", all, 1, true)
    assert.matches("timed out", all, 1, true)
  end)

  it("without debug nothing is printed", function()
    local called = 0
    rawset(_G, "print", function() called = called + 1 end)
    local guard = world.EG.new()
    guard:RunOnce("k", seven)
    guard:RunOnce("k", seven)
    guard:RunOnce("f", boom)
    guard:Close()
    assert.equal(0, called)
    assert.equal("", script(work:format ""))
  end)

  it("warn: off unless it is on", function()
    assert.equal("", script(work:format ""))
    local out = script(work:format "", "-W")
    assert.matches("^Lua warning: [^\n]*boom[^\n]*\n$", out)
    assert.matches("the key", out, 1, true)
    out = script('warn "@on"\n' .. work:format "false")
    assert.matches("^Lua warning: [^\n]*boom[^\n]*\n$", out)
  end)

  it("debug goes to the real output", function()
    local out = script(work:format "true")
    assert.matches("boom", out, 1, true)
    assert.matches("cached", out, 1, true)
  end)

  it("a guard's logger is told level, message and key", function()
    local guard = world.EG.new { logger = listen }
    guard:RunOnce("good", seven)
    guard:RunOnce("good", seven)
    guard:RunOnce("bad", boom)
    guard:RunOnce("slow", late, { timeout = 1 })
    guard:RunOnce("gone", function() guard:Reset "gone" end)
    guard:AcquireLock "l"
    guard:AcquireLock("l", 0)
    guard:Close()
    for _, line in ipairs(lines) do
      assert.is_true(line.level == "info" or line.level == "warn")
      assert.equal("string", type(line.message))
      assert.equal("string", type(line.key))
    end
    assert.is_true(has("info", "cached", "good"))
    assert.is_true(has("warn", "boom", "bad"))
    assert.is_true(has("warn", "timed out", "slow"))
    assert.is_true(has("warn", "lost", "gone"))
    assert.is_true(has("info", "Lock acquired", "l"))
  end)

  it("a logger takes the place of print and warn", function()
    local called = 0
    rawset(_G, "print", function() called = called + 1 end)
    local guard = world.EG.new { logger = listen, debug = true }
    guard:RunOnce("bad", boom)
    guard:Close()
    assert.equal(0, called)
    assert.is_true(has("warn", "boom", "bad"))
  end)

  it("a logger may be a callable table", function()
    local guard = world.EG.new { logger = setmetatable({}, {
      __call = function(_, ...) listen(...) end }) }
    guard:RunOnce("bad", boom)
    guard:Close()
    assert.is_true(has("warn", "boom", "bad"))
  end)

  it("setLogger: the warnings of guards without one of their own",
    function()
      local before = world.EG.new()
      world.EG.setLogger(listen)
      local after = world.EG.new()
      before:RunOnce("a", boom)
      after:RunOnce("b", boom)
      assert.is_true(has("warn", "boom", "a"))
      assert.is_true(has("warn", "boom", "b"))
      local own = {}
      local third = world.EG.new { logger = function(_, message)
        own[#own + 1] = message
      end }
      third:RunOnce("c", boom)
      assert.is_false(has("warn", "boom", "c"))
      assert.is_true(#own > 0)
      world.EG.setLogger(nil)
      local n = #lines
      before:RunOnce("d", boom)
      assert.equal(n, #lines)
      before:Close()
      after:Close()
      third:Close()
    end)

  it("setLogger: debug guards tell it their Info", function()
    local guard = world.EG.new(true)
    world.EG.setLogger(listen)
    guard:RunOnce("k", seven)
    guard:RunOnce("k", seven)
    guard:Close()
    assert.is_true(has("info", "cached", "k"))
  end)

  it("binary keys are told whole", function()
    local guard = world.EG.new { logger = listen }
    guard:RunOnce("a\0b\255", boom)
    guard:Close()
    assert.is_true(has("warn", "boom", "a\0b\255"))
  end)

  it("a long text is no harm", function()
    local guard = world.EG.new { logger = listen }
    guard:RunOnce("k", function() error(("x"):rep(100000), 0) end)
    guard:RunOnce("p", function() error("%s%n%d", 0) end)
    guard:Close()
    assert.is_true(has("warn", "xxx", "k"))
    assert.is_true(has("warn", "%s%n%d", "p"))
  end)

  it("a logger that raises does no harm", function()
    local called = 0
    local guard = world.EG.new { logger = function()
      called = called + 1
      error "in the logger"
    end }
    assert.same({ true, 7 }, { guard:RunOnce("k", seven) })
    assert.same({ true, 7, "cached" }, { guard:RunOnce("k", seven) })
    assert.same({ false, "boom", "failed" }, { guard:RunOnce("f", boom) })
    assert.same({ false, nil, "timeout" },
      { guard:RunOnce("t", late, { timeout = 1 }) })
    assert.is_true((guard:AcquireLock "l"))
    assert.same({ false, "locked" }, { guard:AcquireLock("l", 0) })
    assert.is_true(guard:ReleaseLock "l")
    guard:Reset "k"
    assert.is_true(called > 0)
    for _, key in ipairs { "k", "f", "t", "l" } do
      assert.is_false(guard:IsLocked(key))
    end
    guard:Close()
  end)

  it("a print that raises does no harm", function()
    rawset(_G, "print", boom)
    local guard = world.EG.new(true)
    local ok, result = guard:RunOnce("k", seven)
    rawset(_G, "print", real_print)
    assert.is_true(ok)
    assert.equal(7, result)
    guard:Close()
  end)

  it("a logger may use the guard", function()
    local statuses = {}
    local guard
    guard = world.EG.new { logger = function(_, _, key)
      statuses[#statuses + 1] = guard:GetStatus(key)
    end }
    guard:RunOnce("k", seven)
    guard:RunOnce("f", boom)
    guard:Close()
    assert.is_true(#statuses > 0)
    assert.equal("Failed", statuses[#statuses])
  end)

  it("a logger that yields does no harm", function()
    local guard = world.EG.new { logger = coroutine.yield }
    coroutine.wrap(function()
      guard:RunOnce("k", seven)
      guard:RunOnce("f", boom)
    end)()
    assert.equal("Failed", guard:GetStatus "f")
    assert.equal("Completed", guard:GetStatus "k")
    guard:Close()
  end)

  it("a logger that closes the guard does no harm", function()
    local guard
    guard = world.EG.new { logger = function() guard:Close() end }
    local _, _, why = guard:RunOnce("k", seven)
    assert.is_true(why == nil or why == "lost")
  end)

  it("a callback that raises is told", function()
    local guard = world.EG.new { logger = listen }
    guard:RunOnce("t", late, { timeout = 1, onTimeout = function()
      error("in onTimeout", 0)
    end })
    guard:Close()
    assert.is_true(has("warn", "in onTimeout", "t"))
  end)

  it("a callback that raises an object is told by what that says", function()
    local guard = world.EG.new { logger = listen }
    local object = setmetatable({}, { __tostring = function()
      return "an object of its own"
    end })
    guard:RunOnce("t", late, { timeout = 1, onTimeout = function()
      error(object)
    end })
    guard:Close()
    assert.is_true(has("warn", "failed: an object of its own", "t"))
  end)

  it("nothing is built when nobody listens", function()
    local guard = world.EG.new()
    guard:RunOnce("k", seven)
    local options = { allowRerun = true }
    collectgarbage()
    collectgarbage "stop"
    local before = collectgarbage "count"
    for _ = 1, 1000 do
      guard:RunOnce("k", seven)
      guard:RunOnce("k", seven, options)
      guard:AcquireLock("l", 0)
      guard:ReleaseLock "l"
    end
    local after = collectgarbage "count"
    collectgarbage "restart"
    guard:Close()
    assert.is_true(after - before < 4)
  end)

  it("a __tostring is not asked when nobody listens to a success",
    function()
      local guard = world.EG.new()
      local value = setmetatable({}, { __tostring = function()
        error "asked"
      end })
      assert.is_true((guard:RunOnce("k", function() return value end)))
      guard:Close()
    end)
end)
