//! The binary format, read and replayed into each of its formats by CPython 3.15's own profiler.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{self, Interpreter, command, library, run_to_end};
use pysamp::export::{binary, collapsed};
use pysamp::profile::{
    Frame, FrameId, Function, FunctionId, Location, Meta, Process, ProcessId, Profile, Sample,
    Stack, StackId, State, Thread, ThreadId, recording,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Prints what CPython's reader makes of a file: what it says of itself, and each sample.
const READ: &str = r#"
import _remote_debugging, json, sys
reader = _remote_debugging.BinaryReader(sys.argv[1])
rows = []
class Collector:
    def collect(self, interpreters, timestamps):
        for interpreter in interpreters:
            for thread in interpreter.threads:
                frames = [[f.filename, f.location and list(f.location), f.funcname]
                          for f in thread.frame_info]
                rows.append([interpreter.interpreter_id, thread.thread_id, thread.status,
                             timestamps, frames])
replayed = reader.replay(Collector(), None)
print(json.dumps({"info": reader.get_info(), "replayed": replayed, "rows": rows}))
"#;

/// Prints how many samples there are in each of the files that were made by replaying.
const COUNT: &str = r#"
import json, marshal, re, sys
gecko, pstats, jsonl, flamegraph, heatmap, expected = sys.argv[1:]
profile = json.load(open(gecko))
stats = marshal.load(open(pstats, "rb"))
stats.pop(("__sampled__",), None)
lines = [json.loads(line) for line in open(jsonl)]
pages = [open(flamegraph).read(), open(heatmap + "/index.html").read()]
print(json.dumps({
    "gecko": sum(thread["samples"]["length"] for thread in profile["threads"]),
    "threads": sorted(int(thread["tid"]) for thread in profile["threads"]),
    "pstats": sum(row[0] for row in stats.values()),
    "jsonl": lines[-1]["samples_total"],
    "own": sum(e["self"] for line in lines if line["type"] == "agg" for e in line["entries"]),
    "pages": [bool(re.search(r"(?<!\d)%s(?!\d)" % expected, page)) for page in pages],
}))
"#;

/// Prints how many samples each instruction was on top of, as CPython's own reader has it, and in how many it was
/// anywhere, as the pages of its heatmap have it.
const OPCODES: &str = r#"
import _remote_debugging, collections, glob, html, json, re, sys
from profiling.sampling.opcode_utils import format_opcode
top, anywhere = collections.Counter(), collections.Counter()
class Collector:
    def collect(self, interpreters, timestamps):
        for interpreter in interpreters:
            for thread in interpreter.threads:
                opcode = thread.frame_info[0].opcode
                if opcode is not None:
                    top[format_opcode(opcode)] += len(timestamps)
_remote_debugging.BinaryReader(sys.argv[1]).replay(Collector(), None)
for page in glob.glob(sys.argv[2] + "/file_*.html"):
    for found in re.findall("data-bytecode='([^']*)'", open(page).read()):
        for row in json.loads(html.unescape(found)):
            anywhere[row["opname"]] += row["samples"]
print(json.dumps([top, anywhere]))
"#;

fn newest() -> &'static Interpreter {
    support::supported().iter().find(|one| one.minor() == (3, 15)).expect("there is no 3.15")
}

