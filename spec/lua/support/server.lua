-- SPDX-License-Identifier: MIT
-- Servers of stores for specs (spec/tools/with-redis, with-postgres).  One
-- ends with its spec, also when that dies: it waits for its input to end.

local core = require "executionguard.core"

local server = {}

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

local function say(command)
  local pipe = assert(io.popen(command))
  local said = pipe:read "a"
  pipe:close()
  return said
end

-- The processes of a server, by its URL.
local PROCESSES = {
  ["with-redis"] = function(url)
    return say("redis-cli -s " .. url:match "//([^?]*)" .. " INFO server")
      :match "process_id:(%d+)"
  end,
  ["with-postgres"] = function(url)
    local pid = read(url:match "host=([^&]*)" .. "/db/postmaster.pid")
      :match "%d+"
    return pid .. " " .. say("pgrep -P " .. pid):gsub("\n", " ")
  end,
  ["with-etcd"] = function(url)
    return say("pgrep -f '^etcd .*-client-urls http://" ..
      url:match "//([^?]*)" .. " '"):match "%d+"
  end,
}

--- Starts one: url, with(query), away(fn), stop().  by_hand: its clock is
--- moved together with ours, by advance(seconds); else it has the machine's.
function server.start(tool, by_hand)
  local told, build = os.tmpname(), build_of()
  local clock_of = by_hand and build .. "/test/handclock.so" or ""
  local command = ("WITH_POSTGRES_CACHE='%s/postgres' exec spec/tools/%s " ..
    "'%s' sh -c 'echo $EXECUTIONGUARD_STORE $EXECUTIONGUARD_SPEC_CLOCK " ..
    ">%s; cat >/dev/null'"):format(build, tool, clock_of, told)
  local pipe = assert(io.popen(command, "w"))
  local url, clock
  -- Real time: the server has to start.
  for _ = 1, 4000 do
    url, clock = (read(told) or ""):match "^(%S+) ?(%S*)\n"
    if url then
      break
    end
    os.execute "sleep 0.01"
  end
  os.remove(told)
  assert(url, "the server did not start")
  local it = { url = url }

  -- Its URL with further parameters.
  function it.with(query)
    return url .. (url:find("?", 1, true) and "&" or "?") .. query
  end

  -- The server does nothing while fn runs.  On a busy machine its threads go
  -- on for a moment after kill has returned: each is waited for.
  function it.away(fn)
    local pids = PROCESSES[tool](url)
    os.execute(("kill -STOP %s; for pid in %s; do while " ..
      "sed 's/.*) //' /proc/$pid/task/*/stat | grep -qv '^T'; " ..
      "do sleep 0.01; done; done"):format(pids, pids))
    local results = table.pack(pcall(fn))
    os.execute("kill -CONT " .. pids)
    assert(results[1], results[2])
    return table.unpack(results, 2, results.n)
  end

  function it.advance(seconds)
    assert(by_hand, "it has the machine's clock")
    local now = string.unpack("<i8", read(clock))
    local file = assert(io.open(clock, "r+b"))
    file:write(string.pack("<i8", now + math.floor(seconds * 1e6 + 0.5)))
    file:close()
    core.clock.advance(seconds)
  end

  function it.stop()
    pipe:close()
  end

  return it
end

return server
