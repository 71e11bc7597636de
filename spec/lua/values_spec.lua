-- SPDX-License-Identifier: MIT
-- Results: a shared guard stores data and gives back its like; a private one
-- gives back the value itself.

local world = require "support.world"

local function never() error("fn was called", 0) end

for _, way in ipairs(world.ways) do
  describe("a result of a shared guard " .. way.name .. ":", function()
    local guard, other

    before_each(function()
      world.start(true)
      local name = world.name()
      guard = world.new(way, { name = name })
      other = world.new(way, { name = name })
    end)

    after_each(function()
      guard:Close()
      other:Close()
      world.stop()
    end)

    -- Stores the value and gives what another guard reads of it.
    local function trip(value, options)
      guard:Reset "k"
      local ok, result, why = guard:RunOnce("k", function()
        return value
      end, options)
      assert.is_true(ok, tostring(result) .. " " .. tostring(why))
      assert.is_true(rawequal(value, result) or value ~= value)
      local _, cached, reason = other:RunOnce("k", never)
      if value == nil then
        assert.equal("completed", reason)
      else
        assert.equal("cached", reason)
      end
      if value == value then
        assert.same(cached, other:GetResult "k")
        assert.same(cached, other:GetRecord("k").result)
        assert.same(cached, other:GetAllRecords().k.result)
      end
      return cached
    end

    local function same(value)
      local found = trip(value)
      assert.equal(math.type(value), math.type(found))
      assert.same(value, found)
      return found
    end

    -- Fails to store it; gives the message.
    local function refused(value, options)
      guard:Reset "k"
      local ok, message, why
      local counted = world.counted(function()
        ok, message, why = guard:RunOnce("k", function()
          return value
        end, options)
      end)
      assert.is_false(ok)
      assert.equal("failed", why)
      assert.equal("string", type(message))
      assert.same({ totalExecutions = 1, failedExecutions = 1 }, counted)
      local record = other:GetRecord "k"
      assert.equal("Failed", record.status)
      assert.is_false(record.locked)
      assert.is_nil(record.result)
      assert.equal(message, record.error:sub(1, #message))
      return message
    end

    it("nil", function() assert.is_nil(trip(nil)) end)

    it("booleans", function()
      same(true)
      same(false)
    end)

    it("integers", function()
      for bits = 0, 63 do
        for step = -2, 2 do
          same((1 << bits) + step)
          same(-(1 << bits) + step)
        end
      end
      same(math.maxinteger)
      same(math.mininteger)
    end)

    it("floats stay floats", function()
      for _, x in ipairs { 0.0, 1.0, -1.0, 1.5, 1e300, 5e-324, 2.0 ^ 53,
        2.0 ^ 63, -2.0 ^ 63, math.pi, math.huge, -math.huge } do
        local found = same(x)
        assert.equal("float", math.type(found))
      end
      assert.equal(-math.huge, 1 / same(-0.0))
      local nan = trip(0 / 0)
      assert.is_true(nan ~= nan)
    end)

    it("strings of any length and any bytes", function()
      for _, n in ipairs { 0, 1, 31, 32, 33, 127, 128, 255, 256, 257,
        65535, 65536, 100000 } do
        same(("s"):rep(n))
        same(("\0\255"):rep(n // 2))
      end
      local all = {}
      for byte = 0, 255 do all[byte + 1] = string.char(byte) end
      same(table.concat(all))
    end)

    it("arrays", function()
      for _, n in ipairs { 0, 1, 2, 15, 16, 17, 255, 1000, 65535,
        65536 } do
        local t = {}
        for i = 1, n do t[i] = i end
        local found = trip(t)
        assert.equal(n, #found)
        assert.is_nil(next(found, n > 0 and n or nil))
        assert.equal(t[n], found[n])
      end
      same { false, true, 1, 2.5, "three", { "four" } }
    end)

    it("maps with keys that are strings or integers", function()
      same { a = 1, b = "two", [""] = 3, ["a\0b"] = 4 }
      same { [0] = "zero", [-1] = "minus", [math.maxinteger] = 1,
        [math.mininteger] = 2 }
      same { 1, 2, x = 3 }
      same { [1] = 1, [2] = 2, [4] = 4 }
      same { [2] = 2 }
      local t = {}
      for i = 1, 70000 do t["key" .. i] = i end
      local found = trip(t, { maxResult = 1 << 24 })
      assert.equal(70000, found.key70000)
    end)

    it("an empty table is an array, and empty", function()
      assert.same({}, trip {})
    end)

    it("what is put into a table afterwards is not stored", function()
      local t = { 1 }
      trip(t)
      t[2] = 2
      assert.same({ 1 }, guard:GetResult "k")
      other:GetResult("k")[5] = 5
      assert.same({ 1 }, guard:GetResult "k")
    end)

    it("a table given twice becomes two tables", function()
      local part = { "part" }
      local found = trip { part, part, { part } }
      assert.same({ { "part" }, { "part" }, { { "part" } } }, found)
      assert.is_false(rawequal(found[1], found[2]))
    end)

    local function nested(levels)
      local t = {}
      for _ = 2, levels do t = { t } end
      return t
    end

    local function nested_map(levels)
      local t = { x = 1 }
      for _ = 2, levels do t = { x = t } end
      return t
    end

    it("100 levels, and no more", function()
      same(nested(99))
      same(nested(100))
      same(nested_map(100))
      assert.matches("100", refused(nested(101)))
      assert.matches("100", refused(nested_map(101)))
      refused(nested(10000))
      refused(nested_map(10000))
    end)

    it("a cycle", function()
      local t = {}
      t.self = t
      assert.matches("^result%.self: ", refused(t))
      local a, b = {}, {}
      a.b, b.list = b, { 1, a }
      assert.matches("result.b.list[2]", refused(a), 1, true)
    end)

    it("functions, userdata, threads: with their path", function()
      assert.matches("^result: function", refused(print))
      assert.matches("^result: userdata", refused(io.stdout))
      assert.matches("^result: thread", refused(coroutine.create(print)))
      assert.matches("result.players[3].handle: userdata", refused {
        players = { {}, {}, { handle = io.stdout } } }, 1, true)
      assert.matches("result[2].x.y[1]: function",
        refused { 1, { x = { y = { print } } } }, 1, true)
      assert.matches("result.a: thread",
        refused { a = coroutine.create(print) }, 1, true)
      assert.matches("result[-5]: function", refused { [-5] = print },
        1, true)
    end)

    it("keys that are neither string nor integer: with their path",
      function()
        for _, key in ipairs { true, false, 1.5, print, {}, io.stdout,
          math.huge } do
          assert.matches("^result: .*key", refused { [key] = 1 })
          assert.matches("^result%.deep%[1%]: .*key",
            refused { deep = { { [key] = 1 } } })
        end
      end)

    it("long and binary paths do no harm", function()
      local t = print
      for i = 1, 50 do t = { [("long name %d"):format(i):rep(9)] = t } end
      assert.matches("^result", refused(t))
      assert.matches("^result", refused { ["a\0b\n"] = print })
      assert.matches("^result", refused { [("k"):rep(100000)] = print })
    end)

    it("metatables are not asked", function()
      local t = setmetatable({ 1, 2 }, { __index = never, __len = never,
        __pairs = never })
      assert.same({ 1, 2 }, trip(t))
      assert.is_nil(getmetatable(guard:GetResult "k"))
    end)

    it("maxResult: exactly that many bytes are taken", function()
      -- MessagePack: a string of n bytes (256 < n < 65536) is n + 3 bytes
      assert.equal(1000 - 3,
        #trip(("x"):rep(1000 - 3), { maxResult = 1000 }))
      local message = refused(("x"):rep(1000 - 2), { maxResult = 1000 })
      assert.matches("1000", message)
      -- an array of n small integers (n < 16) is n + 1 bytes
      trip({ 1, 2, 3 }, { maxResult = 4 })
      refused({ 1, 2, 3, 4 }, { maxResult = 4 })
      refused({ 1, { 2, { 3 } } }, { maxResult = 5 })
      trip({ 1, { 2, { 3 } } }, { maxResult = 6 })
      trip(1, { maxResult = 1 })
      refused(1, { maxResult = 0 })
      refused({ text = ("x"):rep(2000) }, { maxResult = 1000 })
    end)

    it("maxResult is 1 MiB by default", function()
      local most = (1 << 20) - 5
      assert.equal(most, #trip(("x"):rep(most)))
      refused(("x"):rep(most + 1))
      refused(("x"):rep(1 << 24))
    end)

    it("maxResult of new", function()
      local small = world.new(way, { name = world.name(), maxResult = 10 })
      local ok, _, why = small:RunOnce("k", function()
        return ("x"):rep(20)
      end)
      assert.is_false(ok)
      assert.equal("failed", why)
      small:Close()
    end)

    it("one that cannot be stored is no matter without cacheResult",
      function()
        local ok, result = guard:RunOnce("k", function()
          return print
        end, { cacheResult = false })
        assert.is_true(ok)
        assert.equal(print, result)
      end)

    it("one that cannot be stored keeps an earlier one", function()
      trip "first"
      guard:RunOnce("k", function() return print end,
        { allowRerun = true })
      assert.equal("Failed", guard:GetStatus "k")
      assert.equal("first", other:GetResult "k")
    end)

    it("one that cannot be stored, too late: timeout", function()
      local ok, _, why = guard:RunOnce("k", function()
        world.advance(2)
        return print
      end, { timeout = 1 })
      assert.is_false(ok)
      assert.equal("timeout", why)
    end)

    it("one that cannot be stored has an errorTtl", function()
      local message = refused(print, { errorTtl = 10 })
      assert.same({ false, message, "failed", 10.0 },
        { guard:RunOnce("k", never) })
    end)

    it("large ones go again and again", function()
      for i = 1, world.scaled(200) do
        local found = trip(("x"):rep(i * 997))
        assert.equal(i * 997, #found)
      end
    end)

    it("random ones come back as they were", function()
      math.randomseed(42)
      local function value(depth)
        local kind = math.random(depth > 4 and 5 or 7)
        if kind == 1 then return math.random(0) end
        if kind == 2 then return math.random(-200, 200) end
        if kind == 3 then return math.random() * 10 ^ math.random(-9, 9) end
        if kind == 4 then return math.random(2) == 1 end
        if kind == 5 then return ("v"):rep(math.random(0, 300)) end
        local t = {}
        for i = 1, math.random(0, 20) do
          t[kind == 6 and i or "k" .. math.random(99)] = value(depth + 1)
        end
        return t
      end
      for _ = 1, world.scaled(2000) do
        local v = value(1)
        guard:RunOnce("k", function() return v end, { allowRerun = true })
        assert.same(v, other:GetResult "k")
      end
    end)
  end)

  local private = world.private(way, describe)
  private("a result of a private guard " .. way.name .. ":", function()
    local guard

    before_each(function() guard = world.new(way) end)
    after_each(function() guard:Close() end)

    local cyclic = {}
    cyclic.self = cyclic

    it("is the same Lua value", function()
      for i, value in ipairs { true, false, 0, 1.0, math.mininteger,
        math.huge, "", "text", ("x"):rep(1 << 21), {}, cyclic, print,
        function() end, coroutine.create(print), io.stdout,
        setmetatable({}, { __eq = never, __index = never }) } do
        local key = "k" .. i
        local ok, result = guard:RunOnce(key, function()
          return value
        end)
        assert.is_true(ok)
        assert.is_true(rawequal(value, result))
        ok, result = guard:RunOnce(key, never)
        assert.is_true(ok)
        assert.is_true(rawequal(value, result))
        assert.is_true(rawequal(value, guard:GetResult(key)))
        assert.is_true(rawequal(value, guard:GetRecord(key).result))
        assert.is_true(rawequal(value, guard:GetAllRecords()[key].result))
        assert.is_true(guard:HasResult(key))
        assert.equal(math.type(value), math.type(guard:GetResult(key)))
      end
    end)

    it("floats and integers stay what they are", function()
      guard:RunOnce("z", function() return -0.0 end)
      assert.equal(-math.huge, 1 / guard:GetResult "z")
      guard:RunOnce("n", function() return 0 / 0 end)
      local nan = guard:GetResult "n"
      assert.is_true(nan ~= nan)
      for bits = 0, 63 do
        local key = "i" .. bits
        guard:RunOnce(key, function() return -(1 << bits) end)
        assert.equal(-(1 << bits), guard:GetResult(key))
        assert.equal("integer", math.type(guard:GetResult(key)))
      end
    end)

    it("maxResult does not matter", function()
      assert.is_true((guard:RunOnce("k", function()
        return ("x"):rep(1000)
      end, { maxResult = 1 })))
      assert.equal(1000, #guard:GetResult "k")
    end)

    it("is let go with the result", function()
      local weak = setmetatable({}, { __mode = "v" })
      local ways_out = {
        function() guard:Reset "k" end,
        function() guard:ClearResult "k" end,
        function() guard:ResetAll() end,
        function()
          guard:RunOnce("k", function() end, { allowRerun = true })
        end,
        function()
          guard:RunOnce("k", function() return 5 end,
            { allowRerun = true })
        end,
        function()
          guard:RunOnce("k", function() return {} end,
            { allowRerun = true })
        end,
        function() guard:Close() end,
      }
      for i, way_out in ipairs(ways_out) do
        guard:RunOnce("k", function()
          weak[i] = {}
          return weak[i]
        end, { allowRerun = true })
        world.collect()
        assert.is_not_nil(weak[i])
        way_out()
        world.collect()
        assert.is_nil(weak[i])
      end
    end)

    it("is let go with the guard", function()
      local weak = setmetatable({}, { __mode = "v" })
      do
        local mine = world.new(way)
        mine:RunOnce("k", function()
          weak[1] = { mine }
          return weak[1]
        end)
      end
      world.collect()
      assert.is_nil(weak[1])
    end)

    it("is no other guard's", function()
      local second = world.new(way)
      local value = {}
      guard:RunOnce("k", function() return value end)
      assert.is_nil(second:GetResult "k")
      second:Close()
      assert.equal(value, guard:GetResult "k")
    end)
  end)
end
