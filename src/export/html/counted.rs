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

    /// All that is as it was added, and all that is not: its time is told in samples of the usual weight.
    pub fn pack(&self, last_bucket: u32, numbers: impl Fn(u32) -> (u32, u32)) -> [Table; 2] {
        let all = self.spans.values().fold(Amounts::default(), |mut sum, &amounts| {
            sum.add(amounts);
            sum
        });
        let usual_us = (all.wall_ns / 1_000).checked_div(all.samples).unwrap_or_default();
        let exact = Scale { unit_us: 1, usual: usual_us, slack: 0 };
        let rare = Scale { unit_us: usual_us.max(1), usual: 1, slack: SLACK };
        [(true, exact), (false, rare)].map(|(is_exact, scale)| {
            let groups =
                self.spans.iter().filter(|((_, group), _)| self.is_exact(*group) == is_exact);
            let rows = groups.map(|(&(span, group), &amounts)| {
                // What was widened may reach further than there is time.
                let span = Span::between(span.bucket, span.last().min(last_bucket));
                (span, numbers(group), amounts)
            });
            pack(rows.collect(), scale)
        })
    }
}

/// How time is told in a table.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// Its unit in microseconds.
    pub unit_us: u64,
    /// How many of them a sample usually weighs.
    pub usual: u64,
    /// Sums over neighbours are right to so many.
    slack: u32,
}

/// Rows in order of time, as columns, which pack better.
pub(super) struct Table {
    pub scale: Scale,
    /// Twice the step of the bucket, plus one if there are further buckets; how many, of those that have any; the
    /// steps of the group's two numbers, zigzag; samples; what the time exceeds their usual weight by, zigzag; and
    /// that on a processor, 0 for none, else one more than the zigzag of what the former exceeds it by.
    pub columns: [Packed; 7],
}

fn pack(mut rows: Vec<(Span, (u32, u32), Amounts)>, scale: Scale) -> Table {
    rows.sort_unstable_by_key(|&(span, numbers, _)| (span, numbers));
    let mut columns = <[Packed; 7]>::default();
    let [buckets, more, firsts, seconds, samples, walls, cpus] = &mut columns;
    let mut before = (0, (0, 0));
    // What of the times of each first number has not been told yet.
    let mut rests_ns: HashMap<u32, [i64; 2]> = HashMap::new();
    for (span, (first, second), amounts) in rows {
        buckets.put(u64::from(span.bucket - before.0) * 2 + u64::from(span.more > 0));
        if span.more > 0 {
            more.put(span.more);
        }
        firsts.put_step(before.1.0, first);
        seconds.put_step(before.1.1, second);
        samples.put(amounts.samples);
        let [wall_rest_ns, cpu_rest_ns] = rests_ns.entry(first).or_default();
        let usual = amounts.samples.saturating_mul(scale.usual).min(MOST_UNITS) as i64;
        let wall = scale.units(amounts.wall_ns, usual, wall_rest_ns);
        walls.put(zigzag(wall - usual));
        cpus.put(match amounts.cpu_ns {
            0 => 0,
            ns => zigzag(wall - scale.units(ns, wall, cpu_rest_ns)) + 1,
        });
        before = (span.bucket, (first, second));
    }
    Table { scale, columns }
}

/// More than a script can hold is no time that has passed.
const MOST_UNITS: u64 = 1 << 51;
/// More keeps no less of a page, and is seen.
const SLACK: u32 = 4;

impl Scale {
    /// A time in units: what is expected, as long as that and what has not been told before differ by little.
    fn units(self, ns: u64, expected: i64, rest_ns: &mut i64) -> i64 {
        let unit_ns = self.unit_us.saturating_mul(1_000).min(1 << 62) as i64;
        let ns = i64::try_from(ns).unwrap_or(i64::MAX).saturating_add(*rest_ns);
        let expected_ns = expected.saturating_mul(unit_ns);
        let is_near =
            ns.saturating_sub(expected_ns).abs() < i64::from(self.slack).saturating_mul(unit_ns);
        let exact = ns.saturating_add(unit_ns / 2).div_euclid(unit_ns);
        let units = if is_near { expected } else { exact.clamp(0, MOST_UNITS as i64) };
        *rest_ns = ns.saturating_sub(units.saturating_mul(unit_ns));
        units
    }
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
        let mut columns = table.columns.each_ref().map(|column| unpacked(column).into_iter());
        let mut next = |column: usize| columns[column].next();
        let signed = |number: u64| (number >> 1) as i64 ^ -((number & 1) as i64);
        let step = |from: u32, by: u64| u32::try_from(i64::from(from) + signed(by)).unwrap();
        let mut rows: Vec<Row> = Vec::new();
        while let Some(head) = next(0) {
            let (bucket, numbers) =
                rows.last().map_or((0, (0, 0)), |row| (row.span.bucket, row.numbers));
            let bucket = bucket + (head / 2) as u32;
            let more = if head % 2 == 1 { next(1).unwrap() as u32 } else { 0 };
            let numbers = (step(numbers.0, next(2).unwrap()), step(numbers.1, next(3).unwrap()));
            let [samples, wall, cpu] = [4, 5, 6].map(|column| next(column).unwrap());
            let wall = (samples * table.scale.usual) as i64 + signed(wall);
            let cpu = if cpu == 0 { 0 } else { wall - signed(cpu - 1) };
            let ns = |units: i64| u64::try_from(units).unwrap() * table.scale.unit_us * 1_000;
            let amounts = Amounts { samples, wall_ns: ns(wall), cpu_ns: ns(cpu) };
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
        assert_eq!((table.scale.unit_us, table.scale.usual), (1, 1));
        let expected = [&[10, 3][..], &[3], &[0, 0], &[2, 2], &[2, 1], &[1, 6], &[0, 2]];
        assert_eq!(table.columns.map(|column| unpacked(&column)), expected.map(<[u64]>::to_vec));
        assert_eq!(rows(&rest), []);
    }

    #[test]
    fn what_is_not_exact_is_told_in_samples() {
        let mut counted = Counted::new(vec![2; 1_000], 1_000);
        for group in 0..1_000 {
            for bucket in [1, 9] {
                let weight_ns = 9_300 + u64::from(group % 8) * 200;
                let amounts = Amounts { cpu_ns: weight_ns / 2, ..one(weight_ns) };
                counted.add(Span { bucket, more: 0 }, group, amounts);
            }
        }
        assert!(counted.is_full());
        counted.coarsen();
        counted.coarsen();
        let [exact, rare] = counted.pack(399, |group| (0, group));
        assert_eq!((exact.scale.usual, rows(&exact)), (10, vec![]));
        assert_eq!((rare.scale.unit_us, rare.scale.usual), (10, 1));
        let rows = rows(&rare);
        assert_eq!(rows.len(), 1_000);
        for some in rows.chunks(100) {
            let mut sum = Amounts::default();
            some.iter().for_each(|row| sum.add(row.amounts));
            assert_eq!(sum.samples, 200);
            assert!(sum.wall_ns.abs_diff(200 * 10_000) <= 45_000, "{sum:?}");
            assert!(sum.cpu_ns.abs_diff(100 * 10_000) <= 45_000, "{sum:?}");
        }
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
