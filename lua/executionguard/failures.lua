-- SPDX-License-Identifier: MIT
-- What becomes of what a task raises: who is told of it.

local core = require "executionguard.core"
local inside = require "executionguard.inside"

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

-- Closes a thread; what its <close> variables raise is reported, but for the
-- error that is known already.
function failures.close(thread, known)
  local ok, err = coroutine.close(thread)
  if not ok and not rawequal(err, known) then
    failures.report(err, failures.text_of(err) ..
                    "\n\tin a <close> variable", thread)
  end
end

-- A resume has failed: true if that was the task's own error.
function failures.failed(thread, err)
  if coroutine.status(thread) ~= "dead" then
    return false -- it was not resumed: the C stack is full
  end
  if core.own.interrupted(err) then -- with all others, and no fault of its own
    failures.close(thread, err)
    return true
  end
  local trace = debug.traceback(thread, failures.text_of(err))
  local owner = inside.scope_of(thread)
  if owner and owner._died then
    owner:_died(err, trace)
    owner._close(thread)
    return true
  end
  failures.close(thread, err)
  failures.report(err, trace, thread)
  return true
end

-- Sets the handler, or nil; returns the one so far.
function failures.set_handler(fn)
  local previous = handler
  handler = fn
  return previous
end

core.own.claim()

return failures
