//! The file that KCachegrind and `callgrind_annotate` read: what each function costs by itself, by line,
//! and what its calls cost with all that they call in turn.
//!
//! ```text
//! fl=(1) /app/t.py
//! fn=(1) main
//! 22 7 7000000 6900000
//! cfi=(1)
//! cfn=(2) work
//! calls=102 9
//! 22 102 102000000 101000000
//! ```
//!
//! Threads are functions that call the roots of their stacks. How often something was called is not known;
//! `calls` has the samples. In recursion a sample counts for a function's outermost call only, so that the
//! calls of a function add up to what it costs.

use super::aggregate::{Amount, NONE, Row, Tree, by_line};
use super::{one_line, thread_title};
use crate::profile::{Numbers, Profile};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufWriter, Write};

/// Writes the file.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let costs = Costs::new(profile);
    let mut file = File {
        out: BufWriter::new(out),
        weighs_cpu: profile.weighs_cpu(),
        files: HashMap::new(),
        has_name: vec![false; costs.functions.len()],
    };
    file.head(profile)?;
    let numbers = costs.functions.len() + 1..;
    for ((number, thread), roots) in numbers.zip(&profile.threads).zip(&costs.roots) {
        if !roots.is_empty() {
            file.name("fl", "~")?;
            writeln!(file.out, "fn=({number}) {}", thread_title(profile, thread))?;
        }
        for (&callee, &cost) in roots {
            file.call(&costs, 0, callee, cost)?;
        }
    }
    for (function, lines) in (0..).zip(&costs.lines) {
        if !lines.is_empty() {
            writeln!(file.out)?;
            file.function(&costs, ["fl", "fn"], function)?;
        }
        for (&line, Line { own, calls }) in lines {
            if own.samples > 0 {
                file.costs(line, *own)?;
            }
            for &(callee, cost) in calls {
                file.call(&costs, line, callee, cost)?;
            }
        }
    }
    write!(file.out, "\ntotals:")?;
    file.amount(costs.total)?;
    file.out.flush()
}

/// What is in the file. Functions are numbered as those of a file and name.
struct Costs<'a> {
    /// File, name, and the line where it begins.
    functions: Vec<(Row<'a>, u32)>,
    /// For each thread, what its roots cost.
    roots: Vec<BTreeMap<u32, Amount>>,
    /// For each function, its lines.
    lines: Vec<BTreeMap<u32, Line>>,
    total: Amount,
}

/// A line that was executed.
#[derive(Default)]
struct Line {
    own: Amount,
    /// Functions that it called, and what they cost.
    calls: Vec<(u32, Amount)>,
}

impl<'a> Costs<'a> {
    fn new(profile: &'a Profile) -> Self {
        let mut functions = Numbers::default();
        let mut first_lines = Vec::new();
        for function in &profile.functions {
            let row = Row { file: &function.file, line: 0, name: &function.name };
            functions.of(row);
            first_lines.resize(functions.keys.len(), function.first_line);
        }
        let groups = by_line(profile);
        let function_of: Vec<u32> =
            groups.keys.iter().map(|row| functions.of(Row { line: 0, ..*row })).collect();
        let tree = Tree::new(profile, &groups.of_frame);
        let used = tree.used(profile);

        let function = |node: usize| match tree.group[node] {
            NONE => NONE,
            group => function_of[group as usize],
        };
        let callees: Vec<u32> = (0..tree.parent.len()).map(function).collect();
        let mut calls = Numbers::default();
        let labels: Vec<u32> = (0..tree.parent.len())
            .map(|node| match tree.group[tree.parent[node] as usize] {
                caller if used[node] && caller != NONE => calls.of((caller, callees[node])),
                _ => NONE,
            })
            .collect();
        let totals =
            tree.totals_of(profile, (&labels, calls.keys.len()), (&callees, functions.keys.len()));

        let mut costs = Costs {
            roots: vec![BTreeMap::new(); profile.threads.len()],
            lines: functions.keys.iter().map(|_| BTreeMap::new()).collect(),
            functions: functions.keys.into_iter().zip(first_lines).collect(),
            total: Amount::default(),
        };
        for ((caller, callee), totals) in calls.keys.into_iter().zip(totals) {
            let line = costs.line(groups.keys[caller as usize].line, function_of[caller as usize]);
            line.calls.push((callee, totals.cumulative));
        }
        let mut root: Vec<u32> = (0..tree.parent.len() as u32).collect();
        for node in 1..root.len() {
            if tree.parent[node] != 0 {
                root[node] = root[tree.parent[node] as usize];
            }
        }
        for ((thread, node, ()), amount) in tree.sampled(profile, |_| ()) {
            let group = tree.group[node as usize] as usize;
            costs.line(groups.keys[group].line, function_of[group]).own.add(amount);
            let callee = callees[root[node as usize] as usize];
            costs.roots[thread.0 as usize].entry(callee).or_default().add(amount);
            costs.total.add(amount);
        }
        costs
    }

    fn line(&mut self, line: u32, function: u32) -> &mut Line {
        self.lines[function as usize].entry(line).or_default()
    }
}

/// The file, and the names that are in it: each is written once, and then told by its number.
struct File<'a> {
    out: BufWriter<&'a mut dyn Write>,
    weighs_cpu: bool,
    files: HashMap<String, usize>,
    has_name: Vec<bool>,
}

