//! Where in a code object C code may be called, and how deep the value stack is there.
//!
//! The depth follows from the code alone: every path to an instruction leads to it with the same one.

use crate::layout::bytecode::Bytecode;
use crate::reader::bytecode::UNIT_BYTES;

/// What an instruction does that may call C code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A call with so many arguments.
    Call(u32),
    /// A call with so many arguments, some of which are named: 3.13 on.
    CallNamed(u32),
    /// A call with a tuple of arguments, and whether there are named ones.
    CallSpread(bool),
    /// Takes the next item of an iterator.
    Iterate,
    /// An operator between two operands, by its number.
    Operate(u32),
    /// A comparison, by its number.
    Compare(u32),
    /// Looks for an item in a container.
    Contain,
}

impl Action {
    /// How many values a call takes from the stack; `None` for what is no call.
    pub fn taken_by_call(self) -> Option<u32> {
        match self {
            Self::Call(count) => Some(2 + count),
            Self::CallNamed(count) => Some(3 + count),
            Self::CallSpread(has_named) => Some(3 + u32::from(has_named)),
            _ => None,
        }
    }
}

/// A place in a code object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// The instruction, in code units.
    pub index: u32,
    /// How many values are on the stack when it begins.
    pub depth: u32,
    /// What it does.
    pub action: Action,
}

/// Nobody has as many values on the stack.
const MOST_DEPTH: i32 = 1 << 20;

/// The places of a code object in order; `None` if its code is not understood: somebody
/// instruments it, or it is none. `handlers` is its table of exception handlers.
pub fn sites(bytecode: &Bytecode, code: &[u8], handlers: &[u8]) -> Option<Vec<Site>> {
    let mut walk = Walk {
        bytecode,
        code,
        depths: vec![None; code.len() / UNIT_BYTES as usize],
        pending: vec![(0, 0)],
        sites: Vec::new(),
    };
    let mut table = handlers;
    while !table.is_empty() {
        let [_start, _size, target] =
            [varint(&mut table)?, varint(&mut table)?, varint(&mut table)?];
        let depth_and_lasti = varint(&mut table)?;
        // The exception lies on top, and below it, if it is wanted, where it was raised.
        let depth = (depth_and_lasti >> 1) + (depth_and_lasti & 1) + 1;
        walk.pending.push((target as usize, i32::try_from(depth).ok()?));
    }
    while let Some((index, depth)) = walk.pending.pop() {
        walk.follow(index, depth)?;
    }
    walk.sites.sort_unstable_by_key(|site| site.index);
    Some(walk.sites)
}

struct Walk<'a> {
    bytecode: &'a Bytecode,
    code: &'a [u8],
    /// At each instruction that was met.
    depths: Vec<Option<i32>>,
    pending: Vec<(usize, i32)>,
    sites: Vec<Site>,
}

impl Walk<'_> {
    /// Follows the code from an instruction to where it ends or was met before.
    fn follow(&mut self, from: usize, depth: i32) -> Option<()> {
        let Bytecode { base, caches, jumps, ends, extended, .. } = self.bytecode;
        let (mut index, mut depth, mut above) = (from, depth, 0_u32);
        loop {
            let met = self.depths.get_mut(index)?;
            match *met {
                Some(before) => return (before == depth).then_some(()),
                None => *met = Some(depth),
            }
            let at = index * UNIT_BYTES as usize;
            let opcode = base[usize::from(*self.code.get(at)?)];
            let argument = above << 8 | u32::from(*self.code.get(at + 1)?);
            let next = index + 1 + usize::from(caches[usize::from(opcode)]);
            if opcode == *extended {
                above = argument;
                index = next;
                continue;
            }
            above = 0;
            self.note(index, depth, opcode, argument);
            let effect = self.bytecode.effect(opcode, argument)?;
            depth = depth.checked_add(effect).filter(|depth| (0..MOST_DEPTH).contains(depth))?;
            let distance = usize::try_from(argument).ok()?;
            if opcode == jumps.forward {
                index = next.checked_add(distance)?;
            } else if jumps.backward.contains(&opcode) {
                index = next.checked_sub(distance)?;
            } else if ends.contains(&opcode) {
                return Some(());
            } else {
                if jumps.perhaps.contains(&opcode) {
                    self.pending.push((next.checked_add(distance)?, depth));
                }
                index = next;
            }
        }
    }

    fn note(&mut self, index: usize, depth: i32, opcode: u8, argument: u32) {
        let sites = &self.bytecode.sites;
        let action = if opcode == sites.call {
            Action::Call(argument)
        } else if Some(opcode) == sites.call_kw {
            Action::CallNamed(argument)
        } else if opcode == sites.call_ex {
            Action::CallSpread(self.bytecode.ex_has_both || argument & 1 == 1)
        } else if opcode == sites.for_iter {
            Action::Iterate
        } else if opcode == sites.binary {
            Action::Operate(argument)
        } else if opcode == sites.compare {
            Action::Compare(argument >> self.bytecode.compare_shift)
        } else if opcode == sites.contains {
            Action::Contain
        } else {
            return;
        };
        self.sites.push(Site { index: index as u32, depth: depth as u32, action });
    }
}

/// A number of six bits a byte, the highest first (`Objects/exception_handling_notes.txt`).
fn varint(table: &mut &[u8]) -> Option<u32> {
    const MORE: u8 = 64;
    let mut value = 0_u32;
    loop {
        let (&byte, rest) = table.split_first()?;
        *table = rest;
        value = value.checked_mul(64)? | u32::from(byte & 63);
        if byte & MORE == 0 {
            return Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::bytecode::tables;

    #[test]
    fn depths_follow_from_the_code() {
        // RESUME; LOAD_GLOBAL sorted, with NULL; LOAD_FAST; CALL 1; RETURN_VALUE: 3.12
        let mut code = vec![151, 0, 116, 1];
        code.extend([0; 8]);
        code.extend([124, 0, 171, 1, 0, 0, 0, 0, 0, 0, 83, 0]);
        let found = sites(&tables::V3_12, &code, &[]);
        let call = Site { index: 7, depth: 3, action: Action::Call(1) };
        assert_eq!(found, Some(vec![call]));
        // Specialised for a built-in function that takes one argument.
        code[14] = 45;
        assert_eq!(tables::V3_12.base[45], 171);
        assert_eq!(sites(&tables::V3_12, &code, &[]), Some(vec![call]));
        // What is no code is not understood.
        assert_eq!(sites(&tables::V3_12, &code[..10], &[]), None);
        assert_eq!(sites(&tables::V3_12, &[255; 4], &[]), None);
        assert_eq!(sites(&tables::V3_12, &code, &[0x80]), None);
    }
}
