//! All tasks of an interpreter, and the loops that they belong to.

use super::Reading;
use super::kinds::{self, Kind};
use crate::mem::{Address, Memory, field};
use crate::reader::Torn;
use crate::reader::objects::Offset;

/// Most tasks that are listed.
const MOST_TASKS: usize = 1 << 17;

/// A task and its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The task.
    pub task: Address,
    /// The loop that it belongs to.
    pub its_loop: Address,
}

impl<M: Memory> Reading<'_, M> {
    /// Adds the tasks of all these threads, which are the interpreter's, and those of its threads
    /// that are gone. Some may have finished.
    pub fn list(
        &mut self,
        threads: impl Iterator<Item = Address>,
        into: &mut Vec<Listed>,
    ) -> Result<(), Torn> {
        if self.is_unpublished() {
            return Err(Torn);
        }
        if let Some(published) = self.asyncio.published {
            for thread in threads {
                self.list_linked(field(thread, published.thread_tasks_head), into)?;
            }
            let lingering = field(self.interpreter, published.interpreter_tasks_head);
            self.list_linked(lingering, into)?;
        }
        let Some(tasks) = self.module(super::TASKS)? else { return Ok(()) };
        // 3.8 to 3.11, 3.12 on; tasks in C are elsewhere from 3.14 on.
        for name in ["_all_tasks", "_scheduled_tasks"] {
            if let Some(weak) = self.global(tasks, name)?
                && let Some(set) = self.attribute(weak, "data")?
            {
                self.each_of_set(set, &mut |this, reference| {
                    if this.kind(reference)? == Kind::WeakReference {
                        let task = kinds::wrapped(this.objects, reference)?;
                        this.add_listed(task, into)?;
                    }
                    Ok(())
                })?;
            }
        }
        if let Some(set) = self.global(tasks, "_eager_tasks")? {
            self.each_of_set(set, &mut |this, task| this.add_listed(task, into))?;
        }
        Ok(())
    }

    /// `struct llist_node` is a pointer to the next and one to the previous node
    /// (`internal/pycore_llist.h`); the list leads back to its head.
    fn list_linked(&mut self, head: Address, into: &mut Vec<Listed>) -> Result<(), Torn> {
        let published = self.asyncio.published.ok_or(Torn)?;
        let memory = self.objects.memory;
        let mut last = head;
        let mut node = memory.word(head)?;
        while node != head {
            if into.len() >= MOST_TASKS || memory.word(field(node, 8))? != last {
                return Err(Torn);
            }
            self.add_listed(node.before(published.task_node)?, into)?;
            last = node;
            node = memory.word(node)?;
        }
        Ok(())
    }

    fn add_listed(&mut self, task: Address, into: &mut Vec<Listed>) -> Result<(), Torn> {
        let its_loop = match self.kind(task)? {
            // `fut_loop` comes first.
            Kind::Task => kinds::wrapped(self.objects, task)?,
            Kind::PythonTask => self.attribute(task, "_loop")?.unwrap_or(0),
            // A place in a set that was given up, or a task of somebody else's making.
            _ => return Ok(()),
        };
        if into.len() >= MOST_TASKS {
            return Err(Torn);
        }
        into.push(Listed { task, its_loop });
        Ok(())
    }

    /// The loop that runs in a thread, given by its state and its `ident`, of those that tasks
    /// belong to; 0 if there is none.
    pub fn loop_in(
        &mut self,
        thread: Address,
        ident: u64,
        listed: &[Listed],
    ) -> Result<Address, Torn> {
        if self.asyncio.is_c {
            return self.running_loop(thread);
        }
        // Loops are few, and tasks of one stand together more often than not.
        let mut last = 0;
        for &Listed { its_loop, .. } in listed {
            if its_loop != last
                && its_loop != 0
                && let Some(runs_in) = self.attribute(its_loop, "_thread_id")?
                && self.kind(runs_in)? == Kind::Integer
                && self.objects.unsigned(runs_in)? == ident
            {
                return Ok(its_loop);
            }
            last = its_loop;
        }
        Ok(0)
    }
}
