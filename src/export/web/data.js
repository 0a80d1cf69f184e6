// The profile: a tree of lines of code, node 0 above all roots, in the order in which one walks down it; and what
// was sampled at its nodes, when, by whom, and in which state.
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
function inflated(text) {
  const packed = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw")));
}
// Columns of numbers, which the data refers to by place and length.
const columns = new Uint8Array(await inflated(data.columns).arrayBuffer());
const { meta, baseline, strings, processes, threads } = data;

class Numbers {
  constructor([at, length]) {
    this.bytes = columns.subarray(at, at + length);
    this.at = 0;
  }

  get isDone() {
    return this.at >= this.bytes.length;
  }

  next() {
    let byte = this.bytes[this.at++];
    if (byte < 128) return byte;
    let number = byte & 127;
    for (let scale = 128; byte >= 128; scale *= 128) {
      byte = this.bytes[this.at++];
      number += (byte & 127) * scale;
    }
    return number;
  }

  signed() {
    return unzigzag(this.next());
  }

  // Rows of so many numbers.
  rows(width) {
    const all = [];
    while (!this.isDone) all.push(this.next());
    return { count: all.length / width, all: Float64Array.from(all) };
  }
}

const unzigzag = (number) => (number % 2 ? -(number + 1) / 2 : number / 2);

// ---- Functions and lines ----

const functions = (() => {
  const { count, all } = new Numbers(data.functions).rows(3);
  return Array.from({ length: count }, (_, at) => {
    const file = strings[all[3 * at]];
    return {
      at, file, fileAt: all[3 * at], name: strings[all[3 * at + 1]], first: all[3 * at + 2],
      base: file.slice(file.lastIndexOf("/") + 1),
      isTask: file === "<task>",
      // Frames that stand for what is no Python function.
      isMade: file === "~" || file === "<task>",
    };
  });
})();
const lines = (() => {
  const { count, all } = new Numbers(data.lines).rows(2);
  return Array.from({ length: count }, (_, at) => ({ fn: functions[all[2 * at]], line: all[2 * at + 1] }));
})();

// ---- The tree ----

// Where instructions were recorded, each line is as many nodes as it was seen at instructions.
const instructions = data.instructions && (() => {
  const { count, all } = new Numbers(data.instructions).rows(4);
  return Array.from({ length: count }, (_, at) => {
    const [name, base, isSpecialised] = data.opcodes[all[4 * at]];
    return {
      name, base, isSpecialised, opcode: all[4 * at],
      endLine: all[4 * at + 1], column: all[4 * at + 2], endColumn: all[4 * at + 3],
    };
  });
})();

// Of each node: its caller, the first node that is not below it, its line, and its instruction.
const { nodes, parent, end, lineOf, fnOf, instructionOf } = (() => {
  const width = instructions ? 3 : 2;
  const { count, all } = new Numbers(data.nodes).rows(width);
  const nodes = count + 1;
  const parent = new Int32Array(nodes);
  const end = new Int32Array(nodes).fill(nodes);
  const lineOf = new Int32Array(nodes).fill(-1);
  const fnOf = new Int32Array(nodes).fill(-1);
  const instructionOf = instructions ? new Int32Array(nodes).fill(-1) : null;
  let above = 0;
  for (let node = 1; node < nodes; node++) {
    const row = width * (node - 1);
    for (let up = all[row]; up > 0; up--) {
      end[above] = node;
      above = parent[above];
    }
    parent[node] = above;
    lineOf[node] = all[row + 1];
    if (instructions) instructionOf[node] = all[row + 2] - 1;
    fnOf[node] = lines[lineOf[node]].fn.at;
    above = node;
  }
  return { nodes, parent, end, lineOf, fnOf, instructionOf };
})();

// ---- What was sampled ----

const STATES = [
  { key: "cpu", bit: 1, name: "on CPU", title: "Running on a processor" },
  { key: "gil", bit: 2, name: "has GIL", title: "Holding the interpreter's lock" },
  { key: "wait", bit: 4, name: "waits for GIL", title: "Waiting for the interpreter's lock" },
  { key: "gc", bit: 8, name: "in GC", title: "Collecting garbage" },
  { key: "gc0", bit: 64, mask: 192, name: "GC generation 0", title: "Collecting the youngest objects" },
  { key: "gc1", bit: 128, mask: 192, name: "GC generation 1", title: "Collecting the objects of two generations" },
  { key: "gc2", bit: 192, mask: 192, name: "GC generation 2", title: "Collecting all objects" },
  { key: "exc", bit: 16, name: "exception", title: "Handling an exception" },
  { key: "native", bit: 32, name: "native", title: "In code that is not Python's" },
];

