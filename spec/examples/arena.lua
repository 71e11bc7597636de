-- SPDX-License-Identifier: MIT
-- A small arena server that does everything once, and 20 bots that ask for
-- everything twice.
--
--   lua5.4 arena.lua
--
-- The server listens on a loopback port that the system chooses, and starts
-- this script a second time as another process, for the bots.  Each bot comes
-- in on two connections, "pc" and "phone", loads its player's data, claims the
-- daily reward twice, buys with one order number from both connections at
-- once, plays a round and leaves.  At the end the server compares what really
-- ran with what the guard has recorded; the exit status is 0 only if both
-- agree, all bots got through, and none of them saw a wrong answer.
--
-- The server is one thread.  Each connection is served by a coroutine, which
-- yields while it waits for a request, or for a (pretended) database: so a
-- second request can come in while the first is under way.  That is what the
-- guard is for.

local socket = require "socket"

local BOTS <const> = 20
local LIMIT <const> = 60 -- seconds; a run takes less than one
local PAUSE <const> = 0.004 -- seconds before asking again after BUSY
local START_COINS <const>, REWARD <const>, PRICE <const> = 100, 50, 30

local started = socket.gettime()

local function check_limit()
  if socket.gettime() - started > LIMIT then
    error(("not done after %d s"):format(LIMIT), 0)
  end
end

-- A connection gives lines.  next_line returns one, or nil and "timeout" where
-- there is none yet.
local function new_connection(sock)
  sock:settimeout(0)
  sock:setoption("tcp-nodelay", true)
  return { sock = sock, partial = "" }
end

local function next_line(connection)
  local line, err, partial =
    connection.sock:receive("*l", connection.partial)
  connection.partial = line and "" or partial
  return line, err
end

local function send(connection, line)
  assert(connection.sock:send(line .. "\n"))
end

------------------------------------------------------------------ the bots --

-- Both are called in the coroutine of a bot, which is resumed again and again.

local function answer(connection)
  while true do
    local line, err = next_line(connection)
    if line then
      return line
    elseif err ~= "timeout" then
      error("the server hung up", 0)
    end
    coroutine.yield()
  end
end

-- Sends the request; again after a pause for as long as the answer is BUSY.
local function ask(connection, request)
  while true do
    send(connection, request)
    local line = answer(connection)
    if line ~= "BUSY" then
      return line
    end
    local again = socket.gettime() + PAUSE
    while socket.gettime() < again do
      coroutine.yield()
    end
  end
end

-- The same request on both connections, the second before the first one is
-- answered.
local function ask_both(bot, request)
  send(bot.pc, request)
  send(bot.phone, request)
  local first, second = answer(bot.pc), answer(bot.phone)
  local busy = (first == "BUSY" or second == "BUSY") and " (one was BUSY)"
  if first == "BUSY" then
    first = ask(bot.pc, request)
  end
  if second == "BUSY" then
    second = ask(bot.phone, request)
  end
  return first, second, busy or ""
end

local function expect(got, wanted)
  if got ~= wanted then
    error(("expected '%s', got '%s'"):format(wanted, got), 0)
  end
end

local function live(bot, say)
  local first, second, busy = ask_both(bot, "JOIN " .. bot.name)
  say(('joins twice:   "%s", "%s"%s'):format(first, second, busy))
  expect(first, ("WELCOME %d coins"):format(START_COINS))
  expect(second, first)

  first, second = ask(bot.pc, "CLAIM"), ask(bot.phone, "CLAIM")
  say(('claims twice:  "%s", "%s"'):format(first, second))
  expect(first, ("REWARD %d coins"):format(REWARD))
  expect(second, "NOTHING completed")

  first, second, busy = ask_both(bot, "BUY " .. bot.order)
  say(('buys twice:    "%s", "%s"%s'):format(first, second, busy))
  local receipt = first:match "receipt (%d+)$"
  expect(first, ("SOLD %s receipt %s"):format(bot.order, receipt))
  expect(second, first)

  first = ask(bot.pc, "PLAY")
  say(('plays:         "%s"'):format(first))
  expect(first, "PLAYED")

  first = ask(bot.pc, "LEAVE")
  say(('leaves:        "%s"'):format(first))
  expect(first, ("BYE %d coins"):format(START_COINS + REWARD - PRICE))
