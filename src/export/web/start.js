// Fills in what there is to choose, and shows the profile.

// ---- What lasts between visits ----

// Storage can be forbidden, as for pages opened from a file.
function recall(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}
function recallLater(key, value) {
  try { localStorage.setItem(key, value); } catch { /* It lasts for this visit. */ }
}

const night = matchMedia("(prefers-color-scheme: dark)");
function applyTheme(chosen) {
  document.documentElement.dataset.theme = chosen || (night.matches ? "dark" : "light");
  forgetColours();
  draw();
  drawStrip();
}

function switchTheme() {
  const chosen = isDark() ? "light" : "dark";
  recallLater("pysamp-theme", chosen);
  applyTheme(chosen);
}

function toggleSide(isShown = byId("side").hidden) {
  byId("side").hidden = !isShown;
  byId("grip").hidden = !isShown;
  byId("toggle-side").setAttribute("aria-pressed", String(isShown));
  recallLater("pysamp-side-shown", isShown ? "1" : "0");
}

// ---- What there is to choose ----

// Amounts by a key of the entries' tracks, the largest first.
function weighed(keyOf) {
  const sums = new Map();
  for (let at = 0; at < entries.count; at++) {
    const key = keyOf(tracks[entries.track[at]]);
    sums.set(key, (sums.get(key) || 0) + entries.amounts[3 * at + SAMPLES]);
  }
  return [...sums].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
}

function fillSelect(id, everything, rows) {
  byId(id + "-label").hidden = rows.length < 2;
  byId(id).append(new Option(everything, ""), ...rows.map(([value, title]) => new Option(title, "=" + value)));
}

const MOST_CHOICES = 500;
function tasks() {
  return [...new Set(functions.filter(({ isTask }) => isTask).map(({ name }) => name))];
}

function fillChoices() {
  const sum = entries.amounts.reduce((sum, amount, i) => sum + (i % 3 === SAMPLES ? amount : 0), 0);
  const byThread = weighed(({ thread }) => thread).slice(0, MOST_CHOICES);
  const byProcess = weighed(({ process }) => process);
  if (baseline) {
    for (const id of ["process", "thread"]) fillSelect(id, "", []);
  } else {
    fillSelect("process", `All ${number(byProcess.length)} processes`, byProcess.map(([at, samples]) =>
      [at, `${cut(processes[at][2], 40) || "process"} · ${processes[at][0]} · ${percent(samples, sum)}`]));
    fillSelect("thread", `All ${number(byThread.length)} threads`, byThread.map(([at, samples]) =>
      [at, `${threadTitle(at)} · ${percent(samples, sum)}`]));
  }
  const named = tasks();
  fillSelect("task", `All ${number(named.length)} tasks`, named.slice(0, MOST_CHOICES).map((name) => [name, cut(name, 60)]));
  byId("task-label").hidden = !named.length;
  // Only states that tell samples apart.
  for (const state of STATES) {
    const having = tracks.filter((track) => hasState(track.state, state)).length;
    if (!having || having === tracks.length) continue;
    const chip = make("button", { type: "button", title: state.title, onclick: () => nextState(state.key), "aria-pressed": "false" });
    Object.assign(chip.dataset, { key: state.key, name: state.name });
    byId("states").append(chip);
  }
  byId("states").hidden = !byId("states").children.length;
  for (const { at, name } of METRICS) if (METRICS_SHOWN.includes(at)) byId("metric").append(new Option(name, at));
  byId("compare-label").hidden = !baseline;
  byId("scale-label").hidden = !baseline;
  byId("colour-label").hidden = Boolean(baseline);
  byId("legend").hidden = !baseline;
  byId("lines").hidden = Boolean(baseline);
  byId("time").hidden = !hasTimes;
}

// ---- Start ----

fillChoices();
showHeader();
showProfile();
watchControls();
watchStrip();
watchSidebar();
watchPrinting();
toggleSide((recall("pysamp-side-shown") ?? (innerWidth < 800 ? "0" : "1")) === "1");
weigh();
giveHues();
restore();
applyTheme(recall("pysamp-theme"));
night.addEventListener("change", () => applyTheme(recall("pysamp-theme")));
drawNow();
performance.mark("pysamp-drawn");

// For tests: what is drawn right now, in pixels from the canvas's corner.
window.pysamp = {
  visible() {
    drawNow();
    return visible().flatMap(([y, row]) => row.filter(({ box }) => box).map(({ box, x, width }) => ({
      name: nameOf(box),
      file: box.line < 0 ? "" : lines[box.line].fn.file,
      line: box.line < 0 ? 0 : view.byLine ? lines[box.line].line : lines[box.line].fn.first,
      samples: box.amounts[SAMPLES],
      timeNs: box.amounts[WALL],
      cpuNs: box.amounts[CPU],
      baseNs: baseline ? box.amounts[BASE + WALL] : 0,
      depth: box.depth, matched: matches(box), fill: colour(box), x, y, width, height: ROW,
    })));
  },
  state: () => ({
    ...view,
    states: Object.fromEntries(view.states),
    zoomed: nameOf(zoomed), query: found.query, samples: total[SAMPLES], amount: whole(), matched: found.amount, buckets,
  }),
  // What the strip shows, in each bucket.
  strip: () => ({ kinds: going.map((amounts) => [...amounts]), found: [...going.found] }),
  nodes, entries: entries.count, exact: entries.exact,
};
