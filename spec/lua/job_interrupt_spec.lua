-- SPDX-License-Identifier: MIT
-- Jobs on coroutines that never look at their context are stopped.  Real time,
-- as the keeper has to interrupt what runs; bounds are generous.

local context = require "executionguard.context"
local core = require "executionguard.core"
local executor = require "executionguard.executor"
local ExecutionGuard = require "executionguard"
local job = require "executionguard.job"
local task = require "executionguard.task"

local MOST <const> = 60 -- seconds, on a busy machine
local EXCEEDED <const> = "context deadline exceeded"

local function spin()
  while true do end
end

local function spin_and_catch()
  while true do
    pcall(spin)
  end
end

local function spin_below()
  coroutine.wrap(function()
    xpcall(spin_and_catch, print)
  end)()
end

describe("a job that never looks", function()
  after_each(function()
    assert.is_nil(task.step(), "something was left over")
    assert.is_nil(next(require "executionguard.inside".scopes))
  end)

  for name, fn in pairs { spins = spin, ["catches errors"] = spin_and_catch,
                          ["is deep in coroutines"] = spin_below } do
    it(name .. ": is stopped by a timeout", function()
      local others = 0
      local j = job.new("j", fn, { grace = 0.01 })
      local exec = executor.new(j, executor.WithTimeout(0.02),
                                executor.WithRetry(2))
      task.spawn(function()
        for _ = 1, 3 do
          others = others + 1
          task.wait(0.001)
        end
      end)
      local ok, err = exec:Start()
      assert.is_nil(ok)
      assert.equal("Timeout", err.kind)
      assert.same({ "failed", EXCEEDED, 2 },
                  { j:State(), j:Err(), exec:Stats().retries })
      assert.is_true(j:ExecutionTime() < MOST)
      task.run()
      assert.equal(3, others)
    end)

    it(name .. ": is stopped by Cancel", function()
      local j
      j = job.new("j", function()
        assert(j:Cancel()) -- nobody else can, while it runs
        fn()
      end, { grace = 0.01 })
      j:Run()
      assert.equal(true, j:Wait(MOST))
      assert.same({ "canceled", "context canceled" },
                  { j:State(), j:Err() })
    end)

    it(name .. ": is stopped at the end of its context", function()
      local ctx = context.withTimeout(context.background(), 0.02)
      local j = job.new("j", function()
        task.wait(0) -- it may have waited before
        fn()
      end, { grace = 0.01 })
      j:Run(ctx)
      assert.equal(true, j:Wait(MOST))
      assert.same({ "failed", EXCEEDED }, { j:State(), j:Err() })
    end)
  end

  it("has time for its <close> variables, and no more", function()
    local closed, late = false, false
    local j = job.new("j", function()
      local _ <close> = setmetatable({}, { __close = function()
        closed = true
        spin()
        late = true
      end })
      spin()
    end, { grace = 0.01 })
    for _ = 1, 100 do -- 5 ms may be gone before they begin
      assert.is_nil(executor.new(j, { timeout = 0.01 }):Start())
      if closed then
        break
      end
    end
    assert.is_true(closed)
    assert.is_false(late)
  end)

  it("may finish what is shielded", function()
    local whole = false
    local j = job.new("j", function()
      ExecutionGuard.shield(function()
        local till = core.clock.steady() + 0.05
        while core.clock.steady() < till do end
        whole = true
      end)
      spin()
    end, { grace = 0 })
    assert.is_nil(executor.new(j, { timeout = 0.01 }):Start())
    assert.is_true(whole)
  end)

  it("frees the key of a guard, and the next job runs as ever", function()
    local guard <close> = ExecutionGuard.new()
    local j = job.new("j", spin_and_catch, { grace = 0.01 })
    local exec = executor.new(j, { guard = guard, timeout = 0.02 })
    local ok, err = exec:Start()
    assert.is_nil(ok)
    assert.equal("Timeout", err.kind)
    assert.is_false(guard:IsLocked "j")
    assert.equal("Failed", guard:GetStatus "j")
    for _ = 1, 3 do
      local next_one = job.new("next", function() return "ran" end)
      next_one:Run()
      next_one:Wait()
      assert.equal("ran", next_one:Result())
    end
  end)
end)
