//! Recordings: what is recorded is read back, and what is cut, damaged or hostile is told from it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unsafe_code)]

#[allow(dead_code)]
#[path = "support/capture.rs"]
mod capture;
#[allow(dead_code, unused_imports)]
#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proptest::prelude::*;
use pysamp::export::{self, Format, Style};
use pysamp::profile::recording::{self, Damage, Unreadable};
use pysamp::profile::timeline::Entry;
use pysamp::profile::{Meta, Moment, Opcode, Profile, Timeline};
use pysamp::reader::codes::{CodeTable, Located};
use pysamp::reader::threads::ThreadState;
use pysamp::recorder::Recorder;
use pysamp::sampler::Sink;
use pysamp::sampler::activity::{Spent, State};
use pysamp::sampler::snapshot::Outcome;
use pysamp::sampler::target::Target;
use tempfile::TempDir;

use capture::capture;

const PID: u32 = 7;
const START_NS: u64 = 1 << 40;
const DURATION_NS: u64 = 2_500_000_000;
/// Where the header has its numbers; as `recorder/format.rs` says.
const USED: usize = 16;
const HEADER: usize = 128;
/// A block of the timeline; as `recorder/moments.rs` says.
const BLOCK: usize = 32 << 10;

/// A process has one recording at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A recorder with real code objects, and its recording.
struct Recording {
    recorder: Recorder,
    codes: CodeTable,
    stack: Vec<Located>,
    now_ns: u64,
    directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

fn meta() -> Meta {
    Meta {
        pid: PID,
        program: "größe.py".into(),
        command: vec!["python".into(), String::new(), "a\nb".into()],
        python: "CPython 3".into(),
        start_unix_ns: 1_700_000_000_000_000_000,
        interval_ns: 1_000_000,
        ..Meta::default()
    }
}

impl Recording {
    fn new() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let interpreter = support::supported().iter().rfind(|one| !one.debug).unwrap();
        let captured = capture(interpreter, 12).unwrap();
        let mut snapshotter = captured.snapshotter();
        let mut target = Target::default();
        let outcome = snapshotter.take(&captured.image, &captured.thread, &mut target);
        assert_eq!(outcome, Outcome::Stack);
        Self {
            recorder: Recorder::new(START_NS),
            codes: snapshotter.codes,
            stack: target.stack.clone(),
            now_ns: START_NS,
            directory: TempDir::new().unwrap(),
            _alone: alone,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("recording")
    }

    fn begin(&mut self) {
        let path = self.path();
        self.recorder.begin_spool(&path, &meta()).unwrap();
        self.update();
    }

    fn update(&mut self) {
        self.recorder.update_spool(&self.codes, DURATION_NS);
    }

    fn thread(&mut self, tid: u32) -> u32 {
        self.recorder.thread(&ThreadState { at: 0x1000, ident: 0, tid, interpreter: 3 })
    }

    /// A sample of the lowest `depth` frames, the newest at another instruction.
    fn sample(&mut self, thread: u32, depth: usize, instruction: i32, truncated: bool) {
        let mut stack = self.stack[..depth].to_vec();
        // At the same place another instruction is another frame.
        let opcode = || Opcode::from_bits(0x0D_01 + u16::from(truncated));
        stack[depth - 1] = Located {
            index: instruction,
            opcode: (instruction > 1).then(opcode).flatten(),
            ..stack[depth - 1]
        };
        // Of whatever a sample can be.
        let state = State::from_bits(instruction as u32 % 4).unwrap_or_default();
        let cpu_ns = if state.has(State::ON_CPU) { 900_000 } else { 0 };
        self.now_ns += 1_000_000;
        let spent = Spent { count: 1, at_ns: self.now_ns, state, wall_ns: 1_000_000, cpu_ns };
        self.recorder.sample(thread, &stack, 0, truncated, spent);
    }

