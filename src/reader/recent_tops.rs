//! Where the newest frames of a thread lay lately.

use crate::mem::Address;

/// How many are remembered, of calls that may have begun, too: enough for some of a function that is rarely seen.
const MOST: u64 = 128;

/// The last ones, each once.
#[derive(Debug, Default)]
pub(super) struct RecentTops {
    /// With how many had been remembered when it was so last.
    tops: Vec<(Address, u64)>,
    remembered: u64,
}

impl RecentTops {
    /// Remembers one more, and so forgets the oldest.
    pub(super) fn remember(&mut self, top: Address) {
        self.remembered += 1;
        let (now, oldest) = (self.remembered, self.oldest());
        match self.tops.iter_mut().find(|(known, _)| *known == top) {
            Some((_, last)) => *last = now,
            None => {
                self.tops.retain(|&(_, last)| last >= oldest);
                self.tops.push((top, now));
            }
        }
    }

    /// The highest of those that are at most so far away from an address; at least that itself.
    pub(super) fn highest_near(&self, from: Address, distance: u64) -> Address {
        let oldest = self.oldest();
        let lately = self.tops.iter().filter(|&&(_, last)| last >= oldest).map(|&(top, _)| top);
        lately.filter(|top| top.abs_diff(from) <= distance).fold(from, Address::max)
    }

    fn oldest(&self) -> u64 {
        (self.remembered + 1).saturating_sub(MOST)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_the_last_ones(
            tops in prop::collection::vec(1..300_u64, 0..600),
            distance in 0..300_u64,
        ) {
            let mut recent = RecentTops::default();
            let mut last = VecDeque::new();
            for top in tops {
                recent.remember(top);
                last.push_back(top);
                last.drain(..last.len().saturating_sub(MOST as usize));
                let near = last.iter().copied().filter(|other| other.abs_diff(top) <= distance);
                prop_assert_eq!(recent.highest_near(top, distance), near.max().unwrap_or(top));
                prop_assert!(recent.tops.len() as u64 <= MOST);
            }
        }
    }
}
