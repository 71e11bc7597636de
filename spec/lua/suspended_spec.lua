-- SPDX-License-Identifier: MIT
-- Deadlines that come while the guarded function is suspended: who runs its
-- coroutine resumes it to be ended; elsewhere onTimeout is told, once.  What
-- the scheduler and loops do is tried in real time.

local world = require "support.world"
local task = require "executionguard.task"

local core, ExecutionGuard = world.core, world.EG
local steady = core.clock.steady
local yield = coroutine.yield

local LONG <const> = 30 -- of what is to be ended long before
local SHORT <const> = 0.02

describe("the deadline of a suspended function", function()
  local guard, calls, closed

  local function on_timeout(key)
    calls[#calls + 1] = key
  end

  local function options(more)
    local all = { timeout = SHORT, onTimeout = on_timeout }
    for name, value in pairs(more or {}) do all[name] = value end
    return all
  end

  -- Notes that its <close> variable was closed, then waits by `wait`.
  local function sleeper(wait)
    return function()
      local _ <close> = setmetatable({}, { __close = function()
        closed = closed + 1
      end })
      wait()
      error "it went on"
    end
  end

  -- Turns the scheduler until that holds: the keeper may come late.
  local function comes(condition)
    local start = steady()
    repeat
      task.wait(SHORT / 4)
    until condition() or steady() - start > LONG
  end

  local function told() return #calls > 0 end

  before_each(function()
    guard = ExecutionGuard.new()
    calls, closed = {}, 0
  end)

  after_each(function() guard:Close() end)

  describe("under the scheduler", function()
    local function in_task(wait, more)
      local answer
      local start = steady()
      local thread = task.spawn(function()
        answer = table.pack(guard:RunOnce("k", sleeper(wait), options(more)))
      end)
      return thread, function() return answer, steady() - start end
    end

    -- closes: how many of its <close> variables; with its grace used up, none
    local function ended(result, closes)
      local answer, took = result()
      assert.same({ false, nil, "timeout", n = 3 }, answer)
      assert.is_true(took >= SHORT and took < LONG, took)
      assert.same({ "k" }, calls)
      assert.equal(closes or 1, closed)
      assert.equal("TimedOut", guard:GetStatus "k")
    end

    it("ends it in task.wait", function()
      local _, result = in_task(function() task.wait(LONG) end)
      task.run()
      ended(result)
    end)

    it("ends it in a coroutine of its own that waits", function()
      local answer
      local co = coroutine.create(function()
        answer = table.pack(guard:RunOnce("k", function()
          task.wait(LONG)
        end, options()))
      end)
      task.spawn(function() coroutine.resume(co) end)
      task.run()
      assert.same({ false, nil, "timeout", n = 3 }, answer)
    end)

    it("ends it in a wait for a lock, and nothing is granted", function()
      local holder = task.spawn(function()
        local _ <close> = guard:Lock "l"
        task.wait(LONG)
      end)
      local granted
      local _, result = in_task(function()
        granted = guard:AcquireLock("l", LONG)
      end)
      repeat task.wait(SHORT) until result()
      ended(result)
      assert.is_nil(granted)
      task.cancel(holder)
      assert.is_false(guard:IsLocked "l")
    end)

    it("ends it where it only yielded to the scheduler", function()
      local thread, result = in_task(yield)
      comes(result)
      ended(result)
      assert.equal("dead", coroutine.status(thread))
    end)

    it("ends it where it was planned to go on later", function()
      local _, result = in_task(function()
        task.delay(LONG, (coroutine.running()))
        yield()
      end)
      task.run()
      ended(result)
    end)

    it("ends it while a task waits for its key", function()
      in_task(function() task.wait(LONG) end)
      local got
      task.spawn(function() got = table.pack(guard:AcquireLock("k", LONG)) end)
      local start = steady()
      task.run()
      assert.is_true(got[1])
      assert.is_true(steady() - start < 10)
      assert.equal(1, closed)
    end)

    it("ends the outer of two, and tells both", function()
      local inner
      local _, result = in_task(function()
        inner = table.pack(guard:RunOnce("inner", function()
          task.wait(LONG)
        end, { timeout = LONG, onTimeout = on_timeout }))
      end)
      task.run()
      assert.same({ false, nil, "timeout", n = 3 }, (result()))
      assert.is_nil(inner)
      assert.same({ "k", "inner" }, calls)
      assert.equal("TimedOut", guard:GetStatus "inner")
    end)

    it("ends the inner of two alone", function()
      local inner
      local done = task.spawn(function()
        guard:RunOnce("outer", function()
          inner = table.pack(guard:RunOnce("k", function()
            task.wait(LONG)
          end, options()))
          return "done"
        end, { timeout = LONG })
      end)
      task.run()
      assert.same({ false, nil, "timeout", n = 3 }, inner)
      assert.equal("dead", coroutine.status(done))
      assert.equal("done", guard:GetResult "outer")
    end)

    it("only tells where a shield is in between", function()
      local went_on
      local thread = task.spawn(function()
        guard:RunOnce("k", function()
          ExecutionGuard.shield(function()
            yield()
            went_on = true
          end)
        end, options())
      end)
      comes(told)
      assert.same({ "k" }, calls)
      assert.is_nil(went_on)
      task.spawn(thread)
      assert.is_true(went_on)
      assert.same({ "k" }, calls)
      assert.equal("dead", coroutine.status(thread))
    end)

    it("only tells where interruption is not wanted", function()
      local thread, result = in_task(yield, { interrupt = false })
      comes(told)
      assert.same({ "k" }, calls)
      assert.is_nil((result()))
      assert.equal(0, closed)
      task.spawn(thread)
      assert.same({ false, nil, "timeout", n = 3 }, (result()))
      assert.same({ "k" }, calls)
      assert.equal("dead", coroutine.status(thread))
    end)

    it("only tells where others run the coroutine", function()
      local answer
      local co = coroutine.create(function()
        answer = table.pack(guard:RunOnce("k", sleeper(yield), options()))
      end)
      coroutine.resume(co)
      comes(told)
      assert.same({ "k" }, calls)
      assert.is_nil(answer)
      coroutine.resume(co)
      assert.same({ false, nil, "timeout", n = 3 }, answer)
      assert.same({ "k" }, calls)
      assert.equal(1, closed)
    end)

    it("a thousand of them end, each once", function()
      local answers, n = {}, world.scaled(1000)
      for i = 1, n do
        task.spawn(function()
          local _, _, why = guard:RunOnce("k" .. i, function()
            task.wait(LONG)
          end, { timeout = SHORT * math.random(), onTimeout = on_timeout })
          answers[#answers + 1] = why
        end)
      end
      task.run()
      assert.equal(n, #answers)
      assert.equal(n, #calls)
      for i = 1, n do assert.equal("timeout", answers[i]) end
    end)

    describe("which waits again when it was interrupted", function()
      local function closing(fn)
        return setmetatable({}, { __close = fn })
      end

      local function spin()
        while true do end
      end

      local waits = {
        ["in a loop, by task.wait"] = function()
          while true do
            pcall(spin)
            task.wait(LONG)
          end
        end,
        ["in <close>, by task.wait"] = function()
          local _ <close> = closing(function() task.wait(LONG) end)
          spin()
        end,
        ["in <close>, when it was suspended, by task.wait"] = function()
          local _ <close> = closing(function() task.wait(LONG) end)
          task.wait(LONG)
        end,
        ["in <close>, by AcquireLock"] = function()
          local _ <close> = closing(function()
            guard:AcquireLock("held", LONG)
          end)
          spin()
        end,
        ["in <close>, by coroutine.yield"] = function()
          local _ <close> = closing(function() yield() end)
          spin()
        end,
        ["in one <close> after the other"] = function()
          local _ <close> = closing(yield)
          local _ <close> = closing(yield)
          spin()
        end,
      }
      for name, wait in pairs(waits) do
        it("ends after its grace: " .. name, function()
          local holder = task.spawn(function()
            local _ <close> = guard:Lock "held"
            task.wait(LONG)
          end)
          local start = steady()
          local _, result = in_task(wait)
          comes(result)
          assert.is_true(steady() - start < LONG / 2)
          ended(result, 0)
          task.cancel(holder)
        end)
      end

      it("has that grace", function()
        local done
        local _, result = in_task(function()
          local _ <close> = closing(function()
            task.wait(SHORT)
            done = true
          end)
          task.wait(LONG)
        end, { closeGrace = LONG })
        task.run()
        ended(result)
        assert.is_true(done)
      end)
    end)

    it("an error in onTimeout disturbs nobody", function()
      local _, result = in_task(function() task.wait(LONG) end,
        { onTimeout = error })
      task.run()
      assert.same({ false, nil, "timeout", n = 3 }, (result()))
    end)
  end)

  describe("elsewhere", function()
    before_each(function() world.start() end)
    after_each(function() world.stop() end)

    local own

    before_each(function() own = ExecutionGuard.new() end)
    after_each(function() own:Close() end)

    local function suspend(key, wait, more)
      local co = coroutine.create(function()
        return own:RunOnce(key, wait or yield, options(more))
      end)
      assert.is_true(coroutine.resume(co))
      return co
    end

    it("tells at the next call into the library", function()
      local co = suspend "k"
      world.advance(1)
      assert.same({}, calls)
      assert.equal("TimedOut", own:GetStatus "k")
      assert.same({ "k" }, calls)
      own:GetStatus "k"
      assert.same({ true, false, nil, "timeout", n = 4 },
        table.pack(coroutine.resume(co)))
      assert.same({ "k" }, calls)
    end)

    it("tells if it had come before the function yielded", function()
      local co = suspend("k", function()
        world.advance(1)
        yield()
        yield()
      end)
      assert.same({}, calls)
      own:IsLocked "x"
      assert.same({ "k" }, calls)
      coroutine.resume(co) -- told once, however often it yields
      own:IsLocked "x"
      coroutine.resume(co)
      assert.same({ "k" }, calls)
      assert.equal("dead", coroutine.status(co))
    end)

    it("tells of the built-in 30 s, too", function()
      local co = coroutine.create(function()
        return own:RunOnce("k", yield, { onTimeout = on_timeout })
      end)
      coroutine.resume(co)
      world.advance(29.9)
      own:IsLocked "k"
      assert.same({}, calls)
      world.advance(0.1)
      own:IsLocked "k"
      assert.same({ "k" }, calls)
    end)

    it("tells in a function that is being ended itself", function()
      world.stop() -- by real time
      guard:RunOnce("other", function()
        local co = coroutine.wrap(function()
          guard:RunOnce("k", yield, options { timeout = 0.001,
            onTimeout = function(key)
              local start = steady()
              while steady() - start < 3 * SHORT do
                calls.worked = true
              end
              on_timeout(key)
            end })
        end)
        co()
        while not calls.worked do guard:IsLocked "x" end
      end, { timeout = 2 * SHORT })
      guard:IsLocked "x" -- where nothing came in between the two deadlines
      assert.equal("k", calls[1])
    end)

    it("tells when it is resumed before any call", function()
      local co = suspend "k"
      world.advance(1)
      coroutine.resume(co)
      assert.same({ "k" }, calls)
    end)

    it("tells when it is closed", function()
      local co = suspend "k"
      world.advance(1)
      coroutine.close(co)
      assert.same({ "k" }, calls)
      assert.equal("TimedOut", own:GetStatus "k")
    end)

    it("tells when it is collected", function()
      suspend "k"
      world.advance(1)
      world.collect()
      assert.same({ "k" }, calls)
      assert.equal("TimedOut", own:GetStatus "k")
    end)

    it("a callback may use the guard, and suspended functions", function()
      local other
      local co = suspend("a", nil, { onTimeout = function(key)
        on_timeout(key)
        own:Reset "b"
        coroutine.close(other)
        own:GetStatus(key)
      end })
      other = suspend "b"
      world.advance(1)
      own:GetStatus "a"
      assert.equal("a", calls[1] == "a" and "a" or calls[2])
      assert.is_true(#calls <= 2)
      coroutine.close(co)
    end)

    it("a callback may close the guard", function()
      local closing = ExecutionGuard.new()
      local co = coroutine.create(function()
        return closing:RunOnce("k", yield, { timeout = 1,
          onTimeout = function() closing:Close() end })
      end)
      coroutine.resume(co)
      world.advance(1)
      assert.has_error(function() closing:GetStatus "k" end)
      local answer = table.pack(coroutine.resume(co))
      assert.is_true(answer[1])
    end)

    it("those that are told do not keep others from it", function()
      local all = {}
      for i = 1, 5 do all[i] = suspend("k" .. i) end
      world.advance(1)
      coroutine.close(all[3])
      own:GetStatus "x"
      table.sort(calls)
      assert.same({ "k1", "k2", "k3", "k4", "k5" }, calls)
    end)
  end)

  describe("holds for <close> when its coroutine is closed", function()
    local interrupting = require "support.interrupting"

    after_each(function()
      ExecutionGuard.configure { engine = "signal" }
    end)

    local function suspend(close, more)
      local co = coroutine.create(function()
        return guard:RunOnce("k", function()
          local _ <close> = setmetatable({}, { __close = close })
          yield()
        end, options(more))
      end)
      assert.is_true(coroutine.resume(co))
      return co
    end

    local function closes(close, co)
      local start = steady()
      close(co)
      assert.is_true(steady() - start < interrupting.MOST)
      assert.equal("dead", coroutine.status(co))
      assert.is_nil((debug.gethook()))
    end

    for _, engine in ipairs { "signal", "count" } do
      for name, close in pairs { ["coroutine.close"] = coroutine.close,
                                 ["task.cancel"] = task.cancel } do
        it(("by %s, with engine '%s'"):format(name, engine), function()
          ExecutionGuard.configure { engine = engine }
          local co = suspend(interrupting.forever)
          closes(close, co) -- it comes meanwhile
          assert.equal("TimedOut", guard:GetStatus "k")
          guard:Reset "k"
          co = suspend(interrupting.forever)
          interrupting.spin(2 * SHORT) -- it has come
          closes(close, co)
          assert.equal("TimedOut", interrupting.status_in_the_end(guard))
          assert.same({ "k", "k" }, calls)
        end)
      end
    end

    it("which has the grace if it had come before", function()
      local done
      local co = suspend(function()
        interrupting.spin(SHORT)
        done = true
      end, { closeGrace = LONG })
      assert.equal("TimedOut", interrupting.status_in_the_end(guard))
      assert.is_true(coroutine.close(co))
      assert.is_true(done)
      assert.same({ "k" }, calls)
    end)

    it("and so does that of a guard around it", function()
      local co = suspend(interrupting.forever, { timeout = LONG })
      assert.same({ false, nil, "timeout" }, {
        guard:RunOnce("outer", function()
          coroutine.close(co)
        end, { timeout = SHORT })
      })
      assert.equal("dead", coroutine.status(co))
      assert.is_false(guard:IsLocked "k")
    end)
  end)

  it("does not outlive the Lua values it belongs to", function()
    for _ = 1, 200 do
      local co = coroutine.wrap(function()
        guard:RunOnce({} and tostring({}), yield, { timeout = 0.001 })
      end)
      co()
      if math.random(3) == 1 then collectgarbage "step" end
    end
    core.clock.sleep(0.01)
    world.collect()
    guard:GetStatus "k"
    for _, record in pairs(guard:GetAllRecords()) do
      assert.is_true(record.status == "TimedOut" or record.status == "Failed")
    end
  end)
end)
