//! What was sampled, in memory proportional to distinct stacks: a trie of frames, and counts per
//! thread and stack.

mod finish;
mod trie;

use std::collections::HashMap;

pub use trie::{NodeId, StackTrie};

use crate::hash::FastHash;
use crate::sampler::links::Located;

/// Index of a recorded thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordedThread(pub u32);

/// A thread as it will stand in the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadLabel {
    /// Kernel thread id.
    pub tid: u32,
    /// Python's name for it, once known.
    pub name: Box<str>,
    /// Its interpreter.
    pub interpreter: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    count: u64,
    weight_ns: u64,
}

/// Counts samples.
#[derive(Debug, Default)]
pub struct Recorder {
    trie: StackTrie,
    threads: Vec<ThreadLabel>,
    tallies: HashMap<(u32, u32), Tally, FastHash>,
    samples: u64,
    failed: u64,
    ticks: u64,
    missed: u64,
}

/// One thread's path through the trie, so that the next stack only pays for what changed.
#[derive(Debug, Default)]
pub struct Path {
    nodes: Vec<NodeId>,
}

impl Recorder {
    /// An empty recorder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a thread.
    pub fn add_thread(&mut self, label: ThreadLabel) -> RecordedThread {
        self.threads.push(label);
        RecordedThread(self.threads.len() as u32 - 1)
    }

    /// Gives a thread its name.
    pub fn name_thread(&mut self, thread: RecordedThread, name: &str) {
        if let Some(label) = self.threads.get_mut(thread.0 as usize)
            && *label.name != *name
        {
            label.name = name.into();
        }
    }

    /// Counts one sample of a thread: its stack, root first, of which the first `unchanged` frames
    /// are those of the thread's previous sample, and the time it stands for. `truncated` says
    /// that older frames are missing. Returns false, and counts a failure, once the trie is full.
    pub fn sample(
        &mut self,
        thread: RecordedThread,
        path: &mut Path,
        stack: &[Located],
        unchanged: usize,
        truncated: bool,
        weight_ns: u64,
    ) -> bool {
        path.nodes.truncate(unchanged);
        let mut parent = match path.nodes.last() {
            Some(&node) => node,
            None if truncated => self.trie.truncation(),
            None => NodeId::ROOT,
        };
        for &frame in stack.get(path.nodes.len()..).unwrap_or_default() {
            let Some(node) = self.trie.child(parent, frame) else {
                path.nodes.clear();
                self.failed += 1;
                return false;
            };
            path.nodes.push(node);
            parent = node;
        }
        let tally = self.tallies.entry((thread.0, parent.0)).or_default();
        tally.count += 1;
        tally.weight_ns += weight_ns;
        self.samples += 1;
        true
    }

    /// Counts a sample that could not be taken right.
    pub fn failure(&mut self) {
        self.failed += 1;
    }

    /// Counts an instant at which the sampler ran, and those before it for which it was late.
    pub fn tick(&mut self, missed: u64) {
        self.ticks += 1;
        self.missed += missed;
    }

    /// Samples counted so far.
    pub fn samples(&self) -> u64 {
        self.samples
    }
}
