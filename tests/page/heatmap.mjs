// The heatmap as a directory and as one file, which do the same at other addresses. The numbers are those of
// `typical` in page.rs.

import assert from "node:assert/strict";

// Where a map's page is, as arguments for `open`: a file and the rest of the address.
export const FORMS = [
  (map, page, line) => page === undefined
    ? [`${map}/index`]
    : [`${map}/file_000${page}`, { hash: line ? `#L${line}` : "" }],
  (map, page, line) => [map, { hash: page === undefined ? "" : `#${page}${line ? `.L${line}` : ""}` }],
];

export async function checkHeatmap(open) {
  for (const form of FORMS) {
    await checkPages(open, form);
    await checkControls(open, form);
    await checkHostile(open, form);
  }
  await checkOneFile(open);
}

const SMALL = { height: 160 };
const started = (form, ...place) => {
  const [name, more] = form("map", ...place);
  return [name, { ...more, ...SMALL }];
};

function looks(page) {
  return {
    heading: () => page.locator("h1").innerText(),
    isShown: (title) => page.waitForFunction((title) => document.querySelector("h1")?.textContent.endsWith(title), title),
    isIndex: () => page.waitForSelector("main.index"),
    target: () => page.locator("tr.target td.number").innerText(),
    row: (line) => page.locator("tbody tr").filter({ has: page.locator(`td.number a:text-is("${line}")`) }),
    scrolled: () => page.evaluate(() => scrollY),
  };
}

async function checkPages(open, form) {
  const { page, done, context } = await open(...started(form));
  const { heading, isIndex, isShown, target, row, scrolled } = looks(page);
  const wrong = [];
  context.on("page", (other) => other.on("pageerror", (error) => wrong.push(error)));
  await isIndex();
  assert.deepEqual(await page.locator("h2").allInnerTexts(), ["Project (1 file, 10,000 samples)", "Standard library (1 file, 2,000 samples)"]);
  await page.getByRole("link", { name: "app.py" }).click();
  await isShown("/app.py");
  assert.match(await page.title(), /\/app\.py$/);
  assert.equal(await page.locator("tbody tr").count(), 14);
  assert.deepEqual((await row(6).locator("td").allInnerTexts()).slice(0, 3), ["6", "3,500", "3,500"]);
  assert.equal(await row(6).locator(".code").innerText(), "    total = sum(range(1000))  # <i>hot</i>");

  // What a line calls, in this file and in another.
  await row(14).getByRole("button", { name: "Callees (2)" }).click();
  const seen = await scrolled();
  assert(seen > 0);
  assert.deepEqual(await page.locator("#menu a").allInnerTexts(), ["decode (decoder.py:1)\n2,000", "work (app.py:1)\n2,000"]);
  const [other] = await Promise.all([context.waitForEvent("page"), page.getByRole("link", { name: "work (app.py:1)" }).click({ modifiers: ["Control"] })]);
  await looks(other).isShown("/app.py");
  assert.equal(await looks(other).target(), "1");
  await other.close();
  await row(14).getByRole("button", { name: "Callees (2)" }).click();
  await page.getByRole("link", { name: "decode" }).click();
  await isShown("decoder.py");
  assert.equal(await page.locator("header .note").innerText(), "2,000 self, 2,000 total; the source cannot be read");
  assert.equal(await page.locator("tbody tr").count(), 1);
  assert.equal(await scrolled(), 0);

  // The browser's own ways lead to where one has been.
  await page.goBack();
  await isShown("/app.py");
  await page.waitForFunction((seen) => scrollY === seen, seen);
  await page.goForward();
  await isShown("decoder.py");
  await row(9).getByRole("button", { name: "Callers (2)" }).click();
  await page.getByRole("link", { name: "run (app.py:14)" }).click();
  await isShown("/app.py");
  assert.equal(await target(), "14");
  assert(await row(14).evaluate((row) => row.getBoundingClientRect().bottom <= innerHeight));
  await page.reload();
  await isShown("/app.py");
  assert.equal(await target(), "14");
  await row(13).locator("td.number a").click();
  await page.waitForFunction(() => document.querySelector("tr.target td").textContent === "13");
  await page.goBack();
  await page.waitForFunction(() => document.querySelector("tr.target td").textContent === "14");
  await page.getByRole("link", { name: "All files" }).click();
  await isIndex();
  assert.equal(await heading(), "app.py");
  assert.deepEqual(wrong, []);
  await done();

  const straight = await open(...started(form, 0, 14));
  await looks(straight.page).isShown("/app.py");
  assert.equal(await looks(straight.page).target(), "14");
  assert((await looks(straight.page).scrolled()) > 0);
  await straight.done();
}

