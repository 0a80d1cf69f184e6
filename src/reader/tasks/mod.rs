//! asyncio's tasks: which one a thread runs, what it is called, where those that wait are, and which
//! of them await it.
//!
//! Everything is found by memory alone. A task runs if its coroutine's frame is among the thread's:
//! that alone ties a stack to a task.

pub mod coroutines;
pub mod kinds;
pub mod listing;
mod published;
pub mod running;
pub mod waiters;

use std::collections::HashMap;

use self::coroutines::Doing;
use self::kinds::{Kind, Kinds, PythonClasses};
use self::published::Published;
use self::running::Note;
use super::Torn;
use super::frame::RawFrame;
use super::modules::Place;
use super::objects::Objects;
use super::strings;
use crate::hash::FastHash;
use crate::layout::Layout;
use crate::layout::tasks::Running;
use crate::mem::{Address, Memory, field, word_at};

/// What is remembered between samples.
#[derive(Debug, Default)]
pub struct TaskReader {
    kinds: Kinds,
    asyncio: HashMap<Address, Asyncio, FastHash>,
    hints: Hints,
    dict_type: Address,
    /// Room for what is noted of running tasks.
    notes: Vec<Note>,
}

/// asyncio in one interpreter.
#[derive(Clone, Copy, Debug)]
struct Asyncio {
    classes: PythonClasses,
    /// Whether it is the one that is written in C.
    is_c: bool,
    published: Option<Published>,
}

/// Where in the dictionaries something was found the last time.
#[derive(Debug, Default)]
struct Hints {
    modules: [Place; 2],
    names: HashMap<&'static str, usize>,
}

/// The tasks of one interpreter, while they are read.
pub struct Reading<'a, M> {
    objects: Objects<'a, M>,
    interpreter: Address,
    reader: &'a mut TaskReader,
    asyncio: Asyncio,
    dict_type: Address,
    /// The task whose turn it is, and what kind of task it is.
    turn: (Address, Kind),
}

/// Modules of asyncio, and where it is remembered where they are.
const TASKS: (&str, usize) = ("asyncio.tasks", 0);
const FUTURES: (&str, usize) = ("asyncio.futures", 1);
/// Most characters of a name that are compared before it is read as a text.
const MOST_COMPARED: u64 = 256;

impl TaskReader {
    /// Forgets where everything is; another runtime may be in its place.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// The tasks of an interpreter; `None` as long as asyncio is not imported.
    pub fn reading<'a, M: Memory>(
        &'a mut self,
        memory: &'a M,
        layout: &'a Layout,
        interpreter: Address,
    ) -> Result<Option<Reading<'a, M>>, Torn> {
        let objects = Objects { memory, layout };
        let known = self.asyncio.get(&interpreter).copied();
        if self.dict_type == 0 {
            self.dict_type = objects.dict_type(interpreter)?;
        }
        let dict_type = self.dict_type;
        let nothing = Asyncio { classes: PythonClasses::default(), is_c: false, published: None };
        let mut reading = Reading {
            objects,
            interpreter,
            reader: self,
            asyncio: known.unwrap_or(nothing),
            dict_type,
            turn: (0, Kind::Other),
        };
        if known.is_some() || reading.learn()? { Ok(Some(reading)) } else { Ok(None) }
    }
}

