// The strip of time: how much went on when. A range of it can be selected, which everything else then follows.

const strip = byId("strip");
const STRIP = 40;
const SCALE = 15; // Below it, the times.
const KINDS = [
  { name: "on CPU", key: "on-cpu", bit: 1 },
  { name: "waits for GIL", key: "contends", bit: 4 },
  { name: "waits", key: "waits", bit: 0 },
];

let going = null;

// Of each kind and of what is found: the amount in each bucket.
function weighStrip() {
  going = KINDS.map(() => new Float64Array(buckets));
  going.found = new Float64Array(buckets);
  const add = (sums, { bucket, more, amounts }, at) => {
    const amount = amounts[3 * at + view.metric] / (more[at] + 1);
    for (let i = bucket[at]; i <= bucket[at] + more[at]; i++) sums[i] += amount;
  };
  const kindOf = tracks.map(({ state }) => KINDS.findIndex((kind) => hasState(state, kind)));
  // Tasks are nodes.
  const rows = view.task !== null ? entries : view.thread !== null ? ofTracks : ofProcesses;
  eachRow(rows, (at) => add(going[kindOf[rows.track[at]]], rows, at));
  if (!found.onPath) return;
  eachRow(entries, (at) => { if (found.onPath[entries.node[at]]) add(going.found, entries, at); });
  // Of some entries it is not known when they were.
  going.found = going.found.map((amount, bucket) => Math.min(amount, goingIn(bucket)));
}

// What is in a bucket, of all kinds.
const goingIn = (bucket) => going.reduce((sum, amounts) => sum + amounts[bucket], 0);

const timeOf = (bucket) => Math.min(bucket * bucketNs, Math.max(meta.durationNs, (buckets - 1) * bucketNs));

function drawStrip() {
  if (!hasTimes || !going) return;
  const width = strip.parentElement.clientWidth;
  const scale = window.devicePixelRatio || 1;
  strip.style.width = width + "px";
  strip.style.height = STRIP + SCALE + "px";
  strip.width = Math.round(width * scale);
  strip.height = Math.round((STRIP + SCALE) * scale);
  const brush = strip.getContext("2d");
  brush.setTransform(scale, 0, 0, scale, 0, 0);
  const most = Math.max(1, ...going[0].map((_, bucket) => goingIn(bucket)));
  const step = width / buckets;
  const night = isDark();
  const style = getComputedStyle(document.documentElement);
  const inks = KINDS.map(({ key }) => style.getPropertyValue("--" + key));
  for (let bucket = 0; bucket < buckets; bucket++) {
    let y = STRIP;
    const bar = (amount, colour) => {
      const tall = (amount / most) * (STRIP - 3);
      const x = Math.round(bucket * step);
      brush.fillStyle = colour;
      brush.fillRect(x, y - tall, Math.max(1, Math.round((bucket + 1) * step) - x), tall);
      return tall;
    };
    KINDS.forEach((_, at) => { y -= bar(going[at][bucket], inks[at]); });
    y = STRIP;
    if (found.onPath) bar(going.found[bucket], mix(0, true, night));
  }
  drawTimes(brush, width);
  markRange();
}

// Round times, some hundred pixels apart.
function drawTimes(brush, width) {
  const all = buckets * bucketNs;
  const least = (all * 90) / width;
  const power = 10 ** Math.floor(Math.log10(least));
  const every = power * [1, 2, 5, 10].find((factor) => factor * power >= least);
  brush.fillStyle = getComputedStyle(strip).color;
  brush.font = "11px system-ui, sans-serif";
  brush.textBaseline = "bottom";
  for (let at = 0; at < all; at += every) {
    const x = Math.round((at / all) * width);
    brush.fillRect(x, STRIP, 1, 4);
    const text = at ? duration(at).replace(/\.0+(?= )/, "") : "0";
    if (x + 4 + brush.measureText(text).width < width) brush.fillText(text, x + 4, STRIP + SCALE);
  }
}

function markRange() {
  const mark = byId("range");
  const text = byId("times");
  mark.hidden = !view.range;
  byId("all-times").hidden = !view.range;
  const [from, to] = view.range || [0, buckets];
  const start = timeOf(from);
  const stop = timeOf(to);
  text.textContent = view.range ? `${duration(start)} to ${duration(stop)}, ${duration(stop - start)}` : `${duration(stop)}`;
  if (view.range) {
    mark.style.left = (100 * from) / buckets + "%";
    mark.style.width = (100 * (to - from)) / buckets + "%";
  }
  strip.setAttribute("aria-valuetext", text.textContent);
}

