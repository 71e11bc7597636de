-- SPDX-License-Identifier: MIT
-- executionguard.isolation: a command that runs at most once at a time, on
-- this machine (lock files) or in this process (memory).
--
--   local Isolation = require "executionguard.isolation"
--   local guard <close>, err = Isolation.new("migrate"):Lock()
--   if not guard then
--     io.stderr:write(tostring(err), "\n")
--     os.exit(75)
--   end
--
-- This file is thin: a lock is one of a guard on the store that is meant, and
-- each Lock opens it anew, so that a folder that was removed or moved away
-- meanwhile is not mistaken for the one that has its name now.  What the
-- methods take and return is in executionguard/types.lua.

local core = require "executionguard.core"

local native = core.isolation

local DEFAULT_DIR <const> = ".executionguard/locks"
-- Commands in memory have a namespace of their own in each process.
local MEMORY_NAME <const> = "executionguard.isolation"
-- How often Lock asks again where the holder was gone when it was looked at.
local TRIES <const> = 3

-- ----------------------------------------------------------------- paths --

-- The folder that lock files are in; nil where there are none.
local function folder_of(self)
  local store = self.store
  if store == nil then
    return self.strategy == "file" and self.lockDir or nil
  elseif type(store) == "string" then
    local dir, query = store:match "^file:([^?]+)%??(.*)$"
    if dir then
      local bare = ("&" .. query .. "&"):find("&locks=.&", 1, true)
      return bare and dir or dir:gsub("/*$", "") .. "/locks"
    end
  end
end

-- ---------------------------------------------------------------- errors --

local IsolationError = { __name = "IsolationError" }

-- Numbers of errno that mean: this user may not.
local NOT_PERMITTED <const> = { [1] = "EPERM", [13] = "EACCES",
                                [30] = "EROFS" }
-- And that what has the name is no file to be locked.
local NO_FILE <const> = { [6] = "ENXIO", [21] = "EISDIR", [40] = "ELOOP" }

-- Seconds, for people.
local function duration(seconds)
  return ("%.14gs"):format(seconds)
end

local SENTENCES = {
  AlreadyRunning = function(err)
    if err.reason == "cooldown" then
      return ("Command '%s' ended a short while ago%s"):format(err.command,
        err.secondsLeft and (" (again in %s)"):format(
          duration(err.secondsLeft)) or "")
    end
    return ("Command '%s' is already running%s"):format(err.command,
      err.lockedAt and (" (locked at: %s)"):format(err.lockedAt) or "")
  end,
  Timeout = function(err)
    local whom = ("Timeout waiting for '%s'"):format(err.command)
    if err.reason == "deadlock" then
      return whom .. ": the caller itself holds it"
    elseif err.reason == "canceled" then
      return whom .. ": the context of the caller has ended"
    end
    return whom .. " after " .. duration(err.timeout)
  end,
  PermissionDenied = function(err)
    return "Permission denied: " .. err.message
  end,
  LockFileError = function(err)
    return "Lock file error: " .. err.message
  end,
  IoError = function(err)
    return "IO error: " .. err.message
  end,
}

function IsolationError:__tostring()
  return SENTENCES[self.kind](self)
end

-- "Could not acquire lock: " .. err
function IsolationError.__concat(a, b)
  return tostring(a) .. tostring(b)
end

