-- SPDX-License-Identifier: MIT
-- executionguard.fence: checks for what a grant protects outside of its store.
-- A holder that was stopped for longer than its lease does not know that
-- somebody else has been granted the key; whoever is written to refuses it by
-- its token.
--
--   local fence = require "executionguard.fence"
--   guard:RunOnce("report", function()
--     local token = guard:Token "report"
--     ...
--     assert(fence.write("report.txt", token, text))
--   end)
--
-- The other checks are run by a database or a server: fence.redisScript, and
-- eg_check_token in SQL.  What the functions take and return is in
-- executionguard/types.lua.

local describe = require "executionguard.describe"
local native = require "executionguard.core".fence

local fence = {
  -- EVAL script 2 guardKey dataKey token command dataKey argument...
  redisScript = native.redisScript,
}

local MAX_TOKEN <const> = 1 << 53

-- Blames who called the method; level: how far that is from here (3).
local function refuse(method, level, text, ...)
  error(("fence.%s: %s"):format(method, text:format(...)), level)
end

local function check_text(method, name, value)
  if type(value) ~= "string" then
    refuse(method, 4, "%s must be a string, not %s", name, describe(value))
  end
end

function fence.write(path, token, contents, timeout)
  check_text("write", "path", path)
  if path:find("\0", 1, true) then
    refuse("write", 3, "a path has no zero byte, and %q has", path)
  end
  if math.type(token) ~= "integer" or token < 1 or token >= MAX_TOKEN then
    refuse("write", 3,
      "token must be that of a grant (guard:Token(key)), not %s",
      describe(token))
  end
  check_text("write", "contents", contents)
  timeout = timeout == nil and 30 or timeout
  if type(timeout) ~= "number" or timeout ~= timeout or timeout < 0 then
    refuse("write", 3, "timeout must be seconds, 0 or more, not %s",
      describe(timeout))
  end
  return native.write(path, token, contents, timeout)
end

function fence.redisKey(name, key)
  if name ~= nil then
    check_text("redisKey", "name", name)
  end
  check_text("redisKey", "key", key)
  return native.redisKey(name, key) or
    refuse("redisKey", 3, "that is no name and key of a guard")
end

return fence
