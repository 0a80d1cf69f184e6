//! pprof: what `go tool pprof` says of a file, and what else is in it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use flate2::read::GzDecoder;
use prost::Message;
use pysamp::export::Format;
use pysamp::profile::{Mode, Profile, Sample};

use crate::consumers::{consumer, printed, write_to, written};
use crate::sample::{self, Numbers3, numbers, places, shown, sums};

/// The parts of pprof's `profile.proto` that its own tool does not show.
#[derive(Message)]
struct File {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
    #[prost(int64, tag = "5")]
    start_line: i64,
}

impl File {
    fn of(profile: &Profile) -> Self {
        let mut bytes = Vec::new();
        let packed = written(Format::Pprof, profile);
        std::io::Read::read_to_end(&mut GzDecoder::new(&packed[..]), &mut bytes).unwrap();
        Self::decode(&bytes[..]).unwrap()
    }

    fn text(&self, string: i64) -> &str {
        &self.string_table[string as usize]
    }

    fn types(&self) -> Vec<String> {
        let types = self.sample_type.iter();
        types.map(|of| format!("{}/{}", self.text(of.kind), self.text(of.unit))).collect()
    }
}

#[test]
fn what_the_tool_does_not_show() {
    let profile = sample::everything();
    let file = File::of(&profile);
    assert_eq!(file.string_table[0], "");
    let distinct: HashSet<&String> = file.string_table.iter().collect();
    assert_eq!(distinct.len(), file.string_table.len());
    assert_eq!(file.types(), ["samples/count", "wall/nanoseconds", "cpu/nanoseconds"]);
    assert_eq!(file.text(file.default_sample_type), "wall");
    let period = file.period_type.as_ref().unwrap();
    assert_eq!([file.text(period.kind), file.text(period.unit)], ["wall", "nanoseconds"]);
    let meta = &profile.meta;
    assert_eq!(file.period as u64, meta.interval_ns);
    assert_eq!(file.time_nanos as u64, meta.start_unix_ns);
    assert_eq!(file.duration_nanos as u64, meta.duration_ns);
    assert_eq!(file.function.len(), profile.functions.len());
    for function in &file.function {
        let expected = &profile.functions[function.id as usize - 1];
        assert_eq!(file.text(function.name), shown(&expected.name));
        let system_name = format!("{}:{}", shown(&expected.file), shown(&expected.name));
        assert_eq!(file.text(function.system_name), system_name);
        let filename = if &*expected.file == "~" { "" } else { &expected.file };
        assert_eq!(file.text(function.filename), shown(filename));
        assert_eq!(function.start_line, i64::from(expected.first_line));
    }
    let cpu = File::of(&profile.in_mode(Mode::Cpu));
    assert_eq!(cpu.types(), ["samples/count", "cpu/nanoseconds"]);
    assert_eq!(cpu.text(cpu.default_sample_type), "cpu");
    assert!(cpu.function.len() <= file.function.len());
}

/// A name as the tool has it: without one it shows where the function is.
fn name_in_tool(file: &str, name: &str) -> String {
    if name.is_empty() { format!("{file}:") } else { name.to_owned() }
}

/// A location as `-raw` shows it.
fn location(profile: &Profile, frame: pysamp::profile::FrameId) -> String {
    let function = profile.function(frame);
    let line = profile.frame(frame).location.line;
    let [file, name] = [&function.file, &function.name].map(|text| shown(text));
    let system = format!("{file}:{name}");
    let seen = name_in_tool(&file, &name);
    let file = if file == "~" { "" } else { &file };
    let place = format!("{seen} {file}:{line} s={}", function.first_line);
    if seen == system { place } else { format!("{place}({system})") }
}

/// The labels of a sample as `-raw` shows them.
fn labels(profile: &Profile, sample: &Sample) -> [String; 2] {
    let thread = profile.thread(sample.thread);
    let process = profile.process(thread);
    let task = profile.leaf_first(sample.stack).map(|frame| profile.function(frame));
    let task = task.into_iter().find(|function| &*function.file == "<task>");
    let texts = [
        ("process", shown(&process.program)),
        ("task", task.map_or_else(String::new, |function| shown(&function.name))),
        ("thread", shown(&thread.name)),
    ];
    let texts = texts.iter().filter(|(_, text)| !text.is_empty());
    let texts: Vec<String> = texts.map(|(key, text)| format!("{key}:[{text}]")).collect();
    [texts.join(" "), format!("process id:[{}] thread id:[{}]", process.pid, thread.tid)]
}

