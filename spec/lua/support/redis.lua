-- SPDX-License-Identifier: MIT
-- A Redis server for specs, whose clock is moved by hand together with ours.

local server = require "support.server"

local redis = {}

--- Starts a server: url, with(query), advance(seconds), away(fn), stop().
function redis.start()
  return server.start("with-redis", true)
end

return redis
