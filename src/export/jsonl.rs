//! Records for programs, one JSON object per line, as CPython 3.15's own sampler writes them, and more.
//!
//! Each record has a `type`, the version `v` of its shape, and the `run_id`; they come in this order, tables
//! in pieces of 256 entries:
//!
//! | type | what |
//! | --- | --- |
//! | `meta` | one: `sample_interval_usec`, and what is known of the run |
//! | `string_table` | `strings`: `str_id`, `value` |
//! | `frame_table` | `frames`: `frame_id`, `path_str_id`, `func_str_id`, `line` (0 if there is none), and what is known of `end_line`, `col`, `end_col` (columns from 0, in bytes), `opcode` (the instruction's name), `base_opcode` (what that is a specialisation of) |
//! | `process_table` | `processes`: `process_id`, `pid`, `parent_pid`, `program`, `python`, `start_unix_ns`, `duration_ns` |
//! | `thread_table` | `threads`: `thread_id`, `process_id`, `tid`, `name`, `is_main`, `interpreter` |
//! | `stack_table` | `stacks`: `stack_id`, `frame_id`, and, but for roots, the caller's `parent_stack_id`, which comes before |
//! | `agg` | `entries`: `frame_id`, and the samples that it was on top of, `self`, or anywhere in, `cumulative` |
//! | `stack_agg` | `entries`: `thread_id`, `stack_id`, `state` (a list), `samples`, `wall_ns`, `cpu_ns` |
//! | `end` | one: `samples_total` |
//!
//! CPython's have no processes, threads and stacks; its rules have readers pass over records and fields
//! that they do not know.

use super::aggregate::{Groups, NONE, Totals, Tree};
use super::json_text;
use crate::hash::fingerprint;
use crate::profile::{Location, Meta, Numbers, Opcode, Process, Profile, Sample, State, Thread};
use std::io::{self, BufWriter, Write};

/// How many entries of a table are in one record.
const CHUNK: usize = 256;

/// What a frame is here: the same place is the same frame, whatever the instruction, unless that is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place<'a> {
    file: &'a str,
    name: &'a str,
    /// Line, end line, column, end column; 0 where unknown.
    location: [u32; 4],
    opcode: Option<Opcode>,
}

/// Writes the records.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let groups = Groups::new(profile, |frame| {
        let function = &profile.functions[frame.function.0 as usize];
        let Location { line, end_line, column, end_column } = frame.location;
        let location = [line, end_line, column, end_column];
        Place { file: &function.file, name: &function.name, location, opcode: frame.opcode }
    });
    let tree = Tree::new(profile, &groups.of_frame);
    let totals = tree.totals(profile, groups.keys.len());
    let used = tree.used(profile);
    // Only what was sampled has a number.
    let mut frames = Numbers::default();
    let mut frame_of = vec![NONE; tree.parent.len()];
    let mut stack_of = vec![NONE; tree.parent.len()];
    let mut stacks = Vec::new();
    for node in (1..used.len()).filter(|&node| used[node]) {
        frame_of[node] = frames.of(tree.group[node]);
        stack_of[node] = stacks.len() as u32;
        stacks.push(node);
    }
    let mut strings = Numbers::default();
    let place = |&group: &u32| {
        let Place { file, name, location, opcode } = groups.keys[group as usize];
        let [name, file] = [name, file].map(|text| strings.of(text));
        (file, name, location, opcode)
    };
    let places: Vec<_> = frames.keys.iter().map(place).collect();
    let count = |sum: u64, sample: &Sample| sum.saturating_add(sample.count);
    let total = profile.samples.iter().fold(0, count);

    let out = BufWriter::with_capacity(1 << 16, out);
    let mut records = Records { out, run_id: run_id(profile, total) };
    records.one("meta", |out| meta(profile, out))?;
    records.table("string_table", "\"strings\"", &strings.keys, |out, id, text| {
        write!(out, "\"str_id\":{id},\"value\":{}", json_text(text))
    })?;
    records.table(
        "frame_table",
        "\"frames\"",
        &places,
        |out, id, (file, name, location, opcode)| {
            let [line, end_line, column, end_column] = location;
            write!(out, "\"frame_id\":{id},\"path_str_id\":{file},\"func_str_id\":{name}")?;
            write!(out, ",\"line\":{line}")?;
            let end_line = Some(*end_line).filter(|line| *line > 0);
            let columns = [column, end_column].map(|column| column.checked_sub(1));
            for (key, value) in
                [("end_line", end_line), ("col", columns[0]), ("end_col", columns[1])]
            {
                if let Some(value) = value {
                    write!(out, ",\"{key}\":{value}")?;
                }
            }
            let base = opcode.and_then(Opcode::base);
            for (key, opcode) in [("opcode", *opcode), ("base_opcode", base)] {
                if let Some(opcode) = opcode {
                    write!(out, ",\"{key}\":\"{opcode}\"")?;
                }
            }
            Ok(())
        },
    )?;
    records.table("process_table", "\"processes\"", &profile.processes, |out, id, process| {
        let Process { pid, parent_pid, start_unix_ns, duration_ns, .. } = process;
        write!(out, "\"process_id\":{id},\"pid\":{pid},\"parent_pid\":{parent_pid}")?;
        write!(out, ",\"program\":{}", json_text(&process.program))?;
        write!(out, ",\"python\":{}", json_text(&process.python))?;
        write!(out, ",\"start_unix_ns\":{start_unix_ns},\"duration_ns\":{duration_ns}")
    })?;
    records.table("thread_table", "\"threads\"", &profile.threads, |out, id, thread| {
        let Thread { process, tid, is_main, interpreter, .. } = thread;
        write!(out, "\"thread_id\":{id},\"process_id\":{},\"tid\":{tid}", process.0)?;
        write!(out, ",\"name\":{},\"is_main\":{is_main}", json_text(&thread.name))?;
        write!(out, ",\"interpreter\":{interpreter}")
    })?;
    records.table("stack_table", "\"stacks\"", &stacks, |out, id, &node| {
        write!(out, "\"stack_id\":{id},\"frame_id\":{}", frame_of[node])?;
        match stack_of[tree.parent[node] as usize] {
            NONE => Ok(()),
            parent => write!(out, ",\"parent_stack_id\":{parent}"),
        }
    })?;
    let of_all = format!("\"scope\":\"final\",\"samples_total\":{total},\"entries\"");
    let of_frames = format!("\"kind\":\"frame\",{of_all}");
    records.table("agg", &of_frames, &frames.keys, |out, id, &group| {
        let Totals { direct, cumulative } = totals[group as usize];
        write!(out, "\"frame_id\":{id},\"self\":{}", direct.samples)?;
        write!(out, ",\"cumulative\":{}", cumulative.samples)
    })?;
    let of_stacks = format!("\"kind\":\"stack\",{of_all}");
    let sampled = tree.sampled(profile, |sample| sample.state);
    records.table(
        "stack_agg",
        &of_stacks,
        &sampled,
        |out, _, ((thread, node, state), amount)| {
            let stack = stack_of[*node as usize];
            write!(out, "\"thread_id\":{},\"stack_id\":{stack}", thread.0)?;
            write!(out, ",\"state\":{},\"samples\":{}", states(*state), amount.samples)?;
            // In that mode the time that passed is not known.
            if !profile.weighs_cpu() {
                write!(out, ",\"wall_ns\":{}", amount.ns)?;
            }
            write!(out, ",\"cpu_ns\":{}", amount.cpu_ns)
        },
    )?;
    records.one("end", |out| write!(out, ",\"samples_total\":{total}"))?;
    records.out.flush()
}

