-- SPDX-License-Identifier: MIT
-- A table in PostgreSQL that only the holder of a key may change: the last
-- statement of a transaction asks whether its token is still the latest.
--
-- This starts a server of its own unless EXECUTIONGUARD_STORE names one.

local url = os.getenv "EXECUTIONGUARD_STORE"
if not url then
  os.exit((os.execute("exec spec/tools/with-postgres '' lua5.4 " .. arg[0])))
end

local ExecutionGuard = require "executionguard"

-- Any client will do; psql is at hand everywhere.
local function psql(sql)
  local pipe <close> = assert(io.popen(
    ("psql -qAtX '%s' -c \"%s\" 2>&1"):format(url, sql)))
  return (pipe:read "a":gsub("%s+$", ""))
end

local guard <close> = ExecutionGuard.new { store = url, name = "bank" }
psql "CREATE TABLE account (name text PRIMARY KEY, money int)"
psql "INSERT INTO account VALUES ('ann', 100)"

local function pay(token, amount)
  return psql(([[BEGIN;
    UPDATE account SET money = money - %d WHERE name = 'ann';
    SELECT eg_check_token('bank', 'account:ann', %d);
    COMMIT]]):format(amount, token))
end

local _, old = guard:AcquireLock "account:ann"
assert(pay(old, 10) == "")
guard:Reset "account:ann" -- as if its lease had ended while it was stopped
local lock <close> = guard:Lock "account:ann"
assert(pay(lock.token, 20) == "")
print("who comes too late is told:", pay(old, 30))
assert(pay(old, 30):find "is older than")
local left = psql "SELECT money FROM account"
print("what is left of 100:       ", left)
assert(left == "70")
