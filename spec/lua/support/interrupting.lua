-- SPDX-License-Identifier: MIT
-- What the specs of interruption share: functions that do not end, and how
-- they do.  Real time, with generous bounds.

local assert = require "luassert"
local core = require "executionguard.core"
local ExecutionGuard = require "executionguard"

local steady = core.clock.steady

local interrupting = {
  LIMIT = 0.01, -- seconds that a function is allowed
  MOST = 10,    -- what it may take at most, on a busy machine
}

local LIMIT <const>, MOST <const> = interrupting.LIMIT, interrupting.MOST

function interrupting.forever()
  while true do end
end

function interrupting.spin(seconds)
  local start = steady()
  while steady() - start < seconds do end
end

--- Calls try(reached) until that has called reached: on a busy machine the
--- time of a function may be over before it has come far.
function interrupting.until_reached(try)
  for _ = 1, 200 do
    local there = false
    try(function() there = true end)
    if there then
      return
    end
  end
  error "it never came so far"
end

--- The status of "k" when it runs no more: the keeper may come late on a busy
--- machine.
function interrupting.status_in_the_end(guard)
  local start = steady()
  local status
  repeat
    status = guard:GetStatus "k"
  until status ~= "Running" or steady() - start > MOST
  return status
end

--- A new guard; run(fn, options?), by it, on "k", within LIMIT; and ends, the
--- same, for what has to end by its timeout, neither early nor late.
function interrupting.start()
  local guard = ExecutionGuard.new()

  local function run(fn, options)
    options = options or {}
    options.timeout = options.timeout or LIMIT
    return guard:RunOnce("k", fn, options)
  end

  local function ends(fn, options)
    local start = steady()
    assert.same({ false, nil, "timeout" }, { run(fn, options) })
    local took = steady() - start
    assert.is_true(took >= LIMIT and took < MOST, ("took %g s"):format(took))
    assert.equal("TimedOut", guard:GetStatus "k")
    assert.is_false(guard:IsLocked "k")
  end

  return guard, run, ends
end

--- Afterwards: no hook was left behind.
function interrupting.stop(guard)
  ExecutionGuard.configure { engine = "signal" }
  local hook = debug.gethook()
  debug.sethook()
  guard:Close()
  assert.is_nil(hook)
end

return interrupting
