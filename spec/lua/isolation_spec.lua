-- SPDX-License-Identifier: MIT
-- Isolated commands: what a lock, its errors and its names are like.  Those
-- that wait for a lock in a file do so by the machine's clock, for that is
-- what the kernel waits by: spans are short, bounds generous.

local ExecutionGuard = require "executionguard"
local Isolation = require "executionguard.isolation"
local luv = require "luv"
local task = require "executionguard.task"
local world = require "support.world"

local steady = world.core.clock.steady
local SPAN <const> = 0.05
local BOUND <const> = 30

local RFC3339 <const> = "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$"

local folder -- of the locks of a test; made on need

local function shell(command, ...)
  return (os.execute(command:format(...)))
end

local function output_of(command, ...)
  local pipe = assert(io.popen(command:format(...)))
  local text = pipe:read "a"
  pipe:close()
  return text
end

-- Isolations of both strategies.
local ways = {
  { name = "file", new = function(command, timeout)
    return Isolation.new(command, { lockDir = folder, timeout = timeout })
  end },
  { name = "memory", new = function(command, timeout)
    return Isolation.new(command, { strategy = "memory", timeout = timeout })
  end },
}

for _, way in ipairs(ways) do
  describe("an isolated command in " .. way.name, function()
    local isolation

    before_each(function()
      folder = world.folder()
      isolation = way.new "migrate"
    end)

    after_each(function() isolation:ReleaseAll() end)

    it("is locked until its guard is released", function()
      assert.is_false(isolation:IsLocked())
      local guard, err = isolation:Lock()
      assert.is_nil(err)
      assert.equal("migrate", guard.command)
      assert.equal(isolation:LockPath(), guard.path)
      assert.equal("integer", math.type(guard.token))
      assert.is_true(isolation:IsLocked())
      assert.is_true(guard:Held())
      assert.is_true(guard:Release())
      assert.is_false(guard:Held())
      assert.is_false(guard:Release())
      assert.is_false(isolation:IsLocked())
    end)

    it("has tokens that rise", function()
      local last = 0
      for _ = 1, 5 do
        local guard <close> = assert(isolation:Lock())
        assert.is_true(guard.token > last)
        last = guard.token
      end
    end)

    it("is released by <close>, also when an error is raised", function()
      assert.has_error(function()
        local guard <close> = assert(isolation:Lock())
        assert.is_true(guard:Held())
        error "no"
      end)
      assert.is_false(isolation:IsLocked())
    end)

    it("is released by the collector where nobody did it", function()
      local guard = assert(isolation:Lock())
      assert.is_true(isolation:IsLocked())
      assert.is_true(guard:Held())
      guard = nil -- luacheck: ignore
      world.collect()
      assert.is_false(isolation:IsLocked())
    end)

    it("stays locked when its isolation is collected", function()
      local guard = way.new("other"):Lock()
      world.collect()
      assert.is_true(guard:Held())
      assert.is_true(way.new("other"):IsLocked())
      guard:Release()
    end)

    it("is refused to a second at once, who is told who and when", function()
      local before = os.time()
      local guard <close> = assert(isolation:Lock())
      local none, err = way.new("migrate"):Lock()
      assert.is_nil(none)
      assert.equal("AlreadyRunning", err.kind)
      assert.equal("migrate", err.command)
      assert.equal(isolation:LockPath(), err.path)
      assert.equal("locked", err.reason)
      assert.is_nil(err.errno)
      assert.is_nil(err.timeout)
      assert.matches(RFC3339, err.lockedAt)
      assert.is_true(err.owner.since >= before - 1)
      assert.is_true(err.owner.since <= os.time() + 1)
      assert.is_true(err.owner.here)
      assert.equal(tostring(err.owner.pid),
                   output_of "echo $PPID":match "%d+")
      assert.equal(("Command 'migrate' is already running (locked at: %s)")
        :format(err.lockedAt), tostring(err))
      assert.equal("no: " .. tostring(err), "no: " .. err)
      assert.is_true(guard:Held())
    end)

    it("does not exclude other commands", function()
      local a <close> = assert(way.new("a"):Lock())
      local b <close> = assert(way.new("b"):Lock())
      assert.is_true(a:Held() and b:Held())
    end)

    it("that this thread holds is a Timeout at once", function()
      local guard <close> = assert(isolation:Lock())
      local start = steady()
      for _, seconds in ipairs { 60, math.huge } do
        local none, err = isolation:LockWithTimeout(seconds)
        assert.is_nil(none)
        assert.equal("Timeout", err.kind)
        assert.equal("migrate", err.command)
        assert.equal(seconds, err.timeout)
        assert.equal("deadlock", err.reason)
        assert.equal("Timeout waiting for 'migrate': the caller itself " ..
          "holds it", tostring(err))
      end
      assert.equal("Timeout", select(2, way.new("migrate", 60):Lock()).kind)
      assert.is_true(steady() - start < 50)
      assert.is_true(guard:Held())
    end)

    it("is not waited for where the timeout is 0", function()
      local guard <close> = assert(isolation:Lock())
      local _, err = isolation:LockWithTimeout(0)
      assert.equal("Timeout", err.kind)
      assert.equal("Timeout waiting for 'migrate' after 0s", tostring(err))
      assert.is_true(guard:Held())
    end)

    it("is waited for by a task, while its holder goes on", function()
      local log = {}
      task.spawn(function()
        local guard <close> = assert(isolation:Lock())
        repeat task.wait(SPAN / 10) until log[1]
        log[#log + 1] = guard:Held() and "first"
      end)
      task.spawn(function()
        local guard <close> = assert(isolation:LockWithTimeout(BOUND))
        log[#log + 1] = guard:Held() and "second"
      end)
      task.spawn(function()
        local _, err = isolation:LockWithTimeout(SPAN / 5)
        log[#log + 1] = tostring(err)
      end)
      task.run()
      assert.same({ "Timeout waiting for 'migrate' after 0.01s", "first",
                    "second" }, log)
    end)

    it("waits in Lock where a timeout was set", function()
      task.spawn(function()
        local guard <close> = assert(isolation:Lock())
        task.wait(SPAN)
        assert.is_true(guard:Held())
      end)
      local guard <close> = assert(way.new("migrate"):WithTimeout(BOUND)
        :Lock())
      assert.is_true(guard:Held())
    end)

    it("is had whenever it is free by who turns the tasks himself", function()
      -- the ring may come at any point of his turn, none may be missed
      local start = steady()
      for _ = 1, world.scaled(60) do
        task.spawn(function()
          local guard <close> = assert(isolation:Lock())
          task.wait(0.001)
          assert.is_true(guard:Held())
        end)
        local guard <close> = assert(isolation:LockWithTimeout(BOUND))
        assert.is_true(guard:Held())
      end
      assert.is_true(steady() - start < BOUND)
    end)

    it("is let go by ReleaseAll, whichever object has it", function()
      assert.equal(0, isolation:ReleaseAll())
      local guard = assert(isolation:Lock())
      local other = way.new("other"):Lock()
      assert.equal(1, way.new("migrate"):ReleaseAll())
      assert.is_false(guard:Held())
      assert.is_false(isolation:IsLocked())
      assert.is_true(other:Held())
      assert.equal(0, isolation:ReleaseAll())
      -- and who lost it so cannot harm the next one
      local next_one <close> = assert(isolation:Lock())
      assert.is_false(guard:Release())
      assert.is_true(next_one:Held())
      other:Release()
    end)

    it("excludes the other states and threads of the process", function()
      local guard = assert(isolation:Lock())
      local report = os.tmpname()
      local thread = assert(luv.new_thread(function(name, dir, path, bound)
        -- luacheck: ignore
        local Isolation = require "executionguard.isolation"
        local it = Isolation.new("migrate")
        if name == "file" then it:WithLockDir(dir) else
          it:WithStrategy(name) end
        local _, err = it:Lock()
        local file = io.open(path, "w")
        file:write(err.kind, " ", tostring(err.owner.here), "\n")
        file:flush()
        local got = it:LockWithTimeout(bound)
        file:write(tostring(got and got:Release()), "\n")
        got = it:Lock()
        file:write(tostring(got), "\n")
        file:close()
        local stop = os.time() + bound
        while got:Held() and os.time() < stop do end
      end, way.name, folder, report, BOUND))
      local function reported(pattern)
        local stop = steady() + BOUND
        repeat
          local text = output_of("cat '%s'", report)
          if text:match(pattern) then
            return text
          end
        until steady() > stop
        return output_of("cat '%s'", report)
      end
      reported "\n"
      assert.is_true(guard:Release())
      local text = reported "held"
      assert.equal("AlreadyRunning true\ntrue\n" ..
                   "IsolationGuard of 'migrate' (held)\n", text)
      assert.is_true(isolation:IsLocked())
      assert.equal(1, isolation:ReleaseAll()) -- the other thread's
      assert.is_false(isolation:IsLocked())
      assert.is_true(thread:join())
      os.remove(report)
    end)
  end)
end

describe("an isolated command's lock file", function()
  before_each(function() folder = world.folder() end)

  it("is in the folder itself, which is made private", function()
    local dir = folder .. "/a/b"
    local isolation = Isolation.new("migrate", { lockDir = dir })
    assert.equal(dir .. "/migrate.lock", isolation:LockPath())
    local guard <close> = assert(isolation:Lock())
    assert.equal(isolation:LockPath(), guard.path)
    assert.equal("700\n", output_of("stat -c %%a '%s'", dir))
    assert.equal("700\n", output_of("stat -c %%a '%s/a'", folder))
    assert.is_true(shell("test -f '%s'", guard.path))
  end)

  it("says at once who has it, and nothing when it is free", function()
    local isolation = Isolation.new("migrate", { lockDir = folder })
    local guard = assert(isolation:Lock())
    local _, err = isolation:Lock()
    local line = assert(io.open(guard.path)):read "l"
    assert.equal(("%d"):format(err.owner.pid), line:match '"pid":(%d+)')
    assert.equal(err.lockedAt, line:match '"since":"([^"]+)"')
    assert.equal(("%d"):format(guard.token), line:match '"token":(%d+)')
    guard:Release()
    assert.equal("", assert(io.open(guard.path)):read "l")
  end)

  it("is named by the folder, be that relative or absolute", function()
    assert.equal(".executionguard/locks/migrate.lock",
                 Isolation.new("migrate"):LockPath())
    local isolation = Isolation.new("cache:clear")
    assert.equal("locks/cache:clear.lock",
                 isolation:WithLockDir("locks"):LockPath())
    assert.equal("locks/cache:clear.lock",
                 isolation:WithLockDir("locks//"):LockPath())
    assert.equal("/cache:clear.lock", isolation:WithLockDir("/"):LockPath())
  end)

  it("never leaves the folder, whatever the command is called", function()
    local seen = {}
    for _, command in ipairs { "../x", "/etc/passwd", ".", "..", "a b",
                               "a\0b", "ä", "%2e", "x/y/z", ("x"):rep(512),
                               ("x"):rep(511) .. "y" } do
      local isolation = Isolation.new(command, { lockDir = folder })
      local guard <close> = assert(isolation:Lock())
      local name = guard.path:sub(#folder + 2)
      assert.equal(folder .. "/", guard.path:sub(1, #folder + 1))
      assert.matches("^[%w_%-:%%][%w_%-:%%.~]*%.lock$", name)
      assert.is_true(#name < 256)
      assert.is_nil(seen[name])
      assert.is_true(shell("test -f '%s'", guard.path))
      seen[name] = true
    end
  end)

  it("is that of a file store, also of its URL", function()
    local isolation = Isolation.new("migrate",
      { lockDir = folder .. "/locks" })
    local store = "file:" .. folder
    local guard = ExecutionGuard.new { store = store }
    local same = Isolation.new("migrate", { store = store })
    assert.equal(isolation:LockPath(), same:LockPath())
    local lock = assert(isolation:Lock())
    assert.same({ false, "locked" }, { guard:AcquireLock("migrate", 0) })
    assert.equal("AlreadyRunning", select(2, same:Lock()).kind)
    lock:Release()
    assert.is_true(guard:AcquireLock "migrate")
    local _, err = isolation:Lock()
    assert.equal("AlreadyRunning", err.kind)
    assert.matches(RFC3339, err.lockedAt)
    assert.equal(0, isolation:ReleaseAll() - same:ReleaseAll() + 1)
    guard:Close()
    local bare = Isolation.new("migrate",
      { store = ("file:%s/locks?locks=."):format(folder) })
    assert.equal(isolation:LockPath(), bare:LockPath())
  end)

  it("excludes flock(1), and flock(1) excludes it", function()
    local isolation = Isolation.new("migrate", { lockDir = folder })
    local guard = assert(isolation:Lock())
    assert.is_nil(shell("flock -n '%s' true", guard.path))
    guard:Release()
    assert.is_true(shell("flock -n '%s' true", guard.path))
    local pipe = assert(io.popen(("flock '%s' sh -c 'echo in; read x'")
      :format(guard.path), "w"))
    local stop = steady() + BOUND
    repeat until isolation:IsLocked() or steady() > stop -- luacheck: ignore
    assert.is_true(isolation:IsLocked())
    local _, err = isolation:Lock()
    assert.equal("AlreadyRunning", err.kind)
    assert.matches(RFC3339, err.lockedAt) -- the file's time
    assert.is_nil(err.owner)
    _, err = isolation:LockWithTimeout(SPAN)
    assert.equal("Timeout waiting for 'migrate' after 0.05s", tostring(err))
    assert.equal(0, isolation:ReleaseAll())
    assert.is_true(isolation:IsLocked())
    task.delay(SPAN, function() pipe:close() end)
    local got
    task.spawn(function() got = isolation:LockWithTimeout(BOUND) end)
    task.run()
    assert.is_true(got:Release())
  end)

  it("that was removed or replaced does not deceive its holder", function()
    for _, how in ipairs {
      "rm '%s'", "cp -p '%s' '%s.new' && mv '%s.new' '%s'",
    } do
      local isolation = Isolation.new("migrate", { lockDir = folder })
      local guard = assert(isolation:Lock())
      assert.is_true(guard:Held())
      assert.is_true(shell((how:gsub("%%s", guard.path))))
      assert.is_false(guard:Held())
      local got, err -- as soon as the keeper has looked
      local stop = steady() + BOUND
      repeat got, err = isolation:Lock() until got or steady() > stop
      local second <close> = assert(got, err)
      assert.is_false(guard:Release())
      assert.is_true(second:Held())
      assert.is_nil(shell("flock -n '%s' true", second.path))
    end
  end)

  it("is alone but for the side file: no database is made", function()
    local isolation = Isolation.new("migrate", { lockDir = folder })
    for _ = 1, 3 do
      local guard <close> = assert(isolation:Lock())
      assert(isolation:LockWithTimeout(0) == nil and guard:Held())
    end
    assert.equal("guard.shm\nmigrate.lock\n", output_of("ls -A '%s'", folder))
  end)

  it("is made anew with a folder that was removed", function()
    local isolation = Isolation.new("migrate", { lockDir = folder })
    local kept = assert(Isolation.new("kept", { lockDir = folder }):Lock())
    assert(isolation:Lock()):Release()
    shell("rm -rf '%s'", folder)
    assert.is_false(isolation:IsLocked())
    assert.equal(0, isolation:ReleaseAll())
    local guard <close> = assert(isolation:Lock())
    assert.is_true(shell("test -f '%s'", guard.path))
    assert.is_nil(shell("flock -n '%s' true", guard.path))
    kept:Release()
  end)

  it("is not made by a question", function()
    local isolation = Isolation.new("migrate", { lockDir = folder })
    assert.is_false(isolation:IsLocked())
    assert.equal(0, isolation:ReleaseAll())
    assert.is_nil(shell("test -e '%s'", folder))
  end)
end)

describe("an isolated command's error", function()
  before_each(function() folder = world.folder() end)

  local function refused(command, dir)
    local isolation = Isolation.new(command or "x",
      { lockDir = dir or folder })
    local guard, err = isolation:Lock()
    assert.is_nil(guard)
    assert.equal(isolation:LockPath(), err.path)
    assert.equal(command or "x", err.command)
    assert.equal("string", type(err.message))
    return err
  end

  it("is PermissionDenied where this user may not", function()
    -- nobody may make a folder there, root neither
    local err = refused(nil, "/sys/executionguard")
    assert.equal("PermissionDenied", err.kind)
    assert.is_true(err.errno == 1 or err.errno == 13 or err.errno == 30)
    assert.matches("^Permission denied: .*/sys/executionguard",
                   tostring(err))
  end)

  it("is PermissionDenied in a folder of root's for somebody else", function()
    if output_of "id -u" ~= "0\n" then
      shell("mkdir -p '%s' && chmod 500 '%s'", folder, folder)
      assert.equal("PermissionDenied", refused().kind)
      return
    end
    local script = os.tmpname()
    local file = assert(io.open(script, "w"))
    file:write(([[
local Isolation = require "executionguard.isolation"
local _, err = Isolation.new("x", { lockDir = "%s/no" }):Lock()
print(err.kind, err.errno)
]]):format(folder))
    file:close()
    shell("mkdir -p '%s' && chmod 755 '%s' && chmod 644 '%s'", folder, folder,
          script)
    -- what was built may be where nobody else may look
    local copy = os.tmpname()
    os.remove(copy)
    local built = package.searchpath("executionguard.core", package.cpath)
      :match "^(.*)/executionguard/core%.so$"
    assert.is_true(shell("cp -rL '%s' '%s' && chmod -R a+rX '%s'", built, copy,
                         copy))
    assert.equal("PermissionDenied\t13\n", output_of(
      "LUA_PATH='%s/?.lua;%s/?/init.lua' LUA_CPATH='%s/?.so' " ..
      "setpriv --reuid 65534 --regid 65534 --clear-groups %s '%s'",
      copy, copy, copy, os.getenv "LUA" or "lua5.4", script))
    os.remove(script)
    shell("rm -rf '%s'", copy)
  end)

  it("is LockFileError for what is no file, a link, or not ours", function()
    shell("mkdir -p '%s/folder.lock' && chmod 700 '%s' && " ..
          "mkfifo '%s/fifo.lock' && ln -s /etc/passwd '%s/link.lock' && " ..
          "touch '%s/open.lock' && chmod 666 '%s/open.lock'", folder, folder,
          folder, folder, folder, folder)
    local err = refused "folder"
    assert.equal("LockFileError", err.kind)
    assert.equal(21, err.errno)
    assert.matches("^Lock file error: .*/folder%.lock: ", tostring(err))
    err = refused "fifo"
    assert.equal("LockFileError", err.kind)
    assert.is_nil(err.errno)
    assert.equal("LockFileError", refused("link").kind)
    assert.equal("LockFileError", refused("open").kind)
    assert.equal("root", assert(io.open "/etc/passwd"):read(4))
    shell("ln -s '%s' '%s2'", folder, folder)
    assert.equal("LockFileError", refused("x", folder .. "2").kind)
    assert.equal("LockFileError", refused("x", "/etc/passwd").kind)
    if output_of "id -u" == "0\n" then
      shell("touch '%s/theirs.lock' && chown 65534 '%s/theirs.lock'", folder,
            folder)
      err = refused "theirs"
      assert.equal("LockFileError", err.kind)
      assert.is_nil(err.errno)
    end
  end)

  it("is IoError for all else", function()
    local err = refused("x", "/etc/passwd/locks")
    assert.equal("IoError", err.kind)
    assert.equal(20, err.errno)
    assert.matches("^IO error: ", tostring(err))
  end)

  it("is returned by IsLocked and ReleaseAll too", function()
    shell("mkdir -p '%s' && ln -s '%s' '%s2'", folder, folder, folder)
    local isolation = Isolation.new("x", { lockDir = folder .. "2" })
    shell("touch '%s/x.lock'", folder)
    for _, method in ipairs { "IsLocked", "ReleaseAll" } do
      local none, err = isolation[method](isolation)
      assert.is_nil(none)
      assert.equal("LockFileError", err.kind)
    end
  end)
end)

describe("an isolation", function()
  it("is changed by With..., which return it", function()
    local isolation = Isolation.new "x"
    assert.equal(isolation, isolation:WithStrategy "memory")
    assert.equal(isolation, isolation:WithTimeout(5))
    assert.equal(isolation, isolation:WithLockDir "locks")
    assert.equal("memory", isolation.strategy)
    assert.equal(5, isolation.timeout)
    assert.is_nil(isolation:LockPath())
    assert.equal("Isolation of 'x' (memory)", tostring(isolation))
    assert.equal("locks/x.lock",
                 isolation:WithStrategy("file"):LockPath())
    assert.equal("Isolation of 'x' (locks/x.lock)", tostring(isolation))
  end)

  it("runs on a guard of any store", function()
    local guard <close> = ExecutionGuard.new()
    local isolation = Isolation.new("x", { store = guard })
    local lock = assert(isolation:Lock())
    assert.is_true(guard:IsLocked "x")
    assert.equal("AlreadyRunning", select(2, isolation:Lock()).kind)
    assert.equal("Timeout", select(2, isolation:LockWithTimeout(1)).kind)
    assert.is_true(lock:Release())
    assert.is_false(guard:IsLocked "x")
    assert.is_true(guard:AcquireLock "x")
    assert.is_true(isolation:IsLocked())
    assert.equal(1, isolation:ReleaseAll())
    assert.is_nil(isolation:LockPath())
    -- a run is not a lock: it goes on
    guard:RunOnce("x", function()
      assert.equal("AlreadyRunning", select(2, isolation:Lock()).kind)
      assert.equal(0, isolation:ReleaseAll())
    end)
    assert.equal("Completed", guard:GetStatus "x")
    assert(isolation:Lock()):Release()
    assert.equal("Completed", guard:GetStatus "x")
  end)

  it("on a guard says that a key cools down", function()
    local guard <close> = ExecutionGuard.new { cooldown = 3600 }
    guard:RunOnce("x", function() end)
    local _, err = Isolation.new("x", { store = guard }):Lock()
    assert.equal("AlreadyRunning", err.kind)
    assert.equal("cooldown", err.reason)
    assert.is_true(err.secondsLeft > 3000)
    assert.matches("^Command 'x' ended a short while ago %(again in %d",
                   tostring(err))
  end)

  it("runs on the URL of a store, and keeps its password", function()
    local isolation = Isolation.new("x", { store = "memory" })
    local guard <close> = assert(isolation:Lock())
    assert.equal("AlreadyRunning",
      select(2, Isolation.new("x"):WithStrategy("memory"):Lock()).kind)
    assert.is_true(guard:Held())
    local remote = Isolation.new("x", { store = "redis://:secret@host" })
    assert.equal("Isolation of 'x' (redis)", tostring(remote))
  end)

  it("raises for arguments that are wrong, and names them", function()
    local function message(...)
      local text = world.message(...)
      assert.matches("isolation_spec%.lua:%d+: ", text)
      return text
    end
    local x = Isolation.new "x"
    local function new(...)
      return message(function(...) return Isolation.new(...), 1 end, ...)
    end
    local function call(method, ...)
      return message(function(...) return x[method](x, ...), 1 end, ...)
    end
    assert.matches("Isolation%.new: command must be a string of 1 to 512 " ..
                   "bytes, not the string ''$", new(""))
    assert.matches("command must be .*, not nil$", new(nil))
    assert.matches("command must be .*, not 5$", new(5))
    assert.matches("command must be .*, not a string of 513 bytes$",
                   new(("x"):rep(513)))
    assert.matches("options must be a table, not 5$", new("x", 5))
    assert.matches("no option 'timeot'; there are", new("x", { timeot = 1 }))
    assert.matches("no option 'command'", new("x", { command = "y" }))
    assert.matches('strategy must be "file" or "memory", not the string ' ..
                   "'redis'$", new("x", { strategy = "redis" }))
    assert.matches("lockDir must be", new("x", { lockDir = "a?b" }))
    assert.matches("lockDir must be", new("x", { lockDir = "" }))
    assert.matches("timeout must be .*, not %-1$", new("x", { timeout = -1 }))
    assert.matches("store must be", new("x", { store = 1 }))
    assert.matches("store says where", new("x",
      { store = "memory", lockDir = "locks" }))
    assert.matches("WithStrategy: strategy must be",
                   call("WithStrategy", nil))
    assert.matches("WithLockDir: lockDir must be", call("WithLockDir"))
    assert.matches("WithTimeout: timeout must be", call("WithTimeout"))
    assert.matches("WithTimeout: .*not %-?nan$", call("WithTimeout", 0 / 0))
    assert.matches("LockWithTimeout: timeout must be .*, not the string '5'$",
                   call("LockWithTimeout", "5"))
    x = Isolation.new("x", { store = "memory" })
    assert.matches("WithLockDir: this isolation has a store of its own",
                   call("WithLockDir", "locks"))
    assert.matches("no store is known", message(function()
      return Isolation.new("x", { store = "nosuch:" }):Lock(), 1
    end))
  end)

  it("sets no global", function()
    local before = world.globals()
    package.loaded["executionguard.isolation"] = nil
    require "executionguard.isolation"
    assert.equal(before, world.globals())
  end)
end)
