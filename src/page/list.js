// The list of all keys: as many elements as fit into its window, whatever
// their number.
"use strict";

const ROW = 36;
const COLUMNS = [
  { title: "Key", of: (row) => row[0], text: true },
  { title: "Status", of: (row) => isLock(row) ? -5 : -row[K.status] },
  { title: "Last run", of: (row) => when(row), down: true, num: true },
  { title: "Took", of: (row) => row[K.durationMs], down: true, num: true },
  { title: "Runs", of: (row) => row[K.runs], down: true, num: true },
  { title: "Failed", of: (row) => bad(row), down: true, num: true },
  { title: "Remark", of: (row) => row[K.error] || "", text: true, down: true },
];

const list = {
  shown: [], // rows that match, in order
  sort: 2,
  down: true,
  filter: null, // a status, "held" or null
  search: "",
  at: 0, // which is selected
  pool: [], // elements
  from: -1, to: -1,
};

function when(row) {
  return row[K.locked] && row[K.status] === 1 ? row[K.startMs]
    : Math.max(row[K.endMs], row[K.startMs]);
}
function bad(row) { return row[K.failed] + row[K.timedOut] + row[K.lost]; }

function matches(row) {
  if (list.filter === "held" ? !row[K.locked]
    : list.filter !== null && (row[K.status] !== list.filter || isLock(row)))
    return false;
  if (list.search === "") return true;
  return keyText(row[0]).toLowerCase().includes(list.search) ||
    (row[K.error] || "").toLowerCase().includes(list.search);
}

function sortList() {
  const column = COLUMNS[list.sort], sign = list.down ? -1 : 1;
  const key = list.at < list.shown.length && list.at > 0
    ? list.shown[list.at][0] : null;
  const found = [];
  for (const row of model.rows.values()) if (matches(row)) found.push(row);
  const of = new Map(found.map((row) => [row, column.of(row)]));
  found.sort((a, b) => {
    const x = of.get(a), y = of.get(b);
    return (x < y ? -1 : x > y ? 1 : 0) * sign ||
      (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0);
  });
  list.shown = found;
  if (key !== null) {
    const at = found.findIndex((row) => row[0] === key);
    list.at = at >= 0 ? at : Math.min(list.at, Math.max(0, found.length - 1));
  }
}

// ---------------------------------------------------------------- drawing --

function makeRow() {
  const cells = COLUMNS.map((column, i) =>
    h(i === 0 ? "span.name" : i === 6 ? "span.error"
      : column.num ? "span.num" : "span", { role: "gridcell" }));
  const mark = h("i.mark"), word = h("span");
  cells[1].append(mark, word);
  const element = h("a.row", { role: "row", tabIndex: -1 }, cells);
  return { element, cells, mark, word, row: null };
}

function fill(slot, row, index) {
  const [key, , last, took, runs, failed, remark] = slot.cells;
  slot.element.style.transform = "translateY(" + index * ROW + "px)";
  slot.element.classList.toggle("at", index === list.at);
  slot.element.id = "row-" + index;
  slot.element.setAttribute("aria-rowindex", index + 2);
  if (slot.row !== row) {
    slot.row = row;
    const status = row[K.status], running = row[K.locked] && status === 1;
    slot.element.href = "#key=" + keyAddress(row[0]);
    slot.element.dataset.key = row[0];
    setText(key, keyText(row[0]));
    key.title = keyText(row[0]);
    slot.mark.className = "mark s" + (isLock(row) ? 1 : status);
    setText(slot.mark, isLock(row) ? LOCK : MARKS[status]);
    setText(slot.word, wordsOf(row));
    setText(took, row[K.durationMs] > 0 && !running
      ? duration(row[K.durationMs]) : "–");
    setText(runs, isLock(row) ? "–" : count(row[K.runs]));
    setText(failed, bad(row) > 0 ? count(bad(row)) : "–");
    failed.className = bad(row) > 0 ? "num bad" : "num dim";
    setText(remark, row[K.locked] ? row[K.owner]
      : row[K.error] || row[K.note] || "");
  }
  setText(last, isLock(row) ? "–" : ago(when(row)));
}

function drawList(force) {
  const view = $("view");
  const height = view.clientHeight || 540;
  const from = Math.max(0, Math.floor(view.scrollTop / ROW) - 6);
  const to = Math.min(list.shown.length,
    Math.ceil((view.scrollTop + height) / ROW) + 6);
  if (!force && from === list.from && to === list.to) return;
  list.from = from;
  list.to = to;
  const size = to - from, rows = $("rows");
  while (list.pool.length < size) {
    const slot = makeRow();
    list.pool.push(slot);
    rows.append(slot.element);
  }
  // Each place has its element by its remainder: scrolling by one row fills
  // one element anew.
  const n = list.pool.length, used = new Set();
  for (let i = from; i < to; i++) {
    const slot = list.pool[i % n];
    used.add(slot);
    slot.element.hidden = false;
    fill(slot, list.shown[i], i);
  }
  for (const slot of list.pool)
    if (!used.has(slot)) slot.element.hidden = true;
  view.setAttribute("aria-activedescendant", "row-" + list.at);
}

function renderList() {
  sortList();
  const total = model.rows.size, shown = list.shown.length;
  setText($("keys-count"), shown === total ? count(total)
    : count(shown) + " of " + count(total));
  $("rows").style.height = shown * ROW + "px";
  $("view").style.height = shown * ROW < 540 ? shown * ROW + "px" : "";
  $("list").hidden = shown === 0;
  $("list-none").hidden = shown > 0;
  setText($("list-none"), total === 0
    ? "There is no key yet. Run something: eguard run KEY -- COMMAND"
    : "No key matches.");
  drawList(true);
}

function drawHead() {
  $("list-head").replaceChildren(...COLUMNS.map((column, i) => {
    const sorted = i === list.sort;
    const button = h("button", { type: "button", onclick() {
      list.down = sorted ? !list.down : Boolean(column.down);
      list.sort = i;
      drawHead();
      renderList();
    } }, column.title + (sorted ? (list.down ? " ↓" : " ↑") : ""));
    const cell = h(column.num ? "span.num" : "span",
      { role: "columnheader" }, button);
    if (sorted) cell.setAttribute("aria-sort",
      list.down ? "descending" : "ascending");
    return cell;
  }));
}

// --------------------------------------------------------------- by hand --

function select(index) {
  const view = $("view");
  list.at = Math.max(0, Math.min(list.shown.length - 1, index));
  const top = list.at * ROW;
  if (top < view.scrollTop) view.scrollTop = top;
  else if (top + ROW > view.scrollTop + view.clientHeight)
    view.scrollTop = top + ROW - view.clientHeight;
  drawList(true);
}

function listKey(event) {
  const page = Math.max(1, Math.floor($("view").clientHeight / ROW) - 1);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page,
    Home: -Infinity, End: Infinity, j: 1, k: -1 };
  if (event.key === "Enter" && list.shown[list.at]) {
    location.hash = "key=" + keyAddress(list.shown[list.at][0]);
  } else if (event.key in steps) {
    select(list.at + steps[event.key]);
  } else {
    return;
  }
  event.preventDefault();
}

function startList() {
  let asked = false;
  $("view").addEventListener("scroll", () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      drawList(false);
    });
  }, { passive: true });
  $("view").addEventListener("keydown", listKey);
  $("search").addEventListener("input", () => {
    list.search = $("search").value.toLowerCase();
    list.at = 0;
    $("view").scrollTop = 0;
    renderList();
  });
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      $("view").focus();
      select(0);
      event.preventDefault();
    }
  });
  drawHead();
}
