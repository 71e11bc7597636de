-- SPDX-License-Identifier: MIT
-- The third example of the original guide, as it stands there; only its
-- back-tick strings are rewritten.
-- luacheck: globals TestService
-- luacheck: read globals guard

function TestService:RunTest(testName)
    -- Try to acquire lock
    if not guard:AcquireLock(testName, 30) then
        warn("Test '" .. testName .. "' is already running!")
        return false
    end

    -- Run test (protected by lock)
    local success = pcall(function()
        -- ... test logic ...
    end)

    -- Always release lock
    guard:ReleaseLock(testName)

    return success
end
