// Opens files in speedscope's page, and saves what the page has read of each in speedscope's own format.
//
//     node speedscope.mjs CONSUMERS CHROMIUM INTO FILE...

import { createRequire } from "node:module";
import fs from "node:fs";
import path from "node:path";
import url from "node:url";

const [consumers, executablePath, into, ...files] = process.argv.slice(2);
const require = createRequire(path.join(consumers, "npm/"));
const { chromium } = require("playwright-core");
const Ajv = require("ajv");
const release = path.join(consumers, "npm/node_modules/speedscope/dist/release");

const schema = JSON.parse(fs.readFileSync(path.join(release, "file-format-schema.json")));
const isValid = new Ajv({ strict: false }).compile(schema);
for (const file of files.filter((file) => file.endsWith(".speedscope.json"))) {
  if (!isValid(JSON.parse(fs.readFileSync(file)))) {
    throw new Error(`${file}: ${JSON.stringify(isValid.errors.slice(0, 5))}`);
  }
}

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const problems = [];
for (const file of files) {
  const page = await browser.newPage({ acceptDownloads: true });
  page.setDefaultTimeout(120_000);
  page.on("pageerror", (error) => problems.push(`${file}: ${error}`));
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(`${file}: ${message.text()}`);
  });
  page.on("dialog", (dialog) => {
    problems.push(`${file}: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("request", (request) => {
    if (!/^(file|data|blob):/.test(request.url())) problems.push(`${file}: ${request.url()}`);
  });
  await page.goto(url.pathToFileURL(path.join(release, "index.html")).href);
  await page.setInputFiles("input[type=file]", file);
  await page.waitForSelector("canvas", { state: "attached" });
  const download = page.waitForEvent("download");
  await page.keyboard.press("Control+s");
  await (await download).saveAs(path.join(into, `${path.basename(file)}.read`));
  if (process.env.SCREENSHOTS) {
    await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `${path.basename(file)}.png`) });
  }
  await page.close();
}
await browser.close();
if (problems.length) throw new Error(problems.join("\n"));
