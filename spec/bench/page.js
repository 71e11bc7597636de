// The page of eguard serve with 10,000 keys against the same page with none:
// from the start of the navigation to the first view that is drawn, and frames
// while the list is scrolled.  Prints "name number" lines.
"use strict";

const world = require("../page/world.js");
const rounds = Number(process.argv[2] || 9);

// Drawn: the frame after the one in which the page has said what there is.
async function firstView(browser, server) {
  const context = await browser.newContext({ viewport: { width: 1280,
    height: 900 } });
  const page = await context.newPage();
  await page.goto(server.url, { waitUntil: "commit" });
  const ms = await page.evaluate(() => new Promise((resolve) => {
    const look = () => {
      if (document.querySelector("#rows .row") ||
          document.querySelector("#list-none:not([hidden])"))
        requestAnimationFrame(() => resolve(performance.now()));
      else requestAnimationFrame(look);
    };
    look();
  }));
  await context.close();
  return ms;
}

// Two screens a second, as a hand does; or the same frames with nothing moved,
// which shows what the machine drops by itself.  A frame is dropped when the
// next one comes later than one and a half of their usual distance.
async function scroll(browser, server, pixels) {
  const page = await browser.newPage({ viewport: { width: 1280,
    height: 900 } });
  await page.goto(server.url);
  await page.waitForSelector("#rows .row");
  await page.waitForTimeout(1500);
  const said = await page.evaluate((by) => new Promise((resolve) => {
    const view = document.getElementById("view"), times = [];
    const draw = window.drawList;
    let spent = 0;
    window.drawList = (force) => {
      const from = performance.now();
      draw(force);
      spent += performance.now() - from;
    };
    const step = (time) => {
      times.push(time);
      view.scrollTop += by;
      if (times.length < 300) requestAnimationFrame(step);
      else resolve({ times, spent });
    };
    requestAnimationFrame(step);
  }), pixels);
  await page.close();
  const gaps = said.times.slice(1).map((time, i) => time - said.times[i]);
  const usual = 1000 / 60;
  const dropped = gaps.reduce((n, gap) =>
    n + Math.max(0, Math.round(gap / usual) - 1), 0);
  return { dropped: dropped / (gaps.length + dropped) * 100,
    script: said.spent / said.times.length * 1000 };
}

async function main() {
  const full = await world.serve(world.store("full", 10000));
  const none = await world.serve(world.store("none", -1));
  const browser = await world.browse();
  try {
    for (const server of [full, none]) await firstView(browser, server);
    for (let i = 0; i < rounds; i++) {
      console.log("full " + await firstView(browser, full) * 1e6);
      console.log("none " + await firstView(browser, none) * 1e6);
    }
    for (let i = 0; i < (rounds > 5 ? 5 : 2); i++) {
      const moved = await scroll(browser, full, 18);
      console.log("dropped " + moved.dropped);
      console.log("frames 100");
      console.log("script " + moved.script * 1000);
      console.log("still " + (await scroll(browser, full, 0)).dropped);
    }
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.error(error.stack);
  process.exitCode = 1;
}).finally(world.end);
