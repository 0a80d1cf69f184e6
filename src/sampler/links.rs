//! Which function has been seen to call which, from which instruction, at a moment when that was
//! certain.
//!
//! A stack that was copied while the thread ran may mix two moments: the caller of one, the callee
//! of another. Such a seam shows as a link (caller, instruction, callee) that no certain stack has.
//! A stack all of whose links are known is accepted as it is; the others are looked at again by a
//! method that is certain ([`snapshot`](super::snapshot)). So nothing is ever rejected because the
//! thread moved on, which would be biased against functions that return at once.

use std::collections::{HashMap, HashSet};

use crate::hash::FastHash;
use crate::reader::codes::{CodeId, Located};

/// How many links are remembered before all are forgotten (and learned again).
const MOST_LINKS: usize = 1 << 19;

/// How often an unknown link is looked at with certainty before it is taken for a caller that has
/// moved on since its call.
const DOUBTFUL: u8 = 4;

/// The known links.
#[derive(Debug, Default)]
pub struct KnownLinks {
    /// The instructions, whatever their arguments, at which callers have been seen.
    calling: Opcodes,
    links: HashSet<(u64, u32), FastHash>,
    /// The instructions from which one code object has been seen to call another.
    sites: HashMap<(u32, u32), Vec<i32>, FastHash>,
    /// How often a link was met that is not known, though the two are known to call each other.
    doubtful: HashMap<(u64, u32), u8, FastHash>,
}

impl KnownLinks {
    /// Whether a frame has been seen under its caller; `None` is the root of a stack.
    pub fn has(&self, caller: Option<Located>, callee: CodeId) -> bool {
        self.links.contains(&key(caller, callee))
    }

    /// Remembers every link of a stack that is certain, given root first; its root only if it
    /// `has_root`, and is not the rest of a deeper one. `opcode` tells the instruction at which the
    /// frame at an index of the stack is.
    pub fn learn(
        &mut self,
        stack: &[Located],
        has_root: bool,
        opcode: impl Fn(usize) -> Option<u8>,
    ) {
        if self.links.len() + stack.len() > MOST_LINKS {
            *self = Self::default();
        }
        let mut caller = if has_root { None } else { stack.first().copied() };
        for (index, &frame) in stack.iter().enumerate().skip(usize::from(!has_root)) {
            if self.links.insert(key(caller, frame.code))
                && let Some(caller) = caller
            {
                self.sites.entry((caller.code.0, frame.code.0)).or_default().push(caller.index);
                self.calling.extend(opcode(index - 1));
            }
            caller = Some(frame);
        }
    }

    /// Makes a stack of one moment of one whose callers have moved on since they made their call,
    /// as that call is known from certain stacks. Returns whether all links are known then.
    ///
    /// Between the reading of the top pointer and that of the frames some of them may return.
    /// Their own contents stay, but their callers' instruction is already a later one. Which call
    /// it was follows from the callee: it is the only one that is known to lead there, or of
    /// several the last one that the caller has passed. A caller that has passed none of them is
    /// another call of the same function, in the place of the one before: when it was read it had
    /// called nothing yet, and was the top frame. So it is made that.
    ///
    /// A link that is met for the first times may be a call that is not known yet, if callers are
    /// known to be at such an instruction, as `opcode` tells; only one that no certain look has
    /// confirmed by then is taken for a caller that moved on.
    pub fn mend(&mut self, stack: &mut Vec<Located>, opcode: impl Fn(usize) -> Option<u8>) -> bool {
        if stack.first().is_none_or(|root| !self.has(None, root.code)) {
            return false;
        }
        for index in 1..stack.len() {
            let (caller, callee) = (stack[index - 1], stack[index].code);
            if self.has(Some(caller), callee) {
                continue;
            }
            let Some(sites) = self.sites.get(&(caller.code.0, callee.0)) else { return false };
            // Before its first instruction no frame has called.
            let may_call = caller.index >= 0
                && opcode(index - 1).is_none_or(|opcode| self.calling.has(opcode));
            if may_call {
                if self.doubtful.len() >= MOST_LINKS {
                    self.doubtful.clear();
                }
                let seen = self.doubtful.entry(key(Some(caller), callee)).or_default();
                if *seen < DOUBTFUL {
                    *seen += 1;
                    return false;
                }
            }
            let passed = sites.iter().copied().filter(|&site| site <= caller.index).max();
            match (passed, sites.as_slice()) {
                (Some(site), _) | (None, &[site]) => stack[index - 1].index = site,
                _ => {
                    stack.truncate(index);
                    return true;
                }
            }
        }
        true
    }

