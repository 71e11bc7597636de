-- SPDX-License-Identifier: MIT
-- executionguard.context: what says that work is to end, and why; with the
-- words of Go's context package.
--
--   local context = require "executionguard.context"
--
--   local ctx, cancel = context.withTimeout(context.background(), 5)
--   task.spawn(context.with, ctx, function()
--     while task.wait(1) do            -- nil, err as soon as ctx has ended
--       print "tick"
--     end
--     print(ctx:Err())                 --> context deadline exceeded
--   end)
--
-- A context ends once: by its cancel function, at its deadline, or with its
-- parent.  Done and Err look at the clock themselves, so that a loop which
-- never waits sees the end too.
--
-- NOBODY LISTENS to most contexts.  Such a one is known to nobody: not to its
-- parent, nor to the scheduler.  Asked, it asks its parent and the clock.  As
-- long as somebody listens (OnDone, a wait, a child that is listened to) it
-- listens to its parent, and a deadline has a timer.  So contexts that are
-- left lying about cost nothing, and hold up neither task.run nor memory.

local core = require "executionguard.core"
local inside = require "executionguard.inside"
local task = require "executionguard.task"

local steady = core.clock.steady
local scopes, scope_of = inside.scopes, inside.scope_of

local CANCELED <const> = "context canceled"
local EXCEEDED <const> = "context deadline exceeded"

local context = { Canceled = CANCELED, DeadlineExceeded = EXCEEDED }

-- Fields: parent (nil: of the background), err and ended (when) once it has
-- ended, deadline; points in time are steady microseconds.  key and value of
-- withValue.  listeners: listener -> true, while there are any; up: its own
-- listener at the parent; timer: thread.
local Context = { __name = "ExecutionGuard context" }
Context.__index = Context

local function now()
  return (steady() * 1e6 + 0.5) // 1
end

-- ---------------------------------------------------------- listeners --

local finish, err_of

local function timer_came(ctx)
  ctx.timer = nil
  err_of(ctx)
end

local function parent_ended(ctx, err)
  ctx.up = nil
  local deadline = ctx.deadline
  if deadline and deadline <= ctx.parent.ended then
    finish(ctx, EXCEEDED, deadline)
  else
    finish(ctx, err, ctx.parent.ended)
  end
end

local function stop_listening(ctx)
  local timer, up = ctx.timer, ctx.up
  ctx.timer, ctx.up = nil, nil
  if timer and coroutine.status(timer) == "suspended" then
    task.cancel(timer)
  end
  if up then
    ctx.parent:_unlisten(up)
  end
end

local order = 0 -- of listeners

-- Calls fn(what, err) when it ends, which it has not yet; -> a listener.
function Context:_listen(fn, what)
  order = order + 1
  local listener = { fn = fn, what = what, order = order }
  if self.listeners then
    self.listeners[listener] = true
    return listener
  end
  self.listeners = { [listener] = true }
  if self.deadline then
    self.timer = task.delay(math.max(self.deadline - now(), 0) / 1e6,
                            timer_came, self)
  end
  if self.parent then
    self.up = self.parent:_listen(parent_ended, self)
  end
  return listener
end

function Context:_unlisten(listener)
  local listeners = self.listeners
  if listeners and listeners[listener] then
    listeners[listener] = nil
    if next(listeners) == nil then
      self.listeners = nil
      stop_listening(self)
    end
  end
end

