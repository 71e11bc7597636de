-- SPDX-License-Identifier: MIT
-- executionguard.compat: the globals it sets, and what they do.

local ExecutionGuard = require "executionguard"
local testing = require "executionguard.testing"
local run = require "support.process".run

local MODULE <const> = "executionguard.compat"

local function refusal(fn, ...)
  local arguments = table.pack(...)
  local ok, err = pcall(function()
    fn(table.unpack(arguments, 1, arguments.n))
  end)
  assert.is_false(ok)
  return err:match "^%g*compat_spec%.lua:%d+: (.*)$"
end

describe("compat", function()
  local real_warn, real_task = warn, rawget(_G, "task")
  local warned

  -- Loads it anew, onto a `warn` that only notes what it is given.
  local function load_compat()
    package.loaded[MODULE] = nil
    rawset(_G, "warn", function(...)
      warned[#warned + 1] = table.pack(...)
    end)
    return require(MODULE)
  end

  before_each(function()
    warned = {}
    rawset(_G, "task", nil)
  end)

  after_each(function()
    rawset(_G, "warn", real_warn)
    rawset(_G, "task", real_task)
    package.loaded[MODULE] = nil
  end)

  local function globals()
    local names = {}
    for name, value in pairs(_G) do
      names[name] = value
    end
    return names
  end

  it("sets task and warn, and no other global", function()
    local before = globals()
    local compat = load_compat()
    local changed = {}
    for name, value in pairs(globals()) do
      if before[name] ~= value then
        changed[name] = value
      end
    end
    assert.same({ task = compat.task, warn = compat.warn }, changed)
    assert.equal(require "executionguard.task", compat.task)
  end)

  it("leaves a task alone that is there already", function()
    local mine = {}
    rawset(_G, "task", mine)
    local compat = load_compat()
    assert.equal(mine, rawget(_G, "task"))
    assert.is_function(compat.task.wait)
  end)

  it("switches warnings on", function()
    load_compat()
    assert.same({ { "@on", n = 1 } }, warned)
  end)

  it("makes warnings seen", function()
    local text = run [[
      warn "unseen"
      require "executionguard.compat"
      warn "seen"
      warn("load", nil, true, 1.5)
      warn "@off"
      warn "unseen"
      warn "@on"
      warn("@off", "is said")
      warn "the end"
    ]]
    assert.equal("Lua warning: seen\nLua warning: load nil true 1.5\n" ..
                 "Lua warning: @off is said\nLua warning: the end\n", text)
  end)

  it("shows the library's own warnings, which go by warn", function()
    local text = run [[
      local ExecutionGuard = require "executionguard"
      require "executionguard.compat"
      ExecutionGuard.new():RunOnce("key", function() error("broken", 0) end)
    ]]
    assert.matches("^Lua warning: %[ExecutionGuard%] 'key' failed: broken\n$",
                   text)
  end)

  describe("warn", function()
    local function pieces(...)
      local compat = load_compat()
      warned = {}
      compat.warn(...)
      assert.equal(1, #warned)
      return table.concat(warned[1], "|", 1, warned[1].n)
    end

    it("passes one string as it is, so that @off and @on work", function()
      assert.equal("some text", pieces "some text")
      assert.equal("@off", pieces "@off")
    end)

    it("takes any values, with a space between them", function()
      local named = setmetatable({}, { __tostring = function()
        return "T"
      end })
      assert.equal("|loaded: 3 1.5 true nil T", pieces("loaded:", 3, 1.5, true,
                                                       nil, named))
      assert.equal("|nil nil", pieces(nil, nil))
    end)

    it("takes one value that is no string, and none", function()
      assert.equal("|7", pieces(7))
      assert.equal("|nil", pieces(nil))
      assert.equal("|", pieces())
    end)

    it("never takes several values for a control message", function()
      assert.equal("|@off really", pieces("@off", "really"))
      local named = setmetatable({}, { __tostring = function()
        return "@on"
      end })
      assert.equal("|@on", pieces(named))
    end)
  end)

  describe("task.wait", function()
    local clock, wait

    before_each(function()
      clock = testing.clock()
      wait = load_compat().task.wait
    end)

    after_each(function()
      clock:restore()
    end)

    it("waits by the guards' clock and returns what passed", function()
      assert.equal(2.5, wait(2.5))
      assert.equal(1767225602.5, clock:now())
    end)

    it("waits not at all without an argument", function()
      assert.equal(0, wait())
      assert.equal(0, wait(nil))
      assert.equal(0, wait(0))
      assert.equal(1767225600, clock:now())
    end)

    it("counts against the timeout of a run", function()
      local guard <close> = ExecutionGuard.new()
      local _, _, reason = guard:RunOnce("key", function()
        wait(6)
      end, { timeout = 5 })
      assert.equal("timeout", reason)
    end)

    it("waits in real time without a test clock", function()
      clock:restore()
      local waited = wait(0.001)
      assert.is_true(waited >= 0.001)
    end)

    it("refuses what is no time", function()
      assert.equal("task.wait: seconds must be a number, not the string '1'",
                   refusal(wait, "1"))
      assert.equal("task.wait: seconds must be a number, not a table",
                   refusal(wait, {}))
      assert.equal("task.wait: seconds must be 0 or more, and finite, not -1",
                   refusal(wait, -1))
      assert.equal("task.wait: seconds must be 0 or more, and finite, not inf",
                   refusal(wait, math.huge))
      assert.matches("not %-?nan$", refusal(wait, 0 / 0))
    end)
  end)
end)

describe("the language server's types", function()
  it("refuse to be taken for the library", function()
    local ok, err = pcall(require, "executionguard.types")
    assert.is_false(ok)
    assert.matches('write require "executionguard"$', err)
  end)

  -- The file is for people too: nothing may be missing from it.
  it("name every function and method", function()
    local path = assert(package.searchpath("executionguard.types",
                                           package.path))
    local types = loadfile(path)()
    for name, value in pairs(ExecutionGuard) do
      if name ~= "_VERSION" then
        assert.equal(type(value), type(types[name]), name)
      end
    end
    for name in pairs(types) do
      assert.is_not_nil(ExecutionGuard[name], name)
    end
    local text = assert(io.open(path)):read "a"
    local guard <close> = ExecutionGuard.new()
    for name in text:gmatch "\nfunction Guard:(%w+)" do
      assert.is_function(guard[name], name)
    end
    local lock <close> = guard:Lock "key"
    for name in text:gmatch "\nfunction Lock:(%w+)" do
      assert.is_function(lock[name], name)
    end
    local task = require "executionguard.task"
    local count = 0
    for name in text:gmatch "\nfunction Task%.(%w+)" do
      assert.is_function(task[name], name)
      count = count + 1
    end
    for _ in pairs(task) do
      count = count - 1
    end
    assert.equal(0, count)
    local clock <close> = testing.clock()
    for name in text:gmatch "\nfunction TestClock:(%w+)" do
      assert.is_function(clock[name], name)
    end
  end)

  it("name every method of a guard", function()
    local path = assert(package.searchpath("executionguard.types",
                                           package.path))
    local text = assert(io.open(path)):read "a"
    local guard <close> = ExecutionGuard.new()
    for name in pairs(debug.getmetatable(guard).__index) do
      assert.is_truthy(text:find("\nfunction Guard:" .. name .. "(", 1, true),
                       name)
    end
  end)

  it("name every option of a guard and of a call", function()
    local path = assert(package.searchpath("executionguard.types",
                                           package.path))
    local text = assert(io.open(path)):read "a"
    local shared = text:match "@class ExecutionGuard.SharedOptions(.-)\n\n"
    local call = text:match "@class ExecutionGuard.RunOptions:(.-)\n\n"
    local own = text:match "@class ExecutionGuard.Options:(.-)\n\n"
    local guard <close> = ExecutionGuard.new()
    -- every field that is named exists: a value of no type is refused as such
    local nothing = coroutine.create(print)
    local function complaint(fn, name)
      local _, err = pcall(fn, { [name] = nothing })
      assert.is_nil(err:find "there is no option", name)
      assert.is_truthy(err:find("'" .. name .. "'", 1, true), err)
    end
    local count = 0
    local function call_with(options)
      guard:RunOnce("key", print, options)
    end
    for name in shared:gmatch "@field (%w+)%?" do
      complaint(ExecutionGuard.new, name)
      complaint(call_with, name)
      count = count + 1
    end
    for name in call:gmatch "@field (%w+)%?" do
      complaint(call_with, name)
      count = count + 1
    end
    for name in own:gmatch "@field (%w+)%?" do
      complaint(ExecutionGuard.new, name)
      count = count + 1
    end
    assert.equal(25, count)
  end)
end)
