//! What was sampled, in memory proportional to distinct stacks: a trie of frames, and counts per
//! thread, stack and state. When the samples were taken; and all of it in a file, as it is recorded.

mod finish;
pub mod format;
mod moments;
mod spool;
mod tallies;
mod trie;

use std::io;
use std::path::Path;

use moments::{Counted, Moments};
use spool::{News, Spool};
use tallies::Tallies;
pub use trie::{NodeId, StackTrie};

use crate::profile::Meta;
use crate::reader::codes::{CodeTable, Located};
use crate::reader::threads::ThreadState;
use crate::sampler::Sink;
use crate::sampler::activity::Spent;

/// Threads that are told apart. A server may start one for each request: those that are seen when there
/// are as many count as one.
const MOST_THREADS: usize = 1 << 13;
/// What the one is called.
const LATER_THREADS: &str = "later threads";

/// What is kept of a thread for good.
#[derive(Debug)]
struct RecordedThread {
    tid: u32,
    name: Box<str>,
    interpreter: i64,
}

/// A thread as long as it lives.
#[derive(Debug)]
struct LivingThread {
    /// Which of the recorded ones it is.
    recorded: u32,
    /// Its path through the trie, so that its next stack only pays for what changed.
    path: Vec<NodeId>,
    /// The number of its last tally.
    last: u32,
}

/// Counts samples.
#[derive(Debug, Default)]
pub struct Recorder {
    trie: StackTrie,
    threads: Vec<RecordedThread>,
    /// By the numbers that the sampler knows them by, and which of these are free again.
    living: Vec<LivingThread>,
    free: Vec<u32>,
    tallies: Tallies,
    moments: Moments,
    /// On the monotonic clock.
    start_ns: u64,
    samples: u64,
    failed: u64,
    ticks: u64,
    missed: u64,
    spool: Option<Spool>,
}

impl Recorder {
    /// An empty recorder. Times of samples count from `start_ns` on the monotonic clock.
    pub fn new(start_ns: u64) -> Self {
        Self { start_ns, ..Self::default() }
    }

    /// Gives a thread its name.
    pub fn name_thread(&mut self, thread: u32, name: &str) {
        let Some(&LivingThread { recorded: number, .. }) = self.living.get(thread as usize) else {
            return;
        };
        if let Some(recorded) = self.threads.get_mut(number as usize)
            && (number as usize) < MOST_THREADS
            && *recorded.name != *name
        {
            recorded.name = name.into();
            if let Some(spool) = &mut self.spool {
                spool.rename(number);
            }
        }
    }

    /// Counts an instant at which the sampler ran, and those before it for which it was late.
    pub fn tick(&mut self, missed: u64) {
        self.ticks += 1;
        self.miss(missed);
    }

    /// Counts instants at which the sampler did not run.
    pub fn miss(&mut self, missed: u64) {
        self.missed += missed;
    }

    /// Records into a new file as well, from now on and what there is so far. Where the file's room
    /// ends, or somebody takes it, it is left as it is.
    pub fn begin_spool(&mut self, path: &Path, meta: &Meta) -> io::Result<()> {
        let tallies = self.tallies.rows().len();
        self.spool = Some(Spool::create(path, meta, self.threads.len(), tallies)?);
        Ok(())
    }

    /// Brings the spool up to date, `elapsed_ns` after the start. To be called after each cycle.
    pub fn update_spool(&mut self, codes: &CodeTable, elapsed_ns: u64) {
        let Some(spool) = &mut self.spool else { return };
        let Self { trie, threads, tallies, moments, ticks, missed, failed, samples, .. } = self;
        let tallies = tallies.rows_mut();
        let counts = [*ticks, *missed, *failed, elapsed_ns];
        spool.update(News { trie, threads, tallies, moments, codes }, counts, *samples);
    }

    /// Where the spool is, if there is one.
    pub fn spool_path(&self) -> Option<&Path> {
        self.spool.as_ref().map(Spool::path)
    }

    /// Takes the spool away: what is in it is elsewhere.
    pub fn remove_spool(&mut self) {
        if let Some(spool) = self.spool.take() {
            spool.remove();
        }
    }

