-- SPDX-License-Identifier: MIT
-- A Redis server for specs, whose clock is moved by hand together with ours.
-- It ends with the spec, also when that dies: it waits for its input to end.

local core = require "executionguard.core"

local redis = {}

-- Where the build is, by where the module was found.
local function build_of()
  local path = assert(package.searchpath("executionguard.core",
    package.cpath))
  return path:match "^(.*)/lua/executionguard/core%.so$"
end

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read "a"
  if file then
    file:close()
  end
  return text
end

--- Starts a server: url, advance(seconds), stop().
function redis.start()
  local told = os.tmpname()
  local command = ("exec spec/tools/with-redis '%s/test/handclock.so' " ..
    "sh -c 'echo $EXECUTIONGUARD_STORE $EXECUTIONGUARD_SPEC_CLOCK >%s; " ..
    "cat >/dev/null'"):format(build_of(), told)
  local pipe = assert(io.popen(command, "w"))
  local url, clock
  -- Real time: the server has to start.
  for _ = 1, 4000 do
    url, clock = (read(told) or ""):match "^(%S+) (%S+)\n"
    if url then
      break
    end
    os.execute "sleep 0.01"
  end
  os.remove(told)
  assert(url, "the server did not start")
  local server = { url = url }

  function server.advance(seconds)
    local now = string.unpack("<i8", read(clock))
    local file = assert(io.open(clock, "r+b"))
    file:write(string.pack("<i8", now + math.floor(seconds * 1e6 + 0.5)))
    file:close()
    core.clock.advance(seconds)
  end

  -- The server does nothing while fn runs.
  function server.away(fn)
    local cli = assert(io.popen("redis-cli -s " ..
      url:match "//(.*)" .. " INFO server"))
    local pid = cli:read "a":match "process_id:(%d+)"
    cli:close()
    os.execute("kill -STOP " .. pid)
    local results = table.pack(pcall(fn))
    os.execute("kill -CONT " .. pid)
    assert(results[1], results[2])
    return table.unpack(results, 2, results.n)
  end

  function server.stop()
    pipe:close()
  end

  return server
end

return redis
