//! What the page shows, as JSON: tables that refer to each other by row, the long ones packed.

use std::io::{self, Write};

use flate2::Compression;
use serde_json::{Value, json};

use super::counted::Table;
use super::entries::{Entries, Stacks};
use super::pack::{Columns, Packed, deflated};
use super::source;
use crate::export::aggregate::{Amount, Groups, NONE, Tree};
use crate::export::escape::script_json;
use crate::export::instructions::{self, Instruction};
use crate::export::one_line;
use crate::profile::{Function, Numbers, Opcode, Process, Profile, Thread};

/// The most nodes that stand for themselves, and the most stacks of all threads in each of their states: a page is
/// no larger than what others make of a profile's more frequent stacks alone.
const MOST: usize = 120_000;
/// What stands for the calls of a node that are too rare to be shown.
const RARE: (&str, &str) = ("~", "<rare calls>");

/// What is to be shown: one profile, or two as one.
pub(super) struct Shown<'a> {
    /// The profile; of two, the latter's threads come last.
    pub profile: &'a Profile,
    /// The one of the two that is looked at.
    pub current: &'a Profile,
    /// The profile that it is compared with.
    pub baseline: Option<Baseline<'a>>,
}

/// What a profile is compared with.
pub(super) struct Baseline<'a> {
    /// All of it.
    pub profile: &'a Profile,
    /// Its first thread.
    pub first_thread: u32,
}

/// Writes it. Names are as they are to be shown.
pub(super) fn write(shown: &Shown, out: &mut dyn Write) -> io::Result<()> {
    let Shown { profile, current, baseline } = shown;
    let groups = lines(profile, baseline.is_some());
    let tree = Tree::new(profile, &groups.of_frame);
    let own = tree.own(profile);
    let (order, stacks) = in_bounds(profile, &tree, &own, MOST);
    let entries = Entries::new(profile, stacks, baseline.is_none());
    let mut tables = Tables::default();
    let nodes = tables.nodes(profile, &groups, &tree, &order);

    let mut columns = Columns::default();
    let mut json = json!({ "meta": about(current) });
    if let Some(baseline) = baseline {
        json["baseline"] = about(baseline.profile);
        json["baselineThread"] = baseline.first_thread.into();
    } else {
        let sources = sources(profile, &groups, &tree, &own, &mut tables.strings).to_string();
        json["sources"] = deflated(sources.as_bytes(), Compression::best())?.into();
    }
    json["processes"] = profile.processes.iter().map(process).collect();
    json["threads"] = profile.threads.iter().map(thread).collect();
    json["strings"] = texts(tables.strings.keys.iter());
    json["functions"] = columns.add(&tables.function_rows);
    json["lines"] = columns.add(&tables.line_rows);
    if !tables.opcodes.keys.is_empty() {
        let opcodes = tables.opcodes.keys.iter().copied();
        json["opcodes"] = opcodes.map(instructions::opcode).collect();
        json["instructions"] = columns.add(&tables.instruction_rows);
    }
    json["nodes"] = columns.add(&nodes);
    json["leastShown"] = order.least.into();
    let mut tracks = Packed::default();
    for &(thread, state) in &entries.tracks.keys {
        tracks.put(thread);
        tracks.put(state);
    }
    json["tracks"] = columns.add(&tracks);
    json["buckets"] = json!([entries.bucket_ns, entries.buckets_used()]);
    let mut add = |Table { scale, columns: packed }| {
        json!([scale.unit_us, scale.usual, packed.map(|column| columns.add(&column))])
    };
    let add = |tables: [Table; 2]| tables.map(&mut add);
    json["entries"] = entries.pack().into_iter().map(add).collect();
    json["columns"] = columns.text()?.into();
    out.write_all(script_json(&json).as_bytes())
}

/// The nodes and what is sampled at them, with what is rare as one where that is too much.
fn in_bounds(profile: &Profile, tree: &Tree, own: &[Amount], most: usize) -> (Order, Stacks) {
    let mut nodes = most;
    loop {
        let order = Order::new(tree, own, nodes);
        let node_of = |stack: u32| order.place[tree.of_stack[stack as usize] as usize];
        let stacks = Stacks::new(profile, node_of);
        // However few nodes there are, threads can be too many.
        if stacks.sizes().len() <= most || nodes < most / 100 {
            return (order, stacks);
        }
        nodes = nodes / 4 * 3;
    }
}

/// What a node is of: a function, a line of it, and where it is known the instruction.
type Place = (u32, u32, Option<Instruction>);

