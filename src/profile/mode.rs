//! Which time counts. A profile holds all of it, and all that it was spent on, and shows what is
//! asked for.

use std::borrow::Cow;

use super::{Pattern, Profile, Sample, Stack, State};

/// Whose time counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// All that passes.
    #[default]
    Wall,
    /// CPU time that was used.
    Cpu,
    /// Time in which the thread held the GIL.
    Gil,
    /// Time in which an exception was raised or handled.
    Exception,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Wall, Self::Cpu, Self::Gil, Self::Exception];

    /// The name that the option uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Cpu => "cpu",
            Self::Gil => "gil",
            Self::Exception => "exception",
        }
    }

    /// What a sample weighs, in nanoseconds, if it counts.
    fn weight_ns(self, sample: &Sample) -> Option<u64> {
        match self {
            Self::Wall => Some(sample.weight_ns),
            Self::Cpu => sample.state.has(State::ON_CPU).then_some(sample.cpu_ns),
            Self::Gil => sample.state.has(State::HAS_GIL).then_some(sample.weight_ns),
            Self::Exception => sample.state.has(State::HAS_EXCEPTION).then_some(sample.weight_ns),
        }
    }
}

/// What of a profile is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Whose time counts.
    pub mode: Mode,
    /// Only the threads that one of these matches, by name or kernel id; all if there is none.
    pub threads: Vec<Pattern>,
    /// Whether garbage collections are part of what they interrupt, rather than frames of their own.
    pub hides_gc: bool,
}

impl Profile {
    /// The profile as it is to be shown.
    pub fn viewed(&self, view: &View) -> Cow<'_, Self> {
        let mut shown = self.in_mode(view.mode);
        if !view.threads.is_empty() {
            shown = Cow::Owned(shown.of_threads(&view.threads).into_owned());
        }
        if view.hides_gc {
            shown = Cow::Owned(shown.without_collections());
        }
        shown
    }

    /// The profile without `<GC>` frames, which are always the newest of their stacks.
    fn without_collections(&self) -> Self {
        let is_collection = |stack: &Stack| {
            let function = self.function(stack.frame);
            (&*function.file, &*function.name) == ("~", "<GC>")
        };
        let shown = self.samples.iter().map(|sample| {
            let stack = &self.stacks[sample.stack.0 as usize];
            let parent = stack.parent.filter(|_| is_collection(stack));
            Some(Sample { stack: parent.unwrap_or(sample.stack), ..sample.clone() })
        });
        self.with_samples(shown.collect())
    }

    /// The profile with only those samples that count in a mode, weighed by what counts.
    pub fn in_mode(&self, mode: Mode) -> Cow<'_, Self> {
        if mode == Mode::Wall {
            return Cow::Borrowed(self);
        }
        let weighed = |sample: &Sample| {
            let weight_ns = mode.weight_ns(sample)?;
            Some(Sample { weight_ns, ..sample.clone() })
        };
        let mut shown = self.with_samples(self.samples.iter().map(weighed).collect());
        if mode == Mode::Cpu {
            shown.timeline.weigh_cpu();
        }
        shown.meta.mode = mode;
        Cow::Owned(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{add, profile, sample};
    use crate::profile::ThreadId;

    #[test]
    fn a_mode_keeps_what_counts_and_weighs_it() {
        let mut profile = profile(&[("a:1", 5), ("b:1", 7), ("c:1", 9)]);
        let states = [State::ON_CPU, State::HAS_GIL, State::default()];
        for (sample, state) in profile.samples.iter_mut().zip(states) {
            sample.state = state;
            sample.cpu_ns = if state == State::ON_CPU { 4_000_000 } else { 0 };
        }
        let counts = |mode| {
            let shown = profile.in_mode(mode);
            assert_eq!((shown.stacks.len(), shown.meta.mode), (shown.samples.len(), mode));
            assert_eq!(shown.meta.samples, shown.samples.iter().map(|s| s.count).sum::<u64>());
            shown.samples.iter().map(|s| (s.count, s.weight_ns / 1_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(counts(Mode::Wall), [(5, 5), (7, 7), (9, 9)]);
        assert_eq!(counts(Mode::Cpu), [(5, 4)]);
        assert_eq!(counts(Mode::Gil), [(7, 7)]);
    }

    #[test]
    fn threads_are_chosen_as_well() {
        let mut whole = profile(&[("a:1", 1)]);
        add(&mut whole, 43, &[("b:1", 2)]);
        let only = View { threads: vec!["43".parse().unwrap()], ..View::default() };
        let shown = whole.viewed(&only);
        assert_eq!((shown.threads.len(), shown.meta.samples), (1, 2));
    }

    #[test]
    fn collections_become_part_of_what_they_interrupt() {
        let mut whole = profile(&[("a:1", 5)]);
        let frames = [("/app/t.py", "a", 1), ("~", "<GC>", 0)];
        sample(&mut whole, ThreadId(0), frames, 3);
        whole.samples[1].state = State::IN_GC;
        let shown = whole.viewed(&View { hides_gc: true, ..View::default() });
        let counts: Vec<_> = shown.samples.iter().map(|s| (s.stack, s.state, s.count)).collect();
        let stack = shown.samples[0].stack;
        assert_eq!(counts, [(stack, State::default(), 5), (stack, State::IN_GC, 3)]);
        assert_eq!((shown.stacks.len(), shown.meta.samples), (1, 8));
        assert_eq!(*whole.viewed(&View::default()), whole);
    }
}
