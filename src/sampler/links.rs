//! Which function has been seen to call which, from which instruction, at a moment when that was
//! certain.
//!
//! A stack that was copied while the thread ran may mix two moments: the caller of one, the callee
//! of another. Such a seam shows as a link (caller, instruction, callee) that no certain stack has.
//! A stack all of whose links are known is accepted as it is, unless a link depends on the callers
//! ([`contexts`](super::contexts)); the others are looked at again by a method that is certain
//! ([`snapshot`](super::snapshot)). So nothing is rejected merely because the thread moved on, which
//! would be biased against functions that return at once.

use std::collections::{HashMap, HashSet};

use super::contexts::Contexts;
use crate::hash::FastHash;
use crate::reader::codes::{CodeId, Located};

/// How many links are remembered before all are forgotten (and learned again).
const MOST_LINKS: usize = 1 << 19;

/// How often a thread is looked at with certainty instead before such a caller is taken for one that
/// has moved on since its call.
const DOUBTFUL: u8 = 4;

/// What a stack's own code tells of its links. Frames are counted from the root.
pub trait Evidence {
    /// The opcode of the instruction that a frame is at. `None` before 3.11, where a
    /// frame that has returned is taken for anything else.
    fn opcode(&self, frame: usize) -> Option<u8>;
    /// Whether the value stack of the frame before `callee` shows that it called the very function
    /// that `callee` runs. `None` if it cannot be told.
    fn is_called(&self, callee: usize) -> Option<bool>;
    /// Whether that value stack is the call's: that it ends where it does once the call has stored it.
    fn is_call_stored(&self, callee: usize) -> bool;
    /// The opcode of the call that the frame before `callee` is in, if it is specialised for the
    /// function that `callee` runs.
    fn call_opcode(&self, callee: usize) -> Option<u8>;
    /// Finds all places, as opcode and instruction, where the code of the frame before `callee`
    /// may be a call that is specialised for the function that `callee` runs.
    fn call_sites(&self, callee: usize, found: impl FnMut(u8, i32)) -> Option<()>;
}

/// The known links.
#[derive(Debug, Default)]
pub struct KnownLinks {
    /// The instructions, whatever their arguments, at which callers have been seen whose value
    /// stacks show what they have called.
    showing: Opcodes,
    /// Those at which callers have been seen whose value stacks show something else.
    hiding: Opcodes,
    /// Those at which callers have been seen whose value stacks could not be told.
    calling: Opcodes,
    /// Those of calls that are specialised for one function.
    specialised: Opcodes,
    links: HashSet<(u64, u32), FastHash>,
    /// The instructions from which one code object has been seen to call another.
    sites: HashMap<(u32, u32), Vec<i32>, FastHash>,
    /// Who has been seen to call what.
    pub contexts: Contexts,
    /// How often a caller was met at an instruction from which it is not known to call what it
    /// calls from others.
    doubtful: HashMap<Located, u8, FastHash>,
}

impl KnownLinks {
    /// Whether a frame has been seen under its caller; `None` is the root of a stack.
    pub fn has(&self, caller: Option<Located>, callee: CodeId) -> bool {
        self.links.contains(&key(caller, callee))
    }

    /// Remembers every link of a stack that is certain, given root first; its root only if it
    /// `has_root`, and is not the rest of a deeper one.
    pub fn learn(&mut self, stack: &[Located], has_root: bool, evidence: &impl Evidence) {
        if self.links.len() + stack.len() > MOST_LINKS {
            *self = Self::default();
        }
        let mut caller = if has_root { None } else { stack.first().copied() };
        for (index, &frame) in stack.iter().enumerate().skip(usize::from(!has_root)) {
            match caller {
                Some(caller) => {
                    let is_newest = index + 1 == stack.len();
                    let is_new = !self.has(Some(caller), frame.code);
                    // Of a newest frame it takes the value stack to tell whose it is.
                    let mut is_certain = !is_newest;
                    if is_new || is_newest {
                        let is_called = evidence.is_called(index);
                        // A thread may be stopped where it makes a new frame of one that has returned.
                        let is_odd = is_newest
                            && is_called == Some(false)
                            && self.contexts.are_shown(caller);
                        self.contexts.note_shown(caller, is_called == Some(true));
                        is_certain |= is_called == Some(true);
                        if is_odd {
                            return;
                        }
                        self.add(caller, frame.code);
                        if is_new {
                            self.note_opcodes(index, is_called, evidence);
                        }
                    }
                    if is_certain {
                        self.contexts.add_chain(stack, index);
                    }
                }
                None => {
                    self.links.insert(key(None, frame.code));
                    self.contexts.add_root(frame.code);
                }
            }
            caller = Some(frame);
        }
    }

