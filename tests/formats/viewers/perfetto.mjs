// Opens Chrome traces in Perfetto's page, and prints what its trace processor says of each: a line of JSON
// for each file.
//
//     node perfetto.mjs CONSUMERS CHROMIUM FILE...

import { createRequire } from "node:module";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";

const [consumers, executablePath, ...files] = process.argv.slice(2);
const require = createRequire(path.join(consumers, "npm/"));
const { chromium } = require("playwright-core");
const root = path.join(consumers, "perfetto");

const SLICES = `
  select process.name as process, process.pid as pid, thread.name as thread, thread.tid as tid,
    slice.id as id, slice.parent_id as parent, slice.name as name, slice.category as category,
    slice.ts as ts, slice.dur as dur, slice.depth as depth,
    extract_arg(slice.arg_set_id, 'args.samples') as samples,
    extract_arg(slice.arg_set_id, 'args.file') as file,
    extract_arg(slice.arg_set_id, 'args.line') as line
  from slice join thread_track on slice.track_id = thread_track.id
    join thread using (utid) left join process using (upid)
  order by slice.id`;
const WRONG = "select name, value from stats where severity in ('error', 'data_loss') and value > 0";

const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".wasm": "application/wasm",
};
const server = http.createServer((request, response) => {
  const file = path.join(root, path.normalize(new URL(request.url, "http://x").pathname));
  const found = file.endsWith("/") ? path.join(file, "index.html") : file;
  if (!fs.existsSync(found)) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": TYPES[path.extname(found)] ?? "application/octet-stream" });
  fs.createReadStream(found).pipe(response);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const origin = `http://127.0.0.1:${server.address().port}`;

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
for (const file of files) {
  // Perfetto would otherwise fetch news of itself from elsewhere.
  const context = await browser.newContext({ serviceWorkers: "block" });
  await context.route((url) => url.origin !== origin && url.protocol !== "blob:", (route) => route.abort());
  const page = await context.newPage();
  page.on("pageerror", (error) => console.error(`${file}: ${error}`));
  page.setDefaultTimeout(120_000);
  await page.goto(`${origin}/`, { waitUntil: "commit" });
  await page.waitForFunction(() => window.app && document.querySelector("input.trace_file, input[type=file]"));
  await page.setInputFiles("input.trace_file, input[type=file]", file);
  await page.waitForFunction(() => window.app.trace?.engine);
  const rows = (sql) =>
    page.evaluate(async (sql) => {
      const result = await window.app.trace.engine.query(sql);
      const rows = [];
      for (const it = result.iter({}); it.valid(); it.next()) {
        rows.push(Object.fromEntries(result.columns().map((column) => {
          const value = it.get(column);
          return [column, typeof value === "bigint" ? Number(value) : value];
        })));
      }
      return rows;
    }, sql);
  console.log(JSON.stringify({ wrong: await rows(WRONG), slices: await rows(SLICES) }));
  if (process.env.SCREENSHOTS) {
    await page.waitForTimeout(3000);
    await page.screenshot({ path: path.join(process.env.SCREENSHOTS, "perfetto.png") });
  }
  await context.close();
}
await browser.close();
server.close();
