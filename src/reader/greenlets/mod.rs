//! Greenlets: which one a thread runs, and the frames of those that are switched out.
//!
//! Everything is found by memory alone. `PyGreenlet` (`src/greenlet/greenlet.h` of greenlet 2.0.0 to
//! 3.5.3) leads to a C++ object, `Greenlet` in `TGreenlet.hpp` (`greenlet_greenlet.hpp` up to 3.0):
//! after its table of virtual functions and, from 3.1 on, the `PyGreenlet` come the state of
//! exceptions, the arguments of a switch, the state of the C stack, and that of Python's stack. How
//! long the last one is differs; but a thread's main greenlet says by what is in it where each of
//! these lies, and nothing counts before it has.
//!
//! A greenlet is tied to a stack by three things that must hold before and after the stack was read:
//! the thread says that it runs this one, the greenlet has not saved its frames, and the thread's
//! contexts were not exchanged, which every switch does.

pub mod heap;
mod local;

use std::collections::HashMap;

use super::Torn;
use super::frame::{FIRST_FOREIGN_OWNER, RawFrame};
use super::frames::MOST_FRAMES;
use super::modules::Place;
use super::objects::{Objects, Offset};
use super::strings;
use crate::hash::FastHash;
use crate::layout::{CodeIdentity, Layout, TopFrame};
use crate::mem::{Address, Memory, field, word_at};
use local::Locals;

/// Most classes from which a class is derived, one from the other.
const MOST_BASES: usize = 32;
/// What `stack_stop` is in a thread's main greenlet (`StackState::make_main`).
const MAIN_STOP: u64 = u64::MAX;
/// At least as long as any version's frame.
const MOST_FRAME: usize = 256;
/// A `PyGreenlet` has weak references, a dictionary, and the C++ object.
const OWN_WORDS: u64 = 3;
/// From `stack_stop` to `_prev_frame`, where there is one.
const SEVERED: usize = 104;
/// `PythonState` is no longer than this.
const MOST_STATE: usize = 240;

/// At least as long as an object's head and those words.
const MOST_HEAD: usize = 64;
/// At least as long as what is read of the C++ object.
const MOST_IMPLEMENTATION: usize = 512;

/// The `PyGreenlet`.
struct Head {
    class: Address,
    dict: Address,
    implementation: Address,
}

/// Where the C++ object keeps its fields, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// `StackState::stack_stop`; `_stack_start` stands before it, `stack_copy`, `_stack_saved`,
    /// `stack_prev`, the context and `_top_frame` behind it.
    stop: usize,
    /// Whether the second word is the `PyGreenlet`.
    has_self: bool,
    /// The main greenlet of a greenlet's thread.
    main: usize,
    /// `_prev_frame`, the caller of the newest frame, which is cut off from it while its greenlet is
    /// switched out: 3.0.0 and 3.0.1 with CPython 3.12.
    severed: Option<usize>,
}

/// What is remembered between samples.
#[derive(Debug, Default)]
pub struct GreenletReader {
    /// Whether there are greenlets that look like none that are known.
    pub has_unknown: bool,
    /// `greenlet.greenlet`, of each interpreter that has it; 0 if it is not known how that one keeps
    /// greenlets.
    classes: HashMap<Address, Address, FastHash>,
    dict_type: Address,
    module: Place,
    class_hint: usize,
    name_hint: usize,
    /// A class that was one of greenlets.
    last_class: Address,
    shape: Option<Shape>,
    locals: Locals,
}

/// What a thread says of its greenlets at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The greenlet that the thread began with.
    pub main: Address,
    /// The one that it runs.
    pub current: Address,
    /// Grows with each switch.
    pub version: u64,
    thread: Address,
    state: Address,
}

/// What a greenlet is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It is switched out.
    Waits,
    /// It belongs to the thread with this main greenlet; 0 if to none.
    OfAnother(Address),
    /// It runs, has not begun, has ended, or has no frames of Python.
    Nothing,
    /// There is no greenlet any more.
    Gone,
}

