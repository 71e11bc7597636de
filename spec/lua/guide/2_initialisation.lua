-- SPDX-License-Identifier: MIT
-- The second example of the original guide, as it stands there; only its
-- back-tick strings are rewritten.
-- luacheck: globals TestService
-- luacheck: read globals guard

function TestService:Init()
    local success = guard:RunOnce("init", function()
        -- Run initialization logic
        self:SetupTestEnvironment()
        self:LoadConfigurations()
        return true
    end, {
        allowRerun = false,  -- Prevent re-initialization
    })

    if not success then
        warn("TestService already initialized!")
    end
end
