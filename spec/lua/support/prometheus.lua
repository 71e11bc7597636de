-- SPDX-License-Identifier: MIT
-- A Prometheus for specs, that scrapes what the spec says, and a small HTTP
-- server with pages that it may scrape.

local shell = require "support.shell"
local socket = require "socket"

local prometheus = {}

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

-- ------------------------------------------------------------- its pages --

--- An HTTP server: pages["/path"] = function() -> body, content type.
function prometheus.pages(pages)
  local listener = assert(socket.bind("127.0.0.1", 0))
  local _, port = listener:getsockname()
  local it = { address = "127.0.0.1:" .. port, asked = {} }

  -- Answers one request, if one comes within that time.
  function it.serve(seconds)
    listener:settimeout(seconds)
    local client = listener:accept()
    if not client then return end
    client:settimeout(10)
    local line = client:receive "*l"
    local path = (line or ""):match "^GET (%S+)"
    repeat
      line = client:receive "*l"
    until not line or line == ""
    if pages[path] then
      it.asked[path] = (it.asked[path] or 0) + 1
      local body, kind = pages[path]()
      client:send(("HTTP/1.1 200 OK\r\nContent-Type: %s\r\n" ..
        "Content-Length: %d\r\nConnection: close\r\n\r\n"):format(kind, #body))
      client:send(body)
    else
      client:send "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n"
    end
    client:close()
  end

  function it.stop() listener:close() end

  return it
end

-- ----------------------------------------------------------- the server --

local config = [[
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
]]

-- Its address stands in its log; nil while it does not.
local function address_of(log)
  return (shell.read(log) or ""):match 'msg="?Listening on"? address=(%S+)'
end

--- Starts one in the folder; jobs[name] = { address =, path = }. It ends with
--- its input, also when the spec dies.
function prometheus.start(folder, jobs)
  local dir = folder.path .. "/prometheus"
  os.execute("mkdir -p " .. shell.quote(dir))
  local text = { config }
  for name, job in pairs(jobs) do
    text[#text + 1] = ("  - job_name: %s\n    metrics_path: %s\n" ..
      "    static_configs: [{ targets: ['%s'] }]\n"):format(name, job.path,
      job.address)
  end
  write(dir .. "/config", table.concat(text))
  local pipe = assert(io.popen(([[
    cd %s || exit
    prometheus --config.file=config --storage.tsdb.path=data \
      --web.listen-address=127.0.0.1:0 >log 2>&1 &
    cat >/dev/null
    kill $!
    wait]]):format(shell.quote(dir)), "w"))
  local it = {}

  --- GETs from its API: the JSON, or nil while it does not answer.
  function it.get(path)
    local address = address_of(dir .. "/log")
    local client = socket.tcp()
    client:settimeout(10)
    if not address or not client:connect(address:match "^(.*):(%d+)$") then
      client:close()
      return nil
    end
    client:send("GET " .. path .. " HTTP/1.0\r\n\r\n")
    local answer = client:receive "*a" or ""
    client:close()
    local body = answer:match "^HTTP/1%.%d 200 .-\r\n\r\n(.*)$"
    return body and shell.json(body)
  end

  --- The values of a metric by a label: values["text"] = "1"; as they were
  --- at that time (seconds since the epoch), so that what is scraped meanwhile
  --- changes nothing.
  function it.values(metric, label, at)
    local values = {}
    local answer = it.get(("/api/v1/query?query=%s&time=%.3f"):format(metric,
      at))
    for _, one in ipairs(answer and answer.data.result or {}) do
      values[one.metric[label] or ""] = one.value[2]
    end
    return values
  end

  function it.log() return shell.read(dir .. "/log") end
  function it.stop() pipe:close() end

  return it
end

return prometheus
