"use strict";
// Draws the flame graph. The profile is a tree of lines of code, node 0 above all roots; boxes are groups of
// its nodes and are made when they are first drawn, so that large profiles open at once.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const { meta, strings } = data;
  const ROW = 20;
  const NARROWEST = 0.5;
  const FONT = 12;

  // ---- The profile ----

  const nodes = data.parents.length + 1;
  const parent = Int32Array.from([0].concat(data.parents));
  const lineOf = Int32Array.from([-1].concat(data.lineOf));
  const firstChild = new Int32Array(nodes);
  const nextSibling = new Int32Array(nodes);
  for (let node = nodes - 1; node > 0; node--) {
    nextSibling[node] = firstChild[parent[node]];
    firstChild[parent[node]] = node;
  }

  const baseName = (file) => file.slice(file.lastIndexOf("/") + 1);
  const lines = [];
  for (let at = 0; at < data.lines.length; at += 2) {
    const fn = data.lines[at];
    const file = strings[data.functions[3 * fn]];
    const line = data.lines[at + 1];
    lines.push({ fn, file, base: baseName(file), name: strings[data.functions[3 * fn + 1]], line });
  }
  const defined = (fn) => data.functions[3 * fn + 2];
  const where = ({ file, base }, line, full) =>
    file === "~" && !line ? "" : (full ? file : base) + (line ? ":" + line : "");

  // What the thread filter lets through: for each node itself, and for all below it.
  const own = { samples: new Float64Array(nodes), time: new Float64Array(nodes) };
  const total = { samples: new Float64Array(nodes), time: new Float64Array(nodes) };

  function selectThread(wanted) {
    for (const array of [own.samples, own.time]) array.fill(0);
    for (let at = 0; at < data.samples.length; at += 4) {
      if (wanted !== null && data.samples[at] !== wanted) continue;
      const node = data.samples[at + 1];
      own.samples[node] += data.samples[at + 2];
      own.time[node] += data.samples[at + 3];
    }
    total.samples.set(own.samples);
    total.time.set(own.time);
    for (let node = nodes - 1; node > 0; node--) {
      if (!total.samples[node]) continue;
      total.samples[parent[node]] += total.samples[node];
      total.time[parent[node]] += total.time[node];
    }
  }

  // ---- Boxes ----

  const view = { inverted: false, byLine: false, metric: "samples", thread: null };
  let root;
  let zoomed;
  let selected = null;

  const label = (line) => (view.byLine ? line : lines[line].fn);

  function makeBox(line, above) {
    return {
      line, above, depth: above ? above.depth + 1 : 0, samples: 0, time: 0, self: 0,
      nodes: [], nodeSamples: [], nodeTime: [], below: null, matches: null, matchedAt: -1,
    };
  }

  function addNode(box, node, samples, time, seen) {
    box.samples += samples;
    box.time += time;
    // Going towards the callers, ways from different callees meet at one node.
    const at = seen ? seen.get(node) : undefined;
    if (at !== undefined) {
      box.nodeSamples[at] += samples;
      box.nodeTime[at] += time;
      return;
    }
    if (seen) seen.set(node, box.nodes.length);
    box.nodes.push(node);
    box.nodeSamples.push(samples);
    box.nodeTime.push(time);
  }

  // The boxes below one, widest first.
  function below(box) {
    if (box.below) return box.below;
    const groups = new Map();
    const add = (node, samples, time) => {
      const key = label(lineOf[node]);
      let group = groups.get(key);
      if (!group) groups.set(key, (group = { box: makeBox(lineOf[node], box), seen: view.inverted ? new Map() : null }));
      addNode(group.box, node, samples, time, group.seen);
      if (!view.inverted) group.box.self += own[view.metric][node];
    };
    if (!view.inverted) {
      for (const node of box.nodes) {
        for (let child = firstChild[node]; child; child = nextSibling[child]) {
          if (total.samples[child]) add(child, total.samples[child], total.time[child]);
        }
      }
    } else if (box === root) {
      for (let node = 1; node < nodes; node++) {
        if (own.samples[node]) add(node, own.samples[node], own.time[node]);
      }
    } else {
      box.nodes.forEach((node, i) => {
        if (parent[node]) add(parent[node], box.nodeSamples[i], box.nodeTime[i]);
      });
    }
    const byWidth = (a, b) => b[view.metric] - a[view.metric] || (nameOf(a) < nameOf(b) ? -1 : 1);
    return (box.below = [...groups.values()].map((group) => group.box).sort(byWidth));
  }

  const nameOf = (box) => (box.line < 0 ? "all" : lines[box.line].name);
  const placeOf = (box) => where(lines[box.line], view.byLine ? lines[box.line].line : 0, false);
  const widthOf = (box) => box[view.metric];

  function rebuild() {
    root = makeBox(-1, null);
    addNode(root, 0, total.samples[0], total.time[0], null);
    zoomed = root;
    select(null);
    byId("view").scrollTop = 0;
    laidOut = {};
    refresh();
  }

  // ---- Search ----

  let found = { query: "", generation: 0, line: [], samples: 0, time: 0 };

  function search(text) {
    const query = text.trim().toLowerCase();
    found = { query, generation: found.generation + 1, line: [], samples: 0, time: 0 };
    if (query) {
      const place = /^(.*):(\d+)$/.exec(query);
      found.line = lines.map(({ name, file, base, line }) => {
        if (place && Number(place[2]) === line && file.toLowerCase().endsWith(place[1])) return true;
        // Folders, many of which are in all paths, have to be asked for.
        const path = query.includes("/") ? file : base;
        return name.toLowerCase().includes(query) || path.toLowerCase().includes(query);
      });
      const onPath = new Uint8Array(nodes);
      for (let node = 1; node < nodes; node++) {
        onPath[node] = onPath[parent[node]] || found.line[lineOf[node]] ? 1 : 0;
        if (!onPath[node]) continue;
        found.samples += own.samples[node];
        found.time += own.time[node];
      }
    }
    colours = new Map();
    byId("matched").textContent = query
      ? `${percent(found[view.metric], total[view.metric][0])} matched`
      : "";
    byId("matched").title = query ? amounts(found) : "";
    draw();
  }

  function matches(box) {
    if (!found.query || box.line < 0) return false;
    if (box.matchedAt !== found.generation) {
      box.matchedAt = found.generation;
      box.matches = box.nodes.some((node) => found.line[lineOf[node]]);
    }
    return box.matches;
  }

  // ---- Text ----

  const percent = (part, whole) => (whole ? (100 * part) / whole : 0).toFixed(part && part < whole / 100 ? 2 : 1) + "%";
  const number = (value) => Math.round(value).toLocaleString("en-US");
  const plural = (count, what) => `${number(count)} ${what}${count === 1 ? "" : "s"}`;

  function duration(ns) {
    if (ns >= 60e9) return `${Math.floor(ns / 60e9)} min ${((ns % 60e9) / 1e9).toFixed(0)} s`;
    if (ns >= 1e9) return (ns / 1e9).toFixed(2) + " s";
    if (ns >= 1e6) return (ns / 1e6).toFixed(1) + " ms";
    return (ns / 1e3).toFixed(0) + " µs";
  }

  const amounts = (box) => `${plural(box.samples, "sample")}, ${duration(box.time)}`;

  // The lines of a box, those with the most samples first.
  function hotLines(box) {
    const byLine = new Map();
    box.nodes.forEach((node, i) => {
      const { line } = lines[lineOf[node]];
      if (line) byLine.set(line, (byLine.get(line) || 0) + box.nodeSamples[i]);
    });
    return [...byLine].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  }

  function describe(box) {
    const parts = [["b", "", nameOf(box)]];
    if (box.line >= 0) {
      const line = lines[box.line];
      const start = defined(line.fn);
      const hot = hotLines(box);
      const at = view.byLine ? line.line : hot.length === 1 ? hot[0][0] : start;
      const place = where(line, at, true);
      if (place) parts.push(["span", "", place]);
      if (!view.byLine && hot.length > 1) {
        const shares = hot.slice(0, 4).map(([at, samples]) => `${at} (${percent(samples, box.samples)})`);
        parts.push(["span", "", "lines " + shares.join(", ") + (hot.length > 4 ? ", …" : "")]);
      }
    }
    const whole = widthOf(root);
    parts.push(["span", "numbers", `${percent(widthOf(box), whole)} · ${amounts(box)}`]);
    const extra = [];
    if (zoomed !== root && box.depth >= zoomed.depth) extra.push(`${percent(widthOf(box), widthOf(zoomed))} of zoom`);
    if (!view.inverted && box.line >= 0) extra.push(`${percent(box.self, whole)} self`);
    if (extra.length) parts.push(["span", "", extra.join(" · ")]);
    return parts;
  }

  // ---- Drawing ----

  const canvas = byId("graph");
  const pen = canvas.getContext("2d");
  const mono = getComputedStyle(document.documentElement).getPropertyValue("--mono");
  let charWidth = 0;
  const dark = () => document.documentElement.dataset.theme === "dark";

  // The files with the most samples get the hues that differ most.
  const hues = new Map();
  function giveHues() {
    const weights = new Map();
    for (let node = 1; node < nodes; node++) {
      const { file } = lines[lineOf[node]];
      weights.set(file, (weights.get(file) || 0) + own.samples[node]);
    }
    const files = [...weights].sort((a, b) => b[1] - a[1]);
    files.forEach(([file], i) => hues.set(file, (212 + i * 137.508) % 360));
  }

  let colours = new Map();
  function colour(box) {
    const matched = matches(box);
    const key = matched ? "matched" : box.line;
    let known = colours.get(key);
    if (!known) colours.set(key, (known = mix(box.line, matched)));
    return known;
  }

  function mix(at, matched) {
    const night = dark();
    if (matched) return night ? "hsl(318 52% 46%)" : "hsl(318 78% 80%)";
    if (at < 0) return night ? "hsl(215 9% 27%)" : "hsl(215 14% 88%)";
    const line = lines[at];
    if (line.file === "~") return night ? "hsl(215 6% 34%)" : "hsl(215 8% 81%)";
    const hue = hues.get(line.file);
    // Neighbours in one file differ a little.
    const shade = ((line.fn * 5) % 7) - 3;
    const strength = found.query ? 0.25 : 1;
    return night
      ? `hsl(${hue} ${34 * strength}% ${31 + shade}%)`
      : `hsl(${hue} ${56 * strength}% ${82 + shade}%)`;
  }

  // As much of a text as fits; the font is fixed-width, all but for what it lacks.
  function fit(text, width) {
    const ascii = /^[\x20-\x7e]*$/.test(text);
    const measure = (part) => (ascii ? part.length * charWidth : pen.measureText(part).width);
    const most = Math.floor(width / charWidth);
    if (text.length <= most && measure(text) <= width) return text;
    if (most < 3) return "";
    let cut = Array.from(text.slice(0, 2 * most)).slice(0, most - 1);
    while (cut.length && measure(cut.join("")) > width - charWidth) cut = cut.slice(0, -1);
    return cut.length ? cut.join("") + "…" : "";
  }

  // Rows of places from left to right: where each box is that is wide enough to be seen.
  let rows = [];
  let laidOut = {};

  function layout(width) {
    if (laidOut.zoomed === zoomed && laidOut.width === width) return;
    laidOut = { zoomed, width };
    rows = [[{ box: zoomed, x: 0, width }]];
    const scale = width / (widthOf(zoomed) || 1);
    for (let row = rows[0]; row.length; ) {
      const next = [];
      for (const { box, x } of row) {
        let left = x;
        for (const child of below(box)) {
          const wide = widthOf(child) * scale;
          // Widest first: all the others are as narrow.
          if (wide < NARROWEST) break;
          next.push({ box: child, x: left, width: wide });
          left += wide;
        }
      }
      if (next.length) rows.push(next);
      row = next;
    }
    for (let box = zoomed.above; box; box = box.above) rows.unshift([{ box, x: 0, width }]);
    byId("spacer").style.height = rows.length * ROW + 8 + "px";
  }

  let scheduled = 0;
  function draw() {
    if (!scheduled) scheduled = requestAnimationFrame(drawNow);
  }

  function drawNow() {
    cancelAnimationFrame(scheduled);
    scheduled = 0;
    const frame = byId("view");
    const width = frame.clientWidth;
    layout(width);
    const tall = frame.clientHeight;
    const scale = window.devicePixelRatio || 1;
    canvas.style.width = width + "px";
    canvas.style.height = tall + "px";
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(tall * scale);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.font = `${FONT}px ${mono}`;
    pen.textBaseline = "middle";
    charWidth = pen.measureText("MMMMMMMMMM").width / 10;
    for (const place of visible()) paint(place, place.box.depth * ROW - frame.scrollTop);
    byId("reset").disabled = zoomed === root;
  }

  // The places in the rows that are scrolled to.
  function visible() {
    const { scrollTop, clientHeight } = byId("view");
    return rows.slice(Math.floor(scrollTop / ROW), Math.ceil((scrollTop + clientHeight) / ROW)).flat();
  }

  function paint({ box, x, width }, y) {
    const faded = box.depth < zoomed.depth;
    pen.globalAlpha = faded ? 0.55 : 1;
    pen.fillStyle = colour(box);
    pen.fillRect(x, y, width > 3 ? width - 1 : width, ROW - 1);
    const room = width - 9;
    if (room < 3 * charWidth) return;
    const name = fit(nameOf(box), room);
    pen.fillStyle = dark() ? "#eceff3" : "#1d2126";
    pen.fillText(name, x + 4, y + ROW / 2);
    const place = box.line < 0 ? amounts(box) : placeOf(box);
    const used = pen.measureText(name).width + 2 * charWidth;
    if (name.endsWith("…") || !place || pen.measureText(place).width > room - used) return;
    pen.globalAlpha = faded ? 0.35 : 0.6;
    pen.fillText(place, x + 4 + used, y + ROW / 2);
  }

  // ---- Pointer and keys ----

  const tip = byId("tip");

  function boxAt(event) {
    const { left, top } = canvas.getBoundingClientRect();
    const x = event.clientX - left;
    const row = rows[Math.floor((event.clientY - top + byId("view").scrollTop) / ROW)];
    return row && row.find((place) => x >= place.x && x < place.x + place.width);
  }

  function showTip(box, x, y) {
    tip.replaceChildren(...describe(box).map(([tag, kind, text]) => {
      const element = document.createElement(tag);
      element.className = kind;
      element.textContent = text;
      return element;
    }));
    tip.hidden = false;
    const { width, height: tall } = tip.getBoundingClientRect();
    const left = x + 14 + width > innerWidth ? Math.max(4, x - 14 - width) : x + 14;
    const above = y + 16 + tall > innerHeight ? Math.max(4, y - 12 - tall) : y + 16;
    tip.style.left = left + "px";
    tip.style.top = above + "px";
    byId("current").textContent = describe(box).map((part) => part[2]).join("  ");
  }

  const hideTip = () => { tip.hidden = true; };

  const placeNow = (box) => (rows[box.depth] || []).find((place) => place.box === box);

  function select(box) {
    selected = box;
    const place = box && placeNow(box);
    const mark = byId("mark");
    mark.hidden = !place;
    if (place) {
      mark.style.left = place.x + "px";
      mark.style.top = box.depth * ROW + "px";
      mark.style.width = Math.max(place.width - 1, 1) + "px";
    } else {
      hideTip();
      byId("current").textContent = "";
    }
  }

  function scrollTo(box) {
    const frame = byId("view");
    const y = box.depth * ROW;
    if (y < frame.scrollTop) frame.scrollTop = y;
    if (y + ROW > frame.scrollTop + frame.clientHeight) frame.scrollTop = y + ROW - frame.clientHeight;
  }

  function zoom(box) {
    zoomed = box;
    drawNow();
    select(box === root ? null : box);
    hideTip();
    scrollTo(box);
  }

  function selectByKey(box) {
    const place = box && placeNow(box);
    if (!place) return;
    select(box);
    scrollTo(box);
    const { left, top } = canvas.getBoundingClientRect();
    const y = box.depth * ROW - byId("view").scrollTop;
    showTip(box, left + place.x, top + y + ROW);
  }

  function sibling(box, step) {
    if (!box.above || box.depth <= zoomed.depth) return null;
    const row = below(box.above);
    return row[row.indexOf(box) + step];
  }

  canvas.addEventListener("mousemove", (event) => {
    const place = boxAt(event);
    canvas.style.cursor = place ? "pointer" : "default";
    if (selected !== (place ? place.box : null)) select(place ? place.box : null);
    if (place) showTip(place.box, event.clientX, event.clientY);
  });
  canvas.addEventListener("mouseleave", () => select(null));
  canvas.addEventListener("click", (event) => {
    const place = boxAt(event);
    if (place) zoom(place.box);
  });
  canvas.addEventListener("keydown", (event) => {
    const from = selected;
    const moves = {
      ArrowDown: () => (from ? below(from)[0] : zoomed),
      ArrowUp: () => (from ? from.above : zoomed),
      ArrowLeft: () => from && sibling(from, -1),
      ArrowRight: () => from && sibling(from, 1),
    };
    if (event.key in moves) selectByKey(moves[event.key]());
    else if ((event.key === "Enter" || event.key === " ") && from) zoom(from);
    else return;
    event.preventDefault();
  });

  document.addEventListener("keydown", (event) => {
    const box = byId("search");
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
    const find = (event.ctrlKey || event.metaKey) && event.key === "f";
    // A second Ctrl-F is the browser's own search.
    if ((find && document.activeElement !== box) || (event.key === "/" && !typing)) {
      event.preventDefault();
      box.focus();
      box.select();
    } else if (event.key === "Escape") {
      if (document.activeElement === box && box.value) {
        box.value = "";
        search("");
      } else {
        zoom(root);
      }
    }
  });

  // ---- Controls ----

  function refresh() {
    search(byId("search").value);
  }

  function toggle(id, option) {
    byId(id).addEventListener("click", () => {
      view[option] = !view[option];
      byId(id).setAttribute("aria-pressed", String(view[option]));
      rebuild();
    });
  }

  byId("search").addEventListener("input", refresh);
  byId("reset").addEventListener("click", () => zoom(root));
  toggle("invert", "inverted");
  toggle("lines", "byLine");
  byId("metric").addEventListener("change", (event) => {
    view.metric = event.target.value;
    rebuild();
  });
  byId("thread").addEventListener("change", (event) => {
    view.thread = event.target.value === "" ? null : Number(event.target.value);
    selectThread(view.thread);
    rebuild();
  });
  byId("view").addEventListener("scroll", () => { hideTip(); draw(); });
  new ResizeObserver(() => { select(null); draw(); }).observe(byId("view"));

  function fillThreads() {
    const counts = new Map();
    for (let at = 0; at < data.samples.length; at += 4) {
      const thread = data.samples[at];
      counts.set(thread, (counts.get(thread) || 0) + data.samples[at + 2]);
    }
    const all = [...counts.values()].reduce((sum, count) => sum + count, 0);
    // One thread is all there is to choose.
    if (counts.size !== 1) byId("thread").append(new Option(`All ${number(counts.size)} threads`, ""));
    const busiest = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    for (const [thread, count] of busiest) {
      const [tid, name, isMain] = data.threads[thread];
      const title = `${name || (isMain ? "main" : "unnamed")} · ${tid} · ${percent(count, all)}`;
      byId("thread").append(new Option(title, thread));
    }
  }

  function fillHeader() {
    byId("program").textContent = meta.program || "Profile";
    byId("program").title = meta.command.join(" ");
    const hertz = meta.durationNs ? meta.ticks / (meta.durationNs / 1e9) : 0;
    const facts = [
      ["pid", meta.pid],
      ["python", meta.python],
      ["started", new Date(meta.startMs).toLocaleString()],
      ["ran", duration(meta.durationNs)],
      ["samples", number(meta.samples)],
      ["rate", `${number(hertz)} Hz`, meta.intervalNs && `${number(1e9 / meta.intervalNs)} Hz were asked for`],
      ["failed", percent(meta.failedShare, 1), "Samples that could not be read", meta.failedShare > 0.01],
      ["missed", percent(meta.missedShare, 1), "Sampling instants that passed while the sampler was late", meta.missedShare > 0.1],
    ];
    for (const [term, value, title, bad] of facts) {
      const pair = document.createElement("div");
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = term;
      dd.textContent = value;
      pair.title = title || "";
      dd.className = bad ? "bad" : "";
      pair.append(dt, dd);
      byId("facts").append(pair);
    }
  }

  // ---- Theme ----

  const night = matchMedia("(prefers-color-scheme: dark)");
  function applyTheme(chosen) {
    document.documentElement.dataset.theme = chosen || (night.matches ? "dark" : "light");
    colours = new Map();
    draw();
  }
  // Storage can be forbidden, as for pages opened from a file.
  function storedTheme() {
    try { return localStorage.getItem("pysamp-theme"); } catch { return null; }
  }
  byId("theme").addEventListener("click", () => {
    const chosen = dark() ? "light" : "dark";
    try { localStorage.setItem("pysamp-theme", chosen); } catch { /* It lasts for this visit. */ }
    applyTheme(chosen);
  });
  night.addEventListener("change", () => applyTheme(storedTheme()));

  // ---- Start ----

  fillHeader();
  fillThreads();
  selectThread(null);
  giveHues();
  rebuild();
  applyTheme(storedTheme());
  const empty = !total.samples[0];
  byId("empty").hidden = !empty;
  byId("spacer").hidden = empty;
  for (const id of ["search", "thread", "metric", "lines", "invert"]) byId(id).disabled = empty;

  // For tests: what is drawn right now, in pixels from the canvas's corner.
  window.pysamp = {
    visible() {
      drawNow();
      return visible().map(({ box, x, width }) => ({
        name: nameOf(box),
        file: box.line < 0 ? "" : lines[box.line].file,
        line: box.line < 0 ? 0 : view.byLine ? lines[box.line].line : defined(lines[box.line].fn),
        samples: box.samples,
        timeNs: box.time,
        depth: box.depth,
        matched: matches(box),
        x,
        y: box.depth * ROW - byId("view").scrollTop,
        width,
        height: ROW,
      }));
    },
    state: () => ({ ...view, zoomed: nameOf(zoomed), query: found.query, samples: root.samples, matched: found.samples }),
  };
})();
