//! Bytecode: where a frame is in it, and which instruction is there.

use super::Torn;
use super::frame::RawFrame;
use crate::layout::detect::Build;
use crate::layout::opcodes::Opcode;
use crate::layout::{Instruction, Layout, Version};
use crate::mem::{Address, Memory, field};

/// A code unit: opcode and argument.
pub const UNIT_BYTES: u64 = 2;
/// Largest bytecode that is searched for where its instructions begin, in code units.
const MOST_UNITS: u32 = 1 << 20;
/// Most `EXTENDED_ARG` before an instruction (`Python/compile.c`).
const MOST_PREFIXES: u32 = 3;

/// A frame's instruction in code units from the start of its bytecode.
pub fn instruction_index(
    memory: &impl Memory,
    layout: &Layout,
    frame: &RawFrame,
) -> Result<i64, Torn> {
    // `f_lasti` is an int.
    let last = i64::from(frame.instruction as u32 as i32);
    match layout.instruction {
        Instruction::ByteOffset => Ok(last.div_euclid(UNIT_BYTES as i64)),
        Instruction::UnitIndex => Ok(last),
        Instruction::Pointer => {
            let start = bytecode_start(memory, layout, frame.code, frame.bytecode)?;
            let distance = frame.instruction.wrapping_sub(start) as i64;
            Ok(distance.div_euclid(UNIT_BYTES as i64))
        }
    }
}

/// Where the bytecode of a code object begins, or the copy of it that a thread runs:
/// `co_tlbc->entries[copy]`; `_PyCodeArray` is a count and then pointers (`cpython/code.h`, 3.14
/// on).
pub fn bytecode_start(
    memory: &impl Memory,
    layout: &Layout,
    code: Address,
    copy: u32,
) -> Result<Address, Torn> {
    if layout.instruction != Instruction::Pointer {
        let bytecode = memory.word(field(code, layout.code_instructions))?;
        return Ok(field(bytecode, layout.bytes_data));
    }
    let (Some(offset), 1..) = (layout.code_thread_bytecodes, copy) else {
        return Ok(field(code, layout.code_instructions));
    };
    let array = memory.word(field(code, offset))?;
    if u64::from(copy) >= memory.word(array)? {
        return Err(Torn);
    }
    Ok(memory.word(field(array, 8 + 8 * copy as usize))?)
}

/// What a frame is at; `None` if that cannot be read, or if it has not begun.
pub fn opcode_of(memory: &impl Memory, build: &Build, frame: &RawFrame) -> Option<Opcode> {
    let layout = &build.layout;
    let at = match layout.instruction {
        Instruction::Pointer => frame.instruction,
        Instruction::ByteOffset | Instruction::UnitIndex => {
            let index = u64::try_from(instruction_index(memory, layout, frame).ok()?).ok()?;
            let start = bytecode_start(memory, layout, frame.code, frame.bytecode).ok()?;
            start.wrapping_add(index * UNIT_BYTES)
        }
    };
    Opcode::new(build.version, memory.byte(at).ok()?)
}

/// A stretch of bytecode in memory.
#[derive(Clone, Copy, Debug)]
pub struct Bytecode {
    /// Whose it is.
    pub version: Version,
    /// The code object.
    pub code: Address,
    /// Where it begins.
    pub start: Address,
    /// How many units it has.
    pub units: u32,
}

impl Bytecode {
    /// The instruction at a unit where one begins, past what only widens its argument: until 3.10 a
    /// frame stays there while the instruction is executed.
    pub fn opcode(&self, memory: &impl Memory, index: u32) -> Option<Opcode> {
        let mut units = [[0; UNIT_BYTES as usize]; 1 + MOST_PREFIXES as usize];
        let left = self.units.checked_sub(index)?.min(MOST_PREFIXES + 1);
        let units = &mut units[..left as usize];
        memory.read(self.at(index), units.as_flattened_mut()).ok()?;
        let opcodes = units.iter().map(|&[number, _]| Opcode::new(self.version, number));
        opcodes.flatten().find(|opcode| !opcode.is_prefix())
    }

    /// For each unit, how many units before it its instruction begins, in versions whose frames may
    /// [stand in a cache](Layout::stands_in_caches). `None` if these are not whole instructions.
    pub fn steps_back(&self, memory: &impl Memory, layout: &Layout) -> Option<Box<[u8]>> {
        if self.units > MOST_UNITS {
            return None;
        }
        let mut bytes = vec![0; self.units as usize * UNIT_BYTES as usize];
        memory.read(self.start, &mut bytes).ok()?;
        let mut steps = vec![0; self.units as usize];
        let mut at = 0;
        while at < steps.len() {
            let mut opcode = Opcode::new(self.version, bytes[at * UNIT_BYTES as usize])?;
            if opcode.is_cover() {
                opcode = self.covered(memory, layout, at)?;
            }
            let caches = opcode.cache_units();
            let cache = steps.get_mut(at..=at + caches)?;
            cache.iter_mut().zip(0..).for_each(|(step, back)| *step = back);
            at += 1 + caches;
        }
        Some(steps.into_boxed_slice())
    }

    /// The instruction that line or instruction events of 3.12 have taken the place of.
    fn covered(&self, memory: &impl Memory, layout: &Layout, index: usize) -> Option<Opcode> {
        let covers = layout.code_covers?;
        let data = memory.word(field(self.code, covers.monitoring)).ok()?;
        let original = |table: usize, entry_bytes: usize| {
            let entries = memory.word(field(data, table)).ok().filter(|&entries| entries != 0)?;
            let number = memory.byte(field(entries, entry_bytes * index)).ok()?;
            // No instruction has the opcode of a cache.
            Opcode::new(self.version, number).filter(|_| number != 0)
        };
        let under_line = original(covers.lines, covers.line_bytes).filter(|op| !op.is_cover());
        under_line.or_else(|| original(covers.instructions, 1)).filter(|opcode| !opcode.is_cover())
    }

    fn at(&self, index: u32) -> Address {
        self.start.wrapping_add(u64::from(index) * UNIT_BYTES)
    }
}
