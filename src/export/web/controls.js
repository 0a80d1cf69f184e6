// Pointer, keys and controls; and what they have set, in the address, from which it can be set again.

let selected = null;
// Which amounts there are to tell of.
const METRICS_SHOWN = METRICS.map(({ at }) => at).filter((at) =>
  at === WALL || at === SAMPLES || (meta.mode !== "cpu" && entries.amounts.some((amount, i) => i % 3 === CPU && amount > 0)));

// ---- Boxes under the pointer ----

function placeAt(event) {
  const { left, top } = canvas.getBoundingClientRect();
  const x = event.clientX - left;
  const y = event.clientY - top + byId("view").scrollTop - rowsTop();
  const row = rows[Math.floor(y / ROW)];
  return row && row.find((place) => x >= place.x && x < place.x + place.width);
}

function select(box) {
  selected = box;
  const place = box && placeNow(box);
  const mark = byId("mark");
  mark.hidden = !place;
  if (place) {
    mark.style.left = place.x + "px";
    mark.style.top = rowsTop() + rowOf(box) * ROW + "px";
    mark.style.width = Math.max(place.width - 1, 1) + "px";
    byId("current").textContent = describe(box).map(([, , text]) => text).join("  ");
  } else {
    hideTip();
    byId("current").textContent = "";
  }
}

function showRest({ rest, of }, event) {
  select(null);
  showTip([
    ["b", "", `${number(rest)} more`],
    ["span", "", `called by ${cut(nameOf(of), 80)}, each too narrow to be drawn; zoom in to see them`],
  ], event.clientX, event.clientY);
}

function scrollTo(box) {
  const frame = byId("view");
  const y = rowsTop() + rowOf(box) * ROW;
  if (y < frame.scrollTop) frame.scrollTop = y;
  if (y + ROW > frame.scrollTop + frame.clientHeight) frame.scrollTop = y + ROW - frame.clientHeight;
}

function zoom(box) {
  zoomed = box;
  drawNow();
  select(box === root ? null : box);
  hideTip();
  scrollTo(box);
  draw();
  showBox(box.above || roots.length > 1 ? box : null);
  remember(true);
}

// The function of a sandwich in the middle, as far as there is something around it.
function centre() {
  drawNow();
  const frame = byId("view");
  frame.scrollTop = rowsTop() + rowOf(root) * ROW - frame.clientHeight / 2;
  draw();
}

// To everything: all of the tree and of the time.
function reset() {
  if (view.range) selectRange(null);
  zoom(root);
}

canvas.addEventListener("pointermove", (event) => {
  const place = placeAt(event);
  canvas.style.cursor = place ? "pointer" : "default";
  if (place && !place.box) {
    showRest(place, event);
    return;
  }
  const box = place ? place.box : null;
  if (selected !== box) select(box);
  if (box) showTip(describe(box), event.clientX, event.clientY);
});
canvas.addEventListener("pointerleave", () => select(null));
canvas.addEventListener("click", (event) => {
  const place = placeAt(event);
  if (!place) return;
  const box = place.box || place.of;
  if (event.shiftKey && box.line >= 0) openSandwich(lines[box.line].fn.at);
  else zoom(box);
});

// ---- Keys ----

function sibling(box, step) {
  if (!box.above || isFaded(box) || box === zoomed) return null;
  const row = below(box.above);
  return row[row.indexOf(box) + step];
}

// Up and down as they look.
function inward(box, isDown) {
  const isOther = roots.length > 1 && box.up;
  const isFurther = isDown !== (isOther !== view.flame);
  if (isFurther) return below(box)[0];
  if (box.above) return box.above.above || roots.length === 1 ? box.above : root;
  return roots.length > 1 ? below(roots[1])[0] : null;
}

function selectByKey(box) {
  const place = box && placeNow(box);
  if (!place) return;
  select(box);
  scrollTo(box);
  drawNow();
  const { left, top } = canvas.getBoundingClientRect();
  const y = rowsTop() + rowOf(box) * ROW - byId("view").scrollTop;
  showTip(describe(box), left + Math.max(0, place.x), top + y + ROW);
}

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const from = selected;
  const moves = {
    ArrowDown: () => (from ? inward(from, true) : zoomed),
    ArrowUp: () => (from ? inward(from, false) : zoomed),
    ArrowLeft: () => from && sibling(from, -1),
    ArrowRight: () => from && sibling(from, 1),
  };
  if (event.key in moves) selectByKey(moves[event.key]());
  else if ((event.key === "Enter" || event.key === " ") && from) zoom(from);
  else return;
  event.preventDefault();
});