impl<'a, M: Memory> Reading<'a, M> {
    /// The memory that is read.
    pub fn memory(&self) -> &'a M {
        self.objects.memory
    }

    /// Where its fields are.
    pub fn layout(&self) -> &'a Layout {
        self.objects.layout
    }

    /// Learns what stays as it is in this interpreter. False if asyncio is not imported yet.
    fn learn(&mut self) -> Result<bool, Torn> {
        let Some(tasks) = self.module(TASKS)? else { return Ok(false) };
        let Some(futures) = self.module(FUTURES)? else { return Ok(false) };
        let (Some(task), Some(future)) =
            (self.global(tasks, "_PyTask")?, self.global(futures, "_PyFuture")?)
        else {
            return Ok(false);
        };
        // Behind all classes.
        let Some(_) = self.global(tasks, "_current_tasks")? else { return Ok(false) };
        let memory = self.objects.memory;
        let layout = self.objects.layout;
        self.asyncio.is_c = self.global(tasks, "_CTask")?.is_some();
        if self.asyncio.is_c && layout.tasks.running == Running::Published {
            // Until all is imported, `current_task` is a function that is written in Python.
            let Some(function) = self.global(tasks, "_c_current_task")? else { return Ok(false) };
            // `m_ml` is in the library's own data. `m_self` is its module, where programs that put another
            // class into asyncio's modules leave everything as it is.
            let method = memory.word(field(function, layout.object_size))?;
            let module = memory.word(field(function, layout.object_size + 8))?;
            let library = self.objects.namespace(module, self.dict_type)?;
            let class = self.global(library, "Task")?.ok_or(Torn)?;
            let size = memory.word(field(class, layout.objects.type_basic_size))?;
            self.asyncio.published = published::find(memory, method, size, layout.tasks.task_coro);
        }
        self.asyncio.classes = PythonClasses { task, future };
        self.reader.kinds.forget();
        self.reader.asyncio.insert(self.interpreter, self.asyncio);
        Ok(true)
    }

    /// Until [`end_pass`](Self::end_pass), types are taken to be what they were found to be: what is
    /// read of thousands of tasks is of a few types. Returns a number that stays the same as long as they are.
    pub fn begin_pass(&mut self) -> u64 {
        self.reader.kinds.begin_pass(self.objects)
    }

    /// Fails if they are not any more what they were in the pass that began with this number.
    pub fn end_pass(&mut self, begun: u64) -> Result<(), Torn> {
        self.reader.kinds.end_pass(self.objects, begun)
    }

    /// What is read next is read of this task. Of what kind it is, is found out here once.
    pub fn turn_to(&mut self, task: Address) -> Result<(), Torn> {
        self.turn = (0, Kind::Other);
        self.turn = (task, self.kind(task)?);
        Ok(())
    }

    /// What a future is, which may be the task whose turn it is.
    fn kind_of_future(&mut self, future: Address) -> Result<Kind, Torn> {
        let (task, kind) = self.turn;
        if task == future { Ok(kind) } else { self.kind(future) }
    }

    /// What an object is.
    pub(super) fn kind(&mut self, object: Address) -> Result<Kind, Torn> {
        self.reader.kinds.of(self.objects, self.asyncio.classes, object)
    }

    /// The namespace of one of asyncio's modules.
    fn module(&mut self, (name, place): (&str, usize)) -> Result<Option<Address>, Torn> {
        let place = &mut self.reader.hints.modules[place];
        self.objects.module(self.interpreter, self.dict_type, name, place)
    }

    fn global(&mut self, namespace: Address, name: &'static str) -> Result<Option<Address>, Torn> {
        let table = self.objects.table(namespace)?;
        let hint = self.reader.hints.names.entry(name).or_default();
        match table.find(name, hint)? {
            Some(item) => {
                Ok(Some(self.objects.memory.word(item.slot)?).filter(|&found| found != 0))
            }
            None => Ok(None),
        }
    }

    /// The value of an instance's attribute; `None` if it has none of that name, or `None` in it.
    fn attribute(&mut self, object: Address, name: &'static str) -> Result<Option<Address>, Torn> {
        let item = {
            let table = self.objects.attributes(object, self.dict_type)?;
            let hint = self.reader.hints.names.entry(name).or_default();
            table.find(name, hint)?
        };
        let Some(item) = item else { return Ok(None) };
        let value = self.objects.memory.word(item.slot)?;
        Ok((value != 0).then_some(value))
    }

    /// The coroutine that a task runs.
    pub fn coroutine(&mut self, task: Address) -> Result<Address, Torn> {
        Ok(self.awaits(task)?.1)
    }

    /// The future that a task waits for, 0 if it does not wait, and the coroutine that it runs.
    fn awaits(&mut self, task: Address) -> Result<(Address, Address), Torn> {
        let Objects { memory, layout } = self.objects;
        match self.kind_of_future(task)? {
            Kind::Task => {
                let mut bytes = [0; 16];
                memory.read(field(task, layout.tasks.task_coro).wrapping_sub(8), &mut bytes)?;
                Ok((word_at(&bytes, 0), word_at(&bytes, 8)))
            }
            _ => {
                let coroutine = self.attribute(task, "_coro")?.ok_or(Torn)?;
                Ok((self.attribute(task, "_fut_waiter")?.unwrap_or(0), coroutine))
            }
        }
    }

    fn has_awaited_by(&self) -> bool {
        self.objects.layout.tasks.running == Running::Published
    }

    /// What awaits a future: 0, one thing, or a set of them.
    fn awaited_by(&mut self, future: Address) -> Result<(Address, bool), Torn> {
        let published = self.asyncio.published.ok_or(Torn)?;
        let memory = self.objects.memory;
        let is_set = memory.byte(field(future, published.task_awaited_by_is_set))? != 0;
        Ok((memory.word(field(future, published.task_awaited_by))?, is_set))
    }

    /// Frames of a task that waits, the oldest first, are added to `into`.
    pub fn frames(&mut self, task: Address, into: &mut Vec<RawFrame>) -> Result<Doing, Torn> {
        let before = self.awaits(task)?;
        let start = into.len();
        let doing = self.frames_of(before.1, into)?;
        // It may have gone on meanwhile.
        if self.awaits(task)? != before {
            return Err(Torn);
        }
        if doing == Doing::Waits
            && let Some(oldest) = into.get(start)
        {
            let at = field(oldest.at, self.objects.layout.frame_instruction);
            let is_same = match self.objects.layout.has_data_stack() {
                true => self.objects.memory.word(at)? == oldest.instruction,
                false => self.objects.memory.word32(at)? == oldest.instruction as u32,
            };
            if !is_same {
                return Err(Torn);
            }
        }
        Ok(doing)
    }

    fn name_object(&mut self, task: Address) -> Result<Address, Torn> {
        match self.kind_of_future(task)? {
            Kind::Task => {
                let coroutine_at = field(task, self.objects.layout.tasks.task_coro);
                Ok(self.objects.memory.word(field(coroutine_at, 8))?)
            }
            _ => self.attribute(task, "_name")?.ok_or(Torn),
        }
    }

    /// What stands for a task's name, and is the same only for the same name, is put into `key`.
    /// False if the name is too long for that.
    pub fn name_key(&mut self, task: Address, key: &mut Vec<u8>) -> Result<bool, Torn> {
        let Objects { memory, layout } = self.objects;
        let name = self.name_object(task)?;
        key.clear();
        match self.kind(name)? {
            Kind::Integer => {
                key.push(0);
                key.extend_from_slice(&self.objects.unsigned(name)?.to_ne_bytes());
                Ok(true)
            }
            _ => {
                let length = memory.word(field(name, layout.str_length))?;
                let state = memory.word32(field(name, layout.str_state))? >> layout.str_kind_shift;
                let (width, is_compact, is_ascii) = (state & 7, state & 8 != 0, state & 16 != 0);
                let bytes = u64::from(width).saturating_mul(length);
                if !is_compact || bytes > MOST_COMPARED {
                    return Ok(false);
                }
                let data = if is_ascii { layout.str_ascii_data } else { layout.str_compact_data };
                key.resize(1 + bytes as usize, width as u8);
                key[0] = width as u8;
                memory.read(field(name, data), &mut key[1..])?;
                Ok(true)
            }
        }
    }

    /// A task's name.
    pub fn name(&mut self, task: Address) -> Result<Box<str>, Torn> {
        let name = self.name_object(task)?;
        match self.kind(name)? {
            // A task that was not given a name gets it when it is asked for (3.13 on).
            Kind::Integer => Ok(format!("Task-{}", self.objects.unsigned(name)?).into()),
            _ => Ok(strings::text(self.objects.memory, self.objects.layout, name)?),
        }
    }

    /// `co_flags` of a code object.
    pub fn code_flags(&self, code: Address) -> Result<u32, Torn> {
        Ok(self.objects.memory.word32(field(code, self.objects.layout.tasks.code_flags))?)
    }
}

