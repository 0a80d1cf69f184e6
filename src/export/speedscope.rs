//! The file of the viewer speedscope: for each thread its samples in order of time, and what they weigh.
//!
//! A frame is a function at a line. Equal samples one after the other are one. The threads' samples come
//! mixed, and the file wants them apart: those of as many threads as fit into a buffer of fixed size are
//! collected at once, and a thread that alone does not fit is written as its samples come.

use super::aggregate::{Tree, by_place};
use super::{json_text, thread_title};
use crate::profile::Profile;
use std::io::{self, BufWriter, Write};

/// How many runs of equal samples are collected at most.
const MOST_RUNS: usize = 1 << 21;

/// Writes the file.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    write_collecting(MOST_RUNS, profile, out)
}

fn write_collecting(most_runs: usize, profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let places = by_place(profile);
    let tree = Tree::new(profile, &places.of_frame);
    write!(out, "{{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\",")?;
    write!(out, concat!("\"exporter\":\"pysamp@", env!("CARGO_PKG_VERSION"), "\","))?;
    write!(out, "\"name\":{},\"shared\":{{\"frames\":[", json_text(&profile.meta.program))?;
    for (index, &(function, line)) in places.keys.iter().enumerate() {
        let function = &profile.functions[function.0 as usize];
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\n{{\"name\":{}", json_text(&function.name))?;
        if &*function.file != "~" {
            write!(out, ",\"file\":{}", json_text(&function.file))?;
        }
        if line > 0 {
            write!(out, ",\"line\":{line}")?;
        }
        write!(out, "}}")?;
    }
    write!(out, "\n]}},\"profiles\":[")?;

    let mut totals = vec![Total::default(); profile.threads.len()];
    each_run(profile, &tree, &mut |thread, run| {
        totals[thread].add(run);
        Ok(())
    })?;
    let mut file = File { out, profile, tree: &tree, is_first: true };
    let mut next = 0;
    while next < totals.len() {
        let mut sum = 0;
        let fit = totals[next..].iter().take_while(|total| {
            sum += total.runs;
            sum <= most_runs
        });
        let end = next + fit.count();
        if end == next {
            let thread = next;
            file.thread(thread, &totals[thread], &|found| {
                each_run(profile, &tree, &mut |other, run| {
                    if other == thread { found(run) } else { Ok(()) }
                })
            })?;
            next += 1;
            continue;
        }
        let capacities = totals[next..end].iter().map(|total| total.runs);
        let mut runs: Vec<Vec<Run>> = capacities.map(Vec::with_capacity).collect();
        each_run(profile, &tree, &mut |thread, run| {
            if (next..end).contains(&thread) {
                runs[thread - next].push(run);
            }
            Ok(())
        })?;
        for (thread, runs) in (next..end).zip(runs) {
            file.thread(thread, &totals[thread], &|found| {
                runs.iter().copied().try_for_each(found)
            })?;
        }
        next = end;
    }
    write!(file.out, "\n]}}\n")?;
    file.out.flush()
}

/// Equal samples of a thread, one after the other.
#[derive(Clone, Copy)]
struct Run {
    node: u32,
    weight_ns: u64,
    /// When the first of them began.
    start_ns: u64,
}

/// All runs of a thread.
#[derive(Clone, Default)]
struct Total {
    runs: usize,
    weight_ns: u64,
    start_ns: u64,
}

impl Total {
    fn add(&mut self, run: Run) {
        if self.runs == 0 {
            self.start_ns = run.start_ns;
        }
        self.runs += 1;
        self.weight_ns = self.weight_ns.saturating_add(run.weight_ns);
    }
}

/// What takes a run.
type Found<'a> = &'a mut dyn FnMut(Run) -> io::Result<()>;

/// Finds each run, in order of time for each thread.
fn each_run(
    profile: &Profile,
    tree: &Tree,
    found: &mut dyn FnMut(usize, Run) -> io::Result<()>,
) -> io::Result<()> {
    let mut open: Vec<Option<Run>> = vec![None; profile.threads.len()];
    for moment in profile.moments() {
        let sample = &profile.samples[moment.sample];
        let (thread, node) = (sample.thread.0 as usize, tree.of_stack[sample.stack.0 as usize]);
        let weight_ns = moment.weight_ns;
        match &mut open[thread] {
            Some(run) if run.node == node => {
                run.weight_ns = run.weight_ns.saturating_add(weight_ns);
            }
            other => {
                let start_ns = moment.at_ns.saturating_sub(weight_ns);
                if let Some(ended) = other.replace(Run { node, weight_ns, start_ns }) {
                    found(thread, ended)?;
                }
            }
        }
    }
    let last = open.into_iter().enumerate();
    last.filter_map(|(thread, run)| Some((thread, run?)))
        .try_for_each(|(thread, run)| found(thread, run))
}

struct File<'a, W: Write> {
    out: W,
    profile: &'a Profile,
    tree: &'a Tree,
    is_first: bool,
}

