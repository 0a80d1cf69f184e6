//! Profiles for the exporters' unit tests.

use crate::profile::{
    Frame, FrameId, Function, FunctionId, Location, Meta, ProcessId, Profile, Sample, Stack,
    StackId, State, Thread, ThreadId,
};

/// A profile of one thread, 42, in file `/app/t.py`: stacks as `main:1 f:2`, root first, and their counts.
/// Each sample weighs 1 ms.
pub(crate) fn profile(stacks: &[(&str, u64)]) -> Profile {
    let mut profile = empty();
    add(&mut profile, 42, stacks);
    profile
}

/// A profile without samples.
pub(crate) fn empty() -> Profile {
    let meta = Meta {
        pid: 4242,
        program: "t.py".into(),
        command: vec!["python".into(), "t.py".into()],
        python: "CPython 3.13.0".into(),
        start_unix_ns: 1_700_000_000_000_000_000,
        duration_ns: 2_000_000_000,
        interval_ns: 1_000_000,
        ticks: 2_000,
        ..Meta::default()
    };
    Profile { processes: vec![meta.process()], meta, ..Profile::default() }
}

/// Adds a thread with its stacks to a profile.
pub(crate) fn add(profile: &mut Profile, tid: u32, stacks: &[(&str, u64)]) {
    let thread = ThreadId(profile.threads.len() as u32);
    let process = ProcessId(0);
    let name = "".into();
    profile.threads.push(Thread { process, tid, name, is_main: false, interpreter: 0 });
    for (stack, count) in stacks {
        let frames = stack.split_whitespace().map(|frame| {
            let (name, line) = frame.rsplit_once(':').unwrap();
            ("/app/t.py", name, line.parse().unwrap())
        });
        sample(profile, thread, frames, *count);
    }
}

/// Adds one sampled stack: frames as file, function and line, root first.
pub(crate) fn sample<'a>(
    profile: &mut Profile,
    thread: ThreadId,
    frames: impl IntoIterator<Item = (&'a str, &'a str, u32)>,
    count: u64,
) {
    let mut parent = None;
    for (file, name, line) in frames {
        let function = Function { file: file.into(), name: name.into(), first_line: 0 };
        let function = FunctionId(number(&mut profile.functions, function));
        let location = Location { line, end_line: line, column: 0, end_column: 0 };
        let frame = Frame { function, location, instruction: 0, opcode: None };
        let frame = FrameId(number(&mut profile.frames, frame));
        parent = Some(StackId(number(&mut profile.stacks, Stack { parent, frame })));
    }
    if let Some(stack) = parent {
        let weight_ns = count.saturating_mul(1_000_000);
        let state = State::default();
        profile.samples.push(Sample { thread, stack, state, count, weight_ns, cpu_ns: 0 });
        profile.meta.samples = profile.meta.samples.saturating_add(count);
    }
}

fn number<T: PartialEq>(table: &mut Vec<T>, item: T) -> u32 {
    let at = table.iter().position(|known| *known == item).unwrap_or_else(|| {
        table.push(item);
        table.len() - 1
    });
    at as u32
}

/// What a writer writes, as text.
pub(crate) fn text(write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// A text without what paints it.
pub(crate) fn without_colours(text: &str) -> String {
    let mut plain = text.to_owned();
    while let Some(at) = plain.find('\x1b') {
        let end = at + plain[at..].find('m').unwrap();
        plain.replace_range(at..=end, "");
    }
    plain
}
