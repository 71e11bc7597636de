-- SPDX-License-Identifier: MIT
-- Metrics as the real ones read them: promtool checks them, and a Prometheus
-- scrapes them.  Real time: it starts, and scrapes once a second.

local ExecutionGuard = require "executionguard"
local prometheus = require "support.prometheus"
local serving = require "support.serving"
local shell = require "support.shell"
local socket = require "socket"

local AWKWARD = { 'say "hi"', "two\nlines", "back\\slash", "zero\0byte",
                  "no \xff text", "no \\xff text", "grüße", "end\\", "other",
                  ("long"):rep(128), "{key=\"a\"} 1", "\r\t\27[31m" }
local SHOWN = { ["zero\0byte"] = "zero\\x00byte",
                ["no \xff text"] = "no \\xff text",
                ["no \\xff text"] = "no \\x5cxff text",
                ["\r\t\27[31m"] = "\\x0d\\x09\\x1b[31m" }

describe("Prometheus", function()
  local folder, guard

  setup(function()
    folder = shell.folder()
    guard = ExecutionGuard.new { store = folder.store, name = "na\"me" }
    for _, key in ipairs(AWKWARD) do
      guard:RunOnce(key, function() return 1 end)
    end
    guard:RunOnce("fails", function() error "boom" end)
  end)

  teardown(function()
    guard:Close()
    folder:remove()
  end)

  -- What promtool has to say; it says nothing to what is well.
  local function promtool(text)
    local file = assert(io.open(folder.path .. "/metrics", "w"))
    file:write(text)
    file:close()
    local result = shell.run(folder, "promtool check metrics <" ..
      shell.quote(folder.path .. "/metrics"))
    return result.status, result.out .. result.err
  end

  it("'s promtool passes them", function()
    local many <close> = ExecutionGuard.new()
    for i = 1, 300 do many:RunOnce("key " .. i, function() end) end
    assert.same({ 0, "" },
      { promtool(ExecutionGuard.metrics { top = 200 }) })
    local eguard = shell.run(folder, "eguard metrics --name='na\"me' --top=3")
    assert.equal(0, eguard.status)
    assert.same({ 0, "" }, { promtool(eguard.out) })
    assert.equal(guard:Metrics { top = 3 }, eguard.out)
    assert.not_equal(0, (promtool(guard:Metrics { openmetrics = true })),
      "promtool takes OpenMetrics 1.0 now: say so in the documents")
  end)

  it("scrapes them, in both formats and from eguard serve", function()
    local kind = "text/plain; version=0.0.4; charset=utf-8"
    local strict = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    local pages = prometheus.pages {
      ["/text"] = function() return guard:Metrics(), kind end,
      ["/open"] = function()
        return guard:Metrics { openmetrics = true }, strict
      end }
    local live = serving.start(folder, "--name='na\"me'")
    local server = prometheus.start(folder, {
      text = { address = pages.address, path = "/text" },
      open = { address = pages.address, path = "/open" },
      serve = { address = live.url:match "//([^/]+)", path = "/metrics" } })
    local up, at
    for _ = 1, 600 do
      pages.serve(0.1)
      at = socket.gettime()
      up = server.values("executionguard_executions_total", "job", at)
      if up.text and up.open and up.serve then break end
    end
    local n = tostring(#AWKWARD + 1)
    assert.same({ text = n, open = n, serve = n }, up, server.log())
    assert.same({ text = "1", open = "1", serve = "1" },
      server.values("up", "job", at))
    local keys = server.values("executionguard_key_executions_total", "key",
      at)
    for _, key in ipairs(AWKWARD) do
      assert.equal("1", keys[SHOWN[key] or key], key)
    end
    assert.equal("1", server.values("executionguard_key_failed_total",
      "key", at).fails)
    assert.equal(n, server.values("executionguard_executions_total",
      "namespace", at)['na"me'])
    local known = server.get "/api/v1/metadata".data
    local units = {}
    for _, one in ipairs(known.executionguard_run_seconds) do
      assert.equal("histogram", one.type)
      units[one.unit] = true
    end
    assert.is_true(units.seconds) -- by OpenMetrics only
    assert.equal("counter", known.executionguard_executions_total[1].type)
    server.stop()
    live:stop()
    pages.stop()
  end)
end)
