//! A profile from a recording: from the file that a process kept while it ran. What it holds is not
//! trusted: what is damaged is found, and what stands before is used.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::{
    Frame, FrameId, Function, FunctionId, Meta, Numbers, Process, ProcessId, Profile, Sample,
    Stack, StackId, State, Thread, ThreadId, Timeline,
};
use crate::reader::frames::MOST_FRAMES;
use crate::recorder::format::{self, Contents, Kind, counter};

/// The deepest stack: all frames that are read, and the one that stands for the others.
const DEEPEST: u32 = MOST_FRAMES as u32 + 1;

/// The most samples: eight years of a million a second. Sums over many recordings do not overflow.
const MOST_SAMPLES: u64 = 1 << 48;

/// Why there is no profile in a file.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] io::Error),
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It is a file of another kind.
    #[error("it is not a recording of pysamp")]
    Foreign,
    /// A newer or older pysamp made it.
    #[error("it was made by another version of pysamp (format {0}; this one reads {read})", read = format::VERSION)]
    Version(u32),
    /// It is larger than any recording.
    #[error("it is larger than any recording: {most} MB", most = format::MOST_BYTES >> 20)]
    TooLarge,
    /// Damage begins before the first sample.
    #[error("it is damaged, and nothing before the damage can be used")]
    Damaged,
}

/// Why a profile is not all that there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Something is wrong in the middle, or the end is missing.
    #[error("the recording is damaged after {intact} of {length} bytes; what is before is used")]
    Broken {
        /// Bytes before the damage.
        intact: usize,
        /// Bytes that there should be.
        length: usize,
    },
    /// There was no room on the disk to go on.
    #[error("there was no room to record more than the first {:.1} s", *.duration_ns as f64 / 1e9)]
    NoRoom {
        /// Until when everything is there.
        duration_ns: u64,
    },
}

/// Reads the recording at a path.
pub fn read_file(path: &Path) -> Result<(Profile, Option<Damage>), Unreadable> {
    let file = std::fs::File::open(path)?;
    let mut bytes = Vec::new();
    // What is no recording is not read to its end.
    (&file).take(format::HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    check_header(&bytes)?;
    (&file).take(format::MOST_BYTES as u64).read_to_end(&mut bytes)?;
    read(&bytes)
}

/// How far a recording is that is being made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// As [`Meta::ticks`].
    pub ticks: u64,
    /// As [`Meta::missed`].
    pub missed: u64,
    /// As [`Meta::samples`].
    pub samples: u64,
    /// As [`Meta::failed`].
    pub failed: u64,
}

