//! A profile with everything that can be in one: processes, threads, tasks, recursion, names of any text.

use std::collections::BTreeMap;

use pysamp::profile::timeline::Entry;
use pysamp::profile::{
    Frame, FrameId, Function, FunctionId, Location, Meta, Numbers, ProcessId, Profile, Sample,
    Stack, StackId, State, Thread, ThreadId, Timeline,
};

/// How long a sample is, in nanoseconds.
pub const INTERVAL_NS: u64 = 1_000_000;

/// Functions: file, name, first line, and a line that is executed.
const PLAIN: [(&str, &str, u32, u32); 8] = [
    ("/srv/app/main.py", "<module>", 1, 40),
    ("/srv/app/main.py", "serve", 3, 9),
    ("/srv/app/main.py", "serve.<locals>.<lambda>", 7, 7),
    ("/srv/app/tree.py", "Node.walk", 11, 14),
    ("/srv/app/tree.py", "Node.visit", 20, 21),
    ("/srv/lib/main.py", "serve", 3, 5),
    ("~", "<GC>", 0, 0),
    ("~", "<native>", 0, 0),
];
const TASK: (&str, &str, u32, u32) = ("<task>", "worker-7", 0, 0);
const HOSTILE: [(&str, &str, u32, u32); 10] = [
    ("/srv/<script>alert(1)</script>.py", "<img src=x onerror=alert(1)>", 1, 2),
    ("a;b \"'.py", "f;\"'\\\n\r\t\u{1b}[31m", 2, 3),
    ("(2) x", "(1)", 3, 4),
    ("", "", 4, 5),
    ("std.cc", "std::vector<int>::at(long) const", 5, 6),
    ("\u{2028}\u{202e}.py", "größe\u{2029}関数", 6, 7),
    ("fn=(1)", "calls=1 2", 7, 8),
    ("~", "x} 12", 0, 0),
    ("${a}%s@@.py", "]]>--></script>", 8, 9),
    ("/srv/app/main.py", "samples wall 100.00%", 9, 10),
];

/// Numbers without pattern, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

/// A profile as a recording of one process would give it: threads that walk up and down their stacks.
pub struct Process {
    functions: Numbers<Function>,
    frames: Numbers<Frame>,
    stacks: Numbers<Stack>,
    tallies: Numbers<(ThreadId, StackId, State)>,
    samples: Vec<Sample>,
    threads: Vec<Thread>,
    entries: Vec<Entry>,
    meta: Meta,
}

impl Process {
    fn new(pid: u32, program: &str, start_unix_ns: u64) -> Self {
        let meta = Meta {
            pid,
            parent_pid: 1,
            program: program.into(),
            command: vec!["python3".into(), program.into(), "a\nb \"c\"".into()],
            python: "CPython 3.13.0".into(),
            start_unix_ns,
            interval_ns: INTERVAL_NS,
            ticks: 1_000,
            missed: 3,
            failed: 2,
            ..Meta::default()
        };
        Self {
            functions: Numbers::default(),
            frames: Numbers::default(),
            stacks: Numbers::default(),
            tallies: Numbers::default(),
            samples: Vec::new(),
            threads: Vec::new(),
            entries: Vec::new(),
            meta,
        }
    }

    fn stack(&mut self, path: &[(&str, &str, u32, u32)], column: u32) -> StackId {
        let mut parent = None;
        for &(file, name, first_line, line) in path {
            let function = Function { file: file.into(), name: name.into(), first_line };
            let function = FunctionId(self.functions.of(function));
            let column = if line == 0 { 0 } else { column };
            let location =
                Location { line, end_line: line, column, end_column: column.saturating_mul(3) };
            let frame = Frame { function, location, instruction: line as i32, opcode: None };
            let frame = FrameId(self.frames.of(frame));
            parent = Some(StackId(self.stacks.of(Stack { parent, frame })));
        }
        parent.unwrap()
    }

    /// A thread that is sampled `samples` times from `start_ms` on.
    fn thread(
        mut self,
        (tid, name): (u32, &str),
        functions: &[(&'static str, &'static str, u32, u32)],
        (start_ms, samples): (u64, u64),
    ) -> Self {
        let thread = ThreadId(self.threads.len() as u32);
        let is_main = tid == self.meta.pid;
        let process = ProcessId(0);
        self.threads.push(Thread { process, tid, name: name.into(), is_main, interpreter: 0 });
        let mut dice = Dice(u64::from(tid) << 20 | start_ms);
        let mut path = vec![functions[0]];
        let mut end_us = start_ms * 1_000;
        for _ in 0..samples {
            path.truncate(1 + dice.roll(path.len() as u64) as usize);
            while path.len() < 9 && dice.roll(3) > 0 {
                path.push(functions[dice.roll(functions.len() as u64) as usize]);
            }
            let stack = self.stack(&path, 1 + dice.roll(2) as u32 * 4);
            let state = State::from_bits(dice.roll(4) as u32).unwrap();
            let count = 1 + dice.roll(3) * dice.roll(3);
            // Samples stand for any time, and now and then for none that is known.
            let wall_us = count * INTERVAL_NS / 1_000 + dice.roll(5);
            let cpu_us = if state.has(State::ON_CPU) { wall_us - dice.roll(900) } else { 0 };
            end_us += wall_us + dice.roll(20) / 19 * 7_000;
            let tally = self.tallies.of((thread, stack, state));
            let sample = Sample {
                thread,
                stack,
                state,
                count,
                weight_ns: wall_us * 1_000,
                cpu_ns: cpu_us * 1_000,
            };
            match self.samples.get_mut(tally as usize) {
                Some(known) => known.add(&sample),
                None => self.samples.push(sample),
            }
            let (wall_us, cpu_us) = (Some(wall_us), Some(cpu_us));
            self.entries.push(Entry { tally, end_us, wall_us, cpu_us, count });
        }
        self
    }

