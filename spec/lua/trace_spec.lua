-- SPDX-License-Identifier: MIT
-- ExecutionGuard.trace, eguard trace and run --trace: Chrome trace events.

local ExecutionGuard = require "executionguard"
local executor = require "executionguard.executor"
local job = require "executionguard.job"
local shell = require "support.shell"
local task = require "executionguard.task"
local world = require "support.world"

-- What Perfetto's importer asks of a trace; returns its events by their names.
local function events_of(text)
  local document = shell.json(text)
  assert.equal("ms", document.displayTimeUnit)
  local by_name, rows, ends = {}, {}, {}
  for _, event in ipairs(document.traceEvents) do
    local row = event.pid .. "/" .. event.tid
    assert.is_truthy(math.type(event.pid) and math.type(event.tid))
    if event.ph == "M" then
      rows[row] = rows[row] or event.name == "thread_name"
      assert.is_string(event.args.name)
    else
      assert.is_true(rows[row], "a row without a name")
      assert.equal("integer", math.type(event.ts))
      local last = rows["at " .. row]
      assert.is_true(not last or last <= event.ts, "time goes back")
      rows["at " .. row] = event.ts
    end
    if event.ph == "X" then
      -- within what is open there, or after it
      local stack = ends[row] or {}
      ends[row] = stack
      while #stack > 0 and stack[#stack] <= event.ts do
        table.remove(stack)
      end
      local stop = event.ts + event.dur
      assert.is_true(#stack == 0 or stop <= stack[#stack], "overlaps")
      stack[#stack + 1] = stop
    elseif event.ph == "i" then
      assert.equal("t", event.s)
    else
      assert.equal("M", event.ph)
    end
    if event.ph ~= "M" then
      by_name[event.name] = by_name[event.name] or event
    end
  end
  return by_name
end

describe("a trace", function()
  local guard

  before_each(function()
    world.start(true)
    guard = ExecutionGuard.new()
  end)

  after_each(function()
    guard:Close()
    world.stop()
  end)

  it("has runs, waits, retries, time-outs and hand-overs", function()
    local stop = ExecutionGuard.trace()
    guard:RunOnce("good", function() world.advance(2) end)
    guard:RunOnce("bad", function() error "boom" end,
      { retry = { attempts = 2, delay = 1 } })
    guard:RunOnce("late", function() world.advance(9) end,
      { timeout = 3, interrupt = false })
    task.spawn(function()
      local _ <close> = assert(guard:Lock "door")
      task.wait(5)
    end)
    task.spawn(function() local _ <close> = assert(guard:Lock "door") end)
    task.run()
    local text, n, dropped = stop()
    local events = events_of(text)
    assert.equal(0, dropped)
    assert.is_true(n >= 9)
    assert.equal(2000000, events.good.dur)
    assert.equal("completed", events.good.args.status)
    assert.equal("failed", events.bad.args.status)
    assert.equal(2, events["retry bad"].args.attempt)
    assert.equal("timeout", events.late.args.status)
    assert.is_truthy(events["timeout late"])
    assert.equal(5000000, events["wait door"].dur)
    assert.equal("ok", events["wait door"].args.status)
    assert.is_truthy(events["handover door"])
    assert.same({ nil, "the trace was stopped before" }, { stop() })
  end)

  it("puts coroutines that overlap into rows of their own", function()
    local stop = ExecutionGuard.trace()
    for i = 1, 20 do
      task.spawn(function()
        guard:RunOnce("k" .. i, function() task.wait(i % 7 + i / 10) end)
      end)
    end
    task.run()
    local events = events_of((stop()))
    for i = 1, 20 do assert.is_truthy(events["k" .. i]) end
  end)

  it("goes to a file, or to a function, when it is stopped", function()
    local path = os.tmpname()
    do
      local _ <close> = assert(ExecutionGuard.trace(path))
      guard:RunOnce("k", function() end)
    end
    assert.is_truthy(events_of(shell.read(path)).k)
    os.remove(path)
    local told
    local stop = ExecutionGuard.trace(function(...) told = { ... } end)
    guard:RunOnce("l", function() end)
    assert.is_nil(told)
    assert.same({ true, 1, 0 }, { stop() })
    assert.is_truthy(events_of(told[1]).l)
    assert.same({ 1, 0 }, { told[2], told[3] })
  end)

  it("is one in a process, and ends with what holds it", function()
    local stop = ExecutionGuard.trace()
    local none, err = ExecutionGuard.trace()
    assert.is_nil(none)
    assert.matches("already", err)
    stop()
    ExecutionGuard.trace()
    world.collect()
    assert.is_truthy(ExecutionGuard.trace())
    world.collect()
    none, err = ExecutionGuard.trace "/no/such/folder/trace"
    assert.is_nil(none)
    assert.matches("No such file", err)
    assert(ExecutionGuard.trace())()
  end)

  it("keeps the latest, and counts the others", function()
    local stop = ExecutionGuard.trace(nil, { events = 4 })
    for i = 1, 5 do guard:RunOnce("k" .. i, function() end) end
    local text, n, dropped = stop()
    assert.same({ 2, 6 }, { n, dropped })
    local events = events_of(text)
    assert.is_truthy(events.k5)
    assert.is_nil(events.k3)
  end)

  it("refuses what it does not know", function()
    for _, case in ipairs {
      { 7, nil, "it is written to a path, or told to a function, not the " ..
        "number 7" },
      { "a\0b", nil, "a path has no zero byte, and \"a\\0b\" has" },
      { nil, 7, "options must be a table {events=}, not the number 7" },
      { nil, { event = 1 }, "unknown option the string 'event'; it takes " ..
        "'events'" },
      { nil, { events = 0 }, "option 'events' must be an integer from 1 to " ..
        "16777216, not the number 0" },
    } do
      local ok, err = pcall(function()
        return (ExecutionGuard.trace(case[1], case[2]))
      end)
      assert.is_false(ok)
      -- whose fault it is: the line that called, in this file
      assert.equal("ExecutionGuard.trace: " .. case[3],
                   err:match "^%g*trace_spec%.lua:%d+: (.*)$")
    end
  end)
end)

describe("a trace of an executor", function()
  local function retried(options)
    local stop = ExecutionGuard.trace()
    local tries = 0
    local exec = executor.new(job.new("again", function()
      tries = tries + 1
      if tries < 3 then error("no", 0) end
    end), options)
    assert(exec:Start())
    return events_of((stop()))
  end

  it("has its retries, under a guard", function()
    local guard <close> = ExecutionGuard.new()
    local events = retried { guard = guard, key = "k",
                             retry = { attempts = 3, delay = 0 } }
    assert.equal("completed", events.k.args.status)
    assert.equal(2, events["retry k"].args.attempt)
    assert.is_nil(events.again)
  end)

  it("and without one", function()
    local events = retried { retry = { attempts = 3, delay = 0 } }
    assert.equal(2, events["retry again"].args.attempt)
  end)
end)

describe("eguard's traces:", function()
  local folder

  setup(function() folder = shell.folder() end)
  teardown(function() folder:remove() end)

  local function sh(command) return shell.run(folder, command) end

  it("a row for each owner, of what the store remembers", function()
    sh [[eguard run --owner=ann a -- true; eguard run --owner=bob b -- false
      eguard run --timeout=0.1 --owner=bob late -- sleep 20]]
    local trace = sh "eguard trace -"
    assert.equal(0, trace.status)
    local events = events_of(trace.out)
    assert.equal("completed", events.a.args.status)
    assert.equal("failed", events.b.args.status)
    assert.equal("timeout", events.late.args.status)
    assert.equal(events.b.pid, events.late.pid)
    assert.not_equal(events.a.pid, events.b.pid)
    assert.is_nil(events_of(sh("eguard trace - b").out).a)
    assert.is_nil(events_of(sh("eguard trace - -n 1").out).a)
    assert.is_nil(events_of(sh("eguard trace --since=0s -").out).a)
    local path = folder.path .. "/trace"
    assert.equal(0, sh("eguard trace " .. shell.quote(path)).status)
    assert.is_truthy(events_of(shell.read(path)).a)
    local wrong = sh "eguard trace /no/such/folder/trace"
    assert.equal(125, wrong.status)
    assert.matches("No such file", wrong.err)
  end)

  it("a command as it ran", function()
    local path = folder.path .. "/run"
    local result = sh("eguard run -q --retry=1 --delay=0.01 --trace=" ..
      shell.quote(path) .. " again -- false")
    assert.equal(1, result.status)
    local events = events_of(shell.read(path))
    assert.equal("failed", events.again.args.status)
    assert.equal(2, events["retry again"].args.attempt)
  end)

  -- A real terminal: its ^C goes to the command, and ends eguard with it.
  local function interrupted(steps, command)
    local path = folder.path .. "/steps"
    local file <close> = assert(io.open(path, "w"))
    file:write(steps)
    file:flush()
    local result = sh(("TERM=xterm python3 spec/lua/support/terminal.py " ..
      "80 24 %s %s"):format(shell.quote(path), command))
    assert.equal(0, result.status, result.err .. result.out)
  end

  it("a command that a key of the terminal ended", function()
    local path = folder.path .. "/ended"
    interrupted("wait begun\nsend \\x03\nended signal 2\n", "eguard run " ..
      "--trace=" .. shell.quote(path) .. " ended -- " ..
      "sh -c 'echo begun; exec sleep 600'")
    assert.equal("failed", events_of(shell.read(path)).ended.args.status)
  end)

  it("a wait that a key of the terminal ended", function()
    local path = folder.path .. "/waited"
    local guard <close> = ExecutionGuard.new { store = folder.store }
    assert(guard:AcquireLock("waited", 0))
    interrupted("wait waiting\nsh " .. ([[[ -e /proc/locks ] || sleep 1;
      while [ -e /proc/locks ] && ! grep -q -e
      "-> FLOCK .*:$(stat -c %i FOLDER/store/locks/waited.lock) " /proc/locks;
      do sleep 0.02; done]]):gsub("%s+", " "):gsub("FOLDER", folder.path) ..
      "\nsend \\x03\nended signal 2\n", "eguard run " ..
      "-v --wait --trace=" .. shell.quote(path) .. " waited -- true")
    local events = events_of(shell.read(path))
    assert.equal("waiting", events["wait waited"].args.status)
    assert.is_nil(events.waited)
  end)
end)
