// The ways to look at the same samples, the image and the paper.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

const MS = 1e6;

export async function checkViews(open) {
  const { page, done, state, boxes, named, clickBox } = await open("typical");
  const ms = (box) => Math.round(box.timeNs / MS);

  // Callers: what runs is below the root, and who has called it below that.
  await page.locator("#callers").click();
  let all = await boxes();
  const first = all.filter(({ depth }) => depth === 1).map((box) => [box.name, ms(box)]);
  assert.deepEqual(first, [["wait", 6_000], ["work", 4_000], ["decode", 2_000]]);
  const work = all.find(({ depth, name }) => depth === 1 && name === "work");
  const callers = all.filter(({ depth, x }) => depth === 2 && x >= work.x && x < work.x + work.width - 1);
  assert.deepEqual(callers.map((box) => [box.name, ms(box)]), [["main", 2_000], ["run", 2_000]]);
  await clickBox("work");
  assert.equal((await state()).zoomed, "work");

  // Sandwich: callers above, callees below, as wide as the function.
  await page.locator("#callees").click();
  await clickBox("work", { modifiers: ["Shift"] });
  assert.equal((await state()).graph, "sandwich");
  all = await boxes();
  const y = (name) => all.find((box) => box.name === name).y;
  assert(y("main") < y("work") && y("run") < y("work"));
  assert.equal(ms(all.find(({ name }) => name === "work")), 4_000);
  assert.deepEqual(all.filter(({ name }) => name === "main" || name === "run").map(ms).sort(), [2_000, 2_000]);
  await page.locator("#flame").click();
  all = await boxes();
  assert(y("main") > y("work") && y("run") > y("work"));
  await page.locator("#flame").click();
  // In recursion the outermost call counts, and the others are below it.
  await page.locator("#hottest .row").filter({ hasText: "decode" }).click();
  const decode = await named("decode");
  assert.deepEqual(decode.map(ms), [2_000, 2_000]);
  assert(decode[0].y < decode[1].y);
  // It can be seen, also where the address says so.
  const again = await open("typical", { hash: page.url().slice(page.url().indexOf("#")), height: 300 });
  const [there] = await again.named("decode");
  const tall = await again.page.evaluate(() => document.getElementById("view").clientHeight);
  assert(there.y >= 0 && there.y < tall, `${there.y} of ${tall}`);
  await again.done();
  // Zooming to a caller shows the ways that lead through it.
  await clickBox("run");
  assert.equal((await state()).zoomed, "run");
  await page.goBack();
  assert.equal((await state()).zoomed, "decode");

  // The root at the bottom.
  await page.locator("#callees").click();
  await page.locator("#flame").click();
  all = await boxes();
  assert(y("all") > y("main") && y("main") > y("wait"));
  const frame = await page.locator("#view").boundingBox();
  assert(y("all") > frame.height - 60, "the root stands at the bottom");
  await clickBox("main");
  assert.equal((await state()).zoomed, "main");
  await page.keyboard.press("Escape");
  await page.locator("#flame").click();

  // A box for each line, with the line's source.
  await page.locator("#lines").click();
  all = await boxes();
  const lines = all.filter(({ name }) => name === "work").map(({ line, ...box }) => [line, ms(box)]);
  assert.deepEqual(lines.sort(), [[6, 1_500], [6, 2_000], [7, 500]]);
  await page.locator("#lines").click();

  // Hottest functions, by themselves and with what they call.
  const hottest = async () => (await page.locator("#hottest .row").allInnerTexts()).map((text) => text.split("\n").slice(0, 2).join(" "));
  assert.deepEqual(await hottest(), ["50.0% wait", "33.3% work", "16.7% decode"]);
  await page.locator("#by-total").click();
  assert.deepEqual((await hottest()).slice(0, 3), ["66.7% main", "50.0% wait", "33.3% work"]);

  // Modules and paths.
  const library = page.locator("#hottest .row").filter({ hasText: "decode" });
  assert.match(await library.innerText(), /json\.decoder:1/);
  await page.locator("#paths").click();
  assert.match(await library.innerText(), /\/usr\/lib\/python3\.15\/json\/decoder\.py:1/);
  await page.locator("#paths").click();

  // The image: well formed, with names and shares.
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#svg").click()]);
  assert.equal(download.suggestedFilename(), "app.py_4242.svg");
  const svg = await readFile(await download.path(), "utf8");
  const titles = await page.evaluate((text) => {
    const parsed = new DOMParser().parseFromString(text, "image/svg+xml");
    if (parsed.querySelector("parsererror")) throw new Error(parsed.documentElement.textContent);
    return [...parsed.querySelectorAll("title")].map((title) => title.textContent);
  }, svg);
  assert(titles.some((title) => title.startsWith("wait\n") && title.includes("2,000 samples")), titles.join("|"));
  assert(titles.some((title) => title.startsWith("fetch <b>\n")));

  // On paper, it is that image.
  const pdf = await page.pdf({ format: "A4", landscape: true });
  assert(pdf.length > 5_000, `${pdf.length}`);
  await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
  await page.emulateMedia({ media: "print" });
  assert(await page.locator("#paper svg").isVisible());
  assert(!(await page.locator("header").isVisible()));
  await page.emulateMedia({ media: "screen" });
  await page.evaluate(() => dispatchEvent(new Event("afterprint")));
  await done();

  // Narrow: nothing is wider than the page.
  const narrow = await open("typical", { width: 390, height: 780 });
  const wide = await narrow.page.evaluate(() => document.documentElement.scrollWidth);
  assert(wide <= 390, `${wide}`);
  assert((await narrow.boxes()).length > 5);
  await narrow.page.locator("#toggle-side").click();
  assert(await narrow.page.locator("#hottest").isVisible());
  await narrow.done();
}
