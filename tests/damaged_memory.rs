//! The reader on memory that is damaged, hostile or pure noise: it may fail, but it ends, within
//! its bounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/capture.rs"]
mod capture;
#[allow(dead_code, unused_imports)]
#[path = "support/mod.rs"]
mod support;

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use pysamp::layout::detect::{self, Build, Symbols};
use pysamp::layout::{Layout, Version, debug_offsets, tables};
use pysamp::mem::{Address, Fault, Memory, MemoryImage, RecordingMemory};
use pysamp::reader::codes::{CodeTable, Located};
use pysamp::reader::frames::{MOST_FRAMES, RawFrame, Walker};
use pysamp::reader::self_check::{self, Known};
use pysamp::reader::thread_names::NameReader;
use pysamp::reader::threads::{self, PthreadTid, ThreadState};
use pysamp::sampler::snapshot::{Outcome, Protocol, Snapshotter, Target};

use capture::{Capture, capture};
use support::{Cores, on_each};

const LAYOUTS: [Layout; 5] =
    [tables::V3_8, tables::V3_9, tables::V3_10, tables::V3_11, tables::V3_12];
/// Any tid that is in use by nobody.
const NOBODY: u32 = 0x3FFF_FFFF;
/// Noise is slow to make where it is not optimized.
const CASES: u32 = if cfg!(debug_assertions) { 48 } else { 256 };
/// What one look may cost: some multiple of the reader's largest cap.
const MOST_READS: u64 = 1 << 20;
const LARGEST_READ: usize = 4 << 20;

/// Everything that the sampler knows when it starts.
struct Runtime {
    build: Build,
    code_type: Address,
    pthread_tid: Option<PthreadTid>,
}

/// Memory that fails the test where the reader asks for too much.
struct Bounded<'a, M> {
    inner: &'a M,
    batched: bool,
    reads: Cell<u64>,
}

impl<M: Memory> Memory for Bounded<'_, M> {
    fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault> {
        self.reads.set(self.reads.get() + 1);
        assert!(self.reads.get() <= MOST_READS, "reads without end");
        assert!(into.len() <= LARGEST_READ, "reads {} bytes at once", into.len());
        self.inner.read(from, into)
    }

    fn prefers_batches(&self) -> bool {
        self.batched
    }
}

/// Does all that the sampler does, in both ways of reading, and checks what can be checked.
fn is_survived(memory: &impl Memory, runtime: &Runtime) -> Result<(), TestCaseError> {
    for batched in [false, true] {
        look(&|| Bounded { inner: memory, batched, reads: Cell::new(0) }, runtime)?;
    }
    Ok(())
}

fn look<'a, M: Memory + 'a>(
    fresh: &impl Fn() -> Bounded<'a, M>,
    runtime: &Runtime,
) -> Result<(), TestCaseError> {
    let Runtime { build, code_type, pthread_tid } = runtime;
    let layout = &build.layout;
    let _ = threads::is_finalizing(&fresh(), build);
    let known = Known { main_tid: NOBODY, code_type: None, pthread_tid: *pthread_tid };
    let _ = self_check::check(&fresh(), build, &known);
    let mut interpreters = Vec::new();
    let _ = threads::interpreters(&fresh(), build, &mut interpreters);
    let mut states = Vec::new();
    for &interpreter in interpreters.iter().take(3) {
        let _ = threads::threads(&fresh(), layout, *pthread_tid, interpreter, &mut states);
        let _ = NameReader::default().names(&fresh(), layout, interpreter);
    }
    // What a thread state's address may be while the list of threads changes.
    let strays = [interpreters.first().copied(), Some(*code_type)].into_iter().flatten();
    states.truncate(2);
    states.extend(strays.map(|at| ThreadState { at, ident: 0, tid: NOBODY, interpreter: 0 }));

    let mut codes = CodeTable::new(layout.clone(), *code_type);
    let mut snapshotter = Snapshotter::new(
        build.clone(),
        Protocol::Asynchronous,
        CodeTable::new(layout.clone(), *code_type),
    );
    let mut walker = Walker::default();
    let mut target = Target::default();
    let mut frames: Vec<RawFrame> = Vec::new();
    for state in &states {
        for _ in 0..2 {
            let _ = walker.walk(&fresh(), layout, state.at, &mut frames);
            prop_assert!(frames.len() <= MOST_FRAMES);
            for frame in frames.iter().take(64) {
                if let Ok(proven) = codes.resolve(&fresh(), frame.code) {
                    prop_assert!(codes.code(proven.id).is_some());
                    codes.locate(proven.id, proven.units as i32 - 1);
                }
                codes.at_instruction(frame.instruction);
            }
            if snapshotter.take(&fresh(), state, &mut target) == Outcome::Stack {
                prop_assert!((1..=MOST_FRAMES).contains(&target.stack.len()));
                for &Located { code, index } in &target.stack {
                    prop_assert!(snapshotter.codes.code(code).is_some());
                    snapshotter.codes.locate(code, index);
                }
            }
        }
    }
    Ok(())
}

