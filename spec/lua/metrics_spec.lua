-- SPDX-License-Identifier: MIT
-- ExecutionGuard.metrics and guard:Metrics: the records in numbers.

local ExecutionGuard = require "executionguard"
local world = require "support.world"

describe("metrics", function()
  local guard

  before_each(function()
    world.start(true)
    guard = ExecutionGuard.new { name = world.name() }
  end)

  after_each(function()
    guard:Close()
    world.stop()
  end)

  local function run(key, seconds, wrong)
    guard:RunOnce(key, function()
      world.advance(seconds)
      if wrong then error(wrong, 0) end
    end, { allowRerun = true })
  end

  -- The samples of a text: sample(name, labels...) -> number or nil.
  local function samples(text)
    local values = {}
    for line in text:gmatch "[^\n]+" do
      local what, value = line:match "^([^#].*) (%S+)$"
      if what then
        assert.is_nil(values[what], what)
        values[what] = assert(tonumber(value), line)
      end
    end
    return values
  end

  local function of(values, name, key)
    for what, value in pairs(values) do
      if what:match "^[%w_]+" == "executionguard_" .. name and
         (not key or what:find('key="' .. key .. '"', 1, true)) then
        return value
      end
    end
  end

  it("count what ran, in all and by key", function()
    run("a", 1)
    run("a", 2, "boom")
    run("b", 3)
    local text = guard:Metrics()
    local values = samples(text)
    assert.equal(3, of(values, "executions_total"))
    assert.equal(2, of(values, "key_executions_total", "a"))
    assert.equal(1, of(values, "key_failed_total", "a"))
    assert.equal(6, of(values, "run_seconds_sum"))
    assert.equal(3, of(values, "key_run_seconds_sum", "b"))
    assert.matches("\n# EOF\n$", text)
  end)

  it("name the keys that were asked for most often", function()
    for i = 1, 4 do
      for _ = 1, i do run("k" .. i, 0) end
    end
    local values = samples(guard:Metrics { top = 1 })
    assert.equal(4, of(values, "key_executions_total", "k4"))
    assert.equal(6, of(values, "key_executions_total", "other"))
    assert.is_nil(of(values, "key_executions_total", "k3"))
    assert.is_nil(guard:Metrics { top = 0 }:find "key_")
  end)

  it("are of all guards, and of the process", function()
    local other <close> = ExecutionGuard.new()
    run("a", 0)
    other:RunOnce("mine", function() end)
    local values = samples(ExecutionGuard.metrics())
    assert.equal(1, of(values, "key_executions_total", "a"))
    assert.equal(1, of(values, "key_executions_total", "mine"))
    assert.equal(ExecutionGuard.getGlobalStats().totalExecutions,
      of(values, "process_executions_total"))
    assert.is_nil(of(samples(guard:Metrics()), "process_executions_total"))
  end)

  it("are OpenMetrics 1.0 to the letter where that is asked for", function()
    run("a", 0)
    assert.is_truthy(guard:Metrics():find(
      "# TYPE executionguard_executions_total counter\n", 1, true))
    local strict = guard:Metrics { openmetrics = true }
    assert.is_truthy(strict:find(
      "# TYPE executionguard_executions counter\n", 1, true))
    assert.equal(1, of(samples(strict), "executions_total"))
  end)

  it("refuse what they do not know", function()
    for wrong, message in pairs {
      [{ top = -1 }] = "Metrics: option 'top' must be an integer from 0 to " ..
        "4294967295, not the number %-1",
      [{ top = 1.5 }] = "Metrics: option 'top' must be an integer from 0",
      [{ top = 1 << 32 }] = "0 to 4294967295, not the number 4294967296",
      [{ openmetrics = 1 }] = "Metrics: option 'openmetrics' must be a bool",
      [{ tops = 1 }] = "Metrics: unknown option the string 'tops'",
      [7] = "Metrics: options must be a table, not the number 7",
    } do
      assert.error_matches(function() guard:Metrics(wrong) end, message)
    end
    guard:Close()
    assert.error_matches(function() guard:Metrics() end, "closed")
  end)
end)
