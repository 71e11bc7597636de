-- SPDX-License-Identifier: MIT
-- A value in etcd that only the holder of a key may change.
--
-- This starts a server of its own unless EXECUTIONGUARD_STORE names one.

local url = os.getenv "EXECUTIONGUARD_STORE"
if not url then
  os.exit((os.execute("exec spec/tools/with-etcd '' lua5.4 " .. arg[0])))
end

local ExecutionGuard = require "executionguard"

-- Any client will do; etcdctl takes a transaction from its input.
local function etcdctl(words, input)
  local command = ("ETCDCTL_API=3 etcdctl --endpoints %s %s <<'END'\n%s\nEND")
    :format(url:match "//([^?]*)", words, input or "")
  local pipe <close> = assert(io.popen(command))
  return (pipe:read "a":gsub("%s+$", ""))
end

local guard <close> = ExecutionGuard.new { store = url, name = "shop" }

-- What the guard's hold is in etcd was made by the grant of that token.
local function set(key, token, value)
  local text = 'create("eg/shop/own/%s") = "%d"\n\nput stock/%s %s\n\n'
  return etcdctl("txn", text:format(key, token, key, value)):match "^%u+"
end

local _, old = guard:AcquireLock "apples"
print("the holder:         ", set("apples", old, 5))
guard:Reset "apples" -- as if its lease had ended while its process was stopped
local lock <close> = guard:Lock "apples"
print("the next:           ", set("apples", lock.token, 7))
print("the first, too late:", set("apples", old, 6))
assert(set("apples", old, 6) == "FAILURE")
assert(etcdctl "get --print-value-only stock/apples" == "7")
