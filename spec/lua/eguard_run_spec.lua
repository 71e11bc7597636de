-- SPDX-License-Identifier: MIT
-- eguard run: what it says, stores and returns, with real processes.

local shell = require "support.shell"
local ExecutionGuard = require "executionguard"

describe("eguard run", function()
  local folder

  before_each(function() folder = shell.folder() end)
  after_each(function() folder:remove() end)

  local function sh(command) return shell.run(folder, command) end

  local function status_of(command) return sh(command).status end

  local function show(key)
    return shell.json(sh("eguard show --json " .. shell.quote(key)).out)
  end

  -- Begins a run that goes on until folder/go is there, in the background.
  local function hold(key, options)
    sh(("eguard run %s %s -- sh -c 'until [ -e %s/go ]; do sleep 0.02; " ..
      "done' >/dev/null 2>&1 & echo $! >%s/pid"):format(options or "", key,
      folder.path, folder.path))
    assert.is_true(shell.comes(folder,
      "eguard show " .. key .. " 2>/dev/null | grep -q '^held by'"))
  end

  local function let_go(key)
    sh("touch " .. folder.path .. "/go; eguard wait " .. key)
  end

  describe("exit status", function()
    it("is the command's", function()
      assert.equal(0, status_of "eguard run k -- true")
      assert.equal(7, status_of "eguard run k -- sh -c 'exit 7'")
    end)

    it("is 128+n when signal n ended it", function()
      assert.equal(137, status_of "eguard run k -- sh -c 'kill -9 $$'")
      assert.equal(143, status_of "eguard run k -- sh -c 'kill $$'")
    end)

    it("is 127 when it is not found, 126 when it cannot be run", function()
      local missing = sh "eguard run k -- /nowhere/at-all"
      assert.equal(127, missing.status)
      assert.match("/nowhere/at%-all", missing.err)
      assert.equal(126, status_of("eguard run k -- " .. folder.path))
      assert.equal("Failed", show("k").status)
    end)

    it("is 64 for wrong usage, which changes nothing", function()
      for _, words in ipairs { "run", "run k true", "run -- true", "run k --",
        "run --no-such k -- true", "run --timeout=soon k -- true", "nonsense",
        "run --timeout k -- true", "run a b -- true", "show", "show a b",
        "run --delay=1s k -- true", "run --no-record --once k -- true",
        "run --conflict-exit-code=256 k -- true", "ls --rerun",
        "run --kill-after=1s k -- true", "run --once=yes k -- true",
        "completion tcsh", "release --kill k", "run --retry=x k -- true",
        "run --cache --cache-limit=513M k -- true" } do
        local result = sh("eguard " .. words)
        assert.equal(64, result.status, words)
        assert.match("^eguard: .+\n$", result.err)
        assert.equal("", result.out)
      end
      assert.equal(64, status_of "eguard")
      assert.equal(1, status_of "eguard show k")
    end)

    it("is 125 when eguard itself cannot", function()
      local file = folder.path .. "/file"
      assert.equal(125,
        status_of("touch " .. file .. "; eguard run --store=file:" .. file ..
          " k -- true"))
    end)
  end)

  describe("the key", function()
    it("is the word right before the --, whatever it looks like", function()
      for _, key in ipairs { "--wait", "-q", "--", "-", "a b", "../x", "*",
        "\u{e4}", "" } do
        local command = ("eguard run %s -- echo ran"):format(shell.quote(key))
        if key == "--" or key == "" then
          assert.is_true(status_of(command) >= 64)
        else
          assert.equal("ran\n", sh(command).out, key)
          assert.equal("Completed",
            shell.json(sh("eguard show --json -- " ..
              shell.quote(key)).out).status)
        end
      end
    end)

    it("is what the command may look like", function()
      assert.equal("--once -- k\n", sh "eguard run k -- echo --once -- k".out)
    end)
  end)

  it("runs scripts that do not say by what", function()
    local file = assert(io.open(folder.path .. "/script-of-mine", "w"))
    file:write "echo ran: $*\n"
    file:close()
    sh("chmod +x " .. folder.path .. "/script-of-mine")
    assert.equal("ran: a b\n",
      sh("eguard run k -- " .. folder.path .. "/script-of-mine a b").out)
    assert.equal("ran: c\n", sh("PATH=$PATH:" .. folder.path ..
      "; eguard run k -- script-of-mine c").out)
  end)

  it("hands key, token and store to the command", function()
    local result = sh("eguard run 'a key' -- sh -c 'echo " ..
      "\"$EXECUTIONGUARD_KEY|$EXECUTIONGUARD_TOKEN|$EXECUTIONGUARD_STORE\"'")
    local key, token, store = result.out:match "^(.-)|(%d+)|(.-)\n$"
    assert.equal("a key", key)
    assert.equal(show("a key").token, tonumber(token))
    assert.equal(folder.store, store)
    local moved = sh("cd " .. folder.path .. " && eguard run " ..
      "--store=file:x k -- sh -c 'echo $EXECUTIONGUARD_STORE'")
    assert.equal("file:" .. folder.path .. "/x\n", moved.out)
  end)

  it("does not hand its descriptors to the command", function()
    local plain = sh "ls /proc/self/fd | wc -l; true"
    assert.equal(plain.out, sh "eguard run k -- ls /proc/self/fd | wc -l".out)
    assert.equal("passed\n", sh(("exec 7>%s/seven; eguard run k -- " ..
      "sh -c 'echo passed >&7'; cat %s/seven"):format(folder.path,
      folder.path)).out)
  end)

  it("writes no message into what it has open", function()
    assert.equal(0, status_of "eguard run -v k -- true 2>&- >&- <&-")
    hold "k"
    assert.equal(75, status_of "eguard run k -- true 2>&- >&- <&-")
    let_go "k"
    assert.equal(0, status_of "eguard doctor")
    assert.equal(125, status_of "eguard ls >&-")
    assert.equal(125, status_of "eguard ls >/dev/full")
    assert.equal(125, status_of "eguard run --cache c -- echo x >/dev/full")
    assert.equal("x\n", sh("eguard run --cache c -- echo x").out)
    local replay = sh "eguard run --cache c -- echo x >/dev/full"
    assert.equal(125, replay.status)
    assert.match("what it had said could not be written", replay.err)
  end)

  it("passes input and output through", function()
    local result = sh "echo in | eguard run k -- sh -c 'cat; echo err >&2'"
    assert.equal("in\n", result.out)
    assert.equal("err\n", result.err)
  end)

  it("passes on each signal that is sent to it alone", function()
    -- A shell's background jobs ignore INT and QUIT: env undoes that.
    local result = sh("cd " .. folder.path .. [[; cat >command <<'END'
for s in HUP INT QUIT USR1 USR2 WINCH TERM; do trap "echo $s >>got" $s; done
echo ready >got
until [ -e go ]; do sleep 0.02; done
END
      env --default-signal=INT,QUIT eguard run k -- sh command & p=$!
      until grep -q ready got 2>/dev/null; do sleep 0.01; done
      for s in HUP INT QUIT USR1 USR2 WINCH TERM; do
        kill -$s $p
        until grep -q $s got; do sleep 0.01; done
      done
      touch go; wait $p]])
    assert.equal("", result.err)
    assert.equal(0, result.status)
    assert.equal("Completed", show("k").status)
    assert.equal("ready\nHUP\nINT\nQUIT\nUSR1\nUSR2\nWINCH\nTERM\n",
                 shell.read(folder.path .. "/got"))
  end)

  it("runs a Completed or Failed key again", function()
    for i = 1, 3 do
      sh("eguard run k -- sh -c 'exit " .. (i % 2) .. "'")
      assert.equal(i, show("k").executionCount)
    end
    assert.equal("Failed", show("k").status)
    assert.equal("exit status 1", show("k").error)
  end)

  it("says in one line who runs it already, and exits with 75", function()
    sh "eguard run k -- true"
    hold("k", "--owner='the night job'")
    local result = sh "eguard run k -- echo ran"
    local pid = shell.read(folder.path .. "/pid"):match "%d+"
    assert.equal(75, result.status)
    assert.equal("", result.out)
    local _, lines = result.err:gsub("\n", "")
    assert.equal(1, lines)
    for _, part in ipairs { "k is running", "pid " .. pid, "the night job",
      "since %d%d%d%d%-%d%d%-%d%d ", "the last runs took %d", folder.store,
      "eguard release %-%-force %-%-store=" } do
      assert.match(part, result.err)
    end
    -- the command that would clear it can be pasted, and then asks
    local hint = result.err:match "to clear it: (.-)\n"
    assert.match("token=%d+ .*%-%-store=", sh(hint).err)
    local quiet = sh "eguard run -q --conflict-exit-code=9 k -- echo ran"
    assert.equal(9, quiet.status)
    assert.equal("", quiet.err)
    assert.equal(0, status_of "eguard run other -- true")
    let_go "k"
  end)

  it("waits for a run that is going on", function()
    hold "k"
    assert.equal(75, status_of "eguard run --wait=100ms k -- true")
    sh("(eguard run --wait k -- echo second >" .. folder.path ..
      "/second) & echo $! >" .. folder.path .. "/waiter; sleep 0.2")
    assert.equal("", shell.read(folder.path .. "/second") or "")
    let_go "k"
    assert.is_true(shell.comes(folder,
      "grep -q second " .. folder.path .. "/second"))
    assert.is_true(shell.comes(folder,
      "eguard show k | grep -q '^executions *2'"))
  end)

  it("does not wait for itself", function()
    local result = sh "eguard run k -- eguard run --wait k -- true"
    assert.equal(75, result.status)
    assert.match("runs this very command", result.err)
    assert.equal(75,
      status_of "eguard run k -- eguard run l -- eguard run --wait k -- true")
    local far = sh(("eguard run k -- eguard run --wait --store=file:%s/far " ..
      "k -- echo another"):format(folder.path))
    assert.equal("another\n", far.out)
  end)

  it("can be started where the limit of files or the umask is small",
    function()
      -- a file as output would be under the limit, too
      local result = sh("(ulimit -f 0; eguard run k -- echo ran; " ..
        "echo $?) 2>&1 | cat")
      assert.match("File too large.-\n125\n$", result.out)
      -- the command has the limit, and the signal that goes with it, as it was
      result = sh(("(ulimit -f 4000; eguard run k -- sh -c 'exec head " ..
        "-c 4000000 /dev/zero >%s/x'; echo $?) 2>/dev/null | cat"):format(
        folder.path))
      assert.equal((128 + 25) .. "\n", result.out)
      assert.equal(0, status_of(("umask 0177; eguard run --store=file:" ..
        "%s/a/b k -- true"):format(folder.path)))
      assert.equal("700 700\n", sh(("stat -c %%a %s/a %s/a/b | xargs"):format(
        folder.path, folder.path)).out)
    end)

  describe("--once", function()
    it("runs until exit status 0, and then never again", function()
      local runs = "eguard run --once k -- sh -c "
      assert.equal(3, status_of(runs .. "'exit 3'"))
      assert.equal("hi\n", sh(runs .. "'echo hi'").out)
      local done = sh(runs .. "'echo hi; exit 9'")
      assert.equal(0, done.status)
      assert.equal("", done.out)
      assert.match("^eguard: k is done already.-\n$", done.err)
      assert.equal("", sh "eguard run --once -q k -- echo hi".err)
      local again = "eguard run --once --rerun k -- echo again"
      assert.equal("again\n", sh(again).out)
      sh "eguard reset k"
      assert.equal("anew\n", sh "eguard run --once k -- echo anew".out)
    end)
  end)

  it("cools down", function()
    assert.equal(0, status_of "eguard run --cooldown=1h k -- true")
    local result = sh "eguard run k -- echo ran"
    assert.equal(75, result.status)
    assert.equal("", result.out)
    assert.match("cooling down; it can run again in 5%dm", result.err)
    assert.equal(0, status_of "eguard run --lock-at-least=1h l -- true")
    assert.equal(75, status_of "eguard run l -- true")
    sh "eguard reset l"
    assert.equal(0, status_of "eguard run l -- true")
  end)

  describe("--retry", function()
    it("tries again, with one grant and one execution", function()
      local count = folder.path .. "/count"
      local fails = ("sh -c 'echo x >>%s; test $(wc -l <%s) -ge 3'"):format(
        count, count)
      assert.equal(1, status_of("eguard run --retry=1 --delay=1ms k -- " ..
        fails))
      assert.equal(0, status_of("eguard run -q --retry=1 --delay=1ms k -- " ..
        fails))
      assert.equal("x\nx\nx\n", shell.read(count))
      local record = show "k"
      assert.equal(2, record.executionCount)
      assert.equal("Completed", record.status)
    end)

    it("doubles the delay with --backoff", function()
      local result = sh "eguard run --retry=3 --delay=1ms --backoff k -- false"
      assert.equal(1, result.status)
      for _, delay in ipairs { "1ms", "2ms", "4ms" } do
        assert.match("again in " .. delay, result.err)
      end
    end)

    it("does not try again once eguard was told to end", function()
      for command, status in pairs {
        ["echo x >>tries; exec sleep 60"] = 143,
        ["trap \"kill \\$!; exit 3\" TERM; sleep 60 & " ..
          "echo x >>tries; wait"] = 3 } do
        local result = sh(("cd %s; rm -f tries; eguard run --retry=3 " ..
          "--delay=1ms k -- sh -c '%s' & p=$!; until test -s tries; " ..
          "do sleep 0.01; done; kill $p; wait $p"):format(folder.path,
          command))
        assert.equal(status, result.status)
        assert.equal("", result.err)
        assert.equal("x\n", shell.read(folder.path .. "/tries"))
      end
    end)

    it("does not try again what is not found or took too long", function()
      assert.is_nil(sh("eguard run --retry=3 k -- /nowhere").err:find "again")
      local late = sh("eguard run --retry=3 --timeout=50ms k -- sleep 60")
      assert.equal(124, late.status)
      assert.is_nil(late.err:find "again")
    end)
  end)

  describe("--timeout", function()
    it("ends the command: 124, and the record says TimedOut", function()
      local result = sh "eguard run --timeout=100ms k -- sleep 60"
      assert.equal(124, result.status)
      assert.match("took longer than 100ms", result.err)
      assert.equal("TimedOut", show("k").status)
      assert.equal(0, status_of "eguard run --timeout=1h k -- true")
    end)

    it("lets it clean up, and kills what does not end", function()
      local polite = sh("eguard run --timeout=300ms k -- sh -c " ..
        "'trap \"echo cleaned; exit 0\" TERM; sleep 60 & wait'")
      assert.equal(124, polite.status)
      assert.equal("cleaned\n", polite.out)
      assert.equal(124, status_of("eguard run --timeout=100ms " ..
        "--kill-after=100ms k -- sh -c 'trap \"\" TERM; " ..
        "while :; do sleep 1; done'"))
    end)

    it("ends all of it, also what ran away", function()
      -- a session of its own, a lost parent, deaf to TERM
      assert.equal(124, status_of(("eguard run --timeout=700ms " ..
        "--kill-after=100ms k -- sh -c '(setsid sh -c \"trap : TERM; " ..
        "echo \\$\\$ >%s/far; while :; do sleep 61; done\" &) ; sleep 61 & " ..
        "sleep 61'"):format(folder.path)))
      local far = shell.read(folder.path .. "/far"):match "%d+"
      assert.is_true(shell.comes(folder,
        "! kill -0 " .. far .. " 2>/dev/null || " ..
        "grep -q '^State:.Z' /proc/" .. far .. "/status"))
    end)
  end)

  describe("--cache", function()
    it("replays both streams in their order, and the exit status", function()
      local command = "eguard run --cache=1h k -- sh -c " ..
        "'for i in 1 2 3 4 5 6 7 8 9; do echo o$i; echo e$i >&2; done; exit 4'"
      local both = sh("{ " .. command .. "; echo $?; } 2>&1").out
      assert.equal("o1 e1 o2 e2 o3 e3 o4 e4 o5 e5 o6 e6 o7 e7 o8 e8 o9 e9 4 ",
        (both:gsub("\n", " ")))
      assert.equal(both, sh("{ " .. command .. "; echo $?; } 2>&1").out)
      local apart = sh(command)
      assert.equal(4, apart.status)
      assert.equal("o1\no2\no3\n", apart.out:sub(1, 9))
      assert.equal("e1\ne2\ne3\n", apart.err:sub(1, 9))
      assert.equal(1, show("k").executionCount)
      assert.equal("Completed", show("k").status)
    end)

    it("is over with its time, and with --rerun", function()
      local command = "eguard run --cache=1ms k -- sh -c " ..
        "'echo x >>" .. folder.path .. "/count'"
      sh(command .. "; sleep 0.1;" .. command)
      assert.equal("x\nx\n", shell.read(folder.path .. "/count"))
      assert.equal("a\n", sh "eguard run --cache c -- echo a".out)
      assert.equal("a\n", sh "eguard run --cache c -- echo b".out)
      assert.equal("b\n", sh "eguard run --cache --rerun c -- echo b".out)
      assert.equal("b\n", sh "eguard run --cache c -- echo c".out)
    end)

    it("does not take what a run without it left for its own", function()
      sh "eguard run k -- true"
      assert.equal("a\n", sh "eguard run --cache k -- echo a".out)
    end)

    it("says what is too large, passes it on, and does not keep it",
      function()
        local command = "eguard run --cache --cache-limit=1K k -- " ..
          "sh -c 'head -c 5000 /dev/zero'"
        for _ = 1, 2 do
          local result = sh(command)
          assert.equal(5000, #result.out)
          assert.match("more than 1024 bytes; that is not cached", result.err)
        end
        assert.equal(2, show("k").executionCount)
      end)

    it("keeps bytes of any kind", function()
      local command = "eguard run --cache k -- printf '\\000\\377\\n\\\"'"
      assert.equal("\0\255\n\"", sh(command).out)
      assert.equal("\0\255\n\"", sh(command).out)
      local guard <close> = ExecutionGuard.new { store = folder.store }
      local kept = guard:GetResult "k"
      assert.same({ eguard = 1, status = 0,
                    output = { { 1, "\0\255\n\"" } } }, kept)
      assert.equal("table", type(show("k").result.output))
    end)
  end)

  describe("--no-record", function()
    it("excludes others and leaves nothing", function()
      hold("k", "--no-record")
      assert.equal(75, status_of "eguard run --no-record k -- true")
      assert.equal(75, status_of "eguard run k -- true")
      let_go "k"
      assert.equal("", sh "eguard ls | grep Completed".out)
    end)
  end)

  it("tells the command line only where that is asked for", function()
    hold "k"
    assert.is_nil(sh("eguard ls").out:find("until", 1, true))
    let_go "k"
    sh("rm " .. folder.path .. "/go")
    hold("k", "--record-args --owner=me")
    assert.match("me: sh %-c until", sh("eguard ls").out)
    let_go "k"
  end)

  it("says what it does with -v", function()
    local result = sh "eguard run -v k -- sh -c 'exit 3'"
    assert.match("granted, token %d+", result.err)
    assert.match("exit status 3", result.err)
  end)

  it("shares keys with a guard of Lua", function()
    local guard <close> = ExecutionGuard.new { store = folder.store }
    assert.is_true(guard:AcquireLock("k", 0))
    local result = sh "eguard run k -- echo ran"
    assert.equal(75, result.status)
    assert.match("is locked", result.err)
    assert.is_true(guard:ReleaseLock "k")
    assert.equal(0, status_of "eguard run k -- true")
    assert.equal("Completed", guard:GetStatus "k")
  end)

  it("excludes flock(1) on the same file", function()
    hold "k"
    local file = folder.path .. "/store/locks/k.lock"
    assert.equal(1, status_of("flock -n " .. file .. " true"))
    let_go "k"
    assert.equal(0, status_of("flock -n " .. file .. " true"))
    sh(("flock %s sh -c 'touch %s/in; sleep 60' & echo $! >%s/pid"):format(
      file, folder.path, folder.path))
    assert.is_true(shell.comes(folder, "[ -e " .. folder.path .. "/in ]"))
    local result = sh "eguard run k -- true"
    assert.equal(75, result.status)
    assert.match("locked: somebody who left no name, since %d", result.err)
    sh("pkill -P $(cat " .. folder.path .. "/pid)")
  end)
end)
