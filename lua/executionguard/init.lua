-- SPDX-License-Identifier: MIT
-- executionguard: run this once, and tell me what came of it.
--
-- This is the table that `require "executionguard"` gives.  Guards and their
-- methods are made in C (executionguard.core); every function, option and
-- field is described in executionguard/types.lua, for people and for the Lua
-- language server.  Loading it sets no globals.

local core = require "executionguard.core"

return {
  -- "ExecutionGuard " and the version of the library.
  _VERSION = "ExecutionGuard " .. core.version,

  -- new(debug or options?) -> guard
  new = core.new,
  -- now() -> seconds since the epoch, by the guards' clock
  now = core.now,
  -- expired() -> has the run that this function is in lost its right to go on?
  expired = core.expired,
  -- shield(fn, ...) -> what fn returns, not interrupted before it has
  shield = core.shield,
  -- setLogger(fn(level, message, key) or nil)
  setLogger = core.setLogger,
  -- getGlobalStats() -> counts of all guards of this process
  getGlobalStats = core.getGlobalStats,
  -- metrics{top = 50, openmetrics = false} -> text for Prometheus, of all
  -- guards of this process
  metrics = core.metrics,
  -- trace(path or fn(text, events, dropped) or nothing, {events = 65536}?) ->
  -- a function that stops it, or nil and why not
  trace = require("executionguard.trace").trace,
  -- printSummary(guard, {top = 10, ascii = boolean, columns = integer}?)
  printSummary = require("executionguard.summary").print,
  -- configure{signal, waitSignal, engine, loop, clock}
  configure = require("executionguard.configure").configure,
}
