//! The timeline while it is recorded: runs of equal samples, in blocks that are full before they are
//! put away.
//!
//! A thread that stays where it is costs one entry a second. Long recordings become coarser: when
//! half of the room that is left is used up, only every eighth sample of a thread has its moment
//! from then on, and stands for those that were left out.

use std::sync::Arc;

use crate::profile::timeline::Entry;

/// Bytes of a block.
pub(super) const BLOCK: usize = 32 << 10;
/// Bytes of all blocks: in a file, and in memory.
const MOST_IN_FILE: usize = 64 << 20;
const MOST_IN_MEMORY: usize = 2 << 20;
/// A run ends after this long, in microseconds: one that is not in the file yet is lost if the
/// process is killed.
const LONGEST_RUN_US: u64 = 1_000_000;
/// By which power of two the samples that have a moment become fewer.
const THINNING: u32 = 3;
const MOST_LEVEL: u32 = 16;

/// Samples for the timeline, one after the other: which tally they count in, and what they stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub tally: u32,
    pub count: u64,
    /// Of the last one, in nanoseconds since the start.
    pub at_ns: u64,
    pub wall_ns: u64,
    pub cpu_ns: u64,
}

/// What is recorded, block by block.
#[derive(Debug, Default)]
pub(super) struct Moments {
    threads: Vec<Thread>,
    /// The block that is being filled, and where its last entry ended.
    block: Vec<u8>,
    end_us: u64,
    /// Full ones that are in no file.
    full: Vec<Arc<[u8]>>,
    /// Whether a file takes the full ones.
    has_file: bool,
    /// Bytes of all full blocks so far, where they are put now.
    used: usize,
    /// How often moments have become fewer.
    level: u32,
}

#[derive(Debug, Default)]
struct Thread {
    run: Run,
    /// Where its last entry ended.
    end_us: u64,
    /// Samples that have no moment of their own.
    left_out: Run,
}

#[derive(Clone, Copy, Debug, Default)]
struct Run {
    tally: u32,
    count: u64,
    start_us: u64,
    end_us: u64,
    wall_ns: u64,
    cpu_ns: u64,
}

impl Run {
    fn add(&mut self, other: &Run) {
        self.count += other.count;
        self.end_us = other.end_us;
        self.wall_ns += other.wall_ns;
        self.cpu_ns += other.cpu_ns;
    }

    fn entry(&self, previous_us: u64) -> Entry {
        let (wall_us, cpu_us) = (self.wall_ns.div_ceil(1_000), self.cpu_ns.div_ceil(1_000));
        let passed_us = self.end_us.saturating_sub(previous_us);
        let is_known = wall_us.abs_diff(passed_us) <= 1;
        // Clocks that are read one after the other differ by as much.
        let is_all = cpu_us > 0 && cpu_us.abs_diff(wall_us) <= wall_us / 64;
        Entry {
            tally: self.tally,
            end_us: self.end_us,
            wall_us: (!is_known).then_some(wall_us),
            cpu_us: (!is_all).then_some(cpu_us),
            count: self.count,
        }
    }
}

impl Moments {
    /// More samples of a thread.
    pub fn count(&mut self, thread: u32, counted: Counted) {
        let thread = thread as usize;
        if self.threads.len() <= thread {
            self.threads.resize_with(thread + 1, Thread::default);
        }
        let at_us = counted.at_ns / 1_000;
        let mut sample = Run {
            tally: counted.tally,
            count: counted.count,
            start_us: at_us,
            end_us: at_us,
            wall_ns: counted.wall_ns,
            cpu_ns: counted.cpu_ns,
        };
        let Thread { run, left_out, .. } = &mut self.threads[thread];
        if left_out.count + sample.count < 1 << (self.level * THINNING) {
            left_out.add(&sample);
            return;
        }
        let before = std::mem::take(left_out);
        sample.count += before.count;
        sample.wall_ns += before.wall_ns;
        sample.cpu_ns += before.cpu_ns;
        let goes_on = run.count > 0
            && run.tally == sample.tally
            && at_us.saturating_sub(run.start_us) < LONGEST_RUN_US;
        if goes_on {
            run.add(&sample);
        } else {
            self.end_run(thread);
            self.threads[thread].run = sample;
        }
    }

    /// A thread is gone, or one of several that count as one.
    pub fn gone(&mut self, thread: u32) {
        if (thread as usize) < self.threads.len() {
            self.end_run(thread as usize);
        }
    }

    fn end_run(&mut self, thread: usize) {
        let Thread { run, end_us, .. } = &mut self.threads[thread];
        let run = std::mem::take(run);
        if run.count > 0 {
            let entry = run.entry(*end_us);
            *end_us = entry.end_us;
            self.put(&entry);
        }
    }

    fn put(&mut self, entry: &Entry) {
        if self.block.len() > BLOCK - Entry::MOST_BYTES {
            self.put_away();
        }
        entry.write(self.end_us, &mut self.block);
        self.end_us = entry.end_us;
    }

    fn put_away(&mut self) {
        let most = if self.has_file { MOST_IN_FILE } else { MOST_IN_MEMORY };
        self.used += BLOCK;
        if self.used <= most {
            self.full.push(self.block.as_slice().into());
        }
        if self.used > most - (most >> (self.level + 1)) {
            self.level = (self.level + 1).min(MOST_LEVEL);
        }
        self.block.clear();
        self.end_us = 0;
    }

    /// The block that is being filled.
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// Takes the full blocks, as from now on a file does. One that it does not take stays, and so do all
    /// behind it.
    pub fn take_full<E>(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.has_file = true;
        let mut taken = 0;
        let result = self.full.iter().try_for_each(|block| {
            take(block)?;
            taken += 1;
            Ok(())
        });
        self.full.drain(..taken);
        result
    }

