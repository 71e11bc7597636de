-- SPDX-License-Identifier: MIT
-- executionguard.timers: queues of what is to be woken when, in order.
--
--   lists by duration   1.0 s:  a b c d        heap (binary) of the lists, by
--                       0.5 s:  e f            their first: e.., a.., g
--                       30 s:   g
--
-- Who waits equally long comes due in the order of coming, so a list of such
-- entries is in order by itself, and the heap has one entry a duration.  A
-- hundred thousand that wait for one second cost as much each as ten do; with
-- a duration for each it is a heap of a hundred thousand.
--
-- A list is one table, three places an entry: item, due (point in time), seq
-- (number of the entry; of two with the same due the smaller is first); from
-- `first` to before `last`.  An item is a thread, or a table with the thread
-- in its field `thread`.  It is stale when that is nil or dead, or when the
-- item was forgotten (false).  Stale entries stay where they are until they
-- are first, or more than half of all, and are then swept out: what was
-- cancelled never takes more room than what was not.
--
-- No call here runs code of others, and between the first change of a queue
-- and the last nothing is collected: no finalizer finds it half changed.  New
-- room is asked for before anything is counted on it.

local core = require "executionguard.core"

local status = coroutine.status

-- A list that is empty is kept for the next, unless it is larger than this.
local SPARE_ROOM <const> = 100

local timers = {}

-- timers.new() -> a queue
function timers.new()
  return { heap = {}, n = 0, lists = {}, total = 0, stale = 0 }
end

-- ------------------------------------------------------- a heap of lists --

-- due and seq of a list are those of its first entry.
local function before(a, b)
  local x, y = a.due, b.due
  return x < y or x == y and a.seq < b.seq
end

local function up(heap, i, list)
  while i > 1 do
    local parent = heap[i // 2]
    if not before(list, parent) then
      break
    end
    heap[i] = parent
    i = i // 2
  end
  heap[i] = list
end

local function down(heap, n, i, list)
  while 2 * i <= n do
    local c = 2 * i
    local child = heap[c]
    if c < n and before(heap[c + 1], child) then
      c = c + 1
      child = heap[c]
    end
    if not before(child, list) then
      break
    end
    heap[i] = child
    i = c
  end
  heap[i] = list
end

local function forget_list(queue, list)
  if queue.lists[list.duration] == list then
    queue.lists[list.duration] = nil
  end
end

-- The first list has got another first entry, or none.
local function settle(queue, list)
  local heap, n = queue.heap, queue.n
  local first = list.first
  if first < list.last then
    list.due, list.seq = list[first + 1], list[first + 2]
    if n > 1 then
      down(heap, n, 1, list)
    end
    return
  end
  forget_list(queue, list)
  if first <= SPARE_ROOM then
    queue.spare = list
  end
  local last = heap[n]
  queue.n = n - 1
  heap[n] = nil
  if n > 1 then
    down(heap, n - 1, 1, last)
  end
end

-- ------------------------------------------------------------- the lists --

-- Does an entry belong behind the last one of this list?  Not if the clock was
-- set back; then another list begins.
local function fits(list, due, seq)
  if not list or list.first >= list.last then
    return false
  end
  local last = list.last
  local x = list[last - 2]
  return x < due or x == due and list[last - 1] < seq
end

local function append(list, item, due, seq)
  local last = list.last
  list[last], list[last + 1], list[last + 2] = item, due, seq
  list.last = last + 3
end

-- Moves the entries of a list to its begin when the room before them is larger
-- than they are, so that the table stays an array.
local function close_up(list)
  local first, last = list.first, list.last
  if first - 1 > last - first and first > 100 then
    table.move(list, first, last - 1, 1)
    list.first, list.last = 1, last - first + 1
    for i = list.last, last - 1 do
      list[i] = nil
    end
  end
end

-- A list without entries: one that was used, or a new one.
local function new_list(queue, duration, due, seq)
  local list = queue.spare
  if list then
    queue.spare = nil
    list.first, list.last, list.due, list.seq = 1, 1, due, seq
    list.duration = duration
    return list
  end
  return { false, false, false, first = 1, last = 1, due = due, seq = seq,
    duration = duration }
end

-- Adds an entry; duration: how long it waits.  -> the list that it is in
function timers.add(queue, item, duration, due, seq)
  local list = queue.lists[duration]
  if not list or not fits(list, due, seq) then
    local fresh = new_list(queue, duration, due, seq)
    -- that may have run a finalizer, which added one like this
    list = queue.lists[duration]
    if not list or not fits(list, due, seq) then
      append(fresh, item, due, seq)
      queue.heap[queue.n + 1] = fresh
      queue.lists[duration] = fresh
      queue.n = queue.n + 1
      queue.total = queue.total + 1
      up(queue.heap, queue.n, fresh)
      return fresh
    end
  end
  close_up(list)
  append(list, item, due, seq)
  queue.total = queue.total + 1
  return list
end

-- Removes the first entry of the queue; list: heap[1], which it is in.
function timers.pop(queue, list)
  local i = list.first
  list[i], list[i + 1], list[i + 2] = nil, nil, nil
  i = i + 3
  list.first = i
  queue.total = queue.total - 1
  if i < list.last and queue.n == 1 then
    list.due, list.seq = list[i + 1], list[i + 2]
  else
    settle(queue, list)
  end
end

-- ---------------------------------------------------------------- stale --

local function is_stale(item)
  if type(item) == "table" then
    item = item.thread
  end
  return not item or status(item) == "dead"
end

-- Moves what is not stale together.
local function sweep_list(list)
  local to, last = list.first, list.last
  for from = to, last - 3, 3 do
    if not is_stale(list[from]) then
      list[to], list[to + 1], list[to + 2] =
        list[from], list[from + 1], list[from + 2]
      to = to + 3
    end
  end
  for i = to, last - 1 do
    list[i] = nil
  end
  list.last = to
  list.due, list.seq = list[list.first + 1], list[list.first + 2]
  return (to - list.first) // 3
end

local function sweep(queue)
  local heap, n, total = queue.heap, 0, 0
  for i = 1, queue.n do
    local list = heap[i]
    local left = sweep_list(list)
    total = total + left
    heap[i] = nil
    if left > 0 then
      n = n + 1
      heap[n] = list
    else
      forget_list(queue, list)
    end
  end
  queue.n, queue.total, queue.stale = n, total, 0
  for i = n // 2, 1, -1 do
    down(heap, n, i, heap[i])
  end
end

-- Says that there may be one stale entry more.
function timers.stale(queue)
  queue.stale = queue.stale + 1
  if queue.stale * 2 > queue.total then
    sweep(queue)
  end
end

-- Forgets the entry with that number in a list that add returned, if it is
-- there still.
function timers.drop(queue, list, seq)
  local low, high = 0, (list.last - list.first) // 3 - 1
  while low < high do
    local middle = (low + high) // 2
    if list[list.first + 3 * middle + 2] < seq then
      low = middle + 1
    else
      high = middle
    end
  end
  local at = list.first + 3 * low
  if list[at + 2] == seq then
    list[at] = false
    timers.stale(queue)
  end
end

-- timers.first(queue) -> when the first one that is not stale is due, or nil
function timers.first(queue)
  local list = queue.heap[1]
  while list and is_stale(list[list.first]) do
    timers.pop(queue, list)
    list = queue.heap[1]
  end
  return list and list.due
end

core.own.claim()

return timers
