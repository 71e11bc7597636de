-- SPDX-License-Identifier: MIT
-- A job's function that workers load by its name.

local function fib(n)
  return n < 2 and n or fib(n - 1) + fib(n - 2)
end

return function(ctx)
  return fib(ctx:GetParams())
end
