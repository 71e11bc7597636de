-- SPDX-License-Identifier: MIT
-- Where the interruption of functions ends: what it cannot end, what was taken
-- before it was there, and who might play with its error.  Real time, with
-- generous bounds.

local ExecutionGuard = require "executionguard"
local interrupting = require "support.interrupting"
local in_a_process = require "support.process".run

local steady = require "executionguard.core".clock.steady
local forever, spin = interrupting.forever, interrupting.spin
local until_reached = interrupting.until_reached
local LIMIT <const> = interrupting.LIMIT

describe("interruption", function()
  local guard, run, ends

  before_each(function()
    guard, run, ends = interrupting.start()
  end)

  after_each(function() interrupting.stop(guard) end)

  describe("of what is as deep as it goes:", function()
    it("a stack that overflows is no timeout, and only its top is told",
      function()
      local function f() return 1 + f() end
      local _, why, reason = run(f, { timeout = 60 })
      assert.equal("failed", reason)
      assert.matches("stack overflow", why, 1, true)
      local kept = guard:GetRecord "k".error
      assert.matches("in upvalue 'f'\n\t...\t(the levels below", kept, 1, true)
    end)

    it("pcall, 197 deep in a program", function()
      assert.equal("timeout\n", in_a_process [[
        local guard = require "executionguard".new()
        local function nested(n)
          if n == 0 then while true do end end
          while true do pcall(nested, n - 1) end
        end
        for _, deep in ipairs { 100, 180, 190, 197 } do
          local _, why, reason = guard:RunOnce("k" .. deep, function()
            pcall(nested, deep)
            while true do end
          end, { timeout = 0.01 })
          if reason ~= "timeout" then print(deep, why, reason) end
        end
        print "timeout"
      ]])
    end)

    it("pcall until the C stack is full, which loops", function()
      local function nested()
        while true do pcall(nested) end
      end
      ends(nested)
    end)

    it("recursion until the Lua stack is full", function()
      local function deeper() return 1 + deeper() end
      ends(function() while true do pcall(deeper) end end)
    end)
  end)

  describe("of one long call into C", function()
    -- Takes more than 5 times the limit: exponential in n.
    local function long()
      local n, took = 16, 0
      while took < 5 * LIMIT do
        n = n + 1
        local start = steady()
        local _ = ("a"):rep(n):find(("a?"):rep(n) .. ("a"):rep(n) .. "b")
        took = steady() - start
      end
      return n
    end

    it("comes late; the record ends at the deadline", function()
      local n = long()
      local start = steady()
      assert.same({ false, nil, "timeout" }, { run(function()
        return ("a"):rep(n):find(("a?"):rep(n) .. ("a"):rep(n) .. "b")
      end) })
      local took = steady() - start
      local record = guard:GetRecord "k"
      assert.equal("TimedOut", record.status)
      assert.is_true(record.duration >= LIMIT)
      assert.is_true(record.duration < took)
    end)
  end)

  describe("of an alias taken before:", function()
    it("what coroutine.resume runs goes on, its record ends", function()
      assert.equal("TimedOut\tfalse\nfalse\tnil\ttimeout\n", in_a_process [[
        local resume, create = coroutine.resume, coroutine.create
        local ExecutionGuard = require "executionguard"
        local now = require "executionguard.core".clock.steady
        local guard = ExecutionGuard.new()
        print(guard:RunOnce("k", function()
          resume(create(function()
            local start = now()
            repeat until guard:GetStatus "k" ~= "Running" or
              now() - start > 20
            print(guard:GetStatus "k", guard:IsLocked "k")
          end))
          while true do end
        end, { timeout = 0.01 }))
      ]])
    end)
  end)

  describe("and its error:", function()
    it("is no string that somebody could raise", function()
      local caught
      until_reached(function(reached)
        ends(function()
          pcall(function()
            local _ <close> = setmetatable({}, { __close = function(_, err)
              caught = err
            end })
            reached()
            forever()
          end)
        end, { closeGrace = 5, allowRerun = true })
      end)
      assert.equal("userdata", type(caught))
      assert.matches("^interrupted", tostring(caught))
      assert.is_false(getmetatable(caught))
      -- raised by somebody else it is an error like any other
      local ok, why, reason = guard:RunOnce("other", function()
        error(caught)
      end, { timeout = 30 })
      assert.is_false(ok)
      assert.equal(caught, why)
      assert.equal("failed", reason)
      assert.matches("interrupted", guard:GetRecord "other".error)
      assert.equal("handled", select(2, xpcall(error, function()
        return "handled"
      end, caught)))
    end)

    it("with the same words fails the run", function()
      local words = "interrupted: the time of an ExecutionGuard run is over"
      assert.same({ false, words, "failed" },
        { run(function() error(words, 0) end, { timeout = 30 }) })
    end)

    it("comes out of a dead coroutine as text", function()
      local co
      until_reached(function(reached)
        co = coroutine.create(function()
          reached()
          forever()
        end)
        ends(function() coroutine.resume(co) end, { allowRerun = true })
      end)
      assert.same({ false, "interrupted: the time of an ExecutionGuard run " ..
        "is over" }, { coroutine.close(co) })
    end)

    it("of an inner guard does not end the outer one", function()
      local inner
      assert.same({ true, 7 }, { run(function()
        inner = { guard:RunOnce("inner", function()
          while true do pcall(forever) end
        end, { timeout = LIMIT }) }
        return 7
      end, { timeout = 30 }) })
      assert.same({ false, nil, "timeout" }, inner)
    end)
  end)

  describe("and onTimeout:", function()
    it("of three nested: the outer one's first, then from the inside",
      function()
      local order
      local function note(key)
        order[#order + 1] = key
        assert.equal("TimedOut", guard:GetStatus(key))
        assert.is_false(guard:IsLocked(key))
      end
      until_reached(function(reached)
        order = {}
        ends(function()
          guard:RunOnce("a", function()
            guard:RunOnce("b", function()
              reached()
              forever()
            end, { timeout = 30, onTimeout = note })
          end, { timeout = 30, onTimeout = note })
        end, { onTimeout = note, allowRerun = true })
      end)
      assert.same({ "k", "b", "a" }, order)
    end)

    it("that fails does not keep the others from being called", function()
      local called
      until_reached(function(reached)
        ends(function()
          guard:RunOnce("a", function()
            guard:RunOnce("b", function()
              reached()
              forever()
            end, { timeout = 30, onTimeout = function() error "wrong" end })
          end, { timeout = 30, onTimeout = function() called = true end })
        end, { allowRerun = true })
      end)
      assert.is_true(called)
    end)

    it("which a guard further out ends goes no further, nor does what " ..
       "called it", function()
      local went_on
      until_reached(function(reached)
        ends(function()
          guard:RunOnce("inner", function()
            spin(LIMIT / 4)
          end, { timeout = LIMIT / 10, interrupt = false, allowRerun = true,
            -- put off until the outer one has ended, on a busy machine
            onTimeout = function()
              if guard:GetStatus "k" == "Running" then reached() end
              spin(100 * LIMIT)
            end })
          went_on = true
        end, { allowRerun = true, closeGrace = 1e9 })
      end)
      assert.is_nil(went_on)
    end)

    it("of a run that an executor's timeout ends is called then", function()
      local executor = require "executionguard.executor"
      local job = require "executionguard.job"
      local order = {}
      until_reached(function(reached)
        local limited = executor.new(job.new("job", function()
          guard:RunOnce("inner", function()
            reached()
            forever()
          end, { timeout = 30, allowRerun = true,
            onTimeout = function(key) order[#order + 1] = key end })
        end, { grace = LIMIT }), { timeout = LIMIT })
        order = {}
        assert.is_nil((limited:Start()))
      end)
      assert.same({ "inner" }, order)
      ends(forever, { onTimeout = function(key) order[#order + 1] = key end })
      assert.same({ "inner", "k" }, order)
    end)

    it("of a guard that expires in that of another", function()
      local inner
      ends(forever, { onTimeout = function()
        inner = { guard:RunOnce("b", forever, { timeout = LIMIT }) }
      end })
      assert.same({ false, nil, "timeout" }, inner)
    end)
  end)

  describe("by engine", function()
    it("none: fn is left to finish", function()
      ExecutionGuard.configure { engine = "none" }
      local finished
      ends(function()
        spin(3 * LIMIT)
        local start = steady() -- the keeper may come late on a busy machine
        repeat
          finished = guard:GetStatus "k"
        until finished ~= "Running" or steady() - start > 20
      end)
      assert.equal("TimedOut", finished)
    end)

    it("count: a hook of the user's own is left alone", function()
      ExecutionGuard.configure { engine = "count" }
      local function hook() end
      debug.sethook(hook, "", 1000)
      assert.same({ false, nil, "timeout" },
        { run(function() spin(3 * LIMIT) end) })
      local kept, mask, count = debug.gethook()
      debug.sethook()
      assert.same({ hook, "", 1000 }, { kept, mask, count })
    end)

    it("count: what no deadline ends is not counted", function()
      ExecutionGuard.configure { engine = "count" }
      local counted
      local function look() counted = debug.gethook() ~= nil end
      guard:RunOnce("limited", look, { timeout = 30 })
      assert.is_true(counted)
      guard:RunOnce("unlimited", look, { timeout = 0 })
      assert.is_false(counted)
    end)

    it("count: nested, in coroutines, over yields", function()
      ExecutionGuard.configure { engine = "count" }
      ends(function()
        local co = coroutine.wrap(function()
          coroutine.yield()
          guard:RunOnce("b", function()
            coroutine.wrap(forever)()
          end, { timeout = 30 })
        end)
        co()
        co()
      end, { timeout = 20 * LIMIT }) -- time enough to come so far
      assert.equal("TimedOut", guard:GetStatus "b")
    end)
  end)

  describe("of sleeping", function()
    it("between two attempts", function()
      ends(function()
        guard:RunOnce("b", function() error "again" end,
          { timeout = 30, retry = { attempts = 2, delay = 20,
            jitter = false } })
        forever()
      end)
    end)
  end)

  it("is there after somebody has put Lua's own functions back", function()
    assert.equal("timeout\n", in_a_process [[
      local before = xpcall
      require "executionguard"
      assert(xpcall ~= before)
      xpcall = before
      for name in pairs(package.loaded) do
        if name:match "^executionguard" then package.loaded[name] = nil end
      end
      local wrapped = coroutine.resume
      local guard = require "executionguard".new()
      assert(coroutine.resume == wrapped and xpcall ~= before)
      local function forever() while true do end end
      print((select(3, guard:RunOnce("k", function()
        xpcall(forever, forever)
      end, { timeout = 0.01 }))))
    ]])
  end)
end)
