//! What the interpreter's own memory says of the calls between the frames of a stack.
//!
//! Code does not change while the frames that run it do, so what is read here is true whenever it
//! is read.

use super::links::Evidence;
use crate::layout::{CallLayout, CodeIdentity, FunctionVersion, Layout};
use crate::mem::{Address, Memory, field};
use crate::reader::bytecode::{UNIT_BYTES, bytecode_start};
use crate::reader::codes::Proven;
use crate::reader::frame::RawFrame;
use crate::reader::frames::Walker;

/// Largest bytecode that is searched for calls, in code units.
const MOST_UNITS: usize = 1 << 15;

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
        self.byte(frame.instruction)
    }

    fn is_called(&self, callee: usize) -> Option<bool> {
        let caller = self.frame(callee.checked_sub(1)?)?;
        let called = self.walker.called(self.layout, caller)?;
        Some(called == self.function(callee)?)
    }

    fn call_opcode(&self, callee: usize) -> Option<u8> {
        let call = self.layout.call?;
        let caller = self.frame(callee.checked_sub(1)?)?;
        let site = caller.instruction.wrapping_add_signed(call.site.into());
        let version = self.memory.word32(field(site, CallLayout::VERSION)).ok()?;
        if version != self.version(call, callee)? {
            return None;
        }
        self.byte(site)
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

    fn byte(&self, at: Address) -> Option<u8> {
        let mut byte = [0];
        self.memory.read(at, &mut byte).ok()?;
        Some(byte[0])
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
