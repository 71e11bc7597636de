-- SPDX-License-Identifier: MIT
-- executionguard.job on coroutines: every promise of its guide.

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

local function waiting()
  task.wait(1000)
end

describe("job", function()
  before_each(turns.begin)
  after_each(turns.finish)

  local function run(fn, ...)
    local j = job.new("j", fn)
    assert.is_true(j:Run(...))
    assert.is_true(j:Wait())
    return j
  end

  describe("states", function()
    it("created, running, succeeded", function()
      local seen = {}
      local j = job.new("j", function() return 42 end)
      j:On("state", function(_, state) seen[#seen + 1] = state end)
      assert.equal("created", j:State())
      assert.is_false(j:IsDone())
      assert.is_false(j:IsExecuting())
      assert.is_true(j:Run())
      assert.equal("running", j:State())
      assert.is_true(j:IsExecuting())
      assert.is_true(j:Wait())
      assert.is_true(j:IsState(job.State.Succeeded))
      assert.is_true(j:IsDone())
      assert.same({ "running", "succeeded" }, seen)
      assert.equal(42, j:Result())
    end)

    it("failed, by an error that was returned", function()
      local j = run(function() return nil, "no way" end)
      assert.equal("failed", j:State())
      assert.equal("no way", j:Err())
      assert.is_nil(j:Stats().traceback)
    end)

    it("failed, by any error that was raised, with its traceback", function()
      local object = setmetatable({}, { __tostring = function()
        return "an object"
      end })
      local j = run(function() error(object) end)
      assert.equal("failed", j:State())
      assert.equal(object, j:Err())
      assert.equal("an object", j:Stats().error)
      assert.matches("an object.*job_spec", j:Stats().traceback)
      assert.equal("nil", run(function() error() end):Err())
      assert.equal("failed", run(error):State())
    end)

    it("failed, and <close> variables see the very error", function()
      local object, seen = {}, nil
      local j = run(function()
        local _ <close> = setmetatable({}, { __close = function(_, err)
          seen = err
        end })
        error(object)
      end)
      assert.equal(object, seen)
      assert.equal(object, j:Err())
      assert.matches("table: .*traceback", j:Stats().traceback)
    end)

    it("failed, by an error that has no text", function()
      local object = setmetatable({}, { __tostring = error })
      local j = run(function() error(object) end)
      assert.equal(object, j:Err())
      assert.matches("error object is a table value", j:Stats().traceback)
    end)

    it("canceling, canceled", function()
      local j = job.new("j", job.wrap(function(ctx)
        while not ctx:Done() do
          task.wait(1)
        end
        return nil, ctx:Err()
      end))
      j:Run()
      task.wait(2.5)
      assert.is_true(j:Cancel())
      assert.equal("canceling", j:State())
      assert.is_true(j:IsExecuting())
      assert.is_false(j:Cancel())
      j:Wait()
      assert.equal("canceled", j:State())
      assert.equal(CANCELED, j:Err())
      assert.equal(2.5, passed())
    end)

    it("canceled exactly when Cancel was called, whatever fn returned",
    function()
      for _, fn in ipairs {
        function() task.wait(1) return "fine" end,
        function() task.wait(1) return nil, "broken" end,
        function() task.wait(1) error("broken", 0) end,
      } do
        local j = job.new("j", fn)
        j:Run()
        task.wait(0.5)
        j:Cancel()
        j:Wait()
        assert.equal("canceled", j:State())
      end
    end)

    it("are told apart by isDone and isPending", function()
      local done = { succeeded = true, failed = true, canceled = true }
      local pending = { running = true, canceling = true }
      for _, state in pairs(job.State) do
        assert.equal(done[state] or false, job.isDone(state))
        assert.equal(pending[state] or false, job.isPending(state))
      end
    end)
  end)

  it("a method called with a dot says how to call it, and where", function()
    local j = job.new("j", nothing)
    for _, method in ipairs { "Cancel", "Run", "Wait", "State", "Result",
                              "On" } do
      for what, self in pairs { ["a number"] = 5, ["a string"] = "x",
                                ["a boolean"] = true, ["a table"] = {} } do
        assert.matches(("^%%S*job_spec.lua:%%d+: %s: called on %s, not on " ..
                        "a job %%(write j:%s%%("):format(method, what, method),
          world.message(function() j[method](self) end))
      end
      assert.matches(": called on nil, not on a job",
                     world.message(function() j[method]() end))
    end
  end)

  it("options say where they were wrong", function()
    local made = {
      function() job.WithGrace(-1) end,
      function() job.WithLabels { 1 } end,
      function() job.WithLogger {} end,
      function() executor.WithTimeout "5" end,
      function() executor.WithTimeout() end,
      function() executor.WithRetry "3" end,
      function() executor.WithCooldown(0 / 0) end,
      function() executor.OnComplete() end,
      function() executor.WithGuard() end,
    }
    for i, make in ipairs(made) do
      assert.matches("^%S*job_spec.lua:%d+: %l+%.%u", world.message(make), i)
    end
  end)

  describe("On", function()
    it("tells each listener each state once, in order, also of a run that " ..
       "one of them starts", function()
      for _, way in ipairs { "a listener", "an OnDone", "a plain one" } do
        local runs, j = 0, nil
        local first, second = {}, {}
        j = job.new("j", function(ctx)
          runs = runs + 1
          if way == "an OnDone" and runs == 1 then
            ctx:Context():OnDone(function() j:Run() end)
          end
          return nil, runs == 1 and "broken" or nil
        end)
        j:On("state", function(_, state)
          first[#first + 1] = state
          if way == "a listener" and runs == 1 and state == "failed" then
            j:Run()
          end
        end)
        j:On("state", function(_, state) second[#second + 1] = state end)
        j:Run()
        j:Wait()
        if way == "a plain one" then
          j:Run()
        end
        j:Wait()
        local all = { "running", "failed", "running", "succeeded" }
        assert.same({ all, all }, { first, second }, way)
      end
    end)

    it("goes on after a listener whose coroutine was closed", function()
      local j = job.new("j", nothing)
      local seen = {}
      j:On("state", function(_, state)
        seen[#seen + 1] = state
        if #seen == 1 then
          task.wait(1000)
        end
      end)
      local thread = task.spawn(j.Run, j)
      task.cancel(thread)
      j:Wait()
      j:Run()
      j:Wait()
      assert.same({ "running", "succeeded", "running", "succeeded" }, seen)
    end)

    it("a stop function takes off its own listener, once, and at once",
    function()
      local j, calls, stop = job.new("j", nothing), 0, nil
      local function count() calls = calls + 1 end
      j:On("state", function() stop() end)
      stop = j:On("state", count)
      local other = j:On("state", count)
      j:Run()
      assert.equal(1, calls)
      j:Wait()
      assert.equal(2, calls)
      assert.is_false(stop())
      assert.is_true(other())
      assert.is_false(other())
    end)
  end)

  describe("Run", function()
    it("begins at the scheduler's next turn", function()
      local ran = false
      local j = job.new("j", function() ran = true end)
      j:Run()
      assert.is_false(ran)
      task.step()
      assert.is_true(ran)
    end)

    it("returns false while it runs, also inside of its own fn", function()
      local j, inside
      j = job.new("j", function()
        inside = j:Run()
        task.wait(1)
      end)
      assert.is_true(j:Run())
      assert.is_false(j:Run())
      j:Wait()
      assert.is_false(inside)
    end)

    it("may come again, and everything starts afresh", function()
      local fail = true
      local j = job.new("j", function(ctx)
        if fail then
          ctx:SetProgress(0.5)
          ctx:SetResult "half"
          error("broken", 0)
        end
        task.wait(3)
      end)
      j:Run()
      j:Wait()
      assert.same({ "failed", "half", "broken", 0.5 },
        { j:State(), j:Result(), j:Err(), j:Progress() })
      fail = false
      task.wait(1)
      assert.is_true(j:Run())
      assert.is_nil(j:Result())
      assert.is_nil(j:Err())
      assert.is_nil(j:Stats().traceback)
      assert.is_nil(j:EndedAt())
      assert.equal(-1, j:Progress())
      j:Wait()
      assert.equal("succeeded", j:State())
      assert.near(3, j:ExecutionTime(), 1e-6)
      assert.near(world.epoch + 1, j:StartedAt(), 1e-6)
      assert.near(world.epoch + 4, j:EndedAt(), 1e-6)
    end)

    it("refuses what is no context", function()
      local j = job.new("j", nothing)
      assert.matches("Run: the context must be .* parameters are the second",
                     world.message(j.Run, j, { "items" }))
      assert.equal("created", j:State())
    end)
  end)

  describe("Wait", function()
    it("returns false for one that was never run", function()
      assert.is_false(job.new("j", nothing):Wait())
    end)

    it("returns at once for one that is done", function()
      assert.is_true(run(nothing):Wait())
    end)

    it("waits no longer than it was told", function()
      local j = job.new("j", waiting)
      j:Run()
      assert.is_false(j:Wait(3))
      assert.equal(3.0, passed())
      j:Cancel()
      assert.is_true(j:Wait(3))
    end)

    it("wakes everybody who waits, in coroutines and outside", function()
      local woken = 0
      local j = job.new("j", function() task.wait(5) end)
      j:Run()
      for i = 1, 10 do
        task.spawn(function()
          assert.equal(true, j:Wait(i > 5 and 100 or nil))
          woken = woken + 1
          assert.equal(5.0, passed())
        end)
      end
      j:Wait()
      task.run()
      assert.equal(10, woken)
    end)

    it("of a run that is over does not wait for the next", function()
      local j = job.new("j", function() task.wait(1) end)
      local at
      j:Run()
      task.spawn(function()
        j:Wait()
        at = passed()
      end)
      j:On("state", function(_, state)
        if state == "succeeded" and passed() < 5 then
          task.delay(0, j.Run, j)
        end
      end)
      task.run()
      assert.equal(1.0, at)
    end)

    it("inside of its own fn is an error, not a hang", function()
      local j
      j = job.new("j", function() j:Wait() end)
      j:Run()
      j:Wait()
      assert.matches("Wait: a job cannot wait for its own end", j:Err())
    end)

    it("where nobody is left who could end it says deadlock", function()
      local j = job.new("j", coroutine.yield)
      j:Run()
      assert.same({ nil, "deadlock" }, { j:Wait() })
      j:Cancel()
      assert.is_true(j:Wait())
    end)

    it("ends with the context of who waits", function()
      local j = job.new("j", waiting)
      j:Run()
      local ctx = context.withTimeout(context.background(), 2)
      assert.same({ nil, EXCEEDED }, { context.with(ctx, j.Wait, j) })
      assert.is_true(j:IsExecuting())
      j:Cancel()
      j:Wait()
    end)
  end)

  describe("Cancel", function()
    it("is true only for a running job", function()
      local j = job.new("j", nothing)
      assert.is_false(j:Cancel())
      j:Run()
      j:Wait()
      assert.is_false(j:Cancel())
      assert.equal("succeeded", j:State())
    end)

    it("before fn has begun keeps it from beginning", function()
      local j = job.new("j", error)
      j:Run()
      assert.is_true(j:Cancel())
      j:Wait()
      assert.equal("canceled", j:State())
      assert.equal(CANCELED, j:Err())
    end)

    it("from inside is a cancel as any", function()
      local j
      j = job.new("j", function()
        assert.is_true(j:Cancel())
        assert.is_false(j:Cancel())
        return "done"
      end)
      j:Run()
      j:Wait()
      assert.equal("canceled", j:State())
      assert.equal("done", j:Result())
    end)

    it("ends one that does not look, after the grace time", function()
      local closed = false
      local j = job.new("j", function()
        local _ <close> = setmetatable({}, { __close = function()
          closed = true
        end })
        while true do
          pcall(task.wait, 1)
          coroutine.yield()
        end
      end, { grace = 0.25 })
      j:Run()
      task.wait(1.5)
      j:Cancel()
      j:Wait()
      assert.equal("canceled", j:State())
      assert.is_true(closed)
      assert.near(1.75, passed(), 1e-6)
    end)
  end)

  describe("its context", function()
    it("is the background before Run, and has ended when it is over",
    function()
      local j = job.new("j", waiting)
      assert.equal(context.background(), j:Context())
      j:Run()
      local ctx = j:Context()
      assert.is_false(ctx:Done())
      j:Cancel()
      assert.equal(CANCELED, ctx:Err())
      j:Wait()
      assert.equal(ctx, j:Context())
      assert.is_true(run(nothing):Context():Done())
    end)

    it("lies below that of Run, with its values", function()
      local ctx = context.withValue(context.background(), "user", "ann")
      local j = run(function(c)
        return c:Context():Value "user", context.current()
      end, ctx)
      assert.equal("ann", j:Result())
    end)

    it("that ended by itself makes it failed", function()
      local ctx, cancel = context.withCancel(context.background())
      task.delay(2, cancel)
      local j = run(function() return task.wait(10) end, ctx)
      assert.same({ "failed", CANCELED, 2.0 },
                  { j:State(), j:Err(), passed() })
      j = run(function() return task.wait(10) end,
              (context.withTimeout(context.background(), 3)))
      assert.same({ "failed", EXCEEDED, 5.0 },
                  { j:State(), j:Err(), passed() })
      j = run(error, ctx) -- had ended before
      assert.same({ "failed", CANCELED }, { j:State(), j:Err() })
    end)

    it("that has ended refuses what fn returned late", function()
      local j = run(function()
        world.advance(10)
        return "late"
      end, (context.withTimeout(context.background(), 3)))
      assert.same({ "failed", EXCEEDED }, { j:State(), j:Err() })
    end)

    it("is let go at the end", function()
      local ctx = context.withCancel(context.background())
      run(function(c) c:Context():OnDone(nothing) end, ctx)
      assert.is_nil(ctx.listeners)
    end)
  end)

  describe("its coroutine", function()
    it("that somebody may know of runs no other job", function()
      local seen, hooked = {}, 0
      for i = 1, 5 do
        run(function() seen[i] = coroutine.running() end)
        run(function() task.wait(1) end)
      end
      for i = 1, 5 do
        assert.equal("dead", coroutine.status(seen[i]))
        for k = 1, i - 1 do
          assert.not_equal(seen[k], seen[i])
        end
      end
      run(function()
        debug.sethook(function() hooked = hooked + 1 end, "c")
      end)
      local before = hooked
      run(function() string.rep("x", 2) end)
      assert.equal(before, hooked)
    end)

    it("keeps nothing of the run that it has ended", function()
      local kept = setmetatable({ run(function() return {} end) },
                                { __mode = "v" })
      world.collect()
      assert.is_nil(kept[1])
    end)

    it("that was used before has its own end", function()
      run(nothing)
      local closed = 0
      local j = job.new("j", function()
        local _ <close> = setmetatable({}, { __close = function()
          closed = closed + 1
        end })
        task.wait(1000)
      end)
      j:Run()
      task.step()
      assert.is_true(j:Cancel())
      j:Wait()
      assert.equal("canceled", j:State())
      assert.equal(1, closed)
      run(nothing)
      assert.equal("failed", run(error):State())
      run(nothing)
    end)
  end)

  describe("what fn gets", function()
    it("id, labels, params, logger", function()
      local lines = {}
      local logger = {}
      for _, level in ipairs { "Debug", "Info", "Warn", "Error" } do
        logger[level] = function(self, message, fields)
          assert.equal(logger, self)
          lines[#lines + 1] = { level, message, fields }
        end
      end
      local j = job.new("fetch", function(ctx)
        ctx:Labels().env = "changed"
        ctx:Logger():Info("hello", { n = 1 })
        return { ctx:ID(), ctx:Labels().env, ctx:GetParams() }
      end, job.WithLabel("env", "production"),
      job.WithLabels { service = "api" }, job.WithLogger(logger))
      j:Run(nil, "p")
      j:Wait()
      assert.same({ "fetch", "production", "p" }, j:Result())
      assert.same({ env = "production", service = "api" }, j:Labels())
      j:Labels().env = "x"
      assert.equal("production", j:Stats().labels.env)
      assert.same({ "Info", "hello", { n = 1, job = "fetch" } }, lines[1])
    end)

    it("logs a panic with its traceback", function()
      local text
      local logger = { Debug = nothing, Info = nothing, Warn = nothing,
        Error = function(_, message, fields)
          text = message .. fields.traceback
        end }
      local j = job.new("j", function() error "boom" end, { logger = logger })
      j:Run()
      j:Wait()
      assert.matches("job failed: .*boom.*stack traceback", text)
    end)

    it("without a logger warns of a panic, with its traceback once",
    function()
      local said = {}
      local real = warn
      _G.warn = function(...) said[#said + 1] = table.concat { ... } end
      run(function() error("boom", 0) end)
      run(function() return nil, "quiet" end)
      _G.warn = real
      assert.equal(1, #said)
      assert.matches("^%[ExecutionGuard%] job j: job failed: boom\n" ..
                     "stack traceback:", said[1])
    end)

    it("a result: that of SetResult, the last one, else what is returned",
    function()
      assert.equal(1, run(function() return 1 end):Result())
      assert.equal(false, run(function() return false end):Result())
      assert.equal(3, run(function(ctx)
        ctx:SetResult(2)
        ctx:SetResult(3)
        return 1
      end):Result())
      assert.is_nil(run(function(ctx)
        ctx:SetResult(nil)
        return 1
      end):Result())
    end)

    it("SetProgress, from 0 to 1 and nothing else", function()
      local j = run(function(ctx)
        ctx:SetProgress(0)
        ctx:SetProgress(1)
        for _, wrong in ipairs { -0.1, 1.1, 0 / 0, math.huge, "0.5", {} } do
          assert.matches("SetProgress: progress must be a number from 0 to 1",
                         world.message(ctx.SetProgress, ctx, wrong))
        end
        assert.matches("SetProgress: .*nil",
                       world.message(ctx.SetProgress, ctx))
        assert.matches("job_spec.*SetProgress: called on a number",
                       world.message(function() ctx.SetProgress(0.5) end))
        ctx:SetProgress(0.25)
      end)
      assert.equal("succeeded", j:State())
      assert.equal(0.25, j:Progress())
      assert.equal(-1, job.new("j", nothing):Progress())
    end)

    it("is of no effect when the run is over", function()
      local old
      local j = run(function(ctx) old = ctx end)
      j:Run()
      old:SetProgress(0.7)
      old:SetResult "late"
      j:Wait()
      assert.equal(-1, j:Progress())
      assert.is_nil(j:Result())
    end)
  end)

  it("tells its events, which cannot harm it", function()
    local seen = {}
    local j = job.new("j", function(ctx)
      ctx:SetProgress(0.5)
      task.wait(1)
      ctx:SetProgress(1)
    end)
    j:On("progress", error)
    local stop = j:On("progress", function(of, value)
      assert.equal(j, of)
      seen[#seen + 1] = value
    end)
    j:Run()
    task.wait(0.5)
    assert.is_true(stop())
    assert.is_false(stop())
    j:Wait()
    assert.same({ 0.5 }, seen)
    assert.equal("succeeded", j:State())
  end)

  it("knows its times", function()
    local j = job.new("j", function() task.wait(4) end)
    assert.equal(0, j:ExecutionTime())
    assert.is_nil(j:StartedAt())
    assert.is_nil(j:EndedAt())
    world.advance(1)
    j:Run()
    j:Wait(1.5)
    assert.near(1.5, j:ExecutionTime(), 1e-6)
    j:Wait()
    world.advance(10)
    assert.near(4, j:ExecutionTime(), 1e-6)
    assert.near(world.epoch, j:CreatedAt(), 1e-6)
    assert.near(world.epoch + 1, j:StartedAt(), 1e-6)
    assert.near(world.epoch + 5, j:EndedAt(), 1e-6)
    local stats = j:Stats()
    assert.same({ "j", "succeeded", -1, j:StartedAt(), j:ExecutionTime(), {} },
      { stats.id, stats.state, stats.progress, stats.startedAt,
        stats.executionTime, stats.labels })
  end)

  it("without an id gets a UUID", function()
    local seen = {}
    for _ = 1, 100 do
      math.randomseed(42) -- as every process of a program may do
      local id = job.new(nil, nothing):ID()
      assert.matches("^%x+%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x+$", id)
      assert.equal(36, #id)
      assert.is_nil(seen[id])
      seen[id] = true
    end
    math.randomseed()
    assert.equal(36, #job.new("", nothing):ID())
  end)

  it("is listed as long as somebody refers to it", function()
    local j = run(nothing)
    local found
    for _, stats in ipairs(job.list()) do
      found = found or stats.id == j:ID() and stats.state == "succeeded"
    end
    assert.is_true(found)
    local kept = setmetatable({ job.new("x", nothing) }, { __mode = "v" })
    world.collect()
    assert.is_nil(kept[1])
  end)

  it("refuses what makes no sense", function()
    local message = world.message
    assert.matches("job.new: the id must be a string or nil, not 5",
                   message(job.new, 5, nothing))
    assert.matches("job.new: a function is needed .*not nil",
                   message(job.new, "j"))
    assert.matches("job.new: there is no option the string 'lable'",
                   message(job.new, "j", nothing, { lable = {} }))
    assert.matches("label 'a' must be a string, not 1",
                   message(job.new, "j", nothing, { labels = { a = 1 } }))
    assert.matches("option 'logger': it has no Debug",
                   message(job.new, "j", nothing, { logger = {} }))
    assert.matches("option 'grace' must be a number",
                   message(job.new, "j", nothing, { grace = -1 }))
    local j = job.new("j", nothing)
    assert.matches("State: called on a table", message(j.State, {}))
    assert.matches("IsState: there is no state the string 'done'",
                   message(j.IsState, j, "done"))
    assert.matches("On: the event must be", message(j.On, j, "end", nothing))
    assert.matches("Wait: the timeout must be", message(j.Wait, j, -1))
    assert.matches("job.wrap: a function", message(job.wrap, 1))
  end)

  it("a hundred thousand, run and awaited", function()
    local n, ran = world.scaled(100000), 0
    local jobs = {}
    for i = 1, n do
      jobs[i] = job.new("j", function()
        if i % 10 == 0 then
          task.wait(i % 100 / 10)
        end
        ran = ran + 1
      end)
      jobs[i]:Run()
    end
    for i = 1, n do
      assert(jobs[i]:Wait() == true)
      assert(jobs[i]:State() == "succeeded")
    end
    assert.equal(n, ran)
  end)

  it("ten thousand, cancelled at random moments, end once each", function()
    local n = world.scaled(10000)
    local ends, woken, closed = {}, 0, 0
    local jobs = {}
    local close = { __close = function() closed = closed + 1 end }
    for i = 1, n do
      local j = job.new("j" .. i, function(ctx)
        local _ <close> = setmetatable({}, close)
        if i % 3 == 0 then
          while task.wait(math.random()) and not ctx:Context():Done() do
            ctx:SetProgress(math.random())
          end
        elseif i % 3 == 1 then
          for _ = 1, 5 do
            task.wait(math.random())
            coroutine.yield()
          end
        end
      end)
      jobs[i] = j
      j:On("state", function(_, state)
        if job.isDone(state) then
          ends[j] = (ends[j] or 0) + 1
        end
      end)
      task.delay(math.random(), j.Run, j)
      task.delay(1 + math.random() * 3, function()
        local cancels = j:Cancel()
        j:Wait()
        assert(not cancels or j:State() == "canceled")
        woken = woken + 1
      end)
      task.delay(1, function()
        j:Wait()
        woken = woken + 1
      end)
    end
    task.run()
    for _, j in ipairs(jobs) do
      assert(j:State() == "created" or ends[j] == 1, j:State())
      assert(not j:IsExecuting())
    end
    assert.equal(2 * n, woken)
    assert.is_true(closed <= n)
  end)

  it("stands in the summary", function()
    local j = run(nothing)
    local rows = require "executionguard.summary".rows { j:Stats() }
    assert.same({ "Jobs", 1 }, rows[1])
    assert.same({ "  succeeded", 1 }, rows[5])
    local lines, real = {}, print
    rawset(_G, "print", function(line) lines[#lines + 1] = line end)
    ExecutionGuard.printSummary(ExecutionGuard.new(), { ascii = true })
    rawset(_G, "print", real)
    assert.matches("\n| Jobs +%d+ |\n|   created +%d+ |\n",
                   table.concat(lines, "\n"))
  end)
end)
