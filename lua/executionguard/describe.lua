-- SPDX-License-Identifier: MIT
-- A value as messages about wrong arguments name it.

local function describe(value)
  local kind = type(value)
  if kind == "string" then
    return ("the string '%s'"):format(value)
  elseif kind == "number" or kind == "boolean" then
    return ("the %s %s"):format(kind, value)
  end
  return kind == "nil" and kind or "a " .. kind
end

return describe
