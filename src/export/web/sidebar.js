// What is said beside the graph: of the box in question with its source, the hottest functions, how the runtime
// was used, and how the profile was taken.

// ---- A box in words ----

function describe(box) {
  const parts = [["b", "", cut(nameOf(box))]];
  if (box.line >= 0) {
    const { fn, line } = lines[box.line];
    const hot = linesOf(box);
    const place = placeOfLine(fn, view.byLine ? line : hot.length === 1 ? hot[0].line : fn.first, "path");
    if (place) parts.push(["span", "", place]);
    const heavy = hot.filter((hot) => hot.line);
    if (!view.byLine && heavy.length > 1) {
      const shares = heavy.slice(0, 4).map(({ line, whole }) => `${line} (${percent(whole, widthOf(box))})`);
      parts.push(["span", "", "lines " + shares.join(", ") + (heavy.length > 4 ? ", …" : "")]);
    }
    const opcodes = opcodesOf(box).slice(0, 3).map(({ name, whole }) => `${name} (${percent(whole, widthOf(box))})`);
    if (opcodes.length) parts.push(["span", "", opcodes.join(", ")]);
    const text = lineText(fn, view.byLine ? line : heavy.length ? heavy[0].line : 0);
    if (text) parts.push(["code", "", text.trim()]);
  }
  parts.push(["span", "numbers", `${percent(widthOf(box), whole())} · ${amountsText(box)}`]);
  if (baseline) parts.push(...describeChange(box));
  const extra = [];
  if (zoomed !== root && box.depth >= zoomed.depth) extra.push(`${percent(widthOf(box), widthOf(zoomed))} of zoom`);
  else if (roots.length > 1) extra.push(`${percent(widthOf(box), widthOf(root))} of ${cut(nameOf(root), 40)}`);
  if (!box.up && box.line >= 0) extra.push(`${percent(box.self[widthAt()], whole())} self`);
  if (extra.length) parts.push(["span", "", extra.join(" · ")]);
  return parts;
}

function amountsText(box) {
  const side = view.compare === "elided" ? BASE : 0;
  const all = METRICS.filter(({ at }) => METRICS_SHOWN.includes(at));
  return all.map(({ at, key }) => {
    const text = amountText(at, box.amounts[side + at]);
    return key === "cpu" ? `${text} CPU` : text;
  }).join(" · ");
}

function describeChange(box) {
  const { now, before, by, error } = change(box);
  if (!before) return [["span", "numbers", "new: not in the baseline"]];
  if (!now) return [["span", "numbers", "gone: only in the baseline"]];
  const sign = by >= 0 ? "+" : "−";
  const size = (amount) => amountText(view.metric, Math.abs(amount));
  const verdict = Math.abs(by) > error ? "" : ", within chance";
  return [["span", "numbers", `${size(before)} → ${size(now)}: ${sign}${size(by)} (${sign}${percent(Math.abs(by), before)}) ± ${size(error)}${verdict}`]];
}

function lineText(fn, line) {
  const source = sources.get(fn.fileAt);
  return (source && source.lines.get(line)) || "";
}

const tip = byId("tip");

function showTip(parts, x, y) {
  tip.replaceChildren(...parts.map(([tag, className, textContent]) => make(tag, { className, textContent })));
  tip.hidden = false;
  const { width, height: tall } = tip.getBoundingClientRect();
  const left = x + 14 + width > innerWidth ? Math.max(4, x - 14 - width) : x + 14;
  const above = y + 16 + tall > innerHeight ? Math.max(4, y - 12 - tall) : y + 16;
  tip.style.left = left + "px";
  tip.style.top = above + "px";
}

const hideTip = () => { tip.hidden = true; };

// ---- The box in question ----

let shownFor = null;

