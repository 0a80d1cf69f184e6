// Opens the pages of a folder in Chromium and checks them: node check.mjs FOLDER DRIVER [PART]

import { createRequire } from "node:module";
import assert from "node:assert/strict";
import { checkControls } from "./controls.mjs";
import { checkViews } from "./views.mjs";
import { checkHostile } from "./hostile.mjs";
import { checkLarge } from "./large.mjs";
import { checkDiff } from "./diff.mjs";
import { checkInstructions } from "./instructions.mjs";
import { checkHeatmap } from "./heatmap.mjs";

const [folder, driver, only] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(driver);
// As root, Chromium asks for this.
const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
const browser = await chromium.launch({ executablePath: await find("chromium"), args });

async function find(program) {
  const { access } = await import("node:fs/promises");
  for (const directory of process.env.PATH.split(":")) {
    const path = `${directory}/${program}`;
    if (await access(path).then(() => true, () => false)) return path;
  }
  throw new Error(`there is no ${program} on PATH`);
}

// A page that may neither complain nor ask for anything. Call `done` at the end.
async function open(name, { hash = "", width = 1300, height = 800, scheme = "light", context, prepare } = {}) {
  const own = context || (await browser.newContext({ viewport: { width, height }, colorScheme: scheme, acceptDownloads: true }));
  const page = await own.newPage();
  // Machines can be busy.
  page.setDefaultTimeout(120_000);
  const wrong = [];
  page.on("console", (message) => wrong.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => wrong.push(`error: ${error.stack}`));
  page.on("dialog", (dialog) => { wrong.push("a dialog"); dialog.dismiss(); });
  page.on("request", (request) => {
    if (!/^(file|blob|data):/.test(request.url())) wrong.push(`request: ${request.url()}`);
  });
  const prepared = prepare && (await prepare(page));
  await page.goto(`file://${folder}/${name}.html${hash}`);
  // A heatmap's pages have none, and are there at once.
  await page.waitForFunction(() => window.pysamp || !document.getElementById("paper"));
  const done = async () => {
    assert.deepEqual(wrong, [], name);
    await (context ? page.close() : own.close());
  };
  // What a drag asks for is done in the next frame.
  const state = () => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(window.pysamp.state())))));
  const boxes = () => page.evaluate(() => window.pysamp.visible());
  const named = async (wanted) => (await boxes()).filter(({ name }) => name === wanted);
  // Clicks into the middle of the first box of a name.
  const clickBox = async (wanted, options) => {
    const [box] = await named(wanted);
    assert(box, `no box ${wanted}`);
    await page.locator("#graph").click({ position: { x: box.x + box.width / 2, y: box.y + box.height / 2 }, ...options });
  };
  return { page, prepared, context: own, done, state, boxes, named, clickBox };
}

const parts = { checkControls, checkViews, checkHostile, checkLarge, checkDiff, checkInstructions, checkHeatmap };
try {
  for (const [name, check] of Object.entries(parts)) {
    if (only && only !== name) continue;
    const start = performance.now();
    await check(open);
    console.log(`${name}: ${((performance.now() - start) / 1e3).toFixed(1)} s`);
  }
} finally {
  await browser.close();
}
