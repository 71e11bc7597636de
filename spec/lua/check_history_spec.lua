-- SPDX-License-Identifier: MIT
-- The checker of histories (spec/tools/check-history): fed a history with one
-- planted fault of each kind, it finds each, and in a good one none.

-- Two processes, two keys.  Times in milliseconds here, for people.
local GOOD = {
  "# a run that is done, and read",
  "granted a.1 k rerun 1000 1010 100 1000",
  "held a.1 k 100 1020 1021",
  "believed a.1 k 100 1022 1023",
  "ending a.1 k 100 1100 commit first",
  "ended a.1 k 100 1100 1110 ok",
  "read b.1 k 1200 1201 first 100",
  "# one whose holder is killed: the next waits for its lease",
  "granted b.1 k rerun 1300 1310 200 1000",
  "granted a.1 k rerun 2000 2350 300 1000",
  "ending b.1 k 200 2360 commit late",
  "ended b.1 k 200 2360 2370 lost",
  "ending a.1 k 300 2400 commit second",
  "ended a.1 k 300 2400 2410 ok",
  "read b.1 k 2420 2430 second 300",
  "# one that ends by the end of its guard",
  "granted b.1 k lock 2500 2510 400 1000",
  "closing b.1 2520",
  "granted a.1 k lock 2515 2530 500 1000",
  "ending a.1 k 500 2540 release -",
  "# a commit without an answer may be there, or not",
  "granted a.1 k rerun 2600 2610 600 1000",
  "ending a.1 k 600 2620 commit perhaps",
  "read b.1 k 2700 2710 perhaps 600",
  "read b.1 k 2720 2730 second 300",
  "# what is lost is lost, and thought to be there for a while",
  "granted b.1 k lock 3700 3710 700 1000",
  "lost 3720 3800",
  "granted a.1 k lock 3810 3820 800 1000",
  "believed b.1 k 700 3830 3831",
  "read a.1 k 3840 3850 - -",
  "# once",
  "granted a.1 o once 4000 4010 900 1000",
  "ending a.1 o 900 4020 commit only",
  "ended a.1 o 900 4020 4030 ok",
  "read b.1 o 4040 4050 only 900",
}

-- What is planted behind the good history, the kind of the fault, and how many
-- there are then (a token out of order is also a lease cut short).
local PLANTED = {
  { "token", "a token that does not rise",
    { "granted b.1 k lock 9000 9010 750 1000" }, 2 },
  { "token", "a token that was there before",
    { "granted b.1 k lock 3815 3816 800 1000" }, 2 },
  { "token", "a token that falls over lost data",
    { "lost 8000 8100", "granted b.1 k lock 9000 9010 650 1000" }, 2 },
  { "two holders", "a grant while a lease runs",
    { "granted b.1 o once 6000 6010 910 1000",
      "granted a.1 o once 6500 6510 920 1000", "lost 5000 5001" } },
  { "two holders", "one that the store confirms after the next was granted",
    { "held b.1 k 700 3830 3831" } },
  { "two holders", "one who believes after the next was granted",
    { "believed a.1 k 600 3715 3716" } },
  { "commit", "a commit under an older token",
    { "ending b.1 k 200 2380 commit late", "ended b.1 k 200 2380 2390 ok" } },
  { "commit", "a failure that is stored under an older token",
    { "ending b.1 k 200 2380 fail -", "ended b.1 k 200 2380 2390 ok" } },
  { "release", "a release under an older token",
    { "ending b.1 k 700 3830 release -",
      "ended b.1 k 700 3830 3840 ok" } },
  { "read", "a result that is gone", { "read b.1 k 2420 2430 - -" } },
  { "read", "a result that is older than another",
    { "read b.1 k 2420 2430 first 100" } },
  { "read", "a result that was refused", { "read b.1 k 2420 2430 late 200" } },
  { "read", "a result of nobody", { "read b.1 k 2420 2430 mine 300" } },
  { "read", "a result before it was committed",
    { "read b.1 k 2395 2396 second 300" } },
  { "once", "a second run of what is done",
    { "granted b.1 o once 6000 6010 910 1000" } },
}

local function write(lines)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  for _, line in ipairs(lines) do
    local fields = {}
    for field in line:gmatch "%S+" do
      -- Times and leases are numbers of four digits, tokens of three.
      fields[#fields + 1] = field:match "^%d%d%d%d$" and field .. "000"
        or field
    end
    file:write(table.concat(fields, "\t"), "\n")
  end
  file:write "granted\tb.1\tk\tlo" -- somebody was killed while he wrote
  file:close()
  return path
end

local function check(...)
  local lines = {}
  for _, list in ipairs { ... } do
    table.move(list, 1, #list, #lines + 1, lines)
  end
  local path = write(lines)
  local pipe = assert(io.popen("spec/tools/check-history " .. path .. " 2>&1"))
  local said = pipe:read "a"
  local _, _, status = pipe:close()
  os.remove(path)
  return said, status
end

describe("the checker of histories", function()
  it("finds nothing in a good one, and says what there was", function()
    local said, status = check(GOOD)
    assert.equal("faults=0 granted=9 committed=3 refused=1 unknown=0 " ..
      "read=6 held=1 believed=2 lost=1\n", said)
    assert.equal(0, status)
  end)

  for _, planted in ipairs(PLANTED) do
    local kind, what, lines, n = table.unpack(planted)
    it("finds " .. what, function()
      local said, status = check(GOOD, lines)
      assert.matches("^" .. kind .. ": ", said)
      assert.matches(("\nfaults=%d "):format(n or 1), said, 1, true)
      assert.equal(1, status)
    end)
  end

  it("refuses what it does not know", function()
    local said, status = check(GOOD, { "grunted a.1 k" })
    assert.matches("what is this: grunted", said, 1, true)
    assert.equal(2, status)
  end)
end)