// The next box that is found, in the order of the rows.
function nextFound(step) {
  const found = rows.flat().filter(({ box }) => box && matches(box)).map(({ box }) => box);
  if (!found.length) return;
  const at = found.indexOf(selected);
  selectByKey(found[at < 0 ? (step > 0 ? 0 : found.length - 1) : (at + step + found.length) % found.length]);
}

const KEYS = {
  "/": ["search", () => { byId("search").focus(); byId("search").select(); }],
  n: ["next match", () => nextFound(1)],
  N: ["previous match", () => nextFound(-1)],
  s: ["callers and callees of the selected function", () => openSandwich()],
  c: ["callees", () => setGraph("callees")],
  i: ["callers: what runs first, then who has called it", () => setGraph("callers")],
  f: ["root at the bottom", () => toggle("flame")],
  l: ["a box for each line", () => !baseline && toggle("lines")],
  p: ["paths or modules", () => toggle("paths")],
  b: ["side bar", () => toggleSide()],
  t: ["light or dark", () => switchTheme()],
  0: ["show everything", () => reset()],
  Backspace: ["zoom out by one", () => zoomed.above && zoom(zoomed.above)],
  "?": ["these keys", () => showKeys()],
};

document.addEventListener("keydown", (event) => {
  const box = byId("search");
  const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
  const isFind = (event.ctrlKey || event.metaKey) && event.key === "f";
  if (isFind && document.activeElement !== box) {
    // A second Ctrl-F is the browser's own search.
    event.preventDefault();
    KEYS["/"][1]();
  } else if (event.key === "Escape") {
    if (byId("keys").open) return;
    if (document.activeElement === box && box.value) setSearch("");
    else if (document.activeElement === box) canvas.focus();
    else reset();
  } else if (event.key === "Enter" && document.activeElement === box) {
    nextFound(event.shiftKey ? -1 : 1);
  } else if (!isTyping && !event.ctrlKey && !event.metaKey && !event.altKey && !byId("keys").open && Object.hasOwn(KEYS, event.key)) {
    event.preventDefault();
    KEYS[event.key][1]();
  }
});

function showKeys() {
  const rows = Object.entries(KEYS).map(([key, [what]]) => [key, what]);
  rows.push(["arrows", "move from box to box"], ["Enter", "zoom to the box"], ["Esc", "show everything"], ["Shift click", "callers and callees of a function"]);
  byId("key-list").replaceChildren(...rows.map(([key, what]) =>
    make("div", {}, make("dt", {}, make("kbd", { textContent: key })), make("dd", { textContent: what }))));
  byId("keys").showModal();
}

// ---- What has been set ----

function reweigh({ keepsStrip = false, path } = {}) {
  weigh();
  rebuild(path);
  search(found.query, found.regex);
  if (!keepsStrip) refreshStrip();
  refresh();
}

function refreshStrip() {
  if (!hasTimes) return;
  weighStrip();
  drawStrip();
}

function refresh() {
  select(null);
  showFound();
  syncControls();
  showHottest();
  showRuntime();
  showBox(zoomed.above || roots.length > 1 ? zoomed : null);
  const isEmpty = !(whole() > 0);
  byId("empty").hidden = !isEmpty;
  byId("spacer").hidden = isEmpty;
  byId("empty").textContent = entries.count && !isNone() ? "Nothing of this is in what has been chosen." : "No samples were collected.";
  draw();
}

const isNone = () => !entries.count;

function setGraph(graph) {
  if (graph === "sandwich") return openSandwich();
  view.graph = graph;
  rebuild([]);
  refresh();
  remember(true);
}

