-- SPDX-License-Identifier: MIT
-- eguard top, on a real pty: what it shows, its keys, and that the terminal is
-- given back however it ends.

local shell = require "support.shell"
local ExecutionGuard = require "executionguard"

describe("eguard top", function()
  local folder, guard

  before_each(function()
    folder = shell.folder()
    guard = ExecutionGuard.new { store = folder.store, owner = "the spec" }
  end)
  after_each(function()
    guard:Close()
    folder:remove()
  end)

  local function sh(command) return shell.run(folder, command) end

  -- Runs `eguard top` on a terminal; returns what the steps printed.
  local function top(steps, options)
    options = options or {}
    local path = folder.path .. "/steps"
    local file = assert(io.open(path, "w"))
    file:write(table.concat(steps, "\n"), "\n")
    file:close()
    local result = sh(("TERM=xterm LC_ALL=%s %s python3 " ..
      "spec/lua/support/terminal.py %d %d %s eguard top %s"):format(
      options.locale or "C.UTF-8", options.environment or "",
      options.columns or 100, options.rows or 12, path,
      options.arguments or "--interval=0.1"))
    assert.equal(0, result.status, result.err .. result.out)
    return result.out
  end

  local function while_held(keys, fn)
    local key = table.remove(keys)
    if not key then return fn() end
    local ok, err, reason = guard:RunOnce(key, function()
      while_held(keys, fn)
    end)
    assert(ok or reason == "lost", err)
  end

  it("shows what is held, by whom, for how long", function()
    while_held({ "backup", "import" }, function()
      local shown = top { "wait backup", "screen", "send q", "ended exit 0",
                          "given back" }
      assert.match("2 held, 0 failed, 2 records", shown)
      assert.match("KEY +STATUS +FOR +PROGRESS +WAIT +RUNS +FAILED +HELD BY",
                   shown)
      assert.match("> %a+ +Running +[%d.]+[mu]?s ", shown)
      assert.match("import +Running.- 1 +0 +pid %d+ %(the spec%)", shown)
      assert.match("q quit  s sort  / filter  a all keys  r release", shown)
    end)
  end)

  it("shows rows on a screen of three lines, and of two", function()
    while_held({ "backup" }, function()
      local three = top({ "wait backup", "screen", "send q", "ended exit 0" },
                        { rows = 3 })
      assert.match("1 held.*\n> backup +Running.*\nq quit", three)
      assert.not_match("STATUS", three)
      local two = top({ "wait backup", "screen", "send /k", "wait keys with",
                        "screen", "send \\r", "gone keys with", "size 100 1",
                        "wait 1 held", "send q", "ended exit 0" },
                      { rows = 2 })
      assert.match("1 held.*\n> backup +Running.*\n.*1 held.*\nkeys with: k_",
                   two)
    end)
  end)

  it("shows what is only locked, which has no record", function()
    assert(guard:AcquireLock("lock", 0))
    local shown = top { "wait lock", "screen", "send q", "ended exit 0" }
    assert.match("1 held, 0 failed, 0 records", shown)
    assert.match("> lock +locked +%d+m?s? [^\n]*pid %d+ %(the spec%)", shown)
  end)

  it("shows how far a run is beside the earlier ones, and those",
    function()
      sh "for i in 1 2 3; do eguard run k -- sleep 0.02; done"
      sh "eguard run k -- false"
      guard:RunOnce("k", function()
        local shown = top({ "wait k ", "wait >9x", "screen", "send q",
                            "ended exit 0" }, { columns = 130 })
        assert.match("██████████ +>9x", shown)
        assert.match("[▁▂▃▄▅▆▇█]+×\n", shown)
      end)
    end)

  it("shows what a job says of itself, told apart from a guess", function()
    sh "eguard run guess -- sleep 0.02; eguard run guess -- false"
    while_held({ "guess", "told" }, function()
      assert.is_true(guard:SetProgress("told", 0.429))
      local shown = top { "wait told ", "wait >9x", "screen", "send q",
                          "ended exit 0" }
      assert.match("told +Running +%S+ +████▎[░]+ +42%%", shown)
      assert.match("guess +Running +%S+ +██████████ +>9x", shown)
    end)
  end)

  local function start(key, options)
    return ("sh eguard run %s %s -- sleep 600 & echo $! >%s/pid"):format(
      options or "", key, folder.path)
  end

  it("draws in place: a key that starts and one that ends show", function()
    top { "wait 0 held", start "other", "wait other", "wait 1 held",
          "writes 2", "sh kill $(cat " .. folder.path .. "/pid)",
          "gone other", "wait 0 held", "send q", "ended exit 0" }
  end)

  it("sorts, filters, selects by keys", function()
    sh "for k in ant bee cat; do eguard run $k -- true; done"
    sh "eguard run bee -- false; eguard run bee -- false"
    local shown = top { "wait 0 held", "send a", "wait ant", "send s",
      "wait by key", "send \\e[H", "wait > ant", "screen", "send s",
      "wait by runs", "screen",
      "send /", "wait keys with: _", "send a", "wait keys with: a_",
      "gone bee", "send t", "gone ant", "send \\x7f", "wait ant",
      "send \\r", "wait only *a*", "send /\\e", "wait bee",
      "send \\e[B", "wait > cat", "screen", "send q", "ended exit 0",
      "given back" }
    assert.match("> ant .-  bee .-  cat .-  bee .-> ant .-  cat ",
                 shown)
    assert.match("  ant [^\n]*\n> cat [^>]*$", shown)
  end)

  it("takes a grant when that is answered with yes, and only then",
    function()
      guard:RunOnce("precious", function()
        local asked = "wait Take precious from pid"
        local shown = top { "wait > precious", "send r", asked, "screen",
          "send n", "gone Take", "send r", asked, "send \\r", "gone Take",
          "wait Running", "send r", asked, "send y",
          "wait precious: taken", "wait 0 held", "send q", "ended exit 0" }
        assert.match("Take precious from pid %d+ %(the spec%), who has had " ..
          "it for %S+ %(token %d+%)%? y/N", shown)
        assert.is_true(ExecutionGuard.expired())
      end)
      assert.match("broken by force by ", guard:GetRecord "precious".error)
    end)

  it("breaks no grant that came after the one that was seen", function()
    top { start "k", "wait > k", "send r", "wait Take k from",
          ("sh kill $(cat %s/pid)"):format(folder.path), start("k", "--wait"),
          "wait Take k from", "sh until eguard show k | " ..
          "grep -q '^held by'; do sleep 0.02; done", "send y",
          "wait k: that grant is over; nothing was changed", "wait 1 held",
          "send q", "ended exit 0" }
    sh("kill $(cat " .. folder.path .. "/pid)")
  end)

  for _, case in ipairs {
    { "q", "send q", "exit 0" },
    { "control-C", "send \\x03", "signal 2" },
    { "TERM", "signal TERM", "signal 15" },
    { "HUP", "signal HUP", "signal 1" },
    { "QUIT", "signal QUIT", "signal 3" },
  } do
    it("gives the terminal back after " .. case[1], function()
      top { "wait records", case[2], "ended " .. case[3], "given back" }
    end)
  end

  it("gives the terminal back while it is stopped, and goes on", function()
    guard:RunOnce("k", function()
      top { "wait k ", "send \\x1a", "stopped", "given back", "signal CONT",
            "wait k ", "signal TSTP", "stopped", "given back",
            "signal CONT", "wait k ", "send q", "ended exit 0", "given back" }
    end)
  end)

  it("fits another size at once, down to a very small one", function()
    guard:RunOnce("a key of some length", function()
      local shown = top({ "wait HELD BY", "size 50 6", "gone WAIT",
        "wait Running", "screen", "size 12 3", "gone Running", "size 1 1",
        "writes 1", "size 130 20", "wait LAST", "send q", "ended exit 0" },
        { arguments = "--interval=0.1" })
      for line in shown:gmatch "[^\n]+" do
        assert.is_true(utf8.len(line) <= 50, line)
      end
    end)
  end)

  it("draws in ASCII, and without colours, where that is asked for",
    function()
      guard:RunOnce("k\u{fc}", function()
        local steps = { "wait k? ", "screen", "send q", "ended exit 0" }
        for _, options in ipairs { { locale = "C" },
          { arguments = "--ascii" } } do
          assert.is_nil(top(steps, options):find "[^\n\32-\126]")
        end
      end)
      local steps = { "wait records", "coloured", "send q", "ended exit 0" }
      top(steps)
      steps[2] = "plain"
      top(steps, { environment = "NO_COLOR=1" })
    end)

  it("escapes what keys and owners would tell the terminal", function()
    guard:RunOnce("k\27[2J\27]0;x\7", function()
      top { [[wait k\x1b[2J\x1b]0;x\x07  Running]], "writes 2", "send q",
            "ended exit 0" }
    end)
  end)

  it("prints the table once where there is no terminal", function()
    sh "eguard run done -- true"
    guard:RunOnce("k", function()
      local result = sh "eguard top"
      assert.equal(0, result.status)
      assert.match("^  KEY +STATUS +FOR [^\n]+\n  k +Running [^\n]+\n$",
                   result.out)
      assert.is_nil(result.out:find "\27")
      assert.match("\n  done +Completed ", sh "eguard top --all".out)
      for line in sh "COLUMNS=40 eguard top -a".out:gmatch "[^\n]+" do
        assert.is_true(#line <= 40)
      end
    end)
    assert.equal("", sh "TERM=dumb eguard top | grep -v KEY".out)
  end)

  it("counts who waits for a key, where the kernel tells", function()
    guard:RunOnce("k", function()
      local waits = sh("COLUMNS=100 eguard top").out:match(
        "Running +%S+ +(%S+)")
      if waits == "-" then return end -- no /proc/locks here
      assert.equal("0", waits)
      sh(("for i in 1 2; do eguard run --wait k -- true & echo $! " ..
        ">>%s/pids; done >/dev/null 2>&1"):format(folder.path))
      assert.is_true(shell.comes(folder,
        "COLUMNS=100 eguard top | grep -Eq 'Running +[^ ]+ +2 '"))
      sh("kill $(cat " .. folder.path .. "/pids)")
    end)
  end)
end)
