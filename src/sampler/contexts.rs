//! Where it depends on the callers which function is called: in code that calls what it is given.
//!
//! Each link of a stack that mixes two moments may be known there: `w(a)` on one line and `w(b)` on the next, and `a`
//! below `w` below the second. So it is remembered below which callers a function was seen at moments that were
//! certain: those may be mixed up with nothing but themselves.

use std::collections::{HashMap, HashSet};

use super::links::Evidence;
use crate::hash::{FastHash, fingerprint};
use crate::reader::codes::{CodeId, Located};

/// So many frames may have returned and have been called anew while frames were copied, and as many links are told by
/// callers that near.
const NEAR: usize = 3;

/// How often a call's value stack has shown what is called, for one certain look in which it has not.
const MOSTLY: u16 = 8;
/// No more are counted, so that a call that has changed is soon known to have.
const MOST_LOOKS: u16 = 64;

/// No more callers than these tell one call from others.
const LONGEST_CHAIN: usize = 16;
/// How many chains are remembered before all are forgotten (and learned again).
const MOST_CHAINS: usize = 1 << 15;

/// Who has been seen to call what.
#[derive(Debug, Default)]
pub struct Contexts {
    /// By code and instruction.
    callees: HashMap<(u32, i32), Callees, FastHash>,
    /// By code; `None` called the root of a stack.
    callers: HashMap<u32, Met<Option<Located>>, FastHash>,
    /// What a certain look has shown of functions for which callers may matter, and of their callers.
    chains: HashSet<u64, FastHash>,
}

impl Contexts {
    /// A certain look has shown how the frame at `index`, which is not the root, was called.
    pub fn add_chain(&mut self, stack: &[Located], index: usize) {
        let is_newest = index + 1 == stack.len();
        if is_newest || self.calls_several(stack[index - 1]) {
            let chain = self.chain(stack, index);
            if self.chains.len() >= MOST_CHAINS && !self.chains.contains(&chain) {
                self.chains.clear();
            }
            self.chains.insert(chain);
        }
    }

    /// A function was seen to be called.
    pub fn add(&mut self, caller: Located, callee: CodeId) {
        self.callees_mut(caller).met.add(callee, CodeId::eq);
        self.callers.entry(callee.0).or_default().add(Some(caller), are_of_one_call);
    }

    /// A function was seen at the root of a stack.
    pub fn add_root(&mut self, root: CodeId) {
        self.callers.entry(root.0).or_default().add(None, are_of_one_call);
    }

    /// The caller's value stack shows what it calls, or a certain look found that it does not.
    pub fn note_shown(&mut self, caller: Located, is_shown: bool) {
        let callees = self.callees_mut(caller);
        let looks = if is_shown { &mut callees.shown } else { &mut callees.hidden };
        *looks = (*looks + 1).min(MOST_LOOKS);
    }

    /// Whether the caller's value stack mostly shows what it calls.
    pub fn are_shown(&self, caller: Located) -> bool {
        self.callees(caller).is_some_and(Callees::are_shown)
    }

    /// Whether an instruction has been seen to call anything.
    pub fn calls(&self, caller: Located) -> bool {
        self.callees(caller).is_some_and(|callees| !matches!(callees.met, Met::Never))
    }

    /// Whether the newest frame of a stack all of whose links are known may have returned, and its caller as well,
    /// which was called anew from elsewhere to call something else. Only said where value stacks show what is called,
    /// as calls that go through C would all be doubtful, and of what was not seen called from there.
    pub fn may_be_stale(&mut self, stack: &[Located], evidence: &impl Evidence) -> bool {
        let Some(newest) = stack.len().checked_sub(1).filter(|&newest| newest > 0) else {
            return false;
        };
        let caller = stack[newest - 1];
        let Some(&callees) = self.callees(caller) else { return false };
        let (are_several, are_shown) = (callees.met == Met::Several, callees.are_shown());
        if !(are_several || are_shown) || !self.has_several_callers(stack, newest) {
            return false;
        }
        let is_called = evidence.is_called(newest);
        if is_called == Some(true) {
            self.note_shown(caller, true);
        }
        let may_be = is_called == Some(false) || is_called.is_none() && are_several;
        are_shown && may_be && !self.has_chain(stack, newest)
    }

    /// Whether callers matter to any link of a stack.
    pub fn matter(&self, stack: &[Located]) -> bool {
        (1..stack.len()).any(|index| self.matters(stack, index))
    }

    /// Whether they matter to how the frame at `index` was called, or to a link a little below, and it was not seen
    /// called from there.
    pub fn are_doubtful_near(&self, stack: &[Located], index: usize) -> bool {
        let lowest = (index + 1).saturating_sub(NEAR).max(1);
        (lowest..=index).any(|index| self.matters(stack, index) && !self.has_chain(stack, index))
    }

