-- SPDX-License-Identifier: MIT
-- What the specs of the command share: a store of their own, eguard and other
-- commands run by a shell, and a reader of JSON that believes nothing.

local shell = {}

-- ----------------------------------------------------------------- files --

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read "a"
  file:close()
  return text
end
shell.read = read

function shell.quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- A folder of its own; call folder:remove() in the end.
function shell.folder()
  local pipe = assert(io.popen "mktemp -d")
  local path = pipe:read "l"
  pipe:close()
  local folder = { path = path, store = "file:" .. path .. "/store" }
  function folder:remove() os.execute("rm -rf " .. shell.quote(self.path)) end
  return folder
end

-- -------------------------------------------------------------- commands --

--- Runs a shell command with this store as the default one.  Returns what it
--- wrote to both streams, and its exit status (128 + n for a signal).
function shell.run(folder, command)
  local out, err = folder.path .. "/out", folder.path .. "/err"
  local script = folder.path .. "/script"
  local file = assert(io.open(script, "w"))
  file:write("export EXECUTIONGUARD_STORE=", shell.quote(folder.store), "\n",
    "unset EXECUTIONGUARD_TOKEN EXECUTIONGUARD_KEY EXECUTIONGUARD_TOKENS\n",
    command, "\n")
  file:close()
  local _, how, status = os.execute(("sh %s >%s 2>%s </dev/null"):format(
    shell.quote(script), shell.quote(out), shell.quote(err)))
  return { out = read(out), err = read(err),
           status = how == "exit" and status or 128 + status }
end

--- Polls until the command succeeds: for what another process does by itself.
--- A long bound, so that a busy machine changes nothing.
function shell.comes(folder, command)
  local result = shell.run(folder, ("i=0; until %s; do i=$((i + 1)); " ..
    "[ $i -lt 1500 ] || exit 1; sleep 0.02; done"):format(command))
  return result.status == 0
end

-- ------------------------------------------------------------------ JSON --

local escapes = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b",
                  f = "\f", n = "\n", r = "\r", t = "\t" }
shell.null = setmetatable({}, { __name = "null" })

local value

local function fail(text, at, what)
  error(("no JSON, at byte %d: %s in %q"):format(at, what, text), 0)
end

local function blank(text, at) return text:match("^[ \t\r\n]*()", at) end

local function string_at(text, at)
  local parts = {}
  at = at + 1
  while true do
    local plain, stop = text:match('^([^"\\%c]*)()', at)
    parts[#parts + 1] = plain
    local c = text:sub(stop, stop)
    if c == '"' then return table.concat(parts), stop + 1 end
    if c ~= "\\" then fail(text, stop, "a control character or the end") end
    local e = text:sub(stop + 1, stop + 1)
    if e == "u" then
      local hex = text:match("^%x%x%x%x", stop + 2)
      if not hex then fail(text, stop, "no four hexadecimal digits") end
      parts[#parts + 1] = utf8.char(tonumber(hex, 16))
      at = stop + 6
    else
      parts[#parts + 1] = escapes[e] or fail(text, stop, "no such escape")
      at = stop + 2
    end
  end
end

local function list_at(text, at, close, item)
  at = blank(text, at + 1)
  if text:sub(at, at) == close then return at + 1 end
  while true do
    at = blank(text, item(at))
    local c = text:sub(at, at)
    if c == close then return at + 1 end
    if c ~= "," then fail(text, at, "no comma") end
    at = blank(text, at + 1)
  end
end

local function object_at(text, at)
  local object = {}
  local stop = list_at(text, at, "}", function(where)
    if text:sub(where, where) ~= '"' then fail(text, where, "no name") end
    local name, next_at = string_at(text, where)
    next_at = blank(text, next_at)
    if text:sub(next_at, next_at) ~= ":" then
      fail(text, next_at, "no colon")
    end
    object[name], next_at = value(text, blank(text, next_at + 1))
    return next_at
  end)
  return object, stop
end

local function array_at(text, at)
  local array = {}
  local stop = list_at(text, at, "]", function(where)
    array[#array + 1], where = value(text, where)
    return where
  end)
  return array, stop
end

function value(text, at)
  local c = text:sub(at, at)
  if c == "{" then return object_at(text, at) end
  if c == "[" then return array_at(text, at) end
  if c == '"' then return string_at(text, at) end
  for word, is in pairs { ["true"] = true, ["false"] = false,
                          null = shell.null } do
    if text:sub(at, at + #word - 1) == word then return is, at + #word end
  end
  local number = text:match("^-?%d+%.?%d*[eE]?[+-]?%d*", at)
  if not number or number:match "^-?0%d" or not tonumber(number) then
    fail(text, at, "no value")
  end
  return tonumber(number), at + #number
end

--- One JSON document; raises where it is none.
function shell.json(text)
  assert(utf8.len(text), "JSON is UTF-8")
  local result, at = value(text, blank(text, 1))
  at = blank(text, at)
  if at <= #text then fail(text, at, "more behind the value") end
  return result
end

return shell
