-- SPDX-License-Identifier: MIT
-- executionguard.compat: the globals that code written for the original
-- ExecutionGuard, in Luau, expects.
--
-- `require "executionguard.compat"` sets exactly these two:
--
--   task   unless there is one: a table with
--            task.wait(seconds?) -> seconds that passed
--          which blocks the thread, by the guards' clock; 0 where nothing is
--          given.  Under a clock of executionguard.testing it moves the clock
--          and returns at once.
--   warn   Lua's own, switched on ("@on"), behind a function that takes what
--          Luau's takes: any number of values of any type, written with a
--          space between them.  One string alone goes to Lua's as it is, so
--          warn "@off" and warn "@on" still mean what they mean in Lua.
--
-- Nothing else: no other global, no change to the syntax.  A Luau file also
-- needs its back-tick strings rewritten, and `for _, x in list do` over a
-- plain table needs ipairs or pairs (what GetAllRecords and GetAnalytics
-- return can be gone over as it is).
-- Returns a table with the same two, for who prefers locals.

local core = require "executionguard.core"

local compat = { task = {} }

-- task.wait(seconds) -> seconds that passed, by the guards' clock.  Raises for
-- a number that is negative, infinite or NaN, and for what is no number.
function compat.task.wait(seconds)
  if seconds == nil then
    seconds = 0
  elseif type(seconds) ~= "number" then
    error(("task.wait: seconds must be a number, not a %s"):format(
      type(seconds)), 2)
  elseif not (seconds >= 0 and seconds < math.huge) then
    error(("task.wait: seconds must be 0 or more, and finite, not %s"):format(
      seconds), 2)
  end
  local start = core.clock.steady()
  core.clock.sleep(seconds)
  return core.clock.steady() - start
end

local warn_of_lua = warn

-- warn(...): writes a warning, any values with spaces between them.
function compat.warn(...)
  local n = select("#", ...)
  if n == 1 and type(...) == "string" then
    warn_of_lua(...)
    return
  end
  local words = { ... }
  for i = 1, n do
    words[i] = tostring(words[i])
  end
  -- A message in two pieces is never taken for a control message.
  warn_of_lua("", table.concat(words, " "))
end

warn_of_lua "@on"
rawset(_G, "warn", compat.warn)
if rawget(_G, "task") == nil then
  rawset(_G, "task", compat.task)
end

return compat
