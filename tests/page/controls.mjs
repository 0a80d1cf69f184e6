// What filters, searches and is kept: the typical profile's numbers are those of `typical` in page.rs.

import assert from "node:assert/strict";

const MS = 1e6;

export async function checkControls(open) {
  const { page, context, done, state, boxes, named, clickBox } = await open("typical");
  const is = async (expected) => {
    const now = await state();
    for (const [key, value] of Object.entries(expected)) assert.deepEqual(now[key], value, `${key}: ${JSON.stringify(now)}`);
  };
  const time = async (name) => Math.round((await named(name)).reduce((sum, { timeNs }) => sum + timeNs, 0) / MS);

  // ---- All of it ----
  await is({ samples: 12_000, amount: 12_000 * MS, graph: "callees", zoomed: "all", buckets: 400 });
  assert.equal(await time("all"), 12_000);
  assert.equal(await time("work"), 4_000);
  // Recursion is two boxes.
  assert.deepEqual((await named("decode")).map(({ timeNs }) => timeNs / MS), [2_000, 2_000]);
  assert.match(await page.title(), /^app\.py/);
  const words = await page.locator("body").innerText();
  for (const said of ["wall clock", "12,000", "CPython 3.15.2", "python app.py 'two words'", "4.00 s", "GIL held", "waits for GIL"]) {
    assert(words.includes(said), `${said} in ${words}`);
  }
  // On CPU 4 of 12 seconds, and as long with the GIL.
  const runtime = await page.locator("#runtime .bar").allInnerTexts();
  assert.deepEqual(runtime.map((text) => text.split("\n").pop()), ["33.3%", "33.3%", "50.0%", "16.7%"]);

  // ---- Filters ----
  const choose = (id, text) => page.locator(`#${id}`).selectOption({ label: text });
  await choose("process", "worker.py · 4243 · 33.3%");
  await is({ amount: 4_000 * MS, process: 1 });
  await choose("process", "All 2 processes");
  await choose("thread", "worker-1 · 4244 · 33.3%");
  await is({ amount: 4_000 * MS, thread: 1 });
  assert.equal(await time("run"), 4_000);
  assert.equal((await named("main")).length, 0);
  await choose("thread", "All 3 threads");
  await choose("task", "fetch <b>");
  await is({ amount: 4_000 * MS });
  assert.equal(await time("wait"), 4_000);
  await choose("task", "All 1 tasks");
  const chip = page.getByRole("button", { name: "waits for GIL" });
  await chip.click();
  await is({ amount: 2_000 * MS, states: { wait: true } });
  await page.getByRole("button", { name: "waits for GIL" }).click();
  await is({ amount: 10_000 * MS, states: { wait: false } });
  await page.getByRole("button", { name: "not waits for GIL" }).click();
  await page.getByRole("button", { name: "on CPU" }).click();
  await is({ amount: 4_000 * MS, states: { cpu: true } });
  await page.getByRole("button", { name: "on CPU" }).click();
  await page.getByRole("button", { name: "not on CPU" }).click();
  await is({ amount: 12_000 * MS, states: {} });

  // ---- Weights ----
  await choose("metric", "CPU time");
  await is({ amount: 4_000 * MS });
  assert.equal((await named("wait")).filter(({ width }) => width > 0.5).length, 0);
  await choose("metric", "samples");
  await is({ amount: 12_000 });
  await choose("metric", "wall time");
  await choose("colour", "by self time");
  await choose("colour", "by file");

  // ---- Search ----
  const search = page.locator("#search");
  const found = () => page.locator("#matched").innerText();
  await page.keyboard.press("/");
  await page.keyboard.type("work");
  assert.equal(await found(), "33.3% matched");
  assert.deepEqual([...new Set((await boxes()).filter(({ matched }) => matched).map(({ name }) => name))], ["work"]);
  await page.keyboard.press("Enter");
  assert.match(await page.locator("#current").innerText(), /^work /);
  await search.fill("app.py:7");
  assert.equal(await found(), "4.2% matched");
  await search.fill("json.decoder");
  assert.equal(await found(), "16.7% matched");
  await search.fill("^(wait|decode)$");
  assert.equal(await found(), "0.0% matched");
  await page.locator("#regex").click();
  assert.equal(await found(), "66.7% matched");
  await search.fill("wait(");
  assert.match(await found(), /^not a regular expression: /);
  await search.fill(":1[04]$");
  assert.equal(await found(), "83.3% matched");
  await page.locator("#regex").click();
  await search.press("Escape");
  assert.equal(await found(), "");
  await search.press("Escape");

  // ---- Time ----
  const strip = await page.locator("#strip").boundingBox();
  const drag = async (from, to) => {
    await page.mouse.move(strip.x + strip.width * from, strip.y + 20);
    await page.mouse.down();
    await page.mouse.move(strip.x + strip.width * to, strip.y + 22, { steps: 4 });
    await page.mouse.up();
  };
  await drag(0.001, 0.4999);
  let now = await state();
  assert.deepEqual(now.range, [0, 200]);
  // Buckets end within a sample of where the two halves meet.
  const near = (value, wanted) => assert(Math.abs(value / MS - wanted) < 45, `${value / MS} is not ${wanted}`);
  near(now.amount, 6_000);
  near((await named("run"))[0].timeNs, 2_000);
  assert.equal((await named("decode")).length, 0);
  await drag(0.5, 0.75);
  near((await state()).amount, 9_000);
  await page.mouse.click(strip.x + strip.width * 0.1, strip.y + 20);
  await is({ range: null, amount: 12_000 * MS });
  await page.locator("#strip").focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("ArrowRight");
  now = await state();
  assert.deepEqual(now.range, [8, 108]);
  await page.keyboard.press("Shift+ArrowRight");
  assert.deepEqual((await state()).range, [8, 116]);
  await page.locator("#all-times").click();
  await is({ range: null });

  // ---- Zoom, keys and the way back ----
  await clickBox("run");
  await is({ zoomed: "run" });
  assert.equal(Math.round((await named("run"))[0].width), Math.round((await named("all"))[0].width));
  await clickBox("decode");
  await page.goBack();
  await is({ zoomed: "run" });
  await page.goForward();
  await is({ zoomed: "decode" });
  await page.keyboard.press("Backspace");
  await is({ zoomed: "run" });
  await page.locator("#reset").click();
  await is({ zoomed: "all" });
  assert(await page.locator("#reset").isDisabled());
  await page.locator("#graph").focus();
  await page.mouse.move(2, 2);
  for (const key of ["ArrowDown", "ArrowDown", "ArrowRight", "ArrowDown", "Enter"]) await page.keyboard.press(key);
  await is({ zoomed: "decode" });
  await page.keyboard.press("Escape");
  await is({ zoomed: "all" });
  await page.keyboard.press("?");
  assert(await page.locator("#keys").isVisible());
  await page.keyboard.press("Escape");
  assert(!(await page.locator("#keys").isVisible()));

  // ---- Tips and source ----
  const [work] = await named("work");
  await page.locator("#graph").hover({ position: { x: work.x + 30, y: work.y + 10 } });
  const tip = await page.locator("#tip").innerText();
  for (const said of ["work", "app.py", "lines 6 (75.0%), 7 (25.0%)", "16.7%", "2.00 s", "2,000 samples", "total = sum(range(1000)) # <i>hot</i>"]) {
    assert(tip.includes(said), `${said} in ${tip}`);
  }
  await clickBox("work");
  const source = await page.locator(".source .line").allInnerTexts();
  const hot = await page.locator(".source .line.hot").allInnerTexts();
  assert.deepEqual(hot.map((text) => text.replace(/\s+/g, " ")), ["75.0% 6 total = sum(range(1000)) # <i>hot</i>", "25.0% 7 return total"]);
  assert(source.some((text) => text.includes("def work():")), source);
  await page.keyboard.press("Escape");

  // ---- All that is set is in the address ----
  await page.keyboard.press("f");
  await page.keyboard.press("l");
  await page.keyboard.press("p");
  await choose("metric", "samples");
  await choose("thread", "main · 4242 · 33.3%");
  await search.fill("wo rk&#");
  await page.locator("#regex").click();
  await page.getByRole("button", { name: "on CPU" }).click();
  await drag(0.1, 0.3);
  await clickBox("work");
  now = await state();
  assert.equal(now.zoomed, "work");
  const address = page.url();
  const again = await open("typical", { hash: address.slice(address.indexOf("#")) });
  assert.deepEqual(await again.state(), now);
  assert.equal(await again.page.locator("#search").inputValue(), "wo rk&#");
  await again.done();
  // Anything can stand there.
  const odd = await open("typical", { hash: "#graph=x&function=9e9&zoom=1.2.99.__proto__&range=9-1&states=,-x,cpu&search=%3Cb%3E(&regex=1&thread=-1&task=no&width=%E2" });
  assert.equal((await odd.state()).graph, "callees");
  await odd.done();

  // ---- Light and dark last ----
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  assert.equal(await theme(), "light");
  await page.locator("#theme").click();
  assert.equal(await theme(), "dark");
  const next = await open("typical", { context });
  assert.equal(await next.page.evaluate(() => document.documentElement.dataset.theme), "dark");
  await next.done();
  const night = await open("typical", { scheme: "dark" });
  assert.equal(await night.page.evaluate(() => document.documentElement.dataset.theme), "dark");
  await night.done();

  // ---- The side bar ----
  const side = () => page.locator("#side").boundingBox();
  const { width, x } = await side();
  await page.mouse.move(x - 3, 400);
  await page.mouse.down();
  await page.mouse.move(x - 103, 400, { steps: 3 });
  await page.mouse.up();
  assert((await side()).width > width + 80);
  await page.locator("#toggle-side").click();
  assert(!(await page.locator("#side").isVisible()));
  await page.locator("#toggle-side").click();
  await done();

  const empty = await open("empty");
  assert.match(await empty.page.locator("body").innerText(), /No samples were collected/);
  for (const key of ["s", "i", "c", "f", "l", "n", "0", "t"]) await empty.page.keyboard.press(key);
  await empty.done();
}
