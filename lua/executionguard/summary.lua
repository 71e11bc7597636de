-- SPDX-License-Identifier: MIT
-- What a guard has seen and what the process has done, printed.

local core = require "executionguard.core"
local describe = require "executionguard.describe"
local terminal = require "executionguard.terminal"

local summary = {}

local METHOD = "ExecutionGuard.printSummary"
local WIDTH, LEAST_WIDTH = 80, 20 -- columns
local MOST_COLUMNS <const> = 1000
local TOP, MOST = 10, 1000 -- keys of a kind

local JOB_STATES = { "created", "running", "canceling", "succeeded", "failed",
  "canceled" }

-- summary.rows(jobs): the rows of the box that tell of the jobs and executors
-- of this Lua state; none where there are none.  jobs: what job.list()
-- returns, or nil.
function summary.rows(jobs)
  local rows = {}
  if not jobs or #jobs == 0 then
    return rows
  end
  local by_state, executors, retries = {}, 0, 0
  for _, stats in ipairs(jobs) do
    by_state[stats.state] = (by_state[stats.state] or 0) + 1
    for _, exec in ipairs(stats.executors or {}) do
      executors = executors + 1
      retries = retries + exec.retries
    end
  end
  rows[1] = { "Jobs", #jobs }
  for _, state in ipairs(JOB_STATES) do
    rows[#rows + 1] = { "  " .. state, by_state[state] or 0 }
  end
  if executors > 0 then
    rows[#rows + 1] = { "Executors", executors }
    rows[#rows + 1] = { "  failed attempts", retries }
  end
  return rows
end

local function is_count(value, least, most)
  return math.type(value) == "integer" and value >= least and value <= most
end

-- What each option has to be, and whether a value is that.
local OPTIONS <const> = {
  ascii = { "a boolean", function(v) return type(v) == "boolean" end },
  columns = { ("an integer from %d to %d"):format(LEAST_WIDTH, MOST_COLUMNS),
              function(v) return is_count(v, LEAST_WIDTH, MOST_COLUMNS) end },
  top = { ("an integer from 0 to %d"):format(MOST),
          function(v) return is_count(v, 0, MOST) end },
}

-- What is wrong with the options, or nil.
local function complaint(options)
  if options == nil then
    return nil
  elseif type(options) ~= "table" then
    return "options must be a table {top = 10}, not " .. describe(options)
  end
  for name, value in pairs(options) do
    local option = OPTIONS[name]
    if not option then
      return ("there is no option %s; there are ascii, columns, top"):format(
        type(name) == "string" and "'" .. name .. "'" or describe(name))
    elseif not option[2](value) then
      return ("option '%s' must be %s, not %s"):format(name, option[1],
        describe(value))
    end
  end
end

-- ExecutionGuard.printSummary(guard, options): prints how many records the
-- guard has, by status, what all guards of this process have done, and the
-- slowest and the failing keys, by the global `print`, a line a call.
--   guard            an open guard
--   options.top      how many keys of a kind; default 10, 0: only the box
--   options.ascii    true: plain ASCII; false: UTF-8; default: UTF-8 where
--                    LC_ALL, LC_CTYPE or LANG say so
--   options.columns  no line is wider; default: as the terminal is, else 80
-- Returns nothing.  Raises for anything but an open guard, for options that do
-- not exist or are wrong, and where the store cannot be read.
function summary.print(guard, options)
  if type(guard) ~= "userdata" or getmetatable(guard) ~= "ExecutionGuard" then
    error(("%s: takes a guard, not %s"):format(METHOD, describe(guard)), 2)
  end
  local wrong = complaint(options)
  if wrong then
    error(("%s: %s"):format(METHOD, wrong), 2)
  end
  options = options or {}
  local ascii = options.ascii
  if ascii == nil then
    ascii = not terminal.utf8()
  end
  local columns = options.columns or core.terminal(io.stdout) or WIDTH
  local job = package.loaded["executionguard.job"]
  local ok, lines = pcall(core.summary, guard, options.top or TOP,
    math.max(columns, LEAST_WIDTH), ascii, summary.rows(job and job.list()))
  if not ok then -- closed, or its store is away
    error(lines, 2)
  end
  for _, line in ipairs(lines) do
    print(line)
  end
end

return summary
