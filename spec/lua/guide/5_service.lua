-- SPDX-License-Identifier: MIT
-- The fifth example of the original guide, as it stands there; only its
-- back-tick strings are rewritten.
-- Luau's loop over a plain table has become one over ipairs(...).
-- luacheck: read globals script task

-- filepath: TestService.luau

local ExecutionGuard = require(script.Parent.Parent.Utils.ExecutionGuard)

local TestService = {}
local guard = ExecutionGuard.new(true)  -- Debug mode

function TestService:Init()
    guard:RunOnce("init", function()
        print("[TestService] Initializing...")
        self:LoadTestSuite()
    end)
end

function TestService:RunAllTests()
    local testNames = {"Test1", "Test2", "Test3"}

    for _, testName in ipairs(testNames) do
        guard:RunOnce(testName, function()
            print("Running " .. testName .. "...")

            -- Simulate test
            task.wait(1)

            return {success = true, duration = 1.0}
        end, {
            timeout = 5,
            cacheResult = true,
            onTimeout = function()
                warn(testName .. " timed out!")
            end
        })
    end
end

function TestService:GetTestResults()
    local results = {}
    local records = guard:GetAllRecords()

    for key, record in records do
        results[key] = {
            status = record.status,
            result = record.result,
            executionCount = record.executionCount,
        }
    end

    return results
end

function TestService:PrintAnalytics()
    ExecutionGuard.printSummary(guard)
end

return TestService
