-- SPDX-License-Identifier: MIT
-- Loops of others, as the specs drive them: what each needs to run a function
-- in a coroutine, to turn, and to call something again and again.

local core = require "executionguard.core"

local steady = core.clock.steady

-- copas is pure Lua, which Debian installs for 5.1 alone.
local function load_library(name)
  local path = package.path
  package.path = path .. ";/usr/share/lua/5.1/?.lua"
  local ok, library = pcall(require, name)
  package.path = path
  return ok and library or nil
end

local kinds = {}

function kinds.luv(uv)
  local loop = require "executionguard.loop.luv"
  return {
    loop = loop,
    start = function(fn)
      local stop
      stop = loop.delay(0, function() stop(); coroutine.wrap(fn)() end)
    end,
    run = function() uv.run() end,
    every = function(seconds, fn)
      local timer = uv.new_timer()
      timer:start(seconds * 1000 // 1, seconds * 1000 // 1, function()
        if not fn() then timer:stop(); timer:close() end
      end)
    end,
  }
end

function kinds.cqueues(cqueues)
  local cq = cqueues.new()
  return {
    loop = require("executionguard.loop.cqueues").new(cq),
    start = function(fn) cq:wrap(fn) end,
    run = function() assert(cq:loop(20)) end,
    every = function(seconds, fn)
      cq:wrap(function()
        repeat cqueues.sleep(seconds) until not fn()
      end)
    end,
  }
end

-- It has neither timers nor an end.
function kinds.copas(copas)
  local loop = require "executionguard.loop.copas"
  local open = 0
  return {
    loop = loop,
    start = function(fn)
      open = open + 1
      copas.addthread(function() fn(); open = open - 1 end)
    end,
    run = function()
      local till = steady() + 20
      repeat copas.step(1) until open == 0 or steady() > till
      for _ = 1, 3 do copas.step(0.01) end
    end,
    every = function(seconds, fn)
      local function again()
        if fn() then loop.delay(seconds, again) end
      end
      loop.delay(seconds, again)
    end,
  }
end

return { names = { "luv", "cqueues", "copas" }, kinds = kinds,
  library = load_library }
