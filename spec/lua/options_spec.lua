-- SPDX-License-Identifier: MIT
-- Arguments: what is taken, what is refused and in which words; a refused
-- call changes nothing.

local world = require "support.world"

-- A time limit of a nanosecond is taken too: time has to stand still.
before_each(function() world.start() end)
after_each(function() world.stop() end)

local nan, inf = 0 / 0, math.huge
local function seven() return 7 end
local function never() error("fn was called", 0) end

local callable = setmetatable({}, { __call = function() end })

-- Options of a call and of new: values that are taken, and that are not.
local seconds = { good = { 0, 1, 0.5, 1e-9, 1e12, inf },
  bad = { -1, -0.001, -inf, nan, "1", true, {} } }
local switch = { good = { true, false }, bad = { 0, 1, "true", {} } }
local action = { good = { seven, callable, print },
  bad = { 0, "print", {}, true } }
local both = {
  timeout = seconds,
  cacheResult = switch,
  resultTtl = seconds,
  errorTtl = seconds,
  cooldown = seconds,
  lockAtLeast = seconds,
  recordTtl = seconds,
  lease = seconds,
  maxHold = seconds,
  closeGrace = seconds,
  interrupt = switch,
  afterCrash = { good = { "rerun", "block" },
    bad = { "", "Block", "never", 1, true, {} } },
  whenUnavailable = { good = { "fail", "run", "stale" },
    bad = { "", "Fail", "block", 0, false, {} } },
  owner = { good = { "", "me", ("o"):rep(120) },
    bad = { ("o"):rep(121), "zero\0byte", 1, true, {} } },
  maxResult = { good = { 0, 1, 1 << 20, (1 << 32) - 1 },
    bad = { -1, 1.5, inf, nan, "1", true, {} } },
  retry = {
    good = { false, {}, { attempts = 1 }, { attempts = 100 },
      { attempts = 6 / 2 }, { delay = 0 }, { factor = 1 },
      { maxDelay = 0 }, { maxDelay = inf }, { jitter = true },
      { jitter = false }, { jitter = 0 }, { jitter = 1 },
      { jitter = 0.5 }, { on = seven }, { on = callable },
      { attempts = 2, delay = 0.5, factor = 1.5, maxDelay = 10,
        jitter = 0.1, on = seven } },
    bad = { 3, true, "3", seven, { 3 }, { attempts = 0 },
      { attempts = -1 }, { attempts = 1.5 }, { attempts = "3" },
      { attempts = nan }, { attempts = inf },
      { delay = inf }, { delay = -1 }, { delay = nan },
      { delay = "1" }, { factor = 0.5 }, { factor = nan },
      { factor = "2" }, { maxDelay = -1 }, { maxDelay = nan },
      { jitter = -0.1 }, { jitter = 1.1 }, { jitter = nan },
      { jitter = "no" }, { on = 5 }, { on = {} }, { attempt = 3 },
      { [1] = 2 } } },
}
local call_only = {
  allowRerun = switch,
  onTimeout = action,
  onLost = action,
  join = { good = { true, false, 0, 1, 0.5, inf },
    bad = { -1, nan, -inf, "1", {} } },
}
local new_only = {
  debug = switch,
  logger = action,
  history = { good = { 0, 1, 100000 },
    bad = { -1, 1.5, 100001, inf, "1", true, {} } },
  store = { good = { "memory" }, bad = { 1, true, {}, "zero\0byte" } },
  name = { good = { "a name" }, bad = { 1, true, {}, "zero\0byte",
    ("n"):rep(201) } },
}

local quiet = { debug = true, logger = true }

