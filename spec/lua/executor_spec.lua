-- SPDX-License-Identifier: MIT
-- executionguard.executor: retries, time limits, cooldown, once, schedules;
-- alone, and with a guard's store.

local context = require "executionguard.context"
local executor = require "executionguard.executor"
local ExecutionGuard = require "executionguard"
local job = require "executionguard.job"
local task = require "executionguard.task"
local turns = require "support.turns"
local world = require "support.world"

local passed, failing = turns.passed, turns.failing

local function nothing() end

describe("executor", function()
  before_each(turns.begin)
  after_each(turns.finish)

  it("Start runs the job and waits for its end", function()
    local j = job.new("j", function(ctx)
      task.wait(3)
      return ctx:GetParams()
    end)
    local exec = executor.new(j)
    assert.equal(true, exec:Start(nil, "params"))
    assert.equal(3.0, passed())
    assert.equal("params", j:Result())
    assert.equal(true, exec:Start())
  end)

  it("Start waits in a coroutine, too, and others go on", function()
    local exec = executor.new(job.new("j", function() task.wait(3) end))
    local log = {}
    task.spawn(function()
      table.insert(log, (exec:Start()))
      table.insert(log, passed())
    end)
    task.delay(1, function() log[#log + 1] = "other" end)
    task.run()
    assert.same({ "other", true, 3.0 }, log)
  end)

  it("a failure says what the job failed with", function()
    local object = { code = 7 }
    local ok, err = executor.new(job.new("j", function()
      error(object)
    end)):Start()
    assert.is_nil(ok)
    assert.equal("Failed", err.kind)
    assert.equal(object, err.cause)
    ok, err = executor.new((failing(1))):Start()
    assert.is_nil(ok)
    assert.equal("failure 1", tostring(err))
    assert.equal("it ended: failure 1.", "it ended: " .. err .. ".")
  end)

  it("refuses a Start while the job runs", function()
    local j = job.new("slow", function() task.wait(10) end)
    local exec = executor.new(j)
    task.spawn(exec.Start, exec)
    local ok, err = exec:Start()
    assert.is_nil(ok)
    assert.equal("Pending", err.kind)
    assert.equal("job slow is still pending", tostring(err))
    task.run()
    j:Run()
    assert.equal("Pending", select(2, exec:Start()).kind)
    j:Wait()
  end)

  describe("retry", function()
    it("happens within one Start, after the delay", function()
      local j, calls = failing(2)
      local exec = executor.new(j, executor.WithRetry(3, 2))
      assert.equal(true, exec:Start())
      assert.equal(3, calls())
      assert.equal(4.0, passed())
      assert.equal("result 3", j:Result())
    end)

    it("gives up after so many attempts, and counts what failed", function()
      local j, calls = failing(100)
      local exec = executor.new(j, { retry = { attempts = 3, delay = 1 } })
      local ok, err = exec:Start()
      assert.is_nil(ok)
      assert.equal("failure 3", tostring(err))
      assert.equal(3, calls())
      local stats = exec:Stats()
      assert.equal(3, stats.retries)
      assert.equal("failure 2", tostring(stats.lastErrors[2]))
      j, calls = failing(1)
      exec = executor.new(j, { retry = { attempts = 3 } })
      assert.equal(true, exec:Start())
      assert.equal(1, exec:Stats().retries)
      exec:Reset()
      assert.equal(0, exec:Stats().retries)
      assert.equal(0, #exec:Stats().lastErrors)
      assert.equal(2, calls())
    end)

    it("has delays that grow up to a limit", function()
      local exec = executor.new((failing(4)), { retry = { attempts = 5,
        delay = 1, factor = 3, maxDelay = 5 } })
      assert.equal(true, exec:Start())
      assert.near(1 + 3 + 5 + 5, passed(), 1e-6)
    end)

    it("has jitter, downwards", function()
      local exec = executor.new((failing(50)), { retry = { attempts = 51,
        delay = 1, jitter = 0.5 } })
      assert.equal(true, exec:Start())
      assert.is_true(passed() > 25 and passed() < 50)
    end)

    it("asks `on`, which may end it", function()
      local asked = {}
      local exec = executor.new((failing(9)), { retry = { attempts = 9,
        on = function(err, attempt)
          asked[#asked + 1] = err .. "/" .. attempt
          return attempt < 2
        end } })
      assert.is_nil(exec:Start())
      assert.same({ "failure 1/1", "failure 2/2" }, asked)
    end)

    it("ends where `on` itself fails, and says so", function()
      local said = {}
      local real = warn
      _G.warn = function(...) said[#said + 1] = table.concat { ... } end
      local exec = executor.new((failing(9)), { retry = { attempts = 9,
        on = function() error("oops", 0) end } })
      local ok, err = exec:Start()
      _G.warn = real
      assert.is_nil(ok)
      assert.equal("failure 1", tostring(err))
      assert.equal("[ExecutionGuard] retry.on of job api failed: oops",
                   said[#said])
    end)

    it("of zero or fewer attempts means not set", function()
      for _, attempts in ipairs { 0, -1 } do
        local j, calls = failing(5)
        local exec = executor.new(j, executor.WithRetry(attempts, 1))
        assert.is_nil(exec:Start())
        assert.equal(1, calls())
      end
    end)
  end)

  describe("timeout", function()
    it("is for each attempt", function()
      local calls = 0
      local j = job.new("j", function()
        calls = calls + 1
        task.wait(calls < 3 and 100 or 2)
        return "in time"
      end)
      local exec = executor.new(j, executor.WithRetry(5, 1),
                                executor.WithTimeout(4))
      assert.equal(true, exec:Start())
      assert.equal(4 + 1 + 4 + 1 + 2.0, passed())
      assert.equal("in time", j:Result())
    end)

    it("says so", function()
      local j = job.new("j", function() task.wait(100) end)
      local ok, err = executor.new(j, { timeout = 3 }):Start()
      assert.is_nil(ok)
      assert.equal("Timeout", err.kind)
      assert.equal("context deadline exceeded", tostring(err))
      assert.equal("failed", j:State())
    end)

    it("can be switched off, and is, by zero or less", function()
      for _, option in ipairs { executor.NoTimeout(), { timeout = -1 },
                                { timeout = 0 } } do
        local j = job.new("j", function() task.wait(100) end)
        assert.equal(true, executor.new(j, executor.WithTimeout(3), option)
          :Start())
      end
    end)
  end)

  describe("cooldown", function()
    it("starts when Start ends", function()
      local j = job.new("j", function() task.wait(10) end)
      local exec = executor.new(j, executor.WithCooldown(5))
      assert.equal(true, exec:Start())
      local ok, err = exec:Start()
      assert.is_nil(ok)
      assert.equal("Cooldown", err.kind)
      assert.equal("job is still in cooldown, 5s left", tostring(err))
      assert.near(5, exec:Stats().cooldown, 1e-6)
      world.advance(3.5)
      assert.equal("job is still in cooldown, 1.5s left",
                   tostring(select(2, exec:Start())))
      world.advance(1.5)
      assert.equal(0, exec:Stats().cooldown)
      assert.equal(true, exec:Start())
    end)

    it("comes after a failure, too, and goes with Reset", function()
      local exec = executor.new((failing(1)), { cooldown = 60 })
      assert.is_nil(exec:Start())
      assert.equal("Cooldown", select(2, exec:Start()).kind)
      assert.is_true(exec:Reset())
      assert.equal(true, exec:Start())
    end)

    it("of zero or less is none", function()
      local exec = executor.new(job.new("j", nothing), { cooldown = 0 })
      assert.equal(true, exec:Start())
      assert.equal(true, exec:Start())
    end)
  end)

  describe("once", function()
    it("allows one Start that succeeded", function()
      local j, calls = failing(2)
      local exec = executor.new(j, executor.Once())
      assert.is_nil(exec:Start())
      assert.is_nil(exec:Start())
      assert.equal(true, exec:Start())
      local ok, err = exec:Start()
      assert.is_nil(ok)
      assert.equal("Once", err.kind)
      assert.equal("job can only start once", tostring(err))
      assert.equal(3, calls())
      exec:Reset()
      assert.equal(true, exec:Start())
    end)

    it("works with retries", function()
      local exec = executor.new((failing(4)), executor.Once(),
        executor.WithRetry(5, 2), executor.WithTimeout(30))
      assert.equal(true, exec:Start())
      assert.equal("Once", select(2, exec:Start()).kind)
    end)
  end)

  describe("Stop", function()
    it("is false when nothing runs", function()
      assert.is_false(executor.new(job.new("j", nothing)):Stop())
    end)

    it("cancels the attempt, and there is none after it", function()
      local j = job.new("j", function() task.wait(100) end)
      local exec = executor.new(j, executor.WithRetry(5, 1))
      local got
      task.spawn(function() got = { exec:Start() } end)
      task.wait(2)
      assert.is_true(exec:Stop(true))
      assert.is_false(exec:Stats().running)
      assert.is_nil(got[1])
      assert.equal("Canceled", got[2].kind)
      assert.equal("canceled", j:State())
      assert.equal(2.0, passed())
    end)

    it("does not wait inside of its own Start", function()
      for _, from in ipairs { "fn", "a listener", "the listener of the end",
                              "retry.on" } do
        for _, where in ipairs { "a task", "the main coroutine" } do
          local exec, said
          local function stop()
            said = said or table.pack(exec:Stop(true))
          end
          local j = job.new("j", function()
            if from == "fn" then
              stop()
            elseif from ~= "retry.on" then
              task.wait(10)
            end
            error("broken", 0)
          end)
          if from:match "listener" then
            j:On("state", function(_, state)
              if from == "a listener" or state == "failed" then
                stop()
              end
            end)
          end
          exec = executor.new(j, { retry = { attempts = 3,
            on = from == "retry.on" and stop or nil } })
          local err
          local function start() err = select(2, exec:Start()) end
          if where == "a task" then
            task.spawn(start)
          else
            start()
          end
          task.run()
          local what = from .. " in " .. where
          assert.same({ n = 2, nil, "deadlock" }, said, what)
          assert.equal("Canceled", err.kind, what)
          assert.is_false(exec:Stats().running, what)
        end
      end
    end)

    it("waits inside of a task that a listener spawned", function()
      local j = job.new("j", function() task.wait(100) end)
      local exec, said = executor.new(j), nil
      local stop = j:On("state", function(_, state)
        if state == "running" then
          task.spawn(function() said = exec:Stop(true) end)
        end
      end)
      assert.equal("Canceled", select(2, exec:Start()).kind)
      task.run()
      stop()
      assert.is_true(said)
    end)

    it("ends, and waits for, a run that no Start began", function()
      local j = job.new("j", function()
        task.wait(100)
        task.wait(100)
      end)
      local exec = executor.new(j)
      assert.is_false(exec:Stop(true))
      for _, where in ipairs { "here", "in a task" } do
        j:Run()
        local got
        local function stop() got = { exec:Stop(true), j:State() } end
        if where == "here" then
          stop()
        else
          task.spawn(stop)
          task.run()
        end
        assert.same({ true, "canceled" }, got, where)
      end
    end)

    it("cancels the attempt as it begins, too", function()
      local j = job.new("j", function() task.wait(100) end)
      local exec = executor.new(j)
      local stop = j:On("state", function() exec:Stop() end)
      assert.equal("Canceled", select(2, exec:Start()).kind)
      assert.equal("canceled", j:State())
      stop()
    end)

    it("ends the pause between two attempts", function()
      local exec = executor.new((failing(5)), executor.WithRetry(5, 100))
      local got
      task.spawn(function() got = { exec:Start() } end)
      task.wait(2)
      assert.is_true(exec:Stop(true))
      assert.equal("Canceled", got[2].kind)
      assert.equal(2.0, passed())
    end)
  end)

  describe("a context", function()
    it("that ends stops it, in an attempt and in a pause", function()
      for _, fn in ipairs { function() return nil, "bad" end,
                            function() task.wait(100) end } do
        local exec = executor.new(job.new("j", fn),
                                  executor.WithRetry(9, 100))
        local ok, err = exec:Start((context.withTimeout(
          context.background(), 3)))
        assert.is_nil(ok)
        assert.equal("Timeout", err.kind)
        local ctx, cancel = context.withCancel(context.background())
        task.delay(1, cancel)
        assert.equal("Canceled", select(2, exec:Start(ctx)).kind)
      end
      assert.equal(8.0, passed())
    end)

    it("is that of the coroutine where none is given", function()
      local exec = executor.new(job.new("j", function() task.wait(100) end))
      local ctx = context.withTimeout(context.background(), 3)
      assert.equal("Timeout",
                   select(2, context.with(ctx, exec.Start, exec)).kind)
    end)
  end)

  it("a Start whose coroutine is closed takes its job along", function()
    local j = job.new("j", function() task.wait(100) end)
    local exec = executor.new(j)
    local thread = task.spawn(exec.Start, exec)
    task.wait(1)
    task.cancel(thread)
    assert.is_false(exec:Stats().running)
    j:Wait()
    assert.equal("canceled", j:State())
  end)

  describe("a job that others run, too", function()
    it("is judged by the run of the Start, not by the next", function()
      local calls = 0
      local j = job.new("j", function()
        calls = calls + 1
        task.wait(5)
        if calls > 1 then
          return nil, "not this one"
        end
        return "first"
      end)
      local again = true
      j:On("state", function(_, state)
        if state == "succeeded" and again then
          again = false
          j:Run()
        end
      end)
      local exec = executor.new(j, executor.Once())
      assert.equal(true, exec:Start())
      assert.equal("running", j:State())
      j:Wait()
      assert.same({ "failed", 2 }, { j:State(), calls })
      assert.equal("first", select(2, exec:Start()).result)
    end)

    it("by who waited for it", function()
      local j = job.new("j", function() task.wait(5) return "r" end)
      local got
      task.spawn(function()
        task.wait(1)
        j:Wait()
        j:Run()
      end)
      task.spawn(function() got = { executor.new(j):Start() } end)
      task.run()
      assert.same({ true }, got)
      assert.equal("succeeded", j:State())
      assert.equal(10.0, passed())
    end)

    it("in the pause of a Start, which leaves that run alone", function()
      for _, way in ipairs { "Run", "Start" } do
        local calls = 0
        local j = job.new("j", function()
          calls = calls + 1
          if calls == 1 then
            error("broken", 0)
          end
          task.wait(100)
          return "theirs"
        end)
        local a = executor.new(j, executor.WithRetry(3, 10))
        local b = executor.new(j)
        local of_a, of_b
        task.spawn(function() of_a = { a:Start() } end)
        task.delay(5, function()
          of_b = { (way == "Run" and j or b)[way](way == "Run" and j or b) }
        end)
        task.run()
        assert.equal("Pending", of_a[2].kind)
        assert.same({ true }, of_b)
        assert.same({ "succeeded", "theirs", 2 },
                    { j:State(), j:Result(), calls })
      end
    end)

    it("in a pause in which the Start is stopped", function()
      local fail = true
      local j = job.new("j", function()
        if fail then
          fail = false
          error("broken", 0)
        end
        task.wait(100)
      end)
      local a = executor.new(j, executor.WithRetry(3, 50))
      local got
      task.spawn(function() got = { a:Start() } end)
      task.delay(5, j.Run, j)
      task.wait(10)
      assert.is_true(a:Stop(true))
      assert.equal("Canceled", got[2].kind)
      assert.equal("running", j:State())
      j:Wait()
      assert.equal("succeeded", j:State())
    end)
  end)

  it("onComplete is called after every Start that ran", function()
    local seen = {}
    local exec = executor.new((failing(1)), executor.Once(),
      executor.OnComplete(function(err)
        seen[#seen + 1] = err and err.kind or "fine"
        error "no harm"
      end))
    exec:Start()
    exec:Start()
    exec:Start()
    assert.same({ "Failed", "fine" }, seen)
  end)

  for _, way in ipairs(world.ways) do
    describe("with a guard " .. way.name, function()
      local name, here, there

      before_each(function()
        name = world.name()
        here = world.new(way, { name = name })
        there = world.new(way, { name = name })
      end)

      after_each(function()
        here:Close()
        there:Close()
      end)

      local function both(fn, rules)
        local function one(guard)
          local all = { guard = guard }
          for key, value in pairs(rules or {}) do
            all[key] = value
          end
          return executor.new(job.new("shared", fn), all)
        end
        return one(here), one(there)
      end

      it("does not overlap", function()
        local a, b = both(function() task.wait(5) return "r" end)
        local got
        task.spawn(a.Start, a)
        task.delay(1, function() got = { b:Start() } end)
        task.run()
        assert.is_nil(got[1])
        assert.equal("AlreadyRunning", got[2].kind)
        assert.equal("r", there:GetResult "shared")
        assert.equal(true, b:Start())
        assert.equal(2, there:GetRecord("shared").executionCount)
      end)

      it("runs once, and gives the stored result", function()
        local a, b = both(function() return { n = 1 } end, { once = true })
        assert.equal(true, a:Start())
        local ok, err = b:Start()
        assert.is_nil(ok)
        assert.equal("Once", err.kind)
        assert.same({ n = 1 }, err.result)
        assert.equal("Once", select(2, a:Start()).kind)
      end)

      it("cools down everywhere", function()
        local a, b = both(nothing, { cooldown = 60, key = "k" })
        assert.equal(true, a:Start())
        local _, err = b:Start()
        assert.equal("Cooldown", err.kind)
        assert.near(60, err.left, 1e-3)
        world.advance(61)
        assert.equal(true, b:Start())
        assert.is_true(a:Reset())
        assert.equal(true, a:Start())
      end)

      it("counts all attempts as one run, and keeps the failure", function()
        local a = both(function() return nil, "bad" end,
                       { retry = { attempts = 3, delay = 1 } })
        local _, err = a:Start()
        assert.equal("Failed", err.kind)
        assert.equal("bad", err.cause)
        assert.equal("Failed", here:GetStatus "shared")
        assert.equal(1, here:GetRecord("shared").executionCount)
        assert.equal(3, a:Stats().retries)
      end)

      it("goes by its own rules, whatever the guard does by default",
      function()
        local strict = world.new(way, { name = name, cooldown = 50,
                                        retry = { attempts = 3, delay = 1 } })
        local j, calls = failing(1)
        local exec = executor.new(j, { guard = strict, key = "own" })
        assert.equal("Failed", select(2, exec:Start()).kind)
        assert.equal(1, calls())
        assert.equal(true, exec:Start())
        strict:Close()
      end)

      it("tells the cooldown that others began", function()
        local a, b = both(nothing, { cooldown = 60 })
        assert.equal(0, b:Stats().cooldown)
        assert.equal(true, a:Start())
        world.advance(10)
        assert.near(50, b:Stats().cooldown, 1e-3)
        assert.near(50, a:Stats().cooldown, 1e-3)
        assert.near(50, here:GetRecord("shared").cooldownLeft, 1e-3)
        world.advance(51)
        assert.equal(0, b:Stats().cooldown)
        assert.is_nil(here:GetRecord("shared").cooldownLeft)
      end)

      it("tells others what the job says of its progress", function()
        local guard, told = there, nil
        guard:RunOnce("told", function()
          told = guard:SetProgress("told", 0.1)
        end)
        local seen, tries = {}, 0
        local function look()
          seen[#seen + 1] = here:GetRecord("progress").progress or "none"
        end
        local exec = executor.new(job.new("progress", function(ctx)
          tries = tries + 1
          look()
          ctx:SetProgress(0.25)
          look()
          if tries == 1 then error("again", 0) end
        end), { guard = guard, retry = { attempts = 2, delay = 0 } })
        assert(exec:Start())
        look()
        assert.same(told and { "none", 0.25, "none", 0.25, "none" } or
          { "none", "none", "none", "none", "none" }, seen)
        assert.equal(way.name:find "file" ~= nil, told) -- others cannot
        assert.is_false(guard:SetProgress("progress", 1))
        assert.has_error(function() guard:SetProgress("k", 2) end,
          "SetProgress: progress must be a number from 0 to 1 or nil, " ..
          "not the number 2")
      end)

      it("answers nil, err when the guard is closed", function()
        local a = both(nothing)
        local schedule = executor.schedule(a, { every = 60 })
        here:Close()
        for _, method in ipairs { "Start", "Reset" } do
          local ok, err = a[method](a)
          assert.is_nil(ok)
          assert.equal("Failed", err.kind)
          assert.matches("guard is closed", tostring(err))
          assert.equal(tostring(err), err.cause)
        end
        assert.equal(0, a:Stats().cooldown)
        task.wait(150)
        schedule:Stop()
        task.run()
        assert.equal(2, schedule:Stats().failures)
        assert.matches("closed", tostring(schedule:Stats().lastError))
      end)

      it("says when the result cannot be stored", function()
        local a = both(function() return print end)
        local _, err = a:Start()
        assert.equal("Failed", err.kind)
        assert.matches("result: function", tostring(err))
      end)

      it("says when the key was taken from it", function()
        local a, b = both(function() task.wait(10) return "r" end,
                          { once = true })
        local got
        task.spawn(function() got = { a:Start() } end)
        task.wait(1)
        there:Reset "shared"
        assert.equal(true, b:Start())
        task.run()
        assert.is_nil(got[1])
        assert.equal("Failed", got[2].kind)
        assert.equal("the guard's store: lost", tostring(got[2]))
        assert.equal("Once", select(2, a:Start()).kind)
        assert.equal(2, here:GetRecord("shared").executionCount)
      end)

      it("is stopped", function()
        local a = both(function() task.wait(100) end)
        local got
        task.spawn(function() got = { a:Start() } end)
        task.wait(1)
        a:Stop(true)
        assert.equal("Canceled", got[2].kind)
        assert.is_false(here:IsLocked "shared")
      end)
    end)
  end

  describe("schedule", function()
    it("starts every so often, and skips while it runs or cools down",
    function()
      local runs = 0
      local exec = executor.new(job.new("j", function()
        runs = runs + 1
        task.wait(90)
      end), { cooldown = 100 })
      local schedule = executor.schedule(exec, { every = 60 })
      task.wait(60 * 9 + 1)
      assert.is_true(schedule:Stop())
      assert.is_false(schedule:Stop())
      -- at 60 (until 150, cool until 250), 300 (390, 490), 540
      assert.equal(3, runs)
      local stats = schedule:Stats()
      assert.equal(6, stats.skips)
      assert.equal(2, stats.runs)
      task.run()
    end)

    it("makes up for a stall by one Start, and keeps its beat", function()
      local times = {}
      local exec = executor.new(job.new("j", function()
        times[#times + 1] = passed()
        if #times == 2 then
          world.advance(60 * 10 + 30) -- it holds up all
        end
      end))
      local schedule = executor.schedule(exec, { every = 60 })
      task.wait(60 * 15 + 1)
      local stats = schedule:Stats()
      schedule:Stop()
      task.run()
      assert.same({ 60.0, 120.0, 750.0, 780.0, 840.0, 900.0 }, times)
      assert.same({ 6, 9 }, { stats.runs, stats.skips })
    end)

    it("has jitter that does not add up", function()
      local times = {}
      local exec = executor.new(job.new("j", function()
        times[#times + 1] = passed()
      end))
      local schedule = executor.schedule(exec, { every = 60, jitter = 5 })
      task.wait(60 * 10 + 6)
      schedule:Stop()
      task.run()
      assert.equal(10, #times)
      for i, time in ipairs(times) do
        assert.is_true(time >= 60 * i and time <= 60 * i + 5)
      end
    end)

    it("ends with its context, and when it may never start again", function()
      local ctx = context.withTimeout(context.background(), 150)
      local j, calls = failing(0)
      local schedule = executor.schedule(executor.new(j),
        { every = 60, context = ctx })
      task.run()
      assert.equal(2, calls())
      assert.is_false(schedule:Stop())
      j, calls = failing(1)
      schedule = executor.schedule(executor.new(j, { once = true }),
                                   { every = 60 })
      task.run()
      assert.equal(2, calls())
      assert.equal(1, schedule:Stats().failures)
      assert.equal("failure 1", tostring(schedule:Stats().lastError))
    end)
  end)

  it("is listed with its job", function()
    local j = job.new("listed " .. tostring(world), nothing)
    local exec = executor.new(j, executor.WithRetry(3))
    exec:Start()
    for _, stats in ipairs(job.list()) do
      if stats.id == j:ID() then
        assert.equal(1, #stats.executors)
        assert.equal(1, stats.executors[1].starts)
        return
      end
    end
    error "not found"
  end)

  it("goes with the garbage, though its job stays, which lists it", function()
    local j = job.new("j", nothing)
    local kept = { executor.new(j, { cooldown = 1 }) }
    local dropped = setmetatable({}, { __mode = "k" })
    for _ = 1, 1000 do
      dropped[executor.new(j)] = true
    end
    kept[2] = executor.new(j, { once = true })
    kept[2]:Start()
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(dropped))
    local list = job.list()
    assert.same({ 0, 1 }, { list[#list].executors[1].starts,
                            list[#list].executors[2].starts })
    assert.equal(2, #list[#list].executors)
  end)

  it("refuses what makes no sense", function()
    local message, j = world.message, job.new("j", nothing)
    local function refused(pattern, ...)
      assert.matches(pattern, message(executor.new, j, ...))
    end
    refused("option 'retry.attempts' must be a whole number, not the string",
            { retry = { attempts = "3" } })
    refused("option 'timeout' must be a number", { timeout = "3" })
    refused("option 'cooldown' must be a number .*not true",
            { cooldown = true })
    refused("there is no option the string 'retries'", { retries = 3 })
    refused("there is no option the string 'retry.tries'",
            { retry = { tries = 3 } })
    refused("option 'once' must be a boolean", { once = 1 })
    refused("option 'guard' must be a guard", { guard = {} })
    refused("option 'key' is of no use without a guard", { key = "k" })
    refused("options must be a table", 5)
    local long = job.new(("k"):rep(513), nothing)
    local guard <close> = ExecutionGuard.new()
    assert.matches("the job's id, which is the key, has 513 bytes",
                   message(executor.new, long, { guard = guard }))
    executor.new(long, { guard = guard, key = "short" })
    assert.matches("executor.WithRetry: option 'retry.attempts'",
                   message(executor.WithRetry, "x"))
    assert.matches("executor.WithTimeout: option 'timeout'",
                   message(executor.WithTimeout))
    assert.matches("executor.new: a job is needed", message(executor.new, {}))
    local exec = executor.new(j)
    assert.matches("Start: the context must be", message(exec.Start, exec, 5))
    assert.matches("Start: called on a nil", message(exec.Start))
    assert.matches("Stop: wait must be a boolean",
                   message(exec.Stop, exec, 1))
    assert.matches("executor.schedule: option 'every' must be",
                   message(executor.schedule, exec, {}))
  end)
end)