-- Seconds since the epoch as RFC 3339, in UTC; nil for nil.
local function rfc3339(seconds)
  if seconds then
    local ms = math.floor(seconds * 1000 + 0.001) -- as in the file's line
    return os.date("!%Y-%m-%dT%H:%M:%S", ms // 1000) ..
      (".%03dZ"):format(ms % 1000)
  end
end

local function failure(self, reason, message, errno)
  local kind = "IoError"
  if NOT_PERMITTED[errno] then
    kind = "PermissionDenied"
  elseif NO_FILE[errno] or reason == "denied" then
    kind = "LockFileError"
  end
  local path = self:LockPath()
  message = message or reason
  local folder = folder_of(self)
  if folder and not (message .. " "):find("%s" .. folder:gsub("%p", "%%%0") ..
                                          "[:%s]") then
    message = path .. ": " .. message -- it names the file alone
  end
  return setmetatable({
    kind = kind,
    command = self.command,
    path = path,
    errno = errno,
    reason = reason,
    message = message,
  }, IsolationError)
end

-- Somebody has it.
local function busy(self, wait, reason, owner, seconds_left)
  return setmetatable({
    kind = wait and "Timeout" or "AlreadyRunning",
    command = self.command,
    path = self:LockPath(),
    reason = reason,
    timeout = wait,
    lockedAt = owner and rfc3339(owner.since),
    owner = owner and owner.pid > 0 and owner or nil,
    secondsLeft = seconds_left,
  }, IsolationError)
end

-- ------------------------------------------------------------- arguments --

-- A value, for a message.
local function describe(value)
  local kind = type(value)
  if kind == "string" then
    return #value <= 60 and ("the string '%s'"):format(value) or
           ("a string of %d bytes"):format(#value)
  elseif kind == "number" or kind == "boolean" or kind == "nil" then
    return tostring(value)
  end
  return "a " .. kind
end

local function is_guard(value)
  return type(value) == "userdata" and
         getmetatable(value) == "ExecutionGuard"
end

-- Each takes a value, and returns what is wanted where it is not that.
local CHECKS <const> = {
  command = function(value)
    if type(value) ~= "string" or value == "" or #value > 512 then
      return "a string of 1 to 512 bytes"
    end
  end,
  strategy = function(value)
    if value ~= "file" and value ~= "memory" then
      return '"file" or "memory"'
    end
  end,
  lockDir = function(value)
    if type(value) ~= "string" or value == "" or value:find "[?%z]" then
      return "the path of a folder, without '?'"
    end
  end,
  timeout = function(value)
    if type(value) ~= "number" or value ~= value or value < 0 then
      return "seconds, 0 or more, or math.huge"
    end
  end,
  store = function(value)
    if not is_guard(value) and
       (type(value) ~= "string" or not value:find "^%l[%w+.-]*") then
      return "the URL of a store, or a guard"
    end
  end,
}

-- Raises for what is not wanted, and blames who called the method.
local function check(method, name, value, level)
  local wants = CHECKS[name](value)
  if wants then
    error(("%s: %s must be %s, not %s"):format(method, name, wants,
      describe(value)), level or 3)
  end
end

-- ---------------------------------------------------------------- stores --

-- A guard to lock on, and whether it is to be closed after; or nil and the
-- failure.
local function open(self)
  local store = self.store
  if is_guard(store) then
    return store, false
  elseif store == nil and self.strategy == "file" then
    store = ("file:%s?locks=."):format(self.lockDir)
  end
  local memory = store == nil or store:find "^memory"
  local guard, reason, message, errno = core.tryNew {
    store = store,
    name = memory and MEMORY_NAME or nil,
  }
  if guard then
    return guard, true
  elseif reason == "invalid" then
    error("Isolation: " .. message, 3)
  end
  return nil, failure(self, reason, message, errno)
end

-- ----------------------------------------------------------------- locks --

local Guard = { __name = "IsolationGuard" }
Guard.__index = Guard

-- Was the command still held by it, until now?
function Guard:Release()
  local lock = self.lock
  local released = lock:Release()
  if self.opened then
    self.opened:Close()
    self.opened = nil
  end
  return released
end

-- Is the command still held by it?
function Guard:Held()
  return self.lock:Held()
end

-- The collector needs no function of ours: the lock has one of its own.
function Guard:__close()
  self:Release()
end

function Guard:__tostring()
  return ("IsolationGuard of '%s' (%s)"):format(self.command,
    self:Held() and "held" or "released")
end

local function granted(self, store, own, lock)
  return setmetatable({
    command = self.command,
    path = self:LockPath(),
    token = lock.token,
    lock = lock,
    opened = own and store or nil,
  }, Guard)
end

-- wait: seconds; nil: not at all.  A guard on the command, or nil and why.
local function take(self, store, own, wait)
  for try = 1, TRIES do
    local lock, reason, detail, errno = store:Lock(self.command, wait or 0)
    if lock then
      return granted(self, store, own, lock)
    elseif reason == "cooldown" then
      return nil, busy(self, wait, reason, nil, detail)
    elseif reason == "canceled" then
      return nil, busy(self, wait or 0, reason)
    elseif reason ~= "locked" and reason ~= "deadlock" then
      return nil, failure(self, reason, detail, errno)
    end
    local held, owner = native.holder(store, self.command)
    if held or wait or try == TRIES then
      return nil, busy(self, wait, reason, owner)
    end -- the holder has just let go
  end
end

local function acquire(self, wait)
  local store, own = open(self)
  if not store then
    return nil, own
  end
  local guard, err = take(self, store, own, wait)
  if not guard and own then
    store:Close()
  end
  return guard, err
end

-- ------------------------------------------------------------ isolations --

local Isolation = { __name = "Isolation" }
Isolation.__index = Isolation

local function configured(self, method, name, value)
  if self.store ~= nil then
    error(("%s: this isolation has a store of its own"):format(method), 2)
  end
  check(method, name, value) -- it was a tail call that came here
  self[name] = value
  return self
end

function Isolation:WithStrategy(strategy)
  return configured(self, "WithStrategy", "strategy", strategy)
end

function Isolation:WithLockDir(dir)
  return configured(self, "WithLockDir", "lockDir", dir)
end

function Isolation:WithTimeout(seconds)
  check("WithTimeout", "timeout", seconds)
  self.timeout = seconds
  return self
end

function Isolation:Lock()
  return acquire(self, self.timeout)
end

function Isolation:LockWithTimeout(seconds)
  check("LockWithTimeout", "timeout", seconds)
  return acquire(self, seconds)
end

function Isolation:LockPath()
  local folder = folder_of(self)
  if folder then
    return (folder:gsub("([^/])/*$", "%1/")) .. native.file(self.command)
  end
end

-- What has the name of the lock file; nil where there is no such.
local function look(self)
  local path = self:LockPath()
  return path and native.look(path)
end

function Isolation:IsLocked()
  if look(self) == "none" then
    return false -- nor is a folder made for the question
  end
  local store, own = open(self)
  if not store then
    return nil, own
  end
  local held, reason, message, errno = native.holder(store, self.command)
  if own then
    store:Close()
  end
  if held == nil then
    return nil, failure(self, reason, message, errno)
  end
  return held
end

-- A dead holder's line goes with the next lock.
local function clear_line(self, store)
  local lock <close> = store:Lock(self.command, 0)
  return lock and 1 or 0
end

function Isolation:ReleaseAll()
  local seen = look(self)
  if seen == "none" then
    return 0
  end
  local store, own = open(self)
  if not store then
    return nil, own
  end
  local count = 0
  local released, reason, message, errno = native.release(store, self.command)
  if released then
    count = 1
  elseif seen == "line" then
    count = clear_line(self, store)
  end
  if own then
    store:Close()
  end
  if released == nil then
    return nil, failure(self, reason, message, errno)
  end
  return count
end

function Isolation:__tostring()
  local store = self.store -- its URL may have a password
  return ("Isolation of '%s' (%s)"):format(self.command, self:LockPath() or
    self.strategy or type(store) == "string" and store:match "^[%w+.-]+" or
    tostring(store))
end

-- ---------------------------------------------------------------- module --

local NEW <const> = "Isolation.new"

local function check_options(options)
  for name, value in pairs(options) do
    if CHECKS[name] == nil or name == "command" then
      error(("%s: there is no option '%s'; there are strategy, lockDir, " ..
             "timeout and store"):format(NEW, tostring(name)), 3)
    end
    check(NEW, name, value, 4)
  end
  if options.store and (options.strategy or options.lockDir) then
    error(NEW .. ": store says where the lock is; leave strategy and " ..
          "lockDir out", 3)
  end
end

local module = {}

function module.new(command, options)
  check(NEW, "command", command)
  if options ~= nil and type(options) ~= "table" then
    error(("%s: options must be a table, not %s"):format(NEW,
      describe(options)), 2)
  end
  options = options or {}
  check_options(options)
  return setmetatable({
    command = command,
    strategy = not options.store and (options.strategy or "file") or nil,
    lockDir = not options.store and (options.lockDir or DEFAULT_DIR) or nil,
    timeout = options.timeout,
    store = options.store,
  }, Isolation)
end

core.own.claim()

return module