impl<W: Write> File<'_, W> {
    /// Writes a thread. `each` can be asked for its runs again and again.
    fn thread(
        &mut self,
        thread: usize,
        total: &Total,
        each: &dyn Fn(Found) -> io::Result<()>,
    ) -> io::Result<()> {
        if total.runs == 0 {
            return Ok(());
        }
        let comma = if std::mem::take(&mut self.is_first) { "" } else { "," };
        let name = json_text(&thread_title(self.profile, &self.profile.threads[thread]));
        let end_ns = total.start_ns.saturating_add(total.weight_ns);
        let out = &mut self.out;
        write!(out, "{comma}\n{{\"type\":\"sampled\",\"name\":{name},\"unit\":\"nanoseconds\",")?;
        write!(out, "\"startValue\":{},\"endValue\":{end_ns},\"samples\":[", total.start_ns)?;
        let mut stack = StackText::default();
        let mut comma = "";
        each(&mut |run| {
            stack.change(self.tree, run.node);
            out.write_all(comma.as_bytes())?;
            comma = ",";
            out.write_all(b"[")?;
            // Each frame has a comma before it.
            out.write_all(stack.text.get(1..).unwrap_or_default())?;
            out.write_all(b"]")
        })?;
        write!(out, "],\"weights\":[")?;
        comma = "";
        each(&mut |run| {
            write!(out, "{comma}{}", run.weight_ns)?;
            comma = ",";
            Ok(())
        })?;
        write!(out, "]}}")
    }
}

/// The frames of a stack as text, kept for the next, which mostly begins with the same.
#[derive(Default)]
struct StackText {
    text: Vec<u8>,
    /// The nodes, root first, and where the text of each ends.
    path: Vec<(u32, usize)>,
    added: Vec<u32>,
}

impl StackText {
    fn change(&mut self, tree: &Tree, node: u32) {
        let mut at = node;
        // Callers have smaller numbers.
        loop {
            while self.path.last().is_some_and(|&(last, _)| last > at) {
                self.path.pop();
            }
            if self.path.last().map_or(0, |&(last, _)| last) == at {
                break;
            }
            self.added.push(at);
            at = tree.parent[at as usize];
        }
        self.text.truncate(self.path.last().map_or(0, |&(_, end)| end));
        while let Some(node) = self.added.pop() {
            // Writing to memory does not fail.
            let _ = write!(self.text, ",{}", tree.group[node as usize]);
            self.path.push((node, self.text.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{add, profile, sample, text};
    use crate::profile::ThreadId;
    use serde_json::{Value, json};

    fn file(most_runs: usize, profile: &Profile) -> Value {
        serde_json::from_str(&text(|out| write_collecting(most_runs, profile, out))).unwrap()
    }

    #[test]
    fn golden() {
        let mut profile = profile(&[("main:1 f:2 g:3", 2), ("main:1 f:2", 1), ("main:1 h:3", 4)]);
        profile.threads[0].name = "Main\nThread".into();
        add(&mut profile, 7, &[]);
        add(&mut profile, 8, &[]);
        sample(&mut profile, ThreadId(2), [("/app/t.py", "main", 1), ("~", "<GC>", 0)], 3);
        let file = file(MOST_RUNS, &profile);
        assert_eq!(file["name"], "t.py");
        let frame = |name, line| json!({"name": name, "file": "/app/t.py", "line": line});
        let frames = [frame("main", 1), frame("f", 2), frame("g", 3), frame("h", 3)];
        let gc = json!({"name": "<GC>"});
        assert_eq!(file["shared"]["frames"], json!([&frames[..], &[gc]].concat()));
        let thread = |name, samples: Value, weights: &[u64]| {
            let end: u64 = weights.iter().sum();
            json!({
                "type": "sampled", "name": name, "unit": "nanoseconds", "startValue": 0,
                "endValue": end, "samples": samples, "weights": weights,
            })
        };
        assert_eq!(
            file["profiles"],
            json!([
                thread(
                    "Main\\nThread (42)",
                    json!([[0, 1, 2], [0, 1], [0, 3]]),
                    &[2_000_000, 1_000_000, 4_000_000]
                ),
                thread("Thread (8)", json!([[0, 4]]), &[3_000_000]),
            ])
        );
    }

    #[test]
    fn equal_samples_in_a_row_are_one() {
        let mut profile = profile(&[("main:1 f:2", 2), ("main:1", 1), ("main:1 f:2", 5)]);
        profile.samples[1].stack = profile.samples[0].stack;
        let file = file(MOST_RUNS, &profile);
        assert_eq!(file["profiles"][0]["weights"], json!([8_000_000]));
    }

    #[test]
    fn how_much_is_collected_changes_nothing() {
        let mut profile = profile(&[("a:1 b:1", 1), ("a:1 c:1", 2), ("a:1", 3), ("d:1", 4)]);
        for tid in 1..9 {
            add(&mut profile, tid, &[("a:1", 1), ("a:1 b:1", 2), ("e:1", 3)][..tid as usize % 4]);
        }
        let whole = file(MOST_RUNS, &profile);
        assert_eq!(whole["profiles"].as_array().map(Vec::len), Some(7));
        for most_runs in 0..20 {
            assert_eq!(file(most_runs, &profile), whole, "{most_runs}");
        }
    }
}
