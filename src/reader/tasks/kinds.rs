//! What an object is, by its type: tasks, futures, what awaits them, and what leads to that.

use std::collections::HashMap;

use crate::hash::FastHash;
use crate::layout::Layout;
use crate::mem::{Address, Memory, field, word_at};
use crate::reader::Torn;
use crate::reader::objects::{Objects, Offset};

/// What matters of an object's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A coroutine, a generator or an asynchronous generator.
    Generator,
    /// What `await` puts around one of those, and other things that hold one: it comes first in
    /// them.
    Wrapper,
    /// `_asyncio.Task`, or of a class derived from it.
    Task,
    /// `_asyncio.Future`, or of a class derived from it.
    Future,
    /// The task that is written in Python.
    PythonTask,
    /// The future that is written in Python.
    PythonFuture,
    /// A bound method that is written in C.
    Builtin,
    /// What wakes a task up in 3.8 and 3.9.
    Wakeup,
    /// A bound method.
    Method,
    /// A function.
    Function,
    /// `functools.partial`.
    Partial,
    /// A `set`.
    Set,
    /// A weak reference.
    WeakReference,
    /// A `str`.
    Text,
    /// An `int`.
    Integer,
    /// `None`.
    None,
    /// Anything else.
    Other,
}

impl Kind {
    /// Whether it is a task.
    pub fn is_task(self) -> bool {
        matches!(self, Self::Task | Self::PythonTask)
    }

    /// Whether it is a future, which tasks are, too.
    pub fn is_future(self) -> bool {
        self.is_task() || matches!(self, Self::Future | Self::PythonFuture)
    }
}

/// The classes that are written in Python, of one interpreter; 0 where not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct PythonClasses {
    /// `asyncio.tasks._PyTask`.
    pub task: Address,
    /// `asyncio.futures._PyFuture`.
    pub future: Address,
}

/// A type as it was seen; another one in its place differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    name: Address,
    size: u64,
    base: Address,
    is_static: bool,
}

/// Types that were looked at before.
#[derive(Debug, Default)]
pub struct Kinds {
    known: HashMap<Address, (Head, Kind), FastHash>,
    /// Those that passes have met.
    trusted: HashMap<Address, Kind, FastHash>,
    is_passing: bool,
    has_python_tasks: bool,
    /// How often those were forgotten.
    changes: u64,
}

/// Most types that are remembered.
const MOST_TYPES: usize = 1 << 14;
/// Most of them that are looked at before and after each pass.
const MOST_TRUSTED: usize = 1 << 10;
/// Most classes from which a class is derived, one from the other.
const MOST_BASES: usize = 32;
/// At least as long as the head of a type up to the fields that are read.
const MOST_HEAD: usize = 512;
/// `Py_TPFLAGS_HEAPTYPE` (`object.h`).
const HEAP_TYPE: u64 = 1 << 9;

impl Kinds {
    /// What an object is.
    pub fn of<M: Memory>(
        &mut self,
        objects: Objects<'_, M>,
        classes: PythonClasses,
        object: Address,
    ) -> Result<Kind, Torn> {
        let class = objects.type_of(object)?;
        if self.is_passing
            && let Some(&kind) = self.trusted.get(&class)
        {
            return Ok(kind);
        }
        let kind = self.of_class(objects, classes, class)?;
        if self.is_passing {
            self.trusted.insert(class, kind);
        }
        Ok(kind)
    }

    /// Until [`end_pass`](Self::end_pass), no type is looked at that was met in this pass or one before. Returns a
    /// number that stays the same as long as all of them are what they were.
    pub fn begin_pass<M: Memory>(&mut self, objects: Objects<'_, M>) -> u64 {
        if self.trusted.len() > MOST_TRUSTED || !self.are_as_trusted(objects) {
            self.forget_trusted();
        }
        self.is_passing = true;
        self.changes
    }

    /// Fails if a type is not any more what it was taken for in the pass that began with this number.
    pub fn end_pass<M: Memory>(&mut self, objects: Objects<'_, M>, begun: u64) -> Result<(), Torn> {
        self.is_passing = false;
        if begun != self.changes {
            return Err(Torn);
        }
        if !self.are_as_trusted(objects) {
            self.forget_trusted();
            return Err(Torn);
        }
        Ok(())
    }

    fn are_as_trusted<M: Memory>(&self, objects: Objects<'_, M>) -> bool {
        self.trusted.keys().all(|class| {
            let known = self.known.get(class);
            known.is_some_and(|(known, _)| head(objects, *class) == Ok(*known))
        })
    }

