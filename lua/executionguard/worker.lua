-- SPDX-License-Identifier: MIT
-- Jobs on OS threads: job.worker and job.workers.
--
-- The function runs in a Lua state of its own, on a thread of a pool that all
-- Lua states of the process share.  What crosses is MessagePack; a function
-- crosses as bytecode, without what it uses of its surroundings.  The globals
-- of a worker are those of a fresh state, kept from one job to the next.
--
-- What comes back (progress, log lines, the end) is delivered when the
-- scheduler of the owner is turned, on its Lua state.

local core = require "executionguard.core"
local context = require "executionguard.context"
local options = require "executionguard.job_options"
local task = require "executionguard.task"

local workers = core.worker

local GRACE <const> = 1 -- seconds
-- The longest that an interruption takes to reach a function that runs.
local REACH <const> = 0.5

local NONE <const> = {}

local worker = {}

-- Fields: code.
local Worker = { __name = "ExecutionGuard worker function" }

local function close(run)
  local ticket = run.ticket
  if ticket then
    run.ticket = nil
    ticket:close()
  end
end

local ENDS <const> = {
  exited = "os.exit was called in a worker: the job has ended, the process " ..
           "goes on",
  ["no memory"] = "not enough memory (of a worker; see job.workers)",
}

local function conclude(run, finish)
  local kind, value, trace, text, kept = run.ticket:outcome()
  close(run)
  if kept ~= nil then
    run.result, run.has_result = kept, true
  end
  if kind == "ok" then
    finish(run, true, value)
  else
    if text and type(value) == "table" then
      setmetatable(value, { __tostring = function() return text end })
    end
    finish(run, false, ENDS[kind] or value, trace)
  end
end

-- There is something new.
local function heed(run, finish)
  local ticket, j = run.ticket, run.job
  if not ticket or run.took then
    return
  end
  local ended, progress, lines = ticket:look()
  for _, line in ipairs(lines or NONE) do
    line = workers.decode(line)
    options.log(j, line[1], line[2], line[3])
  end
  if progress >= 0 and progress ~= run.progress then
    run.progress = progress
    j:_emit("progress", progress)
  end
  if ended and not run.took then
    conclude(run, finish)
  end
end

-- Starts a run of a job.
function Worker._start(run, finish)
  local j = run.job
  local left = run.parent and run.parent:_left()
  local ok, ticket = pcall(workers.submit, j.fn.code, j.id, j.labels or NONE,
    run.params, left, j.grace or GRACE, function() heed(run, finish) end)
  if ok then
    run.ticket = ticket
  else
    task.defer(finish, run, false, ticket)
  end
end

-- What blocks in C cannot be interrupted: its thread is written off.
local function write_off(run, finish)
  run.timer = nil
  local ticket = run.ticket
  if run.took or not ticket then
    return
  elseif ticket:abandon() then
    run.stuck = true
    options.log(run.job, "Warn", "job cannot be stopped: its thread is in " ..
      "a call of C, and is given up")
    close(run)
    run.closing = true
    finish(run, false, run.lost)
  else
    conclude(run, finish)
  end
end

-- The context of the run has ended.
function Worker._stop(run, finish)
  local j, ticket = run.job, run.ticket
  if not ticket then
    return
  elseif ticket:cancel(run.lost == context.DeadlineExceeded) then
    close(run)
    run.closing = true
    finish(run, false, run.lost)
  else
    run.timer = task.delay((j.grace or GRACE) + REACH, write_off, run, finish)
  end
end

-- job.worker("module.name" or fn) -> what job.new takes as fn.  A module has
-- to return the function.  Raises for a function that uses what surrounds it.
function worker.new(what)
  if type(what) ~= "function" and (type(what) ~= "string" or what == "") then
    error(("job.worker: a function or the name of a module is needed, not %s")
      :format(options.describe(what)), 2)
  end
  local ok, code = pcall(workers.code, what, package.path, package.cpath)
  if not ok then
    error(code, 2)
  end
  return setmetatable({ code = code }, Worker)
end

-- job.workers{threads=, memory=, maxResult=} -> {limit, threads, busy, queued,
-- lost}.
-- threads: how many there may be (default: as many as cores); memory: bytes
-- that the Lua state of each may take (default: its share of three quarters of
-- the machine's); maxResult: bytes that a result may take (default: 64 MiB).
-- lost: those that could not be stopped.  A job that waits for another on a
-- worker keeps its thread meanwhile: with one thread for ever.
function worker.pool(given)
  if given ~= nil and type(given) ~= "table" then
    error(("job.workers: options must be a table {threads=, memory=, " ..
      "maxResult=}, not %s"):format(options.describe(given)), 2)
  end
  for name, value in pairs(given or NONE) do
    if name ~= "threads" and name ~= "memory" and name ~= "maxResult" then
      error(("job.workers: there is no option %s; there are maxResult, " ..
        "memory and threads"):format(options.describe(name)), 2)
    elseif math.type(value) ~= "integer" or value < 1 or
           name == "threads" and value > 1024 or
           name == "maxResult" and value > 0xffffffff then
      error(("job.workers: option '%s' must be a whole number above 0, " ..
        "not %s"):format(name, options.describe(value)), 2)
    end
  end
  if given and given.threads then
    workers.limit(given.threads)
  end
  if given and given.memory then
    workers.memory(given.memory)
  end
  if given and given.maxResult then
    workers.result(given.maxResult)
  end
  return workers.stats()
end

core.own.claim()

return worker
