-- SPDX-License-Identifier: MIT
-- A value on a Redis server that only the holder of a key may change.
--
-- This starts a server of its own unless EXECUTIONGUARD_STORE names one.

local url = os.getenv "EXECUTIONGUARD_STORE"
if not url then
  os.exit((os.execute("exec spec/tools/with-redis '' lua5.4 " .. arg[0])))
end

local ExecutionGuard = require "executionguard"
local fence = require "executionguard.fence"

-- Any client will do; redis-cli is at hand everywhere.
local function redis(...)
  local words = { "redis-cli -s " .. url:match "//([^?]*)" }
  for i, word in ipairs { ... } do
    words[i + 1] = "'" .. tostring(word):gsub("'", "'\\''") .. "'"
  end
  local pipe <close> = assert(io.popen(table.concat(words, " ") .. " 2>&1"))
  return (pipe:read "a":gsub("%s+$", ""))
end

local guard <close> = ExecutionGuard.new { store = url, name = "shop" }

-- In the same hash slot as the guard's key, so that a cluster takes both.
local function set(key, token, value)
  local data = "{shop:" .. key .. "}:stock"
  return redis("EVAL", fence.redisScript, 2, fence.redisKey("shop", key), data,
    token, "SET", data, value)
end

local _, old = guard:AcquireLock "apples"
print("the holder:         ", set("apples", old, 5))
guard:Reset "apples" -- as if its lease had ended while its process was stopped
local lock <close> = guard:Lock "apples"
print("the next:           ", set("apples", lock.token, 7))
print("the first, too late:", set("apples", old, 6))
assert(set("apples", old, 6):find "STALE")
assert(redis("GET", "{shop:apples}:stock") == "7")
