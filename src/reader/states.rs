//! What a thread is doing besides running a frame: collecting garbage, waiting for the GIL, handling
//! an exception.

use crate::layout::detect::Build;
use crate::layout::states::{
    GENERATION_BYTES, HOLDER_BEFORE_CONDITION, Place, SWITCH_CONDITION, SWITCHES_BEFORE_CONDITION,
    THRESHOLD_BEFORE_COUNT, Waiting,
};
use crate::mem::{Address, Fault, Memory, field};
use crate::reader::threads::Head;

/// The interpreter of a thread.
pub fn interpreter(memory: &impl Memory, build: &Build, thread: Address) -> Result<Address, Fault> {
    memory.word(field(thread, build.layout.thread_interpreter))
}

/// A garbage collection that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collection {
    /// The oldest generation that is collected, 0 to 2, where that can be told.
    pub generation: Option<u8>,
}

/// What an interpreter is collecting, if it does.
pub fn collection(memory: &impl Memory, build: &Build, interpreter: Address) -> Option<Collection> {
    let at = collecting_at(memory, build, interpreter).ok()?;
    if memory.word32(at).ok()? == 0 {
        return None;
    }
    Some(Collection { generation: generation(memory, build, at) })
}

/// A collection begins with setting the counts of its generations to 0, and with counting one more of
/// the next older one (`gc_collect_main` in `Modules/gcmodule.c`, from 3.13 on `Python/gc.c`).
fn generation(memory: &impl Memory, build: &Build, collecting_at: Address) -> Option<u8> {
    let middle = collecting_at.checked_sub(build.layout.states.gc_counts? as u64)?;
    let oldest = field(middle, GENERATION_BYTES);
    // The collector that some releases of 3.14 have counts otherwise: it goes by steps, and its oldest
    // generation has no threshold.
    let is_by_steps = (build.version.major, build.version.minor) == (3, 14)
        && memory.word32(oldest.checked_sub(THRESHOLD_BEFORE_COUNT as u64)?).ok()? == 0;
    if is_by_steps {
        return None;
    }
    Some(match [memory.word32(middle).ok()?, memory.word32(oldest).ok()?] {
        [0, 0] => 2,
        [0, _] => 1,
        _ => 0,
    })
}

/// Where an interpreter says whether it is collecting garbage: a 32-bit number.
pub fn collecting_at(
    memory: &impl Memory,
    build: &Build,
    interpreter: Address,
) -> Result<Address, Fault> {
    at(memory, build, interpreter, build.layout.states.gc_collecting)
}

/// The GIL of an interpreter, and how many threads wait for it; `None` where there is none. A
/// condition variable has the number of those that wait on it at `waiters_at`.
pub fn waiters(
    memory: &impl Memory,
    build: &Build,
    interpreter: Address,
    waiters_at: usize,
) -> Result<Option<(Address, u32)>, Fault> {
    let Waiting::Counted { gil, condition, .. } = build.layout.states.waiting else {
        return Ok(None);
    };
    let gil = at(memory, build, interpreter, gil)?;
    let count = |condition| {
        let references = memory.word32(field(gil, condition + waiters_at))?;
        Ok(references >> 3)
    };
    Ok(Some((gil, count(condition)? + count(condition + SWITCH_CONDITION)?)))
}

/// Who has, or had last, the GIL of an interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gil {
    /// Where it is: interpreters may share one.
    pub at: Address,
    /// The thread's state.
    pub holder: Address,
    /// How often another thread has taken it than the one that had it before.
    pub switches: u64,
}

/// The GIL of an interpreter; `None` in a build without.
pub fn gil(
    memory: &impl Memory,
    build: &Build,
    interpreter: Address,
) -> Result<Option<Gil>, Fault> {
    let Waiting::Counted { gil, condition, .. } = build.layout.states.waiting else {
        return Ok(None);
    };
    let at = at(memory, build, interpreter, gil)?;
    let condition = field(at, condition);
    let word = |before: usize| memory.word(condition.wrapping_sub(before as u64));
    let switches = word(SWITCHES_BEFORE_CONDITION)?;
    Ok(Some(Gil { at, holder: word(HOLDER_BEFORE_CONDITION)?, switches }))
}

/// Whether a thread says that it waits for the GIL, or in a build without one, for leave to go on.
pub fn says_it_waits(memory: &impl Memory, build: &Build, thread: Address) -> bool {
    /// `_Py_THREAD_SUSPENDED` (`internal/pycore_pystate.h`, 3.13 on).
    const SUSPENDED: u32 = 2;
    match build.layout.states.waiting {
        Waiting::Counted { said: None, .. } => false,
        Waiting::Counted { said: Some(offset), .. } => {
            memory.word32(field(thread, offset)).is_ok_and(|is| is != 0)
        }
        Waiting::Suspended(offset) => memory.word32(field(thread, offset)) == Ok(SUSPENDED),
    }
}

fn at(
    memory: &impl Memory,
    build: &Build,
    interpreter: Address,
    place: Place,
) -> Result<Address, Fault> {
    match place {
        Place::Runtime(offset) => Ok(field(build.runtime, offset)),
        Place::Interpreter(offset) => Ok(field(interpreter, offset)),
        Place::Behind(offset) => memory.word(field(interpreter, offset)),
    }
}

/// Tells whether threads handle exceptions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exceptions {
    /// Where `None` is, once it is known: it stands where an exception was handled before.
    none: Address,
}

impl Exceptions {
    /// Whether a thread is raising or handling an exception.
    pub fn has_any(&mut self, memory: &impl Memory, build: &Build, thread: &Head<'_>) -> bool {
        /// Generators that resume each other inside handlers; nobody nests as many.
        const MOST_ITEMS: usize = 64;
        let states = &build.layout.states;
        if thread.raised() != 0 {
            return true;
        }
        let mut next = thread.handled();
        for _ in 0..MOST_ITEMS {
            if next == 0 {
                break;
            }
            let Ok(value) = memory.word(field(next, states.item_value)) else { break };
            if value != 0 && !self.is_none(memory, build, value) {
                return true;
            }
            next = memory.word(field(next, states.item_previous)).unwrap_or(0);
        }
        false
    }

    fn is_none(&mut self, memory: &impl Memory, build: &Build, object: Address) -> bool {
        const NAME: &[u8; 9] = b"NoneType\0";
        if object == self.none {
            return true;
        }
        let layout = &build.layout;
        let mut name = [0; NAME.len()];
        let is_none = memory
            .word(field(object, layout.object_type))
            .and_then(|kind| memory.word(field(kind, layout.type_name)))
            .and_then(|at| memory.read(at, &mut name))
            .is_ok()
            && &name == NAME;
        if is_none {
            self.none = object;
        }
        is_none
    }
}
