// Instructions, in the flame graph and in the heatmap: the numbers are those of `instructed` in page.rs.

import assert from "node:assert/strict";
import { FORMS } from "./heatmap.mjs";

export async function checkInstructions(open) {
  const { page, done, boxes, clickBox } = await open("instructed");
  const rows = async () => (await page.locator("#opcodes .opcode").allInnerTexts()).map((text) => text.split("\n").filter(Boolean));
  const note = () => page.locator("#box .note").last().innerText();

  // All that is at a line is one box.
  assert.deepEqual((await boxes()).map(({ name }) => name), ["all", "main", "work"]);
  await clickBox("work");
  assert.deepEqual(await rows(), [["CALL_BUILTIN_O", "73.3%"], ["STORE_FAST", "20.0%"]]);
  assert.match(await note(), /^73\.3% in specialised/);
  assert.equal(await page.locator("#opcodes .specialised").count(), 1);
  const facts = await page.locator("#opcodes .opcode").first().getAttribute("title");
  assert.match(facts, /^CALL_BUILTIN_O, a specialisation of CALL\n1\.10 s, 1\.10 s self\nline 6, columns 13 to 28: 73\.3%$/);
  await clickBox("main");
  assert.match(await page.locator("#opcodes .opcode").getAttribute("title"), /line 2, column 5 to line 3: 100\.0%$/);

  // They follow the filters and the ways to look.
  await page.getByRole("button", { name: "on CPU" }).click();
  await clickBox("work");
  assert.deepEqual(await rows(), [["CALL_BUILTIN_O", "60.0%"], ["STORE_FAST", "30.0%"]]);
  await page.locator("#callers").click();
  await clickBox("work");
  assert.deepEqual(await rows(), [["CALL_BUILTIN_O", "60.0%"], ["STORE_FAST", "30.0%"]]);
  await page.locator("#lines").click();
  assert.deepEqual((await boxes()).map(({ name }) => name), ["all", "work", "main"]);
  await done();

  // Without them there is nothing to show.
  const other = await open("typical");
  await other.clickBox("work");
  assert.equal(await other.page.locator("#opcodes").count(), 0);
  await other.done();

  for (const form of FORMS) await checkHeatmap(open, form);
}

async function checkHeatmap(open, form) {
  const map = await open(...form("instructed_map", 0));
  const panels = map.page.locator("tr.instructions:visible");
  const cells = async (row) => (await row.locator("td").allInnerTexts()).map((text) => text.trim());
  assert.equal(await panels.count(), 0);
  await map.page.getByRole("button", { name: "Instructions (2)" }).click();
  assert.equal(await panels.count(), 1);
  assert.match(await panels.innerText(), /^2 instructions, 78\.6% specialised/);
  assert.deepEqual(await cells(panels.locator("tbody tr").nth(0)), ["1,100", "1,100", "78.6%", "", "CALL_BUILTIN_O CALL", "sum(range(1000))"]);
  assert.deepEqual(await cells(panels.locator("tbody tr").nth(1)), ["300", "300", "21.4%", "", "STORE_FAST", "total"]);
  await map.page.locator("#all-instructions").click();
  assert.equal(await panels.count(), 2);
  // What goes on behind its line says so.
  assert.equal((await cells(panels.nth(0).locator("tbody tr"))).pop(), "work() …");
  await map.page.getByRole("button", { name: "Instructions (2)" }).click();
  assert.equal(await panels.count(), 1);
  await map.done();
}
