//! What was sampled when, in a few hundred buckets of time: what a page adds up for a range, a thread or a state.

use std::collections::HashMap;

use super::pack::{Packed, zigzag};
use crate::hash::FastHash;
use crate::profile::{Moment, Numbers, Profile};

/// The most buckets that the time is cut into.
const MOST_BUCKETS: u64 = 400;
/// The most entries in all; buckets are made wider until there are no more.
const MOST_ENTRIES: usize = 200_000;

/// Where samples are counted. What goes on for longer than a bucket is one entry over several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    /// The first bucket.
    bucket: u32,
    /// How many more it goes on for, evenly.
    more: u32,
    /// The thread and state.
    track: u32,
    /// The node of the stack.
    node: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amounts {
    samples: u64,
    wall_ns: u64,
    cpu_ns: u64,
}

impl Amounts {
    fn add(&mut self, other: Self) {
        self.samples = self.samples.saturating_add(other.samples);
        self.wall_ns = self.wall_ns.saturating_add(other.wall_ns);
        self.cpu_ns = self.cpu_ns.saturating_add(other.cpu_ns);
    }
}

/// What was sampled, counted.
pub(super) struct Entries {
    /// Thread, and state as bits, of each track.
    pub tracks: Numbers<(u32, u8)>,
    /// The width of a bucket in nanoseconds; `None` if nothing is known of when samples were taken.
    pub bucket_ns: Option<u64>,
    counted: HashMap<Place, Amounts, FastHash>,
    last_bucket: u32,
}

impl Entries {
    /// Counts the samples of a profile, whose stacks are at the nodes `node_of`. Times are left out
    /// unless `timed`.
    pub fn new(profile: &Profile, node_of: impl Fn(u32) -> u32, timed: bool) -> Self {
        let bucket_ns = (timed && profile.has_timeline()).then(|| first_width(profile));
        let tracks = Numbers::default();
        let mut entries = Self { tracks, bucket_ns, counted: HashMap::default(), last_bucket: 0 };
        for moment in profile.moments().filter(|moment| moment.count > 0) {
            let sample = &profile.samples[moment.sample];
            let track = entries.tracks.of((sample.thread.0, sample.state.bits()));
            let node = node_of(sample.stack.0);
            let Moment { count, weight_ns, cpu_ns, .. } = moment;
            let amounts = Amounts { samples: count, wall_ns: weight_ns, cpu_ns };
            let (bucket, more) = entries.buckets(&moment, profile.meta.interval_ns);
            entries.add(Place { bucket, more, track, node }, amounts);
        }
        entries
    }

    /// The first bucket of what goes on for some time, and how many follow.
    fn buckets(&mut self, moment: &Moment, interval_ns: u64) -> (u32, u32) {
        while self.bucket_ns.is_some_and(|width| moment.at_ns / width >= MOST_BUCKETS) {
            self.coarsen();
        }
        let Some(width) = self.bucket_ns else { return (0, 0) };
        let last = moment.at_ns / width;
        // Weights of other modes are not the time that has passed.
        let length = moment.weight_ns.max(moment.count.saturating_mul(interval_ns));
        let first = if length > width {
            moment.at_ns.saturating_sub(length).div_ceil(width).min(last)
        } else {
            last
        };
        (first as u32, (last - first) as u32)
    }

    fn add(&mut self, place: Place, amounts: Amounts) {
        self.counted.entry(place).or_default().add(amounts);
        self.last_bucket = self.last_bucket.max(place.bucket + place.more);
        if self.counted.len() > MOST_ENTRIES && self.last_bucket > 0 {
            self.coarsen();
        }
    }

    fn coarsen(&mut self) {
        self.bucket_ns = self.bucket_ns.map(|width| width.saturating_mul(2));
        self.last_bucket /= 2;
        for (place, amounts) in std::mem::take(&mut self.counted) {
            let last = (place.bucket + place.more) / 2;
            let bucket = place.bucket / 2;
            let place = Place { bucket, more: last - bucket, ..place };
            self.counted.entry(place).or_default().add(amounts);
        }
    }

    /// How many buckets there are.
    pub fn buckets_used(&self) -> u32 {
        self.last_bucket + u32::from(!self.counted.is_empty())
    }