    /// Whether the frame at `index`, which is not the root, is one of several functions that its caller calls there,
    /// and which it is may depend on who has called that.
    fn matters(&self, stack: &[Located], index: usize) -> bool {
        self.calls_several(stack[index - 1]) && self.has_several_callers(stack, index)
    }

    fn calls_several(&self, caller: Located) -> bool {
        self.callees(caller).is_some_and(|callees| callees.met == Met::Several)
    }

    fn has_chain(&self, stack: &[Located], index: usize) -> bool {
        self.chains.contains(&self.chain(stack, index))
    }

    /// One number for the frame at `index`, what it was called by, and how: the callers that are near, and farther ones
    /// down to one that is called from one place only.
    fn chain(&self, stack: &[Located], index: usize) -> u64 {
        let near = stack[..index].iter().rev().take(NEAR);
        let shared = stack[..index].iter().rev().skip(NEAR);
        let shared = shared.take_while(|frame| self.is_called_from_several(frame)).count();
        let length = (near.len() + shared + 1).min(LONGEST_CHAIN).min(index);
        let place =
            |caller: &Located| u64::from(caller.code.0) << 32 | u64::from(caller.index as u32);
        let callers = stack[index - length..index].iter().map(place);
        fingerprint(callers.chain([u64::from(stack[index].code.0)]))
    }

    /// Whether the caller of the frame at `index`, or one of those near to it, has been called from several places.
    fn has_several_callers(&self, stack: &[Located], index: usize) -> bool {
        stack[..index].iter().rev().take(NEAR).any(|frame| self.is_called_from_several(frame))
    }

    fn is_called_from_several(&self, frame: &Located) -> bool {
        self.callers.get(&frame.code.0).is_none_or(|callers| *callers == Met::Several)
    }

    fn callees(&self, caller: Located) -> Option<&Callees> {
        self.callees.get(&(caller.code.0, caller.index))
    }

    fn callees_mut(&mut self, caller: Located) -> &mut Callees {
        self.callees.entry((caller.code.0, caller.index)).or_default()
    }
}

/// What an instruction has been seen to call, and how often the value stack has shown it, and has not.
#[derive(Clone, Copy, Debug, Default)]
struct Callees {
    met: Met<CodeId>,
    shown: u16,
    hidden: u16,
}

impl Callees {
    fn are_shown(&self) -> bool {
        self.shown > self.hidden.saturating_mul(MOSTLY)
    }
}

/// Something of which there may be several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Met<T> {
    #[default]
    Never,
    One(T),
    Several,
}

impl<T> Met<T> {
    /// One more, which may have been met before, or be as good as the one that was.
    fn add(&mut self, one: T, are_alike: impl Fn(&T, &T) -> bool) {
        *self = match self {
            Self::One(met) if !are_alike(met, &one) => Self::Several,
            Self::Never => Self::One(one),
            _ => return,
        };
    }
}