-- Ends a context that has not ended.
function finish(ctx, err, at)
  ctx.err, ctx.ended = err, at
  local listeners = ctx.listeners
  if not listeners then
    return
  end
  ctx.listeners = nil
  stop_listening(ctx)
  local list = {}
  for listener in pairs(listeners) do
    list[#list + 1] = listener
  end
  table.sort(list, function(a, b) return a.order < b.order end)
  for _, listener in ipairs(list) do
    if listeners[listener] then -- none before it has taken it off
      local ok, wrong = pcall(listener.fn, listener.what, err)
      if not ok then
        pcall(warn, "[ExecutionGuard] a function given to OnDone failed: ",
              tostring(wrong))
      end
    end
  end
end

-- Whatever came first counts: the deadline, or the parent's end.
function err_of(ctx)
  if ctx.err then
    return ctx.err
  end
  local parent, deadline, asks = ctx.parent, ctx.deadline, ctx.asks
  local said = asks and asks() -- of a worker: what its owner has said
  if said then
    finish(ctx, said, now())
    return said
  end
  local err = parent and err_of(parent)
  if ctx.err then -- told by the parent
    return ctx.err
  elseif err and not (deadline and deadline <= parent.ended) then
    finish(ctx, err, parent.ended)
  elseif deadline and (err or now() >= deadline) then
    finish(ctx, EXCEEDED, deadline)
  end
  return ctx.err
end

-- ------------------------------------------------------------ methods --

local function check(ctx, method)
  if getmetatable(ctx) ~= Context then
    error(("%s: called on a %s, not on a context (write ctx:%s(...), with " ..
      "a colon)"):format(method, type(ctx), method), 3)
  end
end

-- ctx:Err() -> nil, "context canceled" or "context deadline exceeded"
function Context:Err()
  check(self, "Err")
  return err_of(self)
end

-- ctx:Done() -> has it ended?
function Context:Done()
  check(self, "Done")
  return err_of(self) ~= nil
end

-- ctx:OnDone(fn) -> stop.  Calls fn(err) once when it ends, at once if it has;
-- stop() takes fn off again, and says whether it did.  fn must not wait; what
-- it raises goes to warn.  While a deadline is listened to, task.run goes on.
function Context:OnDone(fn)
  check(self, "OnDone")
  if type(fn) ~= "function" then
    error(("OnDone: a function is needed, not a %s"):format(type(fn)), 2)
  end
  local err = err_of(self)
  if err then
    fn(err)
    return function() return false end
  end
  local listener = self:_listen(function(_, reason) fn(reason) end)
  return function()
    local on = not self.err and self.listeners ~= nil and
               self.listeners[listener] or false
    self:_unlisten(listener)
    return on
  end
end

-- The nearest of a context and those above it; nil: none.
local function nearest_deadline(ctx)
  local nearest = math.huge
  while ctx do
    nearest = math.min(nearest, ctx.deadline or math.huge)
    ctx = ctx.parent
  end
  return nearest < math.huge and nearest or nil
end

-- ctx:Deadline() -> seconds since the epoch, of the nearest; nil: none
function Context:Deadline()
  check(self, "Deadline")
  local nearest = nearest_deadline(self)
  return nearest and core.now() + (nearest - now()) / 1e6
end

-- ctx:Value(key) -> what withValue gave it or those above it; nil: nothing
function Context:Value(key)
  check(self, "Value")
  local ctx = self
  while ctx do
    if ctx.key ~= nil and rawequal(ctx.key, key) then
      return ctx.value
    end
    ctx = ctx.parent
  end
end

-- ctx:_left() -> seconds to the nearest deadline, or nil
function Context:_left()
  local nearest = nearest_deadline(self)
  return nearest and math.max(nearest - now(), 0) / 1e6
end

-- For those who have scopes (inside.lua).
Context._err = err_of
function Context:_scope()
  return self
end

-- ------------------------------------------------------------- making --

local BACKGROUND <const> = setmetatable({}, Context)

-- context.background() -> the one that never ends
function context.background()
  return BACKGROUND
end

local function check_parent(parent, method)
  if getmetatable(parent) ~= Context then
    error(("%s: the parent must be a context, not %s (there is " ..
      "context.background())"):format(method,
      parent == nil and "nil" or "a " .. type(parent)), 3)
  end
end

local function child(parent)
  local ctx = { parent = parent ~= BACKGROUND and parent or nil }
  return setmetatable(ctx, Context)
end

-- Ends a context, for those in this library who made it.
function context._cancel(ctx)
  if not err_of(ctx) then
    finish(ctx, CANCELED, now())
  end
end

context._child = child

-- Is it a context?
function context._is(value)
  return getmetatable(value) == Context
end

local function with_cancel(ctx)
  return ctx, function() context._cancel(ctx) end
end

-- context.withCancel(parent) -> ctx, cancel.  cancel() ends it and those
-- below; more calls do nothing.
function context.withCancel(parent)
  check_parent(parent, "withCancel")
  return with_cancel(child(parent))
end

local function check_number(value, method, what)
  if type(value) ~= "number" or value ~= value then
    error(("%s: %s must be a number, not %s"):format(method, what,
      type(value) == "number" and "NaN" or "a " .. type(value)), 3)
  end
end

local function limited(parent, seconds)
  local ctx = child(parent)
  if seconds < math.huge then
    local us = seconds * 1e6
    local whole = us // 1 -- up, but for a product's rounding
    ctx.deadline = now() + (us - whole > 1e-3 and whole + 1 or whole)
  end
  return with_cancel(ctx)
end

-- context.withTimeout(parent, seconds) -> ctx, cancel.  It ends so much later;
-- of 0 or less it has ended; math.huge: never.
function context.withTimeout(parent, seconds)
  check_parent(parent, "withTimeout")
  check_number(seconds, "withTimeout", "seconds")
  return limited(parent, seconds)
end

-- context.withDeadline(parent, time) -> ctx, cancel.  It ends at that time, in
-- seconds since the epoch as ExecutionGuard.now() has them; if the time of day
-- is set meanwhile, it ends after as long a time as was meant.
function context.withDeadline(parent, time)
  check_parent(parent, "withDeadline")
  check_number(time, "withDeadline", "the time")
  return limited(parent, time - core.now())
end

-- context.withValue(parent, key, value) -> ctx
function context.withValue(parent, key, value)
  check_parent(parent, "withValue")
  if key == nil or key ~= key then
    error(("withValue: the key must not be %s"):format(
      key == nil and "nil" or "NaN"), 2)
  end
  local ctx = child(parent)
  ctx.key, ctx.value = key, value
  return ctx
end

-- ---------------------------------------------------- of a coroutine --

local function scope_guard(thread, previous)
  return setmetatable({}, { __close = function()
    scopes[thread] = previous
  end })
end

-- context.with(ctx, fn, ...) -> what fn returns.  Meanwhile ctx is the context
-- of this coroutine: its task.wait and every call of this library that waits
-- return nil, err (false, reason) when it ends.
function context.with(ctx, fn, ...)
  check_parent(ctx, "with")
  if type(fn) ~= "function" then
    error(("with: a function is needed, not a %s"):format(type(fn)), 2)
  end
  local thread = coroutine.running()
  local _ <close> = scope_guard(thread, scope_of(thread))
  scopes[thread] = ctx
  return fn(...)
end

-- context.current() -> the context of this coroutine: that of its job, or of
-- context.with; else the background.
function context.current()
  local scope = scope_of(coroutine.running())
  return scope and scope:_scope() or BACKGROUND
end

core.own.claim()

return context
