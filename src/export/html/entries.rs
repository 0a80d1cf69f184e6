//! What was sampled when, in a few hundred buckets of time: what a page adds up for a range, a thread or a state.

use std::collections::HashMap;

use super::counted::{Amounts, Counted, Span, Table};
use crate::profile::{Moment, Numbers, Profile};

/// The most buckets that the time is cut into.
pub(super) const MOST_BUCKETS: u64 = 400;
/// The most entries, if each stack of a thread has one and some have more.
const MOST_ENTRIES: usize = 100_000;
/// The same of what the strip shows: a thousand threads that have something in each bucket.
const MOST_OF_TRACKS: usize = 400_000;

/// The stacks of each track, which are what is counted.
pub(super) struct Stacks {
    /// Thread, and state as bits, of each track.
    tracks: Numbers<(u32, u8)>,
    /// The track and node of each stack of a track.
    of_tracks: Numbers<(u32, u32)>,
    /// How many samples each has.
    sizes: Vec<u64>,
    /// The one that each of the profile's tallies is of.
    of_sample: Vec<u32>,
}

impl Stacks {
    /// Of a profile, whose stacks are at the nodes `node_of`.
    pub fn new(profile: &Profile, node_of: impl Fn(u32) -> u32) -> Self {
        let mut stacks = Self {
            tracks: Numbers::default(),
            of_tracks: Numbers::default(),
            sizes: Vec::new(),
            of_sample: Vec::with_capacity(profile.samples.len()),
        };
        for sample in &profile.samples {
            let track = stacks.tracks.of((sample.thread.0, sample.state.bits()));
            let stack = stacks.of_tracks.of((track, node_of(sample.stack.0)));
            stacks.sizes.resize(stacks.of_tracks.keys.len(), 0);
            let size = &mut stacks.sizes[stack as usize];
            *size = size.saturating_add(sample.count);
            stacks.of_sample.push(stack);
        }
        stacks
    }

    /// How many samples each has.
    pub fn sizes(&self) -> &[u64] {
        &self.sizes
    }
}

/// What was sampled, counted.
pub(super) struct Entries {
    /// Thread, and state as bits, of each track.
    pub tracks: Numbers<(u32, u8)>,
    /// The width of a bucket in nanoseconds; `None` if nothing is known of when samples were taken.
    pub bucket_ns: Option<u64>,
    last_bucket: u32,
    /// The track and node of each stack of a track.
    stacks: Numbers<(u32, u32)>,
    /// What the groups of each level are in the next one: the track of each stack, and for each track the first
    /// one of the same process and state.
    above: [Vec<u32>; 2],
    /// By stack; and once that does not say all of when it was, by track; and then by process and state.
    levels: Vec<Counted>,
}

impl Entries {
    /// Counts the samples of a profile. Times are left out unless `timed`.
    pub fn new(profile: &Profile, stacks: Stacks, timed: bool) -> Self {
        let Stacks { tracks, of_tracks, sizes, of_sample } = stacks;
        let track_of = of_tracks.keys.iter().map(|&(track, _)| track).collect();
        let mut first_of = HashMap::new();
        let alike = (0..).zip(&tracks.keys).map(|(track, &(thread, state))| {
            let process = profile.threads[thread as usize].process;
            *first_of.entry((process, state)).or_insert(track)
        });
        let mut entries = Self {
            above: [track_of, alike.collect()],
            tracks,
            bucket_ns: (timed && profile.has_timeline()).then(|| first_width(profile)),
            last_bucket: 0,
            stacks: of_tracks,
            levels: vec![Counted::new(sizes, MOST_ENTRIES)],
        };
        for moment in profile.moments().filter(|moment| moment.count > 0) {
            entries.add(&moment, of_sample[moment.sample], profile.meta.interval_ns);
        }
        entries
    }

    fn add(&mut self, moment: &Moment, stack: u32, interval_ns: u64) {
        let span = self.span(moment, interval_ns);
        let &Moment { count, weight_ns, cpu_ns, .. } = moment;
        let amounts = Amounts { samples: count, wall_ns: weight_ns, cpu_ns };
        self.last_bucket = self.last_bucket.max(span.last());
        let mut group = stack;
        for (depth, level) in self.levels.iter_mut().enumerate() {
            level.add(span, group, amounts);
            group = self.above.get(depth).map_or(group, |above| above[group as usize]);
        }
        let mut depth = 0;
        while depth < self.levels.len() {
            let levels = self.levels.len();
            let level = &mut self.levels[depth];
            if !level.is_full() {
                depth += 1;
                continue;
            }
            // The first time, it is still exact.
            let next = match self.above.get(depth) {
                Some(above) if depth + 1 == levels => Some(level.merged(above, MOST_OF_TRACKS)),
                _ => None,
            };
            level.coarsen();
            self.levels.extend(next);
        }
    }

