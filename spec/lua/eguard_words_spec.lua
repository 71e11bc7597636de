-- SPDX-License-Identifier: MIT
-- eguard's help, completion and man page: they say what there is.

local shell = require "support.shell"

describe("eguard's words:", function()
  local folder

  setup(function()
    folder = shell.folder()
    shell.run(folder, "eguard run key-one -- true; eguard run key-two -- true")
  end)
  teardown(function() folder:remove() end)

  local function sh(command) return shell.run(folder, command) end

  local function write(name, text)
    local path = folder.path .. "/" .. name
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    return path
  end

  local function commands()
    local list = {}
    for name in sh("eguard help").out:gmatch "\n  eguard (%l+)" do
      list[#list + 1] = name
    end
    assert.is_true(#list >= 10)
    return list
  end

  local function options(command)
    local list = {}
    local text = sh("eguard " .. command .. " --help").out
    for name in text:gmatch "\n  [-%a, ]*%-%-([%l-]+)" do
      list[#list + 1] = name
    end
    assert.equal("help", list[#list])
    return list
  end

  -- What each line completes to: complete(lines) -> { [line] = "a\nb\n" }
  local function check(complete)
    local expected = { ["eguard res"] = { "reset" },
                       ["eguard show k"] = { "key-one", "key-two" },
                       ["eguard run key-o"] = { "key-one" },
                       ["eguard completion b"] = { "bash" },
                       ["eguard help ver"] = { "version" },
                       ["eguard run k -- /bin/tru"] = { "/bin/true" } }
    local all = commands()
    expected["eguard "] = all
    for _, command in ipairs(all) do
      local words = {}
      for _, option in ipairs(options(command)) do
        words[#words + 1] = "--" .. option
      end
      expected["eguard " .. command .. " --"] = words
    end
    local lines = {}
    for line in pairs(expected) do lines[#lines + 1] = line end
    local found = complete(lines)
    for line, words in pairs(expected) do
      for _, word in ipairs(words) do
        assert.is_truthy(("\n" .. found[line]):find("\n" .. word, 1, true),
          ("%q is not completed to %s: %s"):format(line, word, found[line]))
      end
    end
    assert.is_nil(found["eguard run key-o"]:find "key%-two")
  end

  it("help for each command, in 79 columns", function()
    for _, command in ipairs(commands()) do
      local text = sh("eguard " .. command .. " --help").out
      assert.equal(text, sh("eguard help " .. command).out)
      assert.equal(text, sh("eguard " .. command .. " -h").out)
      for line in text:gmatch "[^\n]+" do
        assert.is_true(#line <= 79, line)
      end
    end
  end)

  it("the nearest word is proposed", function()
    assert.match("did you mean history%?", sh("eguard histroy").err)
    assert.match("did you mean %-%-timeout%?",
      sh("eguard run --tiemout=1s k -- true").err)
  end)

  it("bash completes them", function()
    check(function(lines)
      local script = { 'eval "$(eguard completion bash)"\n' }
      for i, line in ipairs(lines) do
        local words = {}
        for word in (line .. "\1"):gmatch "[^ ]+" do
          words[#words + 1] = shell.quote((word:gsub("\1", "")))
        end
        script[#script + 1] = ("COMP_WORDS=(%s) COMP_CWORD=%d\n_eguard " ..
          '2>/dev/null\nprintf "%%s\\n" "${COMPREPLY[@]}" >"$1/%d"\n'):format(
          table.concat(words, " "), #words - 1, i)
      end
      local result = sh(("bash %s %s"):format(
        write("complete.bash", table.concat(script)), folder.path))
      assert.equal("", result.err)
      local found = {}
      for i, line in ipairs(lines) do
        found[line] = shell.read(folder.path .. "/" .. i)
      end
      return found
    end)
  end)

  it("completes a key in one word, and runs nothing of it", function()
    local other = folder.path .. "/keys"
    local key = "odd $(touch " .. folder.path .. "/ran);'"
    local env = "EXECUTIONGUARD_STORE=file:" .. other .. " "
    sh(env .. "eguard run " .. shell.quote(key) .. " -- true")
    local bash = write("odd.bash", 'eval "$(eguard completion bash)"\n' ..
      "COMP_WORDS=(eguard show od) COMP_CWORD=2\n_eguard\n" ..
      'eval "set -- ${COMPREPLY[*]}"; printf "%s" "$#$1"\n')
    local found = sh(env .. "bash " .. bash)
    assert.equal("1" .. key, found.out)
    assert.equal("", found.err)
    sh(env .. "eguard run game:42 -- true")
    local colon = write("colon.bash", 'eval "$(eguard completion bash)"\n' ..
      "COMP_WORDS=(eguard show game : 4) COMP_CWORD=4 COMP_POINT=18\n" ..
      'COMP_LINE="eguard show game:4"; _eguard; echo "${COMPREPLY[@]}"\n')
    assert.equal("42\n", sh(env .. "bash " .. colon).out)
    local fish = write("odd.fish", "eguard completion fish | source\n" ..
      "complete -C 'eguard show od'\n")
    assert.match("touch", sh(("%s HOME=%s fish --no-config %s"):format(env,
      folder.path, fish)).out)
    assert.is_nil(io.open(folder.path .. "/ran"))
  end)

  it("fish completes them", function()
    check(function(lines)
      local script = { "eguard completion fish | source\n" }
      for i, line in ipairs(lines) do
        script[#script + 1] = ("complete -C %s >$argv[1]/%d\n"):format(
          shell.quote(line), i)
      end
      local result = sh(("HOME=%s fish --no-config %s %s"):format(folder.path,
        write("complete.fish", table.concat(script)), folder.path))
      assert.equal("", result.err)
      local found = {}
      for i, line in ipairs(lines) do
        found[line] = shell.read(folder.path .. "/" .. i)
      end
      return found
    end)
  end)

  -- zsh completes only in its line editor: a terminal, and the tabulator.
  it("zsh completes them", function()
    local script = write("complete.zsh", [[
      zmodload zsh/zpty
      zpty z zsh -f -i
      zpty -w z "PS1='ready> '; TERM=dumb; autoload -Uz compinit; compinit -uD"
      zpty -w z 'eval "$(eguard completion zsh)"; echo set-$[1+1]'
      zpty -r z seen '*set-2*'
      for line word in 'res' 'reset ' 'show key-o' 'key-one ' \
          'run --tim' '--timeout=' 'run --wai' '--wait' \
          'run k -- /bin/trunc' '/bin/truncate '; do
        zpty -w -n z "eguard $line"$'\t'
        zpty -r z seen "*${word[1,-2]}*" || exit 1
        zpty -w -n z $'\C-u'
      done
      zpty -d z
    ]])
    -- whatever does not come is waited for
    local result = sh("timeout 60 zsh -f " .. script)
    assert.equal("", result.err)
    assert.equal(0, result.status)
    for _, command in ipairs(commands()) do
      assert.match("\n  " .. command .. "%)\n",
        sh("eguard completion zsh").out)
    end
  end)

  -- The commands of the documents, with others in the place of what they run.
  it("what the documents show can be typed", function()
    for name in ("rsync curl migrate.sh import.sh"):gmatch "%S+" do
      write(name, "#!/bin/sh\nexit 0\n")
      sh("chmod +x " .. folder.path .. "/" .. name)
    end
    local seen = 0
    for i, document in ipairs { "README.md", "man/eguard.1" } do
      local code = false
      for line in io.lines(document) do
        if line:match "^```" or line == ".nf" or line == ".fi" then
          code = not code
        end
        local command = line:gsub("\\%-", "-"):gsub("\\%(aq", "'")
        command = command:match "^eguard %l+ .*"
          or command:match "^%S+ %* %* %* %*  (eguard .*)"
          or command:match "^ExecStart=/usr/local/bin/(eguard .*)"
        if code and command then
          seen = seen + 1
          command = command:gsub("/usr/local/bin/backup", "true")
          local result = sh("cd " .. folder.path .. "; PATH=$PWD:$PATH " ..
            "EXECUTIONGUARD_STORE=file:st" .. i .. "; " .. command)
          assert.equal("", result.err, line)
          assert.equal(0, result.status, line)
        end
      end
    end
    assert.is_true(seen >= 12, seen .. " commands")
  end)

  it("the man page has every command and option, and is well-formed",
    function()
      local file = assert(io.open "man/eguard.1")
      local page = file:read("a"):gsub("\\%-", "-"):gsub("\\f%u", "")
      file:close()
      for _, command in ipairs(commands()) do
        assert.is_truthy(page:find("\n.SS eguard " .. command, 1, true),
          command)
        for _, option in ipairs(options(command)) do
          assert.is_truthy(page:find("--" .. option, 1, true), option)
        end
      end
      for _, code in ipairs { 64, 75, 124, 125, 126, 127, 128 } do
        assert.is_truthy(page:find(code, 1, true), code)
      end
      local pwd = io.popen "pwd"
      local rendered = sh("groff -man -Tutf8 -ww -z " ..
        shell.quote(pwd:read "l" .. "/man/eguard.1"))
      pwd:close()
      assert.equal("", rendered.err)
      assert.equal(0, rendered.status)
    end)
end)