/// Whether two callers are the same one at the same call: in 3.11 and 3.12 a caller stands before or behind the
/// call's caches. Calls that are no farther apart in one function, `f()()`, count as one.
fn are_of_one_call(one: &Option<Located>, other: &Option<Located>) -> bool {
    /// Of a call in 3.11; one fewer in 3.12.
    const MOST_CACHES: u32 = 4;
    match (one, other) {
        (Some(one), Some(other)) => {
            one.code == other.code && one.index.abs_diff(other.index) <= MOST_CACHES
        }
        (one, other) => one.is_none() && other.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a value stack.
    struct Told(Option<bool>);

    impl Evidence for Told {
        fn opcode(&self, _: usize) -> Option<u8> {
            None
        }
        fn is_called(&self, _: usize) -> Option<bool> {
            self.0
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

    fn stack(frames: &[(u32, i32)]) -> Vec<Located> {
        frames.iter().map(|&(code, index)| Located::new(CodeId(code), index)).collect()
    }

    fn met(stacks: &[&[(u32, i32)]], are_shown: bool) -> Contexts {
        let mut contexts = Contexts::default();
        for frames in stacks.iter().map(|frames| stack(frames)) {
            contexts.add_root(frames[0].code);
            for link in frames.windows(2) {
                contexts.add(link[0], link[1].code);
                contexts.note_shown(link[0], are_shown);
            }
        }
        contexts
    }

    /// From two places, something that calls what it is given.
    const SHARED: [&[(u32, i32)]; 2] =
        [&[(0, 5), (1, 10), (2, 4), (8, 1)], &[(0, 5), (1, 20), (2, 4), (9, 1)]];
    const ONE_CALLEE: [&[(u32, i32)]; 2] =
        [&[(0, 5), (1, 10), (2, 4), (8, 1)], &[(0, 5), (1, 20), (2, 4), (8, 1)]];
    const ONE_CALLER: [&[(u32, i32)]; 2] =
        [&[(0, 5), (1, 20), (2, 4), (8, 1)], &[(0, 5), (1, 20), (2, 4), (9, 1)]];

    #[test]
    fn callers_matter_where_there_are_several_and_several_callees() {
        let mixed = stack(&[(0, 5), (1, 20), (2, 4), (8, 1)]);
        let matter = |stacks| {
            let contexts = met(stacks, false);
            (contexts.matter(&mixed), contexts.are_doubtful_near(&mixed, 3))
        };
        assert_eq!(matter(&SHARED), (true, true));
        assert_eq!(matter(&ONE_CALLEE), (false, false));
        assert_eq!(matter(&ONE_CALLER), (false, false));
        assert!(!met(&SHARED, false).are_doubtful_near(&mixed, 2));
        // What is called below comes with it.
        let deeper = stack(&[(0, 5), (1, 20), (2, 4), (8, 1), (7, 1), (7, 1), (7, 1)]);
        let near = |index| met(&SHARED, false).are_doubtful_near(&deeper, index);
        assert_eq!([3, 4, 5, 6].map(near), [true, true, true, false]);
    }

    #[test]
    fn callers_do_not_matter_below_which_it_was_certainly_called() {
        let mut contexts = met(&SHARED, true);
        for frames in SHARED.map(stack) {
            contexts.add_chain(&frames, 3);
        }
        let mut are_doubtful = |frames: &[(u32, i32)]| {
            let frames = stack(frames);
            (contexts.are_doubtful_near(&frames, 3), contexts.may_be_stale(&frames, &Told(None)))
        };
        assert_eq!(SHARED.map(&mut are_doubtful), [(false, false); 2]);
        assert_eq!(are_doubtful(&[(0, 5), (1, 20), (2, 4), (8, 1)]), (true, true));
    }

    #[test]
    fn callers_are_told_apart_through_any_that_are_shared() {
        // `r` calls itself, and then what it is given, from two places.
        let through = |line, given| {
            let mut frames = vec![(0, 5), (1, line)];
            frames.extend([(2, 4); 8]);
            frames.push((given, 1));
            stack(&frames)
        };
        let seen = [through(10, 8), through(20, 9)];
        let mut contexts = Contexts::default();
        for frames in &seen {
            contexts.add_root(frames[0].code);
            frames.windows(2).for_each(|link| contexts.add(link[0], link[1].code));
        }
        for frames in &seen {
            (1..frames.len()).for_each(|index| contexts.add_chain(frames, index));
        }
        assert!(seen.iter().all(|frames| !contexts.are_doubtful_near(frames, 10)));
        assert!(contexts.are_doubtful_near(&through(20, 8), 10));
    }

    #[test]
    fn what_is_not_shown_where_it_would_be_is_stale() {
        let mixed = stack(&[(0, 5), (1, 20), (2, 4), (8, 1)]);
        let each = |stacks, shown| {
            let mut contexts = met(stacks, shown);
            [Some(true), Some(false), None].map(|told| contexts.may_be_stale(&mixed, &Told(told)))
        };
        assert_eq!(each(&SHARED, true), [false, true, true]);
        // It may call something that is not Python's from another place.
        assert_eq!(each(&ONE_CALLEE, true), [false, true, false]);
        assert_eq!(each(&ONE_CALLER, true), [false; 3]);
        assert_eq!(each(&SHARED, false), [false; 3]);
        let root = stack(&[(0, 5)]);
        assert!(!met(&SHARED, true).may_be_stale(&root, &Told(None)));
    }

    #[test]
    fn value_stacks_show_calls_where_they_mostly_did() {
        let mut contexts = met(&SHARED, true);
        let mixed = stack(&[(0, 5), (1, 20), (2, 4), (8, 1)]);
        let is_stale = |contexts: &mut Contexts| contexts.may_be_stale(&mixed, &Told(None));
        assert!(is_stale(&mut contexts));
        contexts.note_shown(mixed[2], false);
        assert!(!is_stale(&mut contexts));
        (0..MOSTLY).for_each(|_| contexts.note_shown(mixed[2], true));
        assert!(is_stale(&mut contexts));
    }

    #[test]
    fn a_call_is_one_before_and_behind_its_caches() {
        let of_one: &[(u32, i32)] = &[(0, 5), (1, 23), (2, 4), (8, 1)];
        let again: &[(u32, i32)] = &[(0, 5), (1, 20), (2, 4), (9, 1)];
        let another: &[(u32, i32)] = &[(0, 5), (1, 30), (2, 4), (9, 1)];
        assert!(!met(&[of_one, again], true).matter(&stack(of_one)));
        assert!(met(&[of_one, again, another], true).matter(&stack(of_one)));
    }
}
