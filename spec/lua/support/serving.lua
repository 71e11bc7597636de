-- SPDX-License-Identifier: MIT
-- eguard serve for specs: started on a free port of its own, and asked by curl
-- or by a bare socket.

local shell = require "support.shell"
local socket = require "socket"

local serving = {}
local Server = {}
Server.__index = Server

--- Starts one; call server:stop() in the end.  options: of the command line.
function serving.start(folder, options)
  local at = folder.path .. "/serving"
  shell.run(folder, ("eguard serve --listen=127.0.0.1:0 %s >%s.out " ..
    "2>%s.err & echo $! >%s.pid"):format(options or "", at, at, at))
  assert(shell.comes(folder, "test -s " .. at .. ".out"),
    shell.read(at .. ".err"))
  local link = shell.read(at .. ".out"):match "%S+"
  return setmetatable({ folder = folder, link = link,
    pid = shell.read(at .. ".pid"):match "%d+", err = at .. ".err",
    url = link:match "^http://[^/]+", port = link:match ":(%d+)/" }, Server)
end

--- Ends it; its exit status cannot be asked, so: true when it was there.
function Server:stop()
  local was = shell.run(self.folder, "kill " .. self.pid).status == 0
  assert(shell.comes(self.folder, ("! kill -0 %s 2>/dev/null || " ..
    "grep -q '^State:.Z' /proc/%s/status"):format(self.pid, self.pid)),
    "it does not end")
  return was
end

--- Asks by curl.  Returns the status, the body and the head.
function Server:get(path, options)
  local head = self.folder.path .. "/head"
  local result = shell.run(self.folder,
    ("curl -sS -m 60 -D %s %s %s"):format(head, options or "",
      shell.quote(self.url .. path)))
  local said = shell.read(head) or ""
  return tonumber(said:match "^HTTP/1%.1 (%d+)"), result.out, said,
    result.err
end

function Server:json(path, options)
  local status, body = self:get(path, options)
  return shell.json(body), status
end

--- A row of the state as a table by its columns; nil.
function Server:row(key)
  local state = self:json "/api/state"
  for _, row in ipairs(state.rows) do
    if row[1] == key then
      local by_name = {}
      for i, name in ipairs(state.columns) do by_name[name] = row[i] end
      return by_name
    end
  end
end

--- A bare connection, on which that was sent.
function Server:connect(text)
  local client = assert(socket.connect("127.0.0.1", tonumber(self.port)))
  client:settimeout(60)
  if text then assert(client:send(text)) end
  return client
end

--- A connection to the events, past its head.
function Server:listen()
  local client = self:connect(
    "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
  assert(client:receive "*l" == "HTTP/1.1 200 OK")
  repeat local line = assert(client:receive "*l") until line == ""
  return client
end

--- Reads on until an event of that kind, whose data has that text; a tick
--- comes every two seconds, so there is an end to it.
function serving.event(client, kind, text)
  local found, ticks = nil, 0
  repeat
    local line = assert(client:receive "*l")
    if line == "event: tick" then ticks = ticks + 1 end
    assert(ticks < 30, "it does not come")
    if line:match "^event: " then found = line:sub(8) end
    if line:match "^data: " and found == kind and
       (not text or line:find(text, 1, true)) then
      return shell.json(line:sub(7))
    end
  until false
end

return serving
