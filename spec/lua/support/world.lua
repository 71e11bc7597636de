-- SPDX-License-Identifier: MIT
-- What the specs share: guards of both ways of doing a step, the clock that
-- is moved by hand, differences of the counters.

local core = require "executionguard.core"
local ExecutionGuard = require "executionguard"

local world = {
  core = core,
  EG = ExecutionGuard,
  epoch = 1767225600, -- where the test clock starts
  us = 1e-6,          -- the smallest step of the clock
}

-- The memory store does a step under its own lock; told apply=no it is
-- driven by the loop of load and swap, as the stores of other processes are.
world.ways = {
  { name = "in one step" },
  { name = "by load and swap", store = "memory:?apply=no" },
  { name = "in files", store = "file:", files = true },
}

local scale = tonumber(os.getenv "EXECUTIONGUARD_SPEC_SCALE" or "") or 1

--- A loop count, divided by EXECUTIONGUARD_SPEC_SCALE.
function world.scaled(n)
  return math.max(1, math.floor(n / scale))
end

--- What ResetAll is told: others may see what a guard in files shows.
function world.all(way)
  return way.files and { force = true } or nil
end

--- What private guards alone have is told of those: it or describe.
function world.private(way, tell)
  return way.files and function() end or tell
end

-- A folder for the file store, and in it one for each guard without a name:
-- nobody else shall see its keys.
local folders, base = 0, nil

function world.folder()
  if not base then
    base = (os.tmpname())
    os.remove(base)
    base = base .. ".executionguard"
    setmetatable(world, { __gc = function()
      os.execute("rm -rf '" .. base .. "'")
    end })
  end
  folders = folders + 1
  return ("%s/%d"):format(base, folders)
end

--- A new guard that works the given way.
function world.new(way, options)
  local all = { store = way and way.store }
  if way and way.files then
    local named = options and options.name
    world.together = world.together or world.folder()
    all.store = "file:" .. (named and world.together or world.folder())
  end
  for name, value in pairs(options or {}) do
    all[name] = value
  end
  return ExecutionGuard.new(all)
end

local names = 0

--- A name that no other guard has.
function world.name()
  names = names + 1
  return ("spec %d of %s"):format(names, tostring(world))
end

--- The test clock at its start; auto: waiting moves it.  Functions are left
--- to finish after their deadline, so that specs can be written of that.
function world.start(auto)
  ExecutionGuard.configure { engine = "none" }
  core.clock.reset(auto or false)
  core.clock.use(true)
end

function world.stop()
  core.clock.use(false)
  core.clock.reset(false)
  ExecutionGuard.configure { engine = "signal" }
end

world.advance = core.clock.advance
world.steady = core.clock.steady

--- Calls fn and tells how the counters differ; those that do not are absent.
function world.counted(fn, ...)
  local before = ExecutionGuard.getGlobalStats()
  fn(...)
  local difference = {}
  for name, value in pairs(ExecutionGuard.getGlobalStats()) do
    if value ~= before[name] then
      difference[name] = value - before[name]
    end
  end
  return difference
end

--- The message that fn raises, as a string.
function world.message(fn, ...)
  local ok, message = pcall(fn, ...)
  if ok then
    error("no error was raised", 2)
  end
  return tostring(message)
end

--- Collects until nothing more comes of it.
function world.collect()
  for _ = 1, 4 do
    collectgarbage()
  end
end

--- The names of all globals, to be compared.
function world.globals()
  local all = {}
  for name in pairs(_G) do
    all[#all + 1] = tostring(name)
  end
  table.sort(all)
  return table.concat(all, " ")
end

return world