type Raw = BTreeMap<([String; 2], Vec<String>), Numbers3>;

fn expected_raw(profile: &Profile) -> Raw {
    sums(profile.samples.iter().map(|sample| {
        let stack = profile.leaf_first(sample.stack).map(|frame| location(profile, frame));
        ((labels(profile, sample), stack.collect()), numbers(sample))
    }))
}

fn parsed_raw(text: &str) -> Raw {
    let (head, locations) = text.split_once("\nLocations\n").unwrap();
    let (locations, _) = locations.split_once("\nMappings\n").unwrap();
    let locations: HashMap<&str, &str> =
        locations.lines().map(|line| line.trim_start().split_once(": 0x0 M=1 ").unwrap()).collect();
    let (_, samples) = head.split_once("\nSamples:\n").unwrap();
    let (types, samples) = samples.split_once('\n').unwrap();
    assert_eq!(types, "samples/count wall/nanoseconds[dflt] cpu/nanoseconds");
    let lines: Vec<&str> = samples.lines().map(str::trim).collect();
    sums(lines.chunks(3).map(|sample| {
        let (values, stack) = sample[0].split_once(':').unwrap();
        let values: Vec<u64> =
            values.split_whitespace().map(|value| value.parse().unwrap()).collect();
        let stack = stack.split_whitespace().map(|id| locations[id].to_owned()).collect();
        (([sample[1].to_owned(), sample[2].to_owned()], stack), values.try_into().unwrap())
    }))
}

/// Samples of each stack of names, leaf first, as `-traces` shows them.
fn parsed_traces(text: &str) -> BTreeMap<Vec<String>, Numbers3> {
    let keys = ["thread:", "process:", "task:", "thread id:", "process id:"];
    let blocks =
        text.split("-----------+-------------------------------------------------------\n");
    sums(blocks.skip(1).filter(|block| !block.is_empty()).map(|block| {
        let lines = block.lines().map(str::trim);
        let mut lines = lines.skip_while(|line| keys.iter().any(|key| line.starts_with(key)));
        let (samples, leaf) = lines.next().unwrap().split_once("   ").unwrap();
        let stack = std::iter::once(leaf).chain(lines).map(str::to_owned).collect();
        (stack, [samples.parse().unwrap(), 0, 0])
    }))
}

/// Direct and cumulative samples of each name, as `-top` shows them.
fn parsed_top(text: &str) -> BTreeMap<String, [u64; 2]> {
    let rows = text.lines().skip_while(|line| !line.trim_start().starts_with("flat "));
    rows.skip(1)
        .map(|row| {
            let mut rest = row;
            let mut columns = Vec::new();
            for _ in 0..5 {
                let (column, after) = rest.trim_start().split_once(' ').unwrap();
                (rest, columns) = (after, [columns, vec![column]].concat());
            }
            let numbers = [columns[0], columns[3]].map(|number| number.parse().unwrap());
            (rest.trim_start().to_owned(), numbers)
        })
        .collect()
}

fn check(tool: &Path, profile: &Profile) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile.pb.gz");
    write_to(&path, Format::Pprof, profile);
    let pprof = |options: &[&str]| {
        let home = ("HOME", folder.path());
        let all = ["-nodecount=1000000", "-nodefraction=0", "-edgefraction=0"];
        printed(Command::new(tool).args(options).args(all).arg(&path).env(home.0, home.1))
    };
    assert_eq!(parsed_raw(&pprof(&["-raw"])), expected_raw(profile));

    let names = |sample: &Sample| -> Vec<String> {
        let places = places(profile, sample).into_iter().rev();
        places.map(|(file, name, _)| name_in_tool(&file, &name)).collect()
    };
    let by_names = sums(profile.samples.iter().map(|sample| (names(sample), [sample.count, 0, 0])));
    assert_eq!(parsed_traces(&pprof(&["-traces", "-sample_index=samples"])), by_names);

    let mut by_name: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for sample in &profile.samples {
        let names = names(sample);
        by_name.entry(names[0].clone()).or_default()[0] += sample.count;
        for name in names.into_iter().collect::<HashSet<String>>() {
            by_name.entry(name).or_default()[1] += sample.count;
        }
    }
    assert_eq!(parsed_top(&pprof(&["-top", "-sample_index=samples"])), by_name);
}

#[test]
fn go_tool_pprof_agrees_to_the_sample() {
    let Some(tool) = consumer("pprof") else { return };
    check(&tool, &sample::plain());
    check(&tool, &sample::everything());
}
