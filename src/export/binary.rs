//! The binary format of CPython 3.15's own sampling profiler, which `python3.15 -m
//! profiling.sampling replay` turns into each of its formats.
//!
//! Its layout is that of `InternalDocs/profiling_binary_format.md` and, for the word behind the
//! compression, `Modules/_remote_debugging/binary_io.h` in CPython v3.15.2: a header of 64 bytes,
//! samples, strings, frames, statistics, a footer. The samples are packed with zstd where that can be.

use super::aggregate::Tree;
use crate::profile::{Frame, Location, Moment, Numbers, Opcode, Profile, Sample, State, Thread};
use std::collections::HashMap;
use std::io::{self, Write};

const MAGIC: u32 = 0x5441_4348;
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 64;
const FOOTER_BYTES: u64 = 32;
const STATISTICS_BYTES: u64 = 56;
const STATISTICS_VERSION: u32 = 1;
/// Both the failed and the missed share are there.
const HAS_SHARES: u32 = 3;
const ZSTD: u32 = 1;
/// The mode, which readers show; a profile may have been filtered in ways that no mode stands for.
const UNKNOWN_MODE: u32 = 0;

/// The series of CPython that reads the format, 3.15.
const READER: u8 = 15;
/// The opcode of what has none that the reader knows.
const NO_OPCODE: u8 = 255;

/// What readers unpack at most.
const MOST_UNPACKED: u64 = 1 << 30;
/// What is held in memory of packed samples at most.
const MOST_PACKED: usize = 64 << 20;
/// What readers take at most in one stack.
const MOST_FRAMES: usize = 256;
/// Every sample takes two bytes and more, and counts may come from a damaged recording.
const MOST_SAMPLES: u64 = 1 << 32;
/// How many samples of a thread in the same stack one record has at most.
const MOST_REPEATS: u32 = 1 << 14;

/// How a record says what the stack is.
#[repr(u8)]
enum Encoding {
    Repeat = 0,
    Full = 1,
    Suffix = 2,
    PopPush = 3,
}

/// Bits of a sample's status, `THREAD_STATUS_…` in the format's description.
const STATUS: [(State, u8); 4] = [
    (State::HAS_GIL, 1),
    (State::ON_CPU, 2),
    (State::WAITS_FOR_GIL, 8),
    (State::HAS_EXCEPTION, 16),
];
const MAIN_THREAD: u8 = 32;

/// Writes the profile.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let samples = profile.moments().map(|moment| moment.count).fold(0, u64::saturating_add);
    if samples > MOST_SAMPLES {
        let sentence = format!("{samples} samples are more than the binary format can be used for");
        return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
    }
    let tables = Tables::new(profile);
    let packed = pack(|out| write_samples(profile, &tables, out))?;
    // The header says how long the samples are. So what is not packed is written twice.
    let samples_length = match &packed {
        Some(packed) => packed.len() as u64,
        None => length(|sink| write_samples(profile, &tables, sink))?,
    };
    let strings_at = HEADER_BYTES + samples_length;
    let frames_at = strings_at + length(|sink| tables.write_strings(sink))?;
    let statistics_at = frames_at + length(|sink| tables.write_frames(sink))?;

    let meta = &profile.meta;
    let mut header = Vec::new();
    header.extend(MAGIC.to_ne_bytes());
    header.extend(VERSION.to_ne_bytes());
    header.extend(python_version(profile));
    header.extend((meta.start_unix_ns / 1_000).to_ne_bytes());
    header.extend((meta.interval_ns / 1_000).to_ne_bytes());
    header.extend(samples.to_ne_bytes());
    header.extend((Slots::new(profile).count as u32).to_ne_bytes());
    header.extend(strings_at.to_ne_bytes());
    header.extend(frames_at.to_ne_bytes());
    header.extend(if packed.is_some() { ZSTD } else { 0 }.to_ne_bytes());
    header.extend(UNKNOWN_MODE.to_ne_bytes());
    out.write_all(&header)?;
    match packed {
        Some(packed) => out.write_all(&packed)?,
        None => write_samples(profile, &tables, out)?,
    }
    tables.write_strings(out)?;
    tables.write_frames(out)?;
    write_statistics(profile, out)?;
    let mut footer = Vec::new();
    footer.extend((tables.strings.keys.len() as u32).to_ne_bytes());
    footer.extend((tables.frames.keys.len() as u32).to_ne_bytes());
    footer.extend((statistics_at + STATISTICS_BYTES + FOOTER_BYTES).to_ne_bytes());
    footer.extend([0; 16]);
    out.write_all(&footer)
}