describe("the options of a call:", function()
  local guard

  before_each(function()
    world.start(true)
    guard = world.new()
  end)

  after_each(function()
    guard:Close()
    world.stop()
  end)

  local function refused(options, ...)
    local ok, message
    local counted = world.counted(function()
      ok, message = pcall(guard.RunOnce, guard, "k", never, options)
    end)
    assert.is_false(ok)
    assert.equal("string", type(message))
    assert.not_matches("fn was called", message)
    for _, part in ipairs { "RunOnce", ... } do
      assert.matches(part, message, 1, true)
    end
    assert.same({}, counted)
    assert.is_nil(guard:GetRecord "k")
    assert.is_false(guard:IsLocked "k")
    assert.is_nil(next(guard:GetAllRecords()))
    return message
  end

  for _, set in ipairs { both, call_only } do
    for name, values in pairs(set) do
      it(name .. " is taken", function()
        for i, value in ipairs(values.good) do
          assert.is_true((guard:RunOnce("k" .. i, seven,
            { [name] = value })))
        end
      end)

      it(name .. " is refused", function()
        for _, value in ipairs(values.bad) do
          local message = refused({ [name] = value }, name)
          if type(value) == "string" and #value < 9
            and not value:find "\0" and value ~= "" then
            assert.matches(value, message, 1, true)
          end
        end
      end)
    end
  end

  it("the message shows the value", function()
    refused({ timeout = -1.5 }, "timeout", "-1.5")
    refused({ timeout = "soon" }, "timeout", "soon")
    refused({ timeout = {} }, "timeout", "table")
    refused({ cacheResult = 1 }, "cacheResult", "1")
    refused({ afterCrash = "panic" }, "afterCrash", "panic", "rerun",
      "block")
    refused({ onTimeout = 5 }, "onTimeout", "number")
    refused({ retry = { attempts = 0 } }, "retry.attempts", "0")
    refused({ maxResult = 1.5 }, "maxResult", "1.5")
  end)

  it("nan and the infinities are named", function()
    assert.matches("nan", refused({ timeout = nan }):lower())
    assert.matches("inf", refused({ timeout = -inf }):lower())
  end)

  it("those of new are refused, and it is said whose they are", function()
    for name, values in pairs(new_only) do
      local message = refused({ [name] = values.good[1] }, name)
      assert.matches("ExecutionGuard.new", message, 1, true)
    end
  end)

  it("unknown ones are refused, with the nearest known one", function()
    for wrong, right in pairs { timeOut = "timeout", tiemout = "timeout",
      cacheresult = "cacheResult", allowRerunn = "allowRerun",
      resultTTL = "resultTtl", coolDown = "cooldown",
      onTimeOut = "onTimeout", retries = "retry", locktAtLeast =
      "lockAtLeast" } do
      refused({ [wrong] = 1 }, "'" .. wrong .. "'", "'" .. right .. "'")
    end
    refused({ retry = { attempt = 3 } }, "retry.attempt", "attempts")
  end)

  it("a long unknown one is refused too", function()
    refused({ [("x"):rep(1000)] = 1 })
    refused({ [""] = 1 })
    refused({ retry = { [("x"):rep(1000)] = 1 } })
  end)

  it("names that are no strings", function()
    refused({ 1 }, "number")
    refused({ [true] = 1 }, "boolean")
    refused({ [{}] = 1 }, "table")
    refused({ [1.5] = 1 })
  end)

  it("no table", function()
    for _, options in ipairs { 1, "x", true, false, seven,
      coroutine.create(seven) } do
      refused(options, "options", type(options))
    end
  end)

  it("nil is none", function()
    assert.is_true((guard:RunOnce("k", seven, nil)))
  end)

  it("are not changed, nor kept", function()
    local options = { timeout = 5, retry = { attempts = 2 } }
    guard:RunOnce("k", seven, options)
    assert.same({ timeout = 5, retry = { attempts = 2 } }, options)
    guard:RunOnce("l", seven, { cacheResult = false })
    assert.is_true((guard:RunOnce("m", seven)))
    assert.equal(7, guard:GetResult "m")
  end)

  it("a table with a metatable is read raw", function()
    local options = setmetatable({}, { __index = never,
      __pairs = never })
    assert.is_true((guard:RunOnce("k", seven, options)))
  end)

  it("one wrong among right ones spoils the call", function()
    refused({ timeout = 5, cooldown = 1, allowRerun = "yes" },
      "allowRerun")
  end)
end)

describe("the options of new:", function()
  after_each(function() world.EG.setLogger(nil) end)

  for _, set in ipairs { both, new_only } do
    for name, values in pairs(set) do
      it(name .. " is taken", function()
        for _, value in ipairs(values.good) do
          local guard = world.EG.new { [name] = value }
          if not quiet[name] then
            assert.is_true((guard:RunOnce("k", seven)))
          end
          guard:Close()
        end
      end)

      it(name .. " is refused", function()
        for _, value in ipairs(values.bad) do
          local message = world.message(world.EG.new, { [name] = value })
          assert.matches("ExecutionGuard.new", message, 1, true)
          assert.matches(name, message, 1, true)
        end
      end)
    end
  end

  it("unknown ones, with the nearest known one", function()
    local message = world.message(world.EG.new, { stores = "memory" })
    assert.matches("'stores'", message, 1, true)
    assert.matches("'store'", message, 1, true)
  end)

  it("those of a call alone are refused", function()
    for _, name in ipairs { "allowRerun", "join", "onTimeout",
      "onLost" } do
      local message = world.message(world.EG.new,
        { [name] = call_only[name].good[1] })
      assert.matches(name, message, 1, true)
      assert.matches("ExecutionGuard.new", message, 1, true)
    end
  end)

  it("a boolean is debug; nothing is allowed", function()
    world.EG.new():Close()
    world.EG.new(nil):Close()
    world.EG.new(false):Close()
    world.EG.new(true):Close()
    world.EG.new({}):Close()
  end)

  it("anything else is refused", function()
    for _, value in ipairs { 1, "x", seven, io.stdout } do
      local message = world.message(world.EG.new, value)
      assert.matches("ExecutionGuard.new", message, 1, true)
      assert.matches(type(value), message, 1, true)
    end
  end)

  it("an unknown store lists the schemes", function()
    for _, url in ipairs { "mysql://u:secret@h/db", "nothing", "", ":",
      "MEMORY", "memory//x", "redis+x:y", ("x"):rep(1000) } do
      local message = world.message(world.EG.new, { store = url })
      assert.matches("ExecutionGuard.new", message, 1, true)
      assert.matches("memory", message, 1, true)
      assert.not_matches("secret", message)
    end
    assert.matches("mysql",
      world.message(world.EG.new, { store = "mysql://h/db" }))
  end)

  it("an empty name is refused", function()
    assert.has_error(function() world.EG.new { name = "" } end)
  end)

  it("the table may change afterwards", function()
    local options = { cacheResult = false, retry = { attempts = 2,
      delay = 0 } }
    local guard = world.EG.new(options)
    options.cacheResult = true
    guard:RunOnce("k", seven)
    assert.is_nil(guard:GetResult "k")
    guard:Close()
  end)
end)