    /// Notes of a new link which instruction its caller is at.
    fn note_opcodes(&mut self, callee: usize, is_called: Option<bool>, evidence: &impl Evidence) {
        let opcodes = match is_called {
            Some(true) => &mut self.showing,
            Some(false) => &mut self.hiding,
            None => &mut self.calling,
        };
        opcodes.extend(evidence.opcode(callee - 1));
        self.specialised.extend(evidence.call_opcode(callee));
    }

    /// Returns whether the link is new, and there is room for it: where there is none, the next certain stack makes it.
    fn add(&mut self, caller: Located, callee: CodeId) -> bool {
        let has_room = self.links.len() < MOST_LINKS;
        let is_new = has_room && self.links.insert(key(Some(caller), callee));
        if is_new {
            self.sites.entry((caller.code.0, callee.0)).or_default().push(caller.index);
            self.contexts.add(caller, callee);
        }
        is_new
    }

    /// Whether all links of a stack, given root first, from frame `from` on are known, or are
    /// proved by the interpreter itself: by callers' value stacks, or by specialised calls, all of
    /// which are learned.
    ///
    /// A value stack tells of the moment at which it was copied, and the code objects were looked at
    /// later, when others may have been in their places. Only if all of them `are_old`, there since
    /// before the copy, they were the same all the time.
    pub fn prove(
        &mut self,
        stack: &[Located],
        from: usize,
        are_old: bool,
        evidence: &impl Evidence,
    ) -> bool {
        (from..stack.len()).fold(true, |all, index| {
            let caller = index.checked_sub(1).map(|before| stack[before]);
            let is_known = self.has(caller, stack[index].code)
                || index > 0
                    && (are_old && self.is_shown(stack, index, evidence)
                        || self.is_specialised(stack, index, evidence));
            all && is_known
        })
    }

    /// Whether a value stack shows the call of the frame at `index`, which is not the root.
    fn is_shown(&mut self, stack: &[Located], index: usize, evidence: &impl Evidence) -> bool {
        let (caller, callee) = (stack[index - 1], stack[index].code);
        let may_show = self.may_show(caller, || evidence.opcode(index - 1));
        let is_shown =
            may_show && evidence.is_called(index) == Some(true) && evidence.is_call_stored(index);
        if is_shown {
            self.add_shown(caller, callee);
        }
        is_shown
    }

    /// Whether the value stacks of callers at such an instruction have been seen to show what they call.
    pub fn may_show(&self, caller: Located, opcode: impl FnOnce() -> Option<u8>) -> bool {
        // Before its first instruction no frame has called.
        caller.index >= 0 && opcode().is_some_and(|opcode| self.showing.has(opcode))
    }

    /// Remembers a call that a value stack has shown.
    pub fn add_shown(&mut self, caller: Located, callee: CodeId) {
        if self.add(caller, callee) {
            self.contexts.note_shown(caller, true);
        }
    }

