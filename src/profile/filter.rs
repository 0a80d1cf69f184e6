//! Parts of a profile: some threads, processes or functions, or a stretch of time.

use std::borrow::Cow;
use std::ops::Range;

use super::{
    Frame, FrameId, FunctionId, Meta, Numbers, Pattern, ProcessId, Profile, Sample, Stack, StackId,
    Thread, ThreadId,
};

impl Profile {
    /// Only the threads whose name or kernel id one of the patterns matches.
    pub fn of_threads(&self, patterns: &[Pattern]) -> Cow<'_, Self> {
        self.only_threads(|thread| {
            let tid = thread.tid.to_string();
            patterns.iter().any(|pattern| pattern.matches(&thread.name) || pattern.matches(&tid))
        })
    }

    /// Only the processes whose program or id one of the patterns matches.
    pub fn of_processes(&self, patterns: &[Pattern]) -> Cow<'_, Self> {
        self.only_threads(|thread| {
            let process = self.process(thread);
            let pid = process.pid.to_string();
            patterns
                .iter()
                .any(|pattern| pattern.matches(&process.program) || pattern.matches(&pid))
        })
    }

    /// Only the samples in which a function that one of the patterns matches was on the stack.
    pub fn with_functions(&self, patterns: &[Pattern]) -> Cow<'_, Self> {
        let is_match: Vec<bool> = self
            .functions
            .iter()
            .map(|function| patterns.iter().any(|pattern| pattern.matches_function(function)))
            .collect();
        let mut has_match: Vec<bool> = Vec::with_capacity(self.stacks.len());
        for stack in &self.stacks {
            let is_below = stack.parent.is_some_and(|parent| has_match[parent.0 as usize]);
            has_match.push(is_below || is_match[self.frame(stack.frame).function.0 as usize]);
        }
        let kept = |sample: &Sample| has_match[sample.stack.0 as usize].then(|| sample.clone());
        Cow::Owned(self.with_samples(self.samples.iter().map(kept).collect()))
    }

    /// Only what was sampled in a stretch of time, in nanoseconds since the start. Where a run of equal samples
    /// crosses its ends, the part of it that is inside counts, to the nearest sample. Samples without a known
    /// time are as [`moments`](Self::moments) has them.
    pub fn between(&self, range: Range<u64>) -> Cow<'_, Self> {
        let mut part = self.clone();
        part.timeline.cut(&range);
        let mut samples: Vec<Option<Sample>> = vec![None; self.samples.len()];
        for moment in part.moments() {
            let whole = &self.samples[moment.sample];
            let seen = Sample {
                count: moment.count,
                weight_ns: moment.weight_ns,
                cpu_ns: moment.cpu_ns,
                ..whole.clone()
            };
            match &mut samples[moment.sample] {
                Some(known) => known.add(&seen),
                none => *none = Some(seen),
            }
        }
        let mut part = part.with_samples(samples);
        part.meta.duration_ns = self.meta.duration_ns.min(range.end).saturating_sub(range.start);
        Cow::Owned(part)
    }

    fn only_threads(&self, is_kept: impl Fn(&Thread) -> bool) -> Cow<'_, Self> {
        let kept: Vec<bool> = self.threads.iter().map(is_kept).collect();
        let samples = self.samples.iter();
        let samples = samples.map(|sample| kept[sample.thread.0 as usize].then(|| sample.clone()));
        let mut part = self.with_samples(samples.collect());
        let mut processes = Numbers::default();
        let mut places = Vec::new();
        let mut threads = Vec::new();
        for (thread, is_kept) in std::mem::take(&mut part.threads).into_iter().zip(kept) {
            places.push(ThreadId(threads.len() as u32));
            if is_kept {
                let process = ProcessId(processes.of(thread.process));
                threads.push(Thread { process, ..thread });
            }
        }
        part.samples.iter_mut().for_each(|s| s.thread = places[s.thread.0 as usize]);
        let processes = processes.keys.into_iter();
        part.processes = processes.map(|id| self.processes[id.0 as usize].clone()).collect();
        part.threads = threads;
        Cow::Owned(part)
    }

    /// The profile with other numbers in its samples, or without those that have become nothing; and
    /// without the stacks, frames and functions that only they had. Threads stay.
    pub(super) fn with_samples(&self, samples: Vec<Option<Sample>>) -> Self {
        let mut tables = Tables::new(self);
        let mut places = Vec::with_capacity(samples.len());
        let mut kept: Vec<Sample> = Vec::new();
        for sample in samples {
            places.push(sample.as_ref().map(|_| kept.len()));
            kept.extend(sample.map(|s| Sample { stack: tables.keep(s.stack), ..s }));
        }
        let counted = kept.iter().map(|sample| sample.count).fold(0, u64::saturating_add);
        Self {
            meta: Meta { samples: counted, ..self.meta.clone() },
            functions: tables
                .functions
                .keys
                .iter()
                .map(|id| self.functions[id.0 as usize].clone())
                .collect(),
            frames: tables.frames,
            stacks: tables.stacks,
            processes: self.processes.clone(),
            threads: self.threads.clone(),
            samples: kept,
            timeline: self.timeline.only(&self.samples, |index| places[index]),
        }
    }
}