    /// Threads seen so far, as far as they are told apart.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Samples counted so far.
    pub fn samples(&self) -> u64 {
        self.samples
    }
}

impl Sink for Recorder {
    fn thread(&mut self, thread: &ThreadState) -> u32 {
        let ThreadState { tid, interpreter, .. } = *thread;
        let recorded = self.threads.len().min(MOST_THREADS) as u32;
        if self.threads.len() < MOST_THREADS {
            self.threads.push(RecordedThread { tid, name: Box::default(), interpreter });
        } else if self.threads.len() == MOST_THREADS {
            self.threads.push(RecordedThread { tid: 0, name: LATER_THREADS.into(), interpreter });
            if let Some(spool) = &mut self.spool {
                spool.rename(recorded);
            }
        }
        let living = LivingThread { recorded, path: Vec::new(), last: u32::MAX };
        match self.free.pop() {
            Some(number) => {
                self.living[number as usize] = living;
                number
            }
            None => {
                self.living.push(living);
                self.living.len() as u32 - 1
            }
        }
    }

    fn sample(
        &mut self,
        thread: u32,
        stack: &[Located],
        unchanged: usize,
        truncated: bool,
        spent: Spent,
    ) {
        /// Fewer new frames are found as fast.
        const WORTH_A_GUESS: usize = 2;
        let Some(living) = self.living.get_mut(thread as usize) else { return };
        let LivingThread { recorded: thread, ref mut path, ref mut last } = *living;
        path.truncate(unchanged);
        let below = match path.last() {
            Some(&node) => node,
            None if truncated => self.trie.truncation(),
            None => NodeId::ROOT,
        };
        let frames = stack.get(path.len()..).unwrap_or_default();
        // Where all tasks are sampled, they come one after the other as the last time.
        let guess = if frames.len() < WORTH_A_GUESS { None } else { self.tallies.after(*last) };
        let guessed = guess.filter(|(_, tally)| {
            let (of, node, state) = tally.key;
            of == thread && state == spent.state && self.trie.is_below(node, below, frames, path)
        });
        let number = match guessed {
            Some((number, _)) => number,
            None => {
                let mut parent = below;
                for &frame in frames {
                    let Some(node) = self.trie.child(parent, frame) else {
                        // The trie is full.
                        path.clear();
                        self.failed += spent.count;
                        return;
                    };
                    path.push(node);
                    parent = node;
                }
                let number = self.tallies.number((thread, parent, spent.state));
                self.tallies.follows(*last, number);
                number
            }
        };
        *last = number;
        let tally = &mut self.tallies.rows_mut()[number as usize];
        tally.count += spent.count;
        tally.wall_ns += spent.wall_ns;
        tally.cpu_ns += spent.cpu_ns;
        if let Some(spool) = &mut self.spool {
            spool.count(number, tally);
        }
        self.samples += spent.count;
        let Spent { count, at_ns, wall_ns, cpu_ns, .. } = spent;
        let at_ns = at_ns.saturating_sub(self.start_ns);
        let counted = Counted { tally: number, count, at_ns, wall_ns, cpu_ns };
        self.moments.count(thread, counted);
    }

    fn failure(&mut self) {
        self.failed += 1;
    }

