// Names that are markup, patterns, addresses, or a megabyte long: all of them are text.

import assert from "node:assert/strict";

export async function checkHostile(open) {
  const { page, done, state, boxes, clickBox } = await open("hostile");
  const elements = () => page.evaluate(() => document.querySelectorAll("img, iframe, svg, script:not(#data)").length);
  assert.equal(await elements(), 1);
  const long = (await boxes()).filter(({ name }) => name.length === 1 << 20);
  assert.equal(long.length, 2);
  for (const id of ["callers", "sandwich", "callees", "lines", "paths", "flame"]) {
    await page.locator(`#${id}`).click();
    await boxes();
  }
  for (const { x, y, width, height } of await boxes()) {
    await page.locator("#graph").hover({ position: { x: x + width / 2, y: y + height / 2 } });
  }
  await clickBox("main");
  for (const wanted of ["<script>", "__proto__", "\\", "(", "[", "x".repeat(2_000)]) {
    await page.locator("#search").fill(wanted);
    await page.locator("#regex").click();
  }
  for (const row of await page.locator("#hottest .row").all()) await row.hover();
  await page.locator("#hottest .row").first().click();
  const tasks = await page.locator("#task option").allInnerTexts();
  assert(tasks.some((text) => text.startsWith("<script>window.harmed")), tasks.map((text) => text.slice(0, 80)));
  for (const at of tasks.keys()) await page.locator("#task").selectOption({ index: at });
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#svg").click()]);
  assert.match(download.suggestedFilename(), /^[\w.-]+\.svg$/);
  assert.equal(await elements(), 1);
  assert.equal(await page.evaluate(() => window.harmed), undefined);
  assert.match(await page.title(), /^<script>window\.harmed = 1<\/script>/);
  assert((await state()).samples > 0);
  await done();
}
