-- SPDX-License-Identifier: MIT
-- executionguard: run this once, and tell me what came of it.

local core = require "executionguard.core"
local summary = require "executionguard.summary"

local ExecutionGuard = {
  _VERSION = "ExecutionGuard " .. core.version,
  new = core.new,
  now = core.now,
  expired = core.expired,
  shield = core.shield,
  setLogger = core.setLogger,
  getGlobalStats = core.getGlobalStats,
  printSummary = summary.print,
  configure = require "executionguard.configure",
}

return ExecutionGuard
