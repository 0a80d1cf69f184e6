//! The pages in a real browser: the flame graph with every control, hostile names, large profiles, two compared;
//! and the heatmap, as a directory and as one file. The checks themselves are in `tests/page/`; this writes the pages that they open.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pysamp::export::{heatmap, html};
use pysamp::layout::Version;
use pysamp::profile::timeline::{Entry, Timeline};
use pysamp::profile::{
    Frame, FrameId, Function, FunctionId, Location, Meta, Numbers, Opcode, Process, ProcessId,
    Profile, Sample, Stack, StackId, State, Thread, ThreadId,
};
use std::path::{Path, PathBuf};
use std::process::Command;

const ON_CPU: u32 = 3;
const WAITS_FOR_GIL: u32 = 4;
const IDLE: u32 = 0;

/// A profile in the making.
struct Maker {
    profile: Profile,
    functions: Numbers<(String, String)>,
    frames: Numbers<(u32, u32)>,
    stacks: Numbers<(Option<u32>, u32)>,
}

impl Maker {
    fn new(seconds: u64) -> Self {
        let meta = Meta {
            pid: 4242,
            program: "app.py".into(),
            command: vec!["python".into(), "app.py".into(), "two words".into()],
            python: "CPython 3.15.2".into(),
            start_unix_ns: 1_700_000_000_000_000_000,
            duration_ns: seconds * 1_000_000_000,
            interval_ns: 1_000_000,
            ticks: seconds * 1_000,
            ..Meta::default()
        };
        let other = Process { pid: 4243, program: "worker.py".into(), ..meta.process() };
        let processes = vec![meta.process(), other];
        Self {
            profile: Profile { meta, processes, ..Profile::default() },
            functions: Numbers::default(),
            frames: Numbers::default(),
            stacks: Numbers::default(),
        }
    }

    fn thread(&mut self, process: u32, tid: u32, name: &str) -> u32 {
        let process = ProcessId(process);
        let is_main = name.is_empty();
        self.profile.threads.push(Thread {
            process,
            tid,
            name: name.into(),
            is_main,
            interpreter: 0,
        });
        self.profile.threads.len() as u32 - 1
    }

    /// Adds samples of 1 ms of a stack: frames as file, function and line, root first. Returns their number.
    fn sample(&mut self, thread: u32, stack: &[(&str, &str, u32)], state: u32, count: u64) -> u32 {
        let mut parent = None;
        for &(file, name, line) in stack {
            let function = self.functions.of((file.to_owned(), name.to_owned()));
            let frame = self.frames.of((function, line));
            parent = Some(self.stacks.of((parent, frame)));
        }
        let weight_ns = count * 1_000_000;
        self.profile.samples.push(Sample {
            thread: ThreadId(thread),
            stack: StackId(parent.unwrap()),
            state: State::from_bits(state).unwrap(),
            count,
            weight_ns,
            cpu_ns: if state & 1 == 1 { weight_ns } else { 0 },
        });
        self.profile.meta.samples += count;
        self.profile.samples.len() as u32 - 1
    }

    fn done(self) -> Profile {
        let functions = self.functions.keys.into_iter().map(|(file, name)| Function {
            file: file.into(),
            name: name.into(),
            first_line: 1,
        });
        let frames = self.frames.keys.into_iter().map(|(function, line)| Frame {
            function: FunctionId(function),
            location: Location { line, ..Location::default() },
            instruction: 0,
            opcode: None,
        });
        let stacks = self
            .stacks
            .keys
            .into_iter()
            .map(|(parent, frame)| Stack { parent: parent.map(StackId), frame: FrameId(frame) });
        Profile {
            functions: functions.collect(),
            frames: frames.collect(),
            stacks: stacks.collect(),
            ..self.profile
        }
    }
}

