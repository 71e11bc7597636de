-- SPDX-License-Identifier: MIT
-- executionguard.progress: what running jobs do, on the terminal.
--
--   local progress = require "executionguard.progress"
--
--   local display <close> = progress.show(upload, download)
--   upload:Run() download:Run()
--   upload:Wait() download:Wait()
--
--   upload    ████████████░░░░░░░░  60%  2.4 %/s  17 s left  running
--   download  ██████░░░░░░░░░░░░░░  30%  1.2 %/s  58 s left  running
--
-- On a terminal there is a line for each job, drawn again in place, at most
-- every `interval` seconds and when a state changes; where there are more jobs
-- than rows, for those that run.  Elsewhere (a file, a pipe, TERM=dumb) plain
-- lines: one for each change of a state and each tenth.

local core = require "executionguard.core"
local job = require "executionguard.job"
local options = require "executionguard.job_options"
local terminal = require "executionguard.terminal"

local steady, describe = core.clock.steady, options.describe

local progress = {}

local BAR <const> = 20 -- characters

local Display = { __name = "ExecutionGuard progress display" }
Display.__index = Display

-- ------------------------------------------------------------------ text --

local function duration(seconds)
  if seconds < 60 then
    return ("%.0f s"):format(math.ceil(seconds))
  elseif seconds < 3600 then
    return ("%d:%02d min"):format(seconds // 60, seconds // 1 % 60)
  end
  return ("%d:%02d h"):format(seconds // 3600, seconds // 60 % 60)
end

local function bar(share, full, empty)
  local n = math.floor(share * BAR)
  return full:rep(n) .. empty:rep(BAR - n)
end

-- In characters, which may be taken for columns.
local function width_of(text)
  return utf8.len(text) or #text
end

-- progress.line(stats, {width=, ascii=}?) -> one line about a job, of its
-- Stats(): name, bar, per cent, rate and time left (while it runs and says how
-- far it is), state.
function progress.line(stats, style)
  style = style or {}
  local share, parts = stats.progress, {}
  local full, empty = "█", "░"
  if style.ascii then
    full, empty = "#", "."
  end
  local name = stats.id:gsub("%c", "?")
  parts[1] = name .. (" "):rep((style.width or 0) - width_of(name))
  if share >= 0 then
    parts[2] = bar(share, full, empty)
    parts[3] = ("%3.0f%%"):format(math.floor(share * 100))
  else
    parts[2], parts[3] = (" "):rep(BAR), "    "
  end
  if stats.state == job.State.Running and share > 0 and
     stats.executionTime > 0 then
    local rate = share / stats.executionTime
    parts[#parts + 1] = (rate < 1 and "%.3g %%/s" or "%.0f %%/s"):format(
      rate * 100)
    parts[#parts + 1] = duration((1 - share) / rate) .. " left"
  elseif stats.executionTime > 0 then
    parts[#parts + 1] = duration((stats.executionTime + 0.5) // 1)
  end
  parts[#parts + 1] = stats.state
  if stats.error then
    parts[#parts + 1] = (stats.error:gsub("%c.*", ""))
  end
  return table.concat(parts, "  ")
end

-- A line that does not fit would not be drawn in place.
local function cut(text, columns)
  local at = utf8.len(text) and utf8.offset(text, columns)
  return at and text:sub(1, at - 1) or text:sub(1, utf8.len(text) and #text or
                                                   columns - 1)
end

-- --------------------------------------------------------------- drawing --

-- What cannot be written is said once, and no more is drawn: a display has to
-- do no harm to the jobs.
local function put(display, text)
  if display.broken then
    return
  end
  local ok, wrong = pcall(function()
    for _, method in ipairs { "write", "flush" } do
      local fine, err = display.out[method](display.out, text)
      if not fine and err ~= nil then
        error(err, 0)
      end
    end
  end)
  if not ok then
    display.broken = true
    pcall(warn, "[ExecutionGuard] a progress display ends, as its output " ..
          "cannot be written: ", tostring(wrong))
  end
end

-- The jobs that there is room for, and how many there is none for: those that
-- run come first.
local function chosen(display, rows)
  local jobs = display.jobs
  if #jobs < rows then
    return jobs, 0
  end
  local list, others = {}, {}
  for _, j in ipairs(jobs) do
    local where = j:IsExecuting() and list or others
    where[#where + 1] = j
  end
  table.move(others, 1, #others, #list + 1, list)
  local room = math.max(rows - 2, 1)
  return table.move(list, 1, room, 1, {}), #list - room
end

-- All lines, over those that were drawn before.
local function redraw(display)
  local columns, rows = display.columns, math.huge
  if display.broken then
    return
  elseif display.is_terminal and io.type(display.out) == "file" then
    -- its size may have changed
    columns, rows = core.terminal(display.out)
    columns, rows = columns or display.columns, rows or math.huge
  end
  local lines = {}
  if display.drawn > 0 then
    lines[1] = ("\27[%dA"):format(display.drawn)
  end
  local jobs, more = chosen(display, rows)
  for _, j in ipairs(jobs) do
    lines[#lines + 1] = "\r" .. cut(progress.line(j:Stats(), display.style),
                                    columns) .. "\27[K\n"
  end
  if more > 0 then
    lines[#lines + 1] = ("\rand %d more\27[K\n"):format(more)
  end
  display.drawn = #jobs + (more > 0 and 1 or 0)
  display.last = steady()
  put(display, table.concat(lines) .. "\27[J")
end

local function plain(display, j)
  put(display, progress.line(j:Stats(), display.style) .. "\n")
end

local function state_changed(display, j)
  display.tenth[j] = 0
  if display.columns then
    redraw(display)
  else
    plain(display, j)
  end
end

local function progressed(display, j, share)
  if display.columns then
    if steady() - display.last >= display.interval then
      redraw(display)
    end
  elseif share * 10 // 1 > (display.tenth[j] or 0) then
    display.tenth[j] = share * 10 // 1
    plain(display, j)
  end
end

-- ------------------------------------------------------------------ using --

-- display:Add(job): one more.
function Display:Add(j)
  if not job._is(j) then
    error("Add: a job is needed, not " .. describe(j), 2)
  end
  self.jobs[#self.jobs + 1] = j
  self.style.width = math.max(self.style.width, width_of(j:ID()))
  local stops = self.stops
  stops[#stops + 1] = j:On("state", function() state_changed(self, j) end)
  stops[#stops + 1] = j:On("progress", function(_, share)
    progressed(self, j, share)
  end)
  if j:IsExecuting() then
    state_changed(self, j)
  end
end

-- display:Stop(): draws a last time, and no more.
function Display:Stop()
  for _, stop in ipairs(self.stops) do
    stop()
  end
  if #self.stops > 0 and self.columns and self.drawn > 0 then
    redraw(self)
  end
  self.stops = {}
end

Display.__close = Display.Stop

local function is_file(out)
  if io.type(out) then
    return io.type(out) == "file"
  end
  local ok, can = pcall(function() return out.write and out.flush end)
  return ok and can ~= nil
end

-- name -> may it be that value? what it must be
local OPTIONS <const> = {
  out = { is_file, "an open file, or an object with write and flush" },
  terminal = { function(value)
    return value == false or math.type(value) == "integer" and value > 0
  end, "a number of columns, or false" },
  interval = { function(value)
    return type(value) == "number" and value >= 0
  end, "a number of seconds, 0 or more" },
  ascii = { function(value) return type(value) == "boolean" end, "a boolean" },
}

-- What is wrong, or nil.
local function complaint(given)
  for name, value in pairs(given) do
    local option = OPTIONS[name]
    if not option then
      return ("there is no option %s; there are ascii, interval, out and " ..
        "terminal"):format(describe(name))
    elseif not option[1](value) then
      return ("option '%s' must be %s, not %s"):format(name, option[2],
        io.type(value) and "a " .. io.type(value) or describe(value))
    end
  end
end

-- progress.show(job...  , {out=, terminal=, interval=, ascii=}?) -> a display,
-- until display:Stop() or its end as a <close> variable.  out: a file, default
-- io.stderr; terminal: columns, or false for plain lines, default: what out
-- is; interval: seconds between two drawings, default 0.1; ascii: default as
-- the locale says.
function progress.show(...)
  local given, n = {}, select("#", ...)
  local last = n > 0 and select(n, ...) or nil
  if type(last) == "table" and not job._is(last) then
    given, n = last, n - 1
  end
  local wrong = complaint(given)
  for i = 1, n do
    local j = select(i, ...)
    if not wrong and not job._is(j) then
      wrong = "a job is needed, not " .. describe(j)
    end
  end
  if wrong then
    error("progress.show: " .. wrong, 2)
  end
  local out, columns = given.out or io.stderr, given.terminal
  local is_terminal = columns == nil and io.type(out) == "file" and
                      os.getenv "TERM" ~= "dumb"
  if is_terminal then
    columns = core.terminal(out)
  end
  local ascii = given.ascii
  if ascii == nil then
    ascii = not terminal.utf8()
  end
  local display = setmetatable({ out = out, columns = columns or nil,
    is_terminal = is_terminal,
    interval = given.interval or 0.1, style = { ascii = ascii, width = 0 },
    jobs = {}, stops = {}, tenth = {}, drawn = 0, last = 0 }, Display)
  for i = 1, n do
    display:Add((select(i, ...)))
  end
  return display
end

core.own.claim()

return progress
