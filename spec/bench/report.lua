-- SPDX-License-Identifier: MIT
-- The table: one line for each thing measured, on the screen as it comes and
-- as Markdown in the end.

local measure = require "measure"

local Report = {}
Report.__index = Report

local function first_line(command)
  local pipe = io.popen(command .. " 2>/dev/null")
  local line = pipe and pipe:read "l"
  if pipe then
    pipe:close()
  end
  return line or "?"
end

local function cpu_model()
  for line in io.lines "/proc/cpuinfo" do
    local model = line:match "^model name%s*: (.+)"
    if model then
      return (model:gsub("%s+", " "))
    end
  end
  return first_line "uname -m"
end

local function load_now()
  local file = io.open "/proc/loadavg"
  local load = file and file:read "n" or 0
  if file then
    file:close()
  end
  return load
end

function Report.new(lua, cores)
  local version = first_line(lua .. " -v"):match "^Lua [%d.]+" or _VERSION
  local self = setmetatable({ rows = {}, notes = {}, cores = cores }, Report)
  self.machine = ("%s, %d core%s, Linux %s, %s, %s"):format(
    cpu_model(), cores, cores == 1 and "" or "s",
    first_line "uname -r", version, first_line "${CC:-cc} --version")
  print(self.machine)
  self:note_load "began"
  return self
end

-- Threads that have to wait for a core make every figure worse, the worst
-- insert and those of two threads most of all.
function Report:note_load(what)
  local load = load_now()
  local ours = what == "ended" and 1 or 0
  if load > ours + 0.7 then
    self:note(("The machine was busy with something else when this %s " ..
      "(load %.1f): better measure again."):format(what, load))
  end
end

local function three_digits(n)
  if n < 0.001 then
    return ("%.2g"):format(n)
  end
  local digits = n < 1 and 3 or n < 10 and 2 or n < 100 and 1 or 0
  return ("%." .. digits .. "f"):format(n)
end

-- A figure with its unit; times are nanoseconds.
local function show(figure, unit)
  if unit == "ns" then
    if figure >= 1e6 then
      return three_digits(figure / 1e6) .. " ms"
    elseif figure >= 1e4 then
      return three_digits(figure / 1e3) .. " µs"
    end
  end
  return three_digits(figure) .. " " .. unit
end

local function verdict(met)
  if met == nil then
    return ""
  end
  return met and "yes" or "**no**"
end

-- Columns are counted in characters, not in bytes.
local function pad(text, width)
  return text .. (" "):rep(width - utf8.len(text))
end

function Report:put(row)
  self.rows[#self.rows + 1] = row
  local plain = row.met:gsub("%*", "")
  print(table.concat({ pad(row.what, 47), pad(row.ours, 11),
    pad(row.against, 31), pad(row.ratio, 23), pad(row.goal, 12), plain },
    " "))
end

-- line{what=, samples=, ours=, against=, name=, goal=, least=, unit=}: a line
-- for samples[ours] against samples[against], which is called name; the goal
-- is an upper limit of the ratio, a lower one with least=true, or with
-- absolute=true an upper limit of the figure itself.
function Report:line(l)
  local unit = l.unit or "ns"
  local ours = l.samples[l.ours or "ours"]
  local theirs = l.samples[l.against]
  local ratio = measure.ratio(ours, theirs)
  local figure = l.absolute and measure.median(ours) or ratio.median
  local goal, met = "", nil
  if l.goal then
    goal = l.absolute and show(l.goal, unit) or ("%g"):format(l.goal)
    goal = (l.least and "≥ " or "≤ ") .. goal
    met = figure == l.goal or (figure > l.goal) == (l.least or false)
  end
  self:put {
    what = l.what,
    ours = show(measure.median(ours), unit),
    against = ("%s: %s"):format(l.name or l.against,
      show(measure.median(theirs), unit)),
    ratio = ("%s (%s..%s)"):format(three_digits(ratio.median),
      three_digits(ratio.least), three_digits(ratio.most)),
    goal = goal,
    met = verdict(met),
  }
end

function Report:skip(what, why)
  print(("%s: skipped: %s"):format(what, why))
  self.notes[#self.notes + 1] = ("%s: not measured, %s."):format(what, why)
end

function Report:note(text)
  print("  " .. text)
  self.notes[#self.notes + 1] = text
end

function Report:write(path)
  self:note_load "ended"
  local out <close> = assert(io.open(path, "w"))
  out:write("Measured on: ", self.machine, "\n\n")
  out:write("| what | ours | against | ratio (min..max) | goal | met |\n")
  out:write("| --- | --- | --- | --- | --- | --- |\n")
  for _, row in ipairs(self.rows) do
    out:write(("| %s | %s | %s | %s | %s | %s |\n"):format(row.what, row.ours,
      row.against, row.ratio, row.goal, row.met))
  end
  if #self.notes > 0 then
    out:write "\n"
  end
  for _, note in ipairs(self.notes) do
    out:write("- ", note, "\n")
  end
end

return Report
