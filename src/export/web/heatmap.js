"use strict";
// Builds the pages of a heatmap from their data. Names are text, never markup.

const own = JSON.parse(document.getElementById("data").textContent);
// What is shown: what is this file's own, or another page that is in it as well.
let data = own;

function element(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const number = new Intl.NumberFormat("en");
const count = (samples) => number.format(samples);
const several = (amount, what) => `${count(amount)} ${what}${amount === 1 ? "" : "s"}`;
// Pages are files, or where all are in one file, parts of its address: #3, and #3.L12 for a line.
const home = own.isOneFile ? "#" : "index.html";
const pageOf = (page, line) => own.isOneFile
  ? `#${page}${line ? `.L${line}` : ""}`
  : `file_${String(page).padStart(4, "0")}.html${line ? `#L${line}` : ""}`;
// On a scale of logarithms: one sample is visible beside a million.
const warmth = (samples, most) => (samples > 0 ? Math.log1p(samples) / Math.log1p(most) : 0);

function kept(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}

function keep(key, value) {
  try { localStorage.setItem(key, value); } catch { /* It is a convenience. */ }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  keep("pysamp-theme", theme);
  document.dispatchEvent(new Event("theme"));
}

const preferred = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
document.documentElement.dataset.theme = kept("pysamp-theme") || preferred;

function toggle(label, isOn, change) {
  const button = element("button", { type: "button", "aria-pressed": String(isOn) }, label);
  button.addEventListener("click", () => {
    const now = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(now));
    change(now);
  });
  return button;
}

const themeButton = () => element("button", {
  type: "button",
  id: "theme",
  onclick: () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"),
}, "Light / dark");

function header(title, note, isHome, ...controls) {
  return element("header", {},
    isHome ? null : element("a", { href: home }, "All files"),
    element("h1", {}, title),
    element("span", { class: "note" }, note),
    element("div", { class: "controls" }, ...controls, themeButton()));
}

// Puts a page in the place of what was shown.
function present(...page) {
  for (const shown of document.querySelectorAll("body > :not(script)")) shown.remove();
  document.body.append(...page);
  document.title = data.title;
}

// ------------------------------------------------------------------ the index

function folder(files, depth) {
  const folders = new Map();
  const made = [];
  for (const file of files) {
    const parts = file.path;
    if (parts.length === depth + 1) made.push([file.total, fileRow(file, parts[depth])]);
    else folders.set(parts[depth], [...(folders.get(parts[depth]) || []), file]);
  }
  for (const [first, inside] of folders) {
    // A folder that holds nothing but a folder has no row of its own.
    let [name, below] = [first, depth + 1];
    const isShared = (file) => file.path.length > below + 1 && file.path[below] === inside[0].path[below];
    while (inside.every(isShared)) name += `/${inside[0].path[below++]}`;
    const own = inside.reduce((sum, file) => sum + file.self, 0);
    const most = Math.max(...inside.map((file) => file.total));
    made.push([most, element("details", most * 20 > data.samples ? { open: "" } : {},
      element("summary", {}, `${name}/ (${count(own)} self)`), ...folder(inside, below))]);
  }
  return made.sort((a, b) => b[0] - a[0]).map(([, row]) => row);
}

function fileRow(file, name) {
  const width = `width: ${(warmth(file.total, data.samples) * 100).toFixed(1)}%`;
  return element("div", { class: "file row" },
    element("a", { class: "name", href: pageOf(file.page) }, name),
    element("span", { class: "count" }, `${count(file.self)} self, ${count(file.total)} total`),
    element("span", { class: "bar" }, element("i", { style: width })));
}

// It is made once: folders stay open.
let index = null;

function showIndex() {
  index ??= makeIndex();
  present(...index);
}

function makeIndex() {
  const sections = data.kinds.map((kind, index) => {
    const files = data.files.filter((file) => file.kind === index);
    return files.length === 0 ? null : element("section", {},
      element("h2", {}, `${kind} (${several(files.length, "file")}, ` +
        `${several(files.reduce((sum, file) => sum + file.self, 0), "sample")})`),
      ...folder(files, 0));
  });
  const note = `${several(data.samples, "sample")} in ${several(data.files.length, "file")}, ${data.python}`;
  return [header(data.title, note, true), element("main", { class: "index" }, ...sections)];
}

// --------------------------------------------------------------- a source file

// What colours are by: of a file in which nothing was on top of a stack, always the total.
let wanted = "self";
const columnOf = (rows) => (rows.some((row) => row.samples.self) ? wanted : "total");
let areInstructionsShown = false;
let rowOf = new Map();
let repaint = () => {};
const menu = element("div", { id: "menu", hidden: "" });