    fn gone(&mut self, thread: u32) {
        if let Some(living) = self.living.get_mut(thread as usize) {
            living.path = Vec::new();
            self.moments.gone(living.recorded);
            self.free.push(thread);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::reader::codes::CodeId;
    use crate::sampler::activity::State;

    /// A server that starts a thread for each request.
    #[test]
    fn threads_without_end_take_no_more_memory() {
        const THREADS: usize = MOST_THREADS + 1_000;
        let mut recorder = Recorder::new(0);
        let first = Located::new(CodeId(0), 0);
        let stays = recorder.thread(&ThreadState { at: 1, ident: 1, tid: 1, interpreter: 0 });
        recorder.name_thread(stays, "stays");
        for number in 1..=THREADS {
            let spent = |ns: usize| {
                let at_ns = (number * 1_000_000 + ns) as u64;
                Spent { count: 1, at_ns, state: State::default(), wall_ns: 10, cpu_ns: 10 }
            };
            let tid = number as u32 + 1;
            let thread = recorder.thread(&ThreadState { at: 2, ident: 2, tid, interpreter: 0 });
            recorder.name_thread(thread, "passes");
            let other = Located { index: 1, ..first };
            recorder.sample(thread, &[first], 0, false, spent(1));
            recorder.sample(stays, &[other, first], 0, false, spent(2));
            recorder.sample(thread, &[first, other], 1, false, spent(3));
            recorder.gone(thread);
        }
        assert_eq!((recorder.living.len(), recorder.threads.len()), (2, MOST_THREADS + 1));
        assert!(
            recorder.tallies.rows().len() <= 2 * MOST_THREADS + 1,
            "{}",
            recorder.tallies.rows().len()
        );

        let codes = CodeTable::new(crate::layout::tables::V3_12, 0);
        let profile = recorder.profile(&codes, Meta::default());
        let counted = |wanted: &str| -> u64 {
            let is_of =
                |sample: &&crate::profile::Sample| *profile.thread(sample.thread).name == *wanted;
            profile.samples.iter().filter(is_of).map(|sample| sample.count).sum()
        };
        let own = MOST_THREADS - 1;
        assert_eq!(counted("stays"), THREADS as u64);
        assert_eq!(counted("passes"), 2 * own as u64);
        assert_eq!(counted(LATER_THREADS), 2 * (THREADS - own) as u64);
        // When they were seen is known of them as well, in order, and what it weighs.
        let later: Vec<_> = profile
            .moments()
            .filter(|m| *profile.thread(profile.samples[m.sample].thread).name == *LATER_THREADS)
            .collect();
        assert!(later.is_sorted_by_key(|moment| moment.at_ns));
        assert_eq!(later.iter().map(|m| m.count).sum::<u64>(), counted(LATER_THREADS));
        assert!(later.iter().all(|m| m.weight_ns <= 2_000), "{later:?}");
    }

    proptest! {
        /// Whatever comes after what, and comes so again or not, each sample counts where it belongs.
        #[test]
        fn guesses_are_right_or_not_taken(
            samples in prop::collection::vec((0..2_usize, prop::collection::vec(0..3_u32, 0..6), any::<bool>(), 0..2_u32), 0..60),
            rounds in 1..4_usize,
        ) {
            let mut recorder = Recorder::new(0);
            let thread = |tid| ThreadState { at: 1, ident: 1, tid, interpreter: 0 };
            let threads = [7, 8].map(|tid| recorder.thread(&thread(tid)));
            let mut before = [(vec![], false), (vec![], false)];
            let mut expected = BTreeMap::new();
            for (of, frames, truncated, state) in samples.iter().cycle().take(rounds * samples.len()) {
                let stack: Vec<_> = frames.iter().map(|&code| Located::new(CodeId(code), 0)).collect();
                let (last, was_truncated) = std::mem::replace(&mut before[*of], (stack.clone(), *truncated));
                let same = last.iter().zip(&stack).take_while(|(one, other)| one == other).count();
                let unchanged = if was_truncated == *truncated { same } else { 0 };
                let state = State::from_bits(*state).unwrap();
                let spent = Spent { count: 1, at_ns: 1, state, wall_ns: 3, cpu_ns: 2 };
                recorder.sample(threads[*of], &stack, unchanged, *truncated, spent);
                *expected.entry((*of as u32, frames.clone(), *truncated, state)).or_insert(0) += 1;
            }
            let mut found = BTreeMap::new();
            for tally in recorder.tallies.rows() {
                let (thread, mut node, state) = tally.key;
                let (mut frames, mut truncated) = (Vec::new(), false);
                while node != NodeId::ROOT {
                    let (parent, frame) = recorder.trie.nodes()[node.0 as usize];
                    match recorder.trie.frames().get(frame.0 as usize) {
                        Some(located) => frames.push(located.code.0),
                        None => truncated = true,
                    }
                    node = parent;
                }
                frames.reverse();
                prop_assert_eq!((tally.wall_ns, tally.cpu_ns), (3 * tally.count, 2 * tally.count));
                let known = found.insert((thread, frames, truncated, state), tally.count);
                prop_assert_eq!(known, None);
            }
            prop_assert_eq!(found, expected);
        }
    }
}
