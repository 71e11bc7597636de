-- SPDX-License-Identifier: MIT
-- The rules of an executor, read and checked.

local context = require "executionguard.context"
local job_options = require "executionguard.job_options"

local describe = job_options.describe

local options = { describe = describe }

local KEY_MAX <const> = 512 -- bytes, of a guard's keys

-- Each check: what is wrong with a value, or nil.

local function must_be(name, what, value)
  return ("option '%s' must be %s, not %s"):format(name, what,
    describe(value))
end

local function number_check(name)
  return function(value)
    if type(value) ~= "number" or value ~= value then
      return must_be(name, "a number of seconds", value)
    end
  end
end

local function type_check(name, kind, what)
  return function(value)
    if type(value) ~= kind then
      return must_be(name, what, value)
    end
  end
end

local RETRY_CHECKS = {
  attempts = function(value)
    if math.type(value) ~= "integer" and value ~= math.huge then
      return must_be("retry.attempts", "a whole number", value)
    end
  end,
  delay = number_check "retry.delay",
  factor = number_check "retry.factor",
  maxDelay = number_check "retry.maxDelay",
  jitter = number_check "retry.jitter",
  on = type_check("retry.on", "function", "a function"),
}

local function first_complaint(given, checks, prefix)
  for name, value in pairs(given) do
    local check = checks[name]
    if not check then
      local known = {}
      for other in pairs(checks) do
        known[#known + 1] = other
      end
      table.sort(known)
      return ("there is no option %s; there are %s"):format(
        describe(prefix .. tostring(name)), table.concat(known, ", "))
    end
    local wrong = check(value)
    if wrong then
      return wrong
    end
  end
end

local function check_retry(value)
  if type(value) ~= "table" then
    return must_be("retry", "a table {attempts=, delay=, ...}", value)
  end
  return first_complaint(value, RETRY_CHECKS, "retry.")
end

local function check_key(value)
  if type(value) ~= "string" or value == "" or #value > KEY_MAX then
    return must_be("key", ("a string of 1 to %d bytes"):format(KEY_MAX),
                   value)
  end
end

local function check_guard(value)
  if getmetatable(value) ~= "ExecutionGuard" then
    return must_be("guard", "a guard of ExecutionGuard.new", value)
  end
end

local CHECKS = {
  retry = check_retry,
  timeout = number_check "timeout",
  cooldown = number_check "cooldown",
  once = type_check("once", "boolean", "a boolean"),
  onComplete = type_check("onComplete", "function", "a function"),
  guard = check_guard,
  key = check_key,
}

-- ------------------------------------------------------- in Go's words --

local Option = { __name = "ExecutionGuard executor option" }

-- needed: the name of the value that has to be there.
-- Called in brackets: a tail call would not know who called it.
local function option(values, method, needed)
  local wrong = first_complaint(values, CHECKS, "") or
                needed and values[needed] == nil and CHECKS[needed](nil)
  if wrong then
    error(("executor.%s: %s"):format(method, wrong), 3)
  end
  return setmetatable(values, Option)
end

-- executor.WithRetry(attempts, delay?): without growing delays; {factor=} is
-- for those.
function options.WithRetry(attempts, delay)
  return (option({ retry = { attempts = attempts, delay = delay } },
                 "WithRetry"))
end

function options.WithTimeout(seconds)
  return (option({ timeout = seconds }, "WithTimeout", "timeout"))
end

function options.NoTimeout()
  return (option({ timeout = 0 }, "NoTimeout"))
end

function options.WithCooldown(seconds)
  return (option({ cooldown = seconds }, "WithCooldown", "cooldown"))
end

function options.Once()
  return (option({ once = true }, "Once"))
end

function options.OnComplete(fn)
  return (option({ onComplete = fn }, "OnComplete", "onComplete"))
end

function options.WithGuard(guard, key)
  return (option({ guard = guard, key = key }, "WithGuard", "guard"))
end

-- ---------------------------------------------------------------- reading --

-- A number of zero or less, and for ever, mean not set.
local function positive(seconds)
  return seconds and seconds > 0 and seconds < math.huge and seconds or nil
end

local function retry_of(given)
  if not given then
    return nil
  end
  local attempts = given.attempts or 3
  if attempts <= 0 then
    return nil
  end
  return {
    attempts = attempts, delay = positive(given.delay) or 0,
    factor = positive(given.factor) or 1,
    maxDelay = positive(given.maxDelay) or math.huge,
    jitter = math.min(positive(given.jitter) or 0, 1), on = given.on,
  }
end

-- What executor.new was given, of its caller, for a job of that id; of each
-- name the last counts.
function options.read(id, ...)
  local rules = {}
  for i = 1, select("#", ...) do
    local given = select(i, ...)
    if given ~= nil and type(given) ~= "table" then
      error("executor.new: options must be a table, or executor.With..., " ..
            "not " .. describe(given), 3)
    end
    local wrong = given and first_complaint(given, CHECKS, "")
    if wrong then
      error("executor.new: " .. wrong, 3)
    end
    for name, value in pairs(given or rules) do
      rules[name] = value
    end
  end
  if rules.key and not rules.guard then
    error("executor.new: option 'key' is of no use without a guard", 3)
  elseif rules.guard and not rules.key and #id > KEY_MAX then
    error(("executor.new: the job's id, which is the key, has %d bytes; at " ..
      "most %d are taken: give option 'key'"):format(#id, KEY_MAX), 3)
  end
  rules.retry = retry_of(rules.retry)
  rules.timeout = positive(rules.timeout)
  rules.cooldown = positive(rules.cooldown)
  return rules
end

-- Seconds between the attempt of that number, which failed, and the next.
function options.delay(retry, number)
  local delay = math.min(retry.delay * retry.factor ^ (number - 1),
                         retry.maxDelay)
  return delay * (1 - retry.jitter * math.random())
end

local SCHEDULE_CHECKS = {
  every = function(value)
    if type(value) ~= "number" or not (value > 0 and value < math.huge) then
      return must_be("every", "a number of seconds above 0", value)
    end
  end,
  jitter = function(value)
    if type(value) ~= "number" or not (value >= 0 and value < math.huge) then
      return must_be("jitter", "a number of seconds, 0 or more", value)
    end
  end,
  context = function(value)
    if not context._is(value) then
      return must_be("context", "one of executionguard.context", value)
    end
  end,
  params = function() end,
}

function options.read_schedule(given)
  local wrong
  if type(given) ~= "table" then
    wrong = "options must be a table {every=, jitter=}, not " ..
            describe(given)
  else
    wrong = first_complaint(given, SCHEDULE_CHECKS, "") or
            given.every == nil and SCHEDULE_CHECKS.every(nil)
  end
  if wrong then
    error("executor.schedule: " .. wrong, 3)
  end
  return given
end

return options