    /// Whether a specialised call leads to the frame at `index`, which is not the root.
    fn is_specialised(
        &mut self,
        stack: &[Located],
        index: usize,
        evidence: &impl Evidence,
    ) -> bool {
        let (caller, callee) = (stack[index - 1], stack[index].code);
        let specialised = self.specialised;
        evidence.call_sites(index, |opcode, site| {
            if specialised.has(opcode) {
                self.add(Located { index: site, ..caller }, callee);
            }
        });
        self.has(Some(caller), callee)
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
    /// known to be at such an instruction; only one that no certain look has
    /// confirmed by then is taken for a caller that moved on. Nor is one put back whose call, or a call near to it,
    /// may depend on callers that have moved on as well, unless it was seen below those callers.
    pub fn mend(&mut self, stack: &mut Vec<Located>, evidence: &impl Evidence) -> bool {
        if stack.first().is_none_or(|root| !self.has(None, root.code)) {
            return false;
        }
        for index in 1..stack.len() {
            let (caller, callee) = (stack[index - 1], stack[index].code);
            if self.has(Some(caller), callee) {
                continue;
            }
            let Some(sites) = self.sites.get(&(caller.code.0, callee.0)) else { return false };
            let Some(opcode) = evidence.opcode(index - 1) else { return false };
            // Before its first instruction no frame has called.
            let may_hide = self.calling.has(opcode) && !self.showing.has(opcode);
            let may_call = caller.index >= 0 && (may_hide || self.hiding.has(opcode));
            if may_call {
                if self.doubtful.len() >= MOST_LINKS {
                    self.doubtful.clear();
                }
                let seen = self.doubtful.entry(caller).or_default();
                if *seen < DOUBTFUL {
                    *seen += 1;
                    return false;
                }
            }
            let passed = sites.iter().copied().filter(|&site| site <= caller.index).max();
            let site = match (passed, sites.as_slice()) {
                (Some(site), _) | (None, &[site]) => site,
                _ => {
                    stack.truncate(index);
                    return !self.contexts.are_doubtful_near(stack, index - 1);
                }
            };
            stack[index - 1].index = site;
            if self.contexts.are_doubtful_near(stack, index) {
                return false;
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

/// How many frames at the root two stacks have in common.
pub fn common_prefix(one: &[Located], other: &[Located]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// The same of their places in code, whatever the instructions there.
pub fn common_places(one: &[Located], other: &[Located]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a.is_at(b)).count()
}

/// A set of opcodes.
#[derive(Clone, Copy, Debug, Default)]
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

    /// All frames are at instructions of one opcode.
    struct At(Option<u8>);

    /// As [`At`], with value stacks that can be told.
    struct Showing(u8, bool);

    impl Evidence for Showing {
        fn opcode(&self, _: usize) -> Option<u8> {
            Some(self.0)
        }
        fn is_called(&self, _: usize) -> Option<bool> {
            Some(self.1)
        }
        fn is_call_stored(&self, _: usize) -> bool {
            true
        }
        fn call_opcode(&self, _: usize) -> Option<u8> {
            None
        }
        fn call_sites(&self, _: usize, _: impl FnMut(u8, i32)) -> Option<()> {
            None
        }
    }

    impl Evidence for At {
        fn opcode(&self, _: usize) -> Option<u8> {
            self.0
        }
        fn is_called(&self, _: usize) -> Option<bool> {
            None
        }
        fn is_call_stored(&self, _: usize) -> bool {
            false
        }
        fn call_opcode(&self, _: usize) -> Option<u8> {
            self.0
        }
        fn call_sites(&self, _: usize, mut found: impl FnMut(u8, i32)) -> Option<()> {
            [(CALL, 30), (CALL + 1, 40)].into_iter().for_each(|(opcode, site)| found(opcode, site));
            Some(())
        }
    }

    const CALLING: &At = &At(Some(CALL));

    fn stack(frames: &[(u32, i32)]) -> Vec<Located> {
        frames.iter().map(|&(code, index)| Located::new(CodeId(code), index)).collect()
    }

    #[test]
    fn a_seam_between_two_known_stacks_shows() {
        let mut known = KnownLinks::default();
        known.learn(&stack(&[(0, 5), (1, 3), (2, 9)]), true, CALLING);
        known.learn(&stack(&[(0, 7), (3, 3), (4, 1)]), true, CALLING);
        assert!(known.know(&stack(&[(0, 5), (1, 3), (2, 11)]), 0));
        assert!(!known.know(&stack(&[(0, 5), (1, 3), (4, 1)]), 0));
        assert!(!known.know(&stack(&[(0, 7), (1, 3), (2, 9)]), 0));
        assert!(!known.know(&stack(&[(1, 3), (2, 9)]), 0));
        assert!(known.know(&stack(&[(1, 3), (2, 9)]), 1));
    }

    #[test]
    fn a_caller_that_moved_on_is_put_back_to_its_call() {
        let mut known = KnownLinks::default();
        known.learn(&stack(&[(0, 5), (1, 3), (2, 9)]), true, CALLING);
        known.learn(&stack(&[(0, 5), (1, 7), (2, 9)]), true, CALLING);
        let mut moved = stack(&[(0, 6), (1, 8), (2, 9)]);
        let tries = (0..20).take_while(|_| !known.mend(&mut moved.clone(), CALLING)).count();
        assert_eq!(tries, 2 * usize::from(DOUBTFUL));
        assert!(known.mend(&mut moved, CALLING));
        assert_eq!(moved, stack(&[(0, 5), (1, 7), (2, 9)]));
        let mut moved = stack(&[(0, 5), (1, 5), (2, 1)]);
        assert!((0..DOUBTFUL).all(|_| !known.mend(&mut moved, CALLING)));
        assert!(known.mend(&mut moved, CALLING));
        assert_eq!(moved, stack(&[(0, 5), (1, 3), (2, 1)]));
        // A call that is not known at all; another root.
        for mut lost in [stack(&[(0, 5), (2, 9)]), stack(&[(1, 3), (2, 9)])] {
            assert!((0..2 * DOUBTFUL).all(|_| !known.mend(&mut lost, CALLING)));
        }
    }

    #[test]
    fn a_caller_where_no_caller_can_be_has_moved_on() {
        let mut known = KnownLinks::default();
        known.learn(&stack(&[(0, 5), (1, 3), (2, 9)]), true, CALLING);
        let moved = stack(&[(0, 5), (1, 8), (2, 9)]);
        assert!(!known.mend(&mut moved.clone(), CALLING));
        assert!(!known.mend(&mut moved.clone(), &At(None)));
        let mut back = moved;
        assert!(known.mend(&mut back, &At(Some(CALL + 1))));
        assert_eq!(back, stack(&[(0, 5), (1, 3), (2, 9)]));
    }

    #[test]
    fn a_caller_that_was_called_anew_is_the_top() {
        let mut known = KnownLinks::default();
        known.learn(&stack(&[(0, 5), (1, 3), (2, 9)]), true, CALLING);
        known.learn(&stack(&[(0, 5), (1, 7), (2, 9)]), true, CALLING);
        let mut anew = stack(&[(0, 5), (1, 2), (2, 1)]);
        assert!(known.mend(&mut anew, &At(Some(CALL + 1))));
        assert_eq!(anew, stack(&[(0, 5), (1, 2)]));
        let mut anew = stack(&[(0, 5), (1, -1), (2, 1)]);
        assert!(known.mend(&mut anew, CALLING));
        assert_eq!(anew, stack(&[(0, 5), (1, -1)]));
    }

    #[test]
    fn specialised_calls_prove_links() {
        let mut known = KnownLinks::default();
        known.learn(&stack(&[(0, 5), (1, 3), (2, 9)]), true, CALLING);
        assert!(known.prove(&stack(&[(0, 5), (1, 30), (4, 1)]), 1, true, CALLING));
        assert!(!known.prove(&stack(&[(0, 5), (1, 31), (5, 1)]), 1, true, CALLING));
        assert!(known.know(&stack(&[(0, 5), (1, 30), (5, 1)]), 0));
        assert!(!known.prove(&stack(&[(0, 5), (1, 40), (6, 1)]), 1, true, CALLING));
        assert!(!known.prove(&stack(&[(1, 30), (4, 1)]), 0, true, CALLING));
    }

    #[test]
    fn value_stacks_prove_links_from_instructions_where_they_did_before() {
        let mut known = KnownLinks::default();
        let certain = stack(&[(0, 5), (1, 3), (2, 9)]);
        let unknown = stack(&[(0, 5), (1, 3), (4, 9)]);
        known.learn(&certain, true, &Showing(CALL, true));
        assert!(!known.prove(&unknown, 1, true, &Showing(CALL, false)));
        assert!(!known.prove(&unknown, 1, true, &Showing(CALL + 1, true)));
        assert!(!known.prove(&stack(&[(0, 5), (1, -1), (4, 9)]), 1, true, &Showing(CALL, true)));
        assert!(!known.prove(&unknown, 1, false, &Showing(CALL, true)));
        assert!(known.prove(&unknown, 1, true, &Showing(CALL, true)));
        assert!(known.know(&unknown, 0));
    }

    #[test]
    fn a_caller_whose_value_stack_would_show_its_call_has_moved_on() {
        let moved = stack(&[(0, 5), (1, 8), (2, 9)]);
        let certain = stack(&[(0, 5), (1, 3), (2, 9)]);
        let tries = |certain_shows| {
            let mut known = KnownLinks::default();
            known.learn(&certain, true, &Showing(CALL, certain_shows));
            (0..20).take_while(|_| !known.mend(&mut moved.clone(), &Showing(CALL, false))).count()
        };
        assert_eq!((tries(true), tries(false)), (0, usize::from(DOUBTFUL)));
    }

    #[test]
    fn a_frame_that_is_half_made_teaches_nothing() {
        let mut known = KnownLinks::default();
        known.learn(&stack(&[(0, 5), (1, 3), (2, 9)]), true, &Showing(CALL, true));
        let odd = stack(&[(0, 5), (1, 3), (4, 9)]);
        known.learn(&odd, true, &Showing(CALL, false));
        assert!(!known.know(&odd, 0));
        // Unless that is how it is.
        known.learn(&odd, true, &Showing(CALL, false));
        assert!(known.know(&odd, 0));
    }
}
