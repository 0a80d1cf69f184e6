//! The tasks of one loop as they were read, and how they are linked.

use std::collections::HashSet;
use std::ops::Range;

use crate::hash::FastHash;
use crate::mem::{Address, MOST_GROUPS, Memory, Remembered, Watched};
use crate::reader::codes::Located;
use crate::reader::tasks::coroutines::Doing;

/// A task as it was read.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) marker: Located,
    pub(super) doing: Doing,
    /// By their places among those of all: its frames, oldest first, and the tasks that await it.
    frames: Range<u32>,
    waiters: Range<u32>,
}

/// What a pass finds out of a task by way of others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Links {
    pub(super) parent: Option<u32>,
    /// Whether those that await it were asked for.
    pub(super) is_open: bool,
    /// Whether one that awaits it could not be read.
    pub(super) is_broken: bool,
    pub(super) is_awaiting: bool,
    pub(super) is_shown: bool,
}

/// What is known of the tasks of one loop; each has a number.
#[derive(Debug, Default)]
pub(super) struct Known {
    tasks: Remembered<Task>,
    frames: Vec<Located>,
    waiters: Vec<Address>,
    /// On what else everything depends.
    depends: [u64; 2],
    /// The last cycle in which it was asked for.
    pub(super) cycle: u64,
    /// Of this pass.
    links: Vec<Links>,
    failed: HashSet<Address, FastHash>,
    gone: usize,
}

/// What a pass knows of a task.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// It was read, and has this number.
    Read(u32),
    /// It could not be read.
    Failed,
}

/// Most frames, and most that await others, that are remembered, used or not.
const MOST_FRAMES: usize = 1 << 20;

impl Known {
    /// Begins a pass. What is known stays true as long as `depends` stays as it is.
    pub(super) fn begin(&mut self, depends: [u64; 2]) {
        let is_full = self.frames.len().max(self.waiters.len()) > MOST_FRAMES;
        if is_full || self.depends != depends {
            *self = Self { depends, ..Self::default() };
        }
        if self.tasks.begin() {
            self.frames.clear();
            self.waiters.clear();
        }
        self.links.clear();
        self.failed.clear();
        self.gone = 0;
    }

    /// What this pass knows of a task; `None` if it was not its turn yet.
    pub(super) fn of_this_pass(&self, task: Address) -> Option<Found> {
        let number = self.tasks.of_this_pass(task);
        let failed = || self.failed.contains(&task).then_some(Found::Failed);
        number.map(Found::Read).or_else(failed)
    }

    /// Takes those of a few tasks of which everything is as it was to be read. Returns their numbers.
    pub(super) fn take_again(
        &mut self,
        memory: &impl Memory,
        tasks: &[Address],
    ) -> [Option<u32>; MOST_GROUPS] {
        self.tasks.take_again(memory, tasks)
    }

    /// Adds what was just read of a task, and of which of its frames and of those that await it.
    pub(super) fn add<M: Memory>(
        &mut self,
        task: Address,
        (marker, doing): (Located, Doing),
        frames: &[Located],
        waiters: &[Address],
        read: &Watched<'_, M>,
    ) -> Found {
        let read_of = Task {
            marker,
            doing,
            frames: add_all(&mut self.frames, frames),
            waiters: add_all(&mut self.waiters, waiters),
        };
        Found::Read(self.tasks.add(task, read_of, read))
    }

    /// A task could not be read in this pass, if only because it is gone.
    pub(super) fn fail(&mut self, task: Address, is_gone: bool) -> Found {
        self.failed.insert(task);
        self.gone += usize::from(is_gone);
        Found::Failed
    }

    /// How many could not though they are there.
    pub(super) fn failed(&self) -> usize {
        self.failed.len() - self.gone
    }

    /// All that were read in this pass, in order.
    pub(super) fn read(&self) -> &[u32] {
        self.tasks.taken()
    }

    pub(super) fn task(&self, number: u32) -> &Task {
        self.tasks.get(number)
    }

    pub(super) fn links(&mut self, number: u32) -> &mut Links {
        let number = number as usize;
        if self.links.len() <= number {
            self.links.resize(number + 1, Links::default());
        }
        &mut self.links[number]
    }

    /// A task's frames, oldest first.
    pub(super) fn frames(&self, number: u32) -> &[Located] {
        of(&self.frames, &self.task(number).frames)
    }

    /// The tasks that await a task.
    pub(super) fn waiters(&self, number: u32) -> &[Address] {
        of(&self.waiters, &self.task(number).waiters)
    }
}

fn add_all<T: Copy>(to: &mut Vec<T>, some: &[T]) -> Range<u32> {
    let before = to.len();
    to.extend_from_slice(some);
    before as u32..to.len() as u32
}

fn of<'a, T>(all: &'a [T], range: &Range<u32>) -> &'a [T] {
    all.get(range.start as usize..range.end as usize).unwrap_or_default()
}