/// Four seconds of three threads of two processes. The main thread works for two seconds and waits for two; the
/// worker waits for the GIL for two seconds and works for two; the other process runs a task all along.
fn typical(app: &str) -> Profile {
    let mut maker = Maker::new(4);
    let main = maker.thread(0, 4242, "");
    let worker = maker.thread(0, 4244, "worker-1");
    let other = maker.thread(1, 4243, "");
    let library = "/usr/lib/python3.15/json/decoder.py";
    let works = [
        maker.sample(main, &[(app, "main", 2), (app, "work", 6)], ON_CPU, 1_500),
        maker.sample(main, &[(app, "main", 2), (app, "work", 7)], ON_CPU, 500),
    ];
    let waits = maker.sample(main, &[(app, "main", 3), (app, "wait", 10)], IDLE, 2_000);
    let contends =
        maker.sample(worker, &[(app, "run", 14), (app, "work", 6)], WAITS_FOR_GIL, 2_000);
    let recursion = [(app, "run", 14), (library, "decode", 9), (library, "decode", 9)];
    let decodes = maker.sample(worker, &recursion, ON_CPU, 2_000);
    let task = [(app, "main", 2), ("<task>", "fetch <b>", 0), (app, "wait", 10)];
    let tasks = maker.sample(other, &task, IDLE, 4_000);
    let mut profile = maker.done();

    let mut entries = Vec::new();
    for ms in 1..=2_000_u64 {
        entries.push((ms, works[usize::from(ms % 4 == 0)], 1));
        entries.push((ms, contends, 1));
        entries.push((2_000 + ms, decodes, 1));
    }
    entries.extend([(4_000, waits, 2_000), (4_000, tasks, 4_000)]);
    entries.sort();
    let (mut block, mut previous_us) = (Vec::new(), 0);
    for (ms, tally, count) in entries {
        let cpu_us = if profile.samples[tally as usize].cpu_ns > 0 { None } else { Some(0) };
        let (end_us, wall_us) = (ms * 1_000, Some(count * 1_000));
        Entry { tally, end_us, wall_us, cpu_us, count }.write(previous_us, &mut block);
        previous_us = end_us;
    }
    let tallies = 0..profile.samples.len() as u32;
    profile.timeline = Timeline::new(vec![block.into()], tallies.collect());
    profile
}

/// Names that would do harm as markup, as a pattern, as an address, or by their length.
fn hostile() -> Profile {
    let mut maker = Maker::new(1);
    let bad =
        "<script>window.harmed = 1</script><img src=x onerror='window.harmed=1'>\"'`&amp;]]>@@";
    let thread = maker.thread(0, 1, bad);
    let huge = "x".repeat(1 << 20);
    let odd = "line\u{2028}separator\u{202e}\u{0}\u{1b}[31m\n</script><!--";
    for name in [bad, odd, &huge, "__proto__", "constructor", "", "𝒳é關", "${harmed}", "</title>"]
    {
        maker.sample(thread, &[(bad, "main", 1), (name, name, 2), ("<task>", name, 0)], 1, 10);
    }
    let mut profile = maker.done();
    profile.meta.program = bad.into();
    profile.meta.python = bad.into();
    profile.meta.command = vec![bad.into(), odd.into()];
    profile
}

/// A hundred seconds of eight threads, which have so many different stacks in all, twenty deep, of 2,000 functions:
/// at more times than a page tells. The strip has 400 buckets; in each, another thread has a break. Between
/// the 105th and the 110th the first thread works in one function for a second more.
fn large(stacks: u32) -> Profile {
    let mut maker = Maker::new(100);
    let threads: Vec<u32> = (0..8).map(|at| maker.thread(0, 100 + at, &format!("t{at}"))).collect();
    let names: Vec<String> = (0..2_000).map(|at| format!("function_{at}")).collect();
    let files: Vec<String> = (0..60).map(|at| format!("/srv/app/package/module_{at}.py")).collect();
    let mut random = 12_345_u64;
    let mut next = |most: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % most
    };
    let mut taken = Vec::new();
    let mut counts = [0_u64; 8];
    for at in 0..stacks {
        let mut frames = Vec::new();
        let mut choice = 0;
        for depth in 0..20_u64 {
            // Wide near the root, and every stack another one in the end.
            choice = (choice * 7 + next(2 + depth / 4) + depth * 31) % 2_000;
            let name = if depth == 19 { (at % 2_000) as usize } else { choice as usize };
            let line = if depth == 19 { at / 2_000 + 1 } else { 5 };
            frames.push((files[name % 60].as_str(), names[name].as_str(), line));
        }
        let thread = at as usize % 8;
        let count = 3 + next(5) * u64::from(at % 7 == 0);
        let tally = maker.sample(threads[thread], &frames, at % 4, count);
        for _ in 0..count {
            // One after the other of the 350 in which the thread has no break, here and there.
            let place = counts[thread] * 151 % 350;
            counts[thread] += 1;
            let bucket = place / 7 * 8 + (thread as u64 + 1 + place % 7) % 8;
            taken.push((bucket, tally));
        }
    }
    let frequent = maker.sample(threads[0], &[(&files[0], "frequent", 1)], ON_CPU, 1_000);
    taken.extend((0..1_000).map(|at| (105 + at % 5, frequent)));
    taken.sort_unstable();
    let mut profile = maker.done();
    let (mut block, mut previous_us) = (Vec::new(), 0);
    for (bucket, tally) in taken {
        let cpu_us = if profile.samples[tally as usize].cpu_ns > 0 { None } else { Some(0) };
        let end_us = bucket * 250_000 + 125_000;
        Entry { tally, end_us, wall_us: Some(1_000), cpu_us, count: 1 }
            .write(previous_us, &mut block);
        previous_us = end_us;
    }
    let tallies = 0..profile.samples.len() as u32;
    profile.timeline = Timeline::new(vec![block.into()], tallies.collect());
    profile
}

