-- SPDX-License-Identifier: MIT
-- What it costs to be looked at: metrics of many keys, and a trace that is
-- not recorded.

local measure = require "measure"

local KEYS <const> = 10000

local function metrics(report, build, quick, top, what)
  local samples = measure.figures(("%s/metrics %d %d %d"):format(build, KEYS,
    top, quick and 3 or 15))
  report:line { what = what, samples = samples, against = "hand",
    name = "the same bytes by hand", goal = 5 }
  report:note(("Metrics of %d keys, %d of them named: %d bytes of text, " ..
    "%d bytes of memory."):format(KEYS, top, samples.bytes[1],
    samples.memory[1]))
end

-- The same program with the library, and with one that has no traces at all.
local function traces(report, build, quick)
  local programs = { ours = "cycle", out = "cycle-no-trace" }
  local calls = quick and 100000 or 400000
  local of = { lock = { ours = {}, out = {} },
               cached = { ours = {}, out = {} } }
  for r = 1, quick and 5 or 25 do
    for i = 1, 2 do
      local side = (r + i) % 2 == 0 and "ours" or "out"
      local found = measure.figures(("%s/%s %d"):format(build,
        programs[side], calls))
      for name, list in pairs(of) do list[side][r] = found[name][1] end
    end
  end
  report:line { what = "a lock and its release in C, trace off",
    samples = of.lock, against = "out", name = "compiled out", goal = 1.02 }
  report:line { what = "a cached answer in C, trace off",
    samples = of.cached, against = "out", name = "compiled out", goal = 1.02 }
end

return function(report, build, quick)
  metrics(report, build, quick, KEYS, "metrics, 10,000 keys, all named")
  metrics(report, build, quick, 50, "metrics, 10,000 keys, 50 named")
  traces(report, build, quick)
end
