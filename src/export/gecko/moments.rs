//! What each thread did when, thread by thread, as often as it is asked for.
//!
//! A profile has its moments in one sequence for all threads of a process, the format has columns
//! for each thread. Threads with few moments are gathered, many at once; of one with many, the
//! sequence is read again for each column, from its first moment to its last. So memory stays
//! bounded, whatever was recorded.

use crate::profile::{Moment, Profile, State, ThreadId};
use std::ops::Range;

/// How many moments are held in memory.
const MOST_HELD: usize = 1 << 20;

/// Samples of a thread in one stack and state, one after the other. Times since the profile's
/// start, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Index into the profile's samples.
    pub sample: usize,
    /// What the thread was doing.
    pub state: State,
    /// The end of the thread's previous sample.
    pub start_us: u64,
    /// When the last of them was taken.
    pub end_us: u64,
    /// CPU time.
    pub cpu_us: u64,
    /// How many there are.
    pub count: u64,
}

impl Row {
    fn new(profile: &Profile, moment: &Moment) -> Self {
        let end_us = moment.at_ns / 1_000;
        Self {
            sample: moment.sample,
            state: profile.samples[moment.sample].state,
            start_us: end_us.saturating_sub(moment.weight_ns / 1_000),
            end_us,
            cpu_us: moment.cpu_ns / 1_000,
            count: moment.count,
        }
    }

    /// The same as two where there are several samples: the first, and the rest at the end. A
    /// viewer draws a sample around its time, and would draw the stack before up to the middle
    /// between the two.
    pub fn ends(self) -> impl Iterator<Item = Self> {
        let each_us = self.end_us.saturating_sub(self.start_us) / self.count.max(1);
        let first_us = self.start_us + each_us;
        let first = (self.count > 1).then_some(Self {
            end_us: first_us,
            cpu_us: self.cpu_us / self.count.max(1),
            count: 1,
            ..self
        });
        let rest = match first {
            Some(first) => Self {
                start_us: first_us,
                cpu_us: self.cpu_us - first.cpu_us,
                count: self.count - 1,
                ..self
            },
            None => self,
        };
        first.into_iter().chain([rest])
    }
}

/// All there is of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    moments: usize,
    /// The blocks of the timeline in which they are.
    first_block: usize,
    end_block: usize,
    /// The start of its first sample.
    pub start_us: u64,
    /// The end of its last.
    pub end_us: u64,
}

/// Where rows come from.
pub(super) struct Moments<'a> {
    profile: &'a Profile,
    most_held: usize,
    extents: Vec<Extent>,
    /// Threads whose moments are held, in order, and the moments themselves.
    threads: Range<usize>,
    held: Vec<Moment>,
    /// Where those of each held thread begin.
    begins: Vec<usize>,
}

impl<'a> Moments<'a> {
    pub fn new(profile: &'a Profile) -> Self {
        Self::holding(profile, MOST_HELD)
    }

    fn holding(profile: &'a Profile, most_held: usize) -> Self {
        let mut extents = vec![Extent::default(); profile.threads.len()];
        let mut moments = profile.moments();
        while let Some(moment) = moments.next() {
            let row = Row::new(profile, &moment);
            let extent = &mut extents[thread_of(profile, &moment)];
            if extent.moments == 0 {
                extent.start_us = row.start_us;
                extent.first_block = moments.block();
            }
            extent.moments += 1;
            extent.end_us = extent.end_us.max(row.end_us);
            extent.end_block = moments.block() + 1;
        }
        Self { profile, most_held, extents, threads: 0..0, held: Vec::new(), begins: Vec::new() }
    }

    /// When a thread was sampled.
    pub fn extent(&self, thread: ThreadId) -> Extent {
        self.extents[thread.0 as usize]
    }

