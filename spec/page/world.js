// What the tests and the bench of the page share: stores, servers, a browser.
"use strict";

const { execFileSync, spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { chromium } = require("playwright-core");

// In memory where that can be: ten thousand lock files are made, and a disk
// that others use takes seconds for them.
const shared = "/dev/shm";
const folder = fs.mkdtempSync(path.join(
  fs.existsSync(shared) ? shared : os.tmpdir(), "eguard-page-"));
const children = [];

function start(...command) {
  const child = spawn(command[0], command.slice(1),
    { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  return child;
}

function run(...command) {
  return execFileSync(command[0], command.slice(1), { encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"] });
}

// The store called that, with so many keys that are done; -1: none at all.
function store(name, keys) {
  const url = "file:" + path.join(folder, name);
  if (keys >= 0)
    run("lua5.4", path.join(__dirname, "world.lua"), url, String(keys));
  return url;
}

// eguard serve; resolves to its first line, the address.
async function serve(url, ...options) {
  const child = start("eguard", "serve", "--store=" + url,
    ...options.some((word) => word.startsWith("--listen")) ? []
      : ["--listen=127.0.0.1:0"], ...options);
  const link = await new Promise((resolve, reject) => {
    let said = "";
    child.stdout.on("data", (data) => {
      said += data;
      if (said.includes("\n")) resolve(said.trim());
    });
    child.on("exit", () => reject(new Error("eguard serve ended")));
  });
  return { child, link, url: new URL("/", link).href };
}

function stop(child) {
  if (child.exitCode !== null || child.signalCode !== null)
    return Promise.resolve();
  return new Promise((resolve) => {
    child.on("exit", resolve);
    child.kill("SIGTERM");
  });
}

// What has ended by itself, for a message.
function ended() {
  return children.filter((child) => child.exitCode !== null).map((child) =>
    `\n${child.spawnargs.join(" ")}: exit status ${child.exitCode}`).join("");
}

function findBrowser() {
  for (const name of ["chromium-headless-shell", "chromium"])
    for (const place of process.env.PATH.split(":"))
      if (fs.existsSync(path.join(place, name))) return path.join(place, name);
  throw new Error("there is no chromium in PATH");
}

// Root has no sandbox; what it looks at is ours.
async function browse() {
  return chromium.launch({ executablePath: findBrowser(),
    args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
}

async function end() {
  await Promise.all(children.map(stop));
  fs.rmSync(folder, { recursive: true, force: true });
}

module.exports = { browse, end, ended, folder, run, serve, start, stop, store };
