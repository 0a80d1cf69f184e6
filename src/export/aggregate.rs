//! What several formats share: frames grouped by what a format shows of them, stacks merged into a tree of
//! such groups, and totals over that tree. All of it takes time linear in the profile.

use crate::profile::{Frame, FunctionId, Numbers, Profile, Sample, ThreadId};
use std::collections::HashMap;
use std::hash::Hash;

/// A group of a node that has none.
pub(super) const NONE: u32 = u32::MAX;

/// What a row of the pstats formats and a part of a collapsed line stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Row<'a> {
    /// `co_filename`.
    pub file: &'a str,
    /// The line being executed.
    pub line: u32,
    /// Qualified name of the function.
    pub name: &'a str,
}

/// Frames that a format shows as the same thing, numbered in order of first sight.
pub(super) struct Groups<K> {
    /// What each group stands for.
    pub keys: Vec<K>,
    /// The group of each frame of the profile.
    pub of_frame: Vec<u32>,
}

impl<K: Copy + Eq + Hash> Groups<K> {
    /// Groups the frames that have the same key.
    pub fn new<'a>(profile: &'a Profile, key: impl Fn(&'a Frame) -> K) -> Self {
        let mut numbers = Numbers::default();
        let of_frame = profile.frames.iter().map(|frame| numbers.of(key(frame))).collect();
        Groups { keys: numbers.keys, of_frame }
    }
}

/// Groups frames by file, line and function.
pub(super) fn by_line(profile: &Profile) -> Groups<Row<'_>> {
    Groups::new(profile, |frame| row(profile, frame, frame.location.line))
}

/// Groups frames by file and function; their line is 0.
pub(super) fn by_function(profile: &Profile) -> Groups<Row<'_>> {
    Groups::new(profile, |frame| row(profile, frame, 0))
}

/// Groups frames by function, with the line where that begins.
pub(super) fn by_definition(profile: &Profile) -> Groups<Row<'_>> {
    let first_line = |frame: &Frame| profile.functions[frame.function.0 as usize].first_line;
    Groups::new(profile, |frame| row(profile, frame, first_line(frame)))
}

fn row<'a>(profile: &'a Profile, frame: &Frame, line: u32) -> Row<'a> {
    let function = &profile.functions[frame.function.0 as usize];
    Row { file: &function.file, line, name: &function.name }
}

/// Numbers frames by function and line.
pub(super) fn by_place(profile: &Profile) -> Groups<(FunctionId, u32)> {
    Groups::new(profile, |frame| (frame.function, frame.location.line))
}

/// Samples, the nanoseconds they weigh, and the CPU time they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub samples: u64,
    pub ns: u64,
    pub cpu_ns: u64,
}

impl From<&Sample> for Amount {
    fn from(sample: &Sample) -> Self {
        Amount { samples: sample.count, ns: sample.weight_ns, cpu_ns: sample.cpu_ns }
    }
}

impl Amount {
    pub fn add(&mut self, other: Amount) {
        self.samples = self.samples.saturating_add(other.samples);
        self.ns = self.ns.saturating_add(other.ns);
        self.cpu_ns = self.cpu_ns.saturating_add(other.cpu_ns);
    }
}

/// Direct: it was executing. Cumulative: it was anywhere on the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub direct: Amount,
    pub cumulative: Amount,
}

impl Totals {
    pub fn add(&mut self, other: &Totals) {
        self.direct.add(other.direct);
        self.cumulative.add(other.cumulative);
    }
}

/// The stacks of a profile with equal ones merged. Node 0 is above all roots and has no group.
pub(super) struct Tree {
    /// The caller of each node, which is always a smaller number; 0 for node 0.
    pub parent: Vec<u32>,
    /// The group of each node.
    pub group: Vec<u32>,
    /// The node of each stack of the profile.
    pub of_stack: Vec<u32>,
}

impl Tree {
    /// Merges the stacks whose frames are of the same groups.
    pub fn new(profile: &Profile, of_frame: &[u32]) -> Self {
        let mut tree = Tree { parent: vec![0], group: vec![NONE], of_stack: Vec::new() };
        let mut nodes: HashMap<(u32, u32), u32> = HashMap::new();
        for stack in &profile.stacks {
            let parent = stack.parent.map_or(0, |id| tree.of_stack[id.0 as usize]);
            let group = of_frame[stack.frame.0 as usize];
            let node = *nodes.entry((parent, group)).or_insert_with(|| {
                tree.parent.push(parent);
                tree.group.push(group);
                tree.parent.len() as u32 - 1
            });
            tree.of_stack.push(node);
        }
        tree
    }

    /// The nodes that each node called.
    pub fn children(&self) -> Vec<Vec<u32>> {
        let mut children = vec![Vec::new(); self.parent.len()];
        for (node, &parent) in self.parent.iter().enumerate().skip(1) {
            children[parent as usize].push(node as u32);
        }
        children
    }

    /// What was sampled with each node on top.
    pub fn own(&self, profile: &Profile) -> Vec<Amount> {
        let mut own = vec![Amount::default(); self.parent.len()];
        for sample in &profile.samples {
            let node = self.of_stack[sample.stack.0 as usize];
            own[node as usize].add(sample.into());
        }
        own
    }

    /// Totals of every row.
    pub fn totals(&self, profile: &Profile, groups: usize) -> Vec<Totals> {
        self.totals_of(profile, (&self.group, groups), (&self.group, groups))
    }

    /// The callers of every row: their group, and the totals of the row in their calls.
    pub fn callers(&self, profile: &Profile, groups: usize) -> Vec<Vec<(u32, Totals)>> {
        let mut callers = vec![Vec::new(); groups];
        for ((callee, caller), totals) in self.calls(profile, |callee, caller| (callee, caller)) {
            callers[callee as usize].push((caller, totals));
        }
        callers
    }

