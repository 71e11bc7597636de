-- SPDX-License-Identifier: MIT
-- How grants on a server end: with their process, however that ends, or with
-- their leases; and what becomes of an outcome that cannot be stored.  By real
-- time, but with leases so long that nothing ends by them.

local servers = require "support.server"
local world = require "support.world"

local ExecutionGuard = world.EG

-- Programs that hold the key when they end, and how they do.
local ENDS = {
  { "runs to its end", "" },
  { "raises an error", "error 'no'" },
  { "exits", "os.exit(0)" },
  { "exits and closes its state", "os.exit(0, true)" },
  { "exits in a guarded function",
    "guard:RunOnce('other', function() os.exit(0) end)" },
  { "forgets its guard", "guard = nil; collectgarbage()" },
}

local kind = ...

describe("the end of a process on " .. kind, function()
  local server, guard, count

  setup(function()
    server = servers.start("with-" .. kind)
  end)
  teardown(function() server.stop() end)
  before_each(function()
    count = (count or 0) + 1
    guard = ExecutionGuard.new { store = server.with "lease=100&timeout=60",
      name = "ends " .. count }
  end)
  after_each(function() guard:Close() end)

  -- A program that takes the key, then does that; it says its number first.
  local function start(text, first, lease)
    local program = ([[
      local ExecutionGuard = require "executionguard"
      %s
      guard = ExecutionGuard.new {
        store = os.getenv "URL", name = os.getenv "NAME" }
      assert(guard:AcquireLock("k", 0))
      print(io.open "/proc/self/stat":read "n")
      io.stdout:flush()
      %s]]):format(first or "", text)
    return assert(io.popen(
      ("URL='%s' NAME='ends %d' exec lua5.4 -e \"%s\" 2>/dev/null"):format(
        server.with("timeout=60&lease=" .. (lease or 100)), count,
        program:gsub('"', '\\"'))))
  end

  for _, how in ipairs(ENDS) do
    it("gives back what it holds when it " .. how[1], function()
      local child = start(how[2])
      child:read "a"
      child:close()
      assert.is_true(guard:AcquireLock("k", 0))
      assert.is_nil(guard:GetRecord "k")
      if how[1]:find "guarded" then
        assert.equal("owner died", guard:GetRecord("other").error)
      end
    end)
  end

  -- Ends a program by a signal while it is at that; how it ended.
  local function signal(number, text, first)
    local child = start(text, first)
    local pid = child:read "n"
    assert.is_false((guard:AcquireLock("k", 0)))
    os.execute(("kill -%s %d"):format(number, pid))
    child:read "a"
    return select(3, child:close())
  end

  for what, text in pairs {
    ["is busy"] = "while true do end",
    sleeps = "os.execute 'exec sleep 0.01' while true do end",
    ["waits for a lock"] = "guard:AcquireLock('not its own', 100)",
    ["is in a guarded function"] =
      "guard:RunOnce('other', function() while true do end end)",
  } do
    it("by SIGTERM gives back what it holds, when it " .. what, function()
      assert.is_true(guard:AcquireLock("not its own", 0))
      assert.equal(15, signal("TERM", text))
      assert.is_true(guard:AcquireLock("k", 0))
    end)
  end

  it("by SIGTERM wakes who waits for it", function()
    local child = start "while true do end"
    local pid = child:read "n"
    os.execute(("(sleep 0.3; kill -TERM %d) &"):format(pid))
    assert.is_true(guard:AcquireLock("k", 60))
    child:close()
  end)

  it("leaves SIGTERM alone where it is told to", function()
    assert.equal(15, signal("TERM", "while true do end",
      "ExecutionGuard.configure { terminate = false }"))
    assert.is_false((guard:AcquireLock("k", 0)))
    assert.has_error(function()
      ExecutionGuard.configure { terminate = 1 }
    end)
  end)

  it("by SIGKILL leaves it to the lease", function()
    assert.equal(9, signal("KILL", "while true do end"))
    assert.is_false((guard:AcquireLock("k", 0)))
    count = count .. 0 -- other keys
    local child = start("while true do end", "", kind == "etcd" and 2 or 0.5)
    os.execute("kill -9 " .. child:read "n")
    child:close()
    local other <close> = ExecutionGuard.new { store = server.url,
      name = "ends " .. count }
    assert.is_true(other:AcquireLock("k", 60))
  end)
end)

describe("an outcome that cannot be stored on " .. kind, function()
  local server, guard, other

  setup(function() server = servers.start("with-" .. kind) end)
  teardown(function() server.stop() end)
  before_each(function()
    guard = ExecutionGuard.new { store = server.with "lease=30&timeout=0.3",
      name = "left" }
    other = ExecutionGuard.new { store = server.with "lease=30&timeout=60",
      name = "left" }
  end)
  after_each(function()
    guard:Close()
    other:Close()
  end)

  -- Runs fn while the server is there, and ends it while it is away.
  local function run_away(key, fn, then_)
    local results
    local co = coroutine.wrap(function()
      return guard:RunOnce(key, function()
        coroutine.yield()
        return fn()
      end)
    end)
    co()
    server.away(function()
      results = table.pack(co())
      if then_ then
        then_()
      end
    end)
    return table.unpack(results, 1, results.n)
  end

  it("is stored when the server is there again", function()
    assert.same({ false, { 3 }, "uncommitted" },
      { run_away("a", function() return { 3 } end) })
    local ok, result, reason = other:RunOnce("a", error, { join = 60 })
    assert.same({ true, { 3 }, "cached" }, { ok, result, reason })
    assert.equal(1, other:GetRecord("a").executionCount)
    assert.is_false(other:IsLocked "a")
  end)

  it("is stored as the failure that it was", function()
    local ok, why, reason = run_away("f", function() error("no", 0) end)
    assert.same({ false, "no", "uncommitted" }, { ok, why, reason })
    assert.is_true(other:AcquireLock("f", 60))
    assert.equal("Failed", other:GetStatus "f")
    assert.matches("^no", other:GetRecord("f").error)
  end)

  it("is stored by the end of its guard at the latest", function()
    run_away("c", function() return 4 end)
    guard:Close()
    assert.equal(4, other:GetResult "c")
  end)

  it("is refused when somebody has reset the key meanwhile", function()
    run_away("r", function() return 5 end)
    other:Reset "r"
    assert.is_true(other:AcquireLock("r", 60))
    assert.is_nil((other:GetResult "r"))
  end)
end)