/// Strings and frames.
struct Tables<'a> {
    strings: Numbers<&'a str>,
    /// Frames by the strings of file and name, the location and the opcode.
    frames: Numbers<(u32, u32, Location, u8)>,
    /// Stacks of such frames.
    tree: Tree,
    /// The frame that stands for those that a reader would not take.
    truncated: u32,
}

impl<'a> Tables<'a> {
    fn new(profile: &'a Profile) -> Self {
        let (mut strings, mut frames) = (Numbers::default(), Numbers::default());
        let mut frame = |file: &'a str, name: &'a str, location, opcode| {
            frames.of((strings.of(file), strings.of(name), location, opcode))
        };
        let truncated = frame("~", "<truncated>", Location::default(), NO_OPCODE);
        let of_frame: Vec<u32> = profile
            .frames
            .iter()
            .map(|known| {
                let function = &profile.functions[known.function.0 as usize];
                frame(&function.file, &function.name, known.location, opcode_of(known))
            })
            .collect();
        let tree = Tree::new(profile, &of_frame);
        Self { strings, frames, tree, truncated }
    }

    fn write_strings(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut bytes = Vec::new();
        for text in &self.strings.keys {
            bytes.clear();
            put(&mut bytes, text.len() as u64);
            out.write_all(&bytes)?;
            out.write_all(text.as_bytes())?;
        }
        Ok(())
    }

