-- SPDX-License-Identifier: MIT
-- Isolated commands between real processes: they compete, they wait, they are
-- killed.  By the machine's clock: processes have no other.  Every wait has a
-- bound of its own, and none of them is expected to be quick.

local Isolation = require "executionguard.isolation"
local world = require "support.world"

local clock = world.core.clock
local steady, sleep = clock.steady, clock.sleep
local LUA <const> = os.getenv "LUA" or "lua5.4"
local SPAN <const> = 0.05
local BOUND <const> = 60

local folder, isolation

local function shell(command, ...)
  return (os.execute(command:format(...)))
end

local PROGRAM <const> = [[
local Isolation = require "executionguard.isolation"
local sleep = require "executionguard.core".clock.sleep
local isolation = Isolation.new("migrate", { lockDir = %q, timeout = %d })
local function say(...) io.write(...) io.write "\n" io.flush() end
%s
]]

local programs = 0

-- Another process; what it says comes through a pipe, first its pid.
local function process(body, before)
  os.execute(("mkdir -p '%s'"):format(folder:match "^(.*)/"))
  programs = programs + 1
  local path = ("%s.%d.lua"):format(folder, programs)
  local file = assert(io.open(path, "w"))
  file:write(PROGRAM:format(folder, BOUND, body))
  file:close()
  local pipe = assert(io.popen(("%s echo $$; exec %s '%s'"):format(
    before or "", LUA, path)))
  return { pipe = pipe, pid = pipe:read "n", line = pipe:read "l",
           path = path }
end

local function hears(other, ...)
  for _, line in ipairs { ... } do
    assert.equal(line, other.pipe:read "l")
  end
end

local function ends(other)
  other.pipe:close()
  os.remove(other.path)
end

-- Holds the command until it may go.
local HOLDS <const> = [[
local guard = assert(isolation:Lock())
say "ready"
for _ = 1, 30000 do
  local go = io.open %q
  if go then
    go:close()
    break
  end
  sleep(0.002)
end
say(tostring(guard:Release()))]]

local function holder()
  os.remove(folder .. ".go")
  local other = process(HOLDS:format(folder .. ".go"))
  hears(other, "ready")
  return other
end

local function may_go(after)
  shell("(sleep %s; touch '%s.go') &", after or 0, folder)
end

-- Until fn returns true.
local function comes(fn)
  local stop = steady() + BOUND
  while steady() < stop do
    if fn() then
      return true
    end
    sleep(0.001)
  end
  return false
end

describe("an isolated command of another process", function()
  before_each(function()
    folder = world.folder()
    isolation = Isolation.new("migrate", { lockDir = folder })
  end)

  it("is refused, and one is told who has it", function()
    local other = holder()
    local guard, err = isolation:Lock()
    assert.is_nil(guard)
    assert.equal("AlreadyRunning", err.kind)
    assert.equal(other.pid, err.owner.pid)
    assert.is_false(err.owner.here)
    assert.equal("lua5.4", err.owner.text)
    assert.is_true(isolation:IsLocked())
    assert.equal(0, isolation:ReleaseAll()) -- not ours
    assert.is_true(isolation:IsLocked())
    may_go()
    hears(other, "true")
    ends(other)
  end)

  it("is waited for, and then had", function()
    local other = holder()
    local _, err = isolation:LockWithTimeout(SPAN / 5)
    assert.equal("Timeout", err.kind)
    may_go(SPAN)
    local guard <close> = assert(isolation:LockWithTimeout(BOUND))
    assert.is_true(guard:Held())
    hears(other, "true")
    ends(other)
  end)

  it("is free when its holder dies, whose line is there till then", function()
    local other = holder()
    local path = isolation:LockPath()
    shell("kill -9 %d", other.pid)
    ends(other)
    assert.is_true(comes(function() return not isolation:IsLocked() end))
    assert.equal("{", assert(io.open(path)):read(1))
    assert.equal(1, isolation:ReleaseAll())
    assert.equal("\n", assert(io.open(path)):read(1))
    assert.equal(0, isolation:ReleaseAll())
    assert(isolation:Lock()):Release()
  end)

  it("is had by who waits for it, when its holder is killed", function()
    local other = holder()
    shell("(sleep %s; kill -9 %d) &", SPAN, other.pid)
    local guard <close> = assert(isolation:LockWithTimeout(BOUND))
    assert.is_true(guard:Held())
    ends(other)
  end)

  it("is held by one that is stopped", function()
    local other = holder()
    shell("kill -STOP %d", other.pid)
    local _, err = isolation:LockWithTimeout(SPAN * 3)
    assert.equal("Timeout", err.kind)
    assert.is_true(isolation:IsLocked())
    may_go()
    shell("kill -CONT %d", other.pid)
    assert(isolation:LockWithTimeout(BOUND)):Release()
    ends(other)
  end)

  it("is free after os.exit, with or without closing the state", function()
    for _, how in ipairs { "os.exit(true, true)", "os.exit(true)", "" } do
      local other = process("assert(isolation:Lock()) say 'ready' " .. how)
      hears(other, "ready")
      ends(other)
      assert(isolation:LockWithTimeout(BOUND)):Release()
    end
  end)

  it("is not inherited by commands that its holder starts", function()
    local guard = assert(isolation:Lock())
    local pipe = io.popen("echo in; exec sleep " .. BOUND)
    assert.equal("in", pipe:read "l")
    assert.is_true(guard:Release())
    assert(isolation:Lock()):Release()
    shell("pkill -P %d sleep", io.open("/proc/self/stat"):read "n")
    pipe:close()
  end)

  it("is the same by a relative folder", function()
    local base, name = folder:match "^(.*)/([^/]+)$"
    os.execute(("mkdir -p '%s'"):format(base))
    local other = process(([[
isolation:WithLockDir %q
assert(isolation:LockPath() == "%s/migrate.lock")
]]):format(name, name) .. HOLDS:format(folder .. ".go"),
      ("cd '%s' &&"):format(base))
    hears(other, "ready")
    local _, err = isolation:Lock()
    assert.equal(other.pid, err.owner.pid)
    may_go()
    hears(other, "true")
    ends(other)
  end)

  it("excludes eguard run, and eguard run excludes it", function()
    isolation:WithLockDir(folder .. "/locks")
    local run = ("eguard run -q --store='file:%s' migrate -- "):format(folder)
    local guard = assert(isolation:Lock())
    local _, _, status = os.execute(run .. "true")
    assert.equal(75, status)
    guard:Release()
    assert.is_true(shell(run .. "true"))
    local pipe = assert(io.popen(("echo $$; exec %ssh -c 'echo in; " ..
      "exec sleep %d'"):format(run, BOUND)))
    local pid = pipe:read "n"
    assert.same({ "", "in" }, { pipe:read("l", "l") })
    local _, err = isolation:Lock()
    assert.equal("AlreadyRunning", err.kind)
    if err.owner then -- it writes its line a little late
      assert.equal(pid, err.owner.pid)
    end
    assert.is_true(isolation:IsLocked())
    shell("kill %d", pid)
    pipe:close()
    assert(isolation:LockWithTimeout(BOUND)):Release()
  end)

  it("is found free where its file was removed", function()
    local guard = assert(isolation:Lock())
    assert.is_true(os.remove(guard.path))
    local other = holder()
    may_go()
    hears(other, "true")
    ends(other)
    guard:Release()
  end)
end)