    /// Something of everything, before and after the file is there.
    fn fill(&mut self) {
        let (main, other) = (self.thread(PID), self.thread(8));
        self.recorder.name_thread(main, "MainThread");
        self.sample(main, 3, 1, false);
        self.sample(main, 3, 1, false);
        self.recorder.tick(4);
        self.begin();
        for cycle in 0..6 {
            self.sample(other, 2 + cycle % 2, 5, false);
            self.sample(main, 4, cycle as i32 / 2, cycle > 3);
            self.recorder.tick(0);
            self.update();
        }
        self.recorder.name_thread(other, "größer");
        let third = self.thread(9);
        self.recorder.name_thread(third, &"x".repeat(100));
        self.recorder.failure();
        self.recorder.tick(1);
        self.sample(third, 1, -1, false);
        self.update();
    }

    fn profile(&self) -> Profile {
        self.recorder.profile(&self.codes, Meta { duration_ns: DURATION_NS, ..meta() })
    }

    /// The file without the room for more.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = fs::read(self.path()).unwrap();
        bytes.truncate(used(&bytes));
        bytes
    }
}

fn used(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[USED..USED + 8].try_into().unwrap()) as usize
}

/// What a profile says, whatever its tables' order.
fn content(profile: &Profile) -> BTreeSet<String> {
    let sample = |sample: &pysamp::profile::Sample| {
        let frames = profile.root_first(sample.stack).into_iter();
        let frames: Vec<_> = frames
            .map(|id| {
                let frame = profile.frame(id);
                (profile.function(id), frame.location, frame.instruction, frame.opcode)
            })
            .collect();
        let thread = profile.thread(sample.thread);
        format!("{thread:?} {frames:?} {} {}", sample.count, sample.weight_ns)
    };
    profile.samples.iter().map(sample).collect()
}

/// When a profile says that samples were, whatever its tables' order.
fn moments(profile: &Profile) -> Vec<String> {
    let moment = |moment: Moment| {
        let sample = &profile.samples[moment.sample];
        let (tid, depth) =
            (profile.thread(sample.thread).tid, profile.root_first(sample.stack).len());
        let Moment { at_ns, count, weight_ns, cpu_ns, .. } = moment;
        format!("{tid} {depth} {:?} {at_ns} {count} {weight_ns} {cpu_ns}", sample.state)
    };
    profile.moments().map(moment).collect()
}

/// Every stack there is, sampled or not.
fn stacks(profile: &Profile) -> BTreeSet<String> {
    let stack = |at| {
        let frames = profile.root_first(pysamp::profile::StackId(at));
        let frames = frames.into_iter().map(|id| {
            let frame = profile.frame(id);
            (profile.function(id), frame.location, frame.instruction, frame.opcode)
        });
        format!("{:?}", frames.collect::<Vec<_>>())
    };
    (0..profile.stacks.len() as u32).map(stack).collect()
}

#[test]
fn what_is_recorded_is_read_back() {
    let mut recording = Recording::new();
    recording.fill();
    let expected = recording.profile();
    assert_eq!((expected.samples.len(), expected.threads.len()), (7, 3));
    for bytes in [fs::read(recording.path()).unwrap(), recording.bytes()] {
        let (profile, damage) = recording::read(&bytes).unwrap();
        assert_eq!((&profile.meta, damage), (&expected.meta, None));
        assert_eq!(profile.threads, expected.threads);
        assert_eq!(content(&profile), content(&expected));
        assert_eq!(stacks(&profile), stacks(&expected));
        // What each thread is in at the end is not in the file yet, and is put there.
        let (in_file, all) = (moments(&profile), moments(&expected));
        assert_eq!(in_file[..all.len() - 3], all[..all.len() - 3]);
        let but_for_time = |moments: &[String]| -> BTreeSet<String> {
            let last = moments[all.len() - 3..].iter();
            let ends = last.map(|moment| moment.split(' ').collect::<Vec<_>>());
            ends.map(|parts| [&parts[..3], &parts[4..]].concat().join(" ")).collect()
        };
        assert_eq!(but_for_time(&in_file), but_for_time(&all));
        let end = format!(" {DURATION_NS} ");
        assert!(in_file[all.len() - 3..].iter().all(|moment| moment.contains(&end)));
        // Formats in which the order of what was recorded makes no difference.
        for format in [Format::PstatsTable, Format::Pstats, Format::Collapsed] {
            let [mut one, mut other] = [Vec::new(), Vec::new()];
            export::write(format, &profile, &Style::default(), &mut one).unwrap();
            export::write(format, &expected, &Style::default(), &mut other).unwrap();
            assert_eq!(one.len(), other.len(), "{format}");
        }
    }
    recording.recorder.remove_spool();
    assert!(!recording.path().exists());
}

