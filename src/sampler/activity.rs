//! What a thread is doing besides running its stack: whether it is on a processor, whether it holds
//! the GIL, and how much CPU time it has used.

use crate::os::clock;

/// A thread's state at the moment of a sample, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State(u8);

impl State {
    /// Running on a processor, or waiting only because the sampler runs there for a moment.
    pub const ON_CPU: Self = Self(1);
    /// Holding its interpreter's GIL; in a free-threaded build, attached to its interpreter.
    pub const HAS_GIL: Self = Self(2);
    /// Waiting for the GIL; in a free-threaded build, for leave to go on.
    pub const WAITS_FOR_GIL: Self = Self(4);
    /// Collecting garbage.
    pub const IN_GC: Self = Self(8);
    /// Handling an exception: in an `except` or `finally` block, or on the way to one.
    pub const HAS_EXCEPTION: Self = Self(16);
    /// In code that is not Python's: in a C function that the newest frame has called.
    pub const IN_NATIVE: Self = Self(32);
    /// Where the number of the generation that is collected begins: one more than it, 0 where it is not
    /// known.
    const GENERATION: u32 = 6;
    /// The collector with its generation.
    const COLLECTION: Self = Self(Self::IN_GC.0 | 3 << Self::GENERATION);

    /// Whether all of `other` is in it.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// As a number, which [`from_bits`](Self::from_bits) takes back.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// `None` for what is no state of this version.
    pub fn from_bits(bits: u32) -> Option<Self> {
        let state = Self(u8::try_from(bits).ok()?);
        (state.has(Self::IN_GC) || state.0 >> Self::GENERATION == 0).then_some(state)
    }

    /// Collecting garbage, up to a generation: 0 to 2.
    pub fn collecting(self, generation: Option<u8>) -> Self {
        let number = generation.map_or(0, |generation| generation.min(2) + 1);
        Self(self.without_collection().0 | Self::IN_GC.0 | number << Self::GENERATION)
    }

    /// Not collecting garbage.
    pub fn without_collection(self) -> Self {
        self.without(Self::COLLECTION)
    }

    /// The oldest generation that is collected, 0 to 2, where it is known.
    pub fn generation(self) -> Option<u8> {
        (self.0 >> Self::GENERATION).checked_sub(1)
    }

    /// With `other`, if it is so.
    pub fn with(self, other: Self, is_so: bool) -> Self {
        if is_so { Self(self.0 | other.0) } else { self }
    }