function showBox(box) {
  shownFor = box;
  const panel = byId("box");
  const isOne = box && box.line >= 0;
  byId("box-section").hidden = !isOne;
  if (!isOne) return;
  const { fn } = lines[box.line];
  const place = placeOfLine(fn, fn.first, "path");
  const button = (textContent, title, onclick) => make("button", { type: "button", textContent, title, onclick });
  const buttons = [];
  if (view.fn !== fn.at || view.graph !== "sandwich") {
    buttons.push(button("Callers and callees", "Its callers above it, what it calls below it (s)", () => openSandwich(fn.at)));
  }
  buttons.push(button("Find", "Search for it", () => setSearch(fn.name)));
  buttons.push(button("Copy", "Copy its name and place", () => copy(`${fn.name} (${fn.file}${fn.first ? ":" + fn.first : ""})`)));
  const facts = [["total", widthOf(box)]];
  if (!box.up) facts.push(["self", box.self[widthAt()]]);
  panel.replaceChildren(
    make("h3", { textContent: cut(fn.name), title: cut(fn.name, 4000) }),
    make("p", { className: "place", textContent: place, title: place }),
    ...facts.map(([name, amount]) => bar(name, amount, whole())),
    ...(baseline ? describeChange(box).map(([, , textContent]) => make("p", { textContent })) : []),
    make("div", { className: "buttons" }, ...buttons),
    ...sourceOf(box, fn),
    ...opcodeRows(box),
  );
}

function bar(name, amount, all, title = "") {
  const share = Math.max(0, Math.min(1, all ? amount / all : 0));
  return make("div", { className: "bar", title },
    make("span", { textContent: name }),
    make("span", { className: "track" }, make("i", { style: { width: 100 * share + "%" } })),
    make("span", { className: "amount", textContent: amountText(view.metric, amount) }),
    make("span", { className: "share", textContent: percent(amount, all) }));
}

// The instructions of a box by opcode, with what each weighs.
const MOST_OPCODES = 40;
const MOST_PLACES = 12;

function opcodeRows(box) {
  const opcodes = opcodesOf(box);
  if (!opcodes.length) return [];
  const all = widthOf(box);
  const sum = opcodes.reduce((sum, { whole, isSpecialised }) => sum + (isSpecialised ? whole : 0), 0);
  const placeOf = ({ line, endLine, column, endColumn, whole }) =>
    `line ${line}` +
    (!column ? "" : endLine > line ? `, column ${column} to line ${endLine}` : endColumn > column ? `, columns ${column} to ${endColumn - 1}` : "") +
    `: ${percent(whole, all)}`;
  const rows = opcodes.slice(0, MOST_OPCODES).map(({ name, base, isSpecialised, whole, self, places }) => {
    const more = places.length > MOST_PLACES ? [`and ${plural(places.length - MOST_PLACES, "more place")}`] : [];
    const facts = [
      base ? `${name}, ${isSpecialised ? "a specialisation of" : "in the place of"} ${base}` : name,
      amountText(view.metric, whole) + (box.up ? "" : `, ${amountText(view.metric, self)} self`),
      ...places.slice(0, MOST_PLACES).map(placeOf), ...more,
    ];
    return make("div", { className: isSpecialised ? "opcode specialised" : "opcode", title: facts.join("\n") },
      make("span", { className: "name", textContent: name }),
      make("span", { className: "track" }, make("i", { style: { width: (100 * whole) / (opcodes[0].whole || 1) + "%" } })),
      make("span", { className: "share", textContent: percent(whole, all) }));
  });
  const left = opcodes.length - rows.length;
  return [
    make("h4", { textContent: "Instructions" }),
    make("p", { className: "note", textContent: `${percent(sum, all)} in specialised ones, which are coloured` }),
    make("div", { id: "opcodes" }, ...rows),
    ...(left > 0 ? [make("p", { className: "note", textContent: `and ${number(left)} more` })] : []),
  ];
}

