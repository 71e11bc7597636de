-- SPDX-License-Identifier: MIT
-- The guide of the original's job package, sentence by sentence, in its order
-- and its words.  Its programs stand in spec/examples/job_*.lua.

local context = require "executionguard.context"
local executor = require "executionguard.executor"
local job = require "executionguard.job"
local task = require "executionguard.task"
local turns = require "support.turns"
local world = require "support.world"

local passed, failing = turns.passed, turns.failing

local function nothing() end

local function long()
  task.wait(1000)
end

local function run(fn, ...)
  local j = job.new("j", fn, ...)
  assert.is_true(j:Run())
  assert.is_true(j:Wait())
  return j
end

-- What Start says: true, or the text of its error.
local function said(exec, ...)
  local ok, err = exec:Start(...)
  return ok or tostring(err)
end

describe("the guide of jobs:", function()
  before_each(turns.begin)
  after_each(turns.finish)

  it("concurrent job management", function()
    local jobs = {}
    for i = 1, 10 do
      jobs[i] = job.new("j", function() task.wait(5) end)
      jobs[i]:Run()
    end
    for _, j in ipairs(jobs) do
      j:Wait()
    end
    assert.equal(5.0, passed())
  end)

  describe("Features", function()
    it("State Management: Full lifecycle tracking (Created → Running → " ..
       "Succeeded/Failed/Canceled)", function()
      for _, case in ipairs {
        { fn = nothing, last = "succeeded" },
        { fn = error, last = "failed" },
        { fn = long, last = "canceled" },
      } do
        local j = job.new("j", case.fn)
        local states = { j:State() }
        j:On("state", function(_, state) states[#states + 1] = state end)
        j:Run()
        if case.last == "canceled" then
          task.wait(1)
          j:Cancel()
        end
        j:Wait()
        assert.same({ "created", "running" }, { states[1], states[2] })
        assert.equal(case.last, states[#states])
      end
    end)

    it("Progress Monitoring: Real-time progress tracking (0.0 to 1.0)",
    function()
      local j = job.new("upload", function(ctx)
        for i = 0, 4 do
          ctx:SetProgress(i / 4)
          task.wait(1)
        end
      end)
      j:Run()
      for i = 0, 4 do
        j:Wait(i == 0 and 0.5 or 1)
        assert.equal(i / 4, j:Progress())
      end
      j:Wait()
    end)

    it("Cancellation Support: Graceful job cancellation with context " ..
       "awareness", function()
      local tidied
      local j = job.new("j", function(ctx)
        while not ctx:Context():Done() do
          task.wait(1)
        end
        tidied = true
        return nil, ctx:Context():Err()
      end)
      j:Run()
      task.wait(2.5)
      assert.is_true(j:Cancel())
      j:Wait()
      assert.is_true(tidied)
      assert.equal(2.5, passed())
    end)

    it("Retry Logic: Automatic retry with configurable attempts and delays",
    function()
      local j, calls = failing(3)
      assert.is_true(said(executor.new(j, executor.WithRetry(4, 2.5))))
      assert.same({ 4, 7.5 }, { calls(), passed() })
    end)

    it("Timeout Management: Per-execution timeout with context cancellation",
    function()
      local err
      local j = job.new("j", function(ctx)
        task.wait(1000)
        err = ctx:Context():Err()
      end)
      assert.equal("context deadline exceeded",
                   said(executor.new(j, executor.WithTimeout(30))))
      assert.same({ "context deadline exceeded", 30.0 }, { err, passed() })
    end)

    it("Cooldown Periods: Prevent rapid re-execution with configurable " ..
       "cooldowns", function()
      local exec = executor.new(job.new("j", nothing),
                                executor.WithCooldown(300))
      assert.is_true(said(exec))
      assert.equal("job is still in cooldown, 300s left", said(exec))
      task.wait(300)
      assert.is_true(said(exec))
    end)

    it("Once Constraint: Ensure jobs run successfully only once " ..
       "(compatible with retries)", function()
      local j, calls = failing(2)
      local exec = executor.new(j, executor.Once(), executor.WithRetry(3))
      assert.is_true(said(exec))
      assert.equal("job can only start once", said(exec))
      assert.equal(3, calls())
    end)

    it("Result Storage: Store and retrieve job results and parameters",
    function()
      local j = job.new("j", function(ctx)
        ctx:SetResult { ctx:GetParams() }
      end)
      j:Run(nil, "p")
      j:Wait()
      assert.same({ "p" }, j:Result())
    end)

    it("Panic Recovery: Automatic panic recovery and error propagation",
    function()
      local panic = {}
      local j = job.new("j", function() error(panic) end,
        { logger = { Debug = nothing, Info = nothing, Warn = nothing,
                     Error = nothing } })
      local ok, err = executor.new(j):Start()
      assert.is_nil(ok)
      assert.equal(panic, err.cause)
      assert.equal(panic, j:Err())
      assert.matches("stack traceback", j:Stats().traceback)
    end)

    it("Metadata Support: Labels, timestamps, and execution statistics",
    function()
      local j = run(function() task.wait(2) end,
                    job.WithLabel("env", "production"))
      assert.same({ env = "production" }, j:Labels())
      assert.near(world.epoch, j:StartedAt(), 1e-5)
      assert.near(world.epoch + 2, j:EndedAt(), 1e-5)
      assert.near(2, j:Stats().executionTime, 1e-5)
    end)
  end)

  describe("Job States", function()
    it("StateCreated: Job initialized but not started", function()
      assert.is_true(job.new("j", nothing):IsState(job.State.Created))
    end)

    it("StateRunning: Job is currently executing; StateCanceling: " ..
       "Cancellation requested, job is shutting down; StateCanceled: Job " ..
       "was canceled before completion", function()
      local j = job.new("j", long)
      j:Run()
      assert.is_true(j:IsState(job.State.Running))
      j:Cancel()
      assert.is_true(j:IsState(job.State.Canceling))
      j:Wait()
      assert.is_true(j:IsState(job.State.Canceled))
    end)

    it("StateSucceeded: Job completed successfully; StateFailed: Job " ..
       "failed with an error", function()
      assert.is_true(run(nothing):IsState(job.State.Succeeded))
      local j = run(function() return nil, "why" end)
      assert.is_true(j:IsState(job.State.Failed))
      assert.equal("why", j:Err())
    end)
  end)

  describe("Executor Options", function()
    it("WithRetry(attempts, delay): Retry failed executions", function()
      local j, calls = failing(9)
      local exec = executor.new(j, executor.WithRetry(3, 2))
      assert.equal("failure 3", said(exec))
      assert.same({ 3, 4.0 }, { calls(), passed() })
    end)

    it("WithTimeout(duration): Set execution timeout; NoTimeout(): Disable " ..
       "timeout", function()
      local j = job.new("j", function() task.wait(40) end)
      assert.equal("context deadline exceeded",
                   said(executor.new(j, executor.WithTimeout(30))))
      assert.is_true(said(executor.new(j, executor.WithTimeout(30),
                                       executor.NoTimeout())))
      assert.equal(70.0, passed())
    end)

    it("Once(): Restricts the number of successful Start() calls to one; " ..
       "WithRetry(): Allows retries within a single Start() call", function()
      local j, calls = failing(7)
      local exec = executor.new(j, executor.Once(), executor.WithRetry(5, 2),
                                executor.WithTimeout(30))
      assert.equal("failure 5", said(exec)) -- not the one successful
      assert.is_true(said(exec))
      assert.equal(8, calls())
      assert.equal("job can only start once", said(exec))
      assert.equal(8, calls())
    end)

    it("WithTimeout: Timeout per attempt", function()
      local j = job.new("j", long)
      assert.equal("context deadline exceeded",
        said(executor.new(j, executor.WithRetry(3, 2),
                          executor.WithTimeout(30))))
      assert.equal(30 + 2 + 30 + 2 + 30.0, passed())
    end)

    it("Rate-Limited Execution: max once per hour", function()
      local exec = executor.new(job.new("scrape", nothing),
        executor.WithCooldown(3600), executor.WithRetry(3, 10))
      local skipped = 0
      for _ = 1, 6 do
        task.wait(30 * 60)
        local _, err = exec:Start(context.background(), nil)
        if err and tostring(err):find "cooldown" then
          skipped = skipped + 1
        end
      end
      assert.same({ 3, 3 }, { exec:Stats().starts, skipped })
    end)
  end)

  describe("Job Interface", function()
    it("Run(ctx, params) bool, Wait(), Cancel() bool", function()
      local j = job.new("j", long)
      assert.is_false(j:Cancel())
      assert.is_true(j:Run(context.background(), {}))
      assert.is_false(j:Run(context.background(), {}))
      assert.is_true(j:Cancel())
      j:Wait()
      assert.is_false(j:Cancel())
      assert.is_true(j:Run())
      j:Cancel()
      j:Wait()
    end)

    it("Run starts the job in a goroutine", function()
      local ran = false
      local j = job.new("j", function() ran = true end)
      j:Run()
      assert.is_false(ran)
      j:Wait()
      assert.is_true(ran)
    end)

    it("State(), IsState(state), IsDone(), IsExecuting()", function()
      local j = job.new("j", long)
      local function all()
        return { j:State(), j:IsState(j:State()), j:IsDone(),
                 j:IsExecuting() }
      end
      assert.same({ "created", true, false, false }, all())
      j:Run()
      assert.same({ "running", true, false, true }, all())
      j:Cancel()
      assert.same({ "canceling", true, false, true }, all())
      j:Wait()
      assert.same({ "canceled", true, true, false }, all())
    end)

    it("ID(), Labels(), Result(), Err(), Context(), Progress()", function()
      local j = job.new("id", function(ctx)
        ctx:SetProgress(0.5)
        return "result", nil
      end, job.WithLabels { a = "1", b = "2" })
      assert.equal(context.background(), j:Context())
      assert.equal(-1, j:Progress())
      j:Run()
      assert.is_false(j:Context():Done())
      j:Wait()
      assert.same({ "id", { a = "1", b = "2" }, "result", 0.5 },
                  { j:ID(), j:Labels(), j:Result(), j:Progress() })
      assert.is_nil(j:Err())
      assert.is_true(j:Context():Done())
    end)

    it("CreatedAt(), StartedAt(), EndedAt(), ExecutionTime()", function()
      local j = job.new("j", function() task.wait(3) end)
      task.wait(1)
      j:Run()
      task.wait(2)
      assert.near(2, j:ExecutionTime(), 1e-5)
      assert.is_nil(j:EndedAt())
      j:Wait()
      for i, time in ipairs { j:CreatedAt(), j:StartedAt(), j:EndedAt() } do
        assert.near(world.epoch + ({ 0, 1, 4 })[i], time, 1e-5)
      end
    end)

    it("Stats(): ID, State, ExecutionTime, Progress, Error", function()
      local stats = run(function(ctx)
        ctx:SetProgress(0.25)
        task.wait(2)
        return nil, "broken"
      end):Stats()
      assert.same({ "j", "failed", 0.25, "broken" },
        { stats.id, stats.state, stats.progress, stats.error })
      assert.near(2, stats.executionTime, 1e-5)
    end)
  end)

  it("Job Context Interface: ID, Context, Logger, Labels, SetProgress, " ..
     "SetResult, GetParams; WithLogger: Set custom logger", function()
    local lines = {}
    local logger = { Debug = nothing, Warn = nothing, Error = nothing,
      Info = function(_, message) lines[#lines + 1] = message end }
    local j = job.new("batch", function(ctx)
      local items = ctx:GetParams()
      for i, item in ipairs(items) do
        if ctx:Context():Done() then
          return nil, ctx:Context():Err()
        end
        ctx:Logger():Info(("%s %s %s"):format(ctx:ID(), ctx:Labels().env,
                                              item))
        ctx:SetProgress(i / #items)
      end
      ctx:SetResult(#items)
    end, job.WithLabel("env", "test"), job.WithLogger(logger))
    j:Run(context.background(), { "a", "b" })
    j:Wait()
    assert.same({ "batch test a", "batch test b" }, lines)
    assert.same({ 2, 1 }, { j:Result(), j:Progress() })
  end)

  describe("Executor Interface", function()
    it("Start(ctx, params) error", function()
      local j = job.new("j", function(ctx)
        return nil, ctx:GetParams()
      end)
      assert.equal("p", said(executor.new(j), context.background(), "p"))
    end)

    it("Stop(wait) error", function()
      local exec = executor.new(job.new("j", long))
      assert.is_false(exec:Stop(true))
      for _, wait in ipairs { true, false } do
        local ended
        task.spawn(function() ended = said(exec) end)
        assert.is_true(exec:Stop(wait))
        assert.equal(wait and "context canceled" or nil, ended)
        task.run()
        assert.equal("context canceled", ended)
      end
    end)

    it("Stats(): Retries, Cooldown", function()
      local exec = executor.new((failing(2)), executor.WithRetry(3, 1),
                                executor.WithCooldown(60))
      assert.is_true(said(exec))
      task.wait(20)
      local stats = exec:Stats()
      assert.equal(2, stats.retries)
      assert.near(40, stats.cooldown, 1e-5)
    end)
  end)

  it("Utility Functions: IsDone returns true for " ..
     "Succeeded/Failed/Canceled; IsPending returns true for " ..
     "Running/Canceling", function()
    local done, pending = {}, {}
    for _, name in ipairs { "Created", "Running", "Canceling", "Succeeded",
                            "Failed", "Canceled" } do
      done[#done + 1] = job.isDone(job.State[name])
      pending[#pending + 1] = job.isPending(job.State[name])
    end
    assert.same({ false, false, false, true, true, true }, done)
    assert.same({ false, true, true, false, false, false }, pending)
  end)
end)
