-- SPDX-License-Identifier: MIT
-- The stores that are servers, each on a server of its own, beside the same
-- round trips by hand.

local figures = require "measure".figures

return function(report, here, build, quick)
  local program = io.open(build .. "/redis")
  if not program then
    return report:skip("redis", "there is no hiredis or no redis-server")
  end
  program:close()
  local command = "exec %s/redis ${EXECUTIONGUARD_STORE#redis+unix://} %d %d"
  command = command:format(build, quick and 7 or 21, quick and 1000 or 3000)
  local samples = figures(("%s/../tools/with-redis '' sh -c '%s'"):format(here,
    command))
  report:line { what = "redis: acquire + release", samples = samples,
    ours = "our_lock", against = "raw_lock",
    name = "SET NX PX + EVALSHA", goal = 1.1 }
  report:line { what = "redis: cached RunOnce", samples = samples,
    ours = "our_cached", against = "raw_get", name = "GET", goal = 1.15 }
  report:line { what = "redis: hand-over to who waits", samples = samples,
    ours = "our_hand_over", against = "raw_hand_over", name = "BLPOP",
    goal = 2.2 }
end