const hasState = (state, { bit, mask = bit }) => (state & mask) === bit;

const tracks = (() => {
  const { count, all } = new Numbers(data.tracks).rows(2);
  return Array.from({ length: count }, (_, at) => ({
    thread: all[2 * at],
    state: all[2 * at + 1],
    process: threads[all[2 * at]][0],
    isBase: baseline !== undefined && all[2 * at] >= data.baselineThread,
  }));
})();

const [bucketNs, buckets] = data.buckets;
const hasTimes = bucketNs !== null && buckets > 1;

// Of each row: its first bucket, how many more it goes on for, its track and node, and three amounts. Behind those
// that are exact come those of rare stacks, which are somewhere in their buckets.
const WALL = 0;
const CPU = 1;
const SAMPLES = 2;
function readRows(tables) {
  const bucket = [], more = [], track = [], node = [], amounts = [];
  const ends = tables.map(([unitUs, usual, columns]) => {
    const unitNs = unitUs * 1e3;
    const [heads, mores, tracks, nodes, counts, walls, cpus] = columns.map((column) => new Numbers(column));
    let [atBucket, atTrack, atNode] = [0, 0, 0];
    while (!heads.isDone) {
      const head = heads.next();
      atBucket += Math.floor(head / 2);
      bucket.push(atBucket);
      more.push(head % 2 ? mores.next() : 0);
      track.push((atTrack += tracks.signed()));
      node.push((atNode += nodes.signed()));
      const samples = counts.next();
      const wall = samples * usual + walls.signed();
      const cpu = cpus.next();
      amounts.push(wall * unitNs, cpu ? (wall - unzigzag(cpu - 1)) * unitNs : 0, samples);
    }
    return bucket.length;
  });
  return {
    count: bucket.length, exact: ends[0],
    bucket: Uint16Array.from(bucket), more: Uint16Array.from(more),
    track: Int32Array.from(track), node: Int32Array.from(node), amounts: Float64Array.from(amounts),
  };
}
const entries = readRows(data.entries[0]);
// All nodes of a track as one, and all tracks of a process and state, where that tells more of time.
const ofTracks = data.entries[1] ? readRows(data.entries[1]) : entries;
const ofProcesses = data.entries[2] ? readRows(data.entries[2]) : ofTracks;

// ---- Source ----

// Of each file's string: its lines by number, and whether it has changed since.
const sources = new Map((data.sources ? await inflated(data.sources).json() : []).map(([file, [isNewer, numbered]]) =>
  [file, { isNewer, lines: new Map(numbered) }]));

// ---- Modules ----

// Where files are imported from: the standard library, installed packages, and else the folder that all the
// others are in.
const LIBRARY = /^.*\/(?:site-packages|dist-packages|lib(?:64)?\/python[\d.]+t?|lib-dynload)\//;
const ownFolder = (() => {
  const folders = [...new Set(functions.map((fn) => fn.file))]
    .filter((file) => file.includes("/") && !LIBRARY.test(file))
    .map((file) => file.slice(0, file.lastIndexOf("/") + 1));
  let common = folders[0] || "";
  for (const folder of folders) {
    while (!folder.startsWith(common)) common = common.slice(0, common.lastIndexOf("/", common.length - 2) + 1);
  }
  return common;
})();

function moduleOf(fn) {
  if (fn.module === undefined) {
    const inside = fn.file.replace(LIBRARY, "");
    const short = inside.startsWith(ownFolder) ? inside.slice(ownFolder.length) : inside;
    const frozen = /^<frozen (.*)>$/.exec(short);
    fn.module = frozen ? frozen[1]
      : /\.pyw?$/.test(short) ? short.replace(/(\/__init__)?\.pyw?$/, "").replace(/^\//, "").replace(/\//g, ".")
      : short;
  }
  return fn.module;
}

const isOwn = (fn) => !fn.isMade && !LIBRARY.test(fn.file) && !fn.file.startsWith("<");
