//! The reader on memory that is damaged, hostile or pure noise: it may fail, but it ends, within
//! its bounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/capture.rs"]
mod capture;
#[allow(dead_code, unused_imports)]
#[path = "support/mod.rs"]
mod support;

#[path = "support/hostile.rs"]
mod hostile;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use capture::capture;
use hostile::{Damage, LAYOUTS, Noise, Victim};
use support::{Cores, on_each};

/// Noise is slow to make where it is not optimized.
const CASES: u32 = if cfg!(debug_assertions) { 48 } else { 256 };

fn any_damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        extreme_word().prop_map(Damage::Value),
        (0..64_u32).prop_map(Damage::FlippedBit),
        (any::<usize>(), any::<i8>()).prop_map(|(word, distance)| Damage::Address(word, distance)),
        any::<usize>().prop_map(Damage::Contents),
    ]
}

fn extreme_word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..4096_u64,
        (0..4096_u64).prop_map(|below| u64::MAX - below),
        (0..64_u32).prop_map(|bit| 1 << bit),
    ]
}

#[test]
fn damaged_images_are_survived() {
    on_each(Cores::one, |interpreter| {
        let victim = Victim::new(capture(interpreter, 25)?);
        let damages = prop::collection::vec((any::<usize>(), any_damage()), 1..40);
        let config = Config { cases: 128, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&(damages, any::<u64>()), |(damages, pattern)| {
                victim.survives(&damages, pattern);
                Ok(())
            })
            .map_err(|error| error.to_string())
    });
}

fn any_noise() -> impl Strategy<Value = Noise> {
    let object = prop_oneof![
        (1..1_u64 << 40).prop_map(|number| number * 16),
        (1..512_u64).prop_map(|number| u64::MAX - number * 16 + 1),
        extreme_word(),
    ];
    let end = prop_oneof![Just(u64::MAX), Just(1 << 47), Just(1 << 41)];
    (any::<u64>(), prop::collection::vec(object, 1..5), end)
        .prop_map(|(seed, objects, end)| Noise { seed, objects, end })
}

/// A table of offsets, in which any may be out of all bounds.
fn any_offsets() -> impl Strategy<Value = Vec<u64>> {
    let offset = prop_oneof![
        40 => (0..64_u64).prop_map(|word| word * 8),
        4 => 0..1024_u64,
        1 => extreme_word(),
    ];
    prop::collection::vec(offset, 96)
}

proptest! {
    #![proptest_config(Config { cases: CASES, failure_persistence: None, ..Config::default() })]

    #[test]
    fn noise_is_survived(noise in any_noise(), which in 0..LAYOUTS.len()) {
        noise.survived_as(which);
    }

    #[test]
    fn hostile_offsets_are_survived(
        noise in any_noise(),
        offsets in any_offsets(),
        minor in 13..=15_u64,
        free_threaded in any::<bool>(),
    ) {
        noise.survived_with(&offsets, minor, free_threaded);
    }
}
