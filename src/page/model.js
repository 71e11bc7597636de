// What the page knows, and how it stays so: the state once, then events.
// Text from the store goes into the page by textContent alone.
"use strict";

const STATUS = ["Idle", "Running", "Completed", "TimedOut", "Failed"];
const WORDS = ["Idle", "Running", "Completed", "Timed out", "Failed"];
// Beside the colour, for those who do not see it.
const MARKS = ["○", "▶", "✓", "◷", "✕"];
const HOUR = 3600000;

// The columns of a row, as /api/state says them.
let K = {};

const model = {
  rows: new Map(), // by key
  runs: [], // [key, startMs, durationMs, status], oldest first
  runsComplete: true,
  head: {},
  skew: 0, // the server's clock less ours
  number: 0,
  connected: false,
  loaded: false,
  late: null, // events that came before the state
  listeners: [],
};

function now() { return Date.now() + model.skew; }

function changed(what) {
  for (const listener of model.listeners) listener(what);
}

function setHead(head) {
  model.head = head;
  model.number = head.number;
}

function apply(event) {
  for (const row of event.rows || []) model.rows.set(row[0], row);
  for (const key of event.gone || []) model.rows.delete(key);
  if (event.runs && event.runs.length > 0) {
    for (const run of event.runs) model.runs.push(run);
    const from = now() - HOUR;
    let old = 0;
    while (old < model.runs.length &&
      model.runs[old][1] + model.runs[old][2] < from) old++;
    if (old > 0) model.runs.splice(0, old);
  }
  setHead(event);
}

async function fetchJson(path) {
  const response = await fetch(path, { credentials: "same-origin" });
  if (response.status === 401) location.reload();
  const body = await response.json();
  if (!response.ok && response.status !== 404)
    throw new Error(body.error || response.statusText);
  return body;
}

// The state is at least as new as the hello that it follows; what comes while
// it is on its way is kept.
async function load() {
  model.late = [];
  try {
    const state = await fetchJson("/api/state");
    K = Object.fromEntries(state.columns.map((name, i) => [name, i]));
    model.rows = new Map(state.rows.map((row) => [row[0], row]));
    model.store = state.store;
    model.name = state.name;
    model.version = state.version;
    model.waitersKnown = state.waitersKnown;
    setHead(state);
    model.loaded = true;
    const late = model.late;
    model.late = null;
    for (const event of late)
      if (event.number > state.number) apply(event);
    changed("all");
    const runs = await fetchJson("/api/runs");
    model.runs = runs.runs;
    model.runsComplete = runs.complete;
    model.remembered = runs.remembered;
    changed("runs");
  } catch (error) {
    model.late = null;
    model.connected = false;
    changed("connection");
    setTimeout(load, 2000);
  }
}

function connect() {
  const source = new EventSource("/api/events");
  let heard = Date.now();
  const onData = (handle) => (event) => {
    heard = Date.now();
    const data = JSON.parse(event.data);
    model.skew = data.nowMs - heard;
    if (!model.connected) {
      model.connected = true;
      changed("connection");
    }
    handle(data);
  };
  source.addEventListener("hello", onData(() => load()));
  source.addEventListener("reload", onData(() => load()));
  source.addEventListener("tick", onData((data) => {
    setHead(data);
    changed("tick");
  }));
  source.addEventListener("change", onData((data) => {
    if (model.late) {
      model.late.push(data);
    } else if (data.number > model.number) {
      apply(data);
      changed("change");
    }
  }));
  const lost = () => {
    if (!model.connected) return;
    model.connected = false;
    changed("connection");
  };
  source.onerror = () => {
    lost();
    if (source.readyState === EventSource.CLOSED) {
      clearInterval(watch);
      setTimeout(connect, 2000);
    }
  };
  // A server that is stopped closes nothing.
  const watch = setInterval(() => {
    if (Date.now() - heard > 40000) lost();
  }, 1000);
}

// ------------------------------------------------------------------ words --

function keyText(key) {
  if (key[0] !== "\0") return key;
  return key.slice(1).replace(/%([0-9A-F]{2})/g, (all, hex) => {
    const code = parseInt(hex, 16);
    return code >= 0x20 && code < 0x7f && code !== 0x5c
      ? String.fromCharCode(code) : "\\x" + hex.toLowerCase();
  });
}

function keyAddress(key) {
  return key[0] === "\0" ? key.slice(1) : encodeURIComponent(key);
}

function duration(ms) {
  if (ms < 0) ms = 0;
  if (ms < 1) return ms.toFixed(2) + " ms";
  if (ms < 10) return ms.toFixed(1) + " ms";
  if (ms < 1000) return Math.round(ms) + " ms";
  if (ms < 10000) return (ms / 1000).toFixed(1) + " s";
  const s = Math.floor(ms / 1000);
  if (s < 60) return s + " s";
  const m = Math.floor(s / 60);
  if (m < 60) return m + " m " + String(s % 60).padStart(2, "0") + " s";
  const h = Math.floor(m / 60);
  if (h < 48) return h + " h " + String(m % 60).padStart(2, "0") + " m";
  return Math.floor(h / 24) + " d " + (h % 24) + " h";
}

function ago(ms) {
  if (!ms) return "never";
  const s = Math.max(0, Math.floor((now() - ms) / 1000));
  if (s < 2) return "just now";
  if (s < 60) return s + " s ago";
  if (s < 3600) return Math.floor(s / 60) + " min ago";
  if (s < 172800) return Math.floor(s / 3600) + " h ago";
  return Math.floor(s / 86400) + " d ago";
}

const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium",
  timeStyle: "medium", hourCycle: "h23" });
const shortClock = new Intl.DateTimeFormat(undefined, { month: "short",
  day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
  hourCycle: "h23" });
function atTime(ms) { return ms ? clock.format(new Date(ms)) : "–"; }

const numbers = new Intl.NumberFormat();
function count(n) { return numbers.format(n); }

// An element; properties by name, children as text or elements.
function h(tag, properties, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length > 0) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties || {}))
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

// What a row says of its status: a key that was only ever locked has none.
function isLock(row) { return row[K.note] === "no record"; }
function wordsOf(row) {
  return isLock(row) ? "Locked" : WORDS[row[K.status]] +
    (row[K.locked] && row[K.status] !== 1 ? ", locked" : "");
}
const LOCK = "▣";

function $(id) { return document.getElementById(id); }

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