function showMenu(button, title, calls, more) {
  menu.replaceChildren(element("b", {}, title), ...calls.map(([file, line, name, samples]) => {
    const label = `${name} (${file < 0 ? "?" : data.names[file]}:${line})`;
    const link = file < 0 ? {} : { href: pageOf(data.pages[file], line) };
    return element("a", link, label, element("span", {}, count(samples)));
  }), more > 0 ? `and ${count(more)} more` : "");
  const place = button.getBoundingClientRect();
  menu.hidden = false;
  menu.style.left = `${Math.max(4, Math.min(place.left, innerWidth - menu.offsetWidth - 40)) + scrollX}px`;
  menu.style.top = `${place.bottom + scrollY + 2}px`;
}

function callsButton(symbol, title, [calls, more]) {
  if (calls.length === 0) return null;
  const label = `${title} (${count(calls.length + more)})`;
  return element("button", {
    type: "button",
    title: label,
    "aria-label": label,
    onclick: (event) => {
      event.stopPropagation();
      showMenu(event.currentTarget, label, calls, more);
    },
  }, symbol);
}

// Under a line: the instructions that it was seen at, and how many of those samples are of specialised ones.
function instructionRows(instructions, line) {
  const sum = (list) => list.reduce((sum, [, , total]) => sum + total, 0);
  const all = sum(instructions);
  const share = (part) => `${((100 * part) / all).toFixed(1)}%`;
  const where = (column, end, endLine) => {
    if (!column || (!endLine && end < column)) return "";
    return endLine ? `${line}:${column} to ${endLine}:${end}` : column === end ? `column ${column}` : `columns ${column} to ${end}`;
  };
  const rows = instructions.map(([opcode, self, total, column, end, endLine, text]) => {
    const [name, base, isSpecialised] = data.opcodes[opcode];
    return element("tr", {},
      element("td", {}, self ? count(self) : ""),
      element("td", {}, count(total)),
      element("td", {}, share(total)),
      element("td", {}, element("span", { class: "bar" }, element("i", { style: `width: ${share(total)}` }))),
      element("td", { class: isSpecialised ? "opcode specialised" : "opcode", title: isSpecialised ? `A specialisation of ${base}` : "" },
        name, base ? element("small", {}, ` ${base}`) : null),
      element("td", { class: "code", title: where(column, end, endLine) }, text || where(column, end, endLine)));
  });
  const specialised = sum(instructions.filter(([opcode]) => data.opcodes[opcode][2]));
  const head = ["self", "total", "share", "", "instruction", "of"].map((name) => element("th", {}, name));
  return element("tr", { class: "instructions", hidden: "" },
    element("td", { colspan: "5" },
      element("p", { class: "note" }, `${several(instructions.length, "instruction")}, ${share(specialised)} specialised`),
      element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows))));
}

function showInstructions(row, isShown) {
  if (!row.instructions) return;
  if (!row.panel && isShown) row.after((row.panel = instructionRows(row.instructions, row.line)));
  if (row.panel) row.panel.hidden = !isShown;
  row.querySelector(".expand").setAttribute("aria-expanded", String(isShown));
}

function instructionsButton(row) {
  const label = `Instructions (${count(row.instructions.length)})`;
  return element("button", {
    type: "button",
    class: "expand",
    title: label,
    "aria-label": label,
    "aria-expanded": "false",
    onclick: (event) => showInstructions(row, event.currentTarget.getAttribute("aria-expanded") !== "true"),
  }, "\u25b8");
}

function lineRow(line, text, found) {
  const [self, total, callers, callees, instructions] = found || [0, 0, [[], 0], [[], 0]];
  const row = element("tr", { class: found ? "hot" : "cold" },
    element("td", { class: "number" }, element("a", { href: pageOf(data.page, line) }, String(line))),
    element("td", {}, self ? count(self) : ""),
    element("td", {}, total ? count(total) : ""),
    element("td", { class: "calls" }, callsButton("\u25b2", "Callers", callers),
      callsButton("\u25bc", "Callees", callees)),
    element("td", { class: "code" }, text));
  row.samples = { self, total };
  row.line = line;
  if (instructions) {
    row.instructions = instructions;
    row.querySelector(".calls").append(instructionsButton(row));
  }
  return row;
}

function paint(rows, map) {
  const column = columnOf(rows);
  const most = rows.reduce((most, row) => Math.max(most, row.samples[column]), 1);
  for (const row of rows) if (row.samples.total) row.style.setProperty("--warmth", warmth(row.samples[column], most));
  const context = map.getContext("2d");
  map.style.setProperty("--above", `${document.querySelector("header").offsetHeight}px`);
  map.height = Math.max(1, map.clientHeight);
  map.width = Math.max(1, map.clientWidth);
  const heat = getComputedStyle(document.documentElement).getPropertyValue("--heat");
  const height = map.height / rows.length;
  rows.forEach((row, index) => {
    const alpha = warmth(row.samples[column], most);
    if (alpha === 0) return;
    context.fillStyle = `hsl(${heat} / ${alpha})`;
    context.fillRect(0, index * height, map.width, Math.max(2, height));
  });
}

