-- SPDX-License-Identifier: MIT
-- The stores beside what they are made of, by hand: flock and SQLite for
-- files; for a server the same round trips, on one of its own.

local figures = require "measure".figures

-- Python's filelock, as a program that locks a file of its own so often.
local FILELOCK <const> = [[
import filelock, sys, time
n = int(sys.argv[2])
for kind in ("new", "again"):
    begin = time.perf_counter_ns()
    for i in range(n):
        name = sys.argv[1] + "/" + (str(i) if kind == "new" else "again")
        lock = filelock.FileLock(name + ".lock", timeout=0)
        lock.acquire()
        lock.release()
    print("filelock_" + kind, (time.perf_counter_ns() - begin) // n)

import mmap, os, struct
turns, name = 6, sys.argv[1] + "/relay.lock"
board = mmap.mmap(-1, 16)
def tell(at, value): board[at:at + 8] = struct.pack("q", value)
def told(at): return struct.unpack("q", board[at:at + 8])[0]
if os.fork() == 0:
    lock, sum = filelock.FileLock(name, timeout=20), 0
    for i in range(1, turns + 1):
        while told(0) < i * 2: time.sleep(0.0002)
        lock.acquire()
        sum += time.perf_counter_ns() - told(8)
        lock.release()
        tell(0, i * 2 + 1)
    print("filelock_hand_over", sum // turns, flush=True)
    os._exit(0)
lock = filelock.FileLock(name, timeout=20)
for i in range(1, turns + 1):
    lock.acquire()
    tell(0, i * 2)
    time.sleep(0.005 + 0.007 * i)
    tell(8, time.perf_counter_ns())
    lock.release()
    while told(0) < i * 2 + 1: time.sleep(0.0002)
os.wait()
]]

-- Symfony's locks, as a program of PHP.
local SYMFONY <const> = [[
<?php
require '/usr/share/php/Symfony/Component/Lock/autoload.php';
use Symfony\Component\Lock\LockFactory;
use Symfony\Component\Lock\Store\FlockStore;
$factory = new LockFactory(new FlockStore($argv[1]));
$n = (int) $argv[2];
foreach (['new', 'again'] as $kind) {
    $begin = hrtime(true);
    for ($i = 0; $i < $n; $i++) {
        $lock = $factory->createLock($kind === 'new' ? "k$i" : 'again');
        $lock->acquire();
        $lock->release();
    }
    echo "symfony_$kind ", intdiv(hrtime(true) - $begin, $n), "\n";
}
]]

-- Where a program of another language is not there, its lines are not.
local function peer(samples, folder, rounds, command, text)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  for r = 1, rounds do
    local there = ("%s/peer%d"):format(folder, r)
    os.execute(("rm -rf %s && mkdir %s"):format(there, there))
    for name, list in pairs(figures(("%s %s %s 300"):format(command, path,
      there))) do
      samples[name] = samples[name] or {}
      samples[name][r] = list[1]
    end
  end
  os.remove(path)
end

local function files(report, build, quick)
  local folder = build .. "/files-of-a-store"
  local rounds, records = quick and 5 or 11, quick and 20000 or 1000000
  os.execute("rm -rf " .. folder)
  local samples = figures(("%s/files %s %d %d %d"):format(build, folder,
    rounds, quick and 400 or 2000, records))
  peer(samples, folder, rounds, "/usr/bin/python3", FILELOCK)
  if os.execute "php -r '' >/dev/null 2>&1" then
    peer(samples, folder, rounds, "php", SYMFONY)
  end
  os.execute("rm -rf " .. folder)
  local function line(what, ours, against, name, goal, more)
    local all = { what = "files: " .. what, samples = samples, ours = ours,
      against = against, name = name, goal = goal }
    for key, value in pairs(more or {}) do all[key] = value end
    report:line(all)
  end
  local many = ("%g records: "):format(records)
  line("lock + release, new key", "our_new", "raw_new", "open + flock + close",
    1.6)
  line("lock + release, new key", "our_new", "filelock_new",
    "python filelock", 0.6)
  if samples.symfony_new then
    line("lock + release, new key", "our_new", "symfony_new",
      "Symfony FlockStore", 0.75)
  else
    report:skip("Symfony FlockStore", "there is no php, or not its locks")
  end
  line("lock + release, again", "our_again", "raw_again", "flock + unlock",
    1.8)
  line("lock + release, again", "our_again", "filelock_again",
    "python filelock", 0.2)
  line("cached run, database changed", "our_select", "raw_select",
    "SQLite select", 1.6)
  line("cached run, nothing changed", "our_cached", "raw_select",
    "SQLite select", 400, { absolute = true })
  line("first run of a new key", "our_first", "raw_first",
    "two SQLite upserts", 0.8)
  line("run of a key that has run", "our_rerun", "raw_rerun",
    "two SQLite upserts", 0.8)
  line("hand-over to a process", "our_hand_over", "raw_hand_over",
    "kernel flock", 1.3)
  line("hand-over to a process", "our_hand_over", "filelock_hand_over",
    "python filelock", 0.001)
  line("hand-over, by a descriptor", "polled_hand_over", "raw_hand_over",
    "kernel flock", 1.8)
  line("4 processes, runs/s", "four_processes", "one_process", "one process",
    0.9, { least = true, unit = "runs/s" })
  local one = {}
  for i in ipairs(samples.least_served) do one[i] = 1 end
  samples.most_served = one
  line("4 processes, least served", "least_served", "most_served",
    "most served", 0.7, { least = true, unit = "of the most" })
  line(many .. "cached run", "many_cached", "few_cached", "1000 records", 2)
  line(many .. "first run", "many_first", "few_first", "1000 records", 2)
  line(many .. "ten of them", "many_list", "few_list", "1000 records", 2)
end

-- What is measured on each server; a store's own lines come after it.
local function server(report, here, build, quick, name, raw)
  local program = io.open(build .. "/" .. name)
  if not program then
    return report:skip(name, "its client library or server is not there")
  end
  program:close()
  local command = 'exec %s/%s "${EXECUTIONGUARD_STORE#%s}" %d %d 1000'
  command = command:format(build, name, raw.prefix, quick and 5 or 11,
    quick and 300 or 1000)
  local samples = figures(("%s/../tools/with-%s '' sh -c '%s'"):format(here,
    name, command))
  local function line(what, ours, against, name_of_it, goal, more)
    local all = { what = name .. ": " .. what, samples = samples, ours = ours,
      against = against, name = name_of_it, goal = goal }
    for key, value in pairs(more or {}) do all[key] = value end
    report:line(all)
  end
  for _, goal in ipairs(raw.locks) do
    if samples[goal[1]] then
      line("acquire + release", "our_lock", table.unpack(goal))
    else
      report:skip(goal[2], "what it needs is not there")
    end
  end
  line("cached RunOnce", "our_cached", "raw_get", table.unpack(raw.get))
  for _, goal in ipairs(raw.hand_overs) do
    line("hand-over to who waits", "our_hand_over", table.unpack(goal))
  end
  line("1000 leases renewed", "renewal", "a_core", "one core", 1,
    { absolute = true, unit = "% of a core" })
end

return function(report, here, build, quick)
  files(report, build, quick)
  server(report, here, build, quick, "redis", {
    prefix = "redis+unix://",
    locks = { { "raw_lock", "SET NX PX + EVALSHA", 1.1 },
      { "redis_py_lock", "redis-py Lock", 0.65 },
      { "symfony_lock", "Symfony RedisStore", 0.4 } },
    get = { "GET", 1.15 },
    hand_overs = { { "raw_hand_over", "BLPOP", 2.2 },
      { "redis_py_hand_over", "redis-py Lock", 0.01 } } })
  server(report, here, build, quick, "postgres", {
    prefix = "",
    locks = { { "raw_lock", "two upserts", 1.1 } },
    get = { "SELECT" },
    hand_overs = { { "raw_hand_over", "NOTIFY + upsert", 1.3 } } })
  server(report, here, build, quick, "etcd", {
    prefix = "etcd://",
    locks = { { "raw_lock", "two transactions", 1.2 },
      { "etcdctl_lock", "etcdctl lock", 0.15 } },
    get = { "range" },
    hand_overs = { { "raw_hand_over", "/v3/lock", 0.05 } } })
end
