-- SPDX-License-Identifier: MIT
-- The first example of the original guide, as it stands there; only its
-- back-tick strings are rewritten.
-- luacheck: globals TestService
-- luacheck: read globals ExecutionGuard HttpService

local guard = ExecutionGuard.new(true)

function TestService:LoadTestData()
    local success, data = guard:RunOnce("loadTestData", function()
        -- This runs only once, even if called multiple times
        return HttpService:GetAsync("https://api.example.com/data")
    end, {
        timeout = 10,
        cacheResult = true,  -- Cache result for reuse
    })

    if success then
        print("Data loaded:", data)
    else
        warn("Data load failed or already running")
    end
end

-- Subsequent calls return cached result
TestService:LoadTestData()  -- Loads from API
TestService:LoadTestData()  -- Returns cached result ✅
