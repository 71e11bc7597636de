-- SPDX-License-Identifier: MIT
-- A guard around the scheduler: timed out at random moments, it leaves all
-- queues whole.  Real time: what is tried is where a signal comes.

local core = require "executionguard.core"
local ExecutionGuard = require "executionguard"
local scheduler = require "executionguard.scheduler"
local task = require "executionguard.task"

local steady = core.clock.steady
local SCALE = tonumber(os.getenv "EXECUTIONGUARD_SPEC_SCALE" or "") or 1
local ROUNDS = math.max(4, 12 // SCALE)
local TASKS = math.max(100, 1000 // SCALE)

--- The queues of the scheduler, out of its upvalues.
local function queues()
  local found = {}
  for i = 1, math.huge do
    local name, value = debug.getupvalue(scheduler.cancel, i)
    if not name then break end
    found[name] = value
  end
  return assert(found.waiting), assert(found.ready), assert(found.dues)
end

--- Is everything in this queue as timers.lua says?
local function whole(queue)
  local heap, entries, seen = queue.heap, 0, {}
  assert.equal(queue.n, #heap)
  for i = 1, queue.n do
    local list = heap[i]
    assert.is_nil(seen[list])
    seen[list] = true
    assert.is_true(list.first < list.last)
    assert.equal(0, (list.last - list.first) % 3)
    assert.equal(list[list.first + 1], list.due)
    assert.equal(list[list.first + 2], list.seq)
    local due, seq = -math.huge, -math.huge
    for at = list.first, list.last - 3, 3 do
      assert.is_true(list[at] ~= nil)
      local d, s = list[at + 1], list[at + 2]
      assert.is_true(due < d or due == d and seq < s)
      due, seq = d, s
      entries = entries + 1
    end
    if i > 1 then
      local parent = heap[i // 2]
      assert.is_true(parent.due < list.due or
        parent.due == list.due and parent.seq < list.seq)
    end
  end
  assert.equal(entries, queue.total)
  for duration, list in pairs(queue.lists) do
    assert.equal(duration, list.duration)
    assert.is_true(seen[list])
  end
end

describe("a guard around the scheduler", function()
  local guard, reported

  before_each(function()
    guard = ExecutionGuard.new()
    reported = {}
    task.onError(function(err) reported[#reported + 1] = err end)
  end)

  after_each(function()
    task.onError(nil)
    assert.is_nil((debug.gethook()))
    guard:Close()
  end)

  --- Starts tasks that do everything; -> what came of each.
  local function populate(steps)
    local tasks = {}
    for i = 1, TASKS do
      local state = { done = false }
      tasks[i] = state
      state.thread = task.defer(function()
        for step = 1, steps do
          if (i + step) % 4 == 0 then
            task.wait((i % 7) / 1e5)
          elseif (i + step) % 4 == 1 then
            task.wait()
          elseif (i + step) % 4 == 2 then
            local child = task.delay(i % 5 / 1e5, math.abs, 1)
            if i % 3 == 0 then task.cancel(child) end
          else
            task.spawn(function() task.wait(i % 3 / 1e5) end)
          end
        end
        state.done = true
      end)
    end
    return tasks
  end

  it("of many tasks leaves their queues whole, whenever it ends", function()
    local waiting, ready, dues = queues()
    local interrupted = 0
    for round = 1, ROUNDS do
      local tasks = populate(8)
      local tries = 0
      repeat
        local _, why, reason = guard:RunOnce("k" .. round, task.run, {
          timeout = 0.0005 + math.random() * 0.004,
          allowRerun = true,
        })
        whole(waiting)
        whole(ready)
        whole(dues)
        if reason then
          assert.equal("timeout", reason, why)
          interrupted = interrupted + 1
        end
        tries = tries + 1
        assert.is_nil(task.current())
      until not reason or tries == 20
      task.run() -- what is left, at leisure
      local ended = 0
      for i = 1, TASKS do
        assert.equal("dead", coroutine.status(tasks[i].thread))
        if not tasks[i].done then ended = ended + 1 end
      end
      -- each interruption ends those that were running, and nobody else
      assert.is_true(ended <= 2 * tries, ("%d of %d"):format(ended, tries))
      assert.equal(0, waiting.n + ready.n)
    end
    assert.is_true(interrupted > ROUNDS // 2)
    assert.same({}, reported)
  end)

  it("ends a task that loops, and the others go on later", function()
    local after
    local looping = task.defer(function() while true do end end)
    task.defer(function() after = true end)
    assert.same({ false, nil, "timeout" },
      { guard:RunOnce("k", task.run, { timeout = 0.3 }) })
    assert.equal("dead", coroutine.status(looping))
    assert.is_nil(after)
    task.run()
    assert.is_true(after)
    assert.same({}, reported)
  end)

  it("ends tasks that only start each other", function()
    local waiting, ready = queues()
    local function again() task.defer(again) end
    task.defer(again)
    assert.same({ false, nil, "timeout" },
      { guard:RunOnce("k", task.run, { timeout = 0.01 }) })
    whole(waiting)
    whole(ready)
    again = function() end
    task.run()
    assert.equal(0, ready.n)
  end)

  it("ends it while it sleeps", function()
    local thread = task.delay(30, print)
    local start = steady()
    assert.same({ false, nil, "timeout" },
      { guard:RunOnce("k", task.run, { timeout = 0.01 }) })
    assert.is_true(steady() - start < 5)
    task.cancel(thread)
  end)

  it("ends task.wait outside of tasks", function()
    local start = steady()
    assert.same({ false, nil, "timeout" },
      { guard:RunOnce("k", function() task.wait(30) end,
        { timeout = 0.01 }) })
    assert.is_true(steady() - start < 5)
  end)

  it("ends a task that handles the error of another", function()
    task.onError(function() while true do end end)
    task.defer(error, "wrong")
    assert.same({ false, nil, "timeout" },
      { guard:RunOnce("k", task.run, { timeout = 0.01 }) })
    task.run()
  end)

  it("in a task ends that task's function alone", function()
    local why, other
    task.defer(function()
      why = select(3, guard:RunOnce("k", function()
        while true do end
      end, { timeout = 0.01 }))
    end)
    task.defer(function() other = true end)
    task.run()
    assert.equal("timeout", why)
    assert.is_true(other)
  end)
end)