#[test]
fn it_grows_with_what_is_new_only() {
    const STACKS: i32 = 20_000;
    let mut recording = Recording::new();
    recording.fill();
    let main = 0;
    let before = recording.bytes().len();
    for cycle in 0..10_000 {
        recording.sample(main, 4, cycle % 3, false);
        recording.recorder.name_thread(main, if cycle % 2 == 0 { "busy" } else { "MainThread" });
        recording.recorder.tick(0);
        recording.update();
    }
    let new_stacks_of_the_first_cycles = 200;
    let moments = 10_000 * 6 / BLOCK * (BLOCK + 8);
    assert!(recording.bytes().len() <= before + new_stacks_of_the_first_cycles + moments);
    for instruction in 0..STACKS {
        recording.sample(main, 12, instruction, false);
        recording.update();
    }
    assert!(recording.bytes().len() > before + STACKS as usize * 64);
    let (profile, damage) = recording::read_file(&recording.path()).unwrap();
    assert_eq!(damage, None);
    assert_eq!(content(&profile), content(&recording.profile()));
}

/// How long files may become in this process.
fn limit_files(bytes: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid structure.
    unsafe {
        libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit);
        limit.rlim_cur = bytes;
        libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
    }
}

#[test]
fn without_room_it_stays_as_it_was() {
    let mut recording = Recording::new();
    limit_files(300 << 10);
    recording.fill();
    for instruction in 0..10_000 {
        recording.sample(0, 12, instruction, false);
        recording.update();
    }
    let at_the_end = fs::read(recording.path()).unwrap();
    recording.sample(0, 12, 1, false);
    recording.update();
    limit_files(libc::RLIM_INFINITY);
    assert_eq!((at_the_end.len(), fs::read(recording.path()).unwrap()), (256 << 10, at_the_end));
    let (profile, damage) = recording::read_file(&recording.path()).unwrap();
    assert_eq!(damage, Some(Damage::NoRoom { duration_ns: DURATION_NS }));
    assert!(profile.meta.samples > 1000 && profile.meta.samples < 10_000);
    recording.recorder.remove_spool();
    assert!(!recording.path().exists());
}

/// What was sampled when is left in the file, and read as often as it is needed.
#[test]
fn long_timelines_stay_in_the_file() {
    const BLOCKS: usize = 200;
    let mut recording = Recording::new();
    recording.fill();
    let mut long = recording.profile();
    let mut block = Vec::new();
    let mut previous_us = 0;
    while block.len() < BLOCK - Entry::MOST_BYTES {
        let end_us = previous_us + 100_000;
        let tally = (end_us / 100_000) as u32 % long.samples.len() as u32;
        let entry = Entry { tally, end_us, wall_us: Some(70), cpu_us: None, count: 1 };
        entry.write(previous_us, &mut block);
        previous_us = end_us;
    }
    let blocks = (0..BLOCKS).map(|_| block.clone().into()).collect();
    long.timeline = Timeline::new(blocks, (0..long.samples.len() as u32).collect());
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("long.pysamp");
    let mut bytes = Vec::new();
    export::write(Format::Recording, &long, &Style::default(), &mut bytes).unwrap();
    assert!(bytes.len() > BLOCKS * BLOCK * 9 / 10);
    fs::write(&path, &bytes).unwrap();
    let done = AtomicU64::new(0);
    let (filed, damage) = recording::read_file_counting(&path, &done).unwrap();
    assert_eq!(done.into_inner(), bytes.len() as u64);
    let (held, _) = recording::read(&bytes).unwrap();
    assert_eq!((damage, &filed), (None, &held));
    assert!(filed.moments().eq(held.moments()) && filed.moments().eq(long.moments()));
    // Some blocks have what all have of them.
    let mut moments = held.moments();
    let of_some = std::iter::from_fn(|| moments.next().map(|moment| (moments.block(), moment)));
    let of_some: Vec<_> =
        of_some.filter(|(block, _)| (3..5).contains(block)).map(|(_, moment)| moment).collect();
    assert!(!of_some.is_empty() && filed.moments_in(&(3..5)).eq(of_some));
    assert!(!filed.timeline.is_cut());
    // Another process goes on writing to the last block, or cuts the file.
    let last = bytes.len() - 40_000;
    fs::File::options().write(true).open(&path).unwrap().set_len(last as u64).unwrap();
    assert!(filed.moments().count() < held.moments().count());
    assert!(filed.timeline.is_cut() && !held.timeline.is_cut());
}

