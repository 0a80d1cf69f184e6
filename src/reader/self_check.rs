//! The proof, at start, that the layout fits this interpreter: known things are read and compared
//! with what is known of them from elsewhere.

use super::Torn;
use super::codes::CodeTable;
use super::frame::RawFrame;
use super::frames::Walker;
use super::strings;
use super::threads::{self, PthreadTid, ThreadState};
use crate::layout::detect::Build;
use crate::layout::{CodeIdentity, Layout};
use crate::mem::{Address, Memory, field};

/// What the check learned.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// Address of `PyCode_Type`.
    pub code_type: Address,
}

/// What is known of the process without reading the interpreter.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Kernel id of the main thread: the process's id.
    pub main_tid: u32,
    /// Address of `PyCode_Type`, where it is exported.
    pub code_type: Option<Address>,
    /// Where the C library keeps a thread's tid.
    pub pthread_tid: Option<PthreadTid>,
}

/// Where the layout and the truth disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// No interpreter has a thread yet that runs Python code: not a disagreement, but too early.
    #[error("no thread runs Python code yet")]
    NotYet,
    /// The thread list cannot be followed.
    #[error("its list of threads cannot be followed")]
    Threads,
    /// The frames of a thread cannot be followed.
    #[error("the frames of its threads cannot be followed")]
    Frames,
    /// A frame does not lead to a code object.
    #[error("its frames do not lead to code objects")]
    Code,
    /// The code object's name or file name is no text.
    #[error("the names of its code objects cannot be read")]
    Names,
}

/// Reads the threads, the frames of the first that has any, its oldest code object, that object's
/// type and names, and compares them with what is known.
pub fn check(memory: &impl Memory, build: &Build, known: &Known) -> Result<Checked, Disagreement> {
    let layout = &build.layout;
    let mut interpreters = Vec::new();
    threads::interpreters(memory, build, &mut interpreters)
        .map_err(|Torn| Disagreement::Threads)?;
    let main = *interpreters.last().ok_or(Disagreement::NotYet)?;
    let mut states = Vec::new();
    threads::threads(memory, layout, known.pthread_tid, main, &mut states)
        .map_err(|Torn| Disagreement::Threads)?;
    // The thread that initialised Python is nearly always the main thread, but an embedding
    // program may use another: any thread of this process will do as the known one.
    let state = known_thread(&states, known.main_tid).ok_or(Disagreement::NotYet)?;
    let mut frames: Vec<RawFrame> = Vec::new();
    Walker::default()
        .walk(memory, layout, state.at, &mut frames)
        .map_err(|Torn| Disagreement::Frames)?;
    // The oldest frame is the one that stays.
    let oldest = frames.last().ok_or(Disagreement::NotYet)?;
    let code_type =
        memory.word(field(oldest.code, layout.object_type)).map_err(|_| Disagreement::Code)?;
    if known.code_type.is_some_and(|truth| truth != code_type)
        || !is_code_type(memory, layout, code_type)
    {
        return Err(Disagreement::Code);
    }
    let mut codes = CodeTable::new(layout.clone(), code_type);
    let proven = codes.resolve(memory, oldest.code).map_err(|Torn| Disagreement::Names)?;
    let code = codes.code(proven.id).ok_or(Disagreement::Names)?;
    // The same name read in two ways: as the qualified name and as the plain one.
    let plain = memory
        .word(field(oldest.code, layout.code_name))
        .and_then(|name| strings::text(memory, layout, name))
        .map_err(|_| Disagreement::Names)?;
    let is_text = |text: &str| !text.is_empty() && !text.contains('\0');
    if !is_text(&code.file) || !is_text(&plain) || !code.name.ends_with(&*plain) {
        return Err(Disagreement::Names);
    }
    if let CodeIdentity::Version(offset) = layout.code_identity {
        // A version is a small counter; flags or pointers are not.
        let version = memory.word32(field(oldest.code, offset)).map_err(|_| Disagreement::Code)?;
        if version > 1 << 30 {
            return Err(Disagreement::Code);
        }
    }
    Ok(Checked { code_type })
}

fn known_thread(states: &[ThreadState], main_tid: u32) -> Option<ThreadState> {
    let oldest = states.last().copied();
    states.iter().copied().find(|state| state.tid == main_tid).or(oldest)
}

/// Whether a type is that of code objects, by its name.
pub fn is_code_type(memory: &impl Memory, layout: &Layout, at: Address) -> bool {
    type_name(memory, layout.type_name, at) == Ok(*b"code\0")
}

fn type_name(memory: &impl Memory, offset: usize, at: Address) -> Result<[u8; 5], Torn> {
    let name = memory.word(field(at, offset))?;
    let mut bytes = [0; 5];
    memory.read(name, &mut bytes)?;
    Ok(bytes)
}
