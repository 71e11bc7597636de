// The overview, the way between the views, and when what is drawn again.
"use strict";

// ------------------------------------------------------------------ parts --

function drawTiles() {
  const head = model.head, tiles = [
    ["held", 1, "Held now", head.held], [2, 2, "Completed"],
    [4, 4, "Failed"], [3, 3, "Timed out"], [0, 0, "Idle"],
    [null, null, "All keys", head.totalRecords + head.onlyLocked]];
  $("tiles").replaceChildren(...tiles.map(([filter, mark, name, n]) => {
    n = n === undefined ? head.byStatus[filter] : n;
    const button = h("button.tile" + (n === 0 ? ".zero" : ""),
      { type: "button", onclick() {
        list.filter = list.filter === filter ? null : filter;
        list.at = 0;
        $("view").scrollTop = 0;
        drawTiles();
        renderList();
        $("keys-title").scrollIntoView({ block: "nearest" });
      } },
      h("strong", {}, count(n)), h("span", {}, mark === null ? null
        : h("i.mark.s" + mark, {}, MARKS[mark]), name));
    button.dataset.filter = String(filter);
    button.setAttribute("aria-pressed", String(list.filter === filter &&
      filter !== null));
    return button;
  }));
}

const NOW = 100;

function heldRows() {
  const held = [];
  for (const row of model.rows.values()) if (row[K.locked]) held.push(row);
  return held.sort((a, b) => a[K.sinceMs] - b[K.sinceMs]);
}

function drawNow() {
  const held = heldRows(), waiting = held.reduce((n, row) =>
    n + row[K.waiters], 0);
  setText($("now-count"), held.length > 0 ? count(held.length) : "");
  if (held.length === 0) {
    $("now").replaceChildren(h("p.none", {}, "Nothing is running or locked."));
    return;
  }
  $("now").replaceChildren(...held.slice(0, NOW).map((row) => {
    const runs = row[K.status] === 1;
    const time = h("span.time"), bar = h("i"), usual = row[K.p95Ms];
    const told = row[K.progress], share = h("span.share");
    const gauge = h("span.gauge.s1", { title: told !== null
      ? "as it says itself" : usual > 0 ? "beside the time within which " +
        "95 of 100 runs end, " + duration(usual) : "" }, bar);
    const job = h("a.job", { href: "#key=" + keyAddress(row[0]) },
      h("span.name", { title: keyText(row[0]) }, h("i.mark.s1", {},
        runs ? MARKS[1] : LOCK), keyText(row[0])), time,
      h("span.meter", {}, gauge, share),
      h("span.who", { title: row[K.owner] }, row[K.owner]),
      h("span.waits" + (row[K.waiters] > 0 ? ".some" : ""), {},
        !model.waitersKnown ? "" : row[K.waiters] > 0
          ? count(row[K.waiters]) + " waiting" : "none waits"));
    job.dataset.key = row[0];
    job.tick = () => {
      const took = now() - (runs ? row[K.startMs] : row[K.sinceMs]);
      setText(time, duration(took));
      const part = told !== null ? told : usual > 0 ? took / usual : 0;
      bar.style.width = Math.min(100, part * 100) + "%";
      setText(share, told === null && usual <= 0 ? ""
        : part >= 10 ? "> 9×" : (told !== null ? "" : "~") +
          Math.floor(part * 100) + " %");
      gauge.className = "gauge " + (told !== null ? "told s2"
        : usual <= 0 ? "unknown" : took > usual ? "guess s3" : "guess s1");
    };
    job.tick();
    return job;
  }), held.length > NOW ? h("p.none", {}, "and " +
    count(held.length - NOW) + " more") : "");
  setText($("now-count"), count(held.length) + (waiting > 0
    ? ", " + count(waiting) + " waiting" : ""));
}

function drawSlow() {
  const rows = [...model.rows.values()].filter((row) => row[K.p95Ms] > 0)
    .sort((a, b) => b[K.p95Ms] - a[K.p95Ms]).slice(0, 8);
  if (rows.length === 0) {
    $("slow").replaceChildren(h("li.none", {}, "No run has ended yet."));
    return;
  }
  const most = rows[0][K.p95Ms];
  $("slow").replaceChildren(...rows.map((row) => {
    const bar = h("i");
    bar.style.width = row[K.p95Ms] / most * 100 + "%";
    return h("li", {}, h("a", { href: "#key=" + keyAddress(row[0]) },
      h("span.name", { title: keyText(row[0]) }, keyText(row[0])),
      h("span.time", {}, duration(row[K.p95Ms])), h("span.gauge", {}, bar)));
  }));
}

function drawStanding() {
  const banner = $("banner"), trouble = model.head.trouble;
  const text = !model.connected && model.loaded
    ? "The server does not answer. What is shown is as of " +
      TIME.format(new Date(model.head.nowMs)) + "; trying again."
    : trouble ? "The store cannot be read: " + trouble : "";
  setText(banner, text);
  banner.hidden = text === "";
  $("live").className = "live " + (model.connected ? "on" : "off");
  setText($("live").lastElementChild, model.connected ? "live"
    : model.loaded ? "not connected" : "connecting");
}

function drawAbout() {
  setText($("store"), model.store + (model.name ? ", " + model.name : ""));
  setText($("about"), "ExecutionGuard " + model.version +
    "; read-only; a scan takes " + duration(model.head.scanMs));
  document.title = (model.head.held > 0 ? "(" + model.head.held + ") " : "") +
    "ExecutionGuard";
}

// ----------------------------------------------------------------- whole --

function drawHour() {
  setText($("hour-note"), model.runsComplete ? ""
    : "the latest " + count(model.runs.length) + " runs");
  drawLanes();
  drawRate();
}

let hourDrawn = 0;

function drawOverview() {
  drawTiles();
  drawNow();
  renderList();
  drawSlow();
  if (model.runs.length < 2000 || Date.now() - hourDrawn > 1000) {
    hourDrawn = Date.now();
    drawHour();
  }
}

function draw() {
  if (!model.loaded) return;
  drawStanding();
  drawAbout();
  if ($("overview").hidden) showKey(shownKey);
  else drawOverview();
}

let planned = false;

function plan() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    draw();
  });
}

function keyOfAddress() {
  const match = location.hash.match(/^#key=(.*)$/);
  if (!match) return null;
  try {
    const key = decodeURIComponent(match[1]);
    return key[0] === "\0" ? "\0" + match[1] : key;
  } catch (error) { // its bytes are no text
    return "\0" + match[1];
  }
}

function route() {
  const key = keyOfAddress();
  $("overview").hidden = key !== null;
  $("one").hidden = key === null;
  if (key !== null) {
    scrollTo(0, 0);
    showKey(key);
  } else {
    shownKey = null;
    if (model.loaded) draw();
  }
}

model.listeners.push((what) => {
  if (what === "tick" || what === "connection") drawStanding();
  else if (what === "runs") {
    if (!$("overview").hidden) drawHour();
  } else plan();
});

addEventListener("hashchange", route);
addEventListener("resize", plan);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", plan);
addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    if ($("overview").hidden) location.hash = "";
    $("search").focus();
    event.preventDefault();
  } else if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (!$("one").hidden) location.hash = "";
  }
});
$("lanes").addEventListener("mousemove", showTip);
$("lanes").addEventListener("mouseleave", () => { $("tip").hidden = true; });

setInterval(() => {
  for (const job of document.querySelectorAll("#now .job")) job.tick();
  tickKey();
}, 500);
setInterval(() => {
  if (!model.loaded || $("overview").hidden) return;
  drawHour();
  drawList(true);
}, 10000);

startList();
route();
connect();