/// 1.5 seconds at a line whose instructions are known, but for 0.1 seconds: a specialised call for 0.6 seconds on
/// the processor and 0.5 seconds off it, and a store.
fn instructed(app: &str) -> Profile {
    let mut maker = Maker::new(2);
    let main = maker.thread(0, 4242, "");
    let worker = maker.thread(0, 4244, "worker-1");
    // Lines that stand for the instructions of line 6.
    for (thread, line, state, count) in [
        (main, 6, ON_CPU, 600),
        (worker, 6, IDLE, 500),
        (main, 106, ON_CPU, 300),
        (main, 206, ON_CPU, 100),
    ] {
        maker.sample(thread, &[(app, "main", 2), (app, "work", line)], state, count);
    }
    let mut profile = maker.done();
    let version = Version { major: 3, minor: 13, micro: 0 };
    let mut all = (0..=255).filter_map(|number| Opcode::new(version, number));
    let mut named = |name| all.find(|opcode| opcode.name() == Some(name));
    let [store, call] = ["STORE_FAST", "CALL_BUILTIN_O"].map(|name| named(name).unwrap());
    let at = |line, column, end_column| Location { line, end_line: line, column, end_column };
    for frame in &mut profile.frames {
        (frame.opcode, frame.location) = match frame.location.line {
            6 => (Some(call), at(6, 13, 29)),
            106 => (Some(store), at(6, 5, 10)),
            206 => (None, at(6, 0, 0)),
            line => (Some(call), Location { end_line: line + 1, ..at(line, 5, 3) }),
        };
    }
    profile
}

/// A later run: `same` as before, `slow` twice as slow, `fast` half, `new` and `old` on one side only.
fn compared() -> [Profile; 2] {
    [[1_000, 2_000, 500, 400, 0], [1_000, 1_000, 1_000, 0, 700]].map(|counts| {
        let mut maker = Maker::new(4);
        let thread = maker.thread(0, 1, "");
        for (name, count) in ["same", "slow", "fast", "new", "old"].into_iter().zip(counts) {
            if count > 0 {
                let line = count as u32;
                let frames = [("/a.py", "main", line), ("/a.py", name, line)];
                maker.sample(thread, &frames, ON_CPU, count);
            }
        }
        maker.done()
    })
}

/// The browser's driver, where it and the browser are there; on a build server (`CI` is set) they must be.
fn driver() -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let cache =
        std::env::var_os("PYSAMP_CACHE").map_or_else(|| home.join(".cache/pysamp"), PathBuf::from);
    let driver = cache.join("consumers/npm/node_modules/playwright-core");
    let runs = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let is_there = driver.is_dir() && runs("node") && runs("chromium");
    assert!(
        is_there || std::env::var_os("CI").is_none(),
        "tests/consumers.sh provides the browser that is missing"
    );
    is_there.then_some(driver)
}

#[test]
fn the_page_in_a_browser() {
    let Some(driver) = driver() else {
        println!("no browser: tests/consumers.sh provides it");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app.py");
    std::fs::write(&app, SOURCE).unwrap();
    let file = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
    html::write(&typical(app.to_str().unwrap()), &mut file("typical.html")).unwrap();
    let instructed = instructed(app.to_str().unwrap());
    html::write(&instructed, &mut file("instructed.html")).unwrap();
    let heatmaps = [
        ("map", typical(app.to_str().unwrap())),
        ("instructed_map", instructed),
        ("hostile_map", hostile()),
    ];
    for (name, profile) in heatmaps {
        let pages = folder.path().join(name);
        std::fs::create_dir(&pages).unwrap();
        heatmap::write(&profile, &pages).unwrap();
        heatmap::write_file(&profile, &mut file(&format!("{name}.html"))).unwrap();
    }
    html::write(&hostile(), &mut file("hostile.html")).unwrap();
    html::write(&large(100_000), &mut file("large.html")).unwrap();
    html::write(&Profile::default(), &mut file("empty.html")).unwrap();
    let [current, baseline] = compared();
    html::write_diff(&current, &baseline, &mut file("diff.html")).unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/check.mjs");
    let output = Command::new("node").arg(script).arg(folder.path()).arg(driver).output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}

const SOURCE: &str = r#"def main():
    work()
    wait()

def work():
    total = sum(range(1000))  # <i>hot</i>
    return total

def wait():
    time.sleep(2)


def run():
    return work() or json.loads(TEXT)
"#;