    fn of_class<M: Memory>(
        &mut self,
        objects: Objects<'_, M>,
        classes: PythonClasses,
        class: Address,
    ) -> Result<Kind, Torn> {
        let head = head(objects, class)?;
        if let Some(&(known, kind)) = self.known.get(&class)
            && known == head
        {
            return Ok(kind);
        }
        let kind = kind(objects, classes, class, head)?;
        self.has_python_tasks |= kind == Kind::PythonTask;
        if self.known.len() >= MOST_TYPES {
            self.forget();
        }
        self.known.insert(class, (head, kind));
        Ok(kind)
    }

    /// Whether a task that is written in Python was ever met.
    pub fn has_python_tasks(&self) -> bool {
        self.has_python_tasks
    }

    /// Forgets all types.
    pub fn forget(&mut self) {
        self.known.clear();
        self.forget_trusted();
    }

    fn forget_trusted(&mut self) {
        self.trusted.clear();
        self.changes += 1;
    }
}

fn head<M: Memory>(objects: Objects<'_, M>, class: Address) -> Result<Head, Torn> {
    let Layout { type_name, objects: fields, tasks, .. } = objects.layout;
    let mut bytes = [0; MOST_HEAD];
    let bytes = bytes.get_mut(..tasks.type_base + 8).ok_or(Torn)?;
    objects.memory.read(class, bytes)?;
    Ok(Head {
        name: word_at(bytes, *type_name),
        size: word_at(bytes, fields.type_basic_size),
        base: word_at(bytes, tasks.type_base),
        is_static: word_at(bytes, fields.type_flags) & HEAP_TYPE == 0,
    })
}

/// The start of a type's name, up to its end.
fn name<'b, M: Memory>(
    objects: Objects<'_, M>,
    head: Head,
    into: &'b mut [u8; 32],
) -> Result<&'b [u8], Torn> {
    // The name may be the last thing in its page.
    for (index, byte) in into.iter_mut().enumerate() {
        *byte = objects.memory.byte(head.name.offset(index)?)?;
        if *byte == 0 {
            return Ok(&into[..index]);
        }
    }
    Ok(into)
}

fn kind<M: Memory>(
    objects: Objects<'_, M>,
    classes: PythonClasses,
    class: Address,
    head: Head,
) -> Result<Kind, Torn> {
    let mut text = [0; 32];
    match (name(objects, head, &mut text)?, head.is_static) {
        (b"coroutine" | b"generator" | b"async_generator", true) => return Ok(Kind::Generator),
        (
            b"coroutine_wrapper"
            | b"async_generator_asend"
            | b"async_generator_athrow"
            | b"anext_awaitable"
            | b"_RunningLoopHolder",
            true,
        ) => return Ok(Kind::Wrapper),
        (b"builtin_function_or_method", true) => return Ok(Kind::Builtin),
        (b"TaskWakeupMethWrapper", true) => return Ok(Kind::Wakeup),
        (b"method", true) => return Ok(Kind::Method),
        (b"function", true) => return Ok(Kind::Function),
        (b"functools.partial", _) => return Ok(Kind::Partial),
        (b"set", true) => return Ok(Kind::Set),
        (b"weakref" | b"weakref.ReferenceType", true) => return Ok(Kind::WeakReference),
        (b"str", true) => return Ok(Kind::Text),
        (b"NoneType", true) => return Ok(Kind::None),
        (b"int", true) => return Ok(Kind::Integer),
        _ => {}
    }
    let (mut class, mut head) = (class, head);
    for _ in 0..MOST_BASES {
        if class == classes.task {
            return Ok(Kind::PythonTask);
        }
        if class == classes.future {
            return Ok(Kind::PythonFuture);
        }
        match name(objects, head, &mut text)? {
            b"_asyncio.Task" => return Ok(Kind::Task),
            b"_asyncio.Future" => return Ok(Kind::Future),
            _ if head.base == 0 => break,
            _ => {}
        }
        class = head.base;
        head = self::head(objects, class)?;
    }
    Ok(Kind::Other)
}

/// The object that a wrapper is put around: the first thing behind its head.
pub fn wrapped<M: Memory>(objects: Objects<'_, M>, wrapper: Address) -> Result<Address, Torn> {
    Ok(objects.memory.word(field(wrapper, objects.layout.object_size))?)
}
