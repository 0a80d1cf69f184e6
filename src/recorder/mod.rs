//! What was sampled, in memory proportional to distinct stacks: a trie of frames, and counts per
//! thread, stack and state. When the samples were taken; and all of it in a file, as it is recorded.

mod finish;
pub mod format;
mod moments;
mod spool;
mod trie;

use std::collections::HashMap;
use std::io;
use std::path::Path;

use moments::{Counted, Moments};
use spool::{News, Spool};
pub use trie::{NodeId, StackTrie};

use crate::hash::FastHash;
use crate::profile::Meta;
use crate::reader::codes::{CodeTable, Located};
use crate::reader::threads::ThreadState;
use crate::sampler::Sink;
use crate::sampler::activity::{Spent, State};

/// A thread, and its path through the trie, so that its next stack only pays for what changed.
#[derive(Debug)]
struct RecordedThread {
    tid: u32,
    name: Box<str>,
    interpreter: i64,
    path: Vec<NodeId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// In order of first sight.
    number: u32,
    count: u64,
    wall_ns: u64,
    cpu_ns: u64,
    /// Where the spool has it; 0 where it has not.
    spooled_at: usize,
}

/// What is counted by itself: a thread in a stack and a state.
type TallyKey = (u32, u32, State);

/// Counts samples.
#[derive(Debug, Default)]
pub struct Recorder {
    trie: StackTrie,
    threads: Vec<RecordedThread>,
    tallies: HashMap<TallyKey, Tally, FastHash>,
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
        if let Some(recorded) = self.threads.get_mut(thread as usize)
            && *recorded.name != *name
        {
            recorded.name = name.into();
            if let Some(spool) = &mut self.spool {
                spool.rename(thread);
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
        let tallies = self.tallies.keys().copied();
        self.spool = Some(Spool::create(path, meta, self.threads.len(), tallies)?);
        Ok(())
    }

    /// Brings the spool up to date, `elapsed_ns` after the start. To be called after each cycle.
    pub fn update_spool(&mut self, codes: &CodeTable, elapsed_ns: u64) {
        let Some(spool) = &mut self.spool else { return };
        let Self { trie, threads, tallies, moments, ticks, missed, failed, samples, .. } = self;
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

    /// Threads seen so far.
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
        let name = Box::default();
        self.threads.push(RecordedThread { tid, name, interpreter, path: Vec::new() });
        self.threads.len() as u32 - 1
    }

    fn sample(
        &mut self,
        thread: u32,
        stack: &[Located],
        unchanged: usize,
        truncated: bool,
        spent: Spent,
    ) {
        let Some(RecordedThread { path, .. }) = self.threads.get_mut(thread as usize) else {
            return;
        };
        path.truncate(unchanged);
        let mut parent = match path.last() {
            Some(&node) => node,
            None if truncated => self.trie.truncation(),
            None => NodeId::ROOT,
        };
        for &frame in stack.get(path.len()..).unwrap_or_default() {
            let Some(node) = self.trie.child(parent, frame) else {
                // The trie is full.
                path.clear();
                self.failed += 1;
                return;
            };
            path.push(node);
            parent = node;
        }
        let key = (thread, parent.0, spent.state);
        let number = self.tallies.len() as u32;
        let tally = self.tallies.entry(key).or_insert(Tally { number, ..Tally::default() });
        tally.count += 1;
        tally.wall_ns += spent.wall_ns;
        tally.cpu_ns += spent.cpu_ns;
        if let Some(spool) = &mut self.spool {
            spool.count(key, tally);
        }
        self.samples += 1;
        let Spent { at_ns, wall_ns, cpu_ns, .. } = spent;
        let at_ns = at_ns.saturating_sub(self.start_ns);
        let counted = Counted { tally: tally.number, at_ns, wall_ns, cpu_ns };
        self.moments.count(thread, counted);
    }

    fn failure(&mut self) {
        self.failed += 1;
    }

    fn gone(&mut self, thread: u32) {
        if let Some(recorded) = self.threads.get_mut(thread as usize) {
            recorded.path = Vec::new();
            self.moments.gone(thread);
        }
    }
}
