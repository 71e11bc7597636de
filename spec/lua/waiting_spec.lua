-- SPDX-License-Identifier: MIT
-- Waits that yield to the scheduler, and how they end.

local task = require "executionguard.task"
local world = require "support.world"

for _, way in ipairs(world.ways) do
  describe("waiting " .. way.name, function()
    local guard, order

    before_each(function()
      world.start(true)
      guard = world.new(way)
      order = {}
    end)

    after_each(function()
      guard:Close()
      world.stop()
    end)

    local function note(...)
      order[#order + 1] = table.concat({ ... }, " ")
    end

    local function visit(name, seconds)
      return task.spawn(function()
        local ok, why = guard:AcquireLock("k", 10)
        note(name, tostring(ok), ok and "" or why)
        if ok then
          task.wait(seconds or 1)
          guard:ReleaseLock "k"
        end
      end)
    end

    it("yields, and is served in order of arrival", function()
      visit "a"
      visit "b"
      visit "c"
      local start = world.steady()
      task.run()
      assert.same({ "a true ", "b true ", "c true " }, order)
      assert.equal(3, math.floor(world.steady() - start + 0.5))
    end)

    it("who releases and asks again comes last", function()
      task.spawn(function()
        for i = 1, 3 do
          assert.is_true(guard:AcquireLock("k", 10))
          note("a", i)
          task.wait(1)
          guard:ReleaseLock "k"
        end
      end)
      visit "b"
      task.run()
      assert.equal("a 1", order[1])
      if not way.store then -- handed over, where the store can
        assert.equal("b true ", order[2])
      end
    end)

    it("who is cancelled, closed or out of time is passed", function()
      visit "a"
      local b = visit "b"
      local c = coroutine.create(function() guard:AcquireLock("k", 10) end)
      task.spawn(c)
      task.spawn(function()
        note("short", tostring(guard:AcquireLock("k", 0.5)))
      end)
      visit "d"
      task.cancel(b)
      task.delay(0.2, function() assert(coroutine.close(c)) end)
      task.run()
      assert.same({ "a true ", "short false", "d true " }, order)
    end)

    it("what a cancelled one was handed goes to the next", function()
      local b
      task.spawn(function()
        guard:AcquireLock "k"
        task.wait(1)
        guard:ReleaseLock "k"
        task.cancel(b)
      end)
      b = visit "b"
      visit "c"
      task.run()
      assert.same({ "c true " }, order)
    end)

    it("who is resumed by somebody else has given up", function()
      visit "a"
      local b = visit "b"
      task.delay(0.5, function() task.spawn(b) end)
      task.run()
      assert.same({ "a true ", "b false canceled" }, order)
    end)

    it("ends with its guard", function()
      local other = world.new(way)
      task.spawn(function()
        other:AcquireLock("k")
        task.wait(1)
      end)
      task.spawn(function()
        note(tostring(other:AcquireLock("k", 5)),
             select(2, other:AcquireLock("k", 5)) or "")
      end)
      local ok, why
      task.spawn(function() ok, why = other:AcquireLock("k", 100) end)
      task.delay(0.5, function() other:Close() end)
      task.onError(function() end)
      task.run()
      task.onError(nil)
      assert.is_false(ok)
      assert.equal("canceled", why)
    end)

    it("outside of tasks it turns the scheduler", function()
      visit("a", 2)
      assert.is_true(guard:AcquireLock("k", 10))
      assert.same({ "a true " }, order)
      assert.is_true(guard:ReleaseLock "k")
      visit("b", 2)
      local ok, why = guard:AcquireLock("k", 1)
      assert.is_false(ok)
      assert.equal("locked", why)
      task.run()
    end)

    it("a ring of those who wait for each other is a deadlock", function()
      local ends = {}
      for i, keys in ipairs { { "x", "y" }, { "y", "x" } } do
        task.spawn(function()
          guard:AcquireLock(keys[1])
          task.wait(1)
          local ok, why = guard:AcquireLock(keys[2], math.huge)
          ends[i] = ok or why
          guard:ReleaseLock(keys[1])
        end)
      end
      task.run()
      assert.same({ true, "deadlock" }, ends)
    end)

    it("a plain coroutine without scheduler: deadlock at once", function()
      assert.is_true(guard:AcquireLock "k")
      local start = world.steady()
      coroutine.wrap(function()
        local ok, why = guard:AcquireLock("k", 10)
        assert.is_false(ok)
        assert.equal("deadlock", why)
      end)()
      assert.equal(start, world.steady())
    end)

    -- A run that is suspended in a coroutine of nobody's.
    local function suspended(key, seconds)
      local co = coroutine.create(function()
        return guard:RunOnce(key, coroutine.yield, { timeout = seconds })
      end)
      assert.is_true(coroutine.resume(co))
      return co
    end

    it("the deadline of a suspended run is a way out", function()
      local run <const> = suspended("a", 2)
      local start = world.steady()
      assert.same({ false, nil, "timeout", n = 3 },
        table.pack(guard:RunOnce("a", error, { join = 10 })))
      assert.equal(2, math.floor(world.steady() - start + 0.5))
      suspended("b", 2)
      coroutine.wrap(function()
        assert.is_true((guard:AcquireLock("b", 10)))
      end)()
      assert.equal(4, math.floor(world.steady() - start + 0.5))
      assert.same({ true, false, nil, "timeout", n = 4 },
        table.pack(coroutine.resume(run)))
    end)

    it("but not one after the wait, nor of a run further out", function()
      local start = world.steady()
      suspended("a", 5)
      assert.same({ false, "deadlock", n = 2 },
        table.pack(guard:AcquireLock("a", 4)))
      guard:RunOnce("b", function()
        assert.same({ false, "deadlock", n = 2 },
          table.pack(guard:AcquireLock("b", 10)))
      end, { timeout = 2 })
      coroutine.wrap(function() -- the built-in 30 s are no plan of anybody's
        guard:RunOnce("c", coroutine.yield)
      end)()
      assert.same({ false, nil, "deadlock", n = 3 },
        table.pack(guard:RunOnce("c", error, { join = 60 })))
      assert.equal(start, world.steady())
    end)

    it("nor of a run with that key on a guard of another name", function()
      local other <close> = world.EG.new { name = "waiting, another" }
      local start = world.steady()
      coroutine.wrap(function()
        other:RunOnce("a", coroutine.yield, { timeout = 5 })
      end)()
      assert.is_true((guard:AcquireLock "a"))
      assert.same({ false, "deadlock", n = 2 },
        table.pack(guard:AcquireLock("a", 10)))
      assert.equal(start, world.steady())
    end)

    it("outside of tasks everything that waits turns the scheduler",
       function()
      local cool <close> = world.new(way, { cooldown = 2 })
      cool:RunOnce("k", function() end)
      task.delay(1, note, "during a cooldown")
      assert.is_true((cool:AcquireLock("k", 10)))
      task.delay(1, note, "between attempts")
      guard:RunOnce("r", error, { retry = { attempts = 2, delay = 2,
        jitter = false } })
      task.spawn(function()
        guard:RunOnce("j", function()
          task.wait(1)
          note "the run that is joined"
          return 7
        end)
      end)
      assert.same({ true, 7, "cached", n = 3 },
        table.pack(guard:RunOnce("j", error, { join = 10 })))
      assert.same({ "during a cooldown", "between attempts",
        "the run that is joined" }, order)
    end)

    it("RunOnce waits for a lock, joins, and leaves others alone", function()
      local got = {}
      visit "a"
      task.spawn(function()
        got.run = table.pack(guard:RunOnce("k", function()
          task.wait(1)
          return { 1 }
        end, { timeout = 10 }))
      end)
      task.wait(1.5)
      local joiner = task.spawn(function()
        guard:RunOnce("k", error, { join = 10 })
      end)
      task.spawn(function()
        got.joined = table.pack(guard:RunOnce("k", error, { join = 10 }))
      end)
      task.spawn(function()
        got.late = table.pack(guard:RunOnce("k", error, { join = 0.1 }))
      end)
      task.cancel(joiner)
      task.run()
      assert.same({ true, { 1 }, n = 2 }, got.run)
      assert.same({ true, { 1 }, "cached", n = 3 }, got.joined)
      assert.same({ false, nil, "running", n = 3 }, got.late)
    end)

    it("a joiner is told the text of an error, not its object", function()
      local thrown = setmetatable({}, { __tostring = function()
        return "no luck"
      end })
      local own, others
      task.spawn(function()
        own = table.pack(guard:RunOnce("k", function()
          task.wait(1)
          error(thrown)
        end))
      end)
      task.spawn(function()
        others = table.pack(guard:RunOnce("k", error, { join = true }))
      end)
      task.run()
      assert.equal(thrown, own[2])
      assert.same({ false, "no luck", "failed", n = 3 },
                  { others[1], others[2], others[3], n = 3 })
    end)

    it("lets others go on between the attempts of a retry", function()
      local tries = 0
      task.spawn(function()
        note("run", select(3, guard:RunOnce("k", function()
          tries = tries + 1
          error "again"
        end, { retry = { attempts = 3, delay = 1, jitter = 0 } })))
      end)
      task.delay(0.5, note, "meanwhile")
      task.run()
      assert.equal(3, tries)
      assert.same({ "meanwhile", "run failed" }, order)
    end)

    it("a cooldown is waited for, whatever the wall clock says", function()
      local cool = world.new(way, { cooldown = 2 })
      cool:RunOnce("k", function() end)
      local start = world.steady()
      task.spawn(function()
        note("lock", tostring(cool:AcquireLock("k", 10)))
      end)
      task.delay(1, function() world.core.clock.setWall(1) end)
      task.delay(1.5, note, "meanwhile")
      task.run()
      cool:Close()
      assert.same({ "meanwhile", "lock true" }, order)
      assert.equal(2, math.floor(world.steady() - start + 0.5))
    end)
  end)
end

describe("waiting without executionguard.task", function()
  it("ends with the deadline of a suspended run, too", function()
    local text = require("support.process").run [[
      local EG = require "executionguard"
      local now = require "executionguard.core".clock.steady
      local guard = EG.new()
      local function suspend(key, seconds)
        local co = coroutine.create(function()
          guard:RunOnce(key, coroutine.yield, { timeout = seconds })
        end)
        assert(coroutine.resume(co))
        return co
      end
      local start = now()
      local a, b, c = suspend("a", 0.05), suspend("b", 0.2), suspend("c", 99)
      print(guard:RunOnce("a", error, { join = 20 }))
      assert(now() - start >= 0.05 and now() - start < 15)
      print((coroutine.wrap(function()
        return guard:AcquireLock("b", 20)
      end)()))
      print(guard:AcquireLock("c", 1))
      assert(not package.loaded["executionguard.task"])
      assert(a and b and c)
    ]]
    assert.equal("false\tnil\ttimeout\ntrue\nfalse\tdeadlock\n", text)
  end)
end)

describe("things outside", function()
  local outside = world.core.waiting.outside

  it("keep task.run, and have functions called", function()
    local calls, thing = 0, nil
    thing = outside(function()
      calls = calls + 1
      if calls == 2 then thing:close() else thing:ring() end
    end)
    thing:ring()
    task.run()
    assert.equal(2, calls)
  end)

  it("have a task resumed", function()
    local seen
    task.spawn(function()
      local thing <close> = outside(coroutine.running())
      task.delay(0, thing.ring, thing)
      coroutine.yield()
      seen = true
    end)
    task.run()
    assert.is_true(seen)
  end)

  it("are functions or threads", function()
    assert.match("a thread or a function is needed, not the number 5",
                 world.message(outside, 5), 1, true)
  end)
end)
