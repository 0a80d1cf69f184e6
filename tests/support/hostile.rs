//! The reader on memory that is damaged, hostile or pure noise, looked through as the sampler does.

use std::cell::Cell;

use pysamp::layout::detect::{self, Build, Symbols};
use pysamp::layout::{Layout, Version, debug_offsets, tables};
use pysamp::mem::{Address, Fault, Memory, MemoryImage, RecordingMemory};
use pysamp::reader::codes::{CodeTable, Located};
use pysamp::reader::frame::RawFrame;
use pysamp::reader::frames::{MOST_FRAMES, Walker};
use pysamp::reader::self_check::{self, Known};
use pysamp::reader::thread_names::NameReader;
use pysamp::reader::threads::{self, PthreadTid, ThreadState};
use pysamp::sampler::snapshot::{Outcome, Protocol, Snapshotter};
use pysamp::sampler::target::Target;

use crate::capture::Capture;

/// The layouts of the versions that do not tell their own, from 3.8 on.
pub const LAYOUTS: [Layout; 5] =
    [tables::V3_8, tables::V3_9, tables::V3_10, tables::V3_11, tables::V3_12];
/// Any tid that is in use by nobody.
const NOBODY: u32 = 0x3FFF_FFFF;
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
fn is_survived(memory: &impl Memory, runtime: &Runtime) {
    for batched in [false, true] {
        look(&|| Bounded { inner: memory, batched, reads: Cell::new(0) }, runtime);
    }
}

fn look<'a, M: Memory + 'a>(fresh: &impl Fn() -> Bounded<'a, M>, runtime: &Runtime) {
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
    let mut told = CodeTable::new(layout.clone(), *code_type);
    told.tell_opcodes(build.version);
    let mut snapshotter = Snapshotter::new(build.clone(), Protocol::Asynchronous, told);
    let mut walker = Walker::default();
    let mut target = Target::default();
    let mut frames: Vec<RawFrame> = Vec::new();
    for state in &states {
        for _ in 0..2 {
            let _ = walker.walk(&fresh(), layout, state.at, &mut frames);
            assert!(frames.len() <= MOST_FRAMES);
            for frame in frames.iter().take(64) {
                if let Ok(proven) = codes.resolve(&fresh(), frame.code) {
                    assert!(codes.code(proven.id).is_some());
                    codes.locate(proven.id, proven.units as i32 - 1);
                }
                codes.at_instruction(&fresh(), frame.instruction);
            }
            if snapshotter.take(&fresh(), state, &mut target) == Outcome::Stack {
                assert!((1..=MOST_FRAMES).contains(&target.stack.len()));
                for &Located { code, index, .. } in &target.stack {
                    assert!(snapshotter.codes.code(code).is_some());
                    snapshotter.codes.locate(code, index);
                }
            }
        }
    }
}

/// What a word of memory is overwritten with. Words are named by their number among those that the
/// reader reads, which begins again after the last.
#[derive(Clone, Debug)]
pub enum Damage {
    /// Any value.
    Value(u64),
    /// Its own value but for one bit.
    FlippedBit(u32),
    /// The address of another word, or one close to it.
    Address(usize, i8),
    /// The contents of another word.
    Contents(usize),
}

/// A captured image and the words of it that are worth damaging.
pub struct Victim {
    captured: Capture,
    words: Vec<Address>,
    runtime: Runtime,
}

impl Victim {
    /// Checks that the image is whole.
    pub fn new(captured: Capture) -> Self {
        let words = words_read(&captured);
        let Capture { ref build, code_type, pthread_tid, .. } = captured;
        let runtime = Runtime { build: build.clone(), code_type, pthread_tid };
        is_survived(&captured.image, &runtime);
        Self { captured, words, runtime }
    }

    /// Looks at the image with words of it overwritten: for good, and in some reads only, those
    /// whose bits are set in `pattern`.
    pub fn survives(&self, damages: &[(usize, Damage)], pattern: u64) {
        let whole = &self.captured.image;
        let word_at = |number: usize| self.words[number % self.words.len()];
        let mut damaged = whole.clone();
        for &(place, ref damage) in damages {
            let at = word_at(place);
            let value = match *damage {
                Damage::Value(value) => value,
                Damage::FlippedBit(bit) => damaged.word(at).unwrap() ^ (1 << (bit % 64)),
                Damage::Address(other, distance) => {
                    word_at(other).wrapping_add_signed(distance.into())
                }
                Damage::Contents(other) => damaged.word(word_at(other)).unwrap(),
            };
            damaged.poke(at, &value.to_ne_bytes()).unwrap();
        }
        is_survived(&damaged, &self.runtime);
        let flickering = Flickering { whole, damaged: &damaged, pattern, reads: Cell::new(0) };
        is_survived(&flickering, &self.runtime);
    }
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

/// Memory in which every address holds something: zeros, small numbers, extremes, and addresses
/// of few objects, so that lists end in cycles.
#[derive(Debug)]
pub struct Noise {
    /// Makes one memory differ from another.
    pub seed: u64,
    /// What addresses point to; not empty.
    pub objects: Vec<Address>,
    /// Reads from here on fault.
    pub end: Address,
}

impl Noise {
    /// Looks at the noise as if it were an interpreter of one of [`LAYOUTS`].
    pub fn survived_as(self, which: usize) {
        let build = Build {
            runtime: RUNTIME,
            version: Version { major: 3, minor: 8 + which as u8, micro: 0 },
            free_threaded: false,
            debug: false,
            layout: LAYOUTS[which].clone(),
        };
        let code_type = self.objects[0];
        is_survived(&self, &Runtime { build, code_type, pthread_tid: pthread_tid() });
    }

    /// Looks at the noise as if it were an interpreter that tells its own offsets.
    pub fn survived_with(self, offsets: &[u64], minor: u64, free_threaded: bool) {
        let mut table = debug_offsets::COOKIE.to_vec();
        table.extend((3 << 24 | minor << 16).to_ne_bytes());
        table.extend(u64::from(free_threaded).to_ne_bytes());
        table.extend(offsets.iter().flat_map(|offset| offset.to_ne_bytes()));
        let mut runtime = MemoryImage::new();
        runtime.insert(RUNTIME, &table);
        let code_type = self.objects[0];
        let memory = NoisyRuntime { runtime, noise: self };
        let symbols = Symbols { runtime: RUNTIME, version: None, debug: false };
        if let Ok(build) = detect::build(&memory, &symbols) {
            assert!(build.layout.frame_bytes() <= 8192 && build.layout.code_bytes() <= 8192);
            is_survived(&memory, &Runtime { build, code_type, pthread_tid: None });
        }
    }

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

/// A runtime that is what it seems, and nothing but noise around it.
struct NoisyRuntime {
    runtime: MemoryImage,
    noise: Noise,
}

impl Memory for NoisyRuntime {
    fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault> {
        self.runtime.read(from, into).or_else(|Fault| self.noise.read(from, into))
    }

    fn prefers_batches(&self) -> bool {
        false
    }
}

const RUNTIME: Address = 0x1_0000;

fn pthread_tid() -> Option<PthreadTid> {
    let mut structure = MemoryImage::new();
    structure.insert(0x1000, &[0; 720]);
    structure.insert(0x1000 + 720, &NOBODY.to_ne_bytes());
    PthreadTid::find(&structure, 0x1000, NOBODY)
}
