-- SPDX-License-Identifier: MIT
-- Scripts that are run by another Lua, in a process of their own.

local process = {}

--- The interpreter that runs this, however many options it was given.
function process.interpreter()
  local first = 0
  while arg[first - 1] do
    first = first - 1
  end
  return arg[first]
end

--- Runs a script; returns what it wrote, errors too.  options: {flags=,
--- before=}, of the interpreter, and shell text in front of it.
function process.run(script, options)
  local name = os.tmpname()
  local file = assert(io.open(name, "w"))
  file:write(script)
  file:close()
  local pipe = assert(io.popen(("%s timeout 60 '%s' %s '%s' 2>&1"):format(
    options and options.before or "", process.interpreter(),
    options and options.flags or "", name)))
  local text = pipe:read "a"
  pipe:close()
  os.remove(name)
  return text
end

return process
