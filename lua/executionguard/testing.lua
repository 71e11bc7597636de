-- SPDX-License-Identifier: MIT
-- executionguard.testing: a clock that is moved by hand, for your tests.
--
--   local testing = require "executionguard.testing"
--
--   it("lets a reward be claimed again the next day", function()
--     local clock <close> = testing.clock()
--     local guard <close> = ExecutionGuard.new { cooldown = 24 * 3600 }
--     ...
--     clock:advance(24 * 3600)
--     ...
--   end)
--
-- Nothing sleeps.  Time stands still until it is moved; it starts at
-- 2026-01-01T00:00:00Z, each time the same.  All guards follow it:
-- timeouts, cooldowns, times to live, delays between retries, waits for a
-- lock, ExecutionGuard.now(), executionguard.task.  Not Lua's own os.time and
-- os.clock.
--
-- There is one such clock for the process, all its threads and Lua states.
-- Times measured by one clock mean nothing to another: put it in force before
-- the guard is made, and close the guard before it is restored.  With two
-- <close> variables in that order, as above, both come for free.
--
-- WAITING.  As a test has one thread, nobody else could move the clock while
-- it waits.  So waiting moves the clock itself, to the end of the wait, at
-- once (`auto`, the default).  With auto = false a wait lasts until another
-- thread of the process advances the clock past its end; in a program with one
-- thread it would last for ever.

local core = require "executionguard.core"

local control = core.clock

local testing = {}

local Clock = { __name = "ExecutionGuard test clock" }
Clock.__index = Clock

-- More than this in one step is a slip (milliseconds for seconds, most often),
-- and far from what 64 bits of microseconds hold.
local MOST_SECONDS = 1e10

local current -- the clock in force; nil: the system's

local function check_clock(clock, method)
  if getmetatable(clock) ~= Clock then
    error(("%s: called on a %s, not on a clock (write clock:%s(...), with " ..
           "a colon)"):format(method, type(clock), method), 3)
  elseif clock ~= current then
    error(("%s: this clock is not in force: it was restored, or another " ..
           "took its place"):format(method), 3)
  end
end

local function check_seconds(value, method, what)
  if type(value) ~= "number" then
    error(("%s: %s must be a number of seconds, not a %s"):format(
      method, what, type(value)), 3)
  elseif not (value >= 0 and value <= MOST_SECONDS) then
    error(("%s: %s must be a number of seconds from 0 to %.0f, not %s"):format(
      method, what, MOST_SECONDS, value), 3)
  end
end

-- clock:advance(seconds): moves the clock forward, steady and wall time alike;
-- waits that end by then return.  Raises for a number that is negative, NaN or
-- above 1e10, for what is no number, and when the clock is not in force.
function Clock:advance(seconds)
  check_clock(self, "advance")
  check_seconds(seconds, "advance", "seconds")
  control.advance(seconds)
end

-- clock:setWall(epochSeconds): sets the time of day alone, forwards or back,
-- as an administrator or a time server would: no timeout comes nearer by it.
-- Raises as advance does.
function Clock:setWall(epochSeconds)
  check_clock(self, "setWall")
  check_seconds(epochSeconds, "setWall", "the time")
  control.setWall(epochSeconds)
end

-- clock:now() -> seconds since the epoch, what ExecutionGuard.now() returns.
-- Raises when the clock is not in force.
function Clock:now()
  check_clock(self, "now")
  return core.now()
end

-- clock:steady() -> seconds since some start, what deadlines are counted by;
-- never goes back.  Raises when the clock is not in force.
function Clock:steady()
  check_clock(self, "steady")
  return control.steady()
end

-- clock:restore(): puts the system's clock back.  Does nothing when this clock
-- is not in force (any more), so that it can be called twice, and by whoever
-- cleans up.
function Clock:restore()
  if getmetatable(self) ~= Clock then
    error(("restore: called on a %s, not on a clock (write " ..
           "clock:restore(), with a colon)"):format(type(self)), 2)
  end
  if self == current then
    current = nil
    control.use(false)
  end
end

function Clock:__close()
  self:restore()
end

function Clock:__tostring()
  return ("%s (%s)"):format(Clock.__name,
                            self == current and "in force" or "restored")
end

-- testing.isClock(value) -> was it made by testing.clock?
function testing.isClock(value)
  return getmetatable(value) == Clock
end

-- testing.install(clock): what ExecutionGuard.configure{clock = clock} does.
-- A clock that is in force goes on; one that is not starts from its beginning.
-- false puts the system's clock back.
function testing.install(clock)
  if clock == false then
    current = nil
    control.use(false)
  elseif clock ~= current then
    control.reset(clock.auto)
    control.use(true)
    current = clock
  end
end

-- testing.clock(options) -> clock, in force from now on, at its start.  It
-- takes the place of another test clock, which is then out of force.
--   options.auto  boolean: does waiting move the clock?  Default true; see
--                 WAITING above
-- To be restored by clock:restore(), or by itself as a <close> variable.
-- Raises for options that do not exist or are of the wrong type.
function testing.clock(options)
  local auto = true
  if options ~= nil and type(options) ~= "table" then
    error(("testing.clock: options must be a table {auto = boolean}, not a %s")
      :format(type(options)), 2)
  end
  for name, value in pairs(options or {}) do
    if name ~= "auto" then
      error(("testing.clock: there is no option '%s'; the only one is 'auto'")
        :format(tostring(name)), 2)
    elseif type(value) ~= "boolean" then
      error(("testing.clock: option 'auto' must be a boolean, not a %s")
        :format(type(value)), 2)
    end
    auto = value
  end
  local clock = setmetatable({ auto = auto }, Clock)
  testing.install(clock)
  return clock
end

return testing