    /// The buckets in which something went on.
    fn span(&mut self, moment: &Moment, interval_ns: u64) -> Span {
        while self.bucket_ns.is_some_and(|width| moment.at_ns / width >= MOST_BUCKETS) {
            self.widen();
        }
        let Some(width) = self.bucket_ns else { return Span { bucket: 0, more: 0 } };
        let last = moment.at_ns / width;
        // Weights of other modes are not the time that has passed.
        let length = moment.weight_ns.max(moment.count.saturating_mul(interval_ns));
        let first = if length > width {
            moment.at_ns.saturating_sub(length).div_ceil(width).min(last)
        } else {
            last
        };
        Span { bucket: first as u32, more: (last - first) as u32 }
    }

    fn widen(&mut self) {
        self.bucket_ns = self.bucket_ns.map(|width| width.saturating_mul(2));
        self.last_bucket /= 2;
        self.levels.iter_mut().for_each(Counted::widen);
    }

    /// How many buckets there are.
    pub fn buckets_used(&self) -> u32 {
        self.last_bucket + u32::from(!self.levels[0].is_empty())
    }

    /// The entries, whose numbers are track and node: those that are in the buckets they belong to, and
    /// those of which less is kept. What is in each bucket of each track follows where they do not say it, and
    /// where that does not either, of each process and state, which stand at their first track.
    pub fn pack(&self) -> Vec<[Table; 2]> {
        let pack = |(depth, level): (usize, &Counted)| {
            let numbers = |group| match depth {
                0 => self.stacks.keys[group as usize],
                _ => (group, 0),
            };
            level.pack(self.last_bucket, numbers)
        };
        self.levels.iter().enumerate().map(pack).collect()
    }
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
    use std::collections::BTreeMap;

    use super::super::counted::tests::{Row, rows};
    use super::*;
    use crate::export::testing::{add, profile, sample};
    use crate::profile::timeline::{Entry, Timeline};
    use crate::profile::{ProcessId, Sample, State, ThreadId};

    fn counted(profile: &Profile, node_of: impl Fn(u32) -> u32) -> Entries {
        Entries::new(profile, Stacks::new(profile, node_of), true)
    }

    fn exact(entries: &Entries) -> Vec<Row> {
        let [tables] = &entries.pack()[..] else { panic!("they do not say all") };
        let [exact, rest] = tables.each_ref().map(rows);
        assert_eq!(rest, []);
        exact
    }

    fn row(bucket: u32, more: u32, numbers: (u32, u32), amounts: (u64, u64, u64)) -> Row {
        let (samples, wall_us, cpu_us) = amounts;
        let amounts = Amounts { samples, wall_ns: wall_us * 1_000, cpu_ns: cpu_us * 1_000 };
        Row { span: Span { bucket, more }, numbers, amounts }
    }

    /// Of moments of a sample each: their time, what they weigh, and which of two stacks they are of.
    fn entries(moments: &[(u64, u64, u32)], width: u64) -> Entries {
        let profile = profile(&[("a:1", 0), ("b:1", 0)]);
        let entries = counted(&profile, |stack| stack + 1);
        let mut entries = Entries { bucket_ns: Some(width), ..entries };
        for &(at_ns, weight_ns, stack) in moments {
            let moment = Moment { sample: 0, at_ns, count: 1, weight_ns, cpu_ns: 0 };
            entries.add(&moment, stack, 1);
        }
        entries
    }

    #[test]
    fn what_goes_on_is_one_entry() {
        let entries = entries(&[(5_500, 1_000, 0), (5_900, 1_000, 0), (9_999, 4_000, 1)], 1_000);
        assert_eq!(entries.buckets_used(), 10);
        let expected = [row(5, 0, (0, 1), (2, 2, 0)), row(6, 3, (0, 2), (1, 4, 0))];
        assert_eq!(exact(&entries), expected);
    }

    #[test]
    fn wider_buckets_where_time_is_longer() {
        let entries = entries(&[(0, 1, 0), (1_000 * 401, 1, 0), (1_000 * 801, 1, 0)], 1_000);
        assert_eq!(entries.bucket_ns, Some(4_000));
        assert_eq!(entries.buckets_used(), 201);
    }