describe("keys:", function()
  local guard

  local methods = {
    RunOnce = function(g, key) return g:RunOnce(key, seven) end,
    AcquireLock = function(g, key) return g:AcquireLock(key, 0) end,
    Lock = function(g, key) return g:Lock(key, 0) end,
    ReleaseLock = function(g, key) return g:ReleaseLock(key) end,
  }
  for _, name in ipairs { "IsLocked", "GetResult", "HasResult",
    "ClearResult", "GetStatus", "GetRecord", "Reset" } do
    methods[name] = function(g, key) return g[name](g, key) end
  end

  before_each(function() guard = world.new() end)
  after_each(function() guard:Close() end)

  for name, method in pairs(methods) do
    it(name .. " refuses what is no string", function()
      for _, key in ipairs { true, {}, seven, io.stdout } do
        local message = world.message(method, guard, key)
        assert.matches(name .. ":", message, 1, true)
        assert.matches("key", message, 1, true)
        assert.matches(type(key), message, 1, true)
      end
      local message = world.message(method, guard, nil)
      assert.matches(name .. ":", message, 1, true)
      assert.matches("nil", message, 1, true)
    end)

    it(name .. " proposes tostring for a number", function()
      for key, text in pairs { [5] = "5", [1.5] = "1.5",
        [-7] = "-7" } do
        local message = world.message(method, guard, key)
        assert.matches(name .. ":", message, 1, true)
        assert.matches("tostring(" .. text .. ")", message, 1, true)
      end
    end)

    it(name .. " refuses an empty and a long one", function()
      assert.matches("empty", world.message(method, guard, ""))
      local message = world.message(method, guard, ("k"):rep(513))
      assert.matches(name .. ":", message, 1, true)
      assert.matches("513", message, 1, true)
      assert.matches("512", message, 1, true)
      assert.has_error(function() method(guard, ("k"):rep(1 << 20)) end)
    end)

    it(name .. " takes 512 bytes, any bytes", function()
      method(guard, ("k"):rep(512))
      method(guard, ("\0"):rep(512))
      method(guard, "\0")
      method(guard, "\255\254")
    end)
  end

  it("a number is not changed into a string", function()
    local key = 5
    pcall(guard.RunOnce, guard, key, seven)
    assert.equal("integer", math.type(key))
    assert.is_nil(next(guard:GetAllRecords()))
  end)

  it("are told apart byte by byte", function()
    for _, name in ipairs { nil, "x" } do
      local g = world.new(nil, { name = name and world.name() })
      local keys = { "a", "a\0", "a\0b", "a\0c", "\0a", "A", "b",
        ("k"):rep(511), ("k"):rep(512), "\u{e4}", "\xe4" }
      for i, key in ipairs(keys) do
        g:RunOnce(key, function() return i end)
      end
      for i, key in ipairs(keys) do
        assert.equal(i, g:GetResult(key))
        assert.equal(key, g:GetRecord(key).key)
        assert.equal(i, g:GetAllRecords()[key].result)
      end
      assert.equal(#keys, g:GetAnalytics().totalRecords)
      g:Close()
    end
  end)
end)

describe("fn:", function()
  it("what cannot be called is refused, and leaves nothing", function()
    local guard = world.new()
    local counted = world.counted(function()
      for _, fn in ipairs { 1, "print", {}, true, io.stdout,
        coroutine.create(seven), setmetatable({}, {}) } do
        local message = world.message(guard.RunOnce, guard, "k", fn)
        assert.matches("RunOnce", message, 1, true)
        assert.matches("fn", message, 1, true)
        assert.matches(type(fn), message, 1, true)
      end
      assert.matches("nil", world.message(guard.RunOnce, guard, "k"))
    end)
    assert.same({}, counted)
    assert.is_nil(guard:GetRecord "k")
    guard:Close()
  end)

  it("what can be called is taken", function()
    local guard = world.new()
    guard:RunOnce("a", callable)
    guard:RunOnce("b", math.random)
    guard:RunOnce("c", coroutine.wrap(seven))
    assert.equal(3, guard:GetAnalytics().byStatus.Completed)
    guard:Close()
  end)
end)

describe("the timeout of a lock:", function()
  it("is checked", function()
    local guard = world.new()
    for _, name in ipairs { "AcquireLock", "Lock" } do
      for _, value in ipairs { -1, nan, -inf, "1", true, {} } do
        local message = world.message(guard[name], guard, "k", value)
        assert.matches(name, message, 1, true)
        assert.matches("timeout", message, 1, true)
        assert.is_false(guard:IsLocked "k")
      end
      for i, value in ipairs { 0, 0.5, 30, inf } do
        assert.is_truthy(guard[name](guard, name .. i, value))
      end
    end
    guard:Close()
  end)
end)

describe("methods", function()
  local names = { "RunOnce", "AcquireLock", "ReleaseLock", "IsLocked",
    "Lock", "GetResult", "HasResult", "ClearResult", "GetStatus",
    "GetRecord", "GetAllRecords", "Reset", "ResetAll", "GetAnalytics" }

  it("called on a closed guard raise, and name themselves", function()
    local guard = world.new()
    guard:Close()
    for _, name in ipairs(names) do
      local message = world.message(guard[name], guard, "k", seven)
      assert.matches(name, message, 1, true)
      assert.matches("closed", message, 1, true)
    end
  end)

  it("called on something else raise, and name it", function()
    local guard = world.new()
    local lock <close> = guard:Lock "a lock"
    local fake = setmetatable({}, { __index = guard })
    for _, name in ipairs(names) do
      local method = guard[name]
      for _, other in ipairs { 1, "x", true, {}, fake, seven, io.stdout,
        coroutine.create(seven), lock } do
        local message = world.message(method, other, "k", seven)
        assert.matches(name, message, 1, true)
        assert.matches(type(other), message, 1, true)
      end
      assert.matches("nil", world.message(method, nil, "k", seven))
      assert.matches(name, world.message(method))
    end
    guard:Close()
  end)

  it("Close may be called again, but not on something else", function()
    local guard = world.new()
    guard:Close()
    guard:Close()
    for _, other in ipairs { 1, "x", {}, io.stdout } do
      assert.has_error(function() guard.Close(other) end)
    end
  end)

  it("that do not exist are nil", function()
    local guard = world.new()
    assert.is_nil(guard.RunTwice)
    assert.is_nil(guard[1])
    guard:Close()
  end)

  it("a guard cannot be written to, nor its metatable be had", function()
    local guard = world.new()
    assert.has_error(function() guard.RunOnce = 1 end)
    assert.not_equal("table", type(getmetatable(guard)))
    assert.has_error(function() setmetatable(guard, {}) end)
    guard:Close()
  end)

  it("ResetAll checks its options", function()
    local guard = world.new()
    for _, options in ipairs { 1, "force", true, { 1 },
      { force = 1 }, { force = "yes" }, { forced = true } } do
      assert.matches("ResetAll",
        world.message(guard.ResetAll, guard, options))
    end
    guard:ResetAll()
    guard:ResetAll {}
    guard:ResetAll { force = true }
    guard:ResetAll { force = false }
    guard:Close()
  end)

  it("setLogger and shield check theirs", function()
    for _, value in ipairs { 1, "print", {}, true } do
      assert.matches("setLogger",
        world.message(world.EG.setLogger, value))
      assert.matches("shield", world.message(world.EG.shield, value))
    end
    assert.matches("shield", world.message(world.EG.shield))
  end)
end)

describe("a refused call", function()
  it("leaves the record that there is as it was", function()
    local guard = world.new()
    guard:RunOnce("k", seven)
    local before = guard:GetRecord "k"
    pcall(guard.RunOnce, guard, "k", never, { timeout = -1 })
    pcall(guard.RunOnce, guard, "k", 5)
    pcall(guard.RunOnce, guard, "k", never, { unknown = true })
    pcall(guard.AcquireLock, guard, "k", -1)
    pcall(guard.ReleaseLock, guard, "k", "token")
    assert.same(before, guard:GetRecord "k")
    guard:Close()
  end)
end)