#[cfg(test)]
mod tests {
    use super::running::Current;
    use super::*;
    use crate::layout::tables;
    use crate::mem::{MemoryImage, Watched};
    use crate::reader::testing::{INTERPRETER, World};
    use proptest::prelude::*;

    const THREAD: Address = 0x18_000;

    /// A child that runs, and a parent that awaits it, in 3.12.
    struct Family {
        world: World,
        image: MemoryImage,
        child: Address,
        parent: Address,
        frame: Address,
    }

    fn family() -> Family {
        const SUSPENDED: u64 = 0xFF << 24;
        let layout = tables::V3_12;
        let tasks = layout.tasks;
        let mut world = World::new(layout);
        let future_class = world.class("_asyncio.Future", 0);
        let task_class = world.class("_asyncio.Task", future_class);
        let coroutine_class = world.class("coroutine", 0);
        let builtin_class = world.class("builtin_function_or_method", 0);
        let other_class = world.class("object", 0);
        let other = world.place(&[(8, other_class)]);

        let mut coroutine = |state: u64, awaited: Address| {
            let generator = tasks.generator.frame;
            // After an `await`, with one thing on the value stack.
            let code = world.place(&[(200, 0x0397)]);
            let at = world.place(&[
                (8, coroutine_class),
                (64, state),
                (generator, code),
                (generator + 56, code + 198),
                (generator + 64, 1),
                (generator + 72, awaited),
            ]);
            (at, at + generator as u64)
        };
        let (runs, frame) = coroutine(0, 0);
        let (waits, _) = coroutine(SUSPENDED, 0);
        let name = world.string("child");
        let child = world.place(&[(8, task_class), (tasks.task_coro, runs)]);
        let parent_name = world.string("parent");
        let parent = world.place(&[
            (8, task_class),
            (tasks.task_coro - 8, child),
            (tasks.task_coro, waits),
            (tasks.task_coro + 8, parent_name),
        ]);
        let wakeup = world.place(&[(8, builtin_class), (24, parent)]);
        world.set(child + 24, wakeup);
        world.set(child + tasks.task_coro as u64 + 8, name);

        let loop_key = world.string("a loop");
        let current = world.dict(&[(loop_key, child)]);
        let module = |world: &mut World, globals: &[(&str, Address)]| {
            let items: Vec<_> =
                globals.iter().map(|&(name, value)| (world.string(name), value)).collect();
            let namespace = world.dict(&items);
            world.place(&[(layout_module_dict(), namespace)])
        };
        let in_tasks = module(
            &mut world,
            &[("_PyTask", other), ("_CTask", task_class), ("_current_tasks", current)],
        );
        let in_futures = module(&mut world, &[("_PyFuture", other)]);
        let keys = ["asyncio.tasks", "asyncio.futures"].map(|name| world.string(name));
        let modules = world.dict(&[(keys[0], in_tasks), (keys[1], in_futures)]);
        let mut image = world.image(modules);
        image.insert(THREAD, &[0; 512]);
        Family { world, image, child, parent, frame }
    }