/// Reads how far the recording at a path is.
pub fn counters(path: &Path) -> Result<Counters, Unreadable> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(format::HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    check_header(&bytes)?;
    let at = |place: usize| {
        let bytes = bytes.get(place..place + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let [ticks, missed, samples, failed] =
        [counter::TICKS, counter::MISSED, counter::SAMPLES, counter::FAILED].map(at);
    Ok(Counters { ticks, missed, samples, failed })
}

/// Reads a recording.
pub fn read(bytes: &[u8]) -> Result<(Profile, Option<Damage>), Unreadable> {
    check_header(bytes)?;
    if bytes.len() > format::MOST_BYTES {
        return Err(Unreadable::TooLarge);
    }
    let mut reader = Reader::default();
    let mut at = format::HEADER_BYTES;
    let mut broken = false;
    while let Some(rest) = bytes.get(at..).filter(|rest| !is_end(rest)) {
        let added = record(rest).and_then(|(kind, contents)| {
            reader.add(kind, contents)?;
            Some(format::HEAD_BYTES + format::padded(contents.len()))
        });
        broken = added.is_none();
        match added {
            Some(length) => at += length,
            None => break,
        }
    }
    if reader.profile.frames.is_empty() {
        return Err(Unreadable::Damaged);
    }
    let counter = |at: usize| Contents(&bytes[at..]).long().unwrap_or_default();
    let meta = &mut reader.profile.meta;
    meta.ticks = counter(counter::TICKS);
    meta.missed = counter(counter::MISSED);
    meta.failed = counter(counter::FAILED);
    meta.duration_ns = counter(counter::DURATION_NS);
    let used = counter(counter::USED);
    let intact = at.min(bytes.len());
    let damage = if broken || used > intact as u64 {
        let length = usize::try_from(used).unwrap_or(usize::MAX).max(intact);
        Some(Damage::Broken { intact, length })
    } else {
        let full = counter(counter::FULL) != 0;
        full.then_some(Damage::NoRoom { duration_ns: meta.duration_ns })
    };
    Ok((reader.finish(), damage))
}

fn check_header(bytes: &[u8]) -> Result<(), Unreadable> {
    let magic = &bytes[..bytes.len().min(format::MAGIC.len())];
    match Contents(bytes.get(format::VERSION_AT..).unwrap_or_default()).number() {
        _ if bytes.is_empty() => Err(Unreadable::Empty),
        _ if !format::MAGIC.starts_with(magic) => Err(Unreadable::Foreign),
        Some(version) if version != format::VERSION => Err(Unreadable::Version(version)),
        _ if bytes.len() < format::HEADER_BYTES => Err(Unreadable::Damaged),
        _ => Ok(()),
    }
}

/// Whether there is no record: the rest of the file is room for more.
fn is_end(rest: &[u8]) -> bool {
    rest.iter().take(4).all(|&byte| byte == 0)
}

/// The record that bytes begin with, if it is whole and as it was written.
fn record(bytes: &[u8]) -> Option<(Kind, &[u8])> {
    let mut head = Contents(bytes);
    let (kind, length) = Kind::of_word(head.number()?)?;
    let checksum = head.number()?;
    let contents = head.0.get(..length)?;
    (kind.checksum(contents) == checksum).then_some((kind, contents))
}

/// Makes a profile of records.
#[derive(Default)]
struct Reader {
    profile: Profile,
    functions: Numbers<Function>,
    /// The function of each record of one: two may say the same.
    function_ids: Vec<FunctionId>,
    /// How many frames each stack has.
    depths: Vec<u32>,
    /// Where the sample of a thread, stack and state is.
    samples: HashMap<(ThreadId, StackId, State), usize>,
    /// Number of each tally, and its sample.
    sample_of: Vec<(u32, u32)>,
    /// Of the timeline.
    blocks: Vec<Arc<[u8]>>,
}

impl Reader {
    fn finish(self) -> Profile {
        let Self { mut profile, functions, sample_of: numbered, blocks, .. } = self;
        profile.functions = functions.keys;
        if profile.processes.is_empty() {
            profile.processes.push(profile.meta.process());
        }
        let last = ProcessId(profile.processes.len() as u32 - 1);
        profile.threads.iter_mut().for_each(|thread| thread.process = thread.process.min(last));
        // As many numbers as tallies, unless it is damaged.
        let mut sample_of = vec![u32::MAX; numbered.len()];
        for (number, sample) in numbered {
            if let Some(place) = sample_of.get_mut(number as usize) {
                *place = sample;
            }
        }
        profile.timeline = Timeline::new(blocks, sample_of);
        profile
    }

    /// Adds a record, unless it makes no sense.
    fn add(&mut self, kind: Kind, contents: &[u8]) -> Option<()> {
        let mut contents = Contents(contents);
        let profile = &mut self.profile;
        match kind {
            Kind::Meta => {
                let (process, interval_ns) = contents.process()?;
                let Process { pid, parent_pid, start_unix_ns, .. } = process;
                let Process { program, command, python, .. } = process;
                profile.meta = Meta {
                    pid,
                    parent_pid,
                    program,
                    command,
                    python,
                    start_unix_ns,
                    interval_ns,
                    ..Meta::default()
                };
            }
            Kind::Process => {
                let (process, duration_ns) = contents.process()?;
                profile.processes.push(Process { duration_ns, ..process });
            }
            Kind::Moments => self.blocks.push(contents.0.into()),
            Kind::Function => {
                let first_line = contents.number()?;
                let (file, name) = (contents.text()?.into(), contents.text()?.into());
                let number = self.functions.of(Function { file, name, first_line });
                self.function_ids.push(FunctionId(number));
            }
            Kind::Frame => {
                let frame = contents.frame()?;
                let function = *self.function_ids.get(frame.function.0 as usize)?;
                profile.frames.push(Frame { function, ..frame });
            }
            Kind::Stack => {
                let parent = contents.number()?;
                let parent = (parent != format::NO_PARENT).then_some(StackId(parent));
                let frame = contents.number()?;
                profile.frames.get(frame as usize)?;
                let depth = match parent {
                    None => 1,
                    Some(parent) => self.depths.get(parent.0 as usize)? + 1,
                };
                if depth > DEEPEST {
                    return None;
                }
                self.depths.push(depth);
                profile.stacks.push(Stack { parent, frame: FrameId(frame) });
            }
            Kind::Thread => {
                let process = ProcessId(contents.number()?);
                let (tid, is_main) = (contents.number()?, contents.number()? != 0);
                let interpreter = contents.long()? as i64;
                let name = "".into();
                profile.threads.push(Thread { process, tid, name, is_main, interpreter });
            }
            Kind::ThreadName => {
                let thread = profile.threads.get_mut(contents.number()? as usize)?;
                thread.name = contents.text()?.into();
            }
            Kind::Tally => {
                let thread = ThreadId(contents.number()?);
                profile.threads.get(thread.0 as usize)?;
                let stack = StackId(contents.number()?);
                profile.stacks.get(stack.0 as usize)?;
                let state = State::from_bits(contents.number()?)?;
                let number = contents.number()?;
                let sample = Sample {
                    thread,
                    stack,
                    state,
                    count: contents.long()?,
                    weight_ns: contents.long()?,
                    cpu_ns: contents.long()?,
                };
                let samples = profile.meta.samples.checked_add(sample.count);
                profile.meta.samples = samples.filter(|&samples| samples <= MOST_SAMPLES)?;
                let next = profile.samples.len();
                let at = *self.samples.entry((thread, stack, state)).or_insert(next);
                self.sample_of.push((number, at as u32));
                match profile.samples.get_mut(at) {
                    Some(known) => known.add(&sample),
                    None => profile.samples.push(sample),
                }
            }
        }
        Some(())
    }
}
