-- SPDX-License-Identifier: MIT
-- guard:History: the ended runs that a store remembers.

local ExecutionGuard = require "executionguard"
local world = require "support.world"

describe("History", function()
  local guard, folder

  before_each(function()
    world.start(true)
    folder = world.folder()
    guard = ExecutionGuard.new { store = "file:" .. folder, owner = "me" }
  end)

  after_each(function()
    guard:Close()
    world.stop()
  end)

  local function run(key, seconds, options, wrong)
    guard:RunOnce(key, function()
      world.advance(seconds)
      if wrong then error(wrong, 0) end
    end, options)
  end

  it("is of as many runs as asked for, in memory", function()
    local mine <close> = ExecutionGuard.new { history = 3 }
    for i = 1, 5 do
      mine:RunOnce("k" .. i % 2, function()
        world.advance(i)
        if i == 4 then error("boom", 0) end
        return {}
      end, { allowRerun = true })
    end
    local past = mine:History()
    assert.equal(3, #past)
    assert.same({ "k1", "Completed", 5.0 },
      { past[1].key, past[1].status, past[1].duration })
    assert.same({ "k0", "Failed", 4.0 },
      { past[2].key, past[2].status, past[2].duration })
    assert.equal(2, #mine:History "k1")
    local lines, real = {}, print
    rawset(_G, "print", function(line) lines[#lines + 1] = line end)
    ExecutionGuard.printSummary(mine, { ascii = true, columns = 80 })
    rawset(_G, "print", real)
    assert.matches("\n  k1 +5.0s  #+ +%+@\n", table.concat(lines, "\n"))
    local none <close> = ExecutionGuard.new { history = 0 }
    none:RunOnce("k", function() end)
    assert.same({ nil, "unsupported" }, { none:History() })
  end)

  it("has the runs of a key, newest first, with all fields", function()
    local again = { allowRerun = true }
    run("k", 1, again)
    run("other", 1, again)
    run("k", 2, again, "boom")
    run("k", 3, { allowRerun = true, timeout = 2, interrupt = false })
    local past = guard:History "k"
    assert.equal(3, #past)
    local tokens = {}
    for i, one in ipairs(past) do
      tokens[i] = one.token
      one.token = nil
    end
    assert.is_true(tokens[1] > tokens[2] and tokens[2] > tokens[3])
    assert.matches("^boom", past[2].error)
    past[2].error = nil
    assert.same({
      { key = "k", status = "TimedOut", owner = "me", duration = 3.0,
        startTime = world.epoch + 4, endTime = world.epoch + 7,
        error = "timed out" },
      { key = "k", status = "Failed", owner = "me", duration = 2.0,
        startTime = world.epoch + 2, endTime = world.epoch + 4 },
      { key = "k", status = "Completed", owner = "me", duration = 1.0,
        startTime = world.epoch, endTime = world.epoch + 1 } }, past)
  end)

  it("is of all keys without one, and as long as asked for", function()
    for i = 1, 30 do run("k" .. i, 1) end
    assert.equal(20, #guard:History())
    assert.equal("k30", guard:History(nil, 1)[1].key)
    assert.equal(30, #guard:History(nil, 100))
    assert.same({}, guard:History "never ran")
  end)

  it("is there for the next process", function()
    run("k", 1)
    guard:Close()
    guard = ExecutionGuard.new { store = "file:" .. folder }
    assert.equal("me", guard:History "k"[1].owner)
  end)

  it("is nil where none is kept", function()
    local plain <close> = ExecutionGuard.new()
    assert.same({ nil, "unsupported", n = 2 }, table.pack(plain:History "k"))
    local none <close> = ExecutionGuard.new {
      store = "file:" .. world.folder() .. "?history=0" }
    none:RunOnce("k", function() end)
    assert.same({ {}, n = 1 }, table.pack(none:History "k"))
  end)

  it("says what is wrong with its arguments", function()
    for n, named in pairs { [0] = "the number 0", [-1] = "the number %-1",
        [1.5] = "the number 1.5", ["3"] = "the string '3'",
        [true] = "the boolean true" } do
      assert.matches("^History: n must be an integer from 1 on, not " ..
                     named .. "; leave it out",
                     world.message(guard.History, guard, "k", n))
    end
    assert.matches("^History: the key must be a string",
                   world.message(guard.History, guard, 7))
    guard:Close()
    assert.matches("^History: ", world.message(guard.History, guard, "k"))
  end)
end)
