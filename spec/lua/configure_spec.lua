-- SPDX-License-Identifier: MIT
-- ExecutionGuard.configure: what it takes, keeps and refuses.

local ExecutionGuard = require "executionguard"
local settings = require("executionguard.configure").settings
local testing = require "executionguard.testing"

local configure = ExecutionGuard.configure

local START <const> = 1767225600 -- where a test clock starts

local function refusal(...)
  local arguments = table.pack(...)
  local ok, err = pcall(function()
    configure(table.unpack(arguments, 1, arguments.n))
  end)
  assert.is_false(ok)
  return err:match(
    "^%g*configure_spec%.lua:%d+: ExecutionGuard%.configure: (.*)$")
end

local function copy(t)
  local result = {}
  for key, value in pairs(t) do
    result[key] = value
  end
  return result
end

describe("configure", function()
  local before

  before_each(function()
    before = copy(settings)
  end)

  after_each(function()
    configure { loop = false }
    for name in pairs(copy(settings)) do
      settings[name] = nil
    end
    for name, value in pairs(before) do
      settings[name] = value
    end
    testing.install(false)
  end)

  it("returns nothing, also for no options at all", function()
    assert.equal(0, select("#", configure {}))
    assert.same(before, settings)
  end)

  local function a_loop()
    local function nothing() return nothing end
    return { now = os.time, delay = nothing, wake = nothing }
  end

  it("keeps what was asked for", function()
    local loop = a_loop()
    configure { signal = 23, waitSignal = 39, engine = "count", loop = loop }
    assert.same({ signal = 23, waitSignal = 39, engine = "count",
                  loop = loop }, settings)
  end)

  it("wants the three functions of a loop", function()
    local loop = a_loop()
    loop.delay = nil
    assert.match("now, delay and wake %('delay' is missing%)",
                 select(2, pcall(configure, { loop = loop })))
    loop.delay = 5
    assert.match("'delay' is a number",
                 select(2, pcall(configure, { loop = loop })))
  end)

  it("leaves what is not named as it is", function()
    configure { signal = 10 }
    configure { engine = "none" }
    configure { loop = false }
    assert.same({ signal = 10, engine = "none", loop = false }, settings)
  end)

  it("takes every engine", function()
    for _, engine in ipairs { "signal", "count", "none" } do
      configure { engine = engine }
      assert.equal(engine, settings.engine)
    end
  end)

  describe("clock", function()
    it("puts the system's clock back", function()
      testing.clock()
      assert.equal(START, ExecutionGuard.now())
      configure { clock = false }
      assert.is_true(math.abs(ExecutionGuard.now() - os.time()) < 300)
      configure { clock = false }
    end)

    it("goes on with a clock that is in force", function()
      local clock <close> = testing.clock()
      clock:advance(5)
      configure { clock = clock }
      assert.equal(START + 5, clock:now())
    end)

    it("puts a clock in force again, from its start", function()
      local clock <close> = testing.clock()
      clock:advance(5)
      clock:restore()
      configure { clock = clock }
      assert.equal(START, clock:now())
      assert.equal(START, ExecutionGuard.now())
    end)

    it("takes the place of another", function()
      local first, second <close> = testing.clock(), testing.clock()
      configure { clock = first }
      first:advance(1)
      assert.is_false(pcall(second.now, second))
      first:restore()
    end)

    it("is not kept as a setting", function()
      local clock <close> = testing.clock()
      configure { clock = clock }
      assert.is_nil(settings.clock)
    end)
  end)

  describe("refuses", function()
    it("what is no table", function()
      assert.equal("options must be a table, not nil", refusal())
      assert.equal("options must be a table, not a string", refusal "signal")
      assert.equal("options must be a table, not a function", refusal(print))
    end)

    it("an option that does not exist, and names the nearest", function()
      local cases = {
        singal = "signal", signl = "signal", waitsignal = "waitSignal",
        Engine = "engine", lop = "loop", clok = "clock", clocks = "clock",
      }
      for wrong, right in pairs(cases) do
        assert.equal(("there is no option '%s'; did you mean '%s'?"):format(
          wrong, right), refusal { [wrong] = 1 })
      end
      local long = ("signal"):rep(100000)
      assert.equal("there is no option '" .. long .. "'",
                   refusal { [long] = 1 })
    end)

    it("a name that is no string", function()
      assert.equal("an option's name is a number; names are strings",
                   refusal { 23 })
      assert.equal("an option's name is a boolean; names are strings",
                   refusal { [true] = 23 })
    end)

    it("what is no signal", function()
      for _, name in ipairs { "signal", "waitSignal" } do
        local must = ("option '%s' must be the number of a signal, 1 to 64, ")
          :format(name)
        assert.equal(must .. "not 0", refusal { [name] = 0 })
        assert.equal(must .. "not 65", refusal { [name] = 65 })
        assert.equal(must .. "not -1", refusal { [name] = -1 })
        assert.equal(must .. "not 23.0", refusal { [name] = 23.0 })
        assert.equal(must .. "not the string '23'", refusal { [name] = "23" })
        assert.equal(must .. "not false", refusal { [name] = false })
        assert.equal(must .. "not a table", refusal { [name] = {} })
      end
    end)

    it("signals that no program can handle", function()
      local must = "option '%s' must be a signal that a program can handle "
      assert.equal(must:format "signal" .. "(9 is SIGKILL), not 9",
                   refusal { signal = 9 })
      assert.equal(must:format "waitSignal" .. "(19 is SIGSTOP), not 19",
                   refusal { waitSignal = 19 })
    end)

    it("the same signal for both", function()
      local both = "options 'signal' and 'waitSignal' must differ, both are 10"
      assert.equal(both, refusal { signal = 10, waitSignal = 10 })
      configure { signal = 10 }
      assert.equal(both, refusal { waitSignal = 10 })
      configure { signal = 12, waitSignal = 10 }
      assert.equal(both, refusal { signal = 10 })
    end)

    it("an engine, a loop or a clock of another kind", function()
      local must =
        [[option 'engine' must be "signal", "count" or "none", not ]]
      assert.equal(must .. "the string 'Signal'",
                   refusal { engine = "Signal" })
      assert.equal(must .. "true", refusal { engine = true })
      must = "option 'loop' must be a table, or false for none, not "
      assert.equal(must .. "a function", refusal { loop = print })
      assert.equal(must .. "true", refusal { loop = true })
      must = "option 'clock' must be a clock of executionguard.testing, or " ..
             "false for the system's, not "
      assert.equal(must .. "a table", refusal { clock = {} })
      assert.equal(must .. "true", refusal { clock = true })
      assert.equal(must .. "1", refusal { clock = 1 })
    end)

    it("all options when one of them is wrong", function()
      testing.clock()
      assert.is_string(refusal { signal = 23, engine = "count", loop = {},
                                 clock = false, waitSignal = "x" })
      assert.same(before, settings)
      assert.equal(START, ExecutionGuard.now())
    end)
  end)
end)