/// What a word of memory is overwritten with.
#[derive(Clone, Debug)]
enum Damage {
    Value(u64),
    FlippedBit(u32),
    /// The address of another word that the reader reads, or one close to it.
    Address(prop::sample::Index, i8),
    /// The contents of another word that the reader reads.
    Contents(prop::sample::Index),
}

fn any_damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        extreme_word().prop_map(Damage::Value),
        (0..64_u32).prop_map(Damage::FlippedBit),
        (any::<prop::sample::Index>(), any::<i8>())
            .prop_map(|(word, distance)| Damage::Address(word, distance)),
        any::<prop::sample::Index>().prop_map(Damage::Contents),
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

/// One image as it is or damaged, differently from read to read.
struct Flickering<'a> {
    whole: &'a MemoryImage,
    damaged: &'a MemoryImage,
    pattern: u64,
    reads: Cell<u32>,
}

impl Memory for Flickering<'_> {
    fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault> {
        let reads = self.reads.get();
        self.reads.set(reads.wrapping_add(1));
        let is_damaged = self.pattern >> (reads % 64) & 1 == 1;
        if is_damaged { self.damaged } else { self.whole }.read(from, into)
    }

    fn prefers_batches(&self) -> bool {
        false
    }
}

/// The words of the image that the reader makes use of.
fn words_read(captured: &Capture) -> Vec<Address> {
    let image = captured.image.clone().preferring_batches(false);
    let memory = RecordingMemory::new(image);
    let mut interpreters = Vec::new();
    threads::interpreters(&memory, &captured.build, &mut interpreters).unwrap();
    let Capture { build, pthread_tid, thread, .. } = captured;
    let mut states = Vec::new();
    threads::threads(&memory, &build.layout, *pthread_tid, interpreters[0], &mut states).unwrap();
    assert_eq!(states, [*thread]);
    assert!(NameReader::default().names(&memory, &build.layout, interpreters[0]).is_ok());
    let outcome = captured.snapshotter().take(&memory, thread, &mut Target::default());
    assert_eq!(outcome, Outcome::Stack);
    let image = memory.image();
    let words = image.ranges().flat_map(|(start, bytes)| {
        (start.next_multiple_of(8)..start + bytes.len() as u64 - 7).step_by(8)
    });
    words.collect()
}

#[test]
fn damaged_images_are_survived() {
    on_each(Cores::one, |interpreter| {
        let captured = capture(interpreter, 25)?;
        let words = words_read(&captured);
        let runtime = Runtime {
            build: captured.build.clone(),
            code_type: captured.code_type,
            pthread_tid: captured.pthread_tid,
        };
        is_survived(&captured.image, &runtime).map_err(|error| error.to_string())?;
        let damages = prop::collection::vec((any::<prop::sample::Index>(), any_damage()), 1..40);
        let config = Config { cases: 128, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&(damages, any::<u64>()), |(damages, pattern)| {
                let mut damaged = captured.image.clone();
                for (place, damage) in damages {
                    let at = *place.get(&words);
                    let value = match damage {
                        Damage::Value(value) => value,
                        Damage::FlippedBit(bit) => damaged.word(at).unwrap() ^ (1 << bit),
                        Damage::Address(other, distance) => {
                            other.get(&words).wrapping_add_signed(distance.into())
                        }
                        Damage::Contents(other) => damaged.word(*other.get(&words)).unwrap(),
                    };
                    damaged.poke(at, &value.to_ne_bytes()).unwrap();
                }
                is_survived(&damaged, &runtime)?;
                let whole = &captured.image;
                let reads = Cell::new(0);
                is_survived(&Flickering { whole, damaged: &damaged, pattern, reads }, &runtime)
            })
            .map_err(|error| error.to_string())
    });
}