    #[test]
    fn without_times_all_is_at_once() {
        let mut profile = profile(&[("a:1", 2), ("b:1", 1)]);
        add(&mut profile, 7, &[("a:1", 3)]);
        profile.samples[1].cpu_ns = 400_000;
        let entries = counted(&profile, |stack| stack + 1);
        assert_eq!((entries.bucket_ns, entries.buckets_used()), (None, 1));
        assert_eq!(entries.tracks.keys, [(0, 0), (1, 0)]);
        let expected = [
            row(0, 0, (0, 1), (2, 2_000, 0)),
            row(0, 0, (0, 2), (1, 1_000, 400)),
            row(0, 0, (1, 1), (3, 3_000, 0)),
        ];
        assert_eq!(exact(&entries), expected);
    }

    /// A hundred seconds, in which a sample of a millisecond was taken of each tally when it is said, in
    /// microseconds; on a processor for 900 of them.
    fn timed(mut profile: Profile, moments: &[(u64, usize)]) -> Profile {
        profile.samples.iter_mut().for_each(|sample| sample.count = 0);
        let (mut block, mut before_us) = (Vec::new(), 0);
        for &(end_us, tally) in moments {
            let sample = &mut profile.samples[tally];
            sample.count += 1;
            let is_on_cpu = sample.state.has(State::ON_CPU);
            sample.weight_ns = sample.count * 1_000_000;
            sample.cpu_ns = sample.count * 900_000 * u64::from(is_on_cpu);
            let cpu_us = Some(900 * u64::from(is_on_cpu));
            Entry { tally: tally as u32, end_us, wall_us: Some(1_000), cpu_us, count: 1 }
                .write(before_us, &mut block);
            before_us = end_us;
        }
        profile.meta.duration_ns = 100_000_000_000;
        profile.processes[0].duration_ns = profile.meta.duration_ns;
        let tallies = 0..profile.samples.len() as u32;
        profile.timeline = Timeline::new(vec![block.into()], tallies.collect());
        profile
    }

