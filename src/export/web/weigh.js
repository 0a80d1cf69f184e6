// What the filters let through, added up: for each node itself and for all below it. Of two profiles, the
// baseline's amounts stand behind the others.

const view = {
  graph: "callees", // callees, callers, sandwich
  flame: false, // the root at the bottom
  byLine: false,
  names: "module", // module, path
  metric: WALL,
  colour: "file", // file, self
  compare: "change", // change, new, elided
  scaled: true, // the baseline as if it had run for as long
  process: null,
  thread: null,
  task: null,
  states: new Map(), // key: wanted or not
  range: null, // [first, behind the last] bucket
  fn: null, // of the sandwich
};

const WIDE = baseline ? 6 : 3;
const BASE = 3;
const own = new Float64Array(nodes * WIDE);
const total = new Float64Array(nodes * WIDE);
const durations = baseline && [meta.durationNs || 1, baseline.durationNs || 1];

// How much of the baseline's amounts to count.
function baseScale() {
  return baseline && view.scaled ? durations[0] / durations[1] : 1;
}

// Which amount is the width of boxes.
const widthAt = () => view.metric + (view.compare === "elided" ? BASE : 0);

function allowedTracks() {
  return tracks.map((track) => {
    if (view.process !== null && track.process !== view.process) return false;
    if (view.thread !== null && track.thread !== view.thread) return false;
    for (const [key, wanted] of view.states) {
      if (hasState(track.state, STATES.find((state) => state.key === key)) !== wanted) return false;
    }
    return true;
  });
}

// Nodes below which a task works; null for all.
function inTask() {
  if (view.task === null) return null;
  const inside = new Uint8Array(nodes);
  for (let node = 1; node < nodes; node++) {
    inside[node] = inside[parent[node]] || (functions[fnOf[node]].isTask && functions[fnOf[node]].name === view.task) ? 1 : 0;
  }
  return inside;
}

// How much of a row is in a range of buckets.
function shareIn({ bucket, more }, at, range) {
  const length = more[at] + 1;
  const overlap = Math.min(range[1], bucket[at] + length) - Math.max(range[0], bucket[at]);
  return overlap <= 0 ? 0 : overlap / length;
}

// Calls back with the rows that the filters let through, but for the range.
function eachRow(rows, call) {
  const allowed = allowedTracks();
  const inside = inTask();
  for (let at = 0; at < rows.count; at++) {
    if (allowed[rows.track[at]] && (!inside || inside[rows.node[at]])) call(at);
  }
}

// What a track has in a range, but for its exact entries, is that of its others: by how much each of their amounts
// is to be multiplied. The last are kept.
let corrected = null;
function correctionsIn(range) {
  if (corrected && corrected.range === range) return corrected.by;
  const rest = new Float64Array(3 * tracks.length);
  const spread = new Float64Array(3 * tracks.length);
  const add = (to, rows, from, behind, sign) => {
    for (let at = from; at < behind; at++) {
      const share = sign * shareIn(rows, at, range);
      if (share) for (let i = 0; i < 3; i++) to[3 * rows.track[at] + i] += share * rows.amounts[3 * at + i];
    }
  };
  add(rest, ofTracks, 0, ofTracks.count, 1);
  add(rest, entries, 0, entries.exact, -1);
  add(spread, entries, entries.exact, entries.count, 1);
  // Sums are not quite exact.
  const by = rest.map((amount, at) => (spread[at] && amount > 1e-3 ? amount / spread[at] : 0));
  corrected = { range, by };
  return by;
}

// How much of an amount of an entry is in the range that is selected.
function partsInRange() {
  const { range } = view;
  if (!range) return () => 1;
  if (entries.exact === entries.count) return (at) => shareIn(entries, at, range);
  const corrections = correctionsIn(range);
  return (at, i) => shareIn(entries, at, range) * (at < entries.exact ? 1 : corrections[3 * entries.track[at] + i]);
}

function weigh() {
  own.fill(0);
  const scale = baseScale();
  const { node, amounts } = entries;
  const part = partsInRange();
  eachRow(entries, (at) => {
    const { isBase } = tracks[entries.track[at]];
    const to = node[at] * WIDE + (isBase ? BASE : 0);
    for (let i = 0; i < 3; i++) own[to + i] += part(at, i) * (isBase ? scale : 1) * amounts[3 * at + i];
  });
  addUp();
  if (!baseline || view.compare === "change") return;
  // Only paths that the other profile lacks.
  const [kept, lacking] = view.compare === "new" ? [0, BASE] : [BASE, 0];
  for (let cell = 0; cell < own.length; cell += WIDE) {
    const isOnly = !total[cell + lacking + SAMPLES];
    for (let i = 0; i < 3; i++) {
      own[cell + lacking + i] = 0;
      if (!isOnly) own[cell + kept + i] = 0;
    }
  }
  addUp();
}

function addUp() {
  total.set(own);
  for (let node = nodes - 1; node > 0; node--) {
    const from = node * WIDE;
    const to = parent[node] * WIDE;
    for (let i = 0; i < WIDE; i++) total[to + i] += total[from + i];
  }
}

// Self and total of every function; in recursion the outermost call counts.
function functionTotals(at = widthAt()) {
  const self = new Float64Array(functions.length);
  const whole = new Float64Array(functions.length);
  const open = new Int32Array(functions.length);
  const stack = [];
  for (let node = 1; node < nodes; node++) {
    while (stack.length && end[stack[stack.length - 1]] <= node) open[fnOf[stack.pop()]]--;
    const fn = fnOf[node];
    self[fn] += own[node * WIDE + at];
    if (!open[fn]++) whole[fn] += total[node * WIDE + at];
    stack.push(node);
  }
  return { self, whole };
}

// How time was spent, by state.
function stateTotals() {
  const sums = { all: 0 };
  for (const { key } of STATES) sums[key] = 0;
  const part = partsInRange();
  eachRow(entries, (at) => {
    const track = tracks[entries.track[at]];
    if (track.isBase) return;
    const amount = part(at, view.metric) * entries.amounts[3 * at + view.metric];
    sums.all += amount;
    for (const state of STATES) if (hasState(track.state, state)) sums[state.key] += amount;
  });
  return sums;
}
