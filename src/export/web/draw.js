// Lays boxes out in rows, and draws those rows that are scrolled to on a canvas.

const ROW = 20;
const NARROWEST = 0.5;
const FONT = 12;
const canvas = byId("graph");
const pen = canvas.getContext("2d");
const mono = getComputedStyle(document.documentElement).getPropertyValue("--mono");
let charWidth = 0;
const isDark = () => document.documentElement.dataset.theme === "dark";

// ---- Colours ----

// The files with the most time get the hues that differ most.
const hues = new Map();
function giveHues() {
  const weights = new Map();
  for (let node = 1; node < nodes; node++) {
    const { file } = functions[fnOf[node]];
    weights.set(file, (weights.get(file) || 0) + own[node * WIDE + SAMPLES]);
  }
  const files = [...weights].sort((a, b) => b[1] - a[1]);
  files.forEach(([file], i) => hues.set(file, (212 + i * 137.508) % 360));
}

let colours = new Map();
const forgetColours = () => { colours = new Map(); };

function colour(box, night = isDark()) {
  const matched = matches(box);
  if (!matched && (baseline || view.colour === "self")) return mixOwn(box, night);
  const key = (matched ? "matched" : box.line < 0 ? "all" : lines[box.line].fn.at) + (night ? "n" : "d");
  let known = colours.get(key);
  if (!known) colours.set(key, (known = mix(box.line, matched, night)));
  return known;
}

function mix(at, matched, night) {
  if (matched) return night ? "hsl(318 52% 46%)" : "hsl(318 78% 80%)";
  if (at < 0) return night ? "hsl(215 9% 27%)" : "hsl(215 14% 88%)";
  const { fn } = lines[at];
  if (fn.isMade) return night ? "hsl(215 6% 34%)" : "hsl(215 8% 81%)";
  const hue = hues.get(fn.file).toFixed(0);
  // Neighbours in one file differ a little.
  const shade = ((fn.at * 5) % 7) - 3;
  const strength = found.query ? 0.25 : 1;
  return night
    ? `hsl(${hue} ${34 * strength}% ${31 + shade}%)`
    : `hsl(${hue} ${56 * strength}% ${82 + shade}%)`;
}

// By how much slower or faster; or by how much of the time is the box's own.
function mixOwn(box, night) {
  if (box.line < 0) return mix(-1, false, night);
  const faint = found.query ? 0.3 : 1;
  if (!baseline) {
    const share = box.up ? 0 : box.self[widthAt()] / (whole() || 1);
    const heat = Math.min(1, Math.sqrt(share * 4));
    return night
      ? `hsl(${40 - 34 * heat} ${(12 + 58 * heat) * faint}% ${29 + 14 * heat}%)`
      : `hsl(${44 - 36 * heat} ${(20 + 70 * heat) * faint}% ${90 - 26 * heat}%)`;
  }
  const { now, before, by, error } = change(box);
  if (!before) return night ? `hsl(282 ${34 * faint}% 44%)` : `hsl(282 ${62 * faint}% 82%)`;
  if (!now) return night ? `hsl(172 ${34 * faint}% 32%)` : `hsl(172 ${38 * faint}% 74%)`;
  const certain = Math.abs(by) > error;
  const heat = certain ? Math.min(1, Math.abs(Math.log2(now / before))) : 0;
  if (heat < 0.02) return night ? "hsl(215 8% 33%)" : "hsl(215 14% 88%)";
  const hue = by > 0 ? 6 : 212;
  return night
    ? `hsl(${hue} ${(18 + 46 * heat) * faint}% ${32 + 9 * heat}%)`
    : `hsl(${hue} ${(46 + 40 * heat) * faint}% ${89 - 21 * heat}%)`;
}

// ---- Layout ----

// Rows of places from left to right, the topmost first: where each box is that is wide enough to be seen.
let rows = [];
let top = 0; // The row of the first tree's root.
let laidOut = {};
const forgetLayout = () => { laidOut = {}; };

function layout(width) {
  if (laidOut.zoomed === zoomed && laidOut.width === width && laidOut.flame === view.flame) return;
  laidOut = { zoomed, width, flame: view.flame };
  ({ rows, top } = place(width, NARROWEST));
  byId("spacer").style.height = rows.length * ROW + 8 + "px";
}

function place(width, narrowest) {
  const trees = roots.map((tree) => rowsOf(tree, width, narrowest));
  // Callers of a function above it, which is in both trees.
  const [down, up] = trees;
  const all = up ? [...up.slice(1).reverse(), ...down] : down;
  const first = up ? up.length - 1 : 0;
  if (!view.flame) return { rows: all, top: first };
  return { rows: all.reverse(), top: all.length - 1 - first };
}