    /// There is no file any more: from now on as much as fits into memory is kept.
    pub fn keep_full(&mut self) {
        self.has_file = false;
        self.used = self.full.len() * BLOCK;
    }

    /// All blocks that are in no file, the last one with what has not ended yet.
    pub fn now(&self) -> Vec<Arc<[u8]>> {
        let mut last = self.block.clone();
        let mut end_us = self.end_us;
        for thread in self.threads.iter().filter(|thread| thread.run.count > 0) {
            let entry = thread.run.entry(thread.end_us);
            entry.write(end_us, &mut last);
            end_us = entry.end_us;
        }
        self.full.iter().cloned().chain([last.into()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::profile;
    use crate::profile::{Moment, Timeline};

    const MS: u64 = 1_000_000;

    fn read(blocks: Vec<Arc<[u8]>>) -> Vec<Moment> {
        let mut profile = profile(&[("a:1", 1), ("b:1", 1)]);
        profile.timeline = Timeline::new(blocks.into_iter().map(Into::into).collect(), vec![0, 1]);
        profile.moments().collect()
    }

    #[test]
    fn a_thread_that_stays_costs_little() {
        let mut moments = Moments::default();
        for ms in 1..=2_500 {
            let tally = u32::from(ms > 2_400);
            let cpu_ns = u64::from(tally) * MS;
            moments.count(3, Counted { tally, count: 1, at_ns: ms * MS, wall_ns: MS, cpu_ns });
        }
        let runs: Vec<_> =
            read(moments.now()).iter().map(|m| (m.sample, m.at_ns / MS, m.count)).collect();
        assert_eq!(runs, [(0, 1_000, 1_000), (0, 2_000, 1_000), (0, 2_400, 400), (1, 2_500, 100)]);
        let sum = |weight: fn(&Moment) -> u64| read(moments.now()).iter().map(weight).sum::<u64>();
        assert_eq!((sum(|m| m.weight_ns), sum(|m| m.cpu_ns)), (2_500 * MS, 100 * MS));
        moments.gone(3);
        moments.gone(4);
        assert_eq!(read(moments.now()).len(), 4);
    }

    #[test]
    fn without_the_file_it_goes_on_in_memory() {
        let mut moments = Moments::default();
        let count = |moments: &mut Moments, samples: std::ops::Range<u64>| {
            for number in samples {
                let (tally, at_ns) = ((number % 2) as u32, number * 7_000);
                moments.count(0, Counted { tally, count: 1, at_ns, wall_ns: 7_000, cpu_ns: 7_000 });
            }
        };
        let mut filed = 0;
        for part in 0..20 {
            let taken = moments.take_full(|block| {
                filed += block.len();
                Ok::<_, ()>(())
            });
            assert_eq!(taken, Ok(()));
            count(&mut moments, part * 100_000..(part + 1) * 100_000);
        }
        assert!(filed > MOST_IN_MEMORY && moments.level == 0);
        // The file has room for one more.
        let left = moments.full.len() - 1;
        let mut room = 1;
        let taken = moments.take_full(|_| {
            room = usize::checked_sub(room, 1).ok_or(())?;
            Ok(())
        });
        assert_eq!((taken, moments.full.len()), (Err(()), left));
        moments.keep_full();
        let before: u64 = read(moments.now()).iter().map(|moment| moment.count).sum();
        count(&mut moments, 2_000_000..2_200_000);
        let after: u64 = read(moments.now()).iter().map(|moment| moment.count).sum();
        assert!((199_990..=200_000).contains(&(after - before)), "{before} {after}");
    }

    #[test]
    fn many_samples_at_once_are_as_many_one_by_one() {
        let (mut once, mut each) = (Moments::default(), Moments::default());
        for tenth in 1..=25 {
            let counted =
                |count, at_ns, wall_ns| Counted { tally: 1, count, at_ns, wall_ns, cpu_ns: 0 };
            once.count(2, counted(100, tenth * 100 * MS, 100 * MS));
            let first = (tenth - 1) * 100;
            (first + 1..=first + 100).for_each(|ms| each.count(2, counted(1, ms * MS, MS)));
        }
        let weights = |moments: &Moments| -> Vec<(u64, u64)> {
            read(moments.now()).iter().map(|moment| (moment.count, moment.weight_ns / MS)).collect()
        };
        // A run is ended by what begins a second after it.
        assert_eq!(weights(&once), [(1_000, 1_000), (1_000, 1_000), (500, 500)]);
        assert_eq!(weights(&each), weights(&once));
    }

    #[test]
    fn long_recordings_become_coarser_and_keep_their_weight() {
        const SAMPLES: u64 = 4_000_000;
        let mut moments = Moments::default();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for number in 1..=SAMPLES {
            let (tally, at_ns) = ((number % 3 % 2) as u32, number * 7_000);
            let counted = Counted { tally, count: 1, at_ns, wall_ns: 7_000, cpu_ns: 7_000 };
            moments.count(0, counted);
            bytes += moments.full.iter().map(|block| block.len()).sum::<usize>();
            taken.append(&mut moments.full);
        }
        assert!(bytes <= MOST_IN_MEMORY && moments.level == 2, "{bytes} {}", moments.level);
        taken.extend(moments.now());
        let read = read(taken);
        let sum = |weight: fn(&Moment) -> u64| read.iter().map(weight).sum::<u64>();
        assert!(SAMPLES - sum(|m| m.count) < 64);
        assert!(SAMPLES * 7_000 - sum(|m| m.weight_ns) < 64 * 7_000);
    }
}
