-- SPDX-License-Identifier: MIT
-- What a guard tells of its records, and what takes them back.

local world = require "support.world"

-- Without what came of all runs, which has a test of its own.
local function bare(record)
  for _, field in ipairs { "failed", "timedOut", "lost", "runTime", "blocked",
    "cached", "waitTime" } do
    record[field] = nil
  end
  return record
end

local function seven() return 7 end
local function boom() error("boom", 0) end
local function never() error("fn was called", 0) end

for _, way in ipairs(world.ways) do
  describe("records " .. way.name .. ":", function()
    local guard, name, other

    before_each(function()
      world.start(true)
      guard = world.new(way)
      name = world.name()
      other = world.new(way, { name = name })
    end)

    after_each(function()
      guard:Close()
      other:Close()
      world.stop()
    end)

    -- One key of each status; Running is that of the caller.
    local function one_of_each(g, inside)
      g:AcquireLock "Idle"
      g:RunOnce("Idle", never, { timeout = 0 })
      g:ReleaseLock "Idle"
      g:RunOnce("Completed", seven)
      g:RunOnce("Failed", boom)
      g:RunOnce("TimedOut", function() world.advance(2) end,
        { timeout = 1 })
      g:RunOnce("Running", inside)
    end

    it("GetStatus knows all five", function()
      for _, g in ipairs { guard, other } do
        one_of_each(g, function()
          for _, status in ipairs { "Idle", "Running", "Completed",
            "TimedOut", "Failed" } do
            assert.equal(status, g:GetStatus(status))
            assert.equal(status, g:GetRecord(status).status)
          end
        end)
        assert.equal("Completed", g:GetStatus "Running")
      end
    end)

    it("an unknown key is Idle and has no record", function()
      assert.equal("Idle", guard:GetStatus "k")
      assert.is_nil(guard:GetRecord "k")
      assert.is_nil(guard:GetResult "k")
      assert.is_false(guard:HasResult "k")
      assert.is_false(guard:IsLocked "k")
      guard:ClearResult "k"
      guard:Reset "k"
      assert.is_nil(guard:GetRecord "k")
      assert.is_nil(next(guard:GetAllRecords()))
    end)

    it("GetRecord has all fields of a run that succeeded", function()
      world.advance(5)
      guard:RunOnce("k", function()
        world.advance(2.5)
        return "done"
      end, { resultTtl = 10 })
      local record = guard:GetRecord "k"
      local token = record.token
      assert.equal("integer", math.type(token))
      assert.same({ key = "k", status = "Completed", executionCount = 1,
        token = token, locked = false, startTime = world.epoch + 5,
        endTime = world.epoch + 7.5,
        lastExecutionTime = world.epoch + 7.5, duration = 2.5,
        result = "done", expires = world.epoch + 17.5 }, bare(record))
    end)

    it("GetRecord counts and times all runs, those before a reset too",
       function()
      local function run(seconds, options, fails)
        guard:RunOnce("k", function()
          world.advance(seconds)
          if fails then error "boom" end
        end, options)
      end
      run(1)
      local record = guard:GetRecord "k"
      assert.same({ runs = 1, total = 1.0, p50 = 1.0, p95 = 1.0, p99 = 1.0 },
                  record.runTime)
      assert.same({ 0, 0, 0 }, { record.failed, record.timedOut, record.lost })
      local again = { allowRerun = true }
      run(2, again, true)
      run(3, { allowRerun = true, timeout = 2.5, interrupt = false })
      guard:RunOnce("k", function() guard:Reset "k" end, again)
      for _ = 1, 96 do run(4, again) end
      record = guard:GetRecord "k"
      assert.equal(100, record.executionCount)
      assert.same({ 1, 1, 1 }, { record.failed, record.timedOut, record.lost })
      local took = record.runTime
      assert.equal(99, took.runs)
      assert.equal(1 + 2 + 3 + 4 * 96, took.total)
      for _, field in ipairs { "p50", "p95", "p99" } do
        assert.near(4, took[field], 4 * 0.016)
      end
      local analytics = guard:GetAnalytics()
      assert.same({ 100, 1, 1, 1 }, { analytics.executions, analytics.failed,
        analytics.timedOut, analytics.lost })
      assert.same(took, analytics.runTime)
    end)

    it("GetRecord has all fields of a run that failed", function()
      guard:RunOnce("k", function()
        world.advance(1)
        error("boom", 0)
      end)
      local record = guard:GetRecord "k"
      assert.matches("^boom\nstack traceback:\n", record.error)
      record.error, record.token = nil, nil
      assert.same({ key = "k", status = "Failed", executionCount = 1,
        locked = false, startTime = world.epoch,
        endTime = world.epoch + 1, lastExecutionTime = world.epoch + 1,
        duration = 1.0 }, bare(record))
    end)

    it("GetRecord has all fields of one that timed out", function()
      guard:RunOnce("k", function() world.advance(2) end, { timeout = 1 })
      local record = guard:GetRecord "k"
      record.token, record.error = nil, nil
      assert.same({ key = "k", status = "TimedOut", executionCount = 1,
        locked = false, startTime = world.epoch,
        endTime = world.epoch + 2, lastExecutionTime = world.epoch + 2,
        duration = 2.0 }, bare(record))
    end)

    it("GetRecord has all fields of one that runs", function()
      local mine = world.new(way, { name = name, owner = "somebody" })
      mine:RunOnce("k", seven)
      world.advance(10)
      mine:RunOnce("k", function()
        world.advance(3)
        local record = other:GetRecord "k"
        local owner = record.owner
        assert.equal("somebody", owner.text)
        assert.equal(world.epoch + 10, owner.since)
        assert.equal("integer", math.type(owner.pid))
        assert.is_true(#owner.host > 0)
        record.owner, record.token = nil, nil
        assert.same({ key = "k", status = "Running", executionCount = 2,
          locked = true, startTime = world.epoch + 10,
          lastExecutionTime = world.epoch, result = 7 }, bare(record))
      end, { allowRerun = true })
      assert.is_nil(other:GetRecord("k").owner)
      mine:Close()
    end)

    it("the owner's text is that of the call, else of new", function()
      local mine = world.new(way, { name = name, owner = "of new" })
      mine:RunOnce("k", function()
        assert.equal("of the call", other:GetRecord("k").owner.text)
      end, { owner = "of the call" })
      mine:RunOnce("l", function()
        assert.equal("of new", other:GetRecord("l").owner.text)
      end)
      mine:Close()
    end)

    it("the owner's text is the process's name without both", function()
      other:RunOnce("k", function()
        local text = other:GetRecord("k").owner.text
        assert.is_true(#text > 0)
        assert.not_matches(" ", text)
      end)
    end)

    it("owners of a private guard are told as well", function()
      guard:RunOnce("k", function()
        local owner = guard:GetRecord("k").owner
        assert.equal("integer", math.type(owner.pid))
        assert.equal("me", owner.text)
      end, { owner = "me" })
    end)

    it("tokens are those of the grants", function()
      local inside
      guard:RunOnce("k", function()
        inside = guard:GetRecord("k").token
      end)
      assert.equal(inside, guard:GetRecord("k").token)
      local _, token = guard:AcquireLock "k"
      assert.is_true(token > inside)
      assert.equal(token, guard:GetRecord("k").token)
    end)

    it("records are snapshots", function()
      guard:RunOnce("k", boom)
      local record = guard:GetRecord "k"
      local all = guard:GetAllRecords()
      local analytics = guard:GetAnalytics()
      guard:RunOnce("k", seven)
      guard:RunOnce("l", seven)
      assert.equal("Failed", record.status)
      assert.equal("Failed", all.k.status)
      assert.is_nil(all.l)
      assert.equal(1, analytics.totalRecords)
      assert.equal(1, analytics.byStatus.Failed)
      record.status = "nonsense"
      all.k.executionCount = 99
      assert.equal("Completed", guard:GetStatus "k")
      assert.equal(2, guard:GetRecord("k").executionCount)
    end)

    it("GetAllRecords has each as GetRecord does", function()
      for _, g in ipairs { guard, other } do
        one_of_each(g, function()
          local n = 0
          for key, record in pairs(g:GetAllRecords()) do
            n = n + 1
            assert.same(g:GetRecord(key), record)
            assert.equal(key, record.key)
          end
          assert.equal(5, n)
        end)
      end
    end)

    it("the guide's loop runs as written", function()
      guard:RunOnce("a", seven)
      guard:RunOnce("b", seven)
      guard:RunOnce("c", seven)
      local seen = {}
      local records = guard:GetAllRecords()
      for key, record in records do
        seen[key] = record.result
      end
      assert.same({ a = 7, b = 7, c = 7 }, seen)
      for _ in records do
        seen.again = true
      end
      assert.is_true(seen.again)
      for _ in guard:GetAllRecords() do
        records = nil
      end
      assert.is_nil(records)
    end)

    it("refused and cached calls and waits are counted by key", function()
      for _ = 1, 3 do guard:RunOnce("a", seven) end
      guard:RunOnce("b", function()
        assert.equal("running", select(3, guard:RunOnce("b", never)))
      end)
      local none = { waits = 0, total = 0.0, p50 = 0.0, p95 = 0.0, p99 = 0.0 }
      local record = guard:GetRecord "a"
      assert.same({ 2, 0, none },
        { record.cached, record.blocked, record.waitTime })
      local analytics = guard:GetAnalytics()
      assert.same({ 2, 1 }, { analytics.cached, analytics.blocked })
      assert.equal(2, analytics.keys.a.cached)
      assert.equal(1, analytics.keys.a.runTime.runs)
      assert.is_nil(analytics.keys.never)
      assert.is_nil(analytics.keys[1])
      local seen = {}
      for key, counts in pairs(analytics.keys) do
        seen[key] = { counts.executions, counts.cached, counts.blocked }
      end
      assert.same({ a = { 1, 2, 0 }, b = { 1, 0, 1 } }, seen)
      guard:RunOnce("a", seven)
      assert.equal(2, analytics.keys.a.cached) -- a snapshot
      local looped = 0
      for _ in guard:GetAnalytics().keys do looped = looped + 1 end
      assert.equal(2, looped)
    end)

    it("an empty one loops not at all", function()
      for _ in guard:GetAllRecords() do
        error "there is none"
      end
    end)

    it("analytics loop too", function()
      local names = {}
      for field in guard:GetAnalytics() do names[#names + 1] = field end
      table.sort(names)
      assert.same({ "blocked", "byStatus", "cached", "executions", "failed",
        "global", "held", "keys", "lost", "runTime", "timedOut",
        "totalRecords", "waitTime" }, names)
      local statuses = 0
      for status, n in guard:GetAnalytics().byStatus do
        statuses = statuses + 1
        assert.equal(0, n)
        assert.equal("string", type(status))
      end
      assert.equal(5, statuses)
    end)

    it("GetAnalytics counts", function()
      for _, g in ipairs { guard, other } do
        one_of_each(g, function()
          local analytics = g:GetAnalytics()
          assert.equal(5, analytics.totalRecords)
          local by = analytics.byStatus
          for _, status in ipairs { "Idle", "Running", "Completed",
            "TimedOut", "Failed" } do
            assert.equal(1, by[status])
          end
        end)
        local fields = 0
        for field, n in pairs(g:GetAnalytics().global) do
          fields = fields + 1
          assert.equal("integer", math.type(n))
          assert.equal(n, world.EG.getGlobalStats()[field])
        end
        assert.equal(5, fields)
      end
    end)

    it("getGlobalStats counts over all guards", function()
      assert.same({ totalExecutions = 2, blockedExecutions = 1,
        cachedResults = 1, failedExecutions = 1 },
        world.counted(function()
          guard:RunOnce("k", seven)
          guard:RunOnce("k", never)
          other:RunOnce("k", boom)
          other:AcquireLock "k"
          other:RunOnce("k", never, { timeout = 0 })
        end))
    end)

    it("results: HasResult, GetResult, ClearResult", function()
      for _, g in ipairs { guard, other } do
        g:RunOnce("k", seven)
        assert.is_true(g:HasResult "k")
        assert.equal(7, g:GetResult "k")
        g:ClearResult "k"
        assert.is_false(g:HasResult "k")
        assert.is_nil(g:GetResult "k")
        assert.is_nil(g:GetRecord("k").result)
        assert.equal("Completed", g:GetStatus "k")
        assert.equal(1, g:GetRecord("k").executionCount)
        assert.same({ false, nil, "completed" },
          { g:RunOnce("k", never) })
      end
    end)

    it("ClearResult leaves lock, error and times", function()
      guard:RunOnce("k", boom)
      local before = guard:GetRecord "k"
      guard:AcquireLock "k"
      guard:ClearResult "k"
      assert.is_true(guard:IsLocked "k")
      guard:ReleaseLock "k"
      local after = guard:GetRecord "k"
      before.token, after.token = nil, nil
      assert.same(before, after)
    end)

    it("Reset: back to Idle, counts and last time stay", function()
      for _, g in ipairs { guard, other } do
        g:RunOnce("k", function()
          world.advance(1)
          return 7
        end)
        local stopped = g:GetRecord("k").endTime
        world.advance(5)
        g:Reset "k"
        local record = g:GetRecord "k"
        record.token = nil
        assert.same({ key = "k", status = "Idle", executionCount = 1,
          locked = false, lastExecutionTime = stopped }, bare(record))
        assert.is_false(g:HasResult "k")
        g:RunOnce("k", boom)
        g:Reset "k"
        record = g:GetRecord "k"
        assert.is_nil(record.error)
        assert.equal(2, record.executionCount)
        assert.equal(stopped + 5, record.lastExecutionTime)
      end
    end)

    it("history of counts over many runs and resets", function()
      for i = 1, 50 do
        guard:RunOnce("k", i % 3 == 0 and boom or seven,
          { allowRerun = true })
        local last = world.EG.now()
        local record = guard:GetRecord "k"
        assert.equal(i, record.executionCount)
        assert.equal(last, record.lastExecutionTime)
        world.advance(1)
        if i % 4 == 0 then guard:Reset "k" end
        record = guard:GetRecord "k"
        assert.equal(i, record.executionCount)
        assert.equal(last, record.lastExecutionTime)
      end
    end)

    it("lastExecutionTime stays while a rerun runs, also over Reset",
      function()
        guard:RunOnce("k", seven)
        world.advance(5)
        guard:RunOnce("k", function()
          assert.equal(world.epoch,
            guard:GetRecord("k").lastExecutionTime)
          world.advance(1)
          guard:Reset "k"
          local record = guard:GetRecord "k"
          assert.equal(world.epoch, record.lastExecutionTime)
          assert.equal(2, record.executionCount)
          assert.is_nil(record.startTime)
        end, { allowRerun = true })
        assert.equal(world.epoch, guard:GetRecord("k").lastExecutionTime)
      end)

    it("a Reset that ends a grant takes a new token", function()
      guard:RunOnce("k", function()
        local before = guard:GetRecord("k").token
        guard:Reset "k"
        assert.is_true(guard:GetRecord("k").token > before)
      end)
    end)

    it("ResetAll resets every record", function()
      for i = 1, 100 do
        guard:RunOnce("k" .. i, i % 2 == 0 and boom or seven)
      end
      guard:AcquireLock "k1"
      guard:ResetAll(world.all(way))
      assert.equal(100, guard:GetAnalytics().byStatus.Idle)
      assert.is_false(guard:IsLocked "k1")
      for i = 1, 100 do
        local record = guard:GetRecord("k" .. i)
        assert.equal(1, record.executionCount)
        assert.is_nil(record.result)
        assert.is_nil(record.error)
        assert.is_not_nil(record.lastExecutionTime)
      end
    end)

    it("ResetAll of a shared guard needs force", function()
      other:RunOnce("k", seven)
      for _, options in ipairs { {}, { force = false } } do
        assert.matches("force = true",
          world.message(other.ResetAll, other, options))
      end
      assert.matches("ResetAll", world.message(other.ResetAll, other))
      assert.equal(7, other:GetResult "k")
      other:ResetAll { force = true }
      assert.equal("Idle", other:GetStatus "k")
    end)

    it("a named guard's records outlive it", function()
      local mine = world.new(way, { name = name })
      mine:RunOnce("k", seven)
      mine:Close()
      assert.equal(7, other:GetResult "k")
      local later = world.new(way, { name = name })
      assert.same({ true, 7, "cached" }, { later:RunOnce("k", never) })
      later:Close()
    end)

    it("many records", function()
      local n = world.scaled(20000)
      for i = 1, n do guard:RunOnce("k" .. i, seven) end
      assert.equal(n, guard:GetAnalytics().totalRecords)
      local seen = 0
      for key, record in pairs(guard:GetAllRecords()) do
        seen = seen + 1
        assert(record.result == 7 and record.key == key)
      end
      assert.equal(n, seen)
    end)

    it("a guard has a text: private, shared, closed", function()
      assert.matches("ExecutionGuard", tostring(guard))
      assert.matches(way.files and "shared" or "private", tostring(guard))
      assert.matches("shared", tostring(other))
      local mine = world.new(way)
      mine:Close()
      assert.matches("closed", tostring(mine))
    end)
  end)
end
