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
            timeline: self.timeline.only(|index| places[index]),
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
