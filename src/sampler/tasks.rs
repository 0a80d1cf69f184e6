//! Samples by task instead of by thread: the frames of the task that a thread runs, and, in the place
//! of the event loop below them, the tasks that await it.

use std::collections::HashMap;

use super::calls::Body;
use super::greenlets::Greenlets;
use super::links::common_prefix;
use super::target::Target;
use super::waiting::{Source, Stacks, Waiting};
use crate::layout::Layout;
use crate::mem::{Address, Memory, field};
use crate::reader::Torn;
use crate::reader::bytecode::instruction_index;
use crate::reader::codes::{CodeId, CodeTable, Located, Proven};
use crate::reader::frame::RawFrame;
use crate::reader::greenlets::Moment;
use crate::reader::tasks::coroutines::Doing;
use crate::reader::tasks::running::{Current, Notes};
use crate::reader::tasks::{Reading, TaskReader};
use crate::reader::threads::ThreadState;

/// Which tasks are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The one that a thread runs.
    Running,
    /// Those that wait as well.
    All,
}

impl Scope {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Running, Self::All];

    /// The name that the option uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::All => "all",
        }
    }
}

/// The file of the frames that stand for tasks.
pub(super) const FILE: &str = "<task>";
/// Most tasks in a chain; of a longer one those next to the running task are kept.
pub(super) const MOST_CHAINED: usize = 512;
/// Most names that are kept apart. A server makes tasks without end, and most of them have a number
/// in their name.
const MOST_NAMES: usize = 1 << 15;
/// Stands for all names beyond.
const ANOTHER: &str = "…";
/// `CO_COROUTINE`, `CO_ITERABLE_COROUTINE`, `CO_ASYNC_GENERATOR` (`code.h`, `cpython/code.h`).
const OF_TASKS: u32 = 0x80 | 0x100 | 0x200;

/// The frames of a thread at one moment.
pub struct Seen<'a> {
    /// The thread's state.
    pub thread: Address,
    /// What it said of its greenlets before its frames were read; `None` if it has none.
    pub greenlets: Option<Moment>,
    /// Newest first.
    pub raw: &'a [RawFrame],
    /// Root first.
    pub bodies: &'a [Body],
    /// Root first. The newest of the others may be missing here.
    pub stack: &'a [Located],
    /// Whether older frames are missing.
    pub truncated: bool,
}

/// Which task a thread's stack is in.
#[derive(Debug, Default)]
pub struct Chain {
    /// Whether this was found out for the last stack.
    pub is_known: bool,
    /// Root first: frames of the tasks that await the running one, and what stands for each; last
    /// what stands for the running one. Empty if none runs.
    awaiting: Vec<Located>,
    /// From which frame on the stack is the running task's.
    from: usize,
    /// Whether older tasks were left out.
    truncated: bool,
}

/// Reads tasks, and remembers their names.
pub struct Tasks {
    /// Which are sampled.
    pub scope: Scope,
    reader: TaskReader,
    /// What was noted of the thread before its frames were read.
    notes: Notes,
    names: Names,
    /// By code object: whether it can be a task's, where that is known.
    is_of_task: Vec<Option<bool>>,
    chained: Vec<Address>,
    waiters: Vec<Address>,
    frames: Vec<RawFrame>,
    waiting: Waiting,
    greenlets: Greenlets,
}

