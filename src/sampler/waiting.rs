//! The tasks that wait, of the loop that a thread runs: a stack of each that no other one of them
//! waits for, down to the task at the root.

mod known;

use std::collections::HashMap;

use self::known::{Found, Known, Links};
use super::greenlets::Settled;
use super::tasks::{MOST_CHAINED, Names, placed};
use crate::hash::FastHash;
use crate::layout::Layout;
use crate::layout::detect::Build;
use crate::mem::{Address, MOST_GROUPS, Memory, Watched, field};
use crate::reader::Torn;
use crate::reader::codes::{CodeTable, Located};
use crate::reader::frame::RawFrame;
use crate::reader::passes::Pass;
use crate::reader::tasks::coroutines::Doing;
use crate::reader::tasks::listing::{Listed, Lists};
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

/// Loops whose tasks are remembered.
const MOST_LOOPS: usize = 16;
/// For so many cycles without being asked for: loops come and go.
const MOST_CYCLES: u64 = 500;
/// Tries to read a task that goes on meanwhile.
const TRIES: usize = 3;

/// Reads all tasks; keeps its buffers.
#[derive(Default)]
pub struct Waiting {
    listed: Vec<Listed>,
    /// The cycle and the interpreter that they were listed in.
    listed_in: (u64, Address),
    /// The lists of each interpreter.
    lists: HashMap<Address, Lists, FastHash>,
    /// The tasks of each loop.
    known: HashMap<Address, Known, FastHash>,
    pass: Pass,
    /// Of the task whose turn it is.
    raw: Vec<RawFrame>,
    frames: Vec<Located>,
    waiters: Vec<Address>,
    /// Tasks that are still to be looked at for what awaits them.
    open: Vec<(u32, Address)>,
    path: Vec<u32>,
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

/// What a loop's tasks are read from.
struct From<'a, 'm, M> {
    watched: &'a Watched<'m, M>,
    reading: Reading<'a, Watched<'m, M>>,
    names: &'a mut Names,
    codes: &'a mut CodeTable,
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
        let watched = Watched::new(memory);
        let Some(mut reading) = reader.reading(&watched, layout, interpreter)? else {
            return Ok(());
        };
        if self.listed_in != (cycle, interpreter) {
            self.listed.clear();
            self.listed_in = (0, 0);
            let of_interpreter =
                threads.iter().filter(|other| other.interpreter == thread.interpreter);
            let lists = self.lists.entry(interpreter).or_default();
            let threads = of_interpreter.map(|other| other.at);
            reading.list(threads, lists, &mut self.listed)?;
            self.listed_in = (cycle, interpreter);
        }
        let its_loop = reading.loop_in(thread.at, thread.ident, &self.listed)?;
        if its_loop == 0 {
            return Ok(());
        }
        let mut known = self.known.remove(&its_loop).unwrap_or_default();
        let types = reading.begin_pass();
        known.begin([types, self.pass.begin(memory, codes)]);
        let mut from = From { reading, watched: &watched, names, codes };
        self.read_all(&mut from, &mut known, its_loop);
        let are_types_same = from.reading.end_pass(types);
        let are_codes_same = self.pass.end(memory, from.codes);
        are_types_same.and(are_codes_same)?;
        into.failed = known.failed();
        // What runs is in the thread's own sample, with those that await it.
        for place in 0..known.read().len() {
            let number = known.read()[place];
            if matches!(known.task(number).doing, Doing::Runs(_)) {
                self.find_path(&mut known, number);
            }
        }
        for awaiting_too in [false, true] {
            for place in 0..known.read().len() {
                let number = known.read()[place];
                let Links { is_shown, is_broken, is_awaiting, .. } = *known.links(number);
                let waits = known.task(number).doing == Doing::Waits && !is_broken;
                if waits && !is_shown && is_awaiting == awaiting_too {
                    self.find_path(&mut known, number);
                    self.show(&known, into);
                }
            }
        }
        known.cycle = cycle;
        if self.known.len() >= MOST_LOOPS {
            self.known.clear();
        }
        self.known.retain(|_, of_other| cycle.saturating_sub(of_other.cycle) < MOST_CYCLES);
        self.known.insert(its_loop, known);
        Ok(())
    }

    /// Forgets all tasks.
    pub(super) fn forget(&mut self) {
        self.lists.clear();
        self.known.clear();
        self.pass.forget();
    }

