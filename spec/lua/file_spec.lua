-- SPDX-License-Identifier: MIT
-- The file store between real processes: who waits for another process's key
-- blocks a thread, or yields a coroutine, to executionguard.task or to a loop
-- of others.  By the machine's clock: processes have no other.  The spans are
-- short and the bounds are generous; what must happen before the other process
-- lets go has happened when it is told to (:go()).

local ExecutionGuard = require "executionguard"
local loops = require "support.loops"
local shell = require "support.shell"
local task = require "executionguard.task"
local world = require "support.world"

local steady = world.core.clock.steady
local LUA <const> = os.getenv "LUA" or "lua5.4"
local SPAN <const> = 0.1
local BOUND <const> = 30 -- of every wait here

local folder, guard

-- What another process does with a guard on the same folder; it says what it
-- has to say on its standard output, which is a pipe to here.
local PROGRAM <const> = [[
local ExecutionGuard = require "executionguard"
local task = require "executionguard.task"
local guard = ExecutionGuard.new { store = "file:%s" }
local function say(...) io.write(...) io.write "\n" io.flush() end
local function told() -- its Lua file is removed
  while io.open(arg[0]) do task.wait(0.005) end
end
%s
guard:Close()
]]

local function process(body)
  local path = folder .. ".lua"
  local file = assert(io.open(path, "w"))
  file:write(PROGRAM:format(folder, body))
  file:close()
  local pipe = assert(io.popen(("echo $$; exec %s %s"):format(LUA, path)))
  local other = { pid = assert(pipe:read "n"), pipe = pipe }
  assert.equal("", pipe:read "l")
  assert.equal("ready", pipe:read "l")
  function other.go() os.remove(path) end
  return other
end

-- Has the key until it is told to let go, or that long.
local function locks(seconds)
  return process(([[
assert(guard:AcquireLock "k")
say "ready"
%s
guard:ReleaseLock "k"
say "released"]]):format(seconds and ("task.wait(%s)"):format(seconds) or
                         ("told() task.wait(%s)"):format(SPAN)))
end

local function runs()
  return process(([[
guard:RunOnce("k", function()
  say "ready"
  told()
  task.wait(%s)
  return { 42 }
end)]]):format(SPAN))
end

local function ends(other, ...)
  for _, line in ipairs { ... } do
    assert.equal(line, other.pipe:read "l")
  end
  return other.pipe:close()
end

local function flock_is_free()
  return (os.execute(("flock -n '%s/locks/k.lock' true"):format(folder)))
end

local function set_up()
  folder = world.folder()
  guard = ExecutionGuard.new { store = "file:" .. folder }
end

