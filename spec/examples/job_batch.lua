-- SPDX-License-Identifier: MIT
-- A batch: parameters, progress, a way out between two items; and the same on
-- another thread.

local job = require "executionguard.job"

local seen = {}
local function process_item(item)
  seen[#seen + 1] = item
  return true
end

local batch = job.new("batch", function(ctx)
  local items = ctx:GetParams()
  local total = #items

  for i, item in ipairs(items) do
    if ctx:Context():Done() then
      return nil, ctx:Context():Err()
    end

    local ok, err = process_item(item)
    if not ok then
      return nil, err
    end

    ctx:SetProgress(i / total)
  end
end)

batch:Run(nil, { "a", "b", "c" })
batch:Wait()
print(batch:State(), batch:Progress(), table.concat(seen))
assert(batch:Progress() == 1 and table.concat(seen) == "abc")

-- On an OS thread beside this one: what crosses is data.
local sum = job.new("sum", job.worker(function(ctx)
  local total = 0
  for i = 1, ctx:GetParams() do
    total = total + i
  end
  return total
end))
sum:Run(nil, 1000000)
sum:Wait()
print(sum:Result())
assert(sum:Result() == 500000500000)
