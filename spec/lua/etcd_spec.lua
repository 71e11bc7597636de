-- SPDX-License-Identifier: MIT
-- Guards on an etcd server.

local servers = require "support.server"
local world = require "support.world"

assert(loadfile("spec/lua/support/on_server.lua", "t", _ENV))("etcd")
assert(loadfile("spec/lua/support/endings.lua", "t", _ENV))("etcd")

-- What its leases are: whole seconds, at least 2.
describe("leases on etcd", function()
  local server

  setup(function() server = servers.start "with-etcd" end)
  teardown(function() server.stop() end)

  it("are_refused_when_they_are_no_whole_seconds", function()
    local guard <close> = world.EG.new { store = server.url, name = "x" }
    for _, options in ipairs { { lease = 1 }, { lease = 2.5 },
        { maxHold = 1.5 } } do
      local ok, why = guard:RunOnce("k", function() return 1 end, options)
      assert.is_false(ok)
      assert.matches("whole number of seconds", tostring(why), 1, true)
    end
    assert.is_true((guard:RunOnce("k", function() return 1 end,
      { lease = 2, maxHold = 5 })))
  end)

  -- Real time: etcd ends what is set for two seconds when it gets to it.
  it("are_what_cooldowns_and_lives_of_results_are_made_of", function()
    local guard <close> = world.EG.new { store = server.url, name = "y",
      cooldown = 0.1, resultTtl = 1 }
    guard:RunOnce("k", function() return 1 end)
    local ok, _, reason, left = guard:RunOnce("k", function() end,
      { allowRerun = true })
    assert.same({ false, "cooldown" }, { ok, reason })
    assert.is_true(left > 0 and left <= 0.1)
    assert.equal(1, guard:GetResult "k")
    for _ = 1, 300 do
      if not guard:HasResult "k" then break end
      os.execute "sleep 0.05"
    end
    assert.is_false(guard:HasResult "k")
    assert.same({ true, 2 }, { guard:RunOnce("k", function() return 2 end,
      { resultTtl = 0 }) })
  end)
end)
