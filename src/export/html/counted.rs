//! Amounts by group and bucket of time, in bounds: where there is too much, less is kept of when rare groups had theirs.

use std::collections::HashMap;

use super::entries::MOST_BUCKETS;
use super::pack::{Packed, zigzag};
use crate::hash::FastHash;

/// A stretch of time. What is in it is spread over it evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Span {
    /// The first bucket.
    pub bucket: u32,
    /// How many more there are.
    pub more: u32,
}

impl Span {
    fn between(bucket: u32, last: u32) -> Self {
        Self { bucket, more: last - bucket }
    }

    /// The last bucket.
    pub fn last(self) -> u32 {
        self.bucket + self.more
    }

    /// The same in buckets that are twice as wide.
    fn halved(self) -> Self {
        Self::between(self.bucket / 2, self.last() / 2)
    }

    /// With all of the 2^`shift` buckets that each of its ends is among.
    fn widened(self, shift: u32) -> Self {
        let others = (1 << shift) - 1;
        Self::between(self.bucket & !others, self.last() | others)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    pub samples: u64,
    pub wall_ns: u64,
    pub cpu_ns: u64,
}

impl Amounts {
    pub fn add(&mut self, other: Self) {
        self.samples = self.samples.saturating_add(other.samples);
        self.wall_ns = self.wall_ns.saturating_add(other.wall_ns);
        self.cpu_ns = self.cpu_ns.saturating_add(other.cpu_ns);
    }
}

/// Amounts of groups.
pub(super) struct Counted {
    /// How many samples each group has in all.
    sizes: Vec<u64>,
    /// The most spans to keep.
    most: usize,
    /// A group is told apart in as many spans as it has this many samples; in all buckets, if it is 0.
    apart: u64,
    spans: HashMap<(Span, u32), Amounts, FastHash>,
}

impl Counted {
    /// Of groups with so many samples each. There may be more than `most` spans, so that each group has one and
    /// some have more.
    pub fn new(sizes: Vec<u64>, most: usize) -> Self {
        let most = most.max(sizes.len() + sizes.len() / 4);
        Self { sizes, most, apart: 0, spans: HashMap::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether all spans of a group are as they were added.
    fn is_exact(&self, group: u32) -> bool {
        self.shift(group) == 0
    }

    /// How wide a group's spans are at least: 2^shift buckets.
    fn shift(&self, group: u32) -> u32 {
        let size = self.sizes.get(group as usize).copied().unwrap_or_default();
        match size.checked_div(self.apart) {
            None => 0,
            Some(spans) => MOST_BUCKETS.div_ceil(spans.max(1)).next_power_of_two().ilog2(),
        }
    }

    pub fn add(&mut self, span: Span, group: u32, amounts: Amounts) {
        let span = span.widened(self.shift(group));
        self.spans.entry((span, group)).or_default().add(amounts);
    }

    /// Whether there is more than there may be.
    pub fn is_full(&self) -> bool {
        self.spans.len() > self.most
    }

    /// Keeps half as much of when groups had what they have, of those with few samples less than of others; in
    /// the end each has one span, and it is not full.
    pub fn coarsen(&mut self) {
        self.apart = self.apart.saturating_mul(2).max(1);
        self.again(|span| span);
    }

    /// From now on buckets are twice as wide.
    pub fn widen(&mut self) {
        self.again(Span::halved);
    }

    fn again(&mut self, change: impl Fn(Span) -> Span) {
        for ((span, group), amounts) in std::mem::take(&mut self.spans) {
            self.add(change(span), group, amounts);
        }
    }

    /// The same with several groups as one: `above` has the new one of each.
    pub fn merged(&self, above: &[u32], most: usize) -> Self {
        let mut sizes = vec![0_u64; above.iter().max().map_or(0, |&last| last as usize + 1)];
        for (&group, size) in above.iter().zip(&self.sizes) {
            let sum = &mut sizes[group as usize];
            *sum = sum.saturating_add(*size);
        }
        let mut merged = Self::new(sizes, most);
        for (&(span, group), &amounts) in &self.spans {
            merged.add(span, above[group as usize], amounts);
        }
        merged
    }

    /// All that is as it was added, and all that is not.
    pub fn pack(&self, last_bucket: u32, numbers: impl Fn(u32) -> (u32, u32)) -> [Table; 2] {
        [true, false].map(|exact| {
            let spans = self.spans.iter().filter(|((_, group), _)| self.is_exact(*group) == exact);
            let rows = spans.map(|(&(span, group), &amounts)| {
                // What was widened may reach further than there is time.
                let span = Span::between(span.bucket, span.last().min(last_bucket));
                (span, numbers(group), amounts)
            });
            pack(rows.collect())
        })
    }
}

/// Rows as columns.
pub(super) type Table = [Packed; 7];

/// Rows in order of time, as columns, which pack better: twice the step of the bucket, plus one if there are
/// further buckets; how many, of those that have any; the steps of the group's two numbers, zigzag; samples;
/// microseconds; and those on a processor, 0 for none, else one more than the zigzag of what the former exceed
/// them by.
fn pack(mut rows: Vec<(Span, (u32, u32), Amounts)>) -> Table {
    rows.sort_unstable_by_key(|&(span, numbers, _)| (span, numbers));
    let mut table = Table::default();
    let [buckets, more, firsts, seconds, samples, wall, cpu] = &mut table;
    let mut before = (0, (0, 0));
    let (mut wall_rest_ns, mut cpu_rest_ns) = (0, 0);
    for (span, (first, second), amounts) in rows {
        buckets.put(u64::from(span.bucket - before.0) * 2 + u64::from(span.more > 0));
        if span.more > 0 {
            more.put(span.more);
        }
        firsts.put_step(before.1.0, first);
        seconds.put_step(before.1.1, second);
        samples.put(amounts.samples);
        let wall_us = whole_us(amounts.wall_ns, &mut wall_rest_ns);
        let cpu_us = whole_us(amounts.cpu_ns, &mut cpu_rest_ns);
        wall.put(wall_us);
        cpu.put(match cpu_us {
            0 => 0,
            _ => zigzag(wall_us as i64 - cpu_us as i64) + 1,
        });
        before = (span.bucket, (first, second));
    }
    table
}

/// Whole microseconds; what is left over goes to the next, so that sums are right.
fn whole_us(ns: u64, rest_ns: &mut u64) -> u64 {
    let ns = ns.saturating_add(*rest_ns);
    *rest_ns = ns % 1_000;
    // More than a script can hold is no time that has passed.
    (ns / 1_000).min(1 << 52)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::pack::tests::unpacked;
    use super::*;

    /// A row as a page reads it.
    #[derive(Debug, PartialEq, Eq)]
    pub struct Row {
        pub span: Span,
        pub numbers: (u32, u32),
        pub amounts: Amounts,
    }

    /// The rows of columns, as a page reads them.
    pub fn rows(table: &Table) -> Vec<Row> {
        let mut columns = table.each_ref().map(|column| unpacked(column).into_iter());
        let mut next = |column: usize| columns[column].next();
        let step = |from: u32, by: u64| {
            let by = (by >> 1) as i64 ^ -((by & 1) as i64);
            u32::try_from(i64::from(from) + by).unwrap()
        };
        let mut rows: Vec<Row> = Vec::new();
        while let Some(head) = next(0) {
            let (bucket, numbers) =
                rows.last().map_or((0, (0, 0)), |row| (row.span.bucket, row.numbers));
            let bucket = bucket + (head / 2) as u32;
            let more = if head % 2 == 1 { next(1).unwrap() as u32 } else { 0 };
            let numbers = (step(numbers.0, next(2).unwrap()), step(numbers.1, next(3).unwrap()));
            let [samples, wall_us, cpu] = [4, 5, 6].map(|column| next(column).unwrap());
            let cpu_us = match cpu {
                0 => 0,
                _ => {
                    let exceeded = ((cpu - 1) >> 1) as i64 ^ -(((cpu - 1) & 1) as i64);
                    (wall_us as i64 - exceeded) as u64
                }
            };
            let amounts = Amounts { samples, wall_ns: wall_us * 1_000, cpu_ns: cpu_us * 1_000 };
            rows.push(Row { span: Span { bucket, more }, numbers, amounts });
        }
        rows
    }

    fn one(wall_ns: u64) -> Amounts {
        Amounts { samples: 1, wall_ns, cpu_ns: 0 }
    }

    #[test]
    fn columns() {
        let mut counted = Counted::new(vec![1; 3], 10);
        let at = |bucket, more| Span { bucket, more };
        counted.add(at(5, 0), 1, one(900));
        counted.add(at(5, 0), 1, one(400));
        counted.add(at(6, 3), 2, Amounts { cpu_ns: 5_000, ..one(3_999) });
        let [table, rest] = counted.pack(9, |group| (0, group));
        let expected = [&[10, 3][..], &[3], &[0, 0], &[2, 2], &[2, 1], &[1, 4], &[0, 2]];
        assert_eq!(table.map(|column| unpacked(&column)), expected.map(<[u64]>::to_vec));
        assert_eq!(rows(&rest), []);
    }

    #[test]
    fn rare_groups_lose_first() {
        // One group all along, and hundreds of them a few times each.
        let sizes: Vec<u64> = std::iter::once(4_000).chain([4; 500]).collect();
        let mut counted = Counted::new(sizes, 1_000);
        for bucket in 0..400 {
            let span = Span { bucket, more: 0 };
            counted.add(span, 0, Amounts { samples: 10, ..one(10_000) });
            for group in 0..5 {
                let group = 1 + (bucket % 100) * 5 + group;
                counted.add(span, group, one(1_000));
            }
            while counted.is_full() {
                counted.coarsen();
            }
        }
        let [exact, rare] = counted.pack(399, |group| (0, group)).map(|table| rows(&table));
        let spans: Vec<_> = exact.iter().map(|row| (row.numbers.1, row.span)).collect();
        let all: Vec<_> = (0..400).map(|bucket| (0, Span { bucket, more: 0 })).collect();
        assert_eq!(spans, all);
        assert!(exact.len() + rare.len() <= 1_000 && rare.len() >= 500, "{}", rare.len());
        for group in 1..=500 {
            let samples = rare.iter().filter(|row| row.numbers.1 == group);
            assert_eq!(samples.map(|row| row.amounts.samples).sum::<u64>(), 4);
        }
    }

    #[test]
    fn spans_widen_to_whole_runs_that_nest() {
        let span = Span { bucket: 5, more: 6 };
        assert_eq!(span.widened(0), span);
        assert_eq!(span.widened(1), Span { bucket: 4, more: 7 });
        assert_eq!(span.widened(1).widened(3), span.widened(3));
        assert_eq!(span.widened(3), Span { bucket: 0, more: 15 });
        assert_eq!(span.widened(3).halved(), Span { bucket: 0, more: 7 });
    }

    #[test]
    fn each_group_keeps_a_span() {
        let mut counted = Counted::new(vec![1; 100], 10);
        for group in 0..100 {
            counted.add(Span { bucket: group, more: 0 }, group, one(1));
        }
        assert!(!counted.is_full());
        let mut counted = Counted::new(vec![2; 100], 10);
        for bucket in 0..200 {
            counted.add(Span { bucket, more: 0 }, bucket % 100, one(1));
        }
        while counted.is_full() {
            counted.coarsen();
        }
        assert_eq!(counted.spans.len(), 100);
    }
}
