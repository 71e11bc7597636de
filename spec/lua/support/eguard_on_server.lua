-- SPDX-License-Identifier: MIT
-- eguard on a server: the same words, from a program that loads a store.
-- Loaded by the spec of each kind of server, in its environment.

local shell = require "support.shell"
local servers = require "support.server"
local serving = require "support.serving"
local ExecutionGuard = require "executionguard"

local kind = ...

describe("eguard on " .. kind, function()
  local server, folder

  setup(function()
    server = servers.start("with-" .. kind, true)
    folder = shell.folder()
    folder.store = server.url
  end)
  teardown(function()
    server.stop()
    folder:remove()
  end)

  local function sh(command) return shell.run(folder, command) end

  it("runs, refuses, lists and recalls", function()
    assert.equal(3, sh("eguard run k -- sh -c 'exit 3'").status)
    sh(("eguard run k -- sh -c 'until [ -e %s/go ]; do sleep 0.02; done' & " ..
      "echo $! >%s/pid"):format(folder.path, folder.path))
    assert.is_true(shell.comes(folder, "eguard show k | grep -q '^held by'"))
    local result = sh "eguard run k -- true"
    assert.equal(75, result.status)
    assert.match("k is running: pid " ..
      shell.read(folder.path .. "/pid"):match "%d+", result.err)
    sh("touch " .. folder.path .. "/go; eguard wait k")
    assert.match("^k\tCompleted\t", sh("eguard ls").out)
    assert.equal(0, sh("eguard doctor").status)
    assert.equal(server.url .. "\n",
      sh("eguard run --once o -- sh -c 'echo $EXECUTIONGUARD_STORE'").out)
    assert.equal("", sh("eguard run --once o -- echo again").out)
  end)

  it("shares keys with a guard of Lua", function()
    local guard <close> = ExecutionGuard.new { store = server.url }
    assert.is_true(guard:AcquireLock("l", 0))
    assert.equal(75, sh("eguard run l -- true").status)
    assert.is_true(guard:ReleaseLock "l")
    assert.equal(0, sh("eguard run l -- true").status)
    assert.equal("Completed", guard:GetStatus "l")
  end)

  it("serves its page, and says while the server is away", function()
    sh "eguard run s -- true"
    local page = serving.start(folder, "--store=" ..
      shell.quote(server.with "timeout=0.3"))
    assert.equal("s", page:json("/api/key?key=s").record.key)
    local client = page:listen()
    serving.event(client, "hello")
    server.away(function()
      local gone = serving.event(client, "change", '"trouble":"')
      assert.is_true(gone.totalRecords > 0)
    end)
    serving.event(client, "change", '"trouble":null')
    client:close()
    assert.is_true(page:stop())
  end)

  it("leaves nothing behind when it is killed", function()
    sh(("eguard run z -- sh -c 'echo $$ >%s/command; exec sleep 600' & " ..
      "echo $! >%s/eguard"):format(folder.path, folder.path))
    assert.is_true(shell.comes(folder, "[ -s " .. folder.path .. "/command ]"))
    sh("kill -9 $(cat " .. folder.path .. "/eguard)")
    assert.is_true(shell.comes(folder, "! kill -0 $(cat " .. folder.path ..
      "/command) 2>/dev/null"))
  end)

  it("gives back what it holds when it is told to terminate", function()
    sh(("eguard run t -- sh -c 'echo 1 >%s/begun; exec sleep 600' & " ..
      "echo $! >%s/eguard"):format(folder.path, folder.path))
    assert.is_true(shell.comes(folder,
      "[ -e " .. folder.path .. "/begun ]"))
    assert.equal(75, sh("eguard run t -- true").status)
    sh("kill $(cat " .. folder.path .. "/eguard)")
    assert.is_true(shell.comes(folder, "eguard run t -- true"))
  end)

  it("hides the password", function()
    local result = sh(("eguard run -v --store='%s' k -- " ..
      "sh -c 'echo $EXECUTIONGUARD_STORE'"):format(
      server.with "password=hush"))
    assert.is_nil((result.out .. result.err):find "hush")
  end)
end)