    /// Makes ready what is needed of a thread. Threads come in order.
    pub fn turn_to(&mut self, thread: ThreadId) {
        let first = thread.0 as usize;
        if self.threads.contains(&first) {
            return;
        }
        let mut sum = 0;
        let fitting = self.extents[first..].iter().take_while(|extent| {
            sum += extent.moments;
            sum <= self.most_held
        });
        self.threads = first..first + fitting.count();
        self.held.clear();
        self.begins.clear();
        let mut next = Vec::with_capacity(self.threads.len());
        let mut begin = 0;
        let mut blocks: Option<Range<usize>> = None;
        for extent in &self.extents[self.threads.clone()] {
            next.push(begin);
            begin += extent.moments;
            if extent.moments > 0 {
                let (first, end) = (extent.first_block, extent.end_block);
                let known = blocks.get_or_insert(first..end);
                *known = known.start.min(first)..known.end.max(end);
            }
        }
        self.begins.extend(next.iter().copied().chain([begin]));
        let Some(blocks) = blocks else { return };
        let none = Moment { sample: 0, at_ns: 0, count: 0, weight_ns: 0, cpu_ns: 0 };
        self.held.resize(begin, none);
        for moment in self.profile.moments_in(&blocks) {
            let place = thread_of(self.profile, &moment).checked_sub(first);
            let Some(at) = place.filter(|&place| place < next.len()) else { continue };
            // A file that is changed meanwhile may have more than there were.
            if next[at] < self.begins[at + 1] {
                self.held[next[at]] = moment;
                next[at] += 1;
            }
        }
    }

    /// What the thread that was turned to did, in order.
    pub fn rows(&self, thread: ThreadId) -> impl Iterator<Item = Row> + '_ {
        let profile = self.profile;
        let index = thread.0 as usize;
        let Extent { first_block, end_block, .. } = self.extents[index];
        let (held, all) = match self.threads.contains(&index) {
            true => {
                let at = index - self.threads.start;
                (&self.held[self.begins[at]..self.begins[at + 1]], None)
            }
            false => (&self.held[..0], Some(profile.moments_in(&(first_block..end_block)))),
        };
        let of_thread = move |moment: &Moment| thread_of(profile, moment) == index;
        let all = all.into_iter().flatten().filter(of_thread);
        held.iter().copied().chain(all).map(|moment| Row::new(profile, &moment))
    }
}

fn thread_of(profile: &Profile, moment: &Moment) -> usize {
    profile.samples[moment.sample].thread.0 as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{add, profile};

    #[test]
    fn rows_are_the_same_however_they_are_read() {
        let mut profile = profile(&[("a:1", 2), ("b:1", 1), ("a:1", 4)]);
        add(&mut profile, 7, &[("c:1", 3)]);
        add(&mut profile, 8, &[]);
        add(&mut profile, 9, &[("c:1", 1), ("d:1", 1), ("e:1", 1), ("f:1", 1), ("g:1", 1)]);
        let counts = |most_held| -> Vec<Vec<(usize, u64, u64, u64)>> {
            let mut moments = Moments::holding(&profile, most_held);
            let threads = (0..profile.threads.len() as u32).map(ThreadId);
            let rows = threads.map(|thread| {
                moments.turn_to(thread);
                let row = |row: Row| (row.sample, row.start_us, row.end_us, row.count);
                moments.rows(thread).map(row).collect()
            });
            rows.collect()
        };
        let all = counts(MOST_HELD);
        assert_eq!(all[0], [(0, 0, 2_000, 2), (1, 2_000, 3_000, 1), (2, 3_000, 7_000, 4)]);
        assert_eq!(all[1], [(3, 0, 3_000, 3)]);
        assert_eq!((all[2].len(), all[3].len()), (0, 5));
        for most_held in [0, 1, 3, 4, 5, 8] {
            assert_eq!(counts(most_held), all, "{most_held}");
        }
    }

    #[test]
    fn a_run_has_its_first_sample_and_the_rest() {
        let state = State::default();
        let row = Row { sample: 1, state, start_us: 1_000, end_us: 5_000, cpu_us: 9, count: 4 };
        let ends: Vec<Row> = row.ends().collect();
        let first = Row { end_us: 2_000, cpu_us: 2, count: 1, ..row };
        assert_eq!(ends, [first, Row { start_us: 2_000, cpu_us: 7, count: 3, ..row }]);
        let one = Row { count: 1, ..row };
        assert_eq!(one.ends().collect::<Vec<_>>(), [one]);
    }
}
