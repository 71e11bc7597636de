-- SPDX-License-Identifier: MIT
-- Records can be read in another language by what is written about them: the
-- vectors, by Python and nothing of ours (the C tests write and read them).

local FOLDER <const> = "spec/conformance/vectors"

local function read(folder)
  local pipe = assert(io.popen(("/usr/bin/python3 %s/read.py %s 2>&1"):format(
    FOLDER, folder)))
  local said = pipe:read "a"
  return pipe:close() ~= nil, said
end

local function first_line(command)
  local pipe <close> = assert(io.popen(command))
  return pipe:read "l"
end

describe("vectors", function()
  it("are read by Python, field by field", function()
    local good, said = read(FOLDER)
    assert.is_true(good, said)
    local n = first_line("ls " .. FOLDER .. "/*.hex | wc -l"):match "%d+"
    assert.are.equal(n .. " vectors, all as they are to be\n", said)
  end)

  it("would be noticed if they said something else", function()
    local folder = first_line "mktemp -d"
    local file <close> = assert(io.open(folder .. "/x.hex", "w"))
    file:write("status Completed\ncount 2\nstart 1\nduration 0\n",
      "bytes 95 01 02 01 01 00\n")
    file:flush()
    local good, said = read(folder)
    os.execute("rm -r " .. folder)
    assert.is_false(good)
    assert.matches("x.hex: count is 1, not 2", said, 1, true)
  end)
end)
