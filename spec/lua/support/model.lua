-- SPDX-License-Identifier: MIT
-- The guard as section 5 of the design has it, in plain Lua: what each call
-- answers, and what it leaves.  It knows nothing of stores, bytes or threads;
-- time is a number of microseconds that is moved by hand.

local model = {}
model.__index = model

--- A namespace; private: values are kept as they are.
function model.new()
  return setmetatable({ now = 0, slots = {}, stats = {
    totalExecutions = 0, blockedExecutions = 0, cachedResults = 0,
    timedOutExecutions = 0, failedExecutions = 0,
  } }, model)
end

local function count(self, name)
  self.stats[name] = self.stats[name] + 1
end

local function us(seconds)
  return math.ceil(seconds * 1e6)
end

-- A point in time that many seconds away, or nil for none.
local function after(self, seconds)
  if seconds and seconds > 0 and seconds < math.huge then
    return self.now + us(seconds)
  end
end

local function left(self, point)
  return point and point > self.now and point - self.now or nil
end

local function over(self, point)
  return point ~= nil and point <= self.now
end

--- The slot of a key: rec (the record), held (the grant), the times, and
--- revoked: a reset has ended a grant, so that there is a new token.
function model:slot(key)
  local slot = self.slots[key]
  if not slot then
    slot = {}
    self.slots[key] = slot
  end
  if not slot.held and over(self, slot.life) then
    slot.rec, slot.life, slot.fresh, slot.not_before = nil, nil, nil, nil
  end
  return slot
end

-- Completed, or running again: is the time of its result over?
local function result_over(self, slot)
  local status = slot.rec and slot.rec.status
  return (status == "Completed" or status == "Running")
    and over(self, slot.fresh)
end

-- ------------------------------------------------------------- queries --

function model:status(key)
  local rec = self:slot(key).rec
  return rec and rec.status or "Idle"
end

function model:has_result(key)
  local slot = self:slot(key)
  local rec = slot.rec
  return rec ~= nil and rec.has and not result_over(self, slot)
end

function model:result(key)
  if self:has_result(key) then
    return self:slot(key).rec.value
  end
end

function model:locked(key)
  return self:slot(key).held ~= nil
end

--- When the result or the error stops counting.
function model:expires(key)
  local slot = self:slot(key)
  return left(self, slot.fresh) and slot.fresh or nil
end

-- --------------------------------------------------------------- runs --

local function blocked(self, ...)
  count(self, "blockedExecutions")
  return ...
end

-- Refused for the lock that somebody holds: a sign of it is left.
local function refuse_locked(self, slot, timeout)
  slot.rec = slot.rec or { status = "Idle", count = 0, has = false }
  return blocked(self, timeout > 0 and "deadlock" or "locked")
end

--- RunOnce up to where fn is called: "run", grant; else the reason, a value,
--- and how long it still lasts.
function model:begin(key, guard, options)
  local slot = self:slot(key)
  local rec = slot.rec
  local status = rec and rec.status
  if status == "Completed" and not options.allowRerun
    and not result_over(self, slot) then
    if options.cacheResult ~= false and rec.has then
      count(self, "cachedResults")
      return "cached", rec.value
    end
    return blocked(self, "completed")
  elseif slot.held and status == "Running" then
    return blocked(self, "running")
  elseif slot.held then
    return refuse_locked(self, slot, options.timeout or 30)
  elseif left(self, slot.not_before) then
    return blocked(self, "cooldown", nil, left(self, slot.not_before))
  elseif status == "Failed" and left(self, slot.fresh) then
    return blocked(self, "failed", rec.text, left(self, slot.fresh))
  end
  return "run", self:start(slot, guard, options)
end

function model:start(slot, guard, options)
  local rec = slot.rec or { count = 0, has = false }
  if result_over(self, slot) then
    rec.has, rec.value = false, nil
  end
  if rec.status ~= "Completed" or over(self, slot.fresh) then
    slot.fresh = nil
  end
  rec.status = "Running"
  rec.count = rec.count + 1
  rec.started, rec.ended, rec.duration = self.now, nil, nil
  slot.rec = rec
  slot.life = nil
  slot.not_before = after(self, options.lockAtLeast)
  slot.held = { kind = "run", guard = guard, options = options,
    slot = slot, began = self.now }
  count(self, "totalExecutions")
  return self:attempt(slot.held)
end

--- An attempt begins now.
function model:attempt(grant)
  grant.deadline = after(self, grant.options.timeout or 30)
  return grant
end

local function lost(grant)
  return grant.slot.held ~= grant
