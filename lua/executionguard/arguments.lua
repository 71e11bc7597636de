-- SPDX-License-Identifier: MIT
-- Arguments of executionguard.task, checked; the caller's caller is to blame.

local core = require "executionguard.core"
local describe = require "executionguard.describe"

local create, status = coroutine.create, coroutine.status

local function check_seconds(seconds, method)
  if type(seconds) ~= "number" then
    error(("%s: seconds must be a number, not %s"):format(
      method, describe(seconds)), 3)
  elseif not (seconds >= 0 and seconds < math.huge) then
    error(("%s: seconds must be 0 or more, and finite, not %s"):format(
      method, seconds), 3)
  end
end

-- Up, but for what is only a product's rounding, as the core does it.
local function microseconds(seconds)
  local us = seconds * 1e6
  local whole = us // 1
  return us - whole > us * 4e-16 and whole + 1 or whole
end

-- The thread that is meant: of a function a new one.
local function thread_of(value, method)
  local kind = type(value)
  if kind == "function" then
    return create(value)
  elseif kind ~= "thread" then
    error(("%s: a function or a thread is needed, not %s"):format(method,
      describe(value)), 3)
  elseif status(value) == "dead" then
    error(("%s: the thread is dead: it has ended, failed or was cancelled")
      :format(method), 3)
  end
  return value
end

local function packed(...)
  if select("#", ...) > 0 then
    return table.pack(...)
  end
end

core.own.claim()

return { seconds = check_seconds, microseconds = microseconds,
  thread = thread_of, packed = packed, describe = describe }
