-- SPDX-License-Identifier: MIT
-- Guarded functions that yield: in place, through RunOnce, as if it were not
-- there; and what becomes of those that are never resumed.

local world = require "support.world"

local yield = coroutine.yield

local function never() error("fn was called", 0) end
local function seven() return 7 end

for _, way in ipairs(world.ways) do
  describe("a coroutine " .. way.name .. ":", function()
    local guard

    before_each(function()
      world.start(true)
      guard = world.new(way)
    end)

    after_each(function()
      guard:Close()
      world.stop()
    end)

    -- A coroutine that runs fn once.
    local function run(key, fn, options, g)
      return coroutine.create(function()
        return (g or guard):RunOnce(key, fn, options)
      end)
    end

    local function resumed(co, ...)
      local answers = table.pack(coroutine.resume(co, ...))
      assert.is_true(answers[1], tostring(answers[2]))
      return table.unpack(answers, 2, answers.n)
    end

    it("values pass both ways", function()
      local co = run("k", function()
        local a, b = yield(1, nil, 3)
        assert.equal("a", a)
        assert.is_nil(b)
        local n = select("#", yield())
        return n
      end)
      assert.same({ 1, nil, 3 }, { resumed(co) })
      assert.equal(0, select("#", resumed(co, "a", nil)))
      assert.same({ true, 4 }, { resumed(co, 1, nil, 3, nil) })
      assert.equal("dead", coroutine.status(co))
      assert.equal(4, guard:GetResult "k")
    end)

    it("coroutine.running() is the same inside", function()
      local inside
      local co = run("k", function()
        inside = coroutine.running()
        yield()
        assert.equal(inside, (coroutine.running()))
        assert.is_true(coroutine.isyieldable())
      end)
      resumed(co)
      resumed(co)
      assert.equal(co, inside)
      assert.equal("Completed", guard:GetStatus "k")
    end)

    it("the main coroutine stays not yieldable", function()
      local ok, err, why = guard:RunOnce("k", function()
        yield()
      end)
      if select(2, coroutine.running()) then
        assert.is_false(ok)
        assert.matches("yield", err)
        assert.equal("failed", why)
      end
    end)

    it("the record is Running and the key locked meanwhile", function()
      local co = run("k", yield)
      resumed(co)
      assert.equal("Running", guard:GetStatus "k")
      assert.is_true(guard:IsLocked "k")
      assert.same({ false, nil, "running" }, { guard:RunOnce("k", never) })
      assert.same({ false, "locked" }, { guard:AcquireLock("k", 0) })
      assert.same({ false, "deadlock" }, { guard:AcquireLock("k", 5) })
      assert.is_false(guard:ReleaseLock "k")
      resumed(co)
      assert.is_false(guard:IsLocked "k")
    end)

    it("another coroutine is told running", function()
      local co = run("k", yield)
      resumed(co)
      assert.same({ false, nil, "running" }, { resumed(run("k", never)) })
      resumed(co, 5)
      assert.same({ true, 5, "cached" }, { resumed(run("k", never)) })
    end)

    it("many yields, in a loop", function()
      local co = run("k", function()
        local sum = 0
        for _ = 1, 1000 do sum = sum + yield(sum) end
        return sum
      end)
      resumed(co)
      for _ = 1, 999 do resumed(co, 1) end
      assert.same({ true, 1000 }, { resumed(co, 1) })
    end)

    it("an error after a yield", function()
      local err = { "an object" }
      local co = run("k", function()
        yield()
        error(err)
      end)
      resumed(co)
      local ok, found, why
      assert.same({ failedExecutions = 1 }, world.counted(function()
        ok, found, why = resumed(co)
      end))
      assert.is_false(ok)
      assert.is_true(rawequal(err, found))
      assert.equal("failed", why)
      assert.is_false(guard:IsLocked "k")
      local record = guard:GetRecord "k"
      assert.equal("Failed", record.status)
      assert.matches("stack traceback:", record.error, 1, true)
      assert.matches("coroutine_spec.lua", record.error, 1, true)
    end)

    it("no memory, stack overflow after a yield", function()
      local function deep() return 1 + deep() end
      local co = run("k", function()
        yield()
        deep()
      end)
      resumed(co)
      local ok, err, why = resumed(co)
      assert.is_false(ok)
      assert.matches("stack overflow", err)
      assert.equal("failed", why)
      assert.is_false(guard:IsLocked "k")
    end)

    it("errors of interleaved runs stay apart", function()
      local a = run("a", function() yield() error("of a", 0) end)
      local b = run("b", function() yield() error("of b", 0) end)
      resumed(a)
      resumed(b)
      resumed(a)
      resumed(b)
      assert.matches("^of a\n", guard:GetRecord("a").error)
      assert.matches("^of b\n", guard:GetRecord("b").error)
    end)

    it("nested guards, and yields at every depth", function()
      local co = coroutine.wrap(function()
        return guard:RunOnce("outer", function()
          local a = yield "outer 1"
          local _, b = guard:RunOnce("inner", function()
            local c = yield "inner"
            local _, d = guard:RunOnce("innermost", function()
              return yield "innermost"
            end)
            return c .. d
          end)
          return a .. b .. yield "outer 2"
        end)
      end)
      assert.equal("outer 1", co())
      assert.equal("inner", co "a")
      assert.equal("innermost", co "b")
      for _, key in ipairs { "outer", "inner", "innermost" } do
        assert.equal("Running", guard:GetStatus(key))
      end
      assert.equal("outer 2", co "c")
      assert.equal("Completed", guard:GetStatus "inner")
      assert.same({ true, "abcd" }, { co "d" })
    end)

    it("the key itself, nested over a yield", function()
      local co = run("k", function()
        yield()
        return select(3, guard:RunOnce("k", never))
      end)
      resumed(co)
      assert.same({ true, "running" }, { resumed(co) })
    end)

    it("inside of pcall, and pcall inside", function()
      local co = coroutine.create(function()
        return pcall(guard.RunOnce, guard, "k", function()
          local ok, err = pcall(function()
            yield()
            error("caught", 0)
          end)
          assert(not ok)
          yield()
          return err
        end)
      end)
      resumed(co)
      resumed(co)
      assert.same({ true, true, "caught" }, { resumed(co) })
    end)

    it("coroutine.wrap, and a coroutine inside of fn", function()
      local co = coroutine.wrap(function()
        return guard:RunOnce("k", function()
          local inner = coroutine.wrap(function()
            yield(1)
            yield(2)
          end)
          return inner() + inner() + yield()
        end)
      end)
      co()
      assert.same({ true, 8 }, { co(5) })
    end)

    it("resumed by another coroutine than the one that began", function()
      local co = run("k", function()
        yield()
        return "done"
      end)
      coroutine.wrap(function() resumed(co) end)()
      coroutine.wrap(function()
        assert.same({ true, "done" }, { resumed(co) })
      end)()
      assert.equal("done", guard:GetResult "k")
    end)

    it("values of any kind after a yield", function()
      local named = world.new(way, { name = world.name() })
      for i, value in ipairs { 1, "text", false, { 1, { 2 } } } do
        local co = run("k" .. i, function()
          yield()
          return value
        end, nil, named)
        resumed(co)
        assert.same({ true, value }, { resumed(co) })
        assert.same(value, named:GetResult("k" .. i))
      end
      local co = run("bad", function()
        yield()
        return print
      end, nil, named)
      resumed(co)
      assert.equal("failed", select(3, resumed(co)))
      assert.equal("Failed", named:GetStatus "bad")
      named:Close()
    end)

    it("options of a call hold over a yield", function()
      local co = run("k", function()
        yield()
        return 7
      end, { cacheResult = false, cooldown = 10, owner = "me" })
      resumed(co)
      assert.equal("me", guard:GetRecord("k").owner.text)
      world.collect()
      for i = 1, 100 do
        guard:RunOnce("other" .. i, seven, { timeout = 5, owner = "o" .. i })
      end
      assert.same({ true, 7 }, { resumed(co) })
      assert.is_nil(guard:GetResult "k")
      assert.equal("cooldown", select(3, guard:RunOnce("k", never,
        { allowRerun = true })))
    end)

    it("a timeout over a yield", function()
      local called = {}
      local co = run("k", function()
        yield()
        return "too late"
      end, { timeout = 1, onTimeout = function(key)
        called[#called + 1] = key
      end })
      resumed(co)
      world.advance(1)
      assert.same({ false, nil, "timeout" }, { resumed(co) })
      assert.same({ "k" }, called)
      assert.equal("TimedOut", guard:GetStatus "k")
      assert.is_nil(guard:GetResult "k")
    end)

    it("in time over a yield", function()
      local co = run("k", function()
        yield()
        return "in time"
      end, { timeout = 1 })
      resumed(co)
      world.advance(1 - world.us)
      assert.same({ true, "in time" }, { resumed(co) })
    end)

    it("a reset over a yield", function()
      local called = {}
      local co = run("k", function()
        yield()
        return 1
      end, { onLost = function(key) called[#called + 1] = key end })
      resumed(co)
      guard:Reset "k"
      local _, token = guard:AcquireLock "k"
      assert.same({ false, nil, "lost" }, { resumed(co) })
      assert.same({ "k" }, called)
      assert.is_true(guard:ReleaseLock("k", token))
    end)

    it("expired() follows its own coroutine", function()
      local function ask() return world.EG.expired() end
      local late = run("late", function()
        assert.is_false(ask())
        yield()
        return ask()
      end, { timeout = 1 })
      local fine = run("fine", function()
        yield()
        return ask()
      end, { timeout = 100 })
      resumed(late)
      resumed(fine)
      world.advance(1)
      assert.is_false(ask())
      assert.same({ true, false }, { resumed(fine) })
      assert.equal("timeout", select(3, resumed(late)))
    end)

    it("retry over yields", function()
      local calls = 0
      local co
      local counted = world.counted(function()
        co = run("k", function()
          calls = calls + 1
          local answer = yield(calls)
          if answer == "fail" then
            error("attempt " .. calls, 0)
          end
          return answer
        end, { retry = { attempts = 3, delay = 1, factor = 1,
          jitter = false } })
        assert.equal(1, resumed(co))
        assert.equal(2, resumed(co, "fail"))
        assert.equal("Running", guard:GetStatus "k")
        assert.equal(3, resumed(co, "fail"))
        assert.same({ true, "fine" }, { resumed(co, "fine") })
      end)
      assert.same({ totalExecutions = 1 }, counted)
      assert.equal(1, guard:GetRecord("k").executionCount)
      assert.equal(2.0, guard:GetRecord("k").duration)
    end)

    it("retry over yields gives up", function()
      local co = run("k", function()
        yield()
        error("again", 0)
      end, { retry = { attempts = 2, delay = 0 } })
      resumed(co)
      resumed(co)
      assert.same({ false, "again", "failed" }, { resumed(co) })
    end)

    it("retry: yields, and an error without one, mixed", function()
      local calls = 0
      local co = run("k", function()
        calls = calls + 1
        if calls % 2 == 1 then yield(calls) end
        if calls < 5 then error "again" end
        return calls
      end, { retry = { attempts = 10, delay = 0 } })
      assert.equal(1, resumed(co))
      assert.equal(3, resumed(co))
      assert.equal(5, resumed(co))
      assert.same({ true, 5 }, { resumed(co) })
    end)

    describe("that is never resumed:", function()
      local function abandoned(g, key)
        assert.is_false(g:IsLocked(key))
        assert.equal("Failed", g:GetStatus(key))
        assert.equal("abandoned", g:GetRecord(key).error)
      end

      it("closed: Failed, abandoned, the lock free", function()
        local co = run("k", yield)
        resumed(co)
        assert.same({ failedExecutions = 1 }, world.counted(function()
          assert.is_true(coroutine.close(co))
        end))
        abandoned(guard, "k")
        assert.is_true((guard:RunOnce("k", seven)))
      end)

      it("collected: the same", function()
        do
          local co = run("k", yield)
          resumed(co)
        end
        assert.same({ failedExecutions = 1 },
          world.counted(world.collect))
        abandoned(guard, "k")
      end)

      it("collected with its guard: another guard sees it", function()
        local name = world.name()
        local other = world.new(way, { name = name })
        do
          local mine = world.new(way, { name = name })
          local co = run("k", yield, nil, mine)
          resumed(co)
          assert.is_true(other:IsLocked "k")
        end
        world.collect()
        assert.is_false(other:IsLocked "k")
        assert.equal("Failed", other:GetStatus "k")
        other:Close()
      end)

      it("closed at depth: every one, and <close> variables first",
        function()
          local seen = {}
          local co = coroutine.create(function()
            guard:RunOnce("outer", function()
              guard:RunOnce("inner", function()
                local _ <close> = setmetatable({}, {
                  __close = function()
                    seen[1] = guard:GetStatus "inner"
                    seen[2] = guard:GetStatus "outer"
                  end })
                yield()
              end)
            end)
          end)
          resumed(co)
          coroutine.close(co)
          assert.same({ "Running", "Running" }, seen)
          abandoned(guard, "inner")
          abandoned(guard, "outer")
        end)

      it("closed after a reset: nothing of it lands", function()
        local co = run("k", yield)
        resumed(co)
        guard:Reset "k"
        guard:AcquireLock "k"
        assert.same({}, world.counted(coroutine.close, co))
        assert.is_true(guard:IsLocked "k")
        assert.equal("Idle", guard:GetStatus "k")
      end)

      it("closed too late: TimedOut", function()
        local co = run("k", yield, { timeout = 1 })
        resumed(co)
        world.advance(1)
        coroutine.close(co)
        assert.equal("TimedOut", guard:GetStatus "k")
        assert.is_false(guard:IsLocked "k")
      end)

      it("closed after its guard: nothing happens", function()
        local mine = world.new(way)
        local co = run("k", yield, nil, mine)
        resumed(co)
        mine:Close()
        assert.is_true(coroutine.close(co))
      end)

      it("resumed after its guard was closed: lost", function()
        local mine = world.new(way)
        local co = run("k", yield, nil, mine)
        resumed(co)
        mine:Close()
        assert.same({ false, nil, "lost" }, { resumed(co) })
      end)

      it("errorTtl and cooldown hold for it", function()
        local co = run("k", yield, { errorTtl = 10 })
        resumed(co)
        coroutine.close(co)
        assert.same({ false, "abandoned", "failed", 10.0 },
          { guard:RunOnce("k", never) })
      end)

      it("an error in a __close of fn does not keep the lock", function()
        local co = run("k", function()
          local _ <close> = setmetatable({}, { __close = function()
            error("on the way out", 0)
          end })
          yield()
        end)
        resumed(co)
        local ok, err = coroutine.close(co)
        assert.is_false(ok)
        assert.equal("on the way out", err)
        assert.is_false(guard:IsLocked "k")
        assert.equal("Failed", guard:GetStatus "k")
      end)
    end)

    it("many suspended runs at once, then all closed", function()
      local n = world.scaled(10000)
      local all = {}
      for i = 1, n do
        all[i] = run("k" .. i, yield)
        coroutine.resume(all[i])
      end
      local by = guard:GetAnalytics().byStatus
      assert.equal(n, by.Running)
      assert.same({ failedExecutions = n }, world.counted(function()
        for i = 1, n do coroutine.close(all[i]) end
      end))
      by = guard:GetAnalytics().byStatus
      assert.equal(n, by.Failed)
      assert.equal(0, by.Running)
      for i = 1, n do assert(not guard:IsLocked("k" .. i)) end
    end)

    it("many suspended runs, resumed in another order", function()
      local n = world.scaled(10000)
      local all = {}
      for i = 1, n do
        all[i] = run("k" .. i, function() return yield() end)
        coroutine.resume(all[i])
      end
      math.randomseed(7)
      local order = {}
      for i = 1, n do table.insert(order, math.random(i), i) end
      for _, i in ipairs(order) do
        local ok, success, value = coroutine.resume(all[i], i)
        assert(ok and success and value == i)
      end
      assert.equal(n, guard:GetAnalytics().byStatus.Completed)
    end)

    it("many suspended runs collected at once", function()
      local n = world.scaled(2000)
      do
        local all = {}
        for i = 1, n do
          all[i] = run("k" .. i, yield)
          coroutine.resume(all[i])
        end
      end
      world.collect()
      assert.equal(n, guard:GetAnalytics().byStatus.Failed)
    end)

    it("many suspended runs, and the guard closed under them", function()
      local mine = world.new(way)
      local n = world.scaled(1000)
      local all = {}
      for i = 1, n do
        all[i] = run("k" .. i, yield, nil, mine)
        coroutine.resume(all[i])
      end
      mine:Close()
      for i = 1, n do
        if i % 2 == 0 then
          coroutine.close(all[i])
        else
          assert.equal("lost", select(4, coroutine.resume(all[i])))
        end
      end
      world.collect()
    end)

    it("a run that is used again is as good as new", function()
      local co = coroutine.wrap(function()
        for i = 1, world.scaled(2000) do
          local key = "k" .. i % 7
          local ok, result = guard:RunOnce(key, function()
            if i % 3 == 0 then yield() end
            if i % 5 == 0 then error("five", 0) end
            return i
          end, { allowRerun = true, timeout = i % 2 == 0 and 5 or nil })
          assert(ok == (i % 5 ~= 0))
          assert(result == (i % 5 == 0 and "five" or i))
          if i % 100 == 0 then collectgarbage() end
        end
        return "end"
      end)
      local answer
      repeat answer = co() until answer == "end"
    end)

    it("a run that is used again, nested and interleaved", function()
      local function job(key)
        return coroutine.wrap(function()
          for i = 1, 50 do
            guard:RunOnce(key, function()
              yield(i)
              return (select(2, guard:RunOnce(key .. "/inner", function()
                yield(i)
                return i
              end, { allowRerun = true })))
            end, { allowRerun = true })
            assert(guard:GetResult(key) == i)
          end
          return "end"
        end)
      end
      local jobs = {}
      for i = 1, 20 do jobs[i] = job("k" .. i) end
      local ended = 0
      while ended < 20 do
        for i = 1, 20 do
          if jobs[i] and jobs[i]() == "end" then
            jobs[i], ended = nil, ended + 1
          end
        end
      end
    end)

    it("closed, and its run not used again while it is open", function()
      local first = run("a", yield)
      resumed(first)
      resumed(run("b", seven))
      local second = run("c", yield)
      resumed(second)
      coroutine.close(first)
      assert.equal("Running", guard:GetStatus "c")
      assert.same({ true, 9 }, { resumed(second, 9) })
    end)

    it("shield passes yields through", function()
      local co = coroutine.create(function()
        return world.EG.shield(function(a)
          return a, yield "out"
        end, 1)
      end)
      assert.equal("out", resumed(co))
      assert.same({ 1, 2 }, { resumed(co, 2) })
    end)

    it("locks taken in fn and in the coroutine are closed", function()
      local co = coroutine.create(function()
        local lock <close> = guard:Lock "l"
        assert(lock)
        guard:RunOnce("k", function()
          local inner <close> = guard:Lock "m"
          assert(inner)
          yield()
        end)
      end)
      resumed(co)
      assert.is_true(guard:IsLocked "l" and guard:IsLocked "m")
      coroutine.close(co)
      for _, key in ipairs { "k", "l", "m" } do
        assert.is_false(guard:IsLocked(key))
      end
    end)
  end)
end
