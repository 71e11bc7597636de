-- SPDX-License-Identifier: MIT
-- What runs a job's function in the Lua state of a worker thread.

local core = require "executionguard.core"
local context = require "executionguard.context"
local inside = require "executionguard.inside"
local options = require "executionguard.job_options"
local scheduler = require "executionguard.scheduler"
local task = require "executionguard.task"

local side, is_progress = core.side, options.is_progress
local scopes, pending = inside.scopes, core.waiting.pending

local WHY <const> = { context.DeadlineExceeded, context.Canceled }

local main = coroutine.running()
local current -- the run whose function is being called

-- What its owner has said.
local function asks()
  return WHY[side.why()]
end

-- The owner has said something.
local function look()
  if current and current.context then
    current.context:_err()
  end
end

-- What the function gets: as that of a job on a coroutine (job_run.lua).
-- Fields: id, labels, params; context, if somebody has asked for it; result,
-- has_result; over.
local Run = { __name = "ExecutionGuard job context" }
Run.__index = Run

function Run:Context()
  local ctx = self.context
  if not ctx then
    ctx = context._child(context.background())
    self.context = ctx
    if self.over then
      context._cancel(ctx)
    else
      ctx.asks = asks
    end
  end
  return ctx
end
Run._scope = Run.Context

function Run:ID() return self.id end
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
  if not self.over then -- else it would be that of the next job
    side.progress(progress)
  end
end

function Run:SetResult(result)
  if not self.over then
    self.result, self.has_result = result, true
  end
end

local LEVELS <const> = { "Debug", "Info", "Warn", "Error" }

function Run:Logger()
  local logger, run = {}, self
  for _, level in ipairs(LEVELS) do
    logger[level] = function(_, message, fields)
      if not run.over then
        side.log(level, tostring(message), fields)
      end
    end
  end
  return logger
end

local function finish(run)
  current, scopes[main] = nil, nil
  run.over = true
  -- Has the function left tasks behind?
  local dirty = (scheduler.busy() or pending()) and task.step() ~= nil
  if run.context then
    context._cancel(run.context)
  end
  return dirty
end

-- -> ok, result or error, traceback, is the state used up?
return function(fn, args)
  local run = setmetatable({ id = args[1], labels = args[2],
    params = args[3] }, Run)
  current, scopes[main] = run, run
  local ok, value, err = side.call(fn, run, look)
  local dirty = finish(run)
  local failed = not ok or value == nil and err ~= nil
  if failed and run.has_result then
    side.keep(run.result)
  end
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