// Of a function, else of the one that is selected, or zoomed to, or the hottest.
function openSandwich(fn) {
  const box = selected || (zoomed.above ? zoomed : shownFor);
  if (fn === undefined && box && box.line >= 0) fn = lines[box.line].fn.at;
  if (fn === undefined) fn = view.fn;
  if (fn === null || fn === undefined) {
    const { self } = functionTotals();
    fn = self.reduce((best, value, at) => (value > self[best] ? at : best), 0);
  }
  if (!functions.length) return;
  view.fn = fn;
  view.graph = "sandwich";
  rebuild([]);
  refresh();
  centre();
  remember(true);
}

const TOGGLES = { flame: "flame", lines: "byLine" };
function toggle(id) {
  if (id === "paths") view.names = view.names === "path" ? "module" : "path";
  else view[TOGGLES[id]] = !view[TOGGLES[id]];
  if (id === "lines") rebuild([]);
  refresh();
  remember(false);
}

function setSearch(text, regex = false) {
  byId("search").value = text;
  byId("regex").setAttribute("aria-pressed", String(regex));
  search(text, regex);
  refreshStrip();
  showFound();
  draw();
  remember(false);
}

function showFound() {
  byId("search").classList.toggle("wrong", Boolean(found.wrong));
  byId("matched").textContent = found.wrong ? "not a regular expression: " + found.wrong
    : found.query ? `${percent(found.amount, whole())} matched` : "";
  byId("matched").title = found.query && !found.wrong ? amountText(view.metric, found.amount) : "";
}

function syncControls() {
  for (const graph of ["callees", "callers", "sandwich"]) byId(graph).setAttribute("aria-pressed", String(view.graph === graph));
  byId("flame").setAttribute("aria-pressed", String(view.flame));
  byId("lines").setAttribute("aria-pressed", String(view.byLine));
  byId("paths").setAttribute("aria-pressed", String(view.names === "path"));
  byId("regex").setAttribute("aria-pressed", String(found.regex));
  if (byId("search").value.trim() !== found.query) byId("search").value = found.query;
  byId("metric").value = view.metric;
  byId("colour").value = view.colour;
  byId("compare").value = view.compare;
  byId("scale").value = view.scaled ? "time" : "as-is";
  for (const id of ["process", "thread", "task"]) byId(id).value = view[id] === null ? "" : "=" + view[id];
  for (const chip of byId("states").children) {
    const wanted = view.states.get(chip.dataset.key);
    chip.setAttribute("aria-pressed", wanted === undefined ? "false" : wanted ? "true" : "mixed");
    chip.textContent = (wanted === false ? "not " : "") + chip.dataset.name;
  }
  if (hasTimes) markRange();
}

// A state is asked for, then asked not to be, then no matter.
function nextState(key) {
  const wanted = view.states.get(key);
  if (wanted === undefined) view.states.set(key, true);
  else if (wanted) view.states.set(key, false);
  else view.states.delete(key);
  reweigh();
  remember(false);
}

function copy(text) {
  const done = () => { byId("current").textContent = "Copied."; };
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => {});
}

function watchControls() {
  for (const graph of ["callees", "callers", "sandwich"]) byId(graph).addEventListener("click", () => setGraph(graph));
  for (const id of ["flame", "lines", "paths"]) byId(id).addEventListener("click", () => toggle(id));
  byId("search").addEventListener("input", () => setSearch(byId("search").value, found.regex));
  byId("regex").addEventListener("click", () => setSearch(byId("search").value, !found.regex));
  byId("reset").addEventListener("click", reset);
  byId("svg").addEventListener("click", saveImage);
  byId("help").addEventListener("click", showKeys);
  byId("theme").addEventListener("click", switchTheme);
  byId("toggle-side").addEventListener("click", () => toggleSide());
  byId("print").addEventListener("click", () => print());
  const chosen = (id, set) => byId(id).addEventListener("change", (event) => {
    set(event.target.value);
    reweigh();
    remember(false);
  });
  chosen("metric", (value) => { view.metric = Number(value); });
  chosen("colour", (value) => { view.colour = value; });
  chosen("compare", (value) => { view.compare = value; });
  chosen("scale", (value) => { view.scaled = value === "time"; });
  chosen("process", (value) => { view.process = value ? Number(value.slice(1)) : null; view.thread = null; });
  chosen("thread", (value) => { view.thread = value ? Number(value.slice(1)) : null; });
  chosen("task", (value) => { view.task = value ? value.slice(1) : null; });
  for (const [id, key] of [["by-self", "self"], ["by-total", "whole"]]) {
    byId(id).addEventListener("click", () => { hottestBy = key; showHottest(); });
  }
  byId("more").addEventListener("click", () => { hottestShown += 40; showHottest(); });
  byId("view").addEventListener("scroll", () => { hideTip(); draw(); });
  new ResizeObserver(() => { select(null); draw(); drawStrip(); }).observe(byId("view"));
  addEventListener("popstate", restore);
  addEventListener("hashchange", restore);
}

