// The pictures of the last hour, on canvases: lanes by key, and a column a
// minute.
"use strict";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name)
    .trim();
}

function palette() {
  return { status: [0, 1, 2, 3, 4].map((i) => colour("--s" + i)),
    line: colour("--line"), soft: colour("--soft") };
}

// Sized to its place, sharp on every screen.
function prepare(canvas, height) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  if (height) canvas.style.height = height + "px";
  else height = canvas.clientHeight;
  const wide = Math.round(width * scale), high = Math.round(height * scale);
  if (canvas.width !== wide) canvas.width = wide;
  if (canvas.height !== high) canvas.height = high;
  const c = canvas.getContext("2d");
  c.setTransform(scale, 0, 0, scale, 0, 0);
  c.clearRect(0, 0, width, height);
  c.font = "12px system-ui, sans-serif";
  return { c, width, height };
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit",
  minute: "2-digit", hourCycle: "h23" });

function drawAxis(c, width, bottom, from, to, colours) {
  const step = width < 480 ? 1200000 : 600000;
  c.fillStyle = colours.soft;
  c.strokeStyle = colours.line;
  c.lineWidth = 1;
  c.textAlign = "center";
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
    const x = Math.round((t - from) / (to - from) * width) + 0.5;
    c.beginPath();
    c.moveTo(x, 0);
    c.lineTo(x, bottom);
    c.stroke();
    if (x > 20 && x < width - 20)
      c.fillText(TIME.format(new Date(t)), x, bottom + 15);
  }
}

// ------------------------------------------------------------------ lanes --

const LANES = 12, LANE = 24;
let boxes = []; // what was drawn, for the pointer

// Those that run, then those that ended last.
function laneKeys() {
  const keys = [];
  for (const row of model.rows.values())
    if (row[K.locked] && row[K.status] === 1) keys.push(row);
  keys.sort((a, b) => a[K.startMs] - b[K.startMs]);
  const lanes = new Set(keys.slice(0, LANES).map((row) => row[0]));
  for (let i = model.runs.length - 1; i >= 0 && lanes.size < LANES; i--)
    lanes.add(model.runs[i][0]);
  return [...lanes];
}

// Success is a low bar, what went wrong a high one; a time-out is hatched.
function drawRun(c, x, y, width, status, colours) {
  const low = status === 2 || status === 1;
  const top = y + (low ? 8 : 3), high = low ? 8 : 18;
  c.fillStyle = colours.status[status];
  c.fillRect(x, top, width, high);
  if (status === 3 && width > 5) {
    c.fillStyle = colour("--card");
    for (let at = x + 3; at < x + width - 1; at += 5)
      c.fillRect(at, top + 2, 1.5, high - 4);
  }
  return { x, y: top, width, height: high };
}

function drawLanes() {
  const keys = laneKeys(), names = $("lane-names");
  const none = keys.length === 0;
  $("lanes-none").hidden = !none;
  $("lanes").parentElement.hidden = none;
  if (none) return;
  names.replaceChildren(...keys.map((key) => h("a.name",
    { href: "#key=" + keyAddress(key), title: keyText(key) }, keyText(key))));
  const { c, width } = prepare($("lanes"), keys.length * LANE + 20);
  const to = now(), from = to - HOUR, bottom = keys.length * LANE;
  const colours = palette();
  drawAxis(c, width, bottom, from, to, colours);
  const lane = new Map(keys.map((key, i) => [key, i]));
  boxes = [];
  const draw = (key, start, took, status) => {
    const x = Math.max(0, (start - from) / HOUR * width);
    const end = Math.min(width, (start + took - from) / HOUR * width);
    const wide = Math.max(2, end - x);
    const box = drawRun(c, Math.min(x, width - 2), lane.get(key) * LANE, wide,
      status, colours);
    boxes.push(Object.assign(box, { key, start, took, status }));
  };
  for (const run of model.runs)
    if (lane.has(run[0]) && run[1] + run[2] >= from) draw(...run);
  for (const key of keys) {
    const row = model.rows.get(key);
    if (row && row[K.locked] && row[K.status] === 1)
      draw(key, row[K.startMs], to - row[K.startMs], 1);
  }
  $("lanes").setAttribute("aria-label", "Runs of the last hour of " +
    keys.length + " keys");
}

