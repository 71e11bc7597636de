-- SPDX-License-Identifier: MIT
-- Interruption, the cases that its trials were made of: grace, nested guards,
-- hooks that change all the time, calls into the system, the built-in limit,
-- functions that were taken before the module was loaded.  Real time, with
-- generous bounds.

local core = require "executionguard.core"
local ExecutionGuard = require "executionguard"
local interrupting = require "support.interrupting"
local in_a_process = require "support.process".run
local world = require "support.world"

local steady = core.clock.steady
local forever, spin = interrupting.forever, interrupting.spin
local until_reached = interrupting.until_reached
local LIMIT <const>, MOST <const> = interrupting.LIMIT, interrupting.MOST

describe("interruption", function()
  local guard, run, ends

  before_each(function()
    guard, run, ends = interrupting.start()
  end)

  after_each(function() interrupting.stop(guard) end)

  -- A variable to be closed by that function.
  local function closing(fn)
    return setmetatable({}, { __close = fn })
  end

  describe("and the grace for <close>:", function()
    -- The machine may be busy with others for longer than the grace.
    local function in_one_of_many(try)
      local start = steady()
      local done
      repeat
        done = try()
      until done or steady() - start > MOST
      assert.is_true(done)
    end

    local function add(n)
      local sum = 0
      for i = 1, n do sum = sum + i end
      return sum == n * (n + 1) // 2
    end

    it("20,000 additions are done in the usual one", function()
      in_one_of_many(function()
        local done = false
        ends(function()
          local _ <close> = closing(function()
            done = add(world.scaled(20000)) -- valgrind needs longer for each
          end)
          forever()
        end, { allowRerun = true })
        return done
      end)
    end)

    it("without it nothing is done", function()
      local begun, done
      ends(function()
        local _ <close> = closing(function()
          begun = true
          done = add(20000)
        end)
        forever()
      end, { closeGrace = 0 })
      assert.is_nil(begun)
      assert.is_nil(done)
    end)

    it("five nested ones, also in a coroutine", function()
      local function nested(n, note)
        local _ <close> = closing(function() note(add(1000)) end)
        if n > 1 then return (nested(n - 1, note)) end -- no tail call
        forever()
      end
      for _, call in ipairs { pcall, function(fn, ...)
        return coroutine.wrap(fn)(...)
      end } do
        in_one_of_many(function()
          local n = 0
          ends(function()
            call(nested, 5, function(done) n = n + (done and 1 or 0) end)
            forever()
          end, { allowRerun = true })
          return n == 5
        end)
      end
    end)

    for name, body in pairs {
      ["pcall in a loop, with a looping <close>"] = function()
        while true do
          pcall(function()
            local _ <close> = closing(forever)
            forever()
          end)
        end
      end,
      ["a <close> that closes another coroutine, which loops"] = function()
        local co = coroutine.create(function()
          local _ <close> = closing(forever)
          coroutine.yield()
        end)
        coroutine.resume(co)
        local _ <close> = closing(function() coroutine.close(co) end)
        forever()
      end,
      ["a <close> that begins a run of its own"] = function()
        local _ <close> = closing(function()
          guard:RunOnce("in <close>", forever, { timeout = 30 })
        end)
        forever()
      end,
    } do
      it("is over for " .. name, function() ends(body) end)
    end
  end)

  describe("of nested guards:", function()
    it("the middle one of three: the outer goes on", function()
      local middle, inner
      until_reached(function(reached)
        assert.same({ true, "outer" }, { run(function()
          middle = { guard:RunOnce("middle", function()
            inner = { guard:RunOnce("inner", function()
              reached()
              forever()
            end, { timeout = 30 }) }
          end, { timeout = LIMIT }) }
          return "outer"
        end, { timeout = 30, allowRerun = true }) })
        assert.same({ false, nil, "timeout" }, middle)
        assert.is_nil(inner)
      end)
      assert.equal("TimedOut", guard:GetStatus "inner")
    end)

    it("the inner one first, then the outer one", function()
      until_reached(function(reached)
        local inner
        ends(function()
          inner = { guard:RunOnce("inner", forever, { timeout = LIMIT }) }
          reached()
          while true do pcall(forever) end
        end, { timeout = 20 * LIMIT, allowRerun = true })
        assert.is_true(inner == nil or inner[3] == "timeout")
      end)
    end)

    it("an inner one that catches everything", function()
      until_reached(function(reached)
        ends(function()
          guard:RunOnce("inner", function()
            reached()
            while true do
              pcall(pcall, function()
                local _ <close> = closing(function() error "another" end)
                forever()
              end)
            end
          end, { timeout = 30 })
        end, { allowRerun = true })
      end)
      assert.equal("TimedOut", guard:GetStatus "inner")
    end)

    it("an inner one that is suspended is given up", function()
      until_reached(function(reached)
        ends(function()
          local co = coroutine.wrap(function()
            guard:RunOnce("inner", coroutine.yield, { timeout = 30 })
          end)
          co()
          reached()
          forever()
        end, { allowRerun = true })
      end)
      world.collect()
      local record = guard:GetRecord "inner"
      assert.equal("Failed", record.status)
      assert.matches("abandoned", record.error)
      assert.is_false(record.locked)
    end)

    it("locks that were taken in them are free", function()
      until_reached(function(reached)
        ends(function()
          local _ <close> = guard:Lock "a"
          guard:RunOnce("inner", function()
            local _ <close> = guard:Lock "b"
            coroutine.wrap(function()
              local _ <close> = guard:Lock "c"
              reached()
              forever()
            end)()
          end, { timeout = 30 })
        end, { closeGrace = 1, allowRerun = true })
        world.collect()
      end)
      world.collect() -- that of the coroutine
      for _, key in ipairs { "a", "b", "c", "inner" } do
        assert.is_false(guard:IsLocked(key), key)
      end
    end)
  end)

  describe("and hooks:", function()
    it("one that changes all the time is never torn", function()
      local function one() end
      local function two() end
      local n = math.max(20, world.scaled(200))
      for _ = 1, n do
        run(function()
          while true do
            debug.sethook(one, "l", 17)
            debug.sethook(two, "cr", 4)
          end
        end, { timeout = LIMIT * math.random() / 10, allowRerun = true })
        local hook, mask, count = debug.gethook()
        debug.sethook()
        if hook == one then
          assert.same({ "l", 17 }, { mask, count })
        elseif hook then
          assert.same({ two, "cr", 4 }, { hook, mask, count })
        end
      end
    end)

    it("one that was set meanwhile stays", function()
      local function hook() end
      local co
      until_reached(function(reached)
        debug.sethook()
        co = coroutine.create(function()
          debug.sethook(hook, "l")
          reached()
          forever()
        end)
        ends(function()
          debug.sethook(hook, "r")
          coroutine.resume(co)
        end, { allowRerun = true })
      end)
      local kept, mask = debug.gethook()
      debug.sethook()
      assert.same({ hook, "r" }, { kept, mask })
      assert.equal(hook, (debug.gethook(co)))
    end)

    it("one that was taken off meanwhile stays off", function()
      until_reached(function(reached)
        debug.sethook(function() end, "l")
        ends(function()
          debug.sethook()
          reached()
          forever()
        end, { allowRerun = true })
      end)
      assert.is_nil((debug.gethook()))
    end)

    it("one that is at work, as a debugger's prompt, is waited for",
       function()
      local stayed
      until_reached(function(reached)
        ends(function()
          debug.sethook(function()
            debug.sethook()
            reached()
            spin(5 * LIMIT)
            stayed = true
          end, "l")
          forever()
        end, { allowRerun = true })
      end)
      assert.is_true(stayed)
    end)

    it("debug.sethook complains as Lua's does", function()
      for _, bad in ipairs { { "x" }, { print, 1 , "x"}, { 1, "l" } } do
        local fails = function(fn)
          local _, why = pcall(fn, table.unpack(bad))
          return (why:gsub("to '.-'", "")) -- where it was called from
        end
        assert.equal(in_a_process(([[
          local _, why = pcall(debug.sethook, table.unpack { %s })
          io.write((why:gsub("to '.-'", "")))
        ]]):format(bad[1] == print and "print, 1, 'x'" or
          bad[1] == 1 and "1, 'l'" or "'x'")), fails(debug.sethook))
      end
    end)
  end)

  describe("of calls into the system:", function()
    it("a command runs to its end", function()
      local ok, how, code
      until_reached(function(reached)
        assert.equal("timeout", (select(3, run(function()
          ExecutionGuard.shield(function()
            ok, how, code = os.execute "sleep 0.1; exit 3"
            reached()
          end)
          forever()
        end, { timeout = 0.03, closeGrace = 1, allowRerun = true }))))
      end)
      -- the signal came while it was waited for, which went on
      assert.same({ nil, "exit", 3 }, { ok, how, code })
    end)

    it("a socket that is waited for, and luasocket's sleep", function()
      local socket = require "socket"
      local server = assert(socket.bind("127.0.0.1", 0))
      local _, port = server:getsockname()
      local text, why
      until_reached(function(reached)
        assert.equal("timeout", (select(3, run(function()
          ExecutionGuard.shield(function()
            reached()
            local client = assert(socket.connect("127.0.0.1", port))
            local peer = assert(server:accept())
            client:settimeout(0.05)
            text, why = client:receive(1)
            socket.sleep(0.02)
            peer:close()
            client:close()
          end)
          forever()
        end, { allowRerun = true }))))
      end)
      server:close()
      assert.is_nil(text)
      assert.equal("timeout", why) -- luasocket's own: no error by a signal
    end)
  end)

  it("is not what the built-in 30 s do: they only mark", function()
    local finished, seen
    core.clock.reset(false)
    core.clock.use(true)
    local own = ExecutionGuard.new()
    local answer = { own:RunOnce("k", function()
      core.clock.advance(31)
      seen = own:GetStatus "k"
      local sum = 0
      for i = 1, 1000000 do sum = sum + i % 7 end
      finished = sum > 0
    end) }
    own:Close()
    core.clock.use(false)
    core.clock.reset(false)
    assert.same({ false, nil, "timeout" }, answer)
    assert.equal("TimedOut", seen)
    assert.is_true(finished)
  end)

  describe("by what was taken before the module was loaded:", function()
    -- Each runs a body that waits for the record's end, and prints.
    local before = [[
      local wrap, xpcall, sethook = coroutine.wrap, xpcall, debug.sethook
      local close, resume = coroutine.close, coroutine.resume
      local EG = require "executionguard"
      local now = require "executionguard.core".clock.steady
      local guard = EG.new()
      local came
      local function late()
        came = true
        local start = now()
        repeat until guard:GetStatus "k" ~= "Running" or now() - start > 20
        io.write(guard:GetStatus "k", guard:IsLocked "k" and "+ " or " ")
      end
      local function forever() while true do end end
      local function try(fn, comes)
        local why
        repeat
          why = select(3, guard:RunOnce("k", fn, { timeout = 0.01,
            allowRerun = true }))
        until came or not comes
        print(why)
      end
    ]]

    it("what coroutine.wrap has made goes on; its record has ended",
       function()
      assert.equal("TimedOut timeout\n", in_a_process(before .. [[
        try(function() wrap(late)() forever() end, true)
      ]]))
    end)

    it("so does a message handler of xpcall", function()
      -- The signal may come while the handler still prints: Lua gives the
      -- error of a handler to the handler.
      local said, times = in_a_process(before .. [[
        try(function() xpcall(error, late) forever() end, true)
      ]]):gsub("TimedOut ", "")
      assert.equal("timeout\n", said)
      assert.is_true(times >= 1)
    end)

    it("what coroutine.close closes goes on", function()
      assert.equal("TimedOut timeout\n", in_a_process(before .. [[
        try(function()
          local co = coroutine.create(function()
            local _ <close> = setmetatable({}, { __close = late })
            coroutine.yield()
          end)
          coroutine.resume(co)
          close(co)
          forever()
        end, true)
      ]]))
    end)

    it("debug.sethook in a loop ends with a later signal", function()
      assert.equal("timeout\n", in_a_process(before .. [[
        try(function() while true do sethook() end end)
      ]]))
    end)

    it("a guard inside of what coroutine.resume runs ends in time",
       function()
      assert.equal("timeout\nnil\n", in_a_process(before .. [[
        local co = coroutine.create(function() try(forever) end)
        assert(resume(co))
        print(debug.gethook())
      ]]))
    end)
  end)
end)
