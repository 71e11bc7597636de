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

-- What a child listens with: finish knows what to do.
local function parent_ended() end

-- -> its listener at the parent, to be taken off
local function stop_listening(ctx)
  local timer, up = ctx.timer, ctx.up
  ctx.timer, ctx.up = nil, nil
  if timer and coroutine.status(timer) == "suspended" then
    task.cancel(timer)
  end
  return up
end

local order = 0 -- of listeners

-- Calls fn(what, err) when it ends, which it has not yet; -> a listener.
function Context:_listen(fn, what)
  local ctx, mine = self, nil
  repeat -- up, as far as nobody has listened yet
    order = order + 1
    local listener = { fn = fn, what = what, order = order }
    local known = ctx.listeners
    mine = mine or listener
    if fn == parent_ended then
      what.up = listener
    end
    if known then
      known[listener] = true
      return mine
    end
    ctx.listeners = { [listener] = true }
    if ctx.deadline then
      ctx.timer = task.delay(math.max(ctx.deadline - now(), 0) / 1e6,
                             timer_came, ctx)
    end
    fn, what, ctx = parent_ended, ctx, ctx.parent
  until not ctx
  return mine
end

function Context:_unlisten(listener)
  local ctx = self
  while listener do -- up, as far as nobody listens any more
    local listeners = ctx.listeners
    if not listeners or not listeners[listener] then
      return
    end
    listeners[listener] = nil
    if next(listeners) ~= nil then
      return
    end
    ctx.listeners = nil
    listener = stop_listening(ctx)
    ctx = ctx.parent
  end
end

-- ------------------------------------------------------------- the end --

local function by_order(a, b)
  return a.order < b.order
end

-- Ends a context that has not ended.  -> its listeners, to be told in order;
-- nil: none.
local function set_ended(ctx, err, at)
  ctx.err, ctx.ended = err, at
  local listeners = ctx.listeners
  if not listeners then
    return nil
  end
  ctx.listeners = nil
  local up = stop_listening(ctx)
  if up then
    ctx.parent:_unlisten(up)
  end
  local list = { err = err, on = listeners, next = 1 }
  for listener in pairs(listeners) do
    list[#list + 1] = listener
  end
  table.sort(list, by_order)
  return list
end

local function tell(listener, err)
  local ok, wrong = pcall(listener.fn, listener.what, err)
  if not ok then
    pcall(warn, "[ExecutionGuard] a function given to OnDone failed: ",
          tostring(wrong))
  end
end

-- The parent of ctx has ended.
local function end_below(ctx, err)
  ctx.up = nil
  local deadline, at = ctx.deadline, ctx.parent.ended
  if deadline and deadline <= at then
    return set_ended(ctx, EXCEEDED, deadline)
  end
  return set_ended(ctx, err, at)
end

-- Ends a context that has not ended, and those below that are listened to, as
-- deep as they go.
function finish(ctx, err, at)
  local list = set_ended(ctx, err, at)
  while list do
    local listener = list[list.next]
    list.next = list.next + 1
    if not listener then
      list = list.above
    elseif not list.on[listener] then -- luacheck: ignore 542
      -- one before it has taken it off
    elseif listener.fn ~= parent_ended then
      tell(listener, list.err)
    elseif not listener.what.err then
      local below = end_below(listener.what, list.err)
      if below then
        below.above = list
        list = below
      end
    end
  end
end

-- Of a context and those above it: which one ended first, why and when; nil:
-- none has.  What has ended knows of those above it.
local function first_end(ctx)
  local which, why, at, time = nil, nil, math.huge, nil
  while ctx do
    local err, ended, deadline = ctx.err, ctx.ended, ctx.deadline
    if not err and ctx.asks then -- of a worker: what its owner has said
      err = ctx.asks()
      ended = err and now()
    end
    if not err and deadline then
      time = time or now()
      if deadline <= time then
        err, ended = EXCEEDED, deadline
      end
    end
    if err and ended < at then
      which, why, at = ctx, err, ended
    end
    if ctx.err then
      break
    end
    ctx = ctx.parent
  end
  return which, why, at
end

-- Whatever came first counts: the deadline, or the parent's end.
function err_of(ctx)
  if not ctx.err then
    local which, why, at = first_end(ctx)
    if which and not which.err then
      finish(which, why, at)
    end
    if which and not ctx.err then -- not told by those above
      finish(ctx, why, at)
    end
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
    tell({ fn = function() fn(err) end })
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
      value == nil and "nil" or value ~= value and "NaN" or
      "a " .. type(value)), 3)
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
