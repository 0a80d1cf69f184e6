// Boxes are groups of nodes, and are made when they are first drawn, so that large profiles open at once. Those of a
// tree of callees lead down the stacks; those of a tree of callers (`up`) lead from what runs to what has called it.

let roots = [];
let root;
let zoomed;

function makeBox(line, above, up) {
  return {
    line, above, up, depth: above ? above.depth + 1 : 0, amounts: new Float64Array(WIDE), self: new Float64Array(WIDE),
    nodes: [], parts: up ? [] : null, below: null, matches: null, matchedAt: -1,
  };
}

function addNode(box, node, from, at, seen) {
  for (let i = 0; i < WIDE; i++) box.amounts[i] += from[at + i];
  if (!box.up) {
    box.nodes.push(node);
    for (let i = 0; i < WIDE; i++) box.self[i] += own[node * WIDE + i];
    return;
  }
  // Towards the callers, ways from different callees meet at one node.
  const place = seen ? seen.get(node) : undefined;
  if (place === undefined) {
    if (seen) seen.set(node, box.nodes.length);
    box.nodes.push(node);
    for (let i = 0; i < WIDE; i++) box.parts.push(from[at + i]);
  } else {
    for (let i = 0; i < WIDE; i++) box.parts[place * WIDE + i] += from[at + i];
  }
}

// Of a tree of callers, the nodes that its root stands on: what runs, or the calls of a function.
function starts() {
  const found = [];
  for (let node = 1; node < nodes; node++) if (own[node * WIDE + SAMPLES] || (baseline && own[node * WIDE + BASE + SAMPLES])) found.push(node);
  return found;
}

// The outermost calls of a function.
function callsOf(fn) {
  const found = [];
  for (let node = 1; node < nodes; ) {
    const isCall = fnOf[node] === fn;
    if (isCall) found.push(node);
    node = isCall ? end[node] : node + 1;
  }
  return found;
}

const isSeen = (from, at) => from[at + SAMPLES] > 0 || (baseline !== undefined && from[at + BASE + SAMPLES] > 0);

// The boxes below one, widest first.
function below(box) {
  if (box.below) return box.below;
  const groups = new Map();
  // Each way begins at another node.
  const canMeet = box.up && box.line >= 0;
  const add = (node, from, at) => {
    const key = view.byLine ? lineOf[node] : fnOf[node];
    let group = groups.get(key);
    if (!group) groups.set(key, (group = { box: makeBox(lineOf[node], box, box.up), seen: canMeet ? new Map() : null }));
    addNode(group.box, node, from, at, group.seen);
  };
  if (!box.up) {
    for (const node of box.nodes) {
      for (let child = node + 1; child < end[node]; child = end[child]) {
        if (isSeen(total, child * WIDE)) add(child, total, child * WIDE);
      }
    }
  } else if (box.line < 0) {
    for (const node of starts()) add(node, own, node * WIDE);
  } else {
    box.nodes.forEach((node, i) => {
      if (parent[node]) add(parent[node], box.parts, i * WIDE);
    });
  }
  const width = widthAt();
  const byWidth = (a, b) => b.amounts[width] - a.amounts[width] || (nameOf(a) < nameOf(b) ? -1 : 1);
  return (box.below = [...groups.values()].map((group) => group.box).sort(byWidth));
}

const nameOf = (box) => (box.line < 0 ? "all" : lines[box.line].fn.name);
const widthOf = (box) => box.amounts[widthAt()];
// What the tree's boxes are shares of.
const whole = () => total[widthAt()];

// A box for each line, or each function; of a box by function, the place is where that begins.
function placeOf(box, names) {
  if (box.line < 0) return "";
  const { fn, line } = lines[box.line];
  return placeOfLine(fn, view.byLine && box !== root ? line : 0, names);
}

function treeOf(line, starting, up) {
  const top = makeBox(line, null, up);
  for (const node of starting) addNode(top, node, total, node * WIDE, null);
  return top;
}

// Makes the trees anew, and zooms to where it was, as far as that is still there.
function rebuild(path = zoomed ? pathOf(zoomed) : []) {
  const isSandwich = view.graph === "sandwich" && view.fn !== null;
  if (isSandwich) {
    const calls = callsOf(view.fn);
    const line = calls.length ? lineOf[calls[0]] : lines.findIndex(({ fn }) => fn.at === view.fn);
    roots = [treeOf(line, calls, false), treeOf(line, calls, true)];
  } else {
    roots = [treeOf(-1, [0], view.graph === "callers")];
  }
  root = roots[0];
  zoomed = boxAlong(path);
  forgetLayout();
}

// A box by the lines or functions on the way to it; the first tells the tree where there are two.
function pathOf(box) {
  const path = [];
  for (let at = box; at.above; at = at.above) path.unshift(view.byLine ? at.line : lines[at.line].fn.at);
  return roots.length > 1 ? [box.up ? 1 : 0, ...path] : path;
}

function boxAlong(path) {
  const rest = [...path];
  let box = roots.length > 1 ? roots[rest.shift() === 1 ? 1 : 0] : root;
  for (const step of rest) {
    const next = below(box).find(({ line }) => (view.byLine ? line : lines[line].fn.at) === step);
    if (!next) break;
    box = next;
  }
  return box.above ? box : root;
}

// How a box's amount has changed, and by how much it can be off by chance (two standard deviations).
function change(box) {
  const now = box.amounts[view.metric];
  const before = box.amounts[BASE + view.metric];
  const counts = [box.amounts[SAMPLES], box.amounts[BASE + SAMPLES] / baseScale()];
  const error = Math.hypot(counts[0] ? now / Math.sqrt(counts[0]) : 0, counts[1] ? before / Math.sqrt(counts[1]) : 0);
  return { now, before, by: now - before, error: 2 * error };
}

// What the nodes of a box weigh, with what they call and by themselves, by a key of each.
function sumsOf(box, keyOf) {
  const at = widthAt();
  const found = new Map();
  box.nodes.forEach((node, i) => {
    const key = keyOf(node);
    let sum = found.get(key);
    if (!sum) found.set(key, (sum = { node, whole: 0, self: 0 }));
    sum.whole += box.up ? box.parts[i * WIDE + at] : total[node * WIDE + at];
    if (!box.up) sum.self += own[node * WIDE + at];
  });
  return [...found.values()];
}

// The lines of a box by what they weigh.
function linesOf(box) {
  const found = sumsOf(box, (node) => lines[lineOf[node]].line).map((sum) => ({ ...sum, line: lines[lineOf[sum.node]].line }));
  return found.sort((a, b) => b.whole - a.whole || a.line - b.line);
}

// The opcodes of a box by what they weigh, each with the places of its instructions; nothing where none is known.
function opcodesOf(box) {
  if (!instructions || box.line < 0) return [];
  const found = new Map();
  for (const sum of sumsOf(box, (node) => instructionOf[node] * lines.length + lineOf[node])) {
    const instruction = instructions[instructionOf[sum.node]];
    if (!instruction) continue;
    let known = found.get(instruction.opcode);
    if (!known) found.set(instruction.opcode, (known = { ...instruction, whole: 0, self: 0, places: [] }));
    known.whole += sum.whole;
    known.self += sum.self;
    known.places.push({ ...sum, ...instruction, line: lines[lineOf[sum.node]].line });
  }
  const byWeight = (a, b) => b.whole - a.whole || a.line - b.line;
  for (const { places } of found.values()) places.sort(byWeight);
  return [...found.values()].sort((a, b) => b.whole - a.whole || (a.name < b.name ? -1 : 1));
}