/// The tables of a part of a profile, which have what its samples need.
struct Tables<'a> {
    whole: &'a Profile,
    functions: Numbers<FunctionId>,
    frames: Vec<Frame>,
    stacks: Vec<Stack>,
    /// What has become of the frames and stacks of the whole.
    frame_of: Vec<Option<FrameId>>,
    stack_of: Vec<Option<StackId>>,
}

impl<'a> Tables<'a> {
    fn new(whole: &'a Profile) -> Self {
        Self {
            whole,
            functions: Numbers::default(),
            frames: Vec::new(),
            stacks: Vec::new(),
            frame_of: vec![None; whole.frames.len()],
            stack_of: vec![None; whole.stacks.len()],
        }
    }

    fn keep(&mut self, stack: StackId) -> StackId {
        // Callers first.
        let mut missing = Vec::new();
        let mut next = Some(stack);
        while let Some(id) = next.filter(|id| self.stack_of[id.0 as usize].is_none()) {
            missing.push(id);
            next = self.whole.stacks[id.0 as usize].parent;
        }
        let mut parent = next.and_then(|id| self.stack_of[id.0 as usize]);
        for id in missing.into_iter().rev() {
            let frame = self.keep_frame(self.whole.stacks[id.0 as usize].frame);
            let kept = StackId(self.stacks.len() as u32);
            self.stacks.push(Stack { parent, frame });
            self.stack_of[id.0 as usize] = Some(kept);
            parent = Some(kept);
        }
        parent.unwrap_or(stack)
    }

