-- SPDX-License-Identifier: MIT
-- What may be drawn on the user's terminal.

local terminal = {}

-- terminal.utf8() -> boolean: does the locale of the environment say UTF-8?
-- As in setlocale(3), the first of the three that is set, and not to nothing,
-- decides.
function terminal.utf8()
  for _, name in ipairs { "LC_ALL", "LC_CTYPE", "LANG" } do
    local value = os.getenv(name)
    if value ~= nil and value ~= "" then
      return value:lower():find("utf%-?8") ~= nil
    end
  end
  return false
end

return terminal
