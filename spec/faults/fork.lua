-- SPDX-License-Identifier: MIT
-- What a Lua program that forks may rely on.  fork_test.c gives fork(child),
-- which calls child in a forked child (an error there is told here) and
-- returns when that has ended, and a seed; returns the plays by name.

local fork, name = ...
local core = require "executionguard.core"
local ExecutionGuard = require "executionguard"
local task = require "executionguard.task"

local steady = core.clock.steady

local function same(expected, found)
  if expected ~= found then
    error(("%s expected, %s found"):format(expected, found), 2)
  end
end

local function forever()
  while true do end
end

local function nothing() end

local plays = {}

function plays.a_run_of_the_parent_is_not_the_childs()
  local guard = ExecutionGuard.new { name = name }
  local lost = 0
  local function onLost() lost = lost + 1 end
  local here = true
  local ok, result, reason = guard:RunOnce("a", function()
    fork(function()
      here = false
      assert(ExecutionGuard.expired(), "it goes on in the child")
      same("Failed", guard:GetStatus "a")
      assert(not guard:IsLocked "a")
      same(true, (guard:RunOnce("a", nothing, { timeout = 5 }) == true))
    end)
    return "mine"
  end, { onLost = onLost })
  same(true, here)
  same(true, ok)
  same("mine", result)
  same(nil, reason)
  same(0, lost)
end

function plays.the_child_cannot_commit()
  local guard = ExecutionGuard.new { name = name }
  local lost, child = 0, false
  local co = coroutine.create(function()
    local ok, result, reason = guard:RunOnce("a", function()
      coroutine.yield()
      return "late"
    end, { onLost = function() lost = lost + 1 end })
    return ok, result, reason
  end)
  assert(coroutine.resume(co))
  fork(function()
    child = true
    local _, ok, result, reason = coroutine.resume(co)
    same(false, ok)
    same(nil, result)
    same("lost", reason)
    same(1, lost)
    same("nil", tostring(guard:GetResult "a"))
  end)
  same(false, child)
  same("Running", guard:GetStatus "a")
  local _, ok, result = coroutine.resume(co)
  same(true, ok)
  same("late", result)
  same("late", guard:GetResult "a")
  same(0, lost)
end

function plays.locks_stay_with_the_parent()
  local guard = ExecutionGuard.new { name = name }
  local _, token = guard:AcquireLock "a"
  local lock <close> = guard:Lock "b"
  fork(function()
    assert(not guard:IsLocked "a" and not lock:Held())
    same(false, guard:ReleaseLock "a")
    same(false, guard:ReleaseLock("a", token))
    same(false, lock:Release())
    local ok, newer = guard:AcquireLock("a", 0)
    assert(ok and newer > token)
    same(true, guard:ReleaseLock "a")
  end)
  assert(guard:IsLocked "a" and lock:Held())
  same(true, guard:ReleaseLock("a", token))
end

function plays.an_endless_run_is_ended_in_the_child_too()
  local guard = ExecutionGuard.new { name = name }
  local child = false
  local start = steady()
  local ok, _, reason = guard:RunOnce("a", function()
    fork(function()
      child = true
      forever()
    end, "interrupted")
    forever()
  end, { timeout = 0.05 })
  same(false, child)
  same(false, ok)
  same("timeout", reason)
  assert(steady() - start >= 0.05)
end

function plays.runs_of_the_childs_own_are_kept()
  local guard = ExecutionGuard.new { name = name }
  guard:RunOnce("far", function()
    fork(function()
      local ok, _, reason = guard:RunOnce("new", forever, { timeout = 0.01 })
      same(false, ok)
      same("timeout", reason)
      same("TimedOut", guard:GetStatus "new")
      local other = ExecutionGuard.new()
      same(true, (other:RunOnce("own", nothing, { timeout = 1 }) == true))
    end)
    return 0
  end, { timeout = 1000 })
end

function plays.who_waits_in_a_task_goes_on_in_the_child()
  local guard = ExecutionGuard.new { name = name }
  local other = ExecutionGuard.new { name = name }
  guard:AcquireLock "a"
  local order = {}
  for i = 1, 3 do
    task.spawn(function()
      local ok, why = other:AcquireLock("a", 60)
      order[#order + 1] = ok and i or why
      task.wait()
      other:ReleaseLock "a"
    end)
  end
  task.step()
  same(0, #order)
  fork(function()
    task.run()
    same("1 2 3", table.concat(order, " "))
  end)
  same(0, #order)
  assert(guard:IsLocked "a")
  guard:ReleaseLock "a"
  task.run()
  same("1 2 3", table.concat(order, " "))
end

function plays.a_lock_that_was_handed_over_is_the_parents()
  local guard = ExecutionGuard.new { name = name }
  local other = ExecutionGuard.new { name = name }
  guard:AcquireLock "a"
  local tokens = {}
  task.spawn(function()
    tokens[1] = select(2, other:AcquireLock("a", 60))
  end)
  task.step()
  guard:ReleaseLock "a" -- it is the task's now, which does not know it
  fork(function()
    assert(not other:IsLocked "a")
    task.run()
    same(true, other:ReleaseLock("a", tokens[1]))
  end)
  same(0, #tokens)
  assert(other:IsLocked "a")
  task.run()
  same(true, other:ReleaseLock("a", tokens[1]))
end

function plays.timers_and_tasks_go_on_in_both()
  local done = 0
  task.delay(0.02, function() done = done + 1 end)
  task.defer(function() done = done + 1 end)
  fork(function()
    task.run()
    same(2, done)
  end)
  same(0, done)
  task.run()
  same(2, done)
end

function plays.leases_are_the_parents()
  local guard = ExecutionGuard.new { name = name, lease = 0.3 }
  guard:AcquireLock "a"
  fork(function()
    local start = steady()
    while steady() - start < 0.7 do end
    assert(not guard:IsLocked "a")
  end)
  local start = steady()
  while steady() - start < 0.7 do end
  assert(guard:IsLocked "a", "it was renewed no more")
  guard:ReleaseLock "a"
end

--- One of many, in a process of several threads.
function plays.anything()
  local guard = ExecutionGuard.new { name = name }
  local ok = guard:AcquireLock("mine", 60)
  local child = false
  local done, result, reason = guard:RunOnce("run", function()
    fork(function()
      child = true
      assert(not guard:IsLocked "mine")
      same(true, (guard:AcquireLock("mine", 10)))
      for i = 1, 4 do
        assert(guard:AcquireLock("k" .. i % 4, 10), "the child cannot lock")
        assert(guard:ReleaseLock("k" .. i % 4))
        same("timeout", (select(3, guard:RunOnce("t", forever,
          { timeout = 0.0005, allowRerun = true }))))
      end
      guard:Close()
      collectgarbage()
    end)
    return "done"
  end, { allowRerun = true, timeout = 60 })
  same(false, child)
  same(true, ok)
  same(true, done, reason)
  same("done", result)
  same(true, guard:ReleaseLock "mine")
  guard:Close()
end

--- What the other threads do meanwhile: a step of it.
local busy

function plays.be_busy()
  busy = busy or ExecutionGuard.new { name = name, lease = 5 }
  for i = 1, 10 do
    local key = "k" .. i % 4
    if busy:AcquireLock(key, 0.01) then
      busy:ReleaseLock(key)
    end
    busy:RunOnce("r" .. i % 4, forever, { timeout = 0.0001,
      allowRerun = true })
    task.spawn(function()
      if busy:AcquireLock(key, 1) then
        task.wait()
        busy:ReleaseLock(key)
      end
    end)
  end
  task.run()
  ExecutionGuard.new():Close()
end

return plays
