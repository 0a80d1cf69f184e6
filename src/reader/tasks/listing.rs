//! All tasks of an interpreter, and the loops that they belong to.

use super::Reading;
use super::kinds::{self, Kind};
use super::waiters::PLACE_BYTES;
use crate::mem::{Address, Memory, Remembered, Watched, field, word_at};
use crate::reader::Torn;
use crate::reader::objects::Offset;

/// Most tasks that are listed.
const MOST_TASKS: usize = 1 << 17;
/// Most places that a set of so many has.
const MOST_PLACES: usize = 8 * MOST_TASKS;
/// Places of a set, or tasks of a linked list, that are looked at together.
const TOGETHER: usize = 32;

/// A task and its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The task.
    pub task: Address,
    /// The loop that it belongs to.
    pub its_loop: Address,
    /// What has told of it.
    pub by: By,
}

/// What tells of a task, as long as there is that task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A word that leads to the task: of a weak reference or a set.
    Reference(Address),
    /// Its node in a list, which leads nowhere once it is taken out.
    Node(Address),
}

/// The lists of an interpreter's tasks as they were, part by part.
#[derive(Debug, Default)]
pub struct Lists {
    parts: Remembered<Part>,
    /// As of [`Reading::begin_pass`].
    types: u64,
}

#[derive(Debug)]
struct Part {
    listed: Box<[Listed]>,
    /// Of a linked list, the part's last node and the one behind it.
    ends: (Address, Address),
}

impl<M: Memory> Reading<'_, Watched<'_, M>> {
    /// Adds the tasks of all these threads, which are the interpreter's, and those of its threads
    /// that are gone. Some may have finished.
    pub fn list(
        &mut self,
        threads: impl Iterator<Item = Address>,
        lists: &mut Lists,
        into: &mut Vec<Listed>,
    ) -> Result<(), Torn> {
        if self.is_unpublished() {
            return Err(Torn);
        }
        let types = self.begin_pass();
        if lists.types != types {
            *lists = Lists { types, ..Lists::default() };
        }
        lists.parts.begin();
        let listed = self.list_all(threads, &mut lists.parts, into);
        self.end_pass(types)?;
        listed
    }

    fn list_all(
        &mut self,
        threads: impl Iterator<Item = Address>,
        parts: &mut Remembered<Part>,
        into: &mut Vec<Listed>,
    ) -> Result<(), Torn> {
        if let Some(published) = self.asyncio.published {
            for thread in threads {
                self.list_linked(field(thread, published.thread_tasks_head), parts, into)?;
            }
            let lingering = field(self.interpreter, published.interpreter_tasks_head);
            self.list_linked(lingering, parts, into)?;
        }
        let Some(tasks) = self.module(super::TASKS)? else { return Ok(()) };
        // 3.8 to 3.11, 3.12 on; tasks in C are elsewhere from 3.14 on.
        for name in ["_all_tasks", "_scheduled_tasks"] {
            if let Some(weak) = self.global(tasks, name)?
                && let Some(set) = self.attribute(weak, "data")?
            {
                self.list_set(set, parts, into)?;
            }
        }
        if let Some(set) = self.global(tasks, "_eager_tasks")? {
            self.list_set(set, parts, into)?;
        }
        Ok(())
    }

    /// What was listed, where that began, if all of it is as it was, or else what `list` lists there.
    fn part(
        &mut self,
        begin: Address,
        parts: &mut Remembered<Part>,
        into: &mut Vec<Listed>,
        list: impl FnOnce(&mut Self, &mut Vec<Listed>) -> Result<(Address, Address), Torn>,
    ) -> Result<(Address, Address), Torn> {
        let watched = self.objects.memory;
        let number = match parts.take_again(watched, &[begin])[0] {
            Some(number) => number,
            None => {
                watched.begin();
                let mut listed = Vec::new();
                let ends = list(self, &mut listed)?;
                parts.add(begin, Part { listed: listed.into(), ends }, watched)
            }
        };
        let Part { listed, ends } = parts.get(number);
        into.extend_from_slice(listed);
        if into.len() > MOST_TASKS {
            return Err(Torn);
        }
        Ok(*ends)
    }

