-- SPDX-License-Identifier: MIT
-- eguard serve as a program sees it: what it says, to whom, and what it
-- stands.  What a browser makes of it is in spec/page.

local shell = require "support.shell"
local serving = require "support.serving"
local ExecutionGuard = require "executionguard"

describe("eguard serve", function()
  local folder, server

  before_each(function() folder = shell.folder() end)
  after_each(function()
    if server then server:stop() end
    server = nil
    folder:remove()
  end)

  local function sh(command) return shell.run(folder, command) end
  local function start(options) server = serving.start(folder, options) end

  local function hold(key)
    sh(("eguard run %s -- sleep 600 >/dev/null 2>&1 & echo $! >%s/pid")
      :format(key, folder.path))
    assert.is_true(shell.comes(folder, "eguard show " .. key ..
      " 2>/dev/null | grep -q '^held by'"))
    return shell.read(folder.path .. "/pid"):match "%d+"
  end

  describe("the state", function()
    it("is what eguard ls says", function()
      sh "eguard run a -- true; eguard run b -- sh -c 'exit 3'"
      local pid = hold "c"
      start()
      local state, status = server:json "/api/state"
      assert.equal(200, status)
      assert.equal(3, state.totalRecords)
      assert.same({ 0, 1, 1, 0, 1 }, state.byStatus)
      for _, record in ipairs(shell.json(sh "eguard ls --json".out)) do
        local row = server:row(record.key)
        assert.equal(record.executionCount, row.runs)
        assert.equal(record.locked, row.locked == 1)
        assert.equal(record.error, row.error)
      end
      assert.match("pid " .. pid, server:row("c").owner)
      local runs = server:json "/api/runs"
      assert.same({ "a", "b" }, { runs.runs[1][1], runs.runs[2][1] })
      sh("kill " .. pid)
    end)

    it("has keys that are only locked, until they are not", function()
      local guard <close> = ExecutionGuard.new { store = folder.store }
      guard:AcquireLock "l"
      start()
      local state = server:json "/api/state"
      assert.same({ 0, 1, 1 }, { state.totalRecords, state.held,
                                 state.onlyLocked })
      local row = server:row "l"
      assert.same({ 1, "no record" }, { row.locked, row.note })
      assert.match("^pid %d+", row.owner)
      assert.is_true(server:json("/api/key?key=l").record.onlyLocked)
      guard:ReleaseLock "l"
      assert.is_true(shell.comes(folder, "curl -sS " .. server.url ..
        [=[/api/state | grep -q '"onlyLocked":0.*"rows":..}']=]))
    end)

    it("has the progress that a holder reports", function()
      local guard <close> = ExecutionGuard.new { store = folder.store }
      guard:RunOnce("k", function()
        start()
        assert.equal(shell.null, server:row("k").progress)
        guard:SetProgress("k", 0.25)
        assert.is_true(shell.comes(folder, "curl -sS " .. server.url ..
          [=[/api/state | grep -q '"k",1,1,.*,0.250\]']=]))
        assert.equal(0.25,
                     server:json("/api/key?key=k").record.progress)
        assert.match("progress +25.0%%", sh "eguard show k".out)
      end)
    end)

    it("names whatever a key is made of", function()
      local hostile = '<img src=x onerror=alert(1)>"\\'
      local guard <close> = ExecutionGuard.new { store = folder.store }
      guard:RunOnce(hostile, function() error("</script>\n", 0) end)
      guard:RunOnce("\xff\0k", function() end)
      start()
      assert.equal("</script>\n", server:row(hostile).error)
      assert.is_truthy(server:row "\0%FF%00k")
      local raw = server:json "/api/key?key=%FF%00k"
      assert.equal("Completed", raw.record.status)
      assert.same({}, raw.commands)
      local _, body = server:get "/api/state"
      assert.is_nil(body:find("\n</", 1, true))
    end)

    it("tells how many processes wait for a key", function()
      local pid = hold "k"
      start()
      assert.equal(0, server:row("k").waiters)
      for _ = 1, 2 do sh "eguard run --wait k -- true >/dev/null 2>&1 &" end
      assert.is_true(shell.comes(folder, "curl -sS " .. server.url ..
        [=[/api/state | grep -q '"k",1,1,[^]]*,2,"pid']=]))
      sh("kill " .. pid)
      assert.is_true(shell.comes(folder, "curl -sS " .. server.url ..
        [=[/api/state | grep -q '"k",2,0,[^]]*,0,null']=]))
    end)
  end)

  describe("a key", function()
    it("has its record, its history and the commands for it", function()
      sh "eguard run -- a -- true; eguard run a --rerun -- false"
      local pid = hold "'it'\\''s held'"
      start()
      local key = server:json "/api/key?key=it%27s%20held"
      assert.equal("Running", key.record.status)
      assert.equal(tonumber(pid), key.record.owner.pid)
      local released = sh(key.commands.release)
      assert.equal(0, released.status, released.err)
      assert.equal("Failed",
        server:json("/api/key?key=it%27s%20held").record.status)
      sh("kill " .. pid)
    end)

    it("that is not there is not found; what is no key is refused", function()
      start()
      local none, status = server:json "/api/key?key=none"
      assert.equal(404, status)
      assert.is_false(none.found)
      for _, path in ipairs { "/api/key", "/api/key?key=", "/api/key?other=k",
                              "/api/key?key=" .. ("k"):rep(513) } do
        assert.equal(400, (server:get(path)))
      end
      assert.equal(404, (server:get("/api/key?key=" .. ("k"):rep(512))))
    end)
  end)

  it("has the metrics, in the form that is asked for", function()
    sh "eguard run a -- true"
    start()
    local status, body, head = server:get "/metrics"
    assert.equal(200, status)
    assert.equal(sh "eguard metrics".out, body)
    assert.match("\nContent%-Type: text/plain; version=0.0.4", head)
    status, body, head = server:get("/metrics",
      "-H 'Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1'")
    assert.equal(200, status)
    assert.match("# EOF\n$", body)
    assert.match("\nContent%-Type: application/openmetrics%-text", head)
  end)

  describe("HTTP", function()
    before_each(function() start() end)

    it("nothing can be changed", function()
      for method in ("POST PUT DELETE PATCH OPTIONS TRACE BREW"):gmatch "%a+"
      do
        local status, _, head = server:get("/api/state",
          "-d x -X " .. method)
        assert.equal(405, status, method)
        assert.match("\nAllow: GET, HEAD\r", head)
      end
      assert.equal(405, (server:get("/login", "-d token=x")))
      assert.equal(200, (server:get("/", "-I")))
      assert.equal(200, (server:get("/api/state", "-I")))
    end)

    it("every answer has a strict policy", function()
      for _, path in ipairs { "/", "/page.js", "/api/state", "/none" } do
        local _, _, head = server:get(path)
        local policy = head:match "\nContent%-Security%-Policy: ([^\r]+)"
        assert.match("default%-src 'none'", policy)
        assert.match("require%-trusted%-types%-for 'script'", policy)
        assert.is_nil(policy:find "unsafe")
        assert.match("\nX%-Content%-Type%-Options: nosniff\r", head)
        assert.is_nil(head:find "Access%-Control")
      end
    end)

    it("the page names nothing but its own files", function()
      for _, path in ipairs { "/", "/page.css", "/page.js", "/model.js",
                              "/charts.js", "/list.js", "/key.js" } do
        local status, body = server:get(path)
        assert.equal(200, status)
        assert.is_nil(body:find "https?:[^\n]*%.%a%a")
        assert.is_nil(body:find "innerHTML")
        assert.is_nil(body:find " style=")
        assert.is_nil(body:find " on%l+=")
      end
    end)

    it("long paths and heads are refused", function()
      assert.equal(414, (server:get("/" .. ("x"):rep(60000))))
      assert.equal(404, (server:get("/" .. ("x"):rep(6000))))
      assert.equal(404, (server:get "/..%2f..%2fetc/passwd"))
      assert.equal(404, (server:get "/welcome"))
      local status = server:get("/", "-H 'X: " .. ("x"):rep(60000) .. "'")
      assert.equal(431, status)
    end)

    it("what is no HTTP is hung up on", function()
      local garbage = server:connect "\0\1\2\r\n\r\n"
      for _, text in ipairs { "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n" } do
        local client = server:connect(text)
        local said = client:receive "*a" or ""
        assert.is_truthy(said == "" or said:find "^HTTP/1.[01] [45]")
        client:close()
      end
      assert.equal(200, (server:get "/"))
      garbage:close()
    end)

    it("a slow client holds up nobody", function()
      local slow = {}
      for i = 1, 50 do
        slow[i] = server:connect "GET /api/state HTTP/1.1\r\nHost: local"
      end
      assert.equal(200, (server:get "/api/state"))
      for _, client in ipairs(slow) do
        assert(client:send "host\r\nConnection: close\r\n\r\n")
      end
      for _, client in ipairs(slow) do
        assert.match("^HTTP/1.1 200 OK.*\"rows\":%[%]}\n$",
          client:receive "*a")
        client:close()
      end
    end)

    it("only names that are ours are answered to", function()
      for _, host in ipairs { "localhost", "127.0.0.1", "localhost:80",
                              "[::1]:9464", "192.168.3.4:1" } do
        assert.equal(200, (server:get("/", "-H 'Host: " .. host .. "'")), host)
      end
      for _, host in ipairs { "evil.example", "localhost.evil.example",
                              "127.0.0.1.evil.example", "localhost:80x",
                              "[localhost]", "1", "", "@localhost" } do
        local status = server:get("/api/state", "-H 'Host: " .. host .. "'")
        assert.is_true(status == 421 or status == 400, host)
      end
    end)

    it("another site's page may not ask", function()
      local function status(...)
        local options = "-H 'Host: localhost:1'"
        for _, header in ipairs { ... } do
          options = options .. " -H '" .. header .. "'"
        end
        return (server:get("/api/state", options))
      end
      assert.equal(200, status "Origin: http://localhost:1")
      assert.equal(403, status "Origin: http://localhost:2")
      assert.equal(403, status "Origin: http://evil.example")
      assert.equal(403, status "Origin: null")
      assert.equal(200, status "Sec-Fetch-Site: same-origin")
      assert.equal(200, status "Sec-Fetch-Site: none")
      assert.equal(403, status("Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Mode: no-cors"))
      assert.equal(200, status("Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Mode: navigate"))
    end)
  end)

  describe("events", function()
    before_each(function() start() end)

    it("come to two hundred, who are told the same; some go away", function()
      local clients = {}
      for i = 1, 200 do clients[i] = server:listen() end
      for i, client in ipairs(clients) do
        assert.is_number(serving.event(client, "hello").number)
        if i % 2 == 0 then client:close() end
      end
      sh "eguard run k -- true"
      local number
      for i = 1, 200, 2 do
        local event = serving.event(clients[i], "change", '"k",')
        number = number or event.number
        assert.equal(number, event.number)
        assert.is_true(#event.rows == 1)
        if i > 1 then clients[i]:close() end
      end
      repeat
        local tick = serving.event(clients[1], "tick")
      until tick.listeners == 1
      clients[1]:close()
      local threads = sh("ls /proc/" .. server.pid .. "/task | wc -l").out
      assert.is_true(tonumber(threads) < 10, threads)
    end)

    it("tell of a key that starts, its end, its run and its end for good",
      function()
        local client = server:listen()
        serving.event(client, "hello")
        local pid = hold "k"
        local started = serving.event(client, "change", '"k",1,1,')
        assert.equal(1, started.held)
        sh("kill " .. pid)
        serving.event(client, "change", '"k",4,0,')
        client:close()
      end)

    it("who does not read is hung up on, and the others are not", function()
      local lazy = server:connect(
        "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
      assert.equal(200, (server:get "/api/state"))
      assert.is_true(server:stop())
      server = nil
      assert.match("event: hello", lazy:receive "*a" or select(3,
        lazy:receive "*a"))
      lazy:close()
    end)
  end)

  describe("with a token", function()
    local token = ("0123456789abcdef"):rep(2)

    local function token_file(mode)
      local path = folder.path .. "/token"
      sh(("echo %s >%s; chmod %s %s"):format(token, path, mode, path))
      return "--token-file=" .. path
    end

    it("it does not listen elsewhere without one", function()
      for _, place in ipairs { "0.0.0.0:0", "[::]:0" } do
        local result = sh("timeout 20 eguard serve --listen=" .. place)
        assert.equal(64, result.status)
        assert.match("%-%-token%-file=FILE or %-%-new%-token", result.err)
      end
    end)

    it("nothing is shown without it", function()
      start(token_file "600")
      for _, path in ipairs { "/", "/page.js", "/api/state", "/api/runs",
                              "/api/events", "/api/key?key=k", "/metrics",
                              "/none" } do
        local status, body = server:get(path)
        assert.equal(401, status, path)
        assert.is_nil(body:find(folder.path, 1, true))
      end
      for _, wrong in ipairs { "", token .. "0", token:sub(2),
                               "1" .. token:sub(2) } do
        assert.equal(401, (server:get("/api/state",
          "-b eguard=" .. wrong .. " -H 'Authorization: Bearer " .. wrong ..
          "'")))
      end
      assert.equal(200, (server:get("/api/state",
        "-H 'Authorization: Bearer " .. token .. "'")))
      assert.equal(200, (server:get("/",
        "-H 'Authorization: Bearer " .. token .. "'")))
    end)

    it("a link gives a cookie once", function()
      start "--new-token"
      local path = server.link:match "^http://[^/]+(/login%?code=%x+)$"
      assert.equal(403, (server:get(path .. "0")))
      assert.equal(200, (server:get(path, "-I")))
      local status, _, head = server:get(path)
      assert.equal(200, status)
      local cookie, rest = head:match "\nSet%-Cookie: ([^;]+); ([^\r]+)"
      assert.match("HttpOnly; SameSite=Strict", rest)
      assert.equal(200, (server:get("/api/state", "-b " .. cookie)))
      assert.equal(401, (server:get "/api/state"))
      assert.equal(403, (server:get(path)))
      assert.is_nil(sh("cat /proc/" .. server.pid .. "/cmdline").out
        :find(cookie:match "=(.*)", 1, true))
    end)

    it("the token of a file can be typed in", function()
      start(token_file "600")
      local function post(what)
        return server:get("/login", "-d '" .. what .. "'")
      end
      for _, wrong in ipairs { "", "token=", "token=" .. token .. "0",
                               "token=" .. ("x"):rep(100000), "x" } do
        local status, _, head = post(wrong)
        assert.equal(403, status)
        assert.is_nil(head:find "Set%-Cookie")
      end
      local status, _, head = post("token=%30" .. token:sub(2))
      assert.equal(200, status)
      assert.equal(200, (server:get("/api/state", "-b " ..
        head:match "\nSet%-Cookie: ([^;]+)")))
      assert.equal(403, (server:get("/login", "-d token=" .. token ..
        " -H 'Origin: http://evil.example'")))
    end)

    it("a token that others can read, or that is short, is refused", function()
      local result = sh("eguard serve --listen=127.0.0.1:0 " ..
        token_file "644")
      assert.equal(125, result.status)
      assert.match("others may read it", result.err)
      token = "short"
      result = sh("eguard serve --listen=127.0.0.1:0 " .. token_file "600")
      assert.match("of 16 to 255 characters", result.err)
      token = ("0123456789abcdef"):rep(2)
    end)
  end)

  it("says where it cannot listen", function()
    for _, place in ipairs { "127.0.0.1", "9464", "127.0.0.1:", ":", "a:1",
                             "127.0.0.1:65536", "[::1:1", "::1:1" } do
      local result = sh("timeout 20 eguard serve --listen=" .. place)
      assert.equal(64, result.status, place)
      assert.match("not an address and a port", result.err)
    end
    start()
    local result = sh("eguard serve --listen=127.0.0.1:" .. server.port)
    assert.equal(125, result.status)
    assert.match("in use", result.err)
  end)
end)
