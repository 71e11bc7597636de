-- SPDX-License-Identifier: MIT
-- The page of eguard serve in Chromium: the first view, and scrolling.

local measure = require "measure"

-- build is the bench's own folder, below the build.
return function(report, here, build, quick)
  local root = build .. "/.."
  local modules = root .. "/node/node_modules"
  local file = io.open(modules .. "/playwright-core/package.json")
  if not file then
    print "page: left out, there is no playwright-core (make test-page)"
    return
  end
  file:close()
  local samples = measure.figures(("PATH=%s/bin:$PATH LUA_PATH='%s/lua/?.lua;"
    .. "%s/lua/?/init.lua;;' LUA_CPATH='%s/lua/?.so;;' NODE_PATH=%s node "
    .. "%s/page.js %d"):format(root, root, root, root, modules, here,
    quick and 3 or 9))
  report:line { what = "page, 10,000 keys: first view in Chromium",
    samples = samples, ours = "full", against = "none", name = "no key",
    goal = 3 }
  report:line { what = "its list scrolled: frames dropped",
    samples = samples, ours = "dropped", against = "frames",
    name = "all frames", goal = 5, absolute = true, unit = "%" }
  report:line { what = "the same, with nothing moved: the machine's",
    samples = samples, ours = "still", against = "frames",
    name = "all frames", unit = "%" }
  report:line { what = "its list scrolled: script a frame",
    samples = samples, ours = "script", against = "full",
    name = "the first view" }
end
