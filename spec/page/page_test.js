// The page of eguard serve in a browser: what it shows is what the API says.
// Keeps a picture of each view in the folder that it is given.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const world = require("./world.js");

const pictures = process.argv[2];
const HOSTILE = "<img src=x onerror=alert(1)>";
const VIEWS = { wide: { viewport: { width: 1280, height: 900 } },
  phone: { viewport: { width: 390, height: 844 }, isMobile: true,
    hasTouch: true, deviceScaleFactor: 2 },
  dark: { viewport: { width: 1280, height: 900 }, colorScheme: "dark" } };
const TIME = 30000; // generous: the machine may be busy

const tests = [];
function it(name, fn) { tests.push([name, fn]); }

let browser, server, url, complaints;

// A page whose every complaint fails the test; closed at its end.
const open = [];
async function page(options, address) {
  const context = await browser.newContext(options || VIEWS.wide);
  open.push(context);
  const it = await context.newPage();
  it.setDefaultTimeout(TIME);
  it.on("pageerror", (error) => complaints.push(error.message));
  it.on("dialog", (dialog) => {
    complaints.push("a dialog: " + dialog.message());
    dialog.dismiss();
  });
  it.on("console", (message) => {
    if (/Content Security|Refused|TrustedHTML/.test(message.text()))
      complaints.push(message.text());
  });
  if (address !== null) await it.goto(address || server.url);
  return it;
}

async function loaded(options, address) {
  const it = await page(options, address);
  await it.waitForSelector("#rows .row");
  return it;
}

async function api(what) {
  return (await fetch(server.url + "api/" + what)).json();
}

async function state() {
  const said = await api("state");
  return { ...said, rows: said.rows.map((row) => Object.fromEntries(
    said.columns.map((name, i) => [name, row[i]]))) };
}

const digits = (text) => Number(text.replace(/\D/g, ""));

// A row of the list, when a search has left it.
async function find(p, text) {
  await p.fill("#search", text);
  await p.waitForFunction((wanted) => [...document.querySelectorAll(
    "#rows .row:not([hidden]) .name")].some((name) =>
    name.textContent === wanted), text);
  return p.locator("#rows .row:not([hidden])").filter({ has:
    p.locator(".name", { hasText: text }) }).first();
}

it("shows what the API says", async () => {
  const p = await loaded(), said = await state();
  for (const [status, n] of Object.entries(said.byStatus))
    if (status !== "1") // those that run are among the held
      assert.equal(digits(await p.textContent(
        `.tile[data-filter="${status}"] strong`)), n);
  assert.equal(digits(await p.textContent('.tile[data-filter=held] strong')),
    said.held);
  assert.equal(digits(await p.textContent("#keys-count")),
    said.totalRecords + said.onlyLocked);
  const held = said.rows.filter((row) => row.locked);
  assert.equal(held.length, 5);
  assert.equal(said.onlyLocked, 1);
  const lock = await (await find(p, "deploy")).textContent();
  assert.match(lock, /▣Locked/);
  for (const row of held) {
    const job = p.locator(`#now .job[data-key="${row.key}"]`);
    assert.equal(await job.locator(".who").textContent(), row.owner);
    assert.equal(digits(await job.locator(".waits").textContent()),
      row.waiters);
    if (row.progress !== null)
      assert.equal(await job.locator(".share").textContent(), "42 %");
  }
  assert.ok(held.some((row) => row.waiters === 2));
  for (const row of said.rows.filter((each) => each.failed > 0)) {
    const cells = await (await find(p, row.key)).locator("span[role]")
      .allTextContents();
    assert.equal(cells[0], row.key);
    assert.match(cells[1], row.status === 4 ? /Failed/ : /Completed/);
    assert.equal(digits(cells[4]), row.runs);
    assert.equal(digits(cells[5]), row.failed + row.timedOut + row.lost);
    assert.equal(cells[6], row.error || "");
  }
});

it("a key of markup is text, everywhere", async () => {
  const p = await loaded();
  const row = await find(p, HOSTILE);
  assert.ok((await row.textContent()).includes("<script>alert(2)</script>"));
  await row.click();
  await p.waitForSelector("#one h1");
  assert.equal(await p.textContent("#one h1"), HOSTILE);
  assert.ok((await p.textContent("#one")).includes("<script>alert(2)"));
  assert.equal(await p.locator("main img, main script").count(), 0);
  await p.reload();
  await p.waitForSelector("#one h1");
  assert.equal(await p.textContent("#one h1"), HOSTILE);
});