/// Samples whose stacks take turns, so that each has an entry, and a new stack among so many.
fn last_long(recording: &mut Recording, samples: i32, with_new: i32) {
    for number in 0..samples {
        let is_new = number % with_new == 0;
        recording.sample(0, 4, if is_new { unseen(recording) } else { number % 2 }, false);
        if number % 100 == 0 {
            recording.update();
        }
    }
    recording.update();
}

/// A number that was not there before.
fn unseen(recording: &Recording) -> i32 {
    ((recording.now_ns - START_NS) / 1_000_000) as i32 + 2
}

/// What is read while it is written stays as it was, though more and more blocks are filled.
#[test]
fn what_is_read_stays_the_same_while_it_goes_on() {
    let mut recording = Recording::new();
    recording.fill();
    // Some blocks are full, some not begun, and the file is one whose blocks stay there.
    last_long(&mut recording, 1_200_000, i32::MAX);
    let bytes = recording.bytes();
    assert!(bytes.len() > 4 << 20);
    assert!(bytes[bytes.len() - BLOCK..].iter().all(|&byte| byte == 0), "the last one is begun");
    let (live, damage) = recording::read_file(&recording.path()).unwrap();
    assert_eq!(damage, None);
    let total = |profile: &Profile| profile.moments().map(|moment| moment.count).sum::<u64>();
    let before: Vec<_> = live.moments().collect();
    assert!(total(&live) + 2 >= live.meta.samples, "{} of {}", total(&live), live.meta.samples);
    last_long(&mut recording, 600_000, i32::MAX);
    assert!(live.moments().eq(before));
    let (later, _) = recording::read_file(&recording.path()).unwrap();
    assert!(total(&later) + 2 >= live.meta.samples + 600_000);
}

/// The last room is not taken by blocks that nothing may ever be in.
#[test]
fn what_room_is_left_is_used() {
    const LIMIT: u64 = 8 << 20;
    let mut recording = Recording::new();
    recording.fill();
    limit_files(LIMIT + 1);
    last_long(&mut recording, 2_000_000, 1_000);
    for _ in 0..500_000 {
        let instruction = unseen(&recording);
        recording.sample(0, 4, instruction, false);
        recording.update();
    }
    limit_files(libc::RLIM_INFINITY);
    let bytes = recording.bytes();
    let is_empty = |block: &&[u8]| block.iter().all(|&byte| byte == 0);
    let unused = bytes.chunks(BLOCK).rev().take_while(is_empty).count();
    assert!(bytes.len() as u64 > LIMIT - 100 && unused < 2, "{} {unused}", bytes.len());
    let (profile, damage) = recording::read_file(&recording.path()).unwrap();
    assert_eq!(damage, Some(Damage::NoRoom { duration_ns: DURATION_NS }));
    assert!(profile.meta.samples > 2_000_000 && profile.meta.samples < 2_500_000);
}

/// Counts that are stored again and again lie together, not one between each two blocks of the timeline,
/// where each would keep a page of its own in memory.
#[test]
fn blocks_of_the_timeline_lie_together() {
    const MOMENTS: u8 = 8;
    let mut recording = Recording::new();
    recording.fill();
    last_long(&mut recording, 1_200_000, 1_000);
    let bytes = recording.bytes();
    let (mut at, mut blocks, mut runs, mut was_block) = (HEADER, 0, 0, false);
    while at < bytes.len() {
        let word = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let is_block = word as u8 == MOMENTS;
        blocks += usize::from(is_block);
        runs += usize::from(is_block && !was_block);
        was_block = is_block;
        at += 8 + ((word >> 8) as usize).next_multiple_of(8);
    }
    assert!(blocks > 100 && runs < blocks / 4, "{blocks} blocks in {runs} places");
}