    fn keep_frame(&mut self, id: FrameId) -> FrameId {
        if let Some(kept) = self.frame_of[id.0 as usize] {
            return kept;
        }
        let frame = self.whole.frame(id);
        let function = FunctionId(self.functions.of(frame.function));
        let kept = FrameId(self.frames.len() as u32);
        self.frames.push(Frame { function, ..frame.clone() });
        self.frame_of[id.0 as usize] = Some(kept);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{add, profile};
    use crate::profile::Timeline;
    use crate::profile::timeline::Entry;

    fn patterns(text: &str) -> Vec<Pattern> {
        text.split(' ').map(|pattern| pattern.parse().unwrap()).collect()
    }

    /// Names of the functions of each sample's stack, root first, and its count.
    fn rows(profile: &Profile) -> Vec<String> {
        let row = |sample: &Sample| {
            let frames = profile.root_first(sample.stack).into_iter();
            let names: Vec<&str> = frames.map(|id| &*profile.function(id).name).collect();
            format!("{} {}", names.join(">"), sample.count)
        };
        profile.samples.iter().map(row).collect()
    }

    fn several() -> Profile {
        let mut first = profile(&[("main:1 f:2", 3), ("main:1 g:3", 4)]);
        first.threads[0].name = "MainThread".into();
        add(&mut first, 43, &[("work:1 f:2", 5)]);
        first.threads[1].name = "worker-1".into();
        let mut second = profile(&[("other:1", 7)]);
        (second.processes[0].pid, second.processes[0].program) = (99, "b.py".into());
        second.threads[0].tid = 99;
        Profile::merge([first, second])
    }

    #[test]
    fn threads_and_processes_are_chosen_by_name_or_number() {
        let profile = several();
        for (pattern, expected) in [
            ("MainThread", &["main>f 3", "main>g 4"][..]),
            ("worker-*", &["work>f 5"]),
            ("43 99", &["work>f 5", "other 7"]),
            ("worker", &[]),
        ] {
            assert_eq!(rows(&profile.of_threads(&patterns(pattern))), expected, "{pattern}");
        }
        for (pattern, expected) in [("99", &["other 7"][..]), ("b.*", &["other 7"]), ("4", &[])] {
            assert_eq!(rows(&profile.of_processes(&patterns(pattern))), expected, "{pattern}");
        }
        let part = profile.of_processes(&patterns("99"));
        assert_eq!((part.threads.len(), part.processes.len(), part.stacks.len()), (1, 1, 1));
        assert_eq!((part.meta.samples, part.processes[0].pid), (7, 99));
        assert_eq!(part.process(&part.threads[0]).program, "b.py");
    }

    #[test]
    fn functions_are_chosen_anywhere_on_the_stack() {
        let profile = several();
        let of = |pattern| rows(&profile.with_functions(&patterns(pattern)));
        assert_eq!(of("f"), ["main>f 3", "work>f 5"]);
        assert_eq!(of("main"), ["main>f 3", "main>g 4"]);
        assert_eq!(of("g oth*"), ["main>g 4", "other 7"]);
        assert!(of("x").is_empty());
        let part = profile.with_functions(&patterns("g"));
        assert_eq!((part.functions.len(), part.frames.len(), part.threads.len()), (2, 2, 3));
    }

    /// A thread that is in `a` up to 10 ms, in `b` up to 30 ms and in `a` again up to 40 ms.
    fn timed() -> Profile {
        let mut profile = profile(&[("a:1", 20), ("b:1", 20)]);
        let mut block = Vec::new();
        let mut previous_us = 0;
        for (tally, end_us, count) in [(0, 10_000, 10), (1, 30_000, 20), (0, 40_000, 10)] {
            let entry = Entry { tally, end_us, wall_us: None, cpu_us: None, count };
            entry.write(previous_us, &mut block);
            previous_us = end_us;
        }
        profile.timeline = Timeline::new(vec![block.into()], vec![0, 1]);
        profile
    }

    #[test]
    fn a_stretch_of_time_has_its_part_of_what_crosses_its_ends() {
        const MS: u64 = 1_000_000;
        let profile = timed();
        let between = |from: u64, to: u64| {
            let part = profile.between(from * MS..to * MS);
            let weights = part.samples.iter().map(|sample| sample.weight_ns / MS);
            (rows(&part).join(" "), weights.collect::<Vec<_>>(), part.meta.duration_ns / MS)
        };
        assert_eq!(between(0, 40), ("a 20 b 20".into(), vec![20, 20], 40));
        assert_eq!(between(5, 15), ("a 5 b 5".into(), vec![5, 5], 10));
        assert_eq!(between(12, 13), ("b 1".into(), vec![1], 1));
        assert_eq!(between(50, 90).0, "");
        let twice = profile.between(5 * MS..35 * MS);
        let twice = twice.between(20 * MS..90 * MS);
        assert_eq!(rows(&twice), ["a 5", "b 10"]);
        let moments: Vec<u64> = twice.moments().map(|moment| moment.at_ns / MS).collect();
        assert_eq!(moments, [30, 35]);
    }

    #[test]
    fn what_a_sample_weighs_does_not_change_when_others_are_left_out() {
        let profile = timed();
        let part = profile.with_functions(&patterns("a"));
        let weights: Vec<u64> = part.moments().map(|moment| moment.weight_ns).collect();
        assert_eq!(weights, [10_000_000, 10_000_000]);
        let merged = Profile::merge([several(), part.into_owned()]);
        let weights: Vec<u64> = merged.moments().map(|moment| moment.weight_ns).collect();
        assert_eq!(weights, [10_000_000, 10_000_000]);
    }
}
