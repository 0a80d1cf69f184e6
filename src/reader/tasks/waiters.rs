//! Which tasks await a task: by its own record of that from 3.14 on, before by its callbacks.

use super::Reading;
use super::kinds::{self, Kind};
use crate::mem::{Address, Memory, field, word_at};
use crate::reader::Torn;
use crate::reader::objects::Offset;
use crate::reader::strings;

/// Most tasks that are looked at as those that await one.
pub(super) const MOST_WAITERS: usize = 64;
/// Most callbacks of a future that are looked at.
const MOST_CALLBACKS: u64 = 256;
/// Largest set of them.
const MOST_SLOTS: usize = 1 << 16;
/// Bytes of a place in a set: what is there, and its hash (`setentry`).
pub(super) const PLACE_BYTES: usize = 16;
/// Most variables of a callback that are looked at.
const MOST_CELLS: u64 = 16;
/// Futures between two tasks, such as those of nested calls of `gather`.
const MOST_BETWEEN: u32 = 16;

/// Functions of asyncio's own that hand a result on to a future among their variables.
const RELAYS: [&str; 4] = [
    "gather.<locals>._done_callback",
    "_gather.<locals>._done_callback",
    "_wait.<locals>._on_completion",
    "shield.<locals>._inner_done_callback",
];

