-- SPDX-License-Identifier: MIT
-- What a job may be told when it is made: labels, logger, grace time, an id.

local options = {}

-- A value, for people.
function options.describe(value)
  local kind = type(value)
  if kind == "string" then
    return #value <= 60 and ("the string '%s'"):format(value) or "a string"
  elseif kind == "number" or kind == "boolean" then
    return tostring(value)
  elseif kind == "nil" then
    return "nil"
  end
  return "a " .. kind
end

local describe = options.describe

function options.copy(t)
  local made = {}
  for k, v in pairs(t or made) do
    made[k] = v
  end
  return made
end

-- ------------------------------------------------------------ progress --

function options.is_progress(value)
  return math.type(value) and value >= 0 and value <= 1
end

-- A sum of fractions may come out a hair above 1: then it is 1.
function options.progress_of(value)
  if options.is_progress(value) then
    return value
  elseif math.type(value) and value > 1 and value <= 1 + 1e-9 then
    return 1.0
  end
end

function options.progress_wanted(value)
  return "progress must be a number from 0 to 1, not " .. describe(value)
end

-- -------------------------------------------------------------- checks --

local function check_label(key, value)
  if type(key) ~= "string" or key == "" then
    return "the name of a label must be a string, not " .. describe(key)
  elseif type(value) ~= "string" then
    return ("label '%s' must be a string, not %s"):format(key,
      describe(value))
  end
end

local CHECKS = {}

function CHECKS.labels(labels)
  if type(labels) ~= "table" then
    return "option 'labels' must be a table of strings, not " ..
           describe(labels)
  end
  for key, value in pairs(labels) do
    local wrong = check_label(key, value)
    if wrong then
      return wrong
    end
  end
end

local LEVELS <const> = { "Debug", "Info", "Warn", "Error" }

local function can_be_indexed(value)
  local meta = getmetatable(value)
  return type(value) == "table" or type(meta) == "table" and meta.__index
end

function CHECKS.logger(logger)
  if not can_be_indexed(logger) then
    return "option 'logger' must be a table with Debug, Info, Warn and " ..
           "Error, not " .. describe(logger)
  end
  for _, level in ipairs(LEVELS) do
    if logger[level] == nil then
      return ("option 'logger': it has no %s(self, message, fields)"):format(
        level)
    end
  end
end

function CHECKS.grace(grace)
  if type(grace) ~= "number" or not (grace >= 0 and grace < math.huge) then
    return "option 'grace' must be a number of seconds, 0 or more, not " ..
           describe(grace)
  end
end

-- -------------------------------------------------------------- options --

local Option = { __name = "ExecutionGuard job option" }

-- Called in brackets: a tail call would not know who called it.
local function option(name, value, method)
  local wrong = CHECKS[name](value)
  if wrong then
    error(("job.%s: %s"):format(method, wrong), 3)
  end
  return setmetatable({ [name] = value }, Option)
end

-- job.WithLabel(key, value), .WithLabels{...}, .WithLogger(l), .WithGrace(s)
function options.WithLabel(key, value)
  local wrong = check_label(key, value)
  if wrong then
    error("job.WithLabel: " .. wrong, 2)
  end
  return (option("labels", { [key] = value }, "WithLabel"))
end

function options.WithLabels(labels)
  return (option("labels", labels, "WithLabels"))
end

function options.WithLogger(logger)
  return (option("logger", logger, "WithLogger"))
end

function options.WithGrace(seconds)
  return (option("grace", seconds, "WithGrace"))
end

-- Gives a new job its options, of job.new's caller.
function options.apply(j, given)
  if given == nil then
    return
  elseif type(given) ~= "table" then
    error("job.new: options must be a table, or job.With..., not " ..
          describe(given), 3)
  end
  for name, value in pairs(given) do
    local checked = CHECKS[name]
    if not checked then
      error(("job.new: there is no option %s; there are grace, labels and " ..
        "logger"):format(describe(name)), 3)
    end
    local wrong = checked(value)
    if wrong then
      error("job.new: " .. wrong, 3)
    elseif name == "labels" then
      j.labels = j.labels or {}
      for key, label in pairs(value) do
        j.labels[key] = label
      end
    else
      j[name] = value
      j.plain = j.plain and name ~= "logger"
    end
  end
end

-- -------------------------------------------------------------- logging --

-- Without a logger: warnings and errors go to warn.
local function to_warn(j, level, message, fields)
  if level == "Warn" or level == "Error" then
    local more = fields and fields.error or ""
    if fields and fields.traceback then -- which begins with the message
      more = tostring(fields.traceback):match "stack traceback:.*" or ""
    end
    warn("[ExecutionGuard] job ", j.id, ": ", message,
         more ~= "" and "\n" .. tostring(more) or "")
  end
end

-- Says it to the job's logger, with its id among the fields; raises nothing.
function options.log(j, level, message, fields)
  local all = { job = j.id }
  if fields ~= nil and type(fields) ~= "table" then
    all.fields = fields -- a mistake, but of one who wants to be heard
  end
  for key, value in next, type(fields) == "table" and fields or {} do
    all[key] = value
  end
  local logger = j.logger
  if logger then
    local ok, err = pcall(function()
      logger[level](logger, message, all)
    end)
    if not ok then
      pcall(warn, "[ExecutionGuard] the logger of job ", j.id, " failed: ",
            tostring(err))
    end
  else
    pcall(to_warn, j, level, tostring(message), all)
  end
end

-- The logger that a job's function gets.
function options.logger_of(j)
  local logger = {}
  for _, level in ipairs(LEVELS) do
    logger[level] = function(_, message, fields)
      options.log(j, level, message, fields)
    end
  end
  return logger
end

-- How a function made by job.worker is started; nil: it is none.
function options.worker_of(fn)
  local meta = type(fn) == "table" and getmetatable(fn)
  return type(meta) == "table" and meta._start and meta or nil
end

return options