    /// Totals of calls, which are told apart by a key that is made of callee and caller.
    pub fn calls<K: Copy + Eq + Hash>(
        &self,
        profile: &Profile,
        key: impl Fn(u32, u32) -> K,
    ) -> Vec<(K, Totals)> {
        let mut calls = Numbers::default();
        let label: Vec<u32> = (0..self.parent.len())
            .map(|node| match (self.group[node], self.group[self.parent[node] as usize]) {
                (_, NONE) => NONE,
                (callee, caller) => calls.of(key(callee, caller)),
            })
            .collect();
        let labels = (&label[..], calls.keys.len());
        let totals = self.totals_of(profile, labels, labels);
        calls.keys.into_iter().zip(totals).collect()
    }

    /// Totals of every label that nodes have. In recursion the same thing, as `once` tells them apart,
    /// is on a stack more than once, and yet a sample counts for it only once: at its outermost node. Each
    /// comes with how many there are.
    pub fn totals_of(
        &self,
        profile: &Profile,
        (label, labels): (&[u32], usize),
        (once, things): (&[u32], usize),
    ) -> Vec<Totals> {
        let own = self.own(profile);
        let mut below = own.clone();
        for node in (1..below.len()).rev() {
            let amount = below[node];
            below[self.parent[node] as usize].add(amount);
        }
        let children = self.children();
        let mut totals = vec![Totals::default(); labels];
        let mut on_path = vec![0_u32; things];
        let mut steps = vec![Step::Enter(0)];
        while let Some(step) = steps.pop() {
            match step {
                Step::Enter(node) => {
                    let node = node as usize;
                    if let Some(on_path) = on_path.get_mut(once[node] as usize) {
                        if let Some(totals) = totals.get_mut(label[node] as usize) {
                            totals.direct.add(own[node]);
                            if *on_path == 0 {
                                totals.cumulative.add(below[node]);
                            }
                        }
                        *on_path += 1;
                        steps.push(Step::Leave(once[node]));
                    }
                    steps.extend(children[node].iter().map(|&child| Step::Enter(child)));
                }
                Step::Leave(thing) => on_path[thing as usize] -= 1,
            }
        }
        totals
    }

    /// What each thread was sampled with, in order: thread, node, and what else tells samples apart.
    pub fn sampled<K: Copy + Eq + Hash + Ord>(
        &self,
        profile: &Profile,
        key: impl Fn(&Sample) -> K,
    ) -> Vec<((ThreadId, u32, K), Amount)> {
        let mut amounts: HashMap<_, Amount> = HashMap::new();
        for sample in &profile.samples {
            let node = self.of_stack[sample.stack.0 as usize];
            amounts.entry((sample.thread, node, key(sample))).or_default().add(sample.into());
        }
        let mut sampled: Vec<_> = amounts.into_iter().collect();
        sampled.sort_unstable_by_key(|(key, _)| *key);
        sampled
    }

    /// Which nodes are on a stack that was sampled; node 0 is where there is any.
    pub fn used(&self, profile: &Profile) -> Vec<bool> {
        let mut used = vec![false; self.parent.len()];
        for sample in &profile.samples {
            used[self.of_stack[sample.stack.0 as usize] as usize] = true;
        }
        for node in (1..used.len()).rev() {
            if used[node] {
                used[self.parent[node] as usize] = true;
            }
        }
        used
    }
}

enum Step {
    Enter(u32),
    Leave(u32),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::profile;

    fn amount(samples: u64) -> Amount {
        Amount { samples, ns: samples * 1_000_000, cpu_ns: 0 }
    }

    #[test]
    fn recursion_counts_once() {
        let profile = profile(&[
            ("main:1 rec:7 rec:7 rec:7 leaf:4", 5),
            ("main:1 rec:7 rec:7", 3),
            ("main:1 other:9 leaf:4", 2),
        ]);
        let groups = by_line(&profile);
        let tree = Tree::new(&profile, &groups.of_frame);
        let totals = tree.totals(&profile, groups.keys.len());
        let of = |name: &str| {
            let group = groups.keys.iter().position(|row| row.name == name).unwrap();
            (totals[group].direct, totals[group].cumulative)
        };
        assert_eq!(of("main"), (amount(0), amount(10)));
        assert_eq!(of("rec"), (amount(3), amount(8)));
        assert_eq!(of("leaf"), (amount(7), amount(7)));
        assert_eq!(of("other"), (amount(0), amount(2)));
    }

    #[test]
    fn calls_count_once_each() {
        let profile = profile(&[("main:1 rec:7 rec:7 rec:7", 4), ("main:1 rec:7", 1)]);
        let groups = by_line(&profile);
        let tree = Tree::new(&profile, &groups.of_frame);
        let callers = tree.callers(&profile, groups.keys.len());
        let (main, rec) = (0, 1);
        assert!(callers[main].is_empty());
        let mut of_rec = callers[rec].clone();
        of_rec.sort_by_key(|(caller, _)| *caller);
        assert_eq!(of_rec[0], (0, Totals { direct: amount(1), cumulative: amount(5) }));
        assert_eq!(of_rec[1], (1, Totals { direct: amount(4), cumulative: amount(4) }));
    }

    #[test]
    fn stacks_that_look_the_same_are_one_node() {
        let mut profile = profile(&[("a:1 b:2", 1), ("a:1 c:3", 1)]);
        profile.frames[2] = profile.frames[1].clone();
        let groups = by_line(&profile);
        let tree = Tree::new(&profile, &groups.of_frame);
        assert_eq!(tree.parent, [0, 0, 1]);
        assert_eq!(tree.own(&profile)[2], amount(2));
    }
}