/// Groups frames by place. Between two profiles lines move, so only functions stay.
fn lines(profile: &Profile, only_functions: bool) -> Groups<Place> {
    if !only_functions {
        return Groups::new(profile, |frame| {
            (frame.function.0, frame.location.line, Instruction::of(frame))
        });
    }
    let mut same = Numbers::default();
    let first: Vec<u32> = profile
        .functions
        .iter()
        .map(|function| same.of((&*function.file, &*function.name)))
        .collect();
    let mut function_of = vec![NONE; same.keys.len()];
    for (function, &number) in first.iter().enumerate().rev() {
        function_of[number as usize] = function as u32;
    }
    Groups::new(profile, |frame| (function_of[first[frame.function.0 as usize] as usize], 0, None))
}

/// The nodes with samples in or below them, each behind its caller and what that has called before. Where there
/// are too many, what is rarest is one node for each caller, behind its others.
struct Order {
    /// Nodes of the tree; `NONE` for rare calls.
    nodes: Vec<u32>,
    /// How many steps up from the node before the caller of each is.
    up: Vec<u32>,
    /// Where each node of the tree is, counted from 1.
    place: Vec<u32>,
    /// How many samples a node has at least that stands for itself.
    least: u64,
}

impl Order {
    /// Of nodes with samples of their own, so that about `most` stand for themselves.
    fn new(tree: &Tree, own: &[Amount], most: usize) -> Self {
        let mut total: Vec<u64> = own.iter().map(|own| own.samples).collect();
        for node in (1..total.len()).rev() {
            let (samples, parent) = (total[node], tree.parent[node] as usize);
            total[parent] = total[parent].saturating_add(samples);
        }
        let mut sizes: Vec<u64> =
            total[1..].iter().copied().filter(|&samples| samples > 0).collect();
        let least = match sizes.len().checked_sub(most + 1) {
            Some(next) => *sizes.select_nth_unstable(next).1 + 1,
            None => 1,
        };

        let children = tree.children();
        let mut order = Self { nodes: vec![], up: vec![], place: vec![0; total.len()], least };
        let mut open = vec![(0_u32, 0_usize, None)];
        let mut up = 0;
        while let Some((node, next, rare)) = open.last_mut() {
            let child = children[*node as usize].get(*next).copied();
            *next += 1;
            match child {
                None => {
                    if let Some(calls) = rare.take() {
                        order.put(NONE, up);
                        up = 1;
                        order.place_all(calls, &children);
                    }
                    open.pop();
                    up += 1;
                }
                Some(child) if total[child as usize] >= least => {
                    order.put(child, std::mem::take(&mut up));
                    order.place[child as usize] = order.nodes.len() as u32;
                    open.push((child, 0, None));
                }
                Some(child) if total[child as usize] > 0 => {
                    rare.get_or_insert_with(Vec::new).push(child);
                }
                Some(_) => {}
            }
        }
        order
    }

    fn put(&mut self, node: u32, up: u32) {
        self.nodes.push(node);
        self.up.push(up);
    }

    /// Places nodes and all below them where the last one is.
    fn place_all(&mut self, mut nodes: Vec<u32>, children: &[Vec<u32>]) {
        while let Some(node) = nodes.pop() {
            self.place[node as usize] = self.nodes.len() as u32;
            nodes.extend(&children[node as usize]);
        }
    }
}

/// Strings, functions and lines, numbered as they are used.
#[derive(Default)]
struct Tables<'a> {
    strings: Numbers<&'a str>,
    functions: Numbers<u32>,
    function_rows: Packed,
    lines: Numbers<(u32, u32)>,
    line_rows: Packed,
    opcodes: Numbers<Opcode>,
    instructions: Numbers<Instruction>,
    instruction_rows: Packed,
}

impl<'a> Tables<'a> {
    /// For each node: the steps up to its caller, and its line; if instructions are known of any, also 0 or
    /// its instruction, counted from 1.
    fn nodes(
        &mut self,
        profile: &'a Profile,
        groups: &Groups<Place>,
        tree: &Tree,
        order: &Order,
    ) -> Packed {
        let mut nodes = Packed::default();
        let place_of = |&node: &u32| match node {
            NONE => (NONE, 0, None),
            _ => groups.keys[tree.group[node as usize] as usize],
        };
        let used = || order.nodes.iter().map(place_of);
        let has_instructions = used().any(|(.., instruction)| instruction.is_some());
        for ((function, line, instruction), &up) in used().zip(&order.up) {
            nodes.put(up);
            let known = self.lines.keys.len();
            let number = self.lines.of((function, line));
            nodes.put(number);
            if number as usize == known {
                self.line(profile, (function, line));
            }
            if has_instructions {
                nodes.put(instruction.map_or(0, |instruction| 1 + self.instruction(instruction)));
            }
        }
        nodes
    }

