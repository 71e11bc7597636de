-- SPDX-License-Identifier: MIT
-- executionguard.compat: the globals that code written for the original
-- ExecutionGuard, in Luau, expects.
--
-- `require "executionguard.compat"` sets exactly these two:
--
--   task   unless there is one: executionguard.task, with spawn, defer, delay,
--          wait, cancel as in Luau, and run, which a program has to call where
--          the engine would go on by itself.  task.wait outside of a task, as
--          in the main program, returns when the time is over; tasks run
--          meanwhile.
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

local compat = { task = require "executionguard.task" }

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
