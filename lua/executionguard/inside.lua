-- SPDX-License-Identifier: MIT
-- What executionguard.task, context and job share, and nobody else.
--
-- A SCOPE is what tells a coroutine that its work is to end: a context, or the
-- run of a job.  scope:_scope() is its context.  A scope of a job has more:
-- scope:_died(err, trace), for a coroutine that an error has ended.
--
-- parking.lua adds: start, thread_of, set_body, turn_till, park, wake_all,
-- wait, IN_TIME.

local inside = {
  -- coroutine -> its scope; while it has one.  Of a job's coroutine only when
  -- it has waited: so ask scope_of.
  scopes = setmetatable({}, { __mode = "k" }),
  -- starting(thread) -> the run of a job whose coroutine that is, if it has
  -- been resumed for the first time and has not come back (scheduler.lua)
  starting = nil,
  -- is_starting(run) -> is it that one?
  is_starting = nil,
  -- what a coroutine in park is resumed with
  WAKE = {},
  -- the same, when its scope has ended
  ENDED = {},
  -- what the coroutine of a job's run yields that can run another
  SPARE = {},
}

-- The scope of a coroutine; nil: none.
function inside.scope_of(thread)
  local scope = inside.scopes[thread]
  if scope == nil then
    return inside.starting(thread)
  end
  return scope
end

return inside