    fn profile(mut self) -> Profile {
        self.entries.sort_by_key(|entry| entry.end_us);
        let mut block = Vec::new();
        let mut before_us = 0;
        for entry in &self.entries {
            entry.write(before_us, &mut block);
            before_us = entry.end_us;
        }
        let samples = self.samples.iter().map(|sample| sample.count).sum();
        let meta = Meta { samples, duration_ns: before_us * 1_000, ..self.meta };
        Profile {
            processes: vec![meta.process()],
            meta,
            functions: self.functions.keys,
            frames: self.frames.keys,
            stacks: self.stacks.keys,
            threads: self.threads,
            timeline: Timeline::new(vec![block.into()], (0..self.samples.len() as u32).collect()),
            samples: self.samples,
        }
    }
}

/// Names as most programs have them: one process, two threads.
pub fn plain() -> Profile {
    Process::new(4242, "main.py", 1_700_000_000_000_000_000)
        .thread((4242, "MainThread"), &PLAIN, (0, 400))
        .thread((4250, "worker 1"), &PLAIN, (30, 200))
        .profile()
}

/// Two processes, names of any text, tasks, and threads that have the same id: one after the other, and
/// at the same time.
pub fn everything() -> Profile {
    let all: Vec<_> = PLAIN.into_iter().chain([TASK]).chain(HOSTILE).collect();
    let first = Process::new(4242, "</title><script>.py", 1_700_000_000_000_000_000)
        .thread((4242, "MainThread"), &all, (0, 600))
        .thread((4250, ""), &all[3..], (5, 300))
        .thread((4251, "a\nb <b>\u{202e}"), &all[5..], (200, 100))
        .profile();
    let second = Process::new(5555, "main.py", 1_700_000_000_250_000_000)
        .thread((5555, "MainThread"), &PLAIN, (0, 200))
        .thread((5560, "again"), &PLAIN, (0, 50))
        .thread((5560, "again"), &PLAIN, (100, 50))
        .thread((5560, "again"), &PLAIN, (4_000, 50))
        .profile();
    Profile::merge([first, second])
}

/// A text as every format shows it, for those characters that are in the names above.
pub fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        match c {
            '\n' => shown += r"\n",
            '\r' => shown += r"\r",
            '\t' => shown += r"\t",
            '\u{1b}' => shown += r"\x1b",
            '\u{2028}' | '\u{2029}' | '\u{202e}' => shown += &format!(r"\u{:04x}", u32::from(c)),
            c => shown.push(c),
        }
    }
    shown
}

/// Samples, wall and CPU nanoseconds.
pub type Numbers3 = [u64; 3];

/// Adds numbers up by key.
pub fn sums<K: Ord>(rows: impl IntoIterator<Item = (K, Numbers3)>) -> BTreeMap<K, Numbers3> {
    let mut sums = BTreeMap::new();
    for (key, numbers) in rows {
        let sum: &mut Numbers3 = sums.entry(key).or_default();
        sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
    }
    sums
}

/// A frame as it is shown: file, name, line. Synthetic ones have no file.
pub type Place = (String, String, u32);

/// The frames of a sample's stack, root first.
pub fn places(profile: &Profile, sample: &Sample) -> Vec<Place> {
    let place = |frame| {
        let function = profile.function(frame);
        let file = if &*function.file == "~" { "" } else { &function.file };
        (shown(file), shown(&function.name), profile.frame(frame).location.line)
    };
    profile.root_first(sample.stack).into_iter().map(place).collect()
}

/// What a sample counts.
pub fn numbers(sample: &Sample) -> Numbers3 {
    [sample.count, sample.weight_ns, sample.cpu_ns]
}

/// Compares numbers by key, and shows only those that differ.
pub fn assert_same<K: Ord + std::fmt::Debug>(
    read: &BTreeMap<K, Numbers3>,
    expected: &BTreeMap<K, Numbers3>,
) {
    let keys = read.keys().chain(expected.keys());
    let different = keys.filter(|key| read.get(key) != expected.get(key));
    let different: Vec<_> = different.map(|key| (key, read.get(key), expected.get(key))).collect();
    assert!(
        !expected.is_empty() && different.is_empty(),
        "{} differ: {:#?}",
        different.len(),
        &different[..different.len().min(8)]
    );
}
