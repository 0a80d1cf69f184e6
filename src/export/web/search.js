// Search: which lines match, and what share of the samples has one on its stack.

let found = { query: "", regex: false, wrong: "", generation: 0, line: null, onPath: null, amount: 0 };

function search(text, regex) {
  const query = text.trim();
  found = { query, regex, wrong: "", generation: found.generation + 1, line: null, onPath: null, amount: 0 };
  const test = query && tester(query, regex);
  if (test) {
    // What a function's name and file say is the same for all its lines.
    const known = functions.map((fn) => test.fn(fn));
    found.line = lines.map(({ fn, line }) => known[fn.at] || test.line(fn, line));
    found.onPath = new Uint8Array(nodes);
    const at = widthAt();
    for (let node = 1; node < nodes; node++) {
      found.onPath[node] = found.onPath[parent[node]] || found.line[lineOf[node]] ? 1 : 0;
      if (found.onPath[node]) found.amount += own[node * WIDE + at];
    }
  }
  forgetColours();
}

function tester(query, regex) {
  if (regex) {
    try {
      const pattern = new RegExp(query, "iu");
      return {
        fn: ({ name, file }) => pattern.test(name) || pattern.test(file),
        line: ({ base }, line) => pattern.test(`${base}:${line}`),
      };
    } catch (error) {
      found.wrong = String(error.message).replace(/^.*\/: /, "");
      return null;
    }
  }
  const wanted = query.toLowerCase();
  // Folders, many of which are in all paths, have to be asked for.
  const isPath = wanted.includes("/");
  const place = /^(.*):(\d+)$/.exec(wanted);
  return {
    fn: (fn) => fn.name.toLowerCase().includes(wanted)
      || (isPath ? fn.file : fn.base).toLowerCase().includes(wanted) || moduleOf(fn).toLowerCase().includes(wanted),
    line: ({ file }, line) => place !== null && Number(place[2]) === line && file.toLowerCase().endsWith(place[1]),
  };
}

function matches(box) {
  if (!found.line || box.line < 0) return false;
  if (box.matchedAt !== found.generation) {
    box.matchedAt = found.generation;
    box.matches = box.nodes.some((node) => found.line[lineOf[node]]);
  }
  return box.matches;
}