/// The greenlets of one interpreter, while they are read.
pub struct Reading<'a, M> {
    objects: Objects<'a, M>,
    class: Address,
    reader: &'a mut GreenletReader,
}

/// A piece of the C stack that is kept elsewhere while its greenlet is switched out.
#[derive(Clone, Copy)]
struct Spilled {
    start: Address,
    copy: Address,
    length: u64,
}

impl Spilled {
    /// Where `size` bytes are that belong at an address.
    fn place(&self, at: Address, size: usize) -> Result<Address, Torn> {
        let Some(within) = at.checked_sub(self.start).filter(|within| *within < self.length) else {
            return Ok(at);
        };
        if within + size as u64 > self.length {
            return Err(Torn);
        }
        self.copy.checked_add(within).ok_or(Torn)
    }
}

impl GreenletReader {
    /// Forgets where everything is; another runtime may be in its place.
    pub fn forget(&mut self) {
        *self = Self { has_unknown: self.has_unknown, ..Self::default() };
    }

    /// The greenlets of an interpreter; `None` as long as greenlet is not imported.
    pub fn reading<'a, M: Memory>(
        &'a mut self,
        memory: &'a M,
        layout: &'a Layout,
        interpreter: Address,
    ) -> Result<Option<Reading<'a, M>>, Torn> {
        let objects = Objects { memory, layout };
        if let Some(&class) = self.classes.get(&interpreter) {
            return Ok((class != 0).then_some(Reading { objects, class, reader: self }));
        }
        if self.dict_type == 0 {
            self.dict_type = objects.dict_type(interpreter)?;
        }
        let name = "greenlet._greenlet";
        let module = objects.module(interpreter, self.dict_type, name, &mut self.module)?;
        let Some(namespace) = module else { return Ok(None) };
        let namespace = objects.table(namespace)?;
        let Some(class) = namespace.find("greenlet", &mut self.class_hint)? else {
            return Ok(None);
        };
        let class = memory.word(class.slot)?;
        let bytes = memory.word(class.offset(layout.objects.type_basic_size)?)?;
        let is_known = bytes == layout.object_size as u64 + 8 * OWN_WORDS;
        self.has_unknown |= !is_known;
        let class = if is_known { class } else { 0 };
        self.classes.insert(interpreter, class);
        Ok(is_known.then_some(Reading { objects, class, reader: self }))
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

    /// What a thread, given by its state and its `ident`, says of its greenlets; `None` if it has
    /// none, or none of a kind that is known.
    pub fn moment(&mut self, thread: Address, ident: u64) -> Result<Option<Moment>, Torn> {
        let Some(state) = self.thread_state(thread, ident)? else { return Ok(None) };
        let memory = self.objects.memory;
        let version_at = field(thread, self.layout().states.thread_context_version);
        let version = memory.word(version_at)?;
        // `ThreadState` begins with `main_greenlet` and `current_greenlet`.
        let (main, current) = (memory.word(state)?, memory.word(field(state, 8))?);
        Ok(Some(Moment { main, current, version, thread, state }))
    }

    /// Whether frames, the newest of which is at an address, are of the greenlet that was the current
    /// one at a moment before they were read. One that is about to be switched out has saved where its
    /// newest frame is; and as soon as those of another one are in their place, the contexts have
    /// been exchanged, or it is the current one.
    pub fn is_stack_of(&self, moment: &Moment, newest: Address) -> Result<bool, Torn> {
        let shape = self.reader.shape.ok_or(Torn)?;
        let implementation = self.implementation(moment.current)?;
        let saved = self.objects.memory.word(implementation.offset(shape.stop + 40)?)?;
        let is_its = saved == 0 || shape.severed.is_none() && self.frame_of(saved)? == newest;
        Ok(is_its && self.has_not_switched(moment))
    }

    /// The frame of a frame object.
    fn frame_of(&self, object: Address) -> Result<Address, Torn> {
        Ok(match self.layout().has_data_stack() {
            // `f_frame`, behind `f_back` (`internal/pycore_frame.h`).
            true => self.objects.memory.word(object.offset(self.layout().object_size + 8)?)?,
            false => object,
        })
    }

    /// Whether no other greenlet has begun to run since a moment.
    pub fn has_not_switched(&self, moment: &Moment) -> bool {
        let memory = self.objects.memory;
        let version_at = field(moment.thread, self.layout().states.thread_context_version);
        memory.word(field(moment.state, 8)) == Ok(moment.current)
            && memory.word(version_at) == Ok(moment.version)
    }

    /// Whether an object is a greenlet.
    fn is_greenlet(&self, object: Address) -> Result<bool, Torn> {
        self.is_class(self.objects.type_of(object)?)
    }

    /// Whether a class is that of greenlets, or derived from it.
    fn is_class(&self, mut class: Address) -> Result<bool, Torn> {
        for _ in 0..MOST_BASES {
            match class {
                0 => return Ok(false),
                _ if class == self.class => return Ok(true),
                _ => {
                    class =
                        self.objects.memory.word(class.offset(self.layout().tasks.type_base)?)?
                }
            }
        }
        Ok(false)
    }

    /// The C++ object of a greenlet.
    fn implementation(&self, greenlet: Address) -> Result<Address, Torn> {
        // Behind references to it and its dictionary.
        Ok(self.objects.memory.word(greenlet.offset(self.layout().object_size + 16)?)?)
    }

    /// Learns from a thread's state and its main greenlet where fields are; `None` if they do not
    /// belong together, or look like nothing that is known.
    fn learn(&self, state: Address, main: Address) -> Result<Option<Shape>, Torn> {
        let memory = self.objects.memory;
        let implementation = self.implementation(main)?;
        // `_PyErr_StackItem`.
        let item = self.layout().states.item_previous + 8;
        for has_self in [true, false] {
            // The table of virtual functions, perhaps itself, a pointer to an item and one, two
            // arguments, `_stack_start`.
            let stop = if has_self { 16 } else { 8 } + 8 + item + 16 + 8;
            let is_main = memory.word(implementation.offset(stop)?)? == MAIN_STOP
                && (!has_self || memory.word(implementation.offset(8)?)? == main);
            if !is_main {
                continue;
            }
            // `MainGreenlet` has itself and its thread's state behind what all greenlets have.
            for offset in (stop + 48..stop + 48 + MOST_STATE).step_by(8) {
                let at = implementation.offset(offset)?;
                if memory.word(at)? == main && memory.word(at.offset(8)?)? == state {
                    // Where others do not have themselves among what all have, they do there.
                    let main = if has_self { offset } else { offset + 8 };
                    let is_severed = self.is_3_12() && !has_self && offset == stop + SEVERED + 8;
                    let severed = is_severed.then_some(stop + SEVERED);
                    return Ok(Some(Shape { stop, has_self, main, severed }));
                }
            }
        }
        Ok(None)
    }

    fn is_3_12(&self) -> bool {
        let layout = self.layout();
        matches!(layout.thread_top_frame, TopFrame::InCFrame { .. })
            && matches!(layout.code_identity, CodeIdentity::Version(_))
    }

    /// The frames of a greenlet of the moment's thread, the oldest first, are added to `into` if it is
    /// switched out. They are its own if the thread [has not switched](Self::has_not_switched) since.
    pub fn frames(
        &mut self,
        moment: &Moment,
        greenlet: Address,
        into: &mut Vec<RawFrame>,
    ) -> Result<Doing, Torn> {
        let memory = self.objects.memory;
        let shape = self.reader.shape.ok_or(Torn)?;
        let Ok(Head { class, implementation, .. }) = self.head(greenlet) else {
            return Ok(Doing::Gone);
        };
        if class != self.reader.last_class {
            let Ok(true) = self.is_class(class) else { return Ok(Doing::Gone) };
            self.reader.last_class = class;
        }
        let mut state = [0; MOST_IMPLEMENTATION];
        let state = state.get_mut(..shape.main + 8).ok_or(Torn)?;
        if implementation == 0
            || memory.read(implementation, state).is_err()
            || shape.has_self && word_at(state, 8) != greenlet
        {
            return Ok(Doing::Gone);
        }
        let word = |from_stop: usize| word_at(state, shape.stop + from_stop);
        let start = word_at(state, shape.stop - 8);
        let [stop, copy, length, top] = [word(0), word(8), word(16), word(40)];
        if start == 0 || stop == 0 {
            return Ok(Doing::Nothing);
        }
        let main = match stop {
            MAIN_STOP => greenlet,
            _ => word_at(state, shape.main),
        };
        if main != moment.main {
            return Ok(Doing::OfAnother(main));
        }
        if top == 0 || greenlet == moment.current {
            return Ok(Doing::Nothing);
        }
        let spilled = Spilled { start, copy, length };
        let before = into.len();
        let severed = shape.severed.map(|offset| word_at(state, offset));
        self.walk(self.frame_of(top)?, severed, &spilled, into)?;
        into[before..].reverse();
        if memory.word(field(implementation, shape.stop + 40))? == top {
            Ok(Doing::Waits)
        } else {
            Err(Torn)
        }
    }

    /// Adds frames, the newest first; its caller may be given.
    fn walk(
        &self,
        first: Address,
        severed: Option<Address>,
        spilled: &Spilled,
        into: &mut Vec<RawFrame>,
    ) -> Result<(), Torn> {
        let layout = self.layout();
        let size = layout.frame_bytes();
        let mut bytes = [0; MOST_FRAME];
        let bytes = bytes.get_mut(..size).ok_or(Torn)?;
        let mut next = first;
        for _ in 0..2 * MOST_FRAMES {
            if next == 0 {
                return Ok(());
            }
            self.objects.memory.read(spilled.place(next, size)?, bytes)?;
            if layout.frame_owner.is_none_or(|owner| bytes[owner] < FIRST_FOREIGN_OWNER) {
                into.push(RawFrame::of(layout, next, bytes));
            }
            next = match severed {
                Some(caller) if next == first => caller,
                _ => word_at(bytes, layout.frame_previous),
            };
        }
        Err(Torn)
    }

    fn head(&self, greenlet: Address) -> Result<Head, Torn> {
        let layout = self.layout();
        let mut bytes = [0; MOST_HEAD];
        let own = layout.object_size;
        let bytes = bytes.get_mut(..own + 8 * OWN_WORDS as usize).ok_or(Torn)?;
        self.objects.memory.read(greenlet, bytes)?;
        Ok(Head {
            class: word_at(bytes, layout.object_type),
            dict: word_at(bytes, own + 8),
            implementation: word_at(bytes, own + 16),
        })
    }

    /// What is the same only for greenlets of the same class without attributes: nothing else can
    /// name them.
    pub fn name_key(&self, greenlet: Address) -> Result<Option<(Address, Address)>, Torn> {
        let Head { class, dict, .. } = self.head(greenlet)?;
        if dict != 0 {
            return Ok(None);
        }
        let name_at = class.offset(self.layout().type_name)?;
        Ok(Some((class, self.objects.memory.word(name_at)?)))
    }

    /// What a greenlet is called: by the name that it was given, or else by its class.
    pub fn name(&mut self, moment: &Moment, greenlet: Address) -> Result<Box<str>, Torn> {
        let Objects { memory, layout } = self.objects;
        let Head { class, dict, .. } = self.head(greenlet)?;
        if dict != 0 && self.objects.type_of(dict)? == self.reader.dict_type {
            let table = self.objects.table(dict)?;
            if let Some(item) = table.find("name", &mut self.reader.name_hint)? {
                let name = memory.word(item.slot)?;
                let class = self.objects.type_of(name)?;
                if name != 0 && &*self.class_name(class)? == "str" {
                    return Ok(strings::text(memory, layout, name)?);
                }
            }
        }
        if greenlet == moment.main {
            return Ok("main greenlet".into());
        }
        self.class_name(class)
    }

    /// The name of a class without that of its module.
    fn class_name(&self, class: Address) -> Result<Box<str>, Torn> {
        const MOST_NAME: usize = 128;
        let memory = self.objects.memory;
        let at = memory.word(class.offset(self.layout().type_name)?)?;
        let mut name = Vec::new();
        for offset in 0..MOST_NAME {
            match memory.byte(at.offset(offset)?)? {
                0 => break,
                b'.' => name.clear(),
                byte => name.push(byte),
            }
        }
        Ok(String::from_utf8_lossy(&name).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tables;
    use crate::mem::MemoryImage;
    use crate::reader::testing::{INTERPRETER, World};
    use proptest::prelude::*;

    const THREAD: Address = 0x18_000;
    /// Of 3.1 on, and CPython 3.11 on.
    const STOP: usize = 64;
    const MAIN: usize = STOP + 48 + 64;
    const ACTIVE: u64 = 1;

    /// A thread whose main greenlet runs, and another one that it has switched out of, in 3.12.
    struct Switched {
        world: World,
        image: MemoryImage,
        control: Address,
        main: Address,
        other: Address,
        implementation: Address,
        /// The older one first.
        frames: [Address; 2],
    }

    fn switched() -> Switched {
        let layout = tables::V3_12;
        let mut world = World::new(layout.clone());
        let class = world.class("greenlet.greenlet", 0);
        world.set(class + layout.objects.type_basic_size as u64, 40);
        let derived = world.class("gevent.Greenlet", class);
        let caller = world.place(&[]);
        let callee = world.place(&[(layout.frame_previous, caller)]);
        let object = world.place(&[(24, callee)]);

        let state = world.place(&[]);
        let implementation = world.place(&[
            (STOP - 8, ACTIVE),
            (STOP, 0x7000),
            (STOP + 40, object),
            (STOP + 48, 0x7000),
        ]);
        let main_implementation =
            world.place(&[(STOP - 8, ACTIVE), (STOP, MAIN_STOP), (MAIN + 8, state)]);
        let main = world.place(&[(8, class), (32, main_implementation)]);
        let other = world.place(&[(8, derived), (32, implementation)]);
        world.set(main_implementation + 8, main);
        world.set(main_implementation + MAIN as u64, main);
        world.set(implementation + 8, other);
        world.set(implementation + MAIN as u64, main);
        world.set(state, main);
        world.set(state + 8, main);

        let block = world.place(&[(24, state)]);
        let blocks = world.place(&[(0, 2), (16 + 32, block)]);
        let control = world.place(&[(8, blocks + 16)]);
        world.set(control, control);
        world.set(control + 16, control);

        let key = world.string("greenlet");
        let namespace = world.dict(&[(key, class)]);
        let module = world.place(&[(layout.objects.module_dict, namespace)]);
        let key = world.string("greenlet._greenlet");
        let modules = world.dict(&[(key, module)]);
        let mut image = world.image(modules);
        image.insert(THREAD, &[0; 512]);
        let frames = [caller, callee];
        Switched { world, image, control, main, other, implementation, frames }
    }

    fn version_at() -> Address {
        field(THREAD, tables::V3_12.states.thread_context_version)
    }

    #[test]
    fn what_runs_and_what_waits_is_found_through_the_threads_own_variables() {
        let Switched { world, image, control, main, other, frames, .. } = switched();
        let mut reader = GreenletReader::default();
        let mut reading = reader.reading(&image, &world.layout, INTERPRETER).unwrap().unwrap();
        let moment = reading.moment(THREAD, control).unwrap().unwrap();
        assert_eq!((moment.main, moment.current), (main, main));
        assert_eq!(reading.is_stack_of(&moment, 0), Ok(true));
        let mut raw = Vec::new();
        assert_eq!(reading.frames(&moment, other, &mut raw), Ok(Doing::Waits));
        assert_eq!(raw.iter().map(|raw| raw.at).collect::<Vec<_>>(), frames);
        assert_eq!(reading.frames(&moment, main, &mut raw), Ok(Doing::Nothing));
        assert_eq!(reading.frames(&moment, frames[0], &mut raw), Ok(Doing::Gone));
        assert_eq!(reading.name(&moment, other).as_deref(), Ok("Greenlet"));
        assert_eq!(reading.name(&moment, main).as_deref(), Ok("main greenlet"));
        // A thread without variables of greenlet's.
        assert_eq!(reading.moment(THREAD, control + 8), Ok(None));
    }

    #[test]
    fn nothing_counts_that_was_switched_meanwhile() {
        let Switched { world, mut image, control, other, implementation, .. } = switched();
        let mut reader = GreenletReader::default();
        let mut reading = reader.reading(&image, &world.layout, INTERPRETER).unwrap().unwrap();
        let moment = reading.moment(THREAD, control).unwrap().unwrap();
        image.poke(version_at(), &[1]).unwrap();
        let reading = reader.reading(&image, &world.layout, INTERPRETER).unwrap().unwrap();
        assert_eq!(reading.is_stack_of(&moment, 0), Ok(false));
        assert!(!reading.has_not_switched(&moment));
        image.poke(version_at(), &[0]).unwrap();
        // It has ended.
        image.poke(field(implementation, STOP - 8), &[0]).unwrap();
        let mut reading = reader.reading(&image, &world.layout, INTERPRETER).unwrap().unwrap();
        assert!(reading.has_not_switched(&moment));
        assert_eq!(reading.frames(&moment, other, &mut Vec::new()), Ok(Doing::Nothing));
    }

    #[test]
    fn frames_on_the_c_stack_are_read_where_they_were_spilled_to() {
        let Switched { world, mut image, control, other, implementation, frames, .. } = switched();
        let copy: Address = 0x70_000;
        let spilled = frames[0] - 16;
        for (offset, word) in [(STOP - 8, spilled), (STOP + 8, copy), (STOP + 16, 512)] {
            image.poke(field(implementation, offset), &word.to_ne_bytes()).unwrap();
        }
        let mut bytes = [0; 512];
        bytes[16 + world.layout.frame_code..][..8].copy_from_slice(&0x1238_u64.to_ne_bytes());
        image.insert(copy, &bytes);
        let mut reader = GreenletReader::default();
        let mut reading = reader.reading(&image, &world.layout, INTERPRETER).unwrap().unwrap();
        let moment = reading.moment(THREAD, control).unwrap().unwrap();
        let mut raw = Vec::new();
        assert_eq!(reading.frames(&moment, other, &mut raw), Ok(Doing::Waits));
        assert_eq!(raw.first().map(|raw| (raw.at, raw.code)), Some((frames[0], 0x1238)));
    }

    proptest! {
        #[test]
        fn any_memory_is_survived(
            pokes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0u32..64), 1..9),
        ) {
            let Switched { world, mut image, control, main, other, .. } = switched();
            let mut reader = GreenletReader::default();
            for (index, word, shift) in pokes {
                world.poke(&mut image, &index, word >> shift);
                let Ok(Some(mut reading)) = reader.reading(&image, &world.layout, INTERPRETER) else {
                    continue;
                };
                let Ok(Some(moment)) = reading.moment(THREAD, control) else { continue };
                let _ = reading.is_stack_of(&moment, 0);
                for greenlet in [main, other] {
                    let _ = reading.frames(&moment, greenlet, &mut Vec::new());
                    let _ = reading.name(&moment, greenlet);
                }
            }
        }
    }
}
