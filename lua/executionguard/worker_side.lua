-- SPDX-License-Identifier: MIT
-- What runs a job's function in the Lua state of a worker thread.

local core = require "executionguard.core"
local context = require "executionguard.context"
local options = require "executionguard.job_options"
local task = require "executionguard.task"

local side, is_progress = core.side, options.is_progress

local WHY <const> = { context.DeadlineExceeded, context.Canceled }

-- What the function gets: as that of a job on a coroutine (job.lua).
local Run = { __name = "ExecutionGuard job context" }
Run.__index = Run

function Run:ID() return self.id end
function Run:Context() return self.context end
function Run:GetParams() return self.params end

function Run:Labels()
  return options.copy(self.labels)
end

function Run:SetProgress(progress)
  if not is_progress(progress) then
    local near = options.progress_of(progress)
    if not near then
      error("SetProgress: " .. options.progress_wanted(progress), 2)
    end
    progress = near
  end
  side.progress(progress)
end

function Run:SetResult(result)
  self.result, self.has_result = result, true
end

local LEVELS <const> = { "Debug", "Info", "Warn", "Error" }

function Run:Logger()
  local logger = {}
  for _, level in ipairs(LEVELS) do
    logger[level] = function(_, message, fields)
      side.log(level, tostring(message), fields)
    end
  end
  return logger
end

-- -> ok, result or error, traceback, is the state used up?
return function(fn, args)
  local run = setmetatable({ id = args[1], labels = args[2],
    params = args[3] }, Run)
  local ctx = context.withCancel(context.background())
  run.context = ctx
  function ctx.asks()
    return WHY[side.why()]
  end
  local ok, value, err = context.with(ctx, side.call, fn, run, function()
    ctx:_err()
  end)
  local dirty = task.step() ~= nil -- the function has left tasks behind
  context._cancel(ctx)
  if ok and value == nil and err ~= nil then
    return false, err, nil, dirty
  elseif ok then
    if run.has_result then
      value = run.result
    end
    return true, value, nil, dirty
  elseif ok == nil then
    return false, nil, nil, true -- interrupted; the owner knows why
  end
  return false, value == nil and "nil" or value, err, dirty
end
