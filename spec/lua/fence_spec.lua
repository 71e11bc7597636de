-- SPDX-License-Identifier: MIT
-- Tokens for what is outside of the store, and the fence of a file.

local ExecutionGuard = require "executionguard"
local fence = require "executionguard.fence"
local world = require "support.world"

describe("a token", function()
  local guard

  before_each(function()
    world.start()
    guard = ExecutionGuard.new { name = world.name() }
  end)
  after_each(world.stop)

  it("is there while its guard holds the key, and no longer", function()
    assert.is_nil(guard:Token "k")
    local ok, token = guard:AcquireLock "k"
    assert.is_true(ok)
    assert.equal(token, guard:Token "k")
    assert.is_nil(ExecutionGuard.new { name = world.name() }:Token "k")
    guard:ReleaseLock "k"
    assert.is_nil(guard:Token "k")
    local lock <close> = guard:Lock "k"
    assert.is_true(lock.token > token)
    assert.equal(lock.token, guard:Token "k")
  end)

  it("is known in a run, until that is lost", function()
    local inside, after
    local _, _, reason = guard:RunOnce("k", function()
      inside = guard:Token "k"
      guard:Reset "k"
      after = guard:Token "k"
    end)
    assert.is_true(math.type(inside) == "integer" and inside > 0)
    assert.is_nil(after)
    assert.equal("lost", reason)
    assert.is_true(select(2, guard:AcquireLock "k") > inside)
  end)

  it("is asked for by a key", function()
    assert.has_error(function() guard:Token() end)
    assert.has_error(function() guard:Token "" end)
  end)
end)

describe("the fence of a file", function()
  local path

  before_each(function() path = os.tmpname() end)
  after_each(function()
    os.remove(path)
    os.remove(path .. ".token")
  end)

  it("refuses an older token", function()
    assert.is_true(fence.write(path, 7, "seven"))
    assert.is_true(fence.write(path, 8, "eight\0"))
    assert.same({ false, "lost" }, { fence.write(path, 7, "late") })
    local file <close> = io.open(path)
    assert.equal("eight\0", file:read "a")
  end)

  it("says what fails", function()
    local ok, reason, message, errno = fence.write("/nowhere/file", 1, "x", 0)
    assert.same({ false, "unavailable", 2 }, { ok, reason, errno })
    assert.matches("/nowhere/file", message, 1, true)
  end)

  it("raises for what is no token, path, text or time", function()
    for _, bad in ipairs { { path, 0, "x" }, { path, 1.5, "x" },
      { path, "1", "x" }, { path, 1 << 53, "x" }, { nil, 1, "x" },
      { path, 1, 7 }, { path, 1, "x", -1 }, { path, 1, "x", "1" },
      { "a\0b", 1, "x" } } do
      assert.has_error(function() fence.write(table.unpack(bad, 1, 4)) end)
    end
    assert.has_error(function() fence.write(path, nil, "x") end,
      "fence.write: token must be that of a grant (guard:Token(key)), not nil")
    for _, case in ipairs {
      { "a\0b", "a path has no zero byte, and \"a\\0b\" has" },
      { 7, "path must be a string, not the number 7" },
    } do
      local _, err = pcall(function()
        return (fence.write(case[1], 1, "x"))
      end)
      -- whose fault it is: the line that called, in this file
      assert.equal("fence.write: " .. case[2],
                   err:match "^%g*fence_spec%.lua:%d+: (.*)$")
    end
  end)

  it("of redis knows the guard's keys", function()
    assert.equal("eg:{a%3Ab:k}", fence.redisKey("a:b", "k"))
    assert.equal("eg:{default:k}", fence.redisKey(nil, "k"))
    assert.has_error(function() fence.redisKey("n", "") end)
    assert.has_error(function() fence.redisKey(1, "k") end)
  end)
end)

describe("the language server's types of fences", function()
  it("name what there is, and are not to be loaded", function()
    local path = assert(package.searchpath("executionguard.fence_types",
      package.path))
    local types = loadfile(path)()
    for name, value in pairs(fence) do
      assert.is_true(types[name] ~= nil or type(value) == "string", name)
    end
    for name in pairs(types) do
      assert.is_function(fence[name], name)
    end
    assert.has_error(function() require "executionguard.fence_types" end)
  end)
end)
