//! When the samples were taken: a few bytes for each run of equal samples of a thread.
//!
//! Blocks hold entries, one after the other, up to a zero byte or the end; numbers are LEB128:
//!
//! ```text
//! head    (tally + 1) << 4 | own wall << 3 | cpu << 1 | many
//! end     microseconds from the block's previous entry's end, zigzag; of the first, from the start
//! wall    if own wall: microseconds; else, what has passed since the end of the thread's previous entry
//! cpu     if 2: microseconds; 1 stands for as much as the wall time, 0 for none
//! count   if many: samples; else 1
//! ```

use std::ops::Range;

use super::blocks::Block;
use super::{Profile, Sample, ThreadId};

/// Samples of a thread in one stack and state, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Which thread, stack and state: the index into [`Profile::samples`].
    pub sample: usize,
    /// When the last of them was taken, in nanoseconds since [`Meta::start_unix_ns`](super::Meta::start_unix_ns).
    pub at_ns: u64,
    /// How many there are.
    pub count: u64,
    /// What they weigh, in nanoseconds, as [`Sample::weight_ns`].
    pub weight_ns: u64,
    /// CPU time they stand for, in nanoseconds.
    pub cpu_ns: u64,
}

impl Moment {
    /// The part of it in a stretch of time: of its samples, which are taken to be evenly spread over
    /// its time, at least half of one.
    fn within(self, range: &Range<u64>) -> Option<Self> {
        let begin_ns = self.at_ns.saturating_sub(self.weight_ns);
        if begin_ns >= range.start && self.at_ns <= range.end {
            return Some(self);
        }
        let (start, end) = (begin_ns.max(range.start), self.at_ns.min(range.end));
        let share = end.saturating_sub(start) as f64 / self.weight_ns.max(1) as f64;
        let part = |number: u64| (number as f64 * share).round() as u64;
        let count = part(self.count);
        (count > 0).then(|| Self {
            at_ns: end,
            count,
            weight_ns: end - start,
            cpu_ns: part(self.cpu_ns),
            ..self
        })
    }
}

/// No sample: one that a filter has left out.
const NONE: u32 = u32::MAX;
const US: u64 = 1_000;

/// When the samples of one or more processes were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    parts: Vec<Part>,
    /// Whether CPU time is what samples weigh.
    weighs_cpu: bool,
}

/// The entries of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    blocks: Vec<Block>,
    /// The index of each tally's sample; [`NONE`] where it is left out.
    sample_of: Vec<u32>,
    /// A number for the thread of each tally, once there are some that are left out.
    thread_of: Vec<u32>,
    /// From the profile's start to the process's.
    offset_ns: u64,
    /// What is left of it, in nanoseconds since the process's start.
    within: Range<u64>,
}

impl Timeline {
    /// Of one process. `sample_of` has the index of each tally's sample.
    pub fn new(blocks: Vec<Block>, sample_of: Vec<u32>) -> Self {
        let parts = match blocks.iter().all(Block::is_empty) {
            true => Vec::new(),
            false => vec![Part::new(blocks, sample_of)],
        };
        Self { parts, weighs_cpu: false }
    }

    /// Whether nothing is known of when samples were taken.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether a part of it was in a file that has been cut since, and is left out.
    pub fn is_cut(&self) -> bool {
        self.parts.iter().flat_map(|part| &part.blocks).any(Block::has_failed)
    }

    /// Adds what belongs to a profile that starts `offset_ns` later. `place` gives what has become
    /// of its samples.
    pub(super) fn add(&mut self, other: Self, offset_ns: u64, place: impl Fn(usize) -> usize) {
        self.parts.extend(other.parts.into_iter().map(|mut part| {
            part.offset_ns += offset_ns;
            part.place(|index| Some(place(index)));
            part
        }));
    }

    /// The profile starts earlier than it did.
    pub(super) fn delay(&mut self, by_ns: u64) {
        self.parts.iter_mut().for_each(|part| part.offset_ns += by_ns);
    }

    /// Only those of the profile's samples to which `place` gives a new index.
    pub(super) fn only(&self, all: &[Sample], place: impl Fn(usize) -> Option<usize>) -> Self {
        let mut parts = self.parts.clone();
        for part in &mut parts {
            part.remember_threads(all);
            part.place(&place);
        }
        Self { parts, weighs_cpu: self.weighs_cpu }
    }

    /// From now on CPU time is what samples weigh.
    pub(super) fn weigh_cpu(&mut self) {
        self.weighs_cpu = true;
    }

    /// Leaves a stretch of time, in nanoseconds since the profile's start.
    pub(super) fn cut(&mut self, range: &Range<u64>) {
        for part in &mut self.parts {
            let from = |instant: u64| instant.saturating_sub(part.offset_ns);
            let (start, end) = (from(range.start), from(range.end));
            part.within = part.within.start.max(start)..part.within.end.min(end);
        }
    }
}