    /// What of it is in `other`, too.
    pub fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Without `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// What a sample stands for, or several of a thread that are alike, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// How many samples.
    pub count: u64,
    /// When the last one was taken, in nanoseconds on the monotonic clock.
    pub at_ns: u64,
    /// What the thread was doing.
    pub state: State,
    /// Time since the sample before, in nanoseconds.
    pub wall_ns: u64,
    /// CPU time since the sample before that was on a processor, in nanoseconds; 0 for a sample
    /// that was not, so that no CPU time goes to where a thread waits.
    pub cpu_ns: u64,
}

/// A thread's CPU clock between samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuClock {
    last: Option<Look>,
    /// CPU time between the last two looks, and the time that passed.
    used_ns: u64,
    passed_ns: u64,
    /// CPU time that was used, and is in no sample yet.
    pub unspent_ns: u64,
    /// Whether it has run all the time between the last two looks, with the GIL at the end.
    is_steady: bool,
    /// Until when such a thread's time counts as used, and how much of it no look has shown yet.
    counted_until_ns: u64,
    ahead_ns: u64,
    /// What of the time between the last two looks had not counted by the second, and what of that was used.
    rest_passed_ns: u64,
    rest_used_ns: u64,
    /// Before that no look is put off.
    no_steady_until_ns: u64,
    /// When the clock was last seen to have moved, in nanoseconds on the monotonic clock.
    pub moved_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    cpu_ns: u64,
    at_ns: u64,
}

/// Nanoseconds between two readings of a thread's clock, which take a system call each: at the highest
/// rates, several samples have one.
const SHORTEST_NS: u64 = 20_000;
/// The same of a thread that keeps running: as long as it has the GIL, its time counts as used until then.
const STEADY_NS: u64 = 250_000;
/// For so long no look is put off at a thread that had the GIL and did not run.
const DISTRUST_NS: u64 = 50_000_000;

impl CpuClock {
    /// Reads the clock of a thread that is about to be sampled, at `at_ns`. Returns whether the
    /// thread has not run since the last look. Of the CPU time that it has used before it was first
    /// looked at, `most_before_ns` count at most.
    pub fn look(&mut self, tid: u32, at_ns: u64, most_before_ns: u64) -> bool {
        self.look_with(|| clock::thread_cpu_ns(tid), at_ns, most_before_ns)
    }

    /// As [`look`](Self::look), where the clock can be read.
    fn look_with(
        &mut self,
        read: impl FnOnce() -> Option<u64>,
        at_ns: u64,
        most_before_ns: u64,
    ) -> bool {
        let pause = if self.is_steady { STEADY_NS } else { SHORTEST_NS };
        if self.last.is_some_and(|last| at_ns.saturating_sub(last.at_ns) < pause) {
            return false;
        }
        self.is_steady = false;
        self.note(read(), at_ns, most_before_ns)
    }

    fn note(&mut self, cpu_ns: Option<u64>, at_ns: u64, most_before_ns: u64) -> bool {
        let Some(cpu_ns) = cpu_ns else {
            self.last = None;
            self.ahead_ns = 0;
            return false;
        };
        let now = Look { cpu_ns, at_ns };
        let is_first = self.last.is_none();
        let last = self.last.replace(now).unwrap_or(Look {
            cpu_ns: cpu_ns.saturating_sub(most_before_ns),
            at_ns: at_ns.saturating_sub(most_before_ns),
        });
        self.used_ns = cpu_ns.saturating_sub(last.cpu_ns);
        self.passed_ns = at_ns.saturating_sub(last.at_ns);
        self.rest_used_ns = self.used_ns.saturating_sub(self.ahead_ns);
        self.rest_passed_ns = at_ns.saturating_sub(last.at_ns.max(self.counted_until_ns));
        self.unspent_ns += self.rest_used_ns;
        self.ahead_ns = self.ahead_ns.saturating_sub(self.used_ns);
        if self.ahead_ns >= SHORTEST_NS {
            self.no_steady_until_ns = at_ns + DISTRUST_NS;
        }
        if self.used_ns > 0 {
            self.moved_ns = at_ns;
        }
        self.used_ns == 0 && !is_first
    }

    /// The thread has not run from the last look to this moment.
    pub fn stood_until(&mut self, at_ns: u64) {
        if let Some(last) = &mut self.last {
            last.at_ns = last.at_ns.max(at_ns);
        }
    }

    /// What the clock showed at the last look, in nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        self.last.map_or(0, |last| last.cpu_ns)
    }

    /// Whether the thread has not run since the last look.
    pub fn is_unmoved(&self, tid: u32) -> bool {
        self.last.is_some_and(|last| clock::thread_cpu_ns(tid) == Some(last.cpu_ns))
    }

    /// Goes on at `at_ns` where the look at a steady thread was put off: what the next one will show
    /// counts now, if it still has the GIL, and otherwise is looked for at once. Where there was a look, it tells
    /// whether the thread is steady.
    fn catch_up(&mut self, read: impl Fn() -> Option<u64>, has_gil: bool, at_ns: u64) {
        if self.is_steady && has_gil {
            let last_ns = self.last.map_or(at_ns, |last| last.at_ns);
            let new_ns = at_ns.saturating_sub(last_ns.max(self.counted_until_ns));
            self.unspent_ns += new_ns;
            self.ahead_ns += new_ns;
            self.counted_until_ns = at_ns;
            self.moved_ns = at_ns;
            return;
        }
        if self.is_steady {
            self.note(read(), at_ns, 0);
        }
        let has_run_on = self.used_ns > 0 && self.used_ns >= self.passed_ns / 8 * 7;
        // What counted and was not used is used up before more does so.
        let is_trusted = self.ahead_ns < SHORTEST_NS && at_ns >= self.no_steady_until_ns;
        self.is_steady = has_gil && has_run_on && is_trusted;
    }

    /// The state of a thread that was sampled after a [`look`](Self::look), at `at_ns`, and is seen to have the GIL
    /// or not.
    pub fn state(&mut self, tid: u32, has_gil: bool, at_ns: u64) -> State {
        self.state_with(|| clock::thread_cpu_ns(tid), has_gil, at_ns)
    }

    /// As [`state`](Self::state), where the clock can be read.
    fn state_with(&mut self, read: impl Fn() -> Option<u64>, has_gil: bool, at_ns: u64) -> State {
        self.catch_up(&read, has_gil, at_ns);
        // Where processors are few, the sampler often runs in the place of the very thread that it
        // looks at. One that has run until then either has the GIL, with which none waits for
        // anything else, or has run for most of the time.
        let was_until_now = has_gil || self.rest_used_ns * 2 >= self.rest_passed_ns;
        let is_moving = || read() != self.last.map(|look| look.cpu_ns);
        let is_on_cpu = self.used_ns > 0 && (was_until_now || is_moving());
        State::default().with(State::HAS_GIL, has_gil).with(State::ON_CPU, is_on_cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that is sampled every 100 microseconds.
    struct Simulated<F: Fn(u64) -> (u64, bool)> {
        /// Its CPU time and whether it has the GIL, at a time in microseconds.
        at: F,
        clock: CpuClock,
        now_us: u64,
        looks: usize,
    }

    impl<F: Fn(u64) -> (u64, bool)> Simulated<F> {
        fn new(at: F) -> Self {
            Self { at, clock: CpuClock::default(), now_us: 0, looks: 0 }
        }

        /// Its state in the next sample, and the CPU time in microseconds that counts there.
        fn sample(&mut self) -> (State, u64) {
            self.now_us += 100;
            let (used_us, has_gil) = (self.at)(self.now_us);
            let at_ns = self.now_us * 1_000;
            let mut looks = 0;
            self.clock.look_with(
                || {
                    looks += 1;
                    Some(used_us * 1_000)
                },
                at_ns,
                0,
            );
            let state = self.clock.state_with(|| Some(used_us * 1_000), has_gil, at_ns);
            self.looks += looks;
            (state, std::mem::take(&mut self.clock.unspent_ns) / 1_000)
        }
    }

    #[test]
    fn time_that_counts_before_it_is_seen_counts_once() {
        const SAMPLES: u64 = 10_000;
        let runs = |us: u64| (us, true);
        // In turns, without the GIL; in a C function that keeps it; and at times for long.
        let shares = |us: u64| (us / 1_000 * 400 + (us % 1_000).min(400), us % 1_000 < 400);
        let blocks = |us: u64| (us / 1_300 * 300 + (us % 1_300).min(300), true);
        let rests = |us: u64| (us / 90_000 * 60_000 + (us % 90_000).min(60_000), true);
        for at in [&runs as &dyn Fn(u64) -> (u64, bool), &shares, &blocks, &rests] {
            let mut thread = Simulated::new(at);
            let counted: u64 = (0..SAMPLES).map(|_| thread.sample().1).sum();
            let used = at(thread.now_us).0;
            assert!(
                counted.abs_diff(used) <= (STEADY_NS + SHORTEST_NS) / 1_000,
                "{counted} of {used}"
            );
        }
        let mut thread = Simulated::new(runs);
        (0..SAMPLES)
            .for_each(|_| assert!(thread.sample().0.has(State::ON_CPU) || thread.now_us < 200));
        assert!(thread.looks as u64 * 5 < SAMPLES * 2, "{}", thread.looks);
    }

    #[test]
    fn no_time_counts_for_long_where_a_thread_keeps_the_gil_and_does_not_run() {
        let is_running = |us: u64| us % 1_300 < 300;
        let mut thread = Simulated::new(|us| (us / 1_300 * 300 + (us % 1_300).min(300), true));
        let (mut counted, mut misplaced) = (0, 0);
        for _ in 0..10_000 {
            let (_, us) = thread.sample();
            counted += us;
            // What was used just before the wait counts at its first sample.
            let was_running = is_running(thread.now_us) || is_running(thread.now_us - 100);
            misplaced += if was_running { 0 } else { us };
        }
        assert!(misplaced * 100 < counted, "{misplaced} of {counted}");
    }

    #[test]
    fn a_thread_that_has_begun_to_wait_is_on_no_processor() {
        for stop_us in 10_000..10_400 {
            let mut thread = Simulated::new(|us| (us.min(stop_us), us <= stop_us));
            while thread.now_us < stop_us {
                thread.sample();
            }
            let idle_us = thread.now_us - stop_us;
            let states = [thread.sample().0, thread.sample().0];
            // One that has run for most of the time since the sample before may run on.
            let may_run = idle_us < 50 && thread.now_us - 200 == stop_us + idle_us;
            let is_wrong = states.iter().filter(|state| state.has(State::ON_CPU)).count();
            assert!(is_wrong <= usize::from(may_run), "{stop_us}: {states:?}");
        }
    }

    #[test]
    fn states_are_sets() {
        let both = State::ON_CPU.with(State::HAS_GIL, true);
        assert!(both.has(State::ON_CPU) && both.has(State::HAS_GIL));
        assert!(!State::ON_CPU.has(State::HAS_GIL) && State::ON_CPU.has(State::default()));
        assert_eq!(both.without(State::HAS_GIL), State::ON_CPU);
        assert_eq!(State::from_bits(both.bits().into()), Some(both));
        assert_eq!([State::from_bits(64), State::from_bits(259)], [None, None]);
    }

    #[test]
    fn a_collection_has_a_generation() {
        for generation in [None, Some(0), Some(1), Some(2)] {
            let state = State::HAS_GIL.collecting(Some(2)).collecting(generation);
            assert!(state.has(State::IN_GC) && state.has(State::HAS_GIL));
            assert_eq!(state.generation(), generation);
            assert_eq!(State::from_bits(state.bits().into()), Some(state));
            assert_eq!(state.without_collection(), State::HAS_GIL);
        }
        assert_eq!(State::ON_CPU.generation(), None);
    }
}