describe("a key of another process", function()
  before_each(set_up)

  after_each(function()
    guard:Close()
    os.remove(folder .. ".lua")
  end)

  it("is locked, and then had by a thread that waits", function()
    local other = locks()
    assert.same({ false, "locked" }, { guard:AcquireLock("k", 0) })
    other.go()
    assert.is_true(guard:AcquireLock("k", BOUND))
    assert.is_true(ends(other, "released"))
    assert.is_false(flock_is_free() or false)
    assert.is_true(guard:ReleaseLock "k")
    assert.is_true(flock_is_free())
  end)

  it("is given up at the end of a wait", function()
    local other = locks(60)
    local start = steady()
    assert.same({ false, "locked" }, { guard:AcquireLock("k", SPAN) })
    local took = steady() - start
    assert.is_true(took >= SPAN and took < BOUND)
    os.execute("kill " .. other.pid)
    ends(other)
  end)

  it("is given up by the signal that was chosen for that", function()
    local SIGUSR2 <const>, USUAL <const> = 12, 39
    local function is_caught()
      local mask = shell.read("/proc/self/status"):match "SigCgt:%s*(%x+)"
      return tonumber(mask, 16) >> (SIGUSR2 - 1) & 1 == 1
    end
    ExecutionGuard.configure { waitSignal = SIGUSR2 }
    local other = locks(60)
    local start = steady()
    assert.same({ false, "locked" }, { guard:AcquireLock("k", SPAN) })
    local took = steady() - start
    assert.is_true(took >= SPAN and took < BOUND)
    assert.is_true(is_caught())
    ExecutionGuard.configure { waitSignal = USUAL }
    assert.same({ false, "locked" }, { guard:AcquireLock("k", SPAN) })
    os.execute("kill " .. other.pid)
    ends(other)
  end)

  it("is had when its holder is killed", function()
    local other = locks(60)
    task.delay(SPAN, function() os.execute("kill -9 " .. other.pid) end)
    local got
    task.spawn(function() got = guard:AcquireLock("k", BOUND) end)
    task.run()
    ends(other)
    assert.is_true(got)
  end)

  it("is waited for by tasks, in order, while others go on", function()
    local order, ticks, open = {}, 0, 3
    local other = locks()
    for i = 1, 3 do
      task.spawn(function()
        assert.is_true(guard:AcquireLock("k", BOUND))
        order[#order + 1] = i
        task.wait(0.01)
        guard:ReleaseLock "k"
        open = open - 1
      end)
    end
    task.spawn(function()
      while open > 0 do
        ticks = ticks + 1
        if ticks == 3 then other.go() end
        task.wait(0.005)
      end
    end)
    task.run()
    ends(other, "released")
    assert.same({ 1, 2, 3 }, order)
    assert.is_true(ticks >= 3)
  end)

  it("a task that is cancelled takes nothing, whenever that is", function()
    for i = 0, 9 do
      local other = locks(0.02)
      local waiter = task.spawn(function()
        guard:AcquireLock("k", BOUND)
        guard:ReleaseLock "k"
      end)
      task.delay(0.016 + i / 1000, task.cancel, waiter)
      task.run()
      ends(other, "released")
      assert.is_false(guard:IsLocked "k")
      assert.is_true(flock_is_free())
    end
  end)

  it("two guards of this process wait in one line", function()
    local order = {}
    local second = ExecutionGuard.new { store = "file:" .. folder }
    local other = locks()
    for i, mine in ipairs { guard, second, guard, second } do
      task.spawn(function()
        assert.is_true(mine:AcquireLock("k", BOUND))
        order[#order + 1] = i
        mine:ReleaseLock "k"
      end)
    end
    other.go()
    task.run()
    second:Close()
    ends(other, "released")
    assert.same({ 1, 2, 3, 4 }, order)
  end)

  it("runs once: others join it, or are told", function()
    local other = runs()
    assert.same({ false, nil, "running", n = 3 },
                table.pack(guard:RunOnce("k", error)))
    local joined
    task.spawn(function()
      joined = table.pack(guard:RunOnce("k", error, { join = BOUND }))
    end)
    other.go()
    task.run()
    assert.same({ true, { 42 }, "cached", n = 3 }, joined)
    ends(other)
  end)

  it("a run that is killed is told to who joined it", function()
    local other = runs(60)
    task.delay(SPAN, function() os.execute("kill -9 " .. other.pid) end)
    local joined
    task.spawn(function()
      joined = table.pack(guard:RunOnce("k", function() return "again" end,
                                        { join = BOUND }))
    end)
    task.run()
    ends(other)
    assert.same({ true, "again", n = 2 }, joined)
  end)

  it("blocks after a crash, where that was asked for", function()
    local other = process [[
guard:RunOnce("k", function()
  say "ready"
  task.wait(60)
end, { afterCrash = "block" })]]
    os.execute("kill -9 " .. other.pid)
    ends(other)
    local careful = { afterCrash = "block" }
    assert.equal("Failed", guard:GetStatus "k")
    assert.equal("owner died", guard:GetRecord "k".error)
    assert.same({ false, nil, "crashed", n = 3 },
                table.pack(guard:RunOnce("k", error, careful)))
    guard:Reset "k"
    assert.is_true((guard:RunOnce("k", function() end, careful)))
  end)
end)

for _, name in ipairs(loops.names) do
  describe("a key of another process, with " .. name, function()
    local library = loops.library(name)
    if not library then
      pending("left out: " .. name .. " is not installed")
      return
    end

    local kind, ticks, ticking, other

    before_each(function()
      set_up()
      kind = loops.kinds[name](library)
      ExecutionGuard.configure { loop = kind.loop }
      ticks, ticking = 0, true
      kind.every(0.005, function()
        ticks = ticks + 1
        if ticks == 3 then other.go() end
        return ticking
      end)
    end)

    after_each(function()
      ExecutionGuard.configure { loop = false }
      guard:Close()
      os.remove(folder .. ".lua")
    end)

    local function run(fn)
      kind.start(function()
        fn()
        ticking = false
      end)
      kind.run()
      assert.is_false(ticking)
    end

    it("is had by a coroutine that waits", function()
      local got
      other = locks()
      run(function() got = guard:AcquireLock("k", BOUND) end)
      ends(other, "released")
      assert.is_true(got)
      assert.is_true(ticks >= 3)
    end)

    it("is given up at the end of a wait", function()
      local got, why
      other = locks(60)
      run(function() got, why = guard:AcquireLock("k", SPAN) end)
      os.execute("kill " .. other.pid)
      ends(other)
      assert.is_false(got)
      assert.equal("locked", why)
      assert.is_true(ticks >= 3)
    end)

    it("is joined", function()
      local joined
      other = runs()
      run(function()
        joined = table.pack(guard:RunOnce("k", error, { join = BOUND }))
      end)
      ends(other)
      assert.same({ true, { 42 }, "cached", n = 3 }, joined)
      assert.is_true(ticks >= 3)
    end)
  end)
end
