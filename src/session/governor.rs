//! Keeps what sampling costs within what is allowed: samples become rarer where each costs more. Their
//! weights stay right, as each weighs the time since the one before.

/// Looks at the cost now and then, and says how far apart samples are to be.
#[derive(Debug)]
pub(super) struct Governor {
    /// The most of one processor's time, as a share.
    most: f64,
    asked_ns: u64,
    interval_ns: u64,
    /// At the last look: time, the sampler's own CPU time, cycles since.
    looked_ns: u64,
    used_ns: u64,
    cycles: u64,
}

/// Time between two looks.
const LOOK_NS: u64 = 250_000_000;
/// Changes by less are not worth it.
const LEAST_CHANGE: f64 = 0.05;
/// However much a sample costs, there is one in this time.
const LONGEST_INTERVAL_NS: u64 = 1_000_000_000;

impl Governor {
    /// For samples `asked_ns` apart that may take `most` of a processor's time, from `now_ns` on,
    /// when the sampler has used `used_ns` of CPU time.
    pub fn new(most: f64, asked_ns: u64, now_ns: u64, used_ns: u64) -> Self {
        let (interval_ns, looked_ns) = (asked_ns, now_ns);
        Self { most, asked_ns, interval_ns, looked_ns, used_ns, cycles: 0 }
    }

    /// After a cycle. Returns how far apart samples are from now on, if that changes.
    pub fn after_cycle(
        &mut self,
        now_ns: u64,
        used_ns: impl FnOnce() -> Option<u64>,
    ) -> Option<u64> {
        self.cycles += 1;
        if now_ns.saturating_sub(self.looked_ns) < LOOK_NS.max(2 * self.interval_ns) {
            return None;
        }
        let used_ns = used_ns()?;
        let cost_ns = used_ns.saturating_sub(self.used_ns) as f64 / self.cycles as f64;
        (self.looked_ns, self.used_ns, self.cycles) = (now_ns, used_ns, 0);
        let needed_ns = (cost_ns / self.most).min(LONGEST_INTERVAL_NS as f64) as u64;
        let next_ns = needed_ns.max(self.asked_ns);
        let change = next_ns.abs_diff(self.interval_ns) as f64 / self.interval_ns as f64;
        if change < LEAST_CHANGE {
            return None;
        }
        self.interval_ns = next_ns;
        Some(next_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What sampling costs, as a share, once every sample costs `cost_ns`.
    fn settled(governor: &mut Governor, cost_ns: u64) -> f64 {
        let (mut now_ns, mut used_ns) = (governor.looked_ns, governor.used_ns);
        let mut interval_ns = governor.interval_ns;
        for _ in 0..20_000 {
            now_ns += interval_ns;
            used_ns += cost_ns;
            interval_ns = governor.after_cycle(now_ns, || Some(used_ns)).unwrap_or(interval_ns);
        }
        cost_ns as f64 / interval_ns as f64
    }

    #[test]
    fn what_is_allowed_is_not_exceeded_and_used_where_needed() {
        let mut governor = Governor::new(0.01, 1_000_000, 5, 7);
        assert!((settled(&mut governor, 40_000) - 0.01).abs() < 0.001);
        assert!((settled(&mut governor, 400_000) - 0.01).abs() < 0.001);
        // Cheap samples are as often as was asked for.
        assert_eq!(settled(&mut governor, 2_000), 0.002);
        assert!(
            settled(&mut governor, 1 << 40) > 1.0 && governor.interval_ns == LONGEST_INTERVAL_NS
        );
    }
}