impl File<'_> {
    fn head(&mut self, profile: &Profile) -> io::Result<()> {
        let meta = &profile.meta;
        writeln!(self.out, "# callgrind format\nversion: 1")?;
        writeln!(self.out, concat!("creator: pysamp ", env!("CARGO_PKG_VERSION")))?;
        writeln!(self.out, "pid: {}", meta.pid)?;
        if !meta.command.is_empty() {
            writeln!(self.out, "cmd: {}", one_line(&meta.command.join(" ")))?;
        }
        let events = ["samples : Samples", "wall_ns : Wall time, ns", "cpu_ns : CPU time, ns"];
        // In that mode the time that passed is not known.
        let known = |event: &&&str| !(self.weighs_cpu && event.starts_with("wall"));
        let events: Vec<&str> = events.iter().filter(known).copied().collect();
        writeln!(self.out, "positions: line")?;
        for event in &events {
            writeln!(self.out, "event: {event}")?;
        }
        let names = events.iter().filter_map(|event| event.split(' ').next());
        writeln!(self.out, "events: {}\n", names.collect::<Vec<_>>().join(" "))
    }

    /// A file's name, after what it is here.
    fn name(&mut self, key: &str, file: &str) -> io::Result<()> {
        // As callgrind has it where it knows no file.
        let shown = if file == "~" { "???".into() } else { one_line(file) };
        let next = self.files.len() + 1;
        match self.files.get(&*shown) {
            Some(known) => writeln!(self.out, "{key}=({known})"),
            None => {
                writeln!(self.out, "{key}=({next}) {}", or_quotes(&shown))?;
                self.files.insert(shown.into_owned(), next);
                Ok(())
            }
        }
    }

    fn function(&mut self, costs: &Costs, keys: [&str; 2], function: u32) -> io::Result<()> {
        let (Row { file, name, .. }, _) = costs.functions[function as usize];
        self.name(keys[0], file)?;
        write!(self.out, "{}=({})", keys[1], function + 1)?;
        match std::mem::replace(&mut self.has_name[function as usize], true) {
            true => writeln!(self.out),
            false => writeln!(self.out, " {}", or_quotes(&one_line(name))),
        }
    }

    fn call(&mut self, costs: &Costs, line: u32, callee: u32, cost: Amount) -> io::Result<()> {
        self.function(costs, ["cfi", "cfn"], callee)?;
        // Where there are no calls, readers take the costs for the caller's own.
        writeln!(self.out, "calls={} {}", cost.samples.max(1), costs.functions[callee as usize].1)?;
        self.costs(line, cost)
    }

    fn costs(&mut self, line: u32, cost: Amount) -> io::Result<()> {
        write!(self.out, "{line}")?;
        self.amount(cost)
    }

    fn amount(&mut self, amount: Amount) -> io::Result<()> {
        let Amount { samples, ns, cpu_ns } = amount;
        match self.weighs_cpu {
            true => writeln!(self.out, " {samples} {cpu_ns}"),
            false => writeln!(self.out, " {samples} {ns} {cpu_ns}"),
        }
    }
}

/// A name, or quotes where there is nothing to see: readers would look for a known one then.
fn or_quotes(name: &str) -> &str {
    if name.trim().is_empty() { "''" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{add, profile, sample, text};
    use crate::profile::ThreadId;

    fn callgrind(profile: &Profile) -> String {
        text(|out| write(profile, out))
    }

    #[test]
    fn golden() {
        let mut profile = profile(&[("main:1 rec:7 rec:8 leaf:4", 5), ("main:1 rec:7", 2)]);
        profile.threads[0].name = "Main\nThread".into();
        add(&mut profile, 7, &[("leaf:4", 3)]);
        sample(&mut profile, ThreadId(1), [("/app/t.py", "leaf", 4), ("~", "<GC>", 0)], 1);
        let (head, body) = callgrind(&profile)
            .split_once("\n\n")
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        assert!(head.ends_with(
            "\npid: 4242\ncmd: python t.py\npositions: line\nevent: samples : Samples\n\
             event: wall_ns : Wall time, ns\nevent: cpu_ns : CPU time, ns\nevents: samples wall_ns cpu_ns"
        ), "{head}");
        assert_eq!(
            body,
            "fl=(1) ???\nfn=(5) Main\\nThread (42)\n\
             cfi=(2) /app/t.py\ncfn=(1) main\ncalls=7 0\n0 7 7000000 0\n\
             fl=(1)\nfn=(6) Thread (7)\n\
             cfi=(2)\ncfn=(3) leaf\ncalls=4 0\n0 4 4000000 0\n\n\
             fl=(2)\nfn=(1)\ncfi=(2)\ncfn=(2) rec\ncalls=7 0\n1 7 7000000 0\n\n\
             fl=(2)\nfn=(2)\n7 2 2000000 0\ncfi=(2)\ncfn=(2)\ncalls=1 0\n7 0 0 0\n\
             cfi=(2)\ncfn=(3)\ncalls=5 0\n8 5 5000000 0\n\n\
             fl=(2)\nfn=(3)\n4 8 8000000 0\ncfi=(1)\ncfn=(4) <GC>\ncalls=1 0\n4 1 1000000 0\n\n\
             fl=(1)\nfn=(4)\n0 1 1000000 0\n\n\
             totals: 11 11000000 0\n"
        );
    }

    #[test]
    fn names_of_nothing_and_of_numbers() {
        let mut profile = profile(&[]);
        sample(&mut profile, ThreadId(0), [("", "", 1), (" ", "(1)", 1)], 1);
        profile.threads[0].name = "(7) \u{2028}".into();
        let text = callgrind(&profile);
        for line in
            ["cfi=(2) ''", "cfn=(1) ''", "cfi=(3) ''", "cfn=(2) (1)", "fn=(3) (7) \\u2028 (42)"]
        {
            assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
        }
    }
}