function selectRange(range) {
  if (range) {
    const from = Math.max(0, Math.min(range[0], buckets - 1));
    const to = Math.max(from + 1, Math.min(range[1], buckets));
    range = from === 0 && to === buckets ? null : [from, to];
  }
  view.range = range;
  markRange();
  later(() => reweigh({ keepsStrip: true }));
}

// Dragging asks for more than can be drawn; only the last counts.
let awaited = null;
function later(work) {
  if (!awaited) requestAnimationFrame(() => { const work = awaited; awaited = null; work(); });
  awaited = work;
}

function watchStrip() {
  if (!hasTimes) return;
  const isThere = (bit) => tracks.some(({ state }) => (bit ? state & bit : !(state & 5)));
  byId("kinds").append(...KINDS.filter(({ bit }) => isThere(bit)).map(({ name, key }) =>
    make("span", {}, make("i", { className: key }), name)));
  let dragged = null;
  const bucketAt = (event) => {
    const { left, width } = strip.getBoundingClientRect();
    return Math.max(0, Math.min(buckets, ((event.clientX - left) / width) * buckets));
  };
  strip.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const at = bucketAt(event);
    const near = (6 / strip.clientWidth) * buckets;
    const [from, to] = view.range || [-1, -1];
    // An edge is moved, the range is shifted with Shift, or a new one begins.
    if (view.range && event.shiftKey) dragged = { shift: at, range: view.range };
    else if (view.range && Math.abs(at - from) < near) dragged = { fixed: to };
    else if (view.range && Math.abs(at - to) < near) dragged = { fixed: from };
    else dragged = { fixed: at, isNew: true };
    strip.setPointerCapture(event.pointerId);
  });
  strip.addEventListener("pointermove", (event) => {
    const at = bucketAt(event);
    showTimeTip(event, Math.min(buckets - 1, Math.floor(at)));
    if (!dragged) return;
    dragged.hasMoved = true;
    if (dragged.range) {
      const by = Math.round(at - dragged.shift);
      const length = dragged.range[1] - dragged.range[0];
      const from = Math.max(0, Math.min(dragged.range[0] + by, buckets - length));
      selectRange([from, from + length]);
      return;
    }
    const [from, to] = [Math.min(at, dragged.fixed), Math.max(at, dragged.fixed)];
    selectRange([Math.floor(from), Math.ceil(to)]);
  });
  const stop = () => {
    if (!dragged) return;
    // A click where nothing is dragged shows all again.
    if (!dragged.hasMoved && dragged.isNew) selectRange(null);
    dragged = null;
    remember(false);
  };
  strip.addEventListener("pointerup", stop);
  strip.addEventListener("pointercancel", stop);
  strip.addEventListener("pointerleave", hideTip);
  strip.addEventListener("keydown", (event) => {
    const step = Math.max(1, Math.round(buckets / 50));
    const [from, to] = view.range || [0, buckets];
    const moves = {
      ArrowLeft: () => (event.shiftKey ? [from, to - step] : [from - step, from - step + (to - from)]),
      ArrowRight: () => (event.shiftKey ? [from, to + step] : [from + step, from + step + (to - from)]),
      Home: () => [0, to - from],
      End: () => [buckets - (to - from), buckets],
      Enter: () => (view.range ? null : [0, Math.ceil(buckets / 4)]),
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const range = moves[event.key]();
    const length = to - from;
    if (range && !event.shiftKey && view.range) {
      range[0] = Math.max(0, Math.min(range[0], buckets - length));
      range[1] = range[0] + length;
    }
    selectRange(range);
    remember(false);
  });
  byId("all-times").addEventListener("click", () => { selectRange(null); remember(false); });
}

function showTimeTip(event, bucket) {
  const all = goingIn(bucket);
  const parts = KINDS.map(({ name }, kind) => ["span", "", `${name}: ${percent(going[kind][bucket], all)}`]);
  if (found.onPath) parts.push(["span", "", `matched: ${percent(going.found[bucket], all)}`]);
  const title = `${duration(bucket * bucketNs)} to ${duration((bucket + 1) * bucketNs)}`;
  showTip([["b", "", title], ["span", "numbers", amountText(view.metric, all)], ...parts], event.clientX, event.clientY);
}
