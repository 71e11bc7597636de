-- SPDX-License-Identifier: MIT
-- What printSummary and `eguard summary` print, to the letter, at three
-- widths: spec/lua/golden/summary-*.txt.  GOLDEN=write writes what is printed
-- now; look at the difference before it is committed.

local ExecutionGuard = require "executionguard"
local shell = require "support.shell"
local world = require "support.world"

local GOLDEN <const> = "spec/lua/golden/"

local function lines_of(guard, options)
  local lines, real = {}, print
  rawset(_G, "print", function(line) lines[#lines + 1] = line end)
  local ok, err = pcall(ExecutionGuard.printSummary, guard, options)
  rawset(_G, "print", real)
  assert(ok, err)
  return table.concat(lines, "\n") .. "\n"
end

local function assert_golden(name, text)
  local path = GOLDEN .. name .. ".txt"
  if os.getenv "GOLDEN" == "write" then
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
  end
  assert.equal(shell.read(path), text)
end

-- What is below the box is of the store alone.
local function below_box(text)
  return text:match "\n(\n.*)$"
end

describe("the summary, to the letter,", function()
  local folder, guard

  local function run(key, seconds, failure)
    guard:RunOnce(key, function()
      world.advance(seconds)
      if failure then error(failure, 0) end
    end, { timeout = 60, allowRerun = true })
  end

  local function fill()
    for i = 1, 24 do
      run("backup", 2 + i % 7)
    end
    for i = 1, 5 do
      run("import of the ünïcode 漢字 names", 0.25 * i,
          i % 2 == 0 and "no such file: names.csv" or nil)
    end
    run("late", 90)
    run("late", 90)
    run("late", 10)
    run("report\27[31m", 0.004)
    run("nightly", 5000, nil)
    run("once", 0.5, "the disk is full\nand more of it")
    for i = 1, 7 do
      guard:RunOnce("once", function() end, { errorTtl = 60 })
      guard:RunOnce("late", function()
        for _ = 1, i % 3 do guard:RunOnce("late", function() end) end
      end, { allowRerun = true })
    end
    guard:RunOnce("nothing", function() end)
    guard:Reset "nothing"
  end

  setup(function()
    folder = shell.folder()
    world.start()
    guard = ExecutionGuard.new { store = folder.store }
    fill()
    guard:Close() -- what is counted beside the records is there then
    guard = ExecutionGuard.new { store = folder.store }
  end)

  teardown(function()
    guard:Close()
    world.stop()
    folder:remove()
  end)

  for _, columns in ipairs { 40, 80, 120 } do
    it(("at %d columns"):format(columns), function()
      local text = below_box(lines_of(guard,
        { ascii = false, columns = columns }))
      assert_golden("summary-" .. columns, text)
      assert_golden("summary-ascii-" .. columns, below_box(lines_of(guard,
        { ascii = true, columns = columns })))
      for line in text:gmatch "[^\n]+" do
        assert.is_true(utf8.len(line) <= columns, line)
      end
    end)

    it(("by eguard at %d columns, the same below the box"):format(columns),
      function()
        local on = "COLUMNS=" .. columns .. " LC_ALL="
        local drawn = shell.run(folder, on .. "C.UTF-8 eguard summary").out
        assert_golden("eguard-summary-" .. columns, drawn)
        assert.equal(shell.read(GOLDEN .. "summary-" .. columns .. ".txt"),
                     below_box(drawn))
        local ascii = shell.run(folder, on .. "C eguard summary").out
        assert.equal(ascii, shell.run(folder, on ..
          "C.UTF-8 eguard summary --ascii").out)
        assert.is_nil(ascii:find "[^\n\32-\126]")
        assert.equal(
          shell.read(GOLDEN .. "summary-ascii-" .. columns .. ".txt"),
          below_box(ascii))
      end)
  end

  it("by eguard history, with a picture, on a terminal", function()
    local on = "TZ=UTC NO_COLOR=1 TERM=xterm LC_ALL=C.UTF-8 COLUMNS=%d " ..
      "script -qec 'eguard history %s' /dev/null"
    local function picture(columns, options)
      local text = shell.run(folder, on:format(columns, options or "")).out
      return text:gsub("\r", ""):match "^(.-)\n\nKEY +START"
    end
    for _, columns in ipairs { 40, 80, 120 } do
      local text = picture(columns)
      assert_golden("history-" .. columns, text .. "\n")
      for line in text:gmatch "[^\n]+" do
        assert.is_true(utf8.len(line) <= columns, line)
      end
    end
    assert.is_nil(picture(80, "--ascii"):find "[^\n\32-\126]")
    assert.matches("^backup  █.*█\n +┬─", picture(80, "backup"))
    assert.is_nil(shell.run(folder, "eguard history").out:find "┬")
  end)

  it("eguard history --since leaves out what ended before", function()
    local function count(since)
      return #shell.json(shell.run(folder,
        "TZ=UTC eguard history --json --since=" .. since).out)
    end
    local all = #guard:History(nil, 1000)
    assert.equal(all, count "2025-12-31")
    assert.equal(0, count "1h")
    local last = guard:History(nil, 1)[1]
    local recent = 0
    for _, past in ipairs(guard:History(nil, 1000)) do
      recent = recent + (past.endTime >= last.endTime // 1 and 1 or 0)
    end
    assert.is_true(recent > 0 and recent < all)
    assert.equal(recent, count(os.date("!%Y-%m-%dT%H:%M:%SZ",
                                  last.endTime // 1 | 0)))
    assert.equal(0, count(os.date("!'%Y-%m-%d %H:%M:%S'",
                                  (last.endTime // 1 | 0) + 1)))
    assert.equal(64, shell.run(folder, "eguard history --since=now").status)
  end)

  it("with as many keys of a kind as are asked for", function()
    local text = below_box(lines_of(guard, { ascii = true, top = 1 }))
    assert.matches("^\nSlowest keys[^\n]+\n  nightly[^\n]+\n" ..
                   "\nMost blocked keys[^\n]+\n  late +7 [^\n]+\n" ..
                   "\nFailing keys[^\n]+\n  import of [^\n]+\n$", text)
    assert.is_nil(below_box(lines_of(guard, { ascii = true, top = 0 })))
    assert.equal(64, shell.run(folder, "eguard summary --top=1001").status)
  end)

  it("in colours on a terminal, unless NO_COLOR is set", function()
    local on = 'TERM=xterm script -qec "stty cols 80; eguard summary" ' ..
      '/dev/null'
    assert.matches("\27%[36m", shell.run(folder, on).out)
    assert.is_nil(shell.run(folder, "NO_COLOR=1 " .. on).out:find "\27")
  end)
end)
