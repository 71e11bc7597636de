-- SPDX-License-Identifier: MIT
-- PostgreSQL over TLS: a real server with a certificate that is thrown away.

local shell = require "support.shell"
local socket = require "socket"

-- What the program prints that uses the server, with that in its URL.
local PROGRAM <const> = [[
  local ExecutionGuard = require "executionguard"
  local function open(more, timeout)
    return pcall(ExecutionGuard.new, { name = "tls", store =
      os.getenv "URL" .. "&timeout=" .. (timeout or 60) .. "&" .. more })
  end
  local trusted = "sslmode=verify-ca&sslrootcert=" .. os.getenv "TRUST"
  local _, a = assert(open(trusted))
  local _, b = assert(open(trusted))
  print(a:RunOnce("k", function() return { "by", "wire" } end))
  print(table.concat(select(2, b:RunOnce("k", print)), " "))
  -- One who waits listens on a connection of its own.
  a:AcquireLock "l"
  local pipe = io.popen(("URL='%s' lua5.4 -e '%s'"):format(
    os.getenv "URL" .. "&timeout=60&" .. trusted, os.getenv "WAITER"))
  local waits = 0
  repeat
    local psql = io.popen(("psql -qAtX '%s' -c \"%s\""):format(
      os.getenv "URL", "SELECT sum(waits) FROM eg_records"))
    waits = psql:read "n"
    psql:close()
  until waits == 1
  a:ReleaseLock "l"
  print(pipe:read "l")
  pipe:close()
  local psql = io.popen(("psql -qAtX '%s' -c \"%s\""):format(
    os.getenv "URL", [==[SELECT count(*)>0,bool_and(ssl) FROM pg_stat_ssl
      JOIN pg_stat_activity USING (pid)
      WHERE application_name='executionguard']==]))
  print(psql:read "l")
  psql:close()
  local good, why = open("sslmode=verify-ca&sslrootcert=" ..
    os.getenv "OTHER", 1)
  print(good, why:match "certificate verify failed")
]]

local WAITER <const> = [[
  local guard = require "executionguard".new { name = "tls",
    store = os.getenv "URL" }
  print(guard:AcquireLock("l", 60))]]

describe("postgres over TLS", function()
  it("does all, by no other way, and with nobody else", function()
    local folder = shell.folder()
    finally(function() folder:remove() end)
    for _, name in ipairs { "server", "other" } do
      local made = shell.run(folder, ("openssl req -x509 -nodes -days 2 " ..
        "-newkey rsa:2048 -subj /CN=localhost -keyout %s/%s.key " ..
        "-out %s/%s.crt"):format(folder.path, name, folder.path, name))
      assert.equal(0, made.status)
    end
    -- The server is another user where this is root, and reads only its own.
    shell.run(folder, ("chmod 755 %s; chmod 600 %s/server.key; " ..
      "test $(id -u) != 0 || chown postgres %s/server.key"):format(
      folder.path, folder.path, folder.path))
    local probe = assert(socket.bind("127.0.0.1", 0))
    local _, port = probe:getsockname()
    probe:close()
    local file = assert(io.open(folder.path .. "/program.lua", "w"))
    file:write(PROGRAM)
    file:close()
    local result = shell.run(folder, ([[
      export PGPORT=%d TRUST=%s/server.crt OTHER=%s/other.crt
      export URL='postgresql://eg@127.0.0.1:%d/postgres?sslmode=require'
      export WAITER='%s'
      WITH_POSTGRES_OPTIONS="-c listen_addresses=127.0.0.1 -p %d -c ssl=on \
        -c ssl_cert_file=%s/server.crt -c ssl_key_file=%s/server.key" \
        spec/tools/with-postgres '' lua5.4 %s/program.lua]]):format(port,
      folder.path, folder.path, port, WAITER, port, folder.path, folder.path,
      folder.path))
    assert.matches("^true\ttable: [^\n]*\nby wire\ntrue\t%d+\nt|t\n" ..
      "false\tcertificate verify failed\n$", result.out .. result.err)
  end)
end)
