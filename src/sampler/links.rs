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
    /// `has_root`, and is not the rest of a deeper one.
    pub fn learn(&mut self, stack: &[Located], has_root: bool) {
        if self.links.len() + stack.len() > MOST_LINKS {
            self.links.clear();
            self.sites.clear();
            self.doubtful.clear();
        }
        let mut caller = if has_root { None } else { stack.first().copied() };
        for &frame in stack.iter().skip(usize::from(!has_root)) {
            if self.links.insert(key(caller, frame.code))
                && let Some(caller) = caller
            {
                self.sites.entry((caller.code.0, frame.code.0)).or_default().push(caller.index);
            }
            caller = Some(frame);
        }
    }

    /// Puts callers that have moved on since they made their call back to that call, as it is known
    /// from certain stacks. Returns whether all links of the stack are known then.
    ///
    /// Between the reading of the top pointer and that of the frames some of them may return.
    /// Their own contents stay, but their callers' instruction is already a later one. Which call
    /// it was follows from the callee: it is the only one that is known to lead there, or of
    /// several the last one that the caller has passed.
    ///
    /// A link that is met for the first times may be a call that is not known yet; only one that
    /// no certain look has confirmed by then is taken for a caller that moved on.
    pub fn put_back(&mut self, stack: &mut [Located]) -> bool {
        if stack.first().is_none_or(|root| !self.has(None, root.code)) {
            return false;
        }
        for index in 1..stack.len() {
            let (caller, callee) = (stack[index - 1], stack[index].code);
            if self.has(Some(caller), callee) {
                continue;
            }
            if self.doubtful.len() >= MOST_LINKS {
                self.doubtful.clear();
            }
            let seen = self.doubtful.entry(key(Some(caller), callee)).or_default();
            if *seen < DOUBTFUL {
                *seen += 1;
                return false;
            }
            let Some(sites) = self.sites.get(&(caller.code.0, callee.0)) else { return false };
            let passed = sites.iter().copied().filter(|&site| site <= caller.index).max();
            let site = match (passed, sites.as_slice()) {
                (Some(site), _) | (None, &[site]) => site,
                _ => return false,
            };
            stack[index - 1].index = site;
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
        known.learn(&stack(&[(0, 5), (1, 3), (2, 9)]), true);
        known.learn(&stack(&[(0, 7), (3, 3), (4, 1)]), true);
        assert!(known.know(&stack(&[(0, 5), (1, 3), (2, 11)]), 0));
        assert!(!known.know(&stack(&[(0, 5), (1, 3), (4, 1)]), 0));
        assert!(!known.know(&stack(&[(0, 7), (1, 3), (2, 9)]), 0));
        assert!(!known.know(&stack(&[(1, 3), (2, 9)]), 0));
        assert!(known.know(&stack(&[(1, 3), (2, 9)]), 1));
    }

    #[test]
    fn a_caller_that_moved_on_is_put_back_to_its_call() {
        let mut known = KnownLinks::default();
        known.learn(&stack(&[(0, 5), (1, 3), (2, 9)]), true);
        known.learn(&stack(&[(0, 5), (1, 7), (2, 9)]), true);
        let mut moved = stack(&[(0, 6), (1, 8), (2, 9)]);
        let tries = (0..20).take_while(|_| !known.put_back(&mut moved.clone())).count();
        assert_eq!(tries, 2 * usize::from(DOUBTFUL));
        assert!(known.put_back(&mut moved));
        assert_eq!(moved, stack(&[(0, 5), (1, 7), (2, 9)]));
        let mut moved = stack(&[(0, 5), (1, 5), (2, 1)]);
        assert!((0..DOUBTFUL).all(|_| !known.put_back(&mut moved)));
        assert!(known.put_back(&mut moved));
        assert_eq!(moved, stack(&[(0, 5), (1, 3), (2, 1)]));
        // Two calls, neither passed; a call that is not known at all; another root.
        for mut lost in
            [stack(&[(0, 5), (1, 0), (2, 1)]), stack(&[(0, 5), (2, 9)]), stack(&[(1, 3), (2, 9)])]
        {
            assert!((0..2 * DOUBTFUL).all(|_| !known.put_back(&mut lost)));
        }
    }
}