    fn instruction(&mut self, instruction: Instruction) -> u32 {
        let known = self.instructions.keys.len();
        let number = self.instructions.of(instruction);
        if number as usize == known {
            let Instruction { opcode, end_line, column, end_column } = instruction;
            let opcode = self.opcodes.of(opcode);
            for part in [opcode, end_line, column, end_column] {
                self.instruction_rows.put(part);
            }
        }
        number
    }

    fn line(&mut self, profile: &'a Profile, (function, line): (u32, u32)) {
        let known = self.functions.keys.len();
        let number = self.functions.of(function);
        self.line_rows.put(number);
        self.line_rows.put(line);
        if number as usize == known {
            let (file, name, first_line) = match profile.functions.get(function as usize) {
                Some(Function { file, name, first_line }) => (&**file, &**name, *first_line),
                None => (RARE.0, RARE.1, 0),
            };
            self.function_rows.put(self.strings.of(file));
            self.function_rows.put(self.strings.of(name));
            self.function_rows.put(first_line);
        }
    }
}

/// Source lines, hottest first: of each file its string, whether it is newer than the profile, and lines.
fn sources<'a>(
    profile: &'a Profile,
    groups: &Groups<Place>,
    tree: &Tree,
    own: &[Amount],
    strings: &mut Numbers<&'a str>,
) -> Value {
    let mut total: Vec<u64> = own.iter().map(|own| own.samples).collect();
    let mut heat = vec![0_u64; groups.keys.len()];
    for node in (1..total.len()).rev() {
        let samples = total[node];
        let parent = &mut total[tree.parent[node] as usize];
        *parent = parent.saturating_add(samples);
        let heat = &mut heat[tree.group[node] as usize];
        // Lines that run are looked for more often than those that call.
        *heat = heat.saturating_add(samples).saturating_add(own[node].samples);
    }
    let mut hottest: Vec<usize> = (0..heat.len()).filter(|&group| heat[group] > 0).collect();
    hottest.sort_by_key(|&group| std::cmp::Reverse(heat[group]));
    let wanted = hottest.into_iter().flat_map(|group| {
        let (function, line, _) = groups.keys[group];
        let Function { file, first_line, .. } = &profile.functions[function as usize];
        [line, *first_line].into_iter().filter(|&line| line > 0).map(|line| (&**file, line))
    });
    let excerpts = source::excerpts(wanted, profile.end_unix_ns());
    excerpts.into_iter().map(|(file, excerpt)| json!([strings.of(file), excerpt])).collect()
}

fn about(profile: &Profile) -> Value {
    let meta = &profile.meta;
    json!({
        "program": one_line(&meta.program),
        "command": texts(meta.command.iter()),
        "pid": meta.pid,
        "python": one_line(&meta.python),
        "mode": meta.mode.name(),
        "startMs": meta.start_unix_ns / 1_000_000,
        "durationNs": meta.duration_ns,
        "intervalNs": meta.interval_ns,
        "rateHz": profile.rate_hz(),
        "missed": meta.missed,
        "samples": meta.samples,
        "failed": meta.failed,
        "failedShare": meta.failed_share(),
        "missedShare": meta.missed_share(),
    })
}

fn process(process: &Process) -> Value {
    let Process { pid, parent_pid, program, command, python, .. } = process;
    json!([pid, parent_pid, one_line(program), texts(command.iter()), one_line(python)])
}

fn thread(thread: &Thread) -> Value {
    let Thread { process, tid, name, is_main, interpreter } = thread;
    json!([process.0, tid, one_line(name), is_main, interpreter])
}

