-- SPDX-License-Identifier: MIT
-- Functions that are ended at their deadline, whatever they do.  Real time,
-- with generous bounds.

local ExecutionGuard = require "executionguard"
local interrupting = require "support.interrupting"

local steady = require "executionguard.core".clock.steady
local forever, spin = interrupting.forever, interrupting.spin
local status_in_the_end = interrupting.status_in_the_end
local until_reached = interrupting.until_reached
local LIMIT <const> = interrupting.LIMIT

describe("interruption", function()
  local guard, run, ends

  before_each(function()
    guard, run, ends = interrupting.start()
  end)

  after_each(function() interrupting.stop(guard) end)

  local function nested(n)
    if n == 0 then forever() end
    while true do pcall(nested, n - 1) end
  end

  local function coroutines(n)
    if n == 0 then forever() end
    coroutine.wrap(coroutines)(n - 1)
  end

  local bodies = {
    ["an empty loop"] = forever,
    ["calls"] = function()
      local function f() return 1 end
      while true do f() end
    end,
    ["tail recursion"] = function()
      local function f() return f() end
      f()
    end,
    ["goto"] = function()
      ::again::
      goto again
    end,
    ["pcall in a loop"] = function()
      while true do pcall(forever) end
    end,
    ["pcall 180 deep"] = function() nested(180) end,
    ["pcall of pcall"] = function()
      while true do pcall(pcall, pcall, forever) end
    end,
    ["xpcall with a looping handler"] = function()
      while true do xpcall(forever, forever) end
    end,
    ["a looping handler of an error"] = function()
      xpcall(error, forever)
    end,
    ["a coroutine"] = function()
      coroutine.resume(coroutine.create(forever))
    end,
    ["a coroutine in a pcall"] = function()
      while true do pcall(coroutine.wrap(forever)) end
    end,
    ["a coroutine that is resumed in a loop"] = function()
      local co = coroutine.wrap(function()
        while true do coroutine.yield() end
      end)
      while true do co() end
    end,
    ["coroutines, 20 deep"] = function() coroutines(20) end,
    ["coroutines that are made again and again"] = function()
      while true do coroutine.resume(coroutine.create(forever)) end
    end,
    ["a comparator of table.sort"] = function()
      local t = {}
      for i = 1, 100 do t[i] = -i end
      while true do table.sort(t, function(a, b) return a < b end) end
    end,
    ["a callback of gsub"] = function()
      ("x"):rep(100):gsub(".", forever)
    end,
    ["__index"] = function()
      return setmetatable({}, { __index = forever }).x
    end,
    ["a looping <close>"] = function()
      local _ <close> = setmetatable({}, { __close = forever })
      forever()
    end,
    ["debug.sethook in a loop"] = function()
      while true do debug.sethook() end
    end,
    ["debug.sethook of its own"] = function()
      debug.sethook(function() end, "l")
      while true do debug.sethook() end
    end,
  }
  for name, body in pairs(bodies) do
    it("of " .. name, function() ends(body) end)
    it("of " .. name .. ", by counting", function()
      ExecutionGuard.configure { engine = "count" }
      -- a hook of the user's is not replaced
      if not name:find "sethook" then ends(body) end
      ExecutionGuard.configure { engine = "signal" }
    end)
  end

  it("of a coroutine that was made before", function()
    local co
    until_reached(function(reached)
      co = coroutine.create(function()
        reached()
        forever()
      end)
      ends(function() coroutine.resume(co) end, { allowRerun = true })
    end)
    assert.equal("dead", coroutine.status(co))
    local ok, why = coroutine.close(co)
    assert.is_false(ok)
    assert.matches("interrupted", why)
  end)

  it("lets a <close> do its work", function()
    local closed
    until_reached(function(reached)
      ends(function()
        local _ <close> = setmetatable({}, { __close = function()
          local sum = 0
          for i = 1, 1000 do sum = sum + i end
          closed = sum
        end })
        reached()
        forever()
      end, { closeGrace = 5, allowRerun = true })
    end)
    assert.equal(500500, closed)
  end)

  it("of what cannot be stopped comes late, and is told so", function()
    local other = ExecutionGuard.new { name = "interrupt spec" }
    local seen
    assert.same({ false, nil, "timeout" }, { other:RunOnce("k", function()
      setmetatable({}, { __gc = function()
        spin(5 * LIMIT)
        seen = status_in_the_end(other)
      end })
      collectgarbage()
      collectgarbage()
      return "too late"
    end, { timeout = LIMIT }) })
    assert.equal("TimedOut", seen)
    other:Close()
  end)

  it("comes only of a timeout that was asked for", function()
    local seen
    local function late()
      spin(2 * LIMIT)
      seen = status_in_the_end(guard)
      return 7
    end
    assert.same({ false, nil, "timeout" }, { run(late,
      { interrupt = false }) })
    assert.equal("TimedOut", seen)
    ExecutionGuard.configure { engine = "none" }
    seen = nil
    assert.same({ false, nil, "timeout" }, { run(late) })
    assert.equal("TimedOut", seen)
    ExecutionGuard.configure { engine = "signal" }
  end)

  it("calls onTimeout once, when fn is gone", function()
    local keys = {}
    ends(forever, { onTimeout = function(key) keys[#keys + 1] = key end })
    assert.same({ "k" }, keys)
  end)

  it("ends all attempts", function()
    local calls = 0
    until_reached(function(reached)
      ends(function()
        calls = calls + 1
        reached()
        forever()
      end, { retry = { attempts = 5, delay = 0 }, allowRerun = true })
    end)
    assert.equal(1, calls)
  end)

  it("waits for a shield", function()
    local done
    until_reached(function(reached)
      ends(function()
        ExecutionGuard.shield(function(x)
          reached()
          spin(2 * LIMIT)
          done = x
        end, "done")
        forever()
      end, { allowRerun = true })
    end)
    assert.equal("done", done)
  end)

  it("of a shield that fails", function()
    ends(function()
      pcall(ExecutionGuard.shield, error)
      forever()
    end)
  end)

  it("does not come to what is in time", function()
    local before = steady()
    for i = 1, 2000 do
      assert.is_true((guard:RunOnce("k" .. i, function() return i end,
        { timeout = 5 })))
    end
    assert.is_true(steady() - before < 60)
  end)

  describe("of nested guards:", function()
    it("the outer one wins", function()
      local calls
      until_reached(function(reached)
        calls = {}
        ends(function()
          guard:RunOnce("inner", function()
            reached()
            forever()
          end, { timeout = 30,
            onTimeout = function() calls[#calls + 1] = "inner" end })
          calls[#calls + 1] = "not reached"
        end, { allowRerun = true,
          onTimeout = function() calls[#calls + 1] = "outer" end })
      end)
      assert.same({ "outer", "inner" }, calls)
      assert.equal("TimedOut", guard:GetStatus "inner")
      assert.is_false(guard:IsLocked "inner")
    end)

    it("the inner one alone", function()
      local inner
      assert.same({ true, 7 }, { run(function()
        inner = { guard:RunOnce("inner", forever, { timeout = LIMIT }) }
        return 7
      end, { timeout = 30 }) })
      assert.same({ false, nil, "timeout" }, inner)
    end)

    it("both at once", function()
      ends(function()
        guard:RunOnce("inner", forever, { timeout = LIMIT })
        forever()
      end)
    end)

    it("inner ones in a loop", function()
      ends(function()
        while true do
          pcall(guard.RunOnce, guard, "inner", forever,
            { timeout = 5, allowRerun = true })
        end
      end)
    end)

    it("in coroutines", function()
      until_reached(function(reached)
        ends(function()
          coroutine.wrap(function()
            guard:RunOnce("inner", function()
              reached()
              coroutine.wrap(forever)()
            end, { timeout = 30 })
          end)()
        end, { allowRerun = true })
      end)
      assert.equal("TimedOut", guard:GetStatus "inner")
    end)
  end)

  describe("of what yields:", function()
    local function start(fn, options)
      local co = coroutine.create(function()
        return guard:RunOnce("k", fn, options or { timeout = LIMIT })
      end)
      assert.is_true((coroutine.resume(co)))
      return co
    end

    it("the record ends at the deadline, fn when it is resumed", function()
      local lines = 0
      local co = start(function()
        coroutine.yield()
        lines = lines + 1
        forever()
      end)
      assert.equal("TimedOut", status_in_the_end(guard))
      assert.is_false(guard:IsLocked "k")
      assert.same({ true, false, nil, "timeout" }, { coroutine.resume(co) })
      assert.equal(0, lines)
    end)

    it("after it was resumed in time", function()
      local co = start(function()
        coroutine.yield()
        forever()
      end)
      assert.same({ true, false, nil, "timeout" }, { coroutine.resume(co) })
    end)

    it("only the one whose time is over", function()
      local a = start(function() coroutine.yield() end)
      local b = coroutine.wrap(function()
        return guard:RunOnce("b", function()
          coroutine.yield()
          spin(LIMIT)
          return 7
        end, { timeout = 30 })
      end)
      b()
      spin(2 * LIMIT)
      assert.same({ true, 7 }, { b() })
      assert.same({ true, false, nil, "timeout" }, { coroutine.resume(a) })
    end)

    it("nested, over yields", function()
      local co = start(function()
        guard:RunOnce("inner", function()
          while true do coroutine.yield() end
        end, { timeout = 30 })
      end)
      local answers
      repeat
        answers = table.pack(coroutine.resume(co))
      until coroutine.status(co) == "dead"
      assert.same({ true, false, nil, "timeout", n = 4 }, answers)
      assert.equal("TimedOut", guard:GetStatus "inner")
    end)

    it("a shield over a yield", function()
      local done
      local co = start(function()
        ExecutionGuard.shield(function()
          coroutine.yield()
          spin(2 * LIMIT)
          done = true
        end)
        forever()
      end)
      assert.same({ true, false, nil, "timeout" }, { coroutine.resume(co) })
      assert.is_true(done)
    end)

    it("closed or collected, it is gone", function()
      for i = 1, 100 do
        local co = start(function() coroutine.yield() end,
          { timeout = 30, allowRerun = true })
        if i % 2 == 0 then coroutine.close(co) end
        co = nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
        assert.equal("Failed", guard:GetStatus "k")
      end
    end)

    it("a looping <close> of a coroutine that is closed", function()
      ends(function()
        local co = coroutine.create(function()
          local _ <close> = setmetatable({}, { __close = forever })
          coroutine.yield()
        end)
        coroutine.resume(co)
        coroutine.close(co)
      end)
    end)
  end)

  describe("and a hook of the user's:", function()
    local function same_hook(f, mask, count)
      local g, m, c = debug.gethook()
      debug.sethook()
      assert.same({ f, mask, count }, { g, m, c })
    end

    for _, how in ipairs { { "", 1000 }, { "l", 0 }, { "crl", 0 } } do
      it("comes back, mask '" .. how[1] .. "'", function()
        local function hook() end
        debug.sethook(hook, how[1], how[2])
        local _, _, why = run(forever)
        same_hook(hook, how[1], how[2])
        assert.equal("timeout", why)
      end)
    end

    it("one of a coroutine stays there", function()
      local function hook() end
      local co = coroutine.create(forever)
      debug.sethook(co, hook, "l")
      ends(function() coroutine.resume(co) end)
      assert.equal(hook, (debug.gethook(co)))
    end)
  end)

  describe("wraps what Lua has:", function()
    local function fails(text, fn, ...)
      local ok, why = pcall(fn, ...)
      assert.is_false(ok)
      assert.equal(text, why)
    end

    it("with the same errors", function()
      fails("bad argument #1 to 'coroutine.resume' " ..
        "(thread expected, got number)",
        coroutine.resume, 1)
      fails("bad argument #1 to 'coroutine.wrap' " ..
        "(function expected, got number)",
        coroutine.wrap, 1)
      fails("bad argument #1 to 'coroutine.close' " ..
        "(thread expected, got no value)",
        coroutine.close)
      fails("bad argument #2 to 'xpcall' (function expected, got no value)",
        xpcall, print)
      fails("cannot close a running coroutine", coroutine.close,
        (coroutine.running()))
    end)

    it("with the same results", function()
      local co = coroutine.create(function(...)
        return select("#", ...), coroutine.yield(...)
      end)
      assert.same({ true, 1, nil, 3 }, { coroutine.resume(co, 1, nil, 3) })
      assert.same({ true, 3, "x" }, { coroutine.resume(co, "x") })
      assert.same({ false, "cannot resume dead coroutine" },
        { coroutine.resume(co) })
      assert.same({ true }, { coroutine.close(co) })
      assert.same({ true, 1, 2 }, { xpcall(function(...)
        return ...
      end, error, 1, 2) })
      assert.same({ false, "handled x" }, { xpcall(error, function(e)
        return "handled " .. e
      end, "x", 0) })
      assert.has_error(function() coroutine.wrap(error)({}) end)
    end)
  end)
end)
