// Numbers and places as people read them.

const percent = (part, whole) =>
  (whole ? (100 * part) / whole : 0).toFixed(part && Math.abs(part) < whole / 100 ? 2 : 1) + "%";
const number = (value) => Math.round(value).toLocaleString("en-US");
const plural = (count, what) => `${number(count)} ${what}${Math.round(count) === 1 ? "" : "s"}`;

function duration(ns) {
  if (ns < 0) return "−" + duration(-ns);
  if (ns >= 3600e9) return `${Math.floor(ns / 3600e9)} h ${Math.floor((ns % 3600e9) / 60e9)} min`;
  if (ns >= 60e9) return `${Math.floor(ns / 60e9)} min ${((ns % 60e9) / 1e9).toFixed(0)} s`;
  for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
    if (ns >= size) {
      const value = ns / size;
      return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${unit}`;
    }
  }
  return ns > 0 ? `${ns.toFixed(0)} ns` : "0 s";
}

// Text that is shown in full nowhere but in the file.
const LONGEST = 600;
const cut = (text, most = LONGEST) => (text.length > most ? text.slice(0, most) + "…" : text);

// "module" shows modules, "path" whole paths.
function placeOfLine(fn, line, names) {
  if (fn.isMade) return fn.isTask ? "task" : "";
  const file = names === "path" ? fn.file : names === "file" ? fn.base : moduleOf(fn);
  return cut(file) + (line ? ":" + line : "");
}

const METRICS = [
  { key: "wall", name: { cpu: "CPU time", gil: "time with the GIL" }[meta.mode] || "wall time", at: WALL },
  { key: "cpu", name: "CPU time", at: CPU },
  { key: "samples", name: "samples", at: SAMPLES },
];
const amountText = (metric, amount) => (metric === SAMPLES ? plural(amount, "sample") : duration(amount));

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "style") Object.assign(element.style, value);
    else if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

function threadTitle(at) {
  const [process, tid, name, isMain, interpreter] = threads[at];
  const place = interpreter ? `, interpreter ${interpreter}` : "";
  return `${cut(name, 60) || (isMain ? "main" : "unnamed")} · ${tid}${place}`;
}
