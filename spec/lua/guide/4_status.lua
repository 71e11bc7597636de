-- SPDX-License-Identifier: MIT
-- The fourth example of the original guide, as it stands there; only its
-- back-tick strings are rewritten.
-- luacheck: globals TestService
-- luacheck: read globals guard

function TestService:GetTestStatus(testName)
    local status = guard:GetStatus(testName)
    -- Returns: "Idle" | "Running" | "Completed" | "TimedOut" | "Failed"

    if status == "Running" then
        print("Test is currently running...")
    elseif status == "Completed" then
        local result = guard:GetResult(testName)
        print("Test completed with result:", result)
    elseif status == "TimedOut" then
        warn("Test timed out!")
    end
end
