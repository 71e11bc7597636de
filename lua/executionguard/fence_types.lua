---@meta executionguard.fence

-- SPDX-License-Identifier: MIT
-- The types of fences, for the Lua language server and for people; see
-- types.lua.

-- luacheck: ignore 212 241

if (...) then -- the name of a module: somebody loads this with require
  error("executionguard.fence_types is for the language server; " ..
        "write require \"executionguard.fence\"", 2)
end

--- `require "executionguard.fence"`: checks for what a grant protects outside
--- of its store.
---@class ExecutionGuard.Fence
---
--- `EVAL redisScript 2 guardKey dataKey token command dataKey argument...`
--- does the command if the token holds the key, else says an error that
--- begins with STALE.
---@field redisScript string
local Fence = {}

--- Makes contents those of a file, whole, unless a newer token has written it.
--- The latest one's token stands in `path .. ".token"`.
---@param path string
---@param token integer of a grant
---@param contents string
---@param timeout? number seconds to wait for others that write. Default 30
---@return boolean written
---@return string? reason "lost" (a newer token wrote), "locked" (others write)
---@return string? message of a failure
---@return integer? errno of a failure
function Fence.write(path, token, contents, timeout) end

--- The key of a guard's record on a Redis server.
---@param name string? of the guard
---@param key string
---@return string
function Fence.redisKey(name, key) end

return Fence
