-- SPDX-License-Identifier: MIT
-- executionguard.testing: the clock that is moved by hand.

local ExecutionGuard = require "executionguard"
local testing = require "executionguard.testing"

local START <const> = 1767225600 -- 2026-01-01T00:00:00Z

-- The message of the error that fn raises, without the place, which has to be
-- in this file.
local function refusal(fn, ...)
  local arguments = table.pack(...)
  local ok, err = pcall(function()
    fn(table.unpack(arguments, 1, arguments.n))
  end)
  assert.is_false(ok)
  return err:match "^%g*testing_spec%.lua:%d+: (.*)$"
end

local function is_system_time()
  return math.abs(ExecutionGuard.now() - os.time()) < 300
end

describe("a test clock", function()
  local clock

  before_each(function()
    clock = testing.clock()
  end)

  after_each(function()
    clock:restore()
    testing.install(false)
  end)

  it("starts at the beginning of 2026, each time", function()
    assert.equal(START, clock:now())
    clock:advance(100)
    clock = testing.clock()
    assert.equal(START, clock:now())
  end)

  it("stands still", function()
    local now, steady = clock:now(), clock:steady()
    for _ = 1, 1000 do
      ExecutionGuard.getGlobalStats()
    end
    assert.equal(now, clock:now())
    assert.equal(steady, clock:steady())
  end)

  it("is the clock of ExecutionGuard.now", function()
    clock:advance(12.5)
    assert.equal(START + 12.5, ExecutionGuard.now())
  end)

  describe("advance", function()
    it("moves wall time and steady time alike", function()
      local steady = clock:steady()
      clock:advance(90)
      clock:advance(0)
      clock:advance(0.25)
      assert.equal(START + 90.25, clock:now())
      assert.equal(steady + 90.25, clock:steady())
    end)

    it("is exact over long times", function()
      local steady = clock:steady()
      for _, seconds in ipairs { 21600, 86400, 31536000, 1e9 } do
        clock:advance(seconds)
        steady = steady + seconds
        assert.equal(steady, clock:steady())
      end
    end)

    it("lets timeouts pass", function()
      local guard <close> = ExecutionGuard.new()
      local late
      local _, _, reason = guard:RunOnce("key", function()
        clock:advance(4.999)
        late = ExecutionGuard.expired()
        clock:advance(0.001)
        assert(ExecutionGuard.expired())
      end, { timeout = 5 })
      assert.equal("timeout", reason)
      assert.is_false(late)
    end)

    it("lets cooldowns pass", function()
      local guard <close> = ExecutionGuard.new { cooldown = 60 }
      local options = { allowRerun = true }
      local function run()
        return guard:RunOnce("key", function() return 1 end, options)
      end
      assert.is_true(run())
      clock:advance(20)
      assert.same({ false, nil, "cooldown", 40 }, { run() })
      clock:advance(40)
      assert.is_true(run())
    end)

    it("refuses what is no time", function()
      local advance = clock.advance
      local must = "advance: seconds must be a number of seconds, not a "
      assert.equal(must .. "nil", refusal(advance, clock))
      assert.equal(must .. "string", refusal(advance, clock, "5"))
      assert.equal("advance: seconds must be a number of seconds from 0 to " ..
                   "10000000000, not -1", refusal(advance, clock, -1))
      assert.matches("not inf$", refusal(advance, clock, math.huge))
      assert.matches("not %-?nan$", refusal(advance, clock, 0 / 0))
      assert.equal(START, clock:now())
    end)
  end)

  describe("setWall", function()
    it("moves the time of day alone, forwards and back", function()
      local steady = clock:steady()
      clock:setWall(START + 3600)
      assert.equal(START + 3600, clock:now())
      clock:setWall(START + 0.000001)
      assert.equal(START + 0.000001, clock:now())
      clock:setWall(1000)
      assert.equal(1000, ExecutionGuard.now())
      assert.equal(steady, clock:steady())
      clock:advance(1)
      assert.equal(1001, clock:now())
    end)

    it("brings no timeout nearer", function()
      local guard <close> = ExecutionGuard.new()
      local ok = guard:RunOnce("key", function()
        clock:setWall(START + 24 * 3600)
      end, { timeout = 5 })
      assert.is_true(ok)
      assert.equal(0, guard:GetRecord("key").duration)
    end)

    it("refuses what is no time", function()
      local setWall = clock.setWall
      assert.equal("setWall: the time must be a number of seconds, not a nil",
                   refusal(setWall, clock))
      assert.matches("^setWall: the time must be .* not %-0.5$",
                     refusal(setWall, clock, -0.5))
      assert.matches("not 1e%+20$", refusal(setWall, clock, 1e20))
    end)
  end)

  describe("that waiting moves", function()
    it("is at the end of the delays between retries", function()
      local guard <close> = ExecutionGuard.new()
      local attempts, steady = 0, clock:steady()
      local ok = guard:RunOnce("key", function()
        attempts = attempts + 1
        return attempts == 3 or error "again"
      end, {
        retry = { attempts = 3, delay = 10, factor = 2, jitter = false },
      })
      assert.is_true(ok)
      assert.equal(30, clock:steady() - steady)
    end)

    it("is at the end of the cooldown that a lock waits for", function()
      local guard <close> = ExecutionGuard.new { cooldown = 10 }
      guard:RunOnce("key", function() end)
      assert.same({ false, "cooldown", 10 }, { guard:AcquireLock("key", 0) })
      assert.is_true((guard:AcquireLock("key", 30)))
      assert.equal(START + 10, clock:now())
    end)

    it("is made by auto, the default", function()
      local by_hand <close> = testing.clock { auto = false }
      assert.is_false(by_hand.auto)
      local by_itself <close> = testing.clock { auto = true }
      assert.is_true(by_itself.auto)
      local default <close> = testing.clock {}
      assert.is_true(default.auto)
    end)

    it("moves by hand as well without auto", function()
      local by_hand <close> = testing.clock { auto = false }
      by_hand:advance(5)
      assert.equal(START + 5, by_hand:now())
    end)
  end)

  describe("gives way", function()
    it("when it is restored", function()
      assert.is_false(is_system_time())
      clock:restore()
      assert.is_true(is_system_time())
      clock:restore()
      assert.is_true(is_system_time())
    end)

    it("at the end of its block", function()
      do
        local inner <close> = testing.clock()
        assert.equal(START, inner:now())
      end
      assert.is_true(is_system_time())
    end)

    it("when its block ends by an error", function()
      local ok = pcall(function()
        local inner <close> = testing.clock()
        error(inner)
      end)
      assert.is_false(ok)
      assert.is_true(is_system_time())
    end)

    it("to a newer one, which it then leaves alone", function()
      local newer <close> = testing.clock()
      newer:advance(7)
      clock:restore()
      assert.equal(START + 7, ExecutionGuard.now())
    end)

    it("and then refuses to be moved or read", function()
      clock:restore()
      for _, method in ipairs { "advance", "setWall", "now", "steady" } do
        assert.equal(method .. ": this clock is not in force: it was " ..
                     "restored, or another took its place",
                     refusal(clock[method], clock, 1))
      end
    end)
  end)

  it("says what it is", function()
    assert.equal("ExecutionGuard test clock (in force)", tostring(clock))
    clock:restore()
    assert.equal("ExecutionGuard test clock (restored)", tostring(clock))
    assert.is_true(testing.isClock(clock))
    for _, other in ipairs { {}, 1, "clock", false, io.stdout } do
      assert.is_false(testing.isClock(other))
    end
    assert.is_false(testing.isClock(nil))
  end)

  it("refuses to be called with a dot", function()
    assert.equal("advance: called on a number, not on a clock (write " ..
                 "clock:advance(...), with a colon)",
                 refusal(clock.advance, 1))
    for _, method in ipairs { "setWall", "now", "steady" } do
      assert.matches("^" .. method .. ": called on a nil, not on a clock",
                     refusal(clock[method]))
    end
    assert.equal("restore: called on a table, not on a clock (write " ..
                 "clock:restore(), with a colon)", refusal(clock.restore, {}))
  end)

  it("refuses options that it does not have", function()
    assert.equal("testing.clock: options must be a table {auto = boolean}, " ..
                 "not a boolean", refusal(testing.clock, true))
    assert.equal("testing.clock: there is no option 'atuo'; the only one " ..
                 "is 'auto'", refusal(testing.clock, { atuo = true }))
    assert.equal("testing.clock: there is no option '1'; the only one is " ..
                 "'auto'", refusal(testing.clock, { "auto" }))
    assert.equal("testing.clock: option 'auto' must be a boolean, not a " ..
                 "number", refusal(testing.clock, { auto = 1 }))
    assert.equal(START, clock:now()) -- still in force
  end)
end)
