//! How well asynchronous reading works for a thread, and so whether it is held still instead; and how well that works.

/// Samples after which a trial is judged.
const TRIAL: u32 = 256;
/// More troubled samples than this in a trial and the thread is held: beyond 4% the bias could
/// show. Where frames are objects, trouble is nearly all the shortest functions', and 1% is too much.
const MOST_TROUBLED: u32 = 10;
const MOST_TROUBLED_OBJECTS: u32 = 2;
/// Samples for which a thread is held before asynchronous reading gets another trial: at first,
/// and at most after trial upon trial has failed.
const SHORTEST_HOLD: u32 = 128;
const SHORTEST_HOLD_OBJECTS: u32 = 1024;
const LONGEST_HOLD: u32 = 16384;
/// What is thought of a thread.
#[derive(Clone, Copy, Debug)]
pub enum Mood {
    /// Read asynchronously; counts samples and how many of them had to be taken by other means.
    Trial { samples: u32, troubled: u32, next_hold: u32 },
    /// Held still for this many samples more.
    Holding { left: u32, next_hold: u32 },
}

impl Default for Mood {
    fn default() -> Self {
        Self::trial(SHORTEST_HOLD)
    }
}

impl Mood {
    fn trial(next_hold: u32) -> Self {
        Self::Trial { samples: 0, troubled: 0, next_hold }
    }

    /// Whether the thread is to be held for its next sample. Each time counts.
    pub fn holds_once_more(&mut self) -> bool {
        let Self::Holding { left, next_hold } = *self else { return false };
        *self = match left.checked_sub(1) {
            Some(left) => Self::Holding { left, next_hold },
            None => Self::trial(next_hold),
        };
        true
    }

    /// Takes note of a sample that was not held, and whether other means were needed for it.
    /// `has_data_stack` is false where frames are objects.
    pub fn judge(&mut self, is_troubled: bool, has_data_stack: bool) {
        let (most, shortest) = match has_data_stack {
            true => (MOST_TROUBLED, SHORTEST_HOLD),
            false => (MOST_TROUBLED_OBJECTS, SHORTEST_HOLD_OBJECTS),
        };
        let Self::Trial { samples, troubled, next_hold } = *self else { return };
        let troubled = troubled + u32::from(is_troubled);
        *self = if is_troubled && troubled > most {
            let left = next_hold.max(shortest);
            Self::Holding { left, next_hold: (left * 2).min(LONGEST_HOLD) }
        } else if samples + 1 == TRIAL {
            Self::default()
        } else {
            Self::Trial { samples: samples + 1, troubled, next_hold }
        };
    }
}

/// How often a thread has let go of its interpreter between the signal that holds it and its arrival.
///
/// A signal takes some microseconds to get to another processor, and meets the thread where it next returns from
/// the kernel if that comes first: one that makes system calls all the time is only ever met at those.
#[derive(Clone, Copy, Debug, Default)]
pub struct Skids(u32);

impl Skids {
    /// One is as much as so many arrivals in time.
    const WEIGHT: u32 = 8;
    const MANY: u32 = 4 * Self::WEIGHT;

    /// Takes note of a thread that was held, and whether it came too late.
    pub fn note(&mut self, has_skidded: bool) {
        self.0 = match has_skidded {
            true => (self.0 + Self::WEIGHT).min(2 * Self::MANY),
            false => self.0.saturating_sub(1),
        };
    }

    /// Whether holding shows other moments than reading does.
    pub fn are_many(self) -> bool {
        self.0 >= Self::MANY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples_held(mood: &mut Mood) -> u32 {
        (0..).take_while(|_| mood.holds_once_more()).count() as u32
    }

    #[test]
    fn trouble_has_the_thread_held_longer_and_longer() {
        let mut mood = Mood::default();
        let mut held = Vec::new();
        for _ in 0..10 {
            assert!(!mood.holds_once_more());
            (0..=MOST_TROUBLED).for_each(|_| mood.judge(true, true));
            held.push(samples_held(&mut mood) - 1);
        }
        assert_eq!(held[..3], [SHORTEST_HOLD, 2 * SHORTEST_HOLD, 4 * SHORTEST_HOLD]);
        assert_eq!(held[9], LONGEST_HOLD);
    }

    #[test]
    fn skids_are_many_if_they_are_one_of_nine() {
        let mut skids = Skids::default();
        (0..90).for_each(|held| skids.note(held % 10 == 0));
        assert!(!skids.are_many());
        (0..90).for_each(|held| skids.note(held % 5 == 0));
        assert!(skids.are_many());
        (0..90).for_each(|_| skids.note(false));
        assert!(!skids.are_many());
    }

    #[test]
    fn a_good_trial_forgives() {
        let mut mood = Mood::default();
        (0..=MOST_TROUBLED).for_each(|_| mood.judge(true, true));
        samples_held(&mut mood);
        (0..TRIAL).for_each(|sample| mood.judge(sample < MOST_TROUBLED, true));
        (0..=MOST_TROUBLED).for_each(|_| mood.judge(true, true));
        assert_eq!(samples_held(&mut mood), SHORTEST_HOLD + 1);
    }

    #[test]
    fn less_is_borne_where_frames_are_objects() {
        let mut mood = Mood::default();
        (0..=MOST_TROUBLED_OBJECTS).for_each(|_| mood.judge(true, false));
        assert_eq!(samples_held(&mut mood), SHORTEST_HOLD_OBJECTS + 1);
    }
}