fn meta(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let meta = &profile.meta;
    write!(out, ",\"sample_interval_usec\":{}", meta.interval_ns / 1_000)?;
    if profile.weighs_cpu() {
        write!(out, ",\"mode\":\"cpu\"")?;
    }
    write!(out, concat!(",\"creator\":\"pysamp ", env!("CARGO_PKG_VERSION"), "\""))?;
    write!(out, ",\"program\":{}", json_text(&meta.program))?;
    let command: Vec<String> = meta.command.iter().map(|argument| json_text(argument)).collect();
    write!(out, ",\"command\":[{}],\"python\":{}", command.join(","), json_text(&meta.python))?;
    let Meta { start_unix_ns, duration_ns, ticks, missed, failed, .. } = meta;
    write!(out, ",\"start_unix_ns\":{start_unix_ns},\"duration_ns\":{duration_ns}")?;
    write!(out, ",\"ticks\":{ticks},\"missed\":{missed},\"failed\":{failed}")
}

/// What tells the records of a run from those of others: the same for the same profile.
fn run_id(profile: &Profile, total: u64) -> String {
    let meta = &profile.meta;
    let words = [meta.pid.into(), meta.duration_ns, meta.ticks, meta.missed, total];
    format!("{:016x}{:016x}", meta.start_unix_ns, fingerprint(words))
}

/// A state as a list.
fn states(state: State) -> String {
    let all = [
        (State::ON_CPU, "\"on_cpu\""),
        (State::HAS_GIL, "\"has_gil\""),
        (State::WAITS_FOR_GIL, "\"waits_for_gil\""),
        (State::IN_GC, "\"in_gc\""),
        (State::HAS_EXCEPTION, "\"has_exception\""),
        (State::IN_NATIVE, "\"in_native\""),
    ];
    let names = all.into_iter().filter(|(bit, _)| state.has(*bit)).map(|(_, name)| name.to_owned());
    let generation = state.generation().map(|generation| format!("\"gc_generation_{generation}\""));
    format!("[{}]", names.chain(generation).collect::<Vec<_>>().join(","))
}

struct Records<'a> {
    out: BufWriter<&'a mut dyn Write>,
    run_id: String,
}

impl Records<'_> {
    fn begin(&mut self, kind: &str) -> io::Result<()> {
        write!(self.out, "{{\"type\":\"{kind}\",\"v\":0,\"run_id\":\"{}\"", self.run_id)
    }

    /// A record that there is one of. What is written for it begins with a comma.
    fn one(
        &mut self,
        kind: &str,
        rest: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.begin(kind)?;
        rest(&mut self.out)?;
        writeln!(self.out, "}}")
    }

    /// The records of a table. `key` is that of the entries, after what is the same in each record.
    fn table<T>(
        &mut self,
        kind: &str,
        key: &str,
        entries: &[T],
        mut write: impl FnMut(&mut dyn Write, usize, &T) -> io::Result<()>,
    ) -> io::Result<()> {
        for (piece, entries) in entries.chunks(CHUNK).enumerate() {
            self.begin(kind)?;
            write!(self.out, ",{key}:[")?;
            for (index, entry) in entries.iter().enumerate() {
                self.out.write_all(if index == 0 { b"{" } else { b",{" })?;
                write(&mut self.out, piece * CHUNK + index, entry)?;
                self.out.write_all(b"}")?;
            }
            writeln!(self.out, "]}}")?;
        }
        Ok(())
    }
}
