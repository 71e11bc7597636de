-- SPDX-License-Identifier: MIT
-- executionguard.progress: plain lines, lines drawn in place, a real terminal.

local job = require "executionguard.job"
local process = require "support.process"
local progress = require "executionguard.progress"
local task = require "executionguard.task"
local turns = require "support.turns"
local world = require "support.world"

local function nothing() end

-- What a terminal shows after that text, line by line.
local function screen(text)
  local lines, row = {}, 1
  local at = 1
  while at <= #text do
    local up, after = text:match("^\27%[(%d+)A()", at)
    if up then
      row, at = row - math.tointeger(up), after
      assert(row >= 1, "drawn above the screen")
    elseif text:match("^\27%[[KJ]", at) then
      if text:sub(at + 2, at + 2) == "J" then
        for i = row, #lines do
          lines[i] = nil
        end
      end
      at = at + 3
    else
      local line, rest = text:match("^([^\27\r\n]*)()", at)
      if line ~= "" then
        lines[row], at = line, rest
      else
        row = row + (text:sub(at, at) == "\n" and 1 or 0)
        at = at + 1
      end
    end
  end
  return lines
end

describe("progress", function()
  before_each(turns.begin)
  after_each(turns.finish)

  it("checks its options", function()
    local j = job.new("j", nothing)
    local closed = io.tmpfile()
    closed:close()
    for pattern, given in pairs {
      ["option 'interval' must be a number .*, not the string 'x'"] =
        { interval = "x" },
      ["option 'out' must be an open file.*, not the string 'x'"] =
        { out = "x" },
      ["option 'out' .*, not a closed file"] = { out = closed },
      ["option 'terminal' must be .*, not 0"] = { terminal = 0 },
      ["option 'ascii' must be a boolean, not 1"] = { ascii = 1 },
      ["there is no option the string 'foo'; there are ascii"] = { foo = 1 },
    } do
      local message = world.message(function() progress.show(j, given) end)
      assert.matches("^%S*progress_spec.lua:%d+: progress.show: " .. pattern,
                     message)
    end
    assert.matches("^%S*progress_spec.lua:%d+: progress.show: a job is " ..
      "needed, not 5", world.message(function() progress.show(5) end))
    assert.matches("Add: a job is needed, not nil",
                   world.message(function() progress.show():Add() end))
  end)

  it("warns once when its output cannot be written, and is silent then",
  function()
    local said, real = {}, warn
    finally(function() _G.warn = real end)
    _G.warn = function(...) said[#said + 1] = table.concat { ... } end
    local out, full = io.tmpfile(), assert(io.open("/dev/full", "w"))
    for pattern, file in pairs { ["closed file"] = out,
                                 ["No space left"] = full } do
      for _, columns in ipairs { 80, false } do
        said = {}
        local j = job.new("j", function(ctx)
          for i = 1, 10 do
            ctx:SetProgress(i / 10)
            task.wait(1)
          end
        end)
        local display = progress.show(j, { out = file, terminal = columns })
        if file == out and io.type(out) == "file" then
          out:close()
        end
        j:Run()
        j:Wait()
        display:Stop()
        assert.equal("succeeded", j:State())
        assert.equal(1, #said, pattern)
        assert.matches("display ends, as its output .*" .. pattern, said[1])
        if file == out then
          break -- it cannot be closed again
        end
      end
    end
    full:close()
  end)

  describe("progress.line", function()
    it("has bar, per cent, rate, time left and state", function()
      local line = progress.line({ id = "up", progress = 0.25, labels = {},
        state = "running", executionTime = 5 }, { ascii = true, width = 4 })
      assert.equal("up    #####...............   25%  5 %/s  15 s left" ..
                   "  running", line)
    end)

    it("has no more digits than anybody reads", function()
      local line = progress.line({ id = "up", progress = 0.5, labels = {},
        state = "running", executionTime = 0.03 }, { ascii = true })
      assert.matches(" 1667 %%/s  1 s left  running$", line)
      line = progress.line({ id = "up", progress = -1, labels = {},
        state = "running", executionTime = 0.03 }, { ascii = true })
      assert.matches(" 0 s  running$", line)
    end)

    it("says only what is known", function()
      local line = progress.line({ id = "a\27b", progress = -1, labels = {},
        state = "failed", executionTime = 90, error = "x\ny" })
      assert.matches("^a%?b +1:30 min  failed  x$", line)
    end)
  end)

  describe("progress.show", function()
    local function file()
      local written = {}
      return { write = function(_, text) written[#written + 1] = text end,
               flush = nothing }, written
    end

    local function work(ctx)
      for i = 1, 100 do
        ctx:SetProgress(i / 100)
        task.wait(0.01)
      end
    end

    it("writes a line at each state and each tenth, where plain", function()
      local out, written = file()
      local j = job.new("j", work)
      do
        local _ <close> = progress.show(j, { out = out, ascii = true })
        j:Run()
        j:Wait()
      end
      assert.equal(12, #written)
      assert.matches("%.%. +10%%.*running\n$", written[2])
      assert.matches("100%%  1 s  succeeded\n$", written[12])
    end)

    it("draws in place on a terminal, not too often", function()
      local out, written = file()
      local a, b = job.new("a", work), job.new("b", work)
      local display = progress.show(a, b, { out = out, terminal = 40,
        ascii = true })
      a:Run()
      b:Run()
      a:Wait()
      b:Wait()
      display:Stop()
      assert.is_true(#written > 10 and #written < 20)
      for i, text in ipairs(written) do
        assert.equal(i > 1, text:find("\27[2A", 1, true) == 1)
        for line in text:gsub("\27%[%d*%u", ""):gmatch "[^\n]+" do
          assert.is_true(#line <= 40)
        end
      end
      assert.equal(0, #(a.listeners.state) + #(a.listeners.progress))
    end)
  end)
end)

-- In another process, on a terminal that script(1) makes.
describe("progress on a real terminal", function()
  local SCRIPT <const> = [[
    local clock <close> = require "executionguard.testing".clock()
    local job = require "executionguard.job"
    local task = require "executionguard.task"
    local jobs = {}
    for i = 1, %d do
      jobs[i] = job.new("job " .. i, function(ctx)
        for k = 1, 10 do
          ctx:SetProgress(k / 10)
          task.wait(i / 10)
        end
      end)
    end
    local display <close> = require "executionguard.progress".show(
      table.unpack(jobs))
    for _, j in ipairs(jobs) do j:Run() end
    for _, j in ipairs(jobs) do j:Wait() end
  ]]

  -- What it shows of so many jobs, in so many columns and rows.
  local function shown(n, columns, rows, term)
    local name = os.tmpname()
    local file = assert(io.open(name, "w"))
    file:write(SCRIPT:format(n))
    file:close()
    local pipe = assert(io.popen(("TERM=%s LC_ALL=C.UTF-8 timeout 60 " ..
      "script -qec \"stty cols %d rows %d; '%s' '%s'\" /dev/null </dev/null")
      :format(term or "xterm", columns, rows, process.interpreter(), name)))
    local text = pipe:read "a"
    pipe:close()
    os.remove(name)
    return text
  end

  it("draws one line a job in place, no wider than it is", function()
    local text = shown(3, 60, 24)
    assert.is_truthy(text:find("\27[3A", 1, true))
    local lines = screen(text)
    assert.equal(3, #lines, text)
    for i, line in ipairs(lines) do
      assert.matches(("^job %d  [█]+  100%%%%  %d s  succeeded$"):format(i, i),
                     line)
    end
    for line in text:gsub("\27%[%d*%u", ""):gmatch "[^\r\n]+" do
      assert.is_true(utf8.len(line) < 60, line)
    end
  end)

  it("draws no more lines than there are rows, those that run first",
  function()
    local text = shown(30, 70, 10)
    local lines = screen(text)
    assert.equal(9, #lines, text)
    assert.equal("and 22 more", lines[9])
    assert.is_truthy(text:find("job 30 .*running"))
    for up in text:gmatch "\27%[(%d+)A" do
      assert.is_true(tonumber(up) < 10)
    end
  end)

  it("writes plain lines where it can do nothing but that", function()
    local text = shown(2, 60, 24, "dumb")
    assert.is_nil(text:find "\27")
    assert.equal(24, select(2, text:gsub("\n", "")))
  end)
end)