function showFile() {
  const found = new Map(data.rows.map(([line, ...rest]) => [line, rest]));
  const lines = data.source
    ? data.source.map((text, index) => [index + 1, text])
    : [...found.keys()].map((line) => [line, ""]);
  const known = new Set(lines.map(([line]) => line));
  const others = [...found.keys()].filter((line) => !known.has(line)).map((line) => [line, ""]);
  const rows = [...lines, ...others].map(([line, text]) => lineRow(line, text, found.get(line)));
  rowOf = new Map(rows.map((row) => [row.line, row]));
  const map = element("canvas", { id: "minimap", title: "Where the hot lines are" });
  map.addEventListener("click", (event) => {
    const place = (event.clientY - map.getBoundingClientRect().top) / map.clientHeight;
    rows[Math.min(rows.length - 1, Math.floor(place * rows.length))].scrollIntoView({ block: "center" });
  });
  repaint = () => paint(rows, map);
  const byTotal = toggle("Colour by total", columnOf(rows) === "total", (isOn) => {
    wanted = isOn ? "total" : "self";
    repaint();
  });
  byTotal.disabled = !data.self;
  byTotal.id = "by-total";
  const isHotOnly = document.body.classList.contains("hot-only");
  const hotOnly = toggle("Hot lines only", isHotOnly, (isOn) => document.body.classList.toggle("hot-only", isOn));
  hotOnly.id = "hot-only";
  const showAllInstructions = (isOn) => rows.forEach((row) => showInstructions(row, isOn));
  const all = toggle("Instructions", areInstructionsShown, (isOn) => {
    areInstructionsShown = isOn;
    showAllInstructions(isOn);
    repaint();
  });
  all.id = "all-instructions";
  const noSource = data.isLeftOut ? "; the source is left out, as there is too much of it" : "; the source cannot be read";
  const note = `${count(data.self)} self, ${count(data.total)} total` +
    (data.source ? "" : noSource) + (data.isNewer ? "; changed since" : "");
  const head = ["line", "self", "total", "calls", "code"].map((name) =>
    element("th", name === "code" ? { class: name } : {}, name));
  menu.hidden = true;
  present(header(data.title, note, false, ...(data.opcodes.length ? [all] : []), byTotal, hotOnly),
    element("main", {}, element("table", {},
      element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows))), map, menu);
  if (areInstructionsShown) showAllInstructions(true);
  repaint();
}

document.addEventListener("click", () => { menu.hidden = true; });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") menu.hidden = true; });
document.addEventListener("theme", () => repaint());
addEventListener("resize", () => repaint());

// ----------------------------------------------------- where the address leads

// The data of another page of this file; its own where there is none.
async function dataOf(page) {
  const packed = own.isOneFile && document.getElementById(`page-${page}`);
  if (!packed) return own;
  const bytes = Uint8Array.from(atob(packed.textContent), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return JSON.parse(await new Response(stream).text());
}

// Rows are not there yet when the browser looks for where to scroll: that is done here.
history.scrollRestoration = "manual";
let remembering = 0;

function remember() {
  clearTimeout(remembering);
  history.replaceState({ top: scrollY }, "");
}

addEventListener("scroll", () => {
  clearTimeout(remembering);
  remembering = setTimeout(remember, 200);
});
addEventListener("click", ({ target }) => { if (target.closest("a[href]")) remember(); }, true);

// Marks the line and scrolls to where one has been, else to the line.
function arrive(line, top) {
  document.querySelector("tr.target")?.classList.remove("target");
  const row = rowOf.get(Number(line));
  row?.classList.add("target");
  if (top !== undefined) {
    scrollTo(0, top);
  } else if (!row) {
    scrollTo(0, 0);
  } else {
    const [above, { top: place, bottom }] = [document.querySelector("header"), row].map((one) => one.getBoundingClientRect());
    if (place < above.bottom || bottom > innerHeight) row.scrollIntoView({ block: "center" });
  }
}

let asked = 0;
let shown = null;

async function show() {
  const time = ++asked;
  clearTimeout(remembering);
  const top = history.state?.top;
  const [, page, line] = /^#(?:(\d+)(?:\.|$))?(?:L(\d+))?$/.exec(location.hash) || [];
  if (shown === null || shown !== page) {
    const found = await dataOf(page);
    // Something else may have been asked for.
    if (time !== asked) return;
    shown = page;
    data = found;
    rowOf = new Map();
    repaint = () => {};
    if (data.files) showIndex();
    else showFile();
  }
  arrive(line, top);
}

addEventListener("hashchange", show);
show();
