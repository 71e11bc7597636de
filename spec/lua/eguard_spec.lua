-- SPDX-License-Identifier: MIT
-- eguard's commands beside run.

local shell = require "support.shell"
local ExecutionGuard = require "executionguard"

describe("eguard", function()
  local folder

  before_each(function() folder = shell.folder() end)
  after_each(function() folder:remove() end)

  local function sh(command) return shell.run(folder, command) end
  local function json(command) return shell.json(sh(command).out) end

  local function hold(key, options)
    sh(("eguard run %s %s -- sleep 600 >/dev/null 2>&1 & " ..
      "echo $! >%s/pid"):format(options or "", key, folder.path))
    assert.is_true(shell.comes(folder,
      "eguard show " .. key .. " 2>/dev/null | grep -q '^held by'"))
    return shell.read(folder.path .. "/pid"):match "%d+"
  end

  local function holder_gone(pid)
    return shell.comes(folder, "! kill -0 " .. pid .. " 2>/dev/null || " ..
      "grep -q '^State:.Z' /proc/" .. pid .. "/status")
  end

  local function end_holder(pid)
    sh("kill " .. pid)
    assert.is_true(holder_gone(pid))
  end

  describe("ls", function()
    it("lists by pattern, sorted, tabs and bare times in a pipe", function()
      for _, key in ipairs { "b-2", "a", "b-1" } do
        sh("eguard run " .. key .. " -- true")
      end
      sh "eguard run c -- sh -c 'exit 2'"
      local all = sh "eguard ls".out
      assert.match("^a\tCompleted\t%d+%-%d+%-%d+T[%d:.]+Z\t%d+%.%d+\t1\t\n" ..
        "b%-1", all)
      assert.match("\nc\tFailed\t.-\texit status 2\n$", all)
      local some = sh "eguard ls 'b-*' | cut -f 1".out
      assert.equal("b-1\nb-2\n", some)
      assert.equal("a\n", sh "eguard ls -n 1 | cut -f 1".out)
      assert.equal("", sh "eguard ls nothing".out)
      assert.is_nil(all:find "\27")
    end)

    it("shows locks of keys that have no record, while they last", function()
      local guard <close> = ExecutionGuard.new { store = folder.store,
                                                 owner = "the spec" }
      local _, token = guard:AcquireLock "l"
      assert.match("^l\tlocked\t%d+%-%d+%-[%dT:.]+Z\t%d+%.%d+\t0\t" ..
        "pid %d+ %(the spec%)\n$", sh "eguard ls".out)
      local list = json "eguard ls --json"
      assert.is_true(list[1].onlyLocked)
      assert.equal(token, list[1].token)
      assert.equal("the spec", list[1].owner.text)
      assert.match("status +locked %(there is no record%)",
                   sh "eguard show l".out)
      local sums = json "eguard summary --json"
      assert.same({ 0, 1, 1 }, { sums.totalRecords, sums.held,
                                 sums.onlyLocked })
      assert.match("Held Now +1 ║\n║ +Without A Record +1",
                   sh "LC_ALL=C.UTF-8 eguard summary".out)
      assert.match("0 records, 1 held now", sh "eguard doctor".out)
      guard:ReleaseLock "l"
      assert.equal("", sh "eguard ls".out)
    end)

    it("shows on a terminal columns, and colours unless NO_COLOR is set",
      function()
        sh "eguard run k -- false"
        local on = "TERM=xterm script -qec 'eguard ls' /dev/null"
        local shown = sh(on).out
        assert.match("KEY +STATUS +SINCE", shown)
        assert.match("\27%[31mFailed\27%[0m", shown)
        assert.is_nil(shown:find "\t")
        assert.is_nil(sh("NO_COLOR=1 " .. on).out:find("\27[31m", 1, true))
        assert.match("Failed", sh("TERM=dumb " .. on).out)
      end)

    it("lets a long key stick out, and shift no line but its own", function()
      local long = ("x"):rep(300)
      sh("eguard run k -- true; eguard run " .. long .. " -- true")
      local text = sh "script -qec 'eguard ls' /dev/null".out
      assert.match("\nk   +\27?[^ ]*Completed", text)
      assert.is_nil(text:find((" "):rep(60), 1, true))
      assert.match(long .. "  \27?[^ ]*Completed", text)
    end)

    it("prints no control characters of keys and errors", function()
      local guard <close> = ExecutionGuard.new { store = folder.store }
      guard:RunOnce("k\27[31m\n", function() error("\7\27]0;x\7", 0) end)
      local text = sh "eguard ls".out
      assert.is_nil(text:find "[\27\7]")
      assert.match("k\\x1b%[31m\\x0a", text)
    end)
  end)

  describe("--json", function()
    it("is JSON everywhere", function()
      sh "eguard run 'a \"key\"' -- true; eguard run b -- sh -c 'exit 2'"
      local list = json "eguard ls --json"
      assert.equal(2, #list)
      assert.equal('a "key"', list[1].key)
      assert.equal("exit status 2", list[2].error)
      assert.equal(shell.null, list[1].owner)
      assert.same({}, json "eguard ls --json nothing")
      assert.equal("b", json("eguard show --json b").key)
      assert.equal(shell.null, json "eguard show --json absent")
      local history = json "eguard history --json"
      assert.equal("b", history[1].key)
      assert.equal("Failed", history[1].status)
      assert.equal(2, history[1].exitStatus)
      assert.equal("eguard", history[1].owner)
      assert.equal(0, history[2].exitStatus)
      assert.equal(1, #json "eguard history --json -n 1")
      assert.equal(1, #json "eguard history --json b")
      local sums = json "eguard summary --json"
      assert.equal(2, sums.totalRecords)
      assert.equal(1, sums.byStatus.Failed)
      assert.equal("Idle", json("eguard reset --json b").status)
      assert.is_false(json("eguard release --json b").released)
      assert.is_false(json("eguard wait --json b").locked)
      assert.equal("table", type(json "eguard version --json".stores))
      for _, check in ipairs(json "eguard doctor --json") do
        assert.match("^%a+$", check.check)
        assert.is_true(check.verdict == "ok" or check.verdict == "note")
      end
    end)

    it("shows results of Lua, and bytes that are no UTF-8", function()
      local guard <close> = ExecutionGuard.new { store = folder.store }
      guard:RunOnce("k\255", function()
        return { 1, -1, 2.5, true, "\u{e9}\255\n\"", { a = { [3] = "x" } } }
      end)
      local record = json("eguard show --json " .. shell.quote "k\255")
      assert.equal("k\u{fffd}", record.key)
      assert.same({ 1, -1, 2.5, true, "\u{e9}\u{fffd}\n\"",
                    { a = { ["3"] = "x" } } }, record.result)
    end)
  end)

  it("show tells who holds a key, and since when", function()
    local pid = hold("k", "--owner='the night job'")
    local text = sh "eguard show k".out
    assert.match("held by +pid " .. pid .. " %(the night job%)", text)
    assert.match("since +%d+%-", text)
    local record = json "eguard show --json k"
    assert.is_true(record.locked)
    assert.equal(tonumber(pid), record.owner.pid)
    assert.equal("Running", record.status)
    end_holder(pid)
  end)

  it("wait ends when the key is free, or with 124", function()
    local pid = hold "k"
    local late = sh "eguard wait --timeout=50ms k"
    assert.equal(124, late.status)
    assert.match("still held by pid " .. pid, late.err)
    sh("(eguard wait k; echo $? >" .. folder.path .. "/waited) &")
    end_holder(pid)
    assert.is_true(shell.comes(folder,
      "grep -q 0 " .. folder.path .. "/waited"))
    assert.equal(0, sh "eguard wait absent".status)
  end)

  it("reset says who loses the key", function()
    local pid = hold "k"
    local result = sh "eguard reset k"
    assert.equal(0, result.status)
    assert.match("k is held by pid " .. pid .. ", which loses it", result.err)
    end_holder(pid)
    assert.equal("", sh "eguard reset k".err)
  end)

  describe("release", function()
    it("takes nothing from the living, and says how it could", function()
      local pid = hold "k"
      local token = json("eguard show --json k").token
      local result = sh "eguard release k"
      assert.equal(75, result.status)
      assert.match(("--token=%d --store="):format(token):gsub("%-", "%%-"),
        result.err)
      assert.equal(64, sh "eguard release --force k".status)
      assert.equal(75, sh "eguard release --force --token=1 k".status)
      assert.equal(token, json("eguard show --json k").token)
      end_holder(pid)
      assert.equal(0, sh "eguard release k".status)
    end)

    it("--force moves the token on: the holder's outcome is refused",
      function()
        sh(("eguard run k -- sh -c 'until [ -e %s/go ]; do sleep 0.02; " ..
          "done' 2>%s/holder & echo $! >%s/pid"):format(folder.path,
          folder.path, folder.path))
        assert.is_true(shell.comes(folder,
          "eguard show k 2>/dev/null | grep -q '^held by'"))
        local token = json("eguard show --json k").token
        local inode = "stat -c %i " .. folder.path .. "/store/locks/k.lock"
        local before = sh(inode).out
        assert.equal(0,
          sh("eguard release --force --token=" .. token .. " k").status)
        local record = json "eguard show --json k"
        assert.is_true(record.token > token)
        assert.equal("Failed", record.status)
        assert.match("^broken by force by .*uid %d+", record.error)
        assert.match("broken by force", sh("eguard history k").out)
        -- the key is free though the old command goes on
        assert.is_true(shell.comes(folder, "eguard run -q k -- true"))
        sh("touch " .. folder.path .. "/go")
        assert.is_true(shell.comes(folder,
          "grep -q 'not recorded' " .. folder.path .. "/holder"))
        assert.equal("Completed", json("eguard show --json k").status)
        assert.equal(before, sh(inode).out)
      end)

    it("--kill ends the holder and all that it runs", function()
      local pid = hold "k"
      local token = json("eguard show --json k").token
      local result = sh("eguard release --force --kill --token=" .. token ..
        " k")
      assert.equal(0, result.status)
      assert.match("sending TERM to pid " .. pid, result.err)
      assert.is_true(holder_gone(pid))
      assert.equal(0, sh "eguard run --wait=1m k -- true".status)
    end)

    it("--kill never takes another container's number for one of ours",
      function()
        -- in there eguard is 1, here 1 is the whole machine's first process
        local inside = "unshare --fork --pid --mount-proc " ..
          (sh "id -u".out == "0\n" and "" or "--map-root-user ")
        if sh(inside .. "true").status ~= 0 then -- in a chroot, for one
          pending "left out: no /proc of its own for a container here"
          return
        end
        sh(("%s eguard run k -- sh -c " ..
          "'until [ -e %s/go ]; do sleep 0.02; done' &"):format(inside,
          folder.path))
        assert.is_true(shell.comes(folder,
          "eguard show k 2>/dev/null | grep -q '^held by'"))
        local record = json "eguard show --json k"
        assert.is_true(record.owner.pid < 10)
        assert.equal(75, sh "eguard run k -- true".status)
        local result = sh("eguard release --force --kill --token=" ..
          record.token .. " k")
        assert.equal(125, result.status)
        assert.match("no process that can be seen here", result.err)
        assert.equal(record.token, json("eguard show --json k").token)
        sh("touch " .. folder.path .. "/go; eguard wait k")
        assert.equal("Completed", json("eguard show --json k").status)
      end)

    it("asks on a terminal for the token", function()
      local pid = hold "k"
      local token = json("eguard show --json k").token
      -- script ends when its input does
      local function ask(answer)
        return sh(("cd %s; rm -f in log; mkfifo in; script -qefc 'eguard " ..
          "release --force k; echo st=$?' log <in >shown & exec 3>%s/in; " ..
          "cd %s; until grep -q 'break the grant' shown; do sleep 0.02; " ..
          "done; echo %s >&3; until grep -q st= shown; do sleep 0.02; done;" ..
          " exec 3>&-; wait; cat shown"):format(folder.path, folder.path,
          folder.path, answer)).out
      end
      assert.match("st=75", ask "1")
      local right = ask(token)
      assert.match("type it to break the grant", right)
      assert.match("st=0", right)
      end_holder(pid)
    end)
  end)

  it("summary counts records, and all runs", function()
    sh "eguard run a -- true; eguard run b -- false; eguard run b -- true"
    sh "eguard run --timeout=1 c -- sleep 60" -- longer than a `true` takes
    local text = sh "eguard summary --ascii".out
    for what, n in pairs { ["Total Records"] = 3, Completed = 2, TimedOut = 1,
      ["Total Executions"] = 4, Failed = 1, ["Timed Out"] = 1, Lost = 0 } do
      assert.match("| +" .. what .. " +" .. n .. " |\n", text)
    end
    assert.match("\nSlowest keys [^\n]+\n  c ", text)
    assert.match("\nFailing keys [^\n]+\n  b +1/2 +#+ +x@\n  c +1/1 ", text)
    text = sh "eguard summary --json".out
    assert.match('"executions":4,"failed":1,"timedOut":1,"lost":0,', text)
    assert.match('"runTime":{"runs":4,"total":%d+%.%d+,"p50":%d', text)
    local summary = shell.json(text)
    assert.equal("c", summary.slowest[1].key)
    assert.equal("b", summary.failing[1].key)
    assert.equal(2, summary.failing[1].executionCount)
    assert.equal(1, #json("eguard summary --json --top=1").failing)
  end)

  it("refused runs are counted, by key", function()
    local pid = hold "k"
    assert.equal(75, sh "eguard run k -- true".status)
    sh("kill " .. pid)
    local record = json "eguard show --json k"
    assert.equal(1, record.blocked)
    assert.equal(0, record.cached)
    assert.equal(0, record.waitTime.waits)
    assert.match("other calls +%d+ blocked, 0 cached\n",
                 sh "eguard show k".out)
    assert.equal(record.blocked, json("eguard summary --json").blocked)
  end)

  it("one that waited and ran is no refused call, and one wait", function()
    local pid = hold "k"
    sh(("eguard run -v --wait k -- true 2>%s/said & w=$!; until grep -q " ..
      "waiting %s/said; do sleep 0.01; done; kill %s; wait $w"):format(
      folder.path, folder.path, pid))
    local record = json "eguard show --json k"
    assert.equal(2, record.executionCount)
    assert.equal(0, record.blocked)
    assert.equal(1, record.waitTime.waits)
  end)

  it("show says what came of all runs of a key", function()
    sh "eguard run k -- false; for i in 1 2 3; do eguard run k -- true; done"
    local text = sh "eguard show k".out
    assert.match("executions  4 %(1 failed, 0 timed out, 0 lost%)\n", text)
    assert.match("all took +half within %S+, 95%% within", text)
    assert.match('"executionCount":4,"failed":1,"timedOut":0,"lost":0,',
                 sh "eguard show --json k".out)
  end)

  describe("doctor", function()
    it("finds a healthy store well", function()
      sh "eguard run k -- true"
      local result = sh "eguard doctor"
      assert.equal(0, result.status)
      for _, what in ipairs { "store", "records", "clock", "filesystem",
        "permissions", "disk", "flock" } do
        assert.match("ok +" .. what, result.out)
      end
    end)

    it("says what is wrong, and what to do", function()
      sh "eguard run k -- true; chmod 0777 $(dirname $PWD) 2>/dev/null; true"
      sh("chmod 0777 " .. folder.path .. "/store")
      local result = sh "eguard doctor"
      assert.equal(1, result.status)
      assert.match("bad +permissions", result.out)
      assert.match("%-> chmod 0700", result.out)
    end)

    it("names what is in the way with its folder", function()
      local odd = folder.path .. "/odd"
      sh(("mkdir -m 0700 %s; touch %s/locks"):format(odd, odd))
      local result = sh("eguard doctor --store=file:" .. odd)
      assert.is_truthy(result.out:find("cannot open " .. odd .. "/locks: ", 1,
                                       true))
    end)

    it("says how to mend a damaged guard.shm", function()
      sh "eguard run k -- true"
      local path = folder.path .. "/store/guard.shm"
      local file <close> = assert(io.open(path, "r+b"))
      file:seek("set", 4096)
      file:write(("\x7f"):rep(65536))
      file:flush()
      local result = sh "eguard doctor"
      assert.equal(1, result.status)
      assert.match("guard.shm is damaged: remove it .-\n +%-> mend what",
                   result.out)
      os.remove(path)
      assert.equal("Completed", json "eguard show --json k".status)
    end)

    it("finds runs whose owner died", function()
      -- both, and neither sees the other die: nobody is left to clean up
      sh(("eguard run k -- sh -c 'echo $$ >%s/command; exec sleep 600' & " ..
        "p=$!; until [ -s %s/command ]; do sleep 0.02; done; " ..
        "all=\"$p $(pgrep -P $p)\"; kill -STOP $all; kill -9 $all; " ..
        "kill -9 $(cat %s/command)"):format(
        folder.path, folder.path, folder.path))
      assert.is_true(shell.comes(folder,
        "eguard doctor | grep -q 'left-overs.*for example of k'"))
      assert.equal(0, sh "eguard run k -- true".status)
    end)
  end)

  describe("doctor --rebuild", function()
    it("does nothing where nothing is wrong, or where there is no database",
      function()
        sh "eguard run k -- true"
        local whole = sh "eguard doctor --rebuild"
        assert.equal(0, whole.status)
        assert.match("nothing was done", whole.out)
        assert.is_true(json("eguard doctor --rebuild --json").whole)
        assert.equal(125, sh "eguard doctor --rebuild --store=memory".status)
      end)

    it("recovers what can be read, and blocks the rest", function()
      sh("for i in $(seq 100); do eguard run --once k$i -- true; done; " ..
        "cd " .. folder.path .. "/store; " ..
        "sqlite3 guard.db 'pragma wal_checkpoint(truncate)'; " ..
        -- pages 3 to 5: some of the records and of the history
        "dd if=/dev/urandom of=guard.db bs=4096 seek=2 count=3 conv=notrunc")
      local broken = sh "eguard doctor"
      assert.equal(1, broken.status)
      assert.match("bad +records.*%-> eguard doctor %-%-rebuild", broken.out)
      local rebuilt = json "eguard doctor --rebuild --json"
      assert.is_false(rebuilt.whole)
      assert.equal(100, rebuilt.records + rebuilt.blocked)
      assert.is_true(rebuilt.blocked > 0)
      assert.equal(0, sh("test -f " .. folder.path .. "/store/" ..
        rebuilt.kept).status)
      -- what was done is not run again, what is in doubt waits for somebody
      local blocked = 0
      for _, record in ipairs(json "eguard ls --json") do
        local run = "eguard run --once " .. record.key .. " -- echo ran"
        if record.corrupt then
          blocked = blocked + 1
          if blocked == 1 then
            assert.equal(125, sh(run).status)
            assert.match("cannot be read", sh("eguard ls").out)
            assert.match("note +left%-overs", sh("eguard doctor").out)
            sh("eguard reset " .. record.key)
            assert.equal("ran\n", sh(run).out)
          end
        elseif blocked < 2 then
          assert.equal("", sh(run).out)
        end
      end
      assert.equal(rebuilt.blocked, blocked)
      assert.equal(rebuilt.blocked - 1, json("eguard summary --json").corrupt)
    end)
  end)

  it("chooses the store: option, environment, the user's state", function()
    local function store_of(environment)
      return sh(environment .. " eguard doctor | head -n 1").out
    end
    assert.match("memory", store_of "EXECUTIONGUARD_STORE=memory")
    assert.match("memory", sh "eguard doctor --store=memory".out)
    -- root has a place of its own, which is left alone here
    local user = ""
    if sh "id -u".out == "0\n" then
      user = "setpriv --reuid=65534 --regid=65534 --clear-groups "
      sh("chmod 0777 " .. folder.path)
    end
    local function own(environment)
      return store_of(user .. "env EXECUTIONGUARD_STORE= " .. environment)
    end
    assert.match(folder.path .. "/state/executionguard",
      own("XDG_STATE_HOME=" .. folder.path .. "/state"))
    assert.match(folder.path .. "/.local/state/executionguard",
      own("XDG_STATE_HOME= HOME=" .. folder.path))
    assert.match(folder.path .. "/.local/state/executionguard",
      own("XDG_STATE_HOME=relative HOME=" .. folder.path))
    assert.match("no store: HOME is not set", sh(user ..
      "env -u HOME -u XDG_STATE_HOME -u EXECUTIONGUARD_STORE eguard ls").err)
    assert.equal(64, sh "eguard ls --store=nothing:x".status)
    assert.match("/srv/jobs is no URL .- file:DIR",
                 sh "EXECUTIONGUARD_STORE=/srv/jobs eguard ls".err)
    assert.match("file:~/x: .- file:$HOME",
                 sh "EXECUTIONGUARD_STORE='file:~/x' eguard ls".err)
  end)

  it("keeps namespaces apart", function()
    sh "eguard run --name=n k -- true"
    assert.equal(1, sh "eguard show k".status)
    assert.equal(0, sh "eguard show --name=n k".status)
  end)
end)