fn texts(texts: impl Iterator<Item = impl AsRef<str>>) -> Value {
    texts.map(|text| json!(one_line(text.as_ref()))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::pack::tests::{contents, numbers};
    use super::*;
    use crate::export::testing::{self, add, profile, text};
    use crate::profile::ThreadId;

    /// The JSON, with the numbers of the tables that it refers to.
    fn data(shown: &Shown) -> Value {
        let (mut data, columns) = contents(&text(|out| write(shown, out)));
        for table in ["functions", "lines", "nodes", "tracks"] {
            let [at, length] = [0, 1].map(|part| data[table][part].as_u64().unwrap() as usize);
            data[table] = numbers(&columns[at..][..length]).into();
        }
        data
    }

    #[test]
    fn golden() {
        let mut profile = profile(&[("main:1 f:2 g:4", 0), ("main:1 f:2", 30), ("main:1 f:3", 10)]);
        add(&mut profile, 7, &[("main:1", 60)]);
        let data = data(&Shown { profile: &profile, current: &profile, baseline: None });
        assert_eq!(data["threads"], json!([[0, 42, "", false, 0], [0, 7, "", false, 0]]));
        assert_eq!(data["strings"], json!(["/app/t.py", "main", "f"]));
        assert_eq!(data["functions"], json!([0, 1, 0, 0, 2, 0]));
        assert_eq!(data["lines"], json!([0, 1, 1, 2, 1, 3]));
        assert_eq!(data["nodes"], json!([0, 0, 0, 1, 1, 2]));
        assert_eq!(data["leastShown"], json!(1));
        assert_eq!(data["tracks"], json!([0, 0, 1, 0]));
        assert_eq!(data["buckets"], json!([null, 1]));
        assert_eq!((&data["meta"]["pid"], &data["meta"]["mode"]), (&json!(4242), &json!("wall")));
    }

    #[test]
    fn two_profiles_share_functions() {
        let current = profile(&[("main:1 f:2", 3), ("main:9 new:2", 1)]);
        let baseline = profile(&[("main:5 f:7", 4), ("main:5 old:2", 2)]);
        let profile = Profile::merge([current.clone(), baseline.clone()]);
        let baseline = Baseline { profile: &baseline, first_thread: 1 };
        let data = data(&Shown { profile: &profile, current: &current, baseline: Some(baseline) });
        assert_eq!(data["strings"], json!(["/app/t.py", "main", "f", "new", "old"]));
        assert_eq!(data["lines"], json!([0, 0, 1, 0, 2, 0, 3, 0]));
        assert_eq!(data["nodes"], json!([0, 0, 0, 1, 1, 2, 1, 3]));
        assert_eq!((&data["baselineThread"], &data["baseline"]["samples"]), (&json!(1), &json!(6)));
    }

    #[test]
    fn of_too_many_nodes_the_rarest_are_one_for_each_caller() {
        let stacks = [
            ("main:1", 5),
            ("main:1 once:2", 1),
            ("main:1 f:2", 3),
            ("main:1 f:2 once:3 deep:4", 1),
            ("main:1 f:2 twice:5", 2),
            ("main:1 never:6 deep:7", 0),
            ("main:1 once_too:8", 1),
            ("alone:1", 1),
        ];
        let profile = profile(&stacks);
        let groups = lines(&profile, false);
        let tree = Tree::new(&profile, &groups.of_frame);
        let own = tree.own(&profile);
        let name = |node: u32| match node {
            NONE => "…",
            _ => {
                let (function, ..) = groups.keys[tree.group[node as usize] as usize];
                &*profile.functions[function as usize].name
            }
        };
        let shown = |most: usize| {
            let order = Order::new(&tree, &own, most);
            // Every sample is somewhere, once.
            let mut samples = vec![0; order.nodes.len()];
            for (amount, &place) in own.iter().zip(&order.place).filter(|(own, _)| own.samples > 0)
            {
                samples[place as usize - 1] += amount.samples;
            }
            let mut depth = 0;
            let told =
                order.nodes.iter().zip(&order.up).zip(samples).map(|((&node, &up), samples)| {
                    depth = depth + 1 - up;
                    format!("{depth}{}={samples}", name(node))
                });
            (order.least, told.collect::<Vec<_>>().join(" "))
        };
        let all = "1main=5 2once=1 2f=3 3once=0 4deep=1 3twice=2 2once_too=1 1alone=1";
        assert_eq!(shown(8), (1, all.into()));
        assert_eq!(shown(7), (2, "1main=5 2f=3 3twice=2 3…=1 2…=2 1…=1".into()));
        assert_eq!(shown(2), (3, "1main=5 2f=3 3…=3 2…=2 1…=1".into()));
        assert_eq!(shown(0), (14, "1…=14".into()));
    }

    #[test]
    fn there_are_no_more_stacks_of_threads_than_a_page_takes() {
        let mut profile = profile(&[]);
        let name = |number: usize| format!("f{number}");
        for number in 0..300 {
            for thread in (0..5).map(ThreadId) {
                let count = 1 + u64::from(number < 100);
                let stack = [("/app/t.py", "main", 1), ("/app/t.py", &name(number), 2)];
                testing::sample(&mut profile, thread, stack, count);
            }
        }
        let groups = lines(&profile, false);
        let tree = Tree::new(&profile, &groups.of_frame);
        let own = tree.own(&profile);
        let shown = |most| {
            let (order, stacks) = in_bounds(&profile, &tree, &own, most);
            let samples: u64 = own.iter().map(|own| own.samples).sum();
            assert_eq!(stacks.sizes().iter().sum::<u64>(), samples);
            (order.least, order.nodes.len(), stacks.sizes().len())
        };
        assert_eq!(shown(1_500), (1, 301, 1_500));
        assert_eq!(shown(1_499), (6, 1 + 100 + 1, 5 * 101));
        assert_eq!(shown(400), (11, 2, 5));
    }
}