async function checkControls(open, form) {
  const { page, done } = await open(...started(form, 0));
  const { isShown, row, scrolled } = looks(page);
  await isShown("/app.py");
  const visible = () => page.locator("tbody tr:visible td.number").allInnerTexts();
  const warmth = (line) => row(line).evaluate((row) => Number(row.style.getPropertyValue("--warmth")));
  const painted = () => page.locator("#minimap").evaluate((map) => map.toDataURL());
  assert.deepEqual([await warmth(2), await warmth(10)], [0, 1]);
  const own = await painted();
  await page.locator("#by-total").click();
  assert((await warmth(2)) > 0.9);
  assert.notEqual(await painted(), own);
  await page.locator("#hot-only").click();
  assert.deepEqual(await visible(), ["2", "3", "6", "7", "10", "14"]);
  await page.locator("#hot-only").click();
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  assert.equal(await theme(), "light");
  await page.locator("#theme").click();
  assert.equal(await theme(), "dark");
  await page.evaluate(() => scrollTo(0, 0));
  await page.locator("#minimap").click({ position: { x: 5, y: 80 } });
  await page.waitForFunction(() => scrollY > 0);
  await page.evaluate(() => scrollTo(0, 0));
  await row(2).getByRole("button", { name: "Callees" }).click();
  assert(await page.locator("#menu").isVisible());
  await page.keyboard.press("Escape");
  assert(await page.locator("#menu").isHidden());
  assert.equal(await scrolled(), 0);
  await done();
}

async function checkHostile(open, form) {
  const { page, done } = await open(...form("hostile_map"));
  const links = page.locator("main a");
  await links.first().waitFor();
  const elements = () => page.evaluate(() => document.querySelectorAll("img, iframe, svg, b.bad").length);
  const addresses = await links.evaluateAll((all) => all.map((link) => link.href));
  assert(addresses.length > 5);
  for (const address of addresses) {
    await page.goto(address);
    await page.locator("table").waitFor();
    await page.locator("td.calls button").first().click();
    assert(await page.locator("#menu").isVisible());
    assert.equal(await elements(), 0);
  }
  assert.equal(await page.evaluate(() => window.harmed), undefined);
  await done();
}

// Everything is in it, a page is there only while it is shown, and what is no page of it is the index.
async function checkOneFile(open) {
  const asked = [];
  const prepare = (page) => page.on("request", (request) => asked.push(request.url().replace(/#.*/, "")));
  const { page, done } = await open("map", { hash: "#99", prepare });
  const { isIndex, isShown, heading } = looks(page);
  await isIndex();
  assert.equal(await heading(), "app.py");
  assert.equal(await page.locator("table").count(), 0);
  // What was opened and chosen lasts.
  const folders = page.locator("details");
  await folders.first().locator("summary").first().click();
  const isOpen = () => folders.evaluateAll((all) => all.map(({ open }) => open));
  const before = await isOpen();
  await page.evaluate(() => { location.hash = "#0"; });
  await isShown("/app.py");
  assert.equal(await page.locator("table").count(), 1);
  assert.equal(await page.locator("header").count(), 1);
  await page.locator("#hot-only").click();
  await page.locator("#by-total").click();
  // The last of what is asked for in haste is shown.
  await page.evaluate(() => { location.hash = "#1"; location.hash = ""; location.hash = "#1.L9"; });
  await isShown("decoder.py");
  assert.equal(await page.locator("tbody tr").count(), 1);
  await page.goBack();
  await isIndex();
  assert.deepEqual(await isOpen(), before);
  await page.evaluate(() => { location.hash = "#0.L1"; });
  await isShown("/app.py");
  const pressed = (id) => page.locator(`#${id}`).getAttribute("aria-pressed");
  assert.deepEqual([await pressed("hot-only"), await pressed("by-total")], ["true", "true"]);
  // It is no hot line, but was asked for.
  assert.deepEqual(await page.locator("tbody tr:visible td.number").allInnerTexts(), ["1", "2", "3", "6", "7", "10", "14"]);
  assert.deepEqual([...new Set(asked.map((address) => address.replace(/.*\//, "")))], ["map.html"]);
  await done();
}