    fn layout_module_dict() -> usize {
        tables::V3_12.objects.module_dict
    }

    fn frames(at: Address) -> [RawFrame; 2] {
        [at + 8, at].map(|at| RawFrame {
            at,
            code: 0,
            instruction: 0,
            bytecode: 0,
            is_entry: false,
        })
    }

    #[test]
    fn a_task_is_found_by_its_frame_and_its_parent_by_what_wakes_it() {
        let Family { world, image, child, parent, frame } = family();
        let mut reader = TaskReader::default();
        let reading = reader.reading(&image, &world.layout, INTERPRETER).unwrap();
        let mut reading = reading.unwrap();
        let current = reading.current(THREAD, &frames(frame)).unwrap();
        let Current::Task(note, 1) = current else { panic!("{current:?}") };
        assert_eq!(note.task, child);
        assert!(reading.is_current(note) && !reading.is_current(Note { task: parent, ..note }));
        assert_eq!(reading.current(THREAD, &frames(frame + 64)), Ok(Current::NoLoop));
        let mut waiters = Vec::new();
        reading.waiters(child, &mut waiters).unwrap();
        assert_eq!(waiters, [parent]);
        assert_eq!(reading.name(parent).as_deref(), Ok("parent"));
        let mut raw = Vec::new();
        assert_eq!(reading.frames(parent, &mut raw), Ok(Doing::Waits));
        assert_eq!(raw.len(), 1);
        assert_eq!(reading.frames(child, &mut raw), Ok(Doing::Runs(frame)));
    }

    #[test]
    fn what_a_dictionary_has_left_behind_is_not_believed() {
        let Family { world, mut image, frame, .. } = family();
        let mut reader = TaskReader::default();
        let mut reading = reader.reading(&image, &world.layout, INTERPRETER).unwrap().unwrap();
        let current = reading.current(THREAD, &frames(frame)).unwrap();
        let Current::Task(note, _) = current else { panic!("{current:?}") };
        let (dict, keys) = note.within.unwrap();
        image
            .poke(dict + world.layout.objects.dict_keys as u64, &(keys + 8).to_ne_bytes())
            .unwrap();
        let mut reading = reader.reading(&image, &world.layout, INTERPRETER).unwrap().unwrap();
        assert!(!reading.is_current(note));
    }

    #[test]
    fn asyncio_is_learned_when_all_of_it_is_imported() {
        let Family { mut world, image, .. } = family();
        // Where the table of offsets is needed, and what leads to it is still missing.
        world.layout.tasks.running = Running::Published;
        let mut reader = TaskReader::default();
        assert!(reader.reading(&image, &world.layout, INTERPRETER).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn any_memory_is_survived(
            pokes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0u32..64), 1..9),
        ) {
            let Family { world, mut image, child, parent, frame } = family();
            let mut reader = TaskReader::default();
            for (index, word, shift) in pokes {
                world.poke(&mut image, &index, word >> shift);
                let Ok(Some(mut reading)) = reader.reading(&image, &world.layout, INTERPRETER) else {
                    continue;
                };
                let _ = reading.current(THREAD, &frames(frame));
                let mut key = Vec::new();
                for task in [child, parent] {
                    let _ = reading.waiters(task, &mut Vec::new());
                    let _ = reading.frames(task, &mut Vec::new());
                    let _ = reading.name_key(task, &mut key);
                    let _ = reading.name(task);
                }
                let watched = Watched::new(&image);
                if let Ok(Some(mut reading)) = reader.reading(&watched, &world.layout, INTERPRETER) {
                    let threads = [THREAD].into_iter();
                    let _ = reading.list(threads, &mut listing::Lists::default(), &mut Vec::new());
                }
            }
        }
    }
}
