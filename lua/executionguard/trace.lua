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

local native = require "executionguard.core".trace

local EVENTS <const> = 65536
local MOST <const> = 1 << 24

local function refuse(text, ...)
  error(("ExecutionGuard.trace: " .. text):format(...), 3)
end

local function events_of(options)
  if options == nil then return EVENTS end
  if type(options) ~= "table" then
    refuse("options must be a table {events=}, not %s", tostring(options))
  end
  for name in next, options do
    if name ~= "events" then
      refuse("unknown option '%s'; it takes 'events'", tostring(name))
    end
  end
  local events = options.events == nil and EVENTS or options.events
  if math.type(events) ~= "integer" or events < 1 or events > MOST then
    refuse("option 'events' must be an integer from 1 to %d, not %s", MOST,
      tostring(events))
  end
  return events
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
-- -> a function that stops it; or nil and why there is none
local function trace(sink, options)
  local kind = type(sink)
  if kind ~= "string" and kind ~= "function" and kind ~= "nil" then
    refuse("it is written to a path, or told to a function, not %s",
      tostring(sink))
  end
  local started, err = native.start(events_of(options))
  if not started then return nil, err end
  local it = setmetatable({}, Trace)
  if kind == "string" then
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
