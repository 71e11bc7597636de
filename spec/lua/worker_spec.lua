-- SPDX-License-Identifier: MIT
-- Jobs on OS threads.  Real time, as real threads are waited for; bounds are
-- generous.

local context = require "executionguard.context"
local core = require "executionguard.core"
local executor = require "executionguard.executor"
local ExecutionGuard = require "executionguard"
local job = require "executionguard.job"
local task = require "executionguard.task"
local world = require "support.world"

local steady = core.clock.steady
local MOST <const> = 60 -- seconds, on a busy machine
local MOST_RESULT <const> = 64 * 1024 * 1024 -- as the guide says
local CORES <const> = job.workers().limit

local function forever(ctx)
  ctx:SetProgress(0) -- it has begun
  while true do
    pcall(function()
      while true do end
    end)
  end
end

describe("worker", function()
  before_each(function()
    job.workers { threads = 2 }
  end)

  after_each(function()
    assert.is_nil(task.step(), "something was left over")
    core.worker.drain()
    job.workers { threads = CORES }
    local pool = job.workers()
    assert.same({ 0, 0, 0 }, { pool.threads, pool.busy, pool.queued })
  end)

  local function start(fn, params, ...)
    local j = job.new("w", job.worker(fn), ...)
    assert.is_true(j:Run(nil, params))
    return j
  end

  -- Comes back when the function has set its progress.
  local function begun(j)
    local till = steady() + MOST
    while j:Progress() < 0 and steady() < till do
      task.wait(0.002)
    end
    assert.equal(0, j:Progress())
  end

  local function run(fn, params, ...)
    local j = start(fn, params, ...)
    assert.equal(true, j:Wait(MOST))
    return j
  end

  it("runs elsewhere, and what crosses comes out the same", function()
    local value = { 1, 2.5, "x", true, { a = { b = {} } }, ("y"):rep(100000) }
    local j = run(function(ctx)
      return { ctx:ID(), ctx:Labels().env, ctx:GetParams(),
               tostring(_G) }
    end, value, job.WithLabel("env", "prod"))
    assert.equal("succeeded", j:State(), tostring(j:Err()))
    local result = j:Result()
    assert.same({ "w", "prod", value }, { result[1], result[2], result[3] })
    assert.not_equal(tostring(_G), result[4])
  end)

  it("SetResult, returned errors and raised ones, also tables", function()
    assert.equal(2, run(function(ctx) ctx:SetResult(2) return 1 end):Result())
    assert.equal("bad", run(function() return nil, "bad" end):Err())
    local j = run(function() error { code = 7 } end)
    assert.same({ code = 7 }, j:Err())
    j = run(function() error "boom" end)
    assert.equal("failed", j:State())
    assert.matches("boom", j:Err())
    assert.matches("boom.*stack traceback", j:Stats().traceback)
    assert.matches("function: ", run(function() error(print) end):Err())
  end)

  it("an error that has a text keeps it, beside its fields", function()
    for _, raise in ipairs { true, false } do
      local j = run(function(ctx)
        local err = setmetatable({ code = 7 }, { __tostring = function(e)
          return "error number " .. e.code
        end })
        if ctx:GetParams() then
          error(err)
        end
        return nil, err
      end, raise)
      assert.equal(7, j:Err().code)
      assert.equal("error number 7", tostring(j:Err()))
      assert.equal("error number 7", j:Stats().error)
    end
    local j = run(function()
      error(setmetatable({ code = 7 }, { __tostring = error }))
    end)
    assert.same({ code = 7 }, j:Err())
  end)

  it("what SetResult was given stays where the job fails, as on a coroutine",
  function()
    for _, way in ipairs { "raise", "return", "run" } do
      local function fn(ctx)
        ctx:SetResult { 5 }
        ctx:SetProgress(0)
        if ctx:GetParams() == "raise" then
          error("bad", 0)
        elseif ctx:GetParams() == "return" then
          return nil, "bad"
        end
        require "executionguard.task".wait(1000)
      end
      for _, j in ipairs { job.new("w", job.worker(fn), { grace = 0.01 }),
                           job.new("c", fn, { grace = 0.01 }) } do
        j:Run(nil, way)
        if way == "run" then
          begun(j)
          j:Cancel()
        end
        assert.equal(true, j:Wait(MOST))
        assert.same({ way == "run" and "canceled" or "failed", { 5 } },
                    { j:State(), j:Result() })
      end
    end
  end)

  it("its context is of no use when it is over", function()
    job.workers { threads = 1 }
    local seen = {}
    local logger = {}
    for _, level in ipairs { "Debug", "Info", "Warn", "Error" } do
      logger[level] = function(_, message) seen[#seen + 1] = message end
    end
    run(function(ctx)
      old_one, old_logger = ctx, ctx:Logger() -- luacheck: ignore
    end)
    local j = job.new("w", job.worker(function()
      old_one:SetProgress(0.5) -- luacheck: ignore
      old_one:SetResult "not mine" -- luacheck: ignore
      old_one:Logger():Info "lost" -- luacheck: ignore
      old_logger:Info "lost" -- luacheck: ignore
    end), { logger = logger })
    j:Run()
    assert.equal(true, j:Wait(MOST))
    assert.equal("succeeded", j:State(), tostring(j:Err()))
    assert.same({ -1, nil }, { j:Progress(), j:Result() })
    assert.same({ "job succeeded" }, seen)
  end)

  it("a logger takes any fields", function()
    local function fn(ctx)
      ctx:Logger():Info("m", 5)
      ctx:Logger():Info("n", setmetatable({ a = 1 }, { __pairs = error }))
      ctx:Logger():Info()
    end
    for _, what in ipairs { job.worker(fn), fn } do
      local lines, logger = {}, {}
      for _, level in ipairs { "Debug", "Info", "Warn", "Error" } do
        logger[level] = function(_, message, fields)
          lines[#lines + 1] = { tostring(message), fields.fields or fields.a }
        end
      end
      local j = job.new("j", what, { logger = logger })
      j:Run()
      assert.equal(true, j:Wait(MOST))
      assert.equal("succeeded", j:State(), tostring(j:Err()))
      assert.same({ { "m", 5 }, { "n", 1 }, { "nil" } }, { lines[1], lines[2],
                                                           lines[3] })
    end
  end)

  it("<close> variables see the very error", function()
    local j = run(function()
      local seen
      pcall(function()
        local _ <close> = setmetatable({}, { __close = function(_, err)
          seen = err
        end })
        error { code = 7 }
      end)
      local inner = setmetatable({}, { __close = function(_, err)
        saw = err.code + seen.code -- luacheck: ignore
      end })
      local _ <close> = inner
      error { code = 8 }
    end)
    assert.same({ code = 8 }, j:Err())
    assert.matches("traceback", j:Stats().traceback)
    job.workers { threads = 1 }
    j = run(function() return saw end) -- luacheck: ignore
    assert.equal(15, j:Result())
  end)

  it("progress and log lines come to this Lua state", function()
    local seen, lines = {}, {}
    local logger = {}
    for _, level in ipairs { "Debug", "Info", "Warn", "Error" } do
      logger[level] = function(_, message, fields)
        lines[#lines + 1] = level .. message .. tostring(fields.n)
      end
    end
    local thread
    local j = job.new("w", job.worker(function(ctx)
      for i = 1, 100 do
        ctx:SetProgress(i / 100)
      end
      ctx:Logger():Info("half", { n = 1 })
      return pcall(ctx.SetProgress, ctx, 2)
    end), { logger = logger })
    j:On("progress", function(_, p)
      seen[#seen + 1], thread = p, coroutine.running()
    end)
    j:Run()
    assert.equal(true, j:Wait(MOST))
    assert.equal(1, j:Progress())
    assert.equal(1, seen[#seen])
    assert.equal(coroutine.running(), thread)
    assert.equal("Infohalf1", lines[1])
    assert.equal(false, j:Result())
  end)

  it("fails, and calls nothing, under a context that has ended", function()
    local name = os.tmpname()
    os.remove(name)
    local function touch(ctx)
      io.open(ctx:GetParams(), "w"):close()
      while true do end
    end
    local background = context.background()
    local over, cancel = context.withCancel(background)
    cancel()
    for err, parent in pairs {
      [context.Canceled] = over,
      [context.DeadlineExceeded] = context.withTimeout(background, 0),
    } do
      local j = job.new("w", job.worker(touch), { grace = 0.01 })
      assert.is_true(j:Run(parent, name))
      assert.equal("running", j:State())
      assert.equal(true, j:Wait(MOST))
      assert.same({ "failed", err }, { j:State(), j:Err() })
      j:Run(parent, name)
      assert.is_true(j:Cancel())
      j:Wait(MOST)
      assert.equal("canceled", j:State())
    end
    local exec = executor.new(job.new("w", job.worker(touch)),
                              { timeout = 1e-9 })
    assert.equal("Timeout", select(2, exec:Start(nil, name)).kind)
    assert.is_nil(io.open(name), "it was called")
  end)

  it("a function of any size", function()
    local lines = { "return function() local n = 0" }
    for i = 1, 5000 do
      lines[#lines + 1] = ("n = n + #'%d'"):format(i)
    end
    lines[#lines + 1] = "return n end"
    local long = load(table.concat(lines, "\n"))()
    assert.equal(long(), run(long):Result())
  end)

  it("a module's function", function()
    local j = job.new("w", job.worker "support.worker_module")
    j:Run(nil, 20)
    assert.equal(true, j:Wait(MOST))
    assert.equal(6765, j:Result(), tostring(j:Err()))
    j = job.new("w", job.worker "no.such.module")
    j:Run()
    j:Wait(MOST)
    assert.matches("module 'no.such.module' not found", j:Err())
    j = job.new("w", job.worker "string")
    j:Run()
    j:Wait(MOST)
    assert.matches("module 'string' is a table; it must return a function",
                   j:Err())
  end)

  it("refuses what does not cross, with its name or place", function()
    local count = 0
    assert.matches("job.worker: the function uses 'count' of its surroundings",
      world.message(job.worker, function() count = count + 1 end))
    assert.matches("job.worker: the function is one of C",
                   world.message(job.worker, print))
    assert.matches("job.worker: a function or the name of a module",
                   world.message(job.worker, 5))
    local j = run(function() end, { x = { y = print } })
    assert.equal("failed", j:State())
    assert.matches("params.x.y: function", j:Err())
    j = run(function() return { print } end)
    assert.equal("failed", j:State())
    assert.matches("result%[1%]: function", j:Err())
  end)

  it("waits in a coroutine, while others go on", function()
    local j = start(function(ctx)
      require "executionguard.task".wait(1000)
      return ctx:Context():Err()
    end, nil, { grace = MOST })
    local ended
    task.spawn(function()
      assert.equal(true, j:Wait(MOST))
      ended = j:Result()
    end)
    task.spawn(function()
      for _ = 1, 5 do
        task.wait(0.001)
      end
      j:Cancel()
    end)
    task.run()
    assert.equal("canceled", j:State())
    assert.is_true(ended == "context canceled" or ended == nil)
  end)

  it("a context lasts as long as its job", function()
    job.workers { threads = 1 }
    local j = run(function(ctx)
      kept, early = ctx, ctx:Context() -- luacheck: ignore
      return early:Done() -- luacheck: ignore
    end)
    assert.equal(false, j:Result())
    j = run(function()
      return { early:Done(), kept:Context():Err() } -- luacheck: ignore
    end)
    assert.same({ true, "context canceled" }, j:Result())
    run(function(ctx) kept = ctx end) -- luacheck: ignore
    j = run(function() return kept:Context():Done() end) -- luacheck: ignore
    assert.equal(true, j:Result())
  end)

  describe("Cancel", function()
    it("is seen by a job that looks at its context", function()
      local j = start(function(ctx)
        ctx:SetProgress(0)
        while not ctx:Context():Done() do end
        return nil, "seen: " .. ctx:Context():Err()
      end, nil, { grace = MOST })
      begun(j)
      j:Cancel()
      assert.equal(true, j:Wait(MOST))
      assert.equal("canceled", j:State())
      assert.equal("seen: context canceled", j:Err())
    end)

    it("ends a task.wait at once", function()
      local j = start(function(ctx)
        ctx:SetProgress(0)
        return select(2, require "executionguard.task".wait(1000))
      end, nil, { grace = MOST })
      begun(j)
      j:Cancel()
      assert.equal(true, j:Wait(MOST))
      assert.equal("context canceled", j:Result())
    end)

    it("ends every other wait, too", function()
      local held <close> = ExecutionGuard.new { name = "cancel" }
      local _ <close> = held:Lock "k"
      for _, fn in ipairs {
        function(ctx) -- for a lock
          local guard = require "executionguard".new { name = "cancel" }
          ctx:SetProgress(0)
          return { guard:AcquireLock("k", 1000) }
        end,
        function(ctx) -- for the next attempt
          local guard = require "executionguard".new()
          return { guard:RunOnce("k", function()
            ctx:SetProgress(0)
            error("canceled", 0)
          end, { retry = { attempts = 9, delay = 1000 } }) }
        end,
        function(ctx) -- for a job of its own
          local inner = require "executionguard.job".new("i", function()
            require "executionguard.task".wait(1000)
          end)
          inner:Run()
          ctx:SetProgress(0)
          local done, err = inner:Wait()
          return { done or false, err:match "canceled" }
        end,
      } do
        local j = start(fn, nil, { grace = MOST })
        begun(j)
        j:Cancel()
        assert.equal(true, j:Wait(MOST))
        assert.same({ false, "canceled" },
                    { j:Result()[1], j:Result()[2] })
      end
    end)

    it("stops one that never looks, after the grace time", function()
      local j = start(forever, nil, { grace = 0.05 })
      begun(j)
      j:Cancel()
      assert.equal(true, j:Wait(MOST))
      assert.equal("canceled", j:State())
      assert.equal("context canceled", j:Err())
      assert.is_nil(j:Stats().stuck)
    end)

    it("of one in the queue keeps it from beginning", function()
      job.workers { threads = 1 }
      local first = start(forever, nil, { grace = 0.05 })
      local second = start(function() end)
      begun(first)
      assert.is_true(second:Cancel())
      assert.equal("canceled", second:State())
      first:Cancel()
      assert.equal(true, first:Wait(MOST))
    end)
  end)

  it("is stopped by a time limit, also if nobody turns the scheduler",
  function()
    local j = job.new("w", job.worker(forever), { grace = 0.05 })
    local exec = executor.new(j, { timeout = 0.05 })
    local ok, err = exec:Start()
    assert.is_nil(ok)
    assert.equal("Timeout", err.kind)
    j:Run((context.withTimeout(context.background(), 0.05)))
    local till = steady() + MOST
    repeat
      core.clock.sleep(0.01)
      local pool = job.workers()
    until pool.busy + pool.queued == 0 or steady() > till
    assert.equal(0, job.workers().busy)
    assert.equal(true, j:Wait(MOST))
    assert.same({ "failed", "context deadline exceeded" },
                { j:State(), j:Err() })
  end)

  -- A table that is small here, and would be some 2^40 values when packed.
  local function endless(ctx)
    ctx:SetProgress(0)
    local t = {}
    for _ = 1, 40 do
      t = { t, t }
    end
    return t
  end

  it("a result has a size limit, which can be set", function()
    local j = run(function() return ("x"):rep(100) end)
    assert.equal(100, #j:Result())
    job.workers { maxResult = 64 }
    j = run(function() return ("x"):rep(100) end)
    local wrong = run(endless):Err()
    job.workers { maxResult = MOST_RESULT }
    assert.equal("result: a string of 100 bytes; at most 64 are stored",
                 j:Err())
    assert.matches("more than 64 bytes %(maxResult%)", wrong)
    j = run(function() return ("x"):rep((1 << 26) + 1) end)
    assert.equal("failed", j:State())
    assert.matches("at most 67108864 are stored", j:Err())
  end)

  it("that packs its result for ever is stopped", function()
    job.workers { maxResult = 0xffffffff }
    local j = start(endless, nil, { grace = 0.05 })
    begun(j)
    j:Cancel()
    assert.equal(true, j:Wait(MOST))
    assert.same({ "canceled", "context canceled" }, { j:State(), j:Err() })
    assert.is_nil(j:Stats().stuck)
    j:Run((context.withTimeout(context.background(), 0.05)))
    assert.equal(true, j:Wait(MOST))
    job.workers { maxResult = MOST_RESULT }
    assert.same({ "failed", "context deadline exceeded" },
                { j:State(), j:Err() })
    assert.equal(0, job.workers().lost)
  end)

  it("that calls os.exit ends alone", function()
    local j = run(function()
      pcall(os.exit, 1)
      while true do
        pcall(error)
      end
    end)
    assert.equal("failed", j:State())
    assert.matches("os.exit was called in a worker", j:Err())
    assert.equal(1, run(function() return 1 end):Result())
  end)

  it("that takes all memory fails alone", function()
    job.workers { memory = 16 * 1024 * 1024 }
    core.worker.drain()
    local n = 2 * world.scaled(1500000)
    local other = start(function(ctx)
      local sum = 0
      for i = 1, ctx:GetParams() do
        sum = sum + i % 2
      end
      return sum
    end, n)
    local j = run(function()
      local t = {}
      while true do
        t[#t + 1] = ("x"):rep(1000) .. #t
      end
    end)
    assert.equal("failed", j:State())
    assert.matches("not enough memory", j:Err())
    assert.equal(true, other:Wait(MOST))
    assert.equal(n // 2, other:Result())
    assert.equal(1, run(function() return 1 end):Result())
    job.workers { memory = 1 << 34 }
  end)

  it("that blocks in C is given up, and that is said", function()
    local warned
    local function nothing() end
    local pipe = os.tmpname()
    os.remove(pipe)
    assert(os.execute("mkfifo " .. pipe))
    local j = start(function(ctx)
      ctx:SetProgress(0)
      assert(io.open(ctx:GetParams())):close() -- until somebody writes
    end, pipe, { grace = 0.02, logger = { Debug = nothing, Info = nothing,
      Error = nothing, Warn = function(_, message) warned = message end } })
    begun(j)
    core.clock.sleep(0.02) -- to the call of C
    j:Cancel()
    assert.equal(true, j:Wait(MOST))
    assert.equal("canceled", j:State())
    assert.is_true(j:Stats().stuck)
    assert.matches("cannot be stopped", warned)
    assert.equal(1, job.workers().lost)
    assert.equal(1, run(function() return 1 end):Result())
    assert(io.open(pipe, "w")):close()
    os.remove(pipe)
    local till = steady() + MOST
    while job.workers().lost > 0 and steady() < till do
      core.clock.sleep(0.02)
    end
    assert.equal(0, job.workers().lost)
  end)

  it("tasks that a job leaves behind go with its state", function()
    run(function()
      left_behind = true -- luacheck: ignore
      require "executionguard.task".delay(100, print)
    end)
    job.workers { threads = 1 }
    assert.is_nil(run(function() return left_behind end) -- luacheck: ignore
      :Result())
  end)

  it("many, cancelled at random moments: each ends once, none is left",
  function()
    local n, ends, woken = world.scaled(500), {}, 0
    for i = 1, n do
      local j = job.new("w" .. i, job.worker(function(ctx)
        local till = ctx:GetParams()
        for k = 1, 200 * (till % 10) do
          ctx:SetProgress(k % 100 / 100)
        end
        while till % 7 == 0 and not ctx:Context():Done() do
          require "executionguard.task".wait(0.001)
        end
        return till
      end))
      j:On("state", function(_, state)
        if job.isDone(state) then
          ends[i] = (ends[i] or 0) + 1
        end
      end)
      j:Run(nil, i)
      task.delay(math.random() * 0.2, function()
        j:Cancel()
        j:Wait()
        woken = woken + 1
        assert(j:State() == "canceled" or j:Result() == i)
      end)
    end
    task.run()
    assert.equal(n, woken)
    for i = 1, n do
      assert(ends[i] == 1, i)
    end
  end)

  it("jobs that nobody refers to any more do no harm", function()
    for _ = 1, 20 do
      start(function(ctx)
        while not ctx:Context():Done() do end
      end):Cancel()
    end
    world.collect()
    task.run()
  end)

  it("refuses settings that make no sense", function()
    assert.matches("job.workers: there is no option the string 'size'",
                   world.message(job.workers, { size = 1 }))
    assert.matches("option 'threads' must be a whole number above 0, not 0",
                   world.message(job.workers, { threads = 0 }))
    assert.matches("job.workers: options must be a table .*, not 5",
                   world.message(job.workers, 5))
  end)
end)
