-- What the tests of the page look at: a store with 10,000 keys that are done,
-- some that failed or timed out, over the last hour.  world.lua URL COUNT
local ExecutionGuard = require "executionguard"

local url, count = arg[1], tonumber(arg[2])

-- world.lua URL --report KEY SHARE: holds the key and says how far it is.
if arg[2] == "--report" then
  local guard = ExecutionGuard.new { store = url, owner = "a job" }
  local ok, err, reason = guard:RunOnce(arg[3], function()
    assert(guard:SetProgress(arg[3], tonumber(arg[4])), "it is not told")
    require("executionguard.task").wait(600)
  end, { timeout = 0 })
  if not ok then error(("%s: %s"):format(reason, err)) end
  return
end

local guard <close> = ExecutionGuard.new { store = url, timeout = 0 }
local kinds = { "player", "daily-reward", "import", "backup", "report" }

for i = 1, count do
  guard:RunOnce(("%s/%05d"):format(kinds[i % #kinds + 1], i), function() end)
end
local function fail() error("connection refused", 0) end
for i = 1, 7 do guard:RunOnce("failing/" .. i, fail) end
guard:RunOnce("<img src=x onerror=alert(1)>", function()
  error("<script>alert(2)</script>", 0)
end)
guard:RunOnce("bytes \xff\0", function() end)
for _ = 1, 40 do
  for _, key in ipairs { "cron/backup", "cron/report", "sync/players",
                         "mail/queue", "cache/warm" } do
    guard:RunOnce(key, function()
      if math.random() < 0.12 then error("no route to host", 0) end
    end, { allowRerun = true })
  end
end