    /// Whether all links of a stack, given root first, from frame `from` on are known.
    pub fn know(&self, stack: &[Located], from: usize) -> bool {
        let mut caller = from.checked_sub(1).and_then(|index| stack.get(index)).copied();
        stack.iter().skip(from).all(|&frame| {
            let known = self.has(caller, frame.code);
            caller = Some(frame);
            known
        })
    }
}

/// A set of opcodes.
#[derive(Debug, Default)]
struct Opcodes([u128; 2]);

impl Opcodes {
    fn extend(&mut self, opcode: Option<u8>) {
        if let Some(opcode) = opcode {
            self.0[usize::from(opcode / 128)] |= 1 << (opcode % 128);
        }
    }

    fn has(&self, opcode: u8) -> bool {
        self.0[usize::from(opcode / 128)] & (1 << (opcode % 128)) != 0
    }
}

fn key(caller: Option<Located>, callee: CodeId) -> (u64, u32) {
    let site = caller.map_or(u64::MAX, |caller| {
        (u64::from(caller.code.0) << 32) | u64::from(caller.index as u32)
    });
    (site, callee.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: u8 = 171;

    fn calling(_: usize) -> Option<u8> {
        Some(CALL)
    }

    fn stack(frames: &[(u32, i32)]) -> Vec<Located> {
        frames.iter().map(|&(code, index)| Located { code: CodeId(code), index }).collect()
    }

    #[test]
    fn a_seam_between_two_known_stacks_shows() {
        let mut known = KnownLinks::default();
        known.learn(&stack(&[(0, 5), (1, 3), (2, 9)]), true, |_| Some(CALL));
        known.learn(&stack(&[(0, 7), (3, 3), (4, 1)]), true, |_| Some(CALL));
        assert!(known.know(&stack(&[(0, 5), (1, 3), (2, 11)]), 0));
        assert!(!known.know(&stack(&[(0, 5), (1, 3), (4, 1)]), 0));
        assert!(!known.know(&stack(&[(0, 7), (1, 3), (2, 9)]), 0));
        assert!(!known.know(&stack(&[(1, 3), (2, 9)]), 0));
        assert!(known.know(&stack(&[(1, 3), (2, 9)]), 1));
    }

    #[test]
    fn a_caller_that_moved_on_is_put_back_to_its_call() {
        let mut known = KnownLinks::default();
        known.learn(&stack(&[(0, 5), (1, 3), (2, 9)]), true, |_| Some(CALL));
        known.learn(&stack(&[(0, 5), (1, 7), (2, 9)]), true, |_| Some(CALL));
        let mut moved = stack(&[(0, 6), (1, 8), (2, 9)]);
        let tries = (0..20).take_while(|_| !known.mend(&mut moved.clone(), calling)).count();
        assert_eq!(tries, 2 * usize::from(DOUBTFUL));
        assert!(known.mend(&mut moved, calling));
        assert_eq!(moved, stack(&[(0, 5), (1, 7), (2, 9)]));
        let mut moved = stack(&[(0, 5), (1, 5), (2, 1)]);
        assert!((0..DOUBTFUL).all(|_| !known.mend(&mut moved, calling)));
        assert!(known.mend(&mut moved, calling));
        assert_eq!(moved, stack(&[(0, 5), (1, 3), (2, 1)]));
        // A call that is not known at all; another root.
        for mut lost in [stack(&[(0, 5), (2, 9)]), stack(&[(1, 3), (2, 9)])] {
            assert!((0..2 * DOUBTFUL).all(|_| !known.mend(&mut lost, calling)));
        }
    }

    #[test]
    fn a_caller_where_no_caller_can_be_has_moved_on() {
        let mut known = KnownLinks::default();
        known.learn(&stack(&[(0, 5), (1, 3), (2, 9)]), true, calling);
        let moved = stack(&[(0, 5), (1, 8), (2, 9)]);
        assert!(!known.mend(&mut moved.clone(), calling));
        assert!(!known.mend(&mut moved.clone(), |_| None));
        let mut back = moved;
        assert!(known.mend(&mut back, |_| Some(CALL + 1)));
        assert_eq!(back, stack(&[(0, 5), (1, 3), (2, 9)]));
    }

    #[test]
    fn a_caller_that_was_called_anew_is_the_top() {
        let mut known = KnownLinks::default();
        known.learn(&stack(&[(0, 5), (1, 3), (2, 9)]), true, calling);
        known.learn(&stack(&[(0, 5), (1, 7), (2, 9)]), true, calling);
        let mut anew = stack(&[(0, 5), (1, 2), (2, 1)]);
        assert!(known.mend(&mut anew, |_| Some(CALL + 1)));
        assert_eq!(anew, stack(&[(0, 5), (1, 2)]));
        let mut anew = stack(&[(0, 5), (1, -1), (2, 1)]);
        assert!(known.mend(&mut anew, calling));
        assert_eq!(anew, stack(&[(0, 5), (1, -1)]));
    }
}
