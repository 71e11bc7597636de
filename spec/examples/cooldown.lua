-- SPDX-License-Identifier: MIT
-- A reward that can be claimed once a day, tested without waiting for a day.

local ExecutionGuard = require "executionguard"
local testing = require "executionguard.testing"

local HOUR <const>, DAY <const> = 3600, 24 * 3600

-- From here on time stands still until it is moved.  First the clock, then the
-- guard, so that they end in the other order.
local clock <close> = testing.clock()
local guard <close> = ExecutionGuard.new()
local coins = 0

local function claim(player)
  local ok, _, reason, seconds = guard:RunOnce("reward:" .. player, function()
    coins = coins + 50
  end, { allowRerun = true, cooldown = DAY })
  local now = os.date("!%H:%M", math.tointeger(clock:now() // 1))
  if ok then
    print(now, player .. " gets 50 coins")
  else
    print(now, player .. (" has to wait %.0f h: %s"):format(seconds / HOUR,
                                                            reason))
  end
  return ok, reason, seconds
end

assert(claim "ann")
clock:advance(6 * HOUR)
local ok, reason, seconds = claim "ann"
assert(not ok and reason == "cooldown" and seconds == 18 * HOUR)
clock:advance(18 * HOUR)
assert(claim "ann" and coins == 100)