end

local function new_bot(port, number)
  local function connect()
    return new_connection(assert(socket.connect("127.0.0.1", port)))
  end
  local bot = { name = ("bot%02d"):format(number),
                order = ("A-%04d"):format(number),
                pc = connect(), phone = connect() }
  -- Twenty times the same story would be too much: the first one tells it.
  local function say(text)
    if number == 1 then
      print(("  %s %s"):format(bot.name, text))
    end
  end
  bot.life = coroutine.create(function() live(bot, say) end)
  return bot
end

-- Resumes every bot that is not done; returns those that are still not.
local function step(bots, errors)
  local rest = {}
  for _, bot in ipairs(bots) do
    local ok, err = coroutine.resume(bot.life)
    if not ok then
      errors[#errors + 1] = bot.name .. ": " .. tostring(err)
    end
    if coroutine.status(bot.life) == "dead" then
      bot.pc.sock:close()
      bot.phone.sock:close()
    else
      rest[#rest + 1] = bot
    end
  end
  return rest
end

-- The second process.  True if all bots got through.
local function run_bots(port)
  local bots, errors = {}, {}
  for number = 1, BOTS do
    bots[number] = new_bot(port, number)
  end
  while #bots > 0 do
    check_limit()
    local socks = {}
    for _, bot in ipairs(bots) do
      table.insert(socks, bot.pc.sock)
      table.insert(socks, bot.phone.sock)
    end
    socket.select(socks, nil, PAUSE)
    bots = step(bots, errors)
  end
  print(("  %d bots got through, %d did not"):format(BOTS - #errors, #errors))
  for _, err in ipairs(errors) do
    print("  " .. err)
  end
  return #errors == 0
end

-------------------------------------------------------------- the services --

local ExecutionGuard = require "executionguard"

local guard = ExecutionGuard.new()

-- What really ran, by key, counted beside the guard, by the work itself.
local ran = {}

local function count(key)
  ran[key] = (ran[key] or 0) + 1
end

-- Called in the coroutine of a connection: others are served meanwhile.
local function take_time(seconds)
  local ends = socket.gettime() + seconds
  repeat
    coroutine.yield(ends)
  until socket.gettime() >= ends
end

-- Every service needs the arena, and none knows which of them comes first.
local function need_arena(service)
  local ok, arena, reason = guard:RunOnce("init:arena", function()
    count "init:arena"
    return { seats = BOTS }
  end)
  print(("  %-8s needs the arena: %s"):format(
    service, reason == "cached" and "it is there already (cached)" or
             "it is built now"))
  return assert(ok and arena)
end

local Data, Shop, Rewards, Match = {}, {}, {}, {}

function Data.start()
  need_arena "Data"
end

-- -> the player, or nil where somebody else is just loading it
function Data.load(name)
  local key = "data:" .. name
  local ok, player = guard:RunOnce(key, function()
    count(key)
    take_time(0.002) -- a database would
    return { name = name, coins = START_COINS }
  end, { cacheResult = true })
  return ok and player or nil
end

function Rewards.start()
  need_arena "Rewards"
  Rewards.date = os.date "!%Y-%m-%d"
end

function Rewards.claim(player)
  local key = ("reward:%s:%s"):format(player.name, Rewards.date)
  local ok, coins, reason = guard:RunOnce(key, function()
    count(key)
    player.coins = player.coins + REWARD
    return REWARD
  end, { cacheResult = false })
  return ok and ("REWARD %d coins"):format(coins) or "NOTHING " .. reason
end

function Shop.start()
  need_arena "Shop"
  Shop.receipts = 0
end

function Shop.buy(player, order)
  local key = "order:" .. order
  local ok, receipt, reason = guard:RunOnce(key, function()
    count(key)
    take_time(0.002) -- the bank would
    player.coins = player.coins - PRICE
    Shop.receipts = Shop.receipts + 1
    return Shop.receipts
  end)
  if ok then -- now, or before: the same receipt
    return ("SOLD %s receipt %d"):format(order, receipt)
  end
  return reason == "running" and "BUSY" or "SORRY " .. reason
end

-- The map takes too long at the first try, and is drawn again.
function Match.start()
  need_arena "Match"
  Match.rounds, Match.playing, Match.most = 0, 0, 0
  Match.tries = 0
  repeat
    Match.tries = Match.tries + 1
    local ok = guard:RunOnce("init:map", function()
      count "init:map"
      if Match.tries == 1 then
        socket.sleep(0.12) -- longer than allowed
      end
      return "map"
    end, {
      timeout = 0.05,
      onTimeout = function()
        print "  Match    draws its map: not done in 0.05 s, does not count"
      end,
    })
    -- On a busy machine the second try may be late, too.
  until ok or Match.tries == 20
  print(("  Match    draws its map again: %s at try %d"):format(
    guard:GetStatus "init:map", Match.tries))
end

function Match.play()
  local lock <close> = guard:Lock("match", 0) -- a server does not wait
  if not lock then
    return "BUSY"
  end
  Match.playing = Match.playing + 1
  Match.most = math.max(Match.most, Match.playing)
  take_time(0.002)
  Match.playing = Match.playing - 1
  Match.rounds = Match.rounds + 1
  return lock:Held() and "PLAYED" or "LOST"
end

---------------------------------------------------------------- the server --

local server = { open = 0, accepted = 0, left = 0, busy = 0, errors = {} }

local function respond(session, request)
  local verb, argument = request:match "^(%u+) ?(%S*)$"
  local player = session.player
  if verb == "JOIN" then
    session.player = Data.load(argument)
    return session.player and
           ("WELCOME %d coins"):format(session.player.coins) or "BUSY"
  elseif player == nil then
    return "WHO are you?"
  elseif verb == "CLAIM" then
    return Rewards.claim(player)
  elseif verb == "BUY" then
    return Shop.buy(player, argument)
  elseif verb == "PLAY" then
    return Match.play()
  elseif verb == "LEAVE" then
    server.left = server.left + 1
    return ("BYE %d coins"):format(player.coins)
  end
  return "WHAT is " .. request .. "?"
end

-- The coroutine of a connection.  It yields nothing while it waits for the
-- socket, or the time when it wants to go on.
local function serve(connection)
  local session = {}
  while true do
    local request, err = next_line(connection)
    if request then
      local reply = respond(session, request)
      server.busy = server.busy + (reply == "BUSY" and 1 or 0)
      send(connection, reply)
    elseif err == "timeout" then
      coroutine.yield()
    else
      return
    end
  end
end

local function resume(connection)
  local ok, wake = coroutine.resume(connection.thread, connection)
  if not ok then
    table.insert(server.errors, debug.traceback(connection.thread, wake))
  end
  connection.wake = wake
  if coroutine.status(connection.thread) == "dead" then
    connection.sock:close()
    server.connections[connection.sock] = nil
    server.open = server.open - 1
  end
end

local function accept(listener)
  local sock = listener:accept()
  while sock do
    local connection = new_connection(sock)
    connection.thread = coroutine.create(serve)
    server.connections[sock] = connection
    server.open = server.open + 1
    server.accepted = server.accepted + 1
    sock = listener:accept()
  end
end

-- What to wait for: sockets, and for how long at most.
local function wait_list(listener)
  local socks, patience = { listener }, 1
  local now = socket.gettime()
  for sock, connection in pairs(server.connections) do
    if connection.wake then
      patience = math.min(patience, math.max(0, connection.wake - now))
    else
      table.insert(socks, sock)
    end
  end
  return socks, patience
end

-- Serves until everybody who came is gone.
local function serve_all(listener)
  server.connections = {}
  listener:settimeout(0)
  repeat
    check_limit()
    local socks, patience = wait_list(listener)
    local ready, now = socket.select(socks, nil, patience), socket.gettime()
    accept(listener)
    for _, sock in ipairs(ready) do
      local connection = server.connections[sock]
      if connection then -- and not the listener
        resume(connection)
      end
    end
    for _, connection in pairs(server.connections) do
      if connection.wake and connection.wake <= now then
        resume(connection)
      end
    end
  until server.accepted > 0 and server.open == 0
end

-- Starts this script as another process, for the bots.
local function start_bots(port)
  local first = 0
  while arg[first - 1] do
    first = first - 1 -- the interpreter, before its own options
  end
  local words = { arg[first], arg[0], "bots", tostring(port) }
  for i, word in ipairs(words) do
    words[i] = "'" .. word:gsub("'", "'\\''") .. "'"
  end
  return assert(io.popen(table.concat(words, " "), "r"))
end

--------------------------------------------------------------- the account --

-- All records whose key begins so: how many, how many that ran in truth, how
-- many by the guard, and whether each agrees with the work's own count.
local function take_stock(prefix)
  local stock = { keys = 0, ran = 0, recorded = 0, agrees = true }
  for key, record in pairs(guard:GetAllRecords()) do
    if key:sub(1, #prefix) == prefix then
      local truth = ran[key] or 0
      stock.keys = stock.keys + 1
      stock.ran = stock.ran + truth
      stock.recorded = stock.recorded + record.executionCount
      stock.agrees = stock.agrees and truth == record.executionCount and
                     record.status == "Completed"
    end
  end
  return stock
end

-- Prints a line and returns whether it is as it should be: so many keys, and
-- so many runs for all of them.
local function compare(what, prefix, keys, runs)
  local stock = take_stock(prefix)
  local good = stock.agrees and stock.keys == keys and stock.ran == runs
  print(("  %-34s %8d %8d %8d  %s"):format(what, runs, stock.ran,
    stock.recorded, good and "ok" or "WRONG"))
  return good
end

-- Says what is wrong, if anything is, and returns whether all is well.
local function demand(good, what)
  if not good then
    print("  WRONG: " .. what)
  end
  return good
end

local function settle()
  print "What really ran, counted by the work itself, and what was recorded:\n"
  print(("  %-34s %8s %8s %8s"):format("", "expected", "ran", "recorded"))
  local total = 0
  for _, n in pairs(ran) do
    total = total + n
  end
  local counts = ExecutionGuard.getGlobalStats()
  local checks = {
    compare("initialisation, for 4 services", "init:arena", 1, 1),
    compare("the map, tries in all", "init:map", 1, Match.tries),
    compare("players' data loaded", "data:", BOTS, BOTS),
    compare("daily rewards", "reward:", BOTS, BOTS),
    compare("orders", "order:", BOTS, BOTS),
    compare("everything", "", 2 + 3 * BOTS, 1 + Match.tries + 3 * BOTS),
  }
  print(("\n  %d rounds were played, at most %d at a time; %d requests came "
         .. "at a busy moment."):format(Match.rounds, Match.most, server.busy))
  table.insert(checks, demand(Match.rounds == BOTS and Match.most == 1,
    "one round for each bot, one at a time"))
  table.insert(checks, demand(server.left == BOTS, "every bot has to leave"))
  table.insert(checks, demand(Match.tries > 1 and
    counts.timedOutExecutions == Match.tries - 1,
    "the map has to time out, and each time be counted"))
  table.insert(checks, demand(counts.totalExecutions == total and
    counts.failedExecutions == 0, "the counts of the process disagree"))
  local good = true
  for _, well in ipairs(checks) do
    good = good and well
  end
  return good
end

local function run_server()
  local listener = assert(socket.bind("127.0.0.1", 0, 2 * BOTS))
  local _, port = listener:getsockname()
  print(("The arena opens on port %d.\n"):format(port))
  Data.start()
  Shop.start()
  Rewards.start()
  Match.start()

  print(("\n%d bots come in, on two connections each, and ask for everything "
         .. "twice.\n"):format(BOTS))
  local bots = start_bots(port)
  local ok, err = pcall(serve_all, listener)
  listener:close()
  for _, connection in pairs(server.connections) do
    connection.sock:close() -- after an error: the bots end when we hang up
  end
  for line in bots:lines() do
    print(line)
  end
  local through = bots:close()

  print ""
  ExecutionGuard.printSummary(guard)
  print ""
  local good = settle()
  if not ok then
    table.insert(server.errors, err)
  end
  for _, text in ipairs(server.errors) do
    print("  server: " .. tostring(text))
  end
  good = good and through and #server.errors == 0
  print(("\n%s (%.2f s)"):format(
    good and "Everything ran as often as it should." or
    "SOMETHING IS WRONG: see above.", socket.gettime() - started))
  return good
end

local good
if arg[1] == "bots" then
  good = run_bots(math.tointeger(arg[2]))
else
  good = run_server()
end
os.exit(good and 0 or 1, true)