    /// `struct llist_node` is a pointer to the next and one to the previous node
    /// (`internal/pycore_llist.h`); the list leads back to its head.
    fn list_linked(
        &mut self,
        head: Address,
        parts: &mut Remembered<Part>,
        into: &mut Vec<Listed>,
    ) -> Result<(), Torn> {
        let published = self.asyncio.published.ok_or(Torn)?;
        let memory = self.objects.memory;
        let mut last = head;
        let mut node = memory.word(head)?;
        // Each part is of one node or more, which need not be a task's.
        for _ in 0..=MOST_TASKS {
            if node == head {
                return Ok(());
            }
            if memory.word(field(node, 8))? != last {
                return Err(Torn);
            }
            (last, node) = self.part(node, parts, into, |this, listed| {
                let (mut last, mut node) = (last, node);
                for _ in 0..TOGETHER {
                    if node == head {
                        break;
                    }
                    let mut links = [0; 16];
                    memory.read(node, &mut links)?;
                    if word_at(&links, 8) != last {
                        return Err(Torn);
                    }
                    let task = node.before(published.task_node)?;
                    this.add_listed(task, By::Node(node), listed)?;
                    (last, node) = (node, word_at(&links, 0));
                }
                Ok((last, node))
            })?;
        }
        Err(Torn)
    }

    /// A set of tasks, or of weak references to them.
    fn list_set(
        &mut self,
        set: Address,
        parts: &mut Remembered<Part>,
        into: &mut Vec<Listed>,
    ) -> Result<(), Torn> {
        let memory = self.objects.memory;
        let (table, places) = self.places_of_set(set, MOST_PLACES)?;
        for from in (0..places).step_by(TOGETHER) {
            let bytes = PLACE_BYTES * TOGETHER.min(places - from);
            let begin = table.offset(PLACE_BYTES * from)?;
            let list = |this: &mut Self, listed: &mut Vec<Listed>| {
                let mut copy = [0; PLACE_BYTES * TOGETHER];
                let copy = copy.get_mut(..bytes).ok_or(Torn)?;
                let keys = (0..bytes).step_by(PLACE_BYTES);
                memory.read_words(begin, copy, keys)?;
                for place in (0..bytes).step_by(PLACE_BYTES) {
                    let key = word_at(copy, place);
                    this.add_referenced(key, begin.offset(place)?, listed)?;
                }
                Ok((0, 0))
            };
            // A smaller table may get longer where it is.
            if places < TOGETHER {
                list(self, into)?;
            } else {
                self.part(begin, parts, into, list)?;
            }
        }
        Ok(())
    }

    fn add_referenced(
        &mut self,
        key: Address,
        place: Address,
        into: &mut Vec<Listed>,
    ) -> Result<(), Torn> {
        match key {
            0 => Ok(()),
            _ if self.kind(key)? == Kind::WeakReference => {
                let task = kinds::wrapped(self.objects, key)?;
                let by = By::Reference(field(key, self.objects.layout.object_size));
                self.add_listed(task, by, into)
            }
            _ => self.add_listed(key, By::Reference(place), into),
        }
    }

    fn add_listed(&mut self, task: Address, by: By, into: &mut Vec<Listed>) -> Result<(), Torn> {
        let its_loop = match self.kind(task)? {
            // `fut_loop` comes first.
            Kind::Task => kinds::wrapped(self.objects, task)?,
            Kind::PythonTask => self.attribute(task, "_loop")?.unwrap_or(0),
            // A place in a set that was given up, or a task of somebody else's making.
            _ => return Ok(()),
        };
        into.push(Listed { task, its_loop, by });
        Ok(())
    }
}

impl<M: Memory> Reading<'_, M> {
    /// Whether there is still the task that was listed: another object may be in its place by now.
    pub fn is_listed(&self, listed: &Listed) -> Result<bool, Torn> {
        Ok(match listed.by {
            By::Reference(at) => self.objects.memory.word(at)? == listed.task,
            By::Node(at) => self.objects.memory.word(at)? != 0,
        })
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
