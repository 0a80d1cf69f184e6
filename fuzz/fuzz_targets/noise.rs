//! Memory in which every address holds something, and runtimes that tell any offsets.
#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../tests/support/capture.rs"]
mod capture;
#[path = "../../tests/support/hostile.rs"]
mod hostile;
#[path = "../../tests/support/mod.rs"]
mod support;

use hostile::{LAYOUTS, Noise};
use libfuzzer_sys::fuzz_target;

const MOST_OFFSETS: usize = 96;

fuzz_target!(|input: (u64, [u64; 4], u64, u8, bool, Vec<u16>, [(u8, u64); 3])| {
    let (seed, objects, end, version, free_threaded, small, extreme) = input;
    let noise = Noise { seed, objects: objects.to_vec(), end };
    let version = usize::from(version) % (LAYOUTS.len() + 3);
    if version < LAYOUTS.len() {
        return noise.survived_as(version);
    }
    let small = small.into_iter().chain(0..).map(u64::from);
    let mut offsets: Vec<u64> = small.map(|offset| offset % 1024).take(MOST_OFFSETS).collect();
    for (place, value) in extreme {
        if let Some(offset) = offsets.get_mut(usize::from(place)) {
            *offset = value;
        }
    }
    noise.survived_with(&offsets, 8 + version as u64, free_threaded);
});
