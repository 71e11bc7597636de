-- SPDX-License-Identifier: MIT
-- Times: cooldown, lockAtLeast, the lives of results, errors and records,
-- timeouts; each just before, at and after its boundary.

local world = require "support.world"

local us = world.us
local function seven() return 7 end
local function boom() error("boom", 0) end
local function never() error("fn was called", 0) end

for _, way in ipairs(world.ways) do
  describe("time " .. way.name .. ":", function()
    local guard

    local function reason(key, options)
      local _, _, why = guard:RunOnce(key, seven, options or
        { allowRerun = true })
      return why
    end

    before_each(function()
      world.start(true)
      guard = world.new(way)
    end)

    after_each(function()
      guard:Close()
      world.stop()
    end)

    describe("cooldown", function()
      it("counts from the end of a run", function()
        guard:RunOnce("k", function() world.advance(3) end,
          { cooldown = 10 })
        world.advance(10 - us)
        assert.equal("cooldown", reason "k")
        world.advance(us)
        assert.is_nil(reason "k")
      end)

      it("is told to the microsecond", function()
        guard:RunOnce("k", seven, { cooldown = 1 })
        world.advance(0.25)
        local _, _, why, left = guard:RunOnce("k", never,
          { allowRerun = true })
        assert.equal("cooldown", why)
        assert.equal(0.75, left)
        world.advance(0.75 - us)
        _, _, _, left = guard:RunOnce("k", never, { allowRerun = true })
        assert.equal(us, left)
      end)

      it("comes after failures and timeouts too", function()
        guard:RunOnce("f", boom, { cooldown = 5 })
        guard:RunOnce("t", function() world.advance(2) end,
          { cooldown = 5, timeout = 1 })
        for _, key in ipairs { "f", "t" } do
          assert.equal("cooldown", reason(key))
        end
        world.advance(5)
        for _, key in ipairs { "f", "t" } do
          assert.is_nil(reason(key))
        end
      end)

      it("does not hide a cached result", function()
        guard:RunOnce("k", seven, { cooldown = 5 })
        assert.same({ true, 7, "cached" }, { guard:RunOnce("k", never) })
      end)

      it("holds a lock off; AcquireLock waits for its end", function()
        guard:RunOnce("k", seven, { cooldown = 10 })
        assert.same({ false, "cooldown" },
          { table.unpack({ guard:AcquireLock("k", 0) }, 1, 2) })
        local before = world.steady()
        assert.is_true((guard:AcquireLock("k", 30)))
        assert.equal(before + 10, world.steady())
      end)

      it("is not waited for when it takes too long", function()
        guard:RunOnce("k", seven, { cooldown = 10 })
        local before = world.steady()
        local ok, why = guard:AcquireLock("k", 9.999)
        assert.is_false(ok)
        assert.equal("cooldown", why)
        assert.is_true(world.steady() - before <= 9.999 + us)
        local lock
        lock, why = guard:Lock("k", 0)
        assert.is_nil(lock)
        assert.equal("cooldown", why)
      end)

      it("Lock waits for it as well", function()
        guard:RunOnce("k", seven, { cooldown = 10 })
        local lock <close> = guard:Lock "k"
        assert.is_true(lock:Held())
        assert.equal(world.epoch + 10, world.EG.now())
      end)

      it("RunOnce does not wait", function()
        guard:RunOnce("k", seven, { cooldown = 1 })
        local before = world.steady()
        assert.equal("cooldown", reason("k",
          { allowRerun = true, timeout = 100 }))
        assert.equal(before, world.steady())
      end)

      it("is not set by the release of a lock", function()
        local mine = world.new(way, { cooldown = 10 })
        mine:AcquireLock "k"
        mine:ReleaseLock "k"
        assert.is_true((mine:RunOnce("k", seven)))
        mine:Close()
      end)

      it("ends with a Reset", function()
        guard:RunOnce("k", seven, { cooldown = 10 })
        guard:Reset "k"
        assert.is_nil(reason "k")
      end)

      it("is not set when the outcome was refused", function()
        guard:RunOnce("k", function() guard:Reset "k" end,
          { cooldown = 10 })
        assert.is_nil(reason "k")
      end)

      it("stays over a lock that could not be had", function()
        guard:RunOnce("k", seven, { cooldown = 10 })
        guard:AcquireLock("k", 0)
        guard:ReleaseLock "k"
        assert.equal("cooldown", reason "k")
      end)
    end)

    describe("lockAtLeast", function()
      it("counts from the grant of a run", function()
        guard:RunOnce("k", function() world.advance(4) end,
          { lockAtLeast = 10 })
        world.advance(6 - us)
        local _, _, why, left = guard:RunOnce("k", never,
          { allowRerun = true })
        assert.equal("cooldown", why)
        assert.equal(us, left)
        world.advance(us)
        assert.is_nil(reason "k")
      end)

      it("is exact after a run of odd length", function()
        guard:RunOnce("k", function() world.advance(0.000123) end,
          { lockAtLeast = 1 })
        world.advance(1 - 0.000123 - us)
        assert.equal("cooldown", reason "k")
        world.advance(us)
        assert.is_nil(reason "k")
      end)

      it("is nothing after a longer run", function()
        guard:RunOnce("k", function() world.advance(10) end,
          { lockAtLeast = 10 })
        assert.is_nil(reason "k")
      end)

      it("the longer of it and cooldown counts", function()
        guard:RunOnce("a", function() world.advance(4) end,
          { lockAtLeast = 10, cooldown = 5 })
        world.advance(6 - us)
        assert.equal("cooldown", reason "a")
        world.advance(us)
        assert.is_nil(reason "a")
        guard:RunOnce("b", function() world.advance(4) end,
          { lockAtLeast = 10, cooldown = 8 })
        world.advance(8 - us)
        assert.equal("cooldown", reason "b")
        world.advance(us)
        assert.is_nil(reason "b")
      end)

      it("counts from the grant of a lock, over its release", function()
        local mine = world.new(way, { lockAtLeast = 10 })
        mine:AcquireLock "k"
        world.advance(4)
        mine:ReleaseLock "k"
        assert.is_false(mine:IsLocked "k")
        assert.is_nil(mine:GetRecord "k")
        local _, _, why, left = mine:RunOnce("k", never)
        assert.equal("cooldown", why)
        assert.equal(6, left)
        world.advance(6 - us)
        assert.is_false((mine:AcquireLock("k", 0)))
        world.advance(us)
        assert.is_true((mine:AcquireLock("k", 0)))
        mine:Close()
      end)

      it("a Reset of a key without record ends it, and leaves none",
        function()
          local mine = world.new(way, { lockAtLeast = 10 })
          mine:AcquireLock "k"
          mine:ReleaseLock "k"
          mine:Reset "k"
          assert.is_nil(mine:GetRecord "k")
          assert.is_true((mine:AcquireLock("k", 0)))
          mine:Close()
        end)

      it("holds off after a failure", function()
        guard:RunOnce("k", boom, { lockAtLeast = 3 })
        assert.equal("cooldown", reason "k")
        world.advance(3)
        assert.is_nil(reason "k")
      end)
    end)

    describe("resultTtl", function()
      it("the result counts that long", function()
        for _, value in ipairs { 7, "text", {}, true } do
          local key = tostring(value)
          guard:RunOnce(key, function() return value end,
            { resultTtl = 10 })
          world.advance(10 - us)
          assert.same({ true, value, "cached" },
            { guard:RunOnce(key, never) })
          assert.is_true(guard:HasResult(key))
          world.advance(us)
          assert.is_false(guard:HasResult(key))
          assert.is_nil(guard:GetResult(key))
          assert.is_nil(guard:GetRecord(key).result)
          assert.same({ true, 8 }, { guard:RunOnce(key, function()
            return 8
          end) })
        end
      end)

      it("GetRecord tells when it ends", function()
        guard:RunOnce("k", seven, { resultTtl = 10 })
        assert.equal(world.epoch + 10, guard:GetRecord("k").expires)
        world.advance(4)
        assert.equal(world.epoch + 10, guard:GetRecord("k").expires)
        guard:RunOnce("l", seven)
        assert.is_nil(guard:GetRecord("l").expires)
      end)

      it("a nil result that is over runs again", function()
        guard:RunOnce("k", function() end, { resultTtl = 5 })
        world.advance(5 - us)
        assert.equal("completed", reason("k", {}))
        world.advance(us)
        assert.is_nil(reason("k", {}))
      end)

      it("an expired result is not kept by a failing rerun", function()
        guard:RunOnce("k", seven, { resultTtl = 5 })
        world.advance(5)
        guard:RunOnce("k", boom)
        assert.is_false(guard:HasResult "k")
      end)

      it("ClearResult ends it: Completed stays", function()
        guard:RunOnce("k", seven, { resultTtl = 5 })
        guard:ClearResult "k"
        world.advance(100)
        assert.equal("completed", reason("k", {}))
      end)

      it("a rerun without it lasts", function()
        guard:RunOnce("k", seven, { resultTtl = 5 })
        guard:RunOnce("k", seven, { allowRerun = true })
        world.advance(1000)
        assert.equal("cached", reason("k", {}))
      end)

      it("goes on while a rerun runs", function()
        guard:RunOnce("k", seven, { resultTtl = 5 })
        guard:RunOnce("k", function()
          world.advance(5 - us)
          assert.is_true(guard:HasResult "k")
          world.advance(us)
          assert.is_false(guard:HasResult "k")
        end, { allowRerun = true, cacheResult = false })
        assert.is_false(guard:HasResult "k")
      end)

      it("of an earlier result goes on over a rerun that stores none",
        function()
          guard:RunOnce("k", seven, { resultTtl = 5 })
          world.advance(2)
          guard:RunOnce("k", function() return 8 end,
            { allowRerun = true, cacheResult = false })
          assert.equal(7, guard:GetResult "k")
          world.advance(3 - us)
          assert.equal(7, guard:GetResult "k")
          world.advance(us)
          assert.is_nil(guard:GetResult "k")
        end)

      it("math.huge is for ever", function()
        guard:RunOnce("k", seven, { resultTtl = math.huge })
        world.advance(1e9)
        assert.equal("cached", reason("k", {}))
      end)
    end)

    describe("errorTtl", function()
      it("the error is answered that long", function()
        guard:RunOnce("k", boom, { errorTtl = 10 })
        world.advance(10 - us)
        assert.same({ false, "boom", "failed", us },
          { guard:RunOnce("k", never) })
        world.advance(us)
        assert.same({ true, 7 }, { guard:RunOnce("k", seven) })
      end)

      it("the text stays visible longer", function()
        guard:RunOnce("k", boom, { errorTtl = 1 })
        world.advance(100)
        assert.equal("Failed", guard:GetStatus "k")
        assert.matches("^boom", guard:GetRecord("k").error)
      end)

      it("also with allowRerun", function()
        guard:RunOnce("k", boom, { errorTtl = 10 })
        assert.equal("failed", reason("k", { allowRerun = true }))
      end)

      it("does not come after a timeout", function()
        guard:RunOnce("k", function() world.advance(2) end,
          { errorTtl = 10, timeout = 1 })
        assert.is_nil(reason("k", {}))
      end)

      it("a lock is not held off by it", function()
        guard:RunOnce("k", boom, { errorTtl = 10 })
        assert.is_true((guard:AcquireLock("k", 0)))
      end)

      it("cooldown comes first", function()
        guard:RunOnce("k", boom, { errorTtl = 10, cooldown = 5 })
        assert.equal("cooldown", reason "k")
        world.advance(5)
        assert.equal("failed", reason "k")
        world.advance(5)
        assert.is_nil(reason "k")
      end)

      it("ClearResult ends it", function()
        guard:RunOnce("k", boom, { errorTtl = 10 })
        guard:ClearResult "k"
        assert.equal("Failed", guard:GetStatus "k")
        assert.is_nil(reason "k")
      end)

      it("Reset ends it", function()
        guard:RunOnce("k", boom, { errorTtl = 10 })
        guard:Reset "k"
        assert.is_nil(reason "k")
      end)

      it("an earlier result without end survives it", function()
        guard:RunOnce("k", seven)
        guard:RunOnce("k", boom, { errorTtl = 10, allowRerun = true })
        assert.equal(7, guard:GetResult "k")
        world.advance(20)
        assert.equal(7, guard:GetResult "k")
      end)
    end)

    describe("recordTtl", function()
      it("an ended record is forgotten that long after its end",
        function()
          for key, fn in pairs { ok = seven, bad = boom,
            late = function() world.advance(2) end } do
            guard:RunOnce(key, fn, { recordTtl = 10, timeout = 1 })
            world.advance(10 - us)
            assert.is_not_nil(guard:GetRecord(key))
            assert.is_not_nil(guard:GetAllRecords()[key])
            world.advance(us)
            assert.is_nil(guard:GetRecord(key))
            assert.equal("Idle", guard:GetStatus(key))
            assert.is_nil(guard:GetAllRecords()[key])
          end
          assert.equal(0, guard:GetAnalytics().totalRecords)
        end)

      it("counts begin anew", function()
        guard:RunOnce("k", seven, { recordTtl = 10 })
        world.advance(10)
        guard:RunOnce("k", seven)
        local record = guard:GetRecord "k"
        assert.equal(1, record.executionCount)
        assert.equal(world.epoch + 10, record.lastExecutionTime)
      end)

      it("is put off by a rerun, and never comes while it runs",
        function()
          guard:RunOnce("k", seven, { recordTtl = 10 })
          guard:RunOnce("k", function()
            world.advance(20)
            assert.equal("Running", guard:GetStatus "k")
            return 8
          end, { recordTtl = 10, allowRerun = true })
          assert.equal(2, guard:GetRecord("k").executionCount)
          world.advance(10)
          assert.is_nil(guard:GetRecord "k")
        end)

      it("a rerun without it stays", function()
        guard:RunOnce("k", seven, { recordTtl = 10 })
        guard:RunOnce("k", seven, { allowRerun = true })
        world.advance(1000)
        assert.equal(2, guard:GetRecord("k").executionCount)
      end)

      it("does not end a lock", function()
        guard:RunOnce("k", seven, { recordTtl = 10 })
        local _, token = guard:AcquireLock "k"
        world.advance(100)
        assert.is_true(guard:IsLocked "k")
        assert.is_true(guard:ReleaseLock("k", token))
        assert.is_nil(guard:GetRecord "k")
        assert.equal("Idle", guard:GetStatus "k")
      end)

      world.private(way, it)("opaque values go with records", function()
        local weak = setmetatable({}, { __mode = "v" })
        local n = world.scaled(3000)
        for i = 1, n do
          local value = {}
          weak[i] = value
          guard:RunOnce("k" .. i, function() return value end,
            { recordTtl = 10 })
        end
        world.collect()
        assert.is_not_nil(weak[1])
        assert.is_not_nil(weak[n])
        world.advance(10)
        for i = 1, n do
          assert.is_nil(guard:GetResult("k" .. i))
        end
        -- inserts sweep a few slots each, and drain what was swept
        for i = 1, 40 * n do
          guard:RunOnce("later" .. i % (4 * n), function() return {} end,
            { recordTtl = 10, allowRerun = true })
        end
        world.collect()
        local left = 0
        for _ in pairs(weak) do left = left + 1 end
        assert.is_true(left <= n // 100)
      end)

      it("a key used again keeps its new opaque value", function()
        local n = world.scaled(2000)
        for i = 1, n do
          guard:RunOnce("k" .. i, function() return { i } end,
            { recordTtl = 1 })
        end
        world.advance(1)
        for i = 1, n do
          guard:RunOnce("k" .. i, function() return { -i } end)
        end
        for i = 1, n do
          guard:RunOnce("l" .. i, function() return {} end)
        end
        for i = 1, n do
          assert.same({ -i }, guard:GetResult("k" .. i))
        end
      end)
    end)

    describe("timeout", function()
      local function takes(seconds, options)
        local key = "k" .. seconds .. tostring(options and options.timeout)
        return select(3, guard:RunOnce(key, function()
          world.advance(seconds)
        end, options))
      end

      it("at the deadline it is too late", function()
        assert.is_nil(takes(1 - us, { timeout = 1 }))
        assert.equal("timeout", takes(1, { timeout = 1 }))
        assert.equal("timeout", takes(1 + us, { timeout = 1 }))
      end)

      it("may be shorter than a millisecond", function()
        assert.is_nil(takes(0.000099, { timeout = 0.0001 }))
        assert.equal("timeout", takes(0.0001, { timeout = 0.0001 }))
      end)

      it("is 30 seconds by default", function()
        assert.is_nil(takes(30 - us))
        assert.equal("timeout", takes(30))
        assert.is_nil(takes(30 - 2 * us, {}))
      end)

      it("0: none", function()
        assert.is_nil(takes(1e6, { timeout = 0 }))
      end)

      it("math.huge: none", function()
        assert.is_nil(takes(1e6, { timeout = math.huge }))
      end)

      it("of new is the default of calls", function()
        local mine = world.new(way, { timeout = 2 })
        local function late() world.advance(3) end
        assert.equal("timeout", select(3, mine:RunOnce("a", late)))
        assert.is_nil(select(3, mine:RunOnce("b", late, { timeout = 9 })))
        mine:Close()
      end)

      it("a late value is refused, the record TimedOut", function()
        assert.same({ false, nil, "timeout" }, { guard:RunOnce("k",
          function()
            world.advance(5)
            return "too late"
          end, { timeout = 1 }) })
        local record = guard:GetRecord "k"
        assert.equal("TimedOut", record.status)
        assert.is_nil(record.result)
        assert.is_false(guard:HasResult "k")
        assert.is_false(record.locked)
        assert.equal(1, record.executionCount)
      end)

      it("a late opaque value is refused too", function()
        local weak = setmetatable({}, { __mode = "v" })
        guard:RunOnce("k", function()
          world.advance(5)
          weak[1] = {}
          return weak[1]
        end, { timeout = 1 })
        assert.is_nil(guard:GetResult "k")
        world.collect()
        assert.is_nil(weak[1])
      end)

      it("the finish of a late fn cannot free the next holder", function()
        guard:RunOnce("k", function()
          world.advance(5)
          guard:Reset "k"
          assert.is_true((guard:AcquireLock("k", 0)))
        end, { timeout = 1 })
        assert.is_true(guard:IsLocked "k")
      end)
    end)

    describe("the wall clock", function()
      local set_wall = world.core.clock.setWall

      it("set back or forth prolongs and ends nothing", function()
        for i, wall in ipairs { world.epoch - 86400, world.epoch + 86400 } do
          local a, b, c, d, e = "a" .. i, "b" .. i, "c" .. i, "d" .. i,
            "e" .. i
          guard:RunOnce(a, seven, { cooldown = 10 })
          guard:RunOnce(b, seven, { resultTtl = 10 })
          guard:RunOnce(c, boom, { errorTtl = 10 })
          guard:RunOnce(d, seven, { recordTtl = 10 })
          guard:RunOnce(e, seven, { lockAtLeast = 10 })
          set_wall(wall)
          world.advance(10 - us)
          assert.equal("cooldown", reason(a))
          assert.equal("cached", reason(b, {}))
          assert.equal("failed", reason(c))
          assert.equal("Completed", guard:GetStatus(d))
          assert.equal("cooldown", reason(e))
          world.advance(us)
          assert.is_nil(reason(a))
          assert.is_nil(guard:GetResult(b))
          assert.is_nil(reason(c))
          assert.is_nil(guard:GetRecord(d))
          assert.is_nil(reason(e))
        end
      end)

      it("set during a run changes neither deadline nor duration",
        function()
          assert.is_nil(select(3, guard:RunOnce("k", function()
            world.advance(0.5)
            set_wall(world.epoch + 1e6)
          end, { timeout = 1 })))
          assert.equal(0.5, guard:GetRecord("k").duration)
          assert.equal("timeout", select(3, guard:RunOnce("l", function()
            world.advance(1)
            set_wall(world.epoch - 1e6)
          end, { timeout = 1 })))
          assert.equal(1, guard:GetRecord("l").duration)
        end)

      it("is what now() and startTime tell", function()
        assert.equal(world.epoch, world.EG.now())
        set_wall(1e9)
        assert.equal(1e9, world.EG.now())
        world.advance(5)
        assert.equal(1e9 + 5, world.EG.now())
        guard:RunOnce("k", seven)
        assert.equal(1e9 + 5, guard:GetRecord("k").startTime)
      end)
    end)

    it("options of new hold for all calls", function()
      local mine = world.new(way, { resultTtl = 5, errorTtl = 6,
        cooldown = 1 })
      mine:RunOnce("r", seven)
      mine:RunOnce("e", boom)
      assert.equal("cooldown", select(3, mine:RunOnce("e", never)))
      world.advance(5)
      assert.is_nil(mine:GetResult "r")
      assert.equal("failed", select(3, mine:RunOnce("e", never)))
      world.advance(1)
      assert.is_true((mine:RunOnce("e", seven)))
      mine:Close()
    end)

    it("an option of a call takes the place of that of new", function()
      local mine = world.new(way, { resultTtl = 5, cooldown = 10 })
      mine:RunOnce("k", seven, { resultTtl = 100, cooldown = 0 })
      world.advance(50)
      assert.equal(7, mine:GetResult "k")
      assert.is_true((mine:AcquireLock("k", 0)))
      mine:Close()
    end)

    it("durations are not cut: 1.1 s are 1.1 s", function()
      for _, seconds in ipairs { 0.001, 0.1, 0.3, 1.1, 2.3, 1e6 + 0.7 } do
        local key = "k" .. seconds
        guard:RunOnce(key, seven, { cooldown = seconds })
        local left = select(4, guard:RunOnce(key, never,
          { allowRerun = true }))
        assert.is_true(math.abs(left - seconds) < 1e-9 * seconds + 1e-12)
      end
    end)
  end)
end