// ---- The address ----

// What differs from what a page opens with.
function fragment() {
  const words = new URLSearchParams();
  const put = (key, value, usual) => { if (value !== usual && value !== null) words.set(key, value); };
  put("graph", view.graph, "callees");
  put("flame", Number(view.flame), 0);
  put("lines", Number(view.byLine), 0);
  put("names", view.names, "module");
  put("width", METRICS[view.metric].key, METRICS[firstMetric()].key);
  put("colour", view.colour, "file");
  put("compare", view.compare, "change");
  put("scaled", Number(view.scaled), 1);
  put("process", view.process, null);
  put("thread", view.thread, null);
  put("task", view.task, null);
  put("states", [...view.states].map(([key, wanted]) => (wanted ? "" : "-") + key).join(","), "");
  put("range", view.range && view.range.join("-"), null);
  put("function", view.graph === "sandwich" ? view.fn : null, null);
  put("zoom", zoomed === root ? "" : pathOf(zoomed).join("."), "");
  put("search", found.query, "");
  put("regex", Number(found.regex), 0);
  return words.toString();
}

let written = null;

function remember(isStep) {
  const now = fragment();
  if (now === written) return;
  written = now;
  const address = now ? "#" + now : location.pathname + location.search;
  // Browsers limit how often, and whether at all for files.
  try {
    history[isStep ? "pushState" : "replaceState"](null, "", address);
  } catch {
    if (now) location.replace("#" + now);
  }
}

// Time, where it is known.
const firstMetric = () => (entries.amounts.some((amount, i) => i % 3 === WALL && amount > 0) ? WALL : SAMPLES);

// Anybody can have written the address: what it does not say right is as usual.
function restore() {
  const text = location.hash.slice(1);
  if (text === written) return;
  written = text;
  const words = new URLSearchParams(text);
  const oneOf = (key, all, usual) => (all.includes(words.get(key)) ? words.get(key) : usual);
  const whole = (text, most) => (/^\d{1,9}$/.test(text) && Number(text) < most ? Number(text) : null);
  view.graph = oneOf("graph", ["callees", "callers", "sandwich"], "callees");
  view.flame = words.get("flame") === "1";
  view.byLine = !baseline && words.get("lines") === "1";
  view.names = oneOf("names", ["module", "path"], "module");
  const metric = METRICS.find(({ key, at }) => key === words.get("width") && METRICS_SHOWN.includes(at));
  view.metric = metric ? metric.at : firstMetric();
  view.colour = oneOf("colour", ["file", "self"], "file");
  view.compare = baseline ? oneOf("compare", ["change", "new", "elided"], "change") : "change";
  view.scaled = words.get("scaled") !== "0";
  view.process = whole(words.get("process"), processes.length);
  view.thread = whole(words.get("thread"), threads.length);
  view.task = tasks().includes(words.get("task")) ? words.get("task") : null;
  view.states = new Map();
  for (const word of (words.get("states") || "").split(",")) {
    const key = word.replace(/^-/, "");
    if (STATES.some((state) => state.key === key)) view.states.set(key, key === word);
  }
  const range = /^(\d{1,4})-(\d{1,4})$/.exec(words.get("range") || "");
  view.range = hasTimes && range && Number(range[1]) < Number(range[2]) && Number(range[2]) <= buckets
    ? [Number(range[1]), Number(range[2])] : null;
  view.fn = whole(words.get("function"), functions.length);
  if (view.graph === "sandwich" && view.fn === null) view.graph = "callees";
  found = { ...found, query: words.get("search") || "", regex: words.get("regex") === "1" };
  const path = (words.get("zoom") || "").split(".").filter((step) => /^\d{1,9}$/.test(step)).map(Number);
  reweigh({ path });
  if (roots.length > 1) centre();
}