impl<M: Memory> Reading<'_, M> {
    /// Adds the tasks that await a task, each once.
    pub fn waiters(&mut self, task: Address, into: &mut Vec<Address>) -> Result<(), Torn> {
        self.waiters_through(task, MOST_BETWEEN, into)
    }

    fn waiters_through(
        &mut self,
        future: Address,
        between: u32,
        into: &mut Vec<Address>,
    ) -> Result<(), Torn> {
        let Some(between) = between.checked_sub(1) else { return Ok(()) };
        let kind = self.kind_of_future(future)?;
        if self.has_awaited_by() {
            let awaited_by = match kind {
                Kind::Task | Kind::Future => self.awaited_by(future)?,
                _ => {
                    let name = "_Future__asyncio_awaited_by";
                    let found = self.attribute(future, name)?.unwrap_or(0);
                    (found, found != 0 && self.kind(found)? == Kind::Set)
                }
            };
            match awaited_by {
                // The functions that write it leave out all that a task awaits that is written in Python.
                (0, _) if self.asyncio.is_c && self.reader.kinds.has_python_tasks() => {}
                (0, _) => return Ok(()),
                (set, true) => {
                    return self.each_of_set(set, &mut |this, waiter| {
                        this.add_waiter(waiter, between, into)
                    });
                }
                (waiter, false) => return self.add_waiter(waiter, between, into),
            }
        }
        let memory = self.objects.memory;
        let head = self.objects.layout.object_size;
        let callbacks = match kind {
            Kind::Task | Kind::Future => {
                // `fut_loop`, `fut_callback0`, `fut_context0`, `fut_callbacks`.
                let mut bytes = [0; 24];
                memory.read(field(future, head + 8), &mut bytes)?;
                let first = word_at(&bytes, 0);
                if first != 0 {
                    self.add_by_callback(future, first, between, into)?;
                }
                word_at(&bytes, 16)
            }
            _ => self.attribute(future, "_callbacks")?.unwrap_or(0),
        };
        if callbacks == 0 {
            return Ok(());
        }
        // A list of pairs of a callback and its context; `None` has no such length.
        let count = memory.word(field(callbacks, head))?;
        if count > MOST_CALLBACKS {
            return Ok(());
        }
        let items = memory.word(field(callbacks, head + 8))?;
        for index in 0..count as usize {
            let pair = memory.word(items.offset(8 * index)?)?;
            let callback = memory.word(field(pair, self.objects.layout.tasks.tuple_items))?;
            self.add_by_callback(future, callback, between, into)?;
        }
        Ok(())
    }

    /// A future awaits what the tasks await that await it.
    fn add_waiter(
        &mut self,
        waiter: Address,
        between: u32,
        into: &mut Vec<Address>,
    ) -> Result<(), Torn> {
        match self.kind(waiter)? {
            kind if kind.is_task() => {
                if into.len() < MOST_WAITERS && !into.contains(&waiter) {
                    into.push(waiter);
                }
                Ok(())
            }
            kind if kind.is_future() => self.waiters_through(waiter, between, into),
            _ => Ok(()),
        }
    }

    fn add_by_callback(
        &mut self,
        future: Address,
        callback: Address,
        between: u32,
        into: &mut Vec<Address>,
    ) -> Result<(), Torn> {
        let memory = self.objects.memory;
        let head = self.objects.layout.object_size;
        match self.kind(callback)? {
            Kind::Wakeup => {
                let task = kinds::wrapped(self.objects, callback)?;
                self.add_sleeper(future, task, into)
            }
            Kind::Builtin => {
                // Behind `m_ml`.
                let task = memory.word(field(callback, head + 8))?;
                self.add_sleeper(future, task, into)
            }
            Kind::Method => {
                let function = memory.word(field(callback, head))?;
                let owner = memory.word(field(callback, head + 8))?;
                if self.kind(owner)? == Kind::PythonTask {
                    self.add_sleeper(future, owner, into)
                } else if self.is_named(function, "TaskGroup._on_task_done") {
                    match self.attribute(owner, "_parent_task")? {
                        Some(task) => self.add_waiter(task, between, into),
                        None => Ok(()),
                    }
                } else {
                    Ok(())
                }
            }
            Kind::Function if RELAYS.iter().any(|name| self.is_named(callback, name)) => {
                let tasks = self.objects.layout.tasks;
                let closure = memory.word(field(callback, tasks.function_closure))?;
                let count = if closure == 0 { 0 } else { memory.word(field(closure, head))? };
                for index in 0..count.min(MOST_CELLS) as usize {
                    let cell = memory.word(field(closure, tasks.tuple_items + 8 * index))?;
                    let content = memory.word(field(cell, head))?;
                    if content != 0 && self.is_relay_target(content)? {
                        self.waiters_through(content, between, into)?;
                    }
                }
                Ok(())
            }
            Kind::Partial => {
                // `wait_for`, up to 3.11.
                let function = memory.word(field(callback, head))?;
                let arguments = memory.word(field(callback, head + 8))?;
                if self.kind(function)? == Kind::Function
                    && self.is_named(function, "_release_waiter")
                    && memory.word(field(arguments, head))? > 0
                {
                    let first = field(arguments, self.objects.layout.tasks.tuple_items);
                    let waiter = memory.word(first)?;
                    if self.is_relay_target(waiter)? {
                        self.waiters_through(waiter, between, into)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn is_relay_target(&mut self, object: Address) -> Result<bool, Torn> {
        let kind = self.kind(object)?;
        Ok(kind.is_future() && !kind.is_task())
    }

    /// Whoever wakes a task up when a future is done is that task's waiting for it; other methods of
    /// the task's may be callbacks, too.
    fn add_sleeper(
        &mut self,
        future: Address,
        task: Address,
        into: &mut Vec<Address>,
    ) -> Result<(), Torn> {
        if task == 0 || !self.kind(task)?.is_task() || self.awaits(task)?.0 != future {
            return Ok(());
        }
        if into.len() < MOST_WAITERS && !into.contains(&task) {
            into.push(task);
        }
        Ok(())
    }

    fn is_named(&self, function: Address, name: &str) -> bool {
        let layout = self.objects.layout;
        let memory = self.objects.memory;
        let at = field(function, layout.tasks.function_qualname);
        memory.word(at).is_ok_and(|text| strings::is_ascii(memory, layout, text, name))
    }

    /// Everything in a set.
    fn each_of_set(
        &mut self,
        set: Address,
        each: &mut dyn FnMut(&mut Self, Address) -> Result<(), Torn>,
    ) -> Result<(), Torn> {
        let (table, places) = self.places_of_set(set, MOST_SLOTS)?;
        for index in 0..places {
            let key = self.objects.memory.word(table.offset(PLACE_BYTES * index)?)?;
            if key != 0 {
                each(self, key)?;
            }
        }
        Ok(())
    }

    /// Where the places of a set are, and how many, `most` at most: `PySetObject` begins with `fill`, `used`, `mask`
    /// and `table` (`cpython/setobject.h`).
    pub(super) fn places_of_set(
        &self,
        set: Address,
        most: usize,
    ) -> Result<(Address, usize), Torn> {
        let memory = self.objects.memory;
        let head = self.objects.layout.object_size;
        let mask = memory.word(field(set, head + 16))?;
        let table = memory.word(field(set, head + 24))?;
        if mask >= most as u64 {
            return Err(Torn);
        }
        Ok((table, mask as usize + 1))
    }
}
