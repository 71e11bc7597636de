-- SPDX-License-Identifier: MIT
-- Load something once, however often it is asked for.

local ExecutionGuard = require "executionguard"

local guard <close> = ExecutionGuard.new()
local loads = 0

local function load_settings()
  return guard:RunOnce("settings", function()
    loads = loads + 1 -- a slow read of a file or of a database, say
    return { difficulty = "hard", players = 8 }
  end)
end

-- The first call runs the function ...
local ok, settings, reason = load_settings()
print("first call: ", ok, settings.difficulty, reason)
assert(ok and settings.difficulty == "hard" and reason == nil)

-- ... all others get what it returned, and are told so.
local again
ok, again, reason = load_settings()
print("second call:", ok, again.difficulty, reason)
assert(ok and again == settings and reason == "cached" and loads == 1)

-- An error is returned, not raised, and the next call tries again.
local err
ok, err, reason = guard:RunOnce("mail", function() error("no route", 0) end)
print("a failure:  ", ok, err, reason, guard:GetStatus "mail")
assert(not ok and err == "no route" and reason == "failed")
assert(guard:RunOnce("mail", function() return "sent" end))

-- Reset forgets what is known; then it runs again.
guard:Reset "settings"
assert(load_settings() and loads == 2)