/// What stands for tasks, by their names.
#[derive(Default)]
pub(super) struct Names {
    known: Vec<Name>,
    numbers: HashMap<Vec<u8>, u32>,
    /// The keys of those that are known, one after the other.
    keys: Vec<u8>,
    /// The one that was asked for last.
    last: u32,
    key: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Name {
    code: CodeId,
    /// Where its key is.
    key: (u32, u32),
    /// The one that was asked for behind it the last time.
    next: u32,
}

impl Tasks {
    /// Nothing is known yet.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            reader: TaskReader::default(),
            notes: Notes::default(),
            names: Names::default(),
            is_of_task: Vec::new(),
            chained: Vec::new(),
            waiters: Vec::new(),
            frames: Vec::new(),
            waiting: Waiting::default(),
            greenlets: Greenlets::default(),
        }
    }

    /// The tasks that wait of the loop that a thread runs; nothing if only running ones are sampled.
    pub fn waiting<M: Memory>(
        &mut self,
        source: &Source<'_, M>,
        codes: &mut CodeTable,
        thread: &ThreadState,
        into: &mut Stacks,
    ) -> Result<(), Torn> {
        match self.scope {
            Scope::Running => Ok(()),
            Scope::All => {
                let Self { reader, names, waiting, greenlets, .. } = self;
                let interpreter =
                    source.memory.word(field(thread.at, source.layout.thread_interpreter))?;
                let has_tasks =
                    reader.reading(source.memory, source.layout, interpreter)?.is_some();
                if !has_tasks && greenlets.are_settled(source, thread, into)? {
                    return Ok(());
                }
                into.clear();
                if has_tasks {
                    waiting.read(source, reader, names, codes, thread, into)?;
                }
                greenlets.waiting(source, codes, thread, into)
            }
        }
    }

    /// Whether there can be no more that wait, of those that a thread's stacks were read at.
    pub fn are_all_found(&self, stacks: &Stacks) -> bool {
        let settled = stacks.settled.as_ref();
        settled.is_none_or(|settled| self.greenlets.are_all_found(settled))
    }

    /// Why something is not shown, in one sentence.
    pub fn complaint(&self) -> Option<&'static str> {
        self.greenlets.has_unknown().then_some(
            "greenlets are not shown: those of greenlet 2.0 to 3.5, with glibc, are, and these look \
             different",
        )
    }

    /// Remembers which tasks run before a thread's frames are read, and returns what the thread says of its
    /// greenlets; `None` if it has none.
    pub fn moment(
        &mut self,
        memory: &impl Memory,
        layout: &Layout,
        thread: &ThreadState,
    ) -> Result<Option<Moment>, Torn> {
        self.notes.clear();
        let interpreter = memory.word(field(thread.at, layout.thread_interpreter))?;
        if let Ok(Some(mut reading)) = self.reader.reading(memory, layout, interpreter)
            && reading.notes(thread.at, &mut self.notes).is_err()
        {
            self.notes.clear();
        }
        self.greenlets.moment(memory, layout, thread)
    }

    /// Forgets where everything is; another runtime may be in its place.
    pub fn forget(&mut self) {
        self.reader.forget();
        self.waiting.forget();
        self.greenlets.forget();
    }

    /// Forgets everything that was learned of code objects.
    pub fn forget_codes(&mut self) {
        self.names = Names::default();
        self.waiting.forget();
        self.greenlets.forget_codes();
        self.is_of_task.clear();
    }

    /// Finds out in which task or greenlet a thread's stack is that was just read. `is_still` tells
    /// whether the thread has not moved since, which is asked only if it matters.
    pub fn look<M: Memory>(
        &mut self,
        memory: &M,
        layout: &Layout,
        codes: &mut CodeTable,
        seen: &Seen<'_>,
        is_still: impl Fn() -> bool,
        chain: &mut Chain,
    ) -> Result<(), Torn> {
        self.look_for_task(memory, layout, codes, seen, is_still, chain)?;
        let Some(moment) = &seen.greenlets else { return Ok(()) };
        let below = self.greenlets.below(memory, layout, codes, seen, moment);
        chain.is_known = below.is_ok();
        if let Some(greenlet) = below?
            && chain.awaiting.is_empty()
        {
            chain.awaiting.push(greenlet);
            chain.from = 0;
            chain.truncated = seen.truncated;
        }
        Ok(())
    }

    fn look_for_task<M: Memory>(
        &mut self,
        memory: &M,
        layout: &Layout,
        codes: &mut CodeTable,
        seen: &Seen<'_>,
        is_still: impl Fn() -> bool,
        chain: &mut Chain,
    ) -> Result<(), Torn> {
        chain.awaiting.clear();
        chain.truncated = false;
        chain.is_known = false;
        let interpreter = memory.word(field(seen.thread, layout.thread_interpreter))?;
        let Some(mut reading) = self.reader.reading(memory, layout, interpreter)? else {
            chain.is_known = true;
            return Ok(());
        };
        let mut could_be = false;
        for (located, body) in seen.stack.iter().zip(seen.bodies) {
            let code = located.code.0 as usize;
            if self.is_of_task.len() <= code {
                self.is_of_task.resize(code + 1, None);
            }
            could_be |= match self.is_of_task[code] {
                Some(known) => known,
                None => {
                    let is_of_task = reading.code_flags(body.code)? & OF_TASKS != 0;
                    *self.is_of_task[code].insert(is_of_task)
                }
            };
        }
        if !could_be {
            chain.is_known = true;
            return Ok(());
        }
        let found = reading.current(seen.thread, seen.raw)?;
        let (note, frame) = match found {
            Current::Task(note, frame) => (note, frame),
            Current::NoLoop if !self.notes.has_loop || is_still() => {
                chain.is_known = true;
                return Ok(());
            }
            Current::NoTask if is_still() => {
                chain.is_known = true;
                return Ok(());
            }
            Current::NoLoop | Current::NoTask => return Err(Torn),
        };
        chain.from = seen.raw.len() - 1 - frame;
        if chain.from >= seen.stack.len() {
            return Err(Torn);
        }
        let mut composing = Composing {
            codes,
            names: &mut self.names,
            waiters: &mut self.waiters,
            chained: &mut self.chained,
            frames: &mut self.frames,
            seen,
        };
        chain.truncated = composing.chain(&mut reading, note.task, frame, &mut chain.awaiting)?;
        // It ran before the frames were read, and runs after: another one's coroutine may be where its was.
        let has_run = self.notes.has(note.task) && reading.is_current(note);
        if !has_run && !is_still() {
            return Err(Torn);
        }
        chain.awaiting.reverse();
        chain.is_known = true;
        Ok(())
    }
}

