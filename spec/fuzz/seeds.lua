-- SPDX-License-Identifier: MIT
-- What a fuzz target begins with: lua seeds.lua TARGET FOLDER

local target, folder = ...
local count = 0

local function put(bytes)
  count = count + 1
  local file = assert(io.open(("%s/seed-%d"):format(folder, count), "wb"))
  file:write(bytes)
  file:close()
end

local function output_of(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "a"
  assert(pipe:close(), command)
  return text
end

-- The hex of a field of each test vector.
local function vectors(field)
  for path in output_of "ls spec/conformance/vectors/*.hex":gmatch "%S+" do
    local hex = {}
    for line in io.lines(path) do
      hex[#hex + 1] = line:match("^" .. field .. " (.*)")
    end
    put((table.concat(hex):gsub("%X", ""):gsub("%x%x", function(byte)
      return string.char(tonumber(byte, 16))
    end)))
  end
end

-- A database with a log that was not taken over, after two bytes that say
-- where the one ends.
local function database()
  local at = os.tmpname()
  os.execute(([[sqlite3 %s "pragma page_size=512; pragma journal_mode=wal;
    create table t(a text primary key, b blob, c int) without rowid;
    create table u(a, b);
    insert into t values('k', x'950102', 7), ('l', zeroblob(900), -1);
    insert into u values('x', 1.5), (null, 9);
    pragma wal_checkpoint(truncate);
    insert into t values('m', x'01', 1);" ".shell cat %s %s-wal >%s.both" \
    ".shell stat -c %%s %s >%s.size" >%s.out]]):format(at, at, at, at, at, at,
    at))
  local both = assert(io.open(at .. ".both", "rb"))
  local size = assert(io.open(at .. ".size")):read "n"
  local bytes = both:read "a"
  both:close()
  put(string.pack(">I2", size % (#bytes + 1)) .. bytes)
  os.execute("rm -f " .. at .. "*")
end

local makers = {
  record = function() vectors "bytes" end,
  value = function() vectors "value" end,
  pages = database,
  names = function()
    for _, text in ipairs { "memory", "file:/var/lib/x?sync=full&mode=0770",
      "redis://user:secret@[::1]:6379/0?lease=15", "1h30m", "250ms", "key",
      "postgresql://u@h/db?sslmode=require", "etcd://a:2379,b:2379", "%2e%2e",
      "\27[31mred", "\xc3\xa9" } do
      put(text)
    end
  end,
}

assert(makers[target], "seeds: no such target: " .. tostring(target))()
