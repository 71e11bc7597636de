-- SPDX-License-Identifier: MIT
-- AcquireLock, ReleaseLock, IsLocked, and lock objects.

local world = require "support.world"

local function seven() return 7 end
local function never() error("fn was called", 0) end

for _, way in ipairs(world.ways) do
  describe("a lock " .. way.name .. ":", function()
    local guard, name, other

    local function returns(expected, ...)
      assert.same(expected, { ... })
      assert.equal(#expected, select("#", ...))
    end

    before_each(function()
      world.start(true)
      guard = world.new(way)
      name = world.name()
      other = world.new(way, { name = name })
    end)

    after_each(function()
      guard:Close()
      other:Close()
      world.stop()
    end)

    it("is taken and given back", function()
      assert.is_false(guard:IsLocked "k")
      local ok, token = guard:AcquireLock "k"
      assert.is_true(ok)
      assert.equal("integer", math.type(token))
      assert.is_true(guard:IsLocked "k")
      returns({ true }, guard:ReleaseLock "k")
      assert.is_false(guard:IsLocked "k")
      returns({ false }, guard:ReleaseLock "k")
    end)

    it("tokens rise with every grant, and fit 53 bits", function()
      for _, g in ipairs { guard, other } do
        local last = 0
        for i = 1, 50 do
          local ok, token = g:AcquireLock "k"
          assert.is_true(ok)
          assert.is_true(token > last and token < 1 << 53)
          last = token
          if i % 2 == 0 then
            g:ReleaseLock("k", token)
          else
            g:Reset "k"
          end
          if i % 5 == 0 then
            g:RunOnce("k", seven, { allowRerun = true, recordTtl = 1 })
            assert.is_true(g:GetRecord("k").token > last)
            last = g:GetRecord("k").token
            world.advance(i % 10 == 0 and 2 or 0)
          end
        end
      end
    end)

    it("tokens rise over wall clocks that are set back", function()
      local _, first = other:AcquireLock "k"
      other:ReleaseLock "k"
      world.core.clock.setWall(1000)
      local _, second = other:AcquireLock "k"
      assert.is_true(second > first)
    end)

    it("tokens rise over records that are forgotten", function()
      for _, g in ipairs { guard, other } do
        g:RunOnce("k", seven, { recordTtl = 1 })
        local first = g:GetRecord("k").token
        world.advance(1)
        assert.is_nil(g:GetRecord "k")
        -- many more keys, so that the sweep comes by
        for i = 1, 2000 do
          g:RunOnce("other" .. i, seven)
        end
        local _, second = g:AcquireLock "k"
        assert.is_true(second > first)
      end
    end)

    it("a wrong token frees nothing", function()
      local _, token = guard:AcquireLock "k"
      returns({ false }, guard:ReleaseLock("k", token + 1))
      if token > 1 then
        returns({ false }, guard:ReleaseLock("k", token - 1))
      end
      assert.is_true(guard:IsLocked "k")
      returns({ true }, guard:ReleaseLock("k", token))
      returns({ false }, guard:ReleaseLock("k", token))
    end)

    it("an old token does not free the next lock", function()
      local _, old = guard:AcquireLock "k"
      guard:ReleaseLock "k"
      local _, new = guard:AcquireLock "k"
      returns({ false }, guard:ReleaseLock("k", old))
      assert.is_true(guard:IsLocked "k")
      returns({ true }, guard:ReleaseLock("k", new))
    end)

    it("a key that was never locked is not freed", function()
      returns({ false }, guard:ReleaseLock "nobody")
      returns({ false }, guard:ReleaseLock("nobody", 1))
      assert.is_nil(guard:GetRecord "nobody")
    end)

    it("a token that is none raises", function()
      for _, token in ipairs { "1", 1.5, true, {}, 0, -1, 0 / 0 } do
        assert.has_error(function() guard:ReleaseLock("k", token) end)
      end
    end)

    it("another guard of the same name cannot free it", function()
      local foreign = world.new(way, { name = name })
      local _, token = other:AcquireLock "k"
      assert.is_true(foreign:IsLocked "k")
      returns({ false }, foreign:ReleaseLock "k")
      returns({ false }, foreign:ReleaseLock("k", token))
      returns({ false, "locked" }, foreign:AcquireLock("k", 0))
      assert.is_true(other:IsLocked "k")
      returns({ true }, other:ReleaseLock("k", token))
      assert.is_true((foreign:AcquireLock("k", 0)))
      foreign:Close()
    end)

    it("private guards have nothing to do with each other", function()
      local private = world.new(way)
      guard:AcquireLock "k"
      assert.is_false(private:IsLocked "k")
      assert.is_true((private:AcquireLock("k", 0)))
      private:Close()
      assert.is_true(guard:IsLocked "k")
    end)

    it("guards of different names neither", function()
      local third = world.new(way, { name = world.name() })
      other:AcquireLock "k"
      assert.is_true((third:AcquireLock("k", 0)))
      third:Close()
    end)

    it("is not re-entrant: timeout 0 says locked", function()
      guard:AcquireLock "k"
      returns({ false, "locked" }, guard:AcquireLock("k", 0))
    end)

    it("waiting for oneself is a deadlock, told at once", function()
      local before = world.steady()
      guard:AcquireLock "k"
      returns({ false, "deadlock" }, guard:AcquireLock "k")
      returns({ false, "deadlock" }, guard:AcquireLock("k", math.huge))
      returns({ false, "deadlock" }, guard:AcquireLock("k", 0.001))
      assert.equal(before, world.steady())
    end)

    it("Held tells of this guard's own, in a lock and in a run", function()
      assert.is_false(guard:Held "k")
      assert.is_true((guard:AcquireLock "k"))
      assert.is_true(guard:Held "k")
      assert.is_true(guard:ReleaseLock "k")
      assert.is_false(guard:Held "k")
      local inside
      guard:RunOnce("r", function() inside = guard:Held "r" end)
      assert.same({ true, false }, { inside, guard:Held "r" })
      assert.has_error(function() guard:Held() end)
    end)

    it("a deadlock also on a named guard, and from another one", function()
      local before = world.steady()
      local foreign = world.new(way, { name = name })
      other:AcquireLock "k"
      returns({ false, "deadlock" }, other:AcquireLock("k", 10))
      returns({ false, "deadlock" }, foreign:AcquireLock("k", 10))
      returns({ false, nil, "deadlock" }, foreign:RunOnce("k", never))
      local lock, why = foreign:Lock("k", 10)
      assert.is_nil(lock)
      assert.equal("deadlock", why)
      assert.equal(before, world.steady())
      foreign:Close()
    end)

    it("a deadlock in another coroutine of this state", function()
      guard:AcquireLock "k"
      coroutine.wrap(function()
        returns({ false, "deadlock" }, guard:AcquireLock("k", 10))
      end)()
    end)

    it("belongs to the guard, not to a coroutine", function()
      coroutine.wrap(function() guard:AcquireLock "k" end)()
      returns({ true }, guard:ReleaseLock "k")
    end)

    it("leaves the record of a Completed key alone", function()
      guard:RunOnce("k", seven)
      local before = guard:GetRecord "k"
      guard:AcquireLock "k"
      local locked = guard:GetRecord "k"
      assert.equal("Completed", guard:GetStatus "k")
      assert.is_true(locked.locked)
      assert.equal(7, guard:GetResult "k")
      guard:ReleaseLock "k"
      local after = guard:GetRecord "k"
      for _, field in ipairs { "status", "executionCount", "startTime",
        "endTime", "lastExecutionTime", "duration", "result" } do
        assert.equal(before[field], locked[field])
        assert.equal(before[field], after[field])
      end
    end)

    it("leaves Failed and TimedOut alone", function()
      guard:RunOnce("f", function() error("boom", 0) end)
      guard:RunOnce("t", function() world.advance(2) end, { timeout = 1 })
      for key, status in pairs { f = "Failed", t = "TimedOut" } do
        guard:AcquireLock(key)
        assert.equal(status, guard:GetStatus(key))
        guard:ReleaseLock(key)
        assert.equal(status, guard:GetStatus(key))
      end
      assert.matches("^boom", guard:GetRecord("f").error)
    end)

    it("a key that was only locked has no record", function()
      guard:AcquireLock "k"
      assert.is_nil(guard:GetRecord "k")
      assert.equal("Idle", guard:GetStatus "k")
      assert.is_nil(next(guard:GetAllRecords()))
      assert.equal(0, guard:GetAnalytics().totalRecords)
      guard:ReleaseLock "k"
      assert.is_nil(guard:GetRecord "k")
    end)

    it("GetHeld has what runs and locks hold, and nothing else", function()
      guard:RunOnce("done", function() end)
      local _, token = guard:AcquireLock "only locked"
      guard:AcquireLock "done"
      guard:RunOnce("runs", function()
        local held = guard:GetHeld()
        assert.same({ token = token, running = false },
          { token = held["only locked"].token,
            running = held["only locked"].running })
        assert.is_true(held["only locked"].owner.mine)
        assert.equal(guard:Token "runs", held.runs.token)
        assert.is_true(held.runs.running)
        assert.is_false(held.done.running)
        assert.equal(3, guard:GetAnalytics().held)
        for key, lock in held do assert.equal(key, lock.key) end
      end)
      guard:ReleaseLock "only locked"
      guard:ReleaseLock "done"
      assert.is_nil(next(guard:GetHeld()))
      assert.equal(0, guard:GetAnalytics().held)
    end)

    it("RunOnce on a locked key leaves an Idle record", function()
      guard:AcquireLock "k"
      guard:RunOnce("k", never, { timeout = 0 })
      local record = guard:GetRecord "k"
      assert.equal("Idle", record.status)
      assert.equal(0, record.executionCount)
      assert.is_nil(record.startTime)
      assert.is_nil(record.lastExecutionTime)
      assert.is_not_nil(guard:GetAllRecords().k)
      guard:ReleaseLock "k"
      assert.equal("Idle", guard:GetRecord("k").status)
      assert.is_true((guard:RunOnce("k", seven)))
    end)

    it("is not counted", function()
      assert.same({}, world.counted(function()
        guard:AcquireLock "k"
        guard:AcquireLock("k", 0)
        guard:ReleaseLock "k"
      end))
    end)

    it("Reset revokes it, and it cannot be given back then", function()
      local _, token = guard:AcquireLock "k"
      guard:Reset "k"
      assert.is_false(guard:IsLocked "k")
      assert.is_nil(guard:GetRecord "k")
      returns({ false }, guard:ReleaseLock("k", token))
      local _, next_token = guard:AcquireLock "k"
      assert.is_true(next_token > token)
      returns({ false }, guard:ReleaseLock("k", token))
    end)

    it("the owner is told while it is held", function()
      local mine = world.new(way, { name = name, owner = "the tester" })
      mine:RunOnce("k", seven)
      mine:AcquireLock "k"
      local owner = other:GetRecord("k").owner
      assert.equal("the tester", owner.text)
      assert.equal("integer", math.type(owner.pid))
      assert.equal("string", type(owner.host))
      assert.equal(world.epoch, owner.since)
      mine:ReleaseLock "k"
      assert.is_nil(other:GetRecord("k").owner)
      mine:Close()
    end)

    it("many keys at once", function()
      local n = world.scaled(10000)
      for i = 1, n do
        assert.is_true((guard:AcquireLock("k" .. i, 0)))
      end
      for i = 1, n do
        assert.is_true(guard:IsLocked("k" .. i))
      end
      for i = 1, n, 2 do
        assert.is_true(guard:ReleaseLock("k" .. i))
      end
      for i = 1, n do
        assert.equal(i % 2 == 0, guard:IsLocked("k" .. i))
      end
    end)

    describe("of a guard that goes", function()
      local keys = { "a", "b", "c" }

      local function nothing_locked()
        for _, key in ipairs(keys) do
          assert.is_false(other:IsLocked(key))
          assert.is_true((other:AcquireLock(key, 0)))
          other:ReleaseLock(key)
        end
      end

      it("closed: is given back", function()
        local mine = world.new(way, { name = name })
        for _, key in ipairs(keys) do mine:AcquireLock(key) end
        mine:Close()
        nothing_locked()
      end)

      it("collected: is given back", function()
        do
          local mine = world.new(way, { name = name })
          for _, key in ipairs(keys) do mine:AcquireLock(key) end
          assert.is_true(other:IsLocked "a")
        end
        world.collect()
        nothing_locked()
      end)

      it("closed by <close>: is given back", function()
        do
          local mine <close> = world.new(way, { name = name })
          for _, key in ipairs(keys) do mine:AcquireLock(key) end
        end
        nothing_locked()
      end)

      it("closed: those of others stay", function()
        local mine = world.new(way, { name = name })
        other:AcquireLock "a"
        mine:AcquireLock "b"
        mine:Close()
        assert.is_true(other:IsLocked "a")
        assert.is_false(other:IsLocked "b")
      end)

      it("closed: one that Reset took away and another has stays",
        function()
          local mine = world.new(way, { name = name })
          mine:AcquireLock "a"
          other:Reset "a"
          other:AcquireLock "a"
          mine:Close()
          assert.is_true(other:IsLocked "a")
        end)

      it("closed: an Idle or Completed record stays", function()
        local mine = world.new(way, { name = name })
        mine:RunOnce("a", seven)
        mine:AcquireLock "a"
        mine:AcquireLock "b"
        other:RunOnce("b", never, { timeout = 0 })
        mine:Close()
        assert.equal("Completed", other:GetStatus "a")
        assert.equal(7, other:GetResult "a")
        assert.equal(0, other:GetRecord("b").executionCount)
      end)
    end)

    describe("object", function()
      it("holds until it is closed", function()
        do
          local lock <close> = guard:Lock "k"
          assert.is_true(guard:IsLocked "k")
          assert.is_true(lock:Held())
          assert.equal("integer", math.type(lock.token))
        end
        assert.is_false(guard:IsLocked "k")
      end)

      it("is closed by an error too", function()
        pcall(function()
          local lock <close> = guard:Lock "k"
          error(lock)
        end)
        assert.is_false(guard:IsLocked "k")
      end)

      it("is closed with its coroutine", function()
        local co = coroutine.create(function()
          local lock <close> = guard:Lock "k"
          coroutine.yield(lock)
        end)
        coroutine.resume(co)
        assert.is_true(guard:IsLocked "k")
        coroutine.close(co)
        assert.is_false(guard:IsLocked "k")
      end)

      it("Release tells whether it was still held, once", function()
        local lock = guard:Lock "k"
        assert.is_true(lock:Release())
        assert.is_false(lock:Release())
        assert.is_false(lock:Held())
        assert.is_false(guard:IsLocked "k")
      end)

      it("Release leaves the next lock alone", function()
        local lock = guard:Lock "k"
        guard:Reset "k"
        assert.is_false(lock:Held())
        guard:AcquireLock "k"
        assert.is_false(lock:Release())
        assert.is_true(guard:IsLocked "k")
      end)

      it("is the same lock as that of its token", function()
        local lock = guard:Lock "k"
        assert.is_true(guard:ReleaseLock("k", lock.token))
        assert.is_false(lock:Held())
        local second = guard:Lock "k"
        assert.is_true(second.token > lock.token)
        lock:Release()
        assert.is_true(second:Held())
      end)

      it("is nil and a reason when it is refused", function()
        guard:AcquireLock "k"
        local lock, why = guard:Lock("k", 0)
        assert.is_nil(lock)
        assert.equal("locked", why)
        lock, why = guard:Lock "k"
        assert.is_nil(lock)
        assert.equal("deadlock", why)
      end)

      it("collected: gives it back", function()
        do
          local lock = guard:Lock "k"
          assert.is_true(lock:Held())
        end
        world.collect()
        assert.is_false(guard:IsLocked "k")
      end)

      it("keeps its guard", function()
        local lock
        do
          local mine = world.new(way, { name = name })
          lock = mine:Lock "k"
        end
        world.collect()
        assert.is_true(other:IsLocked "k")
        assert.is_true(lock:Held())
        assert.is_true(lock:Release())
      end)

      it("of a closed guard is not held", function()
        local mine = world.new(way, { name = name })
        local lock = mine:Lock "k"
        mine:Close()
        assert.is_false(other:IsLocked "k")
        assert.is_false(lock:Held())
        assert.is_false(lock:Release())
      end)

      it("collected together with its guard does no harm", function()
        for _ = 1, world.scaled(100) do
          local mine = world.new(way)
          mine:Lock "k"
          mine:Lock "l"
        end
        world.collect()
      end)

      it("has a text", function()
        local lock = guard:Lock "k"
        assert.matches("lock", tostring(lock))
        assert.matches("'k'", tostring(lock))
        lock:Release()
        assert.equal("string", type(tostring(lock)))
      end)

      it("methods called on something else raise", function()
        local lock = guard:Lock "k"
        for _, no_lock in ipairs { 1, "x", {}, io.stdout, guard } do
          assert.has_error(function() lock.Held(no_lock) end)
          assert.has_error(function() lock.Release(no_lock) end)
        end
        assert.has_error(function() lock.Held() end)
      end)

      it("can be used in a for loop that breaks", function()
        for i = 1, 3 do
          local lock <close> = guard:Lock("k", 0)
          assert.is_not_nil(lock)
          if i == 2 then break end
        end
        assert.is_false(guard:IsLocked "k")
      end)
    end)
  end)
end
