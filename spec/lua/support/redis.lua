-- SPDX-License-Identifier: MIT
-- A Redis server for specs, whose clock is moved by hand together with ours.

local server = require "support.server"

local redis = {}

--- Starts a server: url, advance(seconds), away(fn), stop().
function redis.start()
  local it = server.start("with-redis", true)

  -- The server does nothing while fn runs.
  function it.away(fn)
    local cli = assert(io.popen("redis-cli -s " ..
      it.url:match "//(.*)" .. " INFO server"))
    local pid = cli:read "a":match "process_id:(%d+)"
    cli:close()
    os.execute("kill -STOP " .. pid)
    local results = table.pack(pcall(fn))
    os.execute("kill -CONT " .. pid)
    assert(results[1], results[2])
    return table.unpack(results, 2, results.n)
  end

  return it
end

return redis
