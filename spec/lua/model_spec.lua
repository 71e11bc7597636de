-- SPDX-License-Identifier: MIT
-- A million random operations, each compared with a plain Lua model of the
-- design (support/model.lua).  On a disagreement the seed and the last
-- operations are printed; EXECUTIONGUARD_SEED runs the same ones again.

local world = require "support.world"
local model = require "support.model"

local random = math.random
local clock = world.core.clock
local getGlobalStats = world.EG.getGlobalStats

local OPERATIONS = world.scaled(250000) -- for each of four kinds of guard
local REMEMBERED = 20
local DEPTH = 3
local TOLERANCE = 2e-6

local KEYS = {}
for i = 1, 12 do
  KEYS[i] = i % 3 == 0 and ("key\0" .. i) or ("key" .. i)
end

-- ------------------------------------------------------------- choices --

local function one_in(n)
  return random(n) == 1
end

local function seconds()
  return random(1, 6)
end

local TIMEOUTS = { 0, 3, 5, math.huge }

local function random_options()
  if one_in(4) then
    return {}
  end
  local options = {}
  if one_in(3) then options.allowRerun = true end
  if one_in(4) then options.cacheResult = false end
  if one_in(2) then options.timeout = TIMEOUTS[random(#TIMEOUTS)] end
  if one_in(5) then options.resultTtl = seconds() end
  if one_in(5) then options.errorTtl = seconds() end
  if one_in(8) then options.cooldown = seconds() end
  if one_in(8) then options.lockAtLeast = seconds() end
  if one_in(8) then options.recordTtl = seconds() end
  if one_in(12) then
    options.retry = { attempts = random(1, 3), delay = random(0, 2),
      factor = random(1, 2), jitter = false }
  end
  return options
end

local VALUES = {
  function() return nil end,
  function() return false end,
  function() return true end,
  function() return random(-1000, 1000) end,
  function() return random() * 1e9 end,
  function() return "" end,
  function() return ("s"):rep(random(300)) end,
  function() return { random(100), "two", { three = false } } end,
  function() return { name = "n", list = { 1, 2.5 }, [7] = true } end,
}

local ERRORS = {
  function() return "boom " .. random(100) end,
  function() return { code = random(100) } end,
  function() return nil end,
  function() return false end,
  function() return 42 end,
}

-- ------------------------------------------------------------- the test --

local test = {}
test.__index = test

local function new_test(way, shared, seed)
  local options = shared and { name = world.name() } or {}
  local self = setmetatable({ seed = seed, shared = shared, steps = 0,
    depth = 0, log = {}, model = model.new(), wants = {}, locks = {},
    tokens = {} }, test)
  self.guards = { world.new(way, options) }
  self.wants[1] = {}
  if shared then
    options.lockAtLeast = 2
    self.guards[2] = world.new(way, options)
    self.wants[2] = { lockAtLeast = 2 }
  end
  self.start = clock.steady()
  self.stats = getGlobalStats()
  return self
end

local function describe_value(value, depth)
  if type(value) ~= "table" then
    return type(value) == "string" and ("%q"):format(value) or tostring(value)
  elseif (depth or 0) > 3 then
    return "{...}"
  end
  local parts = {}
  for k, v in pairs(value) do
    if type(v) ~= "function" then
      parts[#parts + 1] = tostring(k) .. "="
        .. describe_value(v, (depth or 0) + 1)
    end
  end
  table.sort(parts)
  return "{" .. table.concat(parts, ", ") .. "}"
end

--- A line of the last operations, made only when it is wanted.
function test:note(...)
  self.steps = self.steps + 1
  self.log[self.steps % REMEMBERED] = { self.steps, self.depth, ... }
end

function test:disagree(what, expected, found)
  local lines = { ("%s: expected %s, found %s"):format(what,
    describe_value(expected), describe_value(found)) }
  lines[2] = ("EXECUTIONGUARD_SEED=%d; the last operations:"):format(self.seed)
  for step = math.max(1, self.steps - REMEMBERED + 1), self.steps do
    local entry = self.log[step % REMEMBERED]
    local words = {}
    for i = 3, #entry do
      words[#words + 1] = describe_value(entry[i])
    end
    lines[#lines + 1] = ("%8d %s%s"):format(entry[1], ("  "):rep(entry[2]),
      table.concat(words, " "))
  end
  self.failure = self.failure or table.concat(lines, "\n")
  error(self.failure, 0)
end

function test:same(what, expected, found)
  if expected ~= found and not (expected ~= expected and found ~= found) then
    self:disagree(what, expected, found)
  end
end

local function alike(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return rawequal(a, b) or (a == b and math.type(a) == math.type(b))
  end
  for k, v in pairs(a) do
    if not alike(v, b[k]) then return false end
  end
  for k in pairs(b) do
    if a[k] == nil then return false end
  end
  return true
end

--- A private guard gives the value itself, a shared one another like it.
function test:same_value(what, expected, found)
  if self.shared and not alike(expected, found)
    or not self.shared and not rawequal(expected, found) then
    self:disagree(what, expected, found)
  end
end

function test:same_time(what, expected, found)
  local wanted = expected and world.epoch + expected / 1e6
  if (wanted == nil) ~= (found == nil)
    or wanted and math.abs(wanted - found) > TOLERANCE then
    self:disagree(what, wanted, found)
  end
end

-- --------------------------------------------------------- comparisons --

function test:compare_token(key, slot, found)
  local known = self.tokens[key] or 0
  if slot.held and not slot.held.token then
    slot.held.token = found
    if found <= known then
      self:disagree("a token that rises over", known, found)
    end
  elseif slot.held then
    self:same("token of the grant", slot.held.token, found)
  elseif found < known or slot.revoked and found == known then
    self:disagree("a token that does not fall, and rises by a reset", known,
      found)
  end
  slot.revoked = false
  self.tokens[key] = found
end

function test:compare_record(key, slot, record)
  local rec = slot.rec
  if not rec then
    return self:same("GetRecord of none", nil, record)
  elseif not record then
    return self:disagree("GetRecord", rec, record)
  end
  self:same("record.key", key, record.key)
  self:same("record.status", rec.status, record.status)
  self:same("record.executionCount", rec.count, record.executionCount)
  self:same("record.locked", slot.held ~= nil, record.locked)
  self:same("record.owner", slot.held ~= nil, record.owner ~= nil)
  self:same_time("record.startTime", rec.started, record.startTime)
  self:same_time("record.endTime", rec.ended, record.endTime)
  self:same_time("record.lastExecutionTime", rec.last,
    record.lastExecutionTime)
  if rec.status ~= "Running" then
    self:same_time("record.expires", self.model:expires(key), record.expires)
  end
  self:same_value("record.result", self.model:result(key), record.result)
  if rec.duration then
    self:same("record.duration", rec.duration / 1e6, record.duration)
  end
  if rec.status == "Failed" then
    self:same("start of record.error", rec.text,
      tostring(record.error):sub(1, #rec.text))
  elseif rec.status == "Completed" or rec.status == "Idle" then
    self:same("record.error", nil, record.error)
  end
  self:compare_token(key, slot, record.token)
end

function test:compare(key)
  local m = self.model
  local guard = self.guards[random(#self.guards)]
  local slot = m:slot(key)
  self:same("GetStatus", m:status(key), guard:GetStatus(key))
  self:same("IsLocked", m:locked(key), guard:IsLocked(key))
  self:same("HasResult", m:has_result(key), guard:HasResult(key))
  self:same_value("GetResult", m:result(key), guard:GetResult(key))
  self:compare_record(key, slot, guard:GetRecord(key))
end

function test:compare_all()
  local guard = self.guards[random(#self.guards)]
  local records, analytics = guard:GetAllRecords(), guard:GetAnalytics()
  local total, by = 0, { Idle = 0, Running = 0, Completed = 0, TimedOut = 0,
    Failed = 0 }
  for _, key in ipairs(KEYS) do
    local slot = self.model:slot(key)
    self:compare_record(key, slot, records[key])
    if slot.rec then
      total = total + 1
      by[slot.rec.status] = by[slot.rec.status] + 1
    end
    records[key] = nil
  end
  self:same("an unknown record", nil, (next(records)))
  self:same("totalRecords", total, analytics.totalRecords)
  for status, n in pairs(by) do
    self:same("byStatus." .. status, n, analytics.byStatus[status])
  end
end

function test:compare_stats()
  for name, value in pairs(getGlobalStats()) do
    self:same(name, self.stats[name] + self.model.stats[name], value)
  end
end

function test:compare_clock()
  local now = math.floor((clock.steady() - self.start) * 1e6 + 0.5)
  self:same("the clock", self.model.now, now)
end

-- ---------------------------------------------------------- operations --

local operations = {}

function test:advance(s)
  clock.advance(s)
  self.model:move(math.floor(s * 1e6 + 0.5))
end

--- What happens inside of fn, which has been told to fail so often first.
function test:attempt(run)
  run.calls = run.calls + 1
  if run.calls == 1 then
    self:compare(run.key)
  elseif run.stops then
    self:disagree("attempts", run.calls - 1, run.calls)
  else
    self.model:attempt(run.grant)
  end
  for _ = 1, run.nested do
    self:step(random(3) == 1 and run.key or nil)
  end
  if run.late then
    self:advance(run.options.timeout)
  end
  if run.calls > run.failures then
    return run.value, "a second value"
  end
  local delay = self.model:again(run.grant, run.calls)
  run.stops = not delay
  self.model:move(delay or 0)
  error(run.err, 0)
end

local function new_run(self, key)
  local options = random_options()
  local run = { key = key, options = options, calls = 0, failures = 0,
    nested = 0 }
  if self.depth < DEPTH and one_in(3) then
    run.nested = random(3)
  end
  if one_in(3) then
    run.failures = one_in(2) and 99 or 1
  end
  run.late = (options.timeout == 3 or options.timeout == 5) and one_in(4)
  run.value = VALUES[random(#VALUES)]()
  run.err = ERRORS[random(#ERRORS)]()
  return run
end

function test:compare_refusal(reason, value, left_us, ...)
  local ok, result, why, left = ...
  self:same("success", reason == "cached", ok)
  self:same("reason", reason, why)
  self:same_value("result", value, result)
  self:same("secondsLeft", left_us and left_us / 1e6, left)
end

function test:compare_end(run, ...)
  local grant, ok, result, why = run.grant, ...
  local raised = run.calls <= run.failures
  local text = run.err == nil and "nil" or tostring(run.err)
  local reason = self.model:commit(grant, raised,
    raised and text or run.value)
  self:same("success", reason == "ok", ok)
  self:same("reason", reason ~= "ok" and reason or nil, why)
  local expected
  if reason == "ok" then
    expected = run.value
  elseif reason == "failed" then
    expected = run.err
  end
  if not rawequal(expected, result) then
    self:disagree("what RunOnce returns", expected, result)
  end
  self:same("values returned", reason == "ok" and 2 or 3, select("#", ...))
end

function operations.RunOnce(self, key)
  local run = new_run(self, key)
  local which = random(#self.guards)
  self:note("RunOnce", key, which, run)
  local merged = setmetatable(run.options, { __index = self.wants[which] })
  local reason, x, left_us =
    self.model:begin(key, self.wants[which], merged)
  local options = next(run.options) and {}
  for name, value in pairs(run.options) do
    options[name] = value
  end
  if reason == "run" then
    run.grant = x
  end
  local depth = self.depth
  local function fn()
    if not run.grant then
      self:disagree("fn is not called: " .. reason, nil, "called")
    end
    self.depth = depth + 1
    return self:attempt(run)
  end
  local answers = table.pack(self.guards[which]:RunOnce(key, fn, options))
  self.depth = depth
  if self.failure then
    error(self.failure, 0)
  end
  self:note("... RunOnce returns", key, answers)
  if run.grant then
    self:compare_end(run, table.unpack(answers, 1, answers.n))
  else
    self:compare_refusal(reason, x, left_us,
      table.unpack(answers, 1, answers.n))
  end
end

function test:compare_lock(key, reason, grant, token)
  self:same("lock", "ok", reason)
  if math.type(token) ~= "integer" or token <= (self.tokens[key] or 0) then
    self:disagree("a token over", self.tokens[key] or 0, token)
  end
  grant.token, self.tokens[key] = token, token
  grant.slot.revoked = false
end

--- A lock that waits for the end of a cooldown moves the clock to it; one
--- that cannot wait so long may say so at once, or when its time is over.
--- Where that is the very moment at which the key is free, both are right.
function test:lock(key, which, timeout, acquire)
  local m = self.model
  local before = m.now
  local reason, x = m:acquire(key, self.wants[which], timeout)
  local token, why = acquire(self.guards[which], key, timeout)
  if reason == "cooldown" and timeout > 0 then
    local waited = clock.steady() - self.start
    m:move(math.floor(waited * 1e6 + 0.5) - m.now)
    if m.now < before or m.now > before + timeout * 1000000 then
      self:disagree("a wait of at most " .. timeout, before, m.now)
    end
    if x < timeout * 1000000 then
      self:same("the end of the wait", before + x, m.now)
      self:same("a wait that is long enough", true, not not token)
    end
    if token then
      reason, x = m:acquire(key, self.wants[which], timeout)
    end
  end
  if token then
    self:compare_lock(key, reason, x, token)
  else
    self:same("reason of no lock", reason, why)
  end
  return token
end

function operations.AcquireLock(self, key)
  local which, timeout = random(#self.guards), random(0, 3)
  self:note("AcquireLock", key, which, timeout)
  self:lock(key, which, timeout, function(guard, ...)
    local ok, token = guard:AcquireLock(...)
    self:same("type of success", "boolean", type(ok))
    return ok and token, token
  end)
end

function operations.Lock(self, key)
  local which, timeout = random(#self.guards), random(0, 2)
  local lock
  self:note("Lock", key, which, timeout)
  local token = self:lock(key, which, timeout, function(guard, ...)
    local why
    lock, why = guard:Lock(...)
    return lock and lock.token, why
  end)
  if token then
    self.locks[#self.locks + 1] = { lock = lock, key = key, which = which,
      token = token }
    self:same("lock:Held()", true, lock:Held())
  end
end

function operations.Release(self)
  local n = #self.locks
  if n == 0 then
    return
  end
  local at = random(n)
  local entry = self.locks[at]
  self.locks[at] = self.locks[n]
  self.locks[n] = nil
  self:note("lock:Release", entry.key, entry.which, entry.token)
  local held = self.model:slot(entry.key).held
  self:same("lock:Held()", held ~= nil and held.token == entry.token,
    entry.lock:Held())
  self:same("lock:Release()",
    self.model:release(entry.key, self.wants[entry.which], entry.token),
    entry.lock:Release())
  self:same("lock:Held() afterwards", false, entry.lock:Held())
  self:compare(entry.key)
end

function operations.ReleaseLock(self, key)
  local which = random(#self.guards)
  local token
  if one_in(2) then
    token = (self.tokens[key] or 1) + random(-1, 0)
    token = math.max(1, token)
  end
  self:note("ReleaseLock", key, which, token)
  self:same("ReleaseLock", self.model:release(key, self.wants[which], token),
    self.guards[which]:ReleaseLock(key, token))
end

function operations.Reset(self, key)
  self:note("Reset", key)
  self.model:reset(key)
  self.guards[random(#self.guards)]:Reset(key)
end

function operations.ResetAll(self)
  self:note "ResetAll"
  self.model:reset_all()
  self.guards[1]:ResetAll { force = true }
end

function operations.ClearResult(self, key)
  self:note("ClearResult", key)
  self.model:clear(key)
  self.guards[random(#self.guards)]:ClearResult(key)
end

function operations.advance(self)
  local s = one_in(4) and random(1, 400) / 100 or random(0, 3)
  self:note("advance", s)
  self:advance(s)
end

local MIX = {}
for name, weight in pairs { RunOnce = 40, AcquireLock = 12, Lock = 5,
  Release = 5, ReleaseLock = 12, Reset = 6, ClearResult = 6, advance = 20 } do
  for _ = 1, weight do
    MIX[#MIX + 1] = name
  end
end
table.sort(MIX) -- a seed means the same in every run

function test:step(key)
  key = key or KEYS[random(#KEYS)]
  local name = one_in(2000) and "ResetAll" or MIX[random(#MIX)]
  operations[name](self, key)
  self:compare(key)
end

function test:run(operations_wanted)
  while self.steps < operations_wanted do
    self:step()
    self:compare_stats()
    if self.steps % 64 == 0 then
      self:compare_all()
      self:compare_clock()
    end
  end
  self:compare_all()
end

describe("a model of the design agrees with", function()
  local seed = math.tointeger(os.getenv "EXECUTIONGUARD_SEED" or "")
    or os.time()

  before_each(function()
    world.start(true)
  end)

  after_each(world.stop)

  for _, way in ipairs(world.ways) do
    for _, shared in ipairs { true, false } do
      local kind = shared and "two guards of one name" or "a private guard"
      local tell = shared and it or world.private(way, it)
      tell(("%s, %s, by random operations"):format(kind, way.name), function()
        math.randomseed(seed)
        new_test(way, shared, seed):run(way.files and OPERATIONS // 25
                                        or OPERATIONS)
      end)
    end
  end
end)
