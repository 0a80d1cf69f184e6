// Two profiles compared: `compared` in page.rs. Both ran for four seconds.

import assert from "node:assert/strict";

const MS = 1e6;

export async function checkDiff(open) {
  const { page, done, named, boxes, state } = await open("diff");
  const pair = async (name) => {
    const [box] = await named(name);
    return box && [Math.round(box.timeNs / MS), Math.round(box.baseNs / MS)];
  };
  assert.deepEqual(await pair("main"), [3_900, 3_700]);
  assert.deepEqual(await pair("same"), [1_000, 1_000]);
  assert.deepEqual(await pair("slow"), [2_000, 1_000]);
  assert.deepEqual(await pair("fast"), [500, 1_000]);
  assert.deepEqual(await pair("new"), [400, 0]);
  assert.equal((await named("old")).filter(({ width }) => width > 0.5).length, 0);
  // Red is slower, blue faster, violet new; what is the same is grey.
  const fills = Object.fromEntries((await boxes()).map(({ name, fill }) => [name, fill]));
  const hue = (name) => Number(/^hsl\((\d+)/.exec(fills[name])[1]);
  assert.deepEqual(["slow", "fast", "new", "same"].map(hue), [6, 212, 282, 215], JSON.stringify(fills));

  const [slow] = await named("slow");
  await page.locator("#graph").hover({ position: { x: slow.x + 20, y: slow.y + 9 } });
  assert.match(await page.locator("#tip").innerText(), /1\.00 s → 2\.00 s: \+1\.00 s \(\+100\.0%\) ± /);

  const changed = await page.locator("#hottest .row").allInnerTexts();
  assert.deepEqual(changed.map((text) => text.split("\n").slice(0, 2).join(" ")),
    ["+25.6% slow", "−17.9% old", "−12.8% fast", "+10.3% new"]);

  const show = (value) => page.locator("#compare").selectOption(value);
  const names = async () => (await boxes()).filter(({ depth, width }) => depth > 1 && width > 0.5).map(({ name }) => name);
  await show("new");
  assert.deepEqual(await names(), ["new"]);
  assert.equal((await state()).amount, 400 * MS);
  await show("elided");
  assert.deepEqual(await names(), ["old"]);
  assert.equal((await state()).amount, 700 * MS);
  await page.locator("#callers").click();
  assert.deepEqual((await boxes()).map(({ name }) => name), ["all", "old", "main"]);
  await page.locator("#callees").click();
  await show("change");
  assert(await page.locator("#legend").isVisible());
  assert(!(await page.locator("#lines").isVisible()));
  assert.match(await page.locator("#profile").innerText(), /Baseline/);
  await page.locator("#sandwich").click();
  await page.locator("#scale").selectOption("as-is");
  const address = page.url();
  const again = await open("diff", { hash: address.slice(address.indexOf("#")) });
  assert.deepEqual(await again.state(), await state());
  await again.done();
  await done();
}
