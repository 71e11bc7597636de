-- SPDX-License-Identifier: MIT
-- Guards on a server: the same words and answers as in memory, between guards
-- that share nothing but the server.  Loaded by the spec of each kind of
-- server, in its environment.

local world = require "support.world"
local servers = require "support.server"
local core = require "executionguard.core"

local ExecutionGuard = world.EG

local kind = ...
-- The clock of etcd cannot be moved: leases there are spec/conformance's.
local by_hand = kind ~= "etcd"

describe("a guard on " .. kind, function()
  local server, count

  setup(function() server = servers.start("with-" .. kind, by_hand) end)
  teardown(function() server.stop() end)
  before_each(function()
    world.start()
    count = (count or 0) + 1
  end)
  after_each(world.stop)

  -- Two guards on one namespace, as two programs would have them.
  local function two(options)
    local all = { store = server.url, name = "spec " .. count }
    for name, value in pairs(options or {}) do
      all[name] = value
    end
    return ExecutionGuard.new(all), ExecutionGuard.new(all)
  end

  local function timed(name, test)
    if by_hand then
      it(name, test)
    end
  end

  it("RunOnce_runs_once_and_the_other_gets_a_copy", function()
    local a, b = two()
    local result = { players = { "x", "y" }, n = 3 }
    assert.same({ true, result },
      { a:RunOnce("k", function() return result end) })
    local ok, got, reason = b:RunOnce("k", function() return "again" end)
    assert.is_true(ok)
    assert.same(result, got)
    assert.are_not.equal(result, got)
    assert.equal("cached", reason)
    assert.equal("Completed", b:GetStatus "k")
    assert.same(result, b:GetResult "k")
    assert.equal(1, b:GetRecord("k").executionCount)
  end)

  local function run(guard, key, seconds, failure)
    return guard:RunOnce(key, function()
      if by_hand then world.advance(seconds) end
      if failure then error(failure, 0) end
    end, { allowRerun = true })
  end

  it("History_has_the_runs_of_both_newest_first", function()
    local a, b = two { owner = "me" }
    run(a, "k", 1)
    run(b, "k", 2, "boom")
    run(a, "other", 3)
    local past = b:History "k"
    assert.equal(2, #past)
    assert.is_true(past[1].token > past[2].token)
    assert.equal("Failed", past[1].status)
    assert.matches("^boom", past[1].error)
    assert.equal("Completed", past[2].status)
    assert.equal("me", past[2].owner)
    assert.equal("k", past[2].key)
    assert.is_nil(past[2].error)
    if by_hand then
      assert.is_near(1, past[2].duration, 1e-6)
      assert.is_near(2, past[1].duration, 1e-6)
      assert.is_near(past[1].startTime + 2, past[1].endTime, 1e-3)
    end
    assert.same({}, b:History "never")
    assert.equal("other", b:History()[1].key)
    assert.equal(3, #b:History())
    assert.equal(2, #b:History(nil, 2))
    assert.equal(1, #b:History("k", 1))
  end)

  it("History_has_neither_locks_nor_what_was_reset", function()
    local a, b = two()
    a:AcquireLock "k"
    a:ReleaseLock "k"
    a:RunOnce("k", function() b:Reset "k" end)
    assert.same({}, a:History "k")
    run(a, "k", 1)
    a:Reset "k"
    assert.equal(1, #b:History "k")
  end)

  it("History_is_bounded_for_each_key", function()
    local a, b = two()
    for _ = 1, 125 do
      run(a, "k", 1, ("x"):rep(2000))
    end
    run(a, "l\0}:h", 1)
    local past = b:History("k", 1000)
    local least = ({ etcd = 20, redis = 100, postgres = 125 })[kind]
    assert.is_true(#past >= least and #past < least + 10, #past)
    assert.is_true(#past[1].error <= 500)
    for i = 2, #past do
      assert.is_true(past[i].token < past[i - 1].token)
    end
    assert.equal(#past + 1, #b:History(nil, 1000))
    local keys = {}
    for _, one in ipairs(b:History(nil, 1000)) do
      keys[one.key] = (keys[one.key] or 0) + 1
    end
    assert.same({ k = #past, ["l\0}:h"] = 1 }, keys)
    assert.equal(2, b:GetAnalytics().totalRecords)
  end)

  it("RunOnce_while_the_other_runs_is_refused", function()
    local a, b = two()
    local seen
    a:RunOnce("k", function()
      seen = { b:RunOnce("k", function() return "mine" end) }
      assert.is_true(b:IsLocked "k")
      assert.equal("Running", b:GetStatus "k")
      return 1
    end)
    assert.same({ false, nil, "running" }, { seen[1], seen[2], seen[3] })
  end)

  it("RunOnce_that_fails_can_be_run_by_the_other", function()
    local a, b = two()
    local ok, why, reason = a:RunOnce("k", function() error("no", 0) end)
    assert.same({ false, "no", "failed" }, { ok, why, reason })
    assert.equal("Failed", b:GetStatus "k")
    assert.matches("^no", b:GetRecord("k").error)
    assert.same({ true, 2 }, { b:RunOnce("k", function() return 2 end) })
  end)

  it("RunOnce_that_was_reset_is_lost", function()
    local a, b = two()
    local ok, _, reason = a:RunOnce("k", function()
      b:Reset "k"
      return 1
    end)
    assert.same({ false, "lost" }, { ok, reason })
    assert.equal("Idle", b:GetStatus "k")
  end)

  it("result_that_is_no_data_fails_and_names_the_place", function()
    local a = two()
    local ok, why = a:RunOnce("k", function()
      return { list = { print } }
    end)
    assert.is_false(ok)
    assert.matches("result.list[1]", tostring(why), 1, true)
  end)

  it("lock_is_exclusive_until_it_is_released_or_closed", function()
    local a, b = two()
    local ok, token = a:AcquireLock("k", 0)
    assert.is_true(ok)
    assert.same({ false, "locked" }, { b:AcquireLock("k", 0) })
    assert.is_true(b:IsLocked "k")
    assert.is_false(b:ReleaseLock "k")
    assert.is_true(a:ReleaseLock("k", token))
    assert.is_false(b:IsLocked "k")
    local _, next_token = b:AcquireLock("k", 0)
    assert.is_true(next_token > token)
    b:Close()
    assert.is_true(a:AcquireLock("k", 0))
  end)

  -- Another process, which dies while it holds a lock.
  local function die_holding(lease)
    local program = [[
      local guard = require "executionguard".new {
        store = os.getenv "URL", name = os.getenv "NAME" }
      assert(guard:AcquireLock("k", 0))
      local self = io.open "/proc/self/stat":read "n"
      os.execute("kill -KILL " .. self)
    ]]
    local url = lease and server.with("lease=" .. lease) or server.url
    os.execute(("URL='%s' NAME='spec %d' lua5.4 -e '%s' 2>/dev/null")
      :format(url, count, program))
  end

  timed("lock_of_an_owner_that_is_gone_ends_with_its_lease", function()
    local a, b = two()
    die_holding(4)
    server.advance(3.9)
    assert.same({ false, "locked" }, { b:AcquireLock("k", 0) })
    server.advance(0.1)
    assert.is_true(b:AcquireLock("k", 0))
    assert.is_false(a:ReleaseLock "k")
    assert.is_true(b:IsLocked "k")
  end)

  timed("lease_is_15_seconds_where_nothing_is_said", function()
    local _, b = two()
    die_holding()
    server.advance(14.999)
    assert.is_true(b:IsLocked "k")
    server.advance(0.001)
    assert.is_false(b:IsLocked "k")
  end)

  timed("leases_are_renewed_until_the_release", function()
    local a, b = two { lease = 6 }
    local lock = a:Lock("k", 0)
    for _ = 1, 10 do
      server.advance(2)
      assert.is_true(lock:Held())
      assert.same({ false, "locked" }, { b:AcquireLock("k", 0) })
    end
    assert.is_true(lock:Release())
    assert.is_true(b:AcquireLock("k", 0))
    assert.is_false(lock:Held())
  end)

  timed("leases_end_for_good_with_maxHold", function()
    local a, b = two { lease = 6, maxHold = 20 }
    local lock = a:Lock("k", 0)
    for _ = 1, 9 do
      server.advance(2)
      assert.same({ false, "locked" }, { b:AcquireLock("k", 0) })
    end
    server.advance(2)
    assert.is_false(lock:Held())
    assert.is_true(b:AcquireLock("k", 0))
    assert.is_false(lock:Release())
  end)

  timed("run_whose_lease_cannot_be_renewed_is_lost_before_it_ends", function()
    local a, b = two { lease = 6 }
    local lost, inside
    local ok, _, reason = a:RunOnce("k", function()
      server.away(function()
        core.clock.advance(5.5) -- the server's clock stands still
        inside = ExecutionGuard.expired()
      end)
      return 1
    end, { timeout = 0, onLost = function(key) lost = key end })
    assert.same({ false, "lost", true, "k" }, { ok, reason, inside, lost })
    server.advance(6)
    assert.equal("Failed", b:GetStatus "k")
    assert.equal("owner died", b:GetRecord("k").error)
    assert.same({ true, 2 }, { b:RunOnce("k", function() return 2 end) })
  end)

  timed("cooldown_and_lifetimes_count_by_the_server", function()
    local a, b = two { cooldown = 2, resultTtl = 5, recordTtl = 9 }
    a:RunOnce("k", function() return 1 end)
    local ok, _, reason, left = b:RunOnce("k", function() end,
      { allowRerun = true })
    assert.same({ false, "cooldown" }, { ok, reason })
    assert.is_true(left > 1.9 and left <= 2)
    server.advance(2)
    assert.equal(1, b:GetResult "k")
    server.advance(3)
    assert.is_nil(b:GetResult "k")
    server.advance(4)
    assert.is_nil(b:GetRecord "k")
  end)

  it("record_says_who_holds_it_and_all_are_listed", function()
    local a, b = two { owner = "the import" }
    local owner
    a:RunOnce("r", function()
      owner = b:GetRecord("r").owner
      return true
    end)
    assert.equal("the import", owner.text)
    assert.is_true(owner.pid > 0 and #owner.host > 0)
    b:RunOnce("s", function() return true end)
    local keys = {}
    for key, record in pairs(a:GetAllRecords()) do
      keys[#keys + 1] = key .. "=" .. record.status
    end
    table.sort(keys)
    assert.same({ "r=Completed", "s=Completed" }, keys)
    assert.equal(2, a:GetAnalytics().byStatus.Completed)
  end)

  it("guards_without_a_name_share_one_too", function()
    local a = ExecutionGuard.new { store = server.url }
    local b = ExecutionGuard.new { store = server.url }
    assert.is_true(a:AcquireLock("k", 0))
    assert.is_false((b:AcquireLock("k", 0)))
    assert.is_false((a:RunOnce("f", function() return print end)))
  end)

  it("join_waits_for_a_run_in_another_process", function()
    -- Real time: the other process waits on a real socket.
    world.stop()
    local a = two()
    local program = [[
      local guard = require "executionguard".new {
        store = os.getenv "URL", name = os.getenv "NAME" }
      print(guard:RunOnce("k", function() return "mine" end, { join = 20 }))
    ]]
    local command = ("URL='%s' NAME='spec %d' lua5.4 -e '%s'"):format(
      server.url, count, program)
    local child
    local ok = a:RunOnce("k", function()
      child = assert(io.popen(command))
      os.execute "sleep 0.5"
      return "theirs"
    end)
    assert.is_true(ok)
    assert.equal("true\ttheirs\tcached\n", child:read "a")
    child:close()
  end)

  -- Real time: what is asked of a server that does not answer takes that long.
  local function hasty(options)
    options.store = server.with "timeout=0.3"
    options.name = "spec " .. count
    return ExecutionGuard.new(options)
  end

  it("server_that_is_away_is_told_and_fn_does_not_run", function()
    local guard = hasty {}
    local ran = false
    local ok, why, reason = server.away(function()
      return guard:RunOnce("k", function() ran = true end)
    end)
    assert.is_false(ok)
    assert.is_false(ran)
    assert.matches(kind, why, 1, true)
    assert.is_true(reason == "unavailable" or reason == "indeterminate",
      reason)
    assert.is_false((server.away(function()
      return guard:AcquireLock("l", 0)
    end)))
  end)

  it("server_that_is_away_lets_run_where_that_is_wanted", function()
    local said = {}
    local other = two()
    local guard = hasty { whenUnavailable = "run",
      logger = function(_, text) said[#said + 1] = text end }
    local before = ExecutionGuard.getGlobalStats()
    server.away(function()
      assert.same({ true, 7 },
        { guard:RunOnce("k", function() return 7 end) })
      local ok, why, reason = guard:RunOnce("f", function() error("no", 0) end)
      assert.same({ false, "no", "failed" }, { ok, why, reason })
      local tries = 0
      assert.same({ true, 2 }, { guard:RunOnce("r", function()
        tries = tries + 1
        assert.is_true(tries == 2)
        assert.is_false(ExecutionGuard.expired())
        return tries
      end, { retry = { attempts = 2, delay = 0 } }) })
    end)
    assert.matches("without a guard", table.concat(said, "\n"), 1, true)
    local after = ExecutionGuard.getGlobalStats()
    assert.equal(before.totalExecutions + 3, after.totalExecutions)
    assert.equal(before.failedExecutions + 1, after.failedExecutions)
    assert.is_nil(other:GetResult "k")
  end)

  it("server_that_is_away_leaves_what_was_seen_last", function()
    local other = two()
    local guard = hasty { whenUnavailable = "stale", resultTtl = 60 }
    guard:RunOnce("mine", function() return { 1, 2 } end)
    other:RunOnce("theirs", function() return "x" end)
    assert.equal("x", guard:GetResult "theirs")
    server.away(function()
      local function no() error "not to be run" end
      assert.same({ true, { 1, 2 }, "cached" },
        { guard:RunOnce("mine", no) })
      assert.same({ true, "x", "cached" }, { guard:RunOnce("theirs", no) })
      local ok, why, reason = guard:RunOnce("unknown", no)
      assert.is_false(ok)
      assert.is_string(why)
      assert.is_true(reason == "unavailable" or reason == "indeterminate")
    end)
  end)

  it("outcome_that_cannot_be_stored_is_uncommitted", function()
    local guard, other = hasty {}, two()
    local ok, result, reason
    server.away(function() end) -- its number is asked for before
    local co = coroutine.wrap(function()
      return guard:RunOnce("k", function()
        coroutine.yield()
        return 3
      end)
    end)
    co()
    server.away(function() ok, result, reason = co() end)
    assert.same({ false, 3, "uncommitted" }, { ok, result, reason })
    assert.is_true(other:GetStatus "k" ~= "Failed")
  end)

  it("server_that_is_away_is_told_by_new_without_the_password", function()
    local good, why = pcall(ExecutionGuard.new,
      { store = server.url:match "^%a+" ..
        "://me:hush@127.0.0.1:1" .. (by_hand and "/0" or "") ..
        "?timeout=0.1" })
    assert.is_false(good)
    assert.matches("127.0.0.1", why, 1, true)
    assert.not_matches("hush", why, 1, true)
  end)
end)
