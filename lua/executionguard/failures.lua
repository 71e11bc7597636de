-- SPDX-License-Identifier: MIT
-- Who is told of what a task raises.

local core = require "executionguard.core"

local failures = {}

local handler = nil -- of task.onError

-- An error object as text, whatever it is.
function failures.text_of(err)
  if type(err) == "string" then
    return err
  end
  local ok, text = pcall(tostring, err)
  return ok and text or ("(error object is a %s value)"):format(type(err))
end

-- Raises nothing.
function failures.report(err, trace, thread)
  if handler then
    local ok, wrong = pcall(handler, err, trace, thread)
    if ok then
      return
    end
    pcall(warn, "[ExecutionGuard] the handler of task.onError failed: ",
          failures.text_of(wrong))
  end
  pcall(warn, "[ExecutionGuard] a task failed: ", trace)
end

-- Sets the handler, or nil; returns the one so far.
function failures.set_handler(fn)
  local previous = handler
  handler = fn
  return previous
end

core.own.claim()

return failures
