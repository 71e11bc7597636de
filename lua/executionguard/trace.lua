-- SPDX-License-Identifier: MIT
-- ExecutionGuard.trace: what the guards of this process do from now on, as
-- Chrome trace events, which Perfetto (ui.perfetto.dev) opens.
--
--   local stop = ExecutionGuard.trace "trace.json"
--   ...
--   print(stop())                        --> true, events, dropped
--
-- Notes are kept in a ring in memory, by all threads; it is when the trace is
-- stopped that they are written, and that a function is called, here.

local describe = require "executionguard.describe"
local native = require "executionguard.core".trace

local EVENTS <const> = 65536
local MOST <const> = 1 << 24

-- What is wrong with the options, or nil.
local function complaint(options)
  if options == nil then return nil end
  if type(options) ~= "table" then
    return "options must be a table {events=}, not " .. describe(options)
  end
  for name in next, options do
    if name ~= "events" then
      return ("unknown option %s; it takes 'events'"):format(describe(name))
    end
  end
  local events = options.events
  if events ~= nil and
      (math.type(events) ~= "integer" or events < 1 or events > MOST) then
    return ("option 'events' must be an integer from 1 to %d, not %s"):format(
      MOST, describe(events))
  end
end

-- What is wrong with what it is written to, or nil.
local function complaint_of(sink)
  local kind = type(sink)
  if kind ~= "string" and kind ~= "function" and kind ~= "nil" then
    return "it is written to a path, or told to a function, not " ..
      describe(sink)
  elseif kind == "string" and sink:find("\0", 1, true) then -- C's open cuts it
    return ("a path has no zero byte, and %q has"):format(sink)
  end
end

local function write(file, text)
  local written, err = file:write(text)
  local closed, late = file:close()
  return written and closed and true, err or late
end

local Trace = {}
Trace.__index = Trace
Trace.__name = "ExecutionGuard trace"

-- Ends it. -> true (without a sink: the text), events, dropped; or nil, why
function Trace:__call()
  if self.stopped then return nil, "the trace was stopped before" end
  self.stopped = true
  local text, events, dropped = native.stop(true)
  local sink = self.sink
  if not text then
    if io.type(sink) == "file" then sink:close() end
    return nil, events
  elseif io.type(sink) == "file" then
    local written, err = write(sink, text)
    if not written then return nil, err end
  elseif sink then
    sink(text, events, dropped)
  else
    return text, events, dropped
  end
  return true, events, dropped
end

function Trace:__close() if not self.stopped then self() end end

-- Nobody can stop it any more: it is thrown away.
function Trace:__gc()
  if not self.stopped then
    self.stopped = true
    native.stop(false)
  end
end

-- trace(path, function(text, events, dropped) or nothing, {events = 65536}?)
-- -> what stops it when it is called or closed; or nil and why there is none
local function trace(sink, options)
  local wrong = complaint_of(sink) or complaint(options)
  if wrong then error("ExecutionGuard.trace: " .. wrong, 2) end
  local started, err = native.start(options and options.events or EVENTS)
  if not started then return nil, err end
  local it = setmetatable({}, Trace)
  if type(sink) == "string" then
    sink, err = io.open(sink, "wb")
    if not sink then
      it:__gc()
      return nil, err
    end
  end
  it.sink = sink
  return it
end

return { trace = trace }
