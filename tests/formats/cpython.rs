//! CPython 3.15's own collectors, fed with the samples of a profile: what they write, and what pysamp does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use pysamp::export::Format;
use pysamp::profile::{FrameId, Profile, Sample};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::consumers::{printed, write_to, written};
use crate::sample::{self, INTERVAL_NS};
use crate::support;

/// A frame of a sample: file, name, and line, end line, column, end column.
type Frame = (String, String, [u32; 4]);

fn python() -> &'static support::Interpreter {
    support::supported().iter().find(|one| one.minor() == (3, 15)).unwrap()
}

/// Has the collectors write their files into a directory. `each` may change what they get to see.
fn collected(profile: &Profile, each: impl Fn(Frame) -> Frame) -> TempDir {
    let into = tempfile::tempdir().unwrap();
    let frames = |sample: &Sample| -> Vec<Frame> {
        let frames = profile.leaf_first(sample.stack).map(|id| {
            let (function, at) = (profile.function(id), &profile.frame(id).location);
            let location = [at.line, at.end_line, at.column, at.end_column];
            each((function.file.to_string(), function.name.to_string(), location))
        });
        frames.collect()
    };
    let samples: Vec<Value> = profile
        .samples
        .iter()
        .map(|sample| {
            let tid = profile.thread(sample.thread).tid;
            json!({"tid": tid, "count": sample.count, "frames": frames(sample)})
        })
        .collect();
    let given = json!({"interval_us": INTERVAL_NS / 1_000, "samples": samples});
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/cpython.py");
    let mut command = Command::new(&python().path);
    command.args(["-B", "-X", "utf8"]).arg(script).arg(into.path()).env("NO_COLOR", "1");
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    serde_json::to_writer(child.stdin.take().unwrap(), &given).unwrap();
    assert!(child.wait().unwrap().success());
    into
}

fn text(directory: &TempDir, name: &str) -> String {
    fs::read_to_string(directory.path().join(name)).unwrap()
}

fn pysamps(format: Format, profile: &Profile) -> String {
    String::from_utf8(written(format, profile)).unwrap()
}

/// Samples that weigh what they were asked to, which is what CPython's weigh, and file names that differ.
fn even() -> Profile {
    let mut profile = sample::plain();
    for sample in &mut profile.samples {
        sample.weight_ns = sample.count * INTERVAL_NS;
    }
    for function in &mut profile.functions {
        function.file = function.file.replace("/srv/lib/main.py", "/srv/lib/lib.py").into();
    }
    profile
}

#[test]
fn collapsed_is_the_same_to_the_byte() {
    let plain = sample::plain();
    let theirs = text(&collected(&plain, |frame| frame), "collapsed");
    assert_eq!(pysamps(Format::Collapsed, &plain), theirs);

    // Names that would break lines and parts are escaped, and what is bare has angle brackets; all else
    // is the same.
    let everything = sample::everything();
    let escape = |text: &str| sample::shown(&text.replace('\\', r"\\").replace(';', r"\x3b"));
    let theirs = collected(&everything, |(file, name, location)| {
        let is_bare = name.starts_with('<') && name.ends_with('>');
        let name = match &*file {
            "~" if !is_bare => format!("~:{}:0", escape(&name)),
            _ => escape(&name),
        };
        (escape(&file), name, location)
    });
    assert_eq!(pysamps(Format::Collapsed, &everything), text(&theirs, "collapsed"));
}