-- What competitors write: one line when they are in, one before they are out.
local COMPETES <const> = [[
local log = assert(io.open(%q, "a"))
log:setvbuf "line"
say "ready"
for _ = 1, %d do
  local guard <close> = assert(isolation:Lock())
  log:write("in ", %d, "\n")
  sleep(0.001)
  log:write("out ", %d, "\n")
end
say "done"]]

describe("isolated commands that compete", function()
  local log

  before_each(function()
    folder = world.folder()
    log = folder .. ".log"
    isolation = Isolation.new("migrate", { lockDir = folder })
  end)

  local function competitor(number, rounds)
    local other = process(COMPETES:format(log, rounds, number, number))
    hears(other, "ready")
    return other
  end

  -- Nobody comes in before who is in is out, or was killed.  Returns how
  -- often somebody came in.
  local function check(killed)
    local inside, count = nil, 0
    for line in io.lines(log) do
      local word, number = line:match "^(%l+) (%d+)$"
      if word == "in" then
        assert.is_true(inside == nil or killed[inside] ~= nil,
                       "two were in at once")
        inside, count = number, count + 1
      else
        assert.equal("out", word)
        assert.equal(inside, number)
        inside = nil
      end
    end
    return count
  end

  it("are in one at a time, and all come in", function()
    local rounds <const>, others = world.scaled(25), {}
    for i = 1, 4 do
      others[i] = competitor(i, rounds)
    end
    for _, other in ipairs(others) do
      hears(other, "done")
      ends(other)
    end
    assert.equal(4 * rounds, check {})
    assert.is_false(isolation:IsLocked())
  end)

  it("are so while holders are killed by SIGKILL", function()
    local others, killed, number, kills = {}, {}, 0, 0
    local function start(rounds)
      number = number + 1
      local other = competitor(number, rounds)
      others[other.pid] = { other = other, number = tostring(number) }
    end
    for _ = 1, 3 do
      start(1000000)
    end
    assert.is_true(comes(function()
      local guard, err = isolation:Lock()
      local owner = err and err.owner
      if guard then
        guard:Release()
      elseif owner and others[owner.pid] then
        local victim = others[owner.pid]
        killed[victim.number] = true
        shell("kill -9 %d", owner.pid)
        ends(victim.other)
        others[owner.pid] = nil
        kills = kills + 1
        start(1000000)
      end
      return kills == world.scaled(12)
    end))
    for pid in pairs(others) do
      killed[others[pid].number] = true
      shell("kill -9 %d", pid)
      ends(others[pid].other)
    end
    assert(isolation:LockWithTimeout(BOUND)):Release()
    assert.is_true(check(killed) >= kills)
    os.remove(log)
  end)
end)