impl Part {
    fn new(blocks: Vec<Block>, sample_of: Vec<u32>) -> Self {
        Self { blocks, sample_of, thread_of: Vec::new(), offset_ns: 0, within: 0..u64::MAX }
    }

    /// What a thread's entry weighs depends on the one before, which may be left out.
    fn remember_threads(&mut self, samples: &[Sample]) {
        if self.thread_of.is_empty() {
            let thread = |index: &u32| samples.get(*index as usize).map_or(NONE, |s| s.thread.0);
            self.thread_of = self.sample_of.iter().map(thread).collect();
        }
    }

    fn place(&mut self, place: impl Fn(usize) -> Option<usize>) {
        for index in &mut self.sample_of {
            let kept = if *index == NONE { None } else { place(*index as usize) };
            *index = kept.map_or(NONE, |kept| kept as u32);
        }
    }
}

impl Profile {
    /// Whether it is known when samples were taken.
    pub fn has_timeline(&self) -> bool {
        !self.timeline.is_empty()
    }

    /// Whether what samples weigh is CPU time, not all that passes.
    pub fn weighs_cpu(&self) -> bool {
        self.timeline.weighs_cpu
    }

    /// When samples were taken: in order of time for each thread. Where nothing is known of it, the
    /// samples of each thread are put one after the other.
    pub fn moments(&self) -> Moments<'_> {
        self.moments_in(&(0..usize::MAX))
    }

    /// As [`moments`](Self::moments), but of the timeline only some blocks, counted through. What a thread's
    /// moments are is told by the blocks that have any.
    pub fn moments_in(&self, blocks: &Range<usize>) -> Moments<'_> {
        let entries = self.has_timeline().then(|| Entries::new(self, blocks.clone()));
        Moments { profile: self, entries, sample: 0, ends_ns: vec![0; self.threads.len()] }
    }

    /// Ends the runs of a process that was killed: what is in no entry yet was sampled last.
    pub(super) fn end_runs(&mut self) {
        let mut rests = self.samples.clone();
        for Moment { sample, count, weight_ns, cpu_ns, .. } in self.moments() {
            let rest = &mut rests[sample];
            rest.count = rest.count.saturating_sub(count);
            rest.weight_ns = rest.weight_ns.saturating_sub(weight_ns);
            rest.cpu_ns = rest.cpu_ns.saturating_sub(cpu_ns);
        }
        let [part] = &mut self.timeline.parts[..] else { return };
        let end_us = self.meta.duration_ns.div_ceil(US);
        let (mut block, mut before_us) = (Vec::new(), 0);
        for (tally, &index) in (0..).zip(&part.sample_of) {
            let Some(rest) = rests.get_mut(index as usize).filter(|rest| rest.count > 0) else {
                continue;
            };
            let Sample { count, weight_ns, cpu_ns, .. } = *rest;
            let us = |ns: u64| Some(ns.div_ceil(US));
            Entry { tally, end_us, wall_us: us(weight_ns), cpu_us: us(cpu_ns), count }
                .write(before_us, &mut block);
            (rest.count, before_us) = (0, end_us);
        }
        if !block.is_empty() {
            part.blocks.push(block.into());
        }
    }

    fn thread_of(&self, index: u32) -> Option<ThreadId> {
        self.samples.get(index as usize).map(|sample| sample.thread)
    }
}

/// Goes through what was sampled when.
pub struct Moments<'a> {
    profile: &'a Profile,
    entries: Option<Entries<'a>>,
    /// Without a timeline: the next sample, and where each thread has got to.
    sample: usize,
    ends_ns: Vec<u64>,
}

impl Moments<'_> {
    /// Which block the last moment was in, counted through; 0 where there are none.
    pub fn block(&self) -> usize {
        self.entries.as_ref().map_or(0, |entries| entries.number.saturating_sub(1))
    }
}

impl Iterator for Moments<'_> {
    type Item = Moment;

    fn next(&mut self) -> Option<Moment> {
        if let Some(entries) = &mut self.entries {
            return entries.next();
        }
        let index = self.sample;
        let sample = self.profile.samples.get(index)?;
        self.sample += 1;
        let at_ns = &mut self.ends_ns[sample.thread.0 as usize];
        *at_ns = at_ns.saturating_add(sample.weight_ns);
        let Sample { count, weight_ns, cpu_ns, .. } = *sample;
        Some(Moment { sample: index, at_ns: *at_ns, count, weight_ns, cpu_ns })
    }
}