function showTip(event) {
  const x = event.offsetX, y = event.offsetY, tip = $("tip");
  const hit = boxes.findLast((box) => x >= box.x - 3 &&
    x <= box.x + box.width + 3 && y >= box.y - 4 &&
    y <= box.y + box.height + 4);
  tip.hidden = !hit;
  if (!hit) return;
  setText(tip, keyText(hit.key) + "\n" + WORDS[hit.status] + ", " +
    duration(hit.took) + ", " + TIME.format(new Date(hit.start)));
  const card = tip.parentElement.getBoundingClientRect();
  tip.style.left = Math.max(8, Math.min(event.clientX - card.left + 12,
    card.width - tip.offsetWidth - 8)) + "px";
  tip.style.top = event.clientY - card.top + 16 + "px";
}

// ---------------------------------------------------------------- minutes --

function minutes() {
  const to = Math.ceil(now() / 60000) * 60000, from = to - HOUR;
  const columns = Array.from({ length: 60 }, () => [0, 0, 0, 0, 0]);
  for (const run of model.runs) {
    const at = Math.floor((run[1] + run[2] - from) / 60000);
    if (at >= 0 && at < 60) columns[at][run[3]]++;
  }
  return { columns, from, to };
}

function drawRate() {
  const { c, width, height } = prepare($("rate"));
  const { columns, from, to } = minutes();
  const colours = palette(), bottom = height - 20;
  const up = Math.max(1, ...columns.map((n) => n[2]));
  const down = Math.max(0, ...columns.map((n) => n[3] + n[4]));
  drawAxis(c, width, bottom, from, to, colours);
  // Room for both by what there is; failures, of which there are few, have a
  // scale of their own, which is written beside it, and a fifth at least.
  const share = down > 0 ? Math.max(0.22, down / (up + down)) : 0;
  const zero = Math.round((bottom - 4) * (1 - share)) + 2;
  const wide = width / 60;
  columns.forEach((n, i) => {
    const x = i * wide + 0.75, w = Math.max(1, wide - 1.5);
    const good = n[2] > 0 ? Math.max(2, n[2] / up * (zero - 14)) : 0;
    c.fillStyle = colours.status[2];
    c.fillRect(x, zero - good, w, good);
    let y = zero + 1;
    for (const status of [4, 3]) {
      const bad = n[status] > 0
        ? Math.max(2, n[status] / down * (bottom - zero - 4)) : 0;
      c.fillStyle = colours.status[status];
      c.fillRect(x, y, w, bad);
      y += bad;
    }
  });
  c.fillStyle = colours.soft;
  c.fillRect(0, zero, width, 1);
  c.textAlign = "left";
  if (model.runs.length > 0) c.fillText(count(up) + " a minute", 2, 11);
  if (down > 0) c.fillText(count(down) + " a minute", 2, bottom - 4);
  const sum = (status) => columns.reduce((all, n) => all + n[status], 0);
  $("rate").setAttribute("aria-label", count(sum(2)) + " runs succeeded, " +
    count(sum(4)) + " failed, " + count(sum(3)) +
    " timed out within the last hour");
}

// One key's last runs: how long each took, against when.
function drawHistory(canvas, past) {
  const { c, width, height } = prepare(canvas);
  const colours = palette(), bottom = height - 6;
  const most = Math.max(...past.map((run) => run.duration), 1e-6);
  const wide = Math.min(26, width / Math.max(1, past.length));
  c.fillStyle = colours.soft;
  c.textAlign = "left";
  c.fillText(duration(most * 1000), 2, 11);
  c.fillRect(0, bottom, width, 1);
  [...past].reverse().forEach((run, i) => {
    const status = STATUS.indexOf(run.status);
    const tall = Math.max(3, run.duration / most * (bottom - 26));
    const x = i * wide + 1, w = Math.max(1.5, wide - 2);
    c.fillStyle = colours.status[status];
    c.fillRect(x, bottom - tall, w, tall);
    if (status !== 2 && w > 6) {
      c.textAlign = "center";
      c.fillText(MARKS[status], x + w / 2, bottom - tall - 4);
    }
  });
}