end

--- An attempt raised an error: is there to be another, after how long?
function model:again(grant, attempt)
  local retry = grant.options.retry
  if not retry or attempt >= retry.attempts or lost(grant)
    or over(self, grant.deadline) then
    return
  end
  grant.deadline = nil -- the delay does not count
  return us(retry.delay * (retry.factor or 2) ^ (attempt - 1))
end

-- What becomes of an earlier result that is not replaced.
local function keep_earlier(self, slot, success)
  local aging = slot.rec.has and slot.fresh ~= nil
  if not aging then
    return false
  elseif success and not over(self, slot.fresh) then
    return true
  end
  slot.rec.has, slot.rec.value = false, nil
  return false
end

local function succeed(self, grant, value)
  local slot, options = grant.slot, grant.options
  local rec = slot.rec
  local as_it_was = false
  if options.cacheResult ~= false then
    rec.has, rec.value = value ~= nil, value
  else
    as_it_was = keep_earlier(self, slot, true)
  end
  if not as_it_was then
    slot.fresh = after(self, options.resultTtl)
  end
  rec.status, rec.text = "Completed", nil
  return "ok"
end

local function fail(self, grant, text)
  local slot = grant.slot
  keep_earlier(self, slot, false)
  slot.fresh = after(self, grant.options.errorTtl)
  slot.rec.status, slot.rec.text = "Failed", text
  count(self, "failedExecutions")
  return "failed"
end

local function time_out(self, grant)
  local slot = grant.slot
  keep_earlier(self, slot, false)
  slot.fresh = nil
  slot.rec.status = "TimedOut"
  slot.rec.text = nil
  count(self, "timedOutExecutions")
  return "timeout"
end

--- The run ends: with a value, or with the text of an error.  The reason.
function model:commit(grant, raised, value)
  local slot, options = grant.slot, grant.options
  if grant.fired then
    return "timeout"
  elseif lost(grant) then
    return "lost"
  end
  local rec, reason = slot.rec
  if over(self, grant.deadline) then
    reason = time_out(self, grant)
  elseif raised then
    reason = fail(self, grant, value)
  else
    reason = succeed(self, grant, value)
  end
  slot.held = nil
  rec.ended, rec.last = self.now, self.now
  rec.duration = self.now - grant.began
  slot.life = after(self, options.recordTtl)
  local cooled = after(self, options.cooldown) or self.now
  local kept = slot.not_before or self.now
  slot.not_before = math.max(cooled, kept)
  return reason
end

--- Moves the clock: runs whose deadline has come end there, in the order of
--- their deadlines, though their functions go on.
function model:move(by)
  self.now = self.now + by
  for _, slot in pairs(self.slots) do
    local held = slot.held
    if held and held.kind == "run" and over(self, held.deadline) then
      self:commit(held)
      held.fired = true
    end
  end
end

-- -------------------------------------------------------------- locks --

--- guard: a table that stands for it, with its option lockAtLeast.
--- "ok", grant; or the reason, and how long a cooldown still lasts.
function model:acquire(key, guard, timeout)
  local slot = self:slot(key)
  if slot.held then
    return timeout > 0 and "deadlock" or "locked"
  elseif left(self, slot.not_before) then
    return "cooldown", left(self, slot.not_before)
  end
  slot.held = { kind = "lock", guard = guard, slot = slot }
  slot.not_before = after(self, guard.lockAtLeast)
  return "ok", slot.held
end

function model:release(key, guard, token)
  local slot = self:slot(key)
  local held = slot.held
  if not held or held.kind ~= "lock" or held.guard ~= guard
    or (token and token ~= held.token) then
    return false
  end
  slot.held = nil
  return true
end

-- --------------------------------------------------------------- resets --

function model:reset(key)
  local slot = self:slot(key)
  local rec = slot.rec
  slot.revoked = slot.revoked or slot.held ~= nil
  slot.held, slot.not_before, slot.fresh, slot.life = nil, nil, nil, nil
  if rec then
    rec.status, rec.has, rec.value, rec.text = "Idle", false, nil, nil
    rec.started, rec.ended, rec.duration = nil, nil, nil
  end
end

function model:reset_all()
  for key in pairs(self.slots) do
    if self:slot(key).rec then
      self:reset(key)
    end
  end
end

function model:clear(key)
  local slot = self:slot(key)
  if not slot.rec then
    return false
  end
  slot.rec.has, slot.rec.value = false, nil
  if not result_over(self, slot) then -- what may run again still may
    slot.fresh = nil
  end
  return true
end

return model
