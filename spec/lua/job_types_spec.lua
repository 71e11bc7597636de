-- SPDX-License-Identifier: MIT
-- The types of contexts, jobs and executors name what there is.

local context = require "executionguard.context"
local executor = require "executionguard.executor"
local job = require "executionguard.job"
local runs = require "executionguard.job_run"
local world = require "support.world"

describe("the language server's types of jobs", function()
  local path = assert(package.searchpath("executionguard.job_types",
                                         package.path))
  local types = loadfile(path)()

  -- What somebody may call: neither fields, nor what is for the library alone.
  local function functions(of)
    local found = {}
    for name, value in pairs(of) do
      if type(value) == "function" and name:sub(1, 1) ~= "_" then
        found[#found + 1] = name
      end
    end
    table.sort(found)
    return found
  end

  it("refuse to be taken for the library", function()
    assert.matches('write require "executionguard.job"$',
                   world.message(require, "executionguard.job_types"))
  end)

  it("name every function", function()
    assert.same(functions(context), functions(types.context))
    assert.same(functions(job), functions(types.job))
    assert.same(functions(executor), functions(types.executor))
  end)

  it("name every method", function()
    local methods = types.methods
    local j = job.new("j", print)
    local exec = executor.new(j)
    local schedule = executor.schedule(exec, { every = 1 })
    schedule:Stop()
    require "executionguard.task".run()
    local function of(object)
      return functions(getmetatable(object).__index)
    end
    assert.same(of(context.background()), functions(methods.context))
    assert.same(functions(runs.methods), functions(methods.jobContext))
    assert.same(of(j), functions(methods.job))
    assert.same(of(exec), functions(methods.executor))
    assert.same(of(schedule), functions(methods.schedule))
  end)
end)