struct Composing<'a> {
    codes: &'a mut CodeTable,
    names: &'a mut Names,
    waiters: &'a mut Vec<Address>,
    chained: &'a mut Vec<Address>,
    frames: &'a mut Vec<RawFrame>,
    seen: &'a Seen<'a>,
}

impl Composing<'_> {
    /// Adds what stands for a task, and everything of those that await it, newest first. The task's
    /// own frames end with the frame at the index `frame` of those that were seen. Returns whether
    /// there are more.
    fn chain<M: Memory>(
        &mut self,
        reading: &mut Reading<'_, M>,
        mut task: Address,
        mut frame: usize,
        into: &mut Vec<Located>,
    ) -> Result<bool, Torn> {
        self.chained.clear();
        loop {
            let awaited_by = self.parent(reading, task)?;
            into.push(self.names.frame(reading, self.codes, task, self.waiters.len())?);
            self.chained.push(task);
            let Some(next) = awaited_by.filter(|next| !self.chained.contains(next)) else {
                return Ok(false);
            };
            if self.chained.len() == MOST_CHAINED {
                return Ok(true);
            }
            self.frames.clear();
            match reading.frames(next, self.frames)? {
                Doing::Waits => {
                    for raw in self.frames.iter().rev() {
                        let (memory, layout) = (reading.memory(), reading.layout());
                        into.extend(located(memory, layout, self.codes, raw)?);
                    }
                }
                // It has called into the other, in its very stack.
                Doing::Runs(at) => {
                    let Seen { raw, stack, .. } = *self.seen;
                    let its = raw.iter().position(|raw| raw.at == at).filter(|&its| its > frame);
                    let its = its.ok_or(Torn)?;
                    for index in frame + 1..=its {
                        into.push(*stack.get(raw.len() - 1 - index).ok_or(Torn)?);
                    }
                    frame = its;
                }
                Doing::Nothing => {}
            }
            task = next;
        }
    }

    /// Of the tasks that await one, which are `waiters` then, the first by name.
    fn parent<M: Memory>(
        &mut self,
        reading: &mut Reading<'_, M>,
        task: Address,
    ) -> Result<Option<Address>, Torn> {
        self.waiters.clear();
        reading.waiters(task, self.waiters)?;
        if self.waiters.len() < 2 {
            return Ok(self.waiters.first().copied());
        }
        let mut first = None;
        for &waiter in &*self.waiters {
            let id = self.names.frame(reading, self.codes, waiter, 1)?.code;
            let name = self.codes.code(id).map(|code| &*code.name);
            if first.is_none_or(|(than, _)| name < self.codes.code(than).map(|code| &*code.name)) {
                first = Some((id, waiter));
            }
        }
        Ok(first.map(|(_, waiter)| waiter))
    }
}

/// A frame that waits; `None` for one of the interpreter's own.
pub(super) fn located(
    memory: &impl Memory,
    layout: &Layout,
    codes: &mut CodeTable,
    raw: &RawFrame,
) -> Result<Option<Located>, Torn> {
    let proven = codes.resolve(memory, raw.code)?;
    placed(memory, layout, codes, proven, raw)
}

/// The same where the frame's code object is known.
pub(super) fn placed(
    memory: &impl Memory,
    layout: &Layout,
    codes: &mut CodeTable,
    proven: Proven,
    raw: &RawFrame,
) -> Result<Option<Located>, Torn> {
    if proven.id == CodeId::INTERPRETERS {
        return Ok(None);
    }
    let index = instruction_index(memory, layout, raw)?;
    if index < -1 || index >= i64::from(proven.units) {
        return Err(Torn);
    }
    let frame = Located::new(proven.id, index as i32);
    let opcode = codes.opcode(memory, raw.code, raw.bytecode, frame);
    Ok(Some(Located { opcode, ..frame }))
}

