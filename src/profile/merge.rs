//! Several profiles as one: what is equal becomes one, but each process keeps its threads.

use std::collections::HashMap;

use super::{
    Frame, FrameId, Function, FunctionId, Meta, Numbers, Process, ProcessId, Profile, Sample,
    Stack, StackId, Thread, ThreadId,
};

impl Profile {
    /// All samples of these profiles. Counts are added up, and the time in which any of them was sampled;
    /// of the rest, the first one's is kept, and the names of other programs and Pythons put behind it.
    pub fn merge(profiles: impl IntoIterator<Item = Profile>) -> Profile {
        let mut profiles = profiles.into_iter();
        let Some(first) = profiles.next() else { return Profile::default() };
        let Some(second) = profiles.next() else { return first };
        let mut merged = Merged::default();
        let mut meta = first.meta.clone();
        merged.add(first, meta.start_unix_ns);
        for profile in std::iter::once(second).chain(profiles) {
            let start = meta.start_unix_ns;
            add_meta(&mut meta, &profile.meta);
            merged.rest.timeline.delay(start - meta.start_unix_ns);
            merged.add(profile, meta.start_unix_ns);
        }
        meta.duration_ns = covered_ns(&merged.rest.processes);
        Profile {
            meta,
            functions: merged.functions.keys,
            frames: merged.frames.keys,
            stacks: merged.stacks.keys,
            ..merged.rest
        }
    }
}

fn add_meta(meta: &mut Meta, other: &Meta) {
    add_name(&mut meta.program, &other.program);
    add_name(&mut meta.python, &other.python);
    meta.start_unix_ns = meta.start_unix_ns.min(other.start_unix_ns);
    for (sum, number) in [
        (&mut meta.ticks, other.ticks),
        (&mut meta.missed, other.missed),
        (&mut meta.samples, other.samples),
        (&mut meta.failed, other.failed),
    ] {
        *sum = sum.saturating_add(number);
    }
}

/// Nanoseconds in which at least one of the processes was sampled.
fn covered_ns(processes: &[Process]) -> u64 {
    let span = |process: &Process| {
        (process.start_unix_ns, process.start_unix_ns.saturating_add(process.duration_ns))
    };
    let mut spans: Vec<(u64, u64)> = processes.iter().map(span).collect();
    spans.sort_unstable();
    let (mut covered, mut until) = (0_u64, 0);
    for (start, end) in spans {
        covered = covered.saturating_add(end.saturating_sub(start.max(until)));
        until = until.max(end);
    }
    covered
}

fn add_name(names: &mut String, other: &str) {
    if !names.split(", ").any(|name| name == other) {
        names.push_str(", ");
        names.push_str(other);
    }
}

#[derive(Default)]
struct Merged {
    functions: Numbers<Function>,
    frames: Numbers<Frame>,
    stacks: Numbers<Stack>,
    /// Processes, threads, samples and when they were.
    rest: Profile,
}

impl Merged {
    /// Adds a profile to what starts at `start_unix_ns`.
    fn add(&mut self, profile: Profile, start_unix_ns: u64) {
        let functions: Vec<FunctionId> = profile
            .functions
            .into_iter()
            .map(|function| FunctionId(self.functions.of(function)))
            .collect();
        let frames: Vec<FrameId> = profile
            .frames
            .into_iter()
            .map(|frame| {
                let function = functions[frame.function.0 as usize];
                FrameId(self.frames.of(Frame { function, ..frame }))
            })
            .collect();
        let mut stacks: Vec<StackId> = Vec::with_capacity(profile.stacks.len());
        for stack in &profile.stacks {
            let parent = stack.parent.map(|parent| stacks[parent.0 as usize]);
            let frame = frames[stack.frame.0 as usize];
            stacks.push(StackId(self.stacks.of(Stack { parent, frame })));
        }
        let first_thread = self.rest.threads.len() as u32;
        let first_process = self.rest.processes.len() as u32;
        self.rest.processes.extend(profile.processes);
        self.rest.threads.extend(profile.threads.into_iter().map(|thread| Thread {
            process: ProcessId(first_process + thread.process.0),
            ..thread
        }));
        // Two stacks of a profile may have become one.
        let mut places = HashMap::new();
        let mut place_of = Vec::with_capacity(profile.samples.len());
        for sample in profile.samples {
            let thread = ThreadId(first_thread + sample.thread.0);
            let stack = stacks[sample.stack.0 as usize];
            let next = self.rest.samples.len();
            let place = *places.entry((thread, stack, sample.state)).or_insert(next);
            place_of.push(place);
            match self.rest.samples.get_mut(place) {
                Some(known) => known.add(&sample),
                None => self.rest.samples.push(Sample { thread, stack, ..sample }),
            }
        }
        let offset_ns = profile.meta.start_unix_ns.saturating_sub(start_unix_ns);
        self.rest.timeline.add(profile.timeline, offset_ns, |index| place_of[index]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::profile;

    #[test]
    fn equal_stacks_become_one_and_threads_stay() {
        let mut first = profile(&[("main:1 f:2", 3), ("main:1", 1)]);
        let mut second = profile(&[("main:1 f:2", 5), ("other:1", 7)]);
        (first.meta.program, second.meta.program) = ("a.py".into(), "b.py".into());
        (first.meta.start_unix_ns, second.meta.start_unix_ns) = (20, 10);
        // Of two seconds each, one together.
        second.processes[0].start_unix_ns += 1_000_000_000;
        let merged = Profile::merge([first.clone(), second.clone(), second]);
        assert_eq!((merged.functions.len(), merged.frames.len(), merged.stacks.len()), (3, 3, 3));
        assert_eq!((merged.threads.len(), merged.samples.len()), (3, 6));
        assert_eq!((merged.meta.samples, merged.meta.duration_ns), (28, 3_000_000_000));
        assert_eq!((&*merged.meta.program, merged.meta.start_unix_ns), ("a.py, b.py", 10));
        let counts: Vec<_> = merged
            .samples
            .iter()
            .map(|sample| (sample.thread.0, merged.root_first(sample.stack).len(), sample.count))
            .collect();
        assert_eq!(counts, [(0, 2, 3), (0, 1, 1), (1, 2, 5), (1, 1, 7), (2, 2, 5), (2, 1, 7)]);
        assert_eq!(merged.samples[0].stack, merged.samples[2].stack);
        assert_eq!(Profile::merge([first.clone()]), first);
        assert_eq!(Profile::merge([]), Profile::default());
    }

    #[test]
    fn lines_that_become_the_same_are_added_up() {
        let mut twice = profile(&[("f:1", 1), ("g:1", 2)]);
        twice.functions[1] = twice.functions[0].clone();
        let merged = Profile::merge([twice, profile(&[])]);
        let [sample] = &merged.samples[..] else { panic!("{:?}", merged.samples) };
        assert_eq!((sample.count, sample.weight_ns, merged.stacks.len()), (3, 3_000_000, 1));
    }
}
