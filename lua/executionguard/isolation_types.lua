---@meta executionguard.isolation

-- SPDX-License-Identifier: MIT
-- The types of isolated commands, for the Lua language server and for people;
-- see types.lua.

-- luacheck: ignore 212 241

if (...) then -- the name of a module: somebody loads this with require
  error("executionguard.isolation_types is for the language server; " ..
        "write require \"executionguard.isolation\"", 2)
end

--- Commands that run at most once at a time, of
--- `require "executionguard.isolation"`.
---@class ExecutionGuard.IsolationModule
local IsolationModule = {}

---@class ExecutionGuard.IsolationOptions
--- Where the lock is: in a file, for all processes of this machine, or in the
--- memory of this process. Default "file".
---@field strategy? "file"|"memory"
--- The folder of the lock files; made where it is missing. Default
--- ".executionguard/locks".
---@field lockDir? string
--- Seconds that Lock waits. Default: not at all.
---@field timeout? number
--- In place of both: the URL of a store, or a guard.
---@field store? string|ExecutionGuard

--- An isolation of that command: 1 to 512 bytes, any. Opens nothing yet.
--- Raises for arguments that are wrong.
---@param command string
---@param options? ExecutionGuard.IsolationOptions
---@return ExecutionGuard.Isolation
function IsolationModule.new(command, options) end

---@class ExecutionGuard.Isolation
---@field command string
---@field strategy "file"|"memory"|nil
---@field lockDir string?
---@field timeout number?
---@field store string|ExecutionGuard|nil
local Isolation = {}

---@param strategy "file"|"memory"
---@return ExecutionGuard.Isolation self
function Isolation:WithStrategy(strategy) end

--- From now on Lock waits so long.
---@param seconds number 0 or more; math.huge: for ever
---@return ExecutionGuard.Isolation self
function Isolation:WithTimeout(seconds) end

---@param dir string
---@return ExecutionGuard.Isolation self
function Isolation:WithLockDir(dir) end

--- Takes the lock: at once where no timeout was set, else within that time.
--- Keep the guard, in a `<close>` variable at best: a guard that is collected
--- releases the lock.
---@return ExecutionGuard.IsolationGuard? guard
---@return ExecutionGuard.IsolationError? err
function Isolation:Lock() end

--- Takes the lock within that time; `math.huge`: waits for ever. A command
--- that this very thread holds is a Timeout at once.
---@param seconds number
---@return ExecutionGuard.IsolationGuard? guard
---@return ExecutionGuard.IsolationError? err
function Isolation:LockWithTimeout(seconds) end

--- Has anybody the lock? Makes no folder, and disturbs nobody.
---@return boolean? locked
---@return ExecutionGuard.IsolationError? err
function Isolation:IsLocked() end

--- The path of the lock file; nil where there is none.
---@return string?
function Isolation:LockPath() end

--- Ends every lock of this command that this process has, and clears what a
--- dead holder left. Not what a living process has.
---@return integer? count
---@return ExecutionGuard.IsolationError? err
function Isolation:ReleaseAll() end

--- A lock on a command; also for a `<close>` variable.
---@class ExecutionGuard.IsolationGuard
---@field command string
---@field path string?
---@field token integer for whatever can refuse a smaller one
local IsolationGuard = {}

--- Gives the lock back.
---@return boolean released was it still held?
function IsolationGuard:Release() end

--- Is it still held?
---@return boolean
function IsolationGuard:Held() end

---@alias ExecutionGuard.IsolationKind
---| "AlreadyRunning" somebody has it, and there was no timeout
---| "Timeout" still, after that time
---| "PermissionDenied" EACCES, EPERM, EROFS
---| "LockFileError" a link, a stranger's, open for others, or no file
---| "IoError" all else

--- Why there is no lock; `tostring` makes a sentence of it.
---@class ExecutionGuard.IsolationError
---@field kind ExecutionGuard.IsolationKind
---@field command string
---@field path string?
---@field errno integer?
---@field message string? of the last three kinds
---@field reason string the library's word: "locked", "deadlock", "denied" ...
---@field timeout number? seconds, of a Timeout
---@field lockedAt string? RFC 3339, in UTC
---@field owner ExecutionGuard.Owner?
---@field secondsLeft number? of a cooldown

return IsolationModule
