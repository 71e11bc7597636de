-- SPDX-License-Identifier: MIT
-- The yardstick: a guard as one would write it by hand in plain Lua, with the
-- same book-keeping as ours (status, times, counts, result, a table of locks,
-- global counters, default options) and nothing else: no log, no timeout, no
-- check of an argument.  new(clock): os.time for the tables of the README.

local Plain = {}
Plain.__index = Plain

Plain.stats = { executions = 0, blocked = 0, cached = 0, failed = 0 }

local defaults = {}

function Plain.new(clock)
  local guard = { clock = clock, records = {}, locks = {} }
  return setmetatable(guard, Plain)
end

function Plain:AcquireLock(key)
  if self.locks[key] then
    return false
  end
  self.locks[key] = self.clock()
  return true
end

function Plain:ReleaseLock(key)
  if self.locks[key] then
    self.locks[key] = nil
  end
end

function Plain:RunOnce(key, fn, options)
  options = options or defaults
  local stats, record = Plain.stats, self.records[key]
  if not record then
    record = { key = key, status = "Idle", count = 0 }
    self.records[key] = record
  end
  if record.status == "Completed" and not options.allowRerun then
    if options.cacheResult ~= false and record.result ~= nil then
      stats.cached = stats.cached + 1
      return true, record.result
    end
    stats.blocked = stats.blocked + 1
    return false
  end
  if record.status == "Running" or not self:AcquireLock(key) then
    stats.blocked = stats.blocked + 1
    return false
  end
  record.status = "Running"
  record.started = self.clock()
  record.count = record.count + 1
  stats.executions = stats.executions + 1
  local done, value = pcall(fn)
  record.ended = self.clock()
  record.last = record.ended
  if done then
    record.status = "Completed"
    if options.cacheResult ~= false then
      record.result = value
    end
    record.error = nil
  else
    record.status = "Failed"
    record.error = tostring(value)
    stats.failed = stats.failed + 1
  end
  self:ReleaseLock(key)
  return done, value
end

return Plain