// The lines of a box, with what each weighs; around them what was read of the source.
function sourceOf(box, fn) {
  const hot = new Map(linesOf(box).filter(({ line }) => line).map((line) => [line.line, line]));
  if (!hot.size || fn.isMade || baseline) return [];
  const source = sources.get(fn.fileAt);
  const shown = new Set(hot.keys());
  if (source) {
    for (const line of [...hot.keys(), fn.first]) {
      for (let near = line - 3; near <= line + 3; near++) if (source.lines.has(near)) shown.add(near);
    }
  }
  const most = Math.max(...[...hot.values()].map(({ whole }) => whole));
  let before = null;
  const rows = [];
  for (const line of [...shown].sort((a, b) => a - b).slice(0, 400)) {
    if (before !== null && line > before + 1) rows.push(make("div", { className: "gap", textContent: "⋯" }));
    before = line;
    const heat = hot.get(line);
    rows.push(make("div", {
      className: heat ? "line hot" : "line",
      style: heat ? { backgroundColor: `rgb(226 88 34 / ${(0.08 + (0.42 * heat.whole) / most).toFixed(3)})` } : {},
      title: heat ? `line ${line}: ${amountText(view.metric, heat.whole)}${box.up ? "" : `, ${amountText(view.metric, heat.self)} self`}` : "",
    },
    make("span", { className: "heat", textContent: heat ? percent(heat.whole, widthOf(box)) : "" }),
    make("span", { className: "at", textContent: line }),
    make("code", { textContent: (source && source.lines.get(line)) || "" })));
  }
  const note = !source ? "The source was not there to be read." : source.isNewer ? "The file has changed since." : "";
  return [
    ...(note ? [make("p", { className: "note", textContent: note })] : []),
    make("div", { className: "source", role: "region", "aria-label": "Source", tabIndex: 0 }, ...rows),
  ];
}

// ---- The hottest functions ----

let hottestBy = "self";
let hottestShown = 12;

function showHottest() {
  const totals = functionTotals();
  // Of two profiles, those that have changed most.
  const isChange = baseline !== undefined && view.compare === "change";
  const before = isChange ? functionTotals(BASE + view.metric) : null;
  const by = isChange ? totals[hottestBy].map((now, at) => now - before[hottestBy][at]) : totals[hottestBy];
  const size = (at) => Math.abs(by[at]);
  const all = whole();
  const order = functions.map((_, at) => at).filter(size).sort((a, b) => size(b) - size(a) || a - b);
  byId("hottest-title").textContent = isChange ? "Changed most" : "Hottest functions";
  byId("hottest").replaceChildren(...order.slice(0, hottestShown).map((at) => {
    const fn = functions[at];
    const sign = !isChange ? "" : by[at] > 0 ? "+" : "−";
    const sums = ["self", "whole"].map((key) =>
      `${key === "self" ? "self" : "total"} ${before ? amountText(view.metric, before[key][at]) + " → " : ""}${amountText(view.metric, totals[key][at])}`);
    return make("button", {
      type: "button",
      className: "row",
      title: `${cut(fn.name)}\n${placeOfLine(fn, fn.first, "path")}\n${sums.join(", ")}`,
      onclick: () => openSandwich(at),
    },
    make("span", { className: "share" + (sign === "+" ? " more" : sign ? " less" : ""), textContent: sign + percent(size(at), all) }),
    make("span", { className: "name" },
      make("b", { textContent: cut(fn.name, 200) }),
      make("small", { textContent: cut(placeOfLine(fn, fn.first, view.names), 200) })),
    make("span", { className: "track" }, make("i", { style: { width: (100 * size(at)) / size(order[0]) + "%" } })));
  }));
  byId("more").hidden = order.length <= hottestShown;
  for (const [id, key] of [["by-self", "self"], ["by-total", "whole"]]) byId(id).setAttribute("aria-pressed", String(hottestBy === key));
}

// ---- The runtime ----

function showRuntime() {
  const sums = stateTotals();
  const isKnown = tracks.some(({ state }) => state);
  byId("runtime-section").hidden = !isKnown;
  if (!isKnown) return;
  // What no sample has was perhaps not looked at.
  const rows = [
    ["on CPU", sums.cpu, "cpu"],
    ["GIL held", sums.gil, "gil"],
    ["GIL released", sums.all - sums.gil - sums.wait, "gil"],
    ["waits for GIL", sums.wait, "wait"],
    ["in GC", sums.gc, "gc"],
    ...[0, 1, 2].map((generation) => [`\u2003generation ${generation}`, sums[`gc${generation}`], `gc${generation}`]),
    ["exception", sums.exc, "exc"],
    ["native", sums.native, "native"],
  ].filter(([, , key]) => tracks.some(({ state }) => hasState(state, STATES.find((one) => one.key === key))));
  byId("runtime").replaceChildren(...rows.map(([name, amount]) => bar(name, amount, sums.all)));
}