/// Cut anywhere, it gives what is before the cut, and says so.
#[test]
fn cut_at_every_byte() {
    let mut recording = Recording::new();
    recording.fill();
    let bytes = recording.bytes();
    let all = content(&recording.profile());
    let all_stacks = stacks(&recording.profile());
    let mut readable = 0;
    for length in 0..bytes.len() {
        match recording::read(&bytes[..length]) {
            Ok((profile, Some(Damage::Broken { intact, length: whole }))) => {
                assert!(intact <= length && whole == bytes.len());
                assert!(stacks(&profile).is_subset(&all_stacks));
                assert!(profile.samples.len() <= all.len());
                readable += 1;
            }
            Ok((_, other)) => panic!("cut at {length}: {other:?}"),
            Err(Unreadable::Empty) => assert_eq!(length, 0),
            Err(Unreadable::Damaged) => assert!(length < 512, "nothing of {length} bytes"),
            Err(error) => panic!("cut at {length}: {error}"),
        }
    }
    assert!(readable > bytes.len() * 3 / 4);
}

/// Whatever is read can be written in every format.
fn exports(profile: &Profile) {
    profile.moments().for_each(drop);
    for format in Format::ALL {
        match export::write(format, profile, &Style::default(), &mut std::io::sink()) {
            // More than the format can hold.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {}
            written => written.unwrap(),
        }
    }
}

#[test]
fn a_wrong_byte_shows_nothing_that_was_not_there() {
    let mut recording = Recording::new();
    recording.fill();
    let bytes = recording.bytes();
    let all_stacks = stacks(&recording.profile());
    proptest!(|(at in 0..bytes.len(), flipped in 1..=255_u8)| {
        let mut bytes = bytes.clone();
        bytes[at] ^= flipped;
        if let Ok((profile, _)) = recording::read(&bytes) {
            prop_assert!(stacks(&profile).is_subset(&all_stacks));
            exports(&profile);
        }
    });
}

#[test]
fn noise_is_refused_or_cut() {
    let mut recording = Recording::new();
    recording.fill();
    let bytes = recording.bytes();
    let noise = || proptest::collection::vec(any::<u8>(), 0..2000);
    proptest!(|(noise in noise(), kept in 0..bytes.len())| {
        // A part of what was written, with noise behind it.
        let kept = &bytes[..kept];
        if let Ok((profile, _)) = recording::read(&[kept, &noise].concat()) {
            exports(&profile);
        }
        // Noise in the place of all records.
        let noisy = [&bytes[..HEADER], &noise].concat();
        prop_assert!(matches!(recording::read(&noisy), Err(Unreadable::Damaged)));
        prop_assert!(recording::read(&noise).is_err());
    });
}