/// Takes blocks apart. What is not an entry ends its block.
struct Entries<'a> {
    profile: &'a Profile,
    /// Which blocks of all parts to read, and which is the next.
    wanted: Range<usize>,
    number: usize,
    /// The part that is being read, and its next block.
    part: usize,
    next_block: usize,
    /// The block that is being read.
    bytes: Vec<u8>,
    at: usize,
    end_us: u64,
    /// The end of each thread's previous entry, in microseconds.
    ends_us: Vec<u64>,
}

impl<'a> Entries<'a> {
    fn new(profile: &'a Profile, wanted: Range<usize>) -> Self {
        let (bytes, ends_us) = (Vec::new(), Vec::new());
        Self {
            profile,
            wanted,
            number: 0,
            part: 0,
            next_block: 0,
            bytes,
            at: 0,
            end_us: 0,
            ends_us,
        }
    }

    /// Turns to the next block that is wanted, if there is one.
    fn turn(&mut self) -> Option<()> {
        let parts = &self.profile.timeline.parts;
        loop {
            let part = parts.get(self.part)?;
            match part.blocks.get(self.next_block) {
                None => {
                    self.part += 1;
                    self.next_block = 0;
                    self.ends_us.clear();
                    // The entries that are left are those of the part before.
                    parts.get(self.part)?;
                }
                Some(_) if self.number >= self.wanted.end => return None,
                Some(block) => {
                    let is_wanted = self.number >= self.wanted.start;
                    self.number += 1;
                    self.next_block += 1;
                    if is_wanted {
                        block.read(&mut self.bytes);
                        (self.at, self.end_us) = (0, 0);
                        return Some(());
                    }
                }
            }
        }
    }

    fn entry(&mut self) -> Option<Entry> {
        let (entry, length) = Entry::read(&self.bytes[self.at..], self.end_us)?;
        self.at += length;
        self.end_us = entry.end_us;
        Some(entry)
    }

    /// When the thread's previous entry ended.
    fn replace_end(&mut self, thread: ThreadId, end_us: u64) -> u64 {
        let index = thread.0 as usize;
        if self.ends_us.len() <= index {
            self.ends_us.resize(index + 1, 0);
        }
        std::mem::replace(&mut self.ends_us[index], end_us)
    }
}

impl Iterator for Entries<'_> {
    type Item = Moment;

    fn next(&mut self) -> Option<Moment> {
        loop {
            let Some(entry) = self.entry() else {
                self.turn()?;
                continue;
            };
            let timeline = &self.profile.timeline;
            let part = &timeline.parts[self.part];
            let tally = entry.tally as usize;
            let Some(&index) = part.sample_of.get(tally) else { continue };
            let thread = match part.thread_of.get(tally) {
                None => self.profile.thread_of(index),
                Some(&NONE) => None,
                Some(&thread) => Some(ThreadId(thread)),
            };
            let Some(thread) = thread else { continue };
            let previous = self.replace_end(thread, entry.end_us);
            if index as usize >= self.profile.samples.len() {
                continue;
            }
            let wall_us = entry.wall_us.unwrap_or_else(|| entry.end_us.saturating_sub(previous));
            let wall_ns = wall_us.saturating_mul(US);
            let cpu_ns = entry.cpu_us.map_or(wall_ns, |cpu_us| cpu_us.saturating_mul(US));
            let moment = Moment {
                sample: index as usize,
                at_ns: entry.end_us.saturating_mul(US),
                count: entry.count,
                weight_ns: wall_ns,
                cpu_ns,
            };
            let Some(mut moment) = moment.within(&part.within) else { continue };
            moment.at_ns = moment.at_ns.saturating_add(part.offset_ns);
            if timeline.weighs_cpu {
                moment.weight_ns = moment.cpu_ns;
            }
            return Some(moment);
        }
    }
}

/// One entry as it is written. Times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the tally.
    pub tally: u32,
    /// When the last sample was taken, since the start.
    pub end_us: u64,
    /// Wall time; `None` if it is what has passed since the end of the thread's previous entry.
    pub wall_us: Option<u64>,
    /// CPU time; `None` if it is the wall time.
    pub cpu_us: Option<u64>,
    /// Samples.
    pub count: u64,
}

impl Entry {
    /// The most bytes that an entry takes.
    pub const MOST_BYTES: usize = 5 * 10;

    /// Appends it to a block whose previous entry ended at `previous_us`, 0 if it is the first.
    pub fn write(&self, previous_us: u64, out: &mut Vec<u8>) {
        let cpu = match self.cpu_us {
            Some(0) => 0,
            None => 1,
            Some(_) => 2,
        };
        let own_wall = u64::from(self.wall_us.is_some());
        let many = u64::from(self.count != 1);
        put(out, (u64::from(self.tally) + 1) << 4 | own_wall << 3 | cpu << 1 | many);
        let passed = self.end_us.wrapping_sub(previous_us) as i64;
        put(out, (passed << 1 ^ passed >> 63) as u64);
        self.wall_us.into_iter().for_each(|wall_us| put(out, wall_us));
        self.cpu_us.into_iter().filter(|&cpu_us| cpu_us > 0).for_each(|cpu_us| put(out, cpu_us));
        if many == 1 {
            put(out, self.count);
        }
    }

