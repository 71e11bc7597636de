-- SPDX-License-Identifier: MIT
-- Guards on a Redis server.

local servers = require "support.server"
local ExecutionGuard = require "executionguard"

assert(loadfile("spec/lua/support/on_server.lua", "t", _ENV))("redis")
assert(loadfile("spec/lua/support/endings.lua", "t", _ENV))("redis")

describe("a guard on redis", function()
  local server

  setup(function() server = servers.start("with-redis", true) end)
  teardown(function() server.stop() end)

  it("what_the_server_may_lose_is_warned_of", function()
    local said = {}
    ExecutionGuard.new { store = server.url, logger = function(level, text)
      said[#said + 1] = level .. ": " .. text
    end }
    assert.matches("appendonly is off", table.concat(said, "\n"), 1, true)
  end)
end)
