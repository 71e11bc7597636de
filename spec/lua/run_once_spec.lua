-- SPDX-License-Identifier: MIT
-- RunOnce: every row of its table in the design; results, reasons, counters
-- and what is left in the record.

local world = require "support.world"
local process = require "support.process"

local function seven() return 7 end
local function boom() error("boom", 0) end
local function none() end

local function never()
  error("fn was called", 0)
end

for _, way in ipairs(world.ways) do
  describe("RunOnce " .. way.name .. ":", function()
    local guard

    -- What RunOnce returns, with their number.
    local function run(...)
      return table.pack(guard:RunOnce(...))
    end

    local function returns(expected, found)
      assert.equal(expected.n or #expected, found.n)
      for i = 1, found.n do
        assert.equal(expected[i], found[i])
      end
    end

    before_each(function()
      world.start(true)
      guard = world.new(way)
    end)

    after_each(function()
      guard:Close()
      world.stop()
    end)

    describe("the table:", function()
      it("Idle: runs fn, and counts an execution", function()
        local found
        local counted = world.counted(function()
          found = run("k", seven)
        end)
        returns({ true, 7 }, found)
        assert.same({ totalExecutions = 1 }, counted)
        local record = guard:GetRecord "k"
        assert.equal("Completed", record.status)
        assert.equal(1, record.executionCount)
        assert.equal(7, record.result)
        assert.is_false(record.locked)
      end)

      it("Completed with a result: returns it as cached", function()
        guard:RunOnce("k", seven)
        local found
        local counted = world.counted(function()
          found = run("k", never)
        end)
        returns({ true, 7, "cached" }, found)
        assert.same({ cachedResults = 1 }, counted)
        assert.equal(1, guard:GetRecord("k").executionCount)
      end)

      it("Completed, false is a result to reuse", function()
        guard:RunOnce("k", function() return false end)
        returns({ true, false, "cached" }, run("k", never))
        assert.is_true(guard:HasResult "k")
      end)

      it("Completed with nil: nothing runs", function()
        returns({ true, nil, n = 2 }, run("k", none))
        local found
        local counted = world.counted(function()
          found = run("k", never)
        end)
        returns({ false, nil, "completed" }, found)
        assert.same({ blockedExecutions = 1 }, counted)
        assert.is_false(guard:HasResult "k")
      end)

      it("Completed, cacheResult off: its result is not returned", function()
        guard:RunOnce("k", seven)
        returns({ false, nil, "completed" },
          run("k", never, { cacheResult = false }))
        returns({ true, 7, "cached" }, run("k", never))
      end)

      it("Completed stays answered while the key is locked", function()
        guard:RunOnce("k", seven)
        assert.is_true(guard:AcquireLock "k")
        returns({ true, 7, "cached" }, run("k", never))
        assert.equal("Completed", guard:GetStatus "k")
      end)

      it("Running: refused at once, whatever the timeout", function()
        local inner, counted
        guard:RunOnce("k", function()
          counted = world.counted(function()
            inner = run("k", never, { timeout = 100 })
          end)
        end)
        returns({ false, nil, "running" }, inner)
        assert.same({ blockedExecutions = 1 }, counted)
        assert.equal(1, guard:GetRecord("k").executionCount)
      end)

      it("Running, allowRerun does not help", function()
        local inner
        guard:RunOnce("k", function()
          inner = run("k", never, { allowRerun = true })
        end)
        returns({ false, nil, "running" }, inner)
      end)

      it("locked, timeout 0: locked, and an Idle record is left", function()
        guard:AcquireLock "k"
        assert.is_nil(guard:GetRecord "k")
        local found
        local counted = world.counted(function()
          found = run("k", never, { timeout = 0 })
        end)
        returns({ false, nil, "locked" }, found)
        assert.same({ blockedExecutions = 1 }, counted)
        local record = guard:GetRecord "k"
        assert.equal("Idle", record.status)
        assert.equal(0, record.executionCount)
        assert.is_true(record.locked)
        guard:ReleaseLock "k"
        assert.equal("Idle", guard:GetRecord("k").status)
      end)

      it("locked by this very state: deadlock, and no time passes",
        function()
          guard:AcquireLock "k"
          local before = world.steady()
          local found
          local counted = world.counted(function()
            found = run("k", never, { timeout = 5 })
          end)
          returns({ false, nil, "deadlock" }, found)
          assert.same({ blockedExecutions = 1 }, counted)
          assert.equal(before, world.steady())
          assert.equal(0, guard:GetRecord("k").executionCount)
        end)

      it("cooling down: refused with the seconds left", function()
        guard:RunOnce("k", seven, { cooldown = 10 })
        world.advance(4)
        local before = world.steady()
        local found
        local counted = world.counted(function()
          found = run("k", never, { allowRerun = true })
        end)
        returns({ false, nil, "cooldown", 6.0 }, found)
        assert.same({ blockedExecutions = 1 }, counted)
        assert.equal(before, world.steady())
      end)

      it("Failed while errorTtl runs: text without traceback, seconds left",
        function()
          guard:RunOnce("k", boom, { errorTtl = 10 })
          world.advance(3)
          local found
          local counted = world.counted(function()
            found = run("k", never)
          end)
          returns({ false, "boom", "failed", 7.0 }, found)
          assert.same({ blockedExecutions = 1 }, counted)
        end)

      it("Failed: runs again", function()
        returns({ false, "boom", "failed" }, run("k", boom))
        returns({ true, 7 }, run("k", seven))
        assert.equal(2, guard:GetRecord("k").executionCount)
      end)

      it("TimedOut: runs again", function()
        local function late() world.advance(2) end
        returns({ false, nil, "timeout" }, run("k", late, { timeout = 1 }))
        returns({ true, 7 }, run("k", seven))
      end)

      it("Completed with allowRerun: runs again", function()
        guard:RunOnce("k", seven)
        returns({ true, 8 }, run("k", function()
          return 8
        end, { allowRerun = true }))
        returns({ true, 8, "cached" }, run("k", never))
        assert.equal(2, guard:GetRecord("k").executionCount)
      end)

      it("Completed with an expired result: runs again", function()
        guard:RunOnce("k", seven, { resultTtl = 5 })
        world.advance(5)
        assert.is_nil(guard:GetResult "k")
        returns({ true, 8 }, run("k", function() return 8 end))
      end)

      it("failed: counted as execution and as failed", function()
        assert.same({ totalExecutions = 1, failedExecutions = 1 },
          world.counted(run, "k", boom))
      end)

      it("timed out: counted as execution and as timed out", function()
        local function late() world.advance(2) end
        assert.same({ totalExecutions = 1, timedOutExecutions = 1 },
          world.counted(run, "k", late, { timeout = 1 }))
      end)

      it("reset meanwhile: lost, counted as execution alone", function()
        local found
        local counted = world.counted(function()
          found = run("k", function()
            guard:Reset "k"
            return 7
          end)
        end)
        returns({ false, nil, "lost" }, found)
        assert.same({ totalExecutions = 1 }, counted)
        local record = guard:GetRecord "k"
        assert.equal("Idle", record.status)
        assert.equal(1, record.executionCount)
        assert.is_nil(record.result)
      end)

      it("reset meanwhile, and then an error: lost too", function()
        local found
        local counted = world.counted(function()
          found = run("k", function()
            guard:Reset "k"
            error "no matter"
          end)
        end)
        returns({ false, nil, "lost" }, found)
        assert.same({ totalExecutions = 1 }, counted)
        assert.equal("Idle", guard:GetStatus "k")
      end)
    end)

    describe("results:", function()
      local values = { true, 0, -1, 1.5, math.huge, "", "text" }
      local kinds = { 1, "text", 7, false, 2.5, "x", true, "", 3 }
      if not way.files then -- what does not leave a process
        table.move({ {}, print, coroutine.create(none), io.stdout }, 1, 4, 8,
          values)
        kinds[3], kinds[6] = {}, {}
      end

      it("of any type come back, first and cached", function()
        for i, value in ipairs(values) do
          local key = "k" .. i
          returns({ true, value }, run(key, function() return value end))
          returns({ true, value, "cached" }, run(key, never))
          assert.is_true(rawequal(value, guard:GetResult(key)))
        end
      end)

      it("fn gets no arguments, its first result counts", function()
        local given
        returns({ true, 1 }, run("k", function(...)
          given = select("#", ...)
          return 1, 2, 3
        end))
        assert.equal(0, given)
      end)

      it("a callable table is a function", function()
        local callable = setmetatable({}, { __call = function(_, ...)
          return select("#", ...)
        end })
        returns({ true, 0 }, run("k", callable))
      end)

      it("cacheResult off: returned and not stored", function()
        returns({ true, 7 }, run("k", seven, { cacheResult = false }))
        assert.is_false(guard:HasResult "k")
        assert.is_nil(guard:GetResult "k")
        returns({ false, nil, "completed" }, run("k", never))
      end)

      it("cacheResult off: one stored earlier stays", function()
        for i, value in ipairs(values) do
          local key = "k" .. i
          guard:RunOnce(key, function() return value end)
          returns({ true, "new" }, run(key, function()
            return "new"
          end, { cacheResult = false, allowRerun = true }))
          returns({ true, value, "cached" }, run(key, never))
        end
      end)

      it("a rerun that returns nil clears the result", function()
        for i, value in ipairs(values) do
          local key = "k" .. i
          guard:RunOnce(key, function() return value end)
          returns({ true, nil, n = 2 },
            run(key, none, { allowRerun = true }))
          assert.is_false(guard:HasResult(key))
          returns({ false, nil, "completed" }, run(key, never))
        end
      end)

      it("a failing rerun keeps the result", function()
        for i, value in ipairs(values) do
          local key = "k" .. i
          guard:RunOnce(key, function() return value end)
          returns({ false, "boom", "failed" },
            run(key, boom, { allowRerun = true }))
          assert.equal("Failed", guard:GetStatus(key))
          assert.is_true(rawequal(value, guard:GetResult(key)))
          assert.is_true(guard:HasResult(key))
        end
      end)

      it("a rerun that times out keeps the result", function()
        guard:RunOnce("k", seven)
        run("k", function() world.advance(2) return 8 end,
          { allowRerun = true, timeout = 1 })
        assert.equal("TimedOut", guard:GetStatus "k")
        assert.equal(7, guard:GetResult "k")
      end)

      it("a failing rerun drops one that had a resultTtl", function()
        guard:RunOnce("k", seven, { resultTtl = 100 })
        run("k", boom, { allowRerun = true })
        assert.is_false(guard:HasResult "k")
      end)

      it("stay visible while a rerun runs", function()
        guard:RunOnce("k", seven)
        local inside
        guard:RunOnce("k", function()
          inside = guard:GetResult "k"
          return 8
        end, { allowRerun = true })
        assert.equal(7, inside)
        assert.equal(8, guard:GetResult "k")
      end)

      it("change their type at a rerun", function()
        for _, value in ipairs(kinds) do
          guard:RunOnce("k", function() return value end,
            { allowRerun = true })
          returns({ true, value, "cached" }, run("k", never))
        end
      end)
    end)

    describe("while fn runs", function()
      it("the key is locked and the record Running", function()
        local record
        guard:RunOnce("k", function()
          assert.is_true(guard:IsLocked "k")
          assert.equal("Running", guard:GetStatus "k")
          record = guard:GetRecord "k"
        end)
        assert.equal("Running", record.status)
        assert.is_true(record.locked)
        assert.equal(world.epoch, record.startTime)
        assert.is_nil(record.endTime)
        assert.is_false(guard:IsLocked "k")
      end)

      it("other keys run, nested", function()
        local deepest = 0
        local function nest(n)
          deepest = n
          if n < 50 then
            returns({ true, n }, run("k" .. n, function()
              nest(n + 1)
              return n
            end))
          end
        end
        nest(1)
        assert.equal(50, deepest)
      end)

      it("its lock is refused: locked, or deadlock for a wait", function()
        guard:RunOnce("k", function()
          returns({ false, "locked", n = 2 },
            table.pack(guard:AcquireLock("k", 0)))
          returns({ false, "deadlock", n = 2 },
            table.pack(guard:AcquireLock("k", 5)))
        end)
        assert.equal("Completed", guard:GetStatus "k")
      end)

      it("ReleaseLock does not free it", function()
        guard:RunOnce("k", function()
          local token = guard:GetRecord("k").token
          assert.is_false(guard:ReleaseLock "k")
          assert.is_false(guard:ReleaseLock("k", token))
          assert.is_true(guard:IsLocked "k")
        end)
        assert.equal("Completed", guard:GetStatus "k")
      end)

      it("ClearResult leaves the run alone", function()
        guard:RunOnce("k", seven)
        returns({ true, 8 }, run("k", function()
          guard:ClearResult "k"
          assert.is_false(guard:HasResult "k")
          return 8
        end, { allowRerun = true }))
        assert.equal(8, guard:GetResult "k")
      end)
    end)

    describe("reset inside of fn:", function()
      it("a lock taken meanwhile stays with its taker", function()
        local token
        returns({ false, nil, "lost" }, run("k", function()
          guard:Reset "k"
          assert.is_false(guard:IsLocked "k")
          local ok
          ok, token = guard:AcquireLock("k", 0)
          assert.is_true(ok)
          return 1
        end))
        assert.is_true(guard:IsLocked "k")
        assert.equal("Idle", guard:GetStatus "k")
        assert.is_true(guard:ReleaseLock("k", token))
      end)

      it("a run started meanwhile keeps its own outcome", function()
        returns({ false, nil, "lost" }, run("k", function()
          guard:Reset "k"
          returns({ true, "second" }, run("k", function()
            return "second"
          end))
          return "first"
        end))
        assert.equal("second", guard:GetResult "k")
        assert.equal(2, guard:GetRecord("k").executionCount)
      end)

      it("a run that is still going on is not ended", function()
        local co
        returns({ false, nil, "lost" }, run("k", function()
          guard:Reset "k"
          co = coroutine.create(function()
            return guard:RunOnce("k", function()
              coroutine.yield()
              return "second"
            end)
          end)
          coroutine.resume(co)
          return "first"
        end))
        assert.equal("Running", guard:GetStatus "k")
        assert.same({ true, true, "second" }, { coroutine.resume(co) })
        assert.equal("second", guard:GetResult "k")
      end)

      it("an opaque value that is refused never shows", function()
        local value = {}
        run("k", function()
          guard:Reset "k"
          return value
        end)
        assert.is_nil(guard:GetResult "k")
        assert.is_false(guard:HasResult "k")
      end)

      it("ResetAll does it too", function()
        returns({ false, nil, "lost" }, run("k", function()
          guard:ResetAll(world.all(way))
          return 1
        end))
        assert.equal("Idle", guard:GetStatus "k")
      end)

      it("retry does not start fn again: the key is not its own any more",
        function()
          local calls = 0
          returns({ false, nil, "lost" }, run("k", function()
            calls = calls + 1
            guard:Reset "k"
            error "again?"
          end, { retry = { attempts = 5, delay = 1, jitter = false } }))
          assert.equal(1, calls)
        end)
    end)

    describe("the guard closed inside of fn:", function()
      it("lost, and nothing crashes", function()
        local mine = world.new(way)
        local lost = 0
        local found = table.pack(mine:RunOnce("k", function()
          mine:Close()
          return 1
        end, { onLost = function() lost = lost + 1 end }))
        returns({ false, nil, "lost" }, found)
        assert.is_true(lost <= 1)
      end)

      it("lost after an error too", function()
        local mine = world.new(way)
        returns({ false, nil, "lost" }, table.pack(mine:RunOnce("k",
          function()
            mine:Close()
            error "x"
          end)))
      end)

      it("a shared record then says that its owner died", function()
        local name = world.name()
        local mine = world.new(way, { name = name })
        local other = world.new(way, { name = name })
        mine:RunOnce("k", function()
          mine:Close()
          assert.is_false(other:IsLocked "k")
          assert.equal("Failed", other:GetStatus "k")
          assert.matches("owner died", other:GetRecord("k").error, 1, true)
        end)
        returns({ false, nil, "crashed" }, table.pack(other:RunOnce("k",
          never, { afterCrash = "block" })))
        returns({ true, 7 }, table.pack(other:RunOnce("k", seven)))
        other:Close()
      end)

      it("a lock on it writes that down, and block still blocks", function()
        local name = world.name()
        local mine = world.new(way, { name = name })
        local other = world.new(way, { name = name })
        mine:RunOnce("k", function() mine:Close() end)
        assert.is_true(other:AcquireLock "k")
        assert.equal("Failed", other:GetStatus "k")
        assert.is_true(other:ReleaseLock "k")
        local found
        assert.same({ blockedExecutions = 1 }, world.counted(function()
          found = table.pack(other:RunOnce("k", never,
            { afterCrash = "block" }))
        end))
        returns({ false, nil, "crashed" }, found)
        other:Reset "k"
        returns({ true, 7 }, table.pack(other:RunOnce("k", seven,
          { afterCrash = "block" })))
        other:Close()
      end)
    end)

    describe("errors:", function()
      local function check(err, text)
        local found = run("k", function() error(err, 0) end)
        returns({ false, err, "failed" }, found)
        assert.is_true(rawequal(err, found[2]))
        assert.is_false(guard:IsLocked "k")
        assert.equal("Failed", guard:GetStatus "k")
        local kept = guard:GetRecord("k").error
        assert.equal(text, kept:sub(1, #text))
        assert.matches("stack traceback:", kept, 1, true)
        assert.matches("run_once_spec.lua:", kept, 1, true)
        assert.is_true(guard:AcquireLock("k", 0))
        guard:ReleaseLock "k"
        guard:RunOnce("k", function() error(err, 0) end, { errorTtl = 9 })
        assert.same({ false, text, "failed", 9.0 },
          { guard:RunOnce("k", never) })
      end

      it("a string", function() check("boom", "boom") end)
      it("an empty string", function() check("", "") end)
      it("a binary string", function()
        check("a\0b\255", "a\0b\255")
      end)
      it("a table", function()
        local err = { code = 5 }
        check(err, tostring(err))
      end)
      it("nil: the record says nil", function() check(nil, "nil") end)
      it("false", function() check(false, "false") end)
      it("a number", function() check(42, "42") end)
      it("a function", function() check(print, tostring(print)) end)
      it("a userdata", function()
        check(io.stdout, tostring(io.stdout))
      end)
      it("an object with __tostring", function()
        check(setmetatable({}, { __tostring = function()
          return "I am an error"
        end }), "I am an error")
      end)
      it("an object whose __tostring raises", function()
        check(setmetatable({}, { __tostring = function()
          error "not even that"
        end }), "(error object is a table value)")
      end)
      it("an object whose __tostring returns no string", function()
        check(setmetatable({}, { __tostring = function()
          return {}
        end }), "(error object is a table value)")
      end)
      it("an object with __name", function()
        local err = setmetatable({}, { __name = "My.Error" })
        check(err, tostring(err))
      end)

      it("a position is added by error as ever", function()
        local found = run("k", function() error "here" end)
        assert.matches("run_once_spec.lua:%d+: here", found[2])
      end)

      it("of Lua itself: a call of nil", function()
        local found = run("k", function()
          local t = {}
          return t.missing.field
        end)
        assert.is_false(found[1])
        assert.matches("attempt to index", found[2])
        assert.is_false(guard:IsLocked "k")
      end)

      it("a long text is kept in part, and given whole", function()
        local long = ("x"):rep(100000)
        local found = run("k", function() error(long, 0) end)
        assert.equal(long, found[2])
        assert.is_true(#guard:GetRecord("k").error < 20000)
        assert.equal("x", guard:GetRecord("k").error:sub(1, 1))
      end)

      it("the old error stays visible while a rerun runs", function()
        guard:RunOnce("k", boom)
        local inside
        guard:RunOnce("k", function()
          inside = guard:GetRecord("k").error
        end)
        assert.matches("^boom\n", inside)
        assert.is_nil(guard:GetRecord("k").error)
      end)

      it("of a nested run is its own", function()
        run("outer", function()
          run("inner", function() error("in", 0) end)
          error("out", 0)
        end)
        assert.matches("^in\n", guard:GetRecord("inner").error)
        assert.matches("^out\n", guard:GetRecord("outer").error)
      end)

      it("the same object raised again inside of out", function()
        local err = {}
        local found = run("outer", function()
          local _, inner = guard:RunOnce("inner", function() error(err) end)
          error(inner)
        end)
        assert.is_true(rawequal(err, found[2]))
        assert.equal("Failed", guard:GetStatus "outer")
      end)

      it("stack overflow", function()
        local function deep() return 1 + deep() end
        local found = run("k", deep)
        assert.is_false(found[1])
        assert.matches("stack overflow", found[2])
        assert.equal("failed", found[3])
        assert.is_false(guard:IsLocked "k")
        assert.equal("Failed", guard:GetStatus "k")
        assert.matches("stack overflow", guard:GetRecord("k").error)
        returns({ true, 7 }, run("k", seven))
      end)

      it("stack overflow of C calls", function()
        local function deep()
          return (string.gsub("x", "x", deep))
        end
        local found = run("k", deep)
        assert.is_false(found[1])
        assert.matches("overflow", tostring(found[2]))
        assert.is_false(guard:IsLocked "k")
        returns({ true, 7 }, run("k", seven))
      end)

      it("runs nested until the C stack is full", function()
        local reached, reasons = 0, {}
        local function nest(n)
          reached = n
          local ok, err, why = guard:RunOnce("k" .. n, function()
            return nest(n + 1)
          end)
          if not ok then
            reasons[#reasons + 1] = why
            return nil, err
          end
        end
        local ok, err = pcall(nest, 1)
        assert.is_true(reached > 50)
        assert.is_true(ok or tostring(err):find "overflow" ~= nil)
        for i = 1, reached do
          assert.is_false(guard:IsLocked("k" .. i))
          assert.not_equal("Running", guard:GetStatus("k" .. i))
        end
        returns({ true, 7 }, run("after", seven))
      end)

      it("a string too large", function()
        local found = run("k", function()
          return ("x"):rep(math.maxinteger)
        end)
        assert.is_false(found[1])
        assert.matches("too large", found[2])
        assert.is_false(guard:IsLocked "k")
      end)

      it("no memory for a huge string", function()
        local file = assert(io.open "/dev/null")
        local found = run("k", function()
          return file:read(1 << 46)
        end)
        file:close()
        assert.is_false(found[1])
        assert.equal("not enough memory", found[2])
        assert.equal("failed", found[3])
        assert.is_false(guard:IsLocked "k")
        local record = guard:GetRecord "k"
        assert.equal("Failed", record.status)
        assert.matches("not enough memory", record.error, 1, true)
        returns({ true, 7 }, run("k", seven))
      end)
    end)

    describe("onTimeout and onLost:", function()
      local function late() world.advance(2) return 5 end

      it("onTimeout is called once, with the key, the record TimedOut",
        function()
          local calls = {}
          local found = run("k", late, { timeout = 1,
            onTimeout = function(...)
              calls[#calls + 1] = table.pack(...)
              assert.equal("TimedOut", guard:GetStatus "k")
              assert.is_false(guard:IsLocked "k")
            end })
          returns({ false, nil, "timeout" }, found)
          assert.equal(1, #calls)
          returns({ "k" }, calls[1])
        end)

      it("onTimeout is not called otherwise", function()
        local called = 0
        local options = { timeout = 5, allowRerun = true,
          onTimeout = function() called = called + 1 end,
          onLost = function() called = called + 1 end }
        run("k", seven, options)
        run("k", boom, options)
        run("k", none, options)
        assert.equal(0, called)
      end)

      it("onTimeout may raise: it does no harm", function()
        local called = 0
        returns({ false, nil, "timeout" }, run("k", late, { timeout = 1,
          onTimeout = function()
            called = called + 1
            error "in the callback"
          end }))
        assert.equal(1, called)
        assert.equal("TimedOut", guard:GetStatus "k")
        returns({ true, 7 }, run("k", seven))
      end)

      it("onTimeout may use the guard on the same key", function()
        local inner
        returns({ false, nil, "timeout" }, run("k", late, { timeout = 1,
          onTimeout = function(key)
            inner = run(key, seven)
          end }))
        returns({ true, 7 }, inner)
        assert.equal(7, guard:GetResult "k")
      end)

      it("onTimeout may be a callable table", function()
        local given
        run("k", late, { timeout = 1, onTimeout = setmetatable({}, {
          __call = function(_, key) given = key end }) })
        assert.equal("k", given)
      end)

      it("onLost is called once, with the key", function()
        local calls = {}
        returns({ false, nil, "lost" }, run("k", function()
          guard:Reset "k"
        end, { onLost = function(...)
          calls[#calls + 1] = table.pack(...)
        end, onTimeout = never }))
        assert.equal(1, #calls)
        returns({ "k" }, calls[1])
      end)

      it("onLost may raise", function()
        returns({ false, nil, "lost" }, run("k", function()
          guard:Reset "k"
        end, { onLost = boom }))
        assert.equal("Idle", guard:GetStatus "k")
      end)

      it("the refused outcome of a late fn is an error: timeout as well",
        function()
          local called = 0
          returns({ false, nil, "timeout" }, run("k", function()
            world.advance(2)
            error "late and wrong"
          end, { timeout = 1,
            onTimeout = function() called = called + 1 end }))
          assert.equal(1, called)
          assert.equal("TimedOut", guard:GetStatus "k")
        end)
    end)

    describe("retry:", function()
      -- A function that fails n times; the times of its calls are in it.
      local function failing(n)
        local calls = {}
        return function()
          calls[#calls + 1] = world.steady()
          if #calls <= n then
            error("attempt " .. #calls, 0)
          end
          return "at last"
        end, calls
      end

      local function gaps(calls)
        local list = {}
        for i = 2, #calls do
          list[i - 1] = math.floor((calls[i] - calls[i - 1]) * 1e6 + 0.5) / 1e6
        end
        return list
      end

      it("calls fn again until it succeeds: one execution", function()
        local fn, calls = failing(2)
        local found
        local counted = world.counted(function()
          found = run("k", fn, { retry = { attempts = 5, delay = 1,
            jitter = false } })
        end)
        returns({ true, "at last" }, found)
        assert.equal(3, #calls)
        assert.same({ totalExecutions = 1 }, counted)
        assert.equal(1, guard:GetRecord("k").executionCount)
        assert.is_nil(guard:GetRecord("k").error)
      end)

      it("gives up after so many attempts; the last error counts",
        function()
          local fn, calls = failing(9)
          local found
          local counted = world.counted(function()
            found = run("k", fn, { retry = { attempts = 3, delay = 1,
              jitter = false } })
          end)
          returns({ false, "attempt 3", "failed" }, found)
          assert.equal(3, #calls)
          assert.same({ totalExecutions = 1, failedExecutions = 1 },
            counted)
          assert.matches("^attempt 3\n", guard:GetRecord("k").error)
        end)

      it("jitter=false: delays are exact, and grow by factor up to maxDelay",
        function()
          local fn, calls = failing(5)
          run("k", fn, { retry = { attempts = 6, delay = 0.5, factor = 3,
            maxDelay = 5, jitter = false } })
          assert.same({ 0.5, 1.5, 4.5, 5, 5 }, gaps(calls))
        end)

      it("factor 1: the same delay each time", function()
        local fn, calls = failing(3)
        run("k", fn, { retry = { attempts = 4, delay = 2, factor = 1,
          jitter = false } })
        assert.same({ 2, 2, 2 }, gaps(calls))
      end)

      it("jitter: never longer than without", function()
        local fn, calls = failing(20)
        run("k", fn, { retry = { attempts = 21, delay = 1, factor = 1 } })
        assert.equal(21, #calls)
        local least, most = math.huge, 0
        for _, gap in ipairs(gaps(calls)) do
          least, most = math.min(least, gap), math.max(most, gap)
        end
        assert.is_true(most <= 1 and least >= 0)
        assert.is_true(most > least)
      end)

      it("attempts=1: no second call", function()
        local fn, calls = failing(1)
        returns({ false, "attempt 1", "failed" },
          run("k", fn, { retry = { attempts = 1 } }))
        assert.equal(1, #calls)
      end)

      it("delay 0: no time passes", function()
        local fn, calls = failing(2)
        run("k", fn, { retry = { attempts = 3, delay = 0 } })
        assert.same({ 0, 0 }, gaps(calls))
      end)

      it("the record is Running during the delays", function()
        local seen = {}
        guard:RunOnce("k", failing(1), { retry = { attempts = 2, delay = 1,
          on = function()
            seen[1] = guard:GetStatus "k"
            seen[2] = guard:IsLocked "k"
            return true
          end } })
        assert.same({ "Running", true }, seen)
      end)

      it("on decides, and gets the error object", function()
        local err = { temporary = false }
        local given
        local calls = 0
        returns({ false, err, "failed" }, run("k", function()
          calls = calls + 1
          error(err)
        end, { retry = { attempts = 3, delay = 0, on = function(e)
          given = e
          return e.temporary
        end } }))
        assert.equal(1, calls)
        assert.is_true(rawequal(err, given))
      end)

      it("on is not asked after the last attempt", function()
        local asked = 0
        run("k", boom, { retry = { attempts = 3, delay = 0,
          on = function() asked = asked + 1 return true end } })
        assert.equal(2, asked)
      end)

      it("on that raises: no more attempts, the first error counts",
        function()
          local fn, calls = failing(3)
          returns({ false, "attempt 1", "failed" }, run("k", fn,
            { retry = { attempts = 3, delay = 0, on = boom } }))
          assert.equal(1, #calls)
          assert.is_false(guard:IsLocked "k")
        end)

      it("the timeout is for each attempt", function()
        local calls = 0
        returns({ true, 3 }, run("k", function()
          calls = calls + 1
          world.advance(0.9)
          if calls < 3 then
            error "not yet"
          end
          return calls
        end, { timeout = 1, retry = { attempts = 3, delay = 1,
          jitter = false } }))
      end)

      it("delays do not count for the timeout", function()
        local fn, calls = failing(1)
        returns({ true, "at last" }, run("k", fn, { timeout = 1,
          retry = { attempts = 2, delay = 10, jitter = false } }))
        assert.same({ 10 }, gaps(calls))
      end)

      it("a timeout that passes ends retrying", function()
        local calls, called = 0, 0
        local found
        local counted = world.counted(function()
          found = run("k", function()
            calls = calls + 1
            world.advance(1)
            error "late"
          end, { timeout = 1, onTimeout = function()
            called = called + 1
          end, retry = { attempts = 5, delay = 0 } })
        end)
        returns({ false, nil, "timeout" }, found)
        assert.equal(1, calls)
        assert.equal(1, called)
        assert.same({ totalExecutions = 1, timedOutExecutions = 1 },
          counted)
      end)

      it("so does one of a later attempt", function()
        local calls = 0
        returns({ false, nil, "timeout" }, run("k", function()
          calls = calls + 1
          if calls == 2 then
            world.advance(1)
          end
          error "x"
        end, { timeout = 1, retry = { attempts = 5, delay = 0 } }))
        assert.equal(2, calls)
      end)

      it("an option of new is the default", function()
        local mine = world.new(way, { retry = { attempts = 2, delay = 0 } })
        local fn, calls = failing(1)
        returns({ true, "at last" }, table.pack(mine:RunOnce("k", fn)))
        assert.equal(2, #calls)
        mine:Close()
      end)

      it("a call turns that of new off", function()
        local mine = world.new(way, { retry = { attempts = 4 / 2,
          delay = 0, maxDelay = math.huge } })
        local fn, calls = failing(1)
        assert.is_false((mine:RunOnce("k", fn, { retry = false })))
        assert.equal(1, #calls)
        mine:Close()
      end)

      it("duration is that of all attempts", function()
        local fn = failing(2)
        run("k", fn, { retry = { attempts = 3, delay = 1, factor = 1,
          jitter = false } })
        assert.equal(2.0, guard:GetRecord("k").duration)
      end)
    end)

    it("join: a run of this very state is not waited for", function()
      local before = world.steady()
      local inner
      run("k", function()
        inner = run("k", never, { join = 5 })
      end)
      assert.is_false(inner[1])
      assert.is_nil(inner[2])
      assert.is_true(inner[3] == "deadlock" or inner[3] == "running")
      assert.equal(before, world.steady())
    end)

    it("expired() tells fn that it is too late or was reset", function()
      local expired = world.EG.expired
      assert.is_false(expired())
      run("a", function()
        assert.is_false(expired())
        world.advance(0.5)
        assert.is_false(expired())
        world.advance(0.5)
        assert.is_true(expired())
      end, { timeout = 1 })
      run("b", function()
        assert.is_false(expired())
        guard:Reset "b"
        assert.is_true(expired())
      end)
      assert.is_false(expired())
    end)

    it("expired() outside of a run that failed early is false", function()
      run("a", boom)
      assert.is_false(world.EG.expired())
    end)

    it("shield passes arguments and results through", function()
      assert.same({ 1, nil, 3 }, { world.EG.shield(function(...)
        return ...
      end, 1, nil, 3) })
      assert.has_error(function() world.EG.shield(boom) end, "boom")
    end)
  end)
end

describe("RunOnce under a real limit of memory", function()
  -- Another process, because the limit is one of processes.
  local script = [[
    local EG = require "executionguard"
    local guard = EG.new()
    local calls = 0
    for round = 1, 20 do
      local key = "k" .. round
      local ok, err, why = guard:RunOnce(key, function()
        calls = calls + 1
        local t = {}
        for i = 1, math.huge do
          t[i] = ("x"):rep(1000 * round) .. i
        end
      end)
      assert(ok == false and why == "failed", "not failed")
      assert(err == "not enough memory", tostring(err))
      assert(not guard:IsLocked(key), "still locked")
      assert(guard:GetStatus(key) == "Failed", "not Failed")
      collectgarbage()
    end
    assert(calls == 20)
    assert(select(2, guard:RunOnce("after", function()
      return "fine"
    end)) == "fine")
    print "done"
  ]]

  local function lua_with_limit(text)
    return process.run(text, { before = "ulimit -v 120000 &&" })
  end

  it("frees the lock and says so", function()
    if lua_with_limit "print 'starts'" ~= "starts\n" then
      return pending "a process with little memory does not start here"
    end
    assert.equal("done\n", lua_with_limit(script))
  end)
end)

describe("RunOnce", function()
  it("leaves no globals", function()
    local before = world.globals()
    local guard = world.EG.new()
    guard:RunOnce("k", function() return {} end)
    guard:RunOnce("e", function() error {} end)
    guard:Close()
    assert.equal(before, world.globals())
  end)
end)
