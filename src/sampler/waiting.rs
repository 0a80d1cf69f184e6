//! The tasks that wait, of the loop that a thread runs: a stack of each that no other one of them
//! waits for, down to the task at the root.

use std::collections::HashMap;

use super::greenlets::Settled;
use super::tasks::{MOST_CHAINED, Names, placed};
use crate::hash::FastHash;
use crate::layout::Layout;
use crate::layout::detect::Build;
use crate::mem::{Address, Ahead, Memory, Watched, field};
use crate::reader::Torn;
use crate::reader::codes::{CodeTable, Located, Pass};
use crate::reader::frames::RawFrame;
use crate::reader::tasks::coroutines::Doing;
use crate::reader::tasks::listing::Listed;
use crate::reader::tasks::{Reading, TaskReader};
use crate::reader::threads::ThreadState;

/// Stacks of tasks, root first.
#[derive(Debug, Default)]
pub struct Stacks {
    pub(super) frames: Vec<Located>,
    ends: Vec<usize>,
    /// What the greenlets among them were read at.
    pub(super) settled: Option<Settled>,
    /// Tasks that could not be read right.
    pub failed: usize,
}

impl Stacks {
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.ends.clear();
        self.failed = 0;
    }

    /// What was added to `frames` since the last one is a stack.
    pub(super) fn end(&mut self) {
        self.ends.push(self.frames.len());
    }

    /// Each of them.
    pub fn each(&self) -> impl Iterator<Item = &[Located]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, &end)| self.frames.get(start..end))
    }
}

/// A task as it was read.
#[derive(Clone, Copy, Debug)]
struct Entry {
    marker: Located,
    /// Its frames, oldest first, by their places among those of all.
    frames: (usize, usize),
    parent: Option<usize>,
    waits: bool,
    is_awaiting: bool,
    is_shown: bool,
}

/// How many tasks ahead what is read of a task is asked for.
const DISTANCE: usize = 4;
/// Loops for which it is remembered what was read of their tasks.
const MOST_LOOPS: usize = 16;
/// Tries to read a task that goes on meanwhile.
const TRIES: usize = 3;

/// Reads all tasks; keeps its buffers.
#[derive(Default)]
pub struct Waiting {
    listed: Vec<Listed>,
    /// The cycle and the interpreter that they were listed in.
    listed_in: (u64, Address),
    entries: Vec<Entry>,
    index: HashMap<Address, Option<usize>, FastHash>,
    frames: Vec<Located>,
    raw: Vec<RawFrame>,
    pass: Pass,
    waiters: Vec<Address>,
    /// What was read of the tasks of each loop.
    ahead: HashMap<Address, Ahead, FastHash>,
    /// Tasks that are still to be looked at for what awaits them.
    open: Vec<(usize, Address)>,
    path: Vec<usize>,
}

/// What the tasks are read from.
pub struct Source<'a, M> {
    /// The memory.
    pub memory: &'a M,
    /// Where its fields are.
    pub layout: &'a Layout,
    /// What it is.
    pub build: &'a Build,
    /// All threads there are.
    pub threads: &'a [ThreadState],
    /// Counts cycles: within one, tasks are listed once.
    pub cycle: u64,
}

impl Waiting {
    /// The tasks that wait of the loop that a thread runs.
    pub(super) fn read<M: Memory>(
        &mut self,
        source: &Source<'_, M>,
        reader: &mut TaskReader,
        names: &mut Names,
        codes: &mut CodeTable,
        thread: &ThreadState,
        into: &mut Stacks,
    ) -> Result<(), Torn> {
        let Source { memory, layout, threads, cycle, .. } = *source;
        let interpreter = memory.word(field(thread.at, layout.thread_interpreter))?;
        let Some(mut reading) = reader.reading(memory, layout, interpreter)? else {
            return Ok(());
        };
        if self.listed_in != (cycle, interpreter) {
            self.listed.clear();
            self.listed_in = (0, 0);
            let of_interpreter =
                threads.iter().filter(|other| other.interpreter == thread.interpreter);
            reading.list(of_interpreter.map(|other| other.at), &mut self.listed)?;
            self.listed_in = (cycle, interpreter);
        }
        let its_loop = reading.loop_in(thread.at, thread.ident, &self.listed)?;
        if its_loop == 0 {
            return Ok(());
        }
        let mut ahead = self.ahead.remove(&its_loop).unwrap_or_default();
        let watched = ahead.begin(memory);
        let read = match reader.reading(&watched, layout, interpreter) {
            Ok(Some(mut reading)) => {
                self.read_all(&mut reading, &mut ahead, names, codes, its_loop)
            }
            Ok(None) => Err(Torn),
            Err(torn) => Err(torn),
        };
        ahead.end(watched);
        if self.ahead.len() >= MOST_LOOPS {
            self.ahead.clear();
        }
        self.ahead.insert(its_loop, ahead);
        read?;
        into.failed = self.index.values().filter(|entry| entry.is_none()).count();
        // What runs is in the thread's own sample, with those that await it.
        for index in 0..self.entries.len() {
            if self.entries[index].is_shown {
                self.find_path(index);
            }
        }
        for awaiting_too in [false, true] {
            for index in 0..self.entries.len() {
                let Entry { waits, is_awaiting, is_shown, .. } = self.entries[index];
                if waits && !is_shown && is_awaiting == awaiting_too {
                    self.find_path(index);
                    self.show(into);
                }
            }
        }
        Ok(())
    }

