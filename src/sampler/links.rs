//! Which function has been seen to call which, from which instruction, at a moment when that was
//! certain.
//!
//! A stack that was copied while the thread ran may mix two moments: the caller of one, the callee
//! of another. Such a seam shows as a link (caller, instruction, callee) that no certain stack has.
//! A stack all of whose links are known is accepted as it is; the others are looked at again by a
//! method that is certain ([`snapshot`](super::snapshot)). So nothing is ever rejected because the
//! thread moved on, which would be biased against functions that return at once.

use std::collections::HashSet;

use crate::hash::FastHash;
use crate::reader::codes::{CodeId, Located};

/// How many links are remembered before all are forgotten (and learned again).
const MOST_LINKS: usize = 1 << 19;

/// The known links.
#[derive(Debug, Default)]
pub struct KnownLinks {
    links: HashSet<(u64, u32), FastHash>,
}

impl KnownLinks {
    /// Whether a frame has been seen under its caller; `None` is the root of a stack.
    pub fn has(&self, caller: Option<Located>, callee: CodeId) -> bool {
        self.links.contains(&key(caller, callee))
    }

    /// Remembers every link of a stack that is certain, given root first.
    pub fn learn(&mut self, stack: &[Located]) {
        if self.links.len() + stack.len() > MOST_LINKS {
            self.links.clear();
        }
        let mut caller = None;
        for &frame in stack {
            self.links.insert(key(caller, frame.code));
            caller = Some(frame);
        }
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

fn key(caller: Option<Located>, callee: CodeId) -> (u64, u32) {
    let site = caller.map_or(u64::MAX, |caller| {
        (u64::from(caller.code.0) << 32) | u64::from(caller.index as u32)
    });
    (site, callee.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(frames: &[(u32, i32)]) -> Vec<Located> {
        frames.iter().map(|&(code, index)| Located { code: CodeId(code), index }).collect()
    }

    #[test]
    fn a_seam_between_two_known_stacks_shows() {
        let mut known = KnownLinks::default();
        known.learn(&stack(&[(0, 5), (1, 3), (2, 9)]));
        known.learn(&stack(&[(0, 7), (3, 3), (4, 1)]));
        assert!(known.know(&stack(&[(0, 5), (1, 3), (2, 11)]), 0));
        assert!(!known.know(&stack(&[(0, 5), (1, 3), (4, 1)]), 0));
        assert!(!known.know(&stack(&[(0, 7), (1, 3), (2, 9)]), 0));
        assert!(!known.know(&stack(&[(1, 3), (2, 9)]), 0));
        assert!(known.know(&stack(&[(1, 3), (2, 9)]), 1));
    }
}