// ---- The profile ----

const MODE_TITLES = { wall: "wall clock: all time that passes", cpu: "CPU time that was used", gil: "time in which the GIL was held" };

function factsOf(about) {
  return [
    ["mode", MODE_TITLES[about.mode] || about.mode],
    ["samples", number(about.samples)],
    ["duration", duration(about.durationNs)],
    ["rate", `${number(about.rateHz)} Hz` + (about.intervalNs ? ` of ${number(1e9 / about.intervalNs)} Hz asked for` : "")],
    ["failed", `${percent(about.failedShare, 1)} (${number(about.failed)})`, "Samples that could not be read right, and are in no count", about.failedShare > 0.01],
    ["missed", `${percent(about.missedShare, 1)} (${number(about.missed)})`, "Instants that passed while the sampler was late", about.missedShare > 0.1],
    ["started", new Date(about.startMs).toLocaleString()],
    ["Python", about.python],
    ["process", String(about.pid)],
    ["command", about.command.map(quoted).join(" ")],
  ];
}

const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replace(/'/g, "'\\''")}'`);

function showProfile() {
  const list = (about) => make("dl", {}, ...factsOf(about).map(([term, value, title, isBad]) =>
    make("div", { title: title || "" }, make("dt", { textContent: term }),
      make("dd", { textContent: cut(value, 4000), className: isBad ? "bad" : "" }))));
  const parts = [list(meta)];
  if (baseline) parts.push(make("h3", { textContent: "Baseline" }), list(baseline));
  const counts = `${plural(functions.length, "function")}, ${plural(nodes - 1, "stack")}, ${plural(threads.length, "thread")}`;
  const notes = [counts];
  if (entries.exact < entries.count) notes.push("What a range of time has of rare stacks is estimated.");
  if (data.leastShown > 1) {
    notes.push(`Calls with fewer than ${plural(data.leastShown, "sample")} are not told apart: they are <rare calls>.`);
  }
  byId("profile").replaceChildren(...parts, ...notes.map((text) => make("p", { className: "note", textContent: text })));
}

function showHeader() {
  byId("program").textContent = cut(meta.program, 200) || "Profile";
  byId("program").title = cut(meta.command.join(" "), 2000);
  const facts = [
    baseline ? "compared with " + (cut(baseline.program, 60) || "baseline") : "",
    { cpu: "CPU time", gil: "GIL time", wall: "wall time" }[meta.mode],
    duration(meta.durationNs), plural(meta.samples, "sample"), cut(meta.python, 60),
  ];
  byId("facts").textContent = facts.filter(Boolean).join(" · ");
  const bad = [
    [meta.failedShare > 0.01, `${percent(meta.failedShare, 1)} failed`],
    [meta.missedShare > 0.1, `${percent(meta.missedShare, 1)} missed`],
  ].filter(([isBad]) => isBad).map(([, text]) => text);
  byId("warning").textContent = bad.join(", ");
}

// ---- Its width ----

function watchSidebar() {
  const grip = byId("grip");
  const side = byId("side");
  const stored = Number(recall("pysamp-side"));
  const set = (width) => {
    side.style.width = Math.max(220, Math.min(width, innerWidth * 0.7)) + "px";
  };
  if (stored) set(stored);
  const keep = () => recallLater("pysamp-side", String(side.clientWidth));
  grip.addEventListener("pointerdown", (event) => {
    grip.setPointerCapture(event.pointerId);
    const move = (event) => set(innerWidth - event.clientX);
    grip.addEventListener("pointermove", move);
    const stop = () => { grip.removeEventListener("pointermove", move); keep(); };
    grip.addEventListener("pointerup", stop, { once: true });
    grip.addEventListener("pointercancel", stop, { once: true });
  });
  grip.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: 24, ArrowRight: -24 }[event.key];
    if (!step) return;
    event.preventDefault();
    set(side.clientWidth + step);
    keep();
  });
}