    /// Reads each task of a loop.
    fn read_all<M: Memory>(
        &mut self,
        reading: &mut Reading<'_, Watched<'_, M>>,
        ahead: &mut Ahead,
        names: &mut Names,
        codes: &mut CodeTable,
        its_loop: Address,
    ) -> Result<(), Torn> {
        self.entries.clear();
        self.index.clear();
        self.frames.clear();
        self.pass.begin();
        reading.begin_pass();
        for listed in 0..self.listed.len() {
            if let Some(soon) = self.listed.get(listed + DISTANCE)
                && soon.its_loop == its_loop
            {
                ahead.ask(soon.task);
            }
            let Listed { task, its_loop: of } = self.listed[listed];
            if of == its_loop && !self.index.contains_key(&task) {
                reading.memory().turn_to(task);
                self.add(reading, names, codes, task);
            }
        }
        reading.end_pass()?;
        self.pass.end(reading.memory(), codes)
    }

    /// Reads a task, and those that await it.
    fn add<M: Memory>(
        &mut self,
        reading: &mut Reading<'_, M>,
        names: &mut Names,
        codes: &mut CodeTable,
        task: Address,
    ) {
        let entry = self.entry(reading, names, codes, task);
        self.index.insert(task, entry);
        while let Some((child, task)) = self.open.pop() {
            let known = self.index.get(&task).copied();
            let parent = match known {
                Some(known) => known,
                None => {
                    let entry = self.entry(reading, names, codes, task);
                    self.index.insert(task, entry);
                    entry
                }
            };
            if let Some(parent) = parent {
                self.entries[parent].is_awaiting = true;
                let first = self.entries[child].parent.map(|first| self.entries[first].marker);
                let name = |marker: Located| codes.code(marker.code).map(|code| &*code.name);
                if first.is_none_or(|first| name(self.entries[parent].marker) < name(first)) {
                    self.entries[child].parent = Some(parent);
                }
            } else {
                // Without the one that awaits it, its stack would be none that there was.
                self.entries[child].waits = false;
            }
        }
    }

    fn entry<M: Memory>(
        &mut self,
        reading: &mut Reading<'_, M>,
        names: &mut Names,
        codes: &mut CodeTable,
        task: Address,
    ) -> Option<usize> {
        (0..TRIES).find_map(|_| self.try_entry(reading, names, codes, task).ok())
    }

    fn try_entry<M: Memory>(
        &mut self,
        reading: &mut Reading<'_, M>,
        names: &mut Names,
        codes: &mut CodeTable,
        task: Address,
    ) -> Result<usize, Torn> {
        self.raw.clear();
        self.waiters.clear();
        reading.turn_to(task)?;
        // What has ended has let go of those that await it.
        reading.waiters(task, &mut self.waiters)?;
        let doing = reading.frames(task, &mut self.raw)?;
        let marker = names.frame(reading, codes, task, self.waiters.len())?;
        let start = self.frames.len();
        if doing == Doing::Waits {
            for raw in &self.raw {
                let (memory, layout) = (reading.memory(), reading.layout());
                let proven = self.pass.resolve(memory, codes, raw.code)?;
                self.frames.extend(placed(memory, layout, codes, proven, raw)?);
            }
        }
        let index = self.entries.len();
        self.entries.push(Entry {
            marker,
            frames: (start, self.frames.len()),
            parent: None,
            waits: doing == Doing::Waits,
            is_awaiting: false,
            is_shown: matches!(doing, Doing::Runs(_)),
        });
        // What has finished is awaited no more.
        if doing != Doing::Nothing {
            self.open.extend(self.waiters.iter().map(|&waiter| (index, waiter)));
        }
        Ok(index)
    }

    /// Follows a task to the root; all on the way are shown then.
    fn find_path(&mut self, from: usize) {
        self.path.clear();
        let mut next = Some(from);
        while let Some(index) = next
            && self.path.len() < MOST_CHAINED
            && !self.path.contains(&index)
        {
            self.entries[index].is_shown = true;
            self.path.push(index);
            next = self.entries[index].parent;
        }
    }

    fn show(&self, into: &mut Stacks) {
        for &index in self.path.iter().rev() {
            let Entry { marker, frames: (start, end), .. } = self.entries[index];
            into.frames.push(marker);
            into.frames.extend_from_slice(self.frames.get(start..end).unwrap_or_default());
        }
        into.end();
    }
}