    /// Reads each task of a loop.
    fn read_all<M: Memory>(
        &mut self,
        from: &mut From<'_, '_, M>,
        known: &mut Known,
        its_loop: Address,
    ) {
        let listed = std::mem::take(&mut self.listed);
        let mut its = listed.iter().filter(|listed| listed.its_loop == its_loop);
        loop {
            let mut tasks = [0; MOST_GROUPS];
            let mut some = [None; MOST_GROUPS];
            let mut count = 0;
            for (task, one) in tasks.iter_mut().zip(&mut some) {
                let Some(listed) = its.next() else { break };
                (*task, *one) = (listed.task, Some(listed));
                count += 1;
            }
            let read = known.take_again(from.watched, &tasks[..count]);
            for (listed, read) in some.into_iter().flatten().zip(read) {
                self.add(from, known, listed, read);
            }
            if count < MOST_GROUPS {
                break;
            }
        }
        self.listed = listed;
    }

    /// Reads a task, if it was not yet, and those that await it.
    fn add<M: Memory>(
        &mut self,
        from: &mut From<'_, '_, M>,
        known: &mut Known,
        listed: &Listed,
        read: Option<u32>,
    ) {
        match read {
            Some(number) => self.open(known, number),
            None => _ = self.find(from, known, listed.task, Some(listed)),
        }
        while let Some((child, task)) = self.open.pop() {
            match self.find(from, known, task, None) {
                Found::Read(parent) => {
                    let first = known.links(child).parent;
                    let name = |number| {
                        let marker = known.task(number).marker;
                        from.codes.code(marker.code).map(|code| &*code.name)
                    };
                    if first.is_none_or(|first| name(parent) < name(first)) {
                        known.links(child).parent = Some(parent);
                    }
                    known.links(parent).is_awaiting = true;
                }
                // Without the one that awaits it, its stack would be none that there was.
                Found::Failed => known.links(child).is_broken = true,
            }
        }
    }

    /// What is known of a task, which is read if it was not yet.
    fn find<M: Memory>(
        &mut self,
        from: &mut From<'_, '_, M>,
        known: &mut Known,
        task: Address,
        listed: Option<&Listed>,
    ) -> Found {
        let found = known.of_this_pass(task).unwrap_or_else(|| {
            if let Some(number) = known.take_again(from.watched, &[task])[0] {
                return Found::Read(number);
            }
            let read = (0..TRIES).find_map(|_| self.read_task(from, known, task, listed).ok());
            let is_listed = |listed| from.reading.is_listed(listed) != Ok(false);
            read.unwrap_or_else(|| known.fail(task, !listed.is_none_or(is_listed)))
        });
        if let Found::Read(number) = found {
            self.open(known, number);
        }
        found
    }

    /// Those that await a task are to be looked at, once.
    fn open(&mut self, known: &mut Known, number: u32) {
        let is_open = std::mem::replace(&mut known.links(number).is_open, true);
        // What has finished is awaited no more.
        if !is_open && known.task(number).doing != Doing::Nothing {
            self.open.extend(known.waiters(number).iter().map(|&waiter| (number, waiter)));
        }
    }

    fn read_task<M: Memory>(
        &mut self,
        from: &mut From<'_, '_, M>,
        known: &mut Known,
        task: Address,
        listed: Option<&Listed>,
    ) -> Result<Found, Torn> {
        let From { reading, watched, names, codes } = from;
        self.raw.clear();
        self.frames.clear();
        self.waiters.clear();
        watched.begin();
        reading.turn_to(task)?;
        // What has ended has let go of those that await it.
        reading.waiters(task, &mut self.waiters)?;
        let mut doing = reading.frames(task, &mut self.raw)?;
        let marker = names.frame(reading, codes, task, self.waiters.len())?;
        if doing == Doing::Waits {
            for raw in &self.raw {
                let (memory, layout) = (reading.memory(), reading.layout());
                let proven = self.pass.resolve(memory, codes, raw.code)?;
                self.frames.extend(placed(memory, layout, codes, proven, raw)?);
            }
        }
        if let Some(listed) = listed
            && !reading.is_listed(listed)?
        {
            doing = Doing::Nothing;
        }
        Ok(known.add(task, (marker, doing), &self.frames, &self.waiters, watched))
    }

    /// Follows a task to the root; all on the way are shown then.
    fn find_path(&mut self, known: &mut Known, from: u32) {
        self.path.clear();
        let mut next = Some(from);
        while let Some(number) = next
            && self.path.len() < MOST_CHAINED
            && !self.path.contains(&number)
        {
            self.path.push(number);
            let links = known.links(number);
            links.is_shown = true;
            next = links.parent;
        }
    }

    fn show(&self, known: &Known, into: &mut Stacks) {
        for &number in self.path.iter().rev() {
            into.frames.push(known.task(number).marker);
            into.frames.extend_from_slice(known.frames(number));
        }
        into.end();
    }
}
