// The page of one key: its record, its history, and the commands for it.
"use strict";

let shownKey = null, asking = 0;

function fact(name, value) {
  return value == null || value === false || value === "" ? []
    : [h("dt", {}, name), h("dd", {}, value)].reduce((box, part) => {
      box.append(part);
      return box;
    }, h("div"));
}

const ms = (text) => (text ? Date.parse(text) : 0);

function command(title, text) {
  if (!text) return null;
  const button = h("button.plain", { type: "button", async onclick() {
    try {
      await navigator.clipboard.writeText(text);
      setText(button, "Copied");
    } catch (error) { // not over plain HTTP from elsewhere
      getSelection().selectAllChildren(pre);
      setText(button, "Selected");
    }
    setTimeout(() => setText(button, "Copy"), 1500);
  } }, "Copy");
  const pre = h("pre", {}, text);
  return h("div", {}, h("p.dim", {}, title), h("div.command", {}, pre,
    button));
}

function titleOf(record, held) {
  const status = STATUS.indexOf(record.status), lock = record.onlyLocked;
  return h("div.title", {}, h("h1.mono", {}, keyText(shownKey)),
    h("span.badge.s" + (lock ? 1 : status), {}, lock
      ? LOCK + " Locked; there is no record" : MARKS[status] + " " +
      WORDS[status] + (held && status !== 1 ? ", locked" : "") +
      (record.corrupt ? " (cannot be read)" : "")));
}

function factsOf(record, held) {
  const times = record.runTime, since = held ? ms(record.owner.since) : 0;
  const elapsed = h("span", {}, held ? duration(now() - since) : "");
  elapsed.dataset.since = since;
  return h("dl.facts", {},
    fact("Held for", held ? elapsed : null),
    fact("Progress, as it says", record.progress === null ? null
      : Math.floor(record.progress * 100) + " %"),
    fact("Held by", held ? record.owner.text + ", pid " + record.owner.pid +
      " on " + record.owner.host : null),
    fact("Last run ended", held && record.status === "Running" ? null
      : record.lastExecutionTime && atTime(ms(record.lastExecutionTime))),
    fact("Took", record.duration > 0 ? duration(record.duration * 1000)
      : null),
    record.onlyLocked ? [] : [
      fact("Runs", count(record.executionCount)),
      fact("Failed", count(record.failed)),
      fact("Timed out", count(record.timedOut)),
      fact("Lost", count(record.lost))],
    fact("Refused", count(record.blocked || 0)),
    fact("Answered from memory", count(record.cached || 0)),
    fact("Half end within", times.runs > 0 && duration(times.p50 * 1000)),
    fact("95 of 100 within", times.runs > 0 && duration(times.p95 * 1000)),
    fact("99 of 100 within", times.runs > 0 && duration(times.p99 * 1000)),
    fact("Cools down for", record.cooldownLeft > 0 &&
      duration(record.cooldownLeft * 1000)),
    fact("Token", record.token ? String(record.token) : null));
}

function historyOf(answer) {
  const past = answer.history;
  if (!answer.remembered)
    return h("p.none", {}, "This store remembers no ended runs.");
  if (past.length === 0) return h("p.none", {}, "No run has ended yet.");
  const picture = h("canvas.history", { role: "img", ariaLabel:
    "How long the last " + past.length + " runs took" });
  picture.style.height = "120px";
  const rows = past.map((run) => {
    const status = STATUS.indexOf(run.status);
    return h("tr", {}, h("td", {}, shortClock.format(ms(run.startTime))),
      h("td", {}, h("i.mark.s" + status, {}, MARKS[status]), WORDS[status]),
      h("td.num", {}, duration(run.duration * 1000)),
      h("td.wide", {}, run.owner || ""), h("td", {}, run.error ||
        (run.exitStatus ? "exit status " + run.exitStatus : "")));
  });
  return [picture, h("div.scroll", { tabIndex: 0 }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", {}, "Started"),
      h("th", {}, "Status"), h("th.num", {}, "Took"), h("th.wide", {},
        "By"), h("th", {}, "Remark"))), h("tbody", {}, rows)))];
}

function card(title, ...children) {
  return h("section.card", {}, h("h2", {}, title), ...children.flat());
}

function drawKey(answer) {
  const record = answer.record, held = record.locked;
  const back = h("a", { href: "#" }, "← All keys");
  if (!answer.found && !held) {
    $("one").replaceChildren(back, card("There is no record of this key",
      h("p.mono", {}, keyText(shownKey))));
    return;
  }
  const error = [record.error, record.trace].filter(Boolean).join("\n\n");
  const commands = answer.commands;
  $("one").replaceChildren(back,
    h("section.card", {}, titleOf(record, held)),
    card(record.onlyLocked ? "Lock" : "Record", factsOf(record, held)),
    error ? card("Error", h("pre.bad-text", {}, error)) : "",
    record.result !== null ? card("Result",
      h("pre", {}, JSON.stringify(record.result, null, 2))) : "",
    record.onlyLocked ? "" : card("History", historyOf(answer)),
    commands.show ? card("In a shell",
      command("Take it from its holder, whose writes are refused then:",
        commands.release),
      command("Put it back to Idle, so that it may run again:",
        commands.reset),
      command("Show it:", commands.show)) : "");
  const picture = document.querySelector("canvas.history");
  if (picture) drawHistory(picture, answer.history);
}

async function showKey(key) {
  const mine = ++asking;
  const other = key !== shownKey;
  shownKey = key;
  if (other) $("one").replaceChildren(h("p.none", {}, "Loading…"));
  try {
    const answer = await fetchJson("/api/key?key=" + keyAddress(key));
    if (mine === asking) drawKey(answer);
  } catch (error) {
    if (mine === asking)
      $("one").replaceChildren(h("a", { href: "#" }, "← All keys"),
        card("It could not be read", h("p", {}, error.message)));
  }
}

function tickKey() {
  for (const element of document.querySelectorAll("#one [data-since]"))
    if (element.dataset.since > 0)
      setText(element, duration(now() - element.dataset.since));
}
