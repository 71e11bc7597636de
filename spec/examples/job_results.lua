-- SPDX-License-Identifier: MIT
-- Labels and results.

local job = require "executionguard.job"

local function fetch_data()
  return { users = 3 }
end

local j = job.new("fetch-data",
  function(ctx)
    local data, err = fetch_data()
    if err then
      return nil, err
    end
    ctx:SetResult(data)
  end,
  job.WithLabel("env", "production"),
  job.WithLabel("service", "api"))

j:Run()
j:Wait()

-- Retrieve result and labels
local result = j:Result()
local labels = j:Labels()
print(result.users, labels.env, labels.service)
assert(result.users == 3)
assert(labels.env == "production" and labels.service == "api")
