-- SPDX-License-Identifier: MIT
-- The five examples of the original's guide, run as they stand there (guide/),
-- with executionguard.compat and nothing else of Luau.

local ExecutionGuard = require "executionguard"
local testing = require "executionguard.testing"

local FOLDER = debug.getinfo(1, "S").source:match "^@(.*)guide_spec%.lua$"
local MODULE <const> = "executionguard.compat"

describe("the guide's example", function()
  local real_print, real_warn, real_task = print, warn, rawget(_G, "task")
  local clock, guard, printed, warned

  before_each(function()
    clock = testing.clock()
    guard = ExecutionGuard.new()
    printed, warned = {}, {}
    rawset(_G, "print", function(...)
      local words = table.pack(...)
      for i = 1, words.n do
        words[i] = tostring(words[i])
      end
      local line = table.concat(words, "\t")
      if not line:find("[ExecutionGuard]", 1, true) then -- debug mode's
        printed[#printed + 1] = line
      end
    end)
    rawset(_G, "warn", function(...)
      if ... ~= "@on" then
        warned[#warned + 1] = table.concat { ... }
      end
    end)
    rawset(_G, "task", nil)
    package.loaded[MODULE] = nil
    require(MODULE)
  end)

  after_each(function()
    rawset(_G, "print", real_print)
    rawset(_G, "warn", real_warn)
    rawset(_G, "task", real_task)
    package.loaded[MODULE] = nil
    guard:Close()
    clock:restore()
  end)

  -- Runs an example.  What Roblox would have given it stands in `world`; it
  -- must not set a global.
  local function run(name, world)
    setmetatable(world, {
      __index = _G,
      __newindex = function(_, key) error("sets the global " .. key) end,
    })
    local chunk = assert(loadfile(FOLDER .. "guide/" .. name .. ".lua", "t",
                                  world))
    return chunk()
  end

  it("1 loads data once", function()
    local asked = {}
    local service = {}
    run("1_data_loading", {
      ExecutionGuard = ExecutionGuard,
      TestService = service,
      HttpService = { GetAsync = function(_, url)
        asked[#asked + 1] = url
        return "the data"
      end },
    })
    assert.same({ "https://api.example.com/data" }, asked)
    local line = "Data loaded:\tthe data"
    assert.same({ line, line }, printed)
    service:LoadTestData()
    assert.equal(1, #asked)
    assert.same({}, warned)
  end)

  it("1 says so when it cannot be loaded, and tries again", function()
    local service, calls = {}, 0
    run("1_data_loading", {
      ExecutionGuard = ExecutionGuard,
      TestService = service,
      HttpService = { GetAsync = function()
        calls = calls + 1
        return calls > 1 and "the data" or error "HTTP 503"
      end },
    })
    assert.same({ "Data load failed or already running" }, warned)
    assert.same({ "Data loaded:\tthe data" }, printed)
  end)

  it("2 initialises once", function()
    local done = {}
    local service = {
      SetupTestEnvironment = function() done[#done + 1] = "environment" end,
      LoadConfigurations = function() done[#done + 1] = "configurations" end,
    }
    run("2_initialisation", { TestService = service, guard = guard })
    service:Init()
    service:Init()
    assert.same({ "environment", "configurations" }, done)
    -- the second time has the kept result, as in the original
    assert.same({}, warned)
    local _, _, reason = guard:RunOnce("init", error)
    assert.equal("cached", reason)
  end)

  it("2 warns of an initialisation that is under way", function()
    local service, depth = {}, 0
    service.LoadConfigurations = function() end
    service.SetupTestEnvironment = function(self)
      depth = depth + 1
      self:Init()
    end
    run("2_initialisation", { TestService = service, guard = guard })
    service:Init()
    assert.equal(1, depth)
    assert.same({ "TestService already initialized!" }, warned)
  end)

  it("3 takes the lock and gives it back", function()
    local service = {}
    run("3_locks", { TestService = service, guard = guard })
    assert.is_true(service:RunTest "Test1")
    assert.is_false(guard:IsLocked "Test1")
    assert.is_true(service:RunTest "Test1")
    assert.same({}, warned)
  end)

  it("3 refuses a test that is already running", function()
    local service = {}
    run("3_locks", { TestService = service, guard = guard })
    local lock <close> = guard:Lock "Test1"
    assert.is_false(service:RunTest "Test1")
    assert.same({ "Test 'Test1' is already running!" }, warned)
    assert.is_true(lock:Held())
    assert.is_true(service:RunTest "Test2")
  end)

  it("4 tells every status", function()
    local service = {}
    run("4_status", { TestService = service, guard = guard })
    service:GetTestStatus "test"
    assert.same({}, printed)
    guard:RunOnce("test", function()
      service:GetTestStatus "test"
      clock:advance(2)
    end, { timeout = 1 })
    service:GetTestStatus "test"
    guard:RunOnce("test", function() return "all green" end)
    service:GetTestStatus "test"
    assert.same({ "Test is currently running...",
                  "Test completed with result:\tall green" }, printed)
    assert.equal("Test timed out!", warned[#warned])
  end)

  describe("5", function()
    local service, loads

    local function run_service(task)
      loads = 0
      service = run("5_service", {
        -- what `require` is asked for in the end
        script = { Parent = { Parent = { Utils = {
          ExecutionGuard = "executionguard",
        } } } },
        task = task,
      })
      service.LoadTestSuite = function() loads = loads + 1 end
    end

    it("initialises once", function()
      run_service()
      service:Init()
      service:Init()
      assert.equal(1, loads)
      assert.same({ "[TestService] Initializing..." }, printed)
      assert.equal("Completed", service:GetTestResults().init.status)
    end)

    it("runs all tests once, a second each", function()
      run_service()
      local start = clock:steady()
      service:RunAllTests()
      service:RunAllTests()
      assert.equal(3, clock:steady() - start)
      assert.same({ "Running Test1...", "Running Test2...",
                    "Running Test3..." }, printed)
      local result = { status = "Completed", executionCount = 1,
                       result = { success = true, duration = 1.0 } }
      assert.same({ Test1 = result, Test2 = result, Test3 = result },
                  service:GetTestResults())
    end)

    it("warns of tests that time out, and runs them again", function()
      run_service { wait = function() clock:advance(5) end }
      service:RunAllTests()
      assert.same({ "Test1 timed out!", "Test2 timed out!",
                    "Test3 timed out!" }, warned)
      service:RunAllTests()
      assert.same({ status = "TimedOut", executionCount = 2 },
                  service:GetTestResults().Test2)
    end)

    it("prints its analytics", function()
      run_service()
      service:Init()
      service:RunAllTests()
      printed = {}
      service:PrintAnalytics()
      local text = table.concat(printed, "\n")
      assert.matches("EXECUTION GUARD SUMMARY", text)
      assert.matches("Total Records +4 ", text)
      assert.matches("Completed +4 ", text)
    end)
  end)
end)
