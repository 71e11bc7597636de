-- SPDX-License-Identifier: MIT
-- ExecutionGuard.configure: settings of the process, checked and kept.

local core = require "executionguard.core"

local METHOD = "ExecutionGuard.configure"

local module = {}

-- What was asked for.
module.settings = {}

local ENGINES = { signal = true, count = true, none = true }

-- By POSIX no program can handle these two.  Numbers as on Linux.
local UNUSABLE = { [9] = "SIGKILL", [19] = "SIGSTOP" }

-- A value, for people.
local function describe(value)
  local kind = type(value)
  if kind == "string" then
    return ("the string '%s'"):format(value)
  elseif kind == "number" or kind == "boolean" then
    return tostring(value)
  end
  return "a " .. kind
end

-- Each check takes a value and returns what is wanted instead, or nil.

local function check_signal(value)
  if math.type(value) ~= "integer" or value < 1 or value > 64 then
    return "the number of a signal, 1 to 64"
  elseif UNUSABLE[value] then
    return ("a signal that a program can handle (%d is %s)"):format(
      value, UNUSABLE[value])
  end
end

local function check_engine(value)
  if type(value) ~= "string" or not ENGINES[value] then
    return '"signal", "count" or "none"'
  end
end

local function check_loop(value)
  if value ~= false and type(value) ~= "table" then
    return "a table, or false for none"
  end
  return value and require("executionguard.waiting").complaint(value)
end

local function check_clock(value)
  if value ~= false and
     not require("executionguard.testing").isClock(value) then
    return "a clock of executionguard.testing, or false for the system's"
  end
end

local function check_boolean(value)
  if type(value) ~= "boolean" then
    return "true or false"
  end
end

local CHECKS = {
  terminate = check_boolean,
  signal = check_signal,
  waitSignal = check_signal,
  engine = check_engine,
  loop = check_loop,
  clock = check_clock,
}

-- How many letters must be changed, added or removed to get from a to b.
local function distance(a, b)
  local row = {}
  for j = 0, #b do
    row[j] = j
  end
  for i = 1, #a do
    local diagonal
    diagonal, row[0] = row[0], i
    for j = 1, #b do
      local change = diagonal + (a:byte(i) == b:byte(j) and 0 or 1)
      diagonal = row[j]
      row[j] = math.min(change, row[j] + 1, row[j - 1] + 1)
    end
  end
  return row[#b]
end

local function nearest(word)
  local best, least
  for name in pairs(CHECKS) do
    local d = distance(word, name)
    -- the name decides between two that are equally near, not the hash
    if least == nil or d < least or d == least and name < best then
      best, least = name, d
    end
  end
  return best
end

-- What is wrong with one option, or nil.
local function complaint(name, value)
  if type(name) ~= "string" then
    return ("an option's name is a %s; names are strings"):format(type(name))
  elseif CHECKS[name] == nil then
    -- so long a word is no slip of the pen, and comparing it takes its time
    local hint = #name > 31 and "" or
                 ("; did you mean '%s'?"):format(nearest(name))
    return ("there is no option '%s'%s"):format(name, hint)
  end
  local wants = CHECKS[name](value)
  return wants and ("option '%s' must be %s, not %s"):format(
    name, wants, describe(value))
end

local function first_complaint(options)
  if type(options) ~= "table" then
    return ("options must be a table, not %s"):format(
      options == nil and "nil" or "a " .. type(options))
  end
  for name, value in pairs(options) do
    local wrong = complaint(name, value)
    if wrong then
      return wrong
    end
  end
  local signal = options.signal or module.settings.signal
  if signal and signal == (options.waitSignal or module.settings.waitSignal)
  then
    return ("options 'signal' and 'waitSignal' must differ, both are %d")
      :format(signal)
  end
end

-- ExecutionGuard.configure(options): settings for the whole process; what is
-- not named stays as it is.  Either all options are taken, or none.
--   clock       a clock of executionguard.testing: put in force for all guards
--               (from its start if it was restored before); false: the
--               system's is put back
--   signal      number of the signal that interrupts; default SIGURG
--   waitSignal  number of the one that ends a wait in the kernel for a lock in
--               files; default SIGRTMIN+5
--   engine      "signal" (default), "count" or "none": how runs are
--               interrupted
--   terminate   false: guards on servers that are opened from now on do not
--               see to it that SIGTERM gives back what they hold; default true
--   loop        table: the event loop that runs suspended coroutines; false:
--               none
-- What a loop consists of is in the head of executionguard/waiting.lua; ready
-- ones are executionguard.loop.luv, .cqueues and .copas.
-- Returns nothing.  Raises for an option that does not exist (naming the
-- nearest that does) and for a value that is not as above.
function module.configure(options)
  local wrong = first_complaint(options)
  if wrong then
    error(("%s: %s"):format(METHOD, wrong), 2)
  end
  for name, value in pairs(options) do
    if name == "clock" then
      require("executionguard.testing").install(value)
    else
      module.settings[name] = value
    end
  end
  if options.loop ~= nil then
    require "executionguard.task"
    require("executionguard.waiting").plug(options.loop or nil)
  end
  if options.terminate ~= nil then
    core.terminate(options.terminate)
  end
  if options.waitSignal then
    core.waitSignal(options.waitSignal)
  end
  if options.engine or options.signal then
    core.engine(module.settings.engine, module.settings.signal)
  end
end

return module
