-- SPDX-License-Identifier: MIT
-- executionguard.loop.luv: coroutines that wait for a key are run by luv.
--
--   ExecutionGuard.configure { loop = require "executionguard.loop.luv" }
--
-- Its default loop; coroutines are ordinary ones.
--
-- luv ends the program when an error leaves one of its callbacks, and what
-- ends a guarded function at its deadline is an error: a guard around uv.run()
-- is to have `interrupt = false`; the callbacks may have guards of their own.

local uv = require "luv"

local function stopper(handle)
  return function()
    if not handle:is_closing() then
      handle:stop()
      handle:close()
    end
  end
end

local loop = {}

function loop.now()
  return uv.hrtime() / 1e9
end

-- The loop's time may be old: it counts from the last time it slept.
function loop.delay(seconds, fn)
  local timer = uv.new_timer()
  local stop = stopper(timer)
  uv.update_time()
  timer:start(math.ceil(math.min(seconds, 1e12) * 1000), 0, function()
    stop()
    fn()
  end)
  return stop
end

function loop.wake(fd, fn)
  local poll = assert(uv.new_poll(fd))
  poll:start("r", function()
    fn()
  end)
  return stopper(poll)
end

return loop
