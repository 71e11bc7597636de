-- SPDX-License-Identifier: MIT
-- Measures several things side by side: in each round every one of them is
-- timed, in alternating order, so that whatever else the machine does
-- meets them all alike.  What is compared are the ratios within one round.

local measure = {}

-- Runs a command that prints names and figures: name -> list.
function measure.figures(command)
  local found = {}
  local pipe = assert(io.popen(command))
  for line in pipe:lines() do
    local name, figure = line:match "^(%S+)%s+(%S+)$"
    if name then
      found[name] = found[name] or {}
      table.insert(found[name], tonumber(figure))
    end
  end
  assert(pipe:close(), command .. " failed")
  return found
end

function measure.median(list)
  local sorted = table.move(list, 1, #list, 1, {})
  table.sort(sorted)
  local middle = (#sorted + 1) // 2
  if #sorted % 2 == 1 then
    return sorted[middle]
  end
  return (sorted[middle] + sorted[middle + 1]) / 2
end

-- Times each name once, forward or backward; figures[name] gets one more.
local function turn(names, backward, time, figures)
  local first, last, step = 1, #names, 1
  if backward then
    first, last, step = last, first, -1
  end
  for i = first, last, step do
    table.insert(figures[names[i]], time(names[i]))
  end
end

local function lists(names)
  local made = {}
  for _, name in ipairs(names) do
    made[name] = {}
  end
  return made
end

-- Calls time(name), which returns a figure, for each of the names in each
-- round; samples[name] is a list of those figures, one a round.  With parts a
-- round is that many turns, and its figure their median: turns that are short
-- against the scheduler's time slice mostly escape what else is running.  One
-- turn at the begin is not counted.
function measure.rounds(rounds, names, time, parts)
  local samples = lists(names)
  turn(names, false, time, lists(names))
  for r = 1, rounds do
    local figures = lists(names)
    for part = 1, parts or 1 do
      turn(names, (r + part) % 2 == 0, time, figures)
    end
    for _, name in ipairs(names) do
      samples[name][r] = measure.median(figures[name])
    end
  end
  return samples
end

-- The ratio of two lists of samples: its median, least and largest.
function measure.ratio(ours, theirs)
  local ratios = {}
  for i = 1, #ours do
    ratios[i] = ours[i] / theirs[i]
  end
  return {
    median = measure.median(ratios),
    least = math.min(table.unpack(ratios)),
    most = math.max(table.unpack(ratios)),
  }
end

return measure
