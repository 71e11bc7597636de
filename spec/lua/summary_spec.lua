-- SPDX-License-Identifier: MIT
-- ExecutionGuard.printSummary: what the box says, where it is drawn in ASCII,
-- what it refuses.

local ExecutionGuard = require "executionguard"

local real_print, real_getenv = print, os.getenv

-- Runs fn and returns the lines that were printed.
local function printed(fn)
  local lines = {}
  rawset(_G, "print", function(...)
    assert(select("#", ...) == 1)
    lines[#lines + 1] = (...)
  end)
  local ok, err = pcall(fn)
  rawset(_G, "print", real_print)
  return ok and lines or error(err, 0)
end

local function with_environment(environment)
  rawset(os, "getenv", function(name) return environment[name] end)
end

local function number_after(lines, label, from)
  for i = from or 1, #lines do
    local number = lines[i]:match("^%S+%s+" .. label .. "%s+(%d+)%s+%S+$")
    if number then
      return math.tointeger(number), i
    end
  end
end

local function summary_of(guard, options)
  return printed(function() ExecutionGuard.printSummary(guard, options) end)
end

local function columns(line)
  return utf8.len(line)
end

describe("printSummary", function()
  local guard

  before_each(function()
    guard = ExecutionGuard.new()
    with_environment { LANG = "en_GB.UTF-8" }
  end)

  after_each(function()
    rawset(_G, "print", real_print)
    rawset(os, "getenv", real_getenv)
    guard:Close()
  end)

  it("returns nothing", function()
    printed(function()
      assert.equal(0, select("#", ExecutionGuard.printSummary(guard)))
    end)
  end)

  it("says the original's things, in a fixed order", function()
    local labels = {}
    for _, line in ipairs(summary_of(guard, { ascii = true })) do
      labels[#labels + 1] = line:match "^| +(.-)[%d ]*|$"
    end
    assert.same({
      "EXECUTION GUARD SUMMARY",
      "Total Records",
      "Status Distribution",
      "Idle", "Running", "Completed", "TimedOut", "Failed",
      "Global Statistics (this process)",
      "Total Executions", "Blocked", "Cached", "Timed Out", "Failed",
    }, labels)
  end)

  it("counts the records by status", function()
    local clock <close> = require("executionguard.testing").clock()
    local mine <close> = ExecutionGuard.new()
    mine:RunOnce("done", function() return 1 end)
    mine:RunOnce("done too", function() return 2 end)
    mine:RunOnce("failed", function() error "no" end)
    mine:RunOnce("late", function() clock:advance(2) end, { timeout = 1 })
    mine:RunOnce("idle", function() end)
    mine:Reset "idle"
    local lines
    mine:RunOnce("running", function() lines = summary_of(mine) end)
    assert.equal(6, number_after(lines, "Total Records"))
    assert.equal(1, number_after(lines, "Idle"))
    assert.equal(1, number_after(lines, "Running"))
    assert.equal(2, number_after(lines, "Completed"))
    assert.equal(1, number_after(lines, "TimedOut"))
    assert.equal(1, number_after(lines, "Failed"))
  end)

  it("gives the counts of the process", function()
    guard:RunOnce("a", function() return 1 end)
    guard:RunOnce("a", function() return 1 end)
    local lines, counts = summary_of(guard), ExecutionGuard.getGlobalStats()
    assert.equal(counts.totalExecutions,
                 number_after(lines, "Total Executions"))
    assert.equal(counts.blockedExecutions, number_after(lines, "Blocked"))
    assert.equal(counts.cachedResults, number_after(lines, "Cached"))
    local timed_out, at = number_after(lines, "Timed Out")
    assert.equal(counts.timedOutExecutions, timed_out)
    assert.equal(counts.failedExecutions, number_after(lines, "Failed", at))
  end)

  it("takes the global print of the moment", function()
    assert.is_true(#summary_of(guard) > 10)
    assert.equal(real_print, print)
  end)

  it("draws a box, all lines of the same width", function()
    for _, ascii in ipairs { true, false } do
      local lines = summary_of(guard, { ascii = ascii })
      for _, line in ipairs(lines) do
        assert.equal(columns(lines[1]), columns(line))
      end
      assert.is_true(columns(lines[1]) <= 79)
    end
    local lines = summary_of(guard)
    local bar = ("═"):rep(columns(lines[1]) - 2)
    assert.equal("╔" .. bar .. "╗", lines[1])
    assert.matches("^║ +EXECUTION GUARD SUMMARY +║$", lines[2])
    assert.equal("╠" .. bar .. "╣", lines[3])
    assert.equal("╚" .. bar .. "╝", lines[#lines])
  end)

  it("is no wider than asked for, the numbers whole", function()
    for _, width in ipairs { 20, 21, 33, 50, 1000 } do
      local lines = summary_of(guard, { columns = width })
      for _, line in ipairs(lines) do
        assert.equal(math.min(width, 50), columns(line), line)
      end
      assert.is_truthy(number_after(lines, "Total Records"))
    end
  end)

  describe("draws in", function()
    local function is_ascii()
      local text = table.concat(summary_of(guard))
      return not text:find "[\128-\255]"
    end

    local cases = {
      { "ASCII where the environment says nothing", {}, true },
      { "ASCII in the C locale", { LANG = "C" }, true },
      { "ASCII in another encoding", { LC_ALL = "de_DE.ISO-8859-1" }, true },
      { "UTF-8 by LANG", { LANG = "de_DE.UTF-8" }, false },
      { "UTF-8 however it is spelled", { LANG = "C.utf8" }, false },
      { "UTF-8 by LC_CTYPE, before LANG",
        { LC_CTYPE = "th_TH.UTF-8", LANG = "C" }, false },
      { "ASCII by LC_CTYPE, before LANG",
        { LC_CTYPE = "C", LANG = "th_TH.UTF-8" }, true },
      { "ASCII by LC_ALL, before the others",
        { LC_ALL = "POSIX", LC_CTYPE = "C.UTF-8", LANG = "C.UTF-8" }, true },
      { "UTF-8 by LC_ALL, before the others",
        { LC_ALL = "C.UTF-8", LC_CTYPE = "C", LANG = "C" }, false },
      { "what comes after an empty LC_ALL",
        { LC_ALL = "", LC_CTYPE = "", LANG = "C.UTF-8" }, false },
    }
    for _, case in ipairs(cases) do
      it(case[1], function()
        with_environment(case[2])
        assert.equal(case[3], is_ascii())
      end)
    end

    it("what the option says, whatever the environment", function()
      local ascii = table.concat(summary_of(guard, { ascii = true }))
      assert.is_nil(ascii:find "[\128-\255]")
      with_environment { LC_ALL = "C" }
      local drawn = table.concat(summary_of(guard, { ascii = false }))
      assert.is_truthy(drawn:find("║", 1, true))
    end)
  end)

  describe("refuses", function()
    local function refusal(...)
      local arguments = table.pack(...)
      local ok, err
      local lines = printed(function()
        ok, err = pcall(function()
          ExecutionGuard.printSummary(table.unpack(arguments, 1, arguments.n))
        end)
      end)
      assert.is_false(ok)
      assert.same({}, lines)
      -- whose fault it is: the line that called, in this file
      return err:match "^%g*summary_spec%.lua:%d+: (.*)$"
    end

    it("what is no guard", function()
      local takes = "ExecutionGuard.printSummary: takes a guard, not "
      assert.equal(takes .. "nil", refusal())
      assert.equal(takes .. "the number 1", refusal(1))
      assert.equal(takes .. "the string 'guard'", refusal "guard")
      assert.equal(takes .. "a table", refusal {})
      assert.equal(takes .. "a table", refusal(ExecutionGuard))
      assert.equal(takes .. "a userdata", refusal(io.stdout))
      local impostor = setmetatable({}, { __metatable = "ExecutionGuard" })
      assert.equal(takes .. "a table", refusal(impostor))
      local lock <close> = guard:Lock "key"
      assert.equal(takes .. "a userdata", refusal(lock))
    end)

    it("a closed guard", function()
      guard:Close()
      assert.equal("ExecutionGuard.printSummary: this guard is closed; " ..
                   "make a new one", refusal(guard))
    end)

    it("options that it does not have", function()
      assert.equal("ExecutionGuard.printSummary: options must be a table " ..
                   "{top = 10}, not the boolean true", refusal(guard, true))
      assert.equal("ExecutionGuard.printSummary: there is no option " ..
                   "'asci'; there are ascii, columns, top",
                   refusal(guard, { asci = true }))
      assert.equal("ExecutionGuard.printSummary: there is no option " ..
                   "the number 1; there are ascii, columns, top",
                   refusal(guard, { true }))
      assert.equal("ExecutionGuard.printSummary: option 'ascii' must be a " ..
                   "boolean, not the string 'yes'",
                   refusal(guard, { ascii = "yes" }))
      for _, top in ipairs { -1, 1001, 1.5 } do
        assert.equal("ExecutionGuard.printSummary: option 'top' must be an " ..
                     "integer from 0 to 1000, not the number " .. top,
                     refusal(guard, { top = top }))
      end
      for width, named in pairs { ["80"] = "the string '80'",
          [19] = "the number 19", [1001] = "the number 1001" } do
        assert.equal("ExecutionGuard.printSummary: option 'columns' must " ..
                     "be an integer from 20 to 1000, not " .. named,
                     refusal(guard, { columns = width }))
      end
    end)
  end)
end)
