//! Which task a thread runs, by what interpreters note of that: in the thread's state from 3.14 on, and in a
//! dictionary of all loops before, and where the task's class is written in Python.

use super::Reading;
use super::kinds::{self, Kind};
use crate::layout::tasks::Running;
use crate::mem::{Address, Memory, field};
use crate::reader::Torn;
use crate::reader::frame::RawFrame;
use crate::reader::objects::{Item, Table};

/// What runs in a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Current {
    /// No task can run there: it has no loop, or asyncio is not imported.
    NoLoop,
    /// No task's coroutine is among the frames. A task may have been running a moment before.
    NoTask,
    /// A task, whose coroutine's frame is the one at this place among the frames, the newest being 0.
    Task(Note, usize),
}

/// Where an interpreter notes that a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The task.
    pub task: Address,
    pub(super) at: Address,
    /// The dictionary that it is in, and its keys: one that has grown leaves what it was behind.
    pub(super) within: Option<(Address, Address)>,
}

/// What is noted at one moment.
#[derive(Debug, Default)]
pub struct Notes {
    /// Whether a loop may run in the thread.
    pub has_loop: bool,
    /// Tasks that run, of which one may be the thread's.
    tasks: Vec<Note>,
}

impl Notes {
    /// Nothing is known.
    pub fn clear(&mut self) {
        self.has_loop = true;
        self.tasks.clear();
    }

    /// Whether a task is among those that run.
    pub fn has(&self, task: Address) -> bool {
        self.tasks.iter().any(|note| note.task == task)
    }
}

/// Most loops that run tasks at the same time.
const MOST_LOOPS: usize = 1 << 12;

impl<'a, M: Memory> Reading<'a, M> {
    /// What is noted of a thread now.
    pub fn notes(&mut self, thread: Address, into: &mut Notes) -> Result<(), Torn> {
        into.tasks.clear();
        into.has_loop = self.has_loop(thread)?;
        if into.has_loop {
            self.add_notes(thread, &mut into.tasks)?;
        }
        Ok(())
    }

    /// Which task runs in a thread whose frames, the newest first, were just read.
    pub fn current(&mut self, thread: Address, frames: &[RawFrame]) -> Result<Current, Torn> {
        let mut notes = std::mem::take(&mut self.reader.notes);
        notes.clear();
        let current = self.current_among(thread, frames, &mut notes);
        self.reader.notes = notes;
        current
    }

    fn current_among(
        &mut self,
        thread: Address,
        frames: &[RawFrame],
        notes: &mut Vec<Note>,
    ) -> Result<Current, Torn> {
        let dictionary = self.add_notes(thread, notes)?;
        for note in notes {
            if let Some(frame) = self.place_among(note.task, frames)? {
                return Ok(Current::Task(*note, frame));
            }
        }
        if !self.has_loop(thread)? {
            return Ok(Current::NoLoop);
        }
        if let Some((table, living)) = dictionary {
            table.is_all(living)?;
        }
        Ok(Current::NoTask)
    }

    /// Returns the dictionary that they are in, if it is one, and how many entries it had.
    fn add_notes(
        &mut self,
        thread: Address,
        into: &mut Vec<Note>,
    ) -> Result<Option<(Table<'a, M>, usize)>, Torn> {
        let memory = self.objects.memory;
        if let Some(published) = self.asyncio.published {
            let at = field(thread, published.thread_running_task);
            let task = memory.word(at)?;
            // Those of a class that is written in Python are in the dictionary.
            if task != 0 {
                into.push(Note { task, at, within: None });
                return Ok(None);
            }
        }
        if self.is_unpublished() {
            return Err(Torn);
        }
        let Some(tasks) = self.module(super::TASKS)? else { return Ok(None) };
        let Some(dict) = self.global(tasks, "_current_tasks")? else { return Ok(None) };
        let table = self.objects.table(self.objects.exact(dict, self.dict_type)?)?;
        let (mut living, within) = (0, table.keys());
        for index in 0..table.len().min(MOST_LOOPS) {
            let Item { key, slot: at } = table.entry(index)?;
            if key != 0 {
                into.push(Note { task: memory.word(at)?, at, within });
                living += 1;
            }
        }
        Ok((table.len() <= MOST_LOOPS).then_some((table, living)))
    }

    /// Whether the tasks should be published, but are not: nothing can be told of them then.
    pub(super) fn is_unpublished(&self) -> bool {
        self.has_awaited_by() && self.asyncio.is_c && self.asyncio.published.is_none()
    }

    fn place_among(&mut self, task: Address, frames: &[RawFrame]) -> Result<Option<usize>, Torn> {
        if task == 0 || !self.kind(task)?.is_task() {
            return Ok(None);
        }
        let coroutine = self.coroutine(task)?;
        let Some(at) = self.frame_address(coroutine)? else { return Ok(None) };
        Ok(frames.iter().position(|frame| frame.at == at))
    }

    /// Whether a task still runs where the interpreter has noted that it does. One that has just
    /// ended has let go of those that await it.
    pub fn is_current(&mut self, note: Note) -> bool {
        self.coroutine(note.task).and_then(|coroutine| self.is_executing(coroutine)) == Ok(true)
            && self.objects.memory.word(note.at) == Ok(note.task)
            && note.within.is_none_or(|(dict, keys)| self.objects.keys_of(dict) == Ok(keys))
    }

    /// Whether a loop may run in a thread. The asyncio that is written in Python does not tell.
    fn has_loop(&mut self, thread: Address) -> Result<bool, Torn> {
        Ok(!self.asyncio.is_c || self.running_loop(thread)? != 0)
    }

    /// The loop that runs in a thread; 0 if none does, or none that C code knows of.
    pub fn running_loop(&mut self, thread: Address) -> Result<Address, Torn> {
        let memory = self.objects.memory;
        match self.objects.layout.tasks.running {
            Running::Published => match self.asyncio.published {
                Some(published) => Ok(memory.word(field(thread, published.thread_running_loop))?),
                None => Ok(0),
            },
            Running::LoopInThread(offset) => Ok(memory.word(field(thread, offset))?),
            Running::LoopInDict(offset) => {
                let dict = memory.word(field(thread, offset))?;
                if dict == 0 {
                    return Ok(0);
                }
                let dict = self.objects.exact(dict, self.dict_type)?;
                let found = match self.global(dict, "__asyncio_running_event_loop__")? {
                    Some(found) if self.kind(found)? == Kind::Wrapper => {
                        kinds::wrapped(self.objects, found)?
                    }
                    found => found.unwrap_or(0),
                };
                // `None` where there is none any more.
                let is_none = found != 0 && self.kind(found)? == Kind::None;
                Ok(if is_none { 0 } else { found })
            }
        }
    }
}