/// The frames of records with their numbers, and the total, whatever ids they have.
fn aggregated(text: &str) -> (Vec<String>, u64) {
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records[0]["type"], "meta");
    assert_eq!(records[0]["sample_interval_usec"], INTERVAL_NS / 1_000);
    let last = records.last().unwrap();
    assert_eq!(last["type"], "end");
    let known = ["meta", "string_table", "frame_table", "agg", "end"];
    let entries = |kind: &str, key: &str| -> Vec<Value> {
        let of_kind = records.iter().filter(|record| record["type"] == kind);
        of_kind.flat_map(|record| record[key].as_array().unwrap().clone()).collect()
    };
    let mut order: Vec<&str> =
        records.iter().filter_map(|record| record["type"].as_str()).collect();
    order.retain(|kind| known.contains(kind));
    order.dedup();
    assert_eq!(order, known);
    for record in &records {
        assert_eq!((&record["v"], &record["run_id"]), (&json!(0), &records[0]["run_id"]));
    }
    let strings = entries("string_table", "strings");
    let frames = entries("frame_table", "frames");
    let by_id = |table: &[Value], key: &str, id: &Value| {
        let entry = &table[id.as_u64().unwrap() as usize];
        assert_eq!(&entry[key], id);
        entry.clone()
    };
    let mut seen: Vec<String> = entries("agg", "entries")
        .into_iter()
        .map(|mut entry| {
            let mut frame = by_id(&frames, "frame_id", &entry["frame_id"]);
            for key in ["path_str_id", "func_str_id"] {
                frame[key] = by_id(&strings, "str_id", &frame[key])["value"].clone();
            }
            frame["frame_id"] = Value::Null;
            entry["frame_id"] = frame;
            entry.to_string()
        })
        .collect();
    seen.sort_unstable();
    (seen, last["samples_total"].as_u64().unwrap())
}

#[test]
fn records_are_those_of_the_collector() {
    for profile in [sample::plain(), sample::everything()] {
        let theirs = collected(&profile, |(file, name, location)| {
            (sample::shown(&file), sample::shown(&name), location)
        });
        let ours = pysamps(Format::Jsonl, &profile);
        let (frames, total) = aggregated(&ours);
        assert!(!frames.is_empty());
        assert_eq!((frames, total), aggregated(&text(&theirs, "jsonl")));
    }
}