function rowsOf(tree, width, narrowest) {
  const from = isIn(zoomed, tree) ? zoomed : tree;
  const found = [[{ box: from, x: 0, width }]];
  const scale = width / (widthOf(from) || 1);
  for (let row = found[0]; row.length; ) {
    const next = [];
    for (const { box, x } of row) {
      if (!box) continue;
      let left = x;
      const boxes = below(box);
      for (let i = 0; i < boxes.length; i++) {
        const wide = widthOf(boxes[i]) * scale;
        // Widest first: all the others are as narrow.
        if (wide < narrowest) {
          const rest = boxes.slice(i);
          const restWide = rest.reduce((sum, other) => sum + widthOf(other), 0) * scale;
          if (restWide >= narrowest) next.push({ box: null, of: box, rest: rest.length, x: left, width: restWide });
          break;
        }
        next.push({ box: boxes[i], x: left, width: wide });
        left += wide;
      }
    }
    if (next.length) found.push(next);
    row = next;
  }
  for (let box = from.above; box; box = box.above) found.unshift([{ box, x: 0, width }]);
  return found;
}

function isIn(box, tree) {
  while (box.above) box = box.above;
  return box === tree;
}

const isFaded = (box) => box.depth < zoomed.depth && isIn(box, rootOf(zoomed));
function rootOf(box) {
  while (box.above) box = box.above;
  return box;
}

// The row of a box: callers in a sandwich lie on the other side of the root.
function rowOf(box) {
  const isOther = roots.length > 1 && box.up;
  return top + box.depth * (isOther !== view.flame ? -1 : 1);
}

const placeNow = (box) => (rows[rowOf(box)] || []).find((place) => place.box === box);

// ---- Drawing ----

let scheduled = 0;
function draw() {
  if (!scheduled) scheduled = requestAnimationFrame(drawNow);
}

function drawNow() {
  cancelAnimationFrame(scheduled);
  scheduled = 0;
  const frame = byId("view");
  const width = frame.clientWidth;
  const isAtEnd = view.flame && (laidOut.flame !== view.flame || frame.scrollTop + frame.clientHeight >= frame.scrollHeight - 2);
  layout(width);
  // A flame graph is looked at from its root.
  if (isAtEnd) frame.scrollTop = frame.scrollHeight;
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
  for (const [y, row] of visible()) for (const place of row) paint(place, y);
  byId("reset").disabled = zoomed === root && !view.range;
}

// From where rows begin: few rows of a flame graph stand at the bottom.
const rowsTop = () => (view.flame ? Math.max(0, byId("view").clientHeight - rows.length * ROW - 8) : 0);

// The rows that are scrolled to, and where.
function visible() {
  const { scrollTop, clientHeight } = byId("view");
  const from = rowsTop() - scrollTop;
  const found = [];
  for (let at = Math.max(0, Math.floor(-from / ROW)); at < rows.length && from + at * ROW < clientHeight; at++) {
    found.push([from + at * ROW, rows[at]]);
  }
  return found;
}

function paint({ box, x, width }, y) {
  if (!box) {
    pen.globalAlpha = 1;
    pen.fillStyle = isDark() ? "hsl(215 6% 26%)" : "hsl(215 10% 91%)";
    pen.fillRect(x, y, width, ROW - 1);
    return;
  }
  const faded = isFaded(box);
  pen.globalAlpha = faded ? 0.55 : 1;
  pen.fillStyle = colour(box);
  pen.fillRect(x, y, width > 3 ? width - 1 : width, ROW - 1);
  const room = width - 9;
  if (room < 3 * charWidth) return;
  if (roots.length > 1 && box === root) {
    pen.fillStyle = isDark() ? "#eceff3" : "#1d2126";
    pen.fillRect(x, y, width, 2);
    pen.fillRect(x, y + ROW - 3, width, 2);
  }
  const { name, used, place } = labels(box, room);
  pen.fillStyle = isDark() ? "#eceff3" : "#1d2126";
  pen.fillText(name, x + 4, y + ROW / 2);
  if (!place) return;
  pen.globalAlpha = faded ? 0.35 : 0.6;
  pen.fillText(place, x + 4 + used, y + ROW / 2);
}

const measure = (text) => (/^[\x20-\x7e]*$/.test(text) ? text.length * charWidth : pen.measureText(text).width);

// What of a box's name and place there is room for.
function labels(box, room) {
  const name = fit(nameOf(box), room);
  const used = measure(name) + 2 * charWidth;
  const rest = box.line >= 0 ? placeOf(box, view.names) : amountText(view.metric, widthOf(box));
  const isWhole = !name.endsWith("…") && rest && rest.length * charWidth <= room - used && measure(rest) <= room - used;
  return { name, used, place: isWhole ? rest : "" };
}

// As much of a text as fits; the font is fixed-width, all but for what it lacks.
function fit(text, width) {
  const most = Math.floor(width / charWidth);
  if (text.length <= most && measure(text) <= width) return text;
  if (most < 3) return "";
  let cut = Array.from(text.slice(0, 2 * most)).slice(0, most - 1);
  while (cut.length && measure(cut.join("")) > width - charWidth) cut = cut.slice(0, -1);
  return cut.length ? cut.join("") + "…" : "";
}