/// Memory in which every address holds something: zeros, small numbers, extremes, and addresses
/// of few objects, so that lists end in cycles.
#[derive(Debug)]
struct Noise {
    seed: u64,
    objects: Vec<Address>,
    /// Reads from here on fault.
    end: Address,
    runtime: MemoryImage,
}

impl Noise {
    fn word_of(&self, at: Address) -> u64 {
        let mixed = (at ^ self.seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let choice = mixed ^ (mixed >> 32);
        let index = (choice >> 8) as usize % self.objects.len();
        match choice % 16 {
            0 | 1 => 0,
            2 => (choice >> 8) % 64,
            3 => (choice >> 8) % 8192,
            4 => choice,
            5 => u64::MAX - (choice >> 8) % 4096,
            6..11 => self.objects[0],
            _ => self.objects[index],
        }
    }
}

impl Memory for Noise {
    fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault> {
        if self.runtime.read(from, into).is_ok() {
            return Ok(());
        }
        if from >= self.end || into.len() as u64 > self.end - from {
            return Err(Fault);
        }
        let mut at = from;
        let mut rest = into;
        while !rest.is_empty() {
            let skipped = (at % 8) as usize;
            let bytes = &self.word_of(at & !7).to_ne_bytes()[skipped..];
            let length = bytes.len().min(rest.len());
            let (filled, left) = rest.split_at_mut(length);
            filled.copy_from_slice(&bytes[..length]);
            at = at.wrapping_add(length as u64);
            rest = left;
        }
        Ok(())
    }

    fn prefers_batches(&self) -> bool {
        false
    }
}

const RUNTIME: Address = 0x1_0000;

fn any_noise() -> impl Strategy<Value = Noise> {
    let object = prop_oneof![
        (1..1_u64 << 40).prop_map(|number| number * 16),
        (1..512_u64).prop_map(|number| u64::MAX - number * 16 + 1),
        extreme_word(),
    ];
    let end = prop_oneof![Just(u64::MAX), Just(1 << 47), Just(1 << 41)];
    (any::<u64>(), prop::collection::vec(object, 1..5), end)
        .prop_map(|(seed, objects, end)| Noise { seed, objects, end, runtime: MemoryImage::new() })
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

fn pthread_tid() -> Option<PthreadTid> {
    let mut structure = MemoryImage::new();
    structure.insert(0x1000, &[0; 720]);
    structure.insert(0x1000 + 720, &NOBODY.to_ne_bytes());
    PthreadTid::find(&structure, 0x1000, NOBODY)
}

proptest! {
    #![proptest_config(Config { cases: CASES, failure_persistence: None, ..Config::default() })]

    #[test]
    fn noise_is_survived(noise in any_noise(), which in 0..LAYOUTS.len()) {
        let build = Build {
            runtime: RUNTIME,
            version: Version { major: 3, minor: 8 + which as u8, micro: 0 },
            free_threaded: false,
            debug: false,
            layout: LAYOUTS[which].clone(),
        };
        let code_type = noise.objects[0];
        is_survived(&noise, &Runtime { build, code_type, pthread_tid: pthread_tid() })?;
    }

    #[test]
    fn hostile_offsets_are_survived(
        mut noise in any_noise(),
        offsets in any_offsets(),
        minor in 13..=15_u64,
        free_threaded in any::<bool>(),
    ) {
        let mut table = debug_offsets::COOKIE.to_vec();
        table.extend((3 << 24 | minor << 16).to_ne_bytes());
        table.extend(u64::from(free_threaded).to_ne_bytes());
        table.extend(offsets.iter().flat_map(|offset| offset.to_ne_bytes()));
        noise.runtime.insert(RUNTIME, &table);
        let symbols = Symbols { runtime: RUNTIME, version_text: None, debug: false };
        if let Ok(build) = detect::build(&noise, &symbols) {
            prop_assert!(build.layout.frame_bytes() <= 8192 && build.layout.code_bytes() <= 8192);
            let code_type = noise.objects[0];
            is_survived(&noise, &Runtime { build, code_type, pthread_tid: None })?;
        }
    }
}
