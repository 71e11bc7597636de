-- SPDX-License-Identifier: MIT
-- Executors with a guard, in two processes: over files, and over real servers.
-- Real time, as others are waited for; nothing here has to be quick.

local core = require "executionguard.core"
local executor = require "executionguard.executor"
local ExecutionGuard = require "executionguard"
local job = require "executionguard.job"
local process = require "support.process"
local server = require "support.server"
local task = require "executionguard.task"
local world = require "support.world"

local MOST <const> = 60 -- seconds, on a busy machine

local function files()
  return { url = "file:" .. world.folder(), stop = function() end }
end

for _, way in ipairs {
  { name = "files", start = files, suffix = "" },
  { name = "a Redis server", start = function()
    return server.start "with-redis"
  end, suffix = "?lease=1" },
  { name = "a PostgreSQL server", start = function()
    return server.start "with-postgres"
  end, suffix = "&lease=1" },
} do
  describe("executors in two processes, over " .. way.name, function()
    local store, url, guard, child, pid_file
    local program = os.tmpname()
    local keys = 0

    setup(function()
      store = way.start()
      url = store.url .. way.suffix
    end)

    teardown(function()
      store.stop()
      os.remove(program)
    end)

    before_each(function()
      pid_file = os.tmpname()
      guard = ExecutionGuard.new { store = url, name = "executors" }
      keys = keys + 1
    end)

    after_each(function()
      guard:Close()
      if child then
        child:close()
      end
      child = nil
      os.remove(pid_file)
    end)

    local function key()
      return ("job %d"):format(keys)
    end

    -- Starts a job elsewhere, once; it ends when it is told to.
    local function elsewhere(rules)
      local file = assert(io.open(program, "w"))
      file:write(([[
        local executor = require "executionguard.executor"
        local job = require "executionguard.job"
        local guard = require "executionguard".new {
          store = "%s", name = "executors" }
        local exec = executor.new(job.new("%s", function()
          return io.read "l" == "go on" and { tables = 12 } or nil, "told to"
        end), { guard = guard, %s })
        exec:Start()
        io.read "l" -- its guard stays open until then
      ]]):format(url, key(), rules))
      file:close()
      child = assert(io.popen(("echo $$ >'%s'; exec '%s' '%s'"):format(
        pid_file, process.interpreter(), program), "w"))
      child:setvbuf "no"
    end

    local function comes(what)
      local till = core.clock.steady() + MOST
      while not what() and core.clock.steady() < till do
        core.clock.sleep(0.01)
      end
      assert.is_true(what())
    end

    local function locked()
      return guard:IsLocked(key())
    end

    local ran

    local function here(rules)
      rules.guard, ran = guard, 0
      return executor.new(job.new(key(), function()
        ran = ran + 1
        return "here"
      end), rules)
    end

    local function kind(exec)
      local ok, err = exec:Start()
      return ok or err.kind, err
    end

    it("do not overlap, and the second gets the result of the first",
    function()
      elsewhere "once = true"
      comes(locked)
      local exec = here { once = true }
      assert.equal("AlreadyRunning", kind(exec))
      child:write "go on\n"
      comes(function() return not locked() end)
      local refusal, err = kind(exec)
      assert.equal("Once", refusal)
      assert.equal("job can only start once", tostring(err))
      assert.same({ tables = 12 }, err.result)
      assert.equal(0, ran)
      assert.equal(1, guard:GetRecord(key()).executionCount)
    end)

    it("cool down together, after a failure too", function()
      elsewhere "cooldown = 600"
      comes(locked)
      child:write "fail\n"
      comes(function() return not locked() end)
      assert.equal("Failed", guard:GetStatus(key()))
      local exec = here { cooldown = 600 }
      local refusal, err = kind(exec)
      assert.equal("Cooldown", refusal)
      assert.is_true(err.left > 500 and err.left <= 600)
      assert.matches("^job is still in cooldown, [%d.]+s left$",
                     tostring(err))
      assert.equal(0, ran)
      exec:Reset()
      assert.equal(true, kind(exec))
    end)

    it("a failure elsewhere does not count as the one time", function()
      elsewhere "once = true"
      comes(locked)
      child:write "fail\n"
      comes(function() return not locked() end)
      local exec = here { once = true }
      assert.equal(true, kind(exec))
      assert.equal("here", guard:GetResult(key()))
      assert.equal("Once", kind(exec))
      assert.equal(1, ran)
    end)

    it("one that was killed leaves it to the next", function()
      elsewhere "once = true"
      comes(locked)
      local file = assert(io.open(pid_file))
      assert(os.execute("kill -9 " .. file:read "n"))
      file:close()
      child:close()
      child = nil
      local exec = here { once = true }
      comes(function() -- at a server the lease has to run out
        return kind(exec) ~= "AlreadyRunning"
      end)
      assert.equal(1, ran)
      assert.equal("Completed", guard:GetStatus(key()))
      assert.equal(2, guard:GetRecord(key()).executionCount)
    end)

    it("many, stopped at random moments, leave nothing held", function()
      local n, ended = world.scaled(60), 0
      for i = 1, n do
        local exec = executor.new(job.new(("%s.%d"):format(key(), i % 10),
          function()
            task.wait(math.random() * 0.02)
            return nil, i % 3 == 0 and "bad" or nil
          end), { guard = guard, retry = { attempts = 3, delay = 0.005 } })
        task.delay(math.random() * 0.1, function()
          local ok, err = exec:Start()
          assert(ok or err.kind == "Canceled" or err.kind == "Failed" or
                 err.kind == "AlreadyRunning", err and err.kind)
          ended = ended + 1
        end)
        task.delay(math.random() * 0.15, exec.Stop, exec, i % 2 == 0)
      end
      task.run()
      assert.equal(n, ended)
      for name in pairs(guard:GetAllRecords()) do
        assert.is_false(guard:IsLocked(name), name)
      end
    end)
  end)
end