    /// Three threads with so many stacks each, a sample after the other. An eighth is in the first stack. Every
    /// other second they are on a processor.
    fn busy(stacks: usize) -> Profile {
        let mut profile = profile(&[]);
        profile.threads.clear();
        for thread in 0..3 {
            let names: Vec<String> = (0..stacks).map(|at| format!("f:{}", at + 1)).collect();
            let stacks: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
            add(&mut profile, thread, &stacks);
        }
        let off = profile.samples.clone();
        let on_cpu = off.into_iter().map(|sample| Sample { state: State::ON_CPU, ..sample });
        profile.samples.extend(on_cpu);
        let mut random = 1_u64;
        let mut next = |most: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % most
        };
        let mut moments = Vec::new();
        for ms in 1..=100_000_u64 {
            for thread in 0..3 {
                let stack = if next(8) == 0 { 0 } else { next(stacks) };
                let is_on_cpu = ms / 1_000 % 2 == 0;
                let tally = thread * stacks + stack + 3 * stacks * usize::from(is_on_cpu);
                moments.push((ms * 1_000 - thread as u64, tally));
            }
        }
        timed(profile, &moments)
    }

    /// Sums by a key of rows.
    fn sums<K: Ord>(rows: &[Row], key: impl Fn(&Row) -> K) -> BTreeMap<K, Amounts> {
        let mut sums = BTreeMap::new();
        for row in rows {
            sums.entry(key(row)).or_insert_with(Amounts::default).add(row.amounts);
        }
        sums
    }

    /// What the profile itself says of each track.
    fn in_profile(profile: &Profile, entries: &mut Entries) -> BTreeMap<u32, Amounts> {
        let mut sums = BTreeMap::new();
        for sample in profile.samples.iter().filter(|sample| sample.count > 0) {
            let track = entries.tracks.of((sample.thread.0, sample.state.bits()));
            let &Sample { count, weight_ns, cpu_ns, .. } = sample;
            let amounts = Amounts { samples: count, wall_ns: weight_ns, cpu_ns };
            sums.entry(track).or_insert_with(Amounts::default).add(amounts);
        }
        sums
    }

    /// What the profile itself says of each bucket, by a key of threads and states.
    fn in_buckets<K: Ord>(
        profile: &Profile,
        key: impl Fn(&Sample) -> K,
    ) -> BTreeMap<(u32, K), Amounts> {
        let mut sums = BTreeMap::new();
        for moment in profile.moments() {
            let place = ((moment.at_ns / 250_000_001) as u32, key(&profile.samples[moment.sample]));
            let Moment { count, weight_ns, cpu_ns, .. } = moment;
            let amounts = Amounts { samples: count, wall_ns: weight_ns, cpu_ns };
            sums.entry(place).or_insert_with(Amounts::default).add(amounts);
        }
        sums
    }

    #[test]
    fn beyond_the_limit_the_strip_is_exact() {
        let profile = busy(1_000);
        let mut entries = counted(&profile, |stack| stack + 1);
        assert_eq!((entries.bucket_ns, entries.buckets_used()), (Some(250_000_001), 400));
        let expected = in_profile(&profile, &mut entries);
        let [of_stacks, of_tracks] = &entries.pack()[..] else { panic!("one strip") };
        let [exact, rare] = of_stacks.each_ref().map(rows);
        let all: Vec<Row> = exact.into_iter().chain(rare).collect();
        assert!((MOST_ENTRIES / 4..=MOST_ENTRIES).contains(&all.len()), "{}", all.len());
        // The time of rare stacks is told in samples, and to a few of them.
        for ((track, sum), (expected_track, expected)) in
            sums(&all, |row| row.numbers.0).into_iter().zip(&expected)
        {
            assert_eq!((track, sum.samples), (*expected_track, expected.samples));
            assert!(expected.wall_ns.abs_diff(sum.wall_ns) <= 4_500_000, "{sum:?}");
            assert!(expected.cpu_ns.abs_diff(sum.cpu_ns) <= 4_500_000, "{sum:?}");
        }
        // The first stack of each thread is told for every bucket.
        let first: Vec<Row> = all.into_iter().filter(|row| row.numbers.1 == 1).collect();
        assert!(first.iter().all(|row| row.span.more == 0));
        assert!(first.len() > 3 * 400, "{}", first.len());

        let [strip, rest] = of_tracks.each_ref().map(rows);
        assert_eq!(rest, []);
        assert!(strip.iter().all(|row| row.span.more == 0));
        assert_eq!(sums(&strip, |row| row.numbers.0), expected);
        let of_strip = sums(&strip, |row| {
            let (thread, state) = entries.tracks.keys[row.numbers.0 as usize];
            (row.span.bucket, (thread, state))
        });
        let key = |sample: &Sample| (sample.thread.0, sample.state.bits());
        assert_eq!(of_strip, in_buckets(&profile, key));
    }

    #[test]
    fn below_the_limit_entries_say_all() {
        let profile = busy(20);
        let mut entries = counted(&profile, |stack| stack + 1);
        let expected = in_profile(&profile, &mut entries);
        assert_eq!(sums(&exact(&entries), |row| row.numbers.0), expected);
    }

    #[test]
    fn of_too_many_threads_all_together_are_exact() {
        const THREADS: usize = 1_100;
        let mut profile = profile(&[]);
        profile.processes.push(profile.processes[0].clone());
        profile.threads = vec![profile.threads[0].clone(); THREADS];
        for thread in 0..THREADS {
            profile.threads[thread].process = ProcessId(u32::from(thread % 3 == 0));
            sample(&mut profile, ThreadId(thread as u32), [("/a.py", "f", 1)], 1);
        }
        let buckets = (0..400).flat_map(|bucket| (0..THREADS).map(move |thread| (bucket, thread)));
        let moments = buckets
            .filter(|(bucket, thread)| (bucket + thread) % 40 > 0)
            .map(|(bucket, thread)| (bucket as u64 * 250_000 + 100_000, thread));
        let profile = timed(profile, &moments.collect::<Vec<_>>());
        let mut entries = counted(&profile, |stack| stack + 1);
        let expected = in_profile(&profile, &mut entries);
        let levels = entries.pack();
        let [of_stacks, of_tracks, of_processes] = &levels[..] else { panic!("two strips") };
        for (level, most) in [(of_stacks, MOST_ENTRIES), (of_tracks, MOST_OF_TRACKS)] {
            let rows: Vec<Row> = level.iter().flat_map(rows).collect();
            assert!(rows.len() <= most);
            assert_eq!(sums(&rows, |row| row.numbers.0), expected);
        }
        let [strip, rest] = of_processes.each_ref().map(rows);
        assert_eq!(rest, []);
        let process = |thread: u32| profile.threads[thread as usize].process.0;
        let of_strip = sums(&strip, |row| {
            (row.span.bucket, process(entries.tracks.keys[row.numbers.0 as usize].0))
        });
        assert_eq!(of_strip, in_buckets(&profile, |sample| process(sample.thread.0)));
        assert_eq!(strip.len(), 2 * 400);
    }
}
