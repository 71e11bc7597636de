-- SPDX-License-Identifier: MIT
-- executionguard.context: when contexts end, who is told, what it costs.

local context = require "executionguard.context"
local executor = require "executionguard.executor"
local ExecutionGuard = require "executionguard"
local job = require "executionguard.job"
local task = require "executionguard.task"
local turns = require "support.turns"
local world = require "support.world"

local passed = turns.passed

local CANCELED, EXCEEDED = "context canceled", "context deadline exceeded"

local function nothing() end

local function error_bad()
  error("bad", 0)
end

describe("context", function()
  before_each(turns.begin)
  after_each(turns.finish)

  it("background never ends", function()
    local ctx = context.background()
    assert.equal(ctx, context.background())
    assert.is_false(ctx:Done())
    assert.is_nil(ctx:Err())
    assert.is_nil(ctx:Deadline())
  end)

  it("chains may be of any depth", function()
    local deep <const> = 20000
    local said, real = 0, warn
    finally(function() _G.warn = real end)
    _G.warn = function() said = said + 1 end
    for _, listened in ipairs { true, false } do
      for _, way in ipairs { "canceled", "timed out", "in its midst" } do
        local top, cancel = context.withCancel(context.background())
        if way == "timed out" then
          top = context.withTimeout(top, 5)
        end
        local ctx, midst = top, nil
        for i = 1, deep do
          if i == deep // 2 and way == "in its midst" then
            ctx = context.withTimeout(ctx, 5)
            midst = ctx
          else
            ctx = context.withValue(ctx, "depth", i)
          end
        end
        local told, stop
        if listened then
          stop = ctx:OnDone(nothing)
          assert.is_true(stop())
          ctx:OnDone(function(err) told = err end)
        end
        assert.is_nil(ctx:Err())
        local err = CANCELED
        if way == "canceled" then
          cancel()
        else
          err = EXCEEDED
          world.advance(5)
        end
        assert.equal(err, ctx:Err())
        assert.equal(listened and err or nil, told)
        assert.equal(way ~= "in its midst" and err or nil, top:Err())
        if midst then
          assert.equal(err, midst:Err())
          cancel()
        end
        task.step()
      end
    end
    assert.equal(0, said)
  end)

  it("OnDone raises nothing of what fn raises, also when it has ended",
  function()
    local said, real = {}, warn
    finally(function() _G.warn = real end)
    _G.warn = function(...) said[#said + 1] = table.concat { ... } end
    local ctx, cancel = context.withCancel(context.background())
    ctx:OnDone(error_bad)
    cancel()
    assert.is_false(ctx:OnDone(error_bad)())
    assert.equal(2, #said)
    assert.equal(said[1], said[2])
    assert.matches("a function given to OnDone failed: bad", said[2])
  end)

  it("says what is missing", function()
    local background = context.background()
    assert.matches("withTimeout: seconds must be a number, not nil",
                   world.message(context.withTimeout, background))
    assert.matches("withDeadline: the time must be a number, not NaN",
                   world.message(context.withDeadline, background, 0 / 0))
  end)

  it("withCancel ends when it is cancelled, once", function()
    local ctx, cancel = context.withCancel(context.background())
    assert.is_false(ctx:Done())
    cancel()
    cancel()
    assert.is_true(ctx:Done())
    assert.equal(CANCELED, ctx:Err())
  end)

  it("withTimeout ends at its deadline, without anybody turning anything",
  function()
    local ctx = context.withTimeout(context.background(), 5)
    world.advance(4.999999)
    assert.is_nil(ctx:Err())
    world.advance(0.000001)
    assert.equal(EXCEEDED, ctx:Err())
  end)

  it("withDeadline takes seconds since the epoch", function()
    local ctx = context.withDeadline(context.background(),
                                     ExecutionGuard.now() + 5)
    assert.near(world.epoch + 5, ctx:Deadline(), 1e-5)
    world.advance(4.9)
    assert.is_false(ctx:Done())
    world.advance(0.2)
    assert.equal(EXCEEDED, ctx:Err())
    assert.equal(EXCEEDED, context.withDeadline(context.background(), 0)
      :Err())
  end)

  it("a timeout of 0 has ended, one for ever never ends", function()
    local ctx = context.withTimeout(context.background(), 0)
    assert.equal(EXCEEDED, ctx:Err())
    ctx = context.withTimeout(context.background(), math.huge)
    world.advance(1e9)
    assert.is_false(ctx:Done())
  end)

  it("children end with their parents, and not the other way", function()
    local parent, cancel = context.withCancel(context.background())
    local child, cancel_child = context.withCancel(parent)
    local value = context.withValue(child, "k", 1)
    local other = context.withTimeout(parent, 100)
    cancel_child()
    assert.equal(CANCELED, value:Err())
    assert.is_nil(parent:Err())
    assert.is_nil(other:Err())
    cancel()
    assert.equal(CANCELED, other:Err())
  end)

  it("a child has the nearest deadline of all above it", function()
    local parent = context.withTimeout(context.background(), 2)
    local child = context.withTimeout(parent, 5)
    assert.near(world.epoch + 2, child:Deadline(), 1e-5)
    world.advance(2)
    assert.equal(EXCEEDED, child:Err())
  end)

  it("whatever came first counts, however late somebody asks", function()
    local parent, cancel = context.withCancel(context.background())
    local child = context.withTimeout(parent, 2)
    local later = context.withTimeout(parent, 5)
    world.advance(3)
    cancel()
    world.advance(10)
    assert.equal(EXCEEDED, child:Err())
    assert.equal(CANCELED, later:Err())
  end)

  it("withValue answers for those below, too", function()
    local key = {}
    local ctx = context.withValue(context.background(), key, "a")
    local inner = context.withValue(context.withCancel(ctx), key, nil)
    assert.equal("a", ctx:Value(key))
    assert.is_nil(inner:Value(key))
    assert.is_nil(ctx:Value "other")
  end)

  describe("OnDone", function()
    it("is told once, in the order of asking", function()
      local ctx, cancel = context.withCancel(context.background())
      local told = {}
      for i = 1, 5 do
        ctx:OnDone(function(err) told[#told + 1] = i .. err end)
      end
      cancel()
      cancel()
      assert.equal(5, #told)
      assert.equal("1" .. CANCELED, told[1])
      assert.equal("5" .. CANCELED, told[5])
    end)

    it("is told at once of one that has ended", function()
      local told
      local stop = context.withTimeout(context.background(), 0)
        :OnDone(function(err) told = err end)
      assert.equal(EXCEEDED, told)
      assert.is_false(stop())
    end)

    it("can be taken off", function()
      local ctx, cancel = context.withCancel(context.background())
      local stop = ctx:OnDone(error)
      assert.is_true(stop())
      assert.is_false(stop())
      cancel()
    end)

    it("is told of a deadline by the scheduler, and of a parent's end",
    function()
      local parent = context.withTimeout(context.background(), 3)
      local child = context.withCancel(parent)
      local at
      child:OnDone(function() at = passed() end)
      task.run()
      assert.near(3, at, 1e-6)
    end)

    it("that fails harms no other", function()
      local ctx, cancel = context.withCancel(context.background())
      local told = false
      ctx:OnDone(error)
      ctx:OnDone(function() told = true end)
      cancel()
      assert.is_true(told)
    end)
  end)

  it("that nobody listens to holds up neither task.run nor memory", function()
    local parent = context.withCancel(context.background())
    local seen = setmetatable({}, { __mode = "k" })
    for _ = 1, 100 do
      seen[context.withTimeout(parent, 3600)] = true
    end
    task.run()
    assert.equal(0, passed())
    world.collect()
    assert.is_nil(next(seen))
    assert.is_false(parent:Done())
  end)

  describe("with", function()
    it("gives the coroutine its context, and takes it back", function()
      local ctx = context.withCancel(context.background())
      assert.equal(context.background(), context.current())
      local a, b = context.with(ctx, function(...)
        assert.equal(ctx, context.current())
        return ...
      end, 1, 2)
      assert.same({ 1, 2 }, { a, b })
      pcall(context.with, ctx, error)
      assert.equal(context.background(), context.current())
    end)

    it("ends task.wait at once, in a task and outside", function()
      local log = {}
      local ctx = context.withTimeout(context.background(), 2)
      task.spawn(context.with, ctx, function()
        log[1] = { task.wait(10) }
        log[2] = passed()
        log[3] = { task.wait(10) }
        log[4] = passed()
      end)
      task.run()
      assert.same({ { nil, EXCEEDED }, 2.0, { nil, EXCEEDED }, 2.0 }, log)
      local main = context.withTimeout(context.background(), 3)
      assert.same({ nil, EXCEEDED },
                  { context.with(main, task.wait, 10) })
      assert.equal(5.0, passed())
    end)

    it("lets waits that are shorter have their time", function()
      local ctx = context.withTimeout(context.background(), 2)
      assert.equal(1.5, context.with(ctx, task.wait, 1.5))
    end)

    it("ends the wait for a lock, with the reason canceled", function()
      local name = world.name()
      local here = ExecutionGuard.new { name = name }
      local there = ExecutionGuard.new { name = name }
      local got
      task.spawn(function()
        assert(here:AcquireLock("k"))
        task.wait(100)
        here:ReleaseLock "k"
      end)
      task.spawn(context.with, context.withTimeout(context.background(), 2),
        function()
          got = { there:AcquireLock("k", 50) }
          got[3] = passed()
          got[4] = { there:RunOnce("k", print, { timeout = 50 }) }
        end)
      task.run()
      assert.same({ false, "canceled", 2.0, { false, nil, "canceled" } }, got)
      here:Close()
      there:Close()
    end)

    it("ends every wait of the library at once", function()
      local guard <close> = ExecutionGuard.new()
      local holder <close> = guard:Lock("held")
      local slow = job.new("slow", function() task.wait(1000) end)
      local exec = executor.new(job.new("other", function()
        task.wait(1000)
      end))
      slow:Run()
      task.spawn(exec.Start, exec)
      local fast = executor.new(job.new("bad", function()
        return nil, "bad"
      end), executor.WithRetry(9, 1000))
      local waits = {
        { nil, EXCEEDED, function() return task.wait(1000) end },
        { nil, EXCEEDED, function() return slow:Wait() end },
        { nil, EXCEEDED, function() return slow:Wait(1000) end },
        { nil, "Timeout", function()
          local ok, err = fast:Start()
          return ok, err.kind
        end },
        { false, "canceled", function()
          return guard:AcquireLock("held", 1000)
        end },
        { nil, "canceled", function() return guard:Lock("held", 1000) end },
        { false, nil, function()
          return guard:RunOnce("held", error, { timeout = 1000 })
        end },
        { false, "bad", function()
          return guard:RunOnce("again", error_bad,
            { retry = { attempts = 9, delay = 1000 } })
        end },
      }
      local function check(i, wait)
        local began = passed()
        local ctx = context.withTimeout(context.background(), 3)
        local first, second = context.with(ctx, wait[3])
        assert.same({ i, wait[1], wait[2], 3.0 },
                    { i, first, second, passed() - began })
        first = context.with(ctx, wait[3])
        assert.same({ i, wait[1], 3.0 }, { i, first, passed() - began })
      end
      for i, wait in ipairs(waits) do
        check(i, wait)
        local done
        task.spawn(function()
          check(i, wait)
          done = true
        end)
        task.wait(4)
        assert.is_true(done)
      end
      local ctx = context.withTimeout(context.background(), 3)
      local began = passed()
      assert.same({ nil, EXCEEDED }, { context.with(ctx, task.run) })
      assert.equal(3.0, passed() - began)
      ctx = context.withTimeout(context.background(), 3)
      context.with(ctx, task.step, 100)
      assert.equal(6.0, passed() - began)
      assert.is_true(holder:Held())
      slow:Cancel()
      exec:Stop(true)
      task.run()
    end)

    it("ends the wait for the end of a Start", function()
      local exec = executor.new(job.new("deaf", function()
        while true do
          pcall(task.wait, 1)
          coroutine.yield()
        end
      end, { grace = 10 }))
      task.spawn(exec.Start, exec)
      task.wait(1)
      local ctx = context.withTimeout(context.background(), 3)
      assert.same({ nil, EXCEEDED },
                  { context.with(ctx, exec.Stop, exec, true) })
      assert.equal(4.0, passed())
      assert.is_true(exec:Stop(true))
      assert.equal(11.0, passed())
    end)

    it("forgets a wait whose coroutine was closed", function()
      local ctx, cancel = context.withCancel(context.background())
      local thread = task.spawn(context.with, ctx, task.wait, 10)
      task.cancel(thread)
      assert.is_nil(ctx.listeners)
      cancel()
      task.run()
    end)
  end)

  it("says what it does not like", function()
    local message = world.message
    assert.matches("withCancel: the parent must be a context, not nil",
                   message(context.withCancel))
    assert.matches("withTimeout: seconds must be a number, not NaN",
      message(context.withTimeout, context.background(), 0 / 0))
    assert.matches("withDeadline: the time must be a number, not a string",
      message(context.withDeadline, context.background(), "x"))
    assert.matches("withValue: the key must not be nil",
      message(context.withValue, context.background()))
    assert.matches("Done: called on a nil", message(
      context.background().Done))
    assert.matches("OnDone: a function is needed, not a number",
      message(context.background().OnDone, context.background(), 1))
    assert.matches("with: a function is needed, not a nil",
      message(context.with, context.background()))
  end)
end)
