// The graph as an SVG image: to be kept as a file, and for paper. It is built of elements, so that names stay text.

const SVG = "http://www.w3.org/2000/svg";

// Of what is zoomed to, in so many pixels; every box of a pixel or more.
function image(width, night) {
  const { rows: all } = place(width - 20, 1);
  const [header, foot] = [46, 14];
  const tall = header + all.length * ROW + foot;
  const element = (tag, attributes, text) => {
    const made = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const svg = element("svg", { width, height: tall, viewBox: `0 0 ${width} ${tall}`, "font-family": "ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace", "font-size": FONT });
  const ink = night ? "#eceff3" : "#1d2126";
  svg.append(element("rect", { width: "100%", height: "100%", fill: night ? "#17191d" : "#ffffff" }));
  svg.append(element("text", { x: 10, y: 20, fill: ink, "font-size": 15, "font-weight": 600 }, fit(meta.program || "Profile", width - 20)));
  svg.append(element("text", { x: 10, y: 37, fill: ink, "fill-opacity": 0.65 }, fit(stateInWords(), width - 20)));
  all.forEach((row, at) => {
    for (const { box, x, width: wide } of row) {
      if (!box) continue;
      const y = header + at * ROW;
      const group = element("g", isFaded(box) ? { opacity: 0.55 } : {});
      group.append(element("title", {}, describe(box).map(([, , text]) => text).join("\n")));
      group.append(element("rect", { x: (10 + x).toFixed(2), y, width: Math.max(wide > 3 ? wide - 1 : wide, 0.5).toFixed(2), height: ROW - 1, rx: 1, fill: colour(box, night) }));
      if (wide - 9 >= 3 * charWidth) {
        const { name, used, place } = labels(box, wide - 9);
        group.append(element("text", { x: (14 + x).toFixed(2), y: y + 14, fill: ink }, name));
        if (place) group.append(element("text", { x: (14 + x + used).toFixed(2), y: y + 14, fill: ink, "fill-opacity": 0.6 }, place));
      }
      svg.append(group);
    }
  });
  return svg;
}

// What is shown, in one line.
function stateInWords() {
  const words = [{ callees: "callees", callers: "callers", sandwich: "callers and callees" }[view.graph]];
  words.push(METRICS.find(({ at }) => at === view.metric).name, amountText(view.metric, whole()));
  if (view.process !== null) words.push(`process ${processes[view.process][0]}`);
  if (view.thread !== null) words.push(threadTitle(view.thread));
  if (view.task !== null) words.push(`task ${cut(view.task, 60)}`);
  for (const [key, wanted] of view.states) words.push((wanted ? "" : "not ") + STATES.find((state) => state.key === key).name);
  if (view.range) words.push(`${duration(timeOf(view.range[0]))} to ${duration(timeOf(view.range[1]))}`);
  if (found.query && !found.wrong) words.push(`"${cut(found.query, 60)}": ${percent(found.amount, whole())}`);
  if (baseline) words.push({ change: "by change", new: "new paths", elided: "elided paths" }[view.compare]);
  return words.join(" · ");
}

function saveImage() {
  const text = new XMLSerializer().serializeToString(image(1400, isDark()));
  const address = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  const name = (meta.program || "profile").replace(/[^\w.-]+/g, "_").slice(0, 60);
  const link = make("a", { href: address, download: `${name}_${meta.pid}.svg` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10e3);
}

function watchPrinting() {
  addEventListener("beforeprint", () => {
    const svg = image(1000, false);
    svg.removeAttribute("width");
    svg.removeAttribute("height");
    byId("paper").replaceChildren(svg);
  });
  addEventListener("afterprint", () => byId("paper").replaceChildren());
}