    /// The entry that bytes begin with, and its length.
    fn read(bytes: &[u8], previous_us: u64) -> Option<(Self, usize)> {
        let mut rest = bytes;
        let head = take(&mut rest)?;
        let tally = u32::try_from((head >> 4).checked_sub(1)?).ok()?;
        let passed = take(&mut rest)?;
        let passed = (passed >> 1) as i64 ^ -((passed & 1) as i64);
        let end_us = previous_us.checked_add_signed(passed)?;
        let wall_us = if head & 8 != 0 { Some(take(&mut rest)?) } else { None };
        let cpu_us = match head >> 1 & 3 {
            0 => Some(0),
            1 => None,
            2 => Some(take(&mut rest)?),
            _ => return None,
        };
        let count = if head & 1 != 0 { take(&mut rest)? } else { 1 };
        Some((Self { tally, end_us, wall_us, cpu_us, count }, bytes.len() - rest.len()))
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{add, profile};
    use proptest::prelude::*;

    fn entry(tally: u32, end_us: u64) -> Entry {
        Entry { tally, end_us, wall_us: None, cpu_us: Some(0), count: 1 }
    }

    fn timeline(entries: &[Entry], samples: u32) -> Timeline {
        let mut block = Vec::new();
        let mut previous_us = 0;
        for entry in entries {
            entry.write(previous_us, &mut block);
            previous_us = entry.end_us;
        }
        block.extend([0; 9]);
        Timeline::new(vec![block.into()], (0..samples).collect())
    }

    #[test]
    fn what_passes_between_a_threads_samples_is_what_they_weigh() {
        let mut profile = profile(&[("a:1", 2), ("b:1", 1)]);
        add(&mut profile, 7, &[("c:1", 3)]);
        profile.timeline = timeline(
            &[
                entry(0, 1_000),
                Entry { wall_us: Some(300), cpu_us: Some(200), count: 3, ..entry(2, 1_500) },
                Entry { cpu_us: None, ..entry(1, 2_500) },
                entry(0, 2_700),
            ],
            3,
        );
        let rows = |profile: &Profile| -> Vec<_> {
            let us = |ns: u64| ns / 1_000;
            let row = |m: Moment| (m.sample, us(m.at_ns), m.count, us(m.weight_ns), us(m.cpu_ns));
            profile.moments().map(row).collect()
        };
        let expected = [
            (0, 1_000, 1, 1_000, 0),
            (2, 1_500, 3, 300, 200),
            (1, 2_500, 1, 1_500, 1_500),
            (0, 2_700, 1, 200, 0),
        ];
        assert_eq!(rows(&profile), expected);
        let samples = profile.samples.clone();
        profile.timeline = profile.timeline.only(&samples, |index| index.checked_sub(1));
        profile.timeline.weigh_cpu();
        assert_eq!(rows(&profile)[0], (1, 1_500, 3, 200, 200));
        profile.timeline = Timeline::default();
        assert_eq!(
            rows(&profile),
            [(0, 2_000, 2, 2_000, 0), (1, 3_000, 1, 1_000, 0), (2, 3_000, 3, 3_000, 0)]
        );
    }

    proptest! {
        #[test]
        fn entries_read_back(
            tally in 0..u32::MAX,
            end_us in 0..1_u64 << 60,
            previous_us in 0..1_u64 << 60,
            wall_us in proptest::option::of(any::<u64>()),
            cpu_us in proptest::option::of(any::<u64>()),
            count in any::<u64>(),
        ) {
            let entry = Entry { tally, end_us, wall_us, cpu_us, count };
            let mut bytes = Vec::new();
            entry.write(previous_us, &mut bytes);
            prop_assert!(bytes.len() <= Entry::MOST_BYTES);
            let whole = Some((entry, bytes.len()));
            prop_assert_eq!(Entry::read(&bytes, previous_us), whole);
            prop_assert_eq!(Entry::read(&bytes[..bytes.len() - 1], previous_us), None);
        }

        #[test]
        fn any_bytes_have_an_end(bytes: Vec<u8>) {
            let mut profile = profile(&[("a:1", 1), ("b:1", 1)]);
            profile.timeline = Timeline::new(vec![bytes.clone().into(), bytes.into()], vec![1, 0]);
            profile.moments().for_each(drop);
        }
    }
}
