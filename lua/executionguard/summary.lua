-- SPDX-License-Identifier: MIT
-- What a guard has seen and what the process has done, printed in a box.

local terminal = require "executionguard.terminal"

local summary = {}

local TITLE = "EXECUTION GUARD SUMMARY"
local METHOD = "ExecutionGuard.printSummary"
local LEAST_WIDTH = 46 -- columns inside the box

-- The order of life of a record, not that of a hash table: two summaries can
-- be laid side by side.
local STATUSES = { "Idle", "Running", "Completed", "TimedOut", "Failed" }
local COUNTERS = {
  { "Total Executions", "totalExecutions" },
  { "Blocked", "blockedExecutions" },
  { "Cached", "cachedResults" },
  { "Timed Out", "timedOutExecutions" },
  { "Failed", "failedExecutions" },
}

local BOX = {
  bar = "═", side = "║",
  top = { "╔", "╗" }, rule = { "╠", "╣" }, bottom = { "╚", "╝" },
}
local ASCII_BOX = {
  bar = "=", side = "|",
  top = { "+", "+" }, rule = { "+", "+" }, bottom = { "+", "+" },
}

local JOB_STATES = { "created", "running", "canceling", "succeeded", "failed",
  "canceled" }

-- Of the jobs and executors of this Lua state; nothing where there are none.
local function add_jobs(rows, jobs)
  if not jobs or #jobs == 0 then
    return
  end
  local by_state, executors, retries = {}, 0, 0
  for _, stats in ipairs(jobs) do
    by_state[stats.state] = (by_state[stats.state] or 0) + 1
    for _, exec in ipairs(stats.executors or {}) do
      executors = executors + 1
      retries = retries + exec.retries
    end
  end
  rows[#rows + 1] = {}
  rows[#rows + 1] = { "Jobs", #jobs }
  for _, state in ipairs(JOB_STATES) do
    rows[#rows + 1] = { "  " .. state, by_state[state] or 0 }
  end
  if executors > 0 then
    rows[#rows + 1] = { "Executors", executors }
    rows[#rows + 1] = { "  failed attempts", retries }
  end
end

-- {label, number}, {label} for a heading, or {} for a rule.
local function rows_of(analytics, jobs)
  local rows = { { "Total Records", analytics.totalRecords }, {} }
  rows[#rows + 1] = { "Status Distribution" }
  for _, status in ipairs(STATUSES) do
    rows[#rows + 1] = { "  " .. status, analytics.byStatus[status] }
  end
  rows[#rows + 1] = {}
  rows[#rows + 1] = { "Global Statistics (this process)" }
  local counts = analytics["global"] -- a reserved word in Lua 5.5
  for _, counter in ipairs(COUNTERS) do
    rows[#rows + 1] = { "  " .. counter[1], counts[counter[2]] }
  end
  add_jobs(rows, jobs)
  return rows
end

-- The text of a row without its sides, width columns wide.  All of it is
-- ASCII, so bytes are columns.
local function text_of(row, width)
  local label = row[1]
  local number = row[2] and ("%d"):format(row[2]) or ""
  return label .. (" "):rep(width - #label - #number) .. number
end

-- As wide as the widest row, with two columns between label and number.
local function width_of(rows)
  local width = LEAST_WIDTH
  for _, row in ipairs(rows) do
    local number = row[2] and ("%d"):format(row[2]) or ""
    width = math.max(width, #(row[1] or "") + 2 + #number)
  end
  return width
end

-- summary.lines(analytics, ascii, jobs) -> list of strings: the lines of the
-- box.  analytics is what guard:GetAnalytics() returns; ascii: draw with + = |
-- only; jobs: what job.list() returns, or nil.
function summary.lines(analytics, ascii, jobs)
  local box = ascii and ASCII_BOX or BOX
  local rows = rows_of(analytics, jobs)
  local width = width_of(rows)
  local lines = {}
  local function put(left, text, right)
    lines[#lines + 1] = left .. text .. right
  end
  local function rule(ends)
    put(ends[1], box.bar:rep(width + 2), ends[2])
  end
  local function line(text)
    put(box.side .. " ", text, " " .. box.side)
  end
  rule(box.top)
  local before = (width - #TITLE) // 2
  line((" "):rep(before) .. TITLE .. (" "):rep(width - #TITLE - before))
  rule(box.rule)
  for _, row in ipairs(rows) do
    if row[1] then
      line(text_of(row, width))
    else
      rule(box.rule)
    end
  end
  rule(box.bottom)
  return lines
end

-- What is wrong with the options, or nil.
local function complaint(options)
  if options == nil then
    return nil
  elseif type(options) ~= "table" then
    return ("options must be a table {ascii = boolean}, not a %s"):format(
      type(options))
  end
  for name, value in pairs(options) do
    if name ~= "ascii" then
      return ("there is no option '%s'; the only one is 'ascii'"):format(
        tostring(name))
    elseif type(value) ~= "boolean" then
      return ("option 'ascii' must be a boolean, not a %s"):format(
        type(value))
    end
  end
end

-- ExecutionGuard.printSummary(guard, options): prints how many records the
-- guard has, by status, and what all guards of this process have done, by the
-- global `print`, a line a call.
--   guard          an open guard
--   options.ascii  true: plain ASCII; false: UTF-8; default: UTF-8 where
--                  LC_ALL, LC_CTYPE or LANG say so
-- Returns nothing.  Raises for anything but an open guard, for options that do
-- not exist or are of the wrong type, and where the store cannot be read.
function summary.print(guard, options)
  if type(guard) ~= "userdata" or getmetatable(guard) ~= "ExecutionGuard" then
    error(("%s: takes a guard, not a %s"):format(METHOD, type(guard)), 2)
  end
  local wrong = complaint(options)
  if wrong then
    error(("%s: %s"):format(METHOD, wrong), 2)
  end
  local ok, analytics = pcall(guard.GetAnalytics, guard)
  if not ok then -- closed, or its store is away; said in our name
    error((tostring(analytics):gsub("^GetAnalytics", METHOD)), 2)
  end
  local ascii = options and options.ascii
  if ascii == nil then
    ascii = not terminal.utf8()
  end
  local job = package.loaded["executionguard.job"]
  local jobs = job and job.list()
  for _, line in ipairs(summary.lines(analytics, ascii, jobs)) do
    print(line)
  end
end

return summary
