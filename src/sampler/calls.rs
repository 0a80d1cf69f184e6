//! What the interpreter's own memory says of the calls between the frames of a stack.
//!
//! Code does not change while the frames that run it do, so what is read here is true whenever it
//! is read.

use super::links::Evidence;
use crate::layout::natives::ValueLayout;
use crate::layout::{CallLayout, CodeIdentity, FrameSize, FunctionVersion, Layout, StackTop};
use crate::mem::{Address, Memory, field};
use crate::reader::Torn;
use crate::reader::bytecode::{UNIT_BYTES, bytecode_start, instruction_index};
use crate::reader::codes::Proven;
use crate::reader::frame::RawFrame;
use crate::reader::frames::Walker;
use crate::reader::sites::{self, Site};

/// Largest bytecode that is searched for calls, in code units.
const MOST_UNITS: usize = 1 << 15;
/// Largest bytecode and largest table of handlers in which the value stack is followed, in bytes.
const MOST_BYTECODE: usize = 1 << 17;
const MOST_HANDLERS: u64 = 1 << 16;

/// The frames of a stack, as they were read.
pub struct Frames<'a, M> {
    /// Where they are.
    pub memory: &'a M,
    /// What they look like.
    pub layout: &'a Layout,
    /// Has walked them last.
    pub walker: &'a Walker,
    /// Newest first.
    pub raw: &'a [RawFrame],
    /// Their code, root first.
    pub bodies: &'a [Body],
}

/// Where a frame's code object is.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// The code object.
    pub code: Address,
    /// How many units of bytecode it has.
    pub units: u32,
    /// How long its frames are in the data stack, if they lie there, in bytes.
    pub frame_bytes: Option<u32>,
}

impl Body {
    /// That of a code object at an address.
    pub fn new(code: Address, proven: Proven) -> Self {
        let Proven { units, frame_bytes, .. } = proven;
        Self { code, units, frame_bytes }
    }
}

impl<M: Memory> Evidence for Frames<'_, M> {
    fn opcode(&self, frame: usize) -> Option<u8> {
        let frame = self.frame(frame).filter(|_| self.layout.has_data_stack())?;
        self.memory.byte(frame.instruction).ok()
    }

    fn is_called(&self, callee: usize) -> Option<bool> {
        let caller = self.frame(callee.checked_sub(1)?)?;
        let called = self.walker.called(self.layout, caller)?;
        Some(called == self.function(callee)?)
    }

    fn is_call_stored(&self, callee: usize) -> bool {
        let place = callee.checked_sub(1);
        let caller = place.and_then(|caller| Some((self.frame(caller)?, self.bodies.get(caller)?)));
        caller.is_some_and(|(frame, &body)| {
            ends_at_call(self.memory, self.layout, self.walker, frame, body)
        })
    }

    fn call_opcode(&self, callee: usize) -> Option<u8> {
        let call = self.layout.call?;
        let caller = self.frame(callee.checked_sub(1)?)?;
        let site = caller.instruction.wrapping_add_signed(call.site.into());
        let version = self.memory.word32(field(site, CallLayout::VERSION)).ok()?;
        if version != self.version(call, callee)? {
            return None;
        }
        self.memory.byte(site).ok()
    }

    fn call_sites(&self, callee: usize, mut found: impl FnMut(u8, i32)) -> Option<()> {
        let call = self.layout.call?;
        let version = self.version(call, callee)?;
        let caller = callee.checked_sub(1)?;
        let Body { code, units, .. } = *self.bodies.get(caller)?;
        let copy = self.frame(caller)?.bytecode;
        let start = bytecode_start(self.memory, self.layout, code, copy).ok()?;
        let mut bytecode = vec![0; (units as usize).min(MOST_UNITS) * UNIT_BYTES as usize];
        self.memory.read(start, &mut bytecode).ok()?;
        let length = CallLayout::VERSION + size_of_val(&version);
        let behind = -i32::from(call.site) / UNIT_BYTES as i32;
        for (site, code) in bytecode.windows(length).step_by(UNIT_BYTES as usize).enumerate() {
            if code[CallLayout::VERSION..] == version.to_ne_bytes() {
                found(code[0], site as i32 + behind);
            }
        }
        Some(())
    }
}

