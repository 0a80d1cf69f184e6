//! Overwrites words of images of real interpreters, every one that is on the machine.
#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../tests/support/capture.rs"]
mod capture;
#[path = "../../tests/support/hostile.rs"]
mod hostile;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::sync::LazyLock;

use hostile::{Damage, Victim};
use libfuzzer_sys::fuzz_target;

/// Few frames, so that an execution is short.
const DEPTH: usize = 8;
const MOST_DAMAGES: usize = 40;

static VICTIMS: LazyLock<Vec<Victim>> = LazyLock::new(|| {
    let captured = |one| capture::capture(one, DEPTH).expect("an image");
    support::supported().iter().map(|one| Victim::new(captured(one))).collect()
});

fuzz_target!(|input: (usize, u64, Vec<(u16, u8, u64, u16, i8)>)| {
    let (which, pattern, mut damages) = input;
    damages.truncate(MOST_DAMAGES);
    let damages: Vec<(usize, Damage)> = damages
        .into_iter()
        .map(|(place, kind, value, other, distance)| {
            let damage = match kind % 4 {
                0 => Damage::Value(value),
                1 => Damage::FlippedBit(distance as u32),
                2 => Damage::Address(other.into(), distance),
                _ => Damage::Contents(other.into()),
            };
            (place.into(), damage)
        })
        .collect();
    VICTIMS[which % VICTIMS.len()].survives(&damages, pattern);
});