it("a key that starts appears without a reload, and goes", async () => {
  const p = await loaded();
  await p.evaluate(() => { window.same = true; });
  const took = [];
  for (let i = 0; i < 5 && !(Math.min(...took) < 1000); i++) {
    const key = "fresh/" + i;
    const seen = p.waitForFunction((name) => [...document.querySelectorAll(
      "#now .job")].some((job) => job.dataset.key === name) && Date.now(),
    key, { polling: 20 });
    const job = world.start("eguard", "run", "--store=" + url, key, "--",
      "sleep", "600");
    const at = await (await seen).jsonValue();
    const row = (await state()).rows.find((each) => each.key === key);
    took.push(at - row.startMs);
    await world.stop(job);
    await p.waitForFunction((name) => ![...document.querySelectorAll(
      "#now .job")].some((each) => each.dataset.key === name), key);
  }
  assert.ok(await p.evaluate(() => window.same), "it was loaded again");
  assert.ok(Math.min(...took) < 1000, "seen after " + took + " ms");
  console.log("  a key that starts is seen after " + took.join(", ") + " ms");
});

it("ten thousand keys are some elements; keys of the keyboard", async () => {
  const p = await loaded();
  assert.ok(await p.locator("#rows .row").count() < 60);
  await p.keyboard.press("/");
  await p.keyboard.type("player/");
  await p.waitForFunction(() => /of/.test(
    document.getElementById("keys-count").textContent));
  await p.keyboard.press("Enter");
  await p.keyboard.press("End");
  await p.waitForSelector("#rows .row.at");
  const key = await p.textContent("#rows .row.at .name");
  assert.match(key, /^player\//);
  assert.ok(await p.evaluate(() => {
    const row = document.querySelector("#rows .row.at")
      .getBoundingClientRect();
    const view = document.getElementById("view").getBoundingClientRect();
    return row.top >= view.top - 1 && row.bottom <= view.bottom + 1;
  }), "what is selected is to be seen");
  await p.keyboard.press("Enter");
  await p.waitForSelector("#one h1");
  assert.equal(await p.textContent("#one h1"), key);
  await p.keyboard.press("Escape");
  await p.waitForSelector("#rows .row.at");
});

it("a key's page has its record, history and commands", async () => {
  const p = await page(VIEWS.wide, server.url + "#key=nightly%2Fbackup");
  await p.waitForSelector("#one .facts");
  const said = await api("key?key=nightly%2Fbackup");
  const text = await p.textContent("#one");
  assert.ok(text.includes(said.commands.release));
  assert.match(said.commands.release, /^eguard release --force .*--token=\d/);
  assert.ok(text.includes(String(said.record.token)));
  assert.ok(text.includes("pid " + said.record.owner.pid));
  await p.goto(server.url + "#key=cron%2Fbackup");
  await p.waitForSelector("#one tbody tr");
  assert.equal(await p.locator("#one tbody tr").count(),
    (await api("key?key=cron%2Fbackup")).history.length);
  await p.goto(server.url + "#key=bytes%20%FF%00");
  await p.waitForSelector("#one .facts");
  assert.equal(await p.textContent("#one h1"), "bytes \\xff\\x00");
});

it("nothing is shown without the token", async () => {
  const file = path.join(world.folder, "token");
  fs.writeFileSync(file, "0123456789abcdef0123\n", { mode: 0o600 });
  const guarded = await world.serve(url, "--token-file=" + file);
  const p = await page(VIEWS.wide, guarded.url);
  for (const wrong of [null, "0123456789abcdef0124"]) {
    if (wrong) {
      await p.fill("#token", wrong);
      await p.click("button");
      await p.waitForURL("**/login");
    }
    assert.equal(await p.locator("#rows, .tile, .store").count(), 0);
    assert.ok(!(await p.content()).includes("backup"));
  }
  await p.screenshot({ path: path.join(pictures, "token.png") });
  await p.fill("#token", "0123456789abcdef0123");
  await p.click("button");
  await p.waitForSelector("#rows .row");
  const other = await page(VIEWS.wide, guarded.link);
  await other.waitForSelector("#rows .row");
  const late = await page(VIEWS.wide, guarded.link);
  await late.waitForSelector("#token");
  assert.equal(await late.locator("#rows").count(), 0);
  await world.stop(guarded.child);
});

it("a server that is gone is told, and found again", async () => {
  const mine = await world.serve(url);
  const p = await loaded(VIEWS.wide, mine.url);
  await world.stop(mine.child);
  await p.waitForSelector("#banner:not([hidden])");
  assert.match(await p.textContent("#banner"), /does not answer/);
  await p.screenshot({ path: path.join(pictures, "gone.png") });
  await world.serve(url, "--listen=" + new URL(mine.url).host);
  await p.waitForSelector("#banner", { state: "hidden" });
  assert.equal(await p.textContent("#live"), "live");
});

it("an empty store says what to do", async () => {
  const empty = await world.serve(world.store("empty", -1));
  const p = await page(VIEWS.wide, empty.url);
  await p.waitForSelector("#list-none:not([hidden])");
  assert.match(await p.textContent("#now"), /Nothing is running or locked/);
  await p.screenshot({ path: path.join(pictures, "empty.png"),
    fullPage: true });
});

for (const [name, options] of Object.entries(VIEWS))
  it("fits, and is kept as a picture: " + name, async () => {
    const p = await loaded(options);
    for (const [view, hash, ready] of [["overview", "#", "#rows .row"],
      ["key", "#key=cron%2Fbackup", "#one .facts"],
      ["held", "#key=nightly%2Fbackup", "#one .facts"],
      ["lock", "#key=deploy", "#one .facts"]]) {
      await p.goto(server.url + hash);
      await p.waitForSelector(ready);
      await p.waitForFunction(() => model.runs.length > 0);
      assert.ok(await p.evaluate(() => document.documentElement.scrollWidth <=
        innerWidth), view + " is wider than its window");
      await p.screenshot({ fullPage: true,
        path: path.join(pictures, name + "-" + view + ".png") });
    }
    const paper = await p.evaluate(() =>
      getComputedStyle(document.body).backgroundColor.match(/\d+/)[0]);
    assert.equal(Number(paper) < 100, name === "dark");
  });

async function prepare() {
  url = world.store("store", 10000);
  try {
    world.run("eguard", "run", "--store=" + url, "--timeout=0.1s",
      "timed/out", "--", "sleep", "60");
  } catch (error) { assert.equal(error.status, 124); }
  world.run("eguard", "run", "--store=" + url, "season 7", "--", "true");
  for (const key of ["nightly/backup", "import/orders", "season 7"])
    world.start("eguard", "run", "--store=" + url, key, "--", "sleep", "600");
  world.start("eguard", "run", "--no-record", "--store=" + url, "deploy",
    "--", "sleep", "600");
  world.start("lua5.4", path.join(__dirname, "world.lua"), url, "--report",
    "reindex", "0.429");
  server = await world.serve(url);
  const held = async (enough) => {
    let rows;
    for (const until = Date.now() + 2 * TIME; Date.now() < until;) {
      rows = (await state()).rows.filter((row) => row.locked);
      if (enough(rows)) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error("they do not start: " + JSON.stringify(rows) +
      world.ended());
  };
  await held((rows) => rows.length === 5 &&
    rows.some((row) => row.progress === 0.429));
  for (let i = 0; i < 2; i++)
    world.start("eguard", "run", "--wait", "--store=" + url,
      "nightly/backup", "--", "true");
  await held((rows) => rows.some((row) => row.waiters === 2));
}

async function main() {
  const begun = Date.now();
  let failed = 0;
  fs.mkdirSync(pictures, { recursive: true });
  browser = await world.browse();
  await prepare();
  for (const [name, fn] of tests) {
    complaints = [];
    try {
      await fn();
      assert.deepEqual(complaints, []);
    } catch (error) {
      failed++;
      console.log("FAILED " + name + "\n" + error.stack);
    }
    for (const context of open.splice(0)) await context.close();
  }
  console.log(`${tests.length - failed} successes / ${failed} failures / ` +
    `0 errors / 0 pending : ${(Date.now() - begun) / 1000} seconds`);
  process.exitCode = failed > 0 ? 1 : 0;
}

main().catch((error) => {
  console.log(error.stack);
  process.exitCode = 1;
}).finally(async () => {
  if (browser) await browser.close();
  await world.end();
});