impl Names {
    /// What stands for a task, which `parents` tasks await.
    pub(super) fn frame<M: Memory>(
        &mut self,
        reading: &mut Reading<'_, M>,
        codes: &mut CodeTable,
        task: Address,
        parents: usize,
    ) -> Result<Located, Torn> {
        let in_frame = |code| Located::new(code, -1);
        let is_short = reading.name_key(task, &mut self.key)?;
        self.key.push(parents.max(1) as u8);
        if is_short && let Some(code) = self.code() {
            return Ok(in_frame(code));
        }
        let mut name = String::from(reading.name(task)?);
        if parents > 1 {
            name.push_str(&format!(" ({parents} parents)"));
        }
        if self.known.len() >= MOST_NAMES {
            return Ok(in_frame(codes.synthetic(FILE, ANOTHER).ok_or(Torn)?));
        }
        let code = codes.synthetic(FILE, &name).ok_or(Torn)?;
        if is_short {
            let key = self.key.clone();
            reading.name_key(task, &mut self.key)?;
            if key.split_last().is_none_or(|(_, key)| *key != *self.key) {
                // Renamed meanwhile.
                return Err(Torn);
            }
            self.add(key, code);
        }
        Ok(in_frame(code))
    }

    /// What stands for the name whose key was just read. Where all tasks are sampled, they come one after the
    /// other as the last time.
    fn code(&mut self) -> Option<CodeId> {
        let key_of = |name: &Name| self.keys.get(name.key.0 as usize..name.key.1 as usize);
        let last = self.last as usize;
        let guess = self
            .known
            .get(last)
            .and_then(|last| Some((last.next, self.known.get(last.next as usize)?)));
        if let Some((number, name)) = guess
            && key_of(name) == Some(&self.key)
        {
            self.last = number;
            return Some(name.code);
        }
        let number = *self.numbers.get(&self.key)?;
        if let Some(last) = self.known.get_mut(last) {
            last.next = number;
        }
        self.last = number;
        Some(self.known.get(number as usize)?.code)
    }

    fn add(&mut self, key: Vec<u8>, code: CodeId) {
        let number = self.known.len() as u32;
        let begin = self.keys.len() as u32;
        self.keys.extend_from_slice(&key);
        self.known.push(Name { code, key: (begin, self.keys.len() as u32), next: number });
        self.numbers.insert(key, number);
    }
}

/// A frame that stands for something that is no code object.
fn frame_of(code: Option<CodeId>) -> Option<Located> {
    code.map(|code| Located::new(code, -1))
}

/// What was recorded of a thread last.
#[derive(Debug, Default)]
pub struct Shown {
    stack: Vec<Located>,
    before: Vec<Located>,
    was_truncated: bool,
    /// Those tasks that wait, of the loop that the thread runs.
    pub waiting: Stacks,
    /// Whether they still wait as long as the thread does not run.
    pub is_settled: bool,
}

impl Shown {
    /// The stack of a sample as it is shown, how much of its root is as in the sample before, and
    /// whether older frames are missing.
    pub fn compose(&mut self, target: &Target, leaf: Option<CodeId>) -> (&[Located], usize, bool) {
        let Target { stack, truncated, chain, callees, .. } = target;
        let is_in_task = !chain.awaiting.is_empty();
        let from = if is_in_task { chain.from } else { 0 };
        let truncated = if is_in_task { chain.truncated } else { *truncated };
        let own = stack.get(from..).unwrap_or_default();
        let above = callees.above.get(from..).unwrap_or_default().iter().copied();
        let native = above.chain(std::iter::repeat(None)).map(frame_of);
        let own = own
            .iter()
            .zip(native)
            .flat_map(|(&frame, native)| std::iter::once(frame).chain(native));
        let awaiting = chain.awaiting.iter().copied();
        let unchanged = self.next(awaiting.chain(own).chain(frame_of(leaf)), truncated);
        (&self.stack, unchanged, truncated)
    }

    /// Gives each of the tasks that wait to `sample`, as [`compose`](Self::compose) does.
    pub fn each_waiting(&mut self, mut sample: impl FnMut(&[Located], usize)) {
        let waiting = std::mem::take(&mut self.waiting);
        for stack in waiting.each() {
            let unchanged = self.next(stack.iter().copied(), false);
            sample(&self.stack, unchanged);
        }
        self.waiting = waiting;
    }

    /// Returns how much of the root stays.
    fn next(&mut self, stack: impl Iterator<Item = Located>, truncated: bool) -> usize {
        std::mem::swap(&mut self.stack, &mut self.before);
        self.stack.clear();
        self.stack.extend(stack);
        let unchanged = match truncated == self.was_truncated {
            true => common_prefix(&self.stack, &self.before),
            false => 0,
        };
        self.was_truncated = truncated;
        unchanged
    }
}
