-- SPDX-License-Identifier: MIT
-- executionguard.task: who is resumed when, and what becomes of the others.
-- Nothing sleeps: the clock is moved by hand, or by the scheduler that waits.

local core = require "executionguard.core"
local task = require "executionguard.task"
local world = require "support.world"

local yield = coroutine.yield

-- The message of the error that fn raises, which has to name this file.
local function refusal(fn, ...)
  local arguments = table.pack(...)
  local ok, err = pcall(function()
    fn(table.unpack(arguments, 1, arguments.n))
  end)
  assert.is_false(ok)
  return err:match "^%g*task_spec%.lua:%d+: (.*)$"
end

describe("task", function()
  local log, errors, start

  local function note(...)
    log[#log + 1] = table.concat({ ... }, " ")
  end

  local function noter(...)
    local words = { ... }
    return function() note(table.unpack(words)) end
  end

  local function passed()
    return core.clock.steady() - start
  end

  before_each(function()
    log, errors = {}, {}
    world.start(true)
    start = core.clock.steady()
    task.onError(function(err, trace, thread)
      errors[#errors + 1] = { err = err, trace = trace, thread = thread }
    end)
  end)

  after_each(function()
    local left = task.step()
    task.onError(nil)
    world.stop()
    assert.is_nil(left, "something was left over")
  end)

  local function no_errors()
    assert.same({}, errors)
  end

  describe("spawn", function()
    it("runs at once, with arguments, and returns the thread", function()
      local inside
      local thread = task.spawn(function(...)
        inside = coroutine.running()
        note(select("#", ...), ...)
        yield()
        note "never"
      end, "a", "b")
      assert.equal(inside, thread)
      assert.equal("suspended", coroutine.status(thread))
      assert.same({ "2 a b" }, log)
    end)

    it("comes back at the first wait", function()
      task.spawn(function()
        note "1"
        task.wait(1)
        note "3"
      end)
      note "2"
      task.run()
      assert.same({ "1", "2", "3" }, log)
    end)

    it("resumes a thread that yielded, with values", function()
      local thread = task.spawn(function()
        note(yield())
        note(yield())
      end)
      assert.equal(thread, task.spawn(thread, "x", "y"))
      task.spawn(thread, "z")
      assert.same({ "x y", "z" }, log)
      assert.equal("dead", coroutine.status(thread))
    end)

    it("starts a thread that coroutine.create made", function()
      task.spawn(coroutine.create(note), "created")
      assert.same({ "created" }, log)
    end)

    it("ends a wait early; the wait tells how long it was", function()
      local waited
      local thread = task.spawn(function()
        waited = task.wait(10)
        note("again", task.wait(1))
      end)
      task.wait(2.5)
      task.spawn(thread)
      assert.equal(2.5, waited)
      task.run()
      assert.same({ "again 1.0" }, log)
      assert.equal(3.5, passed())
    end)

    it("takes the place of a delay", function()
      local thread = task.delay(5, note, "late")
      task.spawn(thread, "now")
      task.run()
      assert.same({ "now" }, log)
      assert.equal(0, passed())
    end)

    it("takes the place of a defer", function()
      task.spawn(task.defer(note, "deferred"), "now")
      task.run()
      assert.same({ "now" }, log)
    end)

    it("nested: the inner one first", function()
      task.spawn(function()
        task.spawn(noter "inner")
        note "outer"
      end)
      assert.same({ "inner", "outer" }, log)
    end)

    it("too deep: an error, and the thread stays as it was", function()
      local depth, failure, kept = 0, nil, nil
      local function deeper()
        depth = depth + 1
        local thread = task.delay(1, note, "still there")
        local ok, err = pcall(task.spawn, thread)
        if not ok then
          failure, kept = err, coroutine.status(thread)
          return
        end
        task.cancel(thread)
        task.spawn(deeper)
      end
      task.spawn(deeper)
      if not failure then -- the pcall'd one just fitted
        assert.matches("C stack overflow", errors[1].err)
      else
        assert.matches("C stack overflow", failure)
        assert.equal("suspended", kept)
      end
      assert.is_true(depth > 50)
      log = {}
      task.run()
      assert.is_true(#log <= 1)
    end)
  end)

  describe("defer", function()
    it("runs in the next turn, in order, with arguments", function()
      local thread = task.defer(note, "a", 1)
      task.defer(note, "b", 2)
      assert.equal("thread", type(thread))
      assert.same({}, log)
      assert.is_nil(task.step())
      assert.same({ "a 1", "b 2" }, log)
    end)

    it("keeps nils among the arguments", function()
      task.defer(function(...)
        note(select("#", ...), select(3, ...))
      end, nil, nil, 3, nil)
      task.run()
      no_errors()
      assert.equal("4 3", log[1]:sub(1, 3))
    end)

    it("what is deferred meanwhile comes a turn later", function()
      task.defer(function()
        note "a"
        task.defer(noter "c")
      end)
      task.defer(noter "b")
      assert.equal(0, task.step())
      assert.same({ "a", "b" }, log)
      assert.is_nil(task.step())
      assert.same({ "a", "b", "c" }, log)
    end)

    it("the caller itself, which then yields", function()
      task.spawn(function()
        task.defer(coroutine.running(), "value")
        note(yield())
      end)
      task.run()
      assert.same({ "value" }, log)
    end)

    it("does not keep timers from their turn", function()
      local stop, turns = false, 0
      local function again()
        turns = turns + 1
        if not stop then
          task.defer(again)
        end
      end
      task.defer(again)
      task.delay(1, function() stop = true end)
      world.start(false)
      for _ = 1, 10 do
        assert.equal(0, task.step())
      end
      world.advance(1)
      task.step()
      assert.is_true(stop)
      task.run()
      assert.equal(11, turns)
    end)
  end)

  describe("delay", function()
    it("runs when the time has come, with arguments", function()
      local thread = task.delay(2, function(...)
        note(passed(), ...)
      end, "a", "b")
      assert.equal("suspended", coroutine.status(thread))
      task.run()
      assert.same({ "2.0 a b" }, log)
    end)

    it("by time, and equal times in the order of creation", function()
      task.delay(3, note, "3")
      task.delay(1, note, "1")
      task.delay(2, note, "2a")
      task.delay(2, note, "2b")
      task.spawn(function()
        task.wait(2)
        note "2c"
      end)
      task.wait(1)
      task.delay(1, note, "2d")
      task.run()
      assert.same({ "1", "2a", "2b", "2c", "2d", "3" }, log)
    end)

    it("equal times that come from unequal waits", function()
      task.delay(1, note, "a")
      task.wait(0.5)
      task.delay(0.5, note, "b")
      task.wait(0.25)
      task.delay(0.25, note, "c")
      task.run()
      assert.same({ "a", "b", "c" }, log)
    end)

    it("0 s: the next turn, as defer", function()
      task.delay(0, note, "a")
      task.defer(note, "b")
      task.delay(0, note, "c")
      task.step()
      assert.same({ "a", "b", "c" }, log)
    end)

    it("never a microsecond early, and none late", function()
      world.start(false)
      task.delay(0.3, note, "now")
      world.advance(0.299999)
      assert.equal(0.000001, task.step())
      assert.same({}, log)
      world.advance(0.000001)
      assert.is_nil(task.step())
      assert.same({ "now" }, log)
    end)

    it("a thread that ended meanwhile: nothing happens", function()
      local thread = coroutine.create(function() end)
      task.delay(1, thread)
      coroutine.resume(thread)
      task.run()
      no_errors()
    end)

    it("a thread that cannot be resumed then: reported", function()
      coroutine.wrap(function()
        task.delay(1, coroutine.running())
        task.run()
      end)()
      assert.equal(1, #errors)
      assert.equal("task: a thread that was to be resumed now cannot be: " ..
        "it is running", errors[1].err)
      local outer
      outer = coroutine.wrap(function()
        task.delay(1, coroutine.running())
        coroutine.wrap(task.run)()
      end)
      outer()
      assert.matches("it is waiting for one that it resumed itself$",
                     errors[2].err)
    end)

    it("an event or a time limit: whoever is first", function()
      local fire
      local function event_or(seconds)
        local thread = coroutine.running()
        task.delay(seconds, thread, "too late")
        fire = function() task.spawn(thread, "event") end
        return yield()
      end
      task.spawn(function()
        note(event_or(5))
        note(event_or(5))
      end)
      task.wait(1)
      fire()
      task.run()
      assert.same({ "event", "too late" }, log)
      assert.equal(6.0, passed())
    end)
  end)

  describe("wait", function()
    it("returns what passed", function()
      task.spawn(function()
        note(task.wait(1.5), task.wait(0), task.wait())
      end)
      task.run()
      assert.same({ "1.5 0.0 0.0" }, log)
    end)

    it("tells the real time where a task was late", function()
      task.spawn(function()
        note(task.wait(1))
      end)
      task.delay(1 - 1e-6, core.clock.advance, 4)
      task.run()
      assert.same({ "4.999999" }, log)
    end)

    it("outside of tasks: turns the scheduler", function()
      task.spawn(function()
        for i = 1, 9 do
          task.wait(1)
          note(i)
        end
      end)
      assert.equal(3.5, task.wait(3.5))
      assert.same({ "1", "2", "3" }, log)
      assert.equal(0.5, task.wait(0.5))
      assert.equal("4", log[4])
      assert.equal(0, task.wait())
      task.run()
      assert.equal(9, #log)
    end)

    it("in a coroutine of others: the scheduler resumes it", function()
      local result = table.pack(coroutine.wrap(function()
        note("waited", task.wait(2))
        return "lost"
      end)())
      assert.equal(0, result.n)
      assert.same({}, log)
      task.run()
      assert.same({ "waited 2.0" }, log)
    end)

    it("in a coroutine inside of a task", function()
      task.spawn(function()
        local inner = coroutine.wrap(function()
          task.wait(1)
          note "inner"
        end)
        inner()
        note "task goes on"
        task.wait(2)
        note "task"
      end)
      task.run()
      assert.same({ "task goes on", "inner", "task" }, log)
    end)

    it("resumed by coroutine.resume: ends early, once", function()
      local thread = task.spawn(function()
        note(task.wait(10))
        note(task.wait(3))
      end)
      task.wait(1)
      assert.is_true(coroutine.resume(thread, "ignored"))
      task.run()
      assert.same({ "1.0", "3.0" }, log)
      assert.equal(4.0, passed())
    end)

    it("resumed early while many wait, and 0 s", function()
      local threads = {}
      for i = 1, 50 do
        threads[i] = task.spawn(function()
          note(i, task.wait(i % 2 == 0 and 1 or 0))
        end)
      end
      for i = 50, 1, -7 do
        task.spawn(threads[i])
      end
      assert.equal(8, #log)
      task.run()
      assert.equal(50, #log)
      assert.equal("49 0.0", log[29])
      no_errors()
    end)

    it("closed by coroutine.close: forgotten, no error", function()
      local thread = task.spawn(task.wait, 5)
      task.spawn(task.wait, 1)
      assert.is_true(coroutine.close(thread))
      task.run()
      no_errors()
      assert.equal(1.0, passed())
    end)

    it("closed by coroutine.close in the same turn", function()
      local thread
      task.delay(1, function() coroutine.close(thread) end)
      thread = task.spawn(task.wait, 1)
      task.run()
      no_errors()
    end)

    it("in a task that cannot yield: an error that says so", function()
      task.spawn(function()
        local ok, err = pcall(table.sort, { 2, 1 }, function()
          task.wait(1)
        end)
        note(tostring(ok), err)
      end)
      assert.matches("^false %g+task_spec.lua:%d+: task.wait: the task " ..
        "cannot yield here", log[1])
    end)

    it("in a coroutine of others that cannot yield: turns", function()
      task.delay(1, note, "a task")
      coroutine.wrap(function()
        string.gsub("x", "x", function()
          note(task.wait(2))
        end)
      end)()
      assert.same({ "a task", "2.0" }, log)
    end)

    it("very long ones", function()
      task.spawn(function() note(task.wait(1e9)) end)
      task.run()
      assert.same({ "1000000000.0" }, log)
      task.cancel(task.spawn(task.wait, 1e300))
    end)

    it("refuses what is no time", function()
      for name, fn in pairs {
        wait = task.wait,
        delay = function(seconds) task.delay(seconds, print) end,
        step = task.step,
      } do
        local function wrong(value)
          local ok, err = pcall(fn, value)
          assert.is_false(ok)
          return err:match("task%." .. name .. ": (.*)$")
        end
        assert.equal("seconds must be a number, not the string '1'",
          wrong "1")
        assert.equal("seconds must be 0 or more, and finite, not -1",
                     wrong(-1))
        assert.equal("seconds must be 0 or more, and finite, not inf",
                     wrong(math.huge))
        assert.matches("not %-?nan$", wrong(0 / 0))
      end
    end)
  end)

  describe("cancel", function()
    it("a task that waits; its <close> variables are closed", function()
      local thread = task.spawn(function()
        local _ <close> = setmetatable({}, { __close = noter "closed" })
        task.wait(5)
        note "never"
      end)
      assert.equal(0, select("#", task.cancel(thread)))
      assert.equal("dead", coroutine.status(thread))
      task.run()
      assert.same({ "closed" }, log)
      assert.equal(0, passed())
    end)

    it("a delayed, a deferred, a waiting for 0 s, a plain one", function()
      task.cancel(task.delay(1, note, "delayed"))
      task.cancel(task.defer(note, "deferred"))
      task.cancel(task.spawn(function()
        task.wait()
        note "waited"
      end))
      task.cancel(task.spawn(function()
        yield()
        note "yielded"
      end))
      task.cancel(coroutine.create(noter "created"))
      assert.is_nil(task.step())
      assert.same({}, log)
    end)

    it("one that is due in the same turn", function()
      local second, third
      task.delay(1, function()
        task.cancel(second)
        task.cancel(third)
      end)
      second = task.delay(1, note, "second")
      third = task.spawn(function()
        task.wait(1)
        note "third"
      end)
      task.run()
      assert.same({}, log)
    end)

    it("one that has ended, failed or was cancelled: nothing", function()
      local ended = task.spawn(function() end)
      task.cancel(ended)
      local failing = task.spawn(error, "broken")
      task.cancel(failing)
      local thread = task.delay(1, note)
      task.cancel(thread)
      task.cancel(thread)
      assert.equal(1, #errors)
    end)

    it("itself, or one that has resumed it: refused", function()
      local outer
      outer = task.spawn(function()
        note(select(2, pcall(task.cancel, coroutine.running())))
        task.spawn(function()
          note(select(2, pcall(task.cancel, outer or
            coroutine.running())))
        end)
        yield()
        task.spawn(function()
          note(select(2, pcall(task.cancel, outer)))
        end)
      end)
      task.spawn(outer)
      assert.equal("task.cancel: a task cannot cancel itself; it can " ..
        "return, or yield for good", log[1])
      assert.equal("task.cancel: cannot cancel a thread that has resumed " ..
        "this one", log[3])
    end)

    it("while it is being closed: refused, and the rest is done", function()
      local thread
      thread = task.spawn(function()
        local _ <close> = setmetatable({}, { __close = function()
          note(tostring((pcall(task.cancel, thread))))
        end })
        task.wait(1)
      end)
      task.cancel(thread)
      assert.same({ "false" }, log)
    end)

    it("an error on the way out is reported", function()
      local thread = task.spawn(function()
        local _ <close> = setmetatable({}, { __close = function()
          error("on the way out", 0)
        end })
        task.wait(1)
      end)
      task.cancel(thread)
      assert.equal(1, #errors)
      assert.equal("on the way out", errors[1].err)
      assert.equal(thread, errors[1].thread)
    end)

    it("what is no thread: refused", function()
      assert.equal("task.cancel: a thread is needed, not nil",
                   refusal(task.cancel))
      assert.equal("task.cancel: a thread is needed, not a function",
                   refusal(task.cancel, print))
    end)

    it("a cancelled thread cannot be used again", function()
      local thread = task.delay(1, note)
      task.cancel(thread)
      for name, fn in pairs { spawn = task.spawn, defer = task.defer } do
        assert.equal("task." .. name .. ": the thread is dead: it has " ..
          "ended, failed or was cancelled", refusal(fn, thread))
      end
    end)
  end)

  describe("arguments:", function()
    it("a function or a thread", function()
      for name, fn in pairs { spawn = task.spawn, defer = task.defer } do
        assert.equal("task." .. name .. ": a function or a thread is " ..
          "needed, not nil", refusal(fn))
        assert.equal("task." .. name .. ": a function or a thread is " ..
          "needed, not a table", refusal(fn, {}))
      end
      assert.equal("task.delay: a function or a thread is needed, not nil",
                   refusal(task.delay, 1))
      assert.equal("task.run: a function or a thread is needed, not the " ..
                   "number 1", refusal(task.run, 1))
    end)

    it("one plan a thread", function()
      local thread = task.delay(1, note)
      local message = "this thread was given to task.delay or task.defer " ..
        "already; task.cancel or task.spawn it first"
      assert.equal("task.delay: " .. message,
                   refusal(task.delay, 1, thread))
      assert.equal("task.defer: " .. message, refusal(task.defer, thread))
      task.cancel(thread)
    end)

    it("spawn only what is suspended", function()
      coroutine.wrap(function()
        assert.equal("task.spawn: the thread is running; only a suspended " ..
          "one can be resumed", refusal(task.spawn, coroutine.running()))
        local outer = coroutine.running()
        coroutine.wrap(function()
          assert.equal("task.spawn: the thread is waiting for one that it " ..
            "resumed; only a suspended one can be resumed",
            refusal(task.spawn, outer))
        end)()
      end)()
    end)
  end)

  describe("run", function()
    it("returns at once when nothing is left", function()
      assert.equal(0, select("#", task.run()))
      assert.equal(0, passed())
    end)

    it("spawns what it is given, and waits for all", function()
      task.run(function(...)
        note(...)
        task.wait(1)
        task.spawn(function()
          task.wait(2)
          note(passed())
        end)
      end, "a", "b")
      assert.same({ "a b", "3.0" }, log)
    end)

    it("does not wait for one that yielded by itself", function()
      local thread = task.spawn(yield)
      task.run()
      assert.equal("suspended", coroutine.status(thread))
    end)

    it("in a task, or while the scheduler is turned: refused", function()
      task.run(function()
        for _, name in ipairs { "run", "step" } do
          note(select(2, pcall(task[name])))
          coroutine.wrap(function() -- also in a coroutine of the task
            note(select(2, pcall(task[name])))
          end)()
        end
      end)
      task.spawn(function()
        note(select(2, pcall(task.run)))
      end)
      assert.equal(5, #log)
      for _, text in ipairs(log) do
        assert.matches("^task%.%a+: called inside of a task; it is for " ..
          "those who wait for the tasks", text)
      end
    end)

    it("while it is turned, by a handler: refused", function()
      task.onError(function()
        note(select(2, pcall(task.run)))
        note(select(2, pcall(task.wait, 1)))
      end)
      task.delay(1, error, "broken")
      task.run()
      assert.equal("task.run: the scheduler is being turned already", log[1])
      assert.matches("^task.wait: ", log[2])
    end)

    it("is fair: everybody has one turn", function()
      for name in ("abc"):gmatch "." do
        task.spawn(function()
          for _ = 1, 3 do
            note(name)
            task.wait()
          end
        end)
      end
      task.run()
      assert.equal("abcabcabc", table.concat(log))
    end)
  end)

  describe("step", function()
    it("says when there is more to do", function()
      world.start(false)
      assert.is_nil(task.step())
      task.delay(2, note, "a")
      assert.equal(2.0, task.step())
      task.defer(task.defer, noter "b")
      assert.equal(0, task.step())
      assert.equal(2.0, task.step())
      world.advance(3)
      assert.is_nil(task.step())
      assert.same({ "b", "a" }, log)
    end)

    it("sleeps until the next timer, not longer than asked", function()
      task.delay(5, note, "a")
      assert.equal(3.0, task.step(2))
      assert.equal(2.0, passed())
      assert.is_nil(task.step(100))
      assert.equal(5.0, passed())
      assert.is_nil(task.step(100))
      assert.equal(5.0, passed())
    end)

    it("does not sleep while somebody is ready", function()
      task.delay(5, note, "a")
      task.defer(note, "b")
      assert.equal(5.0, task.step(2))
      assert.same({ "b" }, log)
      task.run()
    end)

    it("knows nothing of what was cancelled", function()
      world.start(false)
      local first = task.delay(1, note)
      task.delay(2, note, "b")
      task.delay(3, note, "c")
      task.cancel(first)
      assert.equal(2.0, task.step())
      world.advance(3)
      assert.is_nil(task.step())
    end)
  end)

  describe("current", function()
    it("is the task, also in coroutines of it; nil outside", function()
      assert.is_nil(task.current())
      local thread = task.spawn(function()
        note(tostring(task.current() == coroutine.running()))
        local outer = task.current()
        coroutine.wrap(function()
          note(tostring(task.current() == outer))
        end)()
        task.spawn(function()
          note(tostring(task.current() == coroutine.running()))
        end)
        note(tostring(task.current() == outer))
        task.wait(1)
        note(tostring(task.current() == outer))
      end)
      assert.is_nil(task.current())
      task.run()
      assert.is_nil(task.current())
      assert.equal("dead", coroutine.status(thread))
      assert.same({ "true", "true", "true", "true", "true" }, log)
      coroutine.wrap(function() assert.is_nil(task.current()) end)()
    end)
  end)

  describe("errors", function()
    it("of one task do not stop the others", function()
      task.delay(1, error, "first", 0)
      task.delay(1, note, "second")
      task.spawn(function()
        task.wait(1)
        error("third", 0)
      end)
      task.defer(error, "zeroth", 0)
      task.run()
      assert.same({ "second" }, log)
      assert.equal(3, #errors)
      assert.equal("zeroth", errors[1].err)
      assert.equal("first", errors[2].err)
      assert.equal("third", errors[3].err)
    end)

    it("of a spawned one do not reach who spawned it", function()
      local thread = task.spawn(error, "broken", 0)
      assert.equal("dead", coroutine.status(thread))
      assert.equal(thread, errors[1].thread)
    end)

    it("come with a traceback, and as the object itself", function()
      local object = setmetatable({}, { __tostring = function()
        return "an object"
      end })
      local function where_it_broke()
        error(object)
      end
      task.spawn(function()
        where_it_broke()
      end)
      assert.is_true(rawequal(object, errors[1].err))
      assert.matches("^an object\nstack traceback:", errors[1].trace)
      assert.matches("where_it_broke", errors[1].trace)
    end)

    it("that cannot be written", function()
      task.spawn(error, setmetatable({}, { __tostring = function()
        error "no"
      end }))
      task.spawn(error)
      assert.matches("^%(error object is a table value%)", errors[1].trace)
      assert.matches("^nil\n", errors[2].trace)
    end)

    it("close the <close> variables, whose errors are reported too",
      function()
        task.spawn(function()
          local _ <close> = setmetatable({}, { __close = function(_, err)
            note("closed for", err)
            error("second", 0)
          end })
          error("first", 0)
        end)
        assert.same({ "closed for first" }, log)
        assert.equal(2, #errors)
        assert.equal("second", errors[1].err)
        assert.equal("first", errors[2].err)
      end)

    it("a message like that of resume is an error as any", function()
      task.spawn(function()
        task.wait(1)
        error("cannot resume dead coroutine", 0)
      end)
      task.run()
      assert.equal(1, #errors)
    end)

    describe("without a handler, or with a broken one,", function()
      local real, warned = warn, nil

      before_each(function()
        warned = {}
        rawset(_G, "warn", function(...)
          warned[#warned + 1] = table.concat { ... }
        end)
      end)

      after_each(function()
        rawset(_G, "warn", real)
      end)

      it("go to warn", function()
        local before = task.onError(nil)
        assert.is_function(before)
        assert.is_nil(task.onError(nil))
        task.spawn(error, "broken", 0)
        assert.equal(1, #warned)
        assert.matches("^%[ExecutionGuard%] a task failed: broken\nstack " ..
                       "traceback:", warned[1])
      end)

      it("both errors go to warn", function()
        task.onError(function() error("and this", 0) end)
        task.delay(1, error, "broken", 0)
        task.delay(1, note, "goes on")
        task.run()
        assert.equal("[ExecutionGuard] the handler of task.onError failed: " ..
                     "and this", warned[1])
        assert.matches("a task failed: broken\n", warned[2])
        assert.same({ "goes on" }, log)
      end)

      it("and a warn that raises stops nobody", function()
        task.onError(nil)
        rawset(_G, "warn", function() error "no" end)
        task.delay(1, error, "broken", 0)
        task.delay(1, note, "goes on")
        task.run()
        assert.same({ "goes on" }, log)
      end)
    end)

    it("onError refuses what is no function", function()
      assert.equal("task.onError: a function or nil is needed, not a table",
                   refusal(task.onError, {}))
    end)
  end)

  describe("a guard", function()
    local guard

    before_each(function() guard = world.EG.new() end)
    after_each(function() guard:Close() end)

    local function work()
      task.wait(1)
      return "done"
    end

    local function ask(...)
      local answer = table.pack(guard:RunOnce("key", work, ...))
      note(tostring(answer[1]), tostring(answer[2]), tostring(answer[3]))
    end

    it("waits inside of RunOnce; others are told running", function()
      for _ = 1, 3 do
        task.spawn(ask)
      end
      assert.equal("Running", guard:GetStatus "key")
      task.delay(2, ask)
      task.run()
      assert.same({ "false nil running", "false nil running",
                    "true done nil", "true done cached" }, log)
      assert.equal(1.0, guard:GetRecord("key").duration)
    end)

    it("on the main program: tasks go on meanwhile", function()
      task.delay(0.5, note, "meanwhile")
      ask()
      assert.same({ "meanwhile", "true done nil" }, log)
    end)

    it("different keys at the same time", function()
      for i = 1, 100 do
        task.spawn(function()
          assert(guard:RunOnce("key" .. i, work))
        end)
      end
      task.run()
      no_errors()
      assert.equal(1.0, passed())
      assert.equal(100, guard:GetAnalytics().byStatus.Completed)
    end)

    it("a timeout counts the waiting", function()
      task.spawn(ask, { timeout = 0.5 })
      task.run()
      assert.same({ "false nil timeout" }, log)
    end)

    it("cancelled inside of RunOnce: abandoned, the key free", function()
      local thread = task.spawn(ask)
      task.cancel(thread)
      assert.is_false(guard:IsLocked "key")
      assert.equal("abandoned", guard:GetRecord("key").error)
    end)

    it("an error after a wait is the guard's, not the task's", function()
      task.spawn(function()
        local ok, err, why = guard:RunOnce("key", function()
          task.wait(1)
          error("broken", 0)
        end)
        note(tostring(ok), err, why)
      end)
      task.run()
      no_errors()
      assert.same({ "false broken failed" }, log)
    end)
  end)

  describe("many", function()
    local n = world.scaled(100000)

    it("wait for the same time, and wake in order", function()
      local count, in_order = 0, true
      for i = 1, n do
        task.spawn(function()
          task.wait(1)
          count = count + 1
          in_order = in_order and count == i
        end)
      end
      task.run()
      assert.equal(n, count)
      assert.is_true(in_order)
      assert.equal(1.0, passed())
    end)

    it("wait for different times, and wake by time", function()
      math.randomseed(7)
      local count, latest, exact = 0, 0, true
      local m = n // 5
      for _ = 1, m do
        local seconds = math.random(1, m) / 1000
        task.delay(seconds, function()
          count = count + 1
          exact = exact and passed() >= latest and
            math.abs(passed() - seconds) < 1e-9
          latest = passed()
        end)
      end
      task.run()
      assert.equal(m, count)
      assert.is_true(exact)
    end)

    it("against a sorted list: planned, cancelled, resumed", function()
      math.randomseed(11)
      local expected, threads, cancelled = {}, {}, {}
      local m = world.scaled(2000)
      for i = 1, m do
        local seconds = math.random(0, 20) / 10
        expected[i] = { i = i, due = seconds }
        threads[i] = i % 2 == 0 and task.delay(seconds, note, i) or
          task.spawn(function()
            if task.wait(seconds) >= seconds then
              note(i)
            end
          end)
      end
      for _ = 1, m // 2 do
        local i = math.random(m)
        cancelled[i] = true
        if math.random(3) == 1 and i % 2 == 1 and expected[i].due > 0 then
          if coroutine.status(threads[i]) ~= "dead" then
            task.spawn(threads[i])
          end
        else
          task.cancel(threads[i])
        end
      end
      table.sort(expected, function(a, b)
        -- those for 0 s come after what is due, and before all timers here
        return a.due < b.due or a.due == b.due and a.i < b.i
      end)
      local wanted = {}
      for _, e in ipairs(expected) do
        if not cancelled[e.i] then
          wanted[#wanted + 1] = tostring(e.i)
        end
      end
      task.run()
      assert.same(wanted, log)
      no_errors()
    end)

    it("waits of few tasks for a long time stay cheap", function()
      local sum = 0
      for i = 1, 20 do
        task.spawn(function()
          for _ = 1, n // 100 do
            local waited = task.wait(i % 4 + 1)
            sum = sum + waited
          end
        end)
      end
      task.run()
      local each = n // 100
      assert.equal(5 * each * (1 + 2 + 3 + 4), math.floor(sum + 0.5))
    end)

    it("are cancelled in any order", function()
      local threads = {}
      for i = 1, n // 5 do
        threads[i] = task.delay(i % 100, note, "never")
      end
      for i = #threads, 2, -1 do
        local j = math.random(i)
        threads[i], threads[j] = threads[j], threads[i]
      end
      for _, thread in ipairs(threads) do
        task.cancel(thread)
      end
      assert.is_nil(task.step())
    end)
  end)

  describe("garbage:", function()
    local weak

    before_each(function()
      weak = setmetatable({}, { __mode = "k" })
    end)

    local function left()
      world.collect()
      local count = 0
      for _ in pairs(weak) do
        count = count + 1
      end
      return count
    end

    it("finished, failed and cancelled threads", function()
      weak[task.spawn(function() end)] = true
      weak[task.spawn(error, "broken")] = true
      errors = {}
      for _, thread in ipairs { task.delay(1, note), task.defer(note),
          task.spawn(task.wait, 9), task.spawn(task.wait) } do
        weak[thread] = true
        task.cancel(thread)
      end
      assert.equal(0, left())
    end)

    it("one that yielded for good", function()
      weak[task.spawn(yield)] = true
      assert.equal(0, left())
    end)

    it("one that waits is none", function()
      weak[task.spawn(task.wait, 1)] = true
      assert.equal(1, left())
      task.run()
      assert.equal(0, left())
    end)

    it("cancelled timers never outnumber the others", function()
      local keep = {}
      for i = 1, 100 do
        keep[i] = task.delay(3600, note)
      end
      for i = 1, world.scaled(10000) do
        local thread = i % 2 == 0 and task.delay(3600, note) or
          task.spawn(task.wait, 3600 + i % 3)
        weak[thread] = true
        task.cancel(thread)
      end
      assert.is_true(left() <= 110)
      for _, thread in ipairs(keep) do
        task.cancel(thread)
      end
      assert.equal(0, left())
    end)

    it("a finalizer may use the scheduler at any time", function()
      for i = 1, 200 do
        setmetatable({}, { __gc = function()
          task.delay(1 + i % 3, note, "from a finalizer")
          task.cancel(task.delay(1, note, "never"))
        end })
        task.delay(1 + i % 3, note, "from the program")
      end
      world.collect()
      task.run()
      assert.equal(400, #log)
      no_errors()
    end)
  end)

  it("a clock that is put back: nothing is lost or late for ever", function()
    task.delay(5, note, "before")
    world.start(false)
    world.advance(100)
    task.delay(5, note, "far")
    world.start(false) -- begins anew
    task.delay(5, note, "near")
    assert.equal(5.0, task.step())
    world.advance(5)
    task.step()
    assert.same({ "before", "near" }, log)
    world.advance(100)
    task.step()
    assert.equal("far", log[3])
  end)

  -- An error such as the one that lua raises for Ctrl-C: not in a task, but
  -- after so many instructions of the turn; put off where a queue is changed.
  local function interrupt_after(count)
    local function hook()
      if debug.getinfo(2, "S").source:find("timers.lua", 1, true) then
        debug.sethook(hook, "", 1)
      else
        error("interrupted", 0)
      end
    end
    debug.sethook(hook, "", count)
  end

  it("goes on after an error between any two of its instructions", function()
    local n, interruptions = 10, 0
    for count = 1, world.scaled(1500) do
      local ended = 0
      for i = 1, n do
        task.spawn(function()
          task.wait(i % 3)
          task.wait(1)
          task.wait()
          ended = ended + 1
        end)
      end
      local ok, err = coroutine.resume(coroutine.create(function()
        interrupt_after(count)
        task.run()
      end))
      assert(ok or err == "interrupted", err)
      interruptions = interruptions + (ok and 0 or 1)
      assert(task.current() == nil)
      task.run()
      -- at most the one that it was about to resume is lost
      assert(ended >= n - 1, count)
    end
    assert.is_true(interruptions >= world.scaled(500))
    no_errors()
  end)
end)
