-- SPDX-License-Identifier: MIT
-- eguard against flock(1): how long it takes to start `true`.

local measure = require "measure"

return function(report, build, quick)
  local folder = build .. "/eguard-store"
  os.execute("rm -rf " .. folder .. " && mkdir " .. folder)
  local eguard = ("%s/eguard run --store=file:%s"):format(build, folder)
  local samples = measure.figures(table.concat({
    ("%s/commands %d %d"):format(build, quick and 5 or 15, quick and 20 or 60),
    "flock flock -n " .. folder .. "/lock true",
    "run " .. eguard .. " k -- true",
    "no_record " .. eguard .. " --no-record l -- true",
    "refused " .. eguard .. " --once -q done -- true",
    "empty " .. build .. "/eguard version",
    "true true",
  }, " : "):gsub(" : ", " ", 1))
  report:line { what = "eguard run k -- true", samples = samples,
    ours = "run", against = "flock", name = "flock -n f true", goal = 1.25 }
  report:line { what = "eguard run --no-record k -- true", samples = samples,
    ours = "no_record", against = "flock", name = "flock -n f true",
    goal = 1 }
  report:line { what = "eguard run --once k -- true, done already",
    samples = samples, ours = "refused", against = "flock",
    name = "flock -n f true" }
  report:line { what = "eguard version", samples = samples, ours = "empty",
    against = "true", name = "true" }
end