    fn write_frames(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut bytes = Vec::new();
        for &(file, name, at, opcode) in &self.frames.keys {
            bytes.clear();
            put(&mut bytes, file.into());
            put(&mut bytes, name.into());
            let [line, lines] = range(at.line, at.end_line, 0);
            let [column, columns] = range(at.column, at.end_column, 1);
            for number in [line, lines, column, columns] {
                put(&mut bytes, (number << 1 ^ number >> 63) as u64);
            }
            bytes.push(opcode);
            out.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Puts the frames of a node, leaf first, in place of what was there.
    fn read_stack(&self, node: u32, stack: &mut Vec<u32>) {
        stack.clear();
        let mut node = node as usize;
        while node != 0 {
            if stack.len() == MOST_FRAMES {
                stack[MOST_FRAMES - 1] = self.truncated;
                return;
            }
            stack.push(self.tree.group[node]);
            node = self.tree.parent[node] as usize;
        }
    }
}

/// A frame's opcode as the reader numbers it: names are its own, whatever Python was profiled. Of one that it does
/// not know, its base's.
fn opcode_of(frame: &Frame) -> u8 {
    let known = frame.opcode.and_then(|opcode| opcode.in_series(READER));
    known.map_or(NO_OPCODE, Opcode::number)
}

/// A start, and what is between it and the end; -1 where it is not known.
fn range(start: u32, end: u32, first: u32) -> [i64; 2] {
    const MOST: u32 = i32::MAX as u32;
    match start {
        0 => [-1, 0],
        start => {
            let start = start.min(MOST);
            let end = end.clamp(start, MOST);
            [i64::from(start) - i64::from(first), i64::from(end) - i64::from(start)]
        }
    }
}

/// Readers tell threads apart by the ids of thread and interpreter.
struct Slots {
    /// The slot of each thread of the profile.
    of_thread: Vec<usize>,
    count: usize,
}

impl Slots {
    fn new(profile: &Profile) -> Self {
        let mut slots = HashMap::new();
        let slot = |thread: &Thread| {
            let next = slots.len();
            *slots.entry((thread.tid, thread.interpreter as u32)).or_insert(next)
        };
        let of_thread = profile.threads.iter().map(slot).collect();
        Self { of_thread, count: slots.len() }
    }
}

/// What a reader knows of a thread after the records so far, and what is to be told next.
#[derive(Default)]
struct Told {
    /// The tree's node; 0 before the first sample.
    node: u32,
    /// The node's frames, leaf first.
    stack: Vec<u32>,
    at_us: u64,
    /// Samples in the same stack: time passed and status of each.
    repeats: Vec<u8>,
    repeat_count: u32,
}

fn write_samples(profile: &Profile, tables: &Tables<'_>, out: &mut dyn Write) -> io::Result<()> {
    let slots = Slots::new(profile);
    let mut told: Vec<Told> = Vec::new();
    told.resize_with(slots.count, Told::default);
    let start_us = profile.meta.start_unix_ns / 1_000;
    told.iter_mut().for_each(|told| told.at_us = start_us);
    let mut fresh = Vec::new();
    let mut bytes = Vec::new();
    for moment in profile.moments().filter(|moment| moment.count > 0) {
        let sample = &profile.samples[moment.sample];
        let thread = profile.thread(sample.thread);
        let slot = &mut told[slots.of_thread[sample.thread.0 as usize]];
        let node = tables.tree.of_stack[sample.stack.0 as usize];
        let mut times = times_us(&moment).map(|at_us| start_us.saturating_add(at_us));
        let status = status(sample, thread);
        if slot.node != node {
            slot.write_repeats(thread, out)?;
            tables.read_stack(node, &mut fresh);
            bytes.clear();
            slot.put_stack(thread, times.next().unwrap_or_default(), status, &fresh, &mut bytes);
            out.write_all(&bytes)?;
            std::mem::swap(&mut slot.stack, &mut fresh);
            slot.node = node;
        }
        for at_us in times {
            slot.pass(at_us, |slot, passed_us| {
                put(&mut slot.repeats, passed_us);
                slot.repeats.push(status);
            });
            slot.repeat_count += 1;
            if slot.repeat_count == MOST_REPEATS {
                slot.write_repeats(thread, out)?;
            }
        }
    }
    let of_slot: HashMap<usize, &Thread> =
        slots.of_thread.into_iter().zip(&profile.threads).collect();
    for (slot, told) in told.iter_mut().enumerate() {
        if let Some(thread) = of_slot.get(&slot) {
            told.write_repeats(thread, out)?;
        }
    }
    Ok(())
}

impl Told {
    /// Moves on to a time, which is never earlier.
    fn pass<T>(&mut self, at_us: u64, use_it: impl FnOnce(&mut Self, u64) -> T) -> T {
        let passed_us = at_us.saturating_sub(self.at_us);
        self.at_us += passed_us;
        use_it(self, passed_us)
    }

    /// One sample in another stack.
    fn put_stack(
        &mut self,
        thread: &Thread,
        at_us: u64,
        status: u8,
        fresh: &[u32],
        bytes: &mut Vec<u8>,
    ) {
        let before = self.stack.iter().rev();
        let shared = before.zip(fresh.iter().rev()).take_while(|(old, new)| old == new).count();
        let (gone, added) = (self.stack.len() - shared, fresh.len() - shared);
        let encoding = match (shared, gone) {
            (0, _) => Encoding::Full,
            (_, 0) => Encoding::Suffix,
            _ => Encoding::PopPush,
        };
        let numbers = match encoding {
            Encoding::Suffix => [Some(shared), Some(added)],
            Encoding::PopPush => [Some(gone), Some(added)],
            Encoding::Full | Encoding::Repeat => [None, Some(added)],
        };
        put_head(thread, encoding, bytes);
        self.pass(at_us, |_, passed_us| put(bytes, passed_us));
        bytes.push(status);
        numbers.into_iter().flatten().for_each(|number| put(bytes, number as u64));
        fresh[..added].iter().for_each(|&frame| put(bytes, frame.into()));
    }

    fn write_repeats(&mut self, thread: &Thread, out: &mut dyn Write) -> io::Result<()> {
        if self.repeat_count == 0 {
            return Ok(());
        }
        let mut head = Vec::new();
        put_head(thread, Encoding::Repeat, &mut head);
        put(&mut head, self.repeat_count.into());
        out.write_all(&head)?;
        out.write_all(&self.repeats)?;
        self.repeats.clear();
        self.repeat_count = 0;
        Ok(())
    }
}

fn put_head(thread: &Thread, encoding: Encoding, bytes: &mut Vec<u8>) {
    bytes.extend(u64::from(thread.tid).to_ne_bytes());
    bytes.extend((thread.interpreter as u32).to_ne_bytes());
    bytes.push(encoding as u8);
}

/// When each sample of a moment was taken, as far as that is known.
fn times_us(moment: &Moment) -> impl Iterator<Item = u64> + use<> {
    let Moment { at_ns, weight_ns, count, .. } = *moment;
    let end_us = at_ns / 1_000;
    let each_us = weight_ns.min(at_ns) / 1_000 / count.max(1);
    // Equal steps take the least room when they are packed.
    (0..count).rev().map(move |after| end_us - each_us * after)
}

fn status(sample: &Sample, thread: &Thread) -> u8 {
    let of_state = STATUS.iter().filter(|(state, _)| sample.state.has(*state));
    let is_main = if thread.is_main { MAIN_THREAD } else { 0 };
    of_state.fold(is_main, |status, (_, bit)| status | bit)
}

fn write_statistics(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let meta = &profile.meta;
    let (seconds, rate) = (meta.duration_ns as f64 / 1e9, profile.rate_hz());
    let percent = [meta.failed_share(), meta.missed_share()].map(|share| share * 100.0);
    let mut bytes = Vec::new();
    for number in [seconds, rate].into_iter().chain(percent) {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend(HAS_SHARES.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(b"TACHSTAT");
    bytes.extend(STATISTICS_VERSION.to_ne_bytes());
    bytes.extend((STATISTICS_BYTES as u32).to_ne_bytes());
    out.write_all(&bytes)
}

/// Major, minor and micro version of the first process's Python, and a zero.
fn python_version(profile: &Profile) -> [u8; 4] {
    let python = profile.processes.first().map_or("", |process| &process.python);
    let version = python.split(' ').find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let mut parts = version.unwrap_or_default().split(|c: char| !c.is_ascii_digit());
    let mut part = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
    [part(), part(), part(), 0]
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// How much something writes.
fn length(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<u64> {
    struct Count(u64);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    write(&mut count)?;
    Ok(count.0)
}

/// Packs what something writes; `None` if that is more than readers take, or than should be held
/// in memory.
fn pack(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Option<Vec<u8>>> {
    /// Smaller than what CPython writes, and as fast as what is packed can be made.
    const LEVEL: i32 = 9;
    let mut packer = Packer { packed: zstd::Encoder::new(Vec::new(), LEVEL)?, unpacked: 0 };
    match write(&mut packer) {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(None),
        written => written.and_then(|()| packer.packed.finish()).map(Some),
    }
}

struct Packer<'a> {
    packed: zstd::Encoder<'a, Vec<u8>>,
    unpacked: u64,
}

impl Write for Packer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unpacked += bytes.len() as u64;
        if self.unpacked > MOST_UNPACKED || self.packed.get_ref().len() > MOST_PACKED {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.packed.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::profile;

    /// Lines and columns come from recordings, which may say anything.
    #[test]
    fn absurd_locations_are_written() {
        let mut profile = profile(&[("main:1", 1)]);
        let frame = &mut profile.frames[0];
        frame.location = Location { line: u32::MAX, end_line: 3, column: u32::MAX, end_column: 1 };
        write(&profile, &mut io::sink()).unwrap();
        let most = i64::from(i32::MAX);
        assert_eq!(range(u32::MAX, 3, 1), [most - 1, 0]);
        assert_eq!(range(5, 3, 1), [4, 0]);
        assert_eq!(range(5, 9, 1), [4, 4]);
    }
}
