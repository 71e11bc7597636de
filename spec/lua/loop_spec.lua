-- SPDX-License-Identifier: MIT
-- Loops of others run coroutines that wait.  By the machine's clock: the loops
-- have no other; the bounds are generous.

local ExecutionGuard = require "executionguard"
local loops = require "support.loops"
local world = require "support.world"

local steady = world.core.clock.steady

local SPAN <const> = 0.08

local left_out = 0

for _, name in ipairs(loops.names) do
  describe("executionguard.loop." .. name, function()
    local library = loops.library(name)
    if not library then
      left_out = left_out + 1
      pending("left out: " .. name .. " is not installed")
      return
    end

    local kind, guard, ticks, ticking

    before_each(function()
      kind = loops.kinds[name](library)
      ExecutionGuard.configure { loop = kind.loop }
      guard = ExecutionGuard.new()
      ticks, ticking = 0, true
      kind.every(0.005, function()
        ticks = ticks + 1
        return ticking
      end)
    end)

    after_each(function()
      ExecutionGuard.configure { loop = false }
      guard:Close()
    end)

    local function run(...)
      local functions = { ... }
      local open = #functions
      for _, fn in ipairs(functions) do
        kind.start(function()
          fn()
          open = open - 1
          ticking = open > 0
        end)
      end
      kind.run()
      assert.equal(0, open)
    end

    it("hands a lock over between two coroutines, in order", function()
      local arrived, order = {}, {}
      local task = require "executionguard.task"
      local function visit(n)
        return function()
          arrived[#arrived + 1] = n
          assert.is_true(guard:AcquireLock("k", 10))
          order[#order + 1] = n
          task.wait(SPAN / 2)
          assert.is_true(guard:ReleaseLock "k")
        end
      end
      run(visit(1), visit(2), visit(3))
      assert.equal(3, #order)
      assert.same(arrived, order)
      assert.is_true(ticks >= 3)
    end)

    it("gives up at the end of a wait", function()
      assert.is_true(guard:AcquireLock("k"))
      local found, why, took
      run(function()
        local start = steady()
        found, why = guard:AcquireLock("k", SPAN)
        took = steady() - start
      end)
      assert.is_false(found)
      assert.equal("locked", why)
      assert.is_true(took >= SPAN and took < 10)
      assert.is_true(ticks >= 3)
    end)

    it("waits for cooldowns, delays and runs that are joined", function()
      local task = require "executionguard.task"
      local tries, got = 0, {}
      local cool = ExecutionGuard.new { cooldown = SPAN }
      cool:RunOnce("k", function() end)
      run(function()
        got.lock = cool:AcquireLock("k", 10)
      end, function()
        guard:RunOnce("retry", function()
          tries = tries + 1
          error "again"
        end, { retry = { attempts = 3, delay = 0.01 } })
      end, function()
        guard:RunOnce("run", function()
          task.wait(SPAN)
          return 42
        end)
      end, function()
        task.wait(SPAN / 4)
        got.joined = table.pack(guard:RunOnce("run", error, { join = 10 }))
      end)
      cool:Close()
      assert.is_true(got.lock)
      assert.equal(3, tries)
      assert.same({ true, 42, "cached", n = 3 }, got.joined)
      assert.is_true(ticks >= 3)
    end)

    -- The thread's state blocks; this one goes on.
    it("waits for a lock of another thread of the process", function()
      local ready, go = os.tmpname(), os.tmpname()
      os.remove(ready)
      os.remove(go)
      local called = world.name()
      local thread = require("cqueues.thread").start(function(_, paths, args)
        local path, cpath, shared_name, flags = table.unpack(load(paths)())
        package.path, package.cpath = path, cpath
        local other = require("executionguard").new { name = shared_name }
        assert(other:AcquireLock "k")
        io.open(flags, "w"):close()
        require("executionguard.core").clock.sleep(tonumber(args))
        other:ReleaseLock "k"
      end, ("return { %q, %q, %q, %q }"):format(package.path, package.cpath,
                                               called, ready),
        tostring(SPAN))
      local there
      repeat
        world.core.clock.sleep(0.001)
        there = io.open(ready)
      until there
      there:close()
      os.remove(ready)
      local shared = ExecutionGuard.new { name = called }
      local got
      run(function() got = shared:AcquireLock("k", 20) end)
      thread:join()
      shared:Close()
      assert.is_true(got)
      assert.is_true(ticks >= 3)
    end)

    it("ends guarded functions that wait, at their deadline", function()
      local task = require "executionguard.task"
      local other, answers, told = ExecutionGuard.new(), {}, 0
      local start = steady()
      local options = { timeout = SPAN / 4, onTimeout = function()
        told = told + 1
      end }
      local function guarded(i, fn)
        return function()
          answers[i] = table.pack(guard:RunOnce("k" .. i, fn, options))
        end
      end
      run(guarded(1, function() task.wait(20) end),
        function()
          other:AcquireLock("l", 0)
          task.wait(4 * SPAN)
          other:ReleaseLock "l"
        end,
        guarded(2, function()
          task.wait(SPAN / 8) -- until it is held
          other:AcquireLock("l", 20)
        end),
        function()
          local done
          task.spawn(guarded(3, function() task.wait(20) end))
          task.spawn(function() guarded(4, coroutine.yield)() done = true end)
          repeat task.wait(SPAN / 8) until done
        end)
      for i = 1, 4 do
        assert.same({ false, nil, "timeout", n = 3 }, answers[i])
      end
      assert.equal(4, told)
      assert.is_true(steady() - start < 10) -- no timer is left
      assert.is_false(other:IsLocked "l")
      other:Close()
    end)

    it("ends by itself in a guarded function, and between such", function()
      local task = require "executionguard.task"
      local start = steady()
      local function outer()
        run(function()
          assert.is_true(guard:RunOnce("inner", task.wait, { timeout = 15 }))
          task.wait(SPAN / 8)
        end)
      end
      assert.is_true(guard:RunOnce("outer", outer, { timeout = 15 }))
      assert.is_true(steady() - start < 10) -- nothing is listened for
    end)

    it("runs the tasks of executionguard.task", function()
      local task = require "executionguard.task"
      local seen = {}
      run(function()
        task.delay(0.02, function()
          task.wait(0.01)
          seen[#seen + 1] = "task"
        end)
        task.wait(SPAN)
        seen[#seen + 1] = "waited"
      end)
      assert.same({ "task", "waited" }, seen)
    end)
  end)
end

if left_out > 0 then
  print(("loop_spec: %d of 21 cases left out, libraries are missing")
    :format(7 * left_out))
end
