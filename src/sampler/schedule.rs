//! When to sample: one instant in each interval, at a random place in it, so that a program with a
//! period of its own is not always met at the same point.

/// The instants, on the monotonic clock in nanoseconds.
#[derive(Clone, Debug)]
pub struct Schedule {
    interval: u64,
    /// Start of the interval whose instant comes next.
    slot: u64,
    random: Random,
}

impl Schedule {
    /// Instants from `start` on, one in each `interval` (at least 1).
    pub fn new(start: u64, interval: u64, seed: u64) -> Self {
        Self { interval: interval.max(1), slot: start, random: Random(seed | 1) }
    }

    /// The next instant.
    pub fn next_instant(&mut self) -> u64 {
        let instant = self.slot + self.random.draw() % self.interval;
        self.slot += self.interval;
        instant
    }

    /// From the next instant on there is one in each of these.
    pub fn set_interval(&mut self, interval: u64) {
        self.interval = interval.max(1);
    }

    /// Skips the instants of intervals that are over at `now`. Returns how many.
    pub fn skip_past(&mut self, now: u64) -> u64 {
        let missed = now.saturating_sub(self.slot) / self.interval;
        self.slot += missed * self.interval;
        missed
    }
}

/// xorshift64*: small, fast, and good enough to break periods.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_instant_in_each_interval_anywhere_in_it() {
        let mut schedule = Schedule::new(1000, 100, 42);
        let phases: Vec<u64> =
            (0..1000).map(|slot| schedule.next_instant() - 1000 - slot * 100).collect();
        assert!(phases.iter().all(|&phase| phase < 100));
        let early = phases.iter().filter(|&&phase| phase < 50).count();
        assert!((400..600).contains(&early), "{early}");
    }

    #[test]
    fn lateness_is_counted_and_not_caught_up() {
        let mut schedule = Schedule::new(0, 100, 42);
        schedule.next_instant();
        assert_eq!(schedule.skip_past(150), 0);
        assert_eq!(schedule.skip_past(1050), 9);
        assert!(schedule.next_instant() >= 1000);
    }
}