impl<M: Memory> Frames<'_, M> {
    /// A frame by its place from the root.
    fn frame(&self, index: usize) -> Option<&RawFrame> {
        self.raw.iter().rev().nth(index)
    }

    fn function(&self, frame: usize) -> Option<Address> {
        let code = self.bodies.get(frame)?.code;
        function_of(self.memory, self.layout, self.walker, self.frame(frame)?, code)
    }

    /// The version of the function that a frame runs, by which calls know it.
    fn version(&self, call: CallLayout, frame: usize) -> Option<u32> {
        let version = match (call.version, self.layout.code_identity) {
            (FunctionVersion::OfFunction { version }, _) => {
                self.memory.word32(field(self.function(frame)?, version))
            }
            (FunctionVersion::OfCode, CodeIdentity::Version(offset)) => {
                self.memory.word32(field(self.bodies.get(frame)?.code, offset))
            }
            (FunctionVersion::OfCode, CodeIdentity::Contents) => return None,
        };
        version.ok().filter(|&version| version != 0)
    }
}

/// The function that a frame of a walk runs, if that is one of this code. Its address may have been read a moment before
/// or after that of the code.
pub fn function_of(
    memory: &impl Memory,
    layout: &Layout,
    walker: &Walker,
    frame: &RawFrame,
    code: Address,
) -> Option<Address> {
    let function = walker.function(layout, frame)?;
    let its_code = memory.word(field(function, layout.call?.function_code));
    (its_code == Ok(code)).then_some(function)
}

/// Whether a frame's value stack ends where it does while its instruction calls a Python function. From 3.14 on it is
/// where it ended last, until the call stores it: what lies there before may be one of the call's arguments.
pub fn ends_at_call(
    memory: &impl Memory,
    layout: &Layout,
    walker: &Walker,
    frame: &RawFrame,
    body: Body,
) -> bool {
    let Some(CallLayout { stack_top: StackTop::Pointer { at }, .. }) = layout.call else {
        return true;
    };
    let is_there = || {
        let frame = &RawFrame { code: body.code, ..*frame };
        let values = layout.natives.values?;
        let index = instruction_index(memory, layout, frame).ok()?;
        let (start, sites) = read_sites(memory, layout, &values, frame, body).ok()?;
        let place = sites.binary_search_by_key(&index, |site| site.index.into()).ok()?;
        let Site { depth, action, .. } = sites[place];
        let left = depth.checked_sub(action.taken_by_call()?)?;
        let end = field(field(frame.at, start), 8 * left as usize);
        Some(walker.steady(layout, frame, field(frame.at, at)) == Some(end))
    };
    is_there().unwrap_or(false)
}

/// Reads where a code object may call others, and where its frames' value stacks begin. There are no
/// such places in code that is not understood.
pub fn read_sites(
    memory: &impl Memory,
    layout: &Layout,
    values: &ValueLayout,
    frame: &RawFrame,
    Body { code, units, .. }: Body,
) -> Result<(usize, Box<[Site]>), Torn> {
    const MOST_WORDS: u32 = 1 << 20;
    let FrameSize { frame_locals, code_locals, code_stack_size } = layout.frame_size.ok_or(Torn)?;
    let locals = memory.word32(field(code, code_locals))?;
    let size = memory.word32(field(code, code_stack_size))?;
    let table = memory.word(field(code, values.code_handlers))?;
    let length = memory.word(field(table, layout.bytes_size))?;
    let bytes = units as usize * UNIT_BYTES as usize;
    if locals > MOST_WORDS || bytes > MOST_BYTECODE || length > MOST_HANDLERS {
        return Err(Torn);
    }
    let mut bytecode = vec![0; bytes];
    memory.read(bytecode_start(memory, layout, code, frame.bytecode)?, &mut bytecode)?;
    let mut handlers = vec![0; length as usize];
    memory.read(field(table, layout.bytes_data), &mut handlers)?;
    let mut sites = sites::sites(values.bytecode, &bytecode, &handlers).unwrap_or_default();
    // A stack that is deeper than it can be was not understood.
    if sites.iter().any(|site| site.depth > size) {
        sites.clear();
    }
    Ok((frame_locals + 8 * locals as usize, sites.into()))
}