    /// All entries in order of time, as columns, which pack better than rows: twice the step of the bucket,
    /// plus one if there are further buckets; how many, of those that have any; the steps of track and node,
    /// zigzag; samples; microseconds; and those on a processor, 0 for none, else one more than the zigzag
    /// of what the former exceed them by.
    pub fn pack(&self) -> [Packed; 7] {
        let mut places: Vec<(&Place, &Amounts)> = self.counted.iter().collect();
        places.sort_unstable_by_key(|(place, _)| **place);
        let mut packed: [Packed; 7] = Default::default();
        let [buckets, more, tracks, nodes, samples, wall, cpu] = &mut packed;
        let mut before = Place { bucket: 0, more: 0, track: 0, node: 0 };
        let (mut wall_rest_ns, mut cpu_rest_ns) = (0, 0);
        for (&place, amounts) in places {
            buckets.put(u64::from(place.bucket - before.bucket) * 2 + u64::from(place.more > 0));
            if place.more > 0 {
                more.put(place.more);
            }
            tracks.put_step(before.track, place.track);
            nodes.put_step(before.node, place.node);
            samples.put(amounts.samples);
            let wall_us = whole_us(amounts.wall_ns, &mut wall_rest_ns);
            let cpu_us = whole_us(amounts.cpu_ns, &mut cpu_rest_ns);
            wall.put(wall_us);
            cpu.put(match cpu_us {
                0 => 0,
                _ => zigzag(wall_us as i64 - cpu_us as i64) + 1,
            });
            before = place;
        }
        packed
    }
}

/// Whole microseconds; what is left over goes to the next, so that sums are right.
fn whole_us(ns: u64, rest_ns: &mut u64) -> u64 {
    let ns = ns.saturating_add(*rest_ns);
    *rest_ns = ns % 1_000;
    // More than a script can hold is no time that has passed.
    (ns / 1_000).min(1 << 52)
}

/// The narrowest buckets that are worth while.
fn first_width(profile: &Profile) -> u64 {
    let start = profile.meta.start_unix_ns;
    let ends = profile.processes.iter().map(|process| {
        process.start_unix_ns.saturating_sub(start).saturating_add(process.duration_ns)
    });
    let length = ends.max().unwrap_or(profile.meta.duration_ns);
    (length / MOST_BUCKETS).max(profile.meta.interval_ns).max(1_000) + 1
}

#[cfg(test)]
mod tests {
    use super::super::pack::tests::unpacked;
    use super::*;
    use crate::export::testing::{add, profile};

    /// The numbers of each entry, those of the next behind them.
    fn rows(entries: &Entries) -> Vec<u64> {
        let mut columns = entries.pack().map(|column| unpacked(&column).into_iter());
        let mut rows = Vec::new();
        while let Some(head) = columns[0].next() {
            rows.push(head);
            if head % 2 == 1 {
                rows.extend(columns[1].next());
            }
            columns[2..].iter_mut().for_each(|column| rows.extend(column.next()));
        }
        rows
    }

    fn entries(moments: &[(u64, u64, u32)], width: u64) -> Entries {
        let profile = profile(&[]);
        let mut entries =
            Entries { bucket_ns: Some(width), ..Entries::new(&profile, |stack| stack, true) };
        for &(at_ns, weight_ns, node) in moments {
            let moment = Moment { sample: 0, at_ns, count: 1, weight_ns, cpu_ns: 0 };
            let (bucket, more) = entries.buckets(&moment, 1);
            let amounts = Amounts { samples: 1, wall_ns: weight_ns, cpu_ns: 0 };
            entries.add(Place { bucket, more, track: 0, node }, amounts);
        }
        entries
    }

    #[test]
    fn what_goes_on_is_one_entry() {
        let entries = entries(&[(5_500, 900, 1), (5_900, 400, 1), (9_999, 3_999, 2)], 1_000);
        assert_eq!(entries.buckets_used(), 10);
        let expected = [10, 0, 2, 2, 1, 0, 3, 3, 0, 2, 1, 4, 0];
        assert_eq!(rows(&entries), expected);
    }

    #[test]
    fn wider_buckets_where_time_is_longer() {
        let entries = entries(&[(0, 1, 1), (1_000 * 401, 1, 1), (1_000 * 801, 1, 1)], 1_000);
        assert_eq!(entries.bucket_ns, Some(4_000));
        assert_eq!(entries.buckets_used(), 201);
    }

    #[test]
    fn wider_buckets_where_there_is_much() {
        let moments: Vec<_> =
            (0..MOST_ENTRIES as u64 + 2).map(|at| (at, 1, at as u32 / 4)).collect();
        let entries = entries(&moments, 1_000);
        assert_eq!((entries.bucket_ns, entries.counted.len()), (Some(1_000), MOST_ENTRIES / 4 + 1));
    }

    #[test]
    fn without_times_all_is_at_once() {
        let mut profile = profile(&[("a:1", 2), ("b:1", 1)]);
        add(&mut profile, 7, &[("a:1", 3)]);
        profile.samples[1].cpu_ns = 400_000;
        let entries = Entries::new(&profile, |stack| stack + 1, true);
        assert_eq!((entries.bucket_ns, entries.buckets_used()), (None, 1));
        assert_eq!(entries.tracks.keys, [(0, 0), (1, 0)]);
        let expected = [0, 0, 2, 2, 2_000, 0, 0, 0, 2, 1, 1_000, 1_201, 0, 2, 1, 3, 3_000, 0];
        assert_eq!(rows(&entries), expected);
    }
}