/// What pysamp's records have besides: stacks and threads, which have to give the profile again.
#[test]
fn records_have_stacks_and_threads() {
    let profile = sample::everything();
    let ours = pysamps(Format::Jsonl, &profile);
    let records: Vec<Value> =
        ours.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let table = |kind: &str, key: &str| -> Vec<Value> {
        let of_kind = records.iter().filter(|record| record["type"] == kind);
        of_kind.flat_map(|record| record[key].as_array().unwrap().clone()).collect()
    };
    let strings = table("string_table", "strings");
    let frames = table("frame_table", "frames");
    let (stacks, threads) = (table("stack_table", "stacks"), table("thread_table", "threads"));
    let processes = table("process_table", "processes");
    let at = |table: &[Value], id: &Value| table[id.as_u64().unwrap() as usize].clone();
    let value = |id: &Value| at(&strings, id)["value"].as_str().unwrap().to_owned();
    let read = sample::sums(table("stack_agg", "entries").into_iter().map(|entry| {
        let mut stack = Vec::new();
        let mut next = entry["stack_id"].clone();
        while !next.is_null() {
            let node = at(&stacks, &next);
            let frame = at(&frames, &node["frame_id"]);
            let line = frame["line"].as_u64().unwrap() as u32;
            let file = value(&frame["path_str_id"]);
            let file = if file == "~" { String::new() } else { file };
            stack.push((file, value(&frame["func_str_id"]), line));
            next = node["parent_stack_id"].clone();
        }
        stack.reverse();
        let thread = at(&threads, &entry["thread_id"]);
        let pid = at(&processes, &thread["process_id"])["pid"].clone();
        let thread = format!("{pid} {} {}", thread["tid"], thread["name"]);
        let numbers = ["samples", "wall_ns", "cpu_ns"].map(|key| entry[key].as_u64().unwrap());
        ((thread, entry["state"].to_string(), stack), numbers)
    }));
    let names = [r#"[]"#, r#"["on_cpu"]"#, r#"["has_gil"]"#, r#"["on_cpu","has_gil"]"#];
    let expected = sample::sums(profile.samples.iter().map(|sample| {
        let thread = profile.thread(sample.thread);
        let name = json!(sample::shown(&thread.name));
        let label = format!("{} {} {name}", profile.process(thread).pid, thread.tid);
        let state = names[usize::from(sample.state.bits())].to_owned();
        ((label, state, sample::places(&profile, sample)), sample::numbers(sample))
    }));
    assert_eq!(read, expected);
}

/// Numbers in a text, in order.
fn numbers_in(text: &str) -> Vec<f64> {
    let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// The legend and the headings of the summary are in other words; a function is `file(function)` there, not
/// `file:(function)`.
#[test]
fn the_table_is_the_same_to_the_byte() {
    let theirs = text(&collected(&even(), |frame| frame), "table");
    let ours = pysamps(Format::PstatsTable, &even());
    let [ours, theirs] = [&ours, &theirs].map(|table| table.split_once("\nLegend:\n").unwrap());
    assert_eq!(ours.0, theirs.0);
    let summary = |rest: &str| -> Vec<String> {
        let lines = rest.lines().skip_while(|line| !line.is_empty());
        lines.filter(|line| line.starts_with("  ")).map(str::to_owned).collect()
    };
    let [ours, theirs] = [ours.1, theirs.1].map(summary);
    assert_eq!((ours.len(), theirs.len()), (9, 9));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(numbers_in(ours), numbers_in(theirs), "{ours}\n{theirs}");
        let function = |line: &str| line.rsplit_once(": ").unwrap().1.replace(":(", "(");
        assert_eq!(function(ours), function(theirs));
    }
}

/// Rows by file, line and function; their callers likewise.
type Rows = BTreeMap<String, ([f64; 4], BTreeMap<String, Value>)>;

fn rows(json: &Value) -> Rows {
    let rows = json["rows"].as_array().unwrap().iter().map(|row| {
        let numbers = [0, 1, 2, 3].map(|column| row[1][column].as_f64().unwrap());
        let callers = row[2].as_array().unwrap().iter();
        let callers = callers.map(|pair| (pair[0].to_string(), pair[1].clone())).collect();
        (row[0].to_string(), (numbers, callers))
    });
    rows.collect()
}

/// The file differs in three ways, so its bytes do: it has no key that marks it as sampled, which `pstats`
/// before 3.15 cannot load; callers have times besides, as cProfile's do; and a call that recursion has put
/// on a stack several times counts once in each sample.
#[test]
fn pstats_has_the_same_numbers() {
    let profile = even();
    let directory = collected(&profile, |frame| frame);
    let ours = directory.path().join("ours");
    write_to(&ours, Format::Pstats, &profile);
    let script = "import json, marshal, sys
stats = marshal.load(open(sys.argv[1], 'rb'))
print(json.dumps({'rows': [[key, value[:4], list(value[4].items())] for key, value in stats.items()]}))";
    let ours = printed(Command::new(&python().path).args(["-X", "utf8", "-c", script]).arg(&ours));
    let ours = rows(&serde_json::from_str(&ours).unwrap());
    let theirs: Value = serde_json::from_str(&text(&directory, "pstats.json")).unwrap();
    assert_eq!(theirs["others"], json!([["__sampled__"]]));
    let theirs = rows(&theirs);

    let mut calls: BTreeMap<[String; 2], [u64; 2]> = BTreeMap::new();
    for sample in &profile.samples {
        let stack = profile.root_first(sample.stack);
        let row = |&id: &FrameId| {
            let function = profile.function(id);
            json!([function.file, profile.frame(id).location.line, function.name]).to_string()
        };
        let stack: Vec<String> = stack.iter().map(row).collect();
        let pairs = stack.windows(2).map(|pair| [pair[1].clone(), pair[0].clone()]);
        let pairs: Vec<[String; 2]> = pairs.collect();
        for pair in &pairs {
            calls.entry(pair.clone()).or_default()[1] += sample.count;
        }
        for pair in pairs.into_iter().collect::<BTreeSet<_>>() {
            calls.entry(pair).or_default()[0] += sample.count;
        }
    }
    assert!(calls.values().any(|[once, each]| once < each));
    // To the nanosecond: sums of fractions differ in their last bits.
    let exact = |[cc, nc, tt, ct]: [f64; 4]| [cc, nc, (tt * 1e9).round(), (ct * 1e9).round()];
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (row, (numbers, callers)) in &ours {
        let (their_numbers, their_callers) = &theirs[row];
        assert_eq!(exact(*numbers), exact(*their_numbers), "{row}");
        assert_eq!(callers.len(), their_callers.len());
        for (caller, numbers) in callers {
            let [once, each] = calls[&[row.clone(), caller.clone()]];
            assert_eq!((&numbers[0], &their_callers[caller]), (&json!(once), &json!(each)));
        }
    }
}