/// A record with a true checksum may still make no sense.
#[test]
fn hostile_records_are_refused() {
    let record = |kind: u8, contents: &[u32]| {
        let contents: Vec<u8> = contents.iter().flat_map(|number| number.to_le_bytes()).collect();
        let word = (contents.len() as u32) << 8 | u32::from(kind);
        let checked = match kind {
            7 => contents.len().min(16),
            8 => 0,
            _ => contents.len(),
        };
        let checked = word.to_le_bytes().into_iter().chain(contents[..checked].iter().copied());
        let sum = checked
            .fold(0x811C_9DC5_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let mut record = [word.to_le_bytes(), sum.to_le_bytes()].concat();
        record.extend(&contents);
        record.resize(record.len().next_multiple_of(8), 0);
        record
    };
    const NO_PARENT: u32 = u32::MAX;
    const HUGE: u32 = u32::MAX;
    let function = record(2, &[1, 0, 0]);
    let frame = record(3, &[0; 7]);
    let root = record(4, &[NO_PARENT, 0]);
    let thread = record(5, &[0, 1, 0, 0, 0]);
    let sane: Vec<u8> =
        [&function, &frame, &root, &thread].into_iter().flatten().copied().collect();
    let mut header = vec![0; HEADER];
    header[..12].copy_from_slice(b"\x89pysamp\n\x04\0\0\0");
    let read = |records: &[u8]| recording::read(&[&header, records].concat());
    let (profile, damage) = read(&sane).unwrap();
    assert_eq!((profile.stacks.len(), damage), (1, None));
    for hostile in [
        record(1, &[1, 0, HUGE, 0, 0, 0, 0, HUGE, 0]),
        record(2, &[1, HUGE, 0]),
        record(3, &[1, 0, 0, 0, 0, 0, 0]),
        record(3, &[0; 6]),
        record(3, &[0, 0, 0, 0, 0, 0, 0x10_01]),
        record(3, &[0, 0, 0, 0, 0, 0, HUGE]),
        record(3, &[0, 0, 0]),
        record(4, &[1, 0]),
        record(4, &[0, 1]),
        record(5, &[0, 1]),
        record(6, &[1, 0]),
        record(6, &[0, HUGE]),
        record(7, &[0, 1, 0, 0, 1, 0, 1, 0, 1, 0]),
        record(7, &[1, 0, 0, 0, 1, 0, 1, 0, 1, 0]),
        record(7, &[0, 0, 64, 0, 1, 0, 1, 0, 1, 0]),
        record(7, &[0, 0, 0, 0]),
        record(7, &[0, 0, 0, 0, HUGE, HUGE, 1, 0, 1, 0]),
        record(9, &[1, 1, 0]),
        record(10, &[]),
        record(0, &[1]),
    ] {
        let (profile, damage) = read(&[&sane[..], &hostile].concat()).unwrap();
        let whole = HEADER + sane.len();
        assert!(matches!(damage, Some(Damage::Broken { intact, .. }) if intact == whole));
        exports(&profile);
    }
    // Half of the most samples that there can be: the third time is one too many.
    let tally = record(7, &[0, 0, 0, 0, 0, 1 << 15, HUGE, HUGE, HUGE, HUGE]);
    let (profile, damage) = read(&[&sane[..], &tally, &tally, &tally].concat()).unwrap();
    let [sample] = &profile.samples[..] else { panic!("{:?}", profile.samples) };
    assert_eq!((sample.count, sample.weight_ns, sample.cpu_ns), (1 << 48, u64::MAX, u64::MAX));
    assert!(matches!(damage, Some(Damage::Broken { .. })));
    exports(&profile);
    exports(&Profile::merge([profile.clone(), profile]));
    // Moments of tallies that there are not, of threads of a process that there is not.
    let tally = record(7, &[1, 0, 0, 9, 1, 0, 1, 0, 1, 0]);
    let thread = record(5, &[HUGE, 1, 0, 0, 0]);
    let moments = record(8, &[0x20_10_01_10, 0x10_FF_10_A0, HUGE, HUGE, HUGE]);
    let (profile, damage) = read(&[&sane[..], &thread, &tally, &moments].concat()).unwrap();
    assert_eq!((damage, profile.threads.len(), profile.samples.len()), (None, 2, 1));
    exports(&profile);
    // A stack deeper than any that is sampled.
    let deep: Vec<u8> = (0..10_000).flat_map(|parent| record(4, &[parent, 0])).collect();
    let (profile, damage) = read(&[sane, deep].concat()).unwrap();
    assert!(matches!(damage, Some(Damage::Broken { .. })) && profile.stacks.len() < 10_000);
}

#[test]
fn what_is_no_recording_is_refused() {
    let directory = TempDir::new().unwrap();
    let sentence = |bytes: &[u8]| {
        let path = directory.path().join("file");
        fs::write(&path, bytes).unwrap();
        recording::read_file(&path).unwrap_err().to_string()
    };
    assert_eq!(sentence(b""), "it is empty");
    assert_eq!(sentence(b"\x89pysa"), "it is damaged, and nothing before the damage can be used");
    for foreign in [&b"hello"[..], &[0; 4096], b"\x89PNG\r\n\x1a\n", &[b'x'; 4096]] {
        assert_eq!(sentence(foreign), "it is not a recording of pysamp");
    }
    let newer = [b"\x89pysamp\n\x05\0\0\0".as_slice(), &[0; 500]].concat();
    assert!(sentence(&newer).contains("(format 5; this one reads 4)"));
    let missing = recording::read_file(&directory.path().join("missing")).unwrap_err();
    assert!(missing.to_string().contains("No such file"));
    // Endless, and refused at once.
    assert!(recording::read_file("/dev/zero".as_ref()).is_err());
}
