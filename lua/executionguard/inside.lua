-- SPDX-License-Identifier: MIT
-- What executionguard.task, context and job share, and nobody else.
--
-- A SCOPE is what tells a coroutine that its work is to end: a context, or the
-- run of a job.  scope:_scope() is its context.  A scope of a job has more:
-- scope:_died(err, trace), for a coroutine that an error has ended.
--
-- parking.lua adds: start, park, turn_run, wake_all, wait, IN_TIME.

local inside = {
  -- coroutine -> its scope; while it has one.  Of a job's coroutine only when
  -- it has waited: so ask scope_of.
  scopes = setmetatable({}, { __mode = "k" }),
  -- the run of a job whose coroutine has been resumed for the first time, and
  -- has not come back
  starting = nil,
  -- what a coroutine in park is resumed with
  WAKE = {},
  -- the same, when its scope has ended
  ENDED = {},
}

-- The scope of a coroutine; nil: none.
function inside.scope_of(thread)
  local scope, starting = inside.scopes[thread], inside.starting
  if scope == nil and starting and starting.thread == thread then
    return starting
  end
  return scope
end

return inside