/// What 3.15 prints.
fn python(arguments: &[&str]) -> String {
    let mut command = Command::new(&newest().path);
    let output = command.args(["-X", "utf8"]).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn json_of(arguments: &[&str]) -> Value {
    let text = python(arguments);
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn written(profile: &Profile, directory: &TempDir) -> PathBuf {
    let path = directory.path().join("p.bin");
    binary::write(profile, &mut File::create(&path).unwrap()).unwrap();
    path
}

fn read(profile: &Profile) -> Value {
    let directory = TempDir::new().unwrap();
    let path = written(profile, &directory);
    json_of(&["-c", READ, path.to_str().unwrap()])
}

const START_US: u64 = 1_700_000_000_000_000;

/// A profile of threads with these numbers and interpreters; their samples, as frames root first,
/// state, count and microseconds, follow each other.
fn made(threads: &[(u32, i64)], samples: &[(u32, Vec<u32>, u32, u64, u64)]) -> Profile {
    let mut profile = Profile {
        meta: Meta {
            start_unix_ns: START_US * 1_000,
            interval_ns: 1_000_000,
            duration_ns: 2_000_000_000,
            ticks: 1_900,
            missed: 100,
            samples: 99,
            failed: 1,
            ..Meta::default()
        },
        processes: vec![Process {
            python: "CPython 3.8.18 debug".into(),
            duration_ns: 2_000_000_000,
            ..Process::default()
        }],
        ..Profile::default()
    };
    let functions = [("~", "<GC>", 0), ("/a/\n\"é.py", "f;\0", 7), ("/a/b.py", "g", 8)];
    for (number, (file, name, line)) in (0..).zip(functions) {
        let function = Function { file: file.into(), name: name.into(), first_line: line };
        profile.functions.push(function);
        let column = if line == 7 { 5 } else { 0 };
        let location = Location { line, end_line: line * 2, column, end_column: column + 2 };
        let function = FunctionId(number);
        profile.frames.push(Frame { function, location, instruction: 0, opcode: None });
    }
    for (number, &(tid, interpreter)) in (0..).zip(threads) {
        let (process, is_main) = (ProcessId(0), number == 0);
        profile.threads.push(Thread { process, tid, name: "".into(), is_main, interpreter });
    }
    for (thread, frames, state, count, us) in samples {
        let mut parent = None;
        for &frame in frames {
            let stack = Stack { parent, frame: FrameId(frame) };
            let known = profile.stacks.iter().position(|known| *known == stack);
            let number = known.unwrap_or_else(|| {
                profile.stacks.push(stack);
                profile.stacks.len() - 1
            });
            parent = Some(StackId(number as u32));
        }
        profile.samples.push(Sample {
            thread: ThreadId(*thread),
            stack: parent.unwrap(),
            state: State::from_bits(*state).unwrap(),
            count: *count,
            weight_ns: us * 1_000,
            cpu_ns: 0,
        });
    }
    profile
}

#[test]
fn the_reader_sees_what_was_sampled() {
    let profile = made(
        &[(42, 0), (43, 3)],
        &[
            (0, vec![1, 2], 3, 3, 3_000),
            (0, vec![1, 2, 0], 3 | 8, 1, 500),
            (1, vec![2], 4 | 16, 1, 200_000),
            (0, vec![1, 1], 0, 2, 2_001),
            (1, vec![2], 0, 2, 100),
            (0, vec![1], 1, 1, 1_000),
            (0, vec![2, 2], 2, 1, 1_000),
        ],
    );
    let seen = read(&profile);
    let gc = json!(["~", null, "<GC>"]);
    let f = json!(["/a/\n\"é.py", [7, 14, 4, 6], "f;\0"]);
    let g = json!(["/a/b.py", [8, 16, -1, -1], "g"]);
    let main = 32;
    let at = |us: u64| START_US + us;
    assert_eq!(
        seen["rows"],
        json!([
            [0, 42, main | 3, [at(1_000)], [g, f]],
            [0, 42, main | 3, [at(2_000), at(3_000)], [g, f]],
            [0, 42, main | 3, [at(3_500)], [gc, g, f]],
            [3, 43, 8 | 16, [at(200_000)], [g]],
            [0, 42, main, [at(4_501)], [f, f]],
            [0, 42, main, [at(5_501)], [f, f]],
            [0, 42, main | 2, [at(6_501)], [f]],
            [0, 42, main | 1, [at(7_501)], [g, g]],
            [3, 43, 0, [at(200_050), at(200_100)], [g]],
        ])
    );
    assert_eq!(seen["replayed"], 11);
    let info = &seen["info"];
    for (key, value) in [
        ("python_version", json!([3, 8, 18])),
        ("start_time_us", json!(START_US)),
        ("sample_interval_us", json!(1_000)),
        ("sample_count", json!(11)),
        ("thread_count", json!(2)),
        ("frame_count", json!(4)),
        ("compression_type", json!(1)),
        ("duration_sec", json!(2.0)),
        ("sample_rate", json!(950.0)),
        ("error_rate", json!(1.0)),
        ("missed_samples", json!(5.0)),
        ("mode", Value::Null),
    ] {
        assert_eq!(info[key], value, "{key}");
    }
}

#[test]
fn what_readers_would_not_take_is_left_out() {
    let deep = |depth: usize| vec![1; depth];
    let seen = read(&made(
        &[(1, 0)],
        &[(0, deep(256), 0, 1, 1), (0, deep(257), 0, 1, 1), (0, deep(5_000), 0, 40_000, 1)],
    ));
    let rows = seen["rows"].as_array().unwrap();
    let frames = |row: &Value| row[4].as_array().unwrap().clone();
    assert_eq!(frames(&rows[0]).len(), 256);
    assert_eq!(frames(&rows[0])[255][2], "f;\0");
    for row in &rows[1..] {
        assert_eq!(frames(row).len(), 256);
        assert_eq!(frames(row)[254][2], "f;\0");
        assert_eq!(frames(row)[255], json!(["~", null, "<truncated>"]));
    }
    assert_eq!(seen["replayed"], 40_002);
    assert_eq!(read(&made(&[], &[]))["replayed"], 0);
    let error = binary::write(&made(&[(1, 0)], &[(0, vec![1], 0, u64::MAX, 1)]), &mut Vec::new());
    assert!(error.unwrap_err().to_string().contains("more than the binary format"));
}

/// Runs the program, and returns what was recorded of it.
fn recorded(interpreter: &Interpreter, directory: &TempDir) -> Profile {
    let path = directory.path().join("recording");
    let options = format!("rate=2khz,opcodes,recording,output={}", path.display());
    let mut command = command(interpreter, "timeline.py", &[]);
    command.env("LD_PRELOAD", library()).env("PYTHONSAMPLE", options);
    let ended = run_to_end(&mut command).unwrap();
    assert!(ended.output.status.success());
    recording::read_file(&path).unwrap().0
}

fn replay(file: &Path, format: &str, to: &Path) {
    let [file, to] = [file, to].map(|path| path.to_str().unwrap());
    let flag = format!("--{format}");
    let said = python(&["-m", "profiling.sampling", "replay", &flag, "-o", to, file]);
    assert!(said.contains("Replayed "), "{format}: {said}");
}

fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// What [`OPCODES`] is to print: names are those of 3.15, which has the same instruction, or another form of it.
fn opcodes(profile: &Profile) -> Value {
    let [mut top, mut anywhere] = [(); 2].map(|()| BTreeMap::<String, u64>::new());
    for sample in &profile.samples {
        for (depth, id) in profile.leaf_first(sample.stack).enumerate() {
            let opcode = profile.frame(id).opcode.and_then(|opcode| opcode.in_series(15));
            let Some(opcode) = opcode else { continue };
            let shown = match opcode.base().filter(|_| opcode.is_specialised()) {
                Some(base) => format!("{opcode} ({base})"),
                None => opcode.to_string(),
            };
            // A module begins at line 0, which no page has.
            let is_on_page = profile.frame(id).location.line > 0;
            if is_on_page && !profile.function(id).file.starts_with(['<', '[']) {
                *anywhere.entry(shown.clone()).or_default() += sample.count;
            }
            if depth == 0 {
                *top.entry(shown).or_default() += sample.count;
            }
        }
    }
    assert!(top.len() > 2, "{top:?}");
    json!([top, anywhere])
}

#[test]
fn every_format_of_replay_has_all_samples() {
    for version in [(3, 8), (3, 15)] {
        let interpreter = support::supported().iter().find(|one| one.minor() == version);
        let Some(interpreter) = interpreter else { continue };
        let directory = TempDir::new().unwrap();
        let profile = recorded(interpreter, &directory);
        let file = written(&profile, &directory);
        let formats = ["gecko", "pstats", "jsonl", "flamegraph", "heatmap", "collapsed"];
        let paths = formats.map(|format| directory.path().join(format));
        for (format, path) in formats.iter().zip(&paths) {
            replay(&file, format, path);
        }
        let count: u64 = profile.samples.iter().map(|sample| sample.count).sum();
        let count_text = count.to_string();
        let mut arguments = vec!["-c", COUNT];
        arguments.extend(paths[..5].iter().map(|path| path.to_str().unwrap()));
        arguments.push(&count_text);
        let mut tids: Vec<u32> = profile.threads.iter().map(|thread| thread.tid).collect();
        tids.sort_unstable();
        let expected = json!({
            "gecko": count, "threads": tids, "pstats": count, "jsonl": count, "own": count,
            "pages": [true, true],
        });
        assert_eq!(json_of(&arguments), expected, "{}", interpreter.name);
        let heatmap = paths[4].to_str().unwrap();
        let seen = json_of(&["-c", OPCODES, file.to_str().unwrap(), heatmap]);
        assert_eq!(seen, opcodes(&profile), "{}", interpreter.name);
        let mut own = Vec::new();
        collapsed::write(&profile, &mut own).unwrap();
        let replayed = fs::read_to_string(&paths[5]).unwrap();
        assert_eq!(
            sorted_lines(&replayed),
            sorted_lines(std::str::from_utf8(&own).unwrap()),
            "{}",
            interpreter.name
        );
    }
}
